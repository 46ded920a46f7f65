"""Predictor: texts of every kind in, probabilities out; in order, in constant memory, as one
folder."""

import asyncio
import json
import math
import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from tests import tiny
from tests.product.serving.small_models import TEXTS, make_tokenizer, thresholds
from tests.timing import HANG_S
from viralbert.moments.ranking import find_moments
from viralbert.moments.scores import Scores
from viralbert.moments.subtitles import Cue
from viralbert.serving import predictor, text_batches
from viralbert.serving.predictor import ViralBERT
from viralbert_utils.base import tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import EMOTIONS, RUSSIAN_NAMES
from viralbert_utils.evaluation.calibration import Calibration
from viralbert_utils.evaluation.thresholds import Thresholds
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier


@pytest.fixture(scope="module")
def bert() -> ViralBERT:
    torch.manual_seed(0)
    encoder = tiny.bert(300)
    heads = {"virality": Head(("viral",)), "emotions": Head(EMOTIONS)}
    model = MultiTaskClassifier(encoder, heads, "mean", train_embeddings=False).eval()
    for head in model.heads.values():
        torch.nn.init.normal_(head[-1].weight, std=1.0)
    about = {"max_length": 24}
    both = {"virality": thresholds(["viral"], 0.5), "emotions": thresholds(EMOTIONS, 0.5)}
    return ViralBERT(model, make_tokenizer(), about, both)


# answers


def test_one_text_gives_one_answer_and_a_list_a_list(bert):
    one, (first, *rest) = bert.predict(TEXTS[0]), bert.predict(TEXTS)
    assert len(rest) == 3
    assert one.viral_score == pytest.approx(first.viral_score, abs=1e-6)
    assert tuple(one.probabilities) == EMOTIONS
    assert bert.predict([]) == []
    assert len(bert.predict(np.array(TEXTS))) == len(bert.predict(tuple(TEXTS))) == 4


def test_answers_are_the_models_own(bert):
    for text, found in zip(TEXTS, bert.predict(TEXTS), strict=True):
        ids = tokens.encode(bert.tokenizer, [text], 24, 0.5)
        with torch.inference_mode():
            logits = bert.model(torch.tensor(ids), torch.ones((1, len(ids[0])), dtype=torch.long))[
                0
            ].numpy()
        assert [found.viral_score, *found.probabilities.values()] == pytest.approx(
            expit(logits), abs=1e-5
        )
        assert found.is_viral == (logits[0] >= 0)


def test_emotions_are_those_above_their_thresholds_best_first(bert):
    values = np.full(len(EMOTIONS), 0.5)
    values[EMOTIONS.index("joy")] = np.inf
    emotions = replace(bert.emotions, values=tuple(values))
    strict = replace(bert, thresholds={**bert.thresholds, "emotions": emotions})
    for found in strict.predict(TEXTS):
        expected = {name for name, p in found.probabilities.items() if p >= 0.5 and name != "joy"}
        assert {emotion.name for emotion in found.emotions} == expected
        assert expected
        values = [emotion.probability for emotion in found.emotions]
        assert values == sorted(values, reverse=True)
        assert all(emotion.russian == RUSSIAN_NAMES[emotion.name] for emotion in found.emotions)


def test_as_dict_is_json(bert):
    plain = bert.predict(TEXTS[0]).as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain) == ["viral_score", "is_viral", "emotions", "probabilities"]
    assert set(plain["emotions"][0]) == {"name", "russian", "probability"}


@given(
    st.lists(st.text(max_size=60), min_size=1, max_size=12), st.integers(1, 5), st.integers(20, 200)
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_order_and_answers_do_not_depend_on_windows_and_batches(bert, texts, window, budget):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "WINDOW", window)
        patch.setattr(text_batches.in_batches, "__kwdefaults__", {"n_tokens": budget})
        found = bert.predict(texts)
    alone = [bert.predict(text) for text in texts]
    for a, b in zip(found, alone, strict=True):
        assert [a.viral_score, *a.probabilities.values()] == pytest.approx(
            [b.viral_score, *b.probabilities.values()], abs=1e-5
        )
        assert all(0 <= value <= 1 for value in [a.viral_score, *a.probabilities.values()])


def test_batches_hold_every_text_once_and_keep_the_budget():
    lengths = [*np.random.default_rng(0).integers(2, 64, 500).tolist(), tokens.BATCH_TOKENS + 1]
    batches = tokens.batches(lengths)
    assert sorted(position for batch in batches for position in batch) == list(range(501))
    assert batches[0] == [500], "a text over the budget stands alone"
    assert all(len(b) * max(lengths[i] for i in b) <= tokens.BATCH_TOKENS for b in batches[1:])
    assert len(batches) < 1.1 * sum(lengths) / tokens.BATCH_TOKENS + 2, "little padding"


# texts that are none


@pytest.mark.parametrize("text", ["", "   ", "\n\t\u00a0", "\u200b\ufeff"])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_an_empty_text_says_nothing(bert, text, threshold):
    both = {
        "virality": thresholds(["viral"], threshold),
        "emotions": thresholds(EMOTIONS, threshold),
    }
    low = replace(bert, thresholds=both)
    found = low.predict([TEXTS[0], text])[1]
    assert (found.viral_score, found.is_viral, found.emotions) == (0.0, False, ())
    assert set(found.probabilities.values()) == {0.0}


@pytest.mark.parametrize(
    "text", ["😂😂🔥", "How are you?", "你好", "!!!", "\ud83d", "a\x00b", "&amp;"]
)
def test_emoji_other_languages_and_odd_characters_are_read(bert, text):
    found = bert.predict(text)
    assert 0 < found.viral_score < 1
    assert all(0 < p < 1 for p in found.probabilities.values())


def test_of_a_very_long_text_both_ends_are_read(bert):
    middle = "о" * 5_000_000
    long, other_middle = f"начало{middle}конец", f"начало{middle[:-9]} а внутри {middle}конец"
    scores = {
        text[-9:] + text[:9]: bert.predict(text).viral_score
        for text in (long, f"Начало{middle}конец", f"начало{middle}Конец")
    }
    assert len(set(scores.values())) == 3
    assert bert.predict(other_middle).viral_score == pytest.approx(
        bert.predict(long).viral_score, abs=1e-6
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "NoneType"), (math.nan, "float"), (7, "int"), (b"x", "bytes"), (["а"], "list")],
)
def test_what_is_no_text_is_named_with_its_position(bert, value, kind):
    with pytest.raises(
        DataError, match=rf"position 2: expected a text .*\({kind}\); drop the row, or give ''"
    ):
        bert.predict(["а", "б", value])
    if not isinstance(value, list):
        with pytest.raises(DataError, match="expected a list or another iterable of texts"):
            bert.predict(value)


@pytest.mark.parametrize("value", ["Кот", {"text": "Кот"}, pd.DataFrame({"text": ["Кот"]})])
def test_what_would_give_letters_or_names_is_no_iterable_of_texts(bert, value):
    with pytest.raises(DataError, match="expected a list"):
        next(bert.predict_iter(value))


def test_nan_never_comes_out(bert):
    broken = replace(bert, calibration=Calibration(np.array([np.nan]), np.array([0.0])))
    with pytest.raises(DataError, match="is nan"):
        broken.predict(TEXTS)


# many texts


def test_an_iterator_is_read_window_by_window(bert, monkeypatch):
    monkeypatch.setattr(predictor, "WINDOW", 10)
    read = []
    found = bert.predict_iter(read.append(n) or f"текст {n}" for n in range(100))
    for _ in range(11):
        next(found)
    assert len(read) == 20


def test_memory_does_not_grow_with_the_number_of_texts(bert, monkeypatch):
    monkeypatch.setattr(predictor, "WINDOW", 50)

    def peak(n: int) -> int:
        tracemalloc.start()
        for _ in bert.predict_iter(f"слово {k}" + "ы" * 300 for k in range(n)):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(50)
    assert peak(500) < 1.3 * peak(100)


# calibration, moments


def test_calibration_changes_the_score_and_not_the_order(bert):
    calm = replace(bert, calibration=Calibration(np.array([0.5]), np.array([-1.0])))
    for raw, found in zip(bert.predict(TEXTS), calm.predict(TEXTS), strict=True):
        assert logit(found.viral_score) == pytest.approx(0.5 * logit(raw.viral_score) - 1)
        assert found.probabilities == raw.probabilities


def test_bfloat16_is_near(bert):
    exact, near = (
        np.array([[f.viral_score, *f.probabilities.values()] for f in b.predict(TEXTS)])
        for b in (bert, replace(bert, precision="bfloat16"))
    )
    assert 0 < np.abs(exact - near).max() < 0.03


def test_scores_are_what_moments_want(bert):
    scores = bert.scores(TEXTS)
    assert isinstance(scores, Scores)
    assert scores.viral == pytest.approx([found.viral_score for found in bert.predict(TEXTS)])
    assert scores.emotions.shape == (4, 28)
    assert np.shape(scores.thresholds) == (28,)
    assert bert.scores([]).emotions.shape == (0, 28)
    cues = [Cue(4.0 * k, 4.0 * k + 3.9, f"{text} И ещё {k}.") for k, text in enumerate(TEXTS * 8)]
    assert find_moments(cues, bert.scores).moments


def test_the_call_of_version_2(bert):
    entries = [{"text": f"{text} И ещё {k}.", "start": 4.0 * k} for k, text in enumerate(TEXTS * 8)]
    # In a thread of its own: the browser of the page tests leaves a running loop in this one.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(asyncio.run, bert.find_viral_moments_from_subtitles(entries)).result()
    assert found
    assert {"start", "end", "score", "emotions"} <= set(found[0])
    assert all(0 <= moment["start"] < moment["end"] for moment in found)


# the folder


def test_a_saved_predictor_answers_as_before(bert, tmp_path):
    whole = replace(bert, calibration=Calibration(np.array([0.4]), np.array([0.1])))
    for predictor_ in (whole, bert):  # the second replaces the first, calibration included
        predictor_.save(tmp_path / "model")
        loaded = ViralBERT.load(tmp_path / "model", "cpu")
        assert loaded.predict(TEXTS) == predictor_.predict(TEXTS)
        assert loaded.virality == predictor_.virality
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "calibration.json").exists()


_FORKING = """
import multiprocessing, sys, torch
from viralbert.serving.predictor import ViralBERT
torch.set_num_threads(2)
model = ViralBERT.load(sys.argv[1])
texts = ["Кот сам открыл дверь и попросил зарплату."] * 200
here = [found.as_dict() for found in model.predict(texts)]
# a tiny model alone may be computed without threads
torch.ones(1000, 1000) @ torch.ones(1000, 1000)
def again(queue):
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    queue.put([found.as_dict() for found in model.predict(texts)] == here)
context = multiprocessing.get_context("fork")
queue = context.Queue()
child = context.Process(target=again, args=(queue,), daemon=True)
child.start()
print(queue.get(timeout=float(sys.argv[2])))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_process_predicts_the_same(bert, tmp_path):
    bert.save(tmp_path / "saved")
    command = [sys.executable, "-c", _FORKING, str(tmp_path / "saved"), str(HANG_S)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * HANG_S, check=False)
    assert done.stdout == "True\n", done.stderr[-2000:]


def test_a_folder_without_a_model_says_what_was_expected_and_who_writes_it(tmp_path):
    with pytest.raises(
        DataError,
        match=r"expected classifier.json, or model.onnx of an export; lesson 06 leaves one",
    ):
        ViralBERT.load(tmp_path / "nothing")


def test_a_damaged_calibration_is_named(bert, tmp_path):
    bert.save(tmp_path / "model")
    lines = [
        (-1, 0),
        (0, 0),
        ("1e308", 0),
        ("Infinity", 0),
        (1, "-1e300"),
        (1, "NaN"),
        ("9" * 400, 0),
        (1, "null"),
    ]
    for content in (
        "{",
        '{"virality": {"slope": 1}}',
        "[]",
        "[" * 100_000,
        "9" * 5000,
        '"\u00ff',
        *(
            f'{{"virality": {{"slope": {slope}, "intercept": {intercept}}}}}'
            for slope, intercept in lines
        ),
    ):
        (tmp_path / "model" / "calibration.json").write_text(content, encoding="latin-1")
        with pytest.raises(
            DataError, match=r"calibration.json: expected a positive slope and an intercept"
        ):
            ViralBERT.load(tmp_path / "model")


def test_saving_does_not_replace_what_is_no_model(bert, tmp_path):
    (tmp_path / "letters.txt").write_text("важное")
    with pytest.raises(DataError, match="holds something that is no model"):
        bert.save(tmp_path)
    assert (tmp_path / "letters.txt").read_text() == "важное"


def test_a_failed_save_leaves_the_old_folder(bert, tmp_path, monkeypatch):
    bert.save(tmp_path / "model")
    monkeypatch.setattr(Thresholds, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bert.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert ViralBERT.load(tmp_path / "model").predict(TEXTS) == bert.predict(TEXTS)


def test_thresholds_of_other_classes_and_other_models_are_refused(bert):
    swapped = thresholds([EMOTIONS[1], EMOTIONS[0], *EMOTIONS[2:]], 0.5)
    with pytest.raises(DataError, match="'admiration' where 'amusement' was expected"):
        replace(bert, thresholds={"emotions": swapped})
    with pytest.raises(DataError, match="'viral' where 'popular' was expected"):
        replace(bert, thresholds={"virality": thresholds(["popular"], 0.5)})
    with pytest.raises(
        DataError, match="thresholds of cedr, where the model has the tasks virality, emotions"
    ):
        replace(bert, thresholds={"cedr": thresholds(["joy"], 0.5)})
    with pytest.raises(
        DataError, match=r"names its classes .*, found Linear with the settings \['max_length'\]"
    ):
        replace(bert, model=torch.nn.Linear(2, 2))

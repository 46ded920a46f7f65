"""`viralbert train --profile viralbert`: teachers in folds, one student, and how it is judged."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from viralbert import distillation, train, trainings
from viralbert.cli import main
from viralbert.distillation import Distillation
from viralbert.serving import export
from viralbert.serving.predictor import ViralBERT
from viralbert.trainings import Training
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import folder_sha256
from viralbert_utils.data import sources
from viralbert_utils.data.emotions import CEDR_CLASSES, EMOTIONS
from viralbert_utils.evaluation import baselines
from viralbert_utils.training import loop

N_ROWS = 160


@pytest.fixture(scope="module", autouse=True)
def few_folds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "N_FOLDS", 2)
        patch.setattr(distillation, "TEACHER_EPOCHS", {"cedr": 2, "virality": 1})
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Rows of the sample, and made-up ones in the place of CEDR."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("emotions", "virality", "cedr"):
        (folder / name).mkdir()
    for name in ("emotions", "virality"):
        table = sources.load(name).splits["all"].head(N_ROWS)
        table.to_csv(folder / name / "train.csv", index=False)
    words = ["кот", "дождь", "забор", "сосед", "огурец", "зонт", "балкон", "фонарь", "чай", "мяч"]
    texts = [f"{words[k % 10]} и {words[k // 10]} встретили утро {k}" for k in range(100)]
    labels = [f"[{k % 6}]" if k % 6 < 5 else "[]" for k in range(100)]
    cedr = pd.DataFrame({"text": texts, "labels": labels, "source": "x"})
    cedr.to_csv(folder / "cedr" / "train.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def recipe(encoder, data) -> Training:
    return Training(
        encoder,
        "viralbert",
        str(data),
        epochs=1,
        learning_rate=1e-3,
        batch_size=64,
        max_length=24,
    )


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> tuple[Path, str]:
    """What the command leaves, and what it prints."""
    folder, printed = tmp_path_factory.mktemp("finished"), io.StringIO()
    options = {
        "--encoder": recipe.encoder,
        "--data": recipe.data,
        "--epochs": "1",
        "--lr": "0.001",
        "--batch-size": "64",
        "--max-length": "24",
    }
    command = ["train", "--profile", "viralbert", "--output", str(folder)]
    with contextlib.redirect_stdout(printed):
        assert main([*command, *(part for option in options.items() for part in option)]) == 0
    return folder / "viralbert", printed.getvalue()


@pytest.fixture
def work(recipe, tmp_path) -> Distillation:
    return Distillation(recipe, distillation.read(recipe)[0], tmp_path, False)


def test_the_command_leaves_model_and_figures_with_what_they_stand_beside(finished):
    folder, printed = finished
    assert {path.name for path in folder.iterdir()} == {
        *("model", "metrics.json", "history.csv", "teachers", "training.json")
    }
    assert not list((folder / "teachers").glob("*.pt")), "checkpoints go when all is done"
    assert len(pd.read_csv(folder / "history.csv")) == 1
    figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert {file["set"] for file in figures["files"]} == {"emotions", "cedr", "virality"}
    assert set(figures["seconds of each step"]) > {"tfidf-0", "encoder-1", "student"}
    for task in ("emotions", "cedr", "virality"):
        assert f"{task}, macro-F1 on held out: model 0." in printed
        assert figures["rows"][task]["held out"] > 10
        systems = figures["figures"][task]["held out"]
        assert list(systems) == ["model", "TF-IDF", "encoders", "teachers"]
        for name, own in systems.items():
            score = own["macro-F1"]
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
            assert ("model minus this, macro-F1" in own) == (name != "model")
            if name != "model":
                paired = own["model minus this, macro-F1"]["value"]
                assert paired == pytest.approx(
                    systems["model"]["macro-F1"]["value"] - score["value"]
                )
                assert "model minus this, ROC AUC" in own


def test_the_baseline_has_learnt_from_all_training_texts(finished, recipe):
    figures = json.loads((finished[0] / "metrics.json").read_text(encoding="utf-8"))["figures"]
    part = distillation.read(recipe)[0]["cedr"]
    model = baselines.tfidf_logistic().fit(part.texts, part.labels)
    said = logit(model.predict_proba(part.held_texts))
    assert figures["cedr"]["held out"]["TF-IDF"]["Brier score"] == pytest.approx(
        distillation.judge(part, {"TF-IDF": said})["TF-IDF"]["Brier score"]
    )


def test_the_model_answers_with_calibrated_heads_and_thresholds_of_its_own(finished, recipe):
    model = ViralBERT.load(finished[0] / "model", "cpu")
    result = model.predict("Кот открыл дверь и попросил зарплату!")
    assert tuple(result["probabilities"]) == EMOTIONS
    assert tuple(result["cedr"]["probabilities"]) == CEDR_CLASSES
    assert not model.note, "each task has thresholds"
    part = distillation.read(recipe)[0]["virality"]
    said = np.array([one["viral_score"] for one in model.predict(part.held_texts)])
    # What Platt's line does: on the rows that it was fitted on, the mean is the (softened) share.
    n, k = len(said), part.held_labels.sum()
    softened = (k * (k + 1) / (k + 2) + (n - k) / (n - k + 2)) / n
    assert said.mean() == pytest.approx(softened, abs=1e-3)


def recorded(monkeypatch) -> list[tuple[loop.Task, loop.Settings]]:
    """What the networks would have been trained on; nothing is trained."""
    fits: list[tuple[loop.Task, loop.Settings]] = []
    monkeypatch.setattr(
        loop,
        "fit",
        lambda model, task, settings, *_: fits.append((task, settings)) or pd.DataFrame(),
    )
    return fits


def test_no_held_out_text_is_trained_on_by_anybody(recipe, tmp_path, monkeypatch):
    sample = replace(recipe, data="sample", max_rows=300)
    parts, files = distillation.read(sample)
    assert list(parts) == ["emotions", "virality"], "the sample has no CEDR"
    assert {file["set"] for file in files} == set(parts)
    trained = {text for part in parts.values() for text in part.texts}
    held = {text for part in parts.values() for text in part.held_texts}
    assert len(trained) > 300 and len(held) > 100
    assert not trained & held
    fits = recorded(monkeypatch)
    work = Distillation(sample, parts, tmp_path, False)
    said = np.full((len(work.texts), 29), 0.5)
    work.student(said)
    ((task, _),) = fits
    rows = {tuple(row) for row in task.train.rows}
    assert rows == {tuple(row) for row in work.rows[: work.n_train]}
    assert [tuple(row) for row in task.validation.rows] == list(
        map(tuple, work.rows[work.n_train :])
    )


def test_a_teacher_sees_neither_its_fold_nor_what_is_held_out(work, monkeypatch):
    fits = recorded(monkeypatch)
    seen: list[list[str]] = []
    monkeypatch.setattr(baselines, "tfidf_logistic", lambda: _Guess(seen))
    work._tfidf(1)
    work._encoder(1)
    for part, (task, settings), texts in zip(work.parts.values(), fits, seen, strict=True):
        others = [text for text, fold in zip(part.texts, part.fold, strict=True) if fold != 1]
        assert 0 < len(others) < len(part.texts)
        assert texts == others
        place = dict(zip(work.texts, work.rows, strict=True))
        assert task.train.rows == [place[text] for text in others]
        assert task.train.labels.numpy().tolist() == part.labels[part.fold != 1].tolist()
        assert settings.keep == "last", "what is held out chooses no epoch"


class _Guess:
    """A baseline that answers one half, and keeps what it is given to learn from."""

    def __init__(self, seen: list[list[str]]) -> None:
        self.seen = seen

    def fit(self, texts: list[str], labels: np.ndarray) -> "_Guess":
        self.seen.append(texts)
        self.n_classes = labels.shape[1]
        return self

    def predict_proba(self, texts: list[str]) -> np.ndarray:
        return np.full((len(texts), self.n_classes), 0.5)


def test_the_student_learns_its_own_label_mixed_and_the_other_tasks_from_the_teachers(
    work, monkeypatch
):
    fits = recorded(monkeypatch)
    said = np.random.default_rng(0).uniform(size=(len(work.texts), 28 + 6 + 1))
    work.student(said)
    ((task, settings),) = fits
    targets = task.train.labels.numpy()
    start = 0
    for name, part in work.parts.items():
        rows, columns = slice(start, start + len(part.texts)), work.columns[name]
        assert targets[rows, columns] == pytest.approx(
            0.4 * part.labels + 0.6 * said[rows, columns], abs=1e-6
        )
        other = np.ones(35, dtype=bool)
        other[columns] = False
        assert targets[rows, other] == pytest.approx(said[rows, other], abs=1e-6)
        start += len(part.texts)
    assert settings.keep == "last"
    known = ~task.validation.labels.isnan().numpy()
    assert known.sum() == sum(part.held_labels.size for part in work.parts.values())


def test_teachers_are_asked_out_of_fold_and_brought_to_the_shares_of_the_labels(work, monkeypatch):
    rng = np.random.default_rng(0)
    logits = {
        f"{kind}-{k}": rng.normal(size=(len(work.texts), 35))
        for kind in ("tfidf", "encoder")
        for k in range(2)
    }
    monkeypatch.setattr(work, "_remember", lambda name, *_: logits[name])
    said, means = work.teachers()
    assert said == pytest.approx(1 / (1 + np.exp(-means["teachers"])))
    part, own, columns = work.parts["cedr"], work.own_rows("cedr"), work.columns["cedr"]
    # The shift of a class is the same for all texts: differences within a fold are the teachers'.
    for fold in (0, 1):
        mine = np.arange(len(work.texts))[own][part.fold == fold]
        wanted = (logits[f"tfidf-{fold}"] + logits[f"encoder-{fold}"])[mine, columns] / 2
        found = means["teachers"][mine, columns]
        assert np.diff(found, axis=0) == pytest.approx(np.diff(wanted, axis=0))
    assert said[own, columns].mean(axis=0) == pytest.approx(part.labels.mean(axis=0), abs=0.06)
    elsewhere = work.own_rows("virality")
    wanted = np.mean(list(logits.values()), axis=0)[elsewhere, columns]
    assert np.diff(means["teachers"][elsewhere, columns], axis=0) == pytest.approx(
        np.diff(wanted, axis=0)
    )


# stopped runs


def test_a_stopped_run_goes_on_and_ends_with_the_same_weights(
    finished, recipe, tmp_path, monkeypatch
):
    run_epoch, tfidf, calls = loop._Training.run_epoch, baselines.tfidf_logistic, []

    def stopped(*given):
        calls.append("epoch")
        if calls.count("epoch") == 6:  # the second fold's teacher has learnt emotions, not CEDR
            raise KeyboardInterrupt
        return run_epoch(*given)

    recipe, exports = replace(recipe, export_onnx=True), []
    monkeypatch.setattr(export, "export", lambda *folders: exports.append(folders))
    monkeypatch.setattr(loop._Training, "run_epoch", stopped)
    monkeypatch.setattr(baselines, "tfidf_logistic", lambda: calls.append("tfidf") or tfidf())
    with pytest.raises(KeyboardInterrupt):
        train.run(recipe, tmp_path)
    assert calls.count("tfidf") == 2 * 3
    assert {path.name for path in (tmp_path / "teachers").glob("*.npy")} == {
        *("tfidf-0.npy", "tfidf-1.npy", "encoder-0.npy")
    }
    for other in (replace(recipe, seed=1), replace(recipe, epochs=2)):
        with pytest.raises(DataError, match="holds another training, or the data have changed"):
            train.run(other, tmp_path)
    calls_before = len(calls)
    train.run(recipe, tmp_path)
    again = calls[calls_before:]
    assert again.count("tfidf") == 3, "the baselines alone"
    assert again.count("epoch") == 2 + 1 + 1, "CEDR and virality of one fold, and the student"
    assert folder_sha256(tmp_path / "model") == folder_sha256(finished[0] / "model")
    assert exports == [(tmp_path / "model", tmp_path / "onnx")]


def test_a_finished_run_is_not_repeated_and_not_mixed_up(finished, recipe, monkeypatch):
    monkeypatch.setattr(loop, "fit", None)
    (own,) = trainings.profile("viralbert", vars_of(recipe)).values()
    wanted = json.loads((finished[0] / "metrics.json").read_text(encoding="utf-8"))
    assert train.run(own, finished[0]) == wanted
    with pytest.raises(DataError, match="holds another training"):
        train.run(replace(own, epochs=2), finished[0])


def vars_of(recipe: Training) -> dict:
    names = ("encoder", "data", "epochs", "learning_rate", "batch_size", "max_length")
    return {name: getattr(recipe, name) for name in names}


def test_a_text_that_the_encoder_cannot_read_is_refused(recipe, tmp_path):
    with pytest.raises(DataError, match=r"max_length is 4096, and the encoder .* reads 32 at most"):
        train.run(replace(recipe, max_length=4096), tmp_path)
    assert not list(tmp_path.iterdir()), "the folder belongs to nobody yet"


def test_a_test_split_of_the_publisher_is_told_from_one_of_our_own(data, recipe, tmp_path):
    parts, _ = distillation.read(recipe)
    assert list(parts) == ["emotions", "cedr", "virality"]
    assert not any(part.published_test for part in parts.values())
    for name in parts:
        (tmp_path / name).symlink_to(data / name)
    (tmp_path / "cedr").unlink()
    (tmp_path / "cedr").mkdir()
    table = pd.read_csv(data / "cedr" / "train.csv")
    table.head(70).to_csv(tmp_path / "cedr" / "train.csv", index=False)
    table.tail(30).to_csv(tmp_path / "cedr" / "test.csv", index=False)
    part = distillation.read(replace(recipe, data=str(tmp_path)))[0]["cedr"]
    assert part.published_test
    published = {text for text, tunes in zip(part.held_texts, part.tunes, strict=True) if not tunes}
    assert published == set(table.tail(30)["text"])
    assert set(np.unique(part.fold)) == {0, 1}

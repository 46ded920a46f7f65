"""The sample data keep what their datasheet says, and are neither noise nor a giveaway."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_predict

from viralbert_utils.base import texts
from viralbert_utils.base.files import ROOT
from viralbert_utils.data import cleaning, emotions, sources, splits
from viralbert_utils.data.sources import SAMPLE
from viralbert_utils.evaluation import baselines, intervals, metrics, thresholds
from viralbert_utils.lessons import preparation

CLEANED = {
    name: cleaning.clean(dataset, **cleaning.RULES[name])
    for name, dataset in preparation.load_all("sample").items()
}


def rows(name: str) -> pd.DataFrame:
    return CLEANED[name].splits["all"]


@pytest.mark.parametrize(
    ("name", "least"), [("emotions", 1600), ("virality", 800), ("reviews", 300), ("videos", 320)]
)
def test_size_and_nothing_to_clean(name, least):
    assert len(rows(name)) >= least
    assert CLEANED[name].dropped.empty


def test_no_near_duplicates_anywhere():
    for name in ("emotions", "virality", "reviews"):
        keys = [texts.comparison_key(text) for text in rows(name)["text"]]
        assert not cleaning.near_duplicates(keys, 0.7)


def test_emotions_are_complete_imbalanced_and_partly_mixed():
    hot = emotions.multi_hot(rows("emotions")["labels"])
    assert hot.sum(axis=0).min() >= 30
    assert hot.sum(axis=0).max() / hot.sum(axis=0).min() > 10
    assert 0.15 <= (hot.sum(axis=1) > 1).mean() <= 0.3
    # Neutral never stands beside another label.
    assert (hot[hot[:, emotions.NEUTRAL] == 1].sum(axis=1) == 1).all()


def test_virality_labels_follow_neither_topic_nor_kind_nor_length():
    table = rows("virality").assign(n_words=rows("virality")["text"].str.split().str.len())
    share = table["label"].astype(int).mean()
    assert 0.3 < share < 0.45
    for column in ("topic", "kind"):
        groups = table.groupby(column)["label"].apply(lambda part: part.astype(int).mean())
        assert (groups - share).abs().max() < 0.1
    medians = table.groupby("label")["n_words"].median()
    assert medians.max() / medians.min() < 1.25


def test_reviews_are_of_thirty_films_and_of_the_promised_length():
    table = rows("reviews")
    films = table.groupby("film")
    assert len(films) >= 30
    assert films.size().min() >= 8
    # One film pleased nobody equally, but each has reviewers who disagree.
    assert films["label"].nunique().min() >= 2
    lengths = table["text"].str.split().str.len()
    assert lengths.between(38, 155).all()
    assert set(table["label"]) == {"bad", "neutral", "good"}


def test_videos_have_rare_classes_gaps_and_other_languages():
    table = sources.load("videos").splits["all"]
    sizes = table["label"].value_counts()
    assert len(sizes) == 16
    assert sizes.min() <= 5
    assert sizes.max() >= 40
    for column in (
        "subtitles",
        "views",
        "duration_s",
        "published_at",
        "channel_type",
        "description",
    ):
        assert 0.01 < (table[column] == "").mean() < 0.4
    assert (table["international"].astype(int).mean()) > 0.1
    cyrillic = [texts.cyrillic_share(text) for text in table["text"]]
    assert np.mean(np.array(cyrillic) < 0.3) > 0.05
    named = [
        label.lower() in text.lower()
        for label, text in zip(table["label"], table["title"], strict=True)
    ]
    assert np.mean(named) < 0.5


def test_emotions_are_neither_noise_nor_a_giveaway():
    parts = splits.split_set("emotions", CLEANED["emotions"].splits)
    hot = {split: emotions.multi_hot(part["labels"]) for split, part in parts.items()}
    model = baselines.tfidf_logistic(20_000, balanced=True).fit(
        parts["train"]["text"], hot["train"]
    )
    one = thresholds.best_global(
        hot["validation"], model.predict_proba(parts["validation"]["text"])
    )
    predicted = thresholds.decide(model.predict_proba(parts["test"]["text"]), one)
    interval = intervals.macro_f1_interval(hot["test"], predicted)
    assert interval.low > 3 * metrics.macro_f1(hot["test"], np.ones_like(hot["test"]))
    assert interval.high < 0.8


@pytest.mark.parametrize(
    ("name", "low", "high"), [("virality", 0.6, 0.92), ("reviews", 0.55, 0.95)]
)
def test_single_labels_are_neither_noise_nor_a_giveaway(name, low, high):
    table = rows(name)
    classes = sorted(table["label"].astype(str).unique())
    labels = metrics.one_hot(table["label"].astype(str).to_numpy(), classes)
    model = baselines.tfidf_logistic(20_000)
    scores = cross_val_predict(
        model, table["text"], table["label"].astype(str), cv=5, method="predict_proba"
    )
    assert low < metrics.mean_roc_auc(labels, scores) < high


def test_videos_are_neither_noise_nor_a_giveaway():
    table = rows("videos")
    common = table[table.groupby("label")["label"].transform("size") >= 10]
    model = baselines.tfidf_logistic(20_000, balanced=True)
    predicted = cross_val_predict(model, common["text"], common["label"], cv=5)
    assert 0.3 < f1_score(common["label"], predicted, average="macro") < 0.95


# Subtitles ----------------------------------------------------------------------------------------

FOLDER = SAMPLE / "subtitles"
GOLD = json.loads((FOLDER / "gold_moments.json").read_text(encoding="utf-8"))
TIMES = re.compile(r"(\d\d):(\d\d):(\d\d)[.,](\d{3}) --> (\d\d):(\d\d):(\d\d)[.,](\d{3})")


def cue_times(path) -> list[tuple[float, float]]:
    found = []
    for groups in TIMES.findall(path.read_text(encoding="utf-8")):
        h, m, s, ms, h2, m2, s2, ms2 = map(int, groups)
        found.append((h * 3600 + m * 60 + s + ms / 1000, h2 * 3600 + m2 * 60 + s2 + ms2 / 1000))
    return found


@pytest.mark.parametrize(
    "path",
    sorted(p for p in FOLDER.iterdir() if p.suffix in (".srt", ".vtt")),
    ids=lambda p: p.name,
)
def test_subtitles_and_their_gold_moments(path):
    times = cue_times(path)
    assert 8 * 60 <= times[-1][1] <= 12 * 60
    assert all(start < end for start, end in times)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(times))
    gold = GOLD[path.stem]
    assert 3 <= len(gold) <= 6
    starts, ends = {start for start, _ in times}, {end for _, end in times}
    for moment in gold:
        assert moment["start"] in starts
        assert moment["end"] in ends
        assert 15 <= moment["end"] - moment["start"] <= 60
        assert len(moment["reason"].split()) >= 5
    ordered = sorted(gold, key=lambda moment: moment["start"])
    assert all(a["end"] <= b["start"] for a, b in itertools.pairwise(ordered))


def test_five_files_in_two_formats():
    assert set(GOLD) == {"interview", "stream", "lecture", "vlog", "comedy"}
    assert {path.suffix for path in FOLDER.iterdir()} == {".srt", ".vtt", ".json"}


def test_no_text_of_the_sample_looks_damaged():
    repair = texts._mojibake_repair()
    lines = [
        line
        for path in (ROOT / "data" / "sample").rglob("*.*")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) > 5000
    assert [line for line in lines if repair(line) != line] == []


# The datasheet ------------------------------------------------------------------------------------


def test_datasheet_figures_are_those_of_the_files():
    sheet = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    hot = emotions.multi_hot(rows("emotions")["labels"])
    agreement = {}
    for name in ("emotions", "virality", "reviews"):
        both = sources.second_annotation(sources.load(name))
        agreement[name] = preparation.agreement(list(both["first"]), list(both["second"]))
    facts = [f"{len(rows(name)):,}" for name in CLEANED]
    facts += [
        f"{(hot.sum(axis=1) > 1).mean():.0%}",
        str(hot.sum(axis=0).min()),
        str(hot.sum(axis=0).max()),
    ]
    facts += [f"{agreed['kappa']:.2f}" for agreed in agreement.values()]
    facts += [str(agreed["texts"]) for agreed in agreement.values()]
    for fact in facts:
        assert re.search(rf"(?<![\d.,]){re.escape(fact)}(?!\d)", sheet), fact

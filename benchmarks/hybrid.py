"""Text and table on real data: the hybrid with the embedded encoder's word vectors against TF-IDF,
on the same rows.

    .venv/bin/python benchmarks/hybrid.py <data folder>

Headlines (virality): does the table (category, hour, weekday) help the title to tell what will be
read? The oldest rows train, the newest are scored, by ROC AUC. Columns that are known only after
publication show what a leak looks like. Videos: topic (the first level of the first tag) by title
and description, five parts, macro-F1; with the cascade. Prints intervals, and paired differences on
the same rows.
"""

from __future__ import annotations

import re
import sys

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.model_selection import StratifiedKFold

from viralbert_utils.data import cleaning, sources, splits
from viralbert_utils.encoders import loading
from viralbert_utils.evaluation import baselines, intervals, metrics
from viralbert_utils.lessons import cascade, columns, hybrid
from viralbert_utils.lessons.columns import Preparation
from viralbert_utils.training.settings import Settings

SETTINGS = Settings(epochs=20, batch_size=16, learning_rate=3e-3)
MANY = Settings(epochs=5, batch_size=64, learning_rate=3e-3)
BEFORE = ["category", "hour", "weekday"]
AFTER = ["ctr", "depth", "full_reads_percent"]
MAX_LENGTH, MIN_ROWS, N_FOLDS = 128, 10, 5


def tfidf_and_columns(train: pd.DataFrame, test: pd.DataFrame, prepared: Preparation) -> np.ndarray:
    """Probability of the label by logistic regression on TF-IDF of the texts (if any) and the
    columns."""
    parts = [[sparse.csr_matrix(prepared.columns(rows)) for rows in (train, test)]]
    if prepared.texts:
        features = baselines.tfidf().fit(prepared.text(train))
        parts.append([features.transform(prepared.text(rows)) for rows in (train, test)])
    x, x_test = (sparse.hstack(own).tocsr() for own in zip(*parts, strict=True))
    return baselines.one_vs_rest().fit(x, train["label"]).predict_proba(x_test)[:, 1]


def headlines(source: str, tokenizer: object, encoder: object) -> None:
    """Print the comparison on headlines."""
    cleaned = cleaning.clean(sources.load("virality", source), **cleaning.RULES["virality"]).splits
    rows = pd.concat(cleaned.values(), ignore_index=True)
    times = pd.to_datetime(rows["published_at"])
    rows = rows.assign(hour=times.dt.hour.astype(str), weekday=times.dt.day_of_week.astype(str))
    parts = splits.by_time(rows, "published_at", {"train": 0.85, "test": 0.15})
    train, test = (
        part.assign(label=part["label"].astype(int).astype(str)) for part in parts.values()
    )
    truth = (test["label"] == "1").to_numpy().astype(int)
    print(
        f"headlines: {len(train)} older, {len(test)} newer rows, share of label 1 "
        f"{truth.mean():.3f}"
    )
    scores = {}
    for name, texts, numbers, categories in (
        ("text", ["text"], [], []),
        ("table", [], [], BEFORE),
        ("text + table", ["text"], [], BEFORE),
        ("text + table + LEAK", ["text"], AFTER, BEFORE),
    ):
        prepared = columns.prepare(train, texts, numbers, categories)
        scores[f"TF-IDF, {name}"] = tfidf_and_columns(train, test, prepared)
        model, _ = hybrid.train(train, "label", prepared, tokenizer, encoder, MANY, MAX_LENGTH)
        scores[f"network, {name}"] = model.probabilities(test)[:, 1]
    difference = intervals.gain(metrics.mean_roc_auc)
    for name, own in scores.items():
        auc = intervals.bootstrap(metrics.mean_roc_auc, truth, own)
        paired = intervals.bootstrap(difference, truth, scores["TF-IDF, text"], own)
        print(f"{name:28} ROC AUC {auc}, minus TF-IDF of the text {paired}", flush=True)


def videos(source: str, tokenizer: object, encoder: object) -> None:
    """Print the comparison on videos."""
    cleaned = cleaning.clean(sources.load("videos", source), **cleaning.RULES["videos"]).splits
    rows = pd.concat(cleaned.values(), ignore_index=True)
    rows = rows.assign(label=[re.split("[:,]", str(tags))[0].strip() for tags in rows["tags"]])
    texts = ["title", "description"]
    rows, aside = hybrid.set_aside(rows, "label", texts, MIN_ROWS, max_empty=1)
    classes, labels = sorted(rows["label"].unique()), rows["label"].to_numpy()
    print(
        f"\nvideos: {len(rows)} of {len(classes)} topics, set aside "
        f"{aside['reason'].value_counts().to_dict()}"
    )
    names = ("majority", "TF-IDF, logistic", "TF-IDF, least squares", "network", "cascade")
    answers = {name: np.empty(len(rows), dtype=object) for name in names}
    decided = []
    for learn, judge in StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(
        labels, labels
    ):
        train, test = rows.iloc[learn], rows.iloc[judge]
        prepared = columns.prepare(train, texts)
        model, _ = hybrid.train(train, "label", prepared, tokenizer, encoder, SETTINGS, MAX_LENGTH)
        steps = cascade.fit(train, "label", prepared, model)
        decided.append(steps.decide(test).assign(truth=labels[judge]))
        logistic = baselines.tfidf_logistic(C=10.0, balanced=True).fit(
            prepared.text(train), train["label"]
        )
        answers["majority"][judge] = train["label"].mode()[0]
        answers["TF-IDF, logistic"][judge] = logistic.predict(prepared.text(test))
        answers["TF-IDF, least squares"][judge] = np.array(classes)[
            steps.scores(test).argmax(axis=1)
        ]
        answers["network"][judge] = model.predict(test)[0]["answer"]
        answers["cascade"][judge] = decided[-1]["answer"]
    hot = {name: metrics.one_hot(own, classes) for name, own in answers.items()}
    truth = metrics.one_hot(labels, classes)
    for reference in ("TF-IDF, logistic", "network"):
        table = intervals.compare(truth, hot, reference).drop(columns="binary macro-F1")
        print(f"reference: {reference}\n{table.round(3).to_string()}")
    decisions = pd.concat(decided)
    print(cascade.by_stage(decisions, decisions["truth"].to_numpy()).round(3).to_string())


def main() -> None:
    """Print both comparisons."""
    tokenizer, whole = loading.load_encoder("embedded")
    encoder = hybrid.first_layers(whole, 0)
    headlines(sys.argv[1], tokenizer, encoder)
    videos(sys.argv[1], tokenizer, encoder)


if __name__ == "__main__":
    main()

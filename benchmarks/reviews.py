"""Film reviews by film: a linear head on the frozen embedded encoder against TF-IDF, on the same
rows.

    .venv/bin/python benchmarks/reviews.py <data folder>

Five parts by film; each is scored by a model that learnt from three others, and the fourth chooses
the strength of the penalty. Long reviews keep a quarter of the room for their beginning, the rest
for their end. Prints macro-F1 of the three classes with intervals that resample films, and paired
differences.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from viralbert_utils.base import tokens
from viralbert_utils.data import cleaning, sources, splits
from viralbert_utils.encoders import loading
from viralbert_utils.evaluation import baselines, intervals, metrics
from viralbert_utils.models import inference

CLASSES, N_PARTS = ["bad", "neutral", "good"], 5
MAX_LENGTH, HEAD_SHARE = 256, 0.25
STRENGTHS = {"words": (0.5, 2.0, 8.0), "vectors": (0.001, 0.01, 0.1)}


def one_hot(answers: np.ndarray) -> np.ndarray:
    """Class numbers as a 0/1 matrix."""
    return metrics.one_hot(answers, list(range(len(CLASSES))))


def make_model(kind: str, strength: float) -> object:
    """Logistic regression on TF-IDF of words, or on standardised vectors."""
    if kind == "words":
        return baselines.tfidf_logistic(C=strength, balanced=True)
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=500)
    )


def by_part(features: object, truth: np.ndarray, part: np.ndarray, kind: str) -> np.ndarray:
    """Answers for every review, from models that saw neither its film nor chose anything by it."""
    answers = np.empty_like(truth)
    for number in range(N_PARTS):
        tune, test = part == (number + 1) % N_PARTS, part == number
        found = {}
        for strength in STRENGTHS[kind]:
            model = make_model(kind, strength)
            model.fit(features[~tune & ~test], truth[~tune & ~test])
            score = metrics.macro_f1(one_hot(truth[tune]), one_hot(model.predict(features[tune])))
            found[score] = model
        answers[test] = found[max(found)].predict(features[test])
    return answers


def main() -> None:
    """Print the comparison."""
    source = sys.argv[1]
    cleaned = cleaning.clean(sources.load("reviews", source), **cleaning.RULES["reviews"])
    rows = pd.concat(cleaned.splits.values(), ignore_index=True)
    truth = rows["label"].map(CLASSES.index).to_numpy()
    parts = splits.by_group(
        rows, "film", "label", {f"part {i}": 1 / N_PARTS for i in range(N_PARTS)}, 0
    )
    part = (
        pd.concat([pd.Series(i, own.index) for i, own in enumerate(parts.values())])
        .sort_index()
        .to_numpy()
    )
    tokenizer, encoder = loading.load_encoder("embedded")
    ids = tokens.encode(tokenizer, list(rows["text"]), MAX_LENGTH, HEAD_SHARE)
    features = {"TF-IDF": rows["text"].to_numpy()}
    for pooling in ("cls", "mean", "max+mean"):
        vectors = inference.text_vectors(encoder, ids, tokenizer.pad_token_id, pooling).numpy()
        features[f"embedded, {pooling}"] = vectors
    answers = {"always the majority": np.full(len(truth), np.bincount(truth).argmax())}
    for name, own in features.items():
        answers[name] = by_part(own, truth, part, "words" if name == "TF-IDF" else "vectors")
    hot = {name: one_hot(own) for name, own in answers.items()}
    print(
        f"{len(rows)} reviews of {rows['film'].nunique()} films, classes "
        f"{np.bincount(truth).tolist()}"
    )
    films = rows["film"].to_numpy()
    for name, own in hot.items():
        value = metrics.macro_f1(one_hot(truth), own)
        gain = intervals.macro_f1_difference(one_hot(truth), hot["TF-IDF"], own, groups=films)
        accuracy = (answers[name] == truth).mean()
        print(
            f"{name:20} macro-F1 {value:.3f}, minus TF-IDF {gain}; accuracy {accuracy:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

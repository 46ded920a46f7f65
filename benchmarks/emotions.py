"""28 emotions on real texts: the embedded encoder against TF-IDF and logistic regression, on the
same rows.

    .venv/bin/python benchmarks/emotions.py <data folder> [seeds]

Trains on the training split and half of the validation split; a quarter of it chooses the epoch and
the thresholds, the last quarter is scored. Prints macro-F1 with intervals, the paired difference,
and the seconds of training. The mean of the logits of the encoder's last system and of TF-IDF,
weighted alike, stands beside both.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, logit

from viralbert_utils.base import tokens
from viralbert_utils.data import cleaning, emotions, sources, splits
from viralbert_utils.encoders import loading
from viralbert_utils.evaluation import baselines, intervals, metrics, thresholds
from viralbert_utils.lessons import rare_classes, threshold_study
from viralbert_utils.models import inference
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.training import loop, losses
from viralbert_utils.training.settings import Encoded, Settings, Task

SETTINGS = Settings(
    epochs=4,
    batch_size=64,
    learning_rate=5e-4,
    head_factor=10,
    embedding_factor=2,
    weight_decay=0.05,
    metric="roc_auc",
)
POOLING, DROPOUT, MAX_LENGTH = "attention+max+mean", 0.4, 64
RULES = {
    "one": thresholds.best_global,
    "per class": thresholds.best_per_class,
    "shrunk": thresholds.shrunk,
}


def load_rows(source: str) -> dict[str, pd.DataFrame]:
    """Training, tuning and test rows; the published test split where the folder has one."""
    parts = cleaning.clean(sources.load("emotions", source), **cleaning.RULES["emotions"]).splits
    shares = {"train": 0.5, "tune": 0.25, "test": 0.25}
    halves = splits.by_label(parts["validation"], shares)
    return halves | {"train": pd.concat([parts["train"], halves["train"]], ignore_index=True)}


def train(
    encoder: str,
    rows: dict[str, pd.DataFrame],
    settings: Settings,
    pooling: str = POOLING,
    labels: dict[str, np.ndarray] | None = None,
    first: tuple[list[str], np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], pd.DataFrame, float]:
    """Probabilities of the tuning and the test rows, the history, and the seconds of training.

    `labels`, 0/1 for each part, stand in the place of the 28 emotions for another task. `first`,
    texts and labels, are trained on before the others, for two epochs.
    """
    tokenizer, body = loading.load_encoder(encoder)
    labels = labels or {name: emotions.multi_hot(table["labels"]) for name, table in rows.items()}
    hot = {name: torch.tensor(part).float() for name, part in labels.items()}
    encoded = {
        name: Encoded(tokens.encode(tokenizer, list(table["text"]), MAX_LENGTH), hot[name])
        for name, table in rows.items()
    }
    torch.manual_seed(settings.seed)
    model = PooledClassifier(
        body, hot["train"].shape[1], pooling, DROPOUT, rates=hot["train"].mean(0)
    )

    def figures(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        truth, p = labels.numpy().astype(int), logits.sigmoid().numpy()
        decided = thresholds.cross_fit(truth, p, thresholds.shrunk)
        return {
            "roc_auc": metrics.mean_roc_auc(truth, p),
            "macro_f1": metrics.macro_f1(truth, decided),
        }

    start = time.perf_counter()
    pad_id = tokenizer.pad_token_id
    stages = [(encoded["train"], settings)]
    if first:
        more = Encoded(
            tokens.encode(tokenizer, first[0], MAX_LENGTH), torch.tensor(first[1]).float()
        )
        stages.insert(0, (more, replace(settings, epochs=2, learning_rate=SETTINGS.learning_rate)))
    for part, own in stages:
        loss = losses.binary_cross_entropy(rare_classes.positive_weights(part.labels, "power"))
        history = loop.fit(model, Task(part, encoded["tune"], loss, figures), own, pad_id)
    seconds = time.perf_counter() - start
    found = {
        n: inference.predict_probabilities(model, encoded[n].rows, pad_id) for n in ("tune", "test")
    }
    return found, history, seconds


def tfidf(rows: dict[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """The baseline's probabilities of the tuning and the test rows."""
    model = baselines.tfidf_logistic()
    model.fit(rows["train"]["text"], emotions.multi_hot(rows["train"]["labels"]))
    return {name: model.predict_proba(rows[name]["text"]) for name in ("tune", "test")}


def main() -> None:
    """Print the comparison."""
    source, n_seeds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    rows = load_rows(source)
    labels = {name: emotions.multi_hot(rows[name]["labels"]) for name in ("tune", "test")}
    scores = {"TF-IDF": tfidf(rows)}
    print(
        f"{ {name: len(table) for name, table in rows.items()} }, {torch.get_num_threads()} threads"
    )
    for seed in range(n_seeds):
        settings = replace(SETTINGS, seed=seed)
        scores[f"embedded, seed {seed}"], history, seconds = train("embedded", rows, settings)
        print(history.round(4).to_string(index=False))
        print(f"embedded, seed {seed}: {seconds:.0f} s of training", flush=True)
    own = [name for name in scores if name != "TF-IDF"]
    if n_seeds > 1:
        scores["embedded, mean of seeds"] = {
            part: np.mean([scores[name][part] for name in own], axis=0) for part in ("tune", "test")
        }
    both = [scores["TF-IDF"], list(scores.values())[-1]]  # do they know different things?
    scores["embedded and TF-IDF"] = {
        part: expit(np.mean([logit(np.clip(one[part], 1e-6, 1 - 1e-6)) for one in both], axis=0))
        for part in ("tune", "test")
    }
    decided = {
        f"{name}, {rule}": thresholds.decide(found["test"], choose(labels["tune"], found["tune"]))
        for name, found in scores.items()
        for rule, choose in RULES.items()
    }
    best = max(RULES, key=lambda rule: metrics.macro_f1(labels["test"], decided[f"TF-IDF, {rule}"]))
    chosen = {
        name: threshold_study.compare_rules(labels["tune"], found["tune"], rules=RULES)[
            "cross-fitted"
        ].idxmax()
        for name, found in scores.items()
    }
    print("\nrule chosen on the tuning rows, cross-fitted:", chosen)
    references = {
        "TF-IDF, shrunk": "the course's rule, set before for all",
        f"TF-IDF, {best}": (
            "the rule that suits TF-IDF best on the test rows themselves, which favours it"
        ),
        f"TF-IDF, {chosen['TF-IDF']}": "the rule chosen for TF-IDF on the tuning rows",
    }
    for reference, why in references.items():
        print(f"\nmacro-F1 on test; reference: {reference}, {why}")
        print(intervals.compare(labels["test"], decided, reference).round(3).to_string())
    for name, found in scores.items():
        print(
            f"mean ROC AUC of {name}:",
            intervals.bootstrap(metrics.mean_roc_auc, labels["test"], found["test"]),
        )


if __name__ == "__main__":
    main()

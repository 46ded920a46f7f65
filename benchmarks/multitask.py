"""Do two tasks fight on real texts? Each alone, two sums, PCGrad, and what TF-IDF adds to them.

    .venv/bin/python benchmarks/multitask.py <data folder> <folder for the runs> [seeds]

Emotions: 12,000 texts of the training split train, 6,000 others of it are scored, the validation
split chooses the epoch and the thresholds. Virality is split by time (`published_at`): the last
15 % are scored, the 10 % before them choose the epoch. A task alone has smaller batches, so all
systems make the same number of updates.

Each training's logits are kept in the folder, so a stopped run goes on. At the end the figures are
printed and written to `viralbert_utils/lessons/recorded/multitask.json`, which lesson 03 shows: the
mean over the seeds with its interval over the scored texts, each seed's own figure, and paired
differences.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import emotions as task
import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from viralbert.environment import environment
from viralbert_utils.base import tokens
from viralbert_utils.base.files import ROOT, whole_file, write_whole
from viralbert_utils.data import cleaning, emotions, sources, splits
from viralbert_utils.encoders import loading
from viralbert_utils.evaluation import baselines, metrics, thresholds
from viralbert_utils.lessons import rare_classes, soft_targets
from viralbert_utils.lessons.comparison import Comparison
from viralbert_utils.models import inference
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier
from viralbert_utils.training import loop, losses
from viralbert_utils.training.settings import Encoded, Task

RECORD = ROOT / "viralbert_utils" / "lessons" / "recorded" / "multitask.json"
N_TRAINING, N_SCORED, N_FOLDS = 12_000, 6_000, 4
SETTINGS = task.SETTINGS
HEADS = {"emotions": Head(emotions.EMOTIONS), "virality": Head(("viral",))}
# System: its tasks with the weights of their losses, the surgery, the share of the labels in the
# targets of emotions.
SYSTEMS: dict[str, tuple[dict[str, float], str, float]] = {
    "virality alone": ({"virality": 1.0}, "none", 1.0),
    "emotions alone": ({"emotions": 1.0}, "none", 1.0),
    "sum": ({"emotions": 1.0, "virality": 1.0}, "none", 1.0),
    "weighted sum": ({"emotions": 1.0, "virality": 0.1}, "none", 1.0),
    "PCGrad": ({"emotions": 1.0, "virality": 1.0}, "pcgrad", 1.0),
    "emotions alone, soft targets": ({"emotions": 1.0}, "none", 0.5),
}
Parts = dict[str, pd.DataFrame]
Logits = dict[tuple[str, str], np.ndarray]


def load_rows(source: str) -> dict[str, Parts]:
    """`train`, `validation` and `test` rows of both tasks."""
    own = cleaning.clean(sources.load("emotions", source), **cleaning.RULES["emotions"]).splits
    order = np.random.default_rng(0).permutation(len(own["train"]))
    virality = pd.concat(
        cleaning.clean(
            sources.load("virality", source), **cleaning.RULES["virality"]
        ).splits.values(),
        ignore_index=True,
    )
    return {
        "emotions": {
            "train": own["train"].iloc[order[:N_TRAINING]],
            "validation": own["validation"],
            "test": own["train"].iloc[order[N_TRAINING : N_TRAINING + N_SCORED]],
        },
        "virality": splits.by_time(
            virality, "published_at", {"train": 0.75, "validation": 0.1, "test": 0.15}
        ),
    }


def tfidf(parts: Parts, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Logits of TF-IDF and logistic regression; those of training rows come from folds."""
    texts = {split: list(table["text"]) for split, table in parts.items()}
    fold = thresholds.folds(labels["train"], N_FOLDS)
    n_classes = labels["train"].shape[1]

    def logits(rows: np.ndarray, split: str) -> np.ndarray:
        model = baselines.tfidf_logistic().fit(
            [text for text, chosen in zip(texts["train"], rows, strict=True) if chosen],
            labels["train"][rows],
        )
        return soft_targets.tfidf_logits(model, texts[split], n_classes)

    of_folds = [logits(fold != k, "train") for k in range(N_FOLDS)]
    everything = np.ones(len(fold), dtype=bool)
    return {"train": soft_targets.out_of_fold(of_folds, fold)} | {
        split: logits(everything, split) for split in ("validation", "test")
    }


def main() -> None:
    """Train what is missing, print and write the figures."""
    source, folder = sys.argv[1], Path(sys.argv[2])
    n_seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    rows = load_rows(source)
    labels = {
        "emotions": {s: emotions.multi_hot(t["labels"]) for s, t in rows["emotions"].items()},
        "virality": {s: t[["label"]].to_numpy(dtype=int) for s, t in rows["virality"].items()},
    }
    counts = {name: tfidf(parts, labels[name]) for name, parts in rows.items()}
    folder.mkdir(parents=True, exist_ok=True)
    compared = Comparison(labels)
    start = time.perf_counter()
    for seed in range(n_seeds):
        for system, (weights, surgery, share) in SYSTEMS.items():
            path = folder / f"{system.replace(' ', '_')}-{seed}.npz"
            if not path.is_file():
                targets = dict(labels)
                if share < 1:
                    hot = labels["emotions"]["train"]
                    said = expit(soft_targets.match_rates(counts["emotions"]["train"], hot.mean(0)))
                    soft = {"train": soft_targets.soften(hot, said, share)}
                    targets["emotions"] = labels["emotions"] | soft
                answers = train(rows, targets, weights, surgery, seed)
                with whole_file(path) as new, new.open("wb") as file:
                    np.savez(file, **{f"{own}|{s}": table for (own, s), table in answers.items()})
                print(f"{system}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
            kept = np.load(path)
            for name in weights:
                logits = {split: kept[f"{name}|{split}"] for split in ("validation", "test")}
                compared.add(system, name, {split: expit(part) for split, part in logits.items()})
                if system == f"{name} alone":
                    mean = {s: expit((part + counts[name][s]) / 2) for s, part in logits.items()}
                    compared.add(f"{system}, mean with TF-IDF", name, mean)
    for name, parts in counts.items():
        compared.add("TF-IDF", name, {s: expit(parts[s]) for s in ("validation", "test")})
    content = {
        "texts": {name: {s: len(t) for s, t in parts.items()} for name, parts in rows.items()},
        "seeds": n_seeds,
        "settings": asdict(SETTINGS),
        "environment": environment(),
        "figures": {name: figures(compared, name) for name in rows},
    }
    RECORD.parent.mkdir(exist_ok=True)
    write_whole(RECORD, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def train(
    rows: Mapping[str, Parts],
    targets: Mapping[str, Mapping[str, np.ndarray]],
    weights: Mapping[str, float],
    surgery: str,
    seed: int,
) -> Logits:
    """Logits by task and split of a training."""
    tokenizer, body = loading.load_encoder("embedded")
    pad_id = tokenizer.pad_token_id
    encoded = {
        name: {
            split: Encoded(
                tokens.encode(tokenizer, list(table["text"]), task.MAX_LENGTH),
                torch.tensor(targets[name][split]).float(),
            )
            for split, table in rows[name].items()
        }
        for name in weights
    }

    def auc(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        return {
            "roc_auc": metrics.mean_roc_auc(labels.numpy().astype(int), logits.sigmoid().numpy())
        }

    tasks, rates = {}, {}
    for name, weight in weights.items():
        parts = encoded[name]
        rates[name] = parts["train"].labels.mean(0)
        of_classes = None
        if name == "emotions":
            of_classes = rare_classes.positive_weights(parts["train"].labels, "power")
        loss = losses.binary_cross_entropy(of_classes)
        tasks[name] = Task(parts["train"], parts["validation"], loss, auc, weight)
    n_texts = sum(len(parts["train"]) for parts in rows.values())
    share = sum(len(own.train) for own in tasks.values()) / n_texts
    larger = "emotions" if "emotions" in tasks else "virality"
    settings = replace(
        SETTINGS,
        seed=seed,
        surgery=surgery,
        batch_size=round(SETTINGS.batch_size * share),
        metric=f"{larger}.roc_auc",
    )
    torch.manual_seed(seed)
    heads = {name: HEADS[name] for name in tasks}
    model = MultiTaskClassifier(body, heads, task.POOLING, task.DROPOUT, rates=rates)
    loop.fit(model, tasks, settings, pad_id)
    return {
        (name, split): inference.predict_logits(model, encoded[name][split], pad_id, task=name)
        .numpy()
        .astype(np.float64)
        for name in tasks
        for split in ("validation", "test")
    }


def figures(compared: Comparison, task_name: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure -> system -> the mean over its runs, each run, and paired differences."""
    alone = f"{task_name} alone"
    written: dict[str, dict[str, dict[str, Any]]] = {}
    for system in [*SYSTEMS, f"{alone}, mean with TF-IDF", "TF-IDF"]:
        of_task = [what for what in compared.measures(system) if what[0] == task_name]
        estimates = {"mean": compared.estimates(system)} if of_task else {}
        estimates |= {
            f"minus {reference}": compared.differences(system, reference)
            for reference in (alone, "sum", "TF-IDF")
            if of_task and reference != system
        }
        for _, measure in of_task:
            key = f"{task_name}, {measure}"
            row: dict[str, Any] = {what: asdict(by[key]) for what, by in estimates.items()}
            row["runs"] = compared.each_run(system)[key]
            written.setdefault(measure, {})[system] = row
            shown = "; ".join(f"{what} {by[key]}" for what, by in estimates.items())
            print(f"{key}, {system}: {shown}")
    return written


if __name__ == "__main__":
    main()

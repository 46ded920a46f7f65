"""Both tasks on real texts: each alone, the plain sum, PCGrad, beside TF-IDF and logistic
regression.

    .venv/bin/python benchmarks/multitask.py <data folder> [seeds] [system ...]

Emotions as in `emotions.py`; virality split by time (`published_at`): the last 15 % are the test,
10 % before them choose the epoch. Prints ROC AUC and macro-F1 with intervals, and paired
differences, means over the seeds.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import emotions as task
import numpy as np
import pandas as pd
import torch

from viralbert_utils.base import tokens
from viralbert_utils.data import cleaning, emotions, sources, splits
from viralbert_utils.encoders import loading
from viralbert_utils.evaluation import baselines, intervals, metrics, thresholds
from viralbert_utils.lessons import rare_classes
from viralbert_utils.models import inference
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier
from viralbert_utils.training import loop, losses
from viralbert_utils.training.settings import Encoded, Task

# A virality text weighs a tenth: there are 4,000 of them beside 33,000, they are learnt by heart
# after two epochs, and with equal weights what the emotions lose by them is far more than the
# interval.
WEIGHTS = {"virality": 0.1, "emotions": 1.0}
SYSTEMS = {"virality alone": "none", "emotions alone": "none", "sum": "none", "pcgrad": "pcgrad"}


def load_tables(source: str) -> dict[str, dict[str, pd.DataFrame]]:
    """`train`, `tune` and `test` rows of both tasks."""
    virality = pd.concat(
        cleaning.clean(
            sources.load("virality", source), **cleaning.RULES["virality"]
        ).splits.values(),
        ignore_index=True,
    )
    parts = splits.by_time(virality, "published_at", {"train": 0.75, "tune": 0.1, "test": 0.15})
    return {"virality": parts, "emotions": task.load_rows(source)}


def main() -> None:
    """Print the comparison."""
    source, n_seeds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    tables = load_tables(source)
    hot = {
        "virality": {s: t[["label"]].to_numpy(dtype=int) for s, t in tables["virality"].items()},
        "emotions": {s: emotions.multi_hot(t["labels"]) for s, t in tables["emotions"].items()},
    }
    tokenizer = loading.load_tokenizer("embedded")
    pad_id = tokenizer.pad_token_id
    texts = {
        name: {
            split: Encoded(
                tokens.encode(tokenizer, list(table["text"]), task.MAX_LENGTH),
                torch.tensor(hot[name][split]).float(),
            )
            for split, table in parts.items()
        }
        for name, parts in tables.items()
    }
    weight = rare_classes.positive_weights(texts["emotions"]["train"].labels, "power")
    made = {
        "virality": losses.binary_cross_entropy(),
        "emotions": losses.binary_cross_entropy(weight),
    }

    def figures(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        return {
            "roc_auc": metrics.mean_roc_auc(labels.numpy().astype(int), logits.sigmoid().numpy())
        }

    tasks = {
        name: Task(parts["train"], parts["tune"], made[name], figures, WEIGHTS[name])
        for name, parts in texts.items()
    }
    scores: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for system in sys.argv[3:] or SYSTEMS:
        own = {
            n: t for n, t in tasks.items() if not system.endswith("alone") or system.startswith(n)
        }
        # the larger task chooses the epoch
        metric = f"{'emotions' if 'emotions' in own else 'virality'}.roc_auc"
        for seed in range(n_seeds):
            torch.manual_seed(seed)
            body = loading.load_encoder("embedded")[1]
            rates = {name: parts["train"].labels.mean(0) for name, parts in texts.items()}
            heads = {"virality": Head(("viral",)), "emotions": Head(emotions.EMOTIONS)}
            model = MultiTaskClassifier(body, heads, task.POOLING, task.DROPOUT, rates=rates)
            start = time.perf_counter()
            history = loop.fit(
                model,
                own,
                replace(task.SETTINGS, seed=seed, metric=metric, surgery=SYSTEMS[system]),
                pad_id,
            )
            print(f"{system}, seed {seed}: {time.perf_counter() - start:.0f} s")
            print(history.round(4).to_string(index=False), flush=True)
            for name in own:
                found = scores.setdefault((name, system), {"tune": [], "test": []})
                for split, kept in found.items():
                    kept.append(
                        inference.predict_probabilities(
                            model, texts[name][split], pad_id, task=name
                        )
                    )
    for name in tasks:
        baseline = baselines.tfidf_logistic()
        baseline.fit(tables[name]["train"]["text"], hot[name]["train"])
        found = {s: baseline.predict_proba(tables[name][s]["text"]) for s in ("tune", "test")}
        scores[name, "TF-IDF"] = {
            s: [p.reshape(len(p), -1)[:, -hot[name]["test"].shape[1] :]] for s, p in found.items()
        }
    for name in tasks:
        report(
            name, hot[name], {system: found for (n, system), found in scores.items() if n == name}
        )


def report(
    name: str, hot: dict[str, np.ndarray], scores: dict[str, dict[str, list[np.ndarray]]]
) -> None:
    """ROC AUC, for emotions macro-F1 with shrunk thresholds, and what each system has over the
    reference."""
    auc = metrics.mean_over_runs(metrics.mean_roc_auc)
    macro = metrics.mean_over_runs(metrics.macro_f1)
    outputs = {
        "ROC AUC": (auc, {system: np.stack(found["test"], -1) for system, found in scores.items()})
    }
    if name == "emotions":
        decided = {
            system: np.stack(
                [
                    thresholds.decide(p, thresholds.shrunk(hot["tune"], t))
                    for t, p in zip(found["tune"], found["test"], strict=True)
                ],
                -1,
            )
            for system, found in scores.items()
        }
        outputs["macro-F1"] = (macro, decided)
    for measure, (metric, found) in outputs.items():
        print(f"\n{name}, {measure} on {len(hot['test'])} test texts")
        for system, values in found.items():
            line = f"  {system:16} {intervals.bootstrap(metric, hot['test'], values)}"
            for reference in (f"{name} alone", "TF-IDF"):
                if reference in found and reference != system:
                    runs = values.shape[-1] // found[reference].shape[-1]
                    base = np.concatenate([found[reference]] * max(1, runs), -1)
                    difference = intervals.bootstrap(
                        intervals.gain(metric), hot["test"], base, values
                    )
                    line += f"   minus {reference}: {difference}"
            print(line)


if __name__ == "__main__":
    main()

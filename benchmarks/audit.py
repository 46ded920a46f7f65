"""The label audit on real texts: planted errors, training on cleaned labels, and CEDR's six
classes.

    .venv/bin/python benchmarks/audit.py <data folder> noise|cleaned|cedr [seeds]

`noise` plants errors in CEDR and in emotions and ranks the rows; `cleaned` reviews the most
suspicious ones and trains again; `cedr` compares the embedded encoder, on CEDR alone and with
GoEmotions, with TF-IDF and logistic regression. Everything stays within the published training
split (emotions: validation), cut by label; the test part tunes nothing.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from unittest import mock

import emotions as task
import numpy as np
import pandas as pd
import pretraining
import torch
from scipy.special import softmax

from viralbert_utils.base import texts, tokens
from viralbert_utils.data import cleaning, combine, emotions, sources
from viralbert_utils.encoders import loading
from viralbert_utils.evaluation import baselines, intervals, metrics, thresholds
from viralbert_utils.lessons import class_table, label_errors, linear_head
from viralbert_utils.lessons.label_errors import CEDR_NEIGHBOURS, KINDS, NEIGHBOURS
from viralbert_utils.models import inference
from viralbert_utils.models.classifiers import PooledClassifier

PENALTY, SHARES, SEED = 3e-3, (0.05, 0.1, 0.2), 1
CEDR_SETTINGS = replace(task.SETTINGS, epochs=6, batch_size=32)


class Judges:
    """Two cheap models of the same texts: TF-IDF and the encoder's frozen layers, each under a
    linear head."""

    def __init__(self, texts: list[str], max_features: int = 20_000) -> None:
        """Compute the features once; both see the texts but no label."""
        tokenizer, encoder = loading.load_encoder("embedded")
        ids = tokens.encode(tokenizer, texts, task.MAX_LENGTH)
        self.vectors = inference.text_vectors(
            pretraining.AllLayers(encoder), ids, tokenizer.pad_token_id
        )
        self.counts = baselines.tfidf(max_features).fit_transform(texts)

    def answer(self, labels: np.ndarray, train: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Mean of both probabilities `(n_others, n_classes)`."""
        parts = {"train": self.vectors[train], "tune": self.vectors[other]}
        hot = {"train": labels[train], "tune": labels[other]}
        frozen = pretraining.linear_head(parts, hot, (PENALTY,))["tune"]
        linear = baselines.one_vs_rest().fit(self.counts[train], labels[train])
        return (frozen + linear.predict_proba(self.counts[other])) / 2

    def out_of_fold(self, labels: np.ndarray) -> np.ndarray:
        """See `linear_head.out_of_fold`."""
        return linear_head.out_of_fold(lambda train, test: self.answer(labels, train, test), labels)


def load_sets(source: str) -> dict[str, tuple[dict, dict, dict]]:
    """Rows by part, 0/1 labels by part, and what `label_errors.plant` must know, for CEDR and for
    emotions."""
    tasks = pretraining.load_tasks(source)
    pairs = {
        "cedr": [tuple(map(emotions.CEDR_CLASSES.index, pair)) for pair in CEDR_NEIGHBOURS],
        "emotions": [tuple(map(emotions.EMOTIONS.index, pair)) for pair in NEIGHBOURS],
    }
    nothing = {"cedr": 5, "emotions": emotions.NEUTRAL}
    return {
        name: (*tasks[name], {"neighbours": pairs[name], "nothing": nothing[name]})
        for name in pairs
    }


def noise(source: str) -> None:
    """Average precision of each ranking at 5, 10 and 20 % planted errors, paired with the plain
    loss."""
    for name, (rows, hot, options) in load_sets(source).items():
        labels = hot["train"]
        judges = Judges(list(rows["train"]["text"]))
        for share in SHARES:
            planted = label_errors.plant(labels, share, seed=SEED, **options)
            p = judges.out_of_fold(planted.labels)
            given = planted.labels
            scores = {
                "plain loss, own rows": label_errors.loss(
                    given, judges.answer(given, *[np.arange(len(given))] * 2)
                ),
                "plain loss": label_errors.loss(given, p),
                "least self-confidence": -label_errors.self_confidence(given, p).min(axis=1),
                "confident learning": label_errors.confident_suspicion(given, p),
                "plain margin": label_errors.margin(given, p, adjust=0),
                "margin": label_errors.margin(given, p),
            }
            found = label_errors.compare_rankings(
                planted.rows, scores, "plain loss", k=round(share * len(given))
            )
            print(
                f"\n{name}: {len(given)} rows, {share:.0%} wrong; gain over the plain loss, paired"
            )
            print(found.round(3).to_string(), flush=True)
            own_rows = label_errors.compare_rankings(
                planted.rows, scores, "plain loss, own rows"
            ).loc["margin"]
            print(
                "  margin over the loss on own rows:",
                own_rows[["gain", "gain low", "gain high"]].round(3).to_list(),
            )
            for kind in KINDS:
                own = (planted.kinds == kind) | (planted.kinds == "")
                each = {
                    n: label_errors.average_precision(planted.rows[own], score[own])
                    for n, score in scores.items()
                }
                print(
                    f"  {kind} alone:", ", ".join(f"{n} {value:.3f}" for n, value in each.items())
                )


def cleaned(source: str) -> None:
    """Macro-F1 on untouched test rows after a fifth of the training rows was reviewed in the
    audit's order."""
    for name, (rows, hot, options) in load_sets(source).items():
        sizes = {part: len(table) for part, table in rows.items()}
        judges = Judges([text for part in ("train", "tune", "test") for text in rows[part]["text"]])
        train, tune, test = np.split(
            np.arange(sum(sizes.values())), np.cumsum(list(sizes.values()))[:-1]
        )
        rest = np.concatenate([tune, test])
        planted = label_errors.plant(hot["train"], 0.2, seed=SEED, **options)
        p = judges.out_of_fold(planted.labels)
        score = label_errors.margin(planted.labels, p)
        worst = np.argsort(-score)[: len(train) // 5]
        # Another seed than the planting's, which took its rows from the same permutation.
        by_chance = np.random.default_rng(SEED + 1).permutation(train)
        chosen = {
            "as planted": [],
            "reviewed at random": by_chance[: len(worst)],
            "reviewed by the audit": worst,
            "all right": train,
        }
        systems = {}
        for what, reviewed in chosen.items():
            mended = planted.labels.copy()
            mended[reviewed] = hot["train"][reviewed]
            systems[what] = _decided(judges, mended, hot, train, rest)
        keep = np.delete(train, worst)
        systems["suspects left out"] = _decided(judges, planted.labels, hot, keep, rest)
        print(
            f"\n{name}: {len(train)} training rows, 20 % wrong, a fifth reviewed; {len(test)} "
            "untouched test rows"
        )
        table = intervals.compare(hot["test"], systems, "as planted")
        print(table.drop(columns="binary macro-F1").round(3).to_string(), flush=True)
        pair = systems["reviewed at random"], systems["reviewed by the audit"]
        print("audit minus random review:", intervals.macro_f1_difference(hot["test"], *pair))


def _decided(
    judges: Judges, labels: np.ndarray, hot: dict, train: np.ndarray, rest: np.ndarray
) -> np.ndarray:
    every = np.concatenate([labels, hot["tune"], hot["test"]])
    tune, test = np.split(judges.answer(every, train, rest), [len(hot["tune"])])
    return thresholds.decide(test, thresholds.shrunk(hot["tune"], tune))


def cedr(source: str, n_seeds: int) -> None:
    """The six-class table: embedded on CEDR with GoEmotions and after it, TF-IDF, softmax, no train
    mode."""
    rows, hot, _ = load_sets(source)["cedr"]
    both, both_hot = _with_goemotions(source, rows, hot)
    print(
        {name: len(table) for name, table in rows.items()}, "with GoEmotions:", len(both["train"])
    )
    scores: dict[str, dict[str, np.ndarray]] = {}
    for name, own, labels in (("TF-IDF", rows, hot), ("TF-IDF, + GoEmotions", both, both_hot)):
        model = baselines.tfidf_logistic().fit(own["train"]["text"], labels["train"])
        scores[name] = {part: model.predict_proba(own[part]["text"]) for part in ("tune", "test")}
    both_first = list(both["train"]["text"]), both_hot["train"]
    plans = {
        "embedded": (rows, hot, CEDR_SETTINGS, None),
        "embedded, + GoEmotions": (both, both_hot, replace(CEDR_SETTINGS, epochs=3), None),
        "embedded, both, then CEDR": (
            rows,
            hot,
            replace(CEDR_SETTINGS, epochs=4, learning_rate=3e-4),
            both_first,
        ),
        "embedded, never train()": (rows, hot, CEDR_SETTINGS, None),
    }
    for name, (own, labels, settings, first) in plans.items():
        runs = []
        for seed in range(n_seeds):
            with mock.patch.object(
                PooledClassifier, "train", _stay if "never" in name else torch.nn.Module.train
            ):
                found, history, seconds = task.train(
                    "embedded", own, replace(settings, seed=seed), labels=labels, first=first
                )
            best = (
                history.loc[history["best"], ["epoch", "roc_auc", "macro_f1"]]
                .round(4)
                .values.tolist()
            )
            print(f"{name}, seed {seed}: {seconds:.0f} s, best {best}", flush=True)
            runs.append(found)
        scores[name] = {
            part: np.mean([run[part] for run in runs], axis=0) for part in ("tune", "test")
        }
        decided = [
            thresholds.decide(r["test"], thresholds.shrunk(hot["tune"], r["tune"])) for r in runs
        ]
        print("  macro-F1 of each:", [round(metrics.macro_f1(hot["test"], d), 3) for d in decided])
    report(hot, scores)


def report(hot: dict[str, np.ndarray], scores: dict[str, dict[str, np.ndarray]]) -> None:
    """Print figures per class and the paired comparisons; probabilities of several seeds are
    averaged."""
    truth = hot["test"]
    decided = {
        n: thresholds.decide(f["test"], thresholds.shrunk(hot["tune"], f["tune"]))
        for n, f in scores.items()
    }
    for name, answers in decided.items():
        table = class_table.per_class(truth, scores[name]["test"], answers, emotions.CEDR_CLASSES)
        print(f"\n{name}\n{table.round(3).to_string()}")
    # Softmax of the logits, cut at one half, as the published service's evaluation did it.
    p = np.clip(scores["embedded"]["test"], 1e-6, 1 - 1e-6)
    decided["embedded, softmax at 0.5"] = (softmax(np.log(p / (1 - p)), axis=1) > 0.5).astype(int)
    decided["embedded, sigmoid at 0.5"] = (p > 0.5).astype(int)
    most = decided["embedded, softmax at 0.5"].sum(axis=1)
    print(
        f"\nsoftmax: at most {most.max()} label a text, none on {np.mean(most == 0):.3f} of the "
        "texts"
    )
    for reference in ("TF-IDF", "embedded"):
        print(
            "\nreference: "
            f"{reference}\n{intervals.compare(truth, decided, reference).round(3).to_string()}"
        )
        for name, found in scores.items():
            gain = intervals.bootstrap(
                intervals.gain(metrics.mean_roc_auc),
                truth,
                scores[reference]["test"],
                found["test"],
            )
            print(
                f"mean ROC AUC of {name}: {metrics.mean_roc_auc(truth, found['test']):.3f}, gain "
                f"{gain}"
            )


def _stay(model: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    """A model that never gets into train mode: no dropout."""
    return torch.nn.Module.train(model, False)


def _with_goemotions(source: str, rows: dict, hot: dict) -> tuple[dict, dict]:
    """CEDR's training rows and GoEmotions' that map to its classes, none of which nearly repeats a
    scored row."""
    parts = cleaning.clean(sources.load("emotions", source), **cleaning.RULES["emotions"]).splits
    mapped, _ = combine.six_classes(pd.concat(parts.values(), ignore_index=True))
    scored = {
        texts.comparison_key(text) for part in ("tune", "test") for text in rows[part]["text"]
    }
    mapped = mapped[[texts.comparison_key(text) not in scored for text in mapped["text"]]]
    train = pd.concat([rows["train"], mapped], ignore_index=True)
    return rows | {"train": train}, hot | {"train": emotions.multi_hot(train["labels"], 6)}


if __name__ == "__main__":
    folder, what = sys.argv[1], sys.argv[2]
    if what == "cedr":
        cedr(folder, int(sys.argv[3]) if len(sys.argv) > 3 else 3)
    else:
        {"noise": noise, "cleaned": cleaned}[what](folder)

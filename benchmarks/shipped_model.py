"""The data that the shipped model learns from, and the figures of its card.

    .venv/bin/python benchmarks/shipped_model.py data <data folder> <new folder>

writes one folder out of several sources: GoEmotions in Russian and the sample's emotions to train
on, GoEmotions' validation split to tune and to score; CEDR's training split, cut once; virality by
the sample's annotation guide, and as further training rows the older headlines of a news site.

    .venv/bin/viralbert train --profile viralbert --data <that folder> --output <runs>
    .venv/bin/python benchmarks/shipped_model.py pack <data folder> <that folder> <runs>/viralbert

packs what the training has left into `viralbert/model`, and writes the card with all its figures:
those of `metrics.json`, of each class, of the packed model in its exported form, of later headlines
and of sentences written for this purpose (`tests/product/everyday_sentences.csv`).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit

from viralbert import distillation
from viralbert.serving import shipped
from viralbert.serving.export import export
from viralbert.serving.predictor import Predictor, ViralBERT
from viralbert.trainings import Training
from viralbert_utils.base.files import ROOT, write_whole
from viralbert_utils.data import cleaning, emotions, sources, splits
from viralbert_utils.evaluation import baselines, intervals, metrics
from viralbert_utils.evaluation.calibration import proportion_interval
from viralbert_utils.lessons import class_table, reliability

TEMPLATE = Path(__file__).with_name("MODEL_CARD.template.md")
SENTENCES = ROOT / "tests" / "product"
TASKS = {"emotions": "Emotions (28)", "cedr": "CEDR (6)", "virality": "Virality"}
HEADLINES = {"train": 0.85, "later": 0.15}  # by time: what is scored lies after what is learnt


def cleaned(name: str, source: str) -> dict[str, pd.DataFrame]:
    """A set's splits as published, cleaned."""
    return cleaning.clean(sources.load(name, source), **cleaning.RULES[name]).splits


def headlines(source: str) -> dict[str, pd.DataFrame]:
    """The news site's headlines, the older ones to train on and the later ones to score."""
    return splits.by_time(cleaned("virality", source)["train"], "published_at", HEADLINES)


def sample(name: str) -> dict[str, pd.DataFrame]:
    """The course's own rows, split as the lessons split them."""
    return splits.split_set(name, cleaned(name, "sample"))


def write_data(source: str, folder: Path) -> None:
    """Write the folder that the shipped model is trained on."""
    general, own = cleaned("emotions", source), sample("emotions")
    viral = sample("virality")
    tables = {
        "emotions/train": [general["train"], own["train"]],
        "emotions/validation": [general["validation"]],
        "virality/train": [viral["train"], headlines(source)["train"]],
        "virality/validation": [viral["validation"], viral["test"]],
    }
    six = splits.by_label(cleaned("cedr", source)["train"], {"train": 0.85, "validation": 0.15})
    tables |= {f"cedr/{split}": [table] for split, table in six.items()}
    for name, parts in tables.items():
        columns = ["text", "label" if name.startswith("virality") else "labels"]
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = pd.concat([part[columns] for part in parts], ignore_index=True)
        rows.to_json(path, orient="records", lines=True, force_ascii=False)
        print(f"{path}: {len(rows)} rows")


def logits_of(bert: Predictor, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Task -> logits of the model's own probabilities."""
    windows = list(bert._windows(texts))
    p = {task: np.concatenate([w[task] for w in windows]) for task in bert.tasks}
    return {task: logit(np.clip(values, 1e-6, 1 - 1e-6)) for task, values in p.items()}


def estimate(values: dict[str, float]) -> str:
    """A figure of `metrics.json` with its interval."""
    return str(intervals.Estimate(**values))


def difference(values: dict[str, float]) -> str:
    """The same with its sign."""
    return f"{values['value']:+.3f} [{values['low']:+.3f}, {values['high']:+.3f}]"


def figures_table(measured: dict[str, Any]) -> str:
    """Every system on every task."""
    lines = [
        "| task, held-out texts | system | macro-F1 | mean ROC AUC | model minus it, macro-F1 |"
    ]
    lines += ["| --- | --- | --- | --- | --- |"]
    for task, title in TASKS.items():
        n = measured["rows"][task]["held out"]
        for name, row in measured["figures"][task]["held out"].items():
            paired = row.get("model minus this, macro-F1")
            lines.append(
                f"| {title}, {n:,} | {name} | {estimate(row['macro-F1'])} | "
                f"{estimate(row['ROC AUC'])} | {difference(paired) if paired else ''} |"
            )
    return "\n".join(lines)


def f1_table(names: Sequence[str], truth: np.ndarray, p: np.ndarray, decided: np.ndarray) -> str:
    """Each class with the interval of its F1; arrays as of `distillation.decide_both_ways`."""
    table = class_table.per_class(truth, p, decided, names)
    weights = intervals.resample_weights(len(truth), 1000, 0)
    resampled = metrics.f1_of_counts(*metrics.weighted_counts(truth, decided, weights))
    lines = ["| emotion | texts | F1 | precision | recall | ROC AUC |", "| --- " * 6 + "|"]
    for k in np.argsort(-table["F1"].to_numpy()[: len(names)]):
        row = table.iloc[k]
        own = intervals.estimate(float(row["F1"]), resampled[:, k], 0.95)
        lines.append(
            f"| {emotions.display_name(names[k])} | {truth[:, k].sum()} | {own} | "
            f"{row['precision']:.2f} | {row['recall']:.2f} | {row['ROC AUC']:.3f} |"
        )
    return "\n".join(lines)


def calibration_table(truth: np.ndarray, p: np.ndarray) -> str:
    """What became of probabilities, all emotions together."""
    table = reliability.reliability(truth, p, n_bins=5)
    lines = ["| probability said | times | share that carry the emotion |", "| --- | --- | --- |"]
    lines += [
        f"| {row['from']:.1f} to {row['to']:.1f} | {row['count']:,.0f} | "
        f"{row['share of positives']:.2f} [{row['low']:.2f}, {row['high']:.2f}] |"
        for _, row in table.iterrows()
    ]
    return "\n".join(lines)


def later_headlines(bert: Predictor, source: str) -> dict[str, str]:
    """ROC AUC of virality on headlines that came later, beside TF-IDF trained on the older ones."""
    parts = headlines(source)
    truth = parts["later"][["label"]].to_numpy(int)
    model = baselines.tfidf_logistic().fit(
        parts["train"]["text"], parts["train"][["label"]].to_numpy(int)
    )
    other = model.predict_proba(parts["later"]["text"])[:, -1:]
    own = logits_of(bert, list(parts["later"]["text"]))["virality"]
    auc = partial(intervals.bootstrap, metrics.mean_roc_auc, truth)
    paired = intervals.bootstrap(intervals.gain(metrics.mean_roc_auc), truth, other, own)
    return {
        "headlines_n": f"{len(truth):,}",
        "headlines_model": str(auc(own)),
        "headlines_tfidf": str(auc(other)),
        "headlines_gain": difference(vars(paired)),
    }


def sentences(bert: Predictor) -> dict[str, str]:
    """How often the meant emotion of a sentence stands first, or among the first three."""
    table = pd.read_csv(SENTENCES / "everyday_sentences.csv")
    ranked = [
        sorted(p := answer["probabilities"], key=p.__getitem__, reverse=True)
        for answer in bert.predict(table["text"])
    ]
    # neutral is no answer to the question which emotion it is
    ranked = [[name for name in names if name != "neutral"] for names in ranked]
    places = [names.index(meant) for names, meant in zip(ranked, table["emotion"], strict=True)]
    shares = {}
    for name, most in (("first", 0), ("three", 2)):
        hits = sum(place <= most for place in places)
        low, high = proportion_interval(np.array(hits), np.array(len(places)))
        shares[f"sentences_{name}"] = f"{hits} of {len(places)} ({low:.0%} to {high:.0%})"
    wrong = [
        f"| {text} | {meant} | {', '.join(names[:3])} |"
        for text, meant, names, place in zip(
            table["text"], table["emotion"], ranked, places, strict=True
        )
        if place > 2
    ]
    shares["sentences_wrong"] = "\n".join(wrong[:8])
    published = pd.read_csv(SENTENCES / "published_sentences.csv")
    shares["published"] = "\n".join(
        f"| {text} | {', '.join(label.name for label in answer.emotions or ()) or 'none'} |"
        for text, answer in zip(published["text"], bert.predict(published["text"]), strict=True)
    )
    return shares


def update_readme(measured: dict[str, Any], values: dict[str, str]) -> None:
    """Write the model's headline figures between the two marks in the README."""
    said = []
    for task, title, metric in (
        ("emotions", "28 emotions", "macro-F1"),
        ("cedr", "CEDR", "macro-F1"),
    ):
        rows = measured["figures"][task]["held out"]
        of_tfidf = rows["TF-IDF"][metric]["value"]
        said.append(f"{title} {metric} {estimate(rows['model'][metric])} (TF-IDF {of_tfidf:.3f})")
    of_tfidf = values["headlines_tfidf"].split()[0]
    said.append(f"later headlines ROC AUC {values['headlines_model']} ({of_tfidf})")
    card = f"[card]({shipped.PACKED.relative_to(ROOT)}/{shipped.CARD})"
    sentence = f"The shipped model on real texts: {', '.join(said)}; see its {card}."
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split("<!-- shipped -->")
    after = rest.split("<!-- /shipped -->")[1]
    write_whole(readme, f"{before}<!-- shipped -->\n{sentence}\n<!-- /shipped -->{after}")


def pack(source: str, data: str, trained: str) -> None:
    """Pack the model, and write its card."""
    folder = Path(trained)
    measured = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    parts, _ = distillation.read(Training(dataset="viralbert", data=data))
    with tempfile.TemporaryDirectory() as scratch:
        packed, model, small = (Path(scratch) / name for name in ("packed", "model", "int8"))
        shipped.pack(folder / "model", packed, "")
        shipped.unpack(packed, model)
        export(model, small, int8=True)
        forms = {
            "trained": ViralBERT.load(folder / "model", "cpu"),
            "packed": ViralBERT.load(model, "cpu"),
            "exported": ViralBERT.load(small),
        }
        held = parts["emotions"].held_texts
        said = {name: logits_of(bert, held)["emotions"] for name, bert in forms.items()}
        judged = distillation.judge(parts["emotions"], said)
        truth, p, decided = distillation.decide_both_ways(parts["emotions"], said["exported"])
        values = {
            f"{name}_f1": difference(judged[name]["trained minus this, macro-F1"])
            for name in ("packed", "exported")
        }
        values |= {f"{name}_scored": estimate(judged[name]["macro-F1"]) for name in forms}
        values |= later_headlines(forms["exported"], source) | sentences(forms["exported"])
        values |= {
            "figures": figures_table(measured),
            "classes": f1_table(parts["emotions"].names, truth, p, decided),
            "calibration": calibration_table(truth, p),
            "minutes": f"{measured['seconds'] / 60:.0f}",
            "device": str(measured["environment"].get("device", "cpu")),
            "rows": ", ".join(
                f"{title} {measured['rows'][task]['train']:,}" for task, title in TASKS.items()
            ),
        }
        card = TEMPLATE.read_text(encoding="utf-8").format(**values)
        size = shipped.pack(folder / "model", shipped.PACKED, card)
    update_readme(measured, values)
    print(f"{shipped.PACKED}: {size / 1e6:.1f} MB")
    print(card)


def main() -> None:
    """Run what the first argument names."""
    match sys.argv[1:]:
        case ["data", source, folder]:
            write_data(source, Path(folder))
        case ["pack", source, folder, trained]:
            pack(source, folder, trained)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()

"""What a classifier is worth on labelled texts: figures of the whole and of each class.

`viralbert train` judges what it has trained with them, and `viralbert evaluate` a model that is
there already.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from viralbert.labelled import CLASSES, ONE_CLASS, SAME_ROWS, Rows, maps_emotions, read
from viralbert.places import check_data
from viralbert.serving import shipped
from viralbert.serving.predictor import Predictor, Task
from viralbert.trainings import SPLITS, Training
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_there, own_path, write_whole
from viralbert_utils.evaluation import intervals, metrics
from viralbert_utils.evaluation.thresholds import SINGLE_LABEL, decide
from viralbert_utils.lessons.class_table import per_class

# What is said of each class, in this order.
FIGURES = ("precision", "recall", "F1", "ROC AUC")

DEV_AS_SAVED = (
    "dev: judged by the model's own thresholds; viralbert train tunes them on these texts, so the "
    "figures are too good. Those on dev in its metrics.json come from thresholds of other texts"
)


def figures(
    rows: Rows, scores: np.ndarray, decided: np.ndarray, names: Iterable[str], one_class: bool
) -> dict[str, Any]:
    """What a system makes of labelled texts.

    Args:
        rows: The texts with their labels.
        scores: Its probabilities, `(n_texts, n_classes)`.
        decided: Its answers, same shape, 0/1.
        names: The classes.
        one_class: Whether a text has exactly one class; then there is an accuracy, else there are
            the F1 at 0.5 and that of both answers.

    Returns:
        `macro-F1` with its interval, the means of precision, recall and ROC AUC over the classes,
        and all of them `per class`; `None` where a class has no text, or no other.
    """
    labels = rows.labels
    table = per_class(labels, scores, decided, list(names))[list(FIGURES)]
    of_class = {
        str(name): {
            figure: None if np.isnan(value) else float(value) for figure, value in row.items()
        }
        for name, row in table.iterrows()
    }
    mean = of_class.pop("macro")
    result: dict[str, Any] = {
        "macro-F1": vars(intervals.macro_f1_interval(labels, decided, groups=rows.groups))
    }
    if one_class:
        result["accuracy"] = metrics.accuracy(labels.argmax(axis=1), decided.argmax(axis=1))
    else:
        result["macro-F1 at 0.5"] = metrics.macro_f1(labels, decide(scores, 0.5))
        result["binary macro-F1"] = metrics.binary_macro_f1(labels, decided)
    result |= {figure: mean[figure] for figure in ("precision", "recall", "ROC AUC")}
    return result | {"per class": of_class}


def most_probable(scores: np.ndarray) -> np.ndarray:
    """The answer where a text has exactly one class: 0/1 `(n_texts, n_classes)`."""
    return metrics.one_hot(scores.argmax(axis=1), list(range(scores.shape[1])))


@dataclass(frozen=True)
class Evaluation:
    """What is asked of a model.

    Attributes:
        model: Its folder, trained or exported; empty: the model that comes with the package.
        data: `sample`, `hub` or a folder; see `sources.load`.
        dataset: The task to judge, a key of `labelled.CLASSES`; empty: all that the model has.
        virality_file: As in `Training`.
        evaluate: The splits to judge by: `dev`, `test`.
        max_rows: Only the first rows of each table; 0 = all.
        seed: Decides on the splits where the source has none: that of the training, so that its
            training texts are not asked.
    """

    model: str = ""
    data: str = "sample"
    dataset: str = ""
    virality_file: str = ""
    evaluate: tuple[str, ...] = ("test",)
    max_rows: int = 0
    seed: int = 0


def evaluate(
    asked: Evaluation, device: str | None = None, precision: str = "auto"
) -> dict[str, Any]:
    """Judge a model on data, with the thresholds that it carries; nothing is trained or tuned.

    Args:
        asked: Model, data and splits.
        device: As of `Predictor.load`.
        precision: Likewise.

    Returns:
        `figures` (task -> split -> `figures`), `rows`, `files`, `notes` and `evaluation`.

    Raises:
        DataError: The model has no such task, or other classes; or as of `Predictor.load` and
            `sources.load`.
    """
    # What is asked of the data comes first: a model may have to be built.
    if asked.dataset and asked.dataset not in CLASSES:
        raise DataError(f"dataset {asked.dataset!r} is not known; use {', '.join(CLASSES)}")
    _training(asked, asked.dataset or Training.dataset)
    check_data(asked.data)
    if asked.virality_file:
        check_there(own_path(asked.virality_file))
    names = [asked.dataset] if asked.dataset else [] if asked.model else _shipped_tasks()
    ready = {name: read(_training(asked, name)) for name in names}
    folder = asked.model or shipped.folder(device, precision)
    predictor = Predictor.load(folder, device, precision)
    tasks = _tasks(predictor, asked)
    files: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    n_rows: dict[str, dict[str, int]] = {}
    notes = [predictor.note] if predictor.note else []
    for name, task in tasks.items():
        training = _training(asked, name)
        labelled, read_files = ready.get(name) or read(training)
        files += [file for file in read_files if file not in files]
        if name == "cedr" and maps_emotions(training):
            notes.append(SAME_ROWS)
        for split in asked.evaluate:
            rows = labelled[name][SPLITS[split]]
            answers = predictor.predict_iter(rows.texts)
            scores = np.array([one.probabilities_of(name) for one in answers], dtype=float)
            decided = (
                task.thresholds.apply(scores, task.names)
                if task.thresholds
                else most_probable(scores)
            )
            found.setdefault(name, {})[split] = figures(
                rows, scores, decided, task.names, name in ONE_CLASS
            )
            n_rows.setdefault(name, {})[split] = len(rows.texts)
    if "dev" in asked.evaluate and any(task.thresholds for task in tasks.values()):
        notes.append(DEV_AS_SAVED)
    return {
        "evaluation": asdict(asked) | {"model": _named(asked), "evaluate": list(asked.evaluate)},
        "figures": found,
        "rows": n_rows,
        "files": files,
        "notes": notes,
    }


def write(result: Mapping[str, Any], path: Path) -> None:
    """Write what `evaluate` gave as JSON."""
    write_whole(path, json.dumps(result, ensure_ascii=False, indent=1) + "\n")


def lines(result: Mapping[str, Any]) -> Iterable[str]:
    """What `evaluate` gave for people: a table for each task and split."""
    for task, splits in result["figures"].items():
        for split, found in splits.items():
            f1 = found["macro-F1"]
            accuracy = f", accuracy {found['accuracy']:.3f}" if "accuracy" in found else ""
            yield (
                f"{task}, {result['rows'][task][split]:,} texts of {split}: macro-F1 "
                f"{f1['value']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]{accuracy}"
            )
            yield f"  {'':<16}" + "".join(f"{figure:>11}" for figure in FIGURES)
            mean = found | {"F1": f1["value"]}
            for name, values in (found["per class"] | {"mean": mean}).items():
                shown = ("-" if values[f] is None else f"{values[f]:.3f}" for f in FIGURES)
                yield f"  {name:<16}" + "".join(f"{value:>11}" for value in shown)


def _training(asked: Evaluation, dataset: str) -> Training:
    """A training that reads the rows which a task is judged by."""
    own_file = asked.virality_file if dataset == "virality" else ""
    return Training(
        dataset=dataset,
        data=asked.data,
        virality_file=own_file,
        evaluate=asked.evaluate,
        max_rows=asked.max_rows,
        seed=asked.seed,
    )


def _named(asked: Evaluation) -> str:
    """The model as somebody has named it."""
    return asked.model or "the model that comes with viralbert"


def _shipped_tasks() -> list[str]:
    """The tasks of the model that comes with the package, which need not be built to tell them."""
    settings = (shipped.PACKED / shipped.SETTINGS).read_text(encoding="utf-8")
    return [name for name in json.loads(settings)["tasks"] if name in CLASSES]


def _tasks(predictor: Predictor, asked: Evaluation) -> dict[str, Task]:
    """The tasks of the model that are to be judged."""
    known = {name: task for name, task in predictor.tasks.items() if name in CLASSES}
    if asked.dataset:
        known = {name: task for name, task in known.items() if name == asked.dataset}
    if not known:
        wanted = asked.dataset or ", ".join(CLASSES)
        raise DataError(
            f"{_named(asked)} has the tasks {', '.join(predictor.tasks)}; expected {wanted}: name "
            "another model, or another --dataset"
        )
    for name, task in known.items():
        if task.names != CLASSES[name] or (task.problem_type == SINGLE_LABEL) != (
            name in ONE_CLASS
        ):
            raise DataError(
                f"the task {name} of {_named(asked)} has the classes {', '.join(task.names)} "
                f"({task.problem_type}); expected {', '.join(CLASSES[name])}"
            )
    return known

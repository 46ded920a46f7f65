"""Aims: thresholds for a purpose, stored with a model under a name and chosen by that name.

The thresholds of a model weigh both errors alike. Who must not miss anger, or who shows joy only
where it is surely there, decides otherwise from the same probabilities (lesson 04, section 7). In a
model's folder an aim is `aims/<name>/<task>.json` beside `thresholds/<task>.json`, in the same
form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from viralbert_utils.base.errors import DataError
from viralbert_utils.evaluation.metrics import macro_f1
from viralbert_utils.evaluation.thresholds import (
    RULES,
    Objective,
    Rule,
    Thresholds,
    best_per_class,
    cross_fit,
    decide,
    recall_at_precision,
)

FOLDER = "aims"  # in a model's folder
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_name(name: str) -> None:
    """Refuse a name that could not be a folder's everywhere.

    Raises:
        DataError: It has other characters than Latin letters, digits, - and _, or over 64.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"expected the name of an aim (up to 64 Latin letters, digits, - and _, a letter or a "
            f"digit first), found {name!r:.80}; give it another, such as moderation"
        )


def tune(
    names: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    goals: Mapping[str, str],
    method: str = "shrunk",
) -> Thresholds:
    """Tune thresholds of which some classes serve a purpose of their own.

    Args:
        names: The classes, in the order of the columns.
        labels: `(n_texts, n_classes)`, 0/1, of texts that the model was not trained on.
        probabilities: The model's, in the same shape.
        goals: Class -> `recall 0.9` (the highest precision that still finds nine of ten) or
            `precision 0.8` (the highest recall at which four of five yeses are right).
        method: The rule of all other classes, a key of `thresholds.RULES`.

    Returns:
        Thresholds whose `method` names rule and goals. A goal that no threshold reaches gives a
        class that is never predicted.

    Raises:
        DataError: A goal is none, or of a class that is not there; else as `Thresholds.tune`.
    """
    objectives = {name: _objective(name, goal) for name, goal in goals.items()}
    if not goals or (foreign := [name for name in goals if name not in names]):
        found = ", ".join(foreign) if goals else "no goal at all"
        raise DataError(
            f"expected a goal for one class or several of {', '.join(names)}; found {found}"
        )
    base = Thresholds.tune(names, labels, probabilities, method)
    rule = _with_goals(RULES[method], [(names.index(name), o) for name, o in objectives.items()])
    unseen = cross_fit(labels, probabilities, rule)
    gain = macro_f1(labels, unseen) - macro_f1(labels, decide(probabilities, 0.5))
    told = ", ".join(f"{name} {goal}" for name, goal in goals.items())
    values = np.broadcast_to(rule(labels, probabilities), len(names))
    return replace(
        base, values=tuple(map(float, values)), method=f"{method}; {told}", gain=float(gain)
    )


def _with_goals(rule: Rule, objectives: list[tuple[int, Objective]]) -> Rule:
    """A rule whose thresholds of some columns are tuned for other objectives."""

    def values(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        found = np.array(np.broadcast_to(rule(labels, scores), labels.shape[1]), dtype=float)
        for column, objective in objectives:
            own = [column]
            found[column] = best_per_class(labels[:, own], scores[:, own], objective)[0]
        return found

    return values


def _objective(name: str, goal: str) -> Objective:
    # Not at the top: a service that only applies thresholds does without tables.
    from viralbert_utils.lessons.threshold_study import precision_at_recall

    kinds: dict[str, Callable[[float], Objective]] = {
        "recall": precision_at_recall,
        "precision": recall_at_precision,
    }
    kind, _, share = goal.partition(" ")
    try:
        value = float(share)
    except ValueError:
        value = np.nan
    if kind not in kinds or not 0 < value <= 1:
        raise DataError(
            f"goal of {name}: expected recall or precision and a share up to 1, such as "
            f"'recall 0.9', found {goal!r:.80}"
        )
    return kinds[kind](value)


def stored(folder: Path) -> dict[str, dict[str, Thresholds]]:
    """Read `aims/<name>/<task>.json` in a model's folder: name -> task -> thresholds.

    The errors are those of `Thresholds.load`.
    """
    return {
        place.name: {path.stem: Thresholds.load(path) for path in sorted(place.glob("*.json"))}
        for place in sorted((folder / FOLDER).glob("*"))
        if place.is_dir()
    }


def save(folder: Path, aims: Mapping[str, Mapping[str, Thresholds]]) -> None:
    """Write aims into a model's folder, as `stored` reads them."""
    for name, tasks in aims.items():
        for task, thresholds in tasks.items():
            thresholds.save(folder / FOLDER / name / f"{task}.json")

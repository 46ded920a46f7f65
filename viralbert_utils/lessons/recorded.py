"""Figures of trainings on real texts that are too long for a page: written by a benchmark, shown as
recorded (lesson 03)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from viralbert_utils.base.errors import DataError
from viralbert_utils.evaluation.intervals import Estimate

FOLDER = Path(__file__).with_name("recorded")


def read(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """What a benchmark has written: `texts`, `seeds`, `settings`, `environment` and `figures`.

    Args:
        name: The benchmark, e.g. `multitask`.
        folder: Where the records lie.

    Raises:
        DataError: There is no such record.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise DataError(
            f"{path} is missing: install the project again, or run benchmarks/{name}.py, which "
            "writes it"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def systems(record: dict[str, Any], task: str, measure: str) -> pd.DataFrame:
    """The systems of a record in one measure.

    Returns:
        A row a system: `mean` over its runs and the paired differences `minus ...`, each an
        `Estimate`, and `runs`, a list with the figure of each run; `None` where a system is not
        compared with itself.

    Raises:
        DataError: The record has no such task or measure.
    """
    figures = record["figures"]
    if measure not in figures.get(task, {}):
        known = [f"{t}, {m}" for t, measures in figures.items() for m in measures]
        raise DataError(f"no figures of {task}, {measure}; the record has {'; '.join(known)}")
    rows = {
        system: {
            name: value if name == "runs" else Estimate(**value) for name, value in row.items()
        }
        for system, row in figures[task][measure].items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").astype(object)
    return table.where(table.notna(), None)

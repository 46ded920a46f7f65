"""The sets that a training reads: from their source, with the first rows only if so wished."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from viralbert.trainings import Training
from viralbert_utils.data import sources
from viralbert_utils.data.cleaning import RULES, clean
from viralbert_utils.data.splits import split_set


def read_set(
    name: str, training: Training, files: list[dict[str, Any]]
) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """A set of the training's data, cleaned and split as in lesson 01.

    Args:
        name: A key of `contracts.CONTRACTS`.
        training: Says where the data are.
        files: Gets the files that were read, with their sha256.

    Returns:
        Split -> rows; and the names of the splits that the source itself has.

    Raises:
        DataError: As `sources.load` and `cleaning.clean`.
    """
    loaded = sources.load(name, training.data)
    if training.max_rows:
        loaded.splits = {s: table.head(training.max_rows) for s, table in loaded.splits.items()}
    files.extend({"set": name} | asdict(file) for file in loaded.files)
    tables = split_set(name, clean(loaded, **RULES[name]).splits, training.seed)
    return tables, set(loaded.splits)

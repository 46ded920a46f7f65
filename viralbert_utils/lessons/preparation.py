"""What lesson 01 alone shows of a data set: every set of a source at once, how far two
annotators agree, and whether splits share texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from viralbert_utils.base.files import check_there, own_path
from viralbert_utils.base.texts import comparison_key
from viralbert_utils.data.contracts import CONTRACTS
from viralbert_utils.data.sources import Dataset, from_files, has, load
from viralbert_utils.data.tables import FORMATS, require_columns, require_tables


def load_all(
    source: str, own_files: Mapping[str, str] | None = None, max_rows: int = 0
) -> dict[str, Dataset]:
    """Every set that the source has, by name; emotions and virality must be among them.

    Args:
        source: As in `load`.
        own_files: Set -> table file of your own that takes the place of the source's (empty path:
            none), e.g. `{"virality": "mine.csv"}` beside the hub, which has no virality set.
        max_rows: Only the first rows of each table; 0 = all.

    Raises:
        DataError: As in `load`.
    """
    paths = {name: path for name, path in (own_files or {}).items() if path}
    datasets = {
        name: load(name, source) for name in CONTRACTS if name not in paths and has(name, source)
    }
    datasets |= {name: own_set(name, path) for name, path in paths.items()}
    for name in ("emotions", "virality"):
        if name not in datasets:
            load(name, source)  # raises, and says what was expected where
    for dataset in datasets.values() if max_rows else ():
        dataset.splits = {split: table.head(max_rows) for split, table in dataset.splits.items()}
    return {name: datasets[name] for name in CONTRACTS if name in datasets}


def own_set(name: str, path: str) -> Dataset:
    """A set from a table file of your own, in place of the one that a source has.

    Args:
        name: A key of `CONTRACTS`.
        path: A table with the set's columns.

    Raises:
        DataError: There is no such file, or as in `from_files`.
    """
    file = own_path(path)
    check_there(file, f"a table for the set {name!r} ({', '.join(FORMATS)})")
    return from_files(name, str(path), {"all": file})


def n_shared(splits: dict[str, pd.DataFrame], text_column: str = "text") -> int:
    """Number of texts (by comparison key) that stand in more than one split; zero is what one wants
    to see.

    Raises:
        DataError: A table lacks the column.
    """
    require_tables(splits)
    for split, table in splits.items():
        require_columns(table, [text_column], split)
    keys = [{comparison_key(text) for text in table[text_column]} for table in splits.values()]
    return sum(map(len, keys)) - len(set().union(*keys))


def agreement(first: Sequence, second: Sequence) -> dict[str, float]:
    """How far two annotators agree on the same texts.

    Args:
        first: One label a text, or a list of label ids a text.
        second: The other annotator's, in the same order.

    Returns:
        `texts` (how many), `same` (share with exactly the same labels), `kappa` (Cohen 1960) and
        `kappa_least`: for several labels the mean over the labels that either annotator used, and
        the lowest of them.
    """
    from sklearn.metrics import cohen_kappa_score

    same = float(np.mean([a == b for a, b in zip(first, second, strict=True)]))
    pairs: list[tuple[Sequence, Sequence]] = [(first, second)]
    if isinstance(first[0], list):
        used = sorted({label for ids in [*first, *second] for label in ids})
        pairs = [([k in ids for ids in first], [k in ids for ids in second]) for k in used]
    # Two annotators who both give one label to everything agree, but kappa is not defined for them.
    kappas = [
        1.0 if len({*a, *b}) == 1 else float(cohen_kappa_score(list(a), list(b))) for a, b in pairs
    ]
    return {
        "texts": len(first),
        "same": same,
        "kappa": float(np.mean(kappas)),
        "kappa_least": min(kappas),
    }

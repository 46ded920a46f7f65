"""The six-class set, made of CEDR and GoEmotions.

Lesson 01 builds both. Neither changes a label; rows that have no place in the combined set are left
out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from viralbert_utils.base.texts import comparison_key
from viralbert_utils.data.emotions import cedr_with_no_emotion, to_cedr
from viralbert_utils.data.tables import require_columns, require_tables


def six_classes(
    emotions: pd.DataFrame, cedr: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, int]:
    """CEDR's six classes from GoEmotions-style rows, and from CEDR's own where there are any.

    Args:
        emotions: `text`, `labels` (GoEmotions ids); mapped by `emotions.GOEMOTIONS_TO_CEDR`.
        cedr: `text`, `labels` (CEDR ids, `[]` = no emotion).

    Returns:
        Rows with `text`, `labels` (positions in `CEDR_CLASSES`), `origin` (`goemotions` or `cedr`),
        and the number of GoEmotions rows left out because none of their labels has a counterpart.

    Raises:
        DataError: A column is missing.
    """
    require_columns(emotions, ["text", "labels"], "emotions")
    labels = emotions["labels"].map(to_cedr)
    mapped = emotions[["text"]].assign(labels=labels, origin="goemotions")
    known = mapped[mapped["labels"].notna()]
    parts = [known]
    if cedr is not None:
        require_columns(cedr, ["text", "labels"], "cedr")
        labels = cedr["labels"].map(cedr_with_no_emotion)
        parts.append(cedr[["text"]].assign(labels=labels, origin="cedr"))
    return pd.concat(parts, ignore_index=True), len(mapped) - len(known)


def native_and_added(
    six: Mapping[str, pd.DataFrame],
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, int]:
    """CEDR's own rows, and GoEmotions' that may be trained on beside them.

    Without any of CEDR (the sample) mapped rows play its part: all of validation and test, every
    second one of training; the other half then is what is added.

    Args:
        six: Split (`train`, `validation`, `test`) -> rows as of `six_classes`.

    Returns:
        Split -> CEDR's rows; GoEmotions' training rows whose text is none of CEDR's validation and
        test texts; how many were left out because theirs is.

    Raises:
        DataError: A column is missing.
    """
    require_tables(six)
    for split, table in six.items():
        require_columns(table, ["text", "origin"], split)
    is_native = {split: (table["origin"] == "cedr").to_numpy() for split, table in six.items()}
    if not any(rows.any() for rows in is_native.values()):
        is_native = {
            split: np.arange(len(rows)) % (2 if split == "train" else 1) == 0
            for split, rows in is_native.items()
        }
    native = {split: table[is_native[split]] for split, table in six.items()}
    judged = {
        comparison_key(text) for split in ("validation", "test") for text in native[split]["text"]
    }
    added = six["train"][~is_native["train"]]
    is_new = [comparison_key(text) not in judged for text in added["text"]]
    return native, added[is_new], len(added) - sum(is_new)

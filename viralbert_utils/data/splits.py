"""Splits that depend on a seed and on the content of each row, not on the order of the file.

Lesson 01 derives them. A row's place is decided by a hash of its text: the order of the file plays
no part, the same text never stands in two splits, and an added row moves at most the few that lie
next to a boundary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import pandas as pd

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.texts import comparison_key
from viralbert_utils.data.tables import require_columns, require_tables

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def content_hash(content: str, seed: int) -> float:
    """A number in [0, 1) that depends on the text and the seed only."""
    digest = hashlib.blake2b(f"{seed}\0{content}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def by_label(
    table: pd.DataFrame,
    shares: dict[str, float] | None = None,
    seed: int = 0,
    text_column: str = "text",
    label_column: str = "labels",
) -> dict[str, pd.DataFrame]:
    """Stratified split for one or several labels a row.

    Each row belongs to the stratum of its rarest label; every stratum is cut by the hash of the
    text. Rare labels so get their share in every split, as in iterative stratification (Sechidis et
    al. 2011), but a row's place does not depend on the other rows' order.

    Args:
        table: Rows with a text and labels (a list of ids, or one value).
        shares: Split -> share of the rows; must add up to 1.
        seed: Another seed gives another split.
        text_column: Rows with equal comparison keys stay together.
        label_column: Column with labels.

    Returns:
        Split -> rows, in the order of the table.

    Raises:
        DataError: A column is missing, or a split would be empty.
    """
    require_columns(table, [text_column, label_column])
    labels = [value if isinstance(value, list) else [value] for value in table[label_column]]
    n_rows: dict[Hashable, int] = {}
    for ids in labels:
        for label in ids:
            n_rows[label] = n_rows.get(label, 0) + 1
    strata = [
        min(ids, key=lambda label: (n_rows[label], str(label)), default=None) for ids in labels
    ]
    keys = [comparison_key(text) for text in table[text_column]]
    # Equal texts may carry different labels: the first decides the stratum of all.
    stratum_of: dict[str, Hashable] = {}
    for key, stratum in zip(keys, strata, strict=True):
        stratum_of.setdefault(key, stratum)
    members: dict[Hashable, list[str]] = {}
    for key, stratum in stratum_of.items():
        members.setdefault(stratum, []).append(key)
    place: dict[str, str] = {}
    for group in members.values():
        place |= _cut(group, lambda key: content_hash(key, seed), shares)
    return _select(table, [place[key] for key in keys], shares)


def by_group(
    table: pd.DataFrame,
    column: str,
    label_column: str,
    shares: dict[str, float] | None = None,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Whole groups to one side: reviews of a film say much about other reviews of it.

    Groups are placed one by one, large ones first and equal ones by hash, each where the numbers of
    rows of every label then come nearest to the wished shares. A new group may move some that come
    after it.

    Args:
        table: Rows with a group (film, author, channel) and a label.
        column: The group.
        label_column: One label a row.
        shares: Split -> share of the rows.
        seed: Another seed gives another split.

    Raises:
        DataError: A column is missing, or there are fewer groups than splits.
    """
    require_columns(table, [column, label_column])
    wanted = shares or SHARES
    counts = pd.crosstab(table[column].astype(str), table[label_column])
    if len(counts) < len(wanted):
        raise DataError(
            f"{len(counts)} groups in {column!r} cannot fill {len(wanted)} splits; split by label "
            "instead"
        )
    order = sorted(
        counts.index, key=lambda group: (-counts.loc[group].sum(), content_hash(group, seed))
    )
    # Share of each label that each split still lacks; rare labels weigh as much as frequent ones.
    per_label = counts.to_numpy() / counts.to_numpy().sum(axis=0)
    missing = np.outer(list(wanted.values()), np.ones(counts.shape[1]))
    place: dict[str, str] = {}
    names = list(wanted)
    for n_left, group in zip(range(len(order), 0, -1), order, strict=True):
        part = per_label[counts.index.get_loc(group)]
        empty = [split for split in range(len(names)) if names[split] not in place.values()]
        allowed = empty if n_left <= len(empty) else range(len(names))
        cost = {
            split: ((missing[split] - part) ** 2 - missing[split] ** 2).sum() for split in allowed
        }
        chosen = min(cost, key=lambda split: cost[split])
        missing[chosen] -= part
        place[group] = names[chosen]
    return _select(table, [place[str(group)] for group in table[column]], shares)


def by_time(
    table: pd.DataFrame, column: str, shares: dict[str, float] | None = None
) -> dict[str, pd.DataFrame]:
    """The oldest rows train, the newest test: what a model meets after training lies in the future.

    Raises:
        DataError: The column is missing, or a value of it is no date (named with its row).
    """
    require_columns(table, [column])
    times = pd.to_datetime(table[column], errors="coerce", format="ISO8601", utc=True)
    if times.isna().any():
        row = table.index[times.isna()][0]
        raise DataError(
            f"row {row}: {column}={table.at[row, column]!r} is no date; expected e.g. 2022-01-29 "
            "06:00:22"
        )
    # Equal times keep together, so that one minute is never on both sides.
    ranks = times.rank(method="min").to_numpy() - 1
    bounds = np.cumsum(list((shares or SHARES).values())) * len(table)
    names = list(shares or SHARES)
    return _select(
        table,
        [names[int(np.searchsorted(bounds[:-1], rank, side="right"))] for rank in ranks],
        shares,
    )


def complete(
    tables: dict[str, pd.DataFrame], label_column: str = "labels", seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Train, validation and test as published where all exist, else cut from what there is.

    A published validation split without its test split is cut in half: one half tunes, the other
    scores.

    Args:
        tables: Split -> rows; a table without published splits stands under `all` or `train`.
        label_column: For stratification, see `by_label`.
        seed: See `by_label`.
    """
    require_tables(tables)
    if "validation" in tables and "test" not in tables:
        halves = by_label(
            tables["validation"], {"validation": 0.5, "test": 0.5}, seed, label_column=label_column
        )
        return {"train": tables["train"], **halves}
    if "test" in tables and "validation" not in tables:
        parts = by_label(
            tables["all" if "all" in tables else "train"],
            {"train": 0.85, "validation": 0.15},
            seed,
            label_column=label_column,
        )
        return {**parts, "test": tables["test"]}
    if "test" not in tables:
        return by_label(
            tables["all" if "all" in tables else "train"], seed=seed, label_column=label_column
        )
    return tables


def split_set(name: str, tables: dict[str, pd.DataFrame], seed: int = 0) -> dict[str, pd.DataFrame]:
    """Each set in its own way: reviews by film, dated virality by time, the rest by label.

    Args:
        name: A key of `contracts.CONTRACTS`.
        tables: Split -> cleaned rows, as `cleaning.clean` leaves them.
        seed: See `by_label`.
    """
    require_tables(tables)
    rows = pd.concat(tables.values())
    if name == "reviews" and "test" not in tables:
        return by_group(rows, "film", "label", seed=seed)
    if name == "virality" and "published_at" in rows and "test" not in tables:
        return by_time(rows, "published_at")
    if name == "videos" and "label" not in rows and "tags" in rows:
        # Tags are a tree written as "topic: narrower topic, ..." or alone; the first stands for the
        # video.
        topics = rows["tags"].astype(str).str.split("[:,]", regex=True).str[0].str.strip()
        return by_label(rows.assign(label=topics), seed=seed, label_column="label")
    return complete(tables, "labels" if "labels" in rows else "label", seed)


def _cut(
    members: Sequence[str], order: Callable[[str], float], shares: dict[str, float] | None
) -> dict[str, str]:
    """Members sorted by hash, cut at the shares; the hash decides about what rounding leaves."""
    ranked = sorted(members, key=order)
    # The offset (the first hash itself, uniform) decides on average rightly for strata smaller than
    # 1 / share.
    offset = order(" ".join(ranked[:1]) + "offset") if ranked else 0.0
    bounds = np.cumsum(list((shares or SHARES).values()))
    names = list(shares or SHARES)
    return {
        member: names[
            int(np.searchsorted(bounds[:-1], (rank + offset) / len(ranked), side="right"))
        ]
        for rank, member in enumerate(ranked)
    }


def _select(
    table: pd.DataFrame, places: Sequence[str], shares: dict[str, float] | None
) -> dict[str, pd.DataFrame]:
    where = np.array(places)
    parts = {split: table[where == split] for split in shares or SHARES}
    empty = [split for split, part in parts.items() if part.empty]
    if empty:
        raise DataError(
            f"no row is left for {', '.join(empty)}: {len(table)} rows are too few, or too alike, "
            "to split"
        )
    return parts

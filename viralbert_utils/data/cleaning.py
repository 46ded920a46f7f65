"""Cleaning with every dropped row counted by reason: repair, duplicates, leakage.

Lesson 01 derives it. Near duplicates are found with MinHash and locality-sensitive hashing (Broder
1997; Leskovec et al., "Mining of Massive Datasets", ch. 3) at linear cost, then confirmed by the
exact Jaccard similarity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.texts import comparison_key, cyrillic_share, normalise
from viralbert_utils.data.emotions import CEDR_EMOTIONS, EMOTIONS, parse_labels, plain_label
from viralbert_utils.data.sources import Dataset
from viralbert_utils.data.tables import require_columns

EVALUATION = ("test", "validation")
# characters; short enough for one-word edits, long enough that common words do not match everything
SHINGLE = 5


def shingles(key: str) -> set[str]:
    """Overlapping pieces of `SHINGLE` characters, on which similarity is measured."""
    return {key[i : i + SHINGLE] for i in range(max(1, len(key) - SHINGLE + 1))}


def jaccard(a: set[str], b: set[str]) -> float:
    """Shared part of two sets, 0 to 1."""
    return len(a & b) / len(a | b) if a or b else 1.0


def near_duplicates(
    keys: Sequence[str], threshold: float = 0.8, n_kept: int = 0, n_hashes: int = 128
) -> list[tuple[int, int]]:
    """Texts that nearly equal an earlier one, in linear time.

    A text is compared with those that stay, so in a chain of small changes every second one may
    remain.

    Args:
        keys: Comparison keys.
        threshold: Least Jaccard similarity of the character shingles.
        n_kept: The first `n_kept` texts stay whatever they equal (evaluation splits).
        n_hashes: MinHash permutations. The search is probabilistic: a pair just above the threshold
            is found with a probability of about 0.97 (measured in tests), an equal one always; no
            pair below it is ever reported.

    Returns:
        `(earlier, later)` positions in the order of the later one; the earlier is the most similar
        that stays.
    """
    from datasketch import MinHash, MinHashLSH  # heavy, and reading a text needs it not

    pieces = [shingles(key) for key in keys]
    # Candidates are confirmed below, so hashing is tuned to miss few: a wrong candidate only costs
    # a comparison.
    index = MinHashLSH(threshold=min(threshold, 0.99), num_perm=n_hashes, weights=(0.02, 0.98))
    encoded = ([piece.encode() for piece in part] for part in pieces)
    pairs = []
    for position, sketch in enumerate(MinHash.generator(encoded, num_perm=n_hashes, seed=1)):
        scored = [
            (jaccard(pieces[position], pieces[other]), -other) for other in index.query(sketch)
        ]
        near = bool(scored) and max(scored)[0] >= threshold
        if near and position >= n_kept:
            pairs.append((-max(scored)[1], position))
        else:
            index.insert(position, sketch, check_duplication=False)
    return pairs


# What `clean` must know of each set. Two episodes of one cartoon may differ by one digit, so videos
# are dropped only when title and description are equal; they come in several languages.
RULES: dict[str, dict[str, Any]] = {
    "emotions": {"names": EMOTIONS},
    "cedr": {"names": CEDR_EMOTIONS},
    "virality": {"classes": (0, 1)},
    "reviews": {"classes": ("bad", "neutral", "good"), "max_chars": 20_000},
    "videos": {"min_cyrillic": 0.0, "near_threshold": 2.0, "max_chars": 20_000},
}


@dataclass
class Cleaned:
    """Result of `clean`.

    Attributes:
        splits: Split -> table that is left; the index still points to the row of the source file.
        dropped: One row a dropped text: `split`, `row`, `reason`, `detail`, `text`.
        counts: One row a split: rows read, dropped for each reason, left.
        notes: Facts that dropped nothing (texts repaired, evaluation rows that occur twice).
    """

    splits: dict[str, pd.DataFrame]
    dropped: pd.DataFrame
    counts: pd.DataFrame
    notes: dict[str, int] = field(default_factory=dict)


def clean(
    dataset: Dataset,
    *,
    names: Sequence[str] | None = None,
    classes: Iterable[Hashable] | None = None,
    text_column: str = "text",
    max_chars: int = 5000,
    min_cyrillic: float = 0.25,
    near_threshold: float = 0.8,
    max_bad_share: float = 0.05,
) -> Cleaned:
    """Clean a set, split by split, and remove from training what an evaluation split holds.

    Rows of validation and test are only dropped when they cannot be used at all: a published split
    stays comparable. Training rows are dropped for, in this order: `missing_text`, `too_long`,
    `not_russian`, `unknown_label`, `duplicate` (same text, agreed labels), `conflict` (same text,
    labels without a majority), and by the most similar text that stays: `near_duplicate`,
    `in_test`, `in_validation`.

    Args:
        dataset: As `load` gives it.
        names: Multi-label sets: the label set; ids in `labels` are positions in it.
        classes: Single-label sets: allowed values of `label`.
        text_column: The column to clean and compare.
        max_chars: Longer texts are dropped as broken rows rather than truncated.
        min_cyrillic: Least share of Cyrillic among the letters; a text without letters (emoji)
            passes.
        near_threshold: Jaccard similarity from which two texts count as one; above 1 switches the
            search off.
        max_bad_share: With a larger share of unknown labels in a split, the file is taken for
            another label set.

    Raises:
        DataError: A column is missing, too many labels are unknown, nothing is left of a split, or
            an index repeats.
    """
    needed = [
        text_column,
        *(["labels"] if names is not None else ["label"] if classes is not None else []),
    ]
    allowed = None if classes is None else set(classes)
    dropped: list[dict[str, object]] = []
    notes: Counter[str] = Counter()
    splits = {}
    for split, raw in dataset.splits.items():
        require_columns(raw, needed, f"{dataset.name}/{split}")
        if not raw.index.is_unique:
            raise DataError(
                f"{dataset.name}/{split}: the index must name each row once (use reset_index)"
            )
        drop = partial(_drop, dropped, split, text_column)
        repaired, n_repaired = _repair_texts(raw, text_column)
        notes["texts repaired"] += n_repaired
        usable = _drop_unusable(repaired, text_column, max_chars, min_cyrillic, drop)
        labelled = _read_labels(
            usable, names, allowed, max_bad_share, f"{dataset.name}/{split}", drop
        )
        keyed = labelled.assign(_key=[comparison_key(text) for text in labelled[text_column]])
        splits[split] = keyed if split in EVALUATION else _drop_duplicates(keyed, drop)
    _separate(splits, text_column, near_threshold, dropped, notes)
    for split, table in splits.items():
        if table.empty:
            reasons = Counter(str(row["reason"]) for row in dropped if row["split"] == split)
            raise DataError(
                f"{dataset.name}/{split}: no row is left after cleaning; dropped: {dict(reasons)}"
            )
    counts = pd.DataFrame(
        {
            split: {"read": len(dataset.splits[split])}
            | Counter(str(d["reason"]) for d in dropped if d["split"] == split)
            | {"left": len(splits[split])}
            for split in splits
        }
    ).T
    order = ["read", *[c for c in counts.columns if c not in ("read", "left")], "left"]
    columns = ["split", "row", "reason", "detail", "text"]
    return Cleaned(
        {split: table.drop(columns="_key") for split, table in splits.items()},
        pd.DataFrame(dropped, columns=columns),
        counts[order].fillna(0).astype(int),
        {note: n for note, n in notes.items() if n},
    )


Drop = Callable[[pd.DataFrame, str, Sequence[str]], None]


def _drop(
    dropped: list[dict[str, object]],
    split: str,
    column: str,
    rows: pd.DataFrame,
    reason: str,
    details: Sequence[str],
) -> None:
    """Enter rows into the list of dropped ones; `clean` binds the first three arguments."""
    for (row, text), detail in zip(rows[column].items(), details, strict=True):
        dropped.append(
            {"split": split, "row": row, "reason": reason, "detail": detail, "text": text}
        )


def _repair_texts(table: pd.DataFrame, column: str) -> tuple[pd.DataFrame, int]:
    raw = [
        "" if value is None or value is pd.NA or value != value else str(value)
        for value in table[column]
    ]
    repaired = [normalise(text) for text in raw]
    return table.assign(**{column: repaired}), sum(
        a != b for a, b in zip(raw, repaired, strict=True)
    )


def _drop_unusable(
    table: pd.DataFrame, column: str, max_chars: int, min_cyrillic: float, drop: Drop
) -> pd.DataFrame:
    lengths = table[column].str.len()
    empty, long = lengths == 0, lengths > max_chars
    drop(table[empty], "missing_text", [""] * int(empty.sum()))
    drop(
        table[long].assign(**{column: table.loc[long, column].str[:200]}),
        "too_long",
        [f"{n} characters, limit {max_chars}" for n in lengths[long]],
    )
    table = table[~empty & ~long]
    shares = pd.Series(
        [cyrillic_share(text) for text in table[column]], index=table.index, dtype=float
    )
    foreign = shares < min_cyrillic
    drop(
        table[foreign],
        "not_russian",
        [f"{share:.0%} Cyrillic letters" for share in shares[foreign]],
    )
    return table[~foreign]


def _read_labels(
    table: pd.DataFrame,
    names: Sequence[str] | None,
    allowed: set[Hashable] | None,
    max_bad_share: float,
    where: str,
    drop: Drop,
) -> pd.DataFrame:
    if names is None and allowed is None:
        return table
    column = "labels" if names is not None else "label"
    values: list[object] = []
    problems: list[str] = []
    for value in table[column]:
        parsed, problem = _read_label(value, names, allowed)
        values.append(parsed)
        problems.append(problem)
    bad = pd.Series([bool(problem) for problem in problems], index=table.index, dtype=bool)
    details = [problem for problem in problems if problem]
    if len(table) and bad.mean() > max_bad_share:
        known = f"names in English or Russian ({', '.join(names or ())})"
        expected = (
            f"ids 0..{len(names) - 1} or {known}"
            if names
            else f"one of {sorted(map(str, allowed or ()))}"
        )
        raise DataError(
            f"{where}: {bad.sum()} of {len(table)} rows have an unusable label (row "
            f"{table.index[bad][0]}: {details[0]}); expected {expected}. This looks like another "
            "label set: map its labels first"
        )
    drop(table[bad], "unknown_label", details)
    return table.assign(**{column: pd.Series(values, index=table.index, dtype=object)})[~bad]


def _read_label(
    value: object, names: Sequence[str] | None, allowed: set[Hashable] | None
) -> tuple[object, str]:
    if names is not None:
        try:
            ids = parse_labels(value, names)
        except ValueError as error:
            return None, str(error)
        outside = [label for label in ids if not 0 <= label < len(names)]
        return ids, f"label id {outside[0]} outside 0..{len(names) - 1}" if outside else ""
    for candidate in allowed or ():
        if plain_label(value) == plain_label(candidate):
            return candidate, ""
    return None, f"label {value!r}"


def _drop_duplicates(table: pd.DataFrame, drop: Drop) -> pd.DataFrame:
    """One row for each text: the first, with the labels of most copies; none if they disagree."""
    label = "labels" if "labels" in table else "label" if "label" in table else None
    repeated = table[table["_key"].duplicated(keep=False)]
    agreed: dict[Hashable, object] = {}
    copies: list[Hashable] = []
    conflicts: list[Hashable] = []
    for _, group in repeated.groupby("_key", sort=False):
        verdict = _majority(list(group[label])) if label else True
        if verdict is None:
            conflicts.extend(group.index)
        else:
            agreed[group.index[0]] = verdict
            copies.extend(group.index[1:])
    drop(table.loc[copies], "duplicate", ["same text as an earlier row"] * len(copies))
    drop(
        table.loc[conflicts],
        "conflict",
        ["equal texts, labels without a majority"] * len(conflicts),
    )
    table = table.drop(index=[*copies, *conflicts])
    if label and agreed:
        labels = [agreed.get(row, value) for row, value in table[label].items()]
        table = table.assign(**{label: pd.Series(labels, index=table.index, dtype=object)})
    return table


def _majority(values: list[object]) -> object | None:
    """Labels that more than half of the copies carry (of two: both), or `None`."""
    if isinstance(values[0], list):
        counts = Counter(label for ids in values for label in ids or [None])  # type: ignore[attr-defined]
        common = [label for label, n in counts.items() if n > len(values) / 2]
        return (
            []
            if common == [None]
            else sorted(label for label in common if label is not None) or None
        )
    value, n = Counter(values).most_common(1)[0]
    return value if n > len(values) / 2 else None


def _separate(
    splits: dict[str, pd.DataFrame],
    column: str,
    threshold: float,
    dropped: list[dict[str, object]],
    notes: Counter[str],
) -> None:
    """Drop from training what nearly repeats another row; changes `splits` in place."""
    order = [split for split in EVALUATION if split in splits]
    n_kept = sum(len(splits[split]) for split in order)
    order += [split for split in splits if split not in EVALUATION]
    owner = [(split, row) for split in order for row in splits[split].index]
    keys = [key for split in order for key in splits[split]["_key"]]
    # Evaluation splits come first, so the text of a pair that stays is always the earlier one.
    first: dict[str, int] = {}
    twins = {i: first[key] for i, key in enumerate(keys) if first.setdefault(key, i) != i}
    for later, earlier in twins.items():
        if later < n_kept:
            where = owner[earlier][0]
            notes[f"{owner[later][0]} rows that repeat one of {where} (kept)"] += 1
    if threshold <= 1:
        # What equals an evaluation text counts as that, whatever else it resembles.
        twins = {
            later: earlier for earlier, later in near_duplicates(keys, threshold, n_kept)
        } | twins
    gone: dict[str, list[Hashable]] = {}
    for later, earlier in sorted(twins.items()):
        if later < n_kept:
            continue
        (split, row), (kept_split, kept_row) = owner[later], owner[earlier]
        how = "same text as" if keys[later] == keys[earlier] else "nearly"
        detail = f"{how} {kept_split} row {kept_row}: {splits[kept_split].at[kept_row, column]!s}"
        reason = "near_duplicate" if split == kept_split else f"in_{kept_split}"
        dropped.append(
            {
                "split": split,
                "row": row,
                "reason": reason,
                "detail": detail,
                "text": splits[split].at[row, column],
            }
        )
        gone.setdefault(split, []).append(row)
    for split, rows in gone.items():
        splits[split] = splits[split].drop(index=rows)

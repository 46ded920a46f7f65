"""Suspected labels as a sheet for people, and their corrections read back (lesson 08)."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path, write_whole
from viralbert_utils.base.texts import INVISIBLE, normalise
from viralbert_utils.data.emotions import EMOTIONS, parse_labels
from viralbert_utils.data.tables import read_table, require_columns
from viralbert_utils.evaluation import thresholds
from viralbert_utils.lessons.label_errors import class_support, confident_thresholds


def suspects(
    rows: pd.DataFrame,
    labels: np.ndarray,
    probabilities: np.ndarray,
    score: np.ndarray,
    names: Sequence[str] = EMOTIONS,
    n: int | None = None,
) -> pd.DataFrame:
    """The most suspicious rows, for a human to look at.

    Args:
        rows: `id` and `text`.
        labels: The given ones `(n_texts, n_classes)`, 0/1.
        probabilities: Out of fold, same shape.
        score: `(n_texts,)`, large is suspicious.
        names: The classes, in the order of the columns.
        n: How many; all unless given.

    Returns:
        `id`, `text`, `given`, `likely` (labels above shrunk thresholds, at least one; names joined
        by commas), `doubtful` (the given label with the least support, for a list per class),
        `score`, `reason`; worst first.

    Raises:
        DataError: A column is missing.
    """
    require_columns(rows, ["id", "text"])
    support = class_support(labels, probabilities, 0.5)
    likely = thresholds.decide(probabilities, thresholds.shrunk(labels, probabilities))
    likely[np.arange(len(labels)), support.argmax(axis=1)] |= ~likely.any(axis=1)
    usual = confident_thresholds(labels, probabilities)[:, 1]
    suspicious = []
    for row in np.argsort(-score, kind="stable")[:n]:
        given = np.flatnonzero(labels[row])
        doubtful = int(given[support[row, given].argmin()]) if len(given) else None
        other = int(np.where(labels[row] > 0, -np.inf, support[row]).argmax())
        shown = [("given", doubtful)] if doubtful is not None else []
        shown += [("not given", other)] if not labels[row].all() else []
        reason = "; ".join(
            f"{names[int(k)]} {side}, probability {probabilities[row, k]:.2f} (usual with the "
            f"label: {usual[k]:.2f})"
            for side, k in shown
        )
        suspicious.append(
            {
                "id": rows["id"].iloc[row],
                "text": rows["text"].iloc[row],
                "given": _spell(labels[row], names),
                "likely": _spell(likely[row], names),
                "doubtful": "" if doubtful is None else names[doubtful],
                "score": float(score[row]),
                "reason": reason,
            }
        )
    return pd.DataFrame(suspicious)


def _spell(row: np.ndarray, names: Sequence[str]) -> str:
    return ", ".join(names[int(k)] for k in np.flatnonzero(row)) or "[]"


# A spreadsheet takes what begins like a formula for one, also behind what it does not show; a space
# before it makes it a text again. A cell may begin inside a text: Russian spreadsheets read
# semicolons and line breaks as its borders.
_FORMULA = re.compile(f"(?<![^;,|\"'\t\r\n{INVISIBLE}])(?=[=+@＝＋－＠-])")


def _as_compared(cell: object) -> str:
    """What `write_sheet` and a spreadsheet leave as it was: all but white space and invisible
    characters."""
    return "".join(normalise(str(cell)).split())


def _is_same_text(found: object, own: object) -> bool:
    """Whether a cell of a sheet holds a text of the table.

    A spreadsheet that saves in CP1251 puts question marks in the place of what that lacks (emoji,
    other alphabets), so a text with some may differ in all but plain letters and digits.
    """
    sides = _as_compared(found), _as_compared(own)
    if sides[0] == sides[1]:
        return True
    kept = {re.sub("[^a-zа-яё0-9]", "", side.casefold()) for side in sides}
    return "?" in sides[0] and len(kept) == 1


def in_a_spreadsheet(row: int) -> str:
    """A row, from 0 below the header, as a spreadsheet counts it."""
    return f"row {row + 2} (the header is row 1)"


def write_sheet(suspicious: pd.DataFrame, path: Path | str, separator: str = ",") -> None:
    """Suspects as CSV with an empty column `corrected`, for a spreadsheet.

    Who corrects writes the right labels there: names (English or Russian) or ids, several joined by
    commas, `[]` for none, the given ones again if they are right. Empty means not looked at.

    Args:
        suspicious: What `suspects` gives.
        path: The file.
        separator: Stands between the columns: a Russian Excel expects semicolons.

    Raises:
        DataError: There is no column `text`.
    """
    require_columns(suspicious, ["text"])
    sheet = suspicious.assign(corrected="")
    for column in sheet:
        if not is_numeric_dtype(sheet[column]):
            sheet[column] = [_FORMULA.sub(" ", str(cell)) for cell in sheet[column]]
    content = sheet.to_csv(
        index=False, quoting=csv.QUOTE_NONNUMERIC, sep=separator
    )  # a line break may be a CR alone
    # With the byte order mark spreadsheets know UTF-8.
    write_whole(own_path(path), "\ufeff" + content)


def read_corrections(
    path: Path | str, table: pd.DataFrame, names: Sequence[str] = EMOTIONS
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Take corrections from a sheet back into a table; rows without one keep their labels.

    Args:
        path: As `write_sheet` wrote it, `corrected` filled in for some rows, other columns changed
            or not; saved again with commas or semicolons, in UTF-8, UTF-16 or CP1251.
        table: `id`, `text`, `labels` (lists of ids); not changed.
        names: The label set.

    Returns:
        The table with corrected labels, and how many rows were `changed`, `confirmed` and left
        `open`.

    Raises:
        DataError: A column is missing, an id that the table lacks or has twice, another text under
            an id, labels that are not in the set, or two corrections of one id that differ; the
            message names the row.
    """
    require_columns(table, ["id", "text", "labels"])
    sheet = read_table(own_path(path), cp1251=True)  # the texts are compared below
    if missing := {"id", "text", "corrected"} - set(sheet.columns):
        raise DataError(
            f"{path}: column {min(missing)!r} is missing; found "
            f"{', '.join(map(str, sheet.columns))}. Keep the columns of the sheet, and save it as "
            "CSV with commas or semicolons"
        )
    ids = [_as_compared(value) for value in table["id"]]
    if len(set(ids)) < len(ids):
        raise DataError("an id stands twice in the table; corrections cannot be told apart")
    place = {name: position for position, name in enumerate(ids)}
    labels, corrected = list(table["labels"]), dict[str, tuple[int, list[int]]]()
    sheet = sheet.assign(id=[_as_compared(value) for value in sheet["id"]])
    for row, (name, text, field) in enumerate(
        sheet[["id", "text", "corrected"]].itertuples(index=False)
    ):
        where = f"{path}, {in_a_spreadsheet(row)}"
        if name not in place:
            raise DataError(
                f"{where}: id {name!r} is not in the table; keep the column id as it was"
            )
        if not _is_same_text(text, table["text"].iloc[place[name]]):
            raise DataError(
                f"{where}: the text is not that of id {name!r}; sort whole rows, never one column "
                "alone"
            )
        if not normalise(field):
            continue
        try:
            new_labels = parse_labels(field, names)
        except ValueError as error:
            raise DataError(
                f"{where}: corrected={field!r}: {error}; known: {', '.join(names)}"
            ) from None
        if outside := [label for label in new_labels if not 0 <= label < len(names)]:
            raise DataError(f"{where}: label id {outside[0]} is outside 0..{len(names) - 1}")
        earlier, same = corrected.setdefault(name, (row, new_labels))
        if same != new_labels:
            raise DataError(
                f"{where}: id {name!r} was corrected otherwise in {in_a_spreadsheet(earlier)}; "
                "keep one of them"
            )
    changed = [
        name
        for name, (_, new_labels) in corrected.items()
        if sorted(labels[place[name]]) != new_labels
    ]
    for name in changed:
        labels[place[name]] = corrected[name][1]
    counts = {"changed": len(changed), "confirmed": len(corrected) - len(changed)}
    counts["open"] = sheet["id"].nunique() - len(corrected)
    return table.assign(labels=pd.Series(labels, table.index, dtype=object)), counts

"""Tables that people bring: CSV with any usual separator and encoding, JSON lines, Parquet.

Lesson 01 reads its sources through this."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_plain, check_there

FORMATS = (".csv", ".parquet", ".jsonl", ".json", ".tsv")  # in upper or lower case


def read_table(path: Path, cp1251: bool = False) -> pd.DataFrame:
    """Read a table in one of `FORMATS` without guessing: every field as it stands, text as text.

    Columns of a CSV may be separated by commas, by semicolons, as a Russian Excel does it, or by
    tabs; its header tells (or a first line `sep=;`). JSON is a list of objects, or an object a
    line.

    Args:
        path: The file.
        cp1251: Take a CSV that is no UTF-8, but reads well as CP1251, for that, as an older Russian
            Excel saves it. For callers who show or check what was read: it is a guess.

    Raises:
        DataError: Empty file, another kind of file, neither UTF-8 nor UTF-16, or a broken row
            (named by its line).
    """
    reader: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": partial(_read_csv, cp1251=cp1251),
        ".tsv": partial(_read_csv, cp1251=cp1251),
        ".json": _read_json,
        ".jsonl": _read_json,
        ".parquet": _read_parquet,
    }
    check_there(path)
    check_plain(path)
    kind = path.suffix.lower()
    if kind not in reader:
        raise DataError(
            f"{path}: {kind or 'a file without an ending'} is no table that is read here; expected "
            f"one of {', '.join(FORMATS)}: save it as CSV, or give it its ending"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); expected a table with a header and rows")
    table = reader[kind](path)
    if table.empty:
        raise DataError(f"{path} has a header but no rows")
    return table


def encoding_of(start: bytes) -> str:
    """The encoding of a file, told by its beginning: UTF-16 or UTF-8, with or without a mark.

    A file without a mark is in UTF-16 if every other byte is often zero, as the upper byte of
    spaces and digits is.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    n_even, n_odd = (start[parity::2].count(0) for parity in (0, 1))
    if max(n_even, n_odd) > len(start) / 20 and max(n_even, n_odd) > 10 * min(n_even, n_odd):
        return "utf-16-le" if n_odd > n_even else "utf-16-be"
    return "utf-8-sig"


def undecodable(error: UnicodeDecodeError, where: str, line: int = 1) -> DataError:
    """The error for bytes in another encoding than expected, with a guess at which it is.

    Args:
        error: As `bytes.decode` raised it.
        where: Name of the file.
        line: Number of the line where the bytes begin that were decoded.
    """
    raw, name = error.object, Path(where).name
    if error.encoding.lower().startswith("utf-16"):
        return DataError(
            f"{where}: it looks like UTF-16, but is damaged ({error.reason}); save it as UTF-8"
        )
    line += raw[: error.start].count(b"\n")
    hint, remedy = "encoding unknown", "save it as UTF-8"
    if encoding := _russian_encoding(raw[raw.rfind(b"\n", 0, error.start) + 1 :]):
        hint = f"it reads well as {encoding}"
        remedy = (
            f"convert it first: iconv -f {encoding} -t UTF-8 {name} > converted{Path(name).suffix}"
        )
    problem = f"expected UTF-8, found byte 0x{raw[error.start]:02x} ({hint})"
    return DataError(f"{where}, line {line}: {problem}; {remedy}")


def _russian_encoding(raw: bytes) -> str | None:
    """The old encoding in which bytes read well as Russian, if there is one."""
    n_high = sum(byte > 127 for byte in raw)
    for encoding in ("CP1251", "CP866", "KOI8-R"):
        guess = raw.decode(encoding, "replace")
        n_small = len(re.findall("[а-яё]", guess))
        n_capital = len(re.findall("[А-ЯЁ]", guess))
        # CP1251 and KOI8-R swap capitals and small letters with each other.
        if n_small + n_capital > 0.8 * n_high and (
            n_small >= n_capital or (encoding == "CP1251" and not n_small)
        ):
            return encoding
    return None


def _read_text(path: Path, cp1251: bool = False) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode(encoding_of(raw)).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        if cp1251 and _russian_encoding(raw) == "CP1251":
            return raw.decode("cp1251", "replace")  # one byte of it has no letter
        raise undecodable(error, str(path)) from None


_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _separator(path: Path, text: str) -> tuple[str, str]:
    """What separates the columns (commas if in doubt), and the text from the header on."""
    text = text.lstrip("\r\n")
    first, rest = (*re.split("\r\n?|\n", text, maxsplit=1), "")[:2]
    if said := re.fullmatch(r'"?sep=(.)"?[\s,;]*', first, re.I):
        return said[1], rest
    if path.suffix.lower() == ".tsv":
        return "\t", text
    outside_quotes = re.sub('"[^"]*"', "", first)
    return max(_SEPARATORS, key=outside_quotes.count), text


def _read_csv(path: Path, cp1251: bool = False) -> pd.DataFrame:
    # The csv module in strict mode, not pandas: pandas fills a short row with NaN and says nothing.
    previous = csv.field_size_limit(2**31 - 1)
    rows: list[list[str]] = []
    text = _read_text(path, cp1251)
    separator, table = _separator(path, text)
    # Lines before the header.
    n_before = len(re.findall("\r\n?|\n", text[: len(text) - len(table)]))
    reader = csv.reader(io.StringIO(table, newline=""), strict=True, delimiter=separator)
    line = 1 + n_before
    try:
        header = next(reader, [])
        for row in reader:
            if row and len(row) != len(header):
                raise DataError(
                    f"{path}, line {line + 1}: expected {len(header)} fields "
                    f"({', '.join(header)}), found {len(row)}; {_remedy(separator, header, row)}"
                )
            if row or len(header) == 1:  # with one column, an empty line is an empty field
                rows.append(row or [""])
            line = reader.line_num + n_before
    except csv.Error as error:
        raise DataError(
            f"{path}, from line {line + 1} on: broken CSV ({error}); "
            'check for an unclosed quotation mark, and double the quotes inside a field ("")'
        ) from None
    finally:
        csv.field_size_limit(previous)
    # What spreadsheets leave at the right: columns without a name that hold nothing.
    header = [name.strip() for name in header]
    used = [at for at, name in enumerate(header) if name or any(row[at] for row in rows)]
    if repeated := [name for name, n in Counter(header[at] for at in used).items() if n > 1]:
        raise DataError(
            f"{path}: the header names the column {repeated[0]!r} twice: {', '.join(header)}"
        )
    return pd.DataFrame(
        [[row[at] for at in used] for row in rows],
        columns=[header[at] for at in used],
        dtype=object,
    )


def _remedy(separator: str, header: list[str], row: list[str]) -> str:
    named = _SEPARATORS.get(separator, repr(separator))
    for other, other_name in _SEPARATORS.items():
        fields = [part.count(other) for part in (separator.join(header), separator.join(row))]
        if other != separator and fields[1] > 0 and (len(row) == 1 or fields[0] == fields[1]):
            return (
                f"the header is separated by {named}, this row by {other_name}: save the table "
                "with one of them"
            )
    return f"quote fields that contain {named} or line breaks"


def _read_json(path: Path) -> pd.DataFrame:
    text = _read_text(path)
    if text.lstrip().startswith("["):
        rows = [(f"item {number}", row) for number, row in enumerate(_parse_json(text, str(path)))]
    elif re.match(r"\{[ \t]*+[\r\n]", text.lstrip()):  # one object over several lines
        rows = [("the file", _parse_json(text, str(path)))]
    else:
        lines = ((number, line.lstrip("\ufeff")) for number, line in enumerate(text.split("\n"), 1))
        rows = [
            (f"line {number}", _parse_json(line, f"{path}, line {number}"))
            for number, line in lines
            if line.strip()
        ]
    for where, row in rows:
        if not isinstance(row, dict):
            raise DataError(
                f'{path}, {where}: expected an object like {{"text": ...}}, found '
                f"{type(row).__name__}; write a list of objects, or an object a line"
            )
    if (
        len(rows) == 1
        and rows[0][1]
        and all(isinstance(value, dict | list) for value in rows[0][1].values())
    ):
        raise DataError(
            f"{path}: expected a list of objects, or an object a line, found one object of "
            f"{', '.join(rows[0][1])}; "
            'write its rows (pandas: to_json(..., orient="records"))'
        )
    return pd.DataFrame([row for _, row in rows], dtype=object)


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at character {error.pos})") from None
    except (RecursionError, ValueError) as error:  # too deep; an integer of more than 4,300 digits
        raise DataError(f"{where}: JSON that cannot be read ({error})") from None


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path).astype(object)
    except Exception as error:  # pyarrow raises a family of errors; all mean the same here
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None


def require_table(table: object, where: str = "the table") -> None:
    """Refuse what is no table, e.g. rows as a list, or columns as a dictionary.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(table, pd.DataFrame):
        hint = " (a table of rows or columns: pd.DataFrame(...) makes one of them)"
        raise DataError(
            f"{where}: expected a pandas.DataFrame, found "
            f"{type(table).__name__}{hint if isinstance(table, list | tuple | dict) else ''}"
        )


def require_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    """Refuse what are no tables by the names of their splits.

    Raises:
        DataError: It is something else, or there is none.
    """
    if not isinstance(tables, Mapping) or not tables:
        given = "none" if isinstance(tables, Mapping) else type(tables).__name__
        raise DataError(f"expected tables by split, such as {{'train': table}}, found {given}")
    for split, table in tables.items():
        require_table(table, str(split))


def require_columns(
    table: pd.DataFrame,
    names: Iterable[Hashable],
    where: str = "the table",
    remedy: str = "add it, or rename a column",
) -> None:
    """Refuse a table that lacks columns.

    Args:
        table: The caller's table.
        names: Columns that are needed.
        where: What the table is called in the message.
        remedy: What the message tells the reader to do.

    Raises:
        DataError: It is no table, or a column is missing (the message lists those that are there).
    """
    require_table(table, where)
    missing = [name for name in dict.fromkeys(names) if name not in table.columns]
    if missing:
        columns = ", ".join(map(str, table.columns)) or "none"
        raise DataError(
            f"{where}: no column {', '.join(map(repr, missing))}; found {columns}: {remedy}"
        )


def require_rows(table: pd.DataFrame) -> None:
    """Refuse a table without rows, about which a model has nothing to say.

    Raises:
        DataError: It is no table, or has none.
    """
    require_table(table)
    if table.empty:
        raise DataError("the table has no rows; expected at least one")

"""Reading the course's data sets from the sample, from a folder, or from the hub, with one check for all.

Lesson 01 derives it. A set is described once, in `CONTRACTS`; every source gives the same columns.
Nothing falls back from one source to another: what cannot be read is an error that says what to do.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from viralbert_utils import hub
from viralbert_utils.emotions import CEDR_EMOTIONS, EMOTIONS, parse_labels, plain_label
from viralbert_utils.files import ROOT, check_plain, own_path, sha256, whole_folder
from viralbert_utils.files import DataError as DataError
from viralbert_utils.files import write_whole as write_whole

SAMPLE = ROOT / "data" / "sample"
SPLITS = ("train", "validation", "test")
FORMATS = (".csv", ".parquet", ".jsonl", ".json", ".tsv")  # in upper or lower case


@dataclass(frozen=True)
class Contract:
    """What a data set must look like.

    Attributes:
        columns: Required column -> names under which sources carry it, the preferred first.
        folders: Names of the set's folder (or file) in a data folder.
        hub: Identifier of the data set on the hub, or `None` when only own data exist.
        hub_config: Configuration of it, if it has several.
        optional: Further columns that are kept if present, under their own names.
    """

    columns: dict[str, tuple[str, ...]]
    folders: tuple[str, ...]
    hub: str | None = None
    hub_config: str | None = None
    optional: tuple[str, ...] = ()


CONTRACTS: dict[str, Contract] = {
    "emotions": Contract(
        # The hub's set carries the English original in `text`: the Russian column must win.
        {"text": ("ru_text", "text"), "labels": ("labels",)},
        ("emotions", "ru_go_emotions"),
        "seara/ru_go_emotions",
        "simplified",
        ("id",),
    ),
    "cedr": Contract({"text": ("text",), "labels": ("labels",)}, ("cedr",), "sagteam/cedr_v1", "enriched", ("source",)),
    "virality": Contract(
        {"text": ("text",), "label": ("label",)},
        ("virality",),
        optional=("id", "kind", "topic", "published_at", "category", "views", "ctr", "depth", "full_reads_percent"),
    ),
    "reviews": Contract(
        {
            "film": ("film", "movie_name"),
            "text": ("text", "content"),
            "label": ("label", "grade3"),
        },
        ("reviews", "kinopoisk"),
        "blinoff/kinopoisk",
        optional=("id",),
    ),
    "videos": Contract(
        {"title": ("title",), "description": ("description",)},
        ("videos",),
        optional=(
            "video_id", "subtitles", "is_shorts", "broadcast", "channel_type", "closed", "international",
            "duration_s", "views", "published_at", "label", "tags",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class SourceFile:
    """A file that was read: where, how many rows, and the sha256 of its bytes (of the hub: its own fingerprint)."""

    path: str
    n_rows: int
    sha256: str


@dataclass
class Dataset:
    """A loaded set: split name -> table with the contract's columns, and the files it came from.

    A set whose source has no splits is one table under `"all"`. The index of each table is the row's number in its
    file (the first row below the header is 0), so every later message can point back.
    """

    name: str
    source: str
    splits: dict[str, pd.DataFrame]
    files: list[SourceFile] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        """Rows of all splits together."""
        return sum(len(table) for table in self.splits.values())


def load(name: str, source: str = "sample", hub_id: str | None = None) -> Dataset:
    """Read one of the course's data sets.

    Args:
        name: A key of `CONTRACTS`.
        source: `"sample"` (the texts written for this course), `"hub"`, or the path of a folder laid out as
            `<set>/<split>.csv` or `<set>.csv` (or another of `FORMATS`), with the hub's column names.
        hub_id: Another hub identifier, or a local folder in the hub's format, for `source="hub"`.

    Raises:
        DataError: Unknown set, missing folder, split or column, unreadable file, hub not reachable.
    """
    if name not in CONTRACTS:
        raise DataError(f"unknown data set {name!r}; known sets: {', '.join(CONTRACTS)}")
    if source == "hub":
        return _load_hub(name, hub_id)
    return _from_files(name, source, find_files(name, source))


def _from_files(name: str, source: str, paths: Mapping[str, Path]) -> Dataset:
    dataset = Dataset(name, source, {}, [])
    for split, path in paths.items():
        table = read_table(path)
        dataset.splits[split] = conform(table, name, str(path))
        shown = path.name if "all" in paths else f"{path.parent.name}/{path.name}"
        dataset.files.append(SourceFile(shown, len(table), sha256(path)))
    return dataset


def load_all(source: str, own_files: Mapping[str, str] | None = None, max_rows: int = 0) -> dict[str, Dataset]:
    """Every set that the source has, by name; emotions and virality must be among them.

    Args:
        source: As in `load`.
        own_files: Set -> table file of your own that takes the place of the source's (empty path: none), e.g.
            `{"virality": "mine.csv"}` beside the hub, which has no virality set.
        max_rows: Only the first rows of each table; 0 = all.

    Raises:
        DataError: As in `load`.
    """
    own = {name: path for name, path in (own_files or {}).items() if path}
    found = {name: load(name, source) for name in CONTRACTS if name not in own and has(name, source)}
    for name, path in own.items():
        file = own_path(path)
        if not file.is_file():
            raise DataError(f"no file {path!r} for the set {name!r}; expected a table ({', '.join(FORMATS)})")
        found[name] = _from_files(name, str(path), {"all": file})
    for name in ("emotions", "virality"):
        if name not in found:
            load(name, source)  # raises, and says what was expected where
    for dataset in found.values() if max_rows else ():
        dataset.splits = {split: table.head(max_rows) for split, table in dataset.splits.items()}
    return {name: found[name] for name in CONTRACTS if name in found}


def find_files(name: str, source: str) -> dict[str, Path]:
    """The files of a set in a data folder: split name (or `"all"`) -> path.

    Raises:
        DataError: The folder, the set, or a training table in it is missing.
    """
    root = SAMPLE if source == "sample" else own_path(source)
    if not root.is_dir():
        raise DataError(f"data folder {source!r} does not exist; give 'sample', 'hub' or an existing folder")
    for alias in CONTRACTS[name].folders:
        if (root / alias).is_dir():
            found = _one_per_split(root / alias)
            if "train" not in found and "all" not in found:
                raise DataError(
                    f"{root / alias} holds no training table: expected train.csv (or {', '.join(FORMATS[1:])}) "
                    f"(and validation.*, test.* where they exist), found {sorted(os.listdir(root / alias))}"
                )
            return found
        if tables := _tables(root, alias):
            return {"all": tables[0]}
    expected = " or ".join(f"{alias}/train.csv" for alias in CONTRACTS[name].folders)
    raise DataError(f"no data set {name!r} in {source!r}: expected {expected} there (or {', '.join(FORMATS[1:])})")


def _tables(folder: Path, stem: str) -> list[Path]:
    """Files of that name in any format, in the order of `FORMATS`."""
    found = [path for path in sorted(folder.glob("*")) if path.stem == stem and path.suffix.lower() in FORMATS]
    return sorted((path for path in found if path.is_file()), key=lambda path: FORMATS.index(path.suffix.lower()))


def _one_per_split(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for split in (*SPLITS, "all"):
        paths = _tables(folder, split)
        if len(paths) > 1:
            raise DataError(
                f"{folder} holds the split {split!r} twice: {', '.join(p.name for p in paths)}; keep one of them"
            )
        if paths:
            found[split] = paths[0]
    return found


def has(name: str, source: str) -> bool:
    """Whether a source holds the set at all: a folder may hold only some, the hub has those with an identifier.

    A set that is there but cannot be used counts as held, so that loading it says what is wrong.
    """
    if source == "hub":
        return CONTRACTS[name].hub is not None
    root = SAMPLE if source == "sample" else own_path(source)
    return any((root / alias).exists() or _tables(root, alias) for alias in CONTRACTS[name].folders)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table in one of `FORMATS` without guessing: every field as it stands, text as text.

    Columns of a CSV may be separated by commas, by semicolons, as a Russian Excel does it, or by tabs; its header tells
    (or a first line `sep=;`). JSON is a list of objects, or an object a line.

    Raises:
        DataError: Empty file, another kind of file, neither UTF-8 nor UTF-16, or a broken row (named by
            its line).
    """
    reader: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": _read_csv, ".tsv": _read_csv, ".json": _read_json, ".jsonl": _read_json, ".parquet": _read_parquet,
    }  # fmt: skip
    check_plain(path)
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    kind = path.suffix.lower()
    if kind not in reader:
        raise DataError(
            f"{path}: {kind or 'a file without an ending'} is no table that is read here; expected one of "
            f"{', '.join(FORMATS)}: save it as CSV, or give it its ending"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); expected a table with a header and rows")
    table = reader[kind](path)
    if table.empty:
        raise DataError(f"{path} has a header but no rows")
    return table


def encoding_of(start: bytes) -> str:
    """The encoding of a file, told by its beginning: UTF-16, as Windows writes it, or UTF-8, with a mark or without.

    A file without a mark is in UTF-16 if every other byte is often zero, as the upper byte of spaces and digits is.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    n_even, n_odd = (start[parity::2].count(0) for parity in (0, 1))
    if max(n_even, n_odd) > len(start) / 20 and max(n_even, n_odd) > 10 * min(n_even, n_odd):
        return "utf-16-le" if n_odd > n_even else "utf-16-be"
    return "utf-8-sig"


def undecodable(error: UnicodeDecodeError, where: str, line: int = 1) -> DataError:
    """The error for bytes that are not in the encoding that they should be in, with a guess at what they are.

    Args:
        error: As `bytes.decode` raised it.
        where: Name of the file.
        line: Number of the line where the bytes begin that were decoded.
    """
    raw, name = error.object, Path(where).name
    if error.encoding.lower().startswith("utf-16"):
        return DataError(f"{where}: it looks like UTF-16, but is damaged ({error.reason}); save it as UTF-8")
    line += raw[: error.start].count(b"\n")
    hint, remedy = "encoding unknown", "save it as UTF-8"
    rest = raw[raw.rfind(b"\n", 0, error.start) + 1 :]
    n_high = sum(byte > 127 for byte in rest)
    for encoding in ("CP1251", "CP866", "KOI8-R"):
        guess = rest.decode(encoding, "replace")
        n_small, n_capital = (len(re.findall(letters, guess)) for letters in ("[а-яё]", "[А-ЯЁ]"))
        # CP1251 and KOI8-R swap capitals and small letters with each other.
        if n_small + n_capital > 0.8 * n_high and (n_small >= n_capital or (encoding == "CP1251" and not n_small)):
            hint = f"it reads well as {encoding}"
            remedy = f"convert it first: iconv -f {encoding} -t UTF-8 {name} > converted{Path(name).suffix}"
            break
    found = f"expected UTF-8, found byte 0x{raw[error.start]:02x} ({hint})"
    return DataError(f"{where}, line {line}: {found}; {remedy}")


def _read_text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode(encoding_of(raw)).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise undecodable(error, str(path)) from None


_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _separator(path: Path, text: str) -> tuple[str, str]:
    """What separates the columns, and the text from the header on; commas where nothing else is seen."""
    text = text.lstrip("\r\n")
    first, rest = (*re.split("\r\n?|\n", text, maxsplit=1), "")[:2]
    if said := re.fullmatch(r'"?sep=(.)"?[\s,;]*', first, re.I):
        return said[1], rest
    if path.suffix.lower() == ".tsv":
        return "\t", text
    outside_quotes = re.sub('"[^"]*"', "", first)
    return max(_SEPARATORS, key=outside_quotes.count), text


def _read_csv(path: Path) -> pd.DataFrame:
    # The csv module in strict mode, not pandas: pandas fills a short row with NaN and says nothing.
    previous = csv.field_size_limit(2**31 - 1)
    rows: list[list[str]] = []
    text = _read_text(path)
    separator, table = _separator(path, text)
    n_before = len(re.findall("\r\n?|\n", text[: len(text) - len(table)]))  # lines before the header
    reader = csv.reader(io.StringIO(table, newline=""), strict=True, delimiter=separator)
    line = 1 + n_before
    try:
        header = next(reader, [])
        for row in reader:
            if row and len(row) != len(header):
                raise DataError(
                    f"{path}, row {len(rows)} (line {line + 1}): expected {len(header)} fields "
                    f"({', '.join(header)}), found {len(row)}; {_remedy(separator, header, row)}"
                )
            if row or len(header) == 1:  # with one column, an empty line is an empty field
                rows.append(row or [""])
            line = reader.line_num + n_before
    except csv.Error as error:
        raise DataError(
            f"{path}, row {len(rows)} (from line {line + 1}): broken CSV ({error}); "
            'check for an unclosed quotation mark, and double the quotes inside a field ("")'
        ) from None
    finally:
        csv.field_size_limit(previous)
    # What spreadsheets leave at the right: columns without a name that hold nothing.
    header = [name.strip() for name in header]
    used = [at for at, name in enumerate(header) if name or any(row[at] for row in rows)]
    if repeated := [name for name, n in Counter(header[at] for at in used).items() if n > 1]:
        raise DataError(f"{path}: the header names the column {repeated[0]!r} twice: {', '.join(header)}")
    return pd.DataFrame([[row[at] for at in used] for row in rows], columns=[header[at] for at in used], dtype=object)


def _remedy(separator: str, header: list[str], row: list[str]) -> str:
    named = _SEPARATORS.get(separator, repr(separator))
    for other, other_name in _SEPARATORS.items():
        fields = [part.count(other) for part in (separator.join(header), separator.join(row))]
        if other != separator and fields[1] > 0 and (len(row) == 1 or fields[0] == fields[1]):
            return f"the header is separated by {named}, this row by {other_name}: save the table with one of them"
    return f"quote fields that contain {named} or line breaks"


def _read_json(path: Path) -> pd.DataFrame:
    text = _read_text(path)
    if text.lstrip().startswith("["):
        rows = [(f"item {number}", row) for number, row in enumerate(_parse_json(text, str(path)))]
    elif re.match(r"\s*\{\s*[\r\n]", text):  # one object over several lines
        rows = [("the file", _parse_json(text, str(path)))]
    else:
        lines = ((number, line.lstrip("\ufeff")) for number, line in enumerate(text.split("\n"), 1))
        rows = [(f"line {number}", _parse_json(line, f"{path}, line {number}")) for number, line in lines
                if line.strip()]  # fmt: skip
    for where, row in rows:
        if not isinstance(row, dict):
            raise DataError(
                f'{path}, {where}: expected an object like {{"text": ...}}, found {type(row).__name__}; write a list '
                "of objects, or an object a line"
            )
    if len(rows) == 1 and rows[0][1] and all(isinstance(value, dict | list) for value in rows[0][1].values()):
        raise DataError(
            f"{path}: expected a list of objects, or an object a line, found one object of {', '.join(rows[0][1])}; "
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


def conform(table: pd.DataFrame, name: str, where: str) -> pd.DataFrame:
    """Give a table the contract's column names, in order; other columns than the contract's are dropped.

    Raises:
        DataError: It is no table, or a required column is missing (the message lists those that are there).
    """
    require_table(table, where)
    contract = CONTRACTS[name]
    chosen = {}
    for column, names in contract.columns.items():
        present = [candidate for candidate in names if candidate in table.columns]
        if not present:
            raise DataError(
                f"{where}: column {' or '.join(map(repr, names))} is missing for the set {name!r}; "
                f"found {', '.join(map(str, table.columns))}"
            )
        chosen[column] = table[present[0]]
    chosen |= {column: table[column] for column in contract.optional if column in table.columns}
    frame = pd.DataFrame(chosen)
    if name == "videos":
        # What is read of a video in one piece; subtitles stay apart, since many videos have none.
        parts = frame["title"].fillna("").str.strip() + " " + frame["description"].fillna("").str.strip()
        frame["text"] = parts.str.strip()
    return frame


def require_table(table: object, where: str = "the table") -> None:
    """Refuse what is no table, e.g. rows as a list, or columns as a dictionary.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(table, pd.DataFrame):
        hint = " (a table of rows or columns: pd.DataFrame(...) makes one of them)"
        raise DataError(f"{where}: expected a pandas.DataFrame, found {type(table).__name__}"
                        f"{hint if isinstance(table, list | tuple | dict) else ''}")  # fmt: skip


def require_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    """Refuse what are no tables by the names of their splits.

    Raises:
        DataError: It is something else, or there is none.
    """
    if not isinstance(tables, Mapping) or not tables:
        found = "none" if isinstance(tables, Mapping) else type(tables).__name__
        raise DataError(f"expected tables by split, such as {{'train': table}}, found {found}")
    for split, table in tables.items():
        require_table(table, str(split))


def require_columns(table: pd.DataFrame, names: Iterable[Hashable], where: str = "the table") -> None:
    """Refuse a table that lacks columns.

    Args:
        table: Of whoever calls.
        names: Columns that are needed.
        where: What the table is called in the message.

    Raises:
        DataError: It is no table, or a column is missing (the message lists those that are there).
    """
    require_table(table, where)
    missing = [name for name in dict.fromkeys(names) if name not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns)) or "none"
        raise DataError(f"{where}: no column {', '.join(map(repr, missing))}; found {found}")


def require_rows(table: pd.DataFrame) -> None:
    """Refuse a table without rows, about which a model has nothing to say.

    Raises:
        DataError: It is no table, or has none.
    """
    require_table(table)
    if table.empty:
        raise DataError("the table has no rows; expected at least one")


def _load_hub(name: str, hub_id: str | None) -> Dataset:
    import datasets  # a second of import time that only this source needs

    contract = CONTRACTS[name]
    identifier = hub_id or contract.hub
    if identifier is None:
        raise DataError(
            f"the set {name!r} has no public hub source: give data=<folder> with {contract.folders[0]}/train.csv "
            f'({", ".join(contract.columns)}), or data=sample; for one lesson: SET="07.data=<folder>", '
            'or SET="01.virality_file=<path>.csv"'
        )
    config = contract.hub_config if hub_id is None else None
    try:
        with hub.loading(identifier):
            loaded = datasets.load_dataset(identifier, config)
    except DataError:
        raise
    except Exception as error:  # network, missing repository, wrong format: the remedy is the same
        raise DataError(
            f"data set {identifier!r} could not be loaded from the hub ({type(error).__name__}: {error}). Without a "
            "network use data=sample, or download it elsewhere and give data=<folder> (README, 'The full run')"
        ) from error
    names = {
        "train": "train",
        "validation": "validation",
        "valid": "validation",
        "dev": "validation",
        "test": "test",
    }
    result = Dataset(name, f"hub:{identifier}", {}, [])
    for split, part in loaded.items():
        table = part.to_pandas()
        for column, feature in part.features.items():
            # Class labels arrive as numbers; names are what the contract speaks of (bad / neutral / good).
            if isinstance(feature, datasets.ClassLabel) and name != "virality":
                table[column] = [feature.int2str(int(value)) for value in table[column]]
        result.splits[names.get(str(split), str(split))] = conform(
            table.astype(object), name, f"{identifier} [{split}]"
        )
        result.files.append(SourceFile(f"{identifier} [{split}]", len(table), part._fingerprint))
    if list(result.splits) == ["train"] and name == "reviews":
        result.splits = {"all": result.splits["train"]}
    return result


def second_annotation(dataset: Dataset) -> pd.DataFrame:
    """Labels of a second annotator, who did not see the first ones, where the set's data folder holds them.

    The file is `second_annotation.csv` with the columns `set`, `id`, `label` (written like the set's own labels).

    Returns:
        Columns `id`, `first`, `second`: label ids for multi-label sets, text otherwise; empty if there is no such file.

    Raises:
        DataError: The file lacks one of its columns, or a label cannot be read.
    """
    folder = SAMPLE if dataset.source == "sample" else own_path(dataset.source)
    path = folder / "second_annotation.csv"
    table = pd.concat(dataset.splits.values())
    if not path.is_file() or "id" not in table:
        return pd.DataFrame(columns=["id", "first", "second"])
    annotated = read_table(path)
    require_columns(annotated, ["set", "id", "label"], str(path))
    second = annotated.query("set == @dataset.name").rename(columns={"label": "second"})[["id", "second"]]
    column = "labels" if "labels" in table else "label"
    both = table[["id", column]].rename(columns={column: "first"}).merge(second, on="id")
    names = CEDR_EMOTIONS if dataset.name == "cedr" else EMOTIONS
    for side in ("first", "second"):
        try:
            both[side] = [
                parse_labels(value, names) if column == "labels" else plain_label(value) for value in both[side]
            ]
        except ValueError as error:
            raise DataError(f"{path}: the {side} label of a text of {dataset.name!r}: {error}") from None
    return both


def save_sets(sets: Mapping[str, Mapping[str, pd.DataFrame]], folder: Path | str) -> None:
    """Write `<folder>/<set>/<split>.parquet` for all sets; the folder then holds these and nothing older."""
    for tables in sets.values():
        require_tables(tables)
    with whole_folder(folder) as new:
        for name, tables in sets.items():
            (new / name).mkdir()
            for split, table in tables.items():
                table.to_parquet(new / name / f"{split}.parquet", index=False)


def load_tables(folder: Path | str) -> dict[str, pd.DataFrame]:
    """One set as `save_sets` wrote it: split -> table, label ids as lists.

    Raises:
        DataError: Nothing is there: the notebook that writes it has not run.
    """
    paths = sorted(own_path(folder).glob("*.parquet"))
    if not paths:
        raise DataError(f"no tables in {folder}: run the notebook that writes them first (viralbert run --only 01)")
    tables = {path.stem: pd.read_parquet(path) for path in paths}
    for table in tables.values():
        if "labels" in table:
            table["labels"] = pd.Series([list(map(int, ids)) for ids in table["labels"]], table.index, dtype=object)
    return tables


def summary(datasets_: Iterable[Dataset]) -> pd.DataFrame:
    """One row a file: set, source, file, rows, first 12 digits of the sha256 (for the data card)."""
    rows: list[dict[str, Any]] = [
        {"set": d.name, "source": d.source, "file": f.path, "rows": f.n_rows, "sha256": f.sha256[:12]}
        for d in datasets_
        for f in d.files
    ]
    return pd.DataFrame(rows)

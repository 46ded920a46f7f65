"""Reading the course's data sets from the sample, from a folder, or from the hub.

Lesson 01 derives it. A set is described once, in `CONTRACTS`; every source gives the same columns.
Nothing falls back from one source to another: what cannot be read is an error that says what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from viralbert_utils.base import hub
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT, checkout, own_path, sha256, whole_folder
from viralbert_utils.data.contracts import CONTRACTS, SPLITS, conform
from viralbert_utils.data.emotions import CEDR_EMOTIONS, EMOTIONS, parse_labels, plain_label
from viralbert_utils.data.tables import FORMATS, read_table, require_columns, require_tables

SAMPLE = ROOT / "data" / "sample"


@dataclass(frozen=True)
class SourceFile:
    """A file that was read: where, how many rows, and its sha256 (or the hub's fingerprint)."""

    path: str
    n_rows: int
    sha256: str


@dataclass
class Dataset:
    """A loaded set: split name -> table with the contract's columns, and the files it came from.

    A set whose source has no splits is one table under `"all"`. The index of each table is the
    row's number in its file (the first row below the header is 0), so every later message can point
    back.
    """

    name: str
    source: str
    splits: dict[str, pd.DataFrame]
    files: list[SourceFile] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        """Rows of all splits together."""
        return sum(len(table) for table in self.splits.values())


def load(
    name: str, source: str = "sample", hub_id: str | None = None, hub_config: str | None = None
) -> Dataset:
    """Read one of the course's data sets.

    Args:
        name: A key of `CONTRACTS`.
        source: `"sample"` (the texts written for this course), `"hub"`, or the path of a folder
            laid out as `<set>/<split>.csv` or `<set>.csv` (or another of `FORMATS`), with the hub's
            column names.
        hub_id: Another hub identifier, or a local folder in the hub's format, for `source="hub"`.
        hub_config: The form of that other set, where it has several.

    Raises:
        DataError: Unknown set, missing folder, split or column, unreadable file, hub not reachable.
    """
    if name not in CONTRACTS:
        raise DataError(f"unknown data set {name!r}; known sets: {', '.join(CONTRACTS)}")
    if source == "hub":
        return _load_hub(name, hub_id, hub_config)
    return from_files(name, source, find_files(name, source))


def from_files(name: str, source: str, paths: Mapping[str, Path]) -> Dataset:
    """A set from its files (split name or `"all"` -> path), in the form of its contract."""
    dataset = Dataset(name, source, {}, [])
    for split, path in paths.items():
        table = read_table(path)
        dataset.splits[split] = conform(table, name, str(path))
        shown = path.name if "all" in paths else f"{path.parent.name}/{path.name}"
        dataset.files.append(SourceFile(shown, len(table), sha256(path)))
    return dataset


def find_files(name: str, source: str) -> dict[str, Path]:
    """The files of a set in a data folder: split name (or `"all"`) -> path.

    Raises:
        DataError: The folder, the set, or a training table in it is missing.
    """
    root = SAMPLE if source == "sample" else own_path(source)
    if source == "sample" and checkout() is None:
        raise DataError(
            "data 'sample' lies in the course's repository, and viralbert is installed here "
            "without it: clone it, and give --data CLONE/data/sample or call pip install -e CLONE; "
            "or give 'hub', or a folder laid out as <set>/<split>.csv"
        )
    if not root.is_dir():
        raise DataError(
            f"data folder {source!r} does not exist; give 'sample', 'hub' or an existing folder"
        )
    for alias in CONTRACTS[name].folders:
        if (root / alias).is_dir():
            files = _one_per_split(root / alias)
            if "train" not in files and "all" not in files:
                raise DataError(
                    f"{root / alias} holds no training table: expected train.csv (or "
                    f"{', '.join(FORMATS[1:])}) (and validation.*, test.* where they exist), found "
                    f"{sorted(os.listdir(root / alias))}"
                )
            return files
        if tables := _tables(root, alias):
            return {"all": tables[0]}
    expected = " or ".join(f"{alias}/train.csv" for alias in CONTRACTS[name].folders)
    raise DataError(
        f"no data set {name!r} in {source!r}: expected {expected} there (or "
        f"{', '.join(FORMATS[1:])})"
    )


def _tables(folder: Path, stem: str) -> list[Path]:
    """Files of that name in any format, in the order of `FORMATS`."""
    paths = [
        path
        for path in sorted(folder.glob("*"))
        if path.stem == stem and path.suffix.lower() in FORMATS and path.is_file()
    ]
    return sorted(paths, key=lambda path: FORMATS.index(path.suffix.lower()))


def _one_per_split(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for split in (*SPLITS, "all"):
        paths = _tables(folder, split)
        if len(paths) > 1:
            raise DataError(
                f"{folder} holds the split {split!r} twice: {', '.join(p.name for p in paths)}; "
                "keep one of them"
            )
        if paths:
            files[split] = paths[0]
    return files


def has(name: str, source: str) -> bool:
    """Whether a source holds the set at all: a folder may hold only some.

    A set that is there but cannot be used counts as held, so that loading it says what is wrong.
    """
    if source == "hub":
        return CONTRACTS[name].hub is not None
    root = SAMPLE if source == "sample" else own_path(source)
    return any((root / alias).exists() or _tables(root, alias) for alias in CONTRACTS[name].folders)


def _load_hub(name: str, hub_id: str | None, hub_config: str | None) -> Dataset:
    import datasets  # a second of import time that only this source needs

    contract = CONTRACTS[name]
    identifier = hub_id or contract.hub
    if identifier is None:
        raise DataError(
            f"the set {name!r} has no public hub source: give data=<folder> with "
            f"{contract.folders[0]}/train.csv ({', '.join(contract.columns)}), or the sample "
            "(on the command line --data; virality has --virality-file FILE, too); for "
            'one lesson SET="07.data=<folder>" or SET="01.virality_file=<path>.csv"'
        )
    config = contract.hub_config if hub_id is None else hub_config
    try:
        with hub.loading(identifier):
            loaded = datasets.load_dataset(identifier, config)
    except DataError:
        raise
    except Exception as error:  # network, missing repository, wrong format: the remedy is the same
        raise DataError(
            f"data set {identifier!r} could not be loaded from the hub ({type(error).__name__}: "
            f"{error}). Without a network use the sample, or download it elsewhere (see "
            "docs/full-run.md) and give its folder: data= in a notebook, --data on the command "
            "line (translate: --hub), DATA= with make"
        ) from error
    names = {"valid": "validation", "dev": "validation"}
    result = Dataset(name, f"hub:{identifier}", {}, [])
    for split, part in loaded.items():
        table = part.to_pandas()
        for column, feature in part.features.items():
            # Class labels arrive as numbers; names are what the contract speaks of (bad / neutral /
            # good).
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
    """Labels of a second annotator who did not see the first ones, if the source has them.

    The file is `second_annotation.csv` with the columns `set`, `id`, `label` (written like the
    set's own labels).

    Returns:
        Columns `id`, `first`, `second`: label ids for multi-label sets, text otherwise; empty if
        there is no such file.

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
    second = annotated.query("set == @dataset.name").rename(columns={"label": "second"})[
        ["id", "second"]
    ]
    column = "labels" if "labels" in table else "label"
    both = table[["id", column]].rename(columns={column: "first"}).merge(second, on="id")
    names = CEDR_EMOTIONS if dataset.name == "cedr" else EMOTIONS
    for side in ("first", "second"):
        try:
            both[side] = [
                parse_labels(value, names) if column == "labels" else plain_label(value)
                for value in both[side]
            ]
        except ValueError as error:
            raise DataError(
                f"{path}: the {side} label of a text of {dataset.name!r}: {error}"
            ) from None
    return both


def save_sets(sets: Mapping[str, Mapping[str, pd.DataFrame]], folder: Path | str) -> None:
    """Write `<folder>/<set>/<split>.parquet` for all sets, and nothing else."""
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
        raise DataError(
            f"no tables in {folder}: run the notebook that writes them first (viralbert run --only "
            "01)"
        )
    tables = {path.stem: pd.read_parquet(path) for path in paths}
    for table in tables.values():
        if "labels" in table:
            table["labels"] = pd.Series(
                [list(map(int, ids)) for ids in table["labels"]], table.index, dtype=object
            )
    return tables


def summary(datasets_: Iterable[Dataset]) -> pd.DataFrame:
    """One row per file for the data card: set, source, file, rows, start of the sha256."""
    rows: list[dict[str, Any]] = [
        {
            "set": d.name,
            "source": d.source,
            "file": f.path,
            "rows": f.n_rows,
            "sha256": f.sha256[:12],
        }
        for d in datasets_
        for f in d.files
    ]
    return pd.DataFrame(rows)

"""The columns that each data set must have (see `docs/own-data.md`), and a table in that form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from viralbert_utils.base.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")


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


def _read() -> dict[str, Contract]:
    described = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return {
        name: Contract(
            {column: tuple(names) for column, names in plain["columns"].items()},
            tuple(plain["folders"]),
            plain.get("hub"),
            plain.get("hub_config"),
            tuple(plain.get("optional", ())),
        )
        for name, plain in described.items()
    }


CONTRACTS: dict[str, Contract] = _read()


def conform(table: pd.DataFrame, name: str, where: str) -> pd.DataFrame:
    """Give a table the contract's column names, in order, and drop all other columns.

    Raises:
        DataError: It is no table, or a required column is missing (the message lists those that are
            there).
    """
    import pandas as pd  # heavy, and the contracts alone need no table

    from viralbert_utils.data.tables import require_table

    require_table(table, where)
    contract = CONTRACTS[name]
    chosen = {}
    for column, names in contract.columns.items():
        present = [candidate for candidate in names if candidate in table.columns]
        if not present:
            raise DataError(
                f"{where}: column {' or '.join(map(repr, names))} is missing for the set {name!r}; "
                f"found {', '.join(map(str, table.columns))}: rename the column, or add it"
            )
        chosen[column] = table[present[0]]
    chosen |= {column: table[column] for column in contract.optional if column in table.columns}
    frame = pd.DataFrame(chosen)
    if name == "videos":
        # What is read of a video in one piece; subtitles stay apart, since many videos have none.
        parts = (
            frame["title"].fillna("").str.strip()
            + " "
            + frame["description"].fillna("").str.strip()
        )
        frame["text"] = parts.str.strip()
    return frame

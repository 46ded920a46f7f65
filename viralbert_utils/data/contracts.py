"""The columns that each data set must have, and a table brought into that form (see
`data/README.md`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from viralbert_utils.base.errors import DataError as DataError
from viralbert_utils.base.files import write_whole as write_whole

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


CONTRACTS: dict[str, Contract] = {
    "emotions": Contract(
        # The hub's set carries the English original in `text`: the Russian column must win.
        {"text": ("ru_text", "text"), "labels": ("labels",)},
        ("emotions", "ru_go_emotions"),
        "seara/ru_go_emotions",
        "simplified",
        ("id",),
    ),
    "cedr": Contract(
        {"text": ("text",), "labels": ("labels",)},
        ("cedr",),
        "sagteam/cedr_v1",
        "enriched",
        ("source",),
    ),
    "virality": Contract(
        {"text": ("text",), "label": ("label",)},
        ("virality",),
        optional=(
            "id",
            "kind",
            "topic",
            "published_at",
            "category",
            "views",
            "ctr",
            "depth",
            "full_reads_percent",
        ),
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
            "video_id",
            "subtitles",
            "is_shorts",
            "broadcast",
            "channel_type",
            "closed",
            "international",
            "duration_s",
            "views",
            "published_at",
            "label",
            "tags",
        ),
    ),
}


def conform(table: pd.DataFrame, name: str, where: str) -> pd.DataFrame:
    """Give a table the contract's column names, in order; other columns than the contract's are
    dropped.

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
                f"found {', '.join(map(str, table.columns))}"
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

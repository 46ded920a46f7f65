"""What a hybrid or a cascade says of a table of videos (lesson 07): `viralbert predict --table`.

People's tables differ from the one that a model has learnt from. A column may be missing, or hold
values that the model has never met. Each such gap is counted and named, and the rows are answered
all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from viralbert.serving.onnx_model import MODEL, OnnxModel
from viralbert.terminal import counted
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path
from viralbert_utils.lessons import cascade, hybrid
from viralbert_utils.lessons.cascade import Cascade
from viralbert_utils.lessons.columns import Preparation, empty
from viralbert_utils.lessons.hybrid import Hybrid

_MOST_NAMED = 3  # values or classes that a note quotes


@dataclass(frozen=True)
class ExportedHybrid:
    """A hybrid that `viralbert export` has written; it answers as the hybrid did.

    Attributes:
        model: The exported network.
        preparation: As the hybrid had learnt it.
        classes: In the order of the outputs.
    """

    model: OnnxModel
    preparation: Preparation
    classes: list[str]

    def probabilities(self, rows: pd.DataFrame) -> np.ndarray:
        """See `Hybrid.probabilities`."""
        columns = self.preparation.columns(rows)
        beside = [columns] if columns.shape[1] else []
        logits = self.model.logits(self.preparation.text(rows), *beside).astype(float)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Answers:
    """What a model says of a table.

    Attributes:
        lines: A dictionary a row: its number (the first row below the header is 0), its first text,
            its class where the table names one, and the answer.
        figures: Over the rows with a known class, see `hybrid.figures`; nothing without labels.
        stages: See `cascade.by_stage`; `None` for a hybrid, and without labels.
        notes: Gaps of the table, each counted, in words.
    """

    lines: list[dict[str, Any]]
    figures: dict[str, float]
    stages: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)


def load(folder: Path | str, device: str | None = None) -> Cascade | Hybrid | ExportedHybrid:
    """The model in a folder: of `Cascade.save`, of `Hybrid.save`, or an exported hybrid.

    Args:
        folder: The folder.
        device: Where the network computes; an export computes on the CPU.

    Raises:
        DataError: The folder is none of those, or damaged.
    """
    path = own_path(folder)
    if (path / cascade.SETTINGS).is_file():
        return Cascade.load(path, device)
    if not (path / MODEL).is_file():
        if not (path / "classifier.json").is_file():
            raise DataError(
                f"{path} is {'no saved hybrid and no cascade' if path.is_dir() else 'no folder'}; "
                "lesson 07 leaves both (viralbert run "
                "--only 07 leaves runs/sample/hybrid and runs/sample/cascade)"
            )
        return Hybrid.load(path, device)
    if device not in (None, "cpu"):
        raise DataError(
            f"{path} is an exported model, which computes on the CPU; found device {device}: leave "
            "it out, or give the folder that it was made from"
        )
    model = OnnxModel.load(path)
    settings = model.about["settings"]
    if settings.get("kind") != "hybrid":
        raise DataError(
            f"{path} is an exported classifier of texts: expected a hybrid or a cascade for a "
            "table; give texts or --file instead"
        )
    try:
        preparation = Preparation.from_plain(settings["preparation"])
        exported = ExportedHybrid(model, preparation, list(settings["names"]))
        exported.probabilities(pd.DataFrame({name: [None] for name in preparation.names}))
    except Exception as error:  # whatever a damaged description leads to: one remedy
        raise DataError(f"{path} is damaged ({error}); export the hybrid again") from error
    return exported


def answer(
    model: Cascade | Hybrid | ExportedHybrid, table: pd.DataFrame, label: str = "label"
) -> Answers:
    """Answers for the rows of a table, with figures where their class is known.

    Args:
        model: From `load`.
        table: The rows; columns that the model doesn't read are passed over.
        label: Column of the class; it may be missing, as a whole or in some rows.

    Raises:
        DataError: No column is there that the model reads as text (as any, if it reads none).
    """
    rows, notes = fitted(table, model.preparation)
    classes = list(model.classes)
    if label in table:
        given = ["" if none else str(value).strip() for value, none in _cells(table, label)]
        rows[label] = given
        notes += _unknown_classes(given, classes, label)
    rest: list[dict[Any, Any]]
    if isinstance(model, Cascade):
        said = model.decide(rows)
        rest = said.to_dict("records")
    else:
        probabilities = model.probabilities(rows)
        said = pd.DataFrame({"answer": np.array(classes)[probabilities.argmax(axis=1)]})
        rest = [
            {"answer": answer, "certainty": round(float(own.max()), 4)}
            | {"probabilities": {n: round(float(p), 4) for n, p in zip(classes, own, strict=True)}}
            for answer, own in zip(said["answer"], probabilities, strict=True)
        ]
    shown = [*model.preparation.texts[:1], *([label] if label in rows else [])]
    lines: list[dict[str, Any]] = [
        {"row": number} | dict(zip(shown, map(str, values), strict=True)) | own
        for number, (values, own) in enumerate(zip(rows[shown].to_numpy(), rest, strict=True))
    ]
    figures = hybrid.figures(rows, said["answer"], classes, label)
    stages = None
    if figures and isinstance(model, Cascade):
        known = rows[label].isin(classes).to_numpy()
        stages = cascade.by_stage(said[known], rows[label].to_numpy()[known])
    return Answers(lines, figures, stages, notes)


def fitted(table: pd.DataFrame, preparation: Preparation) -> tuple[pd.DataFrame, list[str]]:
    """The columns that a preparation reads, with gaps where the table has none, and notes on them.

    A name may differ in case and in spaces around it.

    Raises:
        DataError: No column is there that is read as text (as any, if none is).
    """
    by_name = {str(name).strip().casefold(): name for name in reversed(table.columns)}
    source = {
        name: name if name in table else by_name.get(name.casefold()) for name in preparation.names
    }
    needed = preparation.texts or preparation.names
    if not any(source[name] is not None for name in needed):
        raise DataError(
            f"the table has no column that the model reads as text: expected one of "
            f"{', '.join(needed)}, found {', '.join(map(str, table.columns))}; rename its columns"
        )
    rows = pd.DataFrame(
        {
            name: "" if column is None else table[column].to_numpy()
            for name, column in source.items()
        },
        index=range(len(table)),
        dtype=object,
    )
    rows = rows.mask(rows.isna(), "")
    missing = [name for name, column in source.items() if column is None]
    notes = [
        f"no column {name!r}: taken as empty in {counted(len(rows), 'row')}" for name in missing
    ]
    there = [name for name in preparation.names if name not in missing]
    gone = empty(rows[there])
    for name in there:
        filled = rows.loc[~gone[name], name].astype(str)
        if name in preparation.numbers:
            odd = filled[~np.isfinite(pd.to_numeric(filled, errors="coerce").astype(float))]
            what = "no number, taken as missing"
        elif name in preparation.categories:
            odd = filled[~filled.isin(preparation.categories[name])]
            what = "a value that the model has not learnt from"
        else:
            continue
        if len(odd):
            notes.append(f"{name}: {counted(len(odd), 'row')} with {what} ({_some(odd)})")
    return rows, notes


def summary(answers: Answers) -> list[str]:
    """The figures in lines: of all rows with a known class, then of each stage."""
    if not answers.figures:
        return []
    figures = answers.figures
    lines = [
        f"{counted(int(figures['rows']), 'row')} with a known class: accuracy "
        f"{figures['accuracy']:.3f}, macro-F1 {figures['macro_f1']:.3f}"
    ]
    if answers.stages is not None:
        lines += [
            f"  {name}: {counted(int(row['rows']), 'row')}, {row['precision']:.3f} right "
            f"[{row['low']:.3f}, {row['high']:.3f}]"
            for name, row in answers.stages.iterrows()
        ]
    return lines


def _cells(table: pd.DataFrame, name: str) -> list[tuple[Any, bool]]:
    return list(zip(table[name], empty(table[[name]])[name], strict=True))


def _unknown_classes(given: Sequence[str], classes: Sequence[str], label: str) -> list[str]:
    unknown = pd.Series([value for value in given if value and value not in classes], dtype=object)
    if unknown.empty:
        return []
    return [
        f"{label}: {counted(len(unknown), 'row')} of a class that the model does not know "
        f"({_some(unknown)}), left out of the figures"
    ]


def _some(values: pd.Series) -> str:
    names = [f"{str(value)[:40]}" for value in values.unique()]
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")

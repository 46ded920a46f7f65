"""The 28 emotions of GoEmotions, the six classes of CEDR, and how label fields are read.

Lesson 01 reads and combines the label sets, lesson 05 uses the groups. Source of the 28 labels,
their order and groups: Demszky et al. 2020, "GoEmotions" (arXiv 2005.00547); of the CEDR classes:
Sboev et al. 2021, "Data-Driven Model for Emotion Detection in Russian Texts".
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from viralbert_utils.base.texts import normalise

# One row an emotion: its names, its sentiment in the authors' grouping, and the class of CEDR that
# is its near-synonym. A label id is a position in this table, as in the published data sets. Labels
# that CEDR's annotators had no class for (approval, curiosity, disgust, love, ...) have none on
# purpose: whether such a text would have been marked joy or nothing in CEDR is not known, so a text
# that carries only such labels is not used at all.
_FILE = Path(__file__).with_suffix(".csv")
_TABLE = list(csv.DictReader(_FILE.read_text(encoding="utf-8").splitlines()))
RUSSIAN_NAMES: dict[str, str] = {row["emotion"]: row["russian"] for row in _TABLE}
EMOTIONS: tuple[str, ...] = tuple(RUSSIAN_NAMES)
NEUTRAL = EMOTIONS.index("neutral")
SENTIMENTS: dict[str, tuple[str, ...]] = {
    sentiment: tuple(row["emotion"] for row in _TABLE if row["sentiment"] == sentiment)
    for sentiment in ("positive", "negative", "ambiguous", "neutral")
}
GOEMOTIONS_TO_CEDR: dict[str, str] = {row["emotion"]: row["cedr"] for row in _TABLE if row["cedr"]}

CEDR_EMOTIONS: tuple[str, ...] = ("joy", "sadness", "surprise", "fear", "anger")
# `[]` in CEDR means that none of its five emotions is there. As a class of its own it is the sixth.
CEDR_CLASSES: tuple[str, ...] = (*CEDR_EMOTIONS, "no_emotion")

# Classes of the course that are none of the 28.
_OTHER_NAMES = {"no_emotion": "ни одной из эмоций", "viral": "виральный"}


def russian_name(name: str) -> str:
    """A class in Russian; the name itself where there is no other."""
    return RUSSIAN_NAMES.get(name) or _OTHER_NAMES.get(name, name)


def display_name(emotion: str) -> str:
    """Both names of an emotion for tables and plots: `"joy"` -> `"joy · радость"`."""
    return f"{emotion} · {russian_name(emotion)}"


def parse_labels(field: object, names: Sequence[str] = EMOTIONS) -> list[int]:
    """Label ids from any spelling in which label fields come.

    Args:
        field: `"[ 2 27]"`, `"[2, 27]"`, `"2,27"`, `"2|27"`, `"[]"`, a whole number, or a list, set
            or array of ids. In the place of an id may stand its name in the label set, in English
            or Russian and in any case: `"Joy; злость"`, `'["joy"]'`, `"радость и злость"`, `"без
            эмоций"`, and both as `display_name` gives them.
        names: The label set, in the order of its ids.

    Returns:
        Sorted ids without repetition. They are not checked against a range: the caller counts those
        outside it.

    Raises:
        ValueError: The field is missing, empty text, or holds anything that is neither an id nor a
            name, or a name of two labels.
    """
    if field is None or (isinstance(field, float) and np.isnan(field)):
        raise ValueError("no label field")
    known = _spellings(tuple(names))
    if isinstance(field, str):
        if not normalise(field):
            raise ValueError("empty label field (write [] for 'no label')")
        pieces = [field] if _spelling(field) in known else _BETWEEN_LABELS.split(field)
        parts: Iterable[object] = [part for piece in pieces for part in _names_in(piece, known)]
    elif isinstance(field, (list, tuple, set, frozenset, np.ndarray)):
        parts = field
    else:
        parts = [field]
    return sorted({_label_id(part, known) for part in parts})


def plain_label(value: object) -> str:
    """A single label as it is compared: in any case, and a number as `1`, be it 1.0 or True."""
    text = normalise(str(value)).casefold()
    number = re.fullmatch(r"(-?[0-9]{1,9})[.,]0*", text)
    return {"true": "1", "false": "0"}.get(text, number[1] if number else text)


_BETWEEN_LABELS = re.compile(r"[,;|·&\[\](){}\t\r\n]|\b(?:и|and)\b")


def _spelling(name: str) -> str:
    return normalise(name).casefold().replace("_", " ")


@cache
def _spellings(names: tuple[str, ...]) -> Mapping[str, set[int]]:
    """Spelling, as `_spelling` gives it -> ids of the labels that it may mean."""
    known: dict[str, set[int]] = {}
    for label, name in enumerate(names):
        for spelled in (name, russian_name(name)):
            known.setdefault(_spelling(spelled), set()).add(label)
    return known


def _names_in(piece: str, known: Mapping[str, set[int]]) -> list[str]:
    """What stands between two separators: one name, maybe of several words, or some words."""
    whole = piece.strip(" '\"")
    if _spelling(whole) in known:
        return [whole]
    return [word.strip("'\"") for word in piece.split()]


def _label_id(part: object, known: Mapping[str, set[int]]) -> int:
    if isinstance(part, str):
        labels = known.get(_spelling(part), set())
        if len(labels) > 1:
            raise ValueError(
                f"{part!r} may mean several labels of this set ({sorted(labels)}); write the label "
                "id"
            )
        if labels:
            return next(iter(labels))
        # An integer column that once held a gap comes out as 27.0.
        if re.fullmatch(r"-?[0-9]{1,9}(\.0*)?", part.strip()):
            return int(float(part))
    elif (
        isinstance(part, (int, float, np.integer, np.floating))
        and not isinstance(part, bool)
        and part % 1 == 0
    ):
        return int(part)
    raise ValueError(f"{part!r:.80} is neither a label id nor a name of this label set")


def multi_hot(labels: Iterable[Sequence[int]], n_classes: int = len(EMOTIONS)) -> np.ndarray:
    """Lists of label ids as a 0/1 matrix.

    Args:
        labels: `n_texts` lists of ids in `0 .. n_classes - 1`.
        n_classes: Number of columns.

    Returns:
        `(n_texts, n_classes)`, int8.

    Raises:
        ValueError: An id is outside the range.
    """
    rows = [list(ids) for ids in labels]
    matrix = np.zeros((len(rows), n_classes), dtype=np.int8)
    for row, ids in enumerate(rows):
        for label in ids:
            if not 0 <= label < n_classes:
                raise ValueError(f"row {row}: label id {label} is outside 0..{n_classes - 1}")
            matrix[row, label] = 1
    return matrix


def to_cedr(labels: Sequence[int]) -> list[int] | None:
    """GoEmotions label ids as CEDR class ids (positions in `CEDR_CLASSES`).

    Returns:
        Sorted CEDR ids; `None` if the text is to be left out because no label has a counterpart. A
        CEDR emotion beside an unmapped label stays, since its presence is known; `no_emotion` needs
        `neutral` alone.
    """
    names = {EMOTIONS[label] for label in labels}
    if names == {"neutral"}:
        return [CEDR_CLASSES.index("no_emotion")]
    mapped = {
        GOEMOTIONS_TO_CEDR[name] for name in names - {"neutral"} if name in GOEMOTIONS_TO_CEDR
    }
    return sorted(CEDR_CLASSES.index(name) for name in mapped) or None


def cedr_with_no_emotion(labels: Sequence[int]) -> list[int]:
    """CEDR's own labels with the empty list spelt out as class 5, `no_emotion`."""
    return list(labels) or [CEDR_CLASSES.index("no_emotion")]

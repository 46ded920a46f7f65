"""What a stranger's model folder may say of itself; anything else is refused before it is built."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from viralbert_utils.base.errors import DataError
from viralbert_utils.encoders.loading import n_positions
from viralbert_utils.encoders.pooling import POOLINGS
from viralbert_utils.evaluation.thresholds import MULTI_LABEL, SINGLE_LABEL

# classes, tasks, or numbers in a layer: what a head of this course could have, many times over
MOST = 100_000
Rule = tuple[Callable[[Any], bool], str]  # whether a value fits, and what was expected in words


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DataError: It is damaged, or no object.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); save the model again") from None
    if not isinstance(settings, dict):
        raise DataError(
            f"{path}: expected settings by name, found {settings!r:.80}; save the model again"
        )
    return settings


def check_settings(
    settings: Mapping[str, Any], path: Path, kinds: Sequence[str] = ("pooled", "multitask")
) -> None:
    """Refuse settings that no saved classifier has, before anything is built from them.

    Raises:
        DataError: One is missing, of another type or out of its range; the message names it.
    """
    needed: dict[str, Rule] = {
        "kind": (lambda kind: kind in kinds, f"one of {', '.join(kinds)}"),
        "pooling": (_is_pooling, f"{', '.join(POOLINGS)}, or several joined by +"),
        "dropout": (_is_share, "a number from 0 to 1"),
        "n_queries": (lambda n: _is_whole(n, 0, 1000), "a whole number from 0 to 1000"),
        "train_embeddings": (lambda value: isinstance(value, bool), "true or false"),
    }
    if settings.get("kind") == "multitask":
        needed["tasks"] = (
            _are_tasks,
            "by name, each with names (different texts), hidden (widths up to 16,384) and dropout "
            "(one for each)",
        )
    else:
        needed["names"] = (_are_names, "a list of different names of classes")
    types = (SINGLE_LABEL, MULTI_LABEL)
    optional: dict[str, Rule] = {
        "max_length": (lambda n: _is_whole(n, 3), "a whole number of tokens, at least 3"),
        "head_share": (_is_share, "a number from 0 to 1"),
        "problem_type": (lambda value: value in types, f"one of {', '.join(types)}"),
        "task": (lambda value: isinstance(value, str) and value != "", "a name"),
    }
    given = {name: rule for name, rule in optional.items() if name in settings}
    for name, (fits, expected) in (needed | given).items():
        try:
            good = name in settings and fits(settings[name])
        except TypeError:  # a list where a name is looked up
            good = False
        if not good:
            actual = f"{settings[name]!r:.80}" if name in settings else "nothing"
            raise DataError(
                f"{path}: {name}: expected {expected}, found {actual}; save the model again"
            )


def check_layers(path: Path) -> None:
    """Refuse an encoder of more layers than anybody has, before they are built one by one.

    Raises:
        DataError: It has more than a thousand, or a size that is no number.
    """
    if not path.is_file():
        return  # `load_encoder` says so
    for name, value in read_settings(path).items():
        counts_layers = name in ("num_hidden_layers", "n_layers", "num_layers")
        if counts_layers and not (isinstance(value, int) and value <= 1000):
            raise DataError(
                f"{path}: {name}: expected a whole number up to 1000, found {value!r:.80}; save "
                "the model again"
            )


def check_length(settings: Mapping[str, Any], encoder: Any, path: Path) -> None:
    """Refuse longer texts than the encoder has positions for: they would end in an error.

    Raises:
        DataError: `max_length` is greater than the number of positions.
    """
    room = n_positions(encoder)
    if settings.get("max_length", 0) > room:
        raise DataError(
            f"{path / 'classifier.json'}: max_length: expected at most {room}, the positions of "
            f"the encoder, found {settings['max_length']}; save the model again"
        )


def _is_whole(value: Any, least: int, most: int = MOST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_pooling(value: Any) -> bool:
    short = isinstance(value, str) and len(value) < 100
    return short and set(value.split("+")) <= set(POOLINGS)


def _are_names(value: Any) -> bool:
    known = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
    return known and len(set(value)) == len(value) <= MOST


def _are_tasks(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and 1 <= len(value) <= 1000
        and all(name and _is_head(head) for name, head in value.items())
    )


def _is_head(value: Any) -> bool:
    if not (isinstance(value, dict) and value.get("names") and _are_names(value["names"])):
        return False
    hidden, dropout = value.get("hidden"), value.get("dropout")
    return (
        isinstance(hidden, list)
        and isinstance(dropout, list)
        and len(dropout) == len(hidden) <= 16
        and all(_is_whole(width, 1, 2**14) for width in hidden)
        and all(map(_is_share, dropout))
    )

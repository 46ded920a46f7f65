"""Classifiers in folders: saved whole, loaded only if every setting makes sense."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import (
    EXPORTED,
    check_plain,
    check_sums,
    own_path,
    whole_folder,
    write_sums,
)
from viralbert_utils.base.hub import quiet
from viralbert_utils.encoders.loading import load_encoder, n_positions
from viralbert_utils.encoders.pooling import POOLINGS
from viralbert_utils.evaluation.thresholds import MULTI_LABEL, SINGLE_LABEL
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier, PooledClassifier

Classifier = PooledClassifier | MultiTaskClassifier


def save_classifier(
    folder: Path | str,
    model: Classifier,
    tokenizer: Any,
    names: list[str] | None = None,
    **about: Any,
) -> None:
    """Write a classifier as a folder: encoder and tokenizer in transformers' format, heads as
    safetensors, settings.

    Args:
        folder: Replaced as a whole when the new one is complete.
        model: A trained classifier.
        tokenizer: Its tokenizer.
        names: The classes of a pooled classifier, in the order of its outputs; several tasks know
            theirs.
        about: Anything else that belongs to the model, as plain values: max_length, head_share,
            problem_type and, of a pooled classifier, task (see `predictor.described`), what it was
            trained on.
    """
    what: dict[str, Any]
    if isinstance(model, MultiTaskClassifier):
        what = {
            "kind": "multitask",
            "tasks": {task: asdict(head) for task, head in model.tasks.items()},
        }
    else:
        what = {"kind": "pooled", "names": list(names or [])}
    settings = what | {
        "pooling": model.pooling,
        "dropout": model.dropout.p,
        "n_queries": 0 if model.queries is None else len(model.queries),
        "train_embeddings": model.train_embeddings,
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        **about,
    }
    with whole_folder(folder) as new, quiet():
        # From the CPU, wherever the model is: what the folder holds depends on no device. Nor on
        # chance: nothing here reads BERT's pooler, and where the folder of an encoder has none,
        # each loading draws it anew.
        weights = {
            name: torch.zeros_like(part) if name.startswith("pooler.") else part
            for name, part in devices.on_cpu(model.encoder.state_dict()).items()
        }
        model.encoder.save_pretrained(new / "encoder", state_dict=weights)
        tokenizer.save_pretrained(new / "encoder")
        head = {
            name: part.contiguous() for name, part in devices.on_cpu(model.head_state()).items()
        }
        save_file(head, new / "head.safetensors")
        (new / "classifier.json").write_text(
            json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8"
        )
        write_sums(new)


def load_classifier(
    folder: Path | str, device: torch.device | str | None = None
) -> tuple[Any, Any, dict[str, Any]]:
    """Model in evaluation mode, tokenizer and settings of a folder that `save_classifier` wrote.

    Args:
        folder: See there.
        device: Where the model is put; `devices.default` if not given.

    Raises:
        DataError: The folder is none of those, or damaged, or a hybrid's.
    """
    path = own_path(folder)
    if (path / EXPORTED).is_file():
        raise DataError(
            f"{path} is an exported model already: expected one to train or to export; give the "
            "folder that it was "
            "made from, or read it as it is with Predictor.load (viralbert predict, viralbert "
            "serve)"
        )
    if not (path / "classifier.json").is_file():
        raise DataError(
            f"{path} is no saved classifier: expected classifier.json, encoder/ and "
            "head.safetensors there"
        )
    check_plain(path)
    settings = _read_json(path / "classifier.json")
    if settings.get("kind") == "hybrid":
        raise DataError(
            f"{path} is a hybrid: it needs a table beside each text, and here are texts alone; "
            "in Python: "
            "Hybrid.load(folder).predict(rows) (viralbert_utils.lessons.hybrid, lesson 07)"
        )
    check_settings(settings, path / "classifier.json")
    check_sums(path)
    check_layers(path / "encoder" / "config.json")
    tokenizer, encoder = load_encoder(str(path / "encoder"), device)
    check_length(settings, encoder, path)
    model: Classifier
    options = {
        name: settings[name] for name in ("pooling", "dropout", "n_queries", "train_embeddings")
    }
    try:
        if settings["kind"] == "multitask":
            heads = {
                task: Head(tuple(head["names"]), tuple(head["hidden"]), tuple(head["dropout"]))
                for task, head in settings["tasks"].items()
            }
            model = MultiTaskClassifier(encoder, heads, **options)
        else:
            model = PooledClassifier(encoder, len(settings["names"]), **options)
        head = load_file(path / "head.safetensors")
        if head.keys() != model.head_state().keys():
            raise ValueError(f"expected {sorted(model.head_state())}, found {sorted(head)}")
        model.load_state_dict(head, strict=False)
    except Exception as error:  # a missing or broken file, or a head of another size
        raise DataError(
            f"the head in {path} does not fit its settings ({error}); save the model again"
        ) from None
    return model.eval(), tokenizer, settings


# classes, tasks, or numbers in a layer: what a head of this course could have, many times over
MOST = 100_000


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); save the model again") from None
    if not isinstance(found, dict):
        raise DataError(
            f"{path}: expected settings by name, found {found!r:.80}; save the model again"
        )
    return found


def check_settings(
    settings: Mapping[str, Any], path: Path, kinds: Sequence[str] = ("pooled", "multitask")
) -> None:
    """Refuse settings that no saved classifier has, before anything is built from them.

    Raises:
        DataError: One is missing, of another type or out of its range; the message names it.
    """

    def whole(value: Any, least: int, most: int = MOST) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    def share(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1

    def names(value: Any) -> bool:
        known = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
        return known and len(set(value)) == len(value) <= MOST

    def tasks(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and 1 <= len(value) <= 1000
            and all(
                name
                and isinstance(head, dict)
                and names(head.get("names"))
                and head["names"]
                and isinstance(head.get("hidden"), list)
                and len(head["hidden"]) <= 16
                and all(whole(width, 1, 2**14) for width in head["hidden"])
                and isinstance(head.get("dropout"), list)
                and len(head["dropout"]) == len(head["hidden"])
                and all(map(share, head["dropout"]))
                for name, head in value.items()
            )
        )

    types = (SINGLE_LABEL, MULTI_LABEL)
    expected: dict[str, tuple[Callable[[Any], bool], str]] = {
        "kind": (lambda value: value in kinds, f"one of {', '.join(kinds)}"),
        "pooling": (
            lambda value: (
                isinstance(value, str)
                and len(value) < 100
                and set(value.split("+")) <= set(POOLINGS)
            ),
            f"{', '.join(POOLINGS)}, or several joined by +",
        ),
        "dropout": (share, "a number from 0 to 1"),
        "n_queries": (lambda value: whole(value, 0, 1000), "a whole number from 0 to 1000"),
        "train_embeddings": (lambda value: isinstance(value, bool), "true or false"),
    }
    if settings.get("kind") == "multitask":
        expected["tasks"] = (
            tasks,
            "by name, each with names (different texts), hidden (widths up to 16,384) and "
            "dropout (one for each)",
        )
    else:
        expected["names"] = (names, "a list of different names of classes")
    optional: dict[str, tuple[Callable[[Any], bool], str]] = {
        "max_length": (lambda value: whole(value, 3), "a whole number of tokens, at least 3"),
        "head_share": (share, "a number from 0 to 1"),
        "problem_type": (lambda value: value in types, f"one of {', '.join(types)}"),
        "task": (lambda value: isinstance(value, str) and value != "", "a name"),
    }
    for name, (fits, what) in (
        expected | {n: rule for n, rule in optional.items() if n in settings}
    ).items():
        try:
            good = name in settings and fits(settings[name])
        except TypeError:  # a list where a name is looked up
            good = False
        if not good:
            found = f"{settings[name]!r:.80}" if name in settings else "nothing"
            raise DataError(f"{path}: {name}: expected {what}, found {found}; save the model again")


def check_layers(path: Path) -> None:
    """Refuse an encoder of more layers than anybody has, which would be built one by one before its
    weights are read.

    Raises:
        DataError: It has more than a thousand, or a size that is no number.
    """
    if not path.is_file():
        return  # `load_encoder` says so
    for name, value in _read_json(path).items():
        if name in ("num_hidden_layers", "n_layers", "num_layers") and not (
            isinstance(value, int) and value <= 1000
        ):
            raise DataError(
                f"{path}: {name}: expected a whole number up to 1000, found {value!r:.80}; save "
                "the model "
                "again"
            )


def check_length(settings: Mapping[str, Any], encoder: Any, path: Path) -> None:
    """Refuse a length of texts that the encoder has no positions for: the first long text would end
    in an error.

    Raises:
        DataError: `max_length` is greater than the number of positions.
    """
    room = n_positions(encoder)
    if settings.get("max_length", 0) > room:
        raise DataError(
            f"{path / 'classifier.json'}: max_length: expected at most {room}, the positions of "
            "the encoder, found "
            f"{settings['max_length']}; save the model again"
        )

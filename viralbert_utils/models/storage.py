"""Classifiers in folders: saved whole, loaded only if every setting makes sense."""

from __future__ import annotations

import json
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
from viralbert_utils.encoders.loading import load_encoder
from viralbert_utils.models.checks import (
    check_layers,
    check_length,
    check_settings,
    read_settings,
)
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier, PooledClassifier

Classifier = PooledClassifier | MultiTaskClassifier


def save_classifier(
    folder: Path | str,
    model: Classifier,
    tokenizer: Any,
    names: list[str] | None = None,
    kind: str | None = None,
    **about: Any,
) -> None:
    """Write a classifier as a folder: encoder, tokenizer, heads as safetensors, settings.

    Args:
        folder: Replaced as a whole when the new one is complete.
        model: A trained classifier.
        tokenizer: Its tokenizer.
        names: The classes of a pooled classifier, in the order of its outputs; several tasks know
            theirs.
        kind: Tells apart who can load the folder; `pooled` or `multitask` if not given.
        about: Anything else that belongs to the model, as plain values: max_length, head_share,
            problem_type and, of a pooled classifier, task (see `predictor.described`), what it was
            trained on.
    """
    settings: dict[str, Any]
    if isinstance(model, MultiTaskClassifier):
        heads = {task: asdict(head) for task, head in model.tasks.items()}
        settings = {"kind": kind or "multitask", "tasks": heads}
    else:
        settings = {"kind": kind or "pooled", "names": list(names or [])}
    settings |= {
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
        folder: The folder, with `~` if you like.
        device: Where the model is put; `devices.default` if not given.

    Raises:
        DataError: The folder is none of those, or damaged, or a hybrid's.
    """
    path = own_path(folder)
    if (path / EXPORTED).is_file():
        raise DataError(
            f"{path} is an exported model already: expected one to train or to export; give the "
            "folder that it was made from, or read it as it is with Predictor.load (viralbert "
            "predict, viralbert serve)"
        )
    if not (path / "classifier.json").is_file():
        raise DataError(
            f"{path} is no saved classifier: expected classifier.json, encoder/ and "
            "head.safetensors there, as lesson 06 leaves them (viralbert run --only 06 leaves "
            "runs/sample/viralbert), and viralbert train (its folder model)"
        )
    check_plain(path)
    settings = read_settings(path / "classifier.json")
    if settings.get("kind") == "hybrid":
        raise DataError(
            f"{path} is a hybrid: it needs a table beside each text, and here are texts alone: "
            "viralbert predict --table videos.csv --model FOLDER; in Python: "
            "Hybrid.load(folder).predict(rows) (viralbert_utils.lessons.hybrid, lesson 07)"
        )
    check_settings(settings, path / "classifier.json")
    check_sums(path)
    check_layers(path / "encoder" / "config.json")
    tokenizer, encoder = load_encoder(str(path / "encoder"), device)
    check_length(settings, encoder, path)
    try:
        model = from_settings(settings, encoder)
        head = load_file(path / "head.safetensors")
        if head.keys() != model.head_state().keys():
            raise ValueError(f"expected {sorted(model.head_state())}, found {sorted(head)}")
        model.load_state_dict(head, strict=False)
    except Exception as error:  # a missing or broken file, or a head of another size
        raise DataError(
            f"the head in {path} does not fit its settings ({error}); save the model again"
        ) from None
    return model.eval(), tokenizer, settings


def from_settings(settings: dict[str, Any], encoder: Any) -> Classifier:
    """A classifier of the shape that a folder's settings name, with heads at random."""
    names = ("pooling", "dropout", "n_queries", "train_embeddings")
    options = {name: settings[name] for name in names}
    if settings["kind"] != "multitask":
        return PooledClassifier(encoder, len(settings["names"]), **options)
    heads = {
        task: Head(tuple(head["names"]), tuple(head["hidden"]), tuple(head["dropout"]))
        for task, head in settings["tasks"].items()
    }
    return MultiTaskClassifier(encoder, heads, **options)

"""What a stopped training goes on from: written whole, read without running code."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import whole_file
from viralbert_utils.training import processes
from viralbert_utils.training.settings import Settings, Task


def copy_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of weights on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def load_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put weights back; those that were frozen are not among them."""
    model.load_state_dict(state, strict=False)


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model without those of frozen layers."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def save_checkpoint(
    path: Path,
    model: nn.Module,
    parts: list[Any],
    settings: Settings,
    task: str,
    history: list[dict[str, float]],
    best: dict[str, Tensor],
) -> None:
    """Write weights, optimisers, history and random states; the first process alone writes."""
    every = processes.gathered(devices.random_states(devices.of(model)))
    if processes.rank():
        return
    write_checkpoint(
        path,
        {
            "model": trainable_state(model),
            "parts": [part.state_dict() for part in parts],
            "settings": asdict(settings),
            "task": task,
            "history": history,
            "best": best,
            "random": every,
        },
    )


def resume(
    path: Path, model: nn.Module, parts: list[Any], settings: Settings, task: str
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Put a checkpoint back into model and optimisers; history and best weights so far.

    Raises:
        DataError: It is damaged, or was made with other settings, data or model.
    """
    state = read_checkpoint(
        path, {"model", "parts", "settings", "task", "history", "best", "random"}
    )
    # A checkpoint from before there was a setting was made with its default.
    before = asdict(Settings()) | state["settings"]
    changed = [name for name, value in asdict(settings).items() if before[name] != value]
    if state["task"] != task:
        changed.append("data or model")
    if changed:
        what = ", ".join(changed)
        raise DataError(
            f"checkpoint {path} was made with other settings ({what}); keep them, or give another "
            "folder"
        )
    model.load_state_dict(state["model"], strict=False)
    for part, saved in zip(parts, state["parts"], strict=True):
        if saved:  # a run without float16 leaves nothing for the scaler, which then starts anew
            part.load_state_dict(saved)
    # Another number of processes, or another device, may go on with it.
    devices.restore(state["random"][processes.rank() % len(state["random"])], devices.of(model))
    return state["history"], state["best"]


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write what a stopped training goes on from, whole; any device can read it.

    Args:
        path: The file; its folder is made if missing.
        state: Tensors, plain Python values, and numpy's numbers and arrays, in dictionaries and
            lists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        torch.save(_plain(devices.on_cpu(dict(state))), temporary)


def _plain(state: Any) -> Any:
    """Nested dictionaries and lists without numpy's numbers, which `read_checkpoint` refuses."""
    if isinstance(state, dict):
        return {_plain(key): _plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(_plain, state))
    return state.tolist() if isinstance(state, np.generic | np.ndarray) else state


def read_checkpoint(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """What `write_checkpoint` wrote; nothing in the file can run code.

    Args:
        path: The file.
        keys: What it must hold.

    Raises:
        DataError: It is cut off or damaged, or holds something else.
    """
    try:
        # torch writes a sum for each part, and does not look at it again.
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        zlib.error,
    ) as error:
        damaged = str(error)
    if damaged:
        raise DataError(
            f"checkpoint {path} is damaged ({damaged}); delete it, and the training begins anew"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = set(keys) - state.keys()
    except OSError:
        raise
    except Exception as error:  # whole, but not of plain values
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"{path} is whole, but no checkpoint that can be read here ({problem}); keep it, and "
            "give another folder"
        ) from None
    if missing:
        raise DataError(
            f"{path} is no checkpoint of this kind of training: {', '.join(sorted(missing))} "
            "missing; give another folder"
        )
    return state


def digest_of(model: nn.Module, tasks: Mapping[str, Task]) -> str:
    """What besides the settings decides about training: texts, labels, the model's shape."""
    texts = [
        (name, task.weight, task.train.digest, task.validation.digest)
        for name, task in tasks.items()
    ]
    shapes = [(name, list(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    return hashlib.sha256(
        json.dumps([texts, shapes, getattr(model, "pooling", None)]).encode()
    ).hexdigest()

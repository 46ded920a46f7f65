"""Where tensors live, and in which precision they are computed: decided here and nowhere else.

A model is put on its device once, when it is loaded or built, and stays there. Whatever takes a
model and texts brings the texts to the model, and what it gives back for good (logits, vectors,
histories) lies on the CPU. So nothing mixes devices, and nothing that a caller holds moves behind
its back. Sources: Micikevicius et al. 2018, arXiv 1710.03740 (float16 with loss scaling); Kalamkar
et al. 2019, arXiv 1905.12322 (bfloat16).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

from viralbert_utils.base.errors import DataError
from viralbert_utils.base.variables import DEVICE as DEVICE
from viralbert_utils.base.variables import PRECISION as PRECISION

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
N_AHEAD = 3  # batches that are prepared while the device computes

Batch = TypeVar("Batch")


def choose(device: str | None = None, dtype: str = "auto") -> None:
    """Ask for a device and a precision, for this process and for those that it starts.

    Args:
        device: See `default`; nothing leaves the choice as it is.
        dtype: Name of a precision, see `precision`; `auto` leaves the choice as it is.

    Raises:
        DataError: There is no such device here, or it doesn't compute in that precision.
    """
    precision(default(device), dtype)
    wanted = {DEVICE: device, PRECISION: dtype if dtype != "auto" else ""}
    os.environ.update({name: value for name, value in wanted.items() if value})


def default(wanted: str | None = None) -> torch.device:
    """The device for models: the wanted one, else `$VIRALBERT_DEVICE`, else CUDA, else the CPU.

    Args:
        wanted: `cpu`, `cuda` (under torchrun the GPU of this process), `cuda:1`, or `mps`, Apple's,
            which is used only when it is asked for: nobody has measured the course on it.

    Raises:
        DataError: The device that was asked for is not there.
    """
    wanted = wanted or os.environ.get(DEVICE)
    if not wanted:
        return (
            torch.device("cuda", torch.cuda.current_device())
            if torch.cuda.is_available()
            else torch.device("cpu")
        )
    try:
        device = torch.device(wanted)
        module = torch.get_device_module(device)
        there = module.is_available() and (device.index or 0) < module.device_count()
    except (RuntimeError, AttributeError):
        there = False
    if not there:
        kinds = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        kinds += ["mps"] if torch.backends.mps.is_available() else []
        raise DataError(
            f"device {wanted!r} is not on this machine; use {', '.join(['cpu', *kinds])}"
        )
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


@cache
def compute_after_fork() -> None:
    """Let processes that are forked from this one compute on the CPU, each with one thread.

    A forked process has only the thread that forked it. torch does not know, and would wait for the
    others for ever.
    """
    if hasattr(os, "register_at_fork"):  # Windows has no forks
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def of(module: nn.Module) -> torch.device:
    """The device of a model, which is that of its first parameter."""
    return next(module.parameters()).device


def to(batch: Batch, device: torch.device) -> Batch:
    """A tensor, or a tuple of them of any depth, on a device; nobody waits for the copy."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=device.type == "cuda")  # type: ignore[return-value]
    return _rebuilt(batch, lambda part: to(part, device))


def ahead(prepare: Iterable[Callable[[], Batch]], device: torch.device) -> Iterator[Batch]:
    """Batches on a device, in order; on a GPU a thread prepares the next ones meanwhile.

    Args:
        prepare: Functions that make one batch each (see `to`), on the CPU.
        device: Where the batches are wanted.
    """
    if device.type == "cpu":
        yield from (make() for make in prepare)
        return
    with ThreadPoolExecutor(1, "batches") as thread:
        waiting: deque[Any] = deque()
        for make in prepare:
            waiting.append(thread.submit(_pinned, make, device))
            if len(waiting) > N_AHEAD:
                yield to(waiting.popleft().result(), device)
        while waiting:
            yield to(waiting.popleft().result(), device)


def _pinned(make: Callable[[], Batch], device: torch.device) -> Batch:
    batch = make()
    return _pin(batch) if device.type == "cuda" else batch


def _pin(batch: Batch) -> Batch:
    return batch.pin_memory() if isinstance(batch, torch.Tensor) else _rebuilt(batch, _pin)  # type: ignore[return-value]


def _rebuilt(batch: Any, change: Callable[[Any], Any]) -> Any:
    parts = [change(part) for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)


def precision(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """In which type matrices are multiplied; weights, sums and the optimiser stay in float32.

    Args:
        device: Where it is computed.
        wanted: One of `PRECISIONS`. `auto` asks `$VIRALBERT_PRECISION`, and if that says nothing
            either takes bfloat16 on a GPU that has it, float16 with loss scaling on an older one
            with tensor cores (such as a T4), else float32.

    Raises:
        DataError: An unknown name, or bfloat16 on a GPU that would only emulate it.
    """
    name = os.environ.get(PRECISION, "auto") if wanted == "auto" else wanted
    if name not in PRECISIONS:
        raise DataError(f"precision {name!r} is not known; use {', '.join(PRECISIONS)}")
    if device.type != "cuda":
        return torch.float32 if name == "auto" else getattr(torch, name)
    with torch.cuda.device(device):
        # Without this flag an older GPU counts, too, which computes it in software, slower than
        # float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "bfloat16" and not native:
        raise DataError(
            f"{torch.cuda.get_device_name(device)} has no bfloat16; use float16, float32 or auto"
        )
    if name != "auto":
        return getattr(torch, name)
    if native:
        return torch.bfloat16
    return torch.float16 if torch.cuda.get_device_capability(device) >= (7, 0) else torch.float32


def computing(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Inside, matrices are multiplied in `dtype` (see `precision`)."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def on_cpu(state: Any) -> Any:
    """Nested dictionaries and lists with their tensors on the CPU; not copied there."""
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    return (
        type(state)(on_cpu(value) for value in state) if isinstance(state, list | tuple) else state
    )


def random_states(device: torch.device) -> list[torch.Tensor]:
    """States of the random generators: the CPU's, and the device's if it has its own."""
    device_states = (
        [torch.get_device_module(device).get_rng_state(device)]
        if device.type in ("cuda", "mps")
        else []
    )
    return [torch.get_rng_state(), *device_states]


def restore(states: list[torch.Tensor], device: torch.device) -> None:
    """Put back what `random_states` gave; another kind of device takes the CPU's alone."""
    torch.set_rng_state(states[0])
    if len(states) > 1 and device.type in ("cuda", "mps"):
        torch.get_device_module(device).set_rng_state(states[1], device)


def describe(device: torch.device | None = None) -> str:
    """The GPU's name or the kind of device, and the precision if it is not float32."""
    device = device or default()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    dtype = precision(device)
    return name if dtype == torch.float32 else f"{name}, {str(dtype).removeprefix('torch.')}"

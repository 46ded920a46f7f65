"""Several processes that train as one: started by torchrun, each takes its part of every batch.

`torchrun --nproc-per-node 2 -m viralbert.cli train ...`. Without torchrun there is one process, and
nothing here does anything. The result is that of one process with the same batches, but for dropout
and rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError

Value = TypeVar("Value")
_NONE, _DENSE, _SPARSE = range(3)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun has started here, each with a GPU if there are any.

    Raises:
        DataError: Fewer GPUs than processes.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    backend = "gloo"
    if devices.default().type == "cuda":
        n_local, n_gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if n_local > n_gpus:
            raise DataError(
                f"{n_local} processes for {n_gpus} GPUs; start torchrun with --nproc-per-node "
                f"{n_gpus}"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        os.environ[devices.DEVICE] = "cuda"  # each its own, even if one card was named for all
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


def n_processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def part(positions: Sequence[int]) -> Sequence[int]:
    """What this process takes of a batch: every n-th text, so that all get texts of like length."""
    return positions[rank() :: n_processes()]


class Part:
    """What this process takes of a set of texts: as many as the others, the first again."""

    def __init__(self, texts: Any) -> None:
        """`texts` holds at least one text."""
        self.texts = texts
        n_each = -(-len(texts.lengths) // n_processes())
        self.positions = [(rank() + n_processes() * i) % len(texts.lengths) for i in range(n_each)]
        self.lengths = [texts.lengths[position] for position in self.positions]

    def batch(self, positions: Sequence[int], pad_id: int) -> tuple[Tensor, Tensor]:
        """Input and attention mask of the texts at some positions of the part."""
        return self.texts.batch([self.positions[position] for position in positions], pad_id)

    def whole(self, values: Tensor) -> Tensor:
        """What all processes have found for their parts, in the order of the texts."""
        return torch.stack(gathered(values), dim=1).flatten(end_dim=1)[: len(self.texts.lengths)]


def total(value: Tensor) -> Tensor:
    """Sum over the processes."""
    if n_processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def summed(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients added up over the processes, dense ones in place; `None` if nobody has one."""
    sums = list(gradients)
    if n_processes() == 1 or not sums:
        return sums
    # On the CPU (gloo goes along with nccl): asking a GPU for these few numbers would wait for all
    # its work.
    kinds = torch.tensor(
        [_NONE if one is None else _SPARSE if one.is_sparse else _DENSE for one in sums]
    )
    dist.all_reduce(kinds, dist.ReduceOp.MAX)
    waiting = []
    for position, kind in enumerate(kinds.tolist()):
        gradient, parameter = sums[position], parameters[position]
        if kind == _SPARSE:
            sums[position] = _summed_rows(gradient, parameter)
        elif kind == _DENSE:
            dense = torch.zeros_like(parameter) if gradient is None else gradient.contiguous()
            waiting.append(dist.all_reduce(dense, async_op=True))
            sums[position] = dense
    for work in waiting:
        work.wait()
    return sums


def _summed_rows(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    """A sparse gradient of a table: only rows that some process has read are sent."""
    read = torch.zeros(len(parameter), dtype=torch.uint8, device=parameter.device)
    if gradient is not None:
        gradient = gradient.coalesce()
        read[gradient.indices()[0]] = 1
    dist.all_reduce(read, dist.ReduceOp.MAX)
    rows = read.nonzero().flatten()
    values = parameter.new_zeros(len(rows), *parameter.shape[1:])
    if gradient is not None:
        values[torch.searchsorted(rows, gradient.indices()[0])] = gradient.values()
    dist.all_reduce(values)
    return torch.sparse_coo_tensor(
        rows[None], values, parameter.shape, is_coalesced=True, check_invariants=False
    )


def same_weights(model: nn.Module) -> None:
    """Give every process the first one's weights."""
    if n_processes() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def broadcast(value: Tensor) -> Tensor:
    """The first process's tensor; those of the others have its shape, and are overwritten."""
    if n_processes() > 1:
        dist.broadcast(value, 0)
    return value


def from_first(value: Value) -> Value:
    """The first process's value."""
    held = [value]
    if n_processes() > 1:
        dist.broadcast_object_list(held, 0)
    return held[0]


def gathered(value: Value) -> list[Value]:
    """The values of all processes, by rank."""
    values: list[Any] = [value] * n_processes()
    if n_processes() > 1:
        dist.all_gather_object(values, value)
    return values


@contextmanager
def first_alone() -> Iterator[None]:
    """Inside, the first process goes ahead of the others, which then find what it has written."""
    if n_processes() > 1 and rank():
        dist.barrier()
    yield
    if n_processes() > 1 and not rank():
        dist.barrier()

"""Gradient surgery: what to do when two tasks pull the shared parameters apart.

Each text belongs to one task, so the gradient of a task comes from a backward pass over its own
texts alone: two half passes cost what one whole pass costs, as long as there is enough to compute
(a GPU that waits for the next kernel to be launched waits twice as often). All that a surgery needs
of the gradients is their products with each other (the Gramian, 2 x 2 for two tasks): it answers
with one weight a task, and the update is the weighted sum. Lesson 03 derives it. Sources: Yu et al.
2020, arXiv 2001.06782 (PCGrad, algorithm 1); Quinton & Rey 2024, arXiv 2406.16232 (Gramians, and
the other surgeries, taken from their library torchjd).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from viralbert_utils.training import processes

Weighting = Callable[[Tensor], Tensor]
# Names in torchjd. Some need a solver that torchjd does not install by itself, and say so when
# they are asked for.
SURGERIES = {
    "upgrad": "UPGradWeighting",
    "mgda": "MGDAWeighting",
    "cagrad": "CAGradWeighting",
    "imtl-g": "IMTLGWeighting",
    "aligned-mtl": "AlignedMTLWeighting",
    "dualproj": "DualProjWeighting",
    "gradvac": "GradVacWeighting",
}


def pcgrad(gramian: Tensor) -> Tensor:
    """PCGrad's weights: each gradient loses its part along every other that it opposes.

    Projecting only ever subtracts a multiple of another task's gradient, so the sum of the
    projected gradients is a weighted sum of the given ones, and the weights follow from their
    products alone.

    Args:
        gramian: `(n_tasks, n_tasks)`, products of the tasks' gradients.

    Returns:
        `(n_tasks,)`. With two tasks whose product `c` is negative: `1 - c / |g1|^2` and `1 - c /
        |g2|^2`.
    """
    n_tasks = len(gramian)
    total = torch.zeros_like(gramian[0])
    # Made on the device: writing a number of Python into a tensor there waits for it.
    alone = torch.eye(n_tasks, dtype=gramian.dtype, device=gramian.device)
    for task in range(n_tasks):
        weights = alone[task].clone()
        for other in torch.randperm(n_tasks).tolist():
            if other == task:
                continue
            product, length = gramian[other] @ weights, gramian[other, other]
            # No `if`: the sign stays on the device, and a task without a gradient takes nothing
            # away.
            weights[other] -= torch.where(
                length > 0, product.clamp(max=0) / length.clamp(min=1e-30), 0
            )
        total += weights
    return total


def weighting(name: str) -> Weighting:
    """The function from a Gramian `(n_tasks, n_tasks)` to weights `(n_tasks,)`.

    Args:
        name: `pcgrad`, `none` (the plain sum), or one of `SURGERIES`.

    Raises:
        ValueError: An unknown name, or a surgery whose solver is not installed.
    """
    if name == "none":
        return lambda gramian: torch.ones_like(gramian[0])
    if name == "pcgrad":
        return pcgrad
    if name not in SURGERIES:
        raise ValueError(f"surgery {name!r} is not known; use none, pcgrad, {', '.join(SURGERIES)}")
    from torchjd import aggregation

    try:
        return getattr(aggregation, SURGERIES[name])(**({"c": 0.5} if name == "cagrad" else {}))
    except ImportError:
        wanted = "torchjd[cagrad]" if name == "cagrad" else "viralbert-course[surgeries]"
        raise ValueError(
            f"surgery {name!r} needs a solver that is not installed: pip install '{wanted}', or "
            "take mgda, imtl-g, aligned-mtl or gradvac, which need none"
        ) from None


class TaskGradients:
    """The gradients of several tasks on shared parameters, kept apart until combined.

    Backward passes add to `.grad` as always; which tensor that is, is exchanged before and after,
    so nothing is copied and the memory is one more set of shared gradients for each task but one.

    Args:
        shared: Parameters that more than one task may move. All others keep the gradient of their
            own task.
        tasks: Their names.
        name: See `weighting`. `none` adds the gradients up where they arise, at no cost.
        measure: Keep them apart for `none` as well, so that their angle is known.
        private: Parameters of one task only; their gradients stay as they are, and are added up
            over the processes.
    """

    def __init__(
        self,
        shared: Iterable[nn.Parameter],
        tasks: Sequence[str],
        name: str = "pcgrad",
        measure: bool = False,
        private: Iterable[nn.Parameter] = (),
    ) -> None:
        """See the class."""
        self.shared = [parameter for parameter in shared if parameter.requires_grad]
        self.private = [parameter for parameter in private if parameter.requires_grad]
        self.weigh = weighting(name)
        self.apart = len(tasks) > 1 and bool(self.shared) and (measure or name != "none")
        self.gradients: dict[str, list[Tensor | None]] = {
            task: [None] * len(self.shared) for task in tasks
        }
        self.used: list[str] = []

    @contextmanager
    def of(self, task: str) -> Iterator[None]:
        """A backward pass inside adds to the gradient of this task."""
        if not self.apart:
            yield
            return
        for parameter, gradient in zip(self.shared, self.gradients[task], strict=True):
            parameter.grad = gradient
        yield
        self.gradients[task] = [parameter.grad for parameter in self.shared]
        if task not in self.used:
            self.used.append(task)

    @torch.no_grad()
    def combine(self) -> Tensor | None:
        """Leave the weighted sum in `.grad`, and start anew.

        With `none` and `pcgrad` nothing here waits for the device, unless word vectors have sparse
        gradients; the solvers of some other surgeries compute on the CPU.

        Returns:
            The cosine between the gradients of the first two tasks, on their device; `None` if only
            one has any, or none was kept.
        """
        plain = self.private if self.apart else [*self.shared, *self.private]
        summed = processes.summed(plain, [parameter.grad for parameter in plain])
        for parameter, gradient in zip(plain, summed, strict=True):
            parameter.grad = gradient
        if not self.apart:
            return None
        by_task = [processes.summed(self.shared, self.gradients[task]) for task in self.used]
        cosine, weights = None, None
        if len(by_task) > 1:
            gramian = self._gramian(by_task)
            cosine = gramian[0, 1] / (gramian[0, 0] * gramian[1, 1]).sqrt().clamp(min=1e-30)
            # Where float16 has overflowed, the scaler of the loss skips the step; no surgery may
            # learn from it.
            usable = gramian.isfinite().all()
            gramian = torch.where(usable, gramian, torch.eye(len(gramian), device=gramian.device))
            # Of three tasks and more the order of projections is random: one process draws it for
            # all.
            weights = processes.broadcast(self.weigh(gramian))
        for parameter, gradient in zip(self.shared, _weighted_sums(by_task, weights), strict=True):
            parameter.grad = gradient
        self.gradients = {task: [None] * len(self.shared) for task in self.gradients}
        self.used = []
        return cosine

    def _gramian(self, by_task: list[list[Tensor | None]]) -> Tensor:
        n_tasks, device = len(by_task), self.shared[0].device
        rows: list[Tensor] = []
        for one in range(n_tasks):
            row = [rows[other][one] for other in range(one)]
            row += [_product(by_task[one], by_task[other], device) for other in range(one, n_tasks)]
            rows.append(torch.stack(row))
        return torch.stack(rows)


def _product(one: list[Tensor | None], other: list[Tensor | None], device: torch.device) -> Tensor:
    """Inner product of two gradients; a parameter that a task does not touch counts as zero."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    parts = []
    if one is other and (
        dense := [a for a, _ in pairs if not a.is_sparse]
    ):  # of itself, in a few kernels
        parts.append(torch.stack(torch._foreach_norm(dense)).square().sum())
        pairs = [(a, b) for a, b in pairs if a.is_sparse]
    parts += [
        (a * b).coalesce().values().sum() if a.is_sparse else torch.dot(a.flatten(), b.flatten())
        for a, b in pairs
    ]
    return torch.stack(parts).sum() if parts else torch.zeros((), device=device)


def _dense(by_task: list[list[Tensor | None]]) -> list[int]:
    """Positions at which every task has a dense gradient: these can be handled all at once."""
    columns = enumerate(zip(*by_task, strict=True))
    return [
        place
        for place, column in columns
        if all(one is not None and not one.is_sparse for one in column)
    ]


def _weighted_sums(
    by_task: list[list[Tensor | None]], weights: Tensor | None
) -> list[Tensor | None]:
    """Weighted sums over the tasks, in the memory of the first one's gradients.

    Args:
        by_task: The gradients of each task.
        weights: One for each task, on their device; a single task has none.
    """
    if weights is None:
        return by_task[0]
    sums: list[Tensor | None] = [None] * len(by_task[0])
    dense = _dense(by_task)
    # a few kernels for all parameters, where one after the other would keep a GPU waiting for the
    # program
    if dense:
        lists: list[Any] = [[gradients[place] for place in dense] for gradients in by_task]
        for tensors, weight in zip(lists, weights, strict=True):
            torch._foreach_mul_(tensors, weight)
        for tensors in lists[1:]:
            torch._foreach_add_(lists[0], tensors)
        for place, gradient in zip(dense, lists[0], strict=True):
            sums[place] = gradient
    for place in set(range(len(sums))) - set(dense):
        for gradients, weight in zip(by_task, weights, strict=True):
            gradient = gradients[place]
            if gradient is not None:
                part, before = gradient * weight, sums[place]
                sums[place] = part if before is None else before + part
    return sums

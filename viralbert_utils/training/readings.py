"""Losses of the steps, left on the device and read in one go now and then."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

# Steps between two looks at the losses: each look waits until the device has done all that it was
# given to do.
READ_EVERY = 50


class Readings:
    """What the steps of an epoch have found."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.waiting: list[tuple[int, str, int, Tensor | None]] = []
        self.totals: dict[str, float] = {}
        self.n_texts: dict[str, int] = {}
        self.rows: list[dict[str, float]] = []  # one an update
        self._row: dict[str, float] = {}  # losses of the update that is not complete yet

    def loss(self, step: int, task: str, n_texts: int, value: Tensor) -> None:
        """Add the mean loss of some texts of a task."""
        self.waiting.append((step, task, n_texts, value))

    def update(self, step: int, cosine: Tensor | None) -> None:
        """Add an update, and the cosine between the gradients that made it."""
        self.waiting.append((step, "", 0, cosine))

    def read(self) -> None:
        """Take over what waits.

        Raises:
            FloatingPointError: A loss is no number.
        """
        figures = [value for *_, value in self.waiting if value is not None]
        values = iter(torch.stack(figures).tolist() if figures else ())
        for step, task, n_texts, given in self.waiting:
            value = math.nan if given is None else next(values)
            if not n_texts:
                self.rows.append({"cosine": value} | self._row)
                self._row = {}
                continue
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss is {value} at step {step}; lower the learning rate"
                )
            self.totals[task] = self.totals.get(task, 0.0) + value * n_texts
            self.n_texts[task] = self.n_texts.get(task, 0) + n_texts
            self._row[f"{task}.loss"] = value
        self.waiting = []

    def means(self, tasks: Iterable[str]) -> dict[str, float]:
        """Mean loss of each task over the texts that were read; 0 for a task that had none."""
        return {
            task: self.totals.get(task, 0.0) / max(1, self.n_texts.get(task, 0)) for task in tasks
        }

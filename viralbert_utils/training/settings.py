"""What a training is given: texts as token ids, tasks, settings, optimiser and learning rate.

Sources: Loshchilov & Hutter 2019 (AdamW) and 2017 (cosine)."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from viralbert_utils.base import devices
from viralbert_utils.base.errors import DataError
from viralbert_utils.encoders.loading import pad
from viralbert_utils.models.inference import Texts
from viralbert_utils.training.losses import Loss
from viralbert_utils.training.surgery import weighting

# Power of the number of a task's texts that its share in a batch goes by.
SAMPLINGS = {"proportional": 1.0, "sqrt": 0.5, "equal": 0.0}
# Factor of the learning rate over what is left after the warm-up, 0 .. 1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
    "linear": lambda share: 1 - share,
    "constant": lambda share: 1.0,
}


class LabelledTexts(Texts, Protocol):
    """What a task can be trained on: `Encoded` texts, or what frozen layers gave for them."""

    def __len__(self) -> int:
        """Number of texts."""
        ...

    @property
    def labels(self) -> Tensor:
        """`(n_texts, n_classes)` (0/1) or `(n_texts,)` (class ids)."""
        ...

    @property
    def digest(self) -> str:
        """Hash of texts and labels."""
        ...


@dataclass(frozen=True)
class Encoded:
    """Token ids with labels `(n_texts, n_classes)` (0/1) or `(n_texts,)` (class ids).

    They lie on the CPU; training takes each batch to the model.
    """

    rows: list[list[int]]
    labels: Tensor

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.rows)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(row) for row in self.rows]

    @cached_property
    def digest(self) -> str:
        """Hash of texts and labels."""
        digest = hashlib.sha256(json.dumps(self.rows).encode())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def batch(self, positions: Sequence[int], pad_id: int) -> tuple[Tensor, Tensor]:
        """Ids and attention mask of the texts at some positions, padded to the longest of them."""
        return pad([self.rows[p] for p in positions], pad_id)


Metrics = Callable[[Tensor, Tensor], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """What one task brings to a training.

    Attributes:
        train: Training texts.
        validation: Decides on the best epoch, so it is no test.
        loss: Mean loss of a batch from logits and labels.
        metrics: Further figures of the validation logits `(n_texts, n_classes)` and labels.
        weight: Factor of the loss.
    """

    train: LabelledTexts
    validation: LabelledTexts
    loss: Loss
    metrics: Metrics | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        epochs: Passes over the training texts.
        batch_size: Texts a step; times `accumulate` = texts an update.
        learning_rate: Highest rate of the encoder, after the warm-up.
        head_factor: The head's rate is so many times the encoder's: it starts at random, and a mean
            over many tokens differs little from text to text, so its weights have far to go.
        embedding_factor: The same for word vectors that train: a word that is met three times needs
            large steps.
        weight_decay: Decay of matrices; biases and normalisation layers have none.
        warmup: Share of the updates in which the rate rises from zero; 1 or more: their number.
        schedule: What it does after that: `cosine` and `linear` go down to zero, `constant` stays.
        accumulate: Steps whose gradients are averaged for one update.
        clip_norm: Gradients of a larger norm are shortened to it; 0 = never.
        patience: Stop after so many epochs without a better figure; 0 = never.
        metric: Column of the history that decides which epoch is best; `loss` is best when small,
            all else when large.
        keep: Which weights the model has at the end: `best`, those of the epoch that `metric`
            decides on, or `last`.
        seed: Order of batches and dropout.
        bucket: Batches that are sorted by length together; 0 = no sorting.
        precision: In which matrices are multiplied, here and in the evaluation, see
            `devices.precision`.
        surgery: What becomes of the gradients of several tasks, see `surgery.weighting`.
        sampling: Texts of each task in a batch: in proportion to how many there are, to the square
            root of that, or equally many. An epoch is as many texts as there are; short supplies
            come round again.
    """

    epochs: int = 3
    batch_size: int = 16
    learning_rate: float = 2e-5
    head_factor: float = 1.0
    embedding_factor: float = 1.0
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "cosine"
    accumulate: int = 1
    clip_norm: float = 1.0
    patience: int = 0
    metric: str = "loss"
    seed: int = 0
    bucket: int = 50
    precision: str = "auto"
    surgery: str = "none"
    sampling: str = "proportional"
    keep: str = "best"


def make_optimisers(model: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """AdamW, and for sparse word vectors `SparseAdam`, which moves only what a batch has read.

    Encoder and head have their rates, matrices have weight decay, vectors have none. Everything
    outside `model.encoder` is head; a vector is a bias or belongs to a normalisation layer.
    """
    sparse = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.sparse
    ]
    sparse = [weight for weight in sparse if weight.requires_grad]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not any(parameter is weight for weight in sparse):
            rate = settings.learning_rate * (
                1 if name.startswith("encoder.") else settings.head_factor
            )
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    parameter_groups = [
        {"params": part, "lr": rate, "weight_decay": decay}
        for (rate, decay), part in groups.items()
    ]
    # One kernel for a step. On a GPU it also skips a step that float16 has spoilt, without asking
    # the program.
    fused = devices.of(model).type in ("cpu", "cuda") or None
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(parameter_groups, lr=settings.learning_rate, fused=fused)
    ]
    if sparse:
        optimisers.append(
            torch.optim.SparseAdam(sparse, lr=settings.learning_rate * settings.embedding_factor)
        )
    return optimisers


def cosine_with_warmup(step: int, n_steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Factor of the rate for update `step` (from 0): linear rise, then the schedule to zero."""
    n_warm = max(1, round(warmup if warmup >= 1 else warmup * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return SCHEDULES[schedule]((step - n_warm) / max(1, n_steps - n_warm))


def check_training(tasks: Mapping[str, Task], settings: Settings, measured: bool) -> None:
    """Refuse a training that cannot come to its end, before an epoch is spent on it.

    Args:
        tasks: The tasks by name.
        settings: What is to be checked.
        measured: Whether the angle between the tasks' gradients is kept.
    """
    if settings.schedule not in SCHEDULES:
        raise DataError(f"schedule {settings.schedule!r} is not known; use {', '.join(SCHEDULES)}")
    if settings.keep not in ("best", "last"):
        raise DataError(f"keep is {settings.keep!r}; use best or last")
    check_sampling(settings.sampling)
    weighting(settings.surgery)
    for name, least in (("batch_size", 1), ("accumulate", 1), ("patience", 0)):
        if getattr(settings, name) < least:
            raise DataError(f"{name} is {getattr(settings, name)}; expected at least {least}")
    for name, task in tasks.items():
        if not len(task.train) or not len(task.validation) or settings.epochs < 1:
            n_texts = f"{len(task.train)} training and {len(task.validation)} validation texts"
            of_task = f" of task {name!r}" if name else ""
            raise DataError(
                f"nothing to do with {n_texts}{of_task} and {settings.epochs} epochs; each must be "
                "at least 1"
            )
    check_metric(tasks, settings, measured)


def check_sampling(name: str) -> None:
    """Refuse a sampling that `SAMPLINGS` does not name."""
    if name not in SAMPLINGS:
        raise DataError(f"sampling {name!r} is not known; use {', '.join(SAMPLINGS)}")


def check_metric(tasks: Mapping[str, Task], settings: Settings, measured: bool) -> None:
    """Refuse a metric that no epoch will compute; arguments as of `check_training`."""
    names = ["epoch", "train_loss", "loss", "learning_rate"]
    if len(tasks) > 1 and (measured or settings.surgery != "none"):
        names += ["cosine", "conflicts"]
    for name, task in tasks.items():
        figures = ["train_loss", "loss"]
        if task.metrics:
            labels = task.validation.labels
            n_classes = (
                labels.shape[1]
                if labels.ndim > 1
                else int(max(labels.max(), task.train.labels.max())) + 1
            )
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    figures += task.metrics(torch.zeros(len(labels), n_classes), labels)
            except (
                Exception
            ):  # a figure that the same answer for all texts has not: the first epoch will tell
                return
        names += [f"{name}.{figure}" if name else figure for figure in figures]
    check_metric_name(settings.metric, dict.fromkeys(names))


def check_metric_name(metric: str, figures: Mapping[str, Any]) -> None:
    """Refuse a metric that is not among the figures of an epoch."""
    if metric not in figures:
        raise DataError(f"metric {metric!r} is not computed; there are {', '.join(figures)}")


def task_argument(name: str) -> dict[str, Any]:
    """What tells the model which task is meant; nothing where there is only one."""
    return {"task": name} if name else {}

"""One training loop for all lessons: one task or several, decay groups, cosine with warm-up, batches of like length,
stages with frozen layers, checkpoints, resume.

Lesson 02 uses it for one task, lesson 03 for two. Sources: Loshchilov & Hutter 2019 (AdamW) and 2017 (cosine).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from viralbert_utils import devices, distributed, frozen
from viralbert_utils.encoders import pad
from viralbert_utils.files import DataError, whole_file
from viralbert_utils.losses import Loss
from viralbert_utils.models import predict_logits
from viralbert_utils.surgery import TaskGradients, weighting

# Power of the number of a task's texts that its share in a batch goes by.
SAMPLINGS = {"proportional": 1.0, "sqrt": 0.5, "equal": 0.0}
# Steps between two looks at the losses: each look waits until the device has done all that it was given to do.
READ_EVERY = 50
# Factor of the learning rate over what is left after the warm-up, 0 .. 1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)), "linear": lambda share: 1 - share,
    "constant": lambda share: 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """Texts ready for training: token ids, and labels `(n_texts, n_classes)` (0/1) or `(n_texts,)` (class ids).

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
        found = hashlib.sha256(json.dumps(self.rows).encode())
        found.update(self.labels.cpu().numpy().tobytes())
        return found.hexdigest()

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

    train: Encoded | frozen.Cached
    validation: Encoded | frozen.Cached
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
        head_factor: The head's rate is so many times the encoder's: it starts at random, and a mean over many tokens
            differs little from text to text, so its weights have far to go.
        embedding_factor: The same for word vectors that train: a word that is met three times needs large steps.
        weight_decay: Of matrices; biases and normalisation layers have none.
        warmup: Share of the updates in which the rate rises from zero; 1 or more: their number.
        schedule: What it does after that: `cosine` and `linear` go down to zero, `constant` stays.
        accumulate: Steps whose gradients are averaged for one update.
        clip_norm: Gradients of a larger norm are shortened to it; 0 = never.
        patience: Stop after so many epochs without a better figure; 0 = never.
        metric: Column of the history that decides which epoch is best; `loss` is best when small, all else when large.
        seed: Order of batches and dropout.
        bucket: Batches that are sorted by length together; 0 = no sorting.
        precision: In which matrices are multiplied, here and in the evaluation, see `devices.precision`.
        surgery: What becomes of the gradients of several tasks, see `surgery.weighting`.
        sampling: Texts of each task in a batch: in proportion to how many there are, to the square root of that, or
            equally many. An epoch is as many texts as there are; short supplies come round again.
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


def batches(lengths: Sequence[int], batch_size: int, bucket: int, seed: int, epoch: int = 0) -> list[list[int]]:
    """Positions of each batch of one epoch, for one task; see `mixed_batches`."""
    settings = Settings(batch_size=batch_size, bucket=bucket, seed=seed)
    return [step[0][1] for step in mixed_batches({"": lengths}, settings, epoch)]


def mixed_batches(
    lengths: Mapping[str, Sequence[int]], settings: Settings, epoch: int
) -> list[list[tuple[str, list[int]]]]:
    """Positions of each batch of one epoch, for each task.

    Texts are shuffled, then sorted by length within stretches of `bucket` batches, so that a task's part of a batch
    holds texts of like length and padding costs next to nothing; the order of the batches is random again.

    Args:
        lengths: Task -> tokens of each of its texts.
        settings: Batch size, bucket, seed, sampling.
        epoch: From 0; another epoch is another order.

    Returns:
        For each batch the tasks that have a part in it, with positions; at most `batch_size` in all, rounded up for
        each task. In `proportional` sampling each position stands in exactly one batch.

    Raises:
        ValueError: An unknown sampling.
    """
    _check_sampling(settings.sampling)
    power = SAMPLINGS[settings.sampling]
    n_texts = sum(map(len, lengths.values()))
    shares = {task: len(own) ** power for task, own in lengths.items()}
    n_batches = math.ceil(n_texts / settings.batch_size)
    found: list[list[tuple[str, list[int]]]] = [[] for _ in range(n_batches)]
    for number, (task, own) in enumerate(lengths.items()):
        rng = random.Random(f"{settings.seed} {epoch} {number}")
        n_drawn = round(n_texts * shares[task] / sum(shares.values()))
        order = _drawn(len(own), n_drawn, epoch, settings.seed)
        bounds = [n_drawn * step // n_batches for step in range(n_batches + 1)]
        if settings.bucket:
            cuts = [*bounds[:: settings.bucket], n_drawn]
            stretches = [sorted(order[i:j], key=own.__getitem__) for i, j in pairwise(cuts)]
            order = [position for stretch in stretches for position in stretch]
        parts = [order[i:j] for i, j in pairwise(bounds)]
        rng.shuffle(parts)
        for step, positions in zip(found, parts, strict=True):
            if positions:
                step.append((task, positions))
    return [step for step in found if step]


def _drawn(n_texts: int, n_drawn: int, epoch: int, seed: int) -> list[int]:
    """`n_drawn` positions: shuffled texts without end, from where the last epoch stopped."""
    first = epoch * n_drawn
    found: list[int] = []
    for turn in range(first // n_texts, (first + n_drawn - 1) // n_texts + 1):
        order = list(range(n_texts))
        random.Random(f"{seed} {turn}").shuffle(order)
        found += order
    return found[first % n_texts :][:n_drawn]


def make_optimisers(model: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """AdamW for all but sparse word vectors, which have their own (`SparseAdam`, moving only what a batch has read).

    Encoder and head have their rates, matrices have weight decay, vectors have none. Everything outside `model.encoder`
    is head; a vector is a bias or belongs to a normalisation layer.
    """
    sparse = [module.weight for module in model.modules() if isinstance(module, nn.Embedding) and module.sparse]
    sparse = [weight for weight in sparse if weight.requires_grad]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not any(parameter is weight for weight in sparse):
            rate = settings.learning_rate * (1 if name.startswith("encoder.") else settings.head_factor)
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    found = [{"params": part, "lr": rate, "weight_decay": decay} for (rate, decay), part in groups.items()]
    # On a GPU in one kernel, which also skips a step that float16 has spoilt without asking the program.
    fused = devices.of(model).type == "cuda" or None
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(found, lr=settings.learning_rate, fused=fused)]
    if sparse:
        optimisers.append(torch.optim.SparseAdam(sparse, lr=settings.learning_rate * settings.embedding_factor))
    return optimisers


def cosine_with_warmup(step: int, n_steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Factor of the learning rate for update `step` (from 0): linear rise, then half a cosine (or other) to zero."""
    n_warm = max(1, round(warmup if warmup >= 1 else warmup * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return SCHEDULES[schedule]((step - n_warm) / max(1, n_steps - n_warm))


def fit(
    model: nn.Module,
    tasks: Task | Mapping[str, Task],
    settings: Settings,
    pad_id: int = 0,
    checkpoint: Path | None = None,
    show_progress: bool = False,
    log: list[dict[str, float]] | None = None,
) -> pd.DataFrame:
    """Train, and leave the model with the weights of its best epoch.

    Several processes (`distributed.process_group`) train as one would, each on its part of every batch; `loss` must
    then be a mean in which all texts count alike, which cross-entropy with weights of classes is not.

    Args:
        model: Takes `(inputs, attention_mask)`, and the name of the task if there are several; gives logits. It trains
            on the device where it is.
        tasks: One, or several by name: then the model has `heads`, and all outside them is shared.
        settings: See there.
        pad_id: Of the tokenizer.
        checkpoint: File that is written whole after each epoch. If it exists, training goes on from it and ends with
            the same weights as an uninterrupted run (to the bit on a CPU).
        show_progress: A progress bar for each epoch.
        log: Gets a row an update for several tasks: `update`, `cosine` between the first two tasks' gradients (nan
            where only one had texts), and each task's loss.

    Returns:
        A row an epoch: `epoch`, `train_loss`, `loss` (validation; sums over the tasks), the further figures, for
        several tasks each as `task.figure`, with surgery `cosine` (mean) and `conflicts` (share of updates in which it
        is negative), `learning_rate`, `best`.

    Raises:
        ValueError: No text or no epoch, a metric that is not computed.
        DataError: A checkpoint that is damaged or was made with other settings, data or model.
        FloatingPointError: The loss is no longer a number; the message says since which step. Losses are looked at
            every `READ_EVERY` steps.
    """
    return _fit(model, tasks, settings, pad_id, checkpoint, show_progress, log)[0]


def _fit(
    model: nn.Module, given: Task | Mapping[str, Task], settings: Settings, pad_id: int, checkpoint: Path | None,
    show_progress: bool, log: list[dict[str, float]] | None,
) -> tuple[pd.DataFrame, dict[str, Tensor]]:  # fmt: skip
    """See `fit`; the weights after the last epoch besides."""
    tasks = {"": given} if isinstance(given, Task) else dict(given)
    _check(tasks, settings, log is not None)
    device = devices.of(model)
    dtype = devices.precision(device, settings.precision)
    distributed.same_weights(model)
    torch.manual_seed(settings.seed + distributed.rank())
    optimisers = make_optimisers(model, settings)
    lengths = {name: task.train.lengths for name, task in tasks.items()}
    n_updates = math.ceil(len(mixed_batches(lengths, settings, 0)) / settings.accumulate)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: cosine_with_warmup(step, n_updates * settings.epochs, settings.warmup, settings.schedule),
        )
        for optimiser in optimisers
    ]
    # Only float16 needs it: gradients that it would round to zero are made longer, and shorter again before the update.
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    # What is saved and restored with the weights.
    state = [*optimisers, *schedules, scaler]
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    task_digest = _task_digest(model, tasks)
    if checkpoint is not None and checkpoint.is_file():
        history, best = _resume(checkpoint, model, state, settings, task_digest)
    heads, shared = (
        [parameter for name, parameter in model.named_parameters() if name.startswith("heads.") == private]
        for private in (True, False)
    )
    gradients = TaskGradients(shared, list(tasks), settings.surgery, log is not None, heads)
    rows = log if log is not None else []
    for epoch in range(len(history), settings.epochs):
        if settings.patience and _epochs_since_best(history, settings.metric) >= settings.patience:
            break
        plan = mixed_batches(lengths, settings, epoch)
        rate = float(schedules[0].get_last_lr()[0])
        name = f"epoch {epoch + 1}/{settings.epochs}"
        hidden = not show_progress or distributed.rank() > 0
        n_before = len(rows)
        with tqdm(total=len(plan), desc=name, unit="batch", disable=hidden, leave=False) as bar:
            losses = _train_epoch(
                model, tasks, plan, settings, pad_id, optimisers, schedules, gradients, rows, dtype, scaler, bar
            )
        figures: dict[str, float] = {"epoch": epoch + 1, "train_loss": 0.0, "loss": 0.0}
        for name, task in tasks.items():
            part = distributed.Part(task.validation)
            logits = part.whole(predict_logits(model, part, pad_id, precision=settings.precision, **_which(name)))
            own = {"train_loss": losses[name], "loss": float(task.loss(logits, task.validation.labels))}
            for figure in ("train_loss", "loss"):
                figures[figure] += task.weight * own[figure]
            # Plain numbers: what numpy and torch return instead is more than a checkpoint may hold.
            more = task.metrics(logits, task.validation.labels) if task.metrics else {}
            own |= {figure: float(value) for figure, value in more.items()}
            figures |= {f"{name}.{figure}" if name else figure: value for figure, value in own.items()
                        if name or figure not in figures}  # fmt: skip
        cosines = [row["cosine"] for row in rows[n_before:] if not math.isnan(row["cosine"])]
        if cosines:
            figures["cosine"] = sum(cosines) / len(cosines)
            figures["conflicts"] = sum(cosine < 0 for cosine in cosines) / len(cosines)
        figures["learning_rate"] = rate
        _check_named(settings.metric, figures)
        history.append(figures)
        if _epochs_since_best(history, settings.metric) == 0:
            best = _copy(_trainable_state(model))
        if checkpoint is not None:
            _save_checkpoint(checkpoint, model, state, settings, task_digest, history, best)
    final = _copy(_trainable_state(model))
    _load(model, best)
    table = pd.DataFrame(history)
    table["best"] = table.index == _best_epoch(history, settings.metric)
    return table, final


@dataclass(frozen=True)
class Stage:
    """A part of a training with its own trainable layers, learning rate and warm-up.

    Attributes:
        settings: See there.
        top_layers: Layers of the encoder that train, from the top; 0 = none of it, `None` = all.
    """

    settings: Settings
    top_layers: int | None = None


# The published recipe: heads at 2e-5, the top two layers at a tenth of it, warm-up of 500 updates in each stage.
VIRALBERT_V2 = (
    Stage(Settings(epochs=2, learning_rate=2e-5, warmup=500, surgery="pcgrad"), top_layers=0),
    Stage(Settings(epochs=3, learning_rate=2e-6, head_factor=10, warmup=500, surgery="pcgrad"), top_layers=2),
)


def fit_stages(
    model: nn.Module,
    tasks: Mapping[str, Task],
    stages: Sequence[Stage],
    pad_id: int = 0,
    folder: Path | None = None,
    cached: bool = True,
    cache_folder: Path | None = None,
    cache_gib: float = 8.0,
    show_progress: bool = False,
    log: list[dict[str, float]] | None = None,
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Train stage after stage, each from where the last one ended, and leave the model with its best epoch's weights.

    Args:
        model: A classifier of `models`.
        tasks: See `fit`; texts as `Encoded`.
        stages: In their order; all have the same `metric`.
        pad_id: Of the tokenizer.
        folder: For checkpoints, one a stage, so that a stopped training goes on.
        cached: Compute frozen layers once and train on what they gave (`frozen.cache`); the result is the same.
        cache_folder: Where that is kept for other trainings of the same texts; without it, it is removed at the end.
        cache_gib: Largest file of a cache, for each task and split.
        show_progress: A progress bar for each epoch.
        log: See `fit`.

    Returns:
        The history of all stages, with a column `stage`; and the weights after the last epoch, for
        `model.load_state_dict(final, strict=False)`.

    Raises:
        ValueError: As `fit`, and a cache over the limit.
    """
    tables: list[pd.DataFrame] = []
    # What trains in any stage, as it was before: all else need not be copied.
    start: dict[str, Tensor] = {}
    best: dict[str, Tensor] = {}
    best_value = math.inf
    final: dict[str, Tensor] = {}
    for stage in stages:
        _check(tasks, stage.settings, log is not None)
    distributed.same_weights(model)  # before the lower layers do their work
    with nullcontext(cache_folder) if cache_folder else TemporaryDirectory() as own_scratch:
        scratch = distributed.from_first(own_scratch)
        for number, stage in enumerate(stages, 1):
            frozen.freeze(model, stage.top_layers)
            start = _copy(_trainable_state(model)) | start
            checkpoint = folder / f"stage{number}.pt" if folder else None
            trained, own = model, tasks
            if cached and stage.top_layers is not None:
                trained = frozen.on_top(model, stage.top_layers)
                own = _cached(model, tasks, stage, Path(scratch), pad_id, cache_gib)
            table, final = _fit(trained, own, stage.settings, pad_id, checkpoint, show_progress, log)
            figures = table[stage.settings.metric]
            value = figures.min() if stage.settings.metric.endswith("loss") else -figures.max()
            if value < best_value:
                best_value = float(value)
                best = _copy(_trainable_state(model))
                tables = [earlier.assign(best=False) for earlier in tables]
            else:
                table["best"] = False
            tables.append(table.assign(stage=number))
            _load(trained, final)
    final = _copy({name: tensor for name, tensor in model.state_dict().items() if name in start})
    # Layers that were still frozen in the best epoch go back to where they started.
    _load(model, start | best)
    return pd.concat(tables, ignore_index=True), final


def _cached(
    model: nn.Module, tasks: Mapping[str, Task], stage: Stage, folder: Path, pad_id: int, limit_gib: float
) -> dict[str, Task]:
    found = {}
    top_layers = stage.top_layers or 0
    options: dict[str, Any] = {"weights": frozen.digest(model, top_layers), "precision": stage.settings.precision}
    for name, task in tasks.items():
        with distributed.first_alone():
            train, validation = (
                frozen.cache(model, part, top_layers, folder, pad_id, limit_gib, **options)
                for part in (task.train, task.validation)
            )
        found[name] = replace(task, train=train, validation=validation)
    return found


class _Readings:
    """What the steps of an epoch have found, left on the device and read in one go now and then."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, str, int, Tensor | None]] = []
        self.totals: dict[str, float] = {}
        self.n_texts: dict[str, int] = {}
        self.rows: list[dict[str, float]] = []  # one an update
        self._row: dict[str, float] = {}  # losses of the update that is not complete yet

    def loss(self, step: int, task: str, n_texts: int, value: Tensor) -> None:
        """The mean loss of some texts of a task."""
        self.waiting.append((step, task, n_texts, value))

    def update(self, step: int, cosine: Tensor | None) -> None:
        """An update, and the cosine between the gradients that made it."""
        self.waiting.append((step, "", 0, cosine))

    def read(self) -> None:
        """Take over what waits.

        Raises:
            FloatingPointError: A loss is no number.
        """
        found = [value for *_, value in self.waiting if value is not None]
        values = iter(torch.stack(found).tolist() if found else ())
        for step, task, n_texts, given in self.waiting:
            value = math.nan if given is None else next(values)
            if not n_texts:
                self.rows.append({"cosine": value} | self._row)
                self._row = {}
                continue
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value} at step {step}; lower the learning rate")
            self.totals[task] = self.totals.get(task, 0.0) + value * n_texts
            self.n_texts[task] = self.n_texts.get(task, 0) + n_texts
            self._row[f"{task}.loss"] = value
        self.waiting = []


def _train_epoch(
    model: nn.Module, tasks: Mapping[str, Task], plan: list[list[tuple[str, list[int]]]], settings: Settings,
    pad_id: int, optimisers: list[torch.optim.Optimizer], schedules: list[Any], gradients: TaskGradients,
    log: list[dict[str, float]], dtype: torch.dtype, scaler: torch.amp.GradScaler, bar: tqdm,
) -> dict[str, float]:  # fmt: skip
    """Mean training loss of each task, taken while the weights still move."""
    # from_pretrained gives a model in evaluation mode: without this line there is no dropout at all.
    model.train()
    frozen.still(model)
    device = devices.of(model)
    # Word vectors with sparse gradients are left out of the norm; their optimiser does not depend on the scale.
    parameters = [p for group in optimisers[0].param_groups for p in group["params"]]
    readings = _Readings()
    prepared = devices.ahead((partial(_prepare, tasks, batch, pad_id) for batch in plan), device)
    for step, (batch, parts) in enumerate(zip(plan, prepared, strict=True), 1):
        # The mean over the steps of the group; the last group of an epoch may hold fewer.
        group_start = (step - 1) // settings.accumulate * settings.accumulate
        in_group = min(settings.accumulate, len(plan) - group_start)
        for (name, positions), part in zip(batch, parts, strict=True):
            task = tasks[name]
            value = torch.zeros((), device=device)
            if part:
                inputs, mask, labels = part
                with devices.computing(device, dtype):
                    logits = model(inputs, mask, **_which(name))
                # The sum over the processes is then the mean over the texts, also where their parts differ in size.
                value = task.loss(logits.float(), labels) * (len(labels) / len(positions))
            readings.loss(step, name, len(positions), distributed.total(value.detach()))
            share = scaler.scale(task.weight * value / in_group)
            # A backward pass over the task's own texts: no graph is kept, nothing is computed twice.
            with gradients.of(name):
                if part:
                    share.backward()
        if step % settings.accumulate == 0 or step == len(plan):
            readings.update(step, gradients.combine())
            for optimiser in optimisers:
                scaler.unscale_(optimiser)
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            for optimiser, schedule in zip(optimisers, schedules, strict=True):
                scaler.step(optimiser)
                schedule.step()
                optimiser.zero_grad(set_to_none=True)
            scaler.update()
        if step % READ_EVERY == 0:
            readings.read()
        bar.update()
    readings.read()
    log.extend({"update": len(log) + number} | row for number, row in enumerate(readings.rows, 1))
    return {name: readings.totals.get(name, 0.0) / max(1, readings.n_texts.get(name, 0)) for name in tasks}


def _prepare(tasks: Mapping[str, Task], batch: list[tuple[str, list[int]]], pad_id: int) -> tuple:
    """This process's part of a batch: for each task input, mask and labels, or nothing."""
    found = []
    for name, positions in batch:
        texts, own = tasks[name].train, distributed.part(positions)
        found.append((*texts.batch(own, pad_id), texts.labels[own]) if own else ())
    return tuple(found)


def _check(tasks: Mapping[str, Task], settings: Settings, measured: bool) -> None:
    """Refuse a training that cannot come to its end, before an epoch is spent on it.

    Args:
        tasks: See `fit`.
        settings: See there.
        measured: Whether the angle between the tasks' gradients is kept.
    """
    if settings.schedule not in SCHEDULES:
        raise DataError(f"schedule {settings.schedule!r} is not known; use {', '.join(SCHEDULES)}")
    _check_sampling(settings.sampling)
    weighting(settings.surgery)
    for name, least in (("batch_size", 1), ("accumulate", 1), ("patience", 0)):
        if getattr(settings, name) < least:
            raise DataError(f"{name} is {getattr(settings, name)}; expected at least {least}")
    for name, task in tasks.items():
        if not len(task.train) or not len(task.validation) or settings.epochs < 1:
            n_texts = f"{len(task.train)} training and {len(task.validation)} validation texts"
            of_task = f" of task {name!r}" if name else ""
            raise DataError(
                f"nothing to do with {n_texts}{of_task} and {settings.epochs} epochs; each must be at least 1"
            )
    _check_metric(tasks, settings, measured)


def _check_sampling(name: str) -> None:
    if name not in SAMPLINGS:
        raise DataError(f"sampling {name!r} is not known; use {', '.join(SAMPLINGS)}")


def _check_metric(tasks: Mapping[str, Task], settings: Settings, measured: bool) -> None:
    """Refuse a metric that no epoch will compute; arguments as of `_check`."""
    names = ["epoch", "train_loss", "loss", "learning_rate"]
    if len(tasks) > 1 and (measured or settings.surgery != "none"):
        names += ["cosine", "conflicts"]
    for name, task in tasks.items():
        own = ["train_loss", "loss"]
        if task.metrics:
            labels = task.validation.labels
            n_classes = labels.shape[1] if labels.ndim > 1 else int(max(labels.max(), task.train.labels.max())) + 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    own += task.metrics(torch.zeros(len(labels), n_classes), labels)
            except Exception:  # a figure that the same answer for all texts has not: the first epoch will tell
                return
        names += [f"{name}.{figure}" if name else figure for figure in own]
    _check_named(settings.metric, dict.fromkeys(names))


def _check_named(metric: str, figures: Mapping[str, Any]) -> None:
    if metric not in figures:
        raise DataError(f"metric {metric!r} is not computed; there are {', '.join(figures)}")


def _which(name: str) -> dict[str, Any]:
    """What tells the model which task is meant; nothing where there is only one."""
    return {"task": name} if name else {}


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _load(model: nn.Module, state: dict[str, Tensor]) -> None:
    model.load_state_dict(state, strict=False)


def _trainable_state(model: nn.Module) -> dict[str, Tensor]:
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def _best_epoch(history: list[dict[str, float]], metric: str) -> int:
    worst = math.inf if metric.endswith("loss") else -math.inf
    values = [worst if math.isnan(row[metric]) else row[metric] for row in history]
    return values.index(min(values) if metric.endswith("loss") else max(values))


def _epochs_since_best(history: list[dict[str, float]], metric: str) -> int:
    return len(history) - 1 - _best_epoch(history, metric) if history else 0


def _save_checkpoint(
    path: Path, model: nn.Module, parts: list[Any], settings: Settings, task: str,
    history: list[dict[str, float]], best: dict[str, Tensor],
) -> None:  # fmt: skip
    every = distributed.gathered(devices.random_states(devices.of(model)))
    if distributed.rank():
        return
    write_checkpoint(path, {
        "model": _trainable_state(model), "parts": [part.state_dict() for part in parts],
        "settings": asdict(settings), "task": task, "history": history, "best": best, "random": every,
    })  # fmt: skip


def _resume(
    path: Path, model: nn.Module, parts: list[Any], settings: Settings, task: str
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    state = read_checkpoint(path, {"model", "parts", "settings", "task", "history", "best", "random"})
    changed = [name for name, value in asdict(settings).items() if state["settings"].get(name) != value]
    if state["task"] != task:
        changed.append("data or model")
    if changed:
        what = ", ".join(changed)
        raise DataError(f"checkpoint {path} was made with other settings ({what}); keep them, or give another folder")
    model.load_state_dict(state["model"], strict=False)
    for part, saved in zip(parts, state["parts"], strict=True):
        if saved:  # a run without float16 leaves nothing for the scaler, which then starts anew
            part.load_state_dict(saved)
    # Another number of processes, or another device, may go on with it.
    devices.restore(state["random"][distributed.rank() % len(state["random"])], devices.of(model))
    return state["history"], state["best"]


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write what a stopped training goes on from, whole; any device can read it.

    Args:
        path: Of the file; its folder is made if missing.
        state: Tensors, plain Python values, and numpy's numbers and arrays, in dictionaries and lists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        torch.save(_plain(devices.on_cpu(dict(state))), temporary)


def _plain(state: Any) -> Any:
    """Nested dictionaries and lists with Python's numbers for numpy's, which `read_checkpoint` refuses."""
    if isinstance(state, dict):
        return {_plain(key): _plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(_plain, state))
    return state.tolist() if isinstance(state, np.generic | np.ndarray) else state


def read_checkpoint(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """What `write_checkpoint` wrote; nothing in the file can run code.

    Args:
        path: Of the file.
        keys: It must have.

    Raises:
        DataError: It is cut off or damaged, or holds something else.
    """
    try:
        # torch writes a sum for each part, and does not look at it again.
        with zipfile.ZipFile(path) as parts:
            damaged = parts.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        damaged = str(error)
    if damaged:
        raise DataError(f"checkpoint {path} is damaged ({damaged}); delete it, and the training begins anew")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = set(keys) - state.keys()
    except OSError:
        raise
    except Exception as error:  # whole, but not of plain values
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"{path} is whole, but no checkpoint that can be read here ({problem}); keep it, and give another folder"
        ) from None
    if missing:
        raise DataError(f"{path} is no checkpoint of this kind of training: {', '.join(sorted(missing))} missing; give "
                        "another folder")  # fmt: skip
    return state


def _task_digest(model: nn.Module, tasks: Mapping[str, Task]) -> str:
    """What besides the settings decides how training goes: the texts, the labels, and the shape of the model."""
    texts = [(name, task.weight, task.train.digest, task.validation.digest) for name, task in tasks.items()]
    shapes = [(name, list(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    return hashlib.sha256(json.dumps([texts, shapes, getattr(model, "pooling", None)]).encode()).hexdigest()

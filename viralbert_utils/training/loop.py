"""One training loop for all lessons: one task or several, decay groups, cosine with warm-up,
batches of like length, stages with frozen layers, checkpoints, resume.

Lesson 02 uses it for one task, lesson 03 for two. Sources: Loshchilov & Hutter 2019 (AdamW) and
2017 (cosine).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from viralbert_utils.base import devices
from viralbert_utils.models.inference import predict_logits
from viralbert_utils.training import processes
from viralbert_utils.training.batches import mixed_batches, prepare
from viralbert_utils.training.checkpoints import (
    copy_state,
    digest_of,
    load_state,
    resume,
    save_checkpoint,
    trainable_state,
)
from viralbert_utils.training.processes import Part
from viralbert_utils.training.settings import (
    Settings,
    Task,
    check_metric_name,
    check_training,
    cosine_with_warmup,
    make_optimisers,
    task_argument,
)
from viralbert_utils.training.surgery import TaskGradients

# Steps between two looks at the losses: each look waits until the device has done all that it was
# given to do.
READ_EVERY = 50


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

    Several processes (`distributed.process_group`) train as one would, each on its part of every
    batch; `loss` must then be a mean in which all texts count alike, which cross-entropy with
    weights of classes is not.

    Args:
        model: Takes `(inputs, attention_mask)`, and the name of the task if there are several;
            gives logits. It trains on the device where it is.
        tasks: One, or several by name: then the model has `heads`, and all outside them is shared.
        settings: See there.
        pad_id: Of the tokenizer.
        checkpoint: File that is written whole after each epoch. If it exists, training goes on from
            it and ends with the same weights as an uninterrupted run (to the bit on a CPU).
        show_progress: A progress bar for each epoch.
        log: Gets a row an update for several tasks: `update`, `cosine` between the first two tasks'
            gradients (nan where only one had texts), and each task's loss.

    Returns:
        A row an epoch: `epoch`, `train_loss`, `loss` (validation; sums over the tasks), the further
        figures, for several tasks each as `task.figure`, with surgery `cosine` (mean) and
        `conflicts` (share of updates in which it is negative), `learning_rate`, `best`.

    Raises:
        ValueError: No text or no epoch, a metric that is not computed.
        DataError: A checkpoint that is damaged or was made with other settings, data or model.
        FloatingPointError: The loss is no longer a number; the message says since which step.
            Losses are looked at every `READ_EVERY` steps.
    """
    return fit_and_keep_last(model, tasks, settings, pad_id, checkpoint, show_progress, log)[0]


def fit_and_keep_last(
    model: nn.Module,
    given: Task | Mapping[str, Task],
    settings: Settings,
    pad_id: int,
    checkpoint: Path | None,
    show_progress: bool,
    log: list[dict[str, float]] | None,
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """See `fit`; the weights after the last epoch besides."""
    tasks = {"": given} if isinstance(given, Task) else dict(given)
    check_training(tasks, settings, log is not None)
    device = devices.of(model)
    dtype = devices.precision(device, settings.precision)
    processes.same_weights(model)
    torch.manual_seed(settings.seed + processes.rank())
    optimisers = make_optimisers(model, settings)
    lengths = {name: task.train.lengths for name, task in tasks.items()}
    n_updates = math.ceil(len(mixed_batches(lengths, settings, 0)) / settings.accumulate)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda step: cosine_with_warmup(
                step, n_updates * settings.epochs, settings.warmup, settings.schedule
            ),
        )
        for optimiser in optimisers
    ]
    # Only float16 needs it: gradients that it would round to zero are made longer, and shorter
    # again before the update.
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    # What is saved and restored with the weights.
    state = [*optimisers, *schedules, scaler]
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    task_digest = digest_of(model, tasks)
    if checkpoint is not None and checkpoint.is_file():
        history, best = resume(checkpoint, model, state, settings, task_digest)
    heads, shared = (
        [
            parameter
            for name, parameter in model.named_parameters()
            if name.startswith("heads.") == private
        ]
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
        hidden = not show_progress or processes.rank() > 0
        n_before = len(rows)
        with tqdm(total=len(plan), desc=name, unit="batch", disable=hidden, leave=False) as bar:
            losses = _train_epoch(
                model,
                tasks,
                plan,
                settings,
                pad_id,
                optimisers,
                schedules,
                gradients,
                rows,
                dtype,
                scaler,
                bar,
            )
        figures: dict[str, float] = {"epoch": epoch + 1, "train_loss": 0.0, "loss": 0.0}
        for name, task in tasks.items():
            part = Part(task.validation)
            logits = part.whole(
                predict_logits(
                    model, part, pad_id, precision=settings.precision, **task_argument(name)
                )
            )
            own = {
                "train_loss": losses[name],
                "loss": float(task.loss(logits, task.validation.labels)),
            }
            for figure in ("train_loss", "loss"):
                figures[figure] += task.weight * own[figure]
            # Plain numbers: what numpy and torch return instead is more than a checkpoint may hold.
            more = task.metrics(logits, task.validation.labels) if task.metrics else {}
            own |= {figure: float(value) for figure, value in more.items()}
            figures |= {
                f"{name}.{figure}" if name else figure: value
                for figure, value in own.items()
                if name or figure not in figures
            }
        cosines = [row["cosine"] for row in rows[n_before:] if not math.isnan(row["cosine"])]
        if cosines:
            figures["cosine"] = sum(cosines) / len(cosines)
            figures["conflicts"] = sum(cosine < 0 for cosine in cosines) / len(cosines)
        figures["learning_rate"] = rate
        check_metric_name(settings.metric, figures)
        history.append(figures)
        if _epochs_since_best(history, settings.metric) == 0:
            best = copy_state(trainable_state(model))
        if checkpoint is not None:
            save_checkpoint(checkpoint, model, state, settings, task_digest, history, best)
    final = copy_state(trainable_state(model))
    load_state(model, best)
    table = pd.DataFrame(history)
    table["best"] = table.index == _best_epoch(history, settings.metric)
    return table, final


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
                raise FloatingPointError(
                    f"the loss is {value} at step {step}; lower the learning rate"
                )
            self.totals[task] = self.totals.get(task, 0.0) + value * n_texts
            self.n_texts[task] = self.n_texts.get(task, 0) + n_texts
            self._row[f"{task}.loss"] = value
        self.waiting = []


def _train_epoch(
    model: nn.Module,
    tasks: Mapping[str, Task],
    plan: list[list[tuple[str, list[int]]]],
    settings: Settings,
    pad_id: int,
    optimisers: list[torch.optim.Optimizer],
    schedules: list[Any],
    gradients: TaskGradients,
    log: list[dict[str, float]],
    dtype: torch.dtype,
    scaler: torch.amp.GradScaler,
    bar: tqdm,
) -> dict[str, float]:
    """Mean training loss of each task, taken while the weights still move."""
    # from_pretrained gives a model in evaluation mode: without this line there is no dropout at
    # all.
    model.train()
    stop_dropout(model)
    device = devices.of(model)
    # Word vectors with sparse gradients are left out of the norm; their optimiser does not depend
    # on the scale.
    parameters = [p for group in optimisers[0].param_groups for p in group["params"]]
    readings = _Readings()
    prepared = devices.ahead((partial(prepare, tasks, batch, pad_id) for batch in plan), device)
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
                    logits = model(inputs, mask, **task_argument(name))
                # The sum over the processes is then the mean over the texts, also where their parts
                # differ in size.
                value = task.loss(logits.float(), labels) * (len(labels) / len(positions))
            readings.loss(step, name, len(positions), processes.total(value.detach()))
            share = scaler.scale(task.weight * value / in_group)
            # A backward pass over the task's own texts: no graph is kept, nothing is computed
            # twice.
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
    return {
        name: readings.totals.get(name, 0.0) / max(1, readings.n_texts.get(name, 0))
        for name in tasks
    }


def _best_epoch(history: list[dict[str, float]], metric: str) -> int:
    worst = math.inf if metric.endswith("loss") else -math.inf
    values = [worst if math.isnan(row[metric]) else row[metric] for row in history]
    return values.index(min(values) if metric.endswith("loss") else max(values))


def _epochs_since_best(history: list[dict[str, float]], metric: str) -> int:
    return len(history) - 1 - _best_epoch(history, metric) if history else 0


def stop_dropout(model: nn.Module) -> None:
    """Turn off dropout in parts that do not learn, so that they give the same vectors in each
    epoch."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()

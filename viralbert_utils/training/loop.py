"""One training loop for all lessons: tasks, surgery, schedules, checkpoints, resume.

Lesson 02 uses it for one task, lesson 03 for two. Sources: Loshchilov & Hutter 2019 (AdamW) and
2017 (cosine).
"""

from __future__ import annotations

import logging
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
from viralbert_utils.training.readings import READ_EVERY, Readings
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

Row = dict[str, float]
_log = logging.getLogger("viralbert.training")


def fit(
    model: nn.Module,
    tasks: Task | Mapping[str, Task],
    settings: Settings,
    pad_id: int = 0,
    checkpoint: Path | None = None,
    show_progress: bool = False,
    log: list[Row] | None = None,
) -> pd.DataFrame:
    """Train, and leave the model with the weights of its best epoch.

    Several processes (`processes.process_group`) train as one would, each on its part of every
    batch; `loss` must then be a mean in which all texts count alike, which cross-entropy with
    weights of classes is not.

    Args:
        model: Takes `(inputs, attention_mask)`, and the name of the task if there are several;
            gives logits. It trains on the device where it is.
        tasks: One, or several by name: then the model has `heads`, and all outside them is shared.
        settings: How to train, and which epoch's weights to keep.
        pad_id: The tokenizer's id of padding.
        checkpoint: File that is written whole after each epoch. If it exists, training goes on from
            it and ends with the same weights as an uninterrupted run (to the bit on a CPU).
        show_progress: Whether each epoch has a progress bar.
        log: Gets one row per update for several tasks: `update`, `cosine` between the first two
            tasks' gradients (nan where only one had texts), and each task's loss.

    Returns:
        One row per epoch: `epoch`, `train_loss`, `loss` (validation), the further figures,
        `learning_rate`, `best`. With several tasks the losses are sums over the tasks, and each
        figure of a task is named `task.figure`. With surgery there are `cosine` (mean) and
        `conflicts` (share of updates in which it is negative).

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
    log: list[Row] | None,
    stage: str = "",
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Train as `fit` does, and give the weights after the last epoch besides.

    `stage` names the part of a longer training before the number of each epoch.
    """
    tasks = {"": given} if isinstance(given, Task) else dict(given)
    check_training(tasks, settings, log is not None)
    processes.same_weights(model)
    torch.manual_seed(settings.seed + processes.rank())
    training = _Training(model, tasks, settings, pad_id, log is not None, stage)
    history: list[Row] = []
    best: dict[str, Tensor] = {}
    task_digest = digest_of(model, tasks)
    if checkpoint is not None and checkpoint.is_file():
        history, best = resume(checkpoint, model, training.parts, settings, task_digest)
    updates = log if log is not None else []
    for epoch in range(len(history), settings.epochs):
        if settings.patience and _epochs_since_best(history, settings) >= settings.patience:
            break
        rate = training.learning_rate
        n_before = len(updates)
        losses = training.run_epoch(epoch, updates, show_progress)
        figures = training.evaluate(epoch, losses)
        figures |= _conflicts(updates[n_before:])
        figures["learning_rate"] = rate
        check_metric_name(settings.metric, figures)
        history.append(figures)
        told = training.title(epoch), figures["train_loss"], figures["loss"]
        _log.info("%s: training loss %.4f, validation loss %.4f", *told)
        if _epochs_since_best(history, settings) == 0:
            best = copy_state(trainable_state(model))
        if checkpoint is not None:
            save_checkpoint(checkpoint, model, training.parts, settings, task_digest, history, best)
    final = copy_state(trainable_state(model))
    load_state(model, best)
    table = pd.DataFrame(history)
    table["best"] = table.index == _best_epoch(history, settings)
    return table, final


def stop_dropout(model: nn.Module) -> None:
    """Turn off dropout in parts that do not learn: their vectors are the same in each epoch."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


class _Training:
    """A model with its tasks and all that moves its weights."""

    def __init__(
        self,
        model: nn.Module,
        tasks: dict[str, Task],
        settings: Settings,
        pad_id: int,
        measure: bool,
        stage: str = "",
    ) -> None:
        self.stage = stage
        self.model, self.tasks, self.settings, self.pad_id = model, tasks, settings, pad_id
        self.device = devices.of(model)
        self.dtype = devices.precision(self.device, settings.precision)
        self.lengths = {name: task.train.lengths for name, task in tasks.items()}
        self.optimisers = make_optimisers(model, settings)
        n_steps = len(mixed_batches(self.lengths, settings, 0))
        n_updates = math.ceil(n_steps / settings.accumulate) * settings.epochs

        def rate_factor(step: int) -> float:
            return cosine_with_warmup(step, n_updates, settings.warmup, settings.schedule)

        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimiser, rate_factor)
            for optimiser in self.optimisers
        ]
        # Only float16 needs it: gradients that it would round to zero are made longer, and shorter
        # again before the update.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        named = list(model.named_parameters())
        heads = [parameter for name, parameter in named if name.startswith("heads.")]
        shared = [parameter for name, parameter in named if not name.startswith("heads.")]
        self.gradients = TaskGradients(shared, list(tasks), settings.surgery, measure, heads)

    @property
    def parts(self) -> list[Any]:
        """What is saved and restored with the weights."""
        return [*self.optimisers, *self.schedules, self.scaler]

    @property
    def learning_rate(self) -> float:
        """The encoder's rate for the next update."""
        return float(self.schedules[0].get_last_lr()[0])

    def title(self, epoch: int) -> str:
        """What an epoch is called where people watch."""
        return f"{self.stage and f'{self.stage}, '}epoch {epoch + 1}/{self.settings.epochs}"

    def run_epoch(self, epoch: int, log: list[Row], show_progress: bool) -> dict[str, float]:
        """Train for one epoch; mean loss of each task, taken while the weights still move."""
        # from_pretrained gives a model in evaluation mode: without this line there is no dropout
        # at all.
        self.model.train()
        stop_dropout(self.model)
        plan = mixed_batches(self.lengths, self.settings, epoch)
        accumulate = self.settings.accumulate
        readings = Readings()
        prepared = devices.ahead(
            (partial(prepare, self.tasks, batch, self.pad_id) for batch in plan), self.device
        )
        title = self.title(epoch)
        hidden = not show_progress or processes.rank() > 0
        with tqdm(total=len(plan), desc=title, unit="batch", disable=hidden, leave=False) as bar:
            for step, (batch, inputs) in enumerate(zip(plan, prepared, strict=True), 1):
                # The mean over the steps of the group; the last group of an epoch may hold fewer.
                group_start = (step - 1) // accumulate * accumulate
                in_group = min(accumulate, len(plan) - group_start)
                for (task, positions), tensors in zip(batch, inputs, strict=True):
                    loss = self._backward(task, tensors, len(positions), in_group)
                    readings.loss(step, task, len(positions), loss)
                if step % accumulate == 0 or step == len(plan):
                    readings.update(step, self._update())
                if step % READ_EVERY == 0:
                    readings.read()
                bar.update()
        readings.read()
        log.extend({"update": len(log) + n} | row for n, row in enumerate(readings.rows, 1))
        return readings.means(self.tasks)

    def _backward(self, name: str, inputs: tuple, n_texts: int, in_group: int) -> Tensor:
        """Add to the gradient of a task; the mean loss of its texts in all processes' batch.

        Args:
            name: The task.
            inputs: What this process has of its texts: input, mask and labels, or nothing.
            n_texts: How many texts all processes have.
            in_group: Steps that are averaged for one update.
        """
        task = self.tasks[name]
        value = torch.zeros((), device=self.device)
        if inputs:
            ids, mask, labels = inputs
            with devices.computing(self.device, self.dtype):
                logits = self.model(ids, mask, **task_argument(name))
            # The sum over the processes is then the mean over the texts, also where their parts
            # differ in size.
            value = task.loss(logits.float(), labels) * (len(labels) / n_texts)
        mean = processes.total(value.detach())
        # A backward pass over the task's own texts: no graph is kept, nothing is computed twice.
        with self.gradients.of(name):
            if inputs:
                self.scaler.scale(task.weight * value / in_group).backward()
        return mean

    def _update(self) -> Tensor | None:
        """Move the weights; the cosine between the first two tasks' gradients, if it is known."""
        cosine = self.gradients.combine()
        for optimiser in self.optimisers:
            self.scaler.unscale_(optimiser)
        if self.settings.clip_norm:
            # Word vectors with sparse gradients are left out of the norm; their optimiser does not
            # depend on the scale.
            groups = self.optimisers[0].param_groups
            parameters = [parameter for group in groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        for optimiser, schedule in zip(self.optimisers, self.schedules, strict=True):
            self.scaler.step(optimiser)
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
        self.scaler.update()
        return cosine

    def evaluate(self, epoch: int, train_losses: Mapping[str, float]) -> Row:
        """The figures of an epoch that training and validation texts give."""
        figures: Row = {"epoch": epoch + 1, "train_loss": 0.0, "loss": 0.0}
        for name, task in self.tasks.items():
            part, labels = Part(task.validation), task.validation.labels
            logits = part.whole(
                predict_logits(
                    self.model,
                    part,
                    self.pad_id,
                    precision=self.settings.precision,
                    **task_argument(name),
                )
            )
            losses = {"train_loss": train_losses[name], "loss": float(task.loss(logits, labels))}
            for figure, value in losses.items():
                figures[figure] += task.weight * value
            more = task.metrics(logits, labels) if task.metrics else {}
            for figure, value in (losses | more).items():
                # A plain number: what numpy and torch return is more than a checkpoint may hold.
                if name:  # several tasks: each has columns of its own
                    figures[f"{name}.{figure}"] = float(value)
                else:
                    figures.setdefault(figure, float(value))
        return figures


def _conflicts(updates: list[Row]) -> Row:
    """How often, and how far, the gradients of two tasks have pulled apart; empty if unknown."""
    cosines = [row["cosine"] for row in updates if not math.isnan(row["cosine"])]
    if not cosines:
        return {}
    return {
        "cosine": sum(cosines) / len(cosines),
        "conflicts": sum(cosine < 0 for cosine in cosines) / len(cosines),
    }


def _best_epoch(history: list[Row], settings: Settings) -> int:
    """Position of the epoch whose weights are kept."""
    if settings.keep == "last":
        return len(history) - 1
    small_is_good = settings.metric.endswith("loss")
    worst = math.inf if small_is_good else -math.inf
    values = [row[settings.metric] for row in history]
    values = [worst if math.isnan(value) else value for value in values]
    return values.index(min(values) if small_is_good else max(values))


def _epochs_since_best(history: list[Row], settings: Settings) -> int:
    return len(history) - 1 - _best_epoch(history, settings) if history else 0

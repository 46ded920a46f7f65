"""Training in stages: first the heads alone, then more and more layers of the encoder.

Lesson 03 runs the published recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from torch import Tensor, nn

from viralbert_utils.lessons import frozen
from viralbert_utils.training import processes
from viralbert_utils.training.checkpoints import copy_state, load_state, trainable_state
from viralbert_utils.training.loop import fit_and_keep_last
from viralbert_utils.training.settings import Settings, Task, check_training


@dataclass(frozen=True)
class Stage:
    """A part of a training with its own trainable layers, learning rate and warm-up.

    Attributes:
        settings: How this stage trains.
        top_layers: Layers of the encoder that train, from the top; 0 = none of it, `None` = all.
    """

    settings: Settings
    top_layers: int | None = None


# The published recipe: heads at 2e-5, then heads and the top two layers at a tenth of it, with a
# warm-up of 500 updates in each stage.
VIRALBERT_V2 = (
    Stage(Settings(epochs=2, learning_rate=2e-5, warmup=500, surgery="pcgrad"), top_layers=0),
    Stage(Settings(epochs=3, learning_rate=2e-6, warmup=500, surgery="pcgrad"), top_layers=2),
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
    """Train stage after stage, each from where the last one ended, and leave the model with its
    best epoch's weights.

    Args:
        model: A classifier of `models`.
        tasks: See `fit`; texts as `Encoded`.
        stages: In their order; all have the same `metric`.
        pad_id: The tokenizer's id of padding.
        folder: For checkpoints, one a stage, so that a stopped training goes on.
        cached: Compute frozen layers once and train on what they gave (`frozen.cache`); the result
            is the same.
        cache_folder: Where that is kept for other trainings of the same texts; without it, it is
            removed at the end.
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
        check_training(tasks, stage.settings, log is not None)
    processes.same_weights(model)  # before the lower layers do their work
    with nullcontext(cache_folder) if cache_folder else TemporaryDirectory() as own_scratch:
        scratch = processes.from_first(own_scratch)
        for number, stage in enumerate(stages, 1):
            frozen.freeze(model, stage.top_layers)
            start = copy_state(trainable_state(model)) | start
            checkpoint = folder / f"stage{number}.pt" if folder else None
            trained, stage_tasks = model, tasks
            if cached and stage.top_layers is not None:
                trained = frozen.upper_classifier(model, stage.top_layers)
                stage_tasks = _cached(model, tasks, stage, Path(scratch), pad_id, cache_gib)
            table, final = fit_and_keep_last(
                trained,
                stage_tasks,
                stage.settings,
                pad_id,
                checkpoint,
                show_progress,
                log,
                f"stage {number}/{len(stages)}" if len(stages) > 1 else "",
            )
            figures = table[stage.settings.metric]
            value = figures.min() if stage.settings.metric.endswith("loss") else -figures.max()
            if value < best_value or stage.settings.keep == "last":
                best_value = float(value)
                best = copy_state(trainable_state(model))
                tables = [earlier.assign(best=False) for earlier in tables]
            else:
                table["best"] = False
            tables.append(table.assign(stage=number))
            load_state(trained, final)
    final = copy_state(
        {name: tensor for name, tensor in model.state_dict().items() if name in start}
    )
    # Layers that were still frozen in the best epoch go back to where they started.
    load_state(model, start | best)
    return pd.concat(tables, ignore_index=True), final


def _cached(
    model: nn.Module,
    tasks: Mapping[str, Task],
    stage: Stage,
    folder: Path,
    pad_id: int,
    limit_gib: float,
) -> dict[str, Task]:
    cached_tasks = {}
    top_layers = stage.top_layers or 0
    options: dict[str, Any] = {
        "weights": frozen.digest(model, top_layers),
        "precision": stage.settings.precision,
    }
    for name, task in tasks.items():
        with processes.first_alone():
            train, validation = (
                frozen.cache(model, part, top_layers, folder, pad_id, limit_gib, **options)
                for part in (task.train, task.validation)
            )
        cached_tasks[name] = replace(task, train=train, validation=validation)
    return cached_tasks

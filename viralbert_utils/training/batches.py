"""The batches that an epoch draws: of like length, of one task or several."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from itertools import pairwise

from viralbert_utils.training import processes
from viralbert_utils.training.settings import SAMPLINGS, Settings, Task, check_sampling


def mixed_batches(
    lengths: Mapping[str, Sequence[int]], settings: Settings, epoch: int
) -> list[list[tuple[str, list[int]]]]:
    """Positions of each batch of one epoch, for each task.

    Texts are shuffled, then sorted by length within stretches of `bucket` batches, so that a task's
    part of a batch holds texts of like length and padding costs next to nothing; the order of the
    batches is random again.

    Args:
        lengths: Task -> tokens of each of its texts.
        settings: Batch size, bucket, seed, sampling.
        epoch: From 0; another epoch is another order.

    Returns:
        For each batch the tasks that have a part in it, with positions; at most `batch_size` in
        all, rounded up for each task. In `proportional` sampling each position stands in exactly
        one batch.

    Raises:
        ValueError: An unknown sampling.
    """
    check_sampling(settings.sampling)
    power = SAMPLINGS[settings.sampling]
    n_texts = sum(map(len, lengths.values()))
    shares = {task: len(text_lengths) ** power for task, text_lengths in lengths.items()}
    n_batches = math.ceil(n_texts / settings.batch_size)
    batches: list[list[tuple[str, list[int]]]] = [[] for _ in range(n_batches)]
    for number, (task, text_lengths) in enumerate(lengths.items()):
        rng = random.Random(f"{settings.seed} {epoch} {number}")
        n_drawn = round(n_texts * shares[task] / sum(shares.values()))
        order = _drawn(len(text_lengths), n_drawn, epoch, settings.seed)
        bounds = [n_drawn * step // n_batches for step in range(n_batches + 1)]
        if settings.bucket:
            cuts = [*bounds[:: settings.bucket], n_drawn]
            buckets = [sorted(order[i:j], key=text_lengths.__getitem__) for i, j in pairwise(cuts)]
            order = [position for bucket in buckets for position in bucket]
        parts = [order[i:j] for i, j in pairwise(bounds)]
        rng.shuffle(parts)
        for step, positions in zip(batches, parts, strict=True):
            if positions:
                step.append((task, positions))
    return [step for step in batches if step]


def _drawn(n_texts: int, n_drawn: int, epoch: int, seed: int) -> list[int]:
    """`n_drawn` positions: shuffled texts without end, from where the last epoch stopped."""
    first = epoch * n_drawn
    positions: list[int] = []
    for turn in range(first // n_texts, (first + n_drawn - 1) // n_texts + 1):
        order = list(range(n_texts))
        random.Random(f"{seed} {turn}").shuffle(order)
        positions += order
    return positions[first % n_texts :][:n_drawn]


def prepare(tasks: Mapping[str, Task], batch: list[tuple[str, list[int]]], pad_id: int) -> tuple:
    """This process's part of a batch: for each task input, mask and labels, or nothing."""
    inputs = []
    for name, positions in batch:
        texts, part = tasks[name].train, processes.part(positions)
        inputs.append((*texts.batch(part, pad_id), texts.labels[part]) if part else ())
    return tuple(inputs)

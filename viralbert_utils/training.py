"""One training loop for all lessons: decay groups, cosine with warm-up, batches of like length, checkpoints, resume.

Lesson 02 uses it for one task. Sources: Loshchilov & Hutter 2019 (AdamW) and 2017 (cosine).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from viralbert_utils.encoders import pad
from viralbert_utils.models import predict_logits

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Encoded:
    """Texts ready for training: token ids, and labels `(n_texts, n_classes)` (0/1) or `(n_texts,)` (class ids)."""

    rows: list[list[int]]
    labels: Tensor

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.rows)


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
        warmup: Share of the updates in which the rate rises from zero.
        accumulate: Steps whose gradients are averaged for one update.
        clip_norm: Gradients of a larger norm are shortened to it; 0 = never.
        patience: Stop after so many epochs without a better figure; 0 = never.
        metric: Column of the history that decides which epoch is best; `loss` is best when small, all else when large.
        seed: Order of batches and dropout.
        bucket: Batches that are sorted by length together; 0 = no sorting.
        bf16: Compute in bfloat16 where the device is a GPU that has it.
    """

    epochs: int = 3
    batch_size: int = 16
    learning_rate: float = 2e-5
    head_factor: float = 1.0
    embedding_factor: float = 1.0
    weight_decay: float = 0.01
    warmup: float = 0.1
    accumulate: int = 1
    clip_norm: float = 1.0
    patience: int = 0
    metric: str = "loss"
    seed: int = 0
    bucket: int = 50
    bf16: bool = True


def cross_entropy(weight: Tensor | None = None) -> Loss:
    """Mean cross-entropy of one label a text; texts of a class count as much as its `weight` `(n_classes,)` says."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, weight=None if weight is None else weight.to(logits.device))

    return loss


def binary_cross_entropy(pos_weight: Tensor | None = None) -> Loss:
    """Mean binary cross-entropy over texts and classes; errors on positives weighted by `pos_weight` `(n_classes,)`."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        weight = None if pos_weight is None else pos_weight.to(logits.device)
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weight)

    return loss


def batches(lengths: Sequence[int], batch_size: int, bucket: int, seed: int) -> list[list[int]]:
    """Positions of each batch, for one epoch.

    Texts are shuffled, then sorted by length within stretches of `bucket` batches, so that a batch holds texts of like
    length and padding costs next to nothing; the order of the batches is random again.

    Returns:
        Lists of at most `batch_size` positions; each position stands in exactly one.
    """
    rng = random.Random(seed)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    if bucket:
        size = bucket * batch_size
        stretches = [sorted(order[i : i + size], key=lambda p: lengths[p]) for i in range(0, len(order), size)]
        order = [position for stretch in stretches for position in stretch]
    found = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(found)
    return found


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
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(found, lr=settings.learning_rate)]
    if sparse:
        optimisers.append(torch.optim.SparseAdam(sparse, lr=settings.learning_rate * settings.embedding_factor))
    return optimisers


def cosine_with_warmup(step: int, n_steps: int, warmup: float) -> float:
    """Factor of the learning rate for update `step` (from 0): linear rise, then half a cosine down to zero."""
    n_warm = max(1, round(warmup * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1, n_steps - n_warm)))


def fit(
    model: nn.Module,
    train: Encoded,
    validation: Encoded,
    loss: Loss,
    settings: Settings,
    pad_id: int = 0,
    metrics: Callable[[Tensor, Tensor], dict[str, float]] | None = None,
    checkpoint: Path | None = None,
    show_progress: bool = False,
) -> pd.DataFrame:
    """Train, and leave the model with the weights of its best epoch.

    Args:
        model: Takes `(input_ids, attention_mask)`, gives logits; moved to the GPU if there is one.
        train: Training texts.
        validation: Decides on the best epoch, so it is no test.
        loss: Mean loss of a batch from logits and labels.
        settings: See there.
        pad_id: Of the tokenizer.
        metrics: Further figures of the validation logits `(n_texts, n_classes)` and labels.
        checkpoint: File that is written whole after each epoch. If it exists, training goes on from it and ends with
            the same weights as an uninterrupted run (to the bit on a CPU).
        show_progress: A progress bar for each epoch.

    Returns:
        A row an epoch: `epoch`, `train_loss`, `loss` (validation), the further figures, `learning_rate`, `best`.

    Raises:
        ValueError: No text or no epoch, a metric that is not computed, a checkpoint that is damaged or was made with
            other settings, data or model.
        FloatingPointError: The loss is no longer a number; the message says at which step.
    """
    if not len(train) or not len(validation) or settings.epochs < 1:
        n_texts = f"{len(train)} training and {len(validation)} validation texts"
        raise ValueError(f"nothing to do with {n_texts} and {settings.epochs} epochs; each must be at least 1")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    torch.manual_seed(settings.seed)
    optimisers = make_optimisers(model, settings)
    n_updates = math.ceil(math.ceil(len(train) / settings.batch_size) / settings.accumulate)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: cosine_with_warmup(step, n_updates * settings.epochs, settings.warmup)
        )
        for optimiser in optimisers
    ]
    # What is saved and restored with the weights.
    state = [*optimisers, *schedules]
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    task = _task_digest(model, train, validation)
    if checkpoint is not None and checkpoint.is_file():
        history, best = _resume(checkpoint, model, state, settings, task)
    lengths = [len(row) for row in train.rows]
    for epoch in range(len(history), settings.epochs):
        if settings.patience and _epochs_since_best(history, settings.metric) >= settings.patience:
            break
        plan = batches(lengths, settings.batch_size, settings.bucket, seed=settings.seed * 1000 + epoch)
        rate = float(schedules[0].get_last_lr()[0])
        name = f"epoch {epoch + 1}/{settings.epochs}"
        steps = tqdm(plan, desc=name, unit="batch", disable=not show_progress, leave=False)
        train_loss = _train_epoch(model, train, steps, loss, settings, pad_id, optimisers, schedules, device)
        logits = predict_logits(model, validation.rows, pad_id)
        figures: dict[str, float] = {
            "epoch": epoch + 1,
            "train_loss": train_loss,
            "loss": float(loss(logits, validation.labels)),
        }
        figures |= metrics(logits, validation.labels) if metrics else {}
        figures["learning_rate"] = rate
        if settings.metric not in figures:
            raise ValueError(f"metric {settings.metric!r} is not computed; there are {', '.join(figures)}")
        history.append(figures)
        if _epochs_since_best(history, settings.metric) == 0:
            best = {name: tensor.detach().cpu().clone() for name, tensor in _trainable_state(model).items()}
        if checkpoint is not None:
            _save_checkpoint(checkpoint, model, state, settings, task, history, best)
    model.load_state_dict({name: tensor.to(device) for name, tensor in best.items()}, strict=False)
    table = pd.DataFrame(history)
    table["best"] = table.index == _best_epoch(history, settings.metric)
    return table


def _train_epoch(
    model: nn.Module, train: Encoded, plan: Any, loss: Loss, settings: Settings, pad_id: int,
    optimisers: list[torch.optim.Optimizer], schedules: list[Any], device: torch.device,
) -> float:  # fmt: skip
    # from_pretrained gives a model in evaluation mode: without this line there is no dropout at all.
    model.train()
    use_bf16 = settings.bf16 and device.type == "cuda" and torch.cuda.is_bf16_supported()
    # Word vectors with sparse gradients are left out of the norm; their optimiser does not depend on the scale.
    parameters = [p for group in optimisers[0].param_groups for p in group["params"]]
    total, seen, n_steps = 0.0, 0, len(plan)
    for step, positions in enumerate(plan, 1):
        ids, mask = pad([train.rows[p] for p in positions], pad_id)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16):
            value = loss(model(ids.to(device), mask.to(device)), train.labels[positions].to(device))
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss is {value.item()} at step {step}; lower the learning rate")
        # The mean over the steps of the group; the last group of an epoch may hold fewer.
        group_start = (step - 1) // settings.accumulate * settings.accumulate
        in_group = min(settings.accumulate, n_steps - group_start)
        (value / in_group).backward()
        if step % settings.accumulate == 0 or step == n_steps:
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            for optimiser, schedule in zip(optimisers, schedules, strict=True):
                optimiser.step()
                schedule.step()
                optimiser.zero_grad(set_to_none=True)
        total += float(value.detach()) * len(positions)
        seen += len(positions)
    return total / seen


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    state = {
        "model": _trainable_state(model), "parts": [part.state_dict() for part in parts],
        "settings": asdict(settings), "task": task, "history": history, "best": best, "random": torch.get_rng_state(),
    }  # fmt: skip
    if torch.cuda.is_available():
        state["random_cuda"] = torch.cuda.get_rng_state()
    torch.save(state, temporary)
    temporary.replace(path)


def _resume(
    path: Path, model: nn.Module, parts: list[Any], settings: Settings, task: str
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # cut off, or no checkpoint at all
        raise ValueError(f"checkpoint {path} is damaged ({type(error).__name__}); delete it") from None
    changed = [name for name, value in asdict(settings).items() if state["settings"].get(name) != value]
    if state["task"] != task:
        changed.append("data or model")
    if changed:
        what = ", ".join(changed)
        raise ValueError(f"checkpoint {path} was made with other settings ({what}); delete it or keep them")
    model.load_state_dict(state["model"], strict=False)
    for part, saved in zip(parts, state["parts"], strict=True):
        part.load_state_dict(saved)
    torch.set_rng_state(state["random"])
    if "random_cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random_cuda"])
    return state["history"], state["best"]


def _task_digest(model: nn.Module, train: Encoded, validation: Encoded) -> str:
    """What besides the settings decides how training goes: the texts, the labels, and the shape of the model."""
    digest = hashlib.sha256()
    for part in (train, validation):
        digest.update(json.dumps(part.rows).encode())
        digest.update(part.labels.cpu().numpy().tobytes())
    shapes = [(name, list(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    digest.update(json.dumps([shapes, getattr(model, "pooling", None)]).encode())
    return digest.hexdigest()

"""ViralBERT v2's whole recipe on an encoder of ruBert-base's shape: done plainly, and as the course
does it.

    .venv/bin/python benchmarks/recipe.py [data folder] [n texts]

Five epochs on real texts: heads on a frozen encoder, then the top two layers. Plainly: every batch
padded to 128 tokens, the whole encoder in every epoch, one backward pass over the whole batch for
each task. The course: frozen layers once, batches of like length, half passes. Same batches, same
settings, dropout off in frozen layers for both. The encoder has random weights: time does not
depend on them.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import surgery as task
import torch
from torch import Tensor, nn

from viralbert_utils.base import devices
from viralbert_utils.lessons import frozen
from viralbert_utils.lessons.stages import VIRALBERT_V2, Stage, fit_stages
from viralbert_utils.models.classifiers import MultiTaskClassifier
from viralbert_utils.training import loop, losses, surgery
from viralbert_utils.training.batches import mixed_batches
from viralbert_utils.training.settings import Encoded, Task, cosine_with_warmup, make_optimisers

WARMUP = 0.1  # the published 500 updates are more than these few texts give


def evaluate(model: MultiTaskClassifier, tasks: dict[str, Task]) -> float:
    """Sum of the validation losses, texts padded to 128."""
    model.eval()
    total = 0.0
    with torch.inference_mode():
        for name, own in tasks.items():
            part = own.validation
            chunks = [range(i, min(i + 16, len(part))) for i in range(0, len(part), 16)]
            device = devices.of(model)
            batches = (devices.to(padded(part, list(chunk)), device) for chunk in chunks)
            logits = torch.cat([model(*batch, name) for batch in batches]).cpu()
            total += float(own.loss(logits, part.labels))
    return total


def padded(texts: Encoded, positions: list[int]) -> tuple[Tensor, Tensor]:
    """A batch padded to 128 tokens."""
    ids, mask = texts.batch(positions, 0)
    extra = (0, task.MAX_LENGTH - ids.shape[1])
    return nn.functional.pad(ids, extra), nn.functional.pad(mask, extra)


def plainly(model: MultiTaskClassifier, tasks: dict[str, Task], stages: list[Stage]) -> float:
    """The recipe without any of the three; returns the last validation loss."""
    loss = 0.0
    for stage in stages:
        settings = stage.settings
        frozen.freeze(model, stage.top_layers)
        torch.manual_seed(settings.seed)
        optimiser = make_optimisers(model, settings)[0]
        lengths = {name: own.train.lengths for name, own in tasks.items()}
        plans = [mixed_batches(lengths, settings, epoch) for epoch in range(settings.epochs)]
        n_steps = sum(map(len, plans))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step, n=n_steps: cosine_with_warmup(step, n, WARMUP)
        )
        shared = [p for name, p in model.named_parameters() if not name.startswith("heads.")]
        gradients = surgery.TaskGradients(shared, list(tasks), "pcgrad")
        for plan in plans:
            for batch in plan:
                model.train()
                loop.stop_dropout(model)
                device = devices.of(model)
                parts = [
                    devices.to(padded(tasks[name].train, positions), device)
                    for name, positions in batch
                ]
                vectors = model.vectors(*(torch.cat(part) for part in zip(*parts, strict=True)))
                found, start = [], 0
                for name, positions in batch:
                    logits = model.heads[name](vectors[start : start + len(positions)])
                    found.append(
                        tasks[name].loss(logits, tasks[name].train.labels[positions].to(device))
                    )
                    start += len(positions)
                for (name, _), value in zip(batch, found, strict=True):
                    with gradients.of(name):
                        value.backward(retain_graph=True)
                gradients.combine()
                nn.utils.clip_grad_norm_(
                    [p for p in model.parameters() if p.requires_grad], settings.clip_norm
                )
                optimiser.step()
                schedule.step()
                optimiser.zero_grad()
            loss = evaluate(model, tasks)
    return loss


def main() -> None:
    """Print seconds, their ratio, and both validation losses."""
    source = sys.argv[1] if len(sys.argv) > 1 else "sample"
    n_texts = int(sys.argv[2]) if len(sys.argv) > 2 else 160
    tokenizer = task.make_model("embedded")[1]
    texts = task.load_texts(source, n_texts + n_texts // 3, tokenizer)
    tasks = {}
    for name, part in texts.items():
        cut = len(part) * 3 // 4
        tasks[name] = Task(
            Encoded(part.rows[:cut], part.labels[:cut]),
            Encoded(part.rows[cut:], part.labels[cut:]),
            losses.binary_cross_entropy(),
        )
    stages = [
        replace(stage, settings=replace(stage.settings, warmup=WARMUP)) for stage in VIRALBERT_V2
    ]
    results = {}
    for name in ("plainly", "the course"):
        model = task.make_model("ruBert-base", "cls")[0]
        start = time.perf_counter()
        if name == "plainly":
            loss = plainly(model, tasks, stages)
        else:
            history, _ = fit_stages(model, tasks, stages)
            loss = history["loss"].iloc[-1]
        results[name] = (time.perf_counter() - start, loss)
        print(f"{name}: {results[name][0]:.1f} s, validation loss {loss:.4f}", flush=True)
    sizes = {name: len(own.train) for name, own in tasks.items()}
    tokens = sum(sum(own.train.lengths) for own in tasks.values()) / sum(sizes.values())
    (slow, one), (fast, other) = results["plainly"], results["the course"]
    print(
        f"{source}: {sizes} training texts of {tokens:.1f} tokens, batch 16, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"ratio {slow / fast:.1f}, validation loss {100 * abs(one - other) / one:.2f} % apart")


if __name__ == "__main__":
    main()

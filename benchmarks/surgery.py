"""What a step with PCGrad costs: ours, torchjd's `mtl_backward`, two whole backward passes, beside
a plain joint step.

    .venv/bin/python benchmarks/surgery.py [data folder] [shape]          # shape: embedded
    (default) or ruBert-base .venv/bin/python benchmarks/surgery.py [data folder] [shape] memory   #
    peak memory instead

Batches of 64 real texts, as many of each task as there are; layers and heads train, word vectors do
not. All variants take the same batches in turn; the optimiser is left out, since it is the same for
all. The ruBert-base shape has random weights: time does not depend on them. Device and precision
are those of `devices`: a GPU if there is one.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchjd.aggregation import PCGrad
from torchjd.autojac import jac_to_grad, mtl_backward
from transformers import BertConfig, BertModel

from viralbert_utils.base import devices, tokens
from viralbert_utils.data import cleaning, emotions, sources
from viralbert_utils.encoders import loading
from viralbert_utils.models import classifiers
from viralbert_utils.models.classifiers import MultiTaskClassifier
from viralbert_utils.training import batches, surgery
from viralbert_utils.training.settings import Encoded, Settings

BATCH, TURNS, MAX_LENGTH = 64, 5, 128
Batch = list[tuple[str, list[int]]]


def load_texts(source: str, n_texts: int, tokenizer: Any) -> dict[str, Encoded]:
    """The first texts of both tasks, in proportion to how many there are."""
    found = {}
    tables = {}
    for task in ("virality", "emotions"):
        rules = cleaning.RULES[task] | {"near_threshold": 2}
        tables[task] = next(
            iter(cleaning.clean(sources.load(task, source), **rules).splits.values())
        )
    total = sum(map(len, tables.values()))
    for task, table in tables.items():
        part = table.head(max(1, round(n_texts * len(table) / total)))
        hot = (
            emotions.multi_hot(part["labels"])
            if task == "emotions"
            else part[["label"]].to_numpy(dtype=int)
        )
        rows = tokens.encode(tokenizer, list(part["text"]), MAX_LENGTH)
        found[task] = Encoded(rows, torch.tensor(hot).float())
    return found


def make_model(shape: str, pooling: str = "mean") -> tuple[MultiTaskClassifier, Any]:
    """The embedded encoder, or one of ruBert-base's shape with its vocabulary; and the tokenizer
    that made the rows."""
    tokenizer, encoder = loading.load_encoder("embedded")
    torch.manual_seed(0)
    if shape == "ruBert-base":
        config = BertConfig(
            vocab_size=max(120_138, len(tokenizer)),
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
        )
        encoder = BertModel(config, add_pooling_layer=False).to(devices.default())
    heads = classifiers.viralbert_heads(encoder.config.hidden_size)
    return MultiTaskClassifier(encoder, heads, pooling, train_embeddings=False), tokenizer


def whole(
    model: MultiTaskClassifier, texts: dict[str, Encoded], batch: Batch
) -> tuple[Tensor, list]:
    """Vectors of the whole batch in one pass, and each task's loss on its own rows."""
    device = devices.of(model)
    rows = [texts[task].rows[p] for task, positions in batch for p in positions]
    losses, start = [], 0
    with devices.computing(device, devices.precision(device)):
        vectors = model.vectors(*devices.to(loading.pad(rows, 0), device))
        for task, positions in batch:
            logits = model.heads[task](vectors[start : start + len(positions)])
            losses.append(loss(logits, texts[task].labels[positions]))
            start += len(positions)
    return vectors, losses


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, in float32."""
    return torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), devices.to(labels, logits.device)
    )


def plain(model: MultiTaskClassifier, texts: dict[str, Encoded], batch: Batch) -> None:
    """One pass over the whole batch, the losses added."""
    sum(whole(model, texts, batch)[1]).backward()


def ours(model: MultiTaskClassifier, texts: dict[str, Encoded], batch: Batch) -> None:
    """A half pass for each task, gradients combined by PCGrad."""
    shared = [p for name, p in model.named_parameters() if not name.startswith("heads.")]
    gradients = surgery.TaskGradients(shared, list(texts), "pcgrad")
    device = devices.of(model)
    for task, positions in batch:
        with devices.computing(device, devices.precision(device)):
            logits = model(*devices.to(texts[task].batch(positions, 0), device), task)
        value = loss(logits, texts[task].labels[positions])
        with gradients.of(task):
            value.backward()
    gradients.combine()


def library(model: MultiTaskClassifier, texts: dict[str, Encoded], batch: Batch) -> None:
    """torchjd: one forward pass, the Jacobian of both losses, its PCGrad."""
    vectors, losses = whole(model, texts, batch)
    shared = [
        p
        for name, p in model.named_parameters()
        if not name.startswith("heads.") and p.requires_grad
    ]
    mtl_backward(losses, features=vectors, shared_params=shared, parallel_chunk_size=1)
    jac_to_grad(shared, PCGrad())


def two_passes(model: MultiTaskClassifier, texts: dict[str, Encoded], batch: Batch) -> None:
    """One forward pass, a backward pass over the whole batch for each loss."""
    losses = whole(model, texts, batch)[1]
    shared = [p for name, p in model.named_parameters() if not name.startswith("heads.")]
    gradients = surgery.TaskGradients(shared, list(texts), "pcgrad")
    for (task, _), value in zip(batch, losses, strict=True):
        with gradients.of(task):
            value.backward(retain_graph=True)
    gradients.combine()


VARIANTS: dict[str, Callable[..., None]] = {
    "plain joint step": plain,
    "PCGrad, half passes": ours,
    "PCGrad, torchjd": library,
    "PCGrad, two whole passes": two_passes,
}


def measure(
    model: MultiTaskClassifier, texts: dict[str, Encoded], n_turns: int = TURNS
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each step by variant, the first as a warm-up left out; and on a GPU the peak
    memory in MiB."""
    lengths = {task: part.lengths for task, part in texts.items()}
    plan = batches.mixed_batches(lengths, Settings(batch_size=BATCH), 0)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    memory: dict[str, float] = {}
    device = devices.of(model)
    on_gpu = device.type == "cuda"
    for batch in plan[: n_turns + 1]:
        for name, step in VARIANTS.items():
            if on_gpu:
                # A shape that is new takes memory and plans from the driver, many times a step.
                step(model, texts, batch)
                model.zero_grad()
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
            start = time.perf_counter()
            step(model, texts, batch)
            if on_gpu:
                torch.cuda.synchronize(device)
                memory[name] = max(
                    memory.get(name, 0.0), torch.cuda.max_memory_allocated(device) / 2**20
                )
            seconds[name].append(time.perf_counter() - start)
            model.zero_grad()
    return {name: spent[1:] for name, spent in seconds.items()}, memory


def ratios(seconds: dict[str, list[float]], name: str) -> list[float]:
    """Step by step, how many times the plain one a variant took."""
    return [
        own / base for own, base in zip(seconds[name], seconds["plain joint step"], strict=True)
    ]


def main() -> None:
    """Print ratios of time, or peak memory."""
    source = sys.argv[1] if len(sys.argv) > 1 else "sample"
    shape = sys.argv[2] if len(sys.argv) > 2 else "embedded"
    if len(sys.argv) > 3 and sys.argv[3] == "memory":
        for name in VARIANTS:
            subprocess.run([sys.executable, __file__, source, shape, "alone", name], check=True)
        return
    model, tokenizer = make_model(shape)
    model.train()
    texts = load_texts(source, BATCH * (TURNS + 1), tokenizer)
    if len(sys.argv) > 4:
        lengths = {task: part.lengths for task, part in texts.items()}
        plan = batches.mixed_batches(lengths, Settings(batch_size=BATCH), 0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for batch in plan[:2]:
            VARIANTS[sys.argv[4]](model, texts, batch)
            model.zero_grad()
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        shared = sum(p.numel() for p in model.encoder.parameters() if p.requires_grad) * 4 / 2**20
        print(
            f"{sys.argv[4]}: {peak:.0f} MiB over the model; one copy of the shared gradients: "
            f"{shared:.0f} MiB"
        )
        return
    seconds, memory = measure(model, texts)
    sizes = {task: len(part) for task, part in texts.items()}
    print(
        f"{shape}, {source}: batches of {BATCH} from {sizes}, {devices.describe()}, "
        f"{torch.get_num_threads()} threads"
    )
    for name, spent in seconds.items():
        times = ratios(seconds, name)
        peak = f", {memory[name]:.0f} MiB at most" if memory else ""
        print(
            f"{name:26} {statistics.median(spent):7.3f} s, {statistics.median(times):.2f} times "
            "plain "
            f"({min(times):.2f} to {max(times):.2f}){peak}"
        )


if __name__ == "__main__":
    main()

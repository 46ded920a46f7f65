"""Texts a second in training: batches of like length, padded to their longest, against everything
padded to 128.

    .venv/bin/python benchmarks/padding.py [data folder]

Both variants train the same model on the same texts, in turn, and the ratio of each pair of turns
is printed.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from viralbert_utils.base import tokens
from viralbert_utils.data import cleaning, emotions, sources
from viralbert_utils.encoders import loading
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.training import batches, losses
from viralbert_utils.training.settings import Settings

N_TEXTS, BATCH, TURNS, FIXED = 1024, 64, 3, 128


def seconds(
    model: PooledClassifier, rows: list[list[int]], labels: torch.Tensor, pad_to: int
) -> float:
    """One pass of training steps over the rows; `pad_to` 0 = the longest of each batch."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    settings = Settings(batch_size=BATCH, bucket=0 if pad_to else 50, seed=0)
    steps = batches.mixed_batches({"": [len(row) for row in rows]}, settings, 0)
    plan = [step[0][1] for step in steps]
    loss = losses.binary_cross_entropy()
    model.train()
    start = time.perf_counter()
    for positions in plan:
        ids, mask = loading.pad([rows[p] for p in positions], 0)
        if pad_to:
            extra = (0, pad_to - ids.shape[1])
            ids, mask = torch.nn.functional.pad(ids, extra), torch.nn.functional.pad(mask, extra)
        loss(model(ids, mask), labels[positions]).backward()
        optimiser.step()
        optimiser.zero_grad()
    return time.perf_counter() - start


def main() -> None:
    """Print the ratio, and what stands behind it."""
    source = sys.argv[1] if len(sys.argv) > 1 else "sample"
    cleaned = cleaning.clean(
        sources.load("emotions", source), **cleaning.RULES["emotions"] | {"near_threshold": 2}
    )
    table = next(iter(cleaned.splits.values())).head(N_TEXTS)
    tokenizer, encoder = loading.load_encoder("embedded")
    rows = tokens.encode(tokenizer, list(table["text"]), FIXED)
    labels = torch.tensor(emotions.multi_hot(table["labels"])).float()
    torch.manual_seed(0)
    model = PooledClassifier(encoder, len(emotions.EMOTIONS), train_embeddings=False)
    turns = [
        (seconds(model, rows, labels, FIXED), seconds(model, rows, labels, 0))
        for _ in range(TURNS + 1)
    ][1:]
    ratios = [fixed / dynamic for fixed, dynamic in turns]
    n_tokens = sum(map(len, rows)) / len(rows)
    print(
        f"{source}: {len(rows)} texts, {n_tokens:.1f} tokens each, batch {BATCH}, "
        f"{torch.get_num_threads()} threads"
    )
    print(
        f"texts a second: padded {len(rows) / statistics.median(t[0] for t in turns):.0f}, "
        f"like lengths {len(rows) / statistics.median(t[1] for t in turns):.0f}"
    )
    print(
        f"ratio: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to "
        f"{max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()

"""Batches: each text stands in one of them, and like lengths stand together."""

import numpy as np
import pytest

from viralbert_utils.training import batches
from viralbert_utils.training.settings import Settings


def batches_of(lengths: list[int], batch_size: int, bucket: int, seed: int) -> list[list[int]]:
    settings = Settings(batch_size=batch_size, bucket=bucket, seed=seed)
    return [step[0][1] for step in batches.mixed_batches({"": lengths}, settings, 0)]


@pytest.mark.parametrize("bucket", [0, 1, 7])
def test_each_text_stands_in_one_batch(bucket):
    lengths = np.random.default_rng(0).integers(1, 60, 203).tolist()
    plan = batches_of(lengths, 8, bucket, seed=1)
    assert sorted(p for batch in plan for p in batch) == list(range(203))
    assert max(map(len, plan)) == 8
    assert plan != batches_of(lengths, 8, bucket, seed=2)


def test_bucketing_saves_padding():
    lengths = np.random.default_rng(0).integers(3, 60, 2000).tolist()

    def positions(bucket: int) -> int:
        return sum(
            len(batch) * max(lengths[p] for p in batch)
            for batch in batches_of(lengths, 16, bucket, 0)
        )

    assert positions(50) < 1.05 * sum(lengths)
    assert positions(0) > 1.5 * sum(lengths)

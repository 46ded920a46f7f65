"""A task that a tiny model can learn: the class is a token."""

import numpy as np
import torch

from tests import tiny
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.training.settings import Encoded, Settings


def make_model(n_classes: int = 3, **options) -> PooledClassifier:
    torch.manual_seed(1)
    encoder = tiny.bert(50)
    return PooledClassifier(encoder, n_classes, **options)


def make_data(n: int = 240, seed: int = 0) -> Encoded:
    """The class is the token that stands somewhere in a random text."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    rows = []
    for label in labels:
        row = rng.integers(10, 50, rng.integers(3, 20)).tolist()
        row[int(rng.integers(len(row)))] = int(label) + 3
        rows.append([1, *row, 2])
    return Encoded(rows, torch.tensor(labels))


QUICK = Settings(epochs=3, batch_size=16, learning_rate=5e-3, seed=4)

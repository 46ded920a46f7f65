"""The interface between a model and the search for moments: a function from texts to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from viralbert_utils.data.emotions import EMOTIONS


@dataclass(frozen=True)
class Scores:
    """What a scorer says of `n` texts.

    The thresholds (one for all, or one a column) decide which emotions count.
    """

    viral: np.ndarray  # (n,), probabilities
    emotions: np.ndarray  # (n, n_emotions), probabilities
    names: Sequence[str] = EMOTIONS
    thresholds: float | np.ndarray = 0.5


Scorer = Callable[[list[str]], Scores]

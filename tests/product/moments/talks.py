"""Talks with a joke in them, a scorer that knows two words, and scores by chance."""

import numpy as np

from viralbert.moments.scores import Scores
from viralbert.moments.subtitles import Cue
from viralbert.moments.units import Unit
from viralbert_utils.data.emotions import EMOTIONS


def keywords(texts: list[str]) -> Scores:
    """A scorer that knows two words."""
    emotions = np.full((len(texts), len(EMOTIONS)), 0.02)
    emotions[:, EMOTIONS.index("amusement")] = [
        0.8 if "кот" in text.lower() else 0.1 for text in texts
    ]
    emotions[:, EMOTIONS.index("neutral")] = 0.9
    return Scores(np.array([0.9 if "зарплат" in text else 0.1 for text in texts]), emotions)


def talk(lines: list[str], seconds: float = 4.0, gap: float = 0.2, start: float = 0.0) -> list[Cue]:
    times = [round(start + k * (seconds + gap), 3) for k in range(len(lines))]
    return [Cue(t, round(t + seconds, 3), line) for t, line in zip(times, lines, strict=True)]


def evenly(n: int, seconds: float = 3.0, gap: float = 0.0) -> list[Unit]:
    return [
        Unit(k * (seconds + gap), k * (seconds + gap) + seconds, f"слово{k} дело{k}.", True, True)
        for k in range(n)
    ]


def random_scores(n: int, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    return Scores(rng.random(n), rng.random((n, len(EMOTIONS))))

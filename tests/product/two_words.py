"""A model that knows two words, and what it is asked about."""

import json
from pathlib import Path

import numpy as np

from viralbert.moments.scores import Scores
from viralbert.moments.subtitles import Cue, write_subtitles
from viralbert.serving.predictor import Label, Prediction
from viralbert_utils.data.emotions import EMOTIONS


class TwoWords:
    def predict_iter(self, texts):
        for text in texts:
            p = 0.9 if "кот" in text.lower() else 0.1
            yield Prediction(p, p > 0.5, (Label("joy", "радость", p),), {"joy": p})

    def scores(self, texts):
        viral = np.array([0.9 if "зарплат" in text else 0.1 for text in texts])
        return Scores(viral, np.full((len(texts), len(EMOTIONS)), 0.02))


def srt(path: Path, n: int = 30, joke_at: int = 12) -> Path:
    lines = [f"Слово{k} и дело{k}." for k in range(n)]
    lines[joke_at] = "Кот открыл дверь и попросил зарплату!"
    cues = [Cue(4.0 * k, 4.0 * k + 3.8, line) for k, line in enumerate(lines)]
    write_subtitles(cues, path.with_suffix(".srt"))
    return path.with_suffix(".srt").rename(path)


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]

"""Figures that a reader can ask: move a threshold (lesson 04), point at a pair of emotions (lesson
05), walk along a video (lesson 06).

Each is drawn as SVG by `interactive.js`, which stands in the page beside its data: nothing is asked
of any host, so it works in JupyterLab, in VS Code and on the site alike. Every control is an
ordinary one of the browser and works with the keyboard. A still picture stays beneath it for print
and for readers without scripts.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_SCRIPT = Path(__file__).with_suffix(".js")
_SCALE = 10_000  # scores are sent as whole numbers of ten-thousandths


@dataclass(frozen=True)
class InteractiveFigure:
    """What `lesson.show(figure, alt, live=...)` puts in the place of the still picture.

    Args:
        kind: Which part of `interactive.js` draws it: `threshold`, `matrix` or `timeline`.
        data: What it draws, as plain numbers, texts, lists and dictionaries.
    """

    kind: str
    data: Mapping[str, Any]

    def html(self, png: bytes, alt: str) -> str:
        """The figure as HTML that needs nothing from outside.

        Args:
            png: The still picture.
            alt: Its text, which also names the drawing.
        """
        picture = base64.b64encode(png).decode("ascii")
        return (
            f'<figure class="viralbert-live" data-kind="{self.kind}">'
            f'<img class="still" alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
            f'<div class="stage" hidden></div>'
            f'<script type="application/json">{_json(self.data)}</script>'
            f"<script>{_script()}</script></figure>"
        )


def threshold_figure(
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    start: Sequence[float],
    false_alarm: float = 1.0,
    miss: float = 3.0,
    chosen: int = 0,
) -> InteractiveFigure:
    """Move the threshold of a class, and see precision, recall, F1 and cost (lesson 04).

    Args:
        labels: `(n_texts, n_classes)` of 0 and 1.
        probabilities: `(n_texts, n_classes)`, from 0 to 1.
        names: The classes as a reader sees them, `n_classes` of them.
        start: The threshold of each class at which the slider stands at first.
        false_alarm: Cost of a wrong yes.
        miss: Cost of a wrong no.
        chosen: Index of the class that is shown first.

    Raises:
        ValueError: The shapes do not fit, or a probability is none.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if labels.ndim != 2 or labels.shape != probabilities.shape:
        raise ValueError(
            f"labels of the shape {labels.shape} and probabilities of the shape "
            f"{probabilities.shape}: expected (n_texts, n_classes) of both"
        )
    if not len(names) == len(start) == labels.shape[1] or not 0 <= chosen < len(names):
        raise ValueError(
            f"{len(names)} names and {len(start)} thresholds for {labels.shape[1]} classes, the "
            f"first of which is to be number {chosen}"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities must lie between 0 and 1")
    classes = []
    for k, name in enumerate(names):
        scores = np.round(probabilities[:, k] * _SCALE).astype(int)
        positive = labels[:, k] == 1
        classes.append(
            {
                "name": str(name),
                "start": round(float(start[k]), 4),
                "yes": np.sort(scores[positive]).tolist(),
                "no": np.sort(scores[~positive]).tolist(),
            }
        )
    costs = {"false_alarm": float(false_alarm), "miss": float(miss)}
    data = {"classes": classes, "chosen": int(chosen), "scale": _SCALE, **costs}
    return InteractiveFigure("threshold", data)


def matrix_figure(
    values: pd.DataFrame,
    counts: pd.DataFrame,
    measure: str = "phi",
    what: str = "texts",
    shown: Callable[[str], str] = str,
) -> InteractiveFigure:
    """Point at a pair of a symmetric matrix and read its value and its counts (lesson 05).

    Args:
        values: Square, the same names on both sides, in the order of the figure.
        counts: Square, with the same names: how many texts have both; on the diagonal, how many
            have the one.
        measure: What the values are called.
        what: What is counted.
        shown: Makes the name that a reader sees.

    Raises:
        ValueError: The two tables are not square or do not have the same names.
    """
    names = list(values.index)
    if list(values.columns) != names or set(counts.index) != set(names):
        raise ValueError("values and counts must be square, with the same names on both sides")
    if set(counts.columns) != set(names):
        raise ValueError("counts must have the names of values on both sides")
    rows = [
        [None if pd.isna(value) else round(float(value), 4) for value in row]
        for row in values.to_numpy()
    ]
    together = counts.loc[names, names].to_numpy().astype(int).tolist()
    labels = [str(shown(name)) for name in names]
    data = {"names": labels, "values": rows, "counts": together, "measure": measure, "what": what}
    return InteractiveFigure("matrix", data)


def timeline_figure(
    lines: pd.DataFrame, spans: Mapping[str, Any], score: str = "virality"
) -> InteractiveFigure:
    """Walk along the lines and the moments of a video (lesson 06).

    Args:
        lines: Columns `start` and `end` in seconds, `text`, and `score` from 0 to 1: a row for each
            line of the subtitles, in order.
        spans: Name of a row of bars -> its `(start, end)` pairs in seconds, first rank first.
        score: What the score is called.

    Raises:
        ValueError: A column is missing, or there is no line, or a span is no pair.
    """
    missing = [name for name in ("start", "end", "text", "score") if name not in lines.columns]
    if missing or lines.empty:
        raise ValueError(
            f"lines need at least one row and the columns start, end, text and score; missing: "
            f"{', '.join(missing) or 'rows'}"
        )
    times = lines[["start", "end"]].to_numpy(dtype=float).round(1).tolist()
    scores = lines["score"].to_numpy(dtype=float).round(3).tolist()
    rows = [
        [start, end, str(text), value]
        for (start, end), text, value in zip(times, lines["text"], scores, strict=True)
    ]
    bars: dict[str, list[list[float]]] = {}
    for name, pairs in spans.items():
        both = np.asarray(pairs, dtype=float).reshape(-1, 2) if len(pairs) else np.zeros((0, 2))
        bars[str(name)] = both.round(1).tolist()
    return InteractiveFigure("timeline", {"lines": rows, "spans": bars, "score": score})


def _json(data: Mapping[str, Any]) -> str:
    """JSON that can stand inside a script element: no text in it ends the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def _script() -> str:
    return _SCRIPT.read_text(encoding="utf-8")

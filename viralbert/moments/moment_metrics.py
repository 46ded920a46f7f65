"""How well moments are found: against gold moments, beside what chance finds, with intervals.

Lesson 06 uses it. A random half minute meets a moment often, so no figure stands without its chance
rows; AP at an overlap of 0.75 and the mean AP tell systems apart best (Lei et al. 2021,
"QVHighlights", for the metrics). Their `compute_temporal_iou` divides by the hull of both spans;
here it is the union.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from viralbert.moments.limits import Limits
from viralbert.moments.ranking import MEDIAN_S, SIGMA, Moment
from viralbert.moments.units import Unit
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_plain
from viralbert_utils.evaluation.intervals import Estimate, bootstrap

OVERLAPS = np.arange(0.5, 0.951, 0.05)
EDGE_S = 0.5  # a clip this near to a sentence's edge is on it: more than the padding of a moment

# System -> video -> its answers: spans (n, 2) by rank in seconds; several where chance is averaged
# over draws.
Answers = Mapping[str, Mapping[str, Sequence[np.ndarray]]]


def load_gold(path: Path) -> dict[str, np.ndarray]:
    """Gold moments of each video, `(n, 2)` seconds, from `{video: [{"start", "end", ...}, ...]}`.

    Raises:
        DataError: The file is not of this shape, or a moment ends before it starts.
    """
    check_plain(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        gold = {
            video: np.array([(m["start"], m["end"]) for m in moments])
            for video, moments in content.items()
        }
        if all(times.ndim == 2 and (times[:, 0] < times[:, 1]).all() for times in gold.values()):
            return gold
        reason = "a video without moments, or one that ends before it starts"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise DataError(
        f'{path}: expected {{video: [{{"start": s, "end": s}}, ...]}} with start < end; found '
        f"{reason}"
    )


def spans(moments: Sequence[Moment]) -> np.ndarray:
    """Start and end by rank, `(n, 2)` seconds."""
    return np.array([(m.start, m.end) for m in moments], float).reshape(-1, 2)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of spans, `(n_a, n_b)`."""
    shared = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    shared = np.maximum(shared, 0)
    return shared / ((a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None, :] - shared)


def hits(predicted: np.ndarray, gold: np.ndarray, overlap: float) -> np.ndarray:
    """Which predictions find a gold moment, `(n,)`.

    By rank, each takes the best gold that is still free.
    """
    free = iou(predicted, gold)
    is_hit = np.zeros(len(predicted), bool)
    for rank in range(len(predicted)):
        best = int(free[rank].argmax())
        is_hit[rank] = free[rank, best] >= overlap
        if is_hit[rank]:
            free[:, best] = 0
    return is_hit


def average_precision(predicted: np.ndarray, gold: np.ndarray, overlap: float) -> float:
    """Mean over the gold moments of the precision at the rank that finds them, 0 for those not
    found."""
    is_hit = hits(predicted, gold, overlap)
    return float((is_hit * np.cumsum(is_hit) / np.arange(1, len(is_hit) + 1)).sum() / len(gold))


def measure(
    predicted: np.ndarray, gold: np.ndarray, units: Sequence[Unit], k: int = 5
) -> dict[str, float]:
    """The metrics of one answer for one video.

    Args:
        predicted: Spans by rank, `(n, 2)` seconds.
        gold: Gold spans, `(m, 2)`, `m >= 1`.
        units: Units of the video (`units.split_units`); without punctuation their sentences are
            what lies between pauses.
        k: For recall.

    Returns:
        `AP@0.5`, `AP@0.75`, `mAP` (0.5 to 0.95 in steps of 0.05), `recall@k` at an overlap of 0.5,
        `HIT@1` (the middle of the first lies in a gold moment) and `on sentences` (share that
        begins and ends within 0.5 s of sentence edges). An empty answer has 0 everywhere.
    """
    precisions = [average_precision(predicted, gold, overlap) for overlap in OVERLAPS]
    middles = predicted[:1].mean(axis=1)
    starts = np.array([unit.start for unit in units if unit.begins])
    ends = np.array([unit.end for unit in units if unit.ends])
    on_edges = _near(predicted[:, 0], starts) & _near(predicted[:, 1], ends)
    return {
        "AP@0.5": precisions[0],
        "AP@0.75": precisions[5],
        "mAP": float(np.mean(precisions)),
        f"recall@{k}": hits(predicted[:k], gold, 0.5).sum() / len(gold),
        "HIT@1": float(((gold[:, 0] <= middles[:, None]) & (middles[:, None] <= gold[:, 1])).any()),
        "on sentences": float(on_edges.mean()) if len(predicted) else 0.0,
    }


def chance(
    duration_s: float, n: int, limits: Limits | None = None, n_draws: int = 100, seed: int = 0
) -> dict[str, list[np.ndarray]]:
    """What finds moments without reading a word.

    The grid is longer than `n`, and AP rewards long lists: compare it with systems asked for as
    many (`Limits.n`).

    Args:
        duration_s: Length of the video in seconds.
        n: Moments in an answer, as many as the system gives.
        limits: Lengths are those of human cuts within them; `None`: the default ones.
        n_draws: Number of random draws that the metrics are averaged over.
        seed: Decides on the draws.

    Returns:
        `random` (n spans that do not overlap), `grid` (the whole video in equal spans, in random
        order) and `first` (its first n spans, in order of time).
    """
    rng, limits = np.random.default_rng(seed), limits or Limits()
    lengths = np.clip(
        rng.lognormal(np.log(MEDIAN_S), SIGMA, (n_draws, n)), limits.min_s, limits.max_s
    )
    lengths *= np.minimum(1, duration_s / lengths.sum(axis=1, keepdims=True))
    # Uniform over all ways to lay them out: the silence between them is cut at sorted random
    # points.
    free = np.sort(rng.random((n_draws, n)), axis=1) * (
        duration_s - lengths.sum(axis=1, keepdims=True)
    )
    starts = free + np.cumsum(lengths, axis=1) - lengths
    edges = np.arange(0, max(duration_s, MEDIAN_S + 1e-9), MEDIAN_S)
    grid = np.stack([edges[:-1], edges[1:]], axis=1)
    return {
        "random": [
            rng.permutation(np.stack(drawn, axis=1))
            for drawn in zip(starts, starts + lengths, strict=True)
        ],
        "grid": [rng.permutation(grid) for _ in range(n_draws)],
        "first": [grid[:n]],
    }


def per_video(
    systems: Answers,
    gold: Mapping[str, np.ndarray],
    units: Mapping[str, Sequence[Unit]],
    k: int = 5,
) -> pd.DataFrame:
    """`measure` of each system (index 1) and video (index 2), averaged over a system's draws.

    Raises:
        DataError: A system has no answer for a video with gold moments; an empty answer is
            `np.empty((0, 2))`.
    """
    rows = {}
    for name, answers in systems.items():
        for video, moments in gold.items():
            if not answers.get(video):
                raise DataError(
                    f"system {name!r} has no answer for video {video!r}; expected one for each "
                    f"of {[*gold]}"
                )
            measured = [measure(answer, moments, units[video], k) for answer in answers[video]]
            rows[name, video] = pd.DataFrame(measured).mean()
    return pd.DataFrame(rows).T.rename_axis(["system", "video"])


def summary(
    table: pd.DataFrame, reference: str | None = None, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Means over videos with intervals, from `per_video`; whole videos are drawn.

    Moments of one video are not independent, so they are not drawn singly. Of five videos an
    interval is rough and rather too narrow.

    Args:
        table: Result of `per_video`.
        reference: `None`, or a system: then the others' differences from it, paired by video.
        n_resamples: Number of resamples of the bootstrap.
        seed: Decides on the resamples.

    Returns:
        A row a system, a column a metric, `intervals.Estimate` in the cells.
    """
    if reference is not None:
        table = (table - table.loc[reference].reindex(table.index, level="video")).drop(
            index=reference, level="system"
        )

    def estimate(values: pd.Series) -> Estimate:
        return bootstrap(
            lambda drawn: float(drawn.mean()), values.to_numpy(), n_resamples=n_resamples, seed=seed
        )

    return table.groupby(level="system", sort=False).agg(estimate)


def _near(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Whether an edge lies within `EDGE_S` of each time."""
    return (np.abs(times[:, None] - edges[None, :]) <= EDGE_S).any(axis=1)

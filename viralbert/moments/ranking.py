"""Where in a video is the moment.

The sentences of its subtitles are scored once each, and ranked as windows of 15 to 60 s.

Lesson 06 derives it. A window of a minute is longer than what a line scorer was trained on, and
scoring every window costs ten times as much, so units (sentences, or speech between pauses) are
scored and windows put together from cumulative sums. The mean over units would always choose the
shortest window and the sum the longest; the sum over a power of the length, with a prior of
human-cut lengths, keeps between. The scorer comes in as a function: nothing here knows a model. A
score is a judgement of the text, never a forecast of views.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from viralbert.moments.limits import DEFAULTS, Limits
from viralbert.moments.scores import Scorer, Scores
from viralbert.moments.subtitles import Cue, read_subtitles
from viralbert.moments.units import MAX_PAUSE_S, Unit, split_units
from viralbert.terminal import counted
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.texts import comparison_key
from viralbert_utils.data.emotions import EMOTIONS, NEUTRAL, russian_name
from viralbert_utils.evaluation.thresholds import decide

# Human-cut clips of Repurpose-10K (23,946 in validation and test): log-normal, median 35.2 s, sigma
# 0.51.
MEDIAN_S, SIGMA = 35.2, 0.51
# Aroused feelings make people pass a text on, sadness and calm do not (Berger & Milkman 2012).
AROUSED = (
    "admiration",
    "amusement",
    "anger",
    "curiosity",
    "excitement",
    "fear",
    "joy",
    "nervousness",
    "surprise",
)
MAX_LEAD_S, MAX_TAIL_S = (
    0.35,
    0.45,
)  # of the silence around a moment, and never more than half of it
MAX_REPEAT = 0.5  # share of the word pairs of the shorter of two moments that may be in both
N_NEXT = 5  # runners-up beyond the wanted number that are listed
LATE_S = (
    600.0  # speech that begins later may have the clock of a longer recording: the note says so
)
# A loop: at least so many times the same phrase of at most so many words, and so many words in all.
N_LOOP, MAX_LOOP_PHRASE, MIN_LOOP_WORDS = 4, 40, 8
_QUESTION = re.compile(r"\?[\"'»“”)\]]*$")
_BACK_REFERENCE = re.compile(
    r"\W*(?:это[тй]?|эт[аиу]|он[аио]?|е[её]|его|их|им|там|тогда|так|так(?:ой|ая|ие)|поэтому|"
    r"потому|то есть|тоже|также|зато|котор\w+|и|а|но|вот|ну)\b",
    re.I,
)
_BOILERPLATE = re.compile(
    r"\bподпи(?:сывайтесь|шитесь|шись|саться)|\bлайк(?:и|ов|ните)?\b|колокольчик|спонсор|промокод|\bреклам|"
    r"всем (?:привет|пока)|до (?:новых |скор\w+ )?встреч|"
    r"(?:спасибо|благодар\w+) (?:\w+ ){0,2}за (?:просмотр|внимание|подписку)|"
    r"спасибо, что (?:по)?смотре|увидимся (?:\w+ ){0,2}в следующ|\A\W*пока[- ,]+пока\W*\Z|"
    r"продолжение (?:следует|(?:\w+ )?в следующ)|\A\W*конец(?: фильма)?\W*\Z|приятного просмотра|"
    r"\bthank(?:s| you) for watching|\bsubscribe to\b|dimatorzok|amara\.org|"
    r"(?:редактор|корректор) субтитров|\bсубтитры:|\bсубтитры (?:созда(?:ва)?|с?дела|подогна)л",
    re.I,
)
_PENALTIES = {
    "mid_start": "begins in mid-sentence",
    "mid_end": "ends in mid-sentence",
    "back_reference": "the first word points back",
    "answer": "the question before it is left out",
    "boilerplate": "holds a greeting, a farewell, advertising, a call to subscribe or credits",
}
Calibration = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Weights:
    """Every weight of the ranking; 0 switches a term off.

    Body, peak, hook and emotion have unit variance over the windows of a video. `length` and
    `power` are set so that scores without any information give the lengths of human cuts (on 27
    subtitle files the median within 1 s, the quartiles within 3 s).
    """

    body: float = 0.5  # sum of standardised unit scores times seconds, over length ** power
    # 0 leaves the sum, which wants long windows; 1 makes it the mean, which wants short ones
    power: float = 0.3
    peak: float = 0.3  # the best unit
    hook: float = 0.2  # mean of the units that start within the first 3 seconds
    emotion: float = 0.15  # mean over the seconds of the strongest aroused emotion
    length: float = 0.3  # logarithm of the length prior, up to a constant
    mid_start: float = 0.5  # penalties: a start in mid-sentence,
    mid_end: float = 0.5  # an end in mid-sentence,
    back_reference: float = 0.3  # a first word that points back ("это", "поэтому", "он"),
    answer: float = 0.2  # a start on the answer to a question left outside,
    boilerplate: float = 0.5  # greetings, farewells, advertising, calls to subscribe, credits


@dataclass(frozen=True)
class EmotionPeak:
    """An emotion that a line of the moment says: mean over its seconds, highest probability and
    when (video time)."""

    name: str
    mean: float
    peak: float
    peak_s: float


@dataclass(frozen=True)
class Moment:
    """A stretch of the video, times in seconds; `score` is the probability, `strength` what ranked
    it in its video."""

    rank: int
    start: float
    end: float
    score: float
    strength: float
    text: str
    emotions: list[EmotionPeak]
    reasons: list[str]


@dataclass(frozen=True)
class Rejected:
    """A window that is no moment, and why."""

    start: float
    end: float
    score: float
    reason: str


@dataclass(frozen=True)
class Found:
    """Moments by rank, a sentence on how many came out of what or why none did, and the best
    windows that lost."""

    moments: list[Moment]
    note: str
    rejected: list[Rejected] = field(default_factory=list)


def find_moments(
    cues: Sequence[Cue],
    score: Scorer,
    limits: Limits = DEFAULTS,
    weights: Weights = Weights(),
    calibrate: Calibration | None = None,
) -> Found:
    """The moments of a video from its subtitles: `split_units`, one call of the scorer, `choose`.

    Raises:
        DataError: A cue has impossible times, or the scorer's answer does not fit the units.
    """
    units = split_units(cues)
    if not units:
        return Found(
            [],
            f"no moments: none of {len(cues)} cues holds speech (notes like [музыка] do not count)",
        )
    return choose(units, score([unit.text for unit in units]), limits, weights, calibrate)


async def find_viral_moments_from_subtitles(
    subtitles: Sequence[Mapping], score: Scorer, **options: Any
) -> list[dict[str, Any]]:
    """Find moments by the call of ViralBERT v2.

    `[{"text", "start"[, "end"]}, ...]` goes in, times in seconds; moments come out by rank.

    The scorer runs in a thread, so that the event loop stays free; `options` are further arguments
    of `find_moments`.

    Returns:
        Dicts with `start`, `end`, `score`, `emotions` (names, strongest first), `rank`, `text`,
        `reasons`.

    Raises:
        DataError: As `read_subtitles` and `find_moments`; an empty list of subtitles is one.
    """
    selection = await asyncio.to_thread(
        find_moments, read_subtitles(subtitles).cues, score, **options
    )
    plain = ("start", "end", "score", "rank", "text", "reasons")
    return [
        {k: getattr(m, k) for k in plain} | {"emotions": [e.name for e in m.emotions]}
        for m in selection.moments
    ]


def choose(
    units: Sequence[Unit],
    scores: Scores,
    limits: Limits = DEFAULTS,
    weights: Weights = Weights(),
    calibrate: Calibration | None = None,
) -> Found:
    """Rank all windows of units and keep the best that neither overlap nor repeat one another.

    Greedy by strength, so the first 5 of 10 moments are the moments of `n=5`. No object is made of
    a window before it is chosen; time and memory grow with the number of windows, some 15 a unit. A
    phrase that comes again and again without anything between, as from a recogniser that got stuck,
    counts as silence after its first time, and the note says so.

    Args:
        units: Units of one video, in order.
        scores: Scores of these units, `n = len(units)`.
        limits: What may come out.
        weights: How the ranking weighs its parts. Unit scores are standardised over the video.
        calibrate: From the mean probability of a window's units, by seconds, to the probability
            that the window is a moment, `(n,) -> (n,)`. `None` leaves that mean: as well calibrated
            as the scorer is for single lines. It does not change the ranking.

    Raises:
        DataError: `scores` or the calibration do not fit, or hold anything but probabilities.
    """
    _check(scores.viral, (len(units),), "the scorer's viral")
    _check(scores.emotions, (len(units), len(scores.names)), "the scorer's emotions")
    if not len(units):
        return Found([], "no moments: no speech")
    n_all, again = len(units), _said_again(units)
    remark = _remark(units, again)
    units = [unit for unit, drop in zip(units, again, strict=True) if not drop]
    scores = replace(scores, viral=scores.viral[~again], emotions=scores.emotions[~again])
    starts, ends, seconds = _times(units)
    first, last = _windows(starts, ends, limits)
    if not len(first):
        broken = np.flatnonzero(starts[1:] - ends[:-1] > limits.max_gap_s)
        longest = max(
            np.r_[ends[broken], ends[-1:]] - np.r_[starts[:1], starts[broken + 1]], default=0
        )
        return Found(
            [],
            f"no moments: no run of sentences lasts {limits.min_s:g}-{limits.max_s:g} s (the "
            "longest "
            f"without a pause over {limits.max_gap_s:g} s lasts {longest:.1f} s){remark}",
        )
    terms = _terms(units, scores, first, last, weights)
    strength = np.sum(list(terms.values()), axis=0)
    order = np.lexsort((last, first, -strength))
    first, last, strength = first[order], last[order], strength[order]
    probability = (_total(scores.viral * seconds, first, last) / _total(seconds, first, last)).clip(
        0, 1
    )
    if calibrate is not None:
        probability = calibrate(probability)
        _check(probability, first.shape, "the calibration")
    # Of the speech, not of the clock: a timeline may begin at one hour, and a part of a stream
    # anywhere.
    speech_s = ends[-1] - starts[0] - np.maximum(starts[1:] - ends[:-1] - MAX_PAUSE_S, 0).sum()
    n = limits.n or int(np.clip(round(speech_s / 120), 4, 12))
    picked, lost = _pick(units, first, last, probability, limits, n)
    moments = [
        _moment(
            rank,
            units,
            scores,
            slice(first[w], last[w] + 1),
            float(probability[w]),
            float(strength[w]),
            limits,
            {name for name, values in terms.items() if values[order[w]] < 0},
        )
        for rank, w in enumerate(picked, 1)
    ]
    rejected = [
        Rejected(float(starts[first[w]]), float(ends[last[w]]), float(probability[w]), reason)
        for w, reason in sorted(lost.items())
    ]
    candidates = f"{counted(len(first), 'window')} of {counted(n_all, 'unit')}"
    note = f"{counted(len(moments), 'moment')}, at most {n} wanted, from {candidates}"
    if not moments:
        note = (
            f"no moments: the best of {counted(len(first), 'window')} scores "
            f"{probability.max():.2f}, below min_score"
        )
    return Found(moments, note + remark, rejected)


def window_terms(
    units: Sequence[Unit],
    scores: Scores,
    limits: Limits = DEFAULTS,
    weights: Weights = Weights(),
) -> dict[str, np.ndarray]:
    """What each weight adds to the strength of every window: a rank can be followed by hand.

    Args:
        units: Units of one video, in order; phrases said again in a loop are not left out here.
        scores: Scores of these units.
        limits: Which windows there are.
        weights: How the ranking weighs its parts.

    Returns:
        `start` and `end` in seconds without padding, then a column for each name of `Weights` but
        `power`, all `(n_windows,)`. The sum of those columns is the strength.
    """
    starts, ends, _ = _times(units)
    first, last = _windows(starts, ends, limits)
    edges = {"start": starts[first], "end": ends[last]}
    return edges | _terms(units, scores, first, last, weights)


def _said_again(units: Sequence[Unit]) -> np.ndarray:
    """Which units, by at least half of their words, say a phrase again that was said just before,
    in a loop."""
    words = [comparison_key(unit.text).split() for unit in units]
    ids: dict[str, int] = {}
    stream = np.array(
        [ids.setdefault(word, len(ids)) for unit_words in words for word in unit_words]
    )
    again = np.zeros(len(stream), int)
    for n in range(1, MAX_LOOP_PHRASE + 1):
        same = stream[n:] == stream[:-n]
        begin, end = np.flatnonzero(np.diff(np.r_[False, same, False])).reshape(-1, 2).T
        long = end - begin + n >= max(N_LOOP * n, MIN_LOOP_WORDS)
        for a, b in zip(begin[long], end[long], strict=True):
            again[a + n : b + n] = 1
    n_words = np.array([len(unit_words) for unit_words in words])
    n_again = np.add.reduceat(np.r_[again, 0], np.cumsum(n_words) - n_words)
    return 2 * n_again >= np.maximum(n_words, 1)


def _remark(units: Sequence[Unit], again: np.ndarray) -> str:
    """What is strange about the speech as a whole, for the note."""
    remark = ""
    if again.any():
        at = units[int(np.argmax(again))]
        remark = (
            f"; {again.sum():,} units repeat what was just said, as a recogniser does that is "
            "stuck, and count "
            f"as silence (the first at {at.start:.1f} s: {at.text:.60})"
        )
    if units[0].start >= LATE_S:
        remark += f"; nothing is said before {units[0].start:.1f} s: does the video begin at zero?"
    return remark


def _windows(starts: np.ndarray, ends: np.ndarray, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """First and last unit of every run of the right length without a long gap."""
    n, edge = len(starts), 1e-6  # times are whole milliseconds: a float sum is never off by so much
    run = np.cumsum(np.r_[False, starts[1:] - ends[:-1] > limits.max_gap_s + edge][:n])
    least = np.maximum(np.searchsorted(ends, starts + limits.min_s - edge), np.arange(n))
    most = (
        np.minimum(
            np.searchsorted(ends, starts + limits.max_s + edge),
            np.searchsorted(run, run, side="right"),
        )
        - 1
    )
    count = np.maximum(most - least + 1, 0)
    position = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(np.arange(n), count), np.repeat(least, count) + position


def _terms(
    units: Sequence[Unit], scores: Scores, first: np.ndarray, last: np.ndarray, weights: Weights
) -> dict[str, np.ndarray]:
    """What each weight adds to the strength of each window."""
    starts, ends, seconds = _times(units)
    length, z, each = ends[last] - starts[first], _standard(scores.viral), np.arange(len(units))
    opening = np.searchsorted(starts, starts + 3.0) - 1
    hook = _total(z, each, opening) / (opening - each + 1)
    aroused = scores.emotions[:, np.isin(scores.names, AROUSED)].max(axis=1, initial=0)
    boilerplate = np.array([bool(_BOILERPLATE.search(unit.text)) for unit in units])
    bad_start = {
        "mid_start": [not unit.begins for unit in units],
        "back_reference": [bool(_BACK_REFERENCE.match(unit.text)) for unit in units],
        "answer": [False, *(bool(_QUESTION.search(unit.text)) for unit in units[:-1])],
    }
    terms = {
        "body": _standard(_total(z * seconds, first, last) / length**weights.power),
        "peak": _standard(
            np.maximum.reduceat(np.r_[z, -np.inf], np.stack([first, last + 1], axis=1).ravel())[::2]
        ),
        "hook": _standard(hook[first]),
        "emotion": _standard(_total(aroused * seconds, first, last) / _total(seconds, first, last)),
        "length": -(np.log(length / MEDIAN_S) ** 2) / (2 * SIGMA**2),
        "mid_end": -np.array([not unit.ends for unit in units], float)[last],
        "boilerplate": -(_total(boilerplate, first, last) > 0).astype(float),
        **{name: -np.array(flags, float)[first] for name, flags in bad_start.items()},
    }
    return {name: getattr(weights, name) * values for name, values in terms.items()}


def _pick(
    units: Sequence[Unit],
    first: np.ndarray,
    last: np.ndarray,
    probability: np.ndarray,
    limits: Limits,
    n: int,
) -> tuple[list[int], dict[int, str]]:
    """The chosen among windows sorted by strength, and the best that lost with the reason."""
    starts, ends, _ = _times(units)
    start, end = starts[first], ends[last]
    words = [comparison_key(unit.text).split() for unit in units]
    after = np.cumsum([0, *map(len, words)])
    stream = [word for unit_words in words for word in unit_words]
    ids: dict[tuple[str, str], int] = {}
    pairs = np.array([ids.setdefault(pair, len(ids)) for pair in pairwise([*stream, ""])])
    begin, stop = after[first], after[last + 1] - 1  # word pairs of each window
    alive = probability >= limits.min_score
    lost = (
        {}
        if alive.all()
        else {int(np.argmin(alive)): f"scores below min_score = {limits.min_score:g}"}
    )
    picked: list[int] = []
    while alive.any() and len(picked) < n + N_NEXT:
        best = int(np.argmax(alive))
        picked.append(best)
        shared = np.minimum(end, end[best]) - np.maximum(start, start[best])
        shorter = np.minimum(end - start, end[best] - start[best])
        overlaps = shared > limits.max_overlap * shorter + 1e-6
        # A retold joke need not have the same edges: word pairs say how much was told, wherever a
        # window starts.
        retold = np.isin(pairs, pairs[begin[best] : stop[best]])
        retold[begin[best] : stop[best]] = False
        n_pairs = np.maximum(stop - begin, 1)
        repeats = _total(retold, begin, stop - 1) > MAX_REPEAT * np.minimum(n_pairs, n_pairs[best])
        for windows, reason in (
            (overlaps & (shared < shorter / 2), "overlaps"),
            (repeats & ~overlaps, "repeats"),
        ):
            if len(picked) <= n and (alive & windows).any():
                lost.setdefault(
                    int(np.argmax(alive & windows)),
                    f"{reason} moment {len(picked)}, which is stronger",
                )
        alive &= ~(overlaps | repeats)
        alive[best] = False
    return picked[:n], lost | dict.fromkeys(
        picked[n:], f"weaker than the {n} moments that were wanted"
    )


def _moment(
    rank: int,
    units: Sequence[Unit],
    scores: Scores,
    at: slice,
    probability: float,
    strength: float,
    limits: Limits,
    against: set[str],
) -> Moment:
    inside, viral = units[at], scores.viral[at]
    start, end = inside[0].start, inside[-1].end
    before = start - units[at.start - 1].end if at.start else start
    behind = units[at.stop].start - end if at.stop < len(units) else 0.0
    room = max(limits.max_s - (end - start), 0.0)
    # Whole milliseconds, rounded down, so that two padded neighbours never meet.
    lead = int(min(MAX_LEAD_S, before / 2, room) * 1000 + 1e-6) / 1000
    tail = int(min(MAX_TAIL_S, behind / 2, room - lead) * 1000 + 1e-6) / 1000
    _, _, seconds = _times(inside)
    peaks = []
    for k in np.flatnonzero(decide(scores.emotions[at], scores.thresholds).any(axis=0)).tolist():
        said = scores.emotions[at, k]
        peak = inside[int(said.argmax())]
        peaks.append(
            EmotionPeak(
                scores.names[k],
                float(np.average(said, weights=seconds)),
                float(said.max()),
                round((peak.start + peak.end) / 2, 3),
            )
        )
    peaks = sorted((p for p in peaks if p.name != EMOTIONS[NEUTRAL]), key=lambda p: -p.mean)[:3]
    best = inside[int(viral.argmax())]
    reasons = [
        f"its lines score {np.average(viral, weights=seconds):.2f}, those of the whole video "
        f"{scores.viral.mean():.2f}",
        f"its strongest line scores {viral.max():.2f} at {best.start:.1f} s: {best.text}",
        f"it opens with {viral[0]:.2f}: {inside[0].text}",
        *(
            f"{p.name} · {russian_name(p.name)} reaches {p.peak:.2f} at {p.peak_s:.1f} s"
            for p in peaks
        ),
        *(["it begins and ends on a sentence"] if inside[0].begins and inside[-1].ends else []),
        *(f"against it: {text}" for name, text in _PENALTIES.items() if name in against),
    ]
    return Moment(
        rank,
        round(start - lead, 3),
        round(end + tail, 3),
        probability,
        strength,
        " ".join(unit.text for unit in inside),
        peaks,
        reasons,
    )


def _times(units: Sequence[Unit]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends and lengths in seconds; a unit without length weighs a millisecond."""
    starts, ends = np.array([unit.start for unit in units]), np.array([unit.end for unit in units])
    return starts, ends, np.maximum(ends - starts, 1e-3)


def _total(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sums of `values[first .. last]`, all at once."""
    sums = np.r_[0.0, np.cumsum(values)]
    return sums[last + 1] - sums[first]


def _standard(values: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1; equal values are all 0."""
    return (values - values.mean()) / (values.std() if values.std() > 1e-9 else np.inf)


def _check(values: np.ndarray, shape: tuple[int, ...], whose: str) -> None:
    if values.shape != shape:
        raise DataError(f"{whose} must have the shape {shape}, found {values.shape}")
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise DataError(f"{whose} must hold probabilities, found {values.min()} to {values.max()}")

"""Which windows become moments, how many, and why others do not."""

import asyncio
import dataclasses
import itertools
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.product.moments.talks import evenly, keywords, random_scores, talk
from tests.timing import seconds
from viralbert.moments import ranking
from viralbert.moments.ranking import N_NEXT, EmotionPeak, Limits, Moment, Weights
from viralbert.moments.scores import Scores
from viralbert.moments.subtitles import Cue
from viralbert.moments.units import Unit
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import EMOTIONS

STEADY = "Мы красим забор дальше."
JOKE = "Кот открыл дверь и попросил зарплату!"


# The clock of a timeline --------------------------------------------------------------------------


@pytest.mark.parametrize("start", [3600.0, 86_400.0, 0.0])
def test_the_number_wanted_follows_the_speech_and_not_the_clock(start):
    units = [dataclasses.replace(u, start=u.start + start, end=u.end + start) for u in evenly(400)]
    found = ranking.choose(units, random_scores(400))
    assert len(found.moments) == 10 and "at most 10 wanted" in found.note
    assert ("does the video begin at zero?" in found.note) is (start > 0)
    slate = [Unit(0, 2, "Титр.", True, True), *units]
    assert re.search("at most 1[01] wanted", ranking.choose(slate, random_scores(401)).note)


# The choice ---------------------------------------------------------------------------------------


def test_the_strong_stretch_is_found_on_its_sentences():
    hot = [
        "Однажды случилось вот что.",
        "Наш сосед не получил зарплату.",
        "А его кот получил зарплату!",
        "Кот сказал, что зарплата теперь его.",
        "Сосед просил зарплату у кота.",
    ]
    steady = [f"{STEADY[:-1]} номер {k}." for k in range(40)]
    asked: list[list[str]] = []
    found = ranking.find_moments(
        talk(steady[:20] + hot + steady[20:]), lambda texts: asked.append(texts) or keywords(texts)
    )
    assert [len(texts) for texts in asked] == [45]
    best = found.moments[0]
    assert "Кот сказал" in best.text and best.start < 21 * 4.2 + 0.2 and best.end > 24 * 4.2
    assert best.score == pytest.approx(
        np.mean([0.9 if "зарплат" in s else 0.1 for s in re.split(r"(?<=[.!])\s", best.text)])
    )
    assert "it begins and ends on a sentence" in best.reasons
    assert [m.rank for m in found.moments] == list(range(1, len(found.moments) + 1))
    strengths = [m.strength for m in found.moments]
    assert strengths == sorted(strengths, reverse=True)


def test_the_first_of_ten_are_the_best_of_fewer():
    units, scores = evenly(400), random_scores(400)
    ten = ranking.choose(units, scores, Limits(n=10)).moments
    assert ranking.choose(units, scores, Limits(n=4)).moments == ten[:4]
    assert len(ranking.choose(units, scores).moments) == 10  # 20 minutes, one in two
    assert len(ranking.choose(evenly(40), random_scores(40)).moments) <= 4
    assert len(ranking.choose(evenly(2000), random_scores(2000)).moments) == 12


def test_greedy_takes_the_strongest_window_of_all():
    units, scores = evenly(60), random_scores(60)
    first, last = ranking._windows(*ranking._times(units)[:2], Limits())
    strengths = np.sum(list(ranking._terms(units, scores, first, last, Weights()).values()), axis=0)
    found = ranking.choose(units, scores)
    assert found.moments[0].strength == pytest.approx(strengths.max())
    text = " ".join(
        unit.text for unit in units[first[strengths.argmax()] : last[strengths.argmax()] + 1]
    )
    assert found.moments[0].text == text


def test_overlap_can_be_allowed():
    found = ranking.choose(evenly(100), random_scores(100), Limits(max_overlap=0.8, n=8)).moments
    shares = [
        (min(a.end, b.end) - max(a.start, b.start)) / min(a.end - a.start, b.end - b.start)
        for a, b in itertools.combinations(found, 2)
    ]
    assert 0.5 < max(shares) <= 0.8 + 1e-6


def test_a_joke_told_twice_comes_once():
    joke = [
        f"{JOKE[:-1]} номер {word}!" for word in ("один", "два", "три", "четыре", "пять", "шесть")
    ]
    fill = [f"{STEADY[:-1]} доска {k}, гвоздь {k}." for k in range(30)]
    cues = talk(fill[:10] + joke + fill[10:20] + joke + fill[20:])
    found = ranking.find_moments(cues, keywords)
    assert sum("зарплату номер три" in m.text for m in found.moments) == 1
    assert any(r.reason == "repeats moment 1, which is stronger" for r in found.rejected)


def test_rejected_windows_say_why():
    found = ranking.choose(evenly(400), random_scores(400), Limits(n=3, min_score=0.4))
    reasons = [r.reason for r in found.rejected]
    assert sum(r == "weaker than the 3 moments that were wanted" for r in reasons) == N_NEXT
    assert "scores below min_score = 0.4" in reasons
    assert any(r.startswith("overlaps moment") for r in reasons)
    for other in (r for r in found.rejected if r.reason.startswith("overlaps moment 1")):
        assert min(found.moments[0].end, other.end) > max(found.moments[0].start, other.start)
    assert all(m.score >= 0.4 for m in found.moments)


def test_empty_results_explain_themselves():
    assert ranking.find_moments([], keywords).note.startswith(
        "no moments: none of 0 cues holds speech"
    )
    assert "notes like" in ranking.find_moments([Cue(0, 2, "[музыка]")], keywords).note
    lone = ranking.find_moments([Cue(5, 5.5, "Стоп!"), Cue(69.5, 72, "Дальше тишина.")], keywords)
    assert lone.moments == []
    assert lone.note == (
        "no moments: no run of sentences lasts 15-60 s (the longest without a pause over 4 s "
        "lasts 2.5 s)"
    )
    low = ranking.choose(
        evenly(20), Scores(np.full(20, 0.2), np.zeros((20, 28))), Limits(min_score=0.5)
    )
    assert low.moments == [] and re.fullmatch(
        r"no moments: the best of \d+ windows scores 0.20, below min_score", low.note
    )
    assert ranking.choose([], Scores(np.zeros(0), np.zeros((0, 28)))).moments == []


def test_equal_scores_still_give_moments_without_warnings():
    with np.errstate(all="raise"):
        found = ranking.choose(evenly(100), Scores(np.full(100, 0.3), np.zeros((100, 28))))
    assert len(found.moments) == 4


def test_padding_takes_half_of_the_silence_at_most_and_never_breaks_the_limit():
    def best(gap: float, limits: Limits) -> Moment:
        units = evenly(15, seconds=4, gap=gap)
        viral = np.array([0.1] * 5 + [0.9] * 5 + [0.1] * 5)
        return ranking.choose(
            units, Scores(viral, np.zeros((15, 28))), limits, Weights(length=0)
        ).moments[0]

    tight = best(0.2, Limits(20, 21))
    assert (tight.start, tight.end) == (5 * 4.2 - 0.1, 10 * 4.2 - 0.2 + 0.1)
    wide = best(2.0, Limits(20, 29))
    assert (wide.start, wide.end) == (5 * 6 - 0.35, 10 * 6 - 2 + 0.45)
    full = best(2.0, Limits(20, 28.5))
    assert (full.start, full.end) == (5 * 6 - 0.35, 10 * 6 - 2 + 0.15)


def test_calibration_changes_the_score_and_not_the_order():
    units, scores = evenly(200), random_scores(200)
    plain = ranking.choose(units, scores).moments
    halved = ranking.choose(units, scores, calibrate=lambda p: p / 2).moments
    assert [m.start for m in halved] == [m.start for m in plain]
    assert [m.score for m in halved] == pytest.approx([m.score / 2 for m in plain])
    with pytest.raises(DataError, match="the calibration must hold probabilities"):
        ranking.choose(units, scores, calibrate=lambda p: p + 1)
    with pytest.raises(DataError, match="the calibration must have the shape"):
        ranking.choose(units, scores, calibrate=lambda p: p[:3])


def test_scores_that_do_not_fit_are_refused():
    units = evenly(10)
    with pytest.raises(
        DataError, match=r"the scorer's viral must have the shape \(10,\), found \(9,\)"
    ):
        ranking.choose(units, random_scores(9))
    with pytest.raises(
        DataError, match=r"the scorer's emotions must have the shape \(10, 2\), found \(10, 28\)"
    ):
        ranking.choose(units, dataclasses.replace(random_scores(10), names=("joy", "fear")))
    for bad in (np.nan, 1.5, -0.1):
        scores = random_scores(10)
        scores.viral[3] = bad
        with pytest.raises(DataError, match="the scorer's viral must hold probabilities"):
            ranking.choose(units, scores)
    with pytest.raises(DataError, match="expected 0 < min_s <= max_s"):
        Limits(min_s=30, max_s=20)


def test_emotions_with_their_peaks():
    units, emotions = evenly(6), np.zeros((6, len(EMOTIONS)))
    emotions[:, EMOTIONS.index("neutral")] = 0.9
    emotions[4, EMOTIONS.index("joy")] = 0.8
    emotions[2:, EMOTIONS.index("fear")] = 0.45
    scores = Scores(np.full(6, 0.5), emotions)
    (moment,) = ranking.choose(units, scores, Limits(18, 18)).moments
    assert moment.emotions == [EmotionPeak("joy", pytest.approx(0.8 / 6), 0.8, 13.5)]
    assert "joy · радость reaches 0.80 at 13.5 s" in moment.reasons
    assert json.loads(json.dumps(dataclasses.asdict(moment)))["emotions"][0]["peak_s"] == 13.5
    thresholds = np.where(np.array(EMOTIONS) == "fear", 0.4, 0.9)
    (moment,) = ranking.choose(
        units, dataclasses.replace(scores, thresholds=thresholds), Limits(18, 18)
    ).moments
    assert [peak.name for peak in moment.emotions] == ["fear"]
    (moment,) = ranking.choose(
        units, dataclasses.replace(scores, thresholds=0.4), Limits(18, 18)
    ).moments
    assert [peak.name for peak in moment.emotions] == ["fear", "joy"]  # 0.30 and 0.13 on average


# Around it ----------------------------------------------------------------------------------------


def test_the_call_of_viralbert_v2():
    cues = [
        {"text": line, "start": k * 4.0, "end": k * 4.0 + 3.9}
        for k, line in enumerate(
            [STEADY, JOKE]
            + [f"{STEADY[:-1]} {n}." for n in range(6)]
            + [f"{JOKE[:-1]} за {n} дней!" for n in range(6)]
        )
    ]
    with ThreadPoolExecutor(
        1
    ) as thread:  # of its own: a browser of another test may keep a loop in this one
        call = ranking.find_viral_moments_from_subtitles(cues, keywords, limits=Limits(n=1))
        (moment,) = thread.submit(asyncio.run, call).result()
    assert {"start", "end", "score", "emotions"} < set(moment)
    assert moment["emotions"] == ["amusement"]
    assert "зарплату" in moment["text"] and 15 <= moment["end"] - moment["start"] <= 60


def test_two_hours_take_less_than_a_second():
    units, scores = evenly(2400, seconds=2.8, gap=0.2), random_scores(2400)
    found = ranking.choose(units, scores)
    assert len(found.moments) == 12
    assert min(seconds(lambda _: ranking.choose(units, scores), None) for _ in range(3)) < 1, (
        "about 0.06 s"
    )


def test_no_model_library_is_needed():
    code = (
        "import sys, viralbert.moments.ranking; sys.exit(bool({'torch', 'transformers'} & "
        "set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Windows and their strength: what counts for a moment, and what against it."""

import dataclasses

import numpy as np
import pytest

from tests.product.moments.talks import evenly, random_scores
from viralbert.moments import ranking
from viralbert.moments.ranking import (
    _BACK_REFERENCE,
    _BOILERPLATE,
    _PENALTIES,
    AROUSED,
    MEDIAN_S,
    SIGMA,
    Limits,
    Weights,
)
from viralbert.moments.units import Unit
from viralbert_utils.data.emotions import EMOTIONS


@pytest.mark.parametrize(
    "farewell",
    [
        "Конец",
        "Спасибо, что смотрели!",
        "Увидимся в следующем видео.",
        "До скорых встреч!",
        "Пока-пока!",
        "Конец фильма.",
        "Не забудь подписаться.",
        "Thanks for watching!",
        "Продолжение в следующей серии...",
    ],
)
def test_what_is_said_at_the_end_of_videos_counts_against_a_moment(farewell):
    assert _BOILERPLATE.search(farewell)


@pytest.mark.parametrize(
    "said",
    [
        "Спасибо за просмотр!",
        "Продолжение следует...",
        "Спасибо вам большое за внимание",
        "Подписывайтесь на канал!",
        "Ставьте лайки",
    ],
)
def test_what_may_be_said_or_invented_is_named(said):
    units = evenly(6)
    (moment,) = ranking.choose(
        [*units[:3], dataclasses.replace(units[3], text=said), *units[4:]],
        random_scores(6),
        Limits(18, 18),
    ).moments
    assert f"against it: {_PENALTIES['boilerplate']}" in moment.reasons


def test_windows_are_all_runs_of_the_right_length():
    rng = np.random.default_rng(1)
    ends = np.cumsum(
        rng.choice([0.4, 2.5, 6, 11], 120) + (gaps := rng.choice([0, 0.3, 3, 5], 120))
    ).round(3)
    starts = np.r_[gaps[0], ends[:-1] + gaps[1:]]
    first, last = ranking._windows(starts, ends, Limits())
    expected = [
        (i, j)
        for i in range(120)
        for j in range(i, 120)
        if 15 - 1e-6 <= ends[j] - starts[i] <= 60 + 1e-6
        and all(starts[k + 1] - ends[k] <= 4 + 1e-6 for k in range(i, j))
    ]
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == expected
    assert len(expected) > 100


def test_terms_are_what_they_say():
    units, scores = evenly(40, seconds=2.9, gap=0.3), random_scores(40)
    first, last = ranking._windows(*ranking._times(units)[:2], Limits())
    terms = ranking._terms(units, scores, first, last, Weights())
    z = (scores.viral - scores.viral.mean()) / scores.viral.std()
    aroused = scores.emotions[:, [EMOTIONS.index(name) for name in AROUSED]].max(axis=1)
    lengths = [units[j].end - units[i].start for i, j in zip(first, last, strict=True)]
    plain = {
        "body": [
            2.9 * z[i : j + 1].sum() / length**0.3
            for i, j, length in zip(first, last, lengths, strict=True)
        ],
        "peak": [z[i : j + 1].max() for i, j in zip(first, last, strict=True)],
        "hook": [z[i] for i in first],
        "emotion": [aroused[i : j + 1].mean() for i, j in zip(first, last, strict=True)],
    }
    for name, values in plain.items():
        expected = getattr(Weights, name) * (np.array(values) - np.mean(values)) / np.std(values)
        assert terms[name] == pytest.approx(expected), name
    best = int(np.argmax(terms["length"]))
    assert abs(lengths[best] - MEDIAN_S) < 3.2
    assert terms["length"][best] > terms["length"][0]


def test_scores_without_information_give_lengths_of_human_cuts():
    human = np.random.default_rng(0).lognormal(np.log(MEDIAN_S), SIGMA, 9000)
    human = human[(human >= 15) & (human <= 60)]

    def distance(weights: Weights) -> float:
        found = [
            ranking.choose(evenly(200, 2.7, 0.3), random_scores(200, s), weights=weights).moments
            for s in range(40)
        ]
        lengths = [m.end - m.start for few in found for m in few]
        return float(np.abs(np.quantile(lengths, levels) - np.quantile(human, levels)).mean())

    levels = [0.1, 0.25, 0.5, 0.75, 0.9]
    assert distance(Weights()) < 2.5
    assert distance(Weights(power=1)) > 5
    assert distance(Weights(power=0, length=0)) > 5


CASES = {
    "mid_start": lambda u: dataclasses.replace(u, begins=False),
    "back_reference": lambda u: dataclasses.replace(u, text="Поэтому " + u.text),
    "boilerplate": lambda u: dataclasses.replace(u, text="Подписывайтесь! " + u.text),
}


@pytest.mark.parametrize("name", CASES)
def test_penalties_weaken_and_are_named(name):
    units = evenly(6)
    scores, limits = random_scores(6), Limits(18, 18)
    (clean,) = ranking.choose(units, scores, limits).moments
    (worse,) = ranking.choose([CASES[name](units[0]), *units[1:]], scores, limits).moments
    assert worse.strength == pytest.approx(clean.strength - getattr(Weights, name))
    assert f"against it: {_PENALTIES[name]}" in worse.reasons
    assert not any("against it" in reason for reason in clean.reasons)
    (off,) = ranking.choose(
        [CASES[name](units[0]), *units[1:]], scores, limits, Weights(**{name: 0})
    ).moments
    assert off.strength == pytest.approx(clean.strength)


def test_an_answer_wants_its_question_and_an_end_its_sentence():
    units = [Unit(1.5, 2.5, "Почему?", True, True), *evenly(7)[1:]]
    units[-1] = dataclasses.replace(units[-1], ends=False)
    (moment,) = ranking.choose(units, random_scores(7), Limits(18, 18)).moments
    assert {r for r in moment.reasons if "against" in r} == {
        "against it: ends in mid-sentence",
        "against it: the question before it is left out",
    }


@pytest.mark.parametrize("word", ["Это", "«Он", "поэтому", "И", "Которые", "то есть", "Её"])
def test_back_references(word):
    assert _BACK_REFERENCE.match(f"{word} было давно.")


@pytest.mark.parametrize(
    "text", ["Егоза пришла.", "Этаж горел.", "Навсегда.", "Аист летел.", "Вотчина князя.", "Иней."]
)
def test_words_that_only_begin_like_one(text):
    assert not _BACK_REFERENCE.match(text)


def test_terms_of_the_windows_add_up_to_the_strength_that_ranks():
    units = evenly(40)
    scores = random_scores(len(units), seed=3)
    terms = ranking.window_terms(units, scores)
    names = {field.name for field in dataclasses.fields(Weights)} - {"power"}
    assert set(terms) == names | {"start", "end"}
    strength = np.sum([terms[name] for name in names], axis=0)
    best = ranking.choose(units, scores).moments[0]
    assert best.strength == pytest.approx(strength.max())
    at = int(strength.argmax())
    assert terms["start"][at] == pytest.approx(best.start, abs=ranking.MAX_LEAD_S)
    assert terms["end"][at] == pytest.approx(best.end, abs=ranking.MAX_TAIL_S)

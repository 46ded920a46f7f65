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
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.timing import seconds
from viralbert.moments import ranking
from viralbert.moments.ranking import (
    _BACK_REFERENCE,
    _BOILERPLATE,
    _PENALTIES,
    AROUSED,
    MAX_LEAD_S,
    MAX_TAIL_S,
    MEDIAN_S,
    N_NEXT,
    SIGMA,
    EmotionPeak,
    Limits,
    Moment,
    Weights,
)
from viralbert.moments.scores import Scores
from viralbert.moments.subtitles import Cue
from viralbert.moments.units import Unit, is_credit, split_units
from viralbert_utils.base.errors import DataError
from viralbert_utils.data.emotions import EMOTIONS

STEADY = "Мы красим забор дальше."
JOKE = "Кот открыл дверь и попросил зарплату!"


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


# Units --------------------------------------------------------------------------------------------


def test_sentences_get_their_times_by_characters():
    cues = [Cue(0, 4, "Раз два. Три чет"), Cue(4, 8, "ыре пять шесть. Да")]
    units = split_units([cues[0], dataclasses.replace(cues[1], text="пять шесть. Да!")])
    assert [unit.text for unit in units] == ["Раз два.", "Три чет пять шесть.", "Да!"]
    assert [(unit.start, unit.end) for unit in units] == [(0, 2), (2.25, 6.933), (7.2, 8)]
    assert all(unit.begins and unit.ends for unit in units)


def test_abbreviations_do_not_end_a_sentence():
    (unit,) = split_units([Cue(0, 4, "В г. Твери живёт А. С. Петров, т. е. наш сосед.")])
    assert unit.ends


def test_notes_are_silence_and_a_long_silence_breaks_a_sentence():
    cues = [
        Cue(0, 2, "Он сказал"),
        Cue(2, 5, "- [смех]"),
        Cue(5, 7, "[шёпотом] мне всё."),
        Cue(7, 8, "(аплодисменты)"),
        Cue(8, 9, "♪ ла-ла ♪"),
        Cue(9, 10, "Конец (почти)."),
    ]
    units = split_units(cues)
    assert [unit.text for unit in units] == ["Он сказал", "мне всё.", "Конец (почти)."]
    assert [(unit.begins, unit.ends) for unit in units] == [
        (True, False),
        (False, True),
        (True, True),
    ]
    assert split_units(cues[1:2]) == []


def test_without_punctuation_pauses_cut():
    cues = [
        Cue(0, 2, "ну вот мы приехали"),
        Cue(2.5, 4, "и сразу дождь"),
        Cue(4.8, 6, "а потом град"),
    ]
    units = split_units(cues)
    assert [unit.text for unit in units] == ["ну вот мы приехали и сразу дождь", "а потом град"]
    assert all(unit.begins and unit.ends for unit in units)
    assert [unit.text for unit in split_units([Cue(0, 9, "ну вот")])] == ["ну вот"]


def test_one_stop_in_a_hundred_words_is_no_punctuation():
    long = " ".join(["слово"] * 50)
    units = split_units([Cue(0, 10, long), Cue(11, 21, f"{long}.")])
    assert [unit.start for unit in units if unit.begins] == [0, 11]
    assert [unit.end for unit in units if unit.ends] == [10, 21]


def test_a_video_begins_a_sentence_but_need_not_end_one():
    units = split_units([Cue(0, 4, "Раз два. Три")])
    assert [(unit.begins, unit.ends) for unit in units] == [(True, True), (True, False)]


def test_overlapping_cues_end_where_the_next_starts_and_equal_starts_are_joined():
    units = split_units([Cue(2, 5, "Нет."), Cue(2, 4, "Да."), Cue(0, 9, "Вывеска.")])
    assert [(unit.start, unit.end, unit.text) for unit in units] == [
        (0, 2, "Вывеска."),
        (2, 3.125, "Да."),
        (3.5, 5, "Нет."),
    ]


def test_long_pieces_are_cut_at_a_pause_a_comma_or_a_cue_edge():
    uneven = ["раз два три четыре", "раз два три четыре", "раз два три четыре пять шесть"]
    units = split_units(talk(uneven, seconds=5, gap=0.1))
    assert [unit.text.split()[0] for unit in units] == ["раз", "раз"]
    assert [len(unit.text.split()) for unit in units] == [8, 6]
    assert [(unit.begins, unit.ends) for unit in units] == [(True, False), (False, True)]
    comma = split_units(
        [Cue(0, 16, "Сначала мы долго искали ключ от сарая, потом мы долго искали сам сарай.")]
    )
    assert [unit.text[-1] for unit in comma] == [",", "."]


def test_a_single_cue_of_153_seconds_is_cut_to_the_caps():
    text = " ".join(f"слово{k}" for k in range(400))
    units = split_units([Cue(10, 163, text)])
    assert " ".join(unit.text for unit in units) == text
    assert max(unit.end - unit.start for unit in units) <= 12
    assert max(len(unit.text.split()) for unit in units) <= 30
    found = ranking.choose(units, random_scores(len(units)))
    assert found.moments
    assert all(15 <= m.end - m.start <= 60 for m in found.moments)
    (word,) = split_units([Cue(10, 163, "Ааа")])
    assert word.end - word.start == 12


@pytest.mark.parametrize("times", [(-1, 2), (3, 2), (0, float("nan")), (0, float("inf"))])
def test_impossible_times_are_refused(times):
    with pytest.raises(DataError, match=r"cue 'Да\.': expected 0 <= start <= end in seconds"):
        split_units([Cue(*times, "Да.")])


TEXTS = st.lists(
    st.sampled_from(
        ["да", "нет,", "кот.", "что?", "[смех]", "и", "зарплата!", "ёж", "- Ну", "«Вот»."]
    ),
    min_size=1,
    max_size=40,
).map(" ".join)
STARTS = st.integers(0, 400) | st.floats(0, 400)
CUES = st.lists(
    st.builds(
        lambda start, length, text: Cue(start, start + length, text),
        STARTS,
        st.sampled_from([0, 0.5, 3, 9, 60, 153]),
        TEXTS,
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(
    CUES,
    st.randoms(use_true_random=False),
    st.sampled_from([Limits(), Limits(max_overlap=0.4, n=9), Limits(5, 8)]),
)
def test_whatever_comes_in_the_promises_hold(cues, random, limits):
    units = split_units(cues)
    said = sum(len(re.findall(r"\w+", re.sub(r"\[[^]]*\]", " ", cue.text))) for cue in cues)
    assert sum(len(re.findall(r"\w+", unit.text)) for unit in units) == said
    assert all(
        unit.start <= unit.end <= unit.start + 12 + 1e-6 and len(unit.text.split()) <= 30
        for unit in units
    )
    assert all(a.end <= b.start for a, b in itertools.pairwise(units))
    found = ranking.find_moments(cues, keywords, limits)
    for moment in found.moments:
        assert limits.min_s - 1e-6 <= moment.end - moment.start <= limits.max_s + 1e-6
        assert moment.start >= 0 and moment.end <= max(cue.end for cue in cues) + 1e-3
        assert 0 <= moment.score <= 1
    for a, b in itertools.combinations(found.moments, 2):
        shared = min(a.end, b.end) - max(a.start, b.start)
        padding = 2 * (MAX_LEAD_S + MAX_TAIL_S) if limits.max_overlap else 0
        assert shared <= limits.max_overlap * min(a.end - a.start, b.end - b.start) + padding + 1e-6
    assert found.note.startswith("no moments") is (not found.moments)
    shuffled = list(cues)
    random.shuffle(shuffled)
    assert ranking.find_moments(shuffled, keywords, limits) == found


@pytest.mark.parametrize("dots", ["...", "…", "… ", "— …"])
def test_dots_go_on_with_the_sentence_before_whatever_the_pause(dots):
    cues = [
        Cue(0, 3, "Мы нашли ключ..."),
        Cue(6, 9, f"{dots}от сарая…"),
        Cue(12, 15, f"{dots}и открыли его."),
        Cue(18, 21, "Там спал кот."),
        Cue(24, 27, "Он молчал..."),
        Cue(30, 33, "Мы ушли."),
    ]
    edges = [(unit.begins, unit.ends) for unit in split_units(cues)]
    assert edges == [(True, False), (False, False), (False, True), *[(True, True)] * 3]
    found = ranking.find_moments(cues[1:], keywords, Limits(9, 20))
    assert not any(
        "begins and ends on a sentence" in reason
        for m in found.moments
        for reason in m.reasons
        if m.text.startswith(dots[0])
    )


def test_a_small_letter_goes_on_where_sentences_begin_with_capitals():
    lines = [
        "Мы нашли ключ...",
        "от сарая, который...",
        "стоял открытым.",
        "Там спал кот.",
        "Он молчал.",
        "Мы ушли.",
    ]
    edges = [(unit.begins, unit.ends) for unit in split_units(talk(lines, gap=3))]
    assert (
        edges[:3] == [(True, False), (False, False), (False, True)]
        and edges[3:] == [(True, True)] * 3
    )
    small = [line.lower().replace("...", ".") for line in lines]
    assert all(unit.begins and unit.ends for unit in split_units(talk(small, gap=3)))
    assert not split_units(talk(["и сразу дождь.", *lines[3:]]))[0].begins


def test_brackets_within_and_beside_one_another_are_no_speech():
    for note in (
        "(смеётся) (кашляет)",
        "((смех))",
        "[музыка [громче]]",
        "- (вздыхает).",
        "♪ ля ♪ (поёт)",
    ):
        assert split_units([Cue(0, 3, note)]) == [], note
    assert [unit.text for unit in split_units([Cue(0, 3, "Да (наверное).")])] == ["Да (наверное)."]


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


def test_sounds_in_capitals_are_silence_unless_all_is_written_so():
    sounds = ["СПОКОЙНАЯ МУЗЫКА", "АПЛОДИСМЕНТЫ", "ЗВОНОК В ДВЕРЬ", "ПЕСНЯ НА ИНОСТРАННОМ ЯЗЫКЕ"]
    said = ["Кот открыл дверь.", "МЧС приехало.", "И вошёл.", "Играет музыка.", "Все ушли."]
    cues = [
        Cue(3.0 * k, 3.0 * k + 2, text) for k, text in enumerate([*said[:3], *sounds, *said[3:]])
    ]
    assert " ".join(unit.text for unit in split_units(cues)) == " ".join(said)
    loud = [Cue(c.start, c.end, c.text.upper()) for c in cues]
    assert "ЗВОНОК В ДВЕРЬ" in " ".join(unit.text for unit in split_units(loud))


CREDITS = [
    "Субтитры сделал DimaTorzok",
    "Субтитры создавал Кто-То",
    "Субтитры подогнал «Симон»!",
    "DimaTorzok",
    "Редактор субтитров А.Сёмкин Корректор А.Егорова",
    "Корректор А.Кулакова",
    "субтитры: Иван",
    "Субтитры и перевод выполнили студенты",
    "Субтитры сообщества Amara.org",
]


CREDITS += [
    "Субтитры — Иван Петров",
    "Субтитры Иван Петров",
    "Титры создавал Иван",
    "Субтитры выполнены Иваном",
    "Субтитры были созданы сообществом зрителей",
    "Синхронизация субтитров: Вася",
    "Озвучено студией «Кубик»",
    "Перевод: Иван Петров",
    "Transcribed by https://example.org",
    "Untertitel von Anna",
]


@pytest.mark.parametrize("credit", CREDITS)
def test_credits_that_nobody_says_are_silence(credit):
    cues = [Cue(0, 3, "Кот открыл дверь."), Cue(3, 6, credit), Cue(6, 9, "И вошёл.")]
    assert [unit.text for unit in split_units(cues)] == ["Кот открыл дверь.", "И вошёл."]
    glued = [Cue(0, 6, f"Кот открыл дверь. {credit}"), Cue(6, 9, "И вошёл.")]
    units = split_units(glued)
    assert units[0].text == "Кот открыл дверь." or _BOILERPLATE.search(units[0].text)


@pytest.mark.parametrize(
    "said",
    [
        "Субтитры помогли мне выучить язык.",
        "Мы включили субтитры.",
        "Редактор уволился.",
        "Перевод: кот ушёл.",
        "Субтитры от нейросети смешные.",
        "Субтитры на русском языке есть не везде.",
        "Субтитры сделаны плохо.",
        "Автор субтитров ошибся.",
        "Конец фильма мне не понравился.",
        "Пока мы ехали, пошёл дождь.",
    ],
)
def test_speech_about_subtitles_is_speech(said):
    assert not is_credit(said) and not _BOILERPLATE.search(said)


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


# Loops of a recogniser ----------------------------------------------------------------------------

TOLD = [f"Сосед номер {k} купил зарплату{k} и лопату{k}." for k in range(12)]


@pytest.mark.parametrize(
    "loop",
    [
        ["Я не знаю, что это такое."] * 30,
        ["Зарплата?", "Да, зарплата!"] * 15,
        [" ".join(["Вот такая зарплата."] * 6)] * 5,
        [" ".join(["зарплата"] * 20)] * 4,
    ],
)
def test_a_loop_is_said_once_and_is_no_moment(loop):
    cues = talk([*TOLD, *loop, *(line.replace("Сосед", "Кум") for line in TOLD)])
    found = ranking.find_moments(cues, keywords)
    assert found.moments
    said = {"вот", "такая", "да", "зарплата", "не", "знаю"}
    for moment in found.moments:
        words = [word for word in re.findall(r"\w+", moment.text.lower()) if word in said]
        assert len(words) <= 6, moment.text
    assert "repeat what was just said, as a recogniser does that is stuck" in found.note
    plain = ranking.find_moments(talk(TOLD), keywords)
    assert "repeat" not in plain.note


def test_a_file_of_nothing_but_a_loop_has_no_moment():
    found = ranking.find_moments(talk(["Спасибо."] * 40), keywords)
    assert (
        found.moments == []
        and found.note.startswith("no moments")
        and "39 units repeat" in found.note
    )


def test_people_may_say_a_thing_three_times():
    units = split_units(
        talk(["Шайбу!", "Шайбу!", "Шайбу!", "Нет, нет, нет, нет!", "Кот спит.", "Кот спит."])
    )
    assert not ranking._said_again(units).any()


# The clock of a timeline --------------------------------------------------------------------------


@pytest.mark.parametrize("start", [3600.0, 86_400.0, 0.0])
def test_the_number_wanted_follows_the_speech_and_not_the_clock(start):
    units = [dataclasses.replace(u, start=u.start + start, end=u.end + start) for u in evenly(400)]
    found = ranking.choose(units, random_scores(400))
    assert len(found.moments) == 10 and "at most 10 wanted" in found.note
    assert ("does the video begin at zero?" in found.note) is (start > 0)
    slate = [Unit(0, 2, "Титр.", True, True), *units]
    assert re.search("at most 1[01] wanted", ranking.choose(slate, random_scores(401)).note)


def test_a_sentence_of_thousands_of_words_with_pauses_is_cut():
    n = 6000
    cues = [Cue(3.0 * k + 1.9 * k / n, 3.0 * k + 2, f"слово{k}") for k in range(n)]
    units = split_units([*cues, Cue(3.0 * n, 3.0 * n + 1, "конец.")])
    assert sum(len(unit.text.split()) for unit in units) == n + 1


# Windows and their strength -----------------------------------------------------------------------


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

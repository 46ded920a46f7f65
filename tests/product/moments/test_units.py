"""Sentences with times, made of cues; what nobody says is silence."""

import dataclasses
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.product.moments.talks import keywords, random_scores, talk
from viralbert.moments import ranking
from viralbert.moments.ranking import _BOILERPLATE, MAX_LEAD_S, MAX_TAIL_S, Limits
from viralbert.moments.subtitles import Cue
from viralbert.moments.units import is_credit, split_units
from viralbert_utils.base.errors import DataError


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


def test_a_sentence_of_thousands_of_words_with_pauses_is_cut():
    n = 6000
    cues = [Cue(3.0 * k + 1.9 * k / n, 3.0 * k + 2, f"слово{k}") for k in range(n)]
    units = split_units([*cues, Cue(3.0 * n, 3.0 * n + 1, "конец.")])
    assert sum(len(unit.text.split()) for unit in units) == n + 1

"""What a recogniser repeats that is stuck is said once and is no moment."""

import re

import pytest

from tests.product.moments.talks import keywords, talk
from viralbert.moments import ranking
from viralbert.moments.units import split_units

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

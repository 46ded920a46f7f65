import re

import numpy as np
import pytest

from viralbert_utils.data import emotions


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("[ 2 27]", [2, 27]),
        ("[2, 27]", [2, 27]),
        ("2,27", [2, 27]),
        ("27 2 2", [2, 27]),
        ("[]", []),
        ("['joy', 'love']", [17, 18]),
        ("joy; love", [17, 18]),
        (5, [5]),
        (5.0, [5]),
        ("27.0", [27]),
        (np.int64(5), [5]),
        ([27, 2], [2, 27]),
        (np.array([2, 27]), [2, 27]),
        ((), []),
        ("Joy", [17]),
        (" JOY ;  Злость", [2, 17]),
        ("[2 | 3]", [2, 3]),
        ("2|3", [2, 3]),
        ("радость", [17]),
        ("Без эмоций", [27]),
        ("без\u00a0эмоций; ра\u0301дость", [17, 27]),
        ('["joy", "без эмоций", 3]', [3, 17, 27]),
        (["Joy", "страх", "2", 3.0], [2, 3, 14, 17]),
        (emotions.display_name("neutral"), [27]),
        ("'joy' 'love'", [17, 18]),
        ("joy;", [17]),
        ("\ufeffjoy\r\nanger", [2, 17]),
        ("радость и злость", [2, 17]),
        ("joy and anger & love", [2, 17, 18]),
        ("радость (joy), злость", [2, 17]),
        (str(np.array([2.0, 27.0])), [2, 27]),
        ({2, 27}, [2, 27]),
        ("jоy, грусть", [17, 25]),  # a Cyrillic о
    ],
)
def test_label_spellings(field, expected):
    assert emotions.parse_labels(field) == expected


@pytest.mark.parametrize(
    "field",
    [
        None,
        float("nan"),
        "",
        "  ",
        "happy",
        "2.5",
        {"a": 1},
        [1.5],
        True,
        b"2",
        2.5,
        "joy/anger",
        "''",
        "2" * 5000,
        float("inf"),
        [np.inf],
        "٢",
        "радость и гнев",
    ],
)
def test_unreadable_labels_are_errors(field):
    with pytest.raises(ValueError, match=r"label|emotion"):
        emotions.parse_labels(field)


def test_names_belong_to_the_label_set():
    assert emotions.parse_labels("anger, joy", emotions.CEDR_EMOTIONS) == [0, 4]
    with pytest.raises(ValueError, match="'love' is neither"):
        emotions.parse_labels("love", emotions.CEDR_EMOTIONS)


def test_names_of_several_words_and_names_that_differ_by_case_alone():
    assert emotions.parse_labels("No Emotion", emotions.CEDR_CLASSES) == [5]
    assert emotions.parse_labels("no_emotion; Грусть", emotions.CEDR_CLASSES) == [1, 5]
    with pytest.raises(ValueError, match=r"'joy' may mean several labels of this set \(\[0, 1\]\)"):
        emotions.parse_labels("joy", ("Joy", "JOY", "fear"))


def test_names_are_complete_and_distinct():
    assert len(emotions.EMOTIONS) == 28
    assert emotions.EMOTIONS[0] == "admiration"
    assert emotions.EMOTIONS[27] == "neutral"
    assert len(set(emotions.RUSSIAN_NAMES.values())) == 28
    assert emotions.display_name("joy") == "joy · радость"


def test_each_emotion_is_in_one_group():
    members = [name for names in emotions.SENTIMENTS.values() for name in names]
    assert sorted(members) == sorted(emotions.EMOTIONS)


def test_groups_are_those_of_goemotions():
    assert {name: len(members) for name, members in emotions.SENTIMENTS.items()} == {
        "positive": 12,
        "negative": 11,
        "ambiguous": 4,
        "neutral": 1,
    }
    # No class of CEDR mixes positive and negative emotions.
    sentiment = {name: group for group, members in emotions.SENTIMENTS.items() for name in members}
    assert {(cedr, sentiment[name]) for name, cedr in emotions.GOEMOTIONS_TO_CEDR.items()} == {
        ("joy", "positive"),
        ("sadness", "negative"),
        ("surprise", "ambiguous"),
        ("fear", "negative"),
        ("anger", "negative"),
        ("no_emotion", "neutral"),
    }


def test_multi_hot_places_every_label():
    assert emotions.multi_hot([[0, 2], [], [1]], 3).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_multi_hot_refuses_other_label_sets():
    with pytest.raises(ValueError, match=r"row 1: label id 28 is outside 0\.\.27"):
        emotions.multi_hot([[3], [28]])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["joy"], ["joy"]),
        (["amusement", "joy"], ["joy"]),
        (["grief", "fear"], ["sadness", "fear"]),
        (["joy", "curiosity"], ["joy"]),
        (["neutral"], ["no_emotion"]),
        (["curiosity"], None),
        (["love", "caring"], None),
        (["curiosity", "neutral"], None),
        (["joy", "neutral"], ["joy"]),
    ],
)
def test_cedr_mapping(names, expected):
    mapped = emotions.to_cedr([emotions.EMOTIONS.index(name) for name in names])
    assert mapped == (expected and [emotions.CEDR_CLASSES.index(name) for name in expected])


def test_empty_cedr_label_is_a_class_of_its_own():
    assert emotions.cedr_with_no_emotion([]) == [5]
    assert emotions.cedr_with_no_emotion([1, 3]) == [1, 3]


def test_every_class_of_the_course_has_a_russian_name():
    for name in (*emotions.EMOTIONS, *emotions.CEDR_CLASSES, "viral"):
        assert re.search("[а-яё]", emotions.russian_name(name)), name
        assert emotions.display_name(name) == f"{name} · {emotions.russian_name(name)}"
    assert emotions.russian_name("good") == "good"
    assert emotions.parse_labels("ни одной из эмоций", emotions.CEDR_CLASSES) == [5]

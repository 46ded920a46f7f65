"""Twice the subtitles take twice the time: what a stranger sends must not hold a processor for
hours."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.timing import grows
from tests.utils.base import test_growth
from tests.utils.base.test_growth import patterns_of
from viralbert.commands import answers
from viralbert.course import catalogue
from viralbert.moments import (
    cue_text,
    encodings,
    formats,
    outputs,
    ranking,
    recogniser_json,
    subtitles,
    timed_text,
    units,
)
from viralbert.serving import aims, names
from viralbert_utils.base.errors import DataError

MODULES = (
    encodings,
    cue_text,
    recogniser_json,
    timed_text,
    formats,
    subtitles,
    units,
    ranking,
    outputs,
    answers,
    aims,
    names,
)
SHORT_READ_S = 0.05  # of a whole file, where much more is done than one search

# Pieces that a file may repeat without end. Each pattern meets all of them, alone and behind a
# beginning of its own.
PIECES = [
    " ",
    "\t",
    "\r",
    "\n",
    "1",
    "а",
    "a ",
    "а ",
    "-",
    "- ",
    ".",
    "…",
    "!",
    "?",
    ":",
    ",",
    "=",
    ";",
    "'",
    '"',
    "«",
    "»",
    "(",
    ")",
    "()",
    "( ",
    "(а",
    "[",
    "]",
    "[]",
    "[а",
    "[[а]",
    "{",
    "}",
    "{}",
    '{"',
    '{ "',
    "{\\p1",
    "\\p1",
    "{\\p1}",
    "<",
    "<b ",
    "<b a=",
    "<v ",
    "<br ",
    "&",
    "&lt;",
    "♪",
    "♪а",
    "1:",
    "00:00:01,000 ",
    "00:01 ",
    "a:b ",
    "a=b ",
    "WEBVTT ",
    "```",
    "\n```",
    "Dialogue:,",
    "субтитры ",
    "это ",
    "\u200b",
    "\u2028",
    "😂",
]
# How each pattern is asked, and what else it has to meet: beginnings that lead it to its end.
PATTERNS = {
    "cue_text._TAG": ("sub", ["<b", "<b a=", "<font color=", "<v ", "<1", "{\\"]),
    "cue_text._BREAK": ("sub", ["<br"]),
    "cue_text._CONTROL": ("sub", []),
    "cue_text._ISO_LENGTH": ("fullmatch", ["PT", "PT1", "PT1H1"]),
    "cue_text._CLOCK": ("fullmatch", ["1", "1:"]),
    "formats._FENCE": ("sub", ["```", "\n```"]),
    "formats._IS_ASS": ("search", ["Dialogue:", "Dialogue:0,"]),
    "formats._OBJECT": ("search", ["{"]),
    "formats._TABLE": ("match", ["["]),
    "recogniser_json._RANGE": ("fullmatch", ["1:1", "1:1 -"]),
    "recogniser_json._OPENING": ("search", ["{"]),
    "formats._DRAWING": ("sub", ["{", "{\\p1", "{\\p1}"]),
    "formats._OVERRIDE": ("sub", ["{"]),
    "timed_text._TIMING": (
        "match",
        ["1 ", "00:00:01,000", "00:00:01,000 -", "00:00:01,000 --> ", "00:00:01,000 1"],
    ),
    "timed_text._ONLY_SETTINGS": ("fullmatch", [" ", " a", " a:"]),
    "timed_text._FORMS": (
        "fullmatch",
        ["00:00:01,000 --> 00:00:02,000", "00:01.000 --> 00:02.000"],
    ),
    "timed_text._BROKEN": ("match", ["1:1", " 00:00:01"]),
    "timed_text._EXACT": ("search", [":"]),
    "timed_text._NUMBER": ("fullmatch", ["1"]),
    "timed_text._HEADER": ("fullmatch", ["WEBVTT "]),
    "timed_text._GLUED_HEADER": ("search", ["аWEBVTT"]),
    "timed_text._HEADER_FIELD": ("fullmatch", ["X-", "Kind", "Kind:"]),
    "timed_text._MPEG_TIME": ("search", ["MPEGTS:"]),
    "timed_text._LOCAL_TIME": ("search", ["LOCAL:"]),
    "timed_text._BLOCK": ("match", ["NOTE"]),
    "timed_text._INLINE_TIME": ("search", ["<", "<1"]),
    "units._NOTE": ("sub", ["[", "[[а", "♪"]),
    "units._ALL_IN_BRACKETS": ("fullmatch", ["(", "(а) "]),
    "units._SOUND": ("fullmatch", ["АПЛОДИСМЕНТЫ", "СМЕХ "]),
    "units._CREDIT": ("match", ["субтитры ", "субтитры и ", "редактор "]),
    "units._WORD": ("sub", []),
    "units._LETTER": ("search", []),
    "units._GOES_ON": ("match", ["."]),
    "units._SMALL": ("match", []),
    "units._STOP": ("sub", [".", ".»"]),
    "ranking._QUESTION": ("search", ["?", "?»"]),
    "ranking._BACK_REFERENCE": ("match", ["котор", "- "]),
    "ranking._BOILERPLATE": ("search", ["спасибо ", "спасибо а ", "субтитры "]),
    "outputs._WORD": ("sub", []),
    "outputs._CHAPTER_SIGN": ("sub", []),
    "outputs._FORMULA": ("sub", [";"]),
    "outputs._DURATION": ("search", ["Duration: ", "Duration: 1:", "Duration: 1:1:"]),
    "outputs._UNDECODED": ("sub", []),
    "outputs.UNPRINTABLE": ("sub", []),
    "outputs._DEVICE": ("match", ["com"]),
    "answers.UNPRINTABLE": ("sub", []),
    "answers._SEPARATOR": ("split", []),
    "answers._JSON": ("match", ["{", "["]),
    "aims._NAME": ("fullmatch", ["a"]),
    "names._NAME": ("fullmatch", ["a"]),
}


def compiled() -> dict[str, list[re.Pattern[str]]]:
    found: dict[str, list[re.Pattern[str]]] = defaultdict(list)
    for module in MODULES:
        for name, pattern in patterns_of(module).items():
            found[name.partition("[")[0]].append(pattern)
    return found


def test_every_module_with_patterns_is_measured():
    using = {
        path.stem
        for package in catalogue.PACKAGES
        for path in (catalogue.HOME / package).rglob("*.py")
        if re.search(
            r"^\s*(?:import re\b|from re )", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    measured = {module.__name__.rpartition(".")[2] for module in (*MODULES, *test_growth.MODULES)}
    assert measured >= {"texts", "tables", "timed_text", "units"}
    # They search what the course itself has written, and `triton` the name of a folder; `terminal`
    # lends its one pattern to `outputs` and `answers`.
    course = {"accessible", "catalogue", "course", "first_page", "lesson", "manuals"}
    course |= {"packages", "reference", "report", "runner"}
    assert using - measured == course | {"pretraining", "server", "terminal", "triton"}


def test_every_pattern_has_inputs_that_it_grows_by():
    assert set(compiled()) == set(PATTERNS)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_no_pattern_hides_inside_a_function(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    inside = [
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "re"
        and node.attr not in ("Match", "Pattern")
    ]
    assert not inside, "a pattern belongs to the top of the module, where this test sees it"


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_take_linear_time(name):
    how, beginnings = PATTERNS[name]
    for pattern in compiled()[name]:
        call = getattr(pattern, how)
        ask = (lambda text, sub=call: sub("", text)) if how == "sub" else call
        for beginning in ["", *beginnings]:
            for piece in PIECES:
                for end in ("", "ъ"):
                    problem = grows(ask, repeated(beginning, piece, end), 4000)
                    assert not problem, (
                        f"{beginning!r}, {piece!r} again and again, {end!r}: {problem}"
                    )


TIME = "00:00:01,000 --> 00:00:02,000"
DIALOGUE = "Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,"
# Files of every format, with the places where a piece may stand again and again.
FILES = {
    "srt": [
        "1\n" + TIME + "\n@а\n",
        "1\n00:00:01,000@ --> 00:00:02,000\nа\n",
        "1\n" + TIME + "@а\nа\n",
        "1\n@" + TIME + "\nа\n",
        "@\n\n1\n" + TIME + "\nа\n",
        "1\n00:00:01,000@",
        "1\n" + TIME + "\nа\n\n@ъ",
    ],
    "vtt": [
        "WEBVTT\n\n00:01.000 --> 00:02.000\n@а\n",
        "WEBVTT\n@\n\n00:01.000 --> 00:02.000 @\nа\n",
        "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:@,LOCAL:@\n\n00:01.000 --> 00:02.000\nа\n",
        "WEBVTT\n\nNOTE @а\n\n@",
    ],
    "ass": [
        "[Script Info]\n" + DIALOGUE + "@а\n",
        "[Script Info]\nDialogue: 0,@,@а\n",
        "[Script Info]\nFormat: @text\n" + DIALOGUE + "а\n",
        "[Script Info]\n" + DIALOGUE + "{\\p1}@{\\p0}а\n",
    ],
    "json": [
        '[{"text": "а", "start": 1}, @',
        "[@",
        '{"@',
        '[{"text": "а", "start": "@"}]',
        '{"segments": [{"text": "@а',
    ],
    "json3": ['{"events": [{"tStartMs": 1, "segs": [{"utf8": "а"}]}, @'],
}
ROWS = {
    "srt": "1\n" + TIME + "\nДа, да.\n\n",
    "vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nДа, да.\n\n",
    "ass": DIALOGUE + "Да, да.\n",
    "json": '{"text": "Да, да.", "start": 1, "end": 2}, ',
    "json words": '{"word": "Да", "start": 1, "end": 2}, ',
    "json without names": '[0, 1, 2, "Да", [1, 2]], ',
    "json lines": '{"text": "Да, да.", "start": 1, "end": 2}\n',
    "json nested": '{"a": [1, ',
    "json opened": '{"text": "а", "words": [{"word": "а" ',
    "json3": '{"tStartMs": 1, "segs": [{"utf8": "Да"}]}, ',
}


def repeated(beginning: str, piece: str, end: str) -> Callable[[int], str]:
    return lambda n: beginning + piece * (n // len(piece)) + end


def read(text: str) -> None:
    with suppress(DataError):
        units.split_units(subtitles.read_subtitles(text).cues)


@pytest.mark.parametrize("kind", FILES)
def test_readers_take_linear_time(kind):
    for content in FILES[kind]:
        for piece in PIECES:
            beginning, *rest = content.split("@")
            problem = grows(
                read,
                lambda n, b=beginning, p=piece, r=rest: (
                    b + "".join(p * (n // len(p)) + e for e in r)
                ),
                6000,
                SHORT_READ_S,
            )
            assert not problem, f"{piece!r} again and again in {content!r}: {problem}"


@pytest.mark.parametrize("kind", ROWS)
def test_many_rows_take_linear_time(kind):
    for beginning in ("", '{"segments": [', "["):
        for end in ("", "{}]}", "{}]"):
            problem = grows(read, repeated(beginning, ROWS[kind], end), 30_000, SHORT_READ_S)
            assert not problem, f"{beginning!r}, rows, {end!r}: {problem}"


def test_a_line_that_nobody_says_takes_linear_time():
    assert not grows(read, repeated(f"1\n{TIME}\nДа.\n\n2\n{TIME}", " ", "\nНет.\n"), 1_000_000)


def test_a_line_that_nobody_says_is_cut_and_reported():
    line = "00:00:03,000 --> 00:00:04,000" + " " * 2_000_000
    found = subtitles.read_subtitles(f"1\n{TIME}\nДа.\n\n2\n{line}\nНет.\n")
    assert [cue.text for cue in found.cues] == ["Да.", "Нет."]
    assert found.repairs[0].startswith(
        "longer than 20,000 characters, cut: 1 (line 6: '00:00:03,000 --> "
    )
    found = subtitles.read_subtitles([{"text": "да " * 20_000, "start": 1}])
    assert len(found.cues[0].text) <= 20_000 and "longer than 20,000 characters" in found.repairs[0]

"""Encodings and ends of lines: told by the bytes, and a damaged letter costs no other."""

import itertools
import re
from collections import defaultdict

import pytest

from tests.product.moments.three_cues import CUES, SRT, VTT, cue, reports
from viralbert.moments import cue_text
from viralbert.moments.subtitles import Cue, read_subtitles


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize(
    ("encoding", "named", "guessed"),
    [
        ("utf-8", "utf-8", False),
        ("utf-8-sig", "utf-8", False),
        ("utf-16", "utf-16", False),
        ("utf-16-le", "utf-16-le", True),
        ("utf-16-be", "utf-16-be", True),
        ("cp1251", "cp1251", True),
        ("koi8-r", "koi8-r", True),
        ("cp866", "cp866", True),
    ],
)
def test_encodings_and_line_ends(tmp_path, encoding, named, guessed, line_end):
    path = tmp_path / "кот.srt"
    for content in (SRT, VTT):
        # KOI8-R and the code page of DOS have no dash and no such quotes.
        plain = content.translate({ord("—"): "-", ord("«"): '"', ord("»"): '"'})
        path.write_bytes(plain.replace("\n", line_end).encode(encoding))
        result = read_subtitles(path)
        assert [c.text for c in result.cues] == [c.text for c in CUES[:2]] + ['Ёжик - "против"!']
        assert result.encoding == named
        assert reports(result, *["encoding guessed"] * guessed)
    path.write_bytes(b"\xff\xfe" + SRT.replace("\n", line_end).encode("utf-16-le"))
    assert read_subtitles(path, strict=True).cues == CUES


def test_any_mixture_of_line_ends_is_read():
    """As the expression says; an expression would hold the interpreter for a tenth of a second in a
    large file."""
    for length in range(8):
        for chars in itertools.product("\r\na", repeat=length):
            text = "".join(chars)
            assert cue_text.split_lines(text, defaultdict(list)) == re.split(
                r"(?<!\r)\r*\n|\r", text
            ), repr(text)


@pytest.mark.parametrize(
    ("main", "other"), list(itertools.permutations(["utf-8", "cp1251", "koi8-r"], 2))
)
def test_one_cue_in_another_encoding(tmp_path, main, other):
    cues = [cue(n, n + 1, f"Сегодня кот под номером {n} никуда не пойдёт") for n in range(9)]
    parts = [block.encode(other if n == 4 else main) for n, block in enumerate(cues)]
    path = tmp_path / "кот.srt"
    path.write_bytes(b"\n\n".join(b"%d\n%s" % (n, part) for n, part in enumerate(parts, 1)))
    result = read_subtitles(path)
    assert [c.text for c in result.cues] == [block.split("\n")[1] for block in cues]
    assert result.encoding == main
    assert any(f"line 19 read as {other}: 'Сегодня кот" in line for line in result.repairs)


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866"])
@pytest.mark.parametrize("said", ["Ну да", "Что", "Пошли домой", "НЕТ, НЕ НАДО"])
def test_a_few_words_are_enough(tmp_path, said, encoding):
    path = tmp_path / "кот.srt"
    path.write_bytes(cue(1, 2, said).encode(encoding))
    result = read_subtitles(path)
    assert (result.cues[0].text, result.encoding) == (said, encoding)


def test_a_damaged_letter_is_shown_and_costs_no_other(tmp_path):
    path = tmp_path / "кот.srt"
    path.write_bytes(SRT.encode().replace("проснулся".encode(), "проснулся".encode()[:-1]))
    result = read_subtitles(path)
    assert result.cues == [Cue(1.0, 2.5, "Кот проснулс\ufffd."), *CUES[1:]]
    assert reports(result, "damaged utf-8")

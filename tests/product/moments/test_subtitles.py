"""Subtitles that are written are read again, and no damage is more than an error."""

import html
import io
import itertools
import json
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.product.moments.three_cues import (
    ASS,
    CUES,
    JSON3,
    LIST,
    SRT,
    VTT,
    WHISPER,
    rolling,
    spoken_lines,
)
from viralbert.moments import subtitles
from viralbert.moments.subtitles import Cue, read_subtitles, write_subtitles
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.texts import normalise
from viralbert_utils.data.sources import SAMPLE

# Writing ------------------------------------------------------------------------------------------

TEXTS = st.text("абёЯ xyz 0189 <>&;{}-:.,!?«»—", min_size=1, max_size=30).map(normalise)


@st.composite
def cue_lists(draw: st.DrawFn) -> list[Cue]:
    """Different texts, a second long at least: one word again and again, in a flash, is a rolling
    caption.

    Nor are they all of one word, which in JSON are the words of a recogniser.
    """
    seconds = sorted(draw(st.sets(st.integers(0, 400_000), min_size=2, max_size=12)))
    ms = draw(st.integers(0, 999))
    starts = [(1000 * second + ms) / 1000 for second in seconds]
    texts = draw(
        st.lists(
            TEXTS.filter(bool), min_size=len(starts) - 1, max_size=len(starts) - 1, unique=True
        )
    )
    assume(any(" " in text for text in texts))
    return [Cue(a, b, text) for (a, b), text in zip(itertools.pairwise(starts), texts, strict=True)]


@settings(max_examples=150, deadline=None)
@given(cue_lists())
def test_what_is_written_is_read_again(tmp_path_factory, cues):
    folder = tmp_path_factory.mktemp("written")
    for suffix in (".vtt", ".json", ".srt"):
        write_subtitles(cues, folder / f"a{suffix}")
        plain = [c for c in cues if suffix != ".srt" or not set("<>&") & set(c.text)]
        if cues and plain == cues:
            assert read_subtitles(folder / f"a{suffix}", strict=True).cues == cues


def test_what_looks_like_a_tag_is_escaped_in_webvtt(tmp_path):
    cues = [Cue(0, 1, "a <b> & <i>c</i> --> &lt;")]
    write_subtitles(cues, tmp_path / "a.vtt")
    assert read_subtitles(tmp_path / "a.vtt", strict=True).cues == cues


def test_other_formats_are_written_by_pysubs2(tmp_path):
    cues = [*CUES, Cue(8, 9, "{скобки} и, запятая")]
    for suffix in (".ass", ".ssa"):
        write_subtitles(cues, tmp_path / f"a{suffix}")
        result = read_subtitles(tmp_path / f"a{suffix}", strict=True)
        assert result.cues == [*CUES, Cue(8, 9, "(скобки) и, запятая")]
        assert result.format == "ass"
    write_subtitles(cues, str(tmp_path / "a.ttml"))
    assert html.escape("Ёжик") in html.unescape((tmp_path / "a.ttml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("cues", "name"),
    [
        ([Cue(1, 1, "а")], "a.srt"),
        ([Cue(-1, 1, "а")], "a.vtt"),
        ([Cue(1, 1.0001, "а")], "a.json"),
        (CUES, "a.docx"),
        (CUES, "a"),
        ([Cue(40_000, 40_001, "а")], "a.ass"),
    ],
)
def test_what_cannot_be_written_is_an_error_and_leaves_no_file(tmp_path, cues, name):
    with pytest.raises(DataError, match=r"expected 0 <= start < end|cannot be written"):
        write_subtitles(cues, tmp_path / name)
    assert not list(tmp_path.iterdir())


# Any input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted(p for p in (SAMPLE / "subtitles").iterdir() if p.suffix in (".srt", ".vtt"))
)
def test_the_sample_needs_no_repair(path):
    result = read_subtitles(path, strict=True)
    assert len(result.cues) == path.read_text(encoding="utf-8").count("-->")
    assert result.format == path.suffix[1:]


def mutate(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 10])):
        at, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        other = min(other, at + rng.choice([1, 3, 30, len(data)]))
        match rng.randrange(6):
            case 0:
                data[at:other] = b""
            case 1:
                data[at:at] = rng.choice(
                    [rng.randbytes(3), b"\n", b"-->", b":", b"-", b"9", b'"', b"{", b"<", b"\0"]
                )
            case 2:
                data[at:other] = data[at:other][::-1]
            case 3:
                data[at:at] = data[at:other]
            case 4:
                del data[rng.randrange(len(data) + 1) :]
            case _ if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def test_ten_thousand_damaged_files(tmp_path, monkeypatch):
    rng = random.Random(7)
    valid = [
        SRT,
        VTT,
        ASS,
        json.dumps(LIST),
        json.dumps(WHISPER),
        json.dumps(JSON3, ensure_ascii=False),
    ]
    valid += [rolling(spoken_lines()[:4], tags=True, brief=True, kept_blanks=True)]
    sources = [text.encode() for text in valid] + [
        SRT.encode("cp1251"),
        SRT.encode("utf-16"),
        VTT.encode("cp1251"),
    ]
    path = tmp_path / "damaged.srt"
    path.touch()
    n_read = 0
    for n in range(10_000):
        damaged = mutate(sources[n % len(sources)], rng)
        # A disk takes longer than all else.
        monkeypatch.setattr(subtitles, "opened", lambda _, content=damaged: io.BytesIO(content))
        try:
            result = read_subtitles(path)
        except DataError as error:
            assert str(error)
            continue
        n_read += 1
        assert all(
            0 <= c.start < c.end and c.text and c.text == " ".join(c.text.split())
            for c in result.cues
        )
        assert all(a.start <= b.start for a, b in itertools.pairwise(result.cues))
        assert all(isinstance(line, str) for line in result.repairs)
    assert 7000 < n_read < 10_000


def test_one_wrong_character_costs_two_cues_at_most(tmp_path):
    whole = [Cue(n, n + 1, f"Реплика номер {n}") for n in range(12)]
    rng = random.Random(3)
    for suffix in (".srt", ".vtt", ".json"):
        path = tmp_path / f"a{suffix}"
        write_subtitles(whole, path)
        content = path.read_text(encoding="utf-8")
        for _ in range(400):
            at = rng.randrange(1, len(content))
            damaged = (
                content[:at]
                + rng.choice(["", "\n", "-", "x", "5", ":", '"', "}"])
                + content[at + 1 :]
            )
            assert len(set(read_subtitles(damaged).cues) & set(whole)) >= 10, damaged

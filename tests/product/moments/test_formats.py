"""A format is told by its content; what is no subtitle file is a clear error."""

import json
import random

import pytest

from tests.product.moments.three_cues import (
    ASS,
    ASS_HEAD,
    CUES,
    JSON3,
    LIST,
    SRT,
    VTT,
    WHISPER,
    reports,
    texts,
)
from viralbert.moments.subtitles import Cue, read_subtitles
from viralbert_utils.base.errors import DataError


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (SRT, "srt"),
        (VTT, "vtt"),
        (ASS, "ass"),
        (json.dumps(LIST), "json"),
        (json.dumps(WHISPER), "whisper"),
        (json.dumps(JSON3, ensure_ascii=False), "json3"),
    ],
)
@pytest.mark.parametrize("suffix", [".srt", ".vtt", ".ass", ".json", ".txt"])
def test_a_format_is_told_by_its_content(tmp_path, content, kind, suffix):
    path = tmp_path / f"кот{suffix}"
    path.write_text(content, encoding="utf-8")
    for source in (path, str(path), content):
        result = read_subtitles(source, strict=True)
        assert result.cues[1:] == CUES[1:]
        assert result.cues[0] == (Cue(1.0, 3.0, "Кот проснулся.") if kind == "json3" else CUES[0])
        assert (result.format, result.repairs) == (kind, [])
        assert result.encoding == ("" if source is content else "utf-8")


def test_a_string_is_a_path_or_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for missing in ("нет такого.srt", "a/b.JSON"):
        with pytest.raises(DataError, match="no subtitle file"):
            read_subtitles(missing)
    with pytest.raises(DataError, match="no subtitle file"):
        read_subtitles(tmp_path / "кот")
    with pytest.raises(DataError, match="could not be read"):
        read_subtitles(tmp_path)
    assert texts(json.dumps(LIST[:1])) == ["Кот проснулся."]
    for not_a_path in ("~никто/кот", "ы" * 5000, "\0"):
        with pytest.raises(DataError, match="no cue found"):
            read_subtitles(not_a_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        " \n\n",
        "\ufeff",
        "WEBVTT\n\n",
        "[]",
        "{}",
        '{"a": 1}',
        "[1, 2]",
        "просто\nтекст\n",
        "1\n\n2\n",
        ASS_HEAD,
    ],
)
def test_nothing_to_read_is_a_clear_error(tmp_path, content):
    path = tmp_path / "кот.srt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"кот\.srt: no cue found.*Expected SubRip"):
        read_subtitles(path)


def test_noise_is_a_clear_error(tmp_path):
    path = tmp_path / "кот.srt"
    for seed in range(5):
        path.write_bytes(random.Random(seed).randbytes(5000))
        with pytest.raises(DataError, match="no cue found"):
            read_subtitles(path)
    for nested in ("[" * 10_000, '{"a":' * 5_000):
        with pytest.raises(DataError, match="no cue found"):
            read_subtitles(nested)


def test_lists_with_and_without_ends():
    short, long = "Да.", "Нет, " * 40
    result = read_subtitles(
        [
            {"text": short, "start": 10, "end": ""},
            {"text": long, "start": "12.5", "end": float("nan")},
            {"text": "Длится.", "start": 14, "duration": 3},
            {"text": "Поверх.", "start": 15.0, "duration": 2.5, "end": None},
            {"text": short, "start": "0:01:00,5"},
        ],
        strict=True,
    )
    assert [(c.start, c.end) for c in result.cues] == [
        (10, 11.3),
        (12.5, 14),
        (14, 15),
        (15, 17.5),
        (60.5, 61.8),
    ]
    assert (result.format, result.encoding) == ("list", "")


def test_list_entries_that_cannot_be_used_are_named():
    entries = [
        {"text": "раз", "start": 1},
        {"text": "два", "start": None},
        {"text": "три", "start": float("nan")},
        {"text": "четыре", "start": 5, "end": "скоро"},
        {"text": None, "start": 6},
        {"text": "шесть", "start": 1e300},
        {"text": "семь", "start": 10**400},
        "восемь",
    ]
    result = read_subtitles(entries)
    assert [(c.text, c.start) for c in result.cues] == [("раз", 1), ("четыре", 5)]
    assert reports(
        result,
        "cue without a readable start dropped",
        "unreadable end estimated",
        "cue without text dropped",
        "entry that is no mapping dropped",
    )
    assert "entry 2 (start None, end None): 'два'" in result.repairs[2]
    with pytest.raises(DataError, match="no cue found"):
        read_subtitles([])


def test_ass_reads_by_its_format_line_and_loses_one_line_not_the_file():
    content = (
        "[Events]\nFormat: Start, End, Text\n"
        "Dialogue: 100:00:01.5,100:00:02.50,Да, да,\\hда {заметка}\n"
        "Dialogue: 0:00:0x.00,0:00:02.50,потеря\n"
        "Dialogue: 0:00:03.00,0:0\n"
    )
    result = read_subtitles("[Script Info]\n" + content)
    assert result.cues == [Cue(360001.5, 360002.5, "Да, да, да")]
    assert reports(result, "cue without a readable start dropped", "cue without text dropped")
    mixed = (
        ASS_HEAD
        + "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}Вывеска\n"
    )
    assert texts(mixed) == ["Вывеска"]

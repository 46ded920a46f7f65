import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from viralbert.moments import outputs
from viralbert.moments.ranking import EmotionPeak, Found, Moment, Rejected
from viralbert.moments.subtitles import Cue, read_subtitles
from viralbert_utils.base import files
from viralbert_utils.base.errors import DataError

LATER = Moment(
    1,
    10.2,
    27.24,
    0.75,
    2.1,
    "Кот сказал: «Дай, 5; #рублей = всё\\».",
    [EmotionPeak("joy", 0.3, 0.8, 12.5)],
    ["its lines score 0.75"],
)
EARLIER = Moment(2, 2.0, 6.0, 0.5, 1.0, "Слово " * 40, [], [])
FOUND = Found([LATER, EARLIER], "2 moments", [Rejected(30, 50, 0.4, "weaker")])
CUES = [
    Cue(1, 3, "рано раз два"),
    Cue(3, 5.98, "целиком"),
    Cue(5.98, 9, "тихо"),
    Cue(20, 40, "а б в г д е ж з и к"),
]


def test_json_holds_everything(tmp_path):
    outputs.write_json(FOUND, tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert [m["rank"] for m in content["moments"]] == [1, 2]
    assert content["moments"][0]["emotions"] == [
        {"name": "joy", "mean": 0.3, "peak": 0.8, "peak_s": 12.5, "russian": "радость"}
    ]
    assert content["rejected"] == [{"start": 30, "end": 50, "score": 0.4, "reason": "weaker"}]
    assert content["note"] == "2 moments" and content["version"] == 1


def test_losslesscut_reads_start_end_label_in_order(tmp_path):
    outputs.write_losslesscut(FOUND.moments, tmp_path / "m.csv")
    rows = list(csv.reader((tmp_path / "m.csv").open(encoding="utf-8", newline="")))
    assert [row[:2] for row in rows] == [["2.000", "6.000"], ["10.200", "27.240"]]
    assert rows[1][2] == f"1. 0.75 {LATER.text}"
    assert rows[0][2].endswith("…") and len(rows[0][2]) < 80


def test_subtitles_of_a_clip_start_at_zero_and_hold_its_words_only(tmp_path):
    assert outputs.clip_cues(CUES, EARLIER) == [Cue(0, 1, "раз два"), Cue(1, 3.98, "целиком")]
    assert outputs.clip_cues(CUES, LATER) == [Cue(9.8, 17.04, "а б в г")]
    paths = outputs.write_clip_subtitles(CUES, FOUND.moments, tmp_path)
    assert [path.name for path in paths] == ["01.srt", "02.srt"]
    assert read_subtitles(paths[1]).cues == [Cue(0, 1, "раз два"), Cue(1, 3.98, "целиком")]


def test_chapters_escape_what_ffmpeg_reads(tmp_path):
    outputs.write_chapters(FOUND.moments, tmp_path / "m.txt")
    text = (tmp_path / "m.txt").read_text(encoding="utf-8")
    assert text.startswith(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=2000\nEND=6000\n")
    assert "title=1. 0.75 Кот сказал: «Дай, 5\\; \\#рублей \\= всё\\\\».\n" in text


def frames(timecode: str) -> int:
    h, m, s, f = map(int, timecode.split(":"))
    return ((h * 60 + m) * 60 + s) * 25 + f


def test_edl_keeps_lengths_and_puts_clips_one_after_another(tmp_path):
    late = Moment(3, 3600.5, 3661.0, 0.4, 0, "Поздно.", [], [])
    outputs.write_edl([*FOUND.moments, late], tmp_path / "m.edl")
    lines = (tmp_path / "m.edl").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["TITLE: Moments", "FCM: NON-DROP FRAME"]
    events = [
        re.fullmatch(r"(\d{3})  AX       B     C        (\S+) (\S+) (\S+) (\S+)", line)
        for line in lines[2::2]
    ]
    times = [tuple(map(frames, event.groups()[1:])) for event in events]
    assert [time[:2] for time in times] == [(50, 150), (255, 681), (90012, 91525)]
    assert [time[2:] for time in times] == [(0, 100), (100, 526), (526, 2039)]
    assert events[2][2] == "01:00:00:12"
    for fps in (29.97, 0):
        with pytest.raises(DataError, match="whole frame rates"):
            outputs.write_edl(FOUND.moments, tmp_path / "n.edl", fps)
    assert not (tmp_path / "n.edl").exists()


def test_otio_round_trip(tmp_path):
    otio = pytest.importorskip("opentimelineio")
    outputs.write_otio(FOUND.moments, tmp_path / "m.otio", "video.mp4", 24000 / 1001)
    clips = list(otio.adapters.read_from_file(str(tmp_path / "m.otio")).find_clips())
    assert [clip.media_reference.target_url for clip in clips] == ["video.mp4"] * 2
    starts = [clip.source_range.start_time.to_seconds() for clip in clips]
    assert starts == pytest.approx([2.0, 10.2], abs=0.03)
    assert clips[1].source_range.duration.to_seconds() == pytest.approx(17.04, abs=0.05)


def test_missing_tools_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    with pytest.raises(
        DataError, match=r"opentimelineio is not installed: pip install 'viralbert-course\[video\]'"
    ):
        outputs.write_otio(FOUND.moments, tmp_path / "m.otio", "video.mp4")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="no ffmpeg on the PATH"):
        outputs.cut(tmp_path / "video.mp4", FOUND.moments, tmp_path)


def test_cut_command_seeks_before_the_input_and_encodes_anew(tmp_path):
    command = outputs.cut_command(tmp_path / "a b; rm.mp4", LATER, tmp_path / "01.mp4")
    assert command[0] == "ffmpeg" and "copy" not in command
    assert command.index("-ss") < command.index("-to") < command.index("-i")
    assert (
        command[command.index("-ss") + 1] == "10.200"
        and command[command.index("-to") + 1] == "27.240"
    )
    assert command[command.index("-i") + 1] == f"file:{tmp_path}/a b; rm.mp4"


STAND_IN = """#!/bin/sh
for word; do last="$word"; done
case "$*" in
*-ss\\ 30.000*) echo "Conversion failed!" >&2; exit 1;;
*-ss*) echo "$*" > "${last#file:}";;
*) echo "  Duration: 00:01:11.00, start: 0.000000" >&2; exit 1;;
esac
"""


def test_a_moment_is_cut_at_the_end_of_the_video_and_one_that_fails_stops_no_other(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "ffmpeg").write_text(STAND_IN)
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    late = Moment(1, 50.0, 75.0, 0.5, 1.0, "Поздно.", [], [])
    (path,) = outputs.cut(tmp_path / "v.mp4", [late], tmp_path / "clips")
    assert "-ss 50.000 -to 71.000 " in path.read_text()
    assert "moment 1 ends at 75.0 s" in caplog.text and "cut there" in caplog.text
    failing, beyond = (
        replace(late, rank=2, start=30.0, end=45.0),
        replace(late, rank=3, start=71.5, end=90.0),
    )
    last = replace(late, rank=4, start=10.0, end=25.0)
    with pytest.raises(
        DataError,
        match=r"could not cut moment 2.*moment 3 starts at 71\.5 s.*2 of 4 moments are cut",
    ):
        outputs.cut(tmp_path / "v.mp4", [late, failing, beyond, last], tmp_path / "more")
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) == ["01.mp4", "04.mp4"]


def test_credits_are_no_subtitles_of_a_clip():
    cues = [Cue(2, 4, "Кот спит."), Cue(4, 6, "Субтитры сделал DimaTorzok")]
    assert outputs.clip_cues(cues, EARLIER) == [Cue(0, 2, "Кот спит.")]


@pytest.mark.parametrize(
    "text", ["раз;=1+1;два", "раз; \t+7", "раз;\r-1", 'раз;"=1"', "раз;\ufeff@a", "=1;=2"]
)
def test_no_cell_of_the_table_is_a_formula_whatever_separates(tmp_path, text):
    outputs.write_losslesscut([replace(EARLIER, text=text)], tmp_path / "m.csv")
    (line,) = (tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()
    for separator in ",;\t":
        for cell in line.split(separator):
            assert not cell.strip("\"' \ufeff\t").startswith(("=", "+", "-", "@")) or "'" in cell, (
                cell
            )
    assert len(next(csv.reader([line]))) == 3


@pytest.mark.parametrize(
    "name",
    [
        "...srt",
        "..srt",
        ".srt",
        "....srt",
        " .. .srt",
        "CON.srt",
        "con.ru.srt",
        "aux .srt",
        "конец. .srt",
        "а\n\x1b[31mб.srt",
        "ы" * 125 + ".srt",
        "a" * 251 + ".srt",
        "\udcff.srt",
        "a\\b.srt",
        "~.srt",
        "x\u202eсрт.srt",
    ],
)
def test_a_folder_lies_below_the_output_whatever_the_file_is_called(tmp_path, name):
    from viralbert.commands.moments import _own_names

    output = tmp_path / "a" / "out"
    names = _own_names([Path(name)] * 3)
    assert len({own.lower() for own in names}) == 3
    for own in names:
        assert (output / own).resolve().parent == output.resolve()
        assert own.isprintable() and len(own.encode()) < 255 and own == own.strip().rstrip(".")
        assert own.partition(".")[0].strip().lower() not in ("con", "aux")
        (output / own).mkdir(parents=True)


def test_ordinary_names_stay_as_they_are():
    for stem in ("talk", "Лекция 1: начало", ".hidden", "a.ru", "Ёж (2)", "contact", "com"):
        assert outputs.folder_name(stem) == stem


def test_cut_with_ffmpeg(tmp_path):
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("ffmpeg is not installed")
    video = tmp_path / "видео 1.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=8"]
    subprocess.run([ffmpeg, "-v", "error", *source, "-g", "250", str(video)], check=True)
    (path,) = outputs.cut(video, [EARLIER], tmp_path / "clips")
    decoded = subprocess.run(
        [ffmpeg, "-i", str(path), "-f", "null", "-"], capture_output=True, text=True, check=True
    )
    assert re.findall(r"frame=\s*(\d+)", decoded.stderr)[-1] == "100"
    assert [p.name for p in path.parent.iterdir()] == ["02.mp4"]
    with pytest.raises(DataError, match=r"moment 1 starts at 10\.2 s"):
        outputs.cut(video, [LATER], tmp_path / "clips")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="no video that ffmpeg can read"):
        outputs.cut(tmp_path / "text.mp4", [EARLIER], tmp_path / "clips")


def test_a_pipe_is_no_video(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "ffmpeg")
    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(
        DataError, match=r"v\.mp4 is neither a file nor a folder \(a pipe or a device\)"
    ):
        outputs.cut(tmp_path / "v.mp4", FOUND.moments, tmp_path)


def test_a_name_that_is_no_utf_8_is_written_and_read_again(tmp_path):
    files.write_whole(tmp_path / "r.json", json.dumps({"file": "\udcffё.srt"}, ensure_ascii=False))
    assert json.loads((tmp_path / "r.json").read_bytes()) == {"file": "\udcffё.srt"}
    otio = pytest.importorskip("opentimelineio")
    outputs.write_otio(FOUND.moments, tmp_path / "m.otio", "\udcff.mp4", 25)
    clips = list(otio.adapters.read_from_file(str(tmp_path / "m.otio")).find_clips())
    assert [clip.media_reference.target_url for clip in clips] == ["%FF.mp4"] * 2

"""`viralbert moments` with a model that knows two words."""

import json
import shutil

import pytest

from tests.product.two_words import srt
from viralbert.cli import main
from viralbert.commands import moments
from viralbert.serving import predictor
from viralbert_utils.base.errors import DataError


def test_moments_writes_every_format_and_prints_a_table(loaded, capsys, tmp_path):
    out = tmp_path / "out"
    assert (
        main(
            [
                "moments",
                str(srt(tmp_path / "talk.srt")),
                "-o",
                str(out),
                "--count",
                "2",
                "--max",
                "30",
            ]
        )
        == 0
    )
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {
        f"talk/{name}"
        for name in (
            "moments.json",
            "moments.csv",
            "moments.edl",
            "chapters.txt",
            "clips/01.srt",
            "clips/02.srt",
        )
    }
    first = json.loads((out / "talk" / "moments.json").read_text(encoding="utf-8"))["moments"][0]
    assert first["start"] <= 48 and first["end"] >= 51.8, "the joke is in it"
    assert 15 <= first["end"] - first["start"] <= 30
    header, best, _ = capsys.readouterr().out.splitlines()[1:]
    assert header.split() == ["rank", "start", "end", "score", "why"]
    assert best.split()[0] == "1" and best.split()[1].startswith("0:00:")


def test_fewer_moments_leave_no_old_clips(loaded, tmp_path):
    file, out = str(srt(tmp_path / "talk.srt")), str(tmp_path / "out")
    main(["moments", file, "-o", out, "--count", "3", "--max", "20"])
    assert (tmp_path / "out" / "talk" / "clips" / "03.srt").is_file()
    assert main(["moments", file, "-o", out, "--count", "1", "--max", "20"]) == 0
    assert [path.name for path in (tmp_path / "out" / "talk" / "clips").iterdir()] == ["01.srt"]


def test_one_bad_file_does_not_stop_the_rest(loaded, capsys, tmp_path):
    (tmp_path / "empty.srt").write_text("")
    (tmp_path / "folder").mkdir()
    files = [
        tmp_path / "empty.srt",
        tmp_path / "missing.srt",
        tmp_path / "folder",
        srt(tmp_path / "good.srt"),
    ]
    assert main(["moments", *map(str, files), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    for path in files[:3]:
        assert sum(str(path) in line for line in said.err.splitlines()) == 1
    assert "3 of 4 files failed; 1 is written\n" in said.err
    assert "missing.srt'; check its name\n" in said.err
    assert f"no subtitle files in {tmp_path / 'folder'}; expected some of .ass" in said.err
    assert "good.srt" in said.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]


def test_a_bad_file_alone_is_one_message(loaded, capsys, tmp_path):
    assert main(["moments", str(tmp_path / "none.srt"), "-o", str(tmp_path / "out")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    two = [str(tmp_path / f"{name}.srt") for name in "ab"]
    assert main(["moments", *two, "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "viralbert: 2 of 2 files failed"
    (tmp_path / "c.srt").write_text("text", encoding="utf-8")
    assert main(["moments", str(tmp_path / "c.srt"), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "no cue found" in said and "the path of such a file" not in said


def test_files_of_one_name_do_not_overwrite_each_other(loaded, tmp_path):
    (
        srt(tmp_path / "a" / "talk.srt"),
        srt(tmp_path / "a" / "notes.SRT"),
        srt(tmp_path / "b" / "Talk.srt", joke_at=25),
    )
    (tmp_path / "a" / "other.json").write_text("{}")
    command = [
        "moments",
        str(tmp_path / "a"),
        str(tmp_path / "b" / "Talk.srt"),
        str(tmp_path / "a" / "talk.srt"),
    ]
    assert main([*command, "-o", str(tmp_path / "out"), "--count", "1"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Talk-2", "notes", "talk"]
    starts = {
        name: json.loads((tmp_path / "out" / name / "moments.json").read_text())["moments"][0][
            "start"
        ]
        for name in ("talk", "Talk-2")
    }
    assert starts["talk"] < 50 < starts["Talk-2"]


def test_repairs_and_empty_results_are_told(loaded, capsys, tmp_path):
    path = srt(tmp_path / "talk.srt", n=20)
    path.write_text(
        path.read_text(encoding="utf-8").replace("1\n00:00:00,000", "00:00:00,000", 1),
        encoding="utf-8",
    )
    assert (
        main(["moments", str(path), "-o", str(tmp_path / "out"), "--min", "500", "--max", "600"])
        == 0
    )
    said = capsys.readouterr().out
    assert "no moments: no run of sentences lasts 500-600 s" in said
    assert "repaired: no number above the times: 1" in said


def test_bad_options_of_moments_are_named(loaded, capsys, tmp_path, monkeypatch):
    files = [str(srt(tmp_path / name)) for name in ("a.srt", "b.srt")]
    (video := tmp_path / "v.mp4").touch()
    monkeypatch.setattr(shutil, "which", lambda name: name)
    out = ["-o", str(tmp_path / "out")]
    for arguments, message in (
        ([*files, *out, "--min", "60", "--max", "15"], "--max at least as long as --min; found 60"),
        ([*files, *out, "--min", "0"], "--min, --max: expected seconds above 0"),
        ([*files, *out, "--max", "inf"], "--min, --max: expected seconds above 0"),
        ([*files, *out, "--count", "0"], "--count: expected at least 1, found 0"),
        ([*files, *out, "--workers", "0"], "--workers: expected at least 1, found 0"),
        ([*files, *out, "--video", str(video)], "--video belongs to one subtitle file, found 2"),
        ([*files, *out, "--video", "none.mp4"], "no such file: none.mp4; expected a video for"),
        ([files[0], *out, "--fps", "29.97"], "moments.edl needs a whole number, found 29.97; add"),
        ([files[0], *out, "--fps", "0"], "--fps: expected frames a second above 0, found 0"),
        (["none", *out, "--engine", "local"], "no such folder: none; check its name"),
        ([*files, "-o", files[0]], "a.srt is a file; expected a folder"),
        ([*files, "-o", f"{files[0]}/out"], "a.srt is a file; give another name"),
    ):
        assert main(["moments", *arguments]) == 1
        assert message in capsys.readouterr().err
    assert loaded == []
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_model")
def test_what_an_option_needs_is_asked_for_first(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(moments, "find_spec", lambda name: None)
    (tmp_path / "v.mp4").touch()
    command = ["moments", str(srt(tmp_path / "t.srt")), "-o", str(tmp_path / "out")]
    for option, message in (
        (["--video", str(tmp_path / "v.mp4")], "--video: no ffmpeg on the PATH; install it"),
        (["--otio"], "--otio: the package opentimelineio is not installed: pip install"),
    ):
        assert main([*command, *option]) == 1
        said = capsys.readouterr().err
        assert message in said and "write_" not in said


def test_otio_takes_the_place_of_an_edl_and_the_video_is_cut(loaded, monkeypatch, tmp_path):
    from viralbert.moments import outputs

    called = {}
    monkeypatch.setattr(
        outputs, "write_otio", lambda moments, path, *about: called.update(otio=(path, *about))
    )
    monkeypatch.setattr(
        outputs, "cut", lambda video, moments, folder: called.update(cut=(video, folder))
    )
    command = [
        "moments",
        str(srt(tmp_path / "talk.srt")),
        "-o",
        str(tmp_path / "out"),
        "--otio",
        "--fps",
        "29.97",
    ]
    monkeypatch.setattr(shutil, "which", lambda name: name)
    (video := tmp_path / "v.mp4").touch()
    assert main([*command, "--video", str(video)]) == 0
    folder = tmp_path / "out" / "talk"
    assert called == {
        "otio": (folder / "moments.otio", str(video), 29.97),
        "cut": (video, folder / "clips"),
    }
    assert not (folder / "moments.edl").exists()


def test_a_failing_cut_is_a_message_and_the_files_stay(loaded, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    (video := tmp_path / "v.mp4").touch()
    file = str(srt(tmp_path / "talk.srt"))
    assert main(["moments", file, "-o", str(tmp_path / "out"), "--video", str(video)]) == 1
    assert "v.mp4 is no video that ffmpeg can read" in capsys.readouterr().err
    assert (tmp_path / "out" / "talk" / "moments.json").is_file()


def test_errors_of_the_model_are_no_errors_of_a_file(monkeypatch, capsys, tmp_path):
    def missing(folder: str, *options: str | None) -> None:
        raise DataError(f"{folder} is no trained model")

    monkeypatch.setattr(predictor.Predictor, "load", missing)
    assert (
        main(
            [
                "moments",
                str(srt(tmp_path / "talk.srt")),
                "-o",
                str(tmp_path / "out"),
                "--model",
                "none",
            ]
        )
        == 1
    )
    assert capsys.readouterr().err == "viralbert: none is no trained model\n"


def test_one_moment_is_no_plural(loaded, capsys, tmp_path):
    assert (
        main(["moments", str(srt(tmp_path / "t.srt")), "-o", str(tmp_path / "out"), "--count", "1"])
        == 0
    )
    assert ": 1 moment, at most 1 wanted, from " in capsys.readouterr().out


@pytest.mark.usefixtures("no_model")
def test_files_are_read_before_a_model_is_loaded(capsys, tmp_path):
    (tmp_path / "empty.srt").write_text("")
    (tmp_path / "folder").mkdir()
    for name in ("none.srt", "empty.srt", "folder"):
        assert main(["moments", str(tmp_path / name), "-o", str(tmp_path / "out")]) == 1
        assert name in capsys.readouterr().err
    archive = ["moments", str(tmp_path / "folder"), "-o", str(tmp_path / "out")]
    assert main([*archive, "--engine", "local"]) == 1
    assert "no subtitle files in" in capsys.readouterr().err

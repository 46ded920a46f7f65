"""`viralbert predict` and `viralbert moments` with a model that knows two words."""

import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from viralbert import pipes
from viralbert.cli import main
from viralbert.moments.scores import Scores
from viralbert.moments.subtitles import Cue, write_subtitles
from viralbert.serving import predictor
from viralbert.serving.predictor import Label, Prediction
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT
from viralbert_utils.data.emotions import EMOTIONS


class TwoWords:
    def predict_iter(self, texts):
        for text in texts:
            p = 0.9 if "кот" in text.lower() else 0.1
            yield Prediction(p, p > 0.5, (Label("joy", "радость", p),), {"joy": p})

    def scores(self, texts):
        viral = np.array([0.9 if "зарплат" in text else 0.1 for text in texts])
        return Scores(viral, np.full((len(texts), len(EMOTIONS)), 0.02))


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Folders from which a model was asked for."""
    asked: list[str] = []
    monkeypatch.setattr(
        predictor.Predictor, "load", lambda folder, *options: asked.append(folder) or TwoWords()
    )
    return asked


def srt(path: Path, n: int = 30, joke_at: int = 12) -> Path:
    lines = [f"Слово{k} и дело{k}." for k in range(n)]
    lines[joke_at] = "Кот открыл дверь и попросил зарплату!"
    cues = [Cue(4.0 * k, 4.0 * k + 3.8, line) for k, line in enumerate(lines)]
    write_subtitles(cues, path.with_suffix(".srt"))
    return path.with_suffix(".srt").rename(path)


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# predict


def test_predict_prints_a_line_of_json_for_each_text(loaded, capsys):
    assert main(["predict", "Кот ушёл.", "Дождь."]) == 0
    first, second = rows(capsys.readouterr().out)
    assert (first["text"], first["viral_score"], first["is_viral"]) == ("Кот ушёл.", 0.9, True)
    assert first["emotions"] == [{"name": "joy", "russian": "радость", "probability": 0.9}]
    assert second["is_viral"] is False
    assert loaded == [str(ROOT / "runs/sample/viralbert")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "\ufeffКот.\r\n\r\nДождь.\n"),
        ("t.csv", 'id,text\n1,Кот.\n2,""\n3,Дождь.\n'),
        ("t.jsonl", '{"text": "Кот."}\n{"text": ""}\n{"text": "Дождь."}\n'),
        ("T.JSONL", '{"text": "Кот."}\n\ufeff{"text": ""}\n{"text": "Дождь."}\n'),
        ("T.CSV", 'id,text\n1,Кот.\n2,""\n3,Дождь.\n'),
        ("t.Tsv", "id\ttext\n1\tКот.\n2\t\n3\tДождь.\n"),
        ("t.json", '[\n {"text": "Кот."},\n {"text": ""},\n {"text": "Дождь."}\n]'),
        ("lines.json", '{"text": "Кот."}\n{"text": ""}\n{"text": "Дождь."}\n'),
        ("excel.csv", "sep=;\r\ntext;n\r\nКот.;1,5\r\n;2\r\nДождь.;3\r\n"),
        ("T.TXT", "\ufeffКот.\n\n\ufeffДождь."),
        ("title.csv", "ID;Text;\n1;Кот.;\n2;;\n3;Дождь.;\n"),
    ],
)
def test_predict_reads_files_and_keeps_every_row(loaded, capsys, tmp_path, name, content):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be"):
        (tmp_path / name).write_bytes(content.encode(encoding))
        assert main(["predict", "--file", str(tmp_path / name), "--model", "mine"]) == 0
        assert [row["text"] for row in rows(capsys.readouterr().out)] == ["Кот.", "", "Дождь."]
    assert loaded == ["mine"] * 4


@pytest.mark.parametrize("name", ["t.xlsx", "t.XLS", "t.ods", "t.md", "t.csv.gz", "texts"])
def test_an_unknown_kind_of_file_is_never_taken_for_lines(loaded, capsys, tmp_path, name):
    (tmp_path / name).write_text("id,text\n1,Кот.\n", encoding="utf-8")
    assert main(["predict", "--file", str(tmp_path / name)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert all(
        kind in said.err for kind in (name, ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")
    )


@pytest.mark.parametrize(
    "line",
    ["id\ttext", "text;label", '"Text",n', '{"text": "Кот."}', '[{"text": "Кот."}]', '["Кот."]'],
)
def test_a_table_without_its_ending_is_never_taken_for_lines(
    loaded, capsys, tmp_path, monkeypatch, line
):
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "t.txt").write_bytes(f"{line}\n1\tКот.\n".encode(encoding))
        assert main(["predict", "--file", str(tmp_path / "t.txt")]) == 1
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper((tmp_path / "t.txt").open("rb")))
        assert main(["predict", "--file", "-"]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("found what begins a table") == 2


def test_a_pipe_has_no_ending_and_its_bytes_tell_the_encoding(
    loaded, capsys, tmp_path, monkeypatch
):
    pipe = tmp_path / "63"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=["Кот.\nДождь.\n".encode("utf-16")])
    writer.start()
    assert main(["predict", "--file", str(pipe)]) == 0
    writer.join()
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO("\ufeffКот.\nДождь.".encode())))
    )
    assert main(["predict", "--file", "-"]) == 0
    assert [row["text"] for row in rows(capsys.readouterr().out)] == ["Кот.", "Дождь."] * 2


def test_predict_reads_the_standard_input(loaded, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Кот.\nДождь."))
    assert main(["predict", "--file", "-"]) == 0
    assert [row["text"] for row in rows(capsys.readouterr().out)] == ["Кот.", "Дождь."]


def test_predict_prints_what_is_no_character(loaded, capsys, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "Кот \\ud83d"}\n', encoding="utf-8")
    assert main(["predict", "--file", str(tmp_path / "t.jsonl")]) == 0
    assert rows(capsys.readouterr().out)[0]["text"] == "Кот ?"


def test_predict_names_what_it_cannot_read(loaded, capsys, tmp_path):
    (tmp_path / "no.csv").write_text("title\nКот\n", encoding="utf-8")
    (tmp_path / "old.txt").write_bytes("Кот.\n".encode() + "Дождь.\n".encode("cp1251"))
    for arguments, message in (
        ([], "expected texts or --file"),
        (["Кот", "--file", "-"], "found both or neither"),
        (["--file", str(tmp_path / "no.csv")], "no column 'text'; found title"),
        (
            ["--file", str(tmp_path / "old.txt")],
            "old.txt, line 2: expected UTF-8, found byte 0xc4 (it reads well as CP1251); convert "
            "it first: iconv",
        ),
        (["--file", str(tmp_path / "none.txt")], "could not be read"),
    ):
        assert main(["predict", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_a_missing_model_says_who_writes_it(capsys, tmp_path):
    assert main(["predict", "Кот", "--model", str(tmp_path / "none")]) == 1
    assert "viralbert run --only 06" in capsys.readouterr().err


# moments


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
    assert "3 of 4 files failed" in said.err
    assert "good.srt" in said.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]


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


def test_bad_options_of_moments_are_named(loaded, capsys, tmp_path):
    files = [str(srt(tmp_path / name)) for name in ("a.srt", "b.srt")]
    out = ["-o", str(tmp_path / "out")]
    for arguments, message in (
        ([*files, *out, "--min", "60", "--max", "15"], "expected 0 < min_s <= max_s"),
        ([*files, *out, "--video", "v.mp4"], "--video belongs to one subtitle file, found 2"),
        ([files[0], *out, "--fps", "29.97"], "a.srt: an EDL holds 999 events at whole frame rates"),
    ):
        assert main(["moments", *arguments]) == 1
        assert message in capsys.readouterr().err


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
    assert main([*command, "--video", "v.mp4"]) == 0
    folder = tmp_path / "out" / "talk"
    assert called == {
        "otio": (folder / "moments.otio", "v.mp4", 29.97),
        "cut": (Path("v.mp4"), folder / "clips"),
    }
    assert not (folder / "moments.edl").exists()


def test_a_failing_cut_is_a_message_and_the_files_stay(loaded, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    file = str(srt(tmp_path / "talk.srt"))
    assert main(["moments", file, "-o", str(tmp_path / "out"), "--video", "v.mp4"]) == 1
    assert "no ffmpeg on the PATH" in capsys.readouterr().err
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


# a command without its package

WITHOUT = """
import sys
import threading
sys.modules[sys.argv[1]] = None
from viralbert import cli
if sys.argv[2] == "report":  # there may be no run to report on
    from viralbert.course import report
    report.report = lambda task: report.build_site(task, {}, "# Report", task.report / "site")
sys.exit(cli.main(sys.argv[2:]))
"""
TRAIN, PRETRAIN = (
    ["train", "--output", "out"],
    ["pretrain", "--source", "a.txt=1", "--output", "out"],
)
PREDICT, EXPORT = ["predict", "--model", "model", "Дождь."], ["export", "model", "-o", "exported"]
SERVE, TRANSLATE = ["serve", "--model", "model", "--port", "0"], ["translate", "en.csv", "ru.csv"]
MOMENTS = ["moments", "talk.srt", "-o", "out", "--model", "model"]
LACKING = [
    ("torch", TRAIN, "torch", ""),
    ("transformers", TRAIN, "transformers", ""),
    ("torch", PRETRAIN, "torch", ""),
    ("torch", ["run", "--profile", "smoke", "--set", "01.seed=78"], "torch", ""),
    ("yaml", ["run", "--profile", "smoke"], "pyyaml", ""),
    ("papermill", ["run", "--profile", "smoke", "--set", "01.seed=77"], "papermill", ""),
    ("sphinx", ["report"], "sphinx", "[report]"),
    ("myst_nb", ["report"], "myst-nb", "[report]"),
    ("torch", PREDICT, "torch", ""),
    ("torch", MOMENTS, "torch", ""),
    ("pysubs2", MOMENTS, "pysubs2", ""),
    ("torch", EXPORT, "torch", ""),
    ("onnx", EXPORT, "onnx", "[serve]"),
    ("fastapi", SERVE, "fastapi", "[serve]"),
    ("starlette", SERVE, "fastapi", "[serve]"),
    ("python_multipart", SERVE, "python-multipart", "[serve]"),
    ("torch", SERVE, "torch", ""),
    ("torch", TRANSLATE, "torch", ""),
]


def without(module: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "model").mkdir()
    (folder / "model" / "classifier.json").write_text("{}")
    (folder / "en.csv").write_text("text\nhello\n")
    srt(folder / "talk.srt")
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, module, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "arguments", "package", "extra"),
    LACKING,
    ids=[f"{case[1][0]}-{case[0]}" for case in LACKING],
)
def test_a_command_without_its_package_says_what_to_install(
    module, arguments, package, extra, tmp_path
):
    result = without(module, arguments, tmp_path)
    assert result.stderr == (
        f"viralbert {arguments[0]}: the package {package} is not installed: pip install "
        f"'viralbert-course{extra}'\n"
    )
    assert result.returncode == 1


def test_check_env_without_torch_still_checks_the_rest(tmp_path):
    result = without("torch", ["check-env"], tmp_path)
    assert result.returncode == 1 and not result.stderr
    assert re.search(
        r"as in requirements.lock\n\[missing\] Python .* without torch: here no model",
        result.stdout,
    )


def test_an_archive_without_ray_says_what_to_install(tmp_path):
    command = ["moments", ".", "-o", "out", "--model", "model", "--engine", "ray"]
    result = without("ray", command, tmp_path)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    expected = (
        "viralbert: the package ray is not installed: pip install 'viralbert-course[archives]', "
        "or use the engine"
    )
    assert result.stderr.startswith(expected)


@pytest.mark.parametrize("name", ["viralbert.translation", "_lzma", None])
def test_what_pip_cannot_bring_is_no_message(name, monkeypatch):
    from viralbert import translation

    def fail(*_: object) -> None:
        raise ModuleNotFoundError("No module", name=name)

    monkeypatch.setattr(translation, "translate_file", fail)
    with pytest.raises(ModuleNotFoundError):
        main(TRANSLATE)


def test_a_project_that_is_not_installed_names_itself(monkeypatch, capsys):
    from viralbert import packages, translation

    def fail(*_: object) -> None:
        raise importlib.metadata.PackageNotFoundError("onnx")

    monkeypatch.setattr(translation, "translate_file", fail)
    monkeypatch.setattr(packages.importlib.metadata, "requires", fail)
    assert main(TRANSLATE) == 1
    assert capsys.readouterr().err.endswith(
        "the package onnx is not installed: pip install 'viralbert-course'\n"
    )


# what the machine refuses


def test_no_space_is_one_line_and_no_traceback(loaded):
    code = """
import sys
sys.path.insert(0, "")
from tests.product.test_cli import TwoWords
from viralbert import cli
from viralbert.serving import predictor
predictor.Predictor.load = lambda *_: TwoWords()
sys.exit(cli.main(["predict", "Кот ушёл."]))
"""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode().startswith("viralbert predict: [Errno 28] No space left on device")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["file", "pipe", "beside a file"])
def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path, capsys, kind):
    place = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.write_text("")
    output = place / "deep" if kind == "beside a file" else place
    assert main(["train", "--output", str(output), "--dataset", "emotions", "--max-rows", "1"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("viralbert")
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1


# what is given as a file


def test_a_pipe_that_nobody_writes_to_is_an_error(loaded, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(pipes, "PATIENCE_S", 0.2)
    for name, arguments in (
        ("a", ["predict", "--file"]),
        ("b.txt", ["predict", "--file"]),
        ("c.srt", ["moments", "-o", str(tmp_path / "out")]),
    ):
        os.mkfifo(tmp_path / name)
        assert main([*arguments, str(tmp_path / name)]) == 1
        assert (
            f"{name} is a pipe, and within 0.2 s nobody has opened it to write"
            in capsys.readouterr().err
        )


@pytest.mark.parametrize("command", [["predict", "--file"], ["moments", "-o", "out"]])
@pytest.mark.parametrize("ending", ["csv", "txt", "srt", "xlsx"])
def test_a_name_of_a_file_is_printed_in_one_line(
    loaded, capsys, tmp_path, monkeypatch, command, ending
):
    monkeypatch.chdir(tmp_path)
    Path(name := f"a\x1b[2J\nviralbert: done\x9b\u202e.{ending}").write_bytes(b"1\n\xc4\n")
    assert main([*command, name]) == 1
    said = capsys.readouterr().err
    assert r"a\x1b[2J\nviralbert: done\x9b\u202e" in said and all(
        line.isprintable() for line in said.splitlines()
    )


def test_a_table_is_no_pipe(loaded, capsys, tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    assert main(["predict", "--file", str(tmp_path / "t.csv")]) == 1
    assert (
        "t.csv is neither a file nor a folder (a pipe or a device); expected"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["zero", "zero.txt", "zero.csv", "zero.srt"])
def test_a_device_is_no_file(loaded, capsys, tmp_path, name):
    (tmp_path / name).symlink_to("/dev/zero")
    given = (
        ["moments", "-o", str(tmp_path / "out")] if name.endswith(".srt") else ["predict", "--file"]
    )
    assert main([*given, str(tmp_path / name)]) == 1
    assert re.search(r"a (pipe or a )?device.*; expected ", capsys.readouterr().err)


def test_subtitles_come_through_a_pipe_of_the_shell(loaded, tmp_path):
    os.mkfifo(tmp_path / "63")
    writer = threading.Thread(
        target=(tmp_path / "63").write_bytes, args=[srt(tmp_path / "t.srt").read_bytes()]
    )
    writer.start()
    assert main(["moments", str(tmp_path / "63"), "-o", str(tmp_path / "out"), "--count", "1"]) == 0
    writer.join()
    assert (tmp_path / "out" / "63" / "moments.json").is_file()


def test_a_home_folder_is_spelt_out_in_every_path(loaded, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    srt(tmp_path / "subs" / "talk.srt")
    assert main(["moments", "~/subs", "-o", "~/out", "--count", "1"]) == 0
    assert (tmp_path / "out" / "talk" / "moments.json").is_file()
    assert main(["train", "--output=~/trained", "--data=~/own", "--dataset", "emotions"]) == 1
    assert "'~/own' does not exist" in capsys.readouterr().err
    assert main(["export", "~/nothing", "-o", "~/exported"]) == 1
    assert str(tmp_path / "nothing") in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--output", "out", "--evaluate", ""],
            "expected dev, test or both (dev,test), found ''",
        ),
        (
            ["train", "--output", "out", "--evaluate", "dev,"],
            "expected dev, test or both (dev,test), found 'dev,'",
        ),
        (["train", "--output", ""], "expected a path, found an empty text"),
        (["moments", "a.srt", "-o", ""], "expected a path, found an empty text"),
        (["moments", "", "-o", "out"], "expected a path, found an empty text"),
        (["export", "model", "-o", "~nobody-here/x"], "~nobody-here/x: "),
    ],
)
def test_an_argument_that_says_nothing_is_an_error_of_it(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_one_moment_is_no_plural(loaded, capsys, tmp_path):
    assert (
        main(["moments", str(srt(tmp_path / "t.srt")), "-o", str(tmp_path / "out"), "--count", "1"])
        == 0
    )
    assert ": 1 moment, at most 1 wanted, from " in capsys.readouterr().out


def test_json_lines_hold_no_control_characters(loaded, capsys):
    text = "кот\x9b2J\u202e\x7f\x1b\n!"
    assert main(["predict", text]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable() and json.loads(line)["text"] == text

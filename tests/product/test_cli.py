"""The command line: what the machine refuses, given names and paths, and empty arguments."""

import argparse
import importlib.metadata
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.product.two_words import srt
from viralbert.cli import _parser, main
from viralbert_utils.base.files import ROOT
from viralbert_utils.lessons import pretraining


def test_no_space_is_one_line_and_no_traceback(loaded):
    code = """
import sys
sys.path.insert(0, "")
from tests.product.two_words import TwoWords
from viralbert import cli
from viralbert.serving import predictor
predictor.Predictor.load = lambda *_: TwoWords()
sys.exit(cli.main(["predict", "--model", "mine", "Кот ушёл."]))
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


def test_a_home_folder_is_spelt_out_in_every_path(loaded, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    srt(tmp_path / "subs" / "talk.srt")
    assert main(["moments", "~/subs", "-o", "~/out", "--count", "1"]) == 0
    assert (tmp_path / "out" / "talk" / "moments.json").is_file()
    assert main(["train", "--output=~/trained", "--data=~/own", "--dataset", "emotions"]) == 1
    assert "'~/own' does not exist" in capsys.readouterr().err
    assert main(["export", "--model", "~/nothing", "-o", "~/exported"]) == 1
    assert str(tmp_path / "nothing") in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


def test_an_unknown_option_shows_the_usage_of_its_command(capsys):
    for arguments, usage in (
        (["predict", "--foo", "Кот"], "usage: viralbert predict [-h]"),
        (["moments", "a.srt", "-o", "out", "--foo"], "usage: viralbert moments [-h]"),
        (["--foo", "check-env"], "usage: viralbert [-h]"),
    ):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert said.startswith(usage)
        assert "unrecognized arguments: --foo" in said


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
        (
            ["moments", "talk.srt"],
            "required: -o/--output; for example: viralbert moments talk.srt lectures/ --output",
        ),
        (["moments", "a.srt", "-o", ""], "expected a path, found an empty text"),
        (["moments", "", "-o", "out"], "expected a path, found an empty text"),
        (["export", "--model", "model", "-o", "~nobody-here/x"], "~nobody-here/x: "),
    ],
)
def test_an_argument_that_says_nothing_is_an_error_of_it(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_help_of_every_command_ends_with_an_example_that_it_takes(capsys):
    parser = _parser()
    (commands,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    assert len(commands.choices) >= 14
    for name in commands.choices:
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0
        _, _, line = capsys.readouterr().out.rpartition("\nexample:\n  ")
        program, *words = shlex.split(line)
        assert (program, words[0]) == ("viralbert", name)
        assert parser.parse_args(words).command == name


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("moments t.srt -o file", "file is a file; expected a folder"),
        ("train -o file", "file is a file; expected a folder"),
        ("export --model mine -o file", "file is a file; expected a folder"),
        ("pretrain --source t.srt=1 -o file", "file is a file; expected a folder"),
        ("translate --hub a/b -o file", "file is a file; expected a folder"),
        ("download --to file", "file is a file; expected a folder"),
        ("translate --file t.csv -o folder", "folder is a folder; expected the name of a file"),
        ("paraphrase --file t.csv -o folder", "folder is a folder; expected the name of a file"),
        ("audit --file t.csv -o folder", "folder is a folder; expected the name of a file"),
        ("evaluate -o folder", "folder is a folder; expected the name of a file"),
        ("evaluate -o file/deep.json", "file/deep.json cannot be written: file is a file; give"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_an_output_of_another_kind_is_refused_first(capsys, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert main(line.split()) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("given", ["реклама=exported", "=exported", "a b=exported"])
@pytest.mark.usefixtures("no_model")
def test_serve_says_what_a_name_of_a_model_may_look_like(capsys, given):
    assert main(["serve", "--model", given]) == 1
    said = capsys.readouterr().err
    assert "expected the name of a model (up to 64 Latin letters, digits" in said
    assert repr(given.partition("=")[0]) in said


def _options():
    (commands,) = (
        action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return [
        pytest.param(action, id=f"{name} {action.option_strings[0]}")
        for name, parser in commands.choices.items()
        for action in parser._actions
        if action.option_strings and action.help != argparse.SUPPRESS
    ]


@pytest.mark.parametrize("action", _options())
def test_every_option_has_help_that_says_its_default(action):
    assert action.help
    if action.default not in (None, "", False, argparse.SUPPRESS, []):
        assert str(action.default) in action.help


def test_help_speaks_of_exports_only_where_a_model_answers():
    with_note = {
        option.id.split()[0]
        for option in _options()
        if "An export: always cpu" in option.values[0].help
    }
    assert with_note == {"predict", "moments", "serve", "evaluate", "audit"}


def test_the_programs_help_has_an_example_and_its_version_is_that_of_the_package(capsys):
    for option in ("--help", "--version"):
        with pytest.raises(SystemExit) as end:
            main([option])
        assert end.value.code == 0
    said = capsys.readouterr().out
    assert "example:\n  viralbert predict " in said
    assert said.endswith(f"viralbert {importlib.metadata.version('viralbert-course')}\n")


def test_the_task_of_an_audit_is_named_as_elsewhere():
    for command in (["audit", "--file", "a.csv"], ["train"], ["evaluate"]):
        line = [*command, "-o", "out", "--dataset", "cedr"]
        assert _parser().parse_args(line).dataset == "cedr"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("none.txt=1", "no such file: none.txt"),
        ("empty.txt=1", "empty.txt: expected a text a line, found none"),
        ("t.csv#title=1", "t.csv has no column 'title'; it has text"),
    ],
)
def test_sources_are_read_before_the_encoder_is_built(capsys, tmp_path, monkeypatch, line, message):
    def refuse(*_):
        raise AssertionError("an encoder was asked for")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretraining, "embedded_folder", refuse)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "t.csv").write_text("text\nx\n")
    assert main(["pretrain", "--source", line, "--output", "layers"]) == 1
    assert message in capsys.readouterr().err

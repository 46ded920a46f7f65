"""The command line: what the machine refuses, given names and paths, and empty arguments."""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.product.two_words import srt
from viralbert.cli import _parser, main
from viralbert_utils.base.files import ROOT


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

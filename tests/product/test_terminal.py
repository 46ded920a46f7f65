"""What is printed on a terminal: one line a message, whatever is in the names of files."""

import logging
import os
import subprocess
import sys

import pytest

from tests.product.two_words import srt
from viralbert import terminal
from viralbert.cli import main
from viralbert_utils.base.files import ROOT

NASTY = "а\x1b[31m\nviralbert: done\r\x9b2J\u202e\u2028б"


def test_control_characters_are_shown_and_not_obeyed():
    assert (
        terminal.printable("а\x1b[2J\nб\x9b\u202e\u061c\udcffё")
        == r"а\x1b[2J\nб\x9b\u202e\u061c\udcffё"
    )
    assert terminal.printable("Ёж, 🙂 «x» – 1\u00a0%") == "Ёж, 🙂 «x» – 1\u00a0%"


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "text", "--model", NASTY],
        ["moments", "a.srt", "-o", "out", "--model", NASTY],
        ["export", "--model", NASTY, "-o", "out"],
        ["train", "--output", f"/dev/null/{NASTY}"],
        ["train", "--output", "out", "--data", NASTY],
        ["train", "--output", "out", "--profile", NASTY],
        ["run", "--data", NASTY, "--only", "01"],
        ["run", "--profile", NASTY],
        ["translate", "--file", NASTY, "--output", "ru.csv"],
        ["pretrain", "--source", f"{NASTY}=1", "--output", "out"],
        ["predict", f"--{NASTY}".replace(" ", "")],
        ["moments", "a.srt", "-o", "out", "--engine", NASTY],
    ],
    ids=lambda arguments: "-".join(
        part for part in arguments if part.isascii() and "/" not in part
    ),
)
def test_an_error_is_one_line_without_control_characters(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    srt(tmp_path / "a.srt")
    try:
        assert main(arguments) == 1
    except SystemExit as end:
        assert end.code == 2
    said = capsys.readouterr().err
    assert "\\x1b[31m" in said
    assert all(line.isprintable() for line in said.splitlines())
    assert not any(line.startswith("viralbert: done") for line in said.split("\n"))


def test_a_warning_is_one_line_too():
    code = (
        "import logging, sys; from viralbert import cli\ntry: cli.main(['--help'])\nexcept "
        "SystemExit: pass\n"
    )
    code += "logging.getLogger('viralbert.files').warning('%s is odd', sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, NASTY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == terminal.printable(f"{NASTY} is odd") + "\n"


def test_a_traceback_in_a_log_keeps_its_lines():
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "a\nb", None, sys.exc_info())
    assert terminal.Lines("%(levelname)s %(message)s").format(record).splitlines()[:2] == [
        r"ERROR a\nb",
        "Traceback (most recent call last):",
    ]


def test_one_thing_is_no_plural():
    assert [terminal.counted(n, "file") for n in (0, 1, 2, 1200)] == [
        "0 files",
        "1 file",
        "2 files",
        "1,200 files",
    ]


def test_an_undecodable_argument_is_an_error_in_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "viralbert.cli",
        "export",
        "--model",
        os.fsdecode(b"\xff\x1b"),
        "-o",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert r"\udcff\x1b" in done.stderr

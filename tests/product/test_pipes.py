"""What is named to be read once: pipes of the shell; and what is no pipe."""

import os
import re
import threading

import pytest

from tests.product.two_words import srt
from viralbert import pipes
from viralbert.cli import main


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

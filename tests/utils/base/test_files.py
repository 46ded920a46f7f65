"""Files and folders that are written whole: who may read them, and what an interruption leaves."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from tests.timing import until
from tests.utils.base.whole import USUAL, Interrupted, check_modes, check_old, old_folder
from viralbert_utils.base import files
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT
from viralbert_utils.data import sources

# who may read them


def test_a_file_gets_the_mode_of_any_new_file(tmp_path, umask):
    files.write_whole(tmp_path / "new" / "a.txt", "а")
    check = stat.S_IMODE((tmp_path / "new" / "a.txt").stat().st_mode)
    assert check == USUAL[umask][1]


def test_what_a_library_keeps_to_its_user_becomes_usual(tmp_path, umask):
    with files.whole_folder(tmp_path / "new") as new:
        (new / "deep" / "er").mkdir(parents=True)
        (new / "deep").chmod(0o700)
        save_file({"a": torch.zeros(1)}, new / "deep" / "er" / "a.safetensors")
        (new / "private.txt").touch(mode=0o600)
    check_modes(tmp_path / "new", umask)


def test_saved_tables_are_readable(tmp_path, umask):
    sources.save_sets({"emotions": {"train": pd.DataFrame({"text": ["да"]})}}, tmp_path / "tables")
    check_modes(tmp_path / "tables", umask)


# what an interruption leaves


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, OSError])
def test_an_interruption_leaves_the_old_folder(tmp_path, error):
    folder = old_folder(tmp_path, "a.txt")
    with pytest.raises(error), files.whole_folder(folder) as new:
        (new / "b.txt").write_text("new")
        raise error
    check_old(folder, "a.txt")


def test_a_rename_that_fails_leaves_the_old_folder(tmp_path, monkeypatch):
    folder, rename = old_folder(tmp_path, "a.txt"), os.rename

    def fail(source: Path, target: Path) -> None:
        if source.name == "new":
            raise OSError("disk full")
        rename(source, target)

    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    with pytest.raises(OSError, match="disk full"), files.whole_folder(folder) as new:
        (new / "b.txt").write_text("new")
        monkeypatch.setattr(files.os, "rename", fail)
    check_old(folder, "a.txt")


KILLED = """
import os, sys, time
from pathlib import Path
from viralbert_utils.base import files
where, moment = Path(sys.argv[1]), sys.argv[2]
def die(*_): os.kill(os.getpid(), 9)
def say(): print("here", flush=True)
if moment == "renamed":
    files._exchange, rename = (lambda *_: False), os.rename
    os.rename = lambda a, b: (rename(a, b), die())
elif moment == "before":
    files._put = die
elif moment == "after":
    put = files._put
    files._put = lambda *a: (put(*a), die())
if moment == "file":
    with files.whole_file(where / "b.txt") as new:
        new.write_text("half")
        die()
if moment == "hold":
    with files.locked(where):
        say()
        time.sleep(60)
with files.whole_folder(where / "model") as new:
    (new / "a.txt").write_text("new")
    if moment == "filling":
        die()
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("moment", "content"),
    [("filling", "old"), ("before", "old"), ("renamed", "old"), ("after", "new")],
)
def test_a_killed_process_leaves_a_whole_folder_and_the_next_one_clears_up(
    tmp_path, moment, content
):
    folder = old_folder(tmp_path, "a.txt")
    assert start(folder.parent, moment).wait() == -signal.SIGKILL
    if moment != "renamed":  # the system could not exchange two names
        assert (folder / "a.txt").read_text() == content
    with pytest.raises(Interrupted), files.whole_folder(folder):
        raise Interrupted
    assert (folder / "a.txt").read_text() == content
    assert os.listdir(folder.parent) == ["model"]


def test_a_killed_process_leaves_the_old_file_and_its_litter_goes_with_the_next_lock(tmp_path):
    (tmp_path / "b.txt").write_text("old")
    assert start(tmp_path, "file").wait() == -signal.SIGKILL
    assert (tmp_path / "b.txt").read_text() == "old"
    assert len(os.listdir(tmp_path)) == 2
    with files.locked(tmp_path):
        assert os.listdir(tmp_path) == ["b.txt"]


def test_a_second_process_waits_and_a_killed_one_holds_no_lock(tmp_path, caplog):
    first = start(tmp_path, "hold")
    assert first.stdout is not None
    assert first.stdout.readline() == "here\n"
    with ThreadPoolExecutor(1) as beside:
        beside.submit(
            until, lambda: "another process is writing to" in caplog.text
        ).add_done_callback(lambda _: first.kill())
        with files.locked(tmp_path):
            assert first.wait() == -signal.SIGKILL
    assert "another process is writing to" in caplog.text


def test_a_full_disk_is_told_as_one_whatever_the_library_says(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left"), files.whole_folder(tmp_path / "model"):
        raise RuntimeError("unexpected pos 640 vs 512")
    with pytest.raises(OSError, match="No space left"), files.whole_file(tmp_path / "c.pt"):
        raise RuntimeError("unexpected pos 640 vs 512")
    assert os.listdir(tmp_path) == []


# sums


def test_sums_are_those_of_sha256sum(tmp_path):
    with files.whole_folder(tmp_path / "model") as new:
        (new / "deep er").mkdir()
        (new / "deep er" / "вес.bin").write_bytes(b"\0\1")
        files.write_sums(new)
        (new / "later.txt").write_text("а")
    assert len((tmp_path / "model" / files.SUMS).read_text().splitlines()) == 2
    checked = subprocess.run(
        ["sha256sum", "--quiet", "-c", files.SUMS], cwd=tmp_path / "model", check=False
    )
    assert checked.returncode == 0
    files.check_sums(tmp_path / "model")
    (tmp_path / "model" / files.SUMS).write_bytes(b"\xff what")
    with pytest.raises(DataError, match="SHA256SUMS is damaged"):
        files.check_sums(tmp_path / "model")


def test_a_folder_never_takes_the_place_of_a_file(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with (
        pytest.raises(DataError, match="notes is a file; expected a folder"),
        files.whole_folder(tmp_path / "notes"),
    ):
        pass
    assert (tmp_path / "notes").read_text() == "mine"

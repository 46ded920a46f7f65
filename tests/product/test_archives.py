"""Archives: both engines write the same bytes, a stopped run goes on, and what fails is listed."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.timing import HANG_S, until
from viralbert import archives
from viralbert.archives import ArchiveJob, ArchiveOutcome, run
from viralbert.moments.limits import Limits
from viralbert.moments.scores import Scores
from viralbert.moments.subtitles import Cue, write_subtitles
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT
from viralbert_utils.data.emotions import EMOTIONS

IMPORTED = str(ROOT)  # Ray's workers import `load` from here
FILES = ["a/talk.srt", "b/talk.srt", "b/talk.vtt", "talk.srt"]


def score(texts: list[str]) -> Scores:
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return Scores(
        np.array([digest[0] / 256 for digest in digests]),
        np.full((len(texts), len(EMOTIONS)), 0.02),
    )


def load():
    assert os.environ["OMP_NUM_THREADS"] == "1"
    return score


def load_slow():
    return lambda texts: time.sleep(0.4) or score(texts)


def load_stuck():
    """Answers for the first file of a worker, and none for its second in any time that a test
    takes."""
    waits = iter([0])
    return lambda texts: time.sleep(next(waits, 2 * HANG_S)) or score(texts)


def load_deadly():
    return lambda texts: os._exit(1)


def load_nothing():
    raise DataError("no such model")


def load_never():
    raise AssertionError("nothing is to do, and yet the model is loaded")


def write(path: Path, about: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cues = [
        Cue(4.0 * k, 4.0 * k + 3.8, f"Слово{k} и {path.parent.name} {path.suffix} {about}.")
        for k in range(30)
    ]
    write_subtitles(cues, path)


@pytest.fixture
def archive(tmp_path) -> Path:
    for file in FILES:
        write(tmp_path / "archive" / file)
    write(tmp_path / "archive" / ".trash" / "old.srt")
    (tmp_path / "archive" / "b" / "other.json").write_text("{}")
    return tmp_path / "archive"


@pytest.fixture
def job(archive, tmp_path) -> ArchiveJob:
    return ArchiveJob(archive, tmp_path / "out", load, "hash")


@pytest.fixture
def in_process(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(
        archives, "_with_processes", lambda job, files, n: map(archives.Worker(job).answer, files)
    )


def written(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_both_engines_write_the_same_bytes_and_list_failures(job, archive, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", IMPORTED)
    (archive / "b" / "broken.srt").write_text("")
    here, there = replace(job, output=tmp_path / "local"), replace(job, output=tmp_path / "ray")
    outcomes = [run(here, "local", 2), run(there, "ray", 2)]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].n_done == 4
    assert list(outcomes[0].failures) == ["b/broken.srt"]
    assert "broken.srt" in outcomes[0].failures["b/broken.srt"]
    assert written(tmp_path / "local") == written(tmp_path / "ray")
    complete = {
        str(path.parent.relative_to(tmp_path / "ray"))
        for path in (tmp_path / "ray").rglob("record.json")
    }
    assert complete == set(FILES), (
        "equal stems have folders of their own, hidden and .json files none"
    )


def test_a_killed_run_goes_on(job, archive, tmp_path, monkeypatch):
    for number in range(8):
        write(archive / f"{number}.srt")
    code = f"""
import pathlib, tests.product.test_archives as t
from viralbert import archives
folders = pathlib.Path({str(archive)!r}), pathlib.Path({str(job.output)!r})
archives.run(archives.ArchiveJob(*folders, t.load_stuck, "hash"), "local", 2)
"""
    environment = os.environ | {"PYTHONPATH": IMPORTED}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE
    ) as killed:
        until(lambda: len(list(job.output.rglob("record.json"))) == 2)
        killed.send_signal(signal.SIGKILL)
        # ends when the workers, whose output it is too, have ended with their parent
        killed.stdout.read()
    assert len(list(job.output.rglob("record.json"))) == 2
    assert run(job, "local", 2) == ArchiveOutcome(n_done=10, n_before=2)
    whole = replace(job, output=tmp_path / "whole")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert {archives.Worker(whole).answer(file)[1] for file in whole.files()} == {""}
    assert written(job.output) == written(whole.output)


def test_two_archives_at_once_never_mix(job, archive, tmp_path):
    both = []
    for limit in (20, 45):
        code = f"""
import pathlib, tests.product.test_archives as t
from viralbert import archives
folders = pathlib.Path({str(archive)!r}), pathlib.Path({str(job.output)!r})
job = archives.ArchiveJob(*folders, t.load_slow, "hash", t.Limits(10, {limit}), otio={limit == 45})
archives.run(job, "local", 1)
"""
        both.append(
            subprocess.Popen(
                [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": IMPORTED}
            )
        )
    assert [process.wait(timeout=5 * HANG_S) for process in both] == [0, 0]
    alone = []
    for limit in (20, 45):
        own = replace(job, output=tmp_path / str(limit), limits=Limits(10, limit), otio=limit == 45)
        run(own, "local", 2)
        alone.append(written(own.output))
    assert alone[0] != alone[1]
    assert written(job.output) in alone


def test_nothing_to_do_loads_nothing(in_process, job):
    assert run(job) == ArchiveOutcome(n_done=4)
    assert run(replace(job, load=load_never)) == ArchiveOutcome(n_before=4)


def test_what_decides_on_the_result_is_done_again(in_process, job, archive):
    run(job)
    write(archive / "b" / "talk.vtt", "другое")
    assert run(job) == ArchiveOutcome(n_done=1, n_before=3)
    for other in (
        replace(job, limits=Limits(n=1)),
        replace(job, scorer="another"),
        replace(job, fps=24),
    ):
        assert run(other) == ArchiveOutcome(n_done=4)
    (job.output / "talk.srt" / "record.json").write_text("{")
    assert run(other) == ArchiveOutcome(n_done=1, n_before=3)


def test_a_file_that_fails_anew_is_no_longer_complete(in_process, job, archive):
    run(job)
    good = (archive / "talk.srt").read_bytes()
    (archive / "talk.srt").write_text("")
    assert list(run(job).failures) == ["talk.srt"]
    (archive / "talk.srt").write_bytes(good)
    assert run(job) == ArchiveOutcome(n_done=1, n_before=3)


def test_any_error_of_a_file_is_listed(in_process, job):
    outcome = run(replace(job, load=lambda: lambda texts: 1 / 0))
    assert outcome.failures == dict.fromkeys(FILES, "ZeroDivisionError: division by zero")


def test_the_output_may_lie_within_the_archive(in_process, job, archive):
    inside = replace(job, output=archive / "moments")
    assert run(inside) == ArchiveOutcome(n_done=4)
    assert run(inside) == ArchiveOutcome(n_before=4)


def test_a_scorer_that_cannot_be_loaded_stops_the_run(in_process, job):
    with pytest.raises(DataError, match="no such model"):
        run(replace(job, load=load_nothing))


def test_a_worker_that_dies_is_an_error_and_no_endless_wait(job):
    with pytest.raises(DataError, match="a worker was ended from outside"):
        run(replace(job, load=load_deadly), n_workers=1)


def test_bad_calls_are_named(job, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="engine 'spark' is not known; use local, ray"):
        run(job, "spark")
    with pytest.raises(DataError, match="no subtitle files in"):
        run(replace(job, folder=tmp_path / "none"))
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray.data", raising=False)
    with pytest.raises(DataError, match=r"pip install 'viralbert-course\[archives\]'"):
        run(job, "ray")


def test_models_are_told_apart_by_their_files(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "head").write_text("1")
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    first = archives.model_digest(str(tmp_path / "m"))
    assert archives.model_digest(str(tmp_path / "copy")) == first
    assert archives.model_digest(str(tmp_path / "m"), "bfloat16") != first
    assert archives.model_digest(str(tmp_path / "m"), "float32") == first, "what auto is on a CPU"
    (tmp_path / "m" / "head").write_text("2")
    assert archives.model_digest(str(tmp_path / "m")) != first


def test_the_command_lists_failures_at_the_end(in_process, archive, tmp_path, capsys, monkeypatch):
    from viralbert.cli import main  # not above: every worker imports this file

    monkeypatch.setattr(archives, "load_scorer", lambda model, precision: score)
    (archive / "a" / "broken.srt").write_text("")
    command = [
        "moments",
        str(archive),
        "-o",
        str(tmp_path / "out"),
        "--engine",
        "local",
        "--count",
        "1",
    ]
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.out.startswith("4 files done, 0 were complete before")
    assert "a/broken.srt" in said.err.splitlines()[-2]
    assert said.err.splitlines()[-1] == "viralbert: 1 file failed; the next run tries it again"
    (archive / "a" / "broken.srt").unlink()
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("0 files done, 4 were complete before")
    assert main([command[0], str(archive), *command[1:]]) == 1
    assert "--engine works through one folder" in capsys.readouterr().err


@pytest.fixture
def odd_archive(tmp_path) -> Path:
    """One good file, and what only looks like subtitles."""
    folder = tmp_path / "archive"
    write(folder / "talk.srt")
    (tmp_path / "secret.txt").write_text("1\n00:00:01,000 --> 00:00:20,000\nтайна\n")
    os.mkfifo(folder / "pipe.srt")
    (folder / "zero.vtt").symlink_to("/dev/zero")
    (folder / "out.srt").symlink_to(tmp_path / "secret.txt")
    (folder / "near.srt").symlink_to("../secret.txt")
    (folder / "gone.srt").symlink_to("nowhere")
    (folder / "circle.srt").symlink_to("circle.srt")
    (folder / "within.srt").symlink_to("talk.srt")
    (folder / "._talk.srt").write_bytes(b"\0\5\26\7")
    (folder / "folder.srt").mkdir()
    return folder


SKIPPED = {
    "pipe.srt": "a pipe or a device",
    "zero.vtt": "a link that leads out",
    "out.srt": "a link that leads out",
    "near.srt": "a link that leads out",
    "gone.srt": "a link that leads nowhere",
    "circle.srt": "leads nowhere",
}


@pytest.mark.parametrize("engine", [[], ["--engine", "local", "--workers", "1"]])
def test_what_only_looks_like_subtitles_is_skipped_with_the_reason(
    in_process, odd_archive, tmp_path, caplog, capsys, monkeypatch, engine
):
    from viralbert.cli import main
    from viralbert.serving import predictor

    monkeypatch.setattr(archives, "load_scorer", lambda model, precision: score)
    monkeypatch.setattr(predictor.Predictor, "load", lambda *_: SimpleNamespace(scores=score))
    assert (
        main(["moments", str(odd_archive), "-o", str(tmp_path / "out"), "--count", "1", *engine])
        == 0
    )
    told = dict(
        message.rsplit("/", 1)[1].split(" is skipped: it is ") for message in caplog.messages
    )
    assert told.keys() == SKIPPED.keys()
    assert all(reason in told[name] for name, reason in SKIPPED.items())
    assert len(list((tmp_path / "out").glob("*/moments.json"))) == 2
    assert not any(
        "тайна" in path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    assert "тайна" not in capsys.readouterr().err


def test_a_folder_that_is_a_link_is_read(archive, tmp_path):
    (tmp_path / "link").symlink_to(archive)
    (tmp_path / "link" / "b" / "same.srt").symlink_to("../talk.srt")
    found = [
        str(path.relative_to(tmp_path / "link"))
        for path in archives.subtitle_files(tmp_path / "link", "**/*")
    ]
    assert found == ["a/talk.srt", "b/same.srt", "b/talk.srt", "b/talk.vtt", "talk.srt"]


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_names_in_no_encoding_and_with_control_characters(
    job, archive, tmp_path, monkeypatch, engine
):
    monkeypatch.setenv("PYTHONPATH", IMPORTED)
    names = [os.fsdecode(b"\xff\xfe\xe0.srt"), "a\x1b[2J\nb.srt"]
    for name in names:
        write(archive / name)
        (archive / f"bad {name}").write_text("")
    outcome = run(replace(job, output=tmp_path / engine), engine, 1)
    assert outcome.n_done == len(FILES) + 2
    assert outcome.failures.keys() == {f"bad {name}" for name in names}
    for name in names:
        assert json.loads((tmp_path / engine / name / "record.json").read_bytes())["file"] == name
    assert run(replace(job, output=tmp_path / engine), engine, 1).n_before == len(FILES) + 2


def load_without_torch():
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_worker_without_torch_says_what_to_install(job, monkeypatch, engine):
    monkeypatch.setenv("PYTHONPATH", IMPORTED)
    with pytest.raises(
        DataError, match="the package torch is not installed: pip install 'viralbert-course'"
    ):
        run(replace(job, load=load_without_torch), engine, 1)

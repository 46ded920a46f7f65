"""Moments of a whole archive: thousands of subtitle files.

Several processes or several machines work on it, and a stopped run goes on file by file.

One function handles one file; an engine only hands files out, so both engines write the same bytes.
Which moments come out does not depend on the others either. Ray Data: Moritz et al. 2018 (arXiv
1712.05889), an extra of the package.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from tqdm import tqdm

from viralbert.moments import outputs
from viralbert.moments.limits import Limits
from viralbert.moments.ranking import Found, find_moments
from viralbert.moments.scores import Scorer
from viralbert.moments.subtitles import SUFFIXES, Subtitles, read_subtitles
from viralbert.packages import missing
from viralbert.terminal import quote_warnings
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import folder_sha256, locked, remove_unfinished, sha256, write_whole

ENGINES = ("local", "ray")
READ = set(SUFFIXES) - {
    ".json"
}  # of files in a folder: most .json files hold anything but subtitles
RECORD = "record.json"  # written last: a folder that has it is complete
FILES_A_CALL = 8  # how many a worker of Ray takes at once


@dataclass(frozen=True)
class ArchiveJob:
    """What is done with every file of an archive.

    Attributes:
        folder: Searched with all that is in it for subtitle files (all but .json, which may hold
            anything).
        output: Gets a folder for each file, named like it (`a/talk.srt/moments.json`), see
            `outputs.write_all`.
        load: Makes the scorer, once for each worker; a function of a module, since it is sent to
            other processes.
        scorer: Tells scorers apart, e.g. `model_digest`: another one does everything again.
        limits: What may come out; see `limits.Limits`.
        fps: Frames a second of the videos, for the edit lists.
        otio: An OpenTimelineIO timeline, too.
    """

    folder: Path
    output: Path
    load: Callable[[], Scorer]
    scorer: str
    limits: Limits = field(default_factory=Limits)
    fps: float = 25
    otio: bool = False

    def files(self) -> list[str]:
        """List the subtitle files as paths within the folder, sorted.

        Hidden ones and those in `output` are left out.

        Raises:
            DataError: No such folder, or no subtitle file in it.
        """
        output = self.output.resolve()
        paths = [
            path
            for path in subtitle_files(self.folder, "**/*")
            if output not in path.resolve().parents
        ]
        if not paths:
            raise _no_subtitles(self.folder)
        return [str(path.relative_to(self.folder)) for path in paths]

    def key(self, file: str) -> str:
        """Hash what a file's result depends on.

        That is its content, the limits, the scorer and the version of this package.
        """
        version = importlib.metadata.version("viralbert-course")
        parts = [
            sha256(self.folder / file),
            self.scorer,
            asdict(self.limits),
            self.fps,
            self.otio,
            version,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_holds_any(folder: Path) -> None:
    """Refuse a folder without subtitle files, before a scorer is loaded for them.

    Raises:
        DataError: There is none.
    """
    if not any(path.suffix.lower() in READ for path in folder.rglob("*")):
        raise _no_subtitles(folder)


def _no_subtitles(folder: Path) -> DataError:
    return DataError(
        f"no subtitle files in {folder}; expected a folder with {', '.join(sorted(READ))}"
    )


def subtitle_files(folder: Path, pattern: str = "*") -> list[Path]:
    """List the subtitle files of a folder, sorted, without hidden ones.

    What only looks like one is skipped with a warning.

    A link that leads out of the folder would show what lies elsewhere to whoever reads the results,
    and a pipe or a device has no end. Whoever means such a file can name it.

    Args:
        folder: Searched for files that are called like subtitles (all but .json, which may hold
            anything).
        pattern: What the paths within it look like; `**/*` for folders in folders, too.
    """
    inside, paths = folder.resolve(), []
    for path in sorted(folder.glob(pattern), key=str):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in READ or path.is_dir():
            continue
        if reason := _unfit(path, inside):
            _log.warning("%s is skipped: it is %s", path, reason)
        else:
            paths.append(path)
    return paths


def _unfit(path: Path, inside: Path) -> str:
    """Why a path in a folder is not read; empty if it is."""
    try:
        end = path.resolve(strict=True)
    except (OSError, RuntimeError):  # links in a circle
        return "a link that leads nowhere"
    if not end.is_relative_to(inside):
        return "a link that leads out of the folder"
    return "" if end.is_file() else "a pipe or a device, no file"


@dataclass
class ArchiveOutcome:
    """How a run over an archive ended.

    It counts the files that were worked on now and those complete from earlier runs, and names
    those that failed, with the reason.
    """

    n_done: int = 0
    n_before: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def run(
    job: ArchiveJob,
    engine: str = "local",
    n_workers: int | None = None,
    show_progress: bool = False,
) -> ArchiveOutcome:
    """Handle every file that is not complete yet.

    A stopped run loses the files that were in work, nothing else.

    A second run on the same output waits for the first (on this machine), then does what its own
    settings ask for.

    Workers compute on one processor each, so that sums have the same order everywhere. Where
    `RAY_ADDRESS` names a cluster, Ray's workers are there; they need the folders under the same
    paths.

    Args:
        job: What is done, with which files.
        engine: `local`: processes of this machine; `ray`: Ray Data.
        n_workers: Number of processes; as many as processors if not given.
        show_progress: A progress bar.

    Raises:
        DataError: An unknown engine, no files, a scorer that cannot be loaded, Ray is not
            installed, or a worker died.
    """
    if engine not in ENGINES:
        raise DataError(f"engine {engine!r} is not known; use {', '.join(ENGINES)}")
    with locked(job.output):
        return _run(job, engine, n_workers or os.cpu_count() or 1, show_progress)


def _run(job: ArchiveJob, engine: str, n_workers: int, show_progress: bool) -> ArchiveOutcome:
    files = job.files()
    waiting = [file for file in files if not _is_complete(job, file)]
    outcome = ArchiveOutcome(n_before=len(files) - len(waiting))
    if waiting:
        hand_out = _with_ray if engine == "ray" else _with_processes
        answers = hand_out(job, waiting, min(n_workers, len(waiting)))
        for file, error in tqdm(
            answers, total=len(waiting), unit="file", disable=not show_progress
        ):
            if not file:
                raise DataError(error)
            outcome.failures |= {file: error} if error else {}
        outcome.n_done = len(waiting) - len(outcome.failures)
    return outcome


def process(
    read: Subtitles,
    folder: Path,
    score: Scorer,
    limits: Limits,
    fps: float = 25,
    otio: bool = False,
    video: str = "",
) -> Found:
    """Moments of one subtitle file, written to its folder.

    Raises:
        DataError: As `find_moments` and `outputs.write_all`.
    """
    selection = find_moments(read.cues, score, limits)
    outputs.write_all(selection, read.cues, folder, fps, video, otio)
    return selection


def load_scorer(model: str, precision: str = "auto") -> Scorer:
    """The scorer of a saved predictor, on the CPU, where all workers compute the same.

    Args:
        model: Its folder.
        precision: See `devices.precision`; `auto` is float32, whatever the environment of a worker
            says.
    """
    from viralbert.serving.predictor import ViralBERT

    bert = ViralBERT.load(model, "cpu", precision)
    return replace(bert, precision="float32").scores if precision == "auto" else bert.scores


def model_digest(model: str, precision: str = "auto") -> str:
    """Tell saved predictors apart by their files, without loading one.

    The arguments are those of `load_scorer`.
    """
    return folder_sha256(model) + ("" if precision in ("auto", "float32") else f" {precision}")


def _is_complete(job: ArchiveJob, file: str) -> bool:
    try:
        return json.loads((job.output / file / RECORD).read_bytes())["key"] == job.key(file)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # none, damaged, or a file that cannot be read
        return False


class Worker:
    """Handles files one after another with a scorer that is loaded for the first."""

    def __init__(self, job: ArchiveJob) -> None:
        """Take a job; the scorer is loaded with the first file."""
        self.job = job
        self.score: Scorer | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the same as `answer` for Ray, in JSON.

        Arrow's columns take no name that is not in UTF-8.
        """
        return {"answer": [json.dumps(self.answer(json.loads(file))) for file in batch["file"]]}

    def answer(self, file: str) -> tuple[str, str]:
        """The file, and why it failed (empty: it did not); no file if no file could be handled."""
        try:
            self.score = self.score or self._load()
        except DataError as error:
            return "", str(error)
        except ModuleNotFoundError as error:
            return "", missing(error.name or str(error))
        try:
            self._handle(file, self.score)
        except Exception as error:  # the rest of the archive goes on
            known = isinstance(error, DataError | OSError)
            return file, str(error) if known else f"{type(error).__name__}: {error}"
        return file, ""

    def _load(self) -> Scorer:
        os.environ["OMP_NUM_THREADS"] = "1"
        if torch := sys.modules.get("torch"):  # which has read that variable already
            torch.set_num_threads(1)
        return self.job.load()

    def _handle(self, file: str, score: Scorer) -> None:
        job, folder = self.job, self.job.output / file
        (folder / RECORD).unlink(missing_ok=True)
        for place in (folder, folder / "clips"):
            remove_unfinished(place)
        for name in ("moments.otio", "moments.edl"):  # not every setting writes them anew
            (folder / name).unlink(missing_ok=True)
        key = job.key(
            file
        )  # before the file is read: if it changes meanwhile, the next run sees that
        read = read_subtitles(job.folder / file)
        selection = process(read, folder, score, job.limits, job.fps, job.otio)
        record = {"file": file, "key": key, "note": selection.note, "repairs": read.repairs}
        write_whole(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=1) + "\n")


_log = logging.getLogger("viralbert.archives")
_own: list[Worker] = []  # the worker of a process that `_with_processes` has started


def _start(job: ArchiveJob) -> None:
    quote_warnings()
    _own.append(Worker(job))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent decides
    # A parent that was killed cannot tell its workers.
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()  # type: ignore[union-attr]


def _answer(file: str) -> tuple[str, str]:
    return _own[0].answer(file)


def _with_processes(
    job: ArchiveJob, files: Sequence[str], n_workers: int
) -> Iterator[tuple[str, str]]:
    pool = ProcessPoolExecutor(n_workers, get_context("spawn"), _start, (job,))
    try:
        for done in as_completed([pool.submit(_answer, file) for file in files]):
            yield done.result()
    except BrokenProcessPool:
        raise DataError(
            "a worker was ended from outside, perhaps for want of memory; what is finished is "
            "kept: call again, with "
            "fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _with_ray(job: ArchiveJob, files: Sequence[str], n_workers: int) -> Iterator[tuple[str, str]]:
    with ray_session(n_workers) as ray:
        n_blocks = -(-len(files) // FILES_A_CALL)
        table = ray.data.from_items(
            [{"file": json.dumps(file)} for file in files],
            override_num_blocks=max(n_blocks, n_workers),
        )
        pool = ray.data.ActorPoolStrategy(size=n_workers)
        answers = table.map_batches(
            Worker, fn_constructor_args=(job,), batch_size=FILES_A_CALL, compute=pool, num_cpus=1
        )
        for row in answers.iter_rows():
            file, error = json.loads(row["answer"])
            yield file, error


@contextmanager
def ray_session(n_workers: int) -> Iterator[Any]:
    """Give Ray with room for so many workers.

    It is what runs already, the cluster at `RAY_ADDRESS`, or a session of our own.

    Our own can be reached from this machine only, and reports nothing to anybody.

    Raises:
        DataError: Ray is not installed.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "error"}
    try:
        import ray.data
    except ImportError:
        raise DataError(f"{missing('ray')}, or use the engine local") from None
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        # One processor more than workers, or what reads the list has no place; the list is all that
        # is stored. 127.0.0.1 would be replaced by an address that others can reach, other names of
        # the loopback are not.
        ray.init(
            num_cpus=n_workers + 1,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            _node_ip_address="127.0.0.2" if sys.platform == "linux" else None,
            **quiet,
        )
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()

"""Moments in subtitles: `viralbert moments`."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from viralbert.commands.options import example, file_path, model_folder, model_options
from viralbert.moments.limits import Limits
from viralbert.packages import missing
from viralbert.places import check_output
from viralbert.terminal import complain, counted, printable, say
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_there

if TYPE_CHECKING:
    from viralbert.commands.options import Commands
    from viralbert.moments.ranking import Moment
    from viralbert.moments.subtitles import Subtitles


def add_moments(commands: Commands) -> None:
    """Add `viralbert moments`."""
    command = commands.add_parser(
        "moments",
        parents=[model_options()],
        help="find the moments of a video from its subtitles, "
        "with a model for virality and emotions",
        **example("viralbert moments talk.srt lectures/ --output moments"),
    )
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=file_path,
        help="subtitle files, or folders of them (where .json files are skipped)",
    )
    command.add_argument(
        "-o", "--output", required=True, type=file_path, help="gets a folder for each file"
    )
    command.add_argument(
        "--min",
        type=float,
        default=15,
        metavar="S",
        help="least length of a moment in seconds (15)",
    )
    command.add_argument(
        "--max", type=float, default=60, metavar="S", help="greatest length in seconds (60)"
    )
    command.add_argument(
        "--count", type=int, help="how many at most; without it the video's length decides"
    )
    command.add_argument(
        "--fps", type=float, default=25, help="frames a second of the video, for the edit list (25)"
    )
    command.add_argument(
        "--otio", action="store_true", help="write an OpenTimelineIO timeline, too"
    )
    command.add_argument(
        "--video",
        type=file_path,
        help="cut the moments out of this video with ffmpeg (one subtitle file only)",
    )
    command.add_argument(
        "--engine",
        choices=("local", "ray"),
        help="for archives: work through one folder and all folders below it, "
        "on several processes or on Ray; goes on where it was stopped. Always on the CPU, one "
        "process "
        "for each processor, so that the files are the same everywhere",
    )
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes of the engine; one for each processor if not given",
    )
    command.set_defaults(function=_moments)


def _check_moments(options: argparse.Namespace) -> None:
    """Refuse what does not go together before anything heavy is imported."""
    for name, value in (("--count", options.count), ("--workers", options.workers)):
        if value is not None and value < 1:
            raise DataError(f"{name}: expected at least 1, found {value}")
    if not 0 < options.min <= options.max < float("inf"):
        raise DataError(
            "--min, --max: expected seconds above 0, and --max at least as long as --min; found "
            f"{options.min:g} and {options.max:g}"
        )
    _check_outputs(options)
    if not options.engine:
        return
    if len(options.files) == 1 and not options.files[0].exists():
        raise DataError(f"no such folder: {options.files[0]}; check its name")
    if len(options.files) != 1 or not options.files[0].is_dir() or options.video:
        raise DataError(
            "--engine works through one folder and cuts no video; call without it for files"
        )
    if options.device not in (None, "cpu"):
        raise DataError(
            "--engine computes on the CPU, a process for each processor, so that the files are "
            "the same everywhere; "
            f"found --device {options.device}: leave it out, or call without --engine"
        )


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse what cannot be written."""
    check_output(options.output, folder=True)
    if not 0 < options.fps < float("inf"):
        raise DataError(f"--fps: expected frames a second above 0, found {options.fps:g}")
    if not options.otio and options.fps != int(options.fps):
        raise DataError(
            f"--fps: moments.edl needs a whole number, found {options.fps:g}; add --otio, which "
            "writes moments.otio in its place"
        )
    if options.otio and find_spec("opentimelineio") is None:
        raise DataError(
            f"--otio: {missing('opentimelineio')}, or leave --otio out (moments.edl is for video "
            "editors, too)"
        )
    if options.video:
        check_there(options.video, "a video for --video")
        if shutil.which("ffmpeg") is None:
            raise DataError(
                "--video: no ffmpeg on the PATH; install it (Debian: apt-get install ffmpeg), or "
                "leave --video out and cut with moments.csv in LosslessCut"
            )


def _moments(options: argparse.Namespace) -> int:
    _check_moments(options)
    limits = Limits(options.min, options.max, n=options.count)
    from viralbert import archives
    from viralbert.moments import outputs
    from viralbert.serving.predictor import ViralBERT

    if options.engine:
        return _archive(options, limits)
    paths = list(dict.fromkeys(itertools.chain.from_iterable(map(_subtitle_files, options.files))))
    if options.video and len(paths) != 1:
        raise DataError(
            f"--video belongs to one subtitle file, found {len(paths)}; call once for each video"
        )
    model: ViralBERT | None = None
    n_failed = 0
    for path, name in zip(paths, _own_names(paths), strict=True):
        folder = options.output / name
        try:
            read = _read(path)
        except (DataError, OSError) as error:
            n_failed += 1
            _complain_of(path, error)
            continue
        # Only now: it may have to be built, and a file that is missing need not wait for that.
        model = model or ViralBERT.load(model_folder(options), options.device, options.precision)
        try:
            video = str(options.video or "")
            selection = archives.process(
                read, folder, model.scores, limits, options.fps, options.otio, video
            )
            if options.video:
                outputs.cut(options.video, selection.moments, folder / "clips")
        except (DataError, OSError) as error:
            n_failed += 1
            _complain_of(path, error)
            continue
        say(f"{path} -> {folder}: {selection.note}")
        for repair in read.repairs:
            say(f"  repaired: {repair}")
        print(*map(printable, _moment_rows(selection.moments)), sep="\n")
    if n_failed and len(paths) > 1:  # one file has had its message
        n_written = len(paths) - n_failed
        rest = f"; {n_written} {'is' if n_written == 1 else 'are'} written" if n_written else ""
        complain(f"{n_failed} of {counted(len(paths), 'file')} failed{rest}")
    return 1 if n_failed else 0


def _archive(options: argparse.Namespace, limits: Limits) -> int:
    from viralbert import archives

    archives.check_holds_any(options.files[0])
    model = (model_folder(options), options.precision)
    job = archives.ArchiveJob(
        options.files[0],
        options.output,
        partial(archives.load_scorer, *model),
        archives.model_digest(*model),
        limits,
        options.fps,
        options.otio,
    )
    outcome = archives.run(job, options.engine, options.workers, show_progress=sys.stderr.isatty())
    say(
        f"{counted(outcome.n_done, 'file')} done, {outcome.n_before} were complete before -> "
        f"{options.output}"
    )
    for file, error in outcome.failures.items():
        complain(error if file in error else f"{file}: {error}")
    if outcome.failures:
        which = "it" if len(outcome.failures) == 1 else "them"
        failed = counted(len(outcome.failures), "file")
        complain(f"{failed} failed; the next run tries {which} again")
    return 1 if outcome.failures else 0


def _read(path: Path) -> Subtitles:
    from viralbert.archives import READ
    from viralbert.moments.subtitles import read_subtitles

    if path.is_dir():
        raise DataError(
            f"no subtitle files in {path}; expected some of "
            f"{', '.join(sorted(READ))} (name .json files one by one)"
        )
    return read_subtitles(path)


def _complain_of(path: Path, error: Exception) -> None:
    complain(error if str(path) in str(error) else f"{path}: {error}")


def _subtitle_files(path: Path) -> list[Path]:
    """The file, or those of a folder."""
    from viralbert.archives import subtitle_files

    if not path.is_dir():
        return [path]
    # A folder without any stays in the list, to be named among the files that failed.
    return subtitle_files(path) or [path]


def _own_names(paths: Sequence[Path]) -> list[str]:
    """Find a folder name for each file, after its stem.

    A number is added where a name is taken; upper and lower case may be one.

    No name leads out of the folder that holds them all.
    """
    from viralbert.moments.outputs import folder_name

    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name = folder_name(path.stem)
        options = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        names.append(
            next(
                name for name in options if unicodedata.normalize("NFC", name).lower() not in taken
            )
        )
        taken.add(unicodedata.normalize("NFC", names[-1]).lower())
    return names


def _moment_rows(moments: Sequence[Moment]) -> Iterator[str]:
    """Rank, start, end, score and reasons, as wide as the terminal."""
    width = max(shutil.get_terminal_size((120, 24)).columns - 36, 20)
    if moments:
        yield f"{'rank':>6}  {'start':>9}  {'end':>9}  score  why"
    for m in moments:
        tenths = (round(10 * time) for time in (m.start, m.end))
        times = (f"{t // 36000}:{t // 600 % 60:02d}:{t // 10 % 60:02d}.{t % 10}" for t in tenths)
        # The first reason repeats the score, the second and third quote lines: what is short goes
        # first.
        why = textwrap.shorten(
            "; ".join([*m.reasons[3:], *m.reasons[1:2]]), width, placeholder=" …"
        )
        yield "  ".join([f"{m.rank:>6}", *(f"{time:>9}" for time in times), f"{m.score:5.2f}", why])

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
from pathlib import Path
from typing import TYPE_CHECKING

from viralbert.commands.options import example, file_path, model_folder, model_options
from viralbert.moments.limits import Limits
from viralbert.terminal import complain, counted, printable, say
from viralbert_utils.base.errors import DataError

if TYPE_CHECKING:
    from viralbert.commands.options import Commands
    from viralbert.moments.ranking import Moment


def add_moments(commands: Commands) -> None:
    """Add `viralbert moments`."""
    command = commands.add_parser(
        "moments",
        parents=[model_options()],
        help="where in a video are the moments: from subtitles; "
        "with a model for virality and emotions",
        **example("viralbert moments talk.srt lectures/ --output moments"),
    )
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=file_path,
        help="subtitle files, or folders of them (there: all but .json)",
    )
    command.add_argument(
        "-o", "--output", required=True, type=file_path, help="gets a folder for each file"
    )
    command.add_argument(
        "--min", type=float, default=15, metavar="S", help="least length of a moment in seconds"
    )
    command.add_argument(
        "--max", type=float, default=60, metavar="S", help="greatest length in seconds"
    )
    command.add_argument(
        "--count", type=int, help="how many at most; without it the video's length decides"
    )
    command.add_argument(
        "--fps", type=float, default=25, help="frames a second of the video, for the edit list"
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
        help="for archives: one folder with all folders in it, "
        "on several processes or on Ray; goes on where it was stopped. Always on the CPU, a "
        "process "
        "for each processor, so that the files are the same everywhere",
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="of the engine; as many as processors if not given"
    )
    command.set_defaults(function=_moments)


def _check_moments(options: argparse.Namespace) -> None:
    """Refuse what does not go together before anything heavy is imported."""
    if not options.engine:
        return
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
    model = ViralBERT.load(model_folder(options), options.device, options.precision)
    n_failed = 0
    for path, name in zip(paths, _own_names(paths), strict=True):
        folder = options.output / name
        try:
            if path.is_dir():
                raise DataError(
                    f"no subtitle files in {path}; expected some of "
                    f"{', '.join(sorted(archives.READ))} (name .json files one by one)"
                )
            video = str(options.video or "")
            selection, read = archives.process(
                path, folder, model.scores, limits, options.fps, options.otio, video
            )
            if options.video:
                outputs.cut(options.video, selection.moments, folder / "clips")
        except (DataError, OSError) as error:
            n_failed += 1
            complain(error if str(path) in str(error) else f"{path}: {error}")
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

"""Moments as files, for editors, players and programs.

JSON, LosslessCut, subtitles of each clip, chapters, edit lists, and the clips themselves.

Lesson 06 writes them. Formats: LosslessCut's CSV (start, end, label; seconds; no header), ffmpeg's
FFMETADATA1, CMX 3600 edit decision lists, OpenTimelineIO. All files are written whole.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from viralbert.moments.ranking import Found, Moment
from viralbert.moments.subtitles import Cue, write_subtitles
from viralbert.moments.units import is_credit
from viralbert.packages import missing
from viralbert.terminal import UNPRINTABLE
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import check_plain, write_whole
from viralbert_utils.data.emotions import russian_name

MIN_CUE_S = 0.05  # what is left of a cue at the edge of a clip is dropped below this
MIN_CLIP_S = 1.0  # what is left of a moment at the end of a video is no clip below this
MAX_NAME_BYTES = 200  # of a folder: file systems take 255, and a number may follow
_WORD = re.compile(r"\S+")
_CHAPTER_SIGN = re.compile(r"([=;#\\\n])")
_FORMULA = re.compile(r"(;[^\w;=+@\-]*)([=+@\-])")  # begins a cell where the semicolon separates
_DURATION = re.compile(r"Duration: (\d+):(\d+):([\d.]+)")
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|\Z)", re.IGNORECASE
)  # Windows keeps these names
_UNDECODED = re.compile(
    "[\udc80-\udcff]"
)  # how Python shows a byte of a name that is in no encoding
_log = logging.getLogger(__name__)


def write_all(
    selection: Found,
    cues: Sequence[Cue],
    folder: Path,
    fps: float = 25,
    video: str = "",
    otio: bool = False,
) -> None:
    """Write every file of a video's moments.

    They are `moments.json`, `.csv`, `.edl`, `chapters.txt` and `clips/<rank>.srt`.

    Clips that an earlier call left in the folder go: it may have found more.

    Args:
        selection: The moments to write.
        cues: All cues of the video, for the clips' subtitles.
        folder: Made if missing.
        fps: Frames a second of the video.
        video: Its path or URL, for `moments.otio`.
        otio: Whether to write that; at a frame rate that an EDL cannot hold it takes the EDL's
            place.

    Raises:
        DataError: As `write_edl` and `write_otio`; the other files are written then.
    """
    clips = folder / "clips"
    for old in (*clips.glob("[0-9][0-9].srt"), *clips.glob("[0-9][0-9].mp4")):
        old.unlink()
    write_json(selection, folder / "moments.json")
    write_losslesscut(selection.moments, folder / "moments.csv")
    write_chapters(selection.moments, folder / "chapters.txt")
    write_clip_subtitles(cues, selection.moments, clips)
    if otio:
        write_otio(selection.moments, folder / "moments.otio", video, fps)
    if not otio or fps == int(fps):
        write_edl(selection.moments, folder / "moments.edl", fps)


def as_dict(selection: Found) -> dict[str, Any]:
    """Everything that `ranking.choose` found, times in seconds, with the Russian names of the
    emotions beside."""
    content = asdict(selection)
    for moment in content["moments"]:
        for emotion in moment["emotions"]:
            emotion["russian"] = russian_name(emotion["name"])
    return content


def write_json(selection: Found, path: Path) -> None:
    """`as_dict` as a file."""
    content = {"format": "viralbert-moments", "version": 1, **as_dict(selection)}
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def write_losslesscut(moments: Sequence[Moment], path: Path) -> None:
    """CSV that LosslessCut imports ("CSV file, seconds"): the quickest way for a person to look
    through the moments.

    A spreadsheet that separates by semicolons would compute what stands behind one: an apostrophe
    makes it text.
    """
    table = io.StringIO()
    rows = (
        [f"{m.start:.3f}", f"{m.end:.3f}", _FORMULA.sub(r"\1'\2", _label(m))]
        for m in _in_order(moments)
    )
    csv.writer(table, lineterminator="\n").writerows(rows)
    write_whole(path, table.getvalue())


def write_clip_subtitles(
    cues: Sequence[Cue], moments: Sequence[Moment], folder: Path
) -> list[Path]:
    """Subtitles of each clip as `<folder>/<rank>.srt`, times from the clip's zero; returns the
    paths by rank."""
    paths = []
    for moment in moments:
        paths.append(folder / f"{moment.rank:02d}.srt")
        write_subtitles(clip_cues(cues, moment), paths[-1])
    return paths


def clip_cues(cues: Sequence[Cue], moment: Moment) -> list[Cue]:
    """The cues of a moment, times from its start; a cue across its edge keeps the words that lie
    inside."""
    clipped = []
    for cue in cues:
        start, end = max(cue.start, moment.start), min(cue.end, moment.end)
        if end - start < MIN_CUE_S or is_credit(cue.text):
            continue
        per_char = (cue.end - cue.start) / max(len(cue.text), 1)
        inside = (start - 1e-6, end + 1e-6)
        words = [
            match.group()
            for match in _WORD.finditer(cue.text)
            if inside[0] <= cue.start + per_char * (match.start() + match.end()) / 2 <= inside[1]
        ]
        if words:
            clipped.append(
                Cue(round(start - moment.start, 3), round(end - moment.start, 3), " ".join(words))
            )
    return clipped


def write_chapters(moments: Sequence[Moment], path: Path) -> None:
    """Chapters in ffmpeg's FFMETADATA1: `ffmpeg -i video -i chapters -map_metadata 1 -codec copy
    out`."""
    blocks = [
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={round(m.start * 1000)}\nEND={round(m.end * 1000)}\n"
        "title=" + _CHAPTER_SIGN.sub(r"\\\1", _label(m)) + "\n"
        for m in _in_order(moments)
    ]
    write_whole(path, ";FFMETADATA1\n" + "".join(blocks))


def write_edl(
    moments: Sequence[Moment], path: Path, fps: float = 25, title: str = "Moments"
) -> None:
    """CMX 3600 edit decision list: the moments in the order of the video, one after another.

    Raises:
        DataError: `fps` is not a whole number: 23.976 and 29.97 need drop-frame rules, which an
            OpenTimelineIO file does without (`write_otio`); or there are more than the 999 events
            of the format.
    """
    if fps != int(fps) or fps < 1 or len(moments) > 999:
        raise DataError(
            f"an EDL holds 999 events at whole frame rates, found {len(moments)} at {fps}; use "
            "write_otio"
        )
    lines, record = [f"TITLE: {title}", "FCM: NON-DROP FRAME"], 0
    for number, moment in enumerate(_in_order(moments), 1):
        source = (round(moment.start * fps), round(moment.end * fps))
        times = (*source, record, record + source[1] - source[0])
        lines.append(
            f"{number:03d}  AX       B     C        "
            f"{' '.join(_timecode(frame, int(fps)) for frame in times)}"
        )
        lines.append(f"* FROM CLIP NAME: {_label(moment)}")
        record = times[3]
    write_whole(path, "\n".join(lines) + "\n")


def write_otio(moments: Sequence[Moment], path: Path, video: str, fps: float = 25) -> None:
    """OpenTimelineIO timeline (`.otio`, opens in DaVinci Resolve) of the moments in the order of
    the video.

    Args:
        moments: To write.
        path: File of the timeline.
        video: Path or URL of the video, as the editor will find it.
        fps: Frames a second of the video; 24000/1001 and the like are fine.

    Raises:
        DataError: The package is not installed.
    """
    try:
        import opentimelineio as otio
    except ImportError as error:
        raise DataError(f"{missing('opentimelineio')}, or use write_edl") from error
    # A name that is in no encoding has bytes that only a URL can spell.
    video = _UNDECODED.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", video)
    timeline = otio.schema.Timeline("Moments")
    track = otio.schema.Track("Moments", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for moment in _in_order(moments):
        first, after = (
            otio.opentime.RationalTime(round(time * fps), fps)
            for time in (moment.start, moment.end)
        )
        span = otio.opentime.TimeRange(first, after - first)
        track.append(otio.schema.Clip(_label(moment), otio.schema.ExternalReference(video), span))
    write_whole(path, otio.adapters.write_to_string(timeline, "otio_json"))


def cut_command(video: Path, moment: Moment, target: Path) -> list[str]:
    """The ffmpeg command that cuts one moment, exact to the frame.

    Encoded anew, because `-c copy` can only begin at a keyframe, seconds too early. A list, not a
    line: no shell reads the file names.
    """
    return [
        "ffmpeg",
        "-nostdin",
        "-hide_banner",
        "-loglevel",
        "error",
        "-y",
        "-ss",
        f"{moment.start:.3f}",
        "-to",
        f"{moment.end:.3f}",
        "-i",
        f"file:{video}",
        "-map",
        "0:v:0?",
        "-map",
        "0:a:0?",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-crf",
        "20",
        "-c:a",
        "aac",
        "-movflags",
        "+faststart",
        f"file:{target}",
    ]


def cut(video: Path, moments: Sequence[Moment], folder: Path) -> list[Path]:
    """Cut the moments to `<folder>/<rank>.mp4`; returns the paths by rank.

    A recogniser's last cue often ends after the video does: such a moment is cut at the video's
    end, with a warning.

    Raises:
        DataError: ffmpeg is missing, cannot read the video, or cannot cut some of the moments, or
            they begin where the video has ended (ffmpeg would write a file of nothing and report
            success); the others are cut then.
    """
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise DataError(
            "no ffmpeg on the PATH: install it (Debian: apt-get install ffmpeg), or use "
            "write_losslesscut"
        )
    check_plain(video)
    _, log = _run([ffmpeg, "-nostdin", "-hide_banner", "-i", f"file:{video}"])
    match = _DURATION.search(log)
    if match is None:
        raise DataError(f"{video} is no video that ffmpeg can read: {log[-300:]}")
    duration = 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
    folder.mkdir(parents=True, exist_ok=True)
    paths, problems = [], []
    for moment in moments:
        if moment.start > duration - MIN_CLIP_S:
            problems.append(
                f"moment {moment.rank} starts at {moment.start} s, {video} ends at {duration} s; "
                "other "
                "subtitles?"
            )
            continue
        if moment.end > duration:
            if moment.end > duration + 0.5:
                _log.warning(
                    "moment %d ends at %s s, %s at %s s: cut there",
                    moment.rank,
                    moment.end,
                    video,
                    duration,
                )
            moment = replace(moment, end=duration)  # noqa: PLW2901
        partial = folder / f".{moment.rank:02d}.part.mp4"
        failed, log = _run([ffmpeg, *cut_command(video, moment, partial)[1:]])
        if failed or not partial.is_file():
            partial.unlink(missing_ok=True)
            problems.append(f"ffmpeg could not cut moment {moment.rank} of {video}: {log[-300:]}")
            continue
        paths.append(folder / f"{moment.rank:02d}.mp4")
        os.replace(partial, paths[-1])
    if problems:
        raise DataError("; ".join([*problems, f"{len(paths)} of {len(moments)} moments are cut"]))
    return paths


def folder_name(stem: str) -> str:
    """A name for the folder of a file's moments: the file's own, or what is left of it that every
    system takes.

    It is never one that leads elsewhere (`..`), that a terminal obeys, that Windows keeps or
    shortens, or too long.
    """
    name = UNPRINTABLE.sub("_", stem).replace("/", "_").replace("\\", "_")
    name = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip().rstrip(". ")
    return f"_{name}" if not name.strip(".") or _DEVICE.match(name) else name


def _run(command: list[str]) -> tuple[int, str]:
    """Exit status and what was written to stderr."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.returncode, done.stderr.strip()


def _in_order(moments: Sequence[Moment]) -> list[Moment]:
    return sorted(moments, key=lambda moment: moment.start)


def _label(moment: Moment) -> str:
    """One line for people: rank, score, and how the text begins."""
    text = " ".join(moment.text.split())
    return (
        f"{moment.rank}. {moment.score:.2f} {text if len(text) <= 60 else text[:59].rstrip() + '…'}"
    )


def _timecode(frame: int, fps: int) -> str:
    seconds, frames = divmod(frame, fps)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frames:02d}"

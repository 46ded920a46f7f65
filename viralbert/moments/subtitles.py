"""Cues from any subtitle file, with a report of each repair, and subtitle files from cues.

SubRip, WebVTT, SubStation (ASS, SSA), the JSON of speech recognisers and YouTube's json3 are told
apart by content. The libraries that read them lose or invent text on damaged input without a word
(a last line "1998" taken for a cue number, a time quoted in speech taken for a cue), so reading is
our own; pysubs2 writes the formats that are not written here. A file comes from a stranger, so
every reader and every pattern takes time in proportion to its length. Lesson 06 uses it.
"""

from __future__ import annotations

import html
import json
import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pysubs2

from viralbert.moments.cue_text import RawCue, Repairs, clock_time, guessed_length
from viralbert.moments.encodings import decode
from viralbert.moments.formats import parse
from viralbert.moments.recogniser_json import cues_from_entries
from viralbert.pipes import opened
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path, write_whole

SAME_S = 0.005  # times so near are one
SUFFIXES = (".srt", ".vtt", ".ass", ".ssa", ".json", ".json3")


@dataclass(frozen=True)
class Cue:
    """What is said in a stretch of time.

    Attributes:
        start: Seconds, to the millisecond, at least 0.
        end: Seconds, after `start`.
        text: Plain text on one line, without tags, repaired by `texts.normalise`.
    """

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Subtitles:
    """Result of `read_subtitles`.

    Attributes:
        cues: Sorted by start, in the order of the file where starts are equal. They may overlap, as
            voices do.
        repairs: One line for each kind of repair: how often, where first, and what came.
        format: `srt`, `vtt`, `ass`, `json` (a list), `whisper` (a recogniser's object), `json3`, or
            `list`.
        encoding: The file's encoding; empty for lists and texts.
    """

    cues: list[Cue]
    repairs: list[str]
    format: str
    encoding: str


def read_subtitles(
    source: Path | str | bytes | Sequence[Mapping[str, Any]], strict: bool = False
) -> Subtitles:
    """Read subtitles, repairing what can be repaired, and say what was.

    A missing end (`end` is optional in lists) is the next start, but at most 1 s and 0.1 s a
    character after the cue's own, which covers 95 % of the cues of 22 real lectures. A cue with a
    `duration` (lists, json3) ends at the next start at the latest. Exact repeats of a cue are
    dropped, and the lines that rolling captions show again.

    Recognisers agree on what they write (pieces of text, each with its times) and not on how, so
    JSON is read by structure: the finest rows that hold whole sentences, wherever they are, under
    whatever name; if there are only words, lines are made of them.

    Args:
        source: A path, the text or the bytes of a subtitle file, or a list of `{text, start[, end
            or duration]}` in seconds. A string is a path if such a file exists, or if it is one
            line that ends like a subtitle file's name; bytes never are.
        strict: Raise instead of repairing.

    Raises:
        DataError: No such file, nothing in it that is a cue, or, with `strict`, anything to repair
            (a guessed encoding counts).
    """
    repairs: Repairs = defaultdict(list)
    name, encoding = "the subtitles", ""
    if isinstance(source, bytes):
        name = "the subtitle file"
        text, encoding = decode(source, repairs)
        kind, raw = parse(text, repairs)
    elif not isinstance(source, str | Path):
        kind, raw = "list", cues_from_entries(source, repairs)
    else:
        text, path = str(source), _as_path(source)
        if path is not None:
            name = str(path)
            try:
                with opened(path) as file:
                    text, encoding = decode(file.read(), repairs)
            except OSError as error:
                raise DataError(
                    f"{name} could not be read: expected a subtitle file ({error})"
                ) from error
        kind, raw = parse(text, repairs)
    cues = _finish(raw, repairs)
    notes = [f"{what}: {len(cases)} ({_first(cases)})" for what, cases in repairs.items()]
    if not cues:
        begins = (
            ""
            if kind == "list"
            else f"; it begins {text.strip()[:40]!r}"
            if text.strip()
            else "; it is empty"
        )
        raise DataError(
            f"{name}: no cue found{begins}. Expected SubRip, WebVTT, ASS, a list of {{text, "
            "start[, end]}, a recogniser's (Whisper) or YouTube's JSON"
            f"{', or the path of such a file' if isinstance(source, str) else ''}"
            f"{''.join(f'; {repair}' for repair in notes[:3])}"
        )
    if strict and notes:
        raise DataError(f"{name} needs repairs (strict=False makes them): {'; '.join(notes[:3])}")
    return Subtitles(cues, notes, kind, encoding)


def write_subtitles(cues: Sequence[Cue], path: Path | str) -> None:
    """Write cues in the format of the path's suffix, as a whole file in UTF-8.

    `.json` is the list that `read_subtitles` takes. All but that, `.srt` and `.vtt` is written by
    pysubs2, which has no escape for braces: they become round brackets.

    Raises:
        DataError: A time that cannot be written, or an unknown suffix.
    """
    path = own_path(path)
    suffix = path.suffix.lower()
    for number, cue in enumerate(cues, 1):
        if not 0 <= round(cue.start * 1000) < round(cue.end * 1000):
            raise DataError(
                f"cue {number} lasts from {cue.start} to {cue.end} s; expected 0 <= start < end"
            )
    texts = [" ".join(cue.text.split()) for cue in cues]
    if suffix == ".json":
        content = json.dumps([asdict(cue) for cue in cues], ensure_ascii=False, indent=1) + "\n"
    elif suffix == ".srt":
        content = _blocks(cues, texts, ",")
    elif suffix == ".vtt":
        content = "WEBVTT\n\n" + _blocks(
            cues, [html.escape(text, quote=False) for text in texts], "."
        )
    else:
        file = pysubs2.SSAFile()
        for cue, text in zip(cues, texts, strict=True):
            plain = text.translate(str.maketrans("{}", "()"))
            file.append(pysubs2.SSAEvent(round(cue.start * 1000), round(cue.end * 1000), plain))
        try:
            # What goes beyond a format's last time would be cut with no more than a warning.
            with warnings.catch_warnings(action="error", category=RuntimeWarning):
                content = file.to_string(pysubs2.formats.get_format_identifier(suffix))
        except (pysubs2.Pysubs2Error, NotImplementedError, RuntimeWarning) as error:
            raise DataError(
                f"{path.name} cannot be written ({error}); use .srt, .vtt or .json"
            ) from error
    write_whole(path, content)


def _blocks(cues: Sequence[Cue], texts: Sequence[str], mark: str) -> str:
    return "\n".join(
        f"{number}\n{clock_time(cue.start, mark)} --> {clock_time(cue.end, mark)}\n{text}\n"
        for number, (cue, text) in enumerate(zip(cues, texts, strict=True), 1)
    )


def _as_path(source: str | Path) -> Path | None:
    if isinstance(source, str) and (not source.strip() or "\n" in source or "\r" in source):
        return None
    try:
        path = own_path(source)
        if path.exists():
            return path
    except (OSError, DataError):  # longer than a name may be, or "~nobody": a text
        return None
    if isinstance(source, Path) or path.suffix.lower() in SUFFIXES:
        or_text = "" if isinstance(source, Path) else ", or give its text"
        raise DataError(f"no subtitle file {str(source)!r}; check its name{or_text}")
    return None


def _first(cases: list[str], n: int = 3) -> str:
    shown = [case if len(case) <= 100 else f"{case[:99]}…" for case in cases[:n]]
    return "; ".join([*shown, "…"] if len(cases) > n else shown)


def _finish(raw: Sequence[RawCue], repairs: Repairs) -> list[Cue]:
    """Whole, sorted cues: what every format needs."""
    timed: dict[tuple[float, float | None, str, bool], None] = {}
    shown: dict[str, tuple[float, float]] = {}  # when a text was shown last
    latest = 0.0  # start so far
    for cue in raw:
        text = " ".join(line for line in cue.lines if line)
        start, end = (None if time is None else round(time, 3) for time in (cue.start, cue.end))
        if not text:
            repairs["cue without text dropped"].append(cue.where)
            continue
        if start is None:
            repairs["cue without a readable start dropped"].append(f"{cue.where}: {text!r}")
            continue
        if end is not None and end <= start:
            # Times that changed places are near each other; else one of them is wrong, more often
            # the end.
            swapped = 0 <= end < start <= end + 10
            problem = "end before start, swapped" if swapped else "end not after start, estimated"
            repairs[problem].append(cue.where)
            start, end = (end, start) if swapped else (start, None)
        if start < 0:
            if end is not None and end <= 0:
                repairs["cue before time zero dropped"].append(f"{cue.where}: {text!r}")
                continue
            repairs["negative start set to 0"].append(cue.where)
            start = 0.0
        # The parts of a stream repeat a cue at their border, by clocks that may be a millisecond
        # apart.
        twin = shown.get(text)
        if (start, end, text, cue.cut) in timed or (
            twin is not None
            and end is not None
            and start < twin[1]
            and max(abs(start - twin[0]), abs(end - twin[1])) < SAME_S
        ):
            repairs["exact repeat of a cue dropped"].append(f"{cue.where}: {text!r}")
            continue
        if start < latest:
            repairs["cue out of order, sorted"].append(cue.where)
        latest = max(latest, start)
        if end is not None:
            shown[text] = (start, end)
        timed[start, end, text, cue.cut] = None
    cues: list[Cue] = []
    after = following = math.inf  # the next later start, the next start
    for start, end, text, cut in sorted(timed, key=lambda cue: cue[0])[::-1]:
        after, following = following if following > start else after, start
        if end is None or cut:
            end = min(after, round(start + guessed_length(text), 3) if end is None else end)  # noqa: PLW2901
        cues.append(Cue(start, end, text))
    return cues[::-1]

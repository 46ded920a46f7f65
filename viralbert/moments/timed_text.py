"""SubRip and WebVTT as people have them: joined files, glued headers, missing blank lines, rolling
captions."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from viralbert.moments.cue_text import RawCue, Repairs, plain_text, read_seconds, split_lines

_TIME = (
    r"[-−]?(?:\d{1,4}\s?:\s?-?\d{1,2}\s?:\s?-?\d{1,2}(?::\d{3})?|\d{1,4}:\d\d)"
    r"(?:\s?[.,]\s?-?\d{1,9})?"
)
_TIMING = re.compile(
    rf"\s*+(?:\d++\s++)?(?P<start>{_TIME})\s*+(?:[-–—=]++\s*+(?:>|&gt;)|→|[-–—]*+(?=\s*+\d++:\d++:\d++[.,]\d))\s*+"
    rf"(?:(?P<end>{_TIME})(?![\d:.,])|(?P<junk>-?\d\S*))?(?P<rest>.*)"
)
_SETTINGS = r"(?:\s++[A-Za-z]\w*+:\S++)*\s*"
_ONLY_SETTINGS = re.compile(_SETTINGS)
_FORMS = {
    "srt": re.compile(r"\d{2,}:\d\d:\d\d,\d{3} --> \d{2,}:\d\d:\d\d,\d{3}" + _SETTINGS),
    "vtt": re.compile(
        r"(?:\d{2,}:)?\d\d:\d\d\.\d{3}\s+-->\s+(?:\d{2,}:)?\d\d:\d\d\.\d{3}" + _SETTINGS
    ),
}
# Where a cue may begin: times that cannot be read, or a line of time that breaks off.
_BROKEN = re.compile(r"(?=.*\d:\d)(?:.*-->|[\d:.,\s>-]+\Z|\s*\d+:\d\d:\d\d[.,]\d)")
_EXACT = re.compile(r"[.,]|:.*:")  # a time with a fraction, or with hours
_NUMBER = re.compile(r"\s*(\d{1,9})\s*")
_HEADER = re.compile(r"WEBVTT(?:[ \t].*)?")
_GLUED_HEADER = re.compile(
    r"(?<=\S)WEBVTT\Z"
)  # a file without a line end, and the next one joined to it
_HEADER_FIELD = re.compile(r"(?:X-[A-Z-]+|Kind|Language|Region|Style)\s*[=:].*", re.IGNORECASE)
_MPEG_TIME = re.compile(r"MPEGTS:\s*(\d{1,19})", re.IGNORECASE)
_LOCAL_TIME = re.compile(r"LOCAL:\s*([\d:.]+)", re.IGNORECASE)
_MPEG_HZ, _MPEG_WRAP = 90_000, 2**33
_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
_INLINE_TIME = re.compile(r"<[\d:]+[.,]\d+>")


def read_timed_text(text: str, repairs: Repairs) -> tuple[str, list[RawCue]]:
    """Both formats by one reader, led by the lines that hold times: a cue's text lies between two
    of them."""
    lines, shifts = _without_headers(split_lines(text, repairs), repairs)
    times = _time_lines(lines)
    if not times:
        return "srt", []
    headed = text.lstrip().startswith("WEBVTT")
    numbered = 2 * sum(bool(at and _NUMBER.fullmatch(lines[at - 1])) for at, _ in times) > len(
        times
    )
    dotted = 2 * sum(match is not None and "." in match["start"] for _, match in times) > len(times)
    kind = "vtt" if headed or (dotted and not numbered) else "srt"
    if not headed:
        before = " ".join(
            line for line in lines[: times[0][0]] if not _NUMBER.fullmatch(line)
        ).strip()
        if before:
            repairs["text before the first cue dropped"].append(repr(before))
        if kind == "vtt":
            repairs["no WEBVTT header"].append(f"line 1 {lines[0]!r}")

    begins = _first_lines(lines, [at for at, _ in times], kind, numbered, repairs)
    raw = []
    for (at, match), end in zip(times, begins[1:], strict=True):
        where = f"line {at + 1} {lines[at].strip()!r}"
        body = _body(lines[at + 1 : end], kind)
        if "" in body:
            repairs["blank line inside a cue"].append(where)
        if match is None:
            raw.append(RawCue(None, None, [plain_text(" ".join(body))], where))
            continue
        if match["end"] is None:
            repairs["unreadable end estimated"].append(where)
        if not _ONLY_SETTINGS.fullmatch(match["rest"]):
            repairs["text on the line of the times"].append(where)
            body.insert(0, match["rest"])
        elif match["end"] and not _FORMS[kind].fullmatch(lines[at]):
            repairs[f"times not in the form of {kind}"].append(where)
        # A line of blanks keeps its place: rolling captions show one where there is nothing new.
        body = [line for line in body if line]
        n_old = next((n for n, line in enumerate(body) if _INLINE_TIME.search(line)), len(body))
        start, stop = (
            _moved(read_seconds(match["start"]), shifts[at]),
            _moved(read_seconds(match["end"]), shifts[at]),
        )
        raw.append(RawCue(start, stop, [plain_text(line) for line in body], where, n_old=n_old))
    return kind, _unroll(raw, repairs)


def _without_headers(lines: list[str], repairs: Repairs) -> tuple[list[str], list[float]]:
    """Lines without the headers of files that were joined to one, and by how many seconds the times
    of each move.

    The parts of a stream say by X-TIMESTAMP-MAP where their own clock stands in it (RFC 8216, 3.5).
    The first one is the zero: a player shows the stream from there.
    """
    cleaned: list[str] = []
    shifts: list[float] = []
    shift = 0.0
    first: float | None = None
    in_header = False
    for at, line in enumerate(lines):
        glued = _GLUED_HEADER.search(line)
        begins = glued is not None or _HEADER.fullmatch(line) is not None
        followed = at + 1 < len(lines) and _HEADER_FIELD.fullmatch(lines[at + 1])
        if begins and (
            followed or glued or line.strip() == "WEBVTT" or at == 0 or not lines[at - 1].strip()
        ):
            in_header, shift = True, 0.0
            if any(cleaned):
                repairs["header of a joined WebVTT file dropped"].append(
                    f"line {at + 1} {line.strip()!r}"
                )
            line = line[: glued.start()] if glued else ""  # noqa: PLW2901
        elif in_header and _HEADER_FIELD.fullmatch(line):
            mpeg, local = _MPEG_TIME.search(line), _LOCAL_TIME.search(line)
            zero = read_seconds(local[1]) if local else None
            if mpeg and zero is not None:
                zero = int(mpeg[1]) / _MPEG_HZ - zero
                first = zero if first is None else first
                half = _MPEG_WRAP / _MPEG_HZ / 2  # the counter begins anew after 26 hours
                shift = (zero - first + half) % (2 * half) - half
                if shift:
                    repairs["times moved by X-TIMESTAMP-MAP"].append(
                        f"line {at + 1}, by {shift:.3f} s"
                    )
            line = ""  # noqa: PLW2901
        else:
            in_header = False
        cleaned.append(line)
        shifts.append(shift)
    return cleaned, shifts


def _moved(time: float | None, shift: float) -> float | None:
    return None if time is None else time + shift


def _time_lines(lines: Sequence[str]) -> list[tuple[int, re.Match[str] | None]]:
    """Lines that begin a cue: position and the times, `None` where there are some that cannot be
    read.

    Speech may quote a time; a line that has more than times, or a range such as "10:00 --> 12:00",
    begins a cue only below a blank line, or below one line (number, id) below a blank one.
    """
    times: list[tuple[int, re.Match[str] | None]] = []
    for at, line in enumerate(lines):
        match = _TIMING.match(line)
        opens = at == 0 or not lines[at - 1].strip()
        if not opens and not (times and times[-1][0] == at - 1):
            opens = at == 1 or not lines[at - 2].strip() or bool(_NUMBER.fullmatch(lines[at - 1]))
        if match is None:
            begins = opens and _BROKEN.match(line) is not None
        else:
            only = not match["junk"] and _ONLY_SETTINGS.fullmatch(match["rest"])
            begins = opens or bool(only and _EXACT.search(match["start"]))
        if begins:
            times.append((at, match))
    return times


def _first_lines(
    lines: Sequence[str], times: Sequence[int], kind: str, numbered: bool, repairs: Repairs
) -> list[int]:
    """Where each cue begins: at its time, or at the number or id above it; and where the text of
    the last one ends.

    A number above a time is text ("... 1998") unless it stands apart, continues the count, or,
    where most cues have one, could be one of theirs.
    """
    begins = []
    last = 0
    for floor, at in zip([0, *(time + 1 for time in times)], times, strict=False):
        above = at - 1
        while above > floor and not lines[above].strip():
            above -= 1
        near = floor <= above == at - 1
        apart = above == floor == 0 or (above > floor and not lines[above - 1].strip())
        number = (
            int(match[1]) if above >= floor and (match := _NUMBER.fullmatch(lines[above])) else -1
        )
        counts = number == last + 1 and (near or apart)
        if counts or (number >= 0 and near and (apart or (numbered and number <= len(times)))):
            last, begin = number, above
        else:
            is_id = kind == "vtt" and near and apart and lines[above].strip()
            begin = above if is_id else at
            if kind == "srt":
                repairs["no number above the times"].append(f"line {at + 1} {lines[at].strip()!r}")
        if begin > floor > 0 and lines[begin - 1].strip():
            repairs["no blank line before a cue"].append(
                f"line {begin + 1} {lines[begin].strip()!r}"
            )
        begins.append(begin)
    end = len(lines)
    while not lines[end - 1].strip():
        end -= 1
    if lines[end - 1].strip() == str(last + 1) and not lines[end - 2].strip():
        end -= 1
        repairs["file breaks off after a cue's number"].append(f"line {end + 1} {lines[end]!r}")
    return [*begins, end]


def _body(lines: Sequence[str], kind: str) -> list[str]:
    """A cue's lines, without WebVTT's blocks of notes and styles, and without the blank lines at
    its end."""
    body: list[str] = []
    inside = False
    for at, line in enumerate(lines):
        if not line.strip():
            inside = False
        elif kind == "vtt" and at and not lines[at - 1].strip() and _BLOCK.match(line):
            inside = True
        if not inside:
            body.append(line)
    while body and not body[-1]:
        body.pop()
    return body


def _unroll(raw: list[RawCue], repairs: Repairs) -> list[RawCue]:
    """Drop the lines that a rolling caption shows again, so that each word stands once.

    YouTube shows two lines, of which the upper one was the lower one before, and between two such
    cues one of 10 ms. Equal lines alone prove nothing (people repeat themselves), so all this must
    hold: the file rolls (of the cues with several lines or under 50 ms at least half begin as the
    one before ended), the line has no times of its words, and something follows it in its cue,
    unless the cue, without a pause, shows just what the one before showed.
    """
    olds = [0]
    n_rolling = n_candidates = 0
    for above, cue in itertools.pairwise(raw):
        shown = [line for line in above.lines if line]
        length, pause = (
            math.inf if a is None or b is None else b - a
            for a, b in ((cue.start, cue.end), (above.end, cue.start))
        )
        brief = 0 < length < 0.05
        same = pause < 0.05 and (len(cue.lines) == 1 or len(set(cue.lines)) > 1)
        n_most = min(cue.n_old, len(shown), 4, len(cue.lines) - (not same))
        olds.append(next((n for n in range(n_most, 0, -1) if shown[-n:] == cue.lines[:n]), 0))
        if brief or len(cue.lines) > 1:
            n_candidates += 1
            n_rolling += olds[-1] > 0 and (
                brief or (olds[-1] < len(cue.lines) and len(set(cue.lines)) > 1)
            )
    timed = any(cue.n_old < len(cue.lines) for cue in raw)
    if n_rolling < max(1 if timed else 3, n_candidates / 2):
        return raw
    for cue, old in zip(raw, olds, strict=False):
        if old:
            repairs["line shown again by a rolling caption dropped"].append(
                f"{cue.where}: {cue.lines[:old]}"
            )
            cue.lines = cue.lines[old:]
    return [cue for cue, old in zip(raw, olds, strict=False) if not old or any(cue.lines)]

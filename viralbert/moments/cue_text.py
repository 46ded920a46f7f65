"""What the readers of all formats share: a cue as it stands in the file, its text without tags, its
times."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from viralbert_utils.base.texts import normalise

MAX_LETTERS = (
    20_000  # of a line, or of a cue in JSON: no speech is so long, and what breaks off is reported
)


Repairs = defaultdict[str, list[str]]  # kind of repair -> where and what came, in order


@dataclass
class RawCue:
    """A cue as it stands in the source; times in seconds."""

    start: float | None  # None: cannot be read
    end: float | None  # None: missing
    lines: list[str]  # clean
    where: str  # place and what came, for the report
    cut: bool = False  # the end is only how long the text stays visible: the next start goes before
    n_old: int = 0  # how many of the first lines a rolling caption may be showing again


# Only tags that subtitles use: "a < b" and "<смеётся>" are text.
_TAG = re.compile(
    r"</?(?:[bius]|c|em|font|p|rt|ruby|span|strong)(?:\.[^\s<>]*)?(?:\s+\w+\s*=[^<>]*+)?\s*/?>"
    r"|</?(?:v|lang)(?:[.\s][^<>]*+)?>|<\d+:[\d:.,]+>|\{\\[^{}]*\}",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br\s*/?>|\\[nh]", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_LATEST = 36_000_000.0  # 10,000 hours, in seconds: beyond it stands no time
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2})(?:[.,:](\d{1,9}))?")
_ISO_LENGTH = re.compile(r"PT(?:(\d{1,4})H)?(?:(\d{1,6})M)?(?:(\d{1,8}(?:\.\d{1,9})?)S)?")


def plain_text(text: str) -> str:
    """One line of text without tags and control characters, repaired by `texts.normalise`."""
    return normalise(_CONTROL.sub("", _TAG.sub("", _BREAK.sub(" ", text))))


def read_seconds(value: object, unit: float = 1.0) -> float | None:
    """A number of units, or a clock time such as `1:02:03,5`, `02:03`, `-00:00:01.000`; `None` for
    anything else.

    Seconds may have their unit behind (`1.5s`) or come in parts (`{"seconds": 1, "nanos": 5e8}`),
    as in JSON that is made from protocol buffers, or as ISO 8601 writes a length (`PT1M1.5S`).
    """
    if isinstance(value, Mapping) and value.keys() <= {"seconds", "nanos"} and value:
        whole, rest = (
            read_seconds(value.get("seconds", 0)),
            read_seconds(value.get("nanos", 0), 1e-9),
        )
        return None if whole is None or rest is None else whole + rest
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    try:
        text = str(value).replace("−", "-").strip()
        if len(text) > 400:
            return None
        number = float(text.removesuffix("s").replace(",", ".")) * unit
    except ValueError:
        if length := _ISO_LENGTH.fullmatch(text):
            parts = [float(part) for part in length.groups(default="0")]
            return parts[0] * 3600 + parts[1] * 60 + parts[2]
        clock = (
            _CLOCK.fullmatch("".join(text.replace("-", "").split()))
            if isinstance(value, str)
            else None
        )
        if clock is None:
            return None
        hours, minutes, seconds, fraction = clock.groups(default="0")
        number = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")
        number = -number if "-" in text else number
    return number if abs(number) < _LATEST else None


def guessed_length(text: str) -> float:
    """Seconds that a line stays when nothing says how long: 1 s, and 0.1 s a character."""
    return 1 + len(text) / 10


def clock_time(seconds: float, mark: str) -> str:
    """`01:02:03,500` for SubRip, with another mark before the milliseconds for WebVTT."""
    ms = round(seconds * 1000)
    return (
        f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{mark}{ms % 1000:03d}"
    )


def split_lines(text: str, repairs: Repairs) -> list[str]:
    """Lines, each up to `MAX_LETTERS`. CRs before an LF belong to it; any other CR is a line end of
    its own."""
    *ended, last = text.split("\n")
    lines = [part for line in ended for part in line.rstrip("\r").split("\r")] + last.split("\r")
    for at, line in enumerate(lines):
        if len(line) > MAX_LETTERS:
            lines[at] = shortened(line, f"line {at + 1}", repairs)
    return lines


def shortened(text: str, where: str, repairs: Repairs) -> str:
    """A text of at most `MAX_LETTERS`; what was cut is reported."""
    if len(text) > MAX_LETTERS:
        repairs[f"longer than {MAX_LETTERS:,} characters, cut"].append(
            f"{where}: {text[:40]!r}, {len(text):,}"
        )
    return text[:MAX_LETTERS]

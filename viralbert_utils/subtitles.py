"""Cues from any subtitle file, with a report of each repair, and subtitle files from cues.

SubRip, WebVTT, SubStation (ASS, SSA), JSON lists, Whisper and YouTube's json3 are told apart by content. The libraries
that read them lose or invent text on damaged input without a word (a last line "1998" taken for a cue number, a time
quoted in speech taken for a cue), so reading is our own; pysubs2 writes the formats that are not written here.
Lesson 06 uses it.
"""

from __future__ import annotations

import html
import itertools
import json
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pysubs2

from viralbert_utils.files import DataError, write_whole
from viralbert_utils.texts import normalise

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
        cues: Sorted by start, in the order of the file where starts are equal. They may overlap, as voices do.
        repairs: One line for each kind of repair: how often, where first, and what came.
        format: `srt`, `vtt`, `ass`, `json`, `whisper`, `json3`, or `list`.
        encoding: Of the file; empty for lists and texts.
    """

    cues: list[Cue]
    repairs: list[str]
    format: str
    encoding: str


def read_subtitles(source: Path | str | bytes | Sequence[Mapping[str, Any]], strict: bool = False) -> Subtitles:
    """Read subtitles, repairing what can be repaired, and say what was.

    A missing end (`end` is optional in lists) is the next start, but at most 1 s and 0.1 s a character after the cue's
    own, which covers 95 % of the cues of 22 real lectures. A cue with a `duration` (lists, json3) ends at the next
    start at the latest. Exact repeats of a cue are dropped, and the lines that rolling captions show again.

    Args:
        source: A path, the text or the bytes of a subtitle file, or a list of `{text, start[, end or duration]}` in
            seconds. A string is a path if such a file exists, or if it is one line that ends like a subtitle file's
            name; bytes never are.
        strict: Raise instead of repairing.

    Raises:
        DataError: No such file, nothing in it that is a cue, or, with `strict`, anything to repair (a guessed encoding
            counts).
    """
    found: _Found = defaultdict(list)
    name, encoding = "the subtitles", ""
    if isinstance(source, bytes):
        name = "the subtitle file"
        text, encoding = _decode(source, found)
        kind, raw = _parse(text, found)
    elif not isinstance(source, str | Path):
        kind, raw = "list", _from_entries(source, found)
    else:
        text, path = str(source), _as_path(source)
        if path is not None:
            name = str(path)
            try:
                text, encoding = _decode(path.read_bytes(), found)
            except OSError as error:
                raise DataError(f"{name} could not be read: expected a subtitle file ({error})") from error
        kind, raw = _parse(text, found)
    cues = _finish(raw, found)
    repairs = [f"{what}: {len(cases)} ({_first(cases)})" for what, cases in found.items()]
    if not cues:
        begins = "" if kind == "list" else f"; it begins {text.strip()[:40]!r}" if text.strip() else "; it is empty"
        raise DataError(
            f"{name}: no cue found{begins}. Expected SubRip, WebVTT, ASS, a list of {{text, start[, end]}}, Whisper's "
            f"or YouTube's JSON, or the path of such a file{'; ' * bool(repairs)}{'; '.join(repairs[:3])}"
        )
    if strict and repairs:
        raise DataError(f"{name} needs repairs (strict=False makes them): {'; '.join(repairs[:3])}")
    return Subtitles(cues, repairs, kind, encoding)


def write_subtitles(cues: Sequence[Cue], path: Path | str) -> None:
    """Write cues in the format of the path's suffix, as a whole file in UTF-8.

    `.json` is the list that `read_subtitles` takes. All but that, `.srt` and `.vtt` is written by pysubs2, which has no
    escape for braces: they become round brackets.

    Raises:
        DataError: A time that cannot be written, or an unknown suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    for number, cue in enumerate(cues, 1):
        if not 0 <= round(cue.start * 1000) < round(cue.end * 1000):
            raise DataError(f"cue {number} lasts from {cue.start} to {cue.end} s; expected 0 <= start < end")
    texts = [" ".join(cue.text.split()) for cue in cues]
    if suffix == ".json":
        content = json.dumps([asdict(cue) for cue in cues], ensure_ascii=False, indent=1) + "\n"
    elif suffix == ".srt":
        content = _blocks(cues, texts, ",")
    elif suffix == ".vtt":
        content = "WEBVTT\n\n" + _blocks(cues, [html.escape(text, quote=False) for text in texts], ".")
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
            raise DataError(f"{path.name} cannot be written ({error}); use .srt, .vtt or .json") from error
    write_whole(path, content)


def _blocks(cues: Sequence[Cue], texts: Sequence[str], mark: str) -> str:
    return "\n".join(
        f"{number}\n{_clock(cue.start, mark)} --> {_clock(cue.end, mark)}\n{text}\n"
        for number, (cue, text) in enumerate(zip(cues, texts, strict=True), 1)
    )


_Found = defaultdict[str, list[str]]  # kind of repair -> where and what came, in order


@dataclass
class _Raw:
    """A cue as it stands in the source; times in seconds."""

    start: float | None  # None: cannot be read
    end: float | None  # None: missing
    lines: list[str]  # clean
    where: str  # place and what came, for the report
    cut: bool = False  # the end is only how long the text stays visible: the next start goes before
    n_old: int = 0  # how many of the first lines a rolling caption may be showing again


def _as_path(source: str | Path) -> Path | None:
    if isinstance(source, str) and (not source.strip() or "\n" in source or "\r" in source):
        return None
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError):  # longer than a name may be, or "~nobody": a text
        return None
    if isinstance(source, Path) or path.suffix.lower() in SUFFIXES:
        raise DataError(f"no subtitle file {str(source)!r}; give the path of one, or its text")
    return None


def _first(cases: list[str], n: int = 3) -> str:
    return "; ".join(case if len(case) <= 100 else f"{case[:99]}…" for case in cases[:n]) + "; …" * (len(cases) > n)


# Encoding -------------------------------------------------------------------------------------------------------------

_RUSSIAN = {letter: rank for rank, letter in enumerate("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё")}  # most frequent first
_SIGNS = frozenset("«»—–…№“”„’\u00a0")


def _decode(content: bytes, found: _Found) -> tuple[str, str]:
    """Byte order mark, UTF-16 by its zero bytes, UTF-8; what is left line by line, as the least strange reading."""
    wide = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
    for parity, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        # Digits, spaces and line ends have a zero for their upper byte; Russian letters alone would be valid UTF-8.
        if not wide and content[parity::2].count(0) > len(content) / 20 > 10 * content[1 - parity :: 2].count(0):
            found["encoding guessed"].append(f"{encoding} without a byte order mark")
            wide = encoding
    text = content.decode(wide or "utf-8", "replace")
    if wide or "\ufffd" not in text:
        if "\ufffd" in text:
            found["damaged UTF-16"].append(f"{text.count(chr(0xFFFD))} characters lost")
        return text, wide or "utf-8"
    lines = content.splitlines(keepends=True)
    bad = [line for line in lines if "\ufffd" in line.decode("utf-8", "replace")]
    main = "utf-8"
    if len(bad) > sum(not line.isascii() for line in lines) / 2:
        main = _least_strange(b"".join(bad))
    if main != "utf-8":
        found["encoding guessed"].append(main)
    texts = []
    for number, line in enumerate(lines, 1):
        text = line.decode("utf-8", "replace")
        if not line.isascii() and (main != "utf-8" or "\ufffd" in text):
            reading = _least_strange(line, main)
            text = line.decode(reading, "replace")
            if reading != main:
                found[f"line not in {main}"].append(f"line {number} read as {reading}: {text.strip()!r}")
            elif "\ufffd" in text:
                found[f"damaged {main}"].append(f"line {number}: {text.strip()!r}")
        texts.append(text)
    return "".join(texts), main


def _least_strange(content: bytes, main: str = "") -> str:
    """The encoding that gives the least strange Russian; the file's own, unless another is clearly better.

    Right for 98 of 100 lines of real lectures cut to 12 letters, and for all whole files.
    """
    strange = {
        name: _strangeness(content.decode(name, "replace")) - 30 * (name == main)
        for name in ("utf-8", "cp1251", "koi8-r", "cp866")
    }
    return min(strange, key=strange.__getitem__)


def _strangeness(text: str) -> int:
    """Sum over the letters of their rank by how often Russian uses them; 40 for what is no Russian letter.

    cp1251 and koi8-r swap case with each other: a capital inside a word tells more than a rare letter.
    """
    total = 0
    for before, char in zip(" " + text, text, strict=False):
        if char > "\x7f" and char not in _SIGNS:
            total += _RUSSIAN.get(char.lower(), 40) + char.isupper() * (15 if before.islower() else 1)
    return total


# Text and times -------------------------------------------------------------------------------------------------------

# Only tags that subtitles use: "a < b" and "<смеётся>" are text.
_TAG = re.compile(
    r"</?(?:[bius]|c|em|font|p|rt|ruby|span|strong)(?:\.[^\s<>]*)?(?:\s+\w+\s*=[^<>]*)?\s*/?>"
    r"|</?(?:v|lang)(?:[.\s][^<>]*)?>|<\d+:[\d:.,]+>|\{\\[^{}]*\}",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br\s*/?>|\\[nh]", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_LATEST = 36_000_000.0  # 10,000 hours, in seconds: beyond it stands no time
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2})(?:[.,:](\d{1,9}))?")


def _clean(text: str) -> str:
    return normalise(_CONTROL.sub("", _TAG.sub("", _BREAK.sub(" ", text))))


def _seconds(value: object, unit: float = 1.0) -> float | None:
    """A number of units, or a clock time such as `1:02:03,5`, `02:03`, `-00:00:01.000`; `None` for anything else."""
    text = str(value).replace("−", "-")
    try:
        number = float(text.replace(",", ".")) * unit
    except ValueError:
        clock = _CLOCK.fullmatch(re.sub(r"[\s-]", "", text))
        if clock is None:
            return None
        hours, minutes, seconds, fraction = clock.groups(default="0")
        number = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")
        number = -number if "-" in text else number
    return number if abs(number) < _LATEST else None


def _clock(seconds: float, mark: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{mark}{ms % 1000:03d}"


def _finish(raw: Sequence[_Raw], found: _Found) -> list[Cue]:
    """Whole, sorted cues: what every format needs."""
    timed: dict[tuple[float, float | None, str, bool], None] = {}
    latest = 0.0  # start so far
    for cue in raw:
        text = " ".join(line for line in cue.lines if line)
        start, end = (None if time is None else round(time, 3) for time in (cue.start, cue.end))
        if not text:
            found["cue without text dropped"].append(cue.where)
            continue
        if start is None:
            found["cue without a readable start dropped"].append(f"{cue.where}: {text!r}")
            continue
        if end is not None and end <= start:
            # Times that changed places are near each other; else one of them is wrong, more often the end.
            swapped = 0 <= end < start <= end + 10
            problem = "end before start, swapped" if swapped else "end not after start, estimated"
            found[problem].append(cue.where)
            start, end = (end, start) if swapped else (start, None)
        if start < 0:
            if end is not None and end <= 0:
                found["cue before time zero dropped"].append(f"{cue.where}: {text!r}")
                continue
            found["negative start set to 0"].append(cue.where)
            start = 0.0
        if (start, end, text, cue.cut) in timed:
            found["exact repeat of a cue dropped"].append(f"{cue.where}: {text!r}")
            continue
        if start < latest:
            found["cue out of order, sorted"].append(cue.where)
        latest = max(latest, start)
        timed[start, end, text, cue.cut] = None
    cues: list[Cue] = []
    after = following = math.inf  # the next later start, the next start
    for start, end, text, cut in sorted(timed, key=lambda cue: cue[0])[::-1]:
        after, following = following if following > start else after, start
        if end is None or cut:
            end = min(after, round(start + 1 + len(text) / 10, 3) if end is None else end)  # noqa: PLW2901
        cues.append(Cue(start, end, text))
    return cues[::-1]


# Formats --------------------------------------------------------------------------------------------------------------

_UNSEEN = re.compile("[\x00\u200b\u200e\u200f\ufeff]")  # joined files have byte order marks inside
_FENCE = re.compile(r"\A\s*```\w*|\n```\s*\Z")
_IS_ASS = re.compile(r"^(?:\[script info\]|Dialogue:[^,\n]*,\s*-?\d+:\d\d:\d)", re.IGNORECASE | re.MULTILINE)
_OBJECT = re.compile(r"\{\s*\"")
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9][^{}]*\}.*?(?=\{[^{}]*\\p0|$)")


def _parse(text: str, found: _Found) -> tuple[str, list[_Raw]]:
    text, n_fences = _FENCE.subn("", _UNSEEN.sub("", text))
    if n_fences:
        found["code fence dropped"].append("```")
    begin = text.lstrip()
    if not begin.startswith("WEBVTT") and _IS_ASS.search(text):
        return "ass", _read_ass(text, found)
    if begin.startswith(("[", "{")) and (_OBJECT.search(text) or begin[1:].strip() in ("]", "}")):
        return _read_json(text, found)
    return _read_timed_text(text, found)


def _split(text: str) -> list[str]:
    return re.split(r"\r*\n|\r", text)


def _read_ass(text: str, found: _Found) -> list[_Raw]:
    """Dialogue lines, by the file's own `Format` (pysubs2 ignores it, and fails as a whole on one damaged line)."""
    fields = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]
    raw = []
    for number, line in enumerate(_split(text), 1):
        kind, _, rest = line.partition(":")
        kind, where = kind.strip().lower(), f"line {number} {line.strip()!r}"
        if kind == "format" and rest.lower().rstrip().endswith("text"):
            fields = [field.strip().lower() for field in rest.split(",")]
        elif kind == "dialogue":
            values = dict(zip(fields, rest.split(",", len(fields) - 1), strict=False))
            written = values.get("text", "")
            spoken = _DRAWING.sub("", written)
            plain = _clean(re.sub(r"\{[^{}]*\}", "", spoken))
            if plain or spoken == written:  # a drawing alone is no cue
                raw.append(_Raw(_seconds(values.get("start")), _seconds(values.get("end")), [plain], where))
        elif kind not in ("comment", "style", "format") and rest.count(",") >= len(fields) - 1:
            found["line not understood, dropped"].append(where)
    return raw


def _read_json(text: str, found: _Found) -> tuple[str, list[_Raw]]:
    decoder = json.JSONDecoder(strict=False)
    try:
        content = decoder.decode(text.strip())
    except (ValueError, RecursionError) as error:  # truncated or damaged: keep every entry that is whole
        found["damaged JSON, whole entries kept"].append(str(error))
        head = re.search(r'"(segments|events)"\s*:\s*\[', text)
        entries, position = [], head.end() if head else 0
        while begin := _OBJECT.search(text, position):
            try:
                entry, position = decoder.raw_decode(text, begin.start())
                entries += [entry] if {"text", "segs"} & set(entry) else []
            except (ValueError, RecursionError) as problem:
                position = max(getattr(problem, "pos", 0), begin.end())
        content = {head[1]: entries} if head else entries
    if isinstance(content, list):
        return "json", _from_entries(content, found)
    if isinstance(content.get("segments"), list):
        return "whisper", _from_entries(content["segments"], found)
    if isinstance(content.get("events"), list):
        return "json3", _from_events(content["events"])
    found["JSON without 'segments' (Whisper) or 'events' (YouTube)"].append(f"keys {', '.join(content)}")
    return "json", []


def _from_entries(entries: Sequence[Any], found: _Found) -> list[_Raw]:
    raw = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            found["entry that is no mapping dropped"].append(f"entry {number} {entry!r}")
            continue
        start, end, length = (_seconds(entry.get(key)) for key in ("start", "end", "duration"))
        where = f"entry {number} (start {entry.get('start')!r}, end {entry.get('end')!r})"
        if end is None and str(entry.get("end")) not in ("None", "nan", "<NA>", ""):
            found["unreadable end estimated"].append(where)
        text = _clean(str(entry["text"])) if isinstance(entry.get("text"), str | int) else ""
        lasting = end is None and start is not None and length is not None
        raw.append(_Raw(start, start + length if lasting else end, [text], where, cut=lasting))  # type: ignore[operator]
    return raw


def _from_events(events: Sequence[Any]) -> list[_Raw]:
    """YouTube's json3. Events without text open windows or break lines; durations reach into the next event."""
    raw = []
    for number, event in enumerate(events, 1):
        parts = event.get("segs") if isinstance(event, Mapping) else None
        parts = parts if isinstance(parts, list) else []
        text = _clean("".join(str(part.get("utf8", "")) for part in parts if isinstance(part, Mapping)))
        if text:
            start, length = (_seconds(event.get(key), 0.001) for key in ("tStartMs", "dDurationMs"))
            end = None if start is None or length is None else start + length
            raw.append(_Raw(start, end, [text], f"event {number} (tStartMs {event.get('tStartMs')!r})", cut=True))
    return raw


# SubRip and WebVTT ----------------------------------------------------------------------------------------------------

_TIME = r"[-−]?(?:\d{1,4}\s?:\s?-?\d{1,2}\s?:\s?-?\d{1,2}(?::\d{3})?|\d{1,4}:\d\d)(?:\s?[.,]\s?-?\d{1,9})?"
_TIMING = re.compile(
    rf"\s*(?:\d+\s+)?(?P<start>{_TIME})\s*(?:[-–—=]+\s*(?:>|&gt;)|→|[-–—]*(?=\s*\d+:\d+:\d+[.,]\d))\s*"
    rf"(?:(?P<end>{_TIME})(?![\d:.,])|(?P<junk>-?\d\S*))?(?P<rest>.*)"
)
_SETTINGS = r"(?:\s+[A-Za-z]\w*:\S+)*\s*"
_FORMS = {
    "srt": re.compile(r"\d{2,}:\d\d:\d\d,\d{3} --> \d{2,}:\d\d:\d\d,\d{3}" + _SETTINGS),
    "vtt": re.compile(r"(?:\d{2,}:)?\d\d:\d\d\.\d{3}\s+-->\s+(?:\d{2,}:)?\d\d:\d\d\.\d{3}" + _SETTINGS),
}
# Where a cue may begin: times that cannot be read, or a line of time that breaks off.
_BROKEN = re.compile(r"(?=.*\d:\d)(?:.*-->|[\d:.,\s>-]+\Z|\s*\d+:\d\d:\d\d[.,]\d)")
_NUMBER = re.compile(r"\s*(\d{1,9})\s*")
_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
_INLINE_TIME = re.compile(r"<[\d:]+[.,]\d+>")


def _read_timed_text(text: str, found: _Found) -> tuple[str, list[_Raw]]:
    """Both formats by one reader, led by the lines that hold times: a cue's text lies between two of them."""
    lines = _split(text)
    times = _time_lines(lines)
    if not times:
        return "srt", []
    headed = text.lstrip().startswith("WEBVTT")
    numbered = 2 * sum(bool(at and _NUMBER.fullmatch(lines[at - 1])) for at, _ in times) > len(times)
    dotted = 2 * sum(match is not None and "." in match["start"] for _, match in times) > len(times)
    kind = "vtt" if headed or (dotted and not numbered) else "srt"
    if not headed:
        before = " ".join(line for line in lines[: times[0][0]] if not _NUMBER.fullmatch(line)).strip()
        if before:
            found["text before the first cue dropped"].append(repr(before))
        if kind == "vtt":
            found["no WEBVTT header"].append(f"line 1 {lines[0]!r}")

    begins = _first_lines(lines, [at for at, _ in times], kind, numbered, found)
    raw = []
    for (at, match), end in zip(times, begins[1:], strict=True):
        where = f"line {at + 1} {lines[at].strip()!r}"
        body = _body(lines[at + 1 : end], kind)
        if "" in body:
            found["blank line inside a cue"].append(where)
        if match is None:
            raw.append(_Raw(None, None, [_clean(" ".join(body))], where))
            continue
        if match["end"] is None:
            found["unreadable end estimated"].append(where)
        if not re.fullmatch(_SETTINGS, match["rest"]):
            found["text on the line of the times"].append(where)
            body.insert(0, match["rest"])
        elif match["end"] and not _FORMS[kind].fullmatch(lines[at]):
            found[f"times not in the form of {kind}"].append(where)
        # A line of blanks keeps its place: rolling captions show one where there is nothing new.
        body = [line for line in body if line]
        n_old = next((n for n, line in enumerate(body) if _INLINE_TIME.search(line)), len(body))
        start, stop = _seconds(match["start"]), _seconds(match["end"])
        raw.append(_Raw(start, stop, [_clean(line) for line in body], where, n_old=n_old))
    return kind, _unroll(raw, found)


def _time_lines(lines: Sequence[str]) -> list[tuple[int, re.Match[str] | None]]:
    """Lines that begin a cue: position and the times, `None` where there are some that cannot be read.

    Speech may quote a time; a line that has more than times, or a range such as "10:00 --> 12:00", begins a cue only
    below a blank line, or below one line (number, id) below a blank one.
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
            only = not match["junk"] and re.fullmatch(_SETTINGS, match["rest"])
            begins = opens or bool(only and re.search(r"[.,]|:.*:", match["start"]))
        if begins:
            times.append((at, match))
    return times


def _first_lines(lines: Sequence[str], times: Sequence[int], kind: str, numbered: bool, found: _Found) -> list[int]:
    """Where each cue begins: at its time, or at the number or id above it; and where the text of the last one ends.

    A number above a time is text ("... 1998") unless it stands apart, continues the count, or, where most cues have
    one, could be one of theirs.
    """
    begins = []
    last = 0
    for floor, at in zip([0, *(time + 1 for time in times)], times, strict=False):
        above = at - 1
        while above > floor and not lines[above].strip():
            above -= 1
        near = floor <= above == at - 1
        apart = above == floor == 0 or (above > floor and not lines[above - 1].strip())
        number = int(match[1]) if above >= floor and (match := _NUMBER.fullmatch(lines[above])) else -1
        counts = number == last + 1 and (near or apart)
        if counts or (number >= 0 and near and (apart or (numbered and number <= len(times)))):
            last, begin = number, above
        else:
            is_id = kind == "vtt" and near and apart and lines[above].strip()
            begin = above if is_id else at
            if kind == "srt":
                found["no number above the times"].append(f"line {at + 1} {lines[at].strip()!r}")
        if begin > floor > 0 and lines[begin - 1].strip():
            found["no blank line before a cue"].append(f"line {begin + 1} {lines[begin].strip()!r}")
        begins.append(begin)
    end = len(lines)
    while not lines[end - 1].strip():
        end -= 1
    if lines[end - 1].strip() == str(last + 1) and not lines[end - 2].strip():
        end -= 1
        found["file breaks off after a cue's number"].append(f"line {end + 1} {lines[end]!r}")
    return [*begins, end]


def _body(lines: Sequence[str], kind: str) -> list[str]:
    """A cue's lines, without WebVTT's blocks of notes and styles, and without the blank lines at its end."""
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


def _unroll(raw: list[_Raw], found: _Found) -> list[_Raw]:
    """Drop the lines that a rolling caption shows again, so that each word stands once.

    YouTube shows two lines, of which the upper one was the lower one before, and between two such cues one of 10 ms.
    Equal lines alone prove nothing (people repeat themselves), so all this must hold: the file rolls (of the cues with
    several lines or under 50 ms at least half begin as the one before ended), the line has no times of its words, and
    something follows it in its cue, unless the cue, without a pause, shows just what the one before showed.
    """
    olds = [0]
    n_rolling = n_candidates = 0
    for above, cue in itertools.pairwise(raw):
        shown = [line for line in above.lines if line]
        length, pause = (
            math.inf if a is None or b is None else b - a for a, b in ((cue.start, cue.end), (above.end, cue.start))
        )
        brief = 0 < length < 0.05
        same = pause < 0.05 and (len(cue.lines) == 1 or len(set(cue.lines)) > 1)
        n_most = min(cue.n_old, len(shown), 4, len(cue.lines) - (not same))
        olds.append(next((n for n in range(n_most, 0, -1) if shown[-n:] == cue.lines[:n]), 0))
        if brief or len(cue.lines) > 1:
            n_candidates += 1
            n_rolling += olds[-1] > 0 and (brief or (olds[-1] < len(cue.lines) and len(set(cue.lines)) > 1))
    timed = any(cue.n_old < len(cue.lines) for cue in raw)
    if n_rolling < max(1 if timed else 3, n_candidates / 2):
        return raw
    for cue, old in zip(raw, olds, strict=False):
        if old:
            found["line shown again by a rolling caption dropped"].append(f"{cue.where}: {cue.lines[:old]}")
            cue.lines = cue.lines[old:]
    return [cue for cue, old in zip(raw, olds, strict=False) if not old or any(cue.lines)]

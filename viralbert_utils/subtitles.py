"""Cues from any subtitle file, with a report of each repair, and subtitle files from cues.

SubRip, WebVTT, SubStation (ASS, SSA), the JSON of speech recognisers and YouTube's json3 are told apart by content. The
libraries that read them lose or invent text on damaged input without a word (a last line "1998" taken for a cue number,
a time quoted in speech taken for a cue), so reading is our own; pysubs2 writes the formats that are not written here.
A file comes from a stranger, so every reader and every pattern takes time in proportion to its length.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import pysubs2

from viralbert_utils.files import DataError, opened, own_path, write_whole
from viralbert_utils.texts import normalise

MAX_LETTERS = 20_000  # of a line, or of a cue in JSON: no speech is so long, and what breaks off is reported
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
        cues: Sorted by start, in the order of the file where starts are equal. They may overlap, as voices do.
        repairs: One line for each kind of repair: how often, where first, and what came.
        format: `srt`, `vtt`, `ass`, `json` (a list), `whisper` (a recogniser's object), `json3`, or `list`.
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

    Recognisers agree on what they write (pieces of text, each with its times) and not on how, so JSON is read by
    structure: the finest rows that hold whole sentences, wherever they are, under whatever name; if there are only
    words, lines are made of them.

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
                with opened(path) as file:
                    text, encoding = _decode(file.read(), found)
            except OSError as error:
                raise DataError(f"{name} could not be read: expected a subtitle file ({error})") from error
        kind, raw = _parse(text, found)
    cues = _finish(raw, found)
    repairs = [f"{what}: {len(cases)} ({_first(cases)})" for what, cases in found.items()]
    if not cues:
        begins = "" if kind == "list" else f"; it begins {text.strip()[:40]!r}" if text.strip() else "; it is empty"
        raise DataError(
            f"{name}: no cue found{begins}. Expected SubRip, WebVTT, ASS, a list of {{text, start[, end]}}, a "
            "recogniser's (Whisper) or YouTube's JSON, or the path of such a file"
            f"{'; ' * bool(repairs)}{'; '.join(repairs[:3])}"
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
    path = own_path(path)
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
        path = own_path(source)
        if path.exists():
            return path
    except (OSError, DataError):  # longer than a name may be, or "~nobody": a text
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
    r"</?(?:[bius]|c|em|font|p|rt|ruby|span|strong)(?:\.[^\s<>]*)?(?:\s+\w+\s*=[^<>]*+)?\s*/?>"
    r"|</?(?:v|lang)(?:[.\s][^<>]*+)?>|<\d+:[\d:.,]+>|\{\\[^{}]*\}",
    re.IGNORECASE,
)
_BREAK = re.compile(r"<br\s*/?>|\\[nh]", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_LATEST = 36_000_000.0  # 10,000 hours, in seconds: beyond it stands no time
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2})(?:[.,:](\d{1,9}))?")
_ISO_LENGTH = re.compile(r"PT(?:(\d{1,4})H)?(?:(\d{1,6})M)?(?:(\d{1,8}(?:\.\d{1,9})?)S)?")


def _clean(text: str) -> str:
    return normalise(_CONTROL.sub("", _TAG.sub("", _BREAK.sub(" ", text))))


def _seconds(value: object, unit: float = 1.0) -> float | None:
    """A number of units, or a clock time such as `1:02:03,5`, `02:03`, `-00:00:01.000`; `None` for anything else.

    Seconds may have their unit behind (`1.5s`) or come in parts (`{"seconds": 1, "nanos": 5e8}`), as in JSON that is
    made from protocol buffers, or as ISO 8601 writes a length (`PT1M1.5S`).
    """
    if isinstance(value, Mapping) and value.keys() <= {"seconds", "nanos"} and value:
        whole, rest = _seconds(value.get("seconds", 0)), _seconds(value.get("nanos", 0), 1e-9)
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
        clock = _CLOCK.fullmatch("".join(text.replace("-", "").split())) if isinstance(value, str) else None
        if clock is None:
            return None
        hours, minutes, seconds, fraction = clock.groups(default="0")
        number = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")
        number = -number if "-" in text else number
    return number if abs(number) < _LATEST else None


def _guessed_length(text: str) -> float:
    return 1 + len(text) / 10


def _clock(seconds: float, mark: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{mark}{ms % 1000:03d}"


def _finish(raw: Sequence[_Raw], found: _Found) -> list[Cue]:
    """Whole, sorted cues: what every format needs."""
    timed: dict[tuple[float, float | None, str, bool], None] = {}
    shown: dict[str, tuple[float, float]] = {}  # when a text was shown last
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
        # The parts of a stream repeat a cue at their border, by clocks that may be a millisecond apart.
        twin = shown.get(text)
        if (start, end, text, cue.cut) in timed or (
            twin is not None
            and end is not None
            and start < twin[1]
            and max(abs(start - twin[0]), abs(end - twin[1])) < SAME_S
        ):
            found["exact repeat of a cue dropped"].append(f"{cue.where}: {text!r}")
            continue
        if start < latest:
            found["cue out of order, sorted"].append(cue.where)
        latest = max(latest, start)
        if end is not None:
            shown[text] = (start, end)
        timed[start, end, text, cue.cut] = None
    cues: list[Cue] = []
    after = following = math.inf  # the next later start, the next start
    for start, end, text, cut in sorted(timed, key=lambda cue: cue[0])[::-1]:
        after, following = following if following > start else after, start
        if end is None or cut:
            end = min(after, round(start + _guessed_length(text), 3) if end is None else end)  # noqa: PLW2901
        cues.append(Cue(start, end, text))
    return cues[::-1]


# Formats --------------------------------------------------------------------------------------------------------------

_UNSEEN = "\x00\u200b\u200e\u200f\ufeff"  # joined files have byte order marks inside
_FENCE = re.compile(r"\A\s*```\w*|\n```\s*\Z")
_IS_ASS = re.compile(r"^(?:\[script info\]|Dialogue:[^,\n]*,\s*-?\d+:\d\d:\d)", re.IGNORECASE | re.MULTILINE)
_OBJECT = re.compile(r"\{\s*\"")
_TABLE = re.compile(r"\[\s*\[")  # rows without names
_OPENING = re.compile(r"\{\s*\"|\[")
_DRAWING = re.compile(r"\{(?=[^{}]*\\p[1-9])[^{}]*+\}.*?(?=\{[^{}]*\\p0|$)")
_OVERRIDE = re.compile(r"\{[^{}]*\}")


def _parse(text: str, found: _Found) -> tuple[str, list[_Raw]]:
    for char in _UNSEEN:  # one at a time: a search for all of them would hold the interpreter for long
        text = text.replace(char, "")
    text, n_fences = _FENCE.subn("", text)
    if n_fences:
        found["code fence dropped"].append("```")
    begin = text.lstrip()
    if not begin.startswith("WEBVTT") and _IS_ASS.search(text):
        return "ass", _read_ass(text, found)
    if begin.startswith(("[", "{")) and (
        _OBJECT.search(text) or _TABLE.match(begin) or begin[1:].strip() in ("]", "}")
    ):
        return _read_json(text, found)
    return _read_timed_text(text, found)


def _split(text: str, found: _Found) -> list[str]:
    """Lines, each up to `MAX_LETTERS`. CRs before an LF belong to it; any other CR is a line end of its own."""
    *ended, last = text.split("\n")
    lines = [part for line in ended for part in line.rstrip("\r").split("\r")] + last.split("\r")
    for at, line in enumerate(lines):
        if len(line) > MAX_LETTERS:
            lines[at] = _shortened(line, f"line {at + 1}", found)
    return lines


def _shortened(text: str, where: str, found: _Found) -> str:
    if len(text) > MAX_LETTERS:
        found[f"longer than {MAX_LETTERS:,} characters, cut"].append(f"{where}: {text[:40]!r}, {len(text):,}")
    return text[:MAX_LETTERS]


def _read_ass(text: str, found: _Found) -> list[_Raw]:
    """Dialogue lines, by the file's own `Format` (pysubs2 ignores it, and fails as a whole on one damaged line)."""
    fields = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]
    raw = []
    for number, line in enumerate(_split(text, found), 1):
        kind, _, rest = line.partition(":")
        kind, where = kind.strip().lower(), f"line {number} {line.strip()!r}"
        if kind == "format" and rest.lower().rstrip().endswith("text"):
            fields = [field.strip().lower() for field in rest.split(",")]
        elif kind == "dialogue":
            values = dict(zip(fields, rest.split(",", len(fields) - 1), strict=False))
            written = values.get("text", "")
            spoken = _DRAWING.sub("", written)
            plain = _clean(_OVERRIDE.sub("", spoken))
            if plain or spoken == written:  # a drawing alone is no cue
                raw.append(_Raw(_seconds(values.get("start")), _seconds(values.get("end")), [plain], where))
        elif kind not in ("comment", "style", "format") and rest.count(",") >= len(fields) - 1:
            found["line not understood, dropped"].append(where)
    return raw


def _read_json(text: str, found: _Found) -> tuple[str, list[_Raw]]:
    kind = "whisper" if text.lstrip().startswith("{") else "json"
    try:
        content = _DECODER.decode(text.strip())
    except (ValueError, RecursionError) as error:
        content = _json_lines(text)
        if content is None:
            found["damaged JSON, whole entries kept"].append(str(error))
            content = _whole_entries(text)
    events = content.get("events") if isinstance(content, dict) else None
    if isinstance(events, list) and any(isinstance(event, dict) and "segs" in event for event in events):
        return "json3", _from_events(events)
    raw = _from_entries(_timed_rows(content), found)
    if not raw and isinstance(content, dict):
        found["JSON without pieces of text that have times"].append(f"keys {', '.join(content)}")
    return kind, raw


def _json_lines(text: str) -> list[Any] | None:
    """The values of a file that has one on each line."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return [_DECODER.decode(line.strip()) for line in lines] if len(lines) > 1 else None
    except (ValueError, RecursionError):
        return None


def _whole_entries(text: str) -> dict[str, list[Any]]:
    """What is whole in a truncated or damaged file: its outermost whole objects and lists, by the name of their text.

    What holds the damage is opened, and so is what holds it in there, but no deeper than files of subtitles go: each
    level is read once more.
    """
    whole: dict[str, list[Any]] = defaultdict(list)
    broken: list[int] = []  # where the damaged objects around the position turned out to be damaged
    position = 0
    while begin := _OPENING.search(text, position):
        if begin.start() > FAR:  # an error counts its lines from the beginning of the text
            text, broken = text[begin.start() :], [end - begin.start() for end in broken]
            begin = _OPENING.match(text)
            assert begin is not None
        try:
            entry, position = _DECODER.raw_decode(text, begin.start())
            row = _row(entry) if isinstance(entry, dict) else None
            whole["events" if "segs" in entry else row.name if row else ""].append(entry)
        except json.JSONDecodeError as problem:
            broken = [end for end in broken if end > begin.start()]
            open_it = len(broken) < MAX_OPENED
            broken.append(problem.pos)
            position = begin.end() if open_it else max(problem.pos, begin.end())
        except RecursionError:  # nested as no subtitles are
            break
    return whole


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else math.inf  # int() refuses more than 4,300 digits


_DECODER = json.JSONDecoder(strict=False, parse_int=_int)
FAR = 20_000  # characters
MAX_OPENED = 5
# What recognisers call the text of a row and its times; names are compared without case, "_" and "-".
_TEXT = ("normalizedtext", "text", "transcript", "punctuatedword", "word", "transcription", "sentence", "content",
         "utf8", "caption", "display")  # fmt: skip
_START = ("start", "starttime", "from", "begin", "startseconds", "starts", "startsec", "starttimeseconds", "offset")
_END = ("end", "endtime", "to", "stop", "endseconds", "ends", "endsec", "endtimeseconds")
_LENGTH = ("duration", "dur", "durationseconds", "durationsec")
_SPAN = ("timestamp", "timestamps", "times", "time", "boundaries", "span", "interval", "offsets")  # both times in one
_IN_MS = {"offsets"}  # of whisper.cpp
_MS = ("ms", "msec", "millis", "milliseconds")  # behind the name of a time
_RANGE = re.compile(r"([\d:.,]{1,20})\s*+(?:-->|→|[-–—])\s*+([\d:.,]{1,20})")
_WORDS = ("words", "wordsegments", "tokens", "word", "punctuatedword")  # lists of words, and the text of one
_READINGS = ("alternatives", "nbest")  # of the same, the best one first
_UNFINISHED = ("partial", "partials", "interim")  # what is said again as soon as it is whole
_MISSING = ("None", "nan", "<NA>", "")


@dataclass
class _Row:
    """A piece of text with its times as they stand in JSON."""

    text: str | None  # None: no text
    name: str  # of the text, plain
    start: object = None
    end: object = None
    length: object = None
    unit: float = 1.0  # seconds
    paired: bool = False  # both times stand in one


def _timed_rows(content: Any) -> list[Any]:
    """The rows of JSON that hold the whole text in the smallest pieces above words, or lines made of the words."""
    lists: dict[tuple[str, ...], list[list[Any]]] = defaultdict(list)  # by the names on the way there
    rows_of: dict[tuple[str, ...], list[_Row]] = defaultdict(list)  # those with text
    stack: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while stack:
        path, node = stack.pop()
        entries = _entries(node)
        below = node.items() if isinstance(node, dict) else zip(itertools.repeat(""), entries, strict=False)
        children = [((*path, plain) if plain else path, value) for name, value in below
                    if isinstance(value, list | dict) and (plain := _plain_name(name)) not in _UNFINISHED]  # fmt: skip
        if isinstance(node, dict) and len(node) == len(entries) == 1 and children:
            path = children[0][0]  # what has one part is no list of one
        if isinstance(node, list) and path and path[-1] in _READINGS:
            children = children[:1]  # the others are other readings of the same
        rows = [] if len(path) > 12 else [_row(entry) for entry in entries]
        if any(row and row.text and _has_time(row) for row in rows):
            lists[path].append(entries)
            rows_of[path] += [row for row in rows if row and row.text]
            # Rows without names, and numbers of tokens, hold no further rows.
            children = [child for child in children if not isinstance(child[1], list) or _row(child[1]) is None]
        stack += children[::-1]
    if not lists:
        row = _row(content)
        return content if isinstance(content, list) else [content] if row and row.text else []
    n_letters = {path: sum(len(row.text or "") for row in rows) for path, rows in rows_of.items()}
    most = max(n_letters.values())
    words = [path for path in lists if _are_words(path, rows_of[path])]
    whole = [path for path in lists if path not in words and n_letters[path] > most / 2]
    if whole:
        enough = 0.9 * max(n_letters[path] for path in whole)
        near = [path for path in whole if n_letters[path] >= enough]
        best = max(near, key=lambda path: (len(rows_of[path]), n_letters[path]))  # the same with punctuation has more
        return [entry for entries in lists[best] for entry in entries]
    best = max(words or lists, key=n_letters.__getitem__)
    return [line for entries in lists[best] for line in _lines_of_words(entries)]


def _entries(node: Any) -> list[Any]:
    """What may be rows: of a list, of an object with a name for each, or of a table with a list for each column."""
    if isinstance(node, list):
        return [entry for entry in node if not _is_unfinished(entry)]
    columns = {name: list(values.values()) if isinstance(values, dict) else values for name, values in node.items()}
    names = [name for name, values in columns.items() if isinstance(values, list)]
    if {"text", "start"} <= {name.lower() for name in names}:
        n = len(next(columns[name] for name in names if name.lower() == "text"))
        names = [name for name in names if len(columns[name]) == n]
        return [dict(zip(names, row, strict=True)) for row in zip(*(columns[name] for name in names), strict=True)]
    values = list(node.values())
    if not all(isinstance(value, dict) for value in values):
        return []
    # Parts of an object stand beside what tells about it; rows are most of what is there.
    return values if 2 * sum(bool(row and row.text) for row in map(_row, values)) > len(values) else []


def _is_unfinished(entry: Any) -> bool:
    return isinstance(entry, dict) and (entry.get("isFinal") is False or entry.get("is_final") is False)


def _row(entry: Any) -> _Row | None:
    """A row of an object, or of a list without names: the longest string that is no time, and the times beside it."""
    if isinstance(entry, list | tuple):
        return _row_without_names(entry)
    if not isinstance(entry, Mapping):
        return None
    plain: dict[str, Any] = {_plain_name(str(key)): value for key, value in entry.items()}
    readings = next((plain[key] for key in _READINGS if key in plain), None)
    if isinstance(readings, list) and readings and isinstance(readings[0], Mapping):
        plain = {_plain_name(str(key)): value for key, value in readings[0].items()} | plain
    name = next((name for name in _TEXT if isinstance(plain.get(name), str | int)), "")
    row = _Row(str(plain[name]) if name else None, name)
    for names, target in ((_START, "start"), (_END, "end"), (_LENGTH, "length")):
        key = next((key for key in names if plain.get(key) is not None), None)
        in_ms = None if key else next((key for key in map("".join, product(names, _MS)) if key in plain), None)
        if key or in_ms:
            setattr(row, target, plain[key or str(in_ms)])
            row.unit = 0.001 if in_ms else row.unit
    for key in _SPAN:
        span = plain.get(key)
        if row.start is not None or span is None:
            continue
        if isinstance(span, list | tuple) and span and not isinstance(span[0], list | dict):
            row.start, row.end, row.paired = span[0], span[1] if len(span) > 1 else None, True
        elif isinstance(span, Mapping):
            row.start, row.end = (next((span[key] for key in names if key in span), None) for names in (_START, _END))
        elif isinstance(span, str) and (both := _RANGE.fullmatch(span.strip())):
            row.start, row.end = both.groups()
        elif not isinstance(span, list | tuple):
            row.start = span
        row.unit = 0.001 if key in _IN_MS else row.unit
        if row.start is not None and _seconds(row.start) is None:
            row.start = row.end = None  # the next one may be readable
    return row


@lru_cache(1000)
def _plain_name(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _row_without_names(entry: Sequence[Any]) -> _Row | None:
    texts = [(at, value) for at, value in enumerate(entry) if isinstance(value, str) and _seconds(value) is None]
    if not texts or len(entry) > 40:
        return None
    at, text = max(texts, key=lambda pair: len(pair[1]))
    before, after = ([value for value in part if _seconds(value) is not None] for part in (entry[:at], entry[at + 1 :]))
    pairs = (value for value in entry if isinstance(value, list | tuple) and len(value) == 2)
    pair = next((pair for pair in pairs if _seconds(pair[0]) is not None), None)
    if len(before) > 1:
        return _Row(text, "", *before[-2:])
    times = after[:2] if len(after) > 1 else pair or before
    return _Row(text, "", *times) if times else None


def _has_time(row: _Row) -> bool:
    return _seconds(row.start, row.unit) is not None


def _are_words(path: tuple[str, ...], rows: Sequence[_Row]) -> bool:
    """Whether the rows are single words: by the name of the list or of the text, or by their look."""
    if any(row.name in _WORDS for row in rows[:1]) or (path and path[-1] in _WORDS):
        return True
    lengths = sorted(end - start for row in rows
                     if (start := _seconds(row.start, row.unit)) is not None
                     and (end := _seconds(row.end, row.unit)) is not None)  # fmt: skip
    alone = sum(len(str(row.text).split()) == 1 for row in rows)
    return (
        len(rows) >= 8 and alone > 0.95 * len(rows) and 2 * len(lengths) > len(rows) and lengths[len(lengths) // 2] < 1
    )


MAX_LINE = 84  # characters of a line made of words: two lines on a screen
MAX_PAUSE_S = 0.5  # a longer one ends the line, so that it stands between two cues


def _lines_of_words(entries: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Entries with the text of a line each. A word without times belongs to the one before it."""
    rows = [row for row in map(_row, entries) if row and row.text]
    spaced = any(str(row.text)[:1].isspace() for row in rows)  # Whisper's tokens bring their blanks along
    in_ms = _are_milliseconds(rows)
    text, start, end = "", None, None
    for row in rows:
        word = str(row.text)
        if not word.strip():
            text += " " if text else ""
            continue
        first, last, length = (
            _seconds(time, 0.001 if in_ms else row.unit) for time in (row.start, row.end, row.length)
        )
        if last is None and first is not None and length is not None:
            last = first + length
        pause = 0.0 if first is None or end is None else first - end
        full = text.rstrip().endswith((".", "!", "?", "…")) or len(text) + len(word) >= MAX_LINE or pause > MAX_PAUSE_S
        if text and first is not None and full:
            yield {"text": text, "start": start, "end": end}
            text, start, end = "", None, None
        joined = spaced or not text or not any(char.isalnum() for char in word)
        text += word if joined else f" {word}"
        start = first if start is None else start
        end = end if last is None else last
    if text:
        yield {"text": text, "start": start, "end": end}


def _from_entries(entries: Sequence[Any], found: _Found) -> list[_Raw]:
    raw = []
    rows = [_row(entry) for entry in entries]
    in_ms = _are_milliseconds([row for row in rows if row and row.text])
    before: float | None = None  # where the entry before ends
    if in_ms:
        found["times taken for milliseconds"].append(f"start {next(row.start for row in rows if row)!r}")
    for number, (entry, row) in enumerate(zip(entries, rows, strict=True), 1):
        if row is None:
            found["entry that is no mapping dropped"].append(f"entry {number} {entry!r:.100}")
            continue
        start, end, length = (_seconds(time, 0.001 if in_ms else row.unit) for time in (row.start, row.end, row.length))
        where = f"entry {number} (start {row.start!r:.40}, end {row.end!r:.40})"
        if end is None and str(row.end) not in _MISSING:
            found["unreadable end estimated"].append(where)
        if start is None and str(row.start) in _MISSING and row.text and (row.paired or end is not None):
            start = 0.0 if before is None and number == 1 and end is not None else before
            start = None if start is None or (end is not None and end <= start) else start
            if start is not None:
                found["missing start, taken from the end before"].append(where)
        before = end if end is not None or start is None else start + _guessed_length(row.text or "")
        lasting = end is None and start is not None and length is not None
        text = _clean(_shortened(row.text or "", where, found))
        raw.append(_Raw(start, start + length if lasting else end, [text], where, cut=lasting))  # type: ignore[operator]
    return raw


def _are_milliseconds(rows: Sequence[_Row]) -> bool:
    """Whole numbers of which a letter lasts longer than ten seconds."""
    spans = [(row.start, row.end, len(row.text or "")) for row in rows if row.unit == 1]
    if len(spans) < 3 or not all(type(start) is int and type(end) is int for start, end, _ in spans):
        return False
    seconds = sum(max(end - start, 0) for start, end, _ in spans)  # type: ignore[operator]
    return seconds >= 100 * len(spans) and seconds > 10 * sum(n for _, _, n in spans)


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
    rf"\s*+(?:\d++\s++)?(?P<start>{_TIME})\s*+(?:[-–—=]++\s*+(?:>|&gt;)|→|[-–—]*+(?=\s*+\d++:\d++:\d++[.,]\d))\s*+"
    rf"(?:(?P<end>{_TIME})(?![\d:.,])|(?P<junk>-?\d\S*))?(?P<rest>.*)"
)
_SETTINGS = r"(?:\s++[A-Za-z]\w*+:\S++)*\s*"
_ONLY_SETTINGS = re.compile(_SETTINGS)
_FORMS = {
    "srt": re.compile(r"\d{2,}:\d\d:\d\d,\d{3} --> \d{2,}:\d\d:\d\d,\d{3}" + _SETTINGS),
    "vtt": re.compile(r"(?:\d{2,}:)?\d\d:\d\d\.\d{3}\s+-->\s+(?:\d{2,}:)?\d\d:\d\d\.\d{3}" + _SETTINGS),
}
# Where a cue may begin: times that cannot be read, or a line of time that breaks off.
_BROKEN = re.compile(r"(?=.*\d:\d)(?:.*-->|[\d:.,\s>-]+\Z|\s*\d+:\d\d:\d\d[.,]\d)")
_EXACT = re.compile(r"[.,]|:.*:")  # a time with a fraction, or with hours
_NUMBER = re.compile(r"\s*(\d{1,9})\s*")
_HEADER = re.compile(r"WEBVTT(?:[ \t].*)?")
_GLUED_HEADER = re.compile(r"(?<=\S)WEBVTT\Z")  # a file without a line end, and the next one joined to it
_HEADER_FIELD = re.compile(r"(?:X-[A-Z-]+|Kind|Language|Region|Style)\s*[=:].*", re.IGNORECASE)
_MPEG_TIME = re.compile(r"MPEGTS:\s*(\d{1,19})", re.IGNORECASE)
_LOCAL_TIME = re.compile(r"LOCAL:\s*([\d:.]+)", re.IGNORECASE)
_MPEG_HZ, _MPEG_WRAP = 90_000, 2**33
_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
_INLINE_TIME = re.compile(r"<[\d:]+[.,]\d+>")


def _read_timed_text(text: str, found: _Found) -> tuple[str, list[_Raw]]:
    """Both formats by one reader, led by the lines that hold times: a cue's text lies between two of them."""
    lines, shifts = _without_headers(_split(text, found), found)
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
        if not _ONLY_SETTINGS.fullmatch(match["rest"]):
            found["text on the line of the times"].append(where)
            body.insert(0, match["rest"])
        elif match["end"] and not _FORMS[kind].fullmatch(lines[at]):
            found[f"times not in the form of {kind}"].append(where)
        # A line of blanks keeps its place: rolling captions show one where there is nothing new.
        body = [line for line in body if line]
        n_old = next((n for n, line in enumerate(body) if _INLINE_TIME.search(line)), len(body))
        start, stop = _moved(_seconds(match["start"]), shifts[at]), _moved(_seconds(match["end"]), shifts[at])
        raw.append(_Raw(start, stop, [_clean(line) for line in body], where, n_old=n_old))
    return kind, _unroll(raw, found)


def _without_headers(lines: list[str], found: _Found) -> tuple[list[str], list[float]]:
    """Lines without the headers of files that were joined to one, and by how many seconds the times of each move.

    The parts of a stream say by X-TIMESTAMP-MAP where their own clock stands in it (RFC 8216, 3.5). The first one is
    the zero: a player shows the stream from there.
    """
    kept: list[str] = []
    shifts: list[float] = []
    shift = 0.0
    first: float | None = None
    in_header = False
    for at, line in enumerate(lines):
        glued = _GLUED_HEADER.search(line)
        begins = glued is not None or _HEADER.fullmatch(line) is not None
        followed = at + 1 < len(lines) and _HEADER_FIELD.fullmatch(lines[at + 1])
        if begins and (followed or glued or line.strip() == "WEBVTT" or at == 0 or not lines[at - 1].strip()):
            in_header, shift = True, 0.0
            if any(kept):
                found["header of a joined WebVTT file dropped"].append(f"line {at + 1} {line.strip()!r}")
            line = line[: glued.start()] if glued else ""  # noqa: PLW2901
        elif in_header and _HEADER_FIELD.fullmatch(line):
            mpeg, local = _MPEG_TIME.search(line), _LOCAL_TIME.search(line)
            zero = _seconds(local[1]) if local else None
            if mpeg and zero is not None:
                zero = int(mpeg[1]) / _MPEG_HZ - zero
                first = zero if first is None else first
                half = _MPEG_WRAP / _MPEG_HZ / 2  # the counter begins anew after 26 hours
                shift = (zero - first + half) % (2 * half) - half
                if shift:
                    found["times moved by X-TIMESTAMP-MAP"].append(f"line {at + 1}, by {shift:.3f} s")
            line = ""  # noqa: PLW2901
        else:
            in_header = False
        kept.append(line)
        shifts.append(shift)
    return kept, shifts


def _moved(time: float | None, shift: float) -> float | None:
    return None if time is None else time + shift


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
            only = not match["junk"] and _ONLY_SETTINGS.fullmatch(match["rest"])
            begins = opens or bool(only and _EXACT.search(match["start"]))
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

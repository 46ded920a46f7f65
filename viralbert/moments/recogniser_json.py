"""Cues from JSON: what recognisers write, by structure and not by name; YouTube's json3; lists;
damaged files."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from viralbert.moments.cue_text import (
    RawCue,
    Repairs,
    guessed_length,
    plain_text,
    read_seconds,
    shortened,
)

_OPENING = re.compile(r"\{\s*\"|\[")


def read_json(text: str, repairs: Repairs) -> tuple[str, list[RawCue]]:
    """Format and cues of a JSON text, whole or damaged."""
    kind = "whisper" if text.lstrip().startswith("{") else "json"
    try:
        content = _DECODER.decode(text.strip())
    except (ValueError, RecursionError) as error:
        content = _json_lines(text)
        if content is None:
            repairs["damaged JSON, whole entries kept"].append(str(error))
            content = _whole_entries(text)
    events = content.get("events") if isinstance(content, dict) else None
    if isinstance(events, list) and any(
        isinstance(event, dict) and "segs" in event for event in events
    ):
        return "json3", _from_events(events)
    raw = cues_from_entries(_timed_rows(content), repairs)
    if not raw and isinstance(content, dict):
        repairs["JSON without pieces of text that have times"].append(f"keys {', '.join(content)}")
    return kind, raw


def _json_lines(text: str) -> list[Any] | None:
    """The values of a file that has one on each line."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return [_DECODER.decode(line.strip()) for line in lines] if len(lines) > 1 else None
    except (ValueError, RecursionError):
        return None


def _whole_entries(text: str) -> dict[str, list[Any]]:
    """What is whole in a truncated or damaged file: its outermost whole objects and lists, by the
    name of their text.

    What holds the damage is opened, and so is what holds it in there, but no deeper than files of
    subtitles go: each level is read once more.
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
# What recognisers call the text of a row and its times; names are compared without case, "_" and
# "-".
_TEXT = (
    "normalizedtext",
    "text",
    "transcript",
    "punctuatedword",
    "word",
    "transcription",
    "sentence",
    "content",
    "utf8",
    "caption",
    "display",
)
_START = (
    "start",
    "starttime",
    "from",
    "begin",
    "startseconds",
    "starts",
    "startsec",
    "starttimeseconds",
    "offset",
)
_END = ("end", "endtime", "to", "stop", "endseconds", "ends", "endsec", "endtimeseconds")
_LENGTH = ("duration", "dur", "durationseconds", "durationsec")
_SPAN = (
    "timestamp",
    "timestamps",
    "times",
    "time",
    "boundaries",
    "span",
    "interval",
    "offsets",
)  # both times in one
_IN_MS = {"offsets"}  # of whisper.cpp
_MS = ("ms", "msec", "millis", "milliseconds")  # behind the name of a time
_RANGE = re.compile(r"([\d:.,]{1,20})\s*+(?:-->|→|[-–—])\s*+([\d:.,]{1,20})")
_WORDS = (
    "words",
    "wordsegments",
    "tokens",
    "word",
    "punctuatedword",
)  # lists of words, and the text of one
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
    """The rows of JSON that hold the whole text in the smallest pieces above words, or lines made
    of the words."""
    lists: dict[tuple[str, ...], list[list[Any]]] = defaultdict(
        list
    )  # by the names on the way there
    rows_of: dict[tuple[str, ...], list[_Row]] = defaultdict(list)  # those with text
    stack: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while stack:
        path, node = stack.pop()
        entries = _entries(node)
        below = (
            node.items()
            if isinstance(node, dict)
            else zip(itertools.repeat(""), entries, strict=False)
        )
        children = [
            ((*path, plain) if plain else path, value)
            for name, value in below
            if isinstance(value, list | dict) and (plain := _plain_name(name)) not in _UNFINISHED
        ]
        if isinstance(node, dict) and len(node) == len(entries) == 1 and children:
            path = children[0][0]  # what has one part is no list of one
        if isinstance(node, list) and path and path[-1] in _READINGS:
            children = children[:1]  # the others are other readings of the same
        rows = [] if len(path) > 12 else [_row(entry) for entry in entries]
        if any(row and row.text and _has_time(row) for row in rows):
            lists[path].append(entries)
            rows_of[path] += [row for row in rows if row and row.text]
            # Rows without names, and numbers of tokens, hold no further rows.
            children = [
                child
                for child in children
                if not isinstance(child[1], list) or _row(child[1]) is None
            ]
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
        best = max(
            near, key=lambda path: (len(rows_of[path]), n_letters[path])
        )  # the same with punctuation has more
        return [entry for entries in lists[best] for entry in entries]
    best = max(words or lists, key=n_letters.__getitem__)
    return [line for entries in lists[best] for line in _lines_of_words(entries)]


def _entries(node: Any) -> list[Any]:
    """What may be rows: of a list, of an object with a name for each, or of a table with a list for
    each column."""
    if isinstance(node, list):
        return [entry for entry in node if not _is_unfinished(entry)]
    columns = {
        name: list(values.values()) if isinstance(values, dict) else values
        for name, values in node.items()
    }
    names = [name for name, values in columns.items() if isinstance(values, list)]
    if {"text", "start"} <= {name.lower() for name in names}:
        n = len(next(columns[name] for name in names if name.lower() == "text"))
        names = [name for name in names if len(columns[name]) == n]
        return [
            dict(zip(names, row, strict=True))
            for row in zip(*(columns[name] for name in names), strict=True)
        ]
    values = list(node.values())
    if not all(isinstance(value, dict) for value in values):
        return []
    # Parts of an object stand beside what tells about it; rows are most of what is there.
    return (
        values if 2 * sum(bool(row and row.text) for row in map(_row, values)) > len(values) else []
    )


def _is_unfinished(entry: Any) -> bool:
    return isinstance(entry, dict) and (
        entry.get("isFinal") is False or entry.get("is_final") is False
    )


def _row(entry: Any) -> _Row | None:
    """A row of an object, or of a list without names: the longest string that is no time, and the
    times beside it."""
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
    _take_times(row, plain)
    for key in _SPAN:
        if row.start is None and plain.get(key) is not None:
            _take_span(row, key, plain[key])
    return row


def _take_times(row: _Row, plain: Mapping[str, Any]) -> None:
    """Start, end and length that have fields of their own; with `ms` behind the name, too."""
    for names, target in ((_START, "start"), (_END, "end"), (_LENGTH, "length")):
        key = next((key for key in names if plain.get(key) is not None), None)
        if key:
            setattr(row, target, plain[key])
            continue
        in_ms = next((key for key in map("".join, product(names, _MS)) if key in plain), None)
        if in_ms:
            setattr(row, target, plain[in_ms])
            row.unit = 0.001


def _take_span(row: _Row, key: str, span: Any) -> None:
    """Start and end that stand in one field: a pair, an object, `00:01 - 00:03`."""
    if isinstance(span, list | tuple) and span and not isinstance(span[0], list | dict):
        row.start, row.end, row.paired = span[0], span[1] if len(span) > 1 else None, True
    elif isinstance(span, Mapping):
        row.start, row.end = (
            next((span[key] for key in names if key in span), None) for names in (_START, _END)
        )
    elif isinstance(span, str) and (both := _RANGE.fullmatch(span.strip())):
        row.start, row.end = both.groups()
    elif not isinstance(span, list | tuple):
        row.start = span
    row.unit = 0.001 if key in _IN_MS else row.unit
    if row.start is not None and read_seconds(row.start) is None:
        row.start = row.end = None  # the next one may be readable


@lru_cache(1000)
def _plain_name(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _row_without_names(entry: Sequence[Any]) -> _Row | None:
    texts = [
        (at, value)
        for at, value in enumerate(entry)
        if isinstance(value, str) and read_seconds(value) is None
    ]
    if not texts or len(entry) > 40:
        return None
    at, text = max(texts, key=lambda pair: len(pair[1]))
    before, after = (
        [value for value in part if read_seconds(value) is not None]
        for part in (entry[:at], entry[at + 1 :])
    )
    pairs = (value for value in entry if isinstance(value, list | tuple) and len(value) == 2)
    pair = next((pair for pair in pairs if read_seconds(pair[0]) is not None), None)
    if len(before) > 1:
        return _Row(text, "", *before[-2:])
    times = after[:2] if len(after) > 1 else pair or before
    return _Row(text, "", *times) if times else None


def _has_time(row: _Row) -> bool:
    return read_seconds(row.start, row.unit) is not None


def _are_words(path: tuple[str, ...], rows: Sequence[_Row]) -> bool:
    """Whether the rows are single words: by the name of the list or of the text, or by their
    look."""
    if any(row.name in _WORDS for row in rows[:1]) or (path and path[-1] in _WORDS):
        return True
    lengths = sorted(
        end - start
        for row in rows
        if (start := read_seconds(row.start, row.unit)) is not None
        and (end := read_seconds(row.end, row.unit)) is not None
    )
    alone = sum(len(str(row.text).split()) == 1 for row in rows)
    return (
        len(rows) >= 8
        and alone > 0.95 * len(rows)
        and 2 * len(lengths) > len(rows)
        and lengths[len(lengths) // 2] < 1
    )


MAX_LINE = 84  # characters of a line made of words: two lines on a screen
MAX_PAUSE_S = 0.5  # a longer one ends the line, so that it stands between two cues


def _lines_of_words(entries: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Entries with the text of a line each. A word without times belongs to the one before it."""
    rows = [row for row in map(_row, entries) if row and row.text]
    spaced = any(
        str(row.text)[:1].isspace() for row in rows
    )  # Whisper's tokens bring their blanks along
    in_ms = _are_milliseconds(rows)
    text, start, end = "", None, None
    for row in rows:
        word = str(row.text)
        if not word.strip():
            text += " " if text else ""
            continue
        first, last, length = (
            read_seconds(time, 0.001 if in_ms else row.unit)
            for time in (row.start, row.end, row.length)
        )
        if last is None and first is not None and length is not None:
            last = first + length
        pause = 0.0 if first is None or end is None else first - end
        full = (
            text.rstrip().endswith((".", "!", "?", "…"))
            or len(text) + len(word) >= MAX_LINE
            or pause > MAX_PAUSE_S
        )
        if text and first is not None and full:
            yield {"text": text, "start": start, "end": end}
            text, start, end = "", None, None
        joined = spaced or not text or not any(char.isalnum() for char in word)
        text += word if joined else f" {word}"
        start = first if start is None else start
        end = end if last is None else last
    if text:
        yield {"text": text, "start": start, "end": end}


def cues_from_entries(entries: Sequence[Any], repairs: Repairs) -> list[RawCue]:
    """Cues of rows that have a text and times, in seconds or milliseconds, under any of the usual
    names."""
    raw = []
    rows = [_row(entry) for entry in entries]
    in_ms = _are_milliseconds([row for row in rows if row and row.text])
    before: float | None = None  # where the entry before ends
    if in_ms:
        repairs["times taken for milliseconds"].append(
            f"start {next(row.start for row in rows if row)!r}"
        )
    for number, (entry, row) in enumerate(zip(entries, rows, strict=True), 1):
        if row is None:
            repairs["entry that is no mapping dropped"].append(f"entry {number} {entry!r:.100}")
            continue
        start, end, length = (
            read_seconds(time, 0.001 if in_ms else row.unit)
            for time in (row.start, row.end, row.length)
        )
        where = f"entry {number} (start {row.start!r:.40}, end {row.end!r:.40})"
        if end is None and str(row.end) not in _MISSING:
            repairs["unreadable end estimated"].append(where)
        if (
            start is None
            and str(row.start) in _MISSING
            and row.text
            and (row.paired or end is not None)
        ):
            start = 0.0 if before is None and number == 1 and end is not None else before
            start = None if start is None or (end is not None and end <= start) else start
            if start is not None:
                repairs["missing start, taken from the end before"].append(where)
        before = end if end is not None or start is None else start + guessed_length(row.text or "")
        lasting = end is None and start is not None and length is not None
        text = plain_text(shortened(row.text or "", where, repairs))
        raw.append(RawCue(start, start + length if lasting else end, [text], where, cut=lasting))  # type: ignore[operator]
    return raw


def _are_milliseconds(rows: Sequence[_Row]) -> bool:
    """Whole numbers of which a letter lasts longer than ten seconds."""
    spans = [(row.start, row.end, len(row.text or "")) for row in rows if row.unit == 1]
    if len(spans) < 3 or not all(
        type(start) is int and type(end) is int for start, end, _ in spans
    ):
        return False
    seconds = sum(max(end - start, 0) for start, end, _ in spans)  # type: ignore[operator]
    return seconds >= 100 * len(spans) and seconds > 10 * sum(n for _, _, n in spans)


def _from_events(events: Sequence[Any]) -> list[RawCue]:
    """YouTube's json3. Events without text open windows or break lines; durations reach into the
    next event."""
    raw = []
    for number, event in enumerate(events, 1):
        parts = event.get("segs") if isinstance(event, Mapping) else None
        parts = parts if isinstance(parts, list) else []
        text = plain_text(
            "".join(str(part.get("utf8", "")) for part in parts if isinstance(part, Mapping))
        )
        if text:
            start, length = (
                read_seconds(event.get(key), 0.001) for key in ("tStartMs", "dDurationMs")
            )
            end = None if start is None or length is None else start + length
            raw.append(
                RawCue(
                    start,
                    end,
                    [text],
                    f"event {number} (tStartMs {event.get('tStartMs')!r})",
                    cut=True,
                )
            )
    return raw

"""Which format a text is in, and ASS, the one that needs little."""

from __future__ import annotations

import re

from viralbert.moments.cue_text import RawCue, Repairs, plain_text, read_seconds, split_lines
from viralbert.moments.recogniser_json import read_json
from viralbert.moments.timed_text import read_timed_text

_UNSEEN = "\x00\u200b\u200e\u200f\ufeff"  # joined files have byte order marks inside
_FENCE = re.compile(r"\A\s*```\w*|\n```\s*\Z")
_IS_ASS = re.compile(
    r"^(?:\[script info\]|Dialogue:[^,\n]*,\s*-?\d+:\d\d:\d)", re.IGNORECASE | re.MULTILINE
)
_OBJECT = re.compile(r"\{\s*\"")
_TABLE = re.compile(r"\[\s*\[")  # rows without names
_DRAWING = re.compile(r"\{(?=[^{}]*\\p[1-9])[^{}]*+\}.*?(?=\{[^{}]*\\p0|$)")
_OVERRIDE = re.compile(r"\{[^{}]*\}")


def parse(text: str, repairs: Repairs) -> tuple[str, list[RawCue]]:
    """Format and cues of a text, as they stand in it."""
    for (
        char
    ) in _UNSEEN:  # one at a time: a search for all of them would hold the interpreter for long
        text = text.replace(char, "")
    text, n_fences = _FENCE.subn("", text)
    if n_fences:
        repairs["code fence dropped"].append("```")
    begin = text.lstrip()
    if not begin.startswith("WEBVTT") and _IS_ASS.search(text):
        return "ass", _read_ass(text, repairs)
    if begin.startswith(("[", "{")) and (
        _OBJECT.search(text) or _TABLE.match(begin) or begin[1:].strip() in ("]", "}")
    ):
        return read_json(text, repairs)
    return read_timed_text(text, repairs)


def _read_ass(text: str, repairs: Repairs) -> list[RawCue]:
    """Dialogue lines, by the file's own `Format` (pysubs2 ignores it, and fails as a whole on one
    damaged line)."""
    fields = [
        "layer",
        "start",
        "end",
        "style",
        "name",
        "marginl",
        "marginr",
        "marginv",
        "effect",
        "text",
    ]
    raw = []
    for number, line in enumerate(split_lines(text, repairs), 1):
        kind, _, rest = line.partition(":")
        kind, where = kind.strip().lower(), f"line {number} {line.strip()!r}"
        if kind == "format" and rest.lower().rstrip().endswith("text"):
            fields = [field.strip().lower() for field in rest.split(",")]
        elif kind == "dialogue":
            values = dict(zip(fields, rest.split(",", len(fields) - 1), strict=False))
            written = values.get("text", "")
            spoken = _DRAWING.sub("", written)
            plain = plain_text(_OVERRIDE.sub("", spoken))
            if plain or spoken == written:  # a drawing alone is no cue
                raw.append(
                    RawCue(
                        read_seconds(values.get("start")),
                        read_seconds(values.get("end")),
                        [plain],
                        where,
                    )
                )
        elif kind not in ("comment", "style", "format") and rest.count(",") >= len(fields) - 1:
            repairs["line not understood, dropped"].append(where)
    return raw

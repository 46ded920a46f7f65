"""Three cues in every format, and how tests make subtitles and read them."""

import random

from viralbert.moments.subtitles import Cue, Subtitles, read_subtitles

SRT = """1
00:00:01,000 --> 00:00:02,500
Кот проснулся.

2
00:00:03,000 --> 00:00:04,000
И сразу
потребовал завтрак.

3
00:00:05,250 --> 00:00:07,000
Ёжик — «против»!
"""
CUES = [
    Cue(1.0, 2.5, "Кот проснулся."),
    Cue(3.0, 4.0, "И сразу потребовал завтрак."),
    Cue(5.25, 7.0, "Ёжик — «против»!"),
]
VTT = "WEBVTT\n\n" + SRT.replace(",0", ".0").replace(",5", ".5").replace(",2", ".2")
LIST = [{"text": cue.text, "start": cue.start, "end": cue.end} for cue in CUES]
ASS_HEAD = """[Script Info]
Title: Кот
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
ASS = (
    ASS_HEAD
    + (
        "Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\i1}Кот{\\i0} проснулся.\n"
        "Comment: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,заметка переводчика\n"
        "Dialogue: 0,0:00:01.00,0:00:09.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0 100 100{\\p0}\n"
        "Dialogue: 0,0:00:03.00,0:00:04.00,Default,Кот, который спит,0,0,0,,И сразу\\Nпотребовал "
        "завтрак.\n"
    ).replace("Кот, который спит", "Кот")
    + "Dialogue: 0,0:00:05.25,0:00:07.00,Default,,0,0,0,,Ёжик — «против»!\n"
)
WHISPER = {
    "text": "…",
    "language": "ru",
    "segments": [
        {
            "id": n,
            **entry,
            "words": [{"word": "2024"}, {"word": "Кот", "start": 1.0, "end": 1.2, "score": 0.9}],
        }
        for n, entry in enumerate(LIST)
    ],
}
JSON3 = {
    "wireMagic": "pb3",
    "events": [
        {"tStartMs": 0, "dDurationMs": 60000, "id": 1, "wpWinPosId": 1},
        {
            "tStartMs": 1000,
            "dDurationMs": 3000,
            "segs": [{"utf8": "Кот"}, {"utf8": " проснулся.", "tOffsetMs": 300}],
        },
        {"tStartMs": 2900, "dDurationMs": 1000, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 3000, "dDurationMs": 1000, "segs": [{"utf8": "И сразу\nпотребовал завтрак."}]},
        {"tStartMs": 5250, "dDurationMs": 1750, "segs": [{"utf8": "Ёжик — «против»!"}]},
    ],
}


def srt(*blocks: str) -> str:
    """Cues in SubRip's form from `times / text`; numbered."""
    return "\n\n".join(f"{n}\n{block}" for n, block in enumerate(blocks, 1)) + "\n"


def cue(start: float, end: float, text: str) -> str:
    def clock(seconds: float) -> str:
        ms = round(seconds * 1000)
        return f"{ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"

    return f"{clock(start)} --> {clock(end)}\n{text}"


def texts(source, **options) -> list[str]:
    return [cue.text for cue in read_subtitles(source, **options).cues]


def reports(result: Subtitles, *kinds: str) -> bool:
    """Exactly these kinds of repair, in any order."""
    return sorted(line.split(":")[0] for line in result.repairs) == sorted(kinds)


def spoken_lines(seed: int = 0) -> list[str]:
    """1,200 words in lines of 1 to 7, many of them repeated: inside a line, and whole lines one
    after another."""
    rng = random.Random(seed)
    words = [
        "нет",
        "да",
        "кот",
        "пошёл",
        "домой",
        "опять",
        "ну",
        "вот",
        "это",
        "и",
        "снова",
        "там",
        "1998",
    ]
    lines: list[str] = []
    while (left := 1200 - sum(len(line.split()) for line in lines)) > 0:
        if lines and rng.random() < 0.15 and len(lines[-1].split()) <= left:
            lines.append(lines[-1])
        elif rng.random() < 0.1 and left >= 3:
            lines.append("нет нет нет")
        else:
            lines.append(" ".join(rng.choices(words, k=min(left, rng.randint(1, 7)))))
    return lines


def rolling(lines: list[str], tags: bool, brief: bool, kept_blanks: bool) -> str:
    """Two visible lines, of which the lower one is new; after each, if `brief`, 10 ms of it
    alone."""
    blocks = []
    for n, line in enumerate(lines):
        start, upper = 2.0 * n, lines[n - 1] if n else " " * kept_blanks
        first, *rest = line.split()
        lower = (
            first + "".join(f"<00:00:{start % 60:06.3f}><c> {word}</c>" for word in rest)
            if tags
            else line
        )
        shown = f"{upper}\n{lower}" if upper else lower
        blocks.append(cue(start, start + 2 - 0.01 * brief, shown))
        if brief:
            blocks.append(cue(start + 1.99, start + 2, f"{line}\n " if kept_blanks else line))
    if tags or kept_blanks:
        return "WEBVTT\nKind: captions\nLanguage: ru\n\n" + "\n\n".join(blocks).replace(",", ".")
    return srt(*blocks)

import html
import io
import itertools
import json
import random
import re
from collections import defaultdict

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from viralbert.moments import cue_text, subtitles
from viralbert.moments.subtitles import Cue, Subtitles, read_subtitles, write_subtitles
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.texts import normalise
from viralbert_utils.data.sources import SAMPLE

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
FORM = "times not in the form of srt"
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


def spans(source) -> list[tuple[float, float]]:
    return [(cue.start, cue.end) for cue in read_subtitles(source).cues]


def reports(result: Subtitles, *kinds: str) -> bool:
    """Exactly these kinds of repair, in any order."""
    return sorted(line.split(":")[0] for line in result.repairs) == sorted(kinds)


# Formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (SRT, "srt"),
        (VTT, "vtt"),
        (ASS, "ass"),
        (json.dumps(LIST), "json"),
        (json.dumps(WHISPER), "whisper"),
        (json.dumps(JSON3, ensure_ascii=False), "json3"),
    ],
)
@pytest.mark.parametrize("suffix", [".srt", ".vtt", ".ass", ".json", ".txt"])
def test_a_format_is_told_by_its_content(tmp_path, content, kind, suffix):
    path = tmp_path / f"кот{suffix}"
    path.write_text(content, encoding="utf-8")
    for source in (path, str(path), content):
        result = read_subtitles(source, strict=True)
        assert result.cues[1:] == CUES[1:]
        assert result.cues[0] == (Cue(1.0, 3.0, "Кот проснулся.") if kind == "json3" else CUES[0])
        assert (result.format, result.repairs) == (kind, [])
        assert result.encoding == ("" if source is content else "utf-8")


def test_a_string_is_a_path_or_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for missing in ("нет такого.srt", "a/b.JSON"):
        with pytest.raises(DataError, match="no subtitle file"):
            read_subtitles(missing)
    with pytest.raises(DataError, match="no subtitle file"):
        read_subtitles(tmp_path / "кот")
    with pytest.raises(DataError, match="could not be read"):
        read_subtitles(tmp_path)
    assert texts(json.dumps(LIST[:1])) == ["Кот проснулся."]
    for not_a_path in ("~никто/кот", "ы" * 5000, "\0"):
        with pytest.raises(DataError, match="no cue found"):
            read_subtitles(not_a_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        " \n\n",
        "\ufeff",
        "WEBVTT\n\n",
        "[]",
        "{}",
        '{"a": 1}',
        "[1, 2]",
        "просто\nтекст\n",
        "1\n\n2\n",
        ASS_HEAD,
    ],
)
def test_nothing_to_read_is_a_clear_error(tmp_path, content):
    path = tmp_path / "кот.srt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"кот\.srt: no cue found.*Expected SubRip"):
        read_subtitles(path)


def test_noise_is_a_clear_error(tmp_path):
    path = tmp_path / "кот.srt"
    for seed in range(5):
        path.write_bytes(random.Random(seed).randbytes(5000))
        with pytest.raises(DataError, match="no cue found"):
            read_subtitles(path)
    for nested in ("[" * 10_000, '{"a":' * 5_000):
        with pytest.raises(DataError, match="no cue found"):
            read_subtitles(nested)


def test_lists_with_and_without_ends():
    short, long = "Да.", "Нет, " * 40
    result = read_subtitles(
        [
            {"text": short, "start": 10, "end": ""},
            {"text": long, "start": "12.5", "end": float("nan")},
            {"text": "Длится.", "start": 14, "duration": 3},
            {"text": "Поверх.", "start": 15.0, "duration": 2.5, "end": None},
            {"text": short, "start": "0:01:00,5"},
        ],
        strict=True,
    )
    assert [(c.start, c.end) for c in result.cues] == [
        (10, 11.3),
        (12.5, 14),
        (14, 15),
        (15, 17.5),
        (60.5, 61.8),
    ]
    assert (result.format, result.encoding) == ("list", "")


def test_list_entries_that_cannot_be_used_are_named():
    entries = [
        {"text": "раз", "start": 1},
        {"text": "два", "start": None},
        {"text": "три", "start": float("nan")},
        {"text": "четыре", "start": 5, "end": "скоро"},
        {"text": None, "start": 6},
        {"text": "шесть", "start": 1e300},
        {"text": "семь", "start": 10**400},
        "восемь",
    ]
    result = read_subtitles(entries)
    assert [(c.text, c.start) for c in result.cues] == [("раз", 1), ("четыре", 5)]
    assert reports(
        result,
        "cue without a readable start dropped",
        "unreadable end estimated",
        "cue without text dropped",
        "entry that is no mapping dropped",
    )
    assert "entry 2 (start None, end None): 'два'" in result.repairs[2]
    with pytest.raises(DataError, match="no cue found"):
        read_subtitles([])


def test_ass_reads_by_its_format_line_and_loses_one_line_not_the_file():
    content = (
        "[Events]\nFormat: Start, End, Text\n"
        "Dialogue: 100:00:01.5,100:00:02.50,Да, да,\\hда {заметка}\n"
        "Dialogue: 0:00:0x.00,0:00:02.50,потеря\n"
        "Dialogue: 0:00:03.00,0:0\n"
    )
    result = read_subtitles("[Script Info]\n" + content)
    assert result.cues == [Cue(360001.5, 360002.5, "Да, да, да")]
    assert reports(result, "cue without a readable start dropped", "cue without text dropped")
    mixed = (
        ASS_HEAD
        + "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}Вывеска\n"
    )
    assert texts(mixed) == ["Вывеска"]


# Encodings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize(
    ("encoding", "named", "guessed"),
    [
        ("utf-8", "utf-8", False),
        ("utf-8-sig", "utf-8", False),
        ("utf-16", "utf-16", False),
        ("utf-16-le", "utf-16-le", True),
        ("utf-16-be", "utf-16-be", True),
        ("cp1251", "cp1251", True),
        ("koi8-r", "koi8-r", True),
        ("cp866", "cp866", True),
    ],
)
def test_encodings_and_line_ends(tmp_path, encoding, named, guessed, line_end):
    path = tmp_path / "кот.srt"
    for content in (SRT, VTT):
        # KOI8-R and the code page of DOS have no dash and no such quotes.
        plain = content.translate({ord("—"): "-", ord("«"): '"', ord("»"): '"'})
        path.write_bytes(plain.replace("\n", line_end).encode(encoding))
        result = read_subtitles(path)
        assert [c.text for c in result.cues] == [c.text for c in CUES[:2]] + ['Ёжик - "против"!']
        assert result.encoding == named
        assert reports(result, *["encoding guessed"] * guessed)
    path.write_bytes(b"\xff\xfe" + SRT.replace("\n", line_end).encode("utf-16-le"))
    assert read_subtitles(path, strict=True).cues == CUES


def test_any_mixture_of_line_ends_is_read():
    """As the expression says; an expression would hold the interpreter for a tenth of a second in a
    large file."""
    for length in range(8):
        for chars in itertools.product("\r\na", repeat=length):
            text = "".join(chars)
            assert cue_text.split_lines(text, defaultdict(list)) == re.split(
                r"(?<!\r)\r*\n|\r", text
            ), repr(text)


@pytest.mark.parametrize(
    ("main", "other"), list(itertools.permutations(["utf-8", "cp1251", "koi8-r"], 2))
)
def test_one_cue_in_another_encoding(tmp_path, main, other):
    cues = [cue(n, n + 1, f"Сегодня кот под номером {n} никуда не пойдёт") for n in range(9)]
    parts = [block.encode(other if n == 4 else main) for n, block in enumerate(cues)]
    path = tmp_path / "кот.srt"
    path.write_bytes(b"\n\n".join(b"%d\n%s" % (n, part) for n, part in enumerate(parts, 1)))
    result = read_subtitles(path)
    assert [c.text for c in result.cues] == [block.split("\n")[1] for block in cues]
    assert result.encoding == main
    assert any(f"line 19 read as {other}: 'Сегодня кот" in line for line in result.repairs)


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866"])
@pytest.mark.parametrize("said", ["Ну да", "Что", "Пошли домой", "НЕТ, НЕ НАДО"])
def test_a_few_words_are_enough(tmp_path, said, encoding):
    path = tmp_path / "кот.srt"
    path.write_bytes(cue(1, 2, said).encode(encoding))
    result = read_subtitles(path)
    assert (result.cues[0].text, result.encoding) == (said, encoding)


def test_a_damaged_letter_is_shown_and_costs_no_other(tmp_path):
    path = tmp_path / "кот.srt"
    path.write_bytes(SRT.encode().replace("проснулся".encode(), "проснулся".encode()[:-1]))
    result = read_subtitles(path)
    assert result.cues == [Cue(1.0, 2.5, "Кот проснулс\ufffd."), *CUES[1:]]
    assert reports(result, "damaged utf-8")


# Times --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "span"),
    [
        ("00:00:01,5 --> 00:00:02,50", (1.5, 2.5)),
        ("00:00:01.500 --> 00:00:02.050", (1.5, 2.05)),
        ("00:01,5 --> 01:02,005", (1.5, 62.005)),
        ("00:07 --> 00:09", (7, 9)),
        ("00:00:07 --> 00:00:09", (7, 9)),
        ("75:30,000 --> 75:31,000", (4530, 4531)),
        ("100:00:01,000 --> 1234:00:02,000", (360001, 4442402)),
        ("0:0:5,5 -> 0:0:6", (5.5, 6)),
        ("00: 00: 05, 500 -> 00: 00: 06, 000", (5.5, 6)),
        ("00:00:05,500—>00:00:06,000", (5.5, 6)),
        ("00:00:05:500 --&gt; 00:00:06:000", (5.5, 6)),
        ("00:00:05,500 → 00:00:06,000", (5.5, 6)),
        ("00:00:05,500 - 00:00:06,000", (5.5, 6)),
        ("00:00:05,500 00:00:06,000", (5.5, 6)),
        ("00:00:05,500 --> 00:02:x6,0", (5.5, 7.1)),
        ("00:00:05,500 --> 00:00:06,000 X1:100 X2:200 Y1:10 Y2:20", (5.5, 6)),
        ("00:00:05.500 --> 00:00:06.000 align:start position:0%", (5.5, 6)),
        ("  1  00:00:05,500 --> 00:00:06,000", (5.5, 6)),
    ],
)
@pytest.mark.parametrize("head", ["", "WEBVTT\n\n"])
def test_times_in_many_forms(line, span, head):
    result = read_subtitles(f"{head}1\n{line}\nтекст.\n\n2\n{line}\nдругой\n")
    assert [(c.start, c.end, c.text) for c in result.cues] == [(*span, "текст."), (*span, "другой")]


def test_a_form_that_is_not_the_format_s_own_is_reported_once():
    result = read_subtitles(SRT.replace(",", "."))
    assert result.repairs == [
        "times not in the form of srt: 3 (line 2 '00:00:01.000 --> 00:00:02.500'; "
        "line 6 '00:00:03.000 --> 00:00:04.000'; line 11 '00:00:05.250 --> 00:00:07.000')"
    ]
    many = read_subtitles(srt(*[cue(n, n, "ничто не длится") for n in range(2000)]))
    assert len(many.repairs) == 1
    assert many.repairs[0].startswith(
        "end not after start, estimated: 2000 (line 2 '00:00:00,000 --> 00:00:00,000'; "
    )
    assert len(many.repairs[0]) < 400


@pytest.mark.parametrize(
    ("blocks", "expected", "kinds"),
    [
        # The file of a real lecture has the end of the cue above and the start of the one below
        # exchanged.
        (
            [cue(1, 2, "а"), cue(4, 2, "б"), cue(4, 5, "в")],
            [Cue(1, 2, "а"), Cue(2, 4, "б"), Cue(4, 5, "в")],
            ["end before start, swapped"],
        ),
        (
            [cue(60, 5, "слово"), cue(61, 62, "два")],
            [Cue(60, 61, "слово"), Cue(61, 62, "два")],
            ["end not after start, estimated"],
        ),
        ([cue(3, 3, "слово")], [Cue(3, 4.5, "слово")], ["end not after start, estimated"]),
        (
            ["-00:00:01,000 --> 00:00:03,000\nслово"],
            [Cue(0, 3, "слово")],
            ["negative start set to 0", FORM],
        ),
        (
            ["00:00:-1,000 --> 00:00:03,000\nслово"],
            [Cue(0, 3, "слово")],
            ["negative start set to 0", FORM],
        ),
        (
            ["-00:00:05,000 --> -00:00:03,000\nслово", "00:00:05,000 --> -00:00:06,000\nдва"],
            [Cue(5, 6.3, "два")],
            ["cue before time zero dropped", "end not after start, estimated", FORM],
        ),
        (
            [cue(5, 6, "два"), cue(1, 2, "раз"), cue(7, 8, "три")],
            [Cue(1, 2, "раз"), Cue(5, 6, "два"), Cue(7, 8, "три")],
            ["cue out of order, sorted"],
        ),
        ([cue(1, 5, "раз"), cue(2, 9, "два")], [Cue(1, 5, "раз"), Cue(2, 9, "два")], []),
        (
            [cue(1, 2, "да")] * 3 + [cue(2, 3, "да"), cue(2, 3, "да!")],
            [Cue(1, 2, "да"), Cue(2, 3, "да"), Cue(2, 3, "да!")],
            ["exact repeat of a cue dropped"],
        ),
        (
            [cue(1, 2, ""), cue(3, 4, "<i> </i>"), cue(5, 6, "да")],
            [Cue(5, 6, "да")],
            ["cue without text dropped"],
        ),
    ],
)
def test_times_that_contradict_are_repaired_and_reported(blocks, expected, kinds):
    result = read_subtitles(srt(*blocks))
    assert result.cues == expected
    assert reports(result, *kinds)
    if kinds:
        with pytest.raises(DataError, match=f"needs repairs.*{kinds[0]}: "):
            read_subtitles(srt(*blocks), strict=True)


def test_cues_that_start_together_keep_their_order():
    result = read_subtitles(
        srt(cue(4, 4, "Сначала это."), cue(4, 6, "Потом то."), cue(4, 5, "И ещё."))
    )
    assert [c.text for c in result.cues] == ["Сначала это.", "Потом то.", "И ещё."]
    assert (
        spans([{"text": text, "start": 4} for text in "абв"] + [{"text": "г", "start": 5}])[:3]
        == [(4, 5)] * 3
    )


# Structure ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        (SRT.replace("\n2\n", "\n"), ["no number above the times"]),
        (
            "".join(line for line in SRT.splitlines(True) if not line.strip().isdigit()),
            ["no number above the times"],
        ),
        (SRT.replace("\n\n", "\n"), ["no blank line before a cue"]),
        (SRT.replace("\n\n", "\n").replace("\n3\n", "\n1\n"), ["no blank line before a cue"]),
        (
            SRT.replace("00:00:", "00:")
            .replace(",000", "")
            .replace(",500", ",5")
            .replace("\n\n", "\n"),
            [FORM, "no blank line before a cue"],
        ),
        (SRT.replace("сразу\n", "сразу\n\n"), ["blank line inside a cue"]),
        (SRT.replace("\n\n", "\n \n"), []),
        (SRT.replace("\n", "\n\n"), ["blank line inside a cue"]),
        (SRT.replace("500\n", "500 "), ["text on the line of the times"]),
        ("Вот ваши субтитры:\n\n" + SRT, ["text before the first cue dropped"]),
        ("```srt\n" + SRT + "```\n", ["code fence dropped"]),
        (SRT + "\n4\n", ["file breaks off after a cue's number"]),
        (SRT + "\n4\n00:00:0", ["cue without text dropped"]),
        (
            SRT + "\n4\n00:00:08,000 --> 00:0",
            ["unreadable end estimated", "cue without text dropped"],
        ),
        (
            SRT + "\n4\n00:00:0x,000 --> 00:00:09,000\nпотеря\n",
            ["cue without a readable start dropped"],
        ),
        (VTT.replace("WEBVTT\n\n", "").replace("1\n00", "00"), [FORM, "no number above the times"]),
        (VTT.replace("WEBVTT\n\n", "WEBVTT - Кот\nKind: captions\n"), []),
        (VTT.replace("WEBVTT\n\n", "WEBVTT\n"), []),
        (VTT.replace("\n\n", "\n"), ["no blank line before a cue"]),
        (VTT.replace("\n2\n", "\nid-2/0-1\n"), []),
        (VTT.replace("\n2\n", "\nNOTE\nЭто заметка,\nв две строки.\n\nNOTE ещё\n\n2\n"), []),
        (VTT.replace("\n1\n", "\nSTYLE\n::cue { color: red }\n\n1\n"), []),
        (VTT.replace("\n1\n", "\nREGION\nid:a\n\n1\n"), []),
        (VTT.replace("00:00:01.", "00:01.").replace("00:00:02.", "00:02."), []),
        (VTT.replace("1\n00", "00").replace("2\n00", "00").replace("3\n00", "00"), []),
        (
            VTT.replace("00:00:0", "00:0")
            .replace("1\n00", "00")
            .replace("2\n00", "00")
            .replace("3\n00", "00"),
            [],
        ),
        (
            VTT[8:].replace("1\n00", "00").replace("2\n00", "00").replace("3\n00", "00"),
            ["no WEBVTT header"],
        ),
    ],
)
def test_structure_that_is_not_quite_right(content, kinds):
    result = read_subtitles(content)
    assert result.cues == CUES
    assert reports(result, *kinds)


def test_a_note_needs_a_blank_line_above():
    assert texts(f"WEBVTT\n\n{cue(1, 2, 'Он сказал:')}\nNOTE это важно\n\nNOTE а это нет\n") == [
        "Он сказал: NOTE это важно"
    ]


def test_a_damaged_id_cue_costs_only_itself():
    cues = [
        "00:01.000 --> 00:02.000\nраз",
        "00:0x.000 --> 00:03.000\nдва",
        "00:04.000 --> 00:05.000\nтри",
    ]
    result = read_subtitles(
        "WEBVTT\n\n" + "\n\n".join(f"а-{n}\n{block}" for n, block in enumerate(cues))
    )
    assert result.cues == [Cue(1, 2, "раз"), Cue(4, 5, "три")]
    assert reports(result, "cue without a readable start dropped")


@pytest.mark.parametrize("last", ["1998", "7", "0"])
@pytest.mark.parametrize("gap", ["\n\n", "\n"])
def test_a_number_may_be_the_last_line_of_a_text(last, gap):
    blocks = [cue(n, n + 1, f"Это было в\n{last}") for n in range(5)]
    numbered = gap.join(f"{n}\n{block}" for n, block in enumerate(blocks, 1))
    for content in (numbered, numbered + "\n", "\n\n".join(blocks), "WEBVTT\n\n" + numbered):
        assert texts(content) == [f"Это было в {last}"] * 5
    assert texts(srt(cue(1, 2, "10"), cue(2, 3, "9"), cue(3, 4, "5"))) == ["10", "9", "5"]
    assert texts(cue(1, 2, "1998") + "\n" + cue(2, 3, "1999")) == ["1998", "1999"]
    # No blank lines, and one cue without its number: a year cannot be a number of these few cues.
    years = [cue(n, n + 1, "Это было в\n1998") for n in range(5)]
    without_third = "\n".join(
        block if n == 3 else f"{n}\n{block}" for n, block in enumerate(years, 1)
    )
    assert texts(without_third) == ["Это было в 1998"] * 5


@pytest.mark.parametrize(
    "line",
    [
        "Встреча 00:00:05,000 --> 00:00:07,000 отменена",
        "00:00:05,000 --> 00:00:07,000 — так пишут время",
        "10:00 --> 12:00 обед",
        "10:00 -> 12:00",
        "10:30",
        "00:00:05",
        "счёт 3:2 --> победа",
    ],
)
def test_times_in_a_text_are_text(line):
    said = [line, f"Запомни: {line}", "да"]
    blocks = [cue(n, n + 1, text.replace(": ", ":\n", 1)) for n, text in enumerate(said)]
    assert texts(srt(*blocks)) == said
    assert texts("WEBVTT\n\n" + "\n\n".join(blocks)) == said


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a < b и c > d", "a < b и c > d"),
        ("если a <b и c> d", "если a <b и c> d"),
        ("<смеётся> Да <3", "<смеётся> Да <3"),
        (
            "<i>Да</i>, <b><u>нет</u></b> <font color=\"#fff\" size='2'>и</font> так<br/>далее",
            "Да, нет и так далее",
        ),
        ("<v Иван Петрович>Здравствуйте.</v> <v.loud Мария>Ой!", "Здравствуйте. Ой!"),
        (
            "<c.yellow.bg_blue>жёлтый</c> <lang en>yellow</lang> <ruby>字<rt>zi</rt></ruby>",
            "жёлтый yellow 字zi",
        ),
        ("Раз<00:00:01.200><c> два</c>", "Раз два"),
        ("{\\an8}{\\fad(100,200)}Сверху\\Nи снизу {в скобках}", "Сверху и снизу {в скобках}"),
        ("&quot;Да&quot; &amp; &lt;нет&gt;&nbsp;&#1081;", '"Да" & <нет> й'),
        ("R&D, AT&T", "R&D, AT&T"),
        ("невиди\u200bмый\u00a0пробел,\u2028строка\x00\x07", "невидимый пробел, строка"),
        ("[смех] ♪ ля ♪ 😂", "[смех] ♪ ля ♪ 😂"),
    ],
)
def test_tags_and_entities(written, read):
    assert texts(srt(cue(1, 2, written))) == [read]
    assert texts("WEBVTT\n\n" + cue(1, 2, written)) == [read]
    assert texts([{"text": written, "start": 1}]) == [read]


@pytest.mark.parametrize(
    ("content", "kind"), [(LIST, "json"), (WHISPER, "whisper"), (JSON3, "json3")]
)
def test_truncated_json_keeps_every_whole_entry(content, kind):
    text = json.dumps(content, ensure_ascii=False)
    result = read_subtitles(text[: text.rindex("Ёжик") + 3])
    assert [c.text for c in result.cues] == [c.text for c in CUES[:2]]
    assert result.format == kind
    assert reports(result, "damaged JSON, whole entries kept")
    middle = text.replace("потребовал", 'потре"бовал')
    assert texts(middle) == [CUES[0].text, CUES[2].text]


# What recognisers write as JSON -------------------------------------------------------------------

SAID = [(cue.text, cue.start, cue.end) for cue in CUES]
WORDS = [
    {
        "word": word,
        "start": round(a + (b - a) * n / len(text.split()), 3),
        "end": round(a + (b - a) * (n + 1) / len(text.split()), 3),
    }
    for text, a, b in SAID
    for n, word in enumerate(text.replace("«", "").replace("— ", "").replace("»", "").split())
]


def clock(seconds: float) -> str:
    return f"00:00:{seconds:06.3f}".replace(".", ",")


def ms(seconds: float) -> int:
    return round(seconds * 1000)


RECOGNISERS = {
    "whisper.cpp": {
        "model": {"type": "base", "text": {"ctx": 448}},
        "transcription": [
            {
                "timestamps": {"from": clock(a), "to": clock(b)},
                "offsets": {"from": ms(a), "to": ms(b)},
                "text": f" {text}",
                "tokens": [{"text": " К", "timestamps": {"from": clock(a), "to": clock(b)}}],
            }
            for text, a, b in SAID
        ],
    },
    "whisper.cpp, offsets": {
        "transcription": [
            {"offsets": {"from": ms(a), "to": ms(b)}, "text": text} for text, a, b in SAID
        ]
    },
    "pipeline": {
        "text": "…",
        "chunks": [{"timestamp": [a, b], "text": f" {text}"} for text, a, b in SAID],
    },
    "pipeline, two files": [
        {"text": "…", "chunks": [{"timestamp": [a, b], "text": text} for text, a, b in SAID]}
    ],
    "pipeline, speakers": {
        "speakers": [{"speaker": "A", "timestamp": [a, b], "text": text} for text, a, b in SAID],
        "chunks": [{"timestamp": [a, b], "text": text} for text, a, b in SAID],
    },
    "faster-whisper": [
        {"id": n, "seek": 0, "start": a, "end": b, "text": f" {text}", "words": WORDS[:2]}
        for n, (text, a, b) in enumerate(SAID)
    ],
    "faster-whisper, rows": [
        [n, 0, a, b, f" {text}", [50364, 7], 0.0, -0.2, 1.3, 0.01, [[a, b, " Кот", 0.9]]]
        for n, (text, a, b) in enumerate(SAID)
    ],
    "rows": [[a, b, text] for text, a, b in SAID],
    "rows, text first": {"segments": [[text, a, b] for text, a, b in SAID], "info": ["ru", 0.98]},
    "rows, pairs of clocks": [[[clock(a), clock(b)], text] for text, a, b in SAID],
    "WhisperX": {
        "segments": [
            {"start": a, "end": b, "text": text, "words": WORDS[:2]} for text, a, b in SAID
        ],
        "word_segments": WORDS,
    },
    "verbose_json": {
        "task": "transcribe",
        "duration": 7.0,
        "text": "…",
        "words": WORDS,
        "segments": [{"start": a, "end": b, "text": text} for text, a, b in SAID],
    },
    "GigaAM": [{"transcription": text, "boundaries": [a, b]} for text, a, b in SAID],
    "alternatives": {
        "results": [
            {
                "alternatives": [
                    {
                        "transcript": text,
                        "words": [{"word": "Кот", "startTime": f"{a}s", "endTime": f"{b}s"}],
                    },
                    {"transcript": "что-то совсем другое"},
                ],
                "startTime": f"{a}s",
                "endTime": f"{b}s",
            }
            for text, a, b in SAID
        ]
    },
    "milliseconds": {
        "utterances": [{"text": text, "start": ms(a), "end": ms(b)} for text, a, b in SAID]
    },
    "named milliseconds": [{"startMs": ms(a), "endMs": ms(b), "text": text} for text, a, b in SAID],
    "columns": {
        "start": {"0": 1.0, "1": 3.0, "2": 5.25},
        "end": {"0": 2.5, "1": 4.0, "2": 7.0},
        "text": {str(n): text for n, (text, _, _) in enumerate(SAID)},
    },
    "inside an answer": {"status": "ok", "output": {"0": {"segments": LIST}}},
    "capital names": {"Segments": [{"Start": a, "End": b, "Text": text} for text, a, b in SAID]},
    "_millis": [{"start_millis": ms(a), "end_millis": ms(b), "text": text} for text, a, b in SAID],
    "both clocks in one": [
        {"time": f"{clock(a)} - {clock(b)}", "text": text} for text, a, b in SAID
    ],
    "parts of seconds": {
        "results": [
            {
                "transcript": text,
                "start_time": {"seconds": str(int(a)), "nanos": round(a % 1 * 1e9)},
                "end_time": {"seconds": int(b), "nanos": round(b % 1 * 1e9)},
            }
            for text, a, b in SAID
        ]
    },
    "ISO 8601": {
        "recognizedPhrases": [
            {
                "offset": f"PT{a}S",
                "duration": f"PT0M{b - a}S",
                "nBest": [{"display": text}, {"display": "другое"}],
            }
            for text, a, b in SAID
        ]
    },
    "with punctuation, too": [
        {
            "results": [
                {"text": text.lower(), "normalized_text": text, "start": f"{a}s", "end": f"{b}s"}
            ]
        }
        for text, a, b in SAID
    ],
    "as it is spoken": [
        {
            "result": {
                "sessionUuid": {"uuid": "1"},
                "audioCursors": {"receivedDataMs": "9"},
                kind: part,
            }
        }
        for text, a, b in SAID
        for reading in [{"startTimeMs": str(ms(a)), "endTimeMs": str(ms(b)), "words": WORDS[:1]}]
        for kind, part in [
            ("partial", {"alternatives": [reading | {"text": text[:9]}]}),
            ("partial", {"alternatives": [reading | {"text": text}]}),
            ("final", {"alternatives": [reading | {"text": text.strip("?!")}]}),
            ("finalRefinement", {"normalizedText": {"alternatives": [reading | {"text": text}]}}),
        ]
    ],
    "not final": {
        "results": [
            {"isFinal": final, "transcript": text[: None if final else 9], "start": a, "end": b}
            for text, a, b in SAID
            for final in (False, True)
        ]
    },
}


@pytest.mark.parametrize("name", RECOGNISERS)
def test_what_recognisers_write_is_read_by_its_structure(name):
    result = read_subtitles(
        json.dumps(RECOGNISERS[name], ensure_ascii=False), strict=name != "milliseconds"
    )
    assert result.cues == CUES
    assert result.format == ("json" if isinstance(RECOGNISERS[name], list) else "whisper")
    assert reports(result, *["times taken for milliseconds"] * (name == "milliseconds"))


@pytest.mark.parametrize(
    "content",
    [
        {"text": "…", "segments": None, "words": WORDS},
        {"segments": [], "word_segments": WORDS},
        WORDS,
        {"result": WORDS, "text": "…"},
        {
            "segments": [
                {"text": text, "words": [w for w in WORDS if a <= w["start"] < b]}
                for text, a, b in SAID
            ]
        },
        {"chunks": [{"text": f" {w['word']}", "timestamp": [w["start"], w["end"]]} for w in WORDS]},
        {
            "words": [
                part
                for w in WORDS
                for part in (
                    {"text": w["word"], "start": w["start"], "end": w["end"]},
                    {"text": " ", "start": w["end"], "end": w["end"]},
                )
            ]
        },
        {
            "words": [
                {"text": w["word"], "start": ms(w["start"]), "end": ms(w["end"])} for w in WORDS
            ]
        },
        {
            "words": [
                {"text": w["word"], "start": w["start"], "duration": w["end"] - w["start"]}
                for w in WORDS
            ]
        },
    ],
)
def test_words_alone_become_lines(content):
    result = read_subtitles(json.dumps(content, ensure_ascii=False), strict=True)
    assert [(c.start, c.end) for c in result.cues] == [(c.start, c.end) for c in CUES[:2]] + [
        (5.25, WORDS[-1]["end"])
    ]
    assert [c.text for c in result.cues] == [*(c.text for c in CUES[:2]), "Ёжик против!"]


def test_words_without_times_and_long_talk_without_full_stops():
    words = [
        {"word": "Это", "start": 1.0, "end": 1.5},
        {"word": "2024"},
        {"word": "год", "start": 2.0, "end": None},
    ]
    assert read_subtitles(json.dumps({"words": words})).cues == [Cue(1.0, 1.5, "Это 2024 год")]
    many = [{"word": f"слово{n}", "start": n / 2, "end": n / 2 + 0.4} for n in range(100)]
    cues = read_subtitles(json.dumps({"words": many})).cues
    assert " ".join(c.text for c in cues) == " ".join(word["word"] for word in many)
    assert max(len(c.text) for c in cues) <= 84


def test_an_end_of_null_is_estimated_and_json_lines_are_no_damage():
    chunks = [
        {"timestamp": [4.0, None], "text": "Кот пришёл."},
        {"timestamp": [1.0, 2.0], "text": "Кот ушёл."},
    ]
    result = read_subtitles(json.dumps({"chunks": chunks[::-1]}), strict=True)
    assert result.cues == [Cue(1, 2, "Кот ушёл."), Cue(4, 6.1, "Кот пришёл.")]
    assert read_subtitles("\n".join(json.dumps(entry) for entry in LIST), strict=True).cues == CUES


def test_no_text_is_lost_for_a_start_of_null():
    said = [
        ([None, 2.0], "Раз."),
        ([None, None], "Два."),
        ([5.0, None], "Три."),
        ([None, None], "Четыре."),
    ]
    chunks = [{"timestamp": pair, "text": text} for pair, text in said]
    result = read_subtitles(json.dumps({"chunks": chunks}))
    assert result.cues == [
        Cue(0, 2, "Раз."),
        Cue(2, 3.4, "Два."),
        Cue(5, 6.4, "Три."),
        Cue(6.4, 8.1, "Четыре."),
    ]
    assert reports(result, "missing start, taken from the end before")
    unreadable = {"text": "А.", "start": "нет", "end": 2}
    assert read_subtitles([unreadable, *LIST]).cues == CUES


@pytest.mark.parametrize(
    "name", ["whisper.cpp", "pipeline", "faster-whisper", "faster-whisper, rows", "rows"]
)
def test_truncated_json_of_a_recogniser_keeps_every_whole_entry(name):
    text = json.dumps(RECOGNISERS[name], ensure_ascii=False, indent=1)
    result = read_subtitles(text[: text.rindex("Ёжик") + 3])
    assert [c.text for c in result.cues] == [c.text for c in CUES[:2]]
    assert reports(result, "damaged JSON, whole entries kept")


def test_other_json_is_an_error_that_names_what_is_in_it():
    with pytest.raises(
        DataError, match=r"no cue.*JSON without pieces of text that have times: 1 \(keys шутки, n"
    ):
        read_subtitles('{"шутки": ["Кот", "Пёс"], "n": 2}')


# Streams ------------------------------------------------------------------------------------------


def part(*cues: tuple[float, float, str], stamp: str = "") -> str:
    blocks = "\n\n".join(cue(*one).replace(",", ".", 2) for one in cues)
    return f"WEBVTT\n{stamp}\n\n{blocks}\n" if stamp else f"WEBVTT\n\n{blocks}\n"


@pytest.mark.parametrize("joint", ["\n", "", "\n\n\n", "\ufeff"])
def test_parts_of_a_stream_that_were_joined_say_no_header_and_no_cue_twice(joint):
    stamp = "X-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000"
    parts = [
        part((1, 2, "Раз."), (3, 4, "Два."), stamp=stamp),
        part((3, 4, "Два."), (5, 6, "Три."), stamp=stamp),
    ]
    result = read_subtitles(joint.join(parts))
    assert result.cues == [Cue(1, 2, "Раз."), Cue(3, 4, "Два."), Cue(5, 6, "Три.")]
    assert reports(
        result, "header of a joined WebVTT file dropped", "exact repeat of a cue dropped"
    )
    glued = parts[0].rstrip("\n") + parts[1]
    assert [c.text for c in read_subtitles(glued).cues] == ["Раз.", "Два.", "Три."]


def test_the_clock_of_each_part_is_moved_to_that_of_the_first():
    wrap = 2**33
    stamps = [
        f"X-TIMESTAMP-MAP=MPEGTS:{wrap - 90_000},LOCAL:00:00:00.000",
        "X-TIMESTAMP-MAP=LOCAL:00:00:01.000,MPEGTS:900000",
    ]
    result = read_subtitles(
        part((1, 2, "Раз."), stamp=stamps[0]) + "\n" + part((2, 3, "Два."), stamp=stamps[1])
    )
    assert result.cues == [Cue(1, 2, "Раз."), Cue(12, 13, "Два.")]
    assert any("by 10.000 s" in line for line in result.repairs)


def test_a_header_s_name_in_speech_is_speech():
    assert texts(f"WEBVTT\n\n{cue(1, 2, 'Этот формат зовут')}\nWEBVTT и точка\n") == [
        "Этот формат зовут WEBVTT и точка"
    ]


# YouTube's rolling captions -----------------------------------------------------------------------


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


@pytest.mark.parametrize("kept_blanks", [True, False])
@pytest.mark.parametrize("brief", [True, False])
@pytest.mark.parametrize("tags", [True, False])
def test_rolling_captions_say_each_word_once(tags, brief, kept_blanks):
    lines = spoken_lines()
    result = read_subtitles(rolling(lines, tags, brief, kept_blanks))
    assert sum(len(c.text.split()) for c in result.cues) == 1200
    assert [c.text for c in result.cues] == lines
    assert [c.start for c in result.cues] == [2.0 * n for n in range(len(lines))]
    assert reports(result, "line shown again by a rolling caption dropped")


def test_rolling_captions_with_pauses_and_repetition():
    begin = ["раз два", "три четыре", "пять"]
    times = (
        "00:00:06.000 --> 00:00:09.000",
        "00:00:09.000 --> 00:00:10.000",
        "00:00:12.000 --> 00:00:13.000",
    )
    vtt = rolling(begin, tags=True, brief=True, kept_blanks=True)
    for shown, new in [
        ("пять\n ", []),
        (" \nпять", ["пять"]),
        ("раз<00:00:06.100><c> два</c>", ["раз два"]),
    ]:
        assert texts(f"{vtt}\n\n{times[0]}\n{shown}\n") == begin + new
    assert texts(f"{vtt}\n\n{times[2]}\nпять\n") == [*begin, "пять"]
    timed = "шесть<00:00:06.100><c> семь</c>"
    assert (
        texts(f"{vtt}\n\n{times[0]}\nпять\n{timed}\n\n{times[1]}\n{timed}\n")[3:]
        == ["шесть семь"] * 2
    )
    plain = rolling(begin, tags=False, brief=False, kept_blanks=False)
    more = [
        cue(6, 8, "пять\nшесть"),
        cue(8, 9, "пять\nшесть"),
        cue(9, 10, "шесть"),
        cue(12, 13, "шесть"),
    ]
    assert texts(plain + "\n" + "\n\n".join(more)) == [*begin, "шесть", "шесть"]
    alone = [
        cue(n, n + 0.99, f"слово {n}") + "\n\n" + cue(n + 0.99, n + 1, f"слово {n}")
        for n in range(5)
    ]
    assert texts("\n\n".join(alone)) == [f"слово {n}" for n in range(5)]


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize(
    "chant",
    [
        [
            "Нет!",
            "нет нет нет",
            "Нет!",
            "Нет!",
            "Да.\nДа.",
            "Да.",
            "Да.",
            "— Кто?\n— Я.",
            "— Я.\n— Кто?",
        ]
        * 3,
        ["Да.\nДа."] * 9,
        ["Кот пришёл\nи снова ушёл"] * 9,
        ["да", "да", "да"],
        ["Кто там?", "Кто там?\nЭто я.", "Это я.\nЗаходи.", "Спасибо."],
    ],
)
def test_true_repetition_stays(chant, step):
    content = srt(*[cue(step * n, step * n + 1, line) for n, line in enumerate(chant)])
    result = read_subtitles(content, strict=True)
    assert [c.text for c in result.cues] == [line.replace("\n", " ") for line in chant]


# Writing ------------------------------------------------------------------------------------------

TEXTS = st.text("абёЯ xyz 0189 <>&;{}-:.,!?«»—", min_size=1, max_size=30).map(normalise)


@st.composite
def cue_lists(draw: st.DrawFn) -> list[Cue]:
    """Different texts, a second long at least: one word again and again, in a flash, is a rolling
    caption.

    Nor are they all of one word, which in JSON are the words of a recogniser.
    """
    seconds = sorted(draw(st.sets(st.integers(0, 400_000), min_size=2, max_size=12)))
    ms = draw(st.integers(0, 999))
    starts = [(1000 * second + ms) / 1000 for second in seconds]
    texts = draw(
        st.lists(
            TEXTS.filter(bool), min_size=len(starts) - 1, max_size=len(starts) - 1, unique=True
        )
    )
    assume(any(" " in text for text in texts))
    return [Cue(a, b, text) for (a, b), text in zip(itertools.pairwise(starts), texts, strict=True)]


@settings(max_examples=150, deadline=None)
@given(cue_lists())
def test_what_is_written_is_read_again(tmp_path_factory, cues):
    folder = tmp_path_factory.mktemp("written")
    for suffix in (".vtt", ".json", ".srt"):
        write_subtitles(cues, folder / f"a{suffix}")
        plain = [c for c in cues if suffix != ".srt" or not set("<>&") & set(c.text)]
        if cues and plain == cues:
            assert read_subtitles(folder / f"a{suffix}", strict=True).cues == cues


def test_what_looks_like_a_tag_is_escaped_in_webvtt(tmp_path):
    cues = [Cue(0, 1, "a <b> & <i>c</i> --> &lt;")]
    write_subtitles(cues, tmp_path / "a.vtt")
    assert read_subtitles(tmp_path / "a.vtt", strict=True).cues == cues


def test_other_formats_are_written_by_pysubs2(tmp_path):
    cues = [*CUES, Cue(8, 9, "{скобки} и, запятая")]
    for suffix in (".ass", ".ssa"):
        write_subtitles(cues, tmp_path / f"a{suffix}")
        result = read_subtitles(tmp_path / f"a{suffix}", strict=True)
        assert result.cues == [*CUES, Cue(8, 9, "(скобки) и, запятая")]
        assert result.format == "ass"
    write_subtitles(cues, str(tmp_path / "a.ttml"))
    assert html.escape("Ёжик") in html.unescape((tmp_path / "a.ttml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("cues", "name"),
    [
        ([Cue(1, 1, "а")], "a.srt"),
        ([Cue(-1, 1, "а")], "a.vtt"),
        ([Cue(1, 1.0001, "а")], "a.json"),
        (CUES, "a.docx"),
        (CUES, "a"),
        ([Cue(40_000, 40_001, "а")], "a.ass"),
    ],
)
def test_what_cannot_be_written_is_an_error_and_leaves_no_file(tmp_path, cues, name):
    with pytest.raises(DataError, match=r"expected 0 <= start < end|cannot be written"):
        write_subtitles(cues, tmp_path / name)
    assert not list(tmp_path.iterdir())


# Any input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted(p for p in (SAMPLE / "subtitles").iterdir() if p.suffix in (".srt", ".vtt"))
)
def test_the_sample_needs_no_repair(path):
    result = read_subtitles(path, strict=True)
    assert len(result.cues) == path.read_text(encoding="utf-8").count("-->")
    assert result.format == path.suffix[1:]


def mutate(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 10])):
        at, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        other = min(other, at + rng.choice([1, 3, 30, len(data)]))
        match rng.randrange(6):
            case 0:
                data[at:other] = b""
            case 1:
                data[at:at] = rng.choice(
                    [rng.randbytes(3), b"\n", b"-->", b":", b"-", b"9", b'"', b"{", b"<", b"\0"]
                )
            case 2:
                data[at:other] = data[at:other][::-1]
            case 3:
                data[at:at] = data[at:other]
            case 4:
                del data[rng.randrange(len(data) + 1) :]
            case _ if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def test_ten_thousand_damaged_files(tmp_path, monkeypatch):
    rng = random.Random(7)
    valid = [
        SRT,
        VTT,
        ASS,
        json.dumps(LIST),
        json.dumps(WHISPER),
        json.dumps(JSON3, ensure_ascii=False),
    ]
    valid += [rolling(spoken_lines()[:4], tags=True, brief=True, kept_blanks=True)]
    sources = [text.encode() for text in valid] + [
        SRT.encode("cp1251"),
        SRT.encode("utf-16"),
        VTT.encode("cp1251"),
    ]
    path = tmp_path / "damaged.srt"
    path.touch()
    n_read = 0
    for n in range(10_000):
        damaged = mutate(sources[n % len(sources)], rng)
        # A disk takes longer than all else.
        monkeypatch.setattr(subtitles, "opened", lambda _, content=damaged: io.BytesIO(content))
        try:
            result = read_subtitles(path)
        except DataError as error:
            assert str(error)
            continue
        n_read += 1
        assert all(
            0 <= c.start < c.end and c.text and c.text == " ".join(c.text.split())
            for c in result.cues
        )
        assert all(a.start <= b.start for a, b in itertools.pairwise(result.cues))
        assert all(isinstance(line, str) for line in result.repairs)
    assert 7000 < n_read < 10_000


def test_one_wrong_character_costs_two_cues_at_most(tmp_path):
    whole = [Cue(n, n + 1, f"Реплика номер {n}") for n in range(12)]
    rng = random.Random(3)
    for suffix in (".srt", ".vtt", ".json"):
        path = tmp_path / f"a{suffix}"
        write_subtitles(whole, path)
        content = path.read_text(encoding="utf-8")
        for _ in range(400):
            at = rng.randrange(1, len(content))
            damaged = (
                content[:at]
                + rng.choice(["", "\n", "-", "x", "5", ":", '"', "}"])
                + content[at + 1 :]
            )
            assert len(set(read_subtitles(damaged).cues) & set(whole)) >= 10, damaged

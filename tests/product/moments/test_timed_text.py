"""SubRip and WebVTT as people have them: repaired where needed, and told so."""

import pytest

from tests.product.moments.three_cues import CUES, SRT, VTT, cue, reports, srt, texts
from viralbert.moments.subtitles import Cue, read_subtitles
from viralbert_utils.base.errors import DataError

FORM = "times not in the form of srt"


def spans(source) -> list[tuple[float, float]]:
    return [(cue.start, cue.end) for cue in read_subtitles(source).cues]


# Times --------------------------------------------------------------------------------------------


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

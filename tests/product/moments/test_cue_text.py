"""Times in many forms, and a cue's text without its tags."""

import pytest

from tests.product.moments.three_cues import cue, srt, texts
from viralbert.moments.subtitles import read_subtitles


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

"""YouTube's rolling captions say each word once, and true repetition stays."""

import pytest

from tests.product.moments.three_cues import cue, reports, rolling, spoken_lines, srt, texts
from viralbert.moments.subtitles import read_subtitles


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

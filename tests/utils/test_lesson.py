import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from viralbert_utils import lesson, plots
from viralbert_utils.evaluation.intervals import Estimate
from viralbert_utils.lessons.charts import heat_maps, share_below, strong_and_weak


@pytest.fixture
def displayed(monkeypatch):
    shown: list[tuple[dict, dict]] = []
    monkeypatch.setattr(
        lesson, "display", lambda data, raw, metadata=None: shown.append((data, metadata or {}))
    )
    return shown


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.12345678, 0.123457),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (True, True),
        ("cpu", "cpu"),
        (Estimate(0.5, 0.4, 0.6), {"value": 0.5, "low": 0.4, "high": 0.6}),
        ({"a": np.float32(1), "b": {"c": 2}}, {"a": 1.0, "b": {"c": 2}}),
    ],
)
def test_record_keeps_plain_values(displayed, value, kept):
    lesson.record("name", value)
    assert displayed[0][0] == {lesson.RECORD_MIME: {"name": "name", "value": kept}}


@pytest.mark.parametrize(
    ("value", "error"),
    [(float("nan"), ValueError), (np.inf, ValueError), ([1], TypeError), (None, TypeError)],
)
def test_record_refuses_what_is_no_figure(displayed, value, error):
    with pytest.raises(error):
        lesson.record("name", value)


def said(displayed) -> str:
    """The paragraph that was shown last."""
    data = displayed[-1][0]
    assert data["text/plain"] == data["text/markdown"]
    return data["text/markdown"]


@pytest.fixture
def recorded(displayed, tmp_path):
    """What is displayed, after some values were recorded."""
    lesson.start(0, str(tmp_path))
    lesson.record("n", 41234)
    lesson.record("pcgrad.joy", 0.5)
    lesson.record("kept.TF-IDF", {"macro-F1": 0.6})
    lesson.record("m.f1", Estimate(0.4, 0.31, 0.52))
    lesson.record("of", {"joy": {"test": 0.25}, "fear": 3})
    return displayed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{n:,} texts", "41,234 texts"),
        ("{pcgrad.joy:.0%}, **{pcgrad.joy}**", "50%, **0.5**"),
        ("{m.f1}", "0.400 [0.310, 0.520]"),
        ("{m.f1:.1f}", "0.4 [0.3, 0.5]"),
        ("{m.f1:+.2f}", "+0.40 [+0.31, +0.52]"),
        ("from {m.f1.low} to {m.f1.high:.1f}", "from 0.31 to 0.5"),
        ("{kept.TF-IDF.macro-F1:.1f}", "0.6"),
        ("{of.joy.test:.2f} and {of.fear}", "0.25 and 3"),
        ('write `{n}` or `f"{missing}"`: {n}', 'write `{n}` or `f"{missing}"`: 41234'),
        (r"$\frac{n}{2}$ of {n}, $${n}$$", r"$\frac{n}{2}$ of 41234, $${n}$$"),
        ("``a `{n}` b``\n```\n{n}\n```\n{n}", "``a `{n}` b``\n```\n{n}\n```\n41234"),
        ("a set {1, 2} and {}", "a set {1, 2} and {}"),
        ("first {n}\n\n- second {n}", "first 41234\n\n- second 41234"),
    ],
)
def test_a_sentence_shows_what_was_recorded(recorded, text, expected):
    lesson.say(text)
    assert said(recorded) == expected


def test_a_sentence_records_what_it_is_given(displayed):
    lesson.say("{f1} on {n_texts} texts", f1=Estimate(0.5, 0.4, 0.6), n_texts=np.int64(7))
    assert said(displayed) == "0.500 [0.400, 0.600] on 7 texts"
    records = [data[lesson.RECORD_MIME] for data, _ in displayed if lesson.RECORD_MIME in data]
    assert records == [
        {"name": "f1", "value": {"value": 0.5, "low": 0.4, "high": 0.6}},
        {"name": "n_texts", "value": 7},
    ]
    lesson.say("Still {n_texts}.")
    assert said(displayed) == "Still 7."


@pytest.mark.parametrize("text", ["{none}", "{m.f2}", "{m.f1.median}", "{of.joy.train}", "{n.low}"])
def test_a_sentence_names_only_what_was_recorded(recorded, text):
    n_shown = len(recorded)
    with pytest.raises(
        KeyError, match=r"was not recorded before it; recorded: kept\.TF-IDF, m\.f1, n, of, pcgrad"
    ):
        lesson.say(f"So {text}.")
    assert len(recorded) == n_shown, "no half of a sentence"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{n:zz}", "'n' cannot be shown as 'zz'"),
        ("{m.f1:d}", r"'m\.f1' cannot be shown as 'd'"),
        ("{of}", "'of' has the parts joy, fear: name one of them"),
    ],
)
def test_a_sentence_says_which_value_its_format_does_not_fit(recorded, text, message):
    with pytest.raises(ValueError, match=message):
        lesson.say(text)


def test_a_start_forgets_the_values_of_the_last_one(recorded, tmp_path):
    lesson.say("{n}")
    lesson.start(0, str(tmp_path))
    with pytest.raises(KeyError, match="'n', which was not recorded"):
        lesson.say("{n}")


def test_figures_carry_alt_text_and_are_the_same_each_time(displayed):
    for _ in range(2):
        figure, (axes,) = plots.new()
        axes.plot([1, 2])
        axes.set_title("Растёт")
        lesson.show(figure, "A line that rises from one to two.")
    (first, metadata), (second, _) = displayed
    assert metadata["image/png"]["alt"] == "A line that rises from one to two."
    assert first["image/png"] == second["image/png"]
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="too short"):
        lesson.show(plots.new()[0], "a plot")


def test_tables_come_as_html_and_markdown(displayed):
    frame = pd.DataFrame(
        {"n": [1234, 5], "share": [0.5, float("nan")], "text": ["a|b", "ы" * 300]}, index=["x", "y"]
    )
    lesson.table(frame, "Caption", digits=2)
    data = displayed[0][0]
    assert "| x | 1,234 | 0.50 | a\\|b |" in data["text/markdown"]
    assert "<th>share</th>" in data["text/html"]
    assert "<style" not in data["text/html"]
    assert "ы" * 199 + "…" in data["text/plain"]


def test_a_table_shows_texts_as_they_are(displayed):
    text = (
        "<img src=x onerror=alert(1)> ![я](https://a.example/b.png) [т](javascript:1) &lt; a < b "
        "> c"
    )
    frame = pd.DataFrame({text: [text], "interval": ["0.4 [0.3, 0.5]"]})
    lesson.table(frame, f"Of {text}", index=False)
    data = displayed[0][0]
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(data["text/markdown"])
    for shown in (page, data["text/html"]):
        assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td|p|strong)\b)", shown), shown
        assert "&lt;img src=x onerror=alert(1)&gt;" in shown
        assert "&amp;lt; a &lt; b &gt; c" in shown
        assert "0.4 [0.3, 0.5]" in shown
    assert "0.4 [0.3, 0.5]" in data["text/markdown"]


def test_headline_has_what_the_first_page_shows(displayed):
    lesson.headline("x", "what", Estimate(0.5, 0.4, 0.6), "guessing: 0.1")
    assert displayed[0][0][lesson.RECORD_MIME] == {
        "name": "headline.x",
        "value": {"what": "what", "value": 0.5, "low": 0.4, "high": 0.6, "beside": "guessing: 0.1"},
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(2.117, 2.1171), ([1, 2], np.array([1, 2])), ("joy", "joy"), ({"a": 1}, {"a": 1})],
)
def test_check_accepts_the_right_answer(capsys, answer, expected):
    lesson.check("Exercise", answer, expected, "look again")
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(2.2, 2.1), ([1, 2, 3], np.array([1, 2])), ("joy", "fear"), ({"a": 1}, {"a": 2})],
)
def test_check_gives_a_hint(answer, expected):
    with pytest.raises(AssertionError, match=r"Exercise: not yet\. look again"):
        lesson.check("Exercise", answer, expected, "look again")


def test_check_waits_for_an_answer(capsys):
    lesson.check("Exercise", None, 1, "")
    assert "write your answer" in capsys.readouterr().out


def test_start_makes_the_folder_and_seeds(tmp_path):
    folder = lesson.start(3, str(tmp_path / "runs" / "x"))
    first = np.random.random()
    lesson.start(3, str(folder))
    assert np.random.random() == first
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("working", "seen"), [(".", "runs/x"), ("notebooks", "../runs/x"), ("other/deep", "runs/x")]
)
def test_the_run_folder_lies_in_the_repository(tmp_path, monkeypatch, working, seen):
    for folder in ("notebooks", "other/deep"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / working)
    folder = lesson.start(0, "runs/x")
    assert folder.as_posix() == seen, "no path of the machine"
    assert (tmp_path / working / seen).is_dir()


def test_files_are_found_from_here_and_from_the_root(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gold.json").write_text("course")
    (tmp_path / "mine.json").write_text("mine")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert lesson.find("data/gold.json").read_text() == "course"
    assert lesson.find("../mine.json").read_text() == "mine"
    assert lesson.find(str(tmp_path / "mine.json")) == tmp_path / "mine.json"
    assert not lesson.find("none.json").exists()
    monkeypatch.chdir(tmp_path)
    assert lesson.find("data/gold.json").as_posix() == "data/gold.json"
    (tmp_path / "data" / "data").mkdir()
    (tmp_path / "data" / "data" / "gold.json").write_text("nearer")
    monkeypatch.chdir(tmp_path / "data")
    assert lesson.find("data/gold.json").read_text() == "nearer"


def test_finish_records_memory(displayed):
    lesson.finish()
    assert displayed[0][0][lesson.RECORD_MIME]["name"] == "run.peak_memory_mib"
    assert 20 < displayed[0][0][lesson.RECORD_MIME]["value"] < 20_000


def test_every_shared_chart_draws_cyrillic_without_missing_glyphs(recwarn, displayed):
    plots.use_style()
    values = pd.Series([1.0, -2.0], index=["ёж · ярость", "щука"])
    charts = [
        plots.bar_chart(values, "Заголовок", "число"),
        plots.interval_chart(
            pd.DataFrame({"f": [0.5], "low": [0.4], "high": [0.6]}, index=["а"]), "т", "x", 0.3
        ),
        plots.lower_triangle(pd.DataFrame(np.eye(2), ["joy", "fear"], ["joy", "fear"]), "т", "n"),
        plots.lower_triangle(
            pd.DataFrame(np.eye(2), ["joy", "fear"], ["joy", "fear"]), "т", "n", diverging=True
        ),
        share_below({"а": np.array([4, 8, 30])}, "т", "x", 16, [4, 8, 16, 32]),
    ]
    for figure in charts:
        lesson.show(figure, "One of the charts that the lessons share.")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
    assert all(len(data["image/png"]) > 3000 for data, _ in displayed)


@pytest.fixture
def three():
    """Correlations of three emotions, and the same with one that never varies."""
    names = ["joy", "fear", "anger"]
    whole = pd.DataFrame([[1, 0.2, -0.1], [0.2, 1, 0], [-0.1, 0, 1]], names, names)
    silent = 2 * whole
    silent["anger"] = silent.loc["anger"] = np.nan
    return {"labels": whole, "decisions": silent}


def test_heat_maps_share_one_scale_centred_on_zero_and_hide_the_diagonal(three):
    plots.use_style()
    figure = heat_maps(three, "phi")
    maps = [axes.collections[0] for axes in figure.axes[:2]]
    assert [mesh.get_clim() for mesh in maps] == [(-0.4, 0.4)] * 2
    hidden = [np.ma.getmaskarray(mesh.get_array()).reshape(3, 3) for mesh in maps]
    assert (hidden[0] == np.eye(3, dtype=bool)).all()
    assert hidden[1].sum() == 7
    left = figure.axes[0]
    assert left.get_yticklabels()[0].get_text() == "joy · радость  1"
    assert left.yaxis_inverted(), "the first row is on top"
    plt.close(figure)


def test_strong_and_weak_draws_each_class_once_in_the_colour_of_its_side():
    plots.use_style()
    table = pd.DataFrame(
        {"value": [0.9, 0.5, 0.1], "low": [0.8, 0.2, 0.0], "high": [1.0, 0.8, 0.2]},
        ["joy", "fear", "anger"],
    ).assign(texts=[30, 300, 90], side=["above", "not told apart from", "below"])
    figure = strong_and_weak(table, 0.5, "F1")
    left, right = figure.axes
    of_side = {line.get_label(): line for line in left.lines}
    assert list(of_side["above the mean"].get_ydata()) == [2], "the first row is on top"
    assert list(of_side["below the mean"].get_xdata()) == [0.1]
    drawn = [line.get_xdata() for line in right.lines if line.get_marker() != "None"]
    assert sorted(np.concatenate(drawn)) == [30, 90, 300]
    plt.close(figure)

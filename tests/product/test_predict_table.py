"""`viralbert predict --table` with a hybrid, its export, and a cascade."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import tiny
from tests.product.two_words import rows as json_rows
from viralbert import table_answers
from viralbert.cli import main
from viralbert.serving.export import export
from viralbert_utils.base.errors import DataError
from viralbert_utils.lessons import cascade, hybrid
from viralbert_utils.lessons.columns import prepare
from viralbert_utils.training.settings import Settings

FORMS = ("hybrid", "onnx", "cascade")


def make_table(n: int = 90, seed: int = 0) -> pd.DataFrame:
    """Half of the titles name the project's hero; the others only have their length."""
    rng = np.random.default_rng(seed)
    label = rng.choice(["Ветер", "Гром"], n)
    heroes = np.where(label == "Ветер", "лапочкин", "хвостов")
    words = rng.choice(["новая", "серия", "утром", "зима", "лето", "дома"], (n, 3))
    named = rng.random(n) < 0.5
    return pd.DataFrame(
        {
            "title": [
                " ".join([*own, hero if name else "а"])
                for own, hero, name in zip(words, heroes, named, strict=True)
            ],
            "views": np.where(label == "Ветер", 100, 250) + rng.integers(0, 300, n),
            "channel": rng.choice(["свой", "чужой"], n),
            "label": label,
        }
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A hybrid, what was exported of it, and a cascade that ends in it."""
    folder = tmp_path_factory.mktemp("models")
    table = make_table()
    prepared = prepare(table, ["title"], ["views"], ["channel"], n_bins=4)
    quick = Settings(epochs=3, batch_size=16, learning_rate=1e-2)
    last, _ = hybrid.train(table, "label", prepared, tiny.tokenizer(), tiny.bert(), quick, 16)
    last.save(folder / "hybrid")
    cascade.fit(table, "label", prepared, last, (0.97, 0.8)).save(folder / "cascade")
    export(folder / "hybrid", folder / "onnx")
    return folder


def ask(capsys, table: Path, model: Path, *more: str) -> tuple[list[dict], str]:
    assert main(["predict", "--table", str(table), "--model", str(model), *more]) == 0
    said = capsys.readouterr()
    return json_rows(said.out), said.err


@pytest.fixture
def write(tmp_path):
    def as_csv(table: pd.DataFrame, **options) -> Path:
        table.to_csv(tmp_path / "videos.csv", index=False, **options)
        return tmp_path / "videos.csv"

    return as_csv


@pytest.mark.parametrize("form", FORMS)
def test_every_row_gets_a_line_and_labels_bring_figures(folders, write, capsys, form):
    table = make_table(40, seed=1)
    lines, told = ask(capsys, write(table), folders / form)
    assert [line["row"] for line in lines] == list(range(40))
    assert [line["title"] for line in lines] == table["title"].tolist()
    right = np.mean([line["answer"] == line["label"] for line in lines])
    assert f"40 rows with a known class: accuracy {right:.3f}, macro-F1 " in told
    without, silence = ask(capsys, write(table.drop(columns="label")), folders / form)
    assert [line["answer"] for line in without] == [line["answer"] for line in lines]
    assert silence == "" and "label" not in without[0]


def test_the_manual_shows_answers_of_a_cascade(folders, capsys, monkeypatch, tmp_path, manual):
    monkeypatch.chdir(tmp_path)
    make_table(60, seed=2).to_csv("videos.csv", index=False)
    assert main(["predict", "--table", "videos.csv", "--model", str(folders / "cascade")]) == 0
    lines = capsys.readouterr().out.splitlines()
    of_stage = {json.loads(line)["stage"]: line for line in reversed(lines)}
    manual("predict.md", "\n".join(of_stage[stage] for stage in cascade.STAGES))


def test_the_manual_shows_figures_of_a_table(folders, capsys, monkeypatch, tmp_path, manual):
    monkeypatch.chdir(tmp_path)
    make_table(60, seed=2).to_csv("videos.csv", index=False)
    assert main(["predict", "--table", "videos.csv", "--model", str(folders / "cascade")]) == 0
    manual("predict.md", capsys.readouterr().err)


@pytest.mark.parametrize("form", FORMS)
def test_an_old_excel_is_read_and_the_class_in_any_case(folders, write, capsys, form):
    table = make_table(10, seed=1)
    lines, told = ask(capsys, write(table), folders / form)
    excel = write(table.rename(columns={"label": "Label"}), sep=";", encoding="cp1251")
    assert ask(capsys, excel, folders / form) == (lines, told)


def test_a_cascade_says_which_stage_and_why(folders, write, capsys):
    lines, told = ask(capsys, write(make_table(60, seed=2)), folders / "cascade")
    assert {line["stage"] for line in lines} == set(cascade.STAGES)
    assert all(line["reason"] for line in lines)
    expected = cascade.Cascade.load(folders / "cascade").decide(make_table(60, seed=2))
    assert [line["answer"] for line in lines] == expected["answer"].tolist()
    assert all(f"  {stage}: " in told for stage in cascade.STAGES)


def test_a_hybrid_and_its_export_say_the_same(folders, write, capsys):
    path = write(make_table(20, seed=3).drop(columns="label"))
    ours, theirs = (ask(capsys, path, folders / form)[0] for form in ("hybrid", "onnx"))
    assert [line["answer"] for line in ours] == [line["answer"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=2e-4)
        assert one["certainty"] == max(one["probabilities"].values())


@pytest.mark.parametrize("form", FORMS)
def test_gaps_are_counted_and_the_rows_are_answered(folders, write, capsys, form):
    table = make_table(10, seed=4).astype(object)
    table.loc[:3, "channel"] = ["новый", "дальний", "третий", "пятый"]
    table.loc[4, "channel"] = None
    table.loc[:1, "views"] = ["много", "inf"]
    table.loc[2, "label"] = "Снег"
    table.loc[3, "label"] = None
    lines, told = ask(capsys, write(table), folders / form)
    assert len(lines) == 10
    for note in (
        "channel: 4 rows with a value that the model has not learnt from (новый, дальний, третий, "
        "…)",
        "views: 2 rows with no number, taken as missing (много, inf)",
        "label: 1 row of a class that the model does not know (Снег), left out of the figures",
        "8 rows with a known class: accuracy",
    ):
        assert note in told
    less = table.drop(columns=["views", "channel"])
    lines, told = ask(capsys, write(less), folders / form)
    assert len(lines) == 10
    for name in ("views", "channel"):
        assert f"no column '{name}': taken as empty in 10 rows" in told


def test_a_missing_column_is_an_empty_one(folders, write, capsys):
    table = make_table(10, seed=5).drop(columns="label")
    empty, _ = ask(capsys, write(table.assign(views="")), folders / "cascade")
    gone, _ = ask(capsys, write(table.drop(columns="views")), folders / "cascade")
    assert gone == empty


def test_a_table_of_a_russian_spreadsheet_is_read(folders, write, capsys):
    table = make_table(10, seed=6)
    plain, _ = ask(capsys, write(table), folders / "hybrid")
    renamed = table.rename(columns={"title": " Title", "views": "VIEWS"})
    path = write(renamed, sep=";", encoding="utf-8-sig")
    assert ask(capsys, path, folders / "hybrid")[0] == plain
    own = write(table.rename(columns={"label": "project"}))
    lines, told = ask(capsys, own, folders / "hybrid", "--label", "project")
    assert [line["project"] for line in lines] == table["label"].tolist()
    assert "10 rows with a known class" in told


def test_what_cannot_be_answered_says_why(folders, write, capsys, tmp_path):
    path = str(write(make_table(5)))
    other = tmp_path / "other.csv"
    other.write_text("name,views\nа,1\n", encoding="utf-8")
    model = ["--model", str(folders / "hybrid")]
    cases = [
        (["--table", path], "--table needs --model"),
        (["--table", path, "Кот", *model], "found texts and --table; give one"),
        (
            ["--table", str(other), *model],
            "reads as text: expected one of title, found name, views; rename",
        ),
        (
            ["--table", path, *model, "--label", "project"],
            ": give --label the name of a column that is there",
        ),
        (["--table", path, "--model", str(tmp_path)], "no saved hybrid and no cascade; lesson 07"),
        (["Кот", "--model", str(folders / "cascade")], "predict --table videos.csv"),
        (["Кот", "--model", str(folders / "hybrid")], "predict --table videos.csv"),
        (["Кот", "--model", str(folders / "onnx")], "predict --table videos.csv"),
    ]
    for arguments, message in cases:
        assert main(["predict", *arguments]) == 1
        said = capsys.readouterr()
        assert message in said.err and said.out == "", arguments
    with pytest.raises(DataError, match=r"only a network is exported: give .*hybrid"):
        export(folders / "cascade", tmp_path / "new")
    with pytest.raises(DataError, match="computes on the CPU; found device mps"):
        table_answers.load(folders / "onnx", "mps")


def test_an_export_that_says_nonsense_is_refused(folders, tmp_path, monkeypatch):
    model = table_answers.OnnxModel.load(folders / "onnx")
    about = json.loads(json.dumps(model.about))
    about["settings"]["preparation"]["texts"] = 5
    wrong = table_answers.OnnxModel(model.session, model.tokenizer, about)
    monkeypatch.setattr(table_answers.OnnxModel, "load", lambda path: wrong)
    with pytest.raises(DataError, match=r"is damaged .* export the hybrid again"):
        table_answers.load(folders / "onnx")

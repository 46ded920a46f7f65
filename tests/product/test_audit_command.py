"""`viralbert audit`: suspects out, corrections back in, as a Russian Excel leaves them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.product.serving.small_models import thresholds
from viralbert import audit
from viralbert.cli import main
from viralbert.serving import predictor
from viralbert.serving.predictor import Prediction, Task
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import write_whole
from viralbert_utils.data.emotions import CEDR_CLASSES, EMOTIONS
from viralbert_utils.data.tables import read_table

WORDS = {"радость": "joy", "страх": "fear", "злость": "anger", "грусть": "sadness"}
TASKS = {
    "emotions": Task(EMOTIONS, thresholds(EMOTIONS, 0.5)),
    "virality": Task(("viral",), thresholds(["viral"], 0.5)),
    "cedr": Task(CEDR_CLASSES, thresholds(CEDR_CLASSES, 0.5)),
    "reviews": Task(("bad", "neutral", "good"), None),
}


class Reader:
    """A model that believes every word it knows."""

    tasks = TASKS

    def predict_iter(self, texts):
        for text in texts:
            said = {name for word, name in WORDS.items() if word in text.casefold()}
            answers = {
                task: {name: 0.9 if name in said else 0.05 for name in TASKS[task].names}
                for task in ("emotions", "cedr", "reviews")
            }
            values = {
                task: predictor.Labels((), probabilities) for task, probabilities in answers.items()
            }
            viral = predictor.Labels((), {"viral": 0.9 if "кот" in text.casefold() else 0.1})
            yield Prediction.of(values | {"virality": viral})


@pytest.fixture
def reader(monkeypatch) -> list[str]:
    asked: list[str] = []
    monkeypatch.setattr(
        predictor.Predictor, "load", lambda folder, *options: asked.append(folder) or Reader()
    )
    return asked


@pytest.fixture
def call(reader, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> str:
        assert main(["audit", *line.split(), "--model", "mine"]) == 0
        assert reader.pop() == "mine"
        return capsys.readouterr().out

    return run


@pytest.fixture
def refusal(reader, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> str:
        assert main(["audit", *line.split(), "--model", "mine"]) == 1
        return capsys.readouterr().err

    return run


TEXTS = ["Какая радость!", "Страх и ужас", "Одна грусть 😢 café", "Снова злость", "Дождь"]
GOOD = ["joy", "fear", "sadness", "anger", "neutral"]


def table(path, labels, **columns) -> None:
    pd.DataFrame({"text": TEXTS, "labels": labels, **columns}).to_csv(path, index=False)


def test_the_wrong_label_comes_first_and_its_correction_returns(call, tmp_path):
    table("labels.csv", ["joy", "fear", "joy", "anger", "neutral"], note=list("абвгд"))
    said = call("--file labels.csv --output suspects.csv --count 3")
    sheet = read_table(tmp_path / "suspects.csv")
    assert sheet["id"][0] == "2"  # the number of the row, below the header
    assert (sheet["given"][0], sheet["likely"][0], len(sheet)) == ("joy", "sadness", 3)
    assert said.startswith("suspects.csv: 3 of 5 rows, most suspicious first; judged by the model")
    assert "use --folds" in said

    sheet["corrected"] = ["Грусть; злость", sheet["given"][1], ""]
    sheet.to_csv("suspects.csv", index=False)
    said = call("--file labels.csv --corrections suspects.csv --output right.csv")
    assert said == ("right.csv: 5 rows; of the sheet, 1 changed, 1 confirmed, 1 not looked at\n")
    right = read_table(tmp_path / "right.csv")
    assert list(right["labels"]) == ["joy", "fear", "anger, sadness", "anger", "neutral"]
    assert list(right["note"]) == list("абвгд")
    assert list(right.columns) == ["text", "labels", "note"]


@pytest.mark.parametrize("encoding", ["cp1251", "utf-8-sig", "utf-16"])
def test_a_russian_excel_may_save_both_files(call, tmp_path, encoding):
    """Columns apart by semicolons, names in Russian and in any case; emoji are lost in CP1251."""
    lines = [f"{text};{label}" for text, label in zip(
        TEXTS, ["Радость", "СТРАХ", "радость", "Злость", "Без эмоций"], strict=True
    )]  # fmt: skip
    content = "\r\n".join(["Text;Labels", *lines, ""])
    write_whole(tmp_path / "labels.csv", content.encode(encoding, "replace"))
    said = call("--file labels.csv --output suspects.csv --semicolons")
    assert said.endswith("--corrections suspects.csv --output corrected.csv --semicolons\n")
    raw = (tmp_path / "suspects.csv").read_bytes().decode("utf-8")
    assert raw.startswith('\ufeff"id";"text";"given"')
    sheet = read_table(tmp_path / "suspects.csv")
    sheet.loc[0, "corrected"] = "ГРУСТЬ"
    saved = sheet.to_csv(index=False, sep=";", lineterminator="\r\n")
    write_whole(tmp_path / "suspects.csv", saved.encode(encoding, "replace"))
    call("--file labels.csv --corrections suspects.csv -o right.csv --semicolons")
    assert (tmp_path / "right.csv").read_bytes().startswith("\ufeffText;Labels\r\n".encode())
    right = read_table(tmp_path / "right.csv")
    assert list(right["Labels"]) == ["Радость", "СТРАХ", "грусть", "Злость", "Без эмоций"]


def test_a_sheet_in_cp1251_belongs_to_a_table_in_utf8_that_has_more_letters(
    call, refusal, tmp_path
):
    table("labels.csv", ["[17]", "[14]", "[17]", "[2]", "[27]"])
    call("--file labels.csv --output suspects.csv")
    saved = (
        read_table(tmp_path / "suspects.csv").assign(corrected="[]").to_csv(index=False, sep=";")
    )
    write_whole(tmp_path / "suspects.csv", saved.encode("cp1251", "replace"))
    assert "5 changed" in call("--file labels.csv --corrections suspects.csv -o right.csv")
    assert set(read_table(tmp_path / "right.csv")["labels"]) == {"[]"}
    other = re.sub("Одна", "Две", saved)
    write_whole(tmp_path / "suspects.csv", other.encode("cp1251", "replace"))
    said = refusal("--file labels.csv --corrections suspects.csv --output no.csv")
    assert "the text is not that of id '2'" in said
    assert not (tmp_path / "no.csv").exists()


@pytest.mark.parametrize(
    ("task", "given", "wrong", "right"),
    [
        ("virality", ["1", "0", "0", "0", "0"], 0, "0"),
        ("cedr", ["[0]", "[3]", "[4]", "[4]", "[]"], 2, "[1]"),
        ("cedr", ["joy", "fear", "anger", "anger", "no_emotion"], 2, "sadness"),
    ],
)
def test_other_tasks_have_labels_of_their_own(call, tmp_path, task, given, wrong, right):
    table("labels.csv", given, id=list("abcde"))
    call(f"--file labels.csv --output suspects.csv --dataset {task} --count 1")
    sheet = read_table(tmp_path / "suspects.csv")
    assert list(sheet["id"]) == ["abcde"[wrong]]
    sheet["corrected"] = sheet["likely"]
    sheet.to_csv("suspects.csv", index=False)
    call(f"--file labels.csv --corrections suspects.csv --output right.csv --dataset {task}")
    expected = [right if row == wrong else field for row, field in enumerate(given)]
    assert list(read_table(tmp_path / "right.csv")["labels"]) == expected


def test_no_label_in_cedr_is_its_sixth_class(call, tmp_path):
    table("labels.csv", ["[0]", "[3]", "[1]", "[4]", "[]"])
    call("--file labels.csv --output suspects.csv --dataset cedr")
    given = read_table(tmp_path / "suspects.csv").set_index("id")["given"]
    assert given["4"] == "no_emotion"


def test_folds_find_what_a_model_has_learnt_by_heart(encoder, monkeypatch):
    """A model that repeats the labels it was trained on finds its own errors last."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 160)
    fillers = ["сегодня", "опять", "вечером", "дома", "в лесу", "зимой"]
    texts = [
        f"{list(WORDS)[k]} {fillers[rng.integers(6)]} {fillers[rng.integers(6)]}" for k in kinds
    ]
    wrong = rng.permutation(160)[:12]
    given = [list(WORDS.values())[(k + (row in wrong)) % 4] for row, k in enumerate(kinds)]
    labels = [[EMOTIONS.index(name)] for name in given]
    data = audit.Labelled(
        pd.DataFrame({"text": texts, "labels": given}),
        pd.DataFrame({"id": range(160), "text": texts, "labels": labels}),
        "labels",
        audit.LabelSet("emotions", EMOTIONS),
    )

    class Parrot:
        def predict_iter(self, texts):
            for label in given:
                yield Prediction(probabilities={n: 0.9 if n == label else 0.05 for n in EMOTIONS})

    def n_found(probabilities: np.ndarray) -> int:
        score = audit.label_errors.margin(data.hot, probabilities)
        return len(set(np.argsort(-score, kind="stable")[:12]) & set(wrong))

    sizes = []
    history = audit.linear_head.head_history
    monkeypatch.setattr(
        audit.linear_head,
        "head_history",
        lambda seen, labels, others, **options: (
            sizes.append((len(seen), len(others))) or history(seen, labels, others, **options)
        ),
    )
    assert n_found(audit.by_model(data, Parrot())) <= 4
    assert n_found(audit.by_folds(data, 4, encoder)) >= 10
    assert sizes == [(120, 40)] * 4


def test_folds_from_the_command_line(call, encoder, tmp_path):
    rows = [(f"{word} {k}", name) for k in range(15) for word, name in WORDS.items()]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv("labels.csv", index=False)
    said = call(f"--file labels.csv -o suspects.csv --folds 3 --encoder {encoder} --device cpu")
    assert "suspects.csv: 60 of 60 rows" in said
    assert "judged by 3 pairs of judges" in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--dataset moods", "emotions, virality, cedr, reviews, found 'moods'"),
        ("--column ru_text", "found text, labels, id: name the column of the texts with"),
        ("--dataset reviews", "row 2 (the header is row 1): labels='joy': 'joy' is neither"),
        ("--folds 1", "--folds: expected at least 2, found 1"),
        ("--count 0", "--count: expected at least 1, found 0"),
        ("--encoder embedded", "give --folds 5, too"),
        ("--folds 5", "folds need at least 50 rows to learn from, found 5"),
        ("--corrections suspects.csv --count 3", "--count finds suspects"),
        ("--corrections labels.csv", "no column 'corrected'; found text, labels, id"),
        ("--file none.csv", "no such file: none.csv"),
        ("--output labels.csv", "labels.csv is read here"),
        ("--output old.csv", "old.csv is there already"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(refusal, tmp_path, line, message):
    table("labels.csv", GOOD, id=list("abcde"))
    write_whole(tmp_path / "old.csv", "old")
    assert message in refusal(f"--file labels.csv --output out.csv {line}")
    assert not (tmp_path / "out.csv").exists()
    assert (tmp_path / "old.csv").read_text() == "old"


def test_ids_that_stand_twice_and_several_labels_of_one_are_refused(tmp_path):
    path = tmp_path / "labels.csv"
    table(path, GOOD, id=list("aabcd"))
    with pytest.raises(DataError, match=r"row 3 \(the header is row 1\): id 'a' stands twice"):
        audit.Labelled.read(path, audit.LabelSet.of(TASKS))
    table(path, ["bad", "good", "bad, good", "bad", "bad"])
    with pytest.raises(DataError, match=r"row 4 \(.*exactly one label.*found 2"):
        audit.Labelled.read(path, audit.LabelSet.of(TASKS, "reviews"))
    table(path, ["0", "1", "0", "0", "2"])
    with pytest.raises(DataError, match=r"row 6 \(.*\): labels='2': label id 2 is outside 0\.\.1"):
        audit.Labelled.read(path, audit.LabelSet.of(TASKS, "virality"))


def test_several_corrections_where_each_text_has_one_are_refused(refusal, call, tmp_path):
    table("labels.csv", ["1", "0", "0", "0", "0"])
    call("--file labels.csv --output suspects.csv --dataset virality")
    sheet = read_table(tmp_path / "suspects.csv").assign(corrected="[]")
    sheet.to_csv("suspects.csv", index=False)
    said = refusal("--file labels.csv --corrections suspects.csv -o out.csv --dataset virality")
    assert "exactly one label" in said


def test_the_manual_shows_how_suspects_are_found(call, manual):
    table("labels.csv", GOOD)
    said = call("--file labels.csv --output suspects.csv --count 3")
    manual("audit.md", said.replace(" --model mine", ""))


def test_the_manual_shows_how_corrections_come_back(call, manual):
    table("labels.csv", GOOD)
    call("--file labels.csv --output suspects.csv --count 3")
    manual("audit.md", call("--file labels.csv --corrections suspects.csv --output corrected.csv"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--file none.csv", "no such file: none.csv"),
        ("--file empty.csv", "empty.csv is empty (0 bytes)"),
        ("--file labels.csv --column ru_text", "no column 'ru_text'"),
        ("--file labels.csv --corrections none.csv", "no such file: none.csv"),
        ("--file labels.csv --corrections labels.csv", "labels.csv: no column 'id', 'corrected'"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_files_are_read_before_a_model_is_loaded(capsys, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    table("labels.csv", GOOD)
    assert main(["audit", *line.split(), "--output", "out.csv"]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_corrected_rows_differ(call, tmp_path, end):
    lines = [f"{text},{label}" for text, label in zip(TEXTS, GOOD, strict=True)]
    lines[1] = '"Страх, и ""ужас""",fear'
    content = end.join(["text,labels", *lines, ""])
    write_whole(tmp_path / "labels.csv", content.encode())
    call("--file labels.csv --output suspects.csv")
    sheet = read_table(tmp_path / "suspects.csv")
    sheet["corrected"] = ["anger" if name == "4" else "" for name in sheet["id"]]
    sheet.to_csv("suspects.csv", index=False)
    call("--file labels.csv --corrections suspects.csv --output right.csv")
    right = (tmp_path / "right.csv").read_bytes().decode()
    assert right == content.replace("Дождь,neutral", "Дождь,anger")


def test_a_carriage_return_in_a_text_survives(call, tmp_path):
    write_whole(
        tmp_path / "labels.csv", 'text,labels\n"Какая\rрадость",joy\nДождь,neutral\n'.encode()
    )
    call("--file labels.csv --output suspects.csv")
    call("--file labels.csv --corrections suspects.csv --output right.csv")
    assert list(read_table(tmp_path / "right.csv")["text"]) == ["Какая\rрадость", "Дождь"]


def test_rows_of_a_sheet_are_counted_as_a_spreadsheet_does(call, refusal):
    table("labels.csv", GOOD)
    call("--file labels.csv --output suspects.csv")
    sheet = read_table(Path("suspects.csv"))
    double = pd.concat(
        [sheet.head(1).assign(corrected="joy"), sheet.head(1).assign(corrected="fear")]
    )
    for wrong, message in (
        (sheet.assign(corrected=["joy", "", "moods", "", ""]), "row 4 (the header is row 1): corr"),
        (double, "row 3 (the header is row 1): id"),
        (double, "otherwise in row 2 (the header is row 1); keep one of them"),
    ):
        wrong.to_csv("suspects.csv", index=False)
        assert message in refusal("--file labels.csv --corrections suspects.csv --output out.csv")

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from viralbert_utils.base.errors import DataError
from viralbert_utils.encoders import loading
from viralbert_utils.evaluation.baselines import one_vs_rest
from viralbert_utils.lessons import label_errors, linear_head, suspects
from viralbert_utils.lessons.label_errors import KINDS, FitPredict, Planted

NAMES = ("joy", "fear", "anger", "neutral")
NEIGHBOURS = [(1, 2)]


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray]:
    """Vectors that tell four classes fairly well, of which the last means nothing else; some rows
    have two."""
    rng = np.random.default_rng(5)
    first = rng.choice(4, 900, p=[0.3, 0.15, 0.05, 0.5])
    labels = np.eye(4, dtype=np.int8)[first]
    second = (first < 3) & (rng.random(900) < 0.15)
    labels[second, (first[second] + 1) % 3] = 1
    vectors = labels @ rng.normal(0, 1.2, (4, 8)) + rng.normal(0, 0.8, (900, 8))
    return vectors, labels


@pytest.fixture(scope="module")
def audited(world) -> tuple[Planted, np.ndarray]:
    vectors, labels = world
    planted = label_errors.plant(labels, 0.1, neighbours=NEIGHBOURS, nothing=3)
    return planted, linear_head.out_of_fold(logistic(vectors, planted.labels), planted.labels)


def logistic(vectors: np.ndarray, labels: np.ndarray) -> FitPredict:
    return lambda train, test: (
        one_vs_rest().fit(vectors[train], labels[train]).predict_proba(vectors[test])
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(0.01, 0.2),
    kinds=st.sets(st.sampled_from(KINDS), min_size=1),
)
def test_exactly_the_share_is_touched_and_each_kind_is_what_it_says(world, seed, share, kinds):
    labels = world[1]
    before = labels.copy()
    planted = label_errors.plant(labels, share, sorted(kinds), NEIGHBOURS, nothing=3, seed=seed)
    assert (labels == before).all()
    assert planted.rows.sum() == round(share * len(labels))
    assert ((planted.kinds != "") == planted.rows).all()
    assert (planted.labels.sum(axis=1) > 0).all()
    assert (planted.labels[:, 3] * planted.labels[:, :3].sum(axis=1) == 0).all()
    for row in np.flatnonzero(planted.rows):
        gone = np.flatnonzero(labels[row] > planted.labels[row])
        come = np.flatnonzero(labels[row] < planted.labels[row])
        assert len(gone) == 1
        if planted.kinds[row] == "missing":
            assert list(come) == ([3] if labels[row].sum() == 1 else [])
        else:
            assert len(come) == 1
        if planted.kinds[row] == "swap":
            assert {gone[0], come[0]} == {1, 2}
    again = label_errors.plant(labels, share, sorted(kinds), NEIGHBOURS, nothing=3, seed=seed)
    assert (again.labels == planted.labels).all()


def test_planting_says_what_it_cannot(world):
    with pytest.raises(DataError, match=r"'swap'.*plant fewer"):
        label_errors.plant(world[1], 0.5, ["swap"], NEIGHBOURS)
    with pytest.raises(DataError, match="'typo'; use flip, missing, swap"):
        label_errors.plant(world[1], 0.1, ["typo"])


def test_no_row_is_judged_by_a_model_that_saw_it():
    labels = np.eye(3, dtype=np.int8)[np.repeat([0, 1, 2], [40, 15, 5])]
    seen = []

    def fit_predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        assert not set(train) & set(test)
        assert len(train) + len(test) == len(labels)
        assert labels[test].sum(axis=0)[2] == 1  # the rare class stands in every fold
        seen.extend(test)
        return np.tile(test[:, None], 3)

    found = linear_head.out_of_fold(fit_predict, labels)
    assert sorted(seen) == list(range(60))
    assert (found[:, 0] == np.arange(60)).all()


def test_confident_learning_gives_cleanlabs_numbers(audited):
    count = pytest.importorskip("cleanlab.count")
    rank = pytest.importorskip("cleanlab.multilabel_classification.rank")
    planted, p = audited
    lists = [list(np.flatnonzero(row)) for row in planted.labels]
    for k, expected in enumerate(count.get_confident_thresholds(lists, p, multi_label=True)):
        assert label_errors.confident_thresholds(planted.labels, p)[k] == pytest.approx(expected)
    # cleanlab rounds its counts to whole texts.
    expected = count.estimate_joint(lists, p, multi_label=True)
    assert label_errors.confident_joint(planted.labels, p) == pytest.approx(
        expected, abs=1.01 / len(p)
    )
    _, issues = count.compute_confident_joint(
        lists, p, multi_label=True, return_indices_of_off_diagonals=True
    )
    sure = label_errors.sure_answers(planted.labels, p)
    for k, rows in enumerate(issues):
        assert list(
            np.flatnonzero((sure[:, k] >= 0) & (sure[:, k] != planted.labels[:, k]))
        ) == list(rows)
    quality = rank.get_label_quality_scores_per_class(lists, p, adjust_pred_probs=False)
    assert label_errors.self_confidence(planted.labels, p) == pytest.approx(np.asarray(quality))


def test_the_joint_adds_up_to_what_was_given(audited):
    planted, p = audited
    joint = label_errors.confident_joint(planted.labels, p)
    assert joint.sum(axis=(1, 2)) == pytest.approx(1)
    assert joint.sum(axis=2)[:, 1] == pytest.approx(planted.labels.mean(axis=0))


def test_suspicion_finds_the_planted_rows(audited):
    planted, p = audited
    table = label_errors.compare_rankings(
        planted.rows,
        {
            "chance": np.random.default_rng(0).random(len(p)),
            "loss": label_errors.loss(planted.labels, p),
            "confident": label_errors.confident_suspicion(planted.labels, p),
            "margin": label_errors.margin(planted.labels, p),
        },
        "chance",
        k=50,
    )
    assert table.loc["chance", "low"] < planted.rows.mean() < table.loc["chance", "high"]
    assert (table.drop("chance")["times chance"] > 3).all()
    assert table.loc["margin", "gain low"] > 0.2
    assert table.loc["margin", "precision at k"] > 0.6


def test_margin_by_hand():
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    p = np.array([[0.8, 0.2, 0.2], [0.8, 0.2, 0.2], [0.8, 0.2, 0.5], [0.2, 0.2, 0.2]])
    step = np.log(4)
    assert label_errors.margin(labels, p, adjust=0) == pytest.approx(
        [-2 * step, 2 * step, step, -step]
    )
    rates = (labels.sum(axis=0) + 1) / 6
    apart = np.log(rates / (1 - rates))
    assert label_errors.margin(labels, p, 1)[1] == pytest.approx(2 * step - apart[0] + apart[1])


def test_forgetting_by_hand():
    labels = np.eye(2, dtype=int)[[0, 0, 0, 0]]
    right = np.array(
        [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 1], [1, 0, 1, 0]]
    )  # a row an epoch, a column a text
    p = np.stack([np.where(right, 0.9, 0.1), np.where(right, 0.1, 0.9)], axis=-1)
    assert list(label_errors.forgetting(labels, p)) == [0, 2, 1, 1]
    never = np.broadcast_to([0.1, 0.9], (4, 4, 2))
    assert list(label_errors.forgetting(labels, never)) == [4] * 4
    assert label_errors.mean_margin(labels, never) == pytest.approx(
        label_errors.margin(labels, never[0])
    )


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40),
    k=st.integers(1, 50),
)
def test_ranking_metrics_with_ties(rows, k):
    wrong, score = np.array(rows).T.astype(int)
    wrong[0], wrong[1] = 0, 1
    assert label_errors.average_precision(wrong, score) == pytest.approx(
        average_precision_score(wrong, score)
    )
    rng = np.random.default_rng(0)
    orders = [np.lexsort((rng.random(len(score)), -score))[:k] for _ in range(400)]
    assert label_errors.precision_at(k, wrong, score) == pytest.approx(
        np.mean([wrong[o].mean() for o in orders]), abs=0.12
    )


def test_intervals_of_a_ranking_are_paired(audited):
    planted, p = audited
    score = label_errors.margin(planted.labels, p)
    table = label_errors.compare_rankings(planted.rows, {"a": score, "b": score**3}, "a")
    assert list(table.loc["b", ["gain", "gain low", "gain high"]]) == [0, 0, 0]
    with pytest.raises(DataError, match="0 of 900 rows are wrong"):
        label_errors.compare_rankings(np.zeros(900), {"a": score}, "a")


def test_combined_is_the_mean_rank():
    assert label_errors.combined(np.array([3.0, 1, 2]), np.array([10.0, 10, 30])) == pytest.approx(
        [0.75, 0.4167, 0.8333], abs=1e-3
    )


TEXTS = ["Ура, едем!", "= и всё, конец", "- Страшно?\n- Очень", "Поезд в семь"]
TABLE = pd.DataFrame(
    {"id": ["a", "b", "c", "d"], "text": TEXTS, "labels": [[0], [2], [2], [3]]}, index=[7, 8, 9, 10]
)


@pytest.fixture
def sheet(tmp_path) -> tuple[Path, pd.DataFrame]:
    labels = np.eye(4, dtype=np.int8)[[0, 2, 2, 3]]
    p = np.array(
        [[0.9, 0.1, 0.1, 0.1], [0.1, 0.1, 0.8, 0.2], [0.1, 0.9, 0.05, 0.1], [0.1, 0.1, 0.1, 0.8]]
    )
    found = suspects.suspects(TABLE, labels, p, label_errors.margin(labels, p), NAMES)
    path = tmp_path / "sheet.csv"
    suspects.write_sheet(found, path)
    return path, found


def fill(path: Path, **corrected: str) -> None:
    """What a human with a spreadsheet does."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["corrected"] = table["id"].map(corrected).fillna("")
    table.to_csv(path, index=False)


def test_suspects_say_why(sheet):
    worst = sheet[1].iloc[0]
    assert (worst["id"], worst["given"], worst["likely"], worst["doubtful"]) == (
        "c",
        "anger",
        "fear",
        "anger",
    )
    assert "anger given, probability 0.05 (usual with the label: 0.43)" in worst["reason"]
    assert "fear not given, probability 0.90" in worst["reason"]
    assert list(sheet[1]["score"]) == sorted(sheet[1]["score"], reverse=True)


def test_corrections_come_back_and_the_rest_stays(sheet):
    path, _ = sheet
    fill(path, c="fear, joy", a="joy", d="[]")
    before = TABLE["labels"].to_list()
    found, counts = suspects.read_corrections(path, TABLE, NAMES)
    assert found["labels"].to_list() == [[0], [2], [0, 1], []]
    assert found.index.equals(TABLE.index)
    assert counts == {"changed": 2, "confirmed": 1, "open": 1}
    assert TABLE["labels"].to_list() == before
    again, counts = suspects.read_corrections(path, found, NAMES)
    assert again["labels"].to_list() == found["labels"].to_list()
    assert counts["changed"] == 0


def test_a_sheet_nobody_touched_changes_nothing(sheet):
    found, counts = suspects.read_corrections(sheet[0], TABLE, NAMES)
    assert found["labels"].to_list() == TABLE["labels"].to_list()
    assert counts == {"changed": 0, "confirmed": 0, "open": 4}


HOSTILE = [
    "=1+1",
    "\t=1+1",
    "\r@A1",
    "\ufeff=1+1",
    "да;=1+1;нет",
    'да;"=1+1";нет',
    "да\n-1+1",
    "\u200b+1",
    "＝1+1",
    "a-b=c",
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_spreadsheets_get_no_formulas(tmp_path, separator):
    """Whatever a spreadsheet takes for the border of a cell, no cell of what a stranger wrote
    begins like a formula."""
    path = tmp_path / "sheet.csv"
    ids = [f"{text}{row}" for row, text in enumerate(HOSTILE)]
    found = pd.DataFrame({"id": ids, "text": HOSTILE[::-1], "given": "joy", "score": -0.5})
    suspects.write_sheet(found, path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file, delimiter=separator) for cell in row]
    begins = {cell.lstrip("\t\r\n\ufeff\u200b'\"")[:1] for cell in cells if cell != "-0.5"}
    assert not begins & set("=+-@＝＋－＠")
    table = found.assign(labels=[[0]] * len(HOSTILE))
    corrected = suspects.read_corrections(path, table, NAMES)[1]
    assert corrected == {"changed": 0, "confirmed": 0, "open": len(HOSTILE)}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1251"])
@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_sheet_that_a_russian_spreadsheet_saved_is_taken_back(sheet, separator, encoding):
    path, _ = sheet
    fill(path, c="Страх; РАДОСТЬ", a="Joy", d="fear|грусть", b="[]")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["score"] = table["score"].str.replace(".", ",")
    content = table.to_csv(index=False, sep=separator, lineterminator="\r\n")
    path.write_bytes(content.encode(encoding))
    names = ("joy", "fear", "anger", "sadness")
    assert suspects.read_corrections(path, TABLE, names)[0]["labels"].to_list() == [
        [0],
        [],
        [0, 1],
        [1, 3],
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.replace({"corrected": {"": "rage"}}),
            r"row 2 \(the header is row 1\): corrected='rage'.*known: joy, fear",
        ),
        (lambda t: t.replace({"corrected": {"": "9"}}), r"row 2 .*: label id 9 is outside 0\.\.3"),
        (lambda t: t.assign(id=["c", "x", "b", "a"]), r"row 3 .*: id 'x' is not in the table"),
        (lambda t: t.assign(id=list(t["id"])[::-1]), r"row 2 .*: the text is not that of id"),
        (
            lambda t: pd.concat([t.assign(corrected="joy"), t.assign(corrected="fear")]),
            r"row 6 .* otherwise in row 2 \(the header is row 1\); keep one",
        ),
        (lambda t: t.drop(columns="corrected"), r"column 'corrected' is missing.*commas"),
    ],
)
def test_sheets_that_cannot_be_right_are_refused(sheet, change, message):
    path, _ = sheet
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)
    with pytest.raises(DataError, match=message):
        suspects.read_corrections(path, TABLE, NAMES)


def test_a_head_memorises_what_it_may_and_dropout_needs_train_mode(world):
    vectors, labels = torch.tensor(world[0]).float(), world[1]
    random = torch.get_rng_state()
    history = linear_head.head_history(vectors, labels, vectors, 12)
    assert torch.equal(random, torch.get_rng_state())
    losses = [label_errors.loss(labels, epoch).mean() for epoch in history]
    assert history.shape == (12, 900, 4)
    assert losses == sorted(losses, reverse=True)
    forgot = linear_head.head_history(vectors, labels, vectors, 12, dropout=0.5, train_mode=False)
    assert forgot == pytest.approx(history)
    assert (
        np.abs(linear_head.head_history(vectors, labels, vectors, 12, dropout=0.5) - history).max()
        > 0.05
    )


def test_a_head_leaves_the_cores_to_others_as_they_were(world):
    before = torch.get_num_threads()
    vectors = torch.tensor(world[0]).float()
    linear_head.head_history(vectors, world[1], vectors, 1)
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError):
        linear_head.head_history(vectors, world[1][:, :0], vectors[:, :3], 1)
    assert torch.get_num_threads() == before


def test_layers_stand_side_by_side_in_the_order_of_the_texts():
    tokenizer, encoder = loading.load_encoder("embedded")
    texts = ["Ура, едем!", "Поезд в семь, а билетов нет и, похоже, не будет", "да"]
    found = linear_head.layer_vectors(tokenizer, encoder, texts)
    size = encoder.config.hidden_size
    assert found.shape == (3, (encoder.config.num_hidden_layers + 1) * size)
    for text, row in zip(texts, found, strict=True):
        batch = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            last = encoder(**batch)[0].mean(dim=1)[0]
        assert torch.allclose(row[-size:], last, atol=1e-5)


def test_ids_must_be_unique(sheet):
    with pytest.raises(DataError, match="twice in the table"):
        suspects.read_corrections(sheet[0], TABLE.assign(id=["a", "a", "b", "c"]), NAMES)

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from tests import tiny
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import write_sums
from viralbert_utils.lessons import cascade, columns, hybrid

CLASSES = ["Ветер", "Гром", "Снег"]
HEROES = {"Ветер": "Лапочкин", "Гром": "Хвостов", "Снег": "Пышка"}


def make_rows(n: int = 150, seed: int = 0) -> pd.DataFrame:
    """Half of the titles name the hero of their project; the rest is told by length only, and not
    always."""
    rng = np.random.default_rng(seed)
    label = rng.choice(CLASSES, n)
    words = [
        "новая",
        "серия",
        "смотрим",
        "вместе",
        "утром",
        "зима",
        "лето",
        "друзья",
        "дома",
        "песня",
    ]
    titles = [
        " ".join(
            [
                *rng.choice(words, 4),
                f"{HEROES[own]}{rng.choice(['у', 'а', 'ом'])}" if rng.random() < 0.5 else "",
            ]
        )
        for own in label
    ]
    seconds = [100 * (1 + CLASSES.index(own)) + rng.normal(0, 40) for own in label]
    return pd.DataFrame(
        {
            "title": titles,
            "seconds": seconds,
            "channel": rng.choice(["свой", "чужой"], n),
            "label": label,
        }
    )


class AlwaysSnow:
    def predict(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float]]:
        return pd.DataFrame({"answer": "Снег", "certainty": 0.4}, rows.index), {}


@pytest.fixture(scope="module")
def fitted():
    rows = make_rows()
    prepared = columns.prepare(rows, ["title"], ["seconds"], ["channel"])
    return cascade.fit(rows, "label", prepared, AlwaysSnow(), (0.97, 0.8))


def test_patterns_forgive_case_forms_and_missing_cells():
    rows = pd.DataFrame(
        {"title": ["ЁЛКИН едет", None], "note": ["", "ок"], "channel": ["свой", " "]}
    )
    first, second = cascade.patterns(rows, ["title", "note"], ["channel"])
    assert {"елкин", "елки…", "елкин едет", "channel=свой"} <= first
    assert second == set()
    # A fullwidth letter is that letter.
    assert cascade.patterns(pd.DataFrame({"title": ["Ａlma ata"]}), ["title"]) == [
        {"alma", "alma ata"}
    ]


def test_the_shortest_of_equal_patterns_becomes_the_rule():
    found = [{"глоб…", "глобус", "море"}] * 5 + [{"море"}] * 5
    rules = cascade.mine(found, np.array(["a"] * 5 + ["b"] * 5))
    assert [(rule.pattern, rule.answer, rule.n_rows, rule.n_right) for rule in rules] == [
        ("глоб…", "a", 5, 5)
    ]
    assert 0.6 < rules[0].bound < 0.75
    assert cascade.mine(found[:2], np.array(["a", "b"])) == []


def test_rules_that_disagree_are_silent():
    strong, weak, other = (
        cascade.Rule(p, a, 9, 9, b)
        for p, a, b in (("x", "a", 0.8), ("y", "a", 0.5), ("z", "b", 0.5))
    )
    votes = cascade.vote([strong, weak, other], [{"x", "y"}, {"x", "z"}, {"q"}])
    assert votes == [strong, None, None]


@settings(max_examples=20, deadline=None)
@given(st.integers(6, 25), st.integers(1, 30), st.integers(0, 1000))
def test_one_inverse_is_as_many_trainings_as_rows(n_rows, n_features, seed):
    rng = np.random.default_rng(seed)
    features = sparse.csr_matrix(rng.normal(size=(n_rows, n_features)))
    hot = np.eye(2)[np.r_[0, 1, rng.integers(0, 2, n_rows - 2)]]
    coefficients, unseen = cascade.least_squares(features, hot)
    weights = (n_rows / (2 * hot.sum(axis=0)))[hot.argmax(axis=1)]

    def primal(keep: np.ndarray) -> np.ndarray:
        x, w = features.toarray()[keep], weights[keep, None]
        return np.linalg.solve(
            x.T @ (w * x) + cascade.PENALTY * np.eye(n_features), x.T @ (w * hot[keep])
        )

    everyone = np.ones(n_rows, dtype=bool)
    np.testing.assert_allclose(coefficients, primal(everyone), atol=1e-7)
    row = int(rng.integers(n_rows))
    without = everyone.copy()
    without[row] = False
    np.testing.assert_allclose(unseen[row], features.toarray()[row] @ primal(without), atol=1e-7)


def test_each_decision_tells_its_stage_and_reason(fitted):
    test = make_rows(300, seed=1)
    decisions = fitted.decide(test)
    assert set(decisions["stage"]) == set(cascade.STAGES)
    ruled = decisions[decisions["stage"] == "rules"]
    assert ruled["reason"].str.contains("→").all()
    assert decisions.loc[decisions["stage"] == "hybrid", "answer"].eq("Снег").all()
    stages = cascade.by_stage(decisions, test["label"].to_numpy())
    assert stages["rows"].sum() == len(test)
    assert stages["coverage"].sum() == pytest.approx(1)
    assert stages.loc["rules", "coverage"] > 0.3
    assert stages.loc["rules", "precision"] >= 0.95
    assert stages.loc["least squares", "precision"] > stages.loc["hybrid", "precision"] + 0.2
    assert (stages["low"] <= stages["precision"]).all() and (
        stages["precision"] <= stages["high"]
    ).all()


@pytest.mark.parametrize("lacking", ["title", "seconds", "channel"])
def test_rows_that_lack_a_column_are_a_message(fitted, lacking):
    rows = make_rows(20)
    less = rows.drop(columns=lacking)
    found = f"no column '{lacking}'; found {', '.join(less.columns)}"
    for read in (fitted.decide, fitted.read, fitted.scores):
        with pytest.raises(DataError, match=found):
            read(less)
    with pytest.raises(DataError, match=found):
        cascade.fit(less, "label", fitted.preparation, AlwaysSnow())
    with pytest.raises(DataError, match=f"no column '{lacking}'"):
        cascade.patterns(less, ["title"], ["channel", "seconds"])
    with pytest.raises(DataError, match="no column 'project'"):
        cascade.fit(rows, "project", fitted.preparation, AlwaysSnow())


def test_where_there_is_nothing_to_learn_the_model_decides():
    rows = make_rows().assign(title="одно и то же", seconds=1.0, channel="свой")
    prepared = columns.prepare(rows, ["title"])
    decisions = cascade.fit(rows, "label", prepared, AlwaysSnow()).decide(rows)
    assert set(decisions["stage"]) == {"hybrid"}


def test_a_row_that_is_left_is_refused_if_its_best_score_is_low(fitted, saved, tmp_path):
    rows, test = make_rows(), make_rows(300, seed=1)
    prepared = columns.prepare(rows, ["title"], ["seconds"], ["channel"])
    careful = cascade.fit(rows, "label", prepared, AlwaysSnow(), (0.97, 0.8), refuse=0.3)
    before, after = fitted.decide(test), careful.decide(test)
    refused = after["stage"] == cascade.REFUSED
    assert 0 < refused.sum() < (before["stage"] == "hybrid").sum()
    assert set(before.loc[refused, "stage"]) == {"hybrid"}
    assert (careful.scores(test).max(axis=1)[refused] < careful.min_score).all()
    assert set(after.loc[refused, "answer"]) == {""}
    pd.testing.assert_frame_equal(before[~refused], after[~refused])
    stages = cascade.by_stage(after, test["label"].to_numpy())
    assert stages["coverage"].sum() == pytest.approx(1 - refused.mean())
    steps = dataclasses.replace(saved[0], min_score=careful.min_score)
    steps.save(tmp_path / "careful")
    assert cascade.Cascade.load(tmp_path / "careful").min_score == careful.min_score
    assert cascade.Cascade.load(saved[1]).min_score == -np.inf


def test_the_same_rows_give_the_same_decisions_in_any_order(fitted):
    test = make_rows(60, seed=2)
    mixed = test.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(fitted.decide(mixed).loc[test.index], fitted.decide(test))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A cascade with a hybrid at its end, its folder, and what it decides."""
    rows = make_rows()
    prepared = columns.prepare(rows, ["title"], ["seconds"], ["channel"])
    model = hybrid.HybridClassifier(tiny.bert(), len(CLASSES), prepared.columns(rows).shape[1])
    last = hybrid.Hybrid(model.eval(), tiny.tokenizer(), prepared, CLASSES, 16)
    steps = cascade.fit(rows, "label", prepared, last, (0.97, 0.8))
    folder = tmp_path_factory.mktemp("cascade") / "steps"
    steps.save(folder)
    return steps, folder


def test_saved_and_loaded_it_decides_as_before(saved):
    steps, folder = saved
    test = make_rows(80, seed=4)
    again = cascade.Cascade.load(folder)
    pd.testing.assert_frame_equal(again.decide(test), steps.decide(test))
    np.testing.assert_array_equal(again.scores(test), steps.scores(test))
    assert set(steps.decide(test)["stage"]) == set(cascade.STAGES)
    assert {path.suffix for path in folder.rglob("*.*")} == {".json", ".safetensors"}


def test_stages_that_decide_nothing_are_kept_so(saved, tmp_path):
    steps, _ = saved
    silent = dataclasses.replace(steps, min_bound=float("inf"), min_lead=float("inf"))
    silent.save(tmp_path / "silent")
    json.loads(
        (tmp_path / "silent" / "cascade.json").read_text("utf-8"), parse_constant=pytest.fail
    )
    again = cascade.Cascade.load(tmp_path / "silent")
    assert set(again.decide(make_rows(20))["stage"]) == {"hybrid"}


def test_what_is_no_cascade_is_named(saved, fitted, tmp_path):
    steps, folder = saved
    with pytest.raises(DataError, match="expected a Hybrid, found AlwaysSnow"):
        fitted.save(tmp_path / "snow")
    with pytest.raises(DataError, match=r"no saved cascade: expected cascade\.json"):
        cascade.Cascade.load(folder / "hybrid")
    plain = json.loads((folder / "cascade.json").read_text(encoding="utf-8"))
    first_terms = plain["terms"][0]
    wrong = [
        {"classes": CLASSES[:2]},
        {"classes": [*CLASSES, "Град"]},
        {"rules": [plain["rules"][0] | {"answer": "Град"}]},
        {"rules": [{"pattern": "а"}]},
        {"rules": None},
        {"min_bound": "high"},
        {"terms": plain["terms"][:1]},
        {"terms": [first_terms[:-1], plain["terms"][1]]},
        {"terms": [[*first_terms[:-1], first_terms[0]], plain["terms"][1]]},
        {"preparation": plain["preparation"] | {"categories": {}}},
    ]
    copy = shutil.copytree(folder, tmp_path / "copy")
    for change in wrong:
        (copy / "cascade.json").write_text(json.dumps(plain | change), encoding="utf-8")
        write_sums(copy)
        with pytest.raises(DataError, match="no saved cascade, or a damaged one"):
            cascade.Cascade.load(copy)
    (copy / "cascade.json").write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(DataError, match="its sha256 is not the one"):
        cascade.Cascade.load(copy)
    write_sums(copy)
    assert cascade.Cascade.load(copy).rules == steps.rules

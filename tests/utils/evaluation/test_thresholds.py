import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from viralbert_utils.base.errors import DataError
from viralbert_utils.evaluation import thresholds
from viralbert_utils.evaluation.metrics import f1_per_class, macro_f1
from viralbert_utils.lessons import threshold_study

OBJECTIVES = {
    "F1": thresholds.f_beta(),
    "F2": thresholds.f_beta(2),
    "precision at recall 0.6": threshold_study.precision_at_recall(0.6),
    "recall at precision 0.7": thresholds.recall_at_precision(0.7),
    "cost": threshold_study.cost(1, 3),
}
# Few distinct values, so that ties are common; or any numbers, the largest and smallest among them.
TIED = st.sampled_from([0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1])
ANY = st.floats(allow_nan=False, allow_infinity=False)
ANY_32 = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def labels_and_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 4)))
    labels = draw(arrays.arrays(np.int8, shape, elements=st.integers(0, 1)))
    dtype, elements = draw(
        st.sampled_from([(np.float64, TIED), (np.float64, ANY), (np.float32, ANY_32)])
    )
    return labels, draw(arrays.arrays(dtype, shape, elements=elements))


@pytest.fixture(scope="module")
def noisy() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know a little about four labels, from frequent to rare."""
    rng = np.random.default_rng(3)
    labels = (rng.random((600, 4)) < [0.4, 0.2, 0.05, 0.02]).astype(np.int8)
    return labels, np.clip(rng.normal(0.3 + 0.12 * labels, 0.12), 0, 1)


def worth(labels: np.ndarray, decided: np.ndarray, objective: thresholds.Objective) -> np.ndarray:
    hits = (labels & decided).sum(axis=0)
    return objective(hits, decided.sum(axis=0) - hits, labels.sum(axis=0) - hits)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=80, deadline=None)
@given(case=labels_and_scores())
def test_no_other_threshold_is_better(name, case):
    labels, scores = case
    objective = OBJECTIVES[name]
    each = worth(
        labels,
        thresholds.decide(scores, thresholds.best_per_class(labels, scores, objective)),
        objective,
    )
    one = worth(
        labels,
        thresholds.decide(scores, thresholds.best_global(labels, scores, objective)),
        objective,
    )
    for cut in [*np.unique(scores), *np.linspace(0, 1, 21), np.inf]:
        other = worth(labels, thresholds.decide(scores, cut), objective)
        assert (each >= other - 1e-9).all()
        assert one.mean() >= other.mean() - 1e-9


def test_many_rows_and_boolean_labels():
    """Counts beyond the range of int8."""
    rng = np.random.default_rng(0)
    labels = rng.random((5000, 3)) < [0.5, 0.1, 0.01]
    scores = np.round(rng.normal(labels * 0.5, 0.5), 2)
    each = f1_per_class(
        labels, thresholds.decide(scores, thresholds.best_per_class(labels, scores))
    )
    cuts = [f1_per_class(labels, thresholds.decide(scores, cut)) for cut in np.unique(scores)]
    assert each == pytest.approx(np.max(cuts, axis=0))
    one = macro_f1(labels, thresholds.decide(scores, thresholds.best_global(labels, scores)))
    assert one == pytest.approx(np.mean(cuts, axis=1).max())


def test_objectives_by_hand():
    labels = np.array([[1, 0, 1, 1, 0, 0]]).T
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]]).T

    def cut(objective: thresholds.Objective) -> float:
        return float(thresholds.best_per_class(labels, scores, objective)[0])

    assert cut(thresholds.f_beta(0.25)) == pytest.approx(0.85)
    assert cut(thresholds.f_beta(1)) == cut(thresholds.f_beta(2)) == pytest.approx(0.55)
    assert cut(threshold_study.precision_at_recall(1 / 3)) == pytest.approx(0.85)
    assert cut(threshold_study.precision_at_recall(2 / 3)) == pytest.approx(0.55)
    assert cut(thresholds.recall_at_precision(0.75)) == pytest.approx(0.55)
    assert cut(thresholds.recall_at_precision(0.8)) == pytest.approx(0.85)
    assert cut(threshold_study.cost(10, 1)) == pytest.approx(0.85)
    assert cut(threshold_study.cost(1, 10)) == pytest.approx(0.55)
    # Now the highest score is a false alarm: no threshold is always right, and none costs less than
    # silence ...
    labels = 1 - labels
    assert cut(thresholds.recall_at_precision(1)) == cut(threshold_study.cost(1, 1)) == np.inf
    # ... unless a miss is dear.
    assert cut(threshold_study.cost(1, 2)) == pytest.approx(0.4)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_class_without_positives_is_never_predicted(objective):
    labels, scores = np.array([[0, 1], [0, 0]]), np.array([[0.9, 0.8], [0.1, 0.2]])
    chosen = thresholds.best_per_class(labels, scores, objective)
    assert chosen[0] == np.inf
    assert 0.2 < chosen[1] <= 0.8
    assert thresholds.best_global(labels * 0, scores, objective) == np.inf


def test_nothing_positive_at_all():
    labels, scores = np.zeros((12, 2), dtype=int), np.full((12, 2), 0.4)
    for name in ("one", "per class", "shrunk", "supported"):
        assert np.all(thresholds.RULES[name](labels, scores) == np.inf)
        assert not thresholds.cross_fit(labels, scores, thresholds.RULES[name]).any()


def test_constant_scores_and_all_positives():
    labels, scores = np.array([[1, 1], [0, 1]]), np.full((2, 2), 0.3)
    assert thresholds.decide(scores, thresholds.best_per_class(labels, scores)).all()
    assert thresholds.decide(scores, thresholds.best_global(labels, scores)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbouring_floats_are_kept_apart(dtype):
    for high in np.linspace(0.1, 0.9, 9).astype(dtype):
        labels, scores = np.array([[1], [0]]), np.array([[high], [np.nextafter(high, dtype(0))]])
        for found in (
            thresholds.best_per_class(labels, scores),
            thresholds.best_global(labels, scores),
        ):
            assert thresholds.decide(scores, found).tolist() == [[1], [0]]
    # Half of the smallest numbers is rounded: twice the half may lie above them.
    smallest = np.array([[-3.77596907e-308]])
    assert thresholds.decide(smallest, thresholds.best_per_class(np.array([[1]]), smallest)) == 1


def test_global_threshold_beats_one_half_on_rare_labels():
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 10)) < 0.05).astype(np.int8)
    scores = np.clip(0.05 + 0.15 * labels + 0.05 * rng.standard_normal(labels.shape), 0, 1)
    one = thresholds.best_global(labels, scores)
    assert macro_f1(labels, thresholds.decide(scores, 0.5)) < 0.05
    assert macro_f1(labels, thresholds.decide(scores, one)) > 0.6


@pytest.mark.parametrize(
    "search", [thresholds.best_per_class, thresholds.best_global, thresholds.shrunk]
)
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (
            np.zeros((2, 1)),
            np.zeros((1, 1)),
            r"labels \(2, 1\) and scores \(1, 1\) must have the same shape",
        ),
        (np.zeros(2), np.zeros(2), "texts x classes"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "no rows"),
        (np.zeros((2, 1)), np.array([[0.1], [np.nan]]), "score of row 1, class 0 is nan"),
        (np.zeros((2, 1)), np.array([[-np.inf], [0.1]]), "score of row 0, class 0 is -inf"),
        (np.array([[0], [2]]), np.zeros((2, 1)), "labels must be 0 or 1; found 0 to 2"),
        (np.array([[0], [np.nan]]), np.zeros((2, 1)), "labels must be 0 or 1"),
    ],
)
def test_bad_input_is_refused(search, labels, scores, message):
    with pytest.raises(DataError, match=message):
        search(labels, scores)


def test_nan_is_no_decision():
    with pytest.raises(DataError, match="score of row 1, class 0 is nan"):
        thresholds.decide(np.array([[0.2], [np.nan]]), 0.5)


def test_shrunk_thresholds_lie_between_the_shared_one_and_their_own():
    rng = np.random.default_rng(3)
    scores = rng.random((400, 4))
    rates = np.array([0.5, 0.1, 0.01, 0.0])
    labels = (scores + rng.normal(0, 0.3, scores.shape) > 1 - rates - 0.1).astype(int)
    labels[:, 3] = 0
    one, each = thresholds.best_global(labels, scores), thresholds.best_per_class(labels, scores)
    drawn = thresholds.shrunk(labels, scores, 10)
    assert (np.minimum(each, one) - 1e-9 <= drawn).all()
    assert (drawn <= np.maximum(each, one) + 1e-9).all()
    assert drawn[3] == pytest.approx(one)
    assert thresholds.shrunk(labels, scores, 1e-9)[:3] == pytest.approx(each[:3])
    assert thresholds.shrunk(labels, scores, 1e9) == pytest.approx([one] * 4, abs=1e-4)
    with pytest.raises(DataError, match="expected probabilities; found"):
        thresholds.shrunk(labels, scores * 3)


def test_classes_with_little_support_take_the_shared_threshold(noisy):
    labels, scores = noisy
    one, each = thresholds.best_global(labels, scores), thresholds.best_per_class(labels, scores)
    assert thresholds.supported(labels, scores, labels[:, 2].sum()).tolist() == [*each[:3], one]


def test_cross_fitting_decides_by_rows_that_were_not_decided_about():
    """Scores are row numbers here; the rule lets through what it was not given."""
    n = 50
    labels = np.zeros((n, 2), dtype=int)
    labels[:5, 1] = 1
    labels[:20, 0] = 1
    numbers = np.arange(n, dtype=float)[:, None].repeat(2, axis=1)
    tuned_on = []

    def rule(labels: np.ndarray, scores: np.ndarray) -> float:
        tuned_on.append((set(scores[:, 0]), labels.sum(axis=0).tolist()))
        return 0.0

    assert thresholds.cross_fit(labels, numbers, rule).all()
    left = [set(numbers[:, 0]) - seen for seen, _ in tuned_on]
    assert sorted(row for fold in left for row in fold) == list(range(n))
    # 5 and 20 positives in 5 folds: each is tuned on 4 and 16.
    assert [positives for _, positives in tuned_on] == [[16, 4]] * 5


def test_cross_fitting_takes_the_optimism_away():
    """Scores that know nothing: whatever thresholds per class gain on their own rows is
    optimism."""
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 20)) < 0.05).astype(int)
    table = threshold_study.compare_rules(labels, rng.random(labels.shape), n_resamples=200)
    assert list(table.index) == list(thresholds.RULES)
    assert table.loc["one", ["gain", "low", "high", "optimism"]].tolist() == pytest.approx(
        [0, 0, 0, 0], abs=0.01
    )
    per_class = table.loc["per class"]
    assert per_class["apparent"] - table.loc["one", "apparent"] > 0.02
    assert per_class["gain"] < 0.005
    assert per_class["optimism"] == pytest.approx(
        per_class["apparent"] - table.loc["one", "apparent"] - per_class["gain"]
    )
    assert per_class["optimism"] > table.loc["shrunk", "optimism"] > 0


def test_rare_classes_have_unstable_thresholds(noisy):
    labels, scores = noisy
    found = threshold_study.resampled(labels, scores, n_resamples=100)
    assert found.shape == (100, 4)
    low, high = np.quantile(found, [0.1, 0.9], axis=0, method="inverted_cdf")
    assert high[0] - low[0] < 0.5 * (high[3] - low[3])
    assert (low <= thresholds.best_per_class(labels, scores)).all()
    assert np.ptp(
        threshold_study.resampled(labels, scores, thresholds.best_global, 5), axis=1
    ) == pytest.approx(0)


NAMES = ("радость", "грусть", "страх", "гордость")


def test_stored_thresholds_come_back_as_they_were(noisy, tmp_path):
    labels, scores = noisy[0].copy(), noisy[1]
    labels[:, 3] = 0
    kept = thresholds.Thresholds.tune(NAMES, labels, scores, "per class")
    kept.save(tmp_path / "thresholds.json")
    text = (tmp_path / "thresholds.json").read_text(encoding="utf-8")
    assert "радость" in text
    assert json.loads(text, parse_constant=pytest.fail)["values"][3] is None
    loaded = thresholds.Thresholds.load(tmp_path / "thresholds.json")
    assert loaded == kept
    decided = thresholds.decide(scores, thresholds.best_per_class(labels, scores))
    assert (loaded.apply(scores, list(NAMES)) == decided).all()
    assert (loaded.n_rows, loaded.positives) == (600, tuple(labels.sum(axis=0)))
    cross_fitted = macro_f1(labels, thresholds.cross_fit(labels, scores, thresholds.best_per_class))
    assert loaded.gain == pytest.approx(
        cross_fitted - macro_f1(labels, thresholds.decide(scores, 0.5))
    )
    with pytest.raises(FrozenInstanceError):
        loaded.values = (0.5,) * 4


def test_the_fingerprint_is_that_of_labels_and_scores(noisy):
    labels, scores = noisy

    def fingerprint(labels: np.ndarray, scores: np.ndarray) -> str:
        return thresholds.Thresholds.tune(NAMES, labels, scores).sha256

    original = fingerprint(labels, scores)
    assert original == fingerprint(labels.astype(bool), np.asfortranarray(scores))
    changed_labels, changed_scores = labels.copy(), scores.copy()
    changed_labels[5, 0] ^= 1
    changed_scores[5, 0] += 1e-9
    assert (
        len({original, fingerprint(changed_labels, scores), fingerprint(labels, changed_scores)})
        == 3
    )


def test_other_classes_are_refused(noisy):
    kept = thresholds.Thresholds.tune(NAMES, *noisy, "one")
    with pytest.raises(DataError, match="class 'грусть' where 'радость' was expected"):
        kept.apply(noisy[1], (NAMES[1], NAMES[0], *NAMES[2:]))
    with pytest.raises(DataError, match="class None where 'гордость' was expected"):
        kept.apply(noisy[1][:, :3], NAMES[:3])
    with pytest.raises(DataError, match=r"scores \(600, 1\); expected \(n_texts, 4\)"):
        kept.apply(noisy[1][:, :1], NAMES)
    with pytest.raises(DataError, match="unknown rule 'best'; expected one of"):
        thresholds.Thresholds.tune(NAMES, *noisy, "best")
    with pytest.raises(DataError, match="expected distinct names"):
        thresholds.Thresholds.tune(NAMES[:1] * 4, *noisy)


@pytest.mark.parametrize(
    "damage",
    [
        {"values": [0.5, 0.5, 0.5]},
        {"values": ["high"] * 4},
        {"values": [float("nan")] * 4},
        {"extra": 1},
        {"names": 4},
        {"values": [0.5, 0.5, 0.5, -5]},
        {"values": [0.5, 0.5, 0.5, 1.5]},
        {"values": [-1e-9] * 4},
        {"values": [float("-inf")] * 4},
        {"values": [0.5, 10**400, 0.5, 0.5]},
    ],
)
def test_damaged_thresholds_are_refused(noisy, damage, tmp_path):
    plain = thresholds.Thresholds.tune(NAMES, *noisy).to_json()
    assert thresholds.Thresholds.from_json(plain).to_json() == plain
    with pytest.raises(DataError, match="not thresholds as"):
        thresholds.Thresholds.from_json(plain | damage)
    with pytest.raises(DataError, match="not thresholds"):
        thresholds.Thresholds.from_json(
            {name: plain[name] for name in plain if name != "positives"}
        )
    (tmp_path / "half.json").write_text(json.dumps(plain)[:50], encoding="utf-8")
    (tmp_path / "other.json").write_bytes(json.dumps(plain, ensure_ascii=False).encode("cp1251"))
    (tmp_path / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    (tmp_path / "long.json").write_text(f'{{"n_rows": {"9" * 5000}}}', encoding="utf-8")
    for name in ("half.json", "none.json", "other.json", "deep.json", "long.json"):
        with pytest.raises(DataError, match="cannot be read as thresholds"):
            thresholds.Thresholds.load(tmp_path / name)

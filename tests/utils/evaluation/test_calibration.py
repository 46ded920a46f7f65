import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from viralbert_utils.base.errors import DataError
from viralbert_utils.evaluation import calibration, thresholds
from viralbert_utils.lessons import reliability


@pytest.fixture(scope="module")
def overconfident() -> tuple[np.ndarray, np.ndarray]:
    """Labels of three classes, and logits that are twice the true ones plus a shift of each
    class."""
    rng = np.random.default_rng(0)
    true = rng.normal([0, -1, -3], 1.5, (4000, 3))
    labels = (rng.random(true.shape) < expit(true)).astype(np.int8)
    return labels, 2 * true + [0, 1, -2]


def test_temperature_finds_the_factor():
    rng = np.random.default_rng(1)
    true = rng.normal(-1, 2, (5000, 3))
    labels = (rng.random(true.shape) < expit(true)).astype(np.int8)
    found = reliability.temperature(labels, 4 * true)
    assert found.slope == pytest.approx(0.25, rel=0.05)
    assert len(set(found.slope)) == 1
    assert not found.intercept.any()
    mended, raw = found.apply(4 * true), expit(4 * true)
    assert ((mended >= 0.5) == (raw >= 0.5)).all()
    assert (calibration.brier_score(labels, mended) < calibration.brier_score(labels, raw)).all()


def test_platt_finds_factor_and_shift_of_each_class(overconfident):
    labels, logits = overconfident
    found = calibration.platt(labels, logits)
    assert found.slope == pytest.approx([0.5] * 3, rel=0.15)
    assert found.intercept == pytest.approx([0, -0.5, 1], abs=0.2)
    mended, raw = found.apply(logits), expit(logits)
    error = reliability.expected_calibration_error
    assert (error(labels, mended) < 0.3 * error(labels, raw)).all()
    assert (calibration.brier_score(labels, mended) < calibration.brier_score(labels, raw)).all()


def test_platt_agrees_with_logistic_regression_on_softened_targets(overconfident):
    labels, logits = (part[:300] for part in overconfident)
    found = calibration.platt(labels, logits)
    for k in range(3):
        n, n_positive = len(labels), labels[:, k].sum()
        target = np.where(
            labels[:, k] > 0, (n_positive + 1) / (n_positive + 2), 1 / (n - n_positive + 2)
        )
        # A row with target t is t of a positive and 1 - t of a negative one.
        reference = LogisticRegression(C=np.inf, tol=1e-8).fit(
            np.tile(logits[:, [k]], (2, 1)),
            np.repeat([1, 0], n),
            np.concatenate([target, 1 - target]),
        )
        assert found.slope[k] == pytest.approx(reference.coef_[0, 0], rel=0.01)
        assert found.intercept[k] == pytest.approx(reference.intercept_[0], abs=0.01)


def test_calibration_and_thresholds(overconfident):
    """Tuned per class, thresholds decide alike before and after; one half does not."""
    labels, logits = overconfident
    mended, raw = calibration.platt(labels, logits).apply(logits), expit(logits)
    decided = [thresholds.decide(p, thresholds.best_per_class(labels, p)) for p in (mended, raw)]
    assert (decided[0] == decided[1]).all()
    assert (thresholds.decide(mended, 0.5) != thresholds.decide(raw, 0.5)).any()


def test_classes_that_tell_nothing_are_left_alone():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    labels = np.zeros((50, 3), dtype=int)
    labels[:, 1] = 1
    labels[::2, 2] = 1
    found = calibration.platt(labels, logits)
    assert (found.slope[:2].tolist(), found.intercept[:2].tolist()) == ([1, 1], [0, 0])
    assert found.slope[2] != 1


def test_separable_or_reversed_classes_stay_finite_and_in_order():
    z = np.linspace(-3, 3, 40)[:, None]
    apart, reversed_ = (z > 2.5).astype(int), (z < 0).astype(int)
    for labels in (apart, reversed_):
        for fit in (calibration.platt, reliability.temperature):
            found = fit(labels, z)
            assert np.isfinite([found.slope, found.intercept]).all()
            assert (np.diff(found.apply(z)[:, 0]) >= 0).all()
            assert found.slope > 0
    constant = calibration.platt(apart, np.zeros_like(z)).apply(np.zeros_like(z))
    assert constant == pytest.approx(apart.mean(), abs=0.02)


@pytest.mark.parametrize("fit", [calibration.platt, reliability.temperature])
def test_bad_logits_are_refused(fit):
    with pytest.raises(DataError, match="score of row 0, class 0 is nan"):
        fit(np.zeros((2, 1)), np.array([[np.nan], [0.0]]))
    with pytest.raises(DataError, match="must have the same shape"):
        fit(np.zeros((2, 1)), np.zeros((2, 2)))


def test_reliability_by_hand():
    probabilities = np.array([0.05, 0.05, 0.15, 0.5, 0.65, 0.95, 1.0])
    labels = np.array([0, 1, 0, 0, 1, 1, 1])
    table = reliability.reliability(labels, probabilities, 2)
    assert table["from"].tolist() == [0, 0.5]
    assert table["to"].tolist() == [0.5, 1]
    assert table["count"].tolist() == [3, 4]
    assert table["mean probability"].tolist() == pytest.approx([0.25 / 3, 3.1 / 4])
    assert table["share of positives"].tolist() == pytest.approx([1 / 3, 3 / 4])
    assert (table["low"] < table["share of positives"]).all()
    assert (table["share of positives"] < table["high"]).all()
    error = (abs(0.25 - 1) + abs(3.1 - 3)) / 7
    assert reliability.expected_calibration_error(
        labels[:, None], probabilities[:, None], 2
    ) == pytest.approx(error)
    # Empty bins are left out; the last bin holds 1.
    assert reliability.reliability(labels, probabilities, 10)["count"].tolist() == [2, 1, 1, 1, 2]


def test_bins_of_equal_counts():
    probabilities = np.random.default_rng(0).random(1000) ** 8
    labels = np.zeros(1000, dtype=int)
    assert reliability.reliability(labels, probabilities)["count"].max() > 700
    assert (
        reliability.reliability(labels, probabilities, equal_counts=True)["count"].tolist()
        == [100] * 10
    )
    assert reliability.reliability(labels, np.full(1000, 0.3), equal_counts=True)[
        "count"
    ].tolist() == [1000]


def test_true_probabilities_are_reliable():
    rng = np.random.default_rng(0)
    probabilities = rng.random((20_000, 1))
    table = reliability.reliability(
        rng.random(probabilities.shape) < probabilities, probabilities, 20
    )
    inside = (table["low"] <= table["mean probability"]) & (
        table["mean probability"] <= table["high"]
    )
    assert inside.mean() >= 0.8
    assert (table["high"] - table["low"]).max() < 0.07


def test_brier_score_agrees_with_scikit_learn(overconfident):
    labels, probabilities = overconfident[0], expit(overconfident[1])
    expected = [brier_score_loss(labels[:, k], probabilities[:, k]) for k in range(3)]
    assert calibration.brier_score(labels, probabilities) == pytest.approx(expected)


def test_no_probabilities_no_reliability():
    with pytest.raises(DataError, match=r"expected probabilities; found -1 to 0.5"):
        reliability.reliability(np.array([0, 1]), np.array([-1, 0.5]))


@pytest.mark.parametrize(("share", "n"), [(0.02, 50), (0.2, 20), (0.5, 100), (0.9, 40)])
def test_proportion_interval_covers_as_often_as_it_says(share, n):
    successes = np.arange(n + 1)
    low, high = calibration.proportion_interval(successes, np.full(n + 1, n))
    covered = binom.pmf(successes, n, share)[(low <= share) & (share <= high)].sum()
    assert 0.91 < covered < 0.99


def test_proportion_interval_at_the_ends():
    assert np.ravel(
        calibration.proportion_interval(np.array([1]), np.array([10]))
    ) == pytest.approx([0.011, 0.381], abs=1e-3)
    low, high = calibration.proportion_interval(np.array([0, 5, 0]), np.array([5, 5, 0]))
    assert (low[0], high[1]) == (0, 1)
    assert high[0] == pytest.approx(1 - low[1])
    assert 0 < high[0] < 0.5
    assert np.isnan([low[2], high[2]]).all()

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from viralbert_utils.evaluation import intervals, metrics
from viralbert_utils.evaluation.intervals import Estimate
from viralbert_utils.lessons import class_table, preparation


@pytest.fixture(scope="module")
def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, a fair system, a better one that corrects some of its errors."""
    rng = np.random.default_rng(0)
    labels = (rng.random((600, 6)) < [0.4, 0.2, 0.1, 0.05, 0.02, 0.3]).astype(np.int8)
    fair = np.where(rng.random(labels.shape) < 0.12, 1 - labels, labels).astype(np.int8)
    better = np.where(rng.random(labels.shape) < 0.4, labels, fair).astype(np.int8)
    return labels, fair, better


def test_f1_agrees_with_scikit_learn(answers):
    labels, fair, _ = answers
    assert metrics.f1_per_class(labels, fair) == pytest.approx(f1_score(labels, fair, average=None))
    assert metrics.macro_f1(labels, fair) == pytest.approx(f1_score(labels, fair, average="macro"))
    both = np.mean([f1_score(labels[:, k], fair[:, k], average="macro") for k in range(6)])
    assert metrics.binary_macro_f1(labels, fair) == pytest.approx(both)


def test_empty_class_counts_as_zero():
    labels = np.array([[1, 0], [0, 0]])
    assert metrics.f1_per_class(labels, labels).tolist() == pytest.approx([1, 0])


def test_binary_macro_f1_flatters_rare_labels(answers):
    labels = answers[0]
    nothing = np.zeros_like(labels)
    assert metrics.macro_f1(labels, nothing) == 0
    assert metrics.binary_macro_f1(labels, nothing) > 0.4


def test_fast_bootstrap_is_the_bootstrap(answers):
    labels, fair, _ = answers
    fast = intervals.macro_f1_interval(labels, fair, n_resamples=2000)
    slow = intervals.bootstrap(metrics.macro_f1, labels, fair, n_resamples=2000, seed=1)
    assert fast.value == pytest.approx(slow.value)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.01)
    assert fast.low < fast.value < fast.high


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        right = rng.random(150) < 0.7
        interval = intervals.bootstrap(lambda x: float(x.mean()), right, n_resamples=300, seed=seed)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.90 <= covered / 200 <= 0.985


def test_paired_difference_is_narrower_than_two_intervals(answers):
    labels, fair, better = answers
    difference = intervals.macro_f1_difference(labels, fair, better)
    a, b = (intervals.macro_f1_interval(labels, system) for system in (fair, better))
    assert difference.value == pytest.approx(b.value - a.value)
    assert difference.low > 0
    assert difference.high - difference.low < (a.high - a.low) + (b.high - b.low)
    same = intervals.macro_f1_difference(labels, fair, fair)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_compare_puts_systems_side_by_side(answers):
    labels, fair, better = answers
    table = intervals.compare(labels, {"fair": fair, "better": better}, "fair", 200)
    assert table["to reference"].tolist()[0] == ""
    assert table["to reference"].tolist()[1] == str(
        intervals.macro_f1_difference(labels, fair, better, 200)
    )
    assert table.loc["better", "macro-F1"] > table.loc["fair", "macro-F1"]
    assert (table["binary macro-F1"] > table["macro-F1"]).all()


def test_roc_auc_agrees_with_scikit_learn_ties_included(answers):
    labels, _, _ = answers
    scores = np.round(np.random.default_rng(0).random(labels.shape) + 0.3 * labels, 1)
    assert metrics.mean_roc_auc(labels, scores) == pytest.approx(
        roc_auc_score(labels, scores, average="macro")
    )


def test_roc_auc_leaves_out_classes_it_is_not_defined_for():
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    scores = np.array([[0.9, 0.1, 0.2], [0.1, 0.2, 0.3], [0.8, 0.3, 0.1], [0.2, 0.4, 0.1]])
    assert metrics.mean_roc_auc(labels, scores) == 1
    assert metrics.mean_roc_auc(labels[:, 0], scores[:, 0]) == 1
    with pytest.raises(ValueError, match="ROC AUC needs a class with both"):
        metrics.mean_roc_auc(labels[:, 1:], scores[:, 1:])


def test_bootstrap_says_when_a_metric_is_mostly_undefined():
    def only_for_the_whole_set(labels: np.ndarray) -> float:
        if labels.tolist() != [1, 2, 3, 4, 5]:
            raise ValueError("undefined")
        return 1.0

    with pytest.raises(ValueError, match="undefined on 50 of 50 resamples"):
        intervals.bootstrap(only_for_the_whole_set, np.array([1, 2, 3, 4, 5]), n_resamples=50)


def test_agreement():
    assert preparation.agreement(["a", "b", "a"], ["a", "b", "a"]) == {
        "texts": 3,
        "same": 1,
        "kappa": 1,
        "kappa_least": 1,
    }
    assert preparation.agreement(["a", "a"], ["a", "a"])["kappa"] == 1
    random = np.random.default_rng(0)
    first, second = random.integers(0, 2, 2000).tolist(), random.integers(0, 2, 2000).tolist()
    assert preparation.agreement(first, second)["kappa"] == pytest.approx(0, abs=0.06)
    lists = preparation.agreement([[1], [2], [1, 2]], [[1], [2], [1]])
    assert lists["same"] == pytest.approx(2 / 3)
    assert 0 < lists["kappa"] < 1


def test_one_hot():
    assert metrics.one_hot(np.array(["b", "a"]), ["a", "b"]).tolist() == [[0, 1], [1, 0]]


def test_estimate_reads_well():
    assert str(Estimate(0.41234, 0.39, 0.43)) == "0.412 [0.390, 0.430]"


def test_sign_flips_by_hand():
    assert intervals.sign_flip_test(np.array([0.1, 0.2, 0.3])) == pytest.approx(2 / 8)
    assert intervals.sign_flip_test(np.array([1.0, -1.0])) == 1.0
    # Means as far from zero as (1 + 1 - 0.5) / 3: that choice, its mirror image, and the two with
    # 2.5.
    assert intervals.sign_flip_test(np.array([1.0, 1.0, -0.5])) == pytest.approx(4 / 8)
    with pytest.raises(ValueError, match="0 differences; expected 1 to 20"):
        intervals.sign_flip_test(np.array([]))


def test_whole_groups_are_drawn():
    """Ten copies of the same rows are no news: by group the interval is that of the rows
    themselves."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 2))
    a, b = (np.where(rng.random(labels.shape) < share, labels, 1 - labels) for share in (0.6, 0.8))
    one = intervals.macro_f1_difference(labels, a, b)
    copies = [np.repeat(part, 10, axis=0) for part in (labels, a, b)]
    groups = np.repeat(np.arange(60), 10)
    grouped = intervals.macro_f1_difference(*copies, groups=groups)
    assert vars(grouped) == pytest.approx(vars(one), abs=1e-6)
    rowwise = intervals.macro_f1_difference(*copies)
    assert rowwise.high - rowwise.low < 0.5 * (one.high - one.low)
    table = intervals.compare(copies[0], {"a": copies[1], "b": copies[2]}, "a", groups=groups)
    alone = intervals.compare(labels, {"a": a, "b": b}, "a")
    assert table["low"].to_numpy() == pytest.approx(alone["low"].to_numpy(), abs=1e-6)
    assert table["to reference"].tolist() == alone["to reference"].tolist()
    by_group = intervals.bootstrap(metrics.accuracy, *copies[:2], groups=groups)
    assert vars(by_group) == pytest.approx(vars(intervals.bootstrap(metrics.accuracy, labels, a)))


def test_groups_may_be_of_any_size():
    labels, said = np.array([1, 1, 1, 0]), np.array([1, 1, 1, 1])
    found = intervals.bootstrap(
        metrics.accuracy, labels, said, groups=np.array(["b", "b", "b", "a"])
    )
    assert (found.value, found.low, found.high) == (0.75, 0.0, 1.0)


def test_the_table_per_class_is_scikit_learns():
    rng = np.random.default_rng(3)
    labels = (rng.random((80, 3)) < [0.5, 0.2, 0.0]).astype(int)
    scores = 0.4 * labels + rng.random(labels.shape)
    said = (scores > 0.7).astype(int)
    table = class_table.per_class(labels, scores, said, ["a", "b", "none"])
    options = {"average": None, "zero_division": 0}
    for column, metric in {
        "precision": precision_score,
        "recall": recall_score,
        "F1": f1_score,
    }.items():
        assert table[column].to_numpy()[:3] == pytest.approx(metric(labels, said, **options))
    assert table["ROC AUC"].iloc[:2].to_numpy() == pytest.approx(
        roc_auc_score(labels[:, :2], scores[:, :2], average=None)
    )
    assert np.isnan(table.loc["none", "ROC AUC"])
    assert table.loc["macro", "F1"] == pytest.approx(metrics.macro_f1(labels, said))
    assert table.loc["macro", "F1, both"] == pytest.approx(metrics.binary_macro_f1(labels, said))

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from viralbert_utils import thresholds
from viralbert_utils.evaluation import f1_per_class, macro_f1

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 4))


@st.composite
def labels_and_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPES)
    labels = draw(arrays.arrays(np.int8, shape, elements=st.integers(0, 1)))
    # Few distinct values, so that ties are common.
    scores = draw(arrays.arrays(np.float64, shape, elements=st.sampled_from([0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1])))
    return labels, scores


@settings(max_examples=200, deadline=None)
@given(labels_and_scores())
def test_per_class_is_the_best_of_all_cuts(case):
    labels, scores = case
    chosen = f1_per_class(labels, thresholds.decide(scores, thresholds.best_per_class(labels, scores)))
    for cut in np.unique(scores):
        assert (chosen >= f1_per_class(labels, thresholds.decide(scores, cut)) - 1e-9).all()


def test_class_without_positives_is_never_predicted():
    labels, scores = np.array([[0, 1], [0, 0]]), np.array([[0.9, 0.8], [0.1, 0.2]])
    chosen = thresholds.best_per_class(labels, scores)
    assert chosen[0] == np.inf
    assert 0.2 < chosen[1] <= 0.8


def test_constant_scores_and_all_positives():
    labels, scores = np.array([[1, 1], [0, 1]]), np.full((2, 2), 0.3)
    assert thresholds.decide(scores, thresholds.best_per_class(labels, scores)).all()


def test_neighbouring_floats_are_kept_apart():
    high = 0.5
    low = np.nextafter(high, 0)
    labels, scores = np.array([[1], [0]]), np.array([[high], [low]])
    assert thresholds.decide(scores, thresholds.best_per_class(labels, scores)).tolist() == [[1], [0]]


def test_global_threshold_beats_one_half_on_rare_labels():
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 10)) < 0.05).astype(np.int8)
    scores = np.clip(0.05 + 0.15 * labels + 0.05 * rng.standard_normal(labels.shape), 0, 1)
    one = thresholds.best_global(labels, scores)
    assert macro_f1(labels, thresholds.decide(scores, 0.5)) < 0.05
    assert macro_f1(labels, thresholds.decide(scores, one)) > 0.6
    grid = max(macro_f1(labels, thresholds.decide(scores, t)) for t in np.linspace(0.01, 0.5, 50))
    assert macro_f1(labels, thresholds.decide(scores, one)) > grid - 0.01


@pytest.mark.parametrize("search", [thresholds.best_per_class, thresholds.best_global])
def test_bad_scores_are_refused(search):
    with pytest.raises(ValueError, match=r"labels \(2, 1\) and scores \(1, 1\) must have the same shape"):
        search(np.zeros((2, 1)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="score of row 1, class 0 is nan"):
        search(np.zeros((2, 1)), np.array([[0.1], [np.nan]]))


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
    with pytest.raises(ValueError, match="expected probabilities; found"):
        thresholds.shrunk(labels, scores * 3)

"""What several teachers say of a text: out of fold, with the shares of the labels, and mixed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit

from viralbert_utils.lessons.soft_targets import (
    LIMIT,
    match_rates,
    out_of_fold,
    soften,
    tfidf_logits,
)

LOGITS = arrays(
    np.float64,
    st.tuples(st.integers(2, 12), st.integers(1, 3)),
    elements=st.floats(-LIMIT, LIMIT).map(lambda value: round(value, 6)),
)


def test_each_row_hears_the_teacher_that_has_not_seen_it_and_new_rows_hear_all():
    teachers = [np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]]) / 10 for _ in "ab"]
    teachers[1] = teachers[1] + 5
    said = out_of_fold(teachers, np.array([1, 0, -1, 0]))
    assert said == pytest.approx(np.array([[5.1, 6.0], [0.2, 2.0], [2.8, 5.5], [0.4, 4.0]]))


def test_what_a_teacher_is_too_sure_of_counts_no_more_than_the_limit():
    sure, unsure = np.array([[500.0], [-500.0]]), np.array([[0.0], [0.0]])
    assert out_of_fold([sure, unsure], np.array([-1, -1])).tolist() == [[LIMIT / 2], [-LIMIT / 2]]
    assert out_of_fold([sure, unsure], np.array([0, 0])).tolist() == [[LIMIT], [-LIMIT]]
    assert sure.tolist() == [[500.0], [-500.0]], "what was given stays"


def test_the_mean_probability_becomes_the_share_of_the_labels():
    logits = logit(np.array([[0.5, 0.2], [0.9, 0.2], [0.7, 0.2], [0.8, 0.2]]))
    shifted = match_rates(logits, np.array([0.25, 0.5]))
    assert expit(shifted).mean(axis=0) == pytest.approx([0.25, 0.5], abs=1e-9)
    assert shifted[:, 1] == pytest.approx(0.0, abs=1e-9), "equal rows of one half are one half"
    moves = shifted - logits
    assert moves == pytest.approx(np.broadcast_to(moves[0], moves.shape)), "one shift for a class"


def test_only_the_rows_that_count_meet_the_share_and_all_are_shifted():
    logits = np.array([[0.0], [1.0], [7.0], [8.0]])
    rows = np.array([True, True, False, False])
    shifted = match_rates(logits, np.array([0.1]), rows)
    assert expit(shifted[rows]).mean() == pytest.approx(0.1, abs=1e-9)
    assert np.diff(shifted, axis=0).ravel() == pytest.approx([1, 6, 1])
    assert match_rates(logits, np.array([0.1]))[0, 0] < shifted[0, 0] - 1, "the others pull it down"


def test_a_class_that_no_text_or_every_text_carries_stays_as_it_is():
    logits = np.array([[0.5, 1.5, 2.5], [-0.5, -1.5, -2.5]])
    shifted = match_rates(logits, np.array([0.0, 1.0, 0.5]))
    assert shifted[:, :2].tolist() == logits[:, :2].tolist()
    assert shifted[:, 2] == pytest.approx([2.5, -2.5], abs=1e-9)


@given(LOGITS, st.data())
def test_any_share_is_reached_and_the_order_stays(logits, data):
    rates = np.array(data.draw(st.tuples(*[st.floats(0.01, 0.99)] * logits.shape[1])))
    rows = np.array(data.draw(st.tuples(*[st.booleans()] * len(logits))))
    rows[0] = True
    shifted = match_rates(logits, rates, rows)
    assert expit(shifted[rows]).mean(axis=0) == pytest.approx(rates, abs=1e-6)
    for before, after in zip(logits.T, shifted.T, strict=True):
        order = np.argsort(before, kind="stable")
        assert (np.diff(after[order]) >= 0).all()


def test_a_target_is_the_label_and_what_the_teachers_say_by_its_share():
    labels, said = np.array([[1, 0], [0, 1]]), np.array([[0.5, 0.5], [0.25, 1.0]])
    mixed = soften(labels, said)
    assert mixed.dtype == np.float32
    assert mixed == pytest.approx(np.array([[0.7, 0.3], [0.15, 1.0]]))
    assert soften(labels, said, 1.0).tolist() == labels.tolist()
    assert soften(labels, said, 0.0).tolist() == said.tolist()


def test_logits_of_tf_idf_are_finite_and_those_of_the_classes():
    class Sure:
        def predict_proba(self, texts):
            return np.array([[1.0, 0.0], [0.25, 0.75]])

    (no,), (yes,) = tfidf_logits(Sure(), ["а", "б"], 1)
    assert yes == pytest.approx(np.log(3))
    assert -LIMIT < no < -11

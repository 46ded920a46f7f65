"""A prediction: fields for Python, and a mapping with the names of ViralBERT v2."""

import copy
import pickle
from dataclasses import replace

import pytest

from tests.product.serving.small_models import TEXTS
from viralbert.serving.predictor import Label, Labels, Prediction


def test_a_prediction_is_read_like_the_dictionary_of_viralbert_v2(bert):
    result = bert.predict(TEXTS[0])
    before = result.as_dict()
    assert list(result) == ["viral_score", "is_viral", "emotions", "probabilities"]
    assert (result["viral_score"], result["is_viral"]) == (result.viral_score, result.is_viral)
    assert result["emotions"] == [label.name for label in result.emotions]
    assert result["probabilities"] == result.probabilities
    assert dict(result) == {name: result[name] for name in result}
    assert len(result) == len(dict(**result)) == 4
    assert "viral_score" in result and "others" not in result and "text" not in result
    assert result.get("cedr", "none") == "none"
    with pytest.raises(KeyError, match="cedr"):
        result["cedr"]
    assert result.as_dict() == before
    assert before["emotions"] == [vars(label) for label in result.emotions]


def test_predictions_are_equal_copied_and_sent_as_before(bert):
    result, other = bert.predict(TEXTS[:2])
    twin = bert.predict(TEXTS[:2])[0]
    dict(twin)  # what it has looked up makes no difference
    assert result == twin != other
    assert result != dict(result)
    for same in (copy.deepcopy(twin), copy.copy(twin), pickle.loads(pickle.dumps(twin))):
        assert same == result
        assert dict(same) == dict(result)
    louder = replace(twin, viral_score=1.0)
    assert louder["viral_score"] == 1.0 != twin["viral_score"]


def test_what_a_model_has_no_task_for_has_no_name():
    reviews = Labels((Label("good", "good", 0.7),), {"bad": 0.3, "good": 0.7})
    result = Prediction.of({"reviews": reviews})
    assert dict(result) == result.as_dict()
    assert list(result) == ["reviews"]
    assert result["reviews"]["labels"] == [vars(reviews.labels[0])]
    with pytest.raises(KeyError, match="viral_score"):
        result["viral_score"]
    nobody = Prediction(0.2, False, (), {})
    assert nobody["emotions"] == [], "no emotion is an answer, too"

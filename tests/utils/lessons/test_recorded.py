"""Figures of long trainings: what lesson 03 shows as recorded is whole and fits together."""

import json

import pytest

from viralbert_utils.base.errors import DataError
from viralbert_utils.evaluation.intervals import Estimate
from viralbert_utils.lessons import recorded


def test_systems_of_a_record_are_estimates_with_their_runs(tmp_path):
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    systems = {
        "alone": {"mean": estimate, "runs": [0.4, 0.6]},
        "sum": {"mean": estimate, "runs": [0.5], "minus alone": estimate | {"value": -0.1}},
    }
    content = {"figures": {"emotions": {"macro-F1": systems}}}
    (tmp_path / "some.json").write_text(json.dumps(content), encoding="utf-8")
    record = recorded.read("some", tmp_path)
    table = recorded.systems(record, "emotions", "macro-F1")
    assert table.loc["alone", "mean"] == Estimate(0.5, 0.4, 0.6)
    assert table.loc["alone", "runs"] == [0.4, 0.6]
    assert table.loc["alone", "minus alone"] is None
    assert table.loc["sum", "minus alone"].value == -0.1
    with pytest.raises(DataError, match="no figures of virality, macro-F1; the record has emotio"):
        recorded.systems(record, "virality", "macro-F1")


def test_a_missing_record_says_who_writes_it(tmp_path):
    with pytest.raises(DataError, match=r"some\.json is missing.*benchmarks/some\.py"):
        recorded.read("some", tmp_path)


def test_the_record_of_lesson_03_fits_together():
    record = recorded.read("multitask")
    for task, measures in record["figures"].items():
        for measure in measures:
            table = recorded.systems(record, task, measure)
            assert {f"{task} alone", "sum", "weighted sum", "PCGrad", "TF-IDF"} <= set(table.index)
            for system, row in table.iterrows():
                runs = row["runs"]
                assert len(runs) == (1 if system == "TF-IDF" else record["seeds"])
                assert row["mean"].value == pytest.approx(sum(runs) / len(runs))
                assert row["mean"].low < row["mean"].value < row["mean"].high
                for reference in (f"{task} alone", "sum", "TF-IDF"):
                    gain = row[f"minus {reference}"]
                    if system == reference:
                        assert gain is None
                    else:
                        expected = row["mean"].value - table.loc[reference, "mean"].value
                        assert gain.value == pytest.approx(expected)
    # Better than chance, which is one half, and than saying each label of every text.
    assert record["figures"]["emotions"]["ROC AUC"]["TF-IDF"]["mean"]["low"] > 0.6

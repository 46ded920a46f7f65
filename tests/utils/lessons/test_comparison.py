"""Systems beside each other: means over runs, paired differences, thresholds from validation."""

import numpy as np
import pytest

from viralbert_utils.base.errors import DataError
from viralbert_utils.evaluation import thresholds
from viralbert_utils.evaluation.metrics import macro_f1, mean_roc_auc
from viralbert_utils.lessons.comparison import Comparison


@pytest.fixture
def labels() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        task: {split: rng.integers(0, 2, (80, n_classes)) for split in ("validation", "test")}
        for task, n_classes in (("emotions", 3), ("virality", 1))
    }


def noisy(labels, noise: float, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {split: rows * 0.4 + rng.random(rows.shape) * noise for split, rows in labels.items()}


def test_figures_are_those_of_the_runs_with_thresholds_from_validation(labels):
    compared = Comparison(labels)
    runs = [noisy(labels["emotions"], 0.6, seed) for seed in (1, 2)]
    for run in runs:
        compared.add("good", "emotions", run)
    truth, tuning = labels["emotions"]["test"], labels["emotions"]["validation"]
    each = compared.each_run("good")
    assert each["emotions, ROC AUC"] == [mean_roc_auc(truth, run["test"]) for run in runs]
    assert each["emotions, macro-F1"] == [
        macro_f1(
            truth,
            thresholds.decide(run["test"], thresholds.shrunk(tuning, run["validation"])),
        )
        for run in runs
    ]
    estimate = compared.estimates("good")["emotions, macro-F1"]
    assert estimate.value == pytest.approx(np.mean(each["emotions, macro-F1"]))
    assert estimate.low < estimate.value < estimate.high
    assert set(each) == {"emotions, ROC AUC", "emotions, macro-F1"}  # nothing of virality


def test_differences_are_paired(labels):
    compared = Comparison(labels)
    good = noisy(labels["virality"], 0.6, 1)
    compared.add("good", "virality", good)
    # The same order of texts: the same ROC AUC on every resample.
    compared.add("twin", "virality", {split: p / 2 for split, p in good.items()})
    compared.add("blind", "virality", noisy(labels["virality"], 100, 2))
    same = compared.differences("twin", "good")["virality, ROC AUC"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = compared.differences("blind", "good")
    assert list(worse) == ["virality, ROC AUC"]
    assert worse["virality, ROC AUC"].side == "below"


def test_resamples_are_shared(labels):
    """So what grows between two differences is paired as well."""
    compared = Comparison(labels, n_resamples=20)
    good = noisy(labels["emotions"], 0.6, 1)
    compared.add("good", "emotions", good)
    compared.add("twin", "emotions", {split: p / 2 for split, p in good.items()})
    own, other = (compared.resampled(name, "emotions", "ROC AUC") for name in ("good", "twin"))
    assert own.shape == (20,) and own.std() > 0
    assert (own == other).all()


def test_only_what_both_systems_have_is_compared(labels):
    compared = Comparison(labels)
    for task in labels:
        compared.add("both", task, noisy(labels[task], 0.6, 1))
    compared.add("one", "virality", {"test": noisy(labels["virality"], 0.6, 2)["test"]})
    assert list(compared.differences("one", "both")) == ["virality, ROC AUC"]
    with pytest.raises(DataError, match="'one' has no run of emotions; there are both"):
        compared.outputs("one", "emotions", "macro-F1")


def test_a_run_that_is_added_later_counts(labels):
    compared = Comparison(labels)
    compared.add("one", "virality", noisy(labels["virality"], 0.6, 1))
    first = compared.estimates("one")["virality, ROC AUC"]
    compared.add("one", "virality", noisy(labels["virality"], 100, 2))
    second = compared.estimates("one")["virality, ROC AUC"]
    assert len(compared.each_run("one")["virality, ROC AUC"]) == 2
    assert second.value < first.value - 0.1 and second.high < first.high


def test_thresholds_of_a_run_are_drawn_once(labels, monkeypatch):
    drawn = []
    shrunk = thresholds.shrunk
    monkeypatch.setattr(thresholds, "shrunk", lambda *given: drawn.append(1) or shrunk(*given))
    compared = Comparison(labels)
    for name in ("one", "two"):
        compared.add(name, "emotions", noisy(labels["emotions"], 0.6, 1))
    compared.estimates("one")
    compared.differences("one", "two")
    assert len(drawn) == 2

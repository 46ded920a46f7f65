"""Systems for several tasks beside each other: same test texts, same resamples (lesson 03)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from viralbert_utils.base.errors import DataError
from viralbert_utils.evaluation import intervals, thresholds
from viralbert_utils.evaluation.metrics import macro_f1, mean_over_runs, mean_roc_auc

METRICS = {"ROC AUC": mean_roc_auc, "macro-F1": macro_f1}


class Comparison:
    """What systems answer on validation and test texts, run by run, and how good it is.

    A task of several classes is judged by macro-F1 as well, each run with thresholds that are drawn
    from its validation answers (`thresholds.shrunk`, lesson 04).

    Args:
        labels: Task -> split (`validation`, `test`) -> `(n_texts, n_classes)`, 0/1.
        n_resamples: Bootstrap resamples of the test texts behind each interval.
        seed: Decides on the resamples. All systems share them, so their differences are paired.
    """

    def __init__(
        self, labels: Mapping[str, Mapping[str, np.ndarray]], n_resamples: int = 300, seed: int = 0
    ) -> None:
        """See the class."""
        self.labels = labels
        self._answers: dict[tuple[str, str], list[Mapping[str, np.ndarray]]] = {}
        self._outputs: dict[tuple[str, str, str], np.ndarray] = {}
        self._resampled: dict[tuple[str, str, str], np.ndarray] = {}
        self._draws = {}
        for task, parts in labels.items():
            n_texts = len(parts["test"])
            rng = np.random.default_rng(seed)
            self._draws[task] = rng.integers(n_texts, size=(n_resamples, n_texts))

    def add(self, name: str, task: str, answers: Mapping[str, np.ndarray]) -> None:
        """Add a run of a system.

        Args:
            name: The system.
            task: A key of `labels`.
            answers: Split -> probabilities `(n_texts, n_classes)`; validation may be missing where
                no threshold is needed.
        """
        self._answers.setdefault((name, task), []).append(answers)
        for kept in (self._outputs, self._resampled):
            for measure in METRICS:
                kept.pop((name, task, measure), None)

    def runs(self, name: str, task: str) -> list[Mapping[str, np.ndarray]]:
        """What each run of a system answers, as it was added.

        Raises:
            DataError: The system has no run of this task.
        """
        if (name, task) not in self._answers:
            known = ", ".join(sorted({system for system, own in self._answers if own == task}))
            raise DataError(f"system {name!r} has no run of {task}; there are {known or 'none'}")
        return self._answers[name, task]

    def measures(self, name: str) -> list[tuple[str, str]]:
        """Task and measure of each figure of a system."""
        return [
            (task, measure)
            for task, parts in self.labels.items()
            if (name, task) in self._answers
            for measure in list(METRICS)[: 2 if parts["test"].shape[1] > 1 else 1]
        ]

    def outputs(self, name: str, task: str, measure: str) -> np.ndarray:
        """What is judged on the test texts `(n_texts, n_classes, n_runs)`: probabilities, or the
        decisions at each run's thresholds."""
        key = (name, task, measure)
        if key not in self._outputs:
            runs = [run["test"] for run in self.runs(name, task)]
            if measure != "ROC AUC":
                cuts = self._cuts(name, task)
                runs = [thresholds.decide(run, cut) for run, cut in zip(runs, cuts, strict=True)]
            self._outputs[key] = np.stack(runs, axis=-1)
        return self._outputs[key]

    def _cuts(self, name: str, task: str) -> list[np.ndarray]:
        """Thresholds of each run, drawn from its validation answers."""
        tuning = self.labels[task]["validation"]
        return [thresholds.shrunk(tuning, run["validation"]) for run in self.runs(name, task)]

    def each_run(self, name: str) -> dict[str, list[float]]:
        """`task, measure` -> the figure of each run on the test texts."""
        return {
            f"{task}, {measure}": [
                METRICS[measure](self.labels[task]["test"], run)
                for run in np.moveaxis(self.outputs(name, task, measure), -1, 0)
            ]
            for task, measure in self.measures(name)
        }

    def estimates(self, name: str) -> dict[str, intervals.Estimate]:
        """`task, measure` -> the mean over the runs, with its 95 % interval."""
        means = {what: float(np.mean(runs)) for what, runs in self.each_run(name).items()}
        return {
            f"{task}, {measure}": intervals.estimate(
                means[f"{task}, {measure}"], self.resampled(name, task, measure), 0.95
            )
            for task, measure in self.measures(name)
        }

    def differences(self, name: str, reference: str) -> dict[str, intervals.Estimate]:
        """`task, measure` -> mean over the runs minus that of another system, with its paired 95 %
        interval; only what both have is compared."""
        own, other = self.each_run(name), self.each_run(reference)
        return {
            f"{task}, {measure}": intervals.estimate(
                float(np.mean(own[f"{task}, {measure}"]) - np.mean(other[f"{task}, {measure}"])),
                self.resampled(name, task, measure) - self.resampled(reference, task, measure),
                0.95,
            )
            for task, measure in self.measures(name)
            if (task, measure) in self.measures(reference)
        }

    def resampled(self, name: str, task: str, measure: str) -> np.ndarray:
        """The figure on each resample `(n_resamples,)`; all systems share the resamples."""
        key = (name, task, measure)
        if key not in self._resampled:
            metric, truth = mean_over_runs(METRICS[measure]), self.labels[task]["test"]
            values = self.outputs(name, task, measure)
            self._resampled[key] = np.array(
                [metric(truth[rows], values[rows]) for rows in self._draws[task]]
            )
        return self._resampled[key]

"""One network for 28 emotions, CEDR's six classes and virality, taught by others.

A network that is trained on the three tasks' labels at once answers each of them worse than three
networks would, because each text carries the labels of one task only. So single teachers come
first: for each task a fine-tuned encoder and TF-IDF with logistic regression, in `N_FOLDS` folds,
each asked about the texts that it has not been trained on. Then one student is trained on all
texts, and of each it learns all three tasks: its own label mixed with what the teachers say, and of
the other tasks what the teachers say alone (`viralbert_utils.lessons.soft_targets`, lesson 03).

The model that the package carries was made by it; see `model/MODEL_CARD.md`.
"""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from viralbert.environment import environment
from viralbert.labelled import CLASSES, labels_of, read_set
from viralbert.serving.predictor import Predictor
from viralbert.trainings import Training, finished, keep_to, recipe
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import whole_file, write_whole
from viralbert_utils.base.tokens import encode
from viralbert_utils.data import combine, sources
from viralbert_utils.encoders.loading import load_encoder
from viralbert_utils.evaluation import baselines, calibration, intervals, metrics, thresholds
from viralbert_utils.lessons import rare_classes, soft_targets
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier, PooledClassifier
from viralbert_utils.models.inference import predict_logits
from viralbert_utils.training import loop
from viralbert_utils.training.losses import Loss, on_each_device
from viralbert_utils.training.settings import Encoded, Settings, Task

N_FOLDS = 4
# Settings of other trainings, which have no meaning here, and the options that set them.
NOT_HERE = {
    "pooling": "--pooling",
    "pos_weight": "--pos-weight",
    "frozen_epochs": "--frozen-epochs",
    "top_layers": "--top-layers",
    "keep": "--keep",
    "layer_share": "--layer-share",
    "frozen_rate": "--frozen-lr",
    "warmup": "--warmup",
    "evaluate": "--evaluate",
}
LABEL_SHARE = 0.4  # of a target: the text's own label; the rest is what the teachers say
POOLING, DROPOUT = "attention+max+mean", 0.4
# How much a task counts in the student's loss. Emotions are what the shared layers are for.
TASK_WEIGHTS = {"emotions": 1.0, "cedr": 0.3, "virality": 0.2}
# The teachers of the smaller tasks begin with what the teacher of the emotions has learnt.
TEACHER_EPOCHS = {"cedr": 4, "virality": 3}
_log = logging.getLogger("viralbert.distillation")


@dataclass(frozen=True)
class Part:
    """A task's texts: those to train on, and those that are held out.

    Attributes:
        names: The classes.
        texts: Training texts.
        labels: Theirs, `(n_texts, n_classes)`, 0/1.
        held_texts: Texts that tune thresholds and are scored, never trained on.
        held_labels: Theirs.
        tunes: Whether a held-out text belongs to the validation split `(n_held,)`.
        published_test: The test split is the publisher's: it is scored with thresholds from
            validation, and tunes nothing. Otherwise both halves tune for each other.
    """

    names: tuple[str, ...]
    texts: list[str]
    labels: np.ndarray
    held_texts: list[str]
    held_labels: np.ndarray
    tunes: np.ndarray
    published_test: bool

    @property
    def tuning(self) -> np.ndarray:
        """Whether a held-out text decides on the thresholds of the model `(n_held,)`."""
        return self.tunes if self.published_test else np.ones(len(self.tunes), dtype=bool)

    @property
    def scored(self) -> np.ndarray:
        """Whether a held-out text is scored `(n_held,)`."""
        return ~self.tunes if self.published_test else self.tuning

    @cached_property
    def fold(self) -> np.ndarray:
        """The fold of each training text `(n_texts,)`, dealt out by its rarest label."""
        return thresholds.folds(self.labels, N_FOLDS)


def read(training: Training) -> tuple[dict[str, Part], list[dict[str, Any]]]:
    """The tasks that the data have, cleaned and split, and the files that were read.

    Raises:
        DataError: There are no emotions or no virality, or as `sources.load` and `cleaning.clean`.
    """
    files: list[dict[str, Any]] = []
    parts: dict[str, Part] = {}
    for name in ("emotions", "cedr", "virality"):
        if name == "cedr" and not sources.has("cedr", training.data):
            continue
        tables, published = read_set(name, training, files)
        if name == "cedr":
            none = pd.DataFrame({"text": [], "labels": []})
            tables = {s: combine.six_classes(none, table)[0] for s, table in tables.items()}
        labels = {split: labels_of(name, table) for split, table in tables.items()}
        held = [tables["validation"], tables["test"]]
        parts[name] = Part(
            tuple(CLASSES[name]),
            list(tables["train"]["text"]),
            labels["train"],
            [text for table in held for text in table["text"]],
            np.concatenate([labels["validation"], labels["test"]]),
            np.arange(sum(map(len, held))) < len(held[0]),
            "test" in published,
        )
    return parts, files


class Distillation:
    """Teachers, student and figures of one training; each step lasts beyond a stopped process.

    Args:
        training: Encoder, data and settings.
        parts: As of `read`.
        output: Gets the teachers' answers and the checkpoints.
        show_progress: A progress bar for each epoch.

    Raises:
        DataError: Texts are to be longer than the encoder reads.
    """

    def __init__(
        self, training: Training, parts: dict[str, Part], output: Path, show_progress: bool
    ) -> None:
        """See the class."""
        self.training, self.parts, self.output = training, parts, output
        self.show_progress = show_progress
        self.tokenizer, self.encoder = load_encoder(training.encoder)
        training.check_length(self.tokenizer, self.encoder)
        ends = np.cumsum([len(part.names) for part in parts.values()]).tolist()
        self.columns = {
            task: slice(end - len(part.names), end)
            for (task, part), end in zip(parts.items(), ends, strict=True)
        }
        # All training texts, task after task, then all held-out ones.
        self.texts = [text for part in parts.values() for text in part.texts]
        self.n_train = len(self.texts)
        self.texts += [text for part in parts.values() for text in part.held_texts]
        self.rows = encode(self.tokenizer, self.texts, training.max_length)
        file = self._seconds_file
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def own_rows(self, task: str, held: bool = False) -> slice:
        """Where a task's texts stand in `texts`."""
        start = self.n_train if held else 0
        for name, part in self.parts.items():
            n_texts = len(part.held_texts if held else part.texts)
            if name == task:
                return slice(start, start + n_texts)
            start += n_texts
        raise KeyError(task)

    def settings(self, epochs: int, seed: int) -> Settings:
        """How a network is trained here."""
        embedded = self.training.encoder == "embedded"
        return Settings(
            epochs=epochs,
            batch_size=self.training.batch_size,
            learning_rate=self.training.rate,
            head_factor=10,
            embedding_factor=2 if embedded else 1,
            weight_decay=0.05,
            schedule=self.training.schedule,
            seed=seed,
            keep="last",
        )

    def teachers(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What the teachers say of all texts.

        Returns:
            Probabilities `(n_texts, n_classes of all tasks)`, of training texts out of fold; and
            the mean logits of the folds by kind of teacher, for figures on held-out texts.
        """
        kinds = {
            "TF-IDF": [self._remember(f"tfidf-{k}", self._tfidf, k) for k in range(N_FOLDS)],
            "encoders": [self._remember(f"encoder-{k}", self._encoder, k) for k in range(N_FOLDS)],
        }
        matched = []
        for logits in kinds.values():
            said = np.empty((len(self.texts), logits[0].shape[1]))
            for task, part in self.parts.items():
                own = self.own_rows(task)
                fold = np.full(len(self.texts), -1)
                fold[own] = part.fold
                columns = self.columns[task]
                unseen = soft_targets.out_of_fold([one[:, columns] for one in logits], fold)
                mine = np.zeros(len(self.texts), dtype=bool)
                mine[own] = True
                said[:, columns] = soft_targets.match_rates(unseen, part.labels.mean(axis=0), mine)
            matched.append(said)
        means = {kind: np.mean(logits, axis=0) for kind, logits in kinds.items()}
        means["teachers"] = np.mean(matched, axis=0)
        return expit(means["teachers"]), means

    def _remember(self, name: str, compute: Callable[[int], np.ndarray], fold: int) -> np.ndarray:
        """A teacher's logits for all texts, from its file if it has finished before."""
        path = self.output / "teachers" / f"{name}.npy"
        if not path.is_file():
            start = time.perf_counter()
            logits = compute(fold)
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as new, new.open("wb") as file:
                np.save(file, logits.astype(np.float32))
            self._took(name, time.perf_counter() - start)
        return np.load(path).astype(np.float64)

    def _tfidf(self, fold: int) -> np.ndarray:
        logits = []
        for part in self.parts.values():
            others = part.fold != fold
            model = baselines.tfidf_logistic().fit(
                [text for text, other in zip(part.texts, others, strict=True) if other],
                part.labels[others],
            )
            logits.append(soft_targets.tfidf_logits(model, self.texts, len(part.names)))
        return np.concatenate(logits, axis=1)

    def _encoder(self, fold: int) -> np.ndarray:
        """A teacher for each task; the later ones begin with the encoder of the first."""
        logits, trained = [], copy.deepcopy(self.encoder)
        for number, (task, part) in enumerate(self.parts.items()):
            labels = torch.tensor(part.labels).float()
            others = np.flatnonzero(part.fold != fold)
            own = self.rows[self.own_rows(task)]
            torch.manual_seed(self.training.seed + fold)
            model = PooledClassifier(
                trained if number == 0 else copy.deepcopy(trained),
                len(part.names),
                POOLING,
                DROPOUT,
                rates=labels[others].mean(dim=0),
            )
            loss = masked_entropy(
                {task: slice(0, len(part.names))},
                rare_classes.positive_weights(labels[others], "power"),
            )
            held = self.rows[self.own_rows(task, held=True)]
            self._fit(
                model,
                Encoded([own[i] for i in others], labels[others]),
                Encoded(held, torch.tensor(part.held_labels).float()),
                loss,
                TEACHER_EPOCHS.get(task, self.training.epochs),
                self.training.seed + fold,
                f"encoder-{fold}-{task}",
            )
            logits.append(predict_logits(model, self.rows, self.tokenizer.pad_token_id).numpy())
        return np.concatenate(logits, axis=1)

    def student(self, said: np.ndarray) -> tuple[MultiTaskClassifier, pd.DataFrame]:
        """The network that learns all tasks of all training texts.

        Args:
            said: The teachers' probabilities, as of `teachers`.
        """
        targets = said[: self.n_train].astype(np.float32)
        weights, rates = [], []
        for task, part in self.parts.items():
            own, columns = self.own_rows(task), self.columns[task]
            targets[own, columns] = soft_targets.soften(
                part.labels, said[own, columns], LABEL_SHARE
            )
            labels = torch.tensor(part.labels).float()
            weights.append(rare_classes.positive_weights(labels, "power"))
            rates.append(labels.mean(dim=0))
        unknown = np.full((len(self.texts) - self.n_train, targets.shape[1]), np.nan, np.float32)
        for task, part in self.parts.items():
            own = self.own_rows(task, held=True)
            unknown[own.start - self.n_train : own.stop - self.n_train, self.columns[task]] = (
                part.held_labels
            )
        torch.manual_seed(self.training.seed)
        model = PooledClassifier(
            self.encoder, targets.shape[1], POOLING, DROPOUT, rates=torch.cat(rates)
        )
        history = self._fit(
            model,
            Encoded(self.rows[: self.n_train], torch.tensor(targets)),
            Encoded(self.rows[self.n_train :], torch.tensor(unknown)),
            masked_entropy(self.columns, torch.cat([part for part in weights if part is not None])),
            self.training.epochs,
            self.training.seed,
            "student",
        )
        return by_task(model, {task: part.names for task, part in self.parts.items()}), history

    def _fit(
        self,
        model: PooledClassifier,
        train: Encoded,
        validation: Encoded,
        loss: Loss,
        epochs: int,
        seed: int,
        name: str,
    ) -> pd.DataFrame:
        start = time.perf_counter()
        checkpoint = self.output / "teachers" / f"{name}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        history = loop.fit(
            model,
            Task(train, validation, loss),
            self.settings(epochs, seed),
            self.tokenizer.pad_token_id,
            checkpoint,
            self.show_progress,
        )
        if name == "student":
            self._took(name, time.perf_counter() - start)
        return history

    def _took(self, step: str, seconds: float) -> None:
        """Keep the seconds of a step, so that they are known when a stopped run has gone on."""
        self.seconds[step] = self.seconds.get(step, 0.0) + round(seconds, 1)
        write_whole(self._seconds_file, json.dumps(self.seconds, indent=1) + "\n")
        _log.warning("%s: %.0f s", step, seconds)

    @property
    def _seconds_file(self) -> Path:
        return self.output / "teachers" / "seconds.json"


def masked_entropy(columns: Mapping[str, slice], positive_weights: torch.Tensor | None) -> Loss:
    """Binary cross-entropy of several tasks side by side; targets that are NaN do not count.

    Args:
        columns: Task -> its columns. The loss is the sum over the tasks, each the mean over its
            targets times its weight in `TASK_WEIGHTS`, divided by the sum of the weights.
        positive_weights: Weights of positives `(n_classes,)`.
    """
    total = sum(TASK_WEIGHTS[task] for task in columns)
    there = on_each_device(positive_weights)

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        known = ~labels.isnan()
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels.nan_to_num(), pos_weight=there(logits.device), reduction="none"
        )
        entropy = torch.where(known, entropy, 0.0)
        value = logits.new_zeros(())
        for task, own in columns.items():
            n_known = known[:, own].sum().clamp(min=1)
            value = value + TASK_WEIGHTS[task] / total * entropy[:, own].sum() / n_known
        return value

    return loss


def by_task(model: PooledClassifier, names: Mapping[str, tuple[str, ...]]) -> MultiTaskClassifier:
    """The same network with the columns of its linear head as a head for each task."""
    heads = {task: Head(own) for task, own in names.items()}
    several = MultiTaskClassifier(model.encoder, heads, POOLING, model.dropout.p)
    shared = {name: value for name, value in model.head_state().items() if name[:5] != "head."}
    several.load_state_dict(shared, strict=False)
    with torch.no_grad():
        start = 0
        for task, own in names.items():
            layer: Any = several.heads[task][-1]  # type: ignore[index]
            layer.weight.copy_(model.head.weight[start : start + len(own)])
            layer.bias.copy_(model.head.bias[start : start + len(own)])
            start += len(own)
    return several.eval()


def tune(names: tuple[str, ...], labels: np.ndarray, logits: np.ndarray) -> Tuned:
    """A calibration, and thresholds of the calibrated probabilities, from the same rows."""
    line = calibration.platt(labels, logits)
    return Tuned(line, thresholds.Thresholds.tune(names, labels, line.apply(logits), "shrunk"))


@dataclass(frozen=True)
class Tuned:
    """What held-out rows say of a task's logits."""

    line: calibration.Calibration
    thresholds: thresholds.Thresholds


def decide_both_ways(part: Part, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decide the held-out texts without looking at their own labels.

    Each half is decided with the calibration and the thresholds of the other; with a published test
    split, that split alone is scored, with those of validation.

    Args:
        part: The task.
        logits: What a system gives for the held-out texts, `(n_held, n_classes)`.

    Returns:
        Labels, probabilities and decisions of the texts that are scored, `(n_scored, n_classes)`
        each.
    """
    probabilities, decided = np.empty(logits.shape), np.empty(logits.shape, dtype=np.int8)
    for half in (True, False):
        rows, others = part.tunes == half, part.tunes != half
        tuned = tune(part.names, part.held_labels[others], logits[others])
        probabilities[rows] = tuned.line.apply(logits[rows])
        decided[rows] = tuned.thresholds.apply(probabilities[rows], part.names)
    rows = part.scored
    return part.held_labels[rows], probabilities[rows], decided[rows]


def judge(part: Part, systems: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Figures of several systems on the held-out texts, each with its interval.

    Args:
        part: The task; see `decide_both_ways`.
        systems: Name -> logits of the held-out texts `(n_held, n_classes)`; the first is compared
            with each of the others, paired.
    """
    answers = {name: decide_both_ways(part, logits) for name, logits in systems.items()}
    first, (truth, own_p, own_decided) = next(iter(answers.items()))
    figures: dict[str, dict[str, Any]] = {}
    for name, (_, p, decided) in answers.items():
        figures[name] = {
            "macro-F1": vars(intervals.macro_f1_interval(truth, decided)),
            "ROC AUC": vars(intervals.bootstrap(metrics.mean_roc_auc, truth, p)),
            "Brier score": float(calibration.brier_score(truth, p).mean()),
        }
        if name != first:
            of_f1 = intervals.macro_f1_difference(truth, decided, own_decided)
            of_auc = intervals.bootstrap(intervals.gain(metrics.mean_roc_auc), truth, p, own_p)
            figures[name][f"{first} minus this, macro-F1"] = vars(of_f1)
            figures[name][f"{first} minus this, ROC AUC"] = vars(of_auc)
    return figures


def run(training: Training, output: Path, show_progress: bool = False) -> dict[str, Any]:
    """Train teachers and student, judge and save; a stopped run goes on where it was.

    Args:
        training: Encoder, data and settings.
        output: Gets `model/`, `metrics.json`, `history.csv`, `teachers/` and, if wished, `onnx/`.
        show_progress: A progress bar for each epoch.

    Returns:
        What stands in `metrics.json`.

    Raises:
        DataError: Bad data, or the folder holds another training.
    """
    if foreign := [
        option
        for name, option in NOT_HERE.items()
        if getattr(training, name) != getattr(Training, name)
    ]:
        raise DataError(
            "dataset viralbert is trained in its own way and judged on all texts that are held "
            f"out: leave {', '.join(foreign)} out"
        )
    parts, files = read(training)
    if (done := finished(output, training, files)) is not None:
        return done
    work = Distillation(training, parts, output, show_progress)
    keep_to(output, training, files)
    said, means = work.teachers()
    student, history = work.student(said)
    pad_id = work.tokenizer.pad_token_id
    tuned, figures = {}, {}
    for task, part in parts.items():
        held, columns = work.own_rows(task, held=True), work.columns[task]
        baseline = baselines.tfidf_logistic().fit(part.texts, part.labels)
        systems = {
            "model": predict_logits(student, work.rows[held], pad_id, task=task)
            .numpy()
            .astype(np.float64),
            "TF-IDF": soft_targets.tfidf_logits(baseline, part.held_texts, len(part.names)),
        }
        # The TF-IDF of the folds is a part of the teachers, and no baseline.
        systems |= {kind: means[kind][held, columns] for kind in ("encoders", "teachers")}
        figures[task] = {"held out": judge(part, systems)}
        rows = part.tuning
        tuned[task] = tune(part.names, part.held_labels[rows], systems["model"][rows])
        calibrate_head(student, task, tuned[task].line)
    about = {
        "problem_type": thresholds.MULTI_LABEL,
        "max_length": training.max_length,
        "head_share": 1.0,
        "note": training.note,
    }
    stored = {task: own.thresholds for task, own in tuned.items()}
    Predictor(student, work.tokenizer, about, stored).save(output / "model")
    if training.export_onnx:
        from viralbert.serving.export import export

        export(output / "model", output / "onnx")
    write_whole(output / "history.csv", history.to_csv(index=False))
    result = {
        "recipe": recipe(training),
        "figures": figures,
        "rows": {
            task: {"train": len(part.texts), "held out": len(part.held_texts)}
            for task, part in parts.items()
        },
        "files": files,
        "seconds": round(sum(work.seconds.values()), 1),
        "seconds of each step": work.seconds,
        "environment": environment(),
    }
    write_whole(output / "metrics.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    for checkpoint in (output / "teachers").glob("*.pt"):
        checkpoint.unlink()
    return result


def calibrate_head(model: MultiTaskClassifier, task: str, line: calibration.Calibration) -> None:
    """Put a calibration into the weights of a linear head: its logits then are calibrated."""
    layer: Any = model.heads[task][-1]  # type: ignore[index]
    slope, intercept = (torch.tensor(part, dtype=torch.float32) for part in vars(line).values())
    with torch.no_grad():
        layer.weight.mul_(slope[:, None].to(layer.weight.device))
        layer.bias.mul_(slope.to(layer.bias.device)).add_(intercept.to(layer.bias.device))

"""Text in, answers out: a trained classifier with its thresholds, as one folder and one object.

`Predictor` takes any text classifier of the course, with one task or several; `ViralBERT` is the
one that knows virality and emotions, and so finds moments. Lesson 06 builds its folder from what
lessons 03 and 04 leave. A score is a judgement of the text by the annotation guide, never a
forecast of views.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from scipy.special import expit, softmax

from viralbert.moments.scores import Scores
from viralbert.serving import aims, shipped, text_batches
from viralbert.serving.onnx_model import MODEL, OnnxModel
from viralbert_utils.base import tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import own_path, whole_folder, write_whole
from viralbert_utils.base.texts import normalise
from viralbert_utils.data.emotions import RUSSIAN_NAMES, russian_name
from viralbert_utils.evaluation.calibration import Calibration
from viralbert_utils.evaluation.thresholds import MULTI_LABEL, SINGLE_LABEL, Thresholds, decide

WINDOW = 4096  # texts that are read ahead and sorted by length
# of a text that is too long, unless the model's settings say otherwise: half is its beginning
HEAD_SHARE = 0.5
MAX_CHARS = 100  # a token of a long text at each end, before it is cut into tokens
# slope and intercept of a calibration: steeper ones would only tell logits apart that are equal
MAX_LINE = 1e6
_TAKEN = {
    "text",
    "viral_score",
    "is_viral",
    "probabilities",
    "emotion",
    "class",
    "probability",
}  # keys of answers that can be no task's name
_log = logging.getLogger("viralbert.predictor")


@dataclass(frozen=True)
class Label:
    """A class that a text carries, for example an emotion.

    `russian` repeats the name where there is no Russian one.
    """

    name: str
    russian: str
    probability: float


@dataclass(frozen=True)
class Labels:
    """What the model says of one text in one task.

    Attributes:
        labels: Those that reach their thresholds, most probable first; in a single-label task the
            most probable alone.
        probabilities: Those of all classes, in the model's order.
    """

    labels: tuple[Label, ...]
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Prediction(Mapping[str, Any]):
    """What the model says of one text. What the model has no task for is `None`.

    It can be read like the dictionary that ViralBERT v2 returns, too: `result["viral_score"]`,
    `result["is_viral"]`, `result["emotions"]` (their names alone, most probable first),
    `result["probabilities"]`, and other tasks under their names. `as_dict` gives more, for JSON.

    Attributes:
        viral_score: Probability that the annotation guide would call the text viral, 0 .. 1.
        is_viral: Whether it reaches the threshold.
        emotions: Those that reach their thresholds, most probable first.
        probabilities: Those of all emotions, in the model's order.
        others: Answers of the tasks beside virality and emotions, by their names.
    """

    viral_score: float | None = None
    is_viral: bool | None = None
    emotions: tuple[Label, ...] | None = None
    probabilities: dict[str, float] | None = None
    others: Mapping[str, Labels] = field(default_factory=dict)

    @classmethod
    def of(cls, answers: Mapping[str, Labels]) -> Prediction:
        """Make a prediction from the answer of each task.

        Virality and emotions have fields of their own, those of ViralBERT v2.
        """
        viral, emotions = answers.get("virality"), answers.get("emotions")
        return cls(
            next(iter(viral.probabilities.values())) if viral else None,
            bool(viral.labels) if viral else None,
            emotions.labels if emotions else None,
            emotions.probabilities if emotions else None,
            {
                task: labels
                for task, labels in answers.items()
                if task not in ("virality", "emotions")
            },
        )

    def __getitem__(self, key: str) -> Any:
        """A value by its name in ViralBERT v2.

        Raises:
            KeyError: There is no such value, or the model has no task for it.
        """
        return self._named[key]

    def __iter__(self) -> Iterator[str]:
        """The names of what the model says."""
        return iter(self._named)

    def __len__(self) -> int:
        """How many values have a name."""
        return len(self._named)

    def probabilities_of(self, task: str) -> list[float]:
        """Those of a task's classes, in the model's order.

        Raises:
            KeyError: The model has no such task.
        """
        if task == "virality" and self.viral_score is not None:
            return [self.viral_score]
        if task == "emotions" and self.probabilities is not None:
            return list(self.probabilities.values())
        return list(self.others[task].probabilities.values())

    @cached_property
    def _named(self) -> dict[str, Any]:
        values = self.as_dict()
        if self.emotions is not None:
            values["emotions"] = [label.name for label in self.emotions]
        return values

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for JSON, without what the model has no task for.

        Other tasks stand under their own names.
        """
        known = {
            name: value
            for name in ("viral_score", "is_viral", "emotions", "probabilities")
            if (value := getattr(self, name)) is not None
        }
        if self.emotions is not None:
            known["emotions"] = [vars(label) for label in self.emotions]
        return known | {
            task: {
                "labels": [vars(label) for label in answer.labels],
                "probabilities": answer.probabilities,
            }
            for task, answer in self.others.items()
        }


@dataclass(frozen=True)
class Task:
    """A task of a model, and how its probabilities become answers.

    Attributes:
        names: The classes, in the order of the outputs.
        thresholds: From where each class counts; `None` for a single-label task, whose answer is
            the most probable one.
    """

    names: tuple[str, ...]
    thresholds: Thresholds | None

    @property
    def problem_type(self) -> str:
        """`multi_label_classification` or `single_label_classification`."""
        return SINGLE_LABEL if self.thresholds is None else MULTI_LABEL

    @property
    def note(self) -> str:
        """Say in words that nobody has tuned the thresholds.

        The note is empty if somebody has, or if there are none to tune.
        """
        if self.thresholds is None or self.thresholds.n_rows:
            return ""
        return (
            "no thresholds are stored with the model, so a class counts from a probability of "
            "0.5 (see lesson 04)"
        )

    @cached_property
    def russian(self) -> tuple[str, ...]:
        """The classes in Russian; the names themselves where there are no others."""
        # "neutral" alone makes no set of emotions: reviews have it, too.
        are_emotions = len(RUSSIAN_NAMES.keys() & set(self.names) - {"neutral"}) > 0
        return tuple(
            russian_name(name) if are_emotions or name != "neutral" else name for name in self.names
        )

    def answers(self, probabilities: np.ndarray) -> Iterator[Labels]:
        """An answer for each row of probabilities `(n_texts, n_classes)`.

        Raises:
            DataError: A probability is NaN.
        """
        if self.thresholds is not None:
            reached = self.thresholds.apply(probabilities, self.names)
        else:
            highest = decide(probabilities, probabilities.max(axis=1, keepdims=True))
            reached = highest & (highest.cumsum(axis=1) == 1)
        reached = reached & (
            probabilities > 0
        )  # an empty text reaches no threshold, not even one of 0
        for row, values in zip(reached, probabilities.tolist(), strict=True):
            reached_classes = sorted(np.flatnonzero(row).tolist(), key=lambda k: -values[k])
            yield Labels(
                tuple(Label(self.names[k], self.russian[k], values[k]) for k in reached_classes),
                dict(zip(self.names, values, strict=True)),
            )


@dataclass(frozen=True)
class Predictor:
    """A text classifier of one task or several, with all that turns its logits into answers.

    An empty text (nothing but blanks and invisible characters) says nothing: its scores are 0, it
    is not viral and has no label. One empty cell in a million rows must not stop the rest, and what
    the model would answer to no words are its base rates. Emoji alone and other languages are read
    like any text, but nobody has measured the model on them. Of a text with more than `max_length`
    tokens the beginning and the end are read.

    Attributes:
        model: A classifier of `models`, or an `OnnxModel`.
        tokenizer: Its tokenizer.
        settings: What `storage.load_classifier` gives. `max_length`, `head_share` and
            `problem_type` are used; of a pooled classifier `names` and `task`, too. See `described`
            for what stands in when they are missing.
        thresholds: Task -> thresholds of its classes, on calibrated probabilities. A multi-label
            task without decides at 0.5, and `note` says so.
        calibration: That of virality (`calibration.platt`, one class); `None` leaves the model's
            probabilities.
        precision: See `devices.precision`; an exported model has its own.
        aims: Name -> task -> thresholds for a purpose, for `for_aim` to choose from; see `aims`.
    """

    model: Any
    tokenizer: Any
    settings: Mapping[str, Any]
    thresholds: Mapping[str, Thresholds] = field(default_factory=dict)
    calibration: Calibration | None = None
    precision: str = "auto"
    aims: Mapping[str, Mapping[str, Thresholds]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a model that does not name its classes.

        Thresholds or a calibration that belong to another model are refused, too.
        """
        names, problem = self._names, self._described["problem_type"]
        if not names:
            raise DataError(
                "expected a classifier that names its classes (a MultiTaskClassifier, or `names` "
                "in the settings of a "
                f"PooledClassifier), found {type(self.model).__name__} with the settings "
                f"{list(self.settings)}"
            )
        if problem not in (SINGLE_LABEL, MULTI_LABEL):
            raise DataError(
                f"problem_type {problem!r} is not known; expected {SINGLE_LABEL} or {MULTI_LABEL}"
            )
        if taken := sorted(_TAKEN & names.keys()):
            raise DataError(
                f"{', '.join(taken)} can be no name of a task: answers have a key of this name "
                "already"
            )
        if foreign := sorted(self.thresholds.keys() - names.keys()):
            raise DataError(
                f"thresholds of {', '.join(foreign)}, where the model has the tasks "
                f"{', '.join(names)}"
            )
        if problem == SINGLE_LABEL and self.thresholds:
            raise DataError(
                f"thresholds of {', '.join(self.thresholds)}, where the problem_type is "
                f"{SINGLE_LABEL}: its answer is "
                "the most probable class; leave the thresholds out, or save the model as "
                f"{MULTI_LABEL}"
            )
        for task, thresholds in self.thresholds.items():
            thresholds.check_names(names[task])
        self._check_aims()
        if "virality" in names and (problem, len(names["virality"])) != (MULTI_LABEL, 1):
            raise DataError(
                f"the task virality is one class, viral or not ({MULTI_LABEL}); found "
                f"{', '.join(names['virality'])} "
                f"({problem}): give that task another name"
            )
        if self.calibration is not None and "virality" not in names:
            raise DataError(
                f"a calibration of virality, where the model has {', '.join(names)}; leave it out"
            )

    def _check_aims(self) -> None:
        names = self._names if self._described["problem_type"] == MULTI_LABEL else {}
        for aim, tasks in self.aims.items():
            aims.check_name(aim)
            if not tasks or not tasks.keys() <= names.keys():
                raise DataError(
                    f"aim {aim}: expected thresholds of a task that has any "
                    f"({', '.join(names) or 'this model has none, it answers the likeliest class'})"
                    f", found {', '.join(tasks) or 'none'}"
                )
            for task, thresholds in tasks.items():
                thresholds.check_names(names[task])

    @classmethod
    def load(
        cls, folder: Path | str | None = None, device: str | None = None, precision: str = "auto"
    ) -> Self:
        """Read a folder that a classifier, a predictor or an export was saved in.

        Without a folder it is the model that comes with the package (`viralbert/model`), put
        together on first use. An exported model is read without torch.

        A process that has predicted may be forked: on the CPU, the child predicts with one thread.
        A GPU belongs to one process: start others with `multiprocessing.get_context("spawn")` and
        load the model in each.

        Args:
            folder: E.g. `runs/sample/viralbert`, `models/combo/model`; see above if not given.
            device: See `devices.default`. An exported model computes on the CPU.
            precision: See `devices.precision`. An exported model has its own.

        Raises:
            DataError: Something is missing or damaged, the thresholds are those of other classes,
                the model reads a table beside the text, or the device or the precision isn't there.
        """
        path = own_path(shipped.folder(device, precision) if folder is None else folder)
        load = cls._load_exported if (path / MODEL).is_file() else cls._load_trained
        predictor = load(path, device, precision)
        if predictor.note:
            _log.warning("%s: %s", path, predictor.note)
        return predictor

    @classmethod
    def _load_trained(cls, path: Path, device: str | None, precision: str) -> Self:
        if (path / "cascade.json").is_file():
            raise DataError(
                f"{path} is a cascade: it needs a table, and here are texts alone: viralbert "
                "predict --table videos.csv --model FOLDER; in Python: Cascade.load(folder)"
            )
        if not (path / "classifier.json").is_file():
            raise DataError(
                f"{path} is no {'trained model' if path.is_dir() else 'folder'}: expected "
                f"classifier.json, or {MODEL} of an export; lesson 06 leaves one "
                "(viralbert run --only 06 leaves runs/sample/viralbert), and so does viralbert "
                "train (its folder model)"
            )
        thresholds = stored_thresholds(path)
        from viralbert_utils.base import devices
        from viralbert_utils.models.storage import load_classifier

        where = devices.default(device)
        devices.precision(where, precision)
        devices.compute_after_fork()
        model, tokenizer, settings = load_classifier(path, where)
        line = load_calibration(path)
        return cls(model, tokenizer, settings, thresholds, line, precision, aims.stored(path))

    @classmethod
    def _load_exported(cls, path: Path, device: str | None, precision: str) -> Self:
        model = OnnxModel.load(path)
        about = model.about
        if about["settings"].get("kind") == "hybrid":
            raise DataError(
                f"{path} is an exported hybrid: it needs a table beside each text, and here are "
                "texts alone: viralbert predict --table videos.csv --model FOLDER; in Python "
                "use Hybrid.load of the folder it was made from, or OnnxModel.load and its "
                "logits(texts, columns)"
            )
        stored_in = "int8" if about["int8"] else "float32"
        if device not in (None, "cpu") or precision not in ("auto", stored_in):
            raise DataError(
                f"{path} is an exported model: it computes on the CPU in {stored_in}, found device "
                f"{device or 'cpu'} and "
                f"precision {precision}; leave both options out, or give the folder that it was "
                "made from"
            )
        thresholds = {
            task: Thresholds.from_json(plain) for task, plain in about["thresholds"].items()
        }
        line = _calibration(about["calibration"], path) if about["calibration"] else None
        settings = dict(about["settings"]) | {
            name: about[name] for name in ("int8", "source_sha256", "versions")
        }
        stored = {
            aim: {task: Thresholds.from_json(plain) for task, plain in tasks.items()}
            for aim, tasks in about.get("aims", {}).items()  # older exports know of none
        }
        return cls(model, model.tokenizer, settings, thresholds, line, aims=stored)

    def save(self, folder: Path | str) -> None:
        """Write everything as one folder, whole.

        A predictor or classifier that stands there is replaced.

        Raises:
            DataError: The folder holds something else, or the model is an exported one.
        """
        if isinstance(self.model, OnnxModel):
            raise DataError("an exported model cannot be saved as one to train; copy its folder")
        from viralbert_utils.models.storage import save_classifier

        target = own_path(folder)
        if target.exists() and not (target / "classifier.json").is_file() and any(target.iterdir()):
            raise DataError(
                f"{target} holds something that is no model; give a new or an empty folder"
            )
        with whole_folder(target) as new:
            about = {name: value for name, value in self._described.items() if name != "versions"}
            save_classifier(new, self.model, self.tokenizer, **about)
            for task, thresholds in self.thresholds.items():
                thresholds.save(new / "thresholds" / f"{task}.json")
            aims.save(new, self.aims)
            if self.calibration is not None:
                plain = {name: float(value[0]) for name, value in vars(self.calibration).items()}
                write_whole(
                    new / "calibration.json", json.dumps({"virality": plain}, indent=1) + "\n"
                )

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The model's tasks, in the order of its outputs."""
        multi_label = self._described["problem_type"] == MULTI_LABEL
        return {
            task: Task(names, self.thresholds.get(task, _untuned(names)) if multi_label else None)
            for task, names in self._names.items()
        }

    @property
    def form(self) -> str:
        """What computes: `torch`, `onnx float32` or `onnx int8`."""
        if not isinstance(self.model, OnnxModel):
            return "torch"
        return f"onnx {'int8' if self.model.about['int8'] else 'float32'}"

    def for_aim(self, aim: str) -> Self:
        """The predictor that decides by the thresholds of an aim.

        Probabilities are the same, and so are the decisions of tasks that the aim says nothing of.

        Raises:
            DataError: No such aim is stored with the model.
        """
        if aim not in self.aims:
            raise DataError(
                f"aim {aim!r:.80}: expected one that is stored with the model "
                f"({', '.join(self.aims) or 'it has none; see lesson 04 and docs/predict.md'})"
            )
        return replace(self, thresholds={**self.thresholds, **self.aims[aim]})

    def with_aim(self, aim: str, thresholds: Mapping[str, Thresholds]) -> Self:
        """The predictor with one aim more, or another one of this name; `save` stores it.

        Args:
            aim: Its name, e.g. `moderation`.
            thresholds: Task -> thresholds, e.g. of `aims.tune`.

        Raises:
            DataError: The name can be none, or the thresholds are not those of the model's classes.
        """
        return replace(self, aims={**self.aims, aim: dict(thresholds)})

    def decide(self, predictions: Iterable[Prediction]) -> list[Prediction]:
        """Decide again, from the probabilities of predictions and this predictor's thresholds.

        So texts that are computed together can be answered by the aim that each request has chosen.
        """
        given = list(predictions)
        if not given:
            return []
        rows = {name: [one.probabilities_of(name) for one in given] for name in self.tasks}
        decided = [self.tasks[name].answers(np.array(values)) for name, values in rows.items()]
        return [
            Prediction.of(dict(zip(rows, answers, strict=True)))
            for answers in zip(*decided, strict=True)
        ]

    @property
    def note(self) -> str:
        """In words, for which tasks no thresholds are stored; empty if for none."""
        untuned = {name: task.note for name, task in self.tasks.items() if task.note}
        return f"{', '.join(untuned)}: {next(iter(untuned.values()))}" if untuned else ""

    @overload
    def predict(self, texts: str) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, texts: Iterable[str]) -> list[Prediction]: ...
    def predict(self, texts: str | Iterable[str]) -> Prediction | list[Prediction]:
        """One text -> one prediction; a list (or array, column, ...) -> a list in its order.

        Raises:
            DataError: Something that is no text, with its position.
        """
        if isinstance(texts, str):
            return next(self.predict_iter([texts]))
        return list(self.predict_iter(texts))

    def predict_iter(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """Predict the texts in their order, in constant memory.

        A window of 4,096 texts is read at a time.

        Raises:
            DataError: Something that is no text, with its position, when its window is read.
        """
        for scores in self._windows(texts):
            for answers in zip(
                *(self.tasks[task].answers(values) for task, values in scores.items()), strict=True
            ):
                yield Prediction.of(dict(zip(scores, answers, strict=True)))

    def _windows(self, texts: Iterable[str]) -> Iterator[dict[str, np.ndarray]]:
        """Probabilities of each task `(n, n_classes)`, a window of texts at a time."""
        # A mapping and a table give their keys and the names of their columns.
        other = isinstance(texts, str | bytes | Mapping) or hasattr(texts, "columns")
        if other or not isinstance(texts, Iterable):
            raise DataError(f"expected a list or another iterable of texts, found {texts!r:.80}")
        checked = (self._readable(position, text) for position, text in enumerate(texts))
        while window := list(islice(checked, WINDOW)):
            head_share = self.settings.get("head_share", HEAD_SHARE)
            yield self._probabilities(
                tokens.encode(self._fast_tokenizer, window, self._max_length, head_share)
            )

    @cached_property
    def _fast_tokenizer(self) -> Any:
        """The Rust tokenizer within, where there is one: called for a text at a time it is faster.

        `tokens` cuts and pads.
        """
        within = getattr(self.tokenizer, "backend_tokenizer", self.tokenizer)
        if within is not self.tokenizer:
            within.no_truncation()
            within.no_padding()
        return within

    @cached_property
    def _n_special(self) -> int:
        return sum(map(len, tokens.special_ids(self._fast_tokenizer)))

    @property
    def _max_length(self) -> int:
        return int(self.settings.get("max_length", 128))

    def _readable(self, position: int, text: object) -> str:
        """Prepare a text as the model was trained on.

        Of a very long one only what can be read is kept, so that memory is bounded.
        """
        if not isinstance(text, str):
            raise DataError(
                f"position {position}: expected a text (str), found {text!r:.80} "
                f"({type(text).__name__}); "
                "drop the row, or give '' to keep its place"
            )
        room = MAX_CHARS * self._max_length
        if len(text) > 2 * room:
            text = f"{text[:room]} {text[-room:]}"
        return normalise(text)

    def _probabilities(self, rows: list[list[int]]) -> dict[str, np.ndarray]:
        logits = text_batches.in_batches(self._step, rows, self._pad_id).astype(np.float64)
        ends = np.cumsum([len(task.names) for task in self.tasks.values()])
        spoken = np.array([len(row) > self._n_special for row in rows])[:, None]
        by_task = {}
        for (name, task), part in zip(
            self.tasks.items(), np.split(logits, ends[:-1], axis=1), strict=True
        ):
            line = self.calibration if name == "virality" else None
            values = probabilities(part, task.problem_type) if line is None else line.apply(part)
            by_task[name] = np.where(spoken, values, 0.0)
        return by_task

    @cached_property
    def _described(self) -> dict[str, Any]:
        return described(self.settings, self.thresholds)

    @cached_property
    def _names(self) -> dict[str, tuple[str, ...]]:
        """Task -> names of its classes, in the order of the model's outputs."""
        if "names" in self._described:
            return {self._described["task"]: tuple(self._described["names"])}
        if isinstance(self.model, OnnxModel):
            return self.model.tasks
        heads = getattr(self.model, "tasks", {})  # a pooled classifier has none
        return {task: tuple(head.names) for task, head in heads.items()}

    @property
    def _pad_id(self) -> int:
        return (
            self.model.about["pad_id"]
            if isinstance(self.model, OnnxModel)
            else self.tokenizer.pad_token_id
        )

    @property
    def _step(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Logits of a batch: what torch and ONNX Runtime do each in their way."""
        if isinstance(self.model, OnnxModel):
            return self.model.step
        from viralbert_utils.models.inference import array_logits

        return partial(array_logits, self.model, precision=self.precision)


class ViralBERT(Predictor):
    """The predictor for virality and emotions, which also finds moments.

    Its model may have other tasks, too.
    """

    def __post_init__(self) -> None:
        """Check what `Predictor` checks, and refuse a model without the two tasks."""
        super().__post_init__()
        check_moments(self.tasks)

    @property
    def virality(self) -> Thresholds:
        """Threshold of the class `viral`."""
        return self._thresholds_of("virality")

    @property
    def emotions(self) -> Thresholds:
        """Thresholds of the emotions."""
        return self._thresholds_of("emotions")

    def scores(self, texts: Iterable[str]) -> Scores:
        """The scorer that `ranking.find_moments` asks for; errors as of `predict`."""
        empty = {name: np.empty((0, len(task.names))) for name, task in self.tasks.items()}
        windows = [empty, *self._windows(texts)]
        viral, emotions = (
            np.concatenate([window[task] for window in windows])
            for task in ("virality", "emotions")
        )
        return Scores(viral[:, 0], emotions, self.emotions.names, np.array(self.emotions.values))

    async def find_viral_moments_from_subtitles(
        self, subtitles: Sequence[Mapping], **options: Any
    ) -> list[dict[str, Any]]:
        """Find moments by the call of ViralBERT v2.

        `[{"text", "start"[, "end"]}, ...]` goes in; dicts with start, end, score and emotions come
        out.

        See `moments.find_viral_moments_from_subtitles`.
        """
        from viralbert.moments import ranking  # reads subtitles, which texts alone have no need of

        return await ranking.find_viral_moments_from_subtitles(subtitles, self.scores, **options)

    def _thresholds_of(self, task: str) -> Thresholds:
        thresholds = self.tasks[task].thresholds
        assert thresholds is not None  # virality is multi-label, and so is everything beside it
        return thresholds


def check_moments(tasks: Collection[str]) -> None:
    """Refuse a model that cannot score moments.

    Raises:
        DataError: Virality or emotions are not among its tasks.
    """
    if not {"virality", "emotions"} <= set(tasks):
        raise DataError(
            "ViralBERT and moments need a model with the tasks virality and emotions, found "
            f"{', '.join(tasks)}; "
            "lesson 06 and viralbert train --dataset multitask leave one; Predictor and "
            "viralbert predict take any"
        )


def described(settings: Mapping[str, Any], stored: Collection[str]) -> dict[str, Any]:
    """Complete the settings of a classifier from an older folder.

    It leaves out `problem_type` and, for a pooled classifier, `task`.

    A classifier of several tasks is multi-label. So is a pooled one with thresholds, whose task is
    named as they are; a pooled one without has a single label a text, and its task is called
    `classes`.

    Args:
        settings: What `storage.load_classifier` gives.
        stored: The tasks that thresholds are stored for.
    """
    if "names" not in settings:
        return {"problem_type": MULTI_LABEL} | dict(settings)
    older = {
        "task": next(iter(stored), "classes"),
        "problem_type": MULTI_LABEL if stored else SINGLE_LABEL,
    }
    return older | dict(settings)


def stored_thresholds(folder: Path) -> dict[str, Thresholds]:
    """Read `thresholds/<task>.json` in a model's folder: task -> thresholds.

    The errors are those of `Thresholds.load`.
    """
    return {
        path.stem: Thresholds.load(path) for path in sorted((folder / "thresholds").glob("*.json"))
    }


def probabilities(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Turn logits `(n_texts, n_classes)` into probabilities: by a sigmoid each, or by a softmax."""
    return softmax(logits, axis=1) if problem_type == SINGLE_LABEL else expit(logits)


def _untuned(names: tuple[str, ...]) -> Thresholds:
    return Thresholds(names, (0.5,) * len(names), "0.5", 0, (0,) * len(names), 0.0, "")


def load_calibration(folder: Path) -> Calibration | None:
    """Read the calibration of virality in a model's folder; `None` if there is none.

    Raises:
        DataError: It is damaged.
    """
    path = folder / "calibration.json"
    if not path.is_file():
        return None
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        plain = repr(error)
    return _calibration(plain, path)


def _calibration(plain: Any, path: Path) -> Calibration:
    try:
        line = Calibration(
            *(np.array([float(plain["virality"][name])]) for name in ("slope", "intercept"))
        )
        if 0 < line.slope[0] <= MAX_LINE and abs(line.intercept[0]) <= MAX_LINE:
            return line
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise DataError(
        f"{path}: expected a positive slope and an intercept, neither beyond {MAX_LINE:,.0f}, "
        f"found {plain!r:.80}; "
        "save the predictor again"
    )

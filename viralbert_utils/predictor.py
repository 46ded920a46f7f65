"""Text in, virality and emotions out: the multi-task model with its thresholds, as one folder and one object.

Lesson 06 builds the folder from what lessons 03 and 04 leave; `viralbert predict` and `viralbert moments` load it. A
score is a judgement of the text by the annotation guide, never a forecast of views.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from scipy.special import expit

from viralbert_utils import moments, tokens
from viralbert_utils.calibration import Calibration
from viralbert_utils.emotions import RUSSIAN_NAMES
from viralbert_utils.files import DataError, write_whole
from viralbert_utils.onnx_model import MODEL, OnnxModel
from viralbert_utils.texts import normalise
from viralbert_utils.thresholds import Thresholds

WINDOW = 4096  # texts that are read ahead and sorted by length
_THRESHOLDS = {task: f"thresholds/{task}.json" for task in ("emotions", "virality")}
HEAD_SHARE = 0.5  # of a text that is too long, unless the model's settings say otherwise: half is its beginning
MAX_CHARS = 100  # a token of a long text at each end, before it is cut into tokens


@dataclass(frozen=True)
class Emotion:
    """An emotion that a text expresses."""

    name: str
    russian: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the model says of one text.

    Attributes:
        viral_score: Probability that the annotation guide would call the text viral, 0 .. 1.
        is_viral: Whether it reaches the threshold.
        emotions: Those that reach their thresholds, most probable first.
        probabilities: Of all emotions, in the model's order.
    """

    viral_score: float
    is_viral: bool
    emotions: tuple[Emotion, ...]
    probabilities: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return vars(self) | {"emotions": [vars(emotion) for emotion in self.emotions]}


@dataclass(frozen=True)
class ViralBERT:
    """A model with all that turns its logits into answers.

    An empty text (nothing but blanks and invisible characters) says nothing: its scores are 0, it is not viral and has
    no emotion. One empty cell in a million rows must not stop the rest, and what the model would answer to no words are
    its base rates. Emoji alone and other languages are read like any text, but nobody has measured the model on them.
    Of a text with more than `max_length` tokens the beginning and the end are read.

    Attributes:
        model: A `models.MultiTaskClassifier` or an `OnnxModel` with the tasks `virality` (one class) and `emotions`.
        tokenizer: Its tokenizer.
        settings: As `models.load_classifier` gives them; `max_length` and `head_share` are used.
        virality: Threshold of the class `viral`, on calibrated probabilities.
        emotions: Thresholds of the emotions.
        calibration: Of virality (`calibration.platt`, one class); `None` leaves the model's probabilities.
        bf16: Compute in bfloat16: faster where the processor has it, and probabilities differ in the third decimal.
    """

    model: Any
    tokenizer: Any
    settings: Mapping[str, Any]
    virality: Thresholds
    emotions: Thresholds
    calibration: Calibration | None = None
    bf16: bool = False

    def __post_init__(self) -> None:
        """Refuse a model without the two tasks, and thresholds of other classes."""
        tasks = self._tasks
        if not {"virality", "emotions"} <= tasks.keys():
            raise DataError(f"expected a model with the tasks virality and emotions (lesson 03), found {list(tasks)}")
        for task, thresholds in (("virality", self.virality), ("emotions", self.emotions)):
            thresholds.apply(np.empty((0, len(tasks[task]))), tasks[task])

    @classmethod
    def load(cls, folder: Path | str, device: str | None = None, bf16: bool = False) -> ViralBERT:
        """Read a folder that `save` or `export.export` wrote; an exported one without torch.

        Args:
            folder: E.g. `runs/sample/viralbert`.
            device: `cpu`, `cuda`, ...; the GPU if there is one. An exported model computes on the CPU.
            bf16: See the class; for models that are not exported.

        Raises:
            DataError: Something is missing or damaged, or the thresholds are those of other classes.
        """
        path = Path(folder)
        if (path / MODEL).is_file():
            return cls._load_exported(path, device, bf16)
        missing = [name for name in ("classifier.json", *_THRESHOLDS.values()) if not (path / name).is_file()]
        if missing:
            raise DataError(
                f"{path} is no complete predictor: {', '.join(missing)} missing; lesson 06 writes one "
                "(viralbert run --only 06 leaves runs/sample/viralbert), and so does ViralBERT.save"
            )
        import torch

        from viralbert_utils.models import load_classifier

        kept = {task: Thresholds.load(path / name) for task, name in _THRESHOLDS.items()}
        model, tokenizer, settings = load_classifier(path)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        line = _load_calibration(path / "calibration.json")
        return cls(model, tokenizer, settings, kept["virality"], kept["emotions"], line, bf16)

    @classmethod
    def _load_exported(cls, path: Path, device: str | None, bf16: bool) -> ViralBERT:
        if bf16 or device not in (None, "cpu"):
            raise DataError(f"{path} is an exported model: it computes on the CPU, not in bf16; leave both options out")
        model = OnnxModel.load(path)
        about = model.about
        if about["thresholds"].keys() != _THRESHOLDS.keys():
            raise DataError(f"{path} is a classifier without thresholds; export the folder that lesson 06 writes")
        kept = {task: Thresholds.from_json(plain) for task, plain in about["thresholds"].items()}
        line = _calibration(about["calibration"], path) if about["calibration"] else None
        settings = dict(about["settings"]) | {name: about[name] for name in ("int8", "source_sha256", "versions")}
        return cls(model, model.tokenizer, settings, kept["virality"], kept["emotions"], line)

    def save(self, folder: Path | str) -> None:
        """Write everything as one folder, whole; a predictor or classifier that stands there is replaced.

        Raises:
            DataError: The folder holds something else, or the model is an exported one.
        """
        if isinstance(self.model, OnnxModel):
            raise DataError("an exported model cannot be saved as one to train; copy its folder")
        from viralbert_utils.models import save_classifier

        target = Path(folder)
        if target.exists() and not (target / "classifier.json").is_file() and any(target.iterdir()):
            raise DataError(f"{target} holds something that is no model; give a new or an empty folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        # `save_classifier` replaces a folder by a model without thresholds: they are put together elsewhere first.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            new = Path(scratch) / "new"
            about = {name: value for name, value in self.settings.items() if name != "versions"}
            save_classifier(new, self.model, self.tokenizer, **about)
            for task, name in _THRESHOLDS.items():
                getattr(self, task).save(new / name)
            if self.calibration is not None:
                plain = {name: float(value[0]) for name, value in vars(self.calibration).items()}
                write_whole(new / "calibration.json", json.dumps({"virality": plain}, indent=1) + "\n")
            if target.exists():
                shutil.move(target, Path(scratch) / "old")
            new.rename(target)

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
        """Predictions in the order of the texts, in constant memory: a window of 4,096 texts is read at a time.

        Raises:
            DataError: Something that is no text, with its position, when its window is read.
        """
        names = self.emotions.names
        russian = [RUSSIAN_NAMES.get(name, name) for name in names]
        for viral, emotions in self._windows(texts):
            # An empty text reaches no threshold, not even one of 0.
            is_viral = self.virality.apply(viral, self.virality.names)[:, 0] & (viral[:, 0] > 0)
            reached = self.emotions.apply(emotions, names) & (emotions > 0)
            for row, probabilities in enumerate(emotions.tolist()):
                found = sorted(np.flatnonzero(reached[row]).tolist(), key=lambda k: -probabilities[k])
                yield Prediction(
                    float(viral[row, 0]), bool(is_viral[row]),
                    tuple(Emotion(names[k], russian[k], probabilities[k]) for k in found),
                    dict(zip(names, probabilities, strict=True)),
                )  # fmt: skip

    def scores(self, texts: Iterable[str]) -> moments.Scores:
        """The scorer that `moments.find_moments` asks for; errors as of `predict`."""
        empty = np.empty((0, 1)), np.empty((0, len(self.emotions.names)))
        viral, emotions = (np.concatenate(parts) for parts in zip(empty, *self._windows(texts), strict=True))
        return moments.Scores(viral[:, 0], emotions, self.emotions.names, np.array(self.emotions.values))

    async def find_viral_moments_from_subtitles(
        self, subtitles: Sequence[Mapping], **options: Any
    ) -> list[dict[str, Any]]:
        """ViralBERT v2's call: `[{"text", "start"[, "end"]}, ...]` in, dicts with start, end, score, emotions out.

        See `moments.find_viral_moments_from_subtitles`.
        """
        return await moments.find_viral_moments_from_subtitles(subtitles, self.scores, **options)

    def _windows(self, texts: Iterable[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Probabilities of virality `(n, 1)` and emotions `(n, n_emotions)`, a window of texts at a time."""
        if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
            raise DataError(f"expected a list or another iterable of texts, found {texts!r:.80}")
        checked = (self._readable(position, text) for position, text in enumerate(texts))
        while window := list(islice(checked, WINDOW)):
            head_share = self.settings.get("head_share", HEAD_SHARE)
            yield self._probabilities(tokens.encode(self.tokenizer, window, self._max_length, head_share))

    @property
    def _max_length(self) -> int:
        return int(self.settings.get("max_length", 128))

    def _readable(self, position: int, text: object) -> str:
        """A text as the model was trained on; of a very long one only what can be read, so that memory is bounded."""
        if not isinstance(text, str):
            raise DataError(
                f"position {position}: expected a text (str), found {text!r:.80} ({type(text).__name__}); "
                "drop the row, or give '' to keep its place"
            )
        room = MAX_CHARS * self._max_length
        if len(text) > 2 * room:
            text = f"{text[:room]} {text[-room:]}"
        # Half a surrogate pair, from a damaged JSON escape, is no character: the tokenizer would refuse its window.
        return normalise(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    def _probabilities(self, rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        logits = tokens.in_batches(self._step, rows, self._pad_id).astype(np.float64)
        ends = np.cumsum([len(names) for names in self._tasks.values()])
        by_task = dict(zip(self._tasks, np.split(logits, ends[:-1], axis=1), strict=True))
        viral, emotions = by_task["virality"], expit(by_task["emotions"])
        viral = expit(viral) if self.calibration is None else self.calibration.apply(viral)
        n_special = sum(map(len, tokens.special_ids(self.tokenizer)))
        spoken = np.array([len(row) > n_special for row in rows])[:, None]
        return np.where(spoken, viral, 0.0), np.where(spoken, emotions, 0.0)

    @property
    def _tasks(self) -> dict[str, tuple[str, ...]]:
        """Task -> names of its classes, in the order of the model's outputs."""
        return {task: getattr(head, "names", head) for task, head in getattr(self.model, "tasks", {}).items()}

    @property
    def _pad_id(self) -> int:
        return self.model.about["pad_id"] if isinstance(self.model, OnnxModel) else self.tokenizer.pad_token_id

    @property
    def _step(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Logits of a batch: what torch and ONNX Runtime do each in their way."""
        if isinstance(self.model, OnnxModel):
            return self.model.step
        from viralbert_utils.models import array_logits

        return partial(array_logits, self.model, bf16=self.bf16)


def _load_calibration(path: Path) -> Calibration | None:
    if not path.is_file():
        return None
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        plain = repr(error)
    return _calibration(plain, path)


def _calibration(plain: Any, path: Path) -> Calibration:
    try:
        line = Calibration(*(np.array([float(plain["virality"][name])]) for name in ("slope", "intercept")))
        if line.slope[0] > 0 and np.isfinite([line.slope, line.intercept]).all():
            return line
    except (KeyError, TypeError, ValueError):
        pass
    raise DataError(f"{path}: expected a positive slope and an intercept, found {plain}; save the predictor again")

"""A model that `export.export` wrote, in ONNX Runtime: needs neither torch nor transformers.

`Predictor.load` reads a classifier of texts through it; a hybrid is used as it is (lesson 09).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from viralbert.packages import missing as missing_package
from viralbert.serving import text_batches
from viralbert_utils.base import tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import EXPORTED, check_sums, own_path

MODEL, TOKENIZER = EXPORTED, "tokenizer.json"
KEY = "viralbert"  # of the metadata in the model file
_ABOUT: dict[str, tuple[type, ...]] = {  # what must stand there
    "tasks": (dict,),
    "settings": (dict,),
    "pad_id": (int,),
    "thresholds": (dict,),
    "calibration": (dict, type(None)),
    "int8": (bool,),
    "source_sha256": (str,),
    "versions": (dict,),
}
_MOST_TOKENS = 100_000


def runtime() -> Any:
    """Import `onnxruntime`, with its reports to its maker switched off.

    Nothing else in the packages imports it.

    It would write a device id and a database below `~/.cache` and ask the network for an address to
    send them to.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # is read by the import, so it comes first
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # where somebody else has imported it before
    return onnxruntime


@dataclass(frozen=True)
class OnnxModel:
    """An exported classifier.

    Attributes:
        session: An `onnxruntime.InferenceSession`; may be called from several threads.
        tokenizer: A `tokenizers.Tokenizer`.
        about: What `export` wrote into the model file: `tasks` (task -> names of its classes, in
            the order of the outputs), `settings` (as of `predictor.described`), `pad_id`,
            `thresholds` and `calibration`, `int8`, `source_sha256`, `difference` (see
            `export.export`), `versions`.
    """

    session: Any
    tokenizer: Any
    about: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path | str) -> OnnxModel:
        """Read an exported folder; computes on as many cores as `OMP_NUM_THREADS` says, or on all.

        Raises:
            DataError: ONNX Runtime is not installed, or the folder is no export, or a damaged one,
                or the model does not compute what is written in it.
        """
        try:
            onnxruntime = runtime()
            from tokenizers import Tokenizer
        except ImportError as error:
            raise DataError(
                f"an exported model cannot be read: {missing_package(error.name or 'onnxruntime')}"
            ) from None
        path = own_path(folder)
        missing = [name for name in (MODEL, TOKENIZER) if not (path / name).is_file()]
        if missing:
            raise DataError(
                f"{path} is no exported model: {', '.join(missing)} missing; viralbert export "
                "writes one"
            )
        try:
            check_sums(path)
        except DataError as error:
            raise DataError(f"{path} is damaged ({error}); export the model again") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        try:
            session = onnxruntime.InferenceSession(
                str(path / MODEL), options, providers=["CPUExecutionProvider"]
            )
            about = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
            tokenizer = Tokenizer.from_file(str(path / TOKENIZER))
            tokenizer.no_truncation()  # `tokens` cuts and pads
            tokenizer.no_padding()
            model = cls(session, tokenizer, about)
            model._check()
        except Exception as error:  # onnxruntime and tokenizers have no common class of errors
            raise DataError(f"{path} is damaged ({error}); export the model again") from None
        return model

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Task -> names of its classes."""
        return {task: tuple(names) for task, names in self.about["tasks"].items()}

    def _check(self) -> None:
        """Refuse what would fail at the first text, or at the first long one: the longest is tried.

        Raises:
            Exception: One of many kinds.
        """
        for name, kinds in _ABOUT.items():
            if name not in self.about or type(self.about[name]) not in kinds:
                given = f"{self.about[name]!r:.80}" if name in self.about else "nothing"
                raise ValueError(f"{name}: expected {kinds[0].__name__}, found {given}")
        settings = self.about["settings"]
        lists = [
            *self.about["tasks"].values(),
            *([settings["names"]] if "names" in settings else []),
        ]
        for names in lists:
            if not (
                isinstance(names, list) and names and all(isinstance(name, str) for name in names)
            ):
                raise ValueError(f"expected a list with the names of classes, found {names!r:.80}")
        if not isinstance(settings.get("task", ""), str):
            raise ValueError(f"task: expected a name, found {settings['task']!r:.80}")
        n_tokens = settings.get("max_length", 128)
        if type(n_tokens) is not int or not 0 < n_tokens <= _MOST_TOKENS:
            raise ValueError(
                f"max_length: expected a whole number up to {_MOST_TOKENS:,}, found "
                f"{n_tokens!r:.80}"
            )
        tokens.encode(self.tokenizer, ["а"], n_tokens, settings.get("head_share", 1.0))
        beside = [
            np.zeros((1, n), np.float32)
            for n in [settings.get("shape", {}).get("n_columns", 0)]
            if n
        ]
        logits = self.step(
            *tokens.pad([[self.about["pad_id"]] * n_tokens], self.about["pad_id"]), *beside
        )
        n_classes = sum(map(len, self.tasks.values()))
        if logits.shape != (1, n_classes):
            raise ValueError(
                f"expected numbers for {n_classes} classes, the model gives {logits.shape}"
            )

    def step(self, *inputs: np.ndarray) -> np.ndarray:
        """Compute the logits of one batch, `(n_texts, n_classes of all tasks)`.

        The inputs are ids and mask, int64 `(n_texts, n_tokens)` each.

        A hybrid takes the columns of its table beside them, float32 `(n_texts, n_columns)`.
        """
        return self.session.run(
            None, dict(zip([i.name for i in self.session.get_inputs()], inputs, strict=True))
        )[0]

    def logits(self, texts: Sequence[str], *columns: np.ndarray) -> np.ndarray:
        """Compute the logits of texts in their order, `(n_texts, n_classes)`.

        A hybrid takes the columns of its `preparation.columns` beside them.
        """
        settings = self.about["settings"]
        cut = {name: settings[name] for name in ("max_length", "head_share") if name in settings}
        return text_batches.in_batches(
            self.step, tokens.encode(self.tokenizer, texts, **cut), self.about["pad_id"], *columns
        )

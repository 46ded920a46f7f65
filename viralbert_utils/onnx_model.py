"""A model that `export.export` wrote, in ONNX Runtime: needs neither torch nor transformers.

`Predictor.load` reads a classifier of texts through it; a hybrid is used as it is (lesson 09).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from viralbert_utils import tokens
from viralbert_utils.files import DataError, check_sums, own_path
from viralbert_utils.packages import missing as missing_package

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
KEY = "viralbert"  # of the metadata in the model file


def runtime() -> Any:
    """The module `onnxruntime`, with its reports to its maker switched off; nothing else in the course imports it.

    It would write a device id and a database below `~/.cache` and ask the network for an address to send them to.
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
        about: What `export` wrote into the model file: `tasks` (task -> names of its classes, in the order of the
            outputs), `settings` (as of `predictor.described`), `pad_id`, `thresholds` and `calibration`, `int8`,
            `source_sha256`, `tokenizer_sha256`, `difference` (see `export.export`), `versions`.
    """

    session: Any
    tokenizer: Any
    about: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path | str) -> OnnxModel:
        """Read an exported folder; computes on as many cores as `OMP_NUM_THREADS` says, or on all.

        Raises:
            DataError: ONNX Runtime is not installed, or the folder is no export, or a damaged one.
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
            raise DataError(f"{path} is no exported model: {', '.join(missing)} missing; viralbert export writes one")
        try:
            check_sums(path)
        except DataError as error:
            raise DataError(f"{path} is damaged ({error}); export the model again") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        try:
            session = onnxruntime.InferenceSession(str(path / MODEL), options, providers=["CPUExecutionProvider"])
            about = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
            plain = (path / TOKENIZER).read_bytes()
            if hashlib.sha256(plain).hexdigest() != about["tokenizer_sha256"]:
                raise ValueError(f"{TOKENIZER} is that of another model")
            tokenizer = Tokenizer.from_buffer(plain)
        except Exception as error:  # onnxruntime and tokenizers have no common class of errors
            raise DataError(f"{path} is damaged ({error}); export the model again") from None
        tokenizer.no_truncation()  # `tokens` cuts and pads
        tokenizer.no_padding()
        return cls(session, tokenizer, about)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Task -> names of its classes."""
        return {task: tuple(names) for task, names in self.about["tasks"].items()}

    def step(self, *inputs: np.ndarray) -> np.ndarray:
        """Logits `(n_texts, n_classes of all tasks)` of one batch: ids and mask, int64 `(n_texts, n_tokens)` each.

        A hybrid takes the columns of its table beside them, float32 `(n_texts, n_columns)`.
        """
        return self.session.run(None, dict(zip([i.name for i in self.session.get_inputs()], inputs, strict=True)))[0]

    def logits(self, texts: Sequence[str], *columns: np.ndarray) -> np.ndarray:
        """Logits of texts in their order `(n_texts, n_classes)`; `columns` of a hybrid's `preparation.columns`."""
        settings = self.about["settings"]
        cut = {name: settings[name] for name in ("max_length", "head_share") if name in settings}
        return tokens.in_batches(self.step, tokens.encode(self.tokenizer, texts, **cut), self.about["pad_id"], *columns)

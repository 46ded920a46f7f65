"""A trained classifier as ONNX, in float32 or int8 (lesson 09).

A service loads it without torch, through `onnx_model`.

Sources: Jacob et al. 2018 (integer arithmetic); Nagel et al. 2021 (ranges by squared error). ONNX
Runtime's own `quantize_dynamic` measures ranges at run time over a whole batch; here they are found
once, at export: an answer doesn't depend on its neighbours.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from viralbert.serving import aims, predictor, text_batches, triton
from viralbert.serving.int8 import in_int8
from viralbert.serving.onnx_model import KEY, MODEL, TOKENIZER, OnnxModel, runtime
from viralbert.serving.predictor import HEAD_SHARE, Predictor
from viralbert_utils.base import tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import folder_sha256, own_path, whole_folder, write_sums
from viralbert_utils.models.inference import array_logits
from viralbert_utils.models.storage import load_classifier

# The greatest difference of a probability to torch's, in float32 and in int8.
TOLERANCE, TOLERANCE_INT8 = 1e-4, 0.1
# What ranges are measured and the export is checked on, unless the caller gives other texts: the
# first ones of the sample's emotions, a line each.
TEXTS = Path(__file__).with_name("export_texts.txt")
PLAIN, TRITON = LAYOUTS = ("plain", "triton")
OPSET = 23  # the first with attention as one node
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")


def export(
    source: Path | str,
    target: Path | str,
    int8: bool = False,
    texts: Sequence[str] | None = None,
    layout: str = PLAIN,
) -> OnnxModel:
    """Write a classifier or predictor as ONNX, and check it against torch.

    The files are `model.onnx`, `model.onnx.data` and `tokenizer.json`.

    Batch and length stay free. Labels, thresholds, aims, calibration, settings, versions and the
    source's checksum go into the model's metadata. int8 makes the matrices of the linear layers and
    the word vectors four times smaller.

    Args:
        source: A folder of `storage.save_classifier`, `Predictor.save` or `Hybrid.save`.
        target: A new folder, an empty one, or an export to replace.
        layout: `plain`, or `triton`: the target is then a model's folder in the repository of a
            Triton server, and the files above stand in its folder `1` (see `triton`).
        int8: Eight-bit weights, and eight-bit activations in the linear layers.
        texts: Some hundred of the kind that the model will read; sentences of the course's sample
            without them.

    Returns:
        The export, loaded; `about["difference"]` is the greatest difference of a probability to
        torch's on the texts.

    Raises:
        DataError: The source is no model, or its thresholds are not its own, its tokenizer has no
            Rust form, the layout is none, the target holds something else, or the export answers
            otherwise than torch by more than `TOLERANCE` (int8: `TOLERANCE_INT8`).
    """
    runtime()  # before any library of the exporter imports it
    import onnx

    path, folder = own_path(source), own_path(target)
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    is_export = any((folder / place / MODEL).is_file() for place in (".", triton.VERSION))
    if layout == TRITON:
        triton.check_name(folder.resolve().name)
    if folder.exists() and any(folder.iterdir()) and not is_export:
        raise DataError(
            f"{folder} holds something that is no exported model; give a new or an empty folder"
        )
    model, tokenizer, settings = _load(path)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise DataError(
            f"the tokenizer in {path} ({type(tokenizer).__name__}) has no tokenizer.json form to "
            "export"
        )
    thresholds, own_aims = predictor.stored_thresholds(path), aims.stored(path)
    line = predictor.load_calibration(path)
    tasks = Predictor(model, tokenizer, settings, thresholds, line, aims=own_aims).tasks
    settings = predictor.described(settings, thresholds)
    if settings["kind"] != "hybrid":
        settings.setdefault("head_share", HEAD_SHARE)
    calibration = path / "calibration.json"
    about = {
        "tasks": {name: list(task.names) for name, task in tasks.items()},
        "settings": settings,
        "pad_id": tokenizer.pad_token_id,
        "thresholds": {task: values.to_json() for task, values in thresholds.items()},
        "aims": {
            aim: {task: values.to_json() for task, values in of_tasks.items()}
            for aim, of_tasks in own_aims.items()
        },
        "calibration": json.loads(calibration.read_text(encoding="utf-8"))
        if calibration.is_file()
        else None,
        "int8": int8,
        "source_sha256": folder_sha256(path),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
    given = TEXTS.read_text(encoding="utf-8").splitlines() if texts is None else list(texts)
    rows = tokens.encode(
        tokenizer, given, settings.get("max_length", 128), settings.get("head_share", 1.0)
    )
    pad_id, beside = tokenizer.pad_token_id, []
    if n_columns := settings.get("shape", {}).get("n_columns", 0):
        beside = [np.random.default_rng(0).normal(size=(len(rows), n_columns)).astype(np.float32)]
    judged = partial(predictor.probabilities, problem_type=settings["problem_type"])
    expected = judged(
        text_batches.in_batches(
            partial(array_logits, model, precision="float32"), rows, pad_id, *beside
        )
    )

    with whole_folder(folder) as whole:
        new = whole / triton.VERSION if layout == TRITON else whole
        new.mkdir(exist_ok=True)
        (new / TOKENIZER).write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        plain = new / "float.onnx"
        onnx.save(_graph(model, n_columns), plain)  # what stands in a file stands in memory no more
        del model
        graph = onnx.load(plain)
        plain.unlink()
        if int8:
            graph = in_int8(graph, rows, pad_id, beside)
        _write(graph, new, about)
        write_sums(new)
        probabilities = judged(
            text_batches.in_batches(OnnxModel.load(new).step, rows, pad_id, *beside)
        )
        about["difference"] = float(np.abs(probabilities - expected).max())
        allowed = TOLERANCE_INT8 if int8 else TOLERANCE
        if not about["difference"] <= allowed:
            raise DataError(
                f"{path}: the export's probabilities differ from torch's by up to "
                f"{about['difference']:.2g} on "
                f"{len(rows)} texts, more than {allowed}; "
                f"{'export without int8' if int8 else 'report it'}"
            )
        _write(graph, new, about)
        write_sums(new)
        if layout == TRITON:
            (whole / triton.CONFIG).write_text(
                triton.config(graph, folder.resolve().name), encoding="utf-8"
            )
    return OnnxModel.load(folder / triton.VERSION if layout == TRITON else folder)


class _Flat(torch.nn.Module):
    """A hybrid whose inputs stand side by side."""

    def __init__(self, hybrid: torch.nn.Module) -> None:
        super().__init__()
        self.hybrid = hybrid

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, columns: Tensor | None = None
    ) -> Tensor:
        return self.hybrid(
            (input_ids, attention_mask[:, :0].float() if columns is None else columns),
            attention_mask,
        )


def _load(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Model, tokenizer and settings of a saved classifier or hybrid."""
    if (path / "cascade.json").is_file():
        raise DataError(
            f"{path} is a cascade, and only a network is exported: give {path / 'hybrid'}, the "
            "hybrid in it"
        )
    if not _is_hybrid(path):
        return load_classifier(path, "cpu")
    from viralbert_utils.lessons.hybrid import Hybrid

    hybrid = Hybrid.load(path, "cpu")
    settings = json.loads((path / "classifier.json").read_text(encoding="utf-8"))
    return _Flat(hybrid.model).eval(), hybrid.tokenizer, settings


def _is_hybrid(path: Path) -> bool:
    """Whether a folder says that it holds a hybrid; what is damaged is for its reader to refuse."""
    try:
        settings = json.loads((path / "classifier.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and settings.get("kind") == "hybrid"


def _graph(model: Any, n_columns: int = 0) -> Any:
    """The model as an ONNX graph whose batch and length are free."""
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    free: dict[str, Any] = dict.fromkeys(inputs, dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC))
    if n_columns:
        inputs["columns"], free["columns"] = (
            torch.zeros(2, n_columns),
            {0: torch.export.Dim.DYNAMIC},
        )
    with _quiet(), torch.inference_mode():
        program: Any = torch.onnx.export(
            model,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple(free.values()),
            input_names=list(inputs),
            output_names=["logits"],
            verbose=False,
        )
    graph = program.model_proto
    del graph.graph.value_info[:]  # shapes within, of nodes that int8 replaces
    # The exporter writes where in which file of this machine each node comes from.
    for part in (*graph.graph.node, *graph.functions, graph.graph):
        del part.metadata_props[:]
        part.doc_string = ""
    return graph


def _write(graph: Any, folder: Path, about: dict[str, Any]) -> None:
    """Write a graph, and its weights beside it.

    The runtime maps them into memory, and reads only the word vectors that it needs.
    """
    import onnx

    onnx.helper.set_model_props(
        graph, {KEY: json.dumps(about, ensure_ascii=False, allow_nan=False)}
    )
    # Afterwards the graph only refers to its weights: written again, with more to say, it leaves
    # them where they are.
    onnx.save(graph, folder / MODEL, save_as_external_data=True, location=f"{MODEL}.data")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports each step and each library that it doesn't find."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

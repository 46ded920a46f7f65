"""A trained classifier as ONNX, in float32 or int8: what a service loads without torch (`onnx_model`, lesson 09).

Sources: Jacob et al. 2018 (integer arithmetic); Nagel et al. 2021 (ranges by squared error). ONNX Runtime's own
`quantize_dynamic` measures ranges at run time over a whole batch; here they are found once, at export: an answer
doesn't depend on its neighbours.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from viralbert_utils import predictor, tokens
from viralbert_utils.data import load
from viralbert_utils.files import DataError, folder_sha256, own_path, whole_folder, write_sums
from viralbert_utils.models import array_logits, load_classifier
from viralbert_utils.onnx_model import KEY, MODEL, TOKENIZER, OnnxModel, runtime
from viralbert_utils.predictor import HEAD_SHARE, Predictor

TOLERANCE = {False: 1e-4, True: 0.1}  # int8 or not: greatest difference of a probability to torch's
N_TEXTS = 256  # that ranges are measured and the export is checked on, unless the caller gives others
OPSET = 23  # the first with attention as one node
N_BINS = 2048
NEARER = np.linspace(0.5, 1, 11)  # shares of a range's ends that are tried as its ends
TINY = float(np.finfo(np.float32).tiny)
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")


def export(source: Path | str, target: Path | str, int8: bool = False, texts: Sequence[str] | None = None) -> OnnxModel:
    """Write a classifier or predictor as `model.onnx`, `model.onnx.data` and `tokenizer.json`; check it against torch.

    Batch and length stay free. Labels, thresholds, calibration, settings, versions and the source's checksum go into
    the model's metadata. int8 makes the matrices of the linear layers and the word vectors four times smaller.

    Args:
        source: A folder of `models.save_classifier`, `Predictor.save` or `Hybrid.save`.
        target: A new folder, an empty one, or an export to replace.
        int8: Eight-bit weights, and eight-bit activations in the linear layers.
        texts: Some hundred of the kind that the model will read; sentences of the course's sample without them.

    Returns:
        The export, loaded; `about["difference"]` is the greatest difference of a probability to torch's on the texts.

    Raises:
        DataError: The source is no model, or its thresholds are not its own, its tokenizer has no Rust form, the target
            holds something else, or the export answers otherwise than torch by more than `TOLERANCE`.
    """
    runtime()  # before any library of the exporter imports it
    import onnx

    path, folder = own_path(source), own_path(target)
    if folder.exists() and any(folder.iterdir()) and not (folder / MODEL).is_file():
        raise DataError(f"{folder} holds something that is no exported model; give a new or an empty folder")
    model, tokenizer, settings = _load(path)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise DataError(f"the tokenizer in {path} ({type(tokenizer).__name__}) has no tokenizer.json form to export")
    thresholds = predictor.stored_thresholds(path)
    tasks = Predictor(model, tokenizer, settings, thresholds, predictor.load_calibration(path)).tasks
    settings = predictor.described(settings, thresholds)
    if settings["kind"] != "hybrid":
        settings.setdefault("head_share", HEAD_SHARE)
    calibration = path / "calibration.json"
    about = {
        "tasks": {task: list(own.names) for task, own in tasks.items()},
        "settings": settings, "pad_id": tokenizer.pad_token_id,
        "thresholds": {task: own.to_json() for task, own in thresholds.items()},
        "calibration": json.loads(calibration.read_text(encoding="utf-8")) if calibration.is_file() else None,
        "int8": int8, "source_sha256": folder_sha256(path),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }  # fmt: skip
    given = list(load("emotions").splits["all"]["text"][:N_TEXTS]) if texts is None else list(texts)
    rows = tokens.encode(tokenizer, given, settings.get("max_length", 128), settings.get("head_share", 1.0))
    pad_id, beside = tokenizer.pad_token_id, []
    if n_columns := settings.get("shape", {}).get("n_columns", 0):
        beside = [np.random.default_rng(0).normal(size=(len(rows), n_columns)).astype(np.float32)]
    judged = partial(predictor.probabilities, problem_type=settings["problem_type"])
    expected = judged(tokens.in_batches(partial(array_logits, model, precision="float32"), rows, pad_id, *beside))

    with whole_folder(folder) as new:
        (new / TOKENIZER).write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        plain = new / "float.onnx"
        onnx.save(_graph(model, n_columns), plain)  # what stands in a file stands in memory no more
        del model
        graph = onnx.load(plain)
        plain.unlink()
        if int8:
            graph = _in_int8(graph, rows, pad_id, beside)
        _write(graph, new, about)
        write_sums(new)
        found = judged(tokens.in_batches(OnnxModel.load(new).step, rows, pad_id, *beside))
        about["difference"] = float(np.abs(found - expected).max())
        if not about["difference"] <= TOLERANCE[int8]:
            raise DataError(
                f"{path}: the export's probabilities differ from torch's by up to {about['difference']:.2g} on "
                f"{len(rows)} texts, more than {TOLERANCE[int8]}; {'export without int8' if int8 else 'report it'}"
            )
        _write(graph, new, about)
        write_sums(new)
    return OnnxModel.load(folder)


class _Flat(torch.nn.Module):
    """A hybrid whose inputs stand side by side."""

    def __init__(self, hybrid: torch.nn.Module) -> None:
        super().__init__()
        self.hybrid = hybrid

    def forward(self, input_ids: Tensor, attention_mask: Tensor, columns: Tensor | None = None) -> Tensor:
        return self.hybrid((input_ids, attention_mask[:, :0].float() if columns is None else columns), attention_mask)


def _load(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    settings = path / "classifier.json"
    if settings.is_file() and '"kind": "hybrid"' in settings.read_text(encoding="utf-8"):
        from viralbert_utils.hybrid import Hybrid

        found = Hybrid.load(path, "cpu")
        return _Flat(found.model).eval(), found.tokenizer, json.loads(settings.read_text(encoding="utf-8"))
    return load_classifier(path, "cpu")


def _graph(model: Any, n_columns: int = 0) -> Any:
    """The model as an ONNX graph whose batch and length are free."""
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    free: dict[str, Any] = dict.fromkeys(inputs, dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC))
    if n_columns:
        inputs["columns"], free["columns"] = torch.zeros(2, n_columns), {0: torch.export.Dim.DYNAMIC}
    with _quiet(), torch.inference_mode():
        program: Any = torch.onnx.export(
            model, tuple(inputs.values()), dynamo=True, opset_version=OPSET, dynamic_shapes=tuple(free.values()),
            input_names=list(inputs), output_names=["logits"], verbose=False,
        )  # fmt: skip
    graph = program.model_proto
    del graph.graph.value_info[:]  # shapes within, of nodes that int8 replaces
    return graph


def _write(graph: Any, folder: Path, about: dict[str, Any]) -> None:
    """Weights beside the graph: the runtime maps them into memory, and reads only the word vectors it needs."""
    import onnx

    onnx.helper.set_model_props(graph, {KEY: json.dumps(about, ensure_ascii=False, allow_nan=False)})
    # Afterwards the graph only refers to its weights: written again, with more to say, it leaves them where they are.
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


def _in_int8(model: Any, rows: list[list[int]], pad_id: int, beside: list[np.ndarray]) -> Any:
    """Linear layers in eight bits, each with its bias one node of ONNX Runtime's own, and tables of vectors.

    A scale belongs to each column of a matrix, to each row of a table, and to each activation (see `_ranges`; a value
    beyond its range counts as the end).
    """
    import onnx

    graph, make = model.graph, onnx.helper.make_node
    weights = {one.name: one for one in graph.initializer}
    matrices = {n for n, one in weights.items() if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) == 2}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    linear = [node.input[0] for node in graph.node if node.op_type == "MatMul" and node.input[1] in matrices]
    ranges = _ranges(model, list(dict.fromkeys(linear)), rows, pad_id, beside)
    nodes: list[Any] = []
    made: set[str] = set()  # sums that the node of their product gives

    def keep(name: str, values: Any) -> str:
        weights[name] = onnx.numpy_helper.from_array(np.asarray(values), name)
        return name

    def rounded(name: str, axis: int) -> tuple[str, str]:
        values = onnx.numpy_helper.to_array(weights[name])
        # Matrices in seven bits: processors without VNNI add two products in 16 bits, and eight would overflow there.
        scales = np.maximum(np.abs(values).max(axis, keepdims=True) / (127 if axis else 63), TINY)
        eight = keep(f"{name}.int8", np.rint(values / scales).astype(np.int8))
        return eight, keep(f"{name}.scale", scales if axis else scales[0])

    def activation(name: str) -> list[str]:
        ends = [f"{name}.scale", f"{name}.zero"]
        if ends[0] not in weights:
            step, at = _step_and_zero(*ranges[name])
            keep(ends[0], np.float32(step))
            keep(ends[1], np.uint8(at))
            nodes.append(make("QuantizeLinear", [name, *ends], [f"{name}.uint8"]))
        return [f"{name}.uint8", *ends]

    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in matrices:
            read, read_scale, zero = activation(node.input[0])
            weight, scale = rounded(node.input[1], 0)
            inputs, output = [read, weight, read_scale, scale, zero, ""], node.output[0]
            after = readers.get(output, [])
            bias = [name for name in after[0].input if name in weights] if [n.op_type for n in after] == ["Add"] else []
            if bias:
                output = after[0].output[0]
                made.add(output)
            nodes.append(make("MatMulIntegerToFloat", [*inputs, *bias], [output], domain="com.microsoft"))
        elif node.op_type == "Gather" and node.input[0] in matrices:
            (given,) = node.output
            for kept, found in zip(rounded(node.input[0], 1), ("rows", "rows_scale"), strict=True):
                nodes.append(make("Gather", [kept, node.input[1]], [f"{given}.{found}"]))
            nodes.append(make("Cast", [f"{given}.rows"], [f"{given}.rows_float"], to=onnx.TensorProto.FLOAT))
            nodes.append(make("Mul", [f"{given}.rows_float", f"{given}.rows_scale"], [given]))
        elif node.output[0] not in made:
            nodes.append(node)
    read_now = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(one for name, one in weights.items() if name in read_now)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def _step_and_zero(low: float, high: float) -> tuple[float, int]:
    """Of the 256 steps between two values, zero among them: their width, and which of them stands for zero."""
    step = max((high - low) / 255, TINY)
    return step, round(-low / step)


def _ranges(
    model: Any, names: list[str], rows: list[list[int]], pad_id: int, beside: list[np.ndarray]
) -> dict[str, tuple[float, float]]:
    """For each activation the range, zero in it, whose 256 steps have the least squared error over all rows.

    Nearer than the extremes: few values lie out there, and finer steps serve all the others.
    """
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = runtime().InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    ends, counts = np.zeros((len(names), 2)), np.zeros((len(names), N_BINS))

    def read(see: Callable[[int, np.ndarray], None]) -> None:
        def step(ids: np.ndarray, mask: np.ndarray, *columns: np.ndarray) -> np.ndarray:
            given = dict(zip([i.name for i in session.get_inputs()], (ids, mask, *columns), strict=True))
            for n, values in enumerate(session.run(names, given)):
                see(n, values[mask > 0] if values.ndim == 3 else values)  # of padding nothing is read
            return ids[:, :1]

        tokens.in_batches(step, rows, pad_id, *beside)

    def widen(n: int, values: np.ndarray) -> None:
        ends[n] = min(ends[n, 0], values.min()), max(ends[n, 1], values.max())

    def count(n: int, values: np.ndarray) -> None:
        counts[n] += np.histogram(values, N_BINS, tuple(ends[n]))[0]

    read(widen)
    read(count)
    found = {}
    for name, (low, high), weight in zip(names, ends.tolist(), counts, strict=True):
        values = np.linspace(low, high, N_BINS)
        errors = {}
        for least, most in product(low * NEARER, high * NEARER):
            scale, zero = _step_and_zero(least, most)
            kept = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
            errors[float(least), float(most)] = weight @ (kept - values) ** 2
        found[name] = min(errors, key=errors.__getitem__)
    return found

"""The exported graph in eight bits, as lesson 09 derives it.

Ranges of activations come from texts, each column of a matrix has a scale of its own, and sums are
those that the processor adds. ONNX Runtime's own `quantize_static` would save these lines, and is
slower and less true: `benchmarks/int8.py` measured 2.3 times the speed of float32 here and 2.0
times there, on the sample's 316 test texts in one run on one processor. The root mean square error
of a probability was 0.0020 here; it was 0.0028 there with matrices in seven bits, which every
processor adds right and which are used here, and 0.0022 with eight. Decisions that came out
otherwise than in float32, of 9,164: 8 here, 14 and 10 there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np

from viralbert.serving import text_batches
from viralbert.serving.onnx_model import runtime

N_BINS = 2048
NEARER = np.linspace(0.5, 1, 11)  # shares of a range's ends that are tried as its ends
TINY = float(np.finfo(np.float32).tiny)


def in_int8(model: Any, rows: list[list[int]], pad_id: int, beside: list[np.ndarray]) -> Any:
    """Rewrite linear layers and tables of vectors in eight bits.

    A linear layer and its bias become one node of ONNX Runtime's own. A scale belongs to each
    column of a matrix, to each row of a table, and to each activation (see
    `_ranges`; a value beyond its range counts as the end).
    """
    import onnx

    graph, make = model.graph, onnx.helper.make_node
    weights = {one.name: one for one in graph.initializer}
    matrices = {
        n
        for n, one in weights.items()
        if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) == 2
    }
    readers = _readers(graph)
    linear = [
        node.input[0]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in matrices
    ]
    ranges = _ranges(model, list(dict.fromkeys(linear)), rows, pad_id, beside)
    nodes: list[Any] = []
    made: set[str] = set()  # sums that the node of their product gives

    def keep(name: str, values: Any) -> str:
        weights[name] = onnx.numpy_helper.from_array(np.asarray(values), name)
        return name

    def rounded(name: str, axis: int) -> tuple[str, str]:
        values = onnx.numpy_helper.to_array(weights[name])
        # Matrices in seven bits: processors without VNNI add two products in 16 bits, and eight
        # would overflow there.
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
            bias, sum_of_both = _bias_after(readers.get(output, []), weights)
            if bias:
                output = sum_of_both
                made.add(output)
            nodes.append(
                make("MatMulIntegerToFloat", [*inputs, *bias], [output], domain="com.microsoft")
            )
        elif node.op_type == "Gather" and node.input[0] in matrices:
            (given,) = node.output
            for stored, part in zip(rounded(node.input[0], 1), ("rows", "rows_scale"), strict=True):
                nodes.append(make("Gather", [stored, node.input[1]], [f"{given}.{part}"]))
            nodes.append(
                make("Cast", [f"{given}.rows"], [f"{given}.rows_float"], to=onnx.TensorProto.FLOAT)
            )
            nodes.append(make("Mul", [f"{given}.rows_float", f"{given}.rows_scale"], [given]))
        elif node.output[0] not in made:
            nodes.append(node)
    read_now = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(one for name, one in weights.items() if name in read_now)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def _readers(graph: Any) -> dict[str, list[Any]]:
    """The nodes that read each value."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _bias_after(readers: list[Any], weights: Mapping[str, Any]) -> tuple[list[str], str]:
    """The bias that is all that happens to a product, and the name of their sum; or nothing."""
    if [node.op_type for node in readers] != ["Add"]:
        return [], ""
    return [name for name in readers[0].input if name in weights], readers[0].output[0]


def _step_and_zero(low: float, high: float) -> tuple[float, int]:
    """Width of the 256 steps between two values, zero among them, and which step is zero."""
    step = max((high - low) / 255, TINY)
    return step, round(-low / step)


def _ranges(
    model: Any, names: list[str], rows: list[list[int]], pad_id: int, beside: list[np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Find the range of each activation whose 256 steps have the least squared error.

    All rows count, and zero lies in every range. Ends nearer than the extremes are tried: few
    values lie out there, and finer steps serve all others.
    """
    import onnx

    if not names:  # word vectors alone: asked for nothing, a session gives all outputs
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = runtime().InferenceSession(
        probe.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ends, counts = np.zeros((len(names), 2)), np.zeros((len(names), N_BINS))

    def read(see: Callable[[int, np.ndarray], None]) -> None:
        def step(ids: np.ndarray, mask: np.ndarray, *columns: np.ndarray) -> np.ndarray:
            given = dict(
                zip([i.name for i in session.get_inputs()], (ids, mask, *columns), strict=True)
            )
            for n, values in enumerate(session.run(names, given)):
                see(
                    n, values[mask > 0] if values.ndim == 3 else values
                )  # of padding nothing is read
            return ids[:, :1]

        text_batches.in_batches(step, rows, pad_id, *beside)

    def widen(n: int, values: np.ndarray) -> None:
        ends[n] = min(ends[n, 0], values.min()), max(ends[n, 1], values.max())

    def count(n: int, values: np.ndarray) -> None:
        counts[n] += np.histogram(values, N_BINS, tuple(ends[n]))[0]

    read(widen)
    read(count)
    ranges = {}
    for name, (low, high), weight in zip(names, ends.tolist(), counts, strict=True):
        values = np.linspace(low, high, N_BINS)
        errors = {}
        for least, most in product(low * NEARER, high * NEARER):
            scale, zero = _step_and_zero(least, most)
            restored = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
            errors[float(least), float(most)] = weight @ (restored - values) ** 2
        ranges[name] = min(errors, key=errors.__getitem__)
    return ranges

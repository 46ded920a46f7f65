"""Int8: within its bound, whatever stands beside a text, and smaller."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from scipy.special import expit

from tests.product.serving.small_models import MANY, table
from viralbert.serving import export, int8, text_batches
from viralbert.serving.int8 import NEARER
from viralbert.serving.onnx_model import OnnxModel, runtime
from viralbert.serving.predictor import ViralBERT
from viralbert_utils.base import tokens


def test_int8_is_near_and_depends_on_no_neighbour(bert, folders):
    quantised = ViralBERT.load(folders / "int8")
    found = table(quantised.predict(MANY))
    assert 1e-4 < np.abs(found - table(bert.predict(MANY))).max() < export.TOLERANCE_INT8
    alone = table([quantised.predict(text) for text in MANY])
    assert np.abs(found - alone).max() < 1e-5
    wild = table(quantised.predict([MANY[0], *["Ы" * n for n in range(1, 60)]]))[0]
    assert wild == pytest.approx(found[0], abs=1e-5)


def test_plain_dynamic_quantisation_does_depend_on_neighbours(folders, tmp_path):
    """What the fixed ranges are for."""
    runtime()
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(
        folders / "float" / "model.onnx", tmp_path / "model.onnx", op_types_to_quantize=["MatMul"]
    )
    session = runtime().InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    model = replace(OnnxModel.load(folders / "float"), session=session)
    rows = tokens.encode(model.tokenizer, MANY, 24)
    apart = text_batches.in_batches(model.step, rows, 0, n_tokens=1)
    together = text_batches.in_batches(model.step, rows, 0)
    assert np.abs(expit(apart) - expit(together)).max() > 1e-4


def small_graph(*nodes, outputs: list[str], **weights: np.ndarray) -> onnx.ModelProto:
    integer, real = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    inputs = [
        onnx.helper.make_tensor_value_info(name, integer, [None, None])
        for name in ("input_ids", "mask")
    ]
    given = [onnx.helper.make_tensor_value_info(name, real, [None, None, None]) for name in outputs]
    kept = [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(*node) for node in nodes], "small", inputs, given, kept
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", export.OPSET)], ir_version=10
    )


def test_int8_layers_compute_what_their_integers_say():
    """Against the arithmetic in numpy: a scale a column, a range for the input, values beyond it
    cut; bias or none."""
    rng = np.random.default_rng(0)
    table, first, second = (
        rng.normal(size=shape).astype(np.float32) for shape in ((9, 8), (8, 5), (8, 3))
    )
    first[:, 2] *= 100
    second[:, 1] = 0
    bias = rng.normal(size=5).astype(np.float32)
    plain = small_graph(
        ("Gather", ["table", "input_ids"], ["read"]),
        ("MatMul", ["read", "first"], ["product"]),
        ("Add", ["bias", "product"], ["biased"]),
        ("MatMul", ["read", "second"], ["other"]),
        ("Add", ["other", "other"], ["twice"]),
        outputs=["biased", "twice"],
        table=table,
        first=first,
        second=second,
        bias=bias,
    )
    rows = [[1, 2], [3, 4]]
    low, high = int8._ranges(plain, ["read"], rows, 0, [])["read"]
    model = int8.in_int8(plain, rows, 0, [])
    assert not {"first", "second", "table"} & {one.name for one in model.graph.initializer}
    session = runtime().InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ids = np.arange(9)[None]
    found = session.run(None, {"input_ids": ids, "mask": ids})

    def rounded(values, axis, most):
        scale = np.maximum(np.abs(values).max(axis, keepdims=True) / most, 1e-30)
        return np.rint(values / scale) * scale

    read, step = rounded(table, 1, 127), (high - low) / 255
    zero = np.rint(-low / step)
    cut = (np.clip(np.rint(read / step) + zero, 0, 255) - zero) * step
    assert np.abs(cut - read).max() > 10 * step, "some values do lie beyond the range"
    assert found[0][0] == pytest.approx(cut @ rounded(first, 0, 63) + bias, rel=1e-3, abs=1e-2)
    assert found[1][0] == pytest.approx(2 * cut @ rounded(second, 0, 63), rel=1e-3, abs=1e-2)


def test_a_range_serves_the_many_values_and_not_the_padding():
    values = np.random.default_rng(0).normal(size=(20_000, 20)).astype(np.float32)
    values[7, 0], values[0] = 9, 1e6  # one value far out, and what stands for padding
    plain = small_graph(
        ("Gather", ["table", "input_ids"], ["read"]),
        ("MatMul", ["read", "square"], ["product"]),
        outputs=["product"],
        table=values,
        square=np.eye(20, dtype=np.float32),
    )
    rows = [list(range(1, 10_001)), list(range(10_001, 20_000))]
    low, high = int8._ranges(plain, ["read"], rows, 0, [])["read"]

    def error(least: float, most: float) -> float:
        step = (most - least) / 255
        zero = np.rint(-least / step)
        return float(
            (
                (((np.rint(values[1:] / step) + zero).clip(0, 255) - zero) * step - values[1:]) ** 2
            ).mean()
        )

    extremes = float(values[1:].min()), 9.0
    assert error(low, high) < 0.9 * error(*extremes)
    assert error(low, high) < 1.1 * min(error(extremes[0], 9 * share) for share in NEARER)
    assert 0 < high < 9


def test_int8_is_smaller(folders):
    plain, small = (
        sum(f.stat().st_size for f in (folders / name).glob("model.onnx*"))
        for name in ("float", "int8")
    )
    assert small < plain
    kinds = {node.op_type for node in onnx.load(folders / "int8" / "model.onnx").graph.node}
    assert not {"DynamicQuantizeLinear", "MatMul"} & kinds
    assert {"MatMulIntegerToFloat", "QuantizeLinear"} <= kinds

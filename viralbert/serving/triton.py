"""An exported model as NVIDIA's Triton Inference Server wants it: its folder and `config.pbtxt`.

Triton reads a repository of models, `<repository>/<model>/<version>/model.onnx`, and beside the
versions a description in protobuf's text form. Names, types and sizes are taken from the graph.
Triton computes logits of ids; tokens, thresholds and names of classes are the client's, who finds
them in the same folder (`viralbert.serving.onnx_model`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from viralbert_utils.base.errors import DataError

VERSION, CONFIG = "1", "config.pbtxt"
MAX_BATCH = 64  # texts, as many as the course's own service computes together
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_name(name: str) -> None:
    """Refuse a folder's name that could not be a model's in a URL.

    Raises:
        DataError: It has other characters than Latin letters, digits, `_`, `.` and `-`.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            "expected a folder whose name can be that of a model (Latin letters, digits, _ . -), "
            f"found {name!r:.80}; export into another, such as repository/viralbert"
        )


def config(graph: Any, name: str, max_batch: int = MAX_BATCH) -> str:
    """Describe an exported graph as `config.pbtxt`.

    Triton counts the batch apart (`max_batch_size`), so the first dimension, which is free in every
    input and output, is left out; any other free one is -1.

    Args:
        graph: An `onnx.ModelProto`.
        name: The model's, that of its folder.
        max_batch: Texts that Triton computes together at most.

    Raises:
        DataError: The name can be none, or an input's or output's first dimension is not free.
    """
    check_name(name)
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        'default_model_filename: "model.onnx"',
        f"max_batch_size: {max_batch}",
        *_tensors("input", graph.graph.input),
        *_tensors("output", graph.graph.output),
        "dynamic_batching {",
        "  max_queue_delay_microseconds: 2000",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _tensors(kind: str, values: Iterable[Any]) -> Iterator[str]:
    from onnx import TensorProto

    # Triton's names for the types of the graphs that `export` writes.
    types = {TensorProto.INT64: "TYPE_INT64", TensorProto.FLOAT: "TYPE_FP32"}
    for value in values:
        tensor = value.type.tensor_type
        batch, *others = (d.dim_value or -1 for d in tensor.shape.dim)
        if batch != -1:
            raise DataError(
                f"{kind} {value.name}: expected a graph that takes any number of texts, found one "
                f"for {batch}; export the model again"
            )
        yield f"{kind} {{"
        yield f'  name: "{value.name}"'
        yield f"  data_type: {types[tensor.elem_type]}"
        yield f"  dims: [ {', '.join(map(str, others))} ]"
        yield "}"

"""The layout for Triton: what its description says is what the graph says."""

import functools

import numpy as np
import onnx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from tests.product.serving.small_models import MANY, TEXTS, table
from viralbert.cli import main
from viralbert.serving import export, triton
from viralbert.serving.predictor import Predictor
from viralbert_utils.base.errors import DataError

TYPES = {onnx.TensorProto.INT64: "TYPE_INT64", onnx.TensorProto.FLOAT: "TYPE_FP32"}


@functools.cache
def model_config():
    """The messages of Triton's model_config.proto that we write; other fields are refused."""
    kinds = descriptor_pb2.FieldDescriptorProto
    messages = {
        "ModelConfig": {
            "name": kinds.TYPE_STRING,
            "backend": kinds.TYPE_STRING,
            "default_model_filename": kinds.TYPE_STRING,
            "max_batch_size": kinds.TYPE_INT32,
            "input": ".Tensor",
            "output": ".Tensor",
            "dynamic_batching": ".Batching",
        },
        "Tensor": {
            "name": kinds.TYPE_STRING,
            "data_type": ".DataType",
            "dims": kinds.TYPE_INT64,
        },
        "Batching": {"max_queue_delay_microseconds": kinds.TYPE_UINT64},
    }
    file = descriptor_pb2.FileDescriptorProto(name="model_config", syntax="proto3")
    types = file.enum_type.add(name="DataType")
    for number, name in enumerate(["TYPE_INVALID", *TYPES.values()]):
        types.value.add(name=name, number=number)
    for message, fields in messages.items():
        made = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            repeated = name in ("input", "output", "dims")
            field = made.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
            )
            if isinstance(kind, str):
                field.type_name = kind
                is_enum = kind == ".DataType"
                field.type = kinds.TYPE_ENUM if is_enum else kinds.TYPE_MESSAGE
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ModelConfig"))


def described(tensors, types) -> list[tuple[str, str, list[int]]]:
    names = types.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return [(one.name, names[one.data_type].name, list(one.dims)) for one in tensors]


def drawn(values) -> list[tuple[str, str, list[int]]]:
    """The same of a graph, without the batch."""
    return [
        (
            value.name,
            TYPES[value.type.tensor_type.elem_type],
            [d.dim_value or -1 for d in value.type.tensor_type.shape.dim[1:]],
        )
        for value in values
    ]


@pytest.fixture
def retraced(folders, monkeypatch):
    """Tracing takes seconds: the graph that stands in the export is the same."""
    graph = folders / "float" / "model.onnx"
    monkeypatch.setattr(export, "_graph", lambda *_: onnx.load(graph))


def test_the_layout_is_described_as_the_graph_is(bert, folders, retraced, tmp_path, capsys):
    target = tmp_path / "repository" / "viralbert"
    command = ["export", "--model", str(folders / "torch"), "-o", str(target), "--layout", "triton"]
    assert main(command) == 0
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    model = {"model.onnx", "model.onnx.data", "tokenizer.json", "SHA256SUMS"}
    assert files == {"config.pbtxt"} | {f"1/{name}" for name in model}
    graph = onnx.load(target / "1" / "model.onnx").graph
    found = text_format.Parse((target / "config.pbtxt").read_text(), model_config()())
    assert (found.name, found.backend) == ("viralbert", "onnxruntime")
    assert found.default_model_filename == "model.onnx"
    assert found.max_batch_size > 1
    assert described(found.input, found.input[0]) == drawn(graph.input)
    assert described(found.output, found.output[0]) == drawn(graph.output)
    assert drawn(graph.input)[0] == ("input_ids", "TYPE_INT64", [-1])
    assert drawn(graph.output) == [("logits", "TYPE_FP32", [29])]
    # What a client needs beside it is in the same folder, which is an export like others.
    answers = Predictor.load(target / "1").predict(TEXTS)
    assert np.abs(table(answers) - table(bert.predict(TEXTS))).max() < 1e-5
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    assert f"{size / 1e6:.0f} MB" in capsys.readouterr().out


def test_a_layout_replaces_an_export_and_an_export_a_layout(folders, retraced, tmp_path):
    source, target = folders / "torch", tmp_path / "model"
    export.export(source, target, texts=MANY, layout="triton")
    export.export(source, target, texts=MANY)
    assert not (target / "1").exists()
    assert (target / "model.onnx").is_file()
    export.export(source, target, texts=MANY, layout="triton")
    assert not (target / "model.onnx").exists()
    assert (target / "1" / "model.onnx").is_file()


def tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def graph(*inputs: onnx.ValueInfoProto) -> onnx.ModelProto:
    output = tensor("logits", onnx.TensorProto.FLOAT, "batch", 3)
    return onnx.helper.make_model(onnx.helper.make_graph([], "g", inputs, [output]))


def test_the_columns_of_a_hybrid_have_their_number():
    ids = tensor("input_ids", onnx.TensorProto.INT64, "batch", "length")
    model = graph(ids, tensor("columns", onnx.TensorProto.FLOAT, "batch", 7))
    found = text_format.Parse(triton.config(model, "hybrid"), model_config()())
    assert described(found.input, found.input[0]) == [
        ("input_ids", "TYPE_INT64", [-1]),
        ("columns", "TYPE_FP32", [7]),
    ]
    assert described(found.output, found.input[0]) == [("logits", "TYPE_FP32", [3])]


def test_a_graph_for_a_fixed_number_of_texts_is_refused():
    model = graph(tensor("input_ids", onnx.TensorProto.INT64, 2, "length"))
    with pytest.raises(DataError, match=r"input input_ids: .* found one for 2"):
        triton.config(model, "fixed")


@pytest.mark.parametrize("name", ["модель", "a b", '"', "-a"])
def test_a_name_that_can_be_no_models_is_refused_before_anything_is_traced(folders, tmp_path, name):
    with pytest.raises(DataError, match="whose name can be that of a model"):
        export.export(folders / "torch", tmp_path / name, layout="triton")
    assert not (tmp_path / name).exists()


def test_a_layout_that_is_none(folders, tmp_path):
    with pytest.raises(DataError, match="layout 'tensorrt': expected one of plain, triton"):
        export.export(folders / "torch", tmp_path / "a", layout="tensorrt")

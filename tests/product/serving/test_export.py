"""Export: the same answers as torch, without torch; int8 within its bound, whatever stands beside a
text."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax
from transformers import XLMRobertaConfig, XLMRobertaModel

from tests import tiny
from tests.product.serving.test_predictor import TEXTS, make_tokenizer, thresholds
from viralbert.cli import main
from viralbert.serving import export, int8, text_batches
from viralbert.serving.int8 import NEARER
from viralbert.serving.onnx_model import OnnxModel, runtime
from viralbert.serving.predictor import HEAD_SHARE, ViralBERT
from viralbert_utils.base import tokens
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT, SUMS, write_sums
from viralbert_utils.data.emotions import EMOTIONS
from viralbert_utils.data.sources import load
from viralbert_utils.evaluation.calibration import Calibration
from viralbert_utils.lessons import columns, hybrid
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier, PooledClassifier
from viralbert_utils.models.storage import save_classifier

SIZES = tiny.config(300, 64, 32, 2)
MANY = [f"{text} И ещё {k} раз{'а' * (k % 7)}." for k in range(20) for text in TEXTS]


def make_encoder(kind: str = "bert"):
    torch.manual_seed(0)
    if kind == "bert":
        return tiny.bert(**SIZES)
    config = XLMRobertaConfig(pad_token_id=0, **SIZES)
    return XLMRobertaModel(config, add_pooling_layer=False)


@pytest.fixture(scope="module")
def bert() -> ViralBERT:
    heads = {"emotions": Head(EMOTIONS, (24,), (0.1,)), "virality": Head(("viral",))}
    model = MultiTaskClassifier(make_encoder(), heads, "mean", train_embeddings=False).eval()
    for head in model.heads.values():
        torch.nn.init.normal_(head[-1].weight, std=0.5)
    line = Calibration(np.array([0.7]), np.array([-0.2]))
    about = {"max_length": 24, "data": "sample"}
    both = {"virality": thresholds(["viral"], 0.4), "emotions": thresholds(EMOTIONS, 0.5)}
    return ViralBERT(model, make_tokenizer(), about, both, line)


@pytest.fixture(scope="module")
def folders(bert, tmp_path_factory):
    """The model as torch, ONNX and int8."""
    root = tmp_path_factory.mktemp("export")
    bert.save(root / "torch")
    export.export(root / "torch", root / "float", texts=MANY)
    with pytest.MonkeyPatch.context() as patch:
        traced(patch, root)
        export.export(root / "torch", root / "int8", int8=True, texts=MANY)
    return root


def traced(patch: pytest.MonkeyPatch, root) -> None:
    """Tracing takes seconds: the graph that stands in the export is the same."""
    patch.setattr(export, "_graph", lambda *_: onnx.load(root / "float" / "model.onnx"))


def table(found) -> np.ndarray:
    return np.array([[one.viral_score, *one.probabilities.values()] for one in found])


# the same answers


def test_an_export_answers_as_torch_does(bert, folders):
    texts = [*MANY, "", "  ", "😂", "\ud83d", "о" * 5000, "я"]
    exported = ViralBERT.load(folders / "float")
    torch_s, onnx_s = bert.predict(texts), exported.predict(texts)
    assert np.abs(table(torch_s) - table(onnx_s)).max() < 1e-5
    assert [one.is_viral for one in torch_s] == [one.is_viral for one in onnx_s]
    assert table([exported.predict(text) for text in texts]) == pytest.approx(
        table(onnx_s), abs=1e-5
    )
    assert list(exported.predict_iter(texts[:3])) == onnx_s[:3]
    assert exported.scores(texts).emotions == pytest.approx(bert.scores(texts).emotions, abs=1e-5)
    assert (exported.emotions, exported.virality) == (bert.emotions, bert.virality)


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


@pytest.mark.parametrize(("kind", "pooling"), [("bert", "attention+max+mean"), ("roberta", "cls")])
def test_a_pooled_classifier_of_any_encoder(kind, pooling, tmp_path):
    model = PooledClassifier(make_encoder(kind), 3, pooling).eval()
    model.centre += 0.1
    tokenizer = make_tokenizer()
    save_classifier(
        tmp_path / "torch", model, tokenizer, ["плохо", "ничего", "хорошо"], max_length=40
    )
    exported = export.export(tmp_path / "torch", tmp_path / "onnx", texts=TEXTS)
    assert exported.tasks == {"classes": ("плохо", "ничего", "хорошо")}
    for texts in (TEXTS, TEXTS[:1], ["о" * 100, "я"]):
        rows = tokens.encode(tokenizer, texts, 40, HEAD_SHARE)
        with torch.inference_mode():
            ids, mask = map(torch.from_numpy, tokens.pad(rows, 0))
            assert exported.logits(texts) == pytest.approx(model(ids, mask).numpy(), abs=1e-5)
    with pytest.raises(
        DataError,
        match="need a model with the tasks virality and emotions, found classes; lesson 06",
    ):
        ViralBERT.load(tmp_path / "onnx")


def test_a_hybrid_takes_its_columns_beside_the_text(tmp_path):
    rows = pd.DataFrame({"title": TEXTS, "length": [3.0, 9.0, 1.0, 4.0], "label": list("abab")})
    tokenizer, preparation = (
        make_tokenizer(),
        columns.prepare(rows, ["title"], ["length"], n_bins=2),
    )
    torch.manual_seed(0)
    model = hybrid.HybridClassifier(make_encoder(), 2, preparation.columns(rows).shape[1]).eval()
    whole = hybrid.Hybrid(model, tokenizer, preparation, ["a", "b"], 40)
    whole.save(tmp_path / "torch")
    exported = export.export(tmp_path / "torch", tmp_path / "onnx", texts=TEXTS)
    found = exported.logits(preparation.text(rows), preparation.columns(rows))
    assert softmax(found, axis=1) == pytest.approx(whole.probabilities(rows), abs=1e-5)
    assert exported.tasks == {"classes": ("a", "b")}


# the folder


def test_no_torch_in_a_process_that_serves(folders):
    code = (
        "import sys; from viralbert.serving.predictor import ViralBERT; "
        f"bert = ViralBERT.load({str(folders / 'float')!r}); "
        "print(len(bert.predict(['Кот.'])[0].probabilities)); "
        "print(sorted({'torch', 'transformers', 'onnx', 'sklearn', 'scipy.stats', 'datasketch'} "
        "& sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "28\n[]\n"


def test_what_the_model_file_says(bert, folders):
    about = {name: OnnxModel.load(folders / name).about for name in ("float", "int8")}
    assert [about[name]["int8"] for name in about] == [False, True]
    assert about["float"]["difference"] < 1e-5 < about["int8"]["difference"]
    assert about["float"]["source_sha256"] == about["int8"]["source_sha256"]
    assert about["float"]["tasks"] == {"emotions": list(EMOTIONS), "virality": ["viral"]}
    assert about["float"]["settings"]["max_length"] == 24
    assert set(about["float"]["versions"]) == set(export.PACKAGES)
    assert (
        ViralBERT.load(folders / "float").settings["source_sha256"]
        == about["float"]["source_sha256"]
    )
    graph = onnx.load(folders / "float" / "model.onnx", load_external_data=False).graph
    dimensions = [
        [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    ]
    assert dimensions == [[0, 0], [0, 0], [0, 29]], "batch and length are free"


def test_int8_is_smaller(folders):
    plain, small = (
        sum(f.stat().st_size for f in (folders / name).glob("model.onnx*"))
        for name in ("float", "int8")
    )
    assert small < plain
    kinds = {node.op_type for node in onnx.load(folders / "int8" / "model.onnx").graph.node}
    assert not {"DynamicQuantizeLinear", "MatMul"} & kinds
    assert {"MatMulIntegerToFloat", "QuantizeLinear"} <= kinds


def test_an_export_replaces_an_export_and_nothing_else(folders, tmp_path):
    (tmp_path / "letters.txt").write_text("важное")
    with pytest.raises(DataError, match="holds something that is no exported model"):
        export.export(folders / "torch", tmp_path)
    assert (tmp_path / "letters.txt").read_text() == "важное"
    with pytest.raises(DataError, match="no saved classifier"):
        export.export(tmp_path, tmp_path / "new")


def test_an_export_that_answers_otherwise_is_not_written(folders, tmp_path, monkeypatch):
    traced(monkeypatch, folders)
    step = OnnxModel.step
    monkeypatch.setattr(OnnxModel, "step", lambda self, *inputs: step(self, *inputs) + 0.001)
    with pytest.raises(
        DataError, match=r"differ from torch's by up to 0.0002\d on 4 texts, more than 0.0001"
    ):
        export.export(folders / "torch", tmp_path / "new", texts=TEXTS)
    assert not list(tmp_path.iterdir())


def test_a_damaged_export_is_named(folders, tmp_path):
    with pytest.raises(DataError, match=r"no exported model: model.onnx, tokenizer.json missing"):
        OnnxModel.load(tmp_path)
    for name in ("model.onnx", "tokenizer.json", "model.onnx.data"):
        content = (folders / "int8" / name).read_bytes()
        (folders / "int8" / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=r"is damaged .*; export the model again"):
            ViralBERT.load(folders / "int8")
        (folders / "int8" / name).write_bytes(content)
    ViralBERT.load(folders / "int8")


def test_the_tokenizer_of_another_model_is_refused(folders, tmp_path, caplog):
    shutil.copytree(folders / "float", tmp_path / "new")
    path = tmp_path / "new" / "tokenizer.json"
    words = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = words["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    path.write_text(json.dumps(words), encoding="utf-8")
    with pytest.raises(DataError, match=r"tokenizer\.json is damaged: its sha256"):
        OnnxModel.load(tmp_path / "new")
    (tmp_path / "new" / SUMS).unlink()  # as somebody does who has changed it on purpose
    OnnxModel.load(tmp_path / "new")
    assert "has no SHA256SUMS" in caplog.text


WRONG = [
    *(
        {name: None}
        for name in (
            "tasks",
            "settings",
            "pad_id",
            "thresholds",
            "int8",
            "source_sha256",
            "versions",
        )
    ),
    {"tasks": []},
    {"tasks": {}},
    {"tasks": {"a": 5}},
    {"tasks": {"a": ["b"]}},
    {"tasks": {"a": [1] * 29}},
    {"pad_id": "a"},
    {"pad_id": 10**9},
    {"pad_id": 10**30},
    {"pad_id": 1.5},
    {"thresholds": []},
    {"calibration": []},
    {"calibration": {"virality": {"slope": 10**400, "intercept": 0}}},
    {"int8": "yes"},
    {"versions": 5},
]
WRONG_SETTINGS = [
    *({"max_length": value} for value in (4096, 65, 2, 0, -1, "a", None, True, 10**9, 1.5)),
    *({"head_share": value} for value in (2, -1, "a", None, float("nan"))),
    {"problem_type": []},
    {"names": 5},
    {"names": [5]},
    {"names": ["a"], "task": 5},
    {"shape": {"n_columns": 3}},
]


def test_an_export_that_says_wrong_things_of_itself_is_refused(folders, tmp_path):
    """As a stranger may send one: the sums are those of its files."""
    shutil.copytree(folders / "float", tmp_path / "new")
    graph = onnx.load(folders / "float" / "model.onnx", load_external_data=False)
    plain = json.loads(graph.metadata_props[0].value)

    def told(content: str) -> None:
        graph.metadata_props[0].value = content
        (tmp_path / "new" / "model.onnx").write_bytes(graph.SerializeToString())
        write_sums(tmp_path / "new")

    told(json.dumps(plain))
    ViralBERT.load(tmp_path / "new")
    settings = [{"settings": plain["settings"] | wrong} for wrong in WRONG_SETTINGS]
    contents = [json.dumps(plain | wrong) for wrong in [*WRONG, *settings]]
    contents.append(
        json.dumps({name: value for name, value in plain.items() if name != "calibration"})
    )
    for content in [*contents, "{}", "[1]", "null", '"a"', "{", "[" * 100_000, "9" * 5000]:
        told(content)
        with pytest.raises(DataError):
            ViralBERT.load(tmp_path / "new")


@pytest.mark.parametrize(
    "lie",
    [
        {"location": "../weights"},
        {"location": "/etc/passwd"},
        {"location": "../../../../../../etc/passwd"},
        {"location": "no such file"},
        {"offset": "-4096"},
        {"offset": str(10**15)},
        {"length": str(10**15)},
        {"length": "-1"},
        {"link": "file"},
        {"link": "folder"},
    ],
    ids=str,
)
def test_weights_that_lie_elsewhere_are_refused(folders, tmp_path, lie):
    new = shutil.copytree(folders / "float", tmp_path / "new")
    weights = new / "model.onnx.data"
    shutil.copy(weights, tmp_path / "weights")
    graph = onnx.load(new / "model.onnx", load_external_data=False)
    if lie.get("link") == "file":
        weights.unlink()
        weights.symlink_to(tmp_path / "weights")
    elif lie.get("link") == "folder":
        (new / "deep").symlink_to(tmp_path)
        lie = {"location": "deep/weights"}
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            entry.value = lie.get(entry.key, entry.value)
    (new / "model.onnx").write_bytes(graph.SerializeToString())
    write_sums(new)
    with pytest.raises(DataError, match="is damaged"):
        OnnxModel.load(new)


def test_a_model_in_use_answers_on_when_its_folder_is_moved_or_removed(folders, tmp_path):
    shutil.copytree(folders / "float", tmp_path / "one")
    loaded = ViralBERT.load(tmp_path / "one")
    before = loaded.predict(TEXTS)
    (tmp_path / "one").rename(tmp_path / "two")
    assert loaded.predict(TEXTS) == before
    shutil.rmtree(tmp_path / "two")
    assert loaded.predict(TEXTS) == before


# nothing leaves the machine

USE = """
import sys, time
from viralbert.serving.predictor import Predictor
Predictor.load(sys.argv[1]).predict(["Кот сам открыл дверь."])
time.sleep(3)  # a thread of the runtime would ask for an address by now
"""


def traceless(folders, tmp_path: Path, *before: str, **more: str) -> list[str]:
    """Load and run an export with new folders for HOME and temporary files; returns the files that
    were made there."""
    new = {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for folder in (tmp_path / "home", tmp_path / "tmp"):
        folder.mkdir()
    given = {k: v for k, v in os.environ.items() if not re.match("XDG_|ORT_", k)} | new | more
    command = [*before, sys.executable, "-c", USE, str(folders / "float")]
    subprocess.run(command, env=given, check=True, timeout=600)
    return [
        str(path.relative_to(tmp_path))
        for top in ("home", "tmp")
        for path in (tmp_path / top).rglob("*")
    ]


@pytest.mark.parametrize("given", [{}, {"ORT_DISABLE_TELEMETRY": "0"}], ids=["unset", "asked for"])
def test_an_export_in_use_leaves_no_file_behind(folders, tmp_path, given):
    assert traceless(folders, tmp_path, **given) == []


@pytest.mark.skipif(
    not shutil.which("strace"), reason="strace is not installed; it shows sockets that are opened"
)
def test_an_export_in_use_opens_no_socket(folders, tmp_path):
    calls = tmp_path / "calls"
    traceless(folders, tmp_path, "strace", "-f", "-qq", "-e", "trace=network", "-o", str(calls))
    assert [line for line in calls.read_text().splitlines() if "socket(" in line] == []


def test_only_one_place_imports_the_runtime():
    sources = [
        *(ROOT / "viralbert").rglob("*.py"),
        *(ROOT / "viralbert_utils").rglob("*.py"),
        *(ROOT / "notebooks").glob("*.ipynb"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    importing = r"(import|from) onnxruntime|import_module\(.onnxruntime"
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sources
        if re.search(importing, path.read_text(encoding="utf-8"))
    ]
    # The benchmark takes ONNX Runtime's own quantization, behind the call that switches it silent.
    assert found == ["viralbert/serving/onnx_model.py", "benchmarks/int8.py"]


def test_the_texts_that_an_export_is_measured_on_are_the_first_of_the_sample():
    shipped = export.TEXTS.read_text(encoding="utf-8").splitlines()
    assert shipped == list(load("emotions").splits["all"]["text"][:256])


def test_options_of_torch_are_refused(folders, tmp_path):
    for name, own, options in (
        ("float", "float32", {"precision": "bfloat16"}),
        ("float", "float32", {"device": "cuda"}),
        ("int8", "int8", {"precision": "float32"}),
    ):
        with pytest.raises(
            DataError, match=f"exported model: it computes on the CPU in {own}, found device"
        ):
            ViralBERT.load(folders / name, **options)
    exported = ViralBERT.load(folders / "float", "cpu", "float32")
    with pytest.raises(DataError, match="cannot be saved as one to train"):
        exported.save(tmp_path / "new")
    with pytest.raises(DataError, match="'admiration' where 'amusement'"):
        replace(
            exported,
            thresholds={"emotions": thresholds([EMOTIONS[1], EMOTIONS[0], *EMOTIONS[2:]], 0.5)},
        )
    assert json.loads(json.dumps(exported.settings)) == exported.settings


def test_the_command(folders, tmp_path, capsys, monkeypatch):
    traced(monkeypatch, folders)
    assert main(["export", str(folders / "torch"), "-o", str(tmp_path / "new"), "--int8"]) == 0
    assert "probabilities differ from torch's by 0.0" in capsys.readouterr().out
    assert OnnxModel.load(tmp_path / "new").about["int8"]
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "other")]) == 1
    assert "no saved classifier" in capsys.readouterr().err


def test_an_export_is_not_exported_again(tmp_path):
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "model.onnx").touch()
    for target in ("exported", "again"):
        with pytest.raises(
            DataError,
            match=r"exported is an exported model already: .* the folder that it was made from",
        ):
            export.export(tmp_path / "exported", tmp_path / target)
    with pytest.raises(DataError, match="exported is an exported hybrid already"):
        hybrid.Hybrid.load(tmp_path / "exported")

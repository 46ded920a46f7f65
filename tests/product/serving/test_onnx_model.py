"""A model in ONNX Runtime: without torch, in use, damaged or dishonest; it leaves no trace."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from tests.product.serving.small_models import TEXTS, thresholds
from viralbert.serving.onnx_model import OnnxModel
from viralbert.serving.predictor import ViralBERT
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT, SUMS, write_sums
from viralbert_utils.data.emotions import EMOTIONS

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

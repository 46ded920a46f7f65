"""The shipped model: packed small, and put together again on first use, by one process alone."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.product.serving.small_models import MANY, TEXTS, table
from tests.product.serving.small_shipped import MOVED, TASKS, few_words, write_trained
from viralbert.serving import export, shipped
from viralbert.serving.predictor import Predictor, ViralBERT
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import ROOT, SUMS, folder_sha256, write_sums
from viralbert_utils.encoders import embedded
from viralbert_utils.encoders.loading import load_encoder
from viralbert_utils.models.storage import load_classifier

WORDS = "encoder.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory) -> Iterator[Path]:
    """A cache folder of this file alone, with the embedded encoder of few words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "load_navec", few_words)
        patch.setenv("VIRALBERT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Path(os.environ["VIRALBERT_CACHE"])


@pytest.fixture(scope="module")
def source(cache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "model"
    write_trained(folder)
    return folder


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "model"
    size = shipped.pack(source, folder, "# Карточка\n")
    assert size == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return folder


@pytest.fixture(scope="module")
def exported(packed) -> Path:
    return shipped.folder("cpu", packed=packed)


@pytest.fixture
def changed(packed, tmp_path) -> Path:
    """A copy to damage: another folder in the cache belongs to it."""
    shutil.copytree(packed, tmp_path / "packed")
    (tmp_path / "packed" / shipped.CARD).write_text(f"# {tmp_path}\n", encoding="utf-8")
    write_sums(tmp_path / "packed")
    return tmp_path / "packed"


def cached(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.name.startswith("viralbert-")}


def test_what_is_unpacked_is_what_was_packed(source, packed, tmp_path):
    shipped.unpack(packed, tmp_path / "unpacked")
    before, _, settings_before = load_classifier(source, "cpu")
    after, tokenizer, settings_after = load_classifier(tmp_path / "unpacked", "cpu")
    assert settings_after == settings_before
    assert (tmp_path / "unpacked" / shipped.CARD).read_text(encoding="utf-8") == "# Карточка\n"
    assert folder_sha256(tmp_path / "unpacked/thresholds") == folder_sha256(source / "thresholds")
    wanted, found = before.state_dict(), after.state_dict()
    assert wanted.keys() == found.keys()
    for name in wanted.keys() - {WORDS}:
        exact = wanted[name].half().float() if name.startswith("encoder.") else wanted[name]
        assert torch.equal(found[name], exact), name
    moved = torch.tensor(tokenizer.convert_tokens_to_ids(list(MOVED)))
    base = load_encoder("embedded", "cpu")[1].get_input_embeddings().weight.detach()
    others = torch.ones(len(base), dtype=torch.bool)
    others[moved] = False
    assert torch.equal(found[WORDS][others], base[others]), "what did not move is the encoder's"
    # A move is rounded to one of 127 steps on each side of none, so it is half a step off at most.
    step = (wanted[WORDS] - base)[moved].abs().amax(dim=1, keepdim=True) / 127
    off = (found[WORDS] - wanted[WORDS])[moved].abs()
    assert (off <= 0.5 * step + 1e-6).all()
    assert (off > 0).any(), "they are stored in eight bits"


def test_an_unpacked_model_answers_as_the_one_that_was_trained(source, packed, tmp_path):
    shipped.unpack(packed, tmp_path / "unpacked")
    one, other = (ViralBERT.load(folder, "cpu") for folder in (source, tmp_path / "unpacked"))
    wanted, found = table(one.predict(MANY)), table(other.predict(MANY))
    assert np.ptp(wanted, axis=0).max() > 0.1, "the texts are told apart"
    # float16 keeps eleven bits: a weight is off by a two-thousandth, and so are sums of many.
    assert np.abs(wanted - found).max() < 2e-3
    assert [set(p) for p in one.predict(TEXTS)] == [set(p) for p in other.predict(TEXTS)]


def test_the_packed_model_is_as_small_as_what_training_changed(source, packed):
    state = load_classifier(source, "cpu")[0].state_dict()
    layers = sum(
        value.numel()
        for name, value in state.items()
        if name.startswith("encoder.") and name != WORDS and "pooler" not in name
    )
    heads = sum(value.numel() for name, value in state.items() if not name.startswith("encoder."))
    words = len(MOVED) * (300 + 4 + 4)  # a byte a number, the row's number and its scale
    size = (packed / shipped.WEIGHTS).stat().st_size
    assert 0 <= size - (2 * layers + 4 * heads + words) < 8000, "names and shapes beside weights"
    assert load_file(packed / shipped.WEIGHTS)["words.moves"].shape == (len(MOVED), 300)


def test_a_calibration_beside_the_model_is_not_lost(source, tmp_path):
    shutil.copytree(source, tmp_path / "source")
    line = json.dumps({"virality": {"slope": 0.5, "intercept": -1.0}})
    (tmp_path / "source" / "calibration.json").write_text(line, encoding="utf-8")
    write_sums(tmp_path / "source")
    shipped.pack(tmp_path / "source", tmp_path / "packed", "")
    shipped.unpack(tmp_path / "packed", tmp_path / "unpacked")
    one, other = (ViralBERT.load(tmp_path / name, "cpu") for name in ("source", "unpacked"))
    assert other.predict(TEXTS[0]).viral_score == pytest.approx(
        one.predict(TEXTS[0]).viral_score, abs=2e-3
    )


def test_only_several_tasks_on_the_embedded_encoder_are_packed(bert, tmp_path):
    bert.save(tmp_path / "model")
    with pytest.raises(DataError, match=r"expected a model of several tasks on the embedded enc"):
        shipped.pack(tmp_path / "model", tmp_path / "packed", "")
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("name", [shipped.WEIGHTS, "thresholds/emotions.json"])
def test_a_damaged_file_is_refused_and_named(changed, cache, name):
    raw = bytearray((changed / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (changed / name).write_bytes(raw)
    before = cached(cache)
    with pytest.raises(DataError, match=rf"{name} is damaged: its sha256 is not the one in"):
        shipped.folder("cpu", packed=changed)
    assert cached(cache) == before


def test_a_model_of_another_encoder_is_refused(changed, cache):
    settings = json.loads((changed / shipped.SETTINGS).read_text(encoding="utf-8"))
    settings["embedded"] = "0123456789ab"
    (changed / shipped.SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    write_sums(changed)
    with pytest.raises(
        DataError, match=r"embedded encoder 0123456789ab, and here is .*: install the project again"
    ):
        shipped.folder("cpu", packed=changed)


def test_weights_that_do_not_fit_the_settings_are_refused(changed, cache):
    settings = json.loads((changed / shipped.SETTINGS).read_text(encoding="utf-8"))
    del settings["tasks"]["cedr"]
    (changed / shipped.SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    write_sums(changed)
    with pytest.raises(DataError, match=r"do not fit its settings: .*heads\.cedr"):
        shipped.folder("cpu", packed=changed)


def test_without_a_model_the_error_says_what_to_do(tmp_path):
    with pytest.raises(
        DataError, match=r"holds no model: install the project again, or .*\(--model FOLDER\)"
    ):
        shipped.folder(packed=tmp_path)


def test_a_cache_that_cannot_be_written_is_named(changed, cache, tmp_path, monkeypatch):
    (cache / f"viralbert-{shipped._key(changed)}").write_text("a file in its place")
    with pytest.raises(
        DataError, match=r"shipped model \(250 MB\) cannot be kept in .* in VIRALBERT_CACHE"
    ):
        shipped.folder("cpu", packed=changed)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIRALBERT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"name another folder in VIRALBERT_CACHE"):
        shipped.folder("cpu", packed=changed)


# which form answers


def test_the_exported_form_answers_on_a_cpu_and_the_trained_one_elsewhere(
    packed, exported, monkeypatch
):
    choose = partial(shipped.folder, packed=packed)
    trained = exported.parent / "model"
    monkeypatch.delenv("VIRALBERT_DEVICE", raising=False)
    assert (exported.name, choose()) == ("int8", exported)
    assert choose("cuda") == choose("cpu", "float32") == choose(None, "bfloat16") == trained
    monkeypatch.setenv("VIRALBERT_DEVICE", "cuda")
    assert (choose(), choose("cpu")) == (trained, exported)


@pytest.mark.parametrize("lacking", shipped.EXPORTER)
def test_an_export_that_is_there_needs_its_runtime_alone(packed, exported, monkeypatch, lacking):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == lacking else find(name)
    )
    form = "model" if lacking == "onnxruntime" else "int8"
    assert shipped.folder("cpu", packed=packed) == exported.parent / form


def test_both_forms_answer_alike(exported):
    trained, eight = (ViralBERT.load(exported.parent / name, "cpu") for name in ("model", "int8"))
    assert list(trained.tasks) == list(eight.tasks) == list(TASKS)
    one, other = trained.predict(MANY), eight.predict(MANY)
    assert 0 < np.abs(table(one) - table(other)).max() < export.TOLERANCE_INT8
    assert np.corrcoef(table(one).ravel(), table(other).ravel())[0, 1] > 0.99
    assert eight.thresholds == trained.thresholds


def test_a_predictor_without_a_folder_is_the_shipped_one(packed, exported, monkeypatch):
    monkeypatch.setattr(shipped, "folder", partial(shipped.folder, packed=packed))
    monkeypatch.setenv("VIRALBERT_DEVICE", "cpu")
    wanted = Predictor.load(exported).predict(TEXTS)
    assert Predictor.load().predict(TEXTS) == wanted == ViralBERT.load(device="cpu").predict(TEXTS)
    trained = Predictor.load(exported.parent / "model", "cpu").predict(TEXTS)
    assert Predictor.load(precision="float32").predict(TEXTS) == trained != wanted


# several processes, and killed ones


def start(packed: Path, cache: Path, **variables: str) -> subprocess.Popen:
    """`viralbert predict` with the packed model, which computes as it was trained."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.product.serving.small_shipped", str(packed)),
            *("predict", "--precision", "float32", TEXTS[0]),
        ],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "VIRALBERT_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_put_it_together_once_and_only_answers_go_to_the_output(
    changed, source, cache
):
    processes = [start(changed, cache) for _ in range(2)]
    outputs, errors = zip(*(process.communicate() for process in processes), strict=True)
    assert [process.returncode for process in processes] == [0, 0], errors
    wanted = ViralBERT.load(source, "cpu").predict(TEXTS[0]).viral_score
    for output in outputs:
        (line,) = output.splitlines()
        assert json.loads(line)["viral_score"] == pytest.approx(wanted, abs=2e-3)
    said = ["put together, once" in error for error in errors]
    assert said.count(True) == 1


def test_what_a_killed_process_leaves_is_not_taken_for_a_model(changed, cache):
    before = cached(cache)
    killed = start(changed, cache, KILLED="while it is put together")
    killed.communicate()
    assert killed.returncode == -9
    (name,) = cached(cache) - before
    left = [path.name for path in (cache / name).iterdir()]
    assert left, "it was killed while it wrote"
    assert not (cache / name / "model").exists()
    form = shipped.folder("cpu", "float32", packed=changed)
    assert form == cache / name / "model"
    assert (form / SUMS).is_file()
    assert [path.name for path in form.parent.iterdir()] == ["model"]
    assert Predictor.load(form, "cpu").predict(TEXTS[0])["viral_score"] > 0

"""Files and folders that are written whole: who may read them, and what an interruption leaves."""

import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from viralbert_utils import data, embedded, export, files, hybrid
from viralbert_utils.calibration import Calibration
from viralbert_utils.emotions import EMOTIONS
from viralbert_utils.files import DataError
from viralbert_utils.models import Head, MultiTaskClassifier, PooledClassifier, save_classifier
from viralbert_utils.predictor import ViralBERT
from viralbert_utils.thresholds import Thresholds

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
USUAL = {0o022: (0o755, 0o644), 0o077: (0o700, 0o600), 0o027: (0o750, 0o640)}  # umask -> modes of folders and of files
TEXTS = ["а а", "а", "б а", "б"] * 4


class Interrupted(Exception):
    pass


@pytest.fixture(params=USUAL, ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def encoder():
    return BertModel(BertConfig(vocab_size=16, max_position_embeddings=32, **SIZES), add_pooling_layer=False)


@pytest.fixture
def pooled():
    return PooledClassifier(encoder(), 2).eval()


@pytest.fixture
def bert(tiny_tokenizer):
    heads = {"virality": Head(("viral",)), "emotions": Head(EMOTIONS)}
    model = MultiTaskClassifier(encoder(), heads, "mean", train_embeddings=False).eval()
    kept = {
        task: Thresholds(head.names, (0.5,) * len(head.names), "one", 10, (5,) * len(head.names), 0.0, "0")
        for task, head in heads.items()
    }
    return ViralBERT(model, tiny_tokenizer, {"max_length": 16}, kept, Calibration(np.array([0.7]), np.array([-0.2])))


@pytest.fixture(scope="module")
def graph():
    """Traced once, which takes seconds."""
    heads = {"virality": Head(("viral",)), "emotions": Head(EMOTIONS)}
    torch.manual_seed(0)
    model = MultiTaskClassifier(encoder(), heads, "mean", train_embeddings=False).eval()
    return model, export._graph(model).SerializeToString()


def check_modes(folder: Path, umask: int) -> None:
    folders, plain = USUAL[umask]
    paths = [folder, *folder.rglob("*")]
    assert len(paths) > 2
    found = {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert found == {str(path.relative_to(folder)): folders if path.is_dir() else plain for path in paths}


# who may read them


def test_a_file_gets_the_mode_of_any_new_file(tmp_path, umask):
    files.write_whole(tmp_path / "new" / "a.txt", "а")
    check = stat.S_IMODE((tmp_path / "new" / "a.txt").stat().st_mode)
    assert check == USUAL[umask][1]


def test_what_a_library_keeps_to_its_user_becomes_usual(tmp_path, umask):
    with files.whole_folder(tmp_path / "new") as new:
        (new / "deep" / "er").mkdir(parents=True)
        (new / "deep").chmod(0o700)
        save_file({"a": torch.zeros(1)}, new / "deep" / "er" / "a.safetensors")
        (new / "private.txt").touch(mode=0o600)
    check_modes(tmp_path / "new", umask)


def test_a_saved_classifier_is_readable(pooled, tiny_tokenizer, tmp_path, umask):
    for _ in range(2):  # new, and in the place of an old one
        save_classifier(tmp_path / "model", pooled, tiny_tokenizer, ["a", "b"])
        check_modes(tmp_path / "model", umask)


def test_a_saved_predictor_is_readable(bert, tmp_path, umask):
    bert.save(tmp_path / "model")
    check_modes(tmp_path / "model", umask)
    assert (tmp_path / "model" / "thresholds" / "emotions.json").is_file()


def test_a_saved_hybrid_is_readable(tiny_tokenizer, tmp_path, umask):
    rows = pd.DataFrame({"title": TEXTS, "views": range(len(TEXTS))})
    prepared = hybrid.prepare(rows, ["title"], ["views"], n_bins=2)
    model = hybrid.HybridClassifier(encoder(), 2, prepared.columns(rows).shape[1]).eval()
    hybrid.Hybrid(model, tiny_tokenizer, prepared, ["a", "b"], 16).save(tmp_path / "model")
    check_modes(tmp_path / "model", umask)


def test_an_export_is_readable(graph, tiny_tokenizer, tmp_path, umask, monkeypatch):
    import onnx

    model, traced = graph
    monkeypatch.setattr(export, "_graph", lambda *_: onnx.ModelProto.FromString(traced))
    save_classifier(tmp_path / "model", model, tiny_tokenizer, max_length=16)
    for int8 in (False, True):
        export.export(tmp_path / "model", tmp_path / "exported", int8=int8, texts=TEXTS)
        check_modes(tmp_path / "exported", umask)
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {
        "model.onnx", "model.onnx.data", "tokenizer.json",
    }  # fmt: skip


def test_the_embedded_encoder_is_readable(pooled, tmp_path, umask, monkeypatch):
    monkeypatch.setenv("VIRALBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "build", lambda recipe, folder: pooled.encoder.save_pretrained(folder))
    check_modes(embedded.embedded_folder(), umask)


def test_saved_tables_are_readable(tmp_path, umask):
    data.save_sets({"emotions": {"train": pd.DataFrame({"text": ["да"]})}}, tmp_path / "tables")
    check_modes(tmp_path / "tables", umask)


# what an interruption leaves


def interrupt(*_: object, **__: object) -> None:
    raise Interrupted


def old_folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "here" / "model"
    folder.mkdir(parents=True)
    (folder / name).write_text("old")
    return folder


def check_old(folder: Path, name: str) -> None:
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "no litter"
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "old"


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("replace", [True, False])
def test_an_interruption_leaves_the_old_folder(tmp_path, error, replace):
    folder = old_folder(tmp_path, "a.txt")
    with pytest.raises(error), files.whole_folder(folder, replace) as new:
        (new / "b.txt").write_text("new")
        raise error
    check_old(folder, "a.txt")


def test_a_rename_that_fails_leaves_the_old_folder(tmp_path, monkeypatch):
    folder, rename = old_folder(tmp_path, "a.txt"), os.rename

    def fail(source: Path, target: Path) -> None:
        if source.name == "new":
            raise OSError("disk full")
        rename(source, target)

    with pytest.raises(OSError, match="disk full"), files.whole_folder(folder) as new:
        (new / "b.txt").write_text("new")
        monkeypatch.setattr(files.os, "rename", fail)
    check_old(folder, "a.txt")


def test_an_interrupted_save_leaves_the_old_model(pooled, bert, graph, tiny_tokenizer, tmp_path, monkeypatch):
    folder = old_folder(tmp_path, "classifier.json")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(type(tiny_tokenizer), "save_pretrained", interrupt)
        save_classifier(folder, pooled, tiny_tokenizer, ["a", "b"])
    check_old(folder, "classifier.json")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Thresholds, "save", interrupt)
        bert.save(folder)
    check_old(folder, "classifier.json")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(pd.DataFrame, "to_parquet", interrupt)
        data.save_sets({"emotions": {"train": pd.DataFrame({"text": ["да"]})}}, folder)
    check_old(folder, "classifier.json")


def test_an_interrupted_export_leaves_the_old_one(graph, tiny_tokenizer, tmp_path, monkeypatch):
    save_classifier(tmp_path / "model", graph[0], tiny_tokenizer, max_length=16)
    folder = old_folder(tmp_path, export.MODEL)
    monkeypatch.setattr(export, "_graph", interrupt)
    with pytest.raises(Interrupted):
        export.export(tmp_path / "model", folder, texts=TEXTS)
    check_old(folder, export.MODEL)


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRALBERT_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "build", interrupt)
    with pytest.raises(Interrupted):
        embedded.embedded_folder()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_that_keep_the_target_wins(tmp_path):
    for who in ("first", "second"):
        with files.whole_folder(tmp_path / "built", replace=False) as new:
            (new / "a.txt").write_text(who)
    assert (tmp_path / "built" / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["built"]


def test_a_folder_never_takes_the_place_of_a_file(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(DataError, match="notes is a file; expected a folder"), files.whole_folder(tmp_path / "notes"):
        pass
    assert (tmp_path / "notes").read_text() == "mine"

"""Folders of models that a stranger made: nothing in them is run, fetched or read from
elsewhere."""

import json
import os
import pickle
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

from tests import tiny
from tests.product.serving.small_models import make_tokenizer
from viralbert_utils.base.errors import DataError
from viralbert_utils.base.files import write_sums
from viralbert_utils.encoders import loading
from viralbert_utils.models import storage
from viralbert_utils.models.classifiers import PooledClassifier
from viralbert_utils.training import checkpoints

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
CODE = """
from pathlib import Path
Path(__file__).with_name("has run").touch()
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
class Config(BertConfig):
    model_type = "evil"
class Model(BertModel):
    config_class = Config
class Words(PreTrainedTokenizerFast):
    pass
"""


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    tiny.bert(300, pooler=True, **SIZES).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    loading.load_encoder(str(folder), "cpu")
    return folder


@pytest.fixture
def encoder(whole, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy to change; nobody is asked, and nothing is connected to."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question at the terminal"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    yield shutil.copytree(whole, tmp_path / "encoder")
    assert not list(tmp_path.rglob("has run"))


def change(path: Path, **values: Any) -> None:
    plain = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(plain | values), encoding="utf-8")


@pytest.mark.parametrize("kind", ["bert", "evil"])
def test_code_beside_the_weights_is_not_run_and_nobody_is_asked_about_it(encoder, kind):
    (encoder / "evil.py").write_text(CODE, encoding="utf-8")
    names = {
        "AutoConfig": "evil.Config",
        "AutoModel": "evil.Model",
        "AutoTokenizer": [None, "evil.Words"],
    }
    change(encoder / "config.json", model_type=kind, auto_map=names)
    change(encoder / "tokenizer_config.json", auto_map=names, tokenizer_class="Words")
    try:
        loading.load_encoder(str(encoder), "cpu")
    except DataError:
        return
    assert kind == "bert", "an unknown kind of model"


@pytest.mark.parametrize(
    "beside", [{}, {"weight_map": {"embeddings.LayerNorm.bias": "pytorch_model.bin"}}]
)
def test_pickled_weights_are_not_opened(encoder, beside):
    (encoder / "model.safetensors").unlink()
    torch.save(
        {"embeddings.LayerNorm.bias": Payload(encoder / "has run")}, encoder / "pytorch_model.bin"
    )
    if beside:
        change(encoder / "pytorch_model.bin.index.json", metadata={}, **beside)
    with pytest.raises(DataError):
        loading.load_encoder(str(encoder), "cpu")


def test_a_pickle_under_another_name_is_not_opened(encoder, tmp_path):
    for content in (
        pickle.dumps(Payload(encoder / "has run")),
        pickle.dumps({"model": Payload(encoder / "has run")}),
    ):
        (encoder / "model.safetensors").write_bytes(content)
        with pytest.raises(DataError):
            loading.load_encoder(str(encoder), "cpu")
    for kept in (Payload(encoder / "has run"), {"model": Payload(encoder / "has run")}):
        torch.save(kept, tmp_path / "checkpoint.pt")
        with pytest.raises(DataError):
            checkpoints.read_checkpoint(tmp_path / "checkpoint.pt", {"model"})


def test_a_pickle_in_the_place_of_a_head_is_not_opened(whole, tmp_path):
    model = PooledClassifier(BertModel.from_pretrained(whole), 2).eval()
    storage.save_classifier(tmp_path / "model", model, make_tokenizer(), ["a", "b"])
    torch.save(Payload(tmp_path / "has run"), tmp_path / "model" / "head.safetensors")
    write_sums(tmp_path / "model")
    with pytest.raises(DataError):
        storage.load_classifier(tmp_path / "model", "cpu")
    assert not (tmp_path / "has run").exists()


@pytest.mark.parametrize(
    "place", ["../elsewhere.safetensors", "/etc/passwd", "../../../../../../etc/passwd"]
)
def test_weights_elsewhere_are_not_read(encoder, place):
    weights = load_file(encoder / "model.safetensors")
    save_file(
        {name: torch.full_like(own, 7.0) for name, own in weights.items()},
        encoder.parent / Path(place).name,
    )
    (encoder / "model.safetensors").unlink()
    change(
        encoder / "model.safetensors.index.json",
        metadata={},
        weight_map=dict.fromkeys(weights, place),
    )
    with pytest.raises(DataError):
        loading.load_encoder(str(encoder), "cpu")


@pytest.mark.parametrize(
    "lie",
    [
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"use_kernels": True, "_attn_implementation": "kernels-community/flash-attn"},
        {"attn_implementation": "kernels-community/flash-attn"},
        {"vocab_size": 10**7},
        {"hidden_size": 16},
        {"hidden_size": -8},
        {"hidden_size": 0},
        {"num_attention_heads": 3},
        {"num_attention_heads": "two"},
        {"num_hidden_layers": -1},
        {"model_type": ["bert"]},
        {"model_type": None},
        {"torch_dtype": "os.system"},
        {"architectures": "__import__"},
        {"is_encoder_decoder": True},
    ],
    ids=" ".join,
)
def test_an_encoder_that_lies_about_itself_is_refused_or_what_its_weights_are(encoder, lie):
    change(encoder / "config.json", **lie)
    (encoder / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "someone/else", "peft_type": "LORA"}'
    )
    try:
        _, found = loading.load_encoder(str(encoder), "cpu")
    except DataError:
        return
    assert found.embeddings.word_embeddings.weight.shape == (300, 8)


def test_weights_that_lie_about_their_bytes_are_refused(encoder):
    content = (encoder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    for lie in (
        {"data_offsets": [0, 10**15]},
        {"data_offsets": [-8, 0]},
        {"shape": [10**9, 10**9]},
        {"dtype": "F999"},
        {"data_offsets": [8, 4]},
    ):
        changed = json.dumps(header | {name: header[name] | lie}).encode()
        whole = len(changed).to_bytes(8, "little") + changed + content[8 + length :]
        (encoder / "model.safetensors").write_bytes(whole)
        with pytest.raises(DataError):
            loading.load_encoder(str(encoder), "cpu")
    for start in ((2**63).to_bytes(8, "little"), b"\xff" * 8, b""):
        (encoder / "model.safetensors").write_bytes(start + content[8:100])
        with pytest.raises(DataError):
            loading.load_encoder(str(encoder), "cpu")

"""What tests of the command share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.product.manual import compare
from tests.product.two_words import TwoWords
from viralbert.serving import predictor, shipped
from viralbert_utils.base.files import ROOT
from viralbert_utils.encoders.loading import load_tokenizer


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = load_tokenizer("embedded")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = tiny.bert(len(tokenizer), width=12, intermediate_size=12, pooler=True)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Folders from which a model was asked for."""
    asked: list[str] = []
    monkeypatch.setattr(shipped, "folder", lambda device, precision: Path("shipped"))
    monkeypatch.setattr(
        predictor.Predictor, "load", lambda folder, *options: asked.append(folder) or TwoWords()
    )
    return asked


@pytest.fixture
def no_model(monkeypatch) -> None:
    """Whoever asks for a model fails: what is wrong must be said before."""

    def refuse(*_):
        raise AssertionError("a model was asked for")

    monkeypatch.setattr(shipped, "folder", refuse)
    monkeypatch.setattr(predictor.Predictor, "load", refuse)


@pytest.fixture
def manual(request) -> Callable[[str, str], None]:
    """Compares an output with the block of a manual that names this test; see `manual`."""
    path = request.node.path.relative_to(ROOT).as_posix()
    return lambda page, said: compare(page, f"{path}::{request.node.originalname}", said)

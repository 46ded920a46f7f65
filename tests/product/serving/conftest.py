"""What tests of serving share: a known model, a service around it, exports made once."""

import signal
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from tests import tiny
from tests.product.serving.classifiers import write_all
from tests.product.serving.known import TEXTS, Known
from tests.product.serving.small_models import (
    MANY,
    make_encoder,
    make_tokenizer,
    thresholds,
    traced,
)
from tests.timing import HANG_S, until
from viralbert.serving import connections, export, gate, server, service
from viralbert.serving.predictor import Predictor, ViralBERT
from viralbert.serving.request_batches import Batcher
from viralbert_utils.data.emotions import EMOTIONS
from viralbert_utils.evaluation.calibration import Calibration
from viralbert_utils.models.classifiers import Head, MultiTaskClassifier


@pytest.fixture(scope="session")
def bert() -> ViralBERT:
    heads = {"emotions": Head(EMOTIONS, (24,), (0.1,)), "virality": Head(("viral",))}
    model = MultiTaskClassifier(make_encoder(), heads, "mean", train_embeddings=False).eval()
    for head in model.heads.values():
        torch.nn.init.normal_(head[-1].weight, std=0.5)
    line = Calibration(np.array([0.7]), np.array([-0.2]))
    about = {"max_length": 24, "data": "sample"}
    both = {"virality": thresholds(["viral"], 0.4), "emotions": thresholds(EMOTIONS, 0.5)}
    return ViralBERT(model, make_tokenizer(), about, both, line)


@pytest.fixture(scope="session")
def folders(bert, made_once) -> Path:
    """The model as torch, ONNX and int8."""

    def make(root: Path) -> None:
        bert.save(root / "torch")
        export.export(root / "torch", root / "float", texts=MANY)
        with pytest.MonkeyPatch.context() as patch:
            traced(patch, root)
            export.export(root / "torch", root / "int8", int8=True, texts=MANY)

    return made_once("exports", make)


@pytest.fixture
def known(monkeypatch) -> Known:
    model = Known()
    answers = Batcher.answers

    async def counting(self, texts):
        model.n_asked += 1
        return await answers(self, texts)

    monkeypatch.setattr(Batcher, "answers", counting)
    monkeypatch.setattr(Predictor, "load", lambda folder, device, precision: model)
    return model


@pytest.fixture
def ask(known):
    with TestClient(service.create_app("folder"), raise_server_exceptions=False) as client:
        known.batches.clear()
        yield client


@pytest.fixture
def serve(monkeypatch):
    """Starts the service on a free port, in a thread of this process; returns its URL and the
    server."""
    made: list[server._Server] = []
    monkeypatch.setattr(gate, "LINGER_S", 0.05)
    monkeypatch.setattr(
        connections, "HEADERS_S", 10 * HANG_S
    )  # no room comes of itself while a test waits for some
    monkeypatch.setattr(
        server,
        "_Server",
        lambda config, kind=server._Server: made.append(kind(config)) or made[-1],
    )
    threads = []

    def start(model="folder", **options) -> tuple[str, server._Server]:
        urls: list[str] = []
        options |= {"port": 0, "started": urls.append}
        threads.append(threading.Thread(target=server.serve, args=(model,), kwargs=options))
        threads[-1].start()
        until(lambda: urls and len(made) == len(threads) and made[-1].started)
        return urls[0], made[-1]

    yield start
    for started, thread in zip(made, threads, strict=True):
        started.handle_exit(signal.SIGTERM, None)
        thread.join(HANG_S)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def exported(made_once) -> Path:
    """A small model that knows nothing, as ONNX."""

    def make(root: Path) -> None:
        torch.manual_seed(0)
        encoder = tiny.bert(300, width=8, intermediate_size=8)
        heads = {"virality": Head(("viral",)), "emotions": Head(EMOTIONS)}
        model = MultiTaskClassifier(encoder, heads, "mean", train_embeddings=False).eval()
        both = {"virality": thresholds(["viral"], 0.5), "emotions": thresholds(EMOTIONS, 0.5)}
        Predictor(model, make_tokenizer(), {"max_length": 24}, both).save(root / "torch")
        export.export(root / "torch", root / "onnx", texts=TEXTS)

    return made_once("small export", make) / "onnx"


@pytest.fixture(scope="session")
def classifiers(encoder, made_once) -> Path:
    """`<kind>/torch` and `<kind>/onnx`, each written as the course writes it."""
    return made_once("classifiers", partial(write_all, encoder))

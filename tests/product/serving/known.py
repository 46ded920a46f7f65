"""A predictor that knows two words, and how tests ask the service around it."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
from starlette.testclient import TestClient

from tests.product.serving.small_models import thresholds
from tests.timing import HANG_S, until
from viralbert.serving import service
from viralbert.serving.predictor import Label, Prediction, Task
from viralbert_utils.data.emotions import EMOTIONS
from viralbert_utils.evaluation.thresholds import Thresholds

TEXTS = ["Кот сам открыл дверь!", "Завтра обещают дождь.", ""]


class Known:
    """A predictor that knows two words, is as slow as it is told to be, and fails on a third."""

    note, form = "", "torch"

    def __init__(self) -> None:
        own = Thresholds(EMOTIONS, (0.3,) * 27 + (np.inf,), "own", 10, (5,) * 28, 0.0, "0")
        self.tasks = {
            "virality": Task(("viral",), thresholds(["viral"], 0.5)),
            "emotions": Task(EMOTIONS, own),
        }
        self.aims: dict[str, dict[str, Thresholds]] = {}
        self.batches: list[int] = []
        self.free, self.begun = threading.Event(), threading.Event()
        self.free.set()
        self.n_asked = 0  # requests whose texts have reached the batcher

    def predict(self, texts):
        if isinstance(texts, str):
            return self.predict([texts])[0]
        self.begun.set()
        self.free.wait(5 * HANG_S)
        if any("сломайся" in text for text in texts):
            raise ZeroDivisionError(texts)
        self.batches.append(len(texts))
        return [self.one(text) for text in texts]

    def one(self, text: str) -> Prediction:
        joy = 0.8 if "кот" in text.lower() else 0.2
        values = dict.fromkeys(EMOTIONS, 0.1 if text else 0.0) | ({"joy": joy} if text else {})
        named = (Label("joy", "радость", joy),) if joy > 0.3 else ()
        return Prediction(joy if text else 0.0, joy > 0.5, named, values)

    def scores(self, texts):
        return service._scores(self, self.predict(texts))


class Reviewer(Known):
    """The same, of one task that has one label a text; and with something to say about itself."""

    note = "trained on one cat"

    def __init__(self) -> None:
        super().__init__()
        self.tasks = {"reviews": Task(("bad", "neutral", "good"), None)}

    def one(self, text: str) -> Prediction:
        values = (
            [0.1, 0.2, 0.7]
            if "кот" in text.lower()
            else [0.6, 0.2, 0.2]
            if text
            else [0.0, 0.0, 0.0]
        )
        return Prediction.of({"reviews": next(self.tasks["reviews"].answers(np.array([values])))})


def cues(n: int = 40) -> list[dict]:
    return [
        {
            "text": f"{'Кот' if k == 20 else 'Слово'} и дело {k}.",
            "start": 4.0 * k,
            "end": 4.0 * k + 3.8,
        }
        for k in range(n)
    ]


def at_once(client: TestClient, known: Known, texts: list) -> list[httpx.Response]:
    """The answers to requests that have all come, or been refused, before the first is computed."""
    before = known.n_asked
    known.free.clear()
    with ThreadPoolExecutor(len(texts)) as pool:
        asked = [pool.submit(client.post, "/v1/predict", json={"text": text}) for text in texts]
        try:
            until(
                lambda: (
                    known.n_asked - before + sum(future.done() for future in asked) == len(texts)
                )
            )
        finally:
            known.free.set()
        return [future.result() for future in asked]


http_get, http_post = partial(httpx.get, timeout=HANG_S), partial(httpx.post, timeout=HANG_S)


def connect(url: str, sent: bytes = b"") -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), HANG_S)
    opened.sendall(sent)
    return opened


HALF_A_BODY = (
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n" + b"a" * 80_000
)

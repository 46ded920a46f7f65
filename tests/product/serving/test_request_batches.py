"""Requests computed together: each gets its own answer, and none takes another along."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from tests.product.serving.known import at_once
from tests.timing import until
from viralbert.serving import service
from viralbert.serving.limits import ServiceLimits
from viralbert.serving.request_batches import Batcher


def test_waiting_requests_are_computed_together_and_each_gets_its_own(ask, known):
    texts = [["кот"] * (k % 3 + 1) + [f"текст {k}"] for k in range(20)]
    for asked, response in zip(texts, at_once(ask, known, texts), strict=True):
        found = [one["viral_score"] for one in response.json()["predictions"]]
        assert found == [0.8] * (len(asked) - 1) + [0.2]
    assert sum(known.batches) == sum(map(len, texts))
    assert max(known.batches) > 20
    assert len(known.batches) < 6


def test_one_text_that_fails_takes_nobody_along(ask, known):
    texts = [f"текст {k}" for k in range(16)]
    texts[5] = texts[11] = "сломайся"
    statuses = [response.status_code for response in at_once(ask, known, texts)]
    assert statuses == [500 if text == "сломайся" else 200 for text in texts]


class Panic(BaseException):
    """As libraries in Rust raise it."""


@pytest.mark.parametrize(
    "error", [Panic, SystemExit, StopIteration, asyncio.CancelledError, GeneratorExit, MemoryError]
)
def test_a_panic_fails_one_request_and_never_the_rest(ask, known, monkeypatch, error):
    sound = known.one
    monkeypatch.setattr(
        known, "one", lambda text: (_ for _ in ()).throw(error) if "паника" in text else sound(text)
    )
    if error is StopIteration:  # a generator would change it

        def one(text):
            if "паника" in text:
                raise StopIteration
            return sound(text)

        monkeypatch.setattr(known, "one", one)
    texts = ["паника" if k == 3 else f"текст {k}" for k in range(8)]
    found = at_once(ask, known, texts)
    assert [one.status_code for one in found] == [
        500 if text == "паника" else 200 for text in texts
    ]
    assert "inside the service" in found[3].json()["detail"]
    speaking = [{"text": "паника.", "start": 0, "end": 20}]
    assert ask.post("/v1/moments", json={"cues": speaking}).status_code == 500
    monkeypatch.setattr(service, "read_subtitles", lambda _: (_ for _ in ()).throw(Panic))
    assert ask.post("/v1/moments", json={"cues": speaking}).status_code == 500
    assert (
        ask.post("/v1/predict", json={"text": "а"}).status_code
        == ask.get("/readyz").status_code
        == 200
    )


def test_a_service_that_cannot_answer_is_not_ready(known, monkeypatch):
    with TestClient(service.create_app("folder", ServiceLimits(timeout_s=0.3))) as client:
        assert client.get("/readyz").status_code == 200
        known.begun.clear()
        known.free.clear()
        until(
            lambda: (
                client.post("/v1/predict", json={"text": "а"}).status_code == 503
                and known.begun.is_set()
            )
        )
        until(lambda: client.get("/readyz").status_code == 503)
        assert "at one batch for" in client.get("/readyz").json()["detail"]
        known.free.set()
        until(lambda: client.get("/readyz").status_code == 200)
        monkeypatch.setattr(Batcher, "is_working", False)
        assert "thread has ended" in client.get("/readyz").json()["detail"]
        assert client.get("/healthz").status_code == 200


def test_a_long_request_lets_others_in_between():
    done = []

    async def work() -> None:
        batcher = Batcher(lambda texts: done.append(texts) or texts, 10, 0.0)
        async with batcher.working():
            long = asyncio.create_task(batcher.answers([str(k) for k in range(100)]))
            await asyncio.sleep(0)
            assert await batcher.answers(["кратко"]) == ["кратко"]
            assert not long.done()
            assert await long == [str(k) for k in range(100)]

    with ThreadPoolExecutor(
        1
    ) as pool:  # the browser of the page tests leaves a running loop in this thread
        pool.submit(asyncio.run, work()).result()
    assert max(map(len, done)) <= 11

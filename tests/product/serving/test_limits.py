"""What a service takes on at most: bytes, requests, time."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.testclient import TestClient

from tests.product.serving.known import at_once
from tests.timing import HANG_S, until
from viralbert.serving import service
from viralbert.serving.limits import ServiceLimits
from viralbert_utils.base.errors import DataError


def concurrently(client: TestClient, texts: list, **options) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(texts)) as pool:
        return list(
            pool.map(lambda text: client.post("/v1/predict", json={"text": text}, **options), texts)
        )


def test_too_many_bytes_are_refused_before_they_are_read(known):
    with TestClient(service.create_app("folder", ServiceLimits(bytes=1000))) as client:
        known.batches.clear()
        whole = client.post("/v1/predict", json={"text": "а" * 1000})
        pieces = client.post(
            "/v1/predict", content=iter([b'{"text": "', *[b"a" * 100] * 20, b'"}'])
        )
        assert whole.status_code == pieces.status_code == 413
        assert "at most 1,000 bytes, found" in whole.json()["detail"]
        assert client.post("/v1/predict", json={"text": "а" * 100}).status_code == 200
    assert known.batches == [1]


def test_too_many_requests_get_429_and_the_rest_their_answers(known):
    with TestClient(service.create_app("folder", ServiceLimits(requests=4))) as client:
        found = at_once(client, known, [f"текст {k}" for k in range(12)])
    statuses = [response.status_code for response in found]
    assert statuses.count(200) == 4
    assert statuses.count(429) == 8
    refused = next(response for response in found if response.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert "4 requests wait already" in refused.json()["detail"]


def test_a_request_that_takes_too_long_gets_503_and_is_not_computed(known):
    app = service.create_app("folder", ServiceLimits(timeout_s=0.3, batch=1, wait_s=0))
    known.begun.clear()
    known.batches.clear()

    def is_begun() -> bool:
        found = concurrently(client, ["а", "б", "в"])
        assert {response.status_code for response in found} == {503}
        assert "not finished within 0.3 s" in found[0].json()["detail"]
        assert found[0].headers["retry-after"]
        return known.begun.is_set()

    with TestClient(app) as client:
        known.free.clear()
        until(is_begun)  # the time may be over before any of them is computed
        app.state.gate.limits = app.state.gate.limits.model_copy(update={"timeout_s": HANG_S})
        known.free.set()
        assert client.post("/v1/predict", json={"text": "а"}).status_code == 200
        assert app.state.gate.in_hand == 0
    assert len(known.batches) == 2, "the one that was begun, and the new one"


@pytest.mark.parametrize(
    "setting", ["batches=3", "batch=viele", "batch", "batch=0", "timeout_s=nan", "requests=-1"]
)
def test_limits_that_are_none_are_refused(setting):
    with pytest.raises(DataError, match="expected"):
        ServiceLimits.parse([setting])
    assert ServiceLimits.parse(["batch=3", "wait_s=0"]) == ServiceLimits(batch=3, wait_s=0.0)

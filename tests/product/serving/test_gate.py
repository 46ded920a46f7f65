"""The gate: what is kept of a request, what gives way, and a stop that loses nothing."""

import asyncio
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.testclient import TestClient

from tests.product.serving.known import HALF_A_BODY, TEXTS, connect, cues, http_post
from tests.timing import HANG_S, grows, until
from viralbert.serving import gate, service
from viralbert.serving.gate import LINGER_S
from viralbert.serving.limits import ServiceLimits


def test_many_small_pieces_cost_no_more_than_a_few_large_ones(known):
    own_gate = service.create_app("folder").state.gate

    def body(n: int) -> bytes:
        pieces = iter(
            [
                *[{"type": "http.request", "body": b"a", "more_body": True}] * n,
                {"type": "http.request"},
            ]
        )

        async def receive():
            return next(pieces)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, own_gate._body({}, receive)).result()

    assert body(40_000) == b"a" * 40_000
    assert not grows(body, int, 10_000, 0.05), "a sum over all pieces at each of them"


def test_nothing_is_kept_of_a_request_that_is_over(known):
    app = service.create_app("folder", ServiceLimits(bytes=10_000))
    with TestClient(app, raise_server_exceptions=False) as client:
        for _ in range(20):
            for body in (
                {"text": TEXTS},
                {"text": "сломайся"},
                {"text": 7},
                {"text": "а" * 20_000},
            ):
                client.post("/v1/predict", json=body)
            client.post(
                "/v1/predict",
                content=iter([b'{"text": ', b'"']),
                headers={"content-type": "application/json"},
            )
            client.post("/v1/moments", json={"cues": cues()})
        n_tasks = client.portal.call(
            lambda: len(asyncio.all_tasks())
        )  # the application's, the batcher's, this one
        own_gate = app.state.gate
    assert (own_gate.in_hand, own_gate.held, len(own_gate.coming)) == (0, 0, 0)
    assert n_tasks <= 4


def test_stopped_under_load_every_accepted_request_has_an_answer(known, serve, monkeypatch):
    """And what comes after the signal is refused with a reason, until the port closes."""
    url, started = serve()
    monkeypatch.setattr(gate, "LINGER_S", 0.5)
    known.free.clear()
    limits = httpx.Limits(max_connections=30)
    with (
        ThreadPoolExecutor(20) as pool,
        httpx.Client(base_url=url, limits=limits, timeout=HANG_S) as client,
    ):
        accepted = [
            pool.submit(client.post, "/v1/predict", json={"text": f"кот {k}"}) for k in range(20)
        ]
        until(lambda: started.config.app.state.gate.in_hand == 20)
        started.handle_exit(signal.SIGTERM, None)
        for path in ("/v1/predict", "/v1/emotions", "/readyz"):
            refused = client.request(
                "POST" if "predict" in path else "GET", path, json={"text": "а"}
            )
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert refused.headers["connection"] == "close"
            assert "being stopped" in refused.json()["detail"]
        assert client.get("/healthz").status_code == 200
        assert not any(future.done() for future in accepted)
        time.sleep(LINGER_S)
        known.free.set()
        assert {
            future.result(HANG_S).json()["predictions"][0]["viral_score"] for future in accepted
        } == {0.8}
        until(lambda: not started.servers[0].is_serving())
        with pytest.raises(httpx.ConnectError):
            client.get("/healthz")


def test_bodies_on_their_way_are_bounded_in_memory_and_the_slow_ones_give_way(known, serve):
    url, started = serve(limits=ServiceLimits(bodies=400_000, bytes=100_000, timeout_s=10 * HANG_S))
    own_gate = started.config.app.state.gate

    def n_refused() -> float:
        return (
            own_gate.registry.get_sample_value(
                "viralbert_requests_total", {"route": "/v1/predict", "status": "429"}
            )
            or 0
        )

    held = []
    for _ in range(30):
        held.append(connect(url, HALF_A_BODY))
        until(lambda: len(own_gate.coming) + n_refused() == len(held))
        until(lambda: sum(own_gate.coming.values()) + own_gate.held <= 400_000)
    until(lambda: len(own_gate.coming) <= 5)
    with held[0].makefile("rb") as told:
        assert b" 429 " in told.readline()
    assert http_post(f"{url}/v1/predict", json={"text": "а" * 10_000}).status_code == 200
    for opened in held:
        opened.close()
    until(lambda: not own_gate.coming)
    assert own_gate.held == 0


def test_who_has_gone_is_not_computed_for(known, serve):
    url, started = serve(limits=ServiceLimits(batch=1, wait_s=0, timeout_s=10 * HANG_S))
    known.free.clear()
    body = json.dumps({"text": ["а"] * 50}).encode()
    head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    held = [connect(url, head.encode() + body) for _ in range(5)]
    until(lambda: started.config.app.state.gate.in_hand == 5)
    known.batches.clear()
    for opened in held:
        opened.close()
    until(lambda: started.config.app.state.gate.in_hand == 0)
    known.free.set()
    assert http_post(f"{url}/v1/predict", json={"text": "а"}).status_code == 200
    assert sum(known.batches) <= 3

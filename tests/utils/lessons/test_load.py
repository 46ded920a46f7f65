"""Load generators, on a server of known speed: one request after the other, 20 ms each."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from viralbert_utils.lessons import load

SECONDS_EACH = 0.06  # long beside what a busy machine takes to start a request


@contextmanager
def service(most_waiting=1000):
    """Its URL, and the texts that it was asked; refuses when `most_waiting` requests are there."""
    asked, room, turn = [], threading.Semaphore(most_waiting), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, json.loads(body)["text"]))
            accepted = room.acquire(blocking=False)
            if accepted:
                with turn:
                    time.sleep(SECONDS_EACH)
                room.release()
            self.send_response(200 if accepted else 429)
            self.send_header("Content-Length", "0")
            if not accepted:
                self.send_header("Retry-After", "1")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_clients_of_a_closed_load_wait_for_each_other():
    with service() as (url, asked):
        rows = load.closed_load(url, ["а", "б"], n_clients=4, requests_each=3)
    assert list(rows.columns) == ["clients", "status", "ms", "told"]
    assert (rows["clients"] == 4).all()
    assert (rows["status"] == 200).all()
    assert not rows["told"].any()
    assert sorted(asked) == [("/v1/predict", "а")] * 8 + [("/v1/predict", "б")] * 4
    # All four come at once, so the first request of one of them waits for those of the others.
    assert rows["ms"].max() > 3 * 1000 * SECONDS_EACH
    assert rows["ms"].min() >= 1000 * SECONDS_EACH


def test_a_closed_load_counts_refusals_and_whether_they_say_when_to_come_back():
    with service(most_waiting=1) as (url, _):
        rows = load.closed_load(url, ["а"], n_clients=4, requests_each=3)
    assert len(rows) == 12
    assert set(rows["status"]) == {200, 429}
    assert (rows["told"] == (rows["status"] == 429)).all()


def test_the_capacity_is_what_one_client_gets():
    with service() as (url, asked):
        found = load.capacity_of(url, ["а", "б"], n_requests=10)
    assert 0.3 / SECONDS_EACH < found <= 1 / SECONDS_EACH
    assert asked == [("/v1/predict", ["а", "б"])] * 13


def test_an_open_load_does_not_wait_and_counts_from_the_time_due():
    # In a thread of its own, for the browser of other tests leaves a loop running in this one.
    with service() as (url, asked), ThreadPoolExecutor(1) as pool:
        sent = load.open_load(url, ["а"], rate=2 / SECONDS_EACH, n_requests=20)
        rows = pool.submit(asyncio.run, sent).result()
    assert list(rows.columns) == ["due", "status", "ms"]
    assert rows["due"].to_numpy() == pytest.approx(np.arange(20) * SECONDS_EACH / 2)
    assert len(asked) == 20
    # At twice the capacity the queue grows by a request for every two that come.
    assert rows["ms"].max() > 9 * 1000 * SECONDS_EACH

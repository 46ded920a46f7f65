"""Connections: silent, half a request, too many, damaged, or with few descriptors left."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.product.serving.known import HALF_A_BODY, TEXTS, connect, http_get, http_post
from tests.timing import HANG_S, until
from viralbert.serving import connections, server
from viralbert.serving.limits import ServiceLimits
from viralbert_utils.base.errors import DataError


def answer(url: str, sent: bytes) -> tuple[int, bytes]:
    """Status and body of what a service says to some bytes."""
    with connect(url, sent) as opened, opened.makefile("rb") as told:
        status = int(told.readline().split()[1])
        headers = dict(line.lower().split(b": ") for line in iter(told.readline, b"\r\n"))
        return status, told.read(int(headers[b"content-length"]))


HALF_A_HEADER = b"GET /healthz HTTP/1.1\r\nHost: loc"


@pytest.mark.parametrize(
    "sent",
    [b"", HALF_A_HEADER, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + HALF_A_HEADER],
)
def test_a_connection_that_asks_nothing_is_closed(known, serve, monkeypatch, sent):
    monkeypatch.setattr(connections, "HEADERS_S", 0.3)
    url, started = serve()
    with connect(url, sent) as opened:
        opened.settimeout(0.02)

        def is_closed() -> bool:
            try:
                opened.sendall(b"X" if sent else b"")  # a byte now and then is no excuse
                return opened.recv(10_000) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        until(is_closed)
    until(lambda: not started.server_state.connections)


def test_an_answer_that_nobody_reads_is_not_kept(known, serve, monkeypatch):
    monkeypatch.setattr(connections, "GRACE_S", 0.1)
    url, started = serve(limits=ServiceLimits(timeout_s=0.2))
    with connect(url) as opened:
        opened.setblocking(False)

        def is_closed() -> bool:
            try:
                while True:
                    opened.send(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        until(is_closed)
        until(lambda: not started.server_state.connections)


@pytest.mark.parametrize(
    "sent", [b"", HALF_A_HEADER, HALF_A_BODY], ids=["nothing", "half a header", "half a body"]
)
def test_too_many_connections_do_not_keep_others_out(known, serve, monkeypatch, sent):
    monkeypatch.setattr(server, "room", lambda wanted: (40, 8))
    url, started = serve(limits=ServiceLimits(requests=20, timeout_s=10 * HANG_S))
    held = []
    for _ in range(100):
        held.append(connect(url, sent))
        assert len(started.server_state.connections) <= 40 + 4 * 8
    until(lambda: len(started.server_state.connections) <= 40)
    for _ in range(5):
        assert http_get(f"{url}/healthz").status_code == 200
        assert http_post(f"{url}/v1/predict", json={"text": "а"}).status_code == 200
    assert len(started.config.app.state.gate.coming) <= 20
    for opened in held:
        opened.close()
    until(lambda: http_post(f"{url}/v1/predict", json={"text": "а"}).status_code == 200)


def test_requests_under_way_are_not_dropped_for_new_connections(known, serve, monkeypatch):
    monkeypatch.setattr(server, "room", lambda wanted: (12, 4))
    url, started = serve()
    known.free.clear()
    with ThreadPoolExecutor(10) as pool:
        asked = [
            pool.submit(http_post, f"{url}/v1/predict", json={"text": f"кот {k}"})
            for k in range(10)
        ]
        until(lambda: started.config.app.state.gate.in_hand == 10)
        idle = [connect(url) for _ in range(50)]
        assert http_get(f"{url}/healthz").status_code == 200
        known.free.set()
        assert [future.result(HANG_S).status_code for future in asked] == [200] * 10
    for opened in idle:
        opened.close()


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\n\r\n", {400}),
        (b"G\x00T / HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 20_000, {400}),
        (b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", {400}),
        (b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1_2\r\n\r\n", {400}),
        (
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
            b"2\r\nContent-Length: 3\r\n\r\n{}",
            {400},
        ),
        (
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
            + b"9" * 30
            + b"\r\n\r\n{}",
            {400, 413},
        ),
        (
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
            b"chunked\r\n\r\n-1\r\n",
            {400},
        ),
        (
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
            b"chunked\r\n\r\n0x5\r\n{}",
            {400},
        ),
        (b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", {400}),
        (
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
            b"4\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
            {400},
        ),
        (
            b"GET /v1/classes HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: "
            b"websocket\r\n\r\n",
            {200},
        ),
    ],
)
def test_what_is_no_proper_request_is_refused_in_json(known, serve, caplog, sent, statuses):
    url, _ = serve()
    status, body = answer(url, sent)
    assert status in statuses
    assert status == 200 or json.loads(body).keys() == {"detail"}
    assert "Traceback" not in caplog.text


def test_few_descriptors_are_neither_spun_on_nor_logged_about(exported, tmp_path):
    """As a shell with `ulimit -n 80` starts it."""
    patient = (
        "from viralbert import cli; from viralbert.serving import connections; "
        "connections.HEADERS_S = 600; cli.main()"
    )
    service_ = [sys.executable, "-c", patient, "serve", "--model", str(exported), "--port", "0"]
    command = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh", *service_]
    log = tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            url = process.stdout.readline().split()[-1]
            held = [connect(url) for _ in range(150)]
            for _ in range(5):
                assert http_get(f"{url}/healthz").status_code == 200
            assert http_post(f"{url}/v1/predict", json={"text": TEXTS[0]}).status_code == 200
            if (stat := Path(f"/proc/{process.pid}/stat")).exists():
                used = [sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))]
                time.sleep(1)
                used.append(sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])))
                assert used[1] - used[0] < 50, (
                    "hundredths of a second of processor time in a second"
                )
            for opened in held:
                opened.close()
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert log.stat().st_size < 20_000


def test_too_few_descriptors_are_refused(monkeypatch):
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (20, 20))
    monkeypatch.setattr(connections.resource, "setrlimit", lambda *_: None)
    with pytest.raises(
        DataError, match=r"expected a limit of at least \d+ open files \(ulimit -n\), found 20"
    ):
        connections.room(100)

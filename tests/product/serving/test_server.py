"""The service in a process of its own: its port, its start, and the signals that stop it."""

import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.product.serving.known import TEXTS, http_get, http_post
from tests.timing import HANG_S, until
from viralbert.serving import server
from viralbert.serving.predictor import ViralBERT
from viralbert_utils.base.errors import DataError


def test_a_port_that_is_taken(known, serve, caplog):
    url, _ = serve()
    caplog.clear()
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises(
        DataError, match=f"port {port} of 127.0.0.1 cannot be opened: .*in use.*; give another"
    ):
        server.serve("folder", port=port)
    assert not caplog.records, "the error says it all"


def test_of_two_that_take_a_port_at_once_one_is_told(known, monkeypatch):
    """Both may bind it as long as neither listens."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        listen = socket.socket.listen
        monkeypatch.setattr(
            socket.socket, "listen", lambda own, *n: (listen(other), listen(own, *n))
        )
        with pytest.raises(DataError, match=r"cannot be opened: .*in use"):
            server.serve("folder", port=other.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 65_536), ("127.0.0.1", -1), ("no.such.host.invalid", 0)]
)
def test_a_port_or_a_host_that_is_none(known, host, port):
    with pytest.raises(DataError, match=f"port {port} of {host} cannot be opened"):
        server.serve("folder", host, port, needs_key=False)


def test_in_a_process_of_its_own(exported):
    expected = ViralBERT.load(exported).predict(TEXTS[0])
    with server.running(exported, ["texts=2"]) as running:
        found = http_post(f"{running.url}/v1/predict", json={"text": TEXTS[0]}).json()[
            "predictions"
        ][0]
        assert found["viral_score"] == pytest.approx(expected.viral_score, abs=1e-6)
        assert http_post(f"{running.url}/v1/predict", json={"text": TEXTS}).status_code == 422, (
            "the limit counts"
        )
        maps = Path(f"/proc/{running.process.pid}/maps")
        if maps.exists():
            assert "onnxruntime" in maps.read_text()
            assert not re.search(r"libtorch|sklearn|pandas|pyarrow", maps.read_text())
    assert running.process.returncode == 0


def n_come(url: str) -> float:
    """Requests for predictions that a service has accepted, whether they are answered or not."""
    told = http_get(f"{url}/metrics").text
    answered = re.findall(
        r'^viralbert_requests_total\{route="/v1/predict",status="200"\} (\S+)', told, re.M
    )
    return sum(map(float, re.findall(r"^viralbert_requests_in_hand (\S+)", told, re.M) + answered))


@pytest.fixture
def without_nohup():
    """Who runs the tests by nohup hides SIGHUP from all that they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.usefixtures("without_nohup")
def test_signals_stop_it_without_losing_a_request(exported, name):
    with server.running(exported) as running:
        texts = [f"Кот номер {k} сам открыл дверь!" for k in range(200)]
        with ThreadPoolExecutor(8) as pool:
            asked = [
                pool.submit(http_post, f"{running.url}/v1/predict", json={"text": texts})
                for _ in range(8)
            ]
            until(lambda: n_come(running.url) == 8)
            running.process.send_signal(getattr(signal, name))
            assert [future.result().status_code for future in asked] == [200] * 8
        assert running.process.wait(HANG_S) == 0


def test_a_service_that_cannot_start_says_why(tmp_path):
    with (
        pytest.raises(DataError, match=r"did not start: .*no trained model"),
        server.running(tmp_path),
    ):
        pass

"""A server around the service: the port, signals, and a process of its own for a notebook.

Lesson 09 starts it and asks it; `viralbert serve` and the Dockerfile run it.

The port is open before the model is asked, closes when all that was accepted is answered, and is
taken from others at once.
"""

import ipaddress
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from viralbert.serving.connections import bounded, room
from viralbert.serving.limits import DEFAULTS, ServiceLimits
from viralbert.serving.service import create_app
from viralbert_utils.base.errors import DataError

QUEUED = 2048  # connections that wait until the process takes them


@dataclass(frozen=True)
class Running:
    """A service in a process of its own; `url` without a slash at its end."""

    url: str
    process: subprocess.Popen[str]


def serve(
    model: Path | str | Mapping[str, Path | str],
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: ServiceLimits = DEFAULTS,
    api_key: str = "",
    started: Callable[[str], object] = lambda url: None,
    device: str | None = None,
    precision: str = "auto",
    hosts: Sequence[str] = (),
    needs_key: bool = True,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP.

    Then refuse what is new, answer what was accepted, and return.

    Args:
        model: Passed on to `create_app`.
        host: `127.0.0.1` is this machine alone; `0.0.0.0` everybody who reaches it.
        port: 0 takes a free one.
        limits: Passed on to `create_app`.
        api_key: Passed on to `create_app`.
        started: A function that is called with the URL as soon as the port is open.
        device: Passed on to `create_app`.
        precision: Passed on to `create_app`.
        hosts: Names under which it may be asked, beside `host` and those of this machine: as
            `create_app`.
        needs_key: False lets others than this machine in without a key.

    Raises:
        DataError: As `create_app`, or it would be open to everybody, or the port is taken, or the
            process may open too few files.
    """
    if needs_key and not api_key and not _is_this_machine(host):
        raise DataError(
            f"expected an API key, because everybody who reaches {host or 'any address here'} "
            "could ask, "
            "found none; set VIRALBERT_API_KEY, or give --allow-no-key if something else keeps "
            "others "
            "out"
        )
    n_connections, burst = room(limits.requests + 1000)
    app = create_app(model, limits, api_key, device, precision, [host or "0.0.0.0", *hosts])
    config = uvicorn.Config(
        app,
        host,
        port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        http=bounded(n_connections, limits.timeout_s),
        backlog=burst,
        timeout_graceful_shutdown=int(limits.timeout_s) + 1,
    )
    listening = _listening(host, port)
    # asyncio sends small answers at once only on sockets that name their protocol, and uvicorn's
    # does not: 40 ms each.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    started(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}")
    _Server(config).run([listening])


@contextmanager
def running(
    model: Path | str | Sequence[Path | str], limits: Sequence[str] = ()
) -> Iterator[Running]:
    """Run a service in a process of its own, for example for a notebook.

    It takes a free port of this machine, and is stopped at the end.

    Args:
        model: A folder, or several as `--model` takes them: `["emotions=FOLDER", ...]`.
        limits: E.g. `["requests=8"]`.

    Raises:
        DataError: It does not start; with its message.
    """
    models = [model] if isinstance(model, Path | str) else model
    flags = [part for one in models for part in ("--model", str(one))]
    flags += [part for limit in limits for part in ("--limit", limit)]
    command = [
        sys.executable,
        "-m",
        "viralbert",
        "serve",
        "--port",
        "0",
        *flags,
    ]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            match = re.search(r"http://\S+", process.stdout.readline())
            if match is None:
                process.wait()
                log.seek(0)
                raise DataError(f"the service did not start: {log.read()[-2000:].strip()}")
            yield Running(match[0], process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


class _Server(uvicorn.Server):
    """The first signal closes the gate; the port closes when what was accepted is answered."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.config.app.state.gate.stopped_at is not None:  # type: ignore[union-attr]
            super().handle_exit(sig, frame)  # who asks twice does not want to wait
        self.config.app.state.gate.stop()  # type: ignore[union-attr]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in (
            sockets or []
        ):  # asyncio has made the queue as short as the burst that it takes from it at once
            listening.listen(QUEUED)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Closing the terminal (SIGHUP) is a stop like others, unless nohup has switched it off."""
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGHUP)
        if not is_main or before is signal.SIG_IGN:
            with super().capture_signals():
                yield
            return
        signal.signal(signal.SIGHUP, self.handle_exit)
        try:
            with super().capture_signals():
                yield
        finally:
            signal.signal(signal.SIGHUP, before)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.config.app.state.gate.is_done()  # type: ignore[union-attr]


def _listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections: whoever hears the URL may come at once.

    Raises:
        DataError: The port is taken, also by a process that was quicker by a moment, or there is no
            such port or host.
    """
    is_v6 = ":" in host
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if is_v6 else socket.AF_INET,
            backlog=QUEUED,
            dualstack_ipv6=is_v6 and socket.has_dualstack_ipv6(),
        )
    except (OSError, OverflowError) as error:
        raise DataError(
            f"port {port} of {host or 'any address here'} cannot be opened: {error}; give "
            "another, or 0 "
            "for a free one"
        ) from None


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

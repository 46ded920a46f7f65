"""The service under load: batching beside none, 10,000 requests, a stop in the middle, requests
nobody would think of.

    .venv/bin/python benchmarks/service.py [exported model, or predictor folder]

64 clients, each with a connection of its own, ask for one text at a time (those of the sample data)
and ask again as soon as they have the answer. They are a process of their own beside the service's
on the same processors.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from viralbert.serving.server import Running, running
from viralbert_utils.base.files import ROOT
from viralbert_utils.data.tables import read_table

N_CLIENTS, SECONDS, N_TURNS, N_REQUESTS, N_CASES = 64, 5, 3, 10_000, 2_000
ALONE = ["batch=1", "wait_s=0"]


def requests() -> Iterator[bytes]:
    """Without end."""
    for text in cycle(read_table(ROOT / "data/sample/emotions.csv")["text"]):
        body = json.dumps({"text": text}, ensure_ascii=False).encode()
        yield b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + (
            f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        )


async def client(url: str, todo: Iterator[bytes], seen: list[tuple[str, float]]) -> None:
    """Asks until `todo` ends or the connection does; notes status (or what broke) and seconds of
    each request."""
    address = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
    except OSError:
        return
    for request in todo:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(30):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                size = next(
                    line
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                await reader.readexactly(int(size[15:]))
            seen.append((head[9:12].decode(), time.perf_counter() - began))
        except TimeoutError:
            seen.append(("no answer", 30.0))
            break
        except (asyncio.IncompleteReadError, OSError) as error:
            seen.append(
                (
                    "closed" if not getattr(error, "partial", b"") else "cut off",
                    time.perf_counter() - began,
                )
            )
            break
        if b"connection: close" in head.lower():
            break
    writer.close()


def load(url: str, seconds: float = 1e9, n: float = 1e9) -> list[tuple[str, float]]:
    """64 clients for so long, or for so many requests in all."""
    seen: list[tuple[str, float]] = []
    end = time.perf_counter() + seconds

    def todo() -> Iterator[bytes]:
        for k, request in enumerate(requests()):
            if k >= n or time.perf_counter() > end:
                return
            yield request

    async def all_clients() -> None:
        shared = todo()
        await asyncio.gather(*(client(url, shared, seen) for _ in range(N_CLIENTS)))

    asyncio.run(all_clients())
    return seen


def rates(model: Path) -> None:
    """Requests a second with batching and without, in turns."""
    found: dict[str, list[float]] = {"with": [], "without": []}
    with running(model) as batching, running(model, ALONE) as alone:
        for turn in range(N_TURNS + 1):
            for name, service in (("with", batching), ("without", alone)):
                began = time.perf_counter()
                seen = load(service.url, SECONDS if turn else 1)
                wall = time.perf_counter() - began
                assert {status for status, _ in seen} == {"200"}, Counter(
                    status for status, _ in seen
                )
                if turn:
                    found[name].append(len(seen) / wall)
                    times = sorted(1000 * seconds for _, seconds in seen)
                    middle, late = times[len(times) // 2], times[len(times) * 99 // 100]
                    print(
                        f"{name} batching: {len(seen) / wall:.0f} requests/s, p50 {middle:.0f} "
                        f"ms, p99 {late:.0f} ms"
                    )
        metrics = httpx.get(f"{batching.url}/metrics").text
        texts, batches = (
            float(metrics.split(f"viralbert_batch_texts_{what} ")[1].split()[0])
            for what in ("sum", "count")
        )
    ratio = statistics.median(a / b for a, b in zip(found["with"], found["without"], strict=True))
    print(
        f"batching: {ratio:.1f} times the requests a second of none, {texts / batches:.0f} texts "
        "a batch"
    )


def resident(service: Running) -> float:
    """MiB."""
    return (
        float(
            httpx.get(f"{service.url}/metrics")
            .text.split("\nprocess_resident_memory_bytes ")[1]
            .split()[0]
        )
        / 2**20
    )


def memory(model: Path) -> None:
    """Resident memory while 10,000 requests are answered."""
    with running(model) as service:
        sizes = [resident(service)]
        for _ in range(5):
            load(service.url, n=N_REQUESTS / 5)
            sizes.append(resident(service))
    print(
        "memory, MiB, at the start and after each 2,000 requests:",
        *(f"{size:.0f}" for size in sizes),
    )


def stopped(model: Path) -> None:
    """SIGTERM under load, five times: what becomes of every request."""
    outcomes: Counter[str] = Counter()
    for turn in range(5):
        with running(model) as service:

            async def stop(service: Running = service, after: float = 0.5 + 0.1 * turn) -> None:
                await asyncio.sleep(after)
                service.process.send_signal(signal.SIGTERM)

            async def all_clients(service: Running = service) -> list[tuple[str, float]]:
                seen: list[tuple[str, float]] = []
                todo = requests()
                await asyncio.gather(
                    stop(), *(client(service.url, todo, seen) for _ in range(N_CLIENTS))
                )
                return seen

            outcomes += Counter(status for status, _ in asyncio.run(all_clients()))
            assert service.process.wait(30) == 0
    print(
        f"stopped under load: {dict(outcomes)} (closed: between two requests, before anything "
        "was accepted)"
    )
    assert outcomes.keys() <= {"200", "503", "closed"}


def cases(model: Path) -> None:
    """Requests made from the service's own description, valid and not: 1,000 for each path that
    takes a body."""
    seen: Counter[int] = Counter()
    with running(model) as service:
        operations = [
            found.ok()
            for found in schemathesis.openapi.from_url(
                f"{service.url}/openapi.json"
            ).get_all_operations()
        ]
        for operation in operations:

            @given(operation.as_strategy())
            @settings(
                max_examples=N_CASES // 2,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: schemathesis.Case) -> None:
                response = case.call()
                seen[response.status_code] += 1
                case.validate_response(response, excluded_checks=[positive_data_acceptance])

            ask()
    print(f"{seen.total()} cases of schemathesis: {dict(sorted(seen.items()))}")
    assert not [status for status in seen if status >= 500]


def main(model: str = str(ROOT / "runs/sample/viralbert")) -> None:
    """All of it."""
    for part in (rates, memory, stopped, cases):
        began = time.perf_counter()
        part(Path(model))
        print(f"  ({part.__name__}: {time.perf_counter() - began:.0f} s)\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Load on a service: clients that wait for each response, and requests at a fixed rate.

Lesson 09 says what each of the two can show. The clients share the processors with what they
measure, so they are made of the standard library's plain client, and are connected before a request
is timed. Sources: Schroeder, Wierman and Harchol-Balter 2006 (closed and open loops); Tene 2013
(latency counts from the time at which a request was due).
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit

import httpx
import numpy as np
import pandas as pd

ROUTE = "/v1/predict"
TIMEOUT_S = 60


def closed_load(url: str, texts: Sequence[str], n_clients: int, requests_each: int) -> pd.DataFrame:
    """Several clients at once, each of which waits for its response before it asks again.

    Args:
        url: The service, without a slash at its end.
        texts: A client's k-th request carries the k-th of them, and begins anew after the last.
        n_clients: Clients at once, each with a connection of its own.
        requests_each: Requests of every client; one that is refused comes back at once.

    Returns:
        A row for each request: `clients` (as given), `status`, `ms` (milliseconds from sending to
        the whole response), `told` (whether the response says when to come back).
    """
    connected = threading.Barrier(n_clients)

    def client(_: int) -> list[tuple[int, int, float, bool]]:
        rows = []
        with closing(_connection(url)) as connection:
            connection.connect()
            connected.wait(TIMEOUT_S)
            for k in range(requests_each):
                start = time.perf_counter()
                response = _post(connection, texts[k % len(texts)])
                ms = 1000 * (time.perf_counter() - start)
                told = response.getheader("Retry-After") is not None
                rows.append((n_clients, response.status, ms, told))
        return rows

    with ThreadPoolExecutor(n_clients) as pool:
        parts = list(pool.map(client, range(n_clients)))
    rows = [row for part in parts for row in part]
    return pd.DataFrame(rows, columns=["clients", "status", "ms", "told"])


def capacity_of(url: str, texts: Sequence[str], n_requests: int = 20) -> float:
    """What a service can do, as far as one client that asks again and again can see.

    Args:
        url: The service, without a slash at its end.
        texts: All of them go into each request.
        n_requests: Are timed, after three that warm the service up.

    Returns:
        Responses a second.
    """
    with closing(_connection(url)) as connection:
        for _ in range(3):
            _post(connection, list(texts))
        start = time.perf_counter()
        for _ in range(n_requests):
            _post(connection, list(texts))
        return n_requests / (time.perf_counter() - start)


async def open_load(url: str, texts: Sequence[str], rate: float, n_requests: int) -> pd.DataFrame:
    """Requests at a fixed rate, whether or not the service keeps up.

    Args:
        url: The service, without a slash at its end.
        texts: All of them go into each request.
        rate: Requests a second, at even intervals.
        n_requests: How many are sent.

    Returns:
        A row for each request: `due` (seconds after the start), `status`, `ms` (milliseconds from
        the time at which it was due to the whole response).
    """
    unlimited = httpx.Limits(max_connections=None)
    body = _body(list(texts))
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=unlimited, verify=False) as client:
        await client.get(url)  # the first request loads libraries
        start = time.perf_counter() + 0.1

        async def send(due: float) -> tuple[float, int, float]:
            await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
            response = await client.post(url + ROUTE, content=body, headers=_JSON)
            return due, response.status_code, 1000 * (time.perf_counter() - start - due)

        sent = await asyncio.gather(*map(send, np.arange(n_requests) / rate))
    return pd.DataFrame(sent, columns=["due", "status", "ms"])


_JSON = {"Content-Type": "application/json"}


def _connection(url: str) -> HTTPConnection:
    return HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)


def _body(text: str | list[str]) -> bytes:
    return json.dumps({"text": text}).encode()


def _post(connection: HTTPConnection, text: str | list[str]) -> HTTPResponse:
    """A response that has been read, so that the connection can be used again."""
    connection.request("POST", ROUTE, _body(text), _JSON)
    response = connection.getresponse()
    response.read()
    return response

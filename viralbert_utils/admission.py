"""Which requests a service lets in, and how it says no: limits, a readable reason, and a stop that loses nothing.

Lesson 09 loads a service until it refuses. Refusing costs next to nothing: neither the model nor the validation has
seen the request then. A request is accepted when its body has been read, and from then on it gets an answer, also while
the service is being stopped. Every request is counted and logged, its text never.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from viralbert_utils.files import DataError

# All else (health, metrics, page) is always answered.
GUARDED = ("/v1/predict", "/v1/moments", "/v1/classes", "/v1/emotions")
LINGER_S = 1.0  # a service that stops goes on refusing for so long, so that a balancer sees it before the port closes
STATUSES = {
    401: "The API key is missing or wrong.",
    413: "The body is too large.",
    422: "What was sent cannot be used, and why.",
    429: "Too many requests wait already; Retry-After says when to come again.",
    503: "Stopping, or not finished in time; Retry-After says when to come again.",
}
_log = logging.getLogger("viralbert.service")


@dataclass(frozen=True)
class ServiceLimits:
    """What a service takes on. Beyond it come 413 (bytes), 422 (texts, chars, cues), 429 (requests), 503 (timeout_s).

    Attributes:
        bytes: Of a request's body.
        texts: In one request.
        chars: Of one text.
        cues: In one request.
        requests: Accepted and not yet answered, at once.
        timeout_s: From a request's first byte to its answer.
        batch: Texts that are computed together.
        wait_s: How long a text waits for others to be computed with.
    """

    bytes: int = 2_000_000
    texts: int = 256
    chars: int = 20_000
    cues: int = 20_000
    requests: int = 256
    timeout_s: float = 60.0
    batch: int = 64
    wait_s: float = 0.002

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could be answered."""
        for name, value in vars(self).items():
            if not 0 <= value < float("inf") or (value == 0 and name != "wait_s"):
                raise DataError(f"limit {name}: expected a number above 0, found {value}")

    @classmethod
    def parse(cls, settings: Sequence[str]) -> ServiceLimits:
        """From `["requests=32", ...]`, as they come from a command line.

        Raises:
            DataError: An unknown name, or no number.
        """
        kinds = {name: type(value) for name, value in vars(cls()).items()}
        found: dict[str, Any] = {}
        for setting in settings:
            name, _, value = setting.partition("=")
            try:
                found[name] = kinds[name](value)
            except (KeyError, ValueError):
                raise DataError(f"expected NAME=NUMBER with a name of {', '.join(kinds)}; found {setting!r}") from None
        return cls(**found)


DEFAULTS = ServiceLimits()


class Refusal(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: int, detail: str, retry_s: int | None = None) -> None:
        """Make the response; `retry_s` says when to come again."""
        super().__init__(detail)
        headers = {} if retry_s is None else {"Retry-After": str(retry_s)}
        if status == 401:
            headers["WWW-Authenticate"] = "ApiKey"
        # Half a surrogate pair, quoted from a request, has no UTF-8.
        plain = detail.encode("utf-8", "replace").decode("utf-8")
        self.response = JSONResponse({"detail": plain}, status, headers)


class Gate:
    """ASGI middleware, and the state that it keeps: `in_hand`, requests accepted and not yet answered."""

    def __init__(self, limits: ServiceLimits, api_key: str) -> None:
        """Open; `api_key` is asked for if it isn't empty."""
        self.limits, self.api_key = limits, api_key.encode()
        self.in_hand = 0
        self.stopped_at: float | None = None
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._count = Counter("viralbert_requests", "Requests", ["route", "status"], registry=self.registry)
        self._seconds = Histogram("viralbert_request_seconds", "Until the answer", ["route"], registry=self.registry)
        waiting = Gauge("viralbert_requests_in_hand", "Accepted, not yet answered", registry=self.registry)
        waiting.set_function(lambda: self.in_hand)

    def stop(self) -> None:
        """From now on refuse."""
        self.stopped_at = self.stopped_at or time.monotonic()

    def is_done(self) -> bool:
        """Whether it was stopped long enough ago, and nothing is left to answer."""
        return self.stopped_at is not None and not self.in_hand and time.monotonic() - self.stopped_at > LINGER_S

    def check_open(self) -> None:
        """Raises `Refusal` once it was stopped."""
        if self.stopped_at is not None:
            raise Refusal(503, "the service is being stopped; send the request again in a few seconds", 5)

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application behind the gate."""

        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            status, began = 0, time.perf_counter()

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message["headers"].append((b"x-content-type-options", b"nosniff"))
                    if self.stopped_at is not None:
                        message["headers"].append((b"connection", b"close"))
                await send(message)

            try:
                await self._let_in(app, scope, receive, noting)
            except Exception as error:
                if status:  # the answer had begun: all that is left is to break it off
                    raise
                await self._refusal(error).response(scope, receive, noting)
            finally:
                self._note(scope, status, time.perf_counter() - began)

        return gated

    async def _let_in(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in GUARDED:
            await app(scope, receive, send)
            return
        self.check_open()
        headers = Headers(scope=scope)
        if self.api_key and not hmac.compare_digest(headers.get("x-api-key", "").encode("latin-1"), self.api_key):
            raise Refusal(401, "expected the service's key in the header X-API-Key, found none or another one")
        async with asyncio.timeout(self.limits.timeout_s):
            body = await self._body(headers, receive)
            self.check_open()
            if self.in_hand >= self.limits.requests:
                raise Refusal(429, f"{self.in_hand} requests wait already, and no more are taken on; come again in a "
                                   "second, or send several texts in one request", 1)  # fmt: skip
            self.in_hand += 1
            try:
                await app(scope, _replayed(body, receive), send)
            finally:
                self.in_hand -= 1

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        announced, received, parts = int(headers.get("content-length", 0)), 0, []
        while True:
            size = max(announced, received)
            if size > self.limits.bytes:
                raise Refusal(413, f"expected a body of at most {self.limits.bytes:,} bytes, found {size:,} or more; "
                                   "send it in parts")  # fmt: skip
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the connection was closed before the whole request had come")
            parts.append(message.get("body", b""))
            received += len(parts[-1])
            if not message.get("more_body") and received <= self.limits.bytes:
                return b"".join(parts)

    def _refusal(self, error: Exception) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, TimeoutError):
            return Refusal(503, f"not finished within {self.limits.timeout_s:g} s; send less, or come again later", 5)
        # The message may quote a text; the lines of code on the way to it cannot.
        where = "".join(traceback.format_tb(error.__traceback__))
        _log.error("%s, answered with 500\n%s", type(error).__name__, where)
        return Refusal(500, f"an error inside the service ({type(error).__name__}); its log says where")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in GUARDED else "other"  # else anybody could invent labels
        self._count.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)
        if route != "other":
            _log.info("%s %s %d %.0f ms", scope["method"], route, status, 1000 * seconds)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` as if nothing had been read yet."""
    messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay

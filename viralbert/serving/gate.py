"""Which requests a service lets in, and how it stops without losing one.

Lesson 09 loads a service until it refuses. Refusing costs next to nothing: neither the model nor
the validation has seen the request then. A request is accepted when its body is there, and from
then on it gets an answer, also while the service is being stopped. Bodies that come slowly give way
to others. Every request is counted and logged, never its text.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from viralbert.serving.limits import ServiceLimits
from viralbert.serving.refusals import Refusal, check_host, check_key, check_origin
from viralbert_utils.base.errors import DataError

# All else (health, metrics, page) is always answered.
GUARDED = ("/v1/predict", "/v1/moments", "/v1/models", "/v1/classes", "/v1/emotions")
PROBES = ("/healthz", "/readyz")  # whoever asks them knows no name of ours
# a service that stops goes on refusing for so long, so that a balancer sees it before the port
# closes
LINGER_S = 1.0
HEADERS = {  # of every answer: nothing is guessed, framed, or read by a page of another origin
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_log = logging.getLogger("viralbert.service")


class Gate:
    """ASGI middleware, and the state that it keeps.

    Attributes:
        coming: Requests whose body is not there yet, the oldest first; with the bytes that are.
        in_hand: Requests accepted and not yet answered.
        held: Bytes of their bodies.
    """

    def __init__(self, limits: ServiceLimits, api_key: str, hosts: Sequence[str] = ("*",)) -> None:
        """Open.

        Args:
            limits: What is let in.
            api_key: The key that is asked for, unless it is empty.
            hosts: Names that the header Host may have; `*` any, `0.0.0.0` any address.

        Raises:
            DataError: A key that no header can carry.
        """
        if not api_key.isprintable() or api_key != api_key.strip():
            raise DataError(
                "expected an API key without control characters and without blanks or line ends "
                "around it, "
                "found one that no request can carry; give another"
            )
        self.limits, self.api_key = limits, api_key.encode()
        self.hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self.coming: dict[asyncio.Timeout, int] = {}
        self.in_hand = self.held = 0
        self.stopped_at: float | None = None
        self.registry = CollectorRegistry()
        self._counts = _Counts(self.registry, lambda: self.in_hand)

    def stop(self) -> None:
        """From now on refuse."""
        self.stopped_at = self.stopped_at or time.monotonic()

    def is_done(self) -> bool:
        """Whether it was stopped long enough ago, and nothing is left to answer."""
        return (
            self.stopped_at is not None
            and not self.in_hand
            and time.monotonic() - self.stopped_at > LINGER_S
        )

    def check_open(self) -> None:
        """Raises `Refusal` once it was stopped."""
        if self.stopped_at is not None:
            raise Refusal(
                503, "the service is being stopped; send the request again in a few seconds", 5
            )

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
                    headers = MutableHeaders(scope=message)
                    headers.update(HEADERS)
                    headers.setdefault("Cache-Control", "no-store")
                    if self.stopped_at is not None:
                        headers["Connection"] = "close"
                await send(message)

            try:
                await self._let_in(app, scope, receive, noting)
            except Exception as error:
                if status:  # the answer had begun: all that is left is to break it off
                    raise
                await self._refusal(error).response(scope, receive, noting)
            finally:
                self._counts.note(scope, status, time.perf_counter() - began)

        return gated

    async def _let_in(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["path"] not in PROBES:
            check_host(headers, self.hosts)
        if scope["path"] not in GUARDED:
            await app(scope, receive, send)
            return
        self.check_open()
        check_origin(headers)
        check_key(headers, self.api_key)
        async with asyncio.timeout(self.limits.timeout_s):
            self._check_place()
            body = await self._arrived(headers, receive)
            self.check_open()
            self._check_place()
            self.in_hand += 1
            self.held += len(body)
            try:
                await _answered(app, scope, body, receive, send)
            finally:
                self.in_hand -= 1
                self.held -= len(body)

    def _check_place(self) -> None:
        if self.in_hand >= self.limits.requests:
            raise Refusal(
                429,
                f"{self.in_hand} requests wait already, and no more are taken on; come again in a "
                "second, or send several texts in one request",
                1,
            )

    async def _arrived(self, headers: Headers, receive: Receive) -> bytes:
        """The body, unless it has to give way to others that come later and faster."""
        place = asyncio.timeout(None)

        async def counting() -> Message:
            message = await receive()
            if place in self.coming:
                self.coming[place] += len(message.get("body", b""))
                self._make_room()
            return message

        try:
            async with place:
                self.coming[place] = 0
                self._make_room()
                return await self._body(headers, counting)
        except TimeoutError:
            raise Refusal(
                429,
                "other requests have come while the body of this one was on its way, and needed "
                "its "
                "place; send it again in a second",
                1,
            ) from None
        finally:
            self.coming.pop(place, None)

    def _make_room(self) -> None:
        room = max(self.limits.bodies, self.limits.bytes)
        while len(self.coming) > self.limits.requests or (
            self.coming and self.held + sum(self.coming.values()) > room
        ):
            oldest = next(iter(self.coming))
            del self.coming[oldest]
            oldest.reschedule(0)

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        announced, received, parts = int(headers.get("content-length", 0)), 0, []
        while True:
            size = max(announced, received)
            if size > self.limits.bytes:
                raise Refusal(
                    413,
                    f"expected a body of at most {self.limits.bytes:,} bytes, found {size:,} or "
                    "more; "
                    "send it in parts",
                )
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
            return Refusal(
                503,
                f"not finished within {self.limits.timeout_s:g} s; send less, or come again later",
                5,
            )
        # The message may quote a text; the lines of code on the way to it cannot.
        where = "".join(traceback.format_tb(error.__traceback__))
        _log.error("%s, answered with 500\n%s", type(error).__name__, where)
        return Refusal(
            500, f"an error inside the service ({type(error).__name__}); its log says where"
        )


class _Counts:
    """What Prometheus is told of the requests, and a line of the log for each."""

    def __init__(self, registry: CollectorRegistry, n_in_hand: Callable[[], int]) -> None:
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "viralbert_requests", "Requests", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "viralbert_request_seconds", "Until the answer", ["route"], registry=registry
        )
        waiting = Gauge(
            "viralbert_requests_in_hand", "Accepted, not yet answered", registry=registry
        )
        waiting.set_function(n_in_hand)

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answer."""
        # Only known routes, else anybody could invent labels.
        route = scope["path"] if scope["path"] in GUARDED else "other"
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)
        if route != "other":
            _log.info("%s %s %d %.0f ms", scope["method"], route, status, 1000 * seconds)


async def _answered(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Let the application answer, as long as the client waits for it.

    Raises:
        Refusal: The client has gone, and nobody will read this; nothing more is computed for it.
    """
    has_begun = False

    async def sending(message: Message) -> None:
        nonlocal has_begun
        has_begun = True
        await send(message)

    answer = asyncio.ensure_future(app(scope, _replayed(body, receive), sending))
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() and not has_begun:
            raise Refusal(400, "the connection was closed before the answer")
        await answer
    finally:
        answer.cancel()
        gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` as if nothing had been read yet."""
    messages: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay

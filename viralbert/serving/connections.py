"""Connections of a service, bounded in number, time and memory.

The bounds hold whatever the other side does.

uvicorn bounds the pause between two requests and the size of a header, but neither how long a
header may take nor how many connections wait for one: it counts them as requests, and then refuses
everybody, a health check included. Here the connection that has been idle for longest goes when a
new one finds no room, so whoever comes and asks is answered.
"""

from __future__ import annotations

import json
import os
import resource
from asyncio import TimerHandle, Transport
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from viralbert_utils.base.errors import DataError

# from opening a connection, or from the last answer on it, to the end of the next request's headers
HEADERS_S = 10.0
GRACE_S = 5.0  # beyond the time limit of a request, for its answer to be read
SPARE = 16  # descriptors for files and pipes
# connections that are taken at once; those beyond the limit are closed within four rounds of the
# event loop
BURST = 16


def room(wanted: int) -> tuple[int, int]:
    """How many connections to hold, and how many to take at once.

    The descriptors that the process may have decide.

    Its soft limit is raised as far as is needed and allowed. Without a bound below that of the
    system the next connection finds no descriptor, and asyncio tries and logs it thousands of times
    a second.

    Args:
        wanted: Connections that would be welcome.

    Raises:
        DataError: Too few descriptors for any service.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(os.listdir("/dev/fd")) + SPARE
    needed = wanted + taken + 4 * BURST
    if soft != resource.RLIM_INFINITY and soft < needed:
        with suppress(ValueError, OSError):  # some systems have a lower limit of their own
            resource.setrlimit(
                resource.RLIMIT_NOFILE,
                (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard),
            )
        left = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - taken
        if left < 8:
            raise DataError(
                f"expected a limit of at least {taken + 8} open files (ulimit -n), found "
                f"{left + taken}"
            )
        burst = max(1, min(BURST, left // 8))
        return min(wanted, left - 4 * burst), burst
    return wanted, BURST


class Connection(H11Protocol):
    """One connection of the service.

    The subclass that `bounded` makes says how many there may be, and for how long.
    """

    n_connections: int
    request_s: float

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Take it; if there are too many, close the one that has been idle for longest."""
        super().connection_made(transport)
        self._deadline: TimerHandle | None = None
        self._answering: Any = None  # the request (uvicorn: cycle) that the deadline is for
        self._dropped = False
        self._allow(HEADERS_S)
        if len(self.connections) > self.n_connections:
            held = [
                one for one in self.connections if isinstance(one, Connection) and not one._dropped
            ]
            if len(held) > self.n_connections:
                last = min(
                    (one for one in held if one.is_idle), key=lambda one: one._since
                )  # self is one of them
                last._dropped = True
                last.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """No deadline any more."""
        self._cancelled()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer here.

        No request has come, or its answer is not fetched.
        """
        return self.cycle is None or self.cycle.response_complete or self.flow.write_paused

    def handle_events(self) -> None:
        """A request gets its own time as soon as its headers are there."""
        super().handle_events()
        if self.cycle is not self._answering and not self.cycle.response_complete:
            self._answering = self.cycle
            self._allow(self.request_s + GRACE_S)

    def on_response_complete(self) -> None:
        """The time for the next headers begins."""
        self._allow(HEADERS_S)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong in the service's form; uvicorn's own is plain text."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer has begun: nothing else can be said
            return
        body = json.dumps(
            {"detail": "what came is no HTTP/1.1 request, or its headers are too large"}
        ).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _allow(self, seconds: float) -> None:
        self._cancelled()
        self._since = self.loop.time()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _cancelled(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()


def bounded(n: int, seconds: float) -> type[Connection]:
    """The protocol for uvicorn's `http`.

    Args:
        n: Connections held at once.
        seconds: Time limit of a request, from its headers to its answer.
    """

    class Bounded(Connection):
        n_connections, request_s = n, seconds

    return Bounded

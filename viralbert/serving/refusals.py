"""How a service says no, and the callers whom it says no to, whatever they ask."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

LOOPBACK = ("localhost", "127.0.0.1", "::1")
STATUSES = {
    400: "No proper HTTP request, or one for a host that is not served here.",
    401: "The API key is missing or wrong.",
    403: "A page of another origin asks.",
    404: "There is nothing at this path.",
    405: "This path takes another method; Allow names it.",
    413: "The body is too large.",
    415: "The body is of another kind; Content-Type says which.",
    422: "What was sent cannot be used, and why.",
    429: "Too many requests wait already; Retry-After says when to come again.",
    500: "An error inside the service; its log says where.",
    503: "Stopping, or not finished in time; Retry-After says when to come again.",
}


class Refusal(Exception):
    """A request that is not answered, and why."""

    def __init__(
        self,
        status: int,
        detail: str,
        retry_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make the response; `retry_s` says when to come again."""
        super().__init__(detail)
        headers = dict(headers or {})
        if retry_s is not None:
            headers["Retry-After"] = str(retry_s)
        if status == 401:
            headers["WWW-Authenticate"] = "ApiKey"
        # Half a surrogate pair, quoted from a request, has no UTF-8.
        plain = detail.encode("utf-8", "replace").decode("utf-8")
        self.response = JSONResponse({"detail": plain}, status, headers)


def check_host(headers: Headers, hosts: Collection[str]) -> None:
    """A page whose name was made to lead here (DNS rebinding) says so in the header Host.

    Args:
        headers: Those of the request.
        hosts: Names that are served; `*` any, `0.0.0.0` any address.

    Raises:
        Refusal: The name is none of ours, or the request can be read in two ways.
    """
    if "content-length" in headers and "transfer-encoding" in headers:
        raise Refusal(
            400,
            "expected Content-Length or Transfer-Encoding, found both",
            headers={"Connection": "close"},
        )
    name = _host_name(headers.get("host", ""))
    if "*" in hosts or name in LOOPBACK or name in hosts:
        return
    if not {"0.0.0.0", "::"}.isdisjoint(hosts) and _is_address(
        name
    ):  # an address leads nowhere else
        return
    raise Refusal(
        400,
        "expected a host that is served here, found another one in the header Host; "
        "viralbert serve --allow-host NAME serves it, too",
    )


def check_origin(headers: Headers) -> None:
    """Browsers say for which page they ask; programs say nothing.

    Raises:
        Refusal: It is a page of another origin, which may be anybody's.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        is_own = site in ("same-origin", "none")
    else:
        is_own = (
            origin is None or origin.lower().partition("://")[2] == headers.get("host", "").lower()
        )
    if not is_own:
        raise Refusal(
            403,
            "expected a request of a program or of the service's own page, found one of a page of "
            "another origin; let the server of that page ask",
        )


def check_key(headers: Headers, key: bytes) -> None:
    """Refuse a request that does not carry the service's key.

    Args:
        headers: Those of the request.
        key: Nothing is asked for if it is empty.

    Raises:
        Refusal: The key is missing or another one.
    """
    given = headers.get("x-api-key", "").encode("latin-1")
    if key and not hmac.compare_digest(given, key):
        raise Refusal(
            401, "expected the service's key in the header X-API-Key, found none or another one"
        )


def _host_name(host: str) -> str:
    """The name in `name:port`; empty if it is no such thing."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

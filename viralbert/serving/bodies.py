"""What is sent with a request: JSON or a file in a form, read and checked beside the event loop.

Errors say what was expected where, and never quote what came.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

import pydantic_core
from fastapi import Request
from pydantic import BaseModel, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from viralbert.serving.refusals import Refusal

PIECE = 2**14  # bytes of a form that are parsed at once
JSON, FORM = "application/json", "multipart/form-data"
MAX_NAMES = 100  # in an object of JSON; nothing that is asked for has so many
Sent = TypeVar("Sent", bound=BaseModel)


class Body(BaseModel, extra="forbid"):
    """JSON that is sent, or an object in it: no names but its own."""

    @model_validator(mode="before")
    @classmethod
    def _has_few_names(cls, value: Any) -> Any:
        if (
            isinstance(value, dict) and len(value) > MAX_NAMES
        ):  # an error for each would hold the interpreter for long
            raise ValueError(f"expected {', '.join(cls.model_fields)}, found {len(value):,} names")
        return value


def media_type(request: Request) -> str:
    """What a body is said to be, without parameters such as its charset."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, kind: type[Sent], expected: str = JSON) -> Sent:
    """The body as JSON, parsed and checked in a thread beside the event loop and the model.

    Raises:
        Refusal: It is said to be something else, or it is no JSON.
        ValidationError: It is other JSON than asked for.
    """
    packed = request.headers.get("content-encoding", "identity").lower()
    if packed != "identity":
        raise Refusal(
            415,
            "expected a body as it is, found one that Content-Encoding says is packed; send it "
            "unpacked",
        )
    media = media_type(request)
    if media != JSON and not (media.startswith("application/") and media.endswith("+json")):
        raise Refusal(
            415, f"expected the header Content-Type: {expected}, found {media[:80] or 'none'}"
        )
    body = await request.body()
    return await run_in_threadpool(lambda: kind.model_validate(_parsed(body)))


def _parsed(body: bytes) -> Any:
    """JSON in UTF-8, or in UTF-16 or UTF-32, with a byte order mark or without.

    Raises:
        Refusal: In another encoding, or no JSON.
    """
    encoding = json.detect_encoding(body)
    try:
        return pydantic_core.from_json(body.decode(encoding))
    except UnicodeDecodeError as error:
        bad_byte = f"byte 0x{body[error.start]:02X} at position {error.start}, which is none"
        raise Refusal(
            422,
            f"the body: expected JSON in {encoding.upper()}, found {bad_byte}; send it in UTF-8 (a "
            "Russian "
            "Windows console and old editors write CP866 or CP1251)",
        ) from None
    except ValueError as error:
        raise Refusal(
            422, f"the body is no JSON: {error}; /openapi.json says what is expected"
        ) from None


async def read_file(request: Request) -> bytes:
    """Read the field `file` of a form into memory.

    Its size is limited, and a disk may be full or read-only.

    Raises:
        Refusal: There is no such field, or no such form.
    """
    body = await request.body()

    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), PIECE):
            yield body[start : start + PIECE]
            await asyncio.sleep(0)  # others get in between

    try:
        parser = MultiPartParser(request.headers, pieces(), max_files=1)
        parser.spool_max_size = len(body) + 1
        file = (await parser.parse()).get("file")
        if isinstance(file, UploadFile):
            return await file.read()
        problem = "no such file"
    except MultiPartException as error:
        problem = f"a damaged form ({error.message})"
    except (LookupError, UnicodeError):
        problem = "a form whose charset is none"
    raise Refusal(422, f"expected a form with a subtitle file in the field 'file', found {problem}")


def readable(errors: Sequence[Any]) -> str:
    """Say what was expected where, and what kind of thing came.

    The thing itself is never quoted.
    """
    lines = []
    for error in errors[:3]:
        value = error.get("input")
        size = f" of length {len(value)}" if isinstance(value, str | list) else ""
        where = ".".join(str(part) for part in error["loc"] if part != "body") or "the body"
        expected = error["msg"].partition(" or instance of ")[
            0
        ]  # the rest names a class of this module
        lines.append(f"{where}: {expected}, found {type(value).__name__}{size}")
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return (
        f"{'; '.join(lines)}{more}. The page / shows how to ask, /openapi.json says what is "
        "expected"
    )

"""Bodies of requests: one reader for both routes, whatever the encoding and the form."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.product.serving.known import TEXTS
from viralbert.serving import service

BODIES = {
    "/v1/predict": {"text": "Ёж сказал: «ай»!"},
    "/v1/moments": {"cues": [{"text": "Ёж сказал: «ай»!", "start": 1}]},
}
routes = pytest.mark.parametrize("path", BODIES)


def raw(path: str, encoding: str = "utf-8") -> bytes:
    return json.dumps(BODIES[path], ensure_ascii=False).encode(encoding)


def post(client, path: str, content: bytes, **headers: str) -> httpx.Response:
    return client.post(
        path, content=content, headers={"content-type": "application/json"} | headers
    )


@routes
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_with_a_byte_order_mark_or_in_utf_16_is_read_by_all_routes(ask, path, encoding):
    found, plain = post(ask, path, raw(path, encoding)), post(ask, path, raw(path))
    assert (found.status_code, found.json()) == (200, plain.json())


@routes
@pytest.mark.parametrize("encoding", ["cp1251", "cp866", "koi8-r", "mac-cyrillic"])
def test_json_in_another_encoding_is_refused_with_the_remedy(ask, path, encoding):
    body = (
        json.dumps(BODIES[path], ensure_ascii=False)
        .replace("«", "")
        .replace("»", "")
        .encode(encoding)
    )
    found = post(ask, path, body)
    assert found.status_code == 422
    assert re.search(
        r"expected JSON in UTF-8, found byte 0x[\dA-F]{2} at position \d+.*send it in UTF-8",
        found.text,
    )


@routes
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"[" * 100_000, {}, 422),
        (b'{"text": ' * 50_000, {}, 422),
        (b'{"text": ' + b"9" * 5000 + b"}", {}, 422),
        (b"\xef\xbb\xbf", {}, 422),
        (b"\xff\xfe{", {}, 422),
        (b'{"text": "\xed\xa0\xbd"}', {}, 422),
        (b'{"text": "a\x00b"}', {}, 422),
        (b"null", {}, 422),
        (b"\x1f\x8b\x08", {"content-encoding": "gzip"}, 415),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {"content-type": ""}, 415),
        (b"{}", {"content-type": "application/problem+json"}, 422),
        (b"{}", {"content-type": "APPLICATION/JSON ; charset=undefined"}, 422),
    ],
)
def test_strange_bodies_have_one_documented_answer_on_all_routes(ask, path, body, headers, status):
    found = post(ask, path, body, **headers)
    assert found.status_code == status
    assert found.json().keys() == {"detail"}
    assert str(status) in ask.get("/openapi.json").json()["paths"][path]["post"]["responses"]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("Multipart/Form-Data; Boundary=b", b"", 200),
        ("multipart/form-data; boundary=b; charset=undefined", b"", 422),
        (
            "multipart/form-data; boundary=b; charset=utf-7000",
            b"",
            200,
        ),  # only names would be read with it
        ("multipart/form-data", b"", 422),
        ("multipart/form-data; boundary=other", b"", 422),
        ("multipart/form-data; boundary=b", b"--b\r\nno header\r\n", 422),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\na\r\n' * 3000,
            422,
        ),
    ],
)
def test_forms_in_any_spelling_and_damaged_ones(ask, kind, body, status):
    head = '--b\r\nContent-Disposition: form-data; name="file"; filename="а.srt"\r\n\r\n'
    whole = f"{head}1\n00:00:01,000 --> 00:00:02,000\nКот.\n\r\n--b--\r\n".encode()
    found = ask.post("/v1/moments", content=body or whole, headers={"content-type": kind})
    assert found.status_code == status, found.text
    assert status == 200 or "in the field 'file'" in found.json()["detail"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\x00b.srt", "a\r\nb.srt", "а" * 300, "", "CON"]
)
def test_names_of_sent_files_are_never_used(ask, name):
    content = f"1\n00:00:01,000 --> 00:00:02,000\n{TEXTS[0]}\n".encode()
    assert ask.post("/v1/moments", files={"file": (name or "x", content)}).status_code == 200


def test_a_file_stays_in_memory(ask, monkeypatch):
    """On a read-only disk there is nowhere else."""
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: pytest.fail("a file on disk"))
    monkeypatch.setattr(
        "tempfile._TemporaryFileWrapper", lambda *_, **__: pytest.fail("a file on disk")
    )
    lines = "".join(
        f"{k}\n00:00:{k % 60:02},000 --> 00:00:{k % 60:02},900\n{'слово ' * 1000}\n\n"
        for k in range(1, 120)
    )
    assert 1_200_000 < len(lines.encode()) < 2_000_000
    found = ask.post("/v1/moments", files={"file": ("a.srt", lines.encode())})
    assert found.status_code in (200, 422)
    assert "tempfile" not in found.text


@pytest.mark.parametrize(
    ("end", "n_pieces"),
    [
        (
            b'--b\r\nContent-Disposition: form-data; name="b"; filename="b"\r\n\r\n'
            + b"\r\n-" * 620_000,
            100,
        ),
        (b"--b\r\n" + b"A: b\r\n" * 250_000, 3),  # the parser gives up soon
    ],
    ids=["almost ends", "headers"],
)
def test_a_hostile_form_lets_others_in_between(known, end, n_pieces):
    app = service.create_app("folder")
    form = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n\r\n' % k for k in range(900)
    )
    turns = []

    async def others() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def both() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            beside = asyncio.create_task(others())
            headers = {"content-type": "multipart/form-data; boundary=b"}
            found = await client.post(
                "/v1/moments", content=(form + end)[:1_980_000] + b"\r\n--b--\r\n", headers=headers
            )
            beside.cancel()
            return found

    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(asyncio.run, both()).result()
    assert (
        found.status_code,
        "expected a form with a subtitle file" in found.json()["detail"],
    ) == (422, True)
    assert len(turns) > n_pieces, "one for each piece"

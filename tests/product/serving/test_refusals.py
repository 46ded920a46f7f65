"""Whom a service refuses: pages of others, and who has no key."""

import pytest
from starlette.testclient import TestClient

from viralbert.serving import server, service
from viralbert_utils.base.errors import DataError


def test_the_key(known, monkeypatch):
    with TestClient(service.create_app("folder", api_key="ключ")) as client:
        for key in (None, "", "клюк", "ключ "):
            headers = {} if key is None else {"X-API-Key": key.encode()}
            found = client.post("/v1/predict", json={"text": "а"}, headers=headers)
            assert found.status_code == 401
            assert "X-API-Key" in found.json()["detail"]
        assert client.get("/v1/emotions").status_code == 401
        assert client.get("/healthz").status_code == client.get("/").status_code == 200
        assert client.get("/v1/emotions", headers={"X-API-Key": "ключ".encode()}).status_code == 200
        assert "APIKeyHeader" in client.get("/openapi.json").text


LOCAL = {"host": "localhost:8000"}


@pytest.fixture
def closed(known):
    """As `serve` makes it for this machine."""
    with TestClient(
        service.create_app("folder", hosts=["127.0.0.1", "кот.example".encode("idna").decode()])
    ) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.7",
        "[::2]:8000",
        "",
        "[",
        "localhost@evil.example",
        "evil.example:localhost",
        "0.0.0.0:8000",
        "2130706433",
    ],
)
def test_names_that_were_made_to_lead_here_are_refused(closed, host):
    for path in ("/", "/openapi.json", "/metrics", "/v1/classes"):
        found = closed.get(path, headers={"host": host})
        assert (found.status_code, "header Host" in found.json()["detail"]) == (400, True)
    assert closed.post("/v1/predict", json={"text": "а"}, headers={"host": host}).status_code == 400
    assert closed.get("/healthz", headers={"host": host}).status_code == 200, (
        "a probe knows no name"
    )


@pytest.mark.parametrize(
    "host",
    ["localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000", "xn--j1aim.example", "localhost."],
)
def test_names_of_this_machine_and_given_ones_are_served(closed, host):
    assert closed.post("/v1/predict", json={"text": "а"}, headers={"host": host}).status_code == 200


def test_a_service_for_others_is_served_under_any_address_but_not_any_name(known):
    with TestClient(service.create_app("folder", api_key="к", hosts=["0.0.0.0"])) as client:
        assert client.get("/", headers={"host": "192.168.1.5:8000"}).status_code == 200
        assert client.get("/", headers={"host": "[fe80::1]"}).status_code == 200
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:8000"}, 200),
        ({"origin": "https://LOCALHOST:8000"}, 200),  # a proxy speaks TLS
        (
            {"origin": "https://kot.example", "sec-fetch-site": "same-origin"},
            200,
        ),  # a proxy names another host
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://localhost:8000"}, 403),
    ],
)
def test_pages_of_another_origin_are_refused(closed, known, headers, status):
    known.batches.clear()
    form = {"files": {"file": ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nA.\n")}}
    for path, body in (("/v1/predict", {"json": {"text": "а"}}), ("/v1/moments", form)):
        found = closed.post(path, headers=LOCAL | headers, **body)
        assert found.status_code == status
        assert status == 200 or "another origin" in found.json()["detail"]
    assert bool(known.batches) == (status == 200)


def test_no_answer_can_be_framed_guessed_or_kept(ask):
    for path in (
        "/",
        "/service.js",
        "/healthz",
        "/metrics",
        "/v1/classes",
        "/nothing",
        "/v1/predict",
    ):
        headers = ask.get(path).headers
        assert (headers["x-frame-options"], headers["x-content-type-options"]) == (
            "DENY",
            "nosniff",
        )
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == ("no-cache" if path in service.PAGE else "no-store")
    policy = ask.get("/").headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'self'" in policy


@pytest.mark.parametrize("key", ["ключ\n", " ключ", "ключ ", "кл\x00юч", "  ", "кл\tюч"])
def test_a_key_that_no_request_could_carry_is_refused_at_the_start(known, key):
    with pytest.raises(DataError, match="expected an API key without"):
        service.create_app("folder", api_key=key)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.org"])
def test_open_to_everybody_only_if_said_twice(known, monkeypatch, host):
    monkeypatch.setattr(server, "create_app", lambda *_: 1 / 0)
    with pytest.raises(
        DataError, match=r"expected an API key.*set VIRALBERT_API_KEY, or give --allow-no-key"
    ):
        server.serve("folder", host)
    for options in ({"needs_key": False}, {"api_key": "ключ"}):
        with pytest.raises(ZeroDivisionError):
            server.serve("folder", host, **options)
    with pytest.raises(ZeroDivisionError):
        server.serve("folder", "127.0.0.2")


def test_no_way_around_the_key(known):
    with TestClient(service.create_app("folder", api_key="ключ")) as client:
        known.batches.clear()
        for path in (
            "/v1/predict",
            "/v1/predict/",
            "/V1/predict",
            "//v1/predict",
            "/v1/%70redict",
            "/v1/predict?x-api-key=ключ",
            "/v1/predict;a",
            "/x/../v1/predict",
            "http://localhost/v1/predict",
        ):
            for key in (b"", "клю".encode(), b"\xff\xfe", "ключключ".encode()):
                assert client.post(
                    path, json={"text": "а"}, headers={"x-api-key": key}
                ).status_code in (401, 404)
        for method in ("HEAD", "OPTIONS", "GET"):
            assert client.request(method, "/v1/classes").status_code == 401
        twice = [("x-api-key", "нет".encode()), ("x-api-key", "ключ".encode())]
        assert client.get("/v1/classes", headers=twice).status_code == 401
    assert known.batches == []

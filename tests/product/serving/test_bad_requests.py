"""Requests that cannot be used: each gets a reason, in the service's own form."""

import logging
import re

import pytest

from tests.product.serving.known import cues


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"text": []}, "text: List should have at least 1 item"),
        (
            {"text": ["а"] * 257},
            "at most 256 items after validation, not 257, found list of length 257",
        ),
        (
            {"text": "а" * 20_001},
            r"text\.0: String should have at most 20000 characters, found str of length 20001",
        ),
        ({"text": ["а", 7]}, r"text\.1: Input should be a valid string, found int"),
        ({"text": None}, "text: Input should be a string, or a list of strings, found NoneType"),
        ({"text": 5}, "text: Input should be a string, or a list of strings, found int"),
        (
            {"text": {"text": "а"}},
            "text: Input should be a string, or a list of strings, found dict",
        ),
        ({"txt": "а"}, "text: Field required"),
        ({}, "text: Field required"),
        ([], "the body: Input should be a valid dictionary, found list"),
    ],
)
def test_what_cannot_be_used_is_named(ask, body, reason):
    found = ask.post("/v1/predict", json=body)
    assert found.status_code == 422
    assert re.search(reason, found.json()["detail"])
    assert "/openapi.json" in found.json()["detail"]


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe", b'{"text": "\\ud83d"}', b'{"text": NaN}', b""]
)
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/moments"])
def test_broken_bodies_get_422(ask, path, content):
    found = ask.post(path, content=content, headers={"content-type": "application/json"})
    assert found.status_code == 422
    assert found.json()["detail"]


@pytest.mark.parametrize(
    ("query", "body", "reason"),
    [
        ("?min_s=70", {"cues": cues()}, "expected 0 < min_s <= max_s"),
        ("?min_s=nan", {"cues": cues()}, "min_s: Input should be a finite number"),
        (
            "",
            {"cues": [{"text": "а", "start": -1}]},
            r"cues\.0\.start: .*greater than or equal to 0, found int",
        ),
        ("", {"cues": [{"start": 0}]}, r"cues\.0\.text: Field required"),
        ("", {"cues": [{"text": "  ", "start": 0}]}, "no cue found"),
        (
            "?min_s=1&max_s=600",
            {
                "cues": [
                    {"text": f"Раз {k}.", "start": k / 40, "end": k / 40 + 0.02}
                    for k in range(3000)
                ]
            },
            "3,000 sentences give .* lower max_s",
        ),
    ],
)
def test_moments_that_cannot_be_found_are_refused(ask, query, body, reason):
    found = ask.post(f"/v1/moments{query}", json=body)
    assert found.status_code == 422
    assert re.search(reason, found.json()["detail"])


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/moments"])
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{bad", "key must be a string at line 1 column 2"),
        (b'{"text":\n "a"', "object at line 2 column 4"),
        (b'{"text": "a"}x', "trailing characters at line 1 column 14"),
        (b"", "line 1 column 0"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(ask, path, body, problem):
    found = ask.post(path, content=body, headers={"content-type": "application/json"})
    assert found.status_code == 422
    assert re.match(f"the body is no JSON: .*{problem};", found.json()["detail"])


def test_a_form_without_a_file_is_refused(ask):
    found = ask.post("/v1/moments", files={"other": ("a.srt", b"a")})
    assert (found.status_code, "in the field 'file'" in found.json()["detail"]) == (422, True)


def test_an_error_inside_is_500_and_its_text_stays_out_of_the_log(ask, caplog):
    caplog.set_level(logging.DEBUG)
    found = ask.post("/v1/predict", json={"text": "сломайся, тайный текст"})
    assert (found.status_code, "ZeroDivisionError" in found.json()["detail"]) == (500, True)
    ask.post("/v1/predict", json={"text": ["тайный текст", 7]})
    ask.post("/v1/moments", files={"file": ("тайный текст.srt", "тайный текст".encode())})
    assert "ZeroDivisionError" in caplog.text
    assert "known.py" in caplog.text, "where it was raised"
    assert "POST /v1/moments 422" in caplog.text
    assert "тайн" not in caplog.text


def test_thousands_of_mistakes_are_not_listed_one_by_one(ask):
    """A list of them would hold everybody up."""
    names = {str(k): k for k in range(20_000)}
    for path, body, reason in (
        ("/v1/predict", names, "expected text, model, aim, found 20,000 names"),
        ("/v1/moments", names, "expected cues, found 20,000 names"),
        (
            "/v1/moments",
            {"cues": [{"text": "а", "start": 0} | names]},
            "expected text, start, end, found 20,002 names",
        ),
        ("/v1/moments", {"cues": [{"a": 1}] * 20_000}, "cues.0.text: Field required"),
    ):
        found = ask.post(path, json=body)
        assert (found.status_code, reason in found.text, " more. The page" in found.text) == (
            422,
            True,
            False,
        )
    assert (
        "a: Extra inputs are not permitted"
        in ask.post("/v1/predict", json={"text": "а", "a": 1}).text
    )


def test_errors_of_the_framework_are_in_the_services_own_form(ask):
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/predict/", 404),
        ("POST", "/v1/moments/", 404),
        ("GET", "/redoc", 404),
        ("GET", "/service.css/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/v1/predict", 405),
        ("DELETE", "/v1/moments", 405),
        ("POST", "/healthz", 405),
        ("OPTIONS", "/v1/predict", 405),
        ("PUT", "/", 405),
        ("BREW", "/metrics", 405),
    ):
        found = ask.request(method, path, follow_redirects=False)
        assert found.status_code == status, (method, path)
        assert "/openapi.json says what is where" in found.json()["detail"]
        assert status != 405 or found.headers["allow"]

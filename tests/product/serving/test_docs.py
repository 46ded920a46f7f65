"""The page /docs: the API to try out, from the service alone."""

import hashlib
import re

import pytest
from playwright.sync_api import expect
from starlette.testclient import TestClient

from tests.course.test_pages import watch
from tests.product.serving.known import TEXTS, Known, Reviewer
from viralbert.serving import service
from viralbert.serving.predictor import Predictor
from viralbert.serving.service import PAGE, STATIC


def test_every_part_of_the_pages_comes_from_the_service(ask):
    for path, name in PAGE.items():
        response = ask.get(path)
        assert response.status_code == 200
        assert response.headers["content-security-policy"] == service.POLICY
        assert response.content == (STATIC / name).read_bytes()
        if name.endswith(".html"):
            assert not re.search(r"https?:|=\"//", response.text)
            parts = re.findall(r'(?:src|href)="([^":]+)"', response.text)
            assert len(parts) > 2
            assert [ask.get(f"/{part}").status_code for part in parts] == [200] * len(parts)
    types = {path: ask.get(path).headers["content-type"] for path in PAGE}
    assert types["/docs"].startswith("text/html")
    assert types["/swagger-ui/swagger-ui.css"].startswith("text/css")
    assert "javascript" in types["/swagger-ui/swagger-ui-bundle.js"]
    assert "'self'" in service.POLICY
    assert "unsafe" not in service.POLICY


def test_nothing_beside_the_pages_is_read(ask):
    for path in ("swagger-ui/LICENSE", "swagger-ui/%2e%2e/service.html", "swagger-ui/", "redoc"):
        assert ask.get(f"/{path}").status_code == 404


def test_swagger_ui_is_as_published_with_its_licence():
    folder = STATIC / "swagger-ui"
    written = (folder / "README.md").read_text(encoding="utf-8")
    sums = dict(re.findall(r"^ {4}(\w{64})  (\S+)$", written, re.M))
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in folder.iterdir()}
    assert sums.items() <= found.items()
    assert set(found.values()) - set(sums.values()) == {"README.md"}
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")


def test_the_page_does_not_ask_for_a_key_but_its_questions_do(known):
    with TestClient(service.create_app("folder", api_key="secret")) as client:
        assert client.get("/docs").status_code == 200
        assert client.get("/v1/models").status_code == 401
        schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert [one["name"] for one in schemes.values()] == ["X-API-Key"], "the button Authorize"


@pytest.fixture
def page(monkeypatch, serve, browser):
    models = {"a": Known(), "b": Reviewer()}
    monkeypatch.setattr(Predictor, "load", lambda folder, device, precision: models[folder])
    url, _ = serve({"emotions": "a", "reviews": "b"})
    opened = browser.new_page()
    opened.requests, opened.messages = watch(opened)
    opened.service = url
    yield opened
    assert [asked for asked in opened.requests if not asked.startswith((url, "data:"))] == []
    assert opened.messages == [], "nothing that the service's rules forbid"
    opened.close()


def test_a_model_is_chosen_and_tried_out(page):
    page.goto(f"{page.service}/docs")
    block = page.locator(".opblock", has_text="/v1/predict")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.locator("select.examples-select-element, .examples-select select").first.select_option(
        "reviews"
    )
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response-col_description code").first
    answer.wait_for()
    told = answer.inner_text()
    assert "".join(told.split()).startswith('{"predictions":[{"class":"good","probability":0.7,')
    assert any(asked.endswith("/v1/predict") for asked in page.requests)


def test_the_front_page_chooses_a_model(page):
    page.goto(page.service)
    page.get_by_label("Model").select_option("reviews")
    expect(page.get_by_label("Thresholds"), "no model here has aims").to_be_hidden()
    page.get_by_label("Russian text").fill(TEXTS[0])
    page.get_by_role("button", name="Show the answer").click()
    bars = page.locator("#text-result .bars li")
    bars.first.wait_for()
    assert bars.all_inner_texts() == ["good\n70 %", "neutral\n20 %", "bad\n10 %"]
    page.get_by_label("Model").select_option("emotions")
    page.locator("#text-result .bars li", has_text="радость").wait_for()

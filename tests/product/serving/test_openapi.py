"""What the service says of its requests and answers, and requests made from that."""

import json
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.product.serving.known import Known, Reviewer, cues
from tests.timing import HANG_S
from viralbert.serving.predictor import Predictor


def test_the_description_has_russian_examples_and_every_refusal(ask):
    described = ask.get("/openapi.json").json()
    assert "Кот сам открыл дверь" in json.dumps(described, ensure_ascii=False)
    for path in ("/v1/predict", "/v1/moments"):
        assert {"200", "413", "422", "429", "503"} <= described["paths"][path]["post"][
            "responses"
        ].keys()


def test_the_answer_of_moments_is_described_field_by_field(ask):
    described = ask.get("/openapi.json").json()
    fields = described["components"]["schemas"]
    answer = described["paths"]["/v1/moments"]["post"]["responses"]["200"]["content"][
        "application/json"
    ]["schema"]
    assert answer == {"$ref": "#/components/schemas/MomentsInfo"}
    found = ask.post("/v1/moments", json={"cues": cues()}).json()
    assert fields["MomentsInfo"]["properties"].keys() == found.keys()
    assert fields["MomentInfo"]["properties"].keys() == found["moments"][0].keys()
    assert fields["PeakInfo"]["properties"].keys() == found["moments"][0]["emotions"][0].keys()
    assert fields["Rejected"]["properties"].keys() == found["rejected"][0].keys()
    assert {"start_s", "duration_s", "repairs", "note"} <= set(fields["MomentsInfo"]["required"])


def test_every_answer_of_the_service_is_described(ask):
    described = ask.get("/openapi.json").json()["paths"]
    for path, operations in described.items():
        for operation in operations.values():
            wanted = {"400", "404", "405", "500"} | (
                {"403", "503"} if path.startswith("/v1/") else set()
            )
            assert wanted <= operation["responses"].keys()


@pytest.mark.parametrize("kind", [Known, Reviewer])
def test_requests_made_from_the_description_never_break_it(monkeypatch, serve, kind):
    """More of them: benchmarks/service.py."""
    model = kind()
    monkeypatch.setattr(Predictor, "load", lambda folder, device, precision: model)
    url, _ = serve()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    seen: Counter[int] = Counter()
    for operation in (result.ok() for result in schema.get_all_operations()):

        @given(operation.as_strategy())
        @settings(
            max_examples=50,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def cases(case):
            response = case.call(timeout=HANG_S)
            seen[response.status_code] += 1
            # "Valid" text without a cue in it is refused: no schema can say that.
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

        cases()
    assert seen.total() > 50
    assert seen[200] > 20
    assert {status for status in seen if status >= 500} == set()

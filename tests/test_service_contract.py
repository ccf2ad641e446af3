"""What schemathesis makes up from the OpenAPI never breaks the service, and each answer is as the OpenAPI says."""

import pytest
from test_service import engine, made  # noqa: F401  fixtures

from miniclip_helpers.service import create_app

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")
EXAMPLES = 40
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance", "response_headers_conformance", "negative_data_rejection")


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"], ids=["as it should be", "as it should not be"])
@pytest.mark.parametrize("label", ["POST /search/text", "POST /search/image", "POST /zero-shot", "GET /photos/{name}", "GET /health", "GET /metrics"])
def test_nothing_made_up_breaks_the_service(engine, label, mode, monkeypatch):  # noqa: F811
    monkeypatch.setattr(engine, "close", lambda: None)  # older schemathesis begins and ends the application with every request
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(engine))
    operation = {found.ok().label: found.ok() for found in schema.get_all_operations()}[label]
    checks = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in CHECKS]
    assert len(checks) == len(CHECKS)
    statuses = set()

    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    def ask(case):
        response = case.call()
        statuses.add(response.status_code)
        case.validate_response(response, checks=checks)

    try:
        ask()
    except hypothesis.errors.Unsatisfiable:
        pytest.skip("nothing can be wrong here")
    assert statuses
    if mode == "POSITIVE" and label in ("POST /search/text", "GET /health", "GET /metrics"):  # made-up pictures are none, made-up names are not in the index
        assert 200 in statuses
    if mode == "NEGATIVE":
        assert min(statuses) >= 400

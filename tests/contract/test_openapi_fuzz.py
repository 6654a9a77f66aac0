"""What the OpenAPI document promises holds for a thousand requests that were made up from it, and some it forbids."""

from __future__ import annotations

from collections import Counter

import httpx2
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from engine.errors import DoesNotFitError
from server.worker.fake_executor import FakeExecutor

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 100
"""Of each operation that takes anything; the others are asked as often as hypothesis finds ways to ask them."""
LEAST_CASES = 1000
OTHER_APIS = {"OpenAI", "AUTOMATIC1111", "Hugging Face"}
"""Tags of operations that are translations: fewer examples, since what they translate into has its own."""
BEYOND_CHANCE = {
    *("POST /v1/upscale", "POST /v1/image-info", "POST /v1/images/edits", "POST /v1/images/variations"),
    *("POST /sdapi/v1/img2img", "POST /sdapi/v1/png-info"),
    *("POST /sdapi/v1/extra-single-image", "POST /sdapi/v1/extra-batch-images"),
    *("POST /", "POST /models/{model_id}", "POST /hf-inference/models/{model_id}", "GET /models/{model_id}/health"),
    *("GET /v1/images/files/{job_id}/{index}/{expires}/{signature}/{name}", "GET /v1/models/{model_id}"),
}
"""What nobody makes up: a picture, a signature, a model's name."""


@pytest.fixture
def running(serve):
    return serve(FakeExecutor(max_images_in_flight=8))


def test_the_document_holds_for_whatever_is_asked(running):
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    known = ids_of_jobs_that_have_ended(running)
    with requests.Session() as session:
        answered = {operation.label: statuses_of_answers(operation, known, session) for operation in operations}
    assert sum(statuses.total() for statuses in answered.values()) >= LEAST_CASES
    # What only an operator may do is refused here; of all else, some was right.
    never_done = {label for label, statuses in answered.items() if min(statuses) >= 300}
    assert never_done - BEYOND_CHANCE == {"POST /v1/jobs/{job_id}/requeue"}


def statuses_of_answers(operation, job_ids: list[str], session: requests.Session) -> Counter[int]:
    """Ask and check. Made-up ids name no job; so that the other half of the answers is seen, some get a real one, and
    some of those ask for the first picture.
    """
    statuses: Counter[int] = Counter()

    @hypothesis.seed(5)
    @hypothesis.settings(
        max_examples=EXAMPLES if operation.definition.raw["tags"][0] not in OTHER_APIS else EXAMPLES // 5,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # a failure is told as it was found
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=wishes(operation), job_id=st.sampled_from([None, *job_ids]), is_first=st.booleans())
    def ask(case, job_id, is_first):
        if job_id is not None and "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = job_id
            if is_first and "index" in case.path_parameters:
                case.path_parameters["index"] = 0
        statuses[case.call_and_validate(session=session, checks=CHECKS, timeout=10).status_code] += 1

    ask()
    return statuses


def wishes(operation):
    """Requests that the document allows, and requests that it does not."""
    allowed = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    takes_anything = bool(operation.body) or any((operation.path_parameters, operation.query, operation.headers))
    return allowed | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE) if takes_anything else allowed


def ids_of_jobs_that_have_ended(running) -> list[str]:
    """One that is done and one that has failed: their event streams end."""
    wish = {"prompt": "a cat", "num_images": 2, "num_inference_steps": 1}
    ids = []
    for error in (None, DoesNotFitError("too large for the device")):
        running.call(running.executor.fail_next, error)
        ids.append(httpx2.post(f"{running.url}/v1/jobs", json=wish).json()["id"])
        httpx2.get(f"{running.url}/v1/jobs/{ids[-1]}/events")  # ends when the job does
    return ids

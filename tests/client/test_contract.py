"""The client against the real server app: every error has its place, and nothing that it relies on changes unseen."""

from __future__ import annotations

import copy
import inspect
import json
import re

import httpx2
import pytest
import semantic_bit_client.errors
from semantic_bit_client import (
    AsyncClient,
    Client,
    InvalidRequest,
    JobCancelled,
    JobDead,
    JobFailed,
    JobNotDone,
    JobNotFound,
    KeyReused,
    NoConnection,
    NotAuthorised,
    NotSupported,
    Progress,
    RateLimited,
    ResultExpired,
    Retries,
    SemanticBitError,
    ServerBusy,
    ServerFault,
    ServerUnavailable,
    TookTooLong,
)
from semantic_bit_client.calls import Reply, error_of
from semantic_bit_client.errors import ERROR_OF_CODE
from starlette.exceptions import HTTPException

import engine.errors
import server.errors
from engine.errors import DoesNotFitError, InvalidParamsError
from server.config import Settings
from server.errors import PROBLEMS, JobFailedError, RateLimitedError
from server.main import create_app
from server.problems import _HTTP_CODES
from server.worker.fake_executor import FakeExecutor
from tests.client import contract

ONCE = Retries(attempts=1)
SMALL = {"num_inference_steps": 1, "height": 64, "width": 64}

SERVER_ERRORS = [
    member
    for module in (engine.errors, server.errors)
    for _, member in inspect.getmembers(module, inspect.isclass)
    if issubclass(member, Exception)
]
CLIENT_ERRORS = [
    member
    for _, member in inspect.getmembers(semantic_bit_client.errors, inspect.isclass)
    if issubclass(member, SemanticBitError)
]


# --- the table --------------------------------------------------------------------------------------------------------


def test_no_error_of_the_server_is_without_its_place():
    assert contract.codes().keys() <= ERROR_OF_CODE.keys()


def test_the_table_has_no_code_that_the_server_does_not():
    assert ERROR_OF_CODE.keys() - contract.codes().keys() == {"http_error"}  # any status without a code of its own


def test_every_error_is_drawn_in_the_tree_below_its_parent():
    tree = semantic_bit_client.errors.__doc__
    depths: dict[str, tuple[int, str]] = {}
    path: list[str] = []
    for line in tree.splitlines():
        found = re.match(r"^(?P<lead>[ │├└─]+)(?P<name>[A-Z]\w+) {2,}\w", line)
        if found:
            depth = len(found["lead"]) // 4 - 1
            path[depth:] = [found["name"]]
            depths[found["name"]] = (depth, path[depth - 1] if depth else "Exception")
    for error_type in CLIENT_ERRORS:
        assert depths[error_type.__name__][1] == error_type.__base__.__name__


class HandedIn:
    """The real app; whatever `submit` is asked for, it raises."""

    def __init__(self, folder) -> None:
        self.app = create_app(Settings(_env_file=None, model_id="fake", data_dir=folder), executor=FakeExecutor())

    async def answer_to(self, error: Exception) -> SemanticBitError:
        async def submit(new, pictures):
            raise error

        self.app.state.service.generator.submit = submit
        transport = httpx2.ASGITransport(app=self.app)
        async with AsyncClient("http://127.0.0.1", retries=ONCE, transport=transport) as client:
            with pytest.raises(SemanticBitError) as raised:
                await client.submit("a cat")
        return raised.value


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory):
    return HandedIn(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("error_type", SERVER_ERRORS, ids=lambda error_type: error_type.__name__)
async def test_every_error_of_the_server_arrives_as_what_the_table_says(handed_in, error_type):
    special = {
        InvalidParamsError: lambda: InvalidParamsError("width", "must be even", 3),
        JobFailedError: lambda: JobFailedError("a reason", "job_failed"),
        RateLimitedError: lambda: RateLimitedError(
            "a reason", limit="jobs", headers={"RateLimit-Policy": '"jobs";q=1;w=1', "RateLimit": '"jobs";r=0;t=1'}
        ),
    }
    error = await handed_in.answer_to(special.get(error_type, lambda: error_type("a reason"))())
    kind = PROBLEMS[error_type]
    assert type(error) is ERROR_OF_CODE[kind.code]
    assert (error.code, error.status) == (kind.code, kind.status)
    assert error.detail in {"a reason", "width must be even, not 3"}
    assert re.fullmatch("[0-9a-f]{32}", error.request_id)


@pytest.mark.parametrize("kind", _HTTP_CODES.values(), ids=lambda kind: kind.code)
async def test_what_the_framework_refuses_arrives_as_what_the_table_says(handed_in, kind):
    error = await handed_in.answer_to(HTTPException(kind.status))
    assert (type(error), error.code) == (ERROR_OF_CODE[kind.code], kind.code)


async def test_a_mistake_of_the_server_is_its_fault_and_says_where_to_look(handed_in):
    error = await handed_in.answer_to(RuntimeError("oops"))
    assert type(error) is ServerFault
    assert "request_id" in error.detail
    assert error.request_id


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (301, semantic_bit_client.BadAnswer), (400, InvalidRequest), (401, NotAuthorised), (403, NotAuthorised),
        (404, NotSupported), (408, NoConnection), (410, ResultExpired), (429, RateLimited), (431, InvalidRequest),
        (500, ServerFault), (501, NotSupported),
        (502, ServerUnavailable), (503, ServerUnavailable), (504, ServerUnavailable),
    ],
)  # fmt: skip
def test_an_answer_without_a_problem_document_goes_by_its_status(status, error_type):
    assert type(error_of(Reply(status, {"content-type": "text/html"}, b"<h1>no</h1>"))) is error_type


def test_a_limit_that_this_client_has_never_heard_of_is_a_limit_by_its_status():
    problem = {"code": "quota_of_the_moon", "detail": "enough", "retry_after": 7, "errors": "none"}
    content_type = {"content-type": "application/problem+json; charset=utf-8", "retry-after": "9"}
    error = error_of(Reply(429, content_type, json.dumps(problem).encode()))
    assert (type(error), error.code, error.retry_after_s) == (RateLimited, "quota_of_the_moon", 9.0)


def test_what_a_server_says_cannot_steer_the_readers_terminal():
    evil = "\x1b]0;owned\x07\r\n\u202e" + "a" * 10_000
    told = {"code": evil, "detail": evil, "request_id": evil, "errors": [{"field": evil, "rule": evil, "value": None}]}
    error = error_of(Reply(422, {"content-type": "application/problem+json"}, json.dumps(told).encode()))
    [wrong] = error.wrong_values
    for text in (str(error), error.detail, error.code, error.request_id, wrong.field, wrong.rule):
        assert text.isprintable()
        assert 0 < len(text.encode()) <= 600


# --- errors as they arise ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url, retries=ONCE) as client:
        yield client


def test_a_wrong_value_is_named_with_field_and_rule(client):
    with pytest.raises(InvalidRequest, match="width must be") as raised:
        client.generate("a cat", width=63)
    [wrong] = raised.value.wrong_values
    assert (wrong.field, wrong.value) == ("width", 63)
    assert wrong.rule.startswith("must be")


def test_a_picture_that_does_not_fit_is_a_failed_job(server, client):
    server.call(server.executor.fail_next, DoesNotFitError("needs 40 GiB"))
    with pytest.raises(JobFailed, match="needs 40 GiB") as raised:
        client.generate("a cat")
    assert raised.value.code == "does_not_fit"
    assert client.job(raised.value.job_id).state.status == "failed"


def test_a_key_for_another_request_is_refused(client):
    client.submit("a cat", idempotency_key="one", **SMALL)
    with pytest.raises(KeyReused):
        client.submit("a dog", idempotency_key="one", **SMALL)


def test_a_job_that_nobody_knows_is_not_found(client):
    with pytest.raises(JobNotFound) as raised:
        client.job("0" * 16)
    assert raised.value.job_id == "0" * 16


def test_a_route_that_the_server_does_not_have_is_named(server):
    with (
        Client(f"{server.url}/somewhere/else", retries=ONCE) as client,
        pytest.raises(NotSupported, match="does not offer GET /v1/queue"),
    ):
        client.queue()


def test_whoever_comes_from_elsewhere_is_not_authorised(server):
    class Forwarding(httpx2.HTTPTransport):
        def handle_request(self, request):
            request.headers["X-Forwarded-For"] = "203.0.113.9"
            return super().handle_request(request)

    with Client(server.url, transport=Forwarding()) as client, pytest.raises(NotAuthorised):
        client.generate("a cat")


def test_a_full_house_says_when_to_come_back(serve):
    running = serve(FakeExecutor(step_s=0.2), max_queued_requests=1)
    with Client(running.url, retries=ONCE) as client:
        with pytest.raises(ServerBusy) as raised:
            for _ in range(10):
                client.submit("a cat")
        assert raised.value.retry_after_s >= 1


def test_a_model_that_cannot_be_served_is_not_asked_for_again(serve):
    running = serve(FakeExecutor(load_failure="no weights"))
    with Client(running.url, retries=Retries(first_s=30, most_s=30)) as client:
        with pytest.raises(ServerUnavailable, match="no weights"):
            client.generate("a cat")
        health = client.health()  # an answer, though its status is 503
    assert (health.status, health.model_loaded) == ("failed", False)
    assert "no weights" in health.reason


def test_a_job_without_pictures_says_why(serve):
    running = serve(FakeExecutor(step_s=0.05))
    with Client(running.url) as client:
        job = client.submit("a cat")
        with pytest.raises(JobNotDone):
            job.images()
        with pytest.raises(TookTooLong) as raised:
            job.wait(timeout_s=0.1)
        assert raised.value.job_id == job.id
        assert job.cancel().status == "cancelled"
        with pytest.raises(JobCancelled):
            job.wait()
        assert job.cancel().status == "cancelled"


def test_a_job_that_was_given_up_is_dead(client):
    job = client.submit("a cat", **SMALL)
    document = json.loads(httpx2.get(f"{client._wire.settings.base_url}/v1/jobs/{job.id}").content)
    document |= {"status": "dead", "images": [], "error": {"code": "job_dead", "detail": "lost its engine"}}
    state = semantic_bit_client.calls.decoded(semantic_bit_client.JobState, document)
    with pytest.raises(JobDead, match="lost its engine"):
        semantic_bit_client.calls.fail_unless_done(state)


# --- the OpenAPI document ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document():
    return contract.document()


def test_the_servers_document_still_says_what_the_client_relies_on(document):
    before = json.loads(contract.COPY.read_text())
    changes = contract.differences(before, json.loads(json.dumps(contract.relied_on(document))))
    assert not changes, "\n".join(
        ["the server's API changed; make the client fit, then: python -m tests.client.contract", *changes]
    )


def test_everything_that_the_client_relies_on_is_there(document):
    assert contract.MISSING not in json.dumps(contract.relied_on(document))


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("paths", lambda paths: paths.pop("/v1/jobs/{job_id}/cancel")),
        ("paths", lambda paths: paths["/v1/queue"]["get"]["parameters"].pop(0)),
        ("paths", lambda paths: paths["/v1/jobs/{job_id}/images/{index}"]["get"]["responses"].pop("200")),
        ("components", lambda parts: parts["schemas"]["JobView"]["properties"].pop("eta_s")),
        ("components", lambda parts: parts["schemas"]["JobView"]["properties"]["step"].update(type="string")),
        ("components", lambda parts: parts["schemas"]["JobTimings"]["properties"].pop("denoise_s")),
        ("components", lambda parts: parts["schemas"]["GenerateRequest"]["required"].append("user")),
        ("components", lambda parts: parts["schemas"]["GenerateRequest"]["properties"].pop("negative_prompt")),
        ("components", lambda parts: parts["schemas"]["Problem"]["properties"].pop("code")),
        ("paths", lambda paths: paths.pop("/v1/usage")),
        ("components", lambda parts: parts["schemas"]["UsageRow"]["properties"].pop("day")),
        ("components", lambda parts: parts["schemas"]["UsageSum"]["properties"]["price"].update(type="number")),
    ],
)
def test_a_change_of_what_it_relies_on_is_seen(document, place, change):
    changed = copy.deepcopy(document)
    change(changed[place])
    assert contract.differences(contract.relied_on(document), contract.relied_on(changed))


def test_every_request_of_the_client_is_in_the_contract(serve):
    asked: set[str] = set()

    class Noting(httpx2.HTTPTransport):
        def handle_request(self, request):
            path = re.sub(r"(?<=/jobs/)[0-9a-f]{16}", "{job_id}", request.url.path)
            asked.add(f"{request.method} {re.sub(r'(?<=/images/)[0-9]+', '{index}', path)}")
            return super().handle_request(request)

    with Client(serve(FakeExecutor(step_s=0.01)).url, transport=Noting()) as client:
        client.generate("a cat", num_inference_steps=2)
        client.job(client.submit("a cat").id).cancel()
        client.health(), client.queue(), client.samplers(), client.models(), client.usage()
    assert asked == contract.OPERATIONS.keys()


def test_a_server_that_keeps_no_account_says_so():
    problem = {"code": "not_found", "detail": "Not Found", "request_id": "0" * 32}
    headers = {"content-type": "application/problem+json"}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(404, json=problem, headers=headers))
    with (
        Client("http://127.0.0.1", transport=transport) as client,
        pytest.raises(NotSupported, match="does not offer GET /v1/usage") as raised,
    ):
        client.usage()
    assert raised.value.request_id == "0" * 32


def test_a_snapshot_has_what_the_client_reads(serve):
    running = serve(FakeExecutor(step_s=0.01))
    with Client(running.url) as client:
        job = client.submit("a cat", num_inference_steps=4)
        events = list(job.events())
    assert all(isinstance(event, Progress) and event.job_id == job.id for event in events)
    assert [event.status for event in events][-2:] == ["running", "done"]
    assert events[-1].step == events[-1].steps == 4
    assert any(event.preview for event in events)

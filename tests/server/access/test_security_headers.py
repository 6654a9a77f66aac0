"""What every answer tells a browser to leave alone, which foreign pages may read answers, and HEAD."""

from __future__ import annotations

import httpx2
import pytest
from pydantic import ValidationError

from server.access.cors import CORS
from server.config import Settings

WISH = {"prompt": "a cat", "num_inference_steps": 1}
FRIEND = "https://dreams.example"
STRANGER = "https://evil.example"

ANSWERS = [
    ("GET", "/livez", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/static/docs.js", 200),
    ("GET", "/v1/jobs", 200),
    ("GET", "/nowhere", 404),
    ("DELETE", "/livez", 405),
    ("POST", "/generate", 415),
    ("HEAD", "/livez", 200),
]


@pytest.fixture(scope="module")
def client(server):
    with httpx2.Client(base_url=server.url, timeout=10) as client:
        yield client


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_no_answer_is_sniffed_framed_referred_to_embedded_elsewhere_or_run(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "server" not in answer.headers or answer.headers["server"] == "uvicorn"  # `serve` leaves it out
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_keep_their_own_policy_and_ask_for_no_camera(client, path):
    page = client.get(path, headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "'self'" in page.headers["content-security-policy"]
    assert "camera=()" in page.headers["permissions-policy"]
    assert page.headers["cross-origin-opener-policy"] == "same-origin"


def test_what_belongs_to_somebody_is_kept_by_nobody_between(client):
    job = client.post("/v1/jobs", json=WISH)
    client.get(f"/v1/jobs/{job.json()['id']}/events")  # ends when the job does
    for answer in (
        job,
        client.post("/generate", json=WISH),
        client.get("/v1/jobs"),
        client.get(f"/v1/jobs/{job.json()['id']}"),
        client.get("/v1/jobs/0000000000000000"),
    ):
        assert answer.headers["cache-control"] == "no-store"
    picture = client.get(f"/v1/jobs/{job.json()['id']}/images/0")
    assert picture.headers["cache-control"] == "private, max-age=31536000, immutable"


def test_browsers_are_told_to_insist_on_https_only_if_asked_for_and_only_over_https(serve):
    server = serve(hsts_seconds=3600, trusted_proxies="127.0.0.1")
    forwarded = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    over_https = httpx2.get(f"{server.url}/livez", headers=forwarded)
    assert over_https.headers["strict-transport-security"] == "max-age=3600"
    assert "strict-transport-security" not in httpx2.get(f"{server.url}/livez").headers


# Foreign pages.


@pytest.fixture(scope="module")
def friendly(module_serve):
    server = module_serve(cors_origins=f"{FRIEND},http://localhost:3000", max_queued_requests=0)
    with httpx2.Client(base_url=server.url, timeout=10) as client:
        yield client


def preflight(client, origin: str, **asked: str) -> httpx2.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    headers |= {f"Access-Control-Request-{name.capitalize()}": value for name, value in asked.items()}
    return client.options("/v1/jobs", headers=headers)


@pytest.mark.parametrize("origin", [FRIEND, "http://localhost:3000"])
def test_a_page_that_is_named_may_ask_with_every_header_that_the_api_knows(friendly, origin):
    answer = preflight(friendly, origin, headers=", ".join(["content-type", *CORS["allow_headers"]]))
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_it_may_read_answers_errors_among_them_and_their_headers(friendly):
    for path, status in (("/v1/jobs", 200), ("/nowhere", 404), ("/v1/jobs/x", 422)):
        answer = friendly.get(path, headers={"Origin": FRIEND})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert "Origin" in answer.headers["vary"]
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"X-Request-Id", "RateLimit", "Retry-After", "Location", "ETag"} <= set(exposed)


def test_it_may_read_why_it_is_refused_before_anybody_asks_for_its_key(serve):
    server = serve(cors_origins=FRIEND, trusted_proxies="127.0.0.1")
    forwarded = {"Origin": FRIEND, "X-Forwarded-For": "203.0.113.7"}
    refused = httpx2.get(f"{server.url}/v1/jobs", headers=forwarded)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == FRIEND
    asked = httpx2.options(f"{server.url}/v1/jobs", headers={**forwarded, "Access-Control-Request-Method": "GET"})
    assert asked.status_code == 200


@pytest.mark.parametrize(
    "origin",
    [STRANGER, "null", f"{FRIEND}.evil.example", FRIEND.replace("https", "http"), f"{FRIEND}:444", "*", FRIEND.upper()],
)
def test_any_other_page_may_not(friendly, origin):
    assert "access-control-allow-origin" not in preflight(friendly, origin).headers
    assert preflight(friendly, origin).status_code == 403
    assert "access-control-allow-origin" not in friendly.get("/v1/jobs", headers={"Origin": origin}).headers


def test_by_default_no_page_but_our_own_may(client):
    assert preflight(client, FRIEND).status_code == 405
    answer = client.get("/v1/jobs", headers={"Origin": FRIEND})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origin",
    [
        "*", "null", "dreams.example", "https://dreams.example/", "https://dreams.example/page", "HTTPS://dreams.example",
        "https://Dreams.example", "https://dreams.example:443", "http://dreams.example:80", "https://*.example",
        "ftp://dreams.example", "https://user@dreams.example", "https://", "https://dreams.example:99999999",
    ],
)  # fmt: skip
def test_what_no_browser_would_ever_send_as_an_origin_is_refused_and_so_is_everybody(origin):
    with pytest.raises(ValidationError, match="must be origins as browsers send them"):
        Settings(_env_file=None, cors_origins=f"{FRIEND},{origin}")


@pytest.mark.parametrize("origin", [FRIEND, "http://localhost:3000", "http://127.0.0.1:8080", "https://[::1]:8443"])
def test_origins_are_taken_as_browsers_send_them(origin):
    assert Settings(_env_file=None, cors_origins=origin).cors_origins == (origin,)


# HEAD.


def test_head_is_get_without_the_body(client):
    job = client.post("/v1/jobs", json=WISH).json()["id"]
    client.get(f"/v1/jobs/{job}/events")  # ends when the job does
    picture = f"/v1/jobs/{job}/images/0"
    for path in ("/", "/docs", "/openapi.json", "/livez", "/readyz", "/health", "/static/docs.js", picture):
        head, whole = client.head(path), client.get(path)
        assert head.status_code == whole.status_code == 200, path
        assert head.content == b""
        if path != "/health":  # whose numbers change
            assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize("path", ["/generate", "/v1/jobs/0000000000000000/events", "/v1/jobs/0000000000000000"])
def test_head_of_anything_else_is_refused(client, path):
    assert client.head(path).status_code == 405

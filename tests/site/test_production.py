"""A public site, running: HTTPS, hosts, headers, health, forms and its log."""

from __future__ import annotations

import io
import ipaddress
import json
import logging
import re
import subprocess
import sys

import pytest
from django.db import OperationalError, connection
from django.http import HttpResponse

from newdreamflow.config.logs import LineFormatter
from newdreamflow.config.proxy import TrustedProxies
from tests.site.production_site import PUBLIC, REPOSITORY, environment, manage

# --- a public site, running -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def public_site(tmp_path_factory):
    """Answers requests as the public site would: one process, one JSON line each way."""
    folder = tmp_path_factory.mktemp("public")
    settings = {**PUBLIC, "DATABASE_URL": "", "SITE_TRUSTED_PROXIES": "127.0.0.1"}
    for command in (["migrate", "--no-input"], ["collectstatic", "--no-input"]):
        told = manage(folder, *command, **settings)
        assert told.returncode == 0, told.stderr
    process = subprocess.Popen(
        [sys.executable, "-c", _ASK],
        cwd=REPOSITORY,
        env=environment(folder, **settings, DJANGO_SETTINGS_MODULE="newdreamflow.config.settings"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def get(path, **headers):
        process.stdin.write(json.dumps([path, headers]) + "\n")
        process.stdin.flush()
        status, got, body = json.loads(process.stdout.readline())
        return status, {name.lower(): value for name, value in got.items()}, body

    with process:  # closes its pipes, at which it ends
        yield get


_ASK = """
import json, sys, django
django.setup()
from django.test import Client
client = Client()
for line in sys.stdin:
    path, meta = json.loads(line)
    answer = client.get(path, **{"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "dreams.example.org", **meta})
    body = answer.getvalue() if answer.streaming else answer.content
    print(json.dumps([answer.status_code, dict(answer.headers), body.decode("latin-1")]), flush=True)
"""

BY_HTTPS = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_FOR": "198.51.100.7"}


def test_plain_http_is_led_to_https(public_site):
    status, headers, _ = public_site("/accounts/sign-in/")
    assert (status, headers["location"]) == (301, "https://dreams.example.org/accounts/sign-in/")


def test_a_stranger_cannot_claim_to_have_come_by_https(public_site):
    status, _, _ = public_site("/accounts/sign-in/", **BY_HTTPS, REMOTE_ADDR="203.0.113.5")
    assert status == 301


def test_another_host_is_refused(public_site):
    for host in ("evil.example", "127.0.0.1:8001", "www.dreams.example.org", "", "a b", "\u00e9"):
        for path in ("/", "/accounts/sign-in/", "/static/newdreamflow/site.css"):
            status, headers, body = public_site(path, **BY_HTTPS, HTTP_HOST=host)
            assert status == 400
            assert headers["content-type"] == "text/plain; charset=utf-8"
            assert "This site answers at https://dreams.example.org only" in body
            assert "proxy_set_header Host" in body


def test_every_page_carries_the_headers_that_protect_it(public_site):
    status, headers, _ = public_site("/accounts/sign-in/", **BY_HTTPS)
    assert status == 200
    assert headers["strict-transport-security"] == "max-age=300"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    for rule in ("default-src 'self'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert rule in policy
    assert "unsafe" not in policy


def test_style_sheets_have_names_that_change_with_them_and_are_kept_for_ever(public_site):
    _, _, page = public_site("/accounts/sign-in/", **BY_HTTPS)
    [path] = re.findall(r'href="(/static/accounts/accounts\.[0-9a-f]{12}\.css)"', page)
    status, headers, body = public_site(path, **BY_HTTPS)
    assert status == 200
    assert "immutable" in headers["cache-control"]
    assert ".account" in body
    status, headers, _ = public_site(path, **BY_HTTPS, HTTP_ACCEPT_ENCODING="gzip")
    assert headers["content-encoding"] == "gzip"
    assert public_site(path, **BY_HTTPS, HTTP_IF_NONE_MATCH=headers["etag"])[0] == 304


def test_the_health_of_the_site_is_asked_for_without_host_and_https(public_site):
    status, headers, body = public_site("/healthz", HTTP_HOST="10.0.0.3:8001")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert headers["cache-control"] == "no-store"


def test_the_admin_is_there_under_the_same_policy(public_site):
    status, headers, _ = public_site("/admin/", **BY_HTTPS)
    assert status == 302
    assert "unsafe" not in headers["content-security-policy"]


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_health_says_that_the_database_is_away_and_nothing_else(client, monkeypatch):
    def cursor():
        raise OperationalError("password authentication failed for user somebody")

    monkeypatch.setattr(connection, "cursor", cursor)
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (503, {"status": "database"})


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "caller"),
    [
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.7", "198.51.100.7"),  # what stands before it, the caller may have written
        ("10.0.0.1", "198.51.100.7, 10.0.0.2", "198.51.100.7"),  # a second proxy of ours
        ("10.0.0.1", "10.0.0.9, 10.0.0.2", "10.0.0.2"),  # the first one, a caller in our own network may have written
        ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6, <script>", "10.0.0.1"),
        ("203.0.113.5", "198.51.100.7", "203.0.113.5"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("", "198.51.100.7", ""),
    ],
)
def test_the_caller_is_whom_a_trusted_proxy_names(rf, settings, peer, forwarded_for, caller):
    settings.SITE_TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/24")]
    request = rf.get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded_for)
    TrustedProxies(lambda _: HttpResponse())(request)
    assert request.META["REMOTE_ADDR"] == caller


def test_nobody_elses_forwarding_headers_reach_the_site(rf, settings):
    settings.SITE_TRUSTED_PROXIES = []
    headers = {
        "HTTP_X_FORWARDED_FOR": "1.2.3.4",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_HOST": "evil.example",
    }
    request = rf.get("/", **headers)
    TrustedProxies(lambda _: HttpResponse())(request)
    assert not request.is_secure()
    assert not [name for name in request.META if "FORWARDED" in name]


@pytest.mark.django_db
def test_no_form_but_the_one_for_dreams_takes_a_file(client, user):
    client.force_login(user)
    response = client.post("/accounts/password/", {"old_password": io.BytesIO(b"x" * 100)})
    assert response.status_code == 400


@pytest.mark.django_db
def test_a_form_of_a_megabyte_is_refused(client):
    response = client.post("/accounts/sign-in/", {"username": "x" * 1_000_000})
    assert response.status_code == 400


@pytest.mark.django_db
@pytest.mark.parametrize("type_of_body", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_form_that_cannot_be_taken_is_a_page_in_words_and_one_line_of_the_log(client, caplog, type_of_body):
    caplog.handler.setFormatter(LineFormatter("{levelname} {name}: {message}", style="{"))
    response = client.post("/accounts/sign-in/", b"--x\r\n" + b"x" * 70_000, content_type=type_of_body)
    assert response.status_code == 400
    assert "Invalid request" in response.content.decode()
    assert caplog.text.count("\n") == 1, caplog.text


def test_a_mistake_of_ours_is_logged_with_its_trace():
    error = ZeroDivisionError()
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "/", None, (type(error), error, None))
    record.status_code = 500
    assert "ZeroDivisionError" in LineFormatter("{message}", style="{").format(record)


def test_the_log_never_quotes_a_row():
    error = (
        'new row violates check constraint "x"\nDETAIL:  Failing row contains (7, a secret\nwish: Error, 28).'
        "\n\nThe above exception was the direct cause of the following exception:"
    )
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "dream %s: %s", ("7", error), None)
    line = LineFormatter("{message}", style="{").format(record)
    assert "secret" not in line
    assert "wish" not in line
    assert "check constraint" in line
    assert "The above exception" in line

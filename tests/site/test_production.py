"""The settings of a public site, and what stands between it and the world."""

from __future__ import annotations

import io
import ipaddress
import json
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.urls import reverse

from newdreamflow.config.logs import LineFormatter
from newdreamflow.config.proxy import TrustedProxies
from newdreamflow.config.site_settings import SiteSettings, load_settings, unknown_names
from newdreamflow.dreams.models import SIZES
from server.settings_file import load_settings as server_settings
from tests.deploy.unit_file import values_of

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
MANAGE = REPOSITORY / "newdreamflow" / "manage.py"

PUBLIC = {
    "SITE_URL": "https://dreams.example.org",
    "SITE_SECRET_KEY": "k3J-9vQx0LrT5wZbYc7NfHs2PdGm8EaU4iXo1RtSqWyVuKhBnMjLpCgD",
    "DATABASE_URL": "postgres://somebody@127.0.0.1:9/nowhere",
}


def environment(folder, **settings):
    """Of a process that knows these settings alone."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"DATA_DIR": str(folder), "PYTHONPATH": "client", "PYTHONWARNINGS": "error"} | settings


def manage(folder, *arguments, **settings):
    return subprocess.run(
        [sys.executable, str(MANAGE), *arguments],
        cwd=REPOSITORY,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def site_settings(tmp_path, monkeypatch):
    """What Django's settings are with these in the environment."""

    def read(**environ):
        for name in os.environ:
            if name.startswith(("SITE_", "EMAIL_", "GPU_SERVER_")) or name in {"DATABASE_URL", "REDIS_URL"}:
                monkeypatch.delenv(name)
        for name, value in {"DATA_DIR": str(tmp_path), **environ}.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(REPOSITORY / "newdreamflow" / "config" / "settings.py"))

    return read


# --- settings ---------------------------------------------------------------------------------------------------------


def test_djangos_own_check_for_production_has_nothing_to_say(tmp_path):
    told = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **PUBLIC)
    assert told.returncode == 0, told.stderr
    assert "no issues" in told.stdout


def test_a_site_on_ones_own_machine_needs_no_settings_at_all(tmp_path):
    told = manage(tmp_path, "check", "--fail-level", "WARNING")
    assert told.returncode == 0, told.stderr
    secret = tmp_path / "site" / "secret_key"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_text()) > 60


@pytest.mark.django_db
def test_migrations_say_what_the_models_say():
    call_command("makemigrations", "--check", "--dry-run")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({**PUBLIC, "SITE_DEBUG": "true"}, "SITE_DEBUG must be false"),
        ({"SITE_URL": "dreams.example.org"}, "SITE_URL must be a URL"),
        ({"SITE_TRUSTED_PROXIES": "proxy.example"}, "SITE_TRUSTED_PROXIES must be addresses or networks"),
        ({"SITE_URL": "http://[bad"}, "SITE_URL must be a URL such as http://127.0.0.1:8001, not 'http://[bad'"),
        ({"SITE_URL": "http://a # b"}, "SITE_URL must be a URL"),
        ({"GPU_SERVER_URL": "http://127.0.0.1:99999"}, "GPU_SERVER_URL must be a URL such as http://127.0.0.1:8000"),
        ({"DATABASE_URL": "mysql://x/y"}, "DATABASE_URL must be like postgres://"),
        ({"DATABASE_URL": "garbage"}, "DATABASE_URL must be like postgres://"),
        ({"DATABASE_URL": "postgres://x:99999/y"}, "DATABASE_URL must be like postgres://"),
        ({"SITE_RUNNER": "cron"}, "SITE_RUNNER must be database or celery"),
        ({"SITE_PORT": "many"}, "SITE_PORT must be a whole number from 1"),
        ({"SITE_PORT": "70000"}, "SITE_PORT must be a whole number from 1 to 65535, not '70000'"),
        ({"PORT": "70000"}, "PORT must be a whole number from 1 to 65535, not '70000'"),
        ({"EMAIL_PORT": "99999"}, "EMAIL_PORT must be a whole number from 1 to 65535, not '99999'"),
        ({"SITE_DEFAULT_SIZE": "99999"}, "SITE_DEFAULT_SIZE must be a whole number from 256 to 768, not '99999'"),
        ({"SITE_MODELS": "x" * 201}, "SITE_MODELS must be names of at most 200 characters, not 201"),
        ({"SITE_TIME_ZONE": "Mars/Base"}, "SITE_TIME_ZONE must be a time zone such as UTC or Europe/Berlin, not 'Mars"),
        ({"SITE_TIME_ZONE": "Europe"}, "SITE_TIME_ZONE must be a time zone"),
        ({"SITE_TIME_ZONE": "/etc/passwd"}, "SITE_TIME_ZONE must be a time zone"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL must be debug, info, warning or error, not 'loud'"),
        ({"SITE_SECRET_KEY": "short"}, "SITE_SECRET_KEY must have 50 characters or more, not 5"),
        ({"SITE_PRICE_PER_WORK_UNIT": "-1"}, "SITE_PRICE_PER_WORK_UNIT must be a number from 0"),
        ({"SITE_PRICE_PER_WORK_UNIT": "nan"}, "SITE_PRICE_PER_WORK_UNIT must be a number from 0"),
        ({"SITE_STARTING_BUDGET": "1e30"}, "SITE_STARTING_BUDGET must be a number from 0 to 1000000, such as 0.25"),
        ({"DATA_DIR": "/dev/null"}, "DATA_DIR must be a folder that the site may write to, not '/dev/null'"),
        ({"SITE_DEBUG": "perhaps"}, "SITE_DEBUG must be true or false"),
        ({"SITE_URL": "https://dreams.example.org/below"}, "SITE_URL must end after host and port"),
        ({"SITE_URL": "https://träume.example"}, "SITE_URL must be ASCII, a host name beyond it as xn--..., not"),
        ({"SITE_HSTS_SECONDS": "-1"}, "SITE_HSTS_SECONDS must be a whole number from 0 to 1000000000, not '-1'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_rule(site_settings, environ, words):
    with pytest.raises(ImproperlyConfigured, match=re.escape(words)):
        site_settings(**environ)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("# für\nPORT=8120\n".encode("latin-1"), "must be text in UTF-8: "),
        ("PORT=8120\n".encode("utf-16"), "must be text in UTF-8"),
        ("PORT=8120\n".encode("utf-16-le"), "must be text in UTF-8, and looks like UTF-16"),
        ("PORT=8120\n".encode("utf-32"), "must be text in UTF-8"),
    ],
)
def test_a_file_of_settings_in_another_encoding_is_one_line(tmp_path, content, words):
    file = tmp_path / ".env"
    file.write_bytes(content)
    for read in (load_settings, unknown_names):
        with pytest.raises(ImproperlyConfigured, match=words) as told:
            read(file)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", ["PORT=8120", "port=8120", "Port = '8120'", "\ufeffPORT=8120", "export PORT=8120"])
def test_site_and_gpu_server_read_a_file_of_settings_alike(tmp_path, monkeypatch, content):
    monkeypatch.delenv("PORT", raising=False)
    file = tmp_path / ".env"
    file.write_text(f"{content}\n", encoding="utf-8")
    assert load_settings(file).port == 8120
    if not content.startswith("\ufeff"):  # which the server does not read yet
        assert server_settings(file).port == 8120


def test_a_setting_that_there_is_not_is_warned_of(tmp_path, monkeypatch):
    file = tmp_path / ".env"
    file.write_text("SITE_PORTT=1\nsite_port=8002\nEMAIL_HOTS=x\nPORTT=1\nGPU_SERVER_URL=http://127.0.0.1:1\n")
    monkeypatch.setenv("SITE_NOTHING_LIKE_IT", "x")
    assert unknown_names(file) == [
        "EMAIL_HOTS is not a setting of the site and has no effect; did you mean EMAIL_HOST?",
        "SITE_NOTHING_LIKE_IT is not a setting of the site and has no effect",
        "SITE_PORTT is not a setting of the site and has no effect; did you mean SITE_PORT?",
    ]


def test_a_command_warns_of_it_too(tmp_path):
    told = manage(tmp_path, "check", SITE_PORTT="1")
    assert (told.returncode, told.stderr.splitlines()[0]) == (
        0,
        "SITE_PORTT is not a setting of the site and has no effect; did you mean SITE_PORT?",
    )


def test_a_database_that_is_none_is_not_quoted_since_it_may_hold_a_password(site_settings):
    with pytest.raises(ImproperlyConfigured) as told:
        site_settings(DATABASE_URL="postgre://ada:hunter2@db/site")
    assert "hunter2" not in str(told.value)


def test_a_folder_that_belongs_to_somebody_else_is_named(site_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write to any
    with pytest.raises(ImproperlyConfigured, match=re.escape(f"not '{tmp_path}': site/ in it may not be written to")):
        site_settings()


def test_a_secret_that_cannot_be_read_is_named(site_settings, tmp_path):
    (tmp_path / "site" / "secret_key").mkdir(parents=True)  # root may read any file
    with pytest.raises(ImproperlyConfigured, match=r"SITE_SECRET_KEY must be set, or .*secret_key be a file"):
        site_settings()


def test_the_default_size_is_one_that_the_form_has(site_settings):
    for size in SIZES[1:]:
        assert site_settings(SITE_DEFAULT_SIZE=str(size))["DREAMS_DEFAULT_SIZE"] == size
    for size in (min(SIZES[1:]) - 1, max(SIZES[1:]) + 1):
        with pytest.raises(ImproperlyConfigured):
            site_settings(SITE_DEFAULT_SIZE=str(size))


def test_the_models_to_choose_from_are_names_between_commas(site_settings):
    assert site_settings()["DREAMS_MODELS"] == ()
    assert site_settings(SITE_MODELS=" dreamlet, xl ,,dreamlet")["DREAMS_MODELS"] == ("dreamlet", "xl")


def test_a_command_says_what_is_wrong_with_a_setting_in_one_line(tmp_path):
    for command in ("check", "dreamworker"):  # one of Django's, one of ours
        told = manage(tmp_path, command, SITE_PORT="70000")
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr == "error: SITE_PORT must be a whole number from 1 to 65535, not '70000'\n"


def test_the_public_site_binds_cookies_to_https_and_to_its_host(site_settings):
    public = site_settings(**PUBLIC)
    assert (public["SESSION_COOKIE_NAME"], public["CSRF_COOKIE_NAME"]) == ("__Host-session", "__Host-csrf")
    assert public["SESSION_COOKIE_SECURE"]
    assert public["CSRF_COOKIE_SECURE"]
    assert public["ALLOWED_HOSTS"] == ["dreams.example.org"]


def test_the_site_on_ones_own_machine_answers_that_machine_alone(site_settings):
    own = site_settings(SITE_URL="")
    assert set(own["ALLOWED_HOSTS"]) == {"127.0.0.1", "localhost", "[::1]"}
    assert not own["SITE_TRUSTED_PROXIES"]


@pytest.mark.parametrize("url", ["", "sqlite:///nowhere.sqlite3"])
def test_sqlite_is_always_opened_so_that_two_writers_wait_for_each_other(site_settings, url):
    options = site_settings(DATABASE_URL=url)["DATABASES"]["default"]["OPTIONS"]
    assert options["transaction_mode"] == "IMMEDIATE"


@pytest.mark.parametrize(("port", "tls", "ssl"), [("587", True, False), ("465", False, True)])
def test_mail_is_sent_encrypted_and_asks_for_the_address_first(site_settings, port, tls, ssl):
    found = site_settings(EMAIL_HOST="mail.example.org", EMAIL_PORT=port)
    assert (found["EMAIL_USE_TLS"], found["EMAIL_USE_SSL"]) == (tls, ssl)
    assert found["ACCOUNTS_CONFIRM_ADDRESS"]


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


# --- what systemd, Caddy and Docker are told --------------------------------------------------------------------------

KINDS_OF_UNIT = {".service", ".socket", ".timer", ".path", ".target", ".mount", ".slice"}
UNITS = sorted(path for path in DEPLOY.rglob("*") if path.suffix in KINDS_OF_UNIT)

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def told_by_systemd(folder, unit, *arguments):
    """Status and words of `systemd-analyze` about a unit, with all of ours as installed, but for the program."""
    for path in UNITS:
        text = path.read_text().replace("/opt/semantic-bit/.venv/bin/python", sys.executable)
        (folder / path.name).write_text(text)
    told = subprocess.run(
        ["systemd-analyze", *arguments, str(folder / unit.name)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return told.returncode, told.stdout + told.stderr


@needs_systemd_analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_has_nothing_to_say_against_a_unit(tmp_path, unit):
    assert told_by_systemd(tmp_path, unit, "verify", "--man=no") == (0, "")


@needs_systemd_analyze
@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if unit.name.startswith("newdreamflow") and unit.suffix == ".service"],
    ids=lambda path: path.name,
)  # fmt: skip
def test_systemd_finds_a_service_of_the_site_strict(tmp_path, unit):
    status, words = told_by_systemd(tmp_path, unit, "security", "--offline=true", "--threshold=12", "--no-pager")
    assert status == 0, words


def test_every_timer_starts_a_service_that_is_there():
    # Systemd itself does not look before it is time.
    names = {unit.name for unit in UNITS}
    timers = [unit for unit in UNITS if unit.suffix == ".timer"]
    assert [timer.name for timer in timers] == ["newdreamflow-tidy.timer"]
    for timer in timers:
        assert {*(values_of(timer, "Unit") or [timer.with_suffix(".service").name])} <= names


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")
def test_caddy_understands_its_file(tmp_path):
    told = subprocess.run(
        ["caddy", "validate", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile.site")],
        env={**os.environ, "NEWDREAMFLOW_HOST": "dreams.example.org", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr


def settings_that_are_read():
    """Their names in the environment."""
    return {name.upper() for name in SiteSettings.model_fields}


def test_every_setting_is_documented_and_nothing_else_is():
    page = (REPOSITORY / "docs" / "site.md").read_text()
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page, flags=re.MULTILINE)) == settings_that_are_read()


@pytest.mark.parametrize("name", ["site.env", "compose.site.env.example"])
def test_examples_name_settings_that_are_read(name):
    text = (DEPLOY / "env" / name).read_text()
    assert set(re.findall(r"^(?:# )?([A-Z_]+)=", text, flags=re.MULTILINE)) <= settings_that_are_read()


@pytest.mark.django_db
def test_the_policy_lets_no_page_of_ours_run_what_is_written_into_it(client, staff_user):
    client.force_login(staff_user)
    for page in ("accounts:account", "accounts:password-change", "staff:overview"):
        body = client.get(reverse(page)).content.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style| style=| on[a-z]+=", body)

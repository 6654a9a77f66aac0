"""The settings of the site: rules, warnings, and what follows from them."""

from __future__ import annotations

import os
import re
import runpy

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command

from newdreamflow.config.site_settings import load_settings, unknown_names
from newdreamflow.dreams.models import SIZES
from server.settings_file import load_settings as server_settings
from tests.site.production_site import PUBLIC, REPOSITORY, manage


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

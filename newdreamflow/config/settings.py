"""The site's settings, from the environment and `.env` (docs/site.md lists every name).

Without any, it runs on this machine alone: SQLite, the GPU server on loopback, mail into files. `SITE_URL=https://...`
is production: secure cookies, HSTS, redirects to HTTPS.
"""

from __future__ import annotations

import logging
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from csp.constants import NONCE, NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from newdreamflow.config.data_folder import kept_folder, kept_secret
from newdreamflow.config.site_settings import load_settings, unknown_names

REPOSITORY = Path(__file__).resolve().parents[2]
SITE = REPOSITORY / "newdreamflow"

_env = load_settings(REPOSITORY / ".env")
for _line in unknown_names(REPOSITORY / ".env"):
    logging.getLogger("newdreamflow").warning(_line)

# --- where it is ------------------------------------------------------------------------------------------------------

DATA = kept_folder(REPOSITORY / _env.data_dir / "site")
SITE_PORT = _env.site_port
SITE_URL = _env.site_url or f"http://127.0.0.1:{SITE_PORT}"
_url = urlsplit(SITE_URL)
IS_PUBLIC = _url.scheme == "https"

DEBUG = _env.site_debug
if DEBUG and IS_PUBLIC:
    raise ImproperlyConfigured("SITE_DEBUG must be false where SITE_URL is https: its pages show code and settings")
SECRET_KEY = _env.site_secret_key or kept_secret(DATA / "secret_key")

_LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]
ALLOWED_HOSTS = [_url.hostname] if IS_PUBLIC else [*_LOOPBACK, _url.hostname]
CSRF_TRUSTED_ORIGINS = [SITE_URL]

ROOT_URLCONF = "newdreamflow.config.urls"
ASGI_APPLICATION = "newdreamflow.config.asgi.application"

# --- what it is made of -----------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "newdreamflow.accounts",
    "newdreamflow.dreams",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "axes",
    "csp",
]

MIDDLEWARE = [
    "newdreamflow.config.health.Health",
    "newdreamflow.config.proxy.TrustedProxies",
    "newdreamflow.config.hosts.KnownHosts",
    "django.middleware.security.SecurityMiddleware",
    "newdreamflow.config.static_files.StaticFiles",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "axes.middleware.AxesMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [SITE / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# --- what it keeps ----------------------------------------------------------------------------------------------------


def _database() -> dict[str, Any]:
    try:
        database: dict[str, Any] = dict(dj_database_url.parse(_env.database_url or f"sqlite:///{DATA}/site.sqlite3"))
    except ValueError:
        database = {}
    options = database.setdefault("OPTIONS", {})
    engine = database.get("ENGINE")
    if engine == "django.db.backends.sqlite3":
        # Site and worker are two processes, and releases of SQLite before 3.51.3 can damage a WAL database that
        # two connections write: the old journal it is. A transaction begins as a writer, so that two of them
        # wait for each other instead of one failing in its middle.
        options["transaction_mode"] = "IMMEDIATE"
        options["timeout"] = 20
        options["init_command"] = "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;"
    elif engine == "django.db.backends.postgresql":
        # A connection a request: served by ASGI, each runs in a thread of its own, and one kept open would be lost.
        options.setdefault("connect_timeout", 5)
    else:
        # Without the value, which may hold a password.
        raise ImproperlyConfigured(
            "DATABASE_URL must be like postgres://user:password@host/name or sqlite:///path, not something else"
        )
    return database


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

MEDIA_ROOT = DATA / "media"
STATIC_URL = "static/"
STATIC_ROOT = DATA / "static" if IS_PUBLIC else None
STATICFILES_DIRS = [SITE / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # In public, files whose names hold their hash, made by `manage.py collectstatic`; else straight from the source.
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if IS_PUBLIC
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = not IS_PUBLIC
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_MAX_AGE = 3600 if IS_PUBLIC else 0
WHITENOISE_ALLOW_ALL_ORIGINS = False
FILE_UPLOAD_PERMISSIONS = 0o600
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o700

# --- people -----------------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "newdreamflow.accounts.backends.NameOrAddressBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
PASSWORD_HASHERS = [
    # Wants 16 MiB for each guess, which is dear on a GPU, in as much time as the other one.
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
PASSWORD_RESET_TIMEOUT = 24 * 3600
"""Seconds that a link in a mail holds."""
LOGIN_URL = "accounts:sign-in"
LOGIN_REDIRECT_URL = "dreams:new"
LOGOUT_REDIRECT_URL = "dreams:gallery"

AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25
"""Hours."""
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
"""One name from one address: nobody can lock a stranger out. Many names from one address: `accounts/limits.py`."""
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "accounts/locked_out.html"
AXES_USERNAME_CALLABLE = "newdreamflow.accounts.backends.locked_name"
AXES_CLIENT_IP_CALLABLE = "newdreamflow.accounts.limits.caller"
AXES_DISABLE_ACCESS_LOG = True
"""Who signed in when and from where is nobody's business."""
AXES_VERBOSE = False

EMAIL_HOST = _env.email_host
EMAIL_PORT = _env.email_port
EMAIL_HOST_USER = _env.email_host_user
EMAIL_HOST_PASSWORD = _env.email_host_password
EMAIL_USE_SSL = EMAIL_PORT == 465
EMAIL_USE_TLS = not EMAIL_USE_SSL and _env.email_use_tls
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = _env.email_from or f"newdreamflow@{_url.hostname}"
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'filebased'}.EmailBackend"
EMAIL_FILE_PATH = DATA / "mail"
"""Where mail goes that nobody sends: without EMAIL_HOST."""
ACCOUNTS_CONFIRM_ADDRESS = bool(EMAIL_HOST)
"""Whether an account begins to work only when the link in a mail was followed."""

LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = ["newdreamflow.config.formats"]
TIME_ZONE = _env.site_time_zone
USE_TZ = True

# --- the borders ------------------------------------------------------------------------------------------------------

if IS_PUBLIC:  # browsers accept these names only with Secure, for this host alone
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-session", "__Host-csrf"
SESSION_COOKIE_AGE = 14 * 24 * 3600
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_PUBLIC
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_SSL_REDIRECT = IS_PUBLIC
SECURE_HSTS_SECONDS = _env.site_hsts_seconds if IS_PUBLIC else 0
# For this host name alone: subdomains, and browsers' preload lists that cannot be undone, are the operator's decision.
SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W005", "security.W021"]
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

_own_proxies = [ip_network("127.0.0.1"), ip_network("::1")] if IS_PUBLIC else []
SITE_TRUSTED_PROXIES = _own_proxies if _env.site_trusted_proxies is None else _env.site_trusted_proxies
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
"""Only a trusted proxy's comes so far: `config/proxy.py` has dropped the others."""

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:"],  # previews come inside events
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 250
"""The longest form is the staff's list of 100 dreams."""
DATA_UPLOAD_MAX_NUMBER_FILES = 1
FILE_UPLOAD_HANDLERS = ["newdreamflow.config.uploads.SmallFiles"]

# --- the GPU server, and what dreams cost -----------------------------------------------------------------------------

GPU_SERVER_URL = _env.gpu_server_url or f"http://127.0.0.1:{_env.port}"
GPU_SERVER_API_KEY = _env.gpu_server_api_key

DREAMS_PRICE_PER_WORK_UNIT = _env.site_price_per_work_unit
DREAMS_STARTING_BUDGET = _env.site_starting_budget
DREAMS_MAX_UNFINISHED = _env.site_max_unfinished_dreams
DREAMS_DEFAULT_SIZE = _env.site_default_size
DREAMS_MODELS = _env.site_models

DREAMS_RUNNER = _env.site_runner
CELERY_BROKER_URL = _env.redis_url
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE = {
    "reap": {"task": "newdreamflow.dreams.tasks.reap", "schedule": 2.0},
    "delete_expired_photos": {"task": "newdreamflow.dreams.tasks.delete_expired_photos", "schedule": 3600.0},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "newdreamflow.config.logs.LineFormatter",
            "format": "{asctime} {levelname} {name}: {message}",
            "style": "{",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": _env.log_level.upper()},
    # One line for every request of the client would drown the rest.
    "loggers": {
        "httpx2": {"level": "WARNING"},
        "httpcore2": {"level": "WARNING"},
        "stamina": {"level": "ERROR"},
        "axes": {"level": "WARNING"},
    },
}

"""The site's settings as its tests use them: a folder of their own, quick passwords, any host."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_folder = Path(tempfile.mkdtemp(prefix="newdreamflow-tests-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)

for _name in list(os.environ):
    if _name.startswith(("SITE_", "EMAIL_", "GPU_SERVER_")) or _name in {"DATABASE_URL", "REDIS_URL"}:
        del os.environ[_name]
os.environ["DATA_DIR"] = str(_folder)
if "TEST_DATABASE_URL" in os.environ:
    os.environ["DATABASE_URL"] = os.environ["TEST_DATABASE_URL"]

from newdreamflow.config.settings import *  # noqa: E402, F403
from newdreamflow.config.settings import DATABASES, STORAGES  # noqa: E402

del os.environ["DATA_DIR"]

ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Static files are not collected for tests.
STORAGES = {**STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
# A file and not memory: threads and processes share it, as site and worker do.
DATABASES["default"].setdefault("TEST", {})
if "sqlite3" in DATABASES["default"]["ENGINE"]:
    DATABASES["default"]["TEST"]["NAME"] = _folder / "test.sqlite3"
    # Nobody pulls the plug while tests run.
    DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=DELETE; PRAGMA synchronous=OFF;"
GPU_SERVER_URL = "http://127.0.0.1:9"

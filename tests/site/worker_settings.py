"""What a worker's process is told by the test that started it, on top of the tests' settings."""

import os
from pathlib import Path

from tests.site.settings import *  # noqa: F403
from tests.site.settings import DATABASES

DATABASES["default"]["NAME"] = os.environ["TEST_DATABASE_NAME"]
MEDIA_ROOT = Path(os.environ["TEST_MEDIA_ROOT"])
GPU_SERVER_URL = os.environ["TEST_GPU_SERVER_URL"]
DREAMS_RUNNER = os.environ["TEST_RUNNER"]
CELERY_BROKER_URL = os.environ["TEST_BROKER"]
DREAMS_LEASE_S = float(os.environ["TEST_LEASE_S"])
DREAMS_PRICE_PER_WORK_UNIT = 2

#!/usr/bin/env python
"""Django's commands for the site: `python newdreamflow/manage.py COMMAND`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    sys.path[:1] = [str(Path(__file__).resolve().parent.parent)]  # the repository instead of this folder
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "newdreamflow.config.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"error: {error}")

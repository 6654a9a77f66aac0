"""A dream's addresses and form, and its page as text."""

from __future__ import annotations

import re

from django.urls import reverse

ACTS = ("cancel", "delete", "publish", "again")

LOOKS = ("dream", "events", "progress")


def address(name, dream, *arguments):
    return reverse(f"dreams:{name}", args=[dream.uuid, *arguments])


def visible_text(response):
    """What is read aloud, with one space between words."""
    return " ".join(re.sub(r"<[^>]*>", " ", response.content.decode()).split())

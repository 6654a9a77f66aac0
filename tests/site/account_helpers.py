"""An account to sign up and in with, and its pages as text."""

from __future__ import annotations

import re

PASSWORD = "a long walk by the sea"

SIGN_UP = {"username": "ida", "email": "ida@example.org", "password": PASSWORD}

SIGN_IN = {"username": "ada", "password": "correct horse"}


def text(response):
    """What a page says, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


def link_in(message):
    [link] = re.findall(r"http://\S+", message.body.split("link", 1)[1])
    return link.removeprefix("http://127.0.0.1:8001")

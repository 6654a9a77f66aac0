"""`manage.py check` for the GPU server's URL and API key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 -- Django's name

from newdreamflow.dreams.conf import dreams_settings

__all__ = ["gpu_server"]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@register("dreams")
def gpu_server(**_options: Any) -> Sequence[CheckMessage]:  # noqa: ANN401 -- Django's own signature
    """Whether `GPU_SERVER_URL` and `GPU_SERVER_API_KEY` can be what they should be."""
    url = dreams_settings.GPU_SERVER_URL
    key = dreams_settings.GPU_SERVER_API_KEY
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        shown = "what it is" if "@" in url else repr(url)  # before an @ there may be a password
        return [Error(f"GPU_SERVER_URL must be a URL such as http://127.0.0.1:8000, not {shown}", id="dreams.E001")]
    found: list[CheckMessage] = []
    if parts.username or parts.password or parts.query or parts.fragment:
        found.append(Error("GPU_SERVER_URL must not hold a name, a password or a query", id="dreams.E002"))
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        found.append(Error("GPU_SERVER_API_KEY must be printable ASCII without spaces", id="dreams.E003"))
    if parts.hostname not in _LOOPBACK:
        if not key:
            found.append(
                Error(
                    "GPU_SERVER_API_KEY must be set when the GPU server is another machine: it requires a key",
                    hint="python -m server keys create --name site, on the GPU server",
                    id="dreams.E004",
                )
            )
        if parts.scheme == "http":
            found.append(Warning("GPU_SERVER_URL is http: key and prompts travel in the clear", id="dreams.W001"))
    return found

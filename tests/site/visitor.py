"""A person at the site, without a browser: signs up, sends the form, listens to events, fetches the picture."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass

import httpx2

__all__ = ["Visit", "Visitor"]

_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_SUBMISSION = re.compile(r'name="submission" value="([^"]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One dream, in seconds from its submission."""

    first_step_s: float
    """The first event that shows progress: a step taken, or the end. (The first of all tells of the wait only.)"""
    picture_s: float


class Visitor:
    """Belongs to one thread."""

    def __init__(self, url: str, name: str) -> None:
        self._http = httpx2.Client(base_url=url, follow_redirects=True, timeout=30, headers={"Referer": url})
        self._post(
            "/accounts/sign-up/",
            username=name,
            email=f"{name}@example.org",
            password="correct horse battery staple",
            password1="correct horse battery staple",
        )
        if "Sign out" not in self._http.get("/").text:
            raise AssertionError(f"{name} could not sign up")

    def close(self) -> None:
        """Leave."""
        self._http.close()

    def dream(self, **wish: object) -> Visit:
        """Ask for a picture and look at it as soon as it is there."""
        form = self._http.get("/dream/").text
        token, submission = _found(_TOKEN, form), _found(_SUBMISSION, form)
        ordinary = {"prompt": "a cat", "shape": "square", "size": 256, "num_images": 1, "num_inference_steps": 28,
                    "guidance_scale": 7, "style": ""}  # fmt: skip
        began = time.perf_counter()
        answer = self._http.post(
            "/dream/", data={"csrfmiddlewaretoken": token, "submission": submission, **ordinary, **wish}
        )
        page = answer.url.path
        if answer.status_code != 200 or page == "/dream/":
            raise AssertionError(f"the dream was not accepted: {re.sub('<[^>]+>', ' ', answer.text)[:2000]}")
        first_step_s = None
        with self._http.stream("GET", f"{page}events") as stream:
            for line in stream.iter_lines():
                if not line.startswith("data: "):
                    continue
                snapshot = json.loads(line.removeprefix("data: "))
                if snapshot["step"] or snapshot["is_finished"]:
                    first_step_s = first_step_s or time.perf_counter() - began
                if snapshot["is_finished"]:
                    break
        if snapshot["status"] != "done" or first_step_s is None:
            raise AssertionError(snapshot)
        picture = self._http.get(snapshot["pictures"][0]["url"])
        if picture.status_code != 200 or not picture.headers["content-type"].startswith("image/"):
            raise AssertionError(picture)
        return Visit(first_step_s=first_step_s, picture_s=time.perf_counter() - began)

    def _post(self, path: str, **fields: str) -> httpx2.Response:
        token = _found(_TOKEN, self._http.get(path).text)
        return self._http.post(path, data={"csrfmiddlewaretoken": token, **fields})


def _found(pattern: re.Pattern[str], page: str) -> str:
    match = pattern.search(page)
    if match is None:
        raise AssertionError(f"there is no {pattern.pattern} in {page[:2000]}")
    return match[1]

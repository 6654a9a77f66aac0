"""A caller whose prompts, names and keys are marked, and who keeps what must not hold them."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from dataclasses import dataclass, field

import httpx2

from server.access.operator_socket import connect_to, socket_path
from tests.chaos.gateway import Gateway, until
from tests.contract.every_route import code_of

PROMPT = "tangerine walrus"

NEGATIVE = "indigo pelican"

USER = "ocelot-of-vienna"

KEY = "marmalade-badger-" + "x7Q9" * 8
"""What `API_KEY` is set to."""

SIMILAR_KEY = "marmalade-badger-" + "y8R0" * 8

WISH = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "user": USER, "height": 64, "width": 64}

QUICK = {**WISH, "num_inference_steps": 2}

SLOW = {**WISH, "num_inference_steps": 150, "num_images": 8, "sampler": "Heun"}
"""300 calls of the model, all eight pictures of which the engine does not take at once."""


@dataclass(kw_only=True)
class Caller:
    """Whoever sends marked things; keeps what must not hold them."""

    server: Gateway
    problems: list[str] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    secrets: list[str] = field(default_factory=list)
    """Of API keys that were made meanwhile."""

    def ask(self, method: str, path: str, **request) -> httpx2.Response:
        request["headers"] = {"Authorization": f"Bearer {KEY}", **request.get("headers", {})}
        answer = self.server.client.request(method, self.server.url + path, **request)
        if answer.status_code >= 400:
            self.hears(f"{answer.text}\n{answer.headers}", None)
            if method != "HEAD":
                self.codes.add(code_of(answer))
        return answer

    def post(self, wish: object, path: str = "/v1/jobs", **request) -> httpx2.Response:
        return self.ask("POST", path, json=wish, **request)

    def operate(self, method: str, path: str, wish: object = None) -> dict | bytes:
        """Ask as the operator's command line does."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = connect_to(socket_path(self.server.log.parent / "data" / "server"), 10)
        with contextlib.closing(connection):
            body = None if wish is None else json.dumps(wish)
            connection.request(method, path, body, {} if wish is None else {"Content-Type": "application/json"})
            answer = connection.getresponse()
            told = answer.read()
        if answer.status >= 400:
            self.hears(f"{told.decode()}\n{answer.getheaders()}", told)
        return json.loads(told) if "json" in answer.getheader("content-type") else told

    def begin(self, said: bytes) -> socket.socket:
        """A connection of its own, on which this was said."""
        connection = socket.create_connection(self.server.url.removeprefix("http://").split(":"), timeout=30)
        connection.sendall(said)
        return connection

    def listen(self, connection: socket.socket) -> int:
        """The status of the only answer on a connection, which closes it."""
        with connection, connection.makefile("rb") as answer:
            told = answer.read()
        self.hears(told.decode(), told.partition(b"\r\n\r\n")[2])
        return int(told.split()[1])

    def ended(self, job_id: str, timeout_s: float = 20) -> dict:
        job = until(
            lambda: (job := self.ask("GET", f"/v1/jobs/{job_id}").json())["finished_at"] and job, timeout_s, "end"
        )
        if job["error"]:
            self.hears(json.dumps(job["error"]), json.dumps(job["error"]))
        return job

    def hears(self, everything: str, document: str | bytes | None) -> None:
        """Was told of an error, in a problem document or in a job."""
        self.problems.append(everything)
        if document is not None:
            self.codes.add(json.loads(document)["code"])

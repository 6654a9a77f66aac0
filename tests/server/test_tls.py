"""HTTPS with a certificate of a throw-away authority: real handshakes, and what happens to those who get it wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
import uvicorn
from starlette.responses import Response

from server.access.timeouts import Patience
from server.access.tls import Certificate
from server.config import Settings, StartError
from server.listening import GuardedServer, certificate_of
from tests.server.guarded import served
from tests.server.throw_away_ca import ThrowAwayCA

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> ThrowAwayCA:
    return ThrowAwayCA(tmp_path_factory.mktemp("ca")).make()


@pytest.fixture(scope="module")
def files(authority) -> tuple[Path, Path]:
    return authority.issue("server")


@pytest.fixture(scope="module")
def client(authority):
    with httpx2.Client(verify=authority.client_context(), timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def tls_server(module_serve, files):
    return module_serve(guards={"certificate": Certificate(*files), "patience": Patience(handshake_s=0.5)})


@pytest.fixture(scope="module")
def url(tls_server) -> str:
    return f"https://127.0.0.1:{tls_server.port}"


def test_a_picture_comes_over_https(client, url):
    answer = client.post(f"{url}/generate", json={"prompt": "a cat", "num_inference_steps": 1})
    assert answer.status_code == 200
    assert answer.content.startswith(b"\x89PNG")


def test_a_client_that_does_not_know_the_authority_does_not_trust_it(url):
    with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx2.get(f"{url}/livez")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_safe_versions_are_spoken(tls_server, authority, version):
    context = authority.client_context()
    context.minimum_version = context.maximum_version = version
    with handshake(tls_server, context) as connection:
        assert connection.version() == version.name.replace("_", ".")


def test_older_versions_are_not(tls_server, authority):
    context = authority.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)), handshake(tls_server, context):
        pass


@pytest.mark.parametrize(
    "said",
    [
        b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 600,
        b"\0" * 5000,
        b"\xff",
    ],
    ids=["plain HTTP", "half a greeting", "zeros", "a byte"],
)
def test_what_is_no_tls_ends_cleanly_and_the_next_request_is_served(tls_server, client, url, said):
    with socket.create_connection(("127.0.0.1", tls_server.port), timeout=5) as connection:
        connection.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            while heard := connection.recv(4096):
                assert not heard.startswith(b"HTTP/")
    assert client.get(f"{url}/livez").status_code == 200


def test_a_handshake_that_does_not_begin_is_given_up(tls_server, client, url):
    with socket.create_connection(("127.0.0.1", tls_server.port), timeout=5) as silent:
        began = time.monotonic()
        assert client.get(f"{url}/livez").status_code == 200
        assert silent.recv(1) == b""
        assert 0.4 < time.monotonic() - began < 4


def test_handshakes_that_do_not_begin_are_counted_and_keep_nobody_out(client, authority, files):
    with (
        served(Response(b"x"), Patience(), Certificate(*files), max_connections=8) as port,
        contextlib.ExitStack() as stack,
    ):
        address = f"https://127.0.0.1:{port}"
        assert client.get(address).status_code == 200
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(50)]
        assert client.get(address).status_code == 200  # on the connection that was there before
        assert httpx2.get(address, verify=authority.client_context()).status_code == 200
        assert sum(is_open(connection) for connection in silent) <= 8


def is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


@contextlib.contextmanager
def handshake(server, context: ssl.SSLContext):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    with connection, context.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
        yield secured


LARGE = 2**21


@pytest.fixture(scope="module")
def port_of_large_answers(files):
    with served(Response(b"x" * LARGE), Patience(read_s=0.3, idle_s=0.3), Certificate(*files)) as port:
        yield port


@contextlib.contextmanager
def asking_for_a_large_answer(port: int, context: ssl.SSLContext):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", port))
        with context.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
            secured.sendall(b"GET / HTTP/1.1\r\n\r\n")
            yield secured


def test_a_client_that_does_not_read_its_answer_is_cut_off_here_too(port_of_large_answers, authority):
    with asking_for_a_large_answer(port_of_large_answers, authority.client_context()) as connection:
        time.sleep(2)
        said = 0
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                said += len(data)
        assert said < LARGE


def test_a_client_that_reads_slowly_gets_all_of_its_answer_here_too(port_of_large_answers, authority):
    with asking_for_a_large_answer(port_of_large_answers, authority.client_context()) as connection:
        said, began = 0, time.monotonic()
        while said < LARGE:
            said += len(connection.recv(65536)) or pytest.fail("closed before the end of the answer")
            if time.monotonic() - began < 1.5:
                time.sleep(0.03)


def test_a_renewed_certificate_is_soon_shown_to_new_clients(authority, tmp_path, serve):
    chain, key = (Path(shutil.copy(path, tmp_path)) for path in authority.issue("first"))
    server = serve(guards={"certificate": Certificate(chain, key)})
    first = serial_number_shown_by(server, authority)
    for old, new in zip((chain, key), authority.issue("second"), strict=True):
        shutil.copy(new, old)
    deadline = time.monotonic() + 10
    while serial_number_shown_by(server, authority) == first:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def serial_number_shown_by(server, authority) -> str:
    with handshake(server, authority.client_context()) as connection:
        return connection.getpeercert()["serialNumber"]


def test_a_renewal_that_cannot_be_used_leaves_the_certificate_that_is_there(authority, tmp_path, serve):
    chain, key = (Path(shutil.copy(path, tmp_path)) for path in authority.issue("kept"))
    certificate = Certificate(chain, key)
    server = serve(guards={"certificate": certificate})
    first = serial_number_shown_by(server, authority)
    expired = authority.issue("expired", -1)
    spoilt = {
        "another key": lambda: shutil.copy(authority.issue("other")[1], key),
        "an expired one": lambda: [shutil.copy(path, tmp_path / f"kept{path.suffix}") for path in expired],
        "no file": chain.unlink,
        "no certificate": lambda: chain.write_text("x"),
    }
    for spoil in spoilt.values():
        spoil()
        server.call(certificate.renew)
        assert serial_number_shown_by(server, authority) == first


def test_files_that_are_exchanged_just_now_end_nothing(authority, tmp_path):
    chain, key = (Path(shutil.copy(path, tmp_path)) for path in authority.issue("exchanged"))
    certificate = Certificate(chain, key)
    text = chain.read_bytes()
    is_over = threading.Event()

    def exchange() -> None:
        while not is_over.is_set():
            chain.unlink()
            chain.write_bytes(text[: len(text) // 2])
            chain.write_bytes(text)

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            certificate.renew()
    finally:
        is_over.set()
        exchanging.join()


def test_whatever_a_renewal_raises_the_server_goes_on():
    class Broken:
        def renew(self) -> None:
            raise RuntimeError("broken")

    server = GuardedServer(uvicorn.Config(Response()), certificate=Broken())
    assert asyncio.run(server.on_tick(0)) is False


def wrong_files(authority, files) -> dict[str, tuple[tuple[Path, Path], str]]:
    chain, key = files
    nowhere = chain.with_name("nowhere.pem")
    return {
        "no chain": ((nowhere, key), r"TLS_CERT .*nowhere\.pem cannot be read: No such file or directory"),
        "no key": ((chain, nowhere), r"TLS_KEY .*nowhere\.pem cannot be read: No such file or directory"),
        "a folder": ((chain.parent, key), r"TLS_CERT .* cannot be read: Is a directory"),
        "another key": ((chain, authority.issue("other")[1]), "TLS_KEY .* is not the key of the certificate"),
        "swapped": ((key, chain), r"TLS_CERT .* and TLS_KEY .* cannot be used: they are no PEM files"),
        "a password": ((chain, authority.lock(key)), r"TLS_KEY .* has a password, which is not supported"),
        "expired": (authority.issue("expired", -1), "TLS_CERT .* would be refused .*: certificate has expired"),
    }  # fmt: skip


def test_files_that_cannot_be_used_end_the_start_in_one_line_that_says_why(authority, files):
    for name, (pair, line) in wrong_files(authority, files).items():
        with pytest.raises(StartError) as caught:
            certificate_of(Settings(_env_file=None, tls_cert=pair[0], tls_key=pair[1]))
        assert re.fullmatch(f"{line}.*", str(caught.value)), name


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_one_without_the_other_is_refused(name, files):
    with pytest.raises(StartError, match=r"^TLS_CERT and TLS_KEY must be set together, or neither$"):
        certificate_of(Settings(_env_file=None, **{name: files[0]}))


def test_without_either_it_is_plain_http():
    assert certificate_of(Settings(_env_file=None)) is None


def environment(**settings: object) -> dict[str, str]:
    told = {name: str(value) for name, value in settings.items()}
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "MODEL_ID": "fake", "PORT": "0", **told}


def test_the_server_process_says_https_and_its_command_line_still_reaches_it(tmp_path, client, authority, files):
    """
    The whole way: settings, printed address, event loop of production, the operator's socket (which stays plain), and
    an end with 0.
    """
    settings = environment(TLS_CERT=files[0], TLS_KEY=files[1], DATA_DIR=tmp_path / "var")
    program = [sys.executable, "-m", "server"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*program, "serve"], cwd=tmp_path, env=settings, stdout=subprocess.PIPE, stderr=log, text=True
        )
    with process:
        try:
            said = process.stdout.readline()
            address = re.search(r"Listening on (https://127\.0\.0\.1:(\d+)) ", said)
            assert address, said + (tmp_path / "log").read_text()
            assert client.get(f"{address[1]}/livez").status_code == 200
            with pytest.raises(httpx2.RemoteProtocolError):
                httpx2.get(address[1].replace("https", "http"))
            assert client.get(f"{address[1]}/livez").status_code == 200
            listed = subprocess.run(
                [*program, "jobs", "list"], cwd=tmp_path, env=settings, capture_output=True, check=False, text=True,
                timeout=30,
            )  # fmt: skip
            assert (listed.returncode, listed.stderr) == (0, "there are no such jobs\n")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    logged = (tmp_path / "log").read_text()
    assert '"not_after"' in logged
    assert "Traceback" not in logged


def test_a_start_that_cannot_be_is_one_line(tmp_path, files):
    finished = subprocess.run(
        [sys.executable, "-m", "server", "serve"],
        cwd=tmp_path,
        env=environment(TLS_CERT=files[0]),
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert finished.returncode == 1
    assert finished.stderr == "error: TLS_CERT and TLS_KEY must be set together, or neither\n"

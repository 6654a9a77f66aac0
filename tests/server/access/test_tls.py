"""HTTPS with a certificate of a throw-away authority: real handshakes, and what happens to those who get it wrong."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from server.access.tls import tls_context
from server.config import Settings, StartError
from tests.server.access.throw_away_ca import ThrowAwayCA

REPOSITORY = Path(__file__).parents[3]

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
    return module_serve(guards={"tls": tls_context(Settings(_env_file=None, tls_cert=files[0], tls_key=files[1]))})


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
    with socket.create_connection(("127.0.0.1", tls_server.port), timeout=0.5) as connection:
        connection.sendall(said)
        with contextlib.suppress(ConnectionResetError, TimeoutError):  # a byte may become a greeting, for a minute
            while heard := connection.recv(4096):
                assert not heard.startswith(b"HTTP/")
    assert client.get(f"{url}/livez").status_code == 200


@contextlib.contextmanager
def handshake(server, context: ssl.SSLContext):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    with connection, context.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
        yield secured


def wrong_files(authority, files) -> dict[str, tuple[tuple[Path, Path], str]]:
    chain, key = files
    nowhere = chain.with_name("nowhere.pem")
    return {
        "no chain": ((nowhere, key), r"TLS_CERT .*nowhere\.pem cannot be read: No such file or directory"),
        "no key": ((chain, nowhere), r"TLS_KEY .*nowhere\.pem cannot be read: No such file or directory"),
        "a folder": ((chain.parent, key), r"TLS_CERT .* cannot be read: Is a directory"),
        "another key": ((chain, authority.issue("other")[1]), "TLS_KEY .* is not the key of the certificate"),
        "swapped": ((key, chain), r"TLS_CERT .* and TLS_KEY .* cannot be used: they are not PEM files"),
        "a password": ((chain, authority.lock(key)), r"TLS_KEY .* has a password, which is not supported"),
    }  # fmt: skip


def test_files_that_cannot_be_used_end_the_start_in_one_line_that_says_why(authority, files):
    for name, (pair, line) in wrong_files(authority, files).items():
        with pytest.raises(StartError) as caught:
            tls_context(Settings(_env_file=None, tls_cert=pair[0], tls_key=pair[1]))
        assert re.fullmatch(f"{line}.*", str(caught.value)), name


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_one_without_the_other_is_refused(name, files):
    with pytest.raises(StartError, match=r"^TLS_CERT and TLS_KEY must be set together, or neither$"):
        tls_context(Settings(_env_file=None, **{name: files[0]}))


def test_without_either_it_is_plain_http():
    assert tls_context(Settings(_env_file=None)) is None


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
            assert (listed.returncode, listed.stderr) == (0, "no such jobs\n")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    logged = (tmp_path / "log").read_text()
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

"""Certificates for tests: an authority that exists for a minute, made with the `openssl` command."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ThrowAwayCA:
    """An authority whose files lie in `folder`."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "ca.pem"

    def make(self) -> ThrowAwayCA:
        (self.folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n")
        _openssl(
            self.folder, "req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem "
            "-days 2 -subj /CN=throw-away -addext keyUsage=critical,keyCertSign",
        )  # fmt: skip
        return self

    def issue(self, name: str, days: int = 1) -> tuple[Path, Path]:
        """The files of a new certificate for this machine and of its key."""
        _openssl(
            self.folder, f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key "
            f"-out {name}.csr -subj /CN=x",
        )  # fmt: skip
        _openssl(
            self.folder, f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} "
            f"-extfile names -out {name}.pem",
        )  # fmt: skip
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def lock(self, key: Path) -> Path:
        """The same key, with a password."""
        locked = key.with_suffix(".locked")
        _openssl(self.folder, f"pkey -in {key} -aes128 -passout pass:secret -out {locked}")
        return locked

    def client_context(self) -> ssl.SSLContext:
        """What a client that trusts it uses."""
        return ssl.create_default_context(cafile=self.root)


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=30)

"""Is `.venv` what the lock files say? If not, make it so. Standard library only: it runs before anything is installed.

A stamp inside `.venv` says what was installed completely. A marker beside it says that an installation has begun; where
it is still there at the next start, that installation was cut off and `.venv` is made anew, since pip takes a package
whose files are only half there for installed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from choose_lock import CONSTRAINTS, Choice, choose_lock, find_driver

__all__ = ["EXTRA_LOCKS", "House", "Stamp", "main"]

EXTRA_LOCKS = {"site": "requirements-site.lock.txt", "dev": "requirements-dev.lock.txt"}
"""What may be wanted beside the server, and its lock: the site; the tests (which test the site too)."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What `.venv` holds, completely."""

    python: str
    """Major and minor version, such as `3.11`."""
    lock: str
    """Name of the lock file that was chosen."""
    runtime: str
    """Fingerprint of that lock."""
    extras: dict[str, str]
    """Extra -> fingerprint of its lock."""


@dataclass(frozen=True, slots=True)
class House:
    """One checkout and its `.venv`."""

    root: Path

    @property
    def venv(self) -> Path:
        """The virtual environment's folder."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """The virtual environment's interpreter."""
        return self.venv / "bin" / "python"

    @property
    def packages(self) -> Path:
        """The folder that packages are installed into."""
        [folder] = self.venv.glob("lib/python3.*/site-packages")
        return folder

    @property
    def stamp_file(self) -> Path:
        """Holds the `Stamp`, as JSON."""
        return self.venv / "installed.json"

    @property
    def unfinished_marker(self) -> Path:
        """There while an installation is going on, or after one was cut off."""
        return self.venv / "installing"

    def fingerprint(self, *names: str) -> str:
        """SHA-256 over the contents of files, by their names in the root."""
        digest = hashlib.sha256()
        for name in names:
            digest.update((self.root / name).read_bytes())
        return digest.hexdigest()

    def wanted(self, choice: Choice, extras: Collection[str], *, python: str) -> Stamp:
        """What `.venv` should hold for a lock, extras and a Python version."""
        return Stamp(
            python=python,
            lock=choice.lock,
            runtime=self.fingerprint(choice.lock, CONSTRAINTS[choice.lock]),
            extras={extra: self.fingerprint(EXTRA_LOCKS[extra]) for extra in extras},
        )

    def installed(self) -> Stamp | None:
        """What `.venv` holds; None if that is not known, or not complete."""
        if self.unfinished_marker.exists():
            return None
        try:
            return Stamp(**json.loads(self.stamp_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def python_version(self) -> str | None:
        """Major and minor version of the virtual environment's Python; None if it does not run, or has no pip."""
        try:
            answer = subprocess.run(  # noqa: S603 - our own interpreter
                [self.python, "-c", "import pip, sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process installs into this checkout, and keep others out."""
        folder = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("another start is installing; waiting for it")
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def is_complete(installed: Stamp | None, wanted: Stamp) -> bool:
    """Whether nothing needs to be installed. Having more extras than wanted does no harm."""
    if installed is None:
        return False
    same_house = (installed.python, installed.lock, installed.runtime) == (wanted.python, wanted.lock, wanted.runtime)
    return same_house and wanted.extras.items() <= installed.extras.items()


def must_start_anew(house: House, wanted_lock: str) -> bool:
    """Whether installing into the `.venv` that is there would leave a mixture behind."""
    version = house.python_version()
    installed = house.installed()
    return (
        version is None
        or house.unfinished_marker.exists()
        or (installed is not None and (installed.python != version or installed.lock != wanted_lock))
    )


def install(house: House, choice: Choice, extras: Collection[str]) -> None:
    """Bring `.venv` to what the lock says, from scratch where it cannot be trusted.

    Raises:
        subprocess.CalledProcessError: pip or venv failed, having said why.
    """
    started = time.monotonic()
    # What is there already stays: the next start of another kind would only install it again.
    installed = house.installed()
    extras = [extra for extra in EXTRA_LOCKS if extra in extras or (installed and extra in installed.extras)]
    locks = [choice.lock, *(EXTRA_LOCKS[extra] for extra in extras)]
    _say(f"{choice.reason}: installing {', '.join(locks)} into .venv")
    if must_start_anew(house, choice.lock):
        subprocess.run([sys.executable, "-m", "venv", "--clear", house.venv], check=True, stdout=sys.stderr)  # noqa: S603 - ourselves
    house.unfinished_marker.touch()
    subprocess.run(  # noqa: S603 - fixed arguments
        [
            *(house.python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"),
            *(argument for lock in locks for argument in ("-r", house.root / lock)),
        ],
        check=True,
        cwd=house.root,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,  # what stands on the standard output is the server's own
    )
    if extras:
        # The site and the tests use the client of this checkout, as an editable installation would; without building.
        (house.packages / "semantic-bit-client.pth").write_text(f"{house.root / 'client'}\n", encoding="utf-8")
    stamp = house.wanted(choice, extras, python=house.python_version() or "")
    house.stamp_file.write_text(json.dumps(asdict(stamp), indent=1) + "\n", encoding="utf-8")
    house.unfinished_marker.unlink()
    _say(f"installed in {time.monotonic() - started:.0f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit status 0: `.venv` is complete."""
    parser = argparse.ArgumentParser(description="Make .venv what the lock files say.")
    parser.add_argument("--site", action="store_true", help="with what the site needs")
    parser.add_argument("--dev", action="store_true", help="with what the tests need, and the site")
    parser.add_argument("--check", action="store_true", help="install nothing; exit status 1 if something is missing")
    options = parser.parse_args(arguments)

    extras = ["site"] * (options.site or options.dev) + ["dev"] * options.dev
    house = House(Path(__file__).resolve().parent.parent)
    choice = choose_lock(find_driver())
    if options.check:
        python = "{}.{}".format(*sys.version_info)
        return 0 if is_complete(house.installed(), house.wanted(choice, extras, python=python)) else 1
    with house.alone():
        python = house.python_version() or ""
        if is_complete(house.installed(), house.wanted(choice, extras, python=python)):
            return 0  # the start we waited for has installed it
        try:
            install(house, choice, extras)
        except subprocess.CalledProcessError as error:
            _say(f"installing failed (status {error.returncode}), the reason stands above; the next start repairs it")
            return 1
    return 0


def _say(line: str) -> None:
    print(f"==> {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The process that converts a model for OpenVINO, as the engine sees it: begun, listened to, waited for. No torch.

In a process of its own, so that its memory is given back and a crash of the compiler is not the engine's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.backends.compiled_cache import CACHE_NAME
from engine.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["REFUSED", "ConversionError", "ConversionProcess", "is_first_start"]

logger = logging.getLogger(__name__)

REFUSED: Final = 3
"""Exit code: the model cannot be served at all. The last line says why."""

MAX_SILENCE_S: Final = 300.0
"""Between two lines; each function of a network is worth two. The largest, of Stable Diffusion XL, takes a minute."""
_END_GRACE_S: Final = 5.0
_LONGEST_LINE: Final = 1000
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]


class ConversionError(Exception):
    """The process has ended without its result, or had to be ended. The message ends a sentence about it."""


class ConversionProcess:
    """One run of `python -m engine.models.convert`. Belongs to the thread that began it.

    Its standard output is its log, a level and a text a line. It ends when its standard input is closed, as it is when
    the engine ends, however that happens.
    """

    def __init__(
        self, model_folder: Path, cache_folder: Path, num_threads: int | None = None, *, program: Sequence[str] = ()
    ) -> None:
        """Begin.

        Args:
            model_folder: in diffusers layout.
            cache_folder: where `choose_backend` will look for the result.
            num_threads: of a network call; None: what that would choose.
            program: what is run with these arguments instead; of tests.

        Raises:
            OSError: no descriptors, no memory, no more processes.
        """
        arguments = [str(model_folder.resolve()), str(cache_folder.resolve()), str(num_threads or "")]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*(program or (sys.executable, "-m", "engine.models.convert")), *arguments],
            cwd=_PACKAGE_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="conversion-line", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait(self, on_line: Callable[[], None] = lambda: None, *, max_silence_s: float = MAX_SILENCE_S) -> None:
        """Log what it says until it has ended.

        Args:
            on_line: called with every line: it gets on.
            max_silence_s: a process that says nothing for so long is ended.

        Raises:
            ModelLoadError: the model cannot be served.
            ConversionError: it crashed, or hung.
        """
        last = ""
        with self:
            while (line := self._next_line(max_silence_s)) is not None:
                on_line()
                level, _, last = line.partition(" ")
                number = logging.getLevelNamesMapping().get(level)
                if number is not None:  # else a library has printed something
                    logger.log(number, "%s", last[:_LONGEST_LINE])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_GRACE_S)
            code = self._process.returncode
        if code == REFUSED:
            raise ModelLoadError(last)
        if code != 0:
            raise ConversionError(f"ended by {_how(code)}")

    def stop(self) -> None:
        """End it at once, if it has not ended."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_GRACE_S)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __enter__(self) -> ConversionProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listen(self) -> None:
        stream = self._process.stdout
        assert stream is not None  # noqa: S101 - as it was started
        with stream:
            for line in stream:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _next_line(self, max_silence_s: float) -> str | None:
        try:
            return self._lines.get(timeout=max_silence_s)
        except queue.Empty:
            raise ConversionError(f"did not respond for {max_silence_s:.0f} s") from None


def is_first_start(wanted: str, device: str, dtype: str, cache_folder: Path | None) -> bool:
    """Whether a model will certainly have to be converted, as far as can be told before torch is imported.

    Where this is wrong, nothing is lost but the time of a process.

    Args:
        wanted: as in `choose_backend`.
        device: `auto`, `cpu` or another.
        dtype: `auto`, `float32` or another.
        cache_folder: as in `choose_backend`.
    """
    if wanted == "torch" or dtype not in {"auto", "float32"} or cache_folder is None:
        return False
    if any((cache_folder / CACHE_NAME).glob("*.compiled")):
        return False
    if not (device == "cpu" or (device == "auto" and _has_torch_for_cpus())):
        return False
    return importlib.util.find_spec("openvino") is not None


def _has_torch_for_cpus() -> bool:
    """Whether this torch can use no GPU."""
    from importlib import metadata  # noqa: PLC0415 - not on the way of a second start

    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def _how(code: int | None) -> str:
    """`signal 11 (SIGSEGV)`, `exit code 1`."""
    if code is None:
        return "being killed: it had closed its output and did not end"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"

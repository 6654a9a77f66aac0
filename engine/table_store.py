"""Sampler tables on disk: probed once on a machine, read at every later start. A cache: it may be deleted at any time.

Without it the first picture of every start would wait for diffusers to be imported, which takes longer than drawing it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from engine.bounded_folder import BoundedFolder
from engine.journey import Journey, Route
from engine.samplers import AYS

__all__ = ["TableStore"]

logger = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 4 * 2**20
"""The largest table there is, 299 calls and 14 slots, would have half of it."""
MAX_STORE_BYTES: Final = 16 * 2**20
"""About 2,000 tables of 28 steps."""

_SOURCES: Final = (
    *("journey.py", "probing.py", "samplers.py", "schedulers.py"),
    *("slope_table.py", "slopes.py", "trimming.py"),
)
"""Our own part in a table's numbers. By content: a version number would be forgotten one day."""
_LIBRARIES: Final = ("diffusers", "numpy", "scipy", "torch")


class TableStore:
    """One folder of tables, for every model. Several threads, and processes, may use it at once.

    A file is a line with the SHA-256 of the rest, then JSON: all that the table depends on, and its numbers, exactly.
    Nothing here ever fails a request: what cannot be read is probed, what cannot be written is probed again next time.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_STORE_BYTES) -> None:
        """Use a folder; it is made when the first table is written.

        Args:
            folder: of nothing else.
            max_bytes: of all files together; those that were used longest ago are deleted first.
        """
        self._folder = BoundedFolder(folder, max_bytes)

    def read(self, config: Mapping[str, object], route: Route) -> Journey | None:
        """The table of a route, bit for bit as it was written; None if there is none that can be used.

        Args:
            config: what the checkpoint's `scheduler_config.json` says.
            route: which table.
        """
        origin = _origin(config, route)
        path = self._path(origin)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            journey = _decoded(data, origin)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("a sampler table cannot be read, probing it again: %s: %s", path, error.strerror)
            return None
        except (ValueError, LookupError, TypeError) as error:
            logger.warning("a sampler table on disk is damaged, probing it again: %s: %s", path, error)
            return None
        self._folder.touch(path.name)
        return journey

    def write(self, config: Mapping[str, object], route: Route, journey: Journey) -> None:
        """Keep a table, wholly or not at all."""
        origin = _origin(config, route)
        try:
            self._folder.write(self._path(origin).name, _encoded(journey, origin))
            self._folder.make_room()
        except OSError as error:
            logger.warning("a sampler table cannot be kept in %s: %s", self._folder.path, error.strerror)

    def _path(self, origin: str) -> Path:
        return self._folder.path / f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.json"


def _origin(config: Mapping[str, object], route: Route) -> str:
    """All that a table's bits depend on, as JSON: another origin is another table."""
    return json.dumps(
        {
            "made_by": _made_by(),
            "scheduler_config": dict(config),
            "route": {
                "sampler": repr(route.sampler),
                "noise_schedule": route.noise_schedule,
                "num_inference_steps": route.num_inference_steps,
                "begin": route.begin,
                "eta": route.eta,
                "ays_timesteps": route.ays_timesteps if route.noise_schedule == AYS else None,
            },
        },
        sort_keys=True,
    )


@functools.cache
def _made_by() -> dict[str, object]:
    """Our code, the libraries, and the machine's way to round: processors differ in the last bit of a logarithm."""
    sources = b"\0".join((Path(__file__).with_name(name)).read_bytes() for name in _SOURCES)
    numpy_config: Any = np.show_config(mode="dicts")
    return {
        "engine": hashlib.sha256(sources).hexdigest(),
        **{name: _version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        "torch_cpu": torch.backends.cpu.get_cpu_capability(),
        "numpy_cpu": numpy_config["SIMD Extensions"],
    }


def _version(library: str) -> str | None:
    """Of what is installed; it is not imported."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _encoded(journey: Journey, origin: str) -> bytes:
    table = {
        "timesteps": journey.timesteps.tolist(),
        "input_scales": journey.input_scales.tolist(),
        "matrices": journey.matrices.tolist(),
        "known": journey.known.tolist(),
        "draws": journey.draws,
        "initial_noise_scale": journey.initial_noise_scale,
        "entry_blend": journey.entry_blend,
    }
    # The shortest decimal that reads back as the same number: exact, for float32 too.
    document = json.dumps({"origin": json.loads(origin), "table": table}, sort_keys=True).encode()
    return hashlib.sha256(document).hexdigest().encode() + b"\n" + document + b"\n"


def _decoded(data: bytes, origin: str) -> Journey:
    """The table in a file.

    Raises:
        ValueError: damaged, or not of this origin.
        LookupError: something is missing.
        TypeError: something is not what it should be.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
    digest, _, document = data.partition(b"\n")
    if hashlib.sha256(document.removesuffix(b"\n")).hexdigest().encode() != digest:
        raise ValueError("its digest does not match")
    found = json.loads(document)
    if json.dumps(found["origin"], sort_keys=True) != origin:
        raise ValueError("it is the table of something else")
    table = found["table"]
    forward, backward = table["entry_blend"]
    return Journey(
        timesteps=torch.tensor(table["timesteps"], dtype=torch.float32),
        input_scales=torch.tensor(table["input_scales"], dtype=torch.float32),
        matrices=torch.tensor(table["matrices"], dtype=torch.float32),
        known=torch.tensor(table["known"], dtype=torch.float32),
        draws=tuple(bool(draw) for draw in table["draws"]),
        initial_noise_scale=float(table["initial_noise_scale"]),
        entry_blend=(float(forward), float(backward)),
    )

"""Which models lie in `MODELS_DIR`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from engine.errors import EngineError, InvalidParamsError
from engine.models.locate import locate

if TYPE_CHECKING:
    from server.config import Settings

__all__ = ["models_in"]

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SUFFIX: Final = ".safetensors"


def models_in(settings: Settings) -> dict[str, str]:
    """The models of `MODELS_DIR` that can be served: name -> path. What cannot be is logged, and left out."""
    if settings.models_dir is None:
        return {}
    import structlog  # noqa: PLC0415 -- slow, and the engine process is started first

    _log = structlog.get_logger("server")
    found: dict[str, str] = {}
    try:
        entries = sorted(settings.models_dir.iterdir())
    except OSError as error:
        _log.error("MODELS_DIR cannot be read", folder=str(settings.models_dir), reason=error.strerror)
        return {}
    for path in entries:
        is_model = path.suffix == _SUFFIX if path.is_file() else (path / "model_index.json").is_file()
        name = path.stem if path.is_file() else path.name
        if not is_model:
            continue
        try:
            if not _NAME.fullmatch(name):
                raise InvalidParamsError("name", "must be made of A-Z, a-z, 0-9, dot, dash and underscore", name)
            if name in found:
                raise InvalidParamsError("name", "must be there once, as a file or as a folder", name)
            locate(str(path.resolve()))
        except EngineError as error:
            _log.warning("a model is left out", path=str(path), reason=str(error))
            continue
        found[name] = str(path.resolve())
    return found

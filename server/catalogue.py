"""The models that requests may name: the default one, and those of `MODELS_DIR`; what each needs and defaults to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import InvalidParamsError
from engine.models.layout import read_configs
from engine.models.locate import ModelFolder, locate
from engine.models.side_file import read_side_file
from engine.models.textual_inversions import TextualInversion, read_textual_inversions
from engine.samplers import resolve_sampler
from server.config import Settings
from server.executors.models_folder import models_in
from server.schemas.generation import Defaults

__all__ = ["Catalogue", "ServedModel", "read_catalogue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model, as callers see it."""

    name: str
    folder: ModelFolder
    family: str
    native_width: int
    """Pixels it was trained at."""
    native_height: int
    defaults: Defaults
    """Values for fields that a request for it leaves out."""
    text_widths: tuple[int, ...] = ()
    """Numbers of a token's vector, for each of its text encoders."""


class Catalogue:
    """Names and what they stand for. Nothing in it changes."""

    def __init__(
        self, default: ServedModel, others: Mapping[str, ServedModel], inversions: Sequence[TextualInversion] = ()
    ) -> None:
        self.default = default
        self._others = others
        self.inversions = tuple(inversions)
        """The textual inversions of `EMBEDDINGS_DIR`, whatever model they are for."""

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """All, the default one first."""
        return (self.default, *self._others.values())

    def inversions_of(self, model: ServedModel) -> tuple[TextualInversion, ...]:
        """Those that prompts for a model may name."""
        return tuple(inversion for inversion in self.inversions if not inversion.fault_with(model.text_widths))

    def named(self, name: str) -> ServedModel | None:
        """A model by its name, or by what follows the last slash of it; None: there is none."""
        return next((model for model in self.models if name in {model.name, model.name.rpartition("/")[2]}), None)

    def defaults_of(self, name: str | None) -> Defaults:
        """What a request gets that names this model, or none.

        Raises:
            InvalidParamsError: there is no such model.
        """
        if name is None or name == self.default.name:
            return self.default.defaults
        found = self._others.get(name)
        if found is None:
            raise InvalidParamsError("model", "must be one of the names that GET /v1/models lists", name)
        return found.defaults


def read_catalogue(settings: Settings, default: ModelFolder, defaults: Defaults) -> Catalogue:
    """The default model and those of `MODELS_DIR`.

    Args:
        settings: where they are.
        default: the one that `MODEL_ID` names.
        defaults: of it.
    """
    others = {
        name: _served(name, locate(path), defaults)
        for name, path in models_in(settings).items()
        if name != settings.model_name
    }
    inversions = read_textual_inversions(settings.embeddings_folder)
    return Catalogue(_as_listed(settings.model_name, default, defaults), others, inversions)


def _served(name: str, model: ModelFolder, usual: Defaults) -> ServedModel:
    """A model of `MODELS_DIR`; its side file may say what its requests default to."""
    own = {} if model.path is None else dict(read_side_file(model.path).defaults)
    size: dict[str, Any] = {"width": model.native_width, "height": model.native_height}
    defaults = replace(usual, model=name, pixels_per_latent=model.pixels_per_latent, **size | _resolved(own, usual))
    return _as_listed(name, model, defaults)


def _resolved(own: dict[str, Any], usual: Defaults) -> dict[str, Any]:
    if "sampler" not in own and "noise_schedule" not in own:
        return own
    sampler, noise_schedule = resolve_sampler(
        str(own.get("sampler", usual.sampler)), None if "noise_schedule" not in own else str(own["noise_schedule"])
    )
    return own | {"sampler": sampler.name, "noise_schedule": noise_schedule}


def _as_listed(name: str, model: ModelFolder, defaults: Defaults) -> ServedModel:
    configs = None if model.path is None else read_configs(Path(model.path))
    return ServedModel(
        name=name,
        folder=model,
        family="none" if configs is None else configs.family.name,
        native_width=model.native_width,
        native_height=model.native_height,
        defaults=defaults,
        text_widths=() if configs is None else tuple(map(configs.text_width, configs.text_encoders)),
    )

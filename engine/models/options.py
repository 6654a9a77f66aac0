"""What a network's `config.json` says: each option is understood, or refused by its name. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from engine.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Options"]


class Options:
    """The options of one network, read one by one.

    Every method raises `ModelLoadError`, with file, option and value, where the value is not served. A default stands
    in for a missing option, not for a null.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path = path
        self._values = values
        self._known: set[str] = set()

    def any(self, name: str, default: object = None) -> Any:  # noqa: ANN401 - whatever JSON holds
        """The value as it stands."""
        self._known.add(name)
        return self._values.get(name, default)

    def whole(self, name: str, default: int | None = None, *, least: int = 1, null_means_default: bool = False) -> int:
        """A whole number."""
        value = self.any(name, default)
        if value is None and null_means_default:
            value = default
        if not _is_whole(value, least):
            self.refuse(name, f"a whole number of at least {least}")
        return int(value)

    def number(self, name: str, default: float) -> float:
        """A number above 0."""
        value = self.any(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            self.refuse(name, "a number above 0")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """Yes or no."""
        value = self.any(name, default)
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def one_of(self, name: str, *served: object) -> Any:  # noqa: ANN401 - one of `served`
        """A value out of a few; the first is the default."""
        value = self.any(name, served[0])
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in served):
            self.refuse(name, " or ".join("not set" if one is None else repr(one) for one in served))
        return value

    def per_block(self, name: str, default: int, num_blocks: int) -> tuple[int, ...]:
        """A whole number for each block, or one for all of them."""
        value = self.any(name, default)
        values = value if isinstance(value, list | tuple) else (value,) * num_blocks
        if len(values) != num_blocks or not all(_is_whole(entry, 1) for entry in values):
            self.refuse(name, f"a whole number of at least 1, or {num_blocks} of them, one for each block")
        return tuple(values)

    def wholes(self, name: str, default: tuple[int, ...], *, least: int = 1) -> tuple[int, ...]:
        """A list of whole numbers, at least one."""
        value = self.any(name, default)
        if not isinstance(value, list | tuple) or not value or not all(_is_whole(entry, least) for entry in value):
            self.refuse(name, f"a list of whole numbers of at least {least}")
        return tuple(value)

    def without_effect(self, *names: str) -> None:
        """Options that change nothing in what is computed here, whatever they say."""
        self._known.update(names)

    def end(self) -> None:
        """Refuse what nobody has asked for, unless it is switched off: who knows what it would change."""
        for name, value in self._values.items():
            if name not in self._known and not name.startswith("_") and value not in (None, False):
                self.refuse(name, "not set, as it is not known here")

    def refuse(self, name: str, rule: str) -> NoReturn:
        """Say what an option must be."""
        raise ModelLoadError(f"{self._path}: {name} must be {rule}, not {self._values.get(name)!r}")


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least

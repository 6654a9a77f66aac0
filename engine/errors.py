"""Errors of the engine, and which of them a retry may cure.

EngineError                     something went wrong; the message is fit for the caller's eyes
├── InvalidParamsError          the request asks for what cannot be: names field, rule and value
├── DoesNotFitError             the picture does not fit into the device's memory, even alone
├── NotFiniteError              the network's arithmetic broke down: there is no picture
├── ModelNotFoundError          no such model on this machine; the message says how to get it
├── ModelLoadError              the model is there and cannot be used
└── DeviceError                 the device failed and this process must end: nothing on it can be trusted
"""

from __future__ import annotations

__all__ = [
    "DeviceError",
    "DoesNotFitError",
    "EngineError",
    "InvalidParamsError",
    "ModelLoadError",
    "ModelNotFoundError",
    "NotFiniteError",
]

_LONGEST_QUOTED_VALUE = 80


class EngineError(Exception):
    """The engine could not do what was asked. The message is written for the caller."""


class InvalidParamsError(EngineError):
    """A parameter that breaks a rule, as field, rule and value: `width must be a multiple of 8, not 65`."""

    def __init__(self, field: str, rule: str, value: object) -> None:
        self.field = field
        """The name of the parameter, as in `GenerationParams`."""
        self.rule = rule
        """What holds for every legal value, as a phrase after the field's name: `must be a multiple of 8`."""
        self.value = value
        """What broke the rule; the message quotes it shortened. None: nothing to quote, as where a field is missing."""
        quoted = repr(value)
        if len(quoted) > _LONGEST_QUOTED_VALUE:
            quoted = quoted[:_LONGEST_QUOTED_VALUE] + "…"
        super().__init__(f"{field} {rule}" if value is None else f"{field} {rule}, not {quoted}")

    def __reduce__(self) -> tuple[type[InvalidParamsError], tuple[str, str, object]]:
        return type(self), (self.field, self.rule, self.value)


class DoesNotFitError(EngineError):
    """One picture alone needs more memory than the device has."""


class NotFiniteError(EngineError):
    """The network or the decoder gave infinities or NaN: half precision has overflowed, or the weights are damaged."""


class ModelNotFoundError(EngineError):
    """The model is not on this machine, and the engine never downloads."""


class ModelLoadError(EngineError):
    """The model's files are damaged, incomplete or of a kind that is not served."""


class DeviceError(EngineError):
    """The device answered with an error after which none of its results can be trusted."""

"""Error messages of all forms of the site: rule and value, instead of Django's own messages."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.core.validators import (
    BaseValidator,
    MaxLengthValidator,
    MaxValueValidator,
    MinLengthValidator,
    MinValueValidator,
    ProhibitNullCharactersValidator,
)

__all__ = ["WordedFormMixin"]

_OF_VALIDATOR: Final = {
    MinValueValidator: "Must be at least %(limit_value)s, not %(show_value)s.",
    MaxValueValidator: "Must be at most %(limit_value)s, not %(show_value)s.",
    MinLengthValidator: "Must have at least %(limit_value)d characters, not %(show_value)d.",
    MaxLengthValidator: "Must have at most %(limit_value)d characters, not %(show_value)d.",
}
_OF_FIELD: Final[list[tuple[type[forms.Field], str, str]]] = [
    (forms.Field, "required", "Please fill this in."),
    (forms.ChoiceField, "invalid_choice", "Must be one of the choices offered, not “%(value)s”."),
    (forms.IntegerField, "invalid", "Must be a whole number."),
    (forms.FloatField, "invalid", "Must be a number, such as 7.5."),
    (forms.EmailField, "invalid", "Must be an e-mail address, such as ada@example.org."),
]


class WordedFormMixin:
    """A form with these messages, and labels that end without a colon. What a field says by itself stays."""

    fields: dict[str, forms.Field]

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        super().__init__(*arguments, **({"label_suffix": ""} | named))
        for field in self.fields.values():
            for kind, code, words in _OF_FIELD:
                of_django = getattr(kind, "default_error_messages", {}).get(code)
                if isinstance(field, kind) and field.error_messages.get(code) == of_django:
                    field.error_messages[code] = words
            for validator in field.validators:
                if isinstance(validator, BaseValidator) and type(validator) in _OF_VALIDATOR:
                    validator.message = _OF_VALIDATOR[type(validator)]
                elif isinstance(validator, ProhibitNullCharactersValidator):
                    validator.message = "Must not contain null characters."

"""The forms of signing up and in. Words for whoever is turned away are here."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import password_validation
from django.contrib.auth.forms import AuthenticationForm, PasswordResetForm, UsernameField
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.views.decorators.debug import sensitive_variables

from newdreamflow.accounts.limits import MAIL_TO_ADDRESS, spend
from newdreamflow.accounts.models import User

__all__ = ["ResetForm", "SignInForm", "SignUpForm"]


class SignUpForm(forms.Form):
    """Name, address, password."""

    username = UsernameField(
        label="Name",
        min_length=2,
        max_length=40,
        validators=[RegexValidator(r"^[\w.-]+\Z", "Letters, digits, dots, hyphens and underscores only.")],
        help_text="Others see it beside the dreams that you make public.",
    )
    email = forms.EmailField(
        label="E-mail address",
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
        help_text="To give you a new password when you have lost yours. Nobody sees it.",
    )
    password = forms.CharField(
        label="Password",
        strip=False,
        max_length=1000,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="8 characters or more. A sentence is good.",
    )

    @sensitive_variables("password")
    def clean(self) -> dict[str, Any]:
        """Look at the password with name and address beside it."""
        cleaned = super().clean() or {}
        password = cleaned.get("password")
        if password:
            user = User(username=cleaned.get("username", ""), email=cleaned.get("email", ""))
            try:
                password_validation.validate_password(password, user)
            except ValidationError as error:
                self.add_error("password", error)
        return cleaned


class SignInForm(AuthenticationForm):
    """Name or address, password."""

    error_messages = {
        "invalid_login": "Name and password do not belong together. Capital and small letters matter in the password.",
        "inactive": "This account was closed. If you think that this is a mistake, write to whoever runs this site.",
        "pending": "This account waits for you to follow the link in the mail that we sent you.",
    }

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        super().__init__(*arguments, **named)
        self.fields["username"].label = "Name or e-mail address"
        self.fields["username"].widget.attrs["maxlength"] = 254

    def confirm_login_allowed(self, user: User) -> None:
        """Tell somebody who knows the password why it does not help."""
        if user.is_pending:
            raise ValidationError(self.error_messages["pending"], code="pending")
        super().confirm_login_allowed(user)


class ResetForm(PasswordResetForm):
    """The address to which a link is sent, if it has an account."""

    email = forms.EmailField(
        label="E-mail address", max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "email"})
    )

    def save(self, **options: Any) -> None:  # type: ignore[override]  # noqa: ANN401 -- only ever called with names
        """Send it.

        Raises:
            TooOftenError: too much mail was sent to this address, whether it has an account or not.
        """
        spend(MAIL_TO_ADDRESS, self.cleaned_data["email"].lower())
        super().save(**options)

"""Sign-up and sign-in forms. The error messages are here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib.auth import password_validation
from django.contrib.auth.forms import (
    AuthenticationForm,
    PasswordChangeForm,
    PasswordResetForm,
    SetPasswordForm,
    UsernameField,
)
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.views.decorators.debug import sensitive_variables

from newdreamflow.accounts.limits import MAIL_TO_ADDRESS, spend
from newdreamflow.accounts.models import User
from newdreamflow.form_wording import WordedFormMixin
from newdreamflow.text import folded, has_visible, scripts_of

__all__ = [
    "AddressForm",
    "ChangePasswordForm",
    "DeleteForm",
    "NewPasswordForm",
    "ResetForm",
    "SignInForm",
    "SignUpForm",
]


def _no_look_alikes(name: str) -> None:
    """Refuse a name that could pass for another one on a page."""
    if not all(map(has_visible, name)):
        raise ValidationError("Must not contain invisible characters.")
    if len(scripts_of(name)) > 1:
        raise ValidationError("Must not mix Latin, Greek and Cyrillic letters, which look alike.")


class SignUpForm(WordedFormMixin, forms.Form):
    """Name, address, password."""

    username = UsernameField(
        label="Name",
        min_length=2,
        max_length=40,
        validators=[
            RegexValidator(r"^[\w.-]+\Z", "Letters, digits, dots, hyphens and underscores only."),
            _no_look_alikes,
        ],
        help_text="Others see it next to the dreams that you make public.",
    )
    email = forms.EmailField(
        label="E-mail address",
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
        help_text="Needed to reset your password. It is not shown to anyone.",
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


class SignInForm(WordedFormMixin, AuthenticationForm):
    """Name or address, password."""

    error_messages = {
        "invalid_login": "Wrong name or password. The password is case-sensitive.",
        "inactive": "This account was closed. If you think that this is a mistake, write to the site's operator.",
        "pending": "This account is not active yet: follow the link in the mail that we sent you.",
    }

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        super().__init__(*arguments, **named)
        self.fields["username"].label = "Name or e-mail address"
        self.fields["username"].widget.attrs["maxlength"] = 254

    def confirm_login_allowed(self, user: User) -> None:
        """Say why a correct password is refused: the account is not active."""
        if user.is_pending:
            raise ValidationError(self.error_messages["pending"], code="pending")
        super().confirm_login_allowed(user)


class ResetForm(WordedFormMixin, PasswordResetForm):
    """The address to which a link is sent, if it has an account."""

    email = forms.EmailField(
        label="E-mail address", max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "email"})
    )

    def save(self, **options: Any) -> None:  # type: ignore[override]  # noqa: ANN401 -- only ever called with names
        """Send it.

        Raises:
            TooOftenError: too much mail was sent to this address, whether it has an account or not.
        """
        spend(MAIL_TO_ADDRESS, folded(self.cleaned_data["email"]))
        super().save(**options)

    def get_users(self, email: str) -> Iterable[User]:
        """Those who may have a link: by the address in any spelling. It goes to the address as the account has it."""
        users = User.objects.filter(email_key=folded(email), is_active=True)
        return (user for user in users if user.has_usable_password())


class NewPasswordForm(WordedFormMixin, SetPasswordForm):  # type: ignore[type-arg]  # generic in the stubs alone
    """A new password, by a link."""


class ChangePasswordForm(WordedFormMixin, PasswordChangeForm):
    """A new password, by the old one."""


class _PasswordForm(WordedFormMixin, forms.Form):
    """A form that is taken only with one's password."""

    password = forms.CharField(
        label="Your password",
        strip=False,
        max_length=1000,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, *arguments: Any, user: User, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        super().__init__(*arguments, **named)
        self.user = user

    @sensitive_variables("password")
    def clean_password(self) -> str:
        """It must be theirs."""
        password: str = self.cleaned_data["password"]
        if not self.user.check_password(password):
            raise ValidationError("Wrong password.")
        return password


class AddressForm(_PasswordForm):
    """Another address."""

    email = forms.EmailField(
        label="New e-mail address", max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "email"})
    )
    field_order = ("email", "password")


class DeleteForm(_PasswordForm):
    """Deleting the account: password and a tick."""

    is_sure = forms.BooleanField(
        label="Delete my account and all my dreams for good",
        error_messages={"required": "Please tick this to delete your account."},
    )

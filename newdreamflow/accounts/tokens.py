"""Tokens of confirmation links: they prove that an address is the user's."""

from __future__ import annotations

from typing import Final

from django.contrib.auth.tokens import PasswordResetTokenGenerator

from newdreamflow.accounts.models import User

__all__ = ["confirmation_tokens"]


class _ConfirmationTokens(PasswordResetTokenGenerator):
    """Holds as long as a password's link (`PASSWORD_RESET_TIMEOUT`), and until it was used."""

    key_salt = "newdreamflow.accounts.tokens.confirmation"

    def _make_hash_value(self, user: User, timestamp: int) -> str:
        return f"{user.pk}{user.email}{user.password}{user.is_pending}{timestamp}"


confirmation_tokens: Final = _ConfirmationTokens()

"""Authentication backend: sign-in by name or e-mail address, and the account that wrong passwords count for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

from newdreamflow.accounts.models import User
from newdreamflow.text import folded

__all__ = ["NameOrAddressBackend", "locked_name"]


class NameOrAddressBackend(ModelBackend):
    """Names hold no `@`, so that no user's name is another one's address."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **others: Any,  # noqa: ANN401 -- Django's own signature
    ) -> User | None:
        """The user, if the password is theirs. Also one who may not come in: the form has the words for them."""
        username = _own_name(username) if username else username
        return super().authenticate(request, username, password, **others)

    def user_can_authenticate(self, user: User | AnonymousUser | None) -> bool:
        """Everybody: `SignInForm` turns those away who are not active, and says why."""
        return user is not None

    def get_user(self, user_id: Any) -> User | None:  # noqa: ANN401 -- Django's own signature
        """The user of a session, unless they were shut out meanwhile."""
        user = super().get_user(user_id)
        return user if user is not None and user.is_active else None


def locked_name(_request: HttpRequest | None, credentials: Mapping[str, Any] | None) -> str | None:
    """Under which name wrong passwords are counted: the account's own, however it was written.

    That of nobody is counted alike, or the lock would tell which addresses have an account.
    """
    name = (credentials or {}).get("username")
    # axes' column has 255 characters; nobody's name or address has more.
    return _own_name(name)[:255] if name else None


def _own_name(name_or_address: str) -> str:
    key = folded(name_or_address)
    if "@" in name_or_address:
        users = User.objects.filter(email_key=key)
    else:
        exact = User.objects.filter(username=name_or_address)
        users = exact if exact.exists() else User.objects.filter(name_key=key)
    return users.values_list("username", flat=True).first() or key

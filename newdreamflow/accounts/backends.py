"""Signing in by name or by address."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

from newdreamflow.accounts.models import User

__all__ = ["NameOrAddressBackend"]


class NameOrAddressBackend(ModelBackend):
    """Names hold no `@`, so that nobody's name is somebody else's address."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **others: Any,  # noqa: ANN401 -- Django's own signature
    ) -> User | None:
        """The user, if the password is theirs. Also one who may not come in: the form has the words for them."""
        if username and "@" in username:
            found = User.objects.filter(email__iexact=username).values_list("username", flat=True).first()
            username = found or username
        return super().authenticate(request, username, password, **others)

    def user_can_authenticate(self, user: User | AnonymousUser | None) -> bool:
        """Everybody: `SignInForm` turns those away who are not active, and says why."""
        return user is not None

    def get_user(self, user_id: Any) -> User | None:  # noqa: ANN401 -- Django's own signature
        """The user of a session, unless they were shut out meanwhile."""
        user = super().get_user(user_id)
        return user if user is not None and user.is_active else None

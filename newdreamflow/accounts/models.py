"""Users, and the counts that the rate limits of sign-in, sign-up and mail are based on."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.core.exceptions import ValidationError
from django.db import models

from newdreamflow.text import folded

__all__ = ["Attempt", "User"]


class UserManager(DjangoUserManager["User"]):
    """Finds users by their names, however these are written."""

    def get_by_natural_key(self, username: str | None) -> User:
        """The one whose name is exactly that; else the one whose name differs in case or normal form only."""
        username = username or ""
        return self.filter(username=username).first() or self.get(name_key=folded(username))


class User(AbstractUser):
    """Django's user, whose name and address are theirs alone in every spelling: `Ann` and `ANN` are one."""

    email = models.EmailField("e-mail address")
    name_key = models.TextField(unique=True, editable=False)
    """`text.folded` of the name. A column, since no database folds as the other does; for two accounts that are older
    than it and differ in spelling only, with `#` and a number behind the second one's."""
    email_key = models.TextField(unique=True, editable=False)
    """The same of the address."""
    is_pending = models.BooleanField(default=False, editable=False)
    """They have not yet followed the link that was mailed to their address. Not active, and forgotten after a day."""

    objects: ClassVar[UserManager] = UserManager()

    def clean(self) -> None:
        """Refuse what another account has, in words beside the field."""
        super().clean()
        others = User.objects.exclude(pk=self.pk)
        taken = {}
        if others.filter(name_key=folded(self.username)).exists():
            taken["username"] = "Another account has this name."
        if others.filter(email_key=folded(self.email)).exists():
            taken["email"] = "Another account has this address."
        if taken:
            raise ValidationError(taken)

    def save(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- Django's own signature
        """Keep the keys in step with name and address."""
        self.name_key = _key(self.username, self.name_key)
        self.email_key = _key(self.email, self.email_key)
        super().save(*arguments, **named)


def _key(text: str, before: str) -> str:
    key = folded(text)
    return before if before.rpartition("#")[0] == key else key


class Attempt(models.Model):
    """That a caller did something of which there is a limit (`limits.py`). Deleted when no limit counts it any more."""

    limit = models.CharField(max_length=20)
    of = models.CharField(max_length=64)
    """Whose: a keyed hash, so that no network address is kept."""
    at = models.DateTimeField(db_index=True)

    class Meta:
        indexes = (models.Index(fields=("limit", "of", "at"), name="attempts_counted"),)

    def __str__(self) -> str:
        return f"{self.limit} at {self.at:%Y-%m-%d %H:%M}"

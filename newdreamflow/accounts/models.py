"""Who dreams, and what is remembered of a caller so that nobody can ask without end."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Lower

__all__ = ["Attempt", "User"]


class User(AbstractUser):
    """Django's user, with an address that is theirs alone: passwords are reset by it."""

    email = models.EmailField("e-mail address")
    is_pending = models.BooleanField(default=False, editable=False)
    """They have not yet followed the link that was mailed to their address. Not active, and forgotten after a day."""

    class Meta(AbstractUser.Meta):
        constraints = (
            models.UniqueConstraint(
                Lower("email"), name="user_email_once", violation_error_message="Another account has this address."
            ),
        )


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

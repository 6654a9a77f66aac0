"""`manage.py demo`: an account to look around with, and a few dreams in it."""

from __future__ import annotations

import secrets
import uuid
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Final

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from newdreamflow.accounts.models import User
from newdreamflow.dreams import services
from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.ledger import BudgetExceededError
from newdreamflow.dreams.services import TooManyDreamsError, Wish

__all__ = ["Command"]

_NAME: Final = "demo"

_SUBMISSIONS: Final = uuid.UUID("3f0c6f0e-5a0b-4a46-9c58-3d5c5c1d8f0a")
"""What the dreams' submission ids are made from: a dream that is there already is not made again."""


def _wishes() -> Sequence[Wish]:
    size = dreams_settings.DREAMS_DEFAULT_SIZE

    def wish(prompt: str, *tags: str, seed: int, is_public: bool = True) -> Wish:
        return Wish(prompt=prompt, tags=tags, seed=seed, is_public=is_public, width=size, height=size)

    return (
        wish("a lighthouse by the sea at night", "sea", "night", seed=3),
        wish("a hot-air balloon over the mountains at sunrise", "mountains", seed=3),
        wish("an owl in a forest at night", "animals", "night", seed=3),
        wish("a sailboat on the sea at sunset", "sea", seed=3),
        wish("a penguin in the snow", "animals", seed=3),
        wish("an orange cat on a mat", "animals", seed=3, is_public=False),
    )


class Command(BaseCommand):
    """The command."""

    help = "Create a demo account with a few dreams in it, which the worker then draws. Safe to run again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """What it takes."""
        parser.add_argument("--force", action="store_true", help="also where SITE_URL is public")

    def handle(self, *, force: bool, **_options: object) -> None:
        """Make what is not there."""
        if settings.IS_PUBLIC and not force:
            raise CommandError(
                f"{settings.SITE_URL} is public, and a demo account is for testing; --force creates one anyway"
            )
        call_command("migrate", verbosity=0)
        user = User.objects.filter(username=_NAME).first()
        if user is None:
            password = secrets.token_urlsafe(9)
            user = User.objects.create_user(_NAME, "demo@localhost.invalid", password)
            self.stdout.write(f"Sign in at {settings.SITE_URL} as {_NAME} with the password {password}")
            self.stdout.write("It is shown this once; `manage.py changepassword demo` sets another one.")
        else:
            self.stdout.write(f"The account {_NAME} exists already; `manage.py changepassword demo` sets a password.")
        before = user.dreams.count()
        for index, wish in enumerate(_wishes()):
            submission = uuid.uuid5(_SUBMISSIONS, str(index))
            if user.dreams.filter(submission=submission).exists():
                continue  # also one that was deleted: it stays away
            try:
                services.submit(user=user, wish=wish, submission=submission)
            except BudgetExceededError as error:
                self.stderr.write(f"No more dreams: {error}")
                break
            except TooManyDreamsError:
                self.stderr.write("No more dreams: too many are unfinished")
                break
        self.stdout.write(f"{user.dreams.count() - before} dreams are new. The worker draws them.")

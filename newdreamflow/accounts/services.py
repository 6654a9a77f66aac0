"""Making an account, with or without a link that is mailed first.

Where the site can send mail, an account begins to work when its link is followed, and signing up with an address that
has an account already looks the same to whoever does it: only the mailbox learns the difference. Where it cannot, on
one's own machine, an account works at once.
"""

from __future__ import annotations

import datetime
import logging
from smtplib import SMTPException
from typing import Final

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.core.mail import send_mail
from django.db import IntegrityError, transaction
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from newdreamflow.accounts.limits import MAIL_TO_ADDRESS, spend
from newdreamflow.accounts.models import User
from newdreamflow.accounts.tokens import confirmation_tokens

__all__ = ["AddressTakenError", "MailNotSentError", "NameTakenError", "confirm", "sign_up"]

logger = logging.getLogger(__name__)


class NameTakenError(Exception):
    """Another account has the name."""


class AddressTakenError(Exception):
    """Another account has the address. Only where no mail can say so instead."""


class MailNotSentError(Exception):
    """The mail could not be handed over; no account was made."""


def sign_up(*, username: str, email: str, password: str) -> User | None:
    """Make an account.

    Returns:
        The user; None where a mail says how to go on, in either case.

    Raises:
        NameTakenError, AddressTakenError, MailNotSentError: as they say.
        TooOftenError: too much mail was sent to this address.
    """
    _forget_old_pending()
    same_name = User.objects.filter(username__iexact=username)
    if same_name.exclude(is_pending=True, email__iexact=email).exists():
        raise NameTakenError
    is_taken = User.objects.filter(email__iexact=email, is_pending=False).exists()
    if not settings.ACCOUNTS_CONFIRM_ADDRESS:
        if is_taken:
            raise AddressTakenError
        return _created(username, email, password, is_pending=False)
    spend(MAIL_TO_ADDRESS, email.lower())
    if is_taken:
        make_password(password)  # takes its time, as it does for a new account
        _mail("address_taken", email, {"link": _url("accounts:password-reset")})
        return None
    # Whoever signed up with this address before us may not have been its owner: their password must not be the one that
    # the link switches on.
    User.objects.filter(email__iexact=email, is_pending=True).delete()
    user = _created(username, email, password, is_pending=True)
    link = _url("accounts:confirm", urlsafe_base64_encode(force_bytes(user.pk)), confirmation_tokens.make_token(user))
    try:
        _mail("confirm", email, {"link": link, "username": username})
    except MailNotSentError:
        user.delete()
        raise
    return None


def confirm(*, user: User) -> None:
    """Let an account work: its link was followed."""
    User.objects.filter(pk=user.pk, is_pending=True).update(is_pending=False, is_active=True)


def _created(username: str, email: str, password: str, *, is_pending: bool) -> User:
    try:
        with transaction.atomic():
            user = User(username=username, email=email, is_active=not is_pending, is_pending=is_pending)
            user.set_password(password)
            user.save(force_insert=True)
    except IntegrityError as error:
        raise NameTakenError from error  # or the address, by somebody at this very moment
    return user


def _forget_old_pending() -> None:
    """Give names and addresses free that nobody has confirmed while they could."""
    too_old = timezone.now() - datetime.timedelta(seconds=settings.PASSWORD_RESET_TIMEOUT)
    User.objects.filter(is_pending=True, date_joined__lt=too_old).delete()


_SUBJECTS: Final = {
    "confirm": "Your account at newdreamflow",
    "address_taken": "You have an account at newdreamflow",
}


def _mail(name: str, address: str, context: dict[str, str]) -> None:
    body = render_to_string(f"accounts/mail/{name}.txt", {"site": settings.SITE_URL, **context})
    try:
        send_mail(_SUBJECTS[name], body, None, [address])
    except (OSError, SMTPException) as error:
        logger.exception("mail could not be sent")
        raise MailNotSentError from error


def _url(name: str, *arguments: str) -> str:
    # From SITE_URL and not from the request, whose Host a caller chooses.
    return settings.SITE_URL + reverse(name, args=arguments)

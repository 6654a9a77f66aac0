"""Account actions: create (with or without a confirmation mail), change the address, delete.

Where the site can send mail, an account begins to work when its link is followed, and signing up with an address that
has an account already looks the same to whoever does it: only the mailbox learns the difference. Where it cannot, on
one's own machine, an account works at once.
"""

from __future__ import annotations

import datetime
import logging
import uuid
from smtplib import SMTPException
from typing import Final

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.core import signing
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
from newdreamflow.dreams import photos
from newdreamflow.dreams import services as dreams
from newdreamflow.dreams.models import Dream
from newdreamflow.text import folded

__all__ = [
    "AddressTakenError",
    "MailNotSentError",
    "NameTakenError",
    "address_change_of",
    "change_address",
    "confirm",
    "confirm_address",
    "delete_account",
    "sign_up",
]

_ADDRESS_SALT: Final = "newdreamflow.accounts.address"

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
    email_key = folded(email)
    same_name = User.objects.filter(name_key=folded(username))
    if same_name.exclude(is_pending=True, email_key=email_key).exists():
        raise NameTakenError
    is_taken = User.objects.filter(email_key=email_key, is_pending=False).exists()
    if not settings.ACCOUNTS_CONFIRM_ADDRESS:
        if is_taken:
            raise AddressTakenError
        return _created(username, email, password, is_pending=False)
    spend(MAIL_TO_ADDRESS, email_key)
    if is_taken:
        make_password(password)  # takes its time, as it does for a new account
        _mail("address_taken", email, {"link": _url("accounts:password-reset")})
        return None
    # Whoever signed up with this address before us may not have been its owner: their password must not be the one that
    # the link switches on.
    User.objects.filter(email_key=email_key, is_pending=True).delete()
    try:
        user = _created(username, email, password, is_pending=True)
    except AddressTakenError:
        return None  # the same form at the same moment: its mail is on its way
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


def change_address(*, user: User, email: str) -> bool:
    """Give an account another address: at once, or where mail can be sent by a link to the new one.

    Returns:
        Whether it is done; else a mail says how to go on, whether another account has the address or not.

    Raises:
        AddressTakenError, MailNotSentError: as they say.
        TooOftenError: too much mail was sent to this address.
    """
    is_taken = User.objects.filter(email_key=folded(email)).exclude(pk=user.pk).exists()
    if not settings.ACCOUNTS_CONFIRM_ADDRESS:
        if is_taken:
            raise AddressTakenError
        _set_address(user, email)
        return True
    spend(MAIL_TO_ADDRESS, folded(email))
    if is_taken:
        _mail("address_taken", email, {"link": _url("accounts:password-reset")})
        return False
    token = signing.dumps([user.pk, user.email, email], salt=_ADDRESS_SALT)
    _mail("change_address", email, {"link": _url("accounts:address-confirm", token), "username": user.username})
    return False


def address_change_of(token: str, *, user: User) -> str | None:
    """The new address that a link is for; None if it is not this user's, too old, or was used."""
    try:
        pk, before, email = signing.loads(token, salt=_ADDRESS_SALT, max_age=settings.PASSWORD_RESET_TIMEOUT)
    except (signing.BadSignature, ValueError):
        return None
    return str(email) if (pk, before) == (user.pk, user.email) else None


def confirm_address(*, user: User, email: str) -> None:
    """Take the new address: its link was followed.

    Raises:
        AddressTakenError: another account has it by now.
    """
    _set_address(user, email)


def _set_address(user: User, email: str) -> None:
    user.email = email
    try:
        with transaction.atomic():
            user.save(update_fields=["email", "email_key"])
    except IntegrityError as error:
        raise AddressTakenError from error


def delete_account(*, user: User) -> None:
    """Erase a user's dreams, name and address for good. Their bookings stay, under a name that says nothing."""
    for dream in Dream.objects.present().filter(user=user):
        dreams.delete(dream=dream)
    photos.delete_all(user.pk)
    user.username = f"deleted-{uuid.uuid4().hex[:12]}"
    user.email = f"{user.username}@deleted.invalid"
    user.first_name = user.last_name = ""
    user.is_active = user.is_staff = user.is_superuser = False
    user.set_unusable_password()
    user.save()


def _created(username: str, email: str, password: str, *, is_pending: bool) -> User:
    try:
        with transaction.atomic():
            user = User(username=username, email=email, is_active=not is_pending, is_pending=is_pending)
            user.set_password(password)
            user.save(force_insert=True)
    except IntegrityError as error:
        # By somebody at this very moment; the database let one of the two through.
        is_name = User.objects.filter(name_key=folded(username)).exists()
        raise (NameTakenError if is_name else AddressTakenError) from error
    return user


def _forget_old_pending() -> None:
    """Delete expired accounts that were never confirmed: their names and addresses become free."""
    too_old = timezone.now() - datetime.timedelta(seconds=settings.PASSWORD_RESET_TIMEOUT)
    User.objects.filter(is_pending=True, date_joined__lt=too_old).delete()


_SUBJECTS: Final = {
    "confirm": "Your account at newdreamflow",
    "address_taken": "You have an account at newdreamflow",
    "change_address": "Your new address at newdreamflow",
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

"""Django app configuration of `accounts`."""

from __future__ import annotations

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """The app."""

    name = "newdreamflow.accounts"
    label = "accounts"
    verbose_name = "Accounts"

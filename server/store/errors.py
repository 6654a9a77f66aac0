"""Errors of the job store.

StoreError                  the message is fit for the operator's eyes
├── StoreLockedError        another process has this folder open
├── StoreDamagedError       the file is no sound database: nothing is read from it, nothing is changed in it
├── StoreTooNewError        a later release of this server has written the database
└── StoreUnavailableError   the disk is full, fails or takes no writes: nothing was done; later it may work again
"""

from __future__ import annotations

__all__ = ["StoreDamagedError", "StoreError", "StoreLockedError", "StoreTooNewError", "StoreUnavailableError"]


class StoreError(Exception):
    """The job store could not do what was asked. The message is one line for the operator."""


class StoreLockedError(StoreError):
    """The folder belongs to another process, most likely a second gateway."""


class StoreDamagedError(StoreError):
    """SQLite does not take the file for a sound database."""


class StoreTooNewError(StoreError):
    """The database has a schema that this release does not know."""


class StoreUnavailableError(StoreError):
    """Nothing could be read or nothing was written, and nothing is half done. The same call may succeed later."""

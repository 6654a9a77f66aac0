"""What a planted bug is: a mistake in one place, and the test that has to fail for it. `mutate.py` runs them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutation"]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A mistake that somebody might make, and the test that would tell."""

    name: str
    file: str
    """Relative to the repository."""
    old: str
    """A fragment that occurs exactly once in the file."""
    new: str
    """What stands there instead."""
    test: str
    """The node id of the test that must fail."""
    why: str
    """What the mistake would do to people, in a sentence."""

"""Which addresses the site answers at, as its URLconf says: for tests of what must hold at every one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from django.urls import URLPattern, URLResolver, get_resolver

__all__ = ["Route", "routes"]

_ARGUMENT = re.compile(r"<(?:\w+:)?(\w+)>")
_OF_EXPRESSION = re.compile(r"\(\?P(<\w+>)[^)]*\)")


@dataclass(frozen=True, slots=True)
class Route:
    """One address, or one kind of them."""

    name: str
    """With its namespaces, as `reverse` takes it; some of Django's own have none."""
    pattern: str
    """`dream/<uuid>/cancel`: what stands for an argument is its name."""

    def address(self, **arguments: object) -> str:
        """With these in their places; a KeyError names one that is missing."""
        return "/" + _ARGUMENT.sub(lambda found: str(arguments[found[1]]), self.pattern)


def routes() -> list[Route]:
    """All of them."""
    return list(_below(get_resolver(), "", ""))


def _below(resolver: URLResolver, namespace: str, pattern: str) -> Iterator[Route]:
    for entry in resolver.url_patterns:
        whole = pattern + _OF_EXPRESSION.sub(r"\1", str(entry.pattern)).removeprefix("^").removesuffix("$")
        if isinstance(entry, URLPattern):
            yield Route(f"{namespace}{entry.name or ''}", _ARGUMENT.sub(r"<\1>", whole))
        else:
            yield from _below(entry, f"{namespace}{entry.namespace}:" if entry.namespace else namespace, whole)

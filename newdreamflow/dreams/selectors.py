"""Database queries of the pages: filters, search, paging of dreams. (Money: `account_statement.py`.)"""

from __future__ import annotations

from typing import Final

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q, QuerySet

from newdreamflow.dreams.models import AnyUser, Dream, Tag
from newdreamflow.text import folded

__all__ = ["DREAMS_A_PAGE", "common_tags", "latest", "matching", "own_dreams", "page_of", "public_dreams"]

DREAMS_A_PAGE: Final = 24

_MOST_WORDS: Final = 8
"""Of a search. Each is a condition of the query."""


def public_dreams() -> QuerySet[Dream]:
    """Those that everybody may see."""
    return Dream.objects.present().filter(is_public=True, status=Dream.Status.DONE)


def own_dreams(user: AnyUser) -> QuerySet[Dream]:
    """A user's own, wherever they are."""
    return Dream.objects.present().filter(user=user)


def matching(dreams: QuerySet[Dream], *, search: str = "", tag: str = "") -> QuerySet[Dream]:
    """Those with every word of the search in the prompt or in a tag, and with the tag."""
    tagged = Dream.tags.through.objects
    for word in folded(search).split()[:_MOST_WORDS]:
        # Not a join: a dream with two tags that match would be found twice.
        by_tag = tagged.filter(tag__name__contains=word).values("dream_id")
        dreams = dreams.filter(Q(folded_prompt__contains=word) | Q(pk__in=by_tag))
    return dreams.filter(pk__in=tagged.filter(tag__name=tag).values("dream_id")) if tag else dreams


def page_of(dreams: QuerySet[Dream], number: str | None) -> Page[Dream]:
    """One page, with pictures and tags; the nearest one there is."""
    return Paginator(dreams.select_related("user").prefetch_related("pictures", "tags"), DREAMS_A_PAGE).get_page(number)


def latest(dreams: QuerySet[Dream], number: int) -> list[Dream]:
    """The newest, with pictures."""
    return list(dreams.prefetch_related("pictures")[:number])


def common_tags(dreams: QuerySet[Dream], number: int = 16, *, least: int = 1) -> list[Tag]:
    """The tags of most of these dreams, the most common first; each of so many dreams at least."""
    found = Tag.objects.filter(dreams__in=dreams.order_by().values("pk"))
    return list(
        found.annotate(num_dreams=Count("dreams"))
        .filter(num_dreams__gte=least)
        .order_by("-num_dreams", "name")[:number]
    )

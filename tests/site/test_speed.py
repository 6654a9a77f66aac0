"""How much the site adds to drawing, with the fake engine; the figures of a quiet machine are in benchmarks/results."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.site.visitor import Visitor
from tests.site.whole_site import whole_site


@pytest.fixture(scope="module")
def visitors(tmp_path_factory):
    with whole_site(tmp_path_factory.mktemp("site"), MODEL_ID="fake-engine:1") as site:
        people = [Visitor(site.url, f"visitor{number}") for number in range(10)]
        people[0].dream()
        yield people
        for visitor in people:
            visitor.close()


def test_a_picture_is_seen_half_a_second_after_it_was_asked_for(visitors):
    seen = [visitors[0].dream().picture_s for _ in range(8)]
    assert statistics.median(seen) <= 0.5, seen


def test_ten_people_at_once_all_see_progress_within_two_seconds(visitors):
    """
    In one of a few tries: what else runs on this machine passes, and a site that is slow stays slow.
    """
    tries: list[list[float]] = []
    while not tries or (max(tries[-1]) > 2.0 and len(tries) < 4):
        with ThreadPoolExecutor(10) as threads:
            tries.append(list(threads.map(lambda visitor: visitor.dream().first_step_s, visitors)))
    assert max(tries[-1]) <= 2.0, tries

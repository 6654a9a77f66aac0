"""Which engine of several takes a job, and which are left out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engine.params import GenerationParams
from server.executors.messages import EngineInfo
from server.executors.pool import EnginePool
from server.executors.seat import Seat


def params(size: int = 64, num_images: int = 1) -> GenerationParams:
    return GenerationParams(prompt="a lamp", seed=1, height=size, width=size, num_images=num_images)


def engine(state: str = "ready", places: int = 4) -> SimpleNamespace:
    info = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, rows_per_call=2, max_images_in_flight=places)
    return SimpleNamespace(state=state, info=info, models=None)


def pool(*, taken: dict[str, list[tuple[int, int]]], **engines: SimpleNamespace) -> EnginePool:
    """Engines, with jobs of (size, pictures) at some."""
    made = EnginePool(engines)
    for seat in made.seats:
        for number, (size, num_images) in enumerate(taken.get(seat.name, ())):
            seat.take(f"{seat.name}{number}", params(size, num_images), alone=False)
    return made


@pytest.mark.parametrize(
    ("taken", "wish", "expected"),
    [
        ({}, params(), "a"),
        ({"a": [(64, 1)]}, params(), "b"),
        ({"a": [(64, 1)], "b": [(128, 1)]}, params(), "a"),
        ({"a": [(64, 1)], "b": [(128, 1)]}, params(128), "b"),
        ({"a": [(64, 3)], "b": [(64, 2)]}, params(), "b"),
        ({"a": [(64, 3)], "b": [(128, 1)]}, params(num_images=2), "b"),
        ({"a": [(64, 4)], "b": [(64, 3)]}, params(num_images=2), None),
        ({"a": [(64, 4)]}, params(num_images=8), "b"),
    ],
)
def test_a_job_goes_to_an_idle_engine_then_to_one_of_its_size_then_to_the_least_loaded(taken, wish, expected):
    seat = pool(a=engine(), b=engine(), taken=taken).place_for(wish)
    assert (seat and seat.name) == expected


@pytest.mark.parametrize("state", ["loading", "failed", "stopped"])
def test_an_engine_that_does_not_draw_gets_nothing(state):
    seat = pool(a=engine(state), b=engine(), taken={"b": [(64, 3)]}).place_for(params())
    assert seat is not None
    assert seat.name == "b"


@pytest.mark.parametrize(
    ("taken", "lost_by", "expected"),
    [
        ({}, {"a"}, "b"),
        ({"b": [(64, 1)]}, {"a"}, None),  # b will be idle sometime; a may be what ends the job
        ({"a": [(64, 1)]}, {"a", "b"}, "b"),
        ({"a": [(64, 1)], "b": [(64, 1)]}, set(), None),
    ],
)
def test_the_last_attempt_is_made_alone_and_elsewhere(taken, lost_by, expected):
    seat = pool(a=engine(), b=engine(), taken=taken).place_for(params(), alone=True, lost_by=lost_by)
    assert (seat and seat.name) == expected


def test_the_last_attempt_is_made_where_the_others_were_if_there_is_no_other_engine():
    seat = pool(a=engine(), b=engine("loading"), taken={}).place_for(params(), alone=True, lost_by={"a"})
    assert seat is not None
    assert seat.name == "a"


def test_nothing_joins_a_job_that_runs_alone():
    only = pool(a=engine(), taken={})
    only.seats[0].take("last", params(), alone=True)
    assert only.place_for(params()) is None
    assert only.num_free_places(params()) == 0


class TestLosses:
    """
    An engine is left out when no one job explains its losses.
    """

    def losses(self, *losses: str) -> list[float]:
        """The pauses after engine losses, each with the jobs that it had; `+` is a job that ended well."""
        seat, pauses = Seat("a", engine()), []
        for jobs in losses:
            if jobs == "+":
                seat.worked()
                continue
            for job_id in jobs:
                seat.take(job_id, params(), alone=False)
            pauses.append(sum(seat.lost(job_id) for job_id in jobs))
            for job_id in jobs:
                seat.leave(job_id)
        return pauses

    @pytest.mark.parametrize(
        ("losses", "pauses"),
        [
            (["xab", "xc", "x"], [0, 0, 0]),  # x ends every engine
            (["ab"], [0]),  # one loss, however many jobs it cost
            (["a", "b"], [0, 1]),
            (["ab", "ab", "cd", "e"], [0, 0, 1, 2]),
            (["a", "+", "b"], [0, 0]),
            (["a", "b", "c", "+", "d", "e"], [0, 1, 2, 0, 1]),
            (["a", "b", *"cdefghi"], [0, 1, 2, 4, 8, 16, 32, 60, 60]),
        ],
    )
    def test_the_pause_grows_with_every_loss_that_no_job_explains(self, losses, pauses):
        assert self.losses(*losses) == pauses

    def test_a_paused_engine_gets_work_again_when_its_time_is_over(self):
        now = 100.0
        seat = Seat("a", engine(), now=lambda: now)
        seat.pause(2.0)
        assert seat.is_paused
        now = 102.0
        assert not seat.is_paused

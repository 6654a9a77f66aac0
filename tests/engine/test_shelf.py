"""Several models: who is in memory, who leaves, and that pictures do not depend on it."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch

from engine.engine import Engine
from engine.errors import DoesNotFitError, EngineError
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from engine.shelf import Shelf
from tests.engine.drawing import Params, add_all, images, run


class Loads:
    """Counts what is loaded."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> str:
        self.names.append(name)
        return name.upper()


SIZES = {"a": 4, "b": 4, "c": 4, "large": 11}


def test_what_was_used_longest_ago_makes_room_and_what_is_used_stays():
    loads = Loads()
    shelf = Shelf(loads, SIZES, budget_bytes=10)
    assert shelf.borrow("a") == "A"
    shelf.borrow("b")
    shelf.give_back("b")
    shelf.borrow("c")
    assert [*shelf.resident] == ["a", "c"], "b was used last, but a is still in use"
    shelf.give_back("a")
    shelf.give_back("c")
    shelf.borrow("a")
    shelf.give_back("a")
    shelf.borrow("b")
    assert [*shelf.resident] == ["a", "b"]
    assert loads.names == ["a", "b", "c", "b"]


def test_a_job_waits_for_the_end_of_another_model_s_last_job():
    shelf = Shelf(Loads(), SIZES, budget_bytes=4)
    shelf.borrow("a")
    shelf.borrow("a")
    got: list[str] = []
    waiting = threading.Thread(target=lambda: got.append(shelf.borrow("b")))
    waiting.start()
    shelf.give_back("a")
    assert [*shelf.resident] == ["a"]
    shelf.give_back("a")
    waiting.join(60)
    assert got == ["B"]
    assert [*shelf.resident] == ["b"]


def test_what_never_fits_is_refused_and_what_waits_at_the_end_is_told():
    shelf = Shelf(Loads(), SIZES, budget_bytes=10)
    with pytest.raises(DoesNotFitError, match="the model large needs"):
        shelf.borrow("large")
    shelf.borrow("a")
    shelf.borrow("b")
    errors: list[Exception] = []

    def wait() -> None:
        try:
            shelf.borrow("c")
        except EngineError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    shelf.close()
    waiting.join(60)
    assert [str(error) for error in errors] == ["the engine is shutting down"]


def test_without_a_budget_everything_stays():
    shelf = Shelf(Loads(), SIZES)
    for name in SIZES:
        shelf.borrow(name)
    assert [*shelf.resident] == [*SIZES]


def test_a_model_that_left_and_came_back_draws_the_same_bytes_and_leaves_nothing(tmp_path, params: Params):
    """Draw, evict, draw; the memory of what has left is free."""
    for seed, name in enumerate("ab"):
        make_random_model(tmp_path / name, seed=seed)

    def load(name: str) -> Engine:
        return Engine(StableDiffusion.load(locate(str(tmp_path / name)), torch.device("cpu"), torch.float32))

    shelf = Shelf(load, {"a": 1, "b": 1}, budget_bytes=1, forget=lambda _: gc.collect())
    drawn: dict[str, list[object]] = {"a": [], "b": []}
    gone: list[weakref.ref[Engine]] = []
    for name in "abab":
        engine = shelf.borrow(name)
        add_all(engine, [params()])
        drawn[name].append(images(run(engine)))
        gone.append(weakref.ref(engine))
        del engine
        shelf.give_back(name)
    assert drawn["a"][0] == drawn["a"][1]
    assert drawn["b"][0] == drawn["b"][1]
    assert drawn["a"][0] != drawn["b"][0]
    assert [reference() is None for reference in gone] == [True, True, True, False]

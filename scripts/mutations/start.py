"""The planted bugs of the start; see `base.py`."""

from __future__ import annotations

from typing import Final

from mutations.base import Mutation

__all__ = ["MUTATIONS"]


MUTATIONS: Final = (
    # --- the start ----------------------------------------------------------------------------------------------------
    Mutation(
        name="warm-up-beside-a-job",
        file="engine/warm_up.py",
        old="            self._engine.cancel(_REQUEST_ID)\n",
        new="",
        test="tests/engine/test_warm_up.py::test_a_request_goes_first_and_its_picture_is_the_same",
        why="The first request after a start would share the device with a picture that nobody wants.",
    ),
    Mutation(
        name="cold-engine-watched-as-a-warm-one",
        file="server/executors/message_executor.py",
        old="frozenset() if message.is_warm else frozenset({",
        new="frozenset() if True else frozenset({",
        test="tests/server/executors/test_supervision.py"
        "::test_the_first_engine_is_ready_before_it_is_warm_and_another_one_after",
        why="A large model on a slow machine would be killed in its first step, again and again.",
    ),
    Mutation(
        name="replacement-ready-before-it-is-warm",
        file="server/executors/child_process.py",
        old="warms_up_first=True",
        new="warms_up_first=False",
        test="tests/server/executors/test_supervision.py"
        "::test_the_first_engine_is_ready_before_it_is_warm_and_another_one_after",
        why="A job that hangs the device would be found out after ten minutes at every attempt, not after ten seconds.",
    ),
)

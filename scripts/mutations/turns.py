"""The planted bugs of turns, cancels and memory; see `base.py`."""

from __future__ import annotations

from typing import Final

from mutations.base import Mutation

__all__ = ["MUTATIONS"]

ENGINE: Final = "engine/engine.py"
ETA: Final = "server/jobs/eta_simulation.py"
LEG: Final = "engine/leg_state.py"
BATCH_SCHEDULER: Final = "engine/batch_scheduler.py"
SIMULATED: Final = "tests/server/jobs/test_eta_simulation.py::test_every_job_of_any_mix_ends_when_the_simulation_says"
OUT_OF_MEMORY: Final = "tests/engine/test_engine_failures.py::test_out_of_memory_costs_nobody_a_picture"

EARLY: Final = "tests/engine/test_finish_early.py"
TURNS: Final = "tests/server/jobs/test_model_turns.py"

MUTATIONS: Final = (
    # --- several models -----------------------------------------------------------------------------------------------
    Mutation(
        name="turns-without-end",
        file="server/jobs/model_turns.py",
        old="if now - head.held_since < max(",
        new="if now < max(",
        test=f"{TURNS}::test_a_job_waits_for_its_model_no_longer_than_the_bound",
        why="Under a flood of requests for one model nobody would ever get a picture of another.",
    ),
    Mutation(
        name="model-still-loading-forgotten",
        file="server/executors/seat.py",
        old="model in models.resident or model in self._models_in_use:",
        new="model in models.resident:",
        test=f"{TURNS}::test_while_a_model_loads_only_its_own_jobs_join",
        why="While a model loads, its jobs would wait for a place that they have already.",
    ),
    # --- turns, cancels and memory ------------------------------------------------------------------------------------
    Mutation(
        name="newest-size-first",
        file=BATCH_SCHEDULER,
        old="key = min(sharing, key=lambda key: self._last_turn.get(key, 0))",
        new="key = list(sharing)[-1]",
        test="tests/engine/test_engine.py::test_no_size_starves_another",
        why="A stream of small pictures would hold up a large one for ever.",
    ),
    Mutation(
        name="oldest-size-first",
        file=BATCH_SCHEDULER,
        old="key = min(sharing, key=lambda key: self._last_turn.get(key, 0))",
        new="key = next(iter(sharing))",
        test="tests/engine/test_batch_scheduler.py::test_sizes_take_turns_step_by_step",
        why="A small picture would wait for a large one to be drawn to its end.",
    ),
    Mutation(
        name="everybody-in-flight",
        file=BATCH_SCHEDULER,
        old="len(self.running) < self._max_images_in_flight and not self._is_draining",
        new="not self._is_draining",
        test="tests/engine/test_batch_scheduler.py::test_no_more_pictures_are_begun_than_may_be_in_flight",
        why="All pictures would be finished late, instead of one after another.",
    ),
    Mutation(
        name="decodes-in-a-row",
        file=BATCH_SCHEDULER,
        old="self.running and (self._has_just_decoded or self._is_draining)",
        new="self.running and self._is_draining",
        test="tests/engine/test_engine.py::test_a_decode_does_not_hold_up_the_others_for_long",
        why="Eight pictures that end together would hold up everybody else for eight decodes.",
    ),
    Mutation(
        name="newest-dropped-when-memory-is-short",
        file=ENGINE,
        old="self._free_memory()\n        picture = batch.pictures[0]",
        new="self._batch_scheduler.running.remove(batch.pictures[-1])\n        picture = batch.pictures[0]",
        test=OUT_OF_MEMORY,
        why="A caller would wait for ever for a picture that nobody draws.",
    ),
    Mutation(
        name="memory-lesson-too-harsh",
        file=BATCH_SCHEDULER,
        old="used - pictures[-1].num_rows if len(pictures) > 1 else used",
        new="2 if len(pictures) > 1 else used",
        test="tests/engine/test_engine_failures.py::test_the_learned_limit_is_kept",
        why="One call that was a little too large would make every later one as small as can be.",
    ),
    Mutation(
        name="cancel-forgets-who-waits",
        file=BATCH_SCHEDULER,
        old="self.waiting = deque(rest(self.waiting))",
        new="pass",
        test="tests/engine/test_engine.py::test_a_cancel_at_any_instant_leaves_nothing_behind_and_disturbs_nobody",
        why="The pictures of a cancelled request that still wait would be begun for nobody.",
    ),
    Mutation(
        name="calls-of-any-number-of-rows",
        file=BATCH_SCHEDULER,
        old="used + picture.num_rows <= self.row_limit(key)",
        new="True",
        test="tests/server/jobs/test_estimated_ends.py::test_pictures_beyond_the_rows_of_a_call_wait_for_the_older_ones",
        why="Calls would grow with the queue, until the device's memory is full.",
    ),
    Mutation(
        name="joins-while-memory-is-awaited",
        file=BATCH_SCHEDULER,
        old="self._is_draining = self._is_draining or bool(self.running)",
        new="pass",
        test="tests/engine/test_engine_failures.py::test_a_decode_that_does_not_fit_waits_until_the_batch_has_left",
        why="A picture whose decode needs all of the memory would be tried again and again, others at its place.",
    ),
    Mutation(
        name="estimate-counts-a-call-too-few",
        file=ETA,
        old="self.clock_s += times * ",
        new="self.clock_s += max(1, times - 1) * ",
        test=SIMULATED,
        why="Every estimate would be a call or a few too short.",
    ),
    Mutation(
        name="estimate-of-sizes-that-never-wait",
        file=ETA,
        old="for _ in sharing:\n                    self._step(rounds)",
        new="self._step(rounds)",
        test=SIMULATED,
        why="Estimates of one size would leave out the calls of the others.",
    ),
    Mutation(
        name="estimate-of-the-rows-it-began-with",
        file=ETA,
        old="self._times.step_rows(*sides, model=model, otherwise=self._rows_per_call)",
        new="self._rows_per_call",
        test="tests/server/jobs/test_eta_simulation.py"
        "::test_after_a_call_ran_out_of_memory_estimates_are_of_the_smaller_calls",
        why="After a call ran out of memory every waiting time told would be half the true one, for ever.",
    ),
    Mutation(
        name="no-memory-alone-is-a-failure",
        file=ENGINE,
        old="if is_out_of_memory(error):\n                    events += self._make_room(alone)",
        new="if False:\n                    events += self._make_room(alone)",
        test="tests/engine/test_engine_failures.py::test_a_picture_that_finds_no_memory_alone_waits_for_a_smaller_call",
        why="A full device would be taken for a broken one, and every running picture lost.",
    ),
    Mutation(
        name="all-noise-on-the-device",
        file=LEG,
        old="pinned(noise.steps, device)",
        new="sent(noise.steps, device)",
        test="tests/engine/test_engine_failures.py::test_later_noise_is_on_the_device_only_while_a_picture_is_drawn",
        why="Pictures that only wait would fill the device's memory: a gigabyte for eight large ones.",
    ),
    # --- pictures that are handed over early --------------------------------------------------------------------------
    Mutation(
        name="early-picture-with-its-noise",
        file=ENGINE,
        old="self._previewer.latest(picture) if picture.is_cut_short else picture.leg.latents",
        new="picture.leg.latents",
        test=f"{EARLY}::test_what_comes_early_is_the_decoded_estimate",
        why="An interrupted picture would be covered by the noise that its next steps had taken away.",
    ),
    Mutation(
        name="early-picture-of-nothing",
        file=ENGINE,
        old="picture for picture in meant if picture.shown_leg is not None",
        new="picture for picture in meant",
        test=f"{EARLY}::test_pictures_of_which_nothing_shows_are_left_out",
        why="An interrupt would fail where pictures of the call had not begun.",
    ),
    Mutation(
        name="skip-ends-the-whole-call",
        file="server/jobs/dispatcher.py",
        old="await live.finish_early(batch)",
        new="await live.finish_early(None)",
        test="tests/clients/test_webuiapi_client.py::test_an_interrupt_ends_every_batch_and_a_skip_the_present_one",
        why="Skipping one batch would end those after it.",
    ),
)

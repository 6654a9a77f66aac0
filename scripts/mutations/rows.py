"""The planted bugs of rows, guidance and arithmetic of a step; see `base.py`."""

from __future__ import annotations

from typing import Final

from mutations.base import Mutation

__all__ = ["MUTATIONS"]

BATCH: Final = "engine/batch.py"
ENGINE: Final = "engine/engine.py"
JOURNEY: Final = "engine/journey.py"
PARAMS: Final = "engine/params.py"
TABLES: Final = "engine/table_store.py"
LEG: Final = "engine/leg_state.py"
IN_COMPANY: Final = "tests/engine/test_engine.py::test_all_at_once_gives_the_bytes_of_each_alone"
EVERY_WISH: Final = "tests/engine/test_engine.py::test_every_wish_shows_in_the_picture"
SHOWN: Final = "tests/engine/test_batch.py::test_the_network_is_shown_each_pictures_own_latents_timestep_and_prompts"
GUIDED: Final = "tests/engine/test_batch.py::test_guidance_moves_from_the_negative_prompt_towards_the_prompt_and_beyond"
TABLE_TESTS: Final = "tests/engine/test_table_store.py"
LIKE_DIFFUSERS: Final = (
    "tests/engine/test_batch.py::test_different_samplers_in_one_batch_each_end_where_diffusers_own_loop_does"
)

MUTATIONS: Final = (
    # --- rows and slots -----------------------------------------------------------------------------------------------
    Mutation(
        name="one-timestep-for-the-batch",
        file=BATCH,
        old="[conditioning.time[state.call_index] for state,",
        new="[conditioning.time[self.states[0].call_index] for state,",
        test=IN_COMPANY,
        why="A picture that joins midway would be denoised as if it were as far as the oldest one.",
    ),
    Mutation(
        name="timesteps-rounded",
        file=LEG,
        old="timesteps=tuple(journey.timesteps.tolist()),",
        new="timesteps=tuple(journey.timesteps.round().tolist()),",
        test=SHOWN,
        why="Karras levels lie between whole timesteps: the network would be told another noise level than there is.",
    ),
    Mutation(
        name="input-scale-ignored",
        file=BATCH,
        old="shown = latents * scales",
        new="shown = latents",
        test=SHOWN,
        why="Euler's network would see latents up to fourteen times too large.",
    ),
    Mutation(
        name="rows-crossed",
        file=BATCH,
        old="strict=True):\n            state.slots",
        new="strict=True):\n            new = new_slots.flip(0)[states.index(state)]\n            state.slots",
        test=IN_COMPANY,
        why="One caller would get another caller's picture.",
    ),
    Mutation(
        name="slots-of-another-picture",
        file=BATCH,
        old="_more_slots(state.slots, num_slots) for state in states",
        new="_more_slots(states[0].slots, num_slots) for state in states",
        test=IN_COMPANY,
        why="Every picture of a batch would go on from the oldest one's latents.",
    ),
    Mutation(
        name="matrices-of-another-picture",
        file=BATCH,
        old="_widen(state.matrices[state.call_index], num_slots)",
        new="_widen(states[0].matrices[states[0].call_index], num_slots)",
        test=IN_COMPANY,
        why="Every picture of a batch would be drawn by the oldest one's sampler.",
    ),
    Mutation(
        name="last-step-skipped",
        file=LEG,
        old="self.call_index == self.num_calls",
        new="self.call_index >= self.num_calls - 1",
        test="tests/engine/test_engine.py::test_progress_counts_the_model_calls",
        why="Every picture would keep the noise that its last step removes.",
    ),
    Mutation(
        name="padding-leaks",
        file=BATCH,
        old="answers = [prediction[row] for row in self.last_rows]",
        new="answers = [prediction[row - len(prediction) + 1] for row in self.last_rows]",
        test=GUIDED,
        why="An unguided picture would be drawn from rows of zeros that have no prompt.",
    ),
    Mutation(
        name="calls-not-padded",
        file=ENGINE,
        old="self._batch_scheduler.row_limit(pictures[0].batch_key) if self._is_reproducible else 0",
        new="0",
        test="tests/engine/test_engine.py::test_every_call_of_one_size_has_the_same_number_of_rows",
        why="The last bits of a picture would depend on who else is being drawn.",
    ),
    # --- guidance -----------------------------------------------------------------------------------------------------
    Mutation(
        name="guidance-dropped",
        file=BATCH,
        old="negative + scales * (positive - negative)",
        new="positive + 0 * scales",
        test=EVERY_WISH,
        why="guidance_scale and negative_prompt would do nothing.",
    ),
    Mutation(
        name="guidance-inverted",
        file=BATCH,
        old="negative + scales * (positive - negative)",
        new="negative - scales * (positive - negative)",
        test=GUIDED,
        why="Pictures would show anything but what was asked for.",
    ),
    Mutation(
        name="guidance-of-another-picture",
        file=BATCH,
        old="[self.states[index].guidance[0] for index in guided]",
        new="[self.states[0].guidance[0] for index in guided]",
        test=IN_COMPANY,
        why="Every picture of a batch would follow the oldest one's guidance_scale.",
    ),
    Mutation(
        name="prompts-swapped",
        file=BATCH,
        old="guided = [index for",
        new="prediction = prediction.flip(0)\n        guided = [index for",
        test=GUIDED,
        why="The negative prompt would be drawn and the prompt avoided.",
    ),
    Mutation(
        name="prompts-swapped-in-the-rows",
        file=BATCH,
        old="for conditioning in state.told]",
        new="for conditioning in reversed(state.told)]",
        test=SHOWN,
        why="The rows would no longer be where guidance looks for them.",
    ),
    Mutation(
        name="unguided-pays-twice",
        file=PARAMS,
        old="return self.guidance_scale > 1.0",
        new="return self.guidance_scale >= 1.0",
        test="tests/engine/test_engine.py::test_without_reproducible_calls_nothing_is_padded",
        why="A picture without guidance would take twice the time for the same result.",
    ),
    # --- arithmetic ---------------------------------------------------------------------------------------------------
    Mutation(
        name="coefficients-in-half-precision",
        file=JOURNEY,
        old="coefficients = matrices[..., None, None, None]",
        new="coefficients = matrices[..., None, None, None].half().to(matrices.dtype)",
        test=LIKE_DIFFUSERS,
        why="Every step would be off by a thousandth, and pictures would drift from diffusers'.",
    ),
    Mutation(
        name="update-in-tf32",
        file=BATCH,
        old="advance(slots, answers, self._noise(), matrices)",
        # TF32 keeps 10 bits of the mantissa, as half precision does.
        new="advance(slots, answers.half().float(), self._noise(), matrices)",
        test=LIKE_DIFFUSERS,
        why="What a matrix product with TF32 would do to the update: seen on GPUs only, 2e-3 off.",
    ),
    Mutation(
        name="linearity-unchecked",
        file="engine/probing.py",
        old="if not nonlinearity <= MAX_NONLINEARITY:\n        raise",
        new="if False:\n        raise",
        test="tests/engine/test_engine_failures.py::test_a_sampler_that_clips_is_refused_when_the_request_is_prepared",
        why="A sampler that is no table would draw wrong pictures instead of being refused.",
    ),
    Mutation(
        name="table-cached-without-eta",
        file=JOURNEY,
        old="self.begin,\n            self.eta,",
        new="self.begin,",
        test="tests/engine/test_engine.py::test_eta_changes_the_picture_in_one_engine",
        why="The first DDIM of a process would decide how much noise all later ones add.",
    ),
    Mutation(
        name="table-of-another-route-believed",
        file=TABLES,
        old='    if json.dumps(found["origin"], sort_keys=True) != origin:\n        raise',
        new="    if False:\n        raise",
        test=f"{TABLE_TESTS}::test_the_table_of_another_route_is_not_believed",
        why="A file under a wrong name would draw with another sampler's numbers, and nobody would see why.",
    ),
    Mutation(
        name="damaged-table-believed",
        file=TABLES,
        old='    if hashlib.sha256(document.removesuffix(b"\\n")).hexdigest().encode() != digest:\n        raise',
        new="    if False:\n        raise",
        test=f"{TABLE_TESTS}::test_a_damaged_table_is_probed_again_and_mended",
        why="A flipped bit on the disk would change every picture of a sampler.",
    ),
    Mutation(
        name="table-of-another-library-believed",
        file=TABLES,
        old='            "made_by": _made_by(),\n',
        new="",
        test=f"{TABLE_TESTS}::test_a_table_of_other_makers_is_probed_anew",
        why="After an update of diffusers the old tables would go on being used.",
    ),
    Mutation(
        name="table-kept-without-eta",
        file=TABLES,
        old='                "eta": route.eta,\n',
        new="",
        test=f"{TABLE_TESTS}::test_every_part_of_a_route_and_of_the_model_has_a_table_of_its_own",
        why="After a restart all pictures of DDIM would have the fresh noise of the one that was asked for first.",
    ),
    Mutation(
        name="table-of-another-model-believed",
        file=TABLES,
        old='            "scheduler_config": dict(config),\n',
        new="",
        test=f"{TABLE_TESTS}::test_every_part_of_a_route_and_of_the_model_has_a_table_of_its_own",
        why="The next model of a server would be drawn at the noise levels of the one before.",
    ),
    Mutation(
        name="restart-without-noise",
        file="engine/slopes.py",
        old="noise=math.sqrt(max(following**2 - later**2, 0.0))",
        new="noise=0.0",
        test="tests/engine/test_sampler_table.py::test_restart_goes_back_up_as_often_as_there",
        why="The network would be told of noise that is not there, and the picture come out smooth.",
    ),
    Mutation(
        name="slopes-oldest-first",
        file="engine/slope_table.py",
        old="zip(reversed(call.weights), slopes,",
        new="zip(call.weights, slopes,",
        test="tests/engine/test_sampler_table.py::test_every_number_of_steps_follows_the_loop",
        why="Samplers of several slopes would step by the oldest one.",
    ),
)

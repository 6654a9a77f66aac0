"""Which one-line mistakes must the tests find? A list of planted bugs, each with the test that has to fail for it.

What runs it is `mutate.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["MUTATIONS", "Mutation"]


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


ADMISSION: Final = "server/admission.py"
ATTEMPTS: Final = "server/jobs/attempts.py"
BATCH: Final = "engine/batch.py"
ENGINE: Final = "engine/engine.py"
DISPATCHER: Final = "server/jobs/dispatcher.py"
ETA: Final = "server/jobs/eta_simulation.py"
GENERATOR: Final = "server/generator.py"
JOURNEY: Final = "engine/journey.py"
MODEL: Final = "engine/models/stable_diffusion.py"
PARAMS: Final = "engine/params.py"
PROMPTS: Final = "engine/prompts/encoder.py"
TABLES: Final = "engine/table_store.py"
NOISE: Final = "engine/noise.py"
PICTURE: Final = "engine/picture.py"
LEG: Final = "engine/leg_state.py"
BATCH_SCHEDULER: Final = "engine/batch_scheduler.py"
SEAT: Final = "server/executors/seat.py"
STORE_THREAD: Final = "server/store/group_commit.py"
WORKER: Final = "server/worker/engine_worker.py"

IN_COMPANY: Final = "tests/engine/test_engine.py::test_all_at_once_gives_the_bytes_of_each_alone"
EVERY_WISH: Final = "tests/engine/test_engine.py::test_every_wish_shows_in_the_picture"
NEXT_SEEDS: Final = (
    "tests/engine/test_engine.py::test_a_request_for_many_pictures_is_as_many_requests_with_the_next_seeds"
)
SIMULATED: Final = "tests/server/jobs/test_eta_simulation.py::test_every_job_of_any_mix_ends_when_the_simulation_says"
OUT_OF_MEMORY: Final = "tests/engine/test_engine.py::test_out_of_memory_costs_nobody_a_picture"
SHOWN: Final = "tests/engine/test_batch.py::test_the_network_is_shown_each_pictures_own_latents_timestep_and_prompts"
GUIDED: Final = "tests/engine/test_batch.py::test_guidance_moves_from_the_negative_prompt_towards_the_prompt_and_beyond"
TABLE_TESTS: Final = "tests/engine/test_table_store.py"
LIKE_DIFFUSERS: Final = (
    "tests/engine/test_batch.py::test_different_samplers_in_one_batch_each_end_where_diffusers_own_loop_does"
)
INPAINTED: Final = "tests/engine/test_oracle_pictures.py::test_inpainting_equals_diffusers"

MUTATIONS: Final = (
    # --- randomness ---------------------------------------------------------------------------------------------------
    Mutation(
        name="noise-shared",
        file=NOISE,
        old="torch.Generator().manual_seed(seed)",
        new="torch.Generator().manual_seed(0)",
        test=EVERY_WISH,
        why="Every picture would start from the same noise, whatever its seed.",
    ),
    Mutation(
        name="one-seed-for-all",
        file=PICTURE,
        old="params.of_image(image_index)",
        new="params.of_image(0)",
        test=NEXT_SEEDS,
        why="Somebody who asks for four pictures would get the same one four times.",
    ),
    Mutation(
        name="noise-from-everybodys-generator",
        file=NOISE,
        old="torch.randn((1, *shape), generator=generator)[0]",
        new="torch.randn((1, *shape))[0]",
        test=IN_COMPANY,
        why="A picture would depend on how many were drawn before it.",
    ),
    Mutation(
        name="noise-in-one-draw",
        file=NOISE,
        old="    for step in steps:\n        torch.randn((1, *shape), generator=generator, out=step[None])\n",
        new="    torch.randn(steps.shape, generator=generator, out=steps)\n",
        test="tests/engine/test_noise.py::test_each_draw_is_the_one_that_diffusers_would_make_at_that_step",
        why="Sizes that are not a multiple of 16 numbers would differ from diffusers' pictures of the same seed.",
    ),
    Mutation(
        name="initial-noise-unscaled",
        file=LEG,
        old="entry * self.initial_noise_scale",
        new="entry",
        test=LIKE_DIFFUSERS,
        why="Euler's pictures would begin with a fourteenth of their noise and end grey.",
    ),
    Mutation(
        name="noise-never-advances",
        file=BATCH,
        old="state.noise_index += state.draws[state.call_index]",
        new="state.noise_index += 0",
        test=LIKE_DIFFUSERS,
        why="A stochastic sampler would add the same noise at every step.",
    ),
    # --- pictures that come in ----------------------------------------------------------------------------------------
    Mutation(
        name="draw-order-swapped",
        file=NOISE,
        old="    image = draw() if has_image else None\n    entry = draw()\n",
        new="    entry = draw()\n    image = draw() if has_image else None\n",
        test="tests/engine/test_noise.py::test_draws_come_in_the_order_of_diffusers_pipelines",
        why="Image to image would give other pictures than diffusers for the same seed.",
    ),
    Mutation(
        name="blend-a-step-behind",
        file=LEG,
        old="self.known[self.call_index]",
        new="self.known[self.call_index - 1]",
        test=INPAINTED,
        why="What is kept would be as noisy as one call ago, and never without noise.",
    ),
    Mutation(
        name="nearest-mask",
        file="engine/pictures/mask.py",
        old="np.logical_or.reduce(cells, axis=(1, 3))",
        new="cells[:, 0, :, 0]",
        test="tests/engine/pictures/test_mask.py::test_a_line_of_one_pixel_survives",
        why="Lines thinner than a latent would be drawn in part, or not at all.",
    ),
    Mutation(
        name="composite-before-rounding",
        file="engine/pictures/composite.py",
        old="(255 - share) * old + 127) // 255",
        new="(255 - share) * old) // 255",
        test="tests/engine/pictures/test_composite.py::test_every_mix_of_two_bytes_is_rounded_to_the_nearest",
        why="Every repeated inpainting would darken the soft edge of its mask.",
    ),
    Mutation(
        name="hires-noise-of-another-seed",
        file=PICTURE,
        old="draw_noise(params.seed, shape, num_steps,",
        new='draw_noise(params.seed + (plan.start == "leg"), shape, num_steps,',
        test="tests/engine/test_oracle_pictures.py"
        "::test_hires_fix_equals_a_text_to_image_and_an_image_to_image_pipeline",
        why="The second leg has a fresh generator of the same seed, as A1111's.",
    ),
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
        old="self._padded(latents * scales)",
        new="self._padded(latents)",
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
        old="[state.guidance_scale for state in self.states if state.num_rows == 2]",
        new="[self.states[0].guidance_scale for state in self.states if state.num_rows == 2]",
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
        old="(state.negative_conditioning, state.conditioning)",
        new="(state.conditioning, state.negative_conditioning)",
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
        old="self.guide(prediction), self._noise(), matrices)",
        # TF32 keeps 10 bits of the mantissa, as half precision does.
        new="self.guide(prediction).half().float(), self._noise(), matrices)",
        test=LIKE_DIFFUSERS,
        why="What a matrix product with TF32 would do to the update: seen on GPUs only, 2e-3 off.",
    ),
    Mutation(
        name="linearity-unchecked",
        file="engine/probing.py",
        old="if not nonlinearity <= MAX_NONLINEARITY:\n        raise",
        new="if False:\n        raise",
        test="tests/engine/test_engine.py::test_a_sampler_that_clips_is_refused_when_the_request_is_prepared",
        why="A sampler that is no table would draw wrong pictures instead of being refused.",
    ),
    Mutation(
        name="table-cached-without-eta",
        file=JOURNEY,
        old="self.begin, self.eta",
        new="self.begin",
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
    # --- what the networks read and answer ----------------------------------------------------------------------------
    Mutation(
        name="timesteps-whole-in-the-model",
        file=MODEL,
        old="told = [timesteps] if",
        new="told = [timesteps.long()] if",
        test="tests/engine/test_stable_diffusion.py::test_the_network_is_told_the_fraction_of_a_timestep",
        why="Karras schedules would be drawn at other noise levels than the table assumes.",
    ),
    Mutation(
        name="decode-unscaled",
        file=MODEL,
        old="(latents / self._vae_layout.scaling_factor)",
        new="latents",
        test="tests/engine/test_stable_diffusion.py::"
        "test_pixels_are_scaled_and_rounded_to_the_last_bit_as_diffusers_does",
        why="Pictures would come out pale: Stable Diffusion's latents are scaled by 0.18.",
    ),
    Mutation(
        name="pixels-truncated",
        file=MODEL,
        old="* 255).round()",
        new="* 255)",
        test="tests/engine/test_stable_diffusion.py::"
        "test_pixels_are_scaled_and_rounded_to_the_last_bit_as_diffusers_does",
        why="Pictures would be half a level too dark, too little for any eye to notice.",
    ),
    Mutation(
        name="markers-not-counted",
        file=MODEL,
        old="len(self._tokenizer.tokens(prompt)) - PROMPT_TOKENS",
        new="len(self._tokenizer.tokens(prompt)) - PROMPT_TOKENS - 2",
        test="tests/engine/test_stable_diffusion.py::test_tokens_beyond_what_is_read_are_counted",
        why="A prompt could lose its last two words without anybody being told.",
    ),
    Mutation(
        name="negative-truncation-untold",
        file="engine/params.py",
        old="for text in (leg.prompt, leg.negative_prompt) if text",
        new="for text in (leg.prompt,) if text",
        test="tests/engine/test_prompts.py::"
        "test_truncated_tokens_of_both_texts_are_counted_and_only_of_those_that_are_read",
        why="A negative prompt could be cut without anybody being told.",
    ),
    Mutation(
        name="prompts-remembered-by-their-beginning",
        file=PROMPTS,
        old="self._texts.get(prompt, lambda",
        new="self._texts.get(prompt[:77], lambda",
        test="tests/engine/test_prompts.py::test_texts_that_differ_anywhere_are_read_apart",
        why="77 is the limit in tokens, not in characters: somebody would get the picture of another prompt.",
    ),
    Mutation(
        name="prompts-never-forgotten",
        file=PROMPTS,
        old="while len(self._values) > MAX_REMEMBERED or (",
        new="while (",
        test="tests/engine/test_prompts.py::test_the_text_that_was_not_used_for_longest_is_forgotten",
        why="A server would grow by 0.2 MB with every new prompt until it is killed.",
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
        test="tests/engine/test_engine.py::test_the_learned_limit_is_kept",
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
        test="tests/engine/test_engine.py::test_a_decode_that_does_not_fit_waits_until_the_batch_has_left",
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
        old="self._times.step_rows(*size, otherwise=self._rows_per_call)",
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
        test="tests/engine/test_engine.py::test_a_picture_that_finds_no_memory_alone_waits_for_a_smaller_call",
        why="A full device would be taken for a broken one, and every running picture lost.",
    ),
    Mutation(
        name="all-noise-on-the-device",
        file=LEG,
        old="_pinned(noise.steps, device)",
        new="_sent(noise.steps, device)",
        test="tests/engine/test_engine.py::test_later_noise_is_on_the_device_only_while_a_picture_is_drawn",
        why="Pictures that only wait would fill the device's memory: a gigabyte for eight large ones.",
    ),
    # --- around the engine --------------------------------------------------------------------------------------------
    Mutation(
        name="cancel-one-step-late",
        file=WORKER,
        old="for event in self._engine.step():",
        new="for event in [*self._engine.step(), *self._engine.step()]:",
        test="tests/server/worker/test_engine_worker.py::test_a_cancel_is_heard_before_the_next_step",
        why="A step on a large picture takes seconds, and whoever cancelled would pay for it.",
    ),
    Mutation(
        name="end-before-the-pictures",
        file=WORKER,
        old="self._files = ThreadPoolExecutor(1, ",
        new="self._files = ThreadPoolExecutor(4, ",
        test="tests/server/worker/test_engine_worker.py::test_the_end_of_a_job_never_overtakes_its_pictures",
        why="A job would end while its pictures are still being written, and its caller would get an error.",
    ),
    Mutation(
        name="pictures-as-they-came",
        file=ATTEMPTS,
        old="tuple(image for _, image in sorted(images.items()))",
        new="tuple(images.values())",
        test="tests/server/test_generator.py::"
        "test_pictures_come_in_the_order_of_their_seeds_however_they_were_handed_over",
        why="The second picture would be taken for the first seed's.",
    ),
    Mutation(
        name="told-before-it-is-written",
        file=ATTEMPTS,
        old="await asyncio.wait([beginning])",
        new="return True",
        test="tests/server/test_generator.py::"
        "test_the_engine_sets_to_work_while_the_disk_does_and_nobody_is_told_before_it_is_done",
        why="A job would show steps that a restart knows nothing of.",
    ),
    Mutation(
        name="refused-writes-stay",
        file=STORE_THREAD,
        old="if not _carried_out(connection, writes):",
        new="if False:",
        test="tests/server/store/test_job_store.py::test_an_operation_that_fails_halfway_is_undone_and_its_neighbours_are_not",
        why="Half of what was refused would be in the store.",
    ),
    Mutation(
        name="hang-up-unheard",
        file=GENERATOR,
        old="if live is not None and not live.record.is_over:",
        new="if False:",
        test="tests/server/routes/test_capacity.py::test_hanging_up_cancels_within_a_step",
        why="The GPU would draw for people who have left.",
    ),
    Mutation(
        name="queue-without-an-end",
        file=ADMISSION,
        old="return self._dispatcher.num_waiting + self._accepting.total() >= self.max_waiting + num_free",
        new="return False",
        test="tests/server/routes/test_capacity.py::test_one_too_many_is_503_with_a_retry_after_that_is_true",
        why="A flood would be accepted and time out, instead of being told when to come back.",
    ),
    Mutation(
        name="room-for-everybody",
        file=SEAT,
        old="return max(0, info.max_images_in_flight - self.num_images)",
        new="return info.max_images_in_flight",
        test="tests/server/routes/test_capacity.py::test_no_more_pictures_are_with_the_engine_than_it_takes",
        why="The fair order would end at the door: everything would be handed to the engine at once.",
    ),
    Mutation(
        name="a-zombie-finishes",
        file="server/store/job_table.py",
        old="\"id = ? AND status = 'running' AND attempt = ?\", (job_id, attempt)) == 1",
        new="\"id = ? AND status = 'running' AND attempt >= ? - 9\", (job_id, attempt)) == 1",
        test="tests/server/store/test_job_store.py::test_a_zombie_changes_nothing",
        why="An attempt that was given up would overwrite what the next one drew.",
    ),
    Mutation(
        name="fence-off",
        file="server/executors/base.py",
        old='return f"{self.id}.{self.attempt}"',
        new="return self.id",
        test="tests/server/executors/test_executors.py::test_closing_the_stream_cancels_and_frees_the_engine",
        why="What an attempt says that was given up would count for the next one.",
    ),
    Mutation(
        name="last-attempt-at-home",
        file="server/executors/pool.py",
        old="if alone and elsewhere:",
        new="if elsewhere and not alone:",
        test="tests/server/executors/test_pool.py::test_the_last_attempt_is_made_alone_and_elsewhere",
        why="One broken GPU would make jobs dead that every other engine can draw.",
    ),
    Mutation(
        name="poison-for-ever",
        file=ATTEMPTS,
        old="if isinstance(drawn, EngineLostError | DeviceError) and num_losses < MAX_ATTEMPTS:",
        new="if isinstance(drawn, EngineLostError | DeviceError):",
        test="tests/server/routes/test_capacity.py::"
        "test_a_job_that_loses_its_engine_three_times_is_dead_and_its_neighbours_are_done",
        why="One request that kills the engine would kill it for ever, and everybody else's pictures with it.",
    ),
    Mutation(
        name="key-forgotten",
        file="server/store/job_table.py",
        old="    if new.idempotency_key is None:\n        return None\n",
        new="    return None\n",
        test="tests/server/routes/test_jobs.py::test_one_key_is_one_job_however_often_it_is_sent",
        why="A retry would draw, and cost, twice.",
    ),
    Mutation(
        name="cancel-forgets-the-engine",
        file=DISPATCHER,
        old="            if live.task is not None:\n                live.task.cancel()\n            self.hand_over()\n",
        new="            self.hand_over()\n",
        test="tests/server/routes/test_jobs.py::test_a_cancelled_job_stops_before_its_next_step_and_stays_cancelled",
        why="A cancelled job would hold its place until its last step.",
    ),
    Mutation(
        name="terminal-snapshot-missed",
        file="server/jobs/live_job.py",
        old="            self.ended.set()\n        self.notify()\n\n    def leave",
        new="            self.ended.set()\n\n    def leave",
        test="tests/server/routes/test_jobs.py::test_events_are_whole_snapshots_and_end_with_the_terminal_one",
        why="A listener would wait for ever for the end of its job.",
    ),
    Mutation(
        name="a-refused-job-is-charged",
        file="server/access/rate_limits.py",
        old="if not reservation.is_kept:",
        new="if False:",
        test="tests/server/access/test_rate_limits.py::test_what_was_not_accepted_costs_nothing",
        why="Jobs that a full disk refused, and repeats that came together, would use up the hour's work units.",
    ),
    Mutation(
        name="limit-off-by-one",
        file="server/access/rate_limits.py",
        old="if taken.total + amount > self._limit:",
        new="if taken.total + amount > self._limit + 1:",
        test="tests/server/access/test_rate_limits.py::test_in_no_minute_wherever_it_begins_is_more_admitted_than_allowed",
        why="One more than allowed would be admitted.",
    ),
    Mutation(
        name="places-that-are-being-taken-are-free",
        file=ADMISSION,
        old="self._dispatcher.num_jobs_of(new.key_id) + self._accepting[new.key_id]",
        new="self._dispatcher.num_jobs_of(new.key_id)",
        test="tests/server/test_generator.py::test_jobs_that_are_being_written_down_have_their_places_already",
        why="Requests that come together would all find the last place free.",
    ),
    Mutation(
        name="the-whole-step-for-everybody",
        file="server/executors/messages.py",
        old="return self.seconds * self.rows_by_job[job_id] / sum(self.rows_by_job.values())",
        new="return self.seconds",
        test="tests/server/routes/test_usage.py::test_an_items_seconds_are_shared_by_rows_without_anything_left",
        why="Jobs that are drawn together would each be told the engine's whole time.",
    ),
    Mutation(
        name="an-end-that-is-not-counted",
        file="server/store/job_table.py",
        old='        count_end(connection, row["key_id"], row["user"], outcome)',
        new="        pass",
        test="tests/server/routes/test_usage.py::test_usage_outlives_the_jobs",
        why="Nothing would ever be charged.",
    ),
    Mutation(
        name="no-sign-of-life",
        file="server/sd_notify.py",
        old="self._notify(WATCHDOG=1, STATUS=status())",
        new="self._notify(STATUS=status())",
        test="tests/server/test_sd_notify.py::test_a_loop_that_hangs_gives_no_more_signs",
        why="systemd would end a server that is well, every half minute.",
    ),
    Mutation(
        name="a-copy-for-everybody",
        file="server/routes/backup.py",
        old="if not caller_of(request).is_operator:",
        new="if not caller_of(request).scopes:",
        test="tests/server/cli/test_backup.py::test_only_the_operators_socket_gives_a_copy_away",
        why="Whoever may ask for a picture could have everybody's prompts.",
    ),
    Mutation(
        name="a-backup-without-end-is-whole",
        file="server/cli/backup.py",
        old='    raise _damaged("it is incomplete: its end is missing")',
        new='    return _End(created_at="?", database_sha256="", jobs=num_jobs, pictures=0, missing=len(missing))',
        test="tests/server/cli/test_backup.py::test_an_archive_that_was_cut_off_or_overwritten_anywhere_is_refused",
        why="A backup that was cut off would be restored without a word, pictures missing.",
    ),
    Mutation(
        name="damaged-pictures-are-kept",
        file="server/cli/backup.py",
        old="if data is not None and picture.is_whole(data):",
        new="if data is not None:",
        test="tests/server/cli/test_backup.py::test_pictures_that_are_gone_or_damaged_are_counted_and_left_out",
        why="One damaged picture would make the whole backup one that cannot be restored.",
    ),
    Mutation(
        name="an-audit-that-looked-nowhere",
        file="scripts/audit.py",
        old="if skipped or not packages:",
        new="if not packages:",
        test="tests/tooling/test_audit.py::test_an_audit_that_could_not_look_does_not_pass_in_silence",
        why="Without the advisory service the audit would find nothing, and say that all is well.",
    ),
)

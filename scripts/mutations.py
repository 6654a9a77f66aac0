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


BATCH: Final = "engine/batch.py"
BATCH_SCHEDULER: Final = "engine/batch_scheduler.py"
ENGINE: Final = "engine/engine.py"
DISPATCHER: Final = "server/jobs/dispatcher.py"
GENERATOR: Final = "server/generator.py"
JOURNEY: Final = "engine/journey.py"
MODEL: Final = "engine/models/stable_diffusion.py"
PARAMS: Final = "engine/params.py"
PROMPTS: Final = "engine/prompts.py"
STATE: Final = "engine/state.py"
STORE_THREAD: Final = "server/jobs/store_thread.py"
WORKER: Final = "server/executors/worker.py"

IN_COMPANY: Final = "tests/engine/test_engine.py::test_all_at_once_gives_the_bytes_of_each_alone"
EVERY_WISH: Final = "tests/engine/test_engine.py::test_every_wish_shows_in_the_picture"
NEXT_SEEDS: Final = (
    "tests/engine/test_engine.py::test_a_request_for_many_pictures_is_as_many_requests_with_the_next_seeds"
)
OUT_OF_MEMORY: Final = "tests/engine/test_engine.py::test_out_of_memory_costs_nobody_a_picture"
SHOWN: Final = "tests/engine/test_batch.py::test_the_network_is_shown_each_pictures_own_latents_timestep_and_prompts"
GUIDED: Final = "tests/engine/test_batch.py::test_guidance_moves_from_the_negative_prompt_towards_the_prompt_and_beyond"
LIKE_DIFFUSERS: Final = (
    "tests/engine/test_batch.py::test_different_samplers_in_one_batch_each_end_where_diffusers_own_loop_does"
)

MUTATIONS: Final = (
    # --- randomness ---------------------------------------------------------------------------------------------------
    Mutation(
        name="noise-shared",
        file=STATE,
        old="torch.Generator().manual_seed(seed)",
        new="torch.Generator().manual_seed(0)",
        test=EVERY_WISH,
        why="Every picture would start from the same noise, whatever its seed.",
    ),
    Mutation(
        name="one-seed-for-all",
        file=STATE,
        old="seed = params.seeds[image_index]",
        new="seed = params.seeds[0]",
        test=NEXT_SEEDS,
        why="Somebody who asks for four pictures would get the same one four times.",
    ),
    Mutation(
        name="noise-from-everybodys-generator",
        file=STATE,
        old="torch.randn((1, *shape), generator=generator, out=draw[None])",
        new="torch.randn((1, *shape), out=draw[None])",
        test=IN_COMPANY,
        why="A picture would depend on how many were drawn before it.",
    ),
    Mutation(
        name="noise-in-one-draw",
        file=STATE,
        old="    for draw in noise:\n        torch.randn((1, *shape), generator=generator, out=draw[None])\n",
        new="    torch.randn(noise.shape, generator=generator, out=noise)\n",
        test="tests/engine/test_state.py::test_each_draw_is_the_one_that_diffusers_would_make_at_that_step",
        why="Sizes that are not a multiple of 16 numbers would differ from diffusers' pictures of the same seed.",
    ),
    Mutation(
        name="initial-noise-unscaled",
        file=STATE,
        old="noise[0] * journey.initial_noise_scale",
        new="noise[0]",
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
    # --- rows and slots -----------------------------------------------------------------------------------------------
    Mutation(
        name="one-timestep-for-the-batch",
        file=BATCH,
        old="[state.timesteps[state.call_index] for state in self.states]",
        new="[self.states[0].timesteps[self.states[0].call_index] for _ in self.states]",
        test=IN_COMPANY,
        why="A picture that joins midway would be denoised as if it were as far as the oldest one.",
    ),
    Mutation(
        name="timesteps-rounded",
        file=BATCH,
        old="[state.timesteps[state.call_index] for state in self.states]",
        new="[state.timesteps[state.call_index].round() for state in self.states]",
        test=SHOWN,
        why="Karras levels lie between whole timesteps: the network would be told another noise level than there is.",
    ),
    Mutation(
        name="input-scale-ignored",
        file=BATCH,
        old=" * torch.stack(scales[:num_guided] + scales)",
        new="",
        test=SHOWN,
        why="Euler's network would see latents up to fourteen times too large.",
    ),
    Mutation(
        name="rows-crossed",
        file=BATCH,
        old="zip(states, new_slots, strict=True)",
        new="zip(states, new_slots.flip(0), strict=True)",
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
        file=STATE,
        old="self.call_index == self.num_calls",
        new="self.call_index >= self.num_calls - 1",
        test="tests/engine/test_engine.py::test_progress_counts_the_model_calls",
        why="Every picture would keep the noise that its last step removes.",
    ),
    Mutation(
        name="padding-leaks",
        file=BATCH,
        old="prediction[2 * num_guided : 2 * num_guided + num_unguided]",
        new="prediction[prediction.shape[0] - num_unguided :]",
        test=GUIDED,
        why="An unguided picture would be drawn from rows of zeros that have no prompt.",
    ),
    Mutation(
        name="calls-not-padded",
        file=BATCH_SCHEDULER,
        old="limit if self._is_reproducible else rows",
        new="rows",
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
        old="[state.guidance_scale for state in self.guided]",
        new="[self.guided[0].guidance_scale for _ in self.guided]",
        test=IN_COMPANY,
        why="Every picture of a batch would follow the oldest one's guidance_scale.",
    ),
    Mutation(
        name="prompts-swapped",
        file=BATCH,
        old="negative, positive = prediction",
        new="positive, negative = prediction",
        test=GUIDED,
        why="The negative prompt would be drawn and the prompt avoided.",
    ),
    Mutation(
        name="prompts-swapped-in-the-rows",
        file=BATCH,
        old="embeds += [state.prompt_embeds for state in self.states]",
        new="embeds = [state.prompt_embeds for state in self.states] + embeds",
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
        file=JOURNEY,
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
    # --- what the networks read and answer ----------------------------------------------------------------------------
    Mutation(
        name="timesteps-whole-in-the-model",
        file=MODEL,
        old="self._unet(sample, timesteps, ",
        new="self._unet(sample, timesteps.long(), ",
        test="tests/engine/test_stable_diffusion.py::test_the_network_is_told_the_fraction_of_a_timestep",
        why="Karras schedules would be drawn at other noise levels than the table assumes.",
    ),
    Mutation(
        name="decode-unscaled",
        file=MODEL,
        old="(latents / self._vae.config.scaling_factor)",
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
        old="len(tokens) - PROMPT_TOKENS",
        new="len(tokens) - PROMPT_TOKENS - 2",
        test="tests/engine/test_stable_diffusion.py::test_tokens_beyond_what_is_read_are_counted",
        why="A prompt could lose its last two words without anybody being told.",
    ),
    Mutation(
        name="negative-truncation-untold",
        file=ENGINE,
        old="[params.prompt, params.negative_prompt] if params.is_guided else [params.prompt]",
        new="[params.prompt]",
        test="tests/engine/test_prompts.py::"
        "test_truncated_tokens_of_both_texts_are_counted_and_only_of_those_that_are_read",
        why="A negative prompt could be cut without anybody being told.",
    ),
    Mutation(
        name="prompts-remembered-by-their-beginning",
        file=PROMPTS,
        old="self._remembered.get(prompt)",
        new="self._remembered.get(prompt := prompt[:77])",
        test="tests/engine/test_prompts.py::test_texts_that_differ_anywhere_are_read_apart",
        why="77 is the limit in tokens, not in characters: somebody would get the picture of another prompt.",
    ),
    Mutation(
        name="prompts-never-forgotten",
        file=PROMPTS,
        old="if len(self._remembered) > MAX_REMEMBERED:",
        new="if False:",
        test="tests/engine/test_prompts.py::test_the_text_that_was_not_used_for_longest_is_forgotten",
        why="A server would grow by 0.2 MB with every new prompt until it is killed.",
    ),
    # --- turns, cancels and memory ------------------------------------------------------------------------------------
    Mutation(
        name="newest-size-first",
        file=BATCH_SCHEDULER,
        old="key = min(keys, key=lambda key: self._last_turn.get(key, 0))",
        new="key = keys[-1]",
        test="tests/engine/test_engine.py::test_no_size_starves_another",
        why="A stream of small pictures would hold up a large one for ever.",
    ),
    Mutation(
        name="oldest-size-first",
        file=BATCH_SCHEDULER,
        old="key = min(keys, key=lambda key: self._last_turn.get(key, 0))",
        new="key = keys[0]",
        test="tests/engine/test_turns.py::test_sizes_take_turns_step_by_step",
        why="A small picture would wait for a large one to be drawn to its end.",
    ),
    Mutation(
        name="everybody-in-flight",
        file=ENGINE,
        old="len(self._running) < self.max_images_in_flight and not self._is_draining_for_memory",
        new="not self._is_draining_for_memory",
        test="tests/engine/test_turns.py::test_no_more_pictures_are_begun_than_may_be_in_flight",
        why="All pictures would be finished late, instead of one after another.",
    ),
    Mutation(
        name="decodes-in-a-row",
        file=ENGINE,
        old="return bool(self._running) and (self._has_just_decoded or self._is_draining_for_memory)",
        new="return bool(self._running) and self._is_draining_for_memory",
        test="tests/engine/test_engine.py::test_a_decode_does_not_hold_up_the_others_for_long",
        why="Eight pictures that end together would hold up everybody else for eight decodes.",
    ),
    Mutation(
        name="newest-dropped-when-memory-is-short",
        file=ENGINE,
        old="self._free_memory()\n        state = batch.states[0]",
        new="self._running.remove(batch.states[-1])\n        state = batch.states[0]",
        test=OUT_OF_MEMORY,
        why="A caller would wait for ever for a picture that nobody draws.",
    ),
    Mutation(
        name="memory-lesson-too-harsh",
        file=BATCH_SCHEDULER,
        old="used - states[-1].num_rows if len(states) > 1 else used",
        new="2 if len(states) > 1 else used",
        test="tests/engine/test_engine.py::test_the_learned_limit_is_kept",
        why="One call that was a little too large would make every later one as small as can be.",
    ),
    Mutation(
        name="cancel-forgets-who-waits",
        file=ENGINE,
        old="self._waiting = deque(state for state in self._waiting if state.request_id != request_id)",
        new="pass",
        test="tests/engine/test_engine.py::test_a_cancel_at_any_instant_leaves_nothing_behind_and_disturbs_nobody",
        why="The pictures of a cancelled request that still wait would be begun for nobody.",
    ),
    # --- around the engine --------------------------------------------------------------------------------------------
    Mutation(
        name="cancel-one-step-late",
        file=WORKER,
        old="for event in self._engine.step():",
        new="for event in [*self._engine.step(), *self._engine.step()]:",
        test="tests/server/test_worker.py::test_a_cancel_is_heard_before_the_next_step",
        why="A step on a large picture takes seconds, and whoever cancelled would pay for it.",
    ),
    Mutation(
        name="end-before-the-pictures",
        file=WORKER,
        old="self._files = ThreadPoolExecutor(1, ",
        new="self._files = ThreadPoolExecutor(4, ",
        test="tests/server/test_worker.py::test_the_end_of_a_job_never_overtakes_its_pictures",
        why="A job would end while its pictures are still being written, and its caller would get an error.",
    ),
    Mutation(
        name="pictures-as-they-came",
        file=DISPATCHER,
        old="tuple(image for _, image in sorted(images.items()))",
        new="tuple(images.values())",
        test="tests/server/test_generator.py::"
        "test_pictures_come_in_the_order_of_their_seeds_however_they_were_handed_over",
        why="The second picture would be taken for the first seed's.",
    ),
    Mutation(
        name="told-before-it-is-written",
        file=DISPATCHER,
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
        test="tests/server/test_store.py::test_an_operation_that_fails_halfway_is_undone_and_its_neighbours_are_not",
        why="Half of what was refused would be in the store.",
    ),
    Mutation(
        name="hang-up-unheard",
        file=GENERATOR,
        old="if live is not None and not live.record.is_over:",
        new="if False:",
        test="tests/server/test_capacity.py::test_hanging_up_cancels_within_a_step",
        why="The GPU would draw for people who have left.",
    ),
    Mutation(
        name="queue-without-an-end",
        file=GENERATOR,
        old="return self.num_waiting + self._num_accepting >= self.max_waiting + num_free",
        new="return False",
        test="tests/server/test_capacity.py::test_one_too_many_is_503_with_a_retry_after_that_is_true",
        why="A flood would be accepted and time out, instead of being told when to come back.",
    ),
    Mutation(
        name="room-for-everybody",
        file=DISPATCHER,
        old="return num_images <= info.max_images_in_flight - self.num_images_in_flight",
        new="return num_images <= info.max_images_in_flight",
        test="tests/server/test_capacity.py::test_no_more_pictures_are_with_the_engine_than_it_takes",
        why="The fair order would end at the door: everything would be handed to the engine at once.",
    ),
    Mutation(
        name="a-zombie-finishes",
        file="server/jobs/statements.py",
        old="\"id = ? AND status = 'running' AND attempt = ?\", (job_id, attempt)) == 1",
        new="\"id = ? AND status = 'running' AND attempt >= ? - 9\", (job_id, attempt)) == 1",
        test="tests/server/test_store.py::test_a_zombie_changes_nothing",
        why="An attempt that was given up would overwrite what the next one drew.",
    ),
    Mutation(
        name="poison-for-ever",
        file=DISPATCHER,
        old="if isinstance(outcome, EngineLostError) and num_losses < MAX_ATTEMPTS:",
        new="if isinstance(outcome, EngineLostError):",
        test="tests/server/test_capacity.py::"
        "test_a_job_that_loses_its_engine_three_times_is_dead_and_its_neighbours_are_done",
        why="One request that kills the engine would kill it for ever, and everybody else's pictures with it.",
    ),
    Mutation(
        name="key-forgotten",
        file="server/jobs/statements.py",
        old="    if new.idempotency_key is None:\n        return None\n",
        new="    return None\n",
        test="tests/server/test_jobs.py::test_one_key_is_one_job_however_often_it_is_sent",
        why="A retry would draw, and cost, twice.",
    ),
    Mutation(
        name="cancel-forgets-the-engine",
        file=DISPATCHER,
        old="            if live.task is not None:\n                live.task.cancel()\n        return record",
        new="        return record",
        test="tests/server/test_jobs.py::test_a_cancelled_job_stops_before_its_next_step_and_stays_cancelled",
        why="A cancelled job would hold its place until its last step.",
    ),
    Mutation(
        name="terminal-snapshot-missed",
        file="server/jobs/life.py",
        old="            self.ended.set()\n        self.tell()\n\n    def leave",
        new="            self.ended.set()\n\n    def leave",
        test="tests/server/test_jobs.py::test_events_are_whole_snapshots_and_end_with_the_terminal_one",
        why="A listener would wait for ever for the end of its job.",
    ),
    Mutation(
        name="a-refused-job-is-charged",
        file="server/access/limits.py",
        old="if not reservation.is_kept:",
        new="if False:",
        test="tests/server/test_request_limits.py::test_work_units_are_taken_by_accepted_jobs_alone",
        why="Retries under an idempotency key would use up the hour's work units.",
    ),
    Mutation(
        name="limit-off-by-one",
        file="server/access/moving_window.py",
        old="if window.amount + amount > limit:",
        new="if window.amount + amount > limit + 1:",
        test="tests/server/test_limits.py::test_in_no_minute_wherever_it_begins_is_more_admitted_than_allowed",
        why="One more than allowed would be admitted.",
    ),
    Mutation(
        name="places-that-are-being-taken-are-free",
        file="server/access/limits.py",
        old="self._check_jobs(num_jobs + self._num_reserved[key_id], next_end_s)",
        new="self._check_jobs(num_jobs, next_end_s)",
        test="tests/server/test_limits.py::test_jobs_that_are_being_written_down_have_their_places_already",
        why="Requests that come together would all find the last place free.",
    ),
    Mutation(
        name="the-whole-step-for-everybody",
        file="server/executors/messages.py",
        old="return self.seconds * self.rows_by_job[job_id] / sum(self.rows_by_job.values())",
        new="return self.seconds",
        test="tests/server/test_usage.py::test_an_items_seconds_are_shared_by_rows_without_anything_left",
        why="Jobs that are drawn together would each be told the engine's whole time.",
    ),
    Mutation(
        name="an-end-that-is-not-counted",
        file="server/jobs/statements.py",
        old='        count_end(connection, row["key_id"], row["user"], outcome)',
        new="        pass",
        test="tests/server/test_usage.py::test_usage_outlives_the_jobs",
        why="Nothing would ever be charged.",
    ),
    Mutation(
        name="no-sign-of-life",
        file="server/sd_notify.py",
        old="self._tell(WATCHDOG=1, STATUS=status())",
        new="self._tell(STATUS=status())",
        test="tests/server/test_sd_notify.py::test_a_loop_that_hangs_gives_no_more_signs",
        why="systemd would end a server that is well, every half minute.",
    ),
    Mutation(
        name="a-copy-for-everybody",
        file="server/routes/backup.py",
        old="if not caller_of(request).is_operator:",
        new="if not caller_of(request).scopes:",
        test="tests/server/test_backup.py::test_only_the_operators_socket_gives_a_copy_away",
        why="Whoever may ask for a picture could have everybody's prompts.",
    ),
    Mutation(
        name="a-backup-without-end-is-whole",
        file="server/cli/archive.py",
        old='    raise _damaged("its end is missing")',
        new="    return _End(pictures=len(pictures) - len(names), missing=len(names))",
        test="tests/server/test_backup.py::test_an_archive_that_was_cut_off_or_overwritten_anywhere_is_refused",
        why="A backup that was cut off would be restored without a word, pictures missing.",
    ),
    Mutation(
        name="damaged-pictures-are-kept",
        file="server/cli/archive.py",
        old="if data is not None and _is_whole(data, image):",
        new="if data is not None:",
        test="tests/server/test_backup.py::test_pictures_that_are_gone_or_damaged_are_counted_and_left_out",
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

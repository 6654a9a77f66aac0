"""The planted bugs of the service around the engine; see `base.py`."""

from __future__ import annotations

from typing import Final

from mutations.base import Mutation

__all__ = ["MUTATIONS"]

ADMISSION: Final = "server/admission.py"
ATTEMPTS: Final = "server/jobs/attempts.py"
DISPATCHER: Final = "server/jobs/dispatcher.py"
GENERATOR: Final = "server/generator.py"
SEAT: Final = "server/executors/seat.py"
STORE_THREAD: Final = "server/store/group_commit.py"
WORKER: Final = "server/worker/engine_worker.py"

MUTATIONS: Final = (
    # --- around the engine --------------------------------------------------------------------------------------------
    Mutation(
        name="cancel-one-step-late",
        file=WORKER,
        old="return resident[self._last_model].step()",
        new="return [*resident[self._last_model].step(), *resident[self._last_model].step()]",
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
        old="_Pictures(tuple(image for _, image in sorted(images.items())), done)",
        new="_Pictures(tuple(images.values()), done)",
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
        test="tests/server/store/test_store_thread.py::test_an_operation_that_fails_halfway_is_undone_and_its_neighbours_are_not",
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
        test="tests/server/jobs/test_work_shares.py::test_an_items_seconds_are_shared_by_rows_without_anything_left",
        why="Jobs that are drawn together would each be told the engine's whole time.",
    ),
    Mutation(
        name="an-end-that-is-not-counted",
        file="server/store/job_table.py",
        old='        count_end(connection, row["key_id"], row["user"], outcome)',
        new="        pass",
        test="tests/server/store/test_usage_table.py::test_usage_outlives_the_jobs",
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
        test="tests/server/cli/test_damaged_backups.py::test_an_archive_that_was_cut_off_or_overwritten_anywhere_is_refused",
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

"""Who waits, and who is next: a bounded queue, first come, first served."""

from __future__ import annotations

from server.jobs.life import AcceptedJob

__all__ = ["JobQueue"]


class JobQueue:
    """Accepted jobs that wait for room in an engine. Belongs to the event loop's thread.

    First come, first served without overtaking: a small request behind a large one waits too, so that the large one's
    turn comes.
    """

    def __init__(self, max_jobs: int) -> None:
        self._max_jobs = max_jobs
        self._jobs: dict[str, AcceptedJob] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def is_full(self) -> bool:
        """Whether the next job would be one too many."""
        return len(self._jobs) >= self._max_jobs

    @property
    def first(self) -> AcceptedJob | None:
        """Whose turn it is; None if nobody waits."""
        return next(iter(self._jobs.values()), None)

    def put(self, accepted: AcceptedJob) -> None:
        """Let a job wait behind the others."""
        self._jobs[accepted.job.id] = accepted

    def remove(self, accepted: AcceptedJob) -> None:
        """Take a job out, wherever it stands. One that does not wait (any more) is let be."""
        self._jobs.pop(accepted.job.id, None)

    def take_all(self) -> list[AcceptedJob]:
        """Empty the queue."""
        jobs = list(self._jobs.values())
        self._jobs.clear()
        return jobs

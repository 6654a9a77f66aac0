"""The default executor: supervises one engine process (watchdog, restart backoff) over a socket pair.

The gateway never imports torch and never waits for the device: whatever the engine does, `/health` answers. An engine
that ends, hangs or does not get on with loading is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import Final, NamedTuple

import msgspec
import structlog

from server.executors.base import RestartReason
from server.executors.engine_process import EngineProcess
from server.executors.message_executor import MessageExecutor
from server.executors.messages import HEADER, MAX_FRAME_BYTES, Configure, ToEngine, decode_from_engine, frame

__all__ = ["ChildProcessExecutor"]

_log = structlog.get_logger("server.engine")

MAX_PING_INTERVAL_S: Final = 1.0
PINGS_A_WATCHDOG: Final = 4
"""Signs of life that an idle engine gives in the time after which a silent one is replaced."""
ALLOWED_MEDIANS: Final = 20
"""A work item that takes this many times as long as the slowest kind usually does will never end."""
STOP_GRACE_S: Final = 5.0
KILL_GRACE_S: Final = 5.0
FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0
STABLE_AFTER_S: Final = 60.0
"""An engine that was ready this long, even idle, starts the backoff anew."""


class _End(NamedTuple):
    """Why an engine is not there any more."""

    kind: RestartReason
    words: str
    """Ends a sentence that begins with the engine."""


class ChildProcessExecutor(MessageExecutor):
    """Starts the engine process, and another one when it is of no more use. Belongs to the event loop's thread."""

    def __init__(
        self,
        configuration: Configure,
        *,
        begun: EngineProcess | None = None,
        watchdog_s: float = 10.0,
        load_timeout_s: float = 600.0,
    ) -> None:
        """Say how it is to be run; `start` runs it.

        Args:
            configuration: what the engine process is told.
            begun: the first engine process, where it has been started already, with this configuration.
            watchdog_s: a ready engine whose thread gives no sign for so long is replaced, unless its work items are
                known to take long: they are allowed 20 times the usual.
            load_timeout_s: an engine that takes longer over one phase of its start is replaced.
        """
        super().__init__()
        self._configuration = configuration
        self._begun = begun
        self._watchdog_s = watchdog_s
        self._load_timeout_s = load_timeout_s
        self._writer: asyncio.StreamWriter | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._process: EngineProcess | None = None

    @property
    def process_id(self) -> int | None:
        """Of the running engine process; None while there is none."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """See `Executor.start`."""
        self._supervisor = asyncio.create_task(self._keep_running(), name="engine-supervisor")

    async def stop(self) -> None:
        """See `Executor.stop`. The engine ends when its line closes; one that loads or hangs is killed."""
        if self._state == "loading" and self._process is not None:
            self._process.kill()  # while it imports large libraries it is slow to notice anything
        self._state = "stopped"
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        self._lost("the server is shutting down")

    def _send(self, message: ToEngine) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(message))

    # --- one engine after another -------------------------------------------------------------------------------------

    async def _keep_running(self) -> None:
        """Run engines. One that was of use is replaced at once; the next of several that die young waits longer."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            kind: RestartReason = "not_started"
            try:
                kind = await self._run_once()
            except Exception:  # noqa: BLE001 -- whatever it was (no descriptors, no memory), the next attempt may succeed
                _log.exception("the engine process could not be started")
            if self._failure is not None:
                return
            if self._was_of_use():
                delay_s, backoff_s = 0.0, FIRST_BACKOFF_S
            else:
                delay_s, backoff_s = backoff_s, min(2 * backoff_s, MAX_BACKOFF_S)
            _log.warning("starting another engine process", delay_s=delay_s, reason=kind)
            await asyncio.sleep(delay_s)
            self._restart_reasons[kind] += 1

    def _was_of_use(self) -> bool:
        """Whether the engine that has ended had drawn anything, or had been ready for long.

        Drawing counts however short its life: a job that kills its engines is given up after a few attempts, and a
        step taken means that the model can be loaded and run.
        """
        if self._ready_since is None:
            return False
        return self._has_worked or time.monotonic() - self._ready_since > STABLE_AFTER_S

    async def _run_once(self) -> RestartReason:
        """Start an engine process, and stay with it until it ends or must be replaced; which of these it was."""
        self._engine_begins()
        _log.info(f"loading {self._configuration.model_id}")
        process, self._begun = self._begun or EngineProcess.start(self._configuration), None
        # The first engine is ready as soon as it can draw. One that replaces another proves first that it can: its jobs
        # may be what ended that one, and a hang at its first step would look like a slow start.
        self._configuration = msgspec.structs.replace(self._configuration, warms_up_first=True)
        self._process = process
        self._began_at = process.began_at
        end = _End("not_started", "process ended while drawing")
        try:
            end = await self._converse(process)
        finally:
            if self._writer is not None:
                self._writer.close()
            self._writer = self._process = None
            was_loading = self._state == "loading"
            self._engine_has_ended(
                "the server is shutting down" if self._state == "stopped" else f"the engine {end.words}"
            )
            await _wait_for_end(process)
            if was_loading:
                how = _how_it_ended(process.returncode)
                self._load_trouble = (
                    f"the engine process ended while loading ({how})"
                    if end.kind == "ended"
                    else f"the engine {end.words}"
                )
            log = _log.info if self._state in {"stopped", "failed"} else _log.error
            log("the engine process has ended", process_id=process.pid, exit_code=process.returncode)
        return end.kind

    async def _converse(self, process: EngineProcess) -> _End:
        """Send the engine its work and receive its messages. Returns when the connection ends, with the reason."""
        with contextlib.ExitStack() as unless_open:
            unless_open.callback(process.connection.close)
            reader, self._writer = await asyncio.open_connection(sock=process.connection, limit=2**20)
            unless_open.pop_all()
        listening = asyncio.create_task(self._listen(reader), name="engine-line")
        watching = asyncio.create_task(self._watch(), name="engine-watchdog")
        try:
            await asyncio.wait({listening, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not watching.done():
                listening.result()
                return _End("ended", "process ended while drawing")
            kind, words = watching.result()
            _log.error("restarting the engine process", process_id=process.pid, reason=kind, words=words)
            process.kill()
            return _End(kind, f"was replaced: it {words}")
        finally:
            listening.cancel()
            watching.cancel()
            await asyncio.gather(listening, watching, return_exceptions=True)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Receive messages until the line closes."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
                if length > MAX_FRAME_BYTES:
                    raise AssertionError(f"the engine sent a frame of {length} bytes")
                self._receive(decode_from_engine(await reader.readexactly(length)))

    # --- watching -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> _End:
        """Ask for signs of life. Returns when the engine must be replaced, with the reason."""
        interval_s = min(MAX_PING_INTERVAL_S, self._watchdog_s / PINGS_A_WATCHDOG)
        while True:
            asked = time.monotonic()
            if self._state == "ready":
                self._ping()
            await asyncio.sleep(interval_s)
            # If this process did not run (stopped, or starved of the CPU), the engine's answers lie unread.
            self._forgive_silence(time.monotonic() - asked - interval_s)
            end = self._silent_too_long()
            if end is not None:
                return end

    def _silent_too_long(self) -> _End | None:
        silence_s = self._seconds_without_sign
        if self._state == "loading" and silence_s > self._load_timeout_s:
            return _End("slow_start", f"made no progress with loading for {silence_s:.0f} s")
        if self._state == "ready" and silence_s > self.allowed_silence_s:
            return _End("silent", f"did not respond for {silence_s:.1f} s")
        return None

    @property
    def allowed_silence_s(self) -> float:
        """See `Executor.allowed_silence_s`. Sizes that were never drawn before are included."""
        if self._unproven:
            return self._load_timeout_s  # as long as it would have if it had warmed up before it was ready
        times = self.work_times
        rows = 2 if self._info is None else self._info.rows_per_call
        known = [times.longest_median_s()]
        for size in {(running.job.params.height, running.job.params.width) for running in self._running.values()}:
            known += [times.median_s("step", times.step_rows(*size, otherwise=rows), *size)]
            known += [times.median_s("decode", 1, *size)]
        return max([self._watchdog_s, *(ALLOWED_MEDIANS * seconds for seconds in known if seconds is not None)])


async def _wait_for_end(process: EngineProcess) -> None:
    """Wait for a process whose line has been closed; kill it if it does not notice."""
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        _log.warning("the engine process did not stop in time: killed", process_id=process.pid)
    finally:
        process.kill()
        try:
            async with asyncio.timeout(KILL_GRACE_S):
                await process.wait()
        except TimeoutError:
            # It is inside a call of the device's driver. The next one may find another device, or memory enough.
            _log.critical("the engine process cannot be killed", process_id=process.pid)


def _how_it_ended(returncode: int | None) -> str:
    if returncode == -signal.SIGKILL:
        return "killed by the system, perhaps out of memory"
    if returncode is not None and returncode < 0:
        return f"signal {-returncode}"
    return f"exit code {returncode}; the log above says why"

"""When jobs will be done, told from the times that the engine's work items took of late."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.params import GenerationParams
from server.executors.messages import EngineInfo
from server.executors.work_times import WorkTimes
from server.jobs.foresight import Prices, Running, foresee

__all__ = ["CostModel", "Running"]


class CostModel:
    """Foretells from `WorkTimes`: nothing before a step was seen; encodes and decodes count from the first one seen."""

    def __init__(self, work_times: WorkTimes) -> None:
        self._work_times = work_times

    def engine_seconds(self, params: GenerationParams, rows_per_call: int) -> float | None:
        """Seconds of work items that a job causes alone, its pictures sharing calls; None while no step was seen."""
        prices = self._prices([params], rows_per_call)
        if prices is None:
            return None
        size, rows = (params.height, params.width), params.rows_per_image
        calls = params.model_calls * math.ceil(params.num_images * rows / rows_per_call)
        return prices.encode_s[rows] + calls * prices.step_s[size] + params.num_images * prices.decode_s[size]

    def eta_s(
        self,
        running: Sequence[Running],
        queued_before: Sequence[GenerationParams],
        own: GenerationParams,
        info: EngineInfo,
    ) -> float | None:
        """Seconds until a job that waits will be done, if nothing comes that overtakes it.

        Args:
            running: what is being drawn, oldest first.
            queued_before: what will be begun before it, in order.
            own: the job itself.
            info: of the engine.

        Returns:
            None while no step was seen.
        """
        ends = self.finish_times_s(running, [*queued_before, own], info)
        return None if ends is None else ends[-1]

    def finish_times_s(
        self, running: Sequence[Running], queued: Sequence[GenerationParams], info: EngineInfo
    ) -> list[float] | None:
        """Seconds until each job will be done, those that run first, if nothing comes that overtakes them.

        Args:
            running: what is being drawn, oldest first.
            queued: what waits, in order.
            info: of the engine.

        Returns:
            None while no step was seen.
        """
        prices = self._prices([*(job.params for job in running), *queued], info.rows_per_call)
        return None if prices is None else foresee(running, queued, info, prices)

    def _prices(self, wishes: Sequence[GenerationParams], rows_per_call: int) -> Prices | None:
        times = self._work_times
        prices = Prices({}, {}, {rows: times.median_s("encode", rows, 0, 0) or 0.0 for rows in (1, 2)})
        for height, width in {(params.height, params.width) for params in wishes}:
            step_s = times.median_s("step", rows_per_call, height, width)
            if step_s is None:
                return None
            prices.step_s[height, width] = step_s
            prices.decode_s[height, width] = times.median_s("decode", 1, height, width) or 0.0
        return prices

"""When jobs will be done, told from the times that the engine's work items took of late."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.params import GenerationParams
from server.executors.messages import EngineInfo
from server.executors.work_times import WorkTimes
from server.jobs.foresight import Foresight, Prices, Running, foresee

__all__ = ["CostModel", "Foresight", "Running"]


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

    def foresee(
        self, running: Sequence[Running], queued: Sequence[GenerationParams], info: EngineInfo
    ) -> Foresight | None:
        """When each job will be done, if nothing comes that overtakes them.

        Args:
            running: what is being drawn, oldest first.
            queued: what waits, in order.
            info: of the engine.

        Returns:
            None while no step was seen.
        """
        prices = self._prices([*(job.params for job in running), *queued], info.rows_per_call)
        return None if prices is None else foresee(running, queued, info, prices)

    def end_of_another_s(self, foresight: Foresight, params: GenerationParams, info: EngineInfo) -> float | None:
        """Seconds, from then on, until a job after those foreseen will be done; None while no step was seen."""
        prices = self._prices([params], info.rows_per_call)
        return None if prices is None else foresight.end_of_another(params, prices)

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

"""Previews of a picture while it is drawn: an estimate of its finished latents, coloured without the decoder.

Nothing here changes the picture, or waits for the device in the engine's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from engine.batch import Batch, ModelInput
from engine.leg_state import LastCall
from engine.models.base import DiffusionModel
from engine.models.latent_to_rgb import LatentToRgb
from engine.picture import Picture
from engine.schedulers import alphas_cumprod

__all__ = ["PREVIEW_INTERVAL_S", "Previewer", "RoughPicture"]

PREVIEW_INTERVAL_S: Final = 0.25
"""Seconds between two previews of one request, at least."""

SMALLEST_SIGNAL: Final = 1e-3
"""Of a noise schedule that ends in noise alone (zero terminal SNR), and that a network of noise was not made for."""


@dataclass(frozen=True, slots=True, eq=False)
class RoughPicture:
    """A preview on its way from the device."""

    _latents: torch.Tensor
    """(C, h, w), on the CPU; complete when `_arrival` is over."""
    _arrival: torch.cuda.Event | None
    _latent_to_rgb: LatentToRgb

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Wait for the device, and colour what it sent. Any thread may call this.

        Returns:
            (h, w, 3), RGB: one pixel a latent.
        """
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._latent_to_rgb(self._latents.numpy())


class Previewer:
    """Guesses at finished pictures. Belongs to the engine's thread."""

    def __init__(self, model: DiffusionModel) -> None:
        self._model = model
        config = model.info.scheduler_config
        self._signal_levels = alphas_cumprod(config).sqrt().to(model.info.device)
        """(1000,): how much of the network's input is picture at each timestep; the rest of its variance is noise."""
        self._predicts_velocity = config.get("prediction_type") == "v_prediction"

    def look_at(self, batch: Batch, index: int, model_input: ModelInput, prediction: torch.Tensor) -> RoughPicture:
        """Guess at one picture of a batch that is about to take a step.

        What the network was shown holds picture and noise in proportions that follow from the timestep alone, whatever
        the sampler, and its answer says what the noise was.

        Args:
            batch: who takes the step.
            index: of the picture in `batch.pictures`.
            model_input: what the network was shown.
            prediction: its answer.
        """
        answer = batch.guide(prediction)[index]
        shown = model_input.latents[batch.last_rows[index], : answer.shape[0]]
        state = batch.states[index]
        estimate = self.estimate(LastCall(shown, answer, state.timesteps[state.call_index]))
        return RoughPicture(*_leaving(estimate), self._model.latent_to_rgb)

    def latest(self, picture: Picture) -> torch.Tensor:
        """(C, h, w): the finished latents of a picture that takes no more steps, as its latest call showed them."""
        leg = picture.shown_leg
        if leg is None or leg.last_call is None:
            raise AssertionError("a picture is handed over of which nothing shows")
        return leg.with_known(self.estimate(leg.last_call))

    def estimate(self, call: LastCall) -> torch.Tensor:
        """(C, h, w): the finished latents, as far as they can be known after a call."""
        signal = self._signal_levels[round(call.timestep)]
        noise = (1 - signal * signal).sqrt()
        if self._predicts_velocity:
            return signal * call.shown - noise * call.answer
        return (call.shown - noise * call.answer) / signal.clamp(min=SMALLEST_SIGNAL)


def _leaving(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """A tensor on its way to the CPU, and the event that it has arrived. Does not wait."""
    if tensor.device.type != "cuda":
        return tensor, None
    # A copy to pageable memory would wait for the device.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    # Blocking: the thread that waits for it must not spin.
    arrival = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # torch has no types for it
    arrival.record(torch.cuda.current_stream(tensor.device))
    return host, arrival

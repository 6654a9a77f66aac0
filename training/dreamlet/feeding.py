"""Keeps the latents of fresh drawings coming while the network trains."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import torch
from diffusers import AutoencoderTiny

from training.dreamlet.config import Preset, autocast, device, memory_format, to_device
from training.dreamlet.data import Batch, Pool, as_network_input


@contextmanager
def _own_stream() -> Iterator[Callable[[], None]]:
    """On a GPU, a stream for this thread, so that its copies do not wait behind the training steps queued there.

    Yields what waits until the work of this thread is done.
    """
    if device().type != "cuda":
        yield lambda: None
        return
    own = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with torch.cuda.stream(own):
        yield own.synchronize


class Feeder(threading.Thread):
    """Takes batches of drawings from a stream, encodes them, and puts them into one pool for each size.

    The pools belong to this object and are read through `sample` only, under its lock. A failure of the thread is
    raised by the next `sample`.
    """

    def __init__(self, preset: Preset, batches: Iterator[Batch], autoencoder: AutoencoderTiny) -> None:
        super().__init__(name="feeder", daemon=True)
        self._preset = preset
        self._batches = batches
        self._autoencoder = to_device(autoencoder).eval()
        self._pools: dict[tuple[int, int], Pool] = {}
        self._shares = {(height // 8, width // 8): share for width, height, share in preset.sizes}
        self._changed = threading.Condition()
        self._is_stopped = False
        self._failure: Exception | None = None
        self._taken = 0
        self.drawn = 0
        """Pictures so far."""

    def run(self) -> None:
        """Feed until `stop`."""
        try:
            with _own_stream() as finish:
                while self._wait_for_need():
                    latents, batch = self._encoded(next(self._batches))
                    finish()
                    with self._changed:
                        self._pool(latents).add({"latents": latents, **batch})
                        finish()
                        self.drawn += len(latents)
                        self._changed.notify_all()
        except Exception as failure:  # noqa: BLE001 - raised again where somebody listens
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def stop(self) -> None:
        """End the thread after the batch in hand."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self.join()

    def wait_for(self, count: int) -> None:
        """Wait until so many pictures are there, and some of every size."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure or (self.drawn >= count and len(self._pools) == len(self._shares))
            )
            self._raise_failure()

    def sample(self, random: Random, count: int) -> Batch:
        """Examples of one size, that size chosen by its share.

        Args:
            random: chooses the size.
            count: how many at the native size; others have as many as cover the same area.
        """
        with self._changed:
            self._raise_failure()
            ((rows, columns),) = random.choices(list(self._shares), list(self._shares.values()))
            native_rows, native_columns = next(iter(self._shares))
            fitting = max(1, round(count * native_rows * native_columns / (rows * columns)))
            self._taken += fitting
            self._changed.notify_all()
            return self._pools[rows, columns].sample(fitting)

    def _wait_for_need(self) -> bool:
        """Block while enough is drawn for what was taken; False when stopped."""
        diffusion = self._preset.diffusion
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._is_stopped
                    or self.drawn < diffusion.first_pool
                    or len(self._pools) < len(self._shares)
                    or self.drawn * diffusion.uses < self._taken
                )
            )
            return not self._is_stopped

    @torch.no_grad()
    def _encoded(self, batch: Batch) -> tuple[torch.Tensor, Batch]:
        images = as_network_input(batch.pop("images").to(device())).contiguous(memory_format=memory_format())
        with autocast(self._preset):
            latents = self._autoencoder.encode(images).latents * self._autoencoder.config.scaling_factor
        return latents.to(torch.float16), batch

    def _pool(self, latents: torch.Tensor) -> Pool:
        size = (latents.shape[2], latents.shape[3])
        if size not in self._pools:
            self._pools[size] = Pool(
                max(round(self._preset.diffusion.pool * self._shares[size]), len(latents)), device()
            )
        return self._pools[size]

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise RuntimeError("drawing or encoding failed") from self._failure

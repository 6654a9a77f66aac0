"""The autoencoder with its outermost linear layers fused: the same function, 1.6 times as fast to train.

In diffusers' AutoencoderTiny the first two convolutions follow each other with nothing between them, and so do the last
two behind a doubling of the side. Each pair is one convolution: 5x5 with stride 2, and 5x5 on the doubled pixels, which
is four 3x3 convolutions before the doubling. Only at the picture's rim, where the pair pads twice, do they differ.
"""

import torch
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional

from training.dreamlet.networks import new_autoencoder

SPLIT = {-2: (-1, -1), -1: (0, -1), 0: (0, 0), 1: (0, 1), 2: (1, 1)}
"""An offset in a kernel of 5 as the sum of two in kernels of 3: the outer one's, the inner one's."""
PHASES = torch.tensor(
    [
        [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
        [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
    ],
    dtype=torch.float32,
)
"""(phase, 3, 5): which taps of a kernel of 5 meet the same pixel before the doubling, for even and odd pixels."""


class FusedAutoencoder(nn.Module):
    """Encodes to latents and decodes to pictures in [-1, 1]. `plain` gives diffusers' network with the same weights."""

    def __init__(self, network: AutoencoderTiny) -> None:
        super().__init__()
        encoder, decoder = network.encoder.layers, network.decoder.layers
        first, second, last = encoder[0], encoder[1], decoder[-1]
        self._config = network.config
        self.channels: int = first.weight.shape[0]
        self.inlet = nn.Parameter(functional.conv_transpose2d(second.weight.data, first.weight.data))
        self.inlet_bias = nn.Parameter(torch.einsum("omhw,m->o", second.weight.data, first.bias.data))
        self.encoder = nn.Sequential(*encoder[2:])
        self.decoder = nn.Sequential(*decoder[:-3])
        self.outlet = nn.Parameter(functional.conv_transpose2d(last.weight.data, decoder[-2].weight.data))
        self.outlet_bias = nn.Parameter(last.bias.data.clone())

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (N, 16, H/16, W/16), as they come, not scaled.

        Args:
            images: (N, 3, H, W) in [-1, 1].
        """
        features = functional.conv2d(images.add(1).div(2), self.inlet, self.inlet_bias, stride=2, padding=2)
        latents: torch.Tensor = self.encoder(features)
        return latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, H, W) around [-1, 1].

        Args:
            latents: (N, 16, H/16, W/16), not scaled.
        """
        features = self.decoder(torch.tanh(latents / 3) * 3)
        phases = PHASES.to(self.outlet.device)
        kernels = torch.einsum("ary,bcx,oiyx->oabirc", phases, phases, self.outlet).reshape(12, self.channels, 3, 3)
        biases = self.outlet_bias.repeat_interleave(4)
        doubled = functional.pixel_shuffle(functional.conv2d(features, kernels, biases, padding=1), 2)
        return doubled.mul(2).sub(1)

    def set_decoder_only(self) -> None:
        """Let training change the decoder and nothing else."""
        for name, weights in self.named_parameters():
            weights.requires_grad_(name.startswith(("decoder.", "outlet")))

    @torch.no_grad()
    def plain(self) -> AutoencoderTiny:
        """The same function in the layout of diffusers: the inner kernels of 3 only pick, the outer ones weigh."""
        network = new_autoencoder(self.channels)
        encoder, decoder = network.encoder.layers, network.decoder.layers
        for layers, own in ((encoder[2:], self.encoder), (decoder[:-3], self.decoder)):
            for layer, trained in zip(layers, own, strict=True):
                layer.load_state_dict(trained.state_dict())
        first, second, before_last, last = encoder[0], encoder[1], decoder[-2], decoder[-1]
        for weights in (first.weight, first.bias, second.weight, before_last.weight, last.weight):
            weights.zero_()
        # One channel for each colour and each of the nine offsets; one more carries the bias, but not past the rim.
        constant = 27
        first.bias[constant] = 1
        second.weight[:, constant, 1, 1] = self.inlet_bias
        for colour in range(3):
            for y in (-1, 0, 1):
                for x in (-1, 0, 1):
                    channel = _channel(colour, y, x)
                    first.weight[channel, colour, y + 1, x + 1] = 1
                    last.weight[colour, channel, y + 1, x + 1] = 1
            for y, (outer_y, inner_y) in SPLIT.items():
                for x, (outer_x, inner_x) in SPLIT.items():
                    inner = _channel(colour, inner_y, inner_x)
                    outer = _channel(colour, outer_y, outer_x)
                    second.weight[:, inner, outer_y + 1, outer_x + 1] = self.inlet[:, colour, y + 2, x + 2]
                    before_last.weight[outer, :, inner_y + 1, inner_x + 1] = self.outlet[colour, :, y + 2, x + 2]
        last.bias.copy_(self.outlet_bias)
        network.register_to_config(scaling_factor=self._config["scaling_factor"])
        return network


def _channel(colour: int, y: int, x: int) -> int:
    return colour * 9 + (y + 1) * 3 + x + 1

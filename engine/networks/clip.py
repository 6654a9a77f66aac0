"""CLIP's text encoder, as Stable Diffusion uses it: transformers' CLIPTextModel and CLIPTextModelWithProjection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from engine.networks.layers import JoinedLinear, attend, call, fresh

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.models.options import Options

__all__ = ["Encoding", "TextEncoder"]


class Encoding(NamedTuple):
    """A text as the encoder understands it."""

    last: Tensor
    """(R, L, D), after all layers and the final norm: what Stable Diffusion 1 and 2 read."""
    penultimate: Tensor
    """(R, L, D), before the last layer, without a norm: what Stable Diffusion XL reads."""
    pooled: Tensor
    """(R, P): `last` at the end of the text, projected where the encoder has a projection (P = D where it has none)."""


class TextEncoder(nn.Module):
    """Token ids -> embeddings. A text always has the same number of tokens, padding included, as no mask is known."""

    def __init__(self, options: Options) -> None:
        """Lay the network out as `text_encoder/config.json` says; what it does not know there is the library's own.

        Raises:
            ModelLoadError: an option's value is not served.
        """
        super().__init__()
        width = options.whole("hidden_size", 512)
        num_heads = options.whole("num_attention_heads", 8)
        if width % num_heads:
            options.refuse("num_attention_heads", f"a divisor of hidden_size {width}")
        eps = options.number("layer_norm_eps", 1e-5)
        inner = options.whole("intermediate_size", 2048)
        is_quick = options.one_of("hidden_act", "quick_gelu", "gelu") == "quick_gelu"
        self.embeddings = nn.ModuleDict(
            {
                name: embedding(options.whole(option, default), width)
                for name, option, default in (
                    ("token_embedding", "vocab_size", 49408),
                    ("position_embedding", "max_position_embeddings", 77),
                )
            }
        )
        layers = (Layer(width, num_heads, inner, eps, is_quick) for _ in range(options.whole("num_hidden_layers", 12)))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.final_layer_norm = nn.LayerNorm(width, eps)
        has_projection = "CLIPTextModelWithProjection" in (options.any("architectures") or ())
        self.text_projection = (
            nn.Linear(width, options.whole("projection_dim", 512), bias=False) if has_projection else None
        )
        # Files from before transformers 4.31 say 2 here, and mean the largest id.
        end = options.whole("eos_token_id", 49407, least=0)
        self.end_token = None if end == 2 else end

    def forward(self, tokens: Tensor) -> Tensor:
        """(R, L), whole numbers -> (R, L, D): `Encoding.last`."""
        return self.encode(tokens).last

    def encode_for_xl(self, tokens: Tensor) -> Tensor:
        """(R, L), whole numbers -> (R, L * D + P): `Encoding.penultimate` and `Encoding.pooled`, end to end."""
        return self.joined(self.encode(tokens))

    @staticmethod
    def joined(encoding: Encoding) -> Tensor:
        """See `encode_for_xl`."""
        return torch.cat([encoding.penultimate.flatten(1), encoding.pooled], dim=1)

    def encode(self, tokens: Tensor, num_skipped: int = 0, inverted: Sequence[tuple[int, Tensor]] = ()) -> Encoding:
        """Read texts.

        Args:
            tokens: (R, L), whole numbers, each text between a start and an end token; L as in training.
            num_skipped: layers that are left out from the end of `last` and `penultimate` (*clip skip*), fewer than
                there are. `pooled` is what it was.
            inverted: textual inversions: the place of a token, and the (v, D) vectors that stand there and at the
                places behind it instead of the tokens' own.
        """
        looked_up = self.embeddings["token_embedding"](tokens)
        for place, vectors in inverted:
            looked_up[:, place : place + len(vectors)] = vectors
        states = [looked_up + self.embeddings["position_embedding"].weight]
        for layer in self.encoder["layers"].children():
            states.append(layer(states[-1]))
        last = self.final_layer_norm(states[-1])
        # The first end token: padding may be end tokens too.
        is_end = tokens if self.end_token is None else (tokens == self.end_token).int()
        pooled = last[torch.arange(last.shape[0], device=last.device), is_end.argmax(dim=-1)]
        return Encoding(
            self.final_layer_norm(states[-1 - num_skipped]) if num_skipped else last,
            states[-2 - num_skipped],
            pooled if self.text_projection is None else call(self.text_projection, pooled),
        )


def embedding(rows: int, width: int) -> nn.Embedding:
    """(rows, width), random."""
    return nn.Embedding(rows, width, _weight=fresh(rows, width))


class Layer(nn.Module):
    """Attention to a token and those before it, and two linear layers."""

    def __init__(self, width: int, num_heads: int, inner: int, eps: float, is_quick: bool) -> None:  # noqa: FBT001
        super().__init__()
        self.self_attn = Attention(width, num_heads)
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})
        self.layer_norm2 = nn.LayerNorm(width, eps)
        self.is_quick = is_quick

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, L, D) -> the same."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden))
        inner = call(self.mlp["fc1"], self.layer_norm2(hidden))
        inner = inner * torch.sigmoid(1.702 * inner) if self.is_quick else gelu(inner)
        return hidden + call(self.mlp["fc2"], inner)


class Attention(nn.Module):
    """Each token reads those before it."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = JoinedLinear(("q_proj", "k_proj", "v_proj"), width, width, bias=True)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, L, D) -> the same."""
        queries, keys, values = self.qkv_proj.split(call(self.qkv_proj, hidden))
        return call(self.out_proj, attend(queries, keys, values, self.num_heads, is_causal=True))

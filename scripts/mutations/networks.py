"""The planted bugs of the networks, their loading and the tokenizer; see `base.py`."""

from __future__ import annotations

from typing import Final

from mutations.base import Mutation

__all__ = ["MUTATIONS"]

AUTOENCODER: Final = "engine/networks/autoencoder.py"
CLIP: Final = "engine/networks/clip.py"
LAYERS: Final = "engine/networks/layers.py"
LOADING: Final = "engine/models/loading.py"
MODEL: Final = "engine/models/stable_diffusion.py"
OPTIONS: Final = "engine/models/options.py"
PLAN: Final = "engine/models/unet_plan.py"
PROMPTS: Final = "engine/prompts/encoder.py"
TOKENIZER: Final = "engine/models/tokenizer.py"
UNET: Final = "engine/networks/unet.py"
CONDITIONING: Final = "engine/networks/conditioning.py"

NETWORKS: Final = "tests/engine/test_networks.py::"
UNET_PREDICTS: Final = f"{NETWORKS}test_a_unet_predicts_what_diffusers_does"
ENCODER_READS: Final = f"{NETWORKS}test_a_text_encoder_reads_as_transformers_does"
CODES: Final = f"{NETWORKS}test_an_autoencoder_encodes_and_decodes_as_diffusers_does"
ODD_SIZES: Final = f"{NETWORKS}test_sizes_that_do_not_halve_evenly_are_rounded_as_diffusers_does"
ITS_OWN_TIME: Final = (
    "tests/engine/test_prompts.py::test_each_text_has_the_time_embedding_of_its_own_words_and_timesteps"
)
TOKENS: Final = "tests/engine/test_tokenizer.py::test_special_tokens_are_found_wherever_a_folder_describes_them"

MUTATIONS: Final = (
    # --- computed once a prompt, once a picture -----------------------------------------------------------------------
    Mutation(
        name="keys-of-another-prompt",
        file=PROMPTS,
        old="self._texts.get((prompt, num_chunks), lambda",
        new='self._texts.get(("", 1), lambda',
        test="tests/engine/test_prompts.py::test_texts_that_differ_anywhere_are_read_apart",
        why="Every picture would be drawn after the first prompt that was ever read.",
    ),
    Mutation(
        name="time-of-another-text",
        file=PROMPTS,
        old="key = (None if is_same else (prompt, num_chunks), timesteps,",
        new="key = (None, timesteps,",
        test=ITS_OWN_TIME,
        why="With the built-in model a picture would hold what another prompt adds to every layer.",
    ),
    Mutation(
        name="time-of-other-timesteps",
        file=PROMPTS,
        old="(prompt, num_chunks), timesteps, sizes, guidance)",
        new="(prompt, num_chunks), (), sizes, guidance)",
        test=ITS_OWN_TIME,
        why="A picture of 12 steps would be denoised as if it were on its way through 28.",
    ),
    Mutation(
        name="time-embedding-of-the-next-step",
        file="engine/batch.py",
        old="conditioning.time[state.call_index] for",
        new="conditioning.time[min(state.call_index + 1, state.num_calls - 1)] for",
        test="tests/engine/test_batch.py::test_the_network_is_shown_each_pictures_own_latents_timestep_and_prompts",
        why="The network would take away less noise than there is, at every step.",
    ),
    Mutation(
        name="addition-forgotten",
        file=MODEL,
        old="told.append(prompt.addition)",
        new="told.append(torch.zeros_like(prompt.addition))",
        test="tests/engine/test_stable_diffusion.py::test_the_built_in_model_tells_its_network_all_that_diffusers_does",
        why="The built-in model would hear half of what a prompt says.",
    ),
    Mutation(
        name="large-prompts-never-forgotten",
        file=PROMPTS,
        old="self._total_bytes += self._num_bytes(value)",
        new="self._total_bytes += 0",
        test="tests/engine/test_prompts.py::test_large_texts_are_forgotten_sooner",
        why="64 prompts of Stable Diffusion XL would hold 1.6 GB of a GPU.",
    ),
    # --- layers -------------------------------------------------------------------------------------------------------
    Mutation(
        name="heads-interleaved",
        file=LAYERS,
        old="part.reshape(rows, -1, num_heads, width // num_heads).transpose(1, 2)",
        new="part.reshape(rows, -1, width // num_heads, num_heads).permute(0, 3, 1, 2)",
        test=UNET_PREDICTS,
        why="Attention would mix the channels of different heads: noise instead of pictures.",
    ),
    Mutation(
        name="joined-layers-in-another-order",
        file=LAYERS,
        old="for index, name in enumerate(self.names):",
        new="for index, name in enumerate(reversed(self.names)):",
        test=f"{NETWORKS}test_joined_layers_stand_apart_in_files",
        why="Values would be taken for queries.",
    ),
    Mutation(
        name="scale-and-shift-swapped",
        file=LAYERS,
        old="scale, shift = mine[:, : hidden.shape[1]], mine[:, hidden.shape[1] :]",
        new="shift, scale = mine[:, : hidden.shape[1]], mine[:, hidden.shape[1] :]",
        test=UNET_PREDICTS,
        why="The built-in model would draw noise.",
    ),
    Mutation(
        name="autoencoder-padded-on-all-sides",
        file=LAYERS,
        old="pad(inputs, (0, 1, 0, 1))",
        new="pad(inputs, (1, 0, 1, 0))",
        test=CODES,
        why="Input pictures would be moved by a pixel at each halving.",
    ),
    Mutation(
        name="sizes-always-doubled",
        file=UNET,
        old="upsample(hidden, skips[-1].shape[-2:])",
        new="upsample(hidden)",
        test=ODD_SIZES,
        why="A picture of 520 pixels would fail: 65 latents are halved to 33 and doubled to 66.",
    ),
    # --- UNet ---------------------------------------------------------------------------------------------------------
    Mutation(
        name="skips-first-in-first-out",
        file=UNET,
        old="torch.cat([hidden, skips.pop()], dim=1)",
        new="torch.cat([skips.pop(), hidden], dim=1)",
        test=UNET_PREDICTS,
        why="Each layer on the way up would take one input for the other.",
    ),
    Mutation(
        name="waves-swapped",
        file=CONDITIONING,
        old="[angles.cos(), angles.sin()] if plan.cosines_first",
        new="[angles.sin(), angles.cos()] if plan.cosines_first",
        test=UNET_PREDICTS,
        why="The network would be told of another time.",
    ),
    Mutation(
        name="gate-and-gated-swapped",
        file=UNET,
        old="both[..., :half] * gelu(both[..., half:])",
        new="gelu(both[..., :half]) * both[..., half:]",
        test=UNET_PREDICTS,
        why="Feed-forward layers would compute something else.",
    ),
    Mutation(
        name="every-attention-reads-the-first-s-keys",
        file=UNET,
        old="attention.prompt_columns = slice(begin, end)",
        new="attention.prompt_columns = slice(0, end - begin)",
        test=UNET_PREDICTS,
        why="Fifteen of the sixteen cross attentions of Stable Diffusion 1.5 would read another's keys and values.",
    ),
    Mutation(
        name="every-block-is-told-the-first-s-time",
        file=UNET,
        old="block.time_columns = slice(begin, end)",
        new="block.time_columns = slice(0, end - begin)",
        test=UNET_PREDICTS,
        why="All residual blocks but the first would be told of the time in another's words.",
    ),
    Mutation(
        name="transformer-norm-of-resnets",
        file=UNET,
        old="self.norm = nn.GroupNorm(plan.num_groups, width, eps=1e-6)",
        new="self.norm = nn.GroupNorm(plan.num_groups, width, eps=1e-5)",
        test=UNET_PREDICTS,
        why="A small error everywhere, which only the comparison in float64 can see.",
    ),
    Mutation(
        name="depths-not-reversed",
        file=PLAN,
        old="for depths, count in zip(reversed(down), up_layers, strict=True)",
        new="for depths, count in zip(down, up_layers, strict=True)",
        test=UNET_PREDICTS,
        why="Stable Diffusion XL would not load.",
    ),
    Mutation(
        name="unknown-options-accepted",
        file=OPTIONS,
        old="value not in (None, False)",
        new="value is name",
        test=f"{NETWORKS}test_an_option_that_is_not_served_is_refused_by_name",
        why="A model with a layer that is not known here would be drawn without it.",
    ),
    # --- text ---------------------------------------------------------------------------------------------------------
    Mutation(
        name="tokens-see-the-future",
        file=CLIP,
        old="self.num_heads, is_causal=True",
        new="self.num_heads, is_causal=False",
        test=ENCODER_READS,
        why="Prompts would be understood as CLIP never learnt it.",
    ),
    Mutation(
        name="one-activation-for-all",
        file=CLIP,
        old="if self.is_quick else gelu(inner)",
        new="if True else gelu(inner)",
        test=ENCODER_READS,
        why="The text encoders of Stable Diffusion 2 and XL would be a little off, which nobody would see.",
    ),
    Mutation(
        name="penultimate-is-the-last",
        file=CLIP,
        old="states[-2 - num_skipped]",
        new="states[-1 - num_skipped]",
        test=ENCODER_READS,
        why="Stable Diffusion XL would read the wrong layer.",
    ),
    Mutation(
        name="pooled-at-the-last-end-token",
        file=CLIP,
        old="(tokens == self.end_token).int()",
        new="(tokens == self.end_token).int().cumsum(dim=-1)",
        test=ENCODER_READS,
        why="Stable Diffusion XL would pool its prompt at the padding.",
    ),
    Mutation(
        name="case-matters",
        file=TOKENIZER,
        old=", normalizers.Lowercase()]",
        new="]",
        test=TOKENS,
        why="`Cat` would be spelt letter by letter.",
    ),
    Mutation(
        name="padding-is-always-the-end",
        file=TOKENIZER,
        old="*[self._padding] * (",
        new="*[self._end] * (",
        test=TOKENS,
        why="Stable Diffusion 2 pads with another token, and would draw other pictures.",
    ),
    Mutation(
        name="the-end-is-cut-off",
        file=TOKENIZER,
        old="return [*tokens[: PROMPT_TOKENS - 1], self._end]",
        new="return [*tokens[:PROMPT_TOKENS]]",
        test=TOKENS,
        why="A long prompt would have no end.",
    ),
    # --- autoencoders and loading -------------------------------------------------------------------------------------
    Mutation(
        name="latents-not-clamped",
        file=AUTOENCODER,
        old="self.decoder(torch.tanh(latents / 3) * 3)",
        new="self.decoder(latents)",
        test=CODES,
        why="A tiny autoencoder would burn out bright spots.",
    ),
    Mutation(
        name="weights-left-in-the-file",
        file=LOADING,
        old="target.copy_(changed(tensor, changes[name]) if name in changes else tensor)",
        new="target.set_(tensor) if tensor.dtype == target.dtype and tensor.ndim < 2 else target.copy_(tensor)",
        test="tests/engine/test_loading.py::test_overwriting_the_files_does_not_change_a_loaded_model",
        why="Overwriting a model's file while it is served would change its pictures, or kill the process.",
    ),
)

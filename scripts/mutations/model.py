"""The planted bugs of what the networks read and answer; see `base.py`."""

from __future__ import annotations

from typing import Final

from mutations.base import Mutation

__all__ = ["MUTATIONS"]

MODEL: Final = "engine/models/stable_diffusion.py"
PROMPTS: Final = "engine/prompts/encoder.py"
INVERSIONS: Final = "tests/engine/prompts/test_textual_inversions.py"

MUTATIONS: Final = (
    # --- what the networks read and answer ----------------------------------------------------------------------------
    Mutation(
        name="timesteps-whole-in-the-model",
        file=MODEL,
        old="(timesteps, *told)",
        new="(timesteps.long(), *told)",
        test="tests/engine/test_stable_diffusion.py::test_the_network_is_told_the_fraction_of_a_timestep",
        why="Karras schedules would be drawn at other noise levels than the table assumes.",
    ),
    Mutation(
        name="decode-unscaled",
        file=MODEL,
        old="(latents / self._vae_layout.scaling_factor)",
        new="latents",
        test="tests/engine/test_stable_diffusion.py::"
        "test_pixels_are_scaled_and_rounded_to_the_last_bit_as_diffusers_does",
        why="Pictures would come out pale: Stable Diffusion's latents are scaled by 0.18.",
    ),
    Mutation(
        name="pixels-truncated",
        file=MODEL,
        old="* 255).round()",
        new="* 255)",
        test="tests/engine/test_stable_diffusion.py::"
        "test_pixels_are_scaled_and_rounded_to_the_last_bit_as_diffusers_does",
        why="Pictures would be half a level too dark, too little for any eye to notice.",
    ),
    Mutation(
        name="markers-not-counted",
        file="engine/models/prompt_cutter.py",
        old="tokens(text)) - PROMPT_TOKENS)",
        new="tokens(text)) - PROMPT_TOKENS - 2)",
        test="tests/engine/test_stable_diffusion.py::test_tokens_beyond_what_is_read_are_counted",
        why="A prompt could lose its last two words without anybody being told.",
    ),
    Mutation(
        name="prompts-unchecked-at-acceptance",
        file="server/admission.py",
        old="await self._check(new.params)\n",
        new="pass\n",
        test="tests/server/test_prompt_check.py::"
        "test_a_request_that_is_too_long_is_refused_at_the_post_and_no_job_is_made",
        why="A prompt that is too long would get a job, which fails later.",
    ),
    Mutation(
        name="early-chunks-not-counted",
        file="engine/prompt_limits.py",
        old="most_tokens // (CHUNK_TOKENS - COMMA_REACH)",
        new="most_tokens // (CHUNK_TOKENS + COMMA_REACH)",
        test="tests/server/test_prompt_check.py::test_what_passes_without_a_tokenizer_is_short_for_every_tokenizer",
        why="A prompt could be accepted as short enough, and its job would fail when the engine reads it.",
    ),
    Mutation(
        name="negative-truncation-untold",
        file="engine/params.py",
        old="for text in (leg.prompt, leg.negative_prompt) if text",
        new="for text in (leg.prompt,) if text",
        test="tests/engine/test_prompts.py::"
        "test_truncated_tokens_of_both_texts_are_counted_and_only_of_those_that_are_read",
        why="A negative prompt could be cut without anybody being told.",
    ),
    Mutation(
        name="prompts-remembered-by-their-beginning",
        file=PROMPTS,
        old="self._texts.get((prompt, num_chunks), lambda",
        new="self._texts.get((prompt.text[:77], num_chunks), lambda",
        test="tests/engine/test_prompts.py::test_texts_that_differ_anywhere_are_read_apart",
        why="77 is the limit in tokens, not in characters: somebody would get the picture of another prompt.",
    ),
    Mutation(
        name="prompts-never-forgotten",
        file=PROMPTS,
        old="while len(self._values) > MAX_REMEMBERED or (",
        new="while (",
        test="tests/engine/test_prompts.py::test_the_text_that_was_not_used_for_longest_is_forgotten",
        why="A server would grow by 0.2 MB with every new prompt until it is killed.",
    ),
    Mutation(
        name="inverted-words-one-place-early",
        file="engine/models/texts.py",
        old="(1 + place, sent(",
        new="(place, sent(",
        test=f"{INVERSIONS}::test_a_name_becomes_its_vectors_as_in_diffusers",
        why="A textual inversion would overwrite the mark before it, and its last vector be that of a placeholder.",
    ),
    Mutation(
        name="shortest-name-of-an-inversion-first",
        file="engine/models/inversion_names.py",
        old="len(entry[0]), reverse=True)",
        new="len(entry[0]))",
        test=f"{INVERSIONS}::test_a_name_becomes_its_vectors_as_in_diffusers",
        why="Of two textual inversions, one of whose names begins with the other's, only one could ever be used.",
    ),
    Mutation(
        name="inversion-for-another-model-believed",
        file="engine/models/textual_inversions.py",
        old="tuple(widths) == self.widths",
        new="len(widths) == len(self.widths)",
        test=f"{INVERSIONS}::test_a_file_that_cannot_be_used_is_refused_by_name_where_a_prompt_names_it",
        why="A request would end in an error of torch about sizes instead of a sentence.",
    ),
)

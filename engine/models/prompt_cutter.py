"""How a model's text encoders cut a prompt into chunks, by their tokenizers alone. No torch, no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ModelLoadError
from engine.models.inversion_names import InversionNames, NamedInversion
from engine.models.layout import PROMPT_TOKENS, TextEncoderPart, read_configs
from engine.models.single_file import tokenizer_folder
from engine.models.tokenizer import Tokenizer
from engine.prompt_limits import check_clip_skip
from engine.prompts.chunks import Chunk, cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from engine.models.textual_inversions import TextualInversion
    from engine.prompts.prompt import Prompt

__all__ = ["PromptCutter", "load_cutters", "load_tokenizer", "most_chunks"]


class PromptCutter:
    """One text encoder's view of a prompt. Any thread may use it: nothing in it changes."""

    def __init__(self, tokenizer: Tokenizer, num_layers: int, inversions: Sequence[NamedInversion] = ()) -> None:
        """Put it together.

        Args:
            tokenizer: text -> tokens.
            num_layers: of the text encoder.
            inversions: textual inversions that prompts may name.
        """
        self._names = InversionNames(tokenizer, inversions)
        self._tokenizer = tokenizer
        self._num_layers = num_layers

    def count_truncated_tokens(self, text: str) -> int:
        """The first and the last of the 77 tokens are markers."""
        return max(0, len(self._tokenizer.tokens(text)) - PROMPT_TOKENS)

    def chunks(self, prompt: Prompt) -> list[Chunk]:
        """A weighted prompt, cut.

        Raises:
            PromptError: it breaks a rule of the language, or names a textual inversion that cannot be used.
            InvalidParamsError: the encoder has too few layers for it.
        """
        check_clip_skip(prompt.clip_skip, self._num_layers)
        tokens = self._tokenizer.tokens
        return cut(
            (
                [word for text, weight in part for word in self._names.words(tokens(text)[1:-1], weight)]
                for part in prompt.parts
            ),
            self._tokenizer.comma,
        )

    def count_chunks(self, prompt: Prompt) -> int:
        """Of 75 tokens; 1 if it is plain.

        Raises:
            PromptError: it breaks a rule of the language.
            InvalidParamsError: the encoder has too few layers for it.
        """
        check_clip_skip(prompt.clip_skip, self._num_layers)
        return len(self.chunks(prompt)) if prompt.is_weighted else 1


def most_chunks(cutters: Iterable[PromptCutter], prompt: Prompt) -> int:
    """Chunks of a prompt, of the encoder that cuts it into most; 1 if it is plain.

    Raises:
        PromptError: it breaks a rule of the language.
        InvalidParamsError: an encoder has too few layers for it.
    """
    return max(cutter.count_chunks(prompt) for cutter in cutters)


def load_cutters(folder: Path, inversions: Sequence[TextualInversion] = ()) -> list[PromptCutter]:
    """One for each text encoder of a model.

    Args:
        folder: the model.
        inversions: textual inversions that prompts may name.

    Raises:
        ModelLoadError: a file is missing or damaged.
    """
    configs = read_configs(folder)
    widths = [configs.text_width(part) for part in configs.text_encoders]
    names = [NamedInversion(one.name, one.num_vectors, one.fault_with(widths)) for one in inversions]
    return [
        PromptCutter(load_tokenizer(folder, part), configs.text_layers(part), names) for part in configs.text_encoders
    ]


def load_tokenizer(folder: Path, part: TextEncoderPart = "text_encoder") -> Tokenizer:
    """The tokenizer of a text encoder.

    Raises:
        ModelLoadError: a file is missing or damaged, or it knows tokens that the text encoder does not.
    """
    configs = read_configs(folder)
    if configs.single is None:
        place: Path | None = folder / part.replace("text_encoder", "tokenizer")
        tokenizer = Tokenizer(place)
    else:
        # One tokenizer for both encoders; OpenCLIP's pads with the first token of the vocabulary.
        place = tokenizer_folder(folder)
        tokenizer = Tokenizer(place, padding=0 if part in configs.single.open_clip else None)
    config: Mapping[str, Any] | None = getattr(configs, part)
    if config is None:
        raise ModelLoadError(f"{folder} has no {part}")
    vocabulary_size = config.get("vocab_size", 49408)
    # On a GPU an unknown token is an error after which the whole process must end.
    largest = tokenizer.largest_token
    if largest >= vocabulary_size:
        name = place or f"{folder}: CLIP's tokenizer"
        raise ModelLoadError(f"{name} has the token {largest}, but the text encoder knows only {vocabulary_size}")
    return tokenizer

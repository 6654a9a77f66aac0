"""CLIP's tokenizer, read off a model's folder: text -> the token ids of transformers' CLIPTokenizer. No torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as TokenizerLibrary
from tokenizers.models import BPE

from engine.errors import ModelLoadError
from engine.models.clip_vocabulary import clip_vocabulary
from engine.models.layout import PROMPT_TOKENS, check_tokenizer_class

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Tokenizer"]

_START, _END = "<|startoftext|>", "<|endoftext|>"
_DEFAULTS: Final = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
_SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""In this order: of two descriptions of one token the later counts."""

# Source: https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py
_WORDS: Final = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """Text -> token ids. Any thread may use it: nothing in it changes."""

    def __init__(self, folder: Path | None, padding: int | None = None) -> None:
        """Read `tokenizer.json`, or `vocab.json` and `merges.txt`, and which tokens are special.

        Args:
            folder: where they are; None: CLIP's own, which ships with the server.
            padding: the token that fills a text up; None: as the files say.

        Raises:
            ModelLoadError: a file is missing or damaged, or it describes another tokenizer.
        """
        if folder is not None:
            check_tokenizer_class(folder / "tokenizer_config.json")
        try:
            tokenizer, names = _read(folder)
        except ModelLoadError:
            raise
        except Exception as error:  # the tokenizers library raises bare `Exception` for damaged files
            words = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ModelLoadError(f"{folder} cannot be read: {words}") from error
        self._tokenizer = tokenizer
        # What the vocabulary lacks was added to it.
        ids = (tokenizer.token_to_id(names[f"{purpose}_token"]) or 0 for purpose in ("bos", "eos", "pad"))
        self._start, self._end, own = ids
        self._padding = own if padding is None else padding

    @property
    def largest_token(self) -> int:
        """The largest id that a text may have."""
        return max(self._tokenizer.get_vocab().values())

    def tokens(self, text: str) -> list[int]:
        """The ids of a whole text, however long, between its start and its end."""
        return [self._start, *self._tokenizer.encode(text, add_special_tokens=False).ids, self._end]

    @property
    def comma(self) -> int | None:
        """The id of a comma that ends a word; None: there is none."""
        return self._tokenizer.token_to_id(",</w>")

    def marked(self, tokens: Sequence[int]) -> list[int]:
        """The ids of a chunk, at most 75, as the text encoder reads them."""
        return self.padded([self._start, *tokens, self._end])

    def padded(self, tokens: Sequence[int]) -> list[int]:
        """A text's ids as the text encoder reads them: 77, cut before the end or padded behind it."""
        if len(tokens) > PROMPT_TOKENS:
            return [*tokens[: PROMPT_TOKENS - 1], self._end]
        return [*tokens, *[self._padding] * (PROMPT_TOKENS - len(tokens))]


def _read(folder: Path | None) -> tuple[TokenizerLibrary, dict[str, str]]:
    """The tokenizer, and the texts of its special tokens."""
    config = _if_there(folder, "tokenizer_config.json")
    whole = _if_there(folder, "tokenizer.json")
    added, special = _described(folder, config, whole)
    names = {name: str(token) for name, token in special.items()}
    if folder is None:
        vocabulary, merges = clip_vocabulary()
    elif whole:
        vocabulary = whole["model"]["vocab"]
        merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in whole["model"]["merges"]]
    else:
        vocabulary, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = TokenizerLibrary(
        BPE(vocab=vocabulary, merges=merges, unk_token=names["unk_token"], end_of_word_suffix="</w>", fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokens: list[AddedToken | str] = [added[index] for index in sorted(added)]
    known = {str(token) for token in tokens}
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
    for token in (*(special[name] for name in _SPECIAL if name in special), *map(_token, more)):
        # A text and a description are not equal, even if they name the same token.
        if str(token) not in known and token not in tokens:
            tokens.append(token)
    for token in tokens:
        if isinstance(token, AddedToken) and str(token) in names.values():
            token.special = True
    tokenizer.add_tokens([AddedToken(token, special=True) if isinstance(token, str) else token for token in tokens])
    return tokenizer, names


def _described(
    folder: Path | None, config: Mapping[str, Any], whole: Mapping[str, Any]
) -> tuple[dict[int, AddedToken], dict[str, AddedToken | str]]:
    """The added tokens by id, and the special ones by purpose, as the files of several years describe them."""
    values = {name: config[name] for name in _SPECIAL if name in config}
    if "added_tokens_decoder" in config:
        added = {int(index): AddedToken(**token) for index, token in config["added_tokens_decoder"].items()}
    else:
        values |= _if_there(folder, "special_tokens_map.json")
        special = {str(_token(value)) for value in values.values() if isinstance(value, str | dict)}
        added = {
            index: AddedToken(text, normalized=text not in special, special=text in special)
            for text, index in _if_there(folder, "added_tokens.json").items()
        }
        for token in whole.get("added_tokens", ()):
            added[token["id"]] = AddedToken(**{key: value for key, value in token.items() if key != "id"})
    by_text = {str(token): token for token in added.values()}
    described: dict[str, AddedToken | str] = dict(_DEFAULTS)
    for name in _SPECIAL:
        if (value := values.get(name)) is not None:
            token = _token(value)
            described[name] = by_text.get(str(token), token)
    return added, described


def _token(value: str | dict[str, Any]) -> AddedToken | str:
    if isinstance(value, str):
        return value
    return AddedToken(**{key: part for key, part in value.items() if key not in ("__type", "special")}, special=True)


def _if_there(folder: Path | None, name: str) -> dict[str, Any]:
    path = None if folder is None else folder / name
    return dict(json.loads(path.read_bytes())) if path is not None and path.is_file() else {}

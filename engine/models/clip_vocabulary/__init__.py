"""CLIP's vocabulary, which ships with the server: single-file checkpoints hold none. No torch.

`merges.txt.gz` is made by `scripts/make_clip_vocabulary.py`; `LICENSE.txt` says whose it is.
"""

from __future__ import annotations

import gzip
from pathlib import Path

__all__ = ["NUM_TOKENS", "clip_vocabulary"]

NUM_TOKENS = 49408
_FOLDER = Path(__file__).resolve().parent


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The id of each token, and the pairs that are joined, the first ones first.

    In CLIP's order: a letter for each byte, the same at the end of a word, what each merge gives, start and end.
    """
    lines = gzip.decompress((_FOLDER / "merges.txt.gz").read_bytes()).decode().splitlines()
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    letters = _letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def _letters() -> list[str]:
    """What stands for each byte: itself where it can be seen, else a letter beyond the first 256."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(visible)
    return [chr(byte) for byte in visible] + [chr(256 + index) for index in range(others)]

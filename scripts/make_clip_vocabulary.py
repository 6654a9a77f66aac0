"""Make `engine/models/clip_vocabulary/merges.txt.gz` out of the vocabulary file that CLIP comes with.

    pip download --no-deps open_clip_torch && unzip open_clip_torch-*.whl open_clip/bpe_simple_vocab_16e6.txt.gz
    python scripts/make_clip_vocabulary.py open_clip/bpe_simple_vocab_16e6.txt.gz

The file lists 262,144 merges, of which CLIP uses the first 48,894. The same input gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

NUM_MERGES = 49152 - 256 - 2
SHA256 = "67603cfda2e032ad77b5f8808af37789d590db664b26df8705d2bf8b3c553fc8"
"""Of the unpacked file."""
TARGET = Path(__file__).resolve().parents[1] / "engine" / "models" / "clip_vocabulary" / "merges.txt.gz"


def main() -> int:
    """Read the file that the command line names; 0 if it is the one."""
    content = gzip.decompress(Path(sys.argv[1]).read_bytes())
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        print(f"make_clip_vocabulary: SHA-256 must be {SHA256}, not {found}", file=sys.stderr)
        return 1
    lines = content.decode().splitlines()[1 : 1 + NUM_MERGES]  # the first line is a title
    TARGET.write_bytes(gzip.compress("\n".join(lines).encode() + b"\n", 9, mtime=0))
    print(f"{len(lines)} merges, {TARGET.stat().st_size} bytes: {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Write a model folder with random weights: the real thing in every size, for benchmarks and tests.

python scripts/make_random_model.py --arch sd15 --dtype float16 --output var/random-sd15
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

# Started by its path, Python looks for modules beside this file and not in the repository.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from engine.models.random_model import (
    Architecture,
    AutoencoderKind,
    PredictionType,
    make_random_model,
)


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=get_args(Architecture), required=True, help="sd15: 2.1 GB in float16")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    parser.add_argument("--prediction-type", choices=get_args(PredictionType), default="epsilon")
    parser.add_argument("--vae", choices=get_args(AutoencoderKind), default="kl")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float32", help="of the weights on disk")
    options = parser.parse_args()
    if options.output.exists() and (not options.output.is_dir() or any(options.output.iterdir())):
        parser.error(f"{options.output} is not an empty folder")

    started = time.monotonic()
    make_random_model(
        options.output,
        arch=options.arch,
        seed=options.seed,
        prediction_type=options.prediction_type,
        vae=options.vae,
        dtype=torch.float16 if options.dtype == "float16" else torch.float32,
    )
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output}: {size / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()

"""Weights in safetensors files: read as the package `safetensors` reads them, and without keeping memory."""

from __future__ import annotations

import ctypes
import gc
import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ModelLoadError
from engine.models.locate import locate
from engine.models.stable_diffusion import StableDiffusion
from engine.models.weights_file import WeightsFile

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


def test_every_kind_of_number_and_shape_is_read_as_safetensors_reads_it(tmp_path: Path):
    numbers = torch.arange(24, dtype=torch.float32)
    weights = {str(dtype): numbers.to(dtype).reshape(2, 3, 4) for dtype in DTYPES}
    weights |= {"scalar": torch.tensor(7.0), "empty": torch.zeros(0, 3), "odd": torch.ones(3, dtype=torch.uint8)}
    save_file(weights, tmp_path / "all.safetensors")
    expected, file = load_file(tmp_path / "all.safetensors"), WeightsFile(tmp_path / "all.safetensors")
    assert file.names == expected.keys()
    for name, tensor in expected.items():
        ours = file.tensor(name)
        assert (ours.dtype, ours.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(ours.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name


def written(path: Path, header: dict[str, object], data: bytes, pad: int = 0) -> Path:
    text = json.dumps(header).encode()
    text += b" " * ((pad - len(text)) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_a_file_whose_tensors_are_not_aligned_is_read(tmp_path: Path, pad: int):
    data = struct.pack("<2f", 1.5, -2.0)
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    file = WeightsFile(written(tmp_path / "m.safetensors", {"a": entry}, data, pad))
    assert file.tensor("a").tolist() == [1.5, -2.0]


def test_numbers_that_torch_does_not_have_are_refused_by_name(tmp_path: Path):
    entry = {"dtype": "U64", "shape": [1], "data_offsets": [0, 8]}
    file = WeightsFile(written(tmp_path / "m.safetensors", {"a": entry}, bytes(8)))
    with pytest.raises(ModelLoadError, match=r"m\.safetensors: a holds numbers of the kind U64"):
        file.tensor("a")


@pytest.mark.parametrize(("offsets", "num_bytes"), [([0, 8], 4), ([0, 4], 8), ([4, 12], 8), ([-8, 0], 8), ([0, 8], 9)])
def test_a_header_that_does_not_suit_its_data_is_refused(tmp_path: Path, offsets: list[int], num_bytes: int):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": offsets}
    with pytest.raises(ModelLoadError, match="damaged or not readable"):
        WeightsFile(written(tmp_path / "m.safetensors", {"a": entry}, bytes(num_bytes)))


def resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_loading_a_model_again_and_again_keeps_no_memory(tiny_model_folder: Path):
    """At most 1 MiB in a hundred loads; `safe_open(...).get_tensor` of safetensors 0.8.0 kept 5."""

    def load() -> None:
        with torch.inference_mode():
            StableDiffusion.load(locate(str(tiny_model_folder)), torch.device("cpu"), torch.float32)

    for _ in range(15):
        load()
    before = resident_bytes()
    for _ in range(40):
        load()
    assert resident_bytes() - before < 0.4 * 2**20

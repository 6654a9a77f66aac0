"""The hash that a picture's file names its model by: that of the weights, the same at every drawing."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from engine.models.random_model import make_random_model
from server.executors.messages import Configure
from server.worker.model_hash import model_hashes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    make_random_model(path, seed=1)
    return path


def hashes_of(model_id, tmp_path, **models):
    configuration = Configure(
        model_id=str(model_id), device="cpu", dtype="float32", cache_folder=str(tmp_path / "cache"), models=models
    )
    return model_hashes(configuration, prefer_fp16=False)


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def test_a_folder_has_the_hash_of_its_unet(folder, tmp_path):
    [weights] = (folder / "unet").glob("*.safetensors")
    assert hashes_of(folder, tmp_path)("") == digest_of(weights)
    assert hashes_of(folder, tmp_path)("") == digest_of(weights), "also by another engine, which finds it remembered"


def test_every_model_has_its_own_and_a_changed_one_another(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    [weights] = (other / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    hash_of = hashes_of(folder, tmp_path, other=str(other))
    assert hash_of("other") == digest_of(weights) != hash_of("")


def test_what_has_no_weights_has_no_hash(tmp_path):
    hash_of = hashes_of("fake", tmp_path, lost=str(tmp_path / "nowhere"))
    assert (hash_of(""), hash_of("lost"), hash_of("unknown")) == (None, None, None)

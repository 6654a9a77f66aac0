"""Shards of drawings, the pool that holds them, latents on disk."""

import math
from random import Random

import numpy as np
import pytest
import torch

from training.dreamlet.config import load_preset
from training.dreamlet.drawing.render import render, render_with_boxes
from training.dreamlet.drawings import JudgedDrawings, TrainingDrawings, subject_cells
from training.dreamlet.labels import IGNORED
from training.dreamlet.latent_shards import LatentShards, read_shard
from training.dreamlet.networks import new_autoencoder
from training.dreamlet.pool import Pool, Shard, Supply
from training.dreamlet.scenes import Scene, Shares, Subject, draw_said, draw_scene

TINY = load_preset("tiny")


def numbered(number):
    return Shard({"x": torch.full((2, 1), number)})


def test_a_full_pool_forgets_the_oldest():
    pool = Pool(numbered, shard=2, capacity=4)
    pool.grow_to(7)
    assert len(pool) == 4
    assert set(pool.sample(Random(0), 200).tensors["x"].flatten().tolist()) == {2, 3}


def test_a_pool_that_is_built_at_once_is_the_one_that_grew():
    """
    A training that goes on finds the drawings that it had, and makes none that have been forgotten since.
    """
    made = []

    def make(number):
        made.append(number)
        return numbered(number)

    grown, resumed = Pool(numbered, 2, 6), Pool(make, 2, 6)
    for drawn in range(1, 20):
        grown.grow_to(drawn)
    resumed.grow_to(19)
    assert made == [7, 8, 9]
    drawn = [pool.sample(Random(1), 50).tensors["x"] for pool in (grown, resumed)]
    assert torch.equal(*drawn)


def test_a_batch_has_one_size():
    shapes = {0: (2, 3), 1: (3, 2)}
    pool = Pool(lambda number: Shard({"x": torch.zeros(2, *shapes[number % 2])}), 2, 8)
    pool.grow_to(8)
    seen = {tuple(pool.sample(Random(seed), 5).tensors["x"].shape) for seed in range(20)}
    assert seen == {(5, 2, 3), (5, 3, 2)}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_supply_gives_the_same_with_processes_and_without(workers):
    supply = Supply(math.factorial, workers)
    assert [supply.get(number) for number in (3, 4, 5)] == [6, 24, 120]


def test_a_failure_while_drawing_reaches_the_training():
    def broken(_number):
        raise OSError("no more paper")

    with pytest.raises(OSError, match="no more paper"):
        Pool(broken, 2, 4).grow_to(1)


def test_a_shard_is_always_the_same_drawings_and_another_one_others():
    draw = TrainingDrawings.of(TINY, seed=3)
    first, again, other = draw(5), draw(5), draw(6)
    assert torch.equal(first.tensors["images"], again.tensors["images"])
    assert first.examples == again.examples
    assert first.examples != other.examples
    assert first.tensors["images"].shape == (4, 3, 64, 64)
    assert first.tensors["cells"].shape == (4, 4, 4)


def test_sizes_of_pictures_occur_by_their_shares():
    draw = TrainingDrawings(0, 1, ((64, 64, 0.5), (64, 96, 0.5)), Shares())
    assert {draw(number).tensors["images"].shape[2:] for number in range(12)} == {(64, 64), (96, 64)}


def test_latents_are_encoded_once_and_read_from_disk_afterwards(tmp_path):
    torch.manual_seed(0)
    autoencoder = new_autoencoder(32)
    first = LatentShards(TINY, 0, autoencoder, tmp_path)(0)
    torch.manual_seed(1)
    other = LatentShards(TINY, 0, new_autoencoder(32), tmp_path)(0)
    assert torch.equal(first.tensors["latents"], other.tensors["latents"])
    assert first.examples == other.examples == read_shard(tmp_path / "000000.safetensors").examples
    assert first.tensors["latents"].shape == (4, 16, 4, 4)
    assert first.tensors["latents"].dtype == torch.float16


def test_shards_that_no_pool_holds_any_longer_are_removed(tmp_path):
    make = LatentShards(TINY, 0, new_autoencoder(32), tmp_path)
    pool = Pool(make, TINY.shard, TINY.unet.pool)
    pool.grow_to(12)
    pool.grow_to(16)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["000001", "000002", "000003"]


@pytest.mark.parametrize(("width", "height"), [(256, 256), (320, 192), (192, 320)])
def test_the_cells_of_a_subject_cover_what_it_changes_in_the_picture(width, height):
    scene = Scene((Subject("ball", "red"),), "plain", "day", seed=5)
    empty = np.asarray(render(Scene((), "plain", "day", seed=5), width, height)).astype(int)
    picture, boxes = render_with_boxes(scene, width, height)
    cells = subject_cells(boxes, width, height)
    changed = (abs(np.asarray(picture).astype(int) - empty).max(axis=2) > 30).reshape(height // 16, 16, width // 16, 16)
    changed = changed.mean(axis=(1, 3))
    assert cells[changed > 0.3].all()
    assert not cells[: height // 16 // 4].any()
    assert 0 < cells.mean() < 0.6


def test_the_same_subject_stands_on_the_same_rows_of_latents_in_every_place():
    """
    Moved by whole cells only: otherwise the network would have to learn each drawing in many half-shifted versions.
    """
    feet = set()
    for place in ("mat", "yard", "mountains", "sea", "beach", "desert", "forest", "city", "room", "plain"):
        for seed in range(3):
            _, boxes = render_with_boxes(Scene((Subject("house", "red"),), place, "day", seed=seed))
            feet.add(round(min(bottom for _, bottom, _, _ in boxes) * 16, 6) % 1)
    assert len(feet) == 1


def test_shares_say_how_often_things_occur():
    random = Random(1)
    shares = Shares(landscape=0.1, pair=0.3, other_style=0.2, big=0.0, small=0.0, flaw=0.0)
    scenes = [draw_scene(random, draw_said(random, shares), shares) for _ in range(4000)]
    counts = [sum(len(scene.subjects) == number for scene in scenes) / 4000 for number in (0, 1, 2)]
    assert counts == pytest.approx([0.1, 0.6, 0.3], abs=0.03)
    assert sum(scene.style != "digital" for scene in scenes) / 4000 == pytest.approx(0.2, abs=0.03)
    assert {scene.subjects[0].size for scene in scenes if len(scene.subjects) == 1} == {"normal"}


def test_the_judge_is_asked_for_each_half_where_there_are_two_subjects():
    labels = JudgedDrawings(0, 12, pair_share=0.5)(0).tensors["labels"]
    is_pair = labels[:, 0, 0] == IGNORED
    assert 0 < is_pair.sum() < 12
    assert (labels[is_pair, 1:, :2] != IGNORED).all()
    assert (labels[~is_pair, 1:] == IGNORED).all()
    assert (labels[:, 0, 2] != IGNORED).all()

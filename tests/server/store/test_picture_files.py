"""Picture files: whole or not there, found again, removed with their job, and nowhere else."""

from __future__ import annotations

import os
import stat

import pytest

from server.store.errors import StoreUnavailableError
from server.store.picture_files import ResultFiles

JOB, OTHER = "3f0c5577aa99bb11", "3f0c5577aa99bb12"


@pytest.fixture
def files(tmp_path):
    return ResultFiles(tmp_path / "results")


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_picture_is_found_again_byte_for_byte(files):
    files.write(JOB, 0, b"first")
    files.write(JOB, 7, b"eighth")
    assert (files.read(JOB, 0), files.read(JOB, 7)) == (b"first", b"eighth")


def test_a_picture_that_is_not_kept_is_none(files):
    assert files.read(JOB, 0) is None
    files.write(JOB, 0, b"first")
    assert files.read(JOB, 1) is None
    assert files.read(OTHER, 0) is None


def test_files_lie_in_folders_of_two_digits_that_only_this_user_can_open(files, tmp_path):
    files.write(JOB, 0, b"first")
    assert everything(tmp_path) == [f"results/3f/{JOB}.0"]
    for path in (tmp_path / "results", tmp_path / "results" / "3f"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_folders_that_were_made_before_are_those_that_pictures_lie_in(files, tmp_path):
    for _ in range(2):
        files.make_folders()
    folders = {path.name for path in (tmp_path / "results").iterdir()}
    files.write(JOB, 0, b"first")
    assert {path.name for path in (tmp_path / "results").iterdir()} == folders
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_dir()} == {0o700}
    assert len(folders) == 256


def test_folders_that_cannot_be_made_are_left_to_the_first_picture(files, tmp_path):
    (tmp_path / "results").write_bytes(b"")
    files.make_folders()
    (tmp_path / "results").unlink()
    files.write(JOB, 0, b"first")
    assert files.read(JOB, 0) == b"first"


def test_a_second_attempt_replaces_the_first(files, tmp_path):
    files.write(JOB, 0, b"first")
    files.write(JOB, 0, b"second")
    assert files.read(JOB, 0) == b"second"
    assert len(everything(tmp_path)) == 1


def test_deleting_takes_all_pictures_of_one_job_and_may_be_repeated(files):
    for index in range(3):
        files.write(JOB, index, b"mine")
    files.write(OTHER, 0, b"other")
    for _ in range(2):
        files.delete(JOB)
    assert [files.read(JOB, index) for index in range(3)] == [None] * 3
    assert files.read(OTHER, 0) == b"other"


@pytest.mark.parametrize("job_id", ["", "../../../etc/pwd", "3F0C5577AA99BB11", JOB + "\n", JOB + "0", "*" * 16])
def test_nothing_but_a_job_id_becomes_a_path(files, job_id):
    for act in (lambda: files.read(job_id, 0), lambda: files.write(job_id, 0, b""), lambda: files.delete(job_id)):
        with pytest.raises(ValueError, match="16 hexadecimal digits"):
            act()


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_nothing_and_spoils_nothing(files, tmp_path, monkeypatch, broken):
    files.write(JOB, 0, b"first")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, broken, full)
        patched.setattr("pathlib.Path.replace", full)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            files.write(JOB, 0, b"second")
    assert everything(tmp_path) == [f"results/3f/{JOB}.0"]
    assert files.read(JOB, 0) == b"first"
    files.write(JOB, 0, b"third")
    assert files.read(JOB, 0) == b"third"


def test_the_data_reach_the_disk_before_the_name_and_the_name_before_the_answer(files, tmp_path, monkeypatch):
    files.write(OTHER, 0, b"makes the folder")
    happened = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        happened.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size)
        real_fsync(descriptor)

    def replace(*paths):
        happened.append("replace")
        real_replace(*paths)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr("pathlib.Path.replace", replace)
    files.write(JOB, 0, b"12345")
    assert happened == [5, "replace", "folder"]


def test_a_file_in_the_way_of_a_folder_is_told(files, tmp_path):
    (tmp_path / "results").write_bytes(b"")
    for act in (lambda: files.write(JOB, 0, b""), lambda: files.read(JOB, 0)):
        with pytest.raises(StoreUnavailableError):
            act()


def test_sweeping_removes_unfinished_files_and_those_of_lost_jobs_and_nothing_else(files, tmp_path):
    files.write(JOB, 0, b"kept")
    files.write(OTHER, 0, b"lost")
    files.write(OTHER, 1, b"lost")
    shard = tmp_path / "results" / "3f"
    (shard / ".unfinished-abc").write_bytes(b"half a pic")
    (shard / "README").write_bytes(b"somebody's own")
    (tmp_path / "results" / "notes").write_bytes(b"somebody's own")
    assert files.sweep({JOB}.__contains__) == 3
    assert everything(tmp_path) == [f"results/3f/{JOB}.0", "results/3f/README", "results/notes"]


def test_sweeping_a_folder_that_is_not_there_yet_is_nothing(files):
    assert files.sweep(lambda _: False) == 0

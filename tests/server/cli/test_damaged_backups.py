"""Archives that are not as they were written are refused, and leave nothing."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from server.cli.arguments import main
from server.store.database_schema import STEPS
from tests.server.cli.backups import PICTURES

Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


def rewritten(archive: Path, change: Change) -> Path:
    """The archive with other members."""
    with tarfile.open(archive) as members:
        content = [(member, members.extractfile(member).read()) for member in members]
    change(content)
    with tarfile.open(archive, "w") as members:
        for member, data in content:
            member.size = len(data)
            members.addfile(member, io.BytesIO(data))
    return archive


def replaced(name: str, data: bytes) -> Change:
    def change(content):
        content[:] = [(member, data if member.name == name else before) for member, before in content]

    return change


def renamed(name: str) -> Change:
    def change(content):
        content[1][0].name = name

    return change


def of_type(kind: bytes, target: str = "/etc/passwd") -> Change:
    def change(content):
        member, _ = content[1]
        member.type, member.linkname = kind, target
        content[1] = (member, b"")

    return change


def sparse(position: int) -> Change:
    """A member of some bytes that says that it is 8 GiB long."""

    def change(content):
        member, data = content[position]
        member.pax_headers = {"GNU.sparse.map": f"0,{len(data)}", "GNU.sparse.size": str(2**33)}

    return change


def dropped(position: int) -> Change:
    return lambda content: content.pop(position)


def doubled(content: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    content.insert(2, content[1])


def stranger(content: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    content.insert(1, (tarfile.TarInfo("results/00/0000000000000009.0"), b"x"))


def end_with(**values: object) -> Change:
    def change(content):
        content[-1] = (content[-1][0], json.dumps({**json.loads(content[-1][1]), **values}).encode())

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (renamed("../../../etc/cron.d/x"), "unexpected file"),
        (renamed("/etc/cron.d/x"), "unexpected file"),
        (renamed(f"results/00/../00/{1:016x}.0"), "unexpected file"),
        (renamed(f"results/00/{1:016x}.0\n"), "unexpected file"),
        (of_type(tarfile.SYMTYPE), "is not a plain file"),
        (of_type(tarfile.LNKTYPE, "jobs.sqlite3"), "is not a plain file"),
        (of_type(tarfile.DIRTYPE), "is not a plain file"),
        (of_type(tarfile.CHRTYPE), "is not a plain file"),
        (of_type(tarfile.FIFOTYPE), "is not a plain file"),
        (sparse(0), "is not a plain file"),
        (sparse(1), "is not a plain file"),
        (doubled, "unexpected file"),
        (stranger, "unexpected file"),
        (dropped(0), "does not begin with jobs.sqlite3"),
        (dropped(1), "it holds 4 jobs and 1 pictures, and should hold 4 jobs and 2 pictures"),
        (dropped(3), "it is incomplete: its end is missing"),
        (replaced(f"results/00/{1:016x}.1", b"another picture"), "has a wrong size or checksum"),
        (replaced(f"results/00/{1:016x}.1", b"second picturE"), "has a wrong size or checksum"),
        (replaced("end.json", b"{}"), "damaged"),
        (replaced("end.json", b"[" * 10_000), "damaged"),
        (replaced("end.json", b" " * 100_000), "damaged"),
        (replaced("end.json", b'{"pictures": "two"}'), "damaged"),
        (replaced("jobs.sqlite3", b"nothing"), "the database in the backup cannot be used"),
        (replaced("jobs.sqlite3", b""), "unexpected file"),
        (end_with(database_sha256="0" * 64), "its database has a wrong checksum"),
        (end_with(jobs=5), "should hold 5 jobs"),
    ],
)
def test_an_archive_that_is_not_as_it_was_written_is_refused_and_leaves_nothing(
    archive, elsewhere, tmp_path, capsys, change, told
):
    rewritten(archive, change)
    before = {path for path in tmp_path.rglob("*") if "elsewhere" not in path.parts}
    assert main(["restore", str(archive)]) == 1
    assert told in capsys.readouterr().err
    assert not elsewhere.exists()
    assert list(elsewhere.parent.iterdir()) == []
    assert {path for path in tmp_path.rglob("*") if "elsewhere" not in path.parts} == before


def test_an_archive_that_was_cut_off_or_overwritten_anywhere_is_refused(archive, elsewhere, tmp_path, capsys):
    whole = archive.read_bytes()
    # Whatever lies behind the end's own block is padding.
    end = whole.rindex(b"}") + 1
    # A tar archive that ends between two members is sound, as far as tar can tell.
    between = range(whole.index(f"results/00/{1:016x}.0".encode()), end, 512)
    for place in {*range(0, end, max(1, end // 30)), *between}:
        (tmp_path / "bad.tar").write_bytes(whole[:place])
        assert main(["restore", "bad.tar"]) == 1, place
    # One bit, in places that mean something: not in the padding between members.
    database = whole.index(b"SQLite format 3")
    for place in (0, 100, 150, database, database + 5000, database + 9000, whole.index(PICTURES[0]), end - 3):
        flipped = bytearray(whole)
        flipped[place] ^= 4
        (tmp_path / "bad.tar").write_bytes(flipped)
        assert main(["restore", "bad.tar"]) == 1, place
    assert "error: " in capsys.readouterr().err
    assert list(elsewhere.parent.iterdir()) == []


def test_what_is_no_archive_at_all_is_refused(elsewhere, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for data in (b"", b"not a tar archive", bytes(20_000)):
        (tmp_path / "no.tar").write_bytes(data)
        assert main(["restore", "no.tar"]) == 1
        assert "backup" in capsys.readouterr().err
    assert main(["restore", "nowhere.tar"]) == 1
    assert "nowhere.tar: No such file or directory" in capsys.readouterr().err


def test_a_database_of_a_later_release_is_refused(data, elsewhere, monkeypatch, capsys):
    monkeypatch.setenv("DATA_DIR", str(data.parent))
    assert main(["backup", "backup.tar"]) == 0
    with tarfile.open("backup.tar") as members:
        database = members.extractfile("jobs.sqlite3").read()
    Path("later.sqlite3").write_bytes(database)
    with closing(sqlite3.connect("later.sqlite3")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    later = Path("later.sqlite3").read_bytes()
    digest = hashlib.sha256(later).hexdigest()
    rewritten(Path("backup.tar"), replaced("jobs.sqlite3", later))
    rewritten(Path("backup.tar"), end_with(database_sha256=digest))
    monkeypatch.setenv("DATA_DIR", str(elsewhere.parent))
    assert main(["restore", "backup.tar"]) == 1
    assert f"has version {len(STEPS) + 1} and this release knows only versions up to" in capsys.readouterr().err
    assert not elsewhere.exists()

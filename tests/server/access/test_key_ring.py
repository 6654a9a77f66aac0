"""API keys: how they are written, that nobody learns their text, what is compared, and what is written when."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import zlib
from collections import Counter

import msgspec
import pytest

from server.access import key_ring
from server.access.key_ring import KeyRing
from server.errors import KeyNotActiveError, KeyNotFoundError, NotAuthorisedError, StoreTroubleError
from server.store import api_keys
from server.store.api_keys import ALL_SCOPES, ApiKey, digest_of, id_in, new_key, rotated
from server.store.errors import StoreUnavailableError
from server.store.job_store import JobStore
from tests.server.store.older_store import make_older
from tests.server.store.store_records import new_job

ENVIRONMENT = "correct horse battery staple, and two more"


@pytest.fixture
async def store(tmp_path):
    store = await JobStore.open(tmp_path)
    yield store
    await store.close()


@pytest.fixture
async def ring(store):
    ring = KeyRing()
    await ring.open(store)
    yield ring
    await ring.close()


# --- the text ---------------------------------------------------------------------------------------------------------


def test_a_key_has_the_form_that_scanners_look_for_and_more_than_192_secret_bits():
    key, text = new_key("ann", ["read"], created_at=0.0)
    [documented] = re.findall(r"`(sb_live_\[.*?)`", api_keys.__doc__)
    assert re.fullmatch(documented, text)
    assert text.startswith(f"sb_live_{key.id}_")
    secret = text.removeprefix(f"sb_live_{key.id}_")[:-6]
    assert len(set(api_keys._ALPHABET)) ** len(secret) > 2**192
    assert new_key("ann", ["read"], created_at=0.0)[1] != text


def test_the_checksum_is_the_crc_32_of_all_before_it_in_base_62():
    key, text = new_key("ann", ["read"], created_at=0.0)
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number = 0
    for digit in text[-6:]:
        number = number * 62 + digits.index(digit)
    assert number == zlib.crc32(text[:-6].encode())
    assert id_in(text.encode()) == key.id


def test_every_slip_of_one_character_is_noticed_without_a_look_up():
    _, text = new_key("ann", ["read"], created_at=0.0)
    for place in range(len(text)):
        other = "b" if text[place] == "a" else "a"
        assert id_in(f"{text[:place]}{other}{text[place + 1 :]}".encode()) is None
    swapped = text[:30] + text[31] + text[30] + text[32:]
    assert swapped == text or id_in(swapped.encode()) is None
    for broken in (text[:-1], text + "A", text + "\n", f" {text}", text.upper(), "", "sb_live_"):
        assert id_in(broken.encode()) is None


def test_what_is_kept_and_what_is_shown_of_a_key_is_not_its_text(tmp_path):
    key, text = new_key("ann", ["read"], created_at=0.0)
    secret = text.rsplit("_", 1)[1]
    shown = repr(key) + str(key) + f"{[key]}" + repr(msgspec.structs.asdict(key))
    assert secret not in shown
    assert key.digest.hex() not in repr(key)
    assert repr(key.digest) not in repr(key)
    assert key.digest == digest_of(text.encode())
    assert key.id in repr(key)


# --- looked up --------------------------------------------------------------------------------------------------------


@pytest.fixture
def comparisons(monkeypatch):
    """How many digests were compared, each of 32 bytes with another of 32."""
    counted = Counter()

    def compare(one, other):
        assert len(one) == len(other) == 32
        counted["comparisons"] += 1
        return hmac.compare_digest(one, other)

    class Counting:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(key_ring, "hmac", Counting)
    return counted


def changed(text: str) -> str:
    """The text of a key with the same id and a true checksum, and another secret."""
    body = text[:-10] + ("b" if text[-10] == "a" else "a") + text[-9:-6]
    return body + api_keys._checksum(body.encode())


@pytest.mark.parametrize("environment_key", [None, ENVIRONMENT], ids=["without API_KEY", "with API_KEY"])
@pytest.mark.parametrize("fault", ["malformed", "unknown id", "wrong secret", "expired", "revoked", "rotated away"])
async def test_every_failing_path_compares_exactly_one_digest(store, comparisons, fault, environment_key):
    now = time.time()
    key, text = new_key("ann", ["read"], created_at=now - 10)
    if fault == "expired":
        key = msgspec.structs.replace(key, expires_at=now - 1)
    elif fault == "revoked":
        key = msgspec.structs.replace(key, revoked_at=now - 1)
    elif fault == "rotated away":
        key, _ = rotated(key, old_until=now - 1)
    await store.put_key(key)
    ring = KeyRing(environment_key)
    await ring.open(store)
    wrong = {"malformed": text[:-1], "unknown id": new_key("x", [], created_at=0)[1], "wrong secret": changed(text)}
    with pytest.raises(NotAuthorisedError) as caught:
        ring.caller_of(wrong.get(fault, text).encode())
    assert comparisons == {"comparisons": 1}
    assert str(caught.value) == (
        "the API key is malformed: incomplete or mistyped"
        if fault == "malformed"
        else "the API key is invalid, expired or revoked"
    )
    await ring.close()


async def test_a_key_that_is_right_costs_one_comparison_too(ring, comparisons):
    key, text = await ring.create("ann", ["read"], expires_s=60)
    caller = ring.caller_of(text.encode())
    assert (caller.key_id, caller.scopes, caller.is_operator) == (key.id, {"read"}, False)
    assert comparisons == {"comparisons": 1}


async def test_a_look_up_takes_microseconds(ring):
    for number in range(1000):
        ring._hold(new_key(str(number), ["read"], created_at=0.0)[0])
    _, text = await ring.create("ann", ["read"], expires_s=None)
    began = time.perf_counter()
    for _ in range(2000):
        ring.caller_of(text.encode())
    assert (time.perf_counter() - began) / 2000 < 200e-6, "some 10 on an idle machine; tests run beside others"


def test_the_environments_key_needs_no_store_and_has_every_scope():
    ring = KeyRing(ENVIRONMENT)
    assert ring.is_needed
    caller = ring.caller_of(ENVIRONMENT.encode())
    assert (caller.key_id, caller.scopes, caller.is_operator) == ("environment", ALL_SCOPES, False)
    for wrong in (ENVIRONMENT[:-1], ENVIRONMENT + " ", "", ENVIRONMENT.upper(), "é"):
        with pytest.raises(NotAuthorisedError, match=r"^the API key is invalid, expired or revoked$"):
            ring.caller_of(wrong.encode())


def test_the_environments_key_may_look_like_one_of_ours():
    _, text = new_key("made elsewhere", ["read"], created_at=0.0)
    assert KeyRing(text).caller_of(text.encode()).key_id == "environment"


async def test_a_key_expires_by_itself(ring):
    _, text = await ring.create("ann", ["read"], expires_s=0.1)
    ring.caller_of(text.encode())
    await asyncio.sleep(0.11)
    with pytest.raises(NotAuthorisedError):
        ring.caller_of(text.encode())
    assert ring.is_needed, "an expired key does not open the server"


async def test_a_rotated_keys_old_text_is_taken_until_its_grace_is_over(ring):
    key, old = await ring.create("ann", ["read"], expires_s=None)
    _, new = await ring.rotate(key.id, grace_s=0.2)
    assert {ring.caller_of(text.encode()).key_id for text in (old, new)} == {key.id}
    await asyncio.sleep(0.21)
    with pytest.raises(NotAuthorisedError):
        ring.caller_of(old.encode())
    ring.caller_of(new.encode())
    _, newest = await ring.rotate(key.id, grace_s=0.0)
    with pytest.raises(NotAuthorisedError):
        ring.caller_of(new.encode())
    ring.caller_of(newest.encode())


async def test_a_revoked_key_is_gone_at_once_and_so_is_what_its_rotation_left(ring):
    key, old = await ring.create("ann", ["read"], expires_s=None)
    _, new = await ring.rotate(key.id, grace_s=3600)
    revoked = await ring.revoke(key.id)
    for text in (old, new):
        with pytest.raises(NotAuthorisedError):
            ring.caller_of(text.encode())
    assert await ring.revoke(key.id) == revoked, "once more does no harm"
    with pytest.raises(KeyNotActiveError, match="this one is revoked"):
        await ring.rotate(key.id, grace_s=0)
    for act in (ring.rotate("0" * 12, grace_s=0), ring.revoke("0" * 12)):
        with pytest.raises(KeyNotFoundError):
            await act


async def test_two_rotations_at_once_leave_two_texts_and_lose_none(ring):
    key, _ = await ring.create("ann", ["read"], expires_s=None)
    texts = [text for _, text in await asyncio.gather(*(ring.rotate(key.id, grace_s=60) for _ in range(2)))]
    assert {ring.caller_of(text.encode()).key_id for text in texts} == {key.id}


async def test_taking_the_last_key_away_does_not_open_a_running_server(store, ring):
    assert not ring.is_needed
    key, _ = await ring.create("ann", ["read"], expires_s=None)
    await ring.revoke(key.id)
    assert ring.is_needed
    later = KeyRing()
    await later.open(store)
    assert not later.is_needed, "the next start is the operator's to decide"
    await later.close()


# --- kept -------------------------------------------------------------------------------------------------------------


async def test_keys_outlive_the_server_with_everything_that_is_known(tmp_path):
    store = await JobStore.open(tmp_path)
    ring = KeyRing()
    await ring.open(store)
    key, old = await ring.create("ann's laptop é", ["read", "metrics"], expires_s=3600)
    _, new = await ring.rotate(key.id, grace_s=3600)
    await ring.revoke((await ring.create("bob", ["admin"], expires_s=None))[0].id)
    ring.caller_of(new.encode())
    known = ring.all()
    await ring.close()
    await store.close()

    content = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    for text in (old, new):
        assert text.rsplit("_", 1)[1].encode() not in content

    store = await JobStore.open(tmp_path)
    ring = KeyRing()
    await ring.open(store)
    assert ring.all() == known
    assert {ring.caller_of(text.encode()).scopes for text in (old, new)} == {frozenset({"read", "metrics"})}
    await ring.close()
    await store.close()


class BrokenDisk:
    """A store that takes nothing as long as it is broken, and counts what it was asked to write."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.is_broken = False
        self.uses = []

    def keys(self):
        return self.store.keys()

    async def put_key(self, key):
        self._refuse()
        await self.store.put_key(key)

    async def note_key_uses(self, uses):
        self.uses.append(uses)
        self._refuse()
        await self.store.note_key_uses(uses)

    def _refuse(self):
        if self.is_broken:
            raise StoreUnavailableError("the disk is full")


async def test_what_the_disk_does_not_take_changes_nothing(store):
    disk = BrokenDisk(store)
    ring = KeyRing()
    await ring.open(disk)
    key, text = await ring.create("ann", ["read"], expires_s=None)
    disk.is_broken = True
    for act in (ring.create("bob", ["read"], expires_s=None), ring.rotate(key.id, grace_s=0)):
        with pytest.raises(StoreTroubleError, match="nothing was changed: the disk is full"):
            await act
    assert ring.all() == [key]
    ring.caller_of(text.encode())
    disk.is_broken = False
    await ring.revoke(key.id)
    await ring.close()


async def test_a_full_disk_keeps_nobody_from_taking_a_key_away_and_it_is_written_as_soon_as_it_can_be(
    store, monkeypatch, caplog
):
    monkeypatch.setattr(key_ring, "RETRY_S", 0.02)
    disk = BrokenDisk(store)
    ring = KeyRing()
    await ring.open(disk)
    before, _ = await ring.create("eve", ["read"], expires_s=None)
    await ring.revoke(before.id)
    made = [await ring.create(name, ["read"], expires_s=None) for name in ("ann", "bob")]
    disk.is_broken = True
    for key, text in made:
        for _ in range(2):  # the second time it is not more on the disk than the first
            with pytest.raises(
                StoreTroubleError, match=rf"{key.id} could not be saved as revoked \(the disk is full\)"
            ):
                await ring.revoke(key.id)
        with pytest.raises(NotAuthorisedError):
            ring.caller_of(text.encode())
    with pytest.raises(KeyNotActiveError):
        await ring.rotate(made[0][0].id, grace_s=0)
    await ring.revoke(before.id)  # on the disk long since
    await asyncio.sleep(0.1)
    assert {key.id for key in await store.keys() if key.revoked_at} == {before.id}
    disk.is_broken = False
    deadline = time.monotonic() + 5
    while {key.id: key.revoked_at for key in await store.keys()} != {key.id: key.revoked_at for key in ring.all()}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert all(key.revoked_at for key in ring.all())
    await ring.revoke(made[0][0].id)
    assert "sb_live_" not in caplog.text
    await ring.close()


async def test_a_revocation_that_waits_for_the_disk_is_tried_once_more_at_the_end(store, caplog):
    disk = BrokenDisk(store)
    for is_still_broken in (False, True):
        ring = KeyRing()
        await ring.open(disk)
        key, _ = await ring.create("ann", ["read"], expires_s=None)
        disk.is_broken = True
        with pytest.raises(StoreTroubleError):
            await ring.revoke(key.id)
        disk.is_broken = is_still_broken
        await ring.close()
        kept = next(other for other in await store.keys() if other.id == key.id)
        assert (kept.revoked_at is None) == is_still_broken
        assert (f"valid after a restart, revoke them again: {key.id}" in caplog.text) == is_still_broken


async def test_uses_are_written_once_a_minute_together_and_at_the_end_and_no_request_minds_a_full_disk(
    store, monkeypatch, caplog
):
    monkeypatch.setattr(key_ring, "USE_INTERVAL_S", 0.2)
    disk = BrokenDisk(store)
    ring = KeyRing()
    await ring.open(disk)
    made = [await ring.create(name, ["read"], expires_s=None) for name in ("ann", "bob", "eve")]
    disk.is_broken = True
    for _ in range(100):
        for _, text in made[:2]:
            ring.caller_of(text.encode())
    assert disk.uses == []
    with caplog.at_level(logging.WARNING):
        await asyncio.sleep(0.25)
    assert [set(uses) for uses in disk.uses] == [{key.id for key, _ in made[:2]}], "both in one commit"
    assert "could not be saved: the disk is full" in caplog.text
    assert "sb_live_" not in caplog.text
    disk.is_broken = False
    ring.caller_of(made[2][1].encode())
    await ring.close()
    kept = {key.name: key.last_used_at for key in await store.keys()}
    assert all(time.time() - kept[name] < 5 for name in ("ann", "bob", "eve"))


async def test_an_older_store_gets_its_table_of_keys(tmp_path):
    store = await JobStore.open(tmp_path)
    job = await store.add(new_job())
    await store.close()
    make_older(tmp_path, 1)  # as the first release left it
    store = await JobStore.open(tmp_path)
    assert await store.keys() == []
    key = ApiKey(id="0123456789ab", name="a", digest=bytes(32), scopes=frozenset({"read"}), created_at=1.5)
    await store.put_key(key)
    assert await store.keys() == [key]
    assert (await store.get(job.id)).new == job.new
    await store.close()

"""Who has to go where there are as many connections as there may be; with connections and a clock of their own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from server.access.connection_count import Connections


@dataclass(eq=False)
class Connection:
    """One that only knows whether it is there."""

    is_open: bool = True
    has_unread: bool = True

    def hang_up(self) -> None:
        self.is_open = False

    def cancel(self) -> None:
        """Its handshake ends."""
        self.is_open = False


class House:
    """Connections with a clock."""

    def __init__(self, most: int) -> None:
        self.now_s = 0.0
        self.connections = Connections(most, clock=lambda: self.now_s)

    def idle(self) -> Connection:
        connection = Connection()
        self.connections.opened(connection)
        return connection

    def busy(self) -> Connection:
        connection = self.idle()
        self.connections.busy(connection)
        return connection

    def slow(self) -> Connection:
        connection = self.busy()
        self.connections.slow(connection)
        return connection

    def shaking_hands(self) -> Connection:
        connection = Connection()
        self.connections.accepted(connection, connection)
        return connection


def test_the_longest_idle_goes_first():
    house = House(3)
    first, busy, second = house.idle(), house.busy(), house.idle()
    house.connections.busy(first)
    house.connections.idle(first)
    house.idle()
    assert (first.is_open, busy.is_open, second.is_open) == (True, True, False)


def test_where_all_are_busy_the_next_ones_are_too_many_however_many_come():
    house = House(2)
    busy = [house.busy(), house.busy()]
    for _ in range(5):
        assert not house.connections.opened(Connection())
        assert len(house.connections) == 3  # the last one, which is told so
    assert all(connection.is_open for connection in busy)


def test_where_none_is_idle_the_one_goes_that_has_not_read_for_longest():
    house = House(3)
    busy = house.busy()
    slow = [house.slow(), house.slow()]
    house.now_s = 10
    house.connections.slow(slow[0])  # once more: since when does not change
    house.idle()
    assert (busy.is_open, slow[0].is_open, slow[1].is_open) == (True, False, True)


def test_who_has_not_read_for_a_moment_stays():
    house = House(1)
    slow = house.slow()
    house.now_s = 1
    assert not house.connections.opened(Connection())
    assert slow.is_open


def test_who_was_slow_once_and_has_read_all_stays():
    house = House(1)
    slow = house.slow()
    slow.has_unread = False
    house.now_s = 100
    assert not house.connections.opened(Connection())
    assert slow.is_open


def test_a_flood_of_handshakes_drives_out_a_part_of_the_idle_and_none_of_the_busy():
    house = House(20)
    idle, busy = [house.idle() for _ in range(10)], [house.busy() for _ in range(10)]
    handshakes = [house.shaking_hands() for _ in range(100)]
    assert sum(connection.is_open for connection in idle) == 5
    assert all(connection.is_open for connection in busy)
    assert [connection.is_open for connection in handshakes] == [False] * 95 + [True] * 5
    assert len(house.connections) == 20


@pytest.mark.parametrize("kind", [House.idle, House.slow])
def test_a_handshake_finds_room_where_nobody_asks_for_anything(kind):
    house = House(4)
    others = [kind(house) for _ in range(4)]
    house.now_s = 10
    handshake = house.shaking_hands()
    assert house.connections.opened(handshake)
    assert handshake.is_open
    assert [connection.is_open for connection in others] == [False, True, True, True]


def test_a_handshake_that_fails_counts_no_more():
    house = House(4)
    house.connections.closed(house.shaking_hands())
    assert len(house.connections) == 0

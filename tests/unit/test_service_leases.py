"""The table of leases: one writer per port, in the order of asking, whatever is asked, left or taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.protocol import Holder
from pipeline.service.leases import Leases, PortLease

ONE, TWO, TERMINAL = Holder(1, "one"), Holder(2, "two"), Holder(3, "terminal", exclusive=False)


def test_the_second_writer_waits_for_the_first() -> None:
    leases = Leases()
    first, second = leases.ask("p", ONE), leases.ask("p", TWO)
    assert (leases.granted(first), leases.granted(second)) == (True, False)
    assert leases.exclusive("p") == ONE and leases.any_exclusive
    assert leases.ask("q", TWO) and leases.exclusive("q") == TWO, "another port"
    assert leases.leave(first.number) == second
    assert leases.exclusive("p") == TWO and leases.leave(first.number) is None


def test_a_terminal_may_write_while_nobody_has_the_port_alone() -> None:
    leases = Leases()
    terminal = leases.ask("p", TERMINAL)
    assert leases.granted(terminal) and leases.may_write(terminal) and not leases.any_exclusive
    writer = leases.ask("p", ONE)
    assert leases.may_write(writer) and leases.granted(terminal) and not leases.may_write(terminal)
    assert leases.leave(writer.number) is None and leases.may_write(terminal)


def test_taking_ends_the_lease_that_was_there() -> None:
    leases = Leases()
    first, second, third = (leases.ask("p", holder) for holder in (ONE, TWO, ONE))
    assert leases.take(third) == first and leases.exclusive("p") == ONE and leases.granted(third)
    assert leases.take(third) is None
    assert leases.leave(first.number) is None, "it was ended"
    assert leases.leave(third.number) == second


@given(st.lists(st.tuples(st.sampled_from(["ask", "share", "leave", "take"]), st.integers(0, 5)), max_size=40))
def test_there_is_one_writer_and_nobody_is_forgotten(steps: list[tuple[str, int]]) -> None:
    leases = Leases()
    alive: list[PortLease] = []
    holding: PortLease | None = None
    line: list[PortLease] = []
    for what, n in steps:
        if what == "share":
            alive.append(leases.ask("p", TERMINAL))
        elif what == "ask":
            lease = leases.ask("p", Holder(len(alive), "x"))
            alive.append(lease)
            if holding is None:
                holding = lease
            else:
                line.append(lease)
        elif alive:
            lease = alive[n % len(alive)]
            if what == "take" and lease in line:
                line.remove(lease)
                ended = leases.take(lease)
                assert ended == holding and ended is not None
                alive.remove(ended)
                holding = lease
            elif what == "leave":
                alive.remove(lease)
                granted = leases.leave(lease.number)
                if lease == holding:
                    holding = line.pop(0) if line else None
                    assert granted == holding
                else:
                    assert granted is None
                    line = [one for one in line if one != lease]
        assert leases.exclusive("p") == (None if holding is None else holding.holder)
        writers = [lease for lease in alive if lease.holder.exclusive and leases.may_write(lease)]
        assert writers == ([] if holding is None else [holding])
        assert len(leases) == len(alive)
    for lease in list(alive):
        leases.leave(lease.number)
    assert len(leases) == 0 and not leases.any_exclusive

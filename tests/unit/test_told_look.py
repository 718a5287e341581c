"""What one process knows to have moved, told to another one that does the run: whole and of the same state, or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.durable import write_atomic
from cache.statebytes import encode
from pipeline.fastpath import KIND, MANY, FirstLook, Snapshot, identity, stamp_of, state_path, told_look
from pipeline.fastpath.listing import listing_of

ARGV = ("compile", "link")


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FirstLook:
    """Of a state of 100 files."""
    monkeypatch.chdir(tmp_path)
    rows = [(f"src/f{n:03}", (n, n, n)) for n in range(100)]
    snapshot = Snapshot(identity(str(tmp_path)), {}, (), (), None, {}, "token", 100, 100, listing_of(rows))
    state = tmp_path / state_path("")
    state.parent.mkdir(parents=True)
    write_atomic(state, encode(KIND, snapshot.values()), durable=False, own=True)
    return FirstLook(str(tmp_path), state_path(""), stamp_of(state.stat()), snapshot, [7, 99])


def test_what_is_told_is_the_look(look: FirstLook) -> None:
    found = told_look(ARGV, look.told())
    assert found is not None
    assert (found.root, found.path, found.stamp, found.places) == (look.root, look.path, look.stamp, look.places)
    assert found.snapshot.values() == look.snapshot.values()


def test_very_many_are_not_told(look: FirstLook) -> None:
    look.places = list(range(MANY + 1))
    assert look.told() == []
    assert told_look(ARGV, look.told()) is None


def test_a_state_that_was_written_since_knows_of_other_moves(look: FirstLook) -> None:
    told = look.told()
    path = Path(look.path)
    data = path.read_bytes()
    path.unlink()
    assert told_look(ARGV, told) is None
    path.write_bytes(data)
    assert told_look(ARGV, told) is None


@pytest.mark.parametrize(
    "told", [[], [b""], [b"1 2 3", b"0"], [b"x", b"0"], [b"STAMP", b"100"], [b"STAMP", b"-1"], [b"STAMP", b"1 x"]]
)
def test_what_is_no_look_of_this_state_is_refused(look: FirstLook, told: list[bytes]) -> None:
    stamp = look.told()[0]
    assert told_look(ARGV, [stamp if field == b"STAMP" else field for field in told]) is None


def test_other_command_lines_have_none(look: FirstLook) -> None:
    assert told_look(("deploy",), look.told()) is None
    assert told_look((*ARGV, "--profile=release"), look.told()) is None

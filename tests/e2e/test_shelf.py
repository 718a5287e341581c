"""A shelf of board processes of three chips, a third of them with random faults, deployed to at once: the healthy ones
end verified, the faulty ones with the right category, and no port and no lease is left behind.

One round of a few boards in the ordinary suite; `-m stress` runs twenty rounds of sixteen, and counts.
"""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cache.lock import try_lock
from tests.contract.any_board import AnyBoard
from tests.e2e.space import Space, copy_project
from tests.e2e.test_fleet import add, device, reports, with_three_chips

CHIPS = ("esp32c3", "esp32", "esp32s3")

FAULTS = {
    "silence:for=0": {"sync_failed"},
    "wrong-chip:chip={other}": {"wrong_device"},
    "other-mac:mac=7c:df:a1:ff:ff:{number:02x}": {"wrong_device"},
    "vanish:write=2,for=3600": {"port_missing", "write_failed"},
    "power-cut:write=1,for=3600": {"port_missing", "write_failed", "sync_failed"},
    "worn:sector=0x10000": {"write_failed", "verify_mismatch"},
    "boot-loop:boot=0": {"boot_loop"},
}
"""Fault -> the categories that are right. Each strikes an erased board for certain."""


class FaultyShelf:
    """`count` boards, every third with a fault from its first moment on."""

    def __init__(self, space: Space, directory: Path, count: int, seed: int) -> None:
        self._space = space
        self._directory = directory
        self._rng = random.Random(seed)
        self._count = count
        self.right: dict[str, set[str]] = {}
        """Device -> the categories that are right; empty: it must be verified."""
        self.urls: dict[str, str] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            for number in range(self._count):
                self._plug(stack, number)
            yield

    def _plug(self, stack: ExitStack, number: int) -> None:
        chip, name = CHIPS[number % len(CHIPS)], f"b{number}"
        options = ["--rfc2217", "0", "--flash", str(self._directory / name), "--mac", f"7c:df:a1:00:22:{number:02x}"]
        self.right[name] = set()
        if number % 3 == self._rng.randrange(3):
            fault = self._rng.choice(sorted(FAULTS))
            self.right[name] = FAULTS[fault]
            other = self._rng.choice([one for one in CHIPS if one != chip])
            options += ["--fault", fault.format(other=other, number=number)]
        board = stack.enter_context(AnyBoard(*options, chip=chip))
        # pyserial waits 3 s for each answer to its negotiation, which is the time of a machine with nothing else to do
        self.urls[name] = f"{board.url}{'&' if '?' in board.url else '?'}timeout=300"
        add(self._space, device(name, number, self.urls[name], chip=chip))

    def judge(self, out: str, *, again: bool) -> Counter[str]:
        """Is every board where it has to be? `again`: a second deploy, in which the healthy ones have nothing to do."""
        found: dict[str, Any] = reports(self._space, out)
        assert set(found) == set(self.right)
        for name, report in found.items():
            category = (report["failure"] or {}).get("category", "")
            said = (report["failure"] or {}).get("message", "")
            told = f"{name}: {report['outcome']} {category}: {said}; wanted {self.right[name] or 'verified'}"
            if self.right[name]:
                assert category in self.right[name], told
            else:
                assert category == "" and report["outcome"] == ("verified_unchanged" if again else "full_flashed"), told
                assert report["readiness"]["status"] == "passed", told
        assert len({report["run"] for report in found.values()}) == 1
        return Counter((r["failure"] or {}).get("category", "ok") for r in found.values())

    def assert_nothing_is_held(self) -> None:
        """Every lease ended with its board's turn or with the run, and every port can be opened."""
        leases = [path for path in self._space.file(".deploy/user-state").rglob("*.lease") if path.is_file()]
        for path in leases:
            with path.open("r+b") as handle:
                assert try_lock(handle.fileno()), path
        import serial

        for name, url in self.urls.items():
            if "port_missing" not in self.right[name]:
                with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # pyserial's own
                    serial.serial_for_url(url).close()


def one_round(template: Path, directory: Path, count: int, seed: int) -> Counter[str]:
    copy_project(template, directory / "project")
    space = Space(directory / "project")
    space.edit("deploy.toml", "timeout_ms = 5000", "timeout_ms = 300000")
    with_three_chips(space)
    text = space.file("deploy.toml").read_text()
    space.file("deploy.toml").write_text(text.replace('not executed"\n', 'not executed"\ntimeout_ms = 300000\n'))
    shelf = FaultyShelf(space, directory, count, seed)
    with shelf.running():
        # As many at once as by default: a board process that gets no CPU for long trips its own watchdog.
        first = space.doit("deploy", "--group", "rack")
        assert first.code == int(any(shelf.right.values())), first.out + first.err
        counted = shelf.judge(first.out, again=False)
        merged = json.loads(space.file("reports/status/live-results-all.json").read_text())["devices"]
        assert {one["device"] for one in merged if "failure" in one} == {n for n, r in shelf.right.items() if r}
        shelf.assert_nothing_is_held()
    return counted


@pytest.mark.long
def test_a_small_shelf_with_faults(template: Path, tmp_path: Path) -> None:
    counted = one_round(template, tmp_path, 5, 1)
    assert counted.total() == 5 and counted["ok"] < 5


@pytest.mark.stress
def test_twenty_rounds_of_sixteen(template: Path, tmp_path: Path) -> None:
    together: Counter[str] = Counter()
    for seed in range(20):
        counted = one_round(template, tmp_path / str(seed), 16, seed)
        print(seed, dict(counted), flush=True)
        together += counted
        shutil.rmtree(tmp_path / str(seed))
    assert together.total() == 320 and together["unknown"] == 0
    print(dict(together))

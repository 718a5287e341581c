"""`doit lease` and deploys beside it, as people run them."""

from __future__ import annotations

import sys

from tests.e2e.space import Space

DEPLOY = f"{sys.executable} -m doit deploy"
WITHOUT = f"env -u HOTPLATE_LEASE {DEPLOY}"


def test_a_lease_keeps_others_away_and_lets_its_children_in(host_space: Space) -> None:
    assert host_space.deploy().code == 0
    under = host_space.doit(
        "lease", "--device", "bench", "--reason", "soak", "--", "sh", "-c", f"{DEPLOY}; X=1 && {WITHOUT}"
    )
    assert under.code == 1
    assert under.out.count("DEPLOY_OUTCOME=verified_unchanged") == 1
    assert under.out.count("DEPLOY_OUTCOME=failed") == 1
    assert under.report["failure"]["category"] == "port_busy"
    assert "(pid " in under.report["failure"]["message"] and under.report["failure"]["message"].endswith(": soak")
    assert under.report["totals"]["bytes_written"] == 0
    assert host_space.deploy().outcome == "verified_unchanged", "it ended with its command"


def test_a_lease_is_taken_over_with_a_reason_that_the_report_gives(host_space: Space) -> None:
    assert host_space.deploy().code == 0
    taken = host_space.doit("lease", "--reason", "soak", "--", "sh", "-c", f"{WITHOUT} --take --reason hurry; {DEPLOY}")
    assert taken.code == 1, "the holder's child is refused from then on"
    assert taken.report["failure"]["category"] == "port_busy"
    assert "the lease was taken over by" in taken.report["failure"]["message"]
    reports = [path.read_text() for path in (host_space.path / "reports").glob("tx-*.md")]
    assert sum("lease-taken bench: soak" in text and "-> hurry" in text for text in reports) == 1


def test_what_cannot_be_leased_is_said(host_space: Space) -> None:
    unknown = host_space.doit("lease", "--device", "bnch", "--", "true")
    assert (unknown.code, unknown.out) == (2, "")
    assert "did you mean 'bench'" in unknown.err
    missing = host_space.doit("lease", "--", "no-such-program")
    assert missing.code == 1
    assert "no-such-program: error: cannot be started" in missing.err
    surplus = host_space.doit("lease", "bench")
    assert surplus.code == 3

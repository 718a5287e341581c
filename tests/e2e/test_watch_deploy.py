"""`doit watch --deploy` on the reference firmware and its virtual board: the board is written when an image changed,
left alone when none did, and a write is never cut off."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.space import Space, environment
from tests.e2e.watching import FINISHED, watching


def reports(space: Space) -> list[Any]:
    """The reports of all deploys, oldest first: the names of two of one second say nothing of their order."""
    found = [json.loads(path.read_text()) for path in (space.path / "reports").glob("*.json")]
    return sorted(found, key=lambda report: str(report["started_at"]))


def env(space: Space) -> dict[str, str]:
    return environment(XDG_CACHE_HOME=str(space.path / ".deploy" / "user-cache"))


def save(path: Path, text: str) -> None:
    temporary = path.with_name(".saved")
    temporary.write_text(text)
    temporary.replace(path)


def test_only_a_changed_image_reaches_the_board(host_space: Space) -> None:
    space = host_space
    main = space.file("firmware/core/main.c")
    text = main.read_text()
    with watching(space.path, env(space), "--deploy") as watch:
        assert "[watch] deployed (" in watch.first()
        assert [r["outcome"] for r in reports(space)] == ["full_flashed"]
        flash = space.flash.stat()
        comment = watch.after(lambda: save(main, text + "// a comment\n"))
        assert "compiled=1; no image changed: the board is left alone" in comment
        assert "DEPLOY_TX_ID" not in comment
        broken = watch.after(lambda: save(main, text + "int broken( {\n"))
        assert "\nfirmware/core/main.c:" in broken and "DEPLOY_TX_ID" not in broken
        after = space.flash.stat()
        assert (after.st_mtime_ns, after.st_size) == (flash.st_mtime_ns, flash.st_size)
        assert len(reports(space)) == 1
        changed = text.replace(
            "announce();", 'announce(); static volatile const char mark[] = "saved"; (void)mark[0];', 1
        )
        assert changed != text
        began_s = time.monotonic()
        assert "[watch] deployed (" in watch.after(lambda: save(main, changed))
        took_ms = (time.monotonic() - began_s) * 1000
        first, second = reports(space)
        assert second["outcome"] in ("regions_flashed", "delta_flashed")
        assert [r["name"] for r in second["regions"] if r["action"] != "kept"] == ["app"]
        startup_ms = second["budget"]["phases"][0]["measured_ms"]
        assert startup_ms <= took_ms, "startup counts from the save, not from the spare"
    assert first["failure"] is second["failure"] is None


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(2))
def test_no_write_is_cut_off(host_space: Space, seed: int) -> None:
    """Every save changes the image, at random instants of the deploy before. No reflash was interrupted, and the board
    ends with the last state."""
    space, rng = host_space, random.Random(seed)
    main = space.file("firmware/core/main.c")
    text = main.read_text()
    with watching(space.path, env(space), "--deploy") as watch:
        watch.first()
        for n in range(60):
            mark = f"saved as number {n}."
            code = f'announce(); static volatile const char mark[] = "{mark}"; (void)mark[0];'
            save(main, text.replace("announce();", code, 1))
            # the rhythm of the saves is what is tested
            time.sleep(rng.random() * 1.5)

        def deployed(lines: list[str]) -> bool:
            # That a deploy ended says not which: one that wrote when the last save came was let finish.
            ended = lines[-1] == FINISHED and "deployed" in lines[-2]
            return ended and mark.encode() in space.flash.read_bytes()

        watch.until(deployed, "the last deploy")
    outcomes = [s["outcome"] for r in reports(space) for s in r["stages"] if s["stage"] == "reflash"]
    assert "interrupted" not in outcomes and "failed" not in outcomes and outcomes.count("ran") >= 5
    assert space.deploy().outcome == "verified_unchanged"

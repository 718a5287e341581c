"""Random graphs and edits: we make the files that ninja makes, and never run a command that ninja would not run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.unit.ninja_space import NinjaSpace, RandomGraph


@pytest.mark.parametrize("seed", range(2))
def test_the_same_files_as_ninja_and_no_more_commands(tmp_path: Path, seed: int) -> None:
    beside_ninja(tmp_path, seed, 5)


@pytest.mark.parametrize("seed", range(2))
def test_either_driver_in_one_tree(tmp_path: Path, seed: int) -> None:
    mixed(tmp_path, seed, 5)


@pytest.mark.parametrize("seed", [0, 6])
def test_as_a_clean_build_of_ninja_whatever_mtimes_say(tmp_path: Path, seed: int) -> None:
    set_back(tmp_path, seed, 5)


@pytest.mark.stress
def test_thousands_of_steps(tmp_path: Path) -> None:
    for seed in range(250):
        beside_ninja(tmp_path / f"a{seed}", 1000 + seed, 10)
        mixed(tmp_path / f"b{seed}", 1000 + seed, 10)
        set_back(tmp_path / f"c{seed}", 1000 + seed, 10)


def beside_ninja(place: Path, seed: int, steps: int) -> None:
    """One tree for each."""
    ours, theirs = NinjaSpace(place / "ours", place / "cache"), NinjaSpace(place / "theirs", place / "unused")
    graph = RandomGraph(random.Random(seed), [ours, theirs])
    history = ["begin"]
    for _ in range(steps):
        we, they = ours.ours(), theirs.ninja()
        said = f"seed {seed}: {history}\nours {we}\ntheirs {they}\n{graph.text()}"
        assert set(we) <= {*they, *graph.rewired}, said
        assert ours.products() == theirs.products(), said
        again = ours.ours()
        assert set(again) <= set(theirs.ninja()), f"again: {again}\n{said}"
        history.append(graph.step())


def mixed(place: Path, seed: int, steps: int) -> None:
    """One tree for both, and one for ninja alone."""
    both, theirs = NinjaSpace(place / "both", place / "cache"), NinjaSpace(place / "theirs", place / "unused")
    rng = random.Random(seed)
    graph = RandomGraph(rng, [both, theirs])
    history = ["begin"]
    for _ in range(steps):
        driver = rng.choice((both.ours, both.ninja))
        history.append(driver.__name__)
        we, they = driver(), theirs.ninja()
        said = f"seed {seed}: {history}\nours {we}\ntheirs {they}\n{graph.text()}"
        assert set(we) <= {*they, *graph.rewired}, said
        assert both.products() == theirs.products(), said
        # What the one did, the other need not do; what runs each time runs each time.
        always = set(theirs.ninja())
        for other in (both.ninja, both.ours, both.ninja):
            again = set(other())
            assert again <= always, f"then {other.__name__}: {again - always}\n{said}"
        history.append(graph.step())


def set_back(place: Path, seed: int, steps: int) -> None:
    """One tree for both; after each run of ours it is what ninja makes of the same files in an empty one."""
    both = NinjaSpace(place / "both", place / "cache")
    rng = random.Random(seed)
    graph = RandomGraph(rng, [both])
    history = ["begin"]
    for step in range(steps):
        driver = rng.choice((both.ours, both.ours, both.ninja))
        history.append(driver.__name__)
        ran = driver()
        if driver == both.ours:
            clean = NinjaSpace(place / f"clean{step}", place / "unused")
            graph.write_to(clean)
            clean.ninja()
            said = f"seed {seed}: {history}\nran {ran}\n{graph.text()}"
            assert both.products() == clean.products(), said
            assert both.ninja() == clean.ninja(), said
        history.append(rng.choice((graph.step, graph.set_back))())

"""Users' actions whose depfiles alone tell that they read each other's products, objects, the program or its image,
there or not: random edits of what they read, and after each run, the first one too, everything is what its maker would
make of what lies there, and nothing is left to do."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.effects.api import Completed
from pipeline.engine.results import BuiltinCall
from pipeline.model import Action, Stage
from tests.unit.engine_space import EngineSpace, FakeTools, strip

PACKERS = 6
HEADERS = (0, 1)
"""Packers whose products are included; they read data and each other alone."""
OUT = "build/local-fast"
OTHERS = (f"{OUT}/obj/a.o", f"{OUT}/obj/b.o", f"{OUT}/app.elf", f"{OUT}/app.bin", "data/one", "data/two")


class CopingTools(FakeTools):
    """`cc` of a list packs the files that it names, and says so in the depfile whether they are there or not."""

    def _cc(self, source: str, options: Mapping[str, list[str]], cwd: Path) -> Completed:
        if not source.endswith(".lst"):
            return super()._cc(source, options, cwd)
        names = (cwd / source).read_text().split()
        data = [path.read_bytes() if (path := cwd / name).exists() else b"none" for name in names]
        self.during(source)
        (cwd / options["-o"][0]).write_bytes(b"".join(data))
        (cwd / options["-MF"][0]).write_text(f"{options['-o'][0]}: {' '.join(names)}\n")
        return Completed(0, b"", b"", 0.001)


def packer(number: int) -> Action:
    source, made = f"lists/{number}.lst", f"build/packed/{number}"
    argv = ("cc", "-o", made, "-MF", f"{made}.d", source)
    return Action(f"pack {number}", Stage.COMPILE, (source,), (made,), argv, depfile=f"{made}.d")


class Readers:
    """One seed: who may read whom follows from a random order, so that there is no circle."""

    def __init__(self, root: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.space = EngineSpace(root).sample()
        self.space.tools = CopingTools()
        self.space.jobs = self.rng.choice((1, 2, 4))
        self.is_declared_first = self.rng.random() < 0.5
        self.space.actions = self.actions  # type: ignore[method-assign]
        self.history: list[str] = []
        for name in ("one", "two"):
            self.space.write(f"data/{name}", name)
        self.order = list(range(PACKERS))
        for number in range(PACKERS):
            self.relist(number)

    def actions(self) -> list[Action]:
        mine, toolchain = [packer(number) for number in range(PACKERS)], EngineSpace.actions(self.space)
        return [*mine, *toolchain] if self.is_declared_first else [*toolchain, *mine]

    def relist(self, number: int) -> None:
        place = self.order.index(number)
        before = [other for other in self.order[:place] if number not in HEADERS or other in HEADERS]
        may = [*(f"build/packed/{other}" for other in before), *(OTHERS[-2:] if number in HEADERS else OTHERS)]
        names = self.rng.sample(may, self.rng.randint(0, min(3, len(may))))
        self.history.append(f"{number} reads {names}")
        self.space.write(f"lists/{number}.lst", "\n".join(names))

    def reorder(self) -> None:
        self.rng.shuffle(self.order)
        for number in range(PACKERS):
            self.relist(number)

    def edit(self) -> None:
        what = self.rng.choice(("list", "list", "order", "source", "source", "data", "lose", "restart"))
        self.history.append(what)
        if what == "list":
            self.relist(self.rng.randrange(PACKERS))
        elif what == "order":
            self.reorder()
        elif what == "source":
            unit, header = self.rng.choice("abc"), self.rng.choice(("a.h", *(f"../build/packed/{n}" for n in HEADERS)))
            self.history.append(f"{unit} includes {header}")
            self.space.write(f"src/{unit}.c", f'#include "{header}"\nint {unit}{self.rng.random()};\n')
        elif what == "data":
            self.space.write(f"data/{self.rng.choice(('one', 'two'))}", str(self.rng.random()))
        elif what == "lose":
            made = [path for path in (self.space.root / "build").rglob("*") if path.is_file()]
            for path in self.rng.sample(made, min(len(made), self.rng.randint(1, 4))):
                path.unlink()
        else:
            shutil.rmtree(self.space.root / "build", ignore_errors=True)
            if self.rng.random() < 0.5:
                shutil.rmtree(self.space.root / ".deploy", ignore_errors=True)

    def check(self) -> None:
        built = self.space.build()
        said = "\n".join(self.history[-12:])
        assert built.ok, f"{[result.failures for result in built.results]}\n{said}"
        for action in self.space.actions():
            for path, data in self.made_of_what_lies_there(action).items():
                assert (self.space.root / path).read_bytes() == data, f"{action.name} is late\n{said}"
        assert self.space.build().nothing, said

    def made_of_what_lies_there(self, action: Action) -> dict[str, bytes]:
        copy = self.space.root.parent / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.space.root, copy, ignore=shutil.ignore_patterns(".deploy"))
        if action.builtin:
            inputs = tuple((copy / path).read_bytes() for path in action.inputs)
            return dict(zip(action.outputs, strip(BuiltinCall(action.inputs, inputs, {})), strict=True))
        CopingTools().run(action.argv, cwd=copy, env={}, timeout_s=1)
        return {path: (copy / path).read_bytes() for path in action.outputs}


def walk(place: Path, seed: int, steps: int) -> None:
    readers = Readers(place / "p", seed)
    readers.check()
    for _ in range(steps):
        readers.edit()
        if readers.rng.random() < 0.3:
            readers.edit()
        readers.check()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_reads_whatever_is_right_after_one_run(tmp_path: Path, seed: int) -> None:
    walk(tmp_path, seed, 8)


@pytest.mark.stress
def test_thousands_of_steps(tmp_path: Path) -> None:
    for seed in range(200):
        walk(tmp_path / str(seed), 1000 + seed, 20)

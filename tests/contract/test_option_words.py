"""Is an option that counts for nobody really looked at by nobody? Random programs through a real preprocessor.

Names are pieces of few letters, so that they are pasted, nested and left out in every way; where the judgement is that
nothing which moved counts, the preprocessor must give the same words.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.formats.macro_words import macro_words
from pipeline.formats.option_header import OptionHeader, parse_option_header

CPP = [program for name in ("gcc", "clang") if (program := shutil.which(name))]
pytestmark = pytest.mark.skipif(not CPP, reason="no preprocessor of this machine's own is installed")

OPTIONS = [f"OPT_{tail}" for tail in ("A", "B", "AB", "A_B", "B_A", "A1", "B1", "C", "C_A", "C_B_1", "A_A", "B_B_B")]
STARTS = ["O", "OP", "OPT", "OPT_", "OPT_A", "OPT_C", "OPT_B"]
ENDS = ["PT_A", "T_B", "_A", "_B", "A", "B", "AB", "C", "C_", "C_A", "1", "_", "x"]
MACROS = [f"M{n}" for n in range(5)]
FUNCTIONS = [f"F{n}" for n in range(5)]


class Program:
    """Texts that include each other, and a header of options."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.options_named = rng.sample(OPTIONS, 3)
        self.pieces = [*rng.sample(ENDS, 4), *(rng.sample(STARTS, 1) if rng.random() < 0.6 else [])]
        self.header = {name: self._body() for name in rng.sample(OPTIONS, 8)}
        self.style = rng.choice(("", "once", "guard"))
        self.pasted = rng.choice(OPTIONS)
        self.texts = {"a.h": self._text(""), "b.h": self._text("a.h"), "main.c": self._text("b.h", first=True)}
        if rng.random() < 0.5:
            self.texts["main.c"] += self._paste()

    def _word(self) -> str:
        rng = self.rng
        pick = rng.random()
        if pick < 0.1:
            return rng.choice(self.options_named)
        if pick < 0.45:
            return rng.choice(self.pieces)
        if pick < 0.65:
            return rng.choice(MACROS)
        if pick < 0.85:
            return f"{rng.choice(FUNCTIONS)}({self._argument()}, {self._argument()})"
        return rng.choice(("y", "+", '"OPT_B"', "'O'", "/* OPT_A */", "(", ")", "\\\n", '"//"', "8"))

    def _argument(self) -> str:
        words = " ".join(self._word() for _ in range(self.rng.choice((0, 1, 1, 1, 2))))
        return words if words.count("(") == words.count(")") else "A"

    def _body(self) -> str:
        return " ".join(self._word() for _ in range(self.rng.choice((0, 1, 1, 2)))).replace("\\\n", "")

    def _function(self) -> str:
        joint = self.rng.choice((" ## ", "##", " ", " ## _ ## "))
        ends = self.rng.choice((("a", "b"), (self.pieces[-1], "a"), ("a", "_B"), ("b", "a"), ("#a", "b"), ("M0", "a")))
        tail = self.rng.choice(("", "", " F0(a, b)", " M1", " F1(M2, b)"))
        return f"{ends[0]}{joint if ends[0][0] != '#' else ' '}{ends[1]}{tail}"

    def _paste(self) -> str:
        """The option `pasted`, put together in one of the ways in which that can be done."""
        name, rng = self.pasted, self.rng
        cut = rng.randrange(1, len(name))
        first, rest = name[:cut], name[cut:]
        mid = rng.randrange(cut + 1) or 1
        empty = rng.choice(("", " EMPTY", "\n", " NONE()"))
        uses = [f"J({first}{empty}, {rest})", f"J2({first}, {rest})", f"J(P{empty}, {rest})", f"J(Q({first}), {rest})"]
        uses += [f"K({rest})", f"J(J({name[:mid]}, {name[mid:cut]}), {rest})", f"L(J, {first}, {rest})", f"R({rest})"]
        use = rng.choice(uses)
        lines = [
            "#define EMPTY",
            "#define NONE()",
            "#define J2(a, b) a##b",
            "#define J(a, b) J2(a, b)",
            "#define Q(x) x",
        ]
        lines += [
            f"#define P {first}",
            f"#define K(x) {first}##x",
            "#define L(j, a, b) j(a, b)",
            "#define R(x) J(P, x)",
        ]
        return "\n".join([*lines, rng.choice((use, f"#if {use}\nyes\n#endif" if "\n" not in use else use))]) + "\n"

    def _condition(self) -> str:
        name = self.rng.choice((*self.options_named, *MACROS[:2]))
        return self.rng.choice((f"ifdef {name}", f"ifndef {name}", f"if defined({name})", f"if defined {name} || 0"))

    def _line(self, depth: int) -> list[str]:
        pick = self.rng.random()
        if pick < 0.2:
            return [f"#define {self.rng.choice(MACROS)} {self._body()}"]
        if pick < 0.4:
            return [f"#define {self.rng.choice(FUNCTIONS)}(a, b) {self._function()}"]
        if pick < 0.45:
            return [f"#undef {self.rng.choice((*self.options_named, *MACROS))}"]
        if pick < 0.5:
            return ["// don't say OPT_B", "/* OPT_C", "   isn't */"]
        if pick < 0.7 and depth < 2:
            lines = [f"#{self._condition()}", *self._lines(depth + 1)]
            if self.rng.random() < 0.5:
                lines += ["#else", *self._lines(depth + 1)]
            return [*lines, "#endif"]
        return [" ".join(self._word() for _ in range(3))]

    def _lines(self, depth: int) -> list[str]:
        return [line for _ in range(self.rng.randrange(1, 4)) for line in self._line(depth)]

    def _text(self, include: str, *, first: bool = False) -> str:
        lines = ['#include "options.h"'] if first or self.rng.random() < 0.3 else []
        lines += self._lines(0)
        if include:
            lines += [f'#include "{include}"', *self._lines(0)]
        return "\n".join(lines) + "\n"

    def options(self) -> str:
        lines = [f"#define {name} {body}" for name, body in self.header.items()]
        if self.style == "once":
            lines.insert(0, "#pragma once")
        if self.style == "guard":
            lines = ["#ifndef GUARD_H", "#define GUARD_H", *lines, "#endif"]
        return "\n".join(lines) + "\n"

    def edit(self) -> None:
        """Define, change or drop an option."""
        name = self.pasted if self.rng.random() < 0.4 else self.rng.choice(OPTIONS)
        if self.rng.random() < 0.3:
            self.header.pop(name, None)
        else:
            self.header[name] = self._body()


def judged(program: Program, header: OptionHeader) -> str:
    texts = [macro_words(text.encode(), header.family) for text in program.texts.values()]
    named = frozenset(word for text in texts for word in text.named)
    begun = frozenset(word for text in texts for word in text.begun)
    return header.view(header.used(named, begun))


def preprocessed(cpp: str, place: Path) -> tuple[int, list[str]]:
    words = [cpp, "-E", "-P", "-w", f"-I{place}", str(place / "main.c")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.split()


def _step(rng: random.Random, place: Path) -> bool:
    """One program and one edit; was it judged to be without consequence?"""
    program = Program(rng)
    for name, text in program.texts.items():
        (place / name).write_text(text)
    old = program.options()
    program.edit()
    new = program.options()
    headers = [parse_option_header(text.encode()) for text in (old, new)]
    if old == new or not all(isinstance(header, OptionHeader) for header in headers):
        return False
    first, second = (judged(program, header) for header in headers if isinstance(header, OptionHeader))
    if first != second:
        return False
    for cpp in CPP:
        results = []
        for text in (old, new):
            (place / "options.h").write_text(text)
            results.append(preprocessed(cpp, place))
        assert results[0] == results[1], (cpp, old, new, program.texts)
    return True


def _steps(count: int, place: Path) -> int:
    return sum(_step(random.Random(seed), place) for seed in range(count))


def test_what_is_judged_to_be_without_consequence_is(tmp_path: Path) -> None:
    assert _steps(100, tmp_path) >= 15


@pytest.mark.stress
def test_what_is_judged_to_be_without_consequence_is_at_length(tmp_path: Path) -> None:
    assert _steps(8000, tmp_path) >= 800

"""A compile of few bytes is the action that it stands for."""

from __future__ import annotations

import copy
import pickle
import sys
import tracemalloc

import pytest

from pipeline.model import Action, Stage
from pipeline.toolchain.compile_units import Compiling, compile_unit

HOW = Compiling(("cc", "-Iinc"), ("-O2",), ("inc/flags.h",), "fast", "salt", " for boot")
OBJECT = "build/fast/obj/app/src/a.c.o"


def whole(source: str = "src/a.c", word: str = "src/a.c", *, reports: bool = True) -> Action:
    made = f"build/fast/obj/app/{source}.o"
    depfile = ("-MD", "-MF", f"{made[:-2]}.d") if reports else ()
    return Action(
        name=f"compile {source} for boot",
        stage=Stage.COMPILE,
        inputs=(source, "inc/flags.h"),
        outputs=(made,),
        argv=("cc", "-Iinc", "-O2", *depfile, "-c", word, "-o", made),
        depfile=f"{made[:-2]}.d",
        profile="fast",
        salt="salt",
        count_as="compiled",
    )


def test_it_is_equal_to_the_whole_action_in_every_respect() -> None:
    unit, action = compile_unit(HOW, "src/a.c", OBJECT), whole()
    assert isinstance(unit, Action)
    assert {field: getattr(unit, field) for field in Action._fields} == action._asdict() == unit._asdict()
    assert tuple(unit) == tuple(action) and [*unit] == [*action] and len(unit) == len(action)
    assert unit == action and action == unit and not unit != action and not action != unit  # noqa: SIM202
    assert hash(unit) == hash(action) and {unit, action} == {action} and repr(unit) == repr(action)
    assert unit[2] == action[2] and unit[1:3] == action[1:3] and ("salt" in unit) == ("salt" in action)
    assert unit.is_users is action.is_users is False and unit.known_as == action.known_as == "fast:" + action.name
    first, *_, last = unit
    assert (first, last) == (action.name, None)


def test_it_is_another_one_where_anything_is_another() -> None:
    unit = compile_unit(HOW, "src/a.c", OBJECT)
    for other in (
        compile_unit(HOW._replace(salt=""), "src/a.c", OBJECT),
        compile_unit(HOW, "src/b.c", OBJECT),
        compile_unit(HOW, "src/a.c", "build/fast/obj/app/src/b.c.o"),
        whole()._replace(cacheable=False),
        "compile",
    ):
        assert unit != other and not unit == other  # noqa: SIM201
    assert unit == compile_unit(HOW._replace(), "src/a.c", OBJECT)


def test_what_is_made_of_it_is_a_whole_action() -> None:
    unit = compile_unit(HOW, "src/a.c", OBJECT)
    for made in (unit._replace(), copy.copy(unit), copy.deepcopy(unit), pickle.loads(pickle.dumps(unit))):
        assert type(made) is Action and made == whole()
    assert unit._replace(salt="other") == whole()._replace(salt="other")
    with pytest.raises(AttributeError):
        unit.name = "other"  # type: ignore[misc]


def test_odd_sources() -> None:
    assert compile_unit(HOW, "-a.c", "build/fast/obj/app/-a.c.o") == whole("-a.c", "./-a.c")
    assert compile_unit(HOW._replace(reports=False), "a.s", "build/fast/obj/app/a.s.o") == whole(
        "a.s", "a.s", reports=False
    )
    itself = compile_unit(HOW, "inc/flags.h", OBJECT)
    assert itself.inputs == ("inc/flags.h",), "it is named once"


def test_it_takes_few_bytes() -> None:
    sources = [f"src/{n}.c" for n in range(1000)]
    made = [f"build/{source}.o" for source in sources]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        units = [compile_unit(HOW, *names) for names in zip(sources, made, strict=True)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(units) == 1000 and sys.getsizeof(units[0]) < 100
    assert after - before < 190 * len(units), "with the name of its record; with its words it takes eight hundred"

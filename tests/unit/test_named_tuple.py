"""Our NamedTuple against that of `typing`: the same class, made in less time."""

from __future__ import annotations

import copy
import pickle
import typing
from pathlib import Path
from typing import Any

import pytest

from cache import named_tuple

ROOT = Path(__file__).parents[2]
SOURCE = '''
class Row(NamedTuple):
    """What a row is."""

    name: str
    other: "Missing | None" = None
    count: int = 3

    LIMIT = 7

    @property
    def long(self) -> bool:
        return self.count > self.LIMIT

    @classmethod
    def of(cls, text: str) -> "Row":
        return cls(text)

    def __bool__(self) -> bool:
        return self.long
'''


def made(base: Any) -> Any:
    space: dict[str, Any] = {"__name__": __name__, "NamedTuple": base}
    exec(compile(f"from __future__ import annotations\n{SOURCE}", "rows", "exec"), space)
    return space["Row"]


@pytest.mark.parametrize("few", [0, 1, 8], ids="first {} without a constructor".format)
def test_it_is_the_class_that_typing_makes(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(named_tuple, "_FEW", few)
    ours, theirs = made(named_tuple.NamedTuple), made(typing.NamedTuple)
    for name in ("__doc__", "__module__", "__name__", "__qualname__", "_fields", "_field_defaults", "__match_args__"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.__bases__ == theirs.__bases__ == (tuple,)
    assert list(ours.__annotations__) == list(theirs.__annotations__)
    # The one thing that it leaves out: typing's note of what was derived from.
    assert set(vars(theirs)) - set(vars(ours)) <= {"__orig_bases__"} and not set(vars(ours)) - set(vars(theirs))
    for cls in (ours, theirs):
        row = cls("a")
        assert row == ("a", None, 3) == tuple(row) and hash(row) == hash(("a", None, 3))
        assert repr(row) == "Row(name='a', other=None, count=3)"
        assert not row and not row.long and row._replace(count=8).long and cls.of("b").name == "b"
        assert cls(count=1, name="x") == cls._make(["x", None, 1]) and row._asdict()["count"] == 3
        with pytest.raises(TypeError, match="5 were given"):
            cls("a", None, 1, 2)
        with pytest.raises(TypeError, match="counts"):
            cls("a", counts=1)
        with pytest.raises(TypeError, match="name"):
            cls(count=1)
        with pytest.raises(TypeError, match="name"):
            cls("a", name="b")
        with pytest.raises(TypeError, match=r"Expected 3 arguments, got 2"):
            cls._make(["a", None])
        with pytest.raises((TypeError, ValueError), match=r"Got unexpected field names: \['counts'\]"):
            row._replace(counts=1)
        with pytest.raises(AttributeError):
            row.name = "c"
        with pytest.raises(AttributeError):
            row.more = 1


class Sample(named_tuple.NamedTuple):
    """At module level, as pickle needs it."""

    number: int
    text: str = ""


def test_values_can_be_copied_and_pickled() -> None:
    kept = Sample(1, "x")
    for value in (pickle.loads(pickle.dumps(kept)), copy.deepcopy(kept)):
        assert value == kept and value.__class__ is Sample


def test_few_values_need_no_constructor() -> None:
    row: Any = made(named_tuple.NamedTuple)
    waiting = row.__new__
    assert [row("a", count=n) for n in range(8)] == [("a", None, n) for n in range(8)]
    assert row.__new__ is waiting and row("a") == ("a", None, 3) and row.__new__ is not waiting


def test_a_constructor_is_compiled_once_also_where_a_derived_class_calls_it_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(named_tuple, "_FEW", 0)
    row: Any = made(named_tuple.NamedTuple)

    class Longer(row):  # type: ignore[misc]
        __slots__ = ()

        def __new__(cls, name: str) -> Any:
            return super().__new__(cls, name, count=9)

    waiting = row.__new__
    assert (Longer("a"), type(Longer("a"))) == (("a", None, 9), Longer)
    compiled = row.__new__
    assert compiled is not waiting and row("b") == ("b", None, 3) and row.__new__ is compiled
    assert row.__new__.__code__.co_varnames == ("_cls", "name", "other", "count")


def test_threads_that_make_the_first_values_at_once_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_tuple, "_FEW", 0)
    row, real, seen = made(named_tuple.NamedTuple), vars(named_tuple)["namedtuple"], []

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(named_tuple, "namedtuple", real)
        seen.append(row("b"))  # as another thread, between our begin and our end
        return real(*args, **kwargs)

    monkeypatch.setattr(named_tuple, "namedtuple", overtaken)
    assert (row("a"), row("c"), seen) == (("a", None, 3), ("c", None, 3), [("b", None, 3)])


def test_no_module_of_a_run_uses_the_slow_one() -> None:
    for package in ("cache", "pipeline"):
        for path in sorted((ROOT / package).rglob("*.py")):
            lines = [line for line in path.read_text().splitlines() if line.startswith("from typing import")]
            assert path.name == "named_tuple.py" or not any("NamedTuple" in line for line in lines), path

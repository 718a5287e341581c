"""`virtualboard.named_values.NamedValues` is `typing.NamedTuple` by another way."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import pytest

from virtualboard.named_values import NamedValues


class SampleRecord(NamedValues):
    """What it is for."""

    first: int
    second: str = "two"
    third: tuple[int, ...] = ()

    @property
    def both(self) -> str:
        return f"{self.first} {self.second}"


class SampleTuple(NamedTuple):
    """What it is for."""

    first: int
    second: str = "two"
    third: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((1,), {}),
        ((1, "b"), {}),
        ((1, "b", (3,)), {}),
        ((), {"first": 1}),
        ((1,), {"third": (2,)}),
        ((1, "b"), {"third": ()}),
    ],
)
def test_values_are_those_of_a_named_tuple(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    one, other = SampleRecord(*values, **named), SampleTuple(*values, **named)
    assert tuple(one) == tuple(other) and (one.first, one.second, one.third) == tuple(other)
    assert one._asdict() == other._asdict() and hash(one) == hash(other)
    assert repr(one) == repr(other).replace("SampleTuple", "SampleRecord")
    assert tuple(one._replace(second="x")) == tuple(other._replace(second="x"))
    assert pickle.loads(pickle.dumps(one)) == one and copy.deepcopy(one) == one
    assert type(copy.copy(one)) is SampleRecord and one.both == f"{other.first} {other.second}"


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, "b", (), 4), {}), ((1,), {"first": 1}), ((1,), {"fourth": 4}), ((), {"second": "b"})],
)
def test_wrong_arguments_are_refused(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    for made in (SampleRecord, SampleTuple):
        with pytest.raises(TypeError):
            made(*values, **named)


def test_a_field_that_there_is_not_cannot_be_replaced_nor_any_be_set() -> None:
    one: Any = SampleRecord(1)
    with pytest.raises(TypeError):
        one._replace(fourth=4)
    with pytest.raises(AttributeError):
        one.first = 2
    assert SampleRecord.__doc__ == "What it is for." and SampleRecord._fields == SampleTuple._fields
    match one:
        case SampleRecord(first, second):
            assert (first, second) == (1, "two")

"""The ROM's arithmetic against Python's, which is exact for integers and the same IEEE 754 for doubles."""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rom_caller import RAM, FakeProgram

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
words = st.one_of(st.integers(0, M32), st.sampled_from([0, 1, M32, 1 << 31, (1 << 31) - 1]))
longs = st.one_of(st.integers(0, M64), st.sampled_from([0, 1, M64, 1 << 63, (1 << 63) - 1, M32]))
doubles = st.floats(allow_nan=True)
singles = st.floats(width=32)


@functools.cache
def adder() -> FakeProgram:
    """One for all: these functions keep nothing."""
    return FakeProgram(0x100)


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


def halves(value: int) -> tuple[int, int]:
    return value & M32, value >> 32 & M32


def call64(name: str, *values: int) -> int:
    program = adder()
    low = program.call(name, *values)
    return program.high << 32 | low


def double_bits(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


def single_bits(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


def double(bits: int) -> float:
    return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])


def single(bits: int) -> float:
    return float(struct.unpack("<f", bits.to_bytes(4, "little"))[0])


def towards_zero(a: int, b: int) -> tuple[int, int]:
    quotient = int(Fraction(a, b))  # truncates
    return quotient, a - quotient * b


@given(longs, longs)
def test_division_of_64_bits(a: int, b: int) -> None:
    if b == 0:
        program = adder()
        before = program.broke
        for name in ("__divdi3", "__moddi3", "__udivdi3", "__umoddi3", "__udivmoddi4"):
            program.call(name, *halves(a), *halves(b))
        assert program.broke == before + 5, "a breakpoint, as in the ROM"
        return
    quotient, rest = towards_zero(signed(a, 64), signed(b, 64))
    args = (*halves(a), *halves(b))
    assert (call64("__divdi3", *args), call64("__moddi3", *args)) == (quotient & M64, rest & M64)
    assert (call64("__udivdi3", *args), call64("__umoddi3", *args)) == (a // b, a % b)
    program = adder()
    assert program.call("__udivmoddi4", *args, RAM + 0x10) | program.high << 32 == a // b
    assert int.from_bytes(program.at(RAM + 0x10, 8), "little") == a % b


@given(words, words)
def test_division_of_32_bits(a: int, b: int) -> None:
    results = [adder().call(name, a, b) for name in ("__divsi3", "__modsi3", "__udivsi3", "__umodsi3")]
    if b == 0:
        assert results == [M32, a, M32, a], "as the C3's instructions"
    else:
        quotient, rest = towards_zero(signed(a, 32), signed(b, 32))
        assert results == [quotient & M32, rest & M32, a // b, a % b]


@given(longs, longs, st.integers(0, 63))
def test_products_shifts_and_order(a: int, b: int, n: int) -> None:
    assert call64("__muldi3", *halves(a), *halves(b)) == a * b & M64
    assert adder().call("__mulsi3", a & M32, b & M32) == (a & M32) * (b & M32) & M32
    assert call64("__ashldi3", *halves(a), n) == a << n & M64
    assert call64("__lshrdi3", *halves(a), n) == a >> n
    assert call64("__ashrdi3", *halves(a), n) == signed(a, 64) >> n & M64
    assert call64("__negdi2", *halves(a)) == -a & M64
    for name, x, y in (("__ucmpdi2", a, b), ("__cmpdi2", signed(a, 64), signed(b, 64))):
        assert adder().call(name, *halves(a), *halves(b)) == (0 if x < y else 2 if x > y else 1)


@given(longs)
def test_bits(a: int) -> None:
    low = a & M32
    text, text64 = format(low, "032b"), format(a, "064b")
    one = {
        "__popcountsi2": text.count("1"),
        "__paritysi2": text.count("1") % 2,
        "__ffssi2": 32 - text.rfind("1") if low else 0,
        "__clzsi2": (text + "1").find("1"),
        "__ctzsi2": 31 - text.rfind("1") if low else 32,
        "__clrsbsi2": len(text) - len(text.lstrip(text[0])) - 1,
        "__bswapsi2": int.from_bytes(low.to_bytes(4, "big"), "little"),
        "__absvsi2": abs(signed(low, 32)),
    }
    assert {name: adder().call(name, low) for name in one} == one
    two = {
        "__popcountdi2": text64.count("1"),
        "__ffsdi2": 64 - text64.rfind("1") if a else 0,
        "__clzdi2": (text64 + "1").find("1"),
        "__ctzdi2": 63 - text64.rfind("1") if a else 64,
        "__clrsbdi2": len(text64) - len(text64.lstrip(text64[0])) - 1,
    }
    assert {name: adder().call(name, *halves(a)) for name in two} == two
    assert call64("__bswapdi2", *halves(a)) == int.from_bytes(a.to_bytes(8, "big"), "little")
    assert call64("__absvdi2", *halves(a)) == abs(signed(a, 64)) & M64


@given(doubles, doubles)
def test_doubles(a: float, b: float) -> None:
    args = (*halves(double_bits(a)), *halves(double_bits(b)))
    for name, expected in (("add", a + b), ("sub", a - b), ("mul", a * b)):
        got = double(call64(f"__{name}df3", *args))
        assert got == expected or (math.isnan(got) and math.isnan(expected)), name
    quotient = double(call64("__divdf3", *args))
    if b:
        assert quotient == a / b or (math.isnan(quotient) and math.isnan(a / b))
    elif math.isnan(a) or a == 0 or math.isnan(b):
        assert math.isnan(quotient)
    else:
        assert math.isinf(quotient) and math.copysign(1, quotient) == math.copysign(1, a) * math.copysign(1, b)


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a == b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
HOLDS: dict[str, Callable[[int], bool]] = {
    "eq": lambda r: r == 0,
    "ne": lambda r: r == 0,
    "lt": lambda r: r < 0,
    "le": lambda r: r <= 0,
    "gt": lambda r: r > 0,
    "ge": lambda r: r >= 0,
}
"""How GCC reads the result; `ne` is 0 where they are equal."""


@given(singles, singles)
def test_comparisons(a: float, b: float) -> None:
    for name, truth in COMPARISONS.items():
        one = adder().call(f"__{name}sf2", single_bits(a), single_bits(b))
        two = adder().call(f"__{name}df2", *halves(double_bits(a)), *halves(double_bits(b)))
        assert HOLDS[name](signed(one, 32)) == HOLDS[name](signed(two, 32)) == truth(a, b), name
    unordered = math.isnan(a) or math.isnan(b)
    assert adder().call("__unordsf2", single_bits(a), single_bits(b)) == unordered
    assert adder().call("__unorddf2", *halves(double_bits(a)), *halves(double_bits(b))) == unordered


@given(singles, singles)
def test_singles(a: float, b: float) -> None:
    """Of two singles a sum, difference, product or quotient as a double, rounded to single, is rounded exactly."""
    for name, operation in (("add", a + b), ("sub", a - b), ("mul", a * b)):
        got = single(adder().call(f"__{name}sf3", single_bits(a), single_bits(b)))
        expected = ctypes_single(operation)
        assert got == expected or (math.isnan(got) and math.isnan(expected)), name
    if b and not math.isnan(b):
        got, expected = single(adder().call("__divsf3", single_bits(a), single_bits(b))), ctypes_single(a / b)
        assert got == expected or (math.isnan(got) and math.isnan(expected))
    assert adder().call("__negsf2", single_bits(1.5)) == single_bits(-1.5)
    assert call64("__negdf2", *halves(double_bits(b))) == double_bits(b) ^ 1 << 63


def ctypes_single(value: float) -> float:
    return ctypes.c_float(value).value


@given(doubles)
def test_conversions_of_reals(a: float) -> None:
    narrow = ctypes_single(a)
    got = single(adder().call("__truncdfsf2", *halves(double_bits(a))))
    assert got == narrow or (math.isnan(got) and math.isnan(narrow))
    wide = double(call64("__extendsfdf2", single_bits(narrow)))
    assert wide == narrow or (math.isnan(wide) and math.isnan(narrow))
    for name, bits, is_signed in (("__fixdfsi", 32, True), ("__fixdfdi", 64, True), ("__fixunsdfsi", 32, False)):
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
        if not math.isnan(a) and low <= a <= high and int(a) <= high:
            assert call64(name, *halves(double_bits(a))) & (1 << bits) - 1 == int(a) & (1 << bits) - 1, name
    for name, bits, is_signed in (
        *(("__fixsfsi", 32, True), ("__fixsfdi", 64, True), ("__fixunssfsi", 32, False), ("__fixunssfdi", 64, False)),
    ):
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
        if not math.isnan(narrow) and low <= narrow <= high and int(narrow) <= high:
            assert call64(name, single_bits(narrow)) & (1 << bits) - 1 == int(narrow) & (1 << bits) - 1, name


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("__fixdfsi", 1e30, (1 << 31) - 1),
        ("__fixdfsi", -1e30, 1 << 31),
        ("__fixunsdfsi", 1e30, M32),
        ("__fixunsdfsi", -1.0, 0),
        ("__fixdfsi", math.nan, 0),
    ],
)
def test_what_does_not_fit_is_cut_off(name: str, value: float, limit: int) -> None:
    assert adder().call(name, *halves(double_bits(value))) == limit


@given(longs)
def test_conversions_of_integers(a: int) -> None:
    low = a & M32
    assert double(call64("__floatsidf", low)) == signed(low, 32) and double(call64("__floatunsidf", low)) == low
    assert double(call64("__floatdidf", *halves(a))) == float(signed(a, 64))
    assert double(call64("__floatundidf", *halves(a))) == float(a)
    for name, value, args in (
        ("__floatsisf", signed(low, 32), (low,)),
        ("__floatunsisf", low, (low,)),
        ("__floatdisf", signed(a, 64), halves(a)),
        ("__floatundisf", a, halves(a)),
    ):
        got = Fraction(single(adder().call(name, *args)))
        # The nearest single: no other is nearer, and it has 24 bits.
        unit = Fraction(2) ** max(abs(value).bit_length() - 24, 0)
        assert abs(got - value) * 2 <= unit and (got / unit).denominator == 1, name
        if abs(got - value) * 2 == unit:
            assert int(got / unit) % 2 == 0, f"{name}: ties go to the even one"


@given(st.floats(0.125, 8), st.sampled_from([1, -1]), st.integers(-12, 12))
def test_powers(a: float, sign: int, n: int) -> None:
    a *= sign
    got = double(call64("__powidf2", *halves(double_bits(a)), n & M32))
    assert math.isclose(got, a**n, rel_tol=1e-14, abs_tol=1e-300)
    narrow = ctypes_single(a)
    if narrow:
        got = single(adder().call("__powisf2", single_bits(narrow), n & M32))
        assert math.isclose(got, ctypes_single(narrow**n), rel_tol=1e-5, abs_tol=1e-37) or math.isinf(got)

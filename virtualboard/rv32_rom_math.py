"""The mask ROM's arithmetic helpers, done by the host: libgcc's 64-bit integers and software floating point.

Each does what GCC's internals manual ("Routines for integer arithmetic", "... floating point emulation") says. Does not
know a CPU. Invariant: nothing raises. Division by zero gives what the C3's `div` gives (all ones, or the dividend as
remainder) for 32 bits, and is a breakpoint for 64, as in the ROM.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from virtualboard.rv32_caller import Caller, RomFunction, pair, signed, wide

_M32, _M64 = (1 << 32) - 1, (1 << 64) - 1
_NAN = float("nan")


def double_of(bits: int) -> float:
    """IEEE 754 bits as a number."""
    value: float = struct.unpack("<d", struct.pack("<Q", bits & _M64))[0]
    return value


def bits_of(value: float) -> int:
    """A number as IEEE 754 bits; no number as RISC-V's canonical NaN."""
    if math.isnan(value):
        return 0x7FF80000 << 32
    bits: int = struct.unpack("<Q", struct.pack("<d", value))[0]
    return bits


def float_of(bits: int) -> float:
    """The same for single precision."""
    value: float = struct.unpack("<f", struct.pack("<I", bits & _M32))[0]
    return value


def float_bits_of(value: float) -> int:
    """The same for single precision; what is too large becomes infinite."""
    if math.isnan(value):
        return 0x7FC00000
    try:
        bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        return 0xFF800000 if value < 0 else 0x7F800000
    return bits


# --- integers -----------------------------------------------------------------------------------------------------


def _quotient(a: int, b: int) -> int:
    """C's: towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _divide(a: int, b: int) -> int:
    return -1 if b == 0 else _quotient(a, b)


def _remainder(a: int, b: int) -> int:
    return a if b == 0 else a - b * _quotient(a, b)


def _wide2(operation: Callable[[int, int], int], *, is_signed: bool) -> RomFunction:
    def call(c: Caller) -> int:
        a, b = pair(c, 0), pair(c, 2)
        if b == 0 and operation in (_divide, _remainder):
            c.breakpoint()
        return wide(c, operation(signed(a, 64), signed(b, 64)) if is_signed else operation(a, b))

    return call


def _narrow2(operation: Callable[[int, int], int], *, is_signed: bool) -> RomFunction:
    def call(c: Caller) -> int:
        a, b = c.argument(0), c.argument(1)
        return operation(signed(a), signed(b)) if is_signed else operation(a, b)

    return call


def _shift(operation: Callable[[int, int], int]) -> RomFunction:
    """By a number in a2, of which libgcc defines 0 to 63."""
    return lambda c: wide(c, operation(pair(c, 0), c.argument(2) & 63))


def _udivmoddi4(c: Caller) -> int:
    a, b = pair(c, 0), pair(c, 2)
    at = c.argument(4)
    if b == 0:
        c.breakpoint()
    if at:
        rest = _remainder(a, b)
        c.store_word(at, rest & _M32)
        c.store_word(at + 4, rest >> 32)
    return wide(c, _divide(a, b))


def _compare(a: int, b: int) -> int:
    """libgcc's: 0, 1, 2 for less, equal, greater."""
    return 1 + (a > b) - (a < b)


def _leading(value: int, bits: int) -> int:
    return bits - value.bit_length()


def _trailing(value: int, bits: int) -> int:
    return (value & -value).bit_length() - 1 if value else bits


def _redundant_signs(value: int, bits: int) -> int:
    return _leading(value ^ (_M64 >> 64 - bits if value >> bits - 1 else 0), bits) - 1


def _swap(value: int, size: int) -> int:
    return int.from_bytes(value.to_bytes(size, "little"), "big")


_INTEGERS: Mapping[str, RomFunction] = {
    "__divdi3": _wide2(_divide, is_signed=True),
    "__moddi3": _wide2(_remainder, is_signed=True),
    "__udivdi3": _wide2(_divide, is_signed=False),
    "__umoddi3": _wide2(_remainder, is_signed=False),
    "__udivmoddi4": _udivmoddi4,
    "__divsi3": _narrow2(_divide, is_signed=True),
    "__modsi3": _narrow2(_remainder, is_signed=True),
    "__udivsi3": _narrow2(_divide, is_signed=False),
    "__umodsi3": _narrow2(_remainder, is_signed=False),
    "__muldi3": _wide2(lambda a, b: a * b, is_signed=False),
    "__mulsi3": _narrow2(lambda a, b: a * b, is_signed=False),
    "__ashldi3": _shift(lambda a, n: a << n),
    "__ashrdi3": _shift(lambda a, n: signed(a, 64) >> n),
    "__lshrdi3": _shift(lambda a, n: a >> n),
    "__negdi2": lambda c: wide(c, -pair(c, 0)),
    "__absvdi2": lambda c: wide(c, abs(signed(pair(c, 0), 64))),
    "__absvsi2": lambda c: abs(signed(c.argument(0))),
    "__bswapsi2": lambda c: _swap(c.argument(0), 4),
    "__bswapdi2": lambda c: wide(c, _swap(pair(c, 0), 8)),
    "__clzsi2": lambda c: _leading(c.argument(0), 32),
    "__clzdi2": lambda c: _leading(pair(c, 0), 64),
    "__ctzsi2": lambda c: _trailing(c.argument(0), 32),
    "__ctzdi2": lambda c: _trailing(pair(c, 0), 64),
    "__ffssi2": lambda c: (_trailing(c.argument(0), 32) + 1) % 33,
    "__ffsdi2": lambda c: (_trailing(pair(c, 0), 64) + 1) % 65,
    "__clrsbsi2": lambda c: _redundant_signs(c.argument(0), 32),
    "__clrsbdi2": lambda c: _redundant_signs(pair(c, 0), 64),
    "__popcountsi2": lambda c: c.argument(0).bit_count(),
    "__popcountdi2": lambda c: pair(c, 0).bit_count(),
    "__paritysi2": lambda c: c.argument(0).bit_count() & 1,
    "__cmpdi2": lambda c: _compare(signed(pair(c, 0), 64), signed(pair(c, 2), 64)),
    "__ucmpdi2": lambda c: _compare(pair(c, 0), pair(c, 2)),
    "__clear_cache": lambda _c: 0,
}


# --- floating point ---------------------------------------------------------------------------------------------------


def _ratio(a: float, b: float) -> float:
    if b:
        return a / b
    if not a or math.isnan(a):
        return _NAN
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def _power(a: float, n: int, rounded: Callable[[float], float]) -> float:
    """Repeated multiplication, each product rounded, as libgcc does it."""
    result, left = 1.0, abs(n)
    while left:
        if left & 1:
            result = rounded(result * a)
        a = rounded(a * a)
        left >>= 1
    return _ratio(1.0, result) if n < 0 else result


def _single(value: float) -> float:
    return float_of(float_bits_of(value))


def _whole(value: float, low: int, high: int) -> int:
    """Towards zero, at the limits where it does not fit; 0 for no number."""
    if math.isnan(value):
        return 0
    return high if value >= high else low if value <= low else int(value)


def _double2(operation: Callable[[float, float], float]) -> RomFunction:
    return lambda c: wide(c, bits_of(operation(double_of(pair(c, 0)), double_of(pair(c, 2)))))


def _float2(operation: Callable[[float, float], float]) -> RomFunction:
    return lambda c: float_bits_of(operation(float_of(c.argument(0)), float_of(c.argument(1))))


_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _ratio,
}


def _order(a: float, b: float, unordered: int) -> int:
    return unordered if math.isnan(a) or math.isnan(b) else (a > b) - (a < b)


_UNORDERED = {"lt": 1, "le": 1, "gt": -1, "ge": -1}
"""What a comparison with no number gives, so that it is false."""


def _compare_doubles(unordered: int) -> RomFunction:
    return lambda c: _order(double_of(pair(c, 0)), double_of(pair(c, 2)), unordered)


def _compare_floats(unordered: int) -> RomFunction:
    return lambda c: _order(float_of(c.argument(0)), float_of(c.argument(1)), unordered)


_REALS: Mapping[str, RomFunction] = {
    **{f"__{name}df3": _double2(operation) for name, operation in _ARITHMETIC.items()},
    **{f"__{name}sf3": _float2(operation) for name, operation in _ARITHMETIC.items()},
    **{f"__{name}df2": _compare_doubles(unordered) for name, unordered in _UNORDERED.items()},
    **{f"__{name}sf2": _compare_floats(unordered) for name, unordered in _UNORDERED.items()},
    **dict.fromkeys(("__eqdf2", "__nedf2"), lambda c: int(double_of(pair(c, 0)) != double_of(pair(c, 2)))),
    **dict.fromkeys(("__eqsf2", "__nesf2"), lambda c: int(float_of(c.argument(0)) != float_of(c.argument(1)))),
    "__unorddf2": lambda c: int(math.isnan(double_of(pair(c, 0))) or math.isnan(double_of(pair(c, 2)))),
    "__unordsf2": lambda c: int(math.isnan(float_of(c.argument(0))) or math.isnan(float_of(c.argument(1)))),
    "__negdf2": lambda c: wide(c, pair(c, 0) ^ 1 << 63),
    "__negsf2": lambda c: c.argument(0) ^ 1 << 31,
    "__extendsfdf2": lambda c: wide(c, bits_of(float_of(c.argument(0)))),
    "__truncdfsf2": lambda c: float_bits_of(double_of(pair(c, 0))),
    "__powidf2": lambda c: wide(c, bits_of(_power(double_of(pair(c, 0)), signed(c.argument(2)), float))),
    "__powisf2": lambda c: float_bits_of(_power(float_of(c.argument(0)), signed(c.argument(1)), _single)),
    "__fixdfsi": lambda c: _whole(double_of(pair(c, 0)), -(1 << 31), (1 << 31) - 1),
    "__fixdfdi": lambda c: wide(c, _whole(double_of(pair(c, 0)), -(1 << 63), (1 << 63) - 1)),
    "__fixsfsi": lambda c: _whole(float_of(c.argument(0)), -(1 << 31), (1 << 31) - 1),
    "__fixsfdi": lambda c: wide(c, _whole(float_of(c.argument(0)), -(1 << 63), (1 << 63) - 1)),
    "__fixunsdfsi": lambda c: _whole(double_of(pair(c, 0)), 0, _M32),
    "__fixunssfsi": lambda c: _whole(float_of(c.argument(0)), 0, _M32),
    "__fixunssfdi": lambda c: wide(c, _whole(float_of(c.argument(0)), 0, _M64)),
    "__floatsidf": lambda c: wide(c, bits_of(float(signed(c.argument(0))))),
    "__floatunsidf": lambda c: wide(c, bits_of(float(c.argument(0)))),
    "__floatdidf": lambda c: wide(c, bits_of(float(signed(pair(c, 0), 64)))),
    "__floatundidf": lambda c: wide(c, bits_of(float(pair(c, 0)))),
    "__floatsisf": lambda c: _float_of_whole(signed(c.argument(0))),
    "__floatunsisf": lambda c: _float_of_whole(c.argument(0)),
    "__floatdisf": lambda c: _float_of_whole(signed(pair(c, 0), 64)),
    "__floatundisf": lambda c: _float_of_whole(pair(c, 0)),
}


def _float_of_whole(value: int) -> int:
    """Rounded once: to single precision, ties to even. By way of a double it would be rounded twice."""
    size = abs(value).bit_length()
    if size > 24:
        drop = size - 24
        low, half = abs(value) & (1 << drop) - 1, 1 << drop - 1
        kept = abs(value) >> drop
        kept += low > half or (low == half and kept & 1)
        value = (kept << drop) * (-1 if value < 0 else 1)
    return float_bits_of(float(value))


MATH: Mapping[str, RomFunction] = MappingProxyType({**_INTEGERS, **_REALS})
"""By the name of the ROM function."""

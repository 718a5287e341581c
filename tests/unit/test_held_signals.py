"""Ctrl-C and SIGTERM are not lost while the virtual board executes firmware."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from virtualboard.held_signals import held_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """SIGTERM raises as SIGINT does; both are as before afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_comes_after_the_block(number: signal.Signals) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), held_signals():
        signal.raise_signal(number)
        signal.raise_signal(number)
        done.append("the block")
    assert done == ["the block"]
    assert signal.getsignal(number) is signal.default_int_handler


def test_both_at_once_leave_the_handlers_in_place() -> None:
    with pytest.raises(KeyboardInterrupt), held_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_a_failure_of_the_block_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="mine"), held_signals():
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_do_not_touch_handlers() -> None:
    found: list[Any] = []

    def look() -> None:
        with held_signals():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_a_signal_at_the_entry_of_a_callback_of_the_cpu_is_not_lost() -> None:
    """There, before the guard of `rv32_cpu`, an exception would be printed and dropped."""
    pytest.importorskip("unicorn", reason="unicorn is not installed")
    from tests.unit.test_rv32 import HERE, UART, TinyChip, store

    chip = TinyChip([*store(UART, ord("x")), *HERE])
    came: list[str] = []

    def trace(frame: FrameType, event: str, _argument: object) -> None:
        outermost = frame.f_code.co_name == "write" and frame.f_code.co_filename.endswith("rv32_cpu.py")
        if event == "call" and outermost and not came:
            came.append(frame.f_code.co_name)
            signal.raise_signal(signal.SIGTERM)

    before = sys.getprofile()
    sys.setprofile(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            chip.machine.run(1000)
    finally:
        sys.setprofile(before)
    assert came == ["write"]
    assert chip.machine.transmit() == b"x"

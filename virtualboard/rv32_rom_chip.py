"""The mask ROM's functions for the chip itself, done by the host: text, UART, clocks, resets, pins, interrupts, efuses.

Does not know a CPU. Invariant: what `ets_printf` writes goes to UART0 unless the program has taken both of its channels
away; a putc of the program's own is not called, its text goes to UART0 as well.

Meanings: ESP-IDF, `esp32c3/rom/ets_sys.h`, `uart.h`, `gpio.h`, `rtc.h`, `efuse.h`; the registers behind the interrupt
and pin functions: `soc/esp32c3`.
"""

from __future__ import annotations

from collections.abc import Mapping

from virtualboard import rom
from virtualboard.rv32_caller import Caller, RomFunction
from virtualboard.rv32_rom_printf import Arguments, formatted

_RTC, _GPIO, _IO_MUX, _MATRIX = 0x60008000, 0x60004000, 0x60009000, 0x600C2000
_WDT_KEY = 0x50D83AA1
_PULL_DOWN, _PULL_UP, _INPUT = 1 << 7, 1 << 8, 1 << 9
_BLOCK0_WORDS = _RTC + 0x830


class RomChipCalls:
    """The functions with their state: where text goes, and what frequencies the program has told."""

    def __init__(self) -> None:
        self._channels = [True, False]
        self._mhz = 40

    @property
    def table(self) -> Mapping[str, RomFunction]:
        """By the name of the ROM function."""
        return {**self._text(), **self._clocks(), **_RESETS, **_PINS, **_INTERRUPTS, **_EFUSES, **_NEEDLESS}

    def _text(self) -> Mapping[str, RomFunction]:
        return {
            "ets_printf": lambda c: self._print(c, formatted(c, c.text(c.argument(0)), Arguments(c, 1))),
            "ets_install_uart_printf": lambda _c: self._install(0, 1),
            "ets_install_putc1": lambda c: self._install(0, c.argument(0)),
            "ets_install_putc2": lambda c: self._install(1, c.argument(0)),
            "uart_tx_one_char": _uart_send,
            "uart_tx_one_char2": _uart_send,
            "uart_rx_one_char": _uart_receive,
            "ets_get_printf_channel": lambda _c: 0,
        }

    def _install(self, channel: int, putc: int) -> int:
        self._channels[channel] = putc != 0
        return 0

    def _print(self, c: Caller, text: bytes) -> int:
        if any(self._channels):
            for byte in text:
                c.uart_send(byte)
        return len(text)

    def _clocks(self) -> Mapping[str, RomFunction]:
        return {
            "ets_get_cpu_frequency": lambda _c: self._mhz,
            "ets_update_cpu_frequency": self._update_frequency,
            "ets_get_apb_freq": lambda _c: 80_000_000 if self._mhz >= 80 else self._mhz * 1_000_000,
            "ets_get_xtal_freq": lambda _c: 40_000_000,
            "ets_get_xtal_div": lambda _c: 1,
            # Registers of the analog blocks: all ones, as `rv32_registers.READY` has them.
            "rom_i2c_readReg": lambda _c: 0xFF,
            "rom_i2c_readReg_Mask": lambda c: (1 << max(c.argument(3) - c.argument(4) + 1, 0) % 9) - 1,
            "rom_i2c_writeReg": lambda _c: 0,
            "rom_i2c_writeReg_Mask": lambda _c: 0,
            "ets_is_print_boot": lambda _c: 1,
        }

    def _update_frequency(self, c: Caller) -> int:
        self._mhz = c.argument(0) or 1
        return 0


def _uart_send(c: Caller) -> int:
    c.uart_send(c.argument(0) & 0xFF)
    return 0


def _uart_receive(c: Caller) -> int:
    """`STATUS uart_rx_one_char(uint8_t *out)`: 1 where nothing has come."""
    byte = c.uart_receive()
    if byte is None:
        return 1
    c.store(c.argument(0), bytes([byte]))
    return 0


# --- resets and watchdogs -----------------------------------------------------------------------------------


def _reset(cause: int) -> RomFunction:
    def call(c: Caller) -> int:
        c.request_reset(cause)
        return 0

    return call


def _disable_watchdogs(c: Caller) -> int:
    for key, config in ((_RTC + 0xA8, _RTC + 0x90), (0x6001F064, 0x6001F048), (0x60020064, 0x60020048)):
        c.set_register(key, _WDT_KEY)
        c.set_register(config, 0)
        c.set_register(key, 0)
    return 0


_RESETS: Mapping[str, RomFunction] = {
    "rtc_get_reset_reason": lambda c: c.reset_cause,
    "software_reset": _reset(rom.SW_SYS),
    "software_reset_cpu": _reset(rom.SW_CPU),
    "disable_default_watchdog": _disable_watchdogs,
}


# --- pins ---------------------------------------------------------------------------------------------------


def _pad(set_bits: int, clear_bits: int = 0) -> RomFunction:
    """Change the pad's IO_MUX register."""

    def call(c: Caller) -> int:
        at = _IO_MUX + 4 + 4 * (c.argument(0) & 31)
        c.set_register(at, c.register(at) & ~clear_bits | set_bits)
        return 0

    return call


def _pad_drive(c: Caller) -> int:
    at = _IO_MUX + 4 + 4 * (c.argument(0) & 31)
    c.set_register(at, c.register(at) & ~(3 << 10) | (c.argument(1) & 3) << 10)
    return 0


def _output_set(c: Caller) -> int:
    """`gpio_output_set(set, clear, enable, disable)`"""
    for offset, index in ((0x04, 0), (0x20, 2)):
        c.set_register(_GPIO + offset, c.register(_GPIO + offset) & ~c.argument(index + 1) | c.argument(index))
    return 0


def _output_enable(on: bool) -> RomFunction:
    def call(c: Caller) -> int:
        bit = 1 << (c.argument(0) & 31)
        old = c.register(_GPIO + 0x20)
        c.set_register(_GPIO + 0x20, old | bit if on else old & ~bit)
        return 0

    return call


def _matrix_in(c: Caller) -> int:
    """`gpio_matrix_in(gpio, signal, invert)`"""
    value = 1 << 6 | (c.argument(2) & 1) << 5 | c.argument(0) & 31
    c.set_register(_GPIO + 0x154 + 4 * (c.argument(1) & 127), value)
    return 0


def _matrix_out(c: Caller) -> int:
    """`gpio_matrix_out(gpio, signal, invert output, invert enable)`"""
    value = (c.argument(3) & 1) << 10 | (c.argument(2) & 1) << 8 | c.argument(1) & 255
    c.set_register(_GPIO + 0x554 + 4 * (c.argument(0) & 31), value)
    return 0


_PINS: Mapping[str, RomFunction] = {
    "gpio_output_set": _output_set,
    "gpio_output_enable": _output_enable(True),
    "gpio_output_disable": _output_enable(False),
    "gpio_input_get": lambda c: c.register(_GPIO + 0x3C),
    "gpio_matrix_in": _matrix_in,
    "gpio_matrix_out": _matrix_out,
    "gpio_pad_select_gpio": _pad(1 << 12, 7 << 12),
    "gpio_pad_pullup": _pad(_PULL_UP, _PULL_DOWN),
    "gpio_pad_pulldown": _pad(_PULL_DOWN, _PULL_UP),
    "gpio_pad_input_enable": _pad(_INPUT),
    "gpio_pad_input_disable": _pad(0, _INPUT),
    "gpio_pad_set_drv": _pad_drive,
}


# --- interrupts -----------------------------------------------------------------------------------------------


def _unmask(c: Caller) -> int:
    c.set_register(_MATRIX + 0x104, c.register(_MATRIX + 0x104) | c.argument(0))
    return 0


def _mask(c: Caller) -> int:
    c.set_register(_MATRIX + 0x104, c.register(_MATRIX + 0x104) & ~c.argument(0))
    return 0


def _set_type(c: Caller) -> int:
    bit, old = 1 << (c.argument(0) & 31), c.register(_MATRIX + 0x108)
    c.set_register(_MATRIX + 0x108, old | bit if c.argument(1) else old & ~bit)
    return 0


def _at(offset: int, index: int, value: int) -> RomFunction:
    """Write an argument to the register of a table that another one names."""

    def call(c: Caller) -> int:
        c.set_register(_MATRIX + offset + 4 * (c.argument(index) & 63), c.argument(value))
        return 0

    return call


def _set_threshold(c: Caller) -> int:
    c.set_register(_MATRIX + 0x194, c.argument(0))
    return 0


_INTERRUPTS: Mapping[str, RomFunction] = {
    "esprv_intc_int_set_priority": _at(0x114, 0, 1),
    "esprv_intc_int_set_threshold": _set_threshold,
    "esprv_intc_int_enable": _unmask,
    "esprv_intc_int_disable": _mask,
    "esprv_intc_int_set_type": _set_type,
    "intr_matrix_set": _at(0, 1, 2),
    "ets_isr_unmask": _unmask,
    "ets_isr_mask": _mask,
}


# --- efuses -----------------------------------------------------------------------------------------------------


def _bit(word: int, shift: int) -> RomFunction:
    return lambda c: c.register(_BLOCK0_WORDS + 4 * word) >> shift & 1


def _mac(c: Caller) -> int:
    """`int ets_efuse_get_mac(uint8_t mac[6])`"""
    low, high = c.register(_RTC + 0x844), c.register(_RTC + 0x848)
    c.store(c.argument(0), (high << 32 | low).to_bytes(8, "big")[2:])
    return 0


_EFUSES: Mapping[str, RomFunction] = {
    "ets_efuse_get_mac": _mac,
    "ets_efuse_get_wp_pad": lambda _c: 0x3F,  # none
    "ets_efuse_usb_module_disabled": lambda _c: 1,  # measured, with nothing burnt
    "ets_efuse_secure_boot_enabled": _bit(2, 20),
    "ets_efuse_cache_encryption_enabled": lambda c: (c.register(_BLOCK0_WORDS + 4) >> 18 & 7).bit_count() & 1,
    "ets_efuse_security_download_modes_enabled": _bit(3, 5),
}

_NEEDLESS: Mapping[str, RomFunction] = dict.fromkeys(
    (
        # Nothing of this has happened, is burnt, or has to be waited for; 0 says so.
        *(
            "analog_super_wdt_reset_happened",
            "jtag_cpu_reset_happened",
        ),
        *("rtc_select_apb_bridge", "rtc_unhold_all_pads", "ets_install_lock", "assist_debug_clock_enable"),
        *("assist_debug_record_enable", "clear_super_wdt_reset_flag", "uart_tx_flush", "uart_tx_wait_idle"),
        *("uart_div_modify", "uartAttach", "Uart_Init", "usb_uart_tx_flush", "gpio_pad_hold", "gpio_pad_unhold"),
        *("ets_efuse_read", "ets_efuse_get_spiconfig", "ets_efuse_download_modes_disabled", "ets_efuse_jtag_disabled"),
        *("ets_efuse_usb_print_is_disabled", "ets_efuse_get_uart_print_channel", "ets_set_user_start"),
        *("ets_efuse_usb_device_disabled", "ets_efuse_usb_download_mode_disabled", "ets_efuse_force_send_resume"),
        *("ets_efuse_set_timing", "ets_efuse_get_uart_print_control", "ets_efuse_clear_program_registers"),
    ),
    lambda _c: 0,
)

"""The CPU that executes: unicorn's shared library behind as much of a binding as the machine needs.

The package `unicorn` is what is installed, and its library what is called here. The binding that comes with it is left
alone: its import costs more than the boot of a firmware (the registers of nine other architectures,
`importlib.resources`, `inspect`, thirty prototypes), and each of its callbacks passes three functions. Knows the
library's C interface (`unicorn/include/unicorn/*.h` in the package) at one version; does not know a chip.
Invariant: an exception of a callback ends the emulation and comes out of `emu_start`; a library of another version is
not called.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint, c_uint16, c_uint32, c_uint64, c_void_p
from importlib.util import find_spec
from typing import Any

VERSION = (2, 1, 4)
"""Of the library, whose numbers of registers, hooks and controls are below."""

PC, PRIV, X0 = 190, 191, 1
RA, SP, A0, A1 = X0 + 1, X0 + 2, X0 + 10, X0 + 11
MSTATUS, MTVEC, MEPC, MCAUSE, MTVAL = 116, 121, 128, 129, 130
"""Registers."""

HOOK_INTR, HOOK_CODE, HOOK_BAD_ACCESS, HOOK_NEW_BLOCK = 1, 4, 0x3F0, 0x8000
"""`HOOK_BAD_ACCESS`: no memory there, or not for this. `HOOK_NEW_BLOCK`: a block was translated and comes next."""

READ_UNMAPPED, WRITE_UNMAPPED, FETCH_UNMAPPED = 19, 20, 21
WRITE_PROTECTED, READ_PROTECTED, FETCH_PROTECTED = 22, 23, 24
"""Kinds of a bad access."""

_RISCV, _RV32 = 8, 4
_REMOVE_CODE, _FORGET_CODE, _CODE_BUFFER = 9, 10, 13
_WRITE = 1
_SCRATCH = 1 << 12

_NAMES = {"cygwin": "cygunicorn.dll", "darwin": "libunicorn.2.dylib", "win32": "unicorn.dll"}
_OTHERS = "libunicorn.so.2"


class CpuError(Exception):
    """The library refused."""


class _Block(ctypes.Structure):
    """`uc_tb`: a translated block."""

    _fields_ = (("pc", c_uint64), ("count", c_uint16), ("size", c_uint16))


_CALLBACKS: dict[int, Any] = {
    HOOK_INTR: ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p),
    HOOK_CODE: ctypes.CFUNCTYPE(None, c_void_p, c_uint64, c_uint32, c_void_p),
    HOOK_BAD_ACCESS: ctypes.CFUNCTYPE(c_bool, c_void_p, c_int, c_uint64, c_int, c_int64, c_void_p),
    HOOK_NEW_BLOCK: ctypes.CFUNCTYPE(None, c_void_p, ctypes.POINTER(_Block), c_void_p, c_void_p),
}
_ON_READ = ctypes.CFUNCTYPE(c_uint64, c_void_p, c_uint64, c_uint, c_void_p)
_ON_WRITE = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, c_uint, c_uint64, c_void_p)

_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "uc_version": (c_void_p, c_void_p),
    "uc_open": (c_uint, c_uint, c_void_p),
    "uc_close": (c_void_p,),
    "uc_emu_start": (c_void_p, c_uint64, c_uint64, c_uint64, c_size_t),
    "uc_emu_stop": (c_void_p,),
    "uc_reg_read": (c_void_p, c_int, c_void_p),
    "uc_reg_write": (c_void_p, c_int, c_void_p),
    "uc_mem_read": (c_void_p, c_uint64, c_void_p, c_uint64),
    "uc_mem_write": (c_void_p, c_uint64, c_char_p, c_uint64),
    "uc_mem_map": (c_void_p, c_uint64, c_uint64, c_uint32),
    "uc_mem_map_ptr": (c_void_p, c_uint64, c_uint64, c_uint32, c_void_p),
    "uc_mem_unmap": (c_void_p, c_uint64, c_uint64),
    "uc_mmio_map": (c_void_p, c_uint64, c_uint64, c_void_p, c_void_p, c_void_p, c_void_p),
    "uc_hook_add": (c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_uint64, c_uint64),
    "uc_hook_del": (c_void_p, c_size_t),
    "uc_ctl": (c_void_p, c_int32),
}


def _opened(path: str) -> ctypes.CDLL:
    """ctypes has each of the library's eight thousand calls looked up at once; C's own `dlopen` leaves it to the first
    use. Raises OSError."""
    if os.name == "posix":
        dlopen = getattr(ctypes.CDLL(None), "dlopen", None)
        if dlopen is not None:
            dlopen.argtypes, dlopen.restype = (c_char_p, c_int), c_void_p
            handle = dlopen(os.fsencode(path), os.RTLD_LAZY)
            if handle:
                return ctypes.CDLL(path, handle=handle)
    return ctypes.CDLL(path)  # which says why it cannot be


def _load() -> ctypes.CDLL:
    """The library of the installed package, or one that the system has. Raises ImportError."""
    name = _NAMES.get(sys.platform, _OTHERS)
    try:
        found = find_spec("unicorn")
    except ValueError:  # somebody put it among the modules without a specification
        found = None
    if found is None:
        raise ModuleNotFoundError("No module named 'unicorn'", name="unicorn")
    places = [os.environ.get("LIBUNICORN_PATH", ""), *(f"{at}/lib" for at in found.submodule_search_locations or ())]
    # A name alone, in the end: the system's loader looks for it.
    paths = [path for at in places if at and os.path.exists(path := f"{at}/{name}")]  # noqa: PTH110
    try:
        library = _opened(paths[0] if paths else name)
        for function, arguments in _PROTOTYPES.items():
            getattr(library, function).argtypes = arguments
    except (OSError, AttributeError) as error:
        raise ImportError(f"unicorn: {error}", name="unicorn") from error
    packed = library.uc_version(None, None) & 0xFFFFFFFF
    version = (packed >> 24, packed >> 16 & 0xFF, packed >> 8 & 0xFF)
    if version != VERSION:
        have, need = (".".join(map(str, each)) for each in (version, VERSION))
        raise ImportError(f"unicorn {have} is installed, and this board needs {need}", name=f"unicorn {need}")
    return library


_LIBRARY = _load()


class Rv32Cpu:
    """One RV32 core with no memory. `code_buffer`: bytes for translated code."""

    def __init__(self, code_buffer: int) -> None:
        self._handle = c_void_p()
        self._kept: dict[int, Any] = {}  # callbacks, which the library does not keep
        self._raised: BaseException | None = None
        self._close = _LIBRARY.uc_close
        self._word = c_uint64()
        self._word_at = ctypes.byref(self._word)
        self._scratch = bytearray(_SCRATCH)
        self._scratch_at = (ctypes.c_char * _SCRATCH).from_buffer(self._scratch)
        self._read, self._write = _LIBRARY.uc_reg_read, _LIBRARY.uc_reg_write
        _check(_LIBRARY.uc_open(_RISCV, _RV32, ctypes.byref(self._handle)))
        self._control(_CODE_BUFFER, c_uint32(code_buffer))

    def __del__(self) -> None:
        if self._handle:
            self._close(self._handle)
            self._handle = c_void_p()

    # --- execution --------------------------------------------------------------------------------

    def emu_start(self, begin: int, until: int, count: int) -> None:
        """Execute up to `count` instructions. Raises CpuError, and what a callback raised."""
        self._raised = None
        status = _LIBRARY.uc_emu_start(self._handle, begin, until, 0, count)
        if self._raised is not None:
            raise self._raised
        _check(status)

    def emu_stop(self) -> None:
        """From a callback: end the execution."""
        _check(_LIBRARY.uc_emu_stop(self._handle))

    def forget_code(self) -> None:
        """Translate again what is executed next."""
        self._control(_FORGET_CODE)

    def remove_code(self, begin: int, end: int) -> None:
        """Translate again what lies there."""
        self._control(_REMOVE_CODE, c_uint64(begin), c_uint64(end))

    def _control(self, what: int, *arguments: Any) -> None:
        _check(_LIBRARY.uc_ctl(self._handle, what | len(arguments) << 26 | _WRITE << 30, *arguments))

    # --- registers and memory ---------------------------------------------------------------------

    def reg_read(self, number: int) -> int:
        """The register's value."""
        _check(self._read(self._handle, number, self._word_at))
        value: int = self._word.value
        return value

    def reg_write(self, number: int, value: int) -> None:
        """Set the register."""
        self._word.value = value & 0xFFFFFFFF  # reading writes these bytes alone
        _check(self._write(self._handle, number, self._word_at))

    def mem_read(self, address: int, size: int) -> bytes:
        """Memory as the CPU sees it. Raises CpuError where there is none."""
        if size > _SCRATCH:
            data = ctypes.create_string_buffer(size)
            _check(_LIBRARY.uc_mem_read(self._handle, address, data, size))
            return data.raw
        _check(_LIBRARY.uc_mem_read(self._handle, address, self._scratch_at, size))
        return bytes(self._scratch[:size])

    def mem_write(self, address: int, data: bytes) -> None:
        """Set memory. Raises CpuError where there is none."""
        _check(_LIBRARY.uc_mem_write(self._handle, address, bytes(data), len(data)))

    def mem_map(self, address: int, size: int, perms: int = 7) -> None:
        """Memory of the library's own, all zero."""
        _check(_LIBRARY.uc_mem_map(self._handle, address, size, perms))

    def mem_map_ptr(self, address: int, size: int, perms: int, ptr: int) -> None:
        """Memory of this process, which must stay as long as it is mapped."""
        _check(_LIBRARY.uc_mem_map_ptr(self._handle, address, size, perms, ptr))

    def mem_unmap(self, address: int, size: int) -> None:
        """No memory there any more."""
        _check(_LIBRARY.uc_mem_unmap(self._handle, address, size))

    # --- callbacks --------------------------------------------------------------------------------

    def mmio_map(
        self, address: int, size: int, on_read: Callable[[int, int], int], on_write: Callable[[int, int], None]
    ) -> None:
        """Registers instead of memory: `on_read(offset, size)` and `on_write(offset, value)`."""

        def read(_handle: int, offset: int, size: int, _data: int) -> int:
            try:
                return on_read(offset, size)
            except BaseException as error:
                self._stop_for(error)
                return 0

        def write(_handle: int, offset: int, _size: int, value: int, _data: int) -> None:
            try:
                on_write(offset, value)
            except BaseException as error:
                self._stop_for(error)

        both = self._kept[-address] = _ON_READ(read), _ON_WRITE(write)
        _check(_LIBRARY.uc_mmio_map(self._handle, address, size, both[0], None, both[1], None))

    def on_interrupt(self, callback: Callable[[int], None]) -> int:
        """`callback(number)` when an instruction raises an exception."""
        return self._hook(HOOK_INTR, lambda _handle, number, _data: self._guarded(callback, number))

    def on_code(self, callback: Callable[[int], None], begin: int, end: int) -> int:
        """`callback(address)` before each instruction from `begin` to `end`, both included."""
        return self._hook(HOOK_CODE, lambda _handle, at, _size, _data: self._guarded(callback, at), begin, end)

    def on_bad_access(self, callback: Callable[[int, int], bool]) -> int:
        """`callback(kind, address)`; True when the access may be tried again."""

        def called(_handle: int, kind: int, address: int, _size: int, _value: int, _data: int) -> bool:
            return bool(self._guarded(callback, kind, address))

        return self._hook(HOOK_BAD_ACCESS, called)

    def on_new_block(self, callback: Callable[[int, int], None]) -> int:
        """`callback(address, size)` when a block was translated and comes next."""

        def called(_handle: int, block: Any, _before: int, _data: int) -> None:
            found = block.contents
            self._guarded(callback, found.pc, found.size)

        return self._hook(HOOK_NEW_BLOCK, called)

    def hook_del(self, hook: int) -> None:
        """No more calls of it. Not from within a callback."""
        _check(_LIBRARY.uc_hook_del(self._handle, hook))
        del self._kept[hook]

    def _hook(self, kind: int, called: Callable[..., Any], begin: int = 1, end: int = 0) -> int:
        hook, function = c_size_t(), _CALLBACKS[kind](called)
        _check(_LIBRARY.uc_hook_add(self._handle, ctypes.byref(hook), kind, function, None, begin, end))
        self._kept[hook.value] = function
        return hook.value

    def _guarded(self, callback: Callable[..., Any], *arguments: int) -> Any:
        try:
            return callback(*arguments)
        except BaseException as error:
            self._stop_for(error)
            return False

    def _stop_for(self, error: BaseException) -> None:
        """ctypes would print it and go on."""
        if self._raised is None:
            self._raised = error
        self.emu_stop()


def _check(status: int) -> None:
    if status:
        raise CpuError(f"unicorn: error {status}")

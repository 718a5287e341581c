"""The failure map: for each category whose fault it is, whether a repeat can help, and the next thing to do.

One table serves the code, the report and docs/failure-map.md. Does not know how a failure was detected, how it is
shown, or the map's file. Invariant: every `FailureCategory` has exactly one row, and a failure is retryable exactly
when its user action changes neither code, configuration, machine set-up nor the choice of a board.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from cache.named_tuple import NamedTuple
from pipeline.model import Failure, FailureCategory, Stage
from pipeline.text import visible


class UserAction(StrEnum):
    """What a person (or a program for them) does next; closed."""

    RETRY = "retry"
    REPLUG = "replug"
    CLOSE_HOLDER = "close_holder"
    FIX_CONFIG = "fix_config"
    FIX_CODE = "fix_code"
    INSTALL_TOOL = "install_tool"
    PICK_DEVICE = "pick_device"
    FREE_SPACE = "free_space"
    PRESS_BOOT = "press_boot"
    GRANT_PERMISSION = "grant_permission"
    REPORT_BUG = "report_bug"
    NONE = "none"


RETRYABLE_ACTIONS = frozenset(
    {
        UserAction.RETRY,
        UserAction.REPLUG,
        UserAction.CLOSE_HOLDER,
        UserAction.FREE_SPACE,
        UserAction.PRESS_BOOT,
        UserAction.NONE,
    }
)
"""Actions after which the same command, unchanged, can succeed. `NONE`: nothing stands in the way any more."""


class FailureClass(NamedTuple):
    """One row. `stages` are those that can end with it (empty: before the first stage); `hint` is what `fail` takes
    when the caller knows nothing better, one line that starts with a verb."""

    stages: tuple[Stage, ...]
    user_action: UserAction
    meaning: str
    hint: str

    @property
    def retryable(self) -> bool:
        return self.user_action in RETRYABLE_ACTIONS


_HOST = (Stage.FINGERPRINT, Stage.COMPILE, Stage.LINK)
_OPEN = (Stage.VERIFY_FLASH, Stage.REFLASH, Stage.REATTACH)
_DEVICE = (*_OPEN, Stage.TTFB)
_C = FailureCategory
_A = UserAction

FAILURE_MAP: Mapping[FailureCategory, FailureClass] = MappingProxyType(
    {
        _C.CONFIG_ERROR: FailureClass(
            (),
            _A.FIX_CONFIG,
            "deploy.toml, the partition table or an option is missing, malformed or contradicts itself",
            "correct the named place; nothing was touched",
        ),
        _C.TOOLCHAIN_MISSING: FailureClass(
            _HOST,
            _A.INSTALL_TOOL,
            "a compiler, linker or image tool that the project needs cannot be run on this machine",
            "install the named tool, or choose another toolchain in deploy.toml",
        ),
        _C.COMPILE_ERROR: FailureClass(
            (Stage.COMPILE,),
            _A.FIX_CODE,
            "the compiler refused a source file; the board was not touched",
            "fix the first error above and save",
        ),
        _C.LINK_ERROR: FailureClass(
            (Stage.LINK,),
            _A.FIX_CODE,
            "the linker refused the objects (undefined symbol, section overflow), or boot ROM or bootloader "
            "would refuse the image; the board was not touched",
            "define or declare the named symbol, or give its section more room",
        ),
        _C.IMAGE_TOO_LARGE: FailureClass(
            (Stage.LINK,),
            _A.FIX_CODE,
            "an image does not fit the room at its offset, two images overlap, or the program takes more than `[size]` "
            "allows; no port was opened",
            "make the image smaller, or its partition or the limit larger",
        ),
        _C.ACTION_FAILED: FailureClass(
            (Stage.COMPILE, Stage.LINK),
            _A.FIX_CODE,
            "an action other than compiling and linking failed, or did not make what it declares",
            "run the command shown above by hand, and fix what it reports",
        ),
        _C.CACHE_ERROR: FailureClass(
            (*_HOST, Stage.VERIFY_FLASH, Stage.REFLASH),
            _A.FREE_SPACE,
            "the cache or the state directory cannot be written (disk full, read-only, not ours)",
            "free disk space or make the directory writable; deleting it is safe and costs only work",
        ),
        _C.LOCK_TIMEOUT: FailureClass(
            (Stage.FINGERPRINT,),
            _A.RETRY,
            "another run holds this project's lock",
            "wait until the named process has ended, then run again",
        ),
        _C.PORT_MISSING: FailureClass(
            _DEVICE,
            _A.REPLUG,
            "the serial port does not exist, or vanished while in use",
            "plug the board in (a data cable, not a charging cable), then run again",
        ),
        _C.PORT_BUSY: FailureClass(
            _OPEN,
            _A.CLOSE_HOLDER,
            "another process has the serial port open",
            "close the program that holds the port, then run again",
        ),
        _C.PORT_PERMISSION: FailureClass(
            _OPEN,
            _A.GRANT_PERMISSION,
            "this user may not open the serial port",
            'join the group that owns the port (on Debian: sudo usermod -aG dialout "$USER"), then log in again',
        ),
        _C.PORT_AMBIGUOUS: FailureClass(
            _OPEN,
            _A.PICK_DEVICE,
            "several ports could be the board, and nothing says which",
            "set `port` or `mac` of the device in deploy.toml to one of the candidates",
        ),
        _C.WRONG_DEVICE: FailureClass(
            (Stage.VERIFY_FLASH, Stage.REFLASH),
            _A.PICK_DEVICE,
            "the board is not the one configured (chip, MAC, flash size), or the image is for another chip; "
            "nothing was written",
            "connect the configured board, or change `chip`, `mac` or `port` of the device in deploy.toml",
        ),
        _C.PROTECTED_DEVICE: FailureClass(
            (Stage.VERIFY_FLASH, Stage.REFLASH),
            _A.PICK_DEVICE,
            "the board has flash encryption or secure boot enabled, which is not supported; nothing was written",
            "use a board without flash encryption and secure boot",
        ),
        _C.SYNC_FAILED: FailureClass(
            _DEVICE,
            _A.PRESS_BOOT,
            "the port opened but the ROM loader did not answer, whatever was tried, or the chip stayed in it",
            "hold BOOT, press and release EN (reset), then run again",
        ),
        _C.WRITE_FAILED: FailureClass(
            (Stage.REFLASH,),
            _A.RETRY,
            "the loader stopped answering or refused a block while flash was written",
            "run again: finished regions are kept and the rest is resumed; check cable and power if it repeats",
        ),
        _C.VERIFY_MISMATCH: FailureClass(
            (Stage.VERIFY_FLASH, Stage.REFLASH),
            _A.RETRY,
            "flash does not hold what was written to it, or what was kept beside that",
            "run again; if the same region differs again, suspect the flash chip or its supply",
        ),
        _C.BOOT_LOOP: FailureClass(
            (Stage.REATTACH, Stage.TTFB),
            _A.FIX_CODE,
            "the chip resets again and again before the firmware is ready",
            "read the reset reasons in the boot log; bootloader, watchdog and power come first",
        ),
        _C.PANIC: FailureClass(
            (Stage.TTFB,),
            _A.FIX_CODE,
            "the firmware crashed while booting",
            "read the backtrace below the boot log: its first calls are where to look",
        ),
        _C.NO_OUTPUT: FailureClass(
            (Stage.REATTACH, Stage.TTFB),
            _A.FIX_CODE,
            "the chip was reset and sent nothing at all",
            "check that the firmware prints to this port, at the device's `monitor_baud`",
        ),
        _C.WRONG_IMAGE: FailureClass(
            (Stage.TTFB,),
            _A.FIX_CODE,
            "the device runs, but reports another app_elf_sha256 than this build's",
            "find out which slot booted (a roll-back?) and whether the firmware reports its own app descriptor",
        ),
        _C.RPC_TIMEOUT: FailureClass(
            (Stage.TTFB,),
            _A.FIX_CODE,
            "the firmware prints, but no valid JSON-RPC message came in time",
            "compare the boot log with `readiness.until`, or raise `readiness.timeout_ms`",
        ),
        _C.UNHEALTHY: FailureClass(
            (Stage.TTFB,),
            _A.FIX_CODE,
            "the firmware answers, and says that it is not healthy",
            "read the state that it reported, and fix the named part",
        ),
        _C.TEST_FAILED: FailureClass(
            (),
            _A.FIX_CODE,
            "a live test or a unit test of the firmware found something else than it says",
            "read what came instead, then fix the firmware, or the test",
        ),
        _C.OVER_BUDGET: FailureClass(
            tuple(Stage),
            _A.RETRY,
            "the run did all that was asked, but took longer than `[budget] total`, which deploy.toml enforces",
            "run again if this one had a cold start to pay; otherwise start with the bottleneck that the report names",
        ),
        _C.INTERRUPTED: FailureClass(
            tuple(Stage),
            _A.NONE,
            "the run was stopped (Ctrl-C, SIGTERM, or killed)",
            "run again when you like: the next run finishes or heals what this one began",
        ),
        _C.UNKNOWN: FailureClass(
            tuple(Stage),
            _A.REPORT_BUG,
            "a failure that this map does not know: a defect of Hotplate, and counted as one",
            "report it with the run's report and event log",
        ),
    }
)


def fail(
    category: FailureCategory,
    *,
    stage: Stage | None,
    where: str,
    message: str,
    hint: str | None = None,
    detail: str = "",
) -> Failure:
    """The only way to build a `Failure`: `retryable` and `user_action` come from the map, the hint too unless a
    better one is given. `where` and `message` together read `<where>: error: <message>`; what a device, a file name or
    a value of deploy.toml brings into them is made visible here, for every place that shows them."""
    row = FAILURE_MAP[category]
    return Failure(
        category=category,
        stage=stage,
        where=visible(where),
        message=visible(message),
        hint=row.hint if hint is None else visible(hint),
        retryable=row.retryable,
        user_action=row.user_action.value,
        detail=detail,
    )


def failure_map_markdown() -> str:
    """The map as a Markdown table, in the order of the categories; docs/failure-map.md is generated from it."""
    lines = [
        "| category | means | stages | retry helps | user action | hint |",
        "|---|---|---|---|---|---|",
    ]
    for category in FailureCategory:
        row = FAILURE_MAP[category]
        if not row.stages:
            stages = "before the first" if category is FailureCategory.CONFIG_ERROR else "after the last"
        elif row.stages == tuple(Stage):
            stages = "any"
        else:
            stages = " ".join(stage.value for stage in row.stages)
        retry = "yes" if row.retryable else "no"
        cells = (f"`{category.value}`", row.meaning, stages, retry, f"`{row.user_action.value}`", row.hint)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"

"""The turn of each board, where several have theirs at once: its begin, its end, and the way back when it fails.

What a lane does beside its stages. Does not run stages and does not know workers. Invariants: a board that is done with
is free (port and lease) and has its report, whatever others still do; two devices of a run never use one port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import events
from pipeline.effects.clock import BoardClocks
from pipeline.errors import DeployError
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory, Stage
from pipeline.run.handed_on import HandedOn
from pipeline.run.screen import LaneScreen, Screen
from pipeline.run.transactions import Rendered, Transactions
from pipeline.run.variants import Variants

if TYPE_CHECKING:
    from pipeline.run.fleet import Fleet

INTERRUPTED_S = 10.0
"""How long boards that have their turn are waited for when a run is interrupted: what they wait for has deadlines."""


class BoardTurns:
    """Of one run. `roll_back`: put the images before back on boards that do not become ready."""

    def __init__(
        self,
        variants: Variants,
        handed_on: HandedOn,
        transactions: Transactions,
        screen: Screen,
        clocks: BoardClocks,
        *,
        roll_back: bool,
    ) -> None:
        self._variants = variants
        self._handed_on = handed_on
        self._transactions = transactions
        self._screen = screen
        self._clocks = clocks
        self._rolls_back = roll_back
        self._since_s: float | None = None
        """When the first board had its turn."""
        self._on_port: dict[str, str] = {}
        """Board, by its port -> the device of this run that has it."""
        self._fleet: Fleet | None = None
        self.rolled_back: list[Rendered] = []
        """Reports of the transactions that put images back."""

    def of(self, fleet: Fleet) -> None:
        """These are the turns of this fleet."""
        self._fleet = fleet

    def screen_of(self, device: str) -> LaneScreen:
        """What the stages of one board see; they end when the fleet is interrupted."""
        return LaneScreen(self._screen, device, self._check)

    def _check(self) -> None:
        if self._fleet is not None:
            self._fleet.check()

    def begin(self, device: str) -> bool:
        """A worker has taken this device; may it be deployed to?"""
        now_s = self._clocks.run.now_s()
        self._since_s = now_s if self._since_s is None else self._since_s
        self._transactions.waited(device, now_s - self._since_s)
        waited_s = self._transactions.waited_s(device)
        if waited_s > 0:
            self._transactions.say(events.Waited(waited_s), device)
        self._clocks.begin(device)
        broken = self._variants.of(device).build in self._variants.broken
        twin = None if broken else self._twin_of(device)
        if twin is not None:
            self._screen.failure(twin)
            self._transactions.failed(twin, device)
        if broken or twin is not None:
            self._transactions.finish_one(device)
        return not broken and twin is None

    def _twin_of(self, device: str) -> Failure | None:
        """Why not, where another device of this run is on the same port."""
        from pipeline.device.leases import board_name

        config = self._variants.device(device)
        root = self._variants.every[0].build.project.root
        owner = self._on_port.setdefault(board_name(config, root), device)
        if owner == device:
            return None
        message = f"the port is that of device '{owner}' in this run too"
        hint = f"correct the `port` of '{device}' or '{owner}'"
        category = FailureCategory.WRONG_DEVICE
        return fail(category, stage=Stage.VERIFY_FLASH, where=config.where, message=message, hint=hint)

    def end(self, device: str, *, stopped_by: str | None) -> bool:
        """All that was to be done with it is done; did it go well? `stopped_by`: the device that stopped this one."""
        if stopped_by is not None:
            self._transactions.stopped(device, stopped_by)
        failure = self._transactions.failure_of(device)
        if failure is not None and failure.stage is Stage.TTFB and self._rolls_back:
            self._roll_back(device)
        self._let_go(device)
        outcome = self._handed_on.outcome(device)
        if outcome is not None:
            self._transactions.confirmed(outcome, device)
        self._transactions.finish_one(device)
        self._screen.on_lane_over(device)
        return failure is None

    def failure(self, device: str) -> Failure | None:
        """Why it cannot go on."""
        return self._transactions.failure_of(device)

    def finish(self, fleet: Fleet, *, interrupted: bool) -> None:
        """Let those under way come to their end; after Ctrl-C as soon as they can be stopped."""
        if interrupted:
            fleet.interrupt()
        fleet.join(INTERRUPTED_S if interrupted else None)
        self._clocks.end()

    def _let_go(self, device: str) -> None:
        """One that cannot be closed cleanly costs nobody else anything."""
        try:
            self._variants.of(device).boards.done_with(self._variants.device(device))
        except (DeployError, OSError) as error:
            self._screen.notice(f"note: {device}: the port could not be closed cleanly: {error}")

    # --- the way back ---------------------------------------------------------------------------

    def _roll_back(self, device: str) -> None:
        """Put the images before back, and say in the report of this deploy what became of that."""
        from pipeline.run.rollback import FormerBuild, Place, roll_back

        before = self._handed_on.before(device)
        if before is None or not self._handed_on.wrote(device):
            before = "this run wrote nothing to the board"
        if isinstance(before, str):
            self._transactions.say(events.RolledBack("", None, f"nothing was put back: {before}"), device)
            return
        it = self._variants.of(device)
        former = FormerBuild(it.build, before)
        where = Place(it.boards, it.records.owners, self.screen_of(device), self._clocks, self._transactions)
        self._screen.stage(f"rollback:{device}")
        said, rendered = roll_back(self._variants.device(device), former, where)
        self._transactions.say(said, device)
        if rendered is not None:
            self.rolled_back.append(rendered)

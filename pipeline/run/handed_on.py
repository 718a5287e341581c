"""Where the stages of a run left each board, and what that proves.

Values of `stages/handover.py` by device. Does not run stages and does not talk to boards. Invariant: what is said of a
board is what its last stage ended with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model import DeployOutcome

if TYPE_CHECKING:
    from pipeline.run.board_before import BoardBefore
    from pipeline.stages.handover import Board


class HandedOn:
    """Of all devices of one run; several threads may use it, for different devices."""

    def __init__(self) -> None:
        self._boards: dict[str, Board] = {}
        self._before: dict[str, BoardBefore | str] = {}

    @property
    def devices(self) -> list[str]:
        return list(self._boards)

    def get(self, device: str) -> Board | None:
        """Where its last stage left the board."""
        return self._boards.get(device)

    def keep(self, device: str, board: Board) -> None:
        """A stage left it there."""
        self._boards[device] = board

    def keep_before(self, device: str, before: BoardBefore | str) -> None:
        """What its board held before this run wrote anything, or why that cannot be put back."""
        self._before.setdefault(device, before)

    def before(self, device: str) -> BoardBefore | str | None:
        return self._before.get(device)

    def nothing_to_write(self, device: str, region: str = "") -> bool:
        """Has this run's verify-flash proven it? False before it ran."""
        board = self._boards.get(device)
        return board is not None and board.proof.nothing_to_write(region)

    def wrote(self, device: str) -> bool:
        """Did this run write anything to it?"""
        board = self._boards.get(device)
        return board is not None and bool(board.proof.written)

    def outcome(self, device: str) -> DeployOutcome | None:
        """What was done and proven; None: something is still to be written, or nobody was asked."""
        board = self._boards.get(device)
        return None if board is None else board.proof.outcome

    def confirmed(self, device: str) -> DeployOutcome | None:
        """The same, if the board also became ready."""
        from pipeline.stages.handover import Confirmed

        return self.outcome(device) if isinstance(self._boards.get(device), Confirmed) else None

"""Whose bytes a port's are, the console's or the loader's, and when that changes.

Pure. Does not know ports or lines. Invariant: a change that was asked for is done once, at the end of the next reset.
"""

from __future__ import annotations

from pipeline.client.protocol import Channel


class ChannelSwitch:
    """Whose bytes come. Asked for in advance, armed when RTS is asserted, done before RTS is released again."""

    def __init__(self) -> None:
        self.current = Channel.CONSOLE
        self._asked: Channel | None = None
        self.armed: Channel | None = None

    def ask(self, channel: Channel) -> None:
        """From the next reset on."""
        self._asked = channel

    def asserted(self) -> bool:
        """RTS is asserted, or again. Is there something to do?"""
        if self._asked is not None:
            self.armed, self._asked = self._asked, None
        return self.armed is not None

    def switch(self) -> None:
        """The chip was silent, and speaks now."""
        if self.armed is not None:
            self.current, self.armed = self.armed, None

    @property
    def loading(self) -> bool:
        """Is the chip in its loader, or on the way there?"""
        said = self._asked or self.armed or self.current
        return said is Channel.LOADER or self.current is Channel.LOADER

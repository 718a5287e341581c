"""Which stage of which device: what a run is asked to do, as a value."""

from __future__ import annotations

from cache.named_tuple import NamedTuple
from pipeline.model import Stage


class StageOf(NamedTuple):
    """A stage, of one device where it is one of devices, of one region where that is named."""

    stage: Stage
    device: str = ""
    region: str = ""

    @property
    def task(self) -> str:
        """The name of its task."""
        return ":".join(filter(None, (str(self.stage), self.device, self.region)))

"""The images of a build as they will lie in flash: bytes, digests, and whether they can be flashed at all.

Reads the files that stage link made; writes nothing and knows no board. Invariant: what is hashed is what is written,
padding included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.digest import digest_bytes
from cache.named_tuple import NamedTuple
from pipeline.errors import ToolError
from pipeline.failures import fail
from pipeline.flash import board_checks
from pipeline.formats.esp_image import check_chip, check_fits, describe_image, room_warnings
from pipeline.formats.placement import APPLICATION, Placement
from pipeline.model import Failure, FailureCategory, Image, Reason, Stage


class CheckedImages(NamedTuple):
    """Outcome of `ImageSet.check`: the first thing that forbids flashing, and what is worth a warning."""

    failure: Failure | None
    warnings: tuple[Reason, ...] = ()


class ImageSet:
    """`files`: name of a placement -> path below `root`. `asked`: what the running firmware must answer with the
    application's identity, `""` if nothing. Reads each file once until `forget`."""

    def __init__(
        self, root: Path, files: Mapping[str, str], placements: Sequence[Placement], chip: str, asked: str = ""
    ) -> None:
        self._root = root
        self._files = files
        self._placements = placements
        self._chip = chip
        self._asked = asked
        self._images: tuple[Image, ...] | None = None

    def forget(self) -> None:
        """The files are about to be made anew."""
        self._images = None

    def all(self) -> tuple[Image, ...]:
        """The images in flash order. Raises ToolError when one is missing."""
        if self._images is None:
            self._images = tuple(self._image(p, self._files[p.name]) for p in self._placements)
        return self._images

    def _image(self, placement: Placement, path: str) -> Image:
        data = self._read(path)
        return Image(
            name=placement.name,
            partition=placement.partition,
            offset=placement.offset,
            size=len(data),
            limit=placement.limit,
            path=path,
            digest=digest_bytes(data),
            md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
            match=placement.match,
        )

    def data(self, image: Image) -> bytes:
        """The image as written."""
        return self._read(image.path)

    def _read(self, path: str) -> bytes:
        """esptool pads to 4 bytes, so that is what is hashed and compared too."""
        try:
            data = (self._root / path).read_bytes()
        except OSError as error:
            raise ToolError(
                fail(
                    FailureCategory.LINK_ERROR,
                    stage=Stage.LINK,
                    where=path,
                    message=f"the image cannot be read: {error.strerror}",
                    hint="run `doit link`",
                )
            ) from None
        return data + b"\xff" * (-len(data) % 4)

    def check(self) -> CheckedImages:
        """Do the images fit, and are they for the configured chip? No port is opened before this said yes."""
        images = self.all()
        failures = check_fits(images)
        beyond = board_checks.reach_failure(images, self._chip)
        failures += [beyond] if beyond is not None else []
        programs = {placement.name for placement in self._placements if placement.program}
        for image in images:
            wrong = check_chip(self.data(image), self._chip, where=image.path) if image.name in programs else None
            failures += [wrong] if wrong is not None else []
        if self._asked and not self.expected_elf().strip("0"):
            failures.append(self._nameless())
        # A given file is the user's to change; our copy of it is not.
        given = {self._files[placement.name]: placement.source for placement in self._placements if placement.source}
        failures = [failure._replace(where=given.get(failure.where, failure.where)) for failure in failures]
        return CheckedImages(failures[0] if failures else None, tuple(room_warnings(images)))

    def _nameless(self) -> Failure:
        app = next(placement for placement in self._placements if placement.name == APPLICATION)
        fact = f"it names no ELF (app_elf_sha256), so that no answer to '{self._asked}' could prove that it runs"
        hint = 'set readiness.until to "line:<regular expression>" or "byte", or put the ELF\'s SHA-256 into the image'
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=app.source, message=fact, hint=hint)

    def expected_elf(self) -> str:
        """`app_elf_sha256` in the application image: the identity that the running device must report."""
        app = next(image for image in self.all() if image.name == "app")
        info = describe_image(self.data(app))
        return info.app.app_elf_sha256 if not isinstance(info, Reason) and info.app is not None else ""

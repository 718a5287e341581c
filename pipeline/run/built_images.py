"""The images of this build, read from the files that stage link made.

Reads each file once until `forget`; writes nothing. What the bytes mean is `flash/image_set.py`'s to say. Invariant: a
file that cannot be read raises ToolError with its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.durable import read_file
from pipeline.errors import ToolError
from pipeline.failures import fail
from pipeline.flash.image_set import CheckedImages, as_written, check_images, elf_identity, make_image
from pipeline.flash_model import Image, Partition
from pipeline.formats.placement import APPLICATION, Placement
from pipeline.model import FailureCategory, Stage


class BuiltImages:
    """`files`: name of a placement -> path below `root`. `asked`: what the running firmware must answer with the
    application's identity, `""` if nothing. `table`: by which the placements were made."""

    def __init__(
        self,
        root: Path,
        files: Mapping[str, str],
        placements: Sequence[Placement],
        chip: str,
        asked: str = "",
        table: Sequence[Partition] = (),
    ) -> None:
        self._root = root
        self._files = files
        self._placements = placements
        self._chip = chip
        self._asked = asked
        self._table = table
        self._images: tuple[Image, ...] | None = None

    def forget(self) -> None:
        """The files are about to be written again."""
        self._images = None

    def all(self) -> tuple[Image, ...]:
        """The images in flash order. Raises ToolError when one is missing."""
        if self._images is None:
            found = ((each, self._files[each.name]) for each in self._placements)
            self._images = tuple(make_image(each, path, self._read(path)) for each, path in found)
        return self._images

    def data(self, image: Image) -> bytes:
        """The image as written."""
        return self._read(image.path)

    def check(self) -> CheckedImages:
        """Can they be flashed?"""
        images = self.all()
        data = {image.name: self.data(image) for image in images}
        return check_images(images, data, self._placements, self._chip, self._asked, self._table)

    def path_of(self, name: str) -> str:
        """Where the image of this placement lies, from the root; `""` where there is none of the name."""
        return self._files.get(name, "")

    def expected_elf(self) -> str:
        """`app_elf_sha256` in the application image."""
        return elf_identity(self._read(self._files[APPLICATION]))

    def _read(self, path: str) -> bytes:
        try:
            return as_written(read_file(str(self._root / path)))
        except OSError as error:
            message, hint = f"the image cannot be read: {error.strerror}", "run `doit link`"
            failure = fail(FailureCategory.LINK_ERROR, stage=Stage.LINK, where=path, message=message, hint=hint)
            raise ToolError(failure) from None

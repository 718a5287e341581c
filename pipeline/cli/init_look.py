"""What lies in a directory: projects of ESP-IDF, PlatformIO, Arduino, CMake, builds of ninja, finished firmware.

Reads files and runs nothing; what their texts mean, `formats/projects.py` knows. Invariant: looks at the directory and
one level below it, never further, so that it answers at once in a tree of any size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cache.durable import read_text
from pipeline.config.schema import Prebuilt
from pipeline.formats import projects, web_manifest
from pipeline.formats.manifests import Firmware
from pipeline.formats.projects import FoundProject, PlatformioEnv
from pipeline.toolchain.given_builds import holds_several, images_in, read_firmware, web_manifests

MOST_DIRECTORIES = 500
LOOKED_FOR = (
    "platformio.ini",
    "CMakeLists.txt",
    "*.ino",
    "*/build.ninja",
    "flasher_args.json",
    "a merged .bin, .uf2 or .hex",
    "the manifest of esp-web-tools",
)
_FINISHED = ("ninja", "prebuilt")
"""Kinds that may be the build of another project here."""


def recognise(root: Path) -> list[FoundProject]:
    """Everything that was found in `root`, sources first. A finished build beside sources is listed too: `chosen_of`
    knows that it is theirs."""
    envs = projects.platformio_envs(_text(root / "platformio.ini")) or ()
    # PlatformIO lays ESP-IDF's CMakeLists.txt beside its own file where that is the framework.
    cmake = [one for one in _cmake(root) if one.kind != "esp-idf" or not any(env.esp_idf for env in envs)]
    return [*_platformio(root, envs), *cmake, *_arduino(root), *_ninja(root), *_prebuilt(root)]


def chosen_of(found: Sequence[FoundProject], kind: str = "", place: str = "") -> list[FoundProject]:
    """Those that are meant: of this kind and at this place (`""`: any), finished builds only where no sources are."""
    meant = [one for one in found if (not kind or one.kind == kind) and (not place or one.place == place)]
    sources = [one for one in meant if one.kind not in _FINISHED]
    if sources or kind or place:
        return sources or meant
    firmware = [one for one in meant if one.kind == "prebuilt"]
    return firmware or meant


def below(root: Path) -> list[FoundProject]:
    """Projects one level further down, for a hint: their places are relative to `root`."""
    found = []
    for directory in _directories(root):
        name = directory.name
        for one in chosen_of(recognise(directory)):
            found.append(one._replace(place=name if one.place == "." else f"{name}/{one.place}"))
    return found


def _directories(root: Path) -> list[Path]:
    """Those in `root` that are not hidden and whose names a TOML file can hold, in order."""
    try:
        names = sorted(path for path in root.iterdir() if not path.name.startswith(".") and path.name.isprintable())
        return [path for path in names if path.is_dir()][:MOST_DIRECTORIES]
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return read_text(path, errors="replace")
    except OSError:
        return ""


# --- sources ----------------------------------------------------------------------------------


def _platformio(root: Path, envs: Sequence[PlatformioEnv]) -> Iterator[FoundProject]:
    if envs:
        env = envs[0]
        others = tuple(other.name for other in envs[1:])
        because = f"platformio.ini has the environment {env.name}" + (f" among {len(envs)}" if others else "")
        yield FoundProject("platformio", ".", because, root.resolve().name, env.chip, env.name, others)


def _cmake(root: Path) -> Iterator[FoundProject]:
    text = _text(root / "CMakeLists.txt")
    name = projects.cmake_project(text)
    if projects.is_esp_idf(text):
        target = projects.idf_target(_text(root / "sdkconfig"), _text(root / "sdkconfig.defaults"))
        because = "CMakeLists.txt includes ESP-IDF's project.cmake"
        because += f", and the target is {target}" if target else ""
        yield FoundProject("esp-idf", ".", because, name or root.resolve().name, target)
    elif name is not None:
        yield FoundProject("cmake", ".", "CMakeLists.txt declares a project", name or root.resolve().name)


def _arduino(root: Path) -> Iterator[FoundProject]:
    for directory in (root, *_directories(root)):
        sketches = sorted(path for path in directory.glob("*.ino") if path.name.isprintable())
        own = directory.resolve().name
        main = next(
            (path for path in sketches if path.stem == own), sketches[0] if directory == root and sketches else None
        )
        if main is None:
            continue
        board = projects.sketch_board(_text(directory / "sketch.yaml"))
        place = main.relative_to(root).as_posix()
        because = f"{place} is a sketch" + (f" and sketch.yaml names the board {board}" if board else "")
        yield FoundProject("arduino", place, because, main.stem, projects.chip_in(board), board)


# --- finished builds --------------------------------------------------------------------------


def _ninja(root: Path) -> Iterator[FoundProject]:
    for directory in _directories(root):  # `[ninja] directory` is one of its own
        if (directory / "build.ninja").is_file():
            place = directory.relative_to(root).as_posix()
            because = f"{place}/build.ninja is a build of ninja"
            yield FoundProject("ninja", place, because, root.resolve().name)


def _prebuilt(root: Path) -> Iterator[FoundProject]:
    builds = [path.parent for path in sorted(root.glob(".pio/build/*/firmware.bin"))]
    for directory in (root, *_directories(root), *builds[:MOST_DIRECTORIES]):
        place = directory.relative_to(root).as_posix()
        firmware = read_firmware(root, Prebuilt(directory=place))
        if isinstance(firmware, Firmware):
            because = f"{firmware.where} is a build of {_MAKERS[firmware.kind]} for {firmware.chip}"
            yield FoundProject("prebuilt", place, because, root.resolve().name, firmware.chip, "directory")
            continue
        several = list(_web_builds(root, place))
        yield from several or _merged(root, directory)


_MAKERS = {"esp-idf": "ESP-IDF", "platformio": "PlatformIO", "esp-web-tools": "esp-web-tools"}


def _web_builds(root: Path, place: str) -> Iterator[FoundProject]:
    """A manifest with builds for several chips."""
    for name, text in web_manifests(root, place).items():
        chips = [chip for chip in web_manifest.chips(text) if _reads(root, Prebuilt(directory=place, chip=chip))]
        if chips:
            because = f"{_inside(place, name)} has builds for {', '.join(chips)}"
            others = tuple(chips[1:])
            yield FoundProject("prebuilt", place, because, root.resolve().name, chips[0], "directory", others)
            return


def _merged(root: Path, directory: Path) -> Iterator[FoundProject]:
    try:
        images: Iterable[Path] = images_in(directory)
    except OSError:
        images = ()
    for path in filter(lambda path: path.name.isprintable(), images):
        place = path.relative_to(root).as_posix()
        firmware = read_firmware(root, Prebuilt(files={"0x0": place})) if holds_several(path) else None
        if isinstance(firmware, Firmware):
            because = f"{place} holds a whole firmware for {firmware.chip}"
            yield FoundProject("prebuilt", place, because, path.stem, firmware.chip, "file")


def _reads(root: Path, section: Prebuilt) -> bool:
    return isinstance(read_firmware(root, section), Firmware)


def _inside(place: str, name: str) -> str:
    return name if place == "." else f"{place}/{name}"

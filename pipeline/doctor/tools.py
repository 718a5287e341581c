"""The programs that the project's toolchain runs: are they there, do they start, and which versions are they?

Runs `--version` of programs and looks at files. Does not know how a build is decided. Invariant: builds nothing and
writes nothing below the project.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config.cache_url import REAPI
from pipeline.config.schema import DeployConfig
from pipeline.config.values import ESP_IDF, FARM_PORT, PREBUILT
from pipeline.doctor.findings import DoctorFinding, bad, note, of_failure, ok, warning
from pipeline.effects.versions import printed
from pipeline.model import Failure
from pipeline.toolchain import gcc, host
from pipeline.toolchain.ninja_build import configure_command
from pipeline.toolchain.ninja_kept import MANIFEST

IDF_S = 30.0
_PYTHON = ("python", "python3")
"""What actions call the interpreter that runs us."""


def needed_extras(config: DeployConfig) -> list[str]:
    """The extras that a deploy of the default device cannot do without."""
    found = []
    if config.toolchain.kind == "zig" or (config.host.declared and config.host.compiler == "zig"):
        found.append("zig")
    if any(device.is_virtual and device.chip == "esp32c3" for device in config.devices if device.enabled):
        found.append("board")
    if urlsplit(config.cache.remote).scheme in REAPI or urlsplit(config.execution.remote).scheme in REAPI:
        found.append("reapi")
    if any(device.port.startswith(FARM_PORT) for device in config.devices if device.enabled):
        found.append("farm")
    if any(image.format in ("littlefs", "fat", "nvs") for image in config.images):
        found.append("fs")
    return found


def examine_tools(root: Path, config: DeployConfig) -> Iterator[DoctorFinding]:
    """Those of `[toolchain]`, `[prebuilt] build`, `[[action]]` and `[host]`."""
    kind = config.toolchain.kind
    if kind == "gcc":
        yield _gcc()
    elif config.is_ninja:
        yield from _ninja(root, config)
    elif kind == PREBUILT and config.prebuilt.build:
        yield _program(root, "build", config.prebuilt.build[0], "[prebuilt] build")
    if config.toolchain.launcher:
        yield _program(root, "launcher", config.toolchain.launcher[0], "[toolchain] launcher")
    for action in config.actions:
        needed = [name for name in (action.argv[0], *action.tools) if name not in _PYTHON]
        missing = (_program(root, f"action {action.name}", name, "the action") for name in needed)
        yield from (finding for finding in missing if finding.hint)
    if config.host.declared:
        with tempfile.TemporaryDirectory(prefix="hotplate-doctor-") as scratch:
            compiler = host.find_compiler(config.host.compiler, Path(scratch))
        if isinstance(compiler, Failure):
            yield warning("host compiler", compiler.message, compiler.hint)
        else:
            yield ok("host compiler", f"{compiler.tools[0].version} at {compiler.tools[0].path}")


def _gcc() -> DoctorFinding:
    # What it is found to be is remembered where it is told; here nothing is to stay.
    with tempfile.TemporaryDirectory(prefix="hotplate-doctor-") as scratch:
        found = gcc.find(Path(scratch), _search())
    if isinstance(found, Failure):
        return of_failure("compiler", found)
    return ok("compiler", f"{found[0].name} {found[0].version} at {found[0].path}")


def _ninja(root: Path, config: DeployConfig) -> Iterator[DoctorFinding]:
    manifest = f"{config.ninja.directory}/{MANIFEST}"
    configured = (root / manifest).is_file()
    argv = configure_command(config)
    if configured:
        yield ok("build", f"{manifest} is there")
    elif argv:
        yield note("build", f"there is no {manifest} yet; a deploy runs `{' '.join(argv)}` first")
    else:
        hint = "configure the build, or say how by configure = [...] in [ninja]"
        yield bad("build", f"there is no {manifest}, and nothing says what makes it", hint)
    if not argv:
        return
    finding = _program(root, "configure", argv[0], "[ninja] configure")
    if finding.hint and configured:
        fact = f"{finding.fact}; the build is configured, and cannot be configured again"
        finding = warning(finding.area, fact, finding.hint)
    if config.toolchain.kind == ESP_IDF and argv[0] == "idf.py":
        finding = _idf(finding)
    yield finding
    if not configured and argv[0] in ("cmake", "idf.py") and shutil.which("ninja", path=_search()) is None:
        yield bad("ninja", "no program ninja is on PATH, for which CMake configures", "install it: pip install ninja")


def _idf(found: DoctorFinding) -> DoctorFinding:
    """ESP-IDF's own program needs its own environment, and fails where another Python comes first on the path."""
    hint = "run `. $IDF_PATH/export.sh` (export.bat on Windows) in this shell, after activating any other environment"
    if found.hint:
        return found._replace(hint=hint)
    version = printed(["idf.py", "--version"], IDF_S)  # with our environment, which it needs
    if version:
        return ok(found.area, version.splitlines()[-1])
    return bad(found.area, f"`idf.py --version` fails (IDF_PATH is {os.environ.get('IDF_PATH') or 'not set'})", hint)


def _program(root: Path, area: str, name: str, who: str) -> DoctorFinding:
    place = shutil.which(str(root / name) if "/" in name else name, path=_search())
    if place is not None:
        return ok(area, f"{name} at {place}")
    if "/" in name:
        return bad(area, f"{who} needs {name}, which is no program", f"make {name}, and mark it as executable")
    return bad(area, f"{who} needs {name}, which is not on PATH", f"install {name}, or add its directory to PATH")


def _search() -> str:
    return os.environ.get("PATH", os.defpath)

"""SVG to PNG with whatever renderer this machine has. None is required.

Knows the renderers, not what the picture shows. Invariant: PNG bytes, or one sentence that says what is missing.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess

TIMEOUT_S = 60
_PNG = b"\x89PNG\r\n\x1a\n"

_PROGRAMS = (
    ("rsvg-convert", ("--format", "png")),
    ("inkscape", ("--pipe", "--export-type=png", "--export-filename=-")),
)
"""Programs that turn SVG on stdin into PNG on stdout."""


def svg_to_png(svg: bytes) -> bytes | str:
    """The picture as PNG, or why it cannot be made."""
    try:
        png = importlib.import_module("cairosvg").svg2png(bytestring=svg)
    except (ImportError, OSError):  # OSError: the package is here, the cairo library is not
        png = None
    if isinstance(png, bytes):
        return png
    for program, options in _PROGRAMS:
        path = shutil.which(program)
        if path is None:
            continue
        try:
            done = subprocess.run([path, *options], input=svg, capture_output=True, timeout=TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{program} failed: {error}"
        if done.returncode == 0 and done.stdout.startswith(_PNG):
            return done.stdout
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"{program} failed: {words[-1] if words else f'exit code {done.returncode}'}"
    return "no SVG renderer is installed (cairosvg, rsvg-convert, inkscape)"

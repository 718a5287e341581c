"""The views `explain`, `graph` and `plan`: look at this project, then let pure functions say what was seen.

Knows the build, files and the cache; reads them and writes nothing but the file that the user named. Does not know
doit, opens no port and takes no lock. Invariant: each function returns what belongs on stdout, or a Failure.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.actions import ActionCache
from cache.blobs import BlobStore
from cache.digest import ActionKey
from pipeline.cli import plan_view
from pipeline.engine import explain
from pipeline.engine.forecast import Forecast, by_stage, forecast
from pipeline.failures import fail
from pipeline.flash.journal import DeviceState
from pipeline.model import DEVICE_STAGES, Action, Failure, FailureCategory, Stage

if TYPE_CHECKING:
    from pipeline.cli.graph_view import Node
    from pipeline.config.schema import DeviceConfig
    from pipeline.engine.engine import Engine
    from pipeline.run.build import Build

# --- explain ----------------------------------------------------------------------------------


def explain_text(build: Build, words: Sequence[str]) -> str | Failure:
    """`doit explain [TASK...]`: the paragraphs about what the words name, everything without words."""
    engine = build.engine
    forecasts = forecast(engine.workspace)
    names = words or [*(stage.value for stage in (Stage.FINGERPRINT, *explain.host_stages())), DEVICE_STAGES[0].value]
    reads = engine.workspace.readers()
    lines: list[str] = []
    shown: list[Forecast] = []
    for word in names:
        stages = list(Stage) if word.partition(":")[0] == "deploy" else None
        chosen = explain.select(engine.graph, reads, word) if stages is None else ()
        if isinstance(chosen, Stage):
            stages = [chosen]
        if stages is not None:
            for stage in stages:
                lines += _fingerprint_lines(engine) if stage is Stage.FINGERPRINT else ()
                lines += explain.explain_stage(stage, forecasts)
                shown += by_stage(forecasts, stage)
            continue
        actions = {action for action in chosen if isinstance(action, Action)}
        if not actions:
            return _unknown(word, "is no task, action or file", [str(name) for name in chosen])
        for one in forecasts:
            if one.action in actions:
                lines += explain.explain_action(one)
                shown.append(one)
    lines += filter(None, [plan_view.not_asked(shown, build.shared.url)])
    return "\n".join(lines) + "\n"


def _fingerprint_lines(engine: Engine) -> list[str]:
    verdict, total = engine.peek(), len(engine.sources())
    if verdict.up_to_date:
        return [f"fingerprint: up to date ({explain.plural(total, 'input')} as last seen)"]
    moved = [f"  {reason.subject}: {reason.before} -> {reason.after}" for reason in verdict.reasons]
    return [f"fingerprint: {len(moved)} of {explain.plural(total, 'input')} would be read", *moved]


def _unknown(word: str, message: str, near: Sequence[str]) -> Failure:
    hint = f"did you mean {' or '.join(repr(name) for name in near)}?" if near else "name a task, an action or a file"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=word, message=message, hint=hint)


# --- plan -------------------------------------------------------------------------------------


def plan_text(builds: Sequence[Build]) -> str:
    """`doit plan`: what a deploy would do, as far as the host can know; of several builds one after the other."""
    if len(builds) == 1:
        return _plan_of(builds[0])
    return "".join(f"profile {build.project.profile}:\n{_plan_of(build)}" for build in builds)


def _plan_of(build: Build) -> str:
    engine = build.engine
    forecasts = forecast(engine.workspace)
    lines = list(plan_view.host_lines(forecasts))
    lines += filter(None, [plan_view.nothing_to_do(forecasts), plan_view.not_asked(forecasts, build.shared.url)])
    images = [
        (placement, plan_view.image_after(build.toolchain.images[placement.name], forecasts))
        for placement in build.placements
    ]
    for device in build.project.devices:
        lines += plan_view.device_lines(_belief(build, device), images)
    return "\n".join(lines) + "\n"


def _belief(build: Build, device: DeviceConfig) -> plan_view.BoardBelief:
    from pipeline.device.journal_file import DeviceJournal

    mac, source = device.mac, "its MAC is in deploy.toml"
    if not mac:
        mac, source = _last_seen(build, device.name)
    state = DeviceJournal(build.project.state_dir / "devices.v1", mac).state if mac else DeviceState()
    return plan_view.BoardBelief(device.name, device.port, mac, source, state)


def _last_seen(build: Build, name: str) -> tuple[str, str]:
    """(MAC, where it is from) of the board that answered last as device `name`."""
    from pipeline.effects.run_log import SUFFIX, read
    from pipeline.events import DeviceSeen, payload
    from pipeline.model import EventKind

    for path in sorted((build.project.state_dir / "runs").glob(f"tx-*{SUFFIX}"), reverse=True):
        for event in read(path)[0]:
            seen = payload(event) if event.kind is EventKind.DEVICE else None
            if isinstance(seen, DeviceSeen) and seen.name == name:
                return seen.mac, f"the board that answered in {path.stem}"
    return "", ""


# --- graph ------------------------------------------------------------------------------------


def graph_nodes(build: Build, what_if: str) -> list[Node] | Failure:
    """The nodes of the picture; `what_if` is a file whose readers are marked, `""` for none."""
    from pipeline.cli.graph_view import Node

    engine = build.engine
    cache_dir = engine.workspace.directories.cache
    results = ActionCache(cache_dir, BlobStore(cache_dir))
    hit: list[Action] = []
    if what_if:
        reads = engine.workspace.readers()
        path = _inside(build.project.root, what_if)
        matches = [path] if path in reads else sorted(file for file in reads if file.endswith(f"/{path}"))
        if len(matches) != 1:
            near = matches[:3] or difflib.get_close_matches(path, list(reads), 3)
            return _unknown(what_if, "is read by no action" if not matches else "could be several files", near)
        hit = reads[matches[0]]
    nodes = []
    for index, action in enumerate(engine.graph.order):
        record = engine.record(action)
        stored = results.lookup(ActionKey(record.key)) if record is not None else None
        nodes.append(
            Node(
                name=action.name,
                stage=action.stage.value,
                needs=engine.graph.needs[index],
                duration_ms=stored.duration_ms if stored is not None else None,
                hit=action in hit,
            )
        )
    return nodes


def _inside(root: Path, path: str) -> str:
    full = (Path.cwd() / path).resolve()
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else path


FORMATS = ("dot", "mermaid", "svg", "png", "text")
_SUFFIXES = {".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid", ".svg": "svg", ".png": "png"}


def graph_text(build: Build, wanted: str, output: str, what_if: str) -> str | Failure:
    """`doit graph`: the picture as text, or `""` when it was written to `output`."""
    kind = wanted or _SUFFIXES.get(Path(output).suffix, "") or ("text" if what_if and not output else "dot")
    if kind not in FORMATS:
        near = difflib.get_close_matches(kind, FORMATS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(FORMATS)}"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where="--format", message=f"unknown: {kind!r}", hint=hint)
    nodes = graph_nodes(build, what_if)
    if isinstance(nodes, Failure):
        return nodes
    if kind == "png" and not output:
        message = "PNG is not text and is not written to a terminal"
        hint = "name a file with --output graph.png"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where="--format", message=message, hint=hint)
    text = _draw(nodes, kind, what_if)
    if not output:
        return text
    data: bytes | str = text.encode()
    if kind == "png":
        from pipeline.effects.render import svg_to_png

        data = svg_to_png(text.encode())
    if isinstance(data, str):
        hint = "install one (pip install cairosvg), or write SVG with --output graph.svg"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=output, message=data, hint=hint)
    return _write(Path(output), data) or ""


def _draw(nodes: Sequence[Node], kind: str, what_if: str) -> str:
    from pipeline.cli import graph_svg, graph_view

    found = graph_view.analyse(nodes)
    draw = {"dot": graph_view.to_dot, "mermaid": graph_view.to_mermaid, "text": graph_view.to_text}
    return draw.get(kind, graph_svg.to_svg)(nodes, found, what_if)


def _write(path: Path, data: bytes) -> Failure | None:
    from cache.durable import write_atomic

    try:
        write_atomic(path, data, durable=False)
    except OSError as error:
        message = f"cannot be written: {error.strerror}"
        hint = "name a file in a directory that you can write to"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where=str(path), message=message, hint=hint)
    return None

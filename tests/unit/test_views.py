"""The views: forecasts against what the engine then does, the words of explain and plan, the graph in every format.

After a wanted change of a picture: `python -m tests.unit.test_views` writes tests/golden/graph.* anew; look at it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cache.digest import Digest
from pipeline.cli import graph_svg, graph_view
from pipeline.cli.graph_view import Node, analyse
from pipeline.cli.plan_view import BoardBelief, device_lines, host_lines, image_after
from pipeline.effects.render import svg_to_png
from pipeline.engine.decision import Fate
from pipeline.engine.explain import explain_action, explain_stage, select
from pipeline.engine.forecast import Forecast, forecast
from pipeline.flash.journal import DeviceState, JournalImage, OpenTransaction
from pipeline.flash_model import MatchRule
from pipeline.formats.placement import Placement
from pipeline.model import Action, Stage
from tests.unit.engine_space import EngineSpace

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def built(tmp_path: Path) -> EngineSpace:
    space = EngineSpace(tmp_path / "project").sample()
    assert space.build().ok
    return space


def look(space: EngineSpace) -> tuple[Forecast, ...]:
    engine = space.engine()
    return forecast(engine.workspace)


def explained(space: EngineSpace) -> list[str]:
    found = look(space)
    return [line for stage in (Stage.COMPILE, Stage.LINK) for line in explain_stage(stage, found)]


# --- forecast and explain ---------------------------------------------------------------------


def test_nothing_to_do_says_what_was_compared(built: EngineSpace) -> None:
    assert explained(built) == [
        "compile: up to date (3 actions)",
        "  compared: 30 command words, 3 declared inputs, 2 discovered inputs, 4 absent files, 3 outputs",
        "link: up to date (2 actions)",
        "  compared: 7 command words, 4 declared inputs, 2 outputs",
    ]


def test_looking_changes_nothing(built: EngineSpace) -> None:
    built.write("inc/a.h", "int other;\n")
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in built.root.rglob("*")}
    assert explained(built) == explained(built)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in built.root.rglob("*")} == before
    assert built.build().ran == ["ld build/local-fast/app.elf", "src/a.c", "src/b.c"]


def test_a_source_edit_names_old_and_new(built: EngineSpace) -> None:
    built.write("src/c.c", "int edited;\n")
    assert explained(built) == [
        "compile: 1 would run, 2 up to date",
        "  compile src/c.c: would run",
        "    because input src/c.c: 2a04186289e4 -> 8f4dc6e1e4d1",
        "link: 2 may run",
        "  link: may run",
        "    because build/local-fast/obj/c.o is made by 'compile src/c.c', which comes first; "
        "if that gives the same bytes, nothing runs",
        "  image: may run",
        "    because build/local-fast/app.elf is made by 'link', which comes first; "
        "if that gives the same bytes, nothing runs",
    ]


def why(space: EngineSpace, name: str) -> list[str]:
    return [line for one in look(space) if one.action.name == name for line in explain_action(one)]


def test_each_kind_of_reason(built: EngineSpace) -> None:
    name = "compile src/a.c"
    built.write("inc/a.h", "int other;\n")
    assert why(built, name)[1].startswith("  because file that it read inc/a.h: ")
    built.write("inc/a.h", "int h;\n")
    built.write("first/a.h", "int shadow;\n")
    appeared = "absent -> present, and found before the one that was used"
    assert why(built, name)[1] == f"  because file that was not there first/a.h: {appeared}"
    (built.root / "first/a.h").unlink()
    built.flags = ("-DX",)
    assert why(built, name)[1] == "  because argument: -DX is new"
    built.flags, built.identity = (), "fake 2"
    assert why(built, name)[1] == "  because tool cc: fake 1 -> fake 2"
    built.identity = "fake 1"
    assert why(built, name) == [
        f"{name}: up to date",
        "  compared: 10 command words, 1 declared input, 1 discovered input, 2 absent files, 1 output",
    ]
    (built.root / "inc/a.h").unlink()
    assert why(built, name)[1].endswith(" -> gone")
    built.write("src/new.c", "int n;\n")
    assert why(built, "compile src/new.c") == [
        "compile src/new.c: would run",
        "  because it has no record in this project",
    ]


def test_missing_input_cannot_run(built: EngineSpace) -> None:
    actions = built.actions()
    (built.root / "src/c.c").unlink()
    built.actions = lambda: actions  # type: ignore[method-assign]
    assert why(built, "compile src/c.c") == [
        "compile src/c.c: cannot run",
        "  because src/c.c is missing and no action makes it",
    ]
    assert Fate.BLOCKED in {one.fate for one in look(built)}


def test_restores_are_told_from_runs(built: EngineSpace) -> None:
    shutil.rmtree(built.root / "build")
    assert {one.fate for one in look(built)} == {Fate.RESTORE}
    assert why(built, "link")[1].startswith("  because output build/local-fast/app.elf: ")
    assert why(built, "link")[1].endswith(" -> missing")
    again = built.build()
    assert again.ran == [] and again.count("restored") == 5
    (built.root / ".deploy/stamps.v1.state").unlink()
    assert {one.fate for one in look(built)} == {Fate.UP_TO_DATE}
    assert why(built, "link")[1] == "  compared: its outputs with the result that the cache holds for these inputs"


def test_a_restored_object_makes_the_link_certain(built: EngineSpace) -> None:
    built.write("src/c.c", "int two;\n")
    built.build()
    built.write("src/c.c", "int c;\n")
    fates = {one.action.name: one.fate for one in look(built)}
    assert fates["compile src/c.c"] is Fate.RESTORE and fates["link"] is Fate.RESTORE
    assert built.build().ran == []


def with_generator(space: EngineSpace, output: str) -> None:
    """Declare one more action, which makes `output` of gen/seed."""
    actions = space.actions
    words = ("cc", "-o", output, "-MF", f"{output}.d", "gen/seed")
    made = Action("gen", Stage.COMPILE, ("gen/seed",), (output,), words, depfile=f"{output}.d")
    space.actions = lambda: [*actions(), made]  # type: ignore[method-assign]


def test_a_header_that_a_new_action_will_make_is_foreseen(built: EngineSpace) -> None:
    built.write("gen/seed", "int generated;\n")
    built.search = ("build/gen", "inc")
    built.build()
    with_generator(built, "build/gen/a.h")
    fates = {one.action.name: one.fate for one in look(built)}
    assert fates["gen"] is Fate.RUN and fates["compile src/a.c"] is Fate.RUN
    assert fates["compile src/c.c"] is Fate.UP_TO_DATE
    assert {"gen/seed", "src/a.c", "src/b.c"} <= set(built.build().ran)


def test_a_product_that_is_read_through_a_link_is_foreseen(tmp_path: Path) -> None:
    space = EngineSpace(tmp_path / "project").sample()
    space.write("gen/seed", "int generated;\n")
    (space.root / "inc/a.h").unlink()
    (space.root / "inc/a.h").symlink_to("../build/gen/g.h")
    with_generator(space, "build/gen/g.h")
    assert space.build().ok
    space.write("gen/seed", "int edited;\n")
    found = {one.action.name: one for one in look(space)}
    assert found["compile src/a.c"].fate is Fate.UNCERTAIN and found["compile src/c.c"].fate is Fate.UP_TO_DATE
    assert found["compile src/a.c"].waits_for is not None and found["compile src/a.c"].waits_for[1] == "gen"
    assert {"gen/seed", "src/a.c", "src/b.c"} <= set(space.build().ran)


def test_words_select_stages_actions_and_files(built: EngineSpace) -> None:
    engine = built.engine()
    reads = engine.workspace.readers()

    def names(word: str) -> list[str]:
        chosen = select(engine.graph, reads, word)
        return [str(chosen)] if isinstance(chosen, Stage) else [c.name if isinstance(c, Action) else c for c in chosen]

    assert names("compile") == ["compile"]
    assert names("reflash:bench") == ["reflash"]
    assert names("link") == ["link"], "a stage goes before an action of its name"
    assert names("compile src/a.c") == names("src/a.c") == names("a.c") == ["compile src/a.c"]
    assert names("inc/a.h") == ["compile src/a.c", "compile src/b.c"]
    assert names("app.elf") == names("build/local-fast/app.elf") == ["link"]
    assert names("complie") == ["compile"]
    assert names("zzz") == []


def test_device_stages_need_the_board() -> None:
    assert list(explain_stage(Stage.REFLASH, ())) == ["reflash: only the board can tell; `doit verify-flash` asks it"]


# --- plan -------------------------------------------------------------------------------------

APP = Placement("app", "factory", 0x10000, 0x100000)
BOOT = Placement("bootloader", "", 0, 0x8000)
OTA = Placement("otadata", "otadata", 0xE000, 0x2000, MatchRule.OTADATA)
OLD, NEW = Digest("0" * 64, 8), Digest("1" * 64, 8)


def believed(*names: str, **kwargs: object) -> DeviceState:
    offsets = {"app": 0x10000, "bootloader": 0, "otadata": 0xE000}
    images = {name: JournalImage(name, offsets[name], 8, OLD.hex, "") for name in names}
    return DeviceState(images, **kwargs)  # type: ignore[arg-type]


def test_plan_of_the_host(built: EngineSpace) -> None:
    assert list(host_lines(look(built))) == ["compile: 3 up to date", "link: 2 up to date"]
    built.write("src/c.c", "int edited;\n")
    assert list(host_lines(look(built))) == [
        "compile: 1 would run, 2 up to date",
        "  compile: build/local-fast/obj/c.o",
        "link: 2 may run",
        "  link, if build/local-fast/obj/c.o gets other bytes: build/local-fast/app.elf",
        "  make, if build/local-fast/app.elf gets other bytes: build/local-fast/app.bin",
    ]


def test_plan_of_an_image(built: EngineSpace) -> None:
    data = built.outputs()["build/local-fast/app.bin"]
    known = image_after("build/local-fast/app.bin", look(built))
    assert (known is None) == (len(data) % 4 != 0), "an image that is padded has another digest in flash"
    built.write("src/c.c", "int edited;\n")
    assert image_after("build/local-fast/app.bin", look(built)) is None


def test_plan_of_a_board_is_belief() -> None:
    belief = BoardBelief("desk", "auto", "7c:df:a1:00:11:22", "its MAC is in deploy.toml", believed("app", "otadata"))
    assert list(device_lines(belief, [(BOOT, OLD), (OTA, NEW), (APP, NEW)])) == [
        "device desk (auto): the board was not asked; the journal of 7c:df:a1:00:11:22 (its MAC is in deploy.toml) "
        "believes",
        "  bootloader   0x00000000  ask: its flash content is unknown",
        "  otadata      0x0000e000  keep, if it selects the slot of this image",
        "  app          0x00010000  write: 000000000000 -> 111111111111",
        "  verify-flash asks the board before anything is written; its answer decides, not this",
    ]
    assert list(device_lines(belief, [(APP, OLD)]))[1] == "  app          0x00010000  keep"
    assert list(device_lines(belief, [(APP, None)]))[1].endswith("write, if the build gives other bytes")
    moved = Placement("app", "factory", 0x20000, 0x100000)
    assert list(device_lines(belief, [(moved, OLD)]))[1].endswith("write: it was at 0x10000")


def test_plan_of_a_torn_or_unknown_board() -> None:
    torn = believed("app", unknown=frozenset({"app"}), open=OpenTransaction("tx-1", "", ()))
    lines = list(device_lines(BoardBelief("desk", "auto", "aa", "", torn), [(APP, OLD)]))
    assert lines[1] == "  note: tx-1 began and did not end; what it announced is unknown"
    assert lines[2].endswith("ask: its flash content is unknown")
    lines = list(device_lines(BoardBelief("desk", "auto", "", "", DeviceState()), [(APP, OLD)]))
    assert lines[0] == "device desk (auto): no board has answered there yet, so every region would be written"


# --- graph ------------------------------------------------------------------------------------


def picture() -> list[Node]:
    """A generator, five compiles (one reads what it makes), two links; one link needs the generator directly, so that
    an edge skips a layer."""
    compiles = [
        Node(f"compile src/{n}.c", "compile", (0,) if n == "rpc" else (), 40 + len(n)) for n in ("a", "rpc", "io")
    ]
    long = Node('compile src/a/very/long/path/to/some/driver/"quoted" & <odd>.c', "compile", (), None)
    return [
        Node("generate methods.h", "compile", (), 12),
        *compiles,
        long,
        Node("link app", "link", (0, 1, 2, 3, 4), 23),
        Node("image app", "link", (5,), 78),
        Node("partitions", "link", (), 0),
    ]


def drawn(what_if: str = "") -> dict[str, str]:
    nodes = picture()
    if what_if:
        nodes[2] = Node(nodes[2].name, "compile", nodes[2].needs, nodes[2].duration_ms, hit=True)
    found = analyse(nodes)
    return {
        "dot": graph_view.to_dot(nodes, found, what_if),
        "mmd": graph_view.to_mermaid(nodes, found, what_if),
        "txt": graph_view.to_text(nodes, found, what_if),
        "svg": graph_svg.to_svg(nodes, found, what_if),
    }


def golden() -> dict[str, str]:
    pages = {f"graph.{kind}": text for kind, text in drawn().items()}
    return pages | {f"graph_what_if.{kind}": text for kind, text in drawn("inc/rpc.h").items()}


@pytest.mark.parametrize("name", sorted(golden()))
def test_graph_as_pinned(name: str) -> None:
    assert (GOLDEN / name).read_text() == golden()[name]


def test_critical_path_is_the_longest_by_time() -> None:
    found = analyse(picture())
    assert found.critical == (0, 2, 5, 6) and found.critical_ms == 12 + 43 + 23 + 78
    assert found.unmeasured == 1
    assert found.layers[0] == (0, 1, 3, 4, 7)


def test_without_durations_the_longest_by_count() -> None:
    nodes = [Node(n.name, n.stage, n.needs) for n in picture()]
    found = analyse(nodes)
    assert found.critical == (0, 2, 5, 6) and found.critical_ms is None
    assert "no durations were measured yet" in graph_view.to_text(nodes, found, "")


def test_what_if_follows_the_graph() -> None:
    nodes = picture()
    nodes[7] = Node("partitions", "link", (), 0, hit=True)
    assert analyse(nodes).after == frozenset()
    nodes[0] = Node(nodes[0].name, "compile", (), 12, hit=True)
    assert analyse(nodes).after == {2, 5, 6}


@pytest.mark.parametrize("shape", ["wide", "deep", "skips", "one", "none"])
def test_svg_boxes_do_not_overlap_and_lie_inside(shape: str) -> None:
    nodes = {
        "wide": [*(Node(f"c{n}", "compile", ()) for n in range(40)), Node("l", "link", tuple(range(40)))],
        "deep": [Node(f"n{n}", "link", (n - 1,) if n else ()) for n in range(25)],
        "skips": [Node(f"n{n}", "link", tuple(m for m in range(n) if (n * m + n) % 3 == 0)) for n in range(30)],
        "one": [Node("only", "compile", ())],
        "none": [],
    }[shape]
    text = graph_svg.to_svg(nodes, analyse(nodes), "")
    root = ElementTree.fromstring(text)
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    boxes = [
        tuple(float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        for rect in root.iterfind("{*}g/{*}rect")
    ]
    assert len(boxes) == len(nodes)
    for x, y, w, h in boxes:
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
    for (ax, ay, aw, ah), (bx, by, bw, bh) in combinations(boxes, 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay


def test_labels_fit_their_boxes() -> None:
    root = ElementTree.fromstring(drawn()["svg"])
    for group in root.iterfind("{*}g"):
        rect, text = group.find("{*}rect"), group.find("{*}text")
        assert rect is not None and text is not None and text.text is not None
        assert len(text.text) * graph_svg.CHAR_WIDTH < float(rect.attrib["width"])


def test_png_needs_a_renderer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program stands in for rsvg-convert, so that both answers are seen on every machine."""
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert svg_to_png(b"<svg/>") == "no SVG renderer is installed (cairosvg, rsvg-convert, inkscape)"
    program = tmp_path / "rsvg-convert"
    program.write_text("#!/bin/sh\nprintf '\\211PNG\\r\\n\\032\\n'; exec /bin/cat\n")
    program.chmod(0o755)
    assert svg_to_png(b"<svg/>") == b"\x89PNG\r\n\x1a\n<svg/>"
    program.write_text("#!/bin/sh\necho no cairo >&2; exit 1\n")
    assert svg_to_png(b"<svg/>") == "rsvg-convert failed: no cairo"


def test_explain_and_plan_load_nothing_heavy() -> None:
    code = (
        "import sys; import pipeline.cli.views, pipeline.cli.plan_view; "
        "print({'networkx', 'esptool', 'serial', 'unicorn', 'pipeline.cli.graph_view'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_mermaid_and_dot_quote_odd_names() -> None:
    pages = drawn()
    assert '\\"quoted\\" & <odd>.c' in pages["dot"]
    assert "&quot;quoted&quot; &amp; &lt;odd>.c" in pages["mmd"]
    assert re.search(r"n0 -> n2 \[color=crimson", pages["dot"])


if __name__ == "__main__":
    for name, text in golden().items():
        (GOLDEN / name).write_text(text)

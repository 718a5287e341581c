"""The page in a real browser: what a person sees, types and presses, and what a hostile board cannot do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.client.page_address import redirecting_file
from pipeline.client.protocol import Holder, NoteKind
from tests.page.browser import OpenPage, chromium, needs_chromium
from tests.page.past import write_past
from tests.page.served import fake_environment, serving

pytestmark = needs_chromium

HEALTH = {
    "jsonrpc": "2.0",
    "id": 1,
    "result": {
        "modules": [
            {"name": "blink", "setup_ok": True, "health": "every 500 ms"},
            {"name": "pump", "setup_ok": False, "health": "<b>no water</b>"},
        ]
    },
}


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    """One browser and one page for all tests: to open them is most of what a test would cost."""
    with serving(tmp_path_factory.mktemp("page")) as served, chromium() as browser:
        one = OpenPage(browser, served)
        one.open()
        yield one
        one.close()


@pytest.fixture
def shown(window: OpenPage, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """The page, looking at a device that nobody has seen before."""
    name = f"board{len(window.served.consoles.of)}"
    window.served.another(name)
    window.page.click(f".card:has-text('{name}')")
    window.view("log")
    yield window
    assert window.problems == [], request.node.name


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, last))


# --- opening ----------------------------------------------------------------------------------


def test_the_page_is_opened_by_its_address_or_by_a_file(window: OpenPage, tmp_path: Path) -> None:
    """From a file the browser starts at another site; a cookie that is strict must still be there for what follows."""
    file = tmp_path / "open.html"
    file.write_text(redirecting_file(window.served.server.url))
    for address in (window.served.server.url, file.as_uri()):
        window.context.clear_cookies()
        page = window.open(address)
        assert "token" not in page.url and page.evaluate("document.cookie") == ""
        (cookie,) = window.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("hotplate", True, "Strict")
        assert cookie["path"] == window.served.place
        page.reload()
        page.wait_for_selector("#link[data-state=good]")
    page.wait_for_selector("#device-name:has-text('bench')")
    assert page.title() == "bench · Hotplate"
    assert window.problems == []


HOSTILE_PAGE = """<!DOCTYPE html><script src="BASE/app.js"></script><iframe src="BASE/"></iframe><script>
const tries = {};
const done = (name, what) => {
  tries[name] = what;
  if (Object.keys(tries).length === 4) document.title = JSON.stringify(tries);
};
const socket = new WebSocket("ws://HOST/PLACE/live");
socket.onopen = () => done("socket", "open");
socket.onclose = () => done("socket", "closed");
const credentials = "include";
fetch("BASE/api/devices", {credentials}).then((one) => done("fetch", one.status), () => done("fetch", "refused"));
fetch("BASE/api/devices", {credentials, mode: "no-cors"})
  .then((one) => done("blind", one.type), () => done("blind", "refused"));
const script = document.createElement("script");
script.onload = () => done("script", "loaded");
script.onerror = () => done("script", "refused");
script.src = "BASE/link.js";
document.head.append(script);
</script>"""


def test_a_page_on_another_port_of_this_machine_gets_nothing(shown: OpenPage) -> None:
    """The worst case: it knows the address, and the browser holds the cookie and takes it for the same site."""
    served = shown.served
    shown.watched()
    text = HOSTILE_PAGE.replace("BASE", f"http://{served.host}{served.place.rstrip('/')}")
    text = text.replace("HOST", served.host).replace("PLACE", served.place.strip("/"))

    class HostilePage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words: Any) -> None:
            del words

    with ThreadingHTTPServer(("127.0.0.1", 0), HostilePage) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            page = shown.context.new_page()
            page.goto(f"http://127.0.0.1:{other.server_port}/")
            page.wait_for_function("document.title.startsWith('{')")  # that page has no policy
            tries = json.loads(page.title())
            page.close()
        finally:
            other.shutdown()
            thread.join()
    assert tries == {"socket": "closed", "fetch": "refused", "blind": "refused", "script": "refused"}
    counts = served.call(served.server.counts.by_reason)
    assert counts["origin"] >= 2 and counts["site"] >= 1


# --- the log ----------------------------------------------------------------------------------

HOSTILE = [
    b"<img src=x onerror=alert(1)><script>alert(2)</script>",
    b"\x1b]0;owned\x07title \x1b]52;c;ZXZpbA==\x07clip \x1b[2J\x1b[31mred\x1b[0m "
    b"\x1b]8;;javascript:alert(3)\x07link\x1b]8;;\x07",
    "\u202egnp.exe \u2066x\u200b".encode(),
    b"\x1b[8mhidden\x1b[0m \x1b[40;30mblack on black\x1b[m",
    b"nul \x00 bell \x07 bs \x08 cr \r x",
    b"\x1b]unfinished and never ended",
    b"\x1b[" + b"9" * 2000 + b"m\xff",
    "z\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307".encode(),
]


def test_a_hostile_board_is_shown_and_harms_nobody(shown: OpenPage) -> None:
    page = shown.page
    elements = page.evaluate("document.querySelectorAll('script, img, iframe, a, b').length")
    shown.served.says(b"\n".join(HOSTILE) + b"\n")
    shown.served.says(b"A" * 65536 + b"\n")
    shown.served.call(shown.served.console.notes, NoteKind.RESET, "<u>reset</u> \x1b[31m\u202e")
    shown.served.says(b"last\n")
    page.wait_for_selector(".row:has-text('last')")
    texts = page.eval_on_selector_all(".row .text", "rows => rows.map((row) => row.textContent)")
    assert texts[0] == HOSTILE[0].decode()
    assert texts[1] == "title clip red link"
    assert texts[2] == "\\u202egnp.exe \\u2066x\\u200b"
    assert texts[3] == "hidden black on black"
    assert texts[4] == "nul \\x00 bell \\x07 bs \\x08 cr \\x0d x"
    assert texts[5] == ""
    assert texts[6] == "\ufffd"
    assert texts[7] == "z\u0300\u0301\u0302\u0303…"
    assert texts[8].endswith("not shown") and len(texts[8]) < 8300
    assert texts[9] == "— <u>reset</u> \\u202e"
    assert page.inner_text(".row .a1") == "red"
    assert page.evaluate("document.querySelectorAll('script, img, iframe, a, b').length") == elements
    assert page.title() == f"{shown.served.device.name} · Hotplate"


def test_ten_thousand_lines_are_searched_filtered_and_bounded(shown: OpenPage) -> None:
    page = shown.page
    shown.served.says(numbered(0, 12_000))
    page.wait_for_selector(".row:has-text('line 11999')")
    assert page.evaluate("document.querySelectorAll('.row').length") < 120
    assert "older ones let go" in page.inner_text("#drop-count")
    kept = int(page.inner_text("#line-count").split()[0].replace(",", ""))
    assert 10_000 <= kept <= 10_500
    page.keyboard.press("/")
    page.keyboard.type("line 777")
    shown.text_of("#search-count", "10 found")
    page.keyboard.press("Enter")
    page.wait_for_selector(".row.hit mark:has-text('line 777')")
    first = page.inner_text(".row.hit .text")
    page.keyboard.press("Enter")
    shown.until(f"document.querySelector('.row.hit .text')?.textContent !== {first!r}")
    page.keyboard.press("Shift+Enter")
    shown.text_of(".row.hit .text", first)
    page.fill("#search", "/[/")
    assert page.get_attribute("#search", "aria-invalid") == "true"
    page.fill("#search", "")
    page.fill("#filter", "/^line \\d+555$/")
    shown.until("document.querySelector('#line-count').textContent.split(' ')[1]", "of")
    texts = page.eval_on_selector_all(".row .text", "rows => rows.map((row) => row.textContent)")
    assert texts and all(text.endswith("555") for text in texts)
    page.fill("#filter", "")
    page.wait_for_selector(".row:has-text('line 11999')")


def test_pause_holds_what_is_seen_and_scrolling_back_does_too(shown: OpenPage) -> None:
    page = shown.page
    shown.served.says(numbered(0, 200))
    page.wait_for_selector(".row:has-text('line 199')")
    page.click("#pause")
    shown.served.says(numbered(200, 260))
    shown.text_of("#newest", "60 new ↓")
    assert page.locator(".row:has-text('line 259')").count() == 0
    page.click("#pause")
    page.wait_for_selector(".row:has-text('line 259')")
    page.evaluate("document.querySelector('#screen').scrollTop = 1000")
    page.wait_for_selector(".row:has-text('line 55')")
    shown.served.says(numbered(260, 300))
    shown.text_of("#line-count", "300 lines")
    assert page.evaluate("document.querySelector('#screen').scrollTop") == 1000
    page.click("#newest")
    page.wait_for_selector(".row:has-text('line 299')")
    page.fill("#typed", '{"jsonrpc":"2.0","id":1,"method":"health"}')
    page.press("#typed", "Enter")
    shown.until("document.querySelector('#typed').value", "")
    assert shown.served.console.sent == b'{"jsonrpc":"2.0","id":1,"method":"health"}\n'
    shown.served.says(b"login: ")
    page.wait_for_selector(".row:has-text('login:')")


# --- devices and deploys ----------------------------------------------------------------------


def test_modules_are_dots_whose_health_can_be_reached_by_keyboard(shown: OpenPage) -> None:
    page = shown.page
    shown.served.says(json.dumps(HEALTH).encode() + b"\n")
    page.wait_for_selector("#modules .dot.bad")
    chip = page.locator("#modules .chip:has-text('pump')")
    assert chip.get_attribute("aria-label") == "pump, bad: <b>no water</b>"
    tip = chip.locator(".tip")
    assert not tip.is_visible()
    page.focus("#release")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    tip.wait_for(state="visible")
    assert tip.inner_text() == "<b>no water</b>"
    assert page.locator(".card[aria-current] .dot").count() == 2
    shown.served.call(
        setattr, shown.served.console, "holder", Holder(4711, "doit deploy", tx="tx-20261129-080000-a1b2")
    )
    page.wait_for_selector("#holder:has-text('Lent to tx-20261129-080000-a1b2 (pid 4711)')")
    shown_whole = (
        "e => (e.textContent = 'The port is closed, and free for other programs.', e.scrollWidth <= e.clientWidth)"
    )
    assert page.eval_on_selector("#holder", shown_whole), "nothing of it is cut off"
    assert page.is_disabled("#reset")


def test_the_button_deploys_and_streams_progress(shown: OpenPage, tmp_path: Path) -> None:
    served, root = shown.served, Path(shown.served.device.root)
    page = shown.page
    page.wait_for_selector("#run-line:has-text('Cannot deploy from here')")
    assert page.is_disabled("#deploy")
    environment = fake_environment(tmp_path / "bin", FAKE_FAILS="ttfb")
    served.call(served.environments.remember, served.device.root, environment)
    page.wait_for_selector("#deploy:not(:disabled)")
    page.click("#deploy")
    page.wait_for_selector(".step.now:has-text('fingerprint')")
    (root / "go-fingerprint").touch()
    page.wait_for_selector(".step.done:has-text('fingerprint')")
    page.wait_for_selector(".step.now:has-text('compile')")
    assert page.is_visible("#stop") and page.is_disabled("#deploy")
    page.click("#run-output")
    page.wait_for_selector("#run-text:has-text('for the caller in tx-')")
    assert "red <b>not bold</b>" in page.inner_text("#run-text")
    (root / "go-all").touch()
    page.wait_for_selector(".step.failed:has-text('ttfb')")
    page.wait_for_selector("#run-line.bad:has-text('it <i>panicked</i>')")
    page.wait_for_selector("#deploy:not(:disabled)")


# --- the past ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (400, "light")])
def test_every_view_fits_and_nothing_moves_while_data_come(shown: OpenPage, width: int, scheme: str) -> None:
    served, page = shown.served, shown.page
    names = write_past(Path(served.device.root), served.device.name, 30)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    served.says(numbered(0, 50))
    page.reload()
    page.wait_for_selector(".row:has-text('line 49')")
    served.says(json.dumps(HEALTH).encode() + b"\n")
    page.wait_for_selector("#modules .dot.bad")
    page.wait_for_selector("#run-line:has-text('Last deploy')")
    for _ in range(20):
        served.says(b"temperature=21.5 heap=1000 " + b"wide " * 60 + b"\n")
    page.wait_for_selector(".row:has-text('temperature')")
    assert shown.shift < 0.02, "layout shift while the page fills"
    for view, wanted in {
        "plot": "#plot-series td",
        "last": ".waterfall .bar",
        "history": "#history circle",
        "reports": ".report-item",
    }.items():
        shown.view(view)
        page.wait_for_selector(wanted, state="attached")
        assert not shown.too_wide, view
    page.click(f".report-item[data-tx={names[-1]}]")
    page.wait_for_selector(f".report dd:has-text('{names[-1]}')")
    assert not shown.too_wide
    page.set_viewport_size({"width": 1280, "height": 900})


def test_the_past_says_what_the_reports_say(shown: OpenPage) -> None:
    root = Path(shown.served.device.root)
    names = write_past(root, shown.served.device.name, 12)
    page = shown.page
    shown.view("last")
    page.wait_for_selector(".waterfall .bar.p-verify-flash")
    report = json.loads((root / "reports" / f"{names[-1]}.json").read_text())
    took = report["budget"]["total"]["measured_ms"]
    assert page.text_content("tr.total") == f"total{took} ms4000 ms{4000 - took} ms"
    assert page.inner_text(".facts").startswith(report["outcome"])
    shown.view("history")
    page.wait_for_selector("#history circle.failed")
    assert page.locator("#history .chart-place >> nth=0 >> circle").count() == 12
    page.click("#history button:has-text('ttfb')")
    assert page.inner_text("#history h3 >> nth=0") == "Time of ttfb in each deploy"
    assert page.inner_text("#history h3 >> nth=1") == "Size of app in each deploy"
    assert page.locator("#history .limit-text").count() == 1
    (fresh,) = write_past(root, shown.served.device.name, 1, seed=9)
    shown.view("reports")
    page.wait_for_selector(f".report-item[data-tx={fresh}]")


def test_tabs_and_focus_by_keyboard(shown: OpenPage) -> None:
    page = shown.page
    page.reload()
    page.wait_for_selector("#link[data-state=good]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the device"
    page.focus("#tab-log")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-plot" and page.is_visible("#plot")
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.id") == "tab-reports" and page.is_hidden("#plot")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.url.endswith("/reports")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"reset", "release", "tab-reports"} <= reached


# --- the plotter ------------------------------------------------------------------------------


def test_numbers_of_the_log_are_plotted(shown: OpenPage) -> None:
    page = shown.page
    for number in range(30):
        if number in (1, 29):  # the first and the last have an instant of their own
            page.wait_for_selector(f".row:has-text('temperature={number - 1}.5')")
            page.wait_for_timeout(2)
        shown.served.says(b'I (%d) t: temperature=%d.5 rh=40\n{"heap":{"free":%d}}\n' % (number, number, 1000 - number))
    shown.view("plot")
    page.wait_for_selector("#plot-series tr:has-text('heap.free') td:has-text('971')")
    drawn = (
        "() => { const c = document.querySelector('#plot-canvas');"
        " return new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size }"
    )
    shown.until(f"({drawn})() > 20")
    assert page.is_checked("#plot-series tr:has-text('temperature') input")
    page.check("#plot-series tr:has-text('heap.free') input")
    page.wait_for_selector("#plot-note:has-text('3 of 6 lanes')")
    assert "temperature 29.5" in str(page.get_attribute("#plot-canvas", "aria-label"))
    page.mouse.move(0, 0)
    page.focus("#plot-canvas")
    page.keyboard.press("End")
    page.wait_for_selector("#plot-at:has-text('temperature 29.5')")
    page.keyboard.press("Home")
    page.wait_for_selector("#plot-at:has-text('temperature 0.5')")


# --- pure modules -----------------------------------------------------------------------------


def test_pure_parts(shown: OpenPage) -> None:
    """`ansi.js`, `series.js` and `markdown.js` by themselves, in the browser that runs them."""
    page = shown.page

    def call(module: str, expression: str) -> Any:
        return page.evaluate(f"import('./{module}').then((m) => {expression})")

    pieces = call("ansi.js", r"m.pieces('\x1b[1;31mE\x1b[0m a\x1b[38;5;2mb\x1b[38;2;1;2;3mc\x1b[94md\x1b[39me')")
    assert [(one["text"], one["look"]) for one in pieces] == [
        ("E", "a1 bold"),
        (" a", ""),
        ("b", "a2"),
        ("c", "a2"),
        ("d", "a12"),
        ("e", ""),
    ]
    assert call("ansi.js", r"m.plain(m.pieces('a\x9b31mb\x9d0;t\x9cc\x1bPq\x1b\\d\x1b(Be\x1b'))") == "abcde"
    assert call("ansi.js", "m.visible('\U0001f600 é\\t\\ud800 \\u{e0041}')") == "\U0001f600 é\t\\ud800 \\ue0041"
    assert call("ansi.js", r"m.plain(m.pieces('\x1b]'.repeat(50000) + 'x')).length") < 100_000
    nested = '{"t":21.5,"ok":true,"heap":{"free":9},"v":[1,{"n":2}]}'
    health = '{"jsonrpc":"2.0","id":7,"result":{"modules":[{"name":"a","held":3}]}}'
    numbers = [
        ("a=1 b=-2.5e3 c=0x10 d=1.2.3 x.y=7, z=9;", [["a", 1], ["b", -2500], ["x.y", 7], ["z", 9]]),
        (nested, [["t", 21.5], ["heap.free", 9], ["v[0]", 1], ["v[1].n", 2]]),
        (health, [["result.modules[a].held", 3]]),
        ('{"half": 1, x=3', [["x", 3]]),
        ("nothing", []),
        ('{"__proto__":{"polluted":1}}', [["__proto__.polluted", 1]]),
    ]
    for text, wanted in numbers:
        assert call("series.js", f"m.numbers({json.dumps(text)})") == wanted
    assert page.evaluate("({}).polluted === undefined")
    many = call(
        "series.js",
        "{ const s = new m.Series(); for (let i = 0; i < 9000; i++) s.add(i, `n${i % 90}=${i} a=1`);"
        " return [s.byName.size, s.refused.size, Math.max(...[...s.byName.values()].map((one) => one.at.length))] }",
    )
    assert many[0] == 64 and many[1] == 27 and many[2] <= 5000
    markdown = (
        "# T `c`\n\n- a: `1`\n- b: `<i>`\n\n| x | y |\n|---|--:|\n| a\\|b | -3 |\n\n> q\n\n"
        "```\n<b>\n```\n\n[w](javascript:alert(1)) **s** \\*"
    )
    made = call("markdown.js", f"m.rendered({json.dumps(markdown)}).map((one) => one.outerHTML).join('')")
    assert made == (
        "<h3>T <code>c</code></h3>"
        '<dl class="pairs"><dt>a</dt><dd><code>1</code></dd><dt>b</dt><dd><code>&lt;i&gt;</code></dd></dl>'
        '<div class="scroll"><table><thead><tr><th scope="col">x</th><th scope="col">y</th></tr></thead>'
        '<tbody><tr><td class="">a|b</td><td class="n">-3</td></tr></tbody></table></div>'
        "<blockquote><p>q</p></blockquote>"
        '<pre tabindex="0">&lt;b&gt;</pre>'
        "<p>w <strong>s</strong> *</p>"
    )


def test_no_part_of_the_page_makes_elements_from_text() -> None:
    """The one rule by which every foreign text is harmless."""
    from pipeline.service.http import PAGE

    words = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "new Function"]
    words += ["http://", "https://"]
    for path in PAGE.glob("*.js"):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert [word for word in words if word in text] == [], path.name
    html = (PAGE / "index.html").read_text()
    assert "<style" not in html and " style=" not in html and " onclick" not in html

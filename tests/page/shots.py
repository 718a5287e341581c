"""Pictures of the page over fake consoles, to look at: `python -m tests.page.shots DIRECTORY`.

Every view at 1280 and 400 px, light and dark. Nothing is compared: a person looks.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.page.browser import chromium

VIEWS = ("log", "plot", "last", "history", "reports")


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    demo = subprocess.Popen([sys.executable, "-m", "tests.page.demo"], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    address = demo.stdout.readline().strip()
    try:
        with chromium() as browser:
            for width in (1280, 400):
                for scheme in ("light", "dark"):
                    size = {"width": width, "height": 900}
                    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
                    page = context.new_page()
                    page.goto(address)
                    page.wait_for_selector(".row:has-text('humidity')")
                    page.wait_for_timeout(3000)  # so that there is something to plot
                    for view in VIEWS:
                        page.click(f"#tab-{view}")
                        if view == "reports":
                            page.click(".report-item >> nth=0")
                            page.wait_for_selector(".report dd")
                        page.wait_for_timeout(300)
                        page.screenshot(path=directory / f"{view}-{width}-{scheme}.png", full_page=True)
                    context.close()
    finally:
        demo.terminate()
        demo.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

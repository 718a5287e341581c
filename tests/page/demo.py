"""The page over fake consoles, to look at: `python -m tests.page.demo`; ends with Ctrl-C.

Fills a scratch project with deploys of the last weeks, and lets three boards talk.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import random
import tempfile
from pathlib import Path

from pipeline.client.protocol import DeviceRef, Holder, NoteKind
from pipeline.effects.clock import SystemClock
from pipeline.service.environments import Environments
from pipeline.service.page_door import PageDoor, PageOf
from tests.page.fake_consoles import FakeConsole, FakeConsoles
from tests.page.past import write_past

BOOT = b"""ESP-ROM:esp32c3-api1-20210207
Build:Feb  7 2021
rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)
SPIWP:0xee
mode:DIO, clock div:1
load:0x3fcd5820,len:0x1714
entry 0x403cc710
\x1b[0;32mI (24) boot: ESP-IDF v5.3 2nd stage bootloader\x1b[0m
\x1b[0;33mW (42) spi_flash: Detected size larger than the size in the binary image header\x1b[0m
\x1b[0;31mE (58) wifi: no credentials stored\x1b[0m
"""
HEALTH = {
    "jsonrpc": "2.0",
    "id": 1,
    "result": {
        "ok": False,
        "modules": [
            {"name": "blink", "setup_ok": True, "health": "every 500 ms, 128 toggles"},
            {"name": "sampler", "setup_ok": True, "health": "12 samples, last 21.4", "held": 512},
            {"name": "ballast", "setup_ok": False, "health": "no memory for 64 KiB", "held": 0},
        ],
        "heap": {"free": 182340},
    },
}


async def talk(console: FakeConsole) -> None:
    console.notes(NoteKind.BOOT, "boot of 3f9a1c", elf="3f9a1c" * 8)
    console.says(BOOT)
    console.says(json.dumps(HEALTH).encode() + b"\n")
    draw = random.Random(1)
    for number in itertools.count():
        wave = 22 + 3 * math.sin(number / 20) + draw.random()
        console.says(b"I (%d) sampler: temperature=%.2f humidity=%.1f\n" % (number * 200, wave, 40 + wave / 3))
        if number % 3 == 0:
            heap = 182340 - number % 90 * 64
            console.says(json.dumps({"uptime_ms": number * 200, "heap": {"free": heap}}).encode() + b"\n")
        if number % 40 == 20:
            console.notes(NoteKind.PREEMPTED, "preempted by tx-20261129-080000-a1b2", tx="tx-20261129-080000-a1b2")
            console.notes(NoteKind.REATTACHED, "reattached after 812 ms", tx="tx-20261129-080000-a1b2")
        await asyncio.sleep(0.2)


async def serve() -> None:
    clock = SystemClock()
    consoles = FakeConsoles(clock.utc, clock.now_s)
    environments = Environments()
    with tempfile.TemporaryDirectory() as root:
        os.environ["XDG_RUNTIME_DIR"] = root
        Path(root, "hotplate").mkdir(mode=0o700)
        project = Path(root, "greenhouse")
        write_past(project, "bench", 60)
        devices = [
            DeviceRef(str(project), "bench", "esp32c3", "/dev/ttyUSB0", "7c:df:a1:00:11:22"),
            DeviceRef(str(project), "desk", "esp32s3", "/dev/ttyACM0", "7c:df:a1:00:11:23"),
            DeviceRef(str(project), "roof", "esp32c6", "rfc2217://10.0.0.7:2217"),
        ]
        for device in devices:
            consoles.know(device)
        environments.remember(str(project), dict(os.environ))
        consoles.of[devices[1]].holder = Holder(4711, "hotplate deploy", tx="tx-20261129-075000-0a1b", since_at="")
        consoles.of[devices[2]].state = "gone"
        server = PageDoor(PageOf(consoles, environments, clock, print))
        assert server.open(int(os.environ.get("PORT", "0"))) is None
        print(server.url, flush=True)
        await talk(consoles.of[devices[0]])


if __name__ == "__main__":
    asyncio.run(serve())

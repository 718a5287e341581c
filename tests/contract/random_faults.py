"""Random fault scripts, and a client that does a bit of everything to a board and shrugs at whatever comes back."""

from __future__ import annotations

import random
import struct

from tests.contract.test_esptool_rfc2217 import SYNC
from virtualboard.chip_table import NAMES
from virtualboard.faults import KINDS, parse_fault
from virtualboard.protocol import checksum
from virtualboard.slip import encode


def script(seed: int) -> list[str]:
    """One to four valid faults, each with some of its keys."""
    rng = random.Random(seed)
    return [_fault(rng) for _ in range(rng.randint(1, 4))]


def _fault(rng: random.Random) -> str:
    kind = rng.choice(sorted(KINDS))
    required = {"sector", "chip", "mac", "baud"} & set(KINDS[kind].keys)
    wanted = [key for key in KINDS[kind].keys if key in required or rng.random() < 0.5]
    when = [key for key in wanted if key in ("write", "after", "boot")]
    values = {
        "write": rng.randint(1, 6),
        "after": round(rng.uniform(0, 0.5), 3),
        "boot": round(rng.uniform(0, 0.5), 3),
        "times": rng.randint(0, 3),
        "for": round(rng.uniform(0, 0.2), 3),
        "by": round(rng.uniform(0, 0.3), 3),
        "name": rng.choice(["same", "new"]),
        "to": rng.choice(["host", "board"]),
        "at": rng.randint(0, 3000),
        "count": rng.randint(1, 20),
        "every": rng.choice([0, 1, 17, 500]),
        "seed": rng.randint(0, 99),
        "baud": rng.choice([9_600, 115_200, 460_800]),
        "sector": rng.randint(0, 0x3FFFFF),
        "chip": rng.choice(sorted(NAMES)),
        "mac": f"7c:df:a1:00:00:{rng.randint(0, 255):02x}",
        "pc": hex(rng.getrandbits(32)),
        "ra": hex(rng.getrandbits(32)),
    }
    pairs = ",".join(f"{key}={values[key]}" for key in wanted if key not in when[1:])
    text = f"{kind}:{pairs}" if pairs else kind
    parse_fault(text)
    return text


def chatter(seed: int) -> list[bytes]:
    """What a client sends: loader commands in a plausible order, some of them cut, some of them noise."""
    rng = random.Random(seed)
    begin = struct.pack("<5I", 0x1800, 6, 0x400, 0x10000, 0)
    messages = [SYNC, _frame(0x0D, bytes(8)), _frame(0x02, begin)]
    for seq in range(6):
        payload = rng.randbytes(0x400)
        messages.append(_frame(0x03, struct.pack("<4I", len(payload), seq, 0, 0) + payload, checksum(payload)))
    messages += [
        _frame(0x13, struct.pack("<4I", 0x10000, 0x1800, 0, 0)),
        _frame(0x0A, struct.pack("<I", 0x40001000)),
        _frame(0x0F, struct.pack("<II", 115_200, 0)),
        rng.randbytes(rng.randint(1, 2000)),
        SYNC,
        _frame(0x04, struct.pack("<I", rng.randint(0, 1))),
    ]
    return [m[: rng.randint(1, len(m))] if rng.random() < 0.1 else m for m in messages]


def _frame(op: int, data: bytes, check: int = 0) -> bytes:
    return encode(struct.pack("<BBHI", 0, op, len(data), check) + data)

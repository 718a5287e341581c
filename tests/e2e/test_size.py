"""What a user sees of sizes: reports, `doit size`, and limits that stop a build."""

from __future__ import annotations

import json

from tests.e2e.space import Space

HINT = "hint: make it smaller (`doit size --by archive` names the largest parts), or raise the limit"
REMEMBERED = ".deploy/sizes.v1/local-fast.json"


def rows(size: object, table: str) -> dict[str, object]:
    assert isinstance(size, dict)
    return {row["name"]: row for row in size[table]}


def test_an_edit_moves_sizes_and_a_warm_deploy_looks_at_nothing(host_space: Space) -> None:
    space = host_space
    first = space.deploy()
    assert first.code == 0, first.err
    size = first.report["size"]
    assert (size["note"], size["elf"]) == ("", "build/local-fast/app.elf")
    assert {"firmware/core", "firmware/port/esp32c3"} <= rows(size, "archives").keys()
    image = rows(size, "totals")["image"]
    assert isinstance(image, dict)
    assert image["size"] == space.file("build/local-fast/app.bin").stat().st_size

    # A warm deploy says what is remembered: it reads neither ELF file nor map.
    text = space.file(REMEMBERED).read_text()
    space.file(REMEMBERED).write_text(text.replace(f'"size":{image["size"]}', '"size":12345', 1))
    warm = space.deploy()
    assert (warm.outcome, warm.totals["linked"]) == ("verified_unchanged", 0)
    told = rows(warm.report["size"], "totals")["image"]
    assert isinstance(told, dict)
    assert (told["size"], told["before"]) == (12345, 12345)
    assert "size: " not in warm.out, "nothing moved"
    space.file(REMEMBERED).write_text(text)

    space.edit("firmware/core/rpc.c", '"Parse error"', '"Parse error, or something else that nobody can read"')
    edited = space.deploy()
    assert edited.code == 0, edited.err
    assert "\nsize: image " in edited.out
    shown = space.doit("size", first.report["transaction_id"], edited.report["transaction_id"])
    now = rows(edited.report["size"], "totals")["flash_rodata"]
    assert isinstance(now, dict)
    line = next(line for line in shown.out.splitlines() if line.startswith("flash_rodata"))
    assert line.split()[1:3] == [str(now["size"]), f"{now['size'] - now['before']:+d}"]
    assert f"| `flash_rodata` | {now['size']}" in (space.path / edited.report["report_path"]).read_text()


def test_a_limit_stops_the_build_each_time_until_it_holds(host_space: Space) -> None:
    space = host_space
    space.edit("deploy.toml", "[partitions]", '[size]\niram = 100\n[size.section]\n".bss" = "1KB"\n\n[partitions]')
    line = space.file("deploy.toml").read_text().splitlines().index("iram = 100") + 1
    for _ in range(2):
        failed = space.doit("link")
        assert failed.code == 1, failed.out + failed.err
        assert f"deploy.toml:{line}:8: error: iram of build/local-fast/app.elf takes " in failed.err
        assert "bytes, but [size] iram is 100 (" in failed.err and HINT in failed.err
        assert f"deploy.toml:{line + 2}:" in failed.err and "but [size.section] .bss is 1024 (" in failed.err
    refused = space.deploy()
    assert (refused.code, refused.category, refused.written) == (1, "image_too_large", [])
    assert refused.report["size"] is not None, "the report says how large it is"

    space.edit("deploy.toml", "iram = 100\n", "iram = 100000\n")
    space.edit("deploy.toml", '".bss" = "1KB"', '".bss" = "100KB"\n".gone" = 1')
    passed = space.doit("link")
    assert passed.code == 0, passed.err
    assert "note: [size.section] has no effect on .gone, which the program does not have" in passed.err
    by = space.doit("size", "--by", "section").out.splitlines()
    assert by[0].split() == ["section", "memory", "size", "change", "limit", "left"]
    assert next(row.split()[4] for row in by if row.startswith(".bss")) == "102400"

    as_json = json.loads(space.doit("size", "--json").out)
    assert rows(as_json, "totals").keys() >= {"image", "flash", "ram", "iram"}
    files = json.loads(space.doit("size", "--by=file", "--json").out)
    flash = rows(as_json, "totals")["flash"]
    assert isinstance(flash, dict)
    assert sum(row["flash"] for row in files) == flash["size"]
    for words, fact in (
        (("--by", "fiel"), "size: error: --by 'fiel' is not one of section, archive, file; did you mean 'file'?"),
        (("a", "b", "c"), "size: error: takes one or two reports, got 3 words"),
        (("tx-none",), "size: error: there is no report 'tx-none'"),
    ):
        wrong = space.doit("size", *words)
        assert (wrong.code, wrong.out, wrong.err.splitlines()[0]) == (3, "", fact)

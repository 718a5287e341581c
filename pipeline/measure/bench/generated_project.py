"""Generate the project that `doit bench:engine` measures: N translation units, 20 shared headers, a compiler.

Writes files into an empty directory; knows deploy.toml, ninja's and doit's formats, and C. Does not run or time
anything. Invariant: all peers are given the same sources, the same dependencies and the same command lines, which are
those of our own actions but for the names of what they make.

The compiler takes zig's place: a package `ziglang` on PYTHONPATH whose program `zig` is a C program of ours. It
copies the source to the object and writes the depfile, in about a millisecond with its process; as `real` it hands the
compile on to this machine's `cc`. It "links" by copying an ELF file that was made here.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Sequence
from pathlib import Path

from cache.named_tuple import NamedTuple

HEADERS = 20
PER_DIRECTORY = 100

COMPILER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *slurp(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(1); }
    fseek(file, 0, SEEK_END);
    *size = ftell(file);
    rewind(file);
    char *data = malloc(*size + 1);
    if (fread(data, 1, *size, file) != *size) { perror(path); exit(1); }
    data[*size] = 0;
    fclose(file);
    return data;
}

static void spill(const char *path, const char *data, size_t size) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) { perror(path); exit(1); }
}

int main(int argc, char **argv) {
    const char *source = 0, *out = 0, *dep = 0, *real = getenv("BENCH_REAL_CC") ? "cc" : REAL;
    char **kept = calloc(argc + 2, sizeof *kept), place[4096];
    int count = 0, preprocesses = 0;
    kept[count++] = "cc";
    for (int n = 1; n < argc; n++) {
        char *word = argv[n];
        if (!strcmp(word, "cc")) continue;
        if (!strcmp(word, "-target") || !strcmp(word, "-T")) { n++; continue; }
        if (!strncmp(word, "-mcpu", 5)) continue;
        kept[count++] = word;
        if (!strcmp(word, "-E")) preprocesses = 1;
        if (!strcmp(word, "-c")) source = argv[n + 1];
        if (!strcmp(word, "-o")) out = argv[n + 1];
        if (!strcmp(word, "-MF")) dep = argv[n + 1];
    }
    size_t size;
    if (!source && !preprocesses) {
        snprintf(place, sizeof place, "%.*s/template.elf", (int)(strrchr(argv[0], '/') - argv[0]), argv[0]);
        char *elf = slurp(place, &size);
        spill(out, elf, size);
        return 0;
    }
    if (*real) { execvp(real, kept); perror(real); return 1; }
    char *text = slurp(source, &size), *line = text;
    spill(out, text, size);
    FILE *file = fopen(dep, "w");
    fprintf(file, "%s: %s", out, source);
    while ((line = strstr(line, "#include \""))) {
        line += 10;
        fprintf(file, " \\\n include/%.*s", (int)strcspn(line, "\""), line);
    }
    fputc('\n', file);
    return fclose(file) != 0;
}
"""

DEPLOY_TOML = """\
[project]
name = "bench"
sources = ["src/*/*.c"]
include = ["include"]

[toolchain]
linker_script = "app.ld"

[bootloader]
sources = ["boot/*.c"]
include = ["include"]
linker_script = "app.ld"

[profile.local-fast]
cflags = ["-O1"]

[partitions]
table = "partitions.csv"

[device.bench]
port = "virtual:"

[cache]
dir = ".deploy"
"""
PARTITIONS = "nvs, data, nvs, 0x9000, 0x4000\notadata, data, ota, 0xd000, 0x2000\napp, app, ota_0, 0x10000, 1M\n"
DODO = "from pipeline.tasks import *\n"

OURS = "build/local-fast/"
"""Where our products lie."""

PLAIN_DODO = """\
from pathlib import Path

DOIT_CONFIG = {{"default_tasks": ["compile", "link"]}}
HEADERS = [f"include/h{{n:02}}.h" for n in range({headers})]
PROGRAMS = {programs!r}

def task_compile():
    for words, sources, objects, _, _ in PROGRAMS:
        for source, out in zip(sources, objects):
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            yield {{
                "name": source,
                "actions": [words.replace("$in", source).replace("$out", out)],
                "file_dep": [source, *HEADERS],
                "targets": [out],
            }}

def write_names(objects, out):
    Path(out + ".rsp").write_text(" ".join(objects))

def task_link():
    for _, _, objects, words, out in PROGRAMS:
        yield {{
            "name": out,
            "actions": [(write_names, [objects, out]), words.replace("$out", out)],
            "file_dep": objects,
            "targets": [out],
        }}
"""

STATTER = r"""
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int main(void) {
    char path[4096];
    unsigned long long sum = 0;
    struct stat status;
    FILE *file = fopen("paths.txt", "r");
    while (fgets(path, sizeof path, file)) {
        path[strcspn(path, "\n")] = 0;
        if (stat(path, &status)) return 1;
        sum += status.st_mtim.tv_nsec ^ status.st_ctim.tv_nsec ^ status.st_size ^ status.st_ino;
    }
    return sum == 1;
}
"""
"""The floor: stat every path of `paths.txt` and do nothing else."""


def source_names(units: int) -> list[str]:
    """The application's sources; `PER_DIRECTORY` in each directory."""
    return [f"src/d{n // PER_DIRECTORY:03}/u{n:05}.c" for n in range(units)]


def source_text(number: int) -> str:
    """1 to 4 KiB of C that includes every header."""
    lines = [f'#include "h{n:02}.h"' for n in range(HEADERS)]
    for n in range(10 + number % 30):
        lines.append(f"int u{number:05}_{n}(int x) {{ return x * {number + 1} + h{n % HEADERS:02}(x) - {n}; }}")
    return "\n".join(lines) + "\n"


def template_elf() -> bytes:
    """A RISC-V program of two sections, an application descriptor and a jump to itself, that esptool makes an image
    of (ELF32: System V gABI; addresses: the ESP32-C3's mapped flash and instruction RAM)."""
    sections = [
        (b".flash.appdesc", 0x3C000020, 2, struct.pack("<I", 0xABCD5432) + bytes(252)),
        (b".iram.text", 0x40380000, 6, struct.pack("<I", 0x0000006F)),
    ]
    names = b"\0" + b"".join(name + b"\0" for name, *_ in sections) + b".shstrtab\0"
    body, rows, segments, name = b"", bytes(40), b"", 1
    start = 52 + 32 * len(sections)
    for label, address, flags, data in sections:
        offset = start + len(body)
        segments += struct.pack("<8I", 1, offset, address, address, len(data), len(data), 5, 4)
        rows += struct.pack("<10I", name, 1, flags, address, offset, len(data), 0, 0, 4, 0)
        name += len(label) + 1
        body += data
    rows += struct.pack("<10I", name, 3, 0, 0, start + len(body), len(names), 0, 0, 1, 0)
    body += names + bytes(-len(names) % 4)
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    count = len(sections) + 2
    head = struct.pack(
        "<16sHHIIIIIHHHHHH",
        *(ident, 2, 0xF3, 1, 0x40380000, 52, start + len(body), 0, 52, 32, len(sections), 40, count, count - 1),
    )
    return head + segments + body + rows


def write_project(root: Path, units: int) -> None:
    """Sources, headers, deploy.toml, dodo.py."""
    texts = {
        "deploy.toml": DEPLOY_TOML,
        "dodo.py": DODO,
        "partitions.csv": PARTITIONS,
        "app.ld": "/* the compiler of this project does not read it */\n",
        "boot/boot.c": source_text(99999),
        **{f"include/h{n:02}.h": f"static inline int h{n:02}(int x) {{ return x + {n}; }}\n" for n in range(HEADERS)},
        **{name: source_text(n) for n, name in enumerate(source_names(units))},
    }
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_compiler(tools: Path) -> Path:
    """A directory for PYTHONPATH; returns where the compiled program must be put (see `COMPILER`)."""
    package = tools / "ziglang"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "template.elf").write_bytes(template_elf())
    info = tools / "ziglang-0.17.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ziglang\nVersion: 0.17.0\n")
    return package / "zig"


class PeerCommand(NamedTuple):
    """One of our own actions that runs a program: its words as they are run, and what they name."""

    count_as: str
    out: str
    depfile: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """What it compiles or links."""
        return tuple([path for path in self.inputs if path.endswith((".c", ".o"))])

    def words(self) -> str:
        """For a shell, with `$in`, `$out` and `$out.d` in place of its own files; objects are in a response file, since
        they may be more than a command line holds."""
        files = "$in" if self.count_as == "compiled" else "@$out.rsp"
        named = {**dict.fromkeys(self.sources, ""), self.sources[0]: files, self.out: "$out"}
        depfile = self.depfile or "\0"
        words = [named.get(word, shlex.quote(word).replace(depfile, "$out.d")) for word in self.argv]
        return " ".join(filter(None, words))


def write_ninja(root: Path, commands: Sequence[PeerCommand], launcher: str = "") -> None:
    """`build.ninja` for the same compiles and links; `launcher` (ccache) goes in front of the compiler."""
    rules: dict[str, str] = {}
    edges = []
    for command in commands:
        words = command.words()
        rule = rules.setdefault(words, f"{command.count_as}{len(rules)}")
        edges.append(f"build {_renamed(command.out)}: {rule} {' '.join(map(_renamed, command.sources))}\n")
    texts = [_ninja_rule(name, words, launcher) for words, name in rules.items()]
    (root / "build.ninja").write_text("".join((*texts, *edges)))


def _renamed(path: str, directory: str = "ninja/") -> str:
    """Where ninja, or another, makes what we make at `path`."""
    return path.replace(OURS, directory, 1)


def _ninja_rule(name: str, words: str, launcher: str) -> str:
    if name.startswith("linked"):
        more = "rspfile = $out.rsp\n  rspfile_content = $in"
    else:
        words, more = f"{launcher} {words}".strip(), "depfile = $out.d\n  deps = gcc"
    return f"rule {name}\n  command = {words}\n  {more}\n"


def write_plain_doit(root: Path, commands: Sequence[PeerCommand]) -> None:
    """The same for doit itself: one task per unit, dependencies declared, its own checker and database."""
    programs = []
    for link in [command for command in commands if command.count_as == "linked"]:
        compiles = [command for command in commands if command.out in link.sources]
        sources = [command.sources[0] for command in compiles]
        objects = [_renamed(command.out, "plain/") for command in compiles]
        programs.append((compiles[0].words(), sources, objects, link.words(), _renamed(link.out, "plain/")))
    (root / "plain_dodo.py").write_text(PLAIN_DODO.format(headers=HEADERS, programs=programs))

"""Random edits and damage of a random project, as people and disks do them.

Knows the model only to tell it what it cannot see: that records or results are gone. Everything comes from one random
generator, so that a seed is a whole test.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

from tests.unit.fake_tool import INCLUDE
from tests.unit.random_project import Model, RandomProject, remove_tree

PRECIOUS = "nobody's output\n"


class EditScript:
    """Random edits of one project. Everything comes from `rng`, so that a seed is a whole test."""

    def __init__(self, project: RandomProject, model: Model, rng: random.Random) -> None:
        self.project, self.model, self.rng = project, model, rng
        self.log: list[str] = []
        self._fresh = 0
        self._damaged: set[Path] = set()
        """Generated files that cannot be known as ours any more."""
        self._old: dict[str, str] = {}
        for number in range(3):
            project.write(
                f"inc/h{number}.h", f"int h{number};\n" + (f'#include "h{number + 1}.h"\n' if number < 2 else "")
            )
        project.write("gen/g0.txt", "int g0;\n")
        project.write("scripts/p0.py", "int p0;\n")
        project.write("tools/helper.py", 'VALUE = "int help0;"\n')
        project.write("data/d0.bin", "data 0\n")
        project.write("precious", PRECIOUS)
        for number in range(rng.randint(2, 5)):
            project.write(f"src/s{number}.c", self._source())

    def step(self) -> None:
        """One to three edits."""
        names = [name for name in dir(self) if name.startswith("op_")]
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            name = self.rng.choice(names)
            what = getattr(self, name)()
            self.log.append(f"{name[3:]} {what or ''}".rstrip())

    def _source(self) -> str:
        names = [Path(path).name for path in self.project.paths("inc")] + self._generated()
        chosen = self.rng.sample(names, self.rng.randint(0, min(2, len(names))))
        return "".join(f'#include "{name}"\n' for name in chosen) + f"int v{self._number():04};\n"

    def _number(self) -> int:
        """Often an old one, so that contents come back."""
        if self._fresh and self.rng.random() < 0.5:
            return self.rng.randrange(self._fresh)
        self._fresh += 1
        return self._fresh

    def _any(self, *directories: str) -> str:
        return self.rng.choice([path for directory in directories for path in self.project.paths(directory)])

    def _text(self, path: str) -> str:
        return (self.project.root / path).read_text()

    def _outputs(self) -> list[Path]:
        """Those that are no link to another file, which an edit of them would change."""
        found = (self.project.root / "build").rglob("*")
        return sorted(p for p in found if not p.is_symlink() and p.is_file() and p.stat().st_nlink == 1)

    # edits of what people write

    def op_edit(self) -> str:
        path = self._any("src", "inc", "gen", "first")
        self._old[path] = self._text(path)
        self.project.write(path, re.sub(r"int \w+;", f"int v{self._number():04};", self._text(path)))
        return path

    def op_new_includes(self) -> str:
        path = self.rng.choice([p for p in self.project.paths("src") if p.endswith(".c")])
        self._old[path] = self._text(path)
        self.project.write(path, self._source())
        return path

    def op_comment(self) -> str:
        path = self._any("src", "inc", "gen")
        self.project.write(path, self._text(path) + f"// {self._number()}\n")
        return path

    def op_revert(self) -> str:
        path = self.rng.choice(sorted(p for p in self._old if (self.project.root / p).exists()) or [self._any("src")])
        if path in self._old and all(f'"{Path(h).name}"' not in self._old[path] for h in self._gone(path)):
            self.project.write(path, self._old[path])
        return path

    def _gone(self, path: str) -> list[str]:
        """Headers that the old text of `path` names and that are no more."""
        names = INCLUDE.findall(self._old[path])
        return [n for n in names if n[0] not in "gp" and not (self.project.root / "inc" / n).exists()]

    def op_touch(self) -> str:
        path = self._any("src", "inc", "gen")
        (self.project.root / path).touch()
        return path

    def op_same_stamp_edit(self) -> str:
        """Another content of the same size with the old mtime."""
        path = self._any("src", "inc", "gen")
        target = self.project.root / path
        status, text = target.stat(), self._text(path)
        match = re.search(r"int (\w)", text)
        assert match is not None
        self._old[path] = text
        letter = self.rng.choice("abcdefgh")
        target.write_text(text[: match.start(1)] + letter + text[match.end(1) :])
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert target.stat().st_size == status.st_size and target.stat().st_mtime_ns == status.st_mtime_ns
        return path

    def op_future_mtime(self) -> str:
        """As after the clock was set back."""
        path = self.project.root / self._any("src", "inc", "gen")
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 86400))
        return path.name

    def op_add_source(self) -> str:
        path = f"src/s{self.rng.randrange(8)}.c"
        self.project.write(path, self._source())
        return path

    def op_remove_source(self) -> str:
        paths = [p for p in self.project.paths("src") if p.endswith(".c")]
        if len(paths) < 2:
            return "nothing"
        path = self.rng.choice(paths)
        (self.project.root / path).unlink()
        return path

    def op_rename_source(self) -> str:
        path, new = self._any("src"), f"src/s{self.rng.randrange(8)}.c"
        if path.endswith(".c"):
            (self.project.root / path).rename(self.project.root / new)
        return f"{path} {new}"

    def op_shadow(self) -> str:
        """A header that is found before the one in inc/, or away with it. Only of a name that inc/ has: the engine may
        compile needlessly when one appears *behind* the one that is used, and the model would call that a fault."""
        name = Path(self._any("inc")).name
        target = self.project.root / "first" / name
        if target.exists():
            target.unlink()
            return f"remove {name}"
        self.project.write(f"first/{name}", f"int shadow{self._number():04};\n")
        return name

    # actions that come, go and change their names; what flags name; what an interpreter imports

    def _generated(self) -> list[str]:
        return [f"{Path(path).stem}.h" for path in (*self.project.paths("gen"), *self.project.paths("scripts"))]

    def op_generator(self) -> str:
        """One comes, goes, or takes another's name. What includes its header fails then, here and in a clean build."""
        what = self._generator()
        made = {self.project.root / path for action in self.project.actions() for path in action.outputs}
        for path in self._damaged - made:
            path.unlink(missing_ok=True)  # with bytes that are not ours it would stay
        return what

    def _generator(self) -> str:
        seeds = self.project.paths("gen")
        path = f"gen/g{self.rng.randrange(3)}.txt"
        if len(seeds) > 1 and self.rng.random() < 0.5:
            path = self.rng.choice(seeds)
            (self.project.root / path).unlink()
            return f"remove {path}"
        if seeds and self.rng.random() < 0.3:
            (self.project.root / self.rng.choice(seeds)).rename(self.project.root / path)
            return f"rename to {path}"
        self.project.write(path, f"int v{self._number():04};\n")
        return path

    def op_helper(self) -> str:
        """Of the same size, and mostly with the old mtime."""
        path = self.project.root / "tools/helper.py"
        status = path.stat()
        path.write_text(f'VALUE = "int help{self.rng.randrange(10)};"\n')
        if self.rng.random() < 0.7:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return ""

    def op_data(self) -> str:
        path = f"data/d{self.rng.randrange(2)}.bin"
        if self.rng.random() < 0.3:
            (self.project.root / path).unlink(missing_ok=True)
            return f"remove {path}"
        self.project.write(path, f"data {self._number()}\n")
        return path

    # links: a header or a directory of them by another way, and elsewhere

    def op_link_header(self) -> str:
        """A header becomes a link to its bytes in another directory, or a file again."""
        path = self._any("inc")
        target, elsewhere = self.project.root / path, f"else/{Path(path).name}"
        text = target.read_text()
        target.unlink()
        if self.rng.random() < 0.5:
            self.project.write(elsewhere, text)
            target.symlink_to(f"../{elsewhere}")
        else:
            target.write_text(text)
        return path

    def op_link_directory(self) -> str:
        """The directory that is searched first leads to one of three; those of before stay, as old as they are."""
        first = self.project.root / "first"
        if first.is_dir() and not first.is_symlink():
            remove_tree(self.project.root / "firsts/0")
            first.rename(self.project.mkdir("firsts") / "0")
        first.unlink(missing_ok=True)
        number = self.rng.randrange(3)
        self.project.mkdir(f"firsts/{number}")
        first.symlink_to(f"firsts/{number}")
        for name in sorted(p.name for p in first.iterdir()):
            if not (self.project.root / "inc" / name).exists():
                (first / name).unlink()
        return str(number)

    def op_link_source(self) -> str:
        """A source becomes a link out of the project's sources, or a file again."""
        path = self.rng.choice([p for p in self.project.paths("src") if p.endswith(".c")])
        target, elsewhere = self.project.root / path, f"else/{Path(path).name}"
        text = target.read_text()
        target.unlink()
        if self.rng.random() < 0.5:
            self.project.write(elsewhere, text)
            target.symlink_to(f"../{elsewhere}")
        else:
            target.write_text(text)
        return path

    def op_link_output(self) -> str:
        """An output is replaced by a link, hard or symbolic, to a file that must stay as it is."""
        for path in self.rng.sample(self._outputs(), min(1, len(self._outputs()))):
            precious = self.project.root / "precious"
            self._damaged.add(path)
            path.unlink()
            (path.symlink_to if self.rng.random() < 0.5 else path.hardlink_to)(precious)
            return path.name
        return ""

    def op_profile(self) -> str:
        self.project.shape.profile = self.rng.choice(("fast", "slow"))
        return self.project.shape.profile

    def op_flags(self) -> str:
        self.project.shape.flags = self.rng.choice(((), ("-DX",), ("-DX", "-DY")))
        return " ".join(self.project.shape.flags)

    def op_tool(self) -> str:
        self.project.shape.identity = self.rng.choice(("fake 1", "fake 2"))
        return self.project.shape.identity

    def op_programs(self) -> str:
        self.project.shape.programs = self.rng.randint(1, 3)
        return str(self.project.shape.programs)

    # damage

    def op_corrupt_output(self) -> str:
        for path in self.rng.sample(self._outputs(), min(1, len(self._outputs()))):
            status, data = path.stat(), path.read_bytes()
            self._damaged.add(path)
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if data else b"x")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            return str(path.name)
        return ""

    def op_delete_output(self) -> str:
        for path in self.rng.sample(self._outputs(), min(1, len(self._outputs()))):
            path.unlink()
            return str(path.name)
        return ""

    def op_chmod_output(self) -> str:
        for path in self.rng.sample(self._outputs(), min(1, len(self._outputs()))):
            path.chmod(path.stat().st_mode ^ 0o111)
        return ""

    def op_delete_build(self) -> str:
        remove_tree(self.project.root / "build")
        return ""

    def op_delete_state(self) -> str:
        """And what nothing else knows of: products of actions that are gone."""
        made = {self.project.root / path for action in self.project.actions() for path in action.outputs}
        for path in (self.project.root / "build/gen").glob("*"):
            if path not in made:
                path.unlink()
        self._damaged.update((self.project.root / "build/gen").glob("*"))
        remove_tree(self.project.root / ".deploy")
        self.model.clear_records()
        return ""

    def op_delete_store(self) -> str:
        if self.rng.random() < 0.5:
            return "not"
        remove_tree(self.project.cache)
        self.model.clear_store()
        return ""

    def op_damage_store(self) -> str:
        """One file gone or cut; the model does not know which results need it."""
        files = sorted(p for p in self.project.cache.rglob("*") if p.is_file())
        if not files or self.rng.random() < 0.7:
            return "not"
        path = self.rng.choice(files)
        if self.rng.random() < 0.5:
            path.unlink()
        else:
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1])
        self.model.doubt_store()
        return path.name[:12]

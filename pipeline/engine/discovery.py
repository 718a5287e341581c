"""From the depfile of a command that ran to the set of files that its result depends on.

Knows depfiles, search paths and what a depfile hides (`formats/c_source`). Does not know keys or the cache. Invariant:
the set names every file that the command read beside its declared inputs, as far as compilers and texts tell, and every
place where a new file would have been read instead; it names a generated file as the action that makes it does.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import filterfalse
from typing import TYPE_CHECKING, Protocol

from cache.digest import digest_bytes
from cache.durable import read_file
from cache.fileclock import Moment
from cache.named_tuple import NamedTuple
from pipeline.engine.candidates import CandidateSet, IdentifiedSet
from pipeline.engine.include_shadows import IncludeShadows
from pipeline.engine.symlinks import link_made_since
from pipeline.engine.workspace import Workspace
from pipeline.formats import depfile
from pipeline.formats.include_search import PRECOMPILED
from pipeline.model import Action, Statement

if TYPE_CHECKING:
    from cache.stamps import Entry
    from pipeline.formats import c_source  # what few runs need is loaded by those that do


class FilesNow(Protocol):
    """Answers about files, of a run or of one that is only forecast."""

    def entry(self, path: str) -> Entry | None: ...

    def is_present(self, path: str) -> bool: ...

    def first_present(self, paths: Sequence[str]) -> str: ...

    def exists(self, path: str) -> bool: ...

    def identify(self, candidate: CandidateSet) -> IdentifiedSet | None: ...


class Reported(NamedTuple):
    """What a depfile comes to. `unread`: files in places that are searched before those of what was read; either the
    command does not search there, or they appeared after it had."""

    candidate: CandidateSet
    unread: tuple[str, ...] = ()
    is_whole: bool = True
    """Is this certainly everything? If not, the result serves nobody else."""


class Discovery:
    """What commands of one `run` read. Safe to use from several threads: at worst two of them work out the same."""

    def __init__(self, workspace: Workspace, observer: FilesNow) -> None:
        self._workspace = workspace
        self._observer = observer
        self._names: dict[str, str] = {}
        self._plain_names: dict[str, str] = {}
        self._spelt_sets: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._plain_sets: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._shadowed: dict[object, tuple[str, ...]] = {}
        self._depfiles = depfile.DepfileReader()
        self._includes = IncludeShadows(workspace.searches, workspace.resolve, self._normalised, self._plain)
        self._unmarked: tuple[Entry, ...] = ()
        """The files of the last set that hides nothing."""
        self._hidden: dict[str, tuple[c_source.Hidden, tuple[str, ...]]] = {}

    def from_depfile(self, action: Action) -> Reported | str:
        """Read the depfile, which is then removed (a restored result has none either); what is wrong with it when it
        is unusable."""
        if not action.depfile:
            return Reported(CandidateSet((), action.absent))
        path = self._workspace.resolve(action.depfile)
        if action.statement is not None and action.statement.traced:
            return self._from_trace(action, path)
        try:
            reported = self._depfiles.parse(os.fsdecode(read_file(path)))
            if action.depfile not in action.outputs and not _reads_itself(action):
                os.unlink(path)  # noqa: PTH108
        except IsADirectoryError:
            return f"its depfile {action.depfile} is a directory"
        except FileNotFoundError:
            reported = () if _may_lack(action) else None
        except OSError:
            return f"the command wrote no usable depfile {action.depfile}"
        if reported is None:
            return f"the command wrote no usable depfile {action.depfile}"
        if action.statement is not None:
            reported = self._from_root(action, action.statement, reported)
        return self._of_names(action, reported)

    def of_ninja(self, action: Action, read: Sequence[str]) -> Reported:
        """The same of what ninja knows that a statement read, with what the texts say. `unread`: also what is there and
        of which ninja does not know that it was read, and directories from which such a file may have gone."""
        statement = action.statement
        assert statement is not None
        known = [statement.located(path) for path in read]
        if not statement.evidence or statement.traced:
            others = {self._normalised(path) for path in known}.difference(action.inputs, action.outputs)
            return Reported(CandidateSet(tuple(sorted(others)), ()))
        names = self._from_root(action, statement, read)
        libraries = self._libraries(action) if action.count_as == "linked" else ()
        reported = self._of_names(action, (*names, *libraries))
        candidate = reported.candidate
        found = self._observer.identify(candidate)
        if found is not None:
            inputs = [(path, entry) for path in action.inputs if (entry := self._observer.entry(path)) is not None]
            candidate = self.with_hidden(action, inputs, candidate, found)
        told = self._known_as(self._spelt(tuple(known)), action)
        later = {*candidate.discovered}.difference(told)
        later.update(self._asked_in(set(candidate.absent).difference(reported.candidate.absent)))
        return Reported(candidate, (*reported.unread, *sorted(later)))

    def _asked_in(self, absent: Iterable[str]) -> set[str]:
        """The directories of the project that tell by their times whether one of these files was there; of those that
        are not there the nearest above. One that actions write to tells nothing."""
        found = set()
        for beside in {posixpath.dirname(path) for path in absent if path[:1] not in ("/", "{")}:
            directory = beside
            while directory and not os.path.lexists(self._workspace.resolve(directory)):
                directory = posixpath.dirname(directory)
            if directory not in ("", ".") and directory not in self._written_to:
                found.add(directory)
        return found

    def _libraries(self, action: Action) -> list[str]:
        """Of each `-l` of a link the file that is found first, below the directories of `-L`."""
        from pipeline.formats import linker_script

        said = linker_script.libraries(self._workspace.searches.spoken(action))
        search = [self._located(action, path) for path in said.search]
        found = []
        for name in said.names:
            places = (f"{directory}/{file}" for directory in search for file in linker_script.library_names(name))
            if place := next(filter(self._observer.exists, places), ""):
                found.append(place)
        return found

    def _members(self, files: Iterable[str]) -> list[str]:
        """What thin archives among these name: a linker reads it, and says nothing of it."""
        found = []
        for path in files:
            if not path.endswith(".a"):
                continue
            place = self._workspace.resolve(path)
            try:
                with open(place, "rb") as stream:  # noqa: PTH123 - most are not thin
                    if stream.read(8) != b"!<thin>\n":
                        continue
                data = read_file(place)
            except OSError:
                continue
            from pipeline.formats import thin_archive

            names = map(os.fsdecode, thin_archive.members(data))
            found += [self._plain(self._normalised(posixpath.join(posixpath.dirname(path), name))) for name in names]
        return found

    def _of_names(self, action: Action, reported: Sequence[str]) -> Reported:
        """What a command comes to that read the files of these names."""
        # What it makes is gone before it runs, so that it cannot depend on it.
        declared = {*action.inputs, *action.outputs, action.depfile}
        if "|" in reported and not self._observer.exists("|"):
            declared.add("|")  # make's mark before prerequisites that are there for the order alone
        spelt = self._spelt(tuple(filterfalse(declared.__contains__, reported)))
        if not declared.isdisjoint(spelt):
            spelt = tuple([name for name in spelt if name not in declared])
        if action.count_as == "linked":
            lasting = [name for name in spelt if self._lasts(name)]
            members = self._members((*action.inputs, *lasting))
            spelt = tuple(dict.fromkeys((*lasting, *(name for name in members if name not in declared))))
        # What is searched is what the source spells.
        shadows = tuple(self._shadows(action, spelt))
        if not declared.isdisjoint(shadows):
            shadows = tuple([name for name in shadows if name not in declared])
        unread: tuple[str, ...] = ()
        if self._observer.first_present(shadows):
            unread = tuple(name for name in shadows if self._observer.is_present(name) and self._observer.exists(name))
            # No compiler says that it read a precompiled header.
            spelt = (*spelt, *(name for name in unread if name.endswith(PRECOMPILED)))
        if action.absent or unread:
            shadows = tuple([name for name in dict.fromkeys((*action.absent, *shadows)) if name not in unread])
        return Reported(CandidateSet(self._known_as(spelt, action), shadows), unread)

    def _from_trace(self, action: Action, path: str) -> Reported:
        """What programs of Python said that they read; the text is removed."""
        from pipeline.formats.python_trace import parse_trace

        try:
            text = os.fsdecode(read_file(path))
            os.unlink(path)  # noqa: PTH108
        except OSError:
            text = ""
        trace = parse_trace(text)
        own = {*action.inputs, *action.outputs}
        read = {self._plain(self._normalised(name)) for name in trace.read} - own
        missing = {self._plain(self._normalised(name)) for name in trace.missing} - own - read
        lasting = sorted(name for name in read if self._observer.exists(name))
        written = {self._plain(self._normalised(name)) for name in trace.written} - own
        is_whole = not trace.unknown and not any(map(self._observer.exists, written))
        absent = sorted(name for name in missing if not self._observer.exists(name))
        return Reported(CandidateSet(tuple(lasting), tuple(absent)), (), is_whole)

    def _from_root(self, action: Action, statement: Statement, reported: Sequence[str]) -> tuple[str, ...]:
        """What a statement's depfile names, from the root; of a link also the scripts that it reads, which linkers
        leave out or name without their directories."""
        names = [statement.located(path) for path in reported]
        return (*names, *self._scripts(action)[0]) if action.count_as == "linked" else tuple(names)

    def _scripts(self, action: Action) -> tuple[list[str], list[str]]:
        """The linker scripts of a link and the files that they name, and where each would have been found first."""
        from pipeline.formats import linker_script

        found: dict[str, None] = {}
        earlier: dict[str, None] = {}
        words = self._workspace.searches.spoken(action)
        search = [self._located(action, path) for path in linker_script.library_path(words)]
        waiting = [(name, "") for name in linker_script.given_scripts(words)]
        while waiting:
            name, beside = waiting.pop(0)
            if name.startswith("-l"):
                files = linker_script.library_names(name[2:])
                places = [f"{directory}/{file}" for directory in search for file in files]
            else:
                directories = () if name[:1] in ("/", "{") else (*([beside] if beside else []), *search)
                places = [self._located(action, name), *(f"{directory}/{name}" for directory in directories)]
            first = next((n for n, place in enumerate(places) if self._observer.exists(place)), len(places))
            earlier.update(dict.fromkeys(map(self._normalised, places[:first])))
            if first == len(places) or places[first] in found:
                continue
            place = places[first]
            found[place] = None
            if name.startswith("-l") or place.endswith((".a", ".o", ".so")):
                continue
            text = os.fsdecode(read_file(self._workspace.resolve(place)))
            search += [self._located(action, each) for each in linker_script.script_search(text)]
            waiting += [(each, posixpath.dirname(place)) for each in linker_script.named_files(text)]
        return list(found), list(earlier)

    def _located(self, action: Action, path: str) -> str:
        """A path of a command, from the root."""
        if action.statement is None or path in action.inputs:
            return path
        return path.removeprefix("{root}/") if path.startswith("{root}/") else action.statement.located(path)

    def appeared(self, paths: Iterable[str], moment: Moment) -> str:
        """The first of these files that may not have been there before `moment`, `""` if there is none: it, a link to
        it or a directory above it was changed since. A directory that actions write to tells nothing."""
        paths = list(paths)
        if not paths:
            return ""
        root, clock = str(self._workspace.root), self._workspace.file_clock
        if link := link_made_since(root, paths, clock, moment):
            return link
        for path in paths:
            place = self._workspace.resolve(path)
            try:
                if not clock.is_before(os.stat(place), place, moment):  # noqa: PTH116
                    return path
            except OSError:
                continue  # gone again, and not read
            if self.is_directory_moved(posixpath.dirname(path), moment):
                return path
        return ""

    def is_directory_moved(self, directory: str, moment: Moment) -> bool:
        """May a name have come to this directory of the project, or to one above it, since `moment`, or gone? If it is
        not there, the nearest above it that is stands for it."""
        if directory.startswith(("/", "{")):
            return False
        while directory not in ("", ".") and directory not in self._written_to:
            place = self._workspace.resolve(directory)
            try:
                if not self._workspace.file_clock.is_before(os.lstat(place), place, moment):
                    return True
            except OSError:
                pass
            directory = posixpath.dirname(directory)
        return False

    @cached_property
    def _written_to(self) -> frozenset[str]:
        """Directories in which actions make files, and those above them."""
        found: set[str] = set()
        for action in self._workspace.graph.order:
            for path in (*action.outputs, action.depfile):
                directory = posixpath.dirname(path)
                while directory not in found and directory:
                    found.add(directory)
                    directory = posixpath.dirname(directory)
        return frozenset(found)

    def with_hidden(
        self, action: Action, inputs: Sequence[tuple[str, Entry]], candidate: CandidateSet, found: IdentifiedSet
    ) -> CandidateSet:
        """`candidate` and what the texts say that the depfile does not; `found` is what its files hold. Reads only
        files that are marked."""
        if action.count_as != "compiled" or (
            found.entries is self._unmarked and not any(entry.marked for _, entry in inputs)
        ):
            return candidate
        paths = [path for path, _ in (*inputs, *found.discovered)]
        entries = [*(entry for _, entry in inputs), *found.entries]
        marked = [(path, entry) for path, entry in zip(paths, entries, strict=True) if entry.marked]
        if not marked:
            self._unmarked = found.entries  # most compiles share theirs
            return candidate
        from pipeline.formats import c_source

        search, wanted = self._includes.search_of(action).every, dict[str, None]()
        texts = {path: self._read(path, entry) for path, entry in marked}
        for path, (hidden, _) in texts.items():
            beside = () if path.startswith(("/", "{")) else (posixpath.dirname(path),)
            for name in hidden.asked:
                wanted.update(dict.fromkeys(c_source.places(name, beside, search)))
        if any(hidden.assembled for hidden, _ in texts.values()):
            words = [self._workspace.placed(word) for word in self._workspace.searches.spoken(action)]
            names = dict.fromkeys(piece for word in words for piece in c_source.quoted(word))
            # A macro may make a string of it, too.
            names.update(dict.fromkeys(filter(None, (word.partition("=")[2] for word in words))))
            for path, entry in zip(paths, entries, strict=True):
                if not path.startswith(("/", "{")):
                    names.update(dict.fromkeys((texts.get(path) or self._read(path, entry))[1]))
            wanted.update(self._assembled(list(names), search, _directory(action)))
        return self._extended(action, candidate, wanted)

    def _assembled(self, names: list[str], search: Sequence[str], here: str) -> dict[str, None]:
        """Where the assembler may look for what `names` lead to, and what the files that it includes name. A name that
        leads nowhere is none of a file. `here`: where it runs."""
        from pipeline.formats import c_source

        wanted: dict[str, None] = {}
        for name in names:  # grows
            places = list(c_source.places(name, (here,), search))
            there = [path for path in places if self._observer.is_present(path)]
            if not there:
                continue
            wanted.update(dict.fromkeys(places))
            for path in there:
                entry = self._observer.entry(path)
                if entry is not None and entry.marked:
                    names += [piece for piece in self._read(path, entry)[1] if piece not in names]
        return wanted

    def _extended(self, action: Action, candidate: CandidateSet, wanted: Iterable[str]) -> CandidateSet:
        known = {*action.inputs, *candidate.discovered}
        names = [name for path in wanted if (name := self._normalised(path)) not in known]
        # Not as they were when some other command ran.
        present = [name for name in names if self._observer.exists(name)]
        headers = {*candidate.discovered, *self._known_as(present, action)}
        absent = {*candidate.absent, *names} - set(present)
        return CandidateSet(tuple(sorted(headers)), tuple(sorted(absent)))

    def _read(self, path: str, entry: Entry) -> tuple[c_source.Hidden, tuple[str, ...]]:
        """What a file hides, and what stands in it between quotes. Once for each content."""
        from pipeline.formats import c_source

        known = self._hidden.get(entry.sha256)
        if known is None:
            try:
                data = read_file(self._workspace.resolve(path))
            except OSError:
                data = b""
            text = os.fsdecode(data)
            known = c_source.hidden(text), (*c_source.quoted(text), *c_source.unquoted(text))
            # One that moved since it was looked at: whoever looks next sees that.
            if digest_bytes(data).hex == entry.sha256:
                self._hidden[entry.sha256] = known
        return known

    def _known_as(self, spelt: Sequence[str], action: Action) -> tuple[str, ...]:
        """What was read through a link is known by its path, since the link may lead elsewhere one day, and by the
        name that whoever makes it gives it."""
        products = self._workspace.links.products((*spelt, *action.inputs))
        plain = self._plain_sets.get(tuple(spelt))
        if plain is None:
            plain = self._plain_sets[tuple(spelt)] = tuple(sorted(set(map(self._plain, spelt))))
        if not products and not any(path in plain for path in action.inputs):
            return plain
        return tuple(sorted({*plain, *products}.difference(action.inputs)))

    def _spelt(self, reported: tuple[str, ...]) -> tuple[str, ...]:
        """What a depfile names as it stands in keys, sorted: worked out once for all that name the same."""
        known = self._spelt_sets.get(reported)
        if known is None:
            known = self._spelt_sets[reported] = tuple(sorted(set(map(self._normalised, reported))))
        return known

    def _normalised(self, path: str) -> str:
        """As `depfile.normalise`, once per header instead of once per inclusion."""
        if path not in self._names:
            self._names[path] = self._workspace.key_path(path)
        return self._names[path]

    def _plain(self, name: str) -> str:
        """`name` without `..` where that names the same file: behind a symbolic link it does not."""
        if "/../" not in name:
            return name
        if name not in self._plain_names:
            plain = posixpath.normpath(name)
            try:
                same = os.path.samefile(self._workspace.resolve(name), self._workspace.resolve(plain))  # noqa: PTH121
            except OSError:
                same = False
            self._plain_names[name] = plain if same else name
        return self._plain_names[name]

    def _lasts(self, name: str) -> bool:
        """Is this a file that the next link will find too? Not what a linker makes for itself (objects of link-time
        optimisation in a temporary directory, libraries in a cache of ours), which follows from the rest; nor a script
        of `-L`, which GNU ld names without its directory: `toolchain/named_files` declared it."""
        return not name.startswith(f"{self._workspace.directories.state.name}/") and self._observer.exists(name)

    def _shadows(self, action: Action, spelt: tuple[str, ...]) -> Iterable[str]:
        """Where a new file would be read instead of one of those that the command reported."""
        if action.count_as == "compiled":
            return self._includes.places(action, spelt)
        if action.count_as == "linked":
            from pipeline.formats import linker_script

            said = linker_script.libraries(self._workspace.searches.spoken(action))
            search = tuple(self._normalised(self._located(action, path)) for path in said.search)
            earlier = {*linker_script.earlier_libraries(said._replace(search=search), {*spelt, *action.inputs})}
            if action.statement is not None:
                earlier.update(self._scripts(action)[1])
            return sorted(earlier)
        search = self._includes.search_of(action).every
        what = (search, tuple(map(posixpath.dirname, action.inputs)), spelt)
        if what not in self._shadowed:
            self._shadowed[what] = depfile.shadows(search, action.inputs, spelt)
        return self._shadowed[what]


def _directory(action: Action) -> str:
    return "" if action.statement is None or action.statement.directory == "." else action.statement.directory


def _reads_itself(action: Action) -> bool:
    """Does ninja read this depfile each time?"""
    statement = action.statement
    return statement is not None and not statement.deps and statement.depfile == action.depfile


def _may_lack(action: Action) -> bool:
    """May a command that succeeded have written no depfile? One of which nobody knows what it reads, linkers that do
    not know how, and compilers for a source that passes no preprocessor: what that reads stands in its text."""
    if action.statement is not None and not action.statement.evidence:
        return True
    return action.count_as == "linked" or (action.count_as == "compiled" and action.inputs[0].endswith(".s"))

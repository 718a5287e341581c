"""A compile of a generated build as an action of few bytes: there may be fifty thousand.

What many compiles have in common they share; a unit holds its source and its object, which others hold too, and says
its command when somebody asks. Pure. Does not know what the words mean. Invariant: a unit is equal to the `Action` with
the same fields, in every respect but its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.named_tuple import NamedTuple
from pipeline.model import Action, Stage


class Compiling(NamedTuple):
    """What is the same for many sources: the words before and after what names their own files, what all of them read,
    and `of`, which their names end with. `reports`: does the compiler write a depfile?"""

    before: tuple[str, ...]
    after: tuple[str, ...]
    files: tuple[str, ...] = ()
    profile: str = ""
    salt: str = ""
    of: str = ""
    reports: bool = True


def file_word(path: str) -> str:
    """A path as a word that no program takes for an option or a response file."""
    return f"./{path}" if path.startswith(("-", "@")) else path


def compile_unit(how: Compiling, source: str, made: str) -> Action:
    """The action that compiles `source` into the object `made`, whose name ends with `.o`; its depfile has its name
    with `.d`."""
    return _CompileUnit(how, source, made, f"{how.profile}:compile {source}{how.of}")


if TYPE_CHECKING:

    def _CompileUnit(how: Compiling, source: str, made: str, known_as: str) -> Action: ...

else:
    try:
        from _collections import _tuplegetter as _at  # what named tuples read their fields with
    except ImportError:

        def _at(place, doc):
            return property(lambda self: tuple.__getitem__(self, place), doc=doc)

    class _CompileUnit(Action):
        """The tuple behind it is (how, source, made, known_as); to everybody else it is that of an `Action`."""

        __slots__ = ()

        _how = _at(0, "What it shares.")
        _source = _at(1, "")
        _made = _at(2, "")
        known_as = _at(3, "Which its record holds, too.")

        stage = Stage.COMPILE
        builtin = ""
        params = env = absent = ()
        cacheable = True
        count_as = "compiled"
        statement = None
        is_users = False

        def __new__(cls, how, source, made, known_as):
            return tuple.__new__(cls, (how, source, made, known_as))

        @property
        def name(self):
            return self.known_as[len(self._how.profile) + 1 :]

        @property
        def inputs(self):
            source, files = self._source, self._how.files
            return (source, *[path for path in files if path != source]) if files else (source,)

        @property
        def outputs(self):
            return (self._made,)

        @property
        def argv(self):
            how, made = self._how, self._made
            depfile = ("-MD", "-MF", made[:-1] + "d") if how.reports else ()
            return (*how.before, *how.after, *depfile, "-c", file_word(self._source), "-o", made)

        @property
        def depfile(self):
            return self._made[:-1] + "d"

        @property
        def profile(self):
            return self._how.profile

        @property
        def salt(self):
            return self._how.salt

        def __iter__(self):
            return iter([getattr(self, field) for field in self._fields])

        def __len__(self):
            return len(self._fields)

        def __getitem__(self, at):
            return tuple(self)[at]

        def __contains__(self, value):
            return value in tuple(self)

        def __eq__(self, other):
            return self is other or tuple(self) == (tuple(other) if other.__class__ is _CompileUnit else other)

        def __ne__(self, other):
            return not self == other

        def __hash__(self):
            return hash(tuple(self))

        def __repr__(self):
            return repr(Action._make(self))

        @classmethod
        def _make(cls, values):
            return Action._make(values)

        def __reduce__(self):
            return Action, tuple(self)

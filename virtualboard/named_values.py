"""`typing.NamedTuple` for this package, made in a fraction of the time.

A board in a deploy's own process is new each time, and so are its classes: `typing` compiles the annotation of every
field, `dataclasses` imports `inspect` and compiles each method, and both cost more than what a board then does. Here
classes share the methods, as those of `cache/named_tuple.py` do, which this package may not import. Knows nothing
of what uses it. Invariant: a class made here has the fields, defaults and behaviour that `typing.NamedTuple` would have
given it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["NamedValues"]

if TYPE_CHECKING:
    from typing import NamedTuple as NamedValues
else:
    from operator import itemgetter

    class _Values(tuple):
        __slots__ = ()

        def __new__(cls, *values, **named):
            fields = cls._fields
            if len(values) < len(fields) or named:
                values += tuple(cls._take(fields[len(values) :], named))
            if named or len(values) != len(fields):
                raise TypeError(f"{cls.__name__}() got unexpected arguments: {[*named] or len(values)}")
            return tuple.__new__(cls, values)

        @classmethod
        def _take(cls, fields, named):
            for field in fields:
                if field in named:
                    yield named.pop(field)
                elif field in cls._field_defaults:
                    yield cls._field_defaults[field]
                else:
                    raise TypeError(f"{cls.__name__}() lacks the argument '{field}'")

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, /, **changes):
            return type(self)(**{**self._asdict(), **changes})

        def __repr__(self):
            shown = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({shown})"

        def __getnewargs__(self):
            return tuple(self)

    class _ValuesMaker(type):
        """The class of `NamedValues`: what is derived from that is a tuple instead."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = tuple(namespace.get("__annotations__", ()))
            defaults = {field: namespace[field] for field in fields if field in namespace}
            own = {
                "__slots__": (),
                "__doc__": f"{name}({', '.join(fields)})",
                **namespace,
                "_fields": fields,
                "_field_defaults": defaults,
                "__match_args__": fields,
                **{field: property(itemgetter(index)) for index, field in enumerate(fields)},
            }
            return type(name, (_Values,), own)

    class NamedValues(metaclass=_ValuesMaker):
        """To be derived from."""

"""`typing.NamedTuple`, made in a fraction of the time.

A run of doit makes a hundred and sixty classes of this kind while it starts, and makes values of few of them. `typing`
compiles the annotation of every field of each, which type checkers read in the source and nothing here asks for, and
`collections` a constructor of its own; here that waits for the ninth value, and the other methods are shared. Knows
nothing of what uses it. Invariant: a class made here has the fields, defaults, methods and behaviour that
`typing.NamedTuple` would have given it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import namedtuple

    try:
        from _collections import _tuplegetter as _field  # what namedtuple itself uses, where there is one
    except ImportError:
        from operator import itemgetter

        def _field(index, doc):
            return property(itemgetter(index), doc=doc)

    def _make(cls, iterable):
        made = tuple.__new__(cls, iterable)
        if len(made) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
        return made

    def _replace(self, /, **changes):
        made = self._make(map(changes.pop, self._fields, self))
        if changes:
            raise TypeError(f"Got unexpected field names: {[*changes]!r}")
        return made

    def _asdict(self):
        return dict(zip(self._fields, self, strict=True))

    def _repr(self):
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{self.__class__.__name__}({shown})"

    def _getnewargs(self):
        return tuple(self)

    _SHARED = {
        "__slots__": (),
        "_make": classmethod(_make),
        "_replace": _replace,
        "_asdict": _asdict,
        "__repr__": _repr,
        "__getnewargs__": _getnewargs,
    }

    if sys.version_info >= (3, 13):
        _SHARED["__replace__"] = _replace

    _FEW = 8
    """Values of a class that are made without a constructor of its own, which costs as much as thirty."""

    def _values(fields, defaults, args, kwargs):
        """The values in order; None where they are not what the class takes, which its constructor says."""
        if len(args) == len(fields) and not kwargs:
            return args
        rest = fields[len(args) :]
        try:
            values = [*args, *[kwargs[field] if field in kwargs else defaults[field] for field in rest]]
        except KeyError:
            return None
        return values if kwargs.keys() <= set(rest) and len(values) == len(fields) else None

    class _Maker(type):
        """The class of `NamedTuple`: what is derived from that is a tuple instead."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = tuple(namespace.get("__annotations__", {}))
            defaults = {field: namespace[field] for field in fields if field in namespace}

            made_so_far = 0

            def first(cls, /, *args, **kwargs):
                nonlocal made_so_far
                made_so_far += 1
                values = _values(fields, defaults, args, kwargs) if made_so_far <= _FEW else None
                if values is not None:
                    return tuple.__new__(cls, values)
                real = namedtuple(name, fields, defaults=defaults.values(), module=namespace["__module__"]).__new__
                made.__new__ = staticmethod(real)  # threads that come here at once each put an equal one there
                return real(cls, *args, **kwargs)

            made = type(
                name,
                (tuple,),
                {
                    **_SHARED,
                    "__doc__": f"{name}({', '.join(fields)})",
                    "__new__": first,
                    "__annotations__": {},
                    **namespace,
                    "_fields": fields,
                    "_field_defaults": defaults,
                    "__match_args__": fields,
                    **{field: _field(index, f"Alias for field number {index}") for index, field in enumerate(fields)},
                },
            )
            return made

    class NamedTuple(metaclass=_Maker):
        """To be derived from."""

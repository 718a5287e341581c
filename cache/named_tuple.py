"""`typing.NamedTuple`, made in half the time.

A run of doit makes a hundred classes of this kind while it starts. `typing` compiles the annotation of every field of
each; type checkers read them in the source, and nothing here asks for them. What is made is a `collections.namedtuple`
all the same. Knows nothing of what uses it. Invariant: a class made here has the fields, defaults, methods and
behaviour that `typing.NamedTuple` would have given it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import namedtuple

    _IN_PLACE = {"__annotations__", "__module__", "__qualname__"}

    class _Maker(type):
        """The class of `NamedTuple`: what is derived from that is a tuple instead."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = namespace.get("__annotations__", {})
            defaults = [namespace[field] for field in fields if field in namespace]
            made = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])
            for key, value in namespace.items():
                if key not in fields and key not in _IN_PLACE:
                    setattr(made, key, value)
            made.__annotations__, made.__qualname__ = fields, namespace["__qualname__"]
            return made

    class NamedTuple(metaclass=_Maker):
        """To be derived from."""

"""With which environment the page's button deploys a project: that of whoever named the project last.

Pure memory. Does not know messages or processes. Invariant: a build never uses the service's own environment, which is
that of the shell which happened to start it; and no environment, since it may hold secrets, is written anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping

MOST = 64
"""Projects that are remembered; the one that was named longest ago is forgotten."""

_OF_ONE_RUN = ("DEPLOY_TX_ID",)
"""What names one run and would be wrong in the next."""


class Environments:
    """By the root of a project."""

    def __init__(self) -> None:
        self._of: dict[str, Mapping[str, str]] = {}

    def remember(self, root: str, environment: Mapping[str, str]) -> None:
        """A client named this project, and this is its environment."""
        self._of.pop(root, None)
        self._of[root] = {name: value for name, value in environment.items() if name not in _OF_ONE_RUN}
        while len(self._of) > MOST:
            del self._of[next(iter(self._of))]

    def hear(self, root: str, environment: object) -> None:
        """The same of a message, whose sender may have said anything."""
        if isinstance(environment, dict) and environment and all(map(_is_variable, environment.items())):
            self.remember(root, environment)

    def of(self, root: str) -> Mapping[str, str] | None:
        """None where no client of this service has named the project yet."""
        return self._of.get(root)


def _is_variable(item: tuple[object, object]) -> bool:
    name, value = item
    plain = isinstance(name, str) and isinstance(value, str)
    return plain and bool(name) and "=" not in str(name) and "\0" not in f"{name}{value}"

"""What users' actions make, in which profile, and which products belong to another one.

Pure but for placing errors. Does not know tools. Invariant: after `check_profiles` no action reads what only a run of
another profile makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.config.schema import ActionConfig, DeployConfig
from pipeline.errors import ConfigError
from pipeline.formats.command_words import parts
from pipeline.formats.include_search import plain
from pipeline.model import Action
from pipeline.toolchain.config_places import KeyPath, config_failure_at


def in_profile(action: ActionConfig, profile: str) -> ActionConfig:
    """An `[[action]]` with the profile's name in place of `{profile}`."""

    def filled(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(word.replace("{profile}", profile) for word in words)

    return action._replace(
        argv=filled(action.argv),
        inputs=filled(action.inputs),
        outputs=filled(action.outputs),
        depfile=action.depfile.replace("{profile}", profile),
        tools=filled(action.tools),
    )


def declared_products(config: DeployConfig) -> frozenset[str]:
    """What the actions declare that they write."""
    return frozenset(path for action in config.actions for path in (*action.outputs, action.depfile) if path)


def check_profiles(root: Path, config: DeployConfig, profile: str, actions: Sequence[Action]) -> None:
    """Raises ConfigError when an action, or what goes to flash, reads a product of another profile: it would be what a
    run of that profile left there last."""
    others = {f"build/{name}/": name for name in config.profiles if name != profile}
    made = {path for action in actions for path in action.outputs}
    written = [
        (path, at) for path, at in _written(config, profile) if path not in made and path.startswith(tuple(others))
    ]
    places = dict(reversed(written))
    read = dict.fromkeys(path for action in actions for path in action.inputs)
    for path in (*places, *read):
        other = next((others[tree] for tree in others if path.startswith(tree)), None)
        if other is not None and path not in made:
            at = places.get(path) or _naming(config, profile, path)
            message = f"'{path}' is a product of profile '{other}', but this run builds '{profile}'"
            hint = (
                f"write 'build/{{profile}}/{path.split('/', 2)[2]}' in the [[action]], or build with --profile {other}"
            )
            raise ConfigError(config_failure_at(root, config, at, message, hint))


def _written(config: DeployConfig, profile: str) -> Iterator[tuple[str, KeyPath]]:
    """Every path that a value of deploy.toml holds, and where."""
    for n, action in enumerate(config.actions):
        yield from ((path, ("action", n, "inputs", m)) for m, path in enumerate(action.inputs))
        yield from _of_words(action.argv, ("action", n, "argv"))
    yield from ((image.file, ("image", image.name, "file")) for image in config.images)
    for n, library in enumerate(config.libraries):
        yield from ((path, ("library", n, "sources", m)) for m, path in enumerate(library.sources))
    yield from ((path, ("project", "sources", n)) for n, path in enumerate(config.project.sources))
    yield from ((path, ("bootloader", "sources", n)) for n, path in enumerate(config.bootloader.sources))
    for key in ("cflags", "cxxflags", "ldflags"):
        yield from _of_words(getattr(config.toolchain, key) or (), ("toolchain", key))
    for key in ("cflags", "cxxflags"):
        yield from _of_words(getattr(config.profiles[profile], key) or (), ("profile", profile, key))
    yield config.toolchain.linker_script, ("toolchain", "linker_script")
    yield config.bootloader.linker_script, ("bootloader", "linker_script")
    yield config.partitions.table, ("partitions", "table")


def _of_words(words: Sequence[str], at: KeyPath) -> Iterator[tuple[str, KeyPath]]:
    for n, word in enumerate(words):
        yield from ((plain(path), (*at, n)) for path in parts(word))


def _naming(config: DeployConfig, profile: str, path: str) -> KeyPath:
    """The first value that holds the path as a part of it."""
    return next((at for text, at in _written(config, profile) if path in text), ("project", "name"))

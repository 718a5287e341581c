"""`deploy.toml`: text in, a checked configuration or one failure with its place out.

Walks the document by the tuples of `schema.py`. Does not know files or the environment; what the firmware of a prebuilt
toolchain says about itself comes from a function that the caller gives.
Invariant: every error names line and column, and all errors of a text are reported at once. Positions and suggestions
are computed only when there is something to report. (No `from __future__ import annotations`, see `schema.py`.)
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.config.contradictions import cross_checks, prebuilt_checks
from pipeline.config.schema import (
    ActionConfig,
    Bootloader,
    Budget,
    CacheSettings,
    CmakeConfig,
    DeployConfig,
    DeviceConfig,
    ExecutionConfig,
    FlashSettings,
    GateConfig,
    HostConfig,
    ImageConfig,
    LibraryConfig,
    LiveTestConfig,
    NinjaConfig,
    Partitions,
    Prebuilt,
    Profile,
    ProjectConfig,
    ReadinessConfig,
    Reports,
    ServiceConfig,
    SizeConfig,
    ToolchainConfig,
    Verify,
)
from pipeline.config.values import COMPILED_KEYS, ESP_IDF, NINJA_KINDS, PREBUILT, Problem, check_value
from pipeline.config.variants import (
    OVERRIDABLE,
    ProfileDocument,
    document_of,
    own_sections,
    profile_name,
    profile_of,
    written_chips,
)
from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.text import did_you_mean, suggestion

if TYPE_CHECKING:
    from pipeline.formats.manifests import Firmware
    from pipeline.formats.toml_positions import KeyPath

_SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "project": ProjectConfig,
        "toolchain": ToolchainConfig,
        "prebuilt": Prebuilt,
        "ninja": NinjaConfig,
        "cmake": CmakeConfig,
        "bootloader": Bootloader,
        "partitions": Partitions,
        "flash": FlashSettings,
        "budget": Budget,
        "size": SizeConfig,
        "verify": Verify,
        "readiness": ReadinessConfig,
        "cache": CacheSettings,
        "execution": ExecutionConfig,
        "reports": Reports,
        "gate": GateConfig,
        "host": HostConfig,
        "livetest": LiveTestConfig,
        "service": ServiceConfig,
    }
)
_JOINTS = str.maketrans("", "", "_.-")
"""What may be in a name beside letters and digits."""
_NAMED_SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {"profile": Profile, "image": ImageConfig, "device": DeviceConfig}
)
"""Tables of tables: the key is the `name` of the tuple."""

_LISTED_SECTIONS: Mapping[str, type[Any]] = MappingProxyType({"action": ActionConfig, "library": LibraryConfig})
"""Arrays of tables."""


FindFirmware = Callable[[Prebuilt], "Firmware | Problem | Failure | None"]
"""What `[prebuilt]` means on this machine; None while the build that makes it has not run."""


def parse_config(
    text: str,
    path: str = "deploy.toml",
    find_firmware: FindFirmware | None = None,
    profile: str = "",
    *,
    for_all: bool = False,
    read: "Callable[[str], dict[str, Any]] | None" = None,
) -> DeployConfig | Failure:
    """The configuration as `profile` means it (`""`: the project's; `for_all`: every device's), or a `config_error` at
    `path:LINE:COL`: the first error of the text, with the further ones in `detail`, one per line. `path` is only used
    in messages. `find_firmware` is asked when the toolchain is a prebuilt one; what the firmware says of chip and flash
    becomes part of the configuration. Without it nothing is. `read` does what `tomllib.loads` does."""
    text = text.removeprefix("\ufeff")  # what editors of Windows put before UTF-8
    try:
        written = (read or _read_toml)(text)
    except (ValueError, RecursionError) as error:
        return _syntax_failure(path, text, error)
    meant = document_of(written, profile_name(written, profile))
    document, problems = meant.document, _other_profiles(written, meant.profile)
    values = _read_document(document, problems)
    problems = problems or prebuilt_checks(document)
    firmware: Firmware | None = None
    if not problems and _kind(document) == ESP_IDF and _may_make_firmware(document) and "prebuilt" not in document:
        values["prebuilt"] = {"directory": values["ninja"].get("directory", NinjaConfig().directory)}
    if not problems and find_firmware is not None and _takes_firmware(document):
        section = Prebuilt(**values["prebuilt"])
        found = find_firmware(section._replace(chip=section.chip or values["toolchain"].get("chip", "")))
        if isinstance(found, Failure):
            return found
        if isinstance(found, Problem):
            problems = [found]
        elif found is not None:
            firmware, problems = found, _adopt(values, found)
    if not problems:
        chips = {} if for_all else written_chips(written)
        config = _build(values, path, firmware, meant, chips, meant.profile if for_all else "")
        problems = cross_checks(config, document)
        if not problems:
            return config
    return _failure(text, path, [problem._replace(path=meant.place(problem.path)) for problem in problems])


def _read_toml(text: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(text)


def built_by_ninja(text: str, profile: str = "") -> bool:
    """Has the text, as `profile` means it, a kind of toolchain that runs ninja's statements? Also where something else
    in it is wrong."""
    try:
        written = _read_toml(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return False
    return _kind(document_of(written, profile_name(written, profile)).document) in NINJA_KINDS


def _other_profiles(document: Mapping[str, Any], meant: str) -> list[Problem]:
    """What is wrong with the sections of profiles that are not meant now, by itself."""
    problems: list[Problem] = []
    profiles = document.get("profile")
    for name, table in profiles.items() if isinstance(profiles, dict) else ():
        for section, own in own_sections(table).items():
            found: list[Problem] = []
            if name != meant or not isinstance(own, dict):
                _read_table(own, _SECTIONS[section], (section,), found, partial=True)
            problems += [problem._replace(path=("profile", name, *problem.path)) for problem in found]
    return problems


def _compiles(document: Mapping[str, Any]) -> bool:
    toolchain = document.get("toolchain")
    return not isinstance(toolchain, dict) or toolchain.get("kind") not in (PREBUILT, *NINJA_KINDS)


def _kind(document: Mapping[str, Any]) -> str:
    toolchain = document.get("toolchain")
    return str(toolchain.get("kind", "")) if isinstance(toolchain, dict) else ""


def _takes_firmware(document: Mapping[str, Any]) -> bool:
    """Is there firmware that something else builds? A build of ninja need not make any."""
    kind = _kind(document)
    if kind == ESP_IDF and not _may_make_firmware(document):
        return False
    return kind in (PREBUILT, ESP_IDF) or (kind in NINJA_KINDS and "prebuilt" in document)


def _may_make_firmware(document: Mapping[str, Any]) -> bool:
    """Where no board is declared, ESP-IDF may build for the machine it runs on (its target `linux`)."""
    return "device" in document or "prebuilt" in document


def _adopt(values: dict[str, Any], firmware: "Firmware") -> list[Problem]:
    """Fill in what the firmware says and the text does not; contradictions are problems."""
    problems = []
    for section, key, said in (
        ("toolchain", "chip", firmware.chip),
        ("flash", "mode", firmware.flash_mode),
        ("flash", "freq", firmware.flash_freq),
        ("flash", "size", firmware.flash_size),
        ("partitions", "offset", firmware.table.offset),
    ):
        if said == "":
            continue
        written = values[section].setdefault(key, said)
        if written != said and not (firmware.size_open and (section, key) == ("flash", "size")):
            shown = [f"{value:#x}" if isinstance(value, int) else f"'{value}'" for value in (written, said)]
            fact = f"'{section}.{key}' is {shown[0]}, but {shown[1]} in {firmware.where}"
            hint = "remove the key: the firmware decides; or build the firmware for it"
            problems.append(Problem((section, key), True, fact, hint))
    return problems


def _read_document(document: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Per section its values by field name (per named section: by name); what is wrong goes to `problems`."""
    known = [*_SECTIONS, *_NAMED_SECTIONS, *_LISTED_SECTIONS]
    problems.extend(_unknown_key((name,), known, "deploy.toml") for name in document if name not in known)
    compiles = _compiles(document)
    values: dict[str, Any] = {
        name: _read_table(document.get(name, {}), shape, (name,), problems, compiles=compiles)
        for name, shape in _SECTIONS.items()
    }
    for name, shape in _NAMED_SECTIONS.items():
        tables = document.get(name, {})
        values[name] = {}
        if not isinstance(tables, dict):
            problems.append(_wrong_type((name,), tables, "table"))
            continue
        for key, table in tables.items():
            if name == "image" and key == _IDENTITY and not isinstance(table, dict):
                values["image_identity"] = _identity(table, problems)
                continue
            letters = key.translate(_JOINTS)
            if not (key.isascii() and key[:1].isalnum() and letters.isalnum()):
                hint = "use letters, digits, '_', '-' and '.', and begin with a letter or a digit"
                problems.append(Problem((name, key), False, f"'{key}' cannot be the name of a {name}", hint))
            own = table
            if name == "profile" and isinstance(table, dict):
                own = {field: value for field, value in table.items() if field not in OVERRIDABLE}
            values[name][key] = _read_table(own, shape, (name, key), problems)
    for name, shape in _LISTED_SECTIONS.items():
        listed = document.get(name, [])
        if not isinstance(listed, list):
            fact = f"'{name}' is one table, but must be an array of tables"
            problems.append(Problem((name,), False, fact, f"write [[{name}]], with two brackets"))
            continue
        values[name] = [_read_table(table, shape, (name, n), problems) for n, table in enumerate(listed)]
    return values


_IDENTITY = "identity"
"""The one key of [image] itself, beside the tables of images; an image of that name is a table."""


def _identity(value: Any, problems: list[Problem]) -> str:
    wrong = _type_problems(("image", _IDENTITY), value, "string")
    if not wrong and (problem := check_value(("image", _IDENTITY), value)) is not None:
        wrong = [problem]
    problems.extend(wrong)
    return str(value)


def _read_table(
    table: Any,
    shape: type[Any],
    path: "KeyPath",
    problems: list[Problem],
    *,
    compiles: bool = False,
    partial: bool = False,
) -> dict[str, Any]:
    """`partial`: other keys stand elsewhere."""
    listed = path[0] in _LISTED_SECTIONS
    section = f"[[{path[0]}]]" if listed else f"[{'.'.join(str(part) for part in path)}]"
    if not isinstance(table, dict):
        problems.append(_wrong_type(path, table, "table"))
        return {}
    is_named = path[0] in _NAMED_SECTIONS
    fields = {_key(shape, field): field for field in shape._fields if not (is_named and field == "name")}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            more = OVERRIDABLE if path[0] == "profile" else ()
            problems.append(_unknown_key((*path, key), (*fields, *more), section))
            continue
        wrong = _type_problems((*path, key), value, _type_name(shape, fields[key]))
        if not wrong:
            values[fields[key]] = tuple(value) if isinstance(value, list) else value
            problem = check_value((*path, key), value)
            wrong = [problem] if problem else []
        problems.extend(wrong)
    for key, field in fields.items():
        # A device's chip is the toolchain's unless it is written.
        required = field not in shape._field_defaults or (compiles and COMPILED_KEYS.get((str(path[0]), key), False))
        if key not in table and not partial and required and (shape, field) != (DeviceConfig, "chip"):
            example = '["..."]' if _type_name(shape, field) == "array of strings" else '"..."'
            fact = f"{section} has no '{key}', which is required"
            problems.append(Problem(path, False, fact, f"add {key} = {example} to {section}"))
    return values


def _key(shape: type[Any], field: str) -> str:
    """Budgets are named after stages, whose names have hyphens; all other keys have underscores. An image comes `from`
    a directory, which is no name that Python takes."""
    if (shape, field) == (ImageConfig, "source"):
        return "from"
    return field.replace("_", "-") if shape is Budget else field


_TYPE_NAMES: Mapping[Any, str] = MappingProxyType(
    {
        str: "string",
        int: "integer",
        int | None: "integer",
        bool: "boolean",
        tuple[str, ...]: "array of strings",
        tuple[str, ...] | None: "array of strings",
        Mapping[str, str]: "table of strings",
        int | str | None: "size",
        Mapping[str, int | str]: "table of sizes",
    }
)
_TABLES: Mapping[str, str] = MappingProxyType({"table of strings": "string", "table of sizes": "size"})
_TYPES: Mapping[str, type[Any]] = MappingProxyType({"string": str, "integer": int, "boolean": bool})


def _type_name(shape: type[Any], field: str) -> str:
    """What the type of a field is called in TOML."""
    return _TYPE_NAMES[shape.__annotations__[field]]


def _type_problems(path: "KeyPath", value: Any, wanted: str) -> list[Problem]:
    if wanted == "array of strings":
        if not isinstance(value, list):
            return [_wrong_type(path, value, wanted)]
        return [
            _wrong_type((*path, index), item, "string") for index, item in enumerate(value) if not isinstance(item, str)
        ]
    if wanted in _TABLES:
        if not isinstance(value, dict):
            return [_wrong_type(path, value, wanted)]
        return [
            problem for key, item in value.items() for problem in _type_problems((*path, key), item, _TABLES[wanted])
        ]
    if wanted == "size":
        return (
            [] if isinstance(value, int | str) and not isinstance(value, bool) else [_wrong_type(path, value, wanted)]
        )
    # In Python a bool is an int; in TOML it is not.
    right = isinstance(value, _TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
    return [] if right else [_wrong_type(path, value, wanted)]


def _wrong_type(path: "KeyPath", value: Any, wanted: str) -> Problem:
    found = {bool: "boolean", str: "string", int: "integer", float: "float", list: "array", dict: "table"}
    name = ".".join(part for part in path if isinstance(part, str))
    element = f"element {path[-1] + 1} of " if isinstance(path[-1], int) else ""
    hint = {
        "string": "put it in quotes",
        "integer": "write a whole number without quotes",
        "boolean": "write true or false, without quotes",
        "array of strings": 'write ["..."], with each element in quotes',
        "table": f"write a table [{name}] with keys below it",
        "table of strings": f"write a table [{name}] with strings below it",
        "size": 'write bytes, such as 100000, or a text with KB or MB, such as "1.5MB"',
        "table of sizes": f"write a table [{name}] with sizes below it",
    }[wanted]
    if wanted == "table" and len(path) == 2:  # [device] with keys, where a name is missing
        hint = f"write [{path[0]}.NAME] for a name of your choice, and the keys below it"
    fact = f"{element}'{name}' is of type {found.get(type(value), 'date or time')}, but must be of type {wanted}"
    return Problem(path, True, fact, hint)


def _unknown_key(path: "KeyPath", known: Iterable[str], section: str) -> Problem:
    known = list(known)
    name = str(path[-1])
    meant = suggestion(name, known)
    hint = f"rename it to '{meant}', or remove it" if meant else f"remove it; {section} has {', '.join(known)}"
    return Problem(path, False, f"unknown key '{name}' in {section}{did_you_mean(name, known)}", hint)


def _build(
    values: Mapping[str, Any],
    path: str,
    firmware: "Firmware | None",
    meant: ProfileDocument,
    chips: Mapping[str, str],
    for_all: str,
) -> DeployConfig:
    """From values that have every required field and the right types. `chips`: what profiles say that they build for;
    `for_all`: the profile of every device, whatever it says."""
    if values["toolchain"].get("kind") in (PREBUILT, *NINJA_KINDS) and not values["profile"]:
        # Nothing is compiled, so no flags need a name; products still need a directory.
        values["profile"][values["project"].setdefault("profile", PREBUILT)] = {}
    sections = {name: shape(**values[name]) for name, shape in _SECTIONS.items()}
    for_all = for_all if for_all in values["profile"] else ""
    chip, usual = sections["toolchain"].chip, sections["project"].profile
    variant = meant.profile if meant.profile in values["profile"] else usual
    usual_chip = chips.get(usual, chip if variant == usual else meant.usual_chip)
    devices = []
    for name, fields in values["device"].items():
        profile = for_all or profile_of(fields, usual, usual_chip, chips)
        its_chip = chip if profile == variant else chips.get(profile, usual_chip)
        said = {"name": name, "mac": fields.get("mac", "").lower(), "profile": profile}
        devices.append(DeviceConfig(**{"chip": its_chip} | fields | said))
    profiles = {name: Profile(name, **fields) for name, fields in values["profile"].items()}
    return DeployConfig(
        path=path,
        devices=tuple(devices),
        profiles=MappingProxyType(profiles),
        actions=tuple(ActionConfig(**fields) for fields in values["action"]),
        libraries=tuple(LibraryConfig(**fields) for fields in values["library"]),
        images=tuple(ImageConfig(name, **fields) for name, fields in values["image"].items()),
        firmware=firmware,
        image_identity=values.get("image_identity", ""),
        variant=variant,
        own=meant.own,
        **sections,
    )


# --- failures ---------------------------------------------------------------------------------


def _failure(text: str, path: str, problems: Sequence[Problem]) -> Failure:
    """One failure for all problems, in the order of the text."""
    from pipeline.formats.toml_positions import locate

    positions = locate(text)
    placed = [(positions.value(p.path) if p.at_value else positions.key(p.path), p) for p in problems]
    placed.sort(key=lambda entry: entry[0])
    lines = [f"{path}:{line}:{column}" for (line, column), _problem in placed]
    first = placed[0][1]
    return fail(
        FailureCategory.CONFIG_ERROR,
        stage=None,
        where=lines[0],
        message=first.message,
        hint=first.hint,
        detail="\n".join(
            f"{where}: error: {p.message}" for where, (_at, p) in list(zip(lines, placed, strict=True))[1:]
        ),
    )


def _syntax_failure(path: str, text: str, error: Exception) -> Failure:
    """tomllib ends its messages with `(at line 3, column 5)` or `(at end of document)`."""
    fact, _, place = str(error).rpartition(" (at ")
    found = re.fullmatch(r"line (\d+), column (\d+)\)", place)
    if isinstance(error, RecursionError):
        where, fact = path, "arrays or tables are nested too deeply to be read"
    elif found:
        where = f"{path}:{found[1]}:{found[2]}"
    else:
        where, fact = path, str(error)
    hint = "correct the TOML syntax here; nothing was touched"
    if table := re.fullmatch(r"Cannot declare \((.*?),?\) twice", fact):
        name = ".".join(part.strip().strip("'") for part in table[1].split(","))
        fact, hint = f"the table '{name}' is declared twice", "put its keys below one of the two headings"
    elif fact == "Cannot overwrite a value" and found:
        line = text.split("\n")[int(found[1]) - 1].strip()
        fact, hint = f"'{line[:60]}' sets again what is set already", "keep one of the two"
    return fail(FailureCategory.CONFIG_ERROR, stage=None, where=where, message=fact, hint=hint)

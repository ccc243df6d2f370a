"""From a YAML file to a `Config`, or to every problem of the file at once, with its line.

Only plain YAML is taken: text, numbers, true and false, empty values, lists and mappings, with
anchors and merge keys (``<<``). Tags that would build objects are refused, and so are
duplicate keys, which YAML itself lets pass silently.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from asi_watch.config.checks import folder_problems
from asi_watch.config.model import Config, Section
from asi_watch.config.values import REFUSED, Way, shown
from asi_watch.errors import AsiWatchError

MAX_BYTES: Final = 1_000_000
_MAX_VALUES: Final = 50_000  # aliases of aliases multiply: a small file may hold billions
_MAX_DEPTH: Final = 40
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
_SCALARS: Final = {"null", "bool", "int", "float"}
_TEXTS: Final = {"str", "timestamp", "value"}  # a date is text here: nothing asks for dates
_WANTED: Final[Mapping[str, str]] = {
    "cameras": "a mapping of camera names to their settings",
    "watch": "the folder the camera's files arrive in, such as /srv/asi/roof",
    "output": "the folder for the HDR images, such as /srv/asi/roof-hdr",
    "format": "one of jpg, png, jp2, exr, tiff, hdr",
}
_KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "bool_type": "true or false",
    "dict_type": "a mapping of names to settings",
    "tuple_type": "a list, such as [{format: jpg}]",
    **dict.fromkeys(("model_type", "model_attributes_type"), "a mapping of keys to values"),
}
_LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than_equal": ("ge", "{} or more"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "{} or less"),
    "less_than": ("lt", "less than {}"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a configuration file, or one warning."""

    file: str
    """As the operator named it."""
    line: int | None
    """Counted from 1; None for the file as a whole."""
    key: str
    """Such as ``cameras.roof.bracket.grace``; empty for the whole file."""
    message: str
    """What is wrong; after a semicolon, what would be right."""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"
        # Names and values may hold undecodable bytes and line ends: one problem, one line, always.
        escaped = text.encode("utf-8", "backslashreplace").decode()
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in escaped)


class ConfigError(AsiWatchError, ValueError):
    """A configuration that is refused, with every fault found, in the order of the file."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def _refused(file: str, message: str, line: int | None = None) -> ConfigError:
    """Make the error for a file as a whole."""
    return ConfigError([Problem(file, line, "", message)])


@dataclass(slots=True)
class Document:
    """The values of a file, the lines of their keys, and what was wrong with its structure."""

    file: str
    data: Any = None
    lines: dict[Way, int] = field(default_factory=dict)
    texts: dict[Way, str] = field(default_factory=dict)
    """The text of single values exactly as it stands in the file."""
    problems: list[Problem] = field(default_factory=list)

    def problem(self, way: Way, message: str, line: int | None = None) -> Problem:
        """Make a problem of a key, at its line or that of the nearest key above it.

        Parameters
        ----------
        way : Way
        message : str
            What is wrong, and what would be right.
        line : int, optional
            Where it is not the key's.
        """
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in way)
        while way and way not in self.lines:
            way = way[:-1]
        at = self.lines.get(way) if line is None else line
        return Problem(self.file, at, key.removeprefix("."), message)

    def refuse(self, way: Way, message: str, line: int | None = None) -> None:
        """Record a problem.

        Parameters
        ----------
        way, message, line
            As for `problem`.
        """
        self.problems.append(self.problem(way, message, line))


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration and the document it was read from, which knows the lines."""

    config: Config
    document: Document


def load_config(path: str | Path) -> Config:
    """Read and validate a configuration file; ConfigError names every problem of the file.

    Parameters
    ----------
    path : str or pathlib.Path
        The YAML file; relative paths in it count from its own folder.
    """
    return read_config(path).config


def read_config(path: str | Path) -> LoadedConfig:
    """Read like `load_config`, and keep the lines for warnings.

    Parameters
    ----------
    path : str or pathlib.Path
    """
    file = str(path)
    try:
        with Path(path).open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(file, f"cannot be read: {error.strerror or error}") from None
    if len(text) > MAX_BYTES:
        raise _refused(file, f"is larger than {MAX_BYTES / 1e6:g} MB: this is no configuration")
    return parse_config(text, file, Path(path).absolute().parent)


def parse_config(text: bytes, file: str, base: Path) -> LoadedConfig:
    """Validate the text of a configuration file; ConfigError names every problem.

    Parameters
    ----------
    text : bytes
        YAML in UTF-8.
    file : str
        Its name, for messages.
    base : pathlib.Path
        Where relative paths count from.
    """
    document = _read_document(text, file)
    config = None
    try:
        config = Config.model_validate(document.data, context={"base": base})
    except ValidationError as error:
        _record(error, document)
    for way, message in folder_problems(document.data, base):
        document.refuse(way, message)
    if document.problems or config is None:
        # Sorted by line; problems of one line stay in the order they were found.
        raise ConfigError(sorted(document.problems, key=lambda problem: problem.line or 0))
    return LoadedConfig(config, document)


def dump_config(config: Config) -> str:
    """Write a configuration as YAML that loads to an equal one, with every default filled in.

    Parameters
    ----------
    config : Config
    """
    data = config.model_dump(mode="json", by_alias=True)
    for name, camera in config.cameras.items():
        data["cameras"][name]["products"] = [product.dump() for product in camera.products]
    style: Any = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None}
    text: str = yaml.dump(data, Dumper=_Dumper, width=100, **style)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes without anchors, so that each value is listed where it belongs."""

    def ignore_aliases(self, data: object) -> bool:
        return True


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Write defaults as a file has them: durations and sizes with their units."""
        described = super().default_schema(schema)
        inner, default = dict[str, Any](schema["schema"]), schema.get("default")
        while inner.get("serialization", {}).get("type") != "function-plain" and "schema" in inner:
            inner = inner["schema"]
        written = inner.get("serialization", {})
        if default is not None and written.get("type") == "function-plain":
            described["default"] = written["function"](default)
        return described


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a whole configuration file, by which editors complete one."""
    schema = Config.model_json_schema(schema_generator=_Generator)
    for section in (schema, *schema["$defs"].values()):
        section.pop("title", None)
        section["properties"] = {
            key: field
            for key, field in section["properties"].items()
            if key != "name" or "cameras" in section["properties"]
        }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**head, "title": "The configuration of asi-watch", **schema}


def _record(error: ValidationError, document: Document) -> None:
    """Add every fault of a validation to a document's problems, as sentences."""
    for fault in error.errors(include_url=False):
        way = tuple(part for part in fault["loc"] if part != "[key]")
        context = fault.get("ctx", {})
        if fault["type"] == "too_short" and fault["input"]:
            continue  # what it holds is wrong, and reported for each item
        for key, text in context.get("found", ()):
            document.refuse((*way, *key.split(".")), text)
        if "found" not in context:
            document.refuse(way, _sentence(fault["type"], way, fault["input"], context, document))


def _sentence(
    kind: str, way: Way, value: Any, context: Mapping[str, Any], document: Document
) -> str:
    if kind == REFUSED:
        return str(context["text"])
    if kind in ("extra_forbidden", "invalid_key"):  # invalid: not UTF-8
        return _unknown_key(way)
    if kind == "missing":
        return f"is missing; give {_WANTED.get(str(way[-1]), 'it a value')}"
    if kind == "too_short":
        return f"is empty; it must hold at least {context['min_length']}"
    if value is None:
        return f"is empty; it must be {_KINDS.get(kind, 'given a value')}, or be left out"
    written = repr(document.texts[way]) if way in document.texts else shown(value)
    if kind == "literal_error":
        choices = [t.strip("'") for t in context["expected"].replace(" or ", ", ").split(", ")]
        near = _nearest(str(value), choices)
        hint = f"; did you mean {near}?" if near else ""
        return f"{written} is unknown; it must be one of {', '.join(choices)}{hint}"
    if kind in _LIMITS:
        name, phrase = _LIMITS[kind]
        return f"{written} is out of range; it must be {phrase.format(context[name])}"
    return f"{written} is wrong; it must be {_KINDS.get(kind, 'of another kind')}"


def _unknown_key(way: Way) -> str:
    key, sections = str(way[-1]), dict(_sections("", Config))
    names = [part for part in way[:-1] if isinstance(part, str)]
    if names[:1] == ["cameras"]:
        names[1:2] = ["<name>"]
    known = sections.get(".".join(names), sections[""])
    if near := _nearest(key, known):
        return f"this key is unknown; did you mean {near}?"
    homes = [
        f"{home}.{key}" if home else f"{key} at the top of the file"
        for home, keys in sections.items()
        if key in keys
    ]
    if homes:
        return f"this key does not belong here; did you mean {' or '.join(homes)}?"
    return f"this key is unknown; known here are {', '.join(known)}"


def _sections(home: str, section: type[Section]) -> Iterator[tuple[str, list[str]]]:
    """Go through all sections of the file: the way to each, and its keys."""
    fields = {name: one for name, one in section.model_fields.items() if not one.exclude}
    yield home, list(fields)
    for name, one in fields.items():
        if inner := _section_in(one.annotation):
            below = f"{home}.{name}".removeprefix(".")
            yield from _sections(f"{below}.<name>" if name == "cameras" else below, inner)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _nearest(word: str, known: Iterable[str]) -> str | None:
    plain = {name.lower().replace("-", "_"): name for name in known}
    near = get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=0.7)
    return plain[near[0]] if near else None


# -- reading YAML -----------------------------------------------------------------------------


def _read_document(text: bytes, file: str) -> Document:
    """Read YAML; problems of its structure, such as duplicate keys, are recorded with it."""
    loader = yaml.SafeLoader(_decoded(text, file))
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, file) from None
    except RecursionError:
        raise _refused(file, "lists or mappings nest too deeply") from None
    if root is None:
        raise _refused(file, "the file is empty; it needs at least cameras")
    document = Document(file)
    document.data = _Reader(document, loader).value(root, ())
    return document


class _Reader:
    """Turns nodes into values; one of its own per document."""

    def __init__(self, document: Document, loader: yaml.SafeLoader) -> None:
        self.document, self.loader = document, loader
        self.count = 0

    def value(self, node: Node, way: Way, line: int | None = None) -> Any:
        self._count(len(way))
        # The line of the key where there is one: an alias stands elsewhere than its value.
        self.document.lines[way] = node.start_mark.line + 1 if line is None else line
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, way)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value(item, (*way, at)) for at, item in enumerate(node.value)]
        kind = node.tag.removeprefix(_TAG)
        if not isinstance(node, ScalarNode) or kind not in _SCALARS | _TEXTS:
            tag = node.tag.replace(_TAG, "!!")
            self.document.refuse(way, f"the tag {tag} is not allowed here; remove it")
            return None
        return self._scalar(node, kind, way)

    def _count(self, depth: int) -> None:
        self.count += 1
        if self.count > _MAX_VALUES:
            raise _refused(
                self.document.file, f"the file stands for more than {_MAX_VALUES} values"
            )
        if depth > _MAX_DEPTH:
            text = f"lists or mappings nest more than {_MAX_DEPTH} deep"
            raise _refused(self.document.file, text)

    def _scalar(self, node: ScalarNode, kind: str, way: Way) -> Any:
        text: str = node.value
        self.document.texts[way] = text
        # YAML would read 1:30 as the number 90.
        if kind in _TEXTS or (kind in ("int", "float") and ":" in text):
            return text
        if kind == "int" and re.match("[-+]?0[0-7_]+$", text):
            message = f"YAML reads {text} as an octal number; write it without the leading 0"
            self.document.refuse(way, message)
            return int(text)
        try:
            return getattr(self.loader, f"construct_yaml_{kind}")(node)
        except (ValueError, KeyError):
            self.document.refuse(way, f"{text[:40]!r} cannot be read as {kind}")
            return text

    def _mapping(self, node: MappingNode, way: Way, depth: int = 0) -> dict[str, Any]:
        self._count(len(way) + depth)
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        # Merge keys first: what stands here itself replaces what they bring, lines too.
        for key_node, value_node in sorted(node.value, key=lambda pair: pair[0].tag != _MERGE):
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                merged |= self._merged(value_node, way, depth, line)
                continue
            key = self._key(key_node, way, line)
            if key in first_lines:
                message = f"is given a second time, first in line {first_lines[key]}; remove one"
                self.document.refuse((*way, key), message, line)
            first_lines.setdefault(key, line)
            own[key] = self.value(value_node, (*way, key), line)
        return merged | own

    def _merged(self, node: Node, way: Way, depth: int, line: int) -> dict[str, Any]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):  # of several, the first one wins
            if isinstance(source, MappingNode):
                merged |= self._mapping(source, way, depth + 1)
            else:
                self.document.refuse(way, "'<<' takes a mapping, such as *roof", line)
        return merged

    def _key(self, node: Node, way: Way, line: int) -> str:
        if not isinstance(node, ScalarNode):
            self.document.refuse(way, "a key must be text, no list and no mapping", line)
            return "?"
        text: str = node.value.encode("utf-8", "backslashreplace").decode()
        kind = node.tag.removeprefix(_TAG)
        if text != node.value:
            self.document.refuse((*way, text), "a key must be text in UTF-8", line)
        if kind not in _TEXTS:
            message = f'YAML reads the key {text} as {kind}, not as text; write it as "{text}"'
            self.document.refuse((*way, text), message, line)
        return text


def _decoded(text: bytes, file: str) -> str:
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{text[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise _refused(file, message, line) from None
    odd = yaml.reader.Reader.NON_PRINTABLE.search(decoded)
    if odd is not None:
        line = decoded.count("\n", 0, odd.start()) + 1
        message = f"the character U+{ord(odd[0]):04X} cannot stand in a YAML file; remove it"
        raise _refused(file, message, line)
    return decoded


_SYNTAX_HINTS: Final = (
    ("'\\t'", "a tab; YAML is indented with spaces only"),
    (
        "mapping values",
        "a ':' is not expected here; is the line above indented as it should be, "
        "and text that holds ': ' in quotes?",
    ),
    ("expected <block end>", "the indentation fits none of the lines above"),
    ("could not find expected ':'", "a key without its ':'"),
    ("expected ',' or", "a ',' or the closing bracket of a list or mapping is missing"),
    ("found undefined alias", "an alias (*) without its anchor (&) further up"),
    ("but found another document", "a second document ('---'); one file holds one configuration"),
    ("found unexpected end of stream", "a quote is opened and never closed"),
    ("cannot start any token", "text that begins with this character must stand in quotes"),
)


def _syntax_error(error: yaml.MarkedYAMLError, file: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    said = " ".join(str(part) for part in (error.context, error.problem) if part)
    hint = next((text for sign, text in _SYNTAX_HINTS if sign in said), said)
    if mark is None:
        return _refused(file, f"this is no YAML: {hint}")
    return _refused(file, f"this is no YAML, column {mark.column + 1}: {hint}", mark.line + 1)

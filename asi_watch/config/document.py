"""A YAML file as plain values that remember the line they stand on, and what is wrong with it.

Only plain YAML is taken: text, numbers, true and false, empty values, lists and mappings, with
anchors and merge keys (``<<``). Tags that would build objects are refused, and so are
duplicate keys, which YAML itself lets pass silently.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from asi_watch.errors import AsiWatchError

Way: TypeAlias = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""

MAX_BYTES: Final = 1_000_000
_MAX_VALUES: Final = 50_000  # aliases of aliases multiply: a small file may hold billions
_MAX_DEPTH: Final = 40
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
_SCALARS: Final = {"null", "bool", "int", "float"}
_TEXTS: Final = {"str", "timestamp", "value"}  # a date is text here: nothing asks for dates


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


def refused(file: str, message: str, line: int | None = None) -> ConfigError:
    """Make the error for a file as a whole.

    Parameters
    ----------
    file, message : str
    line : int, optional
    """
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


def read_document(text: bytes, file: str) -> Document:
    """Read YAML; problems of its structure, such as duplicate keys, are recorded with it.

    Parameters
    ----------
    text : bytes
        The file's content, UTF-8. ConfigError when it is no YAML at all.
    file : str
        Its name, for messages.
    """
    loader = yaml.SafeLoader(_decoded(text, file))
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, file) from None
    except RecursionError:
        raise refused(file, "lists or mappings nest too deeply") from None
    if root is None:
        raise refused(file, "the file is empty; it needs at least cameras")
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
            raise refused(self.document.file, f"the file stands for more than {_MAX_VALUES} values")
        if depth > _MAX_DEPTH:
            text = f"lists or mappings nest more than {_MAX_DEPTH} deep"
            raise refused(self.document.file, text)

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
        raise refused(file, message, line) from None
    odd = yaml.reader.Reader.NON_PRINTABLE.search(decoded)
    if odd is not None:
        line = decoded.count("\n", 0, odd.start()) + 1
        message = f"the character U+{ord(odd[0]):04X} cannot stand in a YAML file; remove it"
        raise refused(file, message, line)
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
        return refused(file, f"this is no YAML: {hint}")
    return refused(file, f"this is no YAML, column {mark.column + 1}: {hint}", mark.line + 1)

"""From a YAML file to a `Config`, or to every problem of the file at once, as sentences."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from asi_watch.config.checks import folder_problems
from asi_watch.config.document import MAX_BYTES, ConfigError, Document, Way, read_document, refused
from asi_watch.config.model import Config, Section
from asi_watch.config.values import REFUSED, shown

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
        raise refused(file, f"cannot be read: {error.strerror or error}") from None
    if len(text) > MAX_BYTES:
        raise refused(file, f"is larger than {MAX_BYTES / 1e6:g} MB: this is no configuration")
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
    document = read_document(text, file)
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
    fields = {name: field for name, field in section.model_fields.items() if not field.exclude}
    yield home, list(fields)
    for name, field in fields.items():
        if inner := _section_in(field.annotation):
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

"""The JSON Schema that editors complete and check configurations by."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from asi_watch.cli import main
from asi_watch.config.loading import config_schema

CONFIG = Path(__file__).parent.parent.parent / "config"
FILES = [CONFIG / "asi-watch.yaml", *sorted((CONFIG / "examples").glob("*.yaml"))]


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], way: str = "") -> list[str]:
    """What a value breaks of the keywords that the schema uses."""
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, way)
    if "anyOf" in schema:
        each = [faults(value, option, root, way) for option in schema["anyOf"]]
        return min(each, key=len)
    kinds = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
    kind = kinds.get(schema.get("type", ""), object)
    if schema.get("type") == "number":
        kind = (int, float)  # type: ignore[assignment]
    if (schema.get("type") == "null") != (value is None) or not isinstance(value, kind):
        return [f"{way}: {value!r} is no {schema.get('type')}"]
    found = []
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(f"{way}: {value!r} does not match {schema['pattern']}")
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        found.append(f"{way}: {value!r} is none of the choices")
    if isinstance(value, list):
        for item in value:
            found += faults(item, schema["items"], root, way)
    if isinstance(value, dict):
        found += [
            f"{way}.{key} is missing" for key in schema.get("required", []) if key not in value
        ]
        for key, inner in value.items():
            patterns = schema.get("patternProperties", {})
            known = schema.get("properties", {}).get(key) or next(
                (s for p, s in patterns.items() if re.search(p, key)), None
            )
            inside = faults(inner, known, root, f"{way}.{key}") if known else [f"{way}.{key}?"]
            found += inside
    return found


def test_the_schema_we_ship_is_that_of_the_model() -> None:
    """Else: ``asi-watch check --schema > config/asi-watch.schema.json``."""
    shipped = (CONFIG / "asi-watch.schema.json").read_text()
    assert json.loads(shipped) == config_schema()
    assert CliRunner().invoke(main, ["check", "--schema"]).stdout == shipped


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_files_name_the_schema_and_fit_it(path: Path) -> None:
    text = path.read_text()
    head = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert head is not None
    assert (path.parent / head[1]).resolve() == CONFIG / "asi-watch.schema.json"
    schema = config_schema()
    assert faults(yaml.safe_load(text), schema, schema) == []


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"bracket": {"round_to": 30}}, ".cameras.roof.bracket.round_to"),
        ({"bracket": {"round_to": "30 sec"}}, ".cameras.roof.bracket.round_to"),
        ({"watch_mod": "auto"}, ".cameras.roof.watch_mod"),
        ({"products": [{"format": "jpeg"}]}, ".cameras.roof.products"),
        ({"name": "roof"}, ".cameras.roof.name"),
        ({"retention": {"exposures": {"max_age": "never!"}}}, ".max_age"),
    ],
)
def test_mistakes_do_not_fit(settings: dict[str, Any], where: str) -> None:
    camera = {"watch": "/in", "output": "/out", **settings}
    schema = config_schema()
    (fault,) = faults({"cameras": {"roof": camera}}, schema, schema)
    assert where in fault

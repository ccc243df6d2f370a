"""The JSON Schema of the configuration, by which editors complete and check a file.

``python -m asi_watch.config.json_schema`` prints it; ``config/asi-watch.schema.json`` holds it.
"""

import json
import sys
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from asi_watch.config.model import Config


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
    """Return the schema of a whole configuration file."""
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


if __name__ == "__main__":
    sys.stdout.write(json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n")

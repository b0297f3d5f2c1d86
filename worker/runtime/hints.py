"""Makes JSON Schemas (draft 2020-12) of the type hints of user code.

Owns which annotations say something about JSON. Nothing is checked against them: they describe. A schema has no $ref,
so that it can be a part of any document; a type that contains itself ends in any JSON.
"""

from __future__ import annotations

import enum
import inspect
import json
import sys
import types
import typing
from typing import Any, Callable, Optional

from owner import end_copy

Schema = dict[str, Any]

MOST_NODES = 5000  # of one schema
DEEPEST = 20
MOST_EXAMPLE = 64 << 10  # bytes of an example
PLAIN: dict[Any, Schema] = {
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
}
FORMATS = {  # by name: their modules are not imported
    "datetime.datetime": {"type": "string", "format": "date-time"},
    "datetime.date": {"type": "string", "format": "date"},
    "datetime.time": {"type": "string", "format": "time"},
    "uuid.UUID": {"type": "string", "format": "uuid"},
    "numpy.ndarray": {"type": "array"},
}
ARRAYS = (list, tuple, set, frozenset)
ARRAY_NAMES = frozenset(("Sequence", "MutableSequence", "Collection", "Iterable", "Set", "MutableSet", "AbstractSet"))
OBJECT_NAMES = frozenset(("Mapping", "MutableMapping", "OrderedDict", "defaultdict"))
NAMES = frozenset(("properties", "patternProperties"))  # keywords with schemas by the names of fields
DATA = frozenset(("default", "const", "enum", "example", "examples"))  # keywords whose values are no schemas
NO_BODY = frozenset(("bytes", "bytearray", "memoryview"))  # not JSON


def parameter_schema(method: Callable[..., Any]) -> Optional[Schema]:
    """Return the schema of a method's first parameter, None if its annotation says nothing about JSON."""
    names = list(inspect.signature(method).parameters)
    return _schema_of(_hint(method, names[0]), "validation") if names else None


def answer_schema(method: Callable[..., Any]) -> Optional[Schema]:
    """Return the schema of what a method returns, None if its annotation says nothing about JSON."""
    return _schema_of(_hint(method, "return"), "serialization")


def _hint(method: Any, name: str) -> Any:
    """Return one annotation, evaluated; the others may be names that do not exist."""
    plain = inspect.unwrap(getattr(method, "__func__", method))
    if not hasattr(plain, "__annotations__"):  # an object that is called
        plain = type(plain).__call__
    held = inspect.get_annotations(plain) if hasattr(inspect, "get_annotations") else plain.__annotations__
    if name not in held:
        return inspect.Parameter.empty
    spaces = getattr(plain, "__globals__", {})
    carrier = types.SimpleNamespace(__annotations__={name: held[name]}, __module__=None)
    return typing.get_type_hints(carrier, spaces, include_extras=True)[name]


def _schema_of(hint: Any, mode: str) -> Optional[Schema]:
    if hint is inspect.Parameter.empty:
        return None
    try:
        schema = _Maker(mode).schema(hint)
        json.dumps(schema, allow_nan=False)
    except Exception as error:  # of a foreign class
        end_copy(error)
        return None
    return schema or None


class _NoJSONError(Exception):
    """The hint is of something that is not JSON."""


class _Maker:
    """Makes one schema."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.nodes = 0
        self.open: list[Any] = []  # the types around

    def schema(self, hint: Any) -> Schema:
        self.nodes += 1
        if self.nodes > MOST_NODES or len(self.open) > DEEPEST or hint in self.open:
            return {}
        if isinstance(hint, (str, typing.ForwardRef)):
            return {}
        plain = PLAIN.get(hint) if isinstance(hint, type) else PLAIN[type(None)] if hint is None else None
        if plain is not None:
            return dict(plain)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is not None:
            return self._generic(hint, origin, arguments)
        if isinstance(hint, type):
            return self._class(hint)
        if isinstance(hint, typing.TypeVar):
            return self.schema(hint.__bound__) if hint.__bound__ is not None else {}
        return self.schema(hint.__supertype__) if hasattr(hint, "__supertype__") else {}

    def _generic(self, hint: Any, origin: Any, arguments: tuple[Any, ...]) -> Schema:
        name = getattr(origin, "__name__", "") or getattr(origin, "_name", "") or ""
        if origin is typing.Union or name in ("UnionType", "Union"):
            return self._any_of(arguments)
        if origin is typing.Literal or name == "Literal":
            return {"enum": list(arguments)}
        if name in ("Annotated", "Required", "NotRequired", "ReadOnly", "Final", "ClassVar"):
            return self.schema(arguments[0])
        if hasattr(hint, "__metadata__"):  # Annotated
            return self._annotated(hint)
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            items = [self.schema(one) for one in arguments if one != ()]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        if origin in ARRAYS or name in ARRAY_NAMES:
            return self._array(arguments[0] if arguments else Any)
        if origin is dict or name in OBJECT_NAMES:
            return self._object(arguments[1] if len(arguments) > 1 else Any)
        return self._class(origin) if isinstance(origin, type) else {}

    def _annotated(self, hint: Any) -> Schema:
        schema = self.schema(hint.__origin__)
        for text in hint.__metadata__:
            if isinstance(text, str):
                schema.setdefault("description", text)
        return schema

    def _any_of(self, arguments: tuple[Any, ...]) -> Schema:
        choices = []
        for one in arguments:
            try:
                choice = self.schema(one)
            except _NoJSONError:
                continue  # a body of bytes is none of JSON
            if choice == {}:
                return {}
            if choice not in choices:
                choices.append(choice)
        if not choices:
            raise _NoJSONError
        if len(choices) == 1:
            return choices[0]
        if all(set(choice) == {"type"} and isinstance(choice["type"], str) for choice in choices):
            return {"type": [choice["type"] for choice in choices]}
        return {"anyOf": choices}

    def _array(self, of: Any) -> Schema:
        items = self.schema(of)
        return {"type": "array", "items": items} if items else {"type": "array"}

    def _object(self, of: Any) -> Schema:
        values = self.schema(of)
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}

    def _class(self, kind: type) -> Schema:
        known = FORMATS.get(f"{kind.__module__}.{kind.__qualname__}")
        if known is not None:
            return dict(known)
        if kind.__name__ in NO_BODY and kind.__module__ == "builtins":
            raise _NoJSONError
        if callable(getattr(kind, "model_json_schema", None)):
            return self._pydantic(kind.model_json_schema(mode=self.mode))
        if callable(getattr(kind, "schema", None)) and hasattr(kind, "__fields__"):
            return self._pydantic(kind.schema())
        self.open.append(kind)
        try:
            if issubclass(kind, enum.Enum):
                return {"enum": [member.value for member in kind]}
            if typing.is_typeddict(kind) if hasattr(typing, "is_typeddict") else hasattr(kind, "__total__"):
                return self._typed_dict(kind)
            if hasattr(kind, "__dataclass_fields__"):
                return self._dataclass(kind)
            if issubclass(kind, tuple) and hasattr(kind, "_fields"):
                hinted = _hints(kind)
                items = [self.schema(hinted.get(name, Any)) for name in kind._fields]
                return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        finally:
            self.open.pop()
        for base, plain in PLAIN.items():
            if base is not type(None) and issubclass(kind, base):
                return dict(plain)
        if issubclass(kind, ARRAYS):
            return {"type": "array"}
        return {"type": "object"} if issubclass(kind, dict) else {}

    def _typed_dict(self, kind: Any) -> Schema:
        hinted = _hints(kind)
        required = [name for name in hinted if name in kind.__required_keys__]
        for name, hint in hinted.items():  # of a class with postponed annotations
            marker = getattr(typing.get_origin(hint), "_name", "") or getattr(typing.get_origin(hint), "__name__", "")
            if marker == "NotRequired" and name in required:
                required.remove(name)
            elif marker == "Required" and name not in required:
                required.append(name)
        return self._fields(kind, hinted, required, {})

    def _dataclass(self, kind: Any) -> Schema:
        missing = sys.modules["dataclasses"].MISSING
        hinted, fields, defaults = _hints(kind), {}, {}
        required = []
        for name, field in kind.__dataclass_fields__.items():
            if getattr(field._field_type, "name", "") != "_FIELD" or not field.init:
                continue
            fields[name] = hinted.get(name, Any)
            if field.default is not missing:
                if isinstance(field.default, (str, bool, int, float, type(None))):
                    defaults[name] = field.default
            elif field.default_factory is missing:
                required.append(name)
        return self._fields(kind, fields, required, defaults)

    def _fields(self, kind: Any, hinted: dict[str, Any], required: list[str], defaults: dict[str, Any]) -> Schema:
        properties = {}
        for name, hint in hinted.items():
            try:
                properties[name] = self.schema(hint)
            except _NoJSONError:
                properties[name] = {}
            if name in defaults:
                properties[name]["default"] = defaults[name]
        schema: Schema = {"title": kind.__name__, "type": "object", "properties": properties}
        if required:
            schema["required"] = required
        return schema

    def _pydantic(self, schema: Schema) -> Schema:
        return self._inlined(schema, {**schema.get("definitions", {}), **schema.get("$defs", {})}, ())

    def _inlined(self, node: Any, definitions: dict[str, Any], around: tuple[str, ...], named: bool = False) -> Any:
        """Return a schema without $ref. named: its keys are names of fields, not keywords. What is too much is any."""
        if isinstance(node, list):
            self.nodes += len(node)
            return [self._inlined(one, definitions, around) for one in node]
        if not isinstance(node, dict):
            return node
        self.nodes += 1
        if self.nodes > MOST_NODES:
            return {}
        if named:
            return {key: self._inlined(one, definitions, around) for key, one in node.items()}
        reference = node.get("$ref")
        if isinstance(reference, str):
            name = reference.rpartition("/")[2]
            if name in around or name not in definitions or len(around) > DEEPEST:
                return {}
            others = {key: one for key, one in node.items() if key != "$ref"}
            return {**self._inlined(definitions[name], definitions, (*around, name)), **others}
        left_out = ("$defs", "definitions", "discriminator")
        self.nodes += sum(len(json.dumps(node[key])) // 20 for key in DATA & node.keys())
        return {
            key: one if key in DATA else self._inlined(one, definitions, around, key in NAMES)
            for key, one in node.items()
            if key not in left_out
        }


def _hints(kind: Any) -> dict[str, Any]:
    """Return the annotations of a class, evaluated; as texts where a name does not exist."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception as error:
        end_copy(error)
        return dict(getattr(kind, "__annotations__", {}))


# Examples


def example_of(schema: Schema) -> tuple[Any, bool]:
    """Return a value that fits a schema, None if it tells too little; and whether the code gives it."""
    for name in ("examples", "example"):
        given = schema.get(name)
        if given:
            return (given[0] if name == "examples" and isinstance(given, list) else given), True
    try:
        return (_example(schema, 0), False) if _tells(schema) else (None, False)
    except Exception as error:  # of a schema whose values are not as they should be, too
        end_copy(error)
        return None, False


class _NoExampleError(Exception):
    """An example of the schema would be too large."""


def _tells(schema: Schema) -> bool:
    """Return whether a schema says what is in the value."""
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return any(_tells(choice) for choice in choices)
    if schema.get("type") == "object":
        return bool(schema.get("properties"))
    if schema.get("type") == "array":
        return bool(schema.get("prefixItems")) or _tells(schema.get("items") or {})
    return bool(schema)


EMPTY = {"string": "text", "integer": 0, "number": 0.0, "boolean": False, "null": None, "array": [], "object": {}}
FORMATTED = {
    "date-time": "2025-01-31T12:00:00Z",
    "date": "2025-01-31",
    "time": "12:00:00",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "user@example.com",
    "uri": "https://example.com/",
}


def _example(schema: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > DEEPEST:
        return None
    for name in ("const", "default", "example"):
        if name in schema:
            return schema[name]
    for name in ("examples", "enum"):
        if schema.get(name):
            return schema[name][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return _example(next((one for one in schema[name] if one != {"type": "null"}), {}), depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind == "object":
        wanted = schema.get("required", [])
        properties = schema.get("properties", {})
        return {
            name: _example(one, depth + 1) for name, one in properties.items() if name in wanted or "default" in one
        }
    if kind == "array":
        return _example_array(schema, depth)
    if kind in ("integer", "number"):
        return _example_number(schema, kind)
    if kind == "string":
        if schema.get("minLength", 0) > MOST_EXAMPLE:
            raise _NoExampleError
        text = FORMATTED.get(schema.get("format", ""), EMPTY["string"])
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength", len(text) + 64)]
    return EMPTY.get(kind)


def _example_array(schema: Schema, depth: int) -> list[Any]:
    if "prefixItems" in schema:
        return [_example(one, depth + 1) for one in schema["prefixItems"]]
    if not schema.get("items"):
        return []
    item, count = _example(schema["items"], depth + 1), max(schema.get("minItems", 1), 1)
    if count > 1 and len(json.dumps(item)) * count > MOST_EXAMPLE:
        raise _NoExampleError
    return [item] * count


def _example_number(schema: Schema, kind: str) -> Any:
    step = schema.get("multipleOf", 1 if kind == "integer" else 0)
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    value = 0 if kind == "integer" else 0.0
    if least is not None and value < least:
        value = least
    if above is not None and value <= above:
        value = above + (step or 1)
    if most is not None and value > most:
        value = most
    if below is not None and value >= below:
        value = below - (step or 1)
    return value

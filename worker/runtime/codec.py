"""Converts request bodies to Python values, and answers to JSON.

The rules are those of FastAPI, which the original uses, but more lenient for harmless input. Both directions
run for each request: one C call in the normal case; explanations are computed only after a failure.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from json.encoder import c_make_encoder, encode_basestring
from typing import Any, Callable

from answer import JSON, AnswerError, RequestError
from form import FORM_DATA, decode_form
from plain import NotPlainError, plain

SPACE = " \t\n\r"
URLENCODED = "application/x-www-form-urlencoded"  # curl's default
DEEPEST = 200  # maximum levels of an error's path
SHOWN = 60  # characters of a key or value in an error

_scan = json.JSONDecoder().scan_once

# From this size on, orjson, if installed, decodes bodies that are mostly numbers: arrays of floats take
# a tenth of the time. For text it is not faster.
NUMBERS_FROM = 2 << 10
_DIGITS = bytes(b"0"[0] if b"0"[0] <= c <= b"9"[0] else b"."[0] if c == b"."[0] else b" "[0] for c in range(256))
_WIDE = b" " + 19 * b"0"  # an integer that may need more than 64 bits
_orjson: Any = None  # not looked up yet; False: not installed


# Requests


def decode_request(body: Any, content_type: str) -> Any:
    """Return the body for user code: a value for JSON, a Form for multipart/form-data, None for no body, else bytes.

    A JSON string becomes bytes, as in the original. Raises only RequestError.
    """
    if not body:
        return None
    if content_type != JSON and content_type and not is_json(content_type):
        return _decode_other(bytes(body), content_type)
    if len(body) >= NUMBERS_FROM and _orjson is not False and type(body) is bytes:
        numbers = _decode_numbers(body)
        if numbers is not None:
            return numbers
    try:
        text = str(body, "utf-8")
        value, end = _scan(text, 0)
    except (ValueError, StopIteration, RecursionError):
        value = _decode_again(body, content_type)
    else:
        if end != len(text) and text[end:].strip(SPACE):
            value = _decode_again(body, content_type)
    if type(value) is str:
        return value.encode("utf-8", "surrogatepass")
    return value


def raw_request(body: Any, content_type: str) -> Any:
    """Return the bytes of a body for code that decodes bodies itself, but a Form for multipart/form-data.

    Raises only RequestError.
    """
    if body and content_type.partition(";")[0].strip().lower() == FORM_DATA:
        return decode_form(bytes(body), content_type)
    return bytes(body or b"")


_STRUCTURE = re.compile(rb"[ \t\r\n]*[{\[]")


def _decode_other(body: bytes, content_type: str) -> Any:
    """Decode a body whose content type is not JSON.

    An urlencoded form never begins with a brace or bracket, so a JSON object or array of that type is from a
    client with a wrong default type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == FORM_DATA:
        return decode_form(body, content_type)
    if kind == URLENCODED and _STRUCTURE.match(body):
        try:
            return decode_request(body, JSON)
        except RequestError:
            pass
    return body


@lru_cache(maxsize=64)
def is_json(content_type: str) -> bool:
    """Return whether a content type means JSON: application/json, application/*+json, or none."""
    kind, _, subtype = content_type.partition(";")[0].strip().lower().partition("/")
    if not kind:
        return True
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))


def _decode_numbers(body: bytes) -> Any:
    """Decode an array or object of numbers quickly; None if the standard library must decode it.

    orjson returns the same value or refuses, with one exception: it converts integers of more than 64 bits to
    floats.
    """
    global _orjson
    if _orjson is None:
        try:
            import orjson
        except ImportError:
            orjson = False
        _orjson = orjson
        if not orjson:
            return None
    digits = body.translate(_DIGITS)
    if 3 * digits.count(b"0") < len(digits) or _WIDE in digits or digits.startswith(_WIDE[1:]):
        return None
    try:
        value = _orjson.loads(body)
    except ValueError:  # it may be valid by Python's rules, or needs Python's message
        return None
    return value if type(value) in (list, dict) else None


def _decode_again(body: Any, content_type: str) -> Any:
    """Decode with all of Python's rules (other Unicode encodings, leading blanks)."""
    position = 0
    try:
        return json.loads(bytes(body))
    except json.JSONDecodeError as error:
        position, reason = error.pos, error.msg
    except UnicodeDecodeError as error:
        position, reason = error.start, f"invalid {error.encoding} at byte {error.start}: {error.reason}"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # an integer of more digits than Python converts
        reason = str(error)
    if not content_type.strip():
        reason += (
            "; the request has no Content-Type, so its body is read as JSON: "
            "send that header with any other body, such as Content-Type: application/octet-stream"
        )
    raise RequestError(
        [
            {
                "type": "json_invalid",
                "loc": ["body", position],
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": reason},
            }
        ]
    )


# Answers


def _default(value: Any) -> Any:
    if hasattr(type(value), "__next__"):  # reading it here would consume it
        raise AnswerError("an iterator")
    try:
        return plain(value)
    except NotPlainError as error:
        raise AnswerError(str(error)) from error


def _make_encode() -> Callable[[Any], str]:
    if c_make_encoder is None:  # an interpreter without the C module
        return json.JSONEncoder(
            check_circular=False, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default
        ).encode
    # No markers: a cycle ends in RecursionError, which _rewrite explains, so encoding needs no check.
    encoder = c_make_encoder(None, _default, encode_basestring, None, ":", ",", False, False, False)
    join = "".join
    return lambda value: join(encoder(value, 0))


_encode = _make_encode()

nan_as_null = False  # the endpoint's setting: NaN and infinite numbers in answers become null


def encode_json(value: Any, exact: bool = False) -> bytes:
    """Return compact JSON in UTF-8; AnswerError has the place of a value without a JSON form.

    With exact, nan_as_null does not count.
    """
    try:
        return _encode(value).encode()
    except Exception:
        return _encode_again(value, nan_as_null and not exact)


def _encode_again(value: Any, null: bool) -> bytes:
    """Encode a copy that has only plain values; fails with the place of the error."""
    rewritten = _rewrite(value, "answer", [], null)
    try:
        text = _encode(rewritten)
    except Exception as error:
        raise AnswerError(f"answer cannot be written as JSON: {type(error).__name__}: {error}") from error
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair has no UTF-8, but an escape in JSON
        return json.dumps(rewritten, separators=(",", ":")).encode()


def _rewrite(value: Any, path: str, above: list[int], null: bool) -> Any:
    """Return value made of dict, list, str, int, float, bool and None only; null: None stands for NaN."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            if null:
                return None
            name = "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")
            raise AnswerError(
                f"{path} is {name}, which JSON cannot say: replace it in postprocess, e.g. by None, "
                "or set --aux-config nan_as_null=true for the endpoint"
            )
        return value
    if id(value) in above:
        raise AnswerError(f"{path} contains itself")
    if len(above) >= DEEPEST:
        raise AnswerError(f"answer is nested deeper than {DEEPEST} levels")
    above.append(id(value))
    try:
        if isinstance(value, dict):
            return {
                _key(key, path): _rewrite(item, f"{path}[{_shown(key)}]", above, null) for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [_rewrite(item, f"{path}[{index}]", above, null) for index, item in enumerate(value)]
        try:
            simpler = plain(value)
        except NotPlainError as error:
            raise AnswerError(f"{path}: {error}") from error
        return _rewrite(simpler, path, above, null)
    finally:
        above.pop()


def _key(key: Any, path: str) -> Any:
    """Return a valid key for JSON; everything that becomes a scalar can be one."""
    for _ in range(4):  # an Enum of a NumPy number of …
        if isinstance(key, str) or key is None or isinstance(key, (bool, int)):
            return key
        if isinstance(key, float):
            if key != key or key in (float("inf"), float("-inf")):
                raise AnswerError(f"{path} has the key {key!r}, which JSON cannot say")
            return key
        if isinstance(key, (dict, list, tuple)):
            break
        try:
            key = plain(key)
        except NotPlainError as error:
            raise AnswerError(f"{path} has a key that cannot be written as JSON: {error}") from error
    raise AnswerError(f"{path} has the key {_shown(key)}, a {type(key).__name__}: keys of JSON are text")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."

"""Converts bodies of multipart/form-data (RFC 7578) to a Form of fields and files.

Strict where leniency could hide data: every part must be named, text must be UTF-8, and the closing
boundary must be there. Its time is linear in the size of the body, and its memory is the body's, once more.
"""

from __future__ import annotations

import re
from typing import Optional
from urllib.parse import unquote_to_bytes

from answer import RequestError
from clearml_serving_worker import File, Form

FORM_DATA = "multipart/form-data"
MOST_PARTS = 1000
LONGEST_HEAD = 16 << 10  # bytes of a part's header fields

# One parameter of a header field; a quoted value has \" and \\ for " and \ only, as browsers and curl write it.
_PARAMETER = re.compile(r';[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))[ \t]*')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")
_ESCAPED = re.compile(r'\\(["\\])')
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def decode_form(body: bytes, content_type: str) -> Form:
    """Return the fields (text) and files of a form. Raises only RequestError."""
    boundary = (_parameters(content_type, 0) or {}).get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise _error(0, "the Content-Type has no valid boundary: let the client's library set that header")
    mark = b"--" + boundary.encode("ascii")
    if body.startswith(mark):
        at = len(mark)
    else:  # a preamble, which is dropped
        at = body.find(b"\r\n" + mark)
        if at < 0:
            raise _error(0, "its boundary is not in the body")
        at += 2 + len(mark)
    mark = b"\r\n" + mark
    values: dict[str, list[str | File]] = {}
    for _ in range(MOST_PARTS + 1):
        if body.startswith(b"--", at):
            return Form(values)
        end = body.find(b"\r\n", at, at + 256)
        if end < 0 or body[at:end].strip(b" \t"):
            raise _error(at, "a boundary is followed by neither a line end nor --")
        at = _part(body, end + 2, mark, values)
    raise _error(at, f"it has more than {MOST_PARTS} parts")


def _part(body: bytes, start: int, mark: bytes, values: dict[str, list[str | File]]) -> int:
    """Read one part that begins at start, and return the end of its boundary."""
    head = {}
    at = start
    while True:  # one header field a line, up to an empty line
        end = body.find(b"\r\n", at, start + LONGEST_HEAD)
        if end < 0:
            raise _error(at, "the head of a part has no end, or is too long")
        if end == at:
            break
        name, colon, value = body[at:end].partition(b":")
        if not colon:
            raise _error(at, "a line in the head of a part is no header field")
        text = value.strip(b" \t").decode("utf-8", "replace")
        if _CONTROL.search(text):
            raise _error(at, "the head of a part has a control character")
        head[name.strip().lower()] = text
        at = end + 2
    # The empty line's end may be the beginning of the boundary: a part without content.
    close = body.find(mark, at)
    if close < 0:
        raise _error(start, "the closing boundary is missing: the body is cut short")
    content = body[at + 2 : close] if close > at else b""
    disposition = head.get(b"content-disposition", "")
    parameters = _parameters(disposition, start)
    kind = disposition.partition(";")[0].strip().lower()
    if parameters is None or kind != "form-data" or "name" not in parameters:
        raise _error(start, "a part has no Content-Disposition: form-data with a name")
    if head.get(b"content-transfer-encoding", "").lower() not in ("", "7bit", "8bit", "binary"):
        raise _error(start, "a part has a Content-Transfer-Encoding; send the bytes as they are")
    filename = _filename(parameters)
    value: str | File
    if filename is None:
        try:
            value = content.decode("utf-8")
        except UnicodeDecodeError:
            name = parameters["name"]
            raise _error(start, f"field {name!r} is not UTF-8 text; send it as a file, with a filename") from None
    else:
        value = File(filename, head.get(b"content-type", "") or "application/octet-stream", content)
    values.setdefault(parameters["name"], []).append(value)
    return close + len(mark)


def _parameters(field: str, at: int) -> Optional[dict[str, str]]:
    """Return the parameters of a header field; None if it is malformed."""
    first = field.find(";")
    if first < 0:
        return {}
    found: dict[str, str] = {}
    while first < len(field):
        match = _PARAMETER.match(field, first)
        if match is None:
            if field[first:].strip("; \t"):
                return None
            break
        name, quoted, token = match[1].lower(), match[2], match[3]
        value = token if quoted is None else _ESCAPED.sub(r"\1", quoted)
        if name in found or _CONTROL.search(value):
            raise _error(at, f"the parameter {name} is given twice, or has a control character")
        found[name] = value
        first = match.end()
    return found


def _filename(parameters: dict[str, str]) -> Optional[str]:
    """Return the name of a file without folders, or None for a field."""
    name = parameters.get("filename")
    coded = parameters.get("filename*", "")  # RFC 5987: charset'language'percent-encoded
    if coded[:7].lower() == "utf-8''":
        name = _CONTROL.sub("", unquote_to_bytes(coded[7:]).decode("utf-8", "replace"))
    return None if name is None else name.replace("\\", "/").rpartition("/")[2]


def _error(position: int, reason: str) -> RequestError:
    return RequestError(
        [
            {
                "type": "form_invalid",
                "loc": ["body", position],
                "msg": "multipart/form-data decode error",
                "input": {},
                "ctx": {"error": reason},
            }
        ]
    )

"""Hooks of schemathesis for the test of the OpenAPI document."""

import schemathesis

LIMIT = "X-Request-Timeout"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Give each request time: a limit that passes is answered by 504, as documented."""
    try:
        if float((case.headers or {}).get(LIMIT, "")) > 0:
            case.headers[LIMIT] = "60"
    except ValueError:
        pass


@schemathesis.hook
def filter_case(context, case):
    """Leave out an empty limit: no client can tell such a field from none."""
    value = (case.headers or {}).get(LIMIT, "60")
    return str(value).strip() != ""

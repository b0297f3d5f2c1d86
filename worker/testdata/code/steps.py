"""Preprocess and postprocess for a computation that runs elsewhere."""

import gc
import os
import time
import weakref

try:
    import numpy
except ImportError:
    numpy = None


class Mark:
    """What is kept in a state."""


class Preprocess:
    def __init__(self):
        self.marks = weakref.WeakSet()

    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        if isinstance(body, bytes):
            state["x"] = len(body)
            return body
        state["x"] = body.get("x")
        state["mark"] = mark = Mark()
        self.marks.add(mark)
        do = body.get("do")
        if do == "refuse":
            raise ValueError("no")
        if do == "odd":
            return object()
        if do == "sleep":
            time.sleep(body["seconds"])
        if do == "count":
            del mark, state["mark"]
            gc.collect()
            return len(self.marks)
        if do == "ask":
            return self.send_request("steps", version=None, data={"x": "nested"})
        if do == "one":
            return numpy.arange(6, dtype="float32").reshape(2, 3)
        if do == "dict":
            return {
                "a": numpy.array([[1], [2]], dtype=">i8"),
                "b": numpy.array(["x", "yz"]),
                "c": numpy.zeros((0, 4)),
            }
        if do == "list":
            return [numpy.array(2.5), numpy.array([True, False])]
        return {"for": state["x"]}

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        if numpy is not None:
            if isinstance(data, dict):
                data = {
                    k: [str(v.dtype), v.tolist()] if isinstance(v, numpy.ndarray) else v
                    for k, v in data.items()
                }
            elif isinstance(data, list):
                data = [[str(v.dtype), v.tolist()] if isinstance(v, numpy.ndarray) else v for v in data]
            elif isinstance(data, numpy.ndarray):
                data += 1  # it may be written to
                data = [str(data.dtype), data.tolist()]
        return {"x": state["x"], "got": len(data) if isinstance(data, bytes) else data, "pid": os.getpid()}

"""Which variables a request gives to the statistics."""

import json

import pytest


def stats(endpoint, body=b"", **meta):
    answer = endpoint.ask(body, **{"sampled": True, **meta})
    assert answer.status == 200, answer.body
    return json.loads(answer.stats) if answer.stats else None


def test_unsampled_request_has_none(process):
    endpoint = process("return {'x': 1, 'none': collect_custom_statistics_fn is None}", variables=["x"])
    assert stats(endpoint, sampled=False) is None
    assert endpoint.value() == {"x": 1, "none": True}
    assert endpoint.endpoint.handle(b"", "", None).stats == b""


def test_named_keys_of_request_and_answer_are_taken_and_the_answer_wins(process):
    endpoint = process("return {'x1': 20, 'y': [0], 'z': 1}", variables=["x0", "x1", "y", "absent"])
    assert stats(endpoint, {"x0": 1, "x1": 2, "x2": 3}) == {"x0": 1, "x1": 20, "y": [0]}


def test_everything_collected_is_kept(process):
    endpoint = process(
        """
        collect_custom_statistics_fn({'a': 1, 'b': 1})
        collect_custom_statistics_fn({'b': 2})
        collect_custom_statistics_fn(c=3)
        return 1
        """
    )
    assert stats(endpoint) == {"a": 1, "b": 2, "c": 3}


def test_nothing_to_record_is_empty(process):
    assert process("return {'x': 1}").ask({"x": 1}, sampled=True).stats == b""
    assert process("return {'x': 1}", variables=["y"]).ask({"x": 1}, sampled=True).stats == b""


@pytest.mark.parametrize("answer", ["[1]", "None", "5", "'text'", "(i for i in 'a')"])
def test_answer_that_is_no_object_fails_nothing(process, answer):
    assert stats(process(f"return {answer}", variables=["x"]), {"x": 1}) == {"x": 1}


def test_value_that_cannot_be_sent_is_null_and_said_once(process):
    endpoint = process(
        "collect_custom_statistics_fn({'a': float('nan'), 'f': len, 'b': 1, (1, 2): 3})\nreturn 1", variables=["x"]
    )
    for _ in range(3):
        assert stats(endpoint, {"x": 2}) == {"a": None, "f": None, "b": 1, "(1, 2)": None, "x": 2}
    assert len(endpoint.host.lines) == 3
    assert "variable 'a' is left out (said once): answer['a'] is NaN" in endpoint.host.text()
    assert endpoint.endpoint.variables.dropped == 9


def test_name_that_has_no_text_fails_nothing(process):
    endpoint = process(
        """
        class Key:
            def __str__(self):
                raise ValueError

        collect_custom_statistics_fn({Key(): 1, chr(0xD800): 2, "b": 3})
        return 1
        """
    )
    assert stats(endpoint) == {"?": None, "\ud800": 2, "b": 3}


def test_failed_request_has_none(process):
    answer = process("raise ValueError", variables=["x"]).ask({"x": 1}, sampled=True)
    assert (answer.status, answer.stats) == (422, b"")


def test_async_engine_records_alike(process):
    endpoint = process("collect_custom_statistics_fn(a=1)\nreturn {'y': 2}", engine="custom_async", variables=["y"])
    assert stats(endpoint) == {"a": 1, "y": 2}


def test_numpy_values_are_numbers(process):
    pytest.importorskip("numpy")
    endpoint = process(
        "import numpy as np\ncollect_custom_statistics_fn(a=np.float32(0.5))\nreturn {'y': np.arange(2)}",
        variables=["y"],
    )
    assert stats(endpoint) == {"a": 0.5, "y": [0, 1]}

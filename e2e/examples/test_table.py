"""When a comparison is right, and how it is shown."""

import frameworks
import pytest
import table


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ({"y": [0]}, {"y": [0]}, True),
        ({"y": [0]}, {"y": [1]}, False),
        ({"y": [0]}, {"y": [0, 0]}, False),
        ({"y": [0]}, {"z": [0]}, False),
        ({"y": [0]}, {"y": [0], "z": 1}, False),
        (1.0, 1.0 + 1e-9, True),
        (1.0, 1.001, False),
        (1e9, 1e9 + 1, True),
        (1, 1.0, False),
        (0, False, False),
        (None, None, True),
        (float("nan"), float("nan"), False),
    ],
)
def test_answers_are_the_same_but_for_rounding(one, other, wanted):
    assert frameworks.same(one, other) is wanted


def test_a_row_fails_with_one_wrong_answer_of_many():
    row = table.Row("example", "a/1", "canary")
    for number in range(10):
        row.add(number, {"y": number}, {"y": 3 if number == 7 else number}, 200)
    assert row.verdict == "FAIL (1 of 10)"
    assert len(row.wrong) == 1 and '{"y":7}' in row.wrong[0] and '{"y":3}' in row.wrong[0]


def test_a_row_fails_with_an_error_status_and_without_requests():
    refused = table.Row("example", "a", "")
    assert refused.verdict == "FAIL"
    refused.add({}, {"y": 1}, {"y": 1}, 500)
    assert refused.verdict == "FAIL (1 of 1)"


def test_a_row_tells_only_the_first_differences():
    row = table.Row("example", "a", "")
    for number in range(100):
        row.add(number, 1, 2, 200)
    assert row.verdict == "FAIL (100 of 100)"
    assert len(row.wrong) == table.SHOWN_WRONG


def test_the_table_is_aligned():
    row = table.Row("sklearn", "test_model", "curl")
    row.add({}, {"y": [0]}, {"y": [0]}, 200)
    head, line = table.render([row]).splitlines()
    assert head.index("answer") == line.index('{"y":[0]}')
    assert line.endswith("ok")

"""What becomes of an answer's values in JSON."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import pathlib
import random
import uuid

import pytest

import codec
from answer import AnswerError
from codec import encode_json


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Word(str, enum.Enum):
    A = "a"


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date


class Plain:
    def __init__(self):
        self.a = 1
        self.b = {Colour.RED: Point(1, datetime.date(2026, 1, 2))}


class Slots:
    __slots__ = ("a",)


class Pydantic2:
    def model_dump(self, mode, by_alias):
        return {"mode": mode, "by_alias": by_alias}


class Pydantic1:
    __fields__ = {}

    def dict(self, by_alias):
        return {"by_alias": by_alias}


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"y": [0, 1.5, True, None, "ü"]}, '{"y":[0,1.5,true,null,"ü"]}'),
        ([], "[]"),
        ("text", '"text"'),
        (b"text", '"text"'),
        (None, "null"),
        ((1, 2), "[1,2]"),
        (Pair(1, 2), "[1,2]"),
        (1e16, "1e+16"),
        (2**70, "1180591620717411303424"),
        (
            {
                1,
            },
            "[1]",
        ),
        (frozenset(["a"]), '["a"]'),
        (range(3), "[0,1,2]"),
        ({"a": 1}.keys(), '["a"]'),
        (collections.deque([1, 2]), "[1,2]"),
        (collections.OrderedDict(a=1), '{"a":1}'),
        (collections.Counter("a"), '{"a":1}'),
        (collections.ChainMap({"a": 1}), '{"a":1}'),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), '"2026-01-02T03:04:05"'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (datetime.time(3, 4), '"03:04:00"'),
        (datetime.timedelta(minutes=1, milliseconds=500), "60.5"),
        (Colour.RED, '"red"'),
        (Level.LOW, "1"),
        (Word.A, '"a"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (decimal.Decimal("1.50"), "1.5"),
        (decimal.Decimal("3"), "3"),
        (fractions.Fraction(1, 4), "0.25"),
        (pathlib.PurePosixPath("/a/b"), '"/a/b"'),
        (Point(1, datetime.date(2026, 1, 2)), '{"x":1,"when":"2026-01-02"}'),
        (Plain(), '{"a":1,"b":{"red":{"x":1,"when":"2026-01-02"}}}'),
        (Pydantic2(), '{"mode":"json","by_alias":true}'),
        (Pydantic1(), '{"by_alias":true}'),
        ({1: "a", 2.5: "b", None: "c", False: "d"}, '{"1":"a","2.5":"b","null":"c","false":"d"}'),
        (
            {datetime.date(2026, 1, 2): 1, uuid.UUID(int=0): 2},
            '{"2026-01-02":1,"00000000-0000-0000-0000-000000000000":2}',
        ),
        ({b"a": 1}, '{"a":1}'),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_value_is_compact_json_in_raw_utf8(value, expected):
    assert encode_json(value).decode() == expected


def test_nested_generator_is_a_list_read_once():
    assert encode_json({"a": (i for i in range(3)), Colour.RED: map(str, [1])}) == b'{"a":[0,1,2],"red":["1"]}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"y": [1.0, math.nan]}, "answer['y'][1] is NaN"),
        (math.inf, "answer is Infinity"),
        ({"a": {"b": -math.inf}}, "answer['a']['b'] is -Infinity"),
        ({"a": decimal.Decimal("NaN")}, "answer['a'] is NaN"),
        ({math.nan: 1}, "answer has the key nan"),
        ({"a": b"\xff"}, "answer['a']: 1 bytes that are not UTF-8 text"),
        ({(1, 2): 3}, "answer has the key (1, 2), a tuple"),
        ({"f": len}, "answer['f']: a builtin_function_or_method cannot be written as JSON"),
        ([json], "answer[0]: a module cannot be written as JSON"),
        ({"c": 1j}, "answer['c']: complex numbers"),
        (Slots(), "answer: a Slots cannot be written as JSON"),
        ([int], "answer[0]: a type cannot be written as JSON"),
        ({"k" * 200: math.nan}, "..."),
    ],
)
def test_value_without_a_json_form_says_where_it_is(value, text):
    with pytest.raises(AnswerError) as caught:
        encode_json(value)
    assert text in str(caught.value)


def test_circle_is_named():
    circle = {"a": []}
    circle["a"].append(circle)
    with pytest.raises(AnswerError, match=r"answer\['a'\]\[0\] contains itself"):
        encode_json(circle)


def test_deep_answer_does_not_end_the_process():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(AnswerError, match="nested deeper"):
        encode_json(deep)


def test_conversion_that_fails_is_told():
    class Broken:
        def tolist(self):
            raise OSError("device gone")

    with pytest.raises(AnswerError, match="a Broken cannot be written as JSON: OSError: device gone"):
        encode_json({"a": Broken()})


def test_conversion_that_leads_nowhere_is_told():
    class Same:
        def tolist(self):
            return self

    with pytest.raises(AnswerError, match="a Same cannot be written as JSON"):
        encode_json([Same()])


def test_any_nest_of_values_encodes_or_says_why():
    source = random.Random(2)
    leaves = [
        1,
        -0.5,
        "ü",
        "\ud800",
        None,
        True,
        b"x",
        b"\xff",
        math.nan,
        Colour.RED,
        Slots(),
        {3},
        1j,
        int,
        decimal.Decimal(2),
    ]

    def nest(depth):
        if depth == 0 or source.random() < 0.3:
            return source.choice(leaves)
        if source.random() < 0.5:
            return [nest(depth - 1) for _ in range(source.randrange(3))]
        return {source.choice(["a", 1, Colour.RED, (1,), None]): nest(depth - 1) for _ in range(source.randrange(3))}

    count, encoded, refused = 5000, 0, 0
    for _ in range(count):
        value = nest(4)
        try:
            text = encode_json(value)
        except AnswerError as error:
            refused += str(error).startswith("answer")
        else:
            json.loads(text)
            encoded += 1
    assert encoded > 500
    assert refused == count - encoded


class TestNumPy:
    @pytest.fixture
    def np(self):
        return pytest.importorskip("numpy")

    def test_scalars_and_arrays_are_numbers(self, np):
        value = {
            "i": np.int64(1),
            "f": np.float64(0.5),
            "g": np.float32(0.5),
            "h": np.float16(0.5),
            "l": np.longdouble(0.5),
            "b": np.bool_(True),
            "s": np.str_("a"),
            "a": np.arange(4).reshape(2, 2),
            "z": np.array(3),
            "e": np.empty((0, 2)),
            "o": np.array([None, {"k": np.int8(1)}], dtype=object),
            np.int64(7): 1,
        }
        assert json.loads(encode_json(value)) == {
            "i": 1,
            "f": 0.5,
            "g": 0.5,
            "h": 0.5,
            "l": 0.5,
            "b": True,
            "s": "a",
            "a": [[0, 1], [2, 3]],
            "z": 3,
            "e": [],
            "o": [None, {"k": 1}],
            "7": 1,
        }

    def test_times_are_text(self, np):
        value = [np.datetime64("2026-01-02T03:04:05", "ns"), np.datetime64("2026-01-02"), np.datetime64("NaT", "ns")]
        assert encode_json(value) == b'["2026-01-02T03:04:05","2026-01-02",null]'
        assert encode_json(np.timedelta64(1500, "ms")) == b"1.5"
        assert encode_json(np.array(["2026-01-02"], dtype="datetime64[ns]")) == b'["2026-01-02T00:00:00"]'

    def test_nan_in_an_array_says_where(self, np):
        with pytest.raises(AnswerError, match=r"answer\['y'\]\[1\]\[0\] is NaN"):
            encode_json({"y": np.array([[1.0], [np.nan]])})

    def test_complex_is_told(self, np):
        with pytest.raises(AnswerError, match=r"answer\[0\]: complex numbers"):
            encode_json([np.complex128(1)])


def test_pandas_values():
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"a": [1, 2], "t": pd.to_datetime(["2026-01-02", None])})
    assert encode_json(table) == b'[{"a":1,"t":"2026-01-02T00:00:00"},{"a":2,"t":null}]'
    assert encode_json({"s": table["a"], "i": table.index, "na": pd.NA}) == b'{"s":[1,2],"i":[0,1],"na":null}'


def test_pydantic_model():
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        a: int
        when: datetime.date

    assert encode_json([Model(a=1, when="2026-01-02")]) == b'[{"a":1,"when":"2026-01-02"}]'


class TestNanAsNull:
    @pytest.fixture(autouse=True)
    def setting(self, monkeypatch):
        monkeypatch.setattr(codec, "nan_as_null", True)

    def test_nan_and_infinity_become_null_wherever_they_are(self):
        value = {"y": [1.5, math.nan, (math.inf, -math.inf)], "n": {"x": math.nan}, "t": "NaN"}
        assert encode_json(value) == b'{"y":[1.5,null,[null,null]],"n":{"x":null},"t":"NaN"}'
        assert encode_json(math.nan) == b"null"

    def test_a_key_that_is_nan_stays_an_error(self):
        with pytest.raises(AnswerError):
            encode_json({math.nan: 1})

    def test_statistics_leave_it_out_as_ever(self):
        with pytest.raises(AnswerError):
            encode_json({"x": math.nan}, exact=True)

    def test_an_array(self):
        np = pytest.importorskip("numpy")
        assert encode_json({"y": np.array([[1.0], [np.nan]])}) == b'{"y":[[1.0],[null]]}'


def test_nan_as_null_is_a_setting_of_the_endpoint(process):
    assert process("return [float('nan')]", extra={"nan_as_null": True}).value() == [None]
    assert process("return [float('nan')]").detail()[0] == 500

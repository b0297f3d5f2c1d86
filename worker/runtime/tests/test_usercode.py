"""How preprocess code is found, imported and shielded from ours."""

import sys

import pytest

from answer import LoadError


def test_file_is_a_module_that_pickles(load):
    endpoint = load("""
        import dataclasses, pickle, sys
        from typing import Optional

        @dataclasses.dataclass
        class Point:
            x: Optional[int]

        class Preprocess:
            def process(self, data, state, collect_custom_statistics_fn=None):
                assert sys.modules[__name__].Preprocess is Preprocess
                return [__name__, pickle.loads(pickle.dumps(Point(1)))]
    """)
    assert endpoint.value() == ["Preprocess", {"x": 1}]


def test_folder_finds_siblings_by_both_imports(load):
    endpoint = load(
        {
            "__init__.py": "from .first import A\nimport second\nfrom sub.deep import C\nfrom .pre import Preprocess\n",
            "first.py": "A = 1\n",
            "second.py": "B = 2\n",
            "sub/__init__.py": "",
            "sub/deep.py": "C = 3\n",
            "pre.py": """
                from pathlib import Path
                class Preprocess:
                    def process(self, data, state, collect_custom_statistics_fn=None):
                        import py_code_test_1 as me, second
                        return [me.A, me.second.B, me.C, second.B, Path(__file__).parent.name, __name__]
            """,
        }
    )
    assert endpoint.value() == [1, 2, 3, 2, "code", "py_code_test_1.pre"]


def test_folder_without_init_uses_preprocess_py(load):
    endpoint = load({"preprocess.py": "from helper import A\nclass Preprocess:\n    x = A\n", "helper.py": "A = 1\n"})
    assert endpoint.value() is None


@pytest.mark.parametrize("name", ["preprocess", "codec", "engines", "answer", "endpoint"])
def test_users_file_of_one_of_our_names_is_the_users(load, name):
    endpoint = load(
        {
            "__init__.py": f"import {name}\nclass Preprocess:\n"
            f"    def process(self, data, state, collect_custom_statistics_fn=None):\n"
            f"        import {name} as again\n        return [{name}.MINE, again.MINE]\n",
            f"{name}.py": "MINE = 'yes'\n",
        }
    )
    assert endpoint.value() == ["yes", "yes"]


def test_our_modules_are_not_importable_by_user_code(load):
    with pytest.raises(LoadError, match="No module named 'codec'"):
        load("import codec\nclass Preprocess: pass\n")


def test_single_file_named_like_a_library_hides_nothing(load, tmp_path):
    file = tmp_path / "colorsys.py"
    file.write_text("import colorsys\ncolorsys.rgb_to_hls\nclass Preprocess: pass\n")
    sys.modules.pop("colorsys", None)
    assert load(code_path=str(file)).value() is None


def test_single_file_may_have_any_name(load, tmp_path):
    file = tmp_path / "0a1b2c.my code"
    file.write_text("class Preprocess: pass\n")
    assert load(code_path=str(file)).value() is None


def test_changed_code_of_same_size_and_second_is_the_changed_one(load, tmp_path):
    sources = {
        "__init__.py": "import user_side\nclass Preprocess:\n"
        "    def process(self, data, state, collect_custom_statistics_fn=None):\n        return user_side.X\n",
        "user_side.py": "X = 1\n",
    }
    assert load(sources).value() == 1
    stat = (tmp_path / "code" / "user_side.py").stat()
    sys.modules.pop("user_side")
    (tmp_path / "code" / "user_side.py").write_text("X = 2\n")
    __import__("os").utime(tmp_path / "code" / "user_side.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load(code_path=str(tmp_path / "code")).value() == 2
    assert not list((tmp_path / "code").rglob("*.pyc"))


def test_what_user_code_may_import_is_there(process):
    endpoint = process(
        "from clearml_serving_worker import Response, SendRequestError\nreturn Response({'a': 1}, status=201)"
    )
    answer = endpoint.ask()
    assert (answer.status, answer.body) == (201, b'{"a":1}')


def test_classes_pickled_by_a_training_script_are_found(load):
    endpoint = load("""
        import pickle
        class Scaler:
            factor = 3
        class Preprocess:
            def process(self, data, state, collect_custom_statistics_fn=None):
                return pickle.loads(data).factor
    """)
    pickled = b"c__main__\nScaler\n."
    assert endpoint.value(pickled, "application/octet-stream") == 3


def fault(load, *args, **spec):
    with pytest.raises(LoadError) as caught:
        load(*args, **spec)
    return caught.value


def test_missing_class_is_named_with_what_to_write(load):
    error = fault(load, "class Preproces: pass\n")
    assert error.message.startswith("Failed loading preprocess code for 'py_code_test_1': preprocess.py has no class ")
    assert "(its classes: Preproces)" in error.message
    assert "class Preprocess: def preprocess" in error.message


def test_preprocess_must_be_a_class(load):
    assert "is a int, not a class" in fault(load, "Preprocess = 1\n").message


def test_folder_without_entry_names_what_it_holds(load):
    error = fault(load, {"main.py": "", "data.csv": ""})
    assert "neither an __init__.py nor a preprocess.py, only data.csv, main.py" in error.message


def test_missing_path_is_named(load):
    assert "/no/such/file is not there" in fault(load, code_path="/no/such/file").message


def test_syntax_error_shows_file_and_line(load):
    error = fault(load, "class Preprocess:\n    x = = 1\n")
    assert "preprocess.py:2: " in error.message
    assert "x = = 1" in error.traceback_text


def test_missing_package_shows_the_command(load):
    error = fault(load, "import yaml_not_there.deep\nclass Preprocess: pass\n")
    assert f"{sys.executable} -m pip install yaml_not_there" in error.message


def test_exit_at_import_is_an_error(load):
    assert "sys.exit(3)" in fault(load, "import sys\nsys.exit(3)\n").message


def test_traceback_has_the_users_lines_only(load):
    error = fault(
        load,
        {"__init__.py": "from .side import go\ngo()\n", "side.py": "import json\ndef go():\n    json.loads('{')\n"},
    )
    assert error.message.endswith(
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    )
    for expected in ("__init__.py", "side.py", "json.loads('{')", "decoder.py"):
        assert expected in error.traceback_text
    for ours in ("usercode.py", "importlib", "preprocess.py", "conftest"):
        assert ours not in error.traceback_text


@pytest.mark.parametrize("where", ["__init__", "load"])
def test_exception_while_made_is_a_load_error(load, where):
    args = "self" if where == "__init__" else "self, local_file_name"
    error = fault(load, f"class Preprocess:\n    def {where}({args}):\n        raise KeyError('weights')\n")
    assert error.message == "Failed loading preprocess code for 'py_code_test_1': KeyError: 'weights'"
    assert f"in {where}" in error.traceback_text
    assert "runtime" not in error.traceback_text


def test_unknown_engine_lists_those_there_are(load):
    assert (
        "sklearn, xgboost, lightgbm, custom, custom_async"
        in fault(load, "class Preprocess: pass", engine="tpu").message
    )

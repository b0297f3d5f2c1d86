"""Imports the user's preprocess code, a file or a folder.

Owns what an import changes in this process: sys.path, sys.modules, __main__. A process
loads the code of one endpoint and is replaced when the code changes, so nothing is undone.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import types
from typing import Any

from answer import CodeError
from children import announce
from output import last_words
from owner import end_copy
from tracebacks import RUNTIME, describe, user_traceback, variable_hint

PUBLIC = "clearml_serving_worker"
FILE_MODULE = "Preprocess"  # the original's name for a single file; it shows in error texts
EXAMPLE = "class Preprocess: def preprocess(self, body, state, collect_custom_statistics_fn=None): return body"

# Packages whose names differ from those of their modules.
PACKAGES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dotenv": "python-dotenv",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def import_preprocess(path: str, name: str) -> Any:
    """Import the code at path and return its Preprocess class; raises CodeError.

    name is the artifact's. A folder becomes a package of that name.
    """
    code = os.path.abspath(path)
    if not os.path.exists(code):
        raise CodeError(name, f"{path} is not there")
    step_aside()
    module_name = (name.replace(".", "_") or "preprocess_code") if os.path.isdir(code) else FILE_MODULE
    file = _folder_entry(code, name) if os.path.isdir(code) else code
    see(code)
    # Code that parses arguments at import must not get those of this process.
    sys.argv = [file]
    main = stand_in_for_main()
    spec = spec_of(code, module_name)
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    announce(module_name, code, main)
    _run(spec, module, name)
    lend_to_main(module, main)
    found = getattr(module, "Preprocess", None)
    if found is None:
        names = ", ".join(
            sorted(n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module_name)
        )
        has = f" (its classes: {names})" if names else ""
        raise CodeError(name, f"{os.path.basename(file)} has no class named Preprocess{has}; write one: {EXAMPLE}")
    if not isinstance(found, type):
        raise CodeError(name, f"Preprocess in {os.path.basename(file)} is a {type(found).__name__}, not a class")
    return found


def missing_package(error: BaseException) -> str:
    """Return the command that installs the missing module of a ModuleNotFoundError, or ""."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    top = error.name.partition(".")[0]
    if top in sys.modules:  # a missing submodule of an installed package: another installation does not help
        return ""
    return f"; if it is a package, install it: {sys.executable} -m pip install {PACKAGES.get(top, top)}"


def step_aside() -> None:
    """Hide this folder's modules from user code.

    A user's own preprocess.py or codec.py must be found by a plain import. Our modules keep
    working, since they imported one another when the process started; none may do so later.
    """
    # By name: an attribute access to every module would copy their pages, which a fork shares.
    for file in os.listdir(RUNTIME):
        module_name, dot, ending = file.partition(".")
        module = sys.modules.get(module_name)
        if ending == "py" and dot and module is not None and _is_ours(getattr(module, "__file__", None) or ""):
            del sys.modules[module_name]
            sys.modules[f"{PUBLIC}._{module_name}"] = module
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) + os.sep != RUNTIME]


def _is_ours(file: str) -> bool:
    return os.path.dirname(file) + os.sep == RUNTIME


def forget_finders(folder: str) -> None:
    """Discard cached listings of a folder, and of paths that did not exist at the start of the process.

    The others stay: each holds the names of its folder's files, and to free them all would copy
    most of the memory that a fork shares (measured: 4.6 of 6.3 MiB).
    """
    known = sys.path_importer_cache
    known.pop(folder, None)
    for entry in sys.path:
        if known.get(entry) is None:
            known.pop(entry, None)


def see(code: str) -> None:
    """Make files beside the user's code importable."""
    if os.path.isdir(code):
        fresh = code
        if code not in sys.path:
            sys.path.insert(0, code)
    else:
        # A single file has no siblings to find; in front, a file named json.py would hide a library.
        fresh = os.path.dirname(code)
        if fresh not in sys.path:
            sys.path.append(fresh)
    sys.path_hooks.insert(0, _fresh_finder(fresh))
    forget_finders(fresh)


def spec_of(code: str, module_name: str) -> Any:
    """Return the spec of the user's module."""
    package = os.path.isdir(code)
    file = _folder_entry(code, module_name) if package else code
    return importlib.util.spec_from_file_location(
        module_name, file, loader=FreshSource(module_name, file), submodule_search_locations=[code] if package else None
    )


def stand_in_for_main() -> types.ModuleType:
    """Replace the runtime's __main__, which stays alive, by one for user code."""
    main = types.ModuleType("__main__")
    sys.modules.setdefault(f"{PUBLIC}._main", sys.modules["__main__"])
    sys.modules["__main__"] = main
    return main


def lend_to_main(module: types.ModuleType, main: types.ModuleType) -> None:
    """Add the user's classes and functions to __main__.

    A model pickled by a training script refers to definitions of that script as "__main__.X".
    If the preprocess code defines the same X, the model loads.
    """
    for name, value in vars(module).items():
        if not name.startswith("__") and (isinstance(value, type) or callable(value)):
            setattr(main, name, value)


def _folder_entry(folder: str, name: str) -> str:
    for entry in ("__init__.py", "preprocess.py"):
        file = os.path.join(folder, entry)
        if os.path.isfile(file):
            return file
    names = sorted(os.listdir(folder))
    held = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
    raise CodeError(
        name,
        f"the folder has neither an __init__.py nor a preprocess.py, only {held}; "
        "put the class Preprocess, or an import of it, into __init__.py",
    )


def _run(spec: Any, module: types.ModuleType, name: str) -> None:
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        end_copy(error)
        raise CodeError(
            name,
            f"the code ended the process while it was imported (sys.exit({error.code!r})){last_words()}",
            user_traceback(error),
        ) from error
    except BaseException as error:
        end_copy(error)
        text = describe(error) + variable_hint(error) + missing_package(error)
        raise CodeError(name, text, user_traceback(error)) from error


class FreshSource(importlib.machinery.SourceFileLoader):
    """Source that is compiled at each import.

    Bytecode is matched by second and size of its source: a changed file of the same size
    could run as the old one. The user's folder stays free of __pycache__ as well.
    """

    def get_code(self, fullname: str) -> types.CodeType:
        """Compile the module's source."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _fresh_finder(folder: str) -> Any:
    """Return a path hook that reads the modules below folder with FreshSource."""
    loaders = (
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (FreshSource, importlib.machinery.SOURCE_SUFFIXES),
        (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
    )

    def find(path: str) -> importlib.machinery.FileFinder:
        if path != folder and not path.startswith(folder + os.sep):
            raise ImportError(path)
        return importlib.machinery.FileFinder(path, *loaders)

    return find

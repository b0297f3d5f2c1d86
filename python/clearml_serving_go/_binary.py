"""Where the program is."""

from __future__ import annotations

import os
import sys
import sysconfig

NAME = "clearml-serving"


def find_binary() -> str:
    """Return the path of the program that was installed with this package."""
    tried = []
    for folder in _folders():
        path = os.path.join(folder, NAME)
        if os.path.isfile(path):
            return path
        tried.append(path)
    raise FileNotFoundError(
        f"the program {NAME} of the package clearml-serving-go was not found; install the package again. Looked for: "
        + ", ".join(tried)
    )


def _folders() -> list[str]:
    """Return the folders in which installers put scripts, the most specific first."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = [
        os.path.join(here, "bin"),  # pip install --target
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", scheme=_user_scheme()),
        # An environment of another Python that shares its packages, as with a prefix.
        os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(here))), "bin"),
    ]
    return list(dict.fromkeys(folders))


def _user_scheme() -> str:
    if sys.version_info >= (3, 10):
        return sysconfig.get_preferred_scheme("user")
    return "osx_framework_user" if sys.platform == "darwin" and getattr(sys, "_framework", "") else "posix_user"

"""The resource limits and the account of a worker, set before user code runs.

Owns the resource limits and the change of account of a freshly forked process. Go selects the account and its
permissions.
"""

from __future__ import annotations

import os
import resource
from typing import Any

try:
    import ctypes
except ImportError:  # left out of some small builds of Python
    ctypes = None

PR_SET_NO_NEW_PRIVS = 38


def confine(rules: dict[str, Any]) -> None:
    """Drop the rights in the rules permanently; after an error the process must not continue."""
    # A core file would store requests and models on disk, and takes longer to write than a worker takes to start.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = int(rules.get("open_files") or 0)
    if files > 0:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if rules.get("uid") is not None:
        become(int(rules["uid"]), int(rules["gid"]))


def become(uid: int, gid: int) -> None:
    """Switch to another account, permanently."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if ctypes is not None:
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # programs cannot regain root
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise PermissionError("the worker's account could not be changed")

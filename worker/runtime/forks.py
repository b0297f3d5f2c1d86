"""Forks on request, reaps, and reports: the loop of the zygote and of each template.

A template is a process that has loaded an endpoint; the workers of that endpoint are forked
from it and share its memory. One JSON message per packet, on a control socket:

    <- {"do": "fork", "n": 7, "template": false, "needs": ["numpy"]}  descriptors: data, stdout, stderr,
       marks, bodies[, control]; needs are packages to import before
    <- {"do": "kill", "n": 7, "signal": 9, "group": true}
    <- {"do": "standby"}  descriptor: the control socket of a standby copy of this process
    -> {"is": "here", "pid": 4710}
    -> {"is": "importing", "name": "numpy"}
    -> {"is": "ready"}
    -> {"is": "imported", "threads": 1, "imported": [...], "failed": {...}}
    -> {"is": "forked", "n": 7, "pid": 4711}  or  {"is": "unforked", "n": 7, "text": "..."}
    -> {"is": "exit", "n": 7, "status": 9, "maxrss": 12345}

The end of the socket means that Go has ended: all children are killed, with all processes that user
code has left behind, because a forker is the reaper of orphaned descendants. It also kills orphans
of dead workers while it runs: each process has the mark of its worker.
"""

from __future__ import annotations

import array
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from typing import Any, Callable, NamedTuple, Optional

try:
    import ctypes
except ImportError:  # left out of some small builds of Python
    ctypes = None

PR_SET_CHILD_SUBREAPER = 36
# A process's mark is the value of this limit. The kernel has not enforced it since 2.4 but still stores it:
# all processes that user code starts inherit it, through every fork, exec and new session, and every process
# may read it.
RLIMIT_LOCKS = 10
QUIET = 0.2  # seconds
FAREWELL = 2.0  # seconds of the search for descendants at the end


_service = 0  # the upper half of the marks; the lower half is the worker's process id


def mark_with(service: int) -> None:
    """Mark the processes forked from here as processes of this service."""
    global _service
    _service = service


class Job(NamedTuple):
    """The purpose of a forked process: the descriptors that it owns."""

    data: socket.socket
    marks: int  # descriptor of the shared page
    bodies: int  # descriptor of the memory of large bodies
    control: Optional[socket.socket]  # of a template
    parent: int


def supervise(control: socket.socket, imports: Any = None, at_end: Optional[Callable[[], None]] = None) -> Job:
    """Fork and reap until Go has closed the link; returns only in a forked child, with its Job.

    at_end is called when Go has closed the control socket and the workers have ended.

    Deferred work of imports (see zygote.py) is done after a moment without requests: a new child loads at a
    lower priority than this process.
    """
    tell(control, {"is": "here", "pid": os.getpid()})
    quiet = time.monotonic() + QUIET
    children: dict[int, int] = {}  # pid -> n
    wake_read, wake_write = socket.socketpair()
    for end in (wake_read, wake_write):
        end.setblocking(False)
    inherit_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is sent when Go dies; the end of the socket is enough
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        wait = None
        if imports is not None and imports.left():
            wait = max(0.0, quiet - time.monotonic()) * 1000
        ready = {number for number, _ in poll.poll(wait)}
        if not ready:
            imports.step()
            continue
        quiet = time.monotonic() + QUIET
        if wake_read.fileno() in ready:
            try:
                wake_read.recv(4096)
            except BlockingIOError:
                pass
        reap(control, children)
        if control.fileno() not in ready:
            continue
        message, descriptors = receive(control)
        if message is None:
            break
        if message["do"] == "kill":
            kill(children, message)
        elif message["do"] == "standby":
            try:
                pid = os.fork()
            except OSError:
                close_all(descriptors)  # the closed sockets report it
                continue
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for end in (control, wake_read, wake_write):
                    end.close()
                os.setsid()
                hush()
                return supervise(socket.socket(fileno=descriptors[0]))
            close_all(descriptors)
        elif message["do"] == "fork":
            parent = os.getpid()
            if imports is not None:
                imports.need(message.get("needs") or [])
            try:
                pid = os.fork()
            except OSError as error:
                tell(control, {"is": "unforked", "n": message["n"], "text": str(error)})
                close_all(descriptors)
                continue
            if pid == 0:
                # SIGCHLD must be disabled before its socket is closed.
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.setpgid(0, 0)
                mark_self()
                for end in (control, wake_read, wake_write):
                    end.close()
                data, out, err, marks, bodies = descriptors[:5]
                os.dup2(out, 1)
                os.dup2(err, 2)
                close_all([out, err])
                template = socket.socket(fileno=descriptors[5]) if message.get("template") else None
                return Job(socket.socket(fileno=data), marks, bodies, template, parent)
            try:
                os.setpgid(pid, pid)  # in both processes, so that a kill finds the group at any time
            except OSError:
                pass
            children[pid] = message["n"]
            close_all(descriptors)
            tell(control, {"is": "forked", "n": message["n"], "pid": pid})
    for pid in children:
        kill_group(pid, signal.SIGKILL)
    if at_end is not None:
        for pid in children:
            os.waitpid(pid, 0)
        try:
            at_end()
        except BaseException:
            traceback.print_exc()
    end_descendants()
    os._exit(0)


def hush() -> None:
    """Redirect output to the null device: this copy must not keep the original's pipes open."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def inherit_orphans() -> None:
    """Make this process the reaper of orphaned descendants."""
    try:
        if ctypes is not None:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux: processes that leave their group survive


def end_descendants() -> None:
    """Kill all descendants. The children of each become children of this process."""
    until = time.monotonic() + FAREWELL
    while time.monotonic() < until:
        for pid in children_of(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def children_of(parent: int) -> list[int]:
    """List the children of a process."""
    found = []
    try:
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    if int(stat.read().rpartition(b") ")[2].split()[1]) == parent:
                        found.append(int(name))
            except (OSError, IndexError, ValueError):
                continue  # it has ended meanwhile
    except OSError:
        pass
    return found


def tell(control: socket.socket, message: dict[str, Any]) -> None:
    """Send one message; if the peer is gone, end with all descendants."""
    try:
        control.sendall(json.dumps(message).encode())
    except OSError:
        end_descendants()
        os._exit(0)


def receive(control: socket.socket) -> tuple[Any, list[int]]:
    """Receive one message and its descriptors; None at the end."""
    descriptors = array.array("i")
    try:
        data, ancillary, _, _ = control.recvmsg(1 << 16, socket.CMSG_SPACE(8 * descriptors.itemsize))
    except OSError:
        return None, []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if not data:
        close_all(list(descriptors))
        return None, []
    for number in descriptors:
        os.set_inheritable(number, False)  # programs of user code must not inherit these sockets
    return json.loads(data), list(descriptors)


def reap(control: socket.socket, children: dict[int, int]) -> None:
    """Report dead children; the remains of each, in its group or elsewhere, are killed."""
    buried = False
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if info is None:
            break
        pid = info.si_pid
        kill_group(pid, signal.SIGKILL)  # a zombie keeps the id of its group
        _, status, usage = os.wait4(pid, 0)
        buried = True
        number = children.pop(pid, None)
        if number is not None:
            tell(control, {"is": "exit", "n": number, "status": status, "maxrss": usage.ru_maxrss})
    if buried:
        end_orphans(children)


def mark_self() -> None:
    """Mark this process as a worker, to identify the processes that it starts."""
    if not _service or not sys.platform.startswith("linux"):
        return
    try:
        hard = resource.getrlimit(RLIMIT_LOCKS)[1]
        resource.setrlimit(RLIMIT_LOCKS, (_service << 32 | os.getpid(), hard))
    except (OSError, ValueError):
        pass  # the limit was lowered: detached processes then end with the service


def worker_of(pid: int) -> int:
    """Return the number of the worker that a process belongs to, 0 for none."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as limits:
            for line in limits:
                if line.startswith(b"Max file locks"):
                    mark = int(line.split()[3])
                    return mark & 0xFFFFFFFF if mark >> 32 == _service else 0
    except (OSError, IndexError, ValueError):
        pass  # it has ended, or has no number: "unlimited"
    return 0


def end_orphans(children: dict[int, int]) -> None:
    """Kill orphans of dead workers. Their own orphans become children of this process in turn."""
    if not _service:
        return
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", "rb") as ours:
            mine = [int(pid) for pid in ours.read().split()]
    except OSError:
        mine = children_of(me)
    for pid in mine:
        if pid in children:
            continue
        worker = worker_of(pid)
        if worker and worker != pid and not os.path.exists(f"/proc/{worker}"):
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass


def kill(children: dict[int, int], message: dict[str, Any]) -> None:
    """Send a signal to a child; only here its process id cannot have been reused."""
    for pid, number in children.items():
        if number != message["n"]:
            continue
        if message.get("group"):
            kill_group(pid, message["signal"])
        else:
            try:
                os.kill(pid, message["signal"])
            except ProcessLookupError:
                pass


def kill_group(pid: int, number: int) -> None:
    """Send a signal to a whole group, if it still exists."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def close_all(descriptors: list[int]) -> None:
    """Close descriptors."""
    for number in descriptors:
        os.close(number)

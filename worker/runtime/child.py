"""Runs a forked process, from the fork to its exit.

Owns the state that separates a fork from its parent: descriptors, signals, environment, seeds.
preprocess.py loads the endpoint, loop.py and asyncloop.py answer requests.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
from typing import Any, NoReturn, Optional

import frames
import output
import versions
from batch import serve_batches
from confine import confine
from delay import run_delay
from forks import Job, supervise
from link import Link, LinkClosed
from loop import Host, serve
from owner import end_copy, take
from preprocess import LoadError, load_endpoint
from sharing import LoadWatch

try:
    import ctypes
except ImportError:  # left out of some small builds of Python
    ctypes = None

KIND_LOADING = 10  # added to the nice value while a process loads
KIND_READING = (2 << 13) | 7  # "best effort", the last of its levels: what ionice -c2 -n7 sets
SYS_IOPRIO = {"x86_64": (251, 252), "aarch64": (30, 31)}  # ioprio_set, ioprio_get
OOM_SCORE = 500  # of 1000: if memory is short, the kernel kills a worker, not the service
PR_SET_PDEATHSIG = 1
CAP_SYS_NICE = 23
MARKS = 4096  # bytes of the shared memory before the waiting answers


class Worker:
    """One process; a template's children continue from the state of their parent."""

    def __init__(self) -> None:
        self.host: Any = None
        self.endpoint: Any = None
        self.spec: dict[str, Any] = {}
        self.parent = 0
        self.watch: Optional[LoadWatch] = None
        self.unloads = True  # this process calls the user's unload

    def live(self, job: Job) -> NoReturn:
        """Load, answer, unload, end the process."""
        code = 0
        try:
            self._live(job)
        except LinkClosed:
            pass  # Go has closed the link, so nothing can be reported
        except BaseException:
            end_copy(sys.exc_info()[1])
            traceback.print_exc()
            code = 1
        end_copy()
        # The interpreter's regular exit would free, and so copy, all shared memory.
        try:
            atexit._run_exitfuncs()
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(code)

    def _live(self, job: Job) -> None:
        become_own(job.parent)
        self.parent = job.parent
        link = Link(job.data, (1 << 31) - 1, job.bodies)
        link.pump(lambda: link.spec is not None or link.stopping)
        if link.spec is None:
            return
        self.spec = json.loads(bytes(link.spec.body))
        max_frame = int(self.spec["max_frame"])
        link.limit(max_frame)
        if self.endpoint is None:
            self.host = Host(link)
            if job.control is not None:
                self.watch = LoadWatch()
            if not self._load(link):
                return
            share, why = self.watch.verdict(self.endpoint) if self.watch is not None else (False, "")
            self.watch = None
            gc.freeze()
            if job.control is not None and share:
                self.endpoint.close_loop()
                ready(link, self.endpoint, template=True, why=why)
                # A shared load is unloaded once: here, after the end of the last worker.
                inherited, job = job, supervise(job.control, at_end=self.endpoint.unload)  # returns only in a child
                self.unloads = False
                inherited.data.close()
                os.close(inherited.marks)
                os.close(inherited.bodies)
                self._live(job)
                return
            if job.control is not None:
                job.control.close()
        else:
            self.host.link, self.host.server, why = link, None, ""
            self.endpoint.variables.names = tuple(self.spec.get("variables") or [])  # the template's may be outdated
            if not self.spec.get("signature"):
                self.endpoint.signature = None
        link.rename = self.endpoint.variables.rename
        ready(link, self.endpoint, template=False, why=why)
        shared = memoryview(mmap.mmap(job.marks, 0))
        marks, outbox = shared[:MARKS].cast("Q"), shared[MARKS:]
        os.close(job.marks)
        if self.endpoint.is_async:
            self.endpoint.serve(self.host, job.data, marks, max_frame)
        else:
            run = serve if self.endpoint.stack is None else serve_batches
            run(self.endpoint, self.host, marks, outbox, max_frame, int(self.spec["max_reentry"]))
        self.host.server = None
        if self.unloads:
            self.endpoint.unload()

    def _load(self, link: Link) -> bool:
        spec = self.spec
        os.environ.clear()
        os.environ.update(spec.get("env") or {})
        time.tzset()
        nicer = None
        try:
            confine(spec.get("confine") or {})
            die_with(self.parent)  # the kernel clears it at a change of account
            if not spec.get("hurry"):
                nicer = Nicer()
            folder = spec.get("dir")
            if folder and os.path.isdir(folder):
                os.chdir(folder)
            started, delay = time.monotonic(), run_delay()
            if self.watch is not None:
                self.watch.begin()
            self.endpoint = load_endpoint(spec, self.host)
            # Time without a CPU does not belong to the model.
            self.endpoint.took = max(time.monotonic() - started - (run_delay() - delay), 0.0)
            return True
        except LoadError as error:
            failure = {"text": error.message, "cause": error.cause, "traceback": error.traceback_text}
        except LinkClosed:
            raise
        except BaseException as error:
            failure = {"text": f"{type(error).__name__}: {error}"}
        finally:
            if self.watch is not None:
                self.watch.end()
            if nicer is not None:
                nicer.end()
        link.send(frames.pack(frames.LOAD_ERROR, 0, json.dumps(failure).encode()))
        return False


METHODS = ("preprocess", "process", "postprocess")  # that Go asks for


def methods_of(instance: Any) -> list[str]:
    """Return which of METHODS the code has. Code may raise anything for a name that it does not know."""
    found = []
    for name in METHODS:
        try:
            if callable(getattr(instance, name, None)):
                found.append(name)
        except Exception as error:
            end_copy(error)
    return found


def ready(link: Link, endpoint: Any, template: bool, why: str = "") -> None:
    """Report to Go that the worker accepts requests."""
    facts = {
        "async": bool(endpoint.is_async),
        "batches": endpoint.stack is not None,
        "client": endpoint.shows_request,
        "model": endpoint.model is not None,
        "methods": methods_of(endpoint.instance),
        "template": template,
        "why": why,
        "took": endpoint.took,
        "warnings": endpoint.warnings,
        "signature": endpoint.signature,
    }
    link.send(frames.pack(frames.READY, 0, json.dumps(facts).encode()))


def become_own(parent: int) -> None:
    """Detach a fork from its parent."""
    take()
    die_with(parent)
    die_first()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for Go, which stops the worker
    output.take_over()
    output.on_warning = versions.note
    faulthandler.enable(file=sys.stderr)
    faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)  # Go requests the stack of a hung request
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        try:
            torch.default_generator.seed()
        except Exception:
            traceback.print_exc()


def die_with(parent: int) -> None:
    """Make the kernel kill this process when its parent dies for any reason."""
    try:
        if ctypes is not None:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux: the end of the socket is detected later
    if os.getppid() != parent:
        os._exit(0)


def die_first() -> None:
    """Raise this process's OOM score, so that the kernel kills it first."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write(str(OOM_SCORE))
    except OSError:
        pass  # not Linux, or it is already higher


class Nicer:
    """Lower the priority for CPU and disk while a process loads, if it can be raised again."""

    def __init__(self) -> None:
        self._before: Optional[int] = None
        self._reading: Optional[int] = None
        try:
            before = os.getpriority(os.PRIO_PROCESS, 0)
            if may_raise(before):
                os.setpriority(os.PRIO_PROCESS, 0, min(before + KIND_LOADING, 19))
                self._before = before
        except OSError:
            pass  # then it loads with normal priority
        reading = _disk_priority()
        if reading is not None and _disk_priority(KIND_READING) is not None:
            self._reading = reading

    def end(self) -> None:
        """Restore the previous priority."""
        if self._before is not None:
            os.setpriority(os.PRIO_PROCESS, 0, self._before)
        if self._reading is not None:
            _disk_priority(self._reading)


def _disk_priority(value: Optional[int] = None) -> Optional[int]:
    """Return or set this thread's priority; None if that is not possible. It needs no privilege."""
    calls = SYS_IOPRIO.get(os.uname().machine)
    if ctypes is None or calls is None or not sys.platform.startswith("linux"):
        return None
    try:
        syscall = ctypes.CDLL(None).syscall
    except (OSError, AttributeError):
        return None
    answer = syscall(calls[1], 1, 0) if value is None else syscall(calls[0], 1, 0, value)
    return answer if answer >= 0 else None


def may_raise(priority: int) -> bool:
    """Return whether this process may raise its priority again."""
    import resource

    limit = getattr(resource, "RLIMIT_NICE", None)
    if limit is not None and 20 - resource.getrlimit(limit)[0] <= priority:
        return True
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("CapEff:"):
                    return bool(int(line.split()[1], 16) >> CAP_SYS_NICE & 1)
    except (OSError, ValueError):
        pass
    return False

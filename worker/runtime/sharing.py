"""Decides whether workers may be forked from a process that has loaded the endpoint.

A fork copies private memory exactly. A forked worker therefore equals one that has called `load`
itself, unless
    - the process holds something that a fork shares or does not copy: open files, sockets, shared
      memory, child processes, threads, timers, signal handlers;
    - the load used values that differ between processes or calls: the process id, random bits of the
      system, an answer of another process;
    - the load had effects outside of the process, which would then happen once and not once per
      worker: it wrote a file, started a process, registered an exit handler.

For the first point LoadWatch compares the process before and after the load; for the others it observes
the load with an audit hook and wrapped functions. Anything unknown is a finding: after a false
finding each worker loads separately, which is correct for any code.

Use of the current time is not detected: code that stores it has the time of the shared load.
"""

from __future__ import annotations

import _thread
import atexit
import gc
import os
import posix
import random
import signal
import stat
import sys
import threading
import uuid
import weakref
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Callable, Optional

from forks import children_of
from tracebacks import RUNTIME

SAID_YES = "the class Preprocess says share_loaded = True"
SAID_NO = "the class Preprocess says share_loaded = False"
PROVEN = "the load left nothing but memory, of which each forked worker has a copy"

# Packages without hidden effects when they load a model: no process ids, no entropy, no private files.
# Any other native code is unknown. Threads, descriptors and shared memory are detected in any case.
PACKAGES = frozenset(
    (
        "joblib",
        "lightgbm",
        "narwhals",
        "numpy",
        "pandas",
        "scipy",
        "sklearn",
        "threadpoolctl",
        "xgboost",
        # of pandas
        "dateutil",
        "pytz",
        "six",
        "tzdata",
        # formats of requests and answers
        "PIL",
        "charset_normalizer",
        "markupsafe",
        "msgpack",
        "orjson",
        "pydantic",
        "pydantic_core",
        "simplejson",
        "typing_extensions",
        "ujson",
        "yaml",
    )
)
# Folders in which wheels keep their libraries.
LIBRARY_FOLDERS = frozenset(
    ("lightgbm.libs", "numpy.libs", "pandas.libs", "pillow.libs", "scikit_learn.libs", "scipy.libs", "xgboost.libs")
)
# Libraries of the system, without "lib" and the text after the name.
SYSTEM_LIBRARIES = frozenset(
    (
        "blas",
        "bz2",
        "c",
        "crypt",
        "crypto",
        "dl",
        "expat",
        "ffi",
        "gcc_s",
        "gfortran",
        "gomp",
        "lapack",
        "lzma",
        "m",
        "mpdec",
        "openblas",
        "pthread",
        "quadmath",
        "resolv",
        "rt",
        "ssl",
        "stdc++",
        "util",
        "uuid",
        "yaml-0",
        "z",
        "zstd",
    )
)
# Extension modules of the standard library that keep files or devices open.
STATEFUL_MODULES = ("_curses", "_dbm", "_gdbm", "_sqlite3", "_tkinter", "readline")

# Audit events without effects outside of the process, or that only read. All others are findings.
HARMLESS = frozenset(
    (
        "array.__new__",
        "builtins.id",
        "code.__new__",
        "compile",
        "cpython._PySys_ClearAuditHooks",
        "ctypes.PyObj_FromPtr",
        "ctypes.addressof",
        "ctypes.cdata",
        "ctypes.cdata/buffer",
        "ctypes.create_string_buffer",
        "ctypes.create_unicode_buffer",
        "ctypes.get_errno",
        "ctypes.set_errno",
        "ctypes.set_exception",
        "ctypes.string_at",
        "ctypes.wstring_at",
        "exec",
        "function.__new__",
        "gc.get_objects",
        "gc.get_referents",
        "gc.get_referrers",
        "glob.glob",
        "glob.glob/2",
        "marshal.dumps",
        "marshal.load",
        "marshal.loads",
        "object.__delattr__",
        "object.__getattr__",
        "object.__setattr__",
        "os.chdir",
        "os.fchdir",
        "os.fwalk",
        "os.getxattr",
        "os.listxattr",
        "os.putenv",
        "os.unsetenv",
        "os.walk",
        "pathlib.Path.glob",
        "pathlib.Path.rglob",
        "pickle.find_class",
        "resource.setrlimit",
        "socket.gethostname",
        "sys._current_exceptions",
        "sys._current_frames",
        "sys._getframe",
        "sys._getframemodulename",
        "sys.addaudithook",
        "sys.set_asyncgen_hooks_finalizer",
        "sys.set_asyncgen_hooks_firstiter",
        "time.sleep",
    )
)
NATIVE = frozenset(("ctypes.call_function", "ctypes.dlopen", "ctypes.dlsym", "ctypes.dlsym/handle"))
LOOKS_UP = frozenset(("os.listdir", "os.scandir"))
STARTS = frozenset(("os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen", "os.fork", "os.forkpty"))
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

STDLIB = os.path.dirname(os.path.realpath(os.__file__)) + os.sep
SITES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
TEMPFILE = os.path.join(STDLIB, "tempfile.py")
TEMPORARY = "the load made a temporary file or folder"
UNPICKLES_NUMPY = os.path.join("numpy", "random", "_pickle.py")
IMPORTER = "<frozen importlib._bootstrap_external>"

OWN, STANDARD, KNOWN, OTHER = "own", "standard", "known", "other"  # the owner of a file's code

UNFOLLOWED = (ModuleType, str, bytes, int, float, complex, type(None), BuiltinFunctionType, CodeType)
MOST_FOLLOWED = 1 << 20

_armed: Optional[LoadWatch] = None
_hooked = False
_whose: dict[str, str] = {}


def note(why: str) -> None:
    """Return how an observed load differs from a repeatable one."""
    if _armed is not None:
        _armed.note(why)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    watch = _armed
    if watch is None or event in HARMLESS:
        return
    if event == "import":
        watch.imports(args)
    else:
        watch.heard(event, args)


class LoadWatch:
    """Observes one load, from begin to end, and decides."""

    def __init__(self) -> None:
        self._why = ""
        self._before: Optional[Facts] = None
        self._modules: frozenset[str] = frozenset()  # before the load
        self._undo: list[tuple[Any, str, Any]] = []
        self._callbacks = 0  # registered for the end by known libraries
        self._generators: list[Any] = []  # of known libraries
        self._brought: set[str] = set()  # native code that known libraries have imported

    def begin(self) -> None:
        """Record the state of the process, and start observing."""
        global _armed, _hooked
        self._before = Facts()
        self._modules = frozenset(sys.modules)
        if not _hooked:
            sys.addaudithook(_hook)  # permanently: Python cannot remove it
            _hooked = True
        self._wrap()
        _armed = self

    def end(self) -> None:
        """Stop observing. May be called twice."""
        global _armed
        _armed = None
        real_of = {}
        while self._undo:
            holder, name, real = self._undo.pop()
            real_of[id(vars(holder)[name])] = real
            setattr(holder, name, real)
        # The names that the load has imported.
        for name in sys.modules.keys() - self._modules:
            module = sys.modules[name]
            if issubclass(type(module), ModuleType):
                for key, value in list(vars(module).items()):
                    if id(value) in real_of:
                        vars(module)[key] = real_of[id(value)]

    def verdict(self, endpoint: Any) -> tuple[bool, str]:
        """Return whether workers may be forked from this process, and why."""
        try:
            return self._verdict(endpoint)
        except Exception as error:  # objects of user code may raise when inspected
            return False, f"what the load left could not be judged ({type(error).__name__}: {error})"

    def _verdict(self, endpoint: Any) -> tuple[bool, str]:
        instance = endpoint.instance
        said = getattr(instance, "share_loaded", None)
        if isinstance(said, bool):
            return said, SAID_YES if said else SAID_NO
        why = self._kept(endpoint) or self._why
        if not why and callable(getattr(instance, "unload", None)):
            why = "the code defines unload, which is called once for each load"
        if not why and instance is not None:
            why = _generator_kept(endpoint, self._generators)
        return (False, why) if why else (True, PROVEN)

    def _kept(self, endpoint: Any) -> str:
        if endpoint.loop is not None:
            return "the loaded code keeps an event loop, which workers must not share"
        before, after = self._before, Facts()
        if before is None or before.unknown or after.unknown:
            return "this system does not tell what a process keeps open" + (
                f" ({after.unknown})" if after.unknown else ""
            )
        return after.beyond(before, self._callbacks, self._brought)

    def note(self, why: str) -> None:
        """Store the first reason."""
        self._why = self._why or why

    def imports(self, args: tuple[Any, ...]) -> None:
        """Store the native code that a known library imports."""
        file = args[1] if len(args) > 1 else None
        if isinstance(file, str) and _user_of(_frame(3)) == OWN:
            self._brought.add(os.path.realpath(file))

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        """Judge an audit event."""
        if self._why:
            return
        try:
            why = self._judge(event, args)
        except Exception as error:  # the load must go on
            why = f"the load did what could not be judged ({event}: {type(error).__name__})"
        self.note(why)

    def _judge(self, event: str, args: tuple[Any, ...]) -> str:
        frame = sys._getframe(3)
        if event == "open":
            return _judge_open(args, frame)
        if event in LOOKS_UP:
            path = args[0] if args else None
            looks = isinstance(path, (str, bytes)) and _is_of_process(os.fsdecode(path))
            return f"the load looked into {os.fsdecode(path)}" if looks and _user_of(frame) == OTHER else ""
        who = _user_of(frame)
        if who == OWN or frame.f_code.co_filename == IMPORTER:  # an import that stores its bytecode
            return ""
        if event in NATIVE:
            what = next((a for a in reversed(args) if isinstance(a, str)), "")
            return f"the load called native code by ctypes ({what or event})" if who == OTHER else ""
        if event in STARTS:
            return f"the load started a process ({event})" if who == OTHER else ""
        if event == "mmap.__new__":
            return "the load mapped memory" if who == OTHER else ""
        if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.")):
            return f"the load used the network ({event})"
        return f"the load did something outside of its memory ({event})"

    # Effects without an audit event.

    def _wrap(self) -> None:
        process_id = "the load asked for the id of its process"
        for name in ("getpid", "getppid", "getpgrp", "getpgid", "getsid"):
            for holder in (os, posix):
                self._watch_call(holder, name, process_id, _may_know_process)
        for holder in (threading, _thread):
            self._watch_call(holder, "get_native_id", process_id, _may_know_process)
        self._watch_native_id(process_id)
        for name in ("mkfifo", "mknod"):
            self._watch_call(os, name, "the load made a file", lambda *_: False)
        self._watch_call(os, "readlink", "the load looked into /proc", lambda frame, args: not _links_to_process(args))
        random_bits = "the load took random bits, of which each process has its own"
        for holder, name in ((os, "urandom"), (os, "getrandom"), (random, "_urandom"), (uuid, "uuid1")):
            self._watch_call(holder, name, random_bits, _may_draw)
        self._watch_call(random.Random, "seed", random_bits, self._may_seed)
        self._watch_call(
            os, "register_at_fork", "the load registered what a fork calls", lambda frame, _: _user_of(frame) != OTHER
        )
        self._watch_call(atexit, "register", "the load registered what is called at the end", self._may_register)

    def _watch_native_id(self, why: str) -> None:
        real = threading.Thread.native_id

        def native_id(thread: threading.Thread) -> Any:
            if _armed is not None and _user_of(_frame(2)) == OTHER:
                _armed.note(why)
            return real.fget(thread)

        self._undo.append((threading.Thread, "native_id", real))
        threading.Thread.native_id = property(native_id)

    def _may_seed(self, frame: Any, args: tuple[Any, ...]) -> bool:
        maker = frame.f_back
        if _user_of(frame) == OWN or (maker is not None and maker.f_code.co_filename == TEMPFILE):  # for its names
            self._generators += args[:1]
            return True
        return (len(args) > 1 and args[1] is not None) or _may_draw(frame, args)

    def _may_register(self, frame: Any, _args: tuple[Any, ...]) -> bool:
        if _user_of(frame) == OTHER:
            return False
        self._callbacks += 1
        return True

    def _watch_call(self, holder: Any, name: str, why: str, allowed: Callable[[Any, tuple[Any, ...]], bool]) -> None:
        real = getattr(holder, name, None)
        if real is None:
            return

        def watched(*args: Any, **kwargs: Any) -> Any:
            watch = _armed
            if watch is not None:
                frame = _frame(2)
                if frame is None or not allowed(frame, args):
                    watch.note(TEMPORARY if frame is not None and frame.f_code.co_filename == TEMPFILE else why)
            return real(*args, **kwargs)

        watched.__name__, watched.__qualname__, watched.__doc__ = name, name, getattr(real, "__doc__", None)
        self._undo.append((holder, name, real))
        setattr(holder, name, watched)


class Facts:
    """The kernel objects of a process, and the settings that a forked worker overwrites."""

    def __init__(self) -> None:
        self.unknown = ""
        try:
            self.descriptors = _descriptors()
            self.shared, self.libraries = _mappings()
            self.threads = len(os.listdir("/proc/self/task"))
            self.children = _children()
            self.masks = _masks()
        except OSError as error:
            self.unknown = str(error)
        self.timers = _timers()
        self.handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self.streams = (sys.stdout, sys.stderr)
        self.random = random.getstate()
        self.numpy_random = _numpy_state()
        registered = getattr(sys.modules.get("multiprocessing.util"), "_finalizer_registry", ())
        self.finalizers = len(getattr(weakref.finalize, "_registry", ())) + len(registered)
        self.callbacks = atexit._ncallbacks()
        self.wakeup = -1
        if threading.current_thread() is threading.main_thread():
            self.wakeup = signal.set_wakeup_fd(-1)
            if self.wakeup != -1:
                signal.set_wakeup_fd(self.wakeup)

    def beyond(self, before: Facts, callbacks: int, brought: set[str]) -> str:
        """Name something that exists now and did not before, "" if there is nothing.

        callbacks and brought are the registrations and imports of known libraries.
        """
        if self.threads > 1:
            return f"the loaded code keeps threads running ({self.threads - 1}), which would not survive a fork"
        if self.children:
            return f"the loaded code keeps processes running ({len(self.children)}), which workers must not share"
        for number, at in self.descriptors.items():
            if before.descriptors.get(number) != at:
                return f"the loaded code keeps {_named(at[0])} open, which workers must not share"
        if before.descriptors.keys() - self.descriptors.keys():
            return "the loaded code closed descriptors of the worker"
        for mapping in self.shared - before.shared:
            return f"the loaded code keeps shared memory ({mapping[1] or 'anonymous'}), which workers must not share"
        for library in sorted(self.libraries - before.libraries - brought):
            if not _is_known_library(library):
                return f"the load brought native code that may keep anything ({library})"
        if self.timers:
            return "the loaded code keeps a timer running, which a fork does not inherit"
        if self.handlers != before.handlers or self.masks != before.masks or self.wakeup != before.wakeup:
            return "the loaded code handles signals, which is set anew in a forked process"
        if self.streams[0] is not before.streams[0] or self.streams[1] is not before.streams[1]:
            return "the loaded code replaced sys.stdout or sys.stderr, which are set anew in a forked process"
        if self.random != before.random:
            return "the load used the generator of module random, which is seeded anew in a forked process"
        if self.numpy_random != before.numpy_random and (before.numpy_random or not _numpy_untouched()):
            return "the load used the generator of numpy.random, which is seeded anew in a forked process"
        if self.finalizers > before.finalizers or self.callbacks - before.callbacks != callbacks:
            return "the load registered what is called at the end"
        return ""


def _descriptors() -> dict[int, tuple[str, int, int]]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            at = os.fstat(number)
            found[number] = (os.readlink(f"/proc/self/fd/{name}"), at.st_dev, at.st_ino)
        except OSError:
            continue  # the descriptor of the listing
    return found


def _named(target: str) -> str:
    if target.startswith("socket:"):
        return "a network connection"
    if target.startswith("pipe:"):
        return "a pipe"
    if target.startswith("anon_inode:"):
        return f"a descriptor of the kernel ({target[11:].strip('[]')})"
    if target.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dri/")):
        return f"an accelerator ({target})"
    return f"the file {target}"


def _mappings() -> tuple[set[tuple[str, str]], set[str]]:
    """Return the mappings that are shared and writable, and the files of code."""
    shared, libraries = set(), set()
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            place, rights, rest = line.split(" ", 2)
            if rights[3] != "s" and rights[2] != "x":
                continue
            path = rest.rstrip("\n").split(None, 3)[3:]
            if rights[3] == "s" and rights[1] == "w":
                shared.add((place, path[0] if path else ""))
            if rights[2] == "x" and path and path[0].startswith("/"):
                libraries.add(path[0])
    return shared, libraries


def _is_known_library(path: str) -> bool:
    top = _package_of(path)
    if top:
        return top in PACKAGES or top in LIBRARY_FOLDERS
    folder, _, name = path.rpartition(os.sep)
    if (folder + os.sep).startswith(STDLIB):
        return not name.startswith(STATEFUL_MODULES)
    if not name.startswith("lib"):
        return False
    short = name[3:].partition(".so")[0]
    return short in SYSTEM_LIBRARIES or short.rpartition("-")[0] in SYSTEM_LIBRARIES


def _package_of(path: str) -> str:
    """Return the package in site-packages of a file."""
    for site in SITES:
        rest = path.rpartition(site)[2] if site in path else ""
        if rest:
            top = rest.partition(os.sep)[0]
            return top if os.sep in rest else top.partition(".")[0]
    return ""


def _children() -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", "rb") as listed:
                found += [int(pid) for pid in listed.read().split()]
    except FileNotFoundError:  # a kernel that does not list them
        return children_of(os.getpid())
    return found


def _masks() -> list[str]:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
        return [line for line in lines if line.startswith(("SigBlk:", "SigIgn:", "SigCgt:"))]


def _timers() -> bool:
    for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        if signal.getitimer(which)[0] > 0:
            return True
    try:
        with open("/proc/self/timers", "rb") as listed:
            return bool(listed.read(1))
    except OSError:
        return False  # a kernel that does not list them; Python makes none


def _numpy_state() -> Any:
    """Return the state of NumPy's global generator, None without one."""
    rand = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
    if rand is None:
        return None
    state = rand.get_state(legacy=False)
    inner = state.get("state")
    key = inner.get("key") if isinstance(inner, dict) else None
    if key is None:
        return repr(state)
    return (key.tobytes(), inner.get("pos"), state.get("has_gauss"), state.get("bit_generator"))


def _numpy_untouched() -> bool:
    """Return whether the global generator of a newly imported NumPy has never been used.

    A generator that draws its seed itself is one position before the state that seed() sets.
    """
    state = _numpy_state()
    return state is None or (isinstance(state, tuple) and state[1] == 623 and not state[2])


def _generator_kept(endpoint: Any, ours: list[Any]) -> str:
    """Return whether the loaded code keeps a random generator: its seed may be the time of day.

    Known libraries may keep those in ours and others, and so may a model that an engine has loaded without user
    code: the content of a model file is the same in each process.
    """
    kinds: list[type] = [random.Random]
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        kinds += [numpy_random.Generator, numpy_random.BitGenerator, numpy_random.RandomState]
        rand = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
        ours = [*ours, rand, getattr(rand, "_bit_generator", None)]
    generators = tuple(kinds)
    kind_of: dict[type, bool] = {}
    suspects: dict[int, Any] = {}
    for thing in gc.get_objects():
        kind = type(thing)
        found = kind_of.get(kind)
        if found is None:
            found = kind_of[kind] = issubclass(kind, generators) and not issubclass(kind, random.SystemRandom)
        if found and not any(thing is one for one in ours):
            suspects[id(thing)] = thing
    if not suspects:
        return ""
    kept = _reached(endpoint, suspects)
    if kept is None:
        return "the loaded code keeps too much to tell whether a random generator is in it"
    kind = type(kept)
    return "" if kept is False else f"the loaded code keeps a random generator ({kind.__module__}.{kind.__qualname__})"


def _reached(endpoint: Any, wanted: dict[int, Any]) -> Any:
    """Return a wanted object that user code refers to, False for none, None if there is too much to search.

    References of known libraries are not followed.
    """
    roots = [endpoint.instance, endpoint.model]
    roots += [vars(module) for module in list(sys.modules.values()) if _is_users(module)]
    seen = {id(roots)}
    arrays = getattr(sys.modules.get("numpy"), "ndarray", None)
    while roots:
        thing = roots.pop()
        kind = type(thing)  # isinstance would call the object, which may be of user code
        if id(thing) in seen or issubclass(kind, UNFOLLOWED):
            continue
        if id(thing) in wanted:
            return thing
        seen.add(id(thing))
        if len(seen) > MOST_FOLLOWED:
            return None
        if kind is FunctionType and _origin(thing.__code__.co_filename) != OTHER:
            continue
        if issubclass(kind, type) and not _is_users(sys.modules.get(thing.__module__)):
            continue
        roots += gc.get_referents(thing)
        if arrays is not None and issubclass(kind, arrays) and thing.dtype.hasobject:
            roots += thing.ravel().tolist()  # NumPy does not report the content of its arrays to the collector
    return False


def _is_users(module: Any) -> bool:
    if not issubclass(type(module), ModuleType):
        return False
    file = vars(module).get("__file__")
    if file is None:
        return vars(module).get("__name__") == "__main__"
    return _origin(file) == OTHER


# Who calls


def _origin(file: str) -> str:
    whose = _whose.get(file)
    if whose is None:
        top = _package_of(file)
        if top:
            whose = KNOWN if top in PACKAGES else OTHER
        elif file.startswith("<frozen ") or os.path.realpath(file).startswith(STDLIB):
            whose = STANDARD
        elif file.startswith(RUNTIME):
            whose = OWN
        else:
            whose = OTHER
        _whose[file] = whose
    return whose


def _frame(depth: int) -> Any:
    """Return the frame this many calls above; None after a call from C."""
    try:
        return sys._getframe(depth)
    except ValueError:
        return None


def _user_of(frame: Any) -> str:
    """Return the caller of the standard library: OWN (not part of the load), KNOWN, or OTHER."""
    found = ""
    while frame is not None:
        file = frame.f_code.co_filename
        whose = _origin(file)
        if whose in (STANDARD, KNOWN) and frame.f_code.co_name == "<module>":
            return OWN  # the effects of a known library's import are the same in each process
        if whose != STANDARD:
            found = found or whose
            if not _package_of(file):
                return found
        frame = frame.f_back
    return found or OTHER  # a thread


def _may_know_process(frame: Any, _args: tuple[Any, ...]) -> bool:
    file = frame.f_code.co_filename
    if file.startswith(STDLIB) and file[len(STDLIB) :] in ("logging/__init__.py", "multiprocessing/util.py"):
        return True
    return _user_of(frame) != OTHER


def _may_draw(frame: Any, _args: tuple[Any, ...]) -> bool:
    """Return whether random bits leave no trace.

    This is true at an import, for joblib's names of tasks, and for NumPy's generator in a pickle, whose state
    is set afterwards.
    """
    if _user_of(frame) == OWN:
        return True
    while frame is not None and _origin(frame.f_code.co_filename) in (STANDARD, KNOWN):
        file = frame.f_code.co_filename
        if file.endswith(UNPICKLES_NUMPY) or _package_of(file) == "joblib":
            return True
        frame = frame.f_back
    return False


def _links_to_process(args: tuple[Any, ...]) -> bool:
    return bool(args) and isinstance(args[0], (str, bytes, os.PathLike)) and _is_of_process(os.fsdecode(args[0]))


def _is_of_process(path: str) -> bool:
    """Return whether a path has information about one process or device."""
    if not path.startswith(("/proc", "/dev/")):
        return False
    return path != os.devnull and path not in ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat")


def _judge_open(args: tuple[Any, ...], frame: Any) -> str:
    path, _, flags = args
    if not isinstance(path, (str, bytes)):
        return ""  # a descriptor, which is detected if it stays open
    path = os.fsdecode(path)
    if frame.f_code.co_filename == IMPORTER or path == os.devnull:
        return ""
    who = _user_of(frame)
    if who == OWN:
        return ""
    if flags & WRITES:
        return f"the load opened {path} to write"
    if who == KNOWN:
        return ""
    if _is_of_process(path):
        return f"the load read {path}"
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""  # does not exist
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else f"the load read {path}, which is no regular file"

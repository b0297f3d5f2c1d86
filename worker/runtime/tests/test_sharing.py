"""What a load may leave, judged in a process of its own; worker/sharing_test.go holds it against answers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROVEN = "the load left nothing but memory"

JUDGE = """
import gc, os, sys
sys.path.insert(0, {here!r})
import sharing
names = [(os, "getpid"), (os, "urandom"), (os, "readlink"), (__import__("random").Random, "seed")]
before = [getattr(holder, name) for holder, name in names]
gc.freeze()
watch = sharing.LoadWatch()
watch.begin()

class Endpoint:
    instance = model = loop = None

space = {{"__name__": "Preprocess", "__file__": "/code/preprocess.py"}}
module = type(sys)("Preprocess")
module.__dict__.update(space)
sys.modules["Preprocess"] = module
exec(compile(sys.argv[1], "/code/preprocess.py", "exec"), module.__dict__)
Endpoint.instance = module.Preprocess()
gc.collect()
watch.end()
assert before == [getattr(holder, name) for holder, name in names], "not undone"
assert module.__dict__.get("getpid", os.getpid) is os.getpid, "not undone in the module"
print(watch.verdict(Endpoint)[1])
"""


def judged(source: str) -> str:
    """Return why a process that has run source may be shared, or not."""
    source = textwrap.dedent(source)
    if "class Preprocess" not in source:
        source += "\nclass Preprocess: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", JUDGE.format(here=HERE), source], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells what a process keeps open")
@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = [1, {2: 3}]", PROVEN),
        ("import json, decimal, threading; lock = threading.Lock(); lock.acquire()", PROVEN),
        ("import time, datetime; at = time.time(), datetime.datetime.now()", PROVEN),
        ("import logging; logging.warning('x')", PROVEN),
        ("import random; random.getrandbits", PROVEN),
        ("import multiprocessing.pool, concurrent.futures, subprocess, uuid, secrets, socket, ssl, asyncio", PROVEN),
        ("import random; r = random.SystemRandom()", PROVEN),
        ("open('/dev/null', 'w').close()", PROVEN),
        ("import os; x = os.listdir('/'), os.stat('/'), open('/proc/cpuinfo').read()", PROVEN),
        ("f = open('/etc/passwd')", "keeps the file /etc/passwd open"),
        ("import posix; posix.getpid()", "the id of its process"),
        ("from os import getpid; getpid()", "the id of its process"),
        ("import threading; threading.get_native_id()", "the id of its process"),
        ("import os; os.listdir('/proc/self/task')", "looked into /proc/self/task"),
        ("import os; os.readlink('/proc/self')", "looked into /proc"),
        ("open('/proc/self/stat').read()", "read /proc/self/stat"),
        ("open('/dev/urandom', 'rb').read(1)", "read /dev/urandom"),
        ("import os; os.getrandom(4)", "random bits"),
        ("import random; random.Random(5)", PROVEN),
        ("import random; r = random.Random(5)", "keeps a random generator (random.Random)"),
        ("import random; rs = [[(random.Random(5),)]]", "keeps a random generator (random.Random)"),
        ("import random; f = (lambda r: lambda: r.random())(random.Random(5))", "keeps a random generator"),
        ("import tempfile; tempfile.mkdtemp()", "temporary file or folder"),
        ("import os; os.mkdir('/tmp/x%d' % id(os)); os.rmdir('/tmp/x%d' % id(os))", "outside of its memory (os.mkdir)"),
        ("import subprocess; subprocess.run(['true'])", "started a process (subprocess.Popen)"),
        ("import os; os.system('true')", "started a process (os.system)"),
        ("import os; os.waitpid(os.fork() or os._exit(0), 0)", "started a process (os.fork)"),
        ("import socket; socket.socket().close()", "used the network (socket.__new__)"),
        ("import sqlite3; sqlite3.connect(':memory:').close()", "sqlite3"),
        ("import ctypes; ctypes.pythonapi.Py_IncRef", "native code by ctypes (Py_IncRef)"),
        ("import mmap; m = mmap.mmap(-1, 10, flags=mmap.MAP_PRIVATE)", "mapped memory"),
        ("import os; os.close(0)", "closed descriptors"),
        ("import os; os.dup2(1, 0)", "open, which workers must not share"),
        ("import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])", "handles signals"),
        ("class Preprocess:\n  unload = print", "defines unload"),
        ("class Preprocess:\n  share_loaded = False", "share_loaded = False"),
        ("class Preprocess:\n  share_loaded = True\n  unload = print", "share_loaded = True"),
        ("class Preprocess:\n  share_loaded = 'yes'\n  unload = print", "defines unload"),
        ("class Preprocess:\n  def __getattr__(self, name): raise AttributeError(name)", PROVEN),
        ("class Preprocess:\n  def __getattr__(self, name): raise ValueError(name)", "could not be judged (ValueError"),
        (
            "import random\nclass Odd:\n  __class__ = property(lambda self: 1 / 0)\n"
            "  def __getattr__(self, name): 1 / 0\nodd = [Odd(), random.Random(5)]",
            "keeps a random generator",
        ),
    ],
)
def test_what_is_not_known_to_be_harmless_is_not_shared(source: str, why: str) -> None:
    assert why in judged(source)

"""Answers like the steady endpoints, and does harm on request."""

import ctypes
import locale
import os
import signal
import socket
import subprocess
import sys
import threading
import time


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def sockets():
    """Returns the sockets among the descriptors of this process."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + name).startswith("socket:"):
                yield int(name)
        except OSError:
            pass


HANG = os.path.join(os.environ.get("TMPDIR", "/tmp"), "hang")


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        if os.path.exists(HANG):
            time.sleep(3600)
        do = data.get("do")
        if do:
            found = getattr(self, "do_" + do)(data)
            if found is not None:
                return found
        name = self.model_endpoint.serving_url
        return {"y": 7 * data["x"] + len(name), "from": name}

    def do_nap(self, data):
        time.sleep(0.4)

    def do_tell(self, data):
        print("x" * 1000, flush=True)

    def do_exit(self, data):
        os._exit(3)

    def do_sys_exit(self, data):
        sys.exit("bye")

    def do_segv(self, data):
        ctypes.string_at(0)

    def do_raise(self, data):
        raise Unspeakable()

    def do_recursion(self, data):
        return self.do_recursion(data)

    def do_spin(self, data):
        while True:
            pass

    def do_native(self, data):
        ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the lock, unlike CDLL

    def do_deaf(self, data):
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        while True:
            pass

    def do_threads(self, data):
        for _ in range(200):
            threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()

    def do_files(self, data):
        self.kept = []
        try:
            for _ in range(200_000):
                self.kept.append(open(os.devnull))
        finally:
            for f in self.kept[:50]:
                f.close()

    def do_forks(self, data):
        for _ in range(20):
            subprocess.Popen(["sleep", "3600"], start_new_session=False)

    def do_fork(self, data):
        """Both processes return; the parent waits, so that no zombie is left."""
        child = os.fork()
        if child:
            os.waitpid(child, 0)

    def do_fork_native(self, data):
        child = ctypes.PyDLL(None).fork()
        if child:
            os.waitpid(child, 0)

    def do_daemons(self, data):
        """Starts processes that leave group, session, environment and parent."""
        code = "import os, time; os.setsid(); os.fork() and os._exit(0)"
        code += "; print(os.getpid(), flush=True); time.sleep(3600)"
        started = []
        for _ in range(5):
            away = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, env={})
            away.wait()
            started.append(int(away.stdout.readline()))
        return {"pids": started, "worker": os.getpid()}

    def do_step(self, data):
        """The wall clock as this process sees it, a year on or back."""
        shown, step = time.time, 365 * 86400 * (1 if data["x"] else -1)
        time.time = lambda: shown() + step

    def do_print(self, data):
        for _ in range(300):
            print("x" * 100_000)

    def do_mute(self, data):
        os.close(1)
        os.close(2)

    def do_cut(self, data):
        for fd in list(sockets()):
            os.close(fd)

    def do_garbage(self, data):
        for fd in list(sockets()):
            try:
                socket.socket(fileno=os.dup(fd)).send(b"\xff" * 4096)
            except OSError:
                pass
        time.sleep(1)

    def do_kill_group(self, data):
        os.killpg(0, signal.SIGKILL)

    def do_kill_parent(self, data):
        os.kill(os.getppid(), signal.SIGTERM)

    def do_spoil(self, data):
        os.chdir("/")
        os.environ.clear()
        locale.setlocale(locale.LC_ALL, "C")
        sys.setrecursionlimit(150)
        sys.path.clear()
        sys.stdout = None

    def do_huge(self, data):
        return {"text": "y" * (64 << 20)}

    def do_large(self, data):
        return {"text": "y" * (4 << 20)}

    def do_hog(self, data):
        """Allocates a gigabyte, touches it, and frees it."""
        block = bytearray(1 << 30)
        block[::4096] = b"x" * len(block[::4096])

    def do_odd(self, data):
        loop = []
        loop.append(loop)
        return [float("nan"), {1, 2}, socket, loop]

    def do_stream_dies(self, data):
        def pieces():
            yield "one\n"
            time.sleep(0.05)
            os._exit(4)

        return pieces()

    def do_stream(self, data):
        """Streams as many megabytes as requested."""
        return (b"x" * 50000 for _ in range(20 * data["megabytes"]))

    def do_ask(self, data):
        """Calls another endpoint for as many seconds."""
        end = time.monotonic() + data["seconds"]
        while time.monotonic() < end:
            try:
                self.send_request("steady_1", data={"x": 1})
            except Exception:
                pass
            time.sleep(0.01)

    def do_circle(self, data):
        return self.send_request(self.model_endpoint.serving_url, data={"x": 1, "do": "circle"}) or {
            "none": True
        }

    def do_burn(self, data):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            pass

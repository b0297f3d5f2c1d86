"""Runs llama.cpp's own server, from the package xllamacpp: serve.py MODEL PORT NAME."""

import os
import signal
import sys
import threading

import xllamacpp

model, port, name = sys.argv[1:4]
params = xllamacpp.CommonParams()
params.model.path = model
params.model_alias = {name}
params.hostnames = ["127.0.0.1"]
params.port = int(port)
params.n_ctx = 4096
params.n_parallel = 4
params.n_threads_http = 4
if os.environ.get("LLAMA_API_KEY"):
    params.api_keys = [os.environ["LLAMA_API_KEY"]]
params.sampling.temp = 0.0
params.sampling.penalty_repeat = 1.1  # a small model repeats itself to the end of its context otherwise
params.cpuparams.n_threads = 1  # with more, threads that wait for each other use up a busy machine
params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print("listening", server.listening_address, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
threading.Event().wait()

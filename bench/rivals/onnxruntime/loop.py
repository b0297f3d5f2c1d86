"""Calls a model of sentence embeddings in a loop, without a server: python loop.py MODEL TOKENS SECONDS.

Prints the calls per second, and the first number of the answer.
"""

import sys
import time

import numpy as np

import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
tokens, seconds = int(sys.argv[2]), float(sys.argv[3])
inputs = {
    "input_ids": np.arange(1000, 1000 + tokens, dtype=np.int64).reshape(1, -1),
    "attention_mask": np.ones((1, tokens), dtype=np.int64),
    "token_type_ids": np.zeros((1, tokens), dtype=np.int64),
}
for _ in range(20):
    answer = session.run(None, inputs)
calls, begun = 0, time.perf_counter()
while (took := time.perf_counter() - begun) < seconds:
    session.run(None, inputs)
    calls += 1
print(calls / took, float(answer[0].flat[0]))

"""Asks a model of Triton over gRPC until its standard input ends, and prints what it has answered.

triton_load.py ADDRESS MODEL; the model multiplies x by a number.
"""

import collections
import json
import sys
import threading

import numpy
import tritonclient.grpc

THREADS = 4


def main() -> None:
    address, model = sys.argv[1:]
    answers: collections.Counter = collections.Counter()
    errors: collections.Counter = collections.Counter()
    over = threading.Event()

    def ask(number: int) -> None:
        client = tritonclient.grpc.InferenceServerClient(address)
        x = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(numpy.full((1, 4), number, dtype=numpy.float32))
        while not over.is_set():
            try:  # the original asks for version 1
                y = client.infer(model, [x], model_version="1").as_numpy("y")
                answers[str(float(y[0, 0]) / number)] += 1
            except Exception as error:
                errors[str(error)] += 1
                over.wait(0.01)

    threads = [threading.Thread(target=ask, args=(n + 1,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    print("asking", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"answers": answers, "errors": errors}))


if __name__ == "__main__":
    main()

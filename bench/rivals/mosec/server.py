"""mosec, one route with its own processes for each case, as its documentation shows."""

from typing import Any

from mosec import Runtime, Server, Worker
from usercode import CASES, ENDPOINTS, WORKERS, code, endpoint, model


def one_by_one(case: str) -> type:
    class Ask(Worker):
        def __init__(self) -> None:
            self.answer = endpoint(case)

        def forward(self, data: Any) -> Any:
            return self.answer(data)

        if case == "binary":

            def deserialize(self, data: bytes) -> bytes:
                return data

    Ask.__name__ = Ask.__qualname__ = f"Ask_{case}"
    return Ask


def stacked(case: str) -> type:
    class Ask(Worker):
        def __init__(self) -> None:
            name, model_name = ENDPOINTS[case]
            self.user, self.model = code(name), model(model_name)

        def forward(self, data: list) -> list:
            import numpy as np

            rows = [self.user.preprocess(one, {}) for one in data]
            predictions = self.model.predict(np.concatenate(rows))
            answers, at = [], 0
            for row in rows:
                answers.append(self.user.postprocess(predictions[at : at + len(row)], {}))
                at += len(row)
            return answers

    Ask.__name__ = Ask.__qualname__ = f"Ask_{case}"
    return Ask


def runtime(case: str) -> Runtime:
    worker = globals()[f"Ask_{case}"]
    if case.endswith("_batched"):
        return Runtime(worker, num=WORKERS, max_batch_size=64, max_wait_time=1)  # no wait is shorter
    return Runtime(worker, num=WORKERS)


# The processes find their class by its name in this module.
for each in CASES & set(ENDPOINTS):
    globals()[f"Ask_{each}"] = stacked(each) if each.endswith("_batched") else one_by_one(each)

if __name__ == "__main__":
    server = Server()
    server.register_runtime({f"/{case}": [runtime(case)] for case in sorted(CASES & set(ENDPOINTS))})
    server.run()

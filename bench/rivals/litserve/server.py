"""LitServe, one API with its own processes for each case, as its documentation shows."""

import sys
from typing import Any

import litserve
from fastapi import Request
from usercode import CASES, ENDPOINTS, WORKERS, code, endpoint, model


class OneByOne(litserve.LitAPI):
    case = ""

    def setup(self, device: Any) -> None:
        self.answer = endpoint(self.case)

    def decode_request(self, request: Request) -> Any:
        return request

    def predict(self, x: Any) -> Any:
        return self.answer(x)

    def encode_response(self, output: Any) -> Any:
        return output


class Stacked(litserve.LitAPI):
    case = ""

    def setup(self, device: Any) -> None:
        name, model_name = ENDPOINTS[self.case]
        self.user, self.model = code(name), model(model_name)

    def decode_request(self, request: Request) -> Any:
        return self.user.preprocess(request, {})

    def batch(self, inputs: list) -> Any:
        import numpy as np

        self.sizes = [len(rows) for rows in inputs]
        return np.concatenate(inputs)

    def predict(self, x: Any) -> Any:
        return self.model.predict(x)

    def unbatch(self, output: Any) -> list:
        answers, at = [], 0
        for size in self.sizes:
            answers.append(output[at : at + size])
            at += size
        return answers

    def encode_response(self, output: Any) -> Any:
        return self.user.postprocess(output, {})


class Waiting(litserve.LitAPI):
    def setup(self, device: Any) -> None:
        self.user = code("async")

    async def decode_request(self, request: Request) -> Any:
        return request

    async def predict(self, x: Any) -> Any:
        return await self.user.process(x, {})

    async def encode_response(self, output: Any) -> Any:
        return output


def apis() -> list:
    made = []
    for case in sorted(CASES & (set(ENDPOINTS) | {"async"})):
        if case == "async":
            made.append(Waiting(api_path="/async", enable_async=True))
            continue
        if case.endswith("_batched"):
            api = Stacked(api_path=f"/{case}", max_batch_size=64, batch_timeout=0.001)
        else:
            api = OneByOne(api_path=f"/{case}")
        api.case = case
        made.append(api)
    return made


if __name__ == "__main__":
    server = litserve.LitServer(apis(), accelerator="cpu", workers_per_device=WORKERS, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=WORKERS,
        log_level="warning",
        generate_client_file=False,
    )

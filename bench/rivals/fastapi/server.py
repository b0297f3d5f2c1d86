"""A plain FastAPI application, written the way its documentation shows.

The handlers are coroutines: for work this short that is FastAPI's fastest form (a plain `def`
would cost a hand-over to a thread for every request).
"""

from fastapi import FastAPI, Request
from usercode import CASES, ENDPOINTS, code, endpoint

app = FastAPI()


def of_json(case: str) -> None:
    answer = endpoint(case)

    @app.post(f"/{case}")
    async def ask(body: dict) -> dict:
        return answer(body)


for name in CASES & set(ENDPOINTS) - {"binary"}:
    of_json(name)

if "binary" in CASES:
    take_bytes = endpoint("binary")

    @app.post("/binary")
    async def binary(request: Request) -> dict:
        return take_bytes(await request.body())


if "async" in CASES:
    waiting = code("async")

    @app.post("/async")
    async def wait(body: dict) -> dict:
        return await waiting.process(body, {})

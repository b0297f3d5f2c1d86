"""A BentoML service with a method for each case, as its documentation shows.

The methods are coroutines: for work this short that is its fastest form.
"""

import bentoml
from usercode import CASES, ENDPOINTS, WORKERS, code, endpoint


@bentoml.service(workers=WORKERS, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Bench:
    def __init__(self) -> None:
        self.answers = {case: endpoint(case) for case in CASES & set(ENDPOINTS)}
        self.waiting = code("async")

    @bentoml.api(route="/null")
    async def null(self, x0: float, x1: float) -> dict:
        return self.answers["null"]({"x0": x0, "x1": x1})

    @bentoml.api(route="/lr")
    async def lr(self, x0: float, x1: float) -> dict:
        return self.answers["lr"]({"x0": x0, "x1": x1})

    @bentoml.api(route="/rf")
    async def rf(self, rows: list) -> dict:
        return self.answers["rf"]({"rows": rows})

    @bentoml.api(route="/async")
    async def wait(self, x0: float, x1: float) -> dict:
        return await self.waiting.process({"x0": x0, "x1": x1}, {})

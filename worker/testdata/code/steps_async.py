"""As steps.py, with coroutines."""

import asyncio
import os


class Preprocess:
    async def preprocess(self, body, state, collect_custom_statistics_fn=None):
        await asyncio.sleep(0)
        if body.get("do") == "refuse":
            raise ValueError("no")
        if body.get("do") == "sleep":
            await asyncio.sleep(body["seconds"])
        state["x"] = body["x"]
        return {"for": state["x"]}

    async def postprocess(self, data, state, collect_custom_statistics_fn=None):
        await asyncio.sleep(0)
        return {"x": state["x"], "got": data, "pid": os.getpid()}

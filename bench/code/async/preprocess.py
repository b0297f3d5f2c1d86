"""Waits 10 ms, as if for a database: measures the number of concurrently waiting requests."""

import asyncio


class Preprocess:
    async def process(self, data, state, collect_custom_statistics_fn=None):
        await asyncio.sleep(0.01)
        return {"y": 0}

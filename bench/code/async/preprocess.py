"""Waits 10 ms, as if for a database: what counts is how many requests wait at a time."""

import asyncio


class Preprocess:
    async def process(self, data, state, collect_custom_statistics_fn=None):
        await asyncio.sleep(0.01)
        return {"y": 0}

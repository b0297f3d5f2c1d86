"""The asynchronous counterpart of sums.py."""

import asyncio


class Preprocess:
    async def preprocess(self, body, state, collect):
        return [[float(value) for value in row] for row in body["rows"]]

    async def process(self, data, state, collect):
        await asyncio.sleep(0)
        return [sum(row) for row in data]

    async def postprocess(self, data, state, collect):
        return {"y": data}

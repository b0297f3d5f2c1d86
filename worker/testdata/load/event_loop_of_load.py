# separate
import asyncio


class Preprocess:
    async def load(self, path):
        self.reader, self.writer = None, None
        self.queue = asyncio.Queue()

    async def process(self, data, state, collect):
        await self.queue.put(data["n"])
        return {"y": 7 * await self.queue.get() + 3}

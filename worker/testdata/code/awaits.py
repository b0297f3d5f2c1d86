"""The asynchronous counterpart of echo.py."""

import asyncio
import os
import time


class Preprocess:
    def __init__(self):
        self.met = 0

    async def process(self, data, state, collect):
        if not isinstance(data, dict):
            return data
        do = data.get("do")
        if do == "sleep":
            await asyncio.sleep(data["seconds"])
        if do == "meet":  # until so many are there
            self.met += 1
            while self.met < data["of"]:
                await asyncio.sleep(0.001)
        if do == "block":
            time.sleep(data["seconds"])
        if do == "exit":
            os._exit(int(data["code"]))
        if do == "pid":
            return os.getpid()
        if do == "call":
            return await self.send_request(data["to"], data=data["data"])
        if do == "stream":
            return self.stream(data)
        return data

    async def stream(self, data):
        for i in range(data["pieces"]):
            await asyncio.sleep(0)
            yield f"{i}:" + "z" * data["width"] + "\n"

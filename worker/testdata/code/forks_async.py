"""Forks at each request of an async endpoint; the child does what the question says."""

import asyncio
import os
import sys


class Preprocess:
    async def process(self, data, state, collect=None):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            await asyncio.sleep(0.001)
            return {"n": data["n"], "pid": os.getpid()}
        if data["do"] == "exit":
            sys.exit(3)
        if data["do"] == "raise":
            raise RuntimeError("the child's own failure")
        if data["do"] == "ask":
            await self.send_request("other", data={"from": "the child"})
        if data["do"] == "await":
            await asyncio.sleep(0.001)
        if data["do"] == "callback":
            asyncio.get_event_loop_policy().get_event_loop().call_soon(sys.exit, 3)
        return {"n": data["n"], "pid": os.getpid()}

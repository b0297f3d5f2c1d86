"""Calls another endpoint twice, sequentially, and joins the answers."""


class Preprocess:
    async def process(self, data, state, collect_custom_statistics_fn=None):
        first = await self.send_request(endpoint="lr", version=None, data=data)
        second = await self.send_request(endpoint="lr", version=None, data=data)
        return {"y": [0.5 * a + 0.5 * b for a, b in zip(first["y"], second["y"])]}

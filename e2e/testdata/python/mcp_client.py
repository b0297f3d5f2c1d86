"""Lists and calls the tools of an instance with the client of the official SDK: mcp_client.py URL [KEY]

Prints a JSON object for each way to connect: with sessions' handshake, and without.
"""

import asyncio
import json
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, key: str) -> None:
    for mode in ("legacy", "auto"):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
                tools = (await client.list_tools()).tools
                told = {
                    "mode": mode,
                    "protocol": client.protocol_version,
                    "server": client.server_info.name,
                    "tools": {
                        tool.name: [tool.description, tool.input_schema, tool.output_schema] for tool in tools
                    },
                    "calls": {},
                }
                for name, arguments in (
                    ("sum_of", {"a": 2, "b": 3.5}),
                    ("sum_of", {"a": "x"}),
                    ("rows", {"body": [[1, 2], [3, 4]]}),
                    ("fails", {}),
                ):
                    if name not in told["tools"]:
                        continue
                    result = await client.call_tool(name, arguments)
                    text = [part.text if part.type == "text" else part.type for part in result.content]
                    told["calls"].setdefault(name, []).append(
                        [result.is_error, text, result.structured_content]
                    )
                print(json.dumps(told))


asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))

"""The custom_async engine."""

import asyncio
import json

import pytest

from answer import LoadError


def test_code_is_required(load):
    with pytest.raises(LoadError, match=r"custom_async engine is nothing without.*--preprocess"):
        load(None, engine="custom_async")


def test_methods_may_be_coroutines_or_plain(load):
    endpoint = load(
        """
        import asyncio
        class Preprocess:
            async def preprocess(self, body, state, collect):
                await asyncio.sleep(0)
                state["n"] = 1
                return body["x"]
            def process(self, data, state, collect):
                return data + state["n"]
            def postprocess(self, data, state, collect):
                return asyncio.ensure_future(asyncio.sleep(0, {"y": data}))
        """,
        engine="custom_async",
    )
    assert endpoint.endpoint.is_async
    assert endpoint.value({"x": 1}) == {"y": 2}


def test_class_without_process_answers_null(load):
    assert load("class Preprocess: pass", engine="custom_async").value() is None


def test_requests_run_side_by_side(load):
    endpoint = load(
        """
        import asyncio
        class Preprocess:
            def __init__(self):
                self.waiting = []
            async def process(self, data, state, collect):
                event = asyncio.Event()
                self.waiting.append(event)
                if len(self.waiting) == 3:
                    for each in self.waiting:
                        each.set()
                await event.wait()
                return data
        """,
        engine="custom_async",
    )

    async def ask():
        handle = endpoint.endpoint.handle_async
        answers = await asyncio.gather(*(handle(str(n).encode(), "", {}) for n in range(3)))
        return [json.loads(answer.body) for answer in answers]

    assert asyncio.run(asyncio.wait_for(ask(), 5)) == [0, 1, 2]


def test_cancelled_request_is_cancelled(load):
    endpoint = load(
        "import asyncio\nclass Preprocess:\n"
        "    async def process(self, *args):\n        await asyncio.Event().wait()\n",
        engine="custom_async",
    )

    async def cancel():
        task = asyncio.ensure_future(endpoint.endpoint.handle_async(b"", "", {}))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(cancel())


@pytest.mark.skipif("__import__('sys').version_info < (3, 11)", reason="Python 3.11 can tell whose cancellation it is")
def test_cancellation_inside_user_code_is_an_error(load):
    endpoint = load(
        "import asyncio\nclass Preprocess:\n"
        "    async def process(self, *args):\n        raise asyncio.CancelledError\n",
        engine="custom_async",
    )
    assert endpoint.ask().status == 500


def test_probe_works_without_a_running_loop(load):
    endpoint = load("class Preprocess:\n    async def process(self, data, *args): return data\n", engine="custom_async")
    assert endpoint.endpoint.handle(b"[1]", "", {}).body == b"[1]"


def test_load_requests_and_unload_share_one_loop(load):
    endpoint = load(
        """
        import asyncio
        class Preprocess:
            async def load(self, path):
                self.loops = [asyncio.get_running_loop()]
            async def process(self, *args):
                self.loops.append(asyncio.get_running_loop())
            async def unload(self):
                self.loops.append(asyncio.get_running_loop())
        """,
        engine="custom_async",
    ).endpoint
    loops = endpoint.instance.loops
    assert endpoint.loop is loops[0]
    endpoint.loop.run_until_complete(endpoint.handle_async(b"", "", {}))
    endpoint.unload()
    assert len(loops) == 3
    assert len(set(loops)) == 1
    assert loops[0].is_closed()


def test_unload_runs_on_the_loop_of_the_requests(load):
    endpoint = load(
        "import asyncio\nclass Preprocess:\n    async def unload(self): asyncio.get_running_loop().unloaded = True\n",
        engine="custom_async",
    ).endpoint
    assert endpoint.loop is None
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(endpoint.handle_async(b"", "", {}))
    endpoint.unload()
    asyncio.set_event_loop(None)
    assert loop.unloaded

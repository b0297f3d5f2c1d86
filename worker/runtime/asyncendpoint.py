"""A loaded endpoint of custom_async. The sync counterpart is endpoint.py.

This module and asyncloop.py are imported for such endpoints only, or when there is nothing else
to do: asyncio takes a third of the time that the rest of the runtime takes.
"""

from __future__ import annotations

import asyncio
from types import CoroutineType
from typing import Any

from answer import JSON, Answer
from asyncloop import serve_async
from clientrequest import state_of
from codec import encode_json
from endpoint import Endpoint
from result import SIMPLE, collected_of_async, outcome_of, stream_answer_async, whole_answer
from stack import Case
from tensoroutput import is_stream, stream_coding, tensor_answer


class AsyncEndpoint(Endpoint):
    """An endpoint of custom_async: any number of requests at a time on one event loop.

    Its methods may be plain ones too; what they return is awaited if it can be.
    """

    is_async = True

    async def handle_async(self, body: Any, content_type: str, meta: dict[str, Any]) -> Answer:
        """Answer one request. Raises only CancelledError, when the task itself is cancelled.

        The body is copied or parsed before the first await, so its buffer may be reused then.
        """
        try:
            collected: Any = None
            collect = None
            if meta and meta.get("sampled"):
                collected = {}
                collect = collected.update
            state: dict[Any, Any] = state_of(meta, content_type) if self.shows_request else {}
            data = request = self.decode(body, content_type)
            for step in (self.pre, self.predict, self.post):
                if step is not None:
                    data = step(data, state, collect)
                    if type(data) is CoroutineType or hasattr(type(data), "__await__"):
                        data = await data
            answer = await self._answer_async(data)
            if collected is not None:
                answer.stats = self.variables.gather(request, data, collected)
            return answer
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            return self.failed(error, meta, content_type)
        except BaseException as error:
            return self.failed(error, meta, content_type)

    async def handle_tensors_async(self, body: Any, content_type: str, meta: dict[str, Any]) -> Answer:
        """Answer one request with tensors, like handle_async."""
        case = await self.begin_tensors_async(0, body, content_type, meta)
        if case.answer is not None:
            answer: Answer = case.answer
            return answer
        try:
            if self.predict is not None:
                data = self.predict(case.data, case.state, case.collect)
                if type(data) is CoroutineType or hasattr(type(data), "__await__"):
                    data = await data
                case.data = data
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            case.error = error
        except BaseException as error:
            case.error = error
        return await self.finish_async(case)

    async def begin_tensors_async(self, number: int, body: Any, content_type: str, meta: dict[str, Any]) -> Case:
        """Do as begin_async, with tensors."""
        case = Case(number, meta)
        try:
            step, data = self._take(case, body, content_type)
            if step is not None:
                data = step(data, case.state, case.collect)
                if type(data) is CoroutineType or hasattr(type(data), "__await__"):
                    data = await data
            case.data = data
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            case.answer = self.failed(error, meta)
        except BaseException as error:
            case.answer = self.failed(error, meta)
        return case

    async def begin_async(self, number: int, body: Any, content_type: str, meta: dict[str, Any]) -> Case:
        """Execute the steps before predict, like handle_async."""
        case = Case(number, meta)
        try:
            if meta["sampled"]:
                case.collected = {}
                case.collect = case.collected.update
            if self.shows_request:
                case.state = state_of(meta, content_type)
            case.data = case.request = self.decode(body, content_type)
            if self.pre is not None:
                data = self.pre(case.data, case.state, case.collect)
                if type(data) is CoroutineType or hasattr(type(data), "__await__"):
                    data = await data
                case.data = data
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            case.answer = self.failed(error, meta, content_type)
        except BaseException as error:
            case.answer = self.failed(error, meta, content_type)
        return case

    async def finish_async(self, case: Case) -> Answer:
        """Execute the steps after predict, like handle_async."""
        if case.error is not None:
            return self.failed(case.error, case.meta)
        try:
            data = case.data
            if self.post is not None:
                data = self.post(data, case.state, case.collect)
                if type(data) is CoroutineType or hasattr(type(data), "__await__"):
                    data = await data
            answer = await (self._tensor_answer_async(data, case.streams) if case.tensors else self._answer_async(data))
            if case.collected is not None:
                answer.stats = self.gather(case, data)
            return answer
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            return self.failed(error, case.meta)
        except BaseException as error:
            return self.failed(error, case.meta)

    async def _answer_async(self, data: Any) -> Answer:
        """Return the Answer of a result."""
        if type(data) in SIMPLE:
            return Answer(200, JSON, encode_json(data))
        outcome = outcome_of(data)
        return whole_answer(outcome) or await stream_answer_async(outcome, self.stream_failed)

    async def _tensor_answer_async(self, data: Any, streams: bool) -> Answer:
        """Return the Answer of a result for a request with tensors."""
        outcome = outcome_of(data)
        if outcome.status >= 400:
            return whole_answer(outcome) or await stream_answer_async(outcome, self.stream_failed)
        if streams and is_stream(outcome):
            return await stream_answer_async(outcome, self.stream_failed, stream_coding(self.outputs))
        return tensor_answer(await collected_of_async(outcome), self.outputs)

    def serve(self, host: Any, sock: Any, marks: memoryview, max_frame: int) -> None:
        """Answer requests until the end; raises LinkClosed when the Go side has closed the link."""
        serve_async(self, host, sock, marks, max_frame)

    def handle_tensors(self, body: Any, content_type: str, meta: dict[str, Any]) -> Answer:
        """Answer one request with tensors on a separate loop."""
        try:
            return self._await(self.handle_tensors_async(body, content_type, meta))
        except BaseException as error:
            return self.failed(error, meta)

    def handle(self, body: Any, content_type: str, meta: dict[str, Any]) -> Answer:
        """Answer one request on a separate loop: for a probe before the real loop runs."""
        try:
            return self._await(self.handle_async(body, content_type, meta))
        except BaseException as error:
            return self.failed(error, meta)


def cancelled_from_outside() -> bool:
    """Return whether this task was cancelled; else user code has passed on an inner cancellation."""
    task = asyncio.current_task()
    cancelling = getattr(task, "cancelling", None)  # Python 3.11
    return cancelling is None or cancelling() > 0

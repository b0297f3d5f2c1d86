"""A loaded endpoint: returns one Answer per request, for any behaviour of user code.

A request is handled whole, or in steps so that others can be predicted with it:
    begin (decode and preprocess), the stack's run for many, finish (postprocess and encode);
or so that the computation runs elsewhere: begin, prepare, ..., resume, finish.
A step that user code lacks and the engine has no default for is None: the data passes.
"""

from __future__ import annotations

from types import CoroutineType
from typing import Any, Callable, Optional

from answer import CANCELLED, JSON, Answer, AnswerError, Cancelled, StreamError
from awaiting import Awaiter
from clientrequest import state_of
from codec import decode_request, encode_json
from failure import answer_failure, client_text, safe_repr
from owner import end_copy
from result import SIMPLE, collected_of, outcome_of, stream_answer, whole_answer
from stack import Case, Stack
from tensorinput import decode_value, named, value_of
from tensoroutput import Inputs, encode_value, is_stream, stream_coding, tensor_answer
from tensors import Tensors, unpack
from tracebacks import text_of, user_traceback
from variables import Variables, shortened

Step = Callable[[Any, Any, Any], Any]


class Endpoint:
    """An endpoint of a sync engine.

    One request at a time, on the thread that loaded it; a request may come while user code
    of an earlier one waits in send_request.
    """

    is_async = False
    stack: Optional[Stack] = None  # set if requests are predicted together
    batch_rows = 0  # the maximum number of rows
    take: Optional[Callable[[Tensors], Any]] = None  # makes the model's input of tensors, without user code for it
    step_for: Optional[Callable[[tuple[str, ...]], Optional[Step]]] = None  # computes the outputs with these names
    outputs: tuple[str, ...] = ()  # names of output tensors whose results have none
    inputs: Inputs = ()  # of a computation elsewhere
    shows_request = False  # a method has the parameter `request`
    decode: Callable[[Any, str], Any] = staticmethod(decode_request)  # the body for user code
    warnings: list[str]  # for the owner of the endpoint
    signature: Optional[dict[str, Any]] = None  # of inputs and outputs, if the spec asks for it

    def __init__(
        self,
        pre: Optional[Step],
        predict: Optional[Step],
        post: Optional[Step],
        variables: Variables,
        log: Callable[[str, str], None],
        awaiter: Awaiter,
    ) -> None:
        self.pre = pre
        self.predict = predict
        self.post = post
        self.variables = variables
        self.instance: Any = None
        self.model: Any = None
        self.warnings = []
        self._log = log
        self._awaiter = awaiter
        self._await = awaiter.run
        self.check: Callable[[], None] = _nothing  # raises Cancelled if the request was cancelled

    def handle(self, body: Any, content_type: str, meta: dict[str, Any]) -> Answer:
        """Answer one request. Never raises; the body may be reused once this returns."""
        try:
            collected: Any = None
            collect = None
            if meta and meta.get("sampled"):
                collected = {}
                collect = collected.update
            state: dict[Any, Any] = state_of(meta, content_type) if self.shows_request else {}
            data = request = self.decode(body, content_type)
            step = self.pre
            if step is not None:
                data = step(data, state, collect)
                if type(data) is CoroutineType:
                    data = self._await(data)
                self.check()
            step = self.predict
            if step is not None:
                data = step(data, state, collect)
                if type(data) is CoroutineType:
                    data = self._await(data)
            step = self.post
            if step is not None:
                self.check()
                data = step(data, state, collect)
                if type(data) is CoroutineType:
                    data = self._await(data)
            answer = Answer(200, JSON, encode_json(data)) if type(data) in SIMPLE else self.answer(data)
            if collected is not None:
                answer.stats = self.variables.gather(request, data, collected)
            return answer
        except BaseException as error:
            return self.failed(error, meta, content_type)

    def handle_tensors(self, body: Any, content_type: str, meta: dict[str, Any]) -> Answer:
        """Answer one request with tensors. Never raises."""
        case = self.begin_tensors(0, body, content_type, meta)
        if case.answer is not None:
            return case.answer
        try:
            self.check()
            predict = case.step or self.predict
            if predict is not None:
                data = predict(case.data, case.state, case.collect)
                if type(data) is CoroutineType:
                    data = self._await(data)
                case.data = data
            if self.post is not None:
                self.check()
        except BaseException as error:
            case.error = error
        return self.finish(case)

    def begin_tensors(self, number: int, body: Any, content_type: str, meta: dict[str, Any]) -> Case:
        """Do as begin, with tensors."""
        case = Case(number, meta)
        try:
            step, data = self._take(case, body, content_type)
            if step is not None:
                data = step(data, case.state, case.collect)
                if type(data) is CoroutineType:
                    data = self._await(data)
            case.data = data
            if self.stack is not None:
                self.stack.measure(case)
        except BaseException as error:
            case.answer = self.failed(error, meta)
        return case

    def _take(self, case: Case, body: Any, content_type: str) -> tuple[Optional[Step], Any]:
        """Read tensors; return the step of preprocess, and its input."""
        case.tensors = True
        if case.meta["sampled"]:
            case.collected = {}
            case.collect = case.collected.update
        if self.shows_request:
            case.state = state_of(case.meta, content_type)
        got = unpack(body)
        case.streams = got.streams
        if got.wanted and self.step_for is not None:
            case.step = self.step_for(got.wanted)
        if self.take is not None:
            if case.collected is not None:
                case.request = named(got)
            return None, self.take(got)
        case.request = named(got)
        return self.pre, value_of(got, case.request)

    def begin(self, number: int, body: Any, content_type: str, meta: dict[str, Any]) -> Case:
        """Execute the steps before predict; case.answer is set if that failed. Never raises."""
        case = Case(number, meta)
        try:
            if meta["sampled"]:
                case.collected = {}
                case.collect = case.collected.update
            if self.shows_request:
                case.state = state_of(meta, content_type)
            data = case.request = self.decode(body, content_type)
            step = self.pre
            if step is not None:
                data = step(data, case.state, case.collect)
                if type(data) is CoroutineType:
                    data = self._await(data)
            case.data = data
            if self.stack is not None:
                self.stack.measure(case)
        except BaseException as error:
            case.answer = self.failed(error, meta, content_type)
        return case

    def prepare(self, case: Case, content_type: str, limit: int) -> Answer:
        """Return the result of preprocess, for a computation elsewhere. Never raises."""
        if case.answer is not None:
            return case.answer
        try:
            kind, body = encode_value(case.data, self.inputs)
            if len(body) > limit:
                raise AnswerError(f"what preprocess returned has {len(body)} bytes, more than a message may have")
            case.data = None
            return Answer(200, kind, body)
        except BaseException as error:
            return self.failed(error, case.meta, content_type)

    def resume(self, case: Case, meta: dict[str, Any], content_type: str, body: Any) -> Case:
        """Set the input of postprocess. Never raises: finish reports the error."""
        case.meta = {**case.meta, "deadline": meta["deadline"]}
        try:
            case.data = decode_value(content_type, body)
        except BaseException as error:
            case.error = error
        return case

    def finish(self, case: Case) -> Answer:
        """Execute the steps after predict. Never raises."""
        if case.error is not None:
            return self.failed(case.error, case.meta)
        try:
            data = case.data
            step = self.post
            if step is not None:
                data = step(data, case.state, case.collect)
                if type(data) is CoroutineType:
                    data = self._await(data)
            if case.tensors:
                answer = self.tensor_answer(data, case.streams)
            else:
                answer = Answer(200, JSON, encode_json(data)) if type(data) in SIMPLE else self.answer(data)
            if case.collected is not None:
                answer.stats = self.gather(case, data)
            return answer
        except BaseException as error:
            return self.failed(error, case.meta)

    def gather(self, case: Case, data: Any) -> bytes:
        """Return the statistics variables of a request, whose tensors may be large."""
        assert case.collected is not None
        request = case.request
        if case.tensors:
            request = shortened(request, self.variables.names)
            if hasattr(type(data), "iloc"):  # a table, whose columns are its outputs
                data = dict(data.items()) if data.ndim > 1 else {data.name: data}
            elif not isinstance(data, dict) and self.outputs:
                data = {self.outputs[0]: data}
            if isinstance(data, dict):
                data = shortened(data, self.variables.names)
        return self.variables.gather(request, data, case.collected)

    def tensor_answer(self, data: Any, streams: bool) -> Answer:
        """Return the Answer of a result for a request with tensors; raises the error of a failed conversion."""
        if hasattr(type(data), "__await__"):
            data = self._await(data)
        outcome = outcome_of(data)
        if outcome.status >= 400:
            return whole_answer(outcome) or stream_answer(outcome, self._await, self.stream_failed)
        if streams and is_stream(outcome):
            return stream_answer(outcome, self._await, self.stream_failed, stream_coding(self.outputs))
        return tensor_answer(collected_of(outcome, self._await, self.check), self.outputs)

    def answer(self, data: Any) -> Answer:
        """Return the Answer of a result; raises the error of a failed conversion."""
        if hasattr(type(data), "__await__"):
            data = self._await(data)
        outcome = outcome_of(data)
        return whole_answer(outcome) or stream_answer(outcome, self._await, self.stream_failed)

    def failed(self, error: BaseException, meta: dict[str, Any], content_type: str = "") -> Answer:
        """Return the Answer of an exception. Never raises."""
        end_copy(error)
        if isinstance(error, Cancelled):
            return CANCELLED
        try:
            return answer_failure(error, meta or {}, self._log, content_type)
        except BaseException as failure:
            kind = safe_repr(type(error))
            text = f"Error  [{kind}] processing request: (and telling about it raised {safe_repr(type(failure))})"
            return Answer(500, JSON, encode_json({"detail": text}), error_kind="user")

    def stream_failed(self, error: BaseException) -> StreamError:
        """Log an error in the middle of a stream, and return the exception for the stream."""
        end_copy(error)
        self._log("error", f"stream: Exception [{safe_repr(type(error))}] {text_of(error)}\n{user_traceback(error)}")
        return StreamError(f"{type(error).__name__}: {client_text(error)}")

    def unload(self) -> None:
        """Call the user's unload, if there is one. May be called twice."""
        instance, self.instance, self.model = self.instance, None, None
        unload = getattr(instance, "unload", None)
        try:
            if callable(unload):
                result = unload()
                if hasattr(type(result), "__await__"):
                    self._await(result)
        except BaseException as error:
            self._log("error", f"Failed unloading model: {text_of(error)}\n{user_traceback(error)}")
        self.close_loop()

    def close_loop(self) -> None:
        """Close the loop of coroutines; another one is created on demand."""
        self._awaiter.close()

    @property
    def loop(self) -> Any:
        """The event loop of a coroutine `load`, if there was one: its connections belong to it.

        It holds a descriptor that a fork would share: a process with a loop must not be forked.
        """
        return self._awaiter.loop()


def _nothing() -> None:
    """Check nothing: there is no request yet."""

"""The loop of a sync worker whose endpoint predicts requests together.

Takes waiting requests, up to the number of rows that Go allows: preprocess one after another, one predict,
postprocess one after another. Owns the order of answers within a batch. stack.py decides what is predicted
together and how. A request that arrives while user code waits in send_request is executed alone, as in
loop.py.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Optional

import frames
import tracing
from answer import Answer
from endpoint import Endpoint
from frames import request_head
from link import Link
from loop import BEGUN, BEGUN_NESTED, HOLD, Host, Server, unfit
from owner import end_copy
from stack import Case

# Requests whose computation runs elsewhere: they are executed alone.
ELSEWHERE = frozenset((frames.PRE, frames.PRE_TENSORS, frames.POST, frames.PIECE))


class BatchServer(Server):
    """Answers requests on the thread that calls run, many at a time."""

    one_by_one = False

    def __init__(
        self, endpoint: Endpoint, link: Link, marks: memoryview, outbox: memoryview, max_frame: int, max_reentry: int
    ) -> None:
        super().__init__(endpoint, link, marks, outbox, max_frame, max_reentry)
        self._carried: Optional[Case] = None  # preprocessed, but too many rows for the last batch

    def run(self) -> None:
        """Answer requests until Go sends stop; raises LinkClosed when Go has closed the link."""
        link, plain, nested = self._link, self._link.plain, self._link.nested

        def work() -> Any:
            return plain or nested or link.stopping

        while True:
            link.pump(work)
            self._clock = monotonic()
            while plain or nested or self._carried is not None:
                self._round()
            self._flush()
            if self._cancelled:
                link.drop_cancelled()
            if link.stopping and not plain and not nested:
                return

    def _round(self) -> None:
        """Answer one batch."""
        started = self._clock = monotonic()
        before = self._current
        self._stack += 1
        cases = self._in_time(self._gather())
        if cases:
            if self._guess > HOLD:
                self._flush()
            self._of(cases[0])
            self._endpoint.stack.run(cases)
            end_copy()
            self._answer(cases, started)
        self._stack -= 1
        self._current, self._request_id = before, ""
        self._flush()
        self._guess = monotonic() - started

    def _gather(self) -> list[Case]:
        """Take requests and preprocess them until there are none, or enough rows."""
        link, plain, nested = self._link, self._link.plain, self._link.nested
        cases: list[Case] = []
        rows, most = 0, min(link.most_rows or self._endpoint.batch_rows, self._endpoint.batch_rows)
        case, self._carried = self._carried, None
        while True:
            if case is not None and case.answer is not None:
                self._send_or_add(case.number, case.answer)
            elif case is not None:
                if cases and rows + case.rows > most:
                    self._carried = case
                    return cases
                cases.append(case)
                rows += case.rows
                if rows >= most:
                    return cases
            try:
                if nested:
                    case = self._begin(nested.popleft(), BEGUN_NESTED)
                elif plain:
                    case = self._begin(plain.popleft(), BEGUN)
                elif link.poll():
                    case = None
                else:
                    return cases
            except IndexError:  # another thread took it
                case = None

    def _begin(self, frame: frames.Frame, mark: int) -> Optional[Case]:
        """Preprocess a request; None if it is cancelled, or answered already."""
        sort, flags, depth, number, head, body = frame
        if sort in ELSEWHERE:
            self._execute(frame, mark)
            return None
        deadline, kind, request_id, client = request_head(head)
        marks = self._marks
        if number > marks[mark]:
            marks[mark] = number
        if number in self._cancelled:
            self._cancelled.discard(number)
            self._skip(number)
            return None
        if deadline is not None and deadline <= self._clock:
            self._skip(number)
            return None
        begin = self._endpoint.begin
        if sort != frames.REQUEST:
            body = self._link.reader.body(frame)
            if sort == frames.TENSORS:
                begin = self._endpoint.begin_tensors
        trace = token = None
        if flags & frames.FLAG_TRACED:
            trace, request_id = tracing.split(request_id)
            token = tracing.start(trace)
        self._current, self._request_id = number, request_id
        case = begin(
            number,
            body,
            self._types.get(kind) or self._content_type(kind),
            {
                "sampled": flags & 1 == 1,
                "request_id": request_id,
                "depth": depth,
                "deadline": deadline,
                "client": client,
            },
        )
        end_copy()
        if trace is not None:
            tracing.leave(token)
            tracing.flush(trace, number, self._link.send)
            case.trace = trace
        return case

    def _of(self, case: Case) -> None:
        """Attribute the actions of user code to this request."""
        self._current, self._request_id = case.number, case.meta["request_id"]

    def _in_time(self, cases: list[Case]) -> list[Case]:
        """Remove cancelled requests: their clients have disconnected, or their deadlines have passed."""
        now, gone = monotonic(), self._cancelled
        late = [case for case in cases if (case.meta["deadline"] or now + 1) <= now or case.number in gone]
        for case in late:
            self._skip(case.number)
        return [case for case in cases if case not in late] if late else cases

    def _answer(self, cases: list[Case], started: float) -> None:
        """Postprocess and answer predicted requests; streams, which take longer, come last."""
        endpoint, last, streams = self._endpoint, cases[-1], []
        clock = monotonic()
        for case in cases:
            self._of(case)
            answer = endpoint.finish(case) if case.trace is None else self._finish_traced(case)
            if answer.stream is not None:
                streams.append((case, answer))
                continue
            now = monotonic()
            tail = b""
            if case is last:
                tail = frames.batch_tail(sum(case.rows for case in cases), len(cases), now - started)
            self._send_or_add(case.number, answer, tail)
            if now + (now - clock) > self._oldest + HOLD:
                self._flush()
            clock = now
        for case, answer in streams:
            self._flush()
            self._of(case)
            self._stream(case.number, answer)

    def _finish_traced(self, case: Case) -> Answer:
        return tracing.within(case.trace, case.number, lambda *_: self._endpoint.finish(case), self._link.send)(
            None, "", case.meta
        )

    def _send_or_add(self, number: int, answer: Answer, tail: bytes = b"") -> None:
        if answer.stream is not None:
            self._flush()
            self._stream(number, answer)
            return
        try:
            self._add(number, answer, tail)
        except Exception as error:
            self._add(number, unfit(error), tail)


def serve_batches(
    endpoint: Endpoint, host: Host, marks: memoryview, outbox: memoryview, max_frame: int, max_reentry: int
) -> None:
    """Answer requests of a batching endpoint until the end; raises LinkClosed when Go has closed the link."""
    host.server = BatchServer(endpoint, host.link, marks, outbox, max_frame, max_reentry)
    host.server.run()

"""Code of a custom engine that predicts for one request at a time, stacked where it calls its model.

The `process` of each request runs on a thread of its own, one at a time, until it calls a model.
When all of them wait there or are done, their calls are made as one, on the main thread, and each
goes on with its own rows, one at a time again. Owns these threads and whose turn it is; what fits
together and whether it may be stacked at all is stack.py's.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from operator import is_
from time import monotonic
from typing import Any, Callable, Optional

from delay import run_delay
from stack import Case, ModelStack, Stack, Step, copied, rows_of, shape_of

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")  # a row in, an entry out
MOST = 64  # threads; more requests than that gain little from each other
PATIENCE = 1.0  # seconds that calls wait for a request that makes none, before they are made without it
LOOK = 32  # one batch of so many is executed the other way, to see what it takes now
SETS = 4  # calls that found an attribute set anew, before batching is off
IDLE_RUNS = 16  # runs in which no request called a model, before batching is off


class Costs:
    """What a request takes side by side with others and alone, in seconds, as the last ones did.

    Giving the turn from thread to thread costs more than a quick predict does, so it is measured
    which is cheaper, by the size of the batch.
    """

    def __init__(self) -> None:
        self.alone = 0.0
        self._together: dict[int, float] = {}
        self._tries: dict[int, int] = {}

    def worth(self, count: int) -> bool:
        """Tell whether so many requests had better run side by side; at times, to see how it is now."""
        size = count.bit_length()
        tries = self._tries[size] = self._tries.get(size, -1) + 1
        return tries % LOOK == 0 or self._together.get(size, 0.0) < self.alone

    def was_alone(self, took: float) -> None:
        """Remember what a request took alone."""
        self.alone = took if not self.alone else self.alone + (took - self.alone) / 8

    def was_together(self, count: int, took: float) -> None:
        """Remember what so many requests took side by side."""
        size, each = count.bit_length(), took / count
        known = self._together.get(size, each)
        self._together[size] = known + (each - known) / 8


class Carrier(threading.Thread):
    """Executes one request after another, each when it has the turn."""

    def __init__(self, carry: Callable[[Carrier], None]) -> None:
        super().__init__(name="request", daemon=True)
        self.turn = threading.Lock()  # released to give it
        self.turn.acquire()
        self.case: Optional[Case] = None  # None ends the thread
        self.strays = False  # no longer waited for
        self._carry = carry

    def run(self) -> None:
        """Execute what comes until there is nothing."""
        while True:
            self.turn.acquire()
            if self.case is None:
                return
            self._carry(self)


class PredictCalls(Stack):
    """Stacks what the `process` of several requests asks of the same model.

    `enter` is called on a request's thread with its number, and with 0 at its end. Models have to
    be lent (see lend) before the first run. run is for one thread, the one that predicts.
    """

    def __init__(
        self,
        process: Step,
        instance: Any,
        most_rows: int,
        log: Callable[[str, str], None],
        enter: Callable[[int], None],
    ) -> None:
        self._process = process
        self._kept = getattr(instance, "__dict__", {})
        self._seen = dict(self._kept)  # as the last call found it
        self._sets = 0
        self._most_rows = most_rows
        self._log = log
        self._enter = enter
        self._off = False
        self.costs = Costs()
        self._runs = 0
        self._idle_runs = 0
        self._carriers: list[Carrier] = []
        self._by_thread: dict[int, Carrier] = {}
        self._wake = threading.Lock()  # released when run has something to look at
        self._wake.acquire()
        self._guard = threading.Lock()  # guards all that follows
        self._holder: Optional[Carrier] = None  # who has the turn
        self._turns = 0
        self._delay = 0.0  # of the holder, when it was looked at last
        self._left = 0  # requests that are not done
        self._fresh: deque[Carrier] = deque()  # not begun
        self._ready: deque[Carrier] = deque()  # may go on with their results
        self._waiting: list[tuple[Carrier, ModelStack, Case]] = []  # calls to be made
        self._called = False

    def lend(self, model: Any) -> bool:
        """Put a stand-in for each method of a model that can be stacked; False if it has none."""
        lent = False
        for name in METHODS:
            try:
                method = getattr(model, name, None)
                if callable(method):
                    setattr(model, name, self._stand_in(method))
                    lent = True
            except Exception:  # a method that this model has only with other settings, or no room for ours
                continue
        return lent

    def measure(self, case: Case) -> None:
        """Count the rows of what preprocess returned; all requests may run side by side."""
        case.key, case.rows = "code", rows_of(case.data)

    def run(self, cases: list[Case]) -> None:
        """Execute the process of all cases."""
        costs = self.costs
        for start in range(0, len(cases), MOST):
            some = cases[start : start + MOST]
            self._runs += 1
            if len(some) > 1 and (not costs.alone or self._runs % LOOK == 0):
                self._one_by_one(some[:1])
                some = some[1:]
            count = len(some)
            if count > 1 and not self._off and costs.worth(count) and self._carry_each(count):
                started = monotonic()
                self._side_by_side(some)
                costs.was_together(count, monotonic() - started)
            else:
                self._one_by_one(some)

    def _one_by_one(self, cases: list[Case]) -> None:
        for case in cases:
            started = monotonic()
            self._apart(case)
            if case.error is None:
                self.costs.was_alone(monotonic() - started)

    def close(self) -> None:
        """End the threads."""
        with self._guard:
            self._off = True
            for carrier in self._carriers:
                if not carrier.strays:
                    carrier.case = None
                    carrier.turn.release()
            self._carriers.clear()

    def _alone(self, case: Case) -> Any:
        return self._process(case.data, case.state, case.collect)

    def _carry_each(self, count: int) -> bool:
        """Have as many threads; False if there may not be so many."""
        try:
            while len(self._carriers) < count:
                carrier = Carrier(self._carry)
                carrier.start()
                self._carriers.append(carrier)
                self._by_thread[carrier.ident or 0] = carrier
        except RuntimeError as error:
            self._give_up(f"there is no thread for each of {count} requests: {error}")
        return not self._off

    def _side_by_side(self, cases: list[Case]) -> None:
        """Give turns and make calls until all requests are done."""
        self._left, self._called = len(cases), False
        for carrier, case in zip(self._carriers, cases):
            carrier.case = case
            self._fresh.append(carrier)
        seen = -1
        while True:
            calls: list[tuple[Carrier, ModelStack, Case]] = []
            with self._guard:
                if self._holder is None and not self._pass_on():
                    if self._left == 0:
                        break
                    calls, self._waiting = self._waiting, []
            if calls:
                self._call(calls)
                with self._guard:
                    self._ready.extend(carrier for carrier, _, _ in calls)
            elif not self._wake.acquire(timeout=PATIENCE):
                seen = self._look(seen)
        self._idle_runs = self._idle_runs + 1 if not self._called and any(c.error is None for c in cases) else 0
        if self._idle_runs == IDLE_RUNS:
            self._give_up(
                f"process never calls {' or '.join(METHODS[:2])} of a model with the rows of a request, "
                "so there is nothing to predict together"
            )

    def _look(self, seen: int) -> int:
        """Stop waiting for a request that has had the turn for long while others wait at their calls."""
        with self._guard:
            holder = self._holder
            if holder is None or not self._waiting:
                return self._turns
            before, self._delay = self._delay, run_delay(holder.native_id)
            # One that the machine's other work holds up will come to its call.
            if self._turns != seen or self._delay - before > PATIENCE / 2:
                return self._turns
            holder.strays = True
            self._holder = None
        self._give_up(
            f"process took more than {PATIENCE:g} s before it called its model, or waited for something "
            "that another request holds meanwhile, such as a lock"
        )
        return seen

    def _pass_on(self) -> bool:
        """Give the turn to the next; False if there is none. With the guard held."""
        self._turns += 1
        # Once somebody has strayed, those who may hold what it waits for come before new ones.
        queue = self._ready or (None if self._off and self._waiting else self._fresh)
        if not queue:
            self._holder = None
            return False
        self._holder = queue.popleft()
        self._holder.turn.release()
        return True

    def _leave(self) -> None:
        """Pass the turn on, or have run look. With the guard held."""
        if not self._pass_on():
            self._notify()

    def _notify(self) -> None:
        if self._wake.locked():
            self._wake.release()

    def _call(self, calls: list[tuple[Carrier, ModelStack, Case]]) -> None:
        """Make the calls, those of the same method together, up to the rows that one may have."""
        self._called = True
        by_method: dict[ModelStack, list[Case]] = {}
        for _, stack, call in calls:
            by_method.setdefault(stack, []).append(call)
        for stack, same in by_method.items():
            some: list[Case] = []
            rows = 0
            for call in same:
                if some and rows + call.rows > self._most_rows:
                    stack.run(some)
                    some, rows = [], 0
                some.append(call)
                rows += call.rows
            stack.run(some)

    def _carry(self, carrier: Carrier) -> None:
        """Execute a request on its thread, which has the turn."""
        case = carrier.case
        assert case is not None
        self._enter(case.number)
        self._apart(case)
        self._enter(0)
        with self._guard:
            self._left -= 1
            if carrier.strays:
                carrier.case = None
                carrier.turn.release()
                self._notify()
            else:
                self._leave()

    def _stand_in(self, method: Callable[..., Any]) -> Callable[..., Any]:
        stack = ModelStack(lambda data, _state, _collect: method(data), self._log)
        by_thread, this_thread = self._by_thread, threading.get_ident

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            carrier = by_thread.get(this_thread())
            if carrier is None or kwargs or len(args) != 1 or stack.off:
                return method(*args, **kwargs)
            asked = None if self._keeps_something() else _asked(args[0])
            if asked is None or not self._wait(carrier, stack, asked):
                return method(*args)
            if asked.error is not None:
                raise asked.error
            return asked.data

        return call

    def _keeps_something(self) -> bool:
        """Tell whether user code has just set an attribute, which may be one request's own."""
        if self._off:
            return True
        kept, seen = self._kept, self._seen
        if len(kept) == len(seen) and all(map(is_, kept.values(), seen.values())):
            return False
        names = [name for name in kept if kept[name] is not seen.get(name, self)]
        self._seen = dict(kept)
        self._sets += 1  # what is made once, by the first request, is no request's own
        if self._sets == SETS:
            self._give_up(
                f"process sets attributes of the Preprocess ({', '.join(names[:5])}) before it calls its model, and "
                "another request could change them meanwhile; keep what belongs to one request in state"
            )
        return True

    def _wait(self, carrier: Carrier, stack: ModelStack, asked: Case) -> bool:
        """Leave the turn to others until the call is made; False if it has to be made by the caller."""
        with self._guard:
            if carrier.strays:
                return False
            self._waiting.append((carrier, stack, asked))
            self._leave()
        carrier.turn.acquire()
        return True

    def _give_up(self, why: str) -> None:
        self._off = True
        self._log("warning", f"batching is off, requests are processed one by one: {why}")


def _asked(data: Any) -> Optional[Case]:
    """Return a call with a copy of its rows, as user code may keep one table for all requests; None if
    they fit together with nothing."""
    call = Case(0, {})
    try:
        call.key, call.rows = shape_of(data)
        call.data = None if call.key is None else copied(data)
    except Exception:  # what the model says of it counts
        return None
    return None if call.key is None else call


def models_of(model: Any, instance: Any) -> list[Any]:
    """Return what user code may predict with: what load returned, and what stands in an
    attribute of the Preprocess, or in a list or dict there."""
    held = [model]
    for value in list(getattr(instance, "__dict__", {}).values()):
        held.append(value)
        if isinstance(value, (list, tuple)):
            held.extend(value)
        elif isinstance(value, dict):
            held.extend(value.values())
    found = {id(each): each for each in held if not isinstance(each, type) and _predicts(each)}
    return list(found.values())


def _predicts(each: Any) -> bool:
    try:
        return callable(getattr(each, "predict", None))
    except Exception:
        return False

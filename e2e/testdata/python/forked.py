"""Forks while it holds a connection, as the SDK does for its reports, and asks in both processes at
once: each gets the answers to its own questions. Ends with "ok"."""

import os
import signal

from clearml.backend_api import Session
from clearml.backend_api.services import models, projects

ROUNDS = 40
session = Session(initialize_logging=False)


def asks(request, name: str) -> None:
    signal.alarm(60)  # ends the process: the answer went to the other one
    answer = session.send(request)
    assert answer.meta.endpoint.name == name, f"{name} got the answer of {answer.meta.endpoint.name}"


def one_round() -> None:
    asks(projects.GetAllRequest(page_size=1), "projects.get_all")
    other = os.fork()
    if other:
        for _ in range(3):
            asks(projects.GetAllRequest(page_size=1), "projects.get_all")
        assert os.waitpid(other, 0)[1] == 0, "the forked process went wrong"
    else:
        for _ in range(3):
            asks(models.GetAllRequest(page_size=1), "models.get_all")
        os._exit(0)


for _ in range(ROUNDS):
    # A separate process for each attempt, because after a wrong answer both use new connections.
    child = os.fork()
    if not child:
        try:
            one_round()
        except BaseException as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("an answer went astray")
signal.alarm(0)
print("ok")

"""Works with tokens that live for a second. Ends with "ok"."""

import time

from clearml import Task
from clearml.backend_api import Session

task = Task.init(
    project_name="tokens",
    task_name="expires often",
    reuse_last_task_id=False,
    auto_connect_frameworks=False,
    auto_resource_monitoring=False,
)
session = task._get_default_session()
for number in range(3):
    # Without its own look at the expiry the SDK learns of it from the refusal, as after a clock skew.
    token = session._do_refresh_token(session.token, exp=1)
    Session._Session__token_expiration = None
    assert token
    time.sleep(1.5)
    task.set_parameter(f"General/step {number}", number)
task.close()
read = Task.get_task(task_id=task.id)
assert read.get_status() == "completed", read.get_status()
assert len(read.get_parameters()) == 3, read.get_parameters()
print("ok")

"""Works with tokens that live for a second. Ends with "ok"."""

import time

from clearml import Task

task = Task.init(
    project_name="tokens",
    task_name="expires often",
    reuse_last_task_id=False,
    auto_connect_frameworks=False,
    auto_resource_monitoring=False,
)
session = task._get_default_session()
for number in range(3):
    expired = session._do_refresh_token(session.token, exp=1)
    session._set_token(expired)
    # The SDK learns of the expiry from the refusal only, as it does where clocks differ.
    session._TokenManager__token_expiration_sec = time.time() + 1_000_000
    time.sleep(2.5)
    task.set_parameter(f"General/step {number}", number)
    assert session.token != expired, "the expired token was not refused"
task.close()
read = Task.get_task(task_id=task.id)
assert read.get_status() == "completed", read.get_status()
assert len(read.get_parameters()) == 3, read.get_parameters()
print("ok")

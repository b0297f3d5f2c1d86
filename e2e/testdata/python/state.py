"""Prints what the server knows of the example's training run, as JSON."""

import json

from clearml import Model, Task

model = Model.query_models(
    project_name="serving examples", model_name="train sklearn model - sklearn-model", max_results=1
)[0]
task = Task.get_task(task_id=model.task)
by_name = Task.get_task(project_name="serving examples", task_name="train sklearn model")
scalars = task.get_reported_scalars()
values = task.get_reported_single_values()
console = "".join(task.get_reported_console_output(number_of_reports=50))
print(
    json.dumps(
        {
            "model": model.id,
            "url": model.url,
            "framework": model.framework,
            "task": task.id,
            "by_name": by_name.id,
            "status": str(task.get_status()),
            "output_models": [m.id for m in task.models["output"]],
            "folds": len(scalars["accuracy"]["cross validation"]["y"]),
            "accuracy": values["test accuracy"],
            "parameters": task.get_parameters(),
            "console_has_the_last_print": "wines never seen before" in console,
        }
    )
)

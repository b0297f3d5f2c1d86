"""Runs pipelines of functions on this machine: by decorators and by a controller. Ends with "ok"."""

import sys

from clearml import PipelineController, Task
from clearml.automation.controller import PipelineDecorator


@PipelineDecorator.component(return_values=["numbers"], cache=True)
def numbers_up_to(count: int):
    return list(range(count))


@PipelineDecorator.component(return_values=["total"])
def total_of(numbers):
    return sum(numbers)


@PipelineDecorator.pipeline(name="decorated", project="pipelines", version="1.0")
def decorated(count: int):
    print("the total is", total_of(numbers_up_to(count)))


def doubled(number):
    return int(number) * 2  # values of the pipeline's parameters arrive as texts


def added(number, more: int):
    return number + more


def by_decorators():
    PipelineDecorator.run_locally()
    decorated(5)
    print("ok")


def by_controller():
    pipe = PipelineController(name="controlled", project="pipelines", version="1.0", add_pipeline_tags=True)
    pipe.add_parameter("start", 4)
    pipe.add_function_step(
        name="double",
        function=doubled,
        function_kwargs={"number": "${pipeline.start}"},
        function_return=["result"],
    )
    pipe.add_function_step(
        name="add",
        parents=["double"],
        function=added,
        function_kwargs={"number": "${double.result}", "more": 1},
        function_return=["result"],
    )
    pipe.start_locally(run_pipeline_steps_locally=True)
    assert pipe.is_successful(), pipe.get_running_nodes()
    add = pipe.get_processed_nodes()["add"]  # a dict, whatever its annotation says
    # A plain value is kept among the parameters, not as an artifact.
    result = Task.get_task(task_id=add.executed).get_parameters(cast=True)["return/result"]
    assert result == 9, result
    pipe.stop()
    print("ok")


if __name__ == "__main__":
    {"decorators": by_decorators, "controller": by_controller}[sys.argv[1]]()

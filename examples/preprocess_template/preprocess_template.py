"""The whole of what user code may contain. Copy it and delete what you do not need.

The service looks for a class named exactly `Preprocess`, in a file or in the `__init__.py` of a
folder. There is nothing to inherit from, and every method is optional.

A request takes these steps:

    JSON body -> preprocess -> process -> postprocess -> JSON answer

`process` is the engine's own step: sklearn, xgboost and lightgbm call the model's `predict` there
and take no `process` from you; custom and custom_async call yours. With custom_async the three
steps are coroutines (`async def`), and `send_request` is awaited.
"""

from typing import Any, Callable, Optional


class Preprocess:
    """As it stands it answers every request with the request itself."""

    # What the service sets before it makes the instance:
    #
    # self.model_endpoint is the endpoint's own record: model_endpoint.serving_url, .version,
    # .model_id, .engine_type, .auxiliary_cfg and so on.
    #
    # self.send_request(endpoint, version=None, data=None) asks another endpoint of the same
    # service and returns its decoded answer, or None when that answered an error.
    # With raise_on_error=True the error is raised instead.

    def __init__(self) -> None:
        """Called once, without arguments, when the service starts to serve this endpoint.

        One instance serves all requests of a worker process, so what is kept in self is shared
        by them; keep what belongs to one request in `state`. A change of this file, of the model
        or of the endpoint makes a new instance in a new process.
        """

    def load(self, local_file_name: Optional[str]) -> Any:
        """Called once after __init__, with the path of the downloaded model.

        The path is a folder when the model is a package of several files, and None when the
        endpoint has no model. What is returned is the model whose `predict` the engines sklearn,
        xgboost and lightgbm call; return None, or leave this method out, and they load the file
        themselves. An exception keeps the endpoint from being served, and is shown by
        `clearml-serving model list --verbose`.
        """
        return None

    def preprocess(
        self,
        body: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        """Called first. Returns what the model takes.

        `body` is the decoded JSON, a dict of fields and files for multipart/form-data, or `bytes`
        for any other request. `state` is an empty dict, made for this request and given to all
        three methods. A ValueError is answered with status 422 and its text, any other exception
        with 500, and `clearml_serving_worker.HTTPException` with a status of its own.

        A further parameter, `request=None`, gets the headers, the query and the client.
        docs/requests.md has the details.

        `collect_custom_statistics_fn` is None, or a function that takes a dict of values to be
        logged with this request (see `clearml-serving metrics --help`).
        """
        if collect_custom_statistics_fn:
            collect_custom_statistics_fn({"size": len(body) if isinstance(body, (list, dict)) else 1})
        return body

    def process(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        """Called with what preprocess returned; custom and custom_async only. Runs the model."""
        return data

    def postprocess(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        """Called last, with what the model returned. Returns the answer.

        Return what JSON can say (dict, list, text, number), a generator for a stream, or, for a
        status, headers or bytes of your own, `clearml_serving_worker.Response`.
        """
        return data

    def unload(self) -> None:
        """Called once, when the endpoint goes or is replaced, after its last request."""

"""Loads and unloads models through NVIDIA's clients: judge_model_control.py HTTP_ADDRESS GRPC_ADDRESS"""

import sys

import numpy
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

DATA = numpy.arange(16, dtype=numpy.int32).reshape(1, 16)


def main():
    for kit, address in ((over_http, sys.argv[1]), (over_grpc, sys.argv[2])):
        client = kit.InferenceServerClient(address)

        def infer(kit=kit, client=client):
            inputs = [kit.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
            for tensor in inputs:
                tensor.set_data_from_numpy(DATA)
            return client.infer("simple", inputs).as_numpy("OUTPUT0")

        assert client.is_model_ready("simple")
        client.unload_model("simple")
        assert not client.is_model_ready("simple") and client.is_server_ready()
        refused("an unloaded model", "unloaded", infer)
        assert states(client)["simple"] == "UNAVAILABLE", states(client)
        client.load_model("simple")
        assert client.is_model_ready("simple") and (infer() == 2 * DATA).all()
        client.load_model("simple")  # it is loaded
        refused("an unknown model", "failed to load", lambda client=client: client.load_model("nobody"))
        refused(
            "a configuration",
            "config",
            lambda client=client: client.load_model("simple", config='{"name": "x"}'),
        )
        # A name with versions only stands for all of them.
        client.unload_model("versions")
        assert not client.is_model_ready("versions", "1") and not client.is_model_ready("versions", "2")
        client.load_model("versions")
        assert client.is_model_ready("versions", "1") and client.is_model_ready("versions", "2")
    print("OK")


def states(client):
    index = client.get_model_repository_index()
    if isinstance(index, list):
        return {model["name"]: model["state"] for model in index}
    return {model.name: model.state for model in index.models}


def refused(what, text, ask):
    try:
        ask()
    except InferenceServerException as error:
        assert text in error.message(), (what, error.message())
        return
    raise AssertionError(f"{what} is not refused")


main()

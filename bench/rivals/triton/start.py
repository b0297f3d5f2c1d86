"""Writes the model repository of Triton, and becomes Triton.

python start.py FOLDER PORT; gRPC gets the next port.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytriton
from usercode import CASES, MODELS, WORKERS

import onnxruntime

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(double)": "TYPE_FP64", "tensor(int64)": "TYPE_INT64"}


def tensors(word: str, described: list) -> str:
    """The inputs or outputs of a model in the words of config.pbtxt; the first dimension is the batch."""
    lines = []
    for one in described:
        dims = one.shape[1:]
        text = f'name: "{one.name}" data_type: {TYPES[one.type]} dims: {dims or [1]}'
        lines.append(f"{word} {{ {text} {'' if dims else 'reshape { shape: [] }'} }}")
    return "\n".join(lines)


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    server = Path(pytriton.__file__).parent / "tritonserver"
    backend = folder / "backends/python"
    backend.mkdir(parents=True, exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / f"python_backend_stubs/{version}/triton_python_backend_stub"
    for file in (
        *(server / "backends/python").glob("*.so"),
        *(server / "backends/python").glob("*.py"),
        stub,
    ):
        shutil.copy2(file, backend)
    for case in CASES:
        path = MODELS / f"{case.removesuffix('_onnx')}.onnx"
        session = onnxruntime.InferenceSession(path)
        home = folder / "models" / case
        (home / "1").mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(__file__).parent / "model.py", home / "1")
        (home / "config.pbtxt").write_text(
            f'backend: "python" max_batch_size: 64 dynamic_batching {{ }}\n'
            f"instance_group [ {{ kind: KIND_CPU count: {WORKERS} }} ]\n"
            f'parameters {{ key: "path" value {{ string_value: "{path}" }} }}\n'
            f"{tensors('input', session.get_inputs())}\n{tensors('output', session.get_outputs())}\n"
        )
    # The stub finds its Python through PATH, and must load the library of the same Python.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    libraries = Path(pytriton.__file__).parent.parent / "nvidia_pytriton.libs"
    os.environ["LD_LIBRARY_PATH"] = f"{libraries}:{sysconfig.get_config_var('LIBDIR')}"
    binary = str(server / "bin/tritonserver")
    os.execv(
        binary,
        [
            binary,
            f"--model-repository={folder / 'models'}",
            f"--backend-directory={folder / 'backends'}",
            "--http-address=127.0.0.1",
            f"--http-port={port}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={port + 1}",
            "--allow-metrics=false",
            "--exit-timeout-secs=2",
            "--http-thread-count=2",
            "--backend-config=python,shm-default-byte-size=1048576",
        ],
    )


if __name__ == "__main__":
    main()

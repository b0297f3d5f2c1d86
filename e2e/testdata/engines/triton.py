"""Becomes a Triton server with the models beside this file.

python triton.py FOLDER HTTP-PORT GRPC-PORT; FOLDER is for what it needs while it runs.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytriton


def main() -> None:
    folder, http, grpc = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    server = Path(pytriton.__file__).parent / "tritonserver"
    backend = folder / "backends/python"
    if not backend.exists():
        backend.mkdir(parents=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        for file in (
            *(server / "backends/python").glob("*.so"),
            *(server / "backends/python").glob("*.py"),
            server / f"python_backend_stubs/{version}/triton_python_backend_stub",
        ):
            shutil.copy2(file, backend)
        shutil.copytree(Path(__file__).parent / "triton", folder / "models")
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
            f"--http-port={http}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={grpc}",
            "--allow-metrics=false",
            "--exit-timeout-secs=2",
            "--http-thread-count=2",
            "--backend-config=python,shm-default-byte-size=1048576",
        ],
    )


if __name__ == "__main__":
    main()

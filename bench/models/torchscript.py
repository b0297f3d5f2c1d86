"""Writes a layer of random weights as TorchScript: python torchscript.py FILE."""

import sys

import torch

torch.manual_seed(1)
torch.jit.script(torch.nn.Linear(10, 1)).save(sys.argv[1])

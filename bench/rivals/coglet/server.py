"""Starts coglet: python server.py PORT."""

import sys
from pathlib import Path

import coglet

if __name__ == "__main__":
    coglet.server.serve(f"{Path(__file__).parent / 'predict.py'}:Predictor", "127.0.0.1", int(sys.argv[1]))

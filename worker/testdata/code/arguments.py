"""Parses arguments when it is imported, one of which is required."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--folder", required=True)
parser.parse_args()

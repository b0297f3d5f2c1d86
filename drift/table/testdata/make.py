"""Writes the Parquet files and the compressed CSV file of the tests, as pandas does.

.venv-drift/bin/python drift/table/testdata/make.py
"""

import pathlib

import numpy as np
import pandas as pd

here = pathlib.Path(__file__).parent
n = 300
rng = np.random.default_rng(5)
frame = pd.DataFrame(
    {
        "age": rng.integers(18, 80, n),
        "income": rng.gamma(2, 10000, n).round(2),
        "animal": rng.choice(["cat", "dog", None], n, p=[0.6, 0.3, 0.1]),
        "member": rng.random(n) < 0.25,
        "at": pd.date_range("2026-01-01", periods=n, freq="30min"),
        "score": rng.random(n).astype("float32"),
        "tags": [["a", "b"]] * n,
        "never": np.full(n, np.nan),
    }
)
frame.loc[::10, "income"] = np.nan
frame.loc[3, "score"] = np.inf
frame.to_parquet(here / "snappy.parquet", compression="snappy", row_group_size=100)
frame.drop(columns=["tags"]).to_parquet(here / "zstd.parquet", compression="zstd")
frame.drop(columns=["tags"]).to_csv(here / "frame.csv.gz", compression={"method": "gzip", "mtime": 1})

"""Prints the rows of a request log as pandas reads them: read_log.py FOLDER."""

import json
import sys
from pathlib import Path

import pandas

files = sorted(Path(sys.argv[1]).rglob("*.parquet"))
rows = pandas.concat([pandas.read_parquet(file) for file in files]) if files else pandas.DataFrame()
json.dump(
    {
        "files": len(files),
        "types": {name: str(kind) for name, kind in rows.dtypes.items()},
        "rows": [
            {name: None if pandas.isna(value) else str(value) for name, value in row.items()}
            for row in rows.to_dict("records")
        ],
    },
    sys.stdout,
)

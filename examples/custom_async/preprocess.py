"""Custom code that waits for other systems, on one event loop: many requests at a time, one process.

A request names patients; their measurements are fetched from a table while other requests run.
Here the table is a file of the model, so that the example needs no server. A database or a
feature store on the network is queried in the same way.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any, Callable, Optional

import joblib


class Preprocess:
    """Answers `{"patients": [17, 21]}` with `{"malignant": [0.99, 0.02]}`."""

    def load(self, local_file_name: str) -> Any:
        """Called once. The model is a package, so this is the path of a folder."""
        folder = Path(local_file_name)
        self._table = f"file:{folder / 'features.sqlite'}?mode=ro"
        self._model = joblib.load(folder / "model.pkl")
        return self._model

    async def preprocess(
        self,
        body: dict,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> list:
        patients = body.get("patients")
        if not isinstance(patients, list) or not patients:
            # A ValueError becomes the client's answer: status 422 with this text.
            raise ValueError("the request needs 'patients', a list of their numbers")
        # All at once; gather keeps the order.
        return await asyncio.gather(*(asyncio.to_thread(self._features, patient) for patient in patients))

    def _features(self, patient: int) -> tuple:
        database = sqlite3.connect(self._table, uri=True)
        try:
            row = database.execute("SELECT * FROM features WHERE patient = ?", (patient,)).fetchone()
        finally:
            database.close()
        if row is None:
            raise ValueError(f"there is no patient {patient!r}")
        return row[1:]

    async def process(
        self,
        data: list,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> Any:
        # Short work may run on the loop itself; long work belongs in asyncio.to_thread, too.
        return self._model.predict_proba(data)[:, 1]

    async def postprocess(
        self,
        data: Any,
        state: dict,
        collect_custom_statistics_fn: Optional[Callable[[dict], None]] = None,
    ) -> dict:
        return {"malignant": data.tolist()}

"""Sends its own functions, classes and itself to other processes, by every library that does so."""

import concurrent.futures
import dataclasses
import multiprocessing

from clearml_serving_worker import Response

FACTOR = 2


@dataclasses.dataclass
class Point:
    x: int


def double(x):
    return FACTOR * x


def halve(point: Point) -> Point:
    Response("importable")
    return Point(point.x // 2)


class Preprocess:
    def load(self, path):
        self.offset = 0

    def shift(self, x):
        return x + self.offset

    def process(self, data, state, collect=None):
        xs = data["x"]
        tasks = [(double, x) for x in xs] + [(self.shift, x) for x in xs]
        points = [Point(x) for x in xs]
        how, _, method = data["by"].partition(" ")
        if how == "joblib":
            import joblib

            parallel = joblib.Parallel(n_jobs=2)
            found = parallel(joblib.delayed(f)(x) for f, x in tasks)
            halves = parallel(joblib.delayed(halve)(p) for p in points)
            joblib.externals.loky.get_reusable_executor().shutdown()
        elif how == "executor":
            context = multiprocessing.get_context(method)
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                found = [pool.submit(f, x).result() for f, x in tasks]
                halves = list(pool.map(halve, points))
        else:
            with multiprocessing.get_context(method).Pool(2) as pool:
                found = [pool.apply(f, (x,)) for f, x in tasks]
                halves = pool.map(halve, points)
        assert all(type(p) is Point for p in halves), halves
        return {"found": found, "halves": [p.x for p in halves]}

"""Writes what Evidently's own functions say of windows of values, as evidently.json.

    make drift-evidently

Each window is counts of a reference and of live values: the values are the bins' numbers or names, so that
Evidently sees the same bins. "raw" are windows of numbers, which Evidently bins itself.
"""

import json
import pathlib
import sys
import warnings

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import (
    chi_stat_test,
    jensenshannon_stat_test,
    ks_stat_test,
    psi_stat_test,
    wasserstein_stat_test,
)
from evidently.legacy.core import ColumnType

warnings.filterwarnings("ignore")
rng = np.random.default_rng(11)


def score(test, reference, current, kind):
    result = test(reference, current, kind, 0.1)
    return float(result.drift_score)


def counts(shares, n):
    shares = np.array(shares, dtype=float)
    return rng.multinomial(n, shares / shares.sum())


def category_window(p, n, q, m):
    a, b = counts(p, n), counts(q, m)
    words = np.array([f"word {i}" for i in range(len(p))])
    reference, current = pd.Series(np.repeat(words, a)), pd.Series(np.repeat(words, b))
    kind = ColumnType.Categorical
    out = {
        "reference": a.tolist(),
        "live": b.tolist(),
        "psi": score(psi_stat_test, reference, current, kind),
        "jensen_shannon": score(jensenshannon_stat_test, reference, current, kind),
    }
    if (a > 0).all():
        out["chi2"] = score(chi_stat_test, reference, current, kind)
    return out


def number_window(n, m, shift, bins):
    edges = np.linspace(-2, 2, bins - 1)
    centers = np.sort(rng.normal(size=bins))
    a = np.searchsorted(edges, rng.normal(size=n), side="right")
    b = np.searchsorted(edges, rng.normal(shift, 1, size=m), side="right")
    reference, current = pd.Series(centers[a]), pd.Series(centers[b])
    kind = ColumnType.Numerical
    return {
        "reference": np.bincount(a, minlength=bins).tolist(),
        "live": np.bincount(b, minlength=bins).tolist(),
        "centers": centers.tolist(),
        "std": float(np.std(reference)),
        "psi": score(psi_stat_test, reference, current, kind),
        "jensen_shannon": score(jensenshannon_stat_test, reference, current, kind),
        "wasserstein": score(wasserstein_stat_test, reference, current, kind),
        # Evidently asks scipy for an exact p value where a window is small; ours is for large ones.
        "ks": score(ks_stat_test, reference, current, kind) if max(n, m) > 10000 else None,
    }


def raw_window(n, m, shift):
    reference, current = pd.Series(rng.gamma(2, 1, n)), pd.Series(rng.gamma(2, 1, m) + shift)
    kind = ColumnType.Numerical
    return {
        "reference": reference.tolist(),
        "live": current.tolist(),
        "psi": score(psi_stat_test, reference, current, kind),
        "jensen_shannon": score(jensenshannon_stat_test, reference, current, kind),
        "wasserstein": score(wasserstein_stat_test, reference, current, kind),
    }


category = [
    category_window(p, n, q, m)
    for p, q in (
        ([0.5, 0.3, 0.2], [0.4, 0.35, 0.25]),
        ([0.6, 0.3, 0.1, 0.0], [0.3, 0.3, 0.1, 0.3]),
        ([0.7, 0.2999, 0.0001, 0.0], [0.69, 0.3, 0.0001, 0.01]),
        (rng.random(21).tolist(), rng.random(21).tolist()),
    )
    for n, m in ((500, 100), (5000, 300), (50000, 5000))
]
number = [
    number_window(n, m, s, b)
    for n, m in ((500, 100), (50000, 5000), (20000, 300))
    for s in (0.0, 0.4)
    for b in (10, 11)
]
raw = [raw_window(*w) for w in ((200, 150, 0.0), (200, 150, 0.5), (600, 300, 0.05))]
text = json.dumps({"category": category, "number": number, "raw": raw}, separators=(",", ":")) + "\n"
path = pathlib.Path(__file__).parent / "evidently.json"
if "--check" in sys.argv:
    stored, now = json.loads(path.read_text()), json.loads(text)
    for kind in now:
        for a, b in zip(stored[kind], now[kind]):
            for key in b:
                np.testing.assert_allclose(
                    np.array(a[key], dtype=float), np.array(b[key], dtype=float), rtol=1e-9, atol=1e-12
                )
    print(f"evidently.json is what Evidently says of {sum(map(len, now.values()))} windows")
else:
    path.write_text(text)

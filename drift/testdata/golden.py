"""Computes golden.json anew: the formulas of package drift, written a second time with numpy and scipy.

make drift-golden
"""

import json
import pathlib

import numpy as np
from scipy import stats
from scipy.spatial import distance

rng = np.random.default_rng(7)


def bins_of_number(values):
    present = values[np.isfinite(values)]
    distinct = np.unique(present)
    if len(distinct) <= 10:
        edges = np.append(distinct, np.nextafter(distinct[-1], np.inf))
    else:
        edges = np.unique(np.quantile(present, np.arange(1, 10) / 10))
    index = np.searchsorted(edges, present, side="right")
    counts = np.bincount(index, minlength=len(edges) + 1)
    centers = [
        float(present[index == b].mean()) if (index == b).any() else None for b in range(len(edges) + 1)
    ]
    return {
        "values": [None if not np.isfinite(v) else float(v) for v in values],
        "edges": edges.tolist(),
        "counts": [*counts.tolist(), int(len(values) - len(present))],
        "centers": centers,
        "std": float(present.std()),
        "min": float(present.min()),
        "max": float(present.max()),
    }


def number_references():
    normal = rng.normal(size=997)
    holes = rng.exponential(size=500)
    holes[::7] = np.nan
    holes[3] = np.inf
    heavy = np.where(rng.random(400) < 0.6, 0.0, rng.normal(5, 1, 400))
    return [
        bins_of_number(v)
        for v in (
            normal,
            holes,
            heavy,
            rng.integers(0, 3, 300).astype(float),
            rng.integers(0, 40, 1000).astype(float),
            np.full(50, 2.5),
        )
    ]


def rho(counts, k, least):
    positive = np.count_nonzero(counts)
    ball = stats.chi2.ppf(1 - 0.01 / k, positive - 1) / (2 * counts.sum()) if positive > 1 else 0.0
    return max(ball, least / 2)


class Detector:
    lives = np.array([250.0, 1000.0, 4000.0, 16000.0])

    def __init__(self, reference, k, least):
        self.p = reference / reference.sum()
        self.rho = rho(reference, k, least)
        self.decayed = np.zeros((4, len(reference)))
        self.score = np.zeros(4)
        self.squares = 0.0

    def batch(self, c):
        p, bins, m = self.p, len(self.p), c.sum()
        has = p > 0
        for h in range(4):
            d = self.decayed[h]
            q = (bins * p + d + 1 / bins) / (bins + d.sum() + 1)
            k = np.sum(p[has] * np.log(p[has] / q[has]))
            gain = 0.0
            if k > self.rho:
                low, high = 0.0, 1.0
                for _ in range(30):
                    t = (low + high) / 2
                    if -np.sum(p[has] * np.log(1 + t * (q[has] / p[has] - 1))) < self.rho:
                        low = t
                    else:
                        high = t
                nearest = (1 - high) * p + high * q
                gain = float(np.sum(c[c > 0] * np.log(q[c > 0] / nearest[c > 0])))
            self.score[h] = max(0.0, self.score[h]) + gain
            self.decayed[h] = d * 0.5 ** (m / self.lives[h]) + c
        self.squares = self.squares * 0.25 ** (m / self.lives[2]) + m
        return float(np.logaddexp.reduce(self.score) - np.log(4))

    def shown(self):
        d = self.decayed[2]
        rows = d.sum() ** 2 / self.squares
        q = d / d.sum()
        return np.where(q < 0.5 / rows, 0, q), rows


def filled(p):
    least = p[p > 0].min()
    return np.where(p == 0, least / 1e6 if least <= 0.0001 else 0.0001, p)


def psi(p, q):
    used = (p > 0) | (q > 0)
    p, q = filled(p[used]), filled(q[used])
    return float(np.sum((p - q) * np.log(p / q)))


def detector_run(reference, live, batches, k, least):
    reference = np.array(reference)
    d = Detector(reference, k, least)
    drawn, evidence, distances = [], [], []
    for i in range(batches):
        p = np.array(live[min(i * len(live) // batches, len(live) - 1)])
        c = rng.multinomial(int(rng.integers(100, 400)), p / p.sum())
        drawn.append(c.tolist())
        evidence.append(d.batch(c))
        q, rows = d.shown()
        positive = np.count_nonzero(reference)
        variance = 1 / rows + 1 / reference.sum()
        distances.append(
            {
                "psi": max(psi(d.p, q) - (positive - 1) * variance, 0.0),
                "noise": float(stats.chi2.ppf(0.95, positive - 1) * variance),
                "jensen_shannon": float(distance.jensenshannon(d.p, q)),
                "rows": float(rows),
                "chi2": float(
                    stats.chi2.sf(np.sum(rows * (q - d.p)[d.p > 0] ** 2 / d.p[d.p > 0]), positive - 1)
                )
                if not q[d.p == 0].any()
                else 0.0,
            }
        )
    return {
        "reference": reference.tolist(),
        "k": k,
        "least": least,
        "rho": d.rho,
        "batches": drawn,
        "evidence": evidence,
        "distances": distances,
    }


def windows():
    """Counts of two windows of numbers: what scipy says of the values themselves."""
    out = []
    for n, m, shift in (
        (50, 30, 0.0),
        (120, 90, 0.4),
        (1000, 500, 0.1),
        (5000, 3000, 0.05),
        (20000, 700, 0.3),
    ):
        edges = np.linspace(-2, 2, 10)
        centers = np.linspace(-2.2, 2.2, 11)
        a = np.searchsorted(edges, rng.normal(size=n), side="right")
        b = np.searchsorted(edges, rng.normal(shift, 1, size=m), side="right")
        out.append(
            {
                "reference": np.bincount(a, minlength=11).tolist(),
                "live": np.bincount(b, minlength=11).tolist(),
                "centers": centers.tolist(),
                "ks": float(stats.ks_2samp(a, b, mode="asymp").pvalue),
                "wasserstein": float(stats.wasserstein_distance(centers[a], centers[b])),
            }
        )
    return out


tilt = [0.1 * (1 + 0.3 * (i - 4.5) / 4.5) for i in range(10)]
golden = {
    "references": number_references(),
    "quantiles": [
        {"p": p, "freedom": f, "quantile": float(stats.chi2.ppf(p, f))}
        for p in (0.5, 0.95, 0.99, 1 - 0.01 / 8, 1 - 0.01 / 500)
        for f in (1, 2, 9, 10, 49)
    ],
    "detectors": [
        detector_run([500] * 10 + [0], [[0.1] * 10 + [0], [*tilt, 0]], 60, 1, 0.01),
        detector_run(
            [50, 40, 5, 5, 0, 0],
            [[0.5, 0.4, 0.05, 0.05, 0, 0], [0.3, 0.3, 0.05, 0.05, 0.2, 0.1]],
            30,
            8,
            0.01,
        ),
        detector_run(
            [25000, 15000, 9990, 10], [[0.5, 0.3, 0.1998, 0.0002], [0.45, 0.3, 0.2, 0.05]], 40, 50, 0.0
        ),
    ],
    "windows": windows(),
    "kolmogorov": [
        {"n": n, "d": d, "tail": float(stats.kstwo.sf(d, n))}
        for n in (1, 2, 10, 57, 140, 141, 500, 10000)
        for d in (0.01, 0.03, 0.1, 0.3, 0.6, 0.95)
    ],
}
(pathlib.Path(__file__).parent / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")

"""Computes golden.json from the formulas, independently of the Go code: python golden.py > golden.json"""

import json
import math
import random

RISKS = [1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 6, 10, 20, 50, 200, 1000]
FRACTIONS = [0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99]
WEIGHTS = {"errors": 0.3, "client_errors": 0.2, "slower_p50": 0.3, "slower_p90": 0.1, "slower_p99": 0.1}
QUANTILES = {"slower_p50": 0.5, "slower_p90": 0.9, "slower_p99": 0.99}
DELTAS = {
    "errors": [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1],
    "slower_p90": [0.05, 0.1, 0.2, 0.5],
    "slower_p99": [0.01, 0.02, 0.05, 0.1],
}


def slack(tau):
    """The last bin of the canary that is not slow: one more than the baseline's, and 2 ms."""
    seconds = 1e-4 * 1.04 ** (tau + 1) + 0.002
    return min(math.ceil(math.log(seconds / 1e-4) / math.log(1.04)), 399)


def mixture(logs):
    top = max(logs)
    return top + math.log(sum(math.exp(x - top) for x in logs) / len(logs))


def one_sided(w, r, r0, c, b):
    return c * math.log(r / r0) - (c + b) * math.log((1 - w + w * r) / (1 - w + w * r0))


def two_sided(w, p, r, slow_c, slow_b, fast_c, fast_b):
    r = min(r, 1 + 0.95 * (1 / p - 1))
    fast = (1 - p * r) / (1 - p)
    return (
        slow_c * math.log(r)
        - (slow_c + slow_b) * math.log(1 - w + w * r)
        + fast_c * math.log(fast)
        - (fast_c + fast_b) * math.log(1 - w + w * fast)
    )


def bet(w, delta, f, e_c, e_b, none):
    size = f / (1 / w - delta)
    return (
        e_c * math.log(1 + size * (delta - 1 / w))
        + e_b * math.log(1 + size * (delta + 1 / (1 - w)))
        + none * math.log(1 + size * delta)
    )


def run(seed, tolerance, rates, shift, batches):
    """One stream of batches with its evidence at the end."""
    rng = random.Random(seed)
    history, seen = [], 0  # (bin, weight)
    against = {}
    for rule in WEIGHTS:
        risks = RISKS[: 15 if "errors" in rule else 13]
        against[rule] = [0.0] * len([r for r in risks if r > tolerance])
    promotion = {c: [[0.0] * len(FRACTIONS) for _ in DELTAS[c]] for c in DELTAS}
    recorded = []
    for number in range(batches):
        w = [0.05, 0.1, 0.5][number * 3 // batches]
        arms = []
        for share, rate, more in ((w, rates[0], shift), (1 - w, rates[1], 1.0)):
            n = sum(rng.random() < share for _ in range(40))
            errors = sum(rng.random() < rate for _ in range(n))
            client = sum(rng.random() < 0.02 for _ in range(n - errors))
            bins = {}
            for _ in range(n - errors - client):
                seconds = 0.05 * math.exp(0.5 * rng.gauss(0, 1)) * more
                i = min(max(math.ceil(math.log(seconds / 1e-4) / math.log(1.04)), 0), 399)
                bins[i] = bins.get(i, 0) + 1
            arms.append({"requests": n, "errors": errors, "client_errors": client, "latencies": bins})
        c, b = arms
        recorded.append({"share": w, "canary": c, "baseline": b})
        for rule, name in (("errors", "errors"), ("client_errors", "client_errors")):
            for k, r in enumerate(r for r in RISKS if r > tolerance):
                against[rule][k] += min(one_sided(w, r, tolerance, c[name], b[name]), math.log(10))
        for i, delta in enumerate(DELTAS["errors"]):
            for k, f in enumerate(FRACTIONS):
                failed = [arm["errors"] + arm["client_errors"] for arm in arms]
                none = c["requests"] + b["requests"] - sum(failed)
                promotion["errors"][i][k] += bet(w, delta, f, *failed, none)
        if seen >= 500:
            total = sum(weight for _, weight in history)
            for rule, quantile in QUANTILES.items():
                cumulated, tau = 0.0, 399
                for i in range(400):
                    cumulated += sum(weight for bin_, weight in history if bin_ == i)
                    if cumulated >= quantile * total:
                        tau = i
                        break
                p = max(1 - cumulated / total, 1e-4)
                ends = (slack(tau), tau)
                both = list(zip(arms, ends))
                slow = [sum(n for i, n in arm["latencies"].items() if i > end) for arm, end in both]
                fast = [sum(n for i, n in arm["latencies"].items() if i <= end) for arm, end in both]
                for k, r in enumerate(r for r in RISKS[:13] if r > tolerance):
                    most = math.log(6 if rule == "slower_p50" else 3)
                    if tolerance > 1:
                        against[rule][k] += min(one_sided(w, r, tolerance, *slow), most)
                    else:
                        against[rule][k] += min(two_sided(w, p, r, *slow, *fast), most)
                for i, delta in enumerate(DELTAS.get(rule, [])):
                    for k, f in enumerate(FRACTIONS):
                        promotion[rule][i][k] += bet(w, delta, f, *slow, sum(fast))
        history = [(i, weight * 0.98 ** (0.1 / 60)) for i, weight in history]
        for i, n in b["latencies"].items():
            history += [(i, 1.0)] * n
            seen += n
    parts = {rule: mixture(logs) for rule, logs in against.items()}
    total = math.log(sum(WEIGHTS[rule] * math.exp(log) for rule, log in parts.items()))
    return {
        "tolerance": tolerance,
        "batches": recorded,
        "rules": parts,
        "evidence": total,
        "clauses": {c: [mixture(logs) for logs in rows] for c, rows in promotion.items()},
    }


print(
    json.dumps(
        [
            run(1, 1.0, (0.01, 0.01), 1.0, 60),
            run(2, 1.0, (0.06, 0.01), 1.0, 60),
            run(3, 1.0, (0.01, 0.01), 1.5, 60),
            run(4, 1.25, (0.05, 0.02), 1.2, 60),
        ]
    )
)

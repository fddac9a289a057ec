"""A sweep's search spaces (grid and random), the filters of `Api().runs`, sampled histories."""

import itertools
import json
import math
import re


def grid(parameters):
    """All settings of a grid, in order; nested `parameters` nest."""
    axes = []
    for name, p in parameters.items():
        if "parameters" in p:
            values = grid(p["parameters"])
        elif "value" in p or "values" in p:
            values = p.get("values", [p.get("value")])
        elif "q" in p:
            values = [p["min"] + i * p["q"] for i in range(int((p["max"] - p["min"]) / p["q"] + 1e-9) + 1)]
        elif isinstance(p.get("min"), int) and isinstance(p.get("max"), int):
            values = range(p["min"], p["max"] + 1)
        else:
            raise ValueError(f"grid search needs values, q or integer bounds for {name!r}")
        axes.append([(name, v) for v in values])
    return [dict(c) for c in itertools.product(*axes)]


def draw(parameters, rng):
    """One setting of a random search."""
    out = {}
    for name, p in parameters.items():
        dist, lo, hi = p.get("distribution", ""), p.get("min"), p.get("max")
        if "parameters" in p:
            out[name] = draw(p["parameters"], rng)
        elif "value" in p or "values" in p:
            out[name] = rng.choices(p.get("values", [p.get("value")]), p.get("probabilities"))[0]
        elif dist.endswith("normal"):
            v = rng.gauss(p.get("mu", 0), p.get("sigma", 1))
            out[name] = math.exp(v) if "log" in dist else v
        elif "log_uniform" in dist:
            lo, hi = (math.log(lo), math.log(hi)) if dist.endswith("_values") else (lo, hi)
            out[name] = math.exp(rng.uniform(lo, hi))
        elif isinstance(lo, int) and isinstance(hi, int) and "q" not in p:
            out[name] = rng.randint(lo, hi)
        else:
            out[name] = rng.uniform(lo, hi)
        if "q" in p:
            out[name] = round(out[name] / p["q"]) * p["q"]
    return out


FIELDS = {
    "display_name": "displayName",
    "created_at": "createdAt",
    "heartbeat_at": "heartbeatAt",
    "jobType": "job_type",
    "username": "user",
}


def lookup(run, key):
    """A run's value under config.x[.value], summary_metrics.y, state, tags, ..."""
    head, _, rest = key.partition(".")
    if head not in ("config", "summary_metrics", "summaryMetrics"):
        return run.get(FIELDS.get(head, head))
    node = {k: v.get("value") for k, v in run["config"].items()} if head == "config" else run["summary"]
    for part in [rest] if rest in node else rest.removesuffix(".value").split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def equal(have, want):
    return want in have if isinstance(have, list) and not isinstance(want, list) else have == want


COMPARE = {
    "$eq": equal,
    "$ne": lambda h, w: not equal(h, w),
    "$exists": lambda h, w: (h is not None) == bool(w),
    "$regex": lambda h, w: isinstance(h, str) and re.search(w, h) is not None,
    "$in": lambda h, w: any(equal(h, x) for x in w),
    "$nin": lambda h, w: not any(equal(h, x) for x in w),
    "$lt": lambda h, w: h is not None and h < w,
    "$lte": lambda h, w: h is not None and h <= w,
    "$gt": lambda h, w: h is not None and h > w,
    "$gte": lambda h, w: h is not None and h >= w,
}


def matches(run, flt):
    for key, want in flt.items():
        if key in ("$and", "$or"):
            ok = (all if key == "$and" else any)(matches(run, f) for f in want)
        else:
            tests = want if isinstance(want, dict) else {"$eq": want}
            ok = all(COMPARE[op](lookup(run, key), w) for op, w in tests.items())
        if not ok:
            return False
    return True


def sample(rows, n):
    return rows if not n or len(rows) <= n else [rows[i * (len(rows) - 1) // max(n - 1, 1)] for i in range(n)]


def sampled_history(rows, specs):
    out = []
    for spec in map(json.loads, [specs] if isinstance(specs, str) else specs):
        keys = spec.get("keys") or []
        have = [{k: r[k] for k in keys} if keys else r for r in rows if all(k in r for k in keys)]
        out.append(sample(have, spec.get("samples")))
    return out

"""The stand-in's state: projects, runs, sweeps and agents, kept in one file; and when they have ended."""

import base64
import json
import math
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

LOCK = threading.RLock()
DB = {"projects": {}, "runs": {}, "sweeps": {}, "agents": {}}
ROOT, BASE, ENTITY, KEY, LOG = Path("."), "", "local", None, None  # set by the command line
LIVE, CRASHED_AFTER = ("pending", "running", "preempting"), 300


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def gid(kind, *parts):
    return base64.b64encode(":".join((kind, "v1", *parts)).encode()).decode()


def save():
    tmp = ROOT / "state.json.tmp"
    tmp.write_text(json.dumps(DB))
    tmp.replace(ROOT / "state.json")


def project_key(entity, name):
    key = f"{entity or ENTITY}/{name or 'uncategorized'}"
    DB["projects"].setdefault(key, {"n": len(DB["projects"]) + 1, "createdAt": now()})
    return key


def get_run(pkey, name):
    """The run; created as pending if it does not exist."""
    entity, project = pkey.split("/", 1)
    return DB["runs"].setdefault(
        f"{pkey}/{name}",
        {
            "id": gid("Run", name, project, entity),
            "project": pkey,
            "name": name,
            "displayName": name,
            "state": "pending",
            "sweep": None,
            "agent": None,
            "config": {},
            "summary": {},
            "history": [],
            "events": [],
            "log": [],
            "tags": [],
            "group": None,
            "job_type": None,
            "notes": None,
            "description": None,
            "user": ENTITY,
            "createdAt": now(),
            "heartbeatAt": now(),
            "beat": time.time(),
            "stop": False,
            "exitcode": None,
        },
    )


def by_id(table, ref):
    found = next((x for x in DB[table].values() if ref in (x["id"], x["name"])), None)
    if found is None:
        raise KeyError(f"no {table[:-1]} {ref!r}")
    return found


def total(sweep):
    n = math.inf if sweep["grid"] is None else len(sweep["grid"])
    return min(n, sweep["config"].get("run_cap") or n)


def settle():
    """Mark runs without a heartbeat as crashed, and sweeps with nothing left as finished."""
    live = set()
    for run in DB["runs"].values():
        if run["state"] in LIVE and time.time() - run["beat"] > CRASHED_AFTER:
            run["state"] = "crashed"
        if run["state"] in (*LIVE, "preempted"):
            live.add(run["sweep"])
    for sweep in DB["sweeps"].values():
        if sweep["state"] == "RUNNING" and sweep["next"] >= total(sweep) and sweep["name"] not in live:
            sweep["state"] = "FINISHED"

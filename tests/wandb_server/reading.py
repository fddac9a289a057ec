"""What clients may read, following the fields of W&B's GraphQL."""

import base64
import fnmatch
import hashlib
import json
import math
from urllib.parse import quote

import state
from search import lookup, matches, sample, sampled_history
from state import DB, by_id, gid, now, project_key, total


def find_runs(pkey, filters=None, order=None):
    runs = [
        r for r in DB["runs"].values() if r["project"] == pkey and matches(r, json.loads(filters or "{}"))
    ]
    for part in reversed((order or "+created_at").split(",")):
        key = part.strip().lstrip("+-")
        have = [r for r in runs if isinstance(lookup(r, key), (int, float, str))]
        rest = [r for r in runs if not isinstance(lookup(r, key), (int, float, str))]
        runs = sorted(have, key=lambda r: lookup(r, key), reverse=part.strip().startswith("-")) + rest
    return runs


def page(nodes, make=lambda n: n, first=None, after=None, last=None, **_):
    start = int(after) if after else max(0, len(nodes) - last) if last else 0
    stop = min(len(nodes), start + int(first)) if first else len(nodes)
    edges = [{"node": make(n), "cursor": str(start + i + 1)} for i, n in enumerate(nodes[start:stop])]
    return {
        "edges": edges,
        "totalCount": len(nodes),
        "pageInfo": {"__typename": "PageInfo", "endCursor": str(stop), "hasNextPage": stop < len(nodes)},
    }


def user_node():
    return {
        "id": gid("User", state.ENTITY),
        "name": state.ENTITY,
        "username": state.ENTITY,
        "entity": state.ENTITY,
        "flags": "{}",
        "email": f"{state.ENTITY}@localhost",
        "admin": False,
        "apiKeys": page([]),
        "teams": page([]),
    }


def files_of(run, names=None, pattern=None, **pages):
    root, nodes = state.ROOT / "files" / run["project"] / run["name"], []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if (not names or name in names) and fnmatch.fnmatch(name, (pattern or "%").replace("%", "*")):
            url = f"{state.BASE}/storage/{run['project']}/{run['name']}/{quote(name)}"
            nodes.append(
                {
                    "id": gid("File", name),
                    "name": name,
                    "directUrl": url,
                    "url": url,
                    "sizeBytes": path.stat().st_size,
                    "mimetype": "",
                    "updatedAt": now(),
                    "md5": base64.b64encode(hashlib.md5(path.read_bytes()).digest()).decode(),
                }
            )
    return page(nodes, **pages)


def run_node(run):
    rows = [json.loads(line) for line in run["history"] if line]
    log = [{"number": i, "line": line} for i, line in enumerate(run["log"])]
    return {
        **run,
        "__typename": "Run",
        "sweepName": run["sweep"],
        "jobType": run["job_type"],
        "user": user_node(),
        "projectId": DB["projects"][run["project"]]["n"],
        "project": lambda: project_node(run["project"]),
        "config": json.dumps(run["config"]),
        "summaryMetrics": json.dumps(run["summary"]),
        "systemMetrics": "{}",
        "readOnly": False,
        "wandbConfig": '{"t": 1}',
        "shouldStop": run["stop"],
        "stopped": run["stop"],
        "failed": run["state"] == "failed",
        "running": run["state"] == "running",
        "historyLineCount": len(run["history"]),
        "logLineCount": len(log),
        "eventsLineCount": len(run["events"]),
        "historyTail": json.dumps(run["history"][-1:]),
        "eventsTail": json.dumps(run["events"][-1:]),
        "historyKeys": {
            "lastStep": len(rows) - 1,
            "keys": {k: {} for k in sorted({k for r in rows for k in r})},
        },
        "sampledHistory": lambda specs: sampled_history(rows, specs),
        "history": lambda samples=None, minStep=0, maxStep=math.inf: sample(
            [json.dumps(r) for r in rows if minStep <= r.get("_step", 0) < maxStep], samples
        ),
        "events": lambda samples=None: sample(run["events"], samples),
        "parquetHistory": lambda liveKeys=(): {
            "parquetUrls": [],
            "liveData": [r for r in rows if all(k in r for k in liveKeys)],
        },
        "logLines": lambda **pages: page(log, **pages),
        "files": lambda **kw: files_of(run, **kw),
        "fileCount": lambda: files_of(run)["totalCount"],
    }


def sweep_node(sweep):
    runs = [r for r in DB["runs"].values() if r["sweep"] == sweep["name"]]
    agents = [a for a in DB["agents"].values() if a["sweep"] == sweep["name"]]
    metric = sweep["config"].get("metric") or {}
    values = [v for r in runs if isinstance(v := r["summary"].get(metric.get("name")), (int, float))]
    return {
        **sweep,
        "__typename": "Sweep",
        "config": sweep["yaml"],
        "method": sweep["config"]["method"],
        "project": project_node(sweep["project"]),
        "runCount": len(runs),
        "runCountExpected": None if total(sweep) == math.inf else total(sweep),
        "bestLoss": (max if metric.get("goal") == "maximize" else min)(values, default=None),
        "runs": lambda **pages: page(runs, run_node, **pages),
        "agents": lambda: page(agents, agent_node),
        "agent": lambda agentName: agent_node(by_id("agents", agentName)),
    }


def agent_node(agent):
    runs = [r for r in DB["runs"].values() if r["agent"] == agent["id"]]
    return {**agent, "totalRuns": len(runs), "runs": lambda **pages: page(runs, run_node, **pages)}


def project_node(pkey):
    if pkey not in DB["projects"]:
        return None
    entity, name = pkey.split("/", 1)
    runs, info = DB["runs"], DB["projects"][pkey]
    sweeps = [s for s in DB["sweeps"].values() if s["project"] == pkey]

    def bucket(name, **_):  # asked when resuming: a pending run does not exist yet
        run = runs.get(f"{pkey}/{name}")
        return run_node(run) if run and run["state"] != "pending" else None

    return {
        "__typename": "Project",
        "id": gid("Project", name, entity),
        "name": name,
        "entityName": entity,
        "entity": {"id": gid("Entity", entity), "name": entity},
        "internalId": info["n"],
        "createdAt": info["createdAt"],
        "readOnly": False,
        "isBenchmark": False,
        "user": user_node(),
        "run": lambda name: run_node(runs[f"{pkey}/{name}"]) if f"{pkey}/{name}" in runs else None,
        "bucket": bucket,
        "runCount": lambda filters=None: len(find_runs(pkey, filters)),
        "runs": lambda filters=None, order=None, **pages: page(
            find_runs(pkey, filters, order), run_node, **pages
        ),
        "totalSweeps": len(sweeps),
        "sweeps": lambda **pages: page(sweeps, sweep_node, **pages),
        "sweep": lambda sweepName: next((sweep_node(s) for s in sweeps if s["name"] == sweepName), None),
    }


QUERY = {
    "viewer": user_node,
    "serverInfo": lambda: {"features": []},  # no optional features, so clients use the plain requests
    "entity": lambda name=None: {
        "id": gid("Entity", name or state.ENTITY),
        "name": name or state.ENTITY,
        "isTeam": False,
    },
    "organization": lambda **_: {"featureFlags": []},
    "project": lambda name=None, entityName=None: project_node(f"{entityName or state.ENTITY}/{name}"),
    "model": lambda name=None, entityName=None: project_node(project_key(entityName, name)),
    "models": lambda entityName=None, **pages: page(
        [k for k in DB["projects"] if k.startswith(f"{entityName or state.ENTITY}/")], project_node, **pages
    ),
}

"""A loopback stand-in for the part of the W&B server that sweeps, runs and notebooks use.

Standard library, plus PyYAML (which wandb needs anyway). No artifacts, no bayes search.

    python server.py --port 8765 --dir wandb-state [--log requests.jsonl]
    export WANDB_BASE_URL=http://127.0.0.1:8765 WANDB_API_KEY=$(printf 'x%.0s' {1..40})
"""

import argparse
import base64
import fnmatch
import gzip
import hashlib
import json
import math
import random
import secrets
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import gql
import yaml
from search import draw, grid, lookup, matches, sample, sampled_history

LOCK = threading.RLock()
DB = {"projects": {}, "runs": {}, "sweeps": {}, "agents": {}}
ROOT, BASE, ENTITY, KEY, LOG = Path("."), "", "local", None, None
LIVE, CRASHED_AFTER = ("pending", "running", "preempting"), 300


# -------------------------------------------------------------------------------------- state
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
    """The run, new and pending where it is not known yet."""
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
    """Marks runs without a heartbeat as crashed, and sweeps with nothing left as finished."""
    live = set()
    for run in DB["runs"].values():
        if run["state"] in LIVE and time.time() - run["beat"] > CRASHED_AFTER:
            run["state"] = "crashed"
        if run["state"] in (*LIVE, "preempted"):
            live.add(run["sweep"])
    for sweep in DB["sweeps"].values():
        if sweep["state"] == "RUNNING" and sweep["next"] >= total(sweep) and sweep["name"] not in live:
            sweep["state"] = "FINISHED"


# ------------------------------------------------------------------- what clients may read
def find_runs(pkey, filters=None, order=None):
    runs = [r for r in DB["runs"].values() if r["project"] == pkey and matches(r, json.loads(filters or "{}"))]
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
        "id": gid("User", ENTITY),
        "name": ENTITY,
        "username": ENTITY,
        "entity": ENTITY,
        "flags": "{}",
        "email": f"{ENTITY}@localhost",
        "admin": False,
        "apiKeys": page([]),
        "teams": page([]),
    }


def files_of(run, names=None, pattern=None, **pages):
    root, nodes = ROOT / "files" / run["project"] / run["name"], []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if (not names or name in names) and fnmatch.fnmatch(name, (pattern or "%").replace("%", "*")):
            url = f"{BASE}/storage/{run['project']}/{run['name']}/{quote(name)}"
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
        "historyKeys": {"lastStep": len(rows) - 1, "keys": {k: {} for k in sorted({k for r in rows for k in r})}},
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

    def bucket(name, **_):  # asked when resuming: a run that only waits for its agent is no run yet
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
        "runs": lambda filters=None, order=None, **pages: page(find_runs(pkey, filters, order), run_node, **pages),
        "totalSweeps": len(sweeps),
        "sweeps": lambda **pages: page(sweeps, sweep_node, **pages),
        "sweep": lambda sweepName: next((sweep_node(s) for s in sweeps if s["name"] == sweepName), None),
    }


QUERY = {
    "viewer": user_node,
    "serverInfo": lambda: {"features": []},  # none of the optional features: clients take the plain paths
    "entity": lambda name=None: {"id": gid("Entity", name or ENTITY), "name": name or ENTITY, "isTeam": False},
    "organization": lambda **_: {"featureFlags": []},
    "project": lambda name=None, entityName=None: project_node(f"{entityName or ENTITY}/{name}"),
    "model": lambda name=None, entityName=None: project_node(project_key(entityName, name)),
    "models": lambda entityName=None, **pages: page(
        [k for k in DB["projects"] if k.startswith(f"{entityName or ENTITY}/")], project_node, **pages
    ),
}


# ------------------------------------------------------------------- what clients may change
def upsert_sweep(input):
    if input.get("id"):
        sweep = by_id("sweeps", input["id"])
    else:
        name = secrets.token_hex(4)
        sweep = {
            "id": gid("Sweep", name),
            "name": name,
            "state": "PENDING",
            "next": 0,
            "createdAt": now(),
            "project": project_key(input.get("entityName"), input.get("projectName")),
            "description": input.get("description"),
            "controller": None,
            "scheduler": None,
        }
    if input.get("config"):
        config = yaml.safe_load(input["config"])
        if config.get("method") not in ("grid", "random"):
            raise ValueError(f"grid and random sweeps only, not {config.get('method')!r}")
        sweep.update(
            yaml=input["config"],
            config=config,
            displayName=input.get("displayName") or config.get("name"),
            grid=grid(config["parameters"]) if config["method"] == "grid" else None,
        )
    sweep.update(state=input.get("state") or sweep["state"], updatedAt=now(), heartbeatAt=now())
    DB["sweeps"][sweep["name"]] = sweep
    return {"sweep": sweep_node(sweep), "configValidationWarnings": []}


def create_agent(input):
    sweep, n = by_id("sweeps", input["sweep"]), len(DB["agents"]) + 1
    agent = {
        "id": gid("Agent", str(n)),
        "name": f"agent-{n}",
        "host": input.get("host"),
        "sweep": sweep["name"],
        "state": "RUNNING",
        "createdAt": now(),
        "heartbeatAt": now(),
    }
    DB["agents"][agent["id"]] = agent
    sweep["state"] = "RUNNING" if sweep["state"] == "PENDING" else sweep["state"]
    return {"agent": agent_node(agent)}


def heartbeat(input):
    """Answers an agent with the `stop`s due, one `run` or `resume`, an `exit`, or nothing."""
    agent = by_id("agents", input["id"])
    sweep, running, commands = by_id("sweeps", agent["sweep"]), json.loads(input.get("runState") or "{}"), []
    agent["heartbeatAt"] = now()
    for name in running:
        run = get_run(sweep["project"], name)
        run.update(beat=time.time(), heartbeatAt=now())
        if run["stop"] or sweep["state"] == "CANCELED":
            commands.append({"type": "stop", "run_id": name})
    for run in DB["runs"].values():  # ended without a word, by a signal
        if run["agent"] == agent["id"] and run["state"] in LIVE and run["name"] not in running:
            run["state"] = "killed" if run["stop"] or sweep["state"] == "CANCELED" else "crashed"
    if not running:
        preempted = [r for r in DB["runs"].values() if r["sweep"] == sweep["name"] and r["state"] == "preempted"]
        if sweep["state"] == "RUNNING" and preempted:
            commands.append(start(sweep, agent, preempted[0], "resume"))
        elif sweep["state"] == "RUNNING" and sweep["next"] < total(sweep):
            n = sweep["next"]
            sweep["next"] += 1
            setting = (
                draw(sweep["config"]["parameters"], random.Random(f"{sweep['name']}/{n}"))
                if sweep["grid"] is None
                else sweep["grid"][n]
            )
            run = get_run(sweep["project"], secrets.token_hex(4))
            run.update(
                sweep=sweep["name"],
                config={k: {"value": v} for k, v in setting.items()},
                args={k: {"value": v} for k, v in setting.items()},
                displayName=f"{sweep['displayName'] or sweep['name']}-{n + 1}",
            )
            commands.append(start(sweep, agent, run, "run"))
        elif sweep["state"] != "PAUSED":
            agent["state"] = "FINISHED"
            commands.append({"type": "exit"})
    return {"agent": agent_node(agent), "commands": json.dumps(commands)}


def start(sweep, agent, run, kind):
    run.update(agent=agent["id"], state="pending" if kind == "run" else "running", beat=time.time())
    return {"type": kind, "run_id": run["name"], "args": run["args"], "program": sweep["config"].get("program")}


def upsert_run(input):
    update = bool(input.get("id"))  # by a notebook, of a run that may be over
    pkey = project_key(input.get("entityName"), input.get("modelName"))
    run = by_id("runs", input["id"]) if update else get_run(pkey, input.get("name") or secrets.token_hex(4))
    inserted = run["state"] == "pending"
    for key, field in {
        "displayName": "displayName",
        "groupName": "group",
        "jobType": "job_type",
        "sweep": "sweep",
        "notes": "notes",
        "description": "description",
        "tags": "tags",
        "host": "host",
    }.items():
        run[field] = run.get(field) if input.get(key) is None else input[key]
    run["config"].update(json.loads(input.get("config") or "{}"))
    run["summary"] = json.loads(input["summaryMetrics"]) if input.get("summaryMetrics") else run["summary"]
    keep = update or run["state"] == "preempting"
    run.update(state=input.get("state") or (run["state"] if keep else "running"), beat=time.time(), heartbeatAt=now())
    return {"bucket": run_node(run), "inserted": inserted}


def create_run_files(input):
    key = f"{project_key(input['entityName'], input['projectName'])}/{input['runName']}"
    return {
        "runID": gid("Run", input["runName"]),
        "uploadHeaders": [],
        "files": [{"name": f, "uploadUrl": f"{BASE}/storage/{key}/{quote(f)}"} for f in input["files"]],
    }


def stop_run(input):
    by_id("runs", input["id"])["stop"] = True
    return {"success": True}


MUTATION = {
    "upsertSweep": upsert_sweep,
    "createAgent": create_agent,
    "agentHeartbeat": heartbeat,
    "upsertBucket": upsert_run,
    "createRunFiles": create_run_files,
    "stopRun": stop_run,
}


def file_stream(entity, project, name, body):
    run = get_run(project_key(entity, project), name)
    run.update(beat=time.time(), heartbeatAt=now())
    for fname, chunk in (body.get("files") or {}).items():
        key = {"wandb-history.jsonl": "history", "wandb-events.jsonl": "events", "output.log": "log"}.get(fname)
        if fname == "wandb-summary.json":
            run["summary"] = json.loads(chunk["content"][-1])
        elif key:
            at = chunk.get("offset") or 0
            run[key] += [""] * (at - len(run[key]))
            run[key][at : at + len(chunk["content"])] = chunk["content"]
    if body.get("preempting"):
        run["state"] = "preempting"
    if body.get("complete"):
        run["exitcode"] = body.get("exitcode") or 0
        failed = "preempted" if run["state"] == "preempting" else "killed" if run["stop"] else "failed"
        run["state"] = failed if run["exitcode"] else "finished"
    return {"exitcode": None, "limits": {}, "stopped": run["stop"]}


# --------------------------------------------------------------------------------------- HTTP
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, text, *args):
        pass

    def record(self, **entry):
        if LOG:
            with LOCK, open(LOG, "a") as f:
                f.write(json.dumps({"t": round(time.time(), 3), "do": self.command, "path": self.path, **entry}) + "\n")

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def authorized(self):
        kind, _, cred = (self.headers.get("Authorization") or "").partition(" ")
        secret = base64.b64decode(cred).decode().partition(":")[2] if kind == "Basic" else cred
        return secret == KEY if KEY else len(secret) >= 40

    def stored(self):
        path = (ROOT / "files").joinpath(*[unquote(p) for p in urlsplit(self.path).path.split("/")[2:]]).resolve()
        return path if self.path.startswith("/storage/") and path.is_relative_to((ROOT / "files").resolve()) else None

    def do_POST(self):
        data, path = self.body(), [unquote(p) for p in urlsplit(self.path).path.strip("/").split("/")]
        if path != ["graphql"] and not (path[0] == "files" and path[-1] == "file_stream" and len(path) == 5):
            self.record(status=404)
            return self.reply(404, {"errors": [{"message": "no such path"}]})
        if not self.authorized():
            return self.reply(401, {"errors": [{"message": "user is not logged in"}]})
        body, status = json.loads(data or b"{}"), 200
        try:
            with LOCK:
                settle()
                if path == ["graphql"]:
                    answer = {"data": gql.execute(body["query"], body.get("variables"), QUERY, MUTATION)}
                else:
                    answer = file_stream(*path[1:4], body)
                settle()
                save()
        except Exception as e:  # 4xx, so that clients do not retry
            status = 404 if isinstance(e, KeyError) else 400
            answer = {"errors": [{"message": f"{type(e).__name__}: {e}"}]}
        self.record(status=status, client=self.headers.get("User-Agent"), body=body, answer=answer)
        self.reply(status, answer)

    def do_PUT(self):
        data, path = self.body(), self.stored()
        self.record(size=len(data))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.reply(200 if path else 404, b"", "text/plain")

    def do_GET(self):
        path = self.stored()
        found = path is not None and path.is_file()
        self.record(status=200 if found else 404)
        self.reply(200, path.read_bytes(), "application/octet-stream") if found else self.reply(404, {})


def main():
    global ROOT, BASE, ENTITY, KEY, LOG
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--port", type=int, default=8765, help="0: any free port, printed at the start")
    ap.add_argument("--dir", type=Path, default=Path("wandb-state"), help="where the state and the files are kept")
    ap.add_argument("--entity", default="local")
    ap.add_argument("--api-key", help="the one key accepted (default: any of 40 or more characters)")
    ap.add_argument("--log", help="append every request and answer to this file, one JSON object a line")
    args = ap.parse_args()
    ROOT, ENTITY, KEY, LOG = args.dir, args.entity, args.api_key, args.log
    ROOT.mkdir(parents=True, exist_ok=True)
    if (ROOT / "state.json").exists():
        DB.update(json.loads((ROOT / "state.json").read_text()))
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    server.daemon_threads = True
    BASE = f"http://127.0.0.1:{server.server_port}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(BASE, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""What clients may change: sweeps, agents and runs; and the stream of a run's history."""

import json
import random
import secrets
import time
from urllib.parse import quote

import state
import yaml
from reading import agent_node, run_node, sweep_node
from search import draw, grid
from state import DB, LIVE, by_id, get_run, gid, now, project_key, total


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
    """Answer an agent with any `stop`s, one `run` or `resume`, an `exit`, or nothing."""
    agent = by_id("agents", input["id"])
    sweep, running, commands = by_id("sweeps", agent["sweep"]), json.loads(input.get("runState") or "{}"), []
    agent["heartbeatAt"] = now()
    for name in running:
        run = get_run(sweep["project"], name)
        run.update(beat=time.time(), heartbeatAt=now())
        if run["stop"] or sweep["state"] == "CANCELED":
            commands.append({"type": "stop", "run_id": name})
    for run in DB["runs"].values():  # ended by a signal without a report
        if run["agent"] == agent["id"] and run["state"] in LIVE and run["name"] not in running:
            run["state"] = "killed" if run["stop"] or sweep["state"] == "CANCELED" else "crashed"
    if not running:
        preempted = [
            r for r in DB["runs"].values() if r["sweep"] == sweep["name"] and r["state"] == "preempted"
        ]
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
    return {
        "type": kind,
        "run_id": run["name"],
        "args": run["args"],
        "program": sweep["config"].get("program"),
    }


def upsert_run(input):
    update = bool(input.get("id"))  # by a notebook, for a run that may have finished
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
    run.update(
        state=input.get("state") or (run["state"] if keep else "running"), beat=time.time(), heartbeatAt=now()
    )
    return {"bucket": run_node(run), "inserted": inserted}


def create_run_files(input):
    key = f"{project_key(input['entityName'], input['projectName'])}/{input['runName']}"
    return {
        "runID": gid("Run", input["runName"]),
        "uploadHeaders": [],
        "files": [{"name": f, "uploadUrl": f"{state.BASE}/storage/{key}/{quote(f)}"} for f in input["files"]],
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
        key = {"wandb-history.jsonl": "history", "wandb-events.jsonl": "events", "output.log": "log"}.get(
            fname
        )
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

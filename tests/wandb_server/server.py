"""A local stand-in for the part of the W&B server that sweeps, runs and notebooks use.

Standard library, plus PyYAML (which wandb needs anyway). No artifacts, no Bayesian search.

    python server.py --port 8765 --dir wandb-state [--log requests.jsonl]
    export WANDB_BASE_URL=http://127.0.0.1:8765 WANDB_API_KEY=$(printf 'x%.0s' {1..40})
"""

import argparse
import base64
import gzip
import json
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import gql
import state
from changing import MUTATION, file_stream
from reading import QUERY
from state import DB, LOCK, save, settle


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
        if state.LOG:
            with LOCK, open(state.LOG, "a") as f:
                f.write(
                    json.dumps({"t": round(time.time(), 3), "do": self.command, "path": self.path, **entry})
                    + "\n"
                )

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def authorized(self):
        kind, _, cred = (self.headers.get("Authorization") or "").partition(" ")
        secret = base64.b64decode(cred).decode().partition(":")[2] if kind == "Basic" else cred
        return secret == state.KEY if state.KEY else len(secret) >= 40

    def stored(self):
        path = (
            (state.ROOT / "files")
            .joinpath(*[unquote(p) for p in urlsplit(self.path).path.split("/")[2:]])
            .resolve()
        )
        return (
            path
            if self.path.startswith("/storage/") and path.is_relative_to((state.ROOT / "files").resolve())
            else None
        )

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
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--port", type=int, default=8765, help="0: any free port, printed at the start")
    ap.add_argument(
        "--dir", type=Path, default=Path("wandb-state"), help="where the state and the files are kept"
    )
    ap.add_argument("--entity", default="local")
    ap.add_argument("--api-key", help="the one key accepted (default: any of 40 or more characters)")
    ap.add_argument("--log", help="append every request and answer to this file, one JSON object a line")
    args = ap.parse_args()
    state.ROOT, state.ENTITY, state.KEY, state.LOG = args.dir, args.entity, args.api_key, args.log
    state.ROOT.mkdir(parents=True, exist_ok=True)
    if (state.ROOT / "state.json").exists():
        DB.update(json.loads((state.ROOT / "state.json").read_text()))
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    server.daemon_threads = True
    state.BASE = f"http://127.0.0.1:{server.server_port}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(state.BASE, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

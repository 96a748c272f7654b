"""Sampling while things die: the server is killed and started again in the middle, the client is killed ten times.

    python -m benchmarks.serving.kills [--kills 10] [--questions 40]

A real server on localhost speaks the OpenAI protocol with the world's tiny policy behind it (`--serve`, below). First
the chains of one undisturbed run are kept. Then `dreamprm sample` runs in a process of its own that gets SIGKILL at
random moments, and is started again each time; the server gets SIGKILL twice meanwhile, and comes back after a second.
Seeds belong to chains, so the file must be the same as that of the undisturbed run, chain by chain: none lost, none
doubled, none changed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

START = [sys.executable, "-m", "benchmarks.serving.kills"]


def serve(port: int) -> None:
    """The tiny policy at /v1/chat/completions, until the process is killed."""
    import base64
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from dreamprm.choices import Device
    from dreamprm.config.build import build_policy
    from dreamprm.policy import PolicyConfig, Prefix

    policy, lock = build_policy(PolicyConfig(max_new_tokens=40), Device.cpu), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            parts = body["messages"][0]["content"]
            images = [part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"]
            question = next(part["text"] for part in parts if part["type"] == "text")
            with lock:
                prefix = Prefix(question, tuple(map(base64.b64decode, images)))
                ((text,),) = policy.sample([prefix], seed=body["seed"])
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            answer: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
            answer |= {"choices": [choice]}
            answer |= {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that was killed

    Server(("127.0.0.1", port), Handler).serve_forever()


def started(port: int) -> subprocess.Popen[bytes]:
    """A server that answers."""
    process = subprocess.Popen([*START, "--serve", str(port)])
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the server did not start")


def sample(out: Path, port: int, questions: int, num: int) -> list[str]:
    words = [sys.executable, "-m", "dreamprm", "sample", f"out={out}", f"num={num}", "data.path=world/test"]
    words += [f"data.limit={questions * 8}", f"endpoint.url=http://127.0.0.1:{port}/v1", "endpoint.model=tiny"]
    return [*words, "endpoint.concurrency=8", "endpoint.retries=12"]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.kills")
    parser.add_argument("--serve", type=int, metavar="PORT")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--num", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    if given.serve is not None:
        serve(given.serve)
        return
    rng, total = random.Random(given.seed), given.questions * given.num
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole.jsonl", Path(folder) / "killed.jsonl"
        servers = [started(port)]
        begun = time.perf_counter()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(sample(whole, port, given.questions, given.num), check=True, **quiet)
        seconds = time.perf_counter() - begun
        print(f"undisturbed: {len(rows(whole))} chains of {given.questions} questions in {seconds:.0f} s", flush=True)
        # Moments of death, in chains that are written: every client dies at a place of its own, two servers beside it.
        places = sorted(rng.sample(range(1, total - 1), given.kills))
        server_places = sorted(rng.sample(range(total // 5, total - total // 5), 2))
        deaths, server_deaths = [], []
        while True:
            process = subprocess.Popen(sample(killed, port, given.questions, given.num), **quiet)
            while process.poll() is None:
                written = killed.read_bytes().count(b"\n") if killed.exists() else 0
                if server_places and written >= server_places[0]:
                    server_places.pop(0)
                    servers[-1].send_signal(signal.SIGKILL)
                    servers[-1].wait()
                    server_deaths.append(written)
                    time.sleep(1.0)
                    servers.append(started(port))
                if places and written >= places[0]:
                    time.sleep(rng.uniform(0.0, 0.3))
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    written = killed.read_bytes().count(b"\n")
                    deaths.append(written)
                    left, rest = given.kills - len(deaths), range(written + 1, total - 1)
                    places = sorted(rng.sample(rest, min(left, len(rest))))
                time.sleep(0.01)
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                raise RuntimeError(f"the client ended with status {process.returncode}")
        servers[-1].kill()
        servers[-1].wait()
        first, second = rows(whole), rows(killed)
        same = sum(one["steps"] == two["steps"] and one["group"] == two["group"] for one, two in zip(first, second))
        per_question = Counter(row["group"] for row in second)
        print(f"clients killed (-9): {len(deaths)}, after {deaths} chains")
        print(f"servers killed (-9) and started again: {len(server_deaths)}, after {server_deaths} chains")
        lost, doubled = len(first) - same, max(0, len(second) - total)
        print(f"rows {len(second)} of {len(first)}: lost {lost}, doubled {doubled}, the same as undisturbed {same}; "
              f"chains of a question: {sorted(set(per_question.values()))}")  # fmt: skip
        if same != total or len(second) != total:
            sys.exit(1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

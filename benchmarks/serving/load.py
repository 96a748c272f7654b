"""Our server under load on localhost: `dreamprm serve` with the world's tiny PRM, asked through real sockets.

    python -m benchmarks.serving.load [--seconds 8]

1. one by one: a client that waits for each answer;  2. many clients at once: requests per second, median and p99;
3. four times that rate, sent by the clock whether or not answers have come: every request must be answered, by 200 or
   by 429;  4. bad requests among them: each a 4xx with a reason;  5. kill -9 and a new start while a file is scored;
6. SIGTERM with requests waiting: all answered, status 0.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dreamprm.prm import PRM
from dreamprm.serve.client import ScoreClient
from dreamprm.sources import named_split
from dreamprm.world import base_folder

BAD: list[tuple[str, Any]] = [
    ("/score", {"question": "q"}),
    ("/score", {"question": "q", "steps": ["a <end>"]}),
    ("/score", {"question": "q", "steps": ["a"], "images": ["/etc/passwd"]}),
    ("/score", {"question": "q", "steps": ["a"] * 1000}),
    ("/pooling", {"input": [10**9]}),
    ("/pooling", {"input": "x", "task": "embed"}),
]


def start(folder: Path, port: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "dreamprm", "serve", f"prm={folder}", f"port={port}"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("serving"), first
    return process


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    process = start(folder, port)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def body(place: int) -> dict[str, Any]:
    return {"question": f"How many are {place % 97}?", "steps": [f"there are {place % 13} red", "and two blue", "so 7"]}


class Connections:
    """Kept connections to the server, opened as they are needed. Plain sockets: an HTTP library would take more of the
    machine than the server that is measured."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answers: list[tuple[str, int, float]] = []  # path, status (-1: dropped, -2: no reason given), seconds

    async def ask(self, path: str, given: Any) -> None:
        began, content = time.perf_counter(), json.dumps(given).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "host: x",
            "content-type: application/json",
            f"content-length: {len(content)}",
        ]
        head = "\r\n".join([*lines, "", ""])
        status = -1
        try:
            reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(head.encode() + content)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
            answer = json.loads(await reader.readexactly(length))
            status = int(lines[0].split()[1])
            if status != 200 and not answer["error"]["message"]:
                status = -2
            if "connection: close" in lines:
                writer.close()
            else:
                self.idle.append((reader, writer))
        except (OSError, asyncio.IncompleteReadError) as error:
            print(f"   dropped: {error!r}")
        self.answers.append((path, status, time.perf_counter() - began))

    def close(self) -> None:
        for _, writer in self.idle:
            writer.close()


async def closed_loop(port: int, clients: int, seconds: float) -> list[tuple[str, int, float]]:
    """Clients that each wait for their answer before they ask again."""
    connections, until = Connections(port), time.perf_counter() + seconds

    async def one(place: int) -> None:
        while time.perf_counter() < until:
            await connections.ask("/score", body(place))
            place += clients

    await asyncio.gather(*(one(place) for place in range(clients)))
    connections.close()
    return connections.answers


async def by_the_clock(port: int, rate: float, seconds: float) -> list[tuple[str, int, float]]:
    """`rate` requests per second, whether or not answers have come; every twentieth is a bad one."""
    connections, tasks = Connections(port), list[asyncio.Task[None]]()
    began = time.perf_counter()
    for place in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + place / rate - time.perf_counter()))
        path, given = BAD[place // 20 % len(BAD)] if place % 20 == 19 else ("/score", body(place))
        tasks.append(asyncio.create_task(connections.ask(path, given)))
    sent = time.perf_counter() - began
    await asyncio.gather(*tasks)
    print(f"   sent {len(tasks)} in {sent:.1f} s, the last answer after {time.perf_counter() - began:.1f} s")
    connections.close()
    return connections.answers


def spread(answers: list[tuple[str, int, float]]) -> str:
    times = sorted(seconds for _, status, seconds in answers if status == 200)
    middle, late = statistics.median(times), times[min(len(times) - 1, int(0.99 * len(times)))]
    return f"median {middle * 1e3:.0f} ms, p99 {late * 1e3:.0f} ms"


def rate(answers: list[tuple[str, int, float]], seconds: float) -> float:
    return sum(status == 200 for _, status, _ in answers) / seconds


def killed_in_the_middle(folder: Path, port: int) -> None:
    records = named_split("world/test")
    assert records is not None
    records = list(records[:160])
    local = PRM.from_pretrained(folder).score_records(records)
    process = start(folder, port)
    found: list[list[list[float]]] = []
    with ScoreClient(f"http://127.0.0.1:{port}", folder) as client:
        thread = threading.Thread(target=lambda: found.append(client.score_records(records, 1)))
        thread.start()
        for _ in range(2):
            time.sleep(0.7)
            process.kill()
            process.wait()
            process = start(folder, port)
        thread.join()
    process.kill()
    process.wait()
    worst = max(abs(a - b) for ours, theirs in zip(local, found[0], strict=True) for a, b in zip(ours, theirs))
    print(f"5. killed (-9) and started again twice: {len(found[0])} of {len(records)} chains scored, "
          f"largest difference from local {worst:.1e}")  # fmt: skip


def drained(folder: Path, port: int) -> None:
    connections = Connections(port)
    heavy = [{"question": "q", "chains": [["one", f"two {place}"]] * 16} for place in range(12)]

    async def go(process: subprocess.Popen[str]) -> None:
        tasks = [asyncio.create_task(connections.ask("/score", given)) for given in heavy]
        await asyncio.sleep(0.3)
        os.kill(process.pid, signal.SIGTERM)
        await asyncio.gather(*tasks)
        connections.close()

    with server(folder, port) as process:
        asyncio.run(go(process))
        status = process.wait(60)
    counted = dict(collections.Counter(status for _, status, _ in connections.answers))
    print(f"6. SIGTERM with {len(heavy)} requests of 16 chains waiting: {counted} by status, exit status {status}")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.load")
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args(words)
    seconds = options.seconds
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as root:
        folder, port = Path(root) / "prm", free_port()
        PRM.from_pretrained(base_folder()).save_pretrained(folder)
        with server(folder, port):
            asyncio.run(closed_loop(port, 4, 1.0))
            alone = asyncio.run(closed_loop(port, 1, seconds))
            print(f"1. one by one: {rate(alone, seconds):.0f} requests/s, {spread(alone)}")
            many = asyncio.run(closed_loop(port, 64, seconds))
            sustained = rate(many, seconds)
            print(f"2. 64 clients: {sustained:.0f} requests/s, {spread(many)}; "
                  f"{sustained / rate(alone, seconds):.1f} times one by one")  # fmt: skip
            flood = asyncio.run(by_the_clock(port, 4 * sustained, seconds))
            counted = collections.Counter(status for _, status, _ in flood)
            print(
                f"3. four times that: {dict(sorted(counted.items()))} by status, {counted[-1]} dropped, {spread(flood)}"
            )
            print(f"4. bad requests: {counted[400]} answered 400 with a reason, {counted[-2]} without")
        killed_in_the_middle(folder, free_port())
        drained(folder, free_port())


if __name__ == "__main__":
    main()

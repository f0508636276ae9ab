#!/usr/bin/env python3
"""Raft of callfs against etcd (apt: etcd-server, etcd-client) on this machine, in the same minutes: three nodes each, all durable.

    python3 examples/bench/raft.py                          all but `away`, in rounds: callfs, etcd, callfs, etcd ...
    python3 examples/bench/raft.py --only commits --rounds 5
    python3 examples/bench/raft.py --only records --count 100000

commits: 16 clients, spread over the nodes, each with one write of some 256 bytes at a time; then one client on the leader,
and one on a follower. A client of etcd is a thread of this process with a connection of its own and a prepared request in
gRPC (some 50 microseconds of Python); one of callfs is a thread of a node that calls `store.put`, as its API does.
leader: it is killed; from then to the end of the first write that began after it, on a survivor.
entries: memory of a log with a million entries. records: start of three nodes with a million records each, to the first
sure read. away: a node lacks a million commands; how long until it has them.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Optional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
NODES, CLIENTS, SIZE, COUNT = 3, 16, 256, 1_000_000
Ack = tuple[float, float]                   # begin and end of a write; of CLOCK_MONOTONIC, which all processes share


# ---- load -------------------------------------------------------------------------------------------------------

def drive(write: Callable[[int, int], object], clients: int, seconds: float, errors: type[BaseException]) -> list[Ack]:
    """`write(client, number)` by so many threads for so long; what fails in a foreseen way is tried again."""
    until, acks = time.monotonic() + seconds, []        # type: float, list[Ack]

    def client(number: int) -> None:
        count = 0
        while (begin := time.monotonic()) < until:
            count += 1
            try:
                write(number, count)
            except errors:
                time.sleep(0.005)
                continue
            acks.append((begin, time.monotonic()))
    at_once(client, range(clients))
    return acks


def at_once(work: Callable[[int], object], numbers: Any) -> None:
    """In a thread for each."""
    threads = [threading.Thread(target=work, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def percentile(acks: list[Ack], share: float) -> float:
    """Milliseconds."""
    times = sorted(end - begin for begin, end in acks)
    return 1000 * times[min(len(times) - 1, int(len(times) * share))]


def patiently(work: Callable[[], Any], error: type[BaseException], seconds: float = 30) -> Any:
    """Its first result."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


# ---- etcd -------------------------------------------------------------------------------------------------------

def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _field(number: int, value: bytes) -> bytes:
    size = len(value)
    return bytes([number << 3 | 2, *([size] if size < 128 else [size & 127 | 128, size >> 7])]) + value


class EtcdClient:
    """A connection for puts, one at a time: gRPC (HTTP/2, RFC 9113) as far as that needs it. Raises OSError."""

    def __init__(self, port: int) -> None:
        self._socket, self._stream, self._buffer = socket.create_connection(("127.0.0.1", port), 5), -1, b""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.close = self._socket.close
        names = {":method": "POST", ":scheme": "http", ":path": "/etcdserverpb.KV/Put", ":authority": f"127.0.0.1:{port}",
                 "te": "trailers", "content-type": "application/grpc"}
        self._head = b"".join(b"%c%c%b%c%b" % (0, len(name), name.encode(), len(value), value.encode()) for name, value in names.items())
        settings = struct.pack(">HIHI", 1, 0, 4, 1 << 30)               # no table of headers, a wide window
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, settings) + _frame(8, 0, 0, struct.pack(">I", 1 << 30)))

    def put(self, key: bytes, value: bytes) -> None:
        """Durable on return."""
        self._stream += 2
        body = _field(1, key) + _field(2, value)
        self._socket.sendall(_frame(1, 4, self._stream, self._head) + _frame(0, 1, self._stream, struct.pack(">BI", 0, len(body)) + body))
        answered = False
        while True:
            kind, flags, stream, payload = self._read()
            if kind in (4, 6) and not flags & 1:                        # SETTINGS, PING
                self._socket.sendall(_frame(kind, 1, 0, payload if kind == 6 else b""))
            answered = answered or kind == 0 and stream == self._stream
            if kind in (3, 7) or kind == 1 and flags & 1 and not answered:
                raise ConnectionError("etcd refused")
            if kind in (0, 1) and flags & 1 and stream == self._stream:
                return

    def _read(self) -> tuple[int, int, int, bytes]:
        while len(self._buffer) < 9 or len(self._buffer) < 9 + int.from_bytes(self._buffer[:3], "big"):
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self._buffer += data
        end = 9 + int.from_bytes(self._buffer[:3], "big")
        frame, self._buffer = self._buffer[:end], self._buffer[end:]
        return frame[3], frame[4], int.from_bytes(frame[5:9], "big"), frame[9:]


class Etcd:
    """Three members with data of their own below `folder`. The caller closes it."""

    name = "etcd"

    def __init__(self, folder: Path) -> None:
        ports = free_ports(2 * NODES)
        self._ports, peers = ports[:NODES], ports[NODES:]
        cluster = ",".join(f"n{number}=http://127.0.0.1:{port}" for number, port in enumerate(peers))
        self._processes = []
        for number, (peer, port) in enumerate(zip(peers, self._ports)):
            urls = [word for kind, option, at in (("peer", "initial-advertise-peer", peer), ("client", "advertise-client", port))
                    for word in (f"--listen-{kind}-urls", f"http://127.0.0.1:{at}", f"--{option}-urls", f"http://127.0.0.1:{at}")]
            with open(folder / "etcd.log", "ab") as log:
                self._processes.append(subprocess.Popen(
                    ["etcd", "--name", f"n{number}", "--data-dir", str(folder / f"etcd{number}"), "--logger", "zap", "--log-level", "error",
                     "--initial-cluster", cluster, "--initial-cluster-state", "new", *urls], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        for number in range(NODES):
            patiently(lambda: self.load([number], 0.01)[0], LookupError)

    def leader(self) -> int:
        """Which of them."""
        urls = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        rows = json.loads(subprocess.run(["etcdctl", "--endpoints", urls, "endpoint", "status", "-w", "json"], check=True, capture_output=True,
                                         env={**os.environ, "ETCDCTL_API": "3"}).stdout)
        return next(number for number, row in enumerate(rows) if row["Status"]["header"]["member_id"] == row["Status"]["leader"])

    def load(self, where: list[int], seconds: float) -> list[Ack]:
        """A client at each of these nodes."""
        clients: list[Optional[EtcdClient]] = [None] * len(where)

        def write(client: int, number: int) -> None:
            used = clients[client]
            try:
                used = clients[client] = used or EtcdClient(self._ports[where[client]])
                used.put(b"%d/%d" % (client, number % 10_000), bytes(SIZE))
            except OSError:
                if used is not None:
                    used.close()
                clients[client] = None
                raise
        acks = drive(write, len(where), seconds, OSError)
        for each in filter(None, clients):
            each.close()
        return acks

    def kill(self, number: int) -> None:
        """One of them."""
        self._processes[number].kill()
        self._processes[number].wait()

    def close(self) -> None:
        """End them."""
        for number in range(NODES):
            self.kill(number)


# ---- callfs -----------------------------------------------------------------------------------------------------

class Worker:
    """A node of callfs in a process of its own, which takes orders as lines of JSON (`work`)."""

    def __init__(self, config: Path) -> None:
        self.config = config
        with open(config.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen([sys.executable, __file__, "--worker", str(self.config)], text=True, stderr=log,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, *order: Any) -> Any:
        """Its answer. Raises SystemExit when it is gone."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a node ended:\n" + self.config.with_suffix(".log").read_text()[-2000:])
        return json.loads(answer)


def work(path: str) -> None:
    """What a worker does: open the records of a node as a server does, follow orders."""
    import callfs
    config = callfs.Config.load(path)
    store: Any = callfs.open_store(config, callfs.Metrics(), callfs.Log("warn"))
    patiently(lambda: store.page("/", limit=1), callfs.Unavailable)
    ready, filled, name = time.monotonic(), iter(range(1 << 62)), f"{config.raft.node_id}-{os.getpid()}"

    def put(client: int, number: int) -> None:
        store.put(callfs.Entry(f"/{name}-{client}-{number % 10_000}", owner="bench", etag="e" * 32, digest="d" * 64, id="i" * 32, instance_id=name))

    def fill(count: int) -> None:
        for _ in range(0, count, 1000):
            store.add([callfs.Entry(f"/{name}-{next(filled):08}", owner="bench", digest="d" * 64, id="i" * 32) for _ in range(1000)])
    orders: dict[str, Callable[..., Any]] = {"load": lambda clients, seconds: drive(put, clients, seconds, callfs.Unavailable), "fill": fill,
                                             "ready": lambda: ready, "resident": resident, "status": lambda: store.node.status()}
    for line in sys.stdin:
        order, *arguments = json.loads(line)
        print(json.dumps(orders[order](*arguments)), flush=True)


class Callfs:
    """Three nodes below `folder`. The caller closes it."""

    name = "callfs"

    def __init__(self, folder: Path) -> None:
        import callfs
        names = [f"n{number}" for number in range(NODES)]
        peers = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(NODES))}
        for name in names:
            (folder / name).mkdir()
            (folder / name / "config.yaml").write_text(callfs.render_yaml({
                "auth": {"api_key_users": {"bench": "bench-key-0123456789abcdef"}, "internal_proxy_secret": "bench-internal-0123456789",
                         "single_use_link_secret": "bench-link-0123456789"}, "metadata_store": {"type": "raft"},
                "backend": {"localfs_root_path": str(folder / name / "files")}, "raft": {
                    "enabled": True, "node_id": name, "bind_addr": peers[name], "data_dir": str(folder / name / "raft"), "bootstrap": True,
                    "peers": peers, "api_peer_endpoints": dict.fromkeys(names, "http://127.0.0.1:1")}}))
        self.workers = [Worker(folder / name / "config.yaml") for name in names]
        for worker in self.workers:
            worker.ask("ready")

    def kill(self, number: int) -> None:
        """One of them."""
        self.workers[number].process.kill()
        self.workers[number].process.communicate()

    def start(self, numbers: Any) -> None:
        """Killed ones, again."""
        for number in numbers:
            self.workers[number] = Worker(self.workers[number].config)

    def leader(self) -> int:
        """Which of them."""
        return int(patiently(lambda: self.workers[0].ask("status")["leader"][1], IndexError))

    def load(self, where: list[int], seconds: float) -> list[Ack]:
        """A client at each of these nodes."""
        found: list[Ack] = []
        at_once(lambda number: found.extend(self.workers[number].ask("load", where.count(number), seconds)), set(where))
        return found

    def close(self) -> None:
        """End them."""
        for number in range(NODES):
            self.kill(number)


# ---- what is measured -------------------------------------------------------------------------------------------

def commits(kind: Callable[[Path], Any], folder: Path, seconds: float) -> dict[str, float]:
    """16 clients on three nodes, one on the leader, one on a follower."""
    with contextlib.closing(kind(folder)) as cluster:
        everywhere = [number % NODES for number in range(CLIENTS)]
        cluster.load(everywhere, 1)
        acks, leader = cluster.load(everywhere, seconds), cluster.leader()
        alone = [cluster.load([number], 1) for number in (leader, (leader + 1) % NODES)]
    return {"commits/s": len(acks) / seconds, "p50, ms": percentile(acks, 0.5), "p99, ms": percentile(acks, 0.99),
            "one client on the leader, p50, ms": percentile(alone[0], 0.5), "one client on a follower, p50, ms": percentile(alone[1], 0.5)}


def new_leader(kind: Callable[[Path], Any], folder: Path, seconds: float) -> dict[str, float]:
    """From a kill of the leader to the end of the first write that began after it."""
    with contextlib.closing(kind(folder)) as cluster:
        leader, killed = cluster.leader(), []       # type: int, list[float]
        timer = threading.Timer(1.0, lambda: (cluster.kill(leader), killed.append(time.monotonic())))
        timer.start()
        acks = cluster.load([number for number in range(NODES) if number != leader] * 4, 6)
    return {"new leader, s": min((end for begin, end in acks if begin > killed[0]), default=float("inf")) - killed[0]}


def entries(folder: Path, count: int) -> dict[str, float]:
    """A log of so many entries. Of a process that compiled nothing (run it twice) and measured nothing else before."""
    import callfs
    before, log = resident(), callfs.DiskLog(str(folder / "log"))
    for first in range(1, count + 1, 1000):
        log.save(None, [callfs.RaftEntry(index, 1, callfs.RAFT_COMMAND, bytes(SIZE)) for index in range(first, first + 1000)])
    written = resident() - before
    log.close()
    begin = time.monotonic()
    callfs.DiskLog(str(folder / "log")).close()
    return {"MiB beyond what the process had": written, "opened in, s": time.monotonic() - begin}


def records(folder: Path, count: int) -> dict[str, float]:
    """Three nodes with so many records are killed and started: to the first sure read on the last of them."""
    with contextlib.closing(Callfs(folder)) as cluster:
        begin = time.monotonic()
        cluster.workers[0].ask("fill", count)
        filled = time.monotonic() - begin
        cluster.close()
        begin = time.monotonic()
        cluster.start(range(NODES))
        ready = max(worker.ask("ready") for worker in cluster.workers) - begin
        return {"filled by thousands in, s": filled, "first sure read, s": ready, "MiB of a node": cluster.workers[0].ask("resident")}


def away(folder: Path, count: int) -> dict[str, float]:
    """A node is killed, comes back after so many commands, and catches up."""
    with contextlib.closing(Callfs(folder)) as cluster:
        gone = (cluster.leader() + 1) % NODES
        others, done, begin = [number for number in range(NODES) if number != gone], 0, time.monotonic()
        cluster.kill(gone)
        while done < count:
            done += len(cluster.load(others * 64, 10))
        fed, target = time.monotonic(), cluster.workers[others[0]].ask("status")["applied"]
        cluster.start([gone])
        while cluster.workers[gone].ask("status")["applied"] < target:
            time.sleep(0.1)
        return {"commands": done, "commands/s while away": done / (fed - begin), "caught up in, s": time.monotonic() - fed}


# ---- this machine, and the table --------------------------------------------------------------------------------

def free_ports(count: int) -> list[int]:
    """That nobody has."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def resident() -> float:
    """MiB of this process."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024       # type: ignore[index]


def bare_sync(folder: Path, seconds: float) -> float:
    """Milliseconds of a small append with fdatasync."""
    with open(folder / "bare", "ab", buffering=0) as file:
        return percentile(drive(lambda client, number: (file.write(bytes(512)), os.fdatasync(file.fileno())), 1, seconds, OSError), 0.5)


def table(title: str, rounds: list[dict[str, dict[str, float]]]) -> None:
    """Medians of what was measured, and of the ratios."""
    print(f"\n| {title}, median of {len(rounds)} | callfs | etcd | ratio |\n|---|---|---|---|")
    for name in rounds[0]["callfs"]:
        ours, theirs = ([each[who][name] for each in rounds if who in each] for who in ("callfs", "etcd"))
        ratio = f"{statistics.median(a / b for a, b in zip(ours, theirs)):.2f}" if theirs else ""
        print(f"| {name} | {statistics.median(ours):.4g} | {f'{statistics.median(theirs):.4g}' if theirs else ''} | {ratio} |", flush=True)


AGAINST = {"commits": commits, "leader": new_leader}
ALONE = {"entries": entries, "records": records, "away": away}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="commits,leader,entries,records", help="of " + ", ".join([*AGAINST, *ALONE]))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of load for one figure")
    parser.add_argument("--count", type=int, default=COUNT, help="of entries, records, commands")
    parser.add_argument("--scratch", default=None, help="folder on the disk to measure (default: the one for temporary files)")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return 0
    kinds: list[Any] = [Callfs, *([Etcd] if shutil.which("etcd") and shutil.which("etcdctl") else [])]

    def fresh(measure: Callable[..., Any], *arguments: Any) -> Any:
        with tempfile.TemporaryDirectory(prefix="callfs-raft-", dir=options.scratch) as scratch:
            return measure(*arguments[:-1], Path(scratch), *arguments[-1:])
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, bare fdatasync {fresh(bare_sync, 0.5):.2f} ms")
    for name in options.only.split(","):
        rounds = range(options.rounds) if name in AGAINST else range(1)
        table(name, [{kind.name: fresh(AGAINST[name], kind, options.seconds) for kind in kinds} if name in AGAINST else
                     {"callfs": fresh(ALONE[name], options.count)} for _ in rounds])
    return 0


if __name__ == "__main__":
    sys.exit(main())

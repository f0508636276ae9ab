#!/usr/bin/env python3
"""Raft of callfs against etcd (apt: etcd-server) on this machine, in the same minutes: three nodes each, all durable.

    python3 examples/bench/raft.py                      everything, in rounds: etcd, callfs, etcd, callfs ...
    python3 examples/bench/raft.py --only commits --rounds 5
    python3 examples/bench/raft.py --records 100000     a smaller cluster to start and to hold in memory

commits: 16 clients, spread over the nodes, each with one write of 256 bytes at a time. A client of etcd is a thread of this
process with a gRPC connection of its own (a prepared request: 40 microseconds of Python); a client of callfs is a thread of
a node that calls `store.put`, as a request of its API does. Both are Python threads beside the same number of busy processes.
latency: one client on the leader and one on a follower, beside what a bare fdatasync and a bare round trip take.
leader: the leader is killed; from then to the first write that a survivor begins and ends.
entries, records: memory of a log with a million entries; start of a node with a million records to its first sure read.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
NODES, CLIENTS, SIZE = 3, 16, 256


class Load(NamedTuple):
    """What clients had: writes that ended well as (begin, end), seconds of CLOCK_MONOTONIC, which all processes share."""

    acks: list[tuple[float, float]]
    seconds: float

    @property
    def rate(self) -> float:
        """Writes a second."""
        return len(self.acks) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        times = sorted(end - begin for begin, end in self.acks)
        return 1000 * times[min(len(times) - 1, int(len(times) * share))]


def drive(write: Callable[[int, int], object], clients: int, seconds: float, errors: tuple[type[BaseException], ...] = ()) -> Load:
    """`write(client, number)` by so many threads for so long; what fails in a foreseen way is tried again."""
    acks: list[list[tuple[float, float]]] = [[] for _ in range(clients)]
    until = time.monotonic() + seconds

    def client(number: int) -> None:
        count = 0
        while (begin := time.monotonic()) < until:
            count += 1
            try:
                write(number, count)
            except errors:
                time.sleep(0.005)
                continue
            acks[number].append((begin, time.monotonic()))
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(sorted(sum(acks, [])), seconds)


# ---- etcd -------------------------------------------------------------------------------------------------------

def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBBI", len(payload) << 8 | kind, flags, 0, 0)[:5] + struct.pack(">I", stream) + payload


def _field(number: int, value: bytes) -> bytes:
    size = len(value)
    return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + value


class EtcdClient:
    """One connection for puts, one at a time: gRPC (HTTP/2, RFC 9113) as far as that needs it. Raises OSError."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.settimeout(5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream, self._buffer = -1, b""
        names = {":method": "POST", ":scheme": "http", ":path": "/etcdserverpb.KV/Put", ":authority": f"127.0.0.1:{port}",
                 "te": "trailers", "content-type": "application/grpc"}
        self._head = b"".join(bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in names.items())
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
            if kind == 6 and not flags & 1 or kind == 4 and not flags & 1:
                self._socket.sendall(_frame(kind, 1, 0, payload if kind == 6 else b""))
            elif kind in (3, 7):
                raise ConnectionError("etcd gave up")
            answered = answered or kind == 0 and stream == self._stream
            if kind in (0, 1) and flags & 1 and stream == self._stream:
                if not answered:                # trailers alone: an error
                    raise ConnectionError("etcd refused")
                return

    def _read(self) -> tuple[int, int, int, bytes]:
        while len(self._buffer) < 9 or len(self._buffer) < 9 + (int.from_bytes(self._buffer[:3], "big")):
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self._buffer += data
        size = int.from_bytes(self._buffer[:3], "big")
        head, payload, self._buffer = self._buffer[:9], self._buffer[9:9 + size], self._buffer[9 + size:]
        return head[3], head[4], int.from_bytes(head[5:9], "big"), payload

    def close(self) -> None:
        """The end."""
        self._socket.close()


class Etcd:
    """Three members with data of their own below `folder`. The caller closes it."""

    name = "etcd"

    def __init__(self, folder: Path, count: int = NODES) -> None:
        ports = free_ports(2 * count)
        self.ports, peers = ports[:count], ports[count:]
        cluster = ",".join(f"n{number}=http://127.0.0.1:{port}" for number, port in enumerate(peers))
        self._commands = [["etcd", "--name", f"n{number}", "--data-dir", str(folder / f"etcd{number}"), "--log-level", "error", "--logger", "zap",
                           "--initial-cluster", cluster, "--initial-cluster-state", "new", "--quota-backend-bytes", str(8 << 30),
                           *(word for kind, port in (("peer", peers[number]), ("client", self.ports[number])) for word in (
                               f"--listen-{kind}-urls", f"http://127.0.0.1:{port}",
                               f"--{'initial-advertise-peer' if kind == 'peer' else 'advertise-client'}-urls", f"http://127.0.0.1:{port}"))]
                          for number in range(count)]
        self.processes: list[subprocess.Popen[bytes]] = []
        with open(folder / "etcd.log", "ab") as log:
            for command in self._commands:
                self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        self._wait()

    def _wait(self) -> None:
        for port in self.ports:
            patiently(lambda: self._client(port, b"first"), (OSError,))

    @staticmethod
    def _client(port: int, key: bytes) -> None:
        with contextlib.closing(EtcdClient(port)) as client:
            client.put(key, b"")

    def leader(self) -> int:
        """Which of them."""
        urls = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        rows = json.loads(subprocess.run(["etcdctl", "--endpoints", urls, "endpoint", "status", "-w", "json"], check=True, capture_output=True,
                                         env={**os.environ, "ETCDCTL_API": "3"}).stdout)
        return next(number for number, row in enumerate(rows) if row["Status"]["header"]["member_id"] == row["Status"]["leader"])

    def load(self, where: list[int], seconds: float) -> Load:
        """A client at each of these nodes."""
        clients: list[Optional[EtcdClient]] = [None] * len(where)

        def write(client: int, number: int) -> None:
            try:
                clients[client] = used = clients[client] or EtcdClient(self.ports[where[client]])
                used.put(b"%d/%d" % (client, number), bytes(SIZE))
            except OSError:
                if clients[client]:
                    clients[client].close()                     # type: ignore[union-attr]
                clients[client] = None
                raise
        found = drive(write, len(where), seconds, (OSError,))
        for each in clients:
            if each:
                each.close()
        return found

    def close(self) -> None:
        """End them."""
        for process in self.processes:
            process.kill()
            process.wait()


# ---- this machine -----------------------------------------------------------------------------------------------

def free_ports(count: int) -> list[int]:
    """That nobody has."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def patiently(work: Callable[[], Any], errors: tuple[type[BaseException], ...], seconds: float = 30) -> Any:
    """Its first result."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except errors:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def resident(pid: int) -> float:
    """MiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024     # type: ignore[index]


def bare(folder: Path) -> tuple[float, float]:
    """Milliseconds of a small append with fdatasync, and of a round trip between two threads (medians)."""
    syncs, trips = [], []
    with open(folder / "bare", "ab", buffering=0) as file:
        for _ in range(300):
            begin = time.monotonic()
            file.write(bytes(512))
            os.fdatasync(file.fileno())
            syncs.append(time.monotonic() - begin)
    one, other = socket.socketpair()
    echo = threading.Thread(target=lambda: [other.sendall(data) for data in iter(lambda: other.recv(100), b"")])
    echo.start()
    for _ in range(300):
        begin = time.monotonic()
        one.sendall(b"x")
        one.recv(100)
        trips.append(time.monotonic() - begin)
    one.close()
    echo.join()
    other.close()
    return 1000 * statistics.median(syncs), 1000 * statistics.median(trips)


# ---- callfs -----------------------------------------------------------------------------------------------------

class Worker:
    """A node of callfs in a process of its own, which takes orders as lines of JSON: see `work`."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.start()

    def start(self) -> None:
        """Begin, or begin again."""
        with open(self.config.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen([sys.executable, __file__, "--worker", str(self.config)], text=True, stderr=log,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, *order: Any) -> Any:
        """Its answer. Raises OSError when it is gone."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise OSError("the node ended: " + self.config.with_suffix(".log").read_text()[-2000:])
        return json.loads(answer)

    def kill(self) -> None:
        """The end of it."""
        self.process.kill()
        self.process.communicate()


def work(config: str) -> None:
    """What a worker does: open the records of a node as a server does, and follow orders."""
    import callfs
    loaded = callfs.Config.load(config)
    store: Any = callfs.open_store(loaded, callfs.Metrics(), callfs.Log("warn"))
    store.page("/", limit=1)
    began = time.monotonic()
    numbers = iter(range(1 << 62))
    name = f"{loaded.raft.node_id}-{os.getpid()}"

    def put(client: int, number: int) -> None:
        store.put(callfs.Entry(f"/{name}-{client}-{number % 10_000}", owner="bench", etag="e" * 64, digest="d" * 64, id="i" * 32,
                               mtime_ns=1, instance_id=name))

    def fill(count: int) -> None:
        while count > 0:
            store.add([callfs.Entry(f"/{name}/{next(numbers):08}", owner="bench", digest="d" * 64, id="i" * 32) for _ in range(min(count, 1000))])
            count -= 1000
    orders: dict[str, Callable[..., Any]] = {
        "load": lambda clients, seconds: drive(put, clients, seconds, (callfs.Unavailable,)).acks,
        "fill": fill, "status": lambda: store.node.status(), "ready": lambda: began, "resident": lambda: resident(os.getpid())}
    for line in sys.stdin:
        order, *arguments = json.loads(line)
        print(json.dumps(orders[order](*arguments)), flush=True)
    store.close()


class Callfs:
    """Three nodes below `folder`. The caller closes it."""

    name = "callfs"

    def __init__(self, folder: Path, count: int = NODES) -> None:
        import callfs
        ports = free_ports(count)
        peers = {f"n{number}": f"127.0.0.1:{port}" for number, port in enumerate(ports, 1)}
        self.workers = []
        for name, address in peers.items():
            (folder / name).mkdir()
            (folder / name / "config.yaml").write_text(callfs.render_yaml({
                "auth": {"api_key_users": {"bench": "bench-key-0123456789abcdef"}, "internal_proxy_secret": "bench-internal-0123456789",
                         "single_use_link_secret": "bench-link-0123456789"}, "dlm": {"type": "raft"},
                "backend": {"localfs_root_path": str(folder / name / "files")}, "metadata_store": {"type": "raft"},
                "instance_discovery": {"instance_id": name}, "raft": {
                    "enabled": True, "node_id": name, "bind_addr": address, "data_dir": str(folder / name / "raft"), "bootstrap": True,
                    "peers": peers, "api_peer_endpoints": {each: f"http://127.0.0.1:{number}" for number, each in enumerate(peers, 1)}}}))
            self.workers.append(Worker(folder / name / "config.yaml"))
        for worker in self.workers:
            worker.ask("ready")
        self.processes = [worker.process for worker in self.workers]

    def leader(self) -> int:
        """Which of them."""
        said = patiently(lambda: self.workers[0].ask("status")["leader"] or self._nobody(), (LookupError,))
        return int(said[1:]) - 1

    @staticmethod
    def _nobody() -> str:
        raise LookupError("no leader")

    def load(self, where: list[int], seconds: float) -> Load:
        """A client at each of these nodes."""
        found: list[tuple[float, float]] = []
        counts = {number: where.count(number) for number in where}

        def ask(number: int) -> None:
            found.extend(map(tuple, self.workers[number].ask("load", counts[number], seconds)))     # type: ignore[arg-type]
        threads = [threading.Thread(target=ask, args=(number,)) for number in counts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Load(sorted(found), seconds)

    def close(self) -> None:
        """End them."""
        for worker in self.workers:
            worker.kill()


# ---- what is measured -------------------------------------------------------------------------------------------

def commits(make: Callable[[Path], Any], folder: Path, seconds: float) -> dict[str, float]:
    """16 clients on three nodes, and one on the leader, one on a follower."""
    with contextlib.closing(make(folder)) as cluster:
        cluster.load([number % NODES for number in range(CLIENTS)], 1)
        loaded = cluster.load([number % NODES for number in range(CLIENTS)], seconds)
        leader = cluster.leader()
        alone = {where: cluster.load([number], 1).percentile(0.5) for where, number in (("leader", leader), ("follower", (leader + 1) % NODES))}
    return {"commits/s": loaded.rate, "p50 ms": loaded.percentile(0.5), "p99 ms": loaded.percentile(0.99),
            **{f"one client on the {where}, ms": value for where, value in alone.items()}}


def new_leader(make: Callable[[Path], Any], folder: Path, seconds: float) -> dict[str, float]:
    """From a kill of the leader to the first write that begins and ends on a survivor."""
    with contextlib.closing(make(folder)) as cluster:
        leader = cluster.leader()
        survivors = [number for number in range(NODES) if number != leader] * 4
        killed: list[float] = []

        def kill() -> None:
            cluster.processes[leader].kill()
            killed.append(time.monotonic())
        timer = threading.Timer(1.0, kill)
        timer.start()
        acks = cluster.load(survivors, 6).acks
    return {"new leader, s": min((end for begin, end in acks if begin > killed[0]), default=float("inf")) - killed[0]}


def held_entries(folder: Path, count: int) -> dict[str, float]:
    """A process that holds a log of so many entries, as one that was just opened and as one that was written."""
    code = """if True:
        import sys, time, callfs
        folder, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        resident = lambda: int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024
        before = resident()
        log = callfs.DiskLog(folder)
        for first in range(1, count + 1, 1000):
            log.save(None, [callfs.RaftEntry(index, 1, callfs.RAFT_COMMAND, bytes(size)) for index in range(first, first + 1000)])
        written = resident() - before
        log.close()
        print(written)
    """
    again = """if True:
        import sys, time, callfs
        resident = lambda: int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024
        before, begin = resident(), time.monotonic()
        log = callfs.DiskLog(sys.argv[1])
        print(resident() - before, time.monotonic() - begin)
        log.close()
    """
    ran = [subprocess.run([sys.executable, "-c", each, str(folder / "log"), str(count), str(SIZE)], check=True, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}).stdout.split() for each in (code, again)]
    return {"MiB, written": float(ran[0][0]), "MiB, opened": float(ran[1][0]), "opened in, s": float(ran[1][1])}


def start_with_records(folder: Path, count: int) -> dict[str, float]:
    """Three nodes with so many records each are killed and started: to the first sure read on each, their leader found."""
    with contextlib.closing(Callfs(folder)) as cluster:
        for number in range(8):
            cluster.workers[number % NODES].ask("fill", count // 8)
        held = cluster.workers[0].ask("resident")
        for worker in cluster.workers:
            worker.kill()
        begin = time.monotonic()
        for worker in cluster.workers:
            worker.start()
        ready = [worker.ask("ready") - begin for worker in cluster.workers]
        return {"first sure read, s": max(ready), "MiB before": held, "MiB after": cluster.workers[0].ask("resident")}


def catch_up(folder: Path, count: int) -> dict[str, float]:
    """A node is away for so many commands, and comes back: how long until it has all."""
    with contextlib.closing(Callfs(folder)) as cluster:
        away = (cluster.leader() + 1) % NODES
        cluster.workers[away].kill()
        done, begin = 0, time.monotonic()
        while done < count:
            done += len(cluster.load([number for number in range(NODES) if number != away] * 64, 10).acks)
        fed, leader = time.monotonic(), cluster.leader_but(away)
        cluster.workers[away].start()
        cluster.workers[away].ask("ready")
        target = cluster.workers[leader].ask("status")["applied"]
        patiently(lambda: cluster.workers[away].ask("status")["applied"] >= target or cluster._nobody(), (LookupError,), 300)
        return {"commands": done, "while away, s": fed - begin, "caught up in, s": time.monotonic() - fed}


def table(title: str, rounds: list[dict[str, dict[str, float]]]) -> None:
    """Medians of what was measured, ours, theirs and the ratio."""
    print(f"\n{title} (median of {len(rounds)})\n\n| | callfs | etcd | ratio |\n|---|---|---|---|")
    for name in rounds[0]["callfs"]:
        found = {who: statistics.median(each[who][name] for each in rounds) for who in rounds[0]}
        theirs = f"{found['etcd']:.4g} | {found['callfs'] / found['etcd']:.2f}" if "etcd" in found else "|"
        print(f"| {name} | {found['callfs']:.4g} | {theirs} |", flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="commits,leader,entries,records", help="of commits, leader, entries, records, away")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of load for one figure")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--away", type=int, default=1_000_000, help="commands")
    parser.add_argument("--scratch", default=None, help="folder on the disk to measure (default: the one for temporary files)")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return 0
    kinds: list[Callable[[Path], Any]] = [Callfs, *([Etcd] if shutil.which("etcd") and shutil.which("etcdctl") else [])]
    names = options.only.split(",")

    def fresh(measure: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="callfs-raft-", dir=options.scratch) as scratch:
            return measure(*[Path(scratch) if each is tempfile else each for each in arguments])
    if "commits" in names or "leader" in names:
        syncs, trips = fresh(lambda folder: dict(zip(("fdatasync", "trip"), bare(folder))), tempfile).values()
        print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; bare fdatasync {syncs:.2f} ms, bare round trip {trips:.3f} ms")
    for name, title, measure in (("commits", f"{CLIENTS} clients on {NODES} nodes", commits), ("leader", "The leader is killed", new_leader)):
        if name in names:
            table(title, [{kind.name: fresh(measure, kind, tempfile, options.seconds) for kind in kinds}     # type: ignore[attr-defined]
                          for _ in range(options.rounds)])
    for name, title, alone, count in (("entries", f"A log of {options.entries} entries", held_entries, options.entries),
                                      ("records", f"A start with {options.records} records", start_with_records, options.records),
                                      ("away", f"A node was away for {options.away} commands", catch_up, options.away)):
        if name in names:
            table(title, [{"callfs": fresh(alone, tempfile, count)}])
    return 0


if __name__ == "__main__":
    sys.exit(main())

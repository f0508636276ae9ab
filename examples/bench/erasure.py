#!/usr/bin/env python3
"""Files coded 4+2 over six nodes of callfs, against an erasure policy of OpenStack Swift, on this machine, in turn.

    python3 examples/bench/erasure.py                       upload, download, download with two nodes killed
    python3 examples/bench/erasure.py --rounds 5 --size 512 MiB of one file
    python3 examples/bench/erasure.py --peers ""            callfs alone (Swift: pip install swift pyeclib)
    python3 examples/bench/erasure.py --memory 1024         MiB of a file that goes up, down, down degraded: memory of every node

callfs: six processes with their records in a Redis of our own, sign-in, metrics, SHA-256, `durability: full`. Swift: a proxy
without sign-in, account and container servers in one process, six object servers in one each, ISA-L in C where the machine
has it, no SHA-256. The client is this process; every file is read through the node that took it and, in the row that says
so, through another. Degraded: two nodes killed that hold shards of the data, not the one that is asked.
"""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from collections.abc import Callable, Iterator
from typing import Any

from compare import MIB, machine

ROOT = Path(__file__).resolve().parents[2]
NODES, KEY = 6, "bench-key-0123456789abcdef"
BLOCK = os.urandom(MIB)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


class Cluster:
    """Processes on ports of their own, the one that takes requests first. `close` ends them, and nothing else."""

    name, put = "", ""                      # `put`: where files go
    headers: dict[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, []        # type: Path, list[subprocess.Popen[bytes]]
        folder.mkdir()
        try:
            self.ports = self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> list[int]:
        """Start all; ports to ask."""
        raise NotImplementedError

    def holders(self, path: str) -> list[int]:
        """Numbers of processes with shards 1 and 2 of a file: data, and not of the one that is asked."""
        raise NotImplementedError

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        """A process of ours."""
        with open(self.folder / f"{len(self.processes)}.log", "wb") as log:
            self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder))
        return self.processes[-1]

    def await_ports(self, ports: list[int]) -> None:
        """Until somebody listens."""
        deadline = time.monotonic() + 60
        for port in ports:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if time.monotonic() > deadline or any(each.poll() is not None for each in self.processes):
                    raise SystemExit(f"{self.name} did not start:\n" + "\n".join(log.read_text()[-500:] for log in self.folder.glob("*.log")))
                time.sleep(0.05)

    def ask(self, method: str, path: str, body: Any = None, node: int = 0, wanted: tuple[int, ...] = (200, 201, 202, 204)) -> bytes:
        """A whole answer."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.ports[node], timeout=600)) as connection:
            connection.request(method, path, body, self.headers)
            answer = connection.getresponse()
            data = answer.read()
        if answer.status not in wanted:
            raise SystemExit(f"{self.name}: {method} {path}: {answer.status} {data[:300]!r}")
        return data

    def upload(self, name: str, size: int) -> float:
        """Seconds, up to the answer."""
        begin = time.perf_counter()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=3600)) as connection:
            connection.request("PUT", self.put + name, (BLOCK for _ in range(size // MIB)), {**self.headers, "Content-Length": str(size)})
            answer = connection.getresponse()
            data = answer.read()
        if answer.status not in (200, 201):
            raise SystemExit(f"{self.name}: {answer.status} {data[:300]!r}")
        return time.perf_counter() - begin

    def download(self, name: str, size: int, node: int = 0, check: bool = False) -> float:
        """Seconds. `check`: what came is what was sent (which takes the client time)."""
        begin, got, view, known = time.perf_counter(), 0, memoryview(bytearray(MIB)), hashlib.sha256()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.ports[node], timeout=600)) as connection:
            connection.request("GET", self.put + name, headers=self.headers)
            answer = connection.getresponse()
            while count := answer.readinto(view):
                got += count
                if check:
                    known.update(view[:count])
        if answer.status != 200 or got != size or check and known.digest() != digest_of(size):
            raise SystemExit(f"{self.name}: {answer.status}, {got} of {size} bytes, or not the right ones")
        return time.perf_counter() - begin

    def memory(self) -> list[float]:
        """Most that each process has had, MiB (VmHWM); its children with it."""
        return [_peak(each.pid) for each in self.processes if each.poll() is None]

    def close(self) -> None:
        """End what was started."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _peak(pid: int) -> float:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        own = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(own[1] if own else 0) / 1024 + sum(_peak(int(child)) for child in children)
    return 0.0


def digest_of(size: int) -> bytes:
    """SHA-256 of what `upload` sends."""
    known = hashlib.sha256()
    for _ in range(size // MIB):
        known.update(BLOCK)
    return known.digest()


class CallFS(Cluster):
    """Six nodes, one Redis."""

    name, put, headers = "callfs", "/v1/files/", {"Authorization": f"Bearer {KEY}"}
    SETTINGS = """\
server: {{listen_addr: "127.0.0.1:{port}"}}
auth:
  api_key_users: {{bench: {key}}}
  admins: [bench]
  internal_proxy_secret: bench-secret-0123456789
  single_use_link_secret: bench-link-secret-0123456789
log: {{file: "{folder}/{name}.access", format: json}}
backend: {{localfs_root_path: "{folder}/{name}"}}
metadata_store: {{type: redis, redis_addr: "unix:{folder}/redis", sqlite_path: "{folder}/{name}.sqlite3"}}
dlm: {{type: redis, redis_addr: "unix:{folder}/redis"}}
erasure: {{enabled: true, default: true, data_shards: 4, parity_shards: 2}}
instance_discovery:
  instance_id: {name}
  peer_endpoints: {{{peers}}}
"""

    def start(self) -> list[int]:
        """The first process is Redis."""
        self.run("redis-server", "--port", "0", "--unixsocket", f"{self.folder}/redis", "--dir", str(self.folder), "--save", "",
                 "--appendonly", "yes", "--appendfsync", "no")
        while not (self.folder / "redis").exists():
            time.sleep(0.02)
        ports = free_ports(NODES)
        for number, port in enumerate(ports):
            peers = ", ".join(f'n{other}: "http://127.0.0.1:{there}"' for other, there in enumerate(ports) if other != number)
            config = self.folder / f"n{number}.yaml"
            config.write_text(self.SETTINGS.format(port=port, key=KEY, folder=self.folder, name=f"n{number}", peers=peers))
            self.run(sys.executable, str(ROOT / "callfs.py"), "serve", "--config", str(config))
        self.await_ports(ports)
        return ports

    def holders(self, path: str) -> list[int]:
        """As the manifest says."""
        shards = json.loads(self.ask("GET", self.put + path + "?manifest=true"))["shards"]
        return [1 + int(shard["instance_id"][1:]) for shard in shards[1:3]]


class Swift(Cluster):
    """A proxy, account and container servers, six object servers; one copy of what is not coded."""

    name, put = "swift", "/v1/AUTH_bench/files/"
    CODE = r"""
import warnings; warnings.simplefilter("ignore")
import eventlet; eventlet.monkey_patch()
import os, sys
from eventlet import wsgi
from swift.common import constraints, storage_policy, utils, wsgi as ours
folder, names, ports = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")
utils.SWIFT_CONF_FILE = folder + "/swift.conf"
constraints.reload_constraints(); storage_policy.reload_storage_policies()
from eventlet import hubs
for name, port in zip(names, ports):
    kind = name.rstrip("0123456789")
    text = ("[DEFAULT]\nswift_dir = {0}\ndevices = {0}\nmount_check = false\nfallocate_reserve = 0\nlog_address = {0}/none\n"
            "[pipeline:main]\npipeline = {1}\n[app:{2}-server]\nuse = egg:swift#{2}\n").format(
                folder, "catch_errors proxy-server" if kind == "proxy" else kind + "-server", kind)
    if kind == "proxy":
        text += "account_autocreate = true\nnode_timeout = 60\n[filter:catch_errors]\nuse = egg:swift#catch_errors\n"
    with open("%s/%s.conf" % (folder, name), "w") as file:
        file.write(text)
    app = ours.loadapp(file.name, global_conf={"log_name": name})
    eventlet.spawn(wsgi.server, eventlet.listen(("127.0.0.1", int(port)), backlog=512), app, ours.NullLogger(),
                   protocol=ours.SwiftHttpProtocol, capitalize_response_headers=False)
eventlet.event.Event().wait()
"""
    RINGS = r"""
import sys
from swift.common.ring import RingBuilder
folder, ports = sys.argv[1], [int(port) for port in sys.argv[2].split(",")]
for name, ports in (("account", ports[1:2]), ("container", ports[2:3]), ("object", ports[3:])):
    builder = RingBuilder(1, len(ports), 0)
    for number, port in enumerate(ports):
        builder.add_dev({"id": number, "region": 1, "zone": number + 1, "weight": 1.0, "ip": "127.0.0.1", "port": port,
                         "device": "disk%d" % number, "replication_ip": "127.0.0.1", "replication_port": port})
    builder.rebalance()
    builder.get_ring().save("%s/%s.ring.gz" % (folder, name))
"""

    def start(self) -> list[int]:
        """The proxy, then the other two kinds, then the object servers."""
        from pyeclib.ec_iface import VALID_EC_TYPES
        kind = next(each for each in ("isa_l_rs_vand", "liberasurecode_rs_vand") if each in VALID_EC_TYPES)
        (self.folder / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = x\n[swift-constraints]\nmax_file_size = 107374182400\n[storage-policy:0]\nname = coded\n"
            f"default = yes\npolicy_type = erasure_coding\nec_type = {kind}\nec_num_data_fragments = 4\nec_num_parity_fragments = 2\n")
        for number in range(NODES):
            (self.folder / f"disk{number}").mkdir()
        ports = free_ports(3 + NODES)
        subprocess.run([sys.executable, "-c", self.RINGS, str(self.folder), ",".join(map(str, ports))], check=True)
        groups = [(["proxy"], ports[:1]), (["account", "container"], ports[1:3])]
        groups += [([f"object{number}"], [port]) for number, port in enumerate(ports[3:])]
        for names, theirs in groups:
            self.run(sys.executable, "-c", self.CODE, str(self.folder), ",".join(names), ",".join(map(str, theirs)))
        self.await_ports(ports)
        self.ports = ports[:1]
        self.ask("PUT", self.put.rstrip("/"))
        return ports[:1]

    def holders(self, path: str) -> list[int]:
        """Of a fragment of the data each: its file is called TIME#INDEX#d.data."""
        found = {int(each.name.split("#")[1]): int(each.relative_to(self.folder).parts[0][4:])
                 for each in self.folder.glob("disk*/objects/*/*/*/*.data")}
        return [2 + found[1], 2 + found[2]]


KINDS: dict[str, Callable[[Path], Cluster]] = {"callfs": CallFS, "swift": Swift}


def rounds(clusters: list[Cluster], count: int, size: int) -> Iterator[tuple[str, str, float]]:
    """(row, cluster, MB/s), in turn. Files are removed as soon as they were read; the last is for the degraded rounds."""
    for number in range(count):
        for cluster in clusters:
            name, last = f"f{number}", number == count - 1
            os.sync()
            yield "upload", cluster.name, cluster.upload(name, size)
            yield "download", cluster.name, cluster.download(name, size)
            if len(cluster.ports) > 1:
                yield "download at another node", cluster.name, cluster.download(name, size, 3)
            if not last:
                cluster.ask("DELETE", cluster.put + name)
    for cluster in clusters:
        cluster.download(f"f{count - 1}", size, check=True)
        for number in cluster.holders(f"f{count - 1}"):
            cluster.processes[number].send_signal(signal.SIGKILL)
            cluster.processes[number].wait()
        cluster.download(f"f{count - 1}", size, check=True)
    for _ in range(count):
        for cluster in clusters:
            yield "download, two nodes killed", cluster.name, cluster.download(f"f{count - 1}", size)


def compare(clusters: list[Cluster], count: int, size: int) -> None:
    """The table: MB/s, median and (least - most)."""
    figures: dict[str, dict[str, list[float]]] = {}
    for row, name, seconds in rounds(clusters, count, size):
        figures.setdefault(row, {}).setdefault(name, []).append(size / seconds / 1e6)
    print(f"\n| {size // MIB} MiB, 4+2, MB/s | " + " | ".join(cluster.name for cluster in clusters) + " | ratio |\n|" + "---|" * (len(clusters) + 2))
    for row, of in figures.items():
        cells = [f"{statistics.median(of[each.name]):.0f} ({min(of[each.name]):.0f} - {max(of[each.name]):.0f})" if each.name in of else ""
                 for each in clusters]
        ratio = statistics.median(a / b for a, b in zip(of["callfs"], of["swift"])) if "callfs" in of and "swift" in of else None
        print(f"| {row} | {' | '.join(cells)} | {f'{ratio:.2f}' if ratio else ''} |")
    for name, of in figures["download, two nodes killed"].items():
        print(f"{name}: degraded {statistics.median(of) / statistics.median(figures['download'][name]):.2f} of healthy")


def memory(cluster: Cluster, size: int) -> None:
    """Most memory of each process, after each step with one file."""
    def say(what: str, seconds: float = 0.0) -> None:
        rate = f"{size / seconds / 1e6:.0f} MB/s" if seconds else ""
        print(f"{what:24} {rate:>10}  MiB of each process: " + " ".join(f"{each:.0f}" for each in cluster.memory()), flush=True)
    say("at first")
    say("upload", cluster.upload("large", size))
    say("download", cluster.download("large", size, check=True))
    say("at another node", cluster.download("large", size, 3, check=True))
    for number in cluster.holders("large"):
        cluster.processes[number].send_signal(signal.SIGKILL)
        cluster.processes[number].wait()
    say("two nodes killed", cluster.download("large", size, check=True))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, metavar="MIB")
    parser.add_argument("--peers", default="swift", help="swift, or nothing")
    parser.add_argument("--subjects", default="callfs", help="what is measured beside the peers (nothing: the peers alone)")
    parser.add_argument("--memory", type=int, default=0, metavar="MIB", help="size of the file; then nothing else is measured")
    parser.add_argument("--scratch", default=None, help="folder on the disk to measure (default: the one for temporary files)")
    options = parser.parse_args()
    if not shutil.which("redis-server"):
        parser.error("not installed: redis-server")
    print(machine())
    names = [name for name in (options.subjects + "," + options.peers).split(",") if name]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="callfs-bench-", dir=options.scratch)))
        clusters = [stack.enter_context(contextlib.closing(KINDS[name](scratch / name))) for name in names[:1 if options.memory else 2]]
        memory(clusters[0], options.memory * MIB) if options.memory else compare(clusters, options.rounds, options.size * MIB)
    return 0


if __name__ == "__main__":
    sys.exit(main())

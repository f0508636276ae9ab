#!/usr/bin/env python3
"""The tests of callfs.py, in the order of its rooms.

    python3 test_callfs.py                  everything but the long forms
    python3 test_callfs.py --long           the long forms as well
    python3 test_callfs.py -k range -x      whatever else pytest understands

Where pytest cannot be imported, a hidden virtual environment `.venv-test-<version>` is made beside this file, with
what the `test` extra of pyproject.toml lists, and used again the next time. Nothing is installed outside of it.
"""
from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))

# ============================================================================
# The start: an environment with pytest (before anything that is not the standard library)
# ============================================================================


def start(arguments: list[str]) -> int:
    """Run the suite with `arguments` for pytest; in an environment of our own when this Python has no pytest."""
    if importlib.util.find_spec("pytest") is None:
        python = _test_environment()
        os.execv(python, [python, os.path.abspath(__file__), *arguments])
    import pytest
    os.chdir(HERE)                          # `testpaths` counts only from the folder of pyproject.toml
    return int(pytest.main(["-p", "test_callfs", *_workers(arguments), *arguments]))


def _workers(arguments: list[str]) -> list[str]:
    """One process a core and one more, as many tests wait for something; as told, or one, where somebody looks at it."""
    told = any(each.startswith(("-n", "--pdb", "-s", "--capture", "--collect-only")) for each in arguments)
    found = not told and importlib.util.find_spec("xdist") is not None
    return ["-n", str(min(8, (os.cpu_count() or 1) + 1))] if found else []


def _test_environment() -> str:
    """The python of `.venv-test-<version>`, made or brought up to date where needed."""
    folder = os.path.join(HERE, ".venv-test-{}.{}".format(*sys.version_info))
    python = os.path.join(folder, "bin", "python")
    stamp = os.path.join(folder, "requirements.txt")
    wanted = "\n".join(_test_requirements()) + "\n"
    if _read(stamp) != wanted or not _works(python, "import pytest"):
        print(f"pytest is not importable: making {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)       # what an interrupted start left behind is not trusted
        _make_environment(folder, python)
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted.split("\n")[:-1]],
             "The packages of the `test` extra could not be installed. They come from the package index that pip "
             "uses (network, PIP_INDEX_URL, PIP_FIND_LINKS); or install them yourself and start with that Python.")
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(wanted)
    if not _works(python, "import pytest"):
        sys.exit(f"test_callfs.py: {python} cannot import pytest; remove {folder} and start again")
    return python


def _test_requirements() -> list[str]:
    """The `test` extra of pyproject.toml: a list of texts, one a line."""
    found = re.search(r"^test = \[\n(.*?)^\]", _read(os.path.join(HERE, "pyproject.toml")), re.M | re.S)
    if not found:
        sys.exit("test_callfs.py: pytest is missing, and there is no pyproject.toml with a `test` extra beside this "
                 "file to install it from; install pytest, or fetch the whole repository")
    return re.findall(r'^\s*"([^"]+)"', found[1], re.M)


def _make_environment(folder: str, python: str) -> None:
    """A virtual environment with pip, on a Debian without python3-venv (so without ensurepip) too."""
    if _works(sys.executable, "import ensurepip"):
        return _run([sys.executable, "-m", "venv", folder], f"The virtual environment {folder} could not be made.")
    if _works(sys.executable, "import pip; assert int(pip.__version__.split('.')[0]) >= 23"):
        _run([sys.executable, "-m", "venv", "--without-pip", folder], f"The virtual environment {folder} could not be made.")
        return _run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "pip"], _no_pip())
    sys.exit("test_callfs.py: " + _no_pip())


def _no_pip() -> str:
    return ("this Python has neither ensurepip nor pip, so no environment with pytest can be made. "
            "On Debian and Ubuntu: apt install python{}.{}-venv".format(*sys.version_info))


def _works(python: str, code: str) -> bool:
    try:
        return subprocess.run([python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def _run(command: list[str], otherwise: str) -> None:
    """Run, or end with what the program said (its last lines) and what to do about it."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode:
        sys.exit("{}\ntest_callfs.py: {}".format("\n".join(done.stdout.splitlines()[-4:]), otherwise))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))           # pytest imports this file once more, as `test_callfs`


# ============================================================================
# Helpers: servers, requests, waiting, what must not be left behind
# ============================================================================

import ast                                  # noqa: E402
import collections                          # noqa: E402
import base64                               # noqa: E402
import collections.abc                      # noqa: E402
import concurrent.futures                   # noqa: E402
import dataclasses                          # noqa: E402
import datetime                             # noqa: E402
import email                                # noqa: E402
import email.policy                         # noqa: E402
import email.utils                          # noqa: E402
import errno                                # noqa: E402
import fcntl                                # noqa: E402
import functools                            # noqa: E402
import glob                                 # noqa: E402
import hashlib                              # noqa: E402
import hmac                                 # noqa: E402
import io                                   # noqa: E402
import itertools                            # noqa: E402
import pathlib                              # noqa: E402
import py_compile                           # noqa: E402
import random                               # noqa: E402
import select                               # noqa: E402
import shlex                                # noqa: E402
import sqlite3                              # noqa: E402
import stat                                 # noqa: E402
import struct                               # noqa: E402
import tarfile                              # noqa: E402
import textwrap                             # noqa: E402
import traceback                            # noqa: E402
import tracemalloc                          # noqa: E402
import urllib.request                       # noqa: E402
import zipfile                              # noqa: E402
import contextlib                           # noqa: E402
import gc                                   # noqa: E402
import http.client                          # noqa: E402
import http.server                          # noqa: E402
import json                                 # noqa: E402
import signal                               # noqa: E402
import socket                               # noqa: E402
import ssl                                  # noqa: E402
import threading                            # noqa: E402
import time                                 # noqa: E402
import urllib.parse                         # noqa: E402
from pathlib import Path                    # noqa: E402
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Optional, Union  # noqa: E402

import pytest                               # noqa: E402

import callfs                               # noqa: E402

KEY = "test-key-of-tester-0123456789"
SECRETS = {"internal_proxy_secret": "test-internal-secret-0123", "single_use_link_secret": "test-link-secret-01234567"}
LISTENING = re.compile(r"^Listening on (\S+)$", re.M)   # what `serve` prints, a line for each address
PROGRAM_PLACES = ("/usr/sbin", "/usr/local/sbin", "/sbin", *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True))


# ---- pytest -----------------------------------------------------------------------------------------------------

def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`."""
    parser.addoption("--long", action="store_true", help="also run the long forms of tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the long forms unless they are asked for."""
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long form: runs with --long"))


FINISHED = itertools.count(1)               # tests


def pytest_runtest_logfinish() -> None:
    """Keep the garbage collector from what pytest gathers: 7,000 collected tests, a report for each that ran.

    `nothing_left` would look through all of it every time (more than 0.1 s). At the end of the run all counts again."""
    if next(FINISHED) % 50 == 0:
        gc.collect()
        gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What ran, and what did not and why."""
    stats = terminalreporter.stats
    count = {kind: len(stats.get(kind, ())) for kind in ("passed", "failed", "error", "xfailed", "xpassed", "skipped")}
    python = "Python {}.{}.{}".format(*sys.version_info)
    terminalreporter.section("sum")
    terminalreporter.line(f"{python}: " + ", ".join(f"{number} {kind}" for kind, number in count.items() if number))
    reasons = collections.Counter(_skip_reason(report) for report in stats.get("skipped", ()))
    for reason, number in reasons.most_common():
        terminalreporter.line(f"  {number:4d} skipped: {reason}")


def _skip_reason(report: Any) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text[len("Skipped: "):] if text.startswith("Skipped: ") else text


def need_program(name: str) -> str:
    """The path of a program that a test drives; without it the test is skipped (CI installs all: there it fails)."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(PROGRAM_PLACES))
    if not found and os.environ.get("CALLFS_TEST_PROGRAMS") == "required":
        pytest.fail(f"{name} is not installed, and CALLFS_TEST_PROGRAMS says that it must be")
    if not found:
        pytest.skip(f"{name} is not installed")
    return found or ""


# ---- waiting ----------------------------------------------------------------------------------------------------

def wait_for(condition: Callable[[], Any], seconds: float = 10, what: str = "") -> Any:
    """The first true value of `condition()`; fails the test when there is none in `seconds`."""
    deadline, pause = time.monotonic() + seconds, 0.001
    value = condition()
    while not value:
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what or getattr(condition, '__name__', 'a condition')}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
        value = condition()
    return value


# ---- requests ---------------------------------------------------------------------------------------------------

class Answer(NamedTuple):
    """What a server said; header names in lower case, repeats joined by ", "."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    """`http.client` over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connect(url: str, timeout: float = 30) -> http.client.HTTPConnection:
    """A connection to http://, https:// (any certificate) or unix:/path. The caller closes it."""
    if url.startswith("unix:"):
        return UnixConnection(url[len("unix:"):], timeout)
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https":
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=context)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)


def call(server: Any, method: str, path: str, body: Any = None, headers: Mapping[str, Optional[str]] = {}, *,
         timeout: float = 30) -> Answer:
    """One request on a connection of its own. `path` is sent as it stands.

    `server` has `url` and `key`, or is a URL (no key then). The key goes as `Authorization: Bearer` unless `headers`
    names that field itself; a header that is None is left out. A dictionary or list as `body` is sent as JSON.
    """
    url, key = (server, "") if isinstance(server, str) else (server.url, server.key)
    sent = {"authorization": f"Bearer {key}"} if key else {}
    sent.update({name.lower(): value for name, value in headers.items()})
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
        sent.setdefault("content-type", "application/json")
    connection = connect(url, timeout)
    try:
        connection.request(method, path, body, {name: value for name, value in sent.items() if value is not None})
        response = connection.getresponse()
        found: dict[str, str] = {}
        for name, value in response.getheaders():
            found[name.lower()] = f"{found[name.lower()]}, {value}" if name.lower() in found else value
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


def raw_socket(url: str, timeout: float = 10) -> socket.socket:
    """A plain connected socket (no TLS) for http:// or unix:/path. The caller closes it."""
    if url.startswith("unix:"):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(timeout)
        made.connect(url[len("unix:"):])
        return made
    parts = urllib.parse.urlsplit(url)
    made = socket.create_connection((parts.hostname, parts.port), timeout=timeout)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def raw(url: str, data: bytes, *, until: bytes = b"", half_close: bool = False, timeout: float = 10) -> bytes:
    """Send bytes as they stand; everything that comes back until the server closes, or until it ends in `until`.

    A server that resets the connection after its answer is no error. Fails the test after `timeout` of silence.
    """
    answer = b""
    with contextlib.closing(raw_socket(url, timeout)) as connection:
        with contextlib.suppress(ConnectionError):      # it may answer and close before it has all
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        try:
            while not (until and answer.endswith(until)):
                block = connection.recv(65536)
                if not block:
                    break
                answer += block
        except socket.timeout:
            pytest.fail(f"silence for {timeout} s and the connection is open; so far: {answer[:500]!r}")
        except ConnectionError:
            pass
    return answer


# ---- servers ----------------------------------------------------------------------------------------------------

@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`serve(**options)`: a running in-process `callfs.Server` on a root of its own, closed after the test."""
    with contextlib.ExitStack() as stack:
        def start_one(root: Optional[Path] = None, **options: Any) -> Any:
            chosen = root or Path(tempfile.mkdtemp(prefix="root-", dir=tmp_path))
            return stack.enter_context(callfs.Server(root=chosen, **options))
        yield start_one


@functools.lru_cache(maxsize=None)
def compiled() -> str:
    """A `callfs.pyc` for processes that tests start: each of them would compile callfs.py anew, half a second at best."""
    made = os.path.join(tempfile.mkdtemp(), "callfs.pyc")
    return py_compile.compile(callfs.__file__, cfile=made, doraise=True) or made


class Spawned:
    """A real `callfs.py serve` process, started with a configuration. `url` is the first address; `key` is valid."""

    def __init__(self, folder: Path, settings: Mapping[str, Any] = {}, arguments: tuple[str, ...] = (),
                 environ: Mapping[str, str] = {}, python: str = sys.executable) -> None:
        self.folder, self.key = folder, KEY
        self.config = folder / "config.yaml"
        self.config.write_text(callfs.render_yaml(server_settings(folder, settings)), encoding="utf-8")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CALLFS_")}
        self._log = folder / "output.txt"
        with open(self._log, "ab") as output:
            self.process = subprocess.Popen(
                [python, compiled(), "serve", "--config", str(self.config), *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, env={**clean, **environ})
        try:
            wait_for(lambda: LISTENING.search(self.output()) or self.process.poll() is not None, 30, "the server's start")
            self.urls = LISTENING.findall(self.output())
            if not self.urls or self.process.poll() is not None:
                pytest.fail(f"the server did not start (exit code {self.process.poll()}):\n{self.output()}")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    @property
    def url(self) -> str:
        """The first address it listens on."""
        return self.urls[0]

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def output(self) -> str:
        """All it wrote so far, standard output and error."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self, how: int = signal.SIGTERM, seconds: float = 20) -> int:
        """Signal this one process and wait; its exit code. One that does not end in time is killed: -9."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


def server_settings(folder: Path, changes: Mapping[str, Any] = {}) -> dict[str, Any]:
    """A configuration for tests with its data below `folder`; `changes` are merged in, section by section."""
    base: dict[str, Any] = {
        "server": {"listen_addr": "127.0.0.1:0"},
        "auth": {"api_key_users": {"tester": KEY}, **SECRETS},
        "backend": {"localfs_root_path": str(folder / "files")},
        "metadata_store": {"sqlite_path": str(folder / "callfs.sqlite3")},
    }
    for section, values in changes.items():
        base[section] = {**base.get(section, {}), **values}
    return base


@pytest.fixture
def spawn_server(tmp_path: Path) -> Iterator[Callable[..., Spawned]]:
    """`spawn_server(settings, folder=..., arguments=(), environ={})`: a real process; ended after the test.

    The same `folder` given again finds the data of the server before: kill, start, compare.
    """
    started: list[Spawned] = []

    def spawn(settings: Mapping[str, Any] = {}, *, folder: Optional[Path] = None, **more: Any) -> Spawned:
        chosen = folder or Path(tempfile.mkdtemp(prefix="server-", dir=tmp_path))
        started.append(Spawned(chosen, settings, **more))
        return started[-1]

    yield spawn
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Paths of a self-signed certificate for localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run([need_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key


# ---- what must not be left behind -------------------------------------------------------------------------------

def our_threads() -> list[str]:
    """Names of running threads of servers and clients."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("callfs-"))


def open_descriptors(pid: Any = "self") -> dict[int, str]:
    """What each open descriptor of a process leads to (Linux; elsewhere nothing). Devices do not count."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):          # the one of the listing itself
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return {fd: target for fd, target in found.items() if not target.startswith(("/dev/", "/proc/"))}


def our_temporary_files() -> set[str]:
    """What lies in the folder for temporary files under our name; all of ours begins with `callfs`."""
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(("callfs", ".callfs"))}


@contextlib.contextmanager
def nothing_left(seconds: float = 10) -> Iterator[None]:
    """After the block there are no threads of ours, open descriptors and temporary files that were not there before."""
    threads, descriptors, files = our_threads(), open_descriptors(), our_temporary_files()
    yield
    gc.collect()                            # garbage in cycles is the interpreter's business; what is reachable is ours

    def left() -> list[str]:
        gone = collections.Counter(our_threads()) - collections.Counter(threads)
        now = open_descriptors()
        return [*(f"thread {name}" for name in gone),
                *(f"descriptor {fd}: {now[fd]}" for fd in now if descriptors.get(fd) != now[fd]),
                *(f"temporary file {name}" for name in our_temporary_files() - files)]

    deadline = time.monotonic() + seconds
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left(), "left behind: " + "; ".join(left())


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_at_the_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The whole run leaves nothing behind; what it does is an error of the last test.

    Temporary files of the run, of its child processes too, go to a folder of its own: others use /tmp as well.
    """
    before, folder = tempfile.tempdir, str(tmp_path_factory.mktemp("t"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        tempfile.tempdir = folder
        with nothing_left(15):
            gc.collect()
            gc.freeze()                     # and again: see `pytest_runtest_logfinish`
            yield
            gc.unfreeze()
        tempfile.tempdir = before


def test_all_names_are_there() -> None:
    """`__all__` is what importers may rely on: every name exists once, is documented, and no error is left out."""
    assert len(set(callfs.__all__)) == len(callfs.__all__)
    for name in callfs.__all__:
        assert name == "OPTIONS" or getattr(callfs, name).__doc__, name
    errors = {name for name, value in vars(callfs).items() if isinstance(value, type) and issubclass(value, callfs.CallFSError)}
    assert errors - set(callfs.__all__) == {"WebSocketError"}


# ============================================================================
# Configuration: one option table, files, environment, flags, checks
# ============================================================================



KEYS = {
    "api_keys": ["first-key-0123456789"],
    "internal_proxy_secret": "internal-0123456789",
    "single_use_link_secret": "links-0123456789abc",
}


def yaml(text: str) -> object:
    return callfs.parse_yaml(textwrap.dedent(text), "t.yaml")


def config_of(**sections: object) -> callfs.Config:
    return callfs.Config.from_mapping({"auth": KEYS, **sections})


def problems_of(**sections: object) -> list[str]:
    with pytest.raises(callfs.ConfigError) as caught:
        config_of(**sections).validate()
    return str(caught.value).splitlines()


# ---- small values

@pytest.mark.parametrize("text, seconds", [
    ("30s", 30), ("500ms", 0.5), ("1m30s", 90), ("2h", 7200), ("1d", 86400), ("1.5s", 1.5), ("0", 0), ("45", 45),
    (12, 12), (0.25, 0.25), (" 2H ", 7200), ("250us", 0.00025), ("1d2h3m4s5ms", 93784.005),
])
def test_duration(text: object, seconds: float) -> None:
    assert callfs.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("bad", ["", "s", "5 s", "-1s", "1x", "1s1", "1e3s", "٣s", True, None, -1, float("nan"), float("inf"), []])
def test_duration_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="1m30s"):
        callfs.parse_duration(bad)


@pytest.mark.parametrize("seconds", [0, 0.5, 30, 75, 90, 3600, 86400, 93784, 0.001, 1 / 3, 0.0001, 1e6 + 0.25])
def test_duration_round_trip(seconds: float) -> None:
    assert callfs.parse_duration(callfs.format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("text, size", [
    ("10MB", 10**7), ("64KiB", 65536), ("1K", 1024), ("1g", 2**30), ("1.5GiB", 3 * 2**29), ("7", 7), ("7B", 7), (7, 7),
    ("10 mb", 10**7), ("2TB", 2 * 10**12), ("1PiB", 2**50),
])
def test_size(text: object, size: int) -> None:
    assert callfs.parse_size(text) == size
    assert callfs.parse_size(callfs.format_size(size)) == size


@pytest.mark.parametrize("bad", ["", "MB", "-1", "1.5", "0.3KiB", "1XB", "1 0", "1e3", 1.5, True, None, -1, "٣"])
def test_size_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="64KiB"):
        callfs.parse_size(bad)


# ---- YAML

@pytest.mark.parametrize("text, value", [
    ("", None), ("# only\n", None), ("---\na: 1\n", {"a": 1}), ("\ufeffa: 1", {"a": 1}), ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
    ("a:\nb: ~\n", {"a": None, "b": None}), ("a: true\nb: False\nc: null", {"a": True, "b": False, "c": None}),
    ("a: [1, -2, 0x1F, 0o644, 1.5, 1e3, .5]", {"a": [1, -2, 31, 420, 1.5, 1000.0, 0.5]}),
    ("a: :8443\nb: http://x:1/#y # c", {"a": ":8443", "b": "http://x:1/#y"}), ("a: 1:30\nb: 2024-01-01", {"a": "1:30", "b": "2024-01-01"}),
    ("a: -x\nc: a - b", {"a": "-x", "c": "a - b"}),
    ("a:\n- 1\n- 2\nb: 3", {"a": [1, 2], "b": 3}), ("a:\n  - 1\n  -\n    2\n", {"a": [1, 2]}), ("- - 1\n  - 2\n- x", [[1, 2], "x"]),
    ("- name: x\n  b:\n    c: 1\n- name: y", [{"name": "x", "b": {"c": 1}}, {"name": "y"}]), ("-\n- # c\n- 1", [None, None, 1]),
    ("-   a: 1\n    b: 2", [{"a": 1, "b": 2}]), ("a:   # c\n  b: 1", {"a": {"b": 1}}),
    ("a: 'it''s # not'\nb: \"x\\n\\u00e9\\x41\\\\\\U0001F600\\e\"", {"a": "it's # not", "b": "x\n\u00e9A\\\U0001F600\x1b"}),
    ("'a b': 1\n\"c: d\" : 2", {"a b": 1, "c: d": 2}), ("80: x\ntrue: y", {"80": "x", "true": "y"}),
    ("a: {}\nb: []\nc: {d: [1, {e: 2}], \"f\":3, g: 'h'}", {"a": {}, "b": [], "c": {"d": [1, {"e": 2}], "f": 3, "g": "h"}}),
    ("a: [ # c\n  1,   # d\n\n  {b: 2,\n   c: x y},\n]\nd: 1", {"a": [1, {"b": 2, "c": "x y"}], "d": 1}),
    ("a: [http://x:1/y, ::1, a#b]", {"a": ["http://x:1/y", "::1", "a#b"]}),
    ("a: |\n  x\n   y\n\n  z\n\nb: 1", {"a": "x\n y\n\nz\n", "b": 1}), ("a: |-\n  x\n\n", {"a": "x"}), ("a: |+\n  x\n\n", {"a": "x\n\n"}),
    ("a: >\n  x\n  y\n\n  z\n   more\n  w\n", {"a": "x y\nz\n more\nw\n"}), ("a: >- # c\n  x\n  # y\n", {"a": "x # y"}),
    ("a: |\nb: 1", {"a": "", "b": 1}), ("- |\n x\n- y", ["x\n", "y"]), ("- |\n x", ["x"]), ("- a: |\n    x\n  b: 1", [{"a": "x\n", "b": 1}]),
    ("just text", "just text"), ("a: x\n\n   # c\nb: y", {"a": "x", "b": "y"}), ("a: yes sir", {"a": "yes sir"}),
])
def test_yaml(text: str, value: object) -> None:
    assert callfs.parse_yaml(text) == value


@pytest.mark.parametrize("text, line, word", [
    ("a: 1\na: 2", 2, "duplicate key 'a'"), ("a: {b: 1, b: 2}", 1, "duplicate"), ("a: &x 1", 1, "anchor"), ("a: *x", 1, "alias"),
    ("a: !!str 1", 1, "tag"), ("%YAML 1.2", 1, "directive"), ("a: 1\n---\nb: 2", 2, "documents"), ("a: 1\n...", 2, "documents"),
    ("a:\n\tb: 1", 2, "tab"), ("-\ta: 1", 1, "tab"), ("a: b\tc", 1, "tab"), ("a\tb: c", 1, "tab"), ("? a\n: b", 1, "complex"), ("a: 1\n  b: 2", 2, "indentation"),
    ("a:\n    b: 1\n  c: 2", 3, "indentation"), ("  a: 1\nb: 2", 2, "indentation"), ("a: x\n  y", 2, "several lines"),
    ("a: \"x\n  y\"", 1, "close"), ("a: 'x", 1, "close"), ('a: "\\q"', 1, "escape"), ('a: "\\ud800"', 1, "escape"),
    ("a: b: c", 1, "second"), ("a: - b", 1, "list"), ("a: [1, 2", 1, "closed"), ("x: 1\na: {b: 1,\n\n", 2, "closed"), ("a: [1 2: 3]", 1, "expected"),
    ("a: {b}", 1, "expected"), ("a: {b:1}", 1, "expected"), ("a: {b: }", 1, "missing"), ("a: [,]", 1, "missing"), ("a: [1] x", 1, "unexpected"),
    ("a: \"x\" y", 1, "unexpected"), ("a: \"x\"#y", 1, "unexpected"), ("a: no", 1, "quotes"), ("a: On", 1, "quotes"), ("a: 0644", 1, "octal"),
    ("a: .inf", 1, "number"), ("a: 1e999", 1, "too large"), ("a: " + "9" * 200, 1, "number"), ("<<: {a: 1}", 1, "merge"), ("a: {<<: 1}", 1, "quotes"),
    ("a: |2\n   x", 1, "block"), ("a: ?x", 1, "'?'"), ("a: [?x]", 1, "'?'"), ("a: [-]", 1, "outside"), ("a: @x", 1, "'@'"), ("a: `x", 1, "'`'"), ("a: ]", 1, "']'"), ("a: 1\nb", 2, "key: value"), ("a: 1\n- b", 2, "outside"),
    ("a: \x01", 1, "control"), ("a: x\x85y", 1, "control"), ("a: [1]: 2", 1, "unexpected"), ("- 1\na: 2", 2, "indentation"), ("a: \"b\": c", 1, "unexpected"),
    ("[" * 200, 1, "deeper"), ("- " * 200 + "x", 1, "deeper"), ("\n".join(" " * i + "a:" for i in range(200)), 65, "deeper"),
])
def test_yaml_refused(text: str, line: int, word: str) -> None:
    with pytest.raises(callfs.ConfigError) as caught:
        callfs.parse_yaml(text, "c.yaml")
    assert str(caught.value).startswith(f"c.yaml:{line}: ")
    assert word in str(caught.value)


def test_yaml_without_source_names_the_line() -> None:
    with pytest.raises(callfs.ConfigError, match="^line 2: "):
        callfs.parse_yaml("a: 1\na: 2")


@pytest.mark.parametrize("secret", ["0123456789012345", "@hunter2-hunter2", "'hunter2 hunter2", "x: hunter2", "\"\\hunter2\"", "*hunter2"])
def test_yaml_errors_keep_values_to_themselves(secret: str) -> None:
    with pytest.raises(callfs.ConfigError) as caught:
        callfs.parse_yaml(f"auth:\n  internal_proxy_secret: {secret}\n", "c.yaml")
    assert "hunter2" not in str(caught.value) and "0123" not in str(caught.value)


SEED_MINIMAL = """
    server:
      listen_addr: ":8443"
      protocol: "http"
      external_url: "http://localhost:8443" # Used for single-use link URLs
    auth:
      api_keys:
        - "my-secret-api-key-at-least-16-chars"
      internal_proxy_secret: "my-internal-proxy-secret-16ch" # Must not use default value
      single_use_link_secret: "my-link-secret-at-least-16ch!" # Must not use default value
    backend:
      localfs_root_path: "./data"
    metadata_store:
      type: "sqlite"
      sqlite_path: "./callfs.sqlite3"
    dlm:
      type: "local"
    log:
      level: "info" # debug, info, warn, error
      format: "console" # json or console
    instance_discovery:
      instance_id: "node-1"
    """
SEED_CLUSTER = """
    # Node 1 config
    instance_discovery:
      instance_id: "node-1"
      peer_endpoints:
        node-2: "https://10.0.0.2:8443"
        node-3: "https://10.0.0.3:8443"
    # Enable erasure coding
    erasure:
      enabled: true
      data_shards: 4
      parity_shards: 2
    """
SEED_RAFT = """
    metadata_store:
      type: "raft"
    raft:
      enabled: true
      node_id: "node-1"
      bind_addr: "10.0.0.1:7000"
      data_dir: "./raft-data"
      bootstrap: true # Only on the first node
    """
SEED_BASIC = """
    server:
      address: ":8080"
      log_level: info # debug, info, warn, error

    # External plugins (optional)
    external_plugins:
      enabled: true
      plugin_dir: "./plugins"        # Auto-load all plugins from this directory
      auto_load: true                # Enable auto-loading
      plugin_paths:                  # Specific plugins to load (native or WASM)
        - "./examples/hellofs-c/hellofs-c.dylib" # Native plugin
        - "./examples/hellofs-wasm/hellofs-wasm.wasm" # WASM plugin
    plugins:

      memfs:
        enabled: true
        path: /memfs
        config:
          init_dirs:
            - /home
            - /tmp
      queuefs:
        enabled: true
        path: /queuefs
        config: {}
      kvfs:
        enabled: true
        path: /kvfs
        config:
          initial_data:
            welcome: "Hello from PFS!"
    """
SEED_MULTI = """
    plugins:
      # Multiple SQLFS instances
      sqlfs:
        - name: local
          enabled: true
          path: /sqlfs
          config:
            backend: sqlite
            db_path: sqlfs.db
            cache_enabled: true
            cache_max_size: 1000
            cache_ttl_seconds: 5
        - name: production
          enabled: true
          path: /sqlfs_prod
          config:
            backend: tidb
            dsn: "user:pass@tcp(host:4000)/db?charset=utf8mb4"
      # Multiple ProxyFS instances (federation)
      proxyfs:
      - name: server1
        enabled: true
        path: /remote/server1
        config:
          base_url: "http://server1.example.com:8080/api/v1"
      - name: server2
        enabled: true
        path: /remote/server2
        config:
          base_url: "http://server2.example.com:8080/api/v1"
      s3fs:
        - name: mybucket
          enabled: true
          path: /s3/mybucket
          config:
            region: us-west-1
            bucket: my-bucket-name
            access_key_id: AKIAXXXXXXXX
            secret_access_key: secretkey
            prefix: pfs/ # Optional: prefix all keys
      localfs_home:
        enabled: true
        path: /home
        config:
          local_dir: /Users/username
      httpfs:

        - name: httpfs-memfs
          enabled: true
          path: /httpfs-memfs
          config:
            pfs_path: /memfs # PFS path to serve
            http_port: "9000" # HTTP server port

        - name: httpfs-s3
          enabled: false
          path: /httpfs-s3
          config:
            pfs_path: /s3fs/mybucket
            http_port: "9002"
      streamfs:
        enabled: true
        path: /streamfs
        config:
          buffer_size: "10MB" # Ring buffer size per stream
    """
SEED_QUEUES = [f"""
    plugins:
      queuefs:
        enabled: true
        path: /queuefs
        config:
          {settings}
    """ for settings in (
        "backend: memory # or omit for default", "backend: sqlite\n          db_path: queue.db",
        "\n          ".join(("backend: tidb # or \"mysql\"", "host: 127.0.0.1", "port: 4000", "user: root", 'password: ""', "database: queuedb")),
        "\n          ".join(("backend: tidb", "user: 3YdGXuXNdAEmP1f.root", "password: your_password", "port: 4000",
                             "host: gateway01.us-west-2.prod.aws.tidbcloud.com", "enable_tls: true")),
        "init_dirs:\n          - /home\n          - /tmp\n          - /var", "local_dir: /path/to/local/directory # Path to mount")]
SEEDS = [SEED_MINIMAL, SEED_CLUSTER, SEED_RAFT, SEED_BASIC, SEED_MULTI, *SEED_QUEUES,
         'external_plugins:\n  enabled: true\n  plugin_paths:\n    - "./hellofs-c.dylib"\n']


@pytest.mark.parametrize("text", SEEDS)
def test_seeds_are_read_and_valid(text: str) -> None:
    config = callfs.Config.from_mapping(yaml(text))
    config.validate(require_keys=text is SEED_MINIMAL)
    assert callfs.parse_yaml(callfs.render_yaml(yaml(text))) == yaml(text)
    assert callfs.Config.from_mapping(config.show(masked=False)) == config


def test_seed_values() -> None:
    basic = callfs.Config.from_mapping(yaml(SEED_BASIC))
    assert (basic.server.listen_addr, basic.log.level) == (":8080", "info")
    assert basic.plugins["queuefs"]["config"] == {}
    assert basic.external_plugins.plugin_paths[1].endswith(".wasm")
    multi = callfs.Config.from_mapping(yaml(SEED_MULTI)).plugins
    assert [each["name"] for each in multi["proxyfs"]] == ["server1", "server2"]
    assert multi["httpfs"][0]["config"]["http_port"] == "9000"
    assert yaml(SEED_QUEUES[2])["plugins"]["queuefs"]["config"]["host"] == "127.0.0.1"


@pytest.mark.parametrize("value", [
    {}, {"a": []}, {"a": {"b": {}}, "c": [[1, [2, {}]], {"d": [], "e": "f"}, None, True, 1.5, 1e16, -3]},
    {"a": ["", " x", "x ", "no", "0644", "1.0", "~", "null", "true", "a: b", "a #b", "- a", "'", '"', "\n\t\\", "é", "\x85\u2028\ufeff\x7f\x00", "\U0001F600",
           "...", "---", "#", "a:", "[", "{", "1e5", ".5", ".inf", "<<", "@", "x" * 300, "2024-01-01", ":8443", "=", "%a", "a\\b"]},
    {"no": 1, "": 2, "a: b": 3, "<<": 4, "? x": 5, "---": 6, "1": 7},
])
def test_yaml_round_trip(value: dict) -> None:
    assert callfs.parse_yaml(callfs.render_yaml(value)) == value


def mutated(rng: random.Random, text: str) -> str:
    pieces = list(text)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(pieces) + 1)
        pieces[at:at + rng.choice((0, 0, 1, 1, 5))] = rng.choice(["", *"\n\t :-#[]{}&*!|>'\"%@`\\,?~0eé\x00\r", "- ", ": ", "\n  ", "---\n", "|\n", '"', "0x", "<<"])
    return "".join(pieces)


@pytest.mark.parametrize("seed", range(20))
def test_fuzz_only_config_errors(seed: int) -> None:
    rng = random.Random(seed)
    texts = [mutated(rng, textwrap.dedent(rng.choice(SEEDS))) for _ in range(150)]
    texts += ["".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in range(rng.randrange(40))) for _ in range(50)]
    for text in texts:
        try:
            value = callfs.parse_yaml(text, "f.yaml")
            callfs.Config.from_mapping(value, "f.yaml").validate(require_keys=False)
        except callfs.ConfigError as error:
            assert str(error)


# ---- files, environment, flags

def write(folder: object, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_precedence_and_source(tmp_path: object) -> None:
    assert callfs.Config.load(folder=str(tmp_path), require_keys=False).source == ""
    path = write(tmp_path, "config.yaml", "server: {listen_addr: ':1', read_timeout: 1m, workers: 9}\nauth: {api_key_users: {bob: bobs-key-0123456789}}\n")
    environ = {"CALLFS_SERVER__LISTEN_ADDR": ":2", "CALLFS_SERVER__READ_TIMEOUT": "2m", "CALLFS_AUTH__API_KEY_USERS__ALICE": "alice-key-0123456789",
               "CALLFS_URL": "x", "CALLFS_KEY": "y", "CALLFS_CONFIG": "z", "HOME": "/", "CALLFS_SERVER__CORS_ORIGINS": "https://a.b, https://c.d"}
    config = callfs.Config.load(environ=environ, flags={"--listen": ":3", "log.level": "debug"}, folder=str(tmp_path), require_keys=False)
    assert config.source == path
    assert (config.server.listen_addr, config.server.read_timeout, config.server.workers, config.log.level) == (":3", 120.0, 9, "debug")
    assert config.auth.api_key_users == {"bob": "bobs-key-0123456789", "alice": "alice-key-0123456789"}
    assert config.server.cors_origins == ["https://a.b", "https://c.d"]
    assert callfs.Config().auth.api_key_users == {}, "defaults are not shared"


def test_file_order_and_formats(tmp_path: object) -> None:
    for name, text in (("config.toml", "[server]\nworkers = 4\n"), ("config.json", '{"server": {"workers": 3}}'),
                       ("config.yml", "server:\n  workers: 2\n"), ("config.yaml", "server:\n  workers: 1\n")):
        path = write(tmp_path, name, text)
        if name == "config.toml" and sys.version_info < (3, 11):
            with pytest.raises(callfs.ConfigError, match="Python 3.11"):
                callfs.Config.load(path, require_keys=False)
            continue
        config = callfs.Config.load(folder=str(tmp_path), require_keys=False)
        assert (config.source, config.server.workers) == (path, int(re.search(r"\d", text)[0]))


@pytest.mark.parametrize("name, text, message", [
    ("a.json", '{"a": 1,\n "a": 2}', "a.json: duplicate key 'a' .*lines 1, 2"), ("a.json", '{\n"a" 1}', r"a\.json:2: "), ("a.json", '{"a": NaN}', "NaN"),
    ("a.json", "[" * 100000, "a.json"), ("a.json", "[]", "expected sections"), ("a.yaml", "- a", "expected sections"), ("a.yaml", "x" * 1100000, "larger"),
    ("a.yaml", "server: 1", "a.yaml:1: server: must be a section"), ("a.yaml", "\n\nserver:\n  lisen_addr: x", "a.yaml:4: server.lisen_addr: unknown option; did you mean server.listen_addr"),
    ("a.yaml", "severs: {}", "a.yaml:1: severs: unknown option; did you mean server"), ("a.yaml", "server:\n  workers: many", r"a.yaml:2: server.workers: must be a whole number \(it is many\)"),
    ("a.yaml", "server: {address: ':1', listen_addr: ':2'}", "twice"), ("a.yaml", "log_level: info\nlog: {level: debug}", "twice"),
    ("a.yaml", "server: {workers: x, read_timeout: 5 apples}\nlog: {level: loud}", "(?s)workers.*\n.*read_timeout.*5 apples.*\n.*log.level: must be one of debug, info, warn, error .it is loud"),
    ("a.yaml", "auth: {api_keys: [1234567890123456]}", r"auth.api_keys: must be a list of texts .*\*"), ("a.yaml", "metadata_store: {redis_password: 12345}", r"put it in quotes \(it is \*{8}\)"),
    ("missing.yaml", None, "cannot read"),
])
def test_bad_files(tmp_path: object, name: str, text: str | None, message: str) -> None:
    path = str(tmp_path / name) if text is None else write(tmp_path, name, text)
    with pytest.raises(callfs.ConfigError, match=message) as caught:
        callfs.Config.load(path)
    assert "12345" not in str(caught.value)


def test_not_utf8(tmp_path: object) -> None:
    (tmp_path / "c.yaml").write_bytes(b"a: \xff")
    with pytest.raises(callfs.ConfigError, match="UTF-8"):
        callfs.Config.load(str(tmp_path / "c.yaml"))


@pytest.mark.parametrize("text", ["server: {address: ':1', listen_addr: ':1'}", "server:\n  log_level: debug\nlog_level: debug", "auth:\nlog:\n  level: null\n", ""])
def test_other_spellings_and_nothing(text: str) -> None:
    callfs.Config.from_mapping(callfs.parse_yaml(text))


@pytest.mark.parametrize("name, value, message", [
    ("CALLFS_SERVER__LISTEN_ADR", "x", "did you mean CALLFS_SERVER__LISTEN_ADDR"), ("CALLFS_FOO__BAR", "x", "unknown"), ("CALLFS_SERVER__", "x", "unknown"),
    ("CALLFS_SERVER_LISTEN_ADDR", "x", "did you mean CALLFS_SERVER__LISTEN_ADDR"), ("CALLFS_SERVER__LISTEN_ADDR__X", "x", "unknown"),
    ("CALLFS_SERVER__WORKERS", "few", "CALLFS_SERVER__WORKERS: must be a whole number .it is few"), ("CALLFS_AUTH__API_KEY_USERS", "alice", "name=value"),
    ("CALLFS_PLUGINS__MEMFS__ENABLED", "no", "true, false"),
])
def test_bad_environment(name: str, value: str, message: str) -> None:
    with pytest.raises(callfs.ConfigError, match=message):
        callfs.Config.load(environ={name: value}, folder="/nonexistent")


def test_maps_from_the_environment() -> None:
    environ = {"CALLFS_PLUGINS__MEMFS__ENABLED": "true", "CALLFS_PLUGINS__MEMFS__PATH": "/m", "CALLFS_PLUGINS__MEMFS__CONFIG__SIZE": "3",
               "CALLFS_RAFT__PEERS": "node-2=10.0.0.2:7000, node-3=h:1", "CALLFS_RAFT__PEERS__N4": "h:2", "CALLFS_SERVER__ADDRESS": ":5"}
    config = callfs.Config.load(environ=environ, folder="/nonexistent", require_keys=False)
    assert config.plugins == {"memfs": {"enabled": True, "path": "/m", "config": {"size": 3}}}
    assert config.raft.peers == {"node-2": "10.0.0.2:7000", "node-3": "h:1", "n4": "h:2"}
    assert config.server.listen_addr == ":5"


# ---- checks

@pytest.mark.parametrize("sections, message", [
    ({"server": {"listen_addr": "8443"}}, "server.listen_addr: must be :8443"), ({"server": {"listen_addr": ":65536"}}, "0 to 65535"),
    ({"server": {"listen_addr": "::1:80"}}, "server.listen_addr"), ({"server": {"listen_addr": ""}}, "empty"), ({"metrics": {"listen_addr": "x"}}, "metrics.listen_addr"),
    ({"server": {"protocol": "https"}}, "server.cert_file: is needed"), ({"server": {"cert_file": "c"}}, "server.key_file"), ({"server": {"key_file": "c"}}, "server.cert_file"),
    ({"server": {"enable_quic": True}}, "HTTP/3"), ({"server": {"external_url": "localhost:1"}}, "external_url: must be http"), ({"server": {"external_url": "http://u:p@h"}}, "without user"),
    ({"server": {"external_url": "http://h:99999"}}, "external_url"), ({"server": {"external_url": "http://h/?q"}}, "external_url"), ({"server": {"path_prefix": "x/"}}, "path_prefix"),
    ({"server": {"path_prefix": "/a/../b"}}, "path_prefix"), ({"server": {"trusted_proxies": ["10.0.0.0/40"]}}, "trusted_proxies"), ({"server": {"cors_origins": ["https://a/b"]}}, "cors_origins"),
    ({"server": {"workers": 8, "max_workers": 4}}, "max_workers: must be at least server.workers (it is 4)"),
    ({"server": {"cert_file": "-----BEGIN X"}}, "path of a file"), ({"server": {"quic_listen_addr": "unix:/x"}}, "UDP"), ({"server": {"max_request_line": "64KiB"}}, "max_head_bytes"),
    ({"erasure": {"data_shards": 200, "parity_shards": 57}}, "256"), ({"erasure": {"write_quorum": 4}}, "write_quorum"), ({"erasure": {"write_quorum": 7}}, "write_quorum"),
    ({"erasure": {"default": True}}, "erasure.enabled"), ({"ha": {"replication_enabled": True}}, "replica_backend"), ({"ha": {"replication_enabled": True, "replica_backend": "localfs"}}, "differ"),
    ({"backend": {"default_backend": "s3"}}, "s3_bucket_name"), ({"backend": {"s3_access_key": "abc"}}, "s3_secret_key: is needed"), ({"backend": {"s3_kms_key_id": "k"}}, "aws:kms"),
    ({"backend": {"s3_endpoint": "minio:9000"}}, "s3_endpoint"), ({"metadata_store": {"type": "postgres"}}, "metadata_store.dsn: is needed"), ({"metadata_store": {"type": "redis"}}, "redis_addr"),
    ({"metadata_store": {"type": "sqlite", "sqlite_path": ""}}, "sqlite_path"), ({"metadata_store": {"type": "raft"}}, "raft.enabled: must be true for metadata_store.type raft (it is False)"),
    ({"metadata_store": {"type": "raft"}, "raft": {"enabled": True, "node_id": "a", "bind_addr": "h:1"}}, "raft.data_dir"), ({"raft": {"bind_addr": ":7000"}}, "raft.bind_addr: must be host:port"),
    ({"raft": {"peers": {"a": "h"}}}, "raft.peers"), ({"dlm": {"type": "redis"}}, "dlm.redis_addr"), ({"instance_discovery": {"instance_id": "a b"}}, "instance_id"),
    ({"instance_discovery": {"peer_endpoints": {"b": "10.0.0.2"}}}, "peer_endpoints"), ({"plugins": {"memfs": {"path": "m"}}}, "plugins"), ({"plugins": {"memfs": 1}}, "plugins"),
    ({"external_plugins": {"enabled": True, "auto_load": True}}, "plugin_dir"),
    ({"auth": {**KEYS, "api_keys": []}}, "auth.api_keys: needs a key"), ({"auth": {**KEYS, "internal_proxy_secret": ""}}, "auth.internal_proxy_secret: is needed"),
    ({"auth": {**KEYS, "api_keys": ["short"]}}, "at least 16"), ({"auth": {**KEYS, "api_keys": ["default-api-key"]}}, "placeholder"),
    ({"auth": {**KEYS, "single_use_link_secret": "change-me-link-secret"}}, "placeholder"), ({"auth": {**KEYS, "internal_proxy_secret": "change-me-internal-secret"}}, "placeholder"),
    ({"auth": {**KEYS, "api_keys": ["k" * 16] * 2}}, "auth.api_keys: holds a key twice"), ({"auth": {**KEYS, "api_key_users": {"a": KEYS["api_keys"][0]}}}, "auth.api_key_users: holds a key twice"),
    ({"auth": {**KEYS, "internal_proxy_secret": KEYS["api_keys"][0]}}, "must not be an API key"), ({"auth": {**KEYS, "api_keys": ["käy-0123456789-0123"]}}, "ASCII"),
    *(({"auth": {**KEYS, "api_key_users": {name: "k" * 16}}}, "auth.api_key_users: '" + name) for name in ("root", "internal-proxy", "api-user-12", "a b", "")),
])
def test_checks(sections: dict, message: str) -> None:
    found = problems_of(**sections)
    assert any(message in problem for problem in found), found
    assert all(re.match(r"[a-z_]+(\.[a-z0-9_]+)?: .* \(it is .*\)$", problem) for problem in found)
    assert not any(secret in problem for problem in found for secret in ("0123456789", "kkkk", "change-me", "default-api"))


@pytest.mark.parametrize("sections", [
    {}, {"server": {"listen_addr": "unix:/run/x, [::1]:0,h:1", "path_prefix": "/a/b", "trusted_proxies": ["10.0.0.0/8", "::1", "unix"], "cors_origins": ["*", "http://a:1"]}},
    {"erasure": {"enabled": True, "data_shards": 200, "parity_shards": 56, "write_quorum": 201}}, {"server": {"protocol": "https", "cert_file": "c", "key_file": "k", "enable_quic": True}},
    {"metadata_store": {"type": "postgres", "dsn": "postgres://u:p@h/d"}}, {"backend": {"default_backend": "s3", "s3_bucket_name": "b", "s3_endpoint": "http://minio:9000"}},
    {"dlm": {"type": "redis", "redis_addr": "localhost:6379"}, "server": {"unix_mode": "600"}}, {"auth": {**KEYS, "api_keys": [], "anonymous": "read"}},
])
def test_accepted(sections: dict) -> None:
    config_of(**sections).validate()


def test_all_problems_at_once() -> None:
    config = callfs.Config(server=callfs.ServerOptions(listen_addr="x", read_timeout="30s", workers=0), log=callfs.LogOptions(level="loud"))
    with pytest.raises(callfs.ConfigError) as caught:
        config.validate()
    keys = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert keys == ["server.read_timeout", "server.workers", "log.level", "server.listen_addr", "auth.internal_proxy_secret", "auth.single_use_link_secret", "auth.api_keys"]


@pytest.mark.parametrize("about", callfs.OPTIONS, ids=lambda about: about.key)
@pytest.mark.parametrize("junk", [object(), [1], {"a": object()}, b"x", float("nan"), -1, "\0", None])
def test_junk_in_python_is_an_error_or_fine(about: object, junk: object) -> None:
    config = callfs.Config()
    section, _, name = about.key.rpartition(".")
    setattr(getattr(config, section) if section else config, name, junk)
    try:
        config.validate(require_keys=False)
    except callfs.ConfigError as error:
        assert about.key in str(error)


def test_warnings() -> None:
    found = config_of(auth={**KEYS, "admins": ["nobody"], "anonymous": "write"}).validate()
    assert [line.split(":")[0] for line in found] == ["auth.api_keys", "auth.anonymous", "auth.admins"]
    assert "api_key_users" in found[0] and "nobody" in found[2]
    users = {**KEYS, "api_keys": [], "api_key_users": {"ann": "k" * 16}, "admins": ["ann", "root"]}
    assert config_of(auth=users).validate() == []


@pytest.mark.parametrize("text, addresses", [
    (":8443", [("tcp", "", 8443, "")]), ("127.0.0.1:0", [("tcp", "127.0.0.1", 0, "")]), ("[::1]:80, unix:/a b", [("tcp", "::1", 80, ""), ("unix", "", 0, "/a b")]),
    ("[fe80::1%eth0]:1", [("tcp", "fe80::1%eth0", 1, "")]), ("my-host:1", [("tcp", "my-host", 1, "")]),
])
def test_listen(text: str, addresses: list) -> None:
    assert callfs.parse_listen(text) == addresses


@pytest.mark.parametrize("text", ["", "8443", "h", "h:", "h:x", ":-1", ":65536", ":٣", "[::1]", "[x]:1", "[:::]:1", "::1:1", "unix:", ":1,", "h h:1", "*:1"])
def test_listen_refused(text: str) -> None:
    with pytest.raises(ValueError):
        callfs.parse_listen(text)


# ---- what is shown

def test_secrets_are_masked_everywhere() -> None:
    secret = "hunter2-hunter2-hunter2"
    config = config_of(auth={"api_keys": [secret], "api_key_users": {"a": secret + "x"}, "internal_proxy_secret": secret + "y", "single_use_link_secret": secret + "z"},
                       metadata_store={"dsn": secret, "redis_password": secret}, backend={"s3_access_key": secret, "s3_secret_key": secret}, dlm={"redis_password": secret},
                       plugins={"s": [{"path": "/s", "config": {"secret_access_key": secret, "dsn": secret, "password": [secret], "base_url": f"http://u:{secret}@h"}}]})
    assert secret not in callfs.render_yaml(config.show()) + repr(config)
    assert config.show()["auth"]["api_keys"] == ["********"] and config.show()["auth"]["api_key_users"] == {"a": "********"}
    assert config.show(masked=False)["auth"]["api_keys"] == [secret]
    assert config.show()["server"]["max_upload_bytes"] == "10GiB"
    assert callfs.Config().show()["auth"]["internal_proxy_secret"] == ""


def test_show_reference_and_template_cover_every_option() -> None:
    shown, reference, template = callfs.Config().show(), callfs.option_reference(), callfs.config_template()
    for about in callfs.OPTIONS:
        section, _, name = about.key.rpartition(".")
        assert name in (shown[section] if section else shown)
        assert f"| `{about.key}` |" in reference and f"# {name}: " in template and about.help
    assert callfs.Config.from_mapping(callfs.parse_yaml(callfs.render_yaml(shown))) == callfs.Config(source="configuration")


def test_template() -> None:
    assert callfs.Config.from_mapping(callfs.parse_yaml(callfs.config_template()), "") == callfs.Config()
    uncommented = re.sub(r"(?m)^( *)# ([a-z0-9_]+: )", r"\1\2", callfs.config_template())
    assert callfs.Config.from_mapping(callfs.parse_yaml(uncommented), "") == callfs.Config()
    chosen = {"auth.api_key_users": {"ann": "k" * 16}, "server.idle_timeout": "2m", "plugins": {"m": {"path": "/m"}}}
    config = callfs.Config.from_mapping(callfs.parse_yaml(callfs.config_template(chosen)))
    assert (config.auth.api_key_users, config.server.idle_timeout, config.plugins) == ({"ann": "k" * 16}, 120.0, {"m": {"path": "/m"}})


def test_option_table() -> None:
    flags = [about.flag for about in callfs.OPTIONS if about.flag]
    assert sorted(flags) == ["--durability", "--external-url", "--listen", "--log-level", "--mode"]
    assert {about.env for about in callfs.OPTIONS} >= {"CALLFS_SERVER__LISTEN_ADDR", "CALLFS_PLUGINS"}
    assert json.dumps([about.show(about.default) for about in callfs.OPTIONS])


try:
    import hypothesis                       # noqa: E402
    from hypothesis import strategies       # noqa: E402
except ImportError:                         # its tests are skipped then; every table runs
    hypothesis = strategies = None          # type: ignore[assignment]

ALICE, BOB, OUTSIDE = callfs.Principal("alice"), callfs.Principal("bob"), callfs.ROOT


def property_test(examples: int, **given: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`hypothesis.given` with as many examples, its strategies as `name=lambda strategies: ...`."""
    def wrap(test: Callable[..., None]) -> Callable[..., None]:
        if hypothesis is None:
            def skipped() -> None:
                pytest.skip("hypothesis is not installed")
            skipped.__name__ = test.__name__
            return skipped
        settings = hypothesis.settings(max_examples=examples, deadline=None, database=None, print_blob=True)
        chosen = {name: make(strategies) for name, make in given.items()}
        return settings(hypothesis.given(**chosen)(test))
    return wrap


# ============================================================================
# Small values: canonical paths, ranges, conditions, dates
# ============================================================================

@pytest.mark.parametrize("text, canonical", [
    ("/", "/"), ("", "/"), ("//", "/"), ("/.", "/"), ("/./", "/"), ("/a/..", "/"), ("a", "/a"), ("a/b/", "/a/b"),
    ("/a", "/a"), ("/a/", "/a"), ("//a//b//", "/a/b"), ("/a/./b", "/a/b"), ("/a/x/../b", "/a/b"),
    ("/.hidden", "/.hidden"),
    ("/a/...", "/a/..."), ("/..a", "/..a"), ("/a..", "/a.."), ("/Makefile", "/Makefile"), ("/x y+z@%20", "/x y+z@%20"),
    ("/caf\u00e9", "/caf\u00e9"), ("/cafe\u0301", "/cafe\u0301"), ("/\U0001f600", "/\U0001f600"),
    ("/a:b?c#d&e;f", "/a:b?c#d&e;f"),
    ("/" + "n" * 255, "/" + "n" * 255), ("/" + "\u00e9" * 127, "/" + "\u00e9" * 127),
    ("/a/" * 50 + "b", "/a" * 50 + "/b"),
    ("/" + "/".join(["n" * 255] * 16), "/" + "/".join(["n" * 255] * 16)),
])
def test_canonical_path(text: str, canonical: str) -> None:
    """One spelling, and it is its own spelling."""
    assert callfs.canonical_path(text) == canonical
    assert callfs.canonical_path(canonical) == canonical


BAD_CHARACTERS = ["\\", "\0", "\n", "\r", "\t", "\x1f", "\x7f", "\x80", "\x9f", *map(chr, range(0x202a, 0x202f)),
                  *map(chr, range(0x2066, 0x206a)), "\ud800", "\udcff", "\udfff"]


@pytest.mark.parametrize("text", [
    "..", "/..", "/../a", "/a/../..", "/a/../../b", "../a", "/a/b/../../../c", "/./..",
    "/" + "n" * 256, "/a/" + "n" * 256 + "/b", "/" + "\u00e9" * 128, "/" + "\U0001f600" * 64,
    "/" + "/".join(["n" * 255] * 16) + "/n", "/n" * 2049,
    *("/a" + character for character in BAD_CHARACTERS), *(f"/a/{character}/b" for character in BAD_CHARACTERS),
])
def test_canonical_path_refuses(text: str) -> None:
    """What rest.md ("Paths") lists, with a message that says nothing of the machine."""
    with pytest.raises(callfs.BadRequest) as caught:
        callfs.canonical_path(text)
    assert caught.value.status == 400 and text not in caught.value.message


@property_test(300, text=lambda some: some.text(some.sampled_from("/..ab %\u00e9\u202e\\\0~-!0"), max_size=30))
def test_canonical_path_of_anything(text: str) -> None:
    """Refused, or canonical: absolute, idempotent, no odd part, nothing forbidden."""
    try:
        path = callfs.canonical_path(text)
    except callfs.BadRequest:
        return
    assert callfs.canonical_path(path) == path and path.startswith("/")
    assert path == "/" or not {"", ".", ".."} & set(path[1:].split("/"))
    assert not set(path) & set(BAD_CHARACTERS)


@pytest.mark.parametrize("raw, text", [
    ("/a", "/a"), ("/a%20b", "/a b"), ("/a+b", "/a+b"), ("/%252e", "/%2e"), ("/%2e%2e/x", "/../x"), ("/a%2Fb", "/a/b"),
    ("/caf%C3%A9", "/caf\u00e9"), ("/caf\u00c3\u00a9", "/caf\u00e9"), ("/100%", "/100%"), ("/%zz", "/%zz"),
    ("/%5C", "/\\"),
    ("/%00", "/\0"),
])
def test_decode_path(raw: str, text: str) -> None:
    """Decoded once; raw bytes beyond ASCII count as UTF-8."""
    assert callfs.decode_path(raw) == text


@pytest.mark.parametrize("raw", ["/%ff", "/%C3", "/\u00e9", "/%ED%A0%80", "/%C0%AF", "/%F8%88%80%80%80"])
def test_decode_path_refuses(raw: str) -> None:
    """Overlong forms, surrogates and halves are no UTF-8."""
    with pytest.raises(callfs.BadRequest):
        callfs.decode_path(raw)


@pytest.mark.parametrize("path, parent, name, above", [
    ("/", "", "", []), ("/a", "/", "a", ["/"]), ("/a/b", "/a", "b", ["/", "/a"]),
    ("/a/b/c", "/a/b", "c", ["/", "/a", "/a/b"]),
])
def test_path_parts(path: str, parent: str, name: str, above: list[str]) -> None:
    """`split_path`, `join_path`, `ancestors`, `is_below` agree with each other."""
    assert callfs.split_path(path) == (parent, name)
    assert callfs.ancestors(path) == above
    assert not name or callfs.join_path(parent, name) == path
    assert all(callfs.is_below(path, other) for other in [*above, path])
    assert not callfs.is_below(path, path.rstrip("/") + "/x") and not callfs.is_below("/ab", "/a")


RANGES = [                                  # (header, size, pairs; None: ignored; (): 416)
    # RFC 9110, 14.1.2: its examples for a representation of 10,000 bytes
    ("bytes=0-499", 10_000, [(0, 500)]), ("bytes=500-999", 10_000, [(500, 1000)]),
    ("bytes=-500", 10_000, [(9500, 10_000)]),
    ("bytes=9500-", 10_000, [(9500, 10_000)]), ("bytes=0-0,-1", 10_000, [(0, 1), (9999, 10_000)]),
    ("bytes= 0-999, 4500-5499, -1000", 10_000, [(0, 1000), (4500, 5500), (9000, 10_000)]),
    ("bytes=500-600,601-999", 10_000, [(500, 601), (601, 1000)]), ("bytes=500-700,601-999", 10_000, [(500, 1000)]),
    # the edges of a file
    ("bytes=0-", 1, [(0, 1)]), ("bytes=0-9", 10, [(0, 10)]), ("bytes=9-9", 10, [(9, 10)]),
    ("bytes=5-99", 10, [(5, 10)]),
    ("bytes=-10", 10, [(0, 10)]), ("bytes=-11", 10, [(0, 10)]), ("bytes=10-", 10, ()), ("bytes=10-20", 10, ()),
    ("bytes=-0", 10, ()),
    ("bytes=0-", 0, ()), ("bytes=0-0", 0, ()), ("bytes=-1", 0, ()), ("bytes=0-0,10-", 10, [(0, 1)]),
    # numbers that overflow elsewhere
    ("bytes=0-18446744073709551615", 10, [(0, 10)]), ("bytes=18446744073709551616-", 10, ()),
    ("bytes=-99999999999999999999", 10, [(0, 10)]),
    # the order asked for, unless they overlap
    ("bytes=8-9,0-1", 10, [(8, 10), (0, 2)]), ("bytes=4-6,0-4,6-9", 10, [(0, 10)]), ("bytes=0-9,2-3", 10, [(0, 10)]),
    ("bytes=1-1,1-1", 10, [(1, 2)]),
    # ignored: another unit, bad syntax, too many
    ("", 10, None), ("bytes", 10, None), ("bytes=", 10, None), ("items=0-1", 10, None), ("bytes=-", 10, None),
    ("bytes=a-b", 10, None),
    ("bytes=2-1", 10, None), ("bytes=0-1;2-3", 10, None), ("bytes=+0-1", 10, None), ("bytes=0x0-1", 10, None),
    ("bytes=0--1", 10, None),
    ("bytes=0-1,x", 10, None), ("bytes=\u0661-\u0662", 10, None), ("bytes=" + "9" * 5000 + "-", 10, None),
    ("BYTES=0-1", 10, [(0, 2)]),
    ("bytes=" + ",".join(f"{2 * i}-{2 * i}" for i in range(16)), 100, [(2 * i, 2 * i + 1) for i in range(16)]),
    ("bytes=" + ",".join(f"{2 * i}-{2 * i}" for i in range(17)), 100, None),
    ("bytes=" + "0-," * 100_000 + "0-", 100, None),
]


@pytest.mark.parametrize("header, size, pairs", RANGES, ids=[row[0][:40] for row in RANGES])
def test_parse_ranges(header: str, size: int, pairs: Any) -> None:
    """RFC 9110, 14.2."""
    if pairs == ():
        with pytest.raises(callfs.RangeNotSatisfiable) as caught:
            callfs.parse_ranges(header, size)
        assert ("Content-Range", f"bytes */{size}") in caught.value.headers
    else:
        assert callfs.parse_ranges(header, size) == pairs


@property_test(300, size=lambda some: some.integers(0, 30), specs=lambda some: some.lists(some.tuples(
    some.one_of(some.none(), some.integers(0, 40)), some.one_of(some.none(), some.integers(0, 40))), min_size=1,
    max_size=16))
def test_parse_ranges_covers_what_was_asked(size: int, specs: list[tuple[Optional[int], Optional[int]]]) -> None:
    """The pairs are not empty, lie in the file, do not overlap, and hold exactly the bytes asked for."""
    header = "bytes=" + ",".join("{}-{}".format(*("" if end is None else end for end in spec)) for spec in specs)
    wanted: set[int] = set()
    valid = True
    for first, last in specs:
        valid &= not (first is None and last is None) and (first is None or last is None or first <= last)
        start = first if first is not None else max(0, size - (last or 0))
        wanted |= set(range(start, size if first is None or last is None else min(size, last + 1)))
    try:
        pairs = callfs.parse_ranges(header, size)
    except callfs.RangeNotSatisfiable:
        assert valid and not wanted
        return
    assert (pairs is not None) == valid
    if pairs is not None:
        covered = [byte for start, stop in pairs for byte in range(start, stop)]
        assert sorted(covered) == sorted(wanted) and all(start < stop for start, stop in pairs)


@pytest.mark.parametrize("header, tags", [
    ("*", None), (" * ", None), ('"a"', [(False, "a")]), ('W/"a"', [(True, "a")]),
    ('"a", W/"b" ,"c"', [(False, "a"), (True, "b"), (False, "c")]),
    ('"a,b"', [(False, "a,b")]), ('""', [(False, "")]), ("", []), ("a", []), ('"a', []), ('w/"a"', []), ('"a" "b"', []),
    ('"a",b', [(False, "a")]),
])
def test_parse_etags(header: str, tags: Any) -> None:
    """RFC 9110, 8.8.3."""
    assert callfs.parse_etags(header) == tags


THEN = email.utils.parsedate_to_datetime("Sun, 06 Nov 1994 08:49:37 GMT").timestamp()
EARLIER, SAME, LATER = (callfs.http_date(THEN + shift) for shift in (-1, 0, 1))
CONDITIONS = [                              # (conditions, reading, writing); True: 304, False: go on, None: 412
    ({}, False, False),
    # 1: If-Match is true for * and for a strong match
    ({"if_match": "*"}, False, False), ({"if_match": '"now"'}, False, False),
    ({"if_match": '"old", "now"'}, False, False),
    ({"if_match": '"old"'}, None, None), ({"if_match": 'W/"now"'}, None, None), ({"if_match": "garbage"}, None, None),
    # 2: only without If-Match
    ({"if_unmodified_since": SAME}, False, False), ({"if_unmodified_since": LATER}, False, False),
    ({"if_unmodified_since": EARLIER}, None, None), ({"if_unmodified_since": "garbage"}, False, False),
    ({"if_match": '"now"', "if_unmodified_since": EARLIER}, False, False),
    # 3: If-None-Match is false for * and for a weak match
    ({"if_none_match": "*"}, True, None), ({"if_none_match": '"now"'}, True, None),
    ({"if_none_match": 'W/"now"'}, True, None),
    ({"if_none_match": '"old"'}, False, False), ({"if_none_match": '"old", W/"now"'}, True, None),
    ({"if_none_match": "garbage"}, False, False),
    # 4: only without If-None-Match, only for reading
    ({"if_modified_since": SAME}, True, False), ({"if_modified_since": LATER}, True, False),
    ({"if_modified_since": EARLIER}, False, False),
    ({"if_modified_since": "garbage"}, False, False),
    ({"if_none_match": '"old"', "if_modified_since": LATER}, False, False),
    # the first that fails decides
    ({"if_match": '"old"', "if_none_match": '"now"'}, None, None),
    ({"if_match": '"now"', "if_none_match": '"now"'}, True, None),
    ({"if_unmodified_since": EARLIER, "if_modified_since": LATER}, None, None),
]


@pytest.mark.parametrize("headers, reading, writing", CONDITIONS)
def test_conditions(headers: dict[str, str], reading: Any, writing: Any) -> None:
    """The steps of RFC 9110, 13.2.2, for a file with the tag "now"."""
    for outcome, way in ((reading, True), (writing, False)):
        if outcome is None:
            with pytest.raises(callfs.PreconditionFailed):
                callfs.Conditions(**headers).check("now", THEN + 0.9, reading=way)
        else:
            assert callfs.Conditions(**headers).check("now", THEN + 0.9, reading=way) is outcome


@pytest.mark.parametrize("headers, allowed", [
    ({}, True), ({"if_none_match": "*"}, True), ({"if_none_match": '"now"'}, True), ({"if_match": "*"}, False),
    ({"if_match": '"now"'}, False),
])
def test_conditions_where_nothing_is(headers: dict[str, str], allowed: bool) -> None:
    """`If-None-Match: *` creates, `If-Match` never does."""
    if allowed:
        assert not callfs.Conditions(**headers).check(None, 0, reading=False)
    else:
        with pytest.raises(callfs.PreconditionFailed):
            callfs.Conditions(**headers).check(None, 0, reading=False)


@pytest.mark.parametrize("text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                                  "Sun Nov  6 08:49:37 1994"])
def test_parse_http_date(text: str) -> None:
    """The three forms of RFC 9110, 5.6.7."""
    assert callfs.parse_http_date(text) == THEN


@pytest.mark.parametrize("text", ["", "x", "0", "Sun", "Sun, 99 Nov 1994 08:49:37 GMT",
                                  "Sun, 06 Nov 99999 08:49:37 GMT", "\0", "1" * 10_000,
                                  "Sun, 06 Nov 1994 25:61:61 GMT", "Sun, 06 Nov 1994 08:49:37 +999999999"])
def test_parse_http_date_refuses(text: str) -> None:
    """No date is None, never an error."""
    assert callfs.parse_http_date(text) is None


@property_test(200, seconds=lambda some: some.integers(0, 253_402_300_799))
def test_http_date_round_trip(seconds: int) -> None:
    """Back to the same second, and as the standard library writes it."""
    assert callfs.parse_http_date(callfs.http_date(seconds)) == seconds
    assert callfs.http_date(seconds) == email.utils.formatdate(seconds, usegmt=True)


@property_test(200, text=lambda some: some.text(max_size=40))
def test_dates_tags_and_ranges_of_anything(text: str) -> None:
    """Any header gives a value, None, or 416."""
    callfs.parse_http_date(text)
    callfs.parse_etags(text)
    with contextlib.suppress(callfs.RangeNotSatisfiable):
        callfs.parse_ranges(text, 10)
        callfs.parse_ranges("bytes=" + text, 10)


@pytest.mark.parametrize("nanoseconds, plain, fraction", [
    (0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000000Z"),
    (1_500_000_001, "1970-01-01T00:00:01Z", "1970-01-01T00:00:01.500000001Z"),
    (-1, "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.999999999Z"),
    (2**63 - 1, "2262-04-11T23:47:16Z", "2262-04-11T23:47:16.854775807Z"),
    (-2**63, "1677-09-21T00:12:43Z", "1677-09-21T00:12:43.145224192Z"),
])
def test_rfc3339(nanoseconds: int, plain: str, fraction: str) -> None:
    """Over all that 64 bits hold."""
    assert (callfs.rfc3339(nanoseconds), callfs.rfc3339(nanoseconds, fraction=True)) == (plain, fraction)


@pytest.mark.parametrize("name, value", [
    ("a.txt", "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"),
    ("a b", "attachment; filename=\"a b\"; filename*=UTF-8''a%20b"),
    ('"x\\%', "attachment; filename=\"_x__\"; filename*=UTF-8''%22x%5C%25"),
    ("caf\u00e9", "attachment; filename=\"caf_\"; filename*=UTF-8''caf%C3%A9"),
    ("a;b='c'", "attachment; filename=\"a;b='c'\"; filename*=UTF-8''a%3Bb%3D%27c%27"),
])
def test_content_disposition(name: str, value: str) -> None:
    """RFC 6266 and RFC 8187."""
    assert callfs.content_disposition(name) == value


def test_every_error_has_a_status_and_a_code_and_hides_what_it_should() -> None:
    """What the operating system says of paths does not reach a client."""
    for number in errno.errorcode:
        error = callfs.translate_os_error(OSError(number, "secret words", "/secret/path"))
        assert 400 <= error.status <= 599 and "secret" not in error.message and error.code.isupper()
    statuses = {errno.ENOENT: 404, errno.ENOSPC: 507, errno.EDQUOT: 507, errno.EIO: 500, errno.EACCES: 403,
                errno.EMFILE: 503}
    assert {number: callfs.translate_os_error(OSError(number, "")).status for number in statuses} == statuses


# ============================================================================
# Observability: the log, the metrics registry, small bounded tables
# ============================================================================

LABEL = r'[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"'
SAMPLE = re.compile(r"([a-z_]+)(\{" + LABEL + "(?:," + LABEL + r")*\})? (-?[0-9.e+-]+|\+Inf)")


def samples(text: str) -> dict[str, float]:
    """Metrics in the text format, every line checked: sample to value."""
    found: dict[str, float] = {}
    helped, typed = set(), {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line.split()[2] in helped and line.split()[3] in ("counter", "gauge", "histogram")
            typed[line.split()[2]] = line.split()[3]
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            family = re.sub("_(bucket|sum|count)$", "", match[1]) if match[1] not in typed else match[1]
            assert family in typed and line.rpartition(" ")[0] not in found, line
            found[line.rpartition(" ")[0]] = float(match[3])
    return found


def test_metrics_text() -> None:
    """Prometheus' text format: labels escaped, histograms cumulative, +Inf equal to the count."""
    metrics = callfs.Metrics()
    metrics.count("callfs_http_requests_total", "GET", 'a"b\\c\nd', "200")
    metrics.count("callfs_http_requests_total", "GET", 'a"b\\c\nd', "200", by=2)
    metrics.gauge("callfs_active_locks", lambda: 2.5)
    for seconds in (0.001, 0.005, 0.0051, 99):
        metrics.observe("callfs_http_request_duration_seconds", seconds, "GET", "/v1")
    found = samples(metrics.render())
    assert found['callfs_http_requests_total{method="GET",path="a\\"b\\\\c\\nd",status_code="200"}'] == 3
    assert found["callfs_active_locks"] == 2.5
    buckets = [value for name, value in found.items() if name.startswith("callfs_http_request_duration_seconds_bucket")]
    assert buckets == sorted(buckets) and (buckets[0], buckets[1], buckets[-1], len(buckets)) == (2, 3, 4, 12)
    assert found['callfs_http_request_duration_seconds_count{method="GET",path="/v1"}'] == 4
    assert found['callfs_http_request_duration_seconds_sum{method="GET",path="/v1"}'] == pytest.approx(99.0111)
    assert metrics.value("callfs_http_requests_total", "GET", 'a"b\\c\nd', "200") == 3
    assert metrics.value("callfs_http_requests_total", "PUT", "", "") == 0
    assert metrics.value("callfs_active_locks") == 2.5


def an_access(path: str) -> tuple[Any, ...]:
    """The values of an access line (callfs.ACCESS_FIELDS)."""
    return "id-1", "127.0.0.1", "alice", "GET", path, 200, 5, 0.25


def test_metrics_under_threads() -> None:
    """Nothing is lost, nothing is counted twice, what is read in between is valid."""
    metrics = callfs.Metrics()
    each, threads = 4000, 6

    def work(number: int) -> None:
        for _ in range(each):
            metrics.count("callfs_errors_total", "a", str(number % 2))
            metrics.observe("callfs_lock_operation_duration_seconds", 0.2, "acquire")

    in_threads(work, threads, meanwhile=lambda: samples(metrics.render()))
    assert metrics.value("callfs_errors_total", "a", "0") == metrics.value("callfs_errors_total", "a",
                                                                           "1") == each * threads / 2
    assert metrics.value("callfs_lock_operation_duration_seconds", "acquire") == each * threads


def in_threads(work: Callable[[int], Any], count: int, meanwhile: Optional[Callable[[], Any]] = None) -> list[Any]:
    """`work(0)` ... in as many threads at once; what they give. `meanwhile` is called again and again by another one.

    An error in any of them is an error of the test."""
    start, over = threading.Barrier(count + (meanwhile is not None)), threading.Event()

    def run(number: int) -> Any:
        start.wait()
        return work(number)

    def watch() -> None:
        start.wait()
        assert meanwhile is not None
        while not over.is_set():
            meanwhile()

    with concurrent.futures.ThreadPoolExecutor(count + 1) as pool:
        watcher = pool.submit(watch) if meanwhile else None
        running = [pool.submit(run, number) for number in range(count)]
        try:
            return [one.result(120) for one in running]
        finally:
            over.set()
            if watcher:
                watcher.result(120)


def raising(error: BaseException) -> Callable[..., Any]:
    """A function that takes anything and raises this."""
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error
    return fail


@contextlib.contextmanager
def eager_threads() -> Iterator[None]:
    """Threads change as often as they can: what depends on the moment shows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def test_cache_is_bounded_and_keeps_what_is_used() -> None:
    """Two generations of `size`; what is asked for again and again stays."""
    cache: Any = callfs.Cache(10)
    cache.put("used", 1)
    for number in range(1000):
        cache.put(number, number)
        assert cache.get("used") == 1
        assert len(cache._young) <= 10 and len(cache._old) <= 10
    assert cache.get(999) == 999 and cache.get(0) is None
    cache.drop(999)
    assert cache.get(999) is None
    cache.clear()
    assert cache.get("used") is None


def test_cache_does_not_bring_back_what_was_dropped() -> None:
    """Moving an entry up from the old generation while another thread drops it (found by reading, 2026-11)."""
    cache: Any = callfs.Cache(2)
    stale = []

    def work(number: int) -> None:
        for turn in range(3000):
            if number == 0:
                cache.put("key", turn)
                cache.put(f"a{turn}", 0)
                cache.put(f"b{turn}", 0)    # "key" is in the old generation now
                cache.drop("key")
                if cache.get("key") is not None:
                    stale.append(turn)
            else:
                cache.get("key")

    with eager_threads():
        in_threads(work, 3)
    assert not stale


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("rate, burst", [(10, 5), (100, 1), (0.5, 3), (1, 1)])
def test_rate_limiter(rate: float, burst: int) -> None:
    """A burst, then one a period; the wait that it tells is enough, and never a false one."""
    clock = Clock()
    limiter = callfs.RateLimiter(rate, burst, 100, clock)
    assert [limiter.wait("a") for _ in range(burst)] == [0.0] * burst
    for _ in range(5):
        wait = limiter.wait("a")
        assert wait == pytest.approx(1 / rate)
        assert limiter.wait("b") == 0.0 or burst < 5
        clock.now += wait + 1e-9
        assert limiter.wait("a") == 0.0
    clock.now += 1e6
    assert [limiter.wait("a") for _ in range(burst)] == [0.0] * burst and limiter.wait("a") > 0


def test_rate_limiter_refuses_looks_and_has_no_limit_at_0() -> None:
    """429 with whole seconds in `Retry-After`; cost 0 takes nothing; rate 0 is no limit (configuration)."""
    clock = Clock()
    limiter = callfs.RateLimiter(0.3, 1, 100, clock)
    assert limiter.wait("a", 0) == 0.0
    limiter.take("a")
    with pytest.raises(callfs.RateLimited) as caught:
        limiter.take("a")
    assert caught.value.headers == (("Retry-After", "4"),) and limiter.wait("a", 0) == pytest.approx(10 / 3)
    free = callfs.RateLimiter(0, 1, 100, clock)
    assert [free.wait("a") for _ in range(100)] == [0.0] * 100


def test_rate_limiter_is_bounded() -> None:
    """A flood of addresses does not grow the table, and does not free one that keeps coming."""
    clock = Clock()
    limiter = callfs.RateLimiter(1, 1, 50, clock)
    limiter.take("busy")
    for number in range(1000):
        limiter.wait(f"address {number}")
        assert limiter.wait("busy") > 0 and len(limiter._buckets) <= 50


def log_lines(path: Path, form: str, level: str = "debug", access: bool = True) -> tuple[callfs.Log, Callable[[], str]]:
    """A log into a file, and its text so far."""
    return callfs.Log(level, form, str(path), access), lambda: path.read_text(encoding="utf-8")


NASTY = ["line\nERROR forged", "\r\x1b[31mred", "\x85next", "a\0b", "\x9b2J", "tab\there"]


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("form", ["json", "console"])
def test_log_escapes_controls(tmp_path: Path, form: str, nasty: str) -> None:
    """One event is one line without control characters, whatever a client has sent."""
    log, text = log_lines(tmp_path / "log", form)
    log.info(nasty, path=nasty)
    log.access(*an_access(nasty))
    log.close()
    lines = text().split("\n")
    assert len(lines) == 3 and not lines[2]
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for line in lines for character in line)
    if form == "json":
        assert json.loads(lines[0])["path"] == json.loads(lines[1])["path"] == json.loads(lines[0])["message"] == nasty


@pytest.mark.parametrize("form", ["json", "console"])
def test_log_traceback_can_not_forge_a_line(tmp_path: Path, form: str) -> None:
    """The text of an exception may come from a client, too."""
    log, text = log_lines(tmp_path / "log", form)
    try:
        raise ValueError("x\n12:00:00 INFO  request forged\r\x1b[31m")
    except ValueError:
        log.exception("failed")
    log.close()
    lines = text().splitlines()
    assert "ValueError" in text() and "\x1b" not in text() and "\r" not in text()
    assert all(line.startswith("    ") for line in lines[1:]) and (form == "console" or len(lines) == 1)


def test_log_json(tmp_path: Path) -> None:
    """Every line is an object with time, level, message and the fields."""
    log, text = log_lines(tmp_path / "log", "json")
    for level in ("debug", "info", "warn", "error"):
        getattr(log, level)("said", number=1, odd=Path("x"), name="\udcff\u00e9")
    log.close()
    found = [json.loads(line) for line in text().splitlines()]
    assert [line["level"] for line in found] == ["debug", "info", "warn", "error"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", line["time"]) for line in found)
    assert found[0]["number"] == 1 and found[0]["odd"] == "x" and found[0]["message"] == "said"


@pytest.mark.parametrize("level, lines", [("debug", 5), ("info", 4), ("warn", 2), ("error", 1)])
def test_log_levels(tmp_path: Path, level: str, lines: int) -> None:
    """Below the threshold nothing is written, access lines count as info; gathered lines are written by `flush`."""
    log, text = log_lines(tmp_path / "log", "console", level)
    log.access(*an_access("/"))
    assert text() == ""
    log.flush()
    for name in ("debug", "info", "warn", "error"):
        getattr(log, name)("said")
    log.close()
    assert len(text().splitlines()) == lines


def test_log_reopen_bound_and_broken_target(tmp_path: Path) -> None:
    """After logrotate the lines go to the new file; access lines do not pile up; a log that fails stops nobody."""
    log, text = log_lines(tmp_path / "log", "console")
    log.info("one")
    os.rename(tmp_path / "log", tmp_path / "old")
    log.reopen()
    log.info("two")
    assert "two" in text() and "one" not in text()
    log.MAX_PENDING = 10
    for _ in range(25):
        log.access(*an_access("/"))
    assert len(log._pending) <= 11 and text().count("request") >= 11
    log.close()
    log.error("after the end goes to standard error")
    with pytest.raises(callfs.ConfigError):
        callfs.Log(path=str(tmp_path / "absent" / "log"))
    if os.path.exists("/dev/full"):
        full = callfs.Log(path="/dev/full")
        full.error("lost")
        full.close()


# ============================================================================
# Byte streams: what goes out (Reader), what comes in (Body), spools
# ============================================================================

DATA = bytes(range(256)) * 5


def _file_reader(folder: Path) -> Any:
    (folder / "data").write_bytes(b"before" + DATA + b"behind")
    return callfs.FileReader(os.open(folder / "data", os.O_RDONLY), 6, len(DATA))


def _spool_reader(limit: int) -> Any:
    spool = callfs.open_spool(None, limit)
    spool.write(DATA)
    return callfs.spool_reader(spool)


READERS: dict[str, Callable[[Path], Any]] = {
    "file": _file_reader,
    "chunks": lambda folder: callfs.ChunkReader(iter([DATA[:1], DATA[1:700], DATA[700:]]), len(DATA)),
    "spool in memory": lambda folder: _spool_reader(10_000),
    "spool on disk": lambda folder: _spool_reader(10),
}


@pytest.mark.parametrize("size", [1, 7, 256, 100_000])
@pytest.mark.parametrize("kind", READERS)
def test_reader(tmp_path: Path, kind: str, size: int) -> None:
    """All the bytes, in pieces of at most the size asked for, then b"" for ever; closed twice."""
    with nothing_left():
        reader = READERS[kind](tmp_path)
        assert reader.length == len(DATA)
        found = list(iter(lambda: reader.read(size), b""))
        assert b"".join(found) == DATA and max(map(len, found)) <= size and reader.read(size) == b""
        reader.close()
        reader.close()
        with READERS[kind](tmp_path) as again:
            assert b"".join(again) == DATA


def test_file_reader_of_a_file_that_shrinks(tmp_path: Path) -> None:
    """A short answer must not look whole."""
    with _file_reader(tmp_path) as reader:
        os.truncate(tmp_path / "data", 100)
        assert len(reader.read(1000)) == 94
        with pytest.raises(callfs.StorageError):
            reader.read(1000)


def test_chunk_reader_closes_its_generator() -> None:
    """Its `finally` runs when the reader is closed, and `on_close` even when it never started."""
    closed = []

    def chunks() -> Iterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append("generator")

    reader = callfs.ChunkReader(chunks(), on_close=lambda: closed.append("told"))
    assert reader.read() == b"a"
    reader.close()
    assert closed == ["generator", "told"]
    callfs.ChunkReader(chunks(), on_close=lambda: closed.append("never started")).close()
    assert closed[2:] == ["never started"]


@pytest.mark.parametrize("length, limit, works", [(0, 0, True), (5, 5, True), (5, 4, False), (100_000, 100_000, True),
                                                  (100_000, 99_999, False)])
@pytest.mark.parametrize("announced", [True, False])
def test_body_read(length: int, limit: int, works: bool, announced: bool) -> None:
    """A small body as bytes, or 413, also when nobody said how long it is."""
    data = os.urandom(length)
    body = callfs.FileBody(io.BytesIO(data), length if announced else None)
    if works:
        assert body.read(limit) == data
    else:
        with pytest.raises(callfs.PayloadTooLarge):
            body.read(limit)


# ============================================================================
# Databases: SQLite, PostgreSQL and MySQL behind one interface (wire protocols)
# ============================================================================

import pwd                                  # noqa: E402

PASSWORD = "sécret-'p@ss/word"               # nothing that needs no care


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RealDatabase:
    """A database server of its own in a short folder; `options` are for `open_database`."""

    name = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cdb-", dir="/tmp"))          # pytest's own are closed to other users
        self.port, self.process = free_port(), None

    @property
    def options(self) -> dict[str, Any]:
        """Where it is and who may come."""
        return {"backend": self.name, "host": "127.0.0.1", "port": self.port, "user": "u", "password": PASSWORD,
                "database": "callfs", "connect_timeout": 5}

    def run_program(self, *command: str) -> None:
        """One of its tools, to its end."""
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder, **self.account())
        assert done.returncode == 0, done.stdout

    def start_process(self, *command: str) -> None:
        """The server, in the background."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self.account())

    def account(self) -> dict[str, Any]:
        """Options of `subprocess` for the user it runs as."""
        return {}

    def wait(self, options: Mapping[str, Any]) -> None:
        """Until it lets these in."""
        def answers() -> bool:
            try:
                with contextlib.closing(callfs.open_database(options)) as database:
                    database.run(lambda session: session.execute("SELECT 1"))
                return True
            except callfs.DatabaseUnavailable:
                return False
        try:
            wait_for(answers, 30, f"{self.name} to start")
        except BaseException:
            print((self.folder / "log").read_text(errors="replace")[-3000:])
            self.stop()
            raise

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End this one process, and wait."""
        self.process.send_signal(how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        """Killed and started again."""
        self.stop(signal.SIGKILL if self.name == "mysql" else signal.SIGQUIT)
        self.start()
        self.wait(self.options)

    def start(self) -> None:
        """Start it."""
        raise NotImplementedError


class RealPostgres(RealDatabase):
    """PostgreSQL; users u (scram), m (md5), p (password), t (trust), x (TLS only)."""

    name = "postgres"
    HBA = ("local all u scram-sha-256\nhost all u,admin 127.0.0.1/32 scram-sha-256\nhost all m 127.0.0.1/32 md5\n"
           "host all p 127.0.0.1/32 password\nhost all t 127.0.0.1/32 trust\nhostssl all x 127.0.0.1/32 scram-sha-256\n")

    def __init__(self, certificate: tuple[str, str]) -> None:
        super().__init__()
        self.program = need_program("postgres")
        self.certificate = certificate[0]
        for source, name in zip(certificate, ("cert.pem", "key.pem")):
            shutil.copy(source, self.folder / name)
        (self.folder / "key.pem").chmod(0o600)
        (self.folder / "password").write_text(PASSWORD)
        self.own()
        self.run_program(os.path.join(os.path.dirname(os.path.realpath(self.program)), "initdb"), "-D", "data", "-U", "admin", "--pwfile", "password",
                         "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C")
        (self.folder / "data/pg_hba.conf").write_text(self.HBA)
        self.start()
        admin = {**self.options, "user": "admin", "database": "postgres"}
        self.wait(admin)
        quoted = "'" + PASSWORD.replace("'", "''") + "'"
        with contextlib.closing(callfs.open_database(admin)) as database, database.transaction() as session:
            for user in "umptx":
                session.execute(f"SET password_encryption = '{'md5' if user == 'm' else 'scram-sha-256'}'")
                session.execute(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD {quoted}")
        # CREATE DATABASE runs in no transaction
        with contextlib.closing(callfs.open_database(admin)) as database:
            connection = database._pool.take()
            connection.simple("CREATE DATABASE callfs")
            database._pool.give(connection)

    def own(self) -> None:
        """Give the folder to the user that the server runs as."""
        if os.getuid() == 0:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, self.account()["user"])

    def account(self) -> dict[str, Any]:
        """PostgreSQL does not run as root."""
        if os.getuid():
            return {}
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = names.get("postgres") or names["nobody"]
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def start(self) -> None:
        """Without fsync and what else is for a longer life: nothing here outlives the test."""
        self.start_process(self.program, "-D", "data", "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
                           "-c", f"unix_socket_directories={self.folder}", "-c", "ssl=on", "-c", f"ssl_cert_file={self.folder}/cert.pem",
                           "-c", f"ssl_key_file={self.folder}/key.pem", "-c", "max_connections=50",
                           *itertools.chain.from_iterable(("-c", each) for each in (
                               "full_page_writes=off", "autovacuum=off", "update_process_title=off",
                               "wal_level=minimal", "max_wal_senders=0")))

    def stop(self, how: int = signal.SIGINT) -> None:
        """Its fast shutdown: clients are not waited for."""
        super().stop(signal.SIGINT if how == signal.SIGTERM else how)


class RealMariaDB(RealDatabase):
    """MariaDB, with TLS; user u with mysql_native_password."""

    name = "mysql"

    def __init__(self, certificate: tuple[str, str]) -> None:
        super().__init__()
        self.program = need_program("mariadbd")
        self.files = certificate
        self.run_program(need_program("mariadb-install-db"), "--no-defaults", f"--datadir={self.folder}/data", *self.as_user(),
                         "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        self.start()
        root = {"backend": "mysql", "dsn": f"root@unix({self.folder}/sock)/mysql"}
        self.wait(root)
        with contextlib.closing(callfs.open_database(root)) as database, database.transaction() as session:
            session.execute("DELETE FROM mysql.global_priv WHERE User = ''")
            session.execute("FLUSH PRIVILEGES")
            session.execute("CREATE DATABASE callfs CHARACTER SET utf8mb4")
            for user, more in (("u", ""), ("x", " REQUIRE SSL")):
                session.execute(f"GRANT ALL ON *.* TO {user}@'%' IDENTIFIED BY '{PASSWORD.replace(chr(39), chr(39) * 2)}'{more}")

    def as_user(self) -> list[str]:
        """It runs as root only when it is told to."""
        return ["--user=root"] if os.getuid() == 0 else []

    def start(self) -> None:
        """Without fsync; what was committed outlives the process."""
        self.start_process(self.program, "--no-defaults", f"--datadir={self.folder}/data", *self.as_user(), f"--socket={self.folder}/sock",
                           f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-networking=0", "--skip-name-resolve",
                           "--max-allowed-packet=64M", "--innodb-flush-log-at-trx-commit=2", f"--pid-file={self.folder}/pid",
                           "--innodb-buffer-pool-size=64M", "--sql-mode=", f"--ssl-cert={self.files[0]}", f"--ssl-key={self.files[1]}")


def real_database(kind: type[RealDatabase], certificate: tuple[str, str]) -> Iterator[RealDatabase]:
    """One for the whole run, without a trace at its end."""
    server = None
    try:
        server = kind(certificate)
        yield server
    finally:
        if server:
            server.stop()
            shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def postgres_server(certificate: tuple[str, str]) -> Iterator[RealDatabase]:
    """A PostgreSQL server of our own."""
    yield from real_database(RealPostgres, certificate)


@pytest.fixture(scope="session")
def mariadb_server(certificate: tuple[str, str]) -> Iterator[RealDatabase]:
    """A MariaDB server of our own."""
    yield from real_database(RealMariaDB, certificate)


class Relay:
    """A port before a server. Keeps what the server said; with `cut`, ends a connection when a client says that."""

    def __init__(self, port: int, cut: bytes = b"", deliver: bool = False) -> None:
        self.said, self.cut, self.deliver, self.cuts = b"", cut, deliver, 0
        self._target, self._listener = port, socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                thread = threading.Thread(target=self._pump, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, contextlib.suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [], 30)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is server:
                        self.said += data
                        client.sendall(data)
                        continue
                    found = bool(self.cut) and self.cut in data
                    if not found or self.deliver:
                        server.sendall(data)
                    if found:
                        self.cuts += 1
                        time.sleep(0.1 if self.deliver else 0)
                        return

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def scripted_server(script: Callable[[socket.socket], None], connections: int = 1) -> Iterator[int]:
    """The port of a server that plays `script` with each connection; what that raises fails the test."""
    wrong: list[BaseException] = []

    def serve_all() -> None:
        for _ in range(connections):
            try:
                with listener.accept()[0] as sock:
                    sock.settimeout(10)
                    script(sock)
            except BaseException as error:
                wrong.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve_all, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(15)
    if wrong:
        raise wrong[0]


class DatabaseContract:
    """What each database does alike."""

    BLOB, TEXT, FLOAT, SLOW = "BLOB", "TEXT", "DOUBLE PRECISION", ""

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        raise NotImplementedError

    @pytest.fixture
    def database(self, options: dict[str, Any]) -> Iterator[Any]:
        with contextlib.closing(callfs.open_database(options)) as made:
            made.run(lambda session: session.execute("DROP TABLE IF EXISTS things"))
            made.run(lambda session: session.execute(
                f"CREATE TABLE things (k VARCHAR(190) NOT NULL PRIMARY KEY, n BIGINT, f {self.FLOAT}, t {self.TEXT}, b {self.BLOB}, o SMALLINT)"))
            yield made

    def rows(self, database: Any, sql: str, *params: Any) -> list[Any]:
        return database.run(lambda session: session.execute(sql, params)).rows

    def add(self, database: Any, key: str, number: int = 0) -> Any:
        return database.run(lambda session: session.execute("INSERT INTO things (k, n) VALUES (?, ?)", (key, number)))

    @pytest.mark.parametrize("column, value", [
        *(("n", number) for number in (0, 1, -1, 2**31 - 1, 2**31, -2**31 - 1, 2**63 - 1, -2**63, None)),
        *(("f", number) for number in (0.0, -1.5, 0.1, 1e308, 5e-324, 2**53 + 1.0, None)),
        *(("t", text) for text in ("", "a", "é", "😀", "it's ? \"q\" \\ %s $1 :x", "x" * 70000, "\r\n\t", None)),
        *(("b", data) for data in (b"", b"\x00", bytes(range(256)), b"\\x00", b"'" * 300, b"\xff" * 70000, None)),
        ("o", True), ("o", False)])
    def test_values_come_back(self, database: Any, column: str, value: Any) -> None:
        database.run(lambda session: session.execute(f"INSERT INTO things (k, {column}) VALUES (?, ?)",
                                                     ("k", int(value) if column == "o" else value)))
        (found, key), = self.rows(database, f"SELECT {column}, k FROM things")
        assert found == value and key == "k"
        assert column == "o" or type(found) is type(value)
        if value is not None:
            assert self.rows(database, f"SELECT k FROM things WHERE {column} = ?", value if column != "o" else int(value)) == [("k",)]

    def test_a_row_with_many_nulls(self, database: Any) -> None:
        columns = ", ".join("NULL" if place % 3 else "?" for place in range(40))
        values = [place for place in range(40) if not place % 3]
        expected = [None if place % 3 else place for place in range(40)]
        assert list(self.rows(database, f"SELECT {columns}", *values)[0]) == expected

    def test_counts(self, database: Any) -> None:
        with database.transaction() as session:
            for key in "abc":
                assert session.execute("INSERT INTO things (k, n) VALUES (?, 1)", (key,)) == ([], 1)
            assert session.execute("UPDATE things SET n = 1 WHERE k < ?", ("c",)).count == 2        # matched, not changed
            assert session.execute("SELECT k FROM things ORDER BY k").count == 3
            assert session.execute("SELECT k FROM things WHERE k = 'x'") == ([], 0)
            assert session.execute("DELETE FROM things").count == 3

    def test_an_exception_takes_it_all_back(self, database: Any) -> None:
        with pytest.raises(ZeroDivisionError), database.transaction() as session:
            session.execute("INSERT INTO things (k) VALUES ('a')")
            1 / 0
        assert self.rows(database, "SELECT * FROM things") == []
        with pytest.raises(callfs.DatabaseError, match="is over"):
            session.execute("SELECT 1")

    def test_a_failed_statement_leaves_a_good_connection(self, database: Any) -> None:
        self.add(database, "before")
        connection = database._pool._idle[-1][0]
        for bad in ("SELECT * FROM nothing_there", "SELEC 1", "SELECT 1; SELECT 2", "SELECT ?"):
            with pytest.raises(callfs.DatabaseError) as caught, database.transaction() as session:
                session.execute("DELETE FROM things")
                session.execute(bad)
            assert caught.value.status == 500
        assert self.rows(database, "SELECT k FROM things") == [("before",)]
        assert database._pool._idle[-1][0] is connection

    def test_a_swallowed_error_does_not_commit(self, database: Any) -> None:
        def work(session: Any) -> None:
            session.execute("INSERT INTO things (k) VALUES ('a')")
            with contextlib.suppress(callfs.DatabaseError):
                session.execute("SELECT * FROM nothing_there")
            with pytest.raises(callfs.DatabaseError, match="taken back"):
                session.execute("SELECT 1")
        with pytest.raises(callfs.DatabaseError, match="taken back"):
            database.run(work)
        assert self.rows(database, "SELECT k FROM things") == []

    def test_a_key_twice_is_a_conflict(self, database: Any) -> None:
        self.add(database, "a")
        for _ in range(200):                # each of them with the same prepared statement
            with pytest.raises(callfs.DatabaseConflict) as caught:
                self.add(database, "a")
        assert (caught.value.status, bool(caught.value.state), caught.value.fault) == (409, True, "caller")

    def test_not_null_is_no_conflict(self, database: Any) -> None:
        with pytest.raises(callfs.DatabaseError):
            database.run(lambda session: session.execute("INSERT INTO things (k) VALUES (?)", (None,)))

    @pytest.mark.parametrize("sql, params, message", [
        ("SELECT '\0'", (), "Transactions"), ("BEGIN", (), "begun"), (" commit", (), "begun"), ("SELECT ?", (2**63,), "64 bits"),
        ("SELECT ?", ([],), "list"), ("SELECT ?", ("\ud800",), "surrogate"), ("SELECT ?", (1,) * 40000, "at most 32766"), ("SELECT ?", (1, 2), "."), ("SELECT ?, ?", (1,), ".")])
    def test_what_is_no_statement(self, database: Any, sql: str, params: tuple[Any, ...], message: str) -> None:
        with pytest.raises(callfs.DatabaseError, match=message):
            self.rows(database, sql, *params)
        assert self.add(database, "a").count == 1

    def test_many_values(self, database: Any) -> None:
        marks = ",".join("?" * 900)
        assert self.rows(database, f"SELECT 1 WHERE ? IN ({marks})" if database.dialect != "mysql" else
                         f"SELECT 1 FROM DUAL WHERE ? IN ({marks})", 899, *range(900)) == [(1,)]

    def test_question_marks_that_are_no_placeholders(self, database: Any) -> None:
        assert self.rows(database, "SELECT '?', 'it''s ?', /* ? */ ? -- ?", "x") == [("?", "it's ?", "x")]

    def test_sixteen_threads(self, options: dict[str, Any], database: Any) -> None:
        self.add(database, "counter")

        def bump(session: Any) -> None:
            session.execute("UPDATE things SET n = n + 1 WHERE k = ?", ("counter",))
            assert session.execute("SELECT n FROM things WHERE k = 'counter'").rows[0][0] > 0

        with contextlib.closing(callfs.open_database({**options, "pool_size": 4, "connect_timeout": 20})) as shared:
            with concurrent.futures.ThreadPoolExecutor(16) as threads:
                list(threads.map(lambda _: shared.run(bump), range(320)))
            assert len(shared._pool._idle) <= 4
        assert self.rows(database, "SELECT n FROM things") == [(320,)]

    def test_an_exhausted_pool(self, options: dict[str, Any], database: Any) -> None:
        with contextlib.closing(callfs.open_database({**options, "pool_size": 1, "connect_timeout": "1s"})) as small:
            with small.transaction() as session:
                with pytest.raises(callfs.DatabaseUnavailable, match="All 1 connections") as caught, small.transaction():
                    pass
                assert caught.value.status == 503 and dict(caught.value.headers)["Retry-After"] == "1"
                assert session.execute("SELECT 1").rows == [(1,)]
            assert self.rows(small, "SELECT 2") == [(2,)]

    def test_twenty_megabytes(self, database: Any) -> None:
        data = random.Random(1).getrandbits(8 * 20_000_000).to_bytes(20_000_000, "big")
        database.run(lambda session: session.execute("INSERT INTO things (k, b) VALUES ('big', ?)", (data,)))
        assert self.rows(database, "SELECT b FROM things")[0][0] == data

    @pytest.mark.parametrize("size", [2**24 - 30, *range(2**24 - 14, 2**24 + 2)])
    @pytest.mark.long
    def test_sizes_around_a_full_packet(self, database: Any, size: int) -> None:
        assert self.rows(database, "SELECT LENGTH(?)", b"x" * size) == [(size,)]
        database.run(lambda session: session.execute("INSERT INTO things (k, b) VALUES ('big', ?)", (b"y" * size,)))
        assert self.rows(database, "SELECT b FROM things")[0][0] == b"y" * size

    def test_more_statements_than_are_kept(self, database: Any) -> None:
        with database.transaction() as session:
            for turn in range(2):
                for number in range(callfs.MAX_STATEMENTS + 40):
                    assert session.execute(f"SELECT {number} + ?", (turn,)).rows == [(number + turn,)]

    def test_a_table_that_changes_below_a_statement(self, database: Any, options: dict[str, Any]) -> None:
        self.add(database, "a", 7)
        for column in ("extra1", "extra2"):
            before = len(self.rows(database, "SELECT * FROM things")[0])
            with contextlib.closing(callfs.open_database(options)) as other:
                other.run(lambda session: session.execute(f"ALTER TABLE things ADD COLUMN {column} INTEGER"))
            assert len(self.rows(database, "SELECT * FROM things")[0]) == before + 1

    def test_too_slow(self, options: dict[str, Any]) -> None:
        with contextlib.closing(callfs.open_database({**options, "timeout": 0.3})) as hasty:
            started = time.monotonic()
            with pytest.raises(callfs.DatabaseUnavailable):
                self.rows(hasty, self.SLOW)
            assert time.monotonic() - started < 4
            assert self.rows(hasty, "SELECT 3") == [(3,)]

    def test_close(self, options: dict[str, Any]) -> None:
        with nothing_left():
            database = callfs.open_database(options)
            with database.transaction() as session:
                session.execute("SELECT 1")
                database.close()
                assert session.execute("SELECT 2").rows == [(2,)]           # what runs may end
            database.close()
            with pytest.raises(callfs.DatabaseUnavailable, match="closed"):
                self.rows(database, "SELECT 1")

    def test_idle_connections_are_closed(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.add(database, "a")
        first = database._pool._idle[-1][0]
        self.add(database, "b")
        assert database._pool._idle[-1][0] is first
        monkeypatch.setattr(callfs._ConnectionPool, "IDLE_SECONDS", 0)
        self.add(database, "c")
        assert [connection for connection, _ in database._pool._idle] != [first]

    def test_a_forked_child_has_connections_of_its_own(self, database: Any) -> None:
        self.add(database, "parent")
        first = database._pool._idle[-1][0]
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                self.add(database, "child")
                assert database._pool._idle[-1][0] is not first
                database.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0 and database._pool._idle[-1][0] is first
        first.begin()
        first.commit()
        assert self.rows(database, "SELECT k FROM things ORDER BY k") == [("child",), ("parent",)]

    @pytest.mark.parametrize("state, times, works", [("40001", 3, True), ("1213", 3, True), ("SQLITE_BUSY", 1, True), ("57014", 1, False),
                                                     ("40001", 99, False)])
    def test_what_is_tried_again(self, database: Any, state: str, times: int, works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(callfs.time, "sleep", lambda seconds: None)
        calls = []

        def work(session: Any) -> int:
            session.execute("INSERT INTO things (k) VALUES ('a')")
            calls.append(1)
            if len(calls) <= times:
                raise callfs.DatabaseUnavailable(state=state)
            return 7
        if works:
            assert database.run(work) == 7 and len(calls) == times + 1
        else:
            with pytest.raises(callfs.DatabaseUnavailable):
                database.run(work)
            assert len(calls) == (1 if times == 1 else database.RETRIES + 1)
        assert len(self.rows(database, "SELECT k FROM things")) == works


class TestSQLiteDatabase(DatabaseContract):
    """The contract, and what only a file has."""

    SLOW = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"

    @pytest.fixture
    def options(self, tmp_path: Path) -> dict[str, Any]:
        return {"backend": "sqlite", "db_path": str(tmp_path / "made" / "x.db")}

    def test_the_file(self, database: Any, options: dict[str, Any]) -> None:
        path = Path(options["db_path"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert self.rows(database, "PRAGMA journal_mode") == [("wal",)] and self.rows(database, "PRAGMA synchronous") == [(2,)]

    def test_memory(self) -> None:
        with contextlib.closing(callfs.open_database({"backend": "sqlite", "db_path": ":memory:"})) as database:
            database.run(lambda session: session.execute("CREATE TABLE x (a)"))
            assert self.rows(database, "SELECT * FROM x") == []

    def test_not_a_database(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"no database at all" * 100)
        with contextlib.closing(callfs.open_database({"backend": "sqlite", "db_path": str(tmp_path / "x")})) as database:
            with pytest.raises(callfs.DatabaseError, match="no SQLite database"):
                self.rows(database, "SELECT 1")

    def test_a_folder_in_the_way(self, tmp_path: Path) -> None:
        with contextlib.closing(callfs.open_database({"backend": "sqlite", "db_path": str(tmp_path)})) as database:
            with pytest.raises(callfs.DatabaseUnavailable):
                self.rows(database, "SELECT 1")

    def test_full(self, database: Any) -> None:
        with pytest.raises(callfs.StorageFull) as caught, database.transaction() as session:
            session.execute("PRAGMA max_page_count = 10")
            session.execute("INSERT INTO things (k, b) VALUES ('a', ?)", (bytes(200_000),))
        assert caught.value.status == 507

    def test_busy(self, options: dict[str, Any], database: Any) -> None:
        with contextlib.closing(callfs.open_database({**options, "connect_timeout": 0.05, "timeout": 0.5})) as other:
            with database.transaction(), pytest.raises(callfs.DatabaseUnavailable) as caught:
                other.run(lambda session: session.execute("SELECT 1"))
            assert caught.value.state == "SQLITE_BUSY"
            assert self.rows(other, "SELECT 1") == [(1,)]


class ServerContract(DatabaseContract):
    """What each server does alike."""

    QUERY = "SELECT k, n, f, t, b, ? FROM things"
    PLAIN: dict[str, Any] = {}              # what keeps it from TLS
    RECORDED: dict[str, Any] = {}           # and from a proof that a recording can not give

    def test_a_restart_in_the_middle(self, server: RealDatabase, database: Any) -> None:
        self.add(database, "before")
        with pytest.raises(callfs.DatabaseUnavailable) as caught, database.transaction() as session:
            session.execute("INSERT INTO things (k) VALUES ('lost')")
            server.restart()
            session.execute("INSERT INTO things (k) VALUES ('lost, too')")
        assert caught.value.lost and not caught.value.uncertain
        assert self.rows(database, "SELECT k FROM things") == [("before",)]

    def test_a_restart_between_transactions_goes_unnoticed(self, server: RealDatabase, database: Any) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(4):              # four idle connections, all of them stale then
                stack.enter_context(database.transaction())
        server.restart()
        with database.transaction() as session:
            assert session.execute("SELECT 1").rows == [(1,)]

    def test_a_server_that_is_away(self, server: RealDatabase, options: dict[str, Any]) -> None:
        with contextlib.closing(callfs.open_database({**options, "port": free_port()})) as database:
            with pytest.raises(callfs.DatabaseUnavailable, match="can not be reached: Connection refused"):
                self.rows(database, "SELECT 1")

    def test_a_wrong_password(self, options: dict[str, Any]) -> None:
        with contextlib.closing(callfs.open_database({**options, "password": "wrong-secret"})) as database:
            with pytest.raises(callfs.DatabaseUnavailable) as caught:
                self.rows(database, "SELECT 1")
            shown = str(caught.value) + repr(caught.value) + repr(database) + repr(database._target) + repr(vars(caught.value))
            assert caught.value.state in ("28P01", "1045") and "wrong-secret" not in shown

    def test_a_database_that_is_not_there(self, options: dict[str, Any]) -> None:
        with contextlib.closing(callfs.open_database({**options, "database": "nix"})) as database:
            with pytest.raises(callfs.DatabaseUnavailable, match="nix") as caught:
                self.rows(database, "SELECT 1")
            assert caught.value.state in ("3D000", "1049")

    @pytest.mark.parametrize("deliver", [False, True])
    def test_a_connection_lost_at_commit(self, options: dict[str, Any], database: Any, deliver: bool) -> None:
        with Relay(options["port"], b"COMMIT", deliver) as relay:
            with contextlib.closing(callfs.open_database({**options, "port": relay.port, **self.PLAIN})) as cut:
                with pytest.raises(callfs.DatabaseUnavailable) as caught:
                    self.add(cut, "a")
                assert caught.value.uncertain and relay.cuts == 1
                assert len(self.rows(database, "SELECT k FROM things")) == deliver
                with pytest.raises(callfs.DatabaseUnavailable):
                    cut.run(lambda session: session.execute("DELETE FROM things"), idempotent=True)
                assert relay.cuts == 3      # twice, no more

    def test_a_connection_lost_before_commit_is_tried_once_more(self, options: dict[str, Any], database: Any) -> None:
        with Relay(options["port"], b"cut here") as relay:
            with contextlib.closing(callfs.open_database({**options, "port": relay.port, **self.PLAIN})) as cut:
                sql = iter(["SELECT 'cut here'", "SELECT 'whole'"])
                assert cut.run(lambda session: session.execute(next(sql))).rows == [("whole",)]
                with pytest.raises(callfs.DatabaseUnavailable):
                    self.rows(cut, "SELECT 'cut here'")
                assert relay.cuts == 3

    def test_an_interrupted_answer(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A KeyboardInterrupt in the middle of an answer: that connection is not used again."""
        self.add(database, "a")
        wire = database._pool._idle[-1][0]._wire
        with pytest.raises(KeyboardInterrupt), database.transaction() as session:
            session.execute("DELETE FROM things")
            with monkeypatch.context() as patch:
                patch.setattr(wire, "read", lambda size: signal.default_int_handler(2, None))
                session.execute("SELECT 1")
        assert wire._socket.fileno() == -1
        assert self.rows(database, "SELECT k FROM things") == [("a",)]

    def test_deadlocks_are_tried_again(self, database: Any) -> None:
        self.add(database, "a")
        self.add(database, "b")
        meeting, calls = threading.Barrier(2, timeout=20), []

        def cross(first: str, second: str) -> None:
            def work(session: Any) -> None:
                calls.append(first)
                session.execute("UPDATE things SET n = n + 1 WHERE k = ?", (first,))
                if len(calls) <= 2:
                    meeting.wait()
                session.execute("UPDATE things SET n = n + 1 WHERE k = ?", (second,))
            database.run(work)

        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            for future in [threads.submit(cross, "a", "b"), threads.submit(cross, "b", "a")]:
                future.result(60)
        assert len(calls) >= 3 and self.rows(database, "SELECT n FROM things") == [(2,), (2,)]

    def test_conversations_that_go_wrong(self, options: dict[str, Any], database: Any) -> None:
        """What a real server said, cut off anywhere and with bits turned: a clean error or an answer, at once."""
        self.add(database, "a", 5)

        plain = {**options, **self.RECORDED, "connect_timeout": 3, "timeout": 3}
        with Relay(options["port"]) as relay:
            with contextlib.closing(callfs.open_database({**plain, "port": relay.port})) as recorded:
                expected = self.rows(recorded, self.QUERY, 1.5)
        said, dice = relay.said, random.Random(7)
        cases = [said, *(said[:cut] for cut in range(0, len(said), 5))]
        for _ in range(150):
            broken = bytearray(said)
            for _ in range(dice.choice((1, 1, 3))):
                broken[dice.randrange(len(said))] = dice.choice((0, 1, 127, 128, 251, 254, 255, dice.randrange(256)))
            cases.append(bytes(broken))
        cases += [dice.randbytes(dice.randrange(1, 400)) if hasattr(dice, "randbytes") else os.urandom(99) for _ in range(50)]
        cases += [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"R\x7f\xff\xff\xff", b"\xff\xff\xff\x00" * 9, b"E\0\0\0\4", b"\1\0\0\0\xff"]
        for number, case in enumerate(cases):
            self.replay(case, plain, expected if not number else None)

    def replay(self, said: bytes, options: dict[str, Any], expected: Any) -> None:
        def script(sock: socket.socket) -> None:
            with contextlib.suppress(OSError):
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
        started = time.monotonic()
        with scripted_server(script) as port, contextlib.closing(callfs.open_database({**options, "port": port})) as database:
            try:                            # not by `run`, which would try again
                connection = database._begin()
                try:
                    found = callfs.Session(connection).execute(self.QUERY, (1.5,)).rows
                    assert expected is None or found == expected
                finally:
                    database._pool.give(connection)
            except callfs.CallFSError as error:
                assert expected is None, error
        assert time.monotonic() - started < 5


class TestPostgresDatabase(ServerContract):
    """The contract with a real PostgreSQL."""

    BLOB, SLOW = "BYTEA", "SELECT pg_sleep(9)"
    PLAIN = {"enable_tls": False}
    RECORDED = {"enable_tls": False, "user": "t"}

    @pytest.fixture
    def server(self, postgres_server: RealDatabase) -> RealDatabase:
        return postgres_server

    @pytest.fixture
    def options(self, postgres_server: RealDatabase) -> dict[str, Any]:
        return postgres_server.options

    def login(self, server: Any, user: str, password: str, more: str = "") -> Any:
        dsn = f"postgres://{user}:{urllib.parse.quote(password, safe='')}@127.0.0.1:{server.port}/callfs{more}"
        with contextlib.closing(callfs.open_database({"backend": "postgres", "dsn": dsn})) as database:
            return self.rows(database, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")[0][0]

    @pytest.mark.parametrize("mode, encrypted", [("disable", False), ("allow", False), ("prefer", True), ("require", True)])
    @pytest.mark.parametrize("user", "umpt")
    def test_logins(self, server: Any, user: str, mode: str, encrypted: bool) -> None:
        assert self.login(server, user, PASSWORD, f"?sslmode={mode}") is encrypted
        if user != "t":
            with pytest.raises(callfs.DatabaseUnavailable, match="password authentication failed") as caught:
                self.login(server, user, "wrong", f"?sslmode={mode}")
            assert caught.value.state == "28P01"

    def test_only_with_tls(self, server: Any) -> None:
        for mode in ("allow", "prefer", "require", f"verify-ca&sslrootcert={server.certificate}", f"verify-full&sslrootcert={server.certificate}",
                     f"require&sslrootcert={server.certificate}"):
            assert self.login(server, "x", PASSWORD, "?sslmode=" + mode) is True
        with pytest.raises(callfs.DatabaseUnavailable, match="no encryption"):
            self.login(server, "x", PASSWORD, "?sslmode=disable")
        with pytest.raises(callfs.DatabaseUnavailable, match="self.signed"):
            self.login(server, "x", PASSWORD, "?sslmode=verify-full")

    def test_the_name_in_the_certificate(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", server.certificate)
        for name, good in (("localhost", True), ("elsewhere", False)):
            options = {**server.options, "enable_tls": True, "tls_server_name": name}
            with contextlib.closing(callfs.open_database(options)) as database:
                with contextlib.nullcontext() if good else pytest.raises(callfs.DatabaseUnavailable, match="[Hh]ostname"):
                    self.rows(database, "SELECT 1")

    def test_unix_socket(self, server: Any) -> None:
        dsn = f"host={server.folder} port={server.port} user=u password='{PASSWORD.replace(chr(39), chr(92) + chr(39))}' dbname=callfs"
        with contextlib.closing(callfs.open_database({"backend": "postgres", "dsn": dsn})) as database:
            assert self.rows(database, "SELECT ?", "x") == [("x",)]

    @pytest.mark.parametrize("sql, value", [
        ("true", True), ("1::smallint", 1), ("1.5::real", 1.5), ("'NaN'::float8", None), ("12.50::numeric", "12.50"), ("'2024-01-02'::date", "2024-01-02"),
        ("'{\"a\": 1}'::jsonb", '{"a": 1}'), ("ARRAY[1,2]", "{1,2}"), ("substr('abc', 2)", "bc"), ("4000000000::oid", 4000000000)])
    def test_types(self, options: dict[str, Any], sql: str, value: Any) -> None:
        with contextlib.closing(callfs.open_database(options)) as database:
            found = self.rows(database, f"SELECT {sql}")[0][0]
            assert found == value or value is None and found != found
            assert self.rows(database, "SELECT substr(?, ?)", "abc", 2) == [("bc",)]
            assert self.rows(database, "SELECT 1 WHERE ? < clock_timestamp()", "2020-01-01") == [(1,)]

    def test_copy_is_refused(self, options: dict[str, Any]) -> None:
        with contextlib.closing(callfs.open_database(options)) as database:
            with pytest.raises(callfs.DatabaseUnavailable, match="protocol"):
                self.rows(database, "COPY (SELECT 1) TO STDOUT")
            assert self.rows(database, "SELECT 1") == [(1,)]

    def test_notices_and_ended_sessions(self, options: dict[str, Any]) -> None:
        with contextlib.closing(callfs.open_database(options)) as database:
            with pytest.raises(callfs.DatabaseUnavailable) as caught, database.transaction() as session:
                session.execute("DROP TABLE IF EXISTS nothing_there")
                session.execute("SET LOCAL application_name = 'other'")
                pid = session.execute("SELECT pg_backend_pid()").rows[0][0]
                with contextlib.closing(callfs.open_database(options)) as other:
                    assert self.rows(other, "SELECT pg_terminate_backend(?)", pid) == [(True,)]
                session.execute("SELECT 1")
            assert (caught.value.lost, caught.value.state) == (True, "57P01")
            assert self.rows(database, "SELECT 1") == [(1,)]


class TestMariaDBDatabase(ServerContract):
    """The contract with a real MariaDB."""

    BLOB, TEXT, SLOW = "LONGBLOB", "LONGTEXT", "SELECT SLEEP(9)"

    @pytest.fixture
    def server(self, mariadb_server: RealDatabase) -> RealDatabase:
        return mariadb_server

    @pytest.fixture
    def options(self, mariadb_server: RealDatabase) -> dict[str, Any]:
        return mariadb_server.options

    @pytest.mark.parametrize("user, tls, cipher", [
        ("u", "", False), ("u", "?tls=false", False), ("u", "?tls=preferred", True), ("u", "?tls=skip-verify", True), ("x", "?tls=skip-verify", True)])
    def test_logins(self, server: Any, user: str, tls: str, cipher: bool) -> None:
        for dsn in (f"{user}:{PASSWORD}@tcp(127.0.0.1:{server.port})/callfs{tls}",
                    f"mysql://{user}:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/callfs{tls}"):
            with contextlib.closing(callfs.open_database({"backend": "mysql", "dsn": dsn})) as database:
                assert bool(self.rows(database, "SHOW STATUS LIKE 'Ssl_cipher'")[0][1]) is cipher

    def test_verified_tls(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def login(**more: Any) -> None:
            with contextlib.closing(callfs.open_database({**server.options, "user": "x", **more})) as database:
                self.rows(database, "SELECT 1")
        with pytest.raises(callfs.DatabaseUnavailable, match="self.signed"):
            login(enable_tls=True)
        with pytest.raises(callfs.DatabaseUnavailable, match="Access denied"):
            login()
        login(enable_tls=True, tls_skip_verify=True)
        monkeypatch.setenv("SSL_CERT_FILE", server.files[0])
        login(enable_tls=True, tls_server_name="localhost")
        with pytest.raises(callfs.DatabaseUnavailable, match="[Hh]ostname"):
            login(enable_tls=True, tls_server_name="elsewhere")

    @pytest.mark.parametrize("sql, value", [
        ("true", 1), ("1.50", "1.50"), ("DATE '2024-01-02'", "2024-01-02"), ("TIMESTAMP '2024-01-02 03:04:05.5'", "2024-01-02 03:04:05.500000"),
        ("TIME '-01:02:03'", "-01:02:03"), ("CAST(18446744073709551615 AS UNSIGNED)", 2**64 - 1), ("x'00ff'", b"\0\xff"), ("'a'", "a"),
        ("JSON_OBJECT('a', 1)", '{"a": 1}'), ("CAST(1.5 AS FLOAT)", 1.5)])
    def test_types(self, options: dict[str, Any], sql: str, value: Any) -> None:
        with contextlib.closing(callfs.open_database(options)) as database:
            assert self.rows(database, f"SELECT {sql}") == [(value,)]
            with database.transaction() as session:
                text = session._connection._text(f"SELECT {sql}").rows
                assert text[0][0] == value or str(text[0][0]).rstrip("0") == str(value).rstrip("0")

    def test_too_long_is_refused(self, database: Any) -> None:
        """Strict mode: nothing is cut off silently."""
        with pytest.raises(callfs.DatabaseError) as caught:
            self.add(database, "x" * 191)
        assert caught.value.state == "1406"

    def test_local_files_stay_here(self, database: Any, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        with pytest.raises(callfs.CallFSError):
            self.rows(database, f"LOAD DATA LOCAL INFILE '{tmp_path}/secret' INTO TABLE things (k)")
        assert self.rows(database, "SELECT * FROM things") == []


# ---- the parts of the protocols that values can test

def test_scram_by_rfc_7677() -> None:
    """RFC 7677, section 3."""
    scram = callfs._Scram("pencil", "rOprNGfwEbeRWgbNEkqO")
    assert scram.first("user") == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert scram.final(challenge) == (b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                                      b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    for wrong in (b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", b"", b"v="):
        with pytest.raises(callfs.DatabaseUnavailable):
            scram.verify(wrong)


@pytest.mark.parametrize("challenge", [
    b"", b"r=abc", b"r=abc,s=AAAA,i=4096", b"r=other1,s=AAAA,i=4096", b"r=abcd,s=AAAA,i=1", b"r=abcd,s=AAAA,i=1000001", b"r=abcd,s=!,i=4096",
    b"m=x,r=abcd,s=AAAA,i=4096", b"r=abcd,s=AAAA,i=x", b"\xff"])
def test_scram_challenges_that_are_refused(challenge: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        callfs._Scram("pencil", "abc").final(challenge)


@pytest.mark.parametrize("password, prepared", [
    ("I\u00adX", b"IX"), ("\u00aa", b"a"), ("\u2168", b"IX"), ("a\u00a0b", b"a b"), ("é\u0007", "é\u0007".encode()), ("plain", b"plain")])
def test_saslprep(password: str, prepared: bytes) -> None:
    """RFC 4013, section 3; what is prohibited stays as it is (PostgreSQL does so)."""
    assert callfs._prepared_password(password) == prepared


@pytest.mark.parametrize("sql, numbered", [
    ("a ? b ?", "a $1 b $2"), ("'?' ?", "'?' $1"), ("'it''s ?' ?", "'it''s ?' $1"), (r"E'\'?' ?", r"E'\'?' $1"), (r"'\' ?", r"'\' $1"),
    ('"a?" ?', '"a?" $1'), ("-- ?\n?", "-- ?\n$1"), ("/* ? */ ?", "/* ? */ $1"), ("/* /* ? */ ? */ ?", "/* /* ? */ ? */ $1"),
    ("$$ ? $$ ?", "$$ ? $$ $1"), ("$a$ ? $$ ? $a$ ?", "$a$ ? $$ ? $a$ $1"), ("x::text = ?", "x::text = $1"), ("", "")])
def test_placeholders(sql: str, numbered: str) -> None:
    assert callfs._numbered(sql) == (numbered, numbered.count("$1"))  if numbered.count("$2") == 0 else ("a $1 b $2", 2)


GREETING = bytes.fromhex(                       # MySQL Internals, "Protocol::HandshakeV10": 5.6.4-m7-log
    "500000000a352e362e342d6d372d6c6f6700560a0000524233767a26477200ffff0802000fc01500000000000000000000"
    "70762 13d505c5a322a7a493f006d7973716c5f6e61746976655f70617373776f726400".replace(" ", ""))


def test_a_recorded_greeting() -> None:
    flags, nonce, plugin = callfs._read_greeting(callfs._Fields(GREETING[4:]))
    assert (nonce, plugin, flags) == (b"RB3vz&Grpv!=P\\Z2*zI?", "mysql_native_password", 0xC00FFFFF)
    for size in range(4, len(GREETING) - 25):
        with pytest.raises(ValueError):
            callfs._read_greeting(callfs._Fields(GREETING[4:size]))


class MySQL8:
    """The server's side of a login by caching_sha2_password, after MySQL's documentation."""

    NONCE = bytes(range(33, 53))

    def __init__(self, plugin: str = "caching_sha2_password", full: bool = False, switch: str = "", key: str = "",
                 tls: Optional[tuple[str, str]] = None) -> None:
        self.plugin, self.full, self.switch, self.key, self.tls = plugin, full, switch, key, tls
        self.learned = b""                  # the password, where the client gave it

    def packet(self, sock: socket.socket) -> bytes:
        head = self.exactly(sock, 4)
        self.sequence = head[3] + 1
        return self.exactly(sock, int.from_bytes(head[:3], "little"))

    def exactly(self, sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = sock.recv(size - len(data))
            assert more, "the client went away"
            data += more
        return data

    def say(self, sock: socket.socket, payload: bytes) -> None:
        sock.sendall(len(payload).to_bytes(3, "little") + bytes((self.sequence & 255,)) + payload)
        self.sequence += 1

    def __call__(self, sock: socket.socket) -> None:
        self.sequence = 0
        flags = 0xDFFFFFFF if self.tls else 0xDFFFF7FF
        self.say(sock, b"\x0a8.0.36\0" + struct.pack("<I", 9) + self.NONCE[:8] + b"\0" + struct.pack("<HBHHB", flags & 0xFFFF, 255, 2, flags >> 16, 21)
                 + bytes(10) + self.NONCE[8:] + b"\0" + self.plugin.encode() + b"\0")
        login = self.packet(sock)
        if self.tls:
            assert len(login) == 32 and struct.unpack("<I", login[:4])[0] & 0x800
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            with context.wrap_socket(sock, server_side=True) as encrypted:
                return self.let_in(encrypted, self.packet(encrypted))
        self.let_in(sock, login)

    def let_in(self, sock: socket.socket, login: bytes) -> None:
        """From HandshakeResponse41 to the end."""
        assert not struct.unpack("<I", login[:4])[0] & (0x80 | 0x10000 | 0x1000000)     # LOCAL_FILES, MULTI_STATEMENTS, DEPRECATE_EOF
        user, _, rest = login[32:].partition(b"\0")
        proof, tail = rest[1:1 + rest[0]], rest[1 + rest[0]:]
        assert (user, tail) == (b"u", b"db\0" + (self.plugin if self.plugin != "odd" else "caching_sha2_password").encode() + b"\0")
        nonce = self.NONCE
        if self.switch:
            nonce = bytes(range(60, 80))
            self.say(sock, b"\xfe" + self.switch.encode() + b"\0" + nonce + b"\0")
            proof = self.packet(sock)
        self.check(self.switch or self.plugin, proof, nonce)
        if self.full:
            self.say(sock, b"\1\4")
            self.learned = self.packet(sock)
            if self.learned == b"\2":
                self.say(sock, b"\1" + Path(self.key + ".pub").read_bytes())
                self.learned = self.decrypt(self.packet(sock), nonce)
        elif (self.switch or self.plugin) == "caching_sha2_password":
            self.say(sock, b"\1\3")
        self.say(sock, bytes.fromhex("00000002000000"))
        with contextlib.suppress(AssertionError, OSError):      # SET, SET, BEGIN, ..., then the client goes
            while self.packet(sock) != b"\1":
                self.sequence = 1
                self.say(sock, bytes.fromhex("00000002000000"))

    def check(self, plugin: str, proof: bytes, nonce: bytes) -> None:
        """What the server does: it knows only the hash of the hash."""
        name, order = ("sha256", lambda twice: twice + nonce) if plugin == "caching_sha2_password" else ("sha1", lambda twice: nonce + twice)
        def digest(data: bytes) -> bytes:
            return hashlib.new(name, data).digest()
        twice = digest(digest(PASSWORD.encode()))
        once = bytes(a ^ b for a, b in zip(proof, digest(order(twice))))
        assert digest(once) == twice

    def decrypt(self, secret: bytes, nonce: bytes) -> bytes:
        """By OpenSSL, whose OAEP is with SHA-1 unless it is told otherwise."""
        done = subprocess.run([need_program("openssl"), "pkeyutl", "-decrypt", "-inkey", self.key, "-pkeyopt", "rsa_padding_mode:oaep"],
                              input=secret, stdout=subprocess.PIPE, check=True)
        return bytes(a ^ b for a, b in zip(done.stdout, itertools.cycle(nonce)))


@pytest.fixture(scope="session")
def rsa_key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a private key; its public one has `.pub` behind."""
    path = str(tmp_path_factory.mktemp("rsa") / "key.pem")
    for command in (["genrsa", "-out", path, "2048"], ["rsa", "-in", path, "-pubout", "-out", path + ".pub"]):
        subprocess.run([need_program("openssl"), *command], check=True, capture_output=True)
    return path


class TestMySQLLogins:
    """MySQL 8 is no package of Debian: its side is played."""

    def login(self, script: Callable[[socket.socket], None], **more: Any) -> None:
        with scripted_server(script) as port:
            with contextlib.closing(callfs.open_database({"backend": "mysql", "host": "127.0.0.1", "port": port, "user": "u", "password": PASSWORD,
                                                          "database": "db", "connect_timeout": 5, **more})) as database:
                with database.transaction():
                    pass

    @pytest.mark.parametrize("plugin, switch", [
        ("caching_sha2_password", ""), ("mysql_native_password", ""), ("mysql_native_password", "caching_sha2_password"),
        ("caching_sha2_password", "mysql_native_password"), ("odd", "caching_sha2_password")])
    def test_fast(self, plugin: str, switch: str) -> None:
        self.login(MySQL8(plugin, switch=switch))

    @pytest.mark.parametrize("switch", ["", "caching_sha2_password"])
    def test_full_by_public_key(self, rsa_key: str, switch: str) -> None:
        server = MySQL8(full=True, switch=switch, key=rsa_key)
        self.login(server)
        assert server.learned == PASSWORD.encode() + b"\0"

    def test_full_over_tls(self, certificate: tuple[str, str]) -> None:
        server = MySQL8(full=True, tls=certificate)
        self.login(server, enable_tls=True, tls_skip_verify=True)
        assert server.learned == PASSWORD.encode() + b"\0"

    def refused(self, script: Callable[[socket.socket], None], **more: Any) -> str:
        def play(sock: socket.socket) -> None:
            with contextlib.suppress(AssertionError, OSError):
                script(sock)
        with pytest.raises(callfs.DatabaseUnavailable) as caught:
            self.login(play, **more)
        assert PASSWORD not in str(caught.value)
        return str(caught.value)

    def test_no_tls(self) -> None:
        assert "does not speak TLS" in self.refused(MySQL8(), enable_tls=True)

    @pytest.mark.parametrize("kind", ["dialog", "mysql_clear_password", "sha256_password", "client_ed25519", "\x1b[31m"])
    def test_other_logins(self, kind: str) -> None:
        assert "not supported" in self.refused(MySQL8(switch=kind))

    def test_a_public_key_of_no_use(self, rsa_key: str, tmp_path: Path) -> None:
        for text in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", Path(rsa_key + ".pub").read_text().replace("A", "B", 9)):
            (tmp_path / "k.pub").write_text(text)
            assert "protocol" in self.refused(MySQL8(full=True, key=str(tmp_path / "k")))

    def test_packets_out_of_order(self) -> None:
        class Confused(MySQL8):
            def say(self, sock: socket.socket, payload: bytes) -> None:
                self.sequence += 1
                super().say(sock, payload)
        assert "protocol" in self.refused(Confused())

    def test_a_request_for_a_local_file(self) -> None:
        class Thief(MySQL8):
            def say(self, sock: socket.socket, payload: bytes) -> None:
                super().say(sock, b"\xfb/etc/passwd" if self.sequence == 1 else payload)
        assert "protocol" in self.refused(Thief())

    def test_an_error_that_holds_the_password(self) -> None:
        def script(sock: socket.socket) -> None:
            text = b"\xff\x15\x04#28000No: " + PASSWORD.encode() + b"\x1b[31m\nforged"
            sock.sendall(len(text).to_bytes(3, "little") + b"\0" + text)
        assert self.refused(script) == "The database refused: No: ***\\x1b[31m\\x0aforged"


class TestPostgresLogins:
    """A server that does not mean well."""

    def refused(self, *said: bytes, **more: Any) -> str:
        def script(sock: socket.socket) -> None:
            with contextlib.suppress(OSError):
                for each in said:
                    sock.recv(65536)
                    sock.sendall(each)
                sock.recv(65536)
        with scripted_server(script) as port, pytest.raises(callfs.DatabaseUnavailable) as caught:
            options = {"backend": "postgres", "host": "127.0.0.1", "port": port, "user": "u", "password": PASSWORD, "connect_timeout": 2,
                       "enable_tls": False, **more}
            with contextlib.closing(callfs.open_database(options)) as database, database.transaction():
                pass
        return str(caught.value)

    @staticmethod
    def request(kind: int, rest: bytes = b"") -> bytes:
        return callfs._postgres_message(b"R", struct.pack("!i", kind), rest)

    def test_a_welcome_in_the_middle_of_scram(self) -> None:
        """It never proved that it knows the password."""
        assert "protocol" in self.refused(self.request(10, b"SCRAM-SHA-256\0\0"), self.request(0) + b"Z\0\0\0\5I")

    def test_only_unknown_mechanisms(self) -> None:
        assert "SCRAM-SHA-256" in self.refused(self.request(10, b"SCRAM-SHA-1\0\0"))
        assert "kind 7" in self.refused(self.request(7))

    def test_no_tls(self) -> None:
        assert "does not speak TLS" in self.refused(b"N", enable_tls=True)
        assert "protocol" in self.refused(b"E", enable_tls=True)
        assert "protocol" in self.refused(b"Sstuffed", enable_tls=True)

    def test_a_cleartext_password_only_where_nobody_listens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = callfs._DatabaseSocket._set_options
        def far_away(self: Any, target: Any) -> None:
            original(self, target)
            self.local = False
        monkeypatch.setattr(callfs._DatabaseSocket, "_set_options", far_away)
        assert "in clear" in self.refused(self.request(3))

    def test_a_frame_that_is_too_long(self) -> None:
        tracemalloc.start()
        assert "protocol" in self.refused(b"R\x7f\xff\xff\xff")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()

    def test_silence(self) -> None:
        started = time.monotonic()
        assert "did not answer within 300ms" in self.refused(b"", connect_timeout=0.3)
        assert time.monotonic() - started < 3


# ---- options

def target_of(**options: Any) -> Any:
    return callfs.open_database(options)._target


@pytest.mark.parametrize("backend, dsn, expected", [
    ("mysql", "u:p@tcp(h:4001)/db", dict(host="h", port=4001, user="u", password="p", database="db", tls="disable")),
    ("tidb", "u:p@tcp(h)/db?charset=utf8mb4&parseTime=True&tls=true", dict(host="h", port=4000, tls="verify-full")),
    ("mysql", "u:a@b/c:d?e@tcp([::1]:1)/db?tls=skip-verify", dict(host="::1", port=1, password="a@b/c:d?e", database="db", tls="require")),
    ("mysql", "u@unix(/run/m.sock)/db?timeout=3s", dict(host="/run/m.sock", password="", connect_timeout=3.0)),
    ("mysql", "u@/db", dict(host="127.0.0.1", port=3306)), ("mysql", "u@tcp(h:1)/", dict(database="")),
    ("mysql", "mysql://u:p%40%2F@h/db?tls=preferred", dict(password="p@/", port=3306, tls="prefer")),
    ("postgres", "postgres://u:p%40@h:1/db?sslmode=require&connect_timeout=4&application_name=x",
     dict(host="h", port=1, password="p@", database="db", tls="require", connect_timeout=4.0, application_name="x")),
    ("postgres", "postgresql:///db?host=/var/run/postgresql&user=u", dict(host="/var/run/postgresql/.s.PGSQL.5432", user="u", tls="prefer")),
    ("postgres", "postgres://u@%2Ftmp:7/db", dict(host="/tmp/.s.PGSQL.7")),
    ("postgres", r"host=h user = u password='a\'b c\\' dbname=d sslmode=disable", dict(password="a'b c\\", database="d", tls="disable")),
])
def test_dsn(backend: str, dsn: str, expected: dict[str, Any]) -> None:
    target = target_of(backend=backend, dsn=dsn)
    assert {key: getattr(target, key) for key in expected} == expected


@pytest.mark.parametrize("options, named", [
    ({}, "backend"), ({"backend": "oracle"}, "backend"), ({"backend": "sqlite"}, "db_path"), ({"backend": "sqlite", "db_path": 1}, "db_path"),
    ({"backend": "sqlite", "db_path": "x", "host": "h"}, "host"), ({"backend": "mysql", "user": "u", "db_path": "x"}, "db_path"),
    ({"backend": "mysql", "user": "u", "hots": "h"}, "hots: .* host"), ({"backend": "mysql"}, "user"), ({"backend": "mysql", "user": "u", "port": "x"}, "port"),
    ({"backend": "mysql", "user": "u", "port": 70000}, "port"), ({"backend": "mysql", "user": "u", "pool_size": 0}, "pool_size"),
    ({"backend": "mysql", "user": "u", "timeout": "soon"}, "timeout"), ({"backend": "mysql", "user": "u", "tls_skip_verify": True}, "tls_skip_verify"),
    ({"backend": "mysql", "user": "u", "tls_server_name": "x"}, "tls_server_name"), ({"backend": "mysql", "user": "u", "enable_tls": "maybe"}, "enable_tls"),
    ({"backend": "mysql", "user": "a\0b"}, "user"), ({"backend": "mysql", "dsn": "u:s3cret@tcp(h)/d", "user": "u"}, "user"),
    ({"backend": "mysql", "dsn": "u:s3cret@tcp(h)/d?tls=true", "enable_tls": False}, "enable_tls"), ({"backend": "mysql", "dsn": "u:s3cret@tcp(h)/d?tls=mine"}, "tls"),
    ({"backend": "mysql", "dsn": "u:s3cret@tcp(h)/d?multiStatements=true"}, "multiStatements"), ({"backend": "mysql", "dsn": "u:s3cret@tcp(h)"}, "dsn"),
    ({"backend": "mysql", "dsn": "postgres://u:s3cret@h/d"}, "dsn"), ({"backend": "mysql", "dsn": "u:s3cret@tcp(h:s3cret)/d"}, "dsn"),
    ({"backend": "postgres", "dsn": "postgres://u:s3cret@h:s3cret/d"}, "dsn"), ({"backend": "postgres", "dsn": "postgres://u:s3cret@a,b/d"}, "dsn"),
    ({"backend": "postgres", "dsn": "postgres://u:s3cret@h/d?sslmode=maybe"}, "sslmode"), ({"backend": "postgres", "dsn": "postgres://u:s3cret@h/d?nix=1"}, "nix"),
    ({"backend": "postgres", "dsn": "postgres://u:s3cret@h/d?host=other"}, "host"), ({"backend": "postgres", "dsn": "user=u password='s3cret"}, "dsn"),
    ({"backend": "postgres", "dsn": "postgres://u:s3cret@h/d?sslmode=verify-ca&sslrootcert=/nix"}, "sslrootcert"),
    ({"backend": "postgres", "dsn": "postgres://u:s3cret%00@h/d"}, "dsn"), ({"backend": "postgres", "dsn": "user=u user=v"}, "dsn"),
])
def test_options_that_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(callfs.ConfigError, match=named) as caught:
        callfs.open_database(options)
    shown = "".join(traceback.format_exception(type(caught.value), caught.value, None))
    assert "s3cret" not in shown


@pytest.mark.parametrize("options, tls", [
    ({"backend": "mysql"}, "disable"), ({"backend": "postgres"}, "prefer"), ({"backend": "postgres", "enable_tls": False}, "disable"),
    ({"backend": "postgres", "enable_tls": "true"}, "verify-full"), ({"backend": "tidb", "enable_tls": True, "tls_skip_verify": True}, "require"),
    ({"backend": "mysql", "enable_tls": True, "tls_server_name": "x"}, "verify-full")])
def test_tls_by_options(options: dict[str, Any], tls: str) -> None:
    assert target_of(user="u", host="h", **options).tls == tls


def test_a_go_program_s_name_for_tls() -> None:
    target = target_of(backend="tidb", dsn="u:p@tcp(h:4000)/d?tls=tidb", enable_tls=True, tls_server_name="x")
    assert (target.tls, target.tls_server_name, "p" in repr(target).split("password")[0]) == ("verify-full", "x", True)


# ============================================================================
# PFS client: a scripted server, and one that behaves as the reference does
# ============================================================================


class ReferenceHandler(http.server.BaseHTTPRequestHandler):
    """The reference's answers: 500 for nearly every error, its own words, `files: null`, times with fraction and zone."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def _say(self, value: Any, status: int = 200) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Set-Cookie", "upstream=1")
        self.end_headers()
        self.wfile.write(data)

    def _fail(self, text: str, status: int = 500) -> None:
        self._say({"error": text}, status)

    def _info(self, path: str) -> dict[str, Any]:
        data, mode = self.files[path], self.modes.get(path, 0o644)
        return {"name": path.rpartition("/")[2] or "/", "size": 0 if data is None else len(data), "mode": mode,
                "modTime": "2026-01-02T03:04:05.123456789+02:00", "isDir": data is None,
                "meta": {"Name": "fakefs", "Type": self.types.get(path, ""), "Content": None}}

    def _serve(self) -> None:
        server: Any = self.server
        self.files, self.modes, self.types = server.files, server.modes, server.types
        target = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(target.query))
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                server.pieces.append(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if len(body) < length:              # cut off: nothing of it counts
                return None
        server.heard.append((self.command, target.path, query, dict(self.headers)))
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            return self._fail("unauthorized", 401)
        route = target.path[len("/api/v1/"):].replace("/", "_")
        getattr(self, f"on_{self.command}_{route}", lambda *args: self._fail("404 page", 404))(query.get("path", "/"), query, body)

    do_GET = do_PUT = do_POST = do_DELETE = _serve      # noqa: N815

    def on_GET_health(self, path: str, query: Any, body: bytes) -> None:
        self._say({"status": "healthy", "version": "x"})

    def on_GET_stat(self, path: str, query: Any, body: bytes) -> None:
        self._say(self._info(path)) if path in self.files else self._fail(f"file not found: {path}")

    def on_GET_directories(self, path: str, query: Any, body: bytes) -> None:
        if self.files.get(path, b"") is not None:
            return self._fail(f"no such file or directory: {path}")
        inside = [each for each in self.files if each != "/" and (each.rpartition("/")[0] or "/") == path]
        self._say({"files": [self._info(each) for each in reversed(sorted(inside))] or None})

    def on_GET_files(self, path: str, query: Any, body: bytes) -> None:
        data = self.files.get(path)
        if data is None:
            return self._fail(f"file not found: {path}")
        if self.types.get(path) == "control":
            self.files[path] = b""              # a look takes it
        if query.get("stream") == "true":
            return self._stream(data)
        start, size = int(query.get("offset", 0)), int(query.get("size", -1))
        self._say(data[start:] if size < 0 else data[start:start + size])

    def _stream(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in data.split(b","):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.server.go.acquire(timeout=10)
        self.wfile.write(b"0\r\n\r\n")

    def on_PUT_files(self, path: str, query: Any, body: bytes) -> None:
        if self.modes.get(path) == 0o444:
            return self._fail("permission denied: read only")
        self.files[path] = body
        self._say({"message": f"Written {len(body)} bytes"})

    def on_POST_files(self, path: str, query: Any, body: bytes) -> None:
        if path in self.files:
            return self._fail(f"file already exists: {path}")
        self.files[path] = b""
        self._say({"message": "file created"}, 201)

    def on_POST_directories(self, path: str, query: Any, body: bytes) -> None:
        self.files[path], self.modes[path] = None, int(query["mode"], 8)
        self._say({"message": "directory created"}, 201)

    def on_DELETE_files(self, path: str, query: Any, body: bytes) -> None:
        below = [each for each in self.files if each.startswith(path + "/")]
        if below and query.get("recursive") != "true":
            return self._fail("directory not empty")
        for each in (path, *below):
            if self.files.pop(each, 0) == 0:
                return self._fail(f"file not found: {each}")
        self._say({"message": "deleted"})

    def on_POST_rename(self, path: str, query: Any, body: bytes) -> None:
        if path not in self.files:
            return self._fail(f"file not found: {path}")
        self.files[json.loads(body)["newPath"]] = self.files.pop(path)
        self._say({"message": "renamed"})

    def on_POST_chmod(self, path: str, query: Any, body: bytes) -> None:
        self.modes[path] = json.loads(body)["mode"]
        self._say({"message": "permissions changed"})

    def on_POST_touch(self, path: str, query: Any, body: bytes) -> None:
        self._fail("operation not supported")

    def on_POST_grep(self, path: str, query: Any, body: bytes) -> None:
        found = [{"file": "/a", "line": 1, "content": "x"}]
        if self.server.types.get("grep") == "plain":
            return self._say({"matches": found, "count": 1})
        lines = [*found, *([] if self.server.types.get("grep") == "cut" else [{"type": "summary", "count": 1}])]
        self._say(b"".join(json.dumps(each).encode() + b"\n" for each in lines))

    def on_POST_digest(self, path: str, query: Any, body: bytes) -> None:
        wish = json.loads(body)
        digest = hashlib.new(wish["algorithm"], self.files[wish["path"]]).hexdigest()
        self._say({"algorithm": wish["algorithm"], "path": wish["path"], "digest": digest})

    def on_GET_mounts(self, path: str, query: Any, body: bytes) -> None:
        self._say({"mounts": None})


class FakeServer(http.server.ThreadingHTTPServer):
    """`ReferenceHandler` on a port; `stop` and `start` again on the same one."""

    daemon_threads = True

    def __init__(self, port: int = 0, files: Optional[dict[str, Any]] = None) -> None:
        super().__init__(("127.0.0.1", port), ReferenceHandler)
        self.files: dict[str, Any] = {"/": None, "/d": None, "/d/x": b"0123456789"} if files is None else files
        self.modes: dict[str, int] = {"/": 0o755, "/d": 0o755}
        self.types: dict[str, str] = {}
        self.heard: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self.pieces: list[int] = []
        self.token, self.go, self._open = "", threading.Semaphore(0), set()     # type: ignore[var-annotated]
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self._thread.join(10)
        self.server_close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def count(self, method: str, route: str) -> int:
        return sum(heard[:2] == (method, "/api/v1/" + route) for heard in self.heard)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def pfs(fake: FakeServer) -> Iterator[callfs.PFSClient]:
    with callfs.PFSClient(fake.url, timeout=10) as client:
        yield client


def test_pfs_client_does_everything(fake: FakeServer, pfs: callfs.PFSClient) -> None:
    pfs.mkdir("/new", 0o750)
    pfs.create("/new/a")
    assert pfs.write("/new/a", b"hello") == "Written 5 bytes"
    assert pfs.read("/new/a") == b"hello" and pfs.read("/new/a", 1, 3) == b"ell" and pfs.read("/new/a", 99) == b""
    info = pfs.stat("/new/a")
    assert info[:3] == ("a", 5, 0o644) and info.mtime_ns == 1767315845_123456789 and not info.is_dir
    assert info.meta == {"Name": "fakefs", "Type": "", "Content": None} and fake.modes["/new"] == 0o750
    pfs.rename("/new/a", "/new/b & c?.txt")
    pfs.chmod("/new/b & c?.txt", 0o600)
    assert [each.name for each in pfs.list("/new")] == ["b & c?.txt"] and fake.modes["/new/b & c?.txt"] == 0o600
    assert pfs.digest("/new/b & c?.txt", "md5") == hashlib.md5(b"hello").hexdigest()
    pfs.remove("/new", recursive=True)
    pfs.mkdir("/empty")
    assert pfs.list("/empty") == [] and pfs.mounts() == [] and pfs.health()["status"] == "healthy"


@pytest.mark.parametrize("how, word, kind, status", [
    (lambda c: c.stat("/no"), "file not found: /no", callfs.FileNotFound, 404),
    (lambda c: c.list("/d/x"), "no such file", callfs.FileNotFound, 404),
    (lambda c: c.create("/d/x"), "already exists", callfs.FileExists, 409),
    (lambda c: c.remove("/d"), "not empty", callfs.DirectoryNotEmpty, 409),
    (lambda c: c.write("/r", b""), "permission denied", callfs.PermissionDenied, 403),
    (lambda c: c.touch("/d/x"), "not supported", callfs.NotSupported, 501),
    (lambda c: c.truncate("/d/x", 0), "404 page", callfs.NotFound, 404),
])
def test_pfs_errors_of_the_reference(fake: FakeServer, pfs: callfs.PFSClient, how: Any, word: str, kind: Any,
                                     status: int) -> None:
    fake.modes["/r"] = 0o444
    with pytest.raises(kind, match=word) as caught:
        how(pfs)
    assert caught.value.status == status and not caught.value.headers       # nothing of the other server's headers


@pytest.mark.parametrize("status, body, kind, message", [
    (500, b'{"error":"boom\\nX: y"}', callfs.CallFSError, "boom X: y"),
    (409, b'{"error":"A file is already there."}', callfs.FileExists, "A file is already there."),
    (409, b'{"error":"mount"}', callfs.Conflict, "mount"), (302, b"", callfs.BadGateway, "redirect"),
    (404, b"<html>", callfs.FileNotFound, "<html>"), (507, b'{"error":"full"}', callfs.StorageFull, "full"),
    (508, b'{"error":"loop"}', callfs.LoopDetected, "loop"), (418, b"[" * 9999, callfs.CallFSError, "[["),
    (503, b'{"error":"later","code":"UNAVAILABLE"}', callfs.Unavailable, "later"), (500, b"", callfs.CallFSError, "500"),
])
def test_error_of_pfs_answer(status: int, body: bytes, kind: Any, message: str) -> None:
    error = callfs.error_of_pfs_answer(status, {"Retry-After": "7", "Set-Cookie": "x"}, body)
    assert type(error) is kind and message in error.message
    assert error.status in (status, kind.status) and (status == 302 or error.headers == (("Retry-After", "7"),))


@pytest.mark.parametrize("text, moment", [
    ("2026-01-02T03:04:05Z", 1767323045 * 10**9), ("2026-01-02T03:04:05.5Z", 1767323045_500000000),
    ("2026-01-02T03:04:05.123456789-01:30", 1767328445_123456789), ("0001-01-01T00:00:00Z", 0),
])
def test_pfs_time(text: str, moment: int) -> None:
    assert callfs.pfs_time_ns(text) == moment
    with pytest.raises(ValueError):
        callfs.pfs_time_ns(text + "x")


@pytest.mark.parametrize("source, chunked", [
    (lambda: b"abc" * 3, False), (lambda: callfs.bytes_body(b"abc" * 3), False), (lambda: io.BytesIO(b"abc" * 3), False),
    (lambda: iter([b"abc"] * 3), True), (lambda: callfs.FileBody(io.BytesIO(b"abc" * 3)), True),
])
def test_pfs_write_takes(fake: FakeServer, pfs: callfs.PFSClient, source: Any, chunked: bool) -> None:
    assert pfs.write("/w", source()) == "Written 9 bytes" and fake.files["/w"] == b"abc" * 3
    assert bool(fake.pieces) == chunked


def test_pfs_write_sends_each_piece_at_once(fake: FakeServer, pfs: callfs.PFSClient) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(3):
            yield b"%d" % number
            wait_for(lambda: len(fake.pieces) > number, what="the piece before the next is made")
    pfs.write("/w", pieces())
    assert fake.files["/w"] == b"012" and fake.pieces == [1, 1, 1]


def test_pfs_write_of_a_body_that_lies(fake: FakeServer, pfs: callfs.PFSClient) -> None:
    for length in (5, 2):
        with pytest.raises(callfs.StorageError):
            pfs.write("/w", callfs.FileBody(io.BytesIO(b"abc"), length))
    assert "/w" not in fake.files and pfs.health()


def test_pfs_stream_comes_as_it_is_written(fake: FakeServer) -> None:
    fake.files["/s"] = b"one,two,three"
    with callfs.PFSClient(fake.url, timeout=0.3) as client, client.open("/s", stream=True) as reader:
        assert reader.length is None and reader.read() == b"one"
        timer = threading.Timer(0.6, fake.go.release)   # later than the time-out, which holds for heads only
        timer.start()
        assert reader.read() == b"two"
        for _ in range(2):
            fake.go.release()
        assert reader.read() == b"three" and reader.read() == b"" and client.health()
        timer.join()
    assert fake.heard[0][2] == {"path": "/s", "stream": "true"}


def test_pfs_stream_closed_while_it_is_read(fake: FakeServer, pfs: callfs.PFSClient) -> None:
    fake.files["/s"] = b"one,two"
    reader = pfs.open("/s", stream=True)
    assert reader.read() == b"one"
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(reader.read()))
    thread.start()
    reader.close()
    reader.close()
    thread.join(5)
    assert found == [b""] and not thread.is_alive()
    fake.go.release()


@pytest.mark.parametrize("act, twice", [
    (lambda c: c.stat("/a"), True), (lambda c: c.list("/a"), True), (lambda c: c.read("/q/dequeue"), False),
    (lambda c: c.write("/q/enqueue", b"x"), False), (lambda c: c.remove("/a"), False), (lambda c: c.mkdir("/a"), False),
])
@pytest.mark.parametrize("reused", [False, True])
def test_pfs_client_sends_nothing_twice_that_counts(act: Any, twice: bool, reused: bool) -> None:
    first = [answer(body=b"{}")] if reused else []
    cut = lambda sock: sock.shutdown(socket.SHUT_RDWR)              # noqa: E731 (taken, and not answered)
    with Scripted([*first, cut], [answer(503, b'{"error":"later"}')]) as server, callfs.PFSClient(server.url) as client:
        if reused:
            client.health()
        with pytest.raises(callfs.Unavailable):
            act(client)
        assert len(server.heard) == len(first) + 1 + twice


def test_pfs_client_cut_answers_and_nonsense() -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123"
    chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    with Scripted([cut], [chunk], [answer(body=b"[1]")], [answer(302, Location="http://127.0.0.1:9/")]) as server, \
            callfs.PFSClient(server.url + "/prefix/api/v1/", "key") as client:
        for wrong in (lambda: client.read("/a"), lambda: client.read("/a"), lambda: client.stat("/a"),
                      lambda: client.stat("/a")):
            with pytest.raises(callfs.BadGateway):
                wrong()
        assert server.heard[0].target == "/prefix/api/v1/files?path=%2Fa"
        assert server.heard[0].headers["authorization"] == "Bearer key"


def test_pfs_client_without_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with callfs.PFSClient(f"http://user:secretkey@127.0.0.1:{port}") as client, \
            pytest.raises(callfs.Unavailable, match=f"Connection refused - server not running at 127.0.0.1:{port}$"):
        client.health()


@pytest.mark.parametrize("mode", ["stream", "plain"])
def test_pfs_grep(fake: FakeServer, pfs: callfs.PFSClient, mode: str) -> None:
    fake.types["grep"] = mode
    assert list(pfs.grep("/", "x", True)) == [{"file": "/a", "line": 1, "content": "x"}, {"type": "summary", "count": 1}]
    fake.types["grep"] = "cut"
    with pytest.raises(callfs.BadGateway, match="summary"):
        list(pfs.grep("/", "x"))


# ============================================================================
# Records and metadata stores: one contract, each implementation a subclass
# ============================================================================

def an_entry(path: str, **fields: Any) -> callfs.Entry:
    """A record with a value in every field."""
    some = callfs.Entry(path, callfs.FILE, 5, 0o640, "alice", 1_700_000_000_000_000_001, "e", "id " + path, "ab" * 32,
                        "localfs", "node-1", "s", 0)
    return some._replace(**fields)


def a_link(number: int = 0, **fields: Any) -> callfs.Link:
    """A link that is neither used nor expired at 1000."""
    return callfs.Link(f"id{number}", f"hash{number}", "/a", "entry", "alice", 900.0 + number,
                       2000.0)._replace(**fields)


# Names that sort, compare or match in their own way: LIKE patterns, quotes, neighbours of "/", beyond the BMP (UTF-16
# would sort U+FFFD behind U+1F600, UTF-8 and code points do not)
ODD_NAMES = ["a", "a ", "a!", "a%", "a-", "a.", "a.txt", "a0", "aA", "aa", "ab", "a_", "A", "%", "_", "'", '"', "?1",
             "é", "e\u0301", "\ufffd",
             "\U0001f600", "~", "0", "Makefile", ".hidden", "-rf", "x" * 255]


class MetadataStoreContract:
    """What every metadata store does. A subclass says how to make one."""

    def make(self, folder: Path) -> Any:
        """A store with its data in `folder`; the same folder again finds the same data."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Any]:
        store = self.make(tmp_path)
        yield store
        store.close()

    def paths(self, store: Any) -> list[str]:
        """Every recorded path."""
        found, after = [], ("", "")
        page = store.subtree("/", after, 3)
        while page:
            found += [entry.path for entry in page]
            page = store.subtree("/", callfs.split_path(page[-1].path), 3)
        return found

    @pytest.mark.parametrize("path", ["/", "/a", "/a/b/c", *("/d/" + name for name in ODD_NAMES)])
    def test_put_and_get(self, store: Any, path: str) -> None:
        """Every field comes back, also after replacing; the version grows."""
        assert store.get(path) is None
        first = store.put(an_entry(path))
        assert store.get(path) == first == an_entry(path, version=first.version) and first.version > 0
        second = store.put(an_entry(path, size=2**62, mtime_ns=-1, owner="b'o\"b", etag="f", type=callfs.DIRECTORY))
        assert second.version > first.version and store.get(path) == second != first
        assert store.get(path).owner == "b'o\"b" and store.get(path).is_dir

    def test_survives_a_restart(self, store: Any, tmp_path: Path) -> None:
        """Records, links, and the version goes on growing."""
        version = store.put(an_entry("/a")).version
        store.add_link(a_link())
        store.close()
        again = self.make(tmp_path)
        try:
            assert again.get("/a") == an_entry("/a", version=version) and again.find_link("hash0") == a_link()
            assert again.put(an_entry("/b")).version > version
        finally:
            again.close()

    def test_add_keeps_what_is_there(self, store: Any) -> None:
        """Only paths without a record get one."""
        mine = store.put(an_entry("/a"))
        store.add([an_entry("/a", owner="root"), an_entry("/b", owner="root")])
        store.add([])
        assert store.get("/a") == mine and store.get("/b").owner == "root" and store.get("/b").version > mine.version

    def test_page(self, store: Any) -> None:
        """Children only, by name in code point order, a page of any size after any name."""
        store.add([an_entry("/d/" + name) for name in ODD_NAMES] + [an_entry("/d/a/deeper"), an_entry("/d"),
                                                                    an_entry("/d0"),
                                                                    an_entry("/da"), an_entry("/")])
        names = sorted(ODD_NAMES)
        assert [entry.name for entry in store.page("/d")] == names
        for limit in (1, 2, 1000):
            for start in range(len(names)):
                assert [entry.name for entry in store.page("/d", names[start],
                                                           limit)] == names[start + 1:start + 1 + limit]
        assert [entry.path for entry in store.page("/")] == ["/d", "/d0", "/da"]
        assert [entry.name for entry in store.page("/d", "a!!")] == [name for name in names if name > "a!!"]
        assert store.page("/absent") == [] == store.page("/d", "\U0010ffff")

    def test_known(self, store: Any) -> None:
        """Which of many names have a record."""
        names = [f"n{number}" for number in range(1000)]
        store.add([an_entry("/d/" + name) for name in names[::2] + ODD_NAMES] + [an_entry("/n1")])
        assert store.known("/d", names) == set(names[::2])
        assert store.known("/d", ODD_NAMES) == set(ODD_NAMES)
        assert store.known("/d", []) == set() == store.known("/", names[::2])

    def test_subtree(self, store: Any) -> None:
        """All below a path and nothing that only looks alike, by (parent, name), in pages."""
        inside = ["/a/b", "/a/b/c", "/a/b/c/d", "/a/b0", "/a/ba", "/a/ /x", "/a/%/y", "/a/\U0001f600/z"]
        store.add([an_entry(path) for path in [*inside, "/", "/a", "/a0", "/ab", "/a!", "/a-", "/a.txt", "/b", "/A/x",
                                               "/a0/x", "/ab/x"]])
        expected = sorted(map(callfs.split_path, inside))
        for limit in (1, 3, 1000):
            found: list[tuple[str, str]] = []
            page = store.subtree("/a", ("", ""), limit)
            while page:
                assert len(page) <= limit
                found += [callfs.split_path(entry.path) for entry in page]
                page = store.subtree("/a", found[-1], limit)
            assert found == expected
        assert len(self.paths(store)) == 18 and store.subtree("/a/b/c/d") == []

    ALIKE = ["/a", "/a/b", "/a/b/c", "/a0", "/a0/x", "/ab", "/ab/x", "/a-", "/a./x", "/a%", "/a_/x", "/a'", "/a'/x",
             "/A", "/A/b"]

    @pytest.mark.parametrize("path", ALIKE)
    def test_delete(self, store: Any, path: str) -> None:
        """A path and what lies below it, nothing that looks alike."""
        store.add([an_entry(one) for one in self.ALIKE])
        gone = [one for one in self.ALIKE if callfs.is_below(one, path)]
        assert store.delete(path) == len(gone) and store.delete(path) == 0
        assert set(self.paths(store)) == set(self.ALIKE) - set(gone)
        assert store.get(path) is None

    @pytest.mark.parametrize("source, target", [
        (source, target) for source in ["/a", "/a/b", "/a'", "/a%", "/a_", "/A"]
        for target in ["/z", "/z/y", "/a0/new", "/ab", "/a0", "/a1", "/a%", "/\U0001f600'", "/A"] if source != target])
    def test_move(self, store: Any, source: str, target: str) -> None:
        """A subtree under its new name: all else of the records is kept; what was recorded at the target is dropped."""
        before = {one: an_entry(one) for one in self.ALIKE}
        store.add(list(before.values()))
        moving = [one for one in self.ALIKE if callfs.is_below(one, source)]
        assert [store.get(one) for one in self.ALIKE]       # into the cache with them
        expected = {one: entry for one, entry in before.items() if one not in moving
                    and not callfs.is_below(one, target)}
        expected.update({target + one[len(source):]: before[one]._replace(path=target + one[len(source):])
                         for one in moving})
        assert store.move(source, target) == len(moving)
        assert set(self.paths(store)) == set(expected)
        assert {one: store.get(one)._replace(version=0) for one in expected} == expected
        assert all(store.get(one) is None for one in moving)

    def test_move_of_nothing(self, store: Any) -> None:
        """A source without a record still drops what was recorded at the target."""
        store.add([an_entry("/b"), an_entry("/b/x")])
        assert store.move("/a", "/b") == 0 and self.paths(store) == []

    def test_writers_share_commits(self, store: Any) -> None:
        """Nothing is lost among many threads, every version is drawn once, the commits are fewer than the writes."""
        threads, each = 12, 25
        before, commits = getattr(store, "_epoch", None), threads * each
        found = in_threads(lambda number: [store.put(an_entry(f"/t{number}/{turn}")).version for turn in range(each)],
                           threads)
        if before is not None:
            commits = store._epoch - before
        versions = [version for some in found for version in some]
        assert len(set(versions)) == len(versions) == len(self.paths(store)) == threads * each
        assert all(some == sorted(some) for some in found)
        assert commits <= threads * each and (before is None or commits < threads * each)

    def test_reads_are_never_older_than_an_acknowledged_write(self, store: Any) -> None:
        """Whoever begins to read after a write has returned sees it, through every cache, while others write."""
        acknowledged = [0, 0]
        old: list[tuple[int, int]] = []
        over = threading.Event()

        def work(number: int) -> None:
            if number < 2:
                for turn in range(1, 250):
                    store.put(an_entry(f"/d{number}/x", size=turn))
                    acknowledged[number] = turn
                    if turn % 10 == 0:
                        store.move(f"/d{number}", f"/e{number}")
                        store.move(f"/e{number}", f"/d{number}")
                    for other in range(3):  # pushes the entry into the older half of a small cache
                        store.get(f"/other/{turn % 7}/{other}")
                over.set()
            else:
                while not over.is_set():
                    for path in range(2):
                        least, entry = acknowledged[path], store.get(f"/d{path}/x")
                        if entry is not None and entry.size < least:
                            old.append((least, entry.size))

        store.add([an_entry(f"/other/{one}/{other}") for one in range(7) for other in range(3)])
        with eager_threads():
            in_threads(work, 5)
        assert not old

    def test_links(self, store: Any) -> None:
        """Kept whole, found by the hash of the token, listed newest first, revoked by their owner only."""
        for number in range(3):
            store.add_link(a_link(number, max_uses=number + 1))
        store.add_link(a_link(3, owner="bob"))
        assert store.find_link("hash1") == a_link(1, max_uses=2) and store.find_link("absent") is None
        assert [link.id for link in store.links("alice")] == ["id2", "id1", "id0"] and len(store.links(None)) == 4
        assert not store.delete_link("id3", "alice") and store.delete_link("id3", "bob")
        assert not store.delete_link("id3", None)
        assert store.delete_link("id2", None) and [link.id for link in store.links(None)] == ["id1", "id0"]
        with pytest.raises(callfs.CallFSError):
            store.add_link(a_link(0))
        assert store.links("bob") == []

    @pytest.mark.parametrize("uses", [1, 3])
    def test_a_link_is_used_exactly_as_often_as_it_may(self, store: Any, uses: int) -> None:
        """Of any number at once."""
        store.add_link(a_link(max_uses=uses))
        won = in_threads(lambda number: [store.use_link("hash0", 1000.0) for _ in range(3)], 8)
        assert sum(map(sum, won)) == uses and store.find_link("hash0").uses == uses

    def test_links_expire_and_are_swept(self, store: Any) -> None:
        """An expired one is of no use; used and expired ones go, the others stay."""
        store.add_link(a_link(0))
        store.add_link(a_link(1, expires=1000.0))
        store.add_link(a_link(2, max_uses=2))
        assert not store.use_link("hash1", 1000.0) and store.use_link("hash1", 999.9) and not store.use_link("absent",
                                                                                                             1000.0)
        assert store.use_link("hash2", 1000.0)
        assert store.sweep_links(1000.0) == 1 and [link.id for link in store.links(None)] == ["id2", "id0"]

    def test_check(self, store: Any) -> None:
        """Says nothing when all is well."""
        store.check()


class TestSQLiteStore(MetadataStoreContract):
    """SQLite, with a cache so small that everything moves through it."""

    def make(self, folder: Path) -> Any:
        return callfs.SQLiteStore(str(folder / "records.sqlite3"), durable=False, cache=4)

    def test_a_failing_job_fails_alone(self, store: Any) -> None:
        """Its own change is taken back; those that share the commit keep theirs."""
        def failing(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM entries")
            raise ValueError("mine")

        def work(number: int) -> str:
            try:
                if number % 2:
                    store._write("test", failing)
                store.put(an_entry(f"/{number}"))
            except ValueError as error:
                return str(error)
            return "stored"

        store.put(an_entry("/before"))
        assert in_threads(work, 10) == ["stored", "mine"] * 5
        assert set(self.paths(store)) == {"/before", "/0", "/2", "/4", "/6", "/8"}

    class Failing:
        """A connection whose statements that begin with a word fail, `times` times."""

        def __init__(self, real: Any, word: str, error: BaseException, times: int = 1) -> None:
            self.real, self.word, self.error, self.times = real, word, error, times

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def execute(self, text: str, *values: Any) -> Any:
            """As the connection's own."""
            if text.startswith(self.word) and self.times:
                self.times -= 1
                raise self.error
            return self.real.execute(text, *values)

    @pytest.mark.parametrize("message, status", [("database or disk is full", 507), ("disk I/O error", 503),
                                                 ("attempt to write a readonly database", 503),
                                                 ("database disk image is malformed", 500)])
    @pytest.mark.parametrize("word", ["BEGIN", "SAVEPOINT", "UPDATE counters", "COMMIT"])
    def test_a_failing_commit_fails_all(self, store: Any, word: str, message: str, status: int) -> None:
        """Everybody who shared it hears of it, nothing of it stays, and the store goes on."""
        version = store.put(an_entry("/a", size=1)).version
        failing = self.Failing(store._writer, word, sqlite3.OperationalError(message))
        jobs = [callfs._Job(lambda connection, n=n: connection.execute(
            "UPDATE entries SET size = ? WHERE name = 'a'", (n,))) for n in (2, 3)]
        store._writer, store._reserved = failing, -1    # -1: the counter has to be written too
        store._commit(jobs)
        assert [job.error.status for job in jobs] == [status] * 2 and all(job.done for job in jobs)
        assert message not in jobs[0].error.message
        assert store.get("/a").size == 1 and store.put(an_entry("/b")).version > version
        store._writer = failing.real

    def test_sqlite_takes_the_whole_transaction_back(self, store: Any) -> None:
        """As it does on a full disk: every job of the batch fails with the true reason (found by reading, 2026-11)."""
        def full(connection: sqlite3.Connection) -> None:
            connection.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")

        jobs = [callfs._Job(work) for work in (lambda connection: None, full, lambda connection: None)]
        store._commit(jobs)
        assert [job.error.status for job in jobs] == [507] * 3
        assert store.put(an_entry("/a")) == store.get("/a")

    def test_an_interrupted_commit_is_no_success(self, store: Any) -> None:
        """Ctrl-C in the thread that commits for others."""
        store._writer = failing = self.Failing(store._writer, "COMMIT", KeyboardInterrupt())
        job = callfs._Job(lambda connection: None)
        with pytest.raises(KeyboardInterrupt):
            store._commit([job])
        assert job.done and job.error is not None
        store._writer = failing.real
        assert store.put(an_entry("/a")) == store.get("/a")

    def test_a_connection_beyond_use_is_replaced(self, store: Any) -> None:
        """The write that finds it fails, the next one works."""
        store._writer.close()
        with pytest.raises(callfs.Unavailable):
            store.put(an_entry("/a"))
        assert store.put(an_entry("/a")) == store.get("/a")

    def test_after_close(self, tmp_path: Path) -> None:
        """Nothing works and nothing is left open."""
        with nothing_left():
            store = self.make(tmp_path)
            store.put(an_entry("/a"))
            store.get("/a")
            store.close()
            for _ in range(2):
                with pytest.raises(callfs.Unavailable):
                    store.put(an_entry("/b"))
            store.close()

    def test_busy_database(self, tmp_path: Path) -> None:
        """Somebody else holds the write lock: 503 after the time-out; reads go on."""
        store = callfs.SQLiteStore(str(tmp_path / "records.sqlite3"), durable=False, timeout=0.05)
        other = sqlite3.connect(str(tmp_path / "records.sqlite3"), isolation_level=None)
        try:
            store.put(an_entry("/a"))
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(callfs.Unavailable) as caught:
                store.put(an_entry("/b"))
            assert dict(caught.value.headers)["Retry-After"] and store.get("/a") and store.page("/")
            other.execute("ROLLBACK")
            assert store.put(an_entry("/b"))
        finally:
            other.close()
            store.close()

    @pytest.mark.parametrize("durable, level", [(True, 2), (False, 1)])
    def test_durability(self, tmp_path: Path, durable: bool, level: int) -> None:
        """`full` syncs the log with every commit, `relaxed` does not; both are write-ahead logged."""
        store = callfs.SQLiteStore(str(tmp_path / "records.sqlite3"), durable=durable)
        assert store._writer.execute("PRAGMA synchronous").fetchone()[0] == level
        assert store._writer.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        store.close()

    def test_a_later_schema_is_refused(self, tmp_path: Path) -> None:
        """With what to do, and without touching the file."""
        path = tmp_path / "records.sqlite3"
        self.make(tmp_path).close()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        before = path.read_bytes()
        with nothing_left(), pytest.raises(callfs.ConfigError, match="later version"):
            self.make(tmp_path)
        assert path.read_bytes() == before

    def test_another_programs_database_is_refused(self, tmp_path: Path) -> None:
        """Our tables do not go into it."""
        with contextlib.closing(sqlite3.connect(tmp_path / "records.sqlite3")) as connection:
            connection.execute("CREATE TABLE theirs (x)")
        with nothing_left(), pytest.raises(callfs.ConfigError, match="another program"):
            self.make(tmp_path)
        with contextlib.closing(sqlite3.connect(tmp_path / "records.sqlite3")) as connection:
            assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]

    GOLDEN_1 = """
        PRAGMA application_id = 1667329132; PRAGMA user_version = 1;
        CREATE TABLE entries (
            parent TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, size INTEGER NOT NULL, mode INTEGER NOT NULL,
            owner TEXT NOT NULL, mtime_ns INTEGER NOT NULL, etag TEXT NOT NULL, id TEXT NOT NULL, digest TEXT NOT NULL,
            backend TEXT NOT NULL, instance_id TEXT NOT NULL, stamp TEXT NOT NULL, version INTEGER NOT NULL,
            PRIMARY KEY (parent, name)) WITHOUT ROWID;
        CREATE TABLE links (
            id TEXT PRIMARY KEY, token_hash TEXT NOT NULL UNIQUE, path TEXT NOT NULL, entry_id TEXT NOT NULL,
            owner TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL, max_uses INTEGER NOT NULL,
            uses INTEGER NOT NULL) WITHOUT ROWID;
        CREATE INDEX links_by_owner ON links (owner, created);
        CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO counters VALUES ('version', 41);
        INSERT INTO entries VALUES ('', '', 'directory', 0, 493, 'root', 17, '', 'r', '', 'localfs', 'node-1', '', 1);
        INSERT INTO entries VALUES
            ('/', 'd', 'directory', 0, 493, 'alice', 18, '', 'i', '', 'localfs', 'node-1', '', 7),
            ('/d', 'f', 'file', 3, 416, 'bob', 19, 'tag', 'j', 'abcd', 'localfs', 'node-1', '1-2-3', 41);
        INSERT INTO links VALUES ('l', 'h', '/d/f', 'j', 'bob', 1.5, 2.5, 3, 1);
    """

    def test_golden_schema_1(self, tmp_path: Path) -> None:
        """Data of the first format, written out: read, and written on."""
        with contextlib.closing(sqlite3.connect(tmp_path / "records.sqlite3")) as connection:
            connection.executescript(self.GOLDEN_1)
        store = self.make(tmp_path)
        try:
            assert store.get("/d/f") == callfs.Entry("/d/f", "file", 3, 0o640, "bob", 19, "tag", "j", "abcd", "localfs",
                                                     "node-1", "1-2-3", 41)
            assert [entry.path for entry in store.page("/")] == ["/d"] and store.get("/").id == "r"
            assert store.find_link("h") == callfs.Link("l", "h", "/d/f", "j", "bob", 1.5, 2.5, 3, 1)
            assert store.put(an_entry("/d/g")).version == 42
        finally:
            store.close()

    @staticmethod
    def damage(path: Path, how: str) -> None:
        """Break a database file in one of several ways."""
        data = bytearray(path.read_bytes())
        if how == "no database":
            data[:100] = b"x" * 100
        elif how == "zeroed pages":
            data[4096:] = bytes(len(data) - 4096)
        elif how == "garbage pages":
            data[4096:] = random.Random(5).getrandbits(8 * (len(data) - 4096)).to_bytes(len(data) - 4096, "big")
        elif how == "cut":
            del data[len(data) // 2 // 4096 * 4096:]
        path.write_bytes(bytes(data))

    @pytest.mark.parametrize("how", ["no database", "zeroed pages", "garbage pages", "cut"])
    def test_a_damaged_file_gives_a_clear_error(self, tmp_path: Path, how: str) -> None:
        """Never wrong data: each answer is the right one or an error that says what to do."""
        store = self.make(tmp_path)
        right = {path: store.put(an_entry(path)) for path in (f"/d{number}/{'n' * 200}{number}"
                                                              for number in range(200))}
        store.close()
        self.damage(tmp_path / "records.sqlite3", how)
        errors = []
        with nothing_left():
            try:
                store = self.make(tmp_path)
            except callfs.CallFSError as error:
                errors.append(error)
            else:
                for path, entry in right.items():
                    try:
                        assert store.get(path) == entry
                    except callfs.CallFSError as error:
                        errors.append(error)
                store.close()
            del store
        assert errors and all(error.status == 500 and "damaged" in error.message for error in errors)


# ============================================================================
# Locks: who may change a path now
# ============================================================================

class LocksContract:
    """What every lock manager does. A subclass says how to make one."""

    def make(self, timeout: float = 30) -> Any:
        """A manager of its own."""
        raise NotImplementedError

    # (what is held, subtree; what is asked for, subtree; whether they exclude each other)
    PAIRS = [
        (["/a"], False, ["/a"], False, True), (["/a"], False, ["/b"], False, False),
        (["/a"], False, ["/a/b"], False, False),
        (["/a", "/b"], False, ["/b", "/c"], False, True), (["/a"], False, ["/a", "/a"], False, True),
        (["/"], False, ["/a"], False, False),
        (["/a"], True, ["/a"], False, True), (["/a"], True, ["/a/b"], False, True),
        (["/a"], True, ["/a/b/c"], False, True),
        (["/a"], True, ["/ab"], False, False), (["/a"], True, ["/a0"], False, False),
        (["/a"], True, ["/"], False, False),
        (["/"], True, ["/x/y"], False, True), (["/a/b"], True, ["/a"], False, False),
        (["/a"], True, ["/a"], True, True), (["/a"], True, ["/a/b"], True, True),
        (["/a/b/c"], True, ["/a/b"], True, True),
        (["/a/b"], True, ["/a/c"], True, False), (["/a"], True, ["/ab"], True, False),
        (["/"], True, ["/a"], True, True),
        (["/a/b", "/c"], True, ["/c/d"], True, True), (["/a", "/a/b"], True, ["/a/c"], False, True),
    ]

    @pytest.mark.parametrize("held, held_below, asked, asked_below, excluded", PAIRS)
    def test_exclusion(self, held: list[str], held_below: bool, asked: list[str], asked_below: bool,
                       excluded: bool) -> None:
        """The table, and its mirror image."""
        for first, first_below, second, second_below in ((held, held_below, asked, asked_below),
                                                         (asked, asked_below, held, held_below)):
            locks = self.make()
            with locks.hold(*first, subtree=first_below):
                if excluded:
                    with pytest.raises(callfs.Unavailable), locks.hold(*second, subtree=second_below, timeout=0):
                        pass
                else:
                    with locks.hold(*second, subtree=second_below, timeout=0):
                        pass
            with locks.hold(*second, subtree=second_below, timeout=0):
                pass
            self.assert_empty(locks)

    def assert_empty(self, locks: Any) -> None:
        """No trace of a lock is left."""

    def test_tokens_grow(self) -> None:
        """Each grant has a larger one than all before it."""
        locks = self.make()
        tokens = []
        for number in range(10):
            with locks.hold(f"/{number % 3}", subtree=number % 2 == 0) as lease:
                tokens.append(lease.token)
        assert tokens == sorted(set(tokens)) and tokens[0] > 0

    def test_timeout_and_errors_leave_nothing(self) -> None:
        """Unavailable, with `Retry-After`; an error in the block lets go."""
        locks = self.make(timeout=0.01)
        with locks.hold("/a"):
            for subtree in (False, True):
                with pytest.raises(callfs.Unavailable) as caught, locks.hold("/a", "/b", subtree=subtree):
                    pass
                assert dict(caught.value.headers)["Retry-After"]
            with locks.hold("/b", timeout=0):   # not even a part of what was not granted is held
                pass
        with pytest.raises(ZeroDivisionError), locks.hold("/a", subtree=True):
            raise ZeroDivisionError
        self.assert_empty(locks)

    def test_hammer(self) -> None:
        """Any mixture from many threads: nobody is in a place together with somebody else, everybody gets through."""
        locks, inside, guard = self.make(), [], threading.Lock()    # type: Any, list[tuple[str, bool]], Any
        names = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/a/c", "/d"]

        def overlap(one: tuple[str, bool], other: tuple[str, bool]) -> bool:
            return (one[0] == other[0] or (one[1] and callfs.is_below(other[0], one[0]))
                    or (other[1] and callfs.is_below(one[0], other[0])))

        def work(number: int) -> int:
            some, seen = random.Random(number), 0
            for _ in range(150):
                subtree = some.random() < 0.3
                mine = [(path, subtree) for path in some.sample(names, some.choice([1, 1, 2]))]
                with locks.hold(*(path for path, _ in mine), subtree=subtree):
                    with guard:
                        seen += sum(overlap(one, other) for one in mine for other in inside)
                        inside.extend(mine)
                    with guard:
                        for one in mine:
                            inside.remove(one)
            return seen

        assert sum(in_threads(work, 6)) == 0
        self.assert_empty(locks)

    def waiting(self, locks: Any) -> int:
        """How many wait for a lock."""
        raise NotImplementedError

    def test_nobody_overtakes_who_waits_for_the_same(self) -> None:
        """Writers that follow each other without a gap do not keep the one that wants the folder out for ever; who
        wants something else does not wait."""
        locks, order = self.make(), []

        def take(name: str, path: str, subtree: bool) -> threading.Thread:
            def run() -> None:
                with locks.hold(path, subtree=subtree):
                    order.append(name)
            before, thread = self.waiting(locks), threading.Thread(target=run)
            thread.start()
            wait_for(lambda: self.waiting(locks) > before, 10, "a lock that is asked for")
            return thread

        with locks.hold("/a/1"):
            threads = [take("folder", "/a", True), take("writer", "/a/2", False), take("writer", "/a/3", False)]
            with pytest.raises(callfs.Unavailable), locks.hold("/a/4", timeout=0):
                pass
            with locks.hold("/b", timeout=0):
                assert order == []
        for thread in threads:
            thread.join()
        assert order == ["folder", "writer", "writer"]
        self.assert_empty(locks)

    def test_who_gives_up_does_not_hold_up_those_behind(self) -> None:
        """A subtree's lock that timed out."""
        locks = self.make(timeout=0.05)
        with locks.hold("/a/1"):
            with pytest.raises(callfs.Unavailable), locks.hold("/a", subtree=True):
                pass
            with locks.hold("/a/2", timeout=0):
                pass
        self.assert_empty(locks)


class TestLocalLocks(LocksContract):
    """Within one process."""

    def make(self, timeout: float = 30) -> Any:
        return callfs.LocalLocks(timeout)

    def assert_empty(self, locks: Any) -> None:
        assert not locks._paths and not locks._subtrees and not locks._below and not locks._waiting

    def waiting(self, locks: Any) -> int:
        return len(locks._waiting)

    def test_metrics(self) -> None:
        """Locks held now, grants and time-outs."""
        metrics = callfs.Metrics()
        locks = callfs.LocalLocks(0.01, metrics)
        with locks.hold("/a"), locks.hold("/b", subtree=True):
            assert metrics.value("callfs_active_locks") == 2
            with pytest.raises(callfs.Unavailable), locks.hold("/a"):
                pass
        assert metrics.value("callfs_active_locks") == 0
        assert metrics.value("callfs_lock_operations_total", "acquire", "success") == 2
        assert metrics.value("callfs_lock_operations_total", "acquire", "timeout") == 1


# ============================================================================
# Bytes: the local disk
# ============================================================================

@pytest.fixture(params=["dir_fd", "portable"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A disk in `tmp_path/root`, beside a folder with a secret; once without `dir_fd`, as on Windows."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"SECRET")
    disk = callfs.LocalDisk(str(tmp_path / "root"), durable=False)
    if request.param == "portable":
        disk._at_works = False
    yield disk
    disk.close()


def disk_read(disk: Any, path: str) -> bytes:
    """All bytes at a path, links followed as a reader does."""
    fd, found = disk.open(disk.physical(path))
    if fd < 0:
        raise IsADirectoryError(path)
    with callfs.FileReader(fd, 0, found.st_size) as reader:
        return b"".join(reader)


def disk_write(disk: Any, path: str, data: bytes) -> None:
    """Stage, seal, publish."""
    staged = disk.stage()
    try:
        callfs.write_all(staged.fd, memoryview(data))
        disk.seal(staged, 0o644, None)
        disk.publish(staged, path)
    finally:
        disk.discard(staged)


def scratch(root: Any) -> list[str]:
    """What lies in the scratch folders of a data folder."""
    return [f"{folder}/{name}" for folder in ("tmp", "trash")
            for name in os.listdir(os.path.join(root, callfs.HIDDEN, folder))]


@pytest.mark.parametrize("name", [*ODD_NAMES, "-", "...", "..a", "a..", "con", "a:b", "\u00a0", "\u3000"])
def test_disk_odd_names(disk: Any, name: str) -> None:
    """What is written under a name is read, listed, renamed and removed under it."""
    with nothing_left():
        path = "/d/" + name
        disk.mkdir("/d", 0o755)
        disk_write(disk, path, b"data")
        assert disk_read(disk, path) == b"data" and list(disk.scan("/d")) == [[name]]
        assert [found.st_size for found in disk.stats("/d", [name])] == [4] and disk.stats("/d", ["absent"]) == [None]
        disk.rename(path, "/" + name)
        assert os.path.exists(os.path.join(disk.root, name)) and disk.stat("/" + name).st_size == 4
        fd, _ = disk.open_append("/" + name)
        os.close(fd)
        disk.unlink("/" + name)
        disk.rmdir("/d")
        assert list(disk.scan("/")) == [] and scratch(disk.root) == []


def test_disk_hides_its_folder_and_what_no_request_can_name(disk: Any) -> None:
    """Names that are not UTF-8 or hold control characters stay out of a listing."""
    for name in (b"ok", b"bad\xff", b"new\nline", b"back\\slash", "\u202etxt".encode(), b".callfs2"):
        with open(os.path.join(os.fsencode(disk.root), name), "wb"):
            pass
    assert sorted(itertools.chain.from_iterable(disk.scan("/"))) == [".callfs2", "ok"]
    assert len(list(itertools.chain.from_iterable(disk.scan("/", every=True)))) == 6
    assert [len(names) for names in disk.scan("/", 1)] == [1, 1]


LINKS = [                                   # (name of the link, its target; what reading `path` gives: bytes or None)
    ("last", "file", "/last", b"inside"), ("last2", "d/deep", "/last2", b"deep"),
    ("d/up", "../file", "/d/up", b"inside"),
    ("middle", "d", "/middle/deep", b"deep"), ("chain", "last", "/chain", b"inside"),
    ("d/chain2", "../middle/deep", "/d/chain2", b"deep"),
    ("absolute", "{root}/file", "/absolute", b"inside"), ("absolute2", "{root}/d", "/absolute2/deep", b"deep"),
    ("here", ".", "/here/here/file", b"inside"),
    ("loop", "loop", "/loop", None), ("loop1", "loop2", "/loop1", None), ("loop2", "loop1", "/loop2/x", None),
    ("dangling", "absent", "/dangling", None), ("through", "file/x", "/through", None),
    ("out", "../outside/secret", "/out", None),
    ("out2", "{outside}/secret", "/out2", None), ("out3", "../outside", "/out3/secret", None),
    ("out4", "{outside}", "/out4/secret", None),
    ("d/out5", "../../outside/secret", "/d/out5", None), ("out6", "d/../../outside/secret", "/out6", None),
    ("out7", "/etc/passwd", "/out7", None),
    ("out8", "..", "/out8/outside/secret", None), ("out9", "/", "/out9/etc/passwd", None),
    ("outa", "out3/secret", "/outa", None),
    ("hidden", ".callfs", "/hidden/tmp", None), ("hidden2", "{root}/.callfs/tmp", "/hidden2", None),
    ("hidden3", "d/../.callfs/tmp", "/hidden3", None),
    ("odd", "bad\udcff", "/odd", None), ("prefix", "{root}x/secret", "/prefix", None),
]


def make_links(root: str) -> None:
    """The table's links with what they lead to."""
    os.makedirs(os.path.join(root, "d"))
    os.makedirs(root + "x", exist_ok=True)
    for name, data in (("file", b"inside"), ("d/deep", b"deep"), ("bad\udcff", b"unnamed"),
                       ("../rootx/secret", b"SECRET")):
        with open(os.path.join(root, name), "wb") as file:
            file.write(data)
    for name, target, _, _ in LINKS:
        os.symlink(target.format(root=root, outside=os.path.join(os.path.dirname(root), "outside")),
                   os.path.join(root, name))


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs symbolic links")
@pytest.mark.parametrize("name, target, path, data", LINKS, ids=[row[0] for row in LINKS])
def test_disk_symbolic_links(disk: Any, name: str, target: str, path: str, data: Optional[bytes]) -> None:
    """A reader follows them inside the root; out of it, in circles and into the hidden folder nothing is there."""
    make_links(disk.root)
    with nothing_left():
        if data is not None:
            assert disk_read(disk, path) == data
        else:
            with pytest.raises(OSError) as caught:
                disk_read(disk, path)
            assert callfs.translate_os_error(caught.value).status == 404


@pytest.mark.parametrize("path, met", [("/last", True), ("/middle/deep", True), ("/out", True), ("/out3/secret", True),
                                       ("/file", False)])
def test_disk_itself_follows_no_link(disk: Any, path: str, met: bool) -> None:
    """Every method that reads or writes stops at a link, in the middle and at the end."""
    make_links(disk.root)
    with nothing_left():
        if met:
            with pytest.raises(callfs.SymlinkMet):
                fd, _ = disk.open(path)
                os.close(fd)
        if "3/" in path or path.startswith("/middle"):
            for change in (disk.stat, disk.open_append, disk.unlink, disk.rmdir,
                           lambda path: disk.mkdir(path + "x", 0o755),
                           lambda path: disk_write(disk, path, b"x"), lambda path: disk.rename(path, "/file"),
                           lambda path: disk.rename("/file", path), lambda path: list(disk.scan(path)),
                           lambda path: disk.stats(path + "/x", ["y"])):
                with pytest.raises(callfs.SymlinkMet):
                    change(path)
        elif met:
            with pytest.raises(OSError):
                disk.open_append(path)
            assert stat.S_ISLNK(disk.stat(path).st_mode)
            with pytest.raises((OSError, callfs.SymlinkMet)):
                list(disk.scan(path))
            disk.unlink(path)               # the link goes, not what it leads to
    assert (Path(disk.root).parent / "outside" / "secret").read_bytes() == b"SECRET"
    assert Path(disk.root, "file").read_bytes() == b"inside" and scratch(disk.root) == []


def test_disk_links_swapped_while_in_use(disk: Any) -> None:
    """A folder and a file that turn into links out of the root and back, again and again: never a byte from outside,
    never a byte written there. (Without `dir_fd` a window is left; the walk with descriptors has none.)"""
    if not disk._at_works:
        pytest.skip("the portable mode promises this between requests only")
    root, outside = Path(disk.root), str(Path(disk.root).parent / "outside")
    (root / "d").mkdir()
    (root / "d" / "secret").write_bytes(b"inside")
    os.symlink(outside, root / "link")
    os.symlink(outside + "/secret", root / "file-link")
    (root / "spare").mkdir()
    (root / "spare-file").write_bytes(b"inside")
    seen: collections.Counter[str] = collections.Counter()
    before = set(os.listdir(outside))

    def exchange() -> None:
        for one, other in (("d", "link"), ("d/secret", "file-link")):
            with contextlib.suppress(OSError):
                os.rename(root / one, root / "away")
                os.rename(root / other, root / one)
                os.rename(root / one, root / other)
                os.rename(root / "away", root / one)

    def work(number: int) -> None:
        for turn in range(400):
            try:
                if number == 0:
                    seen[disk_read(disk, "/d/secret").decode()] += 1
                elif number == 1:
                    disk_write(disk, f"/d/new{turn % 5}", b"x")
                else:
                    disk.unlink(f"/d/new{turn % 5}")
                seen["worked"] += 1
            except (OSError, callfs.SymlinkMet):
                seen["refused"] += 1

    with nothing_left(), eager_threads():
        in_threads(work, 3, meanwhile=exchange)
    assert "SECRET" not in seen and seen["worked"] and set(os.listdir(outside)) == before
    assert disk_read(disk, "/d/secret") == b"inside"
    assert Path(outside, "secret").read_bytes() == b"SECRET"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_disk_special_files_do_not_hang(disk: Any) -> None:
    """A FIFO, a socket, a device: not there, at once."""
    os.mkfifo(os.path.join(disk.root, "fifo"))
    os.chdir(disk.root)                     # the name of a socket is short
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener, nothing_left():
        listener.bind("socket")
        os.chdir("/")
        os.symlink("/dev/zero", os.path.join(disk.root, "zero"))
        for name in ("/fifo", "/socket"):
            for look in (disk.open, disk.open_append):
                with pytest.raises(FileNotFoundError) if look == disk.open else pytest.raises(OSError):
                    look(name)
        with pytest.raises(FileNotFoundError):
            disk_read(disk, "/zero")
    os.unlink(os.path.join(disk.root, "socket"))


def test_disk_trash_and_sweep(disk: Any) -> None:
    """A directory goes in one step; what a killed server left goes with `sweep`, which nothing calls by itself:
    another process may work here (found by reading: opening the disk emptied the uploads of a running server)."""
    disk.mkdir("/d", 0o755)
    disk_write(disk, "/d/f", b"x")
    os.symlink("/etc", os.path.join(disk.root, "d", "link"))
    finish = disk.trash("/d")
    assert list(disk.scan("/")) == [] and len(scratch(disk.root)) == 1
    finish()
    assert scratch(disk.root) == [] and os.path.exists("/etc")
    staged = disk.stage()
    other = callfs.LocalDisk(disk.root)
    assert scratch(disk.root) == ["tmp/" + staged.name]
    assert other.sweep() == 1 and scratch(disk.root) == []
    other.close()
    os.close(staged.fd)


def test_disk_removes_trees_that_are_deeper_than_a_path_is_long(disk: Any) -> None:
    """2,000 levels, as one request can make them (`shutil.rmtree` recurses: before, the next start failed)."""
    fd = os.open(disk.root, os.O_RDONLY)
    os.mkdir("deep", dir_fd=fd)
    for _ in range(2500):
        inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.mkdir("deep", dir_fd=inner)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
        os.close(fd)
        fd = inner
    os.close(fd)
    disk.trash("/deep")                     # as if killed right after
    assert disk.sweep() == 1 and scratch(disk.root) == []


class TestSharedSync:
    """One fsync of a folder for all that wait for it."""

    def test_a_call_covers_those_who_came_before_it_began(self) -> None:
        """Those who come while it runs need another one."""
        shared, calls = callfs._SharedSync(), []

        def call() -> None:
            calls.append([shared.enter() for _ in range(2)] if not calls else [])

        tickets = [shared.enter() for _ in range(3)]
        for ticket in tickets:
            shared.sync(ticket, call)
        assert len(calls) == 1
        for ticket in calls[0]:
            shared.sync(ticket, call)
        assert len(calls) == 2 and [shared.leave() for _ in range(5)] == [False] * 4 + [True]

    def test_one_failure_fails_all_that_waited_and_nobody_else(self) -> None:
        """The kernel reports a lost write once; who comes later has a call of his own (before, one failure stuck for
        as long as the folder was busy)."""
        shared, results = callfs._SharedSync(), [errno.EIO, 0]

        def call() -> None:
            number = results.pop(0)
            if number:
                raise OSError(number, "lost")

        early = [shared.enter() for _ in range(3)]
        for ticket in early[:2]:
            with pytest.raises(OSError):
                shared.sync(ticket, call)
        late = shared.enter()
        shared.sync(late, call)
        with pytest.raises(OSError):        # the second call does not make it good
            shared.sync(early[2], call)
        assert not results

    def test_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every caller is covered by a call that began after it came; there are fewer calls than callers; the table of
        folders is empty afterwards."""
        disk, running, begun = callfs.LocalDisk(str(tmp_path)), threading.Lock(), itertools.count(1)
        last = [0]

        def sync(name: str, dir_fd: Any) -> None:
            with running:
                last[0] = next(begun)

        monkeypatch.setattr(callfs, "_fsync_folder", sync)

        def work(number: int) -> int:
            for _ in range(200):
                before = last[0]
                disk.sync_folder("/")
                assert last[0] > before
            return 200

        assert sum(in_threads(work, 6)) >= last[0] > 0 and not disk._syncs
        disk.close()

    def test_an_error_reaches_the_caller(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """And the folder works again afterwards."""
        disk = callfs.LocalDisk(str(tmp_path))
        with monkeypatch.context() as patched:
            patched.setattr(callfs, "_fsync_folder", raising(OSError(errno.EIO, "lost")))
            with pytest.raises(OSError):
                disk.sync_folder("/")
        disk.sync_folder("/")
        assert not disk._syncs
        disk.close()


@pytest.mark.parametrize("name, refused", [
    ("con", True), ("CON.txt", True), ("com1", True), ("lpt9.x", True), ("a.", True), ("a ", True), ("a:b", True),
    ("CALLFS~1", True),
    ("console", False), ("a.b", False), ("a~", False), (".callfs2", False), ("com", False), ("x.con", False),
])
def test_names_that_windows_reads_in_another_way(name: str, refused: bool) -> None:
    """Devices, streams, short names, what it drops from the end: other spellings of the hidden folder."""
    assert bool(callfs._WINDOWS_NAMES.fullmatch(name)) == refused


class TestIntentLog:
    """What is about to be renamed."""

    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[Any]:
        log = callfs.IntentLog(str(tmp_path / "intents"))
        yield log
        log.close()

    def test_lines_and_torn_ends(self, log: Any, tmp_path: Path) -> None:
        """What was noted is read by the next process; garbage and a torn line are not, and hide nothing behind them."""
        for number in range(3):
            log.note({"op": "drop", "path": f"/{number}"})
        with open(tmp_path / "intents", "ab") as file:
            file.write(b'{"op": "dr\n\0\0\0\n{"op": "drop", "path": "/3"}\n{"op": "drop", "pa')
        again = callfs.IntentLog(str(tmp_path / "intents"))
        assert [step["path"] for step in again.read()] == ["/0", "/1", "/2", "/3"]
        again.clear()
        assert again.read() == []
        again.close()

    def test_shrinks_under_load(self, log: Any, tmp_path: Path) -> None:
        """It never grows much, though there is always a step open, and the open ones stay in it."""
        log.MAX_BYTES = 2000
        first, previous = log.note({"op": "drop", "path": "/first"}), log.note({"op": "drop", "path": "/-1"})
        for number in range(500):
            current = log.note({"op": "drop", "path": f"/{number}"})
            log.done(previous)
            previous = current
            assert os.path.getsize(tmp_path / "intents") == log._size < 2200
            paths = [step["path"] for step in log.read()]
            assert paths[0] == "/first" and paths[-1] == f"/{number}"
        log.done(first)
        log.done(previous)
        assert os.listdir(tmp_path) == ["intents"]

    def test_full_disk(self, log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A line that did not fit leaves no piece to which the next one is glued (found by reading, 2026-11)."""
        log.note({"op": "drop", "path": "/0"})
        real = os.write
        for act in (lambda fd, data: real(fd, data[:5]),
                    raising(OSError(errno.ENOSPC, "full"))):
            with monkeypatch.context() as patched, pytest.raises(OSError):
                patched.setattr(callfs.os, "write", act)
                log.note({"op": "drop", "path": "/lost"})
        log.done(log.note({"op": "drop", "path": "/1"}))
        assert [step["path"] for step in log.read()] == ["/0", "/1"] and list(log._open) == [1]


# ============================================================================
# Search: lines that match, within a time box
# ============================================================================


def found_lines(data: bytes, pattern: str, ignore_case: bool = False, step: int = 1 << 20) -> list[int]:
    """Numbers of the lines that match; the bytes come in steps."""
    reader = callfs.ChunkReader([data[start:start + step] for start in range(0, len(data), step)] or [b""])
    with contextlib.closing(callfs.Search(pattern, ignore_case)) as search:
        return [first + index for first, lines in callfs.Lines(reader) for index in search.find(lines)]


class TestSearch:
    """`callfs.Search` and `callfs.Lines`."""

    TEXT = "one\nTwo\n\nthree.four\nÜber\nend".encode()

    @pytest.mark.parametrize("pattern, ignore_case, expected", [
        ("one", False, [1]), ("two", False, []), ("two", True, [2]), ("e", False, [1, 4, 5, 6]), ("über", True, [5]),
        ("three.four", False, [4]), (r"e\.f", False, [4]), ("e,f", False, []), ("^$", False, [3]), ("^...$", False, [1, 2, 6]),
        ("^.ber$", False, [5]), ("O|W", True, [1, 2, 4]), (r"\d", False, []), ("(?i)TWO", False, [2])])
    @pytest.mark.parametrize("step", [1, 3, 1 << 20])
    def test_lines(self, pattern: str, ignore_case: bool, expected: list[int], step: int) -> None:
        """Plain text and patterns alike, however the bytes come."""
        assert found_lines(self.TEXT, pattern, ignore_case, step) == expected

    @pytest.mark.parametrize("pattern", ["x", "[x]"])
    def test_long_lines_are_looked_at_in_pieces(self, pattern: str) -> None:
        """Memory stays bounded; the number stays that of the line."""
        data = b"a" * (callfs.SEARCH_BLOCK * 3) + b"x\nb\nx\n"
        assert found_lines(data, pattern, step=callfs.SEARCH_BLOCK) == [1, 3]

    @pytest.mark.parametrize("pattern", ["(", "[", "*", "a{2,1}", "(?P<x>a)(?P<x>b)", "", "x" * 5000, "(?z)"])
    def test_what_is_no_pattern(self, pattern: str) -> None:
        """400, with what is wrong, and no child left behind."""
        with nothing_left(5), pytest.raises(callfs.BadRequest, match="pattern"):
            callfs.Search(pattern)

    def test_a_pattern_that_never_ends(self) -> None:
        """CVE-2026-28356: killed when its time is over, while other threads go on."""
        with nothing_left(5), contextlib.closing(callfs.Search("(a+)+b$", seconds=0.3)) as search:
            counted = 0
            with pytest.raises(callfs.BadRequest, match="too long"):
                search.find([b"a" * 60])
            counted += 1
        assert counted

    def test_a_child_that_dies(self) -> None:
        """An error, not a hang."""
        with contextlib.closing(callfs.Search("[x]")) as search:
            search._child.kill()
            search._child.wait()
            with pytest.raises(callfs.BadRequest):
                search.find([b"x"])

    def test_without_an_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Embedded in a program: plain text works, a pattern says why not."""
        monkeypatch.setattr(sys, "executable", "")
        assert found_lines(b"x", "x") == [1]
        with pytest.raises(callfs.NotSupported):
            callfs.Search("[x]")

    def test_through_the_tree(self, tmp_path: Path) -> None:
        """Files of a directory in order; what is no file is passed over; rights are asked for."""
        with contextlib.closing(Rig(tmp_path, durable=False)) as rig:
            for path, data in (("/d/a", b"x1\r\n"), ("/d/b/c", b"y\nx2"), ("/e", b"x3"), ("/d/n", b"\0x\xff\n")):
                put(rig.tree, path, data)
            rig.tree.mkdir(ALICE, "/d/empty")
            found = [(each.path, each.line, each.content) for each in rig.tree.grep(ALICE, "/d", "x", recursive=True)]
            assert found == [("/d/a", 1, "x1"), ("/d/b/c", 2, "x2"), ("/d/n", 1, "\0x\ufffd")]
            assert [each.path for each in rig.tree.grep(ALICE, "/e", "X.", ignore_case=True)] == ["/e"]
            for path, error in (("/d", callfs.BadRequest), ("/absent", callfs.FileNotFound)):
                with pytest.raises(error):
                    rig.tree.grep(ALICE, path, "x")
            with pytest.raises(callfs.AuthenticationFailed):
                rig.tree.grep(callfs.ANONYMOUS["none"], "/d", "x", recursive=True)
            with nothing_left(5):
                stopped = rig.tree.grep(ALICE, "/d", "[x]", recursive=True)
                next(stopped)
                stopped.close()


# ============================================================================
# The tree and its filesystems: one contract, each implementation a subclass
# ============================================================================

def put(tree: Any, path: str, data: bytes = b"data", who: Any = ALICE, **more: Any) -> Any:
    """Write a file; what the tree says of it."""
    return tree.write(who, path, callfs.bytes_body(data), **more)


def fetch(tree: Any, path: str, who: Any = ALICE) -> bytes:
    """All bytes of a file, which must be as many as its entry says."""
    with contextlib.closing(tree.open(who, path)) as handle:
        data = b"".join(handle.reader())
        assert len(data) == handle.entry.size
        return data


def picture(tree: Any, path: str = "/") -> dict[str, tuple[str, str, Optional[bytes]]]:
    """Everything below a path: type, owner, bytes."""
    return {entry.path: (entry.type, entry.owner, None if entry.is_dir else fetch(tree, entry.path))
            for entry in tree.walk(callfs.ROOT, path, 1000)}


class BrokenBody(callfs.Body):
    """A body that breaks off after some bytes: an error, or an end that comes too early."""

    def __init__(self, data: bytes, length: Optional[int], error: Optional[Exception] = None) -> None:
        self._data, self.length, self._error = data, length, error

    def readinto(self, view: memoryview) -> int:
        """The bytes, then the error or the end."""
        count = min(len(view), len(self._data))
        view[:count], self._data = self._data[:count], self._data[count:]
        if not count and self._error:
            raise self._error
        return count


BREAKS = [(None, callfs.Disconnected()), (1000, callfs.Disconnected()), (1000, None), (None, callfs.PayloadTooLarge()),
          (None, ValueError("bug"))]


class FileSystemContract:
    """What every filesystem that can do everything does, through the tree. A subclass says how to make one."""

    owned = True                            # a file belongs to who made it
    digests = True                          # SHA-256 of what was uploaded
    keeps_ids = True                        # a file that is replaced keeps its id

    def owner(self, name: str = "alice") -> str:
        """Whose a file is that `name` has made."""
        return name if self.owned else callfs.ANYONE

    def make(self, folder: Path) -> Any:
        """A filesystem with its data in `folder`."""
        raise NotImplementedError

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Iterator[Any]:
        with nothing_left(2):
            tree = callfs.Tree(self.make(tmp_path / "data"))
            yield tree
            try:
                self.check(tree, tmp_path / "data")
            finally:
                tree.close()

    def check(self, tree: Any, folder: Path) -> None:
        """After each test: nothing is left behind and everything agrees."""

    @pytest.mark.parametrize("name", ODD_NAMES)
    @pytest.mark.parametrize("size", [0, 1, 100_000])
    def test_round_trip(self, tree: Any, name: str, size: int) -> None:
        """Create, read, replace, move, remove."""
        data, path = os.urandom(size), "/d/" + name
        written = put(tree, path, data)
        entry = tree.stat(BOB, path)
        assert written.created and written.entry == entry and entry.type == callfs.FILE and entry.name == name
        assert (entry.size, entry.owner, entry.mode) == (size, self.owner(), 0o644)
        assert entry.digest == (hashlib.sha256(data).hexdigest() if self.digests else "")
        assert fetch(tree, path, BOB) == data and [one.path for one in tree.list(BOB, "/d")] == [path]
        again = put(tree, path, data + b"more")
        assert not again.created and again.entry.etag != entry.etag
        assert again.entry.id == entry.id or not self.keeps_ids
        assert fetch(tree, path) == data + b"more"
        moved = tree.move(ALICE, path, "/" + name)
        assert moved.path == "/" + name and moved._replace(path=path, version=0) == again.entry._replace(version=0)
        assert fetch(tree, "/" + name) == data + b"more" and not list(tree.list(BOB, "/d"))
        tree.remove(ALICE, "/" + name)
        with pytest.raises(callfs.FileNotFound):
            tree.stat(ALICE, "/" + name)
        fresh = put(tree, "/" + name, data)
        assert fresh.created and (fresh.entry.id != entry.id or not self.keeps_ids)

    def test_directories(self, tree: Any) -> None:
        """Made with all that is missing above, owned by who made them; made twice is no error; a file in the way is."""
        made = tree.mkdir(ALICE, "/a/b/c")
        assert made.created and made.entry.is_dir and made.entry.owner == self.owner() and made.entry.size == 0
        assert made.entry._replace(mtime_ns=0) == tree.stat(ALICE, "/a/b/c")._replace(mtime_ns=0)
        again = tree.mkdir(BOB, "/a/b/c")
        assert not again.created and again.entry.owner == self.owner() and again.entry.id == made.entry.id
        put(tree, "/a/b/x/f", who=BOB)
        assert {path: owner for path, (_, owner, _) in picture(tree).items()} == {
            "/a": self.owner(), "/a/b": self.owner(), "/a/b/c": self.owner(), "/a/b/x": self.owner("bob"),
            "/a/b/x/f": self.owner("bob")}
        for path in ("/a/b/x/f", "/a/b/x/f/g"):
            with pytest.raises(callfs.Conflict):
                tree.mkdir(ALICE, path)
        for path in ("/a/b/x/f/g", "/a/b/x/f/g/h"):
            with pytest.raises(callfs.Conflict):
                put(tree, path)
        assert tree.stat(ALICE, "/").is_dir and not tree.mkdir(ALICE, "/").created
        with pytest.raises(callfs.NotSupported):
            tree.open(ALICE, "/a").reader()

    @pytest.mark.parametrize("path", ["/absent", "/absent/x", "/f/x", "/f/x/y"])
    def test_absent(self, tree: Any, path: str) -> None:
        """404 for everything that needs something to be there."""
        put(tree, "/f")
        for ask in (lambda: tree.stat(ALICE, path), lambda: tree.open(ALICE, path),
                    lambda: list(tree.list(ALICE, path)),
                    lambda: tree.remove(ALICE, path), lambda: tree.move(ALICE, path, "/new"),
                    lambda: list(tree.walk(ALICE, path, 9)),
                    lambda: tree.patch(ALICE, path, callfs.bytes_body(b"x"), 0)):
            with pytest.raises(callfs.FileNotFound):
                ask()
        with pytest.raises(callfs.Conflict):
            list(tree.list(ALICE, "/f"))
        assert list(picture(tree)) == ["/f"]

    @pytest.mark.parametrize("length, error", BREAKS)
    @pytest.mark.parametrize("size", [0, 10, 700_000])
    def test_a_body_that_breaks_off_changes_nothing(self, tree: Any, size: int, length: Optional[int],
                                                    error: Optional[Exception]) -> None:
        """Neither what is there, nor what is not, nor its folders."""
        if length is not None and size > length:
            length = size + 1
        old = put(tree, "/d/old").entry
        for path in ("/d/old", "/d/new", "/new/folder/new"):
            with pytest.raises(type(error) if error else callfs.Disconnected):
                tree.write(ALICE, path, BrokenBody(b"x" * size, length, error))
        assert tree.stat(ALICE, "/d/old") == old and picture(tree) == {
            "/d": ("directory", self.owner(), None), "/d/old": ("file", self.owner(), b"data")}

    def test_digest_is_checked(self, tree: Any) -> None:
        """A body with another SHA-256 than announced changes nothing."""
        right = hashlib.sha256(b"data").hexdigest()
        with pytest.raises(callfs.BadRequest):
            put(tree, "/f", b"other", options=callfs.WriteOptions(sha256=right))
        assert picture(tree) == {}
        assert put(tree, "/f", options=callfs.WriteOptions(sha256=right)).entry.digest == (right if self.digests else "")

    def test_options(self, tree: Any) -> None:
        """Mode and time as asked for; a replaced file keeps its mode."""
        entry = put(tree, "/f", options=callfs.WriteOptions(mode=0o600, mtime_ns=1_234_567_890_123_456_789)).entry
        assert entry == tree.stat(ALICE, "/f") and (entry.mode, entry.mtime_ns) == (0o600, 1_234_567_890_123_456_789)
        assert put(tree, "/f").entry.mode == 0o600 and tree.stat(ALICE, "/f").mtime_ns > entry.mtime_ns

    PATCHES = [(0, b"XY", b"XYcdef"), (2, b"XY", b"abXYef"), (5, b"XYZ", b"abcdeXYZ"), (6, b"XY", b"abcdefXY"),
               (0, b"", b"abcdef"), (6, b"", b"abcdef"),
               (0, b"X" * 300_000, b"X" * 300_000)]

    @pytest.mark.parametrize("offset, data, result", PATCHES)
    def test_patch(self, tree: Any, offset: int, data: bytes, result: bytes) -> None:
        """Bytes at an offset; owner and id stay, the digest of the whole is not known any more."""
        old = put(tree, "/f", b"abcdef").entry
        written = tree.patch(ALICE, "/f", callfs.bytes_body(data), offset)
        entry = tree.stat(ALICE, "/f")
        assert fetch(tree, "/f") == result and not written.created and written.entry == entry
        assert (entry.owner, entry.mode, entry.size) == (self.owner(), old.mode, len(result))
        assert entry.id == old.id or not self.keeps_ids
        assert not data or (entry.etag != old.etag and entry.digest == "")

    def test_patch_beyond_the_end(self, tree: Any) -> None:
        """416 with the size; nothing changes."""
        put(tree, "/f", b"abc")
        with pytest.raises(callfs.RangeNotSatisfiable) as caught:
            tree.patch(ALICE, "/f", callfs.bytes_body(b"x"), 4)
        assert ("Content-Range", "bytes */3") in caught.value.headers and fetch(tree, "/f") == b"abc"
        with pytest.raises(callfs.BadRequest):
            tree.patch(ALICE, "/", callfs.bytes_body(b"x"), 0)

    @pytest.mark.parametrize("length, error", BREAKS)
    @pytest.mark.parametrize("offset", [3, 6])
    def test_patch_that_breaks_off_keeps_what_arrived(self, tree: Any, offset: int, length: Optional[int],
                                                      error: Optional[Exception]) -> None:
        """So that an upload goes on where it stopped."""
        put(tree, "/f", b"abcdef")
        with pytest.raises(type(error) if error else callfs.Disconnected):
            tree.patch(ALICE, "/f", BrokenBody(b"XYZUV", length, error), offset)
        assert fetch(tree, "/f") == b"abcdef"[:offset] + b"XYZUV" and tree.stat(ALICE, "/f").owner == self.owner()
        tree.patch(ALICE, "/f", callfs.bytes_body(b"!"), tree.stat(ALICE, "/f").size)
        assert fetch(tree, "/f").endswith(b"XYZUV!")

    def test_readers_keep_their_version(self, tree: Any) -> None:
        """Whatever happens to the name: replaced, written into, appended to, moved, removed."""
        changes: list[tuple[Callable[[], Any], Optional[bytes]]] = [
            (lambda: put(tree, "/f", b"second version"), b"second version"),
            (lambda: tree.patch(ALICE, "/f", callfs.bytes_body(b"SEC"), 0), b"SECond version"),
            (lambda: tree.patch(ALICE, "/f", callfs.bytes_body(b"!"), 14), b"SECond version!"),
            (lambda: tree.move(ALICE, "/f", "/g"), None), (lambda: tree.move(ALICE, "/g", "/f"), b"SECond version!"),
            (lambda: tree.remove(ALICE, "/f"), None), (lambda: put(tree, "/f", b"new"), b"new")]
        put(tree, "/f", b"first")
        handles, expected, now = [], [], b"first"  # type: list[Any], list[bytes], Optional[bytes]
        for change, after in changes:
            if now is not None:
                handles.append(tree.open(BOB, "/f"))
                expected.append(now)
            change()
            now = after
        for handle, data in zip(handles, expected):
            assert handle.entry.size == len(data)
            with handle.reader() as reader:
                assert b"".join(reader) == data

    def test_reader_of_a_part(self, tree: Any) -> None:
        """From `start` to before `stop`."""
        put(tree, "/f", bytes(range(100)))
        for start, stop in ((0, None), (10, None), (0, 1), (10, 20), (99, 100), (50, 50)):
            with contextlib.closing(tree.open(ALICE, "/f")) as handle, handle.reader(start, stop) as reader:
                assert b"".join(reader) == bytes(range(100))[start:stop]
                assert reader.length == (100 if stop is None else stop) - start

    def test_remove(self, tree: Any) -> None:
        """A file; an empty directory; a full one only when asked to; never the root."""
        for path in ("/d/f", "/d/e/g", "/d2/f", "/f"):
            put(tree, path)
        tree.mkdir(ALICE, "/empty")
        tree.remove(ALICE, "/f")
        tree.remove(ALICE, "/empty", folder=True)
        with pytest.raises(callfs.DirectoryNotEmpty):
            tree.remove(ALICE, "/d")
        with pytest.raises(callfs.FileNotFound):
            tree.remove(ALICE, "/d/f", folder=True)
        with pytest.raises(callfs.BadRequest):
            tree.remove(callfs.ROOT, "/", recursive=True)
        assert list(picture(tree)) == ["/d", "/d/e", "/d/e/g", "/d/f", "/d2", "/d2/f"]
        tree.remove(ALICE, "/d", recursive=True)
        assert list(picture(tree)) == ["/d2", "/d2/f"]

    def test_move_directories(self, tree: Any) -> None:
        """With all that is in them, ids, owners and digests included."""
        put(tree, "/a/b/f", b"1")
        put(tree, "/a/b/c/g", b"2", BOB)
        put(tree, "/ab/f", b"3")
        before = {entry.path: entry for entry in tree.walk(ALICE, "/", 9)}
        tree.move(ALICE, "/a", "/new/a", parents=True)
        after = {entry.path: entry for entry in tree.walk(ALICE, "/", 9)}
        assert set(after) == {"/ab", "/ab/f", "/new", "/new/a", "/new/a/b", "/new/a/b/c", "/new/a/b/c/g", "/new/a/b/f"}
        for path in ("/a", "/a/b", "/a/b/f", "/a/b/c", "/a/b/c/g"):
            old, new = before[path], after["/new" + path]
            assert (old.id, old.owner, old.digest, old.etag) == (new.id, new.owner, new.digest, new.etag)
        assert fetch(tree, "/new/a/b/c/g") == b"2" and fetch(tree, "/ab/f") == b"3"
        assert tree.stat(ALICE, "/new").owner == self.owner()

    MOVES = [                               # (source, target, options, error or None)
        ("/f", "/new", {}, None), ("/f", "/d/new", {}, None), ("/f", "/x/y/new", {}, callfs.BadRequest),
        ("/f", "/x/y/new", {"parents": True}, None),
        ("/f", "/g", {}, callfs.FileExists), ("/f", "/g", {"overwrite": True}, None),
        ("/f", "/f", {"overwrite": True}, callfs.BadRequest),
        ("/f", "/f/x", {"parents": True}, callfs.BadRequest), ("/d", "/d/x", {}, callfs.BadRequest),
        ("/d", "/d/e/x", {"parents": True}, callfs.BadRequest),
        ("/f", "/d", {}, callfs.FileExists), ("/f", "/d", {"overwrite": True}, callfs.Conflict),
        ("/d", "/f", {"overwrite": True}, callfs.Conflict),
        ("/d", "/full", {"overwrite": True}, callfs.DirectoryNotEmpty), ("/d", "/empty", {"overwrite": True}, None),
        ("/d", "/empty", {}, callfs.FileExists),
        ("/f", "/g/x", {"parents": True}, callfs.Conflict), ("/", "/x", {}, callfs.BadRequest),
        ("/absent", "/x", {}, callfs.FileNotFound),
        ("/f", "/", {"overwrite": True}, callfs.CallerError), ("/d/f", "/d", {"overwrite": True}, callfs.Conflict),
        ("/empty", "/d0", {}, None),
    ]

    @pytest.mark.parametrize("source, target, options, error", MOVES)
    def test_move_table(self, tree: Any, source: str, target: str, options: dict[str, bool],
                        error: Optional[type[Exception]]) -> None:
        """Rename and move of rest.md; what is refused changes nothing."""
        for path, data in (("/f", b"f"), ("/g", b"g"), ("/d/f", b"df"), ("/full/f", b"ff")):
            put(tree, path, data)
        tree.mkdir(ALICE, "/empty")
        before = picture(tree)
        if error:
            with pytest.raises(error):
                tree.move(ALICE, source, target, **options)
            assert picture(tree) == before
            return
        tree.move(ALICE, source, target, **options)
        moving = {target + path[len(source):]: value for path, value in before.items() if callfs.is_below(path, source)}
        expected = {path: value for path, value in before.items() if not callfs.is_below(path, source)}
        parents = {path: ("directory", self.owner(), None) for path in callfs.ancestors(target)[1:]}
        assert picture(tree) == {**expected, **parents, **moving}

    # (verb, who may: the owner only?); rest.md, "Ownership"
    def test_rights(self, tree: Any) -> None:
        """Everybody reads, lists and creates; only the owner changes; trusted users pass; a move needs both ends."""
        if not self.owned:
            put(tree, "/f")
            assert put(tree, "/f", b"bobs", BOB).entry.owner == callfs.ANYONE
            return tree.remove(BOB, "/f")
        put(tree, "/alices/f")
        put(tree, "/bobs/f", who=BOB)
        assert fetch(tree, "/alices/f", BOB) and list(tree.list(BOB, "/alices"))
        assert put(tree, "/alices/new", who=BOB).entry.owner == "bob"
        assert tree.mkdir(BOB, "/alices/folder").entry.owner == "bob"
        before = picture(tree)
        for refused in (lambda: put(tree, "/alices/f", who=BOB), lambda: tree.remove(BOB, "/alices/f"),
                        lambda: tree.remove(ALICE, "/alices", recursive=True),
                        lambda: tree.patch(BOB, "/alices/f", callfs.bytes_body(b"x"), 0),
                        lambda: tree.move(BOB, "/alices/f", "/stolen"),
                        lambda: tree.move(BOB, "/bobs/f", "/alices/f", overwrite=True),
                        lambda: tree.move(BOB, "/alices", "/x"),
                        lambda: tree.remove(BOB, "/alices", recursive=True), lambda: tree.may_write(BOB, "/alices/f")):
            with pytest.raises(callfs.PermissionDenied):
                refused()
        assert picture(tree) == before
        assert put(tree, "/alices/f", b"roots", callfs.ROOT).entry.owner == "alice"
        tree.may_write(ALICE, "/alices/f")
        tree.remove(callfs.ROOT, "/alices", recursive=True)

    def test_a_body_is_not_touched_before_the_rights_are_clear(self, tree: Any) -> None:
        """Nor when a precondition fails."""
        put(tree, "/f")
        body = BrokenBody(b"", None, AssertionError("read"))
        for arguments, error in (({}, callfs.PermissionDenied), ({"create": True}, callfs.FileExists)):
            if self.owned or arguments:
                with pytest.raises(error):
                    tree.write(BOB, "/f", body, **arguments)
        with pytest.raises(callfs.PreconditionFailed):
            tree.write(ALICE, "/f", body, conditions=callfs.Conditions(if_match='"x"'))
        with pytest.raises(callfs.BadRequest):
            tree.write(ALICE, "/", body)

    def test_compare_and_swap(self, tree: Any) -> None:
        """Of many that saw the same version exactly one replaces it; of many that create exactly one does."""
        def work(number: int) -> bool:
            try:
                put(tree, "/f", b"%d" % number, conditions=seen)
                return True
            except callfs.PreconditionFailed:
                return False

        seen = callfs.Conditions(if_none_match="*")
        for _ in range(6):
            won = in_threads(work, 6)
            assert won.count(True) == 1 and fetch(tree, "/f") == b"%d" % won.index(True)
            seen = callfs.Conditions(if_match=f'"{tree.stat(ALICE, "/f").etag}"')

    def test_conditions_of_other_changes(self, tree: Any) -> None:
        """PATCH and DELETE."""
        put(tree, "/f")
        with pytest.raises(callfs.PreconditionFailed):
            tree.patch(ALICE, "/f", callfs.bytes_body(b"x"), 0, callfs.Conditions(if_match='"x"'))
        with pytest.raises(callfs.PreconditionFailed):
            tree.remove(ALICE, "/f", conditions=callfs.Conditions(if_match='"x"'))
        tree.remove(ALICE, "/f", conditions=callfs.Conditions(if_match=f'"{tree.stat(ALICE, "/f").etag}"'))

    TRUNCATIONS = [(0, 0), (0, 1), (10, 0), (10, 4), (10, 10), (10, 30), (10, 300_000), (262_144, 262_145),
                   (262_144, 1), (600_000, 524_288), (600_000, 262_143), (600_000, 1_300_000), (524_288, 262_144)]

    @pytest.mark.parametrize("old, new", TRUNCATIONS)
    def test_truncate(self, tree: Any, old: int, new: int) -> None:
        """Cut, or filled up with zeros; who reads keeps the old version."""
        data = os.urandom(old)
        before = put(tree, "/f", data).entry
        handle = tree.open(BOB, "/f")
        written = tree.truncate(ALICE, "/f", new)
        with handle.reader() as reader:
            assert b"".join(reader) == data
        assert fetch(tree, "/f") == data[:new] + bytes(max(0, new - old)) and written.entry == tree.stat(BOB, "/f")
        assert (written.entry.owner, written.entry.mode, written.created) == (self.owner(), before.mode, False)
        tree.patch(ALICE, "/f", callfs.bytes_body(b"end"), new)
        assert fetch(tree, "/f") == data[:new] + bytes(max(0, new - old)) + b"end"
        for path, error in (("/absent", callfs.FileNotFound), ("/", callfs.BadRequest)):
            with pytest.raises(error):
                tree.truncate(ALICE, path, 0)

    def test_chmod_and_touch(self, tree: Any) -> None:
        """Files and directories; bytes and digest stay; absent is made by touch and refused by chmod."""
        put(tree, "/d/f", b"data")
        for path, mode in (("/d/f", 0o640), ("/d", 0o700)):
            old = tree.stat(ALICE, path)
            entry = tree.chmod(ALICE, path, mode)
            assert entry == tree.stat(BOB, path) and entry.mode == mode and (entry.id, entry.digest) == (old.id, old.digest)
            moment = 1_234_567_890_123_456_000
            assert tree.touch(ALICE, path, moment).entry == tree.stat(BOB, path) and tree.stat(BOB, path).mtime_ns == moment
            tree.touch(ALICE, path)
            assert tree.stat(BOB, path).mtime_ns > moment and tree.stat(BOB, path).mode == mode
        assert fetch(tree, "/d/f") == b"data" and tree.touch(ALICE, "/new").created and fetch(tree, "/new") == b""
        with pytest.raises(callfs.FileNotFound):
            tree.chmod(ALICE, "/absent", 0o600)

    def test_list_in_order_and_in_part(self, tree: Any) -> None:
        """By code point, behind any name."""
        for name in ODD_NAMES:
            put(tree, "/d/" + name, b"")
        names = sorted(ODD_NAMES)
        assert [entry.name for entry in tree.list(ALICE, "/d")] == names
        for start in range(len(names)):
            assert [entry.name for entry in tree.list(ALICE, "/d", names[start])] == names[start + 1:]

    def test_hammer(self, tree: Any) -> None:
        """Writers, movers, removers and readers on a few paths: never a mixture, everything agrees at the end."""
        paths = ["/a", "/d/a", "/d/b", "/d/e/a", "/d/e/b"]
        def version(number: int, turn: int) -> bytes:
            return b"%d-%d;" % (number, turn) * (1 + turn * 997 % 5000)

        def check(path: str) -> None:
            try:
                data = fetch(tree, path, BOB)
            except (callfs.FileNotFound, callfs.CallFSError):
                return
            pieces = set(data.split(b";")[:-1])
            assert len(pieces) <= 1 and data.endswith(b";"), data[:50]

        def work(number: int) -> None:
            some = random.Random(number)
            for turn in range(60):
                path, other = some.choice(paths), some.choice(paths)
                act = some.choice([
                    lambda: put(tree, path, version(number, turn)), lambda: put(tree, path, version(number, turn)),
                    lambda: check(path),
                    lambda: tree.move(ALICE, path, other, overwrite=True, parents=True),
                    lambda: tree.remove(ALICE, path),
                    lambda: tree.remove(ALICE, "/d/e", recursive=True), lambda: tree.move(ALICE, "/d/e", "/d/f"),
                    lambda: tree.move(ALICE, "/d/f", "/d/e", parents=True), lambda: tree.mkdir(ALICE, "/d/e"),
                    lambda: [entry.path for entry in tree.walk(BOB, "/", 9)]])
                with contextlib.suppress(callfs.CallerError):
                    act()

        in_threads(work, 6)
        for entry in tree.walk(BOB, "/", 9):
            assert entry.owner == self.owner(), entry
            if not entry.is_dir:
                check(entry.path)


class DictFS(callfs.FileSystem):
    """Directories in memory: enough to walk."""

    def __init__(self, paths: Mapping[str, bool]) -> None:
        self.paths, self.opened = paths, []     # type: Mapping[str, bool], list[str]

    def stat(self, path: str) -> Any:
        """The entry; True is a directory."""
        if path != "/" and path not in self.paths:
            raise callfs.FileNotFound()
        return callfs.Entry(path, callfs.DIRECTORY if path == "/" or self.paths[path] else callfs.FILE)

    def list(self, path: str, after: str = "") -> Iterator[Any]:
        """In order."""
        self.opened.append(path)
        if not self.stat(path).is_dir:
            raise callfs.Conflict()
        names = sorted(callfs.split_path(one)[1] for one in self.paths if callfs.split_path(one)[0] == path)
        return iter([self.stat(callfs.join_path(path, name)) for name in names if name > after])


WALK_NAMES = ["a", "a!", "a-b", "a.", "a.txt", "a b", "a0", "aa", "ab", "b", "b.", "!", "~", "\u00e9", "\U0001f600",
              "a.b-c", ".a", ".-"]


def random_paths(seed: int) -> dict[str, bool]:
    """A tree of up to some dozen paths, whose names begin alike; True is a directory."""
    some, found, folders = random.Random(seed), {}, ["/"]     # type: Any, dict[str, bool], list[str]
    for _ in range(some.randrange(1, 40)):
        path = callfs.join_path(some.choice(folders), some.choice(WALK_NAMES))
        if path not in found:
            found[path] = some.random() < 0.6
            folders += [path] if found[path] else []
    return found


def depth_of(path: str) -> int:
    return path.count("/") - 1


class TestWalk:
    """`Tree.walk` against the plain definition: all paths, sorted as text, cut anywhere."""

    @pytest.mark.parametrize("seed", [*range(20), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(20, 60))])
    def test_order_and_every_cut(self, seed: int) -> None:
        """From each directory, to each depth, after each path and after many that are not there."""
        paths = random_paths(seed)
        tree = callfs.Tree(DictFS(paths))
        for top in ["/", *(path for path, folder in paths.items() if folder)][:4]:
            inside = sorted(path for path in paths if path != top and callfs.is_below(path, top))
            for depth in (0, 1, 100):
                expected = [path for path in inside
                            if depth_of(path) - (0 if top == "/" else depth_of(top) + 1) <= depth]
                assert [entry.path for entry in tree.walk(ALICE, top, depth)] == expected
                cuts = {"", "/", "!", "~", "/~", top, top + "/", *inside}
                cuts |= {path[:-1] + character for path in inside
                         for character in "!/0~\U0010ffff"} | {path + "/" for path in inside}
                cuts |= {path + tail for path in inside for tail in ("!", ".x", "/x", "0", "\U0010ffff")}
                for cut in cuts:
                    found = [entry.path for entry in tree.walk(ALICE, top, depth, cut)]
                    assert found == [path for path in expected if path > cut], (top, depth, cut)

    def test_paging_gives_exactly_everything(self) -> None:
        """Page by page, as a client does."""
        tree = callfs.Tree(DictFS(random_paths(3)))
        whole = [entry.path for entry in tree.walk(ALICE, "/", 100)]
        for size in range(1, 8):
            found: list[str] = []
            page = [entry.path for entry in itertools.islice(tree.walk(ALICE, "/", 100), size)]
            while page:
                found += page
                page = [entry.path for entry in itertools.islice(tree.walk(ALICE, "/", 100, found[-1]), size)]
            assert found == whole

    def test_what_lies_before_is_not_opened(self) -> None:
        """A page far behind costs no more than the first."""
        filesystem = DictFS({**{f"/d{number:03}": True for number in range(500)},
                             **{f"/d{number:03}/f": False for number in range(500)}})
        page = list(itertools.islice(callfs.Tree(filesystem).walk(ALICE, "/", 100, "/d400/f"), 4))
        assert [entry.path for entry in page] == ["/d401", "/d401/f", "/d402",
                                                  "/d402/f"] and len(filesystem.opened) <= 4

    @pytest.mark.parametrize("after", ["/.-x", "/..-x", "/a/../-", "/..", "/./a", "/" + "n" * 300 + "-", "//",
                                       "/a//b-"])
    def test_a_cut_that_is_no_path(self, tmp_path: Path, after: str) -> None:
        """Text for comparison, never a way out of the root."""
        (tmp_path / "root" / "a").mkdir(parents=True)
        (tmp_path / "secret").mkdir()
        with contextlib.closing(Rig(tmp_path / "root")) as rig:
            try:
                found = [entry.path for entry in rig.tree.walk(ALICE, "/", 9, after)]
            except callfs.BadRequest:
                return
            assert found == [path for path in ["/a"] if path > after]

    @pytest.mark.parametrize("after", ["/a\0-", "\ud800", "/\x01-x"])
    def test_a_cut_with_forbidden_characters(self, after: str) -> None:
        """400."""
        with pytest.raises(callfs.BadRequest):
            list(callfs.Tree(DictFS({"/a": True})).walk(ALICE, "/", 9, after))

    def test_a_directory_that_goes_away_meanwhile(self) -> None:
        """Ends there; its neighbours are shown. At the top it is an error."""
        filesystem = DictFS({"/a": True, "/a/x": False, "/b": True, "/b/y": False})
        walk = callfs.Tree(filesystem).walk(ALICE, "/", 9)
        assert next(walk).path == "/a"
        filesystem.paths = {"/b": True, "/b/y": False}
        assert [entry.path for entry in walk] == ["/b", "/b/y"]
        with pytest.raises(callfs.FileNotFound):
            list(callfs.Tree(filesystem).walk(ALICE, "/a", 9))

    def test_a_deep_tree(self) -> None:
        """1,500 levels (before, the recursion limit of Python ended the walk)."""
        paths = {"/d" * depth: True for depth in range(1, 1500)}
        assert [entry.path for entry in callfs.Tree(DictFS(paths)).walk(ALICE, "/", 2000)] == sorted(paths)


VERB_CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "read": lambda tree, who: tree.stat(who, "/f"), "list": lambda tree, who: tree.list(who, "/"),
    "link": lambda tree, who: tree.authorise(who, "link"),
    "create": lambda tree, who: put(tree, f"/new-{who.name}", who=who),
    "mkdir": lambda tree, who: tree.mkdir(who, f"/dir-{who.name}"),
    "replace": lambda tree, who: put(tree, "/f", who=who),
    "patch": lambda tree, who: tree.patch(who, "/f", callfs.bytes_body(b"x"), 0),
    "delete": lambda tree, who: tree.remove(who, "/f"), "move": lambda tree, who: tree.move(who, "/f", "/moved"),
    "chmod": lambda tree, who: tree.chmod(who, "/f", 0o600), "touch": lambda tree, who: tree.touch(who, "/f"),
}
MODE_VERBS = {"full": set(VERB_CALLS), "read-only": {"read", "list", "link"}, "upload-only": {"create", "mkdir"},
              "no-delete": {"read", "list", "link", "create", "mkdir"}}
ANONYMOUS_MAY = {"none": set(), "read": {"read", "list"}, "write": set(VERB_CALLS) - {"link"}}


@pytest.mark.parametrize("verb", VERB_CALLS)
@pytest.mark.parametrize("anonymous", ANONYMOUS_MAY)
@pytest.mark.parametrize("mode", MODE_VERBS)
def test_modes_and_anonymous(tmp_path: Path, mode: str, anonymous: str, verb: str) -> None:
    """`auth.mode` binds everybody but trusted users; who has no key gets `auth.anonymous` of it, and is told that a key
    could help."""
    assert set(callfs.VERBS) == set(VERB_CALLS)
    nobody = callfs.ANONYMOUS[anonymous]
    for who in (ALICE, nobody, callfs.ROOT):
        with contextlib.closing(Rig(tmp_path / who.name, durable=False, mode=mode)) as rig:
            put(rig.tree, "/f", who=callfs.ROOT)
            record = rig.store.get("/f")
            rig.store.put(record._replace(owner=who.name))
            call_verb = VERB_CALLS[verb]
            if who.trusted or (verb in MODE_VERBS[mode] and (who is ALICE or verb in ANONYMOUS_MAY[anonymous])):
                call_verb(rig.tree, who)
            else:
                a_key_could_help = who is nobody and verb not in ANONYMOUS_MAY[anonymous]
                with pytest.raises(callfs.AuthenticationFailed if a_key_could_help else callfs.PermissionDenied):
                    call_verb(rig.tree, who)


def test_an_unable_filesystem_says_what_it_can() -> None:
    """501, naming the verbs it has."""
    class Half(callfs.FileSystem):
        name = "half"

        def stat(self, path: str) -> Any:
            return callfs.Entry(path)

    tree = callfs.Tree(Half())
    for ask in (lambda: tree.list(ALICE, "/"), lambda: put(tree, "/x", who=callfs.ROOT),
                lambda: tree.remove(ALICE, "/x"), lambda: tree.open(ALICE, "/x")):
        with pytest.raises(callfs.NotSupported, match="half does not support .*; it supports: stat") as caught:
            ask()
        assert caught.value.status == 501


# ============================================================================
# The store: records + bytes + locks, the filesystem at /
# ============================================================================

class Rig:
    """A store on a folder, with its parts at hand. The records lie in the hidden folder, or where `records` says."""

    def __init__(self, root: Any, *, durable: bool = True, mode: str = "full",
                 records: Any = None, **more: Any) -> None:
        self.root = str(root)
        self.disk = callfs.LocalDisk(self.root, durable=durable)
        self.metrics = callfs.Metrics()
        self.store = callfs.SQLiteStore(str(records or os.path.join(self.disk.hidden, "records.sqlite3")),
                                        durable=durable, metrics=self.metrics)
        self.locks = callfs.LocalLocks(30, self.metrics)
        try:
            self.fs = callfs.StoreFS(self.disk, self.store, self.locks, metrics=self.metrics, **more)
        except callfs.ConfigError:
            self.store.close()
            self.disk.close()
            raise
        self.tree = callfs.Tree(self.fs, mode=mode, metrics=self.metrics)

    def close(self) -> None:
        """As a server that stops."""
        self.tree.close()

    def findings(self, deep: bool = True) -> list[tuple[str, str]]:
        """What fsck has to say, mending nothing."""
        found: list[tuple[str, str]] = []
        callfs.Checker(self.disk, self.store, instance_id="node-1", deep=deep, mend=False,
                       report=lambda finding: found.append(finding[:2])).run()
        return found

    def path(self, path: str) -> Path:
        """Where a path lies on the disk."""
        return Path(self.root + path)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A durable store in `tmp_path/root`; afterwards nothing may be left in its scratch folders."""
    with nothing_left(2):
        rig = Rig(tmp_path / "root")
        yield rig
        try:
            assert scratch(rig.root) == []
        finally:
            rig.close()


class TestStoreFS(FileSystemContract):
    """Files of a local disk with their records."""

    def make(self, folder: Path) -> Any:
        return Rig(folder, durable=False).fs

    def check(self, tree: Any, folder: Path) -> None:
        filesystem = tree._root
        assert scratch(folder) == []
        assert not filesystem._locks._paths and not filesystem._locks._subtrees
        if filesystem._owed:
            filesystem._settle()
        assert not filesystem._owed and not filesystem._intents._open
        found: list[Any] = []
        callfs.Checker(filesystem._disk, filesystem._store, instance_id="node-1", deep=True, mend=False,
                       report=found.append).run()
        assert not found

    @pytest.mark.parametrize("seed", range(4))
    def test_walk(self, tree: Any, seed: int) -> None:
        """As `TestWalk`, on a real disk."""
        paths = random_paths(seed)
        for path, folder in paths.items():
            tree.mkdir(ALICE, path) if folder else put(tree, path)
        assert [entry.path for entry in tree.walk(ALICE, "/", 100)] == sorted(paths)
        for cut in [*paths, *(path + "!" for path in paths)]:
            assert [entry.path for entry in tree.walk(ALICE, "/", 100, cut)] == sorted(path for path in paths
                                                                                       if path > cut)


class TestPortableStoreFS(TestStoreFS):
    """The same without `dir_fd`, as on Windows."""

    def make(self, folder: Path) -> Any:
        rig = Rig(folder, durable=False)
        rig.disk._at_works = False
        return rig.fs


class TestFromOutside:
    """What comes, changes and goes without us."""

    def test_adoption(self, rig: Rig) -> None:
        """Files that lie there are root's; everybody reads them, nobody but a trusted user changes them."""
        rig.path("/d").mkdir()
        rig.path("/d/f").write_bytes(b"outside")
        os.chmod(rig.path("/d/f"), 0o4640)
        os.utime(rig.path("/d/f"), ns=(1, 1_600_000_000_123_456_789))
        entry = rig.tree.stat(ALICE, "/d/f")
        assert (entry.owner, entry.size, entry.mode, entry.mtime_ns, entry.digest) == ("root", 7, 0o640,
                                                                                       1_600_000_000_123_456_789, "")
        assert entry.id and entry.etag and rig.tree.stat(ALICE, "/d/f") == entry
        assert fetch(rig.tree, "/d/f") == b"outside" and list(picture(rig.tree)) == ["/d", "/d/f"]
        for refused in (lambda: put(rig.tree, "/d/f"), lambda: rig.tree.remove(ALICE, "/d/f"),
                        lambda: rig.tree.remove(ALICE, "/d", recursive=True)):
            with pytest.raises(callfs.PermissionDenied):
                refused()
        assert put(rig.tree, "/d/f", who=callfs.ROOT).entry.owner == "root"

    @pytest.mark.parametrize("change", ["content", "size", "touch", "replace"])
    def test_change(self, rig: Rig, change: str) -> None:
        """Size, time and ETag are the file's, the digest is dropped; owner and id stay."""
        old = put(rig.tree, "/f", b"ours", options=callfs.WriteOptions(mtime_ns=10**18)).entry
        path = rig.path("/f")
        if change == "touch":
            os.utime(path)
        elif change == "replace":
            path.with_name("g").write_bytes(b"ours")
            os.utime(path.with_name("g"), ns=(10**18, 10**18))
            os.replace(path.with_name("g"), path)
        else:
            path.write_bytes(b"them" if change == "content" else b"theirs")
        data = path.read_bytes()
        for _ in range(2):
            entry = rig.tree.stat(ALICE, "/f")
            assert (entry.owner, entry.id, entry.mode, entry.size) == ("alice", old.id, old.mode, len(data))
            assert entry.etag != old.etag and entry.digest == "" and entry.mtime_ns == os.stat(path).st_mtime_ns
            assert [one for one in rig.tree.list(ALICE, "/")] == [entry] and fetch(rig.tree, "/f") == data
            with contextlib.closing(rig.tree.open(ALICE, "/f")) as handle:
                assert handle.entry == entry
        with pytest.raises(callfs.PreconditionFailed):
            put(rig.tree, "/f", conditions=callfs.Conditions(if_match=f'"{old.etag}"'))

    @pytest.mark.parametrize("look", ["stat", "open", "list", "write"])
    def test_another_type(self, rig: Rig, look: str) -> None:
        """A directory where a file was, and back: something new, root's."""
        put(rig.tree, "/x", b"file")
        os.unlink(rig.path("/x"))
        rig.path("/x").mkdir()
        rig.path("/x/inner").write_bytes(b"")
        def opened(path: str) -> Any:
            with contextlib.closing(rig.tree.open(ALICE, path)) as handle:
                return handle.entry

        asks = {"stat": lambda: rig.tree.stat(ALICE, "/x"), "open": lambda: opened("/x"),
                "list": lambda: next(rig.tree.list(ALICE, "/")), "write": lambda: rig.tree.mkdir(ALICE, "/x").entry}
        assert asks[look]().is_dir and asks[look]().owner == "root" and rig.tree.stat(ALICE, "/x/inner").owner == "root"
        os.unlink(rig.path("/x/inner"))
        rig.path("/x").rmdir()
        rig.path("/x").write_bytes(b"again")
        if look == "write":
            with pytest.raises(callfs.PermissionDenied):
                put(rig.tree, "/x")
        else:
            assert asks[look]().type == "file" and asks[look]().owner == "root" and asks[look]().size == 5
        assert rig.findings() == []

    @pytest.mark.parametrize("look", ["stat", "open", "list", "walk", "write", "mkdir", "remove"])
    def test_gone(self, rig: Rig, look: str) -> None:
        """What was deleted is not there, and who makes it again owns it."""
        put(rig.tree, "/d/f", who=BOB)
        old = rig.tree.stat(ALICE, "/d/f").id
        os.unlink(rig.path("/d/f"))
        if look in ("stat", "open", "remove"):
            ask = {"stat": rig.tree.stat, "open": rig.tree.open, "remove": rig.tree.remove}[look]
            with pytest.raises(callfs.FileNotFound):
                ask(ALICE, "/d/f")
        elif look in ("list", "walk"):
            assert [entry.path for entry in rig.tree.walk(ALICE, "/", 9 if look == "walk" else 0)] == ["/d"]
            assert list(rig.tree.list(ALICE, "/d")) == []
        made = rig.tree.mkdir(ALICE, "/d/f") if look == "mkdir" else put(rig.tree, "/d/f")
        assert made.created and made.entry.owner == "alice" and made.entry.id != old and rig.findings() == []

    def test_what_is_gone_does_not_stop_a_removal(self, rig: Rig) -> None:
        """A listing under our own lock meets records whose files are gone (before, each cost a lock's time-out)."""
        for number in range(5):
            put(rig.tree, f"/d/e/{number}")
        for number in range(4):
            os.unlink(rig.path(f"/d/e/{number}"))
        hold, inside, waits = rig.locks.hold, [], []       # type: Any, list[Any], list[Any]

        @contextlib.contextmanager
        def watched(*paths: str, **options: Any) -> Iterator[Any]:
            waits.extend([paths] if inside and options.get("timeout") != 0 else [])
            with hold(*paths, **options) as lease:
                inside.append(paths)
                yield lease
                inside.pop()

        rig.locks.hold = watched
        rig.tree.remove(ALICE, "/d", recursive=True)
        put(rig.tree, "/d/f")
        put(rig.tree, "/e/gone")
        os.unlink(rig.path("/e/gone"))
        rig.tree.move(ALICE, "/d", "/e", overwrite=True)
        assert waits == [] and rig.metrics.value("callfs_lock_operations_total", "acquire", "timeout") == 5
        assert rig.findings() == []
        assert list(picture(rig.tree)) == ["/e", "/e/f"]

    def test_whole_folders(self, rig: Rig) -> None:
        """Removed, moved and copied in from outside."""
        put(rig.tree, "/d/e/f", b"1")
        os.rename(rig.path("/d"), rig.path("/new"))
        assert {path: owner for path, (_, owner, _) in picture(rig.tree).items()} == {"/new": "root", "/new/e": "root",
                                                                                      "/new/e/f": "root"}
        shutil.copytree(rig.path("/new"), rig.path("/copy"))
        assert len(picture(rig.tree)) == 6
        shutil.rmtree(rig.path("/new"))
        assert list(picture(rig.tree)) == ["/copy", "/copy/e", "/copy/e/f"]
        with pytest.raises(callfs.FileNotFound):
            rig.tree.stat(ALICE, "/d/e/f")

    def test_times_beyond_what_a_record_holds(self, rig: Rig) -> None:
        """Files of the year 2300 and of 1600 do not keep their neighbours from being listed (before: 500)."""
        put(rig.tree, "/f")
        for name, seconds in (("late", 10_413_792_000), ("early", -11_644_473_600)):
            rig.path("/" + name).write_bytes(b"")
            try:
                os.utime(rig.path("/" + name), ns=(0, seconds * 10**9))
            except (OSError, OverflowError):
                pass
        assert [entry.name for entry in rig.tree.list(ALICE, "/")] == ["early", "f", "late"]
        for name in ("early", "late"):
            entry = rig.tree.stat(ALICE, "/" + name)
            assert callfs.rfc3339(entry.mtime_ns) and callfs.http_date(entry.mtime_ns / 1e9)
            assert rig.tree.stat(ALICE, "/" + name).etag == entry.etag

    @pytest.mark.parametrize("name, target, path, data", LINKS, ids=[row[0] for row in LINKS])
    def test_symbolic_links(self, rig: Rig, name: str, target: str, path: str, data: Optional[bytes]) -> None:
        """Read inside, absent outside, never written through; listed where they lead somewhere; never descended."""
        (Path(rig.root).parent / "outside").mkdir()
        (Path(rig.root).parent / "outside" / "secret").write_bytes(b"SECRET")
        make_links(rig.root)
        if data is not None:
            assert fetch(rig.tree, path) == data and rig.tree.stat(ALICE, path).path == path
        else:
            for ask in (rig.tree.stat, rig.tree.open, lambda who, path: list(rig.tree.list(who, path))):
                with pytest.raises(callfs.FileNotFound):
                    ask(ALICE, path)
        shown = {entry.path for entry in rig.tree.walk(ALICE, "/", 50)}
        assert ("/" + name in shown) == (data is not None) and not any("secret" in one or "passwd" in one
                                                                       for one in shown)
        for change in (lambda: put(rig.tree, path), lambda: rig.tree.mkdir(ALICE, path + "/x"),
                       lambda: rig.tree.patch(ALICE, path, callfs.bytes_body(b"x"), 0),
                       lambda: rig.tree.remove(ALICE, path), lambda: rig.tree.move(ALICE, path, "/stolen")):
            with pytest.raises(callfs.CallerError):
                change()
        assert (Path(rig.root).parent / "outside" / "secret").read_bytes() == b"SECRET"
        assert rig.path("/file").read_bytes() == b"inside"
        assert sorted(os.listdir(Path(rig.root).parent / "outside")) == ["secret"]

    @pytest.mark.parametrize("path", ["/link/f", "/to-file"])
    def test_links_exchanged_while_they_are_followed(self, rig: Rig, path: str) -> None:
        """Between the answer where a link leads to and the opening, that place becomes a link out of the root."""
        (Path(rig.root).parent / "outside").mkdir()
        (Path(rig.root).parent / "outside" / "f").write_bytes(b"SECRET")
        put(rig.tree, "/d/f", b"inside")
        os.symlink("d", rig.path("/link"))
        os.symlink("d/f", rig.path("/to-file"))
        physical, turns = rig.disk.physical, itertools.count()

        def exchanged(one: str) -> str:
            found = physical(one)
            if next(turns) == turn:
                rig.path("/d/f").unlink()
                rig.path("/d").rmdir()
                os.symlink("../outside", rig.path("/d"))
            return found

        assert fetch(rig.tree, path) == b"inside"
        rig.disk.physical = exchanged
        for turn in range(3):
            turns = itertools.count()
            for ask in (lambda: fetch(rig.tree, path), lambda: rig.tree.stat(ALICE, path).owner.encode() + b"inside",
                        lambda: list(rig.tree.list(ALICE, "/link"))):
                with contextlib.suppress(callfs.CallerError):
                    found = ask()
                    assert found in (b"inside", b"aliceinside") or [entry.path for entry in found] == ["/link/f"]
            if rig.path("/d").is_symlink():
                rig.path("/d").unlink()
                put(rig.tree, "/d/f", b"inside", callfs.ROOT)
                rig.store.put(rig.store.get("/d/f")._replace(owner="alice"))

    def test_links_to_folders(self, rig: Rig) -> None:
        """Listed under the link's own path; removed and replaced as what they are, by root."""
        put(rig.tree, "/d/f")
        os.symlink("d", rig.path("/l"))
        assert [entry.path for entry in rig.tree.list(ALICE, "/l")] == ["/l/f"] and fetch(rig.tree, "/l/f") == b"data"
        assert list(picture(rig.tree)) == ["/d", "/d/f", "/l"]
        with pytest.raises(callfs.Conflict):
            put(rig.tree, "/l/f", who=callfs.ROOT)
        rig.tree.remove(callfs.ROOT, "/l", recursive=True)
        assert list(picture(rig.tree)) == ["/d", "/d/f"]
        os.symlink("d/f", rig.path("/l"))
        put(rig.tree, "/l", b"a file now", callfs.ROOT)
        assert fetch(rig.tree, "/l") == b"a file now" and fetch(rig.tree, "/d/f") == b"data" and rig.findings() == []

    def test_special_files(self, rig: Rig) -> None:
        """FIFOs, sockets and the like are not there, and nobody but root takes their place."""
        os.mkfifo(rig.path("/fifo"))
        put(rig.tree, "/d/f")
        os.mkfifo(rig.path("/d/fifo"))
        for ask in (rig.tree.stat, rig.tree.open):
            with pytest.raises(callfs.FileNotFound):
                ask(ALICE, "/fifo")
        assert list(picture(rig.tree)) == ["/d", "/d/f"]
        with pytest.raises(callfs.CallerError):
            put(rig.tree, "/fifo")
        with pytest.raises(callfs.CallerError):
            rig.tree.patch(callfs.ROOT, "/fifo", callfs.bytes_body(b"x"), 0)
        assert put(rig.tree, "/fifo", who=callfs.ROOT) and fetch(rig.tree, "/fifo") == b"data"
        rig.tree.remove(ALICE, "/d", recursive=True)

    @pytest.mark.parametrize("name", [".callfs", ".CallFS", ".CALLFS", ".callf\u017f"])
    def test_hidden_folder(self, rig: Rig, name: str) -> None:
        """No spelling of it is there for anybody, root included; names that only begin like it are ordinary."""
        with contextlib.suppress(FileExistsError):
            rig.path("/" + name).mkdir()
        for path in ("/" + name, f"/{name}/tmp", f"/{name}/records.sqlite3"):
            for absent in (rig.tree.stat, rig.tree.open, rig.tree.remove,
                           lambda who, path: list(rig.tree.list(who, path))):
                with pytest.raises(callfs.FileNotFound):
                    absent(callfs.ROOT, path)
            for refused in (lambda: put(rig.tree, path, who=callfs.ROOT), lambda: rig.tree.mkdir(callfs.ROOT, path),
                            lambda: rig.tree.patch(callfs.ROOT, path, callfs.bytes_body(b""), 0)):
                with pytest.raises((callfs.PermissionDenied, callfs.FileNotFound)):
                    refused()
            put(rig.tree, "/f", who=callfs.ROOT)
            with pytest.raises(callfs.PermissionDenied):
                rig.tree.move(callfs.ROOT, "/f", path, overwrite=True, parents=True)
            with pytest.raises(callfs.FileNotFound):
                rig.tree.move(callfs.ROOT, path, "/stolen")
        put(rig.tree, "/d/" + name)
        put(rig.tree, "/.callfs2")
        assert list(picture(rig.tree)) == ["/.callfs2", "/d", "/d/" + name, "/f"]


class TestListingTrust:
    """A folder is read again only when it has changed; what has changed is never missed."""

    @pytest.fixture
    def scans(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Each folder that was read, in order."""
        found: list[str] = []
        scan = rig.disk.scan
        monkeypatch.setattr(rig.disk, "scan", lambda path, *more, **options: (found.append(path),
                                                                              scan(path, *more, **options))[1])
        return found

    def age(self, rig: Rig, path: str, name: str = "") -> None:
        """Let a folder look as if it had last changed long ago, and be trusted."""
        os.utime(rig.path(path), ns=(0, time.time_ns() - 10**10))
        list(rig.tree.list(ALICE, path))

    def names(self, rig: Rig, path: str = "/d") -> list[str]:
        return [entry.name for entry in rig.tree.list(ALICE, path)]

    def test_own_changes_keep_it(self, rig: Rig, scans: list[str]) -> None:
        """Writing, removing and moving do not make the next listing read the folder."""
        put(rig.tree, "/d/a")
        self.age(rig, "/d")
        scans.clear()
        put(rig.tree, "/d/b")
        put(rig.tree, "/d/b")
        rig.tree.mkdir(ALICE, "/d/c")
        rig.tree.move(ALICE, "/d/b", "/d/e")
        rig.tree.remove(ALICE, "/d/a")
        assert self.names(rig) == ["c", "e"] and scans == []

    @pytest.mark.parametrize("change", ["add", "remove", "rename", "folder"])
    def test_changes_from_outside_are_seen(self, rig: Rig, scans: list[str], change: str) -> None:
        """Also between two of our own."""
        put(rig.tree, "/d/a")
        self.age(rig, "/d")
        act = {"add": lambda: rig.path("/d/x").write_bytes(b""), "remove": lambda: os.unlink(rig.path("/d/a")),
               "rename": lambda: os.rename(rig.path("/d/a"), rig.path("/d/x")),
               "folder": lambda: rig.path("/d/x").mkdir()}[change]
        expected = {"add": ["a", "x"], "remove": [], "rename": ["x"], "folder": ["a", "x"]}[change]
        act()
        put(rig.tree, "/d/own")
        assert self.names(rig) == sorted([*expected, "own"])

    def test_a_change_within_the_same_tick_is_seen(self, rig: Rig) -> None:
        """A folder that has just changed is not trusted: the next change may leave it the same time."""
        put(rig.tree, "/d/a")
        now = time.time_ns()
        for number in range(3):
            rig.path(f"/d/x{number}").write_bytes(b"")
            os.utime(rig.path("/d"), ns=(now, now))
            assert self.names(rig) == ["a", *(f"x{n}" for n in range(number + 1))]

    def test_trust_ends(self, tmp_path: Path) -> None:
        """After `storage.rescan_interval` a folder is read again in any case."""
        with contextlib.closing(Rig(tmp_path / "root", rescan=0)) as rig:
            put(rig.tree, "/d/a")
            self.age(rig, "/d")
            old = os.stat(rig.path("/d")).st_mtime_ns
            rig.path("/d/b").write_bytes(b"")
            os.utime(rig.path("/d"), ns=(old, old))
            assert self.names(rig) == ["a", "b"]

    def test_large_folder_in_pages(self, rig: Rig) -> None:
        """More than a page of the records and of the scan."""
        rig.path("/d").mkdir()
        for number in range(2500):
            rig.path(f"/d/{number:05}").touch()
        assert self.names(rig) == [f"{number:05}" for number in range(2500)]


class TestRaces:
    """What two requests can do to each other, step by step."""

    def test_a_reader_with_an_old_look_does_not_take_a_new_record_away(self, rig: Rig) -> None:
        """It saw the directory that was there before the file (before: the file became root's)."""
        rig.tree.mkdir(ALICE, "/x")
        old = rig.disk.stat("/x")
        rig.tree.remove(ALICE, "/x")
        entry = put(rig.tree, "/x").entry
        rig.fs._agreed("/x", old)
        assert rig.tree.stat(ALICE, "/x") == entry

    def test_a_reader_with_an_old_look_leaves_no_record_of_what_is_gone(self, rig: Rig) -> None:
        """It saw the file that was removed."""
        put(rig.tree, "/x")
        old = rig.disk.stat("/x")
        rig.tree.remove(ALICE, "/x")
        rig.fs._agreed("/x", old)
        assert rig.store.get("/x") is None and rig.findings() == []

    @pytest.mark.parametrize("operation", ["write new", "overwrite", "mkdir", "move file", "move over", "move folder"])
    def test_what_is_seen_between_rename_and_commit(self, tmp_path: Path, template: str, operation: str) -> None:
        """The entry as it will be: nobody's file is somebody else's for a moment (before: root's)."""
        with copied(template, tmp_path) as place, contextlib.closing(Rig(place)) as rig:
            path = {"write new": "/d/new", "overwrite": "/d/f", "mkdir": "/d/new", "move file": "/moved",
                    "move over": "/d/g", "move folder": "/moved"}[operation]
            seen, commit = [], rig.store._commit

            def look(jobs: Any) -> None:
                if threading.current_thread() is threading.main_thread():
                    def other() -> None:
                        seen.append(rig.tree.stat(BOB, path))
                        if not seen[0].is_dir:
                            with contextlib.closing(rig.tree.open(BOB, path)) as handle:
                                seen.append(handle.entry)
                        list(rig.tree.walk(BOB, "/", 9))
                    thread = threading.Thread(target=other)
                    thread.start()
                    wait_for(lambda: not thread.is_alive() or rig.store._pending, 10, "the other one")
                    if thread.is_alive():   # it waits for us with a record: it has seen what it should not
                        seen.append("wrote")
                    commit(jobs)
                    others.append(thread)
                else:
                    commit(jobs)

            others: list[threading.Thread] = []
            list(rig.tree.walk(BOB, "/", 9))
            rig.store._commit = look
            OPERATIONS[operation](rig.tree)
            rig.store._commit = commit
            for thread in others:
                thread.join()
            after = rig.tree.stat(BOB, path)
            assert seen and all(entry._replace(version=0, mtime_ns=0) == after._replace(version=0, mtime_ns=0)
                                for entry in seen)
            assert after.owner == "alice" and not rig.fs._fresh and rig.findings() == []

    def test_removing_a_file_excludes_writing_below_it(self, rig: Rig) -> None:
        """Else its record's removal takes the records of the new folder along (found by reading, 2026-11)."""
        put(rig.tree, "/x")
        drop, problems = rig.store.delete, []

        def delete(path: str) -> int:       # between the file's end and the record's: somebody makes a folder of it
            with pytest.raises(callfs.Unavailable), rig.locks.hold("/x/y", timeout=0):
                problems.append("the lock was free")
            return drop(path)

        rig.store.delete = delete
        rig.tree.remove(ALICE, "/x")
        assert not problems

    def test_the_moved_entry_is_that_of_the_moment(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        """A removal right behind the move does not make it fail."""
        put(rig.tree, "/x")
        release = rig.locks._release

        def released(wanted: list[str], subtree: bool) -> None:
            release(wanted, subtree)
            with contextlib.suppress(OSError):
                os.unlink(rig.path("/y"))

        monkeypatch.setattr(rig.locks, "_release", released)
        assert rig.tree.move(ALICE, "/x", "/y").path == "/y"


def test_check_tells_what_is_wrong(tmp_path: Path) -> None:
    """`/ready`: no room, no root, no records."""
    with contextlib.closing(Rig(tmp_path / "root", records=tmp_path / "records")) as rig:
        assert rig.tree.check() == {"metadata store": "ok", "backend": "ok"}
        rig.fs._min_free = 1 << 60
        assert "full" in rig.tree.check()["backend"]
        with pytest.raises(callfs.StorageFull):
            put(rig.tree, "/f")
        rig.fs._min_free = 0
        rig.store._writer.close()
        assert rig.tree.check()["metadata store"] != "ok" and rig.tree.check()["metadata store"] == "ok"
        assert scratch(rig.root) == []


def test_metrics_of_the_store(rig: Rig) -> None:
    """Operations on files, bytes, records and locks are counted under the names of rest.md."""
    put(rig.tree, "/f")
    put(rig.tree, "/f")
    fetch(rig.tree, "/f")
    rig.tree.remove(ALICE, "/f")
    for operation in ("create", "update", "read", "delete"):
        assert rig.metrics.value("callfs_file_operations_total", operation, "localfs") == 1
    assert rig.metrics.value("callfs_backend_ops_total", "localfs", "write") == 2
    assert rig.metrics.value("callfs_metadata_db_queries_total", "put") == 2
    assert rig.metrics.value("callfs_lock_operation_duration_seconds", "acquire") == 3
    samples(rig.metrics.render())


# ---- disks that are full or can not be written -------------------------------------------------------------------

@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A tmpfs of its own at a place; skipped where that is not permitted."""
    place.mkdir(parents=True, exist_ok=True)
    if not sys.platform.startswith("linux") or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs",
                                                               str(place)],
                                                              capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_disk_full(tmp_path: Path) -> None:
    """507, the old version intact, nothing left; reading, listing and deleting go on; room again: writing, too."""
    with mounted(tmp_path / "root", "size=2m"):
        with contextlib.closing(Rig(tmp_path / "root")) as rig:
            put(rig.tree, "/d/old", b"old" * 1000)
            put(rig.tree, "/d/victim", b"x" * 100_000)
            put(rig.tree, "/d/e/f", b"x" * 100_000)
            with open(rig.path("/filler"), "wb", 0) as filler, contextlib.suppress(OSError):
                while filler.write(b"x" * 4096):
                    pass
            before = picture(rig.tree, "/d")
            for attempt in (lambda: put(rig.tree, "/d/old", b"new" * 100_000),
                            lambda: put(rig.tree, "/d/new", b"x" * 100_000),
                            lambda: put(rig.tree, "/x/y/new", b"x" * 100_000),
                            lambda: rig.tree.patch(ALICE, "/d/old", callfs.bytes_body(b"XX"), 5)):
                with pytest.raises(callfs.StorageFull):
                    attempt()
                assert picture(rig.tree, "/d") == before and scratch(rig.root) == []
            with pytest.raises(callfs.StorageFull):
                rig.tree.patch(ALICE, "/d/old", callfs.bytes_body(b"x" * 100_000), 3000)
            assert fetch(rig.tree, "/d/old")[:3000] == b"old" * 1000      # appended: what arrived stays
            rig.tree.remove(ALICE, "/d/victim")
            rig.tree.remove(ALICE, "/d/e", recursive=True)
            assert list(picture(rig.tree, "/d")) == ["/d/old"]
            put(rig.tree, "/d/old", b"new" * 10_000)
            assert fetch(rig.tree, "/d/old") == b"new" * 10_000 and set(rig.fs.check().values()) == {"ok"}
            rig.tree.remove(callfs.ROOT, "/filler")
            assert rig.findings() == []


def test_no_room_even_to_note_a_step(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is written, but everything can still be deleted."""
    for path in ("/d/f", "/d/g", "/e/f"):
        put(rig.tree, path)
    before = picture(rig.tree)
    with monkeypatch.context() as patched:
        patched.setattr(rig.fs._intents, "note", raising(OSError(errno.ENOSPC, "full")))
        for attempt in (lambda: put(rig.tree, "/d/f", b"new"), lambda: put(rig.tree, "/d/new"),
                        lambda: rig.tree.mkdir(ALICE, "/new"),
                        lambda: rig.tree.move(ALICE, "/d", "/new")):
            with pytest.raises(callfs.StorageFull):
                attempt()
        assert picture(rig.tree) == before
        rig.tree.remove(ALICE, "/d/f")
        rig.tree.remove(ALICE, "/e", recursive=True)
    assert list(picture(rig.tree)) == ["/d", "/d/g"] and rig.findings() == []


def test_read_only_disk(tmp_path: Path) -> None:
    """Mounted so from the start, the records elsewhere: reads and listings, of what was adopted before and what not."""
    with mounted(tmp_path / "root", "size=2m"):
        with contextlib.closing(Rig(tmp_path / "root", records=tmp_path / "records")) as rig:
            put(rig.tree, "/d/f", b"ours")
            rig.path("/d/outside").write_bytes(b"theirs")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "root")], check=True)
        with contextlib.closing(Rig(tmp_path / "root", records=tmp_path / "records")) as rig:
            assert not rig.disk.writable and set(rig.fs.check().values()) == {"ok"}
            assert picture(rig.tree) == {"/d": ("directory", "alice", None), "/d/f": ("file", "alice", b"ours"),
                                         "/d/outside": ("file", "root", b"theirs")}
            for attempt in (lambda: put(rig.tree, "/d/f"), lambda: rig.tree.remove(ALICE, "/d/f"),
                            lambda: rig.tree.mkdir(ALICE, "/x"),
                            lambda: rig.tree.move(ALICE, "/d/f", "/d/g"),
                            lambda: rig.tree.patch(ALICE, "/d/f", callfs.bytes_body(b"x"), 0)):
                with pytest.raises(callfs.PermissionDenied, match="read-only"):
                    attempt()
            assert fetch(rig.tree, "/d/f") == b"ours"


def test_a_disk_that_becomes_read_only(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does after errors: every write is refused, reads go on, and all recovers without a restart."""
    put(rig.tree, "/d/f", b"ours")
    rig.path("/d/outside").write_bytes(b"theirs")
    with monkeypatch.context() as patched:
        changes = frozenset({"write", "replace", "mkdir", "unlink", "rmdir", "rename", "fsync", "ftruncate"})
        patched.setattr(callfs, "os", FaultyOS(raising(OSError(errno.EROFS, "read-only")), changes))
        patched.setattr(rig.store, "_write", raising(callfs.Unavailable("The metadata store is read-only.")))
        # what is new has no record, and is not listed
        assert {path: data for path, (_, _, data) in picture(rig.tree).items()} == {"/d": None, "/d/f": b"ours"}
        assert fetch(rig.tree, "/d/outside") == b"theirs"
        for attempt in (lambda: put(rig.tree, "/d/f"), lambda: rig.tree.mkdir(ALICE, "/x"),
                        lambda: rig.tree.remove(ALICE, "/d/f")):
            with pytest.raises(callfs.CallFSError) as caught:
                attempt()
            assert caught.value.status in (403, 503)
    shutil.rmtree(os.path.join(rig.root, callfs.HIDDEN, "tmp"))
    os.mkdir(os.path.join(rig.root, callfs.HIDDEN, "tmp"))
    assert fetch(rig.tree, "/d/f") == b"ours" and put(rig.tree, "/d/f", b"new") and fetch(rig.tree, "/d/f") == b"new"
    assert rig.findings() == [("unrecorded", "/d/outside")] or rig.findings() == []


# ---- calls that fail ---------------------------------------------------------------------------------------------

HOOKED = frozenset({"open", "close", "write", "read", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "fstat",
                    "stat", "ftruncate", "fchmod",
                    "lseek", "readlink", "copy_file_range", "scandir"})


class FaultyOS:
    """The module `os` as callfs sees it: `act(name, number, call)` stands for the call with this number, from 1."""

    def __init__(self, act: Callable[[str, int, Callable[[], Any]], Any], hooked: frozenset[str] = HOOKED) -> None:
        self._act, self._hooked, self.calls = act, hooked, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self._hooked:
            return real

        def hooked(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if name == "write":             # how much of it is up to `act`
                return self._act(name, self.calls, ShortWrite(*arguments))
            return self._act(name, self.calls, lambda: real(*arguments, **options))
        return hooked


class ShortWrite(NamedTuple):
    """One call of `os.write`."""

    fd: int
    data: Any

    def __call__(self, size: Optional[int] = None) -> int:
        return os.write(self.fd, memoryview(self.data)[:size])


def failing(number: int, fault: Any) -> FaultyOS:
    """The N-th call fails with an errno; or (fault "short") the N-th write writes half of what it should."""
    def act(name: str, current: int, call: Callable[..., Any]) -> Any:
        if current != number:
            return call()
        if isinstance(call, ShortWrite) and fault == "short":
            return call(max(1, len(call.data) // 2))
        if name == "close":
            call()                          # Linux closes in any case
        raise OSError(fault, "injected")
    return FaultyOS(act, frozenset({"write"}) if fault == "short" else HOOKED)


# What is there before each operation; all is alice's
BASE: dict[str, Optional[bytes]] = {"/d": None, "/d/f": b"old f" * 10, "/d/g": b"old g", "/d/e": None,
                                    "/d/e/h": b"deep", "/empty": None, "/z": b"z"}
NEW = b"new version " * 20_000

OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "write new": lambda tree: put(tree, "/d/new", NEW), "write new, parents": lambda tree: put(tree, "/x/y/new", NEW),
    "overwrite": lambda tree: put(tree, "/d/f", NEW),
    "overwrite by root": lambda tree: put(tree, "/d/f", NEW, callfs.ROOT),
    "append": lambda tree: tree.patch(ALICE, "/d/f", callfs.bytes_body(NEW), 50),
    "patch": lambda tree: tree.patch(ALICE, "/d/f", callfs.bytes_body(b"XYZ"), 7),
    "mkdir": lambda tree: tree.mkdir(ALICE, "/d/new"), "mkdir, parents": lambda tree: tree.mkdir(ALICE, "/x/y/z"),
    "move file": lambda tree: tree.move(ALICE, "/d/f", "/moved"),
    "move file, parents": lambda tree: tree.move(ALICE, "/d/f", "/x/y/moved", parents=True),
    "move over": lambda tree: tree.move(ALICE, "/d/f", "/d/g", overwrite=True),
    "move folder": lambda tree: tree.move(ALICE, "/d", "/moved"),
    "move folder over": lambda tree: tree.move(ALICE, "/d", "/empty", overwrite=True),
    "remove file": lambda tree: tree.remove(ALICE, "/d/f"),
    "remove folder": lambda tree: tree.remove(ALICE, "/empty"),
    "remove all": lambda tree: tree.remove(ALICE, "/d", recursive=True),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data folder with BASE in it."""
    folder = tmp_path_factory.mktemp("template") / "root"
    with contextlib.closing(Rig(folder, durable=False)) as rig:
        for path, data in BASE.items():
            rig.tree.mkdir(ALICE, path) if data is None else put(rig.tree, path, data)
    return str(folder)


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a place: thousands of files come and go in it. What dies in these tests
    is a process or a call, never the machine, so that nothing depends on what really reached a disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="cfs-", dir="/dev/shm") as folder:
        yield Path(folder)


@contextlib.contextmanager
def copied(template: str, folder: Path) -> Iterator[str]:
    """A copy of it that goes away afterwards. Inodes and times are new: the records are told."""
    place = str(folder / "copy")
    shutil.copytree(template, place)
    with contextlib.closing(sqlite3.connect(os.path.join(place, callfs.HIDDEN, "records.sqlite3"))) as records, records:
        records.execute("PRAGMA synchronous = OFF")
        for path in (path for path, data in BASE.items() if data is not None):
            found = os.lstat(place + path)
            records.execute("UPDATE entries SET stamp = ?, mtime_ns = ? WHERE parent = ? AND name = ?",
                            (callfs.stamp_of(found), found.st_mtime_ns, *callfs.split_path(path)))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def expected_after(operation: str, template: str, folder: Path) -> tuple[Any, Any]:
    """The whole picture before and after an operation that nothing disturbs."""
    with copied(template, folder) as place, contextlib.closing(Rig(place)) as rig:
        old = picture(rig.tree)
        OPERATIONS[operation](rig.tree)
        return old, picture(rig.tree)


def is_old_or_new(operation: str, seen: Any, old: Any, new: Any) -> bool:
    """Whole either way, but for folders that were made on the way, and for bytes that arrived at the end of a file."""
    if operation.endswith(", parents"):
        seen = {path: value for path, value in seen.items() if value != ("directory", "alice", None) or path in old
                or (path in new and seen == new)}
    if operation == "append" and seen.keys() == old.keys():
        data, owner = seen["/d/f"][2], seen["/d/f"][1]
        if data.startswith(BASE["/d/f"]) and (BASE["/d/f"] + NEW).startswith(data) and owner == "alice":
            seen = {**seen, "/d/f": old["/d/f"]}
    return seen in (old, new)


def explained(operation: str, findings: list[tuple[str, str]]) -> bool:
    """fsck has nothing to say, but for a file to which bytes were appended before the failure."""
    return findings == [] or (operation == "append" and findings == [("changed", "/d/f")])


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO, errno.EINTR, "short"],
                         ids=["ENOSPC", "EIO", "EINTR", "short"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_nth_call_fails(quick: Path, template: str, operation: str, fault: Any,
                            monkeypatch: pytest.MonkeyPatch) -> None:
    """For N = 1, 2, ... until the operation passes: old or new whole with the right owner, an error where it did not
    work, no descriptor and no file left, the next operations work, records and files agree."""
    old, new = expected_after(operation, template, quick)
    for number in itertools.count(1):
        descriptors = open_descriptors()
        with copied(template, quick) as place, contextlib.closing(Rig(place)) as rig:
            for path in BASE:
                rig.tree.stat(ALICE, path)
            faulty, failed = failing(number, fault), None
            with monkeypatch.context() as patched:
                patched.setattr(callfs, "os", faulty)
                try:
                    OPERATIONS[operation](rig.tree)
                except callfs.CallFSError as error:
                    failed = error
            place_of = f"{operation}, call {number} {fault}: {failed!r}"
            seen = picture(rig.tree)
            assert is_old_or_new(operation, seen, old, new), (place_of, seen)
            assert failed or seen == new, place_of
            assert not [name for name in scratch(place) if name.startswith("tmp/")], place_of
            rig.disk.sweep()                # what could not be emptied from the trash
            assert not rig.locks._paths and not rig.locks._subtrees, place_of
            assert not rig.fs._owed and not rig.fs._fresh and not rig.fs._intents._open, place_of
            assert explained(operation, rig.findings()), place_of
            put(rig.tree, "/z", b"next")
            assert fetch(rig.tree, "/z") == b"next"
        assert open_descriptors() == descriptors, place_of
        if faulty.calls < number:
            break
    assert number > (1 if fault == "short" else 4)


class FailingStore:
    """A metadata store whose next writes of one kind fail: before they are done, or after (a lost answer)."""

    def __init__(self, store: Any, method: str, when: str, times: int = 1) -> None:
        self._store, self._method, self._when, self.times = store, method, when, times

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name != self._method:
            return real

        def fail(*arguments: Any) -> Any:
            if not self.times:
                return real(*arguments)
            self.times -= 1
            if self._when == "after":
                real(*arguments)
            raise callfs.Unavailable("injected")
        return fail


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["put", "move", "delete"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_metadata_commit_fails(quick: Path, template: str, operation: str, method: str, when: str) -> None:
    """The request fails; whoever looks next finds the old or the new state with the right owner (before: what was new
    became root's), and so does a server that was killed before anybody looked."""
    old, new = expected_after(operation, template, quick)
    for killed in (False, True):
        for skip in range(3):               # the first, second, third such commit of the operation
            with copied(template, quick) as place, contextlib.closing(Rig(place)) as rig:
                broken = FailingStore(rig.store, method, when)
                real, calls = getattr(rig.store, method), itertools.count()
                rig.fs._store = FailingStore(rig.store, "", "")
                setattr(rig.fs._store, method, lambda *arguments: getattr(broken, method)(*arguments)
                        if next(calls) == skip else real(*arguments))
                failed = None
                try:
                    OPERATIONS[operation](rig.tree)
                except callfs.Unavailable as error:
                    failed = error
                if killed:
                    rig.close()
                    rig = Rig(place)
                rig.fs._store = rig.store
                seen = picture(rig.tree)
                assert is_old_or_new(operation, seen, old, new), (skip, killed, seen)
                assert failed or seen == new
                assert not rig.fs._owed and explained(operation, rig.findings())
                if killed:
                    rig.close()


def test_the_store_is_away_for_long(rig: Rig) -> None:
    """Reads go on as far as they can, and when it is back everything has its owner."""
    put(rig.tree, "/d/f", b"1")
    real = rig.store._write
    rig.store._write = raising(callfs.Unavailable("away"))
    for attempt in (lambda: put(rig.tree, "/d/f", b"2"), lambda: put(rig.tree, "/d/new", b"3"),
                    lambda: rig.tree.mkdir(ALICE, "/dir"),
                    lambda: rig.tree.move(ALICE, "/d/f", "/d/g")):
        with pytest.raises(callfs.Unavailable):
            attempt()
    assert fetch(rig.tree, "/d/new", BOB) == b"3" and rig.tree.stat(BOB, "/d/new").owner == "alice" and rig.fs._owed
    with pytest.raises(callfs.Unavailable):
        rig.tree.move(ALICE, "/d/new", "/moved")        # a move of what was never recorded
    with pytest.raises(callfs.PermissionDenied):
        put(rig.tree, "/moved", who=BOB)
    rig.store._write = real
    assert picture(rig.tree) == {"/d": ("directory", "alice", None), "/d/g": ("file", "alice", b"2"),
                                 "/dir": ("directory", "alice", None),
                                 "/moved": ("file", "alice", b"3")}
    assert not rig.fs._owed and not rig.fs._intents._open and rig.findings() == []


# ---- the order of calls ------------------------------------------------------------------------------------------

class Recorder:
    """Names of what is done, in order: fsync of files and folders, renames, commits."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        commit = rig.store._commit

        def committed(jobs: Any) -> None:
            commit(jobs)
            self.events.append("commit")

        monkeypatch.setattr(rig.store, "_commit", committed)
        monkeypatch.setattr(callfs, "os", FaultyOS(lambda name, number, call: call()))
        for name in ("fsync", "replace", "mkdir", "unlink", "rmdir"):
            monkeypatch.setattr(callfs.os, name, self.wrap(name), raising=False)

    def wrap(self, name: str) -> Callable[..., Any]:
        """Do it, then write it down."""
        real = getattr(os, name)

        def recorded(*arguments: Any, **options: Any) -> Any:
            kind = name
            if name == "fsync":
                kind = "fsync folder" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else "fsync file"
            found = real(*arguments, **options)
            self.events.append(kind)
            return found
        return recorded


ORDERS = {
    "write new": ["fsync file", "replace", "commit", "fsync folder"],
    "overwrite": ["fsync file", "replace", "commit", "fsync folder"],
    "patch": ["fsync file", "replace", "commit", "fsync folder"], "append": ["fsync file", "commit"],
    "write new, parents": ["fsync file", "mkdir", "commit", "fsync folder", "mkdir", "commit", "fsync folder",
                           "replace", "commit", "fsync folder"],
    "mkdir": ["mkdir", "commit", "fsync folder"], "remove file": ["unlink", "commit", "fsync folder"],
    "remove folder": ["rmdir", "commit", "fsync folder"],
    "move file": ["replace", "commit", "fsync folder", "fsync folder"],
    "move over": ["replace", "commit", "fsync folder"],
    "move folder": ["replace", "commit", "fsync folder"],
}


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("operation", ORDERS)
def test_order_of_calls(quick: Path, template: str, operation: str, durable: bool,
                        monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync of the file, rename, commit (itself an fsync), fsync of the folder, and only then the answer; `relaxed`
    has the same order without any fsync."""
    with copied(template, quick) as place, contextlib.closing(Rig(place, durable=durable)) as rig:
        list(rig.tree.walk(ALICE, "/", 9))
        with monkeypatch.context() as patched:
            recorder = Recorder(rig, patched)
            OPERATIONS[operation](rig.tree)
            events = list(recorder.events)
        assert events == [event for event in ORDERS[operation] if durable or "fsync" not in event]
        assert rig.store._writer.execute("PRAGMA synchronous").fetchone()[0] == (2 if durable else 1)


@pytest.mark.parametrize("which", range(1, 5))
@pytest.mark.parametrize("operation", ["write new", "overwrite", "append", "patch", "mkdir", "move file", "remove file",
                                       "write new, parents"])
def test_an_fsync_fails_once(quick: Path, template: str, operation: str, which: int,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    """The request fails and is not tried again as if nothing had happened."""
    old, new = expected_after(operation, template, quick)
    with copied(template, quick) as place, contextlib.closing(Rig(place)) as rig:
        seen = itertools.count(1)

        def act(name: str, number: int, call: Callable[[], Any]) -> Any:
            if name == "fsync" and next(seen) == which:
                raise OSError(errno.EIO, "lost")
            return call()

        with monkeypatch.context() as patched:
            patched.setattr(callfs, "os", FaultyOS(act))
            if which > sum("fsync" in event for event in ORDERS[operation]):
                OPERATIONS[operation](rig.tree)
            else:
                with pytest.raises(callfs.StorageError):
                    OPERATIONS[operation](rig.tree)
                assert next(seen) == which + 1
        assert is_old_or_new(operation, picture(rig.tree), old, new)
        assert scratch(place) == [] and explained(operation, rig.findings())


# ---- the process dies --------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def crash(place: str, operation: str, number: int, after: bool) -> bool:
    """Run an operation in a child that dies before (or after) its N-th call or commit; whether it died there."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert os.WEXITSTATUS(status) in (0, 9), f"the child ended with {status}"
        return os.WEXITSTATUS(status) == 9
    code = 7
    try:
        rig = Rig(place, durable=False)
        for path in BASE:
            rig.tree.stat(ALICE, path)

        def act(name: str, current: int, call: Callable[[], Any]) -> Any:
            if current == number and not after:
                os._exit(9)
            if current == number and isinstance(call, ShortWrite):
                call(max(1, len(call.data) // 2))       # torn in the middle
                os._exit(9)
            try:
                return call()
            finally:
                if current == number:
                    os._exit(9)

        faulty = callfs.os = FaultyOS(act)
        commit = rig.store._commit

        def committed(jobs: Any) -> None:
            faulty.calls += 1
            act("commit", faulty.calls, lambda: commit(jobs))

        rig.store._commit = committed
        OPERATIONS[operation](rig.tree)
        code = 0
    finally:
        os._exit(code)


@needs_fork
@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_crash_at_every_step(quick: Path, template: str, operation: str, after: bool) -> None:
    """Killed at its N-th call, for every N; after the restart: old or new whole with the right owner, nothing left."""
    old, new = expected_after(operation, template, quick)
    died = True
    for number in itertools.count(1):
        with copied(template, quick) as place:
            died = crash(place, operation, number, after)
            with contextlib.closing(Rig(place, durable=False)) as rig:
                rig.disk.sweep()
                seen = picture(rig.tree)
                where = f"{operation}, {'after' if after else 'before'} call {number}"
                assert is_old_or_new(operation, seen, old, new) and (died or seen == new), (where, seen)
                assert scratch(place) == [] and explained(operation, rig.findings()), where
                assert rig.fs.recover() == 0
        if not died:
            break
    assert number > 4


WRITER = textwrap.dedent('''
    import json, os, random, sys, threading
    sys.path.insert(0, sys.argv[1])
    import callfs
    root, log_path, seed, round_number = sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
    disk = callfs.LocalDisk(root)
    disk.sweep()
    store = callfs.SQLiteStore(os.path.join(disk.hidden, "records.sqlite3"))
    tree = callfs.Tree(callfs.StoreFS(disk, store, callfs.LocalLocks(60)))
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(*words):
        os.write(log, (json.dumps(words) + "\\n").encode())

    def data_of(text, size):
        return (text.encode() * (size // len(text) + 1))[:size]

    def work(number):
        who, some = callfs.Principal(f"user{number}"), random.Random(f"{seed} {round_number} {number}")
        top, files = f"/r{round_number}/t{number}", []
        verbs = ["write", "write", "write", "replace", "append", "move", "delete", "rename-folder"]
        for turn in range(100_000):
            verb = some.choice(verbs) if files else "write"
            path, text, size = f"{top}/d{turn % 3}/f{turn}", f"{number}-{turn};", some.choice([0, 10, 5000, 300_000])
            if verb == "write":
                step = [verb, path, text, size]
            elif verb in ("replace", "append"):
                step = [verb, some.choice(files), text, size]
            elif verb == "delete":
                step = [verb, some.choice(files)]
            elif verb == "move":
                step = [verb, some.choice(files), path]
            else:
                step = [verb, os.path.dirname(some.choice(files)), f"{top}/renamed{turn}"]
            say(number, turn, "begin", step)
            if step[0] in ("write", "replace"):
                tree.write(who, step[1], callfs.bytes_body(data_of(text, size)))
            elif verb == "append":
                tree.patch(who, step[1], callfs.bytes_body(data_of(text, size)), tree.stat(who, step[1]).size)
            elif verb == "delete":
                tree.remove(who, step[1])
            else:
                tree.move(who, step[1], step[2], parents=True)
            say(number, turn, "done", step)
            if verb == "write":
                files.append(path)
            elif verb in ("delete", "move"):
                files.remove(step[1])
                files += step[2:]
            elif verb == "rename-folder":
                files = [step[2] + one[len(step[1]):] if one.startswith(step[1] + "/") else one for one in files]

    for number in range(int(sys.argv[6])):
        threading.Thread(target=work, args=(number,)).start()
''')


def apply_step(files: dict[str, bytes], step: list[Any]) -> dict[str, bytes]:
    """What the files of a writer are after one of its steps."""
    files, (verb, path, *more) = dict(files), step
    if verb in ("write", "replace", "append"):
        text, size = more
        data = (text.encode() * (size // len(text) + 1))[:size]
        files[path] = files.get(path, b"") + data if verb == "append" else data
    elif verb == "delete":
        del files[path]
    else:
        files = {more[0] + one[len(path):] if callfs.is_below(one, path) else one: data for one, data in files.items()}
    return files


class KillLoop:
    """Rounds of a process that writes and is killed; what it had acknowledged, and what it was at."""

    def __init__(self, folder: Path, seed: int, threads: int = 4) -> None:
        self.folder, self.seed, self.threads, self.random = folder, seed, threads, random.Random(seed)
        self.before: dict[tuple[int, int], dict[str, bytes]] = {}           # (round, thread): its files
        self.torn: set[tuple[str, str]] = set()                             # what fsck may say: appends that were cut
        self.steps = 0

    def round(self, number: int) -> None:
        """Start it, kill it at a random moment, read what it had said."""
        log = self.folder / f"log{number}"
        process = subprocess.Popen([sys.executable, "-c", WRITER, os.path.dirname(compiled()), str(self.folder / "root"), str(log),
                                    str(self.seed), str(number), str(self.threads)],
                                   stderr=open(self.folder / "errors", "ab"))
        try:
            wanted = self.random.randrange(1, 40_000)
            wait_for(lambda: (log.exists() and log.stat().st_size > wanted) or process.poll() is not None, 60,
                     "the writers")
        finally:
            process.kill()
            process.wait()
        errors = (self.folder / "errors").read_text()
        assert not errors, errors
        whole = log.read_bytes().rpartition(b"\n")[0]   # the last line may be torn
        self.check(number, [json.loads(line) for line in whole.splitlines()])

    def check(self, number: int, lines: list[Any]) -> None:
        """Each writer's files are those after its last acknowledged step or after the one it was at."""
        with contextlib.closing(Rig(self.folder / "root", durable=False)) as rig:
            rig.disk.sweep()
            for thread in range(self.threads):
                files: dict[str, bytes] = {}
                begun = None
                for who, _, phase, step in lines:
                    if who == thread:
                        begun = step if phase == "begin" else None
                        files = apply_step(files, step) if phase == "done" else files
                        self.steps += phase == "done"
                possible = [files] + ([apply_step(files, begun)] if begun else [])
                top = f"/r{number}/t{thread}"
                seen = {path: value for path, value in picture(rig.tree, "/").items() if callfs.is_below(path, top)}
                found = {path: data for path, (kind, _, data) in seen.items() if kind == "file"}
                where = f"seed {self.seed}, round {number}, thread {thread}, at {begun}"
                assert self.fits(found, possible, begun), (where, {path: len(data) for path, data in found.items()})
                assert all(owner == f"user{thread}" for path, (_, owner, _) in seen.items()), (where, seen.keys())
                self.before[number, thread] = found
                self.torn |= {("changed", begun[1])} if begun and begun[0] == "append" else set()
            if number % 10 == 0:
                assert set(rig.findings()) <= self.torn

    @staticmethod
    def fits(found: dict[str, bytes], possible: list[dict[str, bytes]], begun: Any) -> bool:
        """Whether it is one of them; an append that was not acknowledged may have arrived in part."""
        if found in possible:
            return True
        if not begun or begun[0] != "append" or found.keys() != possible[0].keys():
            return False
        old, new = (files[begun[1]] for files in possible)
        data = found[begun[1]]
        return data.startswith(old) and new.startswith(data) and {**found, begun[1]: old} == possible[0]

    def check_all_again(self) -> None:
        """Nothing of the earlier rounds has suffered."""
        with contextlib.closing(Rig(self.folder / "root", durable=False)) as rig:
            now = picture(rig.tree)
            for (number, thread), files in self.before.items():
                assert {path: now[path][2] for path in files} == files
            assert set(rig.findings()) <= self.torn and scratch(rig.root) == []


def kill_loop(folder: Path, rounds: int) -> None:
    """The loop, with its seed printed."""
    seed = int(os.environ.get("CALLFS_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CALLFS_TEST_SEED={seed}")
    loop = KillLoop(folder, seed)
    for number in range(rounds):
        loop.round(number)
        if number % 20 == 19:               # the disk is not for keeping hundreds of rounds
            loop.check_all_again()
            loop.before.clear()
            shutil.rmtree(folder / "root")
    if loop.before:
        loop.check_all_again()
    assert loop.steps > rounds


def test_kill_loop(tmp_path: Path) -> None:
    """SIGKILL at random moments: whatever was acknowledged is there, byte for byte, with its owner."""
    kill_loop(tmp_path, 6)


@pytest.mark.long
def test_kill_loop_long(tmp_path: Path) -> None:
    """Hundreds of rounds."""
    kill_loop(tmp_path, 200)


class TestRecovery:
    """What a noted step means after a crash, in odd company."""

    def recovered(self, rig: Rig, *steps: dict[str, Any]) -> int:
        for step in steps:
            rig.fs._intents.note(step)
        return rig.fs.recover()

    def test_a_finished_move_is_not_done_again(self, rig: Rig) -> None:
        """Moved away, made again by somebody else, and that removed when the crash came (before: the moved file got the
        other one's owner)."""
        put(rig.tree, "/a", b"alices")
        entry = rig.tree.stat(ALICE, "/a")
        step = {"op": "move", "source": "/a", "entry": entry._replace(path="/b"), "inode": rig.disk.stat("/a").st_ino}
        rig.tree.move(ALICE, "/a", "/b")
        put(rig.tree, "/a", b"bobs", BOB)
        os.unlink(rig.path("/a"))
        assert self.recovered(rig, step, {"op": "drop", "path": "/a"}) == 1
        assert picture(rig.tree) == {"/b": ("file", "alice", b"alices")} and rig.findings() == []

    def test_a_finished_move_of_a_folder_is_not_done_again(self, rig: Rig) -> None:
        """The same with folders, where the records below would go, too."""
        put(rig.tree, "/a/f", b"alices")
        entry = rig.tree.stat(ALICE, "/a")
        step = {"op": "move", "source": "/a", "entry": entry._replace(path="/b"), "inode": rig.disk.stat("/a").st_ino}
        rig.tree.move(ALICE, "/a", "/b")
        rig.tree.mkdir(BOB, "/a")
        rig.path("/a").rmdir()
        assert self.recovered(rig, step) == 0
        assert picture(rig.tree) == {"/b": ("directory", "alice", None),
                                     "/b/f": ("file", "alice", b"alices")} and rig.findings() == []

    def test_a_folder_that_was_taken_away_is_not_given_back(self, rig: Rig) -> None:
        """One of that name that somebody put there from outside is root's."""
        rig.tree.mkdir(ALICE, "/d")
        step = {"op": "mkdir", "entry": rig.store.get("/d")}
        rig.tree.remove(ALICE, "/d")
        rig.path("/d").mkdir()
        assert self.recovered(rig, step, {"op": "drop", "path": "/d"}) == 0
        assert picture(rig.tree) == {"/d": ("directory", "root", None)}

    def test_what_has_become_a_link_is_left_alone(self, rig: Rig) -> None:
        """A folder in the middle of a noted path was exchanged (before: the server did not start)."""
        put(rig.tree, "/d/f")
        entry = rig.store.get("/d/f")
        shutil.rmtree(rig.path("/d"))
        os.symlink("/etc", rig.path("/d"))
        assert self.recovered(rig, {"op": "put", "entry": entry}, {"op": "drop", "path": "/d/f"},
                              {"op": "move", "source": "/d/x", "entry": entry._replace(path="/d/y"), "inode": 1}) == 0
        os.unlink(rig.path("/d"))


class TestRot:
    """One bit turned, in files and in the records."""

    @pytest.mark.parametrize("size", [1, 1000, 300_000])
    def test_a_flipped_bit_in_a_file(self, rig: Rig, size: int) -> None:
        """Found by a deep check, which names it and nothing else."""
        some = random.Random(size)
        for name in ("a", "b", "c"):
            put(rig.tree, "/d/" + name, os.urandom(size))
        found = os.stat(rig.path("/d/b"))
        data = bytearray(rig.path("/d/b").read_bytes())
        data[some.randrange(size)] ^= 1 << some.randrange(8)
        rig.path("/d/b").write_bytes(data)
        os.utime(rig.path("/d/b"), ns=(found.st_atime_ns, found.st_mtime_ns))
        assert rig.findings(deep=False) == [] and rig.findings() == [("corrupt", "/d/b")]

    def test_flipped_bits_in_the_records(self, tmp_path: Path) -> None:
        """In the structure of the database: an error, or the right answer, never a crash of the process or a hang."""
        path = tmp_path / "records.sqlite3"
        store = callfs.SQLiteStore(str(path), durable=False)
        right = {one: store.put(an_entry(one)) for one in (f"/d/{number}" for number in range(300))}
        store.close()
        data = path.read_bytes()
        for seed in range(40):
            some, broken = random.Random(seed), bytearray(data)
            page = some.randrange(len(data) // 4096)
            broken[page * 4096 + some.randrange(12)] ^= 1 << some.randrange(8)     # the header of a page
            path.write_bytes(bytes(broken))
            for leftover in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(str(path) + leftover)
            try:
                with contextlib.closing(callfs.SQLiteStore(str(path), durable=False)) as store:
                    for one, entry in right.items():
                        assert store.get(one) in (entry, None), seed
                    store.page("/d")
            except callfs.CallFSError as error:
                assert error.status >= 400 and str(tmp_path) not in error.message


class TestHotFiles:
    """Small files in memory: whatever happens to the file or its record, nobody gets old bytes."""

    @pytest.fixture
    def hot(self, tmp_path: Path) -> Iterator[Rig]:
        """A store that keeps files in memory, with a file at rest in it: /f, twice read."""
        with contextlib.closing(Rig(tmp_path / "root", hot_bytes=1 << 20)) as rig:
            self.at_rest(rig, "/f", b"first")
            yield rig

    @pytest.fixture(autouse=True)
    def rest_comes_sooner(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where these tests run, a clock's tick is 10 ms at most; two seconds are for FAT."""
        monkeypatch.setattr(callfs, "AT_REST", 0.3)

    @staticmethod
    def at_rest(rig: Rig, path: str, data: bytes) -> None:
        """Write a file, wait until its times are older than any clock's tick, and let it be kept."""
        put(rig.tree, path, data)
        changed = os.stat(rig.path(path)).st_ctime
        wait_for(lambda: time.time() - changed > callfs.AT_REST, 10, "the file to be at rest")
        assert fetch(rig.tree, path) == data
        with contextlib.closing(rig.tree.open(ALICE, path)) as handle:
            assert handle.data == data, "not kept in memory"

    def fresh(self, rig: Rig, path: str) -> tuple[bytes, callfs.Entry]:
        """What a reader gets, and what the entry says; they agree."""
        with contextlib.closing(rig.tree.open(ALICE, path)) as handle:
            with handle.reader() as reader:
                data = b"".join(reader)
            assert handle.entry.size == len(data)
            return data, handle.entry

    def test_ranges_of_it(self, hot: Rig) -> None:
        handle = hot.tree.open(ALICE, "/f")
        assert [handle.reader(*part).read() for part in ((0, 2), (2, None), (5, 5))] == [b"fi", b"rst", b""]

    @pytest.mark.parametrize("change", ["same size in place", "same size and times", "longer", "other file in its place"])
    def test_changed_from_outside(self, hot: Rig, change: str) -> None:
        path, before = hot.path("/f"), os.stat(hot.path("/f"))
        data = b"longer than before" if change == "longer" else b"FIRST"
        if change.startswith("other"):
            hot.path("/g").write_bytes(data)
            os.replace(hot.path("/g"), path)
        else:
            path.write_bytes(data)
        if change == "same size and times":             # the inode's change time can not be set back
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert self.fresh(hot, "/f")[0] == data

    def test_changed_by_us(self, hot: Rig) -> None:
        tag = self.fresh(hot, "/f")[1].etag
        put(hot.tree, "/f", b"again")
        assert self.fresh(hot, "/f")[0] == b"again" and self.fresh(hot, "/f")[1].etag != tag
        hot.tree.patch(ALICE, "/f", callfs.bytes_body(b"!"), 5)
        assert self.fresh(hot, "/f")[0] == b"again!"

    def test_moved_and_removed(self, hot: Rig) -> None:
        hot.tree.move(ALICE, "/f", "/g")
        with pytest.raises(callfs.FileNotFound):
            hot.tree.open(ALICE, "/f")
        assert self.fresh(hot, "/g")[0] == b"first"
        hot.path("/g").unlink()
        with pytest.raises(callfs.FileNotFound):
            hot.tree.open(ALICE, "/g")

    def test_a_new_owner_is_seen(self, hot: Rig) -> None:
        hot.store.put(hot.store.get("/f")._replace(owner="bob"))
        assert self.fresh(hot, "/f")[1].owner == "bob"

    def test_a_link_in_its_place(self, hot: Rig, tmp_path: Path) -> None:
        """CVE-2026-54094 again: a path that now leads outside is not there, though its bytes were in memory."""
        (tmp_path / "secret").write_bytes(b"first")
        hot.path("/f").unlink()
        hot.path("/f").symlink_to(tmp_path / "secret")
        with pytest.raises(callfs.FileNotFound):
            hot.tree.open(ALICE, "/f")

    def test_young_and_large_ones_are_not_kept(self, hot: Rig) -> None:
        put(hot.tree, "/young", b"young")
        put(hot.tree, "/large", b"x" * (callfs.HOT_FILE + 1))
        os.utime(hot.path("/large"), (1, 1))
        for path in ("/young", "/large"):
            for _ in range(2):
                handle = hot.tree.open(ALICE, path)
                handle.close()
                assert handle.data is None

    def test_bounded(self) -> None:
        cache: callfs.Cache[int, bytes] = callfs.Cache(1000)
        for number in range(10_000):
            cache.put(number, b"x" * 100, 100)
        kept = [number for number in range(10_000) if cache.get(number)]
        assert len(kept) <= 20 and kept[-1] == 9999
        cache.put(0, b"too large for it", 1001)
        assert cache.get(0) is None


def test_an_administrator_stands_in_for_root(rig: Rig) -> None:
    """What came from outside is root's, and no key is: without this nobody could replace it. Bob's stays Bob's."""
    boss = callfs.Principal("boss", admin=True)
    rig.path("/outside").write_bytes(b"theirs")
    put(rig.tree, "/bobs", who=BOB)
    with pytest.raises(callfs.PermissionDenied):
        put(rig.tree, "/outside", b"new")
    assert put(rig.tree, "/outside", b"new", who=boss).entry.owner == "root"
    rig.tree.remove(boss, "/outside")
    with pytest.raises(callfs.PermissionDenied):
        put(rig.tree, "/bobs", who=boss)


def test_records_do_not_take_another_folder_for_theirs(tmp_path: Path) -> None:
    """A disk that is not mounted: its empty mount point must not cost the records; fsck accepts a restored folder."""
    records, root = tmp_path / "records", tmp_path / "root"
    with contextlib.closing(Rig(root, records=records)) as rig:
        put(rig.tree, "/f", b"alice's")
    root.rename(tmp_path / "unmounted")
    with pytest.raises(callfs.ConfigError, match="mounted"):
        Rig(root, records=records)
    shutil.rmtree(root)
    (tmp_path / "unmounted").rename(root)
    with contextlib.closing(Rig(root, records=records)) as rig:
        assert rig.tree.stat(ALICE, "/f").owner == "alice"
    shutil.rmtree(root / callfs.HIDDEN)                 # restored without its hidden folder
    with pytest.raises(callfs.ConfigError, match="fsck"):
        Rig(root, records=records)
    with contextlib.closing(Rig(root, records=records, claim=True)) as rig:
        assert rig.tree.stat(ALICE, "/f").owner == "alice"
    with contextlib.closing(Rig(root, records=tmp_path / "new records")) as rig:        # empty ones may take any folder
        assert rig.tree.stat(ALICE, "/f").owner == "root"


def test_the_scratch_folder_is_tidied_away(rig: Rig) -> None:
    """By somebody who does not know it: the next upload makes it anew."""
    shutil.rmtree(os.path.join(rig.root, callfs.HIDDEN, "tmp"))
    assert put(rig.tree, "/f", b"one").created and fetch(rig.tree, "/f") == b"one"
    assert put(rig.tree, "/f", b"two") and fetch(rig.tree, "/f") == b"two"


def test_nobody_else_reads_the_records(rig: Rig) -> None:
    put(rig.tree, "/f")
    for name in os.listdir(os.path.join(rig.root, callfs.HIDDEN)):
        if name.startswith("records.sqlite3"):
            assert os.stat(os.path.join(rig.root, callfs.HIDDEN, name)).st_mode & 0o077 == 0, name


# ---- mounts -----------------------------------------------------------------------------------------------------

class MountedRig(Rig):
    """A store with other filesystems mounted in it: stores again, so that everything can be done everywhere."""

    def __init__(self, root: Any, *mounts: str, **more: Any) -> None:
        super().__init__(os.path.join(root, "store"), durable=False, **more)
        self.others = {}
        for number, mount in enumerate(mounts):
            other = Rig(os.path.join(root, f"other-{number}"), durable=False)
            self.others[mount] = other.fs
            self.tree.mount(mount, other.fs)


def shown(tree: Any, path: str = "/", after: str = "") -> list[str]:
    """Paths of a listing."""
    return [entry.path for entry in tree.list(ALICE, path, after)]


class TestMountTable:
    """One tree, many filesystems (pfs.md, "The tree")."""

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[MountedRig]:
        with contextlib.closing(MountedRig(tmp_path, "/m", "/deep/er/est", "/m/inner")) as rig:
            yield rig

    def test_the_longest_mount_wins(self, rig: MountedRig) -> None:
        """Each path reaches its own filesystem, and only that; entries carry the path that users see."""
        for path in ("/f", "/m/f", "/m/inner/f", "/deep/er/est/d/f", "/mm", "/deep/f"):
            assert put(rig.tree, path, path.encode()).entry.path == path
            assert rig.tree.stat(ALICE, path).path == path and fetch(rig.tree, path) == path.encode()
        assert [entry.path for entry in rig.others["/m"].list("/")] == ["/f"]
        assert [entry.path for entry in rig.others["/m/inner"].list("/")] == ["/f"]
        assert [entry.path for entry in rig.others["/deep/er/est"].list("/d")] == ["/d/f"]
        assert sorted(entry.path for entry in rig.fs.list("/")) == ["/deep", "/f", "/mm"]

    def test_parents_and_listings(self, rig: MountedRig) -> None:
        """Parents of a mount are directories, whether or not a filesystem has them; a mount shows in its parent."""
        assert shown(rig.tree) == ["/deep", "/m"] and shown(rig.tree, "/deep") == ["/deep/er"]
        assert shown(rig.tree, "/deep/er") == ["/deep/er/est"] and shown(rig.tree, "/m") == ["/m/inner"]
        for path in ("/deep", "/deep/er", "/deep/er/est", "/m"):
            assert rig.tree.stat(ALICE, path).is_dir
            with contextlib.closing(rig.tree.open(ALICE, path)) as handle:
                assert handle.entry.is_dir and handle.entry.path == path
            assert not rig.tree.mkdir(ALICE, path).created
            with pytest.raises(callfs.BadRequest):
                put(rig.tree, path)
        put(rig.tree, "/deep/a")
        put(rig.tree, "/deep/z")
        assert shown(rig.tree, "/deep") == ["/deep/a", "/deep/er", "/deep/z"]
        assert shown(rig.tree, "/deep", after="a") == ["/deep/er", "/deep/z"]
        assert shown(rig.tree, "/deep", after="er") == ["/deep/z"]
        with pytest.raises(callfs.FileNotFound):
            rig.tree.stat(ALICE, "/deep/none")
        with pytest.raises(callfs.FileNotFound):
            shown(rig.tree, "/deeper")

    def test_a_mount_covers_what_was_there(self, rig: MountedRig, tmp_path: Path) -> None:
        """And gives it back when it goes."""
        put(rig.tree, "/cover/old", b"old")
        other = Rig(tmp_path / "late", durable=False)
        rig.tree.mount("/cover", other.fs)
        with pytest.raises(callfs.FileNotFound):
            rig.tree.stat(ALICE, "/cover/old")
        assert shown(rig.tree, "/cover") == [] and shown(rig.tree).count("/cover") == 1
        put(rig.tree, "/cover/new", b"new")
        rig.tree.unmount("/cover").close()
        assert shown(rig.tree, "/cover") == ["/cover/old"] and fetch(rig.tree, "/cover/old") == b"old"

    @pytest.mark.parametrize("path, error", [("/", callfs.Conflict), ("/m", callfs.Conflict), ("/file/below", callfs.Conflict)])
    def test_what_can_not_be_mounted(self, rig: MountedRig, path: str, error: Any) -> None:
        put(rig.tree, "/file")
        with pytest.raises(error):
            rig.tree.mount(path, DictFS({}))
        assert shown(rig.tree) == ["/deep", "/file", "/m"]

    def test_unmount_refuses_while_another_is_inside(self, rig: MountedRig) -> None:
        with pytest.raises(callfs.Conflict, match="/m/inner"):
            rig.tree.unmount("/m")
        for path in ("/none", "/", "/deep", "/m/x"):
            with pytest.raises(callfs.FileNotFound):
                rig.tree.unmount(path)
        for path in ("/m/inner", "/m"):
            rig.tree.unmount(path).close()
        assert shown(rig.tree) == ["/deep"]

    @pytest.mark.parametrize("path", ["/m", "/deep", "/deep/er", "/m/inner"])
    def test_mounts_are_not_removed_or_moved(self, rig: MountedRig, path: str) -> None:
        """Neither they nor what holds them; nothing is lost."""
        put(rig.tree, "/m/inner/f")
        put(rig.tree, "/file")
        for change in (lambda: rig.tree.remove(callfs.ROOT, path, recursive=True),
                       lambda: rig.tree.move(callfs.ROOT, path, "/elsewhere"),
                       lambda: rig.tree.move(callfs.ROOT, "/file", path, overwrite=True)):
            with pytest.raises(callfs.Conflict):
                change()
        assert fetch(rig.tree, "/m/inner/f") == b"data" and fetch(rig.tree, "/file") == b"data"

    def test_dots_never_leave_a_mount(self) -> None:
        """They are gone, or refused, before a path gets to the tree."""
        with pytest.raises(callfs.BadRequest):
            callfs.canonical_path("/m/../../f")

    @pytest.mark.parametrize("seed", range(6))
    def test_walk_across_mounts(self, tmp_path: Path, seed: int) -> None:
        """In the order of the paths, with every cut, as if all were one filesystem."""
        some, paths = random.Random(seed), random_paths(seed)
        folders = [path for path, folder in paths.items() if folder]
        mounts = sorted(some.sample(folders, min(len(folders), 4)))
        expected = dict(paths)
        with contextlib.closing(MountedRig(tmp_path, *mounts)) as rig:
            for path, folder in paths.items():
                rig.tree.mkdir(ALICE, path) if folder else put(rig.tree, path)
            assert [entry.path for entry in rig.tree.walk(ALICE, "/", 100)] == sorted(expected)
            for cut in [*paths, *(path + "!" for path in paths)]:
                assert [entry.path for entry in rig.tree.walk(ALICE, "/", 100, cut)] == \
                    sorted(path for path in expected if path > cut)

    def test_two_hundred_mounts_cost_nothing(self) -> None:
        """A look-up does as many steps with 200 mounts as with one."""
        def steps(count: int) -> int:
            tree, seen = callfs.Tree(DictFS({})), []       # type: Any, list[int]
            for number in range(count):
                tree.mount(f"/a{number}/b", DictFS({"/f": False}))
            sys.setprofile(lambda frame, event, arg: seen.append(1))
            try:
                tree.stat(ALICE, "/a0/b/f")
            finally:
                sys.setprofile(None)
            return len(seen)
        assert steps(200) == steps(1)

    def test_mounting_beside_requests(self, rig: MountedRig, tmp_path: Path) -> None:
        """Whoever is reading or listing while mounts come and go gets one answer or the other."""
        put(rig.tree, "/cover/f", b"below")
        other = Rig(tmp_path / "late", durable=False)
        put(callfs.Tree(other.fs), "/f", b"above")
        stop, wrong = threading.Event(), []        # type: Any, list[Any]

        def look() -> None:
            while not stop.is_set():
                try:
                    if fetch(rig.tree, "/cover/f") not in (b"below", b"above") or "/cover" not in shown(rig.tree):
                        wrong.append("other bytes")
                except Exception as error:          # noqa: BLE001
                    wrong.append(error)
        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(200):
            rig.tree.mount("/cover", other.fs)
            rig.tree.unmount("/cover")
        stop.set()
        for thread in threads:
            thread.join()
        other.close()
        assert not wrong

    def test_copying_and_moving_between_filesystems(self, rig: MountedRig) -> None:
        """Files and folders, with their modes; a move keeps times too, and leaves nothing behind."""
        put(rig.tree, "/s/f", b"1", options=callfs.WriteOptions(mode=0o600, mtime_ns=10**18))
        put(rig.tree, "/s/d/g", b"22")
        told: list[Any] = []
        done = rig.tree.copy(ALICE, "/s", "/m/t", recursive=True, progress=told.append)
        assert done == callfs.Copied(2, 1, 3, 0) and told[-1].files == 2
        assert fetch(rig.tree, "/m/t/d/g") == b"22" and rig.tree.stat(ALICE, "/m/t/f").mode == 0o600
        moved = rig.tree.move(ALICE, "/s", "/deep/er/est/u")
        assert moved.path == "/deep/er/est/u" and rig.tree.stat(ALICE, "/deep/er/est/u/f").mtime_ns == 10**18
        with pytest.raises(callfs.FileNotFound):
            rig.tree.stat(ALICE, "/s")
        assert rig.tree.move(ALICE, "/m/t/f", "/back").path == "/back" and fetch(rig.tree, "/back") == b"1"

    def test_what_a_move_between_filesystems_refuses(self, rig: MountedRig) -> None:
        """Everything stays where it was."""
        put(rig.tree, "/s/f", b"1")
        put(rig.tree, "/s/of-bob", b"2", who=BOB)
        put(rig.tree, "/m/f", b"3", who=BOB)
        put(rig.tree, "/m/mine", b"4")
        for source, target, more, error in (
                ("/s", "/m/t", {}, callfs.PermissionDenied), ("/s/f", "/m/mine", {}, callfs.FileExists),
                ("/s/f", "/m/f", {"overwrite": True}, callfs.PermissionDenied), ("/s/f", "/m/no/f", {}, callfs.BadRequest),
                ("/s/f", "/m/inner", {"overwrite": True}, callfs.Conflict), ("/none", "/m/x", {}, callfs.FileNotFound)):
            with pytest.raises(error):
                rig.tree.move(ALICE, source, target, **more)
        assert fetch(rig.tree, "/s/f") == b"1" and fetch(rig.tree, "/m/f") == b"3" and fetch(rig.tree, "/m/mine") == b"4"
        assert rig.tree.move(ALICE, "/s/f", "/m/no/f", parents=True).path == "/m/no/f"

    def test_what_a_copy_refuses(self, rig: MountedRig) -> None:
        put(rig.tree, "/s/f", b"1")
        for source, target, more, error in (
                ("/s", "/m/t", {}, callfs.BadRequest), ("/s", "/s/t", {"recursive": True}, callfs.BadRequest),
                ("/s/f", "/m", {}, callfs.BadRequest), ("/none", "/m/x", {}, callfs.FileNotFound),
                ("/s/f", "/s/f", {}, callfs.BadRequest)):
            with pytest.raises(error):
                rig.tree.copy(ALICE, source, target, **more)
        rig.tree.copy(ALICE, "/s/f", "/m/f")
        with pytest.raises(callfs.FileExists):
            rig.tree.copy(ALICE, "/s/f", "/m/f", overwrite=False)

    def test_a_source_that_breaks_off_leaves_everything(self, rig: MountedRig, monkeypatch: pytest.MonkeyPatch) -> None:
        """A move whose source can not be read to its end: nothing is removed, and the target is not there in part."""
        put(rig.tree, "/s", b"x" * 1_000_000)
        read, calls = callfs.FileReader.read, []        # type: Any, list[int]

        def failing(self: Any, size: int = callfs.BLOCK) -> bytes:
            calls.append(1)
            if len(calls) == 3:
                raise callfs.StorageError("broken")
            return read(self, size)
        monkeypatch.setattr(callfs.FileReader, "read", failing)
        with pytest.raises(callfs.StorageError):
            rig.tree.move(ALICE, "/s", "/m/t")
        monkeypatch.undo()
        assert len(fetch(rig.tree, "/s")) == 1_000_000 and shown(rig.tree, "/m") == ["/m/inner"]

    def test_a_digest(self, rig: MountedRig) -> None:
        put(rig.tree, "/m/f", b"abc")
        assert rig.tree.digest(ALICE, "/m/f", "md5") == "900150983cd24fb0d6963f7d28e17f72"
        assert rig.tree.digest(ALICE, "/m/f") == hashlib.sha256(b"abc").hexdigest()
        for path, algorithm in (("/m", "md5"), ("/m/f", "crc")):
            with pytest.raises(callfs.BadRequest):
                rig.tree.digest(ALICE, path, algorithm)


# ============================================================================
# memfs: a tree in memory
# ============================================================================

def a_context(folder: Any = "/nowhere", private: tuple[str, ...] = ()) -> Any:
    """What a filesystem gets from a server, without one."""
    metrics = callfs.Metrics()
    return callfs.MountContext("/", callfs.Tree(DictFS({})), callfs.Log("error"), metrics, str(folder), None, "1.0.0",
                               private)


def make_fs(kind: Any, folder: Any = "/nowhere", private: tuple[str, ...] = (), **options: Any) -> Any:
    """A filesystem with these options, as `Mounts` makes it."""
    return kind(callfs.read_mount_options(kind, options), a_context(folder, private))


def anything(there: Any) -> None:
    """A guard that refuses nothing."""


class TestMemFS(FileSystemContract):
    """Files in memory."""

    def make(self, folder: Path) -> Any:
        return make_fs(callfs.MemFS, max_bytes="16MB")

    def check(self, tree: Any, folder: Path) -> None:
        """Every byte and every name is counted, none twice."""
        memory = tree._root
        everything = [(path, node) for path, node in memory._root.walk("/")]
        assert memory._used == sum(node.record.size for _, node in everything) and memory._count == len(everything)
        for path, node in everything:
            assert sum(map(len, node.blocks)) == node.record.size, path
            assert all(len(block) == callfs.BLOCK for block in node.blocks[:-1])
            assert node._order is None or node._order == sorted(node.children)
        tree.close()
        assert memory._used == memory._count == 0 and list(memory.list("/")) == []

    def test_budget_is_exact(self, tree: Any) -> None:
        """Up to the last byte, by every way to write; refused changes nothing; what goes gives back."""
        memory = make_fs(callfs.MemFS, max_bytes=100, init_dirs=["/home", "tmp/deep"])
        small = callfs.Tree(memory)
        assert [entry.path for entry in small.walk(ALICE, "/", 9)] == ["/home", "/tmp", "/tmp/deep"]
        put(small, "/a", b"x" * 60)
        put(small, "/b", b"x" * 40)
        for change in (lambda: put(small, "/c", b"x"), lambda: put(small, "/a", b"x"),
                       lambda: small.patch(ALICE, "/a", callfs.bytes_body(b"x"), 60),
                       lambda: small.truncate(ALICE, "/a", 61),
                       lambda: small.write(ALICE, "/c", BrokenBody(b"x" * 9, None)),
                       lambda: small.write(ALICE, "/c", BrokenBody(b"", 1, AssertionError("it was read")))):
            with pytest.raises(callfs.StorageFull) as caught:
                change()
            assert caught.value.status == 507 and memory._used == 100
        assert put(small, "/e", b"").created
        small.truncate(ALICE, "/a", 10)
        assert put(small, "/c", b"x" * 50).created and memory._used == 100
        small.remove(ALICE, "/b")
        small.move(ALICE, "/c", "/a", overwrite=True)
        assert memory._used == 50 and fetch(small, "/a") == b"x" * 50

    def test_a_body_counts_while_it_arrives(self, tree: Any) -> None:
        """Two uploads that fit alone do not fit together; the one that breaks off gives its room back."""
        memory = make_fs(callfs.MemFS, max_bytes=1_000_000)

        class Nested(BrokenBody):
            def readinto(self, view: memoryview) -> int:
                count = super().readinto(view)
                if not count:
                    assert memory._used == 600_000
                    with pytest.raises(callfs.StorageFull):
                        memory.write("/g", callfs.bytes_body(bytes(500_000)), "bob", anything, callfs.WriteOptions())
                    assert memory.write("/h", callfs.bytes_body(bytes(400_000)), "b", anything, callfs.WriteOptions()).created
                return count

        with pytest.raises(callfs.Disconnected):
            memory.write("/f", Nested(bytes(600_000), 600_001), "alice", anything, callfs.WriteOptions())
        assert [entry.path for entry in memory.list("/")] == ["/h"] and memory._used == 400_000

    def test_names_have_a_limit_too(self, tree: Any) -> None:
        """Empty files cost memory."""
        small = callfs.Tree(make_fs(callfs.MemFS, max_files=3))
        put(small, "/d/f")
        put(small, "/g")
        for change in (lambda: put(small, "/h"), lambda: small.mkdir(ALICE, "/h")):
            with pytest.raises(callfs.StorageFull, match="max_files"):
                change()
        small.remove(ALICE, "/d", recursive=True)
        assert small.mkdir(ALICE, "/h/i").created

    @pytest.mark.parametrize("seed", range(6))
    def test_patches_as_bytes_do_them(self, tree: Any, seed: int) -> None:
        """Random patches and truncations around block borders, next to a `bytearray`; every old version stays readable."""
        some, model = random.Random(seed), bytearray()
        put(tree, "/f", b"")
        kept: list[tuple[Any, bytes]] = []
        for _ in range(60):
            kept.append((tree.open(BOB, "/f"), bytes(model)))
            near = some.choice([0, 1, 2]) * callfs.BLOCK + some.randrange(-3, 4)
            if some.random() < 0.3:
                size = max(0, near)
                tree.truncate(ALICE, "/f", size)
                model = bytearray(model[:size]) + bytes(max(0, size - len(model)))
            else:
                offset = some.choice([len(model), min(max(0, near), len(model))])
                data = some.randbytes(some.choice([1, 5, 70_000, callfs.BLOCK])) if sys.version_info >= (3, 9) else b""
                tree.patch(ALICE, "/f", callfs.bytes_body(data), offset)
                model[offset:offset + len(data)] = data
            if len(model) > 1_500_000:
                tree.truncate(ALICE, "/f", 0)
                model = bytearray()
            assert tree.stat(BOB, "/f").size == len(model)
        assert fetch(tree, "/f") == bytes(model)
        for handle, data in kept:
            with handle.reader() as reader:
                assert b"".join(reader) == data

    def test_appending_costs_what_is_added(self, tree: Any) -> None:
        """The blocks that are there are not copied."""
        put(tree, "/f", bytes(4_000_000))
        blocks = tree._root._node("/f").blocks
        before = list(blocks)
        for _ in range(100):
            tree.patch(ALICE, "/f", callfs.bytes_body(b"x"), tree.stat(ALICE, "/f").size)
        assert tree._root._node("/f").blocks is blocks and all(one is two for one, two in zip(blocks, before[:-1]))

    def test_zeros_cost_nothing(self, tree: Any) -> None:
        """A file that is only made long holds one block many times; it counts in full."""
        put(tree, "/f", b"")
        tree.truncate(ALICE, "/f", 10 * callfs.BLOCK)
        assert len(set(map(id, tree._root._node("/f").blocks))) == 1 and tree._root._used == 10 * callfs.BLOCK

    def test_the_lock_is_not_held_while_a_body_comes(self, tree: Any) -> None:
        """Others go on while an upload waits for its client."""
        waiting, go = threading.Event(), threading.Event()

        class Slow(BrokenBody):
            def readinto(self, view: memoryview) -> int:
                waiting.set()
                assert go.wait(10)
                return super().readinto(view)

        put(tree, "/f", b"old")
        works = [threading.Thread(target=lambda: tree.write(ALICE, "/f", Slow(b"new", None))),
                 threading.Thread(target=lambda: tree.patch(ALICE, "/g", Slow(b"new", None), 0))]
        put(tree, "/g", b"")
        for work in works:
            work.start()
        assert waiting.wait(10) and fetch(tree, "/f") == b"old" and put(tree, "/other").created
        go.set()
        for work in works:
            work.join(10)
        assert fetch(tree, "/f") == fetch(tree, "/g") == b"new"

    def test_100_000_names_in_a_directory(self, tree: Any) -> None:
        """Listed whole, and in part without sorting again; what changes meanwhile breaks nothing."""
        memory = tree._root
        names = [f"{number:06d}" for number in range(100_000)]
        random.Random(1).shuffle(names)
        with memory._lock:
            folder = memory._folder("/d", "alice")
            for name in names:
                memory._add(folder, name, callfs.MemoryNode(callfs.FILE, 0o644, "alice"))
        started = time.perf_counter()
        assert [entry.name for entry in memory.list("/d")] == sorted(names)
        whole = time.perf_counter() - started
        order, started = folder._order, time.perf_counter()
        for number in range(0, 100_000, 1000):
            assert next(memory.list("/d", f"{number:06d}")).name == f"{number + 1:06d}"
        put(tree, "/d/000000a")
        tree.remove(ALICE, "/d/000000")
        listing = memory.list("/d")
        assert [next(listing).name, next(listing).name] == ["000000a", "000001"]
        tree.remove(ALICE, "/d/000000a")
        assert sum(1 for _ in listing) == 99_998
        assert folder._order is order and whole < 30 and time.perf_counter() - started < 30


class TestMemFSServed:
    """Through the socket, in the REST dialect: whatever works on the store works here."""

    @pytest.fixture
    def server(self, serve: Any) -> Any:
        return serve(plugins={"memfs": {"path": "/memfs", "config": {"init_dirs": ["/home"], "max_bytes": "2MB"}}},
                     rate_limits__link_burst=100, rate_limits__download_burst=100)

    def test_files(self, server: Any) -> None:
        """Upload, ranges, conditions, a full memory."""
        data = os.urandom(700_000)
        made = call(server, "POST", "/v1/files/memfs/home/f.bin", data)
        assert made.status == 201
        found = call(server, "GET", "/v1/files/memfs/home/f.bin")
        assert found.body == data and found.headers["etag"] and found.headers["content-length"] == "700000"
        part = call(server, "GET", "/v1/files/memfs/home/f.bin", headers={"Range": "bytes=262000-263000"})
        assert part.status == 206 and part.body == data[262000:263001]
        several = call(server, "GET", "/v1/files/memfs/home/f.bin", headers={"Range": "bytes=0-1,-2"})
        assert several.status == 206 and data[:2] in several.body and data[-2:] in several.body
        etag = found.headers["etag"]
        assert call(server, "GET", "/v1/files/memfs/home/f.bin", headers={"If-None-Match": etag}).status == 304
        assert call(server, "PUT", "/v1/files/memfs/home/f.bin", b"x", {"If-Match": '"no"'}).status == 412
        assert call(server, "PUT", "/v1/files/memfs/home/f.bin", b"x", {"If-Match": etag}).status == 200
        full = call(server, "PUT", "/v1/files/memfs/g", bytes(2_000_001))
        assert full.status == 507 and full.json()["code"] == "STORAGE_FULL"
        assert call(server, "HEAD", "/v1/files/memfs/g").status == 404

    def test_listing_and_archive(self, server: Any) -> None:
        """The mount point shows in the store; a zip goes over its border."""
        for path, data in (("/memfs/home/a", b"1"), ("/memfs/home/d/b", b"2"), ("/stored", b"3")):
            assert call(server, "PUT", "/v1/files" + path, data).status == 201
        names = [item["name"] for item in call(server, "GET", "/v1/directories/?recursive=true").json()["items"]]
        assert {"memfs", "home", "a", "b", "stored"} <= set(names)
        answer = call(server, "GET", "/v1/files/memfs/home?archive=zip")
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.testzip() is None
            assert {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist() if name[-1] != "/"} == {
                "a": b"1", "d/b": b"2"}

    def test_single_use_link(self, server: Any) -> None:
        """Once; and not for what takes the place of the file."""
        for replaced in (False, True):
            call(server, "PUT", "/v1/files/memfs/f", b"linked")
            made = call(server, "POST", "/v1/links/generate", {"path": "/memfs/f", "expiry_seconds": 60})
            assert made.status == 201
            if replaced:
                assert call(server, "DELETE", "/v1/files/memfs/f").status in (200, 204)
                call(server, "PUT", "/v1/files/memfs/f", b"another")
            first = call(server.url, "GET", "/download/" + made.json()["token"])
            assert (first.status, first.body) == (200, b"linked") if not replaced else first.status in (404, 410)
            assert call(server.url, "GET", "/download/" + made.json()["token"]).status in (404, 410)

    def test_single_use_link_of_a_hot_file(self, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that is answered from memory is a use like any other (found by the test above, 2026-11)."""
        monkeypatch.setattr(callfs, "AT_REST", -10.0)
        server = serve()
        call(server, "PUT", "/v1/files/f", b"hot")
        assert call(server, "GET", "/v1/files/f").body == b"hot" and server.tree.open(callfs.ROOT, "/f").data == b"hot"
        made = call(server, "POST", "/v1/links/generate", {"path": "/f", "expiry_seconds": 60}).json()
        assert call(server.url, "HEAD", "/download/" + made["token"]).status == 200
        assert [call(server.url, "GET", "/download/" + made["token"]).status for _ in range(2)] == [200, 410]

    def test_moves_over_the_border(self, server: Any) -> None:
        """Both ways, a directory too, with owner and bytes."""
        user = callfs.Principal("api-user-1")
        tree = server.tree
        put(tree, "/stored/d/f", b"1", user)
        put(tree, "/stored/g", b"2", user)
        tree.move(user, "/stored", "/memfs/in")
        assert fetch(tree, "/memfs/in/d/f") == b"1" and fetch(tree, "/memfs/in/g") == b"2"
        assert tree.stat(user, "/memfs/in/g").backend == "memfs"
        with pytest.raises(callfs.FileNotFound):
            tree.stat(user, "/stored/g")
        tree.move(user, "/memfs/in", "/back")
        assert fetch(tree, "/back/d/f") == b"1" and shown(tree, "/memfs") == ["/memfs/home"]
        moved = call(server, "PUT", "/v1/files/memfs/f", b"3")
        assert moved.status == 201
        answer = call(server, "PATCH", "/v1/files/memfs/f", {"destination": "/out"})
        assert answer.status == 200 and call(server, "GET", "/v1/files/out").body == b"3"
        assert call(server, "GET", "/v1/files/memfs/f").status == 404


# ============================================================================
# localfs: a folder of this machine in place
# ============================================================================

class TestLocalFS(FileSystemContract):
    """Files of a folder, without records."""

    owned = digests = keeps_ids = False

    def make(self, folder: Path) -> Any:
        folder.mkdir()
        return make_fs(callfs.LocalFS, folder.parent, local_dir=folder.name)

    def check(self, tree: Any, folder: Path) -> None:
        """Nothing of ours stays in the folder."""
        tree.close()
        assert not (folder / ".callfs").exists()

    def test_in_place(self, tree: Any, tmp_path: Path) -> None:
        """What is there is shown as it is; what is written is there, with mode and time."""
        folder = tmp_path / "data"
        (folder / "in").mkdir()
        (folder / "in" / "f").write_bytes(b"outside")
        os.chmod(folder / "in" / "f", 0o2751)
        os.utime(folder / "in" / "f", ns=(1, 1_600_000_000_123_456_789))
        entry = tree.stat(ALICE, "/in/f")
        assert (entry.mode, entry.mtime_ns, entry.size, entry.owner, entry.backend) == (
            0o2751, 1_600_000_000_123_456_789, 7, callfs.ANYONE, "localfs")
        assert fetch(tree, "/in/f") == b"outside"
        put(tree, "/in/f", b"inside")
        tree.chmod(ALICE, "/in/f", 0o666)
        assert (folder / "in" / "f").read_bytes() == b"inside" and (folder / "in" / "f").stat().st_mode & 0o7777 == 0o666
        put(tree, "/in/f", b"again")
        assert (folder / "in" / "f").stat().st_mode & 0o7777 == 0o666
        (folder / "in" / "f").write_bytes(b"outside again")
        assert tree.stat(ALICE, "/in/f").etag != entry.etag and fetch(tree, "/in/f") == b"outside again"
        with contextlib.closing(tree.open(ALICE, "/in/f")) as handle, handle.reader() as reader:
            assert reader.fd >= 0           # so that the server can use `sendfile`
        meta = tree.describe(ALICE, entry)
        assert str(tmp_path) not in repr((meta, entry)) and meta.name == "localfs"

    def test_versions_differ(self, tree: Any) -> None:
        """Also those of one size that come within a tick of the disk's clock."""
        tags = [put(tree, "/f", b"%03d" % number).entry.etag for number in range(200)]
        assert len(set(tags)) == 200

    @pytest.mark.parametrize("name", [".callfs", ".CALLFS", ".callfs/tmp/x"])
    def test_hidden(self, tree: Any, tmp_path: Path, name: str) -> None:
        """Not shown, not reachable, not even while it is in use."""
        put(tree, "/f")
        assert (tmp_path / "data" / ".callfs" / "tmp").is_dir() and shown(tree) == ["/f"]
        for ask in (lambda: tree.stat(ALICE, "/" + name), lambda: tree.open(ALICE, "/" + name),
                    lambda: list(tree.list(ALICE, "/" + name)), lambda: put(tree, "/" + name),
                    lambda: tree.mkdir(ALICE, "/" + name), lambda: tree.remove(ALICE, "/" + name, recursive=True),
                    lambda: tree.move(ALICE, "/f", "/" + name), lambda: tree.move(ALICE, "/" + name, "/g")):
            with pytest.raises((callfs.FileNotFound, callfs.PermissionDenied)):
                ask()

    def test_symbolic_links(self, tree: Any, tmp_path: Path) -> None:
        """Inside they are followed for reading; those that leave are as if absent; no write goes through one."""
        folder = tmp_path / "data"
        (tmp_path / "secret").write_bytes(b"secret")
        (folder / "d").mkdir()
        (folder / "d" / "f").write_bytes(b"data")
        for name, target in (("in", "d"), ("file", "d/f"), ("out", str(tmp_path)), ("up", "../secret"), ("loop", "loop"),
                             ("hidden", ".callfs")):
            (folder / name).symlink_to(target)
        assert fetch(tree, "/in/f") == fetch(tree, "/file") == b"data"
        assert shown(tree) == ["/d", "/file", "/in"] and shown(tree, "/in") == ["/in/f"]
        for path in ("/out", "/out/secret", "/up", "/loop", "/hidden"):
            with pytest.raises(callfs.FileNotFound):
                tree.open(ALICE, path)
        for change in (lambda: put(tree, "/in/new"), lambda: put(tree, "/out/new"), lambda: tree.mkdir(ALICE, "/in/new"),
                       lambda: tree.patch(ALICE, "/in/f", callfs.bytes_body(b"x"), 0),
                       lambda: tree.chmod(ALICE, "/in/f", 0o600), lambda: tree.remove(ALICE, "/out/secret")):
            with pytest.raises(callfs.Conflict):
                change()
        assert sorted(os.listdir(tmp_path)) == ["data", "secret"] and os.listdir(folder / "d") == ["f"]
        tree.remove(ALICE, "/out")          # the link goes, not what it leads to
        assert (tmp_path / "secret").read_bytes() == b"secret"

    def test_long_listing(self, tree: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """In several readings of the folder, in order, none twice."""
        monkeypatch.setattr(callfs, "LISTED_AT_ONCE", 7)
        names = sorted(f"{number:x}-" for number in range(100))
        for name in names:
            (tmp_path / "data" / name).touch()
        os.mkfifo(tmp_path / "data" / "5-fifo")
        assert [entry.name for entry in tree.list(ALICE, "/")] == names
        assert [entry.name for entry in tree.list(ALICE, "/", names[50])] == names[51:]

    @pytest.mark.parametrize("prepared", [False, True])
    def test_read_only(self, tree: Any, tmp_path: Path, prepared: bool) -> None:
        """Everything can be read, nothing changed; not even a hidden folder comes or goes."""
        folder = tmp_path / "shown"
        (folder / "d").mkdir(parents=True)
        if prepared:
            (folder / ".callfs" / "tmp").mkdir(parents=True)
        (folder / "d" / "f").write_bytes(b"data")
        before = sorted(map(str, folder.rglob("*"))), folder.stat().st_mtime_ns
        local = callfs.Tree(make_fs(callfs.LocalFS, tmp_path, local_dir="shown", read_only="true"))
        assert fetch(local, "/d/f") == b"data" and shown(local) == ["/d"]
        for change in (lambda: put(local, "/g"), lambda: put(local, "/d/f"), lambda: local.mkdir(ALICE, "/e"),
                       lambda: local.remove(ALICE, "/d/f"), lambda: local.remove(ALICE, "/d", recursive=True),
                       lambda: local.move(ALICE, "/d/f", "/g"), lambda: local.chmod(ALICE, "/d/f", 0o600),
                       lambda: local.touch(ALICE, "/d/f"), lambda: local.truncate(ALICE, "/d/f", 0),
                       lambda: local.patch(ALICE, "/d/f", callfs.bytes_body(b"x"), 4)):
            with pytest.raises(callfs.PermissionDenied, match="read-only"):
                change()
        local.close()
        assert before == (sorted(map(str, folder.rglob("*"))), folder.stat().st_mtime_ns)

    @pytest.mark.parametrize("given, word", [
        ("", "needed"), ("absent", "no folder 'absent'"), ("file", "no directory"), ("root", "server itself"),
        (".", "server itself"), ("root/.callfs", "server itself"), ("root/.callfs/tmp", "server itself"),
        ("root/inside", "lies in the store"), ("link", "server itself"), ("database", "server itself")])
    def test_folders_that_are_refused(self, tree: Any, tmp_path: Path, given: str, word: str) -> None:
        """With a reason, and without any path but the one given."""
        for name in ("root/.callfs/tmp", "root/inside", "fine", "database"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("root")
        private = (str(tmp_path / "root" / ".callfs"), str(tmp_path / "database" / "records"), "")
        with pytest.raises(callfs.BadRequest, match=word) as caught:
            make_fs(callfs.LocalFS, tmp_path, private, local_dir=given)
        assert str(tmp_path) not in caught.value.message
        make_fs(callfs.LocalFS, tmp_path, private, local_dir="root/inside", read_only=True).close()
        make_fs(callfs.LocalFS, tmp_path, private, local_dir="fine").close()
        assert os.listdir(tmp_path / "root" / "inside") == os.listdir(tmp_path / "fine") == []

    def test_two_mounts_of_one_folder(self, tree: Any, tmp_path: Path) -> None:
        """One that goes does not take the scratch folders of the other with it for good."""
        other = callfs.Tree(make_fs(callfs.LocalFS, tmp_path, local_dir="data"))
        put(other, "/d/f", b"1")
        assert fetch(tree, "/d/f") == b"1"
        other.close()
        put(tree, "/d/g", b"2")
        tree.remove(ALICE, "/d", recursive=True)
        assert shown(tree) == []

    def test_what_a_killed_server_left(self, tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is removed a day later, not earlier: another server may be at it."""
        scratch_folder = tmp_path / "left" / ".callfs" / "tmp"
        scratch_folder.mkdir(parents=True)
        (scratch_folder / "x").touch()
        make_fs(callfs.LocalFS, tmp_path, local_dir="left").close()
        assert os.listdir(scratch_folder) == ["x"]
        monkeypatch.setattr(callfs, "STALE_SCRATCH", -1.0)
        make_fs(callfs.LocalFS, tmp_path, local_dir="left").close()
        assert os.listdir(scratch_folder) == []

    def test_served(self, serve: Any, tmp_path: Path) -> None:
        """Through the socket; the store's own folder is refused without a path in the message."""
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "big").write_bytes(bytes(range(256)) * 4096)
        root = tmp_path / "store"
        server = serve(root, plugins={"localfs_home": {"path": "/home", "config": {"local_dir": str(tmp_path / "home")}},
                                      "localfs_root": {"path": "/bad", "config": {"local_dir": str(root)}}})
        answer = call(server, "GET", "/v1/files/home/big", headers={"Range": "bytes=256-511"})
        assert (answer.status, answer.body) == (206, bytes(range(256)))
        assert call(server, "GET", "/v1/files/home/big").body == bytes(range(256)) * 4096
        assert call(server, "PUT", "/v1/files/home/d/new", b"new").status == 201
        assert (tmp_path / "home" / "d" / "new").read_bytes() == b"new"
        assert call(server, "PATCH", "/v1/files/home/d/new", {"destination": "/new"}).status == 200
        assert (root / "new").read_bytes() == b"new" and not (tmp_path / "home" / "d" / "new").exists()
        bad = call(server, "GET", "/v1/files/bad/x")
        assert bad.status == 503 and "server itself" in bad.json()["message"]


# ============================================================================
# kvfs: a key-value store
# ============================================================================

class KeysOnly(callfs.FileSystem):
    """The keys of a kvfs as a filesystem of their own, for the contract: its root is /keys."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys

    def _call(self, verb: str, path: str, *more: Any) -> Any:
        def shown_entry(entry: Any) -> Any:
            return entry._replace(path=entry.path[len("/keys"):] or "/") if entry is not None else None

        def guarded(guard: Any) -> Any:
            return (lambda there: guard(shown_entry(there))) if callable(guard) else guard
        if verb == "move":
            more = ("/keys" + more[0], *more[1:])
        found = getattr(self.keys, verb)("/keys" + path if path != "/" else "/keys", *map(guarded, more))
        if isinstance(found, callfs.Written):
            return found._replace(entry=shown_entry(found.entry))
        if isinstance(found, callfs.Handle):
            found.entry = shown_entry(found.entry)
            return found
        return shown_entry(found) if isinstance(found, callfs.Entry) or found is None else map(shown_entry, found)

    def close(self) -> None:
        """Of the inner one."""
        self.keys.close()


for _verb in ("stat", "peek", "open", "list", "write", "patch", "mkdir", "remove", "move", "touch", "truncate"):
    setattr(KeysOnly, _verb, lambda self, path, *more, _verb=_verb: self._call(_verb, path, *more))


class TestKeys(FileSystemContract):
    """The contract for what a key-value store can: keys without modes, directories that come and go with their keys."""

    owned = False
    test_directories = test_remove = test_move_table = test_options = test_chmod_and_touch = None     # type: ignore
    test_move_directories = test_round_trip = None                                                    # type: ignore

    def make(self, folder: Path) -> Any:
        folder.mkdir()
        return KeysOnly(make_fs(callfs.KeyValueFS, folder))


class TestStoredKeys(TestKeys):
    """The same in a file."""

    def make(self, folder: Path) -> Any:
        folder.mkdir()
        return KeysOnly(make_fs(callfs.KeyValueFS, folder, db_path="keys.sqlite3"))


class TestKeyValueFS:
    """What is special."""

    @pytest.fixture(params=["", "keys.sqlite3"])
    def keys(self, request: Any, tmp_path: Path) -> Iterator[Any]:
        """A tree with a kvfs mounted at /kv, in memory and in a file."""
        with nothing_left(2):
            tree = callfs.Tree(make_fs(callfs.MemFS))
            tree.mount("/kv", make_fs(callfs.KeyValueFS, tmp_path, db_path=request.param, max_value=1000,
                                      initial_data={"welcome": "Hello!", "a": {"b": 1}}))
            yield tree
            tree.close()

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_round_trip(self, keys: Any, name: str) -> None:
        """Set, get, replace, rename, forget; any bytes."""
        keys.remove(ALICE, "/kv/keys/a", recursive=True)
        for path in ("/kv/keys/" + name, "/kv/keys/some/" + name):
            made = put(keys, path, bytes(range(256)))
            entry = keys.stat(BOB, path)
            assert made.created and made.entry == entry and fetch(keys, path) == bytes(range(256))
            assert (entry.owner, entry.mode, entry.backend) == (callfs.ANYONE, 0o644, "kvfs") and entry.digest
            again = put(keys, path, b"", BOB)
            assert not again.created and again.entry.id == entry.id and again.entry.etag != entry.etag
            moved = keys.move(BOB, path, "/kv/keys/" + name + "2" if len(name) < 255 else "/kv/keys/long")
            assert moved._replace(path=path) == again.entry and fetch(keys, moved.path) == b""
            keys.remove(BOB, moved.path)
            assert keys._peek(path) is keys._peek(moved.path) is None
        assert [entry.path for entry in keys.walk(ALICE, "/kv", 9)] == [
            "/kv/README", "/kv/keys", "/kv/keys/welcome"]

    def test_directories_are_their_keys(self, keys: Any) -> None:
        """Made by a key, gone with the last one; mkdir is no error and does nothing."""
        assert keys.mkdir(ALICE, "/kv/keys/x/y").entry.is_dir and shown(keys, "/kv/keys") == ["/kv/keys/a", "/kv/keys/welcome"]
        put(keys, "/kv/keys/x/y/z")
        assert keys.stat(ALICE, "/kv/keys/x").is_dir and shown(keys, "/kv/keys/x/y") == ["/kv/keys/x/y/z"]
        assert not keys.mkdir(ALICE, "/kv/keys/x").created
        with pytest.raises(callfs.DirectoryNotEmpty):
            keys.remove(ALICE, "/kv/keys/x")
        keys.move(ALICE, "/kv/keys/x", "/kv/keys/w/v")
        assert fetch(keys, "/kv/keys/w/v/y/z") == b"data"
        keys.remove(ALICE, "/kv/keys/w", recursive=True)
        assert shown(keys, "/kv/keys") == ["/kv/keys/a", "/kv/keys/welcome"]
        assert fetch(keys, "/kv/keys/a/b") == b"1"

    def test_a_key_is_no_directory(self, keys: Any) -> None:
        """The second of `a` and `a/b` is refused, by whatever way it comes."""
        filesystem = keys._find("/kv").filesystem
        put(keys, "/kv/keys/f")
        for change in (lambda: put(keys, "/kv/keys/f/g"), lambda: put(keys, "/kv/keys/f/g/h"),
                       lambda: keys.mkdir(ALICE, "/kv/keys/f/g"), lambda: keys.mkdir(ALICE, "/kv/keys/f"),
                       lambda: keys.move(ALICE, "/kv/keys/welcome", "/kv/keys/f/g"),
                       lambda: keys.move(ALICE, "/kv/keys/f", "/kv/keys/a", overwrite=True),
                       lambda: keys.move(ALICE, "/kv/keys/a", "/kv/keys/f", overwrite=True),
                       lambda: put(keys, "/kv/keys/a", create=True),
                       lambda: filesystem.write("/keys/a", callfs.bytes_body(b""), "x", anything, callfs.WriteOptions())):
            with pytest.raises(callfs.Conflict):
                change()
        put(keys, "/kv/keys/ab")            # neither above nor below, but it begins alike
        put(keys, "/kv/keys/f.txt")
        assert [entry.name for entry in keys.list(ALICE, "/kv/keys")] == ["a", "ab", "f", "f.txt", "welcome"]

    def test_order_of_many(self, keys: Any) -> None:
        """Names that sort around the slash, directories with many keys: each once, in code point order, from any name."""
        names = ["a", "a!", "a-b", "a.txt", "a0", "b", "b.", "\u00e9", "\U0001f600", "\U0010ffff", "\U0010fffd" * 63]
        for number in range(130):
            put(keys, f"/kv/keys/many/a/{number:03d}", b"")
        for name in names:
            put(keys, f"/kv/keys/many/{name}/x" if name == "b" else f"/kv/keys/many/{name}1", b"")
            put(keys, f"/kv/keys/{name}1", b"")
        expected = sorted({"a", "b", *(name + "1" for name in names if name != "b")})
        assert [entry.name for entry in keys.list(ALICE, "/kv/keys/many")] == expected
        for start, name in enumerate(expected):
            assert [entry.name for entry in keys.list(ALICE, "/kv/keys/many", name)] == expected[start + 1:]
        assert [entry.name for entry in keys.list(ALICE, "/kv/keys/many/a")] == [f"{number:03d}" for number in range(130)]
        top = [entry.name for entry in keys.list(ALICE, "/kv/keys")]
        assert top == sorted({"a", "many", "welcome", *(name + "1" for name in names)})

    @pytest.mark.parametrize("path", ["/kv/README", "/kv/x", "/kv/x/y", "/kv/keysx", "/kv/keys"])
    def test_what_is_not_below_keys(self, keys: Any, path: str) -> None:
        """Is refused, with a hint; the README is there to read."""
        for change in (lambda: put(keys, path), lambda: keys.mkdir(ALICE, path + "/" if path != "/kv/keys" else "/kv/z"),
                       lambda: keys.remove(ALICE, path, recursive=True),
                       lambda: keys.move(ALICE, path, "/kv/keys/n"), lambda: keys.touch(ALICE, path),
                       lambda: keys.truncate(ALICE, path, 0),
                       lambda: keys.move(ALICE, "/kv/keys/welcome", path, overwrite=True)):
            with pytest.raises(callfs.CallerError):
                change()
        if path != "/kv/keys":
            with pytest.raises(callfs.PermissionDenied, match="/keys/NAME"):
                put(keys, path)
        assert b"/keys/NAME" in fetch(keys, "/kv/README") and keys.stat(ALICE, "/kv/README").mode == 0o444
        assert shown(keys, "/kv") == ["/kv/README", "/kv/keys"] and shown(keys, "/kv", "README") == ["/kv/keys"]

    def test_largest_value(self, keys: Any) -> None:
        """By every way to write; nothing changes."""
        put(keys, "/kv/keys/f", bytes(1000))
        for change in (lambda: put(keys, "/kv/keys/g", bytes(1001)), lambda: put(keys, "/kv/keys/f", bytes(1001)),
                       lambda: keys.write(ALICE, "/kv/keys/g", BrokenBody(bytes(1001), None)),
                       lambda: keys.write(ALICE, "/kv/keys/g", BrokenBody(b"", 1001, AssertionError("it was read"))),
                       lambda: keys.patch(ALICE, "/kv/keys/f", callfs.bytes_body(b"x"), 1000),
                       lambda: keys.truncate(ALICE, "/kv/keys/f", 1001)):
            with pytest.raises(callfs.PayloadTooLarge):
                change()
        assert fetch(keys, "/kv/keys/f") == bytes(1000) and keys._peek("/kv/keys/g") is None

    def test_kept_in_a_file(self, tmp_path: Path) -> None:
        """For nobody else to read; initial data does not overwrite what is there, nor come between."""
        data = {"text": "é", "int": 1, "float": 1.5, "true": True, "null": None, "x/y": "path", "deep": {"er": {"k": "v"}}}
        keys = callfs.Tree(make_fs(callfs.KeyValueFS, tmp_path, db_path="kv.db", initial_data=data))
        assert {path: value for path, (_, _, value) in picture(keys, "/keys").items() if value is not None} == {
            "/keys/text": "é".encode(), "/keys/int": b"1", "/keys/float": b"1.5", "/keys/true": b"true", "/keys/null": b"",
            "/keys/x/y": b"path", "/keys/deep/er/k": b"v"}
        entry = put(keys, "/keys/text", b"mine").entry
        keys.remove(ALICE, "/keys/int")
        assert stat.S_IMODE((tmp_path / "kv.db").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "kv.db-wal").stat().st_mode) == 0o600
        copied = tmp_path / "copy"          # what a killed server would find
        copied.mkdir()
        for name in ("kv.db", "kv.db-wal"):
            shutil.copy(tmp_path / name, copied / name)
        keys.close()
        keys.close()
        with pytest.raises(callfs.Unavailable):
            fetch(keys, "/keys/text")
        for folder in (tmp_path, copied):
            again = callfs.Tree(make_fs(callfs.KeyValueFS, folder, db_path="kv.db", initial_data={
                "text": "other", "deep": "a directory now", "x": {"y": {"z": "below a key"}}, "new": "n"}))
            assert again.stat(ALICE, "/keys/text") == entry and fetch(again, "/keys/text") == b"mine"
            assert [entry.name for entry in again.walk(ALICE, "/keys", 0)] == [
                "deep", "float", "new", "null", "text", "true", "x"]
            again.close()

    @pytest.mark.parametrize("options, word", [
        ({"initial_data": {"a": [1]}}, "a value is"), ({"initial_data": {"a": 1, "a/b": 2}}, "below another"),
        ({"initial_data": {"a": "x" * 20}, "max_value": 10}, "max_value"), ({"initial_data": {"../..": 1}}, "leaves"),
        ({"db_path": "absent/kv.db"}, "no folder for 'absent/kv.db'"), ({"db_path": "other.db"}, "another program")])
    def test_mounts_that_fail(self, tmp_path: Path, options: Any, word: str) -> None:
        """Say why, and leave nothing open."""
        with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
            other.execute("CREATE TABLE t (x)")
        with nothing_left(2), pytest.raises(callfs.CallerError, match=word) as caught:
            make_fs(callfs.KeyValueFS, tmp_path, **options)
        assert str(tmp_path) not in caught.value.message

    def test_many_writers(self, keys: Any) -> None:
        """Of appends at once none is lost."""
        put(keys, "/kv/keys/n", b"")

        def work(number: int) -> None:
            for turn in range(20):
                while True:
                    entry = keys.stat(ALICE, "/kv/keys/n")
                    with contextlib.suppress(callfs.PreconditionFailed):
                        keys.patch(ALICE, "/kv/keys/n", callfs.bytes_body(b"%d" % number), entry.size,
                                   callfs.Conditions(if_match=f'"{entry.etag}"'))
                        break
        in_threads(work, 4)
        assert collections.Counter(fetch(keys, "/kv/keys/n")) == {ord("0") + number: 20 for number in range(4)}

    def test_served(self, serve: Any, tmp_path: Path) -> None:
        """Through the socket, and again after a restart."""
        plugins = {"kvfs": {"path": "/kvfs", "config": {"db_path": str(tmp_path / "kv.db"),
                                                        "initial_data": {"welcome": "Hello"}}}}
        with callfs.Server(root=tmp_path / "root", plugins=plugins) as server:
            assert call(server, "GET", "/v1/files/kvfs/keys/welcome").body == b"Hello"
            assert call(server, "PUT", "/v1/files/kvfs/keys/users/alice", b"a@b").status == 201
            assert call(server, "PUT", "/v1/files/kvfs/keys/welcome", b"Bye").status == 200
            refused = call(server, "PUT", "/v1/files/kvfs/other", b"x")
            assert refused.status == 403 and "/keys/NAME" in refused.json()["message"]
            assert call(server, "PUT", "/v1/files/kvfs/keys/welcome/x", b"x").status == 409
        server = serve(tmp_path / "root", plugins=plugins)
        assert call(server, "GET", "/v1/files/kvfs/keys/welcome").body == b"Bye"
        items = call(server, "GET", "/v1/directories/kvfs/keys").json()["items"]
        assert [(item["name"], item["type"]) for item in items] == [("users", "directory"), ("welcome", "file")]


# ============================================================================
# serverinfofs: the server about itself
# ============================================================================

@pytest.mark.parametrize("seconds, text", [(0, "0s"), (15.9, "15s"), (60, "1m0s"), (3600, "1h0m0s"),
                                           (24 * 3600 + 30 * 60 + 15, "24h30m15s"), (3605, "1h0m5s")])
def test_uptime_text(seconds: float, text: str) -> None:
    """As the seed shows it."""
    assert callfs.uptime_text(seconds) == text


class TestServerInfoFS:
    """Files that are made when they are read."""

    @pytest.fixture
    def server(self, serve: Any) -> Any:
        return serve(plugins={"serverinfofs": {"path": "/info"}, "hellofs": {"path": "/hello"}})

    def test_files(self, server: Any) -> None:
        """All of them, for nobody to change."""
        items = call(server, "GET", "/v1/directories/info").json()["items"]
        assert [item["name"] for item in items] == ["README", "server_info", "stats", "uptime", "version"]
        assert {item["mode"] for item in items} == {"0444"}
        assert call(server, "GET", "/v1/files/info/version").body == callfs.__version__.encode()
        assert b"uptime" in call(server, "GET", "/v1/files/info/README").body
        server.metrics.gauge("callfs_uptime_seconds", lambda: 88215.7)
        assert call(server, "GET", "/v1/files/info/uptime").body == b"24h30m15s"
        for method, path in (("PUT", "version"), ("POST", "new"), ("DELETE", "uptime")):
            assert call(server, method, "/v1/files/info/" + path, b"x" if method != "DELETE" else None).status in (403, 501)
        assert call(server, "GET", "/v1/files/info/absent").status == 404
        assert call(server, "GET", "/v1/directories/info/stats").status in (400, 409)

    def test_numbers_move(self, server: Any) -> None:
        """And say nothing that a stranger could use."""
        def stats() -> Any:
            return call(server, "GET", "/v1/files/info/stats").json()
        first = stats()
        call(server, "PUT", "/v1/files/f", b"x")
        second = wait_for(lambda: (lambda now: now if now["requests"] >= first["requests"] + 2 else None)(stats()))
        assert second["operations"]["create"] == first["operations"].get("create", 0) + 1
        assert second["mounts"] == 2 and second["threads"] > 1 and second["connections"] >= 1
        assert second["memory_bytes"] > 1_000_000 or sys.platform != "linux"
        info = call(server, "GET", "/v1/files/info/server_info")
        assert info.json()["version"] == callfs.__version__ and info.json()["pid"] == os.getpid()
        for text in (info.body.decode(), json.dumps(second)):
            assert "/" not in text and server.key not in text and os.path.basename(os.getcwd()) not in text.split('"')


# ============================================================================
# streamfs: written pieces go to every reader
# ============================================================================

def make_streamfs(**options: Any) -> Any:
    """A filesystem of streams."""
    return callfs.StreamFS(callfs.read_mount_options(callfs.StreamFS, options), None)


def live(tree: Any, path: str = "/s", who: Any = ALICE) -> Any:
    """A reader of what comes."""
    handle = tree.open(who, path, {"stream": "true"})
    assert not handle.fixed and not handle.consumes
    return handle.reader()


class Noticing:
    """Attached to a reader: what it gave so far, and how often it was woken."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.wakes, self.data, self.over = reader, 0, b"", False
        reader.attach(self.wake)

    def wake(self) -> None:
        """There is more."""
        self.wakes += 1

    def drain(self, size: int = callfs.BLOCK) -> bytes:
        """All that there is now."""
        block = self.reader.read(size)
        while block:
            self.data += block
            block = self.reader.read(size)
        self.over = block == b""
        return self.data


class TestStreamRing:
    """The ring and its readers."""

    @pytest.mark.parametrize("seed", range(30))
    def test_readers_against_a_model(self, seed: int) -> None:
        """Any pieces, any reads: what a reader got is the stream without the oldest that it lost, which it counted."""
        some = random.Random(seed)
        capacity, lag = some.choice([1, 10, 1000, 60_000]), some.choice([0, 5, 700, 10**9])
        ring, written, readers = callfs.StreamRing(capacity, lag), b"", []  # type: Any, bytes, list[Any]
        for _ in range(300):
            act = some.randrange(5)
            if act == 0 and len(readers) < 5:
                reader = callfs.StreamReader(ring)
                reader.attach(lambda: None)
                kept = min(len(written), capacity, lag or capacity)
                readers.append((reader, [len(written) - kept]))
            elif act == 1:
                piece = bytes(some.randrange(256) for _ in range(some.choice([1, 3, 20, 700])))
                ring.append(piece * some.choice([1, 1, 30]))
                written = b"".join([written, b"".join(ring.pieces())[-(ring.end - len(written)):]]) \
                    if ring.end - len(written) <= capacity else written + bytes(ring.end - len(written) - capacity) \
                    + b"".join(ring.pieces())
            elif readers:
                reader, at = some.choice(readers)
                before = reader.dropped
                block = reader.read(some.choice([1, 7, 5000, callfs.BLOCK]))
                at[0] += reader.dropped - before
                if block is None:
                    assert at[0] == len(written)
                else:
                    assert block and written[at[0]:at[0] + len(block)] == block
                    at[0] += len(block)
            assert b"".join(ring.pieces()) == written[len(written) - min(capacity, len(written)):]
            assert ring.end == len(written) and ring.end - ring.start == min(capacity, len(written))

    def test_all_readers_share_the_pieces(self) -> None:
        """A large piece goes out as it lies there; small ones come together."""
        ring = callfs.StreamRing(10**7, 0)
        readers = [callfs.StreamReader(ring) for _ in range(50)]
        piece = os.urandom(callfs.BLOCK)
        ring.append(piece)
        assert all(reader.read() is piece for reader in readers)
        for _ in range(1000):
            ring.append(b"x" * 100)
        assert {len(reader.read()) for reader in readers} == {100_000}

    def test_memory_is_bounded(self) -> None:
        """By the ring, whatever is written in whatever pieces while 50 readers stall; they can see how much they lost."""
        for size, count in ((1, 100_000), (100, 20_000), (callfs.BLOCK, 40)):
            ring = callfs.StreamRing(1_000_000, 0)
            readers = [callfs.StreamReader(ring) for _ in range(50)]
            tracemalloc.start()
            try:
                for number in range(count):
                    ring.append(bytes(size))
                assert tracemalloc.get_traced_memory()[1] < 1_000_000 + callfs.BLOCK + 300_000, size
            finally:
                tracemalloc.stop()
            got = len(readers[0].read())
            assert readers[0].dropped == max(0, size * count - 1_000_000) and got > 0
            assert readers[0].trailers() == [("X-Stream-Dropped", str(readers[0].dropped))]

    def test_one_wake_until_the_next_read(self) -> None:
        """However much is written meanwhile; none for who has not read all."""
        ring = callfs.StreamRing(10**6, 0)
        seen = Noticing(callfs.StreamReader(ring))
        ring.append(b"a")
        assert seen.wakes == 0              # it has not been told that there is nothing
        seen.drain()
        for _ in range(1000):
            ring.append(b"a")
        assert seen.wakes == 1 and len(seen.drain()) == 1001
        seen.reader.close()
        ring.append(b"a")
        assert seen.wakes == 1 and not ring.readers and not ring._idle

    def test_waiting_readers(self) -> None:
        """Without `attach`: they wait for bytes, for the end, and for `close` by another thread."""
        ring = callfs.StreamRing(10**6, 0)
        reader, closed = callfs.StreamReader(ring), callfs.StreamReader(ring)
        got: list[bytes] = []
        threads = [threading.Thread(target=lambda: got.extend(reader)), threading.Thread(target=closed.read)]
        for thread in threads:
            thread.start()
        ring.append(b"one")
        wait_for(lambda: got == [b"one"])
        closed.close()
        ring.finish()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert got == [b"one"]
        with pytest.raises(callfs.FileNotFound, match="deleted"):
            ring.append(b"x")


class TestStreamFS:
    """Streams in a tree."""

    @pytest.fixture
    def tree(self) -> Iterator[Any]:
        tree = callfs.Tree(make_streamfs(buffer_size="1000", channel_buffer_size=0))
        yield tree
        tree.close()

    def test_options(self) -> None:
        """Both names; texts and numbers."""
        for given in ({"buffer_size": "10MB"}, {"ring_buffer_size": 10_000_000}, {"ring_buffer_size": "10000000"}):
            assert make_streamfs(**given)._options.buffer_size == 10_000_000
        assert make_streamfs()._options.buffer_size == 6_000_000
        for wrong in ({"buffer_size": "0"}, {"buffer_size": 1, "ring_buffer_size": 1}, {"channel_buffer_size": "x"}):
            with pytest.raises(callfs.BadRequest):
                make_streamfs(**wrong)

    def test_writing_goes_on_where_it_was(self, tree: Any) -> None:
        """Made by a write with its folders, or by touch; never truncated; the ETag changes each time, the id does not."""
        first = put(tree, "/a/b/s", b"one")
        assert first.created and first.entry.size == 3 and tree.stat(BOB, "/a/b").is_dir
        again = put(tree, "/a/b/s", b"two", BOB)
        assert not again.created and again.entry.id == first.entry.id and again.entry.etag != first.entry.etag
        assert again.entry.mtime_ns > first.entry.mtime_ns and fetch(tree, "/a/b/s") == b"onetwo"
        put(tree, "/a/b/s", b"x" * 999)
        assert fetch(tree, "/a/b/s") == b"o" + b"x" * 999
        assert tree.touch(ALICE, "/t").created and not tree.touch(ALICE, "/t").created and fetch(tree, "/t") == b""
        assert tree.mkdir(ALICE, "/d/e").created and not tree.mkdir(BOB, "/d/e").created
        assert [entry.name for entry in tree.list(ALICE, "/")] == ["README", "a", "d", "t"]
        assert [entry.name for entry in tree.list(ALICE, "/", "README")] == ["a", "d", "t"]

    def test_what_is_refused(self, tree: Any) -> None:
        """And changes nothing."""
        put(tree, "/s", b"abc")
        tree.mkdir(ALICE, "/d")
        put(tree, "/d/f", b"f")
        before = {entry.path: entry for entry in tree.walk(ALICE, "/", 9)}
        for error, ask in (
                (callfs.PermissionDenied, lambda: put(tree, "/README")), (callfs.Conflict, lambda: put(tree, "/README/x")),
                (callfs.PermissionDenied, lambda: tree.remove(ALICE, "/README")), (callfs.Conflict, lambda: put(tree, "/s/x")),
                (callfs.PermissionDenied, lambda: tree.move(ALICE, "/s", "/README", overwrite=True)),
                (callfs.PermissionDenied, lambda: tree.chmod(ALICE, "/README", 0o777)), (callfs.BadRequest, lambda: put(tree, "/d")),
                (callfs.Conflict, lambda: tree.mkdir(ALICE, "/s")), (callfs.Conflict, lambda: tree.mkdir(ALICE, "/s/x")),
                (callfs.BadRequest, lambda: tree.truncate(ALICE, "/s", 1)), (callfs.DirectoryNotEmpty, lambda: tree.remove(ALICE, "/d")),
                (callfs.BadRequest, lambda: tree.move(ALICE, "/d", "/d/x")), (callfs.FileNotFound, lambda: tree.remove(ALICE, "/n")),
                (callfs.Conflict, lambda: tree.move(ALICE, "/s", "/d", overwrite=True)),
                (callfs.BadRequest, lambda: tree.move(ALICE, "/s", "/n/s")), (callfs.FileNotFound, lambda: tree.open(ALICE, "/n")),
                (callfs.Conflict, lambda: tree.list(ALICE, "/s")), (callfs.BadRequest, lambda: tree.remove(ALICE, "/", recursive=True)),
                (callfs.NotSupported, lambda: tree.patch(ALICE, "/s", callfs.bytes_body(b"x"), 0)),
                (callfs.FileExists, lambda: tree.move(ALICE, "/s", "/d/f"))):
            with pytest.raises(error):
                ask()
        assert {entry.path: entry for entry in tree.walk(ALICE, "/", 9)} == before
        assert fetch(tree, "/README").startswith(b"streamfs") and tree.stat(ALICE, "/README").mode == 0o444

    def test_a_reader_gets_what_is_there_and_what_comes(self, tree: Any) -> None:
        """From every writer; the file without the wish stays as it was opened, and can be read in parts."""
        put(tree, "/s", b"before ")
        seen, handle = Noticing(live(tree)), tree.open(ALICE, "/s")
        assert seen.drain() == b"before "
        put(tree, "/s", b"after", BOB)
        assert seen.wakes == 1 and seen.drain() == b"before after" and not seen.over
        with handle.reader() as reader, handle.reader(2, 6) as part:
            assert (b"".join(reader), b"".join(part), part.length) == (b"before ", b"fore", 4)
        assert tree.digest(ALICE, "/s") == hashlib.sha256(b"before after").hexdigest()
        assert tree.copy(ALICE, "/s", "/copy").bytes == 12 and fetch(tree, "/copy") == b"before after"

    def test_pieces_come_before_the_body_ends(self, tree: Any) -> None:
        """What arrived is with the readers, also when the body breaks off or is not what was announced; the sender is
        allowed to pause."""
        put(tree, "/s", b"")
        seen = Noticing(live(tree))

        class Slow(callfs.Body):
            length, pieces = None, [b"one", b"two"]

            def readinto(self, view: memoryview) -> int:
                assert self.patient and seen.drain() == b"".join([b"one", b"two"][:2 - len(self.pieces)])
                if not self.pieces:
                    raise callfs.Disconnected()
                view[:3] = self.pieces.pop(0)
                return 3
        with pytest.raises(callfs.Disconnected):
            tree.write(ALICE, "/s", Slow())
        with pytest.raises(callfs.Disconnected):
            tree.write(ALICE, "/s", BrokenBody(b"three", 7))
        with pytest.raises(callfs.BadRequest, match="SHA-256"):
            put(tree, "/s", b"four", options=callfs.WriteOptions(sha256="0" * 64))
        assert seen.drain() == b"onetwothreefour" == fetch(tree, "/s") and not seen.over
        assert put(tree, "/s", b"5", options=callfs.WriteOptions(sha256=hashlib.sha256(b"5").hexdigest())).entry.size == 16

    def test_several_writers(self) -> None:
        """Their pieces come whole, one after the other; every reader sees the same."""
        tree = callfs.Tree(make_streamfs())
        put(tree, "/s", b"")
        readers = [Noticing(live(tree)) for _ in range(5)]

        class Lines(callfs.Body):
            def __init__(self, number: int) -> None:
                self.length, self.left, self.line = None, 200, b"%d" % number * 99 + b"\n"

            def readinto(self, view: memoryview) -> int:
                if not self.left:
                    return 0
                self.left -= 1
                view[:len(self.line)] = self.line
                return len(self.line)
        in_threads(lambda number: tree.write(ALICE, "/s", Lines(number)), 6)
        found = [reader.drain() for reader in readers]
        lines = collections.Counter(found[0].split(b"\n")[:-1])
        assert set(found) == {found[0]} and lines == {b"%d" % number * 99: 200 for number in range(6)}

    def test_a_slow_reader_loses_the_oldest(self) -> None:
        """More than its lag, and sees how much: the reader, and the meta of the stream, also before it has read."""
        tree = callfs.Tree(make_streamfs(buffer_size=1000, channel_buffer_size=100))
        put(tree, "/s", b"")
        seen, lost = Noticing(live(tree)), lambda: tree.describe(ALICE, tree.stat(ALICE, "/s")).content
        put(tree, "/s", b"a" * 300 + b"b" * 60)
        assert lost() == {"readers": "1", "written": "360", "dropped": "260", "buffer_size": "1000"}
        assert seen.drain() == b"a" * 40 + b"b" * 60 and seen.reader.dropped == 260
        assert Noticing(live(tree)).drain() == seen.data and len(fetch(tree, "/s")) == 360
        seen.reader.close()
        assert lost() == {"readers": "1", "written": "360", "dropped": "260", "buffer_size": "1000"}
        assert tree.describe(ALICE, tree.stat(ALICE, "/README")).content is None

    ENDS = {"remove": lambda tree: tree.remove(ALICE, "/d/s"), "all": lambda tree: tree.remove(ALICE, "/d", recursive=True),
            "replace": lambda tree: tree.move(ALICE, "/other", "/d/s", overwrite=True), "unmount": lambda tree: tree.close(),
            "stop": lambda tree: tree._root.quiesce()}

    @pytest.mark.parametrize("how", ENDS)
    def test_readers_end(self, tree: Any, how: str) -> None:
        """After what there is; those that wait, too."""
        put(tree, "/other", b"other")
        put(tree, "/d/s", b"last words")
        slow, waiting = Noticing(live(tree, "/d/s")), live(tree, "/d/s")
        quick = Noticing(live(tree, "/d/s"))
        quick.drain()
        thread = threading.Thread(target=lambda: list(waiting))
        thread.start()
        self.ENDS[how](tree)
        thread.join(10)
        assert not thread.is_alive() and quick.wakes == 1
        for one in (slow, quick):
            assert one.drain() == b"last words" and one.over
        if how == "stop":
            put(tree, "/d/s", b"!")         # all else goes on
            put(tree, "/new", b"x")
            new = Noticing(live(tree, "/new"))
            assert new.drain() == b"x" and new.over

    def test_a_writer_to_a_stream_that_is_deleted(self, tree: Any) -> None:
        """Is told so."""
        class Deleting(callfs.Body):
            length = None

            def readinto(self, view: memoryview) -> int:
                tree.remove(ALICE, "/s")
                view[:1] = b"x"
                return 1
        with pytest.raises(callfs.FileNotFound, match="deleted"):
            tree.write(ALICE, "/s", Deleting())

    def test_renamed_and_emptied(self, tree: Any) -> None:
        """Readers go on."""
        put(tree, "/d/s", b"one")
        seen = Noticing(live(tree, "/d/s"))
        seen.drain()
        tree.move(ALICE, "/d", "/e/f", parents=True)
        put(tree, "/e/f/s", b"two")
        assert tree.truncate(ALICE, "/e/f/s", 0).entry.size == 0 and fetch(tree, "/e/f/s") == b""
        put(tree, "/e/f/s", b"three")
        assert seen.drain() == b"onethree" and seen.reader.dropped == 3 and fetch(tree, "/e/f/s") == b"three"
        assert tree.chmod(ALICE, "/e/f/s", 0o600).mode == 0o600
        assert tree.touch(ALICE, "/e/f/s", 5).entry.mtime_ns == 5 == tree.stat(ALICE, "/e/f/s").mtime_ns


def follow(server: Any, path: str) -> tuple[Any, Any]:
    """A client that reads a stream: its connection and the answer, whose head is there."""
    connection = connect(server.url)
    connection.request("GET", f"/api/v1/files?stream=true&path={path}", headers={"authorization": f"Bearer {server.key}"})
    answer = connection.getresponse()
    assert answer.status == 200 and answer.getheader("transfer-encoding") == "chunked"
    return connection, answer


def readers_of(server: Any, path: str) -> int:
    """How many read a stream now."""
    return int(server.tree.describe(callfs.ROOT, server.tree.stat(callfs.ROOT, path)).content["readers"])


class TestStreamsOverHTTP:
    """Through real sockets."""

    @pytest.fixture
    def server(self, serve: Any) -> Iterator[Any]:
        with nothing_left():
            server = serve(plugins={"streamfs": {"path": "/streamfs"}})
            assert call(server, "PUT", "/api/v1/files?path=/streamfs/s", b"held ").status == 200
            yield server
            server.close()

    def test_fifty_readers(self, server: Any) -> None:
        """All get all of it while it is being written, in the order of the pieces, and the end when it is deleted."""
        data, clients = os.urandom(1_000_000), [follow(server, "/streamfs/s") for _ in range(50)]
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda answer=answer: found.append(answer.read())) for _, answer in clients]
        for thread in threads:
            thread.start()
        for part in range(4):
            assert call(server, "PUT", "/api/v1/files?path=/streamfs/s", data[part * 250_000:(part + 1) * 250_000]).status == 200
        assert readers_of(server, "/streamfs/s") == 50
        assert call(server, "DELETE", "/api/v1/files?path=/streamfs/s").status == 200
        for thread in threads:
            thread.join(30)
        assert len(found) == 50 and set(found) == {b"held " + data}
        for connection, _ in clients:       # the body had its proper end: the connection can be used again
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            connection.close()

    def test_pieces_arrive_at_once_and_readers_may_leave(self, server: Any) -> None:
        """Each piece of a chunked upload is with the reader before the next is sent; who leaves is noticed."""
        first, answer = follow(server, "/streamfs/s")
        second, _ = follow(server, "/streamfs/s")
        assert answer.read(5) == b"held " and readers_of(server, "/streamfs/s") == 2
        with contextlib.closing(raw_socket(server.url)) as sender:
            sender.sendall(b"PUT /api/v1/files?path=/streamfs/s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                           b"Authorization: Bearer " + server.key.encode() + b"\r\n\r\n")
            for piece in (b"one", b"two", b"three"):
                sender.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                assert answer.read(len(piece)) == piece
            second.close()
            wait_for(lambda: readers_of(server, "/streamfs/s") == 1, what="the reader that left")
            sender.sendall(b"0\r\n\r\n")
            assert sender.recv(1000).startswith(b"HTTP/1.1 200")
        first.close()
        wait_for(lambda: readers_of(server, "/streamfs/s") == 0, what="the other one")

    def test_what_was_dropped_is_told_at_the_end(self, server: Any) -> None:
        """In a trailer that was announced."""
        with contextlib.closing(raw_socket(server.url)) as reader:
            reader.sendall(f"GET /api/v1/files?path=/streamfs/s&stream=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                           f"{server.key}\r\n\r\n".encode())
            wait_for(lambda: readers_of(server, "/streamfs/s") == 1)
            next(iter(server.tree._find("/streamfs/s").filesystem._nodes["/s"].ring.readers)).dropped = 7
            server.tree.remove(callfs.ROOT, "/streamfs/s")
            answer = b""
            while not answer.endswith(b"X-Stream-Dropped: 7\r\n\r\n"):
                block = reader.recv(65536)
                assert block, answer
                answer += block
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"\r\nTrailer: X-Stream-Dropped\r\n" in head + b"\r\n"
            assert body == b"5\r\nheld \r\n0\r\nX-Stream-Dropped: 7\r\n\r\n"

    def test_a_stalled_reader_costs_nothing(self, server: Any) -> None:
        """It reads nothing: others get everything, and memory stays within the ring."""
        connection, answer = follow(server, "/streamfs/s")
        stalled, _ = follow(server, "/streamfs/s")
        size, got = 40_000_000, [0]

        def read() -> None:
            block = answer.read1(1 << 20)
            while block:
                got[0] += len(block)
                block = answer.read1(1 << 20)
        thread = threading.Thread(target=read)
        thread.start()
        tracemalloc.start()
        try:
            for _ in range(40):
                server.tree.write(callfs.ROOT, "/streamfs/s", callfs.ZeroBody(size // 40))
            assert tracemalloc.get_traced_memory()[1] < 6_000_000 + 4 * 1024 * 1024
        finally:
            tracemalloc.stop()
        lost = int(server.tree.describe(callfs.ROOT, server.tree.stat(callfs.ROOT, "/streamfs/s")).content["dropped"])
        assert lost > 20_000_000
        server.tree.remove(callfs.ROOT, "/streamfs/s")
        thread.join(30)
        stalled.close()
        connection.close()

    def test_other_ways_to_look_end(self, server: Any) -> None:
        """Without the wish it is a file: its length, its parts, HEAD, conditions."""
        answer = call(server, "GET", "/v1/files/streamfs/s")
        assert answer.body == b"held " and answer.headers["content-length"] == "5"
        assert call(server, "HEAD", "/v1/files/streamfs/s").headers["content-length"] == "5"
        assert call(server, "GET", "/v1/files/streamfs/s", headers={"range": "bytes=1-2"}).body == b"el"
        assert call(server, "GET", "/v1/files/streamfs/s", headers={"if-none-match": answer.headers["etag"]}).status == 304

    def test_the_server_stops(self, serve: Any) -> None:
        """Readers get a proper end, at once; a writer that pauses does not hold it up."""
        with nothing_left():
            server = serve(plugins={"streamfs": {"path": "/streamfs"}})
            call(server, "PUT", "/api/v1/files?path=/streamfs/s", b"held")
            connection, answer = follow(server, "/streamfs/s")
            with contextlib.closing(raw_socket(server.url)) as sender:
                sender.sendall(b"PUT /api/v1/files?path=/streamfs/s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                               b"Authorization: Bearer " + server.key.encode() + b"\r\n\r\n1\r\n!\r\n")
                assert answer.read(5) == b"held!"
                assert server.stop(20)
            assert answer.read() == b""
            connection.close()


class TestPatience:
    """Bodies whose sender may pause."""

    def test_no_least_rate(self) -> None:
        """One that is patient waits while another is cut off; a client that goes away ends it."""
        app, broken = App(), []     # type: Any, list[Any]

        def answer(request: Any) -> Any:
            request.body.patient = request.path == "/patient"
            try:
                return callfs.Response(200, request.body.read(100))
            except callfs.CallFSError as error:
                broken.append((request.path, type(error)))
                raise
        app.answers = {"/patient": answer, "/other": answer}
        with serving(app=app, read_timeout=0.3, body_window=0.2, max_upload_bytes=2) as server:
            url = f"http://127.0.0.1:{server.port}"
            with contextlib.closing(raw_socket(url)) as patient, contextlib.closing(raw_socket(url)) as gone:
                for sender in (patient, gone):
                    sender.sendall(b"PUT /patient HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
                for _ in range(2):
                    assert raw(url, b"PUT /other HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na").startswith(b"HTTP/1.1 408")
                assert raw(url, b"PUT /other HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").startswith(b"HTTP/1.1 413")
                patient.sendall(b"bc")
                assert patient.recv(1000).endswith(b"\r\n\r\nabc")
                assert broken == [("/other", callfs.RequestTimeout)] * 2 + [("/other", callfs.PayloadTooLarge)]
                gone.close()
                wait_for(lambda: broken[3:] == [("/patient", callfs.Disconnected)])

    def test_a_server_that_drains(self) -> None:
        """Does not wait for it: 503."""
        app = App()
        app.answers = {"/": lambda request: setattr(request.body, "patient", True) or request.body.read(100)}
        with serving(app=app) as server, contextlib.closing(raw_socket(f"http://127.0.0.1:{server.port}")) as sender:
            sender.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
            wait_for(lambda: app.requests)
            assert server.drain(20)
            assert sender.recv(1000).startswith(b"HTTP/1.1 503")


# ============================================================================
# sqlfs: files in a table
# ============================================================================

def mount_context(folder: Path) -> Any:
    """What a filesystem is given, without a server."""
    folder.mkdir(exist_ok=True)
    return callfs.MountContext("/", None, None, callfs.Metrics(), str(folder))


def make_sqlfs(folder: Path, **options: Any) -> Any:
    """A filesystem on tables: of SQLite in `folder`, unless the options name others."""
    return callfs.SQLFS(callfs.read_mount_options(callfs.SQLFS, options), mount_context(folder))


def sql_rows(filesystem: Any, statement: str, *values: Any) -> list[Any]:
    """What the database has to say."""
    return filesystem._database.run(lambda session: session.execute(statement, values)).rows


def check_tables(filesystem: Any) -> None:
    """Nothing is being read, nothing owed; each chunk belongs to an entry, each entry to a directory and has its bytes."""
    assert not filesystem._uses._counts and not filesystem._uses._owed
    entries = sql_rows(filesystem, "SELECT parent, id, type, size, content, generation FROM sqlfs_entries")
    folders = {"root", *(row[1] for row in entries if row[2] == "directory")}
    assert {row[0] for row in entries} <= folders
    assert {row[0] for row in sql_rows(filesystem, "SELECT content FROM sqlfs_chunks")} <= {row[4] for row in entries}
    for _, _, kind, size, content, generation in entries:
        chunks = sql_rows(filesystem, "SELECT number, generation FROM sqlfs_chunks WHERE content = ? ORDER BY number", content)
        assert [int(number) for number, _ in chunks] == list(range(-(-int(size) // callfs.SQL_CHUNK))), kind
        assert all(int(one) <= int(generation) for _, one in chunks)


class SQLFSContract(FileSystemContract):
    """On every database the same."""

    def check(self, tree: Any, folder: Path) -> None:
        check_tables(tree._root)

    @pytest.mark.parametrize("size", [0, 1, callfs.SQL_CHUNK, callfs.SQL_CHUNK + 1, callfs.SQL_BATCH - 1, callfs.SQL_BATCH,
                                      callfs.SQL_BATCH + 1, 2 * callfs.SQL_BATCH + callfs.SQL_CHUNK])
    @pytest.mark.parametrize("announced", [True, False])
    def test_sizes(self, tree: Any, size: int, announced: bool) -> None:
        """Around the bounds of chunks and transactions; and parts of it."""
        data = os.urandom(1000) * (size // 1000 + 1)
        body = callfs.FileBody(io.BytesIO(data[:size]), size if announced else None)
        assert tree.write(ALICE, "/f", body).entry.digest == hashlib.sha256(data[:size]).hexdigest()
        assert fetch(tree, "/f") == data[:size]
        for start in {0, size // 2, max(0, size - 1), min(size, callfs.SQL_CHUNK)}:
            for stop in {start, min(size, start + 1), min(size, start + callfs.SQL_CHUNK), size}:
                with contextlib.closing(tree.open(ALICE, "/f")) as handle:
                    assert b"".join(handle.reader(start, stop)) == data[start:stop]

    def test_a_large_body_that_breaks_off(self, tree: Any) -> None:
        """After chunks of it have been committed: they are gone (see `check`), the old version is there."""
        put(tree, "/f", b"old")
        with pytest.raises(callfs.Disconnected):
            tree.write(ALICE, "/f", BrokenBody(bytes(callfs.SQL_BATCH + 1), None, callfs.Disconnected()))
        assert fetch(tree, "/f") == b"old"

    def test_patches_against_a_model(self, tree: Any) -> None:
        """Patches and truncations of any place and size, with readers of old versions."""
        some, model, handles = random.Random(1), bytearray(), []    # type: Any, bytearray, list[Any]
        put(tree, "/f", b"")
        bounds = [0, 1, callfs.SQL_CHUNK - 1, callfs.SQL_CHUNK, callfs.SQL_CHUNK + 1, 3 * callfs.SQL_CHUNK, callfs.SQL_BATCH]
        for turn in range(30):
            offset = min(len(model), some.choice([*bounds, len(model), some.randrange(len(model) + 1)]))
            if turn % 5 == 4:
                size = some.choice([offset, len(model) + some.choice(bounds[:5])])
                tree.truncate(ALICE, "/f", size)
                model = model[:size] + bytes(max(0, size - len(model)))
            else:
                data = bytes([turn + 1]) * some.choice(bounds)
                tree.patch(ALICE, "/f", callfs.bytes_body(data), offset)
                model[offset:offset + len(data)] = data
            assert fetch(tree, "/f") == model
            if turn % 7 == 0:
                handles.append((tree.open(ALICE, "/f"), bytes(model)))
        for handle, data in handles:
            with handle.reader() as reader:
                assert b"".join(reader) == data

    def test_truncate_chmod_and_touch(self, tree: Any) -> None:
        """The bytes, or what is known of them."""
        old = put(tree, "/f", b"abcdef").entry
        assert tree.truncate(ALICE, "/f", 3).entry.size == 3 and fetch(tree, "/f") == b"abc"
        entry = tree.truncate(ALICE, "/f", 5).entry
        assert fetch(tree, "/f") == b"abc\0\0" and entry.etag != old.etag and entry.digest == ""
        assert tree.chmod(ALICE, "/f", 0o600).mode == 0o600 == tree.stat(ALICE, "/f").mode
        assert tree.touch(ALICE, "/f", 1_234_567_890_123_456_789).entry == tree.stat(ALICE, "/f")
        now = tree.stat(ALICE, "/f")
        assert (now.mtime_ns, now.etag, now.id) == (1_234_567_890_123_456_789, entry.etag, old.id)
        for refused in (lambda: tree.chmod(ALICE, "/", 0o700), lambda: tree.touch(ALICE, "/", 1)):
            with pytest.raises(callfs.CallerError):
                refused()

    def test_long_paths(self, tree: Any) -> None:
        """As long as a path may be, deeper than one statement looks; what is longer is refused."""
        path = "/" + "/".join(["é" * 120] * 16)
        put(tree, path, b"deep")
        tree.move(ALICE, "/" + "é" * 120, "/short")
        assert fetch(tree, "/short" + path[121:]) == b"deep"
        for wrong in ("/" + "x" * 256, "/" + "/".join(["x" * 250] * 17)):
            with pytest.raises(callfs.BadRequest, match="longer"):
                put(tree, wrong)

    def test_two_processes(self, tree: Any, tmp_path: Path) -> None:
        """Another one on the same tables sees a change after the time of its cache; a version that it reads and that is
        replaced ends in an error, never in other bytes."""
        with contextlib.closing(self.make(tmp_path / "data")) as filesystem:
            other = callfs.Tree(filesystem)
            size = 6 * callfs.SQL_CHUNK
            put(tree, "/f", b"1" * size)
            with contextlib.closing(other.open(ALICE, "/f")) as handle:
                reader = handle.reader()
                got = reader.read()
                tree.patch(ALICE, "/f", callfs.bytes_body(b"2" * callfs.SQL_CHUNK), size - callfs.SQL_CHUNK)
                with pytest.raises(callfs.StorageError, match="replaced"):
                    for block in reader:
                        got += block
                assert set(got) == {ord("1")}
            wait_for(lambda: other.stat(ALICE, "/f") == tree.stat(ALICE, "/f"), 10, "the end of the cache's time")
            assert fetch(other, "/f")[-1:] == b"2"
            with contextlib.closing(other.open(ALICE, "/f")) as handle:
                put(tree, "/f", b"3" * size)
                with pytest.raises(callfs.StorageError, match="replaced"):
                    b"".join(handle.reader())

    def test_writers_of_two_processes(self, tree: Any, tmp_path: Path) -> None:
        """Into the same new directory: one directory, all files; counted up with conditions: no step is lost."""
        with contextlib.closing(self.make(tmp_path / "data")) as filesystem:
            trees = [tree, callfs.Tree(filesystem)]
            in_threads(lambda number: put(trees[number % 2], f"/new/deep/{number}"), 8)
            assert [entry.name for entry in trees[1].list(ALICE, "/new/deep")] == [str(number) for number in range(8)]
            put(tree, "/n", b"0")

            def step(number: int) -> None:
                for _ in range(5):
                    while True:
                        one = trees[number % 2]
                        with contextlib.suppress(callfs.PreconditionFailed, callfs.StorageError):
                            with contextlib.closing(one.open(ALICE, "/n")) as handle:
                                data = b"%d" % (int(b"".join(handle.reader())) + 1)
                                put(one, "/n", data, conditions=callfs.Conditions(if_match=f'"{handle.entry.etag}"'))
                                break
                        one._root._forget()
            in_threads(step, 4)
            tree._root._forget()
            assert fetch(tree, "/n") == b"20"


class TestSQLFSOnSQLite(SQLFSContract):
    """A file of its own."""

    def make(self, folder: Path) -> Any:
        return make_sqlfs(folder, cache_ttl_seconds="1s")

    def test_the_file(self, tmp_path: Path) -> None:
        """Relative to the context's folder, for nobody else; everything is there again after a restart."""
        tree = callfs.Tree(make_sqlfs(tmp_path / "d", db_path="sub/my.db"))
        put(tree, "/a/b", b"kept")
        before = tree.stat(ALICE, "/a/b")
        tree.close()
        assert (tmp_path / "d/sub/my.db").stat().st_mode & 0o777 == 0o600
        tree = callfs.Tree(make_sqlfs(tmp_path / "d", db_path="sub/my.db", cache_enabled="false"))
        assert tree.stat(ALICE, "/a/b") == before and fetch(tree, "/a/b") == b"kept"
        assert tree.check() == {"database": "ok"} and not tree._root.slow
        tree.close()

    @pytest.mark.parametrize("options", [{"backend": "oracle"}, {"backend": "postgres"}, {"host": "h"}, {"port": "x"},
                                         {"backend": "mysql", "dsn": "nonsense"}])
    def test_wrong_options(self, tmp_path: Path, options: dict[str, Any]) -> None:
        """400."""
        with pytest.raises(callfs.BadRequest):
            make_sqlfs(tmp_path, **options)

    def test_a_newer_schema(self, tmp_path: Path) -> None:
        """Is left alone."""
        with contextlib.closing(make_sqlfs(tmp_path)) as filesystem:
            filesystem._database.run(lambda session: session.execute("UPDATE sqlfs_schema SET version = 2"))
        with nothing_left(2), pytest.raises(callfs.Unavailable, match="newer"):
            make_sqlfs(tmp_path)

    def test_left_over_chunks_are_swept(self, tmp_path: Path) -> None:
        """When they are older than an hour; an upload whose chunks were swept says so and changes nothing."""
        with contextlib.closing(make_sqlfs(tmp_path)) as filesystem:
            tree, now = callfs.Tree(filesystem), time.time_ns()
            put(tree, "/f", b"data")
            for content in (callfs._content_id(now - 3700 * 10**9), callfs._content_id(now - 3000 * 10**9)):
                filesystem._database.run(lambda session: filesystem._put(session, content, 0, 0, memoryview(b"x")))

            class Slow(callfs.Body):
                length = None

                def readinto(self, view: memoryview) -> int:
                    filesystem._delete(callfs.StaleChunks(sql_rows(filesystem, "SELECT MAX(content) FROM sqlfs_chunks")[0][0]))
                    self.readinto = lambda view: 0          # type: ignore[method-assign]
                    return 0
            body = io.BytesIO(bytes(callfs.SQL_BATCH))
            slow = Slow()

            class Both(callfs.Body):
                length = None

                def readinto(self, view: memoryview) -> int:
                    return body.readinto(view) or slow.readinto(view)
            with pytest.raises(callfs.Unavailable, match="swept"):
                tree.write(ALICE, "/f", Both())
            assert fetch(tree, "/f") == b"data"
        with contextlib.closing(make_sqlfs(tmp_path)) as filesystem:
            ages = [now - int(row[0][:16], 16) for row in sql_rows(filesystem, "SELECT content FROM sqlfs_chunks")]
            assert sorted(age // 10**9 for age in ages)[1:] == [3000] and len(ages) == 2
            assert fetch(callfs.Tree(filesystem), "/f") == b"data"

    def test_memory(self, tmp_path: Path) -> None:
        """Of large files, in and out, it holds some transactions' bytes."""
        with contextlib.closing(make_sqlfs(tmp_path)) as filesystem:
            size = 48 * 1024 * 1024
            tracemalloc.start()
            try:
                callfs.Tree(filesystem).write(ALICE, "/f", callfs.ZeroBody(size))
                with contextlib.closing(filesystem.open("/f")) as handle:
                    assert sum(map(len, handle.reader())) == size
                assert tracemalloc.get_traced_memory()[1] < 12 * 1024 * 1024
            finally:
                tracemalloc.stop()

    def test_own_changes_are_seen_at_once(self, tmp_path: Path) -> None:
        """Whatever is remembered; what others changed after the cache's time."""
        with contextlib.closing(make_sqlfs(tmp_path, cache_ttl_seconds="1h")) as filesystem, \
                contextlib.closing(make_sqlfs(tmp_path, cache_ttl_seconds="1h")) as other:
            tree = callfs.Tree(filesystem)
            for turn in range(50):
                put(tree, "/d/f", b"%d" % turn)
                assert fetch(tree, "/d/f") == b"%d" % turn and tree.stat(BOB, "/d").is_dir
            tree.move(ALICE, "/d", "/e")
            with pytest.raises(callfs.FileNotFound):
                tree.stat(ALICE, "/d/f")
            assert other.stat("/e/f").size == 2
            put(tree, "/e/f", b"longer")
            assert other.stat("/e/f").size == 2 and filesystem.stat("/e/f").size == 6

    def test_kill_in_the_middle_of_writes(self, tmp_path: Path) -> None:
        """-9 again and again: the file is a whole old or new one, never older than the last that was answered."""
        script = textwrap.dedent("""
            import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True
            import callfs
            context = callfs.MountContext("/", None, None, callfs.Metrics(), sys.argv[2])
            fs = callfs.SQLFS(callfs.read_mount_options(callfs.SQLFS, {}), context)
            for number in range(int(sys.argv[3]), 1 << 30):
                data = (b"%08d" % number) * 700_000
                fs.write("/f", callfs.bytes_body(data), "alice", lambda there: None, callfs.WriteOptions())
                print(number, flush=True)
            """)
        number, place = 0, os.path.dirname(compiled())
        for turn in range(4):
            process = subprocess.Popen([sys.executable, "-c", script, place, str(tmp_path), str(number)], stdout=subprocess.PIPE)
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(2)]
            time.sleep(0.03 * turn)         # somewhere in the next write
            process.kill()
            lines += process.stdout.read().split(b"\n")
            process.stdout.close()
            process.wait()
            answered = max(int(line) for line in lines if line.strip())
            with contextlib.closing(make_sqlfs(tmp_path)) as filesystem:
                data = fetch(callfs.Tree(filesystem), "/f")
            number = int(data[:8])
            assert data == data[:8] * 700_000 and number in (answered, answered + 1)

    def test_over_http(self, serve: Any, tmp_path: Path) -> None:
        """In a server, from its configuration."""
        with nothing_left():
            server = serve(plugins={"sqlfs": {"path": "/sql", "config": {"db_path": str(tmp_path / "files.db")}}})
            assert call(server, "PUT", "/v1/files/sql/100%25_/a", b"x" * 1_000_000).status in (200, 201)
            answer = call(server, "GET", "/v1/files/sql/100%25_/a", headers={"range": "bytes=999990-"})
            assert answer.status == 206 and answer.body == b"x" * 10
            assert call(server, "DELETE", "/v1/files/sql/100%25_/a").status in (200, 204)
            server.close()


class ServedSQLFS(SQLFSContract):
    """On a database server."""

    @pytest.fixture(autouse=True)
    def _tables(self, server: Any) -> None:
        with contextlib.closing(callfs.open_database(server.options)) as database:
            for table in ("schema", "entries", "chunks"):
                database.run(lambda session: session.execute(f"DROP TABLE IF EXISTS sqlfs_{table}"))
        self.options = server.options

    def make(self, folder: Path) -> Any:
        known = {field.name for field in dataclasses.fields(callfs.SQLFS.Options)}
        return make_sqlfs(folder, cache_ttl_seconds="1s", **{key: self.options[key] for key in known & set(self.options)})

    def test_the_server_goes_away(self, server: Any, tree: Any) -> None:
        """503, then everything works again."""
        put(tree, "/f", b"before")
        server.stop(signal.SIGKILL if server.name == "mysql" else signal.SIGQUIT)
        try:
            for ask in (lambda: put(tree, "/f", b"not"), lambda: tree.stat(ALICE, "/g")):
                with pytest.raises(callfs.Unavailable) as caught:
                    ask()
                assert caught.value.status == 503
            assert tree.check()["database"] != "ok" and tree._root.slow
        finally:
            server.start()
            server.wait(server.options)
        assert fetch(tree, "/f") == b"before" and tree.check() == {"database": "ok"}
        put(tree, "/f", b"after")
        assert fetch(tree, "/f") == b"after"


@pytest.mark.once                           # the wire is tested by TestPostgresDatabase, sqlfs itself on SQLite
class TestSQLFSOnPostgres(ServedSQLFS):
    """PostgreSQL."""

    @pytest.fixture
    def server(self, postgres_server: Any) -> Any:
        return postgres_server


@pytest.mark.long                           # the wire is tested by TestMariaDBDatabase, the statements on two others
class TestSQLFSOnMariaDB(ServedSQLFS):
    """MariaDB."""

    @pytest.fixture
    def server(self, mariadb_server: Any) -> Any:
        return mariadb_server


# ============================================================================
# Mounts: filesystems by their type, from the configuration and at run time
# ============================================================================


class OptionsFS(callfs.HelloFS):
    """Has an option of each kind."""

    name = "optionsfs"
    aliases = {"port": "http_port"}

    @dataclasses.dataclass
    class Options:
        http_port: int = callfs.option(0, "A port", kind="int", minimum=0, maximum=65535)
        password: str = callfs.option("", "A secret", kind="secret")
        folder: str = callfs.option("", "A text")
        init_dirs: list = callfs.option([], "A list", kind="list")
        on: bool = callfs.option(False, "A flag", kind="bool")
        size: int = callfs.option("1MB", "A size", kind="size")
        fail: bool = callfs.option(False, "Do not work", kind="bool")

    def __init__(self, options: Any, context: Any) -> None:
        super().__init__(options, context)
        self.options, self.context, self.closed = options, context, False
        if options.fail:
            raise callfs.Unavailable("The other side does not answer.")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def mounting(rig: Rig) -> Iterator[Any]:
    """`callfs.Mounts` on a store, with the types hellofs and optionsfs."""
    log = callfs.Log("error", "console", "", False)
    mounts = callfs.Mounts(rig.tree, rig.store, callfs.MountContext("/", rig.tree, log, rig.metrics, rig.root))
    mounts.types["optionsfs"] = OptionsFS
    yield mounts
    log.close()


ADMIN = callfs.Principal("admin", admin=True)


class TestMounts:
    """`callfs.Mounts`."""

    def test_options_in_every_spelling(self, mounting: Any, rig: Rig) -> None:
        """Numbers as texts (a shell), texts as numbers (YAML), the other name of an option."""
        given = {"port": "9000", "password": 1234, "folder": "x", "init_dirs": "/a,/b", "on": "true", "size": "10MB"}
        mounting.mount(ADMIN, "/o", "optionsfs", given)
        options = rig.tree._find("/o").filesystem.options
        assert dataclasses.asdict(options) == {"http_port": 9000, "password": "1234", "folder": "x", "on": True,
                                               "init_dirs": ["/a", "/b"], "size": 10_000_000, "fail": False}
        assert mounting.list(ALICE) == [{"path": "/o", "pluginName": "optionsfs",
                                         "config": {**given, "password": callfs.MASK}}]

    @pytest.mark.parametrize("path, kind, config, error, word", [
        ("/x", "nofs", {}, callfs.BadRequest, "hellofs"), ("/x", "optionsfs", {"colour": 1}, callfs.BadRequest, "http_port"),
        ("/x", "optionsfs", {"http_port": "many"}, callfs.BadRequest, "http_port"),
        ("/x", "optionsfs", {"http_port": 70000}, callfs.BadRequest, "65535"),
        ("/x", "optionsfs", {"port": 1, "http_port": 2}, callfs.BadRequest, "same option"),
        ("/x", "hellofs", {"a": 1}, callfs.BadRequest, "none"), ("/", "hellofs", {}, callfs.Conflict, "root"),
        ("/f/x", "hellofs", {}, callfs.Conflict, "file"), ("/x", "optionsfs", {"fail": True}, callfs.Unavailable, "answer")])
    def test_what_is_refused(self, mounting: Any, rig: Rig, path: str, kind: str, config: Any, error: Any, word: str) -> None:
        """With what is allowed; nothing is mounted or remembered."""
        put(rig.tree, "/f")
        with pytest.raises(error, match=word):
            mounting.mount(ADMIN, path, kind, config)
        assert mounting.list(ALICE) == [] == rig.store.mounts() and shown(rig.tree) == ["/f"]

    def test_who_may(self, mounting: Any) -> None:
        """Administrators; everybody may look."""
        for who, error in ((ALICE, callfs.PermissionDenied), (callfs.ANONYMOUS["write"], callfs.AuthenticationFailed)):
            with pytest.raises(error):
                mounting.mount(who, "/x", "hellofs", {})
        for who in (ADMIN, callfs.ROOT):
            mounting.mount(who, "/x", "hellofs", {})
            with pytest.raises(callfs.PermissionDenied):
                mounting.unmount(ALICE, "/x")
            mounting.unmount(who, "/x")
        with pytest.raises(callfs.FileNotFound):
            mounting.unmount(ADMIN, "/x")

    def test_a_mount_that_can_not_be_remembered_is_not_made(self, mounting: Any, rig: Rig,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
        """Or it would be gone after a restart without a word."""
        built: list[Any] = []
        monkeypatch.setattr(OptionsFS, "__init__", lambda self, options, context: built.append(self))
        monkeypatch.setattr(rig.store, "add_mount", lambda *row: (_ for _ in ()).throw(callfs.Unavailable()))
        with pytest.raises(callfs.Unavailable):
            mounting.mount(ADMIN, "/x", "optionsfs", {})
        assert shown(rig.tree) == [] and built[0].closed

    def test_a_broken_one_keeps_its_place(self, mounting: Any, rig: Rig) -> None:
        """503 with the reason, for readers and writers: nothing may fall through to what is covered."""
        put(rig.tree, "/x/below")
        mounting.start([callfs.MountSpec("/x", "optionsfs", {"fail": True}), callfs.MountSpec("/y", "nofs", {})])
        for ask in (lambda: rig.tree.stat(ALICE, "/x/below"), lambda: put(rig.tree, "/x/new"), lambda: shown(rig.tree, "/y"),
                    lambda: rig.tree.mkdir(ALICE, "/x/d"), lambda: rig.tree.remove(ALICE, "/x/below")):
            with pytest.raises(callfs.Unavailable, match="could not be mounted"):
                ask()
        assert {row["path"]: row.get("error", "")[:9] for row in mounting.list(ALICE)} == {"/x": "The other", "/y": "There is "}
        assert set(rig.tree.check_mounts()) == {"/x: mount", "/y: mount"} and shown(rig.tree) == ["/x", "/y"]
        mounting.unmount(ADMIN, "/x")
        assert fetch(rig.tree, "/x/below") == b"data"


@pytest.mark.parametrize("plugins, expected", [
    ({"hellofs": {"path": "/h"}}, [("/h", "hellofs")]),
    ({"hellofs": [{"name": "a", "path": "/h1"}, {"path": "/h2"}, {"path": "/h3", "enabled": False}]},
     [("/h1", "hellofs"), ("/h2", "hellofs")]),
    ({"hellofs_home": {"path": "/h/"}, "other": {"path": "/o", "type": "hellofs"}}, [("/h", "hellofs"), ("/o", "hellofs")]),
    ({"anonymous": "read"}, []), ({"hellofs": {"path": "/h", "enabled": True, "config": None}}, [("/h", "hellofs")]),
])
def test_mount_specs(plugins: Any, expected: Any) -> None:
    """One instance, a list of them, a name with the type before its `_`, or the type itself."""
    callfs.Config(plugins=plugins).validate(require_keys=False)
    assert [(spec.path, spec.fstype) for spec in callfs.mount_specs(plugins)] == expected


def test_mounts_come_back_after_a_restart(tmp_path: Path) -> None:
    """Those made at run time, with their options; those of the configuration by the configuration, which wins."""
    folder = str(tmp_path / "root")
    with callfs.Server(root=folder, plugins={"hellofs": {"path": "/of/config"}}) as server:
        server.mounts.mount(callfs.ROOT, "/kept/here", "hellofs", {})
        server.mounts.mount(callfs.ROOT, "/gone", "hellofs", {})
        server.mounts.unmount(callfs.ROOT, "/gone")
        server.mounts.unmount(callfs.ROOT, "/of/config")
    with callfs.Server(root=folder, plugins={"hellofs": [{"path": "/of/config"}, {"path": "/kept"}]}) as server:
        assert [row["path"] for row in server.mounts.list(callfs.ROOT)] == ["/kept", "/kept/here", "/of/config"]
        assert fetch(server.tree, "/kept/here/hello") == callfs.HelloFS.TEXT
    with callfs.Server(root=folder, mounts__persist=False) as server:
        assert server.mounts.list(callfs.ROOT) == []
        server.mounts.mount(callfs.ROOT, "/brief", "hellofs", {})
    with callfs.Server(root=folder) as server:
        assert [row["path"] for row in server.mounts.list(callfs.ROOT)] == ["/kept/here"]


# ============================================================================
# queuefs: message queues as directories
# ============================================================================

def anyone(info: Any) -> None:
    """A guard that lets everything pass."""


class FakeClock:
    """Nanoseconds that go on when a test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        return self.now

    def step(self, seconds: float) -> None:
        """Time passes."""
        self.now += int(seconds * 1e9)


def drain(store: Any, path: str) -> list[bytes]:
    """All messages of a queue, in order."""
    found = []
    while True:
        taken = store.take(path, [0])
        if not taken:
            return found
        found.append(taken[0].data)


class QueueStoreContract:
    """What every QueueStore does. A subclass says how to make one, and whether it is there after a restart."""

    durable = True

    def make(self, folder: Path) -> Any:
        """A store; made again on the same folder it has what was there."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Any]:
        with nothing_left(3):
            store = self.make(tmp_path)
            yield store
            store.close()

    def put(self, store: Any, *messages: bytes, path: str = "/q") -> list[int]:
        """Enqueue; the ids."""
        return [store.enqueue(path, data, anyone)[0].newest for data in messages]

    def test_first_in_first_out(self, store: Any) -> None:
        """Bytes are kept exactly, empty ones too; ids grow; peeking takes nothing."""
        messages = [b"", b"\0\xff", "é".encode(), b"x" * 300_000, b"y" * 100_000, b"", b"last"]
        ids = self.put(store, *messages)
        assert ids == sorted(set(ids)) and abs(ids[0] - time.time_ns()) < 60e9
        assert store.first("/q").data == b"" and store.get("/q").size == 7 and store.get("/q").newest == ids[-1]
        taken = store.take("/q", [0] * 5)
        assert [(one.id, one.data) for one in taken] == list(zip(ids, messages))[:5]
        assert store.first("/q").data == b"" and store.get("/q").size == 2
        assert drain(store, "/q") == messages[5:] and store.first("/q") is None
        assert store.get("/q").size == 0 and store.get("/q").newest == ids[-1]

    def test_absent(self, store: Any) -> None:
        """What needs a queue says so."""
        assert store.get("/no") is None and store.get("/no/deep") is None
        for ask in (lambda: store.take("/no", [0]), lambda: store.first("/no"), lambda: store.clear("/no"),
                    lambda: store.acknowledge("/no", 1), lambda: store.children("/no"),
                    lambda: store.remove("/no", True, anyone),
                    lambda: store.move("/no", "/new", anyone, anyone, True)):
            with pytest.raises(callfs.FileNotFound):
                ask()
        assert store.children("/") == [] and store.get("/").id == 0

    def test_directories(self, store: Any) -> None:
        """Parents are made, but are no queues of their own until they are made or used; names sort by code point."""
        assert store.make("/a/b/c", anyone) and not store.make("/a/b/c", anyone)
        assert [store.get(path).own for path in ("/a", "/a/b", "/a/b/c")] == [False, False, True]
        assert store.make("/a", anyone) and store.get("/a").own
        self.put(store, b"1", path="/a/b")
        assert store.get("/a/b").own and store.get("/a/b").size == 1
        for name in ("\U0001f600", "é", "e ", "E", "e", "e%_"):
            store.make("/n/" + name, anyone)
        assert [info.path for info in store.children("/n")] == ["/n/E", "/n/e", "/n/e ", "/n/e%_", "/n/é", "/n/\U0001f600"]
        assert [info.path for info in store.children("/")] == ["/a", "/n"]

    def test_removing_loses_nothing_by_accident(self, store: Any) -> None:
        """Only an empty queue goes without being asked twice; leased messages count."""
        self.put(store, b"1", path="/q")
        self.put(store, b"2", path="/q/sub")
        for path in ("/q", "/q/sub"):
            with pytest.raises(callfs.DirectoryNotEmpty):
                store.remove(path, False, anyone)
        taken = store.take("/q/sub", [60])[0]
        with pytest.raises(callfs.DirectoryNotEmpty):
            store.remove("/q/sub", False, anyone)
        store.acknowledge("/q/sub", taken.id)
        store.remove("/q/sub", False, anyone)
        self.put(store, b"3", path="/q/sub/deep")
        store.remove("/q", True, anyone)
        assert store.get("/q") is None and store.get("/q/sub/deep") is None
        store.make("/q/sub/deep", anyone)
        assert store.get("/q/sub/deep").size == 0 and store.first("/q/sub/deep") is None
        with pytest.raises(callfs.BadRequest):
            store.remove("/", True, anyone)

    def test_guards_decide(self, store: Any) -> None:
        """A guard sees what is there, and what it refuses does not happen, also in a commit with others."""
        seen: list[Any] = []

        def refuse(info: Any) -> None:
            seen.append(info and info.path)
            raise callfs.PermissionDenied()
        self.put(store, b"1")
        for ask in (lambda: store.enqueue("/q", b"", refuse), lambda: store.enqueue("/new/x", b"", refuse),
                    lambda: store.make("/new", refuse), lambda: store.remove("/q", True, refuse),
                    lambda: store.move("/q", "/p", refuse, anyone, True),
                    lambda: store.move("/q", "/p", anyone, refuse, True)):
            with pytest.raises(callfs.PermissionDenied):
                ask()
        assert seen == ["/q", None, None, "/q", "/q", None]
        assert [info.path for info in store.children("/")] == ["/q"] and store.get("/q").size == 1

    def test_moving(self, store: Any) -> None:
        """A queue with its messages, leases and sub-queues gets another path; what is in the way must be empty."""
        self.put(store, b"1", b"2", path="/a/q")
        self.put(store, b"s", path="/a/q/sub")
        leased = store.take("/a/q", [60])[0]
        with pytest.raises(callfs.BadRequest):
            store.move("/a/q", "/b/c/q", anyone, anyone, False)
        store.move("/a/q", "/b/c/q", anyone, anyone, True)
        assert store.get("/a/q") is None and store.children("/a") == [] and store.get("/b/c/q").size == 1
        store.acknowledge("/b/c/q", leased.id)
        self.put(store, b"full", path="/full")
        with pytest.raises(callfs.DirectoryNotEmpty):
            store.move("/b/c/q", "/full", anyone, anyone, True)
        store.make("/empty", anyone)
        store.move("/b/c/q", "/empty", anyone, anyone, True)
        assert drain(store, "/empty") == [b"2"] and drain(store, "/empty/sub") == [b"s"] and drain(store, "/full") == [b"full"]

    def test_leases(self, store: Any) -> None:
        """A leased message is hidden, confirmed once, or comes back to its place with its id."""
        clock = store.clock = FakeClock()
        ids = self.put(store, b"1", b"2", b"3")
        first, second = store.take("/q", [60, 30])
        assert (first.data, second.data) == (b"1", b"2") and store.get("/q").size == 1 and store.first("/q").data == b"3"
        store.acknowledge("/q", first.id)
        for number in (first.id, ids[2] + 1):
            with pytest.raises(callfs.FileNotFound):
                store.acknowledge("/q", number)
        clock.step(29.9)
        assert store.first("/q").data == b"3" and store.get("/q").size == 1
        clock.step(0.2)
        assert store.get("/q").size == 2 and store.first("/q") == second
        with pytest.raises(callfs.Conflict, match="run out"):
            store.acknowledge("/q", second.id)
        assert [one.data for one in store.take("/q", [10, 5])] == [b"2", b"3"]
        clock.step(6)
        self.put(store, b"4")
        assert store.children("/")[0].size == 2 and store.first("/q").data == b"3"
        clock.step(60)
        assert drain(store, "/q") == [b"2", b"3", b"4"]

    def test_giving_back(self, store: Any) -> None:
        """In front of what came later, in the old order, leased or not, after a move too; into nothing: lost."""
        self.put(store, b"1", b"2", b"3")
        one, two = store.take("/q", [0, 60])
        store.give_back(two, True)
        store.move("/q", "/p", anyone, anyone, True)
        store.give_back(one, False)
        assert store.get("/p").size == 3 and drain(store, "/p") == [b"1", b"2", b"3"]
        store.give_back(two, True)          # is no lease any more: must not come twice
        assert store.get("/p").size == 0
        store.remove("/p", True, anyone)
        store.give_back(one, False)
        assert store.children("/") == []

    def test_clearing(self, store: Any) -> None:
        """Leased messages too; the queue stays."""
        self.put(store, *(b"%d" % number for number in range(100)))
        leased = store.take("/q", [60] * 3)
        store.clear("/q")
        with pytest.raises(callfs.FileNotFound):
            store.acknowledge("/q", leased[0].id)
        assert store.get("/q").size == 0 and store.get("/q").newest and drain(store, "/q") == []
        self.put(store, b"new")
        assert drain(store, "/q") == [b"new"]

    def test_ids_grow_whatever_the_clock_does(self, store: Any, tmp_path: Path) -> None:
        """It stands still, it is set back; and over a restart."""
        clock = store.clock = FakeClock()
        ids = self.put(store, b"1", b"2", path="/a") + self.put(store, b"3", path="/b")
        clock.step(-3600)
        ids += self.put(store, b"4", path="/a")
        assert ids == sorted(set(ids))
        if self.durable:
            store.close()
            again = self.make(tmp_path)
            try:
                again.clock = clock
                assert self.put(again, b"5", path="/b")[0] > ids[-1]
                assert drain(again, "/a") == [b"1", b"2", b"4"] and drain(again, "/b") == [b"3", b"5"]
            finally:
                again.close()

    def test_exactly_once(self, store: Any) -> None:
        """16 producers and 16 consumers: every message comes out once, in order for each producer."""
        count, taken, done = 30, collections.defaultdict(list), threading.Event()    # type: int, Any, Any

        def produce(producer: int) -> None:
            for number in range(count):
                store.enqueue("/q", b"%d %d" % (producer, number), anyone)

        def consume(consumer: int) -> None:
            while True:
                last = done.is_set()        # asked before, so that nothing comes between
                found = store.take("/q", [0, 0] if consumer % 2 else [0])
                taken[consumer] += [tuple(map(int, one.data.split())) for one in found]
                if last and not found:
                    return
        store.make("/q", anyone)
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            consumers = [pool.submit(consume, number) for number in range(16)]
            for producer in [pool.submit(produce, number) for number in range(16)]:
                producer.result(60)
            done.set()
            for consumer in consumers:
                consumer.result(60)
        everything = [one for some in taken.values() for one in some]
        assert sorted(everything) == [(producer, number) for producer in range(16) for number in range(count)]
        for some in taken.values():
            for producer in range(16):
                mine = [number for one, number in some if one == producer]
                assert mine == sorted(mine)
        assert store.get("/q").size == 0 and store.first("/q") is None

    STEPS = 40

    def test_model(self, tmp_path: Path) -> None:
        """Random steps against two lists: what waits, what is leased."""
        strategy = {"steps": lambda st: st.lists(st.tuples(st.sampled_from("eeetttlagcx"), st.integers(0, 3)), max_size=self.STEPS)}
        store, runs = self.make(tmp_path), itertools.count()
        try:
            property_test(25, **strategy)(lambda steps: self.check_model(store, f"/model{next(runs)}", steps))()
        finally:
            store.close()

    def check_model(self, store: Any, path: str, steps: list[tuple[str, int]]) -> None:
        """e: enqueue; t: take; l: lease; a: acknowledge; g: give back what was leased; c: clear; x: time passes."""
        clock = store.clock = FakeClock()
        clock.now = store.enqueue(path, b"start", anyone)[0].newest
        waiting, leased = store.take(path, [0])[:0], []         # type: list[Any], list[Any]
        for number, (step, count) in enumerate(steps):
            if step == "e":
                data = b"%d" % number
                waiting.append((store.enqueue(path, data, anyone)[0].newest, data))
            elif step in "tl":
                found = store.take(path, [10.0 if step == "l" else 0] * count)
                assert [one[:2] for one in found] == waiting[:count]
                leased += found if step == "l" else []
                del waiting[:count]
            elif step == "c" and count == 0:
                store.clear(path)
                waiting, leased = [], []
            elif step == "x":
                clock.step(11)
                waiting, leased = sorted([*waiting, *(one[:2] for one in leased)]), []
            elif leased and step in "ag":
                one = leased.pop(count % len(leased))
                if step == "a":
                    store.acknowledge(path, one.id)
                else:
                    store.give_back(one, True)
                    waiting = sorted([*waiting, one[:2]])
            first = store.first(path)
            assert store.get(path).size == len(waiting) and (first and first[:2]) == (waiting[0] if waiting else None)


class TestMemoryQueues(QueueStoreContract):
    """In memory."""

    durable = False

    def make(self, folder: Path) -> Any:
        """Anew."""
        return callfs.MemoryQueues()

    def test_a_budget(self) -> None:
        """`max_bytes` bounds all messages together; what goes out makes room, by every way out."""
        store = callfs.MemoryQueues(10_000)
        with pytest.raises(callfs.StorageFull):
            for _ in range(100):
                store.enqueue("/q", b"x" * 1000, anyone)
        count = store.get("/q").size
        assert 7 <= count <= 10
        for way in (lambda: store.take("/q", [0]), lambda: store.acknowledge("/q", store.take("/q", [60])[0].id),
                    lambda: store.clear("/q"), lambda: store.remove("/q", True, anyone)):
            way()
            while store._bytes + 1160 <= 10_000:
                store.enqueue("/q", b"x" * 1000, anyone)
            assert store.get("/q").size == count
        store.give_back(store.take("/q", [0])[0], False)
        store.clear("/q")
        assert store._bytes == 0

    def test_a_small_message_is_small(self) -> None:
        """At most 400 bytes besides its own; at 20,000 messages as at none, taking the first is quick."""
        store = callfs.MemoryQueues()
        store.make("/q", anyone)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(20_000):
                store.enqueue("/q", b"%010d" % number, anyone)
            each = (tracemalloc.get_traced_memory()[0] - before) / 20_000
        finally:
            tracemalloc.stop()
        assert each < 410 and store._bytes / 20_000 > each * 0.7

    def test_leases_that_ended_are_forgotten(self) -> None:
        """However many are confirmed before their time."""
        store = callfs.MemoryQueues()
        for _ in range(1000):
            store.enqueue("/q", b"x", anyone)
            store.acknowledge("/q", store.take("/q", [3600])[0].id)
        assert len(store._find("/q").expiries) < 100


class TestSQLiteQueues(QueueStoreContract):
    """In a file."""

    def make(self, folder: Path) -> Any:
        """On the same file."""
        return callfs.DatabaseQueues(callfs.open_database({"backend": "sqlite", "db_path": str(folder / "q.db")}))

    def test_one_that_fails_takes_no_other_with_it(self, store: Any) -> None:
        """A bug or a refusal of the database in a shared commit: the others are done, each in its own."""
        def broken(queues: Any) -> None:
            queues.execute("INSERT INTO no_such_table VALUES (1)")
        good = [callfs._Job(lambda queues: queues.add(queues.make("/q", True), b"x")) for _ in range(3)]
        bad = [callfs._Job(broken), callfs._Job(lambda queues: 1 / 0)]
        store._commit([good[0], bad[0], good[1], bad[1], good[2]])
        assert [type(job.error) for job in bad] == [callfs.DatabaseError, ZeroDivisionError]
        assert all(job.done and job.error is None for job in good) and store.get("/q").size == 3

    def test_messages_deleted_by_hand(self, store: Any) -> None:
        """The counter that is too high then is no reason to fail, and is right again."""
        self.put(store, b"1", b"2")
        store._database.run(lambda session: session.execute("DELETE FROM queuefs_messages"))
        assert store.first("/q") is None and store.take("/q", [0]) == [] and store.get("/q").size == 0
        self.put(store, b"3")
        assert drain(store, "/q") == [b"3"]
        store.check()
        store.close()
        with pytest.raises(callfs.Unavailable):
            store.check()

    def test_looking_waits_for_no_writer(self, store: Any, tmp_path: Path) -> None:
        """While another process writes, size and peek answer."""
        self.put(store, b"1")
        with contextlib.closing(sqlite3.connect(tmp_path / "q.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert store.get("/q").size == 1 and store.first("/q").data == b"1" and store.children("/")
            other.execute("ROLLBACK")

    def test_tables_of_a_later_version(self, store: Any, tmp_path: Path) -> None:
        """Are left alone."""
        store._database.run(lambda session: session.execute("UPDATE queuefs_state SET value = 2 WHERE name = 'version'"))
        with pytest.raises(callfs.ConfigError, match="later version"):
            store.__init__(store._database)

    def test_finding_needs_no_walk(self, store: Any) -> None:
        """The first message and leases that ran out are found by the index, and no sort: O(log n) at any size."""
        for query in ("SELECT id FROM queuefs_messages WHERE queue = 1 AND lease = 0 ORDER BY id LIMIT 1",
                      "SELECT lease FROM queuefs_messages WHERE queue = 1 AND lease > 0 ORDER BY lease LIMIT 1",
                      "SELECT id FROM queuefs_messages WHERE queue = 1 AND lease > 0 AND lease <= 5"):
            plan = store._database.run(lambda session, query=query: session.execute("EXPLAIN QUERY PLAN " + query)).rows
            assert "queuefs_order (queue=?" in str(plan) and "TEMP B-TREE" not in str(plan), plan

    KILLED = """if True:
        import sys, callfs, threading
        store = callfs.DatabaseQueues(callfs.open_database({"backend": "sqlite", "db_path": sys.argv[1]}))
        mutex = threading.Lock()

        def say(*words):
            with mutex:
                sys.stdout.write(" ".join(map(str, words)) + "\\n")
                sys.stdout.flush()

        def produce(name):
            for number in range(100000):
                say("in", store.enqueue("/q", b"%d %d" % (name, number), lambda info: None)[0].newest)

        def consume():
            while True:
                for message in store.take("/q", [3600]):
                    store.acknowledge("/q", message.id)
                    say("out", message.id)
        store.make("/q", lambda info: None)
        for name in range(4):
            threading.Thread(target=produce, args=(name,), daemon=True).start()
        for name in range(3):
            threading.Thread(target=consume, daemon=True).start()
        threading.Event().wait()
    """

    @pytest.mark.parametrize("lines", [20, 300])
    def test_killed(self, tmp_path: Path, lines: int) -> None:
        """What was acknowledged is there, what was confirmed is not; the rest comes once; the counter is right."""
        path = str(tmp_path / "q.db")
        environ = {**os.environ, "PYTHONPATH": os.path.dirname(compiled())}
        process = subprocess.Popen([sys.executable, "-c", self.KILLED, path], stdout=subprocess.PIPE, env=environ, text=True)
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        words = [line.split() for line in said if line.endswith("\n")]
        put, confirmed = ({int(number) for what, number in words if what == kind} for kind in ("in", "out"))
        assert put and (confirmed or lines == 20)
        store = self.make(tmp_path)
        try:
            store.clock = lambda: time.time_ns() + 2 * 3600 * 10**9
            size = store.get("/q").size
            left = [message.id for message in store.take("/q", [0] * size)]
            assert len(left) == size == len(set(left)) and left == sorted(left) and drain(store, "/q") == []
            assert not confirmed & set(left)
            # what is neither confirmed nor left was confirmed without time to say so: one for each consumer at most
            assert len(put - confirmed - set(left)) <= 3
        finally:
            store.close()


class ServerQueues(QueueStoreContract):
    """In a database server; a test finds its tables empty."""

    @pytest.fixture(autouse=True)
    def options(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """Where the server is; no tables yet."""
        self.place = request.getfixturevalue(self.server).options
        with contextlib.closing(callfs.open_database(self.place)) as database:
            for table in ("state", "queues", "messages"):
                database.run(lambda session, table=table: session.execute(f"DROP TABLE IF EXISTS queuefs_{table}"))
        yield

    def make(self, folder: Path) -> Any:
        """On the same tables."""
        return callfs.DatabaseQueues(callfs.open_database(self.place))

    def test_two_servers(self, tmp_path: Path) -> None:
        """That start at once and share the queues: exactly once, in order, ids unique, whoever enqueued."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            stores = list(pool.map(lambda _: self.make(tmp_path), range(3)))
            try:
                put = [future.result(60) for future in
                       [pool.submit(self.put, stores[number % 3], *[b"%d %d" % (number, each) for each in range(20)])
                        for number in range(6)]]
                taken = [one for future in [pool.submit(store.take, "/q", [0] * 20) for store in stores * 2]
                         for one in future.result(60)]
                assert sorted(one.id for one in taken) == sorted(itertools.chain(*put)) and len(taken) == 120
                assert stores[0].get("/q").size == 0
            finally:
                for store in stores:
                    store.close()


class TestPostgresQueues(ServerQueues):
    """PostgreSQL."""

    server = "postgres_server"


class TestMariaDBQueues(ServerQueues):
    """MariaDB."""

    server = "mariadb_server"


# ---- the filesystem

class Messages:
    """A queuefs by itself, as a tree."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.log: list[str] = []
        quiet = type("Log", (), {level: staticmethod(lambda text, **more: self.log.append(text))
                                 for level in ("info", "warn", "error")})()
        context = callfs.MountContext("/queuefs", None, quiet, callfs.Metrics(), str(folder))
        self.fs = callfs.QueueFS(callfs.read_mount_options(callfs.QueueFS, config), context)
        self.tree = callfs.Tree(self.fs)

    def put(self, path: str, data: bytes = b"data") -> str:
        """Write; the message."""
        return self.tree.write(ALICE, path, callfs.bytes_body(data)).message

    def get(self, path: str, **wish: str) -> Any:
        """Read to the end; JSON."""
        with contextlib.closing(self.tree.open(BOB, path, wish)) as handle, handle.reader() as reader:
            return json.loads(b"".join(reader))

    def names(self, path: str) -> list[str]:
        """A listing."""
        return [entry.name for entry in self.tree.list(BOB, path)]


@pytest.fixture(params=["memory", "sqlite"])
def messages(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Messages]:
    """A queuefs with each of the stores that are in the process."""
    with nothing_left(3):
        made = Messages(tmp_path, **({} if request.param == "memory" else {"backend": "sqlite", "db_path": "q.db"}))
        yield made
        made.tree.close()
        made.tree.close()


CONTROLS = ["ack", "clear", "dequeue", "enqueue", "peek", "size"]


class TestQueueFS:
    """Queues as files."""

    def test_the_seed(self, messages: Messages) -> None:
        """Its session, line by line; a parent shows only its sub-queues."""
        tree = messages.tree
        assert tree.mkdir(ALICE, "/tasks").created and not tree.mkdir(BOB, "/tasks").created
        ids = [messages.put("/tasks/enqueue", data) for data in (b"Process order #123", b"Send email", "Ünï".encode())]
        assert messages.get("/tasks/size") == 3
        first = {"id": ids[0], "data": "Process order #123", "timestamp": callfs.rfc3339(int(ids[0]))}
        assert messages.get("/tasks/peek") == first == messages.get("/tasks/dequeue") and list(first) == ["id", "data", "timestamp"]
        assert messages.get("/tasks/size") == 2 and tree.stat(BOB, "/tasks/peek").mtime_ns == int(ids[-1])
        assert messages.put("/tasks/clear", b"\n") == "cleared" and messages.get("/tasks/dequeue") == {} == messages.get("/tasks/peek")
        for path in ("/logs/errors", "/logs/warnings", "/logs/info", "/orders"):
            tree.mkdir(ALICE, path)
        assert messages.names("/") == ["README", "logs", "orders", "tasks"]
        assert messages.names("/logs") == ["errors", "info", "warnings"] and messages.names("/logs/info") == CONTROLS
        messages.put("/logs/enqueue", b"Database connected")
        assert messages.names("/logs") == ["ack", "clear", "dequeue", "enqueue", "errors", "info", "peek", "size", "warnings"]
        assert [entry.name for entry in tree.list(BOB, "/logs", "errors")] == ["info", "peek", "size", "warnings"]
        tree.remove(ALICE, "/tasks", recursive=True)
        with pytest.raises(callfs.FileNotFound):
            messages.get("/tasks/dequeue")

    def test_the_bytes_on_the_wire(self, messages: Messages) -> None:
        """Compact JSON with keys in their order, a length, base64 for what is no text; `size` without a newline."""
        number = messages.put("/q/enqueue", b'a"\n\xc3\xa9')
        for path, expected in (("/q/size", b"1"), ("/q/dequeue", b'{"id":"%s","data":"a\\"\\n\xc3\xa9","timestamp":"%s"}' % (
                number.encode(), callfs.rfc3339(int(number)).encode())), ("/q/dequeue", b"{}"), ("/q/size", b"0")):
            with messages.tree.open(BOB, path).reader() as reader:
                assert reader.length == len(expected) and b"".join(reader) == expected
        messages.put("/q/enqueue", b"\xff\0")
        assert messages.get("/q/peek")["encoding"] == "base64" and base64.b64decode(messages.get("/q/dequeue")["data"]) == b"\xff\0"
        messages.put("/q/enqueue", b"")
        assert messages.get("/q/dequeue")["data"] == ""

    @pytest.mark.parametrize("verb, path, error", [
        ("read", "/q/enqueue", "PermissionDenied"), ("read", "/q/clear", "PermissionDenied"), ("read", "/q/ack", "PermissionDenied"),
        ("write", "/q/dequeue", "PermissionDenied"), ("write", "/q/peek", "PermissionDenied"), ("write", "/q/size", "PermissionDenied"),
        ("write", "/README", "PermissionDenied"), ("write", "/q/other", "BadRequest"), ("write", "/q", "BadRequest"),
        ("write", "/enqueue", "BadRequest"), ("write", "/q/enqueue/enqueue", "BadRequest"), ("read", "/enqueue", "FileNotFound"),
        ("read", "/no/dequeue", "FileNotFound"), ("read", "/q/enqueue/size", "FileNotFound"), ("write", "/no/clear", "FileNotFound"),
        ("write", "/no/ack", "FileNotFound"), ("mkdir", "/q/enqueue", "FileExists"), ("mkdir", "/new/size", "BadRequest"),
        ("mkdir", "/size/new", "BadRequest"), ("mkdir", "/README", "FileExists"), ("remove", "/q/enqueue", "PermissionDenied"),
        ("remove", "/README", "PermissionDenied"), ("remove", "/q", "DirectoryNotEmpty"), ("remove", "/no/size", "FileNotFound"),
        ("list", "/q/size", "Conflict"), ("list", "/no", "FileNotFound"), ("move", "/q/size", "PermissionDenied"),
        ("move to", "/q2/peek", "BadRequest"), ("touch", "/q/absent", "BadRequest"), ("patch", "/q/size", "PermissionDenied")])
    def test_what_is_refused(self, messages: Messages, verb: str, path: str, error: str) -> None:
        """And changes nothing."""
        tree, kept = messages.tree, messages.put("/q/enqueue")
        with pytest.raises(getattr(callfs, error)):
            {"read": lambda: tree.open(BOB, path), "write": lambda: messages.put(path), "mkdir": lambda: tree.mkdir(BOB, path),
             "remove": lambda: tree.remove(BOB, path), "list": lambda: list(tree.list(BOB, path)),
             "move": lambda: tree.move(BOB, path, "/x"), "move to": lambda: tree.move(BOB, "/q", path, parents=True),
             "touch": lambda: tree.touch(BOB, path), "patch": lambda: tree.patch(BOB, path, callfs.bytes_body(b"x"), 0)}[verb]()
        assert messages.names("/") == ["README", "q"] and messages.get("/q/peek")["id"] == kept and messages.get("/q/size") == 1

    def test_shells_and_drives(self, messages: Messages) -> None:
        """They truncate, touch and chmod on their way: nothing comes of it. `>>` appends at 0, which enqueues."""
        tree, number = messages.tree, messages.put("/q/enqueue")
        for name in CONTROLS:
            assert not tree.truncate(BOB, f"/q/{name}", 0).created
            tree.touch(BOB, f"/q/{name}")
            tree.chmod(BOB, f"/q/{name}", 0o600)
        assert tree.stat(BOB, "/q/enqueue").mode == 0o222 and messages.get("/q/size") == 1
        assert int(tree.patch(BOB, "/q/enqueue", callfs.bytes_body(b"more"), 0).message) > int(number)
        with pytest.raises(callfs.RangeNotSatisfiable):
            tree.patch(BOB, "/q/enqueue", callfs.bytes_body(b"more"), 1)
        assert messages.get("/q/size") == 2

    def test_bodies(self, messages: Messages, tmp_path: Path) -> None:
        """One that breaks off, is too large or another one than announced is no message."""
        messages.tree.mkdir(ALICE, "/q")
        for length, error in BREAKS:
            with pytest.raises(type(error) if error else callfs.Disconnected):
                messages.tree.write(ALICE, "/q/enqueue", BrokenBody(b"x", length, error))
        with pytest.raises(callfs.BadRequest, match="SHA-256"):
            put(messages.tree, "/q/enqueue", options=callfs.WriteOptions(sha256="0" * 64))
        small = Messages(tmp_path, max_message="10")
        small.put("/q/enqueue", b"x" * 10)
        for body in (callfs.bytes_body(b"x" * 11), callfs.FileBody(io.BytesIO(b"x" * 11))):
            with pytest.raises(callfs.PayloadTooLarge):
                small.tree.write(ALICE, "/q/enqueue", body)
        small.tree.close()
        assert messages.get("/q/size") == 0

    def test_looking_takes_nothing(self, messages: Messages) -> None:
        """Opening, stat, listings, walks, digests and readers that nobody reads."""
        tree = messages.tree
        numbers = [messages.put("/q/enqueue", b"%d" % number) for number in range(3)]
        for path in ("/q/dequeue", "/q/peek", "/q/size", "/q", "/README"):
            tree.open(BOB, path, {"wait": "1s", "ack": "1s"}).close()
            assert tree.stat(BOB, path).owner == "*" and tree.stat(BOB, path).backend == "queuefs"
            assert tree.open(BOB, path).fixed != (path in ("/q/dequeue", "/q/peek"))
        assert [entry.path for entry in tree.walk(BOB, "/", 9)] == ["/README", "/q", *("/q/" + name for name in CONTROLS)]
        with pytest.raises(callfs.BadRequest):
            tree.digest(BOB, "/q/dequeue")
        handle = tree.open(BOB, "/q/dequeue")
        assert handle.consumes and not tree.open(BOB, "/q/peek").consumes
        for wish in ({}, {"ack": "60s"}, {"wait": "9s"}):
            tree.open(BOB, "/q/dequeue", wish).reader().close()
        assert [messages.get("/q/dequeue")["id"] for _ in range(3)] == numbers
        assert tree.stat(BOB, "/q/dequeue").etag != tree.stat(BOB, "/q/dequeue").etag

    def test_what_is_said_of_it(self, messages: Messages) -> None:
        """`describe`, sizes and stable ids."""
        messages.put("/q/enqueue")
        tree = messages.tree
        backend = messages.fs._options.backend
        assert tree.describe(BOB, tree.stat(BOB, "/q")) == ("queuefs", "queue", {"backend": backend, "size": "1"})
        assert tree.describe(BOB, tree.stat(BOB, "/q/peek")).type == "control"
        assert tree.describe(BOB, tree.stat(BOB, "/README")).type == "readme" and fetch(tree, "/README").startswith(b"# queuefs")
        old = tree.stat(BOB, "/q")
        tree.move(BOB, "/q", "/p")
        assert tree.stat(BOB, "/p").id == old.id and fetch(tree, "/p/size") == b"1" and messages.fs.check() == {"queues": "ok"}

    def test_leases(self, messages: Messages) -> None:
        """`ack` takes JSON or the id; the same message comes again when the lease has run out."""
        clock = messages.fs.store.clock = FakeClock()
        numbers = [messages.put("/q/enqueue", b"%d" % number) for number in range(3)]
        assert [messages.get("/q/dequeue", ack="60s")["id"] for _ in range(3)] == numbers
        assert messages.get("/q/dequeue") == {} and messages.get("/q/size") == 0
        assert messages.put("/q/ack", json.dumps({"id": numbers[0]}).encode()) == "acknowledged"
        assert messages.put("/q/ack", numbers[1].encode() + b"\n") == "acknowledged"
        clock.step(61)
        with pytest.raises(callfs.Conflict):
            messages.put("/q/ack", numbers[2].encode())
        for bad in (b"", b"x", b"{}", b"[]", b'{"id":null}', b"-1", b"9" * 40, b"\xff", b"[" * 100_000):
            with pytest.raises(callfs.BadRequest):
                messages.put("/q/ack", bad)
        assert messages.get("/q/dequeue", ack="1m") == {"id": numbers[2], "data": "2", "timestamp": callfs.rfc3339(int(numbers[2]))}

    @pytest.mark.parametrize("wish", [{"wait": "x"}, {"wait": "61m"}, {"ack": "0"}, {"ack": "-1s"}, {"ack": "1h1s"}, {"ack": ""}])
    def test_wishes(self, tmp_path: Path, wish: dict[str, str]) -> None:
        """Bad ones are refused by `open`."""
        messages = Messages(tmp_path)
        messages.put("/q/enqueue")
        with pytest.raises(callfs.BadRequest, match=next(iter(wish))):
            messages.tree.open(BOB, "/q/dequeue", wish)

    @pytest.mark.parametrize("config, words", [
        ({"backend": "sqlite"}, "db_path"), ({"backend": "redis"}, "backend"), ({"db_path": "x"}, "backend"),
        ({"backend": "postgres", "db_path": "x"}, "db_path"), ({"nonsense": 1}, "nonsense")])
    def test_options(self, tmp_path: Path, config: dict[str, Any], words: str) -> None:
        """What can not work is refused, by its name."""
        with pytest.raises(callfs.BadRequest, match=words):
            Messages(tmp_path, **config)
        assert Messages(tmp_path, max_message="1K").fs._options.max_message == 1024 and not Messages(tmp_path).fs.slow


class TestQueueWaiters:
    """`dequeue?wait=`."""

    def wait_in(self, messages: Messages, path: str = "/q", **wish: str) -> Any:
        """A reader that waits, as the HTTP engine has it; `woken` counts."""
        reader = messages.tree.open(BOB, path + "/dequeue", {"wait": "60s", **wish}).reader()
        reader.woken = [] if reader.length is None else [1]             # else there was one at once
        if not reader.woken:
            reader.attach(lambda: reader.woken.append(1))
        return reader

    def test_blocking(self, messages: Messages) -> None:
        """Without `attach` a read waits for the message, or for the end of the time."""
        messages.tree.mkdir(ALICE, "/q")
        started = time.monotonic()
        assert messages.get("/q/dequeue", wait="0.2s") == {} and time.monotonic() - started > 0.19
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            future = pool.submit(messages.get, "/q/dequeue", wait="60s")
            wait_for(lambda: messages.fs._waiters.busy("/q"))
            number = messages.put("/q/enqueue", b"hello")
            assert future.result(10)["id"] == number
        number = messages.put("/q/enqueue", b"at once")
        assert messages.get("/q/dequeue", wait="60s")["id"] == number and not messages.fs._waiters.busy("/q")

    def test_many_wait_in_line(self, messages: Messages) -> None:
        """500 take one thread together, and get messages in the order in which they came."""
        messages.tree.mkdir(ALICE, "/q")
        before = threading.active_count()
        readers = [self.wait_in(messages) for _ in range(500)]
        assert threading.active_count() <= before + 1 and all(reader.read() is None for reader in readers)
        for gone in readers[1:100]:
            gone.close()
        for number in range(100):
            messages.put("/q/enqueue", b"%d" % number)
        served = [readers[0], *readers[100:199]]
        wait_for(lambda: served[-1].woken)
        assert [json.loads(reader.read())["data"] for reader in served] == [str(number) for number in range(100)]
        assert all(reader.read() == b"" for reader in served) and readers[199].read() is None and not readers[199].woken
        assert messages.get("/q/size") == 0

    def test_who_has_gone_takes_nothing(self, messages: Messages) -> None:
        """Before a message came; after it came but before it was read: the next in line gets it, in its order."""
        messages.tree.mkdir(ALICE, "/q")
        for wish in ({}, {"ack": "60s"}):
            first, second, third = (self.wait_in(messages, **wish) for _ in range(3))
            first.close()
            numbers = [messages.put("/q/enqueue", b"1")]
            wait_for(lambda: second.woken)
            second.close()
            second.close()
            wait_for(lambda: third.woken)
            assert json.loads(third.read())["id"] == numbers[0]
            fourth = self.wait_in(messages, **wish)
            number = messages.put("/q/enqueue", b"2")
            wait_for(lambda: fourth.woken)
            fourth.close()
            wait_for(lambda: messages.get("/q/size") == 1)
            assert messages.get("/q/dequeue")["id"] == number and messages.get("/q/size") == 0
            third.close()

    def test_the_end_of_the_time(self, messages: Messages) -> None:
        """{}, whoever else waits longer."""
        messages.tree.mkdir(ALICE, "/q")
        patient, hasty = self.wait_in(messages), self.wait_in(messages, wait="0.1s")
        wait_for(lambda: hasty.woken)
        assert hasty.read() == b"{}" and hasty.read() == b"" and patient.read() is None
        messages.put("/q/enqueue", b"x")
        wait_for(lambda: patient.woken)
        assert json.loads(patient.read())["data"] == "x"

    def test_removed_and_unmounted(self, messages: Messages) -> None:
        """Waiting ends with {}; what was handed over and not read is back in the queue."""
        messages.tree.mkdir(ALICE, "/q")
        messages.tree.mkdir(ALICE, "/r")
        reader = self.wait_in(messages)
        messages.tree.remove(ALICE, "/q", recursive=True)
        wait_for(lambda: reader.woken)
        assert reader.read() == b"{}"
        waiting, handed = self.wait_in(messages, "/r"), self.wait_in(messages, "/r")
        other = self.wait_in(messages, "/r")
        number = messages.put("/r/enqueue", b"1")
        wait_for(lambda: waiting.woken)
        store, kept = messages.fs.store, []
        closing, store.close = store.close, lambda: (kept.extend(store.take("/r", [0])) if not kept else None, closing())
        messages.tree.close()
        assert [waiting.read(), handed.read(), other.read()] == [b"{}"] * 3 and str(kept[0].id) == number
        waiting.close()
        with contextlib.suppress(callfs.Unavailable):
            late = messages.fs._waiters.add("/r", 0, 60)
            assert late.read() == b"{}"

    def test_leases_that_run_out_wake(self, messages: Messages) -> None:
        """Nobody enqueues, and still there is a message."""
        number = messages.put("/q/enqueue")
        assert messages.get("/q/dequeue", ack="0.3s")["id"] == number
        assert messages.get("/q/dequeue", wait="30s")["id"] == number

    def test_another_process(self, tmp_path: Path) -> None:
        """What it enqueues into the same database is seen soon."""
        config = {"backend": "sqlite", "db_path": "q.db"}
        one, two = Messages(tmp_path, **config), Messages(tmp_path, **config)
        one.tree.mkdir(ALICE, "/q")
        reader = self.wait_in(one)
        number = two.put("/q/enqueue")
        wait_for(lambda: reader.woken)
        assert json.loads(reader.read())["id"] == number
        two.tree.remove(ALICE, "/q", recursive=True)
        with pytest.raises(callfs.FileNotFound):
            one.get("/q/dequeue")
        for each in (one, two):
            each.tree.close()

    def test_a_store_that_does_not_answer(self, tmp_path: Path) -> None:
        """Is logged and asked again; nobody waits in vain afterwards."""
        messages = Messages(tmp_path)
        messages.tree.mkdir(ALICE, "/q")
        store, take, failures = messages.fs.store, messages.fs.store.take, [1, 2]

        def failing(path: str, leases: Any) -> Any:
            if failures:
                failures.pop()
                raise callfs.Unavailable()
            return take(path, leases)
        reader = self.wait_in(messages)
        store.take = failing
        messages.put("/q/enqueue", b"x")
        wait_for(lambda: reader.woken)
        assert json.loads(reader.read())["data"] == "x" and not failures and len(messages.log) == 1
        messages.tree.close()

    def test_nothing_is_lost_among_those_who_come_and_go(self, messages: Messages) -> None:
        """Waiters that give up at any moment: every message is read once or still there."""
        messages.tree.mkdir(ALICE, "/q")
        read: list[str] = []

        def come_and_go(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(15):
                reader = self.wait_in(messages, wait="5s")
                if chance.random() < 0.6:
                    wait_for(lambda: reader.woken, 10)
                if reader.woken and chance.random() < 0.7:
                    read.append(json.loads(reader.read()).get("id"))
                reader.close()
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            futures = [pool.submit(come_and_go, seed) for seed in range(4)]
            numbers = [messages.put("/q/enqueue", b"%d" % number) for number in range(80)]
            for future in futures:
                future.result(60)
        got = [number for number in read if number]
        wait_for(lambda: messages.get("/q/size") == 80 - len(got))
        left = [messages.get("/q/dequeue")["id"] for _ in range(80 - len(got))]
        assert sorted(got + left) == sorted(numbers)


class TestQueuesOverHTTP:
    """Through a real server."""

    def test_a_mount(self, serve: Callable[..., Any], tmp_path: Path) -> None:
        """Enqueue, look, dequeue, copy, remove; the store's files are elsewhere."""
        server = serve(plugins={"queuefs": {"path": "/queuefs", "config": {}}})
        tree = server.tree
        assert tree.mkdir(callfs.ROOT, "/queuefs/jobs").created
        numbers = [tree.write(callfs.ROOT, "/queuefs/jobs/enqueue", callfs.bytes_body(b"%d" % each)).message for each in range(3)]
        copied = tree.copy(callfs.ROOT, "/queuefs", "/copy", recursive=True)
        assert copied.left_out == 5 and {entry.path for entry in tree.walk(callfs.ROOT, "/copy", 9)} == {
            "/copy/README", "/copy/jobs", "/copy/jobs/size"}
        with pytest.raises(callfs.Conflict):
            tree.move(callfs.ROOT, "/queuefs/jobs", "/elsewhere")
        with pytest.raises(callfs.Conflict):
            tree.remove(callfs.ROOT, "/queuefs", recursive=True)
        tree.copy(callfs.ROOT, "/queuefs/jobs/dequeue", "/taken")
        assert json.loads(fetch(tree, "/taken", callfs.ROOT))["id"] == numbers[0]
        tree.copy(callfs.ROOT, "/taken", "/queuefs/jobs/enqueue")
        assert fetch(tree, "/queuefs/jobs/size", callfs.ROOT) == b"3"

    @pytest.fixture(params=["memory", "sqlite"])
    def server(self, serve: Callable[..., Any], request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        """With a queue `q`."""
        config = {"backend": "sqlite", "db_path": str(tmp_path / "q.db")} if request.param == "sqlite" else {}
        server = serve(plugins={"queuefs": {"path": "/queuefs", "config": config}})
        server.tree.mkdir(callfs.ROOT, "/queuefs/q")
        return server

    Q = "/v1/files/queuefs/q/"

    def test_requests(self, server: Any) -> None:
        """Writes add, also as POST; reads have a length; what is only looked at stays."""
        for method in ("PUT", "POST"):
            answer = call(server, method, self.Q + "enqueue", b"message")
            assert answer.status in (200, 201) and call(server, "POST", self.Q + "size", b"").status in (403, 409)
        for method, name, status in (("HEAD", "dequeue", 200), ("HEAD", "peek", 200), ("GET", "enqueue", 403), ("PUT", "peek", 403),
                                     ("PUT", "other", 400), ("DELETE", "dequeue", 403)):
            assert call(server, method, self.Q + name).status == status, (method, name)
        assert call(server, "GET", self.Q + "size").body == b"2"
        for left in (b"1", b"0"):
            answer = call(server, "GET", self.Q + "dequeue")
            assert answer.json()["data"] == "message" and int(answer.headers["content-length"]) == len(answer.body)
            assert call(server, "GET", self.Q + "size").body == left
        assert call(server, "GET", self.Q + "dequeue").body == b"{}"

    @pytest.mark.skipif(not hasattr(callfs, "wish_of"), reason="requests carry no wishes yet")
    def test_waiting_and_leasing(self, server: Any) -> None:
        """Waiting clients take one thread together; those who went away take nothing; a lease is confirmed by POST."""
        before, waiting = threading.active_count(), []
        with contextlib.ExitStack() as stack:
            for number in range(100):
                waiting.append(stack.enter_context(contextlib.closing(connect(server.url))))
                waiting[-1].request("GET", self.Q + "dequeue?wait=60s&ack=60s", headers={"authorization": f"Bearer {server.key}"})
                wait_for(lambda: sum(map(len, self.waiters(server)._queues.values())) == number + 1)
            assert threading.active_count() <= before + 2
            for gone in waiting[:50]:
                gone.close()
            wait_for(lambda: sum(map(len, self.waiters(server)._queues.values())) == 50)
            for number in range(50):
                call(server, "PUT", self.Q + "enqueue", b"%d" % number)
            found = [json.loads(each.getresponse().read()) for each in waiting[50:]]
        assert [one["data"] for one in found] == [str(number) for number in range(50)]
        assert call(server, "GET", self.Q + "size").body == b"0"
        for one, status in ((found[0], 200), (found[0], 404), (found[1], 200)):
            assert call(server, "POST", self.Q + "ack", {"id": one["id"]}).status == status
        assert call(server, "GET", self.Q + "dequeue?wait=0.1s").body == b"{}"
        assert call(server, "GET", self.Q + "dequeue?wait=2h").status == 400

    @staticmethod
    def waiters(server: Any) -> Any:
        """Of the mounted queuefs."""
        return server.tree._find("/queuefs").filesystem._waiters

    @pytest.mark.skipif(not hasattr(callfs, "wish_of"), reason="archives with queues come with the PFS dialect")
    def test_an_archive_takes_nothing(self, server: Any) -> None:
        """What has no fixed bytes is left out."""
        call(server, "PUT", self.Q + "enqueue", b"1")
        answer = call(server, "GET", "/v1/files/queuefs?archive=zip")
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.testzip() is None and "queuefs/q/size" in archive.namelist()
            assert not any("dequeue" in name for name in archive.namelist())
        assert call(server, "GET", self.Q + "size").body == b"1"


# ============================================================================
# Webhooks: events for other servers, signed, out of a durable queue
# ============================================================================

HOOK_SECRET = "webhook-secret-0123456789"
HOOK_ANSWERS: dict[str, bytes] = {
    "cut": b"", "cut in the head": b"HTTP/1.1 200 OK\r\nContent-", "nonsense": b"SSH-2.0-x\r\n\r\n",
    "endless": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 0x20000,
}


def hook_signature(secret: str, headers: Mapping[str, str], body: bytes) -> str:
    """As the specification of Standard Webhooks has it, and not as callfs.py does it."""
    key = base64.b64decode(secret.split("_", 1)[1]) if secret.startswith("whsec_") else secret.encode("utf-8")
    content = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    return "v1," + base64.standard_b64encode(hmac.digest(key, content, "sha256")).decode()


class HookHeard(NamedTuple):
    """One request that a receiver got, its signature checked."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> tuple[str, str, Optional[str]]:
        """What the event says."""
        data = json.loads(self.body)["data"]
        assert json.loads(self.body)["type"] == "file." + data["type"]
        return data["type"], data["path"], data.get("dstPath")


class HookReceiver:
    """A server that keeps what it is sent, and answers 204 or what `plan` has next for the target: a status, a status
    with headers, a key of HOOK_ANSWERS, or an Event: it answers 204 once that is set."""

    def __init__(self, secret: str = HOOK_SECRET, port: int = 0, tls: Any = None) -> None:
        self.heard, self.plan, self.faults = [], collections.defaultdict(list), []     # type: ignore[var-annotated]
        outer, self.began, self.ended = self, threading.Event(), 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers["content-length"]))
                if headers["webhook-signature"] != hook_signature(secret, headers, body):
                    outer.faults.append(headers)
                outer.heard.append(HookHeard(self.path, headers, body))
                outer.began.set()
                answer = outer.plan[self.path].pop(0) if outer.plan[self.path] else 204
                if isinstance(answer, str):
                    self.close_connection = True
                    with contextlib.suppress(OSError):
                        for _ in itertools.count() if answer == "endless" else range(1):
                            self.wfile.write(HOOK_ANSWERS[answer])
                    outer.ended += 1
                    return
                if isinstance(answer, threading.Event):
                    answer.wait(60)
                    answer = 204
                status, more = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in {"Content-Length": "0", **more}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *rest: Any) -> None:
                pass

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *rest: Any) -> None:
                pass

        self._server = Listener(("127.0.0.1", port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def of(self, target: str) -> list[Any]:
        """What one target was told."""
        return [heard.told for heard in list(self.heard) if heard.target == target]

    def close(self) -> None:
        """Every message was signed."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert not self.faults


@pytest.fixture
def receiver() -> Iterator[HookReceiver]:
    """A receiver, closed after the test."""
    with contextlib.closing(HookReceiver()) as made:
        yield made


def hook_metrics(metrics: Any) -> dict[tuple[str, str], float]:
    """Counts by hook and outcome."""
    return metrics.cells("callfs_webhook_deliveries_total")


class HookRig:
    """One webhook without its thread: `step()` is called by hand, both clocks stand still."""

    def __init__(self, folder: Path, url: str, most: int = 100, **options: Any) -> None:
        self.clock, self.metrics = Clock(), callfs.Metrics()
        self.log, self.text = log_lines(folder / "hooks.log", "json")
        self.queue = callfs.HookQueue(str(folder / "hooks.db"), ["h"], most=most)
        settings = callfs.WebhookOptions(**{"url": url, "secret": HOOK_SECRET, **options})
        self.hook = callfs.Webhook("h", settings, self.queue, retry=86400, version="9", metrics=self.metrics, log=self.log,
                                   clock=self.clock, ticks=self.clock)

    def add(self, *names: str) -> None:
        """Messages that wait."""
        for name in names:
            self.queue.add(["h"], name, self.clock.now, json.dumps({"type": "file.create", "data": {
                "type": "create", "path": "/" + name}}).encode())

    def steps(self) -> Optional[float]:
        """Until there is nothing to do now; what the last step said."""
        pause: Optional[float] = 0.0
        while pause == 0:
            pause = self.hook.step()
        return pause

    def events(self) -> list[tuple[str, str]]:
        """(level, message) of the log."""
        return [(line["level"], line["message"]) for line in map(json.loads, self.text().splitlines())]

    def close(self) -> None:
        self.hook.stop()
        self.hook.join()
        self.queue.close()
        self.log.close()


@pytest.fixture
def hook_rig(tmp_path: Path) -> Iterator[Callable[..., HookRig]]:
    """`hook_rig(url, **options)`: closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(contextlib.closing(HookRig(tmp_path, url, **options)))


GOOD_HOOK = {"url": "https://h.example/x", "secret": HOOK_SECRET}


@pytest.mark.parametrize("hooks, problem", [
    ({"a": {**GOOD_HOOK, "url": "ftp://h/x"}}, "events.webhooks.a.url: must be http://"),
    ({"a": {**GOOD_HOOK, "url": "https://user:pw@h/x"}}, "events.webhooks.a.url: must be http://"),
    ({"a": {**GOOD_HOOK, "url": "https://h/a b"}}, "events.webhooks.a.url: must be http://"),
    ({"a": {**GOOD_HOOK, "url": "https://h/x#f"}}, "events.webhooks.a.url: must be http://"),
    ({"a": {"secret": HOOK_SECRET}}, "events.webhooks.a.url: must be http://"),
    ({"a": {"url": "http://h"}}, "events.webhooks.a.secret: must have at least 16 characters"),
    ({"a": {**GOOD_HOOK, "secret": "change-me-internal-secret"}}, "events.webhooks.a.secret: must not be a placeholder"),
    ({"a": {**GOOD_HOOK, "secret": "short"}}, "events.webhooks.a.secret: must have at least 16 characters"),
    ({"a": {**GOOD_HOOK, "secret": "whsec_no-base64-at-all!"}}, "events.webhooks.a.secret: must have at least 16 characters"),
    ({"a": {**GOOD_HOOK, "secret": "whsec_c2hvcnQ="}}, "events.webhooks.a.secret: must have at least 16 characters"),
    ({"a": {**GOOD_HOOK, "secret": 17 ** 17}}, "events.webhooks.a.secret: must be text"),
    ({"a": {**GOOD_HOOK, "path": "docs"}}, "events.webhooks.a.path: must begin with /"),
    ({"a": {**GOOD_HOOK, "path": "/a\\b"}}, "events.webhooks.a.path: "),
    ({"a": {**GOOD_HOOK, "events": ["create", "rename"]}}, "events.webhooks.a.events: must be some of create"),
    ({"a": {**GOOD_HOOK, "events": 3}}, "events.webhooks.a.events: must be a list"),
    ({"a": {**GOOD_HOOK, "timeout": "0s"}}, "events.webhooks.a.timeout: must be at least"),
    ({"a": {**GOOD_HOOK, "tiemout": "1s"}}, "events.webhooks.a.tiemout: unknown option; did you mean timeout?"),
    ({"a": "https://h/"}, "events.webhooks.a: must be a map"), ({"a b": GOOD_HOOK}, "events.webhooks.a b: must be a map"),
    ([GOOD_HOOK, {**GOOD_HOOK, "path": "/b"}], "configuration: events.webhooks: must have names that differ"),
    ([HOOK_SECRET], "configuration: events.webhooks: must be a map"), (HOOK_SECRET, "configuration: events.webhooks: must be a map"),
])
def test_webhook_settings_refused(hooks: Any, problem: str) -> None:
    (found,) = problems_of(events={"webhooks": hooks})
    assert found.startswith(problem)
    assert not re.search(f"{HOOK_SECRET}|{17 ** 17}|short|c2hvcnQ|pw@", found)


def test_webhook_settings() -> None:
    """By name or as a list, more from the environment; no secret is shown, nor a URL that holds one."""
    config = config_of(events={"webhooks": [GOOD_HOOK, {**GOOD_HOOK, "name": "b", "path": "/d/", "timeout": "1m",
                                                        "url": "https://h/?token=in-the-url"}]})
    assert config.validate() is not None
    hooks = callfs.read_webhooks(config.events)
    assert list(hooks) == ["h.example", "b"] and hooks["b"].path == "/d" and hooks["b"].timeout == 60
    shown = callfs.render_yaml(config.show()) + repr(config) + repr(hooks)
    assert HOOK_SECRET not in shown and "in-the-url" not in callfs.render_yaml(config.show()) and "https://h.example/x" in shown
    environ = {"CALLFS_EVENTS__WEBHOOKS__A__URL": "http://h/", "CALLFS_EVENTS__WEBHOOKS__A__SECRET": HOOK_SECRET,
               "CALLFS_EVENTS__WEBHOOKS__A__EVENTS": "create, move"}
    loaded = callfs.Config.load(environ={**EXAMPLE_SECRETS, **environ}, folder=os.path.join(HERE, "nowhere"))
    assert callfs.read_webhooks(loaded.events)["a"].events == ["create", "move"]
    assert callfs.webhook_key("whsec_" + base64.b64encode(bytes(range(24))).decode()) == bytes(range(24))
    assert callfs.webhook_key(HOOK_SECRET) == HOOK_SECRET.encode()


def test_readme_verifier_of_webhooks(receiver: HookReceiver, hook_rig: Callable[..., HookRig]) -> None:
    """The README's lines accept what is sent, and nothing that was changed or is old."""
    text = _readme().split("## Webhooks\n")[1].split("```python\n")[1].split("```")[0]
    scope: dict[str, Any] = {}
    exec(text, scope)
    secret = "whsec_" + base64.b64encode(os.urandom(24)).decode()
    for each in (HOOK_SECRET, secret):
        headers = {"webhook-id": "evt_1", "webhook-timestamp": str(int(time.time()))}
        headers["webhook-signature"] = "v1,other " + hook_signature(each, headers, b"{}")
        assert scope["genuine"](each, headers, b"{}")
        assert not scope["genuine"](each, headers, b"{ }") and not scope["genuine"](each + "BBBB", headers, b"{}")
        old = {**headers, "webhook-timestamp": str(int(time.time()) - 400)}
        old["webhook-signature"] = hook_signature(each, old, b"{}")
        assert not scope["genuine"](each, old, b"{}")
    rig = hook_rig(receiver.url)
    rig.clock.now = time.time()
    rig.add("f")
    rig.steps()
    assert scope["genuine"](HOOK_SECRET, receiver.heard[0].headers, receiver.heard[0].body)


class TestHookQueue:
    """What waits, in a file."""

    def queue(self, folder: Path, hooks: str = "ab", **more: Any) -> Any:
        return callfs.HookQueue(str(folder / "q"), hooks, **more)

    def test_order_bound_and_restart(self, tmp_path: Path) -> None:
        """By hook, in the order that they came; the oldest make room; what was not removed is there the next time."""
        queue = self.queue(tmp_path, most=3)
        assert queue.next("a") is None
        dropped = [queue.add(["a", "b"] if number == 4 else ["a"], str(number), 5.0 + number, b"x") for number in range(5)]
        assert dropped == [{}, {}, {}, {"a": 1}, {"a": 1}] and (queue.waiting("a"), queue.waiting("b")) == (3, 1)
        first = queue.next("a")
        assert first[1:] == ("2", 7.0, b"x") and queue.next("a") == first and queue.next("a", first.seq).id == "3"
        queue.close()
        assert {os.stat(path).st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
        queue = self.queue(tmp_path, "bc")
        assert queue.unknown == {"a": 2} and (queue.waiting("b"), queue.waiting("c")) == (1, 0) and queue.next("b").id == "4"
        assert queue.expire("b", 9.0) == 0 and queue.expire("b", 9.1) == 1 and queue.next("b") is None and queue.waiting("b") == 0
        queue.add(["c"], "5", 0.0, b"")
        assert queue.next("c").seq > first.seq + 3          # never again the number of one that may be under way
        queue.close()
        with contextlib.closing(self.queue(tmp_path)) as queue:
            assert queue.unknown == {"c": 1} and queue.next("a") is None

    def test_many_at_once(self, tmp_path: Path) -> None:
        """None is lost or counted twice while others are removed."""
        with contextlib.closing(self.queue(tmp_path, durable=False)) as queue:
            writers = [threading.Thread(target=lambda: [queue.add("ab", "x", 0.0, b"") for _ in range(50)]) for _ in range(4)]
            for writer in writers:
                writer.start()
            done = found = 0
            while found < 200:
                message = queue.next("a", done)
                done = message.seq if message else 0
                found += message is not None
            for writer in writers:
                writer.join()
            assert queue.next("a", done) is None and (queue.waiting("a"), queue.waiting("b")) == (0, 200)

    def test_damaged(self, tmp_path: Path) -> None:
        """Is said at the start, and leaves nothing open."""
        (tmp_path / "q").write_bytes(b"no database" * 1000)
        with nothing_left(), pytest.raises(callfs.StorageError, match="queue .*/q. is damaged"):
            self.queue(tmp_path)


class TestWebhook:
    """One hook, step by step."""

    def test_what_is_sent(self, receiver: HookReceiver, hook_rig: Callable[..., HookRig]) -> None:
        """In order, over one connection, with the headers of the specification."""
        rig = hook_rig(receiver.url + "/in?who=me")
        rig.clock.now = 1234.5
        rig.add("a", "b", "c")
        assert rig.steps() is None and [told[1] for told in receiver.of("/in?who=me")] == ["/a", "/b", "/c"]
        headers = receiver.heard[1].headers
        assert (headers["webhook-id"], headers["webhook-timestamp"], headers["user-agent"], headers["content-type"]) == (
            "b", "1234", "callfs/9", "application/json")
        assert hook_metrics(rig.metrics) == {("h", "delivered"): 3} and rig.queue.waiting("h") == 0 and rig.events() == []

    @pytest.mark.parametrize("answer, reason", [
        (500, "500"), (404, "404"), ((302, {"Location": "/elsewhere"}), "302"), (304, "304"), ("cut", "no answer"),
        ("cut in the head", "no answer"), ("nonsense", "no answer"), (429, "429"), (999, "999"),
    ], ids=str)
    def test_failures(self, receiver: HookReceiver, hook_rig: Callable[..., HookRig], answer: Any, reason: str) -> None:
        """Are tried again later with the same id, nothing overtakes, and the log has a line when it begins and ends."""
        rig = hook_rig(receiver.url + "/in?secret-of-the-url")
        receiver.plan["/in?secret-of-the-url"] = [answer] * 3
        rig.add("a", "b")
        for most in (1, 2, 4):
            assert most / 2 <= rig.steps() <= most
            assert rig.steps() > 0 and rig.hook.trouble
            rig.clock.now += most
        assert rig.steps() is None and not rig.hook.trouble
        assert [told[1] for told in receiver.of("/in?secret-of-the-url")] == ["/a"] * 4 + ["/b"] and len(receiver.heard) == 5
        assert [int(heard.headers["webhook-timestamp"]) for heard in receiver.heard] == [1000, 1001, 1003, 1007, 1007]
        assert {heard.headers["webhook-id"] for heard in receiver.heard[:4]} == {"a"}
        assert hook_metrics(rig.metrics) == {("h", "failed"): 3, ("h", "delivered"): 2}
        assert rig.events() == [("warn", "a webhook fails, its events wait"), ("info", "a webhook works again")]
        assert reason in json.loads(rig.text().splitlines()[0])["reason"]
        assert HOOK_SECRET not in rig.text() and "secret-of-the-url" not in rig.text()
        receiver.plan["/in?secret-of-the-url"] = [500]
        rig.add("c")
        assert rig.steps() <= 1             # the pauses begin anew

    def test_endless_answer(self, receiver: HookReceiver, hook_rig: Callable[..., HookRig]) -> None:
        """Of a good status is not read to its end."""
        rig = hook_rig(receiver.url + "/")
        receiver.plan["/"] = ["endless", "endless"]
        rig.add("a", "b")
        assert rig.steps() is None and [told[1] for told in receiver.of("/")] == ["/a", "/b"]
        wait_for(lambda: receiver.ended == 2, what="the ends of both connections")

    def test_slow_receiver(self, receiver: HookReceiver, hook_rig: Callable[..., HookRig]) -> None:
        """Costs the time-out of the webhook."""
        rig, late = hook_rig(receiver.url + "/", timeout=0.05), threading.Event()
        receiver.plan["/"] = [late]
        rig.add("a")
        assert rig.steps() > 0 and "timed out" in rig.hook.trouble
        late.set()
        rig.clock.now += 1
        assert rig.steps() is None

    @pytest.mark.parametrize("url", ["http://127.0.0.1:{free}", "http://nobody.invalid/", f"http://{'a' * 70}.example/"])
    def test_nobody_there(self, hook_rig: Callable[..., HookRig], url: str) -> None:
        """A closed port, a name without an address, and one that can have none."""
        rig = hook_rig(url.format(free=free_port()))
        rig.add("a")
        assert rig.steps() > 0 and rig.hook.trouble and hook_metrics(rig.metrics) == {("h", "failed"): 1}

    def test_pauses_grow_and_what_is_old_is_given_up(self, hook_rig: Callable[..., HookRig]) -> None:
        """Up to five minutes, never all at one moment; after a day an event goes."""
        rig, pauses = hook_rig(f"http://127.0.0.1:{free_port()}"), []
        rig.add("a")
        for number in range(14):
            pauses.append(rig.steps())
            rig.clock.now += pauses[-1]
        assert all(min(300, 2 ** number) / 2 <= pause <= min(300, 2 ** number) for number, pause in enumerate(pauses))
        assert len(set(pauses[9:])) > 1
        rig.clock.now = 1000 + 86400
        rig.add("b")
        assert rig.steps() > 100 and rig.queue.waiting("h") == 2
        rig.clock.now += 300
        assert rig.steps() > 100 and rig.queue.next("h").id == "b" and hook_metrics(rig.metrics)["h", "expired"] == 1
        assert [message for _, message in rig.events()] == ["a webhook fails, its events wait", "events for a webhook were given up"]

    def test_what_waited_while_the_server_was_down_is_tried(self, receiver: HookReceiver, hook_rig: Callable[..., HookRig]) -> None:
        """However old it is."""
        rig = hook_rig(receiver.url)
        rig.add("a")
        rig.clock.now += 900_000
        assert rig.steps() is None and len(receiver.heard) == 1

    @pytest.mark.parametrize("asked, least, most", [("120", 120, 120), ("0", 0.5, 1), ("99999999999", 3600, 3600), ("soon", 0.5, 1),
                                                    ("Thu, 01 Jan 2099 00:00:00 GMT", 3600, 3600)])
    def test_retry_after(self, receiver: HookReceiver, hook_rig: Callable[..., HookRig], asked: str, least: float, most: float) -> None:
        """Is heeded up to an hour."""
        rig = hook_rig(receiver.url + "/")
        receiver.plan["/"] = [(503, {"Retry-After": asked})]
        rig.add("a")
        assert least <= rig.steps() <= most

    def test_gone(self, receiver: HookReceiver, hook_rig: Callable[..., HookRig]) -> None:
        """410 pauses it: nothing is sent any more, and what is old goes."""
        rig = hook_rig(receiver.url + "/")
        receiver.plan["/"] = [410]
        rig.add("a", "b")
        assert rig.steps() > 0 and rig.hook.paused
        for _ in range(3):
            rig.clock.now += 300
            assert rig.steps() == 300
        assert len(receiver.heard) == 1 and rig.events() == [("warn", "a webhook is paused until the next start")]
        rig.clock.now += 86400
        assert rig.steps() == 300 and rig.queue.waiting("h") == 0 and rig.steps() == 300
        rig.clock.now += 300
        assert rig.steps() is None

    def test_tls(self, hook_rig: Callable[..., HookRig], certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        """The certificate is checked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        with contextlib.closing(HookReceiver(tls=context)) as receiver:
            rig = hook_rig(receiver.url)
            rig.add("a")
            assert rig.steps() > 0 and "certificate" in rig.hook.trouble and not receiver.heard
            monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
            trusting = hook_rig(receiver.url)
            assert trusting.steps() is None and len(receiver.heard) == 1

    @pytest.mark.parametrize("where", ["connect", "handshake", "answer", "body"])
    def test_stop_interrupts(self, hook_rig: Callable[..., HookRig], where: str) -> None:
        """Whatever it waits for; what was not answered stays in the queue."""
        with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=1)) as listener, contextlib.ExitStack() as stack:
            port = listener.getsockname()[1]
            if where == "connect":          # with a full backlog a connection waits
                for _ in range(4):
                    other = stack.enter_context(contextlib.closing(socket.socket()))
                    other.setblocking(False)
                    other.connect_ex(("127.0.0.1", port))
            rig = hook_rig(f"http{'s' if where == 'handshake' else ''}://127.0.0.1:{port}", timeout=300)
            rig.add("a")
            rig.hook.start()
            if where == "connect":
                wait_for(lambda: rig.hook._client._plug)
            else:
                taken = stack.enter_context(contextlib.closing(listener.accept()[0]))
                assert taken.recv(1)
                if where == "body":
                    taken.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\n")
            rig.hook.stop()
            rig.hook.join()
            assert not rig.hook._thread.is_alive() and rig.queue.next("h").id == "a" and rig.events() == []

    def test_what_was_answered_while_it_stops_is_not_sent_again(self, receiver: HookReceiver,
                                                                hook_rig: Callable[..., HookRig]) -> None:
        """The message is removed on the way out."""
        rig, answer = hook_rig(receiver.url + "/"), threading.Event()
        receiver.plan["/"] = [answer]
        rig.add("a")
        rig.hook.start()
        assert receiver.began.wait(10)
        rig.hook._ended = True              # as `stop`, which would cut it
        answer.set()
        rig.hook.wake()
        wait_for(lambda: not rig.hook._thread.is_alive())
        assert rig.queue.next("h") is None

    def test_the_queue_fails(self, receiver: HookReceiver, hook_rig: Callable[..., HookRig], monkeypatch: pytest.MonkeyPatch) -> None:
        """For a while: the thread lives on, and nothing is delivered twice."""
        rig = hook_rig(receiver.url + "/")
        monkeypatch.setattr(callfs, "MAX_TRY_PAUSE", 0.06)
        rig.hook._ticks, full, calls = time.monotonic, callfs.StorageFull("The disk is full."), []
        take = rig.queue.next

        def broken(*arguments: Any) -> Any:
            calls.append(arguments)
            if 2 <= len(calls) <= 4:
                raise full
            return take(*arguments)
        monkeypatch.setattr(rig.queue, "next", broken)
        rig.add("a")
        rig.hook.start()
        wait_for(lambda: len(calls) > 4 and rig.queue.waiting("h") == 0)
        assert len(receiver.heard) == 1 and ("warn", "a webhook fails, its events wait") in rig.events()


class TestWebhooksServed:
    """With a server, whose writers wait until their events are in the queue."""

    def options(self, receiver: HookReceiver, hooks: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        return {"events": {"webhooks": {name: {"url": f"{receiver.url}/{name}", "secret": HOOK_SECRET, **each}
                                        for name, each in hooks.items()}, **more}}

    def test_filters(self, receiver: HookReceiver, serve: Callable[..., Any]) -> None:
        """Each hook hears of its part of the tree, with what moves into it and out of it, and of its types only."""
        server = serve(**self.options(receiver, {"all": {}, "docs": {"path": "/docs/"}, "deep": {"path": "/docs/a/b"},
                                                 "gone": {"path": "/docs", "events": ["delete"]}}),
                       plugins={"memfs": {"path": "/docs/memory"}})
        with callfs.Client(server.url, server.key) as client:
            client.upload("/docs/f", b"1")
            client.upload("/docs/f", b"12")
            client.upload("/docsx/f", b"1")
            client.move("/docsx/f", "/docs/in")
            client.move("/docs/in", "/docsx/out")
            client.upload("/docs/memory/m", b"m")
            client.upload("/docs/a/b/f", b"m")
            client.delete("/docs/a", recursive=True)
        moves = [("move", "/docsx/f", "/docs/in"), ("move", "/docs/in", "/docsx/out")]
        expected = [("create", "/docs/f", None), ("update", "/docs/f", None), ("create", "/docsx", None), ("create", "/docsx/f", None),
                    *moves, ("create", "/docs/memory/m", None), ("create", "/docs/a", None), ("create", "/docs/a/b", None),
                    ("create", "/docs/a/b/f", None), ("delete", "/docs/a", None)]
        for name, chosen in (("all", expected), ("docs", [each for each in expected if not each[1] == "/docsx" and
                                                          each[1:] != ("/docsx/f", None)]),
                             ("deep", expected[-3:]), ("gone", expected[-1:])):
            wait_for(lambda: len(receiver.of(f"/{name}")) >= len(chosen), what=name)
            assert receiver.of(f"/{name}") == chosen
        data = json.loads(receiver.heard[0].body)
        assert data["data"]["node"] == "node-1" and data["data"]["size"] == 1 and re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", data["timestamp"])
        assert len({heard.headers["webhook-id"] for heard in receiver.heard}) == len(expected)

    def test_one_fails_the_others_do_not_wait(self, receiver: HookReceiver, serve: Callable[..., Any], tmp_path: Path) -> None:
        """Nor does the writer; `/ready` and the metrics show it; nobody is shown the secret."""
        late, log = threading.Event(), tmp_path / "server.log"
        receiver.plan["/slow"], receiver.plan["/bad"], receiver.plan["/gone"] = [late], [500], [410]
        server = serve(log={"level": "debug", "file": str(log)}, **self.options(receiver, {
            "slow": {}, "bad": {}, "good": {}, "gone": {}}))
        names = [f"/f{number}" for number in range(10)]
        for name in names:
            assert call(server, "PUT", "/v1/files" + name, b"x").status == 201
        wait_for(lambda: [told[1] for told in receiver.of("/good")] == names)
        wait_for(lambda: server.webhooks.check()["webhook bad"] != "ok" and server.webhooks.check()["webhook gone"] != "ok")
        parts = call(server, "GET", "/ready").json()["parts"]
        assert {name: state for name, state in parts.items() if name.startswith("webhook")} == {
            "webhook slow": "ok", "webhook bad": "fails; 10 events wait", "webhook good": "ok", "webhook gone": "paused"}
        assert len(receiver.of("/slow")) == 1
        metrics = call(server, "GET", "/metrics").body.decode()
        assert 'callfs_webhook_deliveries_total{webhook="bad",outcome="failed"} 1\n' in metrics
        assert re.search(r"^callfs_webhook_backlog 3\d$", metrics, re.M)
        late.set()
        wait_for(lambda: [told[1] for told in receiver.of("/slow")] == names)
        assert HOOK_SECRET not in metrics + log.read_text() + json.dumps(parts) and "paused until" in log.read_text()

    def test_stop_and_restart(self, serve: Callable[..., Any], receiver: HookReceiver, tmp_path: Path) -> None:
        """A receiver that hangs does not hold up the end; what it has not answered comes again, the rest behind it."""
        never = threading.Event()
        receiver.plan["/h"] = [never]
        options = self.options(receiver, {"h": {"timeout": "300s"}})
        with nothing_left(), callfs.Server(root=tmp_path, **options) as server:
            for name in ("a", "b"):
                assert call(server, "PUT", f"/v1/files/{name}", b"").status == 201
            assert receiver.began.wait(10)
            server.close()
            assert not [name for name in our_threads() if name == "callfs-webhook-h"]
            never.set()
        server = serve(root=tmp_path, **options)
        assert call(server, "PUT", "/v1/files/c", b"").status == 201
        wait_for(lambda: len(receiver.heard) == 4)
        assert [told[1] for told in receiver.of("/h")] == ["/a", "/a", "/b", "/c"]
        assert receiver.heard[0].headers["webhook-id"] == receiver.heard[1].headers["webhook-id"]

    @pytest.mark.parametrize("durability", [pytest.param("full", marks=pytest.mark.long), "relaxed"])
    def test_what_was_answered_survives_kill(self, spawn_server: Callable[..., Spawned], tmp_path: Path, durability: str) -> None:
        """kill -9 while nobody receives; the next process delivers it, in order."""
        port, folder = free_port(), tmp_path / "data"
        folder.mkdir()
        settings = {"storage": {"durability": durability},
                    "events": {"webhooks": {"h": {"url": f"http://127.0.0.1:{port}/h", "secret": HOOK_SECRET}}}}
        server = spawn_server(settings, folder=folder)
        names = [f"/f{number}" for number in range(8)]
        for name in names:
            assert call(server, "PUT", "/v1/files" + name, b"x").status == 201
        server.stop(signal.SIGKILL)
        with contextlib.closing(HookReceiver(port=port)) as receiver:
            again = spawn_server(settings, folder=folder)
            wait_for(lambda: len(receiver.heard) >= len(names), 30, again.output())
            assert [told[1] for told in receiver.of("/h")] == names
            assert HOOK_SECRET not in server.output() + again.output()

    def test_full_disk(self, receiver: HookReceiver, serve: Callable[..., Any], tmp_path: Path) -> None:
        """The writer is answered as ever; the events that are lost are counted and told of in one line."""
        log = tmp_path / "log"
        server = serve(log={"level": "warn", "file": str(log)}, **self.options(receiver, {"h": {}}))
        queue = server.webhooks._queue._adder
        (pages,) = queue.execute("PRAGMA page_count").fetchone()
        queue.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        for number in range(3):
            path = "/".join([f"{number}" * 200] * 18)   # a create for each folder; no room for all of them
            assert call(server, "PUT", "/v1/files/" + path, b"").status == 201
        assert hook_metrics(server.metrics)["h", "lost"] > 1
        assert log.read_text().count("events are lost to webhooks") == 1 and "disk" in log.read_text()
        queue.execute("PRAGMA max_page_count = 100000").fetchall()
        assert call(server, "PUT", "/v1/files/last", b"").status == 201
        wait_for(lambda: ("create", "/last", None) in receiver.of("/h"))

    def test_backlog_is_bounded(self, receiver: HookReceiver, serve: Callable[..., Any], tmp_path: Path) -> None:
        """The oldest go, which is counted, and told in one line."""
        log, never = tmp_path / "log", threading.Event()
        receiver.plan["/h"] = [never]
        server = serve(log={"level": "warn", "file": str(log)}, **self.options(receiver, {"h": {}}, webhook_backlog=3))
        for name in "abcdef":
            assert call(server, "PUT", f"/v1/files/{name}", b"").status == 201
            assert receiver.began.wait(10)
        assert server.metrics.value("callfs_webhook_backlog") == 3
        assert hook_metrics(server.metrics)["h", "dropped"] == 3 and log.read_text().count("oldest events are dropped") == 1
        never.set()
        wait_for(lambda: len(receiver.heard) == 4)
        assert [told[1] for told in receiver.of("/h")] == ["/a", "/d", "/e", "/f"]

    def test_ready_shows_mounts_that_stand_nowhere(self, serve: Callable[..., Any], tmp_path: Path) -> None:
        """As a file lies above them; those that stand in the tree are shown once."""
        (tmp_path / "file").write_bytes(b"")
        server = serve(tmp_path, plugins={"memfs": {"path": "/file/inside"}, "localfs": {"path": "/broken"}})
        answer = call(server, "GET", "/ready")
        parts = {name: state for name, state in answer.json()["parts"].items() if "mount" in name}
        assert list(parts) == ["/broken: mount", "mount /file/inside"] and "/file is a file" in parts["mount /file/inside"]
        assert answer.status == 200         # the rest works

    def test_without_hooks_there_is_no_queue(self, serve: Callable[..., Any]) -> None:
        """Nor a sink that costs something."""
        server = serve()
        assert server.tree.hub.sinks == [] and not glob.glob(server.config.metadata_store.sqlite_path + "-webhooks*")
        assert server.metrics.value("callfs_webhook_backlog") == 0

    def test_the_queue_is_private(self, receiver: HookReceiver, serve: Callable[..., Any], tmp_path: Path) -> None:
        """No mount may show it."""
        records = tmp_path / "records"
        records.mkdir()
        hook = self.options(receiver, {"h": {}})
        (tmp_path / "served").mkdir()
        server = serve(**hook, metadata_store={"sqlite_path": str(records / "r.sqlite3")})
        assert (records / "r.sqlite3-webhooks").stat().st_mode & 0o777 == 0o600
        answer = call(server, "POST", "/api/v1/mount", {"fstype": "localfs", "path": "/l", "config": {"local_dir": str(records)}})
        assert answer.status == 400 and b"data of this server" in answer.body


# ============================================================================
# Download links
# ============================================================================

@pytest.fixture
def links(rig: Rig) -> tuple[Any, Clock]:
    """Links of a store, and their clock, which stands at 1000."""
    clock = Clock()
    put(rig.tree, "/d/f", b"linked")
    return callfs.Links(rig.tree, rig.store, "secret", clock), clock


class TestLinks:
    """Tokens that open one file, a few times, until a moment."""

    def test_life(self, links: tuple[Any, Clock]) -> None:
        """Made, found (which uses nothing), opened, used up."""
        service, clock = links
        token, made = service.make(BOB, "/d/f", 60, 2)
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", token)
        assert (made.expires, made.owner) == (1060.0, "bob")
        for _ in range(2):
            for _ in range(3):
                link = service.find(token)
            with contextlib.closing(service.open(link)) as handle:
                assert b"".join(handle.reader()) == b"linked"
            service.use(link)
        for gone in (lambda: service.find(token), lambda: service.use(made)):
            with pytest.raises(callfs.Gone) as caught:
                gone()
            assert caught.value.status == 410

    def test_expiry(self, links: tuple[Any, Clock]) -> None:
        """Up to the second, then 410; after the sweep 404."""
        service, clock = links
        token, link = service.make(ALICE, "/d/f", 60, 1)
        clock.now = 1059.999
        service.find(token)
        clock.now = 1060.0
        for gone in (lambda: service.find(token), lambda: service.use(link)):
            with pytest.raises(callfs.Gone):
                gone()
        service._store.sweep_links(clock.now)
        with pytest.raises(callfs.NotFound):
            service.find(token)

    def test_only_a_hash_of_the_token_is_kept(self, links: tuple[Any, Clock], rig: Rig) -> None:
        """Nowhere in the records, nor the secret."""
        token, _ = links[0].make(ALICE, "/d/f", 60, 1)
        rig.store._writer.execute("PRAGMA wal_checkpoint")
        stored = b"".join(Path(rig.store.path + suffix).read_bytes() for suffix in ("", "-wal"))
        assert token.encode() not in stored and token.split(".")[0].encode() not in stored and b"alice" in stored

    @pytest.mark.parametrize("change", ["", "x", "first", "last", "cut", "other secret", "no signature", "unicode"])
    def test_wrong_tokens(self, links: tuple[Any, Clock], rig: Rig, change: str) -> None:
        """404 for everything that is not exactly a token of this server."""
        service, clock = links
        token, _ = service.make(ALICE, "/d/f", 60, 1)
        wrong = {"": "", "x": "x", "first": ("A" if token[0] != "A" else "B") + token[1:],
                 "last": token[:-1] + ("A" if token[-1] != "A" else "B"),
                 "cut": token[:-1], "other secret": token, "no signature": token.split(".")[0],
                 "unicode": token + "\u00e9\udcff"}[change]
        if change == "other secret":
            service = callfs.Links(rig.tree, rig.store, "another", clock)
        with pytest.raises(callfs.NotFound):
            service.find(wrong)

    def test_a_stored_hash_alone_opens_nothing(self, links: tuple[Any, Clock], rig: Rig) -> None:
        """Who can write the records but has no secret makes no link; who changes the path of one breaks it."""
        service, _ = links
        token, link = service.make(ALICE, "/d/f", 60, 1)
        forged = "A" * 22 + "." + "A" * 43
        rig.store.add_link(link._replace(id="forged", token_hash=callfs._token_hash(forged)))
        with pytest.raises(callfs.NotFound):
            service.find(forged)
        for column, value in (("path", "/secret"), ("expires", 9e9)):
            rig.store._writer.execute(f"UPDATE links SET {column} = ? WHERE id = ?", (value, link.id))
            with pytest.raises(callfs.NotFound):
                service.find(token)

    @pytest.mark.parametrize("change, opens", [("overwrite", True), ("remake", False), ("remove", False),
                                               ("move over", False), ("folder", False)])
    def test_the_file_of_a_link(self, links: tuple[Any, Clock], rig: Rig, change: str, opens: bool) -> None:
        """A new version is that file; another file under its name is not."""
        service, _ = links
        _, link = service.make(ALICE, "/d/f", 60, 1)
        if change == "overwrite":
            put(rig.tree, "/d/f", b"version 2")
        else:
            rig.tree.remove(ALICE, "/d/f")
        if change == "remake":
            put(rig.tree, "/d/f")
        elif change == "move over":
            put(rig.tree, "/g")
            rig.tree.move(ALICE, "/g", "/d/f", overwrite=True)
        elif change == "folder":
            rig.tree.mkdir(ALICE, "/d/f")
        if opens:
            with contextlib.closing(service.open(link)) as handle:
                assert b"".join(handle.reader()) == b"version 2"
        else:
            with pytest.raises(callfs.NotFound):
                service.open(link)

    def test_who_may(self, links: tuple[Any, Clock], rig: Rig) -> None:
        """Only for files that are there; a list and a revocation of one's own, for trusted users of all."""
        service, _ = links
        for path, error in (("/absent", callfs.FileNotFound), ("/d", callfs.BadRequest),
                            ("/.callfs/records.sqlite3", callfs.FileNotFound)):
            with pytest.raises(error):
                service.make(callfs.ROOT, path, 60, 1)
        with pytest.raises(callfs.AuthenticationFailed):
            service.make(callfs.ANONYMOUS["none"], "/d/f", 60, 1)
        token, link = service.make(ALICE, "/d/f", 60, 1)
        assert service.of(ALICE) == [link] == service.of(callfs.ROOT) and service.of(BOB) == []
        with pytest.raises(callfs.NotFound):
            service.revoke(BOB, link.id)
        service.revoke(ALICE, link.id)
        with pytest.raises(callfs.NotFound):
            service.find(token)

    @pytest.mark.parametrize("uses", [1, 4])
    def test_of_many_at_once_as_many_win_as_may(self, links: tuple[Any, Clock], uses: int) -> None:
        """Never one more."""
        service, _ = links
        _, link = service.make(ALICE, "/d/f", 60, uses)

        def work(number: int) -> bool:
            try:
                service.use(link)
                return True
            except callfs.Gone:
                return False

        assert in_threads(work, 10).count(True) == uses


# ============================================================================
# fsck: what disagrees between files and records, and its mending
# ============================================================================

class TestFsck:
    """`run_fsck` on the data of a configuration."""

    @pytest.fixture
    def config(self, tmp_path: Path) -> Any:
        config = callfs.Config.from_mapping(server_settings(tmp_path), "test")
        with contextlib.closing(self.open(config)) as rig:
            for path, data in BASE.items():
                rig.tree.mkdir(ALICE, path) if data is None else put(rig.tree, path, data)
        return config

    def open(self, config: Any) -> Rig:
        return Rig(config.backend.localfs_root_path, records=config.metadata_store.sqlite_path)

    def check(self, config: Any, **options: Any) -> tuple[int, list[tuple[str, str]]]:
        """How many problems are left, and what was found."""
        found: list[Any] = []
        with nothing_left(2):
            left = callfs.run_fsck(config, report=found.append, **options)
        assert all(finding.kind in callfs.FINDINGS for finding in found)
        return left, sorted((finding.kind, finding.path) for finding in found)

    def root(self, config: Any) -> Path:
        return Path(config.backend.localfs_root_path)

    def test_nothing_to_say(self, config: Any) -> None:
        """Of sound data, deep or not."""
        for options in ({}, {"deep": True}, {"mend": False}, {"deep": True, "mend": False}):
            assert self.check(config, **options) == (0, [])

    BREAK: dict[str, tuple[Callable[[Path], Any], list[tuple[str, str]],
                           bool]] = {     # what is done, found, and whether it can be mended
        "unrecorded": (lambda root: ((root / "new").mkdir(), (root / "new" / "f").write_bytes(b"")),
                       [("unrecorded", "/new"), ("unrecorded", "/new/f")], True),
        "missing": (lambda root: os.unlink(root / "d" / "f"), [("missing", "/d/f")], True),
        "missing folder": (lambda root: shutil.rmtree(root / "d" / "e"), [("missing", "/d/e"), ("missing", "/d/e/h")],
                           True),
        "changed": (lambda root: (root / "d" / "f").write_bytes(b"changed"), [("changed", "/d/f")], True),
        "replaced by a folder": (lambda root: (os.unlink(root / "z"), (root / "z").mkdir()), [("replaced", "/z")],
                                 True),
        "replaced by a file": (lambda root: ((root / "empty").rmdir(), (root / "empty").touch()),
                               [("replaced", "/empty")], True),
        "scratch": (lambda root: ((root / ".callfs" / "tmp" / "x").touch(),
                                  (root / ".callfs" / "trash" / "y" / "z").mkdir(parents=True)),
                    [("scratch", "/.callfs/tmp/x"), ("scratch", "/.callfs/trash/y")], True),
        "link": (lambda root: os.symlink("/etc", root / "link"), [("unrecorded", "/link")], True),
    }

    @pytest.mark.parametrize("how", BREAK)
    def test_each_finding(self, config: Any, how: str) -> None:
        """A dry run finds it and changes nothing; a run mends it; the next one is content."""
        act, findings, _ = self.BREAK[how]
        act(self.root(config))
        for _ in range(2):
            assert self.check(config, mend=False) == (len(findings), findings)
        assert self.check(config) == (0, findings)
        assert self.check(config, deep=True) == (0, [])
        with contextlib.closing(self.open(config)) as rig:
            seen = picture(rig.tree)
            untouched = {path for path in BASE if path not in {one for _, one in findings}}
            assert all(seen[path][1] == "alice" for path in untouched) and seen.get("/d/f", (0, "alice"))[1] == "alice"

    def test_mended_is_what_the_file_says(self, config: Any) -> None:
        """Owner and id stay with a changed file; what came from outside is root's."""
        (self.root(config) / "d" / "f").write_bytes(b"changed")
        (self.root(config) / "d" / "new").write_bytes(b"new")
        with contextlib.closing(self.open(config)) as rig:
            old = rig.store.get("/d/f")
        self.check(config)
        with contextlib.closing(self.open(config)) as rig:
            new = rig.store.get("/d/f")
            assert (new.owner, new.id, new.size, new.digest) == ("alice", old.id, 7, "") and new.etag != old.etag
            assert rig.store.get("/d/new").owner == "root"

    def test_rot_is_reported_and_left(self, config: Any) -> None:
        """It can not be mended: it stays a problem, every time."""
        path = self.root(config) / "d" / "g"
        found = os.stat(path)
        path.write_bytes(b"old G")
        os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))
        assert self.check(config) == (0, [])
        for _ in range(2):
            assert self.check(config, deep=True) == (1, [("corrupt", "/d/g")])
        assert path.read_bytes() == b"old G"

    def test_unreadable_and_unnamed(self, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither hides its neighbours; a name that nobody can ask for is no problem."""
        with open(os.path.join(os.fsencode(self.root(config)), b"bad\xff"), "wb"):
            pass
        (self.root(config) / "z").write_bytes(b"changed")
        real = callfs.LocalDisk.stats
        monkeypatch.setattr(callfs.LocalDisk, "stats",
                            lambda disk, path, names: raising(OSError(errno.EIO, "broken"))()
                            if path == "/d/e" else real(disk, path, names))
        left, found = self.check(config)
        assert left == 1 and found == [("changed", "/z"), ("unnamed", "'/bad\\udcff'"), ("unreadable", "/d/e")]
        real_open = callfs.LocalDisk.open
        monkeypatch.undo()
        monkeypatch.setattr(callfs.LocalDisk, "open",
                            lambda disk, path: raising(OSError(errno.EIO, "broken"))()
                            if path == "/d/g" else real_open(disk, path))
        left, found = self.check(config, deep=True)
        assert left == 1 and ("unreadable", "/d/g") in found

    def test_special_files_are_left_alone(self, config: Any) -> None:
        """FIFOs are no finding, and do not hang."""
        os.mkfifo(self.root(config) / "fifo")
        assert self.check(config, deep=True) == (0, [])

    def test_rebuild_of_an_empty_store(self, config: Any) -> None:
        """Without records everything is taken in as root's."""
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(config.metadata_store.sqlite_path + suffix)
        left, found = self.check(config)
        assert left == 0 and found == sorted(("unrecorded", path) for path in BASE)
        with contextlib.closing(self.open(config)) as rig:
            assert picture(rig.tree) == {path: ("file" if data is not None else "directory", "root", data) for path,
                                         data in sorted(BASE.items())}
        assert self.check(config, deep=True) == (0, [])

    def test_damaged_records(self, config: Any) -> None:
        """A clear error that says what to do; the files are not touched."""
        Path(config.metadata_store.sqlite_path).write_bytes(b"x" * 8192)
        with nothing_left(2), pytest.raises(callfs.StorageError, match="damaged; restore a backup"):
            callfs.run_fsck(config)
        assert (self.root(config) / "z").read_bytes() == b"z"

    def test_refused_while_a_server_works_on_the_data(self, config: Any) -> None:
        """And nothing is touched: neither an upload under way (before: removed) nor a record."""
        lock = callfs.DataLock(config.metadata_store.sqlite_path + ".lock")
        try:
            upload = self.root(config) / ".callfs" / "tmp" / "upload"
            upload.touch()
            os.unlink(self.root(config) / "z")
            for start in (lambda: callfs.run_fsck(config), lambda: callfs.run_fsck(config, mend=False),
                          lambda: callfs.Server(config)):
                with nothing_left(2), pytest.raises(callfs.ConfigError, match="another callfs process"):
                    start()
            assert upload.exists()
        finally:
            lock.release()
        assert self.check(config, mend=False) == (2, [("missing", "/z"), ("scratch", "/.callfs/tmp/upload")])

    @needs_fork
    def test_finishes_what_a_killed_server_had_begun(self, config: Any, template: str, tmp_path: Path) -> None:
        """Before it judges: the file keeps its owner."""
        with contextlib.closing(self.open(config)) as rig:
            entry = put(rig.tree, "/new").entry
            rig.store.delete("/new")
            rig.fs._intents.note({"op": "put", "entry": entry})
        assert self.check(config, mend=False) == (1, [("unrecorded", "/new")])
        assert self.check(config) == (0, [])
        with contextlib.closing(self.open(config)) as rig:
            assert rig.tree.stat(ALICE, "/new").owner == "alice"

    def test_deep_trees(self, config: Any) -> None:
        """Deeper than a path is long: no finding, no record lost (before, they counted as missing)."""
        deep = "/" + "/".join(["n" * 250] * 16)
        with contextlib.closing(self.open(config)) as rig:
            put(rig.tree, deep + "/f")
            assert fetch(rig.tree, deep + "/f") == b"data"
        assert self.check(config, deep=True) == (0, [])
        with contextlib.closing(self.open(config)) as rig:
            rig.tree.remove(ALICE, "/" + "n" * 250, recursive=True)
            assert scratch(rig.root) == []

    def test_what_this_version_can_not_do_is_refused(self, tmp_path: Path) -> None:
        """And records among the files that are served are, too."""
        config = callfs.Config.from_mapping(server_settings(tmp_path, {"erasure": {"enabled": True}}), "test")
        with pytest.raises(callfs.ConfigError):
            callfs.run_fsck(config)
        settings = server_settings(tmp_path, {"metadata_store": {"sqlite_path": str(tmp_path / "files" / "records")}})
        with pytest.raises(callfs.ConfigError, match="lies in the folder that is served"):
            callfs.check_places(callfs.Config.from_mapping(settings, "test"))
        settings["metadata_store"]["sqlite_path"] = str(tmp_path / "files" / callfs.HIDDEN / "records")
        callfs.check_places(callfs.Config.from_mapping(settings, "test"))


# ============================================================================
# HTTP on sockets, WebSocket: real sockets on 127.0.0.1, both pollers
# ============================================================================




# ---- helpers ----------------------------------------------------------------------------------------------------

WAIT = 10.0


def until(condition, what="condition"):
    """Wait for something to become true; the time is a bound, not an assertion."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, f"gave up waiting for {what}"
        time.sleep(0.005)


class Pushed(callfs.Reader):
    """A stream of events: `read` never blocks, `wake` tells that there is more."""

    def __init__(self):
        self.items, self.closed, self.wake = [], threading.Event(), lambda: None

    def attach(self, wake):
        self.wake = wake

    def read(self, size=0):
        return self.items.pop(0) if self.items else None

    def put(self, item):
        self.items.append(item)
        self.wake()

    def close(self):
        self.closed.set()


class Source(callfs.Reader):
    """Blocks without a descriptor; an exception among them is raised."""

    def __init__(self, blocks, length=None):
        self.blocks, self.length, self.closed = iter(blocks), length, threading.Event()

    def read(self, size=0):
        block = next(self.blocks, b"")
        if isinstance(block, Exception):
            raise block
        return block

    def close(self):
        self.closed.set()


class App:
    """Answers by path. `gate` holds requests to /wait; `answers` serves prepared responses by path."""

    def __init__(self):
        self.gate, self.waiting = threading.Event(), 0
        self.requests, self.done, self.answers, self.memos = [], [], {}, []
        self.pushed, self.lock = [], threading.Lock()

    def handle(self, request):
        with self.lock:
            self.requests.append((request.method, request.path, request.client, request.scheme))
            self.memos.append(request.memo)
        try:
            return self.answer(request)
        except callfs.CallFSError as error:
            return self.error(error)

    def answer(self, request):
        path = request.path
        if path in self.answers:
            return self.answers[path](request)
        if path == "/wait":
            with self.lock:
                self.waiting += 1
            assert self.gate.wait(WAIT)
        if path == "/push":
            self.pushed.append(Pushed())
            return callfs.Response(200, self.pushed[-1])
        if path == "/ws":
            return callfs.Response(101, headers=callfs.websocket_handshake(request), upgrade=echo)
        if request.method in ("PUT", "POST") and path != "/unread":
            return callfs.Response(200, b"got " + request.body.read(1 << 30))
        return callfs.Response(200, b"hello " + path.encode("latin-1"), block=b"X-Block: 1\r\n")

    def error(self, error):
        return callfs.Response(error.status, error.code.encode(), headers=error.headers)

    def finished(self, request, response, sent, seconds, client):
        self.done.append((request and request.path, response.status, sent))


def echo(duplex):
    websocket = callfs.WebSocket(duplex, max_message=65536)
    message = websocket.receive()
    while message is not None:
        websocket.send(message)
        message = websocket.receive()
    websocket.close()


POLLERS = {"selector": callfs.SelectorPoller}
if hasattr(callfs.select, "epoll"):
    POLLERS["epoll"] = callfs.EpollPoller


def descriptors():
    """What each descriptor is; a list for the message when one is left over."""
    found = []
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            found.append(os.readlink("/proc/self/fd/" + fd))
    return found


@contextlib.contextmanager
def serving(poller="epoll", listen=None, tls=None, app=None, strict=True, **limits):
    """A server that must leave no thread and no descriptor behind."""
    threads, fds = set(threading.enumerate()), descriptors()
    listen = listen or [callfs.ListenAddress("tcp", "127.0.0.1", 0)]
    server = callfs.HTTPServer(app or App(), callfs.HTTPLimits(**{"pin_workers": "off", **limits}), listen, tls=tls,
                               poller=POLLERS.get(poller, callfs.SelectorPoller)())
    server.port = server.addresses[0].port
    server.start()
    try:
        yield server
    finally:
        server.app.gate.set()
        server.server_close()
        until(lambda: set(threading.enumerate()) <= threads, "threads to end")
        left = descriptors()
        assert not strict or len(left) <= len(fds), sorted(set(left) - set(fds))


@pytest.fixture(params=sorted(POLLERS))
def server(request):
    with serving(request.param) as server:
        yield server


def http_connect(server, timeout=WAIT):
    return socket.create_connection(("127.0.0.1", server.port), timeout)


def read_all(sock):
    found = bytearray()                     # adding to `bytes` would copy all of it each time
    with contextlib.suppress(ConnectionResetError):
        while True:
            data = sock.recv(65536)
            if not data:
                return bytes(found)
            found += data
    return bytes(found) + b"<reset>"


def exchange(server, *parts):
    """Send the parts one by one, then read until the server closes."""
    with http_connect(server) as sock:
        for part in parts:
            with contextlib.suppress(ConnectionError):
                sock.sendall(part)
        return read_all(sock)


def statuses(data):
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def get(server, path="/ok", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().read()
    finally:
        connection.close()


def request_bytes(path="/ok", method="GET", headers="", body=b"", close=True):
    last = "Connection: close\r\n" if close else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}{last}\r\n".encode("latin-1") + body


LIMITS = callfs.HTTPLimits()
H = b"GET / HTTP/1.1\r\nHost: x\r\n"

# ---- heads ------------------------------------------------------------------------------------------------------

BAD_HEADS = {
    "bare LF": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "bare LF in a head": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "garbage": (b"\x00\x01\x02\x03", 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "http/1.1": (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "tab": (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "space at the end": (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    "space in front": (b" GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "two empty lines in front": (b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "method no token": (b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "NUL in the target": (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "DEL in the target": (b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "fragment": (b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "no slash": (b"GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "authority form": (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 400),
    "star for GET": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "absolute form, other host": (b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "absolute form, user": (b"GET http://a@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (H + b"Host: x\r\n\r\n", 400),
    "two Hosts in HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "Host list": (b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", 400),
    "Host with path": (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    "Host with user": (b"GET / HTTP/1.1\r\nHost: a@x\r\n\r\n", 400),
    "folded": (H + b"A: b\r\n c\r\n\r\n", 400),
    "folded first": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "space before the colon": (H + b"A : b\r\n\r\n", 400),
    "no colon": (H + b"A\r\n\r\n", 400),
    "no name": (H + b": b\r\n\r\n", 400),
    "name no token": (H + b"A(: b\r\n\r\n", 400),
    "name not ASCII": (H + b"\xe4: b\r\n\r\n", 400),
    "NUL in a value": (H + b"A: \x00\r\n\r\n", 400),
    "control in a value": (H + b"A: \x1b[0m\r\n\r\n", 400),
    "two lengths": (H + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na", 400),
    "equal lengths": (H + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "length list": (H + b"Content-Length: 1, 1\r\n\r\na", 400),
    "length with sign": (H + b"Content-Length: +1\r\n\r\na", 400),
    "negative length": (H + b"Content-Length: -1\r\n\r\na", 400),
    "length with underscore": (H + b"Content-Length: 1_0\r\n\r\n", 400),
    "hexadecimal length": (H + b"Content-Length: 0x1\r\n\r\na", 400),
    "superscript length": (H + b"Content-Length: \xb2\r\n\r\na", 400),
    "empty length": (H + b"Content-Length:\r\n\r\n", 400),
    "huge length": (H + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", 400),
    "length and chunked": (H + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked and length": (H + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked, chunked": (H + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "gzip, chunked": (H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "identity": (H + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "xchunked": (H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked with vertical tab": (H + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "other expectation": (H + b"Expect: tea\r\n\r\n", 417),
    "long line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "endless line": (b"GET /" + b"a" * 9000, 414),
    "large head": (H + b"A: " + b"b" * 40000 + b"\r\n\r\n", 431),
    "endless head": (H + b"A: " + b"b" * 40000, 431),
    "many fields": (H + b"A: b\r\n" * 100 + b"\r\n", 431),
    "endless fields": (H + b"A: b\r\n" * 120, 431),
}

GOOD_HEADS = {
    "least": (H + b"\r\n", "/", {"host": "x"}),
    "empty line in front": (b"\r\n" + H + b"\r\n", "/", {"host": "x"}),
    "1.0": (b"GET /a HTTP/1.0\r\n\r\n", "/a", {}),
    "repeats": (H + b"A: 1\r\na:2\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n", "/",
                {"host": "x", "a": "1, 2", "cookie": "a=b; c=d"}),
    "white space": (H + b"A:\t b \t\r\nB:\r\n\r\n", "/", {"host": "x", "a": "b", "b": ""}),
    "raw bytes": (b"GET /\xc3\xa4?\xff HTTP/1.1\r\nHost: x\r\nA: \xe4\r\n\r\n", "/\xc3\xa4?\xff",
                  {"host": "x", "a": "\xe4"}),
    "absolute": (b"GET http://X:80/a?b HTTP/1.1\r\nHost: x:80\r\n\r\n", "/a?b", {"host": "x:80"}),
    "absolute without path": (b"GET HTTP://x?b=/ HTTP/1.1\r\nHost: x\r\n\r\n", "/?b=/", {"host": "x"}),
    "star": (b"OPTIONS * HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n", "*", {"host": "[::1]:8443"}),
    "99 fields": (H + b"A: b\r\n" * 99 + b"\r\n", "/", {"host": "x", "a": ", ".join(["b"] * 99)}),
}


class TestParseHead:
    @pytest.mark.parametrize("name", BAD_HEADS)
    def test_bad(self, name):
        data, status = BAD_HEADS[name]
        with pytest.raises(callfs.CallFSError) as whole:
            callfs.parse_head(data, LIMITS)
        assert whole.value.status == status
        with pytest.raises(callfs.CallFSError) as bytewise:
            for end in range(1, len(data) + 1):
                assert callfs.parse_head(data[:end], LIMITS) is None
        assert bytewise.value.status == status or bytewise.value.status == 400

    @pytest.mark.parametrize("name", GOOD_HEADS)
    def test_good_three_ways(self, name):
        data, target, headers = GOOD_HEADS[name]
        for end in range(len(data)):
            assert callfs.parse_head(data[:end], LIMITS) is None
        for behind in (b"", b"GET / HTTP/1.1\r\n", b"\r\n\r\n\x00\n"):
            head = callfs.parse_head(data + behind, LIMITS)
            assert (head.target, dict(head.headers), head.size) == (target, headers, len(data))

    @pytest.mark.parametrize("version, connection, kept", [
        ("1.1", "", True), ("1.1", "close", False), ("1.1", "Keep-Alive, CLOSE", False), ("1.1", "closed", True),
        ("1.0", "", False), ("1.0", "keep-alive", True), ("1.0", "keep-alive, close", False)])
    def test_keep_alive(self, version, connection, kept):
        data = f"GET / HTTP/{version}\r\nHost: x\r\nConnection: {connection}\r\n\r\n".encode()
        assert callfs.parse_head(data, LIMITS).keep_alive is kept

    def test_body_and_upgrade(self):
        head = callfs.parse_head(H + b"Content-Length: 007\r\nExpect: 100-Continue\r\n\r\n", LIMITS)
        assert (head.content_length, head.chunked, head.expect_continue) == (7, False, True)
        head = callfs.parse_head(H + b"Transfer-Encoding: Chunked\r\nConnection: Upgrade\r\nUpgrade: X\r\n\r\n", LIMITS)
        assert (head.content_length, head.chunked, head.upgrade) == (None, True, "x")
        head = callfs.parse_head(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\nUpgrade: X\r\n\r\n", LIMITS)
        assert not head.expect_continue and not head.upgrade

    def test_equal_fields_are_parsed_once(self):
        first = callfs.parse_head(H + b"\r\n", LIMITS)
        assert callfs.parse_head(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n", LIMITS, first.fields).fields is first.fields
        assert callfs.parse_head(b"GET /b HTTP/1.1\r\nHost: y\r\n\r\n", LIMITS, first.fields).headers == {"host": "y"}
        old = callfs.parse_head(b"GET / HTTP/1.0\r\n\r\n", LIMITS)
        with pytest.raises(callfs.BadRequest):          # good in 1.0 is not good in 1.1
            callfs.parse_head(b"GET / HTTP/1.1\r\n\r\n", LIMITS, old.fields)

    def test_fuzz(self):
        draw = random.Random(7230)
        seeds = [data[:200] for data, _ in BAD_HEADS.values()] + [row[0][:200] for row in GOOD_HEADS.values()]
        for _ in range(20000):
            data = bytearray(draw.choice(seeds))
            for _ in range(draw.randrange(4)):
                data[draw.randrange(len(data))] = draw.choice(b"\r\n\x00 :\xffaG/1")
            with contextlib.suppress(callfs.CallFSError):
                callfs.parse_head(bytes(data), LIMITS)


# ---- chunks -----------------------------------------------------------------------------------------------------

GOOD_CHUNKS = {
    "empty": (b"0\r\n\r\n", b""),
    "one": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "zeros, cases": (b"0000000000000005\r\nhello\r\nA\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n",
                     b"hello01234567890123456789"),
    "extensions": (b'1;a\r\nx\r\n1;a=b;c="d\\"\xe4;"\r\ny\r\n0;z\r\n\r\n', b"xy"),
    "trailers": (b"1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", b"x"),
}
BAD_CHUNKS = {
    "no size": b"\r\nx\r\n0\r\n\r\n", "sign": b"+1\r\nx\r\n0\r\n\r\n", "negative": b"-1\r\nx\r\n",
    "space": b"1 \r\nx\r\n0\r\n\r\n", "space in front": b" 1\r\nx\r\n", "0x": b"0x1\r\nx\r\n",
    "underscore": b"1_0\r\n" + b"x" * 16, "17 digits": b"00000000000000001\r\nx\r\n", "bare LF": b"1\nx\r\n0\r\n\r\n",
    "no CRLF behind": b"1\r\nxy0\r\n\r\n", "LF behind": b"1\r\nx\n0\r\n\r\n", "CR behind": b"1\r\nx\ry0\r\n\r\n",
    "LF in an extension": b"1;a\n\r\nx\r\n", "CR in an extension": b"1;a\r\r\nx\r\n", "no extension": b"1;\r\nx\r\n",
    "open quote": b'1;a="b\r\nx\r\n', "long extension": b"1;" + b"a" * 2000 + b"\r\n",
    "endless extension": b"1;" + b"a" * 2000, "many extensions": (b"1;" + b"a" * 900 + b"\r\nx\r\n") * 20,
    "folded trailer": b"0\r\n A: b\r\n\r\n", "bad trailer": b"0\r\nA\r\n\r\n", "LF trailer": b"0\r\n\n",
    "many trailers": b"0\r\n" + b"A: b\r\n" * 2000, "long trailer": b"0\r\nA: " + b"b" * 9000,
}


def decode_chunks(parts, room=65536):
    """What a ChunkDecoder makes of parts that arrive one by one, and what it leaves."""
    decoder, buffer, found, view = callfs.ChunkDecoder(), bytearray(), b"", memoryview(bytearray(room))
    for part in parts:
        buffer += part
        count = decoder.decode(buffer, view)
        while count:
            found += view[:count]
            count = decoder.decode(buffer, view)
    return found, decoder.done, bytes(buffer)


class TestChunks:
    @pytest.mark.parametrize("name", GOOD_CHUNKS)
    def test_good_three_ways(self, name):
        data, body = GOOD_CHUNKS[name]
        bytewise = [data[i:i + 1] for i in range(len(data))]
        assert decode_chunks([data]) == decode_chunks(bytewise) == decode_chunks([data], 1) == (body, True, b"")
        assert decode_chunks([data + b"GET"]) == (body, True, b"GET")
        assert not any(decode_chunks([data[:end]])[1] for end in range(len(data)))

    @pytest.mark.parametrize("name", BAD_CHUNKS)
    def test_bad(self, name):
        data = BAD_CHUNKS[name]
        for parts in ([data], [data[i:i + 1] for i in range(len(data))]):
            with pytest.raises(callfs.BadRequest):
                decode_chunks(parts)

    @pytest.mark.parametrize("name", BAD_CHUNKS)
    def test_bad_closes(self, server, name):
        found = exchange(server, request_bytes("/x", "PUT", "Transfer-Encoding: chunked\r\n", BAD_CHUNKS[name], False))
        assert statuses(found) == [400] and b"Connection: close" in found

    def test_fuzz(self):
        draw = random.Random(7231)
        seeds = [row[0] for row in GOOD_CHUNKS.values()] + [data[:300] for data in BAD_CHUNKS.values()]
        for _ in range(20000):
            data = bytearray(draw.choice(seeds))
            for _ in range(draw.randrange(4)):
                data[draw.randrange(len(data))] = draw.choice(b"\r\n\x000aF;= \"\xff")
            with contextlib.suppress(callfs.CallFSError):
                decode_chunks([bytes(data)])


# ---- requests on sockets ----------------------------------------------------------------------------------------

class TestRequests:
    @pytest.mark.parametrize("name", BAD_HEADS)
    def test_bad_heads_close_and_the_server_serves_on(self, shared, name):
        data, status = BAD_HEADS[name]
        found = exchange(shared, data)
        assert statuses(found) == [status] and b"Connection: close" in found and not found.endswith(b"<reset>")
        assert get(shared) == b"hello /ok"

    @pytest.mark.parametrize("name", [n for n in GOOD_HEADS if n != "99 fields"])
    def test_good_heads_bytewise(self, shared, name):
        data = GOOD_HEADS[name][0]
        with http_connect(shared) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(data)):
                sock.sendall(data[i:i + 1])
            sock.shutdown(socket.SHUT_WR)
            assert statuses(read_all(sock)) == [200]

    def test_answer_is_one_message(self, server):
        found = exchange(server, request_bytes())
        head, _, body = found.partition(b"\r\n\r\n")
        assert body == b"hello /ok" and b"\r\nX-Block: 1\r\nContent-Length: 9\r\nConnection: close" in head
        assert head.startswith(b"HTTP/1.1 200 OK\r\nDate: ") and server.app.done[-1] == ("/ok", 200, 9)
        assert server.app.requests[-1][2:] == ("127.0.0.1", "http")

    def test_pipelining_keeps_the_order(self, server):
        count = 50                          # more than max_pipelined
        data = b"".join(request_bytes(f"/{i}", close=False) for i in range(count)) + request_bytes("/last")
        found = exchange(server, data)
        assert statuses(found) == [200] * (count + 1)
        assert [found.index(b"hello /%d" % i) for i in range(count)] == \
            sorted(found.index(b"hello /%d" % i) for i in range(count))

    def test_memo_lives_as_long_as_the_headers(self, server):
        other = request_bytes("/c", headers="A: b\r\n", close=False)
        exchange(server, request_bytes("/a", close=False), request_bytes("/b", close=False), other, request_bytes("/d"))
        first, second, third, _ = server.app.memos
        assert first is second and second is not third

    def test_bodies(self, server):
        chunked = "Transfer-Encoding: chunked\r\n"
        found = exchange(server, request_bytes("/a", "PUT", "Content-Length: 5\r\n", b"hello", False)
                         + request_bytes("/b", "PUT", chunked, b"3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n", False)
                         + request_bytes("/c", "PUT", "Content-Length: 0\r\n", b"", False), request_bytes("/d"))
        assert statuses(found) == [200] * 4
        assert [part in found for part in (b"got hello", b"got abcde", b"got HTTP", b"hello /d")] == [True] * 4

    @pytest.mark.parametrize("chunked", [False, True])
    def test_large_body(self, server, chunked):
        data = random.Random(1).randbytes(3 << 20) if hasattr(random, "randbytes") else os.urandom(3 << 20)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
        body = iter([data[i:i + 100_001] for i in range(0, len(data), 100_001)]) if chunked else data
        connection.request("PUT", "/x", body, encode_chunked=chunked,
                           headers={"Transfer-Encoding": "chunked"} if chunked else {})
        assert connection.getresponse().read() == b"got " + data
        connection.close()

    SMUGGLING = [
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 40\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
        b"X\r\nContent-Length: 40\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nxx0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
        b"Content-Length: 99999999\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
    ]

    @pytest.mark.parametrize("tail", SMUGGLING)
    def test_smuggling(self, shared, tail):
        with http_connect(shared) as sock:
            sock.sendall(b"POST /unread HTTP/1.1\r\nHost: x\r\n" + tail)
            sock.shutdown(socket.SHUT_WR)
            assert len(statuses(read_all(sock))) == 1
        assert "/evil" not in [row[1] for row in shared.app.requests]

    def test_head_and_bodiless(self, server):
        length = 10**12
        server.app.answers["/big"] = lambda request: callfs.Response(200, Source([b"x"], length))
        server.app.answers["/304"] = lambda request: callfs.Response(304, b"", headers=[("ETag", '"a"')])
        server.app.answers["/204"] = lambda request: callfs.Response(204, None)
        found = exchange(server, *[request_bytes(p, m, close=False) for p, m in
                                   (("/big", "HEAD"), ("/304", "GET"), ("/204", "GET"), ("/ok", "HEAD"))],
                         request_bytes("/end"))
        assert statuses(found) == [200, 304, 204, 200, 200] and found.endswith(b"\r\n\r\nhello /end")
        assert found.count(b"Content-Length") == 3 and b"Content-Length: %d" % length in found

    def test_http_1_0(self, server):
        server.app.answers["/stream"] = lambda request: callfs.Response(200, Source([b"a", b"b"]))
        assert b"Connection: close" in exchange(server, b"GET / HTTP/1.0\r\n\r\n")
        found = exchange(server, b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"GET /stream HTTP/1.0\r\n\r\n")
        assert statuses(found) == [200, 200] and found.count(b"keep-alive") == 1 and found.endswith(b"\r\n\r\nab")
        assert b"chunked" not in found

    def test_stream_is_chunked(self, server):
        source = Source([b"hello", b"x" * 300_000])
        server.app.answers["/stream"] = lambda request: callfs.Response(200, source)
        found = exchange(server, request_bytes("/stream"))
        assert b"Transfer-Encoding: chunked" in found
        assert found.endswith(b"\r\n\r\n5\r\nhello\r\n493e0\r\n" + b"x" * 300_000 + b"\r\n0\r\n\r\n")
        assert source.closed.wait(WAIT)

    @pytest.mark.parametrize("headers", [[("A", "b\r\nC: d")], [("A\n", "b")], [("A", "\0")], [("A", "\u20ac")]])
    def test_header_injection_is_a_500(self, shared, headers):
        source = Source([b"x"])
        shared.app.answers["/inject"] = lambda request: callfs.Response(200, source, headers=headers)
        assert statuses(exchange(shared, request_bytes("/inject"))) == [500] and source.closed.is_set()

    def test_half_close(self, server):
        with http_connect(server) as sock:
            sock.sendall(request_bytes(close=False))
            sock.shutdown(socket.SHUT_WR)
            assert statuses(read_all(sock)) == [200]

    def test_expect_continue(self, server):
        with http_connect(server) as sock:
            sock.sendall(request_bytes("/x", "PUT", "Content-Length: 5\r\nExpect: 100-continue\r\n"))
            assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(b"hello")
            assert read_all(sock).endswith(b"got hello")

    def test_expect_without_reading_closes(self, server):
        found = exchange(server, request_bytes("/unread", "PUT", "Content-Length: 5\r\nExpect: 100-continue\r\n", b"", False))
        assert statuses(found) == [200] and b"Connection: close" in found

    def test_no_100_when_the_body_came_along(self, server):
        found = exchange(server, request_bytes("/x", "PUT", "Content-Length: 5\r\nExpect: 100-continue\r\n", b"hello"))
        assert statuses(found) == [200]

    @pytest.mark.parametrize("size, kept", [(1000, True), (60_000, True), (200_000, False)])
    def test_unread_body(self, server, size, kept):
        with http_connect(server) as sock:
            sock.sendall(request_bytes("/unread", "PUT", f"Content-Length: {size}\r\n", b"x" * size, False))
            if kept:
                sock.sendall(request_bytes("/next"))
            found = read_all(sock)
        assert statuses(found) == [200, 200] if kept else statuses(found) == [200]
        assert not found.endswith(b"<reset>")

    def test_unread_chunked_body(self, server):
        found = exchange(server, request_bytes("/unread", "PUT", "Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n",
                                               False), request_bytes("/next"))
        assert statuses(found) == [200, 200]

    def test_upload_bound(self):
        with serving(max_upload_bytes=1000) as server:
            for headers, body in (("Content-Length: 1001\r\nExpect: 100-continue\r\n", b""),
                                  ("Transfer-Encoding: chunked\r\n", b"3e9\r\n"),
                                  ("Transfer-Encoding: chunked\r\n", (b"64\r\n" + b"x" * 100 + b"\r\n") * 11)):
                assert statuses(exchange(server, request_bytes("/x", "PUT", headers, body, False))) == [413]

    def test_address_of_ipv6_and_unix(self, tmp_path):
        path = str(tmp_path / "s")
        listen = [callfs.ListenAddress("tcp", "", 0), callfs.ListenAddress("unix", path=path)]
        with serving(listen=listen) as server:
            hosts = ["127.0.0.1"] + ["::1"] * callfs.socket.has_dualstack_ipv6()
            for host in hosts:
                with socket.create_connection((host, server.port), WAIT) as sock:
                    sock.sendall(request_bytes())
                    assert statuses(read_all(sock)) == [200]
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                sock.sendall(request_bytes())
                assert statuses(read_all(sock)) == [200]
            assert [row[2] for row in server.app.requests] == [*hosts, "unix"]
            assert os.stat(path).st_mode & 0o777 == 0o660
            with pytest.raises(callfs.ConfigError):     # somebody answers there
                callfs.open_listener(listen[1], 1)
            assert server.addresses[1] == listen[1]
        assert not os.path.exists(path)

    def test_stale_unix_socket(self, tmp_path):
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        with serving(listen=[callfs.ListenAddress("unix", path=path)]) as server:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                sock.sendall(request_bytes())
                assert statuses(read_all(sock)) == [200]
            assert server.connections <= 1
        (tmp_path / "f").write_bytes(b"precious")
        with pytest.raises(callfs.ConfigError):
            callfs.open_listener(callfs.ListenAddress("unix", path=str(tmp_path / "f")), 1)
        assert (tmp_path / "f").read_bytes() == b"precious"

    def test_port_taken(self, shared):
        with pytest.raises(callfs.ConfigError, match="can not listen"):
            callfs.HTTPServer(App(), LIMITS, [callfs.ListenAddress("tcp", "127.0.0.1", shared.port)])

    def test_inherited_socket(self):
        sock = socket.create_server(("127.0.0.1", 0))
        server = callfs.HTTPServer(App(), LIMITS, inherited=[sock])
        server.port = server.addresses[0].port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert get(server) == b"hello /ok"
        server.shutdown()
        thread.join(WAIT)
        server.server_close()
        assert not thread.is_alive() and isinstance(server, http.server.ThreadingHTTPServer)

    def test_a_bug_costs_one_connection(self, shared, caplog):
        shared.app.answers["/bug"] = lambda request: 1 // 0
        assert exchange(shared, request_bytes("/bug")) in (b"", b"<reset>")
        assert get(shared) == b"hello /ok" and "ZeroDivisionError" in caplog.text


@pytest.fixture(scope="class")
def shared():
    with serving(strict=False) as server:   # other tests open things meanwhile (`websockets` keeps a selector)
        yield server


# ---- files ------------------------------------------------------------------------------------------------------

class TestFiles:
    SIZES = [0, 1, 65536, 65537, 5_000_001]

    @pytest.fixture(params=[False, True], autouse=True)
    def sendfile(self, request, monkeypatch):
        monkeypatch.setattr(callfs.HTTPServer, "sendfile_locally", request.param)

    @pytest.mark.parametrize("size", SIZES)
    def test_byte_exact(self, server, tmp_path, size):
        data = os.urandom(size - 1) + b"\xfe" if size else b""
        (tmp_path / "f").write_bytes(b"abc" + data + b"def")
        server.app.answers["/f"] = lambda request: self.reader(tmp_path / "f", 3, size)
        assert exchange(server, request_bytes("/f", close=False) + request_bytes("/f")).count(data or b"200 OK") == 2
        assert server.app.done == [("/f", 200, size)] * 2

    @staticmethod
    def reader(path, offset, length):
        fd = os.open(path, os.O_RDONLY)
        return callfs.Response(200, callfs.FileReader(fd, offset, length))

    def test_without_sendfile(self, server, tmp_path, monkeypatch):
        def refuse(*args):
            raise OSError(callfs.errno.EINVAL, "no")
        monkeypatch.setattr(callfs.os, "sendfile", refuse, raising=False)
        self.test_byte_exact(server, tmp_path, 5_000_001)

    @pytest.mark.parametrize("size, status", [(1000, [500]), (50_000_000, [200])])
    def test_truncated_file_is_cut(self, server, tmp_path, size, status):
        (tmp_path / "f").write_bytes(b"x" * 500)
        server.app.answers["/f"] = lambda request: self.reader(tmp_path / "f", 0, size)
        found = exchange(server, request_bytes("/f"))
        assert statuses(found) == status and len(found) < 2000
        assert status == [500] or found.endswith(b"<reset>") or len(found.partition(b"\r\n\r\n")[2]) <= 500

    @pytest.mark.parametrize("length, blocks", [
        (None, [b"a" * 10, OSError("disk")]), (20, [b"a" * 10, callfs.StorageError()]), (20, [b"a" * 10]),
        (20, [b"a" * 30]), (None, [b"a" * 10, ValueError("bug")])])
    def test_broken_source_never_ends_right(self, server, length, blocks):
        source = Source(blocks, length)
        server.app.answers["/s"] = lambda request: callfs.Response(200, source)
        found = exchange(server, request_bytes("/s"))
        assert not found.endswith(b"0\r\n\r\n") and len(found.partition(b"\r\n\r\n")[2]) < 20 + len(b"<reset>")
        assert source.closed.wait(WAIT) and get(server) == b"hello /ok"

    def test_client_leaves_in_the_answer(self, server):
        source = Source(itertools.repeat(b"x" * 100_000))
        server.app.answers["/s"] = lambda request: callfs.Response(200, source)
        with http_connect(server) as sock:
            sock.sendall(request_bytes("/s"))
            sock.recv(1000)
        assert source.closed.wait(WAIT)
        until(lambda: server.connections == 0, "the connection to be forgotten")
        assert [row[:2] for row in server.app.done] == [("/s", 200)]

    def test_slow_readers_hold_no_thread(self, server, tmp_path):
        size = 8_000_000
        (tmp_path / "f").write_bytes(b"x" * size)
        server.app.answers["/f"] = lambda request: self.reader(tmp_path / "f", 0, size)
        server.app.answers["/b"] = lambda request: callfs.Response(200, b"y" * size)
        server.app.answers["/s"] = lambda request: callfs.Response(200, Source([b"z" * (size // 4)] * 4, size))
        socks = [http_connect(server) for _ in range(30)]
        for sock, path in zip(socks, itertools.cycle("fbs")):
            sock.sendall(request_bytes("/" + path))
        until(lambda: server.pool.blocked == 0 and len(server.app.requests) == 30, "all to be parked")
        assert get(server) == b"hello /ok"
        for sock in socks:
            found = read_all(sock)
            assert len(found.partition(b"\r\n\r\n")[2]) == size
            sock.close()

    def test_reader_that_does_not_drain_is_cut(self):
        with serving(write_timeout=0.3) as server:
            source = Source(itertools.repeat(b"x" * 100_000))
            server.app.answers["/s"] = lambda request: callfs.Response(200, source)
            with http_connect(server) as sock:
                sock.sendall(request_bytes("/s"))
                assert source.closed.wait(WAIT)


# ---- limits and deadlines ---------------------------------------------------------------------------------------

class TestLimits:
    def test_slow_heads_hold_no_thread(self, server):
        socks = [http_connect(server) for _ in range(300)]
        for sock in socks:
            sock.sendall(b"GET /slow HTTP/1.1\r\nHost")
        until(lambda: server.connections >= 300, "300 connections")
        assert get(server) == b"hello /ok" and server.pool.total == server.limits.workers
        for sock in socks:
            sock.sendall(b": x\r\nConnection: close\r\n\r\n")
        assert all(statuses(read_all(sock)) == [200] for sock in socks)
        for sock in socks:
            sock.close()

    def test_head_deadline_is_not_renewed(self):
        with serving(head_timeout=0.3) as server, http_connect(server) as sock:
            with contextlib.suppress(ConnectionError):
                for byte in itertools.cycle(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 90):
                    sock.sendall(bytes([byte]))
                    if server.app.done:
                        break
                    time.sleep(0.001)
            assert statuses(read_all(sock)) == [408]

    def test_idle_connection_is_closed(self):
        with serving(idle_timeout=0.2) as server, http_connect(server) as sock:
            sock.sendall(request_bytes(close=False))
            assert statuses(read_all(sock)) == [200]

    @pytest.mark.parametrize("option", ["max_connections", "max_connections_per_address"])
    def test_connection_bounds(self, option):
        with serving(**{option: 3}) as server:
            socks = [http_connect(server) for _ in range(3)]
            until(lambda: server.connections == 3, "three connections")
            assert exchange(server, request_bytes()) in (b"", b"<reset>")
            socks.pop().close()
            until(lambda: server.connections == 2, "one to be gone")
            assert get(server) == b"hello /ok"
            for sock in socks:
                sock.close()

    def test_slow_uploads_do_not_stall_small_requests(self, server):
        count = server.limits.workers * 4
        socks = [http_connect(server) for _ in range(count)]
        for sock in socks:
            sock.sendall(request_bytes("/x", "PUT", "Content-Length: 5\r\n", b"he"))
        until(lambda: server.pool.blocked == count, "uploads to wait")
        assert get(server) == b"hello /ok"
        for sock in socks:
            sock.sendall(b"llo")
            assert read_all(sock).endswith(b"got hello")
            sock.close()

    def test_a_full_pool_answers_503_and_serves_small_requests(self):
        with serving(workers=2, max_workers=4) as server:
            server.app.answers["/s"] = lambda request: callfs.Response(200, Source([b"x"] * 3))
            socks = [http_connect(server) for _ in range(2)]
            for sock in socks:
                sock.sendall(request_bytes("/x", "PUT", "Content-Length: 5\r\n"))
            until(lambda: server.pool.blocked == 2, "the pool to be full")
            found = exchange(server, request_bytes("/x", "PUT", "Content-Length: 5\r\n", b"hello"))
            assert statuses(found) == [503] and b"Retry-After" in found
            assert statuses(exchange(server, request_bytes("/s"))) == [503]
            assert get(server) == b"hello /ok"
            for sock in socks:
                sock.sendall(b"hello")
                assert read_all(sock).endswith(b"got hello")
                sock.close()
            assert statuses(exchange(server, request_bytes("/s"))) == [200]

    def test_body_timeouts(self):
        with serving(read_timeout=0.2) as server:
            assert statuses(exchange(server, request_bytes("/x", "PUT", "Content-Length: 5\r\n", b"he"))) == [408]
        with serving(body_window=0.2, body_min_rate=1000) as server, http_connect(server) as sock:
            sock.sendall(request_bytes("/x", "PUT", "Content-Length: 99999\r\n"))
            with contextlib.suppress(ConnectionError):
                while not server.app.done:
                    sock.sendall(b"x")
                    time.sleep(0.01)
            assert statuses(read_all(sock)) == [408]

    def test_early_end_of_a_body(self, server):
        with http_connect(server) as sock:
            sock.sendall(request_bytes("/x", "PUT", "Content-Length: 5\r\n", b"he"))
            sock.shutdown(socket.SHUT_WR)
            assert statuses(read_all(sock)) == [400]
        until(lambda: server.connections == 0)
        assert server.pool.blocked == 0 and server.app.done == [("/x", 400, 12)]

    def test_out_of_descriptors(self, monkeypatch, shared):
        listener, failures = shared._listeners[0], [3]
        accept = listener.sock.accept

        class Failing:
            def __getattr__(self, name):
                return getattr(original, name)

            def accept(self):
                failures[0] -= 1
                if failures[0] >= 0:
                    raise OSError(callfs.errno.EMFILE, "Too many open files")
                return accept()
        original = listener.sock
        monkeypatch.setattr(listener, "sock", Failing())
        assert get(shared) == b"hello /ok" and failures[0] < 0

    def test_drain(self, server):
        idle, busy = http_connect(server), http_connect(server)
        idle.sendall(request_bytes(close=False))
        assert b"200" in idle.recv(1000)
        busy.sendall(request_bytes("/wait", close=False))
        until(lambda: server.app.waiting == 1, "a running request")
        assert server.drain(0.05) is False
        assert read_all(idle) == b""
        with pytest.raises(OSError):
            http_connect(server).close()
        server.app.gate.set()
        assert server.drain(WAIT) is True
        assert b"Connection: close" in read_all(busy)
        idle.close()
        busy.close()

    def test_close_cuts_what_runs(self, server):
        """The leak check is in `serving`."""
        socks = [http_connect(server) for _ in range(4)]
        socks[0].sendall(b"GET / HT")
        socks[1].sendall(request_bytes("/x", "PUT", "Content-Length: 5\r\n", b"he"))
        socks[2].sendall(request_bytes("/push"))
        until(lambda: server.pool.blocked == 1 and server.app.pushed and server.connections == 4)
        server.server_close()
        assert server.connections == 0 and server.app.pushed[0].closed.wait(WAIT)
        for sock in socks:
            sock.close()

    def test_threads_retire(self, monkeypatch):
        monkeypatch.setattr(callfs, "SPARE_SECONDS", 0.05)
        with serving() as server:
            self.test_slow_uploads_do_not_stall_small_requests(server)
            until(lambda: server.pool.total == server.limits.workers, "spare threads to end")
            assert get(server) == b"hello /ok"

    def test_pinned(self):
        with serving(pin_workers="on") as server:
            self.test_slow_uploads_do_not_stall_small_requests(server)


class TestChaos:
    """Clients that do everything wrong at once: afterwards nothing is left and everything works."""

    def test_chaos(self, server, tmp_path, caplog):
        size = 3_000_000
        (tmp_path / "f").write_bytes(b"x" * size)
        server.app.answers["/f"] = lambda request: TestFiles.reader(tmp_path / "f", 0, size)
        server.app.answers["/s"] = lambda request: callfs.Response(200, Source([b"z" * 100_000] * 20))
        wrong = []

        def client(seed):
            draw = random.Random(seed)
            for _ in range(60):
                try:
                    self.act(server, draw)
                except OSError:
                    pass
                except AssertionError as error:
                    wrong.append((seed, error))
        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for reader in server.app.pushed:
            reader.put(b"")
        assert not wrong and not caplog.text
        until(lambda: server.connections == 0 and server.pool.blocked == 0, "everything to be let go")
        assert len(server.app.requests) <= len(server.app.done) and get(server) == b"hello /ok"

    @staticmethod
    def act(server, draw):
        path = draw.choice(["/ok", "/f", "/s", "/push", "/x", "/unread", "/ws"])
        length = draw.choice([0, 5, 70_000, 300_000])
        body = draw.choice([f"Content-Length: {length}\r\n", "Transfer-Encoding: chunked\r\n", ""])
        data = request_bytes(path, draw.choice(["GET", "PUT", "HEAD"]), body, b"x" * length, draw.random() < .5)
        if draw.random() < .3:
            data = data[:draw.randrange(len(data))]
        with http_connect(server, 1.0) as sock:
            if draw.random() < .3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(data * draw.choice([1, 1, 3]))
            if draw.random() < .5 and path != "/push":
                sock.settimeout(0.3)
                found = sock.recv(draw.choice([1, 100, 65536]))
                assert not found or b"HTTP/1.1".startswith(found[:8])


class TestPushedStreams:
    def test_events_without_threads(self, server):
        socks = [http_connect(server) for _ in range(100)]
        for sock in socks:
            sock.sendall(request_bytes("/push"))
        until(lambda: len(server.app.pushed) == 100 and server.pool.blocked == 0)
        assert server.pool.total == server.limits.workers
        for number in range(3):
            for reader in server.app.pushed:
                reader.put(b"event %d\n" % number)
        for reader in server.app.pushed:
            reader.put(b"")
        for sock in socks:
            found = read_all(sock)
            assert [found.index(b"event %d" % i) for i in range(3)] and found.endswith(b"0\r\n\r\n")
            sock.close()
        assert all(reader.closed.wait(WAIT) for reader in server.app.pushed)

    def test_client_leaves(self, server):
        with http_connect(server) as sock:
            sock.sendall(request_bytes("/push"))
            until(lambda: server.app.pushed)
            server.app.pushed[0].put(b"x")
            assert sock.recv(10)
        assert server.app.pushed[0].closed.wait(WAIT)
        server.app.pushed[0].put(b"too late")
        until(lambda: server.connections == 0)

    def test_slow_client_and_racing_wakes(self, server):
        with http_connect(server) as sock:
            sock.sendall(request_bytes("/push"))
            until(lambda: server.app.pushed)
            reader, count = server.app.pushed[0], 300
            feeder = threading.Thread(target=lambda: [reader.put(b"%06d" % i + b"x" * 50_000) for i in range(count)]
                                      + [reader.put(b"")])
            feeder.start()
            found = read_all(sock)
            feeder.join()
            assert found.count(b"x" * 50_000) == count and found.endswith(b"0\r\n\r\n")


# ---- TLS --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("tls"), []
    for name in ("a", "b"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"), "-days", "1",
                        "-subj", "/CN=localhost"], check=True, capture_output=True)
        found.append((str(folder / f"{name}.crt"), str(folder / f"{name}.key")))
    return found


class TestTLS:
    @pytest.fixture(params=sorted(POLLERS))
    def tls_server(self, request, certificates):
        chosen = [certificates[0]]

        def factory():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*chosen[0])
            return context
        with serving(request.param, tls=factory, handshake_timeout=WAIT) as server:
            server.chosen = chosen
            yield server

    @staticmethod
    def wrap(sock):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(sock)

    def talk(self, server, data):
        with self.wrap(http_connect(server)) as sock:
            sock.sendall(data)
            return sock.getpeercert(True), read_all(sock)

    def test_requests(self, tls_server, tmp_path):
        data = os.urandom(3_000_000)
        (tmp_path / "f").write_bytes(data)
        tls_server.app.answers["/f"] = lambda request: TestFiles.reader(tmp_path / "f", 0, len(data))
        found = self.talk(tls_server, request_bytes("/f", close=False)
                          + request_bytes("/x", "PUT", f"Content-Length: {len(data)}\r\n", data))[1]
        assert statuses(found[:20]) == [200] and found.count(data) == 2
        assert tls_server.app.requests[0][3] == "https"

    def test_pipelined_in_records_of_all_sizes(self, tls_server):
        data = b"".join(request_bytes(f"/{i}", headers="A: " + "b" * 3000 + "\r\n", close=False) for i in range(30))
        assert statuses(self.talk(tls_server, data + request_bytes())[1]) == [200] * 31

    def test_slow_handshakes_hold_no_thread(self, tls_server):
        socks = [http_connect(tls_server) for _ in range(100)]
        for sock in socks:
            sock.sendall(b"\x16\x03\x01")
        until(lambda: tls_server.connections == 100)
        assert statuses(self.talk(tls_server, request_bytes())[1]) == [200]
        for sock in socks:
            sock.close()

    def test_handshake_deadline(self, certificates):
        def factory():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificates[0])
            return context
        with serving(tls=factory, handshake_timeout=0.2) as server, http_connect(server) as sock:
            assert read_all(sock) in (b"", b"<reset>")

    def test_plain_http_gets_a_hint(self, tls_server):
        assert statuses(exchange(tls_server, request_bytes())) == [400]
        assert statuses(self.talk(tls_server, request_bytes())[1]) == [200]

    def test_reload(self, tls_server):
        first = self.talk(tls_server, request_bytes())[0]
        tls_server.chosen[0] = (os.devnull, os.devnull)
        with pytest.raises((OSError, ValueError)):      # a bad pair changes nothing
            tls_server.reload_tls()
        assert self.talk(tls_server, request_bytes())[0] == first

    def test_reload_to_another(self, tls_server, certificates):
        first = self.talk(tls_server, request_bytes())[0]
        with self.wrap(http_connect(tls_server)) as old:
            old.sendall(request_bytes(close=False))
            assert old.recv(10)
            tls_server.chosen[0] = certificates[1]
            tls_server.reload_tls()
            assert self.talk(tls_server, request_bytes())[0] != first
            old.sendall(request_bytes())                # what is open goes on
            assert b"200 OK" in read_all(old)


# ---- WebSocket --------------------------------------------------------------------------------------------------

HTTP_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = f"Upgrade: websocket\r\nSec-WebSocket-Key: {HTTP_KEY}\r\nSec-WebSocket-Version: 13\r\n"
MASK = b"\x01\x82\x03\xf4"


def frame(opcode, payload=b"", final=True, first=0, mask=MASK):
    data = callfs.encode_frame(opcode, payload, mask=mask, final=final)
    return bytes([data[0] | first]) + data[1:]


def events(parts, **options):
    parser, found = callfs.FrameParser(**options), []
    for part in parts:
        parser.feed(part)
        event = parser.next_event()
        while event is not None:
            found.append(event)
            event = parser.next_event()
    return found


TEXT, BINARY, CLOSE, PING, PONG = callfs.TEXT, callfs.BINARY, callfs.CLOSE, callfs.PING, callfs.PONG
GOOD_FRAMES = {
    "text": (frame(1, "h\u00e4\U0001f600".encode()), [(TEXT, "h\u00e4\U0001f600")]),
    "empty": (frame(1) + frame(2), [(TEXT, ""), (BINARY, b"")]),
    "lengths": (b"".join(frame(2, b"x" * n) for n in (125, 126, 127, 65535, 65536)),
                [(BINARY, b"x" * n) for n in (125, 126, 127, 65535, 65536)]),
    "longer length than needed": (b"\x82\xfe\x00\x01" + MASK + b"\x01", [(BINARY, b"\x00")]),
    "fragments": (frame(2, b"a", False) + frame(0, b"", False) + frame(0, b"b"), [(BINARY, b"ab")]),
    "character across fragments": (frame(1, b"\xf0\x9f", False) + frame(0, b"\x98\x80"), [(TEXT, "\U0001f600")]),
    "ping between fragments": (frame(1, b"a", False) + frame(9, b"p") + frame(0, b"b"), [(PING, b"p"), (TEXT, "ab")]),
    "pong": (frame(10, b"x" * 125), [(PONG, b"x" * 125)]),
    "close": (frame(8), [(CLOSE, (1005, ""))]),
    "close with reason": (frame(8, b"\x03\xe8bye"), [(CLOSE, (1000, "bye"))]),
    "after close nothing counts": (frame(8, b"\x0f\xa0") + b"\xff\xff\xff", [(CLOSE, (4000, ""))]),
}
BAD_FRAMES = {
    "not masked": (frame(1, b"x", mask=b""), 1002), "reserved bit": (frame(1, b"x", first=0x40), 1002),
    "opcode 3": (frame(3), 1002), "opcode 11": (frame(11), 1002), "long ping": (frame(9, b"x" * 126), 1002),
    "ping in fragments": (frame(9, b"x", False), 1002), "continuation of nothing": (frame(0, b"x"), 1002),
    "text in a text": (frame(1, b"a", False) + frame(1, b"b"), 1002), "close of one byte": (frame(8, b"\x03"), 1002),
    "negative length": (b"\x82\xff\x80" + b"\0" * 7 + MASK, 1002), "too large": (frame(2, b"x" * 70001), 1009),
    "too large in fragments": (frame(2, b"x" * 50000, False) + frame(0, b"x" * 50000), 1009),
    "huge": (b"\x82\xff\x7f" + b"\xff" * 7 + MASK, 1009), "no UTF-8": (frame(1, b"\xff"), 1007),
    "no UTF-8 at the end": (frame(1, b"\xe4\xb8"), 1007), "surrogate": (frame(1, b"\xed\xa0\x80"), 1007),
    "no UTF-8, unfinished": (frame(1, b"\xff" + b"x" * 100)[:8], 1007), "reason": (frame(8, b"\x03\xe8\xff"), 1007),
    **{f"close code {code}": (frame(8, struct.pack("!H", code)), 1002)
       for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)},
}


class TestFrames:
    @pytest.mark.parametrize("name", GOOD_FRAMES)
    def test_good_three_ways(self, name):
        data, wanted = GOOD_FRAMES[name]
        assert events([data], max_message=70000) == wanted
        assert events([data[i:i + 1] for i in range(len(data))], max_message=70000) == wanted
        assert events([data + frame(9, b"!")[:5]], max_message=70000) == wanted

    @pytest.mark.parametrize("name", BAD_FRAMES)
    def test_bad(self, name):
        data, code = BAD_FRAMES[name]
        for parts in ([data], [data[i:i + 1] for i in range(len(data))]):
            with pytest.raises(callfs.WebSocketError) as caught:
                events(parts, max_message=70000)
            assert caught.value.close_code == code

    def test_server_frames_are_not_masked(self):
        data = callfs.encode_frame(1, b"hi")
        assert data == b"\x81\x02hi" and events([data], masked=False) == [(TEXT, "hi")]
        with pytest.raises(callfs.WebSocketError):
            events([frame(1, b"hi")], masked=False)

    def test_fuzz(self):
        draw = random.Random(6455)
        seeds = [row[0][:300] for row in (*GOOD_FRAMES.values(), *BAD_FRAMES.values())]
        for _ in range(20000):
            data = bytearray(draw.choice(seeds) + draw.choice(seeds))
            for _ in range(draw.randrange(4)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            with contextlib.suppress(callfs.CallFSError):
                events([bytes(data)], max_message=70000)


class TestWebSocket:
    def open(self, server):
        sock = http_connect(server)
        sock.sendall(request_bytes("/ws", headers="Connection: keep-alive, Upgrade\r\n" + HANDSHAKE, close=False))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert b"101 Switching" in head and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head      # RFC 6455, 1.3
        return sock, callfs.WebSocket(callfs.SocketDuplex(sock), client=True)

    def test_echo_and_close(self, server):
        sock, websocket = self.open(server)
        with sock:
            for message in ("h\u00e4", b"\x00\xff", "", b"", b"x" * 65536):
                websocket.send(message)
                assert websocket.receive() == message
            websocket.ping(b"alive?")
            websocket.close(1000, "bye")
            websocket.close()
            assert websocket.close_code == 1000
            with pytest.raises(callfs.Disconnected):
                websocket.send("x")
            sock.settimeout(WAIT)
            assert read_all(sock) == b""
        until(lambda: server.connections == 0)

    def test_frames_behind_the_handshake(self, server):
        data = request_bytes("/ws", headers="Connection: Upgrade\r\n" + HANDSHAKE, close=False)
        found = exchange(server, data + frame(1, b"early") + frame(8))
        assert found.endswith(b"\r\n\r\n\x81\x05early\x88\x02\x03\xe8")

    @pytest.mark.parametrize("name", [n for n in BAD_FRAMES if n != "too large"])
    def test_bad_frames_are_told(self, shared, name):
        data, code = BAD_FRAMES[name]
        sock, websocket = self.open(shared)
        with sock:
            sock.settimeout(WAIT)
            sock.sendall(data)
            found = read_all(sock)
        assert found[:1] == b"\x88" and struct.unpack("!H", found[2:4])[0] == code

    def test_cut_is_not_a_close(self, server):
        raised = []

        def handler(duplex):
            try:
                callfs.WebSocket(duplex).receive()
            except callfs.Disconnected as error:
                raised.append(error)
        server.app.answers["/ws"] = lambda request: callfs.Response(
            101, headers=callfs.websocket_handshake(request), upgrade=handler)
        self.open(server)[0].close()
        until(lambda: raised, "Disconnected")

    @pytest.mark.parametrize("change, status", [
        (("Upgrade: websocket\r\n", ""), 426), (("Upgrade: websocket", "Upgrade: h2c"), 426),
        (("Version: 13", "Version: 8"), 426), (("Sec-WebSocket-Version: 13\r\n", ""), 426), ((HTTP_KEY, "x"), 400),
        ((HTTP_KEY, HTTP_KEY[:-2] + "x="), 400), ((HTTP_KEY, ""), 400),
        (("Upgrade: websocket", "Content-Length: 1\r\nUpgrade: websocket"), 400)])
    def test_bad_handshakes(self, shared, change, status):
        head = "Connection: Upgrade, close\r\n" + HANDSHAKE.replace(*change)
        found = exchange(shared, request_bytes("/ws", headers=head, close=False) + b"x" * ("Length" in head))
        assert statuses(found) == [status] and (b"Sec-WebSocket-Version: 13" in found) == (status == 426)

    def test_with_the_websockets_package(self, shared):
        client = pytest.importorskip("websockets.sync.client")
        with client.connect(f"ws://127.0.0.1:{shared.port}/ws", compression=None) as websocket:
            for message in ("text", b"binary", "\U0001f600" * 5000):
                websocket.send(message)
                assert websocket.recv() == message
            websocket.send(["in ", "frag", "ments"])
            assert websocket.recv() == "in fragments"
            assert websocket.ping().wait(WAIT)

    def test_our_client_with_the_websockets_package(self):
        module = pytest.importorskip("websockets.sync.server")

        def handler(websocket):
            for message in websocket:
                websocket.send(message)
        with module.serve(handler, "127.0.0.1", 0, compression=None) as other:
            thread = threading.Thread(target=other.serve_forever)
            thread.start()
            other.port = other.socket.getsockname()[1]
            other.app = App()
            sock = http_connect(other)
            sock.sendall(request_bytes("/ws", headers="Connection: Upgrade\r\n" + HANDSHAKE, close=False))
            while not sock.recv(1, socket.MSG_PEEK) == b"":
                if b"\r\n\r\n" in sock.recv(65536):
                    break
            websocket = callfs.WebSocket(callfs.SocketDuplex(sock), client=True)
            websocket.send("hello")
            assert websocket.receive() == "hello"
            websocket.close()
            assert websocket.close_code == 1000
            sock.close()
            other.shutdown()
            thread.join()
        if isinstance(other.shutdown_watcher, int):                     # before 17 a pipe, which it leaves open
            os.close(other.shutdown_watcher)
            os.close(other.shutdown_notifier)


# ============================================================================
# Helpers: users, requests whose answers are always checked, WebSocket by hand
# ============================================================================


USERS = {"ann": "key-of-ann-0123456789", "bob": "key-of-bob-0123456789"}
INTERNAL = "internal-secret-0123456789"
AS_ANN, AS_BOB, AS_TRUSTED = ({"Authorization": f"Bearer {key}"} for key in (*USERS.values(), INTERNAL))
NO_KEY: dict[str, Optional[str]] = {"Authorization": None}
NO_LIMITS = {f"rate_limits__{name}": 1_000_000 for name in (
    "link_rate", "link_burst", "download_rate", "download_burst", "login_failure_rate", "login_failure_burst")}
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp",
}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture
def serve_users(serve: Callable[..., Any]) -> Callable[..., Any]:
    """`serve` with the users ann and bob; `server.key` is ann's."""
    def start_one(root: Optional[Path] = None, **options: Any) -> Any:
        given = {"auth__api_key_users": dict(USERS), "auth__admins": [], "auth__internal_proxy_secret": INTERNAL,
                 **NO_LIMITS, **options}
        return serve(root, **given)
    return start_one


@pytest.fixture
def rest(serve_users: Callable[..., Any]) -> Any:
    """A server with ann and bob and nothing else."""
    return serve_users()


def check_answer(answer: Answer, method: str = "GET", tls: bool = False) -> Answer:
    """What holds for every answer of this dialect, whatever its status."""
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers.get(name) == value, (answer.status, name)
    assert REQUEST_ID.fullmatch(answer.headers["x-request-id"])
    assert ("strict-transport-security" in answer.headers) == tls
    if answer.status >= 400 and not (answer.status == 503 and b'"parts"' in answer.body):
        assert answer.headers["content-type"] == "application/json"
        if method != "HEAD":
            error = answer.json()
            if set(error) == {"error"}:                 # the PFS dialect
                error = {"code": "PFS", "message": error["error"]}
            assert re.fullmatch(r"[A-Z_]+", error["code"]) and error["message"] and "\n" not in error["message"]
    return answer


def ask(rest: Any, method: str, path: str, body: Any = None, headers: Mapping[str, Optional[str]] = {},
        status: Any = None, **more: Any) -> Answer:
    """`call`, with `check_answer`; fails unless the status is the one (or one of those) given."""
    answer = check_answer(call(rest, method, path, body, headers, **more), method)
    if status is not None:
        wanted = status if isinstance(status, tuple) else (status,)
        assert answer.status in wanted, f"{method} {path}: {answer.status} {answer.body[:300]!r}, not {wanted}"
    return answer


def put_file(rest: Any, path: str, body: Any = b"", headers: Mapping[str, Optional[str]] = {}, **more: Any) -> Answer:
    """Store a file; it must work."""
    return ask(rest, "PUT", "/v1/files" + quoted(path), body, headers, (200, 201), **more)


def get_file(rest: Any, path: str, headers: Mapping[str, Optional[str]] = {}) -> bytes:
    """The bytes of a file that must be there."""
    return ask(rest, "GET", "/v1/files" + quoted(path), headers=headers, status=200).body


def quoted(path: str) -> str:
    """A path as a URL has it."""
    return urllib.parse.quote(path)


def basic(key: str, user: str = "whoever") -> dict[str, str]:
    """An Authorization header of the kind that browsers add by themselves."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()}


def answer_of(data: bytes) -> Answer:
    """The first answer in the bytes of a raw exchange."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, body)


def head_of(method: str, path: str, headers: Mapping[str, str] = {}, key: str = USERS["ann"]) -> bytes:
    """A request's head for `raw`."""
    fields = {"Host": "localhost", **({"Authorization": f"Bearer {key}"} if key else {}), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def scratch_of(rest: Any) -> list[str]:
    """Unfinished uploads and spools with a name."""
    folder = os.path.join(rest.config.backend.localfs_root_path, ".callfs")
    return [name for part in ("tmp", "trash") for name in os.listdir(os.path.join(folder, part))]


def holders_of(rest: Any, path: str) -> list[str]:
    """What is still open of a file, and of connections."""
    place = os.path.realpath(rest.config.backend.localfs_root_path) + path
    return [target for target in open_descriptors().values() if target.startswith(place)] + \
        ["a connection"] * rest._listeners[0].connections


def all_at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """`work(0)` ... `work(count - 1)`, all at once; their results in that order."""
    gate, found = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        gate.wait()
        found[number] = work(number)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class RawWebSocket:
    """A client that writes its frames by hand. `status` and `headers` are those of the handshake's answer."""

    def __init__(self, rest: Any, path: str, headers: Mapping[str, str] = {}, key: str = USERS["ann"]) -> None:
        self.socket = raw_socket(rest.url)
        wanted = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                  "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(), **headers}
        self.socket.sendall(head_of("GET", path, wanted, key))
        self._file = self.socket.makefile("rb")
        head = b"".join(iter(self._file.readline, b"\r\n"))
        self.status, self.headers, _ = answer_of(head + b"\r\n")
        self.answer = Answer(self.status, self.headers, self._file.read(int(self.headers.get("content-length", 0))))

    def send(self, data: bytes, opcode: int = 2, final: bool = True) -> None:
        """One frame."""
        mask, size = os.urandom(4), len(data)
        length = struct.pack("!B", 0x80 | size) if size < 126 else struct.pack("!BH", 0xFE, size) if size < 65536 \
            else struct.pack("!BQ", 0xFF, size)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)) if size < 1000 else \
            callfs.mask_bytes(data, mask)
        self.socket.sendall(bytes([opcode | (0x80 if final else 0)]) + length + mask + masked)

    def receive(self) -> tuple[int, bytes]:
        """The next frame: (opcode, payload); (-1, b"") at the end of the connection."""
        with contextlib.suppress(ConnectionError):
            head = self._file.read(2)
            if len(head) == 2:
                size = head[1]
                if size > 125:
                    size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
                return head[0] & 15, self._file.read(size)
        return -1, b""

    def close_code(self) -> int:
        """Read to the close frame and answer it."""
        opcode, payload = self.receive()
        while opcode not in (8, -1):
            opcode, payload = self.receive()
        if opcode == -1:
            return -1
        with contextlib.suppress(ConnectionError):
            self.send(payload[:2], opcode=8)
        return int.from_bytes(payload[:2], "big")

    def __enter__(self) -> "RawWebSocket":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self.socket.close()


# ============================================================================
# proxyfs: against a fake of the reference, and against callfs itself
# ============================================================================


class Proxied(NamedTuple):
    """A remote server, the one that shows it at /p, and a client of the latter."""

    far: Any
    near: Any
    client: callfs.PFSClient


@pytest.fixture
def proxied(fake: FakeServer, serve: Any) -> Iterator[Proxied]:
    fake.token = "far-token-0123456789"
    near = serve()
    with callfs.PFSClient(near.url, near.key) as client:
        client.mount("proxyfs", "/p", {"base_url": fake.url, "token": fake.token})
        yield Proxied(fake, near, client)


@pytest.fixture
def twins(serve: Any) -> Iterator[Proxied]:
    far, near = serve(), serve()
    with callfs.PFSClient(near.url, near.key) as client:
        client.mount("proxyfs", "/p", {"base_url": far.url + "/api/v1", "token": far.key})
        yield Proxied(far, near, client)


@pytest.mark.parametrize("pair", ["proxied", "twins"])
def test_proxyfs_does_everything(pair: str, request: pytest.FixtureRequest) -> None:
    _, near, client = request.getfixturevalue(pair)
    data = os.urandom(300_000)
    client.write("/p/new/deep/a b&c.bin", iter([data[:100_000], data[100_000:]]))      # parents are made
    assert client.read("/p/new/deep/a b&c.bin") == data
    assert client.read("/p/new/deep/a b&c.bin", 99_999, 5) == data[99_999:100_004]
    ranged = call(near, "GET", "/v1/files/p/new/deep/a%20b%26c.bin", headers={"Range": "bytes=-3"})
    assert (ranged.status, ranged.body) == (206, data[-3:])
    head = call(near, "HEAD", "/v1/files/p/new/deep/a%20b%26c.bin")
    same = call(near, "GET", "/v1/files/p/new/deep/a%20b%26c.bin", headers={"If-None-Match": head.headers["etag"]})
    assert head.headers["content-length"] == "300000" and same.status == 304
    client.rename("/p/new/deep/a b&c.bin", "/p/new/b")
    client.chmod("/p/new/b", 0o600)
    assert client.stat("/p/new/b")[:3] == ("b", 300_000, 0o600)
    client.mkdir("/p/new/empty")
    assert [each.name for each in client.list("/p/new")] == ["b", "deep", "empty"] and client.list("/p/new/empty") == []
    with pytest.raises(callfs.DirectoryNotEmpty):
        client.remove("/p/new")
    client.remove("/p/new", recursive=True)
    for gone in (client.stat, client.read, client.list, client.remove):
        with pytest.raises(callfs.FileNotFound):
            gone("/p/new")
    assert "reload" in [each.name for each in client.list("/p")]


def test_proxyfs_between_callfs_servers(twins: Proxied) -> None:
    twins.client.write("/p/f", b"12345")
    twins.client.truncate("/p/f", 2)
    before = twins.client.stat("/p/f").mtime_ns
    twins.client.touch("/p/f")
    assert twins.client.read("/p/f") == b"12" and twins.client.stat("/p/f").mtime_ns > before
    moved = call(twins.near, "PATCH", "/v1/files/p/f", {"destination": "/p/g"})
    put = call(twins.near, "PUT", "/v1/files/p/f", b"new", {"If-None-Match": "*"})
    over = call(twins.near, "PATCH", "/v1/files/p/f", {"destination": "/p/g", "overwrite": True})
    assert (moved.status, put.status, over.status) == (200, 201, 200) and twins.client.read("/p/g") == b"new"
    assert call(twins.near, "PUT", "/v1/files/p/g", b"x", {"If-None-Match": "*"}).status == 412
    assert call(twins.near, "POST", "/v1/files/p/g", b"x").status == 409
    wrong = {"Content-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"}
    assert call(twins.near, "PUT", "/v1/files/p/g", b"x", wrong).status == 400 and twins.client.read("/p/g") == b"new"
    assert call(twins.near, "PATCH", "/v1/files/p/g", b"x", {"RemFS-Offset": "1"}).status == 501
    twins.client.rename("/p/g", "/local")                           # from one server to the other
    assert call(twins.near, "GET", "/v1/files/local").body == b"new"
    assert list(twins.client.grep("/p", "no", True))[-1] == {"type": "summary", "count": 0}


def test_proxyfs_does_not_look_into_queues(proxied: Proxied) -> None:
    fake, near, client = proxied
    fake.files.update({"/q": None, "/q/dequeue": b"", "/q/enqueue": b"", "/q/odd": b""})
    fake.files["/q/dequeue"] = b'{"id":"1"}'
    fake.modes.update({"/q/dequeue": 0o444, "/q/enqueue": 0o222, "/q/odd": 0o444})
    fake.types["/q/dequeue"] = "control"
    for look in ("HEAD /v1/files/p/q/dequeue", "GET /v1/directories/p/q", "GET /api/v1/stat?path=/p/q/dequeue",
                 "GET /v1/files/p/q?archive=zip", "GET /api/v1/directories?path=/p/q"):
        call(near, *look.split())
    assert call(near, "GET", "/v1/files/p/q/enqueue").status == 403
    assert fake.count("GET", "files") == 0
    assert client.open("/p/q/dequeue", query={"wait": "2s", "ack": "60s"}).read() == b'{"id":"1"}'
    assert [heard[2] for heard in fake.heard if heard[:2] == ("GET", "/api/v1/files")] == \
        [{"path": "/q/dequeue", "wait": "2s", "ack": "60s"}]
    assert client.write("/p/q/enqueue", b"") == "Written 0 bytes" and fake.count("PUT", "files") == 1


def test_proxyfs_streams_in_both_directions(proxied: Proxied) -> None:
    fake, near, client = proxied
    fake.files["/s"], fake.types["/s"], fake.modes["/s"] = b"one,two", "stream", 0o644
    with client.open("/p/s", stream=True) as reader:
        assert reader.read() == b"one"      # although the rest has not come yet
        fake.go.release()
        assert reader.read() == b"two"
        fake.go.release()
        assert reader.read() == b""

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            yield b"%d" % number
            wait_for(lambda: len(fake.pieces) > number, what="the piece passes through before the next is made")
    client.write("/p/w", pieces())
    assert fake.files["/w"] == b"012"


@pytest.mark.parametrize("way", ["read", "write"])
def test_proxyfs_in_bounded_memory(twins: Proxied, way: str) -> None:
    block, count = bytes(1 << 18), 160
    if way == "read":
        with callfs.PFSClient(twins.far.url, twins.far.key) as far:
            far.write("/big", itertools.repeat(block, count))
    tracemalloc.start()
    try:
        if way == "read":
            with twins.client.open("/p/big") as reader:
                assert sum(map(len, reader)) == count << 18
        else:
            twins.client.write("/p/big", itertools.repeat(block, count))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("status, text, answered", [
    (500, "file not found", 404), (500, "already exists", 409), (403, "no", 403), (501, "not supported", 501),
    (507, "full", 507), (500, "boom", 500), (401, "who", 502), (302, "away", 502), (429, "slow down", 429),
    (503, "later", 503), (418, "teapot", 418),
])
def test_proxyfs_errors_keep_their_status(serve: Any, status: int, text: str, answered: int) -> None:
    near = serve()
    say = answer(status, json.dumps({"error": text}).encode(), Set_Cookie="a=b", Location="http://127.0.0.1:9/")
    with Scripted(*[[say] for _ in range(2)]) as far, callfs.PFSClient(near.url, near.key) as client:
        client.mount("proxyfs", "/p", {"base_url": far.url})
        for path in ("/v1/files/p/x", "/api/v1/stat?path=/p/x"):
            found = call(near, "GET", path)
            assert found.status == answered and "set-cookie" not in found.headers and "location" not in found.headers
            assert answered in (404, 502) or text in found.body.decode()
        client.unmount("/p")


def test_proxyfs_remote_goes_and_comes_back(serve: Any) -> None:
    near = serve()
    with FakeServer() as fake, callfs.PFSClient(near.url, near.key) as client:
        client.mount("proxyfs", "/p", {"base_url": f"http://me:secret-word@127.0.0.1:{fake.server_address[1]}"})
        assert client.read("/p/d/x") == b"0123456789"
        port = fake.server_address[1]
    gone = call(near, "GET", "/v1/files/p/d/x")
    assert gone.status == 503 and "not running" in gone.body.decode() and "secret-word" not in gone.body.decode()
    assert call(near, "GET", "/v1/files/p/reload").status == 403 and call(near, "HEAD", "/v1/files/p/reload").status == 403
    assert call(near, "PUT", "/v1/files/p/reload", b"").status == 503
    assert "secret-word" not in call(near, "GET", "/api/v1/mounts").body.decode()
    with FakeServer(port), callfs.PFSClient(near.url, near.key) as client:
        assert client.read("/p/d/x") == b"0123456789"
        assert client.write("/p/reload", b"") == "connected again x"


def test_proxyfs_cache(serve: Any, fake: FakeServer) -> None:
    near = serve()
    with callfs.PFSClient(near.url, near.key) as client:
        client.mount("proxyfs", "/p", {"base_url": fake.url, "cache_ttl_seconds": "3600"})
        for _ in range(3):
            assert client.stat("/p/d/x").size == 10 and len(client.list("/p/d")) == 1
        assert fake.count("GET", "stat") == fake.count("GET", "directories") == 1
        fake.files["/d/x"] = b"longer than before"
        assert client.stat("/p/d/x").size == 10 and client.read("/p/d/x") == b"longer than before"
        client.write("/p/d/y", b"")                                 # a change through the mount is seen at once
        assert len(client.list("/p/d")) == 2 and client.stat("/p/d/x").size == 18


@pytest.mark.parametrize("path", ["/v1/files{}", "/api/v1/files?path={}", "/api/v1/stat?path={}", "/v1/directories{}/.."])
def test_proxyfs_loops_are_cut(serve: Any, path: str) -> None:
    near = serve()
    with callfs.PFSClient(near.url, near.key) as client:
        client.write("/f", b"found")
        client.mount("proxyfs", "/p", {"base_url": near.url, "token": near.key})
        assert call(near, "GET", path.format("/p" * 8 + "/f")).status == 200
        started = time.monotonic()
        many = in_threads(lambda number: call(near, "GET", path.format("/p" * (9 + number) + "/f")).status, 6)
        assert many == [508] * 6 and time.monotonic() - started < 20
        assert call(near, "GET", "/v1/directories/?recursive=true").status == 508
        assert call(near, "GET", "/v1/files/f", headers={"X-CallFS-Hops": "8"}).status == 200
        for hops in ("8", "99", "x", "-1"):
            assert call(near, "GET", "/v1/files/p/f", headers={"X-CallFS-Hops": hops}).status == 508
        assert call(near, "GET", "/v1/files/p/f").status == 200     # nothing of that stays with a thread


def test_proxyfs_names_that_are_none(proxied: Proxied) -> None:
    fake, near, client = proxied
    names = ["..", ".", "a/b", "line\nfeed", "ok"]
    info = {"size": 1, "mode": 0o644, "modTime": "2026-01-01T00:00:00Z", "isDir": False, "meta": {}}
    body = json.dumps({"files": [{"name": name, **info} for name in names]}).encode()
    with Scripted([answer(200, body)]) as far:
        client.mount("proxyfs", "/odd", {"base_url": far.url})
        assert [each.name for each in client.list("/odd")] == ["ok", "reload"]
        client.unmount("/odd")


@pytest.mark.parametrize("config, word", [
    ({}, "base_url"), ({"base_url": "unix:/x"}, "http"), ({"base_url": "file:///etc"}, "http"),
    ({"base_url": "http://h/?q"}, "URL"), ({"base_url": "http://h", "token": "secret word"}, "key"),
    ({"base_url": "http://h", "no": 1}, "no option"),
])
def test_proxyfs_refuses(serve: Any, config: dict[str, Any], word: str) -> None:
    near = serve()
    with callfs.PFSClient(near.url, near.key) as client, pytest.raises(callfs.BadRequest, match=word) as caught:
        client.mount("proxyfs", "/p", config)
    assert "secret word" not in caught.value.message


def test_proxyfs_unmount_ends_readers(serve: Any, fake: FakeServer) -> None:
    near = serve()
    fake.files["/s"], fake.types["/s"] = b"one,two", "stream"
    with callfs.PFSClient(near.url, near.key) as client:
        client.mount("proxyfs", "/p", {"base_url": fake.url})
        with client.open("/p/s", stream=True) as reader:
            assert reader.read() == b"one"
            client.unmount("/p")
            with contextlib.suppress(callfs.BadGateway):
                assert reader.read() == b""
        fake.go.release(2)


# ============================================================================
# HTTP values: Request, Response, Router
# ============================================================================

def make_request(method: str = "GET", target: str = "/", body: bytes = b"", **headers: str) -> Any:
    """A request without a socket."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return callfs.Request(method, target, fields, callfs.bytes_body(body), client="192.0.2.1")


@pytest.mark.parametrize("query, wanted", [
    ("", {}), ("a=1&b=2", {"a": "1", "b": "2"}), ("a=1&a=2", {"a": "2"}), ("a", {"a": ""}), ("a=%41+b", {"a": "A b"}),
    ("a=%C3%A9", {"a": "é"}), ("a=%FF", callfs.BadRequest), ("&".join(f"a{i}=1" for i in range(100)), 100),
    ("&".join(f"a{i}=1" for i in range(101)), callfs.BadRequest),
])
def test_query(query: str, wanted: Any) -> None:
    request = make_request(target="/x?" + query)
    if isinstance(wanted, type):
        pytest.raises(wanted, lambda: request.query)
    else:
        assert request.query == wanted if isinstance(wanted, dict) else len(request.query) == wanted


@pytest.mark.parametrize("query, wanted", [
    ("", False), ("flag", True), ("flag=", True), ("flag=true", True), ("flag=1", True), ("flag=yes", True),
    ("flag=false", False), ("flag=0", False), ("flag=No", False), ("flag=OFF", False), ("other", False),
])
def test_flag(query: str, wanted: bool) -> None:
    assert make_request(target="/x?" + query).flag("flag") is wanted


@pytest.mark.parametrize("body, wanted", [
    (b'{"a": 1}', {"a": 1}), (b"", {}), (b"[]", callfs.BadRequest), (b"1", callfs.BadRequest), (b"{", callfs.BadRequest),
    (b"\xff", callfs.BadRequest), (b'{"a": ' + b"[" * 50_000, callfs.BadRequest), (b" " * 65, callfs.PayloadTooLarge),
])
def test_json_body(body: bytes, wanted: Any) -> None:
    request = make_request(body=body)
    if isinstance(wanted, dict):
        assert request.json(64) == wanted
    else:
        pytest.raises(wanted, request.json, 64 if len(body) < 70 else 1 << 20)


def test_router_takes_the_exact_pattern_then_the_longest_prefix() -> None:
    def route(pattern: str) -> Any:
        return callfs.Route(pattern, {}, "open", callfs.rest_error)
    router = callfs.Router()
    router.add([route("/a/{path}"), route("/a/b"), route("/a/b/{path}"), route("/c")])
    found = {path: (router.find(path)[0], router.find(path)[1]) for path in ("/a/", "/a/x/y", "/a/b", "/a/b/z", "/c", "/c/", "/")}
    assert {path: (route and route.pattern, tail) for path, (route, tail) in found.items()} == {
        "/a/": ("/a/{path}", ""), "/a/x/y": ("/a/{path}", "x/y"), "/a/b": ("/a/b", ""), "/a/b/z": ("/a/b/{path}", "z"),
        "/c": ("/c", ""), "/c/": (None, ""), "/": (None, "")}


def test_json_response_is_one_line() -> None:
    response = callfs.json_response({"name": "é\n"}, 201, [("X", "y")])
    assert response.body == '{"name":"é\\n"}\n'.encode() and response.length == len(response.body)
    assert response.status == 201 and dict(response.headers) == {"Content-Type": "application/json", "X": "y"}


# ============================================================================
# The application: who asks, what may they, what is answered, what is noted
# ============================================================================

# ---- errors, headers --------------------------------------------------------------------------------------------

ERRORS = [                                  # method, path, headers, body, status, code
    ("GET", "/v1/files/none", {}, None, 404, "FILE_NOT_FOUND"),
    ("GET", "/v1/directories/none", {}, None, 404, "FILE_NOT_FOUND"),
    ("DELETE", "/v1/files/none", {}, None, 404, "FILE_NOT_FOUND"),
    ("GET", "/v1/shards/f.txt/0", {}, None, 404, "FILE_NOT_FOUND"),
    ("GET", "/v1/nothing", {}, None, 404, "NOT_FOUND"),
    ("GET", "/nothing", {}, None, 404, "NOT_FOUND"),
    ("GET", "/download/none", {}, None, 404, "NOT_FOUND"),
    ("DELETE", "/v1/links/none", {}, None, 404, "NOT_FOUND"),
    ("POST", "/v1/files/f.txt", {}, b"x", 409, "FILE_ALREADY_EXISTS"),
    ("DELETE", "/v1/files/d", {}, None, 409, "DIRECTORY_NOT_EMPTY"),
    ("GET", "/v1/files/..%2Fx", {}, None, 400, "BAD_REQUEST"),
    ("GET", "/v1/files/f.txt", NO_KEY, None, 401, "AUTHENTICATION_FAILED"),
    ("GET", "/v1/files/f.txt", {"Authorization": "Bearer wrong-key-0123456789"}, None, 401, "AUTHENTICATION_FAILED"),
    ("PUT", "/v1/files/f.txt", AS_BOB, b"x", 403, "PERMISSION_DENIED"),
    ("GET", "/v1/internal/raft/join", {}, None, 403, "PERMISSION_DENIED"),
    ("GET", "/v1/files/f.txt", {"If-Match": '"other"'}, None, 412, "PRECONDITION_FAILED"),
    ("PUT", "/v1/files/big", {}, b"x" * 3000, 413, "PAYLOAD_TOO_LARGE"),
    ("PUT", "/v1/files/big", {}, lambda: iter([b"x" * 1500, b"y" * 1500]), 413, "PAYLOAD_TOO_LARGE"),
    ("GET", "/v1/files/f.txt", {"Range": "bytes=100-"}, None, 416, "RANGE_NOT_SATISFIABLE"),
    ("GET", "/v1/files/ws/f.txt", {"Upgrade": "websocket"}, None, 426, "UPGRADE_REQUIRED"),
    ("POST", "/v1/internal/raft/join", AS_TRUSTED, b"{}", 501, "NOT_SUPPORTED"),
    ("PUT", "/v1/files/new", {"X-CallFS-Backend": "s3"}, b"x", 501, "NOT_SUPPORTED"),
    ("PUT", "/v1/files/new", {"X-CallFS-Erasure": "true"}, b"x", 400, "BAD_REQUEST"),
    ("PUT", "/v1/files/new", {"Expect": "a miracle"}, b"x", 417, "EXPECTATION_FAILED"),
    ("GET", "/v1/files/" + "x" * 9000, {}, None, 414, "URI_TOO_LONG"),
    ("GET", "/v1/files/f.txt", {"X-Long": "x" * 40_000}, None, 431, "HEADERS_TOO_LARGE"),
]


@pytest.fixture
def small(serve_users: Callable[..., Any]) -> Any:
    """A server with /f.txt and /d/x, and little room for uploads."""
    rest = serve_users(server__max_upload_bytes=2000)
    put_file(rest, "/f.txt", b"hello")
    put_file(rest, "/d/x", b"x")
    return rest


@pytest.mark.parametrize("method, path, headers, body, status, code", ERRORS,
                         ids=[f"{row[5]}-{row[0]}-{i}" for i, row in enumerate(ERRORS)])
def test_errors(small: Any, method: str, path: str, headers: Any, body: Any, status: int, code: str) -> None:
    answer = ask(small, method, path, body() if callable(body) else body, headers, status)
    assert answer.json()["code"] == code
    assert set(answer.json()) == {"code", "message"}
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    if status == 416:
        assert answer.headers["content-range"] == "bytes */5"
    assert get_file(small, "/f.txt") == b"hello"


def test_error_429_and_503_say_when_to_come_again(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(rate_limits__link_rate=0.001, rate_limits__link_burst=1, server__file_op_timeout=0.01)
    put_file(rest, "/f", b"x")
    wish = {"path": "/f", "expiry_seconds": 60}
    ask(rest, "POST", "/v1/links/generate", wish, status=201)
    limited = ask(rest, "POST", "/v1/links/generate", wish, status=429)
    assert limited.json()["code"] == "RATE_LIMIT_EXCEEDED" and int(limited.headers["retry-after"]) > 1
    with rest.tree._root._locks.hold("/f"):
        busy = ask(rest, "PUT", "/v1/files/f", b"y", status=503)
    assert busy.json()["code"] == "UNAVAILABLE" and int(busy.headers["retry-after"]) >= 1
    assert get_file(rest, "/f") == b"x"


def test_error_507_before_the_body(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(storage__min_free_bytes=1 << 60)
    assert ask(rest, "PUT", "/v1/files/f", b"x", status=507).json()["code"] == "STORAGE_FULL"
    ask(rest, "GET", "/v1/directories/", status=200)


def test_error_500_tells_nothing_but_the_id(rest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **more: Any) -> Any:
        raise RuntimeError(f"/etc/shadow {INTERNAL}")
    monkeypatch.setattr(rest.tree, "open", broken)
    answer = ask(rest, "GET", "/v1/files/x", headers={"X-Request-ID": "my-id"}, status=500)
    assert answer.json()["code"] == "INTERNAL_ERROR" and "my-id" in answer.json()["message"]
    assert b"shadow" not in answer.body and b"Traceback" not in answer.body and INTERNAL.encode() not in answer.body
    assert rest.metrics.value("callfs_errors_total", "http", "CallFSError") == 1
    ask(rest, "GET", "/v1/directories/", status=200)


@pytest.mark.parametrize("given, kept", [
    ("abc.DEF_12-3", True), ("x" * 64, True), ("x" * 65, False), ("", False), ("a b", False), ("a/b", False),
    ("a\tb", False), ("é", False), ('"', False), (None, False),
])
def test_request_id(rest: Any, given: Optional[str], kept: bool) -> None:
    found = {ask(rest, "GET", "/health", headers={"X-Request-ID": given}).headers["x-request-id"] for _ in range(3)}
    assert found == {given} if kept else len(found) == 3 and given not in found


def test_security_headers_on_every_kind_of_answer(rest: Any) -> None:
    put_file(rest, "/f", b"0123456789")
    etag = ask(rest, "HEAD", "/v1/files/f", status=200).headers["etag"]
    ask(rest, "GET", "/v1/files/f", headers={"If-None-Match": etag}, status=304)
    ask(rest, "GET", "/v1/files/f", headers={"Range": "bytes=1-2"}, status=206)
    ask(rest, "GET", "/v1/files/f", headers={"Range": "bytes=1-2,4-5"}, status=206)
    ask(rest, "OPTIONS", "/v1/files/f", status=204)
    ask(rest, "DELETE", "/v1/files/f", status=204)
    check_answer(answer_of(raw(rest.url, b"GET / HTTP/1.1\r\n\r\n")))
    check_answer(answer_of(raw(rest.url, b"rubbish\r\n\r\n")))
    for path, headers in (("/v1/files/ws/none", {}), ("/v1/files/ws/none", {"Origin": "http://evil.example"})):
        with RawWebSocket(rest, path, headers) as refused:
            assert refused.status in (403, 404)
            check_answer(refused.answer)
    with RawWebSocket(rest, "/v1/files/ws/x?mode=upload") as accepted:
        assert accepted.status == 101
        check_answer(accepted.answer)


def test_hsts_only_over_tls(serve_users: Callable[..., Any], certificate: tuple[str, str]) -> None:
    rest = serve_users(server__cert_file=certificate[0], server__key_file=certificate[1])
    assert rest.url.startswith("https://")
    for path, status in (("/health", 200), ("/nothing", 404), ("/v1/files/none", 404)):
        answer = check_answer(call(rest, "GET", path), tls=True)
        assert answer.status == status and answer.headers["strict-transport-security"].startswith("max-age=")


def all_routes(rest: Any) -> list[Any]:
    """The table of the dialect, as the server uses it."""
    return rest._listeners[0].app.router.routes


def test_405_names_what_is_allowed_on_every_route(rest: Any) -> None:
    for route in all_routes(rest):
        path = route.pattern.replace("{path}", "some/thing")
        allowed = {*route.methods, "OPTIONS"}
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW"} - allowed:
            answer = ask(rest, method, path, status=405)
            assert set(answer.headers["allow"].split(", ")) == allowed
            assert method == "HEAD" or answer.json() == {"error": "method not allowed"} or \
                answer.json()["code"] == "METHOD_NOT_ALLOWED"
        options = ask(rest, "OPTIONS", path, headers=NO_KEY, status=204)
        assert set(options.headers["allow"].split(", ")) == allowed


# ---- who asks ---------------------------------------------------------------------------------------------------

AUTH = [                                    # Authorization header, whether it lets ann in
    (f"Bearer {USERS['ann']}", True), (f"bearer {USERS['ann']}", True), (f"BEARER  {USERS['ann']}", True),
    (basic(USERS["ann"])["Authorization"], True), (basic(USERS["ann"], "")["Authorization"], True),
    (basic(USERS["ann"], "bob")["Authorization"], True), (basic(USERS["ann"]).get("Authorization", "").lower()[:6]
                                                          + basic(USERS["ann"])["Authorization"][6:], True),
    (None, False), ("", False), ("Bearer", False), ("Bearer ", False), (USERS["ann"], False),
    (f"Bearer {USERS['ann']} x", False), (f"Bearer {USERS['ann']}x", False), (f"Bearer {USERS['ann'][:-1]}", False),
    (f"Bearer {USERS['ann'].upper()}", False), (f"Digest {USERS['ann']}", False), (f"Bearer \"{USERS['ann']}\"", False),
    ("Basic", False), ("Basic %%%", False), ("Basic " + base64.b64encode(b"nocolon").decode(), False),
    ("Basic " + base64.b64encode(b"ann:").decode(), False), (basic("wrong")["Authorization"], False),
    ("Basic " + base64.b64encode(b"\xff:\xfe").decode(), False), ("Bearer \xe9\xe9\xe9", False),
]


@pytest.mark.parametrize("header, good", AUTH, ids=[str(number) for number in range(len(AUTH))])
def test_authorization(rest: Any, header: Optional[str], good: bool) -> None:
    answer = ask(rest, "PUT", "/v1/files/f", b"x", {"Authorization": header}, 201 if good else 401)
    if good:
        assert ask(rest, "HEAD", "/v1/files/f").headers["x-callfs-owner"] == "ann"
    else:
        assert answer.headers["www-authenticate"].startswith("Bearer") and USERS["ann"].encode() not in answer.body


def test_two_authorization_headers_are_refused(rest: Any) -> None:
    head = head_of("GET", "/v1/directories/").replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {USERS['ann']}\r\n\r\n".encode())
    assert answer_of(raw(rest.url, head.replace(b"Host:", b"Connection: close\r\nHost:"))).status in (400, 401)


def test_what_needs_no_key(rest: Any) -> None:
    put_file(rest, "/f", b"x")
    token = ask(rest, "POST", "/v1/links/generate", {"path": "/f", "expiry_seconds": 60}, status=201).json()["token"]
    for headers in (NO_KEY, {"Authorization": "Bearer wrong-key-012345678"}, {"Authorization": "nonsense"}):
        health = ask(rest, "GET", "/health", headers=headers, status=200).json()
        assert health == {"status": "ok", "version": callfs.__version__}
        ask(rest, "GET", "/ready", headers=headers, status=200)
        ask(rest, "HEAD", "/download/" + token, headers=headers, status=200)
    for route in all_routes(rest):
        for method in route.methods:
            if route.access != "open":
                ask(rest, method, route.pattern.replace("{path}", "x"), headers=NO_KEY, status=401)


def test_internal_secret_is_the_user_internal_proxy(rest: Any) -> None:
    put_file(rest, "/f", b"ann's")
    put_file(rest, "/f", b"changed", AS_TRUSTED)
    put_file(rest, "/g", b"new", AS_TRUSTED)
    owners = {item["path"]: item["owner"] for item in ask(rest, "GET", "/v1/directories/").json()["items"]}
    assert owners == {"/f": "ann", "/g": "internal-proxy"}
    ask(rest, "DELETE", "/v1/files/f", headers=AS_TRUSTED, status=204)
    ask(rest, "DELETE", "/v1/files/g", headers=AS_BOB, status=403)


@pytest.mark.parametrize("headers, status", [(NO_KEY, 401), ({"Authorization": "Bearer wrong-key-012345"}, 401), (AS_ANN, 403),
                                             (AS_TRUSTED, 501)])
@pytest.mark.parametrize("anonymous", ["none", "write"])
def test_internal_routes(serve_users: Callable[..., Any], headers: Any, status: int, anonymous: str) -> None:
    rest = serve_users(auth__anonymous=anonymous)
    for method, path in (("PUT", "shards/x/0"), ("GET", "shards/x/0"), ("DELETE", "shards/x/0"), ("POST", "raft/join"),
                         ("POST", "raft/metadata/apply")):
        ask(rest, method, "/v1/internal/" + path, b"{}" if method in ("PUT", "POST") else None, headers, status)


def test_keys_by_position(serve: Callable[..., Any]) -> None:
    keys = ["first-key-0123456789", "second-key-0123456789"]
    rest = serve(auth__api_keys=keys, auth__api_key_users={}, auth__admins=[])
    assert rest.key == keys[0] and any("shift" in warning for warning in rest.warnings)
    for number, key in enumerate(keys):
        put_file(rest, f"/{number}", b"x", {"Authorization": f"Bearer {key}"})
        assert ask(rest, "HEAD", f"/v1/files/{number}").headers["x-callfs-owner"] == f"api-user-{number}"


def test_login_failures_slow_an_address_down(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(rate_limits__login_failure_rate=0.001, rate_limits__login_failure_burst=3)
    ask(rest, "GET", "/v1/directories/", headers=AS_ANN, status=200)
    for number in range(3):
        ask(rest, "GET", "/v1/directories/", headers={"Authorization": f"Bearer wrong-{number}-0123456789"}, status=401)
    for headers in ({"Authorization": "Bearer wrong-again-0123456789"}, basic("wrong-again-0123456789"), AS_BOB):
        assert int(ask(rest, "GET", "/v1/directories/", headers=headers, status=429).headers["retry-after"]) > 1
    ask(rest, "GET", "/v1/directories/", headers=AS_ANN, status=200)        # was in before
    ask(rest, "GET", "/v1/directories/", headers=basic(USERS["ann"]), status=200)
    ask(rest, "GET", "/v1/directories/", headers=NO_KEY, status=401)     # no guess
    ask(rest, "GET", "/health", status=200)


def test_login_failures_of_one_address_are_not_another_ones(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(rate_limits__login_failure_rate=0.001, rate_limits__login_failure_burst=1,
                         server__trusted_proxies=["127.0.0.1"])
    wrong = {"Authorization": "Bearer wrong-key-0123456789", "X-Forwarded-For": "192.0.2.1"}
    assert [ask(rest, "GET", "/v1/directories/", headers=wrong).status for _ in range(2)] == [401, 429]
    ask(rest, "GET", "/v1/directories/", headers={**AS_ANN, "X-Forwarded-For": "192.0.2.1"}, status=429)
    ask(rest, "GET", "/v1/directories/", headers={**AS_ANN, "X-Forwarded-For": "192.0.2.2"}, status=200)


def test_same_connection_other_key(rest: Any) -> None:
    """What is remembered of a connection's headers must not outlive them."""
    connection = connect(rest.url)
    with contextlib.closing(connection):
        for headers, status in ((AS_ANN, 200), (NO_KEY, 401), (AS_ANN, 200), (AS_BOB, 200), ({"Authorization": "Bearer no"}, 401)):
            connection.request("GET", "/v1/directories/", headers={k: v for k, v in headers.items() if v})
            response = connection.getresponse()
            response.read()
            assert response.status == status


# ---- modes ------------------------------------------------------------------------------------------------------

VERB_REQUESTS = {                           # verb: method, path, body
    "read": ("GET", "/v1/files/mine", None), "list": ("GET", "/v1/directories/", None),
    "listing": ("GET", "/v1/files/", None), "archive": ("GET", "/v1/files/?archive=zip", None),
    "link": ("POST", "/v1/links/generate", {"path": "/mine", "expiry_seconds": 60}),
    "create": ("PUT", "/v1/files/new", b"x"), "mkdir": ("POST", "/v1/files/newdir/", None),
    "replace": ("PUT", "/v1/files/mine", b"x"), "move": ("PATCH", "/v1/files/mine", {"name": "moved"}),
    "delete": ("DELETE", "/v1/files/mine", None),
}
MODE_TABLE = {                              # mode: verbs that work for an owner
    "full": set(VERB_REQUESTS), "read-only": {"read", "list", "listing", "archive", "link"},
    "upload-only": {"create", "mkdir"},
    "no-delete": {"read", "list", "listing", "archive", "link", "create", "mkdir"},
}


@pytest.mark.parametrize("mode", MODE_TABLE)
@pytest.mark.parametrize("verb", VERB_REQUESTS)
def test_mode(serve_users: Callable[..., Any], mode: str, verb: str) -> None:
    rest = serve_users(auth__mode=mode)
    rest.tree._root.write("/mine", callfs.bytes_body(b"old"), "ann", lambda there: None, callfs.WriteOptions())
    method, path, body = VERB_REQUESTS[verb]
    ask(rest, method, path, body, status=(200, 201, 204) if verb in MODE_TABLE[mode] else 403)
    if verb == "patch" or mode == "full":
        return
    ask(rest, "PATCH", "/v1/files/mine", b"x", {"RemFS-Offset": "0"}, 403)
    ask(rest, *VERB_REQUESTS[verb], headers=AS_TRUSTED, status=(200, 201, 204))     # trusted users pass every check


ANONYMOUS_TABLE = {
    "none": set(), "read": {"read", "list", "listing", "archive"},
    "write": {"read", "list", "listing", "archive", "create", "mkdir", "replace", "move", "delete"},
}


@pytest.mark.parametrize("anonymous", ANONYMOUS_TABLE)
@pytest.mark.parametrize("verb", VERB_REQUESTS)
def test_anonymous(serve_users: Callable[..., Any], anonymous: str, verb: str) -> None:
    rest = serve_users(auth__anonymous=anonymous)
    rest.tree._root.write("/mine", callfs.bytes_body(b"old"), "anonymous", lambda there: None, callfs.WriteOptions())
    answer = ask(rest, *VERB_REQUESTS[verb], headers=NO_KEY)
    assert answer.status in ((200, 201, 204) if verb in ANONYMOUS_TABLE[anonymous] else (401,))
    if answer.status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    ask(rest, "GET", "/v1/directories/", headers={"Authorization": "Bearer wrong-key-01234567"}, status=401)


def test_anonymous_changes_nothing_of_users_and_sees_no_metrics(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(auth__anonymous="write", auth__api_key_users={**USERS, "anonymous": "key-of-one-so-named-01"})
    put_file(rest, "/f", b"ann's")
    for method, path, body in (("PUT", "/v1/files/f", b"x"), ("DELETE", "/v1/files/f", None)):
        ask(rest, method, path, body, NO_KEY, 403)
    named = {"Authorization": "Bearer key-of-one-so-named-01"}
    made = ask(rest, "POST", "/v1/links/generate", {"path": "/f", "expiry_seconds": 60}, named, 201).json()
    for method, path in (("GET", "/metrics"), ("GET", "/v1/links"), ("DELETE", "/v1/links/" + made["id"])):
        ask(rest, method, path, headers=NO_KEY, status=401)


# ---- proxies, browsers ------------------------------------------------------------------------------------------

FORWARDED = [                               # trusted proxies, X-Forwarded-For, client of the log
    ([], "192.0.2.1", "127.0.0.1"), (["192.0.2.0/24"], "192.0.2.1", "127.0.0.1"),
    (["127.0.0.1"], "192.0.2.1", "192.0.2.1"), (["127.0.0.0/8"], "192.0.2.1", "192.0.2.1"),
    (["127.0.0.1"], "198.51.100.7, 192.0.2.1", "192.0.2.1"),               # what the client itself wrote comes first
    (["127.0.0.1", "192.0.2.0/24"], "198.51.100.7, 192.0.2.1", "198.51.100.7"),
    (["127.0.0.1", "192.0.2.0/24"], "evil, 198.51.100.7, 192.0.2.1", "198.51.100.7"),
    (["127.0.0.1"], "2001:db8::1", "2001:db8::1"), (["127.0.0.1"], "nonsense", "127.0.0.1"), (["127.0.0.1"], "", "127.0.0.1"),
    (["127.0.0.1"], "192.0.2.1, nonsense", "127.0.0.1"), (["::1", "unix"], "192.0.2.1", "127.0.0.1"),
]


def lines_of_log(path: Path, rest: Any) -> list[dict[str, Any]]:
    """The lines of a JSON log, all that were answered so far."""
    rest.log.flush()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("trusted, header, client", FORWARDED)
def test_forwarded_for(serve_users: Callable[..., Any], tmp_path: Path, trusted: list[str], header: str, client: str) -> None:
    rest = serve_users(server__trusted_proxies=trusted, log__file=str(tmp_path / "log"), log__format="json", log__level="info")
    ask(rest, "GET", "/health", headers={"X-Forwarded-For": header}, status=200)
    assert wait_for(lambda: [line for line in lines_of_log(tmp_path / "log", rest) if line["message"] == "request"],
                    what="the access line")[0]["client"] == client


@pytest.mark.parametrize("trusted, headers, base", [
    ([], {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "files.example"}, "http://inner:1"),
    (["127.0.0.1"], {"X-Forwarded-Proto": "https"}, "https://inner:1"),
    (["127.0.0.1"], {"X-Forwarded-Proto": "HTTPS, http", "X-Forwarded-Host": "files.example, x"}, "https://files.example"),
    (["127.0.0.1"], {"X-Forwarded-Proto": "javascript", "X-Forwarded-Host": "a/b"}, "http://inner:1"),
])
def test_forwarded_proto_and_host(serve_users: Callable[..., Any], trusted: list[str], headers: dict[str, str], base: str) -> None:
    rest = serve_users(server__trusted_proxies=trusted)
    put_file(rest, "/f", b"x")
    answer = call(rest, "POST", "/v1/links/generate", {"path": "/f", "expiry_seconds": 60}, {"Host": "inner:1", **headers})
    check_answer(answer, tls=base.startswith("https"))
    assert answer.json()["url"] == f"{base}/download/{answer.json()['token']}"


def test_path_prefix(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(server__path_prefix="/files")
    assert rest.url.endswith("/files")
    made = ask(rest, "PUT", "/files/v1/files/a%20b", b"x", status=201)
    assert made.headers["location"] == "/files/v1/files/a%20b"
    assert ask(rest, "GET", made.headers["location"], status=200).body == b"x"
    link = ask(rest, "POST", "/files/v1/links/generate", {"path": "/a b", "expiry_seconds": 60}, status=201).json()
    assert link["url"] == f"{rest.url}/download/{link['token']}"
    assert ask(link["url"].partition("/files")[0], "GET", "/files/download/" + link["token"], status=200).body == b"x"
    for path in ("/v1/files/a%20b", "/health", "/files", "/filesv1/files/a", "/other/v1/files/a"):
        assert ask(rest, "GET", path, status=404).json()["code"] == "NOT_FOUND"


@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("localhost:8443", 200), ("LOCALHOST", 200), ("127.0.0.1:1", 200), ("[::1]:8443", 200), ("[::1]", 200),
    ("files.example", 200), ("FILES.example:99", 200), ("evil.example", 421), ("localhost.evil.example", 421),
    ("127.0.0.1.evil.example", 421), ("192.0.2.1", 421),
])
def test_host_on_loopback(serve_users: Callable[..., Any], host: str, status: int) -> None:
    rest = serve_users(server__external_url="https://files.example/", auth__anonymous="read")
    for headers in (basic(USERS["ann"]), NO_KEY):
        ask(rest, "GET", "/v1/directories/", headers={**headers, "Host": host}, status=status)
    ask(rest, "GET", "/v1/directories/", headers={**AS_ANN, "Host": host}, status=200)      # no browser adds that by itself


def test_host_is_not_checked_where_everybody_may_come(serve_users: Callable[..., Any]) -> None:
    proxied = serve_users(server__trusted_proxies=["127.0.0.1"])
    ask(proxied, "GET", "/v1/directories/", headers={**basic(USERS["ann"]), "Host": "any.example"}, status=200)
    open_server = serve_users(server__listen_addr="0.0.0.0:0")
    ask(open_server, "GET", "/v1/directories/", headers={**basic(USERS["ann"]), "Host": "any.example"}, status=200)


OWN, LISTED, FOREIGN = "http://127.0.0.1:1", "https://app.example", "https://evil.example"
CROSS_SITE = [                              # kind of sign-in, headers of a PUT, status
    ("basic", {}, 201), ("basic", {"Origin": OWN}, 201), ("basic", {"Origin": LISTED}, 201), ("basic", {"Origin": FOREIGN}, 403),
    ("basic", {"Origin": "null"}, 403), ("basic", {"Origin": "https://app.example.evil.example"}, 403),
    ("basic", {"Origin": "http://127.0.0.1:2"}, 403), ("basic", {"Sec-Fetch-Site": "cross-site"}, 403),
    ("basic", {"Sec-Fetch-Site": "same-origin"}, 201), ("basic", {"Sec-Fetch-Site": "none"}, 201),
    ("basic", {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"}, 201),
    ("anonymous", {}, 201), ("anonymous", {"Origin": FOREIGN}, 403), ("anonymous", {"Origin": OWN}, 201),
    ("anonymous", {"Sec-Fetch-Site": "cross-site"}, 403),
    ("bearer", {"Origin": FOREIGN}, 201), ("bearer", {"Sec-Fetch-Site": "cross-site"}, 201),
]


@pytest.mark.parametrize("kind, headers, status", CROSS_SITE)
def test_cross_site_changes(serve_users: Callable[..., Any], kind: str, headers: dict[str, str], status: int) -> None:
    rest = serve_users(server__cors_origins=[LISTED], auth__anonymous="write")
    sign_in = {"basic": basic(USERS["ann"]), "anonymous": NO_KEY, "bearer": AS_ANN}[kind]
    given = {**sign_in, "Host": "127.0.0.1:1", **headers}
    ask(rest, "PUT", "/v1/files/f", b"x", given, status)
    ask(rest, "GET", "/v1/directories/", headers=given, status=200)      # reading is the browser's own policy
    ask(rest, "POST", "/v1/files/folder/", None, given, status)
    ask(rest, "DELETE", "/v1/files/folder", None, given, 204 if status == 201 else 403)


@pytest.mark.parametrize("listed, origin, allowed", [
    ([LISTED], LISTED, True), ([LISTED], FOREIGN, False), ([LISTED], "null", False), ([], LISTED, False), (["*"], FOREIGN, True),
    ([LISTED], None, False),
])
def test_cors(serve_users: Callable[..., Any], listed: list[str], origin: Optional[str], allowed: bool) -> None:
    rest = serve_users(server__cors_origins=listed)
    asked = {"Origin": origin, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization, range"}
    preflight = ask(rest, "OPTIONS", "/v1/files/f", headers={**NO_KEY, **asked}, status=204)
    plain = [ask(rest, "GET", path, headers={"Origin": origin}) for path in ("/v1/directories/", "/v1/files/none", "/nothing")]
    for answer in (preflight, *plain):
        assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert "access-control-allow-credentials" not in answer.headers
        assert ("Origin" in answer.headers.get("vary", "")) == allowed
    assert ("PUT" in preflight.headers.get("access-control-allow-methods", "")) == allowed
    assert preflight.headers.get("access-control-allow-headers") == ("authorization, range" if allowed else None)


# ---- every route, every method, every role, every bad path ------------------------------------------------------

LEAVES = ["..", "../x", "a/../../x", "%2e%2e", "%2e%2e/x", ".%2e/x", "%2E./x", "..%2fx", "%2e%2e%2fx", "a%2f..%2f..%2fx",
          "..%2F..%2F..%2Fetc%2Fpasswd", "../../../etc/passwd", "%2F..%2Foutside.txt"]
FORBIDDEN = ["a%5Cb", "..%5Cx", "%5C..%5C..%5Cx", "a%00b", "%00", "a%0Ab", "a%0Db", "a%09b", "%7F", "%1b%5b31m", "%C2%80", "%C2%9F",
             "%E2%80%AE", "a%E2%80%AAb", "%E2%81%A6", "%E2%81%A9", "x" * 256, "%C3%A9" * 128, "/".join(["y" * 200] * 21),
             "%FF", "%C3", "a%C3%28", "%ED%A0%80", "%C0%AE%C0%AE/x", "%F5%80%80%80"]
HIDDEN_NAMES = [".callfs", ".callfs/", ".callfs/tmp", ".callfs/secret.txt", "%2ecallfs/secret.txt", "a/../.callfs/secret.txt",
                ".CallFS/secret.txt", ".CALLFS", ".//.callfs/secret.txt", ".callfs/callfs.sqlite3"]
ORDINARY = ["%252e%252e%252fx", "%25", "a%2Fb", "...", "file.txt/", "f//x", "./f", "", "/", "//", "etc-link/passwd", "out-link",
            "dir-link/secret.txt"]
OUTSIDE_BYTES = b"bytes-from-outside"


@pytest.mark.parametrize("role", ["none", "wrong", "owner", "user", "internal"])
def test_no_route_leads_outside(serve_users: Callable[..., Any], tmp_path: Path, role: str) -> None:
    parent = tmp_path / "parent"
    root = parent / "root"
    (root / ".callfs").mkdir(parents=True)
    for place in (parent / "outside.txt", parent / "x", root / ".callfs" / "secret.txt", parent / "passwd", parent / "secret.txt"):
        place.write_bytes(OUTSIDE_BYTES)
    for name, target in (("etc-link", parent), ("out-link", parent / "outside.txt"), ("dir-link", ".callfs"), ("up", "..")):
        (root / name).symlink_to(target)
    rest = serve_users(root)
    put_file(rest, "/file.txt", b"inside")
    headers = {"none": {}, "wrong": {"Authorization": "Bearer wrong-key-0123456789"}, "owner": AS_ANN, "user": AS_BOB, "internal": AS_TRUSTED}[role]
    paths = [*LEAVES, *FORBIDDEN, *HIDDEN_NAMES, *ORDINARY]
    seen, exact = 0, {route.pattern for route in all_routes(rest)}
    with contextlib.closing(connect(rest.url)) as connection:
        for route in all_routes(rest):
            tails = [path for path in paths if route.pattern.replace("{path}", path) not in exact] if "{path}" in route.pattern else [""]
            for method, tail in itertools.product(("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"), tails):
                body = b'{"name": "moved"}' if method in ("PUT", "POST", "PATCH") else None
                connection.request(method, route.pattern.replace("{path}", tail), body, headers)
                response = connection.getresponse()
                data, where = response.read(), (role, method, route.pattern, tail, response.status)
                seen += 1
                assert OUTSIDE_BYTES not in data and b"root:" not in data and str(tmp_path).encode() not in data, where
                assert response.status < 500 or response.status == 501 and "internal" in route.pattern, where
                assert response.getheader("X-Content-Type-Options") == "nosniff", where
                check_role(route, method, tail, role, response.status, where)
    assert seen > 1000
    assert {entry.name for entry in parent.iterdir()} == {"outside.txt", "x", "root", "passwd", "secret.txt"}
    assert all(place.read_bytes() == OUTSIDE_BYTES for place in (parent / "outside.txt", root / ".callfs" / "secret.txt"))
    assert (root / ".callfs" / "callfs.sqlite3").exists()


def check_role(route: Any, method: str, tail: str, role: str, status: int, where: Any) -> None:
    """The status that a row of the table above must have."""
    if method not in route.methods:
        assert status in (405, 204), where
    elif route.access != "open" and role in ("none", "wrong"):
        assert status == 401, where
    elif route.access == "internal":
        assert status == (501 if role == "internal" else 403), where
    elif route.pattern in ("/v1/files/{path}", "/v1/directories/{path}"):
        if tail in FORBIDDEN or tail in LEAVES:
            assert status == 400, where
        elif tail in HIDDEN_NAMES:
            assert status in ((404,) if method in ("GET", "HEAD", "DELETE") else (400, 403, 404)), where


@pytest.mark.parametrize("key", ["name", "destination"])
@pytest.mark.parametrize("bad", ["../x", "a\\b", "a\0b", "a\nb", "\u202ex", "\u2066", "x" * 256, "\ud800", "..", "/../x", ".callfs/x",
                                 "/.callfs/x", "/.CALLFS/x", "/" + "/".join(["y" * 200] * 21)])
def test_paths_in_json_pass_the_same_check(rest: Any, key: str, bad: str) -> None:
    put_file(rest, "/f", b"x")
    ask(rest, "PATCH", "/v1/files/f", {key: bad}, status=(400, 403))
    assert get_file(rest, "/f") == b"x"
    if key == "destination":
        ask(rest, "POST", "/v1/links/generate", {"path": bad, "expiry_seconds": 60}, status=(400, 404, 413))


def test_link_swapped_into_the_middle_never_leads_out(rest: Any, tmp_path: Path) -> None:
    """CVE-2026-54094: a folder is exchanged for a symbolic link while requests go through it."""
    root = Path(rest.config.backend.localfs_root_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(OUTSIDE_BYTES)
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"inside")
    (root / "link").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for source, target in (("d", "real"), ("link", "d"), ("d", "link"), ("real", "d")):
                with contextlib.suppress(OSError):      # an upload made the folder anew meanwhile
                    os.rename(root / source, root / target)
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        answers = [ask(rest, method, "/v1/files/d/f", b"new" if method == "PUT" else None, AS_TRUSTED, (200, 201, 204, 404, 409))
                   for _ in range(50) for method in ("GET", "PUT", "DELETE")]
    finally:
        done.set()
        thread.join()
    assert not any(OUTSIDE_BYTES in answer.body for answer in answers)
    assert (outside / "f").read_bytes() == OUTSIDE_BYTES and os.listdir(outside) == ["f"]


# ---- the log ----------------------------------------------------------------------------------------------------

def test_access_lines(serve_users: Callable[..., Any], tmp_path: Path) -> None:
    log = tmp_path / "log"
    rest = serve_users(log__file=str(log), log__format="json", log__level="info")
    put_file(rest, "/f", b"12345")
    ask(rest, "GET", "/v1/files/f?download=1", headers={"X-Request-ID": "mine"})
    ask(rest, "GET", "/v1/files/a%0Ab%1b%5B31m", headers={"X-Request-ID": "odd"})
    ask(rest, "BREW", "/v1/files/f", headers={"X-Request-ID": "brew"})
    raw(rest.url, b"rubbish\r\n\r\n")
    lines = wait_for(lambda: (found := [line for line in lines_of_log(log, rest) if line["message"] == "request"])
                     and len(found) == 5 and found, what="five access lines")
    for line in lines:
        assert set(line) == {"time", "level", "message", "id", "client", "user", "method", "path", "status", "bytes", "seconds"}
        assert line["client"] == "127.0.0.1" and line["seconds"] >= 0
    assert sorted((line["method"], line["user"], line["status"]) for line in lines) == [
        ("BREW", "", 405), ("GET", "ann", 200), ("GET", "ann", 400), ("PUT", "ann", 201), ("none", "", 400)]
    mine = next(line for line in lines if line["id"] == "mine")
    assert (mine["path"], mine["status"], mine["bytes"]) == ("/v1/files/f", 200, 5)


def test_no_secret_in_the_log(serve_users: Callable[..., Any], tmp_path: Path) -> None:
    log = tmp_path / "log"
    rest = serve_users(log__file=str(log), log__level="debug", server__path_prefix="/p")
    call(rest, "PUT", "/p/v1/files/f", b"body-of-the-file")
    made = call(rest, "POST", "/p/v1/links/generate", {"path": "/f", "expiry_seconds": 60}).json()
    wrong = "wrong-key-0123456789"
    for path, headers in (("/p/download/" + made["token"], {}), ("/download/" + made["token"], {}), ("/p/v1/directories/", basic(wrong)),
                          ("/p/v1/directories/", {"Authorization": f"Bearer {wrong}"}), ("/p/v1/directories/", AS_TRUSTED),
                          (f"/p/v1/files/f?key={USERS['bob']}", {}), ("/x/download/" + made["token"], {})):
        call(rest, "GET", path, headers=headers)
    wait_for(lambda: rest.log.flush() or log.read_text().count("request") >= 9, what="the access lines")
    text = log.read_text(encoding="utf-8")
    for secret in (*USERS.values(), INTERNAL, wrong, made["token"], made["token"].split(".")[1], "body-of-the-file",
                   rest.config.auth.single_use_link_secret, basic(wrong)["Authorization"].split()[1]):
        assert secret not in text
    assert "/p/download/********" in text or "/download/********" in text


def test_control_characters_cannot_forge_a_line(serve_users: Callable[..., Any], tmp_path: Path) -> None:
    log = tmp_path / "log"
    rest = serve_users(log__file=str(log), log__level="debug")
    odd = "\xa0\x85\u2028x"
    put_file(rest, "/ok", b"x")
    raw(rest.url, head_of("GET", "/v1/files/\x85\x9b31mred", {"Connection": "close"}))
    ask(rest, "PATCH", "/v1/files/ok", {"name": odd + "\n12:00:00 INFO forged"}, status=400)
    wait_for(lambda: rest.log.flush() or log.read_bytes().count(b"request") >= 3, what="three lines")
    data = log.read_text(encoding="utf-8")
    assert "forged" not in data and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", data)


def test_log_file_is_opened_anew_by_reload(serve_users: Callable[..., Any], tmp_path: Path) -> None:
    log, old = tmp_path / "log", tmp_path / "log.1"
    rest = serve_users(log__file=str(log), log__format="json", log__level="info")
    ask(rest, "GET", "/health", headers={"X-Request-ID": "id-one"})
    wait_for(lambda: rest.log.flush() or "id-one" in log.read_text(), what="the line")
    log.rename(old)
    rest.reload()
    ask(rest, "GET", "/health", headers={"X-Request-ID": "id-two"})
    wait_for(lambda: rest.log.flush() or "id-two" in log.read_text(), what="the line in the new file")
    assert "id-two" not in old.read_text() and "id-one" not in log.read_text()
    log.unlink()
    log.mkdir()                             # can not be opened: the old one stays in use
    rest.reload()
    ask(rest, "GET", "/health", status=200)


# ============================================================================
# Files over HTTP: conditions, ranges, archives
# ============================================================================

TEN = b"0123456789"

RANGE_ROWS = [                                  # Range, status, body, Content-Range
    ("bytes=0-0", 206, b"0", "bytes 0-0/10"), ("bytes=2-4", 206, b"234", "bytes 2-4/10"), ("bytes=9-", 206, b"9", "bytes 9-9/10"),
    ("bytes=0-", 206, TEN, "bytes 0-9/10"), ("bytes=-3", 206, b"789", "bytes 7-9/10"), ("bytes=-99", 206, TEN, "bytes 0-9/10"),
    ("bytes=5-99999999999", 206, b"56789", "bytes 5-9/10"), ("BYTES=1-1", 206, b"1", "bytes 1-1/10"),
    ("bytes=1-3,2-5", 206, b"12345", "bytes 1-5/10"), ("bytes=20-30,3-3", 206, b"3", "bytes 3-3/10"),
    ("bytes=10-", 416, None, "bytes */10"), ("bytes=10-20", 416, None, "bytes */10"), ("bytes=-0", 416, None, "bytes */10"),
    ("bytes=5-2", 200, TEN, None), ("bytes=a-b", 200, TEN, None), ("bytes=", 200, TEN, None), ("bytes=-", 200, TEN, None),
    ("lines=1-2", 200, TEN, None), ("bytes 1-2", 200, TEN, None), ("bytes=1-2,x", 200, TEN, None), ("bytes=--1", 200, TEN, None),
    ("bytes=" + ",".join(["0-0"] * 17), 200, TEN, None), ("bytes=" + ",".join(["0-0"] * 16), 206, b"0", "bytes 0-0/10"),
    ("bytes=" + "9" * 30 + "-", 416, None, "bytes */10"), ("bytes=0-" + "9" * 30, 206, TEN, "bytes 0-9/10"),
]


@pytest.fixture
def ten(rest: Any) -> Any:
    """A server with /ten (ten digits) and /empty."""
    put_file(rest, "/ten", TEN)
    put_file(rest, "/empty", b"")
    return rest


@pytest.mark.parametrize("header, status, body, where", RANGE_ROWS, ids=[row[0][:30] for row in RANGE_ROWS])
def test_range(ten: Any, header: str, status: int, body: Any, where: Optional[str]) -> None:
    answer = ask(ten, "GET", "/v1/files/ten", headers={"Range": header}, status=status)
    assert answer.headers.get("content-range") == where and (body is None or answer.body == body)
    assert answer.headers["content-length"] == str(len(answer.body))
    head = ask(ten, "HEAD", "/v1/files/ten", headers={"Range": header}, status=200)       # RFC 9110, 14.2: only for GET
    assert head.headers["content-length"] == "10" and "content-range" not in head.headers


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-"])
def test_range_of_an_empty_file(ten: Any, header: str) -> None:
    assert ask(ten, "GET", "/v1/files/empty", headers={"Range": header}, status=416).headers["content-range"] == "bytes */0"
    assert get_file(ten, "/empty") == b""


def parts_of(answer: Answer) -> list[tuple[str, bytes]]:
    """The parts of multipart/byteranges, read by the standard library's e-mail parser."""
    text = b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.body
    message = email.message_from_bytes(text, policy=email.policy.HTTP)
    assert message.is_multipart() and not message.defects
    return [(part["Content-Range"], part.get_payload(decode=True)) for part in message.iter_parts()]


@pytest.mark.parametrize("header, wanted", [
    ("bytes=0-1,4-5", [(0, 2), (4, 6)]), ("bytes=8-,0-0", [(8, 10), (0, 1)]), ("bytes=0-0,-1", [(0, 1), (9, 10)]),
    ("bytes=0-0, 2-2 ,4-4", [(0, 1), (2, 3), (4, 5)]), ("bytes=0-3,2-5,8-9", [(0, 6), (8, 10)]),
    ("bytes=0-1,50-60,4-5", [(0, 2), (4, 6)]),
])
def test_several_ranges(ten: Any, header: str, wanted: list[tuple[int, int]]) -> None:
    answer = ask(ten, "GET", "/v1/files/ten", headers={"Range": header}, status=206)
    assert int(answer.headers["content-length"]) == len(answer.body) and "content-range" not in answer.headers
    assert parts_of(answer) == [(f"bytes {a}-{b - 1}/10", TEN[a:b]) for a, b in wanted]


def test_sixteen_ranges_of_a_large_file(rest: Any) -> None:
    data = random.Random(1).randbytes(1_000_000)
    put_file(rest, "/large", data)
    wanted = [(i * 60_000, i * 60_000 + 40_000) for i in range(16)]
    header = "bytes=" + ",".join(f"{a}-{b - 1}" for a, b in wanted)
    answer = ask(rest, "GET", "/v1/files/large", headers={"Range": header}, status=206)
    assert parts_of(answer) == [(f"bytes {a}-{b - 1}/1000000", data[a:b]) for a, b in wanted]


def test_if_range(ten: Any) -> None:
    headers = ask(ten, "HEAD", "/v1/files/ten").headers
    modified, etag = headers["last-modified"], headers["etag"]
    later = callfs.http_date(callfs.parse_http_date(modified) + 10)
    earlier = callfs.http_date(callfs.parse_http_date(modified) - 10)
    for condition, status in ((etag, 206), (modified, 206), ('"other"', 200), ("W/" + etag, 200), (later, 200), (earlier, 200),
                              ("nonsense", 200)):
        ask(ten, "GET", "/v1/files/ten", headers={"Range": "bytes=1-1", "If-Range": condition}, status=status)


def test_conditions_of_reading(ten: Any) -> None:
    headers = ask(ten, "HEAD", "/v1/files/ten").headers
    modified, etag = headers["last-modified"], headers["etag"]
    seconds = callfs.parse_http_date(modified)
    earlier, later = callfs.http_date(seconds - 10), callfs.http_date(seconds + 10)
    rows = [
        ({"If-None-Match": etag}, 304), ({"If-None-Match": "W/" + etag}, 304), ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x", ' + etag}, 304), ({"If-None-Match": '"x"'}, 200),
        ({"If-Match": etag}, 200), ({"If-Match": "*"}, 200), ({"If-Match": '"x"'}, 412),
        ({"If-Match": "W/" + etag}, 412), ({"If-Match": '"x", ' + etag}, 200),
        ({"If-Modified-Since": modified}, 304), ({"If-Modified-Since": later}, 304),
        ({"If-Modified-Since": earlier}, 200), ({"If-Modified-Since": "nonsense"}, 200),
        ({"If-Unmodified-Since": modified}, 200), ({"If-Unmodified-Since": earlier}, 412),
        ({"If-Unmodified-Since": "nonsense"}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": later}, 200),       # the date counts no more
        ({"If-Match": etag, "If-Unmodified-Since": earlier}, 200),
    ]
    for (given, status), method in itertools.product(rows, ("GET", "HEAD")):
        answer = ask(ten, method, "/v1/files/ten", headers=given, status=status)
        if status == 304:
            assert answer.body == b"" and answer.headers["etag"] == etag and answer.headers["last-modified"] == modified


@pytest.mark.parametrize("headers, status", [
    ({"If-None-Match": "{etag}"}, 412), ({"If-None-Match": "W/{etag}"}, 412), ({"If-None-Match": "*"}, 412),
    ({"If-None-Match": '"x"'}, 200), ({"If-Match": "{etag}"}, 200), ({"If-Match": "*"}, 200), ({"If-Match": '"x"'}, 412),
    ({"If-Match": "W/{etag}"}, 412), ({"If-Modified-Since": "{later}"}, 200), ({"If-Unmodified-Since": "{later}"}, 200),
    ({"If-Unmodified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}, 412), ({"If-Unmodified-Since": "nonsense"}, 200),
])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_conditions_of_changes(ten: Any, method: str, headers: dict[str, str], status: int) -> None:
    etag = ask(ten, "HEAD", "/v1/files/ten").headers["etag"]
    given = {name: value.format(etag=etag, later=callfs.http_date(time.time() + 60)) for name, value in headers.items()}
    extra = {"RemFS-Offset": "0"} if method == "PATCH" else {}
    good = 204 if method == "DELETE" else 200
    ask(ten, method, "/v1/files/ten", None if method == "DELETE" else b"new", {**given, **extra}, good if status == 200 else 412)
    left = call(ten, "GET", "/v1/files/ten")
    assert left.status == (404 if method == "DELETE" else 200) if status == 200 else left.body == TEN


@pytest.fixture
def folder(rest: Any) -> dict[str, bytes]:
    """Files below /top of `server`, by path; and an empty directory, and links."""
    files = {"/top/a.txt": b"a", "/top/sub/b.bin": os.urandom(3_000_000), "/top/sub/deep/c": b"", "/top/sub/z é #?%;&+.txt": b"odd",
             "/top/" + "n" * 200 + "/" + "m" * 200: b"long", "/top/con": b"device"}
    for path, data in files.items():
        put_file(rest, path, data)
    put_file(rest, "/beside", b"not in the archive")
    ask(rest, "POST", "/v1/files/top/empty/", status=201)
    root = Path(rest.config.backend.localfs_root_path)
    (root.parent / "outside").write_bytes(OUTSIDE_BYTES)
    (root / "top" / "out").symlink_to(root.parent / "outside")
    (root / "top" / "outdir").symlink_to(root.parent)
    (root / "top" / "hidden").symlink_to(root / ".callfs")
    (root / "top" / "inside").symlink_to("a.txt")
    os.mkfifo(root / "top" / "fifo")
    return files


def archive_members(kind: str, data: bytes) -> dict[str, Optional[bytes]]:
    """Name to bytes, None for a directory."""
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            return {item.filename.rstrip("/"): None if item.is_dir() else archive.read(item) for item in archive.infolist()}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {item.name: archive.extractfile(item).read() if item.isfile() else None for item in archive}


@pytest.mark.parametrize("kind, content_type", [("zip", "application/zip"), ("tar", "application/x-tar")])
def test_archive(rest: Any, folder: dict[str, bytes], kind: str, content_type: str) -> None:
    answer = ask(rest, "GET", f"/v1/files/top?archive={kind}", status=200)
    assert answer.headers["content-type"] == content_type and OUTSIDE_BYTES not in answer.body
    assert answer.headers["content-disposition"] == f"attachment; filename=\"top.{kind}\"; filename*=UTF-8''top.{kind}"
    members = archive_members(kind, answer.body)
    assert {name: data for name, data in members.items() if data is not None} == \
        {**{path[1:]: data for path, data in folder.items()}, "top/inside": b"a"}
    assert {name for name, data in members.items() if data is None} == {"top/sub", "top/sub/deep", "top/empty", "top/" + "n" * 200}
    head = ask(rest, "HEAD", f"/v1/files/top?archive={kind}", status=200)
    kept = ("content-type", "content-disposition", "content-length")
    assert [head.headers.get(name) for name in kept] == [answer.headers.get(name) for name in kept]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_of_everything(rest: Any, folder: dict[str, bytes], kind: str) -> None:
    answer = ask(rest, "GET", f"/v1/files/?archive={kind}", headers=AS_BOB, status=200)
    names = set(archive_members(kind, answer.body))
    assert {"files/beside", "files/top/a.txt"} <= names and not any(".callfs" in name or ".." in name for name in names)
    assert not any(name.startswith("/") for name in names) and f"files.{kind}" in answer.headers["content-disposition"]


@pytest.mark.parametrize("path, kind, status", [("top", "rar", 400), ("top/a.txt", "zip", 400), ("none", "tar", 404)])
def test_archive_refused(rest: Any, folder: dict[str, bytes], path: str, kind: str, status: int) -> None:
    ask(rest, "GET", f"/v1/files/{path}?archive={kind}", status=status)


def test_archive_keeps_times_and_modes(rest: Any) -> None:
    put_file(rest, "/d/f", b"x", {"X-OC-Mtime": "1000000000"})
    put_file(rest, "/d/old", b"x", {"X-OC-Mtime": "0"})
    data = ask(rest, "GET", "/v1/files/d?archive=tar", status=200).body
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        item = archive.getmember("d/f")
        assert (item.mtime, item.mode, item.uname) == (1_000_000_000, 0o644, "ann")
    data = ask(rest, "GET", "/v1/files/d?archive=zip", status=200).body
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.getinfo("d/f").date_time == (2001, 9, 9, 1, 46, 40)
        assert archive.getinfo("d/old").date_time == (1980, 1, 1, 0, 0, 0)
        assert stat.S_IMODE(archive.getinfo("d/f").external_attr >> 16) == 0o644


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_that_breaks_is_cut(rest: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Never a short archive that looks whole."""
    put_file(rest, "/d/a", os.urandom(500_000))
    real = callfs.FileReader.read

    def broken(self: Any, size: int = callfs.BLOCK) -> bytes:
        raise callfs.StorageError("gone")
    monkeypatch.setattr(callfs.FileReader, "read", broken)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        call(rest, "GET", f"/v1/files/d?archive={kind}")
    monkeypatch.setattr(callfs.FileReader, "read", real)
    assert len(get_file(rest, "/d/a")) == 500_000


def test_archive_reader_that_leaves_holds_nothing(rest: Any) -> None:
    put_file(rest, "/d/a", os.urandom(4_000_000))
    for _ in range(5):
        connection = raw_socket(rest.url)
        connection.sendall(head_of("GET", "/v1/files/d?archive=tar"))
        connection.recv(1000)
        connection.close()
    wait_for(lambda: not holders_of(rest, "/d/a"), what="the descriptors of the readers that left")


# ---- handles without fixed bytes --------------------------------------------------------------------------------

class Live(callfs.Reader):
    """What a live stream gives: pushed by the engine; `feed` and `end` come from the test."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.ended = self.closed = False
        self.wake: Callable[[], None] = lambda: None

    def attach(self, wake: Callable[[], None]) -> None:
        """Whom to call when there is more."""
        self.wake = wake

    def feed(self, block: bytes) -> None:
        """More."""
        self.blocks.append(block)
        self.wake()

    def read(self, size: int = 0) -> Any:
        """A block, None for nothing yet, b"" at the end."""
        return self.blocks.pop(0) if self.blocks else b"" if self.ended else None

    def close(self) -> None:
        """The client is gone, or it was the end."""
        self.closed = True


class PocketFS(callfs.FileSystem):
    """For tests: `/take` gives the next message out, `/live` never ends, `/drop` takes messages, `/plain` is a file."""

    name = "pocketfs"

    def __init__(self, options: Any = None, context: Any = None) -> None:
        self.messages, self.dropped, self.wishes, self.readers = collections.deque([b"one", b"two"]), [], [], []
        self.gate = threading.Event()
        self.gate.set()

    def _entry(self, path: str) -> Any:
        self.gate.wait(20)
        modes = {"/take": 0o444, "/live": 0o444, "/drop": 0o222, "/plain": 0o644}
        if path == "/":
            return callfs.Entry("/", callfs.DIRECTORY, mode=0o755, owner="*", etag="d", id="/", backend=self.name)
        if path not in modes:
            raise callfs.FileNotFound()
        return callfs.Entry(path, size=5 if path == "/plain" else 0, mode=modes[path], owner="*", mtime_ns=10**18,
                            etag="tag", id=path, backend=self.name)

    stat = _entry

    def mkdir(self, path: str, *args: Any) -> Any:
        """Waits at the gate, too, and then can not."""
        self.gate.wait(20)
        raise callfs.NotSupported()

    remove = mkdir

    def open(self, path: str, wish: Mapping[str, str] = {}) -> Any:
        """As the interface says."""
        self.wishes.append(dict(wish))
        entry = self._entry(path)
        if path == "/drop":
            raise callfs.PermissionDenied("This can only be written to.")
        if path == "/plain":
            return callfs.MemoryHandle(entry, b"plain")
        return callfs.Handle(entry) if path == "/" else callfs.LiveHandle(entry, self._reader(path), path == "/take")

    def _reader(self, path: str) -> Callable[[], Any]:
        def take() -> Any:
            return callfs.ChunkReader((self.messages.popleft(),))

        def live() -> Any:
            self.readers.append(Live())
            return self.readers[-1]
        return take if path == "/take" else live

    def list(self, path: str, after: str = "") -> Iterator[Any]:
        """As the interface says."""
        return (self._entry(name) for name in ("/drop", "/live", "/plain", "/take") if name[1:] > after)

    def write(self, path: str, body: Any, owner: str, guard: Any, options: Any) -> Any:
        """As the interface says; `/drop` answers a number."""
        if path != "/drop":
            raise callfs.PermissionDenied("This can not be written to.")
        entry = self._entry(path)
        guard(entry)
        self.dropped.append(body.read(1 << 20))
        return callfs.Written(entry, False, f"id-{len(self.dropped)} é")


@pytest.fixture
def pocket(rest: Any) -> Any:
    """A server with a PocketFS at /p, which is `rest.pocket`."""
    rest.pocket = PocketFS()
    rest.tree.mount("/p", rest.pocket)
    return rest


TAKE_URLS = ["/v1/files/p/take", "/api/v1/files?path=/p/take"]
TAKEN = [b"one", b"two"]


@pytest.mark.parametrize("url", TAKE_URLS)
def test_what_is_consumed_promises_nothing(pocket: Any, url: str) -> None:
    """No ETag, no ranges, no caching; each GET takes one."""
    for message in TAKEN:
        answer = call(pocket, "GET", url)
        assert (answer.status, answer.body) == (200, message) and answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/octet-stream"
        assert not {"etag", "accept-ranges", "repr-digest"} & set(answer.headers)
    assert not pocket.pocket.messages


@pytest.mark.parametrize("url", TAKE_URLS)
@pytest.mark.parametrize("method, headers, status", [
    ("HEAD", {}, 200), ("GET", {"Range": "bytes=0-1"}, 416), ("GET", {"Range": "bytes=0-"}, 416),
    ("GET", {"If-None-Match": '"tag"'}, 304), ("GET", {"If-None-Match": "*"}, 304), ("GET", {"If-Match": '"x"'}, 412),
    ("GET", {"If-Unmodified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, 412),
    ("GET", {"Sec-Fetch-Mode": "navigate"}, 409), ("GET", {"Sec-Purpose": "prefetch;prerender"}, 409),
    ("GET", {"Purpose": "prefetch"}, 409), ("GET", {"Authorization": None}, 401), ("GET", {"Sec-Fetch-Dest": "image"}, 409),
    ("GET", {**basic(USERS["bob"]), "Origin": "https://evil.example"}, 409),
    ("GET", {**basic(USERS["bob"]), "Sec-Fetch-Site": "cross-site"}, 409),
])
def test_who_only_looks_consumes_nothing(pocket: Any, url: str, method: str, headers: dict[str, Any], status: int) -> None:
    answer = call(pocket, method, url, headers=headers)
    assert answer.status == status and list(pocket.pocket.messages) == TAKEN, answer
    if status == 200:
        assert "content-length" not in answer.headers
    if status in (409, 416):
        assert b"othing was taken" in answer.body
    own = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Origin": pocket.url, **basic(USERS["bob"])}
    assert call(pocket, "GET", url, headers=own).body == b"one"


def test_looking_around_consumes_nothing(pocket: Any) -> None:
    """Stat, listings, archives, links, WebSocket downloads, digests, searches and copies."""
    for path in ("/v1/files/p", "/v1/directories/p", "/v1/directories/?recursive=true", "/api/v1/stat?path=/p/take",
                 "/api/v1/directories?path=/p"):
        assert call(pocket, "GET", path).status == 200
    for kind in ("zip", "tar"):
        data = ask(pocket, "GET", f"/v1/files/?archive={kind}", status=200).body
        names = zipfile.ZipFile(io.BytesIO(data)).namelist() if kind == "zip" else \
            tarfile.open(fileobj=io.BytesIO(data)).getnames()
        assert {name.rstrip("/") for name in names} == {"files/p", "files/p/plain"}
    ask(pocket, "POST", "/v1/links/generate", {"path": "/p/take", "expiry_seconds": 60}, status=400)
    for mode, path in (("grep", "/p"), ("digest", "/p/take")):
        call(pocket, "POST", f"/api/v1/{mode}", {"path": path, "algorithm": "md5", "pattern": "o", "recursive": True})
    with RawWebSocket(pocket, "/v1/files/ws/p/take") as peer:
        assert peer.status == 400 and b"takes a message out" in peer.answer.body
    assert call(pocket, "POST", "/api/v1/digest", {"path": "/p/take", "algorithm": "md5"}).status == 400
    assert list(pocket.pocket.messages) == TAKEN and not any(pocket.pocket.wishes)


def test_a_link_that_became_consuming_takes_nothing(pocket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_link(pocket, "/p/plain")
    real = PocketFS.open
    monkeypatch.setattr(PocketFS, "open", lambda self, path, wish={}: callfs.LiveHandle(
        real(self, path).entry, self._reader("/take"), True))
    ask(pocket, "GET", "/download/" + made["token"], headers=NO_KEY, status=400)
    monkeypatch.undo()
    assert ask(pocket, "GET", "/download/" + made["token"], headers=NO_KEY, status=200).body == b"plain"
    assert list(pocket.pocket.messages) == TAKEN


def test_archive_of_a_mount(pocket: Any) -> None:
    archive = zipfile.ZipFile(io.BytesIO(ask(pocket, "GET", "/v1/files/p?archive=zip", status=200).body))
    assert archive.namelist() == ["p/plain"] and archive.read("p/plain") == b"plain"


@pytest.mark.parametrize("url", ["/v1/files/p/live?", "/api/v1/files?path=/p/live&"])
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-3"}, {"Sec-Fetch-Mode": "navigate"}])
def test_a_live_stream_comes_as_it_is_fed(pocket: Any, url: str, headers: dict[str, str]) -> None:
    """Each block at once, whole to the end; a range means nothing there."""
    connection = connect(pocket.url)
    connection.request("GET", url + "stream=true", headers={"Authorization": f"Bearer {pocket.key}", **headers})
    wait_for(lambda: pocket.pocket.readers)
    response, source = None, pocket.pocket.readers[0]
    for block in (b"first", b"second" * 100):
        source.feed(block)
        response = response or connection.getresponse()
        assert response.status == 200 and response.read(len(block)) == block
    source.ended = True
    source.wake()
    assert response and response.read() == b"" and response.getheader("transfer-encoding") == "chunked"
    wait_for(lambda: source.closed)
    assert pocket.pocket.wishes == [{"stream": "true"}]
    connection.close()


def test_a_client_that_vanishes_in_a_stream_is_noticed(pocket: Any) -> None:
    """Silent streams too: nobody writes, the reader is let go of all the same."""
    for url in ("/v1/files/p/live", "/api/v1/files?path=/p/live&stream=true"):
        connection = raw_socket(pocket.url)
        connection.sendall(head_of("GET", url))
        source = wait_for(lambda: pocket.pocket.readers and pocket.pocket.readers[-1])
        source.feed(b"x")
        assert b"200 OK" in connection.recv(1000)
        connection.close()
        wait_for(lambda: source.closed, what="the end of the reader")
        pocket.pocket.readers.clear()


@pytest.mark.parametrize("url", TAKE_URLS)
def test_wishes_reach_the_filesystem(pocket: Any, url: str) -> None:
    more = "&" if "?" in url else "?"
    assert call(pocket, "GET", f"{url}{more}wait=30s&ack=60s&stream=false&other=1").status == 200
    assert pocket.pocket.wishes == [{"wait": "30s", "ack": "60s"}]


@pytest.mark.parametrize("query, body, left", [
    ("offset=1", b"", 2), ("offset=0", b"one", 1), ("offset=0&size=1", b"one", 1), ("size=0", b"one", 1),
    ("stream=true", b"one", 1)])
def test_offset_and_size_never_tear_a_message(pocket: Any, query: str, body: bytes, left: int) -> None:
    answer = call(pocket, "GET", "/api/v1/files?path=/p/take&" + query)
    assert (answer.status, answer.body, len(pocket.pocket.messages)) == (200, body, left)


def test_a_place_to_write_to(pocket: Any) -> None:
    """PUT and POST are writes there, and what the filesystem says of them reaches the client."""
    for number, method in enumerate(("PUT", "POST"), 1):
        answer = ask(pocket, method, "/v1/files/p/drop", b"body", status=200)
        assert answer.json()["message"] == f"id-{number} é" and answer.json()["path"] == "/p/drop"
        assert answer.headers["x-callfs-message"] == f"id-{number} %C3%A9"
    assert call(pocket, "PUT", "/api/v1/files?path=/p/drop", b"body", AS_BOB).json() == {"message": "id-3 é"}
    with RawWebSocket(pocket, "/v1/files/ws/p/drop?mode=upload") as peer:
        peer.send(b"body")
        peer.send(b"")
        assert peer.receive() == (1, b"ok:4")
    assert pocket.pocket.dropped == [b"body"] * 4
    ask(pocket, "POST", "/v1/files/p/plain", b"body", status=409)
    assert call(pocket, "POST", "/api/v1/files?path=/p/drop").status == 409     # creates, and writes nothing
    for url in ("/v1/files/p/drop", "/api/v1/files?path=/p/drop"):
        assert call(pocket, "GET", url).status == 403
    assert len(pocket.pocket.dropped) == 4


def test_a_file_of_somebody_is_no_place_to_write_to(rest: Any) -> None:
    """Whoever takes all rights to read off a file still keeps it from being written over by POST."""
    put_file(rest, "/f", b"kept")
    rest.tree.chmod(callfs.ROOT, "/f", 0o200)
    ask(rest, "POST", "/v1/files/f", b"other", status=409)
    assert get_file(rest, "/f") == b"kept"


SLOW_REQUESTS = [
    ("GET", "/v1/files/p/plain"), ("HEAD", "/v1/files/p/plain"), ("GET", "/v1/files/p"), ("DELETE", "/v1/files/p/plain"),
    ("GET", "/v1/directories/p"), ("GET", "/v1/files/p/?archive=zip"), ("GET", "/api/v1/files?path=/p/plain"),
    ("GET", "/api/v1/stat?path=/p/plain"), ("GET", "/api/v1/directories?path=/p"), ("POST", "/api/v1/touch?path=/p/x"),
    ("POST", "/v1/files/p/x/"), ("GET", "/v1/files/ws/p/plain"),
]


@pytest.mark.parametrize("method, url", SLOW_REQUESTS, ids=[" ".join(row) for row in SLOW_REQUESTS])
def test_slow_filesystems_hold_nobody_up(pocket: Any, monkeypatch: pytest.MonkeyPatch, method: str, url: str) -> None:
    """More slow requests than threads that poll, and the next one is answered at once."""
    monkeypatch.setattr(PocketFS, "slow", True)
    pocket.pocket.gate.clear()
    waiting = [raw_socket(pocket.url) for _ in range(pocket.config.server.workers + 1)]
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode()} if "/ws/" in url else {}
    try:
        for connection in waiting:
            connection.sendall(head_of(method, url, upgrade))
        for _ in range(3):
            ask(pocket, "GET", "/health", status=200, timeout=5)
        put_file(pocket, "/store", b"x")
        assert call(pocket, "GET", "/api/v1/files?path=/store", timeout=5).body == b"x"
    finally:
        pocket.pocket.gate.set()
    for connection in waiting:
        assert connection.recv(1000).startswith(b"HTTP/1.1 ")
        connection.close()


# ============================================================================
# httpfs: a folder on a port of its own
# ============================================================================


class Web(NamedTuple):
    """A server, a client of it, and where its folder /d is served."""

    server: Any
    client: callfs.PFSClient
    url: str


@pytest.fixture
def web(serve: Any) -> Iterator[Web]:
    server = serve()
    with callfs.PFSClient(server.url, server.key) as client:
        client.write("/d/a.bin", bytes(range(256)) * 4)
        client.write("/d/README.md", b"# hello <b>")
        client.mount("httpfs", "/web", {"pfs_path": "/d", "http_port": "0"})
        yield Web(server, client, client.stat("/web").meta["Content"]["url"].rstrip("/"))


def test_httpfs_status_file(web: Web) -> None:
    info, text = web.client.stat("/web"), web.client.read("/web").decode()
    port = web.url.rpartition(":")[2]
    assert not info.is_dir and info.meta["Name"] == "httpfs" and info.meta["Content"]["port"] == port != "0"
    for line in ("HTTPFS Instance Status", "Virtual Path: /web", "PFS Source Path: /d", f"HTTP Port: {port}",
                 "Server Status: Running", "Uptime: ", f"curl http://localhost:{port}/", "host=0.0.0.0"):
        assert line in text
    assert [each.is_dir for each in web.client.list("/") if each.name == "web"] == [False]
    with pytest.raises(callfs.CallFSError):
        web.client.write("/web", b"x")


def test_httpfs_gives_files(web: Web) -> None:
    whole = call(web.url, "GET", "/a.bin")
    assert whole.body == bytes(range(256)) * 4 and whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["content-disposition"].startswith("attachment") and "sandbox" in whole.headers["content-security-policy"]
    part = call(web.url, "GET", "/a.bin", headers={"Range": "bytes=1-3"})
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"\1\2\3", "bytes 1-3/1024")
    assert call(web.url, "GET", "/a.bin", headers={"Range": "bytes=9999-"}).status == 416
    assert call(web.url, "GET", "/a.bin", headers={"If-None-Match": whole.headers["etag"]}).status == 304
    head = call(web.url, "HEAD", "/a.bin")
    assert (head.headers["content-length"], head.body) == ("1024", b"")
    readme = call(web.url, "GET", "/README.md")
    assert readme.headers["content-type"] == "text/plain; charset=utf-8" and "content-disposition" not in readme.headers
    assert readme.headers["x-content-type-options"] == "nosniff" and readme.body == b"# hello <b>"
    assert call(web.url, "GET", "/nope").status == 404 and call(web.url, "GET", "/a.bin/").status == 404


@pytest.mark.parametrize("name, kind", [
    ("x.png", "image/png"), ("x.JPG", "image/jpeg"), ("x.txt", "text/plain; charset=utf-8"), ("README", "text/plain; charset=utf-8"),
    ("x.html", ""), ("x.svg", ""), ("x.js", ""), ("x.pdf", ""), ("x", ""), ("readme", ""),
])
def test_httpfs_shows_only_what_is_never_active(name: str, kind: str) -> None:
    assert callfs.shown_type(name) == kind


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_httpfs_only_reads(web: Web, method: str) -> None:
    refused = call(web.url, method, "/a.bin", b"x")
    assert refused.status == 405 and refused.headers["allow"] == "GET, HEAD, OPTIONS"
    assert len(web.client.read("/d/a.bin")) == 1024


HOSTILE_NAMES = ['<script>alert(1)</script>', '"onclick="x', "javascript:alert(1)", "a&amp;b", "100%2f", "?q#h", "ümlaut ☃"]


def test_httpfs_pages(web: Web) -> None:
    for name in HOSTILE_NAMES:
        web.client.write(f"/d/sub/{name.replace('/', '_')}", b"hi")
    for number in range(200):
        web.client.write(f"/d/sub/n{number:03}", b"x" * number)
    page = call(web.url, "GET", "/sub/")
    assert page.headers["content-type"] == "text/html; charset=utf-8" and "<script" not in page.body.decode()
    style = re.search("<style>(.*?)</style>", page.body.decode(), re.S)[1].encode()      # type: ignore[index]
    policy = page.headers["content-security-policy"]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style).digest()).decode()}'" in policy and "default-src 'none'" in policy
    assert "unsafe" not in policy and page.body.decode().count("<tr>") == 1 + 1 + 200 + len(HOSTILE_NAMES)
    links = re.findall(r'href="([^"]*)"', page.body.decode())
    names = [urllib.parse.unquote(link[2:]) for link in links[1:]]
    assert links[0] == "../" and names == sorted(names) and all(link.startswith("./") for link in links[1:])
    for link, name in zip(links[1:], names):                        # every link leads to its file
        if not name.startswith("n"):
            assert call(web.url, "GET", "/sub/" + link).body == b"hi"
    head = call(web.url, "HEAD", "/sub/")
    assert head.status == 200 and head.body == b"" and head.headers["content-length"] == str(len(page.body))
    assert "../" not in call(web.url, "GET", "/").body.decode()


@pytest.mark.parametrize("target, status, location", [
    ("/sub", 301, "/sub/"), ("//sub", 301, "/sub/"), ("///sub", 301, "/sub/"), ("/%2fsub", 301, "/sub/"),
    ("/./sub", 301, "/sub/"), ("/sub/../sub", 301, "/sub/"), ("/../web", 400, ""), ("/%2e%2e/web", 400, ""),
    ("/..%2fweb", 400, ""), ("/sub%0d%0aX:y", 400, ""), ("/%5c%5chost", 400, ""), ("/sub/", 200, ""), ("//", 200, ""),
    ("/%ff", 400, ""),
])
def test_httpfs_paths(web: Web, target: str, status: int, location: str) -> None:
    web.client.mkdir("/d/sub")
    found = call(web.url, "GET", target)
    assert found.status == status and found.headers.get("location", "") == location


class TakingFS(callfs.HelloFS):
    """A queue: reading `hello` takes something out; `in` is only written to."""

    taken = 0

    def open(self, path: str, wish: Any = callfs.NO_WISH) -> Any:
        if path == "/in":
            return callfs.MemoryHandle(callfs.Entry(path, mode=0o222), b"secret")
        handle = super().open(path)

        def take() -> callfs.Reader:
            self.taken += 1
            return callfs.ChunkReader((b"message",))
        return handle if handle.entry.is_dir else callfs.LiveHandle(handle.entry, take, consumes=True)

    def list(self, path: str, after: str = "") -> Any:
        return iter([self.open("/hello").entry, self.open("/in").entry])


def test_httpfs_takes_nothing_out(web: Web) -> None:
    queue = TakingFS(None, None)            # type: ignore[arg-type]
    web.server.tree.mount("/d/q", queue)
    assert "hello" in call(web.url, "GET", "/q/").body.decode()
    for method in ("GET", "HEAD"):
        assert call(web.url, method, "/q/hello").status == 403 and call(web.url, method, "/q/in").status == 403
    assert "takes something out" in call(web.url, "GET", "/q/hello").body.decode() and queue.taken == 0


def test_httpfs_answers_to_its_names_only(web: Web) -> None:
    port = web.url.rpartition(":")[2]
    for host, status in ((f"localhost:{port}", 200), (f"127.0.0.1:{port}", 200), ("evil.example", 421)):
        assert call(web.url, "GET", "/", headers={"Host": host}).status == status


def test_httpfs_instances_ports_and_what_is_left(serve: Any) -> None:
    server = serve()
    with callfs.PFSClient(server.url, server.key) as client:
        client.write("/a/x", b"in a")
        client.write("/b/x", b"in b")
        with nothing_left():
            urls = []
            for name in "ab":
                client.mount("httpfs", f"/web-{name}", {"pfs_path": f"/{name}", "port": 0})
                urls.append(client.stat(f"/web-{name}").meta["Content"]["url"].rstrip("/"))
                assert call(urls[-1], "GET", "/x").body.decode() == f"in {name}"
            port = int(urls[0].rpartition(":")[2])
            with pytest.raises(callfs.Conflict, match="in use"):
                client.mount("httpfs", "/again", {"pfs_path": "/a", "http_port": port})
            assert "/again" not in [mount["path"] for mount in client.mounts()]
            with raw_socket(urls[0]) as idle:
                idle.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert idle.recv(99)
                client.unmount("/web-a")
                assert wait_for(lambda: not idle.recv(9999), what="the connection to end")
            with pytest.raises(OSError):
                call(urls[0], "GET", "/x")
            client.mount("httpfs", "/again", {"pfs_path": "/b", "http_port": str(port)})       # the port is free again
            assert call(urls[0], "GET", "/x").body.decode() == call(urls[1], "GET", "/x").body.decode() == "in b"
            for path in ("/again", "/web-b"):
                client.unmount(path)


@pytest.mark.parametrize("config, word", [
    ({"http_port": 0}, "pfs_path"), ({"pfs_path": "d"}, "pfs_path"), ({"pfs_path": "/d", "port": 65536}, "port"),
    ({"pfs_path": "/d", "port": "x"}, "port"), ({"pfs_path": "/d", "port": 1, "http_port": 2}, "same option"),
])
def test_httpfs_refuses(serve: Any, config: dict[str, Any], word: str) -> None:
    server = serve()
    with callfs.PFSClient(server.url, server.key) as client:
        with pytest.raises(callfs.BadRequest, match=word):
            client.mount("httpfs", "/web", config)
        with pytest.raises(callfs.Unavailable, match="address"):
            client.mount("httpfs", "/web", {"pfs_path": "/", "host": "203.0.113.1"})


def test_httpfs_ends_with_the_server(tmp_path: Path) -> None:
    with nothing_left():
        with callfs.Server(root=tmp_path) as server, callfs.PFSClient(server.url, server.key) as client:
            client.mount("httpfs", "/web", {"pfs_path": "/", "port": 0})
            url = client.stat("/web").meta["Content"]["url"].rstrip("/")
            assert call(url, "GET", "/web").body.decode().startswith("HTTPFS")      # it shows itself as the file that it is
        with pytest.raises(OSError):
            call(url, "GET", "/")


@pytest.mark.parametrize("program, arguments", [
    ("curl", ["-sSf", "-r", "0-", "-o", "got"]), ("wget", ["-q", "-O", "got"]),
    ("aria2c", ["-q", "-x", "4", "-s", "4", "--min-split-size=1M", "-o", "got"]),
])
def test_httpfs_with_programs(web: Web, tmp_path: Path, program: str, arguments: list[str]) -> None:
    path, data = need_program(program), os.urandom(5 << 20)
    web.client.write("/d/big.bin", data)
    subprocess.run([path, *arguments, web.url + "/big.bin"], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "got").read_bytes() == data


# ============================================================================
# Download links
# ============================================================================

def make_link(rest: Any, path: str = "/f", headers: Mapping[str, Optional[str]] = {}, **wish: Any) -> dict[str, Any]:
    """The answer of a link that was made."""
    return ask(rest, "POST", "/v1/links/generate", {"path": path, "expiry_seconds": 60, **wish}, headers, 201).json()


@pytest.fixture
def linked(rest: Any) -> Any:
    """A server with ann's /f."""
    put_file(rest, "/f", b"linked")
    return rest


def test_link_once(linked: Any) -> None:
    made = make_link(linked)
    assert made["expires"] == made["expires_at"] and RFC3339.fullmatch(made["expires"])
    left = datetime.datetime.fromisoformat(made["expires"].replace("Z", "+00:00")).timestamp() - time.time()
    assert 50 < left <= 60 and made["url"].endswith("/download/" + made["token"]) and made["url"].startswith(linked.url)
    random_part, signature = made["token"].split(".")
    assert len(base64.urlsafe_b64decode(random_part + "==")) == 16 and len(base64.urlsafe_b64decode(signature + "=")) == 32
    for _ in range(2):
        head = ask(linked, "HEAD", "/download/" + made["token"], headers=NO_KEY, status=200)
        assert head.headers["content-length"] == "6"
    answer = ask(linked, "GET", "/download/" + made["token"], headers=NO_KEY, status=200)
    assert answer.body == b"linked" and answer.headers["content-disposition"] == "attachment; filename=\"f\"; filename*=UTF-8''f"
    assert answer.headers["cache-control"] == "no-store" and answer.headers["content-type"] == "application/octet-stream"
    for method in ("GET", "HEAD"):
        gone = ask(linked, method, "/download/" + made["token"], headers=NO_KEY, status=410)
    assert method == "HEAD" or gone.json()["code"] == "LINK_GONE"


def test_link_url_is_the_external_one(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(server__external_url="https://files.example/base/")
    put_file(rest, "/f", b"x")
    made = make_link(rest)
    assert made["url"] == "https://files.example/base/download/" + made["token"]


@pytest.mark.parametrize("wish, status", [
    ({"path": "/f", "expiry_seconds": 1}, 201), ({"path": "/f", "expiry_seconds": 86400}, 201), ({"path": "f", "expiry_seconds": 9}, 201),
    ({"path": "/f", "expiry_seconds": 0}, 400), ({"path": "/f", "expiry_seconds": 86401}, 400), ({"path": "/f", "expiry_seconds": -1}, 400),
    ({"path": "/f"}, 400), ({"path": "/f", "expiry_seconds": "60"}, 400), ({"path": "/f", "expiry_seconds": 1.5}, 400),
    ({"path": "/f", "expiry_seconds": True}, 400), ({"path": "/f", "expiry_seconds": None}, 400), ({"expiry_seconds": 60}, 400),
    ({"path": "", "expiry_seconds": 60}, 400), ({"path": 5, "expiry_seconds": 60}, 400), ({"path": "/../f", "expiry_seconds": 60}, 400),
    ({"path": "/a\\b", "expiry_seconds": 60}, 400), ({"path": "/none", "expiry_seconds": 60}, 404), ({"path": "/", "expiry_seconds": 60}, 400),
    ({"path": "/.callfs/secrets.json", "expiry_seconds": 60}, 404), ({"path": "/f", "expiry_seconds": 60, "max_uses": 0}, 400),
    ({"path": "/f", "expiry_seconds": 60, "max_uses": 3}, 201), ({"path": "/f", "expiry_seconds": 60, "max_uses": "3"}, 400),
    (b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b'{"path": "/f", "expiry_seconds": 60}' + b" " * 4096, 413),
    (b'{"path": "/f", "expiry_seconds": 1e2}', 400),
])
def test_link_wishes(linked: Any, wish: Any, status: int) -> None:
    ask(linked, "POST", "/v1/links/generate", wish, status=status)


@pytest.mark.parametrize("uses", [1, 3])
def test_link_of_n_downloads_at_once_exactly_max_uses_succeed(linked: Any, uses: int) -> None:
    for _ in range(5):
        token = make_link(linked, max_uses=uses)["token"]
        answers = all_at_once(10, lambda number: call(linked.url, "GET", "/download/" + token))
        assert sorted(answer.status for answer in answers) == [200] * uses + [410] * (10 - uses)
        assert all(answer.body == b"linked" for answer in answers if answer.status == 200)


def test_link_is_used_by_bytes_only(linked: Any) -> None:
    """What sends no byte of the file uses nothing: conditions, ranges that miss."""
    token = make_link(linked)["token"]
    etag = ask(linked, "HEAD", "/v1/files/f").headers["etag"]
    for headers, status in (({"If-None-Match": etag}, 304), ({"If-Match": '"x"'}, 412), ({"Range": "bytes=100-"}, 416)):
        ask(linked, "GET", "/download/" + token, headers=headers, status=status)
    assert ask(linked, "GET", "/download/" + token, headers={"Range": "bytes=1-2"}, status=206).body == b"in"
    ask(linked, "GET", "/download/" + token, status=410)


def test_link_expires_and_is_swept(linked: Any) -> None:
    now = [time.time()]
    linked._links._clock = lambda: now[0]
    made = [make_link(linked, expiry_seconds=seconds)["token"] for seconds in (10, 100)]
    now[0] += 9.0
    ask(linked, "HEAD", "/download/" + made[0], status=200)
    now[0] += 2.0
    ask(linked, "GET", "/download/" + made[0], status=410)
    assert linked._store.sweep_links(now[0]) == 1
    ask(linked, "GET", "/download/" + made[0], status=404)
    ask(linked, "GET", "/download/" + made[1], status=200)
    assert linked._store.sweep_links(now[0]) == 1           # used
    ask(linked, "GET", "/download/" + made[1], status=404)


def test_link_is_swept_by_the_server_itself(serve_users: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callfs.Server, "SWEEP_SECONDS", 0)
    rest = serve_users()
    put_file(rest, "/f", b"x")
    rest._links._clock = lambda: time.time() - 1000
    make_link(rest)
    wait_for(lambda: not rest._store.links(None), what="the sweep")


def test_link_leads_to_this_file_and_no_other(linked: Any) -> None:
    token = make_link(linked, max_uses=9)["token"]
    put_file(linked, "/f", b"a new version")
    assert ask(linked, "GET", "/download/" + token, status=200).body == b"a new version"
    ask(linked, "PATCH", "/v1/files/f", {"name": "g"}, status=200)
    ask(linked, "GET", "/download/" + token, status=404)
    ask(linked, "PATCH", "/v1/files/g", {"name": "f"}, status=200)
    ask(linked, "GET", "/download/" + token, status=200)
    ask(linked, "DELETE", "/v1/files/f", status=204)
    ask(linked, "GET", "/download/" + token, status=404)
    put_file(linked, "/f", b"another file", AS_BOB)
    ask(linked, "GET", "/download/" + token, status=404)
    ask(linked, "DELETE", "/v1/files/f", headers=AS_BOB)
    ask(linked, "POST", "/v1/files/f/", status=201)
    ask(linked, "GET", "/download/" + token, status=404)


@pytest.mark.parametrize("change", [
    lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), lambda t: "A" + t[1:] if t[0] != "A" else "B" + t[1:], lambda t: t + "x",
    lambda t: t.split(".")[0], lambda t: t + "/", lambda t: t + "/../f", lambda t: "", lambda t: ".", lambda t: t.replace(".", "%2E") + "x",
    lambda t: "%FF%00", lambda t: "../v1/files/f", lambda t: "x" * 5000, lambda t: t.swapcase(), lambda t: t + "=",
])
def test_link_forged(linked: Any, change: Callable[[str], str]) -> None:
    token = make_link(linked)["token"]
    ask(linked, "GET", "/download/" + change(token), headers=NO_KEY, status=404)
    ask(linked, "GET", "/download/" + token, headers=NO_KEY, status=200)


def test_link_of_another_server_opens_nothing(linked: Any) -> None:
    """A token whose hash got into the database, signed with another secret."""
    forged = callfs.b64url(bytes(16)) + "." + callfs.b64url(bytes(32))
    entry_id = linked.tree.stat(callfs.ROOT, "/f").id
    link = callfs.Link("id", hashlib.sha256(forged.encode()).hexdigest(), "/f", entry_id, "ann", time.time(), time.time() + 60)
    linked._store.add_link(link)
    ask(linked, "GET", "/download/" + forged, status=404)
    assert linked._store.find_link(link.token_hash).uses == 0


def test_link_names_are_encoded(rest: Any) -> None:
    put_file(rest, '/d/é "x;.txt', b"x")
    answer = ask(rest, "GET", "/download/" + make_link(rest, '/d/é "x;.txt')["token"], status=200)
    assert "filename*=UTF-8''%C3%A9%20%22x%3B.txt" in answer.headers["content-disposition"]


def test_links_of_others_are_not_seen_nor_revoked(linked: Any) -> None:
    mine, theirs = make_link(linked), make_link(linked, headers=AS_BOB, max_uses=2)
    call(linked.url, "GET", "/download/" + theirs["token"])
    listed = {name: ask(linked, "GET", "/v1/links", headers=headers, status=200).json()["links"]
              for name, headers in (("ann", AS_ANN), ("bob", AS_BOB), ("all", AS_TRUSTED))}
    assert [[link["id"] for link in listed[name]] for name in ("ann", "bob")] == [[mine["id"]], [theirs["id"]]]
    assert {link["id"] for link in listed["all"]} == {mine["id"], theirs["id"]}
    assert {key: listed["bob"][0][key] for key in ("path", "owner", "max_uses", "uses", "expires_at")} == {
        "path": "/f", "owner": "bob", "max_uses": 2, "uses": 1, "expires_at": theirs["expires"]}
    assert theirs["token"] not in json.dumps(listed) and theirs["token"].split(".")[0] not in json.dumps(listed)
    ask(linked, "DELETE", "/v1/links/" + theirs["id"], headers=AS_ANN, status=404)
    ask(linked, "DELETE", "/v1/links/" + theirs["id"], headers=AS_BOB, status=204)
    ask(linked, "DELETE", "/v1/links/" + theirs["id"], headers=AS_BOB, status=404)
    ask(linked, "GET", "/download/" + theirs["token"], status=404)
    ask(linked, "DELETE", "/v1/links/" + mine["id"], headers=AS_TRUSTED, status=204)


def test_link_rates_count_per_address(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(server__trusted_proxies=["127.0.0.1"], rate_limits__link_rate=0.001, rate_limits__link_burst=2,
                         rate_limits__download_rate=0.001, rate_limits__download_burst=3)
    put_file(rest, "/f", b"x")
    wish = {"path": "/f", "expiry_seconds": 60}
    for address in ("192.0.2.1", "192.0.2.2"):
        sent = {"X-Forwarded-For": address}
        made = [ask(rest, "POST", "/v1/links/generate", wish, sent) for _ in range(3)]
        assert [answer.status for answer in made] == [201, 201, 429] and int(made[2].headers["retry-after"]) > 1
        token = made[0].json()["token"]
        downloads = [ask(rest, method, "/download/" + token, headers=sent) for method in ("HEAD", "GET", "GET", "GET")]
        assert [answer.status for answer in downloads] == [200, 200, 410, 429] and "retry-after" in downloads[3].headers


def test_link_default_rates_are_those_of_the_contract() -> None:
    rates = callfs.Config().rate_limits
    assert (rates.link_rate, rates.link_burst, rates.download_rate, rates.download_burst) == (100, 1, 10, 5)


def test_token_is_nowhere_in_the_database(linked: Any) -> None:
    token = make_link(linked)["token"]
    path = linked.config.metadata_store.sqlite_path
    stored = b"".join(Path(name).read_bytes() for name in (path, path + "-wal") if os.path.exists(name))
    assert hashlib.sha256(token.encode()).hexdigest().encode() in stored
    assert not any(part.encode() in stored for part in token.split("."))


# ============================================================================
# The REST dialect: /v1, /download, /health, /ready, /metrics
# ============================================================================

# ---- files ------------------------------------------------------------------------------------------------------

def test_get_and_head_of_a_file(rest: Any) -> None:
    put_file(rest, "/d/f.txt", b"hello", {"X-OC-Mtime": "1000000000"})
    found = ask(rest, "GET", "/v1/files/d/f.txt", headers=AS_BOB, status=200)
    assert found.body == b"hello"
    wanted = {"content-type": "application/octet-stream", "content-length": "5", "last-modified": "Sun, 09 Sep 2001 01:46:40 GMT",
              "x-callfs-type": "file", "x-callfs-size": "5", "x-callfs-mode": "0644", "x-callfs-owner": "ann",
              "x-callfs-mtime": "2001-09-09T01:46:40Z", "x-callfs-instance-id": "node-1", "accept-ranges": "bytes",
              "repr-digest": "sha-256=:" + base64.b64encode(hashlib.sha256(b"hello").digest()).decode() + ":"}
    assert {name: found.headers.get(name) for name in wanted} == wanted
    assert re.fullmatch(r'"[!#-~]+"', found.headers["etag"])       # strong
    assert "content-disposition" not in found.headers
    for target in ("d/f.txt", "d", "d/", "", "?archive=tar", "none", "f%00"):
        one, other = (ask(rest, method, "/v1/files/" + target) for method in ("GET", "HEAD"))
        for answer in (one, other):
            answer.headers.pop("date"), answer.headers.pop("x-request-id")
        assert (one.status, one.headers) == (other.status, other.headers) and other.body == b""


def test_download_parameter(rest: Any) -> None:
    put_file(rest, "/naïve file.txt", b"x")
    answer = ask(rest, "GET", "/v1/files/" + quoted("naïve file.txt") + "?download=1", status=200)
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["content-disposition"].endswith("filename*=UTF-8''na%C3%AFve%20file.txt")


def test_get_of_a_directory(rest: Any) -> None:
    put_file(rest, "/d/b", b"12")
    put_file(rest, "/d/a", b"1", AS_BOB)
    put_file(rest, "/d/sub/x", b"")
    for path in ("d", "d/"):
        answer = ask(rest, "GET", "/v1/files/" + path, status=200)
        assert answer.headers["content-type"] == "application/json"
        assert {name: answer.headers[name] for name in ("x-callfs-type", "x-callfs-size", "x-callfs-mode", "x-callfs-owner")} == {
            "x-callfs-type": "directory", "x-callfs-size": "0", "x-callfs-mode": "0755", "x-callfs-owner": "ann"}
        entries = answer.json()
        assert all(list(entry) == ["name", "path", "type", "size", "mode", "owner", "mtime"] and RFC3339.fullmatch(entry["mtime"])
                   for entry in entries)
        assert [(e["name"], e["path"], e["type"], e["size"], e["mode"], e["owner"]) for e in entries] == [
            ("a", "/d/a", "file", 1, "0644", "bob"), ("b", "/d/b", "file", 2, "0644", "ann"),
            ("sub", "/d/sub", "directory", 0, "0755", "ann")]
    assert ask(rest, "GET", "/v1/files/d/sub/none", status=404) and ask(rest, "GET", "/v1/files/", status=200).json()[0]["name"] == "d"


def test_slash_means_a_directory(rest: Any) -> None:
    put_file(rest, "/f", b"x")
    for method in ("GET", "HEAD", "DELETE"):
        ask(rest, method, "/v1/files/f/", status=404)
    ask(rest, "PUT", "/v1/files/f/", b"y", status=400)
    ask(rest, "POST", "/v1/files/f/", status=409)
    ask(rest, "PUT", "/v1/files/d/", b"y", status=400)
    ask(rest, "PUT", "/v1/files/", b"y", status=400)
    assert get_file(rest, "/f") == b"x"


def test_post_creates_only(rest: Any) -> None:
    made = ask(rest, "POST", "/v1/files/a/b%20c/f", b"one", status=201)
    assert made.headers["location"] == "/v1/files/a/b%20c/f" and made.json()["path"] == "/a/b c/f"
    assert made.headers["etag"] == ask(rest, "HEAD", "/v1/files/a/b%20c/f").headers["etag"]
    for headers in (AS_ANN, AS_BOB, AS_TRUSTED):
        assert ask(rest, "POST", "/v1/files/a/b%20c/f", b"two", headers, 409).json()["code"] == "FILE_ALREADY_EXISTS"
        ask(rest, "POST", "/v1/files/a", b"two", headers, 409)
    assert get_file(rest, "/a/b c/f") == b"one"


def test_post_with_a_slash_makes_a_directory(rest: Any) -> None:
    assert ask(rest, "POST", "/v1/files/a/b/c/", status=201).json()["type"] == "directory"
    assert ask(rest, "POST", "/v1/files/a/b/c/", headers=AS_BOB, status=200).json()["owner"] == "ann"
    ask(rest, "POST", "/v1/files/", status=200)
    put_file(rest, "/f", b"x")
    ask(rest, "POST", "/v1/files/f/", status=409)
    ask(rest, "POST", "/v1/files/f/below/", status=409)
    ask(rest, "PUT", "/v1/files/f/below", b"x", status=409)


def test_put_creates_and_replaces(rest: Any) -> None:
    first = ask(rest, "PUT", "/v1/files/x/y", b"1", AS_BOB, 201)
    second = ask(rest, "PUT", "/v1/files/x/y", b"22", AS_BOB, 200)
    assert first.headers["etag"] != second.headers["etag"] and "location" not in second.headers
    assert second.json()["size"] == 2 and get_file(rest, "/x/y") == b"22"
    ask(rest, "PUT", "/v1/files/x", b"1", AS_BOB, 400)
    third = ask(rest, "PUT", "/v1/files/x/y", b"333", AS_TRUSTED, 200)
    assert third.json()["owner"] == "bob"   # who creates owns
    ask(rest, "PUT", "/v1/files/x/y", b"1", {"Content-Range": "bytes 0-0/3", **AS_BOB}, 400)


def test_parents_belong_to_the_caller(rest: Any) -> None:
    put_file(rest, "/p/q/f", b"x", AS_BOB)
    put_file(rest, "/p/q/r/g", b"x", AS_ANN)      # everybody signed in creates in directories
    owners = {item["path"]: item["owner"] for item in ask(rest, "GET", "/v1/directories/?recursive=true").json()["items"]}
    assert owners == {"/p": "bob", "/p/q": "bob", "/p/q/f": "bob", "/p/q/r": "ann", "/p/q/r/g": "ann"}


@pytest.mark.parametrize("method, path, body, headers", [
    ("PUT", "/v1/files/d/f", b"x", {}), ("DELETE", "/v1/files/d/f", None, {}), ("DELETE", "/v1/files/d", None, {}),
    ("DELETE", "/v1/files/d?recursive=true", None, {}), ("PATCH", "/v1/files/d/f", {"name": "g"}, {}),
    ("PATCH", "/v1/files/d", {"name": "e"}, {}), ("PATCH", "/v1/files/d/f", b"x", {"RemFS-Offset": "0"}),
    ("PATCH", "/v1/files/bobs", {"destination": "/d/f", "overwrite": True}, {}),
])
def test_only_the_owner_changes(rest: Any, method: str, path: str, body: Any, headers: dict[str, str]) -> None:
    put_file(rest, "/d/f", b"ann's")
    put_file(rest, "/bobs", b"bob's", AS_BOB)
    status = ask(rest, method, path, body, {**headers, **AS_BOB}).status
    assert status == 403 or (path, method) == ("/v1/files/d", "DELETE") and status in (403, 409)
    assert get_file(rest, "/d/f") == b"ann's" and get_file(rest, "/bobs") == b"bob's"
    ask(rest, method, path.replace("/d?", "/d?"), body, {**headers, **AS_TRUSTED}, (200, 204, 409))


NAMES_IN_URLS = ["with space", "a+b", "a@b", "100%", "%41", "%252e", "a#b", "what?", "a;b=c", "a&b=c", "caf\u00e9", "cafe\u0301", "..dots", "...",
             "a..", "Makefile", ".hidden", "con", "nul.txt", "日本語", "😀", "'single'", '"double"', "<b>", "$HOME", "`id`", "~", "-rf", "*",
             "a:b", "a|b", " lead", "trail ", "x" * 255, "é" * 127, "ws", "generate", "index.html", "a,b", "{x}", "[1]", "a=b", "!",
             "\u00ad", "\ufeff", "\u2028", "\u3000", "remfs.json"]


def test_odd_names(rest: Any) -> None:
    for number, name in enumerate(NAMES_IN_URLS):
        for path in (f"/top/{name}", f"/sub/{name}/{name}", f"/ws/{name}"):
            put_file(rest, path, f"{number} {path}".encode())
            assert get_file(rest, path) == f"{number} {path}".encode(), path
            assert ask(rest, "HEAD", "/v1/files" + "".join(f"%{byte:02x}" if byte != 47 else "/" for byte in path.encode())).status == 200
    listed = {item["name"] for item in ask(rest, "GET", "/v1/directories/sub", status=200).json()["items"]}
    assert listed == set(NAMES_IN_URLS)         # two normal forms of one text are two names
    for name in NAMES_IN_URLS:
        assert ask(rest, "GET", "/v1/directories/sub/" + urllib.parse.quote(name, safe=""), status=200).json()["items"][0]["name"] == name
        ask(rest, "DELETE", f"/v1/files/sub/{quoted(name)}?recursive=true", status=204)
    assert ask(rest, "GET", "/v1/directories/sub").json()["items"] == []


@pytest.mark.parametrize("raw_path, path", [
    ("a+b", "/a+b"), ("a%2Bb", "/a+b"), ("a%20b", "/a b"), ("%61", "/a"), ("a//b", "/a/b"), ("./a", "/a"), ("a/./b", "/a/b"), ("x/../a", "/a"),
    ("a%2Fb", "/a/b"), ("%252e%252e", "/%2e%2e"), ("a%2525", "/a%25"), ("ws/a", "/ws/a"), ("w%73/a", "/ws/a"), (".hidden/..x", "/.hidden/..x"),
])
def test_one_spelling_of_a_path(rest: Any, raw_path: str, path: str) -> None:
    assert ask(rest, "PUT", "/v1/files/" + raw_path, b"x", status=201).json()["path"] == path
    assert get_file(rest, path) == b"x"


def test_bytes_beyond_ascii_in_the_request_line(rest: Any) -> None:
    put_file(rest, "/é", b"x")
    assert answer_of(raw(rest.url, head_of("GET", "/v1/files/é".encode().decode("latin-1"), {"Connection": "close"}))).body == b"x"


@pytest.mark.parametrize("condition", ["If-Match", "If-None-Match"])
def test_compare_and_swap_lets_exactly_one_win(rest: Any, condition: str) -> None:
    for turn in range(8):
        path = "/v1/files/cas" if condition == "If-Match" else f"/v1/files/new-{turn}"
        if condition == "If-Match":
            put_file(rest, "/cas", b"start")
        tag = ask(rest, "HEAD", path).headers.get("etag", "") if condition == "If-Match" else "*"
        answers = all_at_once(8, lambda number: ask(rest, "PUT", path, f"writer {number}".encode() * 500, {condition: tag}))
        won = [number for number, answer in enumerate(answers) if answer.status in (200, 201)]
        assert len(won) == 1 and {answer.status for answer in answers} <= {200, 201, 412}
        found = ask(rest, "GET", path)
        assert found.body == f"writer {won[0]}".encode() * 500 and found.headers["etag"] == answers[won[0]].headers["etag"]


@pytest.mark.parametrize("path, there", [("/new", False), ("/dir/new", False), ("/old", True)])
def test_nobody_sees_a_new_file_as_somebody_elses(rest: Any, monkeypatch: pytest.MonkeyPatch, path: str, there: bool) -> None:
    """Between the rename and the commit of its record a file has neither another owner nor another ETag."""
    if there:
        put_file(rest, path, b"old")
    else:
        put_file(rest, "/dir/beside", b"")
    reached, gate, real = threading.Event(), threading.Event(), rest._store.put

    def slow(entry: Any) -> Any:
        reached.set()
        assert gate.wait(30)
        return real(entry)
    monkeypatch.setattr(rest._store, "put", slow)
    answers: list[Answer] = []
    writer = threading.Thread(target=lambda: answers.append(put_file(rest, path, b"new")))
    writer.start()
    try:
        assert reached.wait(10)
        seen = ask(rest, "HEAD", "/v1/files" + path, status=(200, 404))
        listed = [item["owner"] for item in ask(rest, "GET", "/v1/directories/?recursive=true", status=200).json()["items"]]
        swap = ask(rest, "PUT", "/v1/files" + path, b"x", {"If-None-Match": "*"}, status=412)
    finally:
        gate.set()
        writer.join()
    assert seen.status == 404 or (seen.headers["x-callfs-owner"], seen.headers["etag"]) == ("ann", answers[0].headers["etag"])
    assert set(listed) == {"ann"} and swap.json()["code"] == "PRECONDITION_FAILED"
    assert get_file(rest, path) == b"new" and ask(rest, "HEAD", "/v1/files" + path).headers["x-callfs-owner"] == "ann"


def test_post_at_once_creates_once(rest: Any) -> None:
    for turn in range(5):
        answers = all_at_once(8, lambda number: ask(rest, "POST", f"/v1/files/deep/{turn}/f", str(number).encode()))
        assert sorted(answer.status for answer in answers) == [201] + [409] * 7
        assert get_file(rest, f"/deep/{turn}/f") == str([a.status for a in answers].index(201)).encode()


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 262144, 262145, 3_000_000])
def test_upload_chunked_and_with_a_length(rest: Any, size: int) -> None:
    data = os.urandom(size)
    ask(rest, "PUT", "/v1/files/a", data, status=201)
    ask(rest, "PUT", "/v1/files/b", iter([data[:100], data[100:70_000], data[70_000:]]), status=201)
    for path in ("/a", "/b"):
        assert get_file(rest, path) == data
    assert not scratch_of(rest)


EXPECTS = [                                 # method, path, more headers, key, status: all answered without the body
    ("PUT", "/v1/files/x", {"Content-Length": "5"}, "", 401), ("PUT", "/v1/files/x", {"Content-Length": "5"}, "wrong-key-0123456789", 401),
    ("PUT", "/v1/files/f", {"Content-Length": "5"}, USERS["bob"], 403), ("PUT", "/v1/nothing", {"Content-Length": "5"}, USERS["ann"], 404),
    ("PATCH", "/v1/files/none", {"Content-Length": "5", "RemFS-Offset": "0"}, USERS["ann"], 404),
    ("POST", "/v1/files/f", {"Content-Length": "5"}, USERS["ann"], 409), ("POST", "/v1/files/f", {"Transfer-Encoding": "chunked"}, USERS["ann"], 409),
    ("PUT", "/v1/files/x", {"Content-Length": "2001"}, USERS["ann"], 413), ("PUT", "/v1/files/x", {"Content-Length": "9" * 15}, USERS["ann"], 413),
    ("PUT", "/v1/files/..%2Fx", {"Content-Length": "5"}, USERS["ann"], 400), ("PUT", "/v1/files/d", {"Content-Length": "5"}, USERS["ann"], 400),
    ("PUT", "/v1/files/.callfs/x", {"Content-Length": "5"}, USERS["ann"], 403), ("BREW", "/v1/files/x", {"Content-Length": "5"}, USERS["ann"], 405),
    ("PUT", "/v1/files/f", {"Content-Length": "5", "If-Match": '"x"'}, USERS["ann"], 412),
    ("PUT", "/v1/files/f", {"Content-Length": "5", "If-None-Match": "*"}, USERS["ann"], 412),
    ("PUT", "/v1/files/x", {"Content-Length": "5", "Content-Digest": "sha-256=x"}, USERS["ann"], 400),
    ("PUT", "/v1/files/x", {"Content-Length": "5", "Content-Digest": f"sha-256=:{'A' * 43}=:", "Repr-Digest": f"sha-256=:{'B' * 43}=:"},
     USERS["ann"], 400),
    ("PATCH", "/v1/files/f", {"Content-Length": "5", "RemFS-Offset": "9"}, USERS["ann"], 416),
    ("POST", "/v1/links/generate", {"Content-Length": "5000"}, USERS["ann"], 413),
    ("PATCH", "/v1/files/f", {"Content-Length": str(1 << 21)}, USERS["ann"], 413),
]


@pytest.mark.parametrize("method, path, headers, key, status", EXPECTS)
def test_expect_100_is_answered_after_the_checks(small: Any, method: str, path: str, headers: Any, key: str, status: int) -> None:
    put_file(small, "/f", b"hello")
    answer = answer_of(raw(small.url, head_of(method, path, {"Expect": "100-continue", **headers}, key)))
    assert answer.status == status, answer
    check_answer(answer)
    assert get_file(small, "/f") == b"hello"


def test_expect_100_when_the_disk_is_full(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(storage__min_free_bytes=1 << 60)
    answer = answer_of(raw(rest.url, head_of("PUT", "/v1/files/x", {"Expect": "100-continue", "Content-Length": "5"})))
    assert answer.status == 507


def test_expect_100_when_all_is_well(rest: Any) -> None:
    with contextlib.closing(raw_socket(rest.url)) as connection:
        connection.sendall(head_of("PUT", "/v1/files/x", {"Expect": "100-continue", "Content-Length": "5", "Connection": "close"}))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"hello")
        answer = answer_of(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert answer.status == 201 and get_file(rest, "/x") == b"hello"


@pytest.mark.parametrize("headers, body", [
    ({"Content-Length": "100"}, b"x" * 10), ({"Content-Length": "100"}, b""), ({"Content-Length": "900000"}, b"x" * 600_000),
    ({"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n"), ({"Transfer-Encoding": "chunked"}, b"5\r\nhel"),
    ({"Transfer-Encoding": "chunked"}, b"5\r\nhelloXX0\r\n\r\n"), ({"Transfer-Encoding": "chunked"}, b"zz\r\n"),
])
@pytest.mark.parametrize("method, there", [("PUT", True), ("PUT", False), ("POST", False)])
def test_cut_upload_changes_nothing(rest: Any, headers: dict[str, str], body: bytes, method: str, there: bool) -> None:
    etag = put_file(rest, "/f", b"old").headers["etag"] if there else None
    raw(rest.url, head_of(method, "/v1/files/f", headers) + body, half_close=True)
    if there:
        assert get_file(rest, "/f") == b"old" and ask(rest, "HEAD", "/v1/files/f").headers["etag"] == etag
    else:
        ask(rest, "GET", "/v1/files/f", status=404)
    wait_for(lambda: not scratch_of(rest), what="the scratch to be empty")
    put_file(rest, "/f", b"new")


def test_upload_limit_both_ways(small: Any) -> None:
    put_file(small, "/g", b"x" * 2000)
    ask(small, "PUT", "/v1/files/f.txt", b"x" * 2001, status=413)
    ask(small, "PUT", "/v1/files/f.txt", iter([b"x" * 1999, b"xx"]), status=413)
    ask(small, "PUT", "/v1/files/new", iter([b"x" * 2001]), status=413)
    assert get_file(small, "/f.txt") == b"hello" and not scratch_of(small)
    ask(small, "GET", "/v1/files/new", status=404)
    ask(small, "PUT", "/v1/files/new", iter([b"x" * 1999, b"x"]), status=201)


def digest_header(data: bytes) -> str:
    """RFC 9530."""
    return "sha-256=:" + base64.b64encode(hashlib.sha256(data).digest()).decode() + ":"


@pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize("value, status", [
    (digest_header(b"new"), 200), ("sha-512=:AAAA:, " + digest_header(b"new"), 200), ("md5=:AAAA:", 200), ("", 200),
    (digest_header(b"other"), 400), ("sha-256=:AAAA:", 400), ("sha-256=" + hashlib.sha256(b"new").hexdigest(), 400),
    ("sha-256=:" + "!" * 43 + "=:", 400), (digest_header(b"new")[:-1], 400),
])
def test_digest(rest: Any, name: str, value: str, status: int) -> None:
    put_file(rest, "/f", b"old")
    for body in (b"new", iter([b"n", b"ew"])):
        ask(rest, "PUT", "/v1/files/f", body, {name: value}, status)
        assert get_file(rest, "/f") == (b"new" if status == 200 else b"old") and not scratch_of(rest)


def test_two_digests_that_differ(rest: Any) -> None:
    both = {"Content-Digest": digest_header(b"new"), "Repr-Digest": digest_header(b"other")}
    ask(rest, "PUT", "/v1/files/f", b"new", both, 400)
    ask(rest, "PUT", "/v1/files/f", b"new", {name: digest_header(b"new") for name in both}, 201)


@pytest.mark.parametrize("value, shown", [
    ("1000000000", "2001-09-09T01:46:40Z"), ("0", "1970-01-01T00:00:00Z"), ("1000000000.5", "2001-09-09T01:46:40Z"),
    ("-1", None), ("x", None), ("1e9", None), ("", None), ("9" * 20, None),
])
def test_modification_time_is_kept(rest: Any, value: str, shown: Optional[str]) -> None:
    answer = ask(rest, "PUT", "/v1/files/f", b"x", {"X-OC-Mtime": value}, 201 if shown else 400)
    if shown:
        assert answer.json()["mtime"] == shown == ask(rest, "HEAD", "/v1/files/f").headers["x-callfs-mtime"]


@pytest.mark.parametrize("query, headers, status", [
    ("?erasure=true", {}, 400), ("?erasure=true&data_shards=4&parity_shards=2", {}, 400), ("", {"X-CallFS-Erasure": "true"}, 400),
    ("?erasure=true", {"X-CallFS-Erasure": "false"}, 201), ("?erasure=false", {}, 201), ("?backend=s3", {}, 501),
    ("?backend=localfs", {}, 201), ("", {"X-CallFS-Backend": "tape"}, 501), ("?backend=s3", {"X-CallFS-Backend": "localfs"}, 201),
])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_placement_that_is_not_there(rest: Any, method: str, query: str, headers: dict[str, str], status: int) -> None:
    ask(rest, method, "/v1/files/f" + query, b"x", headers, status)
    ask(rest, "GET", "/v1/files/f", status=200 if status == 201 else 404)


def test_manifest_of_a_plain_file(rest: Any) -> None:
    put_file(rest, "/f", b"x")
    ask(rest, "GET", "/v1/files/f?manifest=true", status=404)
    ask(rest, "GET", "/v1/files/none?manifest=true", status=404)
    ask(rest, "GET", "/v1/files/f?manifest=false", status=200)


# ---- writing at an offset ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("offset, status, left", [
    ("0", 200, b"NEW3456789"), ("4", 200, b"0123NEW789"), ("7", 200, b"0123456NEW"), ("9", 200, b"012345678NEW"), ("10", 200, b"0123456789NEW"),
    ("11", 416, TEN), ("99999999999", 416, TEN), ("-1", 400, TEN), ("", 400, TEN), ("x", 400, TEN), ("1.0", 400, TEN), ("+1", 400, TEN),
    ("0x1", 400, TEN), ("9" * 30, 400, TEN), ("\u0661".encode().decode("latin-1"), 400, TEN), ("007", 200, b"0123456NEW"),
])
@pytest.mark.parametrize("chunked", [False, True])
def test_patch_at_an_offset(ten: Any, offset: str, status: int, left: bytes, chunked: bool) -> None:
    before = ask(ten, "HEAD", "/v1/files/ten").headers
    answer = ask(ten, "PATCH", "/v1/files/ten", iter([b"N", b"EW"]) if chunked else b"NEW", {"RemFS-Offset": offset}, status)
    after = ask(ten, "GET", "/v1/files/ten", status=200)
    assert after.body == left and (after.headers["etag"] == before["etag"]) == (status != 200)
    if status == 416:
        assert answer.headers["content-range"] == "bytes */10"
    if status == 200:
        assert answer.headers["etag"] == after.headers["etag"] and answer.json()["size"] == len(left)
        assert after.headers.get("repr-digest", digest_header(left)) == digest_header(left)      # never a stale one


def test_patch_needs_a_file(ten: Any) -> None:
    ask(ten, "PATCH", "/v1/files/none", b"x", {"RemFS-Offset": "0"}, 404)
    ask(ten, "PATCH", "/v1/files/", b"x", {"RemFS-Offset": "0"}, 400)
    ask(ten, "PATCH", "/v1/files/ten", b"x", {"RemFS-Offset": "0", **AS_BOB}, 403)


@pytest.mark.parametrize("offset", [10, 4])
def test_patch_that_is_cut_stays_as_a_prefix_and_is_resumed(ten: Any, offset: int) -> None:
    body = b"abcdefghijklmnopqrst"
    raw(ten.url, head_of("PATCH", "/v1/files/ten", {"RemFS-Offset": str(offset), "Content-Length": "20"}) + body[:7], half_close=True)
    size = wait_for(lambda: (n := int(ask(ten, "HEAD", "/v1/files/ten").headers["content-length"])) > 10 and n, what="what arrived")
    assert size == offset + 7 and get_file(ten, "/ten") == TEN[:offset] + body[:7]
    ask(ten, "PATCH", "/v1/files/ten", body[7:], {"RemFS-Offset": str(size)}, 200)
    assert get_file(ten, "/ten") == TEN[:offset] + body and not scratch_of(ten)


# ---- rename and move --------------------------------------------------------------------------------------------

MOVES = [                                   # source, body, query, status, new path
    ("f", {"name": "g"}, "", 200, "/g"), ("d/x", {"name": "y"}, "", 200, "/d/y"), ("d", {"name": "e"}, "", 200, "/e"),
    ("d/", {"name": "e"}, "", 200, "/e"), ("f", {"destination": "/d/f"}, "", 200, "/d/f"),
    ("f", {"destination": "/new/deep/f", "create_parents": True}, "", 200, "/new/deep/f"),
    ("f", {"destination": "/new/f"}, "?create_parents=true", 200, "/new/f"), ("f", {"destination": "//d/./f"}, "", 200, "/d/f"),
    ("f", {"destination": "/d/x", "overwrite": True}, "", 200, "/d/x"), ("f", {"destination": "/d/x"}, "?overwrite=true", 200, "/d/x"),
    ("f", {"name": "g", "backend": "localfs", "instance": "node-1"}, "", 200, "/g"), ("f", {"name": "%2e%2e"}, "", 200, "/%2e%2e"),
    ("f", {}, "", 400, ""), ("f", {"name": "g", "destination": "/h"}, "", 400, ""), ("f", {"name": ""}, "", 400, ""),
    ("f", {"name": "a/b"}, "", 400, ""), ("f", {"name": "."}, "", 400, ""), ("f", {"name": ".."}, "", 400, ""), ("f", {"name": 5}, "", 400, ""),
    ("f", {"name": None}, "", 400, ""), ("f", {"destination": "g"}, "", 400, ""), ("f", {"destination": ""}, "", 400, ""),
    ("f", {"destination": "/../g"}, "", 400, ""), ("f", {"destination": ["/g"]}, "", 400, ""), ("f", {"name": "g", "overwrite": "yes"}, "", 400, ""),
    ("f", {"name": "g", "create_parents": 1}, "", 400, ""), ("d", {"destination": "/d/sub/d"}, "", 400, ""), ("d", {"destination": "/d"}, "", 400, ""),
    ("d", {"destination": "/d/new", "create_parents": True}, "", 400, ""), ("", {"name": "x"}, "", 400, ""),
    ("f", {"destination": "/none/g"}, "", 400, ""), ("f", {"name": "g", "instance": "node-9"}, "", 400, ""),
    ("f", {"name": "g", "backend": "s3"}, "", 501, ""), ("none", {"name": "x"}, "", 404, ""), ("d/none", {"name": "x"}, "", 404, ""),
    ("f", {"name": "d"}, "", 409, ""), ("f", {"destination": "/d/x"}, "", 409, ""), ("f", {"destination": "/d/x"}, "?overwrite=false", 409, ""),
    ("d/x", {"destination": "/f/x"}, "", 409, ""), ("d", {"destination": "/full", "overwrite": True}, "", 409, ""),
    ("f", {"destination": "/d", "overwrite": True}, "", 409, ""), ("d", {"destination": "/f", "overwrite": True}, "", 409, ""),
    ("f", b"{", "", 400, ""), ("f", b"[]", "", 400, ""), ("f", b'{"name": "' + b"g" * (1 << 20) + b'"}', "", 413, ""),
    ("f", {"destination": "/.callfs/g"}, "", 403, ""), (".callfs", {"name": "x"}, "", 404, ""),
    ("bobs", {"name": "g"}, "", 403, ""), ("f", {"destination": "/bobs", "overwrite": True}, "", 403, ""),
]


@pytest.mark.parametrize("source, wish, query, status, new", MOVES, ids=[f"{row[0]}-{str(row[1])[:50]}{row[2]}" for row in MOVES])
def test_move(rest: Any, source: str, wish: Any, query: str, status: int, new: str) -> None:
    for path, data in (("/f", b"file"), ("/d/x", b"x"), ("/d/sub/deep", b"deep"), ("/full/z", b"z")):
        put_file(rest, path, data)
    put_file(rest, "/bobs", b"bob's", AS_BOB)

    def everything() -> dict[str, Any]:
        items = ask(rest, "GET", "/v1/directories/?recursive=true", status=200).json()["items"]
        return {item["path"]: (item["owner"], get_file(rest, item["path"]) if item["type"] == "file" else None) for item in items}
    before = everything()
    answer = ask(rest, "PATCH", f"/v1/files/{source}{query}", wish, status=status)
    if status != 200:
        assert everything() == before       # a failed move leaves the source whole
        return
    assert answer.json() == {"path": new}
    old = "/" + source.rstrip("/")
    moved = {new + path[len(old):]: value for path, value in before.items() if path == old or path.startswith(old + "/")}
    kept = {path: value for path, value in before.items() if not (path == old or path.startswith(old + "/") or path == new)}
    after = everything()
    assert {path: after[path] for path in {**kept, **moved}} == {**kept, **moved}
    assert all(value == ("ann", None) for path, value in after.items() if path not in kept and path not in moved)     # parents


def test_move_keeps_the_file_itself(rest: Any) -> None:
    put_file(rest, "/f", b"x", {"X-OC-Mtime": "1000000000"})
    before = ask(rest, "HEAD", "/v1/files/f").headers
    ask(rest, "PATCH", "/v1/files/f", {"name": "g"}, status=200)
    after = ask(rest, "HEAD", "/v1/files/g").headers
    for name in ("etag", "last-modified", "x-callfs-owner", "x-callfs-mode", "repr-digest"):
        assert after[name] == before[name]


def test_move_in_modes_without_the_right_to_create(serve_users: Callable[..., Any]) -> None:
    for mode in ("read-only", "no-delete", "upload-only"):
        rest = serve_users(auth__mode=mode)
        put_file(rest, "/f", b"x", AS_TRUSTED)
        ask(rest, "PATCH", "/v1/files/f", {"name": "g"}, status=403)


# ---- delete -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path, status", [
    ("f", 204), ("empty", 204), ("empty/", 204), ("d?recursive=true", 204), ("d/?recursive=1", 204), ("f?recursive=true", 204),
    ("none", 404), ("f/", 404), ("f/below", 404), ("d", 409), ("d/", 409), ("d?recursive=false", 409), ("", 400), ("?recursive=true", 400),
    ("mixed?recursive=true", 403), (".callfs?recursive=true", 404),
])
def test_delete(rest: Any, path: str, status: int) -> None:
    for name, headers in (("/f", AS_ANN), ("/d/x", AS_ANN), ("/d/sub/y", AS_ANN), ("/mixed/a", AS_ANN), ("/mixed/sub/b", AS_BOB)):
        put_file(rest, name, b"x", headers)
    ask(rest, "POST", "/v1/files/empty/", status=201)
    answer = ask(rest, "DELETE", "/v1/files/" + path, status=status)
    clean = path.split("?")[0].rstrip("/")
    if status == 204:
        assert answer.body == b"" and ask(rest, "GET", "/v1/files/" + clean, status=404)
    else:
        for name in ("/f", "/d/x", "/d/sub/y", "/mixed/a", "/mixed/sub/b"):
            assert get_file(rest, name) == b"x"    # all of it or nothing
    wait_for(lambda: not scratch_of(rest), what="the trash to be empty")


def test_delete_while_it_is_read(rest: Any) -> None:
    data = os.urandom(8_000_000)
    put_file(rest, "/f", data)
    with contextlib.closing(connect(rest.url)) as connection:
        connection.request("GET", "/v1/files/f", headers=dict(AS_ANN))
        response = connection.getresponse()
        first = response.read(1000)
        ask(rest, "PUT", "/v1/files/f", b"other", status=200)
        ask(rest, "DELETE", "/v1/files/f", status=204)
        assert first + response.read() == data


# ---- directories ------------------------------------------------------------------------------------------------

def test_directory_listing(rest: Any) -> None:
    put_file(rest, "/d/f", b"123")
    ask(rest, "POST", "/v1/files/d/sub/", status=201)
    for path in ("d", "d/", "/d"):
        answer = ask(rest, "GET", "/v1/directories/" + path, status=200)
        assert {name: answer.headers[name] for name in ("content-type", "x-callfs-type", "x-callfs-count", "x-callfs-recursive")} == {
            "content-type": "application/json", "x-callfs-type": "directory", "x-callfs-count": "2", "x-callfs-recursive": "false"}
        found = answer.json()
        assert {key: found[key] for key in found if key != "items"} == {"path": "/d", "type": "directory", "recursive": False, "count": 2}
        assert found["items"] == ask(rest, "GET", "/v1/files/d").json()
    for path in ("/v1/directories", "/v1/directories/"):
        assert ask(rest, "GET", path, status=200).json()["path"] == "/"
    deep = ask(rest, "GET", "/v1/directories/?recursive=true", status=200)
    assert deep.headers["x-callfs-recursive"] == "true" and deep.json()["max_depth"] == 100 and deep.json()["recursive"] is True
    head = ask(rest, "HEAD", "/v1/directories/d", status=200)
    assert head.headers["x-callfs-count"] == "2" and head.headers["content-length"] == str(len(answer.body))
    ask(rest, "GET", "/v1/directories/d/f", status=400)
    ask(rest, "GET", "/v1/directories/none", status=404)
    ask(rest, "GET", "/v1/directories/d/f/below", status=404)


@pytest.mark.parametrize("value, shown, depth", [
    ("0", 0, 0), ("1", 1, 1), ("2", 2, 2), ("100", 100, 9), ("1000", 1000, 9), ("1001", 1000, 9), ("99999999", 1000, 9), ("", 100, 9),
    ("x", 100, 9), ("1.5", 100, 9), (None, 100, 9),
])
def test_max_depth(rest: Any, value: Optional[str], shown: int, depth: int) -> None:
    put_file(rest, "/1/2/3/4/5", b"x")
    query = "" if value is None else f"&max_depth={value}"
    found = ask(rest, "GET", "/v1/directories/?recursive=true" + query, status=200).json()
    wanted = ["/1", "/1/2", "/1/2/3", "/1/2/3/4", "/1/2/3/4/5"][:depth + 1]
    assert [item["path"] for item in found["items"]] == wanted and found["max_depth"] == shown and found["count"] == len(wanted)
    plain = ask(rest, "GET", "/v1/directories/?max_depth=3").json()
    assert [item["path"] for item in plain["items"]] == ["/1"] and "max_depth" not in plain


def test_items_are_sorted_by_path(rest: Any) -> None:
    paths = ["/a/x", "/a.txt", "/a!", "/a b", "/ab/x", "/a/x.y/z", "/a/x!", "/A", "/é", "/z", "/a/0", "/a-b/c", "/a/😀", "/a/\uffff"]
    for path in paths:
        put_file(rest, path, b"")
    for query in ("", "?recursive=true"):
        found = [item["path"] for item in ask(rest, "GET", "/v1/directories/" + query).json()["items"]]
        assert found == sorted(found) and len(found) == len(set(found))
    assert set(paths) <= set(found)


def fill_folder(rest: Any, name: str, count: int) -> list[str]:
    """`count` files that came in from outside; their paths in order."""
    folder = Path(rest.config.backend.localfs_root_path) / name
    folder.mkdir()
    for number in range(count):
        os.close(os.open(folder / f"file-{number}", os.O_CREAT | os.O_WRONLY))
    return sorted(f"/{name}/file-{number}" for number in range(count))


def pages_of(rest: Any, path: str, limit: int) -> Iterator[dict[str, Any]]:
    """Every page of a listing."""
    after = None
    while after != "":
        query = urllib.parse.urlencode({"limit": limit, **({"after": after} if after else {})})
        answer = ask(rest, "GET", f"{path}{'&' if '?' in path else '?'}{query}", status=200)
        page = answer.json()
        assert page["count"] == len(page["items"]) == int(answer.headers["x-callfs-count"]) <= limit
        yield page
        after = page.get("next", "")


def test_paging_gives_exactly_the_whole(rest: Any) -> None:
    paths = fill_folder(rest, "many", 3000)
    whole = ask(rest, "GET", "/v1/directories/many").json()["items"]
    assert [item["path"] for item in whole] == paths
    for limit in (700, 1000, 3000, 5000):
        pages = list(pages_of(rest, "/v1/directories/many", limit))
        assert [item for page in pages for item in page["items"]] == whole
        assert len(pages) == -(-3000 // limit) and all(page["next"] == page["items"][-1]["path"] for page in pages[:-1])


def test_paging_through_a_tree(rest: Any) -> None:
    choice = random.Random(7)
    paths = {"/" + "/".join(choice.choice(["a", "a!", "a.b", "b", "é", "z z"]) for _ in range(choice.randint(1, 4))) + str(n) for n in range(60)}
    for path in paths:
        put_file(rest, path, b"")
    whole = ask(rest, "GET", "/v1/directories/?recursive=true").json()["items"]
    assert paths <= {item["path"] for item in whole}
    for limit in (1, 7, 50):
        assert [item for page in pages_of(rest, "/v1/directories/?recursive=true", limit) for item in page["items"]] == whole


def test_after_need_not_exist(rest: Any) -> None:
    for name in "bdf":
        put_file(rest, "/" + name, b"")
    for after, wanted in (("", "bdf"), ("/a", "bdf"), ("/b", "df"), ("/c", "df"), ("/f", ""), ("/z", ""), ("/%F0%9F%98%80", "")):
        found = [item["name"] for item in ask(rest, "GET", f"/v1/directories/?after={after}", status=200).json()["items"]]
        assert found == list(wanted)


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=", "limit=1.5", "limit=9999999999", "after=c", "after=%FF", "limit=1&x=%FF"])
def test_paging_refused(rest: Any, query: str) -> None:
    ask(rest, "GET", "/v1/directories/?" + query, status=400)


@pytest.mark.parametrize("number, status", [(errno.ENOSPC, 507), (errno.ENOENT, 500), (errno.EIO, 500)])
def test_listing_when_the_spool_can_not_be_written(rest: Any, monkeypatch: pytest.MonkeyPatch, number: int, status: int) -> None:
    class Full(io.BytesIO):
        def write(self, data: bytes) -> int:
            raise OSError(number, "broken", "/secret/place")
    monkeypatch.setattr(callfs, "open_spool", lambda folder, limit=0: Full())
    for path in ("/v1/directories/", "/v1/files/"):
        assert b"secret" not in ask(rest, "GET", path, status=status).body


@pytest.mark.parametrize("count", [5000, pytest.param(100_000, marks=pytest.mark.long)])
def test_large_folder(rest: Any, count: int) -> None:
    paths = fill_folder(rest, "large", count)
    answer = ask(rest, "GET", "/v1/directories/large", status=200, timeout=300)
    assert [item["path"] for item in answer.json()["items"]] == paths and answer.headers["x-callfs-count"] == str(count)
    assert [item["path"] for page in pages_of(rest, "/v1/directories/large", 1000) for item in page["items"]] == paths
    assert len(ask(rest, "GET", "/v1/files/large", status=200, timeout=300).json()) == count
    assert not scratch_of(rest)


def test_large_sparse_file(rest: Any) -> None:
    place = Path(rest.config.backend.localfs_root_path) / "sparse"
    size = 10 << 30
    with open(place, "wb") as file:
        file.truncate(size)
        file.seek(size - 4)
        file.write(b"tail")
    for header, body in (("bytes=-4", b"tail"), (f"bytes={size - 6}-", b"\0\0tail"), ("bytes=5368709120-5368709121", b"\0\0")):
        assert ask(rest, "GET", "/v1/files/sparse", headers={"Range": header}, status=206).body == body
    assert ask(rest, "HEAD", "/v1/files/sparse").headers["content-length"] == str(size)
    assert [part[1] for part in parts_of(ask(rest, "GET", "/v1/files/sparse", headers={"Range": "bytes=0-0,-2"}, status=206))] == [b"\0", b"il"]


@pytest.mark.parametrize("size", [32 << 20, pytest.param(256 << 20, marks=pytest.mark.long)])
def test_transfers_in_bounded_memory(rest: Any, size: int) -> None:
    """Client and server of this process together; neither holds a body."""
    block = os.urandom(1 << 20)
    tracemalloc.start()
    try:
        ask(rest, "PUT", "/v1/files/large", itertools.repeat(block, size >> 20), status=201, timeout=300)
        put_file(rest, "/second", b"x")
        for path in ("large", "?archive=tar", "?archive=zip"):
            with contextlib.closing(connect(rest.url)) as connection:
                connection.request("GET", "/v1/files/" + path, headers=dict(AS_ANN))
                response, got = connection.getresponse(), 0
                for part in iter(lambda: response.read(1 << 18), b""):
                    got += len(part)
            assert got == size if path == "large" else got > size
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# ---- WebSocket --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 300_000])
def test_websocket_download(rest: Any, size: int) -> None:
    data = os.urandom(size)
    put_file(rest, "/d/f", data)
    for query in ("", "?mode=download"):
        with RawWebSocket(rest, "/v1/files/ws/d/f" + query) as client:
            assert client.status == 101
            messages = []
            opcode, payload = client.receive()
            while opcode == 2:
                messages.append(payload)
                opcode, payload = client.receive()
            assert (opcode, payload[:2]) == (8, (1000).to_bytes(2, "big"))
            client.send(payload[:2], opcode=8)
            assert client.receive() == (-1, b"")
        assert b"".join(messages) == data and [len(m) for m in messages[:-1]] == [65536] * (len(messages) - 1)


@pytest.mark.parametrize("end, stored", [(1000, True), (1001, True), ("empty", True), (1011, False), (3000, False), ("no code", False), ("cut", False)])
def test_websocket_upload_ends(rest: Any, end: Any, stored: bool) -> None:
    put_file(rest, "/f", b"old")
    with RawWebSocket(rest, "/v1/files/ws/f?mode=upload") as client:
        client.send(b"binary ")
        client.send("täxt ".encode(), opcode=1)
        client.send(b"frag", final=False)
        client.send(b"ping", opcode=9)
        client.send(b"ment", opcode=0)
        assert client.receive() == (10, b"ping")
        if end == "empty":
            client.send(b"")
            size = len("binary täxt fragment".encode())
            assert client.receive() == (1, f"ok:{size}".encode())
            assert client.close_code() == 1000
        elif end != "cut":
            client.send(b"" if end == "no code" else end.to_bytes(2, "big"), opcode=8)
            assert client.receive()[0] == 8     # and not before it is stored
    wanted = "binary täxt fragment".encode() if stored else b"old"
    if end == "cut":
        wait_for(lambda: not holders_of(rest, "/f"), what="the server to be through")
    assert get_file(rest, "/f") == wanted and not scratch_of(rest)


def test_websocket_upload_creates_with_parents(rest: Any) -> None:
    with RawWebSocket(rest, "/v1/files/ws/new/deep/f%20g?mode=upload", key=USERS["bob"]) as client:
        client.send(b"x")
        client.send(b"")
        assert client.receive() == (1, b"ok:1")
    assert get_file(rest, "/new/deep/f g") == b"x" and ask(rest, "HEAD", "/v1/files/new/deep").headers["x-callfs-owner"] == "bob"


def test_websocket_upload_of_nothing(rest: Any) -> None:
    with RawWebSocket(rest, "/v1/files/ws/f?mode=upload") as client:
        client.send(b"")
        assert client.receive() == (1, b"ok:0")
    assert get_file(rest, "/f") == b""


def test_websocket_upload_past_the_spool_and_past_the_limit(rest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callfs, "WS_SPOOL", 100_000)
    monkeypatch.setattr(callfs, "WS_MAX_UPLOAD", 500_000)
    block = os.urandom(100_000)
    with RawWebSocket(rest, "/v1/files/ws/f?mode=upload") as client:
        for _ in range(5):
            client.send(block)
        client.send(b"")
        assert client.receive() == (1, b"ok:500000")
    assert get_file(rest, "/f") == block * 5
    with RawWebSocket(rest, "/v1/files/ws/f?mode=upload") as client:
        for _ in range(5):
            client.send(block)
        client.send(b"x")
        assert client.close_code() == 1009
    assert get_file(rest, "/f") == block * 5 and not scratch_of(rest)


def test_websocket_limits_of_the_contract() -> None:
    assert (callfs.WS_CHUNK, callfs.WS_MAX_UPLOAD, callfs.WS_SPOOL) == (64 << 10, 100 << 20, 8 << 20)


def test_websocket_message_of_more_than_a_mebibyte(rest: Any) -> None:
    with RawWebSocket(rest, "/v1/files/ws/f?mode=upload") as client:
        client.send(bytes(1 << 20))
        client.socket.sendall(bytes([0x82, 0xFF]) + struct.pack("!Q", (1 << 20) + 1) + bytes(4))
        assert client.close_code() == 1009
    ask(rest, "GET", "/v1/files/f", status=404)


@pytest.mark.parametrize("frame", [b"\x82\x01x", b"\xc2\x80\0\0\0\0", b"\x83\x80\0\0\0\0", b"\x80\x80\0\0\0\0", b"\x81\x81\0\0\0\0\xff", b"\x09\x80\0\0\0\0"])
def test_websocket_broken_frames_store_nothing(rest: Any, frame: bytes) -> None:
    with RawWebSocket(rest, "/v1/files/ws/f?mode=upload") as client:
        client.send(b"data")
        client.socket.sendall(frame)
        assert client.close_code() in (1002, 1007)
    ask(rest, "GET", "/v1/files/f", status=404)


WS_REFUSED = [                              # path, headers, key, status
    ("none", {}, USERS["ann"], 404), ("d", {}, USERS["ann"], 400), ("d/", {}, USERS["ann"], 400), ("", {}, USERS["ann"], 400),
    ("f?mode=both", {}, USERS["ann"], 400), ("f?mode=", {}, USERS["ann"], 400), ("..%2Fx", {}, USERS["ann"], 400), ("d/?mode=upload", {}, USERS["ann"], 400),
    ("d?mode=upload", {}, USERS["ann"], 400), (".callfs/x", {}, USERS["ann"], 404),
    ("f", {}, "", 401), ("f", {}, "wrong-key-0123456789", 401), ("f", {"Origin": "http://evil.example"}, USERS["ann"], 403),
    ("f", {"Origin": "null"}, USERS["ann"], 403), ("f", {"Origin": "http://localhost:1"}, USERS["ann"], 403),
    ("f", {"Sec-WebSocket-Version": "8"}, USERS["ann"], 426), ("f", {"Sec-WebSocket-Key": "short"}, USERS["ann"], 400),
]


@pytest.mark.parametrize("path, headers, key, status", WS_REFUSED)
def test_websocket_refused(rest: Any, path: str, headers: dict[str, str], key: str, status: int) -> None:
    put_file(rest, "/f", b"x")
    put_file(rest, "/d/x", b"x")
    with RawWebSocket(rest, "/v1/files/ws/" + path, headers, key) as client:
        assert client.status == status
        check_answer(client.answer)


@pytest.mark.parametrize("origin, host", [("http://localhost", "localhost"), ("http://LOCALHOST", "LocalHost"), ("http://localhost:80", "localhost:80")])
def test_websocket_from_a_page_of_ours(rest: Any, origin: str, host: str) -> None:
    put_file(rest, "/f", b"x")
    with RawWebSocket(rest, "/v1/files/ws/f", {"Origin": origin, "Host": host}) as client:
        assert client.status == 101 and client.close_code() == 1000


def test_websocket_without_right_closes_with_1008(serve_users: Callable[..., Any]) -> None:
    rest = serve_users()
    put_file(rest, "/f", b"ann's")
    with RawWebSocket(rest, "/v1/files/ws/f?mode=upload", key=USERS["bob"]) as client:
        assert client.status == 101 and client.close_code() == 1008
    for mode, path in (("read-only", "new?mode=upload"), ("upload-only", "f")):
        limited = serve_users(auth__mode=mode)
        put_file(limited, "/f", b"x", AS_TRUSTED)
        with RawWebSocket(limited, "/v1/files/ws/" + path) as client:
            assert client.status == 101 and client.close_code() == 1008
    assert get_file(rest, "/f") == b"ann's"


def test_websocket_right_lost_during_the_upload(rest: Any) -> None:
    with RawWebSocket(rest, "/v1/files/ws/f?mode=upload") as client:
        client.send(b"ann's")
        put_file(rest, "/f", b"bob was faster", AS_BOB)
        client.send(b"")
        assert client.close_code() == 1008
    assert get_file(rest, "/f") == b"bob was faster"


def test_websocket_compare_and_swap(rest: Any) -> None:
    put_file(rest, "/f", b"old")
    with RawWebSocket(rest, "/v1/files/ws/f?mode=upload", {"If-None-Match": "*"}) as client:
        client.send(b"new")
        client.send(b"")
        assert client.close_code() == 1011
    assert get_file(rest, "/f") == b"old"


def test_websocket_clients_that_leave_hold_nothing(rest: Any) -> None:
    put_file(rest, "/f", os.urandom(5_000_000))
    for query in ("", "?mode=upload") * 3:
        with RawWebSocket(rest, "/v1/files/ws/f" + query) as client:
            assert client.status == 101
    for _ in range(5):                      # gone before the answer
        with contextlib.closing(raw_socket(rest.url)) as connection:
            connection.sendall(head_of("GET", "/v1/files/ws/f", {
                "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: not holders_of(rest, "/f"), what="the descriptors of the clients that left")


def test_folder_named_ws(rest: Any) -> None:
    put_file(rest, "/ws/f", b"plain")
    assert get_file(rest, "/ws/f") == b"plain"
    with RawWebSocket(rest, "/v1/files/ws/ws/f") as client:
        assert client.receive() == (2, b"plain") and client.close_code() == 1000
    ask(rest, "PATCH", "/v1/files/ws/f", {"name": "g"}, status=200)
    ask(rest, "DELETE", "/v1/files/ws/g", status=204)


def test_websocket_with_the_websockets_library(rest: Any) -> None:
    client_module = pytest.importorskip("websockets.sync.client")
    url, headers, data = rest.url.replace("http", "ws") + "/v1/files/ws/lib", {"Authorization": AS_ANN["Authorization"]}, os.urandom(400_000)
    with client_module.connect(url + "?mode=upload", additional_headers=headers, compression=None) as client:
        for start in range(0, len(data), 100_000):
            client.send(data[start:start + 100_000])
        client.send(b"")
        assert client.recv() == "ok:400000"
    with client_module.connect(url, additional_headers=headers) as client:
        assert b"".join(client) == data and client.close_code == 1000


# ---- metrics, health --------------------------------------------------------------------------------------------

METRIC_NAMES = {
    "callfs_http_requests_total": {"method", "path", "status_code"}, "callfs_http_request_duration_seconds": {"method", "path"},
    "callfs_backend_ops_total": {"backend_type", "operation"}, "callfs_backend_op_duration_seconds": {"backend_type", "operation"},
    "callfs_metadata_db_queries_total": {"operation"}, "callfs_metadata_db_query_duration_seconds": {"operation"},
    "callfs_single_use_link_generations_total": set(), "callfs_single_use_link_consumptions_total": {"status"},
    "callfs_lock_operations_total": {"operation", "status"}, "callfs_lock_operation_duration_seconds": {"operation"},
    "callfs_active_locks": set(), "callfs_file_operations_total": {"operation", "backend_type"},
    "callfs_errors_total": {"component", "error_type"},
}
METRIC_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*)\})? (-?[0-9.e+-]+|\+Inf)')


def metrics_of(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Prometheus text, strictly: name -> labels -> value."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = METRIC_SAMPLE.fullmatch(line)
            assert match, line
            labels = tuple(sorted(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', match[2] or "")))
            found.setdefault(match[1], {})[labels] = float(match[3])
    return found


def wait_until_counted(rest: Any, number: int) -> None:
    """A request is counted when its answer is through, which the client may see a moment earlier."""
    def counted() -> bool:
        return sum(metrics_of(rest.metrics.render()).get("callfs_http_requests_total", {}).values()) >= number
    wait_for(counted, what=f"{number} requests to be counted")


def test_metrics(rest: Any) -> None:
    put_file(rest, "/secret-name", b"x")
    for _ in range(3):
        get_file(rest, "/secret-name")
    ask(rest, "GET", "/v1/files/none", status=404)
    ask(rest, "GET", "/no-such-route", status=404)
    ask(rest, "DELETE", "/v1/files/secret-name", status=204)
    for number in range(5):
        ask(rest, f"BREW{number}", "/v1/files/x", status=405)
    put_file(rest, "/f", b"x")
    token = make_link(rest)["token"]
    for target, status in ((token, 200), (token, 410), ("A" * 22 + "." + "A" * 43, 404), ("nonsense", 404)):
        ask(rest, "GET", "/download/" + target, status=status)
    wait_until_counted(rest, 18)
    answer = ask(rest, "GET", "/metrics", status=200)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = metrics_of(answer.body.decode())
    for name, labels in METRIC_NAMES.items():
        assert f"# TYPE {name} " in answer.body.decode()
        samples = found.get(name) or found.get(name + "_count") or {}
        assert all({key for key, _ in sample} == labels for sample in samples), name
        assert samples or name in ("callfs_errors_total",), name
    requests = {tuple(value for _, value in sorted(labels)): int(count) for labels, count in found["callfs_http_requests_total"].items()}
    assert requests[("GET", "/v1/files/{path}", "200")] == 3 and requests[("GET", "/v1/files/{path}", "404")] == 1
    assert requests[("GET", "none", "404")] == 1 and requests[("other", "/v1/files/{path}", "405")] == 5
    patterns = {route.pattern for route in all_routes(rest)} | {"none"}
    assert {labels[1] for labels in requests} <= patterns and b"secret-name" not in answer.body
    consumed = {dict(labels)["status"]: count for labels, count in found["callfs_single_use_link_consumptions_total"].items()}
    assert consumed == {"success": 1, "expired": 1, "not_found": 1, "invalid": 1}
    assert found["callfs_single_use_link_generations_total"][()] == 1
    operations = {dict(labels)["operation"]: count for labels, count in found["callfs_file_operations_total"].items()}
    assert operations["create"] == 2 and operations["delete"] == 1 and operations["read"] >= 4
    buckets = [dict(labels)["le"] for labels in found["callfs_http_request_duration_seconds_bucket"]
               if ("path", "/metrics") not in labels and ("method", "PUT") in labels]
    assert buckets == ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"] or \
        [float(edge) for edge in buckets] == [.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, float("inf")]


def test_metrics_on_their_own_address(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(metrics__listen_addr="127.0.0.1:0")
    put_file(rest, "/f", b"x")
    wait_until_counted(rest, 1)
    base = rest.metrics_url[:-len("/metrics")]
    assert base != rest.url
    assert metrics_of(ask(base, "GET", "/metrics", status=200).body.decode())["callfs_http_requests_total"]
    ask(base, "GET", "/health", status=200)
    for path in ("/v1/files/f", "/v1/directories/", "/v1/links", "/download/x", "/v1/internal/raft/join"):
        ask(base, "GET", path, headers=AS_ANN, status=404)
    ask(rest, "GET", "/metrics", headers=NO_KEY, status=401)
    ask(rest, "GET", "/metrics", headers=AS_ANN, status=200)


def test_health_looks_nothing_up(rest: Any) -> None:
    before = metrics_of(rest.metrics.render())
    for method in ("GET", "HEAD"):
        answer = ask(rest, method, "/health", headers=NO_KEY, status=200)
    assert call(rest, "GET", "/health").json()["status"] == "ok" and answer.headers["content-type"] == "application/json"
    after = metrics_of(rest.metrics.render())
    for name in ("callfs_metadata_db_queries_total", "callfs_backend_ops_total"):
        assert after.get(name) == before.get(name)


def test_ready(rest: Any) -> None:
    found = ask(rest, "GET", "/ready", headers=NO_KEY, status=200).json()
    assert found == {"status": "ready", "parts": {"metadata store": "ok", "backend": "ok"}}


def test_not_ready_when_the_root_is_gone(rest: Any) -> None:
    root = Path(rest.config.backend.localfs_root_path)
    away = root.with_name("away")
    root.rename(away)
    try:
        answer = ask(rest, "GET", "/ready", headers=NO_KEY, status=503)
        assert answer.json()["status"] == "not ready" and str(root).encode() not in answer.body
        ask(rest, "GET", "/health", status=200)
    finally:
        away.rename(root)
    ask(rest, "GET", "/ready", status=200)


def test_not_ready_when_the_store_fails(rest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> None:
        raise callfs.Unavailable("The metadata store can not be reached.")
    monkeypatch.setattr(rest._store, "check", down)
    answer = ask(rest, "GET", "/ready", status=503)
    assert answer.json()["parts"] == {"metadata store": "The metadata store can not be reached.", "backend": "ok"}


def test_not_ready_when_the_disk_is_full(serve_users: Callable[..., Any]) -> None:
    rest = serve_users(storage__min_free_bytes=1 << 60)
    ask(rest, "GET", "/ready", status=503)
    ask(rest, "GET", "/health", status=200)


# ============================================================================
# The PFS dialect: /api/v1
# ============================================================================

ROLES = {"nobody": None, "user": USERS["bob"], "admin": USERS["ann"]}
MESSAGES = {                                # what clients of the reference know, by method and route
    ("POST", "files"): "file created", ("DELETE", "files"): "deleted", ("DELETE", "directories"): "deleted",
    ("POST", "directories"): "directory created", ("POST", "rename"): "renamed", ("POST", "chmod"): "permissions changed",
    ("POST", "touch"): "touched", ("POST", "truncate"): "truncated", ("POST", "mount"): "plugin mounted",
    ("POST", "unmount"): "plugin unmounted", ("PUT", "files"): "OK",
}
PFS_CASES = ("missing", "bad", "absent", "file", "directory", "mount")
# Of each route: its body ({} stands for one that holds `path`), the statuses of PFS_CASES for a user, and for an
# administrator where they differ.
PFS_TABLE: list[tuple[str, str, Any, tuple[int, ...], Optional[tuple[int, ...]]]] = [
    ("GET", "files", None, (400, 400, 404, 200, 400, 400), None),
    ("GET", "files?offset=1&size=2", None, (400, 400, 404, 200, 400, 400), None),
    ("GET", "files?stream=true", None, (400, 400, 404, 200, 400, 400), None),
    ("HEAD", "files", None, (400, 400, 404, 200, 400, 400), None),
    ("PUT", "files", b"new", (400, 400, 200, 200, 400, 400), None),
    ("POST", "files", None, (400, 400, 201, 409, 409, 409), None),
    ("DELETE", "files", None, (400, 400, 404, 200, 409, 409), None),
    ("DELETE", "files?recursive=true", None, (400, 400, 404, 200, 200, 409), None),
    ("DELETE", "directories", None, (400, 400, 404, 200, 409, 409), None),
    ("GET", "directories", None, (400, 400, 404, 400, 200, 200), None),
    ("POST", "directories", None, (400, 400, 201, 409, 409, 409), None),
    ("POST", "directories?mode=700", None, (400, 400, 201, 409, 409, 409), None),
    ("GET", "stat", None, (400, 400, 404, 200, 200, 200), None),
    ("POST", "rename", {"newPath": "/new"}, (400, 400, 404, 200, 200, 409), None),
    ("POST", "copy", {"newPath": "/copied"}, (400, 400, 404, 200, 400, 400), None),
    ("POST", "chmod", {"mode": 420}, (400, 400, 404, 200, 200, 501), None),
    ("POST", "touch", None, (400, 400, 200, 200, 200, 501), None),
    ("POST", "truncate?size=3", None, (400, 400, 404, 200, 400, 400), None),
    ("POST", "digest", {"path": "", "algorithm": "md5"}, (400, 400, 404, 200, 400, 400), None),
    ("POST", "grep", {"path": "", "pattern": "a"}, (400, 400, 404, 200, 400, 400), None),
    ("POST", "grep", {"path": "", "pattern": "a", "stream": True}, (400, 400, 404, 200, 400, 400), None),
    ("GET", "capabilities", None, (200, 400, 200, 200, 200, 200), None),
    ("POST", "mount", {"path": "", "fstype": "hellofs"}, (403,) * 6, (400, 400, 200, 200, 200, 409)),
    ("POST", "unmount", {"path": ""}, (403,) * 6, (400, 400, 404, 404, 404, 200)),
    ("GET", "mounts", None, (200,) * 6, None),
    ("GET", "plugins", None, (200,) * 6, None),
    ("POST", "plugins/load", {"library_path": "./x.so"}, (403,) * 6, (501,) * 6),
    ("POST", "plugins/unload", {"library_path": "./x.so"}, (403,) * 6, (501,) * 6),
]


@pytest.fixture
def pfs_server(serve_users: Callable[..., Any]) -> Any:
    """A server where ann is an administrator and bob is a user."""
    return serve_users(auth__admins=["ann"])


def as_role(role: str) -> dict[str, Optional[str]]:
    """The header of a role."""
    return {"Authorization": f"Bearer {ROLES[role]}" if ROLES[role] else None}


def api(server: Any, method: str, route: str, path: Optional[str] = None, body: Any = None, role: str = "admin",
        status: Optional[int] = None, **more: Any) -> Answer:
    """A call below /api/v1 with `path` as the query parameter; errors must be `{"error": TEXT}` and nothing else."""
    if path is not None:
        route += ("&" if "?" in route else "?") + urllib.parse.urlencode({"path": path})
    answer = call(server, method, "/api/v1/" + route, body, {**as_role(role), **more.pop("headers", {})}, **more)
    if answer.status >= 400 and method != "HEAD":
        assert list(answer.json()) == ["error"] and answer.json()["error"] and "\n" not in answer.json()["error"]
        assert answer.headers["content-type"] == "application/json"
    assert status is None or answer.status == status, (method, route, path, answer.status, answer.body[:300])
    return answer


def check_info(value: Any) -> dict[str, Any]:
    """A FileInfo as a strict client decodes it: every field, its type, no other."""
    assert set(value) == {"name", "size", "mode", "modTime", "isDir", "meta"}
    assert type(value["name"]) is str and "/" not in value["name"].strip("/") and type(value["isDir"]) is bool
    assert type(value["size"]) is int and value["size"] >= 0 and type(value["mode"]) is int and 0 <= value["mode"] < 2**32
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z", value["modTime"])
    meta = value["meta"]
    assert set(meta) == {"Name", "Type", "Content"} and type(meta["Name"]) is type(meta["Type"]) is str
    assert meta["Content"] is None or all(type(each) is str for pair in meta["Content"].items() for each in pair)
    return value


def names_in(server: Any, path: str, role: str = "admin") -> list[str]:
    """What a listing shows."""
    return [check_info(one)["name"] for one in api(server, "GET", "directories", path, role=role, status=200).json()["files"]]


@pytest.mark.parametrize("row", PFS_TABLE, ids=[f"{row[0]} {row[1]} {number}" for number, row in enumerate(PFS_TABLE)])
@pytest.mark.parametrize("role", ROLES)
def test_pfs_route(pfs_server: Any, row: Any, role: str) -> None:
    """Every route with every key on everything there may be, and the message of those that succeed."""
    method, route, body, user, admin = row
    owner = callfs.Principal("bob" if role == "user" else "ann")
    pfs_server.tree.write(owner, "/file", callfs.bytes_body(b"a file"))
    pfs_server.tree.write(owner, "/directory/child", callfs.bytes_body(b""))
    pfs_server.mounts.mount(callfs.ROOT, "/mount", "hellofs", {})
    statuses = (401,) * 6 if role == "nobody" else admin if role == "admin" and admin else user
    for case, status in zip(PFS_CASES, statuses):
        path = {"missing": None, "bad": "/a\\b"}.get(case, "/" + case)
        sent, query = body, path
        if isinstance(body, dict) and "path" in body:
            sent, query = {**body, "path": path}, None
        if route == "rename":
            sent = {"newPath": "/new-" + case}
        answer = api(pfs_server, method, route, query, sent, role, status)
        if answer.status < 300 and (method, route.partition("?")[0]) in MESSAGES:
            assert answer.json() == {"message": MESSAGES[method, route.partition("?")[0]]}


@pytest.mark.parametrize("route", sorted({row[1].partition("?")[0] for row in PFS_TABLE} | {"health"}))
def test_pfs_wrong_method(pfs_server: Any, route: str) -> None:
    """405 with exactly the reference's words, before anything else is looked at."""
    known = {row[0] for row in PFS_TABLE if row[1].partition("?")[0] == route} | ({"GET"} if route == "health" else set())
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - known:
        answer = api(pfs_server, method, route, "/x", role="nobody", status=405)
        assert answer.body == b'{"error":"method not allowed"}\n' and set(answer.headers["allow"].split(", ")) >= known


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/files/x", "/api/v1/plugins/other"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_pfs_unknown_route(pfs_server: Any, path: str, method: str) -> None:
    answer = call(pfs_server, method, path)
    assert answer.status == 404 and list(answer.json()) == ["error"]


def test_pfs_health(pfs_server: Any) -> None:
    """For whoever asks."""
    found = api(pfs_server, "GET", "health", role="nobody", status=200).json()
    assert found == {"status": "healthy", "version": callfs.__version__}
    assert call(pfs_server, "GET", "/health", headers=NO_KEY).json()["version"] == callfs.__version__


@pytest.mark.parametrize("query, wanted", [
    ("", TEN), ("offset=3", TEN[3:]), ("offset=3&size=4", TEN[3:7]), ("size=4", TEN[:4]), ("size=0", b""), ("size=-1", TEN),
    ("offset=9&size=9", b"9"), ("offset=10", b""), ("offset=11&size=2", b""), ("offset=99999999999999999", b""),
    ("offset=0&size=10", TEN), ("offset=", TEN), ("size=&offset=2", TEN[2:]), ("stream=true", TEN),
    ("stream=true&offset=8", b"89"), ("stream=false", TEN), ("offset=-1", None), ("size=-2", None), ("offset=x", None),
    ("offset=1.5", None), ("size=1e3", None), ("offset=+1", None), ("offset=0x1", None), ("size=" + "9" * 30, None),
    ("offset=%D9%A1", None),
])
def test_pfs_parts_of_a_file(pfs_server: Any, query: str, wanted: Optional[bytes]) -> None:
    """Behind the end there is nothing; what is no number is refused."""
    for path, data in (("/ten", TEN), ("/large", bytes(70_000) + TEN)):
        put_file(pfs_server, path, data)
    answer = api(pfs_server, "GET", "files?" + query, "/ten", status=400 if wanted is None else 200)
    if wanted is not None:
        assert answer.body == wanted and answer.headers["content-type"] == "application/octet-stream"
        assert ("transfer-encoding" in answer.headers) == ("stream=true" in query)
    assert api(pfs_server, "GET", "files?stream=true&offset=70000", "/large", status=200).body == TEN
    wait_for(lambda: not holders_of(pfs_server, "/large"), what="the descriptors of the readers")


def test_pfs_reads_like_every_dialect(pfs_server: Any) -> None:
    """Ranges and conditions hold, and a file is the same file."""
    etag = put_file(pfs_server, "/ten", TEN).headers["etag"]
    whole = api(pfs_server, "GET", "files", "/ten", status=200)
    assert whole.headers["etag"] == etag and whole.headers["content-length"] == "10"
    assert api(pfs_server, "GET", "files", "/ten", headers={"Range": "bytes=2-4"}, status=206).body == b"234"
    assert api(pfs_server, "GET", "files", "/ten", headers={"If-None-Match": etag}, status=304).body == b""
    head = api(pfs_server, "HEAD", "files", "/ten", status=200)
    assert head.headers["content-length"] == "10"
    api(pfs_server, "PUT", "files", "/ten", b"x", headers={"If-Match": '"other"'}, status=412)
    api(pfs_server, "PUT", "files", "/ten", b"x", headers={"If-Match": etag}, status=200)
    api(pfs_server, "DELETE", "files", "/ten", headers={"If-Match": etag}, status=412)
    api(pfs_server, "PUT", "files", "/d", b"x", headers={"Content-Digest": "sha-256=:" + "A" * 43 + "=:"}, status=400)
    api(pfs_server, "GET", "stat", "/d", status=404)


@pytest.mark.parametrize("sent, path", [
    ("/a b+c%d.txt", "/a b+c%d.txt"), ("ten", "/ten"), ("//x/./y//", "/x/y"), ("/x/../y", "/y"), ("/ü/日本", "/ü/日本"), ("/..", None),
    ("/../etc/passwd", None), ("/a/../../b", None), ("/a\0b", None), ("/" + "x" * 256, None),
])
def test_pfs_one_spelling_of_a_path(pfs_server: Any, sent: str, path: Optional[str]) -> None:
    """From the query and from JSON bodies."""
    api(pfs_server, "PUT", "files", sent, b"data", status=400 if path is None else 200)
    if path:
        assert get_file(pfs_server, path) == b"data"
        check_info(api(pfs_server, "GET", "stat", sent, status=200).json())
        pfs_server.tree.remove(callfs.ROOT, path)
    api(pfs_server, "PUT", "files", "/source", b"data", status=200)
    api(pfs_server, "POST", "rename", "/source", {"newPath": sent}, status=400 if path is None else 200)
    assert get_file(pfs_server, path or "/source") == b"data"


def test_pfs_two_dots_never_leave_a_mount_for_the_machine(pfs_server: Any) -> None:
    """`..` works on the path that users see; a mount's filesystem never gets one."""
    pfs_server.mounts.mount(callfs.ROOT, "/m/h", "hellofs", {})
    put_file(pfs_server, "/beside", b"beside")
    assert api(pfs_server, "GET", "files", "/m/h/../../beside", status=200).body == b"beside"
    api(pfs_server, "GET", "files", "/m/h/../../../beside", status=400)


def test_pfs_file_infos(pfs_server: Any) -> None:
    """Every field of every kind of entry; sizes, modes and times are those of the other dialect."""
    api(pfs_server, "PUT", "files", "/d/f", b"12345", headers={"X-OC-Mtime": "1700000000.25"}, status=200)
    api(pfs_server, "POST", "chmod", "/d/f", {"mode": 0o750}, status=200)
    pfs_server.mounts.mount(callfs.ROOT, "/d/m/h", "hellofs", {})
    found = check_info(api(pfs_server, "GET", "stat", "/d/f", status=200).json())
    assert found == {"name": "f", "size": 5, "mode": 0o750, "modTime": "2023-11-14T22:13:20.250000000Z", "isDir": False,
                     "meta": {"Name": found["meta"]["Name"], "Type": "file", "Content": None}}
    assert names_in(pfs_server, "/d") == ["f", "m"] and names_in(pfs_server, "/d/m") == ["h"] and names_in(pfs_server, "/d/m/h") == ["hello"]
    for path in ("/", "/d", "/d/m", "/d/m/h", "/d/m/h/hello"):
        assert check_info(api(pfs_server, "GET", "stat", path, status=200).json())["isDir"] == (path != "/d/m/h/hello")
    assert check_info(api(pfs_server, "GET", "stat", "/d/m/h/hello").json())["meta"]["Name"] == "hellofs"
    assert api(pfs_server, "GET", "stat", "/").json()["name"] == "/"
    api(pfs_server, "POST", "directories", "/empty", status=201)
    assert api(pfs_server, "GET", "directories", "/empty").body == b'{"files":[]}\n'


def test_pfs_a_large_directory(pfs_server: Any) -> None:
    """In order, none missing."""
    for number in range(2_500):
        Path(pfs_server.config.backend.localfs_root_path, f"{number:05d}").touch()
    assert names_in(pfs_server, "/") == [f"{number:05d}" for number in range(2_500)]


@pytest.mark.parametrize("kind", sorted(callfs.FILESYSTEMS))
def test_pfs_file_infos_of_every_filesystem(pfs_server: Any, tmp_path: Path, kind: str) -> None:
    """Each type that is there, with something in it: what clients decode strictly, in listings as in stat."""
    (tmp_path / "local").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    configs = {"localfs": {"local_dir": str(tmp_path / "local")}, "sqlfs": {"db_path": str(tmp_path / "files.sqlite3")},
               "proxyfs": {"base_url": pfs_server.url, "token": USERS["ann"]}, "httpfs": {"pfs_path": "/d", "http_port": port}}
    if kind == "s3fs":
        pytest.skip("s3fs has a server of its own in its tests")
    put_file(pfs_server, "/d/f", b"x")
    api(pfs_server, "POST", "mount", None, {"fstype": kind, "path": "/m", "config": configs.get(kind, {})}, status=200)
    api(pfs_server, "POST", "directories", "/m/made/in")
    api(pfs_server, "PUT", "files", "/m/made/file", b"data")
    api(pfs_server, "PUT", "files", "/m/keys/key", b"data")
    seen, waiting = [], ["/m"]
    while waiting:
        path = waiting.pop()
        info = check_info(api(pfs_server, "GET", "stat", path, status=200).json())
        seen.append(path)
        assert info["name"] == path.rpartition("/")[2]
        if info["isDir"] and path.count("/") < 4:
            listed = api(pfs_server, "GET", "directories", path, status=200).json()["files"]
            assert [one["name"] for one in map(check_info, listed)] == sorted({one["name"] for one in listed})
            waiting += [f"{path}/{one['name']}" for one in listed]
        elif not info["isDir"] and info["mode"] & 0o444:
            api(pfs_server, "HEAD", "files", path, status=200)
    assert len(seen) > 1 or kind == "httpfs"
    api(pfs_server, "POST", "unmount", None, {"path": "/m"}, status=200)


@pytest.mark.parametrize("mode, wanted", [
    (420, 0o644), (0, 0), (0o7777, 0o7777), ("0644", 0o644), ("755", 0o755), ("0o600", 0o600), ("0", 0), (True, None), (-1, None),
    (0o10000, None), ("10000", None), ("999", None), ("rw", None), ("", None), (420.0, None), (None, None), ([420], None), ("-1", None),
    ({}, None), (10**30, None),
])
def test_pfs_chmod(pfs_server: Any, mode: Any, wanted: Optional[int]) -> None:
    put_file(pfs_server, "/f", b"x")
    api(pfs_server, "POST", "chmod", "/f", {"mode": mode, "other": 1}, status=400 if wanted is None else 200)
    assert api(pfs_server, "GET", "stat", "/f").json()["mode"] == (0o644 if wanted is None else wanted)
    api(pfs_server, "POST", "chmod", "/f", {"mode": 0o600}, role="user", status=403)


@pytest.mark.parametrize("mode, status", [("755", 201), ("0700", 201), ("", 201), ("1777", 201), ("8", 400), ("rwx", 400),
                                          ("-7", 400), ("77777", 400)])
def test_pfs_mkdir_modes(pfs_server: Any, mode: str, status: int) -> None:
    api(pfs_server, "POST", "directories?mode=" + mode, "/a/b/c", status=status)
    if status == 201:
        assert check_info(api(pfs_server, "GET", "stat", "/a/b/c", status=200).json())["isDir"]


def test_pfs_copies_on_the_server(pfs_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two filesystems; our client is told how far it has come, and what went wrong."""
    pfs_server.mounts.mount(callfs.ROOT, "/memory", "memfs", {})
    for path in ("/d/f", "/d/e/g"):
        pfs_server.tree.write(callfs.ROOT, path, callfs.bytes_body(TEN))
    done = api(pfs_server, "POST", "copy", "/d", {"newPath": "/memory/d", "recursive": True}, status=200).json()
    assert done == {"message": "copied", "files": 2, "directories": 1, "bytes": 20, "left_out": 0}
    assert get_file(pfs_server, "/memory/d/e/g") == TEN
    api(pfs_server, "POST", "copy", "/d/f", {"newPath": "/memory/d/f", "overwrite": False}, status=409)
    api(pfs_server, "POST", "copy", "/d/f", {"newPath": "/memory/d"}, status=400)
    with callfs.PFSClient(pfs_server.url, pfs_server.key) as client:
        gate, read = threading.Event(), callfs.FileReader.read

        def slow(self: Any, size: int = callfs.BLOCK) -> bytes:
            gate.wait(WAIT)
            return read(self, size)
        monkeypatch.setattr(callfs.FileReader, "read", slow)
        pfs_server.tree.write(callfs.ROOT, "/big", callfs.bytes_body(bytes(1_000_000)))
        told = client.copy("/big", "/memory/big")
        gate.set()
        assert all(0 <= count <= 1_000_000 for count in told) and len(get_file(pfs_server, "/memory/big")) == 1_000_000
        for path, target, error in (("/none", "/x", callfs.FileNotFound), ("/d", "/d/x", callfs.BadRequest)):
            with pytest.raises(error):
                list(client.copy(path, target, True))


@pytest.mark.parametrize("options, status", [({"plugins": {"anonymous": "read"}}, 401), ({"plugins": {"anonymous": "write"}}, 200),
                                             ({"auth__mode": "read-only"}, 403), ({"auth__mode": "no-delete"}, 403), ({}, 200)])
def test_reading_alone_takes_no_message(serve: Callable[..., Any], options: Any, status: int) -> None:
    """Whoever may only look must not drain a queue; looking at it still works."""
    key = None if "anonymous" in options.get("plugins", {}) else "some-key-0123456789"
    plugins = {**options.get("plugins", {}), "queuefs": {"path": "/q"}}
    server = serve(**{"auth__api_key_users": {"ann": "some-key-0123456789"}, **options, "plugins": plugins})
    server.tree.write(callfs.ROOT, "/q/a/enqueue", callfs.bytes_body(b"m"))
    headers = {"Authorization": f"Bearer {key}" if key else None}
    assert call(server, "GET", "/api/v1/files?path=/q/a/peek", headers=headers).status == 200
    assert call(server, "GET", "/api/v1/files?path=/q/a/dequeue", headers=headers).status == status
    assert fetch(server.tree, "/q/a/size", callfs.ROOT) == (b"0" if status == 200 else b"1")


def test_stopping_ends_what_waits(serve: Callable[..., Any]) -> None:
    """Readers of a stream and of an empty queue end cleanly when the server stops, without its whole patience."""
    server = serve(plugins={"queuefs": {"path": "/q"}, "streamfs": {"path": "/s"}}, server__shutdown_timeout="60s")
    server.tree.mkdir(callfs.ROOT, "/q/a")
    server.tree.write(callfs.ROOT, "/s/live", callfs.bytes_body(b"so far"))
    at = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with socket.create_connection(at, 30) as stream, socket.create_connection(at, 30) as waiter:
        for sock, path in ((stream, "/v1/files/s/live?stream=true"), (waiter, "/v1/files/q/a/dequeue?wait=1h")):
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n\r\n".encode())
        assert read_until(stream, b"so far").startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        assert server.stop(30) and time.monotonic() - started < 20
        assert read_until(stream, b"\r\n0\r\n") == b"" and read_until(waiter, b"{}").startswith(b"HTTP/1.1 200")


def test_pfs_touch_and_truncate(pfs_server: Any) -> None:
    """Touch makes what is missing and moves the time; truncate cuts and fills up."""
    api(pfs_server, "POST", "touch", "/f", status=200)
    first = api(pfs_server, "GET", "stat", "/f", status=200).json()
    assert first["size"] == 0
    api(pfs_server, "PUT", "files", "/f", TEN, headers={"X-OC-Mtime": "1"}, status=200)
    api(pfs_server, "POST", "touch", "/f", status=200)
    assert api(pfs_server, "GET", "stat", "/f").json()["modTime"] > first["modTime"] and get_file(pfs_server, "/f") == TEN
    for size, left in (("4", TEN[:4]), ("6", TEN[:4] + b"\0\0"), ("0", b"")):
        api(pfs_server, "POST", "truncate?size=" + size, "/f", status=200)
        assert get_file(pfs_server, "/f") == left
    for size in ("", "-1", "x", "1.5"):
        api(pfs_server, "POST", "truncate?size=" + size, "/f", status=400)
    api(pfs_server, "POST", "truncate?size=999999999999999999", "/f", status=413)


@pytest.mark.parametrize("route", ["rename?path=/f", "chmod?path=/f", "mount", "unmount", "digest", "grep"])
@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"null", b'"text"', b"{", b"{}", b'{"newPath":1,"mode":[],"path":1}', b"\xff",
                                  b'{"newPath":null,"path":null}', b'{"newPath":{},"path":["/f"],"pattern":"x"}', b"[" * 100_000])
def test_pfs_bodies_that_are_none(pfs_server: Any, route: str, body: bytes) -> None:
    """No JSON, another type, a field of another type: 400."""
    put_file(pfs_server, "/f", b"x")
    api(pfs_server, "POST", route, None, body, status=400)


@pytest.mark.parametrize("body", [
    {"path": "/m", "fstype": "nofs"}, {"path": "/m", "fstype": 7}, {"path": "/m"}, {"fstype": "hellofs"}, {"path": "", "fstype": "hellofs"},
    {"path": "/m", "fstype": "hellofs", "config": {"unknown": 1}}, {"path": "/m", "fstype": "hellofs", "config": []},
    {"path": "/../m", "fstype": "hellofs"}])
def test_pfs_mounts_refused(pfs_server: Any, body: Any) -> None:
    api(pfs_server, "POST", "mount", None, body, status=400)
    assert api(pfs_server, "GET", "mounts", status=200).json() == {"mounts": []}


@pytest.mark.parametrize("kind", [None, "text/plain", "application/json", "application/x-www-form-urlencoded", "image/png"])
def test_pfs_bodies_are_json_whatever_they_are_called(pfs_server: Any, kind: Optional[str]) -> None:
    body = b' {"fstype":"hellofs","path":"/m","config":null,"comment":"unknown keys are ignored"}\n'
    api(pfs_server, "POST", "mount", None, body, headers={"Content-Type": kind}, status=200)
    assert api(pfs_server, "GET", "files", "/m/hello", role="user", status=200).body == b"Hello, World!\n"
    assert api(pfs_server, "GET", "mounts", role="user", status=200).json() == {
        "mounts": [{"path": "/m", "pluginName": "hellofs", "config": {}}]}
    api(pfs_server, "POST", "unmount", None, {"path": "/m"}, status=200)
    api(pfs_server, "GET", "files", "/m/hello", status=404)


def test_pfs_rename(pfs_server: Any) -> None:
    """Within the store, over what is there, into nothing, across a mount."""
    put_file(pfs_server, "/f", b"f")
    put_file(pfs_server, "/g", b"g")
    pfs_server.tree.mount("/p", PocketFS())
    api(pfs_server, "POST", "rename", "/f", {"newPath": "/g"}, status=409)
    api(pfs_server, "POST", "rename", "/f", {"newPath": "/absent/f"}, status=400)
    api(pfs_server, "POST", "rename", "/f", {"newPath": "/new"}, role="user", status=403)
    api(pfs_server, "POST", "rename", "/f", {"newPath": "/new"}, status=200)
    api(pfs_server, "POST", "rename", "/new", {"newPath": "/p/plain"}, status=409)
    assert api(pfs_server, "POST", "rename", "/p/plain", {"newPath": "/from-there"}, status=501).json()["error"]
    assert get_file(pfs_server, "/new") == b"f" and names_in(pfs_server, "/p") == ["drop", "live", "plain", "take"]
    api(pfs_server, "POST", "directories", "/d", status=201)
    api(pfs_server, "POST", "rename", "/d", {"newPath": "/d/inside"}, status=400)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_pfs_digest(pfs_server: Any, algorithm: str) -> None:
    data = os.urandom(700_000)
    put_file(pfs_server, "/f", data)
    wanted = {"algorithm": algorithm, "path": "/f", "digest": hashlib.new(algorithm, data).hexdigest()}
    assert api(pfs_server, "POST", "digest", None, {"algorithm": algorithm, "path": "/f"}, status=200).json() == wanted
    assert "md5" in api(pfs_server, "POST", "digest", None, {"algorithm": "xxh3", "path": "/f"}, status=400).json()["error"]


def test_pfs_search(pfs_server: Any) -> None:
    """All at once, and a line for each as it is found with one that sums up."""
    put_file(pfs_server, "/d/a", b"one\ntwo error\nthree\n")
    put_file(pfs_server, "/d/b/c", "ERROR \u00fc\nerror".encode())
    wanted = [{"file": "/d/a", "line": 2, "content": "two error"}, {"file": "/d/b/c", "line": 2, "content": "error"}]
    wish: dict[str, Any] = {"path": "/d", "pattern": "err+or", "recursive": True}
    assert api(pfs_server, "POST", "grep", None, wish, status=200).json() == {"matches": wanted, "count": 2}
    found = api(pfs_server, "POST", "grep", None, {**wish, "stream": True}, status=200)
    lines = found.body.decode().splitlines()
    assert [json.loads(line) for line in lines] == [*wanted, {"type": "summary", "count": 2}]
    assert found.headers["content-type"] == "application/x-ndjson" and "transfer-encoding" in found.headers
    folded = api(pfs_server, "POST", "grep", None, {**wish, "case_insensitive": True}, status=200).json()
    assert folded["count"] == 3 and folded["matches"][1]["content"] == "ERROR \u00fc"
    assert api(pfs_server, "POST", "grep", None, {**wish, "pattern": "nothing"}, status=200).json() == {"matches": [], "count": 0}
    for bad in ({"recursive": 1}, {"pattern": "("}, {"pattern": ""}, {"recursive": False}, {"stream": "yes"}):
        api(pfs_server, "POST", "grep", None, {**wish, **bad}, status=400)
        api(pfs_server, "POST", "grep", None, {**wish, "stream": True, **bad}, status=400)


def test_pfs_capabilities(pfs_server: Any) -> None:
    pfs_server.mounts.mount(callfs.ROOT, "/m", "hellofs", {})
    found = api(pfs_server, "GET", "capabilities", status=200).json()
    assert found["version"] == callfs.__version__ and {"rest", "pfs"} <= set(found["dialects"])
    assert found["filesystems"] == sorted(callfs.FILESYSTEMS) and "grep" in found["features"]
    there = api(pfs_server, "GET", "capabilities", "/m/x", status=200).json()
    assert (there["filesystem"], there["operations"]) == ("hellofs", ["stat", "open", "list"])
    assert "write" in api(pfs_server, "GET", "capabilities", "/absent", status=200).json()["operations"]


# ---- who may what -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("level, reads, writes", [("none", 401, 401), ("read", 200, 401), ("write", 200, 200)])
def test_pfs_anonymous(serve_users: Callable[..., Any], level: str, reads: int, writes: int) -> None:
    """`plugins.anonymous` opens this dialect and no other, and never what changes the server."""
    server = serve_users(plugins={"anonymous": level}, auth__admins=["ann"])
    put_file(server, "/f", b"x")
    for method, route, path, body, status in (
            ("GET", "files", "/f", None, reads), ("GET", "directories", "/", None, reads), ("GET", "mounts", None, None, reads),
            ("GET", "plugins", None, None, reads), ("GET", "capabilities", None, None, reads),
            ("PUT", "files", "/new", b"x", writes), ("POST", "touch", "/new", None, writes), ("DELETE", "files", "/new", None, 404 if level == "read" else writes),
            ("DELETE", "files", "/f", None, 403 if level == "write" else 401),
            ("POST", "mount", None, {"fstype": "hellofs", "path": "/m"}, 401), ("POST", "unmount", None, {"path": "/m"}, 401),
            ("POST", "plugins/load", None, {}, 401)):
        api(server, method, route, path, body, "nobody", status)
    ask(server, "GET", "/v1/files/f", headers=NO_KEY, status=401)
    api(server, "GET", "files", "/f", headers={"Authorization": "Bearer wrong-key-of-nobody"}, status=401)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json", None])
@pytest.mark.parametrize("method, route", [("POST", "rename?path=/f"), ("POST", "mount"), ("PUT", "files?path=/f"),
                                           ("DELETE", "files?path=/f"), ("POST", "files?path=/new"), ("POST", "touch?path=/f")])
def test_pfs_pages_of_other_sites_change_nothing(serve_users: Callable[..., Any], method: str, route: str,
                                                 kind: Optional[str]) -> None:
    """What a browser sends without asking first, to a server without keys and with the user's own."""
    server = serve_users(plugins={"anonymous": "write"}, auth__admins=["ann"])
    put_file(server, "/f", b"kept")
    body = b'{"newPath":"/gone","fstype":"hellofs","path":"/m"}'
    for key in ({}, basic(USERS["ann"])):
        for origin in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            sent = {"Authorization": None, "Content-Type": kind, **key, **origin}
            assert call(server, method, "/api/v1/" + route, body, sent).status == 403
        rebound = call(server, method, "/api/v1/" + route, body, {"Authorization": None, "Host": "evil.example", **key})
        assert rebound.status == 421
    assert names_in(server, "/") == ["f"] and get_file(server, "/f") == b"kept"
    own = {"Origin": server.url, "Authorization": basic(USERS["ann"])["Authorization"]}
    assert call(server, method, "/api/v1/" + route, body, own).status < 300


def test_pfs_upload_limit(serve_users: Callable[..., Any]) -> None:
    server = serve_users(server__max_upload_bytes=1000)
    api(server, "PUT", "files", "/f", bytes(1000), status=200)
    api(server, "PUT", "files", "/f", bytes(1001), status=413)
    api(server, "PUT", "files", "/f", iter([bytes(600), bytes(600)]), status=413)
    assert get_file(server, "/f") == bytes(1000)


# ---- clients of others ------------------------------------------------------------------------------------------

@pytest.fixture
def pypfs_client(serve_users: Callable[..., Any]) -> Iterator[Any]:
    """The Python client of PFS at a server for everybody; `client.server` is that."""
    pypfs = pytest.importorskip("pypfs")
    server = serve_users(plugins={"anonymous": "write"}, auth__admins=["ann"])
    client = pypfs.PFSClient(server.url)
    client.server = server
    yield client
    client.session.close()


def test_pypfs_every_method(pypfs_client: Any) -> None:
    client = pypfs_client
    assert client.health()["status"] == "healthy" and client.ls("/") == [] and client.list_plugins() == []
    assert client.mkdir("/d") == {"message": "directory created"} and client.create("/d/e") == {"message": "file created"}
    assert client.write("/d/f", TEN) == "OK" and client.cat("/d/f") == TEN
    assert client.cat("/d/f", offset=2, size=3) == b"234" and client.cat("/d/f", offset=50) == b""
    with client.cat("/d/f", stream=True) as streamed:
        assert b"".join(streamed.iter_content(3)) == TEN
    assert [check_info(one)["name"] for one in client.ls("/d")] == ["e", "f"]
    assert client.chmod("/d/f", 0o600) == {"message": "permissions changed"} and client.stat("/d/f")["mode"] == 0o600
    assert client.mv("/d/f", "/d/g") == {"message": "renamed"} and client.rm("/d/e") == {"message": "deleted"}
    assert client.grep("/d", "3", recursive=True)["count"] == 1
    assert list(client.grep("/d", "3", recursive=True, stream=True))[-1] == {"type": "summary", "count": 1}
    assert client.digest("/d/g", "md5")["digest"] == hashlib.md5(TEN).hexdigest()
    assert client.rm("/d", recursive=True) == {"message": "deleted"} and client.mounts() == []
    client.session.headers["Authorization"] = f"Bearer {USERS['ann']}"
    assert client.mount("hellofs", "/h", {}) == {"message": "plugin mounted"} and client.cat("/h/hello") == b"Hello, World!\n"
    assert client.mounts() == [{"path": "/h", "pluginName": "hellofs", "config": {}}]
    assert client.unmount("/h") == {"message": "plugin unmounted"} and client.ls("/") == []


PYPFS_ERRORS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("ls", lambda c: c.ls("/absent"), "No such file or directory"), ("cat", lambda c: c.cat("/absent"), "No such file"),
    ("cat of a directory", lambda c: c.cat("/d"), "directory"), ("write", lambda c: c.write("/d", b"x"), "directory"),
    ("create", lambda c: c.create("/f"), "already there"), ("mkdir", lambda c: c.mkdir("/d"), "already there"),
    ("rm", lambda c: c.rm("/d"), "not empty"), ("rm of nothing", lambda c: c.rm("/absent"), "No such file"),
    ("stat", lambda c: c.stat("/absent"), "No such file"), ("mv", lambda c: c.mv("/f", "/d/g"), "already there"),
    ("chmod", lambda c: c.chmod("/absent", 1), "No such file"), ("mount", lambda c: c.mount("hellofs", "/h", {}), "administrator"),
    ("unmount", lambda c: c.unmount("/h"), "administrator"), ("load", lambda c: c.load_plugin("./x.so"), "administrator"),
    ("unload", lambda c: c.unload_plugin("./x.so"), "administrator"), ("digest", lambda c: c.digest("/f"), "md5"),
    ("grep", lambda c: c.grep("/absent", "x"), "No such file"), ("path", lambda c: c.ls("/../x"), "leaves the root"),
]


@pytest.mark.parametrize("work, words", [row[1:] for row in PYPFS_ERRORS], ids=[row[0] for row in PYPFS_ERRORS])
def test_pypfs_errors_say_why(pypfs_client: Any, work: Callable[[Any], Any], words: str) -> None:
    """The client shows the text that the server gave."""
    for path in ("/f", "/d/g"):
        pypfs_client.write(path, b"x")
    with pytest.raises(sys.modules["pypfs"].PFSClientError, match=words):
        work(pypfs_client)


@pytest.mark.parametrize("stream", [False, True])
def test_pypfs_helpers(pypfs_client: Any, tmp_path: Path, stream: bool) -> None:
    """Trees up, across and down again are what they were."""
    helpers, source = sys.modules["pypfs"], tmp_path / "source"
    wanted = {"a.txt": b"a", "b/c.bin": os.urandom(300_000), "b/d/empty": b"", "b/\u00fc + %.txt": b"odd"}
    for name, data in wanted.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    helpers.upload(pypfs_client, str(source), "/up", recursive=True, stream=stream)
    helpers.cp(pypfs_client, "/up", "/copy", recursive=True, stream=stream)
    helpers.cp(pypfs_client, "/up/a.txt", "/deep/er/a.txt", stream=stream)
    helpers.download(pypfs_client, "/copy", str(tmp_path / "back"), recursive=True, stream=stream)
    found = {str(one.relative_to(tmp_path / "back")): one.read_bytes() for one in (tmp_path / "back").rglob("*") if one.is_file()}
    assert found == wanted and pypfs_client.cat("/deep/er/a.txt") == b"a"


@pytest.mark.parametrize("chunked", [False, True])
def test_requests_puts_20_megabytes(pfs_server: Any, chunked: bool) -> None:
    requests, data = pytest.importorskip("requests"), os.urandom(1 << 20) * 20
    sent = iter([data[place:place + 300_000] for place in range(0, len(data), 300_000)]) if chunked else data
    with requests.Session() as session:
        session.headers.update(Authorization=f"Bearer {pfs_server.key}")
        answer = session.put(pfs_server.url + "/api/v1/files", params={"path": "/large"}, data=sent, timeout=60)
        assert answer.json() == {"message": "OK"}
        answer = session.get(pfs_server.url + "/api/v1/files", params={"path": "/large"}, timeout=60)
        assert hashlib.sha256(answer.content).digest() == hashlib.sha256(data).digest()


def test_pfs_clients_that_vanish_hold_nothing(pfs_server: Any) -> None:
    put_file(pfs_server, "/large", os.urandom(8_000_000))
    for _ in range(5):
        connection = raw_socket(pfs_server.url)
        connection.sendall(head_of("GET", "/api/v1/files?path=/large&stream=true"))
        connection.recv(1000)
        connection.close()
        raw(pfs_server.url, head_of("PUT", "/api/v1/files?path=/cut", {"Content-Length": "1000"}) + b"half", half_close=True)
    wait_for(lambda: not holders_of(pfs_server, "/large"), what="the descriptors of the readers that left")
    assert names_in(pfs_server, "/") == ["large"] and not scratch_of(pfs_server)


# ---- the examples of the seed -----------------------------------------------------------------------------------

MESSAGE_SHOWN = r'\{"id": ?"\d{19}", ?"data": ?"First message", ?"timestamp": ?"[^"]+Z"\}'
# Mounts, the block as the seed has it, and of each curl its status and a pattern of what it prints.
SEED_EXAMPLES: dict[str, tuple[tuple[str, ...], str, list[tuple[int, str]]]] = {
    "queuefs": (("queuefs",), """
        # Create queue
        curl -X POST "http://localhost:8080/api/v1/directories?path=/queuefs/myqueue"
        # Enqueue messages
        curl -X PUT "http://localhost:8080/api/v1/files?path=/queuefs/myqueue/enqueue" \\
        -d "First message"
        curl -X PUT "http://localhost:8080/api/v1/files?path=/queuefs/myqueue/enqueue" \\
        -d "Second message"
        # Check size
        curl "http://localhost:8080/api/v1/files?path=/queuefs/myqueue/size"
        # Peek at next message
        curl "http://localhost:8080/api/v1/files?path=/queuefs/myqueue/peek"
        # Check peek file stat for poll offset
        curl "http://localhost:8080/api/v1/stat?path=/queuefs/myqueue/peek"
        # Dequeue message
        curl "http://localhost:8080/api/v1/files?path=/queuefs/myqueue/dequeue"
        # Clear queue
        curl -X PUT "http://localhost:8080/api/v1/files?path=/queuefs/myqueue/clear" -d ""
        # Delete queue
        curl -X DELETE "http://localhost:8080/api/v1/files?path=/queuefs/myqueue&recursive=true"
        """, [(201, "directory created"), (200, r'\{"message":"\d{19}"\}'), (200, r'\{"message":"\d{19}"\}'), (200, r"2\n?"),
              (200, MESSAGE_SHOWN), (200, r'.*"modTime":.*'), (200, MESSAGE_SHOWN), (200, ".*message.*"), (200, "deleted")]),
    "kvfs": (("kvfs",), """
        # Set
        curl -X PUT "http://localhost:8080/api/v1/files?path=/kvfs/keys/mykey" -d "myvalue"
        # Get
        curl "http://localhost:8080/api/v1/files?path=/kvfs/keys/mykey"
        # List
        curl "http://localhost:8080/api/v1/directories?path=/kvfs/keys"
        # Delete
        curl -X DELETE "http://localhost:8080/api/v1/files?path=/kvfs/keys/mykey"
        """, [(200, ".*message.*"), (200, "myvalue"), (200, '.*"name":"mykey".*'), (200, "deleted")]),
    "localfs": (("localfs",), """
        # List directory
        curl "http://localhost:8080/api/v1/directories?path=/local"
        # Read file
        curl "http://localhost:8080/api/v1/files?path=/local/file.txt"
        # Write file
        curl -X PUT "http://localhost:8080/api/v1/files?path=/local/output.txt" -d "content"
        # Create directory
        curl -X POST "http://localhost:8080/api/v1/directories?path=/local/newdir"
        """, [(200, '.*"name":"file.txt".*'), (200, "local text"), (200, ".*message.*"), (201, "directory created")]),
    "httpfs": (("httpfs", "memfs"), """
        # Dynamic mount
        curl -X POST http://localhost:8080/api/v1/mount \\
        -H "Content-Type: application/json" \\
        -d '{
        "fstype": "httpfs",
        "path": "/my-http",
        "config": {
        "pfs_path": "/memfs",
        "http_port": "10000"
        }
        }'
        # Check status
        curl "http://localhost:8080/api/v1/files?path=/my-http"
        # Access HTTP server
        curl http://localhost:10000/
        # Unmount
        curl -X POST http://localhost:8080/api/v1/unmount \\
        -H "Content-Type: application/json" \\
        -d '{"path": "/my-http"}'
        """, [(200, "plugin mounted"), (200, ".*Running.*"), (200, ".*"), (200, "plugin unmounted")]),
    "mounting memfs": (("memfs",), """
        curl -X POST http://localhost:8080/api/v1/mount \\
        -H "Content-Type: application/json" \\
        -d '{
        "fstype": "memfs",
        "path": "/test/memory",
        "config": {}
        }'
        curl http://localhost:8080/api/v1/mounts
        curl -X POST http://localhost:8080/api/v1/unmount \\
        -H "Content-Type: application/json" \\
        -d '{"path": "/test/memory"}'
        """, [(200, "plugin mounted"), (200, '.*"path":"/test/memory","pluginName":"memfs".*'), (200, "plugin unmounted")]),
    "plugins": ((), """
        # List loaded plugins
        curl http://localhost:8080/api/v1/plugins
        """, [(200, '.*"loaded_plugins".*')]),
    "hellofs and the store": ((), """
        curl -X POST http://localhost:8080/api/v1/mount \\
        -d '{"fstype": "hellofs", "path": "/helloc", "config": {}}'
        curl "http://localhost:8080/api/v1/files?path=/helloc/hello"
        curl -X PUT "http://localhost:8080/api/v1/files?path=/data/file.txt" -d "content"
        curl "http://localhost:8080/api/v1/files?path=/data/file.txt"
        curl -X POST http://localhost:8080/api/v1/unmount -d '{"path": "/helloc"}'
        """, [(200, "plugin mounted"), (200, "Hello, World!\n"), (200, "OK"), (200, "content"), (200, "plugin unmounted")]),
}
SEED_CONFIGS: dict[str, dict[str, Any]] = {
    "memfs": {"init_dirs": ["/home", "/tmp"]}, "queuefs": {}, "kvfs": {"initial_data": {"welcome": "Hello from PFS!"}}}


def run_curls(block: str, server: Any, replacements: Mapping[str, str] = {}) -> list[tuple[int, str]]:
    """Run a block of the seed in bash; of each curl its status and what it printed."""
    for old, new in {"http://localhost:8080": server.url, **replacements}.items():
        block = block.replace(old, new)
    function = (f'curl() {{ command curl -sS -w "\\n%{{http_code}}\\n--next--\\n" -H "Authorization: Bearer {server.key}" '
                '"$@" || echo "curl: $?"; }\n')
    done = subprocess.run([need_program("bash"), "-c", function + textwrap.dedent(block)], capture_output=True, text=True,
                          timeout=60)
    assert not done.stderr, done.stderr
    parts = [part.rsplit("\n", 2) for part in done.stdout.split("--next--\n")[:-1]]
    return [(int(status), text) for text, status, _ in parts]


@pytest.mark.parametrize("name", SEED_EXAMPLES)
def test_example_of_the_seed(serve_users: Callable[..., Any], tmp_path: Path, name: str) -> None:
    """Its curl lines with nothing changed but the address and a key; each kind runs as soon as it is there."""
    needs, block, wanted = SEED_EXAMPLES[name]
    missing = [kind for kind in needs if kind not in callfs.FILESYSTEMS]
    if missing:
        pytest.skip(f"{missing[0]} is not in this version")
    need_program("curl")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "file.txt").write_text("local text")
    configs = {**SEED_CONFIGS, "localfs": {"local_dir": str(tmp_path / "local")}}
    plugins = {kind: {"enabled": True, "path": "/local" if kind == "localfs" else f"/{kind}", "config": configs[kind]}
               for kind in needs if kind in configs}
    server = serve_users(plugins=plugins, auth__admins=["ann"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    found = run_curls(block, server, {"10000": port})
    assert [status for status, _ in found] == [status for status, _ in wanted], found
    for (_, text), (_, pattern) in zip(found, wanted):
        said = json.loads(text)["message"] if re.fullmatch(r'\{"message":"[^"]*"\}\s*', text) and "message" not in pattern else text
        assert re.fullmatch(pattern, said.rstrip("\n") if not pattern.endswith("\n") else said + "\n" * (said[-1:] != "\n"), re.S), found


# ============================================================================
# The remFS dialect: /fs
# ============================================================================

SEED_MOVE = '{\n  "method": "move",\n  "srcPath": "/path/to/item",\n  "dstPath": "/path/to/destination"\n}\n'
SEED_CONCAT = """{
  "method": "concat",
  "srcPaths": [
    "/path/to/file1",
    "/path/to/file2",
    "/path/to/file3"
  ],
  "dstPath": "/path/to/destination/file"
}
"""
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ALL_ON = {"read": True, "write": True, "events": True, "perf": True}


@pytest.fixture
def remfs(serve_users: Callable[..., Any]) -> Any:
    """A server with memfs at /mem, hellofs at /hello, a queue at /queue, and files of ann."""
    server = serve_users(plugins={"memfs": {"path": "/mem"}, "hellofs": {"path": "/hello"}, "queuefs": {"path": "/queue"}})
    for path, data in (("/d/f.txt", b"0123456789"), ("/d/page.html", b"<script>"), ("/d/sub/deep/x", b"x"), ("/mem/m", b"m")):
        put_file(server, path, data)
    return server


def fs(server: Any, method: str, path: str, body: Any = None, headers: Mapping[str, Optional[str]] = {}, status: Any = 200) -> Answer:
    """`ask` below /fs; the body of a page is not looked at."""
    return ask(server, method, "/fs" + path, body, headers, status)


def rpc(server: Any, wish: Any, rest: bytes = b"", status: Any = 200, headers: Mapping[str, Optional[str]] = {}) -> Answer:
    """`POST /fs/`: a line of JSON (or a text as it stands) and what follows it."""
    text = wish if isinstance(wish, (str, bytes)) else json.dumps(wish) + "\n"
    data = (text.encode() if isinstance(text, str) else text) + rest
    return fs(server, "POST", "/", data, {"Content-Type": "text/plain", **headers}, status)


def meta(server: Any, path: str = "", query: str = "", headers: Mapping[str, Optional[str]] = {}) -> Any:
    """`remfs.json` of a directory."""
    answer = fs(server, "GET", f"{path}/remfs.json{query}", headers=headers)
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


# ---- read -------------------------------------------------------------------------------------------------------

def test_get_of_urls_ending_in_remfs_json_returns_metadata_or_404(remfs: Any) -> None:
    found = meta(remfs, "/d")
    assert found["type"] == "dir" and found["features"] == ALL_ON and list(found) == ["type", "features", "children"]
    assert list(found["children"]) == ["f.txt", "page.html", "sub"] and found["children"]["sub"] == {"type": "dir"}
    file = found["children"]["f.txt"]
    assert (file["type"], file["size"]) == ("file", 10) and RFC3339.fullmatch(file["modTime"]) and len(file) == 3
    for path in ("/d/f.txt/remfs.json", "/none/remfs.json", "/d/none/remfs.json", "/hello/hello/remfs.json"):
        for method in ("GET", "HEAD"):
            fs(remfs, method, path, status=404)
    assert meta(remfs, "/d/%73ub") == meta(remfs, "/d/sub") and meta(remfs)["children"]["queue"]["type"] == "dir"
    whole, head = (fs(remfs, method, "/d/remfs.json") for method in ("GET", "HEAD"))
    assert head.headers["content-length"] == str(len(whole.body)) and not head.body


def test_depth_nests_children(remfs: Any) -> None:
    assert meta(remfs, "/d", "?depth=1") == meta(remfs, "/d")
    two = meta(remfs, "/d", "?depth=2")["children"]["sub"]
    assert two == {"type": "dir", "children": {"deep": {"type": "dir"}}}
    whole = meta(remfs, "", "?depth=100")["children"]
    assert list(whole["d"]["children"]["sub"]["children"]["deep"]["children"]) == ["x"] and whole["mem"]["children"]["m"]["size"] == 1
    fs(remfs, "PUT", "/empty?type=dir", status=201)
    assert meta(remfs, "", "?depth=2")["children"]["empty"] == {"type": "dir", "children": {}}
    for depth in ("0", "101", "-1", "x", "", "1e1", "9" * 5000, "%F0%9D%9F%8F"):
        fs(remfs, "GET", f"/d/remfs.json?depth={depth}", status=400 if len(depth) < 5000 else 414 if len(depth) > 8000 else 400)


def test_links_are_not_descended(serve_users: Any, tmp_path: Path) -> None:
    (tmp_path / "r" / "d").mkdir(parents=True)
    (tmp_path / "r" / "d" / "up").symlink_to("..")
    found = meta(serve_users(tmp_path / "r"), "", "?depth=100")["children"]
    assert found["d"]["children"]["up"]["type"] == "dir" and "children" not in found["d"]["children"]["up"]


def test_metadata_passes_over_what_is_gone_or_down(remfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = next(fs for path, fs in remfs.tree._table.mounts.items() if path == "/mem")
    for error in (callfs.Unavailable("down"), callfs.FileNotFound(), callfs.NotSupported(), callfs.BadGateway()):
        def fail(*args: Any) -> Any:
            raise error
        monkeypatch.setattr(memory, "list", fail)
        assert meta(remfs, "", "?depth=3")["children"]["mem"]["type"] == "dir"
        fs(remfs, "GET", "/mem/remfs.json", status=error.status)


def test_a_real_remfs_json_is_read_through_the_other_dialects(remfs: Any) -> None:
    fs(remfs, "PUT", "/d/remfs.json", b"mine", status=201)
    assert get_file(remfs, "/d/remfs.json") == b"mine" and meta(remfs, "/d")["children"]["remfs.json"]["size"] == 4
    fs(remfs, "DELETE", "/d/remfs.json", status=204)


def test_names_are_escaped(remfs: Any) -> None:
    names = ['"', "a b", "ü", "<b>", "#?%&;", "%41", "{path}", "'", "𝄞"]
    for name in names:
        put_file(remfs, "/odd/" + name, b"x")
    assert list(meta(remfs, "/odd")["children"]) == sorted(names)
    assert fs(remfs, "GET", "/odd/").body.decode().split("\n")[:-1] == sorted(names)
    assert [item["name"] for item in fs(remfs, "GET", "/odd/?json").json()] == sorted(names)
    for name in names:
        assert fs(remfs, "GET", quoted("/odd/" + name)).body == b"x"


def test_metadata_of_many_children_never_lies_in_memory(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, count = serve(), 3_000
    entries = [callfs.Entry(f"/name-{number:06d}", size=number, mtime_ns=1) for number in range(count)]
    monkeypatch.setattr(server.tree, "list", lambda who, path, after="": iter(entries))
    monkeypatch.setattr(callfs, "SPOOL_BYTES", 1000)
    describe = callfs._Description(server.tree, callfs.ROOT)
    tracemalloc.start()
    try:
        size = sum(map(len, describe.directory(callfs.Entry("/", "directory"), 1)))
        assert tracemalloc.get_traced_memory()[1] < 50_000 < size
    finally:
        tracemalloc.stop()
    assert len(meta(server)["children"]) == count


@pytest.mark.long
def test_metadata_of_100_000_children(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    for number in range(100_000):
        (tmp_path / "r" / f"n{number}").touch()
    assert len(meta(serve(tmp_path / "r"))["children"]) == 100_000


def test_get_on_files_returns_file_contents(remfs: Any) -> None:
    answer = fs(remfs, "GET", "/d/f.txt")
    assert answer.body == b"0123456789" and answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["etag"] and answer.headers["last-modified"] and answer.headers["accept-ranges"] == "bytes"
    fs(remfs, "GET", "/d/f.txt", headers={"If-None-Match": answer.headers["etag"]}, status=304)
    fs(remfs, "GET", "/d/f.txt", headers={"If-Match": '"other"'}, status=412)
    assert "content-disposition" not in answer.headers and "no-cache" in answer.headers["cache-control"]
    answer = fs(remfs, "GET", "/d/f.txt?download=1")
    assert answer.headers["content-disposition"].startswith("attachment;") and "f.txt" in answer.headers["content-disposition"]
    fs(remfs, "GET", "/d/f.txt/", status=404)
    fs(remfs, "GET", "/d/none", status=404)


@pytest.mark.parametrize("name, kind", [
    ("a.txt", "text/plain; charset=utf-8"), ("a.HTML", "text/html; charset=utf-8"), ("a.svg", "image/svg+xml"),
    ("a.tar.gz", "application/gzip"), ("a", "application/octet-stream"), (".txt", "text/plain; charset=utf-8"),
    ("a.jpg", "image/jpeg"), ("a.webm", "video/webm"), ("a.ps", "application/postscript"), ("a.bz2", "application/octet-stream"),
    ("a.js", "text/javascript; charset=utf-8"), ("a.{}", "application/octet-stream"), ("a.txt\r\nX: y", "application/octet-stream"),
])
def test_file_types_are_the_same_everywhere(name: str, kind: str) -> None:
    assert callfs.file_type(name) == kind


def test_stored_bytes_are_never_active(remfs: Any) -> None:
    """The sandbox and nosniff on every form of the answer; `ask` compares the whole policy."""
    answer = fs(remfs, "GET", "/d/page.html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8" and "sandbox" in answer.headers["content-security-policy"]
    for query in ("?range=bytes=0-1", "?range=bytes=0-0,2-2", "?download=1"):
        answer = fs(remfs, "GET", "/d/page.html" + query, headers=PAGE, status=(200, 206))
        assert "sandbox" in answer.headers["content-security-policy"]


RANGES = [                                  # of ten bytes
    ("bytes=0-3", 206, b"0123"), ("bytes=8-", 206, b"89"), ("bytes=-2", 206, b"89"), ("bytes=9-99", 206, b"9"), ("bytes=10-", 416, None),
    ("bytes=-0", 416, None), ("bytes=3-1", 200, None), ("lines=0-1", 200, None), ("bytes=a-b", 200, None), ("bytes=--1", 200, None),
    ("bytes=99-100,200-", 416, None), ("bytes=" + ",".join(["0-0"] * 17), 200, None), ("bytes=0-" + "9" * 40, 206, b"0123456789"),
]


@pytest.mark.parametrize("how", ["header", "query", "json"])
def test_all_file_gets_support_byte_range_request_queries(remfs: Any, how: str) -> None:
    def ranged(text: str, status: int, **more: str) -> Answer:
        if how == "json":
            return rpc(remfs, {"method": "get", "path": "/d/f.txt", "range": text}, status=status)
        query = "?range=" + text if how == "query" else ""
        return fs(remfs, "GET", "/d/f.txt" + query, headers={} if query else {"Range": text}, status=status)
    for text, status, body in RANGES:
        answer = ranged(text, status)
        assert body is None or answer.body == body, text
        assert status != 416 or answer.headers["content-range"] == "bytes */10"
    several = ranged("bytes=0-1,8-9", 206)
    assert several.headers["content-type"].startswith("multipart/byteranges") and several.body.count(b"Content-Range: bytes") == 2
    assert ranged("bytes=0-4,3-6", 206).body == b"0123456"      # what overlaps is one


def test_get_on_directories_returns_listings(remfs: Any) -> None:
    for path in ("/d", "", "/d/sub"):
        answer = fs(remfs, "GET", path + "?x=%22y%0d&z", status=301)
        assert answer.headers["location"] == f"/fs{path}/?x=%22y%0d&z"
    assert fs(remfs, "GET", "/d/").body == b"f.txt\npage.html\nsub/\n"          # curl: a name a line
    page = call(remfs, "GET", "/fs/d/", headers=PAGE)
    assert page.status == 200 and page.headers["content-type"].startswith("text/html") and b"page.html" in page.body
    items = fs(remfs, "GET", "/d/", headers={"Accept": "application/json"}).json()
    assert items == fs(remfs, "GET", "/d/?json", headers=PAGE).json() == ask(remfs, "GET", "/v1/files/d").json()
    for headers in ({}, PAGE, {"Accept": "application/json"}):
        assert "Accept" in call(remfs, "GET", "/fs/d/", headers=headers).headers["vary"]
    for query in ("", "?json", "?json&limit=1"):
        whole, head = (fs(remfs, method, "/d/" + query) for method in ("GET", "HEAD"))
        assert head.headers["content-length"] == str(len(whole.body)) and not head.body
    with zipfile.ZipFile(io.BytesIO(fs(remfs, "GET", "/d?archive=zip").body)) as archive:
        assert archive.read("d/f.txt") == b"0123456789"
    assert tarfile.open(fileobj=io.BytesIO(fs(remfs, "GET", "/d/?archive=tar").body)).getnames()[0] == "d/f.txt"
    fs(remfs, "GET", "/d/?archive=rar", status=400)
    fs(remfs, "GET", "/d/f.txt?archive=zip", status=400)


def test_pages_of_a_directory(remfs: Any) -> None:
    names, address = [], "/d/?json&limit=2"
    while address:
        answer = fs(remfs, "GET", address)
        names += [item["name"] for item in answer.json()]
        link = re.fullmatch(r'<(\?[^>]+)>; rel="next"', answer.headers.get("link", '<?>; rel="next"'))
        address = "/d/" + link[1] if link and len(link[1]) > 1 else ""
    assert names == ["f.txt", "page.html", "sub"]
    put_file(remfs, "/odd/a&b=>c", b"")
    put_file(remfs, "/odd/z", b"")
    link_of = fs(remfs, "GET", "/odd/?json&limit=1").headers["link"]
    assert [item["name"] for item in fs(remfs, "GET", "/odd/" + link_of[1:link_of.index(">")]).json()] == ["z"]
    assert fs(remfs, "GET", "/d/?limit=1&after=f.txt").body == b"page.html\n"
    for query in ("limit=0", "limit=-1", "limit=x", "after=%00", "after=%5c", "after=%ff", "limit=1&after=%0a"):
        for kind in ("json&", ""):
            fs(remfs, "GET", f"/d/?{kind}{query}", status=400)
    assert call(remfs, "GET", "/fs/d/?limit=x", headers=PAGE).status == 400


def test_a_page_gets_the_first_entries_and_the_features(remfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def listing(page: Any, request: Any, entry: Any, entries: Any, features: Any, more: str) -> Any:
        seen.append((entry.path, [each.name for each in entries], dict(features), more))
        return callfs.Response(200, b"page")
    monkeypatch.setattr(callfs.BrowserPage, "listing", listing)
    monkeypatch.setattr(callfs, "PAGE_ENTRIES", 2)
    for path in ("/d/", "/d/?after=page.html", "/hello/", "/d/?limit=3"):
        call(remfs, "GET", "/fs" + path, headers=PAGE)
    files = ["f.txt", "page.html"]
    assert seen[:2] == [("/d", files, ALL_ON, "page.html"), ("/d", ["sub"], ALL_ON, "")]
    assert seen[2][2]["write"] is False and seen[3][1:] == ([*files, "sub"], ALL_ON, "")


def test_head_gives_the_exact_number_of_bytes_also_while_an_upload_is_under_way(remfs: Any) -> None:
    fs(remfs, "PUT", "/up", b"", status=201)
    for size in (0, 5):
        with contextlib.closing(raw_socket(remfs.url)) as sender:
            sender.sendall(head_of("PATCH", "/fs/up", {"RemFS-Offset": str(size), "Content-Length": "100"}) + b"12345")
            wait_for(lambda: fs(remfs, "HEAD", "/up").headers["content-length"] == str(size + 5))
    wait_for(lambda: fs(remfs, "PATCH", "/up", b"end", {"RemFS-Offset": "10"}, (200, 503)).status == 200)   # a cut lets go of it
    assert fs(remfs, "GET", "/up").body == b"1234512345end"


def test_what_takes_messages_out_does_so_only_when_asked(remfs: Any) -> None:
    fs(remfs, "PUT", "/queue/q?type=dir", status=201)
    for text in (b"one", b"two"):
        assert fs(remfs, "PUT", "/queue/q/enqueue", text, status=(200, 201)).json()["message"]
    assert fs(remfs, "GET", "/queue/q/size").body == b"2"
    fs(remfs, "HEAD", "/queue/q/dequeue")
    for headers in ({"Sec-Fetch-Mode": "navigate"}, {"Sec-Purpose": "prefetch"}, {"Sec-Fetch-Dest": "image"}):
        fs(remfs, "GET", "/queue/q/dequeue", headers=headers, status=409)
    for foreign in ({"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        fs(remfs, "GET", "/queue/q/dequeue", headers={**basic(USERS["ann"]), **foreign}, status=409)
    fs(remfs, "GET", "/queue/q/dequeue?range=bytes=0-1", status=416)
    rpc(remfs, {"method": "get", "path": "/queue/q/dequeue", "range": "bytes=0-0"}, status=416)
    assert fs(remfs, "GET", "/queue/q/size").body == b"2"
    answer = fs(remfs, "GET", "/queue/q/dequeue")
    assert b"one" in answer.body and answer.headers["cache-control"] == "no-store" and "etag" not in answer.headers
    assert b"two" in rpc(remfs, {"method": "get", "path": "/queue/q/dequeue"}).body
    assert fs(remfs, "GET", "/queue/q/size").body == b"0"


# ---- features ---------------------------------------------------------------------------------------------------

def test_features_are_told_where_they_differ(remfs: Any) -> None:
    """"Features are assumed to be the same down the tree until new values are encountered"."""
    found = meta(remfs, "", "?depth=2")
    assert found["features"] == ALL_ON and "features" not in found["children"]["d"]
    hello = found["children"]["hello"]
    assert hello["features"] == {**ALL_ON, "write": False} and "features" not in hello["children"]["hello"]
    assert meta(remfs, "/hello")["features"]["write"] is False
    theirs = meta(remfs, "/d", headers=AS_BOB)["children"]
    assert theirs["f.txt"]["features"]["write"] is False and "features" not in theirs["sub"]
    fs(remfs, "PUT", "/queue/q?type=dir", status=201)
    assert meta(remfs, "/queue/q")["children"]["enqueue"]["features"]["read"] is False


def test_features_follow_rights_and_mounts(serve_users: Any, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    local = {"path": "/local", "config": {"local_dir": str(tmp_path / "local"), "read_only": True}}
    server = serve_users(auth__anonymous="read", plugins={"localfs": local})
    assert meta(server, headers=NO_KEY)["features"] == {**ALL_ON, "write": False}
    found = meta(server)
    assert found["features"] == ALL_ON and found["children"]["local"]["features"] == {**ALL_ON, "write": False}
    fs(server, "PUT", "/local/x", b"", status=403)
    for mode, write in (("read-only", False), ("no-delete", True)):
        other = serve_users(auth__mode=mode)
        assert meta(other)["features"] == {**ALL_ON, "write": write}
    upload = serve_users(auth__mode="upload-only")
    fs(upload, "GET", "/remfs.json", status=403)
    with pytest.raises(callfs.FileNotFound):
        server.tree.features(callfs.ROOT, "/none")


# ---- write ------------------------------------------------------------------------------------------------------

def test_put_creates_a_new_file_or_directory(remfs: Any) -> None:
    answer = fs(remfs, "PUT", "/new/dir/file", b"one", status=201)
    assert answer.headers["location"] == "/fs/new/dir/file" and answer.json()["size"] == 3
    assert fs(remfs, "PUT", "/new/dir/file", b"two", status=200).headers["etag"] != answer.headers["etag"]
    assert fs(remfs, "PUT", "/made/here?type=dir", status=201).json()["type"] == "directory"
    assert fs(remfs, "PUT", "/made/here/?type=dir", status=200).json()["path"] == "/made/here"
    fs(remfs, "PUT", "/plain?type=file", b"x", status=201)
    fs(remfs, "PUT", "/d/f.txt?type=dir", status=409)
    for path in ("/d", "/d/", "/x/", "/", "/x?type=link", "/x?type="):
        fs(remfs, "PUT", path, b"x", status=400)
    fs(remfs, "PUT", "/d/f.txt/below", b"x", status=409)
    fs(remfs, "PUT", "/new/dir/file", b"x", {"Content-Range": "bytes 0-0/1"}, 400)


def test_put_takes_conditions_digests_and_times(remfs: Any) -> None:
    digest = "sha-256=:" + base64.b64encode(hashlib.sha256(b"right").digest()).decode() + ":"
    fs(remfs, "PUT", "/d/f.txt", b"x", {"If-None-Match": "*"}, 412)
    fs(remfs, "PUT", "/d/f.txt", b"x", {"If-Match": '"other"'}, 412)
    fs(remfs, "PUT", "/d/f.txt", b"wrong", {"Content-Digest": digest}, 400)
    assert fs(remfs, "GET", "/d/f.txt").body == b"0123456789"
    etag = fs(remfs, "HEAD", "/d/f.txt").headers["etag"]
    answer = fs(remfs, "PUT", "/d/f.txt", b"right", {"Content-Digest": digest, "If-Match": etag, "X-OC-Mtime": "1000000000"})
    assert answer.json()["mtime"] == "2001-09-09T01:46:40Z"
    rpc(remfs, {"method": "put", "path": "/d/f.txt", "ifNoneMatch": "*"}, b"x", 412)
    rpc(remfs, {"method": "put", "path": "/d/f.txt", "digest": digest}, b"x", 400)
    told = rpc(remfs, {"method": "put", "path": "/d/f.txt", "digest": digest, "mtime": 1e9, "ifMatch": answer.headers["etag"]}, b"right").json()
    assert told["mtime"] == "2001-09-09T01:46:40Z"
    fs(remfs, "DELETE", "/d/f.txt", headers={"If-Match": '"other"'}, status=412)
    rpc(remfs, {"method": "delete", "path": "/d/f.txt", "ifMatch": '"other"'}, status=412)


def test_patch_modifies_an_existing_file_at_the_offset_of_the_header(remfs: Any) -> None:
    for offset, data, status, whole in ((0, b"ab", 200, b"ab23456789"), (10, b"cd", 200, b"ab23456789cd"), (11, b"XYZ", 200, b"ab23456789cXYZ"),
                                        (15, b"no", 416, b"ab23456789cXYZ"), (14, b"", 200, b"ab23456789cXYZ")):
        answer = fs(remfs, "PATCH", "/d/f.txt", data, {"RemFS-Offset": str(offset)}, status)
        assert fs(remfs, "GET", "/d/f.txt").body == whole
        assert status != 416 or answer.headers["content-range"] == "bytes */14"
    for offset in (None, "", "-1", "1.5", "x", "0x1", " ", "1,2", "９", "1" * 19):
        headers = {"RemFS-Offset": offset.encode("utf-8").decode("latin-1")} if offset is not None else {}
        fs(remfs, "PATCH", "/d/f.txt", b"no", headers, 400)
    fs(remfs, "PATCH", "/d/f.txt", b"no", {"RemFS-Offset": "1" * 18}, 416)
    fs(remfs, "PATCH", "/none", b"no", {"RemFS-Offset": "0"}, 404)
    fs(remfs, "PATCH", "/d", b"no", {"RemFS-Offset": "0"}, 400)
    fs(remfs, "PATCH", "/d/f.txt", b"no", {"RemFS-Offset": "0", "If-Match": '"other"'}, 412)
    fs(remfs, "PATCH", "/d/f.txt", b"no", {"RemFS-Offset": "0", **AS_BOB}, 403)


def test_a_reader_never_gets_a_mix_of_a_patch_that_fails(remfs: Any) -> None:
    """Each request's bytes appear in order, prefix first; who reads meanwhile reads the version it opened."""
    with contextlib.closing(raw_socket(remfs.url)) as sender:
        sender.sendall(head_of("PATCH", "/fs/d/f.txt", {"RemFS-Offset": "2", "Content-Length": "6"}) + b"abc")
        assert fs(remfs, "GET", "/d/f.txt").body == b"0123456789"
    wait_for(lambda: fs(remfs, "GET", "/d/f.txt").body == b"01abc56789")


def test_delete_removes_the_item(remfs: Any) -> None:
    fs(remfs, "DELETE", "/d/sub?recursive=false", status=409)
    fs(remfs, "DELETE", "/d/f.txt/", status=404)
    fs(remfs, "DELETE", "/d/f.txt", status=204)
    fs(remfs, "DELETE", "/d/", status=204)
    for path in ("/d", "/d/f.txt", "/none"):
        fs(remfs, "DELETE", path, status=404)
    fs(remfs, "DELETE", "/", status=400)
    fs(remfs, "DELETE", "/mem", status=409)
    put_file(remfs, "/e/theirs", b"x", AS_BOB)
    fs(remfs, "DELETE", "/e/theirs", status=403)


# ---- addresses --------------------------------------------------------------------------------------------------

def test_the_root_sends_a_browser_to_the_page_and_tells_a_program(remfs: Any) -> None:
    answer = call(remfs.url, "GET", "/", headers=PAGE)
    assert (answer.status, answer.headers["location"]) == (302, "/fs/") and "Accept" in answer.headers["vary"]
    answer = ask(remfs.url, "GET", "/", status=200)
    assert answer.json()["dialects"]["remfs"] == "/fs/" and answer.json()["version"] == callfs.__version__ and answer.body.count(b"\n") == 1
    assert ask(remfs.url, "HEAD", "/", status=200).headers["content-length"] == str(len(answer.body))


def test_a_path_prefix_is_in_every_address(serve_users: Any) -> None:
    server = serve_users(server__path_prefix="/pre/fix")
    url = server.url[:-len("/pre/fix")]
    at = callfs.functools.partial(call, url)
    assert at("GET", "/pre/fix/", headers=PAGE).headers["location"] == "/pre/fix/fs/"
    assert at("PUT", "/pre/fix/fs/d/ü".encode().decode("latin-1").replace("Ã¼", "%C3%BC"), b"x", AS_ANN).headers["location"] == "/pre/fix/fs/d/%C3%BC"
    assert at("GET", "/pre/fix/fs/d?json", headers=AS_ANN).headers["location"] == "/pre/fix/fs/d/?json"
    assert at("POST", "/pre/fix/fs/", b'{"method":"mkdir","path":"/m"}', AS_ANN).headers["location"] == "/pre/fix/fs/m"
    assert at("GET", "/fs/", headers=AS_ANN).status == 404
    with callfs.RemFSClient(server.url + "/fs", USERS["ann"]) as client:
        assert [info.name for info in client.list("/")] == ["d", "m"] and client.read("/d/ü") == b"x"


@pytest.mark.parametrize("path", ["//evil.example", "//evil.example/..", "/%2fevil.example", "/%2f%2fevil.example/x/..", "//d", "/./d", "/d/sub/.."])
def test_no_redirect_leaves_the_server(remfs: Any, path: str) -> None:
    put_file(remfs, "/evil.example/x", b"")
    answer = fs(remfs, "GET", path, status=(301, 404))
    location = answer.headers.get("location", "/fs/")
    assert location.startswith("/fs/") and not location.startswith("//") and "\\" not in location


BAD_PATHS = ["/..", "/d/../..", "/%2e%2e", "/d/%2e%2e/%2e%2e/x", "/..%2fx", "/a%5cb", "/%00", "/x%0d%0aY:%20z", "/%ff", "/%e2%80%ae", "/" + "x" * 256]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths_are_refused_by_every_method(remfs: Any, path: str) -> None:
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        for end in ("", "/", "/remfs.json", "?type=dir", "?events=true", "?archive=zip"):
            fs(remfs, method, path + end, None, {"RemFS-Offset": "0"}, 400)


@pytest.mark.parametrize("path", ["/..", "/a/../..", "/a\\b", "/\0", "/x\r\n", "/\u202e", "/" + "x" * 256, "", "relative", "../x", 7, None, [], {}, "/\ud800"])
def test_bad_paths_in_json_are_refused(remfs: Any, path: Any) -> None:
    for wish in ({"method": "get", "path": path}, {"method": "put", "path": path, "data": "x"}, {"method": "delete", "path": path}, {"method": "events", "path": path},
                 {"method": "move", "srcPath": path, "dstPath": "/x"}, {"method": "move", "srcPath": "/d", "dstPath": path},
                 {"method": "concat", "srcPaths": [path], "dstPath": "/x"}, {"method": "concat", "srcPaths": ["/d/f.txt"], "dstPath": path}):
        rpc(remfs, wish, status=400)


def test_other_methods_are_405_with_allow(remfs: Any) -> None:
    for method, path, allow in (("POST", "/d/f.txt", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"), ("PUT", "", "GET, HEAD, OPTIONS, POST"), ("DELETE", "", "GET, HEAD, OPTIONS, POST")):
        assert fs(remfs, method, path, b"", status=405).headers["allow"] == allow
    assert ask(remfs, "PUT", "/", b"", status=405).headers["allow"] == "GET, HEAD, OPTIONS"


# method, path, body, headers, status for: nobody, somebody without a key who may read, another user, the owner
RIGHTS = [
    ("GET", "/d/f.txt", None, {}, (401, 200, 200, 200)), ("GET", "/d/", None, {}, (401, 200, 200, 200)),
    ("GET", "/d/remfs.json", None, {}, (401, 200, 200, 200)), ("HEAD", "/d/f.txt", None, {}, (401, 200, 200, 200)),
    ("PATCH", "/d/f.txt", b"x", {"RemFS-Offset": "0"}, (401, 401, 403, 200)), ("PUT", "/d/f.txt", b"x", {}, (401, 401, 403, 200)),
    ("PUT", "/d/new", b"x", {}, (401, 401, 201, 403)), ("PUT", "/d/newdir?type=dir", None, {}, (401, 401, 201, 200)),
    ("POST", "/", b'{"method":"get","path":"/d/f.txt"}', {}, (401, 200, 200, 200)), ("POST", "/", b'{"method":"put","path":"/d/f.txt"}\nx', {}, (401, 401, 403, 200)),
    ("POST", "/", b'{"method":"concat","srcPaths":["/d/f.txt"],"dstPath":"/d/f.txt"}', {}, (401, 401, 403, 200)),
    ("POST", "/", b'{"method":"concat","srcPaths":["/d/f.txt"],"dstPath":"/y","deleteSources":true}', {}, (401, 401, 403, 201)),
    ("POST", "/", b'{"method":"move","srcPath":"/y","dstPath":"/d/f.txt"}', {}, (401, 401, 403, 200)),
    ("POST", "/", b'{"method":"delete","path":"/d/f.txt"}', {}, (401, 401, 403, 204)), ("DELETE", "/d/page.html", None, {}, (401, 401, 403, 204)),
]


def test_rights_of_every_method(serve_users: Any, tmp_path: Path) -> None:
    closed, server = serve_users(), serve_users(auth__anonymous="read")
    for path, data in (("/d/f.txt", b"0123"), ("/d/page.html", b"")):
        put_file(server, path, data)
    for method, path, body, headers, statuses in RIGHTS:
        for where, who, status in zip((closed, server, server, server), (NO_KEY, NO_KEY, AS_BOB, AS_ANN), statuses):
            fs(where, method, path, body, {"Content-Type": "text/plain", **headers, **who}, status)


def test_errors_are_json_for_programs_and_a_page_for_people(remfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fs(remfs, "GET", "/none", status=404).json() == {"code": "FILE_NOT_FOUND", "message": "No such file or directory."}
    monkeypatch.setattr(callfs.BrowserPage, "error", lambda page, request, error: callfs.Response(error.status, b"a page"))
    assert call(remfs, "GET", "/fs/none", headers=PAGE).body == b"a page"
    assert call(remfs, "PUT", "/fs/", b"", PAGE).json()["code"] == "BAD_REQUEST"        # no visit: a script's


# ---- events, perf -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", ["/", "/d", "/d/f.txt", "/d/remfs.json", "/not/there", "/queue"])
def test_all_paths_support_the_query_parameter_events(remfs: Any, path: str) -> None:
    with contextlib.closing(raw_socket(remfs.url)) as connection:
        connection.sendall(head_of("GET", f"/fs{path}?events=true"))
        assert b"text/event-stream" in wait_until(connection, b"\r\n\r\n")
    body = json.dumps({"method": "events", "path": path, "since": 1}).encode()
    with contextlib.closing(raw_socket(remfs.url)) as connection:
        connection.sendall(head_of("POST", "/fs/", {"Content-Length": str(len(body))}) + body)
        assert b"event: reset" in wait_until(connection, b"event: reset")
    assert fs(remfs, "HEAD", path + "?events=true").headers["content-type"].startswith("text/event-stream")
    fs(remfs, "GET", path + "?events=true&since=x", status=400)


def wait_until(connection: socket.socket, end: bytes) -> bytes:
    """What comes until `end` is in it."""
    found = b""
    while end not in found:
        block = connection.recv(65536)
        assert block, found
        found += block
    return found


def test_json_post_move_as_the_seed_has_it(remfs: Any) -> None:
    put_file(remfs, "/path/to/item", b"item")
    assert rpc(remfs, SEED_MOVE).json()["path"] == "/path/to/destination"
    assert fs(remfs, "GET", "/path/to/destination").body == b"item"
    fs(remfs, "GET", "/path/to/item", status=404)
    rpc(remfs, SEED_MOVE, status=404)


def test_json_post_concat_as_the_seed_has_it(remfs: Any) -> None:
    for number in (1, 2, 3):
        put_file(remfs, f"/path/to/file{number}", b"%d" % number * number)
    answer = rpc(remfs, SEED_CONCAT, status=201)
    assert answer.headers["location"] == "/fs/path/to/destination/file" and answer.json()["size"] == 6
    assert fs(remfs, "GET", "/path/to/destination/file").body == b"122333"
    assert rpc(remfs, SEED_CONCAT, status=200).json()["size"] == 6
    for number in (1, 2, 3):
        fs(remfs, "HEAD", f"/path/to/file{number}")


def test_move_takes_overwrite(remfs: Any) -> None:
    wish = {"method": "move", "srcPath": "/d/f.txt", "dstPath": "/d/page.html"}
    rpc(remfs, wish, status=409)
    rpc(remfs, {**wish, "overwrite": True})
    assert fs(remfs, "GET", "/d/page.html").body == b"0123456789"
    assert rpc(remfs, {"method": "move", "srcPath": "/d", "dstPath": "/mem/made/dir"}).json()["type"] == "directory"    # across filesystems
    assert meta(remfs, "/mem/made/dir", "?depth=3")["children"]["sub"]["children"]["deep"]["children"]["x"]["size"] == 1
    rpc(remfs, {"method": "move", "srcPath": "/mem/made", "dstPath": "/mem/made/dir/below"}, status=400)
    rpc(remfs, {"method": "move", "srcPath": "/hello/hello", "dstPath": "/x"}, status=(403, 501))
    rpc(remfs, {"method": "move", "srcPath": "/", "dstPath": "/x"}, status=400)


def test_every_request_can_be_sent_as_json(remfs: Any) -> None:
    """Each beside the plain one: the same status, body and headers that matter."""
    same = [("meta", {"path": "/d", "depth": 2}, "GET", "/d/remfs.json?depth=2"), ("get", {"path": "/d/f.txt"}, "GET", "/d/f.txt"), ("get", {"path": "/d"}, "GET", "/d/"),
            ("get", {"path": "/d/remfs.json"}, "GET", "/d/remfs.json"), ("list", {"path": "/d", "limit": 1, "after": "f.txt"}, "GET", "/d/?json&limit=1&after=f.txt"),
            ("get", {"path": "/d", "json": True}, "GET", "/d/?json"), ("get", {"path": "/d/f.txt", "download": True}, "GET", "/d/f.txt?download=1"),
            ("get", {"path": "/none"}, "GET", "/none"), ("get", {"path": "/d/f.txt/"}, "GET", "/d/f.txt/"), ("meta", {"path": "/d", "depth": 0}, "GET", "/d/remfs.json?depth=0"),
            ("patch", {"path": "/none", "offset": 0}, "PATCH", "/none"), ("patch", {"path": "/d/f.txt", "offset": -1}, "PATCH", "/d/f.txt"), ("delete", {"path": "/none"}, "DELETE", "/none"),
            ("mkdir", {"path": "/d"}, "PUT", "/d?type=dir"), ("mkdir", {"path": "/d/f.txt"}, "PUT", "/d/f.txt?type=dir"), ("put", {"path": "/d"}, "PUT", "/d")]
    for name, fields, method, path in same:
        one = rpc(remfs, {"method": name, **fields}, status=None)
        other = fs(remfs, method, path, headers={"RemFS-Offset": str(fields.get("offset", 0))}, status=None)
        assert (one.status, one.body) == (other.status, other.body), (name, fields)
        for header in ("content-type", "etag", "content-disposition", "link", "cache-control"):
            assert one.headers.get(header) == other.headers.get(header), (name, fields, header)
    told = rpc(remfs, {"method": "stat", "path": "/d/f.txt"})
    assert told.json()["size"] == 10 and told.headers["etag"] == fs(remfs, "HEAD", "/d/f.txt").headers["etag"]
    assert rpc(remfs, {"method": "mkdir", "path": "/j/k"}, status=201).headers["location"] == "/fs/j/k"
    rpc(remfs, {"method": "delete", "path": "/j", "recursive": False}, status=409)
    rpc(remfs, {"method": "delete", "path": "/j"}, status=204)


def test_put_and_patch_take_what_follows_the_first_line(remfs: Any) -> None:
    rpc(remfs, {"method": "put", "path": "/j"}, b"\nline\n\0\xff{}", 201)
    assert fs(remfs, "GET", "/j").body == b"\nline\n\0\xff{}"
    rpc(remfs, {"method": "patch", "path": "/j", "offset": 1}, b"LINE")
    assert fs(remfs, "GET", "/j").body == b"\nLINE\n\0\xff{}"
    rpc(remfs, {"method": "put", "path": "/j", "data": "text ü"})
    rpc(remfs, {"method": "patch", "path": "/j", "offset": 7, "data": "!"})
    assert fs(remfs, "GET", "/j").body == "text ü!".encode()
    for empty in ('{"method":"put","path":"/j"}', '{"method":"put","path":"/j"}\n', '{"method":"put","path":"/j","data":""}\n'):
        assert rpc(remfs, empty).json()["size"] == 0
    rpc(remfs, {"method": "put", "path": "/j", "data": "x"}, b"more", 400)
    rpc(remfs, {"method": "get", "path": "/j"}, b"more", 400)
    rpc(remfs, {"method": "get", "path": "/j"}, b" \r\n")
    rpc(remfs, {"method": "patch", "path": "/j", "offset": 9}, b"x", 416)


def test_the_bytes_behind_the_json_never_lie_in_memory(remfs: Any) -> None:
    block, count, digest = os.urandom(1 << 20), 24, hashlib.sha256()
    first = b'{"method":"put","path":"/large"}\n'

    def blocks() -> Iterator[bytes]:
        yield first
        for _ in range(count):
            yield block
    for _ in range(count):
        digest.update(block)
    for headers in ({}, {"Content-Length": str(len(first) + count * len(block))}):
        tracemalloc.start()
        try:
            fs(remfs, "POST", "/", blocks(), {"Content-Type": "text/plain", **headers}, (200, 201))
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
        head = fs(remfs, "HEAD", "/large").headers
        assert head["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_the_first_line_may_come_in_pieces(remfs: Any, size: int) -> None:
    data = b'{"method":"put","path":"/pieces"}\nthe rest\nof it'
    body = callfs.FileBody(io.BytesIO(data), len(data))
    small = callfs.Body()
    small.length = len(data)
    small.readinto = lambda view: body.readinto(view[:size])            # type: ignore[method-assign]
    wish, rest = callfs.take_call(small)
    assert wish == {"method": "put", "path": "/pieces"} and rest.length == 14 and rest.read(100) == b"the rest\nof it"
    rest.patient = True
    assert small.patient


def test_an_upload_by_json_that_is_cut_changes_nothing_or_stays_as_a_prefix(remfs: Any) -> None:
    for line, path, left in (('{"method":"put","path":"/cut"}\n', "/cut", None), ('{"method":"patch","path":"/d/f.txt","offset":10}\n', "/d/f.txt", b"0123456789abc")):
        with contextlib.closing(raw_socket(remfs.url)) as sender:
            sender.sendall(head_of("POST", "/fs/", {"Content-Length": str(len(line) + 10)}) + line.encode() + b"abc")
        if left is None:
            wait_for(lambda: not scratch_of(remfs))
            fs(remfs, "GET", path, status=404)
        else:
            wait_for(lambda: fs(remfs, "GET", path).body == left)


BAD_JSON = [
    b"", b"\n", b"{", b"nonsense", b"[]", b'"get"', b"null", b"{}", b'{"method":7}', b'{"method":null}', b'{"method":"zip"}', b'{"method":["get"]}', b'{"method":"get"}',
    b'{"method":"get","path":"/d","range":7}', b'{"method":"get","path":"/d","rnage":"x"}', b'{"method":"meta","path":"/d","depth":"1"}', b'{"method":"meta","path":"/d","depth":true}',
    b'{"method":"meta","path":"/d","depth":1.5}', b'{"method":"patch","path":"/d/f.txt","offset":"0"}', b'{"method":"patch","path":"/d/f.txt"}', b'{"method":"patch","path":"/d/f.txt","offset":1e2}',
    b'{"method":"patch","path":"/d/f.txt","offset":-1}', b'{"method":"patch","path":"/d/f.txt","offset":' + b"9" * 300 + b"}", b'{"method":"delete","path":"/d","recursive":"no"}',
    b'{"method":"put","path":"/x","data":7}', b'{"method":"put","path":"/x","data":"\\ud800"}', b'{"method":"put","path":"/x","mtime":"1"}', b'{"method":"put","path":"/x","mtime":NaN}',
    b'{"method":"put","path":"/x","mtime":-1}', b'{"method":"put","path":"/x","mtime":true}', b'{"method":"get","path":"/d","after":"\\ud800"}', b'{"method":"put","path":"/x","digest":"sha-256=:x:"}',
    b'{"method":"move","srcPath":"/d"}', b'{"method":"move","dstPath":"/d"}', b'{"method":"move","srcPath":"/d","dstPath":"/e","overwrite":"yes"}', b'{"method":"move","srcPath":"/d","dstPath":"/e","path":"/"}',
    b'{"method":"concat","dstPath":"/x"}', b'{"method":"concat","srcPaths":[],"dstPath":"/x"}', b'{"method":"concat","srcPaths":"/d/f.txt","dstPath":"/x"}', b'{"method":"concat","srcPaths":["/d/f.txt",7],"dstPath":"/x"}',
    b'{"method":"concat","srcPaths":["/d/f.txt"],"dstPath":"/x","deleteSources":1}', b'{"method":"concat","srcPaths":["/d/f.txt"],"dstPath":"/"}', b'{"method":"get",\n"path":"/d/f.txt"} more',
    b"\xff\xfe{}", b'{"a":' * 20_000, b'{"method":"get","path":"/\xff"}', b'{"method":"get","path":"/d/f.txt"}{"method":"get"}', b"1" * 5000,
]


def test_conditions_in_json_are_those_of_one_request(remfs: Any) -> None:
    """What is worked out from the headers is kept while a connection sends the same ones; the JSON is none of them."""
    guarded, plain = (json.dumps({"method": "put", "path": "/d/f.txt", "data": "x", name: '"other"'}).encode() for name in ("ifMatch", "digest"))
    plain = plain.replace(b', "digest": "\\"other\\""', b"").ljust(len(guarded))
    with contextlib.closing(connect(remfs.url)) as connection:
        for body, status in ((guarded, 412), (plain, 200), (guarded, 412)):
            connection.request("POST", "/fs/", body, {"Content-Type": "text/plain", **AS_ANN})
            answer = connection.getresponse()
            assert answer.status == status, answer.read()
            answer.read()


def test_json_that_is_none_is_refused(remfs: Any) -> None:
    for text in BAD_JSON:
        for kind in ("text/plain", "application/json; charset=utf-8"):
            assert rpc(remfs, text, status=400, headers={"Content-Type": kind}).json()["message"], text
    assert meta(remfs, "/d")["children"].keys() == {"f.txt", "page.html", "sub"}
    fs(remfs, "GET", "/x", status=404)


def test_the_json_has_a_limit_and_a_content_type(remfs: Any) -> None:
    for text in (b'{"method":"get","path":"/' + b"x" * callfs.MAX_CALL + b'"}\n', b" " * (callfs.MAX_CALL + 70_000), b"{\n" + b" " * (callfs.MAX_CALL + 70_000)):
        rpc(remfs, text, status=413)
        rpc(remfs, [], status=400, headers={"Content-Type": "application/x-www-form-urlencoded"})
    long = {"method": "concat", "srcPaths": ["/d/f.txt"] * 10_000, "dstPath": "/many"}
    assert rpc(remfs, long, status=201).json()["size"] == 100_000
    assert fs(remfs, "POST", "", b'{"method":"stat","path":"/many"}', {"Content-Type": "Text/Plain;charset=UTF-8"}).json()["size"] == 100_000
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    fs(remfs, "POST", "/", b"--x", multipart, 400)


def test_an_upload_by_json_has_the_limit_of_others(serve_users: Any) -> None:
    server = serve_users(server__max_upload_bytes=1000)
    rpc(server, {"method": "put", "path": "/f"}, b"x" * 900, 201)
    rpc(server, {"method": "put", "path": "/f"}, b"x" * 1001, 413)
    assert fs(server, "GET", "/f").body == b"x" * 900


CROSS = [                                   # sign-in, headers, status of what reads, of what changes, both by POST; of GET
    ("bearer", {"Origin": FOREIGN}, 200, 201, 200), ("bearer", {"Sec-Fetch-Site": "cross-site"}, 200, 201, 200), ("basic", {}, 200, 201, 200),
    ("basic", {"Origin": FOREIGN}, 403, 403, 200), ("basic", {"Origin": "null"}, 403, 403, 200), ("basic", {"Origin": OWN}, 200, 201, 200),
    ("basic", {"Origin": LISTED}, 200, 201, 200), ("basic", {"Sec-Fetch-Site": "cross-site"}, 403, 403, 200), ("basic", {"Sec-Fetch-Site": "same-site"}, 403, 403, 200),
    ("basic", {"Sec-Fetch-Site": "same-origin"}, 200, 201, 200), ("basic", {"Sec-Fetch-Site": "none"}, 200, 201, 200), ("basic", {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"}, 200, 201, 200),
    ("basic", {"Origin": OWN + "0"}, 403, 403, 200), ("basic", {"Origin": ""}, 403, 403, 200), ("basic", {"Origin": LISTED + ".evil.example"}, 403, 403, 200),
    ("basic", {"Host": "evil.example", "Origin": "http://evil.example"}, 421, 421, 421), ("anonymous", {"Host": "evil.example"}, 421, 421, 421),
    ("bearer", {"Host": "evil.example"}, 200, 201, 200), ("anonymous", {}, 200, 201, 200), ("anonymous", {"Origin": FOREIGN}, 403, 403, 200),
    ("anonymous", {"Sec-Fetch-Site": "cross-site"}, 403, 403, 200), ("anonymous", {"Origin": OWN}, 200, 201, 200), ("wrong", {"Origin": FOREIGN}, 401, 401, 401),
]


def test_cross_origin_security_measures(serve_users: Any) -> None:
    """"Implementing servers must make sure to implement proper cross-origin security measures": no preflight protects
    a POST of text/plain."""
    server = serve_users(server__cors_origins=[LISTED], auth__anonymous="write")
    put_file(server, "/f", b"x", {**NO_KEY})
    signs = {"basic": basic(USERS["ann"]), "anonymous": NO_KEY, "bearer": AS_ANN, "wrong": basic("nobody's-key-0123456789")}
    for number, (kind, headers, reads, changes, gets) in enumerate(CROSS):
        given = {**signs[kind], "Host": "127.0.0.1:1", **headers}
        answer = rpc(server, {"method": "get", "path": "/f"}, status=reads, headers=given)
        rpc(server, {"method": "put", "path": f"/new-{number}", "data": "x"}, status=changes, headers=given)
        fs(server, "PUT", f"/put-{number}", b"x", given, changes)
        fs(server, "PATCH", "/f", b"x", {**given, "RemFS-Offset": "9"}, changes if changes != 201 else (403, 416))
        fs(server, "GET", "/f", headers=given, status=gets)
        origin = headers.get("Origin")
        assert answer.headers.get("access-control-allow-origin") == (LISTED if origin == LISTED else None)
    assert not [item for item in meta(server)["children"] if item.startswith(("new", "put")) and CROSS[int(item[4:])][3] != 201]
    asked = {"Origin": LISTED, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "remfs-offset,authorization"}
    allowed = fs(server, "OPTIONS", "/f", headers={**NO_KEY, **asked}, status=204).headers
    assert "PATCH" in allowed["access-control-allow-methods"] and allowed["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
    assert "access-control-allow-origin" not in fs(server, "OPTIONS", "/f", headers={**NO_KEY, **asked, "Origin": FOREIGN}, status=204).headers


# ---- concat -----------------------------------------------------------------------------------------------------

def parts(server: Any, folder: str = "/p", count: int = 3) -> list[str]:
    """Files to put together: 0, 11, 222 ..."""
    for number in range(count):
        put_file(server, f"{folder}/{number}", b"%d" % number * (number + 1))
    return [f"{folder}/{number}" for number in range(count)]


@pytest.mark.parametrize("source, target", [("/p", "/all"), ("/mem/p", "/all"), ("/p", "/mem/all"), ("/mem/p", "/mem/all")])
def test_concat_between_filesystems(remfs: Any, source: str, target: str) -> None:
    sources = parts(remfs, source)
    wish = {"method": "concat", "srcPaths": [*sources, sources[0], "/d/f.txt"], "dstPath": target}
    rpc(remfs, wish, status=201)
    assert fs(remfs, "GET", target).body == b"01122200123456789"
    rpc(remfs, {**wish, "srcPaths": [target, sources[1], target]})             # one of them may be the target
    assert fs(remfs, "GET", target).body == b"011222001234567891101122200123456789"
    rpc(remfs, {**wish, "srcPaths": [*sources, sources[0], target], "deleteSources": True})
    assert fs(remfs, "GET", target).body.startswith(b"0112220011")
    for path in sources:
        fs(remfs, "GET", path, status=404)


@pytest.mark.parametrize("bad, status", [
    ("/none", 404), ("/d", 400), ("/queue/q/dequeue", 400), ("/queue/q/enqueue", (400, 403)), ("/p", 400), ("/", 400), ("/hello", 400)])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_concat_refuses_a_source_before_it_writes_a_byte(remfs: Any, bad: str, status: Any, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = parts(remfs)
    fs(remfs, "PUT", "/queue/q?type=dir", status=201)
    fs(remfs, "PUT", "/queue/q/enqueue", b"message", status=(200, 201))
    monkeypatch.setattr(callfs.Tree, "write", lambda *args, **more: pytest.fail("it wrote"))
    sources.insert(place, bad)
    answer = rpc(remfs, {"method": "concat", "srcPaths": sources, "dstPath": "/d/f.txt", "deleteSources": True}, status=status)
    assert bad in answer.json()["message"] and fs(remfs, "GET", "/queue/q/size").body == b"1"
    assert fs(remfs, "GET", "/d/f.txt").body == b"0123456789" and len(meta(remfs, "/p")["children"]) == 3


def test_concat_does_not_read_what_can_only_be_written_to(remfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    box = TakingFS(None, None)              # type: ignore[arg-type]
    monkeypatch.setattr(box, "open", lambda *_: callfs.MemoryHandle(callfs.Entry("/in", owner="*", mode=0o222), b"secret"))
    remfs.tree.mount("/box", box)
    with pytest.raises(callfs.BadRequest, match="/box/in: This can only be written to"):
        remfs.tree.concat(callfs.ROOT, ["/box/in"], "/all")


def test_concat_checks_rights_at_all_ends(remfs: Any) -> None:
    sources = parts(remfs)
    put_file(remfs, "/bobs", b"b", AS_BOB)
    wish = {"method": "concat", "srcPaths": sources, "dstPath": "/bobs"}
    rpc(remfs, wish, status=403)
    rpc(remfs, {**wish, "dstPath": "/all", "srcPaths": [*sources, "/bobs"], "deleteSources": True}, status=403)
    rpc(remfs, {**wish, "dstPath": "/all", "srcPaths": ["/hello/hello"], "deleteSources": True}, status=403)
    rpc(remfs, {**wish, "dstPath": "/hello/x"}, status=(403, 501))
    fs(remfs, "HEAD", "/all", status=404)
    rpc(remfs, {**wish, "dstPath": "/all", "srcPaths": [*sources, "/bobs"]}, status=201, headers={"If-None-Match": "*"})
    rpc(remfs, {**wish, "dstPath": "/all"}, status=412, headers={"If-None-Match": "*"})
    assert len(meta(remfs, "/p")["children"]) == 3 and fs(remfs, "GET", "/bobs").body == b"b"


@pytest.mark.parametrize("target", ["/all", "/mem/all"])
def test_concat_is_one_atomic_file(remfs: Any, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that changes between the look and the copy ends it, and nothing is there but what was."""
    sources, tree, looked = parts(remfs), remfs.tree, [0]
    original = callfs.Tree.open

    def change(self: Any, who: Any, path: str, *wish: Any) -> Any:
        looked[0] += path == sources[1]
        if looked[0] == 2 and path == sources[1]:
            looked[0] = 3
            tree.write(callfs.Principal("ann"), path, callfs.bytes_body(b"XX"))
        return original(self, who, path, *wish)
    put_file(remfs, target, b"before")
    monkeypatch.setattr(callfs.Tree, "open", change)
    answer = rpc(remfs, {"method": "concat", "srcPaths": sources, "dstPath": target, "deleteSources": True}, status=409)
    assert sources[1] in answer.json()["message"]
    monkeypatch.undo()
    assert get_file(remfs, target) == b"before" and len(meta(remfs, "/p")["children"]) == 3 and not scratch_of(remfs)


def test_concat_keeps_a_source_that_changes_at_the_end(remfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, original = parts(remfs), callfs.Tree.write

    def write(self: Any, who: Any, path: str, *args: Any, **more: Any) -> Any:
        written = original(self, who, path, *args, **more)
        original(self, who, sources[1], callfs.bytes_body(b"newer"))
        remfs.tree.remove(who, sources[2])
        return written
    monkeypatch.setattr(callfs.Tree, "write", write)
    rpc(remfs, {"method": "concat", "srcPaths": sources, "dstPath": "/all", "deleteSources": True}, status=201)
    assert list(meta(remfs, "/p")["children"]) == ["1"] and fs(remfs, "GET", "/p/1").body == b"newer"
    assert fs(remfs, "GET", "/all").body == b"011222"


def test_concat_lets_go_of_what_it_opened(remfs: Any) -> None:
    sources = parts(remfs, count=40)
    wait_for(lambda: not remfs._listeners[0].connections)
    before = len(open_descriptors())
    most = [0]
    original = callfs.Tree.open

    def count(self: Any, *args: Any) -> Any:
        most[0] = max(most[0], len(open_descriptors()))
        return original(self, *args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callfs.Tree, "open", count)
        remfs.tree.concat(callfs.ROOT, sources, "/all")
        remfs.tree.concat(callfs.ROOT, sources, "/mem/all")
        with pytest.raises(callfs.FileNotFound):
            remfs.tree.concat(callfs.ROOT, [*sources, "/none"], "/all")
    assert most[0] < before + 10 and len(open_descriptors()) <= before


def test_concat_in_bounded_memory(remfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, block = Path(remfs.config.backend.localfs_root_path), os.urandom(1 << 20)
    (root / "big").write_bytes(block * 24)
    for system in (getattr(os, "copy_file_range", None), None):
        monkeypatch.setattr(os, "copy_file_range", system, raising=False)
        tracemalloc.start()
        try:
            remfs.tree.concat(callfs.ROOT, ["/big"] * 2, "/all")
            assert tracemalloc.get_traced_memory()[1] < 2 << 20
        finally:
            tracemalloc.stop()
        assert (root / "all").read_bytes() == block * 48
    assert remfs.tree.stat(callfs.ROOT, "/all").digest == ""          # nobody here saw the bytes


def test_concat_where_the_kernel_can_not_copy(remfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> int:
        raise OSError(errno.EXDEV, "across filesystems")
    monkeypatch.setattr(os, "copy_file_range", fail, raising=False)
    remfs.tree.concat(callfs.ROOT, parts(remfs), "/all")
    assert fs(remfs, "GET", "/all").body == b"011222"


def test_concat_on_a_full_disk(remfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = remfs.tree._root
    monkeypatch.setattr(store, "_min_free", 1 << 60)
    rpc(remfs, {"method": "concat", "srcPaths": ["/d/f.txt"], "dstPath": "/all"}, status=507)
    fs(remfs, "GET", "/all", status=404)


def test_concat_tells_of_its_changes(remfs: Any) -> None:
    sources = parts(remfs)
    told: list[Any] = []
    remfs.tree.hub.sinks.append(lambda event: told.append((event.type, event.path)))
    remfs.tree.concat(callfs.ROOT, sources, "/new/all", delete_sources=True)
    assert told == [("create", "/new"), ("create", "/new/all"), *(("delete", path) for path in sources)]


# ============================================================================
# The server: everything that a configuration asks for, as one object
# ============================================================================

def test_two_servers_share_nothing(serve_users: Callable[..., Any]) -> None:
    one, other = serve_users(), serve_users(auth__api_key_users={"carol": "key-of-carol-0123456"})
    put_file(one, "/f", b"one's")
    ask(other, "GET", "/v1/files/f", status=404)
    ask(other, "GET", "/v1/files/f", headers=AS_ANN, status=401)
    token = make_link(one)["token"]
    ask(other, "GET", "/download/" + token, status=404)
    assert one.metrics.value("callfs_single_use_link_generations_total") == 1
    assert other.metrics.value("callfs_single_use_link_generations_total") == 0
    one.close()
    ask(other, "GET", "/v1/directories/", status=200)


def test_start_and_stop_leave_nothing(tmp_path: Path) -> None:
    with callfs.Server(root=tmp_path / "warm-up") as rest:
        ask(rest, "GET", "/health")
    with nothing_left():
        for _ in range(3):
            with callfs.Server(metrics__listen_addr="127.0.0.1:0") as rest:
                root = rest.config.backend.localfs_root_path
                put_file(rest, "/f", os.urandom(200_000))
                ask(rest, "GET", "/v1/files/?archive=zip", status=200)
                with RawWebSocket(rest, "/v1/files/ws/f", key=rest.key) as client:
                    assert client.close_code() == 1000
            assert not os.path.exists(root)
        callfs.Server(root=tmp_path / "never-started").close()
    with pytest.raises(OSError):
        raw_socket(rest.url)


def test_a_server_that_can_not_be_built_leaves_nothing(tmp_path: Path) -> None:
    busy = socket.create_server(("127.0.0.1", 0))
    with contextlib.closing(busy), nothing_left():
        with pytest.raises((OSError, callfs.ConfigError)):
            callfs.Server(server__listen_addr=f"127.0.0.1:{busy.getsockname()[1]}")
        with pytest.raises(callfs.ConfigError):
            callfs.Server(auth__mode="sideways")
        with pytest.raises(callfs.ConfigError):
            callfs.Server(metrics__listen_addr="127.0.0.1:0", server__cert_file=str(tmp_path / "none"), server__key_file=str(tmp_path / "none"))


def test_data_outlives_the_server(serve_users: Callable[..., Any], tmp_path: Path) -> None:
    rest = serve_users(tmp_path / "kept", auth__single_use_link_secret="a-link-secret-0123456789")
    put_file(rest, "/d/f", b"kept", AS_BOB)
    etag, token = ask(rest, "HEAD", "/v1/files/d/f").headers["etag"], make_link(rest, "/d/f")["token"]
    rest.close()
    again = serve_users(tmp_path / "kept", auth__single_use_link_secret="a-link-secret-0123456789")
    headers = ask(again, "HEAD", "/v1/files/d/f", status=200).headers
    assert (headers["etag"], headers["x-callfs-owner"]) == (etag, "bob")
    assert ask(again, "GET", "/download/" + token, status=200).body == b"kept"


def test_two_servers_on_one_root_are_refused(serve_users: Callable[..., Any], tmp_path: Path) -> None:
    first = serve_users(tmp_path / "shared")
    with pytest.raises(callfs.ConfigError, match="another callfs process"):
        serve_users(tmp_path / "shared")
    put_file(first, "/f", b"still there")
    first.close()
    assert get_file(serve_users(tmp_path / "shared"), "/f") == b"still there"


def test_stop_drains_running_requests(serve_users: Callable[..., Any], tmp_path: Path) -> None:
    rest = serve_users(tmp_path / "root")
    idle = raw_socket(rest.url)
    with contextlib.closing(idle), contextlib.closing(raw_socket(rest.url)) as slow:
        slow.sendall(head_of("PUT", "/v1/files/slow", {"Content-Length": "10", "Expect": "100-continue"}))
        assert slow.recv(1000).startswith(b"HTTP/1.1 100 ")
        results: list[bool] = []
        stopping = threading.Thread(target=lambda: results.append(rest.stop(30)))
        stopping.start()
        assert idle.recv(1) == b""          # idle ones are closed at once
        wait_for(lambda: _refuses(rest.url), what="the listener to be closed")
        assert stopping.is_alive()
        slow.sendall(b"0123456789")
        answer = answer_of(b"".join(iter(lambda: slow.recv(65536), b"")))
        stopping.join()
    assert answer.status == 201 and answer.headers["connection"] == "close" and results == [True]
    assert (tmp_path / "root" / "slow").read_bytes() == b"0123456789"
    assert rest.stop() and rest.wait(0)


def _refuses(url: str) -> bool:
    try:
        raw_socket(url).close()
    except OSError:
        return True
    return False


def test_stop_does_not_wait_for_ever(serve_users: Callable[..., Any]) -> None:
    rest = serve_users()
    with contextlib.closing(raw_socket(rest.url)) as stuck:
        stuck.sendall(head_of("PUT", "/v1/files/stuck", {"Content-Length": "10", "Expect": "100-continue"}))
        assert stuck.recv(1000).startswith(b"HTTP/1.1 100 ")
        assert rest.stop(0.05) is False
    assert not our_threads()


def test_a_second_stop_that_waits_less_long_forces_the_first(serve_users: Callable[..., Any]) -> None:
    rest = serve_users()
    with contextlib.closing(raw_socket(rest.url)) as stuck:
        stuck.sendall(head_of("PUT", "/v1/files/stuck", {"Content-Length": "10", "Expect": "100-continue"}))
        assert stuck.recv(1000).startswith(b"HTTP/1.1 100 ")
        first = threading.Thread(target=rest.stop, args=(60,))
        first.start()
        wait_for(lambda: _refuses(rest.url), what="the first to have begun")
        assert rest.stop(0.05) is False
        first.join(10)
        assert not first.is_alive() and not our_threads()
    assert rest.stop() is True


@pytest.mark.parametrize("options, message", [
    ({"metadata_store__type": "redis", "metadata_store__redis_addr": "x:1"}, "metadata_store.type"), ({"dlm__type": "redis", "dlm__redis_addr": "x:1"}, "dlm.type"),
    ({"server__enable_quic": True, "server__cert_file": "x", "server__key_file": "x"}, "enable_quic"), ({"erasure__enabled": True}, "erasure.enabled"),
    ({"instance_discovery__peer_endpoints": {"n2": "http://n2:1"}}, "peer_endpoints"), ({"auth__api_key_users": {}}, "auth.api_keys"),
    ({"auth__api_key_users": {"root": "a-key-for-root-012345"}}, "reserved"), ({"auth__api_key_users": {"x": "short"}}, "16 characters"),
    ({"auth__mode": "sideways"}, "auth.mode"), ({"server__no_such_option": 1}, "no_such_option"), ({"nosuch__thing": 1}, "nosuch"),
])
def test_configurations_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(callfs.ConfigError) as caught:
        callfs.Server(root=tmp_path / "root", **options)
    assert message in str(caught.value) and "short" not in str(caught.value).replace("shorter", "")


@pytest.mark.parametrize("key, name", [("metadata_store__sqlite_path", "x.sqlite3"), ("log__file", "sub/log.txt")])
def test_records_and_log_may_not_lie_among_the_files(tmp_path: Path, key: str, name: str) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    with pytest.raises(callfs.ConfigError, match="lies in the folder that is served"):
        callfs.Server(root=root, **{key: str(root / name)})
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(callfs.ConfigError, match="lies in the folder that is served"):
        callfs.Server(root=root, **{key: str(tmp_path / "link" / name)})
    callfs.Server(root=root, **{key: str(tmp_path / "beside")}).close()


def test_options_by_keyword(serve: Callable[..., Any]) -> None:
    rest = serve(server__max_upload_bytes="1KiB", storage__durability="relaxed", log__level="warn", auth__anonymous="read")
    assert rest.config.server.max_upload_bytes == 1024 and rest.config.storage.durability == "relaxed"
    assert rest.key == rest.config.auth.api_key_users["admin"] and len(rest.key) >= 16
    ask(rest.url, "GET", "/v1/directories/", status=200)
    ask(rest, "PUT", "/v1/files/f", b"x" * 1025, status=413)


def test_unix_socket(serve_users: Callable[..., Any], tmp_path: Path) -> None:
    place = tmp_path / "s"
    rest = serve_users(server__listen_addr=f"unix:{place}", server__unix_mode="0600", server__trusted_proxies=["unix"])
    assert rest.url == f"unix:{place}" and stat.S_IMODE(place.stat().st_mode) == 0o600
    put_file(rest, "/f", b"x")
    link = check_answer(call(rest, "POST", "/v1/links/generate", {"path": "/f", "expiry_seconds": 60}, {
        "X-Forwarded-Proto": "https", "X-Forwarded-Host": "files.example"}), tls=True)
    assert link.json()["url"].startswith("https://files.example/download/")
    rest.close()
    assert not place.exists()


def test_ipv6_and_several_addresses(serve_users: Callable[..., Any]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    rest = serve_users(server__listen_addr="127.0.0.1:0, [::1]:0")
    assert [re.sub(r"\d+$", "N", url) for url in rest.urls] == ["http://127.0.0.1:N", "http://[::1]:N"]
    for url in rest.urls:
        ask(url, "GET", "/v1/directories/", headers=basic(USERS["ann"]), status=200)


def test_certificate_is_reloaded(serve_users: Callable[..., Any], certificate: tuple[str, str], tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(certificate[0], cert), shutil.copy(certificate[1], key)
    rest = serve_users(server__cert_file=str(cert), server__key_file=str(key))

    def shown() -> str:
        port = urllib.parse.urlsplit(rest.url).port
        return ssl.get_server_certificate(("127.0.0.1", port)).strip()
    assert shown() == cert.read_text().strip()
    subprocess.run([need_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    fresh = cert.read_text().strip()
    rest.reload()
    assert shown() == fresh != Path(certificate[0]).read_text().strip()
    cert.write_text("rubbish")
    rest.reload()                         # says so in the log and goes on
    assert shown() == fresh


def test_many_listings_at_once_leave_small_requests_served(serve_users: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """rest.md: a million entries do not block other requests."""
    rest = serve_users()
    put_file(rest, "/f", b"x")
    real, gate = callfs.Tree.walk, threading.Event()

    def slow(self: Any, *args: Any, **more: Any) -> Any:
        gate.wait(30)
        return real(self, *args, **more)
    monkeypatch.setattr(callfs.Tree, "walk", slow)
    with contextlib.ExitStack() as stack:
        listings = [stack.enter_context(contextlib.closing(raw_socket(rest.url))) for _ in range(8)]
        stack.callback(gate.set)
        for listing in listings:
            listing.sendall(head_of("GET", "/v1/directories/", {"Connection": "close"}))
        assert ask(rest, "GET", "/v1/files/f", status=200, timeout=5).body == b"x"
        gate.set()
        for listing in listings:
            assert answer_of(b"".join(iter(lambda: listing.recv(65536), b""))).status == 200


# ---- programs that people use -----------------------------------------------------------------------------------

def shell(script: str, folder: Path, **environ: str) -> str:
    """Run a script; what it wrote to standard output. Fails with what it said."""
    done = subprocess.run(["sh", "-euc", script], cwd=folder, env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_curl_lines_of_the_project_page(serve: Callable[..., Any], tmp_path: Path) -> None:
    need_program("curl")
    rest = serve(auth__api_keys=["my-secret-api-key-at-least-16-chars"], auth__api_key_users={}, auth__admins=[])
    auth = '-H "Authorization: Bearer my-secret-api-key-at-least-16-chars"'
    base = "curl -sS --fail-with-body " if "fail-with-body" in shell("curl --help all || true", tmp_path) else "curl -sS -f "
    assert '"path":"/hello.txt"' in shell(f'{base} -X POST {rest.url}/v1/files/hello.txt {auth} '
                                          '-H "Content-Type: application/octet-stream" -d "Hello, CallFS!"', tmp_path)
    assert shell(f"{base} {rest.url}/v1/files/hello.txt {auth}", tmp_path) == "Hello, CallFS!"
    assert json.loads(shell(f"{base} {rest.url}/v1/directories/ {auth}", tmp_path))["count"] == 1
    made = json.loads(shell(f"""{base} -X POST {rest.url}/v1/links/generate {auth} -H "Content-Type: application/json" """
                            """-d '{"path": "/hello.txt", "expiry_seconds": 3600}'""", tmp_path))
    assert shell(f"{base} {made['url']}", tmp_path) == "Hello, CallFS!"
    assert shell(f"{base} -X DELETE {rest.url}/v1/files/hello.txt {auth}", tmp_path) == ""
    assert shell(f"curl -s -o /dev/null -w '%{{http_code}}' {rest.url}/v1/files/hello.txt {auth}", tmp_path) == "404"
    (tmp_path / "important.dat").write_bytes(b"x")
    assert "erasure" in shell(f'curl -s -X POST "{rest.url}/v1/files/important.dat?erasure=true&data_shards=4&parity_shards=2" {auth} '
                              "--data-binary @important.dat", tmp_path)
    assert json.loads(shell(f"{base} {rest.url}/health", tmp_path))["status"] == "ok"
    assert "callfs_http_requests_total" in shell(f"{base} {rest.url}/metrics {auth}", tmp_path)


def test_curl_as_people_use_it(rest: Any, tmp_path: Path) -> None:
    need_program("curl")
    data = os.urandom(3_000_000)
    (tmp_path / "big file.bin").write_bytes(data)
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login x password {rest.key}\n")
    run = shell_in(tmp_path, URL=rest.url, KEY=rest.key)
    run('curl -sSf -u ":$KEY" -T "big file.bin" "$URL/v1/files/up/"')       # curl adds the name, expects 100
    assert get_file(rest, "/up/big file.bin") == data
    run('curl -sSf --netrc-file netrc -o whole "$URL/v1/files/up/big%20file.bin"')
    run('head -c 1000000 whole > part; curl -sSf -u ":$KEY" -C - -o part "$URL/v1/files/up/big%20file.bin"')
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "part").read_bytes() == data
    run('cat "big file.bin" | curl -sSf -u ":$KEY" -T - "$URL/v1/files/up/piped"')
    assert get_file(rest, "/up/piped") == data
    run('mkdir out; curl -sSf -u ":$KEY" "$URL/v1/files/up?archive=tar" | tar -xf - -C out; cmp "out/up/big file.bin" whole')
    assert "HTTP/1.1 200" in run('curl -sSfI -u ":$KEY" "$URL/v1/files/up/piped"')
    assert run('curl -sSf -u ":$KEY" -r 0-9 "$URL/v1/files/up/piped" | wc -c').strip() == "10"


def shell_in(folder: Path, **environ: str) -> Callable[[str], str]:
    """`shell` in a folder with an environment."""
    return lambda script: shell(script, folder, **environ)


def test_curl_resumes_an_upload(rest: Any, tmp_path: Path) -> None:
    need_program("curl")
    (tmp_path / "f").write_bytes(TEN)
    put_file(rest, "/f", TEN[:4])
    run = shell_in(tmp_path, URL=rest.url, KEY=rest.key)
    run("""SIZE=$(curl -sSfI -u ":$KEY" $URL/v1/files/f | tr -d '\\r' | sed -n 's/^X-CallFS-Size: //p')
           tail -c +$((SIZE + 1)) f | curl -sSf -u ":$KEY" -H "RemFS-Offset: $SIZE" -X PATCH --data-binary @- $URL/v1/files/f""")
    assert get_file(rest, "/f") == TEN


def test_wget(rest: Any, tmp_path: Path) -> None:
    need_program("wget")
    data = os.urandom(2_000_000)
    put_file(rest, "/d/f.bin", data)
    run = shell_in(tmp_path, URL=rest.url, KEY=rest.key)
    run('wget -q --header "Authorization: Bearer $KEY" "$URL/v1/files/d/f.bin"')
    assert (tmp_path / "f.bin").read_bytes() == data
    (tmp_path / "f.bin").write_bytes(data[:500_000])
    run('wget -q -c --auth-no-challenge --user x --password "$KEY" "$URL/v1/files/d/f.bin"')
    assert (tmp_path / "f.bin").read_bytes() == data
    link = make_link(rest, "/d/f.bin")["url"]
    run(f'wget -q --content-disposition -P linked "{link}"')
    assert (tmp_path / "linked" / "f.bin").read_bytes() == data


def test_aria2_in_eight_pieces(rest: Any, tmp_path: Path) -> None:
    need_program("aria2c")
    data = os.urandom(12_000_000)
    digest = put_file(rest, "/f.bin", data).json()["size"] and hashlib.sha256(data).hexdigest()
    run = shell_in(tmp_path, URL=rest.url, KEY=rest.key)
    run(f'aria2c -q -x 8 -s 8 -k 1M --no-conf --checksum=sha-256={digest} --header "Authorization: Bearer $KEY" -o got.bin "$URL/v1/files/f.bin"')
    assert (tmp_path / "got.bin").read_bytes() == data


def test_urllib_and_requests(rest: Any) -> None:
    request = urllib.request.Request(rest.url + "/v1/files/f", b"by urllib", {"Authorization": f"Bearer {rest.key}"}, method="PUT")
    with urllib.request.urlopen(request) as response:
        assert response.status == 201
    requests = pytest.importorskip("requests")
    with requests.Session() as session:
        session.auth = ("anybody", rest.key)
        assert session.get(rest.url + "/v1/files/f").content == b"by urllib"
        assert session.put(rest.url + "/v1/files/g", data=(block for block in (b"by ", b"requests"))).status_code == 201
        assert session.get(rest.url + "/v1/files/g", headers={"Range": "bytes=3-"}).content == b"requests"
        assert session.get(rest.url + "/v1/directories/").json()["count"] == 2
        assert session.delete(rest.url + "/v1/files/g").status_code == 204


# ============================================================================
# Client and command line
# ============================================================================



CLIENT_KEY = "key-0123456789abcdef"


# ---- a server that plays a script: bytes in, bytes out

class Heard:
    """One request that a scripted server read."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *rest = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = line.split(" ")
        self.headers = {name.lower(): value.strip() for name, _, value in (item.partition(":") for item in rest if item)}
        self.body = body


Step = Union[bytes, Callable[[socket.socket], None]]


class Scripted:
    """Plays one script a connection, in the order in which they come: for each answer of it reads a whole request and
    sends the answer (bytes, or a function of the socket, which then reads the body itself); then closes."""

    def __init__(self, *scripts: list[Step], wrap: Callable[[socket.socket], Any] = lambda sock: sock) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.heard: list[Heard] = []
        self._scripts, self._wrap, self._threads = scripts, wrap, []    # type: ignore[var-annotated]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        for script in self._scripts:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            thread = threading.Thread(target=self._play, args=(sock, script))
            self._threads.append(thread)
            thread.start()

    def _play(self, sock: Any, script: list[Step]) -> None:
        with contextlib.suppress(OSError), self._wrap(sock) as wire:
            for step in script:
                head = read_until(wire, b"\r\n\r\n")
                if not head:
                    return
                request = Heard(head, b"")
                self.heard.append(request)
                if callable(step):
                    step(wire)
                else:
                    request.body = read_body(wire, request.headers)
                    wire.sendall(step)

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in (self._accepting, *self._threads):
            thread.join(10)
            assert not thread.is_alive()


def read_until(sock: Any, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        byte = sock.recv(1)
        if not byte:
            return b""
        found += byte
    return found[:-len(end)]


def read_exactly(sock: Any, size: int) -> bytes:
    found = b""
    while len(found) < size:
        block = sock.recv(size - len(found))
        if not block:
            raise ConnectionError
        found += block
    return found


def read_body(sock: Any, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return read_exactly(sock, int(headers.get("content-length", "0")))
    found = b""
    while True:
        size = int(read_until(sock, b"\r\n"), 16)
        found += read_exactly(sock, size)
        assert read_until(sock, b"\r\n") == b""
        if not size:
            return found


def answer(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    fields = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


def file_answer(body: bytes, status: int = 200, etag: str = '"v1"', **headers: str) -> bytes:
    about = {"X_CallFS_Type": "file", "X_CallFS_Size": "10", "X_CallFS_Mode": "0644", "X_CallFS_Owner": "alice",
             "X_CallFS_MTime": "2026-01-02T03:04:05Z", "X_CallFS_Instance_ID": "node-1"}
    return answer(status, body, **{**about, **({"ETag": etag} if etag else {}), **headers})


def stored(path: str = "/a", size: int = 1, status: int = 201) -> bytes:
    item = {"name": path[1:], "path": path, "type": "file", "size": size, "mode": "0644", "owner": "alice",
            "mtime": "2026-01-02T03:04:05Z"}
    return answer(status, json.dumps(item).encode(), ETag='"v1"')


def error_answer(status: int, code: str = "", **headers: str) -> bytes:
    return answer(status, json.dumps({"code": code or "X", "message": f"it is {status}"}).encode(), **headers)


@pytest.fixture
def play() -> Iterator[Callable[..., tuple[Scripted, callfs.Client, list[float]]]]:
    """`play(script, ...)`: a scripted server, a client of it, and the pauses that the client makes."""
    with contextlib.ExitStack() as stack:
        def start(*scripts: list[Step], retries: int = 4, **options: Any) -> tuple[Scripted, callfs.Client, list[float]]:
            server = stack.enter_context(Scripted(*scripts, **options))
            client = stack.enter_context(callfs.Client(server.url, CLIENT_KEY, retries=retries, timeout=10))
            pauses: list[float] = []
            client.sleep = pauses.append
            return server, client, pauses
        yield start


# ---- values

@pytest.mark.parametrize("kind", [kind for kind in callfs._NAMED_KINDS if kind is not callfs.CallFSError])
def test_an_error_comes_back_as_its_class(kind: type[callfs.CallFSError]) -> None:
    body = json.dumps({"code": kind.code, "message": "no", "headers": 1, "self": 2, "suggestion": "x"}).encode()
    error = callfs.error_of_answer(kind.status, {"X-Request-ID": "r1"}, body)
    assert error.code == kind.code and error.status == kind.status and isinstance(error, kind.__mro__[1])
    assert error.message == "no" and error.details["suggestion"] == "x" and error.details["request_id"] == "r1"


@pytest.mark.parametrize("status, kind", [
    (400, callfs.BadRequest), (401, callfs.AuthenticationFailed), (403, callfs.PermissionDenied), (404, callfs.FileNotFound),
    (409, callfs.Conflict), (410, callfs.Gone), (412, callfs.PreconditionFailed), (413, callfs.PayloadTooLarge),
    (416, callfs.RangeNotSatisfiable), (429, callfs.RateLimited), (500, callfs.CallFSError), (502, callfs.BadGateway),
    (503, callfs.Unavailable), (507, callfs.StorageFull), (418, callfs.CallFSError), (301, callfs.CallFSError),
])
@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"[1]", b'{"code": 1}', b"\xff", b"[" * 100_000])
def test_an_error_without_a_code_goes_by_its_status(status: int, kind: type, body: bytes) -> None:
    error = callfs.error_of_answer(status, {}, body)
    assert type(error) is kind and error.status == status and error.message


@pytest.mark.parametrize("path, target", [
    ("/a", "/a"), ("a", "/a"), ("/", "/"), ("", "/"), ("/a b", "/a%20b"), ("/#?%+;", "/%23%3F%25%2B%3B"),
    ("/ü/日", "/%C3%BC/%E6%97%A5"), ("/%41", "/%2541"), ("/d/", "/d/"), ("/a\n", "/a%0A"), ("/a&b=c", "/a%26b%3Dc"),
])
def test_every_name_can_be_asked_for(path: str, target: str) -> None:
    assert callfs._file_target(path) == "/v1/files" + target
    with pytest.raises(callfs.BadRequest):
        callfs._file_target("/\ud800")


@pytest.mark.parametrize("url, shown, prefix, key", [
    ("http://h:1", "http://h:1", "", ""), ("http://h/p/", "http://h/p", "/p", ""), ("http://:k%40@h", "http://h", "", "k@"),
    ("https://u:k@[::1]:2/ü", "https://[::1]:2/%C3%BC", "/%C3%BC", "k"), ("unix:/Run/x.sock", "unix:/Run/x.sock", "", ""),
    ("http+unix://%2FRun%2Fx/p", "unix:/Run/x", "/p", ""),
])
def test_server_urls(url: str, shown: str, prefix: str, key: str) -> None:
    assert callfs._server_address(url, 1, "", True)[:3] == (shown, prefix, key)


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "http://", "http://:SECRET@h:x", "http://:SECRET@h?q", "http://h#f",
                                 "http://[::1", "unix:x", "http://:a%0ab@h"])
def test_server_urls_that_are_refused(url: str) -> None:
    with pytest.raises(callfs.ConfigError) as caught:
        callfs.Client(url)
    assert "SECRET" not in str(caught.value)


def test_sources(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    with open(path, "rb") as file:
        file.seek(4)
        for source, length, replayable in [(b"abc", 3, True), (bytearray(b"abc"), 3, True), (memoryview(b"abc"), 3, True),
                                           (path, 10, True), (file, 6, True), (iter([b"a", b"", b"bc"]), None, False)]:
            with callfs._Source(source) as body:
                assert (body.length, body.replayable) == (length, replayable)
                blocks = list(body.blocks())
                assert b"".join(blocks) in (b"abc", b"0123456789", b"456789") and all(blocks)
                assert not replayable or list(body.blocks()) == blocks
        with callfs._Source(path) as body:
            os.truncate(path, 3)
            with pytest.raises(callfs.StorageError):
                list(body.blocks())
    with pytest.raises(TypeError):
        callfs._Source("text")          # type: ignore[arg-type]


# ---- requests

def test_an_upload_as_the_server_sees_it(play: Any) -> None:
    server, client, _ = play([stored(), stored(), stored()])
    info = client.upload("/a", b"hello", mtime=1700000000.25, if_match='"v0"')
    assert info == callfs.FileInfo("/a", "file", 1, 0o644, "alice", 1767323045.0, '"v1"')
    client.upload("/a", iter([b"he", b"llo"]), overwrite=False)
    client.upload("/a", b"", digest=False)
    put, post, empty = server.heard
    assert (put.method, put.target, put.body) == ("PUT", "/v1/files/a", b"hello")
    assert put.headers["authorization"] == "Bearer " + CLIENT_KEY and put.headers["if-match"] == '"v0"'
    assert put.headers["content-digest"] == "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"
    assert put.headers["x-oc-mtime"] == "1700000000.25"
    assert (post.method, post.body, post.headers["transfer-encoding"]) == ("POST", b"hello", "chunked")
    assert "content-digest" not in post.headers and "content-length" not in post.headers
    assert empty.body == b"" and empty.headers["content-length"] == "0" and "content-digest" not in empty.headers


def early(reply: bytes) -> Step:
    def step(sock: Any) -> None:
        sock.sendall(reply)
        sock.shutdown(socket.SHUT_WR)   # and the body unread: the close is a reset
    return step


BIG = bytes(32 << 20)                   # no socket buffer takes that in


@pytest.mark.parametrize("source", [lambda: BIG, lambda: (BIG[:1 << 20] for _ in range(32))])
@pytest.mark.parametrize("status, kind", [(413, callfs.PayloadTooLarge), (403, callfs.PermissionDenied), (507, callfs.StorageFull)])
def test_an_answer_before_the_body_is_through(play: Any, source: Any, status: int, kind: type) -> None:
    server, client, _ = play([early(error_answer(status))], [stored()])
    with pytest.raises(kind, match=f"it is {status}"):
        client.upload("/a", source(), digest=False)
    client.upload("/a", b"x")           # on a new connection: the old one is in the middle of a request
    assert len(server.heard) == 2


def test_nothing_more_is_sent_after_an_answer(play: Any) -> None:
    taken: list[int] = []

    def step(sock: Any) -> None:        # a server that reads on, out of politeness
        sock.sendall(error_answer(413))
        taken.extend(iter(lambda: len(sock.recv(1 << 20)), 0))
    server, client, _ = play([step])
    with pytest.raises(callfs.PayloadTooLarge):
        client.upload("/a", BIG, digest=False)
    server.__exit__()
    assert sum(taken) < len(BIG)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a reset takes the answer with it")
def test_an_answer_that_only_a_failed_send_makes_known(play: Any, monkeypatch: Any) -> None:
    spoke = callfs._Wire.spoke
    monkeypatch.setattr(callfs._Wire, "spoke", lambda wire: sys.exc_info()[0] is not None and spoke(wire))
    server, client, _ = play([early(error_answer(507))])
    with pytest.raises(callfs.StorageFull):
        client.upload("/a", BIG, digest=False)


@pytest.mark.parametrize("method, repeated", [("GET", True), ("HEAD", True), ("PUT", True), ("DELETE", True),
                                              ("POST", False), ("PATCH", False)])
def test_a_new_connection_that_breaks(play: Any, method: str, repeated: bool) -> None:
    server, client, pauses = play([lambda sock: None], [answer()], [])
    if repeated:
        assert client._call(method, "/x").status == 200
    else:
        with pytest.raises(callfs.Unavailable, match="may or may not have been done"):
            client._call(method, "/x")
    assert len(server.heard) == 1 + repeated and not pauses


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH"])
def test_an_idle_connection_that_breaks_is_replaced_once(play: Any, method: str) -> None:
    server, client, _ = play([answer(), lambda sock: None], [answer()])
    client._call("GET", "/first")
    with callfs._Source(b"body") as body:
        assert client._call(method, "/x", body=body).status == 200
    assert [request.target for request in server.heard] == ["/first", "/x", "/x"] and server.heard[2].body == b"body"


def test_what_can_not_be_sent_again_is_not(play: Any) -> None:
    server, client, _ = play([answer(), lambda sock: None], [answer()])
    client._call("GET", "/first")
    with pytest.raises(callfs.Unavailable):
        client.upload("/x", iter([b"once"]))
    assert len(server.heard) == 2


def test_if_match_is_not_sent_twice_by_itself(play: Any) -> None:
    server, client, _ = play([lambda sock: None], [stored()])
    with pytest.raises(callfs.Unavailable):     # the first may have been done, and the second would say 412
        client.upload("/x", b"x", if_match='"v1"')
    assert len(server.heard) == 1


def test_a_connection_that_breaks_twice(play: Any) -> None:
    server, client, _ = play([lambda sock: None], [lambda sock: None], [answer()])
    with pytest.raises(callfs.Unavailable, match="cannot reach http://127"):
        client._call("GET", "/x")
    assert len(server.heard) == 2


def test_an_idle_connection_that_the_server_closed_is_not_used(play: Any) -> None:
    server, client, _ = play([answer()], [stored()])
    client._call("GET", "/first")
    wire, = client._idle
    while not wire.stale():
        time.sleep(0.001)
    client.upload("/x", iter([b"once"]))        # would fail on the old one, for good
    assert len(server.heard) == 2


def test_a_cut_json_answer_is_asked_for_again(play: Any) -> None:
    whole = answer(200, b'{"status": "ok"}')
    for cut in range(len(whole)):
        server, client, _ = play([whole[:cut]], [whole])
        assert client.health() == {"status": "ok"}


@pytest.mark.parametrize("method, status, after, repeated", [
    ("GET", 503, "2", True), ("GET", 429, "2", True), ("PUT", 503, "2", True), ("POST", 429, "2", True),
    ("POST", 503, "2", False), ("PATCH", 503, "2", False), ("GET", 503, None, True), ("GET", 503, "31", False),
    ("GET", 503, "soon", True), ("GET", 503, "Thu, 01 Jan 1970 00:00:00 GMT", True), ("GET", 500, "2", False),
    ("GET", 404, "2", False), ("GET", 507, "2", False), ("GET", 503, "9" * 400, False),
])
def test_later(play: Any, method: str, status: int, after: str | None, repeated: bool) -> None:
    refusal = error_answer(status, **({"Retry_After": after} if after else {}))
    server, client, pauses = play([refusal, answer()])
    if repeated:
        assert client._call(method, "/x").status == 200
        least = {"2": 2, None: 0.1, "soon": 0.1}.get(after, 0)
        assert least <= pauses[0] <= least * 1.25 and len(server.heard) == 2
    else:
        with pytest.raises(callfs.CallFSError) as caught:
            client._call(method, "/x")
        assert caught.value.status == status and not pauses


def test_retries_come_to_an_end(play: Any) -> None:
    server, client, pauses = play([error_answer(503)] * 9, retries=3)
    with pytest.raises(callfs.Unavailable, match="it is 503"):
        client.health()
    assert len(server.heard) == 4 and len(pauses) == 3 and pauses == sorted(pauses)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with callfs.Client(f"http://:SECRET@127.0.0.1:{port}", retries=2) as client:
        client.sleep = (pauses := []).append
        with pytest.raises(callfs.Unavailable, match=f"cannot reach http://127.0.0.1:{port}: Connection refused") as caught:
            client.mkdir("/x")
        assert len(pauses) == 2 and "SECRET" not in str(caught.value)
    with callfs.Client("unix:/nowhere/x.sock") as client, pytest.raises(callfs.Unavailable, match="cannot reach unix:/now"):
        client.health()


def test_a_server_that_is_none_of_ours(play: Any) -> None:
    html = answer(200, b"<html>hello</html>")
    server, client, _ = play([html] * 8, [html] * 8)
    for call in (client.health, lambda: client.stat("/"), lambda: list(client.list()), lambda: client.upload("/a", b"x"),
                 lambda: client.link("/a"), client.links, lambda: client.download("/a")):
        with pytest.raises(callfs.BadGateway, match="does not answer as a callfs server"):
            call()


def test_through_a_unix_socket(tmp_path: pathlib.Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen(1)

    def serve() -> None:
        with listener.accept()[0] as sock:
            read_until(sock, b"\r\n\r\n")
            sock.sendall(answer(200, b"{}"))
    thread = threading.Thread(target=serve)
    thread.start()
    with listener, callfs.Client(f"unix:{tmp_path}/s") as client:
        assert client.health() == {}
    thread.join()


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl program")
def test_over_tls(tmp_path: pathlib.Path) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                    "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def wrap(sock: socket.socket) -> Any:
        return context.wrap_socket(sock, server_side=True)
    # TLS 1.3 sends session tickets after the handshake: bytes that are no answer.
    scripts: list[list[Step]] = [[stored(), early(error_answer(413))], [answer(200, b"{}")]]
    with Scripted(*scripts, wrap=wrap) as server, callfs.Client(server.url.replace("http", "https"), ca_file=str(cert)) as client:
        assert client.upload("/a", bytes(3 << 20), digest=False).path == "/a"
        with pytest.raises(callfs.PayloadTooLarge):
            client.upload("/a", BIG, digest=False)
        with callfs.Client(client.url, verify=False) as other:
            assert other.health() == {}
    with Scripted([], wrap=wrap) as server, callfs.Client(server.url.replace("http", "https")) as client:
        with pytest.raises(callfs.Unavailable, match="self.signed certificate"):
            client.health()
    with pytest.raises(callfs.ConfigError):
        callfs.Client("https://h", ca_file=str(tmp_path / "none"))


# ---- downloads

@pytest.mark.parametrize("cut", range(10))
def test_a_cut_download_goes_on_where_it_broke(play: Any, cut: int) -> None:
    head = file_answer(b"", Content_Length="10")
    rest = file_answer(b"0123456789"[cut:], 206 if cut else 200)
    server, client, _ = play([head + b"0123456789"[:cut]], [rest])
    assert client.download("/a") == b"0123456789"
    assert server.heard[1].headers["if-match"] == '"v1"'
    assert server.heard[1].headers.get("range") == (f"bytes={cut}-" if cut else None)


def test_a_cut_range_goes_on_inside_the_range(play: Any) -> None:
    server, client, _ = play([file_answer(b"23", 206, Content_Length="5")], [file_answer(b"456", 206)])
    assert client.download("/a", start=2, stop=7) == b"23456"
    assert [request.headers["range"] for request in server.heard] == ["bytes=2-6", "bytes=4-6"]


@pytest.mark.parametrize("head, kind", [
    (file_answer(b"", etag="", Content_Length="10") + b"012", callfs.Unavailable),      # nothing to tell versions apart
    (file_answer(b"", etag='W/"v1"', Content_Length="10") + b"012", callfs.Unavailable),
    (file_answer(b"", etag="", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"") + b"3\r\n012\r\n5\r\n0",
     callfs.Unavailable),
    (file_answer(b"", Content_Length="10") + b"012", callfs.PreconditionFailed),        # another version by now
    (file_answer(b"").replace(b"Content-Length: 0\r\n", b""), callfs.BadGateway),       # an end that nobody can check
])
def test_a_download_is_never_short(play: Any, tmp_path: pathlib.Path, head: bytes, kind: type) -> None:
    server, client, _ = play([head], [error_answer(412, "PRECONDITION_FAILED")])
    with pytest.raises(kind):
        client.download("/a", tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_download_that_breaks_for_ever(play: Any) -> None:
    server, client, pauses = play([file_answer(b"", Content_Length="10") + b"0"], *[[file_answer(b"", 206, Content_Length="9")]] * 9)
    with pytest.raises(callfs.Unavailable, match="/a broke off at byte 1"):
        client.download("/a")
    assert len(pauses) == 4 and len(server.heard) == 5


def test_a_range_that_the_server_ignores(play: Any) -> None:
    server, client, _ = play([file_answer(b"0123456789")])
    with pytest.raises(callfs.BadGateway):
        client.download("/a", start=4)
    for start, stop in ((-1, None), (3, 3), (4, 3)):
        with pytest.raises(ValueError):
            client.open("/a", start, stop)


def test_targets_of_a_download(play: Any, tmp_path: pathlib.Path) -> None:
    server, client, _ = play([file_answer(b"0123456789")] * 4)
    seen: list[tuple[int, int | None]] = []
    assert client.download("/a", tmp_path / "out", progress=lambda *done: seen.append(done)) == 10
    assert (tmp_path / "out").read_bytes() == b"0123456789" and seen[-1] == (10, 10) and os.listdir(tmp_path) == ["out"]
    memory = io.BytesIO()
    assert client.download("/a", memory) == 10 and memory.getvalue() == b"0123456789"
    with client.open("/a") as file:
        assert file.info.owner == "alice" and io.BufferedReader(file).readline() == b"0123456789"
    with client.open("/a") as file:
        assert file.read(3) == b"012" and file.tell() == 3
    assert len(server.heard) == 4


def test_a_download_is_resumed_by_the_next_call(play: Any, tmp_path: pathlib.Path) -> None:
    about, head = file_answer(b"", Content_Length="10"), file_answer(b"", Content_Length="10") + b"0123"
    server, client, _ = play([about], [head], [about], [file_answer(b"456789", 206)], retries=0)
    with pytest.raises(callfs.Unavailable):
        client.download("/a", tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()
    assert client.download("/a", tmp_path / "out", resume=True) == 10
    assert (tmp_path / "out").read_bytes() == b"0123456789" and os.listdir(tmp_path) == ["out"]
    assert server.heard[-1].headers["range"] == "bytes=4-" and server.heard[-1].headers["if-match"] == '"v1"'


def test_an_upload_is_resumed(play: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")

    def cut(sock: Any) -> None:
        read_exactly(sock, 6)

    def about(size: int) -> bytes:
        return file_answer(b"", X_CallFS_Size=str(size))
    server, client, pauses = play([answer(404), stored(size=0), cut], [about(6), stored(size=10, status=200)])
    assert client.resume_upload("/a", tmp_path / "f").size == 10
    assert [(request.method, request.headers.get("remfs-offset")) for request in server.heard] == [
        ("HEAD", None), ("PUT", None), ("PATCH", "0"), ("HEAD", None), ("PATCH", "6")]
    assert server.heard[1].headers["if-none-match"] == "*" and server.heard[-1].body == b"6789"
    server, client, _ = play([about(11)])
    with pytest.raises(callfs.Conflict):
        client.resume_upload("/a", tmp_path / "f")


def test_pages_of_a_listing(play: Any) -> None:
    def page(names: str, following: str | None) -> bytes:
        items = [{"path": "/" + name, "type": "directory", "size": 0, "mode": "0755", "owner": "x",
                  "mtime": "2026-01-02T03:04:05.5Z"} for name in names]
        return answer(200, json.dumps({"items": items, **({"next": following} if following else {})}).encode())
    server, client, _ = play([page("ab", "/b"), page("c", None)])
    found = list(client.list("/d e", recursive=True, max_depth=0))
    assert [info.name for info in found] == ["a", "b", "c"] and found[0].is_dir and found[0].mtime == 1767323045.5
    assert [request.target for request in server.heard] == [
        "/v1/directories/d%20e?limit=1000&recursive=true&max_depth=0",
        "/v1/directories/d%20e?limit=1000&after=%2Fb&recursive=true&max_depth=0"]


def test_client_and_server_together(tmp_path: pathlib.Path) -> None:
    with callfs.Server(root=tmp_path) as server, callfs.Client(server.url, server.key) as client:
        names = ["/a b/#?%+;&=.txt", "/ü/日本", "/%41", "/ws/x", "/.hidden", "/a+b@c", "/d/Makefile", "/'\"<>|*"]

        def work(number: int) -> None:
            for name in names:
                content = f"{number}{name}".encode() * 1000
                path = f"/{number}{name}"
                assert client.upload(path, content).size == len(content) and client.download(path) == content
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {info.path for info in client.list("/", recursive=True) if not info.is_dir} == {
            f"/{number}{name}" for number in range(8) for name in names}
        assert 1 <= len(client._idle) <= 8
        assert client.mkdir("/new") and not client.mkdir("/new") and client.move("/0/%41", "/new/x") == "/new/x"
        with pytest.raises(callfs.DirectoryNotEmpty):
            client.delete("/new")
        link = client.link("/new/x", 60, max_uses=2)
        assert [known.id for known in client.links()] == [link.id] and link.max_uses == 2
        client.revoke(link.id)
        assert client.links() == () and client.ready()[0] and client.archive("/new", io.BytesIO()) > 1000
        client.delete("/new", recursive=True)
        assert not client.exists("/new/x")


# ---- command line

class StubServer:
    """Takes the place of a server: notes its configuration, and stops at once."""

    configs: list[Any] = []

    def __init__(self, config: Any, **options: Any) -> None:
        config.validate()
        self.configs.append(config)
        self.urls = ["http://127.0.0.1:4711"]

    def start(self) -> StubServer:
        return self

    def wait(self, timeout: float) -> bool:
        return True

    def stop(self) -> bool:
        return True


@pytest.fixture
def stub(monkeypatch: Any, tmp_path: pathlib.Path) -> list[Any]:
    """An empty current folder, no environment of ours, a stub for the server; the configurations that it got."""
    for name in list(os.environ):
        if name.startswith("CALLFS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StubServer, "configs", [])
    monkeypatch.setattr(callfs, "Server", StubServer)
    return StubServer.configs


CLIENT_SECRETS = {"internal_proxy_secret": "internal-0123456789", "single_use_link_secret": "links-0123456789ab"}
FILE = {"auth": {"api_key_users": {"alice": CLIENT_KEY}, **CLIENT_SECRETS}, "server": {"listen_addr": "127.0.0.1:1"}}


@pytest.mark.parametrize("argv, code", [
    ([], 0), (["--help"], 0), (["--version"], 0), (["version"], 0), (["serve", "--help"], 0), (["config"], 2), (["nosuch"], 2),
    (["serve", "--nosuch"], 2), (["serve", "--mode", "x"], 2), (["serve", "--lis", ":1"], 2), (["serve", "nowhere"], 2),
    (["serve", "--listen", "x"], 2), (["serve", "--listen", ":1"], 2), (["serve", "-c", "none.yaml"], 2), (["serve"], 0),
    (["server"], 0), (["config", "validate"], 2), (["config", "show"], 0), (["config", "reference"], 0),
    (["config", "init", "x.toml"], 2), (["config", "init", "no/x.yaml"], 1), (["link"], 2), (["link", "/x", "--expires", "y"], 2),
    (["link", "/x", "--url", "http://127.0.0.1:9"], 1), (["link", "/x", "--url", "x"], 2), (["fsck", "--dry-run"], 0),
])
def test_exit_codes(stub: Any, monkeypatch: Any, capfd: Any, argv: list[str], code: int) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert callfs.main(argv) == code
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("about", [about for about in callfs.OPTIONS if about.flag], ids=lambda about: about.flag)
def test_every_flag_of_the_table(stub: Any, about: Any, capsys: Any) -> None:
    pathlib.Path("config.json").write_text(json.dumps(FILE))
    value = about.choices[-1] if about.choices else "http://x" if "url" in about.key else "127.0.0.1:2"
    assert callfs.main(["serve", about.flag, value]) == 0 and stub[0].get(about.key) == value
    assert callfs.main(["serve", "--help"]) == 0 and about.flag in capsys.readouterr().out


def test_precedence(stub: Any, monkeypatch: Any) -> None:
    pathlib.Path("config.json").write_text(json.dumps({**FILE, "log": {"level": "warn"}}))
    pathlib.Path("other.json").write_text(json.dumps({**FILE, "log": {"level": "error"}}))
    assert callfs.main(["serve"]) == 0
    monkeypatch.setenv("CALLFS_CONFIG", "other.json")
    assert callfs.main(["serve"]) == 0 and callfs.main(["serve", "-c", "config.json"]) == 0
    monkeypatch.setenv("CALLFS_LOG__LEVEL", "debug")
    assert callfs.main(["serve"]) == 0 and callfs.main(["serve", "--log-level", "info"]) == 0
    assert [config.log.level for config in stub] == ["warn", "error", "warn", "debug", "info"]


LOOP, OPEN = "127.0.0.1:8443", ":8443"


@pytest.mark.parametrize("file, key, argv, kept, users, listen", [
    (True, False, [], False, ["alice"], "127.0.0.1:1"),
    (True, True, ["--listen", ":7"], False, ["alice", "bob"], ":7"),
    (False, True, [], False, ["bob"], OPEN),
    (False, True, ["--listen", ":7"], True, ["bob"], ":7"),
    (False, False, [], False, ["admin"], LOOP),
    (False, False, [], True, ["admin"], LOOP),
    (False, False, ["--listen", ":7"], True, ["admin"], ":7"),
    (False, False, ["--listen", ":7"], False, None, None),
])
def test_first_run(stub: Any, monkeypatch: Any, capsys: Any, file: bool, key: bool, argv: list[str], kept: bool,
                   users: list[str] | None, listen: str | None) -> None:
    if kept:
        assert callfs.main(["serve"]) == 0
        stub.clear()
        capsys.readouterr()
    if file:
        pathlib.Path("config.json").write_text(json.dumps(FILE))
    if key:
        monkeypatch.setenv("CALLFS_AUTH__API_KEY_USERS__BOB", "bob-" + CLIENT_KEY)
    code = callfs.main(["serve", *argv])
    out, err = capsys.readouterr()
    if users is None:
        assert code == 2 and "without --listen" in err and "CALLFS_AUTH__API_KEY_USERS__ALICE" in err
        assert not os.path.exists("callfs-data")
        return
    assert code == 0 and not err and list(stub[0].auth.api_key_users) == users and stub[0].server.listen_addr == listen
    assert os.path.exists("callfs-data/secrets.json") == (not file) and out.startswith("Listening on http://127.0.0.1:4711\n")
    keys = [*stub[0].auth.api_key_users.values(), stub[0].auth.internal_proxy_secret, stub[0].auth.single_use_link_secret]
    shown = [secret for secret in keys if secret in out]
    assert shown == (keys[:1] if users == ["admin"] and not kept else [])     # told once; never another one


def test_drawn_secrets(stub: Any, capsys: Any) -> None:
    assert callfs.main(["serve"]) == 0 and callfs.main(["serve"]) == 0
    assert stub[0].auth == stub[1].auth and stub[0].auth.admins == ["admin"]
    path = pathlib.Path("callfs-data/secrets.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir("callfs-data") == ["secrets.json"]
    kept = json.loads(path.read_text())
    assert kept["user"] == "admin" and kept["key"] == stub[0].auth.api_key_users["admin"] and len(set(kept.values())) == 5
    for text in ("", "{}", "[]", '{"version": 2}', "\x00"):
        path.write_text(text)
        assert callfs.main(["serve"]) == 2 and "secrets.json: holds no secrets" in capsys.readouterr().err


@pytest.mark.parametrize("argv, root, data", [
    ([], "./callfs-data/files", "./callfs-data"), (["tree"], "tree", "tree/.callfs"), (["--data", "d"], "d/files", "d"),
    (["tree", "--data", "d"], "tree", "d"),
])
def test_places(stub: Any, argv: list[str], root: str, data: str) -> None:
    os.mkdir("tree")
    assert callfs.main(["serve", *argv]) == 0
    assert stub[0].backend.localfs_root_path == root and stub[0].metadata_store.sqlite_path == data + "/callfs.sqlite3"
    assert os.path.exists(data + "/secrets.json") and len(stub[0].auth.internal_proxy_secret) > 16


def test_a_folder_does_not_move_the_records_of_a_file(stub: Any) -> None:
    os.mkdir("tree")
    pathlib.Path("config.json").write_text(json.dumps({**FILE, "metadata_store": {"sqlite_path": "/mine/x.sqlite3"}}))
    assert callfs.main(["serve", "tree"]) == 0 and stub[0].metadata_store.sqlite_path == "/mine/x.sqlite3"


@pytest.mark.parametrize("mode, lines", [("full", 2), ("read-only", 1), ("upload-only", 1), ("no-delete", 2)])
def test_what_a_first_run_says(stub: Any, capsys: Any, monkeypatch: Any, mode: str, lines: int) -> None:
    monkeypatch.setenv("CALLFS_AUTH__ANONYMOUS", "read")
    assert callfs.main(["serve", "--mode", mode]) == 0
    out = capsys.readouterr().out
    key = stub[0].auth.api_key_users["admin"]
    assert out.count("curl") == lines and out.count(f"'Authorization: Bearer {key}' http://127.0.0.1:4711/v1/files/") == lines
    assert "admin: reads everything, changes what is theirs and what came from outside" in out and "without a key: reads everything" in out and "--listen :8443" in out
    assert (f"mode {mode}" in out) == (mode != "full") and "Without TLS" not in out
    assert callfs.main(["serve", "--listen", ":0"]) == 0
    assert "Without TLS" in capsys.readouterr().out


def test_config_init(stub: Any, capsys: Any) -> None:
    assert callfs.main(["config", "init"]) == 0
    assert stat.S_IMODE(os.stat("config.yaml").st_mode) == 0o600
    before = pathlib.Path("config.yaml").read_text()
    assert callfs.main(["config", "init"]) == 1 and pathlib.Path("config.yaml").read_text() == before
    assert callfs.main(["config", "validate"]) == 0 and callfs.main(["config", "show"]) == 0
    assert callfs.main(["serve"]) == 0 and not os.path.exists("callfs-data")
    auth, (out, err) = stub[0].auth, capsys.readouterr()
    secrets = [auth.api_key_users["admin"], auth.internal_proxy_secret, auth.single_use_link_secret]
    assert len(set(secrets)) == 3 and not any(secret in out + err for secret in secrets) and "admin: \"********\"" in out
    assert "is there already" in err


@pytest.mark.parametrize("error, code, text", [
    (callfs.ConfigError("one\ntwo"), 2, "callfs: one\ncallfs: two\n"), (callfs.FileNotFound("gone"), 1, "callfs: gone\n"),
    (FileNotFoundError(2, "No such file", "x"), 1, "callfs: x: No such file\n"), (KeyboardInterrupt(), 130, ""),
    (ZeroDivisionError("z"), 1, "callfs: unforeseen ZeroDivisionError: z (--log-level debug shows where)\n"),
])
def test_errors_for_the_user(stub: Any, monkeypatch: Any, capsys: Any, error: BaseException, code: int, text: str) -> None:
    def run(args: Any) -> int:
        raise error
    monkeypatch.setattr(callfs, "build_parser", lambda: parser)
    parser = callfs.argparse.ArgumentParser()
    parser.set_defaults(run=run)
    assert callfs.main([]) == code and capsys.readouterr().err == text
    monkeypatch.setenv("CALLFS_LOG__LEVEL", "debug")
    callfs.main([])
    assert ("Traceback" in capsys.readouterr().err) == bool(text)


def test_a_command_is_a_row() -> None:
    row = callfs.Command("config extra", "help", lambda args: args.n, (callfs._arg("--n", type=int),), ("more",))
    args = callfs.build_parser([*callfs.COMMANDS, row]).parse_args(["config", "more", "--n", "7"])
    assert args.run(args) == 7
    assert len({command.name for command in callfs.COMMANDS}) == len(callfs.COMMANDS)


def test_link(stub: Any, capsys: Any, monkeypatch: Any) -> None:
    told = {"url": "http://x/download/T", "token": "T", "expires_at": "2026-01-02T03:04:05Z"}
    with Scripted([answer(201, json.dumps(told).encode())]) as server:
        monkeypatch.setenv("CALLFS_KEY", CLIENT_KEY)
        assert callfs.main(["link", "/a b", "--url", server.url, "--expires", "30m", "--uses", "3"]) == 0
        assert json.loads(server.heard[0].body) == {"path": "/a b", "expiry_seconds": 1800, "max_uses": 3}
        assert server.heard[0].headers["authorization"] == "Bearer " + CLIENT_KEY
    assert capsys.readouterr().out == "http://x/download/T\n"


def test_fsck(stub: Any, monkeypatch: Any, capsys: Any) -> None:
    def check(config: Any, *, deep: bool, mend: bool, report: Any) -> int:
        report(callfs.Finding("missing", "/x", "more"))
        return int(deep) + 2 * int(mend)
    monkeypatch.setattr(callfs, "run_fsck", check)
    assert [callfs.main(["fsck", *argv]) for argv in (["--dry-run"], ["--deep", "--dry-run"], [])] == [0, 1, 1]
    assert "missing: /x: " in capsys.readouterr().out


def test_signals(monkeypatch: Any) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    before = signal.getsignal(signal.SIGTERM)
    with callfs._Signals() as signals:
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert [signals.queue.get(timeout=5) for _ in range(2)] == ["reload", "stop"] and not ended
        os.kill(os.getpid(), signal.SIGINT)
        signals.queue.get(timeout=5)
        assert ended == [1]
    assert signal.getsignal(signal.SIGTERM) is before


def run_serve(folder: pathlib.Path, program: str) -> tuple[subprocess.Popen[str], str]:
    """A real server in a process of its own, and its URL."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CALLFS_", "NOTIFY_"))}
    process = subprocess.Popen([sys.executable, program, "serve"], cwd=folder, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    found = re.fullmatch(r"Listening on (http://127.0.0.1:[0-9]+)\n", process.stdout.readline())
    return process, found[1] if found else ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_in_a_process(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**FILE, "server": {"listen_addr": "127.0.0.1:0"}}))
    process, url = run_serve(tmp_path, callfs.__file__)     # from the source, as users do
    try:
        with callfs.Client(url, CLIENT_KEY) as client:
            client.upload("/a", b"x")
            process.send_signal(signal.SIGHUP)
            assert client.health()["status"] == "ok"
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "config.json").write_text(json.dumps({**FILE, "server": {"listen_addr": url[7:]}}))
        second, nothing = run_serve(tmp_path / "other", compiled())
        out, err = second.communicate(timeout=20)
        assert second.returncode == 1 and url[7:] in err and "--listen" in err and "Traceback" not in err
    finally:
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in err and CLIENT_KEY not in out + err


def test_a_reader_that_leaves(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(f"'{sys.executable}' '{compiled()}' config reference | head -n 1", shell=True, cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.stdout.startswith("###") and done.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(monkeypatch: Any, tmp_path: pathlib.Path, abstract: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"callfs-{os.getpid()}" if abstract else str(tmp_path / "n")
        manager.bind("\0" + name if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        for state, pattern in (("READY=1", b"READY=1"), ("RELOADING=1", rb"RELOADING=1\nMONOTONIC_USEC=[0-9]+")):
            callfs._tell_systemd(state)
            assert re.fullmatch(pattern, manager.recv(100))


# ============================================================================
# remFS client: /fs from Python, and any static file server that has a remfs.json
# ============================================================================

SEED_TREE = {"type": "dir", "children": {"f1.txt": {"type": "file"}, "f2.mp3": {"type": "file"}, "d2": {"type": "dir", "children": {
    "f3.pdf": {"type": "file"}, "f4.md": {"type": "file"}}}}}                  # as the seed has it
SEED_FEATURES = ('{\n  "features": {\n    "read": true,\n    "write": true,\n    "events": true,\n    "perf": false,\n  },\n'
                 '  "type": "dir",\n  "children": {\n  }\n}\n')


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    """A static file server, with what it was asked in `server.asked`."""

    def log_request(self, *args: Any) -> None:
        """Note it."""
        self.server.asked.append(f"{self.command} {self.path}")     # type: ignore[attr-defined]

    def log_message(self, *args: Any) -> None:
        """Not on the screen."""


class Static(NamedTuple):
    """A static server of `root/d1`, what it was asked, and a client of it."""

    root: Path
    asked: list[str]
    client: callfs.RemFSClient

    def describe(self, value: Any, folder: str = "") -> None:
        """Write a remfs.json."""
        (self.root / folder / "remfs.json").write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.fixture
def static(tmp_path: Path) -> Iterator[Static]:
    """`http.server` on the folder that the seed shows."""
    (tmp_path / "d1" / "d2").mkdir(parents=True)
    for name in ("f1.txt", "f2.mp3", "d2/f3.pdf", "d2/f4.md"):
        (tmp_path / "d1" / name).write_bytes(b"0123456789 " + name.encode())
    handler = callfs.functools.partial(QuietFiles, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []                   # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with callfs.RemFSClient(f"http://127.0.0.1:{server.server_port}/d1", timeout=10) as client:
                made = Static(tmp_path / "d1", server.asked, client)            # type: ignore[attr-defined]
                made.describe(SEED_TREE)
                yield made
        finally:
            server.shutdown()
            thread.join()


def test_a_static_server_is_browseable_as_a_read_only_remfs(static: Static) -> None:
    client = static.client
    assert [(info.name, info.is_dir, info.size) for info in client.list()] == [("d2", True, 0), ("f1.txt", False, -1), ("f2.mp3", False, -1)]
    assert [info.name for info in client.list("/d2")] == ["f3.pdf", "f4.md"]         # which has no remfs.json of its own
    assert static.asked[-2:] == ["GET /d1/d2/remfs.json", "GET /d1/remfs.json"]
    assert client.read("/d2/f4.md") == b"0123456789 d2/f4.md" and client.stat("/d2/f4.md").size == 19
    assert client.stat("/f1.txt").mtime_ns > 0 and client.stat("/d2").is_dir and client.stat("/").is_dir
    assert client.features("/d2") == {}
    for path in ("/none", "/d2/none", "/none/none"):
        for look in (client.stat, client.read, client.list):
            with pytest.raises(callfs.FileNotFound):
                look(path)
    with pytest.raises(callfs.FileNotFound):
        client.list("/f1.txt")
    with pytest.raises(callfs.Conflict, match="directory"):
        client.read("/d2")


def test_a_part_is_read_where_the_server_has_no_ranges(static: Static) -> None:
    assert static.client.read("/f1.txt", 2, 5) == b"234" and static.client.read("/f1.txt", 11) == b"f1.txt"
    assert static.client.read("/f1.txt", 0, 3) == b"012" and static.client.read("/f1.txt", 8, 99) == b"89 f1.txt"
    with pytest.raises(callfs.RangeNotSatisfiable):
        static.client.read("/f1.txt", 17)
    for start, stop in ((-1, None), (3, 3), (3, 1)):
        with pytest.raises(ValueError):
            static.client.open("/f1.txt", start, stop)
    (static.root / "large").write_bytes(bytes(3 * callfs.BLOCK) + b"end")
    assert static.client.read("/large", 3 * callfs.BLOCK - 1) == b"\0end"


def test_writes_to_a_static_server_say_that_it_is_read_only(static: Static, tmp_path: Path) -> None:
    client, local = static.client, tmp_path / "local"
    local.write_bytes(b"x" * 100)
    for write in (lambda: client.write("/x", b""), lambda: client.patch("/f1.txt", 0, b""), lambda: client.mkdir("/d"), lambda: client.remove("/f1.txt"),
                  lambda: client.move("/f1.txt", "/f"), lambda: client.concat(["/f1.txt"], "/f"), lambda: client.resume_upload("/f1.txt", local),
                  lambda: client.resume_upload("/new", local)):
        with pytest.raises(callfs.NotSupported, match="read-only"):
            write()


@pytest.mark.parametrize("text, match", [
    (SEED_FEATURES, "not JSON.*line [67].*comma behind the last field"), ("{", "not JSON"), ("", "not JSON"), ("<html>", "not JSON"),
    ("[]", "object with `children`"), ('{"children": []}', "object with `children`"), ('{"children": {"a": 7}}', "not answer"),
    ('{"children": {"a": {"type": "file", "size": "x"}}}', "not answer"), ('{"features": [1], "children": {"a": {}}}', "not answer"),
    ('{"children": {"a": {"modTime": "yesterday"}}}', "not answer"), ("[" * 100_000, "not JSON")])
def test_a_remfs_json_that_is_none(static: Static, text: str, match: str) -> None:
    static.describe(text)
    with pytest.raises(callfs.BadGateway, match=match):
        static.client.list("/")


def test_what_a_remfs_json_leaves_out(static: Static) -> None:
    static.describe({"type": "dir", "features": {"write": False}, "children": {"d2": {"type": "dir"}, "d3": {"type": "dir", "features": {"write": True}, "children": {}}}})
    with pytest.raises(callfs.NotSupported, match="does not say what is in /d2"):
        static.client.list("/d2")
    assert static.client.list("/d3") == [] and static.client.features("/d3") == {"write": True}
    assert [info.meta["features"] for info in static.client.list("/")] == [{"write": False}, {"write": True}]
    static.describe({"children": {"f3.pdf": {"type": "file", "size": 3, "modTime": "2026-01-02T03:04:05.5+01:00"}}}, "d2")
    info, = static.client.list("/d2")
    assert (info.size, info.mtime_ns) == (3, callfs.pfs_time_ns("2026-01-02T02:04:05.5Z")) and static.client.features("/d2") == {}
    (static.root / "remfs.json").unlink()
    with pytest.raises(callfs.FileNotFound, match="no remfs.json"):
        static.client.list("/")


def test_the_same_client_on_callfs(remfs: Any, tmp_path: Path) -> None:
    with callfs.RemFSClient(remfs.url + "/fs", remfs.key) as client:
        assert [info.name for info in client.list("/d")] == ["f.txt", "page.html", "sub"] and client.list("/d")[0].size == 10
        assert client.features("/hello")["write"] is False and client.features() == ALL_ON
        assert client.write("/w/ü #?", b"one").size == 3 and client.read("/w/ü #?") == b"one" and client.stat("/w/ü #?").size == 3
        assert client.patch("/w/ü #?", 3, b" two").size == 7 and client.read("/w/ü #?", 4) == b"two" and client.read("/d/f.txt", 2, 4) == b"23"
        assert client.mkdir("/w/d") and not client.mkdir("/w/d") and client.stat("/w/d").is_dir and client.list("/w/d") == []
        client.move("/w/ü #?", "/w/d/moved")
        with pytest.raises(callfs.FileExists):
            client.move("/w/d/moved", "/d/f.txt")
        client.move("/w/d/moved", "/d/f.txt", overwrite=True)
        assert client.concat(["/d/f.txt", "/d/page.html"], "/all", delete_sources=True).size == 15
        assert client.read("/all") == b"one two<script>" and [info.name for info in client.list("/d")] == ["sub"]
        client.remove("/d")
        for path, error in (("/d", callfs.FileNotFound), ("/all/x", callfs.FileNotFound), ("/..", callfs.BadRequest), ("/hello", callfs.NotSupported)):
            with pytest.raises(error):
                client.write("/hello/x", b"") if path == "/hello" else client.stat(path)
        with pytest.raises(callfs.PreconditionFailed):
            client.write("/all", b"", if_match='"other"')
        with pytest.raises(callfs.RangeNotSatisfiable):
            client.patch("/all", 99, b"x")
        with pytest.raises(callfs.NotSupported, match="hellofs"):               # the server's own word, not ours
            client.write("/hello/x", b"")
    with callfs.RemFSClient(remfs.url + "/fs", "wrong-key-0123456789") as client, pytest.raises(callfs.AuthenticationFailed):
        client.list("/")


def test_uploads_resume_by_head_and_patch(remfs: Any, tmp_path: Path) -> None:
    local, data = tmp_path / "local", os.urandom(100_000)
    local.write_bytes(data)
    fs(remfs, "PUT", "/up", data[:40_000], status=201)
    seen: list[Any] = []
    with callfs.RemFSClient(remfs.url + "/fs", remfs.key) as client:
        assert client.resume_upload("/up", local, progress=lambda *done: seen.append(done)).size == 100_000
        assert min(done for done, _ in seen) > 40_000 and seen[-1] == (100_000, 100_000)
        assert client.resume_upload("/new", local).size == 100_000 and client.read("/new") == client.read("/up") == data
        fs(remfs, "PATCH", "/up", b"x", {"RemFS-Offset": "100000"})
        with pytest.raises(callfs.Conflict):
            client.resume_upload("/up", local)


def test_an_upload_that_is_cut_goes_on(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")

    def cut(sock: Any) -> None:
        read_exactly(sock, 6)
    with Scripted([answer(404), answer(201, b"{}"), answer(200, Content_Length="0"), cut], [answer(200, Content_Length="6"), answer(204), answer(200, Content_Length="10")]) as server, \
            callfs.RemFSClient(server.url, CLIENT_KEY, timeout=10) as client:
        client.sleep = lambda seconds: None
        assert client.resume_upload("/a", tmp_path / "f").size == 10
    assert [(heard.method, heard.headers.get("remfs-offset")) for heard in server.heard if heard.method != "HEAD"] == [("PUT", None), ("PATCH", "0"), ("PATCH", "6")]
    assert server.heard[-2].body == b"6789"


# ============================================================================
# Examples and README
# ============================================================================


EXAMPLES = Path(HERE) / "examples"
# What the example configurations leave to the environment: they hold no secrets.
EXAMPLE_SECRETS = {"CALLFS_AUTH__API_KEY_USERS__ALICE": KEY, "CALLFS_AUTH__INTERNAL_PROXY_SECRET": SECRETS["internal_proxy_secret"],
                   "CALLFS_AUTH__SINGLE_USE_LINK_SECRET": SECRETS["single_use_link_secret"]}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("config*.yaml")))
def test_example_configuration_is_valid(name: str) -> None:
    config = callfs.Config.load(str(EXAMPLES / name), environ=EXAMPLE_SECRETS)
    assert config.validate() == []                      # no warnings either
    with pytest.raises(callfs.ConfigError, match="auth.api_keys"):
        callfs.Config.load(str(EXAMPLES / name))        # nobody starts with a key out of a repository


def test_example_container_file_names_options_that_exist() -> None:
    text = (EXAMPLES / "Containerfile").read_text(encoding="utf-8")
    environ = dict(re.findall(r"(CALLFS_\w+)=(\S+)", text))
    config = callfs.Config.load(environ={**EXAMPLE_SECRETS, **environ}, folder=str(EXAMPLES / "bench"))
    assert config.backend.localfs_root_path == "/data/files"
    user = re.search(r"^USER (\d+)", text, re.M)
    assert user and user[1] != "0"


def test_example_container_health_check_works(serve: Callable[..., Any]) -> None:
    text = (EXAMPLES / "Containerfile").read_text(encoding="utf-8")
    command = json.loads(re.search(r"^ *CMD (\[\"python3\", \"-I\".*\])$", text, re.M)[1])
    port = urllib.parse.urlsplit(serve().url).port
    for number, expected in ((port, 0), (1, 1)):
        changed = [part.replace("127.0.0.1:8443", f"127.0.0.1:{number}") for part in command[1:]]
        assert subprocess.run([sys.executable, *changed], stderr=subprocess.DEVNULL).returncode == expected


@pytest.mark.once
def test_example_units_are_valid(tmp_path: Path) -> None:
    text = (EXAMPLES / "callfs.service").read_text(encoding="utf-8")
    for line in ("Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict", "StateDirectory=callfs", "DynamicUser=yes"):
        assert f"\n{line}\n" in text
    analyze = need_program("systemd-analyze")
    for name in ("callfs.service", "callfs.socket"):
        shutil.copy(EXAMPLES / name, tmp_path / name)
    python = text.replace("/usr/bin/python3", sys.executable)       # it is checked that the program exists
    (tmp_path / "callfs.service").write_text(python, encoding="utf-8")
    done = subprocess.run([analyze, "verify", "--man=no", *map(str, sorted(tmp_path.glob("callfs.*")))],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=60)
    ours = [line for line in done.stdout.splitlines() if "callfs" in line]
    assert not ours, "\n".join(ours)


def test_example_of_mounts_serves(tmp_path: Path) -> None:
    """Every filesystem of examples/config-mounts.yaml can be mounted as it stands there."""
    place = tmp_path / "config-mounts.yaml"
    place.write_text(_read(str(EXAMPLES / "config-mounts.yaml")).replace(":8443", ":0"))
    (tmp_path / "callfs-data").mkdir()
    config = callfs.Config.load(str(place), environ=EXAMPLE_SECRETS)
    config.backend.localfs_root_path = str(tmp_path / "files")
    config.metadata_store.sqlite_path = str(tmp_path / "records.sqlite3")
    with callfs.Server(config) as server:
        assert [row for row in server.mounts.list(callfs.ROOT) if "error" in row] == []
        assert fetch(server.tree, "/kvfs/keys/welcome", callfs.ROOT) == b"Hello from callfs!"
        assert (tmp_path / "callfs-data" / "queue.db").exists() and "/queues" in shown(server.tree)
    every = {spec.fstype for spec in callfs.mount_specs(_all_enabled(config.plugins))}
    assert every == set(callfs.FILESYSTEMS)


def _all_enabled(node: Any) -> Any:
    if isinstance(node, list):
        return [_all_enabled(each) for each in node]
    return {key: True if key == "enabled" else _all_enabled(value) for key, value in node.items()} \
        if isinstance(node, dict) else node


def test_example_units_match_the_configuration() -> None:
    service = (EXAMPLES / "callfs.service").read_text(encoding="utf-8")
    config = callfs.Config.load(str(EXAMPLES / "config.yaml"), environ=EXAMPLE_SECRETS)
    assert config.backend.localfs_root_path.startswith("/var/lib/callfs/")      # StateDirectory
    assert config.metadata_store.sqlite_path.startswith("/var/lib/callfs/")
    assert int(re.search(r"TimeoutStopSec=(\d+)", service)[1]) > config.server.shutdown_timeout


def _metric_names(text: str) -> set[str]:
    return {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in re.findall(r"\bcallfs_\w+", text)}


def test_example_alerts_use_metrics_that_exist() -> None:
    text = (EXAMPLES / "prometheus-rules.yml").read_text(encoding="utf-8")
    rules = callfs.parse_yaml(text)["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 5
    assert all(rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"] for rule in rules)
    assert _metric_names("\n".join(rule["expr"] for rule in rules)) <= set(callfs.METRICS)


def test_example_board_uses_metrics_that_exist() -> None:
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text(encoding="utf-8"))
    used = _metric_names("\n".join(target["expr"] for panel in board["panels"] for target in panel["targets"]))
    assert len(used) >= 5 and used <= set(callfs.METRICS)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_example_embedding_runs() -> None:
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(EXAMPLES),
                           str(EXAMPLES / "pytest_embedding.py")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          universal_newlines=True, env={**os.environ, "PYTHONPATH": os.path.dirname(compiled())}, timeout=120)
    assert done.returncode == 0, done.stdout


# ---- nginx and Caddy in front -----------------------------------------------------------------------------------

def _nginx_configuration(folder: Path, upstream: str) -> tuple[Path, Path]:
    """The example with our places in it: (configuration, the unix socket that it listens on)."""
    text, listen = (EXAMPLES / "nginx.conf").read_text(encoding="utf-8"), folder / "nginx.sock"
    changes = {
        "listen 80;": f"listen unix:{listen};",
        "server unix:/run/callfs/callfs.sock;": f"server {upstream};",
        "worker_processes auto;": f"worker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\ndaemon off;",
        "http {\n": "http {\n    access_log off;\n" + "".join(
            f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")),
    }
    if os.geteuid() == 0:                   # its workers must reach what belongs to us
        changes["events {"] = "user root;\nevents {"
    for old, new in changes.items():
        assert text.count(old) == 1, f"nginx.conf should have {old!r} once"
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    return folder / "nginx.conf", listen


@contextlib.contextmanager
def _nginx_in_front(upstream: str) -> Iterator[str]:
    """A running nginx with the example's configuration; the address of its socket."""
    program = need_program("nginx")
    with tempfile.TemporaryDirectory(prefix="callfs-") as made:         # short: a unix socket's path has 108 bytes
        config, listen = _nginx_configuration(Path(made), upstream)
        command = [program, "-p", made, "-c", str(config), "-e", made + "/error.log"]
        checked = subprocess.run([*command, "-t"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        assert checked.returncode == 0 and "warn" not in checked.stdout, checked.stdout
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            wait_for(lambda: listen.exists() or process.poll() is not None, what="nginx's start")
            assert process.poll() is None, (Path(made) / "error.log").read_text()
            yield f"unix:{listen}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.once
@pytest.mark.parametrize("place", ["port", "unix"])
def test_behind_nginx(place: str, spawn_server: Callable[..., Spawned]) -> None:
    """Prefix, body that passes through, escapes, links with the outer name, WebSocket, errors."""
    with tempfile.TemporaryDirectory(prefix="callfs-") as short:
        listen, trusted = ("127.0.0.1:0", "127.0.0.1") if place == "port" else (f"unix:{short}/s", "unix")
        server = spawn_server({"server": {"listen_addr": listen, "path_prefix": "/files", "trusted_proxies": [trusted]}})
        upstream = f"unix:{short}/s" if place == "unix" else urllib.parse.urlsplit(server.url).netloc
        with _nginx_in_front(upstream) as front:
            key = {"Authorization": f"Bearer {KEY}", "Host": "www.example.com"}
            body, odd = os.urandom(3 << 20), "/files/v1/files/a%20%23%3F%25%2B%C3%A9"
            assert call(front, "PUT", odd, body, key).status == 201
            assert call(front, "GET", odd, headers=key).body == body
            part = call(front, "GET", odd, headers={**key, "Range": "bytes=5-9"})
            assert (part.status, part.body) == (206, body[5:10])
            assert call(front, "GET", odd, headers={"Host": "www.example.com"}).status == 401
            assert call(front, "GET", "/files/v1/nothing", headers=key).status == 404
            link = call(front, "POST", "/files/v1/links/generate",
                        {"path": urllib.parse.unquote(odd)[len("/files/v1/files"):], "expiry_seconds": 60}, key).json()["url"]
            assert link.startswith("http://www.example.com/files/download/")
            assert call(front, "GET", link[len("http://www.example.com"):]).body == body
            hello = raw(front, (f"GET /files/v1/files/ws/{odd[len('/files/v1/files/'):]} HTTP/1.1\r\nHost: www.example.com\r\n"
                                f"Authorization: Bearer {KEY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode()
                        + b"\x88\x82\0\0\0\0\x03\xe8",      # our close frame, so that nobody waits for it
                        until=b"\r\n\r\n")
            assert hello.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in hello


@pytest.mark.once
def test_example_caddyfile_is_valid() -> None:
    if not shutil.which("caddy"):
        pytest.skip("caddy is not installed (Debian 12 has no package of it)")
    done = subprocess.run(["caddy", "validate", "--adapter", "caddyfile", "--config", str(EXAMPLES / "Caddyfile")],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    assert done.returncode == 0, done.stdout


def test_bench_lists_its_measurements() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / "bench" / "compare.py"), "--list"], stdout=subprocess.PIPE,
                          universal_newlines=True, timeout=60)
    assert done.returncode == 0 and "get-1k" in done.stdout


@pytest.mark.once
def test_no_name_is_defined_twice() -> None:
    """In a file of so many rooms a second definition would quietly take the place of the first."""
    for path in (callfs.__file__, __file__):
        seen: collections.Counter[str] = collections.Counter()
        for node in ast.parse(_read(path)).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                seen[node.name] += 1
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                seen.update(each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
        assert [name for name, count in seen.items() if count > 1] == []


def test_the_readme_shows_every_filesystem() -> None:
    """What `python3 callfs.py config reference` says of them, between two marks, word for word."""
    shown = _readme().split("<!-- filesystems -->\n")[1].split("\n<!-- /filesystems -->")[0]
    assert shown == callfs.mount_reference(), "run `python3 callfs.py config reference` and paste the end into README.md"


def test_the_readme_shows_every_option() -> None:
    """`python3 callfs.py config reference` between its two marks, word for word."""
    text = Path(HERE, "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- options -->\n")[1].split("\n<!-- /options -->")[0]
    assert shown == callfs.option_reference().strip(), "run `python3 callfs.py config reference` and paste it into README.md"


# ---- the README's commands --------------------------------------------------------------------------------------
# Every block ```sh of README.md is run as it stands, with `bash -e`, in a folder that holds callfs.py and nothing else;
# python3 there is the Python of the tests, `callfs` the console script. A line of its own before the block says
# otherwise:
#     <!-- not run: REASON -->       is not run
#     <!-- run: continues -->        in the folder and the shell of the block before, whose servers still run
#     <!-- run: needs curl aria2c -->  skipped where one of the programs is missing; both: <!-- run: continues, needs tar -->
# A line that starts a server (`python3 callfs.py serve ...`) goes to the background and the next one waits until it
# listens. Curl fails on 4xx and 5xx (--fail-with-body), so that an example cannot rot unseen; a line that shows an
# error ends in `|| true`.

class Block(NamedTuple):
    """A block of the README: its first line's number, what stands before it, its text."""

    line: int
    mark: str
    text: str


def readme_blocks(text: str) -> list[Block]:
    """Every ```sh block, with the mark on the nearest line above it that is not empty."""
    found, lines, row = [], text.split("\n"), 0
    while row < len(lines):
        fence = re.fullmatch(r"( *)(`{3,})(\w*)\s*", lines[row])
        if not fence:
            row += 1
            continue
        end = next((n for n in range(row + 1, len(lines)) if lines[n].strip() == fence[2]), len(lines))
        above = next((line.strip() for line in reversed(lines[:row]) if line.strip()), "")
        mark = re.fullmatch(r"<!-- ((?:not )?run\b.*) -->", above)
        if fence[3] == "sh":
            indent = len(fence[1])
            found.append(Block(row + 2, mark[1] if mark else "", "\n".join(line[indent:] for line in lines[row + 1:end])))
        row = end + 1
    return found


def readme_scripts(text: str) -> list[list[Block]]:
    """Blocks that run together, in one shell each."""
    scripts: list[list[Block]] = []
    for block in readme_blocks(text):
        if block.mark.startswith("not run"):
            assert re.match(r"not run: \S", block.mark), f"README.md:{block.line}: not run without a reason"
        elif block.mark.startswith("run: continues"):
            assert scripts, f"README.md:{block.line}: there is no block to continue"
            scripts[-1].append(block)
        else:
            scripts.append([block])
    return scripts


_SERVE_LINE = re.compile(r"^((?:\w+=\S* +)*)((?:python3 callfs\.py|callfs) +(?:serve|server)\b[^#&]*?)\s*&?\s*(?:#.*)?$", re.M)
_PRELUDE = r"""
set -eo pipefail
in_background() {       # start a server and wait until it says that it listens
    : >"$README_LOG"
    "$@" >>"$README_LOG" 2>&1 </dev/null &
    for _ in {1..300}; do
        if grep -q '^Listening on ' "$README_LOG"; then sed 's/^/    | /' "$README_LOG"; return 0; fi
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    cat "$README_LOG"; echo "did not start: $*"; return 1
}
"""


def readme_bash(script: list[Block]) -> str:
    """One bash program of blocks that run together; it says where it is."""
    parts = [_PRELUDE]
    for block in script:
        text = block.text.replace("\\\n", " ")
        text = _SERVE_LINE.sub(lambda line: f"in_background {'env ' + line[1] if line[1] else ''}{line[2]}", text)
        parts.append(f"echo '--- README.md:{block.line}'\n{text}\n")
    return "\n".join(parts)


def _run_readme(script: list[Block], folder: Path) -> None:
    here, home = folder / "here", folder / "home"
    for each in (here, home, home / "bin"):
        each.mkdir()
    shutil.copy(os.path.join(HERE, "callfs.py"), here)
    (home / ".curlrc").write_text("fail-with-body\n")
    # A server starts from the source, as users start it; other commands need not compile it each time.
    short = f'case "$1 $2" in "callfs.py serve") ;; "callfs.py "*) shift; set -- {shlex.quote(compiled())} "$@" ;; esac\n'
    for name, arguments in (("python3", ""), ("callfs", f" {shlex.quote(compiled())}")):
        (home / "bin" / name).write_text(f'#!/bin/sh\n{short}exec {shlex.quote(sys.executable)}{arguments} "$@"\n')
        (home / "bin" / name).chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CALLFS_")}
    environ.update(HOME=str(home), PATH=f"{home / 'bin'}:{os.environ['PATH']}", README_LOG=str(home / "serve.log"))
    with open(home / "output", "wb") as output:
        process = subprocess.Popen(["bash", "-c", readme_bash(script)], cwd=here, env=environ, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=output, start_new_session=True)
        try:
            code: Any = process.wait(120)
        except subprocess.TimeoutExpired:
            code = "none after 120 s"
        finally:
            for how in (signal.SIGTERM, signal.SIGKILL):        # the session that we opened: bash and its servers
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, how)
                    process.poll()
                    _wait_group(process.pid)
            process.wait()
    assert code == 0, f"exit code {code}\n" + (home / "output").read_text(encoding="utf-8", errors="replace")[-4000:]


def _wait_group(group: int, seconds: float = 10) -> None:
    """Until no process of a group is left, or the time is over. Raises ProcessLookupError when none is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        os.killpg(group, 0)
        time.sleep(0.02)


def _readme() -> str:
    return _read(os.path.join(HERE, "README.md"))


def _answers(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _default_port() -> Iterator[None]:
    """The README's servers listen on 8443: one test run at a time, and not while somebody else has it."""
    with open(os.path.join("/tmp", f"callfs-readme-{os.getuid()}.lock"), "w") as lock:
        deadline = time.monotonic() + 120
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    pytest.skip("another run of the tests has held port 8443 for two minutes")
                time.sleep(0.2)
        while _answers(8443):
            if time.monotonic() > deadline:
                pytest.skip("something else listens on port 8443, which the README's commands use")
            time.sleep(0.2)
        yield


@pytest.mark.once
@pytest.mark.parametrize("script", readme_scripts(_readme()), ids=lambda script: f"line-{script[0].line}")
def test_readme_commands_work_as_they_stand(script: list[Block], tmp_path: Path) -> None:
    for block in script:
        needs = re.search(r"needs ([\w .+-]+)", block.mark)
        for name in needs[1].split() if needs else ():
            need_program(name)
    with _default_port():
        _run_readme(script, tmp_path)


def test_readme_runner_reads_marks() -> None:
    text = ("```sh\na\n```\n<!-- not run: takes an hour -->\n\n```sh\nb\n```\n```python\nc\n```\n  ```sh\n  d\n    e\n  ```\n"
            "<!-- run: continues, needs curl -->\n```sh\nf\n```\n````sh\n```sh\n````\n")
    assert [[(block.line, block.text) for block in script] for script in readme_scripts(text)] == [
        [(2, "a")], [(13, "d\n  e"), (18, "f")], [(21, "```sh")]]
    with pytest.raises(AssertionError, match="without a reason"):
        readme_scripts("<!-- not run -->\n```sh\na\n```\n")


@pytest.mark.parametrize("line, expected", [
    ("python3 callfs.py serve", "in_background python3 callfs.py serve"),
    ("python3 callfs.py serve DIR --listen :1  # a comment", "in_background python3 callfs.py serve DIR --listen :1"),
    ("A=1 B='x' callfs server &", "in_background env A=1 B='x' callfs server"),
    ("python3 callfs.py version", "python3 callfs.py version"),
])
def test_readme_runner_starts_servers_in_the_background(line: str, expected: str) -> None:
    assert expected in readme_bash([Block(1, "", line)]).split("\n")


def test_readme_runner_fails_when_a_command_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="(?s)exit code 1.*README.md:7"):
        _run_readme([Block(7, "", "false\ntrue")], tmp_path)


# ============================================================================
# Shell: the file commands, one by one or at a prompt
# ============================================================================

import pty                                  # noqa: E402


class Terminal(io.BytesIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """True."""
        return True


class Sh:
    """A shell on a server with captured streams: `sh("ls")` is what it printed; `error` and `code` are of that line."""

    def __init__(self, client: Any, terminal: bool = False) -> None:
        self.shell = callfs.Shell(client)
        self.kind, self.error, self.code = Terminal if terminal else io.BytesIO, "", 0

    def bytes(self, line: str, stdin: Any = b"") -> bytes:
        shell = self.shell
        shell.stdin = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        shell.stdout, shell.stderr = self.kind(), io.BytesIO()
        self.code = shell.run_line(line)
        self.error = shell.stderr.getvalue().decode()
        return shell.stdout.getvalue()

    def __call__(self, line: str, stdin: Any = b"") -> str:
        return self.bytes(line, stdin).decode()


@pytest.fixture
def shell_on(serve: Any) -> Iterator[Callable[..., Sh]]:
    """`shell_on(plugins={...}, terminal=False)`: a shell on a server of its own; `sh.server` is that."""
    with contextlib.ExitStack() as stack:
        def make(terminal: bool = False, **options: Any) -> Sh:
            server = serve(**options)
            sh = Sh(stack.enter_context(callfs.PFSClient(server.url, server.key)), terminal)
            sh.server = server              # type: ignore[attr-defined]
            return sh
        yield make


@pytest.fixture
def sh(shell_on: Any) -> Sh:
    """A shell on a server without mounts."""
    return shell_on()


# ---- lines

@pytest.mark.parametrize("line, words", [
    ("", []), ("  ", []), ("# nothing", []), ("a b", ["a", "b"]), ("a  b # c", ["a", "b"]), ("a#b", ["a#b"]),
    ("'a b' c", ["a b", "c"]), ('"a b"c\'d e\'', ["a bcd e"]), ("''", [""]), ('a "" b', ["a", "", "b"]),
    ('"a\\"b"', ['a"b']), ("'a\\'", ["a\\"]), (r"a\ b", ["a b"]), (r"a\nb", [r"a\nb"]), (r'"a\nb"', [r"a\nb"]),
    (r'"\\n"', [r"\n"]), (r"C:\x\y", [r"C:\x\y"]), (r"\#x", ["#x"]), ("a|b", ["a", "|", "b"]),
    ("a||b", ["a", "||", "b"]),
    ("a>b", ["a", ">", "b"]), ("a>>b", ["a", ">>", "b"]), ("a<b;c", ["a", "<", "b", ";", "c"]), ("'a|b'", ["a|b"]),
    ("a&&b", ["a", "&&", "b"]), ("ä\u00a0ö", ["ä", "ö"]), ('x\'"\'"\'"', ["x\"'"]), ("\"#\" '#'", ["#", "#"]),
    ("echo 1=2,3 {a} $x ~", ["echo", "1=2,3", "{a}", "$x", "~"]),
])
def test_shell_words(line: str, words: list[str]) -> None:
    assert callfs.tokenize(line) == words


@pytest.mark.parametrize("line, message", [
    ("echo 'a", "' is not closed"), ('echo "a', '" is not closed'), ('"a\\"', '" is not closed'),
    ("a\\", "quotes nothing"),
    ("a & b", "& alone"), ("| a", "before |"), ("a |", "missing"), ("a | | b", "before |"), ("a &&", "missing"),
    ("&& a", "before &&"), ("a || && b", "before &&"), ("a >", "after >"), ("a > > b", "after >"),
    ("a > b > c", "twice"),
    ("a > b >> c", "twice"), ("a <", "after <"), ("> a", "missing"), ("a | > b", "missing"), ("a > | b", "after >"),
])
def test_shell_syntax_errors_are_one_clear_line(line: str, message: str) -> None:
    sh = Sh(None)
    assert sh(line) == "" and sh.code == 2
    assert sh.error.startswith("syntax error: ") and sh.error.count("\n") == 1 and message in sh.error


@pytest.mark.parametrize("line, pattern", [
    ("*.txt", "*.txt"), ("'*'", ""), (r"\*", ""), ("'a*'*", "a[*]*"), ("a?[bc]", "a?[bc]"), ('"["*', "[[]*"),
    ("plain", "")])
def test_shell_patterns_know_what_was_quoted(line: str, pattern: str) -> None:
    assert callfs.tokenize(line)[0].pattern == pattern


@pytest.mark.parametrize("line, text", [
    (r'"a\n\tb"', "a\n\tb"), (r"a\nb", "a\nb"), (r"'a\nb'", r"a\nb"), (r'"a\\n"', r"a\n"), (r'"\x41\0101\q"', r"AA\q"),
    ('"ä\\e"', "ä\x1b"), (r'"\"\n"', '"\n')])
def test_shell_escapes(line: str, text: str) -> None:
    assert callfs.unescape(callfs.tokenize(line)[0]) == text


@property_test(300, text=lambda s: s.text(alphabet="ab '\"\\|;&<>#*?[\n\t\0é", max_size=30))
def test_shell_any_line_is_read_or_refused(text: str) -> None:
    try:
        pipelines = callfs.parse_line(text)
    except callfs.ShellSyntaxError:
        return
    assert all(stage.words for pipeline in pipelines for stage in pipeline.stages)


class FakePFS:
    """The part of `PFSClient` that a random line may reach, over a dictionary: None is a directory."""

    def __init__(self) -> None:
        self.files: dict[str, Optional[bytes]] = {"/": None, "/a": b"one\ntwo\n", "/d": None,
                                                  "/d/b c": b"\xff\0", "/d/*": b""}

    def stat(self, path: str) -> Any:
        if path not in self.files:
            raise callfs.FileNotFound()
        data = self.files[path]
        return callfs.RemoteInfo(path.rpartition("/")[2] or "/", len(data or b""), 0o644, 0, data is None)

    def list(self, path: str) -> list[Any]:
        if not self.stat(path).is_dir:
            raise callfs.Conflict("A file is there.")
        inside = [each for each in sorted(self.files) if each != "/" and (each.rpartition("/")[0] or "/") == path]
        return [self.stat(each) for each in inside]

    def open(self, path: str, offset: int = 0, size: int = -1, stream: bool = False) -> Any:
        data = (b"" if self.stat(path).is_dir else self.files[path] or b"")[offset:]
        return callfs.ChunkReader(iter([data] if data else []))

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        return (self.files[path] or b"")[offset:][:size if size >= 0 else None]

    def write(self, path: str, source: Any) -> str:
        if path == "/":
            raise callfs.Conflict("A directory is there.")
        self.files[path] = source if isinstance(source, bytes) else b"".join(source)
        return ""

    def remove(self, path: str, recursive: bool = False) -> None:
        del self.files[self.stat(path) and path]

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        if path in self.files:
            raise callfs.FileExists()
        self.files[path] = None

    def mounts(self) -> list[dict[str, Any]]:
        return [{"path": "/d", "pluginName": "kvfs", "config": {"a": 1}}]

    def capabilities(self) -> dict[str, Any]:
        return {}

    def __getattr__(self, name: str) -> Any:
        def refuse(*args: Any, **named: Any) -> Any:
            raise callfs.NotSupported(f"no {name} here")
        return refuse


SHELL_PARTS = ["ls", "cat", "echo", "write", "mkdir", "rm", "mv", "cp", "stat", "tree", "head", "tail", "grep",
               "digest", "chmod",
               "touch", "truncate", "tee", "mount", "unmount", "mounts", "plugins", "cd", "pwd", "help", "nonsense",
               "|", ">",
               ">>", "&&", "||", ";", "/a", "/d", "/d/*", "*", "'b c'", '"', "'", "-r", "-n", "-l", "-p", "--", "-",
               "644", "3",
               "a=b", "[", "..", "/d/../..", "\ud800", "\0", "x" * 300, "#"]


@property_test(400, words=lambda s: s.lists(s.sampled_from(SHELL_PARTS), max_size=9))
def test_shell_any_line_ends_cleanly(words: list[str]) -> None:
    sh = Sh(FakePFS())
    sh.bytes(" ".join(words), b"some\ninput")
    assert sh.code in (0, 1, 2, 127) and "Traceback" not in sh.error
    assert all(line.isprintable() for line in sh.error.split("\n"))
    assert bool(sh.error) or sh.code in (0, 1)          # `grep` finds nothing without a word


# ---- the commands, on a real server

SHELL_SESSION = [                           # (line, what it prints, what it complains about, exit code)
    ("pwd", "/\n", "", 0),
    ("ls", "", "", 0),
    ("echo hello   'big  world'", "hello big  world\n", "", 0),
    (r"echo -e 'a\n' 'b'", "a\\n b\n", "", 0), (r'echo -e "a\tb"', "a\tb\n", "", 0), (r'echo "a\tb"', "a\\tb\n", "", 0),
    ("echo -n x", "x", "", 0), ("echo -ne x", "x", "", 0), ("echo - -- -x", "- -- -x\n", "", 0), ("echo", "\n", "", 0),
    ("echo one > a.txt", "", "", 0), ("cat a.txt /a.txt", "one\none\n", "", 0),
    ("echo two >> a.txt; echo new >> fresh; cat a.txt fresh", "one\ntwo\nnew\n", "", 0),
    (r'write /README.md "# Project\n\nDocumentation here"', "", "", 0),
    ("cat README.md", "# Project\n\nDocumentation here", "", 0),
    (r"write /j '{\"a\": \"b\n\"}'; cat j", r'{\"a\": \"b\n\"}', "", 0),
    ("write /two a b; cat two; rm two j", "a b", "", 0),
    ("mkdir d; cd d; pwd", "/d\n", "", 0), ("cat ../a.txt", "one\ntwo\n", "", 0), ("cd ../..; pwd", "/\n", "", 0),
    ("cd a.txt", "", "cd: a.txt: Not a directory\n", 1), ("cd nope", "", "cd: nope: No such file or directory\n", 1),
    ("mkdir d", "", "mkdir: d: File exists\n", 1), ("mkdir -p d d/e/f /; ls d/e", "f\n", "", 0),
    ("mkdir -p a.txt", "", "mkdir: a.txt: File exists\n", 1),
    ("ls /x /a.txt", "/a.txt\n", "ls: /x: No such file or directory\n", 1), ("ls d a.txt", "d:\ne\na.txt\n", "", 0),
    ("cat nope a.txt", "one\ntwo\n", "cat: nope: No such file or directory\n", 1),
    ("cat nope > a.txt; cat a.txt", "one\ntwo\n", "cat: nope: No such file or directory\n", 0),
    ("cp a.txt d; cp -r d d2; mv d2/a.txt d2/b.txt; ls d2", "b.txt\ne\n", "", 0),
    ("cp d x", "", "cp: d: Is a directory (cp -r copies it)\n", 1),
    ("cp a.txt a.txt", "", "cp: a.txt: can not be copied to itself\n", 1),
    ("cp -r d d/e", "", "cp: d: can not be copied into itself\n", 1),
    ("cp a.txt", "", "cp: the target is missing\n", 2),
    ("cp a.txt fresh d2/; ls d2", "a.txt\nb.txt\ne\nfresh\n", "", 0),
    ("mv nope x", "", "mv: nope: No such file or directory\n", 1),
    ("tree d2 -L 1", "d2\n├── a.txt\n├── b.txt\n├── e\n└── fresh\n\n1 directory, 3 files\n", "", 0),
    ("tree d", "d\n├── a.txt\n└── e\n    └── f\n\n2 directories, 1 file\n", "", 0),
    ("rm d2", "", "rm: d2: Is a directory (rm -r removes it)\n", 1),
    ("rm -rf d2 nope; ls d2", "", "ls: d2: No such file or directory\n", 1),
    ("rm nope", "", "rm: nope: No such file or directory\n", 1),
    ("rm -rf /", "", "rm: /: this would remove everything, and is refused\n", 1),
    ("ls *.txt", "a.txt\n", "", 0), ("ls /d/*/", "f\n", "", 0),
    ("cat '*.txt'", "", "cat: *.txt: No such file or directory\n", 1),
    ("echo d/* no*pe '*' [ab].txt /*/*.txt", "d/a.txt d/e no*pe * a.txt /d/a.txt\n", "", 0),
    ("echo x > 'odd *'; echo odd* \"odd \"*; cat odd\\ \\*; rm odd*", "odd * odd *\nx\n", "", 0),
    ("cat a.txt | grep o | grep -v x", "", "grep: unrecognized arguments: -v", 2),
    ("cat a.txt | grep -c o", "2\n", "", 0),
    ("cat a.txt | grep -n TWO -i", "2:two\n", "", 0), ("cat a.txt | grep xyz", "", "", 1),
    ("cat a.txt | grep [", "", "grep: the pattern", 1),
    ("grep two a.txt", "two\n", "", 0), ("grep -n two a.txt", "2:two\n", "", 0),
    ("grep -rn o. /d", "/d/a.txt:1:one\n", "", 0),
    ("grep -c o a.txt", "2\n", "", 0), ("grep o nope", "", "grep: nope: No such file or directory\n", 1),
    ("grep zzz a.txt", "", "", 1),
    ("cat a.txt | tee t1 t2 | tail -n 1", "two\n", "", 0), ("cat t1 t2 | head -n 3", "one\ntwo\none\n", "", 0),
    ("rm t1 t2", "", "", 0),
    ("head -n 1 a.txt; tail -n 1 a.txt; tail -n 0 a.txt", "one\ntwo\n", "", 0),
    ("digest -a md5 a.txt", hashlib.md5(b"one\ntwo\n").hexdigest() + "  a.txt\n", "", 0),
    ("digest a.txt", hashlib.sha256(b"one\ntwo\n").hexdigest() + "  a.txt\n", "", 0),
    ("chmod 600 a.txt; stat a.txt | grep Mode", "Mode: 0600 -rw-------\n", "", 0),
    ("chmod 9 a.txt", "", "chmod: argument MODE", 2),
    ("truncate -s 3 a.txt; cat a.txt", "one", "", 0), ("truncate -s 1x a.txt", "", "truncate: argument -s", 2),
    ("touch new; stat new | grep Size", "Size: 0\n", "", 0),
    ("stat nope", "", "stat: nope: No such file or directory\n", 1),
    ("mounts", "", "", 0),
    ("mount hellofs /h; mounts; cat /h/hello; unmount /h; mounts", "hellofs on /h\nHello, World!\n", "", 0),
    ("mount nofs /n", "", "mount: There is no filesystem type 'nofs'", 1),
    ("mount hellofs /n x", "", "mount: 'x' is no option", 2),
    ("mount hellofs /n a=b", "", "mount: hellofs has no option 'a'", 1), ("unmount /n", "", "unmount: /n: ", 1),
    ("nonsense", "", "nonsense: there is no such command; `help` lists all\n", 127),
    ("ls --nonsense", "", "ls: unrecognized", 2),
    ("nope || echo b", "b\n", "nope: there", 0), ("pwd && echo b", "/\nb\n", "", 0),
    ("cat nope && echo b", "", "cat: nope", 1),
    ("pwd || echo b", "/\n", "", 0), ("# pwd", "", "", 0), ("help nonsense", "", "help: nonsense: there is no", 1),
    ("echo d > -x; cat -- -x; rm -r -- -x --; cat -x", "d\n", "rm: --: No such", 2),
    ("mount a -- --", "", "mount: There is", 1),
    ("plugins list", "", "", 0), ("plugins load", "", "plugins: plugins load needs", 2),
    ("cat a\u202eb", "", "cat: a\\u202eb: The path holds", 1),
    ("exit 3; pwd", "", "", 3),
]


def test_shell_session(sh: Sh) -> None:
    for line, output, complaint, code in SHELL_SESSION:
        assert sh(line) == output, line
        assert (sh.error.startswith(complaint) if complaint else not sh.error), (line, sh.error)
        assert sh.code == code, line
    assert sh.shell.leaving


def test_shell_help_is_made_from_the_table(sh: Sh) -> None:
    text = sh("help")
    for name, command in callfs.FILE_COMMANDS.items():
        assert re.search(rf"^{name} +{re.escape(command.help)}$", text, re.M)
        assert sh(f"help {name}").startswith(f"usage: {name}") and sh(f"{name} --help") == sh(f"help {name}")


def test_shell_long_listing_and_columns(shell_on: Any) -> None:
    sh = shell_on(terminal=True)
    sh("mkdir d; echo x > a; echo 12345678901 > 'b c'; chmod 755 d; chmod 640 a")
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(rf"-rw-r-----  2 {time} a\n-rw-r--r-- 12 {time} b c\ndrwxr-xr-x  0 {time} d\n", sh("ls -l"))
    assert sh("ls") == "a  b c  d\n" and sh("ls -1") == "a\nb c\nd\n" and sh("ls | cat") == "a\nb c\nd\n"
    assert callfs._columns(["aaa", "b", "c", "d", "e"], 11) == ["aaa  d", "b    e", "c"]
    assert callfs._columns(["a" * 50, "b"], 11) == ["a" * 50, "b"] and callfs._columns([], 80) == []


def test_shell_names_do_not_move_the_cursor() -> None:
    fake = FakePFS()
    fake.files["/\x1b[2Jx"] = b""
    sh = Sh(fake, terminal=True)
    assert "\x1b" not in sh("ls; tree; ls -l; stat /?*2Jx") and "?[2Jx" in sh("ls")
    assert Sh(fake)("ls").startswith("\x1b[2Jx\n")       # exactly, to a program


def test_shell_input_from_a_local_file(sh: Sh, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "report.pdf").write_bytes(data)
    assert sh(f"write /r < {tmp_path}/report.pdf") == "" and sh.bytes("cat /r") == data
    assert sh.bytes(f"cat < {tmp_path}/report.pdf | cat | cat > /s; cat /s") == data
    assert sh("write /t", b"from stdin") == "" and sh("cat t") == "from stdin"
    assert sh("write /r < /no/such") == "" and "write: /no/such: No such file" in sh.error and sh.code == 1
    assert sh.bytes("cat /r") == data


def test_shell_uploads_and_downloads(sh: Sh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "sub dir").mkdir(parents=True)
    (tmp_path / "in" / "a").write_bytes(b"A")
    (tmp_path / "in" / "sub dir" / "b").write_bytes(b"B" * 1_000_000)
    assert sh("put in") == "" and "Is a directory" in sh.error and sh.code == 1
    assert sh("upload -r in /up; mkdir /dir; put in/a /dir; put in/a 'in/sub dir/b' /many/; put in/* /dir") == ""
    assert sh("tree /up").endswith("2 files\n") and sh("ls /dir /many") == "/dir:\na\n\n/many:\na\nb\n"
    assert "put: in/sub dir: Is a directory" in sh("put in/* /dir") + sh.error
    assert sh("get -r /up out; download /dir/a; get /up/a named; get -r /up out") == "" and not sh.error
    for name in ("out/sub dir/b", "out/up/sub dir/b"):
        assert (tmp_path / name).read_bytes() == b"B" * 1_000_000
    assert (tmp_path / "a").read_bytes() == (tmp_path / "named").read_bytes() == b"A"
    assert sh("get /up/a -") == "A" and sh("put - /piped", b"P") == "" and sh("cat /piped") == "P"
    assert sh("get /nope x") == "" and sh.error == "get: /nope: No such file or directory\n"
    assert not (tmp_path / "x").exists() and sh("get /up x") == "" and "Is a directory" in sh.error
    assert sh("put nope /x") == "" and sh.error == "put: nope: No such file or directory\n"
    assert sorted(os.listdir(tmp_path / "out" / "sub dir")) == ["b"]


def test_shell_downloads_stay_in_their_folder(tmp_path: Path) -> None:
    fake = FakePFS()
    fake.list = lambda path: [callfs.RemoteInfo("../evil", 1)]       # type: ignore[method-assign]
    sh = Sh(fake)
    sh(f"get -r /d {tmp_path}/x")
    assert sh.code == 1 and "'../evil'" in sh.error and os.listdir(tmp_path) == ["x"] and not os.listdir(tmp_path / "x")


def test_shell_progress_is_for_terminals(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 2_000_000)
    assert sh(f"put {tmp_path}/f /f; cp /f /g; get /g {tmp_path}/g") == "" and sh.error == ""
    sh.shell.stderr = Terminal()
    for line in (f"put {tmp_path}/f /f", "cp /f /g", f"get /g {tmp_path}/g"):
        sh.shell.run_line(line)
    shown = sh.shell.stderr.getvalue()
    assert shown.count(b" of 1.907 MiB") >= 2 and shown.endswith(b"\r\x1b[K")
    assert (tmp_path / "g").stat().st_size == 2_000_000


def test_shell_copies_on_the_server_where_that_can() -> None:
    fake, copied = FakePFS(), []
    fake.capabilities = lambda: {"features": ["copy"]}               # type: ignore[method-assign]
    fake.copy = lambda *given: [copied.append(given)] and [5]         # type: ignore[attr-defined]
    sh = Sh(fake)
    assert sh("cp /a /x; cp -r /d /y; cp /a /d") == ""
    assert copied == [("/a", "/x", False), ("/d", "/y", True), ("/a", "/d/a", False)]


def test_shell_large_files_stay_out_of_memory(sh: Sh, tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(64 << 20)
    sh.shell.stdout = open(os.devnull, "wb")
    tracemalloc.start()
    try:
        for line in (f"put {tmp_path}/big /big", "cp /big /big2", f"get /big2 {tmp_path}/back", 
                     "cat /big | cat > /big3",
                     "echo x >> /big3", "cat /big | tail -n 1 | head -n 1 > /short", "tail -n 1 /big > /short"):
            assert sh.shell.run_line(line) == 0, line
            if line.startswith("cat /big |"):
                continue
        assert sh.shell.run_line("cat /big | grep y") == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        sh.shell.stdout.close()
    assert (tmp_path / "back").stat().st_size == 64 << 20
    assert peak < 180 << 20                 # the last line of a file of zeros is the whole file


def test_shell_says_when_nobody_answers(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        with callfs.PFSClient(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1) as client:
            sh = Sh(client)
            for line in ("ls a b", "cat a b", "rm -f a b", "mkdir -p a b", "grep x a b", "cp a b",
                         f"get a b {tmp_path}", "mounts"):
                assert sh(line) == "" and sh.code == 1 and sh.error.count("\n") == 1, (line, sh.error)
                assert "127.0.0.1" in sh.error


# ---- the seed's examples

SEED_LINES = {
    "queuefs": r"""
pfs:/> mkdir /queuefs/tasks
pfs:/> echo "Process order #123" > /queuefs/tasks/enqueue
pfs:/> echo "Send email to user" > /queuefs/tasks/enqueue
pfs:/> echo "Update inventory" > /queuefs/tasks/enqueue
pfs:/> cat /queuefs/tasks/size
3
pfs:/> cat /queuefs/tasks/peek
{"id":"1736936445000000000","data":"Process order #123","timestamp":"2025-01-15T10:30:45Z"}
pfs:/> cat /queuefs/tasks/dequeue
{"id":"1736936445000000000","data":"Process order #123","timestamp":"2025-01-15T10:30:45Z"}
pfs:/> cat /queuefs/tasks/size
2
pfs:/> echo "" > /queuefs/tasks/clear
pfs:/> cat /queuefs/tasks/dequeue
{}
pfs:/> cat /queuefs/tasks/peek
{}
pfs:/> cat /queuefs/tasks/size
0
pfs:/> stat /queuefs/tasks/peek
...ModTime: 2025-01-15T10:30:45Z...
pfs:/> rm -rf /queuefs/tasks
pfs:/> mkdir /queuefs/orders
pfs:/> mkdir /queuefs/notifications
pfs:/> mkdir /queuefs/logs
pfs:/> echo "order-456" > /queuefs/orders/enqueue
pfs:/> echo "User logged in" > /queuefs/notifications/enqueue
pfs:/> echo "Database connected" > /queuefs/logs/enqueue
pfs:/> ls /queuefs/
README  logs  notifications  orders
pfs:/> cat /queuefs/orders/dequeue
{"id":"1736936450000000000","data":"order-456","timestamp":"2025-01-15T10:30:50Z"}
pfs:/> mkdir -p /queuefs/logs/errors
pfs:/> mkdir -p /queuefs/logs/warnings
pfs:/> mkdir -p /queuefs/logs/info
pfs:/> echo "Connection timeout" > /queuefs/logs/errors/enqueue
pfs:/> echo "Slow query detected" > /queuefs/logs/warnings/enqueue
pfs:/> echo "Service started" > /queuefs/logs/info/enqueue
pfs:/> ls /queuefs/logs/
...errors...info...warnings...
pfs:/> cat /queuefs/logs/errors/dequeue
{"id":"1736936460000000000","data":"Connection timeout","timestamp":"2025-01-15T10:31:00Z"}""",
    "kvfs": r"""
pfs:/> echo "alice" > /kvfs/keys/username
pfs:/> echo "alice@example.com" > /kvfs/keys/email
pfs:/> cat /kvfs/keys/username
alice
pfs:/> ls /kvfs/keys
email  username
pfs:/> rm /kvfs/keys/username
pfs:/> ls /kvfs/keys
email""",
    "sqlfs": r"""
pfs:/> write /sqlfs/data/config.json '{"key": "value"}'
pfs:/> cat /sqlfs/data/config.json
{"key": "value"}
pfs:/> write /sqlfs/local.txt "local data"
pfs:/> write /sqlfs_prod/prod.txt "production data"
pfs:/> cat /sqlfs_prod/prod.txt
production data""",
    "proxyfs": r"""
pfs:/> ls /remote/server1
data  file.txt  reload
pfs:/> cat /remote/server1/data/file.txt
of the other server
pfs:/> write /remote/server2/upload.txt "data"
pfs:/> cp /remote/server1/file.txt /remote/server2/file.txt
pfs:/> cat /remote/server2/upload.txt /remote/server2/file.txt
datato be copied""",
    "localfs memfs": r"""
pfs:/> ls /local
config.txt
pfs:/> cat /local/config.txt
a = 1
pfs:/> echo "data" > /local/output.txt
pfs:/> mkdir /local/newdir
pfs:/> write /memfs/temp.txt "temporary"
pfs:/> cp /memfs/temp.txt /local/backup.txt
pfs:/> cat /local/output.txt /local/backup.txt
data
temporary
pfs:/> ls /local
backup.txt  config.txt  newdir  output.txt""",
    "httpfs memfs": r"""
pfs:/> write /memfs/report.pdf < report.pdf
pfs:/> write /memfs/README.md "# Project\n\nDocumentation here"
pfs:/> cat /memfs/README.md
# Project

Documentation here
pfs:/> mount httpfs /temp-http pfs_path=/memfs http_port=10000
pfs:/> cat /temp-http
HTTPFS Instance Status
======================
...Virtual Path: /temp-http...PFS Source Path: /memfs...HTTP Port: 10000...Server Status: Running...Uptime: ...
pfs:/> unmount /temp-http
pfs:/> mkdir /memfs/docs
pfs:/> mkdir /memfs/images
pfs:/> mount httpfs /docs pfs_path=/memfs/docs http_port=8001
pfs:/> mount httpfs /images pfs_path=/memfs/images http_port=8002
pfs:/> unmount /docs
pfs:/> unmount /images""",
    "serverinfofs": r"""
pfs:/> cat /serverinfofs/version
...
pfs:/> cat /serverinfofs/uptime
...s""",
    "memfs sqlfs": r"""
pfs:/> mount memfs /test/memory
pfs:/> mount sqlfs /test/db backend=sqlite db_path=/tmp/test.db
pfs:/> mounts
...memfs on /test/memory...
pfs:/> unmount /test/memory""",
    "streamfs": r"""
pfs:/> write --stream /streamfs/live < report.pdf
pfs:/> cat --stream /streamfs/live | head -n 1
%PDF-1.4""",
}


def seed_plugins(tmp_path: Path, other: Any) -> dict[str, Any]:
    """What the seed's examples find mounted, by type."""
    def remote(folder: str) -> dict[str, str]:
        return {"base_url": other.url.replace("//", f"//:{other.key}@") + "/api/v1" + folder}
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "config.txt").write_bytes(b"a = 1\n")
    return {"queuefs": {"path": "/queuefs"}, "kvfs": {"path": "/kvfs"}, "streamfs": {"path": "/streamfs"},
            "memfs": {"path": "/memfs"}, "serverinfofs": {"path": "/serverinfofs"},
            "sqlfs": [{"path": path, "config": {"backend": "sqlite", "db_path": str(tmp_path / (path[1:] + ".db"))}}
                      for path in ("/sqlfs", "/sqlfs_prod")],
            "proxyfs": [{"path": "/remote/server1", "config": remote("")},
                        {"path": "/remote/server2", "config": remote("")}],
            "localfs": {"path": "/local", "config": {"local_dir": str(tmp_path / "local")}}}


def seed_pattern(lines: list[str]) -> str:
    """What the seed prints as a regular expression: identifiers and times differ, `...` is anything."""
    text = re.escape("\n".join(lines)).replace(re.escape("..."), "(?s:.*)")
    text = re.sub(r"\d{19}", r"\\d{19}", text)
    return re.sub(r"\d{4}\\?-\d\d\\?-\d\dT\d\d:\d\d:\d\d",
                  r"\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(?:\\.\\d+)?", text)


@pytest.mark.parametrize("kinds", SEED_LINES)
def test_shell_runs_the_seed(kinds: str, serve: Any, shell_on: Any, tmp_path: Path,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [kind for kind in kinds.split() if kind not in callfs.FILESYSTEMS]
    if missing:
        pytest.skip(f"{missing[0]} is not built yet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.4\nrest")
    other = serve()
    for name, data in (("data/file.txt", b"of the other server"), ("file.txt", b"to be copied")):
        assert call(other, "PUT", f"/v1/files/{name}", data).status == 201
    plugins = {kind: each for kind, each in seed_plugins(tmp_path, other).items() if kind in kinds.split()}
    sh = shell_on(terminal=True, plugins=plugins)
    text = SEED_LINES[kinds].replace("/tmp/test.db", str(tmp_path / "test.db"))
    for port in ("10000", "8001", "8002"):
        text = text.replace(port, str(free_port()))
    for part in text.split("\npfs:/> ")[1:]:
        line, *expected = part.split("\n")
        shown = sh(line).rstrip("\n")
        assert not sh.error and sh.code == 0, (line, sh.error)
        assert re.fullmatch(seed_pattern(expected), shown), (line, shown)


# ---- as a process

def callfs_process(server: Any, arguments: list[str], tmp_path: Path, **more: Any) -> subprocess.Popen[bytes]:
    """`callfs ...` with the server in its environment. The caller waits for it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CALLFS_", "PFS_"))}
    url, key = (server, "") if isinstance(server, str) else (server.url, server.key)
    return subprocess.Popen([sys.executable, compiled(), *arguments], cwd=tmp_path,
                            env={**clean, "CALLFS_URL": url, "CALLFS_KEY": key, "HOME": str(tmp_path), "TERM": "dumb"},
                            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more})


def callfs_run(server: Any, arguments: list[str], tmp_path: Path, data: bytes = b"") -> tuple[int, str, str]:
    """Exit code, output and errors of `callfs ...`."""
    process = callfs_process(server, arguments, tmp_path)
    out, err = process.communicate(data, timeout=60)
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def command_line(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., Any]:
    """The same in this process (a process compiles all of callfs.py first), in `tmp_path`, on `command_line.server`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, data: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = callfs.main(arguments)
        return (code, *capsys.readouterr())
    run.server = serve()                    # type: ignore[attr-defined]
    monkeypatch.setenv("CALLFS_URL", run.server.url)    # type: ignore[attr-defined]
    monkeypatch.setenv("CALLFS_KEY", run.server.key)    # type: ignore[attr-defined]
    return run


def test_shell_through_a_pipe(command_line: Any, tmp_path: Path) -> None:
    lines = "echo a > /f\n\ncat /f\ncat /nope\n# no\ncd /\necho 'open\nwrite /g\nto the end"
    assert callfs_run(command_line.server, ["sh"], tmp_path, lines.encode()) == (
        0, "a\n", "cat: /nope: No such file or directory\nsyntax error: a ' is not closed\n")
    assert command_line("cat", "/g") == (0, "to the end", "")
    assert command_line("sh", data=b"pwd\ncat /nope\n")[0] == 1
    assert command_line("sh", data=b"cat /nope\npwd\n")[:2] == (0, "/\n")
    assert command_line("sh", "-e", data=b"cat /nope\npwd\n")[:2] == (1, "")
    assert command_line("sh", "-c", "pwd; exit 4\npwd")[:2] == (4, "/\n")
    (tmp_path / "script").write_text("write /h\ncat /h\n")
    assert command_line("sh", "script", data=b"data") == (0, "data", "")
    assert command_line("sh", "nope") == (1, "", "callfs: nope: No such file or directory\n")


def test_file_commands_one_by_one(command_line: Any, tmp_path: Path) -> None:
    server = command_line.server
    (tmp_path / "local").write_bytes(b"local\n")
    for arguments, code, output, error in (
            (["put", "local", "/f"], 0, "", ""), (["cat", "/f"], 0, "local\n", ""), (["get", "/f", "back"], 0, "", ""),
            (["write", "/g", r"a\nb"], 0, "", ""), (["cat", "/g"], 0, "a\nb", ""), (["mkdir", "-p", "/x/y"], 0, "", ""),
            (["ls", "/"], 0, "f\ng\nx\n", ""), (["ls", "/*"], 1, "", "ls: /*: No such file or directory\n"),
            (["rm", "/nope"], 1, "", "rm: /nope: No such file or directory\n"),
            (["rm", "/f", "-f", "/nope"], 0, "", ""),
            (["ls", "--nonsense"], 2, "",
             "ls: unrecognized arguments: --nonsense (usage: ls [-l] [-1] [-a] [PATH ...])\n"),
            (["tail", "/g", "-n", "1"], 0, "b", ""),
            (["rm", "--", "--url"], 1, "", "rm: --url: No such file or directory\n"),
            (["ls", "--url", server.url, "--key", "wrong-key-0123456789", "/"], 1, "", "ls: The key is not valid.\n"),
            (["ls", "--url", "ftp://x"], 2, "",
                 "callfs: a server's URL is http://HOST[:PORT][/PREFIX], https://... or unix:/PATH\n")):
        assert command_line(*arguments) == (code, output, error), arguments
    assert (tmp_path / "back").read_bytes() == b"local\n"
    assert callfs_run(server, ["write", "/p"], tmp_path, b"piped") == (0, "", "")
    assert command_line("cat", "/p")[1] == "piped"
    assert command_line("ls", "--url", f"http://127.0.0.1:{free_port()}")[2].startswith("ls: Connection refused")
    for name in ("sh", "ls", "download", "digest"):
        assert re.search(rf"^    {name} ", command_line("--help")[1], re.M)


def test_file_commands_over_tls(command_line: Any, serve: Any, certificate: tuple[str, str]) -> None:
    server = serve(server={"cert_file": certificate[0], "key_file": certificate[1]})
    there = ("ls", "--url", server.url, "--key", server.key)
    assert command_line(*there)[0] == 1
    assert command_line(*there, "--no-verify") == (0, "", "")
    assert command_line(*there, "--ca-file", certificate[0]) == (0, "", "")


def test_file_commands_find_the_first_run_of_this_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CALLFS_URL", "CALLFS_KEY", "PFS_API_URL"):
        monkeypatch.delenv(name, raising=False)
    kept = callfs._draw_secrets(os.path.join(callfs.DATA_FOLDER, "secrets.json"))
    args = callfs.argparse.Namespace(url=None, key=None, ca_file="", insecure=False)
    assert callfs._address_of(args) == {"url": "http://127.0.0.1:8443", "key": kept["key"],
                                         "ca_file": "", "verify": True}
    monkeypatch.setenv("PFS_API_URL", "http://h:1/api/v1")
    there = callfs._address_of(args)
    assert there["url"] == "http://h:1/api/v1" and not there["key"]    # which others should not be told


def test_shell_streams_come_as_they_are_written_and_end_with_ctrl_c(serve: Any, tmp_path: Path) -> None:
    server = serve(plugins={"streamfs": {"path": "/s"}})
    assert callfs_run(server, ["write", "/s/live", "one"], tmp_path)[0] == 0
    assert callfs_run(server, ["write", "/log", r"1\n"], tmp_path)[0] == 0
    for arguments, more in ((["cat", "--stream", "/s/live"], ["write", "/s/live", "two"]),
                            (["tail", "-f", "/log"], ["sh", "-c", "echo two >> /log"])):
        process = callfs_process(server, arguments, tmp_path)
        found = os.read(process.stdout.fileno(), 100)               # type: ignore[union-attr]
        assert found in (b"one", b"1\n")
        assert callfs_run(server, more, tmp_path)[0] == 0
        assert os.read(process.stdout.fileno(), 100).startswith(b"two")     # type: ignore[union-attr]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[1] == b"" and process.returncode == 130


def test_shell_write_stream_sends_each_piece(serve: Any, tmp_path: Path) -> None:
    server = serve(plugins={"streamfs": {"path": "/s"}})
    writer = callfs_process(server, ["write", "--stream", "/s/live"], tmp_path)
    writer.stdin.write(b"first")            # type: ignore[union-attr]
    writer.stdin.flush()                    # type: ignore[union-attr]
    wait_for(lambda: b"first" == call(server, "GET", "/api/v1/files?path=/s/live").body, 20)
    reader = callfs_process(server, ["cat", "--stream", "/s/live"], tmp_path)
    assert os.read(reader.stdout.fileno(), 100) == b"first"         # type: ignore[union-attr]
    writer.communicate(b"second", timeout=20)
    assert os.read(reader.stdout.fileno(), 100) == b"second" and writer.returncode == 0     # type: ignore[union-attr]
    reader.send_signal(signal.SIGINT)
    reader.communicate(timeout=10)


class Typist:
    """`callfs sh` on a terminal: what it shows collects in `shown`."""

    def __init__(self, server: Any, tmp_path: Path) -> None:
        self.master, slave = pty.openpty()
        self.process = callfs_process(server, ["sh"], tmp_path, stdin=slave, stdout=slave, stderr=slave,
                                      start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.shown = ""

    def type(self, keys: str, until: str) -> str:
        """Type, and read until a pattern shows; what was shown since."""
        os.write(self.master, keys.encode())
        self.shown, deadline = "", time.monotonic() + 20
        while not re.search(until, self.shown):
            assert select.select([self.master], [], [], deadline - time.monotonic())[0], (until, self.shown)
            try:
                block = os.read(self.master, 4096)
            except OSError:                 # the other side is closed
                block = b""
            assert block, (until, self.shown)
            self.shown += block.decode()
        return self.shown

    def wait_asleep(self) -> None:
        """Until it waits for a key: Python's readline overlooks a Ctrl-C that comes just before, until the next key."""
        state = Path(f"/proc/{self.process.pid}/stat")
        if state.exists():
            wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] == "S", 20, "the shell to wait for a key")

    def end(self) -> int:
        """Its exit code."""
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            os.close(self.master)


import termios                              # noqa: E402


def test_shell_at_a_terminal(serve: Any, tmp_path: Path) -> None:
    server = serve(plugins={"hellofs": {"path": "/greetings"}})
    call(server, "PUT", "/v1/files/no%20newline", b"text")
    user = Typist(server, tmp_path)
    prompt = r"pfs:(/\w*)> $"
    user.type("", prompt)
    assert re.search(r"text\r\npfs:/> $", user.type("cat 'no newline'\n", r"text(\r\n)?\S*" + prompt))
    assert "greetings  no newline" in user.type("ls\n", prompt)
    user.type("cat /gre\t", r"greetings/")
    assert "Hello, World!" in user.type("h\t\n", "World.*\n.*" + prompt)
    user.type("cat no\t", r"no\\ newline ")
    assert "text" in user.type("\n", "text" + r".*\r\n.*" + prompt)
    user.type("unmou\t", "unmount ")
    user.wait_asleep()
    user.type("\x03", prompt)
    user.type("cd greetings\n", r"pfs:/greetings> $")
    user.type("tail -f hello\n", "World")
    user.type("\x03", r"pfs:/greetings> $")                          # the command ends, the shell goes on
    user.type("mount s3fs /x secret_access_key=TOPSECRET\n", prompt)
    user.type("nonsense\n", "no such command.*\n.*" + prompt)
    os.write(user.master, b"\x04")
    assert user.end() == 127
    history = tmp_path / ".callfs_history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "tail -f hello" in history.read_text() and "TOPSECRET" not in history.read_text()


def test_shell_completes(sh: Sh) -> None:
    sh("mkdir /dir; touch /dir/file '/dir/odd name' /dir/x")
    complete = callfs.Completer(sh.shell)

    def found(line: str, text: str) -> list[str]:
        return list(iter((complete(line, text, state) for state in itertools.count()).__next__, None))
    assert found("unm", "unm") == ["unmount "] and found("ls | gr", "gr") == ["grep "]
    assert found("x; pw", "pw") == ["pwd "]
    assert found("ls /d", "/d") == ["/dir/"] and found("cat d", "d") == ["dir/"] and found("ls /nope/", "/nope/") == []
    assert found("cat /dir/", "/dir/") == ["/dir/file ", "/dir/odd\\ name ", "/dir/x "]
    assert found("cat '/dir/od", "/dir/od") == ["/dir/odd name"] and found("cat /dir/odd\\ n", "n") == ["name "]

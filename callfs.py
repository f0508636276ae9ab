#!/usr/bin/env python3
"""callfs turns any host into a file server: one file, the standard library, one REST API over your folders.

    python3 callfs.py serve             serve ./callfs-data on 127.0.0.1:8443, draw keys, print a curl line
    python3 callfs.py serve DIR         serve what already lies in DIR
    python3 callfs.py --help            everything else

In a test, or in a program of your own:

    with callfs.Server(root=tmp_path) as server:
        client = callfs.Client(server.url, server.key)
        client.upload("/hello.txt", b"Hello")

What is stable for importers is what `__all__` names. The file reads from the ground up: each room, opened by a
banner of three lines, uses only rooms above it. Design: a dialect of HTTP turns a request into one call of the
`Tree`; the tree authorises it, finds the mounted `FileSystem` and calls that; the store at `/` keeps bytes as plain
files below its root and everything else (owner, mode, digest) in SQLite.

MIT License. Copyright (c) the callfs authors. Permission is hereby granted, free of charge, to any person obtaining
a copy of this software and associated documentation files (the "Software"), to deal in the Software without
restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
following conditions: the above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.
"""
from __future__ import annotations

import abc
import argparse
import base64
import bisect
import codecs
import collections
import contextlib
import copy
import dataclasses
import datetime
import difflib
import email.utils
import errno
import fnmatch
import functools
import glob
import hashlib
import heapq
import hmac
import html
import http
import http.client
import http.server
import io
import ipaddress
import itertools
import json
import logging
import math
import mimetypes
import operator
import os
import posixpath
import queue
import random
import re
import secrets
import select
import selectors
import shutil
import signal
import socket
import socketserver
import sqlite3
import ssl
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import urllib.parse
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import (Any, BinaryIO, ContextManager, Generic, NamedTuple, NoReturn, Optional, Protocol, TypeVar, Union)

__version__ = "0.1.0"

__all__ = [
    # to run and to use a server
    "Server", "Client", "FileInfo", "LinkInfo", "RemoteFile", "PFSClient", "RemoteInfo", "RemFSClient", "Config",
    "OPTIONS", "main", "run_fsck", "Finding",
    # what it raises
    "CallFSError", "ConfigError", "CallerError", "BadRequest", "AuthenticationFailed", "PermissionDenied", "NotFound",
    "FileNotFound", "MethodNotAllowed", "RequestTimeout", "Conflict", "FileExists", "DirectoryNotEmpty", "Gone",
    "LengthRequired", "PreconditionFailed", "PayloadTooLarge", "URITooLong", "RangeNotSatisfiable",
    "ExpectationFailed", "MisdirectedRequest", "UpgradeRequired", "RateLimited", "HeadersTooLarge", "NotSupported",
    "VersionNotSupported", "BadGateway", "Unavailable", "StorageFull", "LoopDetected", "StorageError",
    "Disconnected", "DatabaseError", "DatabaseConflict", "DatabaseUnavailable",
    # to write a filesystem or a store
    "FileSystem", "Handle", "Entry", "Written", "WriteOptions", "Principal", "Reader", "ChunkReader", "FileReader",
    "Body", "FileBody", "bytes_body", "MetadataStore", "Link", "LockManager", "Lease", "Tree", "Rows", "Session",
    "Database", "open_database",
    # to serve something else with the same engine
    "HTTPServer", "HTTPLimits", "Request", "Response", "Route", "Router", "WebSocket", "ListenAddress",
]

# ============================================================================
# Errors: one tree, each with its status, its stable code and whose fault it is
# ============================================================================


class CallFSError(Exception):
    """Root of everything that callfs raises on purpose.

    `status` and `code` are what a dialect answers; `message` is safe to show to any client: it never carries a path
    of the machine, a secret or a traceback. `headers` go into the answer, `details` into a JSON error body.
    """

    status = 500
    code = "INTERNAL_ERROR"
    fault = "storage"                       # caller | peer | storage: who has to act

    def __init__(self, message: str = "", *, headers: Sequence[tuple[str, str]] = (), **details: Any) -> None:
        super().__init__(message or self.__class__.__doc__ or self.code)
        self.headers, self.details = tuple(headers), details

    @property
    def message(self) -> str:
        """One line for the client."""
        return str(self.args[0]).split("\n", 1)[0]


class ConfigError(CallFSError):
    """The configuration can not be used."""

    code, fault = "CONFIGURATION", "caller"


class CallerError(CallFSError):
    """The request can not be carried out as it stands."""

    status, code, fault = 400, "BAD_REQUEST", "caller"


class BadRequest(CallerError):
    """The request is malformed."""


class AuthenticationFailed(CallerError):
    """A valid key is needed."""

    status, code = 401, "AUTHENTICATION_FAILED"


class PermissionDenied(CallerError):
    """You may not do this."""

    status, code = 403, "PERMISSION_DENIED"


class NotFound(CallerError):
    """There is nothing at this address."""

    status, code = 404, "NOT_FOUND"


class FileNotFound(NotFound):
    """No such file or directory."""

    code = "FILE_NOT_FOUND"


class MethodNotAllowed(CallerError):
    """This method does not work here."""

    status, code = 405, "METHOD_NOT_ALLOWED"


class RequestTimeout(CallerError):
    """The request came too slowly."""

    status, code = 408, "REQUEST_TIMEOUT"


class Conflict(CallerError):
    """The request does not fit what is there."""

    status, code = 409, "CONFLICT"


class FileExists(Conflict):
    """A file or directory is already there."""

    code = "FILE_ALREADY_EXISTS"


class DirectoryNotEmpty(Conflict):
    """The directory is not empty."""

    code = "DIRECTORY_NOT_EMPTY"


class Gone(CallerError):
    """This link was used or has expired."""

    status, code = 410, "LINK_GONE"


class LengthRequired(CallerError):
    """The request needs a Content-Length."""

    status, code = 411, "LENGTH_REQUIRED"


class PreconditionFailed(CallerError):
    """The file is not in the state that the request asks for."""

    status, code = 412, "PRECONDITION_FAILED"


class PayloadTooLarge(CallerError):
    """The body is too large."""

    status, code = 413, "PAYLOAD_TOO_LARGE"


class URITooLong(CallerError):
    """The request line is too long."""

    status, code = 414, "URI_TOO_LONG"


class RangeNotSatisfiable(CallerError):
    """The range lies outside the file."""

    status, code = 416, "RANGE_NOT_SATISFIABLE"


class ExpectationFailed(CallerError):
    """Only `Expect: 100-continue` is understood."""

    status, code = 417, "EXPECTATION_FAILED"


class MisdirectedRequest(CallerError):
    """This server does not answer to that name."""

    status, code = 421, "MISDIRECTED_REQUEST"


class UpgradeRequired(CallerError):
    """This address speaks WebSocket."""

    status, code = 426, "UPGRADE_REQUIRED"


class RateLimited(CallerError):
    """Too many requests; try again later."""

    status, code = 429, "RATE_LIMIT_EXCEEDED"

    def __init__(self, message: str = "", *, retry_after: float = 1.0) -> None:
        super().__init__(message, headers=[("Retry-After", str(max(1, math.ceil(retry_after))))])


class HeadersTooLarge(CallerError):
    """The request's headers are too large."""

    status, code = 431, "HEADERS_TOO_LARGE"


class NotSupported(CallFSError):
    """This is not supported here."""

    status, code, fault = 501, "NOT_SUPPORTED", "caller"


class VersionNotSupported(CallFSError):
    """Only HTTP/1.0 and HTTP/1.1 are spoken here."""

    status, code, fault = 505, "HTTP_VERSION_NOT_SUPPORTED", "caller"


class BadGateway(CallFSError):
    """The node that holds the file can not be reached."""

    status, code, fault = 502, "BAD_GATEWAY", "peer"


class Unavailable(CallFSError):
    """The server can not do this at the moment; try again."""

    status, code = 503, "UNAVAILABLE"

    def __init__(self, message: str = "", *, retry_after: float = 1.0) -> None:
        super().__init__(message, headers=[("Retry-After", str(max(1, math.ceil(retry_after))))])


class StorageFull(CallFSError):
    """The disk is full."""

    status, code = 507, "STORAGE_FULL"


class LoopDetected(CallFSError):
    """The request goes round in a circle."""

    status, code, fault = 508, "LOOP_DETECTED", "caller"


class StorageError(CallFSError):
    """The storage failed."""


class DatabaseError(StorageError):
    """The database refused a statement. `state` is its own code: a SQLSTATE, MySQL's number, SQLite's name."""

    code, state = "DATABASE_ERROR", ""

    def __init__(self, message: str = "The database refused.", *, state: str = "") -> None:
        super().__init__(message)
        self.state = state


class DatabaseConflict(Conflict):
    """A row with this key is already there."""

    code, state = "DATABASE_CONFLICT", ""

    def __init__(self, message: str = "", *, state: str = "") -> None:
        super().__init__(message)
        self.state = state


class DatabaseUnavailable(Unavailable):
    """The database can not be reached, or is too busy.

    `lost`: the connection ended in the middle. `uncertain`: it did so before the answer to COMMIT, and whether what
    was written is there nobody knows.
    """

    code, state, lost, uncertain = "DATABASE_UNAVAILABLE", "", False, False

    def __init__(self, message: str = "The database can not be reached.", *, state: str = "", lost: bool = False,
                 retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.state, self.lost = state, lost


class Disconnected(CallFSError):
    """The other side went away in the middle; nobody is left to answer."""

    status, code, fault = 400, "DISCONNECTED", "peer"


# What the operating system says, in our words. What is not here is a fault of the disk: 500, with a count and a log.
_OS_ERRORS: dict[int, type[CallFSError]] = {
    errno.ENOENT: FileNotFound, errno.ENOTDIR: FileNotFound, errno.ELOOP: FileNotFound, errno.EEXIST: FileExists,
    errno.ENOTEMPTY: DirectoryNotEmpty, errno.EISDIR: Conflict, errno.ENAMETOOLONG: BadRequest,
    errno.EILSEQ: BadRequest, errno.EACCES: PermissionDenied, errno.EPERM: PermissionDenied, errno.EROFS: PermissionDenied,
    errno.ENOSPC: StorageFull, errno.EDQUOT: StorageFull, errno.EFBIG: PayloadTooLarge,
    errno.EMFILE: Unavailable, errno.ENFILE: Unavailable, errno.ENOMEM: Unavailable,
}
_OS_MESSAGES = {
    errno.EROFS: "The disk is read-only.", errno.EISDIR: "A directory is there.",
    errno.EACCES: "The server's account may not do this on its disk.",
    errno.EPERM: "The server's account may not do this on its disk.",
}


def translate_os_error(error: OSError) -> CallFSError:
    """The error to answer for an `OSError`; the file name that it carries stays out of the message."""
    kind = _OS_ERRORS.get(error.errno or 0, StorageError)
    return kind(_OS_MESSAGES.get(error.errno or 0, ""))


# ============================================================================
# Small values: canonical paths, ranges, conditions, dates, sizes, durations
# ============================================================================

MAX_PATH_BYTES = 4096                       # PATH_MAX of Linux; longer ones no backend can hold
MAX_NAME_BYTES = 255                        # NAME_MAX of every common filesystem
MAX_RANGES = 16                             # more are an attack (CVE-2011-3192) or a mistake

# C0 and C1 controls, DEL, the backslash (a separator on Windows: CVE-2026-27585), bidirectional overrides (they make a
# name look like another one) and lone surrogates (no UTF-8).
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\\\\\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def canonical_path(text: str) -> str:
    """The one spelling of a path: absolute, no empty, `.` or `..` part, no trailing slash.

    `text` is already percent-decoded. Raises BadRequest for what `contracts/rest.md` refuses. What this returns is
    authorised, locked, looked up and opened, so that no check sees another path than the use (CVE-2023-37474).
    """
    if _FORBIDDEN.search(text):
        raise BadRequest("The path holds a backslash, a control character or a text-direction override.")
    if "//" in text or "/." in text or text[:1] != "/" or text[-1:] == "/":
        text = _normalise(text)
    if len(text) > MAX_NAME_BYTES // 4:
        _check_lengths(text)
    return text


def _normalise(text: str) -> str:
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            if not parts:
                raise BadRequest("The path leaves the root.")
            parts.pop()
        elif part and part != ".":
            parts.append(part)
    return "/" + "/".join(parts)


def _check_lengths(text: str) -> None:
    if len(text.encode()) > MAX_PATH_BYTES:
        raise BadRequest(f"The path is longer than {MAX_PATH_BYTES} bytes.")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in text.split("/")):
        raise BadRequest(f"A part of the path is longer than {MAX_NAME_BYTES} bytes.")


def decode_path(raw: str) -> str:
    """Percent-decode once, as UTF-8 (`raw` is Latin-1 text of the bytes on the wire). Raises BadRequest."""
    if "%" not in raw and raw.isascii():
        return raw
    try:
        return urllib.parse.unquote_to_bytes(raw.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("The path is not UTF-8.") from None


def split_path(path: str) -> tuple[str, str]:
    """A canonical path's parent and name; the root is ("", "")."""
    parent, _, name = path.rpartition("/")
    return (parent or "/" if name else "", name)


def join_path(parent: str, name: str) -> str:
    """The canonical path of `name` in the canonical directory `parent`."""
    return parent + name if parent == "/" else parent + "/" + name


def ancestors(path: str) -> list[str]:
    """Every directory above a canonical path, the root first."""
    found = ["/"] if path != "/" else []
    cut = path.find("/", 1)
    while cut != -1:
        found.append(path[:cut])
        cut = path.find("/", cut + 1)
    return found


def is_below(path: str, directory: str) -> bool:
    """Whether a canonical path is `directory` or lies in it."""
    return path == directory or directory == "/" or path.startswith(directory + "/")


def parse_ranges(header: str, size: int) -> Optional[list[tuple[int, int]]]:
    """`Range: bytes=...` against `size` (RFC 9110, 14.2): half-open (start, stop) pairs, merged where they overlap.

    None where the header is to be ignored (another unit, bad syntax, more than 16 ranges); RangeNotSatisfiable where
    no range touches the file. Work is linear in the header (CVE-2025-62727).
    """
    unit, equals, text = header.partition("=")
    specs = text.split(",", MAX_RANGES)
    if unit.strip().lower() != "bytes" or not equals or len(specs) > MAX_RANGES:
        return None
    found: list[tuple[int, int]] = []
    for spec in specs:
        pair = _parse_range(spec.strip(), size)
        if pair is None:
            return None
        if pair[0] < pair[1]:
            found.append(pair)
    if not found:
        raise RangeNotSatisfiable(f"The file has {size} bytes.", headers=[("Content-Range", f"bytes */{size}")])
    return _merge_ranges(found)


_RANGE = re.compile(r"([0-9]{0,40})-([0-9]{0,40})")      # 2**64 - 1 is asked for, too


def _parse_range(spec: str, size: int) -> Optional[tuple[int, int]]:
    """One range, empty where it misses the file; None for bad syntax."""
    match = _RANGE.fullmatch(spec)
    if not match or spec == "-":
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1 if last else size)


def _merge_ranges(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In the order asked for where none overlap (a client may want the end first), else sorted and merged."""
    ordered = sorted(ranges)
    merged = [ordered[0]]
    for start, stop in ordered[1:]:
        if start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return ranges if len(merged) == len(ranges) else merged


_ETAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')


def parse_etags(header: str) -> Optional[list[tuple[bool, str]]]:
    """`If-Match`/`If-None-Match`: [(weak, opaque)]; None for `*`; what is no entity tag ends the list."""
    if header.strip() == "*":
        return None
    found, position = [], 0
    while position < len(header):
        match = _ETAG.match(header, position)
        if not match:
            break
        found.append((bool(match.group(1)), match.group(2)))
        position = match.end()
    return found


def http_date(seconds: float) -> str:
    """RFC 9110, 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`."""
    t = time.gmtime(max(0, seconds))
    return (f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
            f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT")


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")      # strftime would follow the locale
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def parse_http_date(text: str) -> Optional[float]:
    """Seconds since 1970, or None for what is no date: a condition with a bad date is ignored (RFC 9110, 13.1.3)."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp()


def rfc3339(nanoseconds: int, fraction: bool = False) -> str:
    """UTC with `Z`; with `fraction`, nine digits of it."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)).isoformat()
    return f"{text}.{rest:09d}Z" if fraction else text + "Z"


def b64url(data: bytes) -> str:
    """base64url without padding (RFC 4648, 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def content_disposition(name: str) -> str:
    """RFC 6266: an attachment under `name`, for old and for new clients."""
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{urllib.parse.quote(name, safe='')}"


class Conditions(NamedTuple):
    """The conditional headers of one request (RFC 9110, 13). `check` raises or says NOT_MODIFIED."""

    if_match: str = ""
    if_none_match: str = ""
    if_modified_since: str = ""
    if_unmodified_since: str = ""

    def check(self, etag: Optional[str], mtime: float, reading: bool) -> bool:
        """True: answer 304. `etag` is None where nothing is there. Raises PreconditionFailed.

        The steps are numbered as in RFC 9110, 13.2.2 (`If-Range`, step 5, is the range's business).
        """
        if self.if_match:                                                            # 1
            if not _tag_matches(self.if_match, etag, weak=False):
                raise PreconditionFailed("If-Match: the file is another one by now.")
        elif self.if_unmodified_since:                                               # 2
            limit = parse_http_date(self.if_unmodified_since)
            if limit is not None and (etag is None or int(mtime) > limit):
                raise PreconditionFailed("If-Unmodified-Since: the file has changed since.")
        if self.if_none_match:                                                       # 3
            if _tag_matches(self.if_none_match, etag, weak=True):
                if reading:
                    return True
                raise PreconditionFailed("If-None-Match: the file is there in that state.")
        elif self.if_modified_since and reading:                                     # 4
            limit = parse_http_date(self.if_modified_since)
            return limit is not None and int(mtime) <= limit
        return False


def _tag_matches(header: str, etag: Optional[str], weak: bool) -> bool:
    tags = parse_etags(header)
    if etag is None or tags is None:
        return etag is not None
    return any(tag == etag and (weak or not is_weak) for is_weak, tag in tags)


NO_CONDITIONS = Conditions()

_DURATION_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": Fraction(1, 1000), "us": Fraction(1, 10**6)}
_DURATION = re.compile(r"(?:[0-9]{1,18}(?:\.[0-9]{1,18})?(?:d|h|ms|m|s|us))+")
_DURATION_PART = re.compile(r"([0-9.]+)([a-z]+)")
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")

# A single letter counts in 1024s, as `ls -h`, `dd` and nginx do; only "KB", "MB", ... count in 1000s.
_SIZE_LETTERS = "KMGTP"
_SIZE_UNITS = {
    "": 1, "B": 1,
    **{letter: 1024 ** (i + 1) for i, letter in enumerate(_SIZE_LETTERS)},
    **{letter + "IB": 1024 ** (i + 1) for i, letter in enumerate(_SIZE_LETTERS)},
    **{letter + "B": 1000 ** (i + 1) for i, letter in enumerate(_SIZE_LETTERS)},
}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,18})?) ?([A-Za-z]{0,3})")

_DURATION_HELP = 'a duration is written "500ms", "30s", "1m30s", "2h", "1d", or as a number of seconds'
_SIZE_HELP = 'a size is written "10MB", "64KiB", "1.5G" (K, M, G count in 1024s), or as a number of bytes'


def parse_duration(value: str | int | float) -> float:
    """Seconds in "30s", "500ms", "1m30s", "2h", "1d", or in a plain number. Raises ValueError; never negative."""
    if isinstance(value, str):
        text = value.strip().lower()
        if _NUMBER.fullmatch(text):
            return float(text)
        if not _DURATION.fullmatch(text):
            raise ValueError(_DURATION_HELP)
        return float(sum(Fraction(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(text)))
    # The upper bound is what a float holds exactly: it also keeps infinity and huge integers out.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 2**53:
        raise ValueError(_DURATION_HELP)
    return float(value)


def parse_size(value: str | int) -> int:
    """Bytes in "10MB" (10**6), "64KiB" (2**10), "1G" (2**30), or in a plain number. Raises ValueError; never negative."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    unit = _SIZE_UNITS.get(match[2].upper()) if match else None
    if not match or unit is None:
        raise ValueError(_SIZE_HELP)
    size = Fraction(match[1]) * unit
    if size.denominator != 1:
        raise ValueError("that is no whole number of bytes; " + _SIZE_HELP)
    return int(size)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as the same number of seconds: "1m30s", "500ms"."""
    if seconds != int(seconds):
        text = f"{round(seconds * 1000)}ms"
        return text if parse_duration(text) == seconds else f"{seconds:.18f}".rstrip("0") + "s"
    parts, rest = [], int(seconds)
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(_DURATION_UNITS[unit]))
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def format_size(size: int) -> str:
    """Exact text for a number of bytes, in the largest unit that divides it: "10GiB", "10MB", "1025"."""
    for power in range(len(_SIZE_LETTERS), 0, -1):
        for base, suffix in ((1024, "iB"), (1000, "B")):
            if size and size % base ** power == 0:
                return f"{size // base ** power}{_SIZE_LETTERS[power - 1]}{suffix}"
    return str(size)

# ============================================================================
# Configuration: one option table, files, environment, flags, checks
# ============================================================================

MAX_CONFIG_BYTES = 1 << 20              # a configuration is a page or two; more is the wrong file
MAX_YAML_DEPTH = 64                     # well under Python's own recursion limit
MIN_SECRET_LENGTH = 16                  # characters, of every key and secret
CONFIG_NAMES = ("config.yaml", "config.yml", "config.json", "config.toml")
ENV_PREFIX = "CALLFS_"
MASK = "********"                       # one length for all: a mask tells neither length nor beginning

PLACEHOLDER_SECRETS = ("default-api-key", "change-me-internal-secret", "change-me-link-secret")
RESERVED_USERS = re.compile(r"root|internal-proxy|api-user-[0-9]+")

# Other spellings that the seeds use. Given together with the first spelling they must agree.
OPTION_ALIASES = {"server.address": "server.listen_addr", "server.log_level": "log.level", "log_level": "log.level"}


# ---- YAML, the strict subset ------------------------------------------------------------------------------------
# Read: block maps and lists, flow collections (over several lines too), plain scalars of one line, quoted scalars of
# one line, `|` and `>` blocks, comments, one `---` at the start. Everything else is refused with its line. So is what
# YAML 1.1 and 1.2 read differently (`no`, `0644`): the writer meant one of two things, and only the writer knows which.

class YamlMap(dict):
    """A mapping read from YAML; `lines` has the line number of each key, for messages."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


_YAML_QUOTED = re.compile(r"'((?:[^']|'')*)'|\"([^\"\\]*(?:\\.[^\"\\]*)*)\"")
_YAML_COMMENT = re.compile(r"(?:^|(?<=[ \t]))#.*")
_YAML_KEY_END = re.compile(r":(?=[ \t]|$)")
_YAML_DASH = re.compile(r"-(?=[ \t]|$)")
_YAML_MARKER = re.compile(r"(?:---|\.\.\.)(?=[ \t]|$)")
_YAML_BLOCK = re.compile(r"([|>])([-+]?)(?:[ \t]+#.*|[ \t]*)")
_YAML_FLOW_PLAIN = re.compile(r"(?:[^,\[\]{}:#]|:(?=[^\s,\[\]{}])|(?<=\S)#)+")
_YAML_UNPRINTABLE = re.compile("[^\t\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_YAML_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_YAML_ESCAPES = dict(zip('0abtnvfre "/\\N_LP\t', '\0\a\b\t\n\v\f\r\x1b "/\\\x85\xa0\u2028\u2029\t'))

_YAML_REFUSED_STARTS = {
    "&": "anchors are", "*": "aliases are", "!": "tags are", "%": "directives and values that begin with '%' are",
    "@": "a value that begins with '@' is", "`": "a value that begins with '`' is", "?": "a complex key, or a value that begins with '?', is",
    "-": "a list on the line of its key is", ":": "an empty key is", ",": "a value that begins with ',' is",
    "]": "a ']' without its '[' is", "}": "a '}' without its '{' is", "|": "this form of a block is", ">": "this form of a block is",
    "'": "a quoted text that does not close on its line is", '"': "a quoted text that does not close on its line is",
}

_YAML_SCALARS = (
    (re.compile(r"~|null|Null|NULL"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})"), int),
    (re.compile(r"0o[0-7]{1,99}"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]{1,99}"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,9})?"), float),
)
_YAML_AMBIGUOUS = (
    (re.compile(r"yes|no|on|off", re.I), "is true or false to some readers and text to others: write true, false, or quotes"),
    (re.compile(r"[-+]?0[0-9]+"), "is octal to some readers and decimal to others: put it in quotes, or write 0o..."),
    (re.compile(r"[-+]?\.(?:inf|nan)|[-+]?[0-9]{100,}", re.I), "is no number that a configuration can use"),
    (re.compile(r"<<"), "(merge keys) is outside the YAML subset that is read here"),
)


def _uncomment(text: str) -> str:
    return _YAML_COMMENT.sub("", text, count=1).rstrip(" \t")


def _plain_value(text: str) -> object:
    """What a plain scalar means. Raises ValueError, without the text (it may be a secret), when readers disagree."""
    for pattern, reason in _YAML_AMBIGUOUS:
        if pattern.fullmatch(text):
            raise ValueError("this value " + reason)
    for pattern, convert in _YAML_SCALARS:
        if pattern.fullmatch(text):
            value = convert(text)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError("this number is too large")
            return value
    return text


def _unescape(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if not digits:
        return _YAML_ESCAPES[match[4]]
    if 0xD800 <= int(digits, 16) <= 0xDFFF:
        raise ValueError("half a surrogate pair")
    return chr(int(digits, 16))


def _fold(lines: list[str]) -> str:
    """Join the lines of a `>` block: neighbours by a space, except around lines that are indented further."""
    text, breaks, previous = "", 0, None
    for line in lines:
        if not line:
            breaks += 1
            continue
        if previous is not None:
            kept = previous[0] in " \t" or line[0] in " \t"
            text += "\n" * (breaks + kept) or " "
        else:
            text += "\n" * breaks
        text, breaks, previous = text + line, 0, line
    return text


class _YamlReader:
    """One pass over the lines of one document. `row` and `col` stand on the next character to read."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.lines = text.lstrip("\ufeff").replace("\r\n", "\n").split("\n")
        self.ended = not self.lines[-1]
        if self.ended:
            self.lines.pop()            # what follows the last line break is no line, and no part of a `|+` block
        self.row = self.col = self.depth = 0

    def fail(self, message: str, row: int | None = None) -> NoReturn:
        number = min(self.row if row is None else row, len(self.lines) - 1) + 1
        raise ConfigError(f"{self.source}:{number}: {message}" if self.source else f"line {number}: {message}")

    def document(self) -> object:
        for row, line in enumerate(self.lines):
            if _YAML_UNPRINTABLE.search(line):
                self.fail("a control character", row)
        start = next((row for row, line in enumerate(self.lines) if line.strip() and line.lstrip()[0] != "#"), 0)
        if self.lines and re.fullmatch(r"---(?:[ \t]*|[ \t]+#.*)", self.lines[start]):
            self.lines[start] = ""
        value = self.block(-1)
        if self.indent() >= 0:
            self.fail("indentation that matches no line above")
        return value

    def rest(self) -> str:
        return self.lines[self.row][self.col:]

    def indent(self) -> int:
        """Go to the next line with content; its indentation, or -1 at the end of the document."""
        while self.row < len(self.lines):
            line = self.lines[self.row]
            self.col = len(line) - len(line.lstrip(" "))
            self.check_line()
            if _uncomment(line[self.col:]):
                return self.col
            self.row += 1
        return -1

    def check_line(self) -> None:
        line = self.lines[self.row]
        if _YAML_MARKER.match(line):
            self.fail("several documents in one file are outside the YAML subset that is read here")
        if line.lstrip(" ").startswith("\t"):
            self.fail("a tab in the indentation; use spaces")

    def block(self, parent: int) -> object:
        """The value whose lines are indented further than `parent`; None when there are none."""
        indent = self.indent()
        if indent <= parent:
            return None
        self.descend()
        if _YAML_DASH.match(self.rest()):
            value = self.sequence(indent)
        elif self.key_ahead() is not None:
            value = self.mapping(indent)
        else:
            value = self.inline(parent)
        self.depth -= 1
        return value

    def descend(self) -> None:
        self.depth += 1
        if self.depth > MAX_YAML_DEPTH:
            self.fail(f"nested deeper than {MAX_YAML_DEPTH} levels")

    def sequence(self, indent: int) -> list[object]:
        items: list[object] = []
        while self.indent() == indent and _YAML_DASH.match(self.rest()):
            line = self.lines[self.row]
            after = line[indent + 1:]
            if after.lstrip(" ").startswith("\t"):
                self.fail("a tab in the indentation; use spaces")
            # With the dash blanked, what follows it is a block of its own: `- a: 1`, `- - x` and `- |` need no code.
            self.lines[self.row] = line[:indent] + " " + after
            items.append(self.block(indent))
        return items

    def mapping(self, indent: int) -> YamlMap:
        result = YamlMap()
        while self.indent() == indent:
            found = self.key_ahead()
            if found is None:
                self.fail(self.refusal(self.rest()) or "expected 'key: value'")
            key, self.col = found
            self.note_key(result, key)
            result[key] = self.map_value(indent)
        if self.indent() > indent:
            self.fail("unexpected indentation")
        return result

    def note_key(self, result: YamlMap, key: str) -> None:
        if key in result:
            self.fail(f"duplicate key {key!r} (first in line {result.lines[key]})")
        result.lines[key] = self.row + 1

    def map_value(self, indent: int) -> object:
        if _uncomment(self.rest()):
            self.col = len(self.lines[self.row]) - len(self.rest().lstrip(" \t"))
            return self.inline(indent)
        self.row += 1
        if self.indent() == indent and _YAML_DASH.match(self.rest()):
            return self.sequence(indent)    # a list may stand at the indentation of its key
        return self.block(indent)

    def key_ahead(self) -> tuple[str, int] | None:
        """The key that begins here and the column after its colon; None when no key begins here."""
        rest = self.rest()
        quoted = _YAML_QUOTED.match(rest)
        if quoted:
            colon = re.compile(r"[ \t]*:(?=[ \t]|$)").match(rest, quoted.end())
            return (self.unquote(quoted), self.col + colon.end()) if colon else None
        colon = _YAML_KEY_END.search(_uncomment(rest))
        if not colon or rest[0] in "[{" or self.refusal(rest):
            return None
        key = rest[:colon.start()].rstrip(" \t")
        if "\t" in key:
            self.fail("a tab inside a key; put the key in quotes")
        if key == "<<":
            self.fail("merge keys are outside the YAML subset that is read here")
        return key, self.col + colon.end()

    def refusal(self, text: str) -> str:
        """Why no plain scalar may begin like this, or ""."""
        if text[0] in "-:" and text[1:2].strip(" \t"):
            return ""                   # `-1`, `:8443` and `::1` are plain values
        what = _YAML_REFUSED_STARTS.get(text[0])
        return f"{what} outside the YAML subset that is read here" if what else ""

    def inline(self, parent: int) -> object:
        """The value that begins here and ends its line; leaves `row` on the line after it."""
        header = _YAML_BLOCK.fullmatch(self.rest())
        if header:
            return self.text_block(header[1], header[2], max(parent, 0))
        if self.rest()[0] in "[{":
            value = self.flow()
        else:
            value = self.scalar(_uncomment(self.rest()))
        if not re.fullmatch(r"(?:[ \t]+(?:#.*)?)?", self.rest()):
            self.fail("unexpected text after the value; put the whole value in quotes")
        self.row += 1
        if self.indent() > max(parent, 0):
            self.fail("unexpected indentation: a value of several lines needs '|', '>' or one line in quotes")
        return value

    def scalar(self, plain: str) -> object:
        """The quoted scalar that begins here, or what `plain`, the text ahead, means."""
        quoted = _YAML_QUOTED.match(self.rest())
        if quoted:
            value: object = self.unquote(quoted)
            self.col += quoted.end()
            return value
        problem = self.refusal(plain)
        if not problem and _YAML_KEY_END.search(plain):
            problem = "a second ': ' on the line; put the value in quotes"
        if not problem and "\t" in plain.rstrip(" \t"):
            problem = "a tab inside a plain value; put the value in quotes"
        if problem:
            self.fail(problem)
        try:
            value = _plain_value(plain.rstrip(" \t"))
        except ValueError as error:
            self.fail(str(error))
        self.col += len(plain)
        return value

    def unquote(self, quoted: re.Match[str]) -> str:
        if quoted[2] is None:
            return quoted[1].replace("''", "'")
        try:
            return _YAML_ESCAPE.sub(_unescape, quoted[2])
        except (KeyError, ValueError, OverflowError):
            self.fail("an unknown escape in double quotes (a backslash is written twice)")

    def text_block(self, style: str, chomp: str, parent: int) -> str:
        """The lines of a `|` or `>` block, chomped: `-` drops the last line break, `+` keeps all, else one stays."""
        self.row += 1
        start, indent, lines = self.row, 0, []
        while self.row < len(self.lines):
            line = self.lines[self.row]
            found = len(line) - len(line.lstrip(" "))
            if line.strip(" "):
                if found < (indent or parent + 1):
                    break
                indent = indent or found
            lines.append(line)
            self.row += 1
        content = [line[indent:] for line in lines]
        text_lines = [line.strip(" ") != "" for line in lines]
        first = text_lines.index(True) if True in text_lines else len(lines)
        if indent and any(len(line) > indent for line in lines[:first]):
            self.fail("an empty line that is indented further than its block", start)
        return self.chomp(style, chomp, content if indent else [""] * len(lines))

    def chomp(self, style: str, chomp: str, content: list[str]) -> str:
        trailing = 0
        while content and not content[-1]:
            content.pop()
            trailing += 1
        text = "\n".join(content) if style == "|" else _fold(content)
        cut = not trailing and not self.ended and self.row == len(self.lines)
        last = "\n" if content and not cut else ""     # YAML 1.2, 8.1.1.2: no line break is made up at the end
        return text + {"-": "", "": last, "+": last + "\n" * trailing}[chomp]

    # Flow collections: `[a, b]`, `{a: 1}`, over as many lines as they like.

    def flow(self) -> object:
        self.descend()
        opened = self.row
        value = self.flow_list(opened) if self.rest()[0] == "[" else self.flow_map(opened)
        self.depth -= 1
        return value

    def flow_space(self, opened: int) -> str:
        """Skip white space, comments and line ends; the next character."""
        while self.row < len(self.lines):
            rest = self.rest()
            stripped = rest.lstrip(" \t")
            spaced = len(rest) > len(stripped) or self.col == 0
            if stripped and not (spaced and stripped[0] == "#"):
                self.col += len(rest) - len(stripped)
                return stripped[0]
            self.row, self.col = self.row + 1, 0
            if self.row < len(self.lines):
                self.check_line()
        self.fail("a '[' or '{' that is never closed", opened)

    def flow_items(self, opened: int, closing: str) -> Iterator[str]:
        """Stand on each item in turn, past the commas; ends behind the closing bracket."""
        self.col += 1
        while True:
            ahead = self.flow_space(opened)
            if ahead == closing:
                break
            yield ahead
            ahead = self.flow_space(opened)
            if ahead not in ("," + closing):
                self.fail(f"expected ',' or '{closing}'")
            if ahead == closing:
                break
            self.col += 1
        self.col += 1

    def flow_list(self, opened: int) -> list[object]:
        return [self.flow_value(ahead) for ahead in self.flow_items(opened, "]")]

    def flow_map(self, opened: int) -> YamlMap:
        result = YamlMap()
        for ahead in self.flow_items(opened, "}"):
            key, quoted = self.flow_key(ahead)
            self.note_key(result, key)
            if self.flow_space(opened) != ":" or not quoted and not re.match(r":(?:[\s,\[\]{}]|$)", self.rest()):
                self.fail("expected ': ' after the key")
            self.col += 1
            result[key] = self.flow_value(self.flow_space(opened))
        return result

    def flow_key(self, ahead: str) -> tuple[str, bool]:
        """The key here, and whether it is quoted: then its colon needs no space behind it, as in JSON."""
        plain = self.flow_plain()
        if ahead in "'\"":
            return str(self.scalar(plain)), True
        if not plain or plain == "<<" or "\t" in plain or self.refusal(plain):
            self.fail(self.refusal(plain or ahead) or "a key is missing, or needs quotes")
        self.col += len(plain)
        return plain, False

    def flow_plain(self) -> str:
        match = _YAML_FLOW_PLAIN.match(self.rest())
        return match[0].rstrip(" \t") if match else ""

    def flow_value(self, ahead: str) -> object:
        if ahead in "[{":
            return self.flow()
        plain = self.flow_plain()
        if not plain and ahead not in "'\"":
            self.fail("a value is missing (write null, or put it in quotes)")
        if plain == "-":
            self.fail(self.refusal(plain))
        return self.scalar(plain)


def parse_yaml(text: str, source: str = "") -> object:
    """Read the YAML subset above. Maps are `YamlMap`, keys are text. Raises ConfigError as "source:line: what"."""
    return _YamlReader(text, source).document()


_YAML_SAFE = re.compile(r"[A-Za-z_./][\w./@+-]*(?:[: ][\w./@+-]+)*", re.ASCII)


def _yaml_text(text: str) -> str:
    with contextlib.suppress(ValueError):
        if _YAML_SAFE.fullmatch(text) and _plain_value(text) == text and not _YAML_MARKER.match(text):
            return text
    # JSON's quotes are YAML's, but for characters that neither prints: those go as escapes.
    return _YAML_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _yaml_lines(value: object) -> Iterator[str]:
    """Lines of a non-empty map or list, without indentation."""
    if isinstance(value, Mapping):
        pairs = [(_yaml_text(str(key)) + ":", item) for key, item in value.items()]
    else:
        pairs = [("-", item) for item in value]
    for head, item in pairs:
        if not isinstance(item, (Mapping, list, tuple)) or not item:
            yield f"{head} {_yaml_scalar(item)}"
        elif head == "-":
            yield from (("  " if i else "- ") + line for i, line in enumerate(_yaml_lines(item)))
        else:
            yield head
            yield from ("  " + line for line in _yaml_lines(item))


def _yaml_scalar(value: object) -> str:
    if isinstance(value, str):
        return _yaml_text(value)
    return json.dumps(value)            # null, true, numbers, [] and {} are the same in both


def render_yaml(mapping: Mapping[str, object]) -> str:
    """YAML that `parse_yaml` reads back as the same value: maps, lists, text, numbers, true/false, null."""
    return "".join(line + "\n" for line in _yaml_lines(mapping)) or "{}\n"


# ---- JSON and TOML ----------------------------------------------------------------------------------------------

def _parse_json(text: str, source: str) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result: dict[str, object] = {}
        for key, value in pairs:
            if key in result:
                pattern = re.compile(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:")
                lines = [str(text.count("\n", 0, match.start()) + 1) for match in pattern.finditer(text)]
                raise ValueError(f"duplicate key {key!r} (it stands in lines {', '.join(lines)})")
            result[key] = value
        return result

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number that a configuration can use")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}:{error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {error}") from None


def _parse_toml(text: str, source: str) -> object:
    try:
        import tomllib
    except ImportError:
        raise ConfigError(f"{source}: TOML needs Python 3.11 or later; write the configuration as YAML or JSON") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {error}") from None


_CONFIG_READERS = {".json": _parse_json, ".toml": _parse_toml}


def read_config_file(path: str) -> object:
    """What the file at `path` says, by its ending (.json, .toml, else YAML). Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{path}: cannot read the configuration: {reason}") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {format_size(MAX_CONFIG_BYTES)}, so no configuration")
    return _CONFIG_READERS.get(os.path.splitext(path)[1].lower(), parse_yaml)(text, path)


# ---- the kinds of values ----------------------------------------------------------------------------------------
# A kind reads one value, from a file (typed) or from the environment and flags (text), and raises ValueError with what
# is allowed. Messages never hold the value: `_problem` adds it, masked where it must be.

_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text; put it in quotes")
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def _read_bool(value: object) -> bool:
    found = _TRUTH.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ValueError("must be true or false")
    return found


def _read_int(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    return value


def _read_float(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?", value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -(2**53) <= value <= 2**53:
        raise ValueError("must be a number")
    return float(value)


def _read_list(value: object) -> list[str]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of texts (in the environment: separated by commas)")
    return list(value)


def _read_map(value: object) -> dict[str, str]:
    if isinstance(value, str):
        pairs = [item.partition("=") for item in _read_list(value)]
        if not all(name.strip() and equals for name, equals, _ in pairs):
            raise ValueError("must be name=value pairs, separated by commas")
        return {name.strip(): item.strip() for name, _, item in pairs}
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ValueError("must be a map from names to texts")
    return dict(value)


def _read_tree(value: object) -> dict[str, Any]:
    def plain(node: object) -> bool:
        if isinstance(node, Mapping):
            return all(isinstance(key, str) and plain(item) for key, item in node.items())
        return all(map(plain, node)) if isinstance(node, list) else isinstance(node, (str, int, float, type(None)))

    if not isinstance(value, Mapping) or not plain(value):
        raise ValueError("must be a map of text, numbers, true/false, null, lists and maps")
    return dict(value)


def _read_trees(value: object) -> dict[str, Any]:
    """Maps by name. Those of a list have their `name` inside, or that of the host in their `url`."""
    if isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
        names = [str(each.get("name") or urllib.parse.urlsplit(str(each.get("url"))).hostname or "unnamed")
                 for each in value]
        if len(set(names)) < len(names):
            raise ValueError("must have names that differ: give each map of the list a `name`")
        value = {name: {key: item for key, item in each.items() if key != "name"} for name, each in zip(names, value)}
    return _read_tree(value)


def _read_mode(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(?:0o?)?[0-7]{3}", value):
        raise ValueError('must be a mode in octal digits and quotes, as "0660"')
    return "0" + value[-3:]


_KINDS: dict[str, Callable[[Any], Any]] = {
    "text": _read_text, "secret": _read_text, "int": _read_int, "float": _read_float, "bool": _read_bool,
    "duration": parse_duration, "size": parse_size, "mode": _read_mode, "list": _read_list, "secrets": _read_list,
    "map": _read_map, "secretmap": _read_map, "tree": _read_tree, "trees": _read_trees,
}
_SECRET_KINDS = ("secret", "secrets", "secretmap")
_TREE_KINDS = ("tree", "trees")
_MAP_KINDS = ("map", "secretmap", *_TREE_KINDS)
_KIND_FORMATS: dict[str, Callable[[Any], object]] = {"duration": format_duration, "size": format_size}

# Free settings of plugins have no table that says what is secret: names and shapes that usually are.
_SECRET_NAME = re.compile(r"passw|secret|token|credential|dsn|key(?!s?_?(?:prefix|file|path))", re.I)
_SECRET_SHAPE = re.compile(r":[^/@\s]+@|[?&][^=&]*(?:sig|token|key|secret|passw|auth|code)[^=&]*=", re.I)


class Option(NamedTuple):
    """One setting: what every reader, writer and document of the configuration knows of it."""

    key: str                            # "server.listen_addr"
    kind: str                           # a name in _KINDS
    default: Any
    env: str                            # "CALLFS_SERVER__LISTEN_ADDR"
    flag: str                           # "--listen", or ""
    choices: tuple[str, ...]
    help: str
    secret: bool
    minimum: float | None
    maximum: float | None

    def read(self, value: object) -> Any:
        """The value in its own type. Raises ValueError with what is allowed, never with the value."""
        result = _KINDS[self.kind](value)
        if self.choices and result not in self.choices:
            raise ValueError("must be one of " + ", ".join(choice or '""' for choice in self.choices))
        for bound, broken, word in ((self.minimum, operator.lt, "least"), (self.maximum, operator.gt, "most")):
            if bound is not None and broken(result, bound):
                raise ValueError(f"must be at {word} {_KIND_FORMATS.get(self.kind, '{:g}'.format)(bound)}")
        return result

    def show(self, value: Any, masked: bool = True) -> Any:
        """The value as a file would have it ("30s", "10GiB"), secrets replaced by MASK."""
        if self.kind in _TREE_KINDS:
            plain = isinstance(value, Mapping) or self.kind == "tree"           # else it is wrong, and shown as that
            return value if not masked else _mask_tree(value) if plain else _mask_all(value)
        if self.secret and masked:
            return _mask_all(value)
        return _KIND_FORMATS[self.kind](value) if self.kind in _KIND_FORMATS else copy.copy(value)


def _mask_all(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: MASK for name in value}
    if isinstance(value, (list, tuple)):
        return [MASK for _ in value]
    return MASK if value not in ("", None) else value


def _mask_tree(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {name: MASK if _SECRET_NAME.search(name) and item not in ("", None) else _mask_tree(item)
                for name, item in node.items()}
    if isinstance(node, list):
        return [_mask_tree(item) for item in node]
    return MASK if isinstance(node, str) and _SECRET_SHAPE.search(node) else node


def option(default: Any, help: str, *, kind: str = "text", choices: tuple[str, ...] = (), flag: str = "",
           minimum: float | None = None, maximum: float | None = None) -> Any:
    """A dataclass field that is an option. `default` is written as a file would have it: "30s" is 30.0 for Python."""
    about = Option("", kind, None, "", flag, choices, help, kind in _SECRET_KINDS, minimum, maximum)
    value = about.read(default)
    return field(default_factory=lambda: copy.copy(value), repr=not about.secret and kind not in _TREE_KINDS,
                 metadata={"option": about._replace(default=value)})


def _timeout(default: str, help: str) -> Any:
    # None is infinite (a peer that hangs would hold its worker for ever), none so long that a clock overflows.
    return option(default, help, kind="duration", minimum=0.01, maximum=366 * 86400)


def _count(default: int, help: str, minimum: int = 1, maximum: int = 1 << 31) -> Any:
    return option(default, help, kind="int", minimum=minimum, maximum=maximum)


# ---- the options ------------------------------------------------------------------------------------------------

_BACKENDS = ("localfs", "s3")


@dataclass
class ServerOptions:
    """Where and how the server listens, and the limits of one connection."""

    listen_addr: str = option(":8443", "Addresses to listen on, separated by commas: `:8443`, `127.0.0.1:8443`, "
                              "`[::1]:8443`, `unix:/path`; port 0 takes a free one", flag="--listen")
    protocol: str = option("auto", "`auto` speaks https when a certificate is configured", choices=("http", "https", "auto"))
    external_url: str = option("", "URL under which clients reach this server, for links", flag="--external-url")
    cert_file: str = option("", "TLS certificate chain, PEM")
    key_file: str = option("", "TLS private key, PEM")
    enable_quic: bool = option(False, "Also speak HTTP/3 (needs aioquic and a certificate)", kind="bool")
    quic_listen_addr: str = option(":8443", "UDP address of HTTP/3")
    read_timeout: float = _timeout("30s", "Longest wait for more of a request's body")
    write_timeout: float = _timeout("30s", "Longest wait for a client to take more of a response")
    file_op_timeout: float = _timeout("10s", "Longest operation on a file's bytes that moves none of them")
    metadata_op_timeout: float = _timeout("5s", "Longest operation on metadata")
    head_timeout: float = _timeout("10s", "Longest time a request's head may take to arrive")
    idle_timeout: float = _timeout("75s", "How long a connection may rest between two requests")
    handshake_timeout: float = _timeout("10s", "Longest TLS handshake")
    shutdown_timeout: float = _timeout("30s", "How long requests may go on after the server was told to stop")
    body_min_rate: int = option("1KiB", "Bytes a second under which a body is cut, after 30 s", kind="size")
    max_upload_bytes: int = option("10GiB", "Largest body of an upload", kind="size")
    max_request_line: int = option("8KiB", "Longest request line", kind="size", minimum=256)
    max_head_bytes: int = option("32KiB", "Largest request head, request line included", kind="size", minimum=1024)
    max_head_fields: int = _count(100, "Most fields in a request head", minimum=16)
    max_connections: int = _count(10000, "Most connections at a time")
    max_connections_per_address: int = _count(4096, "Most connections at a time from one address")
    workers: int = _count(3, "Threads that poll connections and answer requests", maximum=1024)
    max_workers: int = _count(256, "Threads in all, slow transfers included", maximum=65536)
    pin_workers: str = option("auto", "Bind each worker to a processor core", choices=("auto", "on", "off"))
    path_prefix: str = option("", "Prefix of every path, behind a reverse proxy: `/files`")
    trusted_proxies: list[str] = option([], "Addresses or networks whose forwarding headers count, or `unix`", kind="list")
    cors_origins: list[str] = option([], "Origins whose pages may call this server, or `*`", kind="list")
    unix_mode: str = option("0660", "Mode of the socket of `unix:/path`", kind="mode")


@dataclass
class AuthOptions:
    """Who may come in."""

    api_keys: list[str] = option([], "API keys; the first is user `api-user-0`, and so on", kind="secrets")
    api_key_users: dict[str, str] = option({}, "API keys by user name", kind="secretmap")
    internal_proxy_secret: str = option("", "Secret that the nodes of a cluster share", kind="secret")
    single_use_link_secret: str = option("", "Secret that signs download links", kind="secret")
    admins: list[str] = option([], "Users with all rights, besides `root`", kind="list")
    anonymous: str = option("none", "What a request without a key may do", choices=("none", "read", "write"))
    mode: str = option("full", "What anybody may do at most", flag="--mode",
                       choices=("full", "read-only", "upload-only", "no-delete"))
    session_lifetime: float = option("12h", "How long a browser stays signed in", kind="duration", minimum=1,
                                     maximum=366 * 86400)


@dataclass
class RateLimitOptions:
    """Token buckets: requests a second and burst, for each client. A rate of 0 sets no limit."""

    link_rate: float = option(100, "New links a second", kind="float", minimum=0)
    link_burst: int = _count(1, "New links at once")
    download_rate: float = option(10, "Downloads by link a second", kind="float", minimum=0)
    download_burst: int = _count(5, "Downloads by link at once")
    login_failure_rate: float = option(1, "Wrong keys a second from one address", kind="float", minimum=0)
    login_failure_burst: int = _count(20, "Wrong keys at once from one address")
    addresses: int = _count(65536, "Addresses that the limits remember", minimum=16, maximum=1 << 24)


@dataclass
class LogOptions:
    """What is written about the server's work."""

    level: str = option("info", "Least level that is written", choices=("debug", "info", "warn", "error"), flag="--log-level")
    format: str = option("console", "Form of a line", choices=("json", "console"))
    file: str = option("", "File for the log instead of standard error")
    access: bool = option(True, "Write a line for each request", kind="bool")


@dataclass
class MetricsOptions:
    """Prometheus metrics on an address of their own."""

    listen_addr: str = option("", "Address of a second listener for `/metrics`; empty for none")


@dataclass
class BackendOptions:
    """Where the bytes of files lie."""

    default_backend: str = option("localfs", "Backend of new files", choices=_BACKENDS)
    localfs_root_path: str = option("./callfs-data/files", "Folder of the files")
    s3_access_key: str = option("", "S3 access key", kind="secret")
    s3_secret_key: str = option("", "S3 secret key", kind="secret")
    s3_region: str = option("us-east-1", "S3 region")
    s3_bucket_name: str = option("", "S3 bucket")
    s3_endpoint: str = option("", "URL of an S3-compatible store; empty for Amazon's")
    s3_server_side_encryption: str = option("AES256", "Encryption asked of S3", choices=("AES256", "aws:kms", ""))
    s3_acl: str = option("", "Canned ACL of new objects")
    s3_kms_key_id: str = option("", "KMS key for `aws:kms`")
    internal_proxy_skip_tls_verify: bool = option(False, "Do not check the certificates of other nodes", kind="bool")


@dataclass
class StorageOptions:
    """How firmly bytes are written."""

    durability: str = option("full", "`relaxed` leaves out fsync: atomic still, but a power cut may take the last writes",
                             choices=("full", "relaxed"), flag="--durability")
    min_free_bytes: int = option("64MiB", "Uploads answer 507 when less than this would stay free", kind="size")
    rescan_interval: float = _timeout("60s", "How long a listing trusts a folder's change time before it reads it again")
    hot_cache_bytes: int = option("16MiB", "Memory for small files that are asked for again and again; 0: none", kind="size")


@dataclass
class MetadataStoreOptions:
    """Where owners, modes and places of files are kept."""

    type: str = option("sqlite", "Kind of store", choices=("postgres", "sqlite", "redis", "raft"))
    dsn: str = option("", "PostgreSQL connection: `postgres://user:password@host:5432/name`", kind="secret")
    sqlite_path: str = option("./callfs-data/callfs.sqlite3", "SQLite file")
    redis_addr: str = option("", "Redis `host:port`")
    redis_password: str = option("", "Redis password", kind="secret")
    redis_db: int = _count(0, "Redis database number", minimum=0)
    redis_key_prefix: str = option("callfs:", "Prefix of all keys in Redis")


@dataclass
class RaftOptions:
    """Metadata agreed on by the nodes themselves."""

    enabled: bool = option(False, "Take part in Raft", kind="bool")
    node_id: str = option("", "Name of this node, unlike all others")
    bind_addr: str = option("", "`host:port` for Raft messages, as the other nodes reach it")
    data_dir: str = option("", "Folder for log and snapshots")
    bootstrap: bool = option(False, "Found a new cluster (first node only)", kind="bool")
    peers: dict[str, str] = option({}, "Raft addresses of the other nodes, by name", kind="map")
    api_peer_endpoints: dict[str, str] = option({}, "API URLs of the other nodes, by name", kind="map")
    apply_timeout: float = _timeout("10s", "Longest wait until a change is agreed on")
    forward_timeout: float = _timeout("10s", "Longest wait for the leader's answer")
    snapshot_interval: float = _timeout("60s", "Time between two looks whether a snapshot is due")
    snapshot_threshold: int = _count(256, "Log entries that make a snapshot due")
    retain_snapshot_count: int = _count(2, "Snapshots that are kept", maximum=1024)


@dataclass
class DlmOptions:
    """Locks between nodes."""

    type: str = option("local", "Kind of lock", choices=("redis", "local"))
    redis_addr: str = option("", "Redis `host:port`")
    redis_password: str = option("", "Redis password", kind="secret")


@dataclass
class HaOptions:
    """A second copy of each file in the other backend."""

    replication_enabled: bool = option(False, "Keep a second copy", kind="bool")
    replica_backend: str = option("", "Backend of the second copy", choices=("", *_BACKENDS))
    require_replica_success: bool = option(False, "Fail a write whose second copy fails", kind="bool")


@dataclass
class ErasureOptions:
    """Files cut into data and parity shards, over several nodes."""

    enabled: bool = option(False, "Allow erasure coding", kind="bool")
    data_shards: int = _count(4, "Data shards of a file", maximum=255)
    parity_shards: int = _count(2, "Parity shards of a file: so many may be lost", maximum=255)
    min_file_size: int = option("1MiB", "Smaller files are stored whole unless a request asks", kind="size")
    shard_backend: str = option("", "Backend of shards; empty for the default one", choices=("", *_BACKENDS))
    shard_path: str = option("", "Folder or prefix of shards; empty for a hidden one")
    default: bool = option(False, "Code every upload that is large enough", kind="bool")
    write_quorum: int = _count(0, "Shards that must be written for success; 0 for all", minimum=0, maximum=256)
    scrub_interval: float = _timeout("24h", "Time between two checks of all shards")


@dataclass
class InstanceDiscoveryOptions:
    """This node and the others."""

    instance_id: str = option("node-1", "Name of this node, unlike all others")
    peer_endpoints: dict[str, str] = option({}, "API URLs of the other nodes, by name", kind="map")


@dataclass
class ExternalPluginsOptions:
    """Filesystems from shared libraries and WebAssembly."""

    enabled: bool = option(False, "Allow plugins from outside", kind="bool")
    plugin_dir: str = option("", "Folder of plugins")
    auto_load: bool = option(False, "Load all plugins of the folder", kind="bool")
    plugin_paths: list[str] = option([], "Plugins to load", kind="list")


@dataclass
class MountsOptions:
    """Mounts made at run time."""

    persist: bool = option(True, "Keep them over a restart", kind="bool")


@dataclass
class WebhookOptions:
    """One of `events.webhooks`: who is told of changes, and of which."""

    url: str = option("", "Where to POST to, http or https")
    secret: str = option("", "Signs what is sent; text, or `whsec_` and base64", kind="secret")
    path: str = option("/", "Changes of this and of all below it")
    events: list[str] = option([], "Which of create, update, delete and move; none given: all", kind="list")
    timeout: float = _timeout("10s", "Longest wait for the receiver")


@dataclass
class EventOptions:
    """What is told of changes."""

    history: int = option(10_000, "Events that are kept for subscribers who come back", kind="int", minimum=1,
                          maximum=10_000_000)
    max_subscribers: int = option(10_000, "Subscribers at most", kind="int", minimum=0)
    heartbeat: float = _timeout("15s", "How often an idle subscriber hears a comment")
    webhooks: dict[str, Any] = option({}, "Servers that are told of changes: maps by name, or a list; `url`, `secret`, `path` (`/`), "
                                      "`events` (all), `timeout` (`10s`)", kind="trees")
    webhook_retry: float = _timeout("24h", "How long a webhook's event is tried before it is given up")
    webhook_backlog: int = _count(100_000, "Events that wait for one webhook; then the oldest are dropped")


@dataclass
class Config:
    """All settings of a server: sections of options, values in Python's types (seconds, bytes), not yet checked.

    Read one with `load` or `from_mapping`, or build it: `Config(server=ServerOptions(listen_addr=":0"))`."""

    server: ServerOptions = field(default_factory=ServerOptions)
    auth: AuthOptions = field(default_factory=AuthOptions)
    rate_limits: RateLimitOptions = field(default_factory=RateLimitOptions)
    log: LogOptions = field(default_factory=LogOptions)
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    backend: BackendOptions = field(default_factory=BackendOptions)
    storage: StorageOptions = field(default_factory=StorageOptions)
    metadata_store: MetadataStoreOptions = field(default_factory=MetadataStoreOptions)
    raft: RaftOptions = field(default_factory=RaftOptions)
    dlm: DlmOptions = field(default_factory=DlmOptions)
    ha: HaOptions = field(default_factory=HaOptions)
    erasure: ErasureOptions = field(default_factory=ErasureOptions)
    instance_discovery: InstanceDiscoveryOptions = field(default_factory=InstanceDiscoveryOptions)
    plugins: dict[str, Any] = option({}, "Filesystems to mount, by name: a map (`enabled`, `path`, `config`) or a list of "
                                     "such maps", kind="tree")
    external_plugins: ExternalPluginsOptions = field(default_factory=ExternalPluginsOptions)
    mounts: MountsOptions = field(default_factory=MountsOptions)
    events: EventOptions = field(default_factory=EventOptions)
    source: str = ""                    # the file it was read from, "" for none

    @classmethod
    def load(cls, path: str | None = None, *, environ: Mapping[str, str] = MappingProxyType({}),
             flags: Mapping[str, str] = MappingProxyType({}), folder: str = ".", require_keys: bool = True) -> Config:
        """Defaults, overridden by the file, by `environ`, by `flags` (flag or option key -> text), then validated.

        Without `path` the first of CONFIG_NAMES in `folder` is read, if there is one. Maps are merged entry by entry.
        Raises ConfigError with every problem, one a line."""
        found = (os.path.join(folder, name) for name in CONFIG_NAMES)
        path = path or next(filter(os.path.exists, found), "")
        given = [_file_settings(read_config_file(path), path)] if path else []
        config = _assemble([*given, _environment_settings(environ), _flag_settings(flags)], path)
        config.validate(require_keys=require_keys)
        return config

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], source: str = "configuration") -> Config:
        """Defaults overridden by `mapping`, shaped as a file is. Types are checked, the rest by `validate`."""
        return _assemble([_file_settings(mapping, source)], source)

    def get(self, key: str) -> Any:
        """The value of an option by its key, "server.listen_addr". Raises AttributeError."""
        return functools.reduce(getattr, key.split("."), self)

    def validate(self, require_keys: bool = True) -> list[str]:
        """Check everything that can be known without touching disk or network; the warnings.

        Raises ConfigError with every problem, one a line. `require_keys` false lets keys and secrets be missing."""
        sound, problems = _check_values(self)
        broken = {problem.split(":")[0] for problem in problems}
        found = [rule for rule in _check_rules(sound, require_keys) if rule[0] not in broken]
        problems += [_problem(_OPTION_BY_KEY[key], message, sound.get(key)) for key, message in found]
        problems += [problem for name, given in sound.events.webhooks.items()
                     for problem in _set_webhook(WebhookOptions(), f"events.webhooks.{name}", given)]
        if problems:
            raise ConfigError("\n".join(problems))
        return _warnings(self)

    def show(self, masked: bool = True) -> dict[str, Any]:
        """Nested maps as a file would have them; secrets replaced by MASK."""
        result: dict[str, Any] = {}
        for about in OPTIONS:
            section, _, name = about.key.rpartition(".")
            target = result.setdefault(section, {}) if section else result
            target[name] = about.show(self.get(about.key), masked)
        return result


def _derive_options() -> Iterator[Option]:
    for section in dataclasses.fields(Config):
        if "option" in section.metadata:
            yield _named(section.metadata["option"], section.name)
        elif section.name != "source":
            for member in dataclasses.fields(section.default_factory):
                yield _named(member.metadata["option"], f"{section.name}.{member.name}")


def _named(about: Option, key: str) -> Option:
    return about._replace(key=key, env=ENV_PREFIX + key.upper().replace(".", "__"))


OPTIONS: tuple[Option, ...] = tuple(_derive_options())
_OPTION_BY_KEY = {about.key: about for about in OPTIONS}
_OPTION_BY_FLAG = {about.flag: about for about in OPTIONS if about.flag}
_OPTION_BY_FLAT_ENV = {about.env.replace("__", "_"): about for about in OPTIONS if "__" in about.env}
_SECTIONS = tuple(dict.fromkeys(about.key.split(".")[0] for about in OPTIONS))


# ---- from what is written to a Config ---------------------------------------------------------------------------

class _Setting(NamedTuple):
    where: str                          # what a message begins with: "config.yaml:3: server.address"
    key: str                            # as it is spelled there
    value: object


def _problem(about: Option, message: str, value: object) -> str:
    shown = value
    with contextlib.suppress(Exception):    # a value of the wrong type need not have its usual form
        shown = about.show(value)
    if about.secret:
        shown = _mask_all(value)
    text = "empty" if shown in ("", [], {}) else shown if isinstance(shown, str) else repr(shown)
    return f"{about.key}: {message} (it is {text if len(text) <= 200 else text[:200] + '...'})"


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _file_settings(tree: object, source: str) -> Iterator[_Setting]:
    """Every setting of a file or mapping. What is no section and no option is passed on: `_settle` refuses it."""
    if tree is None:
        return
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{source}: expected sections such as 'server:', each with its options")
    for name, value in tree.items():
        where = _place(source, tree, name)
        whole = name in _OPTION_BY_KEY or name in OPTION_ALIASES or name not in _SECTIONS
        if whole:
            yield _Setting(f"{where}{name}", str(name), value)
        elif isinstance(value, Mapping):
            for member, item in value.items():
                yield _Setting(f"{_place(source, value, member)}{name}.{member}", f"{name}.{member}", item)
        elif value is not None:         # `auth:` with nothing below it is an empty section
            raise ConfigError(f"{where}{name}: must be a section with options below it")


def _place(source: str, mapping: Mapping[str, Any], key: str) -> str:
    line = getattr(mapping, "lines", {}).get(key)
    return f"{source}:{line}: " if line else f"{source}: "


def _environment_settings(environ: Mapping[str, str]) -> Iterator[_Setting]:
    for name in sorted(environ):        # so that a whole map comes before its entries
        if name in _OPTION_BY_FLAT_ENV:
            raise ConfigError(f"{name}: unknown; did you mean {_OPTION_BY_FLAT_ENV[name].env}?")
        levels = name[len(ENV_PREFIX):].lower().split("__")
        if not name.startswith(ENV_PREFIX) or len(levels) < 2:
            continue                    # not ours, or the client's: CALLFS_URL, CALLFS_KEY, CALLFS_CONFIG
        key = levels[0] if levels[0] in _OPTION_BY_KEY else ".".join(levels[:2])
        entry = levels[key.count(".") + 1:]
        about = _OPTION_BY_KEY.get(OPTION_ALIASES.get(key, key))
        if about is None or entry and about.kind not in _MAP_KINDS or not all(levels):
            raise ConfigError(f"{name}: unknown{_nearest(name, (known.env for known in OPTIONS))}")
        yield _Setting(name, key, _environment_value(name, about, entry, environ[name]))


def _environment_value(name: str, about: Option, entry: list[str], text: str) -> object:
    """The text itself, or the map with the one entry that the variable names."""
    if not entry:
        return text
    if about.kind not in _TREE_KINDS:
        return {"__".join(entry): text}
    try:
        value = _plain_value(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    return functools.reduce(lambda inner, level: {level: inner}, reversed(entry), value)


def _flag_settings(flags: Mapping[str, str]) -> Iterator[_Setting]:
    for name, text in flags.items():
        yield _Setting(name, _OPTION_BY_FLAG[name].key if name in _OPTION_BY_FLAG else name, text)


def _settle(layer: Iterable[_Setting], problems: list[str]) -> dict[str, Any]:
    """The settings of one layer by option key, in their own types; what is wrong goes to `problems`."""
    settled: dict[str, Any] = {}
    for where, spelled, value in layer:
        key = OPTION_ALIASES.get(spelled, spelled)
        about = _OPTION_BY_KEY.get(key)
        if about is None:
            problems.append(f"{where}: unknown option{_nearest(spelled, (*_OPTION_BY_KEY, *_SECTIONS))}")
        elif value is not None:         # null leaves the default
            try:
                _settle_one(about, settled, about.read(value))
            except ValueError as error:
                text = _problem(about, str(error), value)
                problems.append(text if where == key else f"{where}: {text[len(key) + 2:]}")
    return settled


def _settle_one(about: Option, settled: dict[str, Any], value: Any) -> None:
    before = settled.get(about.key, value)
    if about.kind in _MAP_KINDS:
        value = _merge(before, value)
    elif before != value:
        raise ValueError(f"is given twice, with different values (also as {about.key} or another of its names)")
    settled[about.key] = value


def _merge(below: Any, above: Any) -> Any:
    """`above` laid over `below`, map by map."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: _merge(below.get(key), item) for key, item in above.items()}}


def _assemble(layers: Iterable[Iterable[_Setting]], source: str) -> Config:
    """A Config of the defaults and the layers, later ones over earlier ones. Raises ConfigError."""
    problems: list[str] = []
    values: dict[str, Any] = {}
    for layer in layers:
        for key, value in _settle(layer, problems).items():
            values[key] = _merge(values.get(key), value)
    if problems:
        raise ConfigError("\n".join(problems))
    config = Config(source=source)
    for key, value in values.items():
        _put(config, key, value)
    return config


def _put(config: Config, key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    setattr(getattr(config, section) if section else config, name, value)


# ---- checks -----------------------------------------------------------------------------------------------------

class ListenAddress(NamedTuple):
    """One place to listen: host "" is every address of the machine (IPv6 and IPv4), port 0 any free port."""

    kind: str                           # "tcp" or "unix"
    host: str = ""
    port: int = 0
    path: str = ""


_HOST_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<name>[\w.-]*)):(?P<port>[0-9]{1,5})", re.ASCII)
_LISTEN_HELP = "must be :8443, 127.0.0.1:8443, [::1]:8443 or unix:/path"


def parse_listen(text: str) -> list[ListenAddress]:
    """The addresses in "[::1]:8443, unix:/run/callfs.sock"; ports 0..65535. Raises ValueError."""
    return [_parse_address(part.strip()) for part in text.split(",")]


def _parse_address(text: str) -> ListenAddress:
    if text.startswith("unix:") and len(text) > 5:
        return ListenAddress("unix", path=text[5:])
    match = _HOST_PORT.fullmatch(text)
    if not match or int(match["port"]) > 65535:
        raise ValueError(_LISTEN_HELP + ", with a port of 0 to 65535")
    if match["v6"]:
        ipaddress.IPv6Address(match["v6"].split("%")[0])
    return ListenAddress("tcp", match["v6"] or match["name"] or "", int(match["port"]))


def _address_problem(text: str, connect: bool = False) -> str:
    """Why `text` is no address to listen on (or, `connect`, no host and port to reach), or ""."""
    try:
        addresses = parse_listen(text)
    except ValueError as error:
        return str(error) if not connect else "must be host:port"
    if connect and (len(addresses) != 1 or not addresses[0].host or not addresses[0].port):
        return "must be host:port"
    return ""


def _url_problem(text: str) -> str:
    try:
        url = urllib.parse.urlsplit(text)
        good = url.scheme in ("http", "https") and url.hostname and url.port != 0 and "@" not in url.netloc
    except ValueError:
        good = False
    if not good or url.query or url.fragment or re.search(r"[\s?#\\]", text):
        return "must be http://host[:port][/path] or https://..., without user, query and fragment"
    return ""


def _proxy_problem(text: str) -> str:
    try:
        return "" if text == "unix" else ipaddress.ip_network(text, strict=False) and ""
    except ValueError:
        return "must hold addresses, networks (10.0.0.0/8) or unix"


def _origin_problem(text: str) -> str:
    plain = text == "*" or not _url_problem(text) and not urllib.parse.urlsplit(text).path
    return "" if plain else "must hold origins (https://example.com, no path) or *"


def _prefix_problem(text: str) -> str:
    good = re.fullmatch(r"(?:/(?!\.{1,2}(?:/|$))[\w.~@+-]+)*", text, re.ASCII)
    return "" if good else "must be empty or as /files: a slash before each part, none at the end"


def _id_problem(text: str) -> str:
    return "" if re.fullmatch(r"[\w.:@-]{1,128}", text, re.ASCII) else "must be letters, digits and . _ - : @ (1 to 128)"


def _pem_problem(text: str) -> str:
    return "must be the path of a file, not its content" if "-----BEGIN" in text else ""


# Shapes of texts, for each text of a list or map; an empty text, list or map is "not set" and has no shape.
_SHAPES: tuple[tuple[Callable[[str], str], tuple[str, ...]], ...] = (
    (_address_problem, ("server.listen_addr", "server.quic_listen_addr", "metrics.listen_addr")),
    (functools.partial(_address_problem, connect=True),
     ("raft.bind_addr", "raft.peers", "metadata_store.redis_addr", "dlm.redis_addr")),
    (_url_problem, ("server.external_url", "backend.s3_endpoint", "raft.api_peer_endpoints",
                    "instance_discovery.peer_endpoints")),
    (_proxy_problem, ("server.trusted_proxies",)),
    (_origin_problem, ("server.cors_origins",)),
    (_prefix_problem, ("server.path_prefix",)),
    (_id_problem, ("instance_discovery.instance_id", "raft.node_id")),
    (_pem_problem, ("server.cert_file", "server.key_file")),
)

# (broken when, key, what is allowed). "Nothing half-starts": what cannot work is said before anything runs.
_RULES: tuple[tuple[Callable[[Config], object], str, str], ...] = (
    (lambda c: not c.server.listen_addr, "server.listen_addr", "must not be empty"),
    (lambda c: bool(c.server.cert_file) > bool(c.server.key_file), "server.key_file", "is needed with server.cert_file"),
    (lambda c: bool(c.server.cert_file) < bool(c.server.key_file), "server.cert_file", "is needed with server.key_file"),
    (lambda c: c.server.protocol == "https" and not c.server.cert_file, "server.cert_file", "is needed for https"),
    (lambda c: c.server.enable_quic and not c.server.cert_file, "server.cert_file", "is needed for HTTP/3"),
    (lambda c: c.server.enable_quic and not c.server.quic_listen_addr, "server.quic_listen_addr", "is needed for HTTP/3"),
    (lambda c: c.server.quic_listen_addr.startswith("unix:"), "server.quic_listen_addr", "must be a UDP address"),
    (lambda c: c.server.max_workers < c.server.workers, "server.max_workers", "must be at least server.workers"),
    (lambda c: c.server.max_head_bytes < c.server.max_request_line, "server.max_head_bytes",
     "must be at least server.max_request_line"),
    (lambda c: "s3" in _backends_in_use(c) and not c.backend.s3_bucket_name, "backend.s3_bucket_name", "is needed for s3"),
    (lambda c: "localfs" in _backends_in_use(c) and not c.backend.localfs_root_path, "backend.localfs_root_path",
     "is needed for localfs"),
    (lambda c: bool(c.backend.s3_access_key) > bool(c.backend.s3_secret_key), "backend.s3_secret_key",
     "is needed with backend.s3_access_key"),
    (lambda c: bool(c.backend.s3_access_key) < bool(c.backend.s3_secret_key), "backend.s3_access_key",
     "is needed with backend.s3_secret_key"),
    (lambda c: c.backend.s3_kms_key_id and c.backend.s3_server_side_encryption != "aws:kms",
     "backend.s3_server_side_encryption", "must be aws:kms when backend.s3_kms_key_id is set"),
    (lambda c: c.ha.replication_enabled and not c.ha.replica_backend, "ha.replica_backend", "is needed for replication"),
    (lambda c: c.ha.replication_enabled and c.ha.replica_backend == c.backend.default_backend, "ha.replica_backend",
     "must differ from backend.default_backend"),
    (lambda c: c.erasure.data_shards + c.erasure.parity_shards > 256, "erasure.data_shards",
     "with erasure.parity_shards must be at most 256"),
    (lambda c: c.erasure.write_quorum and not
     c.erasure.data_shards < c.erasure.write_quorum <= c.erasure.data_shards + c.erasure.parity_shards,
     "erasure.write_quorum", "must be 0, or more than the data shards and at most all shards"),
    (lambda c: c.erasure.default and not c.erasure.enabled, "erasure.default", "needs erasure.enabled"),
    (lambda c: c.external_plugins.enabled and c.external_plugins.auto_load and not c.external_plugins.plugin_dir,
     "external_plugins.plugin_dir", "is needed for external_plugins.auto_load"),
    (lambda c: c.metadata_store.type == "raft" and not c.raft.enabled, "raft.enabled",
     "must be true for metadata_store.type raft"),
    (lambda c: c.dlm.type == "redis" and not c.dlm.redis_addr, "dlm.redis_addr", "is needed for dlm.type redis"),
    (lambda c: not c.instance_discovery.instance_id, "instance_discovery.instance_id", "must not be empty"),
    (lambda c: any(not _is_mount(item) for name, item in c.plugins.items() if name != "anonymous"), "plugins",
     "must hold, for each name, a map with 'path: /...' or a list of such maps"),
    (lambda c: c.plugins.get("anonymous", "none") not in ("none", "read", "write"), "plugins.anonymous",
     "must be one of none, read, write"),
    *((lambda c, kind=kind, key=key: c.metadata_store.type == kind and not c.get(key), key,
       f"is needed for metadata_store.type {kind}")
      for kind, key in (("postgres", "metadata_store.dsn"), ("sqlite", "metadata_store.sqlite_path"),
                        ("redis", "metadata_store.redis_addr"), ("raft", "raft.node_id"), ("raft", "raft.bind_addr"),
                        ("raft", "raft.data_dir"))),
)


def _backends_in_use(config: Config) -> set[str]:
    replica = config.ha.replica_backend if config.ha.replication_enabled else ""
    shards = config.erasure.shard_backend if config.erasure.enabled else ""
    return {config.backend.default_backend, replica, shards}


def _is_mount(item: object) -> bool:
    if isinstance(item, list):
        return all(isinstance(each, Mapping) and _is_mount(each) for each in item)
    return isinstance(item, Mapping) and str(item.get("path", "")).startswith("/")


def _check_values(config: Config) -> tuple[Config, list[str]]:
    """A copy with defaults in place of values of the wrong type or range, and the problems with those."""
    problems: list[str] = []
    sound = Config()
    for about in OPTIONS:
        value = config.get(about.key)
        try:
            read = about.read(value)
            if isinstance(value, str) != isinstance(read, str):
                raise ValueError(f"must be the value itself in Python, not text that says it ({about.kind})")
            _put(sound, about.key, read)
        except ValueError as error:
            problems.append(_problem(about, str(error), value))
    return sound, problems


def _check_rules(config: Config, require_keys: bool) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of everything that the type of a single value cannot say."""
    for shape, keys in _SHAPES:
        for key in keys:
            value = config.get(key)
            texts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            yield from ((key, problem) for problem in dict.fromkeys(shape(text) for text in texts if text) if problem)
    yield from ((key, message) for broken, key, message in _RULES if broken(config))
    yield from _check_keys(config.auth, require_keys)


def _check_keys(auth: AuthOptions, require_keys: bool) -> Iterator[tuple[str, str]]:
    groups = {
        "auth.api_keys": auth.api_keys, "auth.api_key_users": list(auth.api_key_users.values()),
        "auth.internal_proxy_secret": [auth.internal_proxy_secret] if auth.internal_proxy_secret else [],
        "auth.single_use_link_secret": [auth.single_use_link_secret] if auth.single_use_link_secret else [],
    }
    for key, found in groups.items():
        yield from ((key, problem) for problem in dict.fromkeys(map(_secret_problem, found)) if problem)
        if require_keys and not found and key.endswith("_secret"):
            yield key, "is needed"
    keys = auth.api_keys + groups["auth.api_key_users"]
    if require_keys and not keys and auth.anonymous == "none":
        yield "auth.api_keys", "needs a key here or in auth.api_key_users"
    if len(set(keys)) < len(keys):
        yield "auth.api_keys" if len(set(auth.api_keys)) < len(auth.api_keys) else "auth.api_key_users", "holds a key twice"
    if auth.internal_proxy_secret in keys:
        yield "auth.internal_proxy_secret", "must not be an API key"
    for name in auth.api_key_users:
        if RESERVED_USERS.fullmatch(name):
            yield "auth.api_key_users", f"{name!r} is reserved (root, internal-proxy and api-user-N are)"
        elif not name.isprintable() or not name or len(name.split()) != 1 or name != name.strip():
            yield "auth.api_key_users", f"{name!r} must be a name of printable characters without spaces"


def _secret_problem(secret: str) -> str:
    if secret in PLACEHOLDER_SECRETS:
        return "must not be a placeholder out of an example"
    if len(secret) < MIN_SECRET_LENGTH:
        return f"must have at least {MIN_SECRET_LENGTH} characters"
    # It travels in an Authorization field: what a client cannot send there could never match.
    return "" if re.fullmatch(r"[!-~]+", secret) else "must be printable ASCII without spaces"


def webhook_key(secret: str) -> bytes:
    """The bytes that sign a webhook. Raises ValueError for a secret that is none."""
    key = base64.b64decode(secret[6:], validate=True) if secret.startswith("whsec_") else secret.encode()
    if len(key) < MIN_SECRET_LENGTH:
        raise ValueError
    return key


def _hook_secret_problem(secret: str) -> str:
    try:
        webhook_key(secret)
        return "must not be a placeholder out of an example" if secret in PLACEHOLDER_SECRETS else ""
    except ValueError:
        return f"must have at least {MIN_SECRET_LENGTH} characters, or be whsec_ and the base64 of as many bytes"


def _hook_url_problem(text: str) -> str:
    good = re.fullmatch(r"[!-~]+", text) and not re.search(r"[#\\]", text) and not _url_problem(text.partition("?")[0])
    return "" if good else "must be http://host[:port][/path][?query] or https://..., without user and fragment"


def _hook_path_problem(text: str) -> str:
    try:
        return "" if text.startswith("/") and canonical_path(text) else "must begin with /"
    except BadRequest as error:
        return error.message


_HOOK_SHAPES: dict[str, Callable[[Any], str]] = {
    "url": _hook_url_problem, "secret": _hook_secret_problem, "path": _hook_path_problem,
    "events": lambda names: "" if {*names} <= {"create", "update", "delete", "move"} else
    "must be some of create, update, delete and move", "timeout": lambda seconds: "",
}


def _set_webhook(hook: WebhookOptions, where: str, given: Any) -> Iterator[str]:
    """Set the options of a webhook; what is wrong with them, none of it with a secret."""
    about = {each.name: _named(each.metadata["option"], f"{where}.{each.name}") for each in dataclasses.fields(hook)}
    if not isinstance(given, Mapping) or _id_problem(where[len("events.webhooks."):]):
        yield f"{where}: must be a map with `url` and `secret`, below a name of letters, digits and . _ - : @"
        return
    yield from (f"{where}.{key}: unknown option{_nearest(key, about)}" for key in given if key not in about)
    for key, known in about.items():
        value = given.get(key)
        try:
            setattr(hook, key, known.default if value is None else known.read(value))
            problem = _HOOK_SHAPES[key](getattr(hook, key))
        except ValueError as error:
            problem = str(error)
        if problem:
            yield _problem(known, problem, "" if value is None else _mask_tree({key: value})[key])


def read_webhooks(events: EventOptions) -> dict[str, WebhookOptions]:
    """The webhooks of a configuration that was validated, by name."""
    hooks = {name: WebhookOptions() for name in events.webhooks}
    for name, hook in hooks.items():
        for problem in _set_webhook(hook, f"events.webhooks.{name}", events.webhooks[name]):
            raise ConfigError(problem)
        hook.path = canonical_path(hook.path)
    return hooks


def _warnings(config: Config) -> list[str]:
    auth = config.auth
    users = {"root", *auth.api_key_users, *(f"api-user-{i}" for i in range(len(auth.api_keys)))}
    table = (
        (auth.api_keys, "auth.api_keys: identities shift when the list changes; use auth.api_key_users"),
        (auth.anonymous == "write", "auth.anonymous: anyone who reaches the server may write (it is write)"),
        (set(auth.admins) - users, f"auth.admins: no key belongs to {', '.join(sorted(set(auth.admins) - users))}"),
        (config.backend.internal_proxy_skip_tls_verify,
         "backend.internal_proxy_skip_tls_verify: certificates of other nodes are not checked (it is true)"),
    )
    return [message for true, message in table if true]


# ---- what is written about options ------------------------------------------------------------------------------

def _default_text(about: Option) -> str:
    return _yaml_scalar(about.show(about.default))


def option_reference() -> str:
    """The table of all options in Markdown, a section each."""
    lines: list[str] = []
    for section in _SECTIONS:
        lines += [f"### {section}", "", "| Option | Default | Environment | Flag | Meaning |", "|---|---|---|---|---|"]
        for about in OPTIONS:
            if about.key.split(".")[0] == section:
                flag = f"`{about.flag}`" if about.flag else ""
                meaning = _meaning(about).replace("|", "\\|")
                lines.append(f"| `{about.key}` | `{_default_text(about)}` | `{about.env}` | {flag} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def _meaning(about: Option) -> str:
    choices = ", ".join(choice or '""' for choice in about.choices)
    return f"{about.help} ({choices})" if choices else about.help


def config_template(chosen: Mapping[str, Any] = MappingProxyType({})) -> str:
    """A file with every option as a comment, its default and meaning; options in `chosen` (by key) are set."""
    lines = ["# CallFS. Every option, with its default; take away the '#' before one to set it."]
    for section in _SECTIONS:
        lines.append("")
        if section not in _OPTION_BY_KEY:
            lines.append(section + ":")
        for about in OPTIONS:
            if about.key.split(".")[0] == section:
                lines += _template_lines(about, chosen)
    return "\n".join(lines) + "\n"


def _template_lines(about: Option, chosen: Mapping[str, Any]) -> list[str]:
    indent, name = "  " * about.key.count("."), about.key.rpartition(".")[2]
    comment = indent + "# " + _meaning(about).replace("`", "")
    if about.key in chosen:
        setting = about.show(about.read(chosen[about.key]), masked=False)
        return [comment, *(indent + line for line in _yaml_lines({name: setting}))]
    return [comment, f"{indent}# {name}: {_default_text(about)}"]

# ============================================================================
# Observability: the log, the metrics registry, small bounded tables
# ============================================================================

LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}     # log lines are forged with these


class Log:
    """Lines for people (console) or programs (json), to standard error or to a file.

    The line of a request goes through `access`, which only queues it; `flush` writes what has gathered in one call
    (measured: a write per request costs a tenth of the throughput). Everything else is written at once. One Log
    belongs to one server; nothing of it is global.
    """

    MAX_PENDING = 10_000                    # lines; then the request that finds them writes them itself

    def __init__(self, level: str = "info", form: str = "console", path: str = "", access: bool = True) -> None:
        self._threshold, (self._render, self._render_access) = LEVELS[level], _RENDERERS[form]
        self.path, self._access = path, access and self._threshold <= LEVELS["info"]
        self._pending: collections.deque[str] = collections.deque()
        self._second, self._stamp = 0, ""   # the second whose text is at hand
        self._writing = threading.Lock()
        self._fd = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        try:
            return os.open(self.path, flags, 0o640) if self.path else 2
        except OSError as error:
            raise ConfigError(f"log.file: {self.path!r} can not be opened: {error.strerror}") from None

    def debug(self, event: str, **fields: Any) -> None:
        """For whoever looks for a fault."""
        self._line("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What an operator wants to see go by."""
        self._line("info", event, fields)

    def warn(self, event: str, **fields: Any) -> None:
        """Works, but somebody should look."""
        self._line("warn", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Does not work."""
        self._line("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error that nobody foresaw, with its traceback. Call it in the `except` block."""
        self._line("error", event, {**fields, "traceback": traceback.format_exc()})

    def access(self, *values: Any) -> None:
        """One answered request, values in the order of ACCESS_FIELDS; written by the next `flush`."""
        if self._access:
            now = time.time()
            if int(now) != self._second:
                self._second, self._stamp = int(now), rfc3339(int(now) * 1_000_000_000)[:-1]
            self._pending.append(self._render_access(f"{self._stamp}.{int(now % 1 * 1e6):06d}Z", *values))
            if len(self._pending) > self.MAX_PENDING:
                self.flush()

    def flush(self) -> None:
        """Write the gathered access lines."""
        lines = []
        try:
            while True:
                lines.append(self._pending.popleft())
        except IndexError:                  # all taken, perhaps by another thread too
            pass
        if lines:
            self._write("".join(lines))

    def _line(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        if LEVELS[level] >= self._threshold:
            self._write(self._render(time.time(), level, event, fields))

    def _write(self, text: str) -> None:
        with self._writing:
            try:
                os.write(self._fd, text.encode("utf-8", "backslashreplace"))
            except OSError:                 # a full disk or a closed terminal must not stop the service
                pass

    def reopen(self) -> None:
        """After logrotate has moved the file away."""
        if self.path:
            fresh = self._open()
            with self._writing:
                old, self._fd = self._fd, fresh
            os.close(old)

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        if self.path and self._fd != 2:
            fd, self._fd = self._fd, 2
            os.close(fd)


def _render_json(moment: float, level: str, event: str, fields: Mapping[str, Any]) -> str:
    line = {"time": rfc3339(int(moment * 1e9), fraction=True), "level": level, "message": event}
    line.update(fields)
    return json.dumps(line, default=str) + "\n"


def _render_console(moment: float, level: str, event: str, fields: Mapping[str, Any]) -> str:
    stamp = time.strftime("%H:%M:%S", time.localtime(moment))
    rest = " ".join(f"{key}={_plain(value)}" for key, value in fields.items() if key != "traceback")
    text = f"{stamp} {level.upper():5} {event.translate(_CONTROLS)} {rest}".rstrip()
    behind = str(fields.get("traceback", "")).splitlines()             # indented: none can pass for a line of its own
    return "".join([text + "\n", *(f"    {line.translate(_CONTROLS)}\n" for line in behind)])


def _plain(value: Any) -> str:
    text = f"{value:.6f}" if isinstance(value, float) else str(value).translate(_CONTROLS)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


ACCESS_FIELDS = ("id", "client", "user", "method", "path", "status", "bytes", "seconds")
_quoted = json.encoder.encode_basestring_ascii  # in C, a tenth of the time of json.dumps


def _access_json(stamp: str, request_id: str, client: str, user: str, method: str, path: str, status: int, sent: int,
                 seconds: float) -> str:
    return (f'{{"time":"{stamp}","level":"info","message":"request","id":"{request_id}","client":"{client}",'
            f'"user":{_quoted(user)},"method":{_quoted(method)},"path":{_quoted(path)},"status":{status},'
            f'"bytes":{sent},"seconds":{seconds:.6f}}}\n')


def _access_console(stamp: str, request_id: str, client: str, user: str, method: str, path: str, status: int,
                    sent: int, seconds: float) -> str:
    return (f"{stamp[11:19]} INFO  request id={request_id} client={client} user={_plain(user)} method={_plain(method)} "
            f"path={_plain(path)} status={status} bytes={sent} seconds={seconds:.6f}\n")


_RENDERERS = {"json": (_render_json, _access_json), "console": (_render_console, _access_console)}

BUCKETS = (.005, .01, .025, .05, .1, .25, .5, 1.0, 2.5, 5.0, 10.0)     # seconds; rest.md, "Health and metrics"

# name: (type, labels, help). A counter of the same events as a histogram with the same labels is that one's count:
# it is named as its type and costs a request nothing.
METRICS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "callfs_http_requests_total": ("counter", ("method", "path", "status_code"), "Requests answered"),
    "callfs_http_request_duration_seconds": ("histogram", ("method", "path"), "Time to the last byte"),
    "callfs_http_response_bytes_total": ("counter", (), "Bytes of bodies sent"),
    "callfs_http_connections": ("gauge", (), "Open connections"),
    "callfs_backend_ops_total": ("callfs_backend_op_duration_seconds", ("backend_type", "operation"), "Operations on the bytes"),
    "callfs_backend_op_duration_seconds": ("histogram", ("backend_type", "operation"), "Time of such an operation"),
    "callfs_metadata_db_queries_total": ("callfs_metadata_db_query_duration_seconds", ("operation",), "Queries to the metadata store"),
    "callfs_metadata_db_query_duration_seconds": ("histogram", ("operation",), "Time of such a query"),
    "callfs_single_use_link_generations_total": ("counter", (), "Links made"),
    "callfs_single_use_link_consumptions_total": ("counter", ("status",), "Downloads by link"),
    "callfs_lock_operations_total": ("counter", ("operation", "status"), "Locks taken and let go"),
    "callfs_lock_operation_duration_seconds": ("histogram", ("operation",), "Time to get a lock"),
    "callfs_active_locks": ("gauge", (), "Locks held now"),
    "callfs_file_operations_total": ("counter", ("operation", "backend_type"), "Operations on files"),
    "callfs_errors_total": ("counter", ("component", "error_type"), "Errors, by where and what"),
    "callfs_uptime_seconds": ("gauge", (), "Seconds since the start"),
    "callfs_event_subscribers": ("gauge", (), "Clients that wait for events"),
    "callfs_webhook_deliveries_total": ("counter", ("webhook", "outcome"), "Events for webhooks: delivered, failed (a try), "
                                        "expired, dropped (backlog full), lost (disk full)"),
    "callfs_webhook_backlog": ("gauge", (), "Events that wait for webhooks"),
}


class Metrics:
    """Counters, gauges and histograms in Prometheus's text format. One belongs to one server."""

    def __init__(self, table: Mapping[str, tuple[str, tuple[str, ...], str]] = METRICS) -> None:
        self._table, self._lock = table, threading.Lock()
        self._values: dict[str, dict[tuple[str, ...], Any]] = {
            name: collections.defaultdict(_empty_histogram if kind == "histogram" else int)
            for name, (kind, _, _) in table.items()}
        self._gauges: dict[str, Callable[[], float]] = {}

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        values = self._values[name]
        with self._lock:
            values[labels] += by

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Add a value to a histogram."""
        values, place = self._values[name], bisect.bisect_left(BUCKETS, seconds) + 1
        with self._lock:
            cell = values[labels]
            cell[0] += seconds
            cell[place] += 1

    def gauge(self, name: str, value: Callable[[], float]) -> None:
        """Ask `value` whenever the metrics are read."""
        self._gauges[name] = value

    def cells(self, name: str) -> dict[tuple[str, ...], Any]:
        """A copy of what there is of a metric; of one that a histogram counts, those counts."""
        kind = self._table[name][0]
        with self._lock:
            if kind in self._table:
                return {labels: sum(cell[1:]) for labels, cell in self._values[kind].items()}
            return {labels: cell[:] if kind == "histogram" else cell for labels, cell in self._values[name].items()}

    def value(self, name: str, *labels: str) -> float:
        """A counter's or gauge's value now; of a histogram the number of observations."""
        if name in self._gauges:
            return self._gauges[name]()
        cell = self.cells(name).get(labels, 0)
        return sum(cell[1:]) if isinstance(cell, list) else cell

    def render(self) -> str:
        """The text of `GET /metrics` (Prometheus text format 0.0.4)."""
        lines: list[str] = []
        for name, (kind, labels, help_text) in self._table.items():
            kind = "counter" if kind in self._table else kind
            lines += [f"# HELP {name} {help_text}.", f"# TYPE {name} {kind}"]
            if name in self._gauges:
                lines.append(f"{name} {_number(self._gauges[name]())}")
            for values, cell in sorted(self.cells(name).items()):
                pairs = [f'{label}="{_escape_label(value)}"' for label, value in zip(labels, values)]
                lines += _histogram_lines(name, pairs, cell) if kind == "histogram" else \
                    [f"{name}{_braces(pairs)} {_number(cell)}"]
        return "\n".join(lines) + "\n"


def _empty_histogram() -> list[float]:
    return [0.0] + [0] * (len(BUCKETS) + 1)             # the sum, then a count for each bucket and for the rest


def _histogram_lines(name: str, pairs: list[str], cell: list[float]) -> list[str]:
    lines, total = [], 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), cell[1:]):
        total += int(count)
        edge = 'le="' + bound + '"'
        lines.append(f"{name}_bucket{_braces([*pairs, edge])} {total}")
    return [*lines, f"{name}_sum{_braces(pairs)} {cell[0]:.9g}", f"{name}_count{_braces(pairs)} {total}"]


def _braces(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escape_label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class Cache(Generic[K, V]):
    """A bounded map that forgets what was not used lately; `size` is how much cost a generation may hold.

    Two generations: a hit in the old one moves up, and when the young one is full it becomes the old one. A hit in
    the young one writes nothing and so takes no lock, unlike in a least-recently-used list; moving up takes it, or
    what another thread drops at that moment would come back.
    """

    def __init__(self, size: int) -> None:
        self._size, self._cost = size, 0
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}
        self._lock = threading.Lock()

    def get(self, key: K) -> Optional[V]:
        """The value, or None."""
        found = self._young.get(key)
        if found is None and self._old:
            found = self._moved_up(key)
        return None if found is None else found[0]

    def _moved_up(self, key: K) -> Optional[tuple[V, int]]:
        with self._lock:
            found = self._young.get(key)
            if found is None:
                found = self._old.pop(key, None)
                if found is not None:
                    self._remember(key, *found)
            return found

    def put(self, key: K, value: V, cost: int = 1) -> None:
        """Remember; may forget others."""
        with self._lock:
            self._remember(key, value, cost)

    def _remember(self, key: K, value: V, cost: int) -> None:
        if self._cost + cost > self._size and self._young:
            self._old, self._young, self._cost = self._young, {}, 0
        if cost <= self._size:
            self._cost += cost - (self._young[key][1] if key in self._young else 0)
            self._young[key] = (value, cost)

    def drop(self, key: K) -> None:
        """Forget one."""
        with self._lock:
            found = self._young.pop(key, None)
            self._cost -= found[1] if found else 0
            self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._young, self._old, self._cost = {}, {}, 0


class RateLimiter:
    """A token bucket for each address; a rate of 0 sets no limit. The table is bounded: the address that was away
    longest goes first (no scan)."""

    def __init__(self, rate: float, burst: int, addresses: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._bound, self._clock = rate, max(1, burst), addresses, clock
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def wait(self, address: str, cost: int = 1) -> float:
        """Take `cost` tokens (0: only look): 0.0 when there were enough, else the seconds until there are."""
        if not self._rate:
            return 0.0                      # no limit
        now = self._clock()
        with self._lock:
            tokens, then = self._buckets.pop(address, (float(self._burst), now))
            tokens = min(self._burst, tokens + (now - then) * self._rate)
            enough = tokens >= max(1, cost)
            self._buckets[address] = (tokens - cost if enough else tokens, now)
            if len(self._buckets) > self._bound:
                self._buckets.popitem(last=False)
        return 0.0 if enough else (max(1, cost) - tokens) / self._rate

    def take(self, address: str) -> None:
        """Raises RateLimited when the address has used up its share."""
        seconds = self.wait(address)
        if seconds:
            raise RateLimited(retry_after=seconds)

# ============================================================================
# Byte streams: what goes out (Reader), what comes in (Body), spools
# ============================================================================

BLOCK = 256 * 1024                          # one step of a copy: larger gains nothing (performance.md)
SPOOL_BYTES = 1024 * 1024                   # up to here a spool stays in memory


class Reader:
    """Bytes on their way out. Whoever gets one closes it.

    `length` is the number of bytes, None where nobody knows yet. Where the bytes lie in a file, `fd` is its descriptor
    and `offset` where they start, so that a server can `sendfile`; else `fd` is -1. `trailers` gives what can be said
    of the bytes only behind them (HTTP: names and values of fields); the names are the same whenever it is asked.
    """

    length: Optional[int] = None
    trailers: Optional[Callable[[], list[tuple[str, str]]]] = None
    fd = -1
    offset = 0

    def read(self, size: int = BLOCK) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises StorageError when the source breaks."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is behind; safe to call twice."""

    def __iter__(self) -> Iterator[bytes]:
        block = self.read()
        while block:
            yield block
            block = self.read()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class FileReader(Reader):
    """`length` bytes at `offset` of an open file descriptor, which it owns unless `owner` (closed with it) does."""

    def __init__(self, fd: int, offset: int, length: int, owner: Optional[Closeable] = None) -> None:
        self.fd, self.offset, self.length = fd, offset, length
        self._owner, self._position = owner, offset

    def read(self, size: int = BLOCK) -> bytes:
        """The next bytes; StorageError when the file has become shorter, as a short answer must never look whole."""
        left = self.offset + (self.length or 0) - self._position
        block = pread(self.fd, min(size, left), self._position) if left > 0 else b""
        if left > 0 and not block:
            raise StorageError("The file became shorter while it was read.")
        self._position += len(block)
        return block

    def close(self) -> None:
        """Close the descriptor, once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._owner.close() if self._owner else os.close(fd)


class ChunkReader(Reader):
    """Blocks of an iterator; a generator behind it is closed with the reader."""

    def __init__(self, chunks: Iterable[bytes], length: Optional[int] = None,
                 on_close: Optional[Callable[[], None]] = None) -> None:
        self._chunks, self._rest, self.length, self._on_close = iter(chunks), b"", length, on_close

    def read(self, size: int = BLOCK) -> bytes:
        """The next bytes of the iterator, cut at `size`."""
        while not self._rest:
            block = next(self._chunks, None)
            if block is None:
                return b""
            self._rest = block
        block, self._rest = self._rest[:size], self._rest[size:]
        return block

    def close(self) -> None:
        """Close the generator, so that its `finally` runs now and not when the collector comes by; then `on_close`,
        since the `finally` of a generator that never started does not run at all."""
        close = getattr(self._chunks, "close", None)
        if close:
            close()
        if self._on_close:
            self._on_close()


class Closeable(Protocol):
    """Anything with a `close`."""

    def close(self) -> None: ...


class Body:
    """Bytes on their way in. `length` is what was announced, None for a chunked body. Whoever takes what comes as it
    comes (a stream) sets `patient`: then the sender may pause for as long as it likes. Where it lies in files already
    `readers` gives them one after the other, to whoever can copy them faster than `readinto` gives bytes."""

    length: Optional[int] = 0
    patient = False
    readers: Optional[Callable[[], Iterator[Reader]]] = None

    def readinto(self, view: memoryview) -> int:
        """Fill some of `view`; 0 at the end. Raises Disconnected when the body ends before its announced end."""
        raise NotImplementedError

    def read(self, limit: int) -> bytes:
        """All of a small body. Raises PayloadTooLarge past `limit`."""
        if self.length is not None and self.length > limit:
            raise PayloadTooLarge(f"The body may have {limit} bytes.")
        found, view = bytearray(), memoryview(bytearray(min(limit + 1, 65536)))
        count = self.readinto(view)
        while count:
            found += view[:count]
            if len(found) > limit:
                raise PayloadTooLarge(f"The body may have {limit} bytes.")
            count = self.readinto(view)
        return bytes(found)


class FileBody(Body):
    """A body out of a file object with `readinto` (a spool, `io.BytesIO`, a local file)."""

    def __init__(self, source: Any, length: Optional[int] = None) -> None:
        self._source, self.length = source, length

    def readinto(self, view: memoryview) -> int:
        """What the file gives."""
        return self._source.readinto(view) or 0


def pour(body: Body, put: Callable[[memoryview], object]) -> int:
    """Give a body to `put` as it comes; how many bytes it had. Raises Disconnected when it is not as announced."""
    buffer = memoryview(bytearray(BLOCK if body.length is None else min(BLOCK, max(1, body.length))))
    total, count = 0, body.readinto(buffer)
    while count:
        put(buffer[:count])
        total += count
        count = body.readinto(buffer)
    if body.length is not None and total != body.length:
        raise Disconnected("The body is shorter than announced.")
    return total


def bytes_body(data: bytes) -> Body:
    """A body that is already in memory."""
    return FileBody(io.BytesIO(data), len(data))


def open_spool(folder: Optional[str], limit: int = SPOOL_BYTES) -> Any:
    """A scratch file: memory up to `limit`, then an unnamed file in `folder`. The caller closes it."""
    return tempfile.SpooledTemporaryFile(max_size=limit, dir=folder)


def spool_reader(spool: Any) -> Reader:
    """What was written to a spool, from its start; closing the reader closes the spool."""
    length = spool.tell()
    spool.seek(0)
    return ChunkReader(iter(lambda: spool.read(BLOCK), b""), length, spool.close)


if hasattr(os, "pread"):
    pread = os.pread
else:                                       # Windows: no pread; nobody else uses the descriptor's own position
    def pread(fd: int, size: int, offset: int) -> bytes:
        """As `os.pread`."""
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size)

# ============================================================================
# Databases: SQLite, PostgreSQL and MySQL behind one interface (wire protocols)
# ============================================================================

MAX_DATABASE_ANSWER = 1 << 30               # bytes of one answer, checked before they are buffered
MAX_LOGIN_BYTES = 1 << 20                   # before the server let us in
MAX_STATEMENTS = 128                        # prepared for a connection; the server keeps a plan for each
MAX_VALUES = 32_766                         # of a statement: SQLite's limit; the others have 65,535
_INT64 = range(-1 << 63, 1 << 63)
_TRANSACTION_WORD = re.compile(r"\s*(?:BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE)\b", re.I)

# SQLSTATE of PostgreSQL, error number of MySQL and TiDB, name of SQLite's result code. What is in no table is an
# error of the statement. PostgreSQL: appendix A. MySQL: server error reference. TiDB: error codes.
_CONFLICTS = frozenset({"23505", "23P01", "1062", "1586", "1761", "SQLITE_CONSTRAINT_UNIQUE"})
_FULL = frozenset({"53100", "1021", "1114", "SQLITE_FULL"})
_RETRIED = frozenset({
    "40001", "40P01", "55P03", "26000",             # serialization, deadlock, lock; a prepared statement went away
    "1205", "1213", "1243", "1615", "3572", "8002", "8022", "8028", "9007",
    "SQLITE_BUSY"})
_LOST = frozenset({"57P01", "57P02", "57P03", "57P05", "1053", "1077", "1079", "1080", "1927", "4031"})
_UNAVAILABLE = frozenset({
    "53000", "53200", "53300", "53400", "57014", "25006", "1037", "1040", "1041", "1203", "1290", "1317", "1792",
    "1836", "1969", "3024", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_INTERRUPT"})


class Rows(NamedTuple):
    """What a statement gave: its rows, and how many it returned or affected (matched, for an UPDATE)."""

    rows: list[tuple[Any, ...]]
    count: int


class Session:
    """One open transaction; for one thread, until its `with` block or its `work` ends.

    The values of `execute` are None, bool, int (64 bits, signed), float, str and bytes; placeholders are `?`. Values
    come back as the same types; decimals (so MySQL's and PostgreSQL's SUM of integers) and dates as str, a bool of
    SQLite or MySQL as int. A statement that failed makes the transaction good for nothing but to be taken back, as
    PostgreSQL has it, with every database: code that was tested with one works with all.
    """

    def __init__(self, connection: _DatabaseConnection) -> None:
        self._connection, self._state = connection, "open"

    def execute(self, sql: str, params: Sequence[Any] = ()) -> Rows:
        """Run one statement. Raises DatabaseConflict, DatabaseUnavailable, StorageFull, DatabaseError."""
        if self._state != "open":
            raise DatabaseError(f"The transaction {self._state}.")
        if "\0" in sql or _TRANSACTION_WORD.match(sql):
            raise DatabaseError("Transactions are begun and ended by `transaction` and `run` only.")
        if len(params) > MAX_VALUES:
            raise DatabaseError(f"A statement takes at most {MAX_VALUES} values.")
        values = [_database_value(value) for value in params]
        try:
            return self._connection.query(sql, values)
        except UnicodeEncodeError:          # this and the next are raised before anything was sent
            raise DatabaseError("A text has half a surrogate pair in it: no database stores that.") from None
        except struct.error:
            raise DatabaseError("The values are larger than a message can be.") from None
        except BaseException:
            self._state = "had an error and can only be taken back"
            raise

    def _finish(self) -> None:
        if self._state != "open":
            raise DatabaseError(f"The transaction {self._state}.")
        try:
            self._connection.commit()
        except DatabaseUnavailable as error:
            error.uncertain = self._connection.broken           # no answer: done or not, nobody knows
            raise

    def _end(self) -> None:
        self._state = "is over"


def _database_value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, float, str, bytes)):
        return value
    if isinstance(value, int) and value in _INT64:
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise DatabaseError("A number does not fit in 64 bits." if isinstance(value, int) else
                        f"A {type(value).__name__} is no value for a database.")


class Database(abc.ABC):
    """A database with a bounded pool of connections; threads and forked children may share the object.

    `transaction` and `run` raise DatabaseUnavailable when no connection can be had. A data definition statement of
    MySQL commits what came before it (its manual, 13.3.3), and its tables are to say CHARACTER SET utf8mb4.
    """

    RETRIES = 12                            # of a deadlock; random pauses of at most 1 s, of 2 s in all on average
    dialect: str                            # sqlite | postgres | mysql

    def __init__(self, target: _DatabaseTarget) -> None:
        self._target = target
        self._pool = _ConnectionPool(self._connect, target.pool_size, target.connect_timeout)

    @abc.abstractmethod
    def _connect(self) -> _DatabaseConnection: ...

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Session]:
        """`with database.transaction() as session:` commits at the end of the block, durably; any exception takes all
        of it back. Where the answer to COMMIT was lost, the DatabaseUnavailable has `uncertain` set."""
        connection = self._begin()
        session = Session(connection)
        try:
            yield session
            session._finish()
        except BaseException:
            if not connection.broken:
                connection.take_back()
            raise
        finally:
            session._end()
            self._pool.give(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """The same for a block that only looks: with SQLite it waits for no writer, and no writer for it."""
        with self.transaction() as session:
            yield session

    def run(self, work: Callable[[Session], T], idempotent: bool = False) -> T:
        """What `work(session)` returns, in a transaction of its own.

        Deadlocks, serialization failures and busy databases are tried again, with random pauses, until RETRIES or the
        time-out; a connection that was lost, once. One that was lost while COMMIT was under way raises
        DatabaseUnavailable (`uncertain`), unless the work is `idempotent`: then that is tried again, too.
        """
        deadline, reconnects = time.monotonic() + self._target.timeout, 1
        for attempt in itertools.count(1):
            try:
                with self.transaction() as session:
                    return work(session)
            except DatabaseUnavailable as error:
                if error.uncertain and not idempotent:
                    raise
                reconnects -= error.lost
                again = reconnects >= 0 if error.lost else error.state in _RETRIED and attempt <= self.RETRIES
                if not again or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0, min(1.0, 0.002 * 2 ** attempt)))
        raise AssertionError                # not reached: the loop has no end

    def close(self) -> None:
        """End all idle connections; those in use end when their transaction does."""
        self._pool.close()

    def _begin(self) -> _DatabaseConnection:
        """A connection with an open transaction. One that went stale in the pool (the server was started again, a
        firewall forgot it) is only found by trying; then none of its age is trusted."""
        while True:
            connection = self._pool.take()
            try:
                connection.begin()
                connection.used = True
                return connection
            except BaseException as error:
                stale = connection.broken and connection.used and isinstance(error, CallFSError)
                self._pool.give(connection)
                if not stale:
                    raise
                self._pool.flush()


class _DatabaseConnection(abc.ABC):
    """One connection: `broken` while an exchange is under way and after one that did not end as it should."""

    broken = False
    used = False                            # had a transaction before: may have gone stale since

    @abc.abstractmethod
    def query(self, sql: str, values: list[Any]) -> Rows: ...

    @abc.abstractmethod
    def simple(self, sql: str) -> str:
        """Run a statement without values and rows; what the server calls it now."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def begin(self) -> None:
        self.simple("BEGIN")

    def commit(self) -> None:
        """PostgreSQL answers ROLLBACK to the COMMIT of a transaction in which something failed."""
        if self.simple("COMMIT") != "COMMIT":
            raise DatabaseError("The database took the transaction back.")

    def take_back(self) -> None:
        """Roll back; a connection that can not even do that is not used again."""
        try:
            self.simple("ROLLBACK")
        except CallFSError:
            self.broken = True


class _ConnectionPool:
    """At most `size` connections; the one used last goes out first, so that a quiet time leaves the others to age."""

    IDLE_SECONDS = 240.0                    # below the 5 to 10 minutes after which firewalls and proxies forget

    def __init__(self, connect: Callable[[], _DatabaseConnection], size: int, wait: float) -> None:
        self._connect, self._size, self._wait = connect, size, wait
        self._closed, self._forked_away = False, []         # type: bool, list[Any]
        self._start()

    def _start(self) -> None:
        self._pid, self._free = os.getpid(), threading.Semaphore(self._size)
        self._idle: collections.deque[tuple[_DatabaseConnection, float]] = collections.deque()

    def take(self) -> _DatabaseConnection:
        """An idle connection or a new one; `give` it back. Raises DatabaseUnavailable after the wait."""
        if self._pid != os.getpid():        # a child: the connections are the parent's, not even to be closed here
            self._forked_away.append(self._idle)
            self._start()
        if self._closed:
            raise DatabaseUnavailable("The database was closed.")
        if not self._free.acquire(timeout=self._wait):
            raise DatabaseUnavailable(f"All {self._size} connections to the database are in use.")
        try:
            return self._reuse() or self._connect()
        except BaseException:
            self._free.release()
            raise

    def _reuse(self) -> Optional[_DatabaseConnection]:
        with contextlib.suppress(IndexError):
            while True:
                connection, since = self._idle.pop()
                if time.monotonic() - since < self.IDLE_SECONDS:
                    return connection
                connection.close()
        return None

    def give(self, connection: _DatabaseConnection) -> None:
        """Back from its transaction."""
        if connection.broken:
            connection.close()
        else:
            self._idle.append((connection, time.monotonic()))
        self._free.release()
        if self._closed:
            self.flush()

    def flush(self) -> None:
        """End what is idle."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop()[0].close()

    def close(self) -> None:
        """End what is idle, and what comes back."""
        self._closed = True
        if self._pid == os.getpid():
            self.flush()


def _database_error(state: str, text: str) -> CallFSError:
    """The error to raise for a state code of a database; `text` is what it said."""
    if state in _CONFLICTS:
        return DatabaseConflict(state=state)
    if state in _FULL:
        return StorageFull("The disk of the database is full.")
    if state in _LOST or state in _RETRIED or state in _UNAVAILABLE or state.startswith("08"):
        lost = state in _LOST or state.startswith("08")
        return DatabaseUnavailable(f"The database can not do this now: {text}", state=state, lost=lost)
    return DatabaseError(f"The database refused: {text}", state=state)


# ---- SQLite

# Its words, since only Python 3.11 gives its result codes.
_SQLITE_STATES = (
    ("UNIQUE constraint", "SQLITE_CONSTRAINT_UNIQUE"), ("PRIMARY KEY must be unique", "SQLITE_CONSTRAINT_UNIQUE"),
    ("constraint", "SQLITE_CONSTRAINT"), ("locked", "SQLITE_BUSY"), ("or disk is full", "SQLITE_FULL"),
    ("readonly", "SQLITE_READONLY"), ("unable to open", "SQLITE_CANTOPEN"), ("interrupted", "SQLITE_INTERRUPT"),
    ("malformed", "SQLITE_CORRUPT"), ("not a database", "SQLITE_NOTADB"), ("disk I/O", "SQLITE_IOERR"))
_SQLITE_WORDS = {
    "SQLITE_CORRUPT": "The database file is damaged; restore a backup.",
    "SQLITE_NOTADB": "The file is no SQLite database.",
    "SQLITE_INTERRUPT": "The statement took too long.",
}


def _sqlite_error(error: Exception) -> CallFSError:
    if isinstance(error, OverflowError):
        return DatabaseError("A value is too large for SQLite.", state="SQLITE_TOOBIG")
    text = str(error)
    state = next((state for words, state in _SQLITE_STATES if words in text), "SQLITE_ERROR")
    found = _database_error(state, text)
    return found.__class__(_SQLITE_WORDS[state], state=state) if state in _SQLITE_WORDS else found


class _SQLite(Database):
    """A file; its folder is made when it is missing. Every transaction takes the write lock at its start: one at a
    time, and none has to be taken back because another one wrote."""

    dialect = "sqlite"

    def _connect(self) -> _DatabaseConnection:
        return _SQLiteConnection(self._target.path, self._target.connect_timeout, self._target.timeout)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Each statement sees a state of its own."""
        connection = self._pool.take()
        session = Session(connection)
        try:
            yield session
        finally:
            session._end()
            self._pool.give(connection)


class _SQLiteConnection(_DatabaseConnection):
    STEPS = 20_000                          # of its virtual machine between two looks at the clock: about 1 ms

    def __init__(self, path: str, wait: float, timeout: float) -> None:
        self._timeout, self._deadline = timeout, math.inf
        try:
            if path != ":memory:":
                os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
            self._connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False,
                                               cached_statements=MAX_STATEMENTS)
        except OSError as error:
            raise DatabaseUnavailable(f"The database file can not be opened: {error.strerror}.") from None
        except sqlite3.Error as error:
            raise _sqlite_error(error) from None
        self._set_up()

    def _set_up(self) -> None:
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._run(f"PRAGMA {pragma}")
            self._connection.set_progress_handler(lambda: time.monotonic() > self._deadline, self.STEPS)
        except CallFSError:
            self.close()
            raise

    def _run(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except UnicodeEncodeError:
            raise
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            raise _sqlite_error(error) from None

    def query(self, sql: str, values: list[Any]) -> Rows:
        """Rows are fetched whole: a cursor left open would hold the lock."""
        self._deadline = time.monotonic() + self._timeout
        try:
            cursor = self._run(sql, values)
            rows = cursor.fetchall()
        except sqlite3.Error as error:
            raise _sqlite_error(error) from None
        finally:
            self._deadline = math.inf       # COMMIT is never cut off
        return Rows(rows, len(rows) if cursor.description else max(0, cursor.rowcount))

    def simple(self, sql: str) -> str:
        """BEGIN takes the write lock; after a full disk SQLite has taken back everything itself."""
        if sql != "ROLLBACK" or self._connection.in_transaction:
            self._run("BEGIN IMMEDIATE" if sql == "BEGIN" else sql)
        return sql

    def close(self) -> None:
        self._connection.close()


# ---- what the two wire protocols share

class _Fields:
    """Reads fields out of one message; ValueError where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        found = self.data[self.at:self.at + size] if size >= 0 else b""
        if len(found) != size:
            raise ValueError("a message ends too early")
        self.at += size
        return found

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self.data) - self.at)

    def until_nul(self) -> bytes:
        """Up to a zero byte, which is skipped."""
        end = self.data.index(0, self.at)
        found = self.take(end - self.at)
        self.at += 1
        return found

    def big(self, size: int) -> int:
        """A number of PostgreSQL: the highest byte first, signed."""
        return int.from_bytes(self.take(size), "big", signed=True)

    def little(self, size: int) -> int:
        """A number of MySQL: the lowest byte first, unsigned."""
        return int.from_bytes(self.take(size), "little")

    def lenenc(self) -> int:
        """MySQL's length-encoded integer."""
        first = self.little(1)
        if first in (0xFB, 0xFF):
            raise ValueError("not a length")
        return first if first < 0xFB else self.little({0xFC: 2, 0xFD: 3, 0xFE: 8}[first])

    def lenenc_bytes(self) -> bytes:
        """MySQL's length-encoded string."""
        return self.take(self.lenenc())


class _DatabaseSocket:
    """A socket with a buffer; each exchange has a deadline and a bound on what it reads. Raises OSError, ValueError."""

    def __init__(self, target: _DatabaseTarget) -> None:
        self.deadline, self.left = time.monotonic() + target.connect_timeout, MAX_LOGIN_BYTES
        self._buffer, self._at, self.encrypted = bytearray(), 0, False
        self.local = target.host.startswith("/")            # no other machine sees what is sent
        self._socket = socket.socket(socket.AF_UNIX) if self.local else \
            socket.create_connection((target.host, target.port), target.connect_timeout)
        try:
            self._set_options(target)
        except BaseException:
            self._socket.close()
            raise

    def _set_options(self, target: _DatabaseTarget) -> None:
        if self.local:
            self._socket.settimeout(target.connect_timeout)
            self._socket.connect(target.host)
        else:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in (("TCP_NODELAY", 1), ("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6),
                                ("TCP_USER_TIMEOUT", int(target.connect_timeout * 1000))):
                if hasattr(socket, name):
                    self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            self.local = ipaddress.ip_address(self._socket.getpeername()[0].partition("%")[0]).is_loopback

    def _wait(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout
        self._socket.settimeout(left)

    def send(self, data: bytes) -> None:
        """All of it."""
        self._wait()
        self._socket.sendall(data)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; memory is taken only for what really comes."""
        if not 0 <= size <= self.left:
            raise ValueError("an answer is too long")
        self.left -= size
        while len(self._buffer) - self._at < size:
            self._wait()
            block = self._socket.recv(min(max(65536, size), 1 << 20))
            if not block:
                raise ConnectionResetError
            self._buffer += block
        found = bytes(memoryview(self._buffer)[self._at:self._at + size])
        self._at += size
        if self._at > 1 << 20 or self._at == len(self._buffer):
            del self._buffer[:self._at]
            self._at = 0
        return found

    def encrypt(self, target: _DatabaseTarget) -> None:
        """TLS from here on. What came before it, unencrypted, is not taken for its start (CVE-2021-23222)."""
        if self._buffer:
            raise ValueError("bytes before the TLS handshake")
        self._wait()
        name = target.tls_server_name or target.host
        self._socket = target.context.wrap_socket(self._socket, server_hostname=name)
        self.encrypted = True

    def close(self, farewell: bytes = b"") -> None:
        """Say `farewell` if that needs no waiting, and close."""
        with contextlib.suppress(OSError, ValueError):
            self._socket.settimeout(0.1)
            self._socket.sendall(farewell)
        self._socket.close()


@contextlib.contextmanager
def _database_failures(seconds: float, failure: str, lost: bool = False) -> Iterator[None]:
    """What goes wrong with a socket and with the bytes out of it, as DatabaseUnavailable."""
    try:
        yield
    except socket.timeout:
        raise DatabaseUnavailable(f"The database did not answer within {format_duration(seconds)}.") from None
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "the connection ended"
        raise DatabaseUnavailable(f"TLS with the database failed: {_database_words(reason)}.", lost=lost) from None
    except OSError as error:
        text = f"The database {failure}: {error.strerror or 'the connection ended'}."
        raise DatabaseUnavailable(text, lost=lost) from None
    except (ValueError, IndexError, KeyError, struct.error):
        raise DatabaseUnavailable("The database sent what its protocol does not allow.", state="protocol") from None


class _WireConnection(_DatabaseConnection):
    """What both protocols do around an exchange of messages."""

    FAREWELL = b""

    def __init__(self, target: _DatabaseTarget) -> None:
        self._target = target
        self._statements: collections.OrderedDict[Any, Any] = collections.OrderedDict()
        self._numbers, self._sequence = itertools.count(1), 0
        with _database_failures(target.connect_timeout, "can not be reached"):
            self._wire = _DatabaseSocket(target)
        try:
            self.broken = True
            with _database_failures(target.connect_timeout, "closed the connection"):
                self._log_in()
            self._set_up()
        except BaseException as error:
            self._wire.close()
            if isinstance(error, DatabaseError):        # whatever it is, there is no connection
                raise DatabaseUnavailable(str(error), state=error.state) from None
            raise

    @abc.abstractmethod
    def _log_in(self) -> None: ...

    @abc.abstractmethod
    def _set_up(self) -> None: ...

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        """Messages there and back. Only one that ends well leaves a connection that can be used again."""
        self.broken = True
        seconds = self._target.timeout + 1  # PostgreSQL gives up a statement by itself, a second before
        self._wire.deadline, self._wire.left = time.monotonic() + seconds, MAX_DATABASE_ANSWER
        with _database_failures(seconds, "went away", lost=True):
            yield
        self.broken = False

    def _said(self, state: str, text: str) -> CallFSError:
        """An error message of the server, without the password that a proxy or a statement may have put in."""
        if self._target.password:
            text = text.replace(self._target.password, "***")
        return _database_error(state, _database_words(text))

    def _remember(self, key: Any, statement: Any) -> Any:
        """Keep a prepared statement; the one that was not used for longest, when there are too many, to be closed."""
        self._statements[key] = statement
        return self._statements.popitem(last=False)[1] if len(self._statements) > MAX_STATEMENTS else None

    def _recall(self, key: Any) -> Any:
        found = self._statements.get(key)
        if found is not None:
            self._statements.move_to_end(key)
        return found

    def close(self) -> None:
        """A healthy server is told, so that its log has no lost connections."""
        self._wire.close(b"" if self.broken else self.FAREWELL)


def _database_words(text: str) -> str:
    """One line of somebody else's words, for a log and an answer."""
    return text.translate(_CONTROLS)[:300]


# ---- PostgreSQL (its documentation, chapter 55: "Frontend/Backend Protocol", version 3.0)

_SSL_REQUEST, _PROTOCOL_3 = 80877103, 196608
_BYTEA = 17
_POSTGRES_TYPES: dict[int, Callable[[bytes], Any]] = {      # by the OID of pg_type.dat; others are text
    16: lambda data: data == b"t", 20: int, 21: int, 23: int, 26: int, 700: float, 701: float, _BYTEA: bytes}
# Literals (with E'' and its backslashes), names, dollar quotes and comments (nested once) hold no placeholders.
_SQL_PARTS = re.compile(r"""\b[eE]'(?:[^'\\]|''|\\.)*'|'[^']*'|"[^"]*"|--[^\n]*|/\*(?:/\*.*?\*/|.)*?\*/"""
                        r"""|\$((?:[A-Za-z_]\w*)?)\$.*?\$\1\$|(\?)""", re.S)
# Kinds of AuthenticationXXX requests.
_POSTGRES_LOGINS = {3: "_log_in_cleartext", 5: "_log_in_md5", 10: "_log_in_scram"}


@functools.lru_cache(maxsize=1000)
def _numbered(sql: str) -> tuple[str, int]:
    """`?` as `$1`, `$2`, ...; and how many there are."""
    numbers = itertools.count(1)
    text = _SQL_PARTS.sub(lambda part: f"${next(numbers)}" if part[2] else part[0], sql)
    return text, next(numbers) - 1


def _postgres_message(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return kind + struct.pack("!i", len(body) + 4) + body


def _postgres_value(value: Any) -> tuple[int, int, Optional[bytes]]:
    """(OID of its type, format: 0 text or 1 binary, bytes). What the statement does with a text decides its type; an
    integer has the smallest one: all functions take that, and few take int8."""
    if value is None:
        return 0, 0, None
    if isinstance(value, bool):
        return 16, 0, b"t" if value else b"f"
    if isinstance(value, int):
        return 23 if -1 << 31 <= value < 1 << 31 else 20, 0, b"%d" % value
    if isinstance(value, float):
        return 701, 0, repr(value).encode()
    return (_BYTEA, 1, value) if isinstance(value, bytes) else (0, 0, value.encode())


class _Prepared(NamedTuple):
    """A prepared statement: its name or number, parameters, and how to read each of its columns."""

    key: Any
    params: int
    columns: tuple[Any, ...]


class _PostgresAnswer:
    """What came until the server was ready again."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.columns: tuple[int, ...] = ()
        self.tag = ""
        self.error: Optional[CallFSError] = None


class _Postgres(Database):
    """A PostgreSQL server, 12 or later."""

    dialect = "postgres"

    def _connect(self) -> _DatabaseConnection:
        target = self._target
        if target.tls != "allow":
            return _PostgresConnection(target)
        try:
            return _PostgresConnection(dataclasses.replace(target, tls="disable"))
        except DatabaseUnavailable as error:
            if error.state != "28000":
                raise
        return _PostgresConnection(dataclasses.replace(target, tls="require"))


class _PostgresConnection(_WireConnection):
    FAREWELL = _postgres_message(b"X")

    def _log_in(self) -> None:
        target = self._target
        if target.tls != "disable" and not target.host.startswith("/"):
            self._request_tls()
        pairs = {"user": target.user, "database": target.database, "client_encoding": "UTF8",
                 "application_name": target.application_name}
        settings = b"".join(_cstring(name) + _cstring(value) for name, value in pairs.items() if value)
        self._wire.send(_postgres_message(b"", struct.pack("!i", _PROTOCOL_3), settings, b"\0"))
        while True:
            kind, body = self._message()
            request = body.big(4) if kind == b"R" else -1
            if request in _POSTGRES_LOGINS:
                getattr(self, _POSTGRES_LOGINS[request])(body)
            elif request > 0:
                raise DatabaseUnavailable(f"The database wants a login of kind {request}, which is not supported.")
            elif kind == b"E":
                raise self._error(body)[1]
            elif kind == b"Z":
                return

    def _request_tls(self) -> None:
        self._wire.send(struct.pack("!ii", 8, _SSL_REQUEST))
        answer = self._wire.read(1)
        if answer == b"S":
            self._wire.encrypt(self._target)
        elif answer != b"N":                # an ErrorResponse here was not authenticated by anybody: not repeated
            raise ValueError("no answer to SSLRequest")
        elif self._target.tls != "prefer":
            raise DatabaseUnavailable("The database does not speak TLS, which the configuration asks for.")

    def _log_in_cleartext(self, body: _Fields) -> None:
        if not (self._wire.encrypted or self._wire.local):
            raise DatabaseUnavailable("The database wants the password in clear, and the connection has no TLS.")
        self._wire.send(_postgres_message(b"p", _cstring(self._target.password)))

    def _log_in_md5(self, body: _Fields) -> None:
        inner = hashlib.md5((self._target.password + self._target.user).encode()).hexdigest()
        outer = hashlib.md5(inner.encode() + body.take(4)).hexdigest()
        self._wire.send(_postgres_message(b"p", _cstring("md5" + outer)))

    def _log_in_scram(self, body: _Fields) -> None:
        if b"SCRAM-SHA-256" not in body.rest().split(b"\0"):
            raise DatabaseUnavailable("The database offers no SCRAM-SHA-256.")
        scram = _Scram(self._target.password)
        first = scram.first()
        self._wire.send(_postgres_message(b"p", b"SCRAM-SHA-256\0", struct.pack("!i", len(first)), first))
        self._wire.send(_postgres_message(b"p", scram.final(self._sasl(11))))
        scram.verify(self._sasl(12))

    def _sasl(self, wanted: int) -> bytes:
        """The server's next words in SASL; anything else, an early "welcome" too, does not do."""
        kind, body = self._message()
        if kind == b"E":
            raise self._error(body)[1]
        if kind != b"R" or body.big(4) != wanted:
            raise ValueError("SASL was cut short")
        return body.rest()

    def _set_up(self) -> None:
        limit = max(1, int(self._target.timeout * 1000))
        self.simple(f"SET standard_conforming_strings = on; SET statement_timeout = {limit}")

    # -- messages ----------------------------------------------------------------------------------------------

    def _message(self) -> tuple[bytes, _Fields]:
        """The next message that is not just news."""
        while True:
            kind, size = struct.unpack("!ci", self._wire.read(5))
            body = _Fields(self._wire.read(size - 4))
            if kind not in b"NSA":          # NoticeResponse, ParameterStatus, NotificationResponse
                return kind, body

    def _error(self, body: _Fields) -> tuple[bool, CallFSError]:
        """(whether the server ends the connection with it, the error)."""
        fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.rest().split(b"\0") if part}
        state, text = fields.get(b"C", ""), fields.get(b"M", "")
        if state == "0A000" and "cached plan" in text:
            state = "26000"                 # a table changed below a prepared statement: prepared anew by the retry
        return fields.get(b"V", fields.get(b"S")) in ("FATAL", "PANIC"), self._said(state, text)

    def _ask(self, data: bytes, decoders: Sequence[Callable[[bytes], Any]] = ()) -> _PostgresAnswer:
        """Send messages and read until ReadyForQuery. Raises the error that the server told of."""
        answer = _PostgresAnswer()
        with self._exchange():
            self._wire.send(data)
            kind, body = self._message()
            while kind != b"Z":
                self._take_in(answer, kind, body, decoders)
                kind, body = self._message()
        if answer.error:
            raise answer.error
        return answer

    def _take_in(self, answer: _PostgresAnswer, kind: bytes, body: _Fields,
                 decoders: Sequence[Callable[[bytes], Any]]) -> None:
        if kind == b"D":
            answer.rows.append(_postgres_row(body, decoders))
        elif kind == b"C":
            answer.tag = body.until_nul().decode()
        elif kind == b"E":
            fatal, error = self._error(body)
            answer.error = answer.error or error
            if fatal:
                raise answer.error
        elif kind == b"T":
            answer.columns = tuple(_postgres_column(body) for _ in range(body.big(2)))
        elif kind not in b"123tnIs":        # Parse-, Bind-, CloseComplete, ParameterDescription, NoData, EmptyQuery
            raise ValueError("COPY, or no message at all")

    def simple(self, sql: str) -> str:
        """The simple query protocol."""
        return self._ask(_postgres_message(b"Q", _cstring(sql))).tag

    # -- statements --------------------------------------------------------------------------------------------

    def _prepared(self, sql: str, types: tuple[int, ...]) -> _Prepared:
        found = self._recall((sql, types))
        if found is None:
            text, count = _numbered(sql)
            if count != len(types):
                raise DatabaseError(f"The statement has {count} placeholders and {len(types)} values.")
            name = b"s%d\0" % next(self._numbers)
            answer = self._ask(b"".join((
                _postgres_message(b"P", name, _cstring(text), struct.pack(f"!h{count}I", count, *types)),
                _postgres_message(b"D", b"S", name), _postgres_message(b"S"))))
            found = _Prepared(name, count, answer.columns)
            old = self._remember((sql, types), found)
            if old:
                self._ask(_postgres_message(b"C", b"S", old.key) + _postgres_message(b"S"))
        return found

    def query(self, sql: str, values: list[Any]) -> Rows:
        """Parse and Describe once; then Bind, Execute and Sync in one go."""
        sent = [_postgres_value(value) for value in values]
        types = tuple(oid for oid, _, _ in sent)
        statement = self._prepared(sql, types)
        count, columns = len(sent), statement.columns
        formats = struct.pack(f"!h{count}hh", count, *(form for _, form, _ in sent), count)
        data = [b"\xff" * 4 if value is None else struct.pack("!i", len(value)) + value for _, _, value in sent]
        results = struct.pack(f"!h{len(columns)}h", len(columns), *(int(oid == _BYTEA) for oid in columns))
        try:
            answer = self._ask(b"".join((
                _postgres_message(b"B", b"\0", statement.key, formats, *data, results),
                _postgres_message(b"E", b"\0", bytes(4)), _postgres_message(b"S"))),
                [_POSTGRES_TYPES.get(oid, bytes.decode) for oid in columns])
        except DatabaseUnavailable as error:
            if error.state == "26000":
                del self._statements[sql, types]
            raise
        number = answer.tag.rpartition(" ")[2]
        return Rows(answer.rows, len(answer.rows) if columns else int(number) if number.isdigit() else 0)


def _cstring(text: str) -> bytes:
    return text.encode() + b"\0"


def _postgres_column(body: _Fields) -> int:
    """A field of RowDescription: its name and where it comes from (6 bytes) are skipped; the OID of its type."""
    body.until_nul()
    body.take(6)
    oid = struct.unpack("!I", body.take(4))[0]
    body.take(8)
    return oid


def _postgres_row(body: _Fields, decoders: Sequence[Callable[[bytes], Any]]) -> tuple[Any, ...]:
    if body.big(2) != len(decoders):
        raise ValueError("a row with other columns")
    sizes = (body.big(4) for _ in decoders)
    return tuple([None if size == -1 else decode(body.take(size)) for decode, size in zip(decoders, sizes)])


class _Scram:
    """The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding. The server proves, too, that
    it knows the password: what is in its place without that does not pass `verify`."""

    ITERATIONS = range(4096, 1_000_001)     # at least RFC 7677's; at most half a second

    def __init__(self, password: str, nonce: str = "") -> None:
        self._password, self._nonce = _prepared_password(password), nonce or secrets.token_urlsafe(18)
        self._user, self._proof = "", b""

    def first(self, user: str = "") -> bytes:
        """PostgreSQL takes the user from the startup message and ignores this one."""
        self._user = user
        return f"n,,n={user},r={self._nonce}".encode()

    def final(self, challenge: bytes) -> bytes:
        """The proof, for the server's salt, nonce and iteration count."""
        fields = dict(part.split("=", 1) for part in challenge.decode("ascii").split(","))
        nonce, rounds, salt = fields["r"], int(fields["i"]), base64.b64decode(fields["s"], validate=True)
        if not nonce.startswith(self._nonce) or nonce == self._nonce or rounds not in self.ITERATIONS or "m" in fields:
            raise ValueError("a challenge that is not for us")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, rounds)
        plain = f"c=biws,r={nonce}"
        signed = f"n={self._user},r={self._nonce},{challenge.decode()},{plain}".encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        self._proof = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        return f"{plain},p={base64.b64encode(_xor(key, signature)).decode()}".encode()

    def verify(self, outcome: bytes) -> None:
        """Raises unless the server knows the password, too."""
        if not hmac.compare_digest(outcome, b"v=" + base64.b64encode(self._proof)):
            raise DatabaseUnavailable("The database does not know the password that it asks for: it may be another's.")


def _xor(left: bytes, right: Iterable[int]) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right))


def _prepared_password(password: str) -> bytes:
    """SASLprep (RFC 4013); where that refuses a text, PostgreSQL uses it as it stands."""
    if password.isascii():
        return password.encode()
    import stringprep                       # tables of Unicode, for the few that need them
    import unicodedata
    mapped = (" " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char))
    text = unicodedata.normalize("NFKC", "".join(mapped))
    tables = (stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
              stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
              stringprep.in_table_c9)
    return (password if not text or any(table(char) for table in tables for char in text) else text).encode()


# ---- MySQL, MariaDB, TiDB (MySQL Internals, "Client/Server Protocol"; MariaDB's documents of the same)

_PACKET = 0xFFFFFF                          # what one packet carries at most; a full one is followed by another
_CLIENT_DATABASE, _CLIENT_SSL = 0x8, 0x800
# LONG_PASSWORD, FOUND_ROWS (an UPDATE counts what it matches, as elsewhere), LONG_FLAG, PROTOCOL_41, TRANSACTIONS,
# SECURE_CONNECTION, PLUGIN_AUTH, PLUGIN_AUTH_LENENC. Neither LOCAL_FILES nor MULTI_STATEMENTS nor DEPRECATE_EOF.
_CLIENT_FLAGS = 0x1 | 0x2 | 0x4 | 0x200 | 0x2000 | 0x8000 | 0x80000 | 0x200000
_UTF8MB4, _BINARY_CHARSET = 45, 63
# Numbers of the binary protocol: type -> (format, bytes). YEAR is a SHORT, INT24 a LONG.
_MYSQL_NUMBERS = {1: ("b", 1), 2: ("h", 2), 13: ("h", 2), 3: ("i", 4), 9: ("i", 4), 8: ("q", 8), 4: ("f", 4),
                  5: ("d", 8)}
_MYSQL_DATE, _MYSQL_TIME, _MYSQL_DATES = 10, 11, frozenset({7, 10, 12})         # TIMESTAMP, DATE, DATETIME
_MYSQL_TEXTS = frozenset({0, 7, 10, 11, 12, 245, 246})     # dates, decimals, JSON: whatever their character set says
_NO_PREPARED = "1295"                       # "not supported in the prepared statement protocol yet"


class _MySQL(Database):
    """A server that speaks MySQL's protocol: MySQL 5.7 or later, MariaDB, TiDB."""

    dialect = "mysql"

    def _connect(self) -> _DatabaseConnection:
        return _MySQLConnection(self._target)


class _Column(NamedTuple):
    """A column of a result: its type, whether it is bytes, whether it is unsigned."""

    type: int
    binary: bool
    unsigned: bool


class _MySQLConnection(_WireConnection):
    FAREWELL = b"\x01\0\0\0\x01"            # COM_QUIT

    # -- packets -----------------------------------------------------------------------------------------------

    def _send(self, payload: bytes) -> None:
        parts = []
        for start in range(0, len(payload) + 1, _PACKET):
            part = payload[start:start + _PACKET]
            parts += [struct.pack("<I", len(part))[:3], bytes((self._sequence,)), part]
            self._sequence = (self._sequence + 1) & 0xFF
        self._wire.send(b"".join(parts))

    def _packet(self) -> _Fields:
        """The next packet, joined from its parts. ERR is raised."""
        parts, size = [], _PACKET
        while size == _PACKET:
            head = self._wire.read(4)
            size = int.from_bytes(head[:3], "little")
            if head[3] != self._sequence:
                raise ValueError("a packet out of order")
            self._sequence = (self._sequence + 1) & 0xFF
            parts.append(self._wire.read(size))
        packet = _Fields(parts[0] if len(parts) == 1 else b"".join(parts))
        if packet.data[:1] == b"\xff":
            raise self._error(packet)
        return packet

    def _error(self, packet: _Fields) -> CallFSError:
        packet.take(1)
        number, text = packet.little(2), packet.rest()
        return self._said(str(number), text[6 if text[:1] == b"#" else 0:].decode("utf-8", "replace"))

    def _ask(self, payload: bytes, read: Callable[[_Fields], T]) -> T:
        """Send a command and `read` its answer; an ERR at any place of it leaves a usable connection."""
        self._sequence, refused = 0, None
        with self._exchange():
            self._send(payload)
            try:
                answer = read(self._packet())
            except CallFSError as error:    # out of an ERR packet
                if getattr(error, "lost", False):
                    raise
                refused = error
        if refused:
            raise refused
        return answer

    # -- logging in --------------------------------------------------------------------------------------------

    def _log_in(self) -> None:
        target = self._target
        flags, nonce, plugin = _read_greeting(self._packet())
        wanted = _CLIENT_FLAGS | (_CLIENT_DATABASE if target.database else 0)
        if target.tls != "disable" and not target.host.startswith("/"):
            if flags & _CLIENT_SSL:
                wanted |= _CLIENT_SSL
                self._send(_login_head(wanted))
                self._wire.encrypt(target)
            elif target.tls != "prefer":
                raise DatabaseUnavailable("The database does not speak TLS, which the configuration asks for.")
        if plugin not in _MYSQL_LOGINS:     # the server then asks for another one
            plugin = "caching_sha2_password"
        proof = _MYSQL_LOGINS[plugin](target.password.encode(), nonce)
        self._send(b"".join((_login_head(wanted), _cstring(target.user), bytes((len(proof),)), proof,
                             _cstring(target.database) if target.database else b"", _cstring(plugin))))
        self._authenticate(plugin, nonce)

    def _authenticate(self, plugin: str, nonce: bytes) -> None:
        """Until OK: AuthSwitchRequest (once), and what caching_sha2_password says in between."""
        switched = False
        while True:
            packet = self._packet()
            kind = packet.little(1)
            if kind == 0:
                return
            if kind == 0xFE and not switched:
                plugin, nonce, switched = packet.until_nul().decode(), packet.rest()[:20], True
                if plugin not in _MYSQL_LOGINS:
                    raise DatabaseUnavailable(f"The database wants a login by {_database_words(plugin)}, which is not "
                                              "supported; caching_sha2_password and mysql_native_password are.")
                self._send(_MYSQL_LOGINS[plugin](self._target.password.encode(), nonce))
            elif kind == 1 and plugin == "caching_sha2_password" and packet.data in (b"\1\3", b"\1\4"):
                if packet.data == b"\1\4":  # the server has no hash of the password at hand, and asks for itself
                    self._send_password(nonce)
            else:
                raise ValueError("no login")

    def _send_password(self, nonce: bytes) -> None:
        password = _cstring(self._target.password)
        if self._wire.encrypted or self._target.host.startswith("/"):
            return self._send(password)
        self._send(b"\2")                   # its public key, please
        packet = self._packet()
        if packet.little(1) != 1:
            raise ValueError("no public key")
        modulus, exponent = _read_rsa_key(packet.rest())
        self._send(_rsa_oaep(_xor(password, itertools.cycle(nonce)), modulus, exponent))

    def _set_up(self) -> None:
        wait = max(1, int(self._target.timeout / 2))            # a lock that is waited for ends before the socket does
        self.simple("SET NAMES utf8mb4")
        self.simple("SET autocommit = 0, sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), "
                    f"innodb_lock_wait_timeout = {wait}")

    # -- statements --------------------------------------------------------------------------------------------

    def simple(self, sql: str) -> str:
        """The text protocol; an error is raised, so what was asked for is done."""
        self._text(sql)
        return sql

    def _text(self, sql: str) -> Rows:
        return self._ask(b"\x03" + sql.encode(), functools.partial(self._result, row=_text_row))        # COM_QUERY

    def _result(self, packet: _Fields, row: Callable[[_Fields, list[_Column]], tuple[Any, ...]]) -> Rows:
        """OK, or a result set: column count, definitions, EOF, rows, EOF."""
        if packet.data[:1] == b"\0":
            packet.take(1)
            return Rows([], packet.lenenc())
        columns = self._columns(packet.lenenc())                # 0xFB, a request for a local file, is no length
        if not columns:
            raise ValueError("a result without columns")
        rows, packet = [], self._packet()
        while not _is_eof(packet):
            rows.append(row(packet, columns))
            packet = self._packet()
        return Rows(rows, len(rows))

    def _columns(self, count: int) -> list[_Column]:
        """`count` column definitions and the EOF behind them."""
        if count > 4096:                    # what a table, so a result, has at most
            raise ValueError("too many columns")
        columns = [_read_column(self._packet()) for _ in range(count)]
        if count and not _is_eof(self._packet()):
            raise ValueError("no end of the columns")
        return columns

    def _prepare(self, packet: _Fields) -> _Prepared:
        """COM_STMT_PREPARE_OK."""
        if packet.little(1):
            raise ValueError("not prepared")
        number, columns, params = packet.little(4), packet.little(2), packet.little(2)
        for _ in range(params):
            self._packet()
        if params and not _is_eof(self._packet()):
            raise ValueError("no end of the parameters")
        return _Prepared(struct.pack("<I", number), params, tuple(self._columns(columns)))

    def _prepared(self, sql: str) -> _Prepared:
        found = self._recall(sql)
        if found is None:
            found = self._ask(b"\x16" + sql.encode(), self._prepare)
            old = self._remember(sql, found)
            if old:
                self._forget(old)
        return found

    def _forget(self, old: _Prepared) -> None:
        self._sequence = 0
        with self._exchange():
            self._send(b"\x19" + old.key)   # COM_STMT_CLOSE, which has no answer

    def query(self, sql: str, values: list[Any]) -> Rows:
        """Prepared, with the binary protocol; the few statements that can not be are sent as text."""
        sent = [_mysql_value(value) for value in values]
        try:
            statement = self._prepared(sql)
        except DatabaseError as error:
            if error.state != _NO_PREPARED or values:
                raise
            return self._text(sql)
        if statement.params != len(values):
            raise DatabaseError(f"The statement has {statement.params} placeholders and {len(values)} values.")
        nulls = sum(1 << place for place, value in enumerate(values) if value is None)
        kinds, data = (b"".join(parts) for parts in zip((b"", b""), *((bytes((kind, 0)), data) for kind, data in sent)))
        bound = nulls.to_bytes((len(sent) + 7) // 8, "little") + b"\1" + kinds + data if sent else b""
        try:
            return self._ask(b"\x17" + statement.key + b"\0\1\0\0\0" + bound,           # COM_STMT_EXECUTE
                             functools.partial(self._result, row=_binary_row))
        except DatabaseUnavailable as error:
            if error.state == "1243":       # a proxy went to another server, which never saw the statement
                del self._statements[sql]
            raise


def _read_greeting(packet: _Fields) -> tuple[int, bytes, str]:
    """HandshakeV10: (capabilities, nonce, name of the login)."""
    if packet.little(1) != 10:
        raise ValueError("not version 10")
    packet.until_nul()                      # version of the server
    packet.take(4)
    nonce = packet.take(8)
    packet.take(1)
    flags = packet.little(2)
    packet.take(3)
    flags |= packet.little(2) << 16
    size = max(13, packet.little(1) - 8)
    packet.take(10)
    nonce += packet.take(size).rstrip(b"\0")
    if flags & _CLIENT_FLAGS & 0x88200 != 0x88200 or len(nonce) != 20:
        raise ValueError("a server older than 5.5")
    return flags, nonce, packet.rest().partition(b"\0")[0].decode("ascii")


def _login_head(flags: int) -> bytes:
    return struct.pack("<IIB23x", flags, 1 << 30, _UTF8MB4)


def _is_eof(packet: _Fields) -> bool:
    return packet.data[:1] == b"\xfe" and len(packet.data) < 9


def _read_column(packet: _Fields) -> _Column:
    """ColumnDefinition41."""
    for _ in range(6):                      # catalogue, database, table and name, as used and as defined
        packet.lenenc_bytes()
    packet.lenenc()
    charset, _, kind, flags = struct.unpack("<HIBH", packet.take(9))
    binary = charset == _BINARY_CHARSET and kind not in _MYSQL_TEXTS
    return _Column(kind, binary, bool(flags & 32))


def _mysql_value(value: Any) -> tuple[int, bytes]:
    """(type, bytes) of a parameter: NULL, TINY, LONGLONG, DOUBLE, BLOB (never converted), VAR_STRING (UTF-8)."""
    if value is None:
        return 6, b""
    if isinstance(value, bool):
        return 1, bytes((value,))
    if isinstance(value, int):
        return 8, struct.pack("<q", value)
    if isinstance(value, float):
        return 5, struct.pack("<d", value)
    data = value if isinstance(value, bytes) else value.encode()
    return 252 if isinstance(value, bytes) else 253, _lenenc(len(data)) + data


def _lenenc(size: int) -> bytes:
    if size < 0xFB:
        return bytes((size,))
    width, mark = (2, b"\xfc") if size < 1 << 16 else (3, b"\xfd") if size < 1 << 24 else (8, b"\xfe")
    return mark + size.to_bytes(width, "little")


def _text_row(packet: _Fields, columns: list[_Column]) -> tuple[Any, ...]:
    return tuple([_text_value(packet, column) for column in columns])


def _text_value(packet: _Fields, column: _Column) -> Any:
    if packet.data[packet.at:packet.at + 1] == b"\xfb":
        packet.take(1)
        return None
    data = packet.lenenc_bytes()
    if column.type in _MYSQL_NUMBERS:
        return float(data) if column.type in (4, 5) else int(data)
    return data if column.binary else data.decode()


def _binary_row(packet: _Fields, columns: list[_Column]) -> tuple[Any, ...]:
    if packet.little(1):
        raise ValueError("not a row")
    nulls = packet.little((len(columns) + 9) // 8) >> 2
    return tuple([None if nulls >> place & 1 else _binary_value(packet, column)
                  for place, column in enumerate(columns)])


def _binary_value(packet: _Fields, column: _Column) -> Any:
    if column.type in _MYSQL_NUMBERS:
        form, size = _MYSQL_NUMBERS[column.type]
        return struct.unpack("<" + (form.upper() if column.unsigned and form in "bhiq" else form), packet.take(size))[0]
    data = packet.lenenc_bytes()
    if column.type in _MYSQL_DATES:
        return _mysql_date(data, column.type == _MYSQL_DATE)
    if column.type == _MYSQL_TIME:
        return _mysql_time(data)
    return data if column.binary else data.decode()


def _mysql_date(data: bytes, only_day: bool) -> str:
    year, month, day, hour, minute, second, micro = struct.unpack("<HBBBBBI", data.ljust(11, b"\0"))
    clock = "" if only_day else f" {hour:02}:{minute:02}:{second:02}" + (f".{micro:06}" if len(data) > 7 else "")
    return f"{year:04}-{month:02}-{day:02}{clock}"


def _mysql_time(data: bytes) -> str:
    negative, days, hour, minute, second, micro = struct.unpack("<BIBBBI", data.ljust(12, b"\0"))
    clock = f"{'-' * bool(negative)}{days * 24 + hour:02}:{minute:02}:{second:02}"
    return clock + f".{micro:06}" if len(data) > 8 else clock


def _native_proof(password: bytes, nonce: bytes) -> bytes:
    """mysql_native_password: SHA1(password) XOR SHA1(nonce + SHA1(SHA1(password)))."""
    if not password:
        return b""
    once = hashlib.sha1(password).digest()
    return _xor(once, hashlib.sha1(nonce + hashlib.sha1(once).digest()).digest())


def _sha2_proof(password: bytes, nonce: bytes) -> bytes:
    """caching_sha2_password: SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce)."""
    if not password:
        return b""
    once = hashlib.sha256(password).digest()
    return _xor(once, hashlib.sha256(hashlib.sha256(once).digest() + nonce).digest())


_MYSQL_LOGINS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "caching_sha2_password": _sha2_proof, "mysql_native_password": _native_proof}


def _read_rsa_key(pem: bytes) -> tuple[int, int]:
    """(modulus, exponent) of a PEM SubjectPublicKeyInfo (RFC 5280, 4.1; RFC 8017, A.1.1). Raises ValueError."""
    found = re.search(rb"-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----", pem)
    if not found:
        raise ValueError("no public key")
    outer = _Fields(_der(_Fields(base64.b64decode(found[1])), 0x30))
    _der(outer, 0x30)                       # the algorithm; only RSA has this shape
    key = _Fields(_der(_Fields(_der(outer, 0x03)[1:]), 0x30))
    modulus, exponent = (int.from_bytes(_der(key, 0x02), "big") for _ in range(2))
    if not (1024 <= modulus.bit_length() <= 8192 and exponent % 2 and 1 < exponent < 1 << 64):
        raise ValueError("a key of no use")
    return modulus, exponent


def _der(fields: _Fields, tag: int) -> bytes:
    """The content of the next DER element, which must have this tag."""
    if fields.take(1)[0] != tag:
        raise ValueError("not the key's DER")
    size = fields.take(1)[0]
    return fields.take(int.from_bytes(fields.take(size & 0x7F), "big") if size & 0x80 else size)


def _rsa_oaep(message: bytes, modulus: int, exponent: int, seed: bytes = b"") -> bytes:
    """RSAES-OAEP with SHA-1 and no label (RFC 8017, 7.1.1), as MySQL has it."""
    size = (modulus.bit_length() + 7) // 8
    if len(message) > size - 42:
        raise DatabaseUnavailable("The password is too long for the database's public key; use TLS.")
    seed = seed or secrets.token_bytes(20)
    block = hashlib.sha1(b"").digest() + bytes(size - len(message) - 42) + b"\1" + message
    masked = _xor(block, _mask(seed, len(block)))
    padded = b"\0" + _xor(seed, _mask(masked, 20)) + masked
    return pow(int.from_bytes(padded, "big"), exponent, modulus).to_bytes(size, "big")


def _mask(seed: bytes, size: int) -> bytes:
    """MGF1 with SHA-1 (RFC 8017, B.2.1)."""
    blocks = (hashlib.sha1(seed + number.to_bytes(4, "big")).digest() for number in range(size // 20 + 1))
    return b"".join(blocks)[:size]


# ---- where the database is

_DIALECTS = {"sqlite": _SQLite, "postgres": _Postgres, "mysql": _MySQL, "tidb": _MySQL}
_PORTS = {"postgres": 5432, "mysql": 3306, "tidb": 4000}
_TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")          # of libpq
_GO_TLS = {"false": "disable", "preferred": "prefer", "skip-verify": "require", "true": "verify-full"}
_PLACE_KEYS = ("host", "port", "user", "password", "database")
_TLS_KEYS = ("enable_tls", "tls_server_name", "tls_skip_verify")
_DATABASE_KEYS = ("backend", "db_path", *_PLACE_KEYS, *_TLS_KEYS, "dsn", "pool_size", "connect_timeout", "timeout")
# `user:password@tcp(host:port)/database?parameters`: the last "@" and "/" count, as in go-sql-driver/mysql.
_GO_DSN = re.compile(r"(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?(?:(?P<net>tcp|unix)?(?:\((?P<address>[^()]*)\))?)"
                     r"/(?P<database>[^/?]*)(?:\?(?P<query>.*))?", re.S)
# Parameters of a DSN -> our name of it; "" changes nothing here: values come as they always do.
_POSTGRES_PARAMETERS = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database",
                        "sslmode": "tls", "sslrootcert": "tls_root", "connect_timeout": "connect_timeout",
                        "application_name": "application_name"}
_MYSQL_PARAMETERS = {"tls": "tls", "timeout": "connect_timeout", **dict.fromkeys((
    "charset", "collation", "parseTime", "loc", "interpolateParams", "allowNativePasswords", "clientFoundRows",
    "readTimeout", "writeTimeout", "maxAllowedPacket", "checkConnLiveness"), "")}
_LIBPQ_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\']|\\.)*)(?:\s+|\Z)", re.S)


@dataclass(frozen=True)
class _DatabaseTarget:
    """Where a database is and how to speak with it. A host that begins with "/" is the path of a unix socket."""

    backend: str
    path: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    tls: str = "disable"
    tls_server_name: str = ""
    tls_root: str = ""
    application_name: str = "callfs"
    pool_size: int = 8
    connect_timeout: float = 10.0
    timeout: float = 30.0

    @functools.cached_property
    def context(self) -> ssl.SSLContext:
        """For TLS as the mode says. libpq, "SSL Support": `require` with a root certificate checks the chain."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.tls == "verify-full"
        if not self.tls.startswith("verify") and not (self.tls == "require" and self.tls_root):
            context.verify_mode = ssl.CERT_NONE
        elif self.tls_root:
            context.load_verify_locations(self.tls_root)
        else:
            context.load_default_certs()
        return context


def open_database(options: Mapping[str, Any]) -> Database:
    """The database that plugin options name; nothing is connected yet. The caller closes it.

    `backend` is sqlite, postgres, mysql or tidb; then `db_path`, or `host`, `port`, `user`, `password`, `database`,
    `enable_tls`, `tls_server_name`, `tls_skip_verify`, or a `dsn` as PostgreSQL and Go's MySQL driver write it;
    `pool_size` (8), `connect_timeout` (10s; also the wait for a connection), `timeout` (30s a statement). Raises
    ConfigError, which never shows a value of `dsn` or `password`.
    """
    given = {key: value for key, value in options.items() if value is not None and value != ""}
    for key in given:
        if key not in _DATABASE_KEYS:
            raise ConfigError(f"{key}: no such option of a database{_nearest(key, _DATABASE_KEYS)}")
    backend = given.get("backend")
    if backend not in _DIALECTS:
        raise ConfigError(f"backend: must be one of {', '.join(_DIALECTS)}")
    target = _sqlite_target(given) if backend == "sqlite" else _server_target(backend, given)
    return _DIALECTS[backend](target)


def _database_option(given: Mapping[str, Any], key: str, read: Callable[[Any], Any] = _read_text,
                     default: Any = "") -> Any:
    try:
        return read(given[key]) if key in given else default
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None


def _database_limits(given: Mapping[str, Any]) -> dict[str, Any]:
    table = (("pool_size", _read_int, 8, 1000), ("connect_timeout", parse_duration, 10.0, 86400),
             ("timeout", parse_duration, 30.0, 86400))
    found = {key: _database_option(given, key, read, default) for key, read, default, _ in table}
    for key, _, _, most in table:
        if not 0 < found[key] <= most:
            raise ConfigError(f"{key}: must be above 0, and at most {most}")
    return found


def _sqlite_target(given: Mapping[str, Any]) -> _DatabaseTarget:
    for key in (*_PLACE_KEYS, *_TLS_KEYS, "dsn"):
        if given.get(key):
            raise ConfigError(f"{key}: SQLite has only a file, `db_path`")
    limits, path = _database_limits(given), _database_option(given, "db_path")
    if not path:
        raise ConfigError("db_path: SQLite needs the path of a file")
    if path == ":memory:":
        limits["pool_size"] = 1             # each connection would have a memory of its own
    return _DatabaseTarget("sqlite", path=path, **limits)


def _server_target(backend: str, given: Mapping[str, Any]) -> _DatabaseTarget:
    dialect = _DIALECTS[backend].dialect
    place = {key: _database_option(given, key, _read_int if key == "port" else _read_text)
             for key in _PLACE_KEYS if key in given}
    for key in ("db_path", *(place if "dsn" in given else ())):
        if key in given:
            raise ConfigError(f"{key}: does not go with {'`dsn`' if 'dsn' in given else backend}")
    limits = _database_limits(given)
    if "dsn" in given:
        place = _parse_dsn(dialect, _database_option(given, "dsn"))
    mode = _tls_mode(dialect, given, place.pop("tls", ""))
    target = _DatabaseTarget(backend, **{"port": _PORTS[backend], **limits, **place}, tls=mode,
                             tls_server_name=_database_option(given, "tls_server_name"))
    if not 0 < target.port < 65536:
        raise ConfigError("port: must be from 1 to 65535")
    if not target.user:
        raise ConfigError("user: a database server asks for a user")
    if target.host.startswith("/") and dialect == "postgres":
        target = dataclasses.replace(target, host=f"{target.host}/.s.PGSQL.{target.port}")
    try:
        target.context                      # made once for all connections, and a missing file is told now
    except OSError as error:
        raise ConfigError(f"sslrootcert: can not be read: {error.strerror or 'no certificate in it'}") from None
    return target


def _tls_mode(dialect: str, given: Mapping[str, Any], told: str) -> str:
    """What `enable_tls` and its like say together with the DSN's own setting."""
    enable, skip = (_database_option(given, key, _read_bool, None) for key in ("enable_tls", "tls_skip_verify"))
    if not enable and (skip or "tls_server_name" in given) and (enable is False or told in ("", "disable")):
        raise ConfigError(f"{'tls_skip_verify' if skip else 'tls_server_name'}: means something only with `enable_tls`")
    wanted = "" if enable is None else "disable" if not enable else "require" if skip else "verify-full"
    if told == "custom" and not enable:
        raise ConfigError("dsn: `tls` names a configuration of a Go program; set `enable_tls`")
    if wanted and told not in ("", "custom", wanted):
        raise ConfigError("enable_tls: `dsn` says something else about TLS")
    return wanted or told or ("prefer" if dialect == "postgres" else "disable")


def _parse_dsn(dialect: str, dsn: str) -> dict[str, Any]:
    """Fields of a target. Raises ConfigError."""
    scheme = dsn.partition("://")[0] if "://" in dsn.partition("@")[0] else ""
    if scheme not in {"postgres": ("", "postgres", "postgresql"), "mysql": ("", "mysql", "tidb")}[dialect]:
        raise ConfigError("dsn: does not fit `backend`")
    try:
        parse = _parse_url if scheme else _parse_go_dsn if dialect == "mysql" else _parse_pairs
        found, query = parse(dsn)
        found = {key: value for key, value in found.items() if value}
        for key, value in query:
            name, setting = _dsn_parameter(dialect, key, value)
            if name and found.setdefault(name, setting) != setting:
                raise ConfigError(f"dsn: says `{key}` twice")
    except (ValueError, IndexError):        # their texts may hold a part of the password
        raise ConfigError("dsn: can not be read; is a character of the password not escaped?") from None
    if any("\0" in value for value in found.values() if isinstance(value, str)):
        raise ConfigError("dsn: must not hold a NUL character")
    return found


def _parse_url(dsn: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    parts = urllib.parse.urlsplit(dsn)
    if parts.fragment or "," in parts.netloc.rpartition("@")[2]:
        raise ValueError("several hosts, or a bare #")
    texts = {"host": parts.hostname, "user": parts.username, "password": parts.password, "database": parts.path[1:]}
    place = {key: urllib.parse.unquote(value or "", errors="strict") for key, value in texts.items()}
    return {**place, "port": parts.port}, _parse_dsn_query(parts.query)


def _parse_go_dsn(dsn: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    found = _GO_DSN.fullmatch(dsn)
    if not found:
        raise ValueError("not a DSN")
    parts = urllib.parse.urlsplit("//" + (found["address"] or ""))
    place = {"host": found["address"] if found["net"] == "unix" else parts.hostname,
             "port": None if found["net"] == "unix" else parts.port,
             **{key: found[key] for key in ("user", "password", "database")}}
    return place, _parse_dsn_query(found["query"] or "")


def _parse_dsn_query(query: str) -> list[tuple[str, str]]:
    return urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")


def _parse_pairs(text: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """`host=... password='it\\'s'` (libpq, "Keyword/Value Connection Strings")."""
    found, at = [], 0
    while at < len(text):
        match = _LIBPQ_PAIR.match(text, at)
        if not match:
            raise ValueError("not key=value")
        value = match[2][1:-1] if match[2][:1] == "'" else match[2]
        found.append((match[1], re.sub(r"\\(.)", r"\1", value, flags=re.S)))
        at = match.end()
    return {}, found


def _dsn_parameter(dialect: str, key: str, value: str) -> tuple[str, Any]:
    """(name of the target's field, value); "" for what changes nothing here."""
    known = _POSTGRES_PARAMETERS if dialect == "postgres" else _MYSQL_PARAMETERS
    if key not in known or key == "charset" and "utf8" not in value:
        raise ConfigError(f"dsn: {_database_words(key)}: no such parameter, or not with this value"
                          + _nearest(key, known))
    name = known[key]
    if name == "tls" and dialect == "mysql":
        return name, _GO_TLS.get(value.lower(), "custom")
    if name == "tls" and value not in _TLS_MODES:
        raise ConfigError(f"dsn: sslmode: must be one of {', '.join(_TLS_MODES)}")
    if name == "connect_timeout":           # 0 means none there: a day then
        return name, min(parse_duration(value), 86400.0) or 86400.0
    return name, _read_int(value) if name == "port" else value


# ============================================================================
# HTTP client: connections, retries, bodies
# ============================================================================

CLIENT_POOL = 16                        # idle connections that a client keeps; the one used last is used next
MAX_RETRY_WAIT = 30.0                   # seconds; a server that asks for a longer wait has its error reported instead
MAX_ANSWER = 16 << 20                   # bytes of one JSON answer: a page of the longest paths has 5 MB
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})                            # RFC 9110, 9.2.2
_LATER = frozenset({429, 503})

Upload = Union[bytes, bytearray, memoryview, "os.PathLike[str]", BinaryIO, Iterable[bytes]]
ByteProgress = Callable[[int, Optional[int]], None]     # (bytes done, bytes in all or None)


def _error_kinds(kind: type[CallFSError] = CallFSError) -> Iterator[type[CallFSError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _error_kinds(below)


# From an answer back to the class that the server raised. Only a class with a code of its own stands for it; a status
# alone (an answer to HEAD has no body, one of a proxy no code) means the most general class that has it.
_NAMED_KINDS = [kind for kind in _error_kinds() if "code" in vars(kind)]
_KIND_OF_CODE = {**{kind.code: kind for kind in _NAMED_KINDS}, "BAD_REQUEST": BadRequest}
_KIND_OF_STATUS = {**{kind.status: kind for kind in reversed(_NAMED_KINDS)},
                   400: BadRequest, 404: FileNotFound, 500: CallFSError}


def error_of_answer(status: int, headers: Mapping[str, str], body: bytes) -> CallFSError:
    """The error that an HTTP answer tells of; `details` holds the other fields of its JSON, and `request_id`."""
    try:
        told = json.loads(body)
        code, message = str(told.pop("code")), str(told.pop("message"))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        told, code, message = {}, "", ""
    kind = _KIND_OF_CODE.get(code) or _KIND_OF_STATUS.get(status, CallFSError)
    if not message and status not in _KIND_OF_STATUS:
        message = f"The server answered {status}."
    error = _error_as(kind, status, message, headers.items())
    error.details = {**told, "request_id": headers.get("X-Request-ID") or ""}
    return error


def _error_as(kind: type[CallFSError], status: int, message: str, headers: Iterable[tuple[str, str]]) -> CallFSError:
    # Not `kind(message)`: some classes take other arguments, which are not known here.
    error: CallFSError = CallFSError.__new__(kind)
    CallFSError.__init__(error, message, headers=list(headers))
    error.status = status
    return error


class _Source:
    """A body to send. `length` is None where nobody knows it; where `replayable`, `blocks` may be asked for again."""

    def __init__(self, source: Upload, length: Optional[int] = None) -> None:
        if isinstance(source, str):
            raise TypeError("a source is bytes, a pathlib.Path, a binary file or an iterable of bytes")
        self._owned = isinstance(source, os.PathLike)
        self._source: Any = open(source, "rb") if isinstance(source, os.PathLike) else source
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._source = io.BytesIO(source)
        self.replayable = self._seekable = hasattr(self._source, "read") and self._source.seekable()
        self._start = self._source.tell() if self.replayable else 0
        self.length: Optional[int] = self._source.seek(0, os.SEEK_END) - self._start if self.replayable else length

    def blocks(self) -> Iterator[bytes]:
        """The bytes, in blocks that are never empty. OSError and StorageError are of this side."""
        if self._seekable:
            yield from self._counted(self.length or 0)
            return
        read = getattr(self._source, "read1", None) or getattr(self._source, "read", None)   # a pipe: what is there
        pieces = iter(lambda: read(BLOCK), b"") if read else filter(None, self._source)      # an empty chunk is the end
        yield from pieces if self.length is None else self._announced(pieces, self.length)

    @staticmethod
    def _announced(pieces: Iterable[bytes], left: int) -> Iterator[bytes]:
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                break
            yield piece
        if left:
            raise StorageError("The source has not the length that was announced.")

    def _counted(self, left: int) -> Iterator[bytes]:
        self._source.seek(self._start)
        while left:
            block = self._source.read(min(BLOCK, left))
            if not block:
                raise StorageError("The source became shorter while it was sent.")
            left -= len(block)
            yield block

    def digest(self) -> str:
        """The `Content-Digest` of a replayable source (RFC 9530)."""
        hasher = hashlib.sha256()
        for block in self.blocks():
            hasher.update(block)
        return f"sha-256=:{base64.b64encode(hasher.digest()).decode()}:"

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._owned:
            self._source.close()


class _Call(NamedTuple):
    """One request, as often as it has to be sent."""

    method: str
    target: str
    headers: Mapping[str, str] = MappingProxyType({})
    body: Optional[_Source] = None
    stream: bool = False                # the caller reads the answer's body, and closes it
    accept: tuple[int, ...] = ()        # statuses from 300 on that are answers all the same
    idempotent: Optional[bool] = None   # where that is not as its method says; False: not to be sent twice, ever
    progress: Optional[ByteProgress] = None
    patience: float = 0.0               # seconds that the server may think longer than usual
    limit: int = MAX_ANSWER             # bytes of an answer that is taken in whole

    @property
    def repeatable(self) -> bool:
        """Whether to send it twice is the same as once. Under If-Match the second PUT would be refused (412)."""
        guarded = self.method != "GET" and "If-Match" in self.headers
        return self.method in _IDEMPOTENT and not guarded if self.idempotent is None else self.idempotent

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent again."""
        return self.body is None or self.body.replayable


class _Broken(Exception):
    """A connection failed after it was made."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        # It ended, as opposed to: the server is slow (and may be busy with the request), or answers nonsense.
        self.cut = isinstance(error, (ConnectionError, ssl.SSLEOFError, http.client.IncompleteRead))
        self.unanswered = isinstance(error, (ConnectionError, ssl.SSLEOFError))
        self.reason = _reason(error)


class _Again(Exception):
    """A request that may be sent again: at once (`pause` None), or after a pause of `asked` seconds, if it says."""

    def __init__(self, error: CallFSError, at_once: bool = False, asked: Optional[float] = None) -> None:
        super().__init__(error)
        self.error, self.at_once, self.asked = error, at_once, asked


def _reason(error: Exception) -> str:
    text = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
    return text or type(error).__name__


@contextlib.contextmanager
def _wire_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(error) from None


class _Unread(io.RawIOBase):
    """A socket after a byte of the answer was taken from it."""

    def __init__(self, first: bytes, sock: socket.socket) -> None:
        self._first, self._raw = first, sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        if not self._first:
            return self._raw.readinto(buffer)
        buffer[:1], self._first = self._first, b""
        return 1

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Lines(io.BufferedReader):
    """What http.client reads an answer from. To it a head that is cut off is a shorter head; here it is an error."""

    _begun = False

    def makefile(self, mode: str) -> _Lines:
        """Itself: HTTPResponse takes a socket, and calls this, no more."""
        return self

    def readline(self, size: Optional[int] = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size and (line or self._begun):
            raise http.client.IncompleteRead(line)
        self._begun = True
        return line


class _UnixConnection(http.client.HTTPConnection):
    """HTTP through a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Wire:
    """One connection. `reused`: an answer came through it before; `clean`: another request may follow."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection, self.reused, self.clean, self._first = connection, False, True, b""
        self.timeout, self.sock = connection.timeout, None      # type: Optional[float], Optional[socket.socket]
        connection.response_class = self._response      # type: ignore[assignment]

    def _response(self, sock: Any, *rest: Any, **named: Any) -> http.client.HTTPResponse:
        first, self._first, self.sock = self._first, b"", sock
        lines: Any = _Lines(_Unread(first, sock) if first else sock.makefile("rb", buffering=0), BLOCK // 4)
        return http.client.HTTPResponse(lines, *rest, **named)

    def spoke(self) -> bool:
        """Whether the server has sent something, or ended the connection. Does not wait.

        Takes a byte for that: a TLS connection becomes readable by what is no answer (session tickets), and a peek is
        not to be had there.
        """
        sock = self.connection.sock
        sock.settimeout(0)
        try:
            self._first = sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            sock.settimeout(self.connection.timeout)
        return True

    def wait(self, seconds: Optional[float]) -> None:
        """Set how long each wait on the network may take (None: for ever)."""
        self.connection.timeout = seconds
        sock = self.connection.sock or self.sock        # http.client forgets the socket of a last answer
        if sock is not None:
            sock.settimeout(seconds)

    def stale(self) -> bool:
        """Whether the server has given up this idle connection."""
        try:
            return self.spoke()
        except OSError:
            return True

    def exchange(self, call: _Call) -> http.client.HTTPResponse:
        """Send a request; its answer, with the body still to be read. Raises _Broken, and what the source raises."""
        with _wire_errors():
            self.wait((self.timeout or 0) + call.patience)
            self.connection.putrequest(call.method, call.target)
            for name, value in call.headers.items():
                self.connection.putheader(name, value)
            self.connection.endheaders()
        if call.body is not None:
            self.clean = self._send_body(call.body, call.progress)
        with _wire_errors():
            return self.connection.getresponse()

    def _send_body(self, body: _Source, progress: Optional[ByteProgress]) -> bool:
        """False where the server answered before all was sent: what it says (413, 403, 507) is the answer then."""
        sent = 0
        for block in body.blocks():
            if not self._push(block if body.length is not None else b"%x\r\n%b\r\n" % (len(block), block)):
                return False
            sent += len(block)
            if progress:
                progress(sent, body.length)
        return body.length is not None or self._push(b"0\r\n\r\n")

    def _push(self, data: bytes) -> bool:
        with _wire_errors():
            if self.spoke():
                return False
            try:
                self.connection.send(data)
            except OSError:             # the server closed; its answer may have come before that
                if not self.spoke():
                    raise
                return False
        return True

    def close(self) -> None:
        """End the connection."""
        self.connection.close()


class _Reply:
    """Status, headers and body of an answer. Whoever asked for a stream closes it; else `data` has the body."""

    def __init__(self, wire: _Wire, response: http.client.HTTPResponse, release: Callable[[_Wire], None]) -> None:
        self.wire, self.response, self._release = wire, response, release
        self.status, self.data, self._closed = response.status, b"", False
        self.headers: Any = response.headers    # by name in any case; None for what is not there

    def read_all(self, limit: int = MAX_ANSWER) -> None:
        """Take the whole body in. Raises _Broken, and BadGateway for a body that no callfs server sends."""
        found, response = bytearray(), self.response
        with _wire_errors():
            block = response.read(BLOCK // 4)
            while block and len(found) <= limit:
                found += block
                block = response.read(BLOCK // 4)
            if block:
                raise BadGateway(f"The answer has more than {limit} bytes.")
            if response.length:         # http.client takes a cut body for a short one when it is read in parts
                raise http.client.IncompleteRead(bytes(found), response.length)
        self.data = bytes(found)

    def close(self) -> None:
        """Give the connection back when the answer was read to its end, else end it. Safe to call twice."""
        if self._closed:                # given back; somebody else may use it by now
            return
        self._closed, response = True, self.response
        if response.isclosed() and not response.will_close and self.wire.clean:
            return self._release(self.wire)
        response.close()
        self.wire.close()


def _pause(attempt: int, asked: Optional[float] = None) -> float:
    """Seconds to wait. With jitter: clients that were sent away together shall not come back together."""
    return min(0.1 * 2 ** attempt if asked is None else asked, MAX_RETRY_WAIT) * (1 + random.random() / 4)


def _retry_after(headers: Mapping[str, str]) -> Optional[float]:
    """What `Retry-After` asks for: seconds, or a date (RFC 9110, 10.2.3)."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isdecimal():
        return float(text[:9])
    moment = parse_http_date(text) if text else None
    return None if moment is None else max(0.0, moment - time.time())


def _target(route: str, path: str, **query: object) -> str:
    """A request target; every name works, as every byte that could mean something is percent-encoded."""
    given = {name: "true" if value is True else value for name, value in query.items()
             if value is not None and value is not False and value != ""}
    try:
        return route + urllib.parse.quote(path.lstrip("/")) + ("?" + urllib.parse.urlencode(given) if given else "")
    except UnicodeEncodeError:
        raise BadRequest("The path is not UTF-8.") from None


@contextlib.contextmanager
def _foreign(url: str) -> Iterator[None]:
    """What goes wrong when somebody else's answer is taken for a callfs server's."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadGateway(f"{url} does not answer as a callfs server does.") from None


class _Address(NamedTuple):
    """Where a server is: `dial` makes a connection to it, not yet opened."""

    url: str                            # without the key, for messages
    prefix: str
    key: str
    dial: Callable[[], http.client.HTTPConnection]


def _server_address(url: str, timeout: float, ca_file: str, verify: bool) -> _Address:
    """Raises ConfigError; messages never hold what may be a key."""
    try:
        unix = url.startswith("unix:/")
        parts = urllib.parse.urlsplit("http+unix://" + urllib.parse.quote(url[5:], safe="") if unix else url)
        host, port, key = parts.hostname or "", parts.port, urllib.parse.unquote(parts.password or "")
    except ValueError:
        raise ConfigError("a server's URL can not be read") from None
    if parts.scheme not in ("http", "https", "http+unix") or not host or parts.query or parts.fragment:
        raise ConfigError("a server's URL is http://HOST[:PORT][/PREFIX], https://... or unix:/PATH")
    prefix = urllib.parse.quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
    where = parts.netloc.rpartition("@")[2]
    if parts.scheme == "http+unix":     # not `hostname`, which is lower-case
        path = urllib.parse.unquote(where)
        return _Address("unix:" + path, prefix, key, lambda: _UnixConnection(path, timeout))
    shown = f"{parts.scheme}://{where}{prefix}"
    if parts.scheme == "http":
        return _Address(shown, prefix, key, lambda: http.client.HTTPConnection(host, port, timeout=timeout))
    context = _client_tls(ca_file, verify)
    return _Address(shown, prefix, key,
                    lambda: http.client.HTTPSConnection(host, port, timeout=timeout, context=context))


def _client_tls(ca_file: str, verify: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"{ca_file}: no certificates to trust there: {_reason(error)}") from None
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


_Self = TypeVar("_Self", bound="HTTPClient")


class HTTPClient:
    """One server over HTTP, whatever the dialect: connections, repeats, errors. Any number of threads may use it.

    Sent again by itself, at most `retries` times: whatever found no server, what was answered 429, what was answered
    503 and does the same when it is done twice. A connection that breaks is replaced once: for what does the same when
    done twice, and for what went unanswered on a connection that had been idle, as a server closes those when it likes.
    What must not be done twice (`_Call.idempotent` False) is sent once.
    """

    def __init__(self, url: str, key: str = "", *, timeout: float = 30.0, retries: int = 4, ca_file: str = "",
                 verify: bool = True) -> None:
        self._address = _server_address(url, timeout, ca_file, verify)
        self.url, self.retries, self.sleep = self._address.url, retries, time.sleep
        key = key or self._address.key
        if not re.fullmatch("[!-~]*", key):
            raise ConfigError("a key has printable ASCII characters only, and no spaces")
        self._authorization = {"Authorization": "Bearer " + key} if key else {}
        self._lock, self._idle, self._closed = threading.Lock(), [], False      # type: ignore[var-annotated]

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the idle connections; those in use end when they are through. Safe to call twice."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for wire in idle:
            wire.close()

    # ---- connections and requests

    def _take(self) -> _Wire:
        while True:
            with self._lock:
                wire = self._idle.pop() if self._idle else None
            if wire is None:
                return self._connect()
            if not wire.stale():
                wire.reused = True
                return wire
            wire.close()

    def _connect(self) -> _Wire:
        wire = _Wire(self._address.dial())
        try:
            wire.connection.connect()
        except OSError as failure:
            wire.close()
            error = self._unreachable(failure)
            if isinstance(failure, ConnectionError):    # a server that restarts; a wrong name stays wrong
                raise _Again(error) from None
            raise error from None
        return wire

    def _unreachable(self, failure: OSError) -> CallFSError:
        return Unavailable(f"cannot reach {self.url}: {_reason(failure)}")

    def _release(self, wire: _Wire) -> None:
        with self._lock:
            keep = not self._closed and len(self._idle) < CLIENT_POOL
            if keep:
                self._idle.append(wire)
        if not keep:
            wire.close()

    def _call(self, method: str, target: str, headers: Mapping[str, str] = MappingProxyType({}), *,
              body: Optional[_Source] = None, **more: Any) -> _Reply:
        """The answer to a request, sent as often as the class says. Raises CallFSError for a status that says so."""
        framing = {"Content-Length": "0"} if method in ("POST", "PUT", "PATCH") else {}
        if body is not None:
            framing = {"Transfer-Encoding": "chunked"} if body.length is None else {"Content-Length": str(body.length)}
        call = _Call(method, self._address.prefix + target, {**self._authorization, **headers, **framing}, body, **more)
        broke, attempt = False, 0
        while True:
            try:
                return self._once(call)
            except _Again as again:
                if broke and again.at_once or attempt >= self.retries and not again.at_once:
                    raise again.error from None
                broke = broke or again.at_once
                if not again.at_once:
                    self.sleep(_pause(attempt, again.asked))
                    attempt += 1

    def _once(self, call: _Call) -> _Reply:
        wire = self._take()
        try:
            answer = _Reply(wire, wire.exchange(call), self._release)
            failed = answer.status >= 300 and answer.status not in call.accept
            if failed or not call.stream:
                answer.read_all(call.limit)
        except _Broken as broken:
            wire.close()
            raise self._trouble(call, wire, broken) from None
        except BaseException:
            wire.close()
            raise
        if failed or not call.stream:
            answer.close()
        if failed:
            raise self._refusal(call, answer)
        return answer

    def _trouble(self, call: _Call, wire: _Wire, broken: _Broken) -> Exception:
        if call.repeatable:
            error = Unavailable(f"cannot reach {self.url}: {broken.reason}")
        else:
            error = Unavailable(f"no answer from {self.url}: {broken.reason}; it may or may not have been done")
        again = broken.cut and call.repeatable or broken.unanswered and wire.reused and call.idempotent is not False
        return _Again(error, at_once=True) if again and call.replayable else error

    def _refusal(self, call: _Call, answer: _Reply) -> Exception:
        error = self._error_of(answer.status, answer.headers, answer.data)
        # 503 may come after a part of the work was done (a leader that was lost), 429 comes before any of it.
        again = answer.status in _LATER and call.replayable and (answer.status == 429 or call.repeatable)
        asked = _retry_after(answer.headers)
        return _Again(error, asked=asked) if again and (asked or 0) <= MAX_RETRY_WAIT else error

    def _error_of(self, status: int, headers: Mapping[str, str], body: bytes) -> CallFSError:
        """What an answer that is an error means in this dialect."""
        return error_of_answer(status, headers, body)

    def _json(self, method: str, target: str, value: Optional[Mapping[str, Any]] = None, **more: Any) -> Any:
        headers, body = {}, None
        if value is not None:
            headers, body = {"Content-Type": "application/json"}, _Source(json.dumps(value).encode())
        answer = self._call(method, target, headers, body=body, **more)
        with _foreign(self.url):
            return json.loads(answer.data)

# ============================================================================
# PFS client: /api/v1 from Python
# ============================================================================

MAX_PFS_LISTING = 256 << 20             # bytes of one listing: the dialect has no pages; a million names have 200 MB
_PFS_ROOT = "/api/v1"
_PFS_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?(?:[Zz]|([+-]\d\d:\d\d))?")


class RemoteInfo(NamedTuple):
    """What a PFS server says of a file: `size` in bytes (-1: it does not say), `mode` its permission bits, `meta` with
    `Name` (the filesystem), `Type` and `Content` as far as the server tells them."""

    name: str
    size: int = 0
    mode: int = 0o644
    mtime_ns: int = 0
    is_dir: bool = False
    meta: Mapping[str, Any] = MappingProxyType({})


def pfs_time_ns(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time with any fraction and zone; 0 before that (Go's zero is year 1)."""
    match = _PFS_TIME.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time")
    day, clock, fraction, zone = match.groups()
    moment = datetime.datetime.fromisoformat(f"{day}T{clock}{zone or '+00:00'}")
    seconds = (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(seconds=1)
    return max(0, seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0")))


def _remote_info(item: Mapping[str, Any]) -> RemoteInfo:
    meta, size = item.get("meta") or {}, item.get("size")
    return RemoteInfo(str(item["name"]), -1 if size is None else int(size), int(item.get("mode") or 0) & 0o7777,
                      pfs_time_ns(item.get("modTime") or "1970-01-01T00:00:00Z"), bool(item.get("isDir")), dict(meta))


# The reference answers 500, or 400, for nearly all that goes wrong; then its words have to tell what it was.
_PFS_WORDS: tuple[tuple[str, type[CallFSError]], ...] = (
    ("not empty", DirectoryNotEmpty), ("already exist", FileExists), ("already there", FileExists),
    ("already mounted", Conflict), ("not found", FileNotFound), ("no such file", FileNotFound),
    ("does not exist", FileNotFound), ("permission denied", PermissionDenied), ("read-only", PermissionDenied),
    ("write-only", PermissionDenied), ("not supported", NotSupported), ("unsupported", NotSupported),
    ("not implemented", NotSupported), ("not a directory", Conflict), ("is a directory", Conflict),
)
_PFS_VAGUE = frozenset({400, 409, 500})     # statuses whose class the words may refine


def error_of_pfs_answer(status: int, headers: Mapping[str, str], body: bytes) -> CallFSError:
    """The error that an answer of /api/v1 tells of: its class by `code`, status or words, its message the `error`."""
    try:
        told = json.loads(body)
        code, text = str(told.get("code", "")), str(told.get("error") or told.get("message") or "")
    except (ValueError, AttributeError, RecursionError):
        code, text = "", body[:500].decode("utf-8", "replace").strip()
    text = "".join(each if each.isprintable() else " " for each in text)[:2000]
    if status < 400:
        return BadGateway("The server sends its callers elsewhere (a redirect); give its right URL.")
    kind = _KIND_OF_CODE.get(code) or _KIND_OF_STATUS.get(status, CallFSError)
    if not code and status in _PFS_VAGUE:
        kind = next((named for words, named in _PFS_WORDS if words in text.lower()), kind)
        status = kind.status if kind is not CallFSError else status
    again = [("Retry-After", headers["Retry-After"])] if headers.get("Retry-After") else []
    return _error_as(kind, status, text or f"The server answered {status}.", again)


class RemoteReader(Reader):
    """The bytes of an answer as they come; `read` gives what has arrived and waits only for the first byte.

    Raises BadGateway when they end too early. `close` may be called while another thread reads: that read ends.
    """

    def __init__(self, url: str, reply: _Reply) -> None:
        self._url, self._reply, self._over = url, reply, False
        self.length = reply.response.length

    def read(self, size: int = BLOCK) -> bytes:
        """As the base says."""
        response, reason = self._reply.response, "the answer ended early"
        if self._over:
            return b""
        try:
            with _wire_errors():
                # read1 of an answer that is not in chunks forgets to count in Python 3.9
                block = response.read1(size) if response.chunked else response.read(size)
            if block or not response.length:
                return block
        except _Broken as broken:
            reason = broken.reason
        except (ValueError, AttributeError):            # closed by another thread just now
            reason = "it was closed"
        if self._over:
            return b""
        raise BadGateway(f"{self._url} broke off: {reason}")

    def close(self) -> None:
        """End the connection unless all was read; then it serves again."""
        over, self._over = self._over, True
        sock = self._reply.wire.sock
        if not over and not self._reply.response.isclosed() and sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)      # below TLS, whose own would wait for the reader
        self._reply.close()


def _body_blocks(body: Body) -> Iterator[bytes]:
    view = memoryview(bytearray(BLOCK))
    for count in iter(lambda: body.readinto(view), 0):
        yield bytes(view[:count])


class PFSClient(HTTPClient):
    """A server that speaks the PFS dialect, this one or the reference. Threads may share it; `close` it, or use `with`.

    `url` is http(s)://[user:key@]HOST[:PORT][/PREFIX][/api/v1]. `timeout` is for each wait on the network, in seconds.
    `headers` go with every request; a function is asked anew for each. Errors are of the class that fits the answer,
    with the server's words; Unavailable says that the server can not be reached, BadGateway that it answers nonsense.
    Nothing that changes or may consume is sent twice: not even reading, which takes messages out of a queue.
    """

    def __init__(self, url: str, key: str = "", *, timeout: float = 30.0,
                 headers: Union[Mapping[str, str], Callable[[], Mapping[str, str]]] = MappingProxyType({}),
                 ca_file: str = "", verify: bool = True) -> None:
        super().__init__(url, key, timeout=timeout, retries=0, ca_file=ca_file, verify=verify)
        prefix = self._address.prefix
        if not prefix.endswith(_PFS_ROOT):
            self._address = self._address._replace(prefix=prefix + _PFS_ROOT)
        self._headers = headers

    def _unreachable(self, failure: OSError) -> CallFSError:
        if isinstance(failure, ConnectionRefusedError):
            where = self.url.partition("://")[2].partition("/")[0] or self.url
            return Unavailable(f"Connection refused - server not running at {where}")
        return super()._unreachable(failure)

    def _error_of(self, status: int, headers: Mapping[str, str], body: bytes) -> CallFSError:
        return error_of_pfs_answer(status, headers, body)

    def _call(self, method: str, target: str, headers: Mapping[str, str] = MappingProxyType({}), **more: Any) -> _Reply:
        given = self._headers() if callable(self._headers) else self._headers
        return super()._call(method, target, {**given, **headers}, **more)

    @staticmethod
    def _at(route: str, path: str = "", **query: object) -> str:
        given = {**({"path": "/" + path.lstrip("/")} if path else {}), **query}
        try:
            told = {name: "true" if value is True else value for name, value in given.items() if value is not False}
            return route + ("?" + urllib.parse.urlencode(told) if told else "")
        except UnicodeEncodeError:
            raise BadRequest("The path is not UTF-8.") from None

    def _look(self, method: str, target: str, value: Optional[Mapping[str, Any]] = None, **more: Any) -> Any:
        """The JSON of a question, which may be asked twice."""
        return self._json(method, target, value, idempotent=True, **more)

    def _do(self, method: str, target: str, value: Optional[Mapping[str, Any]] = None, **more: Any) -> dict[str, Any]:
        """The JSON object that a change is answered with; a change is sent once."""
        answer = self._json(method, target, value, idempotent=False, **more)
        return answer if isinstance(answer, dict) else {}

    # ---- files

    def stat(self, path: str) -> RemoteInfo:
        """What is at a path. Raises FileNotFound."""
        item = self._look("GET", self._at("/stat", path or "/"))
        with _foreign(self.url):
            return _remote_info(item)

    def list(self, path: str) -> list[RemoteInfo]:
        """What is in a directory, in the server's order. Raises FileNotFound."""
        answer = self._look("GET", self._at("/directories", path or "/"), limit=MAX_PFS_LISTING)
        with _foreign(self.url):
            return [_remote_info(item) for item in answer["files"] or ()]

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        """The bytes of a file, all of them in memory; past its end none."""
        with self.open(path, offset, size) as reader:
            return b"".join(reader)

    def open(self, path: str, offset: int = 0, size: int = -1, stream: bool = False,
             query: Mapping[str, str] = MappingProxyType({}), patience: float = 0.0) -> Reader:
        """The bytes of a file in bounded memory; the caller closes the reader. Of a `stream` they come as they are
        written, with no time-out between them. `query` has what the file itself understands (`wait`, `ack`); the server
        may think `patience` seconds longer than usual before it answers."""
        part = {**({"offset": offset} if offset else {}), **({"size": size} if size >= 0 else {})}
        reply = self._call("GET", self._at("/files", path, **{**query, **part}, stream=stream), stream=True,
                           idempotent=False, patience=patience)
        if stream:
            reply.wire.wait(None)
        return RemoteReader(self.url, reply)

    def write(self, path: str, source: Union[Upload, Body]) -> str:
        """Replace a file by bytes, a Body, an open binary file or blocks; the server's message (a queue: an id).

        Each block is sent as it comes; without a known length in chunks.
        """
        body = _Source(_body_blocks(source), source.length) if isinstance(source, Body) else _Source(source)
        with body:
            reply = self._call("PUT", self._at("/files", path), body=body, idempotent=False)
        with _foreign(self.url):
            return str(json.loads(reply.data).get("message", "")) if reply.data.strip() else ""

    def create(self, path: str) -> None:
        """Make an empty file. Raises FileExists."""
        self._do("POST", self._at("/files", path))

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make a directory. Raises FileExists."""
        self._do("POST", self._at("/directories", path, mode=f"{mode:o}"))

    def remove(self, path: str, recursive: bool = False) -> None:
        """Remove a file or directory. Raises FileNotFound, DirectoryNotEmpty (unless `recursive`)."""
        self._do("DELETE", self._at("/files", path, recursive=recursive))

    def rename(self, old: str, new: str) -> None:
        """Rename a file or directory. Raises FileNotFound, FileExists."""
        self._do("POST", self._at("/rename", old), {"newPath": new})

    def copy(self, path: str, target: str, recursive: bool = False) -> Iterator[int]:
        """Copy without the bytes passing here; for a server whose capabilities list `copy`. Gives how many bytes are
        copied now and then; it is done when the iterator ends. Raises FileNotFound."""
        wish = json.dumps({"newPath": target, "recursive": recursive, "stream": True}).encode()
        reply = self._call("POST", self._at("/copy", path), {"Content-Type": "application/json"}, stream=True,
                           body=_Source(wish))
        with RemoteReader(self.url, reply) as reader:
            for line in _lines_of(reader):
                with _foreign(self.url):
                    told = dict(json.loads(line))
                if "error" in told:
                    raise error_of_pfs_answer(int(told.get("status", 500)), {}, line)
                if "message" in told:
                    return
                yield int(told.get("bytes", 0))
        raise BadGateway(f"{self.url} broke off: it is not known whether all was copied")

    def chmod(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        self._do("POST", self._at("/chmod", path), {"mode": mode})

    def touch(self, path: str) -> None:
        """Set the time of the last change to now; makes an empty file where nothing is."""
        self._do("POST", self._at("/touch", path))

    def truncate(self, path: str, size: int) -> None:
        """Cut a file, or fill it up with zeros, to `size` bytes."""
        self._do("POST", self._at("/truncate", path, size=size))

    def grep(self, path: str, pattern: str, recursive: bool = False,
             ignore_case: bool = False) -> Iterator[dict[str, Any]]:
        """Matches (`file`, `line`, `content`) as they are found, at last `{"type": "summary", "count": n}`."""
        wish = {"path": path, "pattern": pattern, "recursive": recursive, "case_insensitive": ignore_case,
                "stream": True}
        reply = self._call("POST", "/grep", {"Content-Type": "application/json"}, stream=True, idempotent=True,
                           body=_Source(json.dumps(wish).encode()))
        reply.wire.wait(None)               # a long search may find nothing for a long time
        with RemoteReader(self.url, reply) as reader:
            for line in _lines_of(reader):
                with _foreign(self.url):
                    found = _grep_items(json.loads(line))
                yield from found
                if found and found[-1].get("type") == "summary":
                    return
        raise BadGateway(f"{self.url} broke off: the search's summary is missing")

    def digest(self, path: str, algorithm: str = "sha256") -> str:
        """`md5` or `sha256` of a file, hexadecimal, worked out by the server."""
        answer = self._look("POST", "/digest", {"path": path, "algorithm": algorithm}, patience=3600)
        with _foreign(self.url):
            return str(answer["digest"])

    # ---- the server

    def mounts(self) -> list[dict[str, Any]]:
        """What is mounted: `path`, `pluginName`, `config`."""
        answer = self._look("GET", "/mounts")
        with _foreign(self.url):
            return list(answer["mounts"] or ())

    def mount(self, fstype: str, path: str, config: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Mount a filesystem. Raises Conflict where something is, BadRequest for a type or option that is not known."""
        self._do("POST", "/mount", {"fstype": fstype, "path": path, "config": dict(config)})

    def unmount(self, path: str) -> None:
        """Unmount. Raises FileNotFound."""
        self._do("POST", "/unmount", {"path": path})

    def plugins(self) -> list[Any]:
        """The external plugins that are loaded."""
        answer = self._look("GET", "/plugins")
        with _foreign(self.url):
            return list(answer["loaded_plugins"] or ())

    def load_plugin(self, library_path: str) -> dict[str, Any]:
        """Load a plugin, a file of the server's machine; `plugin_name` in the answer is what mounts it."""
        return self._do("POST", "/plugins/load", {"library_path": library_path})

    def unload_plugin(self, library_path: str) -> dict[str, Any]:
        """Unload a plugin."""
        return self._do("POST", "/plugins/unload", {"library_path": library_path})

    def capabilities(self, path: str = "") -> dict[str, Any]:
        """What the server, and what holds `path`, can do."""
        return self._look("GET", self._at("/capabilities", path))

    def health(self) -> dict[str, Any]:
        """What the server says when it runs. Raises Unavailable."""
        return self._look("GET", "/health")


def _lines_of(reader: Reader) -> Iterator[bytes]:
    """Lines as they come, empty ones left out. Raises BadGateway for one that is too long."""
    rest = b""
    for block in reader:
        *lines, rest = (rest + block).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > MAX_ANSWER:
            raise BadGateway(f"The answer has a line of more than {MAX_ANSWER} bytes.")
    if rest.strip():
        yield rest


def _grep_items(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The matches of one line; a server that does not stream puts all into one."""
    if "matches" in value:
        found = list(value["matches"] or ())
        return [*found, {"type": "summary", "count": value.get("count", len(found))}]
    if "error" in value:
        raise error_of_pfs_answer(500, {}, json.dumps(value).encode())
    return [value]


# ============================================================================
# Records and metadata stores: Entry, the store interface, SQLite
# ============================================================================

FILE, DIRECTORY = "file", "directory"


class Entry(NamedTuple):
    """What is known of one path; the record of a metadata store and the answer of every filesystem's `stat`.

    `id` is drawn when a path is created and kept through overwrites and moves: a link to a file does not open another
    one that was made under its name later. `etag` changes with every version of the bytes. `stamp` ties the record to
    the bytes in the backend (local: inode, time, size): where it no longer fits, somebody else wrote them.
    """

    path: str
    type: str = FILE
    size: int = 0
    mode: int = 0o644
    owner: str = "root"
    mtime_ns: int = 0
    etag: str = ""
    id: str = ""
    digest: str = ""                        # SHA-256, hexadecimal; "" where nobody worked it out
    backend: str = "localfs"
    instance_id: str = ""
    stamp: str = ""
    version: int = 0                        # of the record: grows with every commit

    @property
    def name(self) -> str:
        """The last part of the path; "/" for the root."""
        return self.path.rpartition("/")[2] or "/"

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return self.type == DIRECTORY


class Link(NamedTuple):
    """A download link. Only the SHA-256 of its token is kept (security.md, "Tokens"). Times in seconds since 1970."""

    id: str
    token_hash: str
    path: str
    entry_id: str
    owner: str
    created: float
    expires: float
    max_uses: int = 1
    uses: int = 0


class MetadataStore(abc.ABC):
    """Where records live. One class of contract tests holds every implementation (`TestMetadataStore`).

    Every method is atomic, may be called from any thread and raises Unavailable when the store can not be reached.
    What a writing method did is durable on return (as durable as the store was told to be).
    """

    identity: str                           # drawn when the store was made; the disks that it knows carry it

    @abc.abstractmethod
    def get(self, path: str) -> Optional[Entry]:
        """The record of a canonical path."""

    @abc.abstractmethod
    def page(self, parent: str, after: str = "", limit: int = 1000) -> list[Entry]:
        """The next children of a directory by name (code point order), those behind the name `after`."""

    @abc.abstractmethod
    def known(self, parent: str, names: Sequence[str]) -> set[str]:
        """Which of these (at most 1,000) names in a directory have a record."""

    @abc.abstractmethod
    def subtree(self, path: str, after: tuple[str, str] = ("", ""), limit: int = 1000) -> list[Entry]:
        """The next records below `path` in the order of (parent, name), those behind `after`."""

    @abc.abstractmethod
    def put(self, entry: Entry) -> Entry:
        """Insert or replace; gives it back with its new version."""

    @abc.abstractmethod
    def add(self, entries: Sequence[Entry]) -> None:
        """Insert those whose path has no record yet, in one transaction."""

    @abc.abstractmethod
    def delete(self, path: str) -> int:
        """Remove a record and all below it; how many there were."""

    @abc.abstractmethod
    def move(self, source: str, target: str) -> int:
        """Give a record and all below it new paths; what was recorded at `target` is dropped. How many moved."""

    @abc.abstractmethod
    def add_link(self, link: Link) -> None:
        """Remember a link."""

    @abc.abstractmethod
    def find_link(self, token_hash: str) -> Optional[Link]:
        """The link with this token hash, used and expired ones included until they are swept."""

    @abc.abstractmethod
    def use_link(self, token_hash: str, now: float) -> bool:
        """Count one use by ONE conditional update; False when it is used up or has expired."""

    @abc.abstractmethod
    def links(self, owner: Optional[str]) -> list[Link]:
        """Links of an owner, of everybody for None; the newest first, at most 1,000."""

    @abc.abstractmethod
    def delete_link(self, link_id: str, owner: Optional[str]) -> bool:
        """Revoke; False where the owner (None: anybody) has no such link."""

    @abc.abstractmethod
    def sweep_links(self, now: float) -> int:
        """Remove used and expired links; how many."""

    @abc.abstractmethod
    def mounts(self) -> list[tuple[str, str, str]]:
        """(path, type, configuration as JSON) of every mount that was made at run time, by path."""

    @abc.abstractmethod
    def add_mount(self, path: str, fstype: str, config: str) -> None:
        """Remember one; it takes the place of another at the same path."""

    @abc.abstractmethod
    def remove_mount(self, path: str) -> None:
        """Forget one, if it is known."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raises Unavailable unless the store answers now."""

    @abc.abstractmethod
    def close(self) -> None:
        """Flush and let go."""


_SCHEMA = (
    # 1: records by (parent, name): one B-tree serves the look-up of a path, a directory in order and a subtree
    """
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
    INSERT INTO counters VALUES ('version', 0);
    """,
    # 2: what was mounted at run time; `config` is JSON, with its secrets: the file is for nobody else to read
    """
    CREATE TABLE mounts (path TEXT PRIMARY KEY, fstype TEXT NOT NULL, config TEXT NOT NULL) WITHOUT ROWID;
    """,
)
_APPLICATION_ID = 0x63616C6C                # "call": the SQLite header says whose file this is
_COLUMNS = "parent, name, type, size, mode, owner, mtime_ns, etag, id, digest, backend, instance_id, stamp, version"
_VALUES = ", ".join("?" * 14)
_LINK_COLUMNS = "id, token_hash, path, entry_id, owner, created, expires, max_uses, uses"
# Everything below a directory: its own children, and those whose parent starts with it ("0" follows "/" in ASCII).
_BELOW = "(parent = ?1 OR (parent >= ?2 AND parent < ?3))"


class _Job:
    """One write that waits for a shared commit."""

    __slots__ = ("work", "value", "error", "done", "turn")

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work, self.done, self.turn = work, False, threading.Lock()
        self.turn.acquire()                 # released when it is done, or when its thread has to lead
        self.value: Any = None
        self.error: Optional[Exception] = None


class _SharedCommits:
    """Writers that come at the same time share a commit: the first leads, and has `commit` run all that wait (at most
    `batch`) in one transaction, which sets `value` or `error`, and `done`, of each. Then the next that waits leads.

    Who is done goes at once, and so is back with more before the next commit ends (against one lock for all, which
    everybody has to pass on his way out: 16 threads, an fsync of 2 ms: batches of 10 and not of 2).
    """

    def __init__(self, commit: Callable[[list[_Job]], None], batch: int) -> None:
        self._commit, self._batch, self.leader = commit, batch, threading.Lock()
        self._mutex, self._led = threading.Lock(), False
        self.pending: collections.deque[_Job] = collections.deque()

    def run(self, work: Callable[[Any], T]) -> T:
        """What the work returned, after the commit; raises what it raised, or why there was no commit."""
        job = _Job(work)
        with self._mutex:
            self.pending.append(job)
            leads, self._led = not self._led, True
        try:
            self._finish(job, leads)
        except BaseException:
            if not job.done:                # a KeyboardInterrupt: its turn must not be lost for those behind it
                threading.Thread(target=self._finish, args=(job, False), name="callfs-commit", daemon=True).start()
            raise
        if job.error is not None:
            raise job.error
        return job.value

    def _finish(self, job: _Job, leads: bool) -> None:
        """Wait until a job is done, or lead."""
        if not leads:
            job.turn.acquire()
        if job.done:
            return
        some: list[_Job] = []
        try:
            with self.leader:
                some = [self.pending.popleft() for _ in range(min(len(self.pending), self._batch))]     # itself first
                self._commit(some)
        finally:
            for each in some:
                each.turn.release()
            with self._mutex:
                self._led = bool(self.pending)
                if self._led:
                    self.pending[0].turn.release()


def make_private(path: str) -> None:
    """A file that nobody else may read, where there is none yet."""
    with contextlib.suppress(OSError):                  # who opens it then says better what is wrong
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))


def connect_sqlite(path: str, *, durable: bool = True, timeout: float = 5.0) -> sqlite3.Connection:
    """A connection for any thread that begins its transactions itself. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False,
                                 cached_statements=128)
    try:
        for pragma in ("journal_mode = WAL", f"synchronous = {'FULL' if durable else 'NORMAL'}", "cache_size = -4096"):
            connection.execute("PRAGMA " + pragma)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class SQLiteStore(MetadataStore):
    """Records in one SQLite file, write-ahead logged; needs SQLite 3.24 (RHEL 9 has 3.34).

    Writers that come at the same time share a commit (measured with 16 threads and an fsync a commit: 3 times a
    transaction each).
    Readers take a connection of a pool; the WAL lets them go on while a commit runs. With `durable`, a commit is on
    the disk before a write returns; without, it survives the process but perhaps not a power cut.
    """

    MAX_BATCH = 500                         # writes a commit: bounds the wait of the first
    VERSIONS = 10_000                       # reserved at a time, so that not every commit writes the counter

    def __init__(self, path: str, *, durable: bool = True, timeout: float = 5.0, cache: int = 20_000,
                 metrics: Optional[Metrics] = None) -> None:
        self.path, self._durable, self._timeout = path, durable, timeout
        self._metrics = metrics or Metrics()
        self._idle: collections.deque[sqlite3.Connection] = collections.deque()
        self._commits = _SharedCommits(lambda jobs: self._commit(jobs), self.MAX_BATCH)    # late: a test may stand in
        self._pending, self._epoch, self._closed = self._commits.pending, 0, False
        self._cache: Cache[str, Entry] = Cache(cache)
        self._filling = threading.Lock()
        self._make()
        self._writer = self._connect()
        try:
            self._version = self._reserved = self._migrate()
        except (sqlite3.Error, CallFSError) as error:
            self._writer.close()
            raise _store_error(error) if isinstance(error, sqlite3.Error) else error

    # -- connections -------------------------------------------------------------------------------------------

    def _make(self) -> None:
        """The file, for nobody else to read: SQLite gives its log and index the same mode."""
        make_private(self.path)

    def _connect(self) -> sqlite3.Connection:
        try:
            return connect_sqlite(self.path, durable=self._durable, timeout=self._timeout)
        except sqlite3.Error as error:
            raise _store_error(error) from error

    def _migrate(self) -> int:
        connection = self._writer
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        ours = connection.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
        if not ours and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ConfigError("metadata_store.sqlite_path: this is the database of another program")
        if found > len(_SCHEMA):
            raise ConfigError(f"metadata_store.sqlite_path: written by a later version of callfs (schema {found}, this "
                              f"one knows {len(_SCHEMA)}); use that version, or restore a backup")
        for number in range(found, len(_SCHEMA)):
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA[number]}; PRAGMA application_id = {_APPLICATION_ID};"
                                     f"PRAGMA user_version = {number + 1}; COMMIT;")
        counters = dict(connection.execute("SELECT name, value FROM counters"))
        if "version" not in counters:
            raise _store_error(sqlite3.DatabaseError("malformed"))
        if "store" not in counters:
            counters["store"] = secrets.randbits(62)
            connection.execute("INSERT INTO counters VALUES ('store', ?)", (counters["store"],))
        self.identity = f"{counters['store']:016x}"
        return counters["version"]

    def _read(self, operation: str, query: str, values: Sequence[Any]) -> list[Any]:
        started = time.perf_counter()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            rows = connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            connection.close()
            raise _store_error(error) from error
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)
        self._measure(operation, started)
        return rows

    def _measure(self, operation: str, started: float) -> None:
        self._metrics.observe("callfs_metadata_db_query_duration_seconds", time.perf_counter() - started, operation)

    # -- shared commits ----------------------------------------------------------------------------------------

    def _write(self, operation: str, work: Callable[[sqlite3.Connection], T]) -> T:
        started = time.perf_counter()
        try:
            return self._commits.run(work)
        finally:
            self._measure(operation, started)

    def _commit(self, jobs: list[_Job]) -> None:
        """Run the jobs in one transaction. A job that fails takes back only itself; a failed commit fails them all."""
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            if len(jobs) == 1:
                jobs[0].value = jobs[0].work(connection)
            else:
                for job in jobs:
                    self._run(connection, job)
            if self._version > self._reserved:
                self._reserved = self._version + self.VERSIONS
                connection.execute("UPDATE counters SET value = ? WHERE name = 'version'", (self._reserved,))
            connection.execute("COMMIT")
        except BaseException as error:      # a KeyboardInterrupt, too, must not leave anybody with a false "done"
            plain = isinstance(error, Exception) and not isinstance(error, sqlite3.Error)      # what a job raised
            for job in jobs:
                job.error = job.error or (error if plain else _store_error(error))
            self._reserved = 0              # perhaps that did not come about
            self._rollback()
            if not isinstance(error, Exception):
                raise
        finally:
            with self._filling:
                self._epoch += 1
            for job in jobs:
                job.done = True

    def _run(self, connection: sqlite3.Connection, job: _Job) -> None:
        connection.execute("SAVEPOINT job")
        try:
            job.value = job.work(connection)
        except Exception as error:          # whatever it is belongs to the thread that waits for this job
            job.error = _store_error(error) if isinstance(error, sqlite3.Error) else error
            if not connection.in_transaction:
                raise                       # a full or broken disk: SQLite has taken back the whole transaction
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")

    def _rollback(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error:               # the connection is beyond use: the next write finds a fresh one
            self._writer.close()
            if not self._closed:
                self._writer = self._connect()

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    # -- records -----------------------------------------------------------------------------------------------

    def get(self, path: str) -> Optional[Entry]:
        """The record of a path, from memory when it was read before and nobody wrote it since."""
        entry = self._cache.get(path)
        if entry is None:
            epoch = self._epoch
            rows = self._read("get", f"SELECT {_COLUMNS} FROM entries WHERE parent = ? AND name = ?", split_path(path))
            if not rows:
                return None
            entry = _entry(rows[0])
            with self._filling:
                if epoch == self._epoch:    # else a commit came between, and this may be the past
                    self._cache.put(path, entry)
        return entry

    def page(self, parent: str, after: str = "", limit: int = 1000) -> list[Entry]:
        """As the interface says."""
        query = f"SELECT {_COLUMNS} FROM entries WHERE parent = ? AND name > ? ORDER BY name LIMIT ?"
        return [_entry(row) for row in self._read("page", query, (parent, after, limit))]

    def known(self, parent: str, names: Sequence[str]) -> set[str]:
        """As the interface says."""
        found: set[str] = set()
        for start in range(0, len(names), 500):         # SQLite before 3.32 takes 999 values a statement
            some = names[start:start + 500]
            query = f"SELECT name FROM entries WHERE parent = ? AND name IN ({','.join('?' * len(some))})"
            found.update(row[0] for row in self._read("known", query, (parent, *some)))
        return found

    def subtree(self, path: str, after: tuple[str, str] = ("", ""), limit: int = 1000) -> list[Entry]:
        """As the interface says."""
        query = (f"SELECT {_COLUMNS} FROM entries WHERE {_BELOW} AND (parent, name) > (?4, ?5) "
                 "ORDER BY parent, name LIMIT ?6")
        return [_entry(row) for row in self._read("subtree", query, (*_below(path), *after, limit))]

    def put(self, entry: Entry) -> Entry:
        """As the interface says."""
        def work(connection: sqlite3.Connection) -> Entry:
            stored = entry._replace(version=self._next_version())
            connection.execute(f"INSERT OR REPLACE INTO entries ({_COLUMNS}) VALUES ({_VALUES})", _row(stored))
            return stored
        try:
            return self._write("put", work)
        finally:
            self._cache.drop(entry.path)

    def add(self, entries: Sequence[Entry]) -> None:
        """As the interface says."""
        def work(connection: sqlite3.Connection) -> None:
            version = self._next_version()
            connection.executemany(f"INSERT OR IGNORE INTO entries ({_COLUMNS}) VALUES ({_VALUES})",
                                   [_row(entry._replace(version=version)) for entry in entries])
        self._write("add", work)

    def delete(self, path: str) -> int:
        """As the interface says."""
        def work(connection: sqlite3.Connection) -> int:
            gone = connection.execute("DELETE FROM entries WHERE parent = ? AND name = ?", split_path(path)).rowcount
            return gone + connection.execute(f"DELETE FROM entries WHERE {_BELOW}", _below(path)).rowcount
        try:
            return self._write("delete", work)
        finally:
            self._forget(path)

    def move(self, source: str, target: str) -> int:
        """As the interface says."""
        def work(connection: sqlite3.Connection) -> int:
            connection.execute("DELETE FROM entries WHERE parent = ? AND name = ?", split_path(target))
            connection.execute(f"DELETE FROM entries WHERE {_BELOW}", _below(target))
            moved = connection.execute(
                "UPDATE entries SET parent = ?, name = ?, version = ? WHERE parent = ? AND name = ?",
                (*split_path(target), self._next_version(), *split_path(source))).rowcount
            return moved + connection.execute(
                f"UPDATE entries SET parent = ?4 || substr(parent, ?5), version = ?6 WHERE {_BELOW}",
                (*_below(source), target, len(source) + 1, self._version)).rowcount
        try:
            return self._write("move", work)
        finally:
            self._forget(source)
            self._forget(target)

    def _forget(self, path: str) -> None:
        """A subtree may have been in the cache: cheaper to read again than to look for it."""
        self._cache.clear()

    # -- links -------------------------------------------------------------------------------------------------

    def add_link(self, link: Link) -> None:
        """As the interface says."""
        marks = ", ".join("?" * len(link))
        self._write("add_link", lambda connection: connection.execute(
            f"INSERT INTO links ({_LINK_COLUMNS}) VALUES ({marks})", link))

    def find_link(self, token_hash: str) -> Optional[Link]:
        """As the interface says."""
        rows = self._read("find_link", f"SELECT {_LINK_COLUMNS} FROM links WHERE token_hash = ?", (token_hash,))
        return Link(*rows[0]) if rows else None

    def use_link(self, token_hash: str, now: float) -> bool:
        """As the interface says."""
        return self._write("use_link", lambda connection: connection.execute(
            "UPDATE links SET uses = uses + 1 WHERE token_hash = ? AND uses < max_uses AND expires > ?",
            (token_hash, now)).rowcount == 1)

    def links(self, owner: Optional[str]) -> list[Link]:
        """As the interface says."""
        return [Link(*row) for row in self._read("links", f"SELECT {_LINK_COLUMNS} FROM links "
                "WHERE ?1 IS NULL OR owner = ?1 ORDER BY created DESC LIMIT 1000", (owner,))]

    def delete_link(self, link_id: str, owner: Optional[str]) -> bool:
        """As the interface says."""
        return self._write("delete_link", lambda connection: connection.execute(
            "DELETE FROM links WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)", (link_id, owner)).rowcount == 1)

    def sweep_links(self, now: float) -> int:
        """As the interface says."""
        return self._write("sweep_links", lambda connection: connection.execute(
            "DELETE FROM links WHERE expires <= ? OR uses >= max_uses", (now,)).rowcount)

    # -- mounts ------------------------------------------------------------------------------------------------

    def mounts(self) -> list[tuple[str, str, str]]:
        """As the interface says."""
        return self._read("mounts", "SELECT path, fstype, config FROM mounts ORDER BY path", ())

    def add_mount(self, path: str, fstype: str, config: str) -> None:
        """As the interface says."""
        self._write("add_mount", lambda connection: connection.execute(
            "INSERT OR REPLACE INTO mounts VALUES (?, ?, ?)", (path, fstype, config)))

    def remove_mount(self, path: str) -> None:
        """As the interface says."""
        self._write("remove_mount", lambda connection: connection.execute("DELETE FROM mounts WHERE path = ?", (path,)))

    # -- the store itself --------------------------------------------------------------------------------------

    def check(self) -> None:
        """A read and a write that changes nothing."""
        self._read("check", "SELECT value FROM counters WHERE name = 'version'", ())
        self._write("check", lambda connection: None)

    def close(self) -> None:
        """Close every connection; the last one folds the log into the file."""
        with self._commits.leader:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._writer.close()


def _below(path: str) -> tuple[str, str, str]:
    prefix = path.rstrip("/") + "/"
    return path, prefix, prefix[:-1] + "0"


def _row(entry: Entry) -> tuple[Any, ...]:
    return (*split_path(entry.path), *entry[1:])


def _entry(row: tuple[Any, ...]) -> Entry:
    parent, name = row[0], row[1]
    if parent is None or row[-1] is None:               # never so in a sound database: a flipped bit can do it
        raise _store_error(sqlite3.DatabaseError("malformed"))
    return Entry(join_path(parent, name) if parent else "/", *row[2:])


def _store_error(error: BaseException, what: str = "metadata store") -> CallFSError:
    """SQLite's words in ours; what it says of paths and statements stays out."""
    text = str(error)
    if "full" in text:
        return StorageFull(f"The disk of the {what} is full.")
    if "readonly" in text or "read-only" in text:
        return Unavailable(f"The {what} is read-only.", retry_after=10)
    if "not a database" in text or "malformed" in text:
        return StorageError(f"The {what} is damaged; restore a backup of it" + (
            ", or move it away and run `callfs fsck`, which makes a new one (all files are root's then)."
            if what == "metadata store" else "."))
    return Unavailable(f"The {what} does not answer.")

# ============================================================================
# Locks: who may change a path now
# ============================================================================


class Lease(NamedTuple):
    """A granted lock. `token` grows with every grant, so that a store can refuse a holder that was overtaken."""

    token: int


class LockManager(abc.ABC):
    """Exclusive locks on paths and subtrees. One class of contract tests holds every implementation (`TestLocks`)."""

    @abc.abstractmethod
    def hold(self, *paths: str, subtree: bool = False, timeout: Optional[float] = None) -> ContextManager[Lease]:
        """Hold every path (with `subtree`, all below too) for the length of a `with` block; all at once or none.

        Raises Unavailable when that takes longer than `timeout` seconds (default: the manager's own; 0: at once).
        """


class LocalLocks(LockManager):
    """Locks of this process. A path's lock and a lock of a subtree that holds it exclude each other.

    Whoever comes later does not overtake one that waits for the same: else a busy folder could never be removed.
    """

    def __init__(self, timeout: float = 10.0, metrics: Optional[Metrics] = None) -> None:
        self._timeout, self._metrics = timeout, metrics or Metrics()
        self._changed = threading.Condition(threading.Lock())
        self._paths: set[str] = set()
        self._subtrees: set[str] = set()
        self._below: collections.Counter[str] = collections.Counter()   # locks at or below a path
        self._waiting: dict[int, tuple[list[str], bool]] = {}           # in the order of their arrival
        self._token = self._arrived = 0
        self._metrics.gauge("callfs_active_locks", lambda: len(self._paths) + len(self._subtrees))

    @contextlib.contextmanager
    def hold(self, *paths: str, subtree: bool = False, timeout: Optional[float] = None) -> Iterator[Lease]:
        """As the interface says."""
        wanted = _outermost(paths) if subtree else sorted(set(paths))
        lease = self._acquire(wanted, subtree, self._timeout if timeout is None else timeout)
        try:
            yield lease
        finally:
            self._release(wanted, subtree)

    def _acquire(self, wanted: list[str], subtree: bool, timeout: float) -> Lease:
        started = time.perf_counter()
        with self._changed:
            granted = self._wait(wanted, subtree, timeout)
            if granted:
                self._token += 1
                self._mark(wanted, subtree)
            lease = Lease(self._token)
        self._metrics.count("callfs_lock_operations_total", "acquire", "success" if granted else "timeout")
        self._metrics.observe("callfs_lock_operation_duration_seconds", time.perf_counter() - started, "acquire")
        if not granted:
            raise Unavailable("Another request is writing here; try again.")
        return lease

    def _wait(self, wanted: list[str], subtree: bool, timeout: float) -> bool:
        self._arrived += 1
        mine = self._arrived
        self._waiting[mine] = wanted, subtree
        try:
            return self._changed.wait_for(lambda: self._free(wanted, subtree) and self._first(mine), timeout)
        finally:
            del self._waiting[mine]
            if self._waiting:               # those behind waited for this one, too
                self._changed.notify_all()

    def _first(self, mine: int) -> bool:
        """Whether nobody who came earlier waits for something that overlaps."""
        wanted, subtree = self._waiting[mine]
        earlier = itertools.takewhile(lambda ticket: ticket != mine, self._waiting)
        return not any(_overlap(wanted, subtree, *self._waiting[ticket]) for ticket in earlier)

    def _free(self, wanted: list[str], subtree: bool) -> bool:
        for path in wanted:
            if path in self._paths or (subtree and self._below[path]):
                return False
            if self._subtrees and any(above in self._subtrees for above in (path, *ancestors(path))):
                return False
        return True

    def _mark(self, wanted: list[str], subtree: bool) -> None:
        (self._subtrees if subtree else self._paths).update(wanted)
        for path in wanted:
            self._below.update((path, *ancestors(path)))

    def _release(self, wanted: list[str], subtree: bool) -> None:
        with self._changed:
            (self._subtrees if subtree else self._paths).difference_update(wanted)
            for path in wanted:
                for above in (path, *ancestors(path)):
                    self._below[above] -= 1
                    if not self._below[above]:
                        del self._below[above]
            if self._waiting:
                self._changed.notify_all()


def _overlap(some: list[str], some_below: bool, others: list[str], others_below: bool) -> bool:
    return any(path == other or (some_below and is_below(other, path)) or (others_below and is_below(path, other))
               for path in some for other in others)


def _outermost(paths: Sequence[str]) -> list[str]:
    """Without those that lie in another of them: a subtree's lock covers them already."""
    distinct = sorted(set(paths))
    return [path for path in distinct if not any(other != path and is_below(path, other) for other in distinct)]

# ============================================================================
# Bytes: the local disk
# ============================================================================

HIDDEN = ".callfs"                          # of the root; no dialect shows it
SYMLINK = "symlink"                         # backend of an entry that is a link: never descended into
_O_BINARY, _O_CLOEXEC, _O_NOFOLLOW = (getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW"))
_O_READ = os.O_RDONLY | _O_BINARY | _O_CLOEXEC | _O_NOFOLLOW | getattr(os, "O_NONBLOCK", 0)    # a FIFO must not hang
_O_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | _O_CLOEXEC | _O_NOFOLLOW
_MAX_LINKS = 40                             # as Linux: a chain of symbolic links that is longer is a loop
# Devices, streams, short names ("CALLFS~1") and what Windows drops from an end: other spellings of the hidden folder
_WINDOWS_NAMES = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*[. ]|.*:.*|.*~[0-9].*")


class SymlinkMet(Exception):
    """A component is a symbolic link; `LocalDisk.physical` tells where the path really leads."""


class Staged:
    """Bytes in a temporary file, complete and (when durable) on the disk, that have no name in the tree yet."""

    def __init__(self, name: str, fd: int) -> None:
        self.name, self.fd, self.size, self.digest = name, fd, 0, ""


class LocalDisk:
    """Plain files below one folder, reached component by component from its descriptor (`dir_fd`, `O_NOFOLLOW`).

    Nothing here follows a symbolic link, so that nobody who can write into the folder leads us out of it, not even
    between a check and its use. `physical` resolves links for readers, again only inside. Where the platform has no
    `dir_fd` (Windows), every component is checked by `lstat` before the whole path is used.
    Methods take canonical paths and raise OSError.
    """

    def __init__(self, root: str, *, durable: bool = True) -> None:
        self.root, self.durable = os.path.realpath(root), durable
        self._at_works = os.open in os.supports_dir_fd
        os.makedirs(self.root, exist_ok=True)
        self._root_fd = os.open(self.root, os.O_RDONLY | _O_CLOEXEC) if self._at_works else -1
        self._syncs, self._sync_lock = {}, threading.Lock()    # type: dict[str, _SharedSync], threading.Lock
        self._umask, self._tmp_fd = _read_umask(), -1
        self.writable = self._prepare()
        if self.writable:
            self._open_scratch()

    def _prepare(self) -> bool:
        """Make the hidden folder; False on a disk that can only be read."""
        try:
            for name in ("", "/tmp", "/trash"):
                os.makedirs(os.path.join(self.root, HIDDEN + name), mode=0o700, exist_ok=True)
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                return False
            raise
        return os.access(os.path.join(self.root, HIDDEN, "tmp"), os.W_OK)

    def _open_scratch(self) -> None:
        """Hold the folder of the temporary files; once more, in the descriptor's place, when it was made anew."""
        place = os.path.join(self.hidden, "tmp")
        os.makedirs(place, mode=0o700, exist_ok=True)
        if not self._at_works:
            return
        fd = os.open(place, os.O_RDONLY | _O_CLOEXEC)
        if self._tmp_fd < 0:
            self._tmp_fd = fd
        else:
            os.dup2(fd, self._tmp_fd, inheritable=False)        # others may be using that number right now
            os.close(fd)

    def sweep(self, age: float = 0.0) -> int:
        """Remove what a killed server left in the scratch folders; how much it was. Only when nobody else writes:
        call it with the data's lock (`DataLock`) held, or for what is `age` seconds old."""
        found = 0
        for folder in ("tmp", "trash"):
            above = os.path.join(self.root, HIDDEN, folder)
            for name in os.listdir(above) if os.path.isdir(above) else ():
                place = os.path.join(above, name)
                if not age or time.time() - os.lstat(place).st_ctime > age:
                    self._destroy(place)
                    found += 1
        return found

    def _destroy(self, place: str) -> None:
        """Remove a file, or a directory with all in it. Each directory below is moved into the trash first: a client
        may nest them deeper than a path is long, or than `shutil.rmtree` can recurse."""
        waiting = [place]
        while waiting:
            place = waiting.pop()
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                os.unlink(place)
                continue
            with os.scandir(place) as items:
                for item in list(items):
                    if item.is_dir(follow_symlinks=False):
                        waiting.append(os.path.join(self.root, HIDDEN, "trash", secrets.token_hex(8)))
                        os.rename(item.path, waiting[-1])
                    else:
                        os.unlink(item.path)
            os.rmdir(place)

    def close(self) -> None:
        """Let go of the root."""
        held, self._root_fd, self._tmp_fd = (self._root_fd, self._tmp_fd), -1, -1
        for fd in held:
            if fd >= 0:
                os.close(fd)

    @property
    def hidden(self) -> str:
        """The hidden folder, as the operating system knows it."""
        return os.path.join(self.root, HIDDEN)

    def marker(self) -> str:
        """Which records this disk belongs to: their `identity`; "" for a disk that is new."""
        try:
            with open(os.path.join(self.hidden, "store"), encoding="ascii") as file:
                return file.read().strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def mark(self, identity: str) -> None:
        """Let this disk belong to these records, for good."""
        staged = self.stage()
        try:
            write_all(staged.fd, memoryview(identity.encode() + b"\n"))
            self.seal(staged, 0o600, None)
            self.publish(staged, f"/{HIDDEN}/store")
        finally:
            self.discard(staged)
        self.sync_folder("/" + HIDDEN)

    # -- walking -----------------------------------------------------------------------------------------------

    def _at(self, path: str) -> _At:
        """A context with (name, dir_fd) of a path's last component. Raises SymlinkMet when one before it is a link."""
        return _At(self, path)

    def _enter(self, path: str) -> tuple[Optional[int], str]:
        if os.name == "nt" and any(map(_WINDOWS_NAMES.fullmatch, path.split("/"))):
            raise OSError(errno.EILSEQ, "a name with a meaning of its own")
        if not self._at_works:
            return None, self._checked(path)
        cut, fd = path.find("/", 1), self._root_fd
        start = 1
        while cut != -1:
            fd, previous = self._step(path[start:cut], fd), fd
            self._leave(previous)
            start, cut = cut + 1, path.find("/", cut + 1)
        return fd, path[start:] or "."

    def _step(self, name: str, fd: int) -> int:
        try:
            return os.open(name, _O_FOLDER, dir_fd=fd)
        except OSError as error:
            try:
                if error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(name, fd):
                    raise SymlinkMet(name) from None
            finally:
                self._leave(fd)
            raise

    def _leave(self, fd: Optional[int]) -> None:
        if fd is not None and fd != self._root_fd:
            try:
                os.close(fd)
            except OSError:                 # nothing was written through it
                pass

    def _scratch(self, name: str) -> tuple[str, Optional[int]]:
        """As `_enter` for a temporary file, whose folder is always open. Nothing is to be left."""
        if self._tmp_fd >= 0:
            return name, self._tmp_fd
        return os.path.join(self.root, HIDDEN, "tmp", name), None

    def _checked(self, path: str) -> str:
        """The whole path for platforms without `dir_fd`, no component before the last a link."""
        found = self.root
        parts = path[1:].split("/") if path != "/" else []
        for part in parts[:-1]:
            found = os.path.join(found, part)
            if os.path.islink(found):
                raise SymlinkMet(part)
        return os.path.join(found, *parts[-1:])

    def physical(self, path: str) -> str:
        """The canonical path that a path with links in it leads to; FileNotFoundError where that lies outside, or
        where the path changes under our eyes."""
        parts, done = path[1:].split("/"), "/"
        for _ in range(_MAX_LINKS):
            while parts:
                target = self._link_target(join_path(done, parts[0]))
                if target is not None:
                    break
                done = join_path(done, parts.pop(0))
            else:
                return done
            parts = self._inside(done, target) + parts[1:]
            done = "/"
        raise FileNotFoundError(errno.ENOENT, "too many symbolic links")

    def _link_target(self, path: str) -> Optional[str]:
        try:
            with self._at(path) as (name, fd):
                return os.readlink(name, dir_fd=fd) if fd is not None else os.readlink(name)
        except SymlinkMet:
            raise FileNotFoundError(errno.ENOENT, "a folder was exchanged for a symbolic link") from None
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None                 # no link
            raise

    def _inside(self, folder: str, target: str) -> list[str]:
        """The parts of a link's target, from the root; the answer for outside is the same as for absent."""
        whole = os.path.normpath(os.path.join(self.root, folder[1:], target))
        relative = os.path.relpath(whole, self.root)
        if relative.split(os.sep)[0] in ("..", HIDDEN) or os.path.isabs(relative) or _FORBIDDEN.search(relative):
            raise FileNotFoundError(errno.ENOENT, "a symbolic link out of the root")
        return [] if relative == "." else relative.split(os.sep)

    # -- looking -----------------------------------------------------------------------------------------------

    def stat(self, path: str) -> os.stat_result:
        """As `lstat`."""
        with self._at(path) as (name, fd):
            return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def identity(self, path: str) -> Optional[tuple[int, ...]]:
        """`identity_of` what a path leads to now, by one call; None for what can not be told. Links in the middle are
        followed, so this may be compared with what was opened step by step, and used for nothing else."""
        try:
            return identity_of(os.stat(path[1:] if self._at_works else self.root + path,
                                       dir_fd=self._root_fd if self._at_works else None, follow_symlinks=False))
        except OSError:
            return None

    def open(self, path: str) -> tuple[int, os.stat_result]:
        """A descriptor for reading and its `fstat`; of a directory -1. What is neither is taken for absent."""
        folder, name = self._enter(path)
        try:
            fd = os.open(name, _O_READ, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP or (error.errno == errno.EACCES and os.name == "nt"):
                return self._no_file(name, folder)
            if error.errno == errno.ENXIO:
                raise FileNotFoundError(errno.ENOENT, "a socket") from None
            raise
        finally:
            self._leave(folder)
        found = _fstat_or_close(fd)
        if stat.S_ISREG(found.st_mode):
            return fd, found
        os.close(fd)
        if stat.S_ISDIR(found.st_mode):
            return -1, found
        raise FileNotFoundError(errno.ENOENT, "neither a file nor a directory")

    def _no_file(self, name: str, folder: Optional[int]) -> tuple[int, os.stat_result]:
        """A link says ELOOP, a directory on Windows EACCES."""
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            raise SymlinkMet(name)
        if stat.S_ISDIR(found.st_mode):
            return -1, found
        raise PermissionError(errno.EACCES, "unreadable")

    def scan(self, path: str, size: int = 1000, *, every: bool = False) -> Iterator[list[str]]:
        """The names in a directory that a request can name (or `every` one), in no order, `size` at a time."""
        with self._at(path) as (name, parent):
            fd = os.open(name, os.O_RDONLY | _O_NOFOLLOW | _O_CLOEXEC, dir_fd=parent) if parent is not None else -1
        try:
            with os.scandir(fd if fd >= 0 else name) as items:
                names = (item.name for item in items if every or not _FORBIDDEN.search(item.name))
                shown = (name for name in names if path != "/" or name.casefold() != HIDDEN)
                yield from iter(lambda: list(itertools.islice(shown, size)), [])
        finally:
            if fd >= 0:
                os.close(fd)

    def stats(self, path: str, names: Sequence[str]) -> list[Optional[os.stat_result]]:
        """`lstat` of many names in one directory; None for what is not there."""
        with self._at(join_path(path, "x")) as (sample, fd):
            prefix = "" if fd is not None else os.path.dirname(sample) + os.sep
            return [_stat_or_none(prefix + name, fd) for name in names]

    def free_bytes(self) -> int:
        """What is left on the disk for this account."""
        return shutil.disk_usage(self.root).free

    # -- writing -----------------------------------------------------------------------------------------------

    def stage(self) -> Staged:
        """A new temporary file (0600, O_EXCL) on the same disk; `publish` or `discard` ends it."""
        name, flags = secrets.token_hex(8), os.O_RDWR | os.O_CREAT | os.O_EXCL | _O_BINARY | _O_CLOEXEC
        leaf, folder = self._scratch(name)
        try:
            return Staged(name, os.open(leaf, flags, 0o600, dir_fd=folder))
        except FileNotFoundError:           # somebody tidied up: the folder that is open has no name any more
            self._open_scratch()
            leaf, folder = self._scratch(name)
            return Staged(name, os.open(leaf, flags, 0o600, dir_fd=folder))

    def seal(self, staged: Staged, mode: int, mtime_ns: Optional[int]) -> os.stat_result:
        """Give the file its mode and time, and put it on the disk when durable; its final `fstat`."""
        if hasattr(os, "fchmod"):
            os.fchmod(staged.fd, mode & 0o777 & ~self._umask)
        if mtime_ns is not None:
            os.utime(staged.fd if os.utime in os.supports_fd else self._scratch(staged.name)[0], ns=(mtime_ns, mtime_ns))
        if self.durable:
            os.fsync(staged.fd)
        return os.fstat(staged.fd)

    def publish(self, staged: Staged, path: str) -> None:
        """Let the file appear at `path`, in one step, in place of what was there."""
        if os.name == "nt":                 # an open file can not be renamed there
            os.close(staged.fd)
            staged.fd = -1
        old, old_fd = self._scratch(staged.name)
        with self._at(path) as (new, new_fd):
            os.replace(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)
        staged.name = ""

    def discard(self, staged: Staged) -> None:
        """Close the descriptor, and remove the file unless it was published."""
        fd, staged.fd = staged.fd, -1
        try:
            if fd >= 0:
                os.close(fd)
        finally:
            if staged.name:
                leaf, folder = self._scratch(staged.name)
                os.unlink(leaf, dir_fd=folder)

    def open_append(self, path: str) -> tuple[int, os.stat_result]:
        """A descriptor for writing at the end of a file, and its `fstat`."""
        with self._at(path) as (name, folder):
            fd = os.open(name, os.O_RDWR | _O_READ, dir_fd=folder)
        found = _fstat_or_close(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "not a file")
        return fd, found

    def chmod(self, path: str, mode: int) -> os.stat_result:
        """Set the permission bits; the new `stat`. SymlinkMet for a link."""
        with self._held(path) as at:
            os.chmod(at, mode & ~self._umask)
            return os.stat(at)

    def touch(self, path: str, mtime_ns: int) -> os.stat_result:
        """Set the time of the last change; the new `stat`. SymlinkMet for a link."""
        with self._held(path) as at:
            os.utime(at, ns=(mtime_ns, mtime_ns))
            return os.stat(at)

    @contextlib.contextmanager
    def _held(self, path: str) -> Iterator[Union[int, str]]:
        """A descriptor of what is there; on Windows, which has none for this, the path."""
        with self._at(path) as (name, folder):
            if stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode):
                raise SymlinkMet(path)
            if os.chmod not in os.supports_fd or os.utime not in os.supports_fd:
                yield name
                return
            fd = os.open(name, os.O_RDONLY | _O_READ, dir_fd=folder)    # a link by now: ELOOP
            try:
                yield fd
            finally:
                os.close(fd)

    def mkdir(self, path: str, mode: int) -> None:
        """As `os.mkdir`."""
        with self._at(path) as (name, fd):
            os.mkdir(name, mode & ~self._umask, dir_fd=fd)

    def unlink(self, path: str) -> None:
        """As `os.unlink`: a link goes, not what it leads to."""
        with self._at(path) as (name, fd):
            os.unlink(name, dir_fd=fd)

    def rmdir(self, path: str) -> None:
        """As `os.rmdir`."""
        with self._at(path) as (name, fd):
            os.rmdir(name, dir_fd=fd)

    def rename(self, source: str, target: str) -> None:
        """As `os.replace`."""
        self._rename(source, target)

    def _rename(self, source: str, target: str) -> None:
        with self._at(source) as (old, old_fd), self._at(target) as (new, new_fd):
            os.replace(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)

    def trash(self, path: str) -> Callable[[], None]:
        """Take a directory out of the tree in one step; what this returns then removes it, at leisure."""
        name = secrets.token_hex(8)
        self._rename(path, f"/{HIDDEN}/trash/{name}")
        return lambda: self._empty_trash(name)

    def _empty_trash(self, name: str) -> None:
        with contextlib.suppress(OSError):              # what can not be removed now, `sweep` finds
            self._destroy(os.path.join(self.root, HIDDEN, "trash", name))

    def sync_folder(self, path: str) -> None:
        """Make the names in a directory durable; those who wait for the same one share a call (1.2 times faster)."""
        if not self.durable or os.name == "nt":
            return
        with self._sync_lock:
            shared = self._syncs.setdefault(path, _SharedSync())
            ticket = shared.enter()
        try:
            with self._at(path) as (name, fd):
                shared.sync(ticket, lambda: _fsync_folder(name, fd))
        finally:
            with self._sync_lock:
                if shared.leave():
                    self._syncs.pop(path, None)


class _At:
    """The context of `LocalDisk._at`; a class, as ten of them in an upload cost a tenth of it when they are generators."""

    __slots__ = ("_disk", "_path", "_folder")

    def __init__(self, disk: LocalDisk, path: str) -> None:
        self._disk, self._path = disk, path

    def __enter__(self) -> tuple[str, Optional[int]]:
        self._folder, name = self._disk._enter(self._path)
        return name, self._folder

    def __exit__(self, *exc: object) -> None:
        self._disk._leave(self._folder)


class _SharedSync:
    """One `fsync` for all that wait. A call covers those who came before it BEGAN; if it fails it fails for them all:
    the kernel reports a lost write once, so that a second call would say that all is well (fsyncgate, 2018)."""

    def __init__(self) -> None:
        self._lock, self._users, self._begun, self._done = threading.Lock(), 0, 0, 0
        self._failed: dict[int, OSError] = {}

    def enter(self) -> int:
        """The number of the call that covers this caller: the first to begin from now on."""
        self._users += 1
        return self._begun + 1

    def leave(self) -> bool:
        """Whether nobody is left."""
        self._users -= 1
        return not self._users

    def sync(self, ticket: int, call: Callable[[], None]) -> None:
        """Return when the call with this number is through."""
        with self._lock:
            if self._done < ticket:         # then it is the next
                self._begun = ticket
                try:
                    call()
                except OSError as error:
                    self._failed[ticket] = error
                self._done = ticket
        if ticket in self._failed:
            raise self._failed[ticket]


def _fsync_folder(name: str, dir_fd: Optional[int]) -> None:
    fd = os.open(name, os.O_RDONLY | _O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_link(name: str, dir_fd: int) -> bool:
    found = _stat_or_none(name, dir_fd)
    return found is not None and stat.S_ISLNK(found.st_mode)


def _fstat_or_close(fd: int) -> os.stat_result:
    try:
        return os.fstat(fd)
    except OSError:
        os.close(fd)
        raise


def _stat_or_none(name: str, dir_fd: Optional[int]) -> Optional[os.stat_result]:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _read_umask() -> int:
    """The process's umask without setting it, where Linux tells; else the usual one."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next((int(line[6:], 8) for line in status if line.startswith("Umask:")), 0o022)
    except (OSError, ValueError):
        return 0o022


def identity_of(found: os.stat_result) -> tuple[int, ...]:
    """What no change of a file leaves as it was, once it is older than a tick of the clock."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev


def stamp_of(found: os.stat_result) -> str:
    """What ties a record to a file: another inode, time or size means other bytes."""
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def write_all(fd: int, view: memoryview) -> None:
    """`os.write` until all is written: on a full disk, or after a signal, it writes less than asked for."""
    while view:
        view = view[os.write(fd, view):]


class IntentLog:
    """What is about to be renamed, so that a server killed before the metadata commit can catch up.

    One line of JSON a step, appended by one `write` (which a killed process keeps; a power cut needs no line, as
    nothing was answered). When the file has grown, only the lines of open steps are kept.
    """

    MAX_BYTES = 256 * 1024

    def __init__(self, path: str) -> None:
        self._path, self._lock, self._last = path, threading.Lock(), 0
        self._open: dict[int, bytes] = {}
        self._fd = self._open_file(path)
        self._size = os.fstat(self._fd).st_size

    def _open_file(self, path: str, flags: int = 0) -> int:
        return os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_APPEND | _O_BINARY | _O_CLOEXEC, 0o600)

    def note(self, step: Mapping[str, Any]) -> int:
        """Write a step down; its number for `done`."""
        line = json.dumps(step).encode() + b"\n"
        with self._lock:
            if os.write(self._fd, line) < len(line):
                os.ftruncate(self._fd, self._size)      # or the next line would be glued to this piece
                raise OSError(errno.ENOSPC, "no room to note a step")
            self._size += len(line)
            self._last += 1
            self._open[self._last] = line
            return self._last

    def done(self, number: int) -> None:
        """A step needs its line no longer."""
        with self._lock:
            del self._open[number]
            if self._size > self.MAX_BYTES:
                with contextlib.suppress(OSError):      # a full disk: the next one tries again
                    self._shrink()

    def _shrink(self) -> None:
        lines = b"".join(self._open.values())
        if not lines:
            return self.clear()
        fresh = self._open_file(self._path + ".new", os.O_TRUNC)
        try:
            write_all(fresh, memoryview(lines))
            os.replace(self._path + ".new", self._path)
        except OSError:
            os.close(fresh)
            raise
        old, self._fd, self._size = self._fd, fresh, len(lines)
        os.close(old)

    def read(self) -> list[dict[str, Any]]:
        """What an earlier process noted, oldest first. A torn line is nothing that was answered."""
        found = []
        with open(self._path, "rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def clear(self) -> None:
        """Forget it all."""
        os.ftruncate(self._fd, 0)
        self._size = 0

    def close(self) -> None:
        """Close the file, empty unless a step is open; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, self._size if self._open else 0)
            os.close(fd)

# ============================================================================
# Events: what changed, for whoever wants to know at once
# ============================================================================

EVENT_TYPES = ("create", "update", "delete", "move")
RESET = "reset"                             # to a subscriber: events were lost to you, look for yourself
BATCH = 128                                 # events that a subscriber is given at a time
PULSES = 16                                 # parts of a heartbeat: not all subscribers are woken at one moment


class _EventFields(NamedTuple):
    id: int
    type: str
    path: str
    dst_path: str = ""
    size: Optional[int] = None
    mtime_ns: Optional[int] = None
    node: str = ""


class Event(_EventFields):
    """One change. `id` grows by one with each event of a node and is about the microseconds since 1970, so that the
    numbers of a later process are larger. `path` is what changed (of a move: what it was, `dst_path` what it is now).
    `size` and `mtime_ns` are those after the change, of files that have them."""

    def data(self) -> dict[str, Any]:
        """As users see it (remfs.md, "events")."""
        values = {"type": self.type, "path": self.path, "dstPath": self.dst_path or None, "size": self.size,
                  "mtime": None if self.mtime_ns is None else rfc3339(self.mtime_ns), "node": self.node}
        return {name: value for name, value in values.items() if value is not None}

    @functools.cached_property
    def block(self) -> bytes:
        """As `text/event-stream` has it; made once, however many subscribers get it."""
        data = json.dumps(self.data(), ensure_ascii=False, separators=(",", ":"))
        return f"id: {self.id}\nevent: {self.type}\ndata: {data}\n\n".encode("utf-8", "replace")

    def concerns(self, path: str) -> bool:
        """Whether it is a change of this path, below it, or of a directory above that went away or moved."""
        inside = self.type in ("delete", "move")
        return path == "/" or any(is_below(changed, path) or inside and is_below(path, changed)
                                  for changed in (self.path, self.dst_path) if changed)


class Hub:
    """The events of a server: a ring of the last ones, and who waits for more.

    A subscriber has no queue, only the number of the first event that it has not seen: however slow it is, it costs
    nothing, and when the ring has gone over it it is told so (`reset`). `publish` is called after a change is durable;
    events of changes that race for one path may come in either order. `sinks` are called with each event before
    `publish` returns; they must not raise. `close` it.
    """

    def __init__(self, node: str = "", *, history: int = 10_000, most: int = 10_000, heartbeat: float = 15.0) -> None:
        self.node, self.sinks = node, []    # type: tuple[str, list[Callable[[Event], None]]]
        self._ring: list[Optional[Event]] = [None] * max(1, history)
        self._first = self._next = time.time_ns() // 1000
        self._most, self._heartbeat = most, heartbeat
        self._changed = threading.Condition(threading.Lock())   # notified for subscribers that wait in a thread
        self._watchers: dict[str, set[Subscription]] = {}       # by the path that they watch
        self._count, self._ended = 0, threading.Event()
        self._pulse: Optional[threading.Thread] = None

    @property
    def last(self) -> int:
        """The number of the newest event, or the one before the first."""
        return self._next - 1

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return self._count

    def publish(self, kind: str, path: str, dst_path: str = "", size: Optional[int] = None,
                mtime_ns: Optional[int] = None, node: str = "") -> Event:
        """Tell of a change; `node` where another one made it. Costs some microseconds while nobody waits."""
        with self._changed:
            event = Event(self._next, kind, path, dst_path, size, mtime_ns, node or self.node)
            self._ring[event.id % len(self._ring)] = event
            self._next += 1
            fresh = [each for each in self._concerned(event) if each.pend(event.id)] if self._watchers else []
            if fresh:
                self._changed.notify_all()
        for sink in self.sinks:
            sink(event)
        for each in fresh:                  # outside the lock: an answer may go on in this very call
            each.wake()
        return event

    def _concerned(self, event: Event) -> Iterator[Subscription]:
        changed = [event.path, event.dst_path] if event.dst_path else [event.path]
        above = {folder for path in changed for folder in (*ancestors(path), path)}
        if event.type in ("delete", "move"):            # what was watched inside went away, too
            above.update(path for path in self._watchers if any(is_below(path, each) for each in changed))
        for path in above:
            yield from self._watchers.get(path, ())

    def subscribe(self, path: str, since: Optional[int] = None) -> Subscription:
        """Events of a path and all below it, from now on or behind the event `since`. The caller closes it. Raises
        Unavailable when there are too many subscribers, or the hub is closed."""
        with self._changed:
            if self._ended.is_set():
                raise Unavailable("The server stops.")
            if self._count >= self._most:
                raise Unavailable("There are too many subscribers; try again later (events.max_subscribers).",
                                  retry_after=self._heartbeat)
            if self._pulse is None:
                pulse = threading.Thread(target=self._beat, name="callfs-events", daemon=True)
                pulse.start()
                self._pulse = pulse
            subscription = Subscription(self, path, self._next - 1 if since is None else since)
            if subscription.position != self._next - 1:
                subscription.pending = subscription.position + 1
            self._watchers.setdefault(path, set()).add(subscription)
            self._count += 1
        return subscription

    def _beat(self) -> None:
        """Wakes every subscriber once a heartbeat, so that its connection is seen to live, or not to."""
        for turn in itertools.count():
            if self._ended.wait(self._heartbeat / PULSES):
                return
            with self._changed:
                due = [each for watchers in self._watchers.values() for each in watchers
                       if id(each) // 64 % PULSES == turn % PULSES]
                for each in due:
                    each.beat = True
                self._changed.notify_all()
            for each in due:
                each.wake()

    def taken(self, subscription: Subscription, wait: bool) -> Optional[list[Event]]:
        """For `Subscription.take`. Looks through the ring a batch at a time, and not under the lock: who asks for a
        long history must not hold up who publishes."""
        while True:
            with self._changed:
                while wait and subscription.pending is None and not (subscription.beat or self._ended.is_set()):
                    self._changed.wait()
                if self._ended.is_set():
                    return []
                if subscription.pending is None:
                    subscription.due, subscription.beat = subscription.beat, False
                    subscription.position = self._next - 1
                    return None
                events = self._batch(subscription, subscription.pending)
            events = [event for event in events if event.concerns(subscription.path)]
            if events:
                return events

    def _batch(self, subscription: Subscription, first: int) -> list[Event]:
        """The next few, so that what a slow subscriber holds stays small."""
        if not max(self._first, self._next - len(self._ring)) <= first <= self._next:
            subscription.pending, subscription.position = None, self._next - 1
            return [Event(self._next - 1, RESET, subscription.path, node=self.node)]
        behind = min(self._next, first + BATCH)
        subscription.pending, subscription.position = behind if behind < self._next else None, behind - 1
        events = [self._ring[number % len(self._ring)] for number in range(first, behind)]
        return events                       # type: ignore[return-value]

    def leave(self, subscription: Subscription) -> None:
        """For `Subscription.close`."""
        with self._changed:
            watchers = self._watchers.get(subscription.path, set())
            if subscription in watchers:
                watchers.discard(subscription)
                self._count -= 1
                if not watchers:
                    del self._watchers[subscription.path]

    def close(self) -> None:
        """End every subscription; safe to call twice. Events are still taken, for nobody."""
        with self._changed:
            self._ended.set()
            ended = [each for watchers in self._watchers.values() for each in watchers]
            self._changed.notify_all()
        for each in ended:
            each.wake()
        if self._pulse is not None and self._pulse is not threading.current_thread():
            self._pulse.join()


class Subscription:
    """Somebody who waits for events of a path and all below it. `position`: the number of the last event that `take`
    has looked at, to go on from there later."""

    __slots__ = ("_hub", "_wake", "path", "pending", "beat", "due", "position")

    def __init__(self, hub: Hub, path: str, position: int) -> None:
        self._hub, self.path, self.position = hub, path, position
        self.pending: Optional[int] = None  # the number of the first event that it has not seen
        self.beat = self.due = False        # a heartbeat is due; it was so when `take` gave None
        self._wake: Optional[Callable[[], None]] = None

    def attach(self, wake: Callable[[], None]) -> None:
        """From now on `take` never waits, and `wake()` (any thread) says that it may have something."""
        self._wake = wake

    def take(self) -> Optional[list[Event]]:
        """The next events, waiting for them unless attached; None: none yet (`due`: a heartbeat); []: the server stops.
        An event of the type `reset` says that some were lost."""
        return self._hub.taken(self, self._wake is None)

    def pend(self, number: int) -> bool:
        """Under the hub's lock: there is an event for it; whether it has to be woken."""
        if self.pending is not None:
            return False
        self.pending = number
        return True

    def wake(self) -> None:
        """It may have something."""
        if self._wake is not None:
            self._wake()

    def close(self) -> None:
        """Wait no more; safe to call twice."""
        self._hub.leave(self)


# ============================================================================
# Search: lines that match, within a time box
# ============================================================================

PATTERN_LENGTH = 4096                       # characters of a pattern
SEARCH_BLOCK = 1024 * 1024                  # bytes looked at in one step; a longer line is looked at in pieces of this
SEARCH_SECONDS = 10.0                       # for a block: a good pattern needs some 10 ms
SHOWN_LINE = 16 * 1024                      # characters of a line that are shown
_NO_PATTERN = re.compile(r"[^][\\.^$*+?{}()|]*")      # text that means itself


class Lines:
    """Whole lines of a reader, in blocks of about SEARCH_BLOCK: (number of the first line, lines without their end)."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[tuple[int, list[bytes]]]:
        number, rest = 1, b""
        for data in iter(lambda: self._reader.read(SEARCH_BLOCK), b""):
            block, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                lines = block.split(b"\n")
                yield number, lines
                number += len(lines)
            elif len(rest) >= SEARCH_BLOCK:             # a line without an end: a piece of it
                yield number, [rest]
                rest = b""
        if rest:
            yield number, [rest]


class Search:
    """Which lines match a pattern. `find` takes lines and gives the indexes of those that do; close it at the end.

    A text without anything special is looked for here. Python's regular expressions go back and try again, for some
    patterns longer than anybody lives, and hold the interpreter's lock meanwhile (CVE-2026-28356): so a child process
    runs them, which is killed when a block takes longer than SEARCH_SECONDS. Raises BadRequest for a pattern that is
    none, or that takes too long.
    """

    def __init__(self, pattern: str, ignore_case: bool = False, seconds: float = SEARCH_SECONDS) -> None:
        if not pattern or len(pattern) > PATTERN_LENGTH:
            raise BadRequest(f"`pattern` is a regular expression of 1 to {PATTERN_LENGTH} characters.")
        self._seconds, self._child = seconds, None      # type: float, Optional[subprocess.Popen[bytes]]
        if _NO_PATTERN.fullmatch(pattern) and not (ignore_case and not pattern.isascii()):
            needle = pattern.encode("utf-8", "surrogateescape")
            self.find = functools.partial(_containing, needle.lower() if ignore_case else needle, ignore_case)
        else:
            self.find = self._ask
            self._start(pattern, re.IGNORECASE if ignore_case else 0)

    def _start(self, pattern: str, flags: int) -> None:
        if not sys.executable:
            raise NotSupported("Patterns need a Python interpreter beside this program; plain text can be searched for.")
        self._child = subprocess.Popen([sys.executable, "-I", "-S", "-c", _SEARCHER, str(int(flags))],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            self._exchange(pattern.encode("utf-8", "surrogateescape"))
        except BaseException:
            self.close()
            raise

    def _ask(self, lines: Sequence[bytes]) -> list[int]:
        answer = self._exchange(b"\n".join(lines))
        return list(struct.unpack(f">{len(answer) // 4}I", answer))

    def _exchange(self, data: bytes) -> bytes:
        """One frame to the child, one back: a byte that says whether it went well, and what it found."""
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None
        watchdog = threading.Timer(self._seconds, child.kill)
        watchdog.name, watchdog.daemon = "callfs-search", True
        watchdog.start()
        try:
            child.stdin.write(struct.pack(">I", len(data)) + data)
            child.stdin.flush()
            head = child.stdout.read(5)
            answer = child.stdout.read(int.from_bytes(head[1:], "big"))
        except OSError:
            head = b""
        finally:
            watchdog.cancel()
            watchdog.join()
        if len(head) < 5:
            raise BadRequest(f"Searching for this pattern takes too long (over {self._seconds:g} s); make it simpler.")
        if head[:1] != b"+":
            raise BadRequest(f"`pattern` is not a regular expression: {answer.decode('utf-8', 'replace')}.")
        return answer

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):      # what it did not take any more
                    pipe.close()            # type: ignore[union-attr]
            child.wait()


def _containing(needle: bytes, ignore_case: bool, lines: Sequence[bytes]) -> list[int]:
    if ignore_case:
        return [index for index, line in enumerate(lines) if needle in line.lower()]
    return [index for index, line in enumerate(lines) if needle in line]


# What the child runs: frames of a length (4 bytes) and data; the first is the pattern, the others are lines.
_SEARCHER = """
import re, struct, sys
source, target = sys.stdin.buffer, sys.stdout.buffer
def take():
    head = source.read(4)
    return source.read(int.from_bytes(head, 'big')).decode('utf-8', 'surrogateescape') if len(head) == 4 else None
def give(kind, data=b''):
    target.write(kind + struct.pack('>I', len(data)) + data)
    target.flush()
try:
    search = re.compile(take(), int(sys.argv[1])).search
except (re.error, OverflowError, RecursionError) as error:
    give(b'-', str(error).encode('utf-8', 'replace'))
    sys.exit()
give(b'+')
for lines in iter(take, None):
    found = [index for index, line in enumerate(lines.split(chr(10))) if search(line)]
    give(b'+', struct.pack('>%dI' % len(found), *found))
"""


# ============================================================================
# The tree: the filesystem interface, principals and rights, the one way in
# ============================================================================


class Principal(NamedTuple):
    """Who asks. `trusted` users (`root`, `internal-proxy`) pass every check. `verbs` is what somebody without a key may
    do at most; None: whoever this is has shown a key."""

    name: str
    trusted: bool = False
    admin: bool = False                     # may change the server: mounts, plugins
    verbs: Optional[frozenset[str]] = None


ROOT = Principal("root", trusted=True, admin=True)
ANYONE = "*"                                # the owner of what every user may change (a queue, a key-value store)

Wish = Mapping[str, str]                    # what a reader asks for besides bytes: {"stream": "true"}, {"wait": "30s"}
NO_WISH: Wish = MappingProxyType({})

Guard = Callable[[Optional[Entry]], None]   # is called with what is there, under the lock; raises to refuse


class WriteOptions(NamedTuple):
    """What an upload may ask for besides its bytes."""

    mode: Optional[int] = None              # default: that of the file it replaces, else 0644
    mtime_ns: Optional[int] = None          # default: now
    sha256: str = ""                        # refuse the body unless it has this digest (hexadecimal)


class Written(NamedTuple):
    """What a write did. `message` is what the filesystem says of it (a queue: the message's id)."""

    entry: Entry
    created: bool
    message: str = ""
    told: bool = False                      # the filesystem has told of what it made, as it was made


class Handle:
    """An opened path: what it is, and readers of its bytes as they were when it was opened. Whoever gets it closes it;
    closing a reader closes its handle. `data` are the bytes where they are in memory already."""

    data: Optional[bytes] = None
    fixed = True                            # the bytes are those of `entry`: its size, ranges and ETag hold
    consumes = False                        # a `reader` takes something out: only who asked for exactly this may have one
    refusal: Optional[CallFSError] = None   # why whoever opened it may not have one

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def reader(self, start: int = 0, stop: Optional[int] = None) -> Reader:
        """The bytes from `start` to before `stop` (default: the end)."""
        raise NotSupported("This can not be read.")

    def close(self) -> None:
        """Let go."""


def takes_only(entry: Entry) -> bool:
    """Whether this is a place to write to rather than a file that holds something (a queue's `enqueue`)."""
    return entry.owner == ANYONE and not entry.is_dir and not entry.mode & 0o444


class FileHandle(Handle):
    """A handle on a file of this machine."""

    def __init__(self, entry: Entry, fd: int) -> None:
        self.entry, self._fd = entry, fd

    def reader(self, start: int = 0, stop: Optional[int] = None) -> Reader:
        """As the base says."""
        return FileReader(self._fd, start, (self.entry.size if stop is None else stop) - start, self)

    def close(self) -> None:
        """Close the descriptor, once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class MemoryHandle(Handle):
    """A handle on bytes that are in memory."""

    def __init__(self, entry: Entry, data: bytes) -> None:
        self.entry, self.data = entry, data

    def reader(self, start: int = 0, stop: Optional[int] = None) -> Reader:
        """As the base says."""
        part = (self.data or b"")[start:stop]
        return ChunkReader((part,), len(part))


class LiveHandle(Handle):
    """A handle on what has no size yet: a stream, the next message of a queue. `make` gives the reader, once."""

    fixed = False

    def __init__(self, entry: Entry, make: Callable[[], Reader], consumes: bool = False) -> None:
        self.entry, self._make, self.consumes = entry, make, consumes

    def reader(self, start: int = 0, stop: Optional[int] = None) -> Reader:
        """All of it: it has no parts. Raises the refusal, if there is one."""
        if self.refusal is not None:
            raise self.refusal
        return self._make()


class Meta(NamedTuple):
    """What a filesystem says of an entry besides its numbers (pfs.md: `meta`)."""

    name: str                               # the filesystem
    type: str                               # what the entry is to it: file, directory, queue, control, stream, ...
    content: Optional[Mapping[str, str]] = None


class FileSystem:
    """One mountable filesystem. Paths are canonical and relative to its mount point; so are the paths of the entries
    that it gives, which the tree turns into those that users see.

    Errors are CallFSErrors. What a filesystem can not do it leaves to this class, which answers 501. `guard` carries
    rights and conditions: a filesystem calls it with the entry that is there (or None) at the moment of the change,
    under its own lock, and knows nothing else of them. A writing method has made its change durable on return.
    """

    name = "filesystem"
    root_type = DIRECTORY                   # what its mount point is; a FILE has nothing below it
    slow = False                            # its operations may wait for another machine or process

    @dataclass
    class Options:
        """What its mounts can be told: fields made with `option`. `aliases` of the class are other spellings."""

    aliases: Mapping[str, str] = MappingProxyType({})

    def stat(self, path: str) -> Entry:
        """The entry at a path. Raises FileNotFound."""
        raise self._unsupported("stat")

    def peek(self, path: str) -> Optional[Entry]:
        """What a writer to this path would find, None for nothing."""
        try:
            return self.stat(path)
        except FileNotFound:
            return None

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """A handle for reading; of a directory, one without a reader. Raises FileNotFound. Opening changes nothing."""
        raise self._unsupported("reading")

    def describe(self, entry: Entry) -> Meta:
        """What there is to say of one of its entries."""
        return Meta(self.name, entry.type)

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """Children by name in code point order, those behind the name `after`. Raises FileNotFound, Conflict."""
        raise self._unsupported("listing")

    def write(self, path: str, body: Body, owner: str, guard: Guard, options: WriteOptions) -> Written:
        """Create or replace a file as a whole; missing parents are made. A body that fails changes nothing."""
        raise self._unsupported("writing")

    def patch(self, path: str, body: Body, offset: int, guard: Guard) -> Written:
        """Write at an offset up to the size; what arrived before a failure stays. Raises RangeNotSatisfiable."""
        raise self._unsupported("writing at an offset")

    def mkdir(self, path: str, owner: str, guard: Guard, mode: int = 0o755) -> Written:
        """Make a directory and its missing parents; one that is there already is left as it is."""
        raise self._unsupported("making directories")

    def remove(self, path: str, recursive: bool, guard: Guard) -> None:
        """Remove a file or a directory; the guard sees every entry that would go."""
        raise self._unsupported("deleting")

    def move(self, source: str, target: str, owner: str, guard: Guard, target_guard: Guard, parents: bool) -> Entry:
        """Rename within this filesystem, directories with all that is in them."""
        raise self._unsupported("moving")

    def chmod(self, path: str, mode: int, guard: Guard) -> Entry:
        """Set the permission bits (at most 0o7777) of what is there. Raises FileNotFound by the guard."""
        raise self._unsupported("changing modes")

    def touch(self, path: str, mtime_ns: int, guard: Guard) -> Entry:
        """Set the time of the last change of what is there; the bytes and their ETag stay."""
        raise self._unsupported("setting times")

    def truncate(self, path: str, size: int, guard: Guard) -> Written:
        """Cut a file, or fill it up with zeros, to `size` bytes."""
        raise self._unsupported("truncating")

    def check(self) -> dict[str, str]:
        """Its parts by name, each with "ok" or with what keeps it from serving now."""
        return {}

    def quiesce(self) -> None:
        """The server stops: readers that wait for more end now, those to come at once; all else goes on."""

    def close(self) -> None:
        """Let go of everything; safe to call twice, and while operations are under way: those fail or finish, and
        readers end."""

    def operations(self) -> list[str]:
        """Those of the methods above that it has: what it was not given it can not do."""
        return [verb for verb in _VERB_METHODS if getattr(type(self), verb) is not getattr(FileSystem, verb)]

    def _unsupported(self, what: str) -> NotSupported:
        return NotSupported(f"{self.name} does not support {what}; it supports: {', '.join(self.operations())}.")


_VERB_METHODS = ("stat", "open", "list", "write", "patch", "mkdir", "remove", "move", "chmod", "touch", "truncate")

# verb: whether only the owner may (rest.md, "Ownership")
VERBS = {"read": False, "list": False, "link": False, "create": False, "mkdir": False,
         "replace": True, "patch": True, "delete": True, "move": True, "chmod": True, "touch": True}

# What `auth.mode` leaves to users other than the trusted ones.
MODES = {
    "full": frozenset(VERBS),
    "read-only": frozenset({"read", "list", "link"}),
    "upload-only": frozenset({"create", "mkdir"}),
    "no-delete": frozenset({"read", "list", "link", "create", "mkdir"}),
}

# What `auth.anonymous` gives to whoever comes without a key. A link would outlive the setting.
ANONYMOUS_VERBS = {
    "none": frozenset(), "read": frozenset({"read", "list"}), "write": frozenset(VERBS) - {"link"},
}
ANONYMOUS = {level: Principal("anonymous", verbs=verbs) for level, verbs in ANONYMOUS_VERBS.items()}


MAX_DEPTH = 1000                            # levels that a walk goes down
PROGRESS_SECONDS = 5.0
DIGESTS: dict[str, Callable[[], Any]] = {   # checksums, not secrets: MD5 also where the system forbids it for those
    "md5": functools.partial(hashlib.md5, usedforsecurity=False), "sha256": hashlib.sha256}


class Place(NamedTuple):
    """Where a path leads: the filesystem, its mount point ("" for the root) and the path inside."""

    filesystem: FileSystem
    mount: str
    inner: str

    def shown(self, entry: Entry) -> Entry:
        """An entry of the filesystem under the path that users see."""
        if not self.mount:
            return entry
        return entry._replace(path=self.mount if entry.path == "/" else self.mount + entry.path)

    def written(self, written: Written) -> Written:
        """The same for what a write did."""
        return written if not self.mount else written._replace(entry=self.shown(written.entry))

    def opened(self, handle: Handle) -> Handle:
        """The same for a handle."""
        if self.mount:
            handle.entry = self.shown(handle.entry)
        return handle


class Match(NamedTuple):
    """A line that matches: where it is, its number from 1, its text."""

    path: str
    line: int
    content: str


class MountTable(NamedTuple):
    """What is mounted where; never changed, only exchanged, so that looking up needs no lock.

    `tops` are the first names of all mount points: most paths are done with one look into it. `inside` has, for each
    directory that lies above a mount point, the names that lead on and since when.
    """

    mounts: Mapping[str, FileSystem] = MappingProxyType({})
    since: Mapping[str, int] = MappingProxyType({})
    tops: frozenset[str] = frozenset()
    inside: Mapping[str, Mapping[str, int]] = MappingProxyType({})

    def holds(self, path: str) -> list[str]:
        """The mount points at a path and below it."""
        return [mount for mount in self.mounts if is_below(mount, path)] if self.mounts else []

    def with_mount(self, path: str, filesystem: FileSystem, since_ns: int) -> MountTable:
        """One more."""
        return _mount_table({**self.mounts, path: filesystem}, {**self.since, path: since_ns})

    def without(self, path: str) -> MountTable:
        """One fewer."""
        left = {mount: filesystem for mount, filesystem in self.mounts.items() if mount != path}
        return _mount_table(left, {mount: self.since[mount] for mount in left})


def _mount_table(mounts: Mapping[str, FileSystem], since: Mapping[str, int]) -> MountTable:
    inside: dict[str, dict[str, int]] = {}
    for mount in mounts:
        for above in (*ancestors(mount), mount):
            parent, name = split_path(above)
            if above != "/":
                names = inside.setdefault(parent, {})
                names[name] = max(names.get(name, 0), since[mount])
    return MountTable(mounts, since, frozenset(mount.split("/", 2)[1] for mount in mounts), inside)


MAX_HOPS = 8                                # servers that a request may go through; two that show each other never end
HOPS_HEADER = "X-CallFS-Hops"


class CallContext(threading.local):
    """What a filesystem may know of the call that this thread is in the middle of.

    `hops`: how many servers the request went through before this one. A filesystem knows no HTTP and a principal does
    not reach it; to hand the number through every method would put it into twenty signatures for the one filesystem
    that asks. So whoever takes requests in sets it for the thread and the time of the call.
    """

    hops = 0

    @contextlib.contextmanager
    def at(self, hops: int) -> Iterator[None]:
        """As if the call had come through so many servers."""
        before, self.hops = self.hops, hops
        try:
            yield
        finally:
            self.hops = before


class Tree:
    """All files, whatever holds them: finds the filesystem of a path, checks rights, counts.

    Every dialect calls this and nothing below it, so that no dialect can forget a check. A method is one operation:
    (principal, canonical path, ...). Whatever changes calls `guard` under the filesystem's lock, so that rights and
    conditions are those of the moment of the change.

    The directories above a mount point are there whether or not a filesystem has them, and a mount point shows in the
    listing of its parent, without being asked: a database that is down must not hold up a listing.
    """

    def __init__(self, root: FileSystem, *, mode: str = "full", metrics: Optional[Metrics] = None,
                 log: Optional[Log] = None, hub: Optional[Hub] = None) -> None:
        self._root, self._table, self._mounting = root, MountTable(), threading.Lock()
        self._metrics, self._log = metrics or Metrics(), log
        self._allowed = MODES[mode]
        self.calls, self.hub = CallContext(), hub or Hub()

    def close(self) -> None:
        """Close the hub and every filesystem, the innermost first."""
        self.hub.close()
        for _, filesystem in sorted(self._table.mounts.items(), reverse=True):
            filesystem.close()
        self._root.close()

    def quiesce(self) -> None:
        """End readers that would wait for ever, so that a server can stop."""
        self.hub.close()
        for filesystem in self._table.mounts.values():
            filesystem.quiesce()

    def check(self) -> dict[str, str]:
        """The parts of the store, each with "ok" or with what is wrong with it."""
        return self._root.check()

    def check_mounts(self) -> dict[str, str]:
        """The same for what is mounted, by mount point: without it the server still does the rest of its work."""
        return {f"{path}: {part}": state for path, filesystem in self._table.mounts.items()
                for part, state in filesystem.check().items()}

    # -- mounts ------------------------------------------------------------------------------------------------

    def mount(self, path: str, filesystem: FileSystem) -> None:
        """Cover a path. Raises Conflict where that can not be. Who may is the caller's business (`Mounts`)."""
        with self._mounting:
            self.may_mount(path)
            self._table = self._table.with_mount(path, filesystem, time.time_ns())
        self.hub.publish("create", path)

    def may_mount(self, path: str) -> None:
        """Raises Conflict for the root, a mount point, and what has a file above it."""
        if path == "/":
            raise Conflict("The root is the store; choose another mount point, as /memfs.")
        if path in self._table.mounts:
            raise Conflict(f"Something is mounted at {path} already; unmount it first.")
        for above in ancestors(path):
            there = self._peek(above)
            if there is not None and not there.is_dir:
                raise Conflict(f"{above} is a file; nothing can be mounted below it.")

    def unmount(self, path: str) -> FileSystem:
        """Uncover a path; the filesystem is still open. Raises FileNotFound, and Conflict while another is inside."""
        with self._mounting:
            if path not in self._table.mounts:
                raise FileNotFound("Nothing is mounted there.")
            inner = [mount for mount in self._table.holds(path) if mount != path]
            if inner:
                raise Conflict(f"{inner[0]} is mounted inside; unmount it first.")
            filesystem = self._table.mounts[path]
            self._table = self._table.without(path)
        self.hub.publish("delete", path)
        return filesystem

    def mount_points(self) -> dict[str, str]:
        """What type of filesystem is mounted where."""
        return {path: filesystem.name for path, filesystem in sorted(self._table.mounts.items())}

    def slow(self, path: str) -> bool:
        """Whether what is asked of this path may have to wait for another machine: then others should go on."""
        return bool(self._table.tops) and self._find(path).filesystem.slow

    def _find(self, path: str) -> Place:
        """The filesystem of the longest mount point that holds a path, and the path inside it."""
        table = self._table
        if table.tops and path.split("/", 2)[1] in table.tops:
            above = path
            while above:
                filesystem = table.mounts.get(above)
                if filesystem is not None:
                    return Place(filesystem, above, path[len(above):] or "/")
                above = above.rpartition("/")[0]
        return Place(self._root, "", path)

    def _mounted(self, path: str) -> Optional[Entry]:
        """The entry of a mount point or of a directory above one, as far as the mount table knows."""
        table, (parent, name) = self._table, split_path(path)
        since = table.inside.get(parent, {}).get(name)
        if since is None:
            return None
        filesystem = table.mounts.get(path)
        kind, backend = (filesystem.root_type, filesystem.name) if filesystem else (DIRECTORY, "mount")
        return Entry(path, kind, 0, 0o755 if kind == DIRECTORY else 0o644, "root", since, backend=backend)

    def _peek(self, path: str) -> Optional[Entry]:
        """What a writer to this path would find."""
        place = self._find(path)
        there = place.filesystem.peek(place.inner)
        return place.shown(there) if there is not None else self._mounted(path) if self._table.inside else None

    def _refuse_mounts(self, path: str, verb: str) -> None:
        """Removing and moving must not reach what is mounted."""
        inside = self._table.holds(path)
        if inside:
            raise Conflict(f"{inside[0]} is a mount point; it can not be {verb}, but it can be unmounted.")

    def authorise(self, who: Principal, verb: str, entry: Optional[Entry] = None) -> None:
        """Raises PermissionDenied, or AuthenticationFailed where a key could help. What came from outside is root's,
        and no key can be root's: an administrator may change it in root's place."""
        if who.trusted:
            return
        if who.verbs is not None and verb not in who.verbs:
            raise AuthenticationFailed(headers=[("WWW-Authenticate", "Bearer")])
        if verb not in self._allowed:
            raise PermissionDenied(f"This server's mode does not let you {verb}.")
        if VERBS[verb] and entry is not None and entry.owner not in (who.name, ANYONE) \
                and not (who.admin and entry.owner == "root"):
            raise PermissionDenied(f"Only the owner ({entry.owner}) may {verb} this.")

    @staticmethod
    def administer(who: Principal) -> None:
        """Raises PermissionDenied for who may not change the server (mounts, plugins), AuthenticationFailed without a
        key."""
        if who.verbs is not None:
            raise AuthenticationFailed("Changing the server needs an administrator's key.",
                                       headers=[("WWW-Authenticate", "Bearer")])
        if not who.admin:
            raise PermissionDenied("Only an administrator may change the server: the user root, or one that is named in "
                                   "auth.admins.")

    def _count(self, operation: str, entry: Entry) -> None:
        self._metrics.count("callfs_file_operations_total", operation, entry.backend)

    def _changed_by(self, operation: str, entry: Entry) -> None:
        """Count a change and tell of it. What only takes (a queue's `enqueue`) has no size of its own."""
        self._count(operation, entry)
        plain = not entry.is_dir and entry.owner != ANYONE
        self.hub.publish(operation, entry.path, "", entry.size if plain else None, entry.mtime_ns if plain else None)

    def subscribe(self, who: Principal, path: str, since: Optional[int] = None) -> Subscription:
        """Events of a path, which need not be there, and all below it; the caller closes it. Whoever may list and read
        may do so everywhere, so that one check at the beginning is enough. Raises Unavailable, as `Hub.subscribe`."""
        self.may_subscribe(who)
        return self.hub.subscribe(path, since)

    def may_subscribe(self, who: Principal) -> None:
        """Raises what `subscribe` would raise for lack of rights."""
        self.authorise(who, "list")
        self.authorise(who, "read")

    # -- reading -----------------------------------------------------------------------------------------------

    def stat(self, who: Principal, path: str) -> Entry:
        """The entry at a path. Raises FileNotFound."""
        self.authorise(who, "read")
        place = self._find(path)
        try:
            return place.shown(place.filesystem.stat(place.inner))
        except FileNotFound:
            return self._above_mounts(path)

    def _above_mounts(self, path: str) -> Entry:
        """The directory above a mount point that no filesystem has; else raises again what is being handled."""
        entry = self._mounted(path) if path in self._table.inside else None
        if entry is None:
            raise                           # noqa: PLE0704 (called while FileNotFound is handled)
        return entry

    def open(self, who: Principal, path: str, wish: Wish = NO_WISH) -> Handle:
        """A handle for reading; the caller closes it. Raises FileNotFound."""
        self.authorise(who, "read")
        place = self._find(path)
        try:
            handle = place.opened(place.filesystem.open(place.inner, wish))
        except FileNotFound:
            handle = Handle(self._above_mounts(path))
        if handle.consumes:                 # taking a message out is no mere reading: `read` alone must not drain a queue
            try:
                self.authorise(who, "delete", handle.entry)
            except CallFSError as error:    # but who only looks may open it
                handle.refusal = error
        self._count("read", handle.entry)
        return handle

    def describe(self, who: Principal, entry: Entry) -> Meta:
        """What the filesystem of an entry says of it."""
        self.authorise(who, "read")
        place = self._find(entry.path)
        return place.filesystem.describe(entry._replace(path=place.inner))

    def capabilities(self, who: Principal, path: str) -> tuple[str, list[str]]:
        """The type of the filesystem that holds a path, which need not be there, and the operations that it has."""
        self.authorise(who, "read")
        filesystem = self._find(path).filesystem
        return filesystem.name, filesystem.operations()

    def features(self, who: Principal, path: str) -> dict[str, bool]:
        """Which features of remFS somebody has at a path: `read`, `write`, `events`, `perf`. Raises FileNotFound."""
        return self.features_of(who)(self.stat(who, path))

    def features_of(self, who: Principal) -> Callable[[Entry], dict[str, bool]]:
        """The same for many entries. Of a directory `write` means to make something in it."""
        known: dict[tuple[object, ...], dict[str, bool]] = {}

        def features(entry: Entry) -> dict[str, bool]:
            filesystem = self._find(entry.path).filesystem
            kind = (filesystem, entry.type, entry.owner, takes_only(entry))
            if kind not in known:
                known[kind] = self._features(who, entry, filesystem.operations())
            return known[kind]
        return features

    def _features(self, who: Principal, entry: Entry, operations: Sequence[str]) -> dict[str, bool]:
        read = ("list" if entry.is_dir else "open") in operations and not takes_only(entry) and \
            self._may(who, "list" if entry.is_dir else "read", entry)
        write = "write" in operations and self._may(who, "create" if entry.is_dir else "replace", entry)
        return {"read": read, "write": write, "events": self._may(who, "list", entry), "perf": True}

    def _may(self, who: Principal, verb: str, entry: Entry) -> bool:
        try:
            self.authorise(who, verb, entry)
        except CallerError:
            return False
        return True

    def list(self, who: Principal, path: str, after: str = "") -> Iterator[Entry]:
        """Children by name. Raises FileNotFound, and Conflict where a file is."""
        self.authorise(who, "list")
        place, names = self._find(path), self._table.inside.get(path)
        if not names:
            found = place.filesystem.list(place.inner, after)
            return map(place.shown, found) if place.mount else found
        try:
            found = map(place.shown, place.filesystem.list(place.inner, after))
        except FileNotFound:
            found = iter(())
        return self._with_mounts(path, found, sorted(name for name in names if name > after))

    def _with_mounts(self, path: str, found: Iterator[Entry], names: Sequence[str]) -> Iterator[Entry]:
        """Children as a filesystem has them, and what the mount table adds to or puts in their place."""
        added = (entry for entry in (self._mounted(join_path(path, name)) for name in names) if entry is not None)
        name_of, last = operator.attrgetter("name"), None
        for entry in heapq.merge(added, found, key=name_of):        # of equal names the added one comes first
            if last is None or entry.name != last:
                yield entry
            last = entry.name

    def walk(self, who: Principal, path: str, depth: int, after: str = "") -> Iterator[Entry]:
        """A directory's children and `depth` levels below them, in the order of their paths as text.

        That order is not the order of a depth-first walk: "a.txt" stands between "a" and "a/b". So a heap holds what
        comes next from each open directory, and each directory that waits to be opened as its path with a "/" behind,
        which is where its children begin. Paths up to `after` are left out, and directories that lie wholly before
        it are not opened. A directory that goes away meanwhile ends there.
        """
        if _FORBIDDEN.search(after):
            raise BadRequest("`after` is not a path.")
        waiting: list[tuple[str, int, Optional[Entry], Iterator[Entry]]] = [(_inside(path), depth, None, iter(()))]
        while waiting:
            key, levels, entry, rest = heapq.heappop(waiting)
            if entry is None:               # a directory whose turn has come
                for folder in self._across(key, after) if levels > 0 else ():
                    heapq.heappush(waiting, (_inside(folder), levels - 1, None, iter(())))
                rest = self._behind(who, key, after, strict=key == _inside(path))
            else:
                yield entry
                if entry.is_dir and levels > 0 and entry.backend != SYMLINK:
                    heapq.heappush(waiting, (_inside(entry.path), levels - 1, None, iter(())))
            entry = next(rest, None)
            if entry is not None:
                heapq.heappush(waiting, (entry.path, levels, entry, rest))

    def _behind(self, who: Principal, key: str, after: str, strict: bool) -> Iterator[Entry]:
        """Those children of a directory (`key` has the "/" behind it) whose own path sorts behind `after`."""
        if after > key and not after.startswith(key):
            return                          # all of it sorts before
        try:
            yield from self.list(who, key[:-1] or "/", after[len(key):] if after > key else "")
        except (FileNotFound, Conflict):
            if strict:
                raise

    def _across(self, key: str, after: str) -> Iterator[str]:
        """Directories in a directory that sort before `after`, but not all that is in them does: those that `after`
        lies in ("a" for "a/b"), and its beginnings before a character that sorts before "/" ("a" for "a.txt")."""
        name = after[len(key):].partition("/")[0] if after.startswith(key) else ""
        for cut in range(1, len(name) + 1):
            if after[len(key) + cut:][:1] <= "/" and name[:cut] not in (".", ".."):
                entry = self._peek(key + name[:cut])
                if entry is not None and entry.is_dir and entry.backend != SYMLINK:
                    yield key + name[:cut]

    def digest(self, who: Principal, path: str, algorithm: str = "sha256") -> str:
        """MD5 or SHA-256 of a file's bytes, hexadecimal, read now. Raises BadRequest for what has no fixed bytes."""
        if algorithm not in DIGESTS:
            raise BadRequest(f"`algorithm` is one of {', '.join(DIGESTS)}.")
        handle = self.open(who, path)
        with contextlib.closing(handle):
            self._only_file(handle)
            state = DIGESTS[algorithm]()
            for block in handle.reader():
                state.update(block)
        return state.hexdigest()

    @staticmethod
    def _only_file(handle: Handle) -> None:
        """What reads a file's bytes for their own sake must not take a message out of a queue, or wait for ever."""
        if handle.entry.is_dir:
            raise BadRequest("This is a directory.")
        if not handle.fixed:
            raise BadRequest("This file has no fixed content: every look at it gives something else.")

    def grep(self, who: Principal, path: str, pattern: str, *, recursive: bool = False,
             ignore_case: bool = False) -> Iterator[Match]:
        """Lines that match a regular expression (Python's), in a file or (`recursive`) in all files of a directory.

        Files without fixed content and those that can not be read are passed over in a directory. Raises FileNotFound,
        BadRequest (also later, for a pattern that takes too long). Close the iterator when you stop early.
        """
        entry = self.stat(who, path)
        if entry.is_dir and not recursive:
            raise BadRequest("This is a directory; ask with `recursive` to search in it.")
        if not entry.is_dir:
            with contextlib.closing(self.open(who, path)) as handle:
                self._only_file(handle)
        return self._matches(who, entry, Search(pattern, ignore_case))

    def _matches(self, who: Principal, entry: Entry, search: Search) -> Iterator[Match]:
        with contextlib.closing(search):
            for each in self.walk(who, entry.path, MAX_DEPTH) if entry.is_dir else (entry,):
                if each.is_dir:
                    continue
                try:
                    handle = self.open(who, each.path)
                except (FileNotFound, PermissionDenied, NotSupported):
                    if each is entry:
                        raise
                    continue
                with contextlib.closing(handle):
                    if handle.fixed and not handle.entry.is_dir:
                        yield from self._matching(each.path, handle, search)

    @staticmethod
    def _matching(path: str, handle: Handle, search: Search) -> Iterator[Match]:
        with handle.reader() as reader:
            for first, lines in Lines(reader):
                for index in search.find(lines):
                    text = lines[index].rstrip(b"\r").decode("utf-8", "replace")
                    yield Match(path, first + index, text[:SHOWN_LINE])

    # -- changing ----------------------------------------------------------------------------------------------

    def write(self, who: Principal, path: str, body: Body, *, create: bool = False,
              conditions: Conditions = NO_CONDITIONS, options: WriteOptions = WriteOptions()) -> Written:
        """Create a file (`create`: only that, unless it is a place to write to) or replace it. The body is not touched
        before the rights are clear."""
        guard, place, there = self._write_guard(who, create, conditions), self._find(path), self._peek(path)
        guard(there)
        absent = self._absent_above(path) if there is None else ()
        written = place.written(place.filesystem.write(place.inner, body, who.name, guard, options))
        for folder in absent if not written.told else ():
            self.hub.publish("create", folder)
        self._changed_by("create" if written.created and not written.told else "update", written.entry)
        return written

    def _absent_above(self, path: str) -> list[str]:
        """The directories above a path that are not there yet, the outermost first."""
        absent: list[str] = []
        folder = split_path(path)[0]
        while folder not in ("", "/") and self._peek(folder) is None:
            absent.insert(0, folder)
            folder = split_path(folder)[0]
        return absent

    def may_write(self, who: Principal, path: str) -> None:
        """Raises what `write` would raise before the first byte of a body."""
        self._write_guard(who, False, NO_CONDITIONS)(self._peek(path))

    def _write_guard(self, who: Principal, create: bool, conditions: Conditions) -> Guard:
        def guard(there: Optional[Entry]) -> None:
            if there is None:
                self.authorise(who, "create")
            elif create and not takes_only(there):
                raise FileExists("A directory is already there." if there.is_dir else "")
            elif there.is_dir:
                raise BadRequest("A directory is there; a file can not take its place.")
            else:
                self.authorise(who, "replace", there)
            conditions.check(there.etag if there else None, there.mtime_ns / 1e9 if there else 0, reading=False)
        return guard

    def patch(self, who: Principal, path: str, body: Body, offset: int,
              conditions: Conditions = NO_CONDITIONS) -> Written:
        """Write the body at an offset of a file. Raises FileNotFound, RangeNotSatisfiable."""
        try:
            return self._changed(who, path, "patch", True, conditions,
                                 lambda place, guard: place.filesystem.patch(place.inner, body, offset, guard))
        except Disconnected:                # what arrived before the cut stays
            self.hub.publish("update", path)
            raise

    def truncate(self, who: Principal, path: str, size: int, conditions: Conditions = NO_CONDITIONS) -> Written:
        """Cut a file, or fill it up with zeros, to `size` bytes. Raises FileNotFound."""
        return self._changed(who, path, "patch", True, conditions,
                             lambda place, guard: place.filesystem.truncate(place.inner, size, guard))

    def chmod(self, who: Principal, path: str, mode: int) -> Entry:
        """Set the permission bits of what is there. Raises FileNotFound."""
        return self._changed(who, path, "chmod", False, NO_CONDITIONS, lambda place, guard: Written(
            place.filesystem.chmod(place.inner, mode & 0o7777, guard), False)).entry

    def touch(self, who: Principal, path: str, mtime_ns: Optional[int] = None) -> Written:
        """Set the time of the last change (default: now); an empty file is made where nothing is."""
        if self._peek(path) is None:
            with contextlib.suppress(FileExists):       # somebody made it meanwhile
                return self.write(who, path, bytes_body(b""), create=True, options=WriteOptions(mtime_ns=mtime_ns))
        moment = time.time_ns() if mtime_ns is None else mtime_ns
        return self._changed(who, path, "touch", False, NO_CONDITIONS, lambda place, guard: Written(
            place.filesystem.touch(place.inner, moment, guard), False))

    def _changed(self, who: Principal, path: str, verb: str, file: bool, conditions: Conditions,
                 change: Callable[[Place, Guard], Written]) -> Written:
        """A change of something that must be there (`file`: and be no directory)."""
        def guard(there: Optional[Entry]) -> None:
            if there is None:
                raise FileNotFound()
            if file and there.is_dir:
                raise BadRequest("A directory is there.")
            self.authorise(who, verb, there)
            conditions.check(there.etag, there.mtime_ns / 1e9, reading=False)
        guard(self._peek(path))
        place = self._find(path)
        written = place.written(change(place, guard))
        self._changed_by("update", written.entry)
        return written

    def mkdir(self, who: Principal, path: str, mode: int = 0o755) -> Written:
        """Make a directory and its missing parents; `created` is False where it is there. Raises FileExists."""
        def guard(there: Optional[Entry]) -> None:
            self.authorise(who, "mkdir")
            if there is not None and not there.is_dir:
                raise FileExists("A file is already there.")
        mounted = self._mounted(path)
        if mounted is not None:
            guard(mounted)
            return Written(mounted, False)
        place, absent = self._find(path), self._absent_above(path) if self._peek(path) is None else ()
        written = place.written(place.filesystem.mkdir(place.inner, who.name, guard, mode))
        if written.created:
            for folder in absent:
                self.hub.publish("create", folder)
            self._changed_by("create", written.entry)
        return written

    def remove(self, who: Principal, path: str, *, recursive: bool = False, folder: bool = False,
               conditions: Conditions = NO_CONDITIONS) -> None:
        """Remove a file or directory; all of a subtree must be the caller's. `folder`: it must be a directory."""
        gone: list[Entry] = []              # the entry itself, once the guard has seen it

        def guard(there: Optional[Entry]) -> None:
            if there is None or (folder and not gone and not there.is_dir):
                raise FileNotFound()
            if there.path == "/":
                raise BadRequest("The root can not be removed.")
            self.authorise(who, "delete", there)
            if not gone:
                conditions.check(there.etag, there.mtime_ns / 1e9, reading=False)
                gone.append(there)
        place = self._find(path)
        if self._table.mounts and path != "/":
            self.authorise(who, "delete")
            self._refuse_mounts(path, "removed")
        place.filesystem.remove(place.inner, recursive, guard)
        self._count("delete", gone[0])
        self.hub.publish("delete", path)

    def move(self, who: Principal, source: str, target: str, *, overwrite: bool = False,
             parents: bool = False) -> Entry:
        """Rename; between filesystems everything is copied and then removed, so that a failure in between leaves the
        source whole. Raises BadRequest (into itself, no parent), FileNotFound, PermissionDenied, FileExists."""
        if source == "/" or is_below(target, source):
            raise BadRequest("A path can not be moved into itself.")
        for path, verb in ((source, "moved"), (target, "replaced")):
            self._refuse_mounts(path, verb)

        def guard(there: Optional[Entry]) -> None:
            if there is None:
                raise FileNotFound()
            self.authorise(who, "move", there)

        def target_guard(there: Optional[Entry]) -> None:
            self.authorise(who, "replace" if there else "create", there)
            if there is not None and not overwrite:
                raise FileExists("The destination is already there; ask with `overwrite` to replace it.")
        place, other = self._find(source), self._find(target)
        if other.filesystem is not place.filesystem:
            guard(self._peek(source))
            target_guard(self._peek(target))
            return self._move_across(who, source, target, overwrite, parents)
        absent = self._absent_above(target) if parents else ()
        entry = place.shown(place.filesystem.move(place.inner, other.inner, who.name, guard, target_guard, parents))
        self._count("update", entry)
        for folder in absent:
            self.hub.publish("create", folder)
        self.hub.publish("move", source, target, None if entry.is_dir else entry.size,
                         None if entry.is_dir else entry.mtime_ns)
        return entry

    def copy(self, who: Principal, source: str, target: str, *, recursive: bool = False,
             overwrite: bool = True, progress: Optional[Progress] = None) -> Copied:
        """Copy a file, or (`recursive`) a directory into the directory `target`, which is made; modes are kept.

        What has no fixed content (the next message of a queue) is copied when it is named itself; in a directory it is
        left out, as is what can not be read, and counted. Raises FileNotFound, FileExists, BadRequest.
        """
        if is_below(target, source):
            raise BadRequest("A path can not be copied into itself.")
        transfer = _Transfer(self, who, overwrite, progress or self._told("copying", source))
        entry = self.stat(who, source)
        if not entry.is_dir:
            transfer.file(source, target)
        elif recursive:
            transfer.directory(source, target)
        else:
            raise BadRequest("This is a directory; ask with `recursive` to copy it.")
        return transfer.done()

    def concat(self, who: Principal, sources: Sequence[str], target: str, *, delete_sources: bool = False,
               conditions: Conditions = NO_CONDITIONS) -> Written:
        """Files one behind the other as one file, which is there when it is whole; `target` may be one of them.

        Nothing is written unless all can be read (and deleted, if that is asked for). Raises BadRequest for a directory
        and what has no fixed content, FileNotFound, Conflict for a source that changes meanwhile; one that changes at
        the end is not deleted.
        """
        if not sources:
            raise BadRequest("There is nothing to put together: name at least one source.")
        self.may_write(who, target)
        parts = [self._part(who, source, delete_sources and source != target) for source in sources]
        with contextlib.closing(_Joined(self, who, parts)) as body:
            written = self.write(who, target, body, conditions=conditions)
        for part in dict.fromkeys(parts) if delete_sources else ():
            if part.path != target:
                with contextlib.suppress(FileNotFound, PreconditionFailed):
                    self.remove(who, part.path, conditions=Conditions(if_match=f'"{part.etag}"'))
        return written

    def _part(self, who: Principal, source: str, delete: bool) -> Entry:
        """A source of `concat`, if it can be one."""
        try:
            with contextlib.closing(self.open(who, source)) as handle:
                self._only_file(handle)
                if takes_only(handle.entry):
                    raise BadRequest("This can only be written to.")
                if delete:
                    self.authorise(who, "delete", handle.entry)
                    if "remove" not in self._find(source).filesystem.operations():
                        raise PermissionDenied("This can not be deleted.")
                return handle.entry
        except (BadRequest, FileNotFound, PermissionDenied) as error:
            raise type(error)(f"{source}: {error.message}") from None

    def _told(self, what: str, path: str) -> Progress:
        """Progress for the log: a line every few seconds."""
        last = [time.monotonic()]

        def tell(done: Copied) -> None:
            if self._log is not None and time.monotonic() - last[0] > PROGRESS_SECONDS:
                last[0] = time.monotonic()
                self._log.info(what, path=path, files=done.files, bytes=done.bytes)
        return tell

    def _move_across(self, who: Principal, source: str, target: str, overwrite: bool, parents: bool) -> Entry:
        """Copy, then remove. Nothing is removed unless all of it was copied and may be removed."""
        parent = split_path(target)[0]
        if not parents and not (self._peek(parent) or NOTHING).is_dir:
            raise BadRequest("The folder of the destination does not exist; ask with `create_parents` to make it.")
        there = self._peek(target)
        if there is not None and there.is_dir:
            raise FileExists("A directory is already there.")
        transfer = _Transfer(self, who, overwrite, self._told("moving across filesystems", source), keep=True)
        if self.stat(who, source).is_dir:
            for entry in self.walk(who, source, MAX_DEPTH):
                self.authorise(who, "move", entry)
            transfer.directory(source, target)
        else:
            transfer.file(source, target)
        done = transfer.done()
        if done.left_out:
            raise Conflict(f"Not everything could be copied ({done.left_out} left out), so nothing was removed.")
        self.remove(who, source, recursive=True)
        return self.stat(who, target)


class Copied(NamedTuple):
    """How far a copy has come. `left_out`: what could not be read or has no fixed content."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    left_out: int = 0


Progress = Callable[[Copied], None]
NOTHING = Entry("", "")                     # stands for what is not there where only its type is asked


class ReaderBody(Body):
    """What a reader gives, as a body; it counts into `passed` and calls `tell` after each block."""

    def __init__(self, reader: Reader, tell: Callable[[int], None] = lambda count: None) -> None:
        self._reader, self.length, self._tell = reader, reader.length, tell

    def readinto(self, view: memoryview) -> int:
        """The next block."""
        block = self._reader.read(len(view))
        view[:len(block)] = block
        self._tell(len(block))
        return len(block)


class _Joined(Body):
    """Files one behind the other, opened one at a time. Raises Conflict for one that is no longer what it was."""

    def __init__(self, tree: Tree, who: Principal, parts: Sequence[Entry]) -> None:
        self._tree, self._who, self._parts = tree, who, parts
        self.length = sum(part.size for part in parts)
        self._blocks = ChunkReader(block for reader in self.readers() for block in reader)

    def readers(self) -> Iterator[Reader]:          # type: ignore[override]
        """All of them, each closed when the next one is asked for."""
        for part in self._parts:
            with contextlib.closing(self._tree.open(self._who, part.path)) as handle:
                if (handle.entry.etag, handle.entry.size, handle.fixed) != (part.etag, part.size, True):
                    raise Conflict(f"{part.path} was changed meanwhile; nothing was written.")
                with handle.reader() as reader:
                    yield reader

    def readinto(self, view: memoryview) -> int:
        """The next bytes."""
        block = self._blocks.read(len(view))
        view[:len(block)] = block
        return len(block)

    def close(self) -> None:
        """Close what is open."""
        self._blocks.close()


class _Transfer:
    """Files from one place of the tree to another, whatever holds them: rights are checked at both ends."""

    def __init__(self, tree: Tree, who: Principal, overwrite: bool, progress: Progress, keep: bool = False) -> None:
        self._tree, self._who, self._overwrite, self._progress, self._keep = tree, who, overwrite, progress, keep
        self._files = self._directories = self._bytes = self._left_out = 0

    def done(self) -> Copied:
        """So far."""
        return Copied(self._files, self._directories, self._bytes, self._left_out)

    def file(self, source: str, target: str) -> None:
        """One file; a target that is a directory is refused by the tree."""
        with contextlib.closing(self._tree.open(self._who, source)) as handle:
            self._write(handle, target)

    def _write(self, handle: Handle, target: str) -> None:
        entry = handle.entry
        self._tree.may_write(self._who, target)         # before something is taken out for nothing
        options = WriteOptions(entry.mode & 0o777, entry.mtime_ns if self._keep else None)
        with handle.reader() as reader:
            self._tree.write(self._who, target, ReaderBody(reader, self._count), create=not self._overwrite,
                             options=options)
        self._files += 1
        self._progress(self.done())

    def _count(self, size: int) -> None:
        self._bytes += size
        self._progress(self.done())

    def directory(self, source: str, target: str) -> None:
        """A directory with all that is in it."""
        self._tree.mkdir(self._who, target)
        for entry in self._tree.walk(self._who, source, MAX_DEPTH):
            inside = target + entry.path[len(source):] if source != "/" else join_path(target, entry.path[1:])
            if entry.is_dir and entry.backend != SYMLINK:
                self._tree.mkdir(self._who, inside)
                self._directories += 1
            elif not (entry.is_dir or entry.backend == SYMLINK) and self._readable(entry.path, inside):
                continue
            else:
                self._left_out += 1

    def _readable(self, source: str, target: str) -> bool:
        """Copy a file that a walk has found; whether it could be read."""
        try:
            handle = self._tree.open(self._who, source)
        except (FileNotFound, PermissionDenied, NotSupported):
            return False
        with contextlib.closing(handle):
            if handle.fixed and not handle.entry.is_dir:
                self._write(handle, target)
                return True
        return False


def _inside(path: str) -> str:
    """What everything in a directory begins with, and the key under which `walk` lets it wait."""
    return path if path == "/" else path + "/"


def state_of(check: Callable[[], object]) -> str:
    """"ok", or what a check raised."""
    try:
        check()
    except CallFSError as error:
        return error.message
    return "ok"


# ============================================================================
# The store: records + bytes + locks, the filesystem at /
# ============================================================================

HOT_FILE = 64 * 1024                        # bytes; larger files gain nothing from memory
AT_REST = 2.0                               # s since the last change; the coarsest clock of a filesystem (FAT) is 2 s


class HotFile(NamedTuple):
    """A small file that was read lately. Its bytes are good as long as one `stat` of its path gives the same identity
    and the store the same record; measured: a third of the time of open, fstat, pread and close, each of which lets
    go of the interpreter's lock."""

    identity: tuple[int, ...]
    record: Entry
    entry: Entry
    data: bytes


class StoreFS(FileSystem):
    """Files of a local disk with their records.

    A write: temporary file, digest, fsync; lock; intent; rename; metadata commit; fsync of the folder. Killed
    anywhere, the path holds the old or the new version, and `recover` gives it the record that belongs to it.
    The record is the truth for owner, mode and digest, the file for size and time: where the record's `stamp` no
    longer fits the file, somebody changed it from outside, and its own state is what counts.
    """

    name = "store"

    def __init__(self, disk: LocalDisk, store: MetadataStore, locks: LockManager, *, instance_id: str = "node-1",
                 min_free: int = 0, rescan: float = 60.0, hot_bytes: int = 0, claim: bool = False,
                 metrics: Optional[Metrics] = None, log: Optional[Log] = None,
                 tell: Callable[[str, str], object] = lambda kind, path: None) -> None:
        self._disk, self._store, self._locks, self._tell = disk, store, locks, tell
        self._instance, self._min_free, self._rescan = instance_id, min_free, rescan
        self._metrics, self._log = metrics or Metrics(), log or Log("error")
        self._trusted: Cache[str, tuple[int, float]] = Cache(4096)
        self._hot: Cache[str, HotFile] = Cache(hot_bytes // 2)          # of two generations
        self._owed: list[tuple[int, dict[str, Any], Optional[Entry]]] = []          # see `_noted`
        self._fresh: dict[str, Entry] = {}  # on the disk already, perhaps, and in the records in a moment
        if disk.writable:
            self._claim(claim)
        self._intents = IntentLog(os.path.join(disk.hidden, "intents")) if disk.writable else None
        self.recover()

    def _claim(self, anyway: bool) -> None:
        """Tie disk and records together. Where a disk is not mounted its mount point looks like a disk that lost all
        its files, and every record would be dropped. Raises ConfigError; `anyway` (fsck) takes the disk as it is."""
        if self._disk.marker() == self._store.identity:
            return
        if not anyway and self._store.page("/", limit=1):
            raise ConfigError(
                "backend.localfs_root_path: this folder is not the one that the records of metadata_store belong to. Is "
                "its disk mounted? If it is the right one (a restored backup, say), run `callfs fsck` once to accept it")
        self._disk.mark(self._store.identity)

    def close(self) -> None:
        """Close the records and the disk."""
        if self._intents:
            self._intents.close()
        self._store.close()
        self._disk.close()

    def check(self) -> dict[str, str]:
        """As the interface says: whether the records answer, and whether the disk is there and takes uploads."""
        return {"metadata store": state_of(self._store.check), "backend": state_of(self._check_disk)}

    def operations(self) -> list[str]:
        """As the base says; of a disk that is read-only what is left."""
        return super().operations() if self._disk.writable else ["stat", "open", "list"]

    def _check_disk(self) -> None:
        with self._failures("stat"):
            self._disk.stat("/")
            if self._disk.writable and self._disk.free_bytes() < self._min_free:
                raise StorageFull("The disk is full: uploads are refused, everything else goes on.")

    @contextlib.contextmanager
    def _failures(self, operation: str) -> Iterator[None]:
        """Count and time an operation on the bytes; turn what the system says into our errors."""
        started = time.perf_counter()
        try:
            yield
        except OSError as error:
            ours = translate_os_error(error)
            if not isinstance(ours, CallerError):
                self._metrics.count("callfs_errors_total", "localfs", type(ours).__name__)
                self._log.error("disk error", operation=operation, reason=str(error))
            raise ours from error
        except SymlinkMet:
            raise Conflict("A symbolic link is in the way; links are followed for reading only.") from None
        finally:
            self._measure(operation, started)

    def _measure(self, operation: str, started: float) -> None:
        self._metrics.observe("callfs_backend_op_duration_seconds", time.perf_counter() - started,
                              "localfs", operation)

    # -- what is there -----------------------------------------------------------------------------------------

    def stat(self, path: str) -> Entry:
        """As the interface says; links inside the root are followed."""
        _not_hidden(path, FileNotFound)
        self._settle()
        with self._failures("stat"):
            try:
                found = self._disk.stat(path)
                if not stat.S_ISLNK(found.st_mode):
                    return self._agreed(path, _served(found))
            except FileNotFoundError:
                self._forget(path)
                raise
            except SymlinkMet:
                pass
            return self._linked(path)

    def peek(self, path: str) -> Optional[Entry]:
        """As the interface says; a link stands for itself."""
        _not_hidden(path, PermissionDenied)
        with self._failures("stat"):
            found = self._present(path)
            return self._agreed(path, found) if found is not None else None

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """As the interface says."""
        if path[1:2] == ".":
            _not_hidden(path, FileNotFound)
        if self._owed:
            self._settle()
        started = time.perf_counter()
        hot = self._hot.get(path)
        if hot is not None and hot.record is self._store.get(path) and hot.identity == self._disk.identity(path):
            self._measure("open", started)
            return MemoryHandle(hot.entry, hot.data)
        try:
            fd, found = self._disk.open(path)
        except (OSError, SymlinkMet):
            return self._open_again(path)
        self._measure("open", started)
        handle = self._handle(path, fd, found)
        if 0 < found.st_size <= HOT_FILE and fd >= 0:
            self._keep_hot(path, fd, found, handle.entry)
        return handle

    def _keep_hot(self, path: str, fd: int, found: os.stat_result, entry: Entry) -> None:
        """Keep a small file's bytes, if it is at rest: within a tick of the clock it could change and look the same."""
        record = self._store.get(path)
        if record is not None and time.time() - max(found.st_mtime, found.st_ctime) > AT_REST:
            with contextlib.suppress(OSError):          # then the answer to come will say so
                data = pread(fd, found.st_size, 0)
                if len(data) == found.st_size:
                    self._hot.put(path, HotFile(identity_of(found), record, entry, data), len(data))

    def _handle(self, path: str, fd: int, found: os.stat_result) -> Handle:
        try:
            entry = self._agreed(path, found)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        return FileHandle(entry, fd) if fd >= 0 else Handle(entry)

    def _open_again(self, path: str) -> Handle:
        """The slow way: through links, or to the right error."""
        entry = self.stat(path)
        with self._failures("open"):
            physical = self._physical(path)
            fd, found = self._disk.open(physical)
        handle = self._handle(physical, fd, found)
        handle.entry = handle.entry._replace(path=path, backend=entry.backend)
        return handle

    def _agreed(self, path: str, found: os.stat_result, locked: bool = False) -> Entry:
        """The entry that record and file make together. `locked`: the caller holds the path's lock.

        Who sees a file before its record is committed finds the entry in `_fresh`; who no longer finds it there, finds
        the record: so `_fresh` is asked first.
        """
        fresh = self._fresh.get(path)
        if fresh is not None and fresh.type == _type_of(found) and (fresh.is_dir or fresh.stamp == stamp_of(found)):
            return refreshed(fresh, found)
        record = self._store.get(path)
        if record is None or record.type != _type_of(found):
            return self._adopt(path, found, record, locked)
        return refreshed(record, found)

    def _adopt(self, path: str, found: os.stat_result, wrong: Optional[Entry], locked: bool = False) -> Entry:
        """Take in what came from outside. A store that can not take it must not keep anybody from reading."""
        entry = stranger(path, found, self._instance)
        try:
            if wrong is not None:
                self._store.delete(path) if locked else self._forget(path)
            self._store.add([entry])
            if not locked and self._present(path) is None:      # removed since `found`: leave no record behind
                self._forget(path)
            record = self._store.get(path)
        except (CallFSError, OSError, SymlinkMet) as error:
            self._metrics.count("callfs_errors_total", "metadata", type(error).__name__)
            return entry
        return refreshed(record, found) if record is not None and record.type == entry.type else entry

    def _linked(self, path: str) -> Entry:
        """What a path with symbolic links in it leads to, under the path's own name."""
        physical = self._physical(path)
        try:
            entry = self._agreed(physical, _served(self._disk.stat(physical)))
        except SymlinkMet:                  # exchanged at this moment: as good as outside
            raise FileNotFoundError(errno.ENOENT, "a folder was exchanged for a symbolic link") from None
        return entry._replace(path=path, backend=SYMLINK)

    def _physical(self, path: str) -> str:
        physical = self._disk.physical(path)
        _not_hidden(physical, FileNotFound)
        return physical

    def _forget(self, path: str) -> None:
        """Drop the record of what is gone or has become something else, unless a writer (perhaps this very thread) is
        at it: then the next look will find it again."""
        record = self._store.get(path)
        if record is None:
            return
        try:
            with self._locks.hold(path, subtree=True, timeout=0):
                found = self._present(path)
                gone = found is None or _type_of(found) != record.type
                if gone:
                    self._store.delete(path)
        except (CallFSError, OSError, SymlinkMet) as error:
            self._metrics.count("callfs_errors_total", "metadata", type(error).__name__)
        else:
            if gone:
                self._tell("delete", path)

    def _present(self, path: str) -> Optional[os.stat_result]:
        """`lstat`, None for what is not there. A file in the middle of the path is not there either."""
        try:
            return self._disk.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _there(self, path: str) -> Optional[Entry]:
        """The entry at exactly this path, for a writer: a link stands for itself."""
        found = self._present(path)
        return self._agreed(path, found, locked=True) if found is not None else None

    # -- listing -----------------------------------------------------------------------------------------------

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """As the interface says. Comes from the records; the folder itself is read again when it has changed."""
        entry = self.stat(path)
        if not entry.is_dir:
            raise Conflict("This is a file, not a directory.")
        with self._failures("list"):
            physical = self._physical(path) if entry.backend == SYMLINK else path
            self._take_in(physical)
        return self._pages(path, physical, after)

    def _pages(self, path: str, physical: str, after: str) -> Iterator[Entry]:
        for page in self._records(physical, after):
            with self._failures("list"):
                found = self._disk.stats(physical, [record.name for record in page])
                shown = [self._listed(record, info) for record, info in zip(page, found)]
            for entry in shown:
                if entry is not None:
                    yield entry if path == physical else entry._replace(path=join_path(path, entry.name))

    def _records(self, path: str, after: str) -> Iterator[list[Entry]]:
        """The records of a directory's children in order, some at a time."""
        page = self._store.page(path, after)
        while page:
            yield page
            page = self._store.page(path, page[-1].name)

    def _listed(self, record: Entry, found: Optional[os.stat_result]) -> Optional[Entry]:
        """One line of a listing; None for what is gone, leads out of the root or is no file."""
        if found is None:
            self._forget(record.path)
            return None
        if stat.S_ISLNK(found.st_mode):
            try:
                return self._linked(record.path)
            except (OSError, FileNotFound):
                return None
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return None
        if record.type == _type_of(found) and (record.is_dir or record.stamp == stamp_of(found)):
            return refreshed(record, found)
        return self._agreed(record.path, found)

    def _take_in(self, path: str) -> None:
        """Give every name in a folder a record, unless the folder has not changed since that was done."""
        changed, now = self._disk.stat(path).st_mtime_ns, time.time()
        trusted = self._trusted.get(path)
        if trusted and trusted[0] == changed and now - trusted[1] < self._rescan:
            return
        for names in self._disk.scan(path):
            known = self._store.known(path, names)
            try:
                for entry in self._adopt_many(path, [name for name in names if name not in known]):
                    if trusted:             # else nobody knows since when it is there
                        self._tell("create", entry.path)
            except CallFSError as error:    # what is known can still be shown
                self._metrics.count("callfs_errors_total", "metadata", type(error).__name__)
                return
        # Within one tick of the clock a second change leaves the same time (as git knows): trust nothing so young.
        if now - changed / 1e9 > 0.1:
            self._trusted.put(path, (changed, now))

    def _adopt_many(self, path: str, names: Sequence[str]) -> list[Entry]:
        found = self._disk.stats(path, names)
        entries = [stranger(join_path(path, name), info, self._instance) for name, info in zip(names, found)
                   if info and join_path(path, name) not in self._fresh]
        if entries:
            self._store.add(entries)
        return entries

    @contextlib.contextmanager
    def _own_change(self, path: str) -> Iterator[None]:
        """Around a change of ours in a folder: a listing that trusted it before may trust it after."""
        trusted = self._trusted.get(path)
        unchanged = trusted is not None and self._disk.stat(path).st_mtime_ns == trusted[0]
        yield
        if trusted is not None and unchanged:
            with contextlib.suppress(OSError, SymlinkMet):      # the change itself has worked
                self._trusted.put(path, (self._disk.stat(path).st_mtime_ns, trusted[1]))

    # -- writing -----------------------------------------------------------------------------------------------

    def write(self, path: str, body: Body, owner: str, guard: Guard, options: WriteOptions) -> Written:
        """As the interface says."""
        _not_hidden(path, PermissionDenied)
        self._settle()
        with self._failures("write"), self._staged(body.length or 0) as staged:
            self._receive(staged, body, hashlib.sha256())
            check_digest(options, staged.digest)
            with self._locks.hold(path):
                there = self._there(path)
                guard(there)
                return self._publish(staged, path, there, owner, options)

    @contextlib.contextmanager
    def _staged(self, announced: int) -> Iterator[Staged]:
        """A temporary file that is gone afterwards, unless it was published."""
        if not self._disk.writable:
            raise PermissionDenied("The disk is read-only.")
        self._room_for(announced)
        staged = self._disk.stage()
        try:
            yield staged
        finally:
            self._disk.discard(staged)

    def _room_for(self, size: int) -> None:
        if self._min_free and self._disk.free_bytes() - size < self._min_free:
            raise StorageFull("There is not enough room on the disk for this upload.")

    def _receive(self, staged: Staged, body: Body, digest: Optional[Any]) -> None:
        """Take the body in at the descriptor's position; what arrived is counted even when it breaks off."""
        if body.readers is not None:
            return self._collect(staged, body, body.readers())
        checked = 0

        def put(part: memoryview) -> None:
            nonlocal checked
            write_all(staged.fd, part)
            staged.size += len(part)
            if digest is not None:
                digest.update(part)
            checked += len(part)
            if checked > 64 * 1024 * 1024:
                self._room_for(0)
                checked = 0
        pour(body, put)
        staged.digest = digest.hexdigest() if digest is not None else ""

    def _collect(self, staged: Staged, body: Body, readers: Iterator[Reader]) -> None:
        """Take in what lies in files. The kernel copies them, which takes a third of the time of SHA-256: so nobody
        here sees the bytes, and the file has no digest."""
        for reader in readers:
            self._room_for(reader.length or 0)
            if reader.fd >= 0 and not reader.offset:
                copy_file(reader.fd, staged.fd)
            else:
                pour(ReaderBody(reader), lambda part: write_all(staged.fd, part))
        staged.size = os.fstat(staged.fd).st_size
        if staged.size != body.length:
            raise Conflict("A source was changed meanwhile; nothing was written.")

    def _publish(self, staged: Staged, path: str, there: Optional[Entry], owner: str,
                 options: WriteOptions) -> Written:
        mode = options.mode if options.mode is not None else there.mode if there else 0o644
        found = self._disk.seal(staged, mode, options.mtime_ns)
        entry = Entry(path, FILE, found.st_size, mode, there.owner if there else owner, _mtime_of(found),
                      secrets.token_hex(8), there.id if there else secrets.token_hex(8), staged.digest, "localfs",
                      self._instance, stamp_of(found))
        parent = split_path(path)[0]
        with self._noted({"op": "put", "entry": entry}, entry):
            self._with_parents(parent, owner, lambda: self._disk.publish(staged, path))
            stored = self._store.put(entry)
        self._disk.sync_folder(parent)
        return Written(stored, there is None)

    @contextlib.contextmanager
    def _noted(self, step: dict[str, Any], entry: Optional[Entry] = None) -> Iterator[None]:
        """Around a rename and its commit, which make `entry`. Where either fails, the step is owed: before anybody
        looks again, what has happened on the disk gets its record, as after a crash."""
        if self._intents is None:
            raise PermissionDenied("The disk is read-only.")
        try:
            number = self._intents.note(step)
        except OSError:
            if step["op"] != "drop":
                raise
            number = 0                      # on a full disk deleting must work; whoever looks next drops the record
        if entry is not None and not (entry.is_dir and entry.path in self._fresh):     # two may make one folder
            self._fresh[entry.path] = entry
        try:
            yield
        except BaseException:
            self._owed.append((number, step, entry))
            raise
        self._over(number, entry)

    def _over(self, number: int, entry: Optional[Entry]) -> None:
        """A noted step has its records."""
        if entry is not None and self._fresh.get(entry.path) is entry:
            del self._fresh[entry.path]
        if number and self._intents:
            self._intents.done(number)

    def _settle(self) -> None:
        """Do what is owed. What can not be done now (a writer is at the path, the store is down) stays owed."""
        for owed in tuple(self._owed):
            number, step, entry = owed
            try:
                with self._locks.hold(*_paths_of(step), subtree=True, timeout=0):
                    if owed not in self._owed:          # another thread was faster
                        continue
                    self._redo(step)
                    self._owed.remove(owed)
            except (CallFSError, OSError) as error:
                self._metrics.count("callfs_errors_total", "metadata", type(error).__name__)
                continue
            self._over(number, entry)

    def _with_parents(self, parent: str, owner: str, change: Callable[[], T]) -> T:
        """Do a change in a folder; make the folder when it is missing (it may be removed meanwhile: then again)."""
        for _ in range(3):
            try:
                with self._own_change(parent):
                    return change()
            except FileNotFoundError:
                self._make_folders(parent, owner)
            except NotADirectoryError:
                break
        raise Conflict("A file is in the way: a part of the path is no directory.")

    def _make_folders(self, path: str, owner: str, mode: int = 0o755) -> Optional[Entry]:
        """Make a folder and what is missing above it; the entry of the folder when it is new."""
        made = None
        for folder in (*ancestors(path)[1:], path):
            if self._present(folder) is None:
                made = self._make_folder(folder, owner, mode)
        return made

    def _make_folder(self, path: str, owner: str, mode: int) -> Optional[Entry]:
        entry = Entry(path, DIRECTORY, 0, mode, owner, time.time_ns(), "", secrets.token_hex(8),
                      instance_id=self._instance)
        parent = split_path(path)[0]
        with self._noted({"op": "mkdir", "entry": entry}, entry):
            try:
                with self._own_change(parent):
                    self._disk.mkdir(path, mode)
            except FileExistsError:         # another request was faster
                return None
            stored = self._store.put(entry)
        self._disk.sync_folder(parent)
        return stored

    def mkdir(self, path: str, owner: str, guard: Guard, mode: int = 0o755) -> Written:
        """As the interface says."""
        _not_hidden(path, PermissionDenied)
        self._settle()
        with self._failures("mkdir"), self._locks.hold(path):
            there = self._there(path)
            guard(there)
            if there is not None:
                return Written(there, False)
            try:
                made = self._make_folders(path, owner, mode)
            except NotADirectoryError:
                raise Conflict("A file is in the way: a part of the path is no directory.") from None
            if made is None:                # made by somebody else this very moment
                return Written(self.stat(path), False)
            return Written(made, True)

    def patch(self, path: str, body: Body, offset: int, guard: Guard) -> Written:
        """As the interface says. At the end of the file the bytes are appended in place, since a reader keeps to the
        size it found; anywhere else they go into a copy, since a reader keeps to the version it opened."""
        _not_hidden(path, PermissionDenied)
        self._settle()
        with self._failures("patch"), self._locks.hold(path):
            there = self._there(path)
            guard(there)
            assert there is not None        # the guard refuses what is not there
            checked_offset(there, offset)
            fd, found = self._disk.open_append(path)
            try:
                in_place = offset == found.st_size and found.st_nlink == 1
                change = self._append if in_place else self._overwrite
                return change(path, there, fd, body, offset)
            finally:
                os.close(fd)

    def _append(self, path: str, there: Entry, fd: int, body: Body, offset: int) -> Written:
        self._room_for(body.length or 0)
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            self._receive(Staged("", fd), body, None)
        finally:                            # what arrived stays, also when the rest did not come
            if self._disk.durable:
                os.fsync(fd)
            found = os.fstat(fd)
            stored = self._store.put(self._version_of(there, found))
        return Written(stored, False)

    def _version_of(self, there: Entry, found: os.stat_result) -> Entry:
        return there._replace(size=found.st_size, mtime_ns=_mtime_of(found), etag=secrets.token_hex(8), digest="",
                              stamp=stamp_of(found))

    def _overwrite(self, path: str, there: Entry, fd: int, body: Body, offset: int) -> Written:
        with self._staged(there.size) as staged:
            copy_file(fd, staged.fd)
            os.lseek(staged.fd, offset, os.SEEK_SET)
            try:
                self._receive(staged, body, None)
            finally:
                staged.digest = ""
                written = self._publish(staged, path, there, there.owner, WriteOptions()) if staged.size else None
            return written or Written(there, False)

    def truncate(self, path: str, size: int, guard: Guard) -> Written:
        """As the interface says. Into a copy: who has the file open reads its version to the end."""
        _not_hidden(path, PermissionDenied)
        self._settle()
        with self._failures("truncate"), self._locks.hold(path):
            there = self._there(path)
            guard(there)
            assert there is not None
            fd, _ = self._disk.open_append(path)
            try:
                with self._staged(size) as staged:
                    copy_file(fd, staged.fd)
                    os.ftruncate(staged.fd, size)
                    staged.size = size
                    return self._publish(staged, path, there, there.owner, WriteOptions())
            finally:
                os.close(fd)

    def chmod(self, path: str, mode: int, guard: Guard) -> Entry:
        """As the interface says; of the bits, those that the server's umask leaves."""
        return self._set(path, guard, lambda there: (self._disk.chmod(path, mode & 0o777), mode))

    def touch(self, path: str, mtime_ns: int, guard: Guard) -> Entry:
        """As the interface says."""
        return self._set(path, guard, lambda there: (self._disk.touch(path, mtime_ns), there.mode))

    def _set(self, path: str, guard: Guard, change: Callable[[Entry], tuple[os.stat_result, int]]) -> Entry:
        """A change of what is known of a path; the bytes, and so the ETag, stay."""
        _not_hidden(path, PermissionDenied)
        self._settle()
        with self._failures("set"), self._locks.hold(path):
            there = self._there(path)
            guard(there)
            assert there is not None
            found, mode = change(there)
            return self._store.put(there._replace(mode=mode, mtime_ns=_mtime_of(found), stamp=stamp_of(found)))

    # -- removing and moving -----------------------------------------------------------------------------------

    def remove(self, path: str, recursive: bool, guard: Guard) -> None:
        """As the interface says."""
        _not_hidden(path, FileNotFound)
        self._settle()
        with self._failures("delete"), contextlib.ExitStack() as later:
            with self._locks.hold(path, subtree=True):          # a file may be a directory by then
                there = self._there(path)
                guard(there)
                assert there is not None
                self._take_away(path, there, recursive, guard, later)

    def _take_away(self, path: str, there: Entry, recursive: bool, guard: Guard, later: contextlib.ExitStack) -> None:
        """Remove the name and the record; `later`, without the lock, frees the bytes of a subtree."""
        parent = split_path(path)[0]
        if there.is_dir and recursive:
            self._guard_subtree(path, guard)
        with self._noted({"op": "drop", "path": path}), self._own_change(parent):
            if not there.is_dir:
                self._disk.unlink(path)
            elif recursive:
                later.callback(self._disk.trash(path))
            else:
                self._disk.rmdir(path)
            self._drop_record(path)
        self._disk.sync_folder(parent)

    def _drop_record(self, path: str) -> None:
        """On a full disk the file is gone but its record can not be: whoever looks next drops it."""
        try:
            self._store.delete(path)
        except StorageFull:
            self._metrics.count("callfs_errors_total", "metadata", "StorageFull")

    def _guard_subtree(self, path: str, guard: Guard) -> None:
        """Nothing of somebody else's goes with a directory."""
        folders = [path]
        while folders:
            for entry in self.list(folders.pop()):
                guard(entry)
                if entry.is_dir and entry.backend != SYMLINK:
                    folders.append(entry.path)

    def move(self, source: str, target: str, owner: str, guard: Guard, target_guard: Guard, parents: bool) -> Entry:
        """As the interface says."""
        _not_hidden(source, FileNotFound)
        _not_hidden(target, PermissionDenied)
        self._settle()
        with self._failures("move"), self._locks.hold(source, target, subtree=True):
            there, other = self._there(source), self._there(target)
            guard(there)
            target_guard(other)
            assert there is not None
            reached = parents or self._present(split_path(target)[0]) is not None
            check_target(there, other, reached, lambda: next(self.list(target), None) is None)
            self._move(there, target, owner)
            return self._there(target) or there._replace(path=target)

    def _move(self, there: Entry, target: str, owner: str) -> None:
        old, new = split_path(there.path)[0], split_path(target)[0]
        moved = there._replace(path=target)
        step = {"op": "move", "source": there.path, "entry": moved, "inode": self._disk.stat(there.path).st_ino}
        with self._noted(step, moved), self._own_change(old):
            self._with_parents(new, owner, lambda: self._disk.rename(there.path, target))
            self._store.move(there.path, target)
        for folder in {old, new}:
            self._disk.sync_folder(folder)

    # -- after a crash -----------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Finish what a killed process had begun; how many records that took. Runs before anybody writes."""
        if self._intents is None:
            return 0
        done = sum(self._redo(step) for step in _standing(self._intents.read()))
        self._intents.clear()
        if done:
            self._log.warn("caught up after a crash", records=done)
        return done

    def _redo(self, step: dict[str, Any]) -> bool:
        """One noted step. Each is checked against the disk, so that doing it twice does nothing."""
        try:
            if step["op"] in ("put", "mkdir"):
                return self._redo_put(Entry(*step["entry"]))
            if step["op"] == "drop":
                return self._present(step["path"]) is None and bool(self._store.delete(step["path"]))
            return self._redo_move(step)
        except SymlinkMet:                  # somebody else has changed what was there
            return False

    def _redo_move(self, step: dict[str, Any]) -> bool:
        entry, record = Entry(*step["entry"]), self._store.get(step["source"])
        found = self._present(entry.path)
        if self._present(step["source"]) is not None or found is None or found.st_ino != step["inode"]:
            return False
        if record is None or record.id != entry.id:             # it is moved already, or never had a record
            return self._redo_put(entry)
        self._store.move(step["source"], entry.path)
        self._redo_put(entry)               # a version that never had its record
        return True

    def _redo_put(self, entry: Entry) -> bool:
        found, record = self._present(entry.path), self._store.get(entry.path)
        if found is None or (record is not None and (entry.is_dir or record.etag == entry.etag)):
            return False
        if entry.is_dir != stat.S_ISDIR(found.st_mode) or (not entry.is_dir and stamp_of(found) != entry.stamp):
            return False
        self._store.put(entry)
        return True


def _paths_of(step: dict[str, Any]) -> tuple[str, ...]:
    if step["op"] == "move":
        return step["source"], step["entry"][0]
    return (step["path"] if step["op"] == "drop" else step["entry"][0],)


def _standing(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without folders that a later step took away: what lies there now, nobody here has made."""
    gone, found = set(), []                 # type: set[str], list[dict[str, Any]]
    for step in reversed(steps):
        if step["op"] == "mkdir" and not gone.isdisjoint((step["entry"][0], *ancestors(step["entry"][0]))):
            continue
        found.append(step)
        if step["op"] in ("drop", "move"):
            gone.add(_paths_of(step)[0])
    return found[::-1]


def _type_of(found: os.stat_result) -> str:
    return DIRECTORY if stat.S_ISDIR(found.st_mode) else FILE


def _served(found: os.stat_result) -> os.stat_result:
    """Raises FileNotFoundError for what is neither file nor directory (a FIFO, a socket, a device)."""
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise FileNotFoundError(errno.ENOENT, "neither a file nor a directory")
    return found


def _mtime_of(found: os.stat_result) -> int:
    """Some disks hold times beyond the 64 bits of nanoseconds (until 2262) that a record has."""
    return min(max(found.st_mtime_ns, -2**63), 2**63 - 1)


def stranger(path: str, found: os.stat_result, instance_id: str) -> Entry:
    """The record of a file that came from outside: root's, with the state of the file."""
    folder, stamp = stat.S_ISDIR(found.st_mode), stamp_of(found)
    return Entry(path, DIRECTORY if folder else FILE, 0 if folder else found.st_size,
                 stat.S_IMODE(found.st_mode) & 0o777, "root", _mtime_of(found), "" if folder else stamp,
                 secrets.token_hex(8), "", SYMLINK if stat.S_ISLNK(found.st_mode) else "localfs",
                 instance_id, "" if folder else stamp)


def refreshed(record: Entry, found: os.stat_result) -> Entry:
    """The record, with the file's own size, time and ETag where somebody else wrote it."""
    if record.type == DIRECTORY:
        return record._replace(mtime_ns=_mtime_of(found))
    stamp = stamp_of(found)
    if stamp == record.stamp:
        return record
    return record._replace(size=found.st_size, mtime_ns=_mtime_of(found), etag=stamp, digest="", stamp=stamp)


def _not_hidden(path: str, error: type[CallFSError]) -> None:
    """The hidden folder is not there for anybody (some filesystems do not tell its spellings apart)."""
    if path[:8].casefold() == "/" + HIDDEN and path[8:9] in ("", "/"):
        raise error("This name is reserved." if error is PermissionDenied else "")


def checked_offset(there: Entry, offset: int) -> int:
    """An offset at which a file can be written. Raises RangeNotSatisfiable."""
    if offset > there.size:
        raise RangeNotSatisfiable(f"The file has {there.size} bytes; it can be written up to there.",
                                  headers=[("Content-Range", f"bytes */{there.size}")])
    return offset


def check_digest(options: WriteOptions, digest: str) -> None:
    """Raises BadRequest where another SHA-256 was announced."""
    if options.sha256 and options.sha256 != digest:
        raise BadRequest("The body does not have the SHA-256 that was announced.")


def check_target(there: Entry, other: Optional[Entry], reached: bool, empty: Callable[[], bool]) -> None:
    """Whether an entry may be moved to where `other` is, `empty` saying whether that has anything in it, and `reached`
    whether the directory above is there or may be made. Raises BadRequest, Conflict, DirectoryNotEmpty."""
    if not reached:
        raise BadRequest("The destination's directory does not exist; ask with `create_parents` to make it.")
    if other is not None and other.is_dir != there.is_dir:
        raise Conflict("A file can not replace a directory, nor a directory a file.")
    if other is not None and other.is_dir and not empty():
        raise DirectoryNotEmpty("The destination is a directory with something in it.")


def copy_file(source: int, target: int) -> None:
    """All bytes of one descriptor to the position of another; by the kernel (a shared extent, if it can) on Linux."""
    left = os.fstat(source).st_size
    os.lseek(source, 0, os.SEEK_SET)
    copy = getattr(os, "copy_file_range", None)
    while left > 0 and copy is not None:
        try:
            count = copy(source, target, min(left, 1 << 30))
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            break
        if not count:
            break
        left -= count
    block = os.read(source, BLOCK)
    while block:
        write_all(target, memoryview(block))
        block = os.read(source, BLOCK)

# ============================================================================
# Virtual filesystems: what they share, hello
# ============================================================================


class MountContext(NamedTuple):
    """What a filesystem may use of the server that mounts it."""

    path: str                               # the mount point
    tree: Tree                              # all files: for those that show other filesystems
    log: Log
    metrics: Metrics
    folder: str                             # relative paths in options are relative to this folder
    spools: Optional[str] = None            # a folder for scratch files
    version: str = ""
    private: tuple[str, ...] = ()           # files and folders of the server itself, which nothing may show

    def changed(self, kind: str, path: str) -> None:
        """Tell of a change that nobody made through the tree (a message was taken, a key ran out); `path` as the
        filesystem knows it. Not to be called under a lock that a reader needs."""
        self.tree.hub.publish(kind, self.path if path == "/" else self.path + path)


@dataclass
class DatabaseMountOptions:
    """What `open_database` has to know; the options of filesystems that may keep their data in a database."""

    backend: str = option("sqlite", "Where it is", choices=("sqlite", "mysql", "tidb", "postgres"))
    db_path: str = option("", "The SQLite file; relative to the folder of the configuration file")
    host: str = option("", "Host of the database, or the path of its unix socket")
    port: int = option(0, "Port of the database; 0: the usual one", kind="int", minimum=0, maximum=65535)
    user: str = option("", "User of the database")
    password: str = option("", "Password of that user", kind="secret")
    database: str = option("", "Name of the database")
    dsn: str = option("", "All of that in one text, as the database's own programs write it", kind="secret")
    enable_tls: bool = option(False, "Speak TLS with the database", kind="bool")
    tls_server_name: str = option("", "Name in the database's certificate")
    tls_skip_verify: bool = option(False, "Accept any certificate", kind="bool")
    pool_size: int = option(8, "Connections at most", kind="int", minimum=1, maximum=1000)

    def opened(self, kind: str, folder: str) -> Database:
        """The database of a filesystem of this kind. Raises BadRequest, DatabaseUnavailable."""
        named = (each.name for each in dataclasses.fields(DatabaseMountOptions))
        given = {name: value for name, value in ((name, getattr(self, name)) for name in named) if value}
        if given.get("db_path", ":memory:") != ":memory:":
            given["db_path"] = os.path.join(folder, given["db_path"])
        try:
            return open_database(given)
        except ConfigError as error:
            raise BadRequest(f"{kind}: {error.message}") from None


def read_mount_options(kind: type[FileSystem], given: Mapping[str, Any], folder: str = "") -> Any:
    """An instance of the filesystem's `Options` out of what a file, a request or a shell gave (texts are fine).

    Raises BadRequest that names the key, says what is allowed, and never shows a value.
    """
    about = {each.name: each.metadata["option"] for each in dataclasses.fields(kind.Options)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        key = kind.aliases.get(name, name)
        if key not in about:
            raise BadRequest(f"{kind.name} has no option {name!r}; it has: {', '.join(sorted(about)) or 'none'}.")
        if key in values:
            raise BadRequest(f"{kind.name}: {name!r} and {key!r} are the same option; give one.")
        try:
            values[key] = about[key].read(_plain_option(about[key], value))
        except ValueError as error:
            raise BadRequest(f"{kind.name}: {name}: {error}") from None
    return kind.Options(**values)


def _plain_option(about: Option, value: Any) -> Any:
    """YAML reads `password: 1234` and `http_port: 9000` as numbers; where a text is wanted they are meant as one."""
    if about.kind in ("text", "secret") and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value


def shown_mount_options(kind: type[FileSystem], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, secrets masked: by the table of options, and by the names and shapes that secrets have."""
    about = {each.name: each.metadata["option"] for each in dataclasses.fields(kind.Options)}
    masked = _mask_tree(given)
    return {name: MASK if getattr(about.get(kind.aliases.get(name, name)), "secret", False) and value not in ("", None)
            else masked[name] for name, value in given.items()}


def generated(path: str, data: bytes, mtime_ns: int = 0, *, mode: int = 0o444, backend: str = "") -> MemoryHandle:
    """A handle on a small file whose bytes were made just now; the ETag is that of the bytes."""
    digest = hashlib.sha256(data).hexdigest()
    return MemoryHandle(Entry(path, FILE, len(data), mode, ANYONE, mtime_ns, digest[:32], path, digest, backend), data)


class GeneratedFS(FileSystem):
    """A folder of files that are made when somebody opens them: `_files` has a function for each name."""

    def __init__(self, options: Any, context: MountContext) -> None:
        self._since = time.time_ns()
        self._files: Mapping[str, Callable[[], bytes]] = {}

    def stat(self, path: str) -> Entry:
        """As the interface says."""
        return self.open(path).entry

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """As the interface says."""
        if path == "/":
            return Handle(Entry("/", DIRECTORY, 0, 0o555, ANYONE, self._since, backend=self.name))
        make = self._files.get(path[1:])
        if make is None:
            raise FileNotFound()
        return generated(path, make(), self._since, backend=self.name)

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """As the interface says."""
        if not self.stat(path).is_dir:
            raise Conflict("This is a file, not a directory.")
        return (self.stat("/" + name) for name in sorted(self._files) if name > after)


class HelloFS(GeneratedFS):
    """The smallest example: a folder with one file, `hello`."""

    name = "hellofs"
    TEXT = b"Hello, World!\n"

    def __init__(self, options: HelloFS.Options, context: MountContext) -> None:
        super().__init__(options, context)
        self._files = {"hello": lambda: self.TEXT}


# ============================================================================
# memfs: a tree in memory
# ============================================================================

_ZEROS = bytes(BLOCK)


def _appended(blocks: list[Any], data: memoryview) -> None:
    """Append in place. All blocks but the last have BLOCK bytes, and a block only ever grows: who reads a file that
    had fewer bytes finds them unchanged."""
    while data:
        if not blocks or len(blocks[-1]) == BLOCK:
            blocks.append(bytearray())
        elif isinstance(blocks[-1], bytes):
            blocks[-1] = bytearray(blocks[-1])
        room = BLOCK - len(blocks[-1])
        blocks[-1] += data[:room]
        data = data[room:]
        if len(blocks[-1]) == BLOCK:
            blocks[-1] = bytes(blocks[-1])  # without the room that a bytearray keeps for growing


def _overlaid(blocks: list[Any], offset: int, pieces: Iterable[Any]) -> list[Any]:
    """New blocks with `pieces` written at an offset; those that they do not touch are shared."""
    fresh = list(blocks)
    for piece in pieces:
        while piece:
            number, start = divmod(offset, BLOCK)
            part = bytes(piece[:BLOCK - start])
            old = bytes(fresh[number]) if number < len(fresh) else b""
            fresh[number:number + 1] = [old[:start] + part + old[start + len(part):]]
            offset, piece = offset + len(part), piece[len(part):]
    return fresh


def _resized(blocks: list[Any], old: int, new: int) -> list[Any]:
    """New blocks, cut or filled up with zeros; whole blocks of zeros are one object and cost nothing."""
    number, rest = divmod(new, BLOCK)
    if new <= old:
        return [*blocks[:number], *([bytes(blocks[number][:rest])] if rest else [])]
    fresh = list(blocks)
    if fresh:
        fresh[-1] = bytes(fresh[-1]) + _ZEROS[:min(BLOCK - len(fresh[-1]), new - old)]
    fresh += [_ZEROS] * (number - len(fresh))
    return [*fresh, _ZEROS[:rest]] if rest and len(fresh) == number else fresh


class BlocksHandle(Handle):
    """A handle on a version of a file in memory."""

    def __init__(self, entry: Entry, blocks: list[Any]) -> None:
        self.entry, self._blocks = entry, blocks

    def reader(self, start: int = 0, stop: Optional[int] = None) -> Reader:
        """As the base says."""
        stop = self.entry.size if stop is None else stop
        return ChunkReader(self._parts(start, stop), stop - start)

    def _parts(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            number, cut = divmod(start, BLOCK)
            part = bytes(self._blocks[number][cut:cut + stop - start])
            start += len(part)
            yield part


class MemoryNode:
    """A file (`blocks`, see `_appended`) or a directory (`children`) of memfs; `record` is its entry without path."""

    __slots__ = ("record", "blocks", "children", "_order")

    def __init__(self, kind: str, mode: int, owner: str) -> None:
        self.record = Entry("", kind, 0, mode, owner, time.time_ns(), "", secrets.token_hex(8), backend="memfs")
        self.blocks: list[Any] = []
        self.children: dict[str, MemoryNode] = {}
        self._order: Optional[list[str]] = None         # the names, sorted, once somebody has asked for them

    def put(self, name: str, node: MemoryNode) -> None:
        """Give a child a name."""
        if self._order is not None and name not in self.children:
            bisect.insort(self._order, name)
        self.children[name] = node
        self.record = self.record._replace(mtime_ns=time.time_ns())

    def drop(self, name: str) -> None:
        """Forget a child."""
        del self.children[name]
        if self._order is not None:
            del self._order[bisect.bisect_left(self._order, name)]
        self.record = self.record._replace(mtime_ns=time.time_ns())

    def page(self, after: str, count: int) -> list[tuple[str, Entry]]:
        """The next children behind a name."""
        if self._order is None:
            self._order = sorted(self.children)
        start = bisect.bisect_right(self._order, after) if after else 0
        return [(name, self.children[name].record) for name in self._order[start:start + count]]

    def walk(self, path: str) -> Iterator[tuple[str, MemoryNode]]:
        """All that is below, `path` being where this is."""
        waiting = [(path, self)]
        while waiting:
            above, node = waiting.pop()
            for name, child in node.children.items():
                yield join_path(above, name), child
                waiting.append((join_path(above, name), child))


class Arriving:
    """A body on its way into memfs; its bytes count from the moment that they arrive."""

    def __init__(self, charge: Callable[[int], None]) -> None:
        self.blocks: list[Any] = []
        self.size = self.charged = 0
        self._charge, self._state = charge, hashlib.sha256()

    def put(self, part: memoryview) -> None:
        """A piece of it. Raises StorageFull."""
        self._charge(len(part))
        self.charged += len(part)
        _appended(self.blocks, part)
        self.size += len(part)
        self._state.update(part)

    @property
    def digest(self) -> str:
        """The SHA-256 of what has arrived."""
        return self._state.hexdigest()


class MemFS(FileSystem):
    """Files in the memory of this process; gone when it ends.

    One lock, held for memory only: a body is read without it. `max_bytes` bounds the bytes of all files and of the
    bodies that are arriving; what readers of older versions still hold does not count.
    """

    name = "memfs"

    @dataclass
    class Options:
        """What a mount of it can be told."""

        init_dirs: list[str] = option([], "Directories that are made at mount", kind="list")
        max_bytes: int = option("1GiB", "Bytes of all files together, of those that are arriving, too", kind="size")
        max_files: int = option(1_000_000, "Files and directories", kind="int", minimum=1)

    def __init__(self, options: MemFS.Options, context: MountContext) -> None:
        self._limit, self._most, self._used, self._count = options.max_bytes, options.max_files, 0, 0
        self._lock = threading.Lock()
        self._root = MemoryNode(DIRECTORY, 0o755, ROOT.name)
        for path in options.init_dirs:
            self._folder(canonical_path("/" + path), ROOT.name)

    def close(self) -> None:
        """Free the memory; readers keep theirs."""
        with self._lock:
            self._root, self._used, self._count = MemoryNode(DIRECTORY, 0o755, ROOT.name), 0, 0

    # -- looking -----------------------------------------------------------------------------------------------

    def _node(self, path: str) -> Optional[MemoryNode]:
        node: Optional[MemoryNode] = self._root
        for name in path[1:].split("/") if path != "/" else ():
            node = node.children.get(name) if node is not None else None
        return node

    def _found(self, path: str) -> MemoryNode:
        node = self._node(path)
        if node is None:
            raise FileNotFound()
        return node

    def _guarded(self, path: str, guard: Guard) -> MemoryNode:
        """What is to be changed."""
        node = self._node(path)
        guard(node.record._replace(path=path) if node is not None else None)
        return self._found(path)

    def stat(self, path: str) -> Entry:
        """As the interface says."""
        with self._lock:
            return self._found(path).record._replace(path=path)

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """As the interface says."""
        with self._lock:
            node = self._found(path)
            entry, blocks = node.record._replace(path=path), node.blocks
            if entry.is_dir:
                return Handle(entry)
            if entry.size <= HOT_FILE:
                return MemoryHandle(entry, bytes(blocks[0][:entry.size]) if blocks else b"")
            return BlocksHandle(entry, blocks)

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """As the interface says."""
        with self._lock:
            node = self._found(path)
        if not node.record.is_dir:
            raise Conflict("This is a file, not a directory.")
        return self._pages(path, node, after)

    def _pages(self, path: str, node: MemoryNode, after: str) -> Iterator[Entry]:
        while True:
            with self._lock:
                page = node.page(after, 1000)
            if not page:
                return
            for after, record in page:
                yield record._replace(path=join_path(path, after))

    # -- writing -----------------------------------------------------------------------------------------------

    def _charge(self, size: int) -> None:
        with self._lock:
            self._room_for(size)
            self._used += size

    def _room_for(self, size: int) -> None:
        if self._used + size > self._limit:
            raise StorageFull(f"This filesystem holds {format_size(self._limit)} (max_bytes); delete something first.")

    @contextlib.contextmanager
    def _arriving(self, body: Body) -> Iterator[Arriving]:
        """Room for a body; what of it does not become a part of a file is given back."""
        with self._lock:
            self._room_for(body.length or 0)
        arriving = Arriving(self._charge)
        try:
            yield arriving
        finally:
            with self._lock:
                self._used = max(0, self._used - arriving.charged)      # 0: it was closed meanwhile

    def _changed(self, node: MemoryNode, size: int, arriving: Arriving, **fields: Any) -> None:
        """A node has a new version, out of what has arrived; the lock is held."""
        self._used += size - node.record.size - arriving.charged
        arriving.charged = 0
        node.record = node.record._replace(**{"size": size, "etag": secrets.token_hex(8), "digest": "",
                                              "mtime_ns": time.time_ns(), **fields})

    def _add(self, folder: MemoryNode, name: str, node: MemoryNode) -> MemoryNode:
        if self._count >= self._most:
            raise StorageFull(f"This filesystem holds {self._most} files and directories (max_files).")
        self._count += 1
        folder.put(name, node)
        return node

    def _folder(self, path: str, owner: str, mode: int = 0o755) -> MemoryNode:
        """The directory at a path, made with what is missing above it."""
        node = self._root
        for name in path[1:].split("/") if path != "/" else ():
            if not node.record.is_dir:
                break
            child = node.children.get(name)
            node = child if child is not None else self._add(node, name, MemoryNode(DIRECTORY, mode, owner))
        if not node.record.is_dir:
            raise Conflict("A file is in the way: a part of the path is no directory.")
        return node

    def write(self, path: str, body: Body, owner: str, guard: Guard, options: WriteOptions) -> Written:
        """As the interface says."""
        with self._arriving(body) as arriving:
            pour(body, arriving.put)
            check_digest(options, arriving.digest)
            with self._lock:
                node = self._node(path)
                guard(node.record._replace(path=path) if node is not None else None)
                created = node is None
                if node is None:
                    parent, name = split_path(path)
                    node = self._add(self._folder(parent, owner), name, MemoryNode(FILE, 0o644, owner))
                node.blocks = arriving.blocks
                self._changed(node, arriving.size, arriving, digest=arriving.digest,
                              mode=node.record.mode if options.mode is None else options.mode,
                              mtime_ns=time.time_ns() if options.mtime_ns is None else options.mtime_ns)
                return Written(node.record._replace(path=path), created)

    def patch(self, path: str, body: Body, offset: int, guard: Guard) -> Written:
        """As the interface says; what arrives is seen when all has, or when it breaks off."""
        with self._lock:
            checked_offset(self._guarded(path, guard).record, offset)
        with self._arriving(body) as arriving:
            try:
                pour(body, arriving.put)
            finally:
                written = self._patched(path, arriving, offset, guard)
            return written

    def _patched(self, path: str, arriving: Arriving, offset: int, guard: Guard) -> Written:
        with self._lock:
            node = self._guarded(path, guard)
            size = node.record.size
            checked_offset(node.record, offset)
            if arriving.size:
                if offset == size:
                    for block in arriving.blocks:
                        _appended(node.blocks, memoryview(block))
                else:
                    node.blocks = _overlaid(node.blocks, offset, arriving.blocks)
                self._changed(node, max(size, offset + arriving.size), arriving)
            return Written(node.record._replace(path=path), False)

    def truncate(self, path: str, size: int, guard: Guard) -> Written:
        """As the interface says."""
        with self._lock:
            node = self._guarded(path, guard)
            self._room_for(size - node.record.size)
            node.blocks = _resized(node.blocks, node.record.size, size)
            self._changed(node, size, Arriving(self._charge))
            return Written(node.record._replace(path=path), False)

    def _set(self, path: str, guard: Guard, **fields: Any) -> Entry:
        with self._lock:
            node = self._guarded(path, guard)
            node.record = node.record._replace(**fields)
            return node.record._replace(path=path)

    def chmod(self, path: str, mode: int, guard: Guard) -> Entry:
        """As the interface says."""
        return self._set(path, guard, mode=mode)

    def touch(self, path: str, mtime_ns: int, guard: Guard) -> Entry:
        """As the interface says."""
        return self._set(path, guard, mtime_ns=mtime_ns)

    def mkdir(self, path: str, owner: str, guard: Guard, mode: int = 0o755) -> Written:
        """As the interface says."""
        with self._lock:
            node = self._node(path)
            guard(node.record._replace(path=path) if node is not None else None)
            made = self._folder(path, owner, mode)
            return Written(made.record._replace(path=path), node is None)

    # -- removing and moving -----------------------------------------------------------------------------------

    def remove(self, path: str, recursive: bool, guard: Guard) -> None:
        """As the interface says."""
        with self._lock:
            node = self._guarded(path, guard)
            if node.children and not recursive:
                raise DirectoryNotEmpty()
            gone = [node]
            for below, child in node.walk(path):
                guard(child.record._replace(path=below))
                gone.append(child)
            self._drop(path, gone)

    def _drop(self, path: str, gone: Sequence[MemoryNode]) -> None:
        parent, name = split_path(path)
        if not name:
            raise BadRequest("The root can not be removed.")
        self._found(parent).drop(name)
        self._count -= len(gone)
        self._used -= sum(node.record.size for node in gone)

    def move(self, source: str, target: str, owner: str, guard: Guard, target_guard: Guard, parents: bool) -> Entry:
        """As the interface says."""
        if is_below(target, source):
            raise BadRequest("A path can not be moved into itself.")
        with self._lock:
            other = self._node(target)
            node = self._guarded(source, guard)
            target_guard(other.record._replace(path=target) if other is not None else None)
            parent, name = split_path(target)
            check_target(node.record, other.record if other is not None else None,
                         parents or self._node(parent) is not None, lambda: not other.children)
            folder = self._folder(parent, owner)
            if other is not None:
                self._drop(target, [other])
            old, last = split_path(source)
            self._found(old).drop(last)
            folder.put(name, node)
            return node.record._replace(path=target)


# ============================================================================
# localfs: a folder of this machine in place
# ============================================================================

LISTED_AT_ONCE = 100_000                    # names in memory; a directory that has more is read several times
STALE_SCRATCH = 86400.0                     # seconds after which a temporary file belongs to a server that was killed


class FolderDisk(LocalDisk):
    """The disk of a folder that belongs to somebody else: nothing is made in it before it is needed, and what was
    made goes at the end. Modes are what was asked for, as with `chmod`."""

    def __init__(self, root: str, read_only: bool) -> None:
        self._foreign = os.path.lexists(os.path.join(root, HIDDEN))     # another server's, perhaps
        super().__init__(root)
        self._umask = 0
        self.writable = not read_only and os.access(self.root, os.W_OK)
        if self.writable:
            self.sweep(STALE_SCRATCH)

    def _prepare(self) -> bool:
        """Not yet."""
        return False

    def seal(self, staged: Staged, mode: int, mtime_ns: Optional[int]) -> os.stat_result:
        """As the base says. The time is finer than the disk's own clock: it tells versions apart, as no record does."""
        return super().seal(staged, mode, time.time_ns() if mtime_ns is None else mtime_ns)

    def trash(self, path: str) -> Callable[[], None]:
        """As the base says."""
        os.makedirs(os.path.join(self.hidden, "trash"), mode=0o700, exist_ok=True)
        return super().trash(path)

    def close(self) -> None:
        """As the base says."""
        super().close()
        for name in ("tmp", "trash", "") if self.writable and not self._foreign else ():
            with contextlib.suppress(OSError):          # not there, or another mount of the folder uses it
                os.rmdir(os.path.join(self.hidden, name))


class _NoRecords:
    """Stands for a metadata store where the disk itself is the truth: what is put is what is there."""

    def __init__(self, look: Callable[[str], Entry]) -> None:
        self._look = look

    def get(self, path: str) -> Optional[Entry]:
        """Nothing is recorded."""
        return None

    def put(self, entry: Entry) -> Entry:
        """The entry as it is on the disk."""
        return self._look(entry.path)

    def forget(self, *paths: str) -> int:
        """There is nothing to forget."""
        return 0

    delete = move = forget

    def close(self) -> None:
        """There is nothing to close."""


class LocalFS(StoreFS):
    """A folder of this machine, served in place: owner, mode, time and ETag are those of its files.

    It is the store without its records, so everybody with a key may change everything. `id` is the inode: a
    file that is replaced is another one. `.callfs` in the folder is not shown; temporary files lie there.
    """

    name = "localfs"
    aliases = MappingProxyType({"localDir": "local_dir", "path": "local_dir", "readonly": "read_only"})

    @dataclass
    class Options:
        """What a mount of it can be told."""

        local_dir: str = option("", "The folder; relative to that of the configuration file")
        read_only: bool = option(False, "Refuse every change", kind="bool")

    def __init__(self, options: LocalFS.Options, context: MountContext) -> None:
        folder = served_folder(options.local_dir, options.read_only, context)
        disk = FolderDisk(folder, options.read_only)
        writable, disk.writable = disk.writable, False  # for the store, so that it notes nothing in somebody's folder
        super().__init__(disk, _NoRecords(self._look), LocalLocks(30.0),     # type: ignore[arg-type]
                         metrics=context.metrics, log=context.log)
        disk.writable, self._told = writable, options.read_only

    def check(self) -> dict[str, str]:
        """As the interface says."""
        return {"folder": state_of(self._check_disk)}

    def _look(self, path: str) -> Entry:
        return self._agreed(path, self._disk.stat(path))

    def _agreed(self, path: str, found: os.stat_result, locked: bool = False) -> Entry:
        """The entry of what is on the disk."""
        return stranger(path, found, "")._replace(owner=ANYONE, mode=stat.S_IMODE(found.st_mode),
                                                  id=f"{found.st_dev:x}-{found.st_ino:x}")

    def _there(self, path: str) -> Optional[Entry]:
        """As the store has it: every change asks for this first."""
        if not self._disk.writable:
            raise PermissionDenied("This filesystem was mounted read-only." if self._told else
                                   "The server's account may not write into this folder.")
        return super()._there(path)

    @contextlib.contextmanager
    def _noted(self, step: dict[str, Any], entry: Optional[Entry] = None) -> Iterator[None]:
        """No record can differ from the disk, so nothing has to be caught up with after a crash."""
        yield

    def _take_in(self, path: str) -> None:
        """Nor does a listing need any."""

    def _records(self, path: str, after: str) -> Iterator[list[Entry]]:
        names = iter(self._names(path, after))
        return iter(lambda: [Entry(join_path(path, name)) for name in itertools.islice(names, 1000)], [])

    def _names(self, path: str, after: str) -> Iterator[str]:
        while True:
            with self._failures("list"):
                names = heapq.nsmallest(LISTED_AT_ONCE, (name for some in self._disk.scan(path) for name in some
                                                         if name > after))
            yield from names
            if len(names) < LISTED_AT_ONCE:
                return
            after = names[-1]


def served_folder(given: str, read_only: bool, context: MountContext) -> str:
    """The real path of a folder that may be served. Raises BadRequest, with no other path than what was given."""
    if not given:
        raise BadRequest("localfs: local_dir is needed: the folder to serve.")
    folder = os.path.realpath(os.path.join(context.folder, os.path.expanduser(given)))
    if not os.path.isdir(folder):
        raise BadRequest(f"localfs: {given!r} is no directory." if os.path.exists(folder) else
                         f"localfs: there is no folder {given!r}.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise BadRequest(f"localfs: the server's account may not read the folder {given!r}.")
    for private in map(os.path.realpath, filter(None, context.private)):
        if _holds(folder, private) or _holds(private, folder):
            raise BadRequest(f"localfs: {given!r} holds data of this server itself; choose another folder.")
        root, name = os.path.split(private)
        if name == HIDDEN and not read_only and _holds(root, folder):
            raise BadRequest(f"localfs: {given!r} lies in the store, where it is served already; mount it with "
                             "read_only, or choose another folder.")
    return folder


def _holds(folder: str, path: str) -> bool:
    """Whether a real path is a folder or lies in it."""
    return path == folder or path.startswith(os.path.join(folder, ""))


# ============================================================================
# kvfs: a key-value store
# ============================================================================

_KEY_SEPARATOR = "\x01"                     # for "/": sorts before all that a name can hold, so that keys come in the
_KEY_END = "\x02"                           # order of a listing. `key + _KEY_END` is behind all that is below a key
_LAST_KEY = "\U0010ffff" * 64              # behind every key: a name has at most 255 bytes
_KEYS_ID = 0x63616B76                       # "cakv", SQLite's application_id
_KEYS_SCHEMA = f"""
    BEGIN IMMEDIATE;
    CREATE TABLE keys (key TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, etag TEXT NOT NULL,
                       id TEXT NOT NULL, digest TEXT NOT NULL, value BLOB NOT NULL);
    PRAGMA application_id = {_KEYS_ID}; PRAGMA user_version = 1; COMMIT;
"""
_KEY_COLUMNS = "key, size, mtime_ns, etag, id, digest"
KEYS_README = b"""# kvfs: a key-value store

Every file below /keys is a value; its path there is the key.

    write  /keys/NAME      set a value
    read   /keys/NAME      get it
    list   /keys           the keys
    delete /keys/NAME      forget it

A key may hold slashes: /keys/users/alice is the key "users/alice". The directories in between are there as long as a
key is below them; making one does nothing, and it is gone with its last key. A key can not lie below another key.
"""


class KeyValueFS(FileSystem):
    """Values by key, in SQLite: in a file (durable, for nobody else to read), or in memory.

    Whoever may write may change every key. One lock for writing, held over a commit; readers of a file have a
    connection of their own and go on meanwhile.
    """

    name = "kvfs"

    @dataclass
    class Options:
        """What a mount of it can be told."""

        initial_data: dict[str, Any] = option({}, "Values by key, set where there is none yet; a map in it is a "
                                              "directory", kind="tree")
        db_path: str = option("", "SQLite file that keeps the values; empty: memory")
        max_value: int = option("16MiB", "Bytes of the largest value", kind="size")

    def __init__(self, options: KeyValueFS.Options, context: MountContext) -> None:
        self._limit, self._since = options.max_value, time.time_ns()
        self._lock = self._read_lock = threading.Lock()
        path = os.path.join(context.folder, options.db_path) if options.db_path else ":memory:"
        if options.db_path:
            if not os.path.isdir(os.path.dirname(path)):
                raise BadRequest(f"kvfs: db_path: there is no folder for {options.db_path!r}; make it first.")
            make_private(path)
        with self._errors():
            self._writer = self._reader = connect_sqlite(path)
        try:
            self._prepare()
            self._fill(options.initial_data)
            if options.db_path:
                with self._errors():
                    self._reader, self._read_lock = connect_sqlite(path), threading.Lock()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        with self._errors():
            about = [self._writer.execute("PRAGMA " + name).fetchone()[0] for name in ("application_id", "user_version")]
            if not self._writer.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._writer.executescript(_KEYS_SCHEMA)
            elif about != [_KEYS_ID, 1]:
                raise BadRequest("kvfs: db_path: this is the database of another program or of a later version.")

    def _fill(self, data: Mapping[str, Any]) -> None:
        """Set the initial values, all of them or none; a key that is there, above or below, stays."""
        wanted = _leaves(data)
        with self._changing() as session:
            for key, value in sorted(wanted.items()):
                if self._in_the_way(session, key) in wanted:
                    raise BadRequest("kvfs: initial_data: a key lies below another key.")
                if self._entry(session, "/keys/" + key) is None and self._in_the_way(session, key) is None:
                    self._put(session, key, value, None, digest=hashlib.sha256(value).hexdigest())

    @staticmethod
    @contextlib.contextmanager
    def _errors() -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _store_error(error, "key-value store") from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, durable at the end; an error takes it back."""
        with self._lock, self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, self._errors():
            yield self._reader

    def close(self) -> None:
        """Close the database."""
        for lock, connection in ((self._read_lock, self._reader), (self._lock, self._writer)):
            with lock:
                connection.close()

    def check(self) -> dict[str, str]:
        """As the interface says."""
        return {"keys": state_of(lambda: self.peek("/keys/x"))}

    # -- looking -----------------------------------------------------------------------------------------------

    @staticmethod
    def _key(path: str) -> str:
        """The key of a path that may be changed. Raises PermissionDenied."""
        if not path.startswith("/keys/"):
            raise PermissionDenied("Keys are below /keys: use /keys/NAME.")
        return path[len("/keys/"):]

    def _folder(self, path: str) -> Entry:
        return Entry(path, DIRECTORY, 0, 0o755 if is_below(path, "/keys") else 0o555, ANYONE, self._since, id=path,
                     backend=self.name)

    def _file(self, row: Sequence[Any]) -> Entry:
        key, size, mtime_ns, etag, number, digest = row[:6]
        return Entry("/keys/" + key.replace(_KEY_SEPARATOR, "/"), FILE, size, 0o644, ANYONE, mtime_ns, etag, number, digest,
                     self.name)

    def _entry(self, session: sqlite3.Connection, path: str) -> Optional[Entry]:
        if path in ("/", "/keys"):
            return self._folder(path)
        if path == "/README":
            return generated(path, KEYS_README, self._since, backend=self.name).entry
        if not path.startswith("/keys/"):
            return None
        key = _stored(self._key(path))
        row = session.execute(f"SELECT {_KEY_COLUMNS} FROM keys WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return self._file(row)
        below = session.execute("SELECT 1 FROM keys WHERE key > ? AND key < ? LIMIT 1", _range(key)).fetchone()
        return self._folder(path) if below else None

    def stat(self, path: str) -> Entry:
        """As the interface says."""
        with self._reading() as session:
            entry = self._entry(session, path)
        if entry is None:
            raise FileNotFound()
        return entry

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """As the interface says."""
        with self._reading() as session:
            row = session.execute(f"SELECT {_KEY_COLUMNS}, value FROM keys WHERE key = ?",
                                  (_stored(path[len("/keys/"):]),)).fetchone() if path.startswith("/keys/") else None
        if row is not None:
            return MemoryHandle(self._file(row), row[-1])
        if path == "/README":
            return generated(path, KEYS_README, self._since, backend=self.name)
        return Handle(self.stat(path))

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """As the interface says."""
        if not self.stat(path).is_dir:
            raise Conflict("This is a file, not a directory.")
        if path == "/":
            return iter([entry for entry in map(self.stat, ("/README", "/keys")) if entry.name > after])
        return self._children(path, after)

    def _children(self, path: str, after: str) -> Iterator[Entry]:
        """Some keys at a time; from one in a directory it goes on behind that directory."""
        prefix = _stored(path[len("/keys/"):]) + _KEY_SEPARATOR if path != "/keys" else ""
        last, stop = prefix + after + _KEY_END if after else prefix, prefix[:-1] + _KEY_END if prefix else _LAST_KEY
        while True:
            with self._reading() as session:
                rows = session.execute(f"SELECT {_KEY_COLUMNS} FROM keys WHERE key > ? AND key < ? ORDER BY key LIMIT 100",
                                       (last, stop)).fetchall()
            if not rows:
                return
            for row in rows:
                name, deeper, _ = row[0][len(prefix):].partition(_KEY_SEPARATOR)
                yield self._folder(join_path(path, name)) if deeper else self._file(row)
                last = prefix + name + _KEY_END
                if deeper:
                    break

    # -- changing ----------------------------------------------------------------------------------------------

    @staticmethod
    def _in_the_way(session: sqlite3.Connection, key: str) -> Optional[str]:
        """A key that the key would lie below."""
        above = [path[1:] for path in ancestors("/" + key)[1:]]
        return next((one for one in above if session.execute("SELECT 1 FROM keys WHERE key = ?",
                                                             (_stored(one),)).fetchone()), None)

    def _free(self, session: sqlite3.Connection, key: str, there: Optional[Entry]) -> None:
        """Raises Conflict where a key and a directory would have one name."""
        above = self._in_the_way(session, key)
        if above is not None:
            raise Conflict(f"{above} is a key; no key can lie below it.")
        if there is not None and there.is_dir:
            raise Conflict("There are keys below this name; it can not be a key itself.")

    def _put(self, session: sqlite3.Connection, key: str, value: bytes, there: Optional[Entry], digest: str = "",
             mtime_ns: Optional[int] = None) -> Entry:
        if len(value) > self._limit:
            raise PayloadTooLarge(f"A value may have {self._limit} bytes (max_value).")
        row = (_stored(key), len(value), time.time_ns() if mtime_ns is None else mtime_ns, secrets.token_hex(8),
               there.id if there else secrets.token_hex(8), digest)
        session.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, value))
        return self._file(row)

    def _take(self, body: Body, value: bytearray) -> None:
        """Take in a body. Raises PayloadTooLarge."""
        def put(part: memoryview) -> None:
            if len(value) + len(part) > self._limit:
                raise PayloadTooLarge(f"A value may have {self._limit} bytes (max_value).")
            value.extend(part)
        if (body.length or 0) > self._limit:
            raise PayloadTooLarge(f"A value may have {self._limit} bytes (max_value).")
        pour(body, put)

    def write(self, path: str, body: Body, owner: str, guard: Guard, options: WriteOptions) -> Written:
        """As the interface says. Keys have no mode."""
        key, value = self._key(path), bytearray()
        self._take(body, value)
        digest = hashlib.sha256(value).hexdigest()
        check_digest(options, digest)
        with self._changing() as session:
            there = self._entry(session, path)
            guard(there)
            self._free(session, key, there)
            return Written(self._put(session, key, bytes(value), there, digest, options.mtime_ns), there is None)

    def patch(self, path: str, body: Body, offset: int, guard: Guard) -> Written:
        """As the interface says; what arrives is seen when all has, or when it breaks off."""
        key, value = self._key(path), bytearray()
        checked_offset(self.stat(path), offset)
        try:
            self._take(body, value)
        finally:
            written = self._edited(path, key, guard, lambda old: old[:offset] + value + old[offset + len(value):], offset)
        return written

    def truncate(self, path: str, size: int, guard: Guard) -> Written:
        """As the interface says."""
        if size > self._limit:
            raise PayloadTooLarge(f"A value may have {self._limit} bytes (max_value).")
        return self._edited(path, self._key(path), guard, lambda old: old[:size] + bytes(max(0, size - len(old))))

    def _edited(self, path: str, key: str, guard: Guard, edit: Callable[[bytes], bytes], offset: int = 0) -> Written:
        with self._changing() as session:
            there = self._present(session, path, guard)
            if there.is_dir:
                raise Conflict("A directory is there.")
            checked_offset(there, offset)
            old = session.execute("SELECT value FROM keys WHERE key = ?", (_stored(key),)).fetchone()[0]
            new = edit(old)
            return Written(there if new == old else self._put(session, key, new, there), False)

    def _present(self, session: sqlite3.Connection, path: str, guard: Guard) -> Entry:
        """The entry of what is to be changed."""
        there = self._entry(session, path)
        guard(there)
        if there is None:
            raise FileNotFound()
        return there

    def touch(self, path: str, mtime_ns: int, guard: Guard) -> Entry:
        """As the interface says; a directory has no time of its own."""
        key = _stored(self._key(path))
        with self._changing() as session:
            there = self._present(session, path, guard)
            if there.is_dir:
                return there
            session.execute("UPDATE keys SET mtime_ns = ? WHERE key = ?", (mtime_ns, key))
            return there._replace(mtime_ns=mtime_ns)

    def mkdir(self, path: str, owner: str, guard: Guard, mode: int = 0o755) -> Written:
        """Directories come with the keys below them and need not be made: nothing happens where one could be."""
        with self._changing() as session:
            there = self._entry(session, path)
            guard(there)
            if there is not None:
                return Written(there, False)
            self._free(session, self._key(path), None)
            return Written(self._folder(path), True)

    def remove(self, path: str, recursive: bool, guard: Guard) -> None:
        """As the interface says."""
        with self._changing() as session:
            there = self._present(session, path, guard)
            key = _stored(self._key(path))
            if there.is_dir and not recursive:
                raise DirectoryNotEmpty()
            for row in session.execute(f"SELECT {_KEY_COLUMNS} FROM keys WHERE key > ? AND key < ?", _range(key)):
                guard(self._file(row))
            session.execute("DELETE FROM keys WHERE key = ? OR key > ? AND key < ?", (key, *_range(key)))

    def move(self, source: str, target: str, owner: str, guard: Guard, target_guard: Guard, parents: bool) -> Entry:
        """As the interface says; a directory's keys get other names."""
        if is_below(target, source):
            raise BadRequest("A path can not be moved into itself.")
        with self._changing() as session:
            there, other = self._present(session, source, guard), self._entry(session, target)
            target_guard(other)
            old, new = _stored(self._key(source)), _stored(self._key(target))
            self._free(session, self._key(target), None)
            check_target(there, other, True, lambda: False)
            session.execute("DELETE FROM keys WHERE key = ?", (new,))
            session.execute("UPDATE keys SET key = ? || substr(key, ?) WHERE key = ? OR key > ? AND key < ?",
                            (new, len(old) + 1, old, *_range(old)))
            return self._entry(session, target) or there._replace(path=target)


def _stored(key: str) -> str:
    """A key as the database has it."""
    return key.replace("/", _KEY_SEPARATOR)


def _range(key: str) -> tuple[str, str]:
    """What lies below a stored key: behind the one, before the other."""
    return key + _KEY_SEPARATOR, key + _KEY_END


def _leaves(data: Mapping[str, Any], above: str = "") -> dict[str, bytes]:
    """The values of a map of maps by key. Raises BadRequest."""
    found: dict[str, bytes] = {}
    for name, value in data.items():
        key = canonical_path(f"/{above}/{name}")[1:]
        if isinstance(value, list) or not key:
            raise BadRequest("kvfs: initial_data: a value is a text, a number, true, false, null, or a map of those.")
        if isinstance(value, Mapping):
            found.update(_leaves(value, key))
        else:
            found[key] = value.encode() if isinstance(value, str) else b"" if value is None else json.dumps(value).encode()
    return found


# ============================================================================
# serverinfofs: the server about itself
# ============================================================================

INFO_README = b"""# serverinfofs: the server about itself

    version      the version of callfs
    uptime       how long it has been running: 24h30m15s
    stats        requests, operations, memory, threads, mounts (JSON)
    server_info  what it runs on (JSON)
"""


def uptime_text(seconds: float) -> str:
    """Whole hours, minutes and seconds: "24h30m15s", "5s"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"


def memory_bytes() -> int:
    """What this process has in memory; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


class ServerInfoFS(GeneratedFS):
    """Version, uptime and numbers of the server, made when they are read.

    Nothing in it tells a secret or a path of the machine."""

    name = "serverinfofs"

    def __init__(self, options: ServerInfoFS.Options, context: MountContext) -> None:
        super().__init__(options, context)
        self._context = context
        self._files = {"README": lambda: INFO_README, "version": context.version.encode, "stats": self._stats,
                       "uptime": lambda: uptime_text(self._uptime()).encode(), "server_info": self._info}

    def _uptime(self) -> float:
        return self._context.metrics.value("callfs_uptime_seconds")

    def _stats(self) -> bytes:
        metrics, mounts = self._context.metrics, self._context.tree.mount_points()
        operations: collections.Counter[str] = collections.Counter()
        for (operation, *_), count in metrics.cells("callfs_file_operations_total").items():
            operations[operation] += int(count)
        return _json_lines({
            "uptime_seconds": int(self._uptime()),
            "requests": sum(metrics.cells("callfs_http_requests_total").values()),
            "connections": int(metrics.value("callfs_http_connections")),
            "bytes_sent": int(metrics.value("callfs_http_response_bytes_total")),
            "operations": dict(sorted(operations.items())),
            "errors": sum(metrics.cells("callfs_errors_total").values()),
            "memory_bytes": memory_bytes(), "threads": threading.active_count(), "mounts": len(mounts)})

    def _info(self) -> bytes:
        return _json_lines({
            "name": "callfs", "version": self._context.version, "python": sys.version.split()[0],
            "implementation": sys.implementation.name, "platform": sys.platform, "byte_order": sys.byteorder,
            "cpus": os.cpu_count(), "pid": os.getpid(), "started": rfc3339(time.time_ns() - int(self._uptime() * 1e9))})


def _json_lines(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


# ============================================================================
# streamfs: written pieces go to every reader
# ============================================================================

STREAM_TOLD = 1.0                           # seconds between two events of a stream that is being written
SMALL_PIECE = 16 * 1024                     # smaller pieces are joined up to here: each costs 100 bytes besides its own


class StreamRing:
    """The last `capacity` bytes of a stream, in pieces that all readers share: a reader is only an offset.

    Offsets count from the stream's first byte; `start` is that of the oldest byte that is still here, `end` of the
    next one. Memory is `capacity` bytes and at most one piece, however many read. No writer ever waits for a reader:
    one that is more than `lag` bytes behind loses the oldest.
    """

    def __init__(self, capacity: int, lag: int) -> None:
        self.capacity, self.lag = capacity, min(lag or capacity, capacity)
        self.start, self.end, self.emptied, self.lost = 0, 0, 0, 0
        self.mtime_ns, self.ended, self.deleted = time.time_ns(), False, False
        self.readers: set[StreamReader] = set()
        self.changed = threading.Condition()
        self._pieces: list[bytes] = []
        self._offsets: list[int] = []       # of the first byte of each piece
        self._idle: set[StreamReader] = set()           # were told that there is nothing, and have not been woken since

    @property
    def floor(self) -> int:
        """Where a reader must be at least."""
        return max(self.start, self.end - self.lag)

    def append(self, data: bytes) -> None:
        """Give a piece, which nobody changes any more, to all readers. Raises FileNotFound when it was deleted."""
        with self.changed:
            if self.deleted:
                raise FileNotFound("The stream was deleted.")
            if self._pieces and len(self._pieces[-1]) + len(data) <= SMALL_PIECE:
                self._pieces[-1] += data    # a new object: who has the old one keeps it
            else:
                self._pieces.append(data)
                self._offsets.append(self.end)
            self.end += len(data)
            self.mtime_ns = max(time.time_ns(), self.mtime_ns + 1)
            self._drop(self.end - self.capacity)
            woken = self._woken()
        for reader in woken:
            reader.wake()

    def empty(self) -> None:
        """Forget what is there; readers go on with what comes."""
        with self.changed:
            self.emptied += 1
            self.mtime_ns = max(time.time_ns(), self.mtime_ns + 1)
            self._drop(self.end)

    def finish(self, deleted: bool = True) -> None:
        """Readers get what they have not got yet, then the end; `deleted`: nothing can be written any more."""
        with self.changed:
            self.ended, self.deleted = True, deleted
            woken = self._woken()
        for reader in woken:
            reader.wake()

    def parts(self, offset: int, size: int) -> list[bytes]:
        """At least one byte and up to `size` from an offset that is there (caller has the lock). A large piece comes
        alone, as it lies there, small ones together: the caller joins them, without the lock."""
        at = bisect.bisect_right(self._offsets, offset) - 1
        skip = offset - self._offsets[at]
        found = [self._pieces[at][skip:skip + size]]        # a whole slice of bytes is the same object
        have = len(found[0])
        while 2 * have < size and at + 1 < len(self._pieces):
            at += 1
            found.append(self._pieces[at][:size - have])
            have += len(found[-1])
        return found

    def pieces(self) -> list[bytes]:
        """All of it (caller has the lock); copies at most one piece."""
        if self.start == self.end:
            return []
        return [self._pieces[0][self.start - self._offsets[0]:], *self._pieces[1:]]

    def rest(self, reader: StreamReader) -> None:
        """A reader was told that there is nothing (it has the lock)."""
        self._idle.add(reader)

    def leave(self, reader: StreamReader) -> None:
        """A reader goes away."""
        with self.changed:
            self.readers.discard(reader)
            self._idle.discard(reader)
            self.changed.notify_all()

    def _drop(self, start: int) -> None:
        self.start = max(self.start, start)
        gone = bisect.bisect_right(self._offsets, self.start) - (self.start < self.end)
        if gone > 0:
            del self._pieces[:gone], self._offsets[:gone]

    def _woken(self) -> set[StreamReader]:
        """Those to wake, once for all that comes until they read again."""
        woken, self._idle = self._idle, set()
        self.changed.notify_all()
        return woken


class StreamReader(Reader):
    """What a stream holds and then what comes, until it is over. `dropped` bytes were lost because it lagged.

    Where `attach` was called, `read` never blocks: None means nothing yet. Elsewhere it waits.
    """

    def __init__(self, ring: StreamRing) -> None:
        self._ring, self.dropped, self._closed = ring, 0, False
        self._wake: Optional[Callable[[], None]] = None
        with ring.changed:
            self._at = ring.floor
            ring.readers.add(self)

    def attach(self, wake: Callable[[], None]) -> None:
        """From now on call `wake` (any thread) when there is more after a `read` that gave None."""
        self._wake = wake

    def wake(self) -> None:
        """There is more."""
        if self._wake is not None:
            self._wake()

    def read(self, size: int = BLOCK) -> Optional[bytes]:       # type: ignore[override]
        """The next bytes; None: not yet; b"": over."""
        ring = self._ring
        with ring.changed:
            self._catch_up()
            while self._at == ring.end:
                if ring.ended or self._closed:
                    return b""
                if self._wake is not None:
                    ring.rest(self)
                    return None
                ring.changed.wait()
                self._catch_up()
            parts = ring.parts(self._at, size)
        block = parts[0] if len(parts) == 1 else b"".join(parts)
        self._at += len(block)
        return block

    def _catch_up(self) -> None:
        behind = self.behind()
        if behind > 0:
            self._at += behind
            self.dropped += behind
            self._ring.lost += behind

    def behind(self) -> int:
        """How much it has lost and does not know of yet."""
        return max(0, self._ring.floor - self._at)

    def trailers(self) -> list[tuple[str, str]]:                # type: ignore[override]
        """What it has lost so far."""
        return [("X-Stream-Dropped", str(self.dropped))]

    def close(self) -> None:
        """Leave the stream; a `read` that waits ends."""
        self._closed = True
        self._ring.leave(self)


class StreamSnapshot(Handle):
    """What a stream holds now: a file like any other. Its pieces are those of the ring until that lets them go."""

    def __init__(self, entry: Entry, pieces: list[bytes]) -> None:
        self.entry, self._pieces = entry, pieces

    def reader(self, start: int = 0, stop: Optional[int] = None) -> Reader:
        """As the base says."""
        last = self.entry.size if stop is None else stop
        return ChunkReader(self._slices(start, last), last - start)

    def _slices(self, start: int, stop: int) -> Iterator[bytes]:
        at = 0
        for piece in self._pieces:
            part = piece[max(0, start - at):max(0, stop - at)]
            at += len(piece)
            if part:
                yield part


@dataclass
class _StreamNode:
    """A stream (`ring`), a text (`text`), or a directory."""

    id: str
    mode: int
    mtime_ns: int
    ring: Optional[StreamRing] = None
    text: Optional[bytes] = None

    @property
    def is_dir(self) -> bool:
        return self.ring is None and self.text is None


class StreamFS(FileSystem):
    """Streams: what is written to one goes to all who read it (`stream=true`) as it arrives.

    Nothing is durable. Everybody may write to every stream, several at once: their pieces come one after the other,
    each whole. Without the wish a stream is a file with what it holds at the moment.
    """

    name = "streamfs"
    README = b"""streamfs: written pieces go to every reader

  write --stream /live         make a stream, or go on with it; several may write at once
  cat --stream /live           what it holds, then what comes, until the stream is deleted
  cat /live                    what it holds now
  stat /live                   how many read, and how many bytes those have lost who read too slowly
  truncate /live to 0          forget what it holds
  rm /live                     readers get the rest, then the end

Each stream keeps its last bytes (buffer_size). A slow reader never holds up a writer: it loses the oldest.
"""

    @dataclass
    class Options:
        """As the base says."""

        buffer_size: int = option("6MB", "Bytes that each stream keeps", kind="size", minimum=1)
        channel_buffer_size: int = option("0", "Bytes that one reader may lag before it loses the oldest; 0: all "
                                          "that the stream keeps", kind="size", minimum=0)

    aliases = MappingProxyType({"ring_buffer_size": "buffer_size"})

    def __init__(self, options: StreamFS.Options, context: MountContext) -> None:
        self._options, self._lock, self._quiet = options, threading.RLock(), False
        self._tell = context.changed
        now = time.time_ns()
        self._nodes = {"/": _StreamNode("root", 0o755, now),
                       "/README": _StreamNode("readme", 0o444, now, text=self.README)}

    def quiesce(self) -> None:
        """As the interface says."""
        with self._lock:
            self._quiet = True
            self._finish(self._nodes.values(), deleted=False)

    def close(self) -> None:
        """End all readers."""
        with self._lock:
            self._quiet = True
            self._finish(self._nodes.values())

    @staticmethod
    def _finish(nodes: Iterable[_StreamNode], deleted: bool = True) -> None:
        for node in nodes:
            if node.ring is not None:
                node.ring.finish(deleted)

    # -- looking -----------------------------------------------------------------------------------------------

    def _node(self, path: str) -> _StreamNode:
        node = self._nodes.get(path)
        if node is None:
            raise FileNotFound()
        return node

    def _entry(self, path: str, node: _StreamNode) -> Entry:
        kind, ring = DIRECTORY if node.is_dir else FILE, node.ring
        if ring is None:
            etag = "" if node.is_dir else node.id
            return Entry(path, kind, len(node.text or b""), node.mode, ANYONE, node.mtime_ns, etag, node.id,
                         backend=self.name)
        with ring.changed:
            etag = f"{node.id}-{ring.end:x}-{ring.emptied:x}"
            return Entry(path, kind, ring.end - ring.start, node.mode, ANYONE, max(ring.mtime_ns, node.mtime_ns), etag,
                         node.id, backend=self.name)

    def stat(self, path: str) -> Entry:
        """As the interface says; the size is what the stream holds now."""
        with self._lock:
            return self._entry(path, self._node(path))

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """As the interface says; with the wish `stream` a reader that ends with the stream, pushed or waiting."""
        with self._lock:
            node = self._node(path)
            ring = node.ring
            if ring is None:
                entry = self._entry(path, node)
                return Handle(entry) if node.text is None else MemoryHandle(entry, node.text)
            if wish.get("stream", "").lower() in ("true", "1"):
                return LiveHandle(self._entry(path, node), functools.partial(StreamReader, ring))
            with ring.changed:
                return StreamSnapshot(self._entry(path, node), ring.pieces())

    def describe(self, entry: Entry) -> Meta:
        """As the interface says: how many read, how much was written and lost."""
        node = self._nodes.get(entry.path)
        ring = node.ring if node else None
        if ring is None:
            return Meta(self.name, entry.type)
        with ring.changed:
            lost = ring.lost + sum(reader.behind() for reader in ring.readers)
            return Meta(self.name, "stream", {"readers": str(len(ring.readers)), "written": str(ring.end),
                                              "dropped": str(lost), "buffer_size": str(ring.capacity)})

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """As the interface says."""
        with self._lock:
            if not self._node(path).is_dir:
                raise Conflict("This is a file, not a directory.")
            names = sorted(name for parent, name in map(split_path, self._nodes) if parent == path and name > after)
            return iter([self._entry(join_path(path, name), self._nodes[join_path(path, name)]) for name in names])

    # -- writing -----------------------------------------------------------------------------------------------

    def write(self, path: str, body: Body, owner: str, guard: Guard, options: WriteOptions) -> Written:
        """Make a stream or go on with it (never a replacement): what arrives is with the readers at once, so it has
        been delivered also when the body breaks off later or its SHA-256 is not the announced one; the stream stays.
        The sender may pause as long as it likes. Raises FileNotFound when the stream is deleted meanwhile."""
        with self._lock:
            guard(self.peek(path))
            made = [each for each in (*ancestors(path), path) if each not in self._nodes]
            node = self._nodes[path] if not made else self._make(path, options)
        if node.ring is None:
            raise Conflict("A directory is there.") if node.is_dir else PermissionDenied("This file is read-only.")
        for each in made:                   # now, as the writer may go on for days
            self._tell("create", each)
        self._pour(path, node.ring, body, options.sha256)
        return Written(self._entry(path, node), bool(made), told=bool(made))

    def _make(self, path: str, options: WriteOptions) -> _StreamNode:
        self._make_parents(split_path(path)[0])
        ring = StreamRing(self._options.buffer_size, self._options.channel_buffer_size)
        mode = 0o644 if options.mode is None else options.mode
        node = self._nodes[path] = _StreamNode(secrets.token_hex(8), mode, options.mtime_ns or 0, ring)
        if options.mtime_ns is not None:
            ring.mtime_ns = options.mtime_ns
        if self._quiet:
            ring.finish(deleted=False)
        return node

    def _make_parents(self, path: str, mode: int = 0o755) -> None:
        for folder in (*ancestors(path), path):
            node = self._nodes.setdefault(folder, _StreamNode(secrets.token_hex(8), mode, time.time_ns()))
            if not node.is_dir:
                raise Conflict("A file is in the way: a part of the path is no directory.")

    def _pour(self, path: str, ring: StreamRing, body: Body, sha256: str) -> None:
        if body.length != 0:                # the empty body is one for all
            body.patient = True
        # One piece must not push out of a small ring what readers had no chance to take.
        view = memoryview(bytearray(max(1, min(BLOCK, ring.lag // 4))))
        digest, total, count, told = hashlib.sha256(), 0, body.readinto(view), time.monotonic()
        while count:
            ring.append(bytes(view[:count]))
            total += count
            if time.monotonic() - told > STREAM_TOLD:
                told = time.monotonic()
                self._tell("update", path)
            if sha256:
                digest.update(view[:count])
            count = body.readinto(view)
        if body.length is not None and total != body.length:
            raise Disconnected("The body is shorter than announced.")
        if sha256 and digest.hexdigest() != sha256:
            raise BadRequest("The body does not have the SHA-256 that was announced; readers have got it already.")

    def truncate(self, path: str, size: int, guard: Guard) -> Written:
        """As the interface says, to 0 only."""
        node = self._changed(path, guard)
        if size or node.ring is None:
            raise BadRequest("A stream can only be emptied: truncate it to 0 bytes.")
        node.ring.empty()
        return Written(self._entry(path, node), False)

    def chmod(self, path: str, mode: int, guard: Guard) -> Entry:
        """As the interface says."""
        node = self._changed(path, guard)
        node.mode = mode
        return self._entry(path, node)

    def touch(self, path: str, mtime_ns: int, guard: Guard) -> Entry:
        """As the interface says."""
        node = self._changed(path, guard)
        node.mtime_ns = mtime_ns
        if node.ring is not None:
            node.ring.mtime_ns = mtime_ns
        return self._entry(path, node)

    def _changed(self, path: str, guard: Guard) -> _StreamNode:
        with self._lock:
            guard(self.peek(path))
            node = self._node(path)
            if node.text is not None:
                raise PermissionDenied("This file is read-only.")
            return node

    def mkdir(self, path: str, owner: str, guard: Guard, mode: int = 0o755) -> Written:
        """As the interface says."""
        with self._lock:
            there = self.peek(path)
            guard(there)
            if there is None:
                self._make_parents(split_path(path)[0])
            self._make_parents(path, mode)
            return Written(self.stat(path), there is None)

    # -- removing and moving -----------------------------------------------------------------------------------

    def remove(self, path: str, recursive: bool, guard: Guard) -> None:
        """As the interface says; readers end."""
        with self._lock:
            self._changed(path, guard)
            inside = [each for each in self._nodes if is_below(each, path) and each != path]
            if inside and not recursive:
                raise DirectoryNotEmpty()
            for each in inside:
                guard(self.stat(each))
            gone = [self._nodes.pop(each) for each in (path, *inside)]
        self._finish(gone)

    def move(self, source: str, target: str, owner: str, guard: Guard, target_guard: Guard, parents: bool) -> Entry:
        """As the interface says; readers stay with their stream, those of a stream that is replaced end."""
        with self._lock:
            node, other = self._changed(source, guard), self._nodes.get(target)
            target_guard(self.peek(target))
            self._check_target(source, node, target, other)
            if parents:
                self._make_parents(split_path(target)[0])
            elif split_path(target)[0] not in self._nodes:
                raise BadRequest("The destination's directory does not exist; ask with `create_parents` to make it.")
            self._make_parents(split_path(target)[0])
            for each in [path for path in self._nodes if is_below(path, source)]:
                self._nodes[target + each[len(source):]] = self._nodes.pop(each)
        self._finish([other] if other else [])
        return self.stat(target)

    def _check_target(self, source: str, node: _StreamNode, target: str, other: Optional[_StreamNode]) -> None:
        if is_below(target, source):
            raise BadRequest("A path can not be moved into itself.")
        if other is not None and other.text is not None:
            raise PermissionDenied("This file is read-only.")
        check_target(self._entry(source, node), self._entry(target, other) if other is not None else None, True,
                     lambda: all(split_path(path)[0] != target for path in self._nodes))


# ============================================================================
# queuefs: message queues as directories
# ============================================================================
#
# One QueueStore keeps queues and messages (memory, a database), one _Waiters serves those who wait for a message, and
# QueueFS shows both as files. Ids of messages are their order, in all stores: what comes back (a lease that ran out, a
# reader whose client went away) has its old id, so it stands in front of what came later.

QUEUE_CONTROLS = {"ack": 0o222, "clear": 0o222, "dequeue": 0o444, "enqueue": 0o222, "peek": 0o444, "size": 0o444}
MAX_QUEUE_WAIT = 3600.0                     # seconds: of a `wait` and of a lease
_NO_QUEUE = "There is no such queue; make it with mkdir, or write to its `enqueue`."


class QueueMessage(NamedTuple):
    """A message: its id (nanoseconds since 1970, its place in the order), its bytes, and the id of its queue."""

    id: int
    data: bytes
    queue: int


class QueueInfo(NamedTuple):
    """What is known of a queue. `size` counts messages that can be taken now, `newest` is the id of the last enqueue
    (0: none), `own`: somebody made or used it itself, it is not only the parent of one. The id is when it was made."""

    id: int
    path: str
    own: bool
    size: int = 0
    newest: int = 0


QueueGuard = Callable[[Optional[QueueInfo]], None]      # is called with the queue that is there, before the change


class QueueStore(abc.ABC):
    """Where queues and their messages live. One class of contract tests holds every implementation.

    Every method is atomic and may be called from any thread; what a database was told is durable on return. Paths are
    canonical; "/" is no queue. Ids grow strictly, across restarts and with a clock that was set back, too. `clock`
    gives nanoseconds since 1970; tests bend it. Methods raise FileNotFound where there is no queue.
    """

    clock: Callable[[], int] = staticmethod(time.time_ns)

    @abc.abstractmethod
    def get(self, path: str) -> Optional[QueueInfo]:
        """The queue at a path."""

    @abc.abstractmethod
    def children(self, path: str) -> list[QueueInfo]:
        """The queues directly in a directory, by name in code point order."""

    @abc.abstractmethod
    def make(self, path: str, guard: QueueGuard) -> bool:
        """Make a queue and the directories above it; False where it was a queue of its own already."""

    @abc.abstractmethod
    def remove(self, path: str, recursive: bool, guard: QueueGuard) -> None:
        """Remove a queue, messages and sub-queues; not `recursive`: only an empty one, else DirectoryNotEmpty."""

    @abc.abstractmethod
    def move(self, source: str, target: str, guard: QueueGuard, target_guard: QueueGuard, parents: bool) -> None:
        """Give a queue a new path, with all that is in it; what is at `target` must be empty."""

    @abc.abstractmethod
    def enqueue(self, path: str, data: bytes, guard: QueueGuard) -> tuple[QueueInfo, bool]:
        """Add a message at the end: (the queue with it as `newest`, whether it was made now). Raises StorageFull."""

    @abc.abstractmethod
    def take(self, path: str, leases: Sequence[float]) -> list[QueueMessage]:
        """The first messages, at most one for each of `leases`: 0 takes it out, seconds hide it for that time."""

    @abc.abstractmethod
    def give_back(self, message: QueueMessage, leased: bool) -> None:
        """Undo a `take`: the message has its place again. Nothing happens where its queue is gone."""

    @abc.abstractmethod
    def first(self, path: str) -> Optional[QueueMessage]:
        """The message that would be taken next."""

    @abc.abstractmethod
    def acknowledge(self, path: str, message: int) -> None:
        """End a lease for good. Raises FileNotFound, and Conflict where it has run out."""

    @abc.abstractmethod
    def clear(self, path: str) -> None:
        """Remove all messages, leased ones included."""

    def check(self) -> None:
        """Raises what keeps the store from serving."""

    def close(self) -> None:
        """Let go."""


def _may_remove_queue(info: Optional[QueueInfo], busy: bool, recursive: bool) -> None:
    """Raises unless a queue (`busy`: with messages or sub-queues) may go."""
    if info is None or info.id == 0:
        raise FileNotFound(_NO_QUEUE) if info is None else BadRequest("The mount point can not be removed or replaced.")
    if busy and not recursive:
        raise DirectoryNotEmpty("The queue has messages or sub-queues.")


# ---- in memory

class _MemoryQueue:
    """A queue in memory. `ready` is in the order of the ids; `returned` is a heap of those that came back."""

    __slots__ = ("id", "own", "newest", "children", "ready", "returned", "leased", "expiries")

    def __init__(self, number: int, own: bool) -> None:
        self.id, self.own, self.newest = number, own, 0
        self.children: dict[str, _MemoryQueue] = {}
        self.ready: collections.deque[tuple[int, bytes]] = collections.deque()
        self.returned: list[tuple[int, bytes]] = []
        self.leased: dict[int, tuple[int, bytes]] = {}              # id -> (until, data)
        self.expiries: list[tuple[int, int]] = []                   # a heap of (until, id); acknowledged ones lag behind

    def settle(self, now: int) -> None:
        """Take back the messages whose lease has run out."""
        while self.expiries and self.expiries[0][0] <= now:
            until, number = heapq.heappop(self.expiries)
            if self.leased.get(number, (0, b""))[0] == until:
                heapq.heappush(self.returned, (number, self.leased.pop(number)[1]))

    def next(self) -> Sequence[tuple[int, bytes]]:
        """The one of the two rows whose head is the first message."""
        if self.returned and not (self.ready and self.ready[0] < self.returned[0]):
            return self.returned
        return self.ready

    def pop(self) -> tuple[int, bytes]:
        """Take that message out."""
        return heapq.heappop(self.returned) if self.next() is self.returned else self.ready.popleft()

    def lease(self, number: int, until: int, data: bytes) -> None:
        """Hide a message; the heap is made anew when most of it is about leases that ended before their time."""
        self.leased[number] = until, data
        heapq.heappush(self.expiries, (until, number))
        if len(self.expiries) > 2 * len(self.leased) + 64:
            self.expiries = sorted((end, each) for each, (end, _) in self.leased.items())

    def bytes(self) -> int:
        """What all its messages count in the budget."""
        return sum(map(_cost, itertools.chain((data for _, data in self.ready), (data for _, data in self.returned),
                                              (data for _, data in self.leased.values()))))


def _cost(data: bytes) -> int:
    return len(data) + 160                  # measured with tracemalloc: tuple, int and bytes of an empty message


class MemoryQueues(QueueStore):
    """Queues in the memory of this process, at most `max_bytes` of messages."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self._lock, self._max_bytes, self._bytes, self._last = threading.Lock(), max_bytes, 0, 0
        self._root = _MemoryQueue(0, False)
        self._by_id: dict[int, _MemoryQueue] = {}

    def _next_id(self) -> int:
        self._last = max(self._last + 1, self.clock())
        return self._last

    def _find(self, path: str) -> Optional[_MemoryQueue]:
        """The queue, settled."""
        found: Optional[_MemoryQueue] = self._root
        for name in path.split("/")[1:] if path != "/" else ():
            found = found.children.get(name) if found else None
        if found and found.expiries:
            found.settle(self.clock())
        return found

    def _need(self, path: str) -> _MemoryQueue:
        found = self._find(path)
        if found is None:
            raise FileNotFound(_NO_QUEUE)
        return found

    def _info(self, path: str) -> Optional[QueueInfo]:
        found = self._find(path)
        return found and self._shown(found, path)

    @staticmethod
    def _shown(queue: _MemoryQueue, path: str) -> QueueInfo:
        return QueueInfo(queue.id, path, queue.own, len(queue.ready) + len(queue.returned), queue.newest)

    def _make(self, path: str, own: bool) -> _MemoryQueue:
        queue = self._root
        for name in path.split("/")[1:] if path != "/" else ():
            if name not in queue.children:
                made = queue.children[name] = _MemoryQueue(self._next_id(), False)
                self._by_id[made.id] = made
            queue = queue.children[name]
        queue.own = queue.own or own
        return queue

    def get(self, path: str) -> Optional[QueueInfo]:
        """As the interface says."""
        with self._lock:
            return self._info(path)

    def children(self, path: str) -> list[QueueInfo]:
        """As the interface says."""
        with self._lock:
            found = [self._info(join_path(path, name)) for name in sorted(self._need(path).children)]
            return [info for info in found if info]

    def make(self, path: str, guard: QueueGuard) -> bool:
        """As the interface says."""
        with self._lock:
            there = self._info(path)
            guard(there)
            made = path != "/" and not (there and there.own)
            if made:
                self._make(path, True)
            return made

    def remove(self, path: str, recursive: bool, guard: QueueGuard) -> None:
        """As the interface says."""
        with self._lock:
            guard(self._info(path))
            self._drop(path, recursive)

    def _drop(self, path: str, recursive: bool) -> None:
        queue, (parent, name) = self._find(path), split_path(path)
        _may_remove_queue(self._info(path), bool(queue and (queue.children or queue.bytes())), recursive)
        waiting = [self._need(parent).children.pop(name)]
        while waiting:
            gone = waiting.pop()
            waiting.extend(gone.children.values())
            self._bytes -= gone.bytes()
            del self._by_id[gone.id]

    def move(self, source: str, target: str, guard: QueueGuard, target_guard: QueueGuard, parents: bool) -> None:
        """As the interface says."""
        with self._lock:
            guard(self._info(source))
            target_guard(self._info(target))
            queue, (above, name), (parent, new) = self._need(source), split_path(source), split_path(target)
            if not parents and self._find(parent) is None:
                raise BadRequest("The parent of the destination does not exist; ask with `create_parents` to make it.")
            if self._find(target):
                self._drop(target, False)
            self._make(parent, False).children[new] = queue
            del self._need(above).children[name]

    def enqueue(self, path: str, data: bytes, guard: QueueGuard) -> tuple[QueueInfo, bool]:
        """As the interface says."""
        with self._lock:
            there = self._info(path)
            guard(there)
            if self._bytes + _cost(data) > self._max_bytes:
                raise StorageFull(f"The queues hold {self._max_bytes} bytes, as many as `max_bytes` lets them.")
            made = self._make(path, True)
            made.newest = self._next_id()
            made.ready.append((made.newest, data))
            self._bytes += _cost(data)
            return self._shown(made, path), there is None

    def take(self, path: str, leases: Sequence[float]) -> list[QueueMessage]:
        """As the interface says."""
        with self._lock:
            queue, found = self._need(path), []
            for lease in leases[:len(queue.ready) + len(queue.returned)]:
                number, data = queue.pop()
                if lease:
                    queue.lease(number, self.clock() + int(lease * 1e9), data)
                else:
                    self._bytes -= _cost(data)
                found.append(QueueMessage(number, data, queue.id))
            return found

    def give_back(self, message: QueueMessage, leased: bool) -> None:
        """As the interface says."""
        with self._lock:
            queue = self._by_id.get(message.queue)
            if queue is None or leased and queue.leased.pop(message.id, None) is None:
                return
            heapq.heappush(queue.returned, message[:2])
            self._bytes += 0 if leased else _cost(message.data)

    def first(self, path: str) -> Optional[QueueMessage]:
        """As the interface says."""
        with self._lock:
            queue = self._need(path)
            row = queue.next()
            return QueueMessage(*row[0], queue.id) if row else None

    def acknowledge(self, path: str, message: int) -> None:
        """As the interface says."""
        with self._lock:
            queue = self._need(path)
            if message in queue.leased:
                self._bytes -= _cost(queue.leased.pop(message)[1])
            else:
                _no_lease(any(number == message for number, _ in queue.returned))

    def clear(self, path: str) -> None:
        """As the interface says."""
        with self._lock:
            queue = self._need(path)
            self._bytes -= queue.bytes()
            for messages in (queue.ready, queue.returned, queue.leased, queue.expiries):
                messages.clear()            # type: ignore[attr-defined]


def _no_lease(expired: bool) -> NoReturn:
    if expired:
        raise Conflict("The lease has run out: the message is in the queue again.")
    raise FileNotFound("No message with this id is leased out here.")


# ---- in a database

_QUEUE_VERSION = 1                          # of the tables
# Names are bytes: no collation of a server then takes two of them for one. A queue's messages refer to its number, so
# that a rename changes one row. `due`: no lease of the queue ends before this (0: there are none).
_QUEUE_TABLES = (
    "CREATE TABLE IF NOT EXISTS queuefs_state (name {key} NOT NULL PRIMARY KEY, value BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS queuefs_queues (id BIGINT NOT NULL PRIMARY KEY, parent BIGINT NOT NULL, "
    "name {name} NOT NULL, own BIGINT NOT NULL, size BIGINT NOT NULL, newest BIGINT NOT NULL, due BIGINT NOT NULL, "
    "UNIQUE (parent, name))",
    "CREATE TABLE IF NOT EXISTS queuefs_messages (id BIGINT NOT NULL PRIMARY KEY, queue BIGINT NOT NULL, "
    "lease BIGINT NOT NULL, data {data} NOT NULL{inline})",
    "{index}",
)
_QUEUE_INDEX = "CREATE INDEX IF NOT EXISTS queuefs_order ON queuefs_messages (queue, lease, id)"
_QUEUE_TYPES = {
    "sqlite": {"key": "TEXT", "name": "BLOB", "data": "BLOB", "inline": "", "index": _QUEUE_INDEX},
    "postgres": {"key": "TEXT", "name": "BYTEA", "data": "BYTEA", "inline": "", "index": _QUEUE_INDEX},
    "mysql": {"key": "VARCHAR(32)", "name": "VARBINARY(255)", "data": "LONGBLOB",
              "inline": ", KEY queuefs_order (queue, lease, id)", "index": ""},
}
_QUEUE_COLUMNS = "id, parent, name, own, size, newest, due"


class _QueueRow:
    """A row of queuefs_queues; what changes is written once a transaction."""

    __slots__ = ("id", "parent", "name", "own", "size", "newest", "due", "changed")

    def __init__(self, number: int, parent: int, name: bytes, own: int = 0, size: int = 0, newest: int = 0,
                 due: int = 0) -> None:
        self.id, self.parent, self.name, self.own = number, parent, name, own
        self.size, self.newest, self.due, self.changed = size, newest, due, False

    def info(self, path: str) -> QueueInfo:
        """For users of the store."""
        return QueueInfo(self.id, path, bool(self.own), self.size, self.newest)


class _QueueSession:
    """What one transaction knows of the queues: a row is read once and written once, however many jobs share it.

    A job raises its CallerErrors before it changes anything, so that the others of its transaction need not care.
    Messages are added, read ahead and deleted by the dozen: a statement costs more than what it does.
    """

    SMALL = 64 * 1024                       # bytes of a message that is worth that

    def __init__(self, session: Session, lock: str, clock: Callable[[], int], last: int = 0) -> None:
        self.execute, self._lock, self.last, self._clock = session.execute, lock, last, clock
        self.rows: dict[tuple[int, bytes], Optional[_QueueRow]] = {}
        self._added: list[tuple[int, int, bytes]] = []      # messages to insert, (id, queue, data)
        self._taken: list[int] = []                         # and to delete
        self._heads: dict[int, collections.deque[tuple[Any, ...]]] = {}         # the first messages of queues

    def now(self) -> int:
        """The clock."""
        return self._clock()

    def next_id(self) -> int:
        """An id above all before."""
        self.last = max(self.last + 1, self._clock())
        return self.last

    def child(self, parent: int, name: bytes) -> Optional[_QueueRow]:
        """A row by its parent and name."""
        key = parent, name
        if key not in self.rows:
            found = self.execute(f"SELECT {_QUEUE_COLUMNS} FROM queuefs_queues WHERE parent = ? AND name = ?{self._lock}",
                                 key).rows
            self.rows[key] = _QueueRow(*found[0]) if found else None
        return self.rows[key]

    def find(self, path: str) -> Optional[_QueueRow]:
        """The row of a path."""
        row: Optional[_QueueRow] = _QueueRow(0, -1, b"")
        for name in path.split("/")[1:] if path != "/" else ():
            row = self.child(row.id, name.encode()) if row else None
        return row

    def need(self, path: str) -> _QueueRow:
        """The same, settled; raises FileNotFound."""
        row = self.find(path)
        if row is None:
            raise FileNotFound(_NO_QUEUE)
        if row.due and row.due <= self.now():
            self._settle(row, self.now())
        return row

    def _settle(self, row: _QueueRow, now: int) -> None:
        row.size += self.messages("UPDATE queuefs_messages SET lease = 0 WHERE queue = ? AND lease > 0 AND lease <= ?",
                                 (row.id, now)).count
        left = self.messages("SELECT lease FROM queuefs_messages WHERE queue = ? AND lease > 0 ORDER BY lease LIMIT 1",
                            (row.id,)).rows
        row.due, row.changed = left[0][0] if left else 0, True

    def make(self, path: str, own: bool) -> _QueueRow:
        """The row of a path, made where it is missing, with those above it."""
        row = _QueueRow(0, -1, b"")
        for name in (part.encode() for part in path.split("/")[1:] if part):
            found = self.child(row.id, name)
            if found is None:
                found = self.rows[row.id, name] = _QueueRow(self.next_id(), row.id, name)
                self.execute(f"INSERT INTO queuefs_queues ({_QUEUE_COLUMNS}) VALUES (?, ?, ?, 0, 0, 0, 0)",
                             (found.id, found.parent, found.name))
            row = found
        if own and not row.own:
            row.own, row.changed = 1, True
        return row

    def below(self, row: _QueueRow) -> list[_QueueRow]:
        """The rows directly in a directory, as they are now."""
        self.flush()
        found = self.execute(f"SELECT {_QUEUE_COLUMNS} FROM queuefs_queues WHERE parent = ? ORDER BY name{self._lock}",
                             (row.id,)).rows
        return [_QueueRow(*values) for values in found]

    def messages(self, sql: str, values: Sequence[Any]) -> Rows:
        """A statement on the messages as they are now."""
        self.flush()
        self._heads.clear()
        return self.execute(sql, values)

    def add(self, row: _QueueRow, data: bytes) -> None:
        """A message at the end of a queue."""
        row.newest, row.size, row.changed = self.next_id(), row.size + 1, True
        if len(data) > self.SMALL:
            self.execute(f"{_INSERT_MESSAGES} (?, ?, 0, ?)", (row.newest, row.id, data))
        else:
            self._added.append((row.newest, row.id, data))

    def ready(self, row: _QueueRow, count: int) -> list[tuple[Any, ...]]:
        """(id, data) of the first messages; of large ones (data None) no more than one is in memory."""
        return self.messages(f"SELECT id, CASE WHEN LENGTH(data) <= {self.SMALL} THEN data END FROM queuefs_messages "
                             f"WHERE queue = ? AND lease = 0 ORDER BY id LIMIT {int(count)}{self._lock}", (row.id,)).rows

    def first(self, row: _QueueRow, ahead: int = 1) -> Optional[QueueMessage]:
        """The first message of a queue; `ahead` of it are read at once for those who ask next."""
        head = self._heads.get(row.id)
        if not head:
            head = collections.deque(self.ready(row, ahead) if row.size else ())
            if not head:
                return None
            self._heads[row.id] = head
        number, data = head[0]
        if data is None:
            data = self.execute("SELECT data FROM queuefs_messages WHERE id = ?" + self._lock, (number,)).rows[0][0]
        return QueueMessage(number, data, row.id)

    def take(self, row: _QueueRow, lease: float, ahead: int) -> Optional[QueueMessage]:
        """The same, taken out or leased."""
        message = self.first(row, ahead)
        if message is None:
            row.changed, row.size = row.changed or row.size > 0, 0      # somebody deleted messages by hand
            return None
        self._heads[row.id].popleft()
        if lease:
            until = self.now() + int(lease * 1e9)
            self.execute("UPDATE queuefs_messages SET lease = ? WHERE id = ?", (until, message.id))
            row.due = min(row.due or until, until)
        else:
            self._taken.append(message.id)
        row.size, row.changed = row.size - 1, True
        return message

    def drop(self, path: str, recursive: bool) -> None:
        """Remove a queue."""
        row = self.find(path)
        busy = bool(row and (self.messages("SELECT id FROM queuefs_messages WHERE queue = ? LIMIT 1", (row.id,)).rows
                             or self.below(row)))
        _may_remove_queue(row and row.info(path), busy, recursive)
        waiting = [row]
        while waiting:
            gone = waiting.pop()
            assert gone is not None
            waiting.extend(self.below(gone))
            self.messages("DELETE FROM queuefs_messages WHERE queue = ?", (gone.id,))
            self.execute("DELETE FROM queuefs_queues WHERE id = ?", (gone.id,))
        self.rows.clear()

    def flush(self) -> None:
        """Write what has changed."""
        added, taken, self._added, self._taken = self._added, self._taken, [], []
        for some in _in_powers(added):
            self.execute(_INSERT_MESSAGES + ", ".join(["(?, ?, 0, ?)"] * len(some)), list(itertools.chain(*some)))
        for numbers in _in_powers(taken):
            self.execute(f"DELETE FROM queuefs_messages WHERE id IN ({', '.join('?' * len(numbers))})", numbers)
        for row in self.rows.values():
            if row is not None and row.changed:
                row.changed = False
                self.execute("UPDATE queuefs_queues SET own = ?, size = ?, newest = ?, due = ? WHERE id = ?",
                             (row.own, row.size, row.newest, row.due, row.id))


_INSERT_MESSAGES = "INSERT INTO queuefs_messages (id, queue, lease, data) VALUES "


def _in_powers(items: list[T]) -> Iterator[list[T]]:
    """Cut into lists of 64, 32, ... 1: so there are only seven statements to prepare, and few to send."""
    start = 0
    while start < len(items):
        size = 1 << min(6, (len(items) - start).bit_length() - 1)
        yield items[start:start + size]
        start += size


class DatabaseQueues(QueueStore):
    """Queues in SQLite, PostgreSQL, MySQL or TiDB; servers may share one database. It owns the `database`.

    Changes that come at the same time share a commit (`_SharedCommits`), and one transaction at a time changes the
    queues of a database: it holds the row `last`. So counters are exact, the order is that of the commits, and there
    are no deadlocks; `SKIP LOCKED`, which TiDB and old MariaDB do not have, could only make consumers overtake one
    another. What is only looked at needs no lock. A plain `take` is gone when its commit is; only a lease survives a
    consumer that crashes.
    """

    MAX_BATCH = 200                         # changes a commit
    AHEAD = 32                              # messages read at once for the consumers of one commit

    def __init__(self, database: Database) -> None:
        self._database, self._commits = database, _SharedCommits(self._commit, self.MAX_BATCH)
        self._lock = "" if database.dialect == "sqlite" else " FOR UPDATE"      # TiDB reads the past without it
        for statement in _QUEUE_TABLES:
            self._make(statement.format(**_QUEUE_TYPES[database.dialect]))
        self._remember("last", 0)
        found = self._remember("version", _QUEUE_VERSION)
        if found > _QUEUE_VERSION:
            raise ConfigError(f"The queues were written by a later version of callfs (tables {found}, this one knows "
                              f"{_QUEUE_VERSION}).")

    def _make(self, statement: str) -> None:
        """A table, unless it is there. PostgreSQL lets two who do that at once meet (its types are unique): then again."""
        for attempt in range(5):
            try:
                if statement:
                    self._database.run(lambda session: session.execute(statement))
                return
            except (DatabaseConflict, DatabaseError):
                if attempt == 4:
                    raise

    def _remember(self, name: str, value: int) -> int:
        """A row of queuefs_state, made where it is missing."""
        query = "SELECT value FROM queuefs_state WHERE name = ?"
        with contextlib.suppress(DatabaseConflict):
            self._database.run(lambda session: session.execute(query, (name,)).rows or session.execute(
                "INSERT INTO queuefs_state (name, value) VALUES (?, ?)", (name, value)))
        return self._database.run(lambda session: session.execute(query, (name,)).rows[0][0])

    # -- transactions ------------------------------------------------------------------------------------------

    def _write(self, work: Callable[[_QueueSession], T]) -> T:
        return self._commits.run(work)

    def _commit(self, jobs: list[_Job]) -> None:
        """Run the jobs in one transaction; where it was taken back because of one of them, each in its own."""
        try:
            self._database.run(lambda session: self._work(session, jobs))
        except BaseException as error:
            alone = len(jobs) == 1 or isinstance(error, Unavailable) or not isinstance(error, Exception)
            for job in jobs:
                job.error = error if alone else None        # type: ignore[assignment]
                if not alone:
                    self._commit([job])
            if not isinstance(error, Exception):
                raise
        finally:
            for job in jobs:
                job.done = True

    def _work(self, session: Session, jobs: list[_Job]) -> None:
        last = session.execute(f"SELECT value FROM queuefs_state WHERE name = ?{self._lock}", ("last",)).rows[0][0]
        queues = _QueueSession(session, self._lock, self.clock, last)
        for job in jobs:
            job.error = None
            try:
                job.value = job.work(queues)
            except CallerError as error:
                if isinstance(error, DatabaseConflict):
                    raise
                job.error = error
        queues.flush()
        if queues.last > last:
            session.execute("UPDATE queuefs_state SET value = ? WHERE name = ?", (queues.last, "last"))

    def _look(self, path: str, work: Callable[[_QueueSession, _QueueRow], T]) -> T:
        """Look at a queue; leases that have run out are ended first, which is the only time that this writes."""
        with self._database.reading() as session:
            queues = _QueueSession(session, "", self.clock)
            row = queues.find(path)
            if row is None:
                raise FileNotFound(_NO_QUEUE)
            if not row.due or row.due > self.clock():
                return work(queues, row)
        return self._write(lambda queues: work(queues, queues.need(path)))

    # -- the interface -----------------------------------------------------------------------------------------

    def get(self, path: str) -> Optional[QueueInfo]:
        """As the interface says."""
        try:
            return self._look(path, lambda queues, row: row.info(path))
        except FileNotFound:
            return None

    def children(self, path: str) -> list[QueueInfo]:
        """As the interface says."""
        found = self._look(path, lambda queues, row: queues.below(row))
        paths = [(row, join_path(path, row.name.decode())) for row in found]
        fresh = [self.get(below) if row.due else row.info(below) for row, below in paths]
        return [info for info in fresh if info]

    def make(self, path: str, guard: QueueGuard) -> bool:
        """As the interface says."""
        def work(queues: _QueueSession) -> bool:
            row = queues.find(path)
            guard(row and row.info(path))
            made = path != "/" and not (row and row.own)
            if made:
                queues.make(path, True)
            return made
        return self._write(work)

    def remove(self, path: str, recursive: bool, guard: QueueGuard) -> None:
        """As the interface says."""
        def work(queues: _QueueSession) -> None:
            row = queues.find(path)
            guard(row and row.info(path))
            queues.drop(path, recursive)
        self._write(work)

    def move(self, source: str, target: str, guard: QueueGuard, target_guard: QueueGuard, parents: bool) -> None:
        """As the interface says."""
        (parent, name) = split_path(target)

        def work(queues: _QueueSession) -> None:
            row, there = queues.find(source), queues.find(target)
            guard(row and row.info(source))
            target_guard(there and there.info(target))
            if row is None or not row.id:
                raise FileNotFound(_NO_QUEUE)
            if not parents and queues.find(parent) is None:
                raise BadRequest("The parent of the destination does not exist; ask with `create_parents` to make it.")
            if there:
                queues.drop(target, False)
            above = queues.make(parent, False)
            queues.flush()
            queues.execute("UPDATE queuefs_queues SET parent = ?, name = ? WHERE id = ?", (above.id, name.encode(), row.id))
            queues.rows.clear()
        self._write(work)

    def enqueue(self, path: str, data: bytes, guard: QueueGuard) -> tuple[QueueInfo, bool]:
        """As the interface says."""
        def work(queues: _QueueSession) -> tuple[QueueInfo, bool]:
            there = queues.find(path)
            guard(there and there.info(path))
            row = queues.make(path, True)
            queues.add(row, data)
            return row.info(path), there is None
        return self._write(work)

    def take(self, path: str, leases: Sequence[float]) -> list[QueueMessage]:
        """As the interface says."""
        def work(queues: _QueueSession) -> list[QueueMessage]:
            row = queues.need(path)
            found = [queues.take(row, lease, self.AHEAD) for lease in leases[:row.size]]
            return [message for message in found if message is not None]
        return self._write(work)

    def give_back(self, message: QueueMessage, leased: bool) -> None:
        """As the interface says. The queue may have another path by now: its counter is changed by number."""
        def work(queues: _QueueSession) -> None:
            queues.flush()
            queues.rows.clear()
            if leased:
                count = queues.messages("UPDATE queuefs_messages SET lease = 0 WHERE id = ? AND lease > 0",
                                        (message.id,)).count
            else:
                count = len(queues.execute(f"SELECT id FROM queuefs_queues WHERE id = ?{self._lock}",
                                           (message.queue,)).rows)
                if count:
                    queues.messages(_INSERT_MESSAGES + "(?, ?, 0, ?)", (message.id, message.queue, message.data))
            queues.execute("UPDATE queuefs_queues SET size = size + ? WHERE id = ?", (count, message.queue))
        self._write(work)

    def first(self, path: str) -> Optional[QueueMessage]:
        """As the interface says."""
        return self._look(path, lambda queues, row: queues.first(row))

    def acknowledge(self, path: str, message: int) -> None:
        """As the interface says."""
        def work(queues: _QueueSession) -> None:
            row = queues.need(path)
            if not queues.messages("DELETE FROM queuefs_messages WHERE id = ? AND queue = ? AND lease > 0",
                                   (message, row.id)).count:
                _no_lease(bool(queues.messages(f"SELECT id FROM queuefs_messages WHERE id = ? AND queue = ?{self._lock}",
                                               (message, row.id)).rows))
        self._write(work)

    def clear(self, path: str) -> None:
        """As the interface says."""
        def work(queues: _QueueSession) -> None:
            row = queues.need(path)
            queues.messages("DELETE FROM queuefs_messages WHERE queue = ?", (row.id,))
            row.size, row.due, row.changed = 0, 0, True
        self._write(work)

    def check(self) -> None:
        """Ask the database."""
        with self._database.reading() as session:
            session.execute("SELECT value FROM queuefs_state WHERE name = ?", ("last",))

    def close(self) -> None:
        """Close the database."""
        self._database.close()


# ---- readers

def queue_json(message: Optional[QueueMessage]) -> bytes:
    """What a reader of `dequeue` or `peek` gets; {} for None."""
    if message is None:
        return b"{}"
    shown = {"id": str(message.id), "data": "", "timestamp": rfc3339(message.id)}
    try:
        shown["data"] = message.data.decode()
    except UnicodeDecodeError:
        shown.update(data=base64.b64encode(message.data).decode(), encoding="base64")
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode()


class _TakenReader(Reader):
    """A message that was taken out. Whoever closes this before the first `read` did not get it: `undo` is called."""

    def __init__(self, message: Optional[QueueMessage], undo: Callable[[QueueMessage], None]) -> None:
        self._rest, self._message, self._undo = queue_json(message), message, undo
        self.length = len(self._rest)

    def attach(self, wake: Callable[[], None]) -> None:
        """`read` never waits: no thread needs to be set aside for it."""

    def read(self, size: int = BLOCK) -> bytes:
        """The JSON."""
        self._message = None
        block, self._rest = self._rest[:size], self._rest[size:]
        return block

    def close(self) -> None:
        """As the class says."""
        message, self._message = self._message, None
        if message is not None:
            self._undo(message)


class _WaitingReader(Reader):
    """A message that may be there later. All of its state belongs to the lock of the `_Waiters`."""

    def __init__(self, waiters: _Waiters, path: str, lease: float, deadline: float) -> None:
        self._waiters, self.path, self.lease, self.deadline = waiters, path, lease, deadline
        self.message: Optional[QueueMessage] = None         # handed over, not yet read
        self.rest: Optional[bytes] = None                   # None: nothing is there yet
        self.closed, self.wake = False, None                # type: bool, Optional[Callable[[], None]]

    def attach(self, wake: Callable[[], None]) -> None:
        """From now on `read` never waits; `wake()` says that it has something."""
        self.wake = wake

    def read(self, size: int = BLOCK) -> bytes:
        """The JSON of a message, {} when the time is over. None, for who attached, while nothing is there."""
        return self._waiters.read(self, size, self.wake is None)      # type: ignore[return-value]

    def close(self) -> None:
        """Wait no more; a message that came but was not read goes back."""
        self._waiters.leave(self)


class _Waiters:
    """Those who wait for messages, by queue, the first first; one thread for all, started with the first of them.

    The thread takes messages out and hands them over, so that neither an engine that pushes nor who enqueues ever
    waits for a store. It looks when this process has enqueued, and every POLL seconds, while somebody waits, for what
    other processes enqueued and leases that ran out.
    """

    POLL = 0.2
    BATCH = 64                              # messages taken at a time

    def __init__(self, store: QueueStore, log: Log, report: Callable[[str, str], object]) -> None:
        self._store, self._log, self._report, self._changed = store, log, report, threading.Condition()
        self._queues: dict[str, dict[_WaitingReader, None]] = {}
        self._handed: set[_WaitingReader] = set()           # have a message that nobody has read yet
        self._deadlines: list[tuple[float, int, _WaitingReader]] = []
        self._numbers, self._stop, self._dirty = itertools.count(), threading.Event(), set()  # type: Any, Any, set[str]
        self._returned: list[tuple[QueueMessage, bool]] = []
        self._thread: Optional[threading.Thread] = None

    def busy(self, path: str) -> bool:
        """Whether somebody waits for this queue already."""
        return path in self._queues

    def add(self, path: str, lease: float, seconds: float) -> _WaitingReader:
        """One more, at the end of the line."""
        waiter = _WaitingReader(self, path, lease, time.monotonic() + seconds)
        with self._changed:
            if self._stop.is_set():
                waiter.rest = b"{}"
                return waiter
            self._queues.setdefault(path, {})[waiter] = None
            heapq.heappush(self._deadlines, (waiter.deadline, next(self._numbers), waiter))
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name="callfs-queue", daemon=True)
                self._thread.start()
            self._tell(path)
        return waiter

    def notify(self, path: str) -> None:
        """There may be messages in this queue, or it is gone."""
        if path in self._queues:            # who comes into line later looks for itself
            with self._changed:
                self._tell(path)

    def notify_all(self) -> None:
        """Queues were moved or removed."""
        with self._changed:
            self._tell(*self._queues)

    def _tell(self, *paths: str) -> None:
        self._dirty.update(paths)
        self._changed.notify_all()

    def read(self, waiter: _WaitingReader, size: int, block: bool) -> Optional[bytes]:
        """For `_WaitingReader.read`."""
        with self._changed:
            while waiter.rest is None and block:
                self._changed.wait()
            if waiter.rest is None:
                return None
            self._handed.discard(waiter)
            waiter.message = None
            found, waiter.rest = waiter.rest[:size], waiter.rest[size:]
            return found

    def leave(self, waiter: _WaitingReader) -> None:
        """For `_WaitingReader.close`."""
        with self._changed:
            waiter.closed = True
            self._finish(waiter, None)
            message, waiter.message = waiter.message, None
            self._handed.discard(waiter)
            if message is not None:
                self._returned.append((message, waiter.lease > 0))
                self._tell(waiter.path)

    def _finish(self, waiter: _WaitingReader, message: Optional[QueueMessage]) -> None:
        """Out of the line, with a message or without."""
        line = self._queues.get(waiter.path, {})
        if waiter in line:
            del line[waiter]
            if not line:
                del self._queues[waiter.path]
            waiter.message, waiter.rest = message, queue_json(message)
            if message is not None:
                self._handed.add(waiter)

    def close(self) -> None:
        """Everybody gets {}; what was handed over and not read goes back. Returns when the thread has ended."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    # -- the thread --------------------------------------------------------------------------------------------

    def _main(self) -> None:
        poll, failing = time.monotonic() + self.POLL, False
        while not self._stop.is_set():
            with self._changed:
                if not (self._dirty or self._returned or self._stop.is_set()):
                    self._changed.wait(self._pause(poll))
                if time.monotonic() >= poll:
                    self._dirty.update(self._queues)
                    poll = time.monotonic() + self.POLL
                paths, self._dirty = self._dirty, set()
            try:
                self._give_back()
                for path in paths:
                    self._hand_out(path)
                failing = False
            except CallFSError as error:
                if not failing:             # once, not five times a second
                    self._log.warn("waiting readers of a queue get nothing now", reason=error.message)
                failing = True
                self._stop.wait(self.POLL)
            self._expire(time.monotonic())
        self._end()

    def _pause(self, poll: float) -> Optional[float]:
        """Seconds until there is something to do; None: until somebody says so."""
        while self._deadlines and self._deadlines[0][2].rest is not None:
            heapq.heappop(self._deadlines)
        if not self._queues:
            return None
        return max(0.0, min(poll, self._deadlines[0][0]) - time.monotonic())

    def _give_back(self) -> None:
        while self._returned:
            message, leased = self._returned[0]
            self._store.give_back(message, leased)
            self._returned.pop(0)           # only now: a store that does not answer is asked again

    def _hand_out(self, path: str) -> None:
        """Messages to those who wait longest."""
        with self._changed:
            line = list(itertools.islice(self._queues.get(path, ()), self.BATCH))
        if not line:
            return
        info = self._store.get(path)
        messages = self._store.take(path, [waiter.lease for waiter in line]) if info and info.size else []
        with self._changed:
            for waiter, message in zip(line, messages):
                if waiter.closed or waiter.rest is not None:
                    self._returned.append((message, waiter.lease > 0))
                    self._dirty.add(path)
                else:
                    self._finish(waiter, message)
            for waiter in line if info is None else ():
                self._finish(waiter, None)
            if info is not None and info.size > len(messages) and path in self._queues:
                self._dirty.add(path)
        self._wake(line)
        if messages:
            self._report("update", path)

    def _expire(self, now: float) -> None:
        over = []
        with self._changed:
            while self._deadlines and self._deadlines[0][0] <= now:
                over.append(heapq.heappop(self._deadlines)[2])
                self._finish(over[-1], None)
            if len(self._deadlines) > 2 * sum(map(len, self._queues.values())) + 64:
                self._deadlines = [each for each in self._deadlines if each[2].rest is None]
                heapq.heapify(self._deadlines)
        self._wake(over)

    def _wake(self, waiters: Iterable[_WaitingReader]) -> None:
        with self._changed:
            self._changed.notify_all()
            wakes = [waiter.wake for waiter in waiters if waiter.wake and waiter.rest is not None and not waiter.closed]
        for wake in wakes:                  # not under the lock: the engine has its own
            wake()

    def _end(self) -> None:
        with self._changed:
            waiters = [waiter for line in self._queues.values() for waiter in line]
            for waiter in waiters:
                self._finish(waiter, None)
            for waiter in self._handed:
                self._returned.append((waiter.message, waiter.lease > 0))      # type: ignore[arg-type]
                waiter.message, waiter.rest = None, b"{}"
            self._handed.clear()
        self._wake(waiters)
        try:
            self._give_back()
        except CallFSError as error:
            self._log.error("messages could not be put back into their queue", count=len(self._returned),
                            reason=error.message)


# ---- the filesystem

_QUEUE_README = b"""\
# queuefs: message queues as directories

Make a queue with `mkdir Q` (nested, too), or by writing to `Q/enqueue`. In each queue:

    enqueue   write: a message, kept byte by byte; the answer is its id
    dequeue   read: takes the first message out: {"id","data","timestamp"}, or {} when there is none.
              Bytes that are no UTF-8 come as base64 with "encoding":"base64".
              ?wait=30s waits for a message. ?ack=60s leases it: unless its id is written to `ack` in
              that time, it comes back to its place.
    peek      read: the first message, which stays; its time is that of the newest enqueue
    size      read: how many messages there are, those that are leased out left aside
    ack       write: {"id": "..."} or the id confirms a leased message
    clear     write: removes all messages, leased ones, too

A directory that is only the parent of queues lists no control files until it is used as a queue itself.
Without `recursive`, only a queue without messages and sub-queues is removed.
"""


class QueueFS(FileSystem):
    """Message queues as directories: write `enqueue`, read `dequeue` (pfs.md, "queuefs").

    A directory that was only made as the parent of another shows its sub-queues alone; its control files show once it
    is made by mkdir itself or enqueued to. They can be used before.
    """

    name = "queuefs"
    README = _QUEUE_README

    @dataclass
    class Options(DatabaseMountOptions):
        """Where the queues are, and limits."""

        backend: str = option("memory", "Where the queues are", choices=("memory", "sqlite", "mysql", "tidb", "postgres"))
        max_message: int = option("16MiB", "Bytes of a message at most", kind="size")
        max_bytes: int = option("1GiB", "Bytes of all messages at most (memory)", kind="size")

    def __init__(self, options: QueueFS.Options, context: MountContext) -> None:
        self._options, self._since = options, time.time_ns()
        self.slow = options.backend not in ("memory", "sqlite")
        self.store = self._open_store(options, context)
        self._waiters = _Waiters(self.store, context.log, context.changed)
        self._tell = context.changed
        self._seen: Cache[str, QueueInfo] = Cache(1000)
        self._writers: Mapping[str, Callable[[str, bytes, Guard], Written]] = {
            "enqueue": self._enqueue, "ack": self._ack, "clear": self._clear}

    @staticmethod
    def _open_store(options: QueueFS.Options, context: MountContext) -> QueueStore:
        if options.backend == "memory":
            for name in ("db_path", "dsn", "host"):
                if getattr(options, name):
                    raise BadRequest(f"queuefs: {name} is for a database; say which with `backend`.")
            return MemoryQueues(options.max_bytes)
        database = options.opened("queuefs", context.folder)
        try:
            return DatabaseQueues(database)
        except BaseException:
            database.close()
            raise

    # -- what is there -----------------------------------------------------------------------------------------

    @staticmethod
    def _split(path: str) -> tuple[str, str]:
        """(path of the queue, name of the control file or "")."""
        parent, name = split_path(path)
        return (parent, name) if name in QUEUE_CONTROLS and parent != "/" else (path, "")

    def _queue_path(self, path: str) -> str:
        """A path that may be a queue's. Raises BadRequest."""
        names = path.split("/")[1:]
        if path == "/README" or any(name in QUEUE_CONTROLS for name in names):
            raise BadRequest(f"README and the names of control files ({', '.join(QUEUE_CONTROLS)}) can not be queues.")
        return path

    def _entry(self, info: QueueInfo) -> Entry:
        changed = max(info.newest, info.id) or self._since
        return Entry(info.path, DIRECTORY, 0, 0o755, ANYONE, changed, self._etag(info), f"queue-{info.id}",
                     backend=self.name, stamp=str(info.size))

    @staticmethod
    def _etag(info: QueueInfo) -> str:
        return f"{info.id:x}-{info.newest:x}-{info.size:x}"

    def _control(self, info: QueueInfo, control: str) -> Entry:
        entry, mode = self._entry(info), QUEUE_CONTROLS[control]
        etag = entry.etag if mode == 0o444 else f"{info.id:x}"          # what is only written always holds nothing
        entry = entry._replace(path=join_path(info.path, control), type=FILE, stamp="", mode=mode, etag=etag,
                               id=f"queue-{info.id}-{control}")
        if control == "size":               # changes with what is taken out, too: nobody may think it unmodified
            entry = entry._replace(size=len(str(info.size)), mtime_ns=self.store.clock())
        elif control == "dequeue":          # every read is another one
            entry = entry._replace(etag=f"{info.id:x}-{self.store.clock():x}")
        return entry

    def stat(self, path: str) -> Entry:
        """As the interface says."""
        if path == "/README":
            return generated(path, self.README, self._since, backend=self.name).entry
        queue, control = self._split(path)
        info = self._look_up(queue)
        return self._control(info, control) if control else self._entry(info)

    def _look_up(self, queue: str) -> QueueInfo:
        info = self.store.get(queue)
        if info is None:
            self._seen.drop(queue)
            raise FileNotFound(_NO_QUEUE)
        self._seen.put(queue, info)
        return info

    def peek(self, path: str) -> Optional[Entry]:
        """As the interface says. For one more message (and to take one) a queue that was seen before is not looked up
        again: the transaction does that, and raises when another server has removed it meanwhile."""
        queue, control = self._split(path)
        info = self._seen.get(queue) if control == "enqueue" else None
        return self._control(info, control) if info else super().peek(path)

    def describe(self, entry: Entry) -> Meta:
        """A queue with its backend and size, a control file, or the README."""
        if entry.is_dir:
            return Meta(self.name, "queue", {"backend": self._options.backend, "size": entry.stamp})
        return Meta(self.name, "readme" if entry.path == "/README" else "control", {"backend": self._options.backend})

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """As the interface says."""
        if not self.stat(path).is_dir:
            raise Conflict("This is a file, not a directory.")
        info = self.store.get(path)
        found = [self._entry(child) for child in self.store.children(path)]
        if path == "/":
            found.append(self.stat("/README"))
        elif info and info.own:
            found += [self._control(info, control) for control in QUEUE_CONTROLS]
        found.sort(key=operator.attrgetter("name"))
        return iter([entry for entry in found if entry.name > after])

    # -- reading -----------------------------------------------------------------------------------------------

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """As the interface says. `dequeue` takes the wishes `wait` and `ack` (durations up to an hour)."""
        if path == "/README":
            return generated(path, self.README, self._since, backend=self.name)
        queue, control = self._split(path)
        info = (self._seen.get(queue) if control == "dequeue" else None) or self._look_up(queue)
        if not control:
            return Handle(self._entry(info))
        entry = self._control(info, control)
        if not entry.mode & 0o444:
            raise PermissionDenied(f"`{control}` can only be written.")
        if control == "size":
            return MemoryHandle(entry, str(info.size).encode())
        if control == "peek":
            return LiveHandle(entry, lambda: self._peek_reader(queue))
        wait, lease = _queue_duration(wish, "wait"), _queue_duration(wish, "ack")
        return LiveHandle(entry, lambda: self._take(queue, wait, lease), consumes=True)

    def _peek_reader(self, queue: str) -> Reader:
        data = queue_json(self.store.first(queue))
        return ChunkReader((data,), len(data))

    def _take(self, queue: str, wait: float, lease: float) -> Reader:
        """The first message, now if there is one; whoever waits already goes first."""
        try:
            found = [] if wait and self._waiters.busy(queue) else self.store.take(queue, [lease])
        except FileNotFound:
            self._seen.drop(queue)
            raise
        if wait and not found:
            return self._waiters.add(queue, lease, wait)
        if found:
            self._tell("update", queue)
        return _TakenReader(found[0] if found else None, lambda message: self._give_back(queue, message, lease > 0))

    def _give_back(self, queue: str, message: QueueMessage, leased: bool) -> None:
        self.store.give_back(message, leased)
        self._waiters.notify(queue)
        self._tell("update", queue)

    # -- changing ----------------------------------------------------------------------------------------------

    def write(self, path: str, body: Body, owner: str, guard: Guard, options: WriteOptions) -> Written:
        """Enqueue, acknowledge or clear."""
        queue, control = self._split(path)
        if path == "/README" or control and control not in self._writers:
            raise PermissionDenied(f"`{control or 'README'}` can only be read.")
        if not control:
            raise BadRequest("A queue has no files of its own: make one with mkdir, and write to its `enqueue`.")
        self._queue_path(queue)
        data = body.read(self._options.max_message)
        if body.length is not None and len(data) != body.length:
            raise Disconnected("The body broke off.")
        if options.sha256 and hashlib.sha256(data).hexdigest() != options.sha256:
            raise BadRequest("The body has another SHA-256 than announced.")
        return self._writers[control](queue, data, guard)

    def _guarding(self, guard: Guard, control: str = "") -> QueueGuard:
        """A guard of entries as one of queues."""
        def check(info: Optional[QueueInfo]) -> None:
            guard(None if info is None else self._control(info, control) if control else self._entry(info))
        return check

    def _enqueue(self, queue: str, data: bytes, guard: Guard) -> Written:
        info, made = self.store.enqueue(queue, data, self._guarding(guard, "enqueue"))
        self._waiters.notify(queue)
        self._seen.put(queue, info)
        return Written(self._control(info, "enqueue"), made, str(info.newest))

    def _ack(self, queue: str, data: bytes, guard: Guard) -> Written:
        entry = self.stat(join_path(queue, "ack"))
        guard(entry)
        self.store.acknowledge(queue, _message_id(data))
        return Written(entry, False, "acknowledged")

    def _clear(self, queue: str, data: bytes, guard: Guard) -> Written:
        entry = self.stat(join_path(queue, "clear"))
        guard(entry)
        self.store.clear(queue)
        return Written(entry, False, "cleared")

    def patch(self, path: str, body: Body, offset: int, guard: Guard) -> Written:
        """What appends to a file (`>>`) writes at its end, which for `enqueue`, `ack` and `clear` is 0."""
        if offset:
            guard(self.peek(path))
            raise RangeNotSatisfiable("This file is always empty.", headers=[("Content-Range", "bytes */0")])
        return self.write(path, body, ANYONE, guard, WriteOptions())

    def mkdir(self, path: str, owner: str, guard: Guard, mode: int = 0o755) -> Written:
        """As the interface says: a queue."""
        if path == "/README" or self._split(path)[1]:
            guard(self.peek(path))
        made = self.store.make(self._queue_path(path), self._guarding(guard))
        return Written(self.stat(path), made)

    def _queue_to_change(self, path: str) -> str:
        """A path that is not that of a control file or the README."""
        if path == "/README" or self._split(path)[1] and self.peek(path):
            raise PermissionDenied("Control files and the README stay as long as their directory.")
        return path

    def remove(self, path: str, recursive: bool, guard: Guard) -> None:
        """As the interface says."""
        self.store.remove(self._queue_to_change(path), recursive, self._guarding(guard))
        self._moved()

    def move(self, source: str, target: str, owner: str, guard: Guard, target_guard: Guard, parents: bool) -> Entry:
        """As the interface says."""
        self._queue_path(target)
        self.store.move(self._queue_to_change(source), target, self._guarding(guard), self._guarding(target_guard), parents)
        self._moved()
        return self.stat(target)

    def _moved(self) -> None:
        """Paths have changed."""
        self._seen.clear()
        self._waiters.notify_all()

    def _unchanged(self, path: str, guard: Guard) -> Entry:
        """Shells and drives set modes, times and sizes on their way to a write: nothing comes of it here."""
        guard(self.peek(path))
        return self.stat(path)

    def chmod(self, path: str, mode: int, guard: Guard) -> Entry:
        """Changes nothing."""
        return self._unchanged(path, guard)

    def touch(self, path: str, mtime_ns: int, guard: Guard) -> Entry:
        """Changes nothing."""
        return self._unchanged(path, guard)

    def truncate(self, path: str, size: int, guard: Guard) -> Written:
        """Changes nothing: enqueues nothing, clears nothing."""
        return Written(self._unchanged(path, guard), False)

    def check(self) -> dict[str, str]:
        """Whether the store answers."""
        return {"queues": state_of(self.store.check)}

    def quiesce(self) -> None:
        """As the interface says: they end with {}."""
        self._waiters.close()

    def close(self) -> None:
        """Waiting readers end with {}."""
        self._waiters.close()
        self.store.close()


def _queue_duration(wish: Wish, name: str) -> float:
    """Seconds of a wish, 0 without it. Raises BadRequest."""
    try:
        seconds = parse_duration(wish[name]) if name in wish else 0.0
    except ValueError as error:
        raise BadRequest(f"`{name}`: {error}") from None
    if seconds > MAX_QUEUE_WAIT or name == "ack" and name in wish and not seconds:
        raise BadRequest(f"`{name}` is a duration above 0 of at most one hour.")
    return seconds


def _message_id(data: bytes) -> int:
    """The id in what was written to `ack`: {"id": "..."}, or the id alone. Raises BadRequest."""
    try:
        found = json.loads(data)
        number = int(found["id"] if isinstance(found, dict) else found)
        if 0 < number < 1 << 63:
            return number
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise BadRequest('Write the id of the message to `ack`: {"id": "1736936445000000000"}.')


# ============================================================================
# sqlfs: files in a table
# ============================================================================

SQL_CHUNK = 256 * 1024                      # bytes of a row: below every default of MySQL's max_allowed_packet
SQL_BATCH = 16 * SQL_CHUNK                  # of an upload in one transaction, and in memory: one fsync for 4 MiB
SQL_READ = 4                                # chunks read in one transaction
SQL_PAGE = 500                              # entries read in one transaction
SQL_JOINED = 8                              # levels of a path looked up by one statement
SQL_SWEPT = 256                             # chunks removed in one transaction: SQLite visits each page of them
SQL_LEFT_OVER = 3600                        # s after which what no entry has is taken for a crashed upload's
SQL_SCHEMA = 1
_SQL_ROOT = "root"                          # the id of "/", which has no row

# Names are bytes: the one order, and the one equality, that all databases agree on. A directory's id is the `parent` of
# what is in it: moving it is one row, and no path is too long for an index. A file's bytes are the rows of its
# `content`, of each chunk the one with the highest generation up to the entry's. `turn` is updated first by whatever
# changes entries: so such transactions come one after the other, in all processes.
_SQL_TABLES = (
    "CREATE TABLE IF NOT EXISTS sqlfs_schema (id {big} PRIMARY KEY, version {big} NOT NULL, turn {big} NOT NULL)",
    "CREATE TABLE IF NOT EXISTS sqlfs_entries (parent {key} NOT NULL, name {name} NOT NULL, type {key} NOT NULL, "
    "size {big} NOT NULL, mode {big} NOT NULL, owner {text} NOT NULL, mtime_ns {big} NOT NULL, etag {key} NOT NULL, "
    "id {key} NOT NULL, digest {text} NOT NULL, content {key} NOT NULL, generation {big} NOT NULL, "
    "PRIMARY KEY (parent, name){index})",
    "CREATE TABLE IF NOT EXISTS sqlfs_chunks (content {key} NOT NULL, number {big} NOT NULL, "
    "generation {big} NOT NULL, data {data} NOT NULL, PRIMARY KEY (content, number, generation))",
    "CREATE INDEX IF NOT EXISTS sqlfs_entries_content ON sqlfs_entries (content)",      # not MySQL's: see {index}
)
_SQL_TYPES = {
    "sqlite": {"big": "INTEGER", "key": "TEXT", "name": "BLOB", "text": "TEXT", "data": "BLOB", "index": ""},
    "postgres": {"big": "BIGINT", "key": 'VARCHAR(48) COLLATE "C"', "name": "BYTEA", "text": "TEXT", "data": "BYTEA",
                 "index": ""},
    "mysql": {"big": "BIGINT", "key": "VARCHAR(48) CHARACTER SET ascii COLLATE ascii_bin", "name": "VARBINARY(255)",
              "text": "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "data": "MEDIUMBLOB",
              "index": ", KEY sqlfs_entries_content (content)"},
}
_SQL_COLUMNS = ("parent", "name", "type", "size", "mode", "owner", "mtime_ns", "etag", "id", "digest", "content",
                "generation")
_SQL_INSERT = (f"INSERT INTO sqlfs_entries ({', '.join(_SQL_COLUMNS)}) VALUES ({', '.join('?' * len(_SQL_COLUMNS))})")
_SQL_UPDATE = (f"UPDATE sqlfs_entries SET {', '.join(f'{column} = ?' for column in _SQL_COLUMNS)} "
               "WHERE parent = ? AND name = ?")


class SQLRow(NamedTuple):
    """An entry as it lies in the table: in which directory, and where its bytes are."""

    entry: Entry
    parent: str
    content: str = ""
    generation: int = 0

    def values(self) -> list[Any]:
        """As _SQL_COLUMNS."""
        entry = self.entry
        return [self.parent, entry.name.encode(), entry.type, entry.size, entry.mode, entry.owner, entry.mtime_ns,
                entry.etag, entry.id, entry.digest, self.content, self.generation]

    def next(self, **changes: Any) -> SQLRow:
        """The next version of the bytes."""
        entry = self.entry._replace(mtime_ns=max(time.time_ns(), self.entry.mtime_ns + 1), etag=secrets.token_hex(8),
                                    digest="", **changes)
        return self._replace(entry=entry, generation=self.generation + 1)


class StaleChunks(NamedTuple):
    """Rows of a content that only readers of generations below `generation` can still want."""

    content: str
    low: int = 0
    high: int = 1 << 62
    generation: int = 1 << 62


class ContentUses:
    """Which versions are being read in this process, and what has to wait for that before it is deleted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, collections.Counter[int]] = {}
        self._owed: dict[str, list[StaleChunks]] = {}

    def take(self, row: SQLRow) -> None:
        """Somebody reads this version."""
        with self._lock:
            self._counts.setdefault(row.content, collections.Counter())[row.generation] += 1

    def give(self, row: SQLRow) -> list[StaleChunks]:
        """Somebody is through; what may be deleted now."""
        with self._lock:
            counts = self._counts[row.content]
            counts[row.generation] -= 1
            if not counts[row.generation]:
                del counts[row.generation]
            if not counts:
                del self._counts[row.content]
            owed = self._owed.pop(row.content, [])
            kept = [stale for stale in owed if self._wanted(stale)]
            if kept:
                self._owed[row.content] = kept
            return [stale for stale in owed if stale not in kept]

    def due(self, stale: StaleChunks) -> bool:
        """Whether this may be deleted now; else it is owed."""
        with self._lock:
            wanted = self._wanted(stale)
            if wanted:
                self._owed.setdefault(stale.content, []).append(stale)
            return not wanted

    def _wanted(self, stale: StaleChunks) -> bool:
        return any(generation < stale.generation for generation in self._counts.get(stale.content, ()))


class BodyBatches:
    """A body in large pieces, with its digest. A body that breaks off ends, with what it raised as `error`."""

    def __init__(self, body: Body) -> None:
        self._body, self.total, self._digest = body, 0, hashlib.sha256()
        self.error: Optional[Exception] = None
        self.over = False
        # One byte more than a small body has: so its end is seen in the first piece.
        self._view = memoryview(bytearray(min(SQL_BATCH, SQL_BATCH if body.length is None else body.length + 1)))

    def next(self, size: int = SQL_BATCH) -> memoryview:
        """The next piece, less than `size` only when the body is `over`. It holds until the next call."""
        view, have, count = self._view[:size], 0, -1
        try:
            while have < len(view) and count:
                count = self._body.readinto(view[have:])
                have += count
            if not count and self._body.length not in (None, self.total + have):
                self.error = Disconnected("The body is shorter than announced.")
        except Exception as error:          # kept, since what came before it may be wanted (patch)
            self.error = error
        self.total, self.over = self.total + have, not count or self.error is not None
        self._digest.update(view[:have])
        return view[:have]

    def check(self, sha256: str) -> str:
        """The digest of all of it. Raises what the body raised, BadRequest for another digest than announced."""
        if self.error:
            raise self.error
        if sha256 and sha256 != self._digest.hexdigest():
            raise BadRequest("The body does not have the SHA-256 that was announced.")
        return self._digest.hexdigest()


class ZeroBody(Body):
    """So many zeros."""

    def __init__(self, length: int) -> None:
        self.length = self._left = length

    def readinto(self, view: memoryview) -> int:
        """Zeros."""
        count = min(len(view), self._left)
        view[:count] = bytes(count)
        self._left -= count
        return count


@dataclass
class _Upload:
    """One write on its way: `chunks` lie in the table already; `written` and `old` once an attempt got that far."""

    path: str
    owner: str
    guard: Guard
    options: WriteOptions
    content: str
    chunks: int = 0
    size: int = 0
    digest: str = ""
    written: Optional[Written] = None
    old: Optional[SQLRow] = None


class SQLHandle(Handle):
    """A handle on one version of a file; its chunks stay until it is closed."""

    def __init__(self, filesystem: SQLFS, row: SQLRow) -> None:
        self.entry, self._filesystem, self._row = row.entry, filesystem, row
        self._open = True

    def reader(self, start: int = 0, stop: Optional[int] = None) -> Reader:
        """As the base says."""
        last = self.entry.size if stop is None else stop
        return ChunkReader(self._filesystem.blocks(self._row, start, last), last - start, self.close)

    def close(self) -> None:
        """Let go, once."""
        opened, self._open = self._open, False
        if opened:
            self._filesystem.give(self._row)


class SQLFS(FileSystem):
    """Files in tables of SQLite, PostgreSQL, MySQL or TiDB, in chunks: any size, in bounded memory.

    A write puts its chunks under a new content id, in several transactions if it is large; the last one switches the
    entry: killed anywhere, a path has its old or its new version whole. Who reads in this process reads its version to
    the end; in another process a version that was replaced meanwhile ends in StorageError, never in other bytes.
    Several processes may use the same tables.
    """

    name = "sqlfs"

    @dataclass
    class Options(DatabaseMountOptions):
        """As the base says."""

        cache_enabled: bool = option(True, "Remember entries; own changes are seen at once all the same", kind="bool")
        cache_max_size: int = option(1000, "Entries that are remembered", kind="int", minimum=1, maximum=1 << 24)
        cache_ttl_seconds: float = option("5", "How late changes of other processes may be seen", kind="duration",
                                          minimum=0)

    def __init__(self, options: SQLFS.Options, context: MountContext) -> None:
        self.slow = options.backend != "sqlite"
        self._ttl = options.cache_ttl_seconds if options.cache_enabled else 0.0
        self._cache: Cache[str, tuple[SQLRow, float]] = Cache(max(1, options.cache_max_size // 2))  # of 2 generations
        self._mark, self._marking = 0, threading.Lock()         # how many changes this process has made
        self._uses, self._metrics = ContentUses(), context.metrics
        self._root = SQLRow(Entry("/", DIRECTORY, 0, 0o755, "root", time.time_ns(), "", _SQL_ROOT, "", self.name), "")
        self._database = self._opened(options, context)
        try:
            self._set_up()
            self._sweep()
        except BaseException:
            self._database.close()
            raise

    @staticmethod
    def _opened(options: SQLFS.Options, context: MountContext) -> Database:
        if options.backend == "sqlite" and not options.db_path:
            options = dataclasses.replace(options, db_path="sqlfs.db")
        return options.opened("sqlfs", context.folder)

    def _set_up(self) -> None:
        """Make the tables, unless they are there. Two who do that at once may meet: then again."""
        types = _SQL_TYPES[self._database.dialect]
        for attempt in range(5):
            try:
                for table in _SQL_TABLES[:3 if types["index"] else 4]:
                    self._database.run(lambda session: session.execute(table.format(**types)), idempotent=True)
                version = self._database.run(self._version, idempotent=True)
                break
            except (DatabaseConflict, DatabaseError):
                if attempt == 4:
                    raise
        if version > SQL_SCHEMA:
            raise Unavailable("The tables were made by a newer version of callfs.")

    @staticmethod
    def _version(session: Session) -> int:
        rows = session.execute("SELECT version FROM sqlfs_schema WHERE id = 1").rows
        if not rows:
            session.execute("INSERT INTO sqlfs_schema (id, version, turn) VALUES (1, ?, 0)", [SQL_SCHEMA])
        return int(rows[0][0]) if rows else SQL_SCHEMA

    def close(self) -> None:
        """As the interface says."""
        self._database.close()

    def check(self) -> dict[str, str]:
        """As the interface says."""
        return {"database": state_of(lambda: self._database.run(lambda session: session.execute("SELECT 1"), True))}

    # -- looking -----------------------------------------------------------------------------------------------

    def _row(self, session: Session, path: str) -> Optional[SQLRow]:
        """The row of a path, None for nothing."""
        if path == "/":
            return self._root
        parent, names, found = _SQL_ROOT, path[1:].encode().split(b"/"), ()     # type: str, list[bytes], Any
        for at in range(0, len(names), SQL_JOINED):
            part = names[at:at + SQL_JOINED]
            rows = session.execute(_path_query(len(part)), [*part[1:], parent, part[0]]).rows
            if not rows:
                return None
            found, parent = rows[0], rows[0][8]
        return self._row_of(path, found)

    def _row_of(self, path: str, values: Sequence[Any]) -> SQLRow:
        parent, _, kind, size, mode, owner, mtime_ns, etag, key, digest, content, generation = values
        entry = Entry(path, kind, int(size), int(mode), owner, int(mtime_ns), etag, key, digest, self.name)
        return SQLRow(entry, parent, content, int(generation))

    def _children(self, session: Session, folder: Entry, after: bytes) -> list[SQLRow]:
        rows = session.execute(f"SELECT {', '.join(_SQL_COLUMNS)} FROM sqlfs_entries WHERE parent = ? AND name > ? "
                               f"ORDER BY name LIMIT {SQL_PAGE}", [folder.id, after]).rows
        return [self._row_of(join_path(folder.path, bytes(row[1]).decode()), row) for row in rows]

    def _look(self, path: str) -> SQLRow:
        """The row of a path, perhaps remembered. Raises FileNotFound."""
        hit = self._cache.get(path)
        if hit is not None and hit[1] > time.monotonic():
            return hit[0]
        mark = self._mark
        row = self._database.run(lambda session: self._row(session, path), idempotent=True)
        if row is None:
            raise FileNotFound()
        with self._marking:                 # not what was read before a change of ours
            if self._mark == mark and self._ttl:
                self._cache.put(path, (row, time.monotonic() + self._ttl))
        return row

    def _forget(self, *paths: str) -> None:
        """After a change of ours; without a path, of many."""
        with self._marking:
            self._mark += 1
            for path in paths:
                self._cache.drop(path)
            if not paths:
                self._cache.clear()

    def stat(self, path: str) -> Entry:
        """As the interface says."""
        return self._look(path).entry

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """As the interface says."""
        while True:
            mark, row = self._mark, self._look(path)
            if row.entry.is_dir:
                return Handle(row.entry)
            self._uses.take(row)
            if mark == self._mark or self._current(path, row):
                return SQLHandle(self, row)
            self.give(row)                  # its chunks may have gone before we were known to want them

    def _current(self, path: str, row: SQLRow) -> bool:
        now = self._database.run(lambda session: self._row(session, path), idempotent=True)
        return now is not None and (now.content, now.generation) == (row.content, row.generation)

    def blocks(self, row: SQLRow, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a version. Raises StorageError where its chunks are gone."""
        while start < stop:
            first = start // SQL_CHUNK
            last = min((stop - 1) // SQL_CHUNK, first + SQL_READ - 1)
            for number, data in enumerate(self._database.run(
                    lambda session: self._chunks(session, row, first, last), idempotent=True), first):
                yield data[start - number * SQL_CHUNK:stop - number * SQL_CHUNK]
                start = (number + 1) * SQL_CHUNK

    @staticmethod
    def _chunks(session: Session, row: SQLRow, first: int, last: int) -> list[bytes]:
        rows = session.execute("SELECT number, data FROM sqlfs_chunks WHERE content = ? AND number >= ? "
                               "AND number <= ? AND generation <= ? ORDER BY number, generation",
                               [row.content, first, last, row.generation]).rows
        newest, found = {int(number): data for number, data in rows}, []
        for number in range(first, last + 1):
            size = min(SQL_CHUNK, row.entry.size - number * SQL_CHUNK)
            found.append(newest.get(number, b"")[:size])
            if len(found[-1]) < size:
                raise StorageError("This version of the file was replaced by another process while it was read.")
        return found

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """As the interface says, page by page."""
        folder = self._look(path).entry
        if not folder.is_dir:
            raise Conflict("This is a file, not a directory.")
        return self._listed(folder, after.encode("utf-8", "surrogatepass"))

    def _listed(self, folder: Entry, after: bytes) -> Iterator[Entry]:
        page = [None]                       # type: list[Any]
        while page:
            page = self._database.run(lambda session: self._children(session, folder, after), idempotent=True)
            for row in page:
                yield row.entry
                after = row.entry.name.encode()

    # -- what nobody needs any more ----------------------------------------------------------------------------

    def give(self, row: SQLRow) -> None:
        """A reader of this version is through."""
        for stale in self._uses.give(row):
            self._delete(stale)

    def _release(self, *stale: StaleChunks) -> None:
        """Delete what is not read any more, now or when its last reader is through. To be called after the commit."""
        for each in stale:
            if self._uses.due(each):
                self._delete(each)

    def _delete(self, stale: StaleChunks) -> None:
        """What can not be deleted now is swept at a later mount: the change itself has worked."""
        try:
            top = self._database.run(lambda session: session.execute(
                "SELECT MAX(number) FROM sqlfs_chunks WHERE content = ?", [stale.content]).rows[0][0], idempotent=True)
            for low in range(stale.low, min(stale.high, -1 if top is None else int(top) + 1), SQL_SWEPT):
                self._database.run(lambda session: session.execute(
                    "DELETE FROM sqlfs_chunks WHERE content = ? AND number >= ? AND number < ? AND generation < ?",
                    [stale.content, low, min(stale.high, low + SQL_SWEPT), stale.generation]), idempotent=True)
        except CallFSError as error:
            self._metrics.count("callfs_errors_total", self.name, type(error).__name__)

    def _sweep(self) -> None:
        """Delete what crashed uploads have left. A content's id begins with its time."""
        before = _content_id(time.time_ns() - SQL_LEFT_OVER * 1_000_000_000)[:16]
        for (content,) in self._database.run(lambda session: session.execute(
                "SELECT DISTINCT c.content FROM sqlfs_chunks c WHERE c.content < ? AND NOT EXISTS "
                "(SELECT 1 FROM sqlfs_entries e WHERE e.content = c.content)", [before]), idempotent=True).rows:
            self._delete(StaleChunks(content))

    # -- writing -----------------------------------------------------------------------------------------------

    @staticmethod
    def _turn(session: Session) -> None:
        session.execute("UPDATE sqlfs_schema SET turn = turn + 1 WHERE id = 1")

    @staticmethod
    def _insert(session: Session, row: SQLRow) -> SQLRow:
        session.execute(_SQL_INSERT, row.values())
        return row

    @staticmethod
    def _update(session: Session, old: SQLRow, new: SQLRow) -> SQLRow:
        session.execute(_SQL_UPDATE, [*new.values(), old.parent, old.entry.name.encode()])
        return new

    @staticmethod
    def _put(session: Session, content: str, generation: int, number: int, data: memoryview) -> None:
        for at in range(0, len(data), SQL_CHUNK):
            session.execute("INSERT INTO sqlfs_chunks (content, number, generation, data) VALUES (?, ?, ?, ?)",
                            [content, number + at // SQL_CHUNK, generation, bytes(data[at:at + SQL_CHUNK])])

    def write(self, path: str, body: Body, owner: str, guard: Guard, options: WriteOptions) -> Written:
        """As the interface says. A small file is one transaction."""
        _check_lengths(path)
        upload, batches = _Upload(path, owner, guard, options, _content_id(time.time_ns())), BodyBatches(body)
        try:
            batch = batches.next()
            while not batches.over:
                self._database.run(lambda session: self._put(session, upload.content, 0, upload.chunks, batch))
                upload.chunks += len(batch) // SQL_CHUNK
                batch = batches.next()
            upload.digest, upload.size = batches.check(options.sha256), batches.total
            self._database.run(lambda session: self._switch(session, upload, batch), idempotent=True)
        except BaseException as error:
            if upload.chunks and not getattr(error, "uncertain", False):
                self._delete(StaleChunks(upload.content))
            raise
        finally:
            self._forget(path)
        if upload.old:
            self._release(StaleChunks(upload.old.content))
        assert upload.written is not None
        return upload.written

    def _switch(self, session: Session, upload: _Upload, rest: memoryview) -> None:
        """The last chunks, and the entry that has them all."""
        self._turn(session)
        there = self._row(session, upload.path)
        if there is not None and there.content == upload.content:
            return                          # the answer to an attempt's COMMIT was lost, but it had worked
        upload.guard(there.entry if there else None)
        if there is not None and there.entry.is_dir:
            raise Conflict("A directory is there.")
        if upload.chunks and not session.execute("SELECT 1 FROM sqlfs_chunks WHERE content = ? AND number = 0",
                                                 [upload.content]).rows:
            raise Unavailable("The upload took so long that it was swept away as left over; try again.")
        self._put(session, upload.content, 0, upload.chunks, rest)
        old, mode = there.entry if there else None, upload.options.mode
        moment = upload.options.mtime_ns
        entry = Entry(upload.path, FILE, upload.size, mode if mode is not None else old.mode if old else 0o644,
                      old.owner if old else upload.owner, time.time_ns() if moment is None else moment,
                      secrets.token_hex(8), old.id if old else secrets.token_hex(8), upload.digest, self.name)
        if there is not None:
            self._update(session, there, SQLRow(entry, there.parent, upload.content))
        else:
            parent = self._folder(session, split_path(upload.path)[0], upload.owner)
            self._insert(session, SQLRow(entry, parent, upload.content))
        upload.written, upload.old = Written(entry, there is None), there

    def _folder(self, session: Session, path: str, owner: str) -> str:
        """The id of a directory, which is made when it is missing, with what is missing above it. Raises Conflict."""
        row = self._row(session, path)
        if row is None:
            row = self._root
            for each in (*ancestors(path)[1:], path):
                row = self._row(session, each) or self._insert(session, self._new_folder(each, row.entry.id, owner))
                if not row.entry.is_dir:
                    break
        if not row.entry.is_dir:
            raise Conflict("A file is in the way: a part of the path is no directory.")
        return row.entry.id

    def _new_folder(self, path: str, parent: str, owner: str, mode: int = 0o755) -> SQLRow:
        return SQLRow(Entry(path, DIRECTORY, 0, mode, owner, time.time_ns(), "", secrets.token_hex(8),
                            backend=self.name), parent)

    def mkdir(self, path: str, owner: str, guard: Guard, mode: int = 0o755) -> Written:
        """As the interface says."""
        _check_lengths(path)

        def work(session: Session) -> Written:
            self._turn(session)
            there = self._row(session, path)
            guard(there.entry if there else None)
            if there is not None:
                return Written(there.entry, False)
            parent = self._folder(session, split_path(path)[0], owner)
            return Written(self._insert(session, self._new_folder(path, parent, owner, mode)).entry, True)
        written = self._database.run(work)
        self._forget(path)
        return written

    def _there(self, session: Session, path: str, guard: Guard) -> SQLRow:
        """What is about to be changed, with the turn to change it. Raises what the guard raises, FileNotFound."""
        self._turn(session)
        there = self._row(session, path)
        guard(there.entry if there else None)
        if there is None:
            raise FileNotFound()
        if there.parent == "":
            raise BadRequest("The mount point itself can not be changed.")
        return there

    def patch(self, path: str, body: Body, offset: int, guard: Guard) -> Written:
        """As the interface says. Every 4 MiB is a transaction of its own; only touched chunks are written anew."""
        batches, content = BodyBatches(body), ""

        def work(session: Session) -> tuple[SQLRow, SQLRow]:
            there = self._there(session, path, guard if not content else lambda there: None)
            if content and there.content != content:
                raise Conflict("The file was replaced while it was written.")
            if offset > there.entry.size:
                raise RangeNotSatisfiable(f"The file has {there.entry.size} bytes; it can be written up to there.",
                                          headers=[("Content-Range", f"bytes */{there.entry.size}")])
            return there, self._overlay(session, there, batch, offset)
        try:
            while True:
                batch = batches.next(SQL_BATCH - offset % SQL_CHUNK)
                old, new = self._database.run(work)
                self._forget(path)
                first, last = offset // SQL_CHUNK, -(-(offset + len(batch)) // SQL_CHUNK)
                if new is not old:
                    self._release(StaleChunks(old.content, first, last, new.generation))
                content, offset = old.content, offset + len(batch)
                batches.check("")
                if batches.over:
                    return Written(new.entry, False)
        finally:
            self._forget(path)

    def _overlay(self, session: Session, there: SQLRow, data: memoryview, offset: int) -> SQLRow:
        """Write chunks of the next generation: `data` with what stands before and behind it in its chunks."""
        if not data:
            return there
        end, first = offset + len(data), offset // SQL_CHUNK
        head, tail = b"", b""
        if offset % SQL_CHUNK:
            head = self._chunks(session, there, first, first)[0][:offset % SQL_CHUNK]
        if end % SQL_CHUNK and end < there.entry.size:
            tail = self._chunks(session, there, end // SQL_CHUNK, end // SQL_CHUNK)[0][end % SQL_CHUNK:]
        new = there.next(size=max(there.entry.size, end))
        self._put(session, there.content, new.generation, first, memoryview(b"".join((head, data, tail))))
        return self._update(session, there, new)

    def truncate(self, path: str, size: int, guard: Guard) -> Written:
        """As the interface says."""
        def work(session: Session) -> tuple[SQLRow, SQLRow]:
            there = self._there(session, path, guard)
            if there.entry.is_dir:
                raise BadRequest("A directory is there.")
            return there, self._update(session, there, there.next(size=min(size, there.entry.size)))
        try:
            old, new = self._database.run(work)
        finally:
            self._forget(path)
        self._release(StaleChunks(old.content, -(-new.entry.size // SQL_CHUNK), 1 << 62, new.generation))
        if size <= new.entry.size:
            return Written(new.entry, False)
        return self.patch(path, ZeroBody(size - new.entry.size), new.entry.size, lambda there: None)

    def chmod(self, path: str, mode: int, guard: Guard) -> Entry:
        """As the interface says."""
        return self._set(path, guard, mode=mode)

    def touch(self, path: str, mtime_ns: int, guard: Guard) -> Entry:
        """As the interface says."""
        return self._set(path, guard, mtime_ns=mtime_ns)

    def _set(self, path: str, guard: Guard, **changes: int) -> Entry:
        def work(session: Session) -> Entry:
            there = self._there(session, path, guard)
            return self._update(session, there, there._replace(entry=there.entry._replace(**changes))).entry
        try:
            return self._database.run(work)
        finally:
            self._forget(path)

    # -- removing and moving -----------------------------------------------------------------------------------

    def remove(self, path: str, recursive: bool, guard: Guard) -> None:
        """As the interface says."""
        try:
            contents = self._database.run(lambda session: self._remove(session, path, recursive, guard))
        finally:
            self._forget()
        self._release(*map(StaleChunks, contents))

    def _remove(self, session: Session, path: str, recursive: bool, guard: Guard) -> list[str]:
        """The contents that are free now."""
        there = self._there(session, path, guard)
        folders, contents = [there.entry] if there.entry.is_dir else [], [there.content] if there.content else []
        for folder in folders:              # it grows meanwhile
            children = self._children(session, folder, b"")
            while children:
                if not recursive:
                    raise DirectoryNotEmpty()
                for child in children:
                    guard(child.entry)
                folders += [child.entry for child in children if child.entry.is_dir]
                contents += [child.content for child in children if child.content]
                children = self._children(session, folder, children[-1].entry.name.encode())
            session.execute("DELETE FROM sqlfs_entries WHERE parent = ?", [folder.id])
        self._unlink(session, there)
        return contents

    @staticmethod
    def _unlink(session: Session, row: SQLRow) -> None:
        session.execute("DELETE FROM sqlfs_entries WHERE parent = ? AND name = ?",
                        [row.parent, row.entry.name.encode()])

    def move(self, source: str, target: str, owner: str, guard: Guard, target_guard: Guard, parents: bool) -> Entry:
        """As the interface says, in one transaction; of a directory only its own row changes."""
        _check_lengths(target)
        if is_below(target, source):
            raise BadRequest("A path can not be moved into itself.")

        def work(session: Session) -> tuple[SQLRow, Optional[SQLRow]]:
            there, other = self._there(session, source, guard), self._row(session, target)
            target_guard(other.entry if other else None)
            if other is not None:
                self._check_target(session, there, other)
                self._unlink(session, other)
            if not parents and self._row(session, split_path(target)[0]) is None:
                raise BadRequest("The destination's directory does not exist; ask with `create_parents` to make it.")
            parent = self._folder(session, split_path(target)[0], owner)
            new = there._replace(entry=there.entry._replace(path=target), parent=parent)
            return self._update(session, there, new), other
        try:
            moved, other = self._database.run(work)
        finally:
            self._forget()
        if other is not None and other.content:
            self._release(StaleChunks(other.content))
        return moved.entry

    def _check_target(self, session: Session, there: SQLRow, other: SQLRow) -> None:
        check_target(there.entry, other.entry, True, lambda: not self._children(session, other.entry, b""))


def _content_id(time_ns: int) -> str:
    return f"{time_ns:016x}{secrets.token_hex(8)}"


def _path_query(levels: int) -> str:
    """The row of a path of so many names, given the later names, the parent of the first, and the first."""
    joins = "".join(f" JOIN sqlfs_entries e{level} ON e{level}.parent = e{level - 1}.id AND e{level}.name = ?"
                    for level in range(1, levels))
    columns = ", ".join(f"e{levels - 1}.{column}" for column in _SQL_COLUMNS)
    return f"SELECT {columns} FROM sqlfs_entries e0{joins} WHERE e0.parent = ? AND e0.name = ?"


# ============================================================================
# proxyfs: a remote PFS server as a folder
# ============================================================================

RELOAD = "/reload"                          # writing to it reconnects
_LIVE_TYPES = frozenset({"control", "stream"})


class ProxyFS(FileSystem):
    """A remote PFS server, this one or the reference, as a folder. It need not be up when it is mounted.

    What is a queue's control file there is one here: it is opened only when its bytes are asked for. Who may do what
    is decided there, by the token, so everything belongs to everyone here. The remote has no locks to hold: a guard
    sees what was there a moment before. Errors keep class and status, but for those that are about the token (401)
    or the connection: those are 502 here, as no caller of this server could act on them.
    """

    name = "proxyfs"
    slow = True

    @dataclass
    class Options:
        """See the fields."""

        base_url: str = option("", "The remote server: http(s)://HOST[:PORT][/PREFIX][/api/v1]")
        token: str = option("", "Its key", kind="secret")
        cache_ttl_seconds: float = option(0, "How long stat and listings may be old; 0: not at all", kind="duration")
        timeout: float = option("30s", "Longest wait for the remote server", kind="duration", minimum=0.01)

    def __init__(self, options: ProxyFS.Options, context: MountContext) -> None:
        if not re.match("https?://", options.base_url):
            raise BadRequest("proxyfs needs `base_url`, an http:// or https:// address.")
        self._options, self._calls = options, context.tree.calls
        self._client = self._connected()
        self._known: Cache[tuple[str, str], tuple[float, Any]] = Cache(10_000)
        self._readers: set[Reader] = set()
        self._lock, self._closed, self._state = threading.Lock(), False, "ok"
        self._since = time.time_ns()

    def _connected(self) -> PFSClient:
        try:
            return PFSClient(self._options.base_url, self._options.token, timeout=self._options.timeout,
                             headers=self._hop)
        except ConfigError as error:
            raise BadRequest(f"proxyfs: {error.message}.") from None

    def _hop(self) -> Mapping[str, str]:
        hops = self._calls.hops + 1
        if hops > MAX_HOPS:
            raise LoopDetected(f"The request went through {MAX_HOPS} servers; some of them show one another.")
        return {HOPS_HEADER: str(hops)}

    @contextlib.contextmanager
    def _remote(self) -> Iterator[PFSClient]:
        """The client, around one question to the remote server; remembers for `check` whether that is well."""
        if self._closed:
            raise Unavailable("This was unmounted.")
        try:
            yield self._client
            self._state = "ok"
        except (AuthenticationFailed, MisdirectedRequest) as error:
            self._state = f"the remote server refuses this mount: {error.message}"
            raise BadGateway("The remote server does not accept this mount's token or address.") from None
        except (Unavailable, BadGateway) as error:
            self._state = error.message
            raise

    def _recall(self, kind: str, path: str, ask: Callable[[PFSClient], Any]) -> Any:
        ttl, known = self._options.cache_ttl_seconds, self._known    # a change meanwhile exchanges the cache
        found = known.get((kind, path)) if ttl else None
        if found is not None and time.monotonic() - found[0] < ttl:
            return found[1]
        with self._remote() as client:
            value = ask(client)
        if ttl:
            known.put((kind, path), (time.monotonic(), value), 1 + len(value) if kind == "list" else 1)
        return value

    def _forget(self) -> None:
        self._known = Cache(10_000)

    # -- reading -----------------------------------------------------------------------------------------------

    def _entry(self, path: str, info: RemoteInfo) -> Entry:
        kind, label = DIRECTORY if info.is_dir else FILE, info.meta.get("Type") or ""
        version = f"{self._client.url}\n{path}\n{info.size}\n{info.mtime_ns}\n{kind}".encode("utf-8", "surrogateescape")
        # `stamp` is free for a filesystem's own use: `describe` needs what the listing has told already.
        return Entry(path, kind, max(info.size, 0) if kind == FILE else 0, info.mode, ANYONE, info.mtime_ns,
                     hashlib.sha256(version).hexdigest()[:32], path, backend=self.name,
                     stamp=json.dumps([label, info.meta.get("Content")]))

    def _own(self) -> Entry:
        return Entry(RELOAD, FILE, 0, 0o222, ANYONE, self._since, "reload", RELOAD, backend=self.name,
                     stamp='["control", null]')

    def _info(self, path: str) -> RemoteInfo:
        return self._recall("stat", path, lambda client: client.stat(path))

    def stat(self, path: str) -> Entry:
        """As the interface says."""
        try:
            return self._entry(path, self._info(path))
        except (FileNotFound, Unavailable, BadGateway):
            if path == RELOAD:              # it is needed most while the remote is away
                return self._own()
            raise

    def describe(self, entry: Entry) -> Meta:
        """What the remote says of it."""
        label, content = json.loads(entry.stamp) if entry.stamp else ("", None)
        told = {str(name): str(value) for name, value in content.items()} if isinstance(content, dict) else None
        return Meta(self.name, label or entry.type, told)

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """As the interface says; names that are none here (a slash, control characters) are left out."""
        try:
            infos = self._recall("list", path, lambda client: client.list(path))
        except CallFSError:
            if path != "/" and not self.stat(path).is_dir:
                raise Conflict("This is a file, not a directory.") from None
            raise
        found = {info.name: self._entry(join_path(path, info.name), info) for info in infos if _is_name(info.name)}
        if path == "/":
            found.setdefault(RELOAD[1:], self._own())
        return iter([found[name] for name in sorted(found) if name > after])

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """As the interface says. The cache is not asked: a size that is wrong would cut the file."""
        self._known.drop(("stat", path))
        entry = self.stat(path)
        if entry.is_dir:
            return Handle(entry)
        label = json.loads(entry.stamp)[0]
        if entry.mode and not entry.mode & 0o444:
            raise PermissionDenied("This can only be written.")
        # An empty file that nobody may write is a control file, too, or one whose size is not known beforehand.
        if label in _LIVE_TYPES or not entry.size and not entry.mode & 0o222:
            endless = wish.get("stream") == "true" or label == "stream"
            make = functools.partial(self._live, path, dict(wish), endless, self._calls.hops)
            return LiveHandle(entry, make, consumes=label != "stream")
        return _ProxyHandle(entry, functools.partial(self._bytes, path))

    def _live(self, path: str, wish: dict[str, str], endless: bool, hops: int) -> Reader:
        """A reader of what has no size. It is asked for after the call that `hops` belongs to."""
        asked = {name: value for name, value in wish.items() if name != "stream"}
        with self._calls.at(hops):
            return self._reader(path, stream=endless, query=asked, patience=_asked_wait(wish))

    def _bytes(self, path: str, offset: int, size: int) -> Reader:
        return self._reader(path, offset, size)

    def _reader(self, path: str, *args: Any, **named: Any) -> Reader:
        with self._remote() as client:
            reader = _ProxyReader(client.open(path, *args, **named), self._readers)
        if self._closed:                    # `close` may have missed it
            reader.close()
        return reader

    # -- changing ----------------------------------------------------------------------------------------------

    def _checked(self, path: str, guard: Guard) -> Optional[Entry]:
        """What is there, if the guard lets it be changed."""
        self._known.drop(("stat", path))
        there = self.peek(path)
        guard(there)
        return there

    @contextlib.contextmanager
    def _change(self) -> Iterator[PFSClient]:
        """As `_remote`; whatever comes of it, what was known before does not count."""
        try:
            with self._remote() as client:
                yield client
        finally:
            self._forget()

    def write(self, path: str, body: Body, owner: str, guard: Guard, options: WriteOptions) -> Written:
        """As the interface says; the remote sets the time."""
        there = self._checked(path, guard)
        if there is not None and path == RELOAD and there.etag == "reload":
            return self._reload(body)
        if there is None:
            self._make_parents(path)
        with self._change() as client:
            message = client.write(path, _CheckedBody(body, options.sha256) if options.sha256 else body)
            if options.mode is not None and (there is None or there.mode & 0o777 != options.mode):
                with contextlib.suppress(NotSupported, PermissionDenied, NotFound):      # a mode is a wish
                    client.chmod(path, options.mode)
        return Written(self.stat(path), there is None, message)

    def _reload(self, body: Body) -> Written:
        body.read(MAX_RELOAD)
        with self._lock:
            old, self._client = self._client, self._connected()
        old.close()
        self._forget()
        with self._remote() as client:
            version = client.health().get("version", "")
        return Written(self._own(), False, f"connected again {version}".strip())

    def _make_parents(self, path: str) -> None:
        parent = split_path(path)[0]
        if parent == "/":
            return
        there = self.peek(parent)
        if there is not None:
            if not there.is_dir:
                raise Conflict(f"{parent} is a file.")
            return
        self._make_parents(parent)
        with self._change() as client, contextlib.suppress(FileExists):
            client.mkdir(parent)

    def mkdir(self, path: str, owner: str, guard: Guard, mode: int = 0o755) -> Written:
        """As the interface says."""
        there = self._checked(path, guard)
        if there is not None:
            return Written(there, False)
        self._make_parents(path)
        with self._change() as client:
            client.mkdir(path, mode)
        return Written(self.stat(path), True)

    def remove(self, path: str, recursive: bool, guard: Guard) -> None:
        """As the interface says; the guard sees the path alone, as all below it is everyone's, too."""
        there = self._checked(path, guard)
        if there is not None and path == RELOAD and there.etag == "reload":
            raise PermissionDenied("This file belongs to the mount.")
        with self._change() as client:
            client.remove(path, recursive)

    def move(self, source: str, target: str, owner: str, guard: Guard, target_guard: Guard, parents: bool) -> Entry:
        """As the interface says. The dialect can not replace by renaming: a file in the way is removed first."""
        self._checked(source, guard)
        there = self._checked(target, target_guard)
        if there is not None and there.is_dir:
            raise FileExists("A directory is already there.")
        parent = split_path(target)[0]
        if parents:
            self._make_parents(target)
        elif parent != "/" and not (self.peek(parent) or NOTHING).is_dir:
            raise BadRequest("The folder of the destination does not exist; ask with `create_parents` to make it.")
        with self._change() as client:
            if there is not None:
                client.remove(target)
            client.rename(source, target)
        return self.stat(target)

    def chmod(self, path: str, mode: int, guard: Guard) -> Entry:
        """As the interface says."""
        self._checked(path, guard)
        with self._change() as client:
            client.chmod(path, mode)
        return self.stat(path)

    def touch(self, path: str, mtime_ns: int, guard: Guard) -> Entry:
        """As the interface says, but that the remote's clock gives the time: the dialect takes none."""
        self._checked(path, guard)
        with self._change() as client:
            client.touch(path)
        return self.stat(path)

    def truncate(self, path: str, size: int, guard: Guard) -> Written:
        """As the interface says."""
        self._checked(path, guard)
        with self._change() as client:
            client.truncate(path, size)
        return Written(self.stat(path), False)

    def check(self) -> dict[str, str]:
        """How the last question to the remote went; none is asked for this."""
        return {"remote": self._state}

    def close(self) -> None:
        """End readers and connections."""
        self._closed = True
        for reader in list(self._readers):
            reader.close()
        self._client.close()


MAX_RELOAD = 65536                          # bytes written to `/reload`, which nobody looks at


def _is_name(name: str) -> bool:
    """Whether this can be one part of a path."""
    try:
        return "/" not in name and name != "" and canonical_path("/" + name) == "/" + name
    except CallFSError:
        return False


def _asked_wait(wish: Wish) -> float:
    """Seconds that a reader lets the other side wait for something to come; what is no duration it will refuse."""
    try:
        return min(parse_duration(wish.get("wait") or 0), 86400.0)
    except ValueError:
        return 0.0


class _ProxyHandle(Handle):
    """A remote file. `make` (offset, size) gives its bytes."""

    def __init__(self, entry: Entry, make: Callable[[int, int], Reader]) -> None:
        self.entry, self._make = entry, make

    def reader(self, start: int = 0, stop: Optional[int] = None) -> Reader:
        """All bytes are as many as the remote has by now; a part is exactly that, or an error."""
        if start == 0 and (stop is None or stop == self.entry.size):
            return self._make(0, -1)
        size = (self.entry.size if stop is None else stop) - start
        reader = self._make(start, size)
        if reader.length not in (None, size):
            reader.close()
            raise BadGateway("The remote file has changed, or its server gives no parts of files.")
        return reader


class _ProxyReader(Reader):
    """A reader that the mount knows of until it is closed."""

    def __init__(self, reader: Reader, known: set[Reader]) -> None:
        self._reader, self.length, self._known = reader, reader.length, known
        known.add(self)

    def read(self, size: int = BLOCK) -> bytes:
        """As the base says."""
        return self._reader.read(size)

    def close(self) -> None:
        """As the base says."""
        self._known.discard(self)
        self._reader.close()


class _CheckedBody(Body):
    """A body whose digest must be right. Its length is kept back: a body in chunks can be broken off at its end."""

    length = None

    def __init__(self, body: Body, sha256: str) -> None:
        self._body, self._wanted, self._state = body, sha256, hashlib.sha256()

    def readinto(self, view: memoryview) -> int:
        """As the base says. Raises BadRequest at the end."""
        count = self._body.readinto(view)
        self._state.update(view[:count])
        if not count and self._state.hexdigest() != self._wanted:
            raise BadRequest("The body does not have the digest that was announced.")
        return count


# ============================================================================
# HTTP values: Request, Response, Router, Application (no socket in sight)
# ============================================================================

REASONS = {status.value: status.phrase for status in http.HTTPStatus}
REASONS.update({413: "Content Too Large", 416: "Range Not Satisfiable", 421: "Misdirected Request"})


class Request:
    """One request, whatever brought it: TCP, TLS, HTTP/3 or a test.

    `path` is the raw path of the target (still percent-encoded, Latin-1), `query` its decoded parameters (the last of
    equals wins), `headers` lower-case names to values (repeats joined by ", "). `client` is the peer's address without
    port ("unix" for a unix socket). `memo` lives as long as the connection's header block stays the same: what was
    worked out from the headers alone may be kept there. What may take long runs in `with request.blocking():`, so
    that the server can let another thread answer meanwhile.
    """

    __slots__ = ("method", "path", "query_text", "version", "headers", "body", "client", "scheme", "memo",
                 "id", "route", "tail", "principal", "foreign", "started", "blocking", "_query")

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: Body, *, client: str = "",
                 scheme: str = "http", version: str = "HTTP/1.1", memo: Optional[dict[Any, Any]] = None) -> None:
        self.method, self.headers, self.body, self.version = method, headers, body, version
        self.path, _, self.query_text = target.partition("?")
        self.client, self.scheme, self.memo = client, scheme, {} if memo is None else memo
        self.id, self.tail, self.started = "", "", time.perf_counter()
        self.route: Optional[Route] = None
        self.principal: Optional[Principal] = None
        self.foreign = False                # a page of another site made a browser send it
        self.blocking: Callable[[], ContextManager[Any]] = contextlib.nullcontext
        self._query: Optional[dict[str, str]] = None

    @property
    def query(self) -> dict[str, str]:
        """Parameters of the query string; BadRequest where one is no UTF-8 or there are over 100."""
        if self._query is None:
            self._query = _parse_query(self.query_text) if self.query_text else {}
        return self._query

    def flag(self, name: str) -> bool:
        """A boolean parameter: `?recursive=true`, `?json`; `false`, `0` and `no` are false."""
        return name in self.query and self.query[name].lower() not in ("false", "0", "no", "off")

    def json(self, limit: int = 1024 * 1024) -> dict[str, Any]:
        """The body as a JSON object of at most `limit` bytes. Raises BadRequest, PayloadTooLarge."""
        try:
            value = json.loads(self.body.read(limit) or b"{}")
        except (ValueError, RecursionError):
            raise BadRequest("The body is not valid JSON.") from None
        if not isinstance(value, dict):
            raise BadRequest("The body must be a JSON object.")
        return value


def _parse_query(text: str) -> dict[str, str]:
    try:
        return dict(urllib.parse.parse_qsl(text, keep_blank_values=True, max_num_fields=100, errors="strict"))
    except ValueError:
        raise BadRequest("The query is not UTF-8 or has too many parameters.") from None


class Response:
    """One answer. `body` is bytes, or a Reader that the server closes, or None for no body at all.

    `headers` are (name, value) pairs; `block` is an already rendered run of header lines (each ending in CRLF), for
    what is sent often. `length` overrides the body's for a HEAD. `upgrade` takes the connection over after the head
    has been sent (WebSocket). `policy` is such a block, too: it stands in the place of the usual headers for browsers.
    """

    __slots__ = ("status", "headers", "block", "body", "length", "upgrade", "close", "policy")

    def __init__(self, status: int = 200, body: Union[bytes, Reader, None] = b"", *,
                 headers: Iterable[tuple[str, str]] = (), block: bytes = b"", length: Optional[int] = None,
                 upgrade: Optional[Callable[[Duplex], None]] = None, close: bool = False, policy: bytes = b"") -> None:
        self.status, self.body, self.block, self.close, self.policy = status, body, block, close, policy
        self.headers = list(headers)
        self.length = length if length is not None else _body_length(body)
        self.upgrade = upgrade


def _body_length(body: Union[bytes, Reader, None]) -> Optional[int]:
    if isinstance(body, bytes):
        return len(body)
    return body.length if body is not None else 0


class Duplex(Protocol):
    """The raw connection behind an upgrade. Both raise Disconnected; `receive` gives b"" at the peer's end."""

    def receive(self, size: int, timeout: float) -> bytes: ...

    def send(self, data: bytes, timeout: float) -> None: ...


def json_response(value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """`value` as one line of JSON."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return Response(status, body, headers=[("Content-Type", "application/json"), *headers])


Handler = Callable[[Request], Response]


class Route(NamedTuple):
    """One row of a dialect's table. A pattern that ends in `{path}` takes the rest of the path as `request.tail`.

    `access`: `key` (a signed-in user, or what `auth.anonymous` lets in), `pfs` (the same with `plugins.anonymous`),
    `user` (a key, whatever those say), `internal` (the internal secret alone), `open` (nobody is asked). `errors` turns what was raised into the
    dialect's answer.
    """

    pattern: str
    methods: Mapping[str, Handler]
    access: str
    errors: Callable[[Request, CallFSError], Response]


class Router:
    """Exact patterns by a dictionary, `{path}` patterns by the longest prefix."""

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self._exact: dict[str, Route] = {}
        self._prefixes: list[tuple[str, Route]] = []

    def add(self, routes: Iterable[Route]) -> None:
        """Take in a dialect's table."""
        for route in routes:
            self.routes.append(route)
            prefix, brace, _ = route.pattern.partition("{")
            if brace:
                self._prefixes.append((prefix, route))
            else:
                self._exact[route.pattern] = route
        self._prefixes.sort(key=lambda pair: -len(pair[0]))

    def find(self, path: str) -> tuple[Optional[Route], str]:
        """The route for a raw path and what follows the pattern's fixed part."""
        route = self._exact.get(path)
        if route is None:
            for prefix, candidate in self._prefixes:
                if path.startswith(prefix):
                    return candidate, path[len(prefix):]
        return route, ""

# ============================================================================
# HTTP on sockets: strict parser, connections, followers, listeners, TLS
# ============================================================================
#
# A connection that waits (for a request, a slow head, a TLS handshake, a client that takes its time to read) is parked
# in one poller and costs memory only. A few followers each do: poll, take ONE ready connection, receive, parse, handle,
# answer, park. Who has a connection in hand is decided by one atomic `dict.pop` of `HTTPServer._parked`: followers,
# the reaper and wakers all claim it that way, and only the claimer touches it. Before a follower does what may block
# for long (bodies, streams, upgrades) it takes a slot of the pool, which lets another thread poll in its place.


@dataclasses.dataclass(frozen=True)
class HTTPLimits:
    """Every bound of the HTTP engine: seconds, bytes, counts."""

    head_timeout: float = 10.0              # a whole head: slow heads are the cheapest attack (CVE-2022-31028)
    idle_timeout: float = 75.0              # between two requests: as nginx, a little over what browsers keep
    handshake_timeout: float = 10.0
    read_timeout: float = 30.0              # nothing of a body for so long
    write_timeout: float = 30.0             # a client that takes nothing of an answer for so long
    body_min_rate: int = 1024               # bytes a second, looked at after each `body_window` spent waiting
    body_window: float = 30.0
    max_request_line: int = 8192            # RFC 9112, 3 wants 8,000 at least; nginx and Apache take 8 KiB
    max_head_bytes: int = 32768
    max_head_fields: int = 100              # Apache and http.client: 100
    max_trailer_bytes: int = 8192
    max_connections: int = 10_000
    max_connections_per_address: int = 4096
    max_upload_bytes: int = 10 * 1024**3
    workers: int = 3                        # measured: 2-4 are equal; more only fight for the interpreter's lock
    max_workers: int = 256                  # slow transfers included; each costs about 60 KiB
    pin_workers: str = "auto"
    backlog: int = 1024                     # http.server has 5: a burst of clients then waits 1 s for SYN again
    drain_bytes: int = 65536                # of a body that nobody read, before the connection is worth less than it
    handlers_wait: bool = True              # a handler may wait long for the disk although the body is all there (fsync)
    max_pipelined: int = 16                 # requests of one connection in a row, before others get their turn


RECEIVE = 16384                             # one TLS record; the largest sensible head fits twice
SMALL_FILE = 65536                          # up to here pread and one send beat sendfile
SENDFILE_STEP = 4 * 1024**2                 # 1-16 MiB a call are equal (performance.md)
BULK = 1024**2                              # from here a transfer is worth leaving the pinned core for
PATIENT_STEP = 0.5                          # s between two looks of a patient body at whether the server stops
PATIENCE = 0.05                             # s a sender waits for a client that lags, before it parks the answer
LINGER = 5.0                                # s in which a refused client may read why; nginx: lingering_timeout 5
DRAIN_PATIENCE = 0.1                        # s of silence after which the rest of an unread body is given up
TICK = 0.25                                 # s between two looks at deadlines
SPARE_SECONDS = 10.0                        # an idle spare thread ends after this
ACCEPT_BATCH = 64                           # connections in a row, before requests get their turn
MAX_EXTENSION_BYTES = 16384                 # chunk extensions of one body: CVE-2023-39326 fed gigabytes through them


# ---- heads ------------------------------------------------------------------------------------------------------

_TCHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# `#` never belongs into a target (RFC 9112, 3.2); proxies disagree about what follows it.
_REQUEST_LINE = re.compile(rf"({_TCHARS}) (/[^\x00-\x20#\x7f]*|\*|(?i:https?)://[^\x00-\x20#\x7f]+) (HTTP/1\.[01])")
_OTHER_VERSION = re.compile(r".* HTTP/(?!1\.[01]$)[0-9]+(?:\.[0-9]+)?")
_FIELD_BLOCK = re.compile(rf"(?:{_TCHARS}:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*".encode())
_TOKEN_START = re.compile(_TCHARS[:-1].encode())
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{0,5})?")
_ONCE = frozenset(("host", "content-length", "transfer-encoding"))     # a second one is how requests are smuggled


class HeadFields:
    """The parsed header lines of a request. A connection keeps the last, as clients repeat theirs byte for byte."""

    __slots__ = ("block", "headers", "memo", "content_length", "chunked", "has_body", "expects", "tokens")

    def __init__(self, block: bytes, headers: dict[str, str]) -> None:
        self.block, self.headers, self.memo = block, headers, {}     # type: bytes, dict[str, str], dict[str, Any]
        self.content_length = _content_length(headers.get("content-length"))
        self.chunked = _is_chunked(headers)
        self.has_body = self.chunked or bool(self.content_length)
        self.expects = headers.get("expect", "").lower()
        self.tokens = frozenset(part.strip(" \t").lower() for part in headers.get("connection", "").split(","))


class Head(NamedTuple):
    """The head of one request. `size` bytes of the input are behind us."""

    method: str
    target: str
    version: str
    fields: HeadFields
    size: int
    keep_alive: bool

    @property
    def headers(self) -> dict[str, str]:
        """Lower-case names to values; shared by equal heads, so read only."""
        return self.fields.headers

    @property
    def content_length(self) -> Optional[int]:
        """What was announced, None where nothing was."""
        return self.fields.content_length

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.fields.chunked

    @property
    def expect_continue(self) -> bool:
        """Whether the client waits for 100 before it sends the body; HTTP/1.0 can not (RFC 9110, 10.1.1)."""
        return bool(self.fields.expects) and self.version == "HTTP/1.1"

    @property
    def upgrade(self) -> str:
        """The protocol that the client would rather speak, in lower case, or ""."""
        return self.fields.headers.get("upgrade", "").lower() if "upgrade" in self.fields.tokens else ""


def parse_head(data: bytes, limits: HTTPLimits, known: Optional[HeadFields] = None) -> Optional[Head]:
    """The head at the start of `data`; None while it is incomplete. Raises what is to be answered before closing.

    `known` are the fields of the request before on this connection: equal bytes are not parsed twice.
    """
    start = 2 if data[:2] == b"\r\n" else 0             # RFC 9112, 2.2: one empty line before a request is skipped
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        _check_partial(data[start:], limits)
        return None
    cut = data.find(b"\r\n", start)
    if cut - start > limits.max_request_line:
        raise URITooLong()
    if end + 4 - start > limits.max_head_bytes:
        raise HeadersTooLarge()
    method, target, version = _parse_line(data[start:cut])
    block = data[cut + 2:end + 2]
    fields = known if known is not None and known.block == block else _parse_fields(block, limits)
    keep_alive = _check_version(version, fields)
    if target[0] != "/":
        target = _origin_form(method, target, fields)
    return Head(method, target, version, fields, end + 4, keep_alive)


def _check_partial(data: bytes, limits: HTTPLimits) -> None:
    """Refuse as soon as no continuation could make it right: nobody waits 10 s for a TLS hello to become HTTP."""
    cut = data.find(b"\r\n")
    if (cut if cut >= 0 else len(data) - 1) > limits.max_request_line:
        raise URITooLong()
    if len(data) > limits.max_head_bytes or data.count(b"\n") > limits.max_head_fields + 1:
        raise HeadersTooLarge()
    lines = data.count(b"\r\n")             # counting is 100 times as fast as a pattern: slow heads come here often
    if data.count(b"\n") != lines or data.count(b"\r") != lines + data.endswith(b"\r") or b"\0" in data:
        raise BadRequest("A line of the head ends without CRLF.")
    if data and data != b"\r" and not _TOKEN_START.match(data):
        raise BadRequest("This is no HTTP request.")
    if cut >= 0:
        _parse_line(data[:cut])


def _parse_line(line: bytes) -> tuple[str, str, str]:
    text = line.decode("latin-1")
    match = _REQUEST_LINE.fullmatch(text)
    if match is None:
        if _OTHER_VERSION.fullmatch(text):
            raise VersionNotSupported()
        raise BadRequest("The request line is malformed.")
    return match.groups()                   # type: ignore[return-value]


def _parse_fields(block: bytes, limits: HTTPLimits) -> HeadFields:
    if block.count(b"\n") > limits.max_head_fields:
        raise HeadersTooLarge(f"A request may have {limits.max_head_fields} header fields.")
    if not _FIELD_BLOCK.fullmatch(block):
        raise BadRequest("A header line is malformed.")
    headers: dict[str, str] = {}
    for line in block.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = _repeated(name, headers[name], value) if name in headers else value
    if "host" in headers and not _HOST.fullmatch(headers["host"]):
        raise BadRequest("The Host header is malformed.")
    return HeadFields(block, headers)


def _repeated(name: str, first: str, second: str) -> str:
    if name in _ONCE:
        raise BadRequest(f"The header {name} was sent twice.")
    return first + ("; " if name == "cookie" else ", ") + second       # RFC 6265, 5.4


def _content_length(text: Optional[str]) -> Optional[int]:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest("The Content-Length is malformed.")
    return int(text)


def _is_chunked(headers: Mapping[str, str]) -> bool:
    coding = headers.get("transfer-encoding")
    if coding is None:
        return False
    if coding.lower() != "chunked" or "content-length" in headers:
        raise BadRequest("Transfer-Encoding must be `chunked`, without a Content-Length.")
    return True


def _check_version(version: str, fields: HeadFields) -> bool:
    """Whether the connection may be kept. What is allowed in one version of HTTP only is refused here."""
    if version == "HTTP/1.1":
        if "host" not in fields.headers:
            raise BadRequest("HTTP/1.1 needs a Host header.")
        if fields.expects and fields.expects != "100-continue":
            raise ExpectationFailed()
        return "close" not in fields.tokens
    if fields.chunked:
        raise BadRequest("HTTP/1.0 has no chunked bodies.")
    return "keep-alive" in fields.tokens and "close" not in fields.tokens


def _origin_form(method: str, target: str, fields: HeadFields) -> str:
    """`http://host/path` as a proxy gets it (RFC 9112, 3.2.2), or `*` for OPTIONS (3.2.4)."""
    if target == "*":
        if method != "OPTIONS":
            raise BadRequest("Only OPTIONS may ask for *.")
        return target
    authority, slash, path = target.partition("://")[2].partition("/")
    authority, question, query = authority.partition("?")
    if authority.lower() != fields.headers.get("host", authority).lower() or not _HOST.fullmatch(authority):
        raise BadRequest("Target and Host header name different hosts.")
    return "/" + (question + query) + slash + path if question else "/" + path


# ---- bodies -----------------------------------------------------------------------------------------------------

_QUOTED = r'"(?:[^\x00-\x08\x0a-\x1f\x7f"\\]|\\[\t\x20-\x7e\x80-\xff])*"'
_CHUNK_LINE = re.compile(                   # RFC 9112, 7.1.1, without the white space that it calls bad itself
    rf"([0-9A-Fa-f]{{1,16}})((?:;{_TCHARS}(?:=(?:{_TCHARS}|{_QUOTED}))?)*)".encode("latin-1"))
_MAX_CHUNK_LINE = 1024


class ChunkDecoder:
    """The framing of a chunked body (RFC 9112, 7.1), without a socket. `left` bytes of the chunk are to come."""

    def __init__(self, max_trailer_bytes: int = 8192) -> None:
        self.left, self.done = 0, False
        self._trailer_room, self._extension_room = max_trailer_bytes, MAX_EXTENSION_BYTES
        self._next = self._size_line

    def decode(self, buffer: bytearray, view: memoryview) -> int:
        """Move bytes of the body from `buffer` to `view`; 0 when `done` or more input is needed. Raises BadRequest."""
        while not self.done and not self.left:
            if not self._next(buffer):
                return 0
        count = min(self.left, len(view), len(buffer))
        view[:count] = buffer[:count]
        del buffer[:count]
        self.left -= count
        return count

    def _size_line(self, buffer: bytearray) -> bool:
        line = _take_line(buffer, _MAX_CHUNK_LINE)
        if line is None:
            return False
        match = _CHUNK_LINE.fullmatch(line)
        self._extension_room -= len(match[2]) if match else 0
        if not match or self._extension_room < 0:
            raise BadRequest("A chunk size is malformed.")
        self.left = int(match[1], 16)
        self._next = self._chunk_end if self.left else self._trailer_line
        return True

    def _chunk_end(self, buffer: bytearray) -> bool:
        if len(buffer) < 2:                 # GHSA-vqfr-h8mv-ghfj: these two bytes were skipped unseen
            if buffer and buffer != b"\r":
                raise BadRequest("A chunk does not end where it said.")
            return False
        if buffer[:2] != b"\r\n":
            raise BadRequest("A chunk does not end where it said.")
        del buffer[:2]
        self._next = self._size_line
        return True

    def _trailer_line(self, buffer: bytearray) -> bool:
        line = _take_line(buffer, self._trailer_room)
        if line is None:
            return False
        self._trailer_room -= len(line) + 2
        if line and not _FIELD_BLOCK.fullmatch(line + b"\r\n"):
            raise BadRequest("A trailer is malformed.")
        self.done = not line                # trailers are read and dropped (RFC 9110, 6.5.1 allows no more by default)
        return True


def _take_line(buffer: bytearray, limit: int) -> Optional[bytes]:
    end = buffer.find(b"\n", 0, limit + 2)
    if end < 0:
        if len(buffer) > limit:
            raise BadRequest("A line of the chunked body is too long.")
        return None
    line = bytes(buffer[:end])
    del buffer[:end + 1]
    if line[-1:] != b"\r":
        raise BadRequest("A line of the chunked body ends without CR.")
    return line[:-1]


class SocketBody(Body):
    """A body straight from its connection. The thread that reads it may wait, so it holds a slot of the pool."""

    def __init__(self, connection: _Connection, head: Head) -> None:
        limits = connection.server.limits
        self._connection, self._limits, self._timeout = connection, limits, limits.read_timeout
        self.length = None if head.chunked else head.content_length
        self._left, self._total = head.content_length or 0, 0
        self._decoder = ChunkDecoder(limits.max_trailer_bytes) if head.chunked else None
        self._buffer = bytearray()          # of a chunked body: what came with its framing
        self._expects, self._begun, self._broken = head.expect_continue, False, False
        self._waited, self._moved = 0.0, 0  # in the present window of the least rate

    def readinto(self, view: memoryview) -> int:
        """Fill some of `view`. Raises Disconnected, RequestTimeout, PayloadTooLarge, BadRequest (chunk framing)."""
        try:
            if not self._begun:
                self._begin()
            return self._read_chunked(view) if self._decoder else self._read_plain(view)
        except CallFSError:
            self._broken = True
            raise

    def _begin(self) -> None:
        self._begun = True
        self._check_total(self._left)
        connection = self._connection
        if self._decoder:
            self._buffer, connection.buffer = bytearray(connection.buffer), b""
        if self._expects and not connection.buffer and not self._buffer:
            connection.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _check_total(self, coming: int) -> None:
        if self._total + coming > self._limits.max_upload_bytes and not self.patient:   # a stream may go on for days
            raise PayloadTooLarge(f"A body may have {self._limits.max_upload_bytes} bytes.")

    def _read_plain(self, view: memoryview) -> int:
        room, connection = min(self._left, len(view)), self._connection
        if not room:
            return 0
        if connection.buffer:
            count = min(room, len(connection.buffer))
            view[:count] = connection.buffer[:count]
            connection.buffer = connection.buffer[count:]
        else:
            count = self._receive(view[:room])
        self._left -= count
        return count

    def _read_chunked(self, view: memoryview) -> int:
        decoder, buffer = self._decoder, self._buffer
        assert decoder is not None
        count = decoder.decode(buffer, view)
        while not count and not decoder.done:
            self._check_total(decoder.left)
            if decoder.left:                # within a chunk: no copy
                count = self._receive(view[:decoder.left])
                decoder.left -= count
            else:
                scratch = memoryview(bytearray(4096))
                buffer += scratch[:self._receive(scratch)]
                count = decoder.decode(buffer, view)
        self._total += count
        self._check_total(decoder.left)
        if decoder.done:
            self._connection.buffer, self._buffer = bytes(buffer) + self._connection.buffer, bytearray()
        return count

    def _receive(self, view: memoryview) -> int:
        while True:
            try:
                count = self._connection.sock.recv_into(view)
            except _AGAIN as error:
                self._wait(_wanted(error))
                continue
            except OSError:
                count = 0
            if not count:
                raise Disconnected()
            self._moved += count
            return count

    def _wait(self, events: int) -> None:
        """Only time spent here counts against the client, not what the disk takes."""
        if self.patient:
            return self._wait_patiently(events)
        begin = time.perf_counter()
        if not wait_socket(self._connection.sock, events, self._timeout):
            raise RequestTimeout(f"Nothing of the body came for {self._timeout:g} s.")
        self._waited += time.perf_counter() - begin
        if self._waited >= self._limits.body_window:
            if self._moved < self._waited * self._limits.body_min_rate:
                raise RequestTimeout(f"The body came slower than {self._limits.body_min_rate} bytes a second.")
            self._waited, self._moved = 0.0, 0

    def _wait_patiently(self, events: int) -> None:
        """A pause ends with more bytes, with the client (one that vanished is found by keepalive), or with the server.

        Each paused sender holds one of `max_workers` threads: they bound how many there can be at once.
        """
        sock = self._connection.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE") and sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)       # not after the 2 hours of Linux
        while not wait_socket(sock, events, PATIENT_STEP):
            if self._connection.server.draining:
                raise Unavailable("The server is about to stop.")

    @property
    def complete(self) -> bool:
        """Whether every byte has been read."""
        return self._decoder.done if self._decoder else not self._left

    def finish(self) -> bool:
        """Drain a little of what nobody read; False when the connection must be closed instead.

        A client that was not told to continue may or may not send its body: what comes next can not be told from a
        request, so such a connection is never kept (RFC 9110, 10.1.1 leaves it open; desync attacks live there).
        """
        if self.complete:
            return True
        if self._broken or self._expects and not self._begun or self._left > self._limits.drain_bytes:
            return False
        self.patient = False
        self._timeout, room, scratch = DRAIN_PATIENCE, self._limits.drain_bytes, memoryview(bytearray(8192))
        end = time.perf_counter() + 10 * DRAIN_PATIENCE
        try:
            while not self.complete and room > 0 and time.perf_counter() < end:
                room -= self.readinto(scratch)
        except CallFSError:
            return False
        return self.complete


_NO_BODY = bytes_body(b"")                  # always at its end, so one is enough for everybody


# ---- sockets ----------------------------------------------------------------------------------------------------

READ, WRITE = 1, 4                          # the bits of EPOLLIN and EPOLLOUT
_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def _wanted(error: BaseException) -> int:
    """What to wait for after one of _AGAIN; BlockingIOError does not say, its callers know (`or`)."""
    return WRITE if isinstance(error, ssl.SSLWantWriteError) else READ


def wait_socket(sock: socket.socket, events: int, timeout: float) -> bool:
    """Wait until a socket is ready; False after `timeout` seconds. A closed socket counts as ready."""
    fd = sock.fileno()
    if fd < 0:
        return True
    if hasattr(select, "poll"):             # select() is limited to descriptors below 1,024
        poll = select.poll()
        poll.register(fd, events)
        return bool(poll.poll(max(0, math.ceil(timeout * 1000))))
    found = select.select([fd] if events & READ else [], [fd] if events & WRITE else [], [fd], max(0.0, timeout))
    return any(found)


class SocketDuplex:
    """The raw connection behind an upgrade (see `Duplex`). One thread may receive while another sends."""

    def __init__(self, sock: socket.socket, initial: bytes = b"") -> None:
        self._sock, self._buffer = sock, initial
        self._lock = threading.Lock()       # OpenSSL's objects do not bear two threads at once
        sock.setblocking(False)

    def receive(self, size: int, timeout: float) -> bytes:
        """Up to `size` bytes, b"" at the end. Raises Disconnected, also after `timeout` seconds of silence."""
        if self._buffer:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        return self._until(lambda: self._sock.recv(size), READ, timeout)

    def send(self, data: bytes, timeout: float) -> None:
        """All of `data`. Raises Disconnected, also when the peer takes nothing for `timeout` seconds."""
        view = memoryview(data)
        while view:
            view = view[self._until(lambda: self._sock.send(view), WRITE, timeout):]

    def _until(self, action: Callable[[], T], events: int, timeout: float) -> T:
        deadline = time.perf_counter() + timeout
        while True:
            try:
                with self._lock:
                    return action()
            except _AGAIN as error:
                wanted = events if isinstance(error, BlockingIOError) else _wanted(error)
            except (OSError, ValueError):   # ValueError: the TLS layer was shut down meanwhile
                raise Disconnected() from None
            if not wait_socket(self._sock, wanted, deadline - time.perf_counter()):
                raise Disconnected("The other side was silent for too long.")


class Poller(Protocol):
    """Reports each descriptor once; then it has to be armed again. Every method may be called from any thread."""

    def add(self, fd: int, events: int) -> None: ...

    def arm(self, fd: int, events: int) -> None: ...

    def wait(self, timeout: float) -> int: ...                  # a descriptor, or -1

    def close_socket(self, sock: socket.socket) -> None: ...    # forget it first, where that is needed

    def stop(self) -> None: ...                                 # from now on `wait` returns at once

    def close(self) -> None: ...


class EpollPoller:
    """Linux. Any number of threads wait at the same time; EPOLLONESHOT gives an event to one of them."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._alarm = os.pipe()
        self._epoll.register(self._alarm[0], READ)
        self._oneshot = select.EPOLLONESHOT

    def add(self, fd: int, events: int) -> None:
        """Begin to watch."""
        self._epoll.register(fd, events | self._oneshot)

    def arm(self, fd: int, events: int) -> None:
        """Watch again."""
        self._epoll.modify(fd, events | self._oneshot)

    def wait(self, timeout: float) -> int:
        """One ready descriptor, or -1."""
        found = self._epoll.poll(timeout, 1)
        return found[0][0] if found else -1

    def close_socket(self, sock: socket.socket) -> None:
        """The kernel forgets a closed descriptor."""
        sock.close()

    def stop(self) -> None:
        """The byte stays in the pipe, so that every waiter sees it."""
        os.write(self._alarm[1], b"\0")

    def close(self) -> None:
        """Let go of the descriptors."""
        self._epoll.close()
        os.close(self._alarm[0])
        os.close(self._alarm[1])


class SelectorPoller:
    """Everywhere else. One thread selects for all; the others queue for their turn, and changes go through a queue.

    Changes are not made beside a running `select`: BSD and Windows disagree about what happens then.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._orders: collections.deque[tuple[Union[int, socket.socket], int]] = collections.deque()
        self._ready: collections.deque[int] = collections.deque()
        self._turn, self._stopped = threading.Lock(), False
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        self._selector.register(self._inner, selectors.EVENT_READ)

    def add(self, fd: int, events: int) -> None:
        """Begin to watch."""
        self._order(fd, events)

    arm = add

    def close_socket(self, sock: socket.socket) -> None:
        """Closed by the thread that selects, when it has forgotten the descriptor."""
        self._order(sock, 0)

    def _order(self, target: Union[int, socket.socket], events: int) -> None:
        self._orders.append((target, events))
        self._nudge()

    def _nudge(self) -> None:
        try:
            self._outer.send(b"\0")
        except BlockingIOError:             # full of wake-ups already
            pass

    def wait(self, timeout: float) -> int:
        """One ready descriptor, or -1."""
        with self._turn:
            if not self._ready and not self._stopped:
                self._obey()
                self._select(timeout)
            return self._ready.popleft() if self._ready else -1

    def _obey(self) -> None:
        while self._orders:
            target, events = self._orders.popleft()
            if isinstance(target, int):
                self._register(target, (events & READ) | (events & WRITE) >> 1)
            else:
                self._forget(target.fileno())
                target.close()

    def _register(self, fd: int, events: int) -> None:
        try:
            self._selector.register(fd, events)
        except KeyError:
            self._selector.modify(fd, events)
        except OSError:                     # closed while the order was queued
            pass

    def _forget(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            pass

    def _select(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if key.fileobj is not self._inner:
                self._selector.unregister(key.fileobj)
                self._ready.append(key.fd)
            elif not self._stopped:
                self._inner.recv(4096)

    def stop(self) -> None:
        """Wake everybody, for good."""
        self._stopped = True
        self._nudge()

    def close(self) -> None:
        """Let go of the descriptors."""
        self._orders = collections.deque(order for order in self._orders if not isinstance(order[0], int))
        self._obey()
        self._selector.close()
        self._inner.close()
        self._outer.close()


# ---- threads ----------------------------------------------------------------------------------------------------

class FollowerPool:
    """The threads that poll and answer: `workers` of them polling, more where some are blocked.

    `enter` and `leave` stand around what may wait: another thread polls meanwhile. There is no slot any more when
    `max_workers` are reached, so that slow clients use up their own share only. `bulk` also lets the thread leave the
    pinned core: small requests are up to twice as fast on one core, where the interpreter's lock does not travel
    between caches, but copying megabytes wants the other one.
    """

    def __init__(self, run: Callable[[], None], limits: HTTPLimits, cores: Sequence[int] = ()) -> None:
        self._run, self._cores, self._every = run, cores, _allowed_cores()
        self.workers, self._most = limits.workers, max(limits.max_workers, limits.workers + 1)
        self.active, self.blocked, self.total, self._named = 0, 0, 0, 0
        self._lock = threading.Lock()
        self._spares: list[threading.Lock] = []
        self._threads: set[threading.Thread] = set()
        self._stopping = False

    def start(self) -> None:
        """Start the first followers."""
        self.active = self.total = self.workers
        for _ in range(self.workers):
            self._spawn()

    @contextlib.contextmanager
    def blocking(self) -> Iterator[None]:
        """Around what takes long without a body (a large listing). Raises Unavailable when there is no slot."""
        if not self.enter(False):
            raise Unavailable("Too many slow requests are under way; try again.")
        try:
            yield
        finally:
            self.leave(False)

    def enter(self, bulk: bool) -> bool:
        """Take a slot; False when there is none."""
        gate, spawn = None, False
        with self._lock:
            if self.blocked >= self._most - self.workers:
                return False
            self.blocked += 1
            self.active -= 1
            if self.active < self.workers:
                if self._spares:
                    gate = self._spares.pop()           # the last one in: the others may grow old and retire
                    self.active += 1
                elif self.total < self._most:
                    spawn = True
                    self.active += 1
                    self.total += 1
        if gate:
            gate.release()
        elif spawn:
            self._spawn()
        if bulk and self._cores:
            _bind_thread(self._every)
        return True

    def leave(self, bulk: bool) -> None:
        """Give the slot back."""
        with self._lock:
            self.blocked -= 1
            self.active += 1
        if bulk and self._cores:
            _bind_thread(self._cores)

    def rest(self) -> bool:
        """Called by a follower that finds one too many polling: sleep until needed; False: end, you are not."""
        gate = threading.Lock()
        gate.acquire()
        with self._lock:
            if self.active <= self.workers or self._stopping:
                return not self._stopping
            self.active -= 1
            self._spares.append(gate)
        if gate.acquire(timeout=SPARE_SECONDS):
            return True
        with self._lock:
            if gate in self._spares:
                self._spares.remove(gate)
                return False
        return True                         # woken in the last moment

    def _spawn(self) -> None:
        with self._lock:                    # started under it: `stop` must not meet a thread that it can not join yet
            self._named += 1
            thread = threading.Thread(target=self._main, name=f"callfs-follower-{self._named}", daemon=True)
            try:
                thread.start()
                self._threads.add(thread)
            except RuntimeError:            # the system has no thread left: go on with those that are there
                self.active -= 1
                self.total -= 1

    def _main(self) -> None:
        if self._cores:
            _bind_thread(self._cores)
        self._run()
        with self._lock:
            self.total -= 1

    def sweep(self) -> None:
        """Join the threads that have retired."""
        with self._lock:
            ended = [thread for thread in self._threads if thread.ident and not thread.is_alive()]
            self._threads.difference_update(ended)
        for thread in ended:
            thread.join()

    def stop(self) -> None:
        """Wake the spares and join every thread; `run` has to return by itself."""
        with self._lock:
            self._stopping = True
            gates, self._spares = self._spares, []
        for gate in gates:
            gate.release()
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join()
        self.sweep()


def _allowed_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _bind_thread(cores: Sequence[int]) -> None:
    try:
        os.sched_setaffinity(0, cores)      # 0 is the calling thread
    except OSError:                         # the cores were taken from us (cgroup): run where we may
        pass


def _pinned_cores(mode: str) -> Sequence[int]:
    """The core for small requests. By process number, so that several nodes on one machine do not share one."""
    cores = _allowed_cores()
    return [cores[os.getpid() % len(cores)]] if mode != "off" and len(cores) > 1 else ()


# ---- answers ----------------------------------------------------------------------------------------------------

class _HeadWriter:
    """Status line and date, rendered once a second for each status."""

    def __init__(self) -> None:
        self._second, self._lines = 0, {}   # type: int, dict[int, bytes]

    def first_lines(self, status: int) -> bytes:
        """What every answer begins with."""
        now = int(time.time())
        if now != self._second:
            self._lines, self._second = {}, now
        line = self._lines.get(status)
        if line is None:
            text = f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\nDate: {http_date(now)}\r\n"
            line = self._lines[status] = text.encode("latin-1")
        return line


def render_fields(headers: Sequence[tuple[str, str]]) -> bytes:
    """Header lines. Raises CallFSError for what would split the answer in two (CR, LF, NUL: CWE-113)."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\r") != len(headers) or text.count("\n") != len(headers) or "\0" in text:
        raise CallFSError("A header of the answer holds a control character.")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise CallFSError("A header of the answer is not Latin-1.") from None


def _bodiless(status: int) -> bool:
    return status < 200 or status == 204 or status == 304


_DONE, _PAUSED = 0, -1                      # outcomes of _Answer.run beside READ and WRITE
# What an answer is made of: bytes, a file (by sendfile, by read), a reader that may block, one that never does.
_PLAIN, _FILE, _COPY, _STREAM, _PUSHED = range(5)


class _Answer:
    """An answer that one `send` did not finish: the bytes in hand, and the reader that has more.

    A reader with a method `attach(wake)` is _PUSHED: its `read` never blocks, None means nothing yet, and it calls
    `wake()` when there is more. Events for a thousand listeners then take no thread.
    """

    __slots__ = ("request", "response", "close", "payload", "reader", "kind", "left", "chunked", "head_bytes", "sent",
                 "offset", "awake")

    def __init__(self, request: Optional[Request], response: Response, close: bool, payload: bytes, head_bytes: int,
                 reader: Optional[Reader], chunked: bool, sendfile: bool) -> None:
        self.request, self.response, self.close = request, response, close
        self.payload, self.head_bytes, self.sent = memoryview(payload), head_bytes, 0
        self.reader, self.chunked, self.awake = reader, chunked, False
        self.left = response.length if reader is not None else 0
        self.offset = reader.offset if reader is not None else 0
        self.kind = _kind_of(reader, self.left, sendfile)

    @property
    def may_block(self) -> bool:
        """Whether a thread has to be set aside for it."""
        return self.kind == _STREAM or self.response.upgrade is not None

    def run(self, connection: _Connection, patience: float) -> int:
        """Send. _DONE, or what to wait for: READ, WRITE, _PAUSED. Raises when the answer can not be completed."""
        budget = self.sent + BULK * 8 if not patience else 2**63
        while self.sent < budget:
            try:
                if self.payload:
                    flags = _MSG_MORE if self.kind == _FILE and self.left else 0
                    self._advance(connection.sock.send(self.payload, flags) if flags else
                                  connection.sock.send(self.payload))
                    continue
                more = self._send_file(connection.fd) if self.kind == _FILE else self._refill()
            except _AGAIN as error:
                events = WRITE if isinstance(error, BlockingIOError) else _wanted(error)
                if patience and wait_socket(connection.sock, events, patience):
                    continue
                return events
            if not more:
                return _PAUSED if more is None else _DONE
        return WRITE

    def _advance(self, count: int) -> None:
        self.sent += count
        self.payload = self.payload[count:]

    def _send_file(self, target: int) -> bool:
        assert self.reader is not None and self.left is not None
        if not self.left:
            return False
        try:
            count = os.sendfile(target, self.reader.fd, self.offset, min(self.left, SENDFILE_STEP))
        except OSError as error:
            if error.errno not in _NO_SENDFILE or self.offset != self.reader.offset:
                raise
            self.kind = _COPY               # a filesystem without it
            return True
        if not count:
            raise StorageError("The file became shorter while it was sent.")
        self.offset += count
        self.sent += count
        self.left -= count
        return True

    def _refill(self) -> Optional[bool]:
        """The next block of the reader: True; None: not yet; False: that was all."""
        if self.reader is None:
            return False
        block = self.reader.read(BLOCK)
        if block is None:
            return None
        if self.left is not None:
            self.left -= len(block)
            if self.left < 0 or self.left and not block:
                raise StorageError("The answer has another length than it announced.")
        self.payload = memoryview(_chunk(block, self.reader.trailers) if self.chunked else block)
        if not block or self.left == 0:
            self.release()
        return True

    def release(self) -> None:
        """Close the reader, once."""
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.close()


_MSG_MORE = getattr(socket, "MSG_MORE", 0)  # head and start of the file in one segment
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def _kind_of(reader: Optional[Reader], left: Optional[int], sendfile: bool) -> int:
    if reader is None:
        return _PLAIN
    if hasattr(reader, "attach"):
        return _PUSHED
    if reader.fd < 0 or left is None:
        return _STREAM
    return _FILE if sendfile else _COPY


def _chunk(block: bytes, trailers: Optional[Callable[[], list[tuple[str, str]]]] = None) -> bytes:
    """The empty one ends the body; behind its line stand the trailers (RFC 9112, 7.1.2)."""
    if not block and trailers:
        return b"0\r\n%b\r\n" % render_fields(trailers())
    return b"%x\r\n%b\r\n" % (len(block), block)


# ---- connections ------------------------------------------------------------------------------------------------

class _Connection:
    """One client. `step` is what to do when it is ready; whoever claimed the connection calls it."""

    __slots__ = ("server", "sock", "fd", "client", "scheme", "tls", "step", "events", "deadline", "buffer", "fields",
                 "answer", "heading", "lingers", "closed", "paused")

    def __init__(self, server: HTTPServer, sock: socket.socket, client: str, tls: bool) -> None:
        self.server, self.sock, self.fd, self.client = server, sock, sock.fileno(), client
        self.tls, self.scheme = tls, "https" if tls else "http"
        self.step: Callable[[], object] = self.on_handshake if tls else self.on_readable
        self.events, self.buffer = READ, b""
        self.deadline = time.perf_counter() + (server.limits.handshake_timeout if tls else server.limits.idle_timeout)
        self.fields: Optional[HeadFields] = None
        self.answer: Optional[_Answer] = None
        self.heading = False                # a head has begun to arrive
        self.lingers = False                # the client may still be sending when we close
        self.closed = self.paused = False

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return self.answer is None and not self.heading and not self.buffer

    def park(self, events: int, deadline: float) -> None:
        """Give the connection away until it is ready."""
        self.events, self.deadline = events, deadline
        self.server.park(self)

    # -- steps --

    def on_handshake(self) -> None:
        """TLS: a step of the handshake, as far as the client has come."""
        try:
            self.sock.do_handshake()        # type: ignore[attr-defined]
        except _AGAIN as error:
            self.park(_wanted(error), self.deadline)
        except OSError as error:
            if getattr(error, "reason", "") == "HTTP_REQUEST":     # past the TLS layer, as it never came to life
                self._try_send_raw(_PLAIN_ON_TLS)
            self.close()
        else:
            self.step = self.on_readable
            self.deadline = time.perf_counter() + self.server.limits.idle_timeout
            self.on_readable()

    def _try_send_raw(self, data: bytes) -> None:
        try:
            socket.socket.send(self.sock, data)
        except OSError:
            pass

    def on_readable(self) -> None:
        """The client has sent something, or left."""
        try:
            data = self.sock.recv(RECEIVE)
        except _AGAIN as error:
            self.park(_wanted(error), self.deadline)
            return
        except OSError:
            data = b""
        if data:
            self.serve(self.buffer + data if self.buffer else data)
        else:
            self.close()

    def on_turn(self) -> None:
        """Others have had their turn: go on with what was pipelined."""
        self.step = self.on_readable
        if self.buffer:
            self.serve(self.buffer)
        else:
            self.on_readable()

    def on_writable(self) -> None:
        if self.push():
            self.on_turn() if self.buffer else self.rest()

    def on_paused(self) -> None:
        """The client of a stream of events says something (ignored, bounded) or leaves."""
        self.paused = False
        try:
            data = self.sock.recv(RECEIVE)
        except _AGAIN:
            pass
        except OSError:
            data = b""
        else:
            self.buffer += data
        if not data or len(self.buffer) > RECEIVE * 4:
            self.fail(None)
        else:
            self.pause()

    def on_lingering(self) -> None:
        """Swallow what a refused client still sends, so that no reset overtakes our answer."""
        try:
            data = self.sock.recv(BLOCK)
        except _AGAIN:
            data = b"."
        except OSError:
            data = b""
        if data:
            self.park(READ, self.deadline)
        else:
            self.close()

    def expire(self) -> None:
        """The deadline has passed. Who has begun a head is told why."""
        if self.heading and self.answer is None and self.step == self.on_readable:
            self.refuse(RequestTimeout("The head of the request came too slowly."))
        elif self.answer is not None:
            self.fail(None)
        else:
            self.close()

    # -- requests --

    def serve(self, data: bytes) -> None:
        """Answer the requests that are whole in `data`, then park."""
        limits = self.server.limits
        for _ in range(limits.max_pipelined):
            try:
                head = parse_head(data, limits, self.fields)
            except CallFSError as error:
                self.refuse(error)
                return
            if head is None:
                self.await_head(data)
                return
            self.fields, self.buffer, self.heading = head.fields, data[head.size:], False
            if not self.exchange(head):
                return
            data = self.buffer
            if not data:
                self.rest()
                return
        self._queue()

    def await_head(self, data: bytes) -> None:
        if not self.heading:
            self.heading = True
            self.deadline = time.perf_counter() + self.server.limits.head_timeout
        self.buffer = data
        self.park(READ, self.deadline)

    def rest(self) -> None:
        """Nothing to do until the client speaks. What the TLS layer holds back the poller does not see."""
        self.step = self.on_readable
        self.deadline = time.perf_counter() + self.server.limits.idle_timeout
        if self.tls and self.sock.pending():            # type: ignore[attr-defined]
            self._queue()
        else:
            self.park(READ, self.deadline)

    def _queue(self) -> None:
        """To the end of the poller's queue: a socket is nearly always writable."""
        self.step = self.on_turn
        self.park(WRITE, time.perf_counter() + self.server.limits.write_timeout)

    def exchange(self, head: Head) -> bool:
        """One request and its answer; True when the next one may follow at once."""
        fields = head.fields
        if fields.has_body:
            return self._exchange_body(head)
        request = Request(head.method, head.target, fields.headers, _NO_BODY, client=self.client, scheme=self.scheme,
                          version=head.version, memo=fields.memo)
        request.blocking, self.lingers = self.server.pool.blocking, False
        return self.reply(request, self.server.app.handle(request), not head.keep_alive)

    def _exchange_body(self, head: Head) -> bool:
        server, body = self.server, SocketBody(self, head)
        request = Request(head.method, head.target, head.fields.headers, body, client=self.client, scheme=self.scheme,
                          version=head.version, memo=head.fields.memo)
        bulk, self.lingers = body.length is None or body.length > BULK, True
        waits = server.limits.handlers_wait or body.length is None or body.length > len(self.buffer)
        if waits and not server.pool.enter(bulk):
            return self.reply(request, server.busy(), True)
        if not waits:                       # else it has its slot already
            request.blocking = server.pool.blocking
        try:
            response = server.app.handle(request)
            self.lingers = not body.finish()
        finally:
            if waits:
                server.pool.leave(bulk)
        return self.reply(request, response, self.lingers or not head.keep_alive)

    def refuse(self, error: CallFSError) -> None:
        """Answer what never became a request, and close so that the client can read it."""
        self.buffer, self.heading, self.lingers = b"", False, True
        self.reply(None, self.server.app.error(error), True)

    # -- answers --

    def reply(self, request: Optional[Request], response: Response, close: bool) -> bool:
        """Send an answer, or as much as goes out now; True when it is through and the connection stays."""
        server, reader = self.server, None
        if response.close or server.draining:
            close = self.lingers = True
        try:
            head, chunked, close = self._head(request, response, close)
            body = response.body
            if _bodiless(response.status) or request is not None and request.method == "HEAD":
                payload = head
                _close_body(body)
            elif isinstance(body, Reader):
                small = _small_file(body)
                payload, reader = (head, body) if small is None else (head + small, None)
            else:
                payload = head + body if body else head
        except (CallFSError, OSError) as error:
            return self._reply_failure(request, response, error)
        if reader is None and response.upgrade is None:
            try:
                sent = self.sock.send(payload)
            except _AGAIN:
                sent = 0
            except OSError:
                return self._gone(request, response)
            if sent == len(payload):
                self._finished(request, response, sent - len(head))
                return not close or self.part()
            payload, head = payload[sent:], head[sent:]
        self.answer = _Answer(request, response, close, payload, len(head), reader, chunked, self._may_sendfile())
        if self.answer.kind == _PUSHED:
            reader.attach(self.wake)        # type: ignore[union-attr]
        return self.push()

    def _may_sendfile(self) -> bool:
        """Not to a client on this machine: its core then fetches cold pages, which two copies here spare it.

        Measured on loopback, 256 MiB: sendfile 1.6 GB/s (nginx 1.6), pread and send of 256 KiB 2.3 GB/s. Over a
        network card the copies are what costs.
        """
        return _SENDFILE and not self.tls and (self.server.sendfile_locally or not self.client.startswith(_LOCAL))

    def _head(self, request: Optional[Request], response: Response, close: bool) -> tuple[bytes, bool, bool]:
        """The rendered head, whether the body goes in chunks, and whether the connection ends after it."""
        status, length, chunked = response.status, response.length, False
        old, framing = request is not None and request.version == "HTTP/1.0", b""
        if _bodiless(status):
            pass
        elif length is not None:
            framing = b"Content-Length: %d\r\n" % length
        elif old:
            close = True                    # the end of the connection is the end of the body
        else:
            chunked, framing = True, b"Transfer-Encoding: chunked\r\n"
            if isinstance(response.body, Reader) and response.body.trailers:
                names = ", ".join(name for name, _ in response.body.trailers())
                framing += render_fields([("Trailer", names)])
        if status != 101:
            framing += b"Connection: close\r\n\r\n" if close else b"Connection: keep-alive\r\n\r\n" if old else b"\r\n"
        else:
            framing = b"\r\n"
        fields = render_fields(response.headers) if response.headers else b""
        return self.server.head_writer.first_lines(status) + response.block + fields + framing, chunked, close

    def _reply_failure(self, request: Optional[Request], response: Response, error: Exception) -> bool:
        """Nothing has been sent yet: an honest error is still possible."""
        _close_body(response.body)
        self.server.log.error(f"an answer could not be sent: {error}")
        failed = error if isinstance(error, CallFSError) else translate_os_error(error)     # type: ignore[arg-type]
        return self.reply(request, self.server.app.error(failed), True)

    def _gone(self, request: Optional[Request], response: Response) -> bool:
        self._finished(request, response, 0)
        self.close()
        return False

    def _finished(self, request: Optional[Request], response: Response, sent: int) -> None:
        seconds = time.perf_counter() - request.started if request is not None else 0.0
        self.server.app.finished(request, response, max(0, sent), seconds, self.client)

    def push(self) -> bool:
        """Go on with an answer; True when it is through and the connection stays."""
        answer, pool = self.answer, self.server.pool
        assert answer is not None
        # Large files take a slot where there is one, to be sent from another core; else they go in small turns.
        entered = (answer.may_block or (answer.left or 0) > BULK) and pool.enter(True)
        if answer.may_block and not entered:
            return self._no_slot(answer)
        try:
            outcome = answer.run(self, PATIENCE if entered else 0.0)
            if outcome == _DONE and answer.response.upgrade is not None:
                self._upgrade(answer.response.upgrade)
        except Exception as error:          # readers may raise anything: never a wrong end, never a dead follower
            self.fail(error)
            return False
        finally:
            if entered:
                pool.leave(True)
        return self._outcome(answer, outcome)

    def _outcome(self, answer: _Answer, outcome: int) -> bool:
        if outcome == _DONE:
            self.answer = None
            answer.release()
            self._finished(answer.request, answer.response, answer.sent - answer.head_bytes)
            if answer.response.upgrade is not None:
                self.buffer, answer.close, self.lingers = b"", True, True      # a close frame must not meet a reset
            return not answer.close or self.part()
        if outcome == _PAUSED:
            self.pause()
        else:
            self.step = self.on_writable
            self.park(outcome, time.perf_counter() + self.server.limits.write_timeout)
        return False

    def _upgrade(self, serve: Callable[[Duplex], None]) -> None:
        try:
            serve(SocketDuplex(self.sock, self.buffer))
        except CallFSError:                 # cut off, or told so by a close frame
            pass

    def _no_slot(self, answer: _Answer) -> bool:
        if answer.sent:                     # in the middle: the next tick tries again
            self.step = self.on_writable
            self.server.defer(self)
            return False
        answer.release()
        self.answer, self.lingers = None, True
        return self.reply(answer.request, self.server.busy(), True)

    def pause(self) -> None:
        """Wait for the reader's `wake` or for the client's end, without a thread."""
        answer = self.answer
        assert answer is not None
        self.step, self.paused = self.on_paused, True
        self.park(READ, math.inf)
        if answer.awake and self.server.claim(self):
            self._resume()

    def wake(self) -> None:
        """The reader has more. May be called by any thread, also when the answer is long through."""
        answer = self.answer
        if answer is not None and not self.closed:
            answer.awake = True
            if self.paused and self.server.claim(self):
                self._resume()

    def _resume(self) -> None:
        """With the connection in hand; it may be in another state by now than the waker saw."""
        if self.paused and self.answer is not None:
            self.paused = self.answer.awake = False
            self.step = self.on_writable
            self.park(WRITE, time.perf_counter() + self.server.limits.write_timeout)
        else:
            self.park(self.events, self.deadline)

    def send_all(self, data: bytes) -> None:
        """A few bytes out of turn (100 Continue). Raises Disconnected."""
        SocketDuplex(self.sock).send(data, self.server.limits.write_timeout)

    # -- ends --

    def fail(self, error: Optional[BaseException]) -> None:
        """Cut an answer short. A reset: nobody may take half a body for a whole one (RFC 9112, 8)."""
        answer, self.answer = self.answer, None
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError, ssl.SSLError, Disconnected)):
            self.server.log.exception(f"an answer was cut: {error.__class__.__name__}")
        if answer is not None:
            try:
                answer.release()
            finally:
                self._finished(answer.request, answer.response, answer.sent - answer.head_bytes)
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass
        self.close()

    def recover(self) -> None:
        """After a bug in `step`: this connection is lost."""
        self.fail(None)

    def part(self) -> bool:
        """Close after an answer; always False. With unread input, close() would reset and the answer be lost."""
        if not self.lingers and not self.buffer and not self.tls:
            self.close()
            return False
        try:
            if self.tls:
                self.sock.unwrap()          # type: ignore[attr-defined]
        except (OSError, ValueError):       # it would wait for the client's own goodbye
            pass
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return False
        self.step, self.buffer, self.heading = self.on_lingering, b"", False
        self.park(READ, time.perf_counter() + LINGER)
        return False

    def close(self) -> None:
        """Let go of the socket, once."""
        if not self.closed:
            self.closed = True
            self.server.forget(self)


_SENDFILE = hasattr(os, "sendfile")
_LOCAL = ("127.", "::1", "unix")
_RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
_PLAIN_ON_TLS = (b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 31\r\n"
                 b"Connection: close\r\n\r\nThis port speaks https://, TLS.")


def _close_body(body: Union[bytes, Reader, None]) -> None:
    if isinstance(body, Reader):
        body.close()


def _small_file(reader: Reader) -> Optional[bytes]:
    """All of a small file, closed; None where the answer has to be streamed. Raises StorageError, OSError."""
    length = reader.length
    if reader.fd < 0 or length is None or length > SMALL_FILE:
        return None
    data = pread(reader.fd, length, reader.offset)
    if len(data) != length:
        raise StorageError("The file became shorter while it was read.")
    reader.close()
    return data


# ---- the server -------------------------------------------------------------------------------------------------

class App(Protocol):
    """What the engine serves. None of these may raise."""

    def handle(self, request: Request) -> Response: ...

    def error(self, error: CallFSError) -> Response: ...        # for what failed before there was a request

    def finished(self, request: Optional[Request], response: Response, sent: int, seconds: float,
                 client: str) -> None: ...                      # once for each answer; `sent` bytes of its body


class _Listener:
    """A listening socket, parked like a connection."""

    deadline, events, idle, closed = math.inf, READ, True, False

    def __init__(self, server: HTTPServer, sock: socket.socket, path: str = "") -> None:
        self.server, self.sock, self.fd, self.path = server, sock, sock.fileno(), path
        self.unix = sock.family not in (socket.AF_INET, socket.AF_INET6)
        sock.setblocking(False)

    def step(self) -> None:
        """Accept what is there."""
        for _ in range(ACCEPT_BATCH):
            try:
                sock, address = self.sock.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _NO_ROOM:             # at once again would spin
                    self.server.log.error(f"no connection can be accepted: {error.strerror}")
                    self.server.defer(self)
                    return
                continue                                # the client has gone already
            self.server.admit(sock, "unix" if self.unix else _plain_address(address[0]))
        self.server.park(self)

    def address(self) -> ListenAddress:
        """Where it listens, with the real port."""
        name = self.sock.getsockname()
        return ListenAddress("unix", path=name) if self.unix else ListenAddress("tcp", name[0], name[1])

    def close(self) -> None:
        """Stop accepting, once; a unix socket's file goes too."""
        if not self.closed:
            self.closed = True
            self.server.poller.close_socket(self.sock)
            if self.path:
                with contextlib.suppress(OSError):
                    os.unlink(self.path)

    def recover(self) -> None:
        """After a bug in `step`: go on a little later."""
        self.server.defer(self)


_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def _plain_address(host: str) -> str:
    return host[7:] if host.startswith("::ffff:") and "." in host else host        # IPv4 on a dual-stack socket


def open_listener(address: ListenAddress, backlog: int, unix_mode: int = 0o660) -> socket.socket:
    """A listening socket. Raises ConfigError when the address can not be had."""
    try:
        if address.kind == "unix":
            return _listen_unix(address.path, backlog, unix_mode)
        return _listen_tcp(address.host, address.port, backlog)
    except OSError as error:
        where = address.path or f"{address.host}:{address.port}"
        raise ConfigError(f"can not listen on {where}: {error.strerror or error}") from None


def _listen_tcp(host: str, port: int, backlog: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):       # IPv6 is compiled in but off
                raise
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = min(found, key=lambda row: row[0] != socket.AF_INET)  # localhost: what clients try first
    return socket.create_server(where[:2] if family == socket.AF_INET else where, family=family, backlog=backlog)


def _listen_unix(path: str, backlog: int, mode: int) -> socket.socket:
    """Mode before `listen`: until then nobody can connect, so there is no moment with another one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _unlink_stale(path)
        sock.bind(path)
        os.chmod(path, mode)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _unlink_stale(path: str) -> None:
    """Remove what a killed server left; OSError when somebody answers there or it is no socket."""
    if not os.path.exists(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
                return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


class HTTPServer(http.server.ThreadingHTTPServer):
    """Serves an `App` on every address of `listen` and every socket of `inherited`, over TLS where `tls` is given.

    `tls` makes an `ssl.SSLContext`; `reload_tls` calls it again. `log` needs `error` and `exception`, each taking one
    text. The base class is there for who expects one; its thread per connection is not used.
    """

    sendfile_locally = False                # see _Connection._may_sendfile

    def __init__(self, app: App, limits: HTTPLimits = HTTPLimits(), listen: Sequence[ListenAddress] = (), *,
                 tls: Optional[Callable[[], ssl.SSLContext]] = None, inherited: Sequence[socket.socket] = (),
                 log: Any = None, unix_mode: int = 0o660, poller: Optional[Poller] = None) -> None:
        self.app, self.limits, self.log = app, limits, log or logging.getLogger("callfs")
        self._tls, self._context = tls, tls() if tls else None
        self.poller: Poller = poller or (EpollPoller() if hasattr(select, "epoll") else SelectorPoller())
        self.pool = FollowerPool(self._follow, limits, _pinned_cores(limits.pin_workers))
        self.head_writer, self.draining = _HeadWriter(), False
        self._parked: dict[int, Any] = {}   # descriptor -> _Connection or _Listener that nobody has in hand
        self._connections: set[_Connection] = set()
        self._addresses: dict[str, int] = {}
        self._changed = threading.Condition()
        self._deferred: collections.deque[Any] = collections.deque()
        self._stop, self._closed = threading.Event(), False
        self._reaper = threading.Thread(target=self._reap, name="callfs-reaper", daemon=True)
        self._listeners: list[_Listener] = []
        try:
            self._listen(listen, inherited, unix_mode)
        except BaseException:
            self.server_close()
            raise
        super(socketserver.TCPServer, self).__init__(self._name(), http.server.BaseHTTPRequestHandler)

    def _listen(self, listen: Sequence[ListenAddress], inherited: Sequence[socket.socket], unix_mode: int) -> None:
        for address in listen:
            sock = open_listener(address, self.limits.backlog, unix_mode)
            self._listeners.append(_Listener(self, sock, address.path))
        self._listeners += [_Listener(self, sock) for sock in inherited]

    def _name(self) -> tuple[str, int]:
        """What users of the base class look at."""
        if self._listeners:
            self.socket = self._listeners[0].sock
        first = next(iter(self.addresses), ListenAddress("tcp"))
        self.server_name, self.server_port = first.host or first.path, first.port
        return self.server_name, first.port

    @property
    def addresses(self) -> list[ListenAddress]:
        """Where the server listens, with real ports."""
        return [listener.address() for listener in self._listeners if not listener.closed]

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def reload_tls(self) -> None:
        """Use a new certificate for connections that come from now on. Raises what the factory raises."""
        if self._tls:
            self._context = self._tls()

    # -- life --

    def start(self) -> None:
        """Begin to serve; returns at once."""
        for listener in self._listeners:
            self._parked[listener.fd] = listener
            self.poller.add(listener.fd, READ)
        self.pool.start()
        self._reaper.start()

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Start, where that has not been done, and wait for `shutdown` or `server_close`."""
        if not self._reaper.is_alive() and not self._stop.is_set():
            self.start()
        self._stop.wait()

    def shutdown(self) -> None:
        """Let `serve_forever` return; `server_close` ends the threads."""
        self._stop.set()

    def drain(self, timeout: float) -> bool:
        """Accept nothing more, close idle connections, let running requests end; True when none is left."""
        self.draining = True
        self._close_listeners()
        for connection in self._parked.copy().values():
            if connection.idle and self.claim(connection):
                connection.close()
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, timeout)

    def server_close(self) -> None:
        """Cut what is still open, join every thread, close every socket. Safe to call twice."""
        if self._closed:
            return
        self._closed = self.draining = True
        self._stop.set()
        self._close_listeners()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):          # wakes threads that wait for it
                connection.sock.shutdown(socket.SHUT_RDWR)
        self.poller.stop()
        self.pool.stop()
        if self._reaper.is_alive():
            self._reaper.join()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.fail(None)
        self.poller.close()

    def _close_listeners(self) -> None:
        """One that a follower has in hand it closes itself, when it parks it."""
        for listener in self._listeners:
            if self.claim(listener):
                listener.close()

    # -- who has a connection in hand --

    def park(self, parked: Any) -> None:
        """Give it back. The last lines: `drain` looked for idle ones before this one was there."""
        events = parked.events
        self._parked[parked.fd] = parked
        with contextlib.suppress(OSError):  # between these two lines somebody may claim and close it,
            self.poller.arm(parked.fd, events)
            if parked.events != events:     # or claim it and park it for something else before we armed it
                self.poller.arm(parked.fd, parked.events)
        if self.draining and parked.idle and self.claim(parked):
            parked.close()

    def claim(self, parked: Any) -> bool:
        """Take it in hand, unless somebody else has."""
        found = self._parked.pop(parked.fd, None)
        if found is not None and found is not parked:   # its descriptor has been given to another one
            self.park(found)
        return found is parked

    def defer(self, parked: Any) -> None:
        """Keep it aside until the next tick."""
        self._deferred.append(parked)

    def admit(self, sock: socket.socket, client: str) -> None:
        """Take in a new connection, or close it when there are too many."""
        with self._changed:
            count = self._addresses.get(client, 0)
            full = self.draining or len(self._connections) >= self.limits.max_connections
            if full or client != "unix" and count >= self.limits.max_connections_per_address:
                sock.close()
                return
            self._addresses[client] = count + 1
            try:
                connection = _Connection(self, self._prepare(sock, client), client, self._context is not None)
            except OSError:                 # reset before we came to it
                self._release_address(client)
                sock.close()
                return
            self._connections.add(connection)
        self._parked[connection.fd] = connection
        with contextlib.suppress(OSError):  # `drain` may have closed it already
            self.poller.add(connection.fd, READ)

    def _prepare(self, sock: socket.socket, client: str) -> socket.socket:
        sock.setblocking(False)
        if client != "unix":                # Nagle against delayed ACK: 44 ms a request (performance.md)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is None:
            return sock
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def forget(self, connection: _Connection) -> None:
        """Close a connection that is in hand."""
        with self._changed:
            self._connections.discard(connection)
            self._release_address(connection.client)
            self._changed.notify_all()
        self.poller.close_socket(connection.sock)

    def _release_address(self, client: str) -> None:
        count = self._addresses.get(client, 0) - 1
        if count > 0:
            self._addresses[client] = count
        else:
            self._addresses.pop(client, None)

    def busy(self) -> Response:
        """What a request gets when it would need a thread and there is none."""
        return self.app.error(Unavailable("Too many slow requests are under way; try again."))

    # -- threads --

    def _follow(self) -> None:
        wait, parked, pool = self.poller.wait, self._parked, self.pool
        while not self._closed:
            if pool.active > pool.workers and not pool.rest():
                return
            ready = parked.pop(wait(1.0), None)
            if ready is not None:
                try:
                    ready.step()
                except Exception:           # a bug here costs one connection, not a follower
                    self.log.exception("a connection failed")
                    ready.recover()

    def _reap(self) -> None:
        while not self._stop.wait(TICK):
            try:
                self._tick(time.perf_counter())
            except Exception:
                self.log.exception("the reaper failed")

    def _tick(self, now: float) -> None:
        for _ in range(len(self._deferred)):
            deferred = self._deferred.popleft()
            deferred.events = WRITE if isinstance(deferred, _Connection) else READ
            self.park(deferred)
        for parked in self._parked.copy().values():
            if parked.deadline < now and self.claim(parked):
                parked.expire()
        self.pool.sweep()


# ============================================================================
# WebSocket: RFC 6455
# ============================================================================

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))     # 7.4: what may be sent
_CLOSE_WAIT = 5.0                           # s for the other side's half of the closing handshake
_MAX_REASON = 123                           # a control frame has 125 bytes, two of them the code


class WebSocketError(BadRequest):
    """The other side broke the protocol. `close_code` says how (RFC 6455, 7.4.1)."""

    def __init__(self, close_code: int, message: str) -> None:
        super().__init__(message)
        self.close_code = close_code


def websocket_accept(key: str) -> str:
    """`Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


def websocket_handshake(request: Request) -> list[tuple[str, str]]:
    """The headers of the 101. Raises UpgradeRequired (no WebSocket, other version), BadRequest (RFC 6455, 4.2.1)."""
    headers = request.headers
    wanted = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    if not _has_token(headers, "upgrade", "websocket") or not _has_token(headers, "connection", "upgrade"):
        raise UpgradeRequired(headers=[*wanted, ("Connection", "Upgrade")])
    if headers.get("sec-websocket-version") != "13":
        raise UpgradeRequired("Only version 13 of the WebSocket protocol is spoken here.", headers=wanted)
    if request.method != "GET" or request.version != "HTTP/1.1" or request.body.length != 0:
        raise BadRequest("A WebSocket handshake is a GET of HTTP/1.1 without a body.")
    key = headers.get("sec-websocket-key", "")
    if not _WEBSOCKET_KEY.fullmatch(key):
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64.")
    return [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", websocket_accept(key))]


_WEBSOCKET_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")      # the last digit holds two bits of the 16 bytes


def _has_token(headers: Mapping[str, str], name: str, token: str) -> bool:
    return token in (part.strip().lower() for part in headers.get(name, "").split(","))


def mask_bytes(data: bytes, key: bytes, phase: int = 0) -> bytes:
    """XOR with the four bytes of `key` from its byte `phase` on. As one big integer: 1 GB/s, a loop has 0.02."""
    count = len(data)
    pattern = ((key[phase:] + key[:phase]) * (count // 4 + 1))[:count]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")).to_bytes(count, "little")


def encode_frame(opcode: int, payload: bytes, *, mask: bytes = b"", final: bool = True) -> bytes:
    """One frame (RFC 6455, 5.2); clients give four random bytes as `mask`."""
    first, size, flag = opcode | (0x80 if final else 0), len(payload), 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", first, flag | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    return head + mask + (mask_bytes(payload, mask) if mask else payload)


class FrameParser:
    """Bytes in, events out: (TEXT, str), (BINARY, bytes), (PING, bytes), (PONG, bytes), (CLOSE, (code, reason)).

    Fragments come out as one message; nothing is taken in beyond `max_message`. Everything wrong raises
    WebSocketError as soon as it can be seen, in text at the first byte that is no UTF-8.
    """

    def __init__(self, *, masked: bool = True, max_message: int = 1024**2) -> None:
        self._masked, self._max = masked, max_message
        self._buffer, self._closed = bytearray(), False
        self._opcode, self._final, self._left, self._key, self._phase = -1, False, 0, b"", 0
        self._control = bytearray()
        self._kind, self._size, self._data = 0, 0, bytearray()         # the message under way; kind 0: none
        self._text: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def feed(self, data: bytes) -> None:
        """Take in bytes; `next_event` tells what they mean."""
        self._buffer += data

    def next_event(self) -> Optional[tuple[int, Any]]:
        """The next event; None when more bytes are needed or the other side has closed."""
        while not self._closed:
            if self._opcode < 0 and not self._begin_frame():
                return None
            self._take_payload()
            if self._left:
                return None
            event = self._end_control() if self._opcode >= CLOSE else self._end_data()
            self._opcode = -1
            if event:
                return event
        return None

    def _begin_frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) >= 2:                # before the rest is here: wrong stays wrong
            self._check_frame(buffer[0], buffer[1])
        size = 2 + (4 if self._masked else 0) + ({126: 2, 127: 8}.get(buffer[1] & 0x7F, 0) if len(buffer) > 1 else 0)
        if len(buffer) < size:
            return False
        length, position = buffer[1] & 0x7F, size - (4 if self._masked else 0)
        if length > 125:
            length = int.from_bytes(buffer[2:position], "big")
        self._check_length(buffer[0] & 15, length)
        self._opcode, self._final, self._left = buffer[0] & 15, bool(buffer[0] & 0x80), length
        self._key, self._phase = bytes(buffer[position:size]), 0
        del buffer[:size]
        return True

    def _check_frame(self, first: int, second: int) -> None:
        opcode, control = first & 15, first & 8
        if first & 0x70 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise WebSocketError(1002, "A frame has reserved bits or an unknown opcode.")
        if bool(second & 0x80) != self._masked:         # 5.1: clients mask, servers do not
            raise WebSocketError(1002, "A frame is masked the wrong way.")
        if control and (not first & 0x80 or second & 0x7F > 125):
            raise WebSocketError(1002, "A control frame is too long or in fragments.")
        if not control and (opcode == CONTINUATION) != bool(self._kind):
            raise WebSocketError(1002, "A fragment is out of place.")

    def _check_length(self, opcode: int, length: int) -> None:
        if length >> 63:
            raise WebSocketError(1002, "A frame's length is negative.")
        if opcode < CLOSE and self._size + length > self._max:
            raise WebSocketError(1009, f"A message may have {self._max} bytes.")

    def _take_payload(self) -> None:
        data = bytes(self._buffer[:self._left])
        del self._buffer[:len(data)]
        self._left -= len(data)
        if self._key and data:
            data = mask_bytes(data, self._key, self._phase)
            self._phase = (self._phase + len(data)) % 4
        if self._opcode >= CLOSE:
            self._control += data
        else:
            self._kind = self._kind or self._opcode
            self._take_data(data)

    def _take_data(self, data: bytes) -> None:
        self._size += len(data)
        if self._kind == BINARY:
            self._data += data
            return
        try:
            self._text.append(self._decoder.decode(data, self._final and not self._left))
        except UnicodeDecodeError:
            raise WebSocketError(1007, "A text message is not UTF-8.") from None

    def _end_data(self) -> Optional[tuple[int, Any]]:
        if not self._final:
            return None
        kind = self._kind
        message: Union[str, bytes] = bytes(self._data) if kind == BINARY else "".join(self._text)
        self._kind, self._size, self._data, self._text = 0, 0, bytearray(), []
        self._decoder.reset()
        return kind, message

    def _end_control(self) -> tuple[int, Any]:
        payload, self._control = bytes(self._control), bytearray()
        if self._opcode != CLOSE:
            return self._opcode, payload
        self._closed = True
        return CLOSE, _parse_close(payload)


def _parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason; 1005 stands for none (RFC 6455, 7.1.5)."""
    if not payload:
        return 1005, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or code not in _CLOSE_CODES:
        raise WebSocketError(1002, "A close frame has no valid code.")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise WebSocketError(1007, "The reason of a close frame is not UTF-8.") from None


class WebSocket:
    """Messages over a `Duplex` after the handshake; `client` is the side that masks.

    Any thread may send, one receives. `close_code` is what the other side closed with, None while it has not.
    """

    def __init__(self, duplex: Duplex, *, client: bool = False, max_message: int = 1024**2,
                 timeout: float = 60.0) -> None:
        self._duplex, self._client, self._timeout = duplex, client, timeout
        self._parser = FrameParser(masked=not client, max_message=max_message)
        self._lock, self._said_goodbye = threading.Lock(), False
        self.close_code: Optional[int] = None
        self.close_reason = ""

    def receive(self) -> Union[bytes, str, None]:
        """The next message; None when the other side has closed: then `close` answers. Pings are answered on the way.

        Raises Disconnected when the connection was cut or silent for `timeout` seconds, and WebSocketError, after
        telling the other side, when that broke the protocol.
        """
        while self.close_code is None:
            event = self._next_event()
            if event is not None and event[0] in (TEXT, BINARY):
                return event[1]
            if event is not None:
                self._control(*event)
        return None

    def _next_event(self) -> Optional[tuple[int, Any]]:
        try:
            event = self._parser.next_event()
        except WebSocketError as error:
            self._goodbye(error.close_code, error.message)
            raise
        if event is None:
            data = self._duplex.receive(65536, self._timeout)
            if not data:
                raise Disconnected("The connection ended without a close frame.")
            self._parser.feed(data)
        return event

    def _control(self, opcode: int, payload: Any) -> None:
        if opcode == PING:
            self._send_frame(PONG, payload)
        elif opcode == CLOSE:               # answered by `close`, when what the messages asked for is done
            self.close_code, self.close_reason = payload

    def send(self, data: Union[bytes, str]) -> None:
        """One message: text for str, else binary. Raises Disconnected."""
        if self._said_goodbye:
            raise Disconnected("The WebSocket is closed.")
        if isinstance(data, str):
            self._send_frame(TEXT, data.encode())
        else:
            self._send_frame(BINARY, data)

    def ping(self, payload: bytes = b"") -> None:
        """Ask the other side for a sign of life; `receive` swallows it."""
        self._send_frame(PING, payload[:125])

    def _send_frame(self, opcode: int, payload: bytes) -> None:
        frame = encode_frame(opcode, payload, mask=os.urandom(4) if self._client else b"")
        with self._lock:                    # frames of two threads must not mix
            self._duplex.send(frame, self._timeout)

    def _goodbye(self, code: int, reason: str) -> None:
        """Send our close frame, once. Whether it arrives is not ours to know any more."""
        if not self._said_goodbye:
            self._said_goodbye = True
            cut = reason.encode()[:_MAX_REASON].decode("utf-8", "ignore")
            with contextlib.suppress(Disconnected):
                self._send_frame(CLOSE, code.to_bytes(2, "big") + cut.encode())

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close, and wait a few seconds for the other side's close frame. Raises nothing; safe to call twice.

        The default code is what the other side closed with (RFC 6455, 5.5.1), else 1000.
        """
        theirs = 1000 if self.close_code in (None, 1005) else self.close_code
        self._goodbye(code or theirs or 1000, reason)
        deadline, self._timeout = time.perf_counter() + _CLOSE_WAIT, _CLOSE_WAIT
        try:
            while self.close_code is None and time.perf_counter() < deadline:
                event = self._next_event()
                if event is not None:
                    self._control(*event)
        except (Disconnected, WebSocketError):
            pass

# ============================================================================
# The application: who asks, what may they, what is answered, what is noted
# ============================================================================

INTERNAL_USER = "internal-proxy"
_HOPS = HOPS_HEADER.lower()

# Sent with every answer (rest.md, "Conventions"). Stored bytes are never active in this origin (CVE-2023-38501).
_SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Embedder-Policy", "require-corp"),
)
_HSTS = ("Strict-Transport-Security", "max-age=31536000")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def header_block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines, each with its CRLF."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


def _host_name(host: str) -> str:
    """`Host` without its port, in lower case."""
    return (host if host.endswith("]") else host.rpartition(":")[0] or host).lower()


def header_text(value: str) -> str:
    """A value of ours for a header: what is no printable ASCII is percent-encoded."""
    return value if value.isascii() and value.isprintable() else urllib.parse.quote(value, safe=" /:@+=,")


SESSION_COOKIE = "callfs_session"
_SESSION = re.compile(rf"(?:^|[;,] *){SESSION_COOKIE}=(([A-Za-z0-9_-]+)\.([0-9]{{1,12}}))\.([A-Za-z0-9_-]{{43}})(?= *(?:[;,]|$))")


class Sessions:
    """What a browser that signed in shows instead of its key: user, expiry (seconds since 1970) and an HMAC over both.

    Nothing is kept here, so every node with the same secret takes it. The user's key is part of what is signed: with
    the key the session ends. Without a secret one is drawn, and sessions end with the process.
    """

    def __init__(self, secret: str, lifetime: float, keys: Mapping[str, str],
                 clock: Callable[[], float] = time.time) -> None:
        # A key of its own: what signs download links must never sign a session.
        root = hmac.digest((secret or secrets.token_hex()).encode(), b"callfs: sessions of browsers", "sha256")
        self._keys = {user: hmac.digest(root, key.encode(), "sha256") for user, key in keys.items()}
        self._lifetime, self._clock = lifetime, clock

    def begin(self, user: str) -> str:
        """The cookie's value, for `session_lifetime` from now."""
        claim = f"{b64url(user.encode())}.{int(self._clock() + self._lifetime)}"
        return f"{claim}.{self._sign(user, claim)}"

    def _sign(self, user: str, claim: str) -> str:
        return b64url(hmac.digest(self._keys[user], claim.encode(), "sha256"))

    def user(self, cookies: str) -> Optional[str]:
        """Whose session a `Cookie` header holds; None for one that is forged, over, or of a key that was changed."""
        found = _SESSION.search(cookies)
        if found is None:
            return None
        claim, name, expires, signature = found.groups()
        try:
            user = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
        except ValueError:
            return None
        if user not in self._keys or int(expires) <= self._clock():
            return None
        return user if hmac.compare_digest(self._sign(user, claim), signature) else None


class Authenticator:
    """Keys and sessions to principals. Looks keys up by their HMAC under a secret of this process, so that no comparison can be
    timed, for keys that nobody has as for those that somebody does."""

    def __init__(self, options: AuthOptions, failures: RateLimiter, plugins: str = "none") -> None:
        self._pepper, self._failures = secrets.token_bytes(32), failures
        self._anonymous = {**dict.fromkeys(("key", "user", "internal"), ANONYMOUS[options.anonymous]),
                           "pfs": ANONYMOUS[max(options.anonymous, plugins, key=list(ANONYMOUS).index)]}
        self._known: Cache[tuple[str, bytes], Principal] = Cache(10_000)
        named = {name: key for name, key in options.api_key_users.items()}
        named.update({f"api-user-{number}": key for number, key in enumerate(options.api_keys)})
        self.sessions = Sessions(options.single_use_link_secret, options.session_lifetime, named)
        self._named = {name: Principal(name, name == "root", name in ("root", *options.admins)) for name in named}
        self._users = {self._digest(key.encode()): self._named[name] for name, key in named.items()}
        if options.internal_proxy_secret:
            internal = self._digest(options.internal_proxy_secret.encode())
            self._users[internal] = Principal(INTERNAL_USER, trusted=True)

    def _digest(self, key: bytes) -> bytes:
        return hmac.digest(self._pepper, key, "sha256")

    def identify(self, request: Request, access: str = "key") -> Principal:
        """Who sent this. Raises AuthenticationFailed, and RateLimited for an address that guesses."""
        header = request.headers.get("authorization")
        if header is None:
            cookies = request.headers.get("cookie", "") if access != "internal" else ""
            principal = self._named.get(self.sessions.user(cookies) or "") if cookies else None
            principal = principal or self._anonymous[access]
            if principal.verbs is None or principal.verbs:
                return principal
            raise self.refusal(request)
        key = _key_of(header)
        if key is None:
            raise self.refusal(request, "The Authorization header is neither `Bearer KEY` nor `Basic`.")
        return self._check(request, key)

    def open_session(self, request: Request, key: str) -> str:
        """A session for who has this key. Raises as `identify` does."""
        principal = self._check(request, key.encode())
        if principal.name not in self._named:           # a node of the cluster is no user
            raise self.refusal(request, "The key is not valid.")
        return self.sessions.begin(principal.name)

    def _check(self, request: Request, key: bytes) -> Principal:
        client = request.client
        digest = self._digest(key)
        principal = self._known.get((client, digest))       # an address that got in before is not shut out by others
        if principal is not None:
            return principal
        seconds = self._failures.wait(client, 0)
        if seconds:
            raise RateLimited("Too many wrong keys from this address.", retry_after=seconds)
        principal = self._users.get(digest)
        if principal is None:
            self._failures.wait(client)     # a wrong key costs a token
            raise self.refusal(request, "The key is not valid.")
        self._known.put((client, digest), principal)
        return principal

    @staticmethod
    def refusal(request: Request, message: str = "A key is needed: send `Authorization: Bearer KEY`.",
                ) -> AuthenticationFailed:
        """What to raise: the 401 that says how to do better. A script of our page would be disturbed by the window
        that a browser opens for Basic."""
        page = "sec-fetch-mode" in request.headers or SESSION_COOKIE in request.headers.get("cookie", "")
        challenge = "Bearer" if page else 'Bearer, Basic realm="callfs"'
        return AuthenticationFailed(message, headers=[("WWW-Authenticate", challenge)])


def _key_of(header: str) -> Optional[bytes]:
    """The key in an Authorization header; None for a malformed one."""
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value and " " not in value:
        return value.encode("latin-1")
    if scheme.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(value, validate=True).partition(b":")
    except ValueError:
        return None
    return password if colon and password else None


class ProxyTrust:
    """Which peers may say whom they speak for (`server.trusted_proxies`: addresses, networks, "unix")."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._unix = "unix" in trusted
        self._networks = [ipaddress.ip_network(item, strict=False) for item in trusted if item != "unix"]

    def holds(self, address: str) -> bool:
        """Whether this address is one of them."""
        if address == "unix":
            return self._unix
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks if network.version == parsed.version)

    def apply(self, request: Request) -> None:
        """Give the request the client that a trusted proxy saw: the last address that is not itself trusted."""
        if not (self._unix or self._networks) or not self.holds(request.client):
            return
        scheme = request.headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
        host = request.headers.get("x-forwarded-host", "").split(",")[0].strip()
        request.scheme = scheme if scheme in ("http", "https") else request.scheme
        if _HOST.fullmatch(host):
            request.headers = {**request.headers, "host": host}
        for address in reversed(request.headers.get("x-forwarded-for", "").split(",")):
            address = address.strip()
            if not _is_address(address):
                break
            request.client = address
            if not self.holds(address):
                break


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Application:
    """Takes a request through its stations: id, route, sign-in, handler, error, headers; then log and metrics.

    Knows no socket: an HTTP/1.1 server, an HTTP/3 server and a test call `handle` alike. It never raises.
    """

    def __init__(self, router: Router, authenticator: Authenticator, options: ServerOptions, *,
                 metrics: Metrics, log: Log, loopback: Iterable[str] = (), calls: Optional[CallContext] = None) -> None:
        self.router, self._auth, self._options, self._calls = router, authenticator, options, calls or CallContext()
        self._metrics, self._log = metrics, log
        self._prefix = options.path_prefix.rstrip("/")
        self._trust = ProxyTrust(options.trusted_proxies)
        self._proxied = bool(options.trusted_proxies)
        self._names = self._own_names(loopback)
        self._block, self._tls_block = header_block(_SECURITY_HEADERS), header_block((*_SECURITY_HEADERS, _HSTS))
        self._id_prefix, self._ids = secrets.token_hex(6), itertools.count(1)

    def _own_names(self, loopback: Iterable[str]) -> frozenset[str]:
        """What `Host` may say; nothing: anything. `loopback`: the hosts listened on, where all are of this machine."""
        hosts = {f"[{host}]" if ":" in host else host for host in loopback}
        external = _host_name(urllib.parse.urlsplit(self._options.external_url).netloc)
        return _LOOPBACK_NAMES | hosts | {external} if hosts else frozenset()

    def handle(self, request: Request) -> Response:
        """The answer to a request."""
        wanted = request.headers.get("x-request-id")
        request.id = wanted if wanted and _REQUEST_ID.fullmatch(wanted) else f"{self._id_prefix}{next(self._ids):x}"
        try:
            response = self._answer(request)
        except CallFSError as error:
            response = self._refuse(request, error)
        except Exception:
            self._log.exception("unforeseen error", id=request.id, method=request.method)
            response = self._refuse(request, CallFSError("The server failed; its log says more under this "
                                                         f"request's id, {request.id}."))
        self._dress(request, response)
        return response

    def _answer(self, request: Request) -> Response:
        if self._proxied:
            self._trust.apply(request)
        if self._prefix:
            self._strip_prefix(request)
        route, request.tail = self.router.find(request.path)
        if route is None:
            raise NotFound("There is nothing at this address; files are at /v1/files/PATH.")
        request.route = route
        handler = route.methods.get(request.method)
        if handler is None:
            return self._other_method(request, route)
        if route.access != "open":
            self._sign_in(request, route)
        elif request.method not in _SAFE_METHODS:
            self._check_browser(request)    # nobody is signed in by a page of another site either
        hops = request.headers.get(_HOPS)
        if hops is None:
            return handler(request)
        with self._calls.at(int(hops) if re.fullmatch("[0-9]{1,4}", hops) else MAX_HOPS):
            return handler(request)

    def _strip_prefix(self, request: Request) -> None:
        if not request.path.startswith(self._prefix + "/"):
            raise NotFound(f"This server answers below {self._prefix}/ (server.path_prefix).")
        request.path = request.path[len(self._prefix):]

    def _other_method(self, request: Request, route: Route) -> Response:
        allow = ", ".join(sorted({*route.methods, "OPTIONS"}))
        if request.method == "OPTIONS":
            return Response(204, None, headers=[("Allow", allow), *self._preflight(request, allow)])
        raise MethodNotAllowed(f"This address takes {allow}.", headers=[("Allow", allow)])

    def _preflight(self, request: Request, allow: str) -> list[tuple[str, str]]:
        if not self._listed(request.headers.get("origin")):
            return []
        asked = request.headers.get("access-control-request-headers", "")
        return [("Access-Control-Allow-Methods", allow), ("Access-Control-Max-Age", "600"),
                ("Access-Control-Allow-Headers", asked if re.fullmatch(r"[A-Za-z0-9, -]*", asked) else "")]

    def _listed(self, origin: Optional[str]) -> bool:
        """Whether pages of this origin may call (`server.cors_origins`)."""
        listed = self._options.cors_origins
        return bool(listed) and origin is not None and (origin in listed or "*" in listed)

    def _sign_in(self, request: Request, route: Route) -> None:
        """Sets `request.principal`. What the headers alone decide is kept as long as they stay the same."""
        memo = request.memo
        known = (route.access, request.client)
        principal = memo.get(known)
        if principal is None:
            principal = self._auth.identify(request, route.access)
            if "cookie" not in request.headers:         # a session ends while its header stays the same
                memo[known] = principal
        request.principal = principal
        if principal.verbs is not None and route.access in ("user", "internal"):
            raise self._auth.refusal(request)
        if route.access == "internal" and principal.name != INTERNAL_USER:
            raise PermissionDenied("Only other nodes of the cluster may use this address.")
        if not memo.get("bearer", False):
            self._check_browser(request)

    def _check_browser(self, request: Request) -> None:
        """Refuse what a foreign page could make a browser send: cross-site changes, rebound names (remfs.md, perf).

        A bearer key in a header is proof enough: no browser adds it by itself.
        """
        headers = request.headers
        if headers.get("authorization", "").lower().startswith("bearer "):
            request.memo["bearer"] = True
            return
        host = headers.get("host", "")
        if self._names and host and _host_name(host) not in self._names and not self._proxied:
            raise MisdirectedRequest("This server listens on loopback and does not answer to that name; if the name "
                                     "is right, set server.external_url to it.")
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site") if origin is None else \
            urllib.parse.urlsplit(origin).netloc.lower() != host.lower()
        request.foreign = foreign and not self._listed(origin)
        if request.foreign and (request.method not in _SAFE_METHODS or "upgrade" in headers):
            raise PermissionDenied("A page of another site may not do this; list it in server.cors_origins.")

    def _refuse(self, request: Request, error: CallFSError) -> Response:
        if error.status >= 500:
            self._metrics.count("callfs_errors_total", "http", type(error).__name__)
            self._log.warn("request failed", id=request.id, status=error.status, reason=error.message)
        answer = request.route.errors if request.route else rest_error
        return answer(request, error)

    def error(self, error: CallFSError) -> Response:
        """The answer to what never became a request."""
        self._metrics.count("callfs_errors_total", "http", type(error).__name__)
        response = rest_error(None, error)
        response.headers += [("X-Request-ID", f"{self._id_prefix}{next(self._ids):x}"), *_SECURITY_HEADERS]
        return response

    def _dress(self, request: Request, response: Response) -> None:
        block = self._tls_block if request.scheme == "https" else self._block
        if response.policy:
            block = response.policy + (header_block([_HSTS]) if request.scheme == "https" else b"")
        response.block += b"%bX-Request-ID: %b\r\n" % (block, request.id.encode())
        origin = request.headers.get("origin")
        if origin is not None and self._listed(origin):
            response.headers += [("Access-Control-Allow-Origin", origin), ("Vary", "Origin"),
                                 ("Access-Control-Expose-Headers", "*")]

    def finished(self, request: Optional[Request], response: Response, sent: int, seconds: float,
                 client: str) -> None:
        """Count and log an answered request."""
        route, method, user = "none", "none", ""
        if request is not None:
            route = request.route.pattern if request.route else "none"
            method = request.method if request.method in _METHODS else "other"     # labels must not grow at will
            user, client = request.principal.name if request.principal else "", request.client
        metrics = self._metrics
        metrics.count("callfs_http_requests_total", method, route, str(response.status))
        metrics.observe("callfs_http_request_duration_seconds", seconds, method, route)
        metrics.count("callfs_http_response_bytes_total", by=sent)
        path = "" if request is None else request.path
        self._log.access(request.id if request else "", client, user, request.method if request else "none",
                         _without_token(path, route), response.status, sent, seconds)


def _without_token(path: str, route: str) -> str:
    """A path for the log: what follows /download/ opens a file, also to whoever reads the log."""
    if route not in ("none", "/download/{path}"):
        return path
    before, found, _ = path.partition("/download/")
    return before + found + "********" if found else path


def rest_error(request: Optional[Request], error: CallFSError) -> Response:
    """`{"code","message"}`, and what the error carries besides."""
    value = {"code": error.code, "message": error.message, **error.details}
    return json_response(value, error.status, error.headers)


# ============================================================================
# Files over HTTP: conditions, ranges, archives (shared by the dialects)
# ============================================================================

RETRY_MS = 1000                             # after which a browser comes back that has lost its stream of events
_CONDITION_HEADERS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


def conditions_of(request: Request) -> Conditions:
    """The conditional headers of a request."""
    conditions = request.memo.get("conditions")
    if conditions is None:
        values = [request.headers.get(name, "") for name in _CONDITION_HEADERS]
        conditions = request.memo["conditions"] = Conditions(*values) if any(values) else NO_CONDITIONS
    return conditions


@contextlib.contextmanager
def aside(request: Request) -> Iterator[None]:
    """`request.blocking()`, once, however deep its uses are nested: two slots for one thread would be one too many."""
    blocking, request.blocking = request.blocking, contextlib.nullcontext
    with blocking():
        yield


def wish_of(request: Request) -> Wish:
    """What a reader asks for besides bytes (pfs.md: `stream`, `wait`, `ack`)."""
    if not request.query_text:
        return NO_WISH
    wish = {name: request.query[name] for name in ("wait", "ack") if name in request.query}
    return {**wish, "stream": "true"} if request.flag("stream") else wish


def refuse_consuming(handle: Handle) -> Handle:
    """The same handle; a consuming one is closed. Raises BadRequest. For what reads on behalf of somebody else."""
    if handle.consumes:
        handle.close()
        raise BadRequest("Reading this takes a message out, so it can only be read by a GET of exactly this path.")
    return handle


def file_response(request: Request, handle: Handle, block: bytes, headers: Iterable[tuple[str, str]] = (),
                  kind: str = "application/octet-stream") -> Response:
    """The bytes of an opened file, or a part of them, or why not; takes the handle over.

    `block` are the header lines that hold for every form of the answer, `Content-Type` (`kind`) left out. Where the
    handle is not `fixed` they promise neither size nor ETag nor ranges.
    """
    entry, conditions, of_kind = handle.entry, conditions_of(request), ("Content-Type", kind)
    try:
        if not handle.fixed:
            return _live_response(request, handle, block, [of_kind, *headers])
        unchanged = conditions is not NO_CONDITIONS and \
            conditions.check(entry.etag, entry.mtime_ns / 1e9, reading=True)
        if unchanged or request.method == "HEAD":
            handle.close()
            return Response(304 if unchanged else 200, None, headers=[of_kind, *headers], block=block,
                            length=None if unchanged else entry.size)
        ranges = _ranges_of(request, entry)
        if ranges is None:
            body = handle.data if handle.data is not None else handle.reader()
            return Response(200, body, headers=[of_kind, *headers], block=block)
        if len(ranges) == 1:
            return _one_range(handle, ranges[0], block, [of_kind, *headers])
        return _many_ranges(handle, ranges, block, headers, kind)
    except CallFSError:
        handle.close()
        raise


OCTETS = ("Content-Type", "application/octet-stream")
_NO_STORE = ("Cache-Control", "no-store")


def _live_response(request: Request, handle: Handle, block: bytes, headers: Iterable[tuple[str, str]]) -> Response:
    """What has no fixed bytes. The reader comes last: what is refused, and who only looks, takes nothing out."""
    entry, conditions, fields = handle.entry, conditions_of(request), [_NO_STORE, *headers]
    unchanged = conditions is not NO_CONDITIONS and conditions.check(entry.etag, entry.mtime_ns / 1e9, reading=True)
    if unchanged or request.method == "HEAD":
        handle.close()
        response = Response(304 if unchanged else 200, None, headers=fields, block=block)
        response.length = None              # nobody knows how much a GET would give
        return response
    if handle.consumes:
        _check_deliberate(request)
    return Response(200, handle.reader(), headers=fields, block=block)


def _check_deliberate(request: Request) -> None:
    """Raises where a message would be torn, or be taken by a page that a browser opens, shows or fetches in advance.
    What a script of our own page fetches has the destination "empty" (Fetch Metadata, 2.2)."""
    headers = request.headers
    if "range" in headers or request.query_text and "range" in request.query:
        raise RangeNotSatisfiable("Each read takes a whole message; without a range it can be had. Nothing was taken.")
    purpose = headers.get("sec-purpose", headers.get("purpose", headers.get("x-moz", "")))
    if request.foreign or "prefetch" in purpose or headers.get("sec-fetch-mode") == "navigate" or \
            headers.get("sec-fetch-dest", "empty") != "empty":
        raise Conflict("Reading this takes a message out; a browser's visit only looks. Nothing was taken.")


def _ranges_of(request: Request, entry: Entry) -> Optional[list[tuple[int, int]]]:
    header = request.headers.get("range") or (request.query.get("range") if request.query_text else None)
    if header is None or request.method != "GET":
        return None
    condition = request.headers.get("if-range", "").strip()
    if condition.startswith('"'):
        matches = condition == f'"{entry.etag}"'
    elif condition:                         # a date must be exactly ours (RFC 9110, 13.1.5)
        matches = parse_http_date(condition) == entry.mtime_ns // 1_000_000_000
    return parse_ranges(header, entry.size) if not condition or matches else None


def _one_range(handle: Handle, part: tuple[int, int], block: bytes, headers: Iterable[tuple[str, str]]) -> Response:
    start, stop = part
    where = ("Content-Range", f"bytes {start}-{stop - 1}/{handle.entry.size}")
    return Response(206, handle.reader(start, stop), headers=[where, *headers], block=block)


def _many_ranges(handle: Handle, ranges: list[tuple[int, int]], block: bytes, headers: Iterable[tuple[str, str]],
                 content_type: str) -> Response:
    """`multipart/byteranges` (RFC 9110, 14.6), its length worked out beforehand."""
    boundary = secrets.token_hex(12)
    heads = [(f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\n"
              f"Content-Range: bytes {start}-{stop - 1}/{handle.entry.size}\r\n\r\n").encode()
             for start, stop in ranges]
    end = f"\r\n--{boundary}--\r\n".encode()

    def parts() -> Iterator[bytes]:
        for head, (start, stop) in zip(heads, ranges):
            yield head
            yield from handle.reader(start, stop)
        yield end
    length = sum(map(len, heads)) + sum(stop - start for start, stop in ranges) + len(end)
    kind = ("Content-Type", f"multipart/byteranges; boundary={boundary}")
    return Response(206, ChunkReader(parts(), length, handle.close), headers=[kind, *headers], block=block)


class EventStream(Reader):
    """A subscription as `text/event-stream` (HTML, "Server-sent events"): each event, and at each heartbeat a comment
    with the position, so that who comes back is not behind what never concerned it."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._rest = b"retry: %d\nid: %d\n\n" % (RETRY_MS, subscription.position)

    def attach(self, wake: Callable[[], None]) -> None:
        """From now on `read` never waits; `wake()` says that it may have something."""
        self._subscription.attach(wake)

    def read(self, size: int = BLOCK) -> Optional[bytes]:       # type: ignore[override]
        """What there is to tell. None, for who attached, while there is nothing; b"" when the server stops."""
        while not self._rest:
            events = self._subscription.take()
            if events is not None:
                self._rest = b"".join([event.block for event in events])
                if not events:
                    return b""
            elif self._subscription.due:
                self._rest = b": idle\nid: %d\n\n" % self._subscription.position
            else:
                return None
        block, self._rest = self._rest[:size], self._rest[size:]
        return block

    def close(self) -> None:
        """End the subscription."""
        self._subscription.close()


def events_response(request: Request, tree: Tree, path: str) -> Response:
    """`?events=true`: what changes at a path and below it, as it happens (remfs.md, "events"). HEAD subscribes to
    nothing."""
    headers = [("Content-Type", "text/event-stream"), _NO_STORE, ("X-Accel-Buffering", "no")]
    since = request.headers.get("last-event-id") or request.query.get("since", "")
    if since and not re.fullmatch("[0-9]{1,18}", since):
        raise BadRequest("`since` (or the header Last-Event-ID) is the number of an event, as its `id` says.")
    assert request.principal is not None
    if request.method == "HEAD":
        tree.may_subscribe(request.principal)
        response = Response(200, None, headers=headers)
        response.length = None              # nobody knows how much a GET would give
        return response
    subscription = tree.subscribe(request.principal, path, int(since) if since else None)
    return Response(200, EventStream(subscription), headers=headers)


class _Sink:
    """A file for writers that want one: what they write waits here until `take`."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class ArchiveSource(NamedTuple):
    """One entry of an archive: its relative name, what it is, and its open handle (None: a directory)."""

    name: str
    entry: Entry
    handle: Optional[Handle]


def zip_chunks(sources: Iterable[ArchiveSource]) -> Iterator[bytes]:
    """A zip as it grows, stored and not packed: most of what is large is packed already, and the disk is faster.

    A file is never in memory; the directory at the end of a zip is (some 500 bytes an entry).
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:      # type: ignore[call-overload]
        for source in sources:
            info = zipfile.ZipInfo(source.name + ("" if source.handle else "/"), _zip_time(source.entry))
            info.external_attr = (source.entry.mode | (stat.S_IFREG if source.handle else stat.S_IFDIR)) << 16
            info.file_size = source.entry.size
            with archive.open(info, "w", force_zip64=source.entry.size > 1 << 30) as target:
                for block in _blocks_of(source):
                    target.write(block)
                    yield sink.take()
            yield sink.take()
    yield sink.take()


def _zip_time(entry: Entry) -> tuple[int, int, int, int, int, int]:
    moment = time.gmtime(min(max(entry.mtime_ns // 1_000_000_000, 315_532_800), 4_354_819_199))   # 1980..2107
    return moment[:6]


def tar_chunks(sources: Iterable[ArchiveSource]) -> Iterator[bytes]:
    """A tar (POSIX 2001) as it grows; nothing of it stays in memory."""
    for source in sources:
        info = tarfile.TarInfo(source.name)
        info.size, info.mode, info.mtime = source.entry.size, source.entry.mode, source.entry.mtime_ns // 1_000_000_000
        info.type = tarfile.REGTYPE if source.handle else tarfile.DIRTYPE
        info.uname = source.entry.owner
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        yield from _blocks_of(source)
        yield b"\0" * (-info.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _blocks_of(source: ArchiveSource) -> Iterable[bytes]:
    """Exactly as many bytes as the entry says, or StorageError, which cuts the answer."""
    return source.handle.reader() if source.handle else ()


ARCHIVES: dict[str, tuple[str, Callable[[Iterable[ArchiveSource]], Iterator[bytes]]]] = {
    "zip": ("application/zip", zip_chunks), "tar": ("application/x-tar", tar_chunks)}


def archive_response(tree: Tree, who: Principal, path: str, kind: str) -> Response:
    """All below a directory as a zip or tar, entry by entry."""
    if kind not in ARCHIVES:
        raise BadRequest("`archive` is zip or tar.")
    if not tree.stat(who, path).is_dir:
        raise BadRequest("Only a directory can be had as an archive.")
    name = split_path(path)[1] or "files"
    content_type, chunks = ARCHIVES[kind]
    headers = [("Content-Type", content_type), ("Content-Disposition", content_disposition(f"{name}.{kind}"))]
    return Response(200, ChunkReader(chunks(_archived(tree, who, path, name))), headers=headers)


def _archived(tree: Tree, who: Principal, path: str, name: str) -> Iterator[ArchiveSource]:
    """What goes into an archive of a directory, opened one at a time; what goes away meanwhile is left out, as is
    what has no fixed bytes or can not be read."""
    skip = len(path.rstrip("/"))
    for entry in tree.walk(who, path, MAX_DEPTH):
        handle = None if entry.is_dir else _archivable(tree, who, entry)
        if handle is None and not entry.is_dir:
            continue
        try:
            yield ArchiveSource(name + entry.path[skip:], handle.entry if handle else entry, handle)
        finally:
            if handle:
                handle.close()


def _archivable(tree: Tree, who: Principal, entry: Entry) -> Optional[Handle]:
    try:
        handle = tree.open(who, entry.path)
    except (FileNotFound, PermissionDenied, NotSupported):
        return None
    if handle.fixed and not handle.entry.is_dir and not takes_only(handle.entry):
        return handle
    handle.close()
    return None


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """Around the use of a spool: on a full disk 507; whatever else it is, the caller's path is not to blame."""
    try:
        yield
    except OSError as error:
        ours = translate_os_error(error)
        raise (StorageError() if isinstance(ours, CallerError) else ours) from error


# ============================================================================
# httpfs: its own HTTP server for any folder of the tree, to read
# ============================================================================

_PAGE_STYLE = ("body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em}"
               "table{border-collapse:collapse;width:100%}td,th{padding:.2em .8em;text-align:left}"
               "td+td,th+th{text-align:right;white-space:nowrap}tr:hover{background:#8882}")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_PAGE_STYLE.encode()).digest()).decode()
_CSP = "Content-Security-Policy"
# No script and no form; a sandbox without `allow-downloads` would keep browsers from saving what they are shown.
_PAGE_CSP = (_CSP, f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; "
                   "form-action 'none'; sandbox allow-downloads")
# What is shown and not saved. Stored bytes are never active: nothing here is run by a browser (so no SVG, no PDF).
_SHOWN_TYPES = {
    **dict.fromkeys(("png", "gif", "webp", "avif", "bmp"), "image/{}"), "jpg": "image/jpeg", "jpeg": "image/jpeg",
    **dict.fromkeys(("txt", "md", "log", "csv"), "text/plain; charset=utf-8"),
}
_README_NAMES = frozenset({"README", "README.md", "README.txt"})
_LISTEN_FAILURES = {errno.EADDRINUSE: "the port is in use; choose another http_port",
                    errno.EACCES: "this account may not use the port; choose one from 1024 on",
                    errno.EADDRNOTAVAIL: "this machine does not have that address; choose another host"}


def shown_type(name: str) -> str:
    """The Content-Type under which a browser may show a file of this name, "" for what it shall save."""
    ending = name.rpartition(".")[2].lower()
    return "text/plain; charset=utf-8" if name in _README_NAMES else _SHOWN_TYPES.get(ending, "").format(ending)


class _Anyone(Authenticator):
    """Takes everybody for somebody without a key, who may read."""

    def __init__(self) -> None:
        pass

    def identify(self, request: Request, access: str = "key") -> Principal:
        """Nobody is asked: to serve without a key is what an administrator has mounted this for."""
        return ANONYMOUS["read"]


class _FolderApplication(Application):
    """An application whose answers may bring a policy for the browser of their own."""

    def _dress(self, request: Request, response: Response) -> None:
        own = any(name == _CSP for name, _ in response.headers)
        headers = [pair for pair in _SECURITY_HEADERS if not own or pair[0] != _CSP]
        response.headers += [*headers, ("X-Request-ID", request.id)]


class HTTPFS(FileSystem):
    """A folder of the tree over HTTP, on a port of its own, without a key, to read only.

    Itself it is a file that tells how that goes. Everything is read through the tree, which checks what may be read."""

    name = "httpfs"
    root_type = FILE
    aliases = MappingProxyType({"port": "http_port"})

    @dataclass
    class Options:
        """See the fields."""

        pfs_path: str = option("", "The folder to serve")
        http_port: int = option(0, "Port to listen on; 0 takes a free one", kind="int", minimum=0, maximum=65535)
        host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in")

    def __init__(self, options: HTTPFS.Options, context: MountContext) -> None:
        if not options.pfs_path.startswith("/"):
            raise BadRequest("httpfs needs `pfs_path`, the path of a folder, as /memfs.")
        self._folder, self._context, self._since = canonical_path(options.pfs_path), context, time.time_ns()
        loopback = _only_here(options.host)
        router = Router()
        router.add([Route("/{path}", {"GET": self._browse, "HEAD": self._browse}, "key", _plain_error)])
        app = _FolderApplication(router, _Anyone(), ServerOptions(), metrics=context.metrics, log=context.log,
                                 loopback=[options.host] if loopback else (), calls=context.tree.calls)
        limits = HTTPLimits(workers=2, max_workers=64, max_connections=1000, pin_workers="off")
        self._server = _listening(app, limits, options.host, options.http_port, context.log)
        self._host, self._port = options.host, self._server.addresses[0].port
        self._server.start()

    def close(self) -> None:
        """Free the port, end connections and threads."""
        self._server.server_close()

    # -- the status file ---------------------------------------------------------------------------------------

    def _url(self) -> str:
        host = "localhost" if self._host in ("", "0.0.0.0", "::") or _only_here(self._host) else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/"

    def _status(self) -> bytes:
        uptime = (time.time_ns() - self._since) // 1_000_000_000
        url, reach = self._url(), "this machine only" if _only_here(self._host) else "every machine that reaches it"
        return (f"HTTPFS Instance Status\n======================\n\n"
                f"Virtual Path: {self._context.path}\nPFS Source Path: {self._folder}\nHTTP Host: {self._host}\n"
                f"HTTP Port: {self._port}\nHTTP Endpoint: {url}\nServer Status: Running\n"
                f"Start Time: {rfc3339(self._since)}\nUptime: {format_duration(uptime)}\n\n"
                f"Access via HTTP\n  Browser: {url}\n  CLI: curl {url}\n\n"
                f"Answers {reach}, without a key, GET and HEAD only.\n"
                f"For other machines mount it with host=0.0.0.0. "
                f"Remove it with: unmount {self._context.path}\n").encode()

    def open(self, path: str, wish: Wish = NO_WISH) -> Handle:
        """The status, as of now."""
        if path != "/":
            raise FileNotFound()
        return generated("/", self._status(), time.time_ns(), backend=self.name)

    def stat(self, path: str) -> Entry:
        """As the interface says."""
        return self.open(path).entry

    def list(self, path: str, after: str = "") -> Iterator[Entry]:
        """There is nothing below a file."""
        self.stat(path)
        raise Conflict("This is a file, not a directory.")

    def describe(self, entry: Entry) -> Meta:
        """Where it listens and what it serves."""
        return Meta(self.name, "status", {"pfs_path": self._folder, "host": self._host, "port": str(self._port),
                                          "url": self._url(), "status": "running"})

    # -- what browsers get -------------------------------------------------------------------------------------

    def _browse(self, request: Request) -> Response:
        shown = canonical_path(decode_path(request.path))
        path = self._folder.rstrip("/") + shown if shown != "/" else self._folder
        with aside(request):
            handle = self._context.tree.open(ANONYMOUS["read"], path)
            if not handle.entry.is_dir:
                return self._file(request, handle)
            handle.close()
            if not request.path.endswith("/"):
                # Of the canonical path, which begins with one slash: `//host` would lead to another server.
                return Response(301, b"", headers=[("Location", urllib.parse.quote(shown) + "/")])
            return self._page(request, shown, path)

    @staticmethod
    def _file(request: Request, handle: Handle) -> Response:
        entry, kind = handle.entry, shown_type(handle.entry.name)
        refusal = "This file can only be written." if not entry.mode & 0o444 else \
            "Reading this file takes something out, and who browses only looks; read it through the API." \
            if handle.consumes else ""
        if refusal or request.path.endswith("/"):
            handle.close()
            raise PermissionDenied(refusal) if refusal else FileNotFound("This is a file; leave out the last slash.")
        fields = [("Last-Modified", http_date(entry.mtime_ns // 1_000_000_000)), ("ETag", f'"{entry.etag}"'),
                  ("Accept-Ranges", "bytes"), ("Cache-Control", "no-cache")]
        block = header_block(fields) if handle.fixed else b""
        headers = [] if kind else [("Content-Disposition", content_disposition(entry.name))]
        return file_response(request, handle, block, headers, kind or "application/octet-stream")

    def _page(self, request: Request, shown: str, path: str) -> Response:
        with _disk_errors():
            spool = open_spool(self._context.spools)
            try:
                for part in self._page_parts(shown, path):
                    spool.write(part.encode("utf-8", "replace"))
                reader = spool_reader(spool)
            except BaseException:
                spool.close()
                raise
        response = Response(200, reader, headers=[("Content-Type", "text/html; charset=utf-8"), _PAGE_CSP,
                                                  ("Cache-Control", "no-cache")])
        if request.method == "HEAD":
            reader.close()
            response.body = None
        return response

    def _page_parts(self, shown: str, path: str) -> Iterator[str]:
        title = html.escape(f"Index of {shown}")
        yield (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
               f"<style>{_PAGE_STYLE}</style></head><body><h1>{title}</h1>\n<table><thead><tr><th>Name</th>"
               "<th>Size</th><th>Modified</th></tr></thead><tbody>\n")
        if shown != "/":
            yield '<tr><td><a href="../">../</a></td><td></td><td></td></tr>\n'
        for entry in self._context.tree.list(ANONYMOUS["read"], path):
            yield _page_row(entry)
        yield "</tbody></table></body></html>\n"


def _page_row(entry: Entry) -> str:
    slash, size = ("/", "") if entry.is_dir else ("", str(entry.size))
    moment = rfc3339(entry.mtime_ns).replace("T", " ").rstrip("Z") if entry.mtime_ns else ""
    # "./": a name with a colon would be an address with a scheme (javascript:).
    return (f'<tr><td><a href="./{urllib.parse.quote(entry.name, safe="")}{slash}">{html.escape(entry.name)}{slash}</a>'
            f"</td><td>{size}</td><td>{moment}</td></tr>\n")


def _plain_error(request: Optional[Request], error: CallFSError) -> Response:
    """A line for people."""
    text = f"{error.status} {REASONS.get(error.status, '')}\n{error.message}\n"
    return Response(error.status, text.encode(), headers=[("Content-Type", "text/plain; charset=utf-8"),
                                                          *error.headers])


def _only_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(app: Application, limits: HTTPLimits, host: str, port: int, log: Log) -> HTTPServer:
    """A server that holds its port. Raises Conflict where somebody else does, Unavailable where it can not be had."""
    try:
        sock = _listen_tcp(host, port, limits.backlog)
    except OSError as error:
        reason = _LISTEN_FAILURES.get(error.errno or 0) or error.strerror or str(error)
        raise (Conflict if error.errno == errno.EADDRINUSE else Unavailable)(
            f"httpfs can not listen on {host}:{port}: {reason}.") from None
    return HTTPServer(app, limits, inherited=[sock], log=log)


# ============================================================================
# Mounts: filesystems by their type, from the configuration and at run time
# ============================================================================

FILESYSTEMS: Mapping[str, type[FileSystem]] = MappingProxyType({kind.name: kind for kind in (
    HelloFS, StreamFS, QueueFS, MemFS, LocalFS, KeyValueFS, ServerInfoFS, SQLFS, ProxyFS, HTTPFS,
)})


class MountSpec(NamedTuple):
    """What somebody wants mounted. `kept`: it was made at run time and comes back after a restart."""

    path: str
    fstype: str
    config: Mapping[str, Any]
    kept: bool = False


class BrokenFS(FileSystem):
    """Stands where a filesystem could not be mounted at the start: a write must not fall through to what it covers."""

    slow = False

    def __init__(self, kind: str, reason: str) -> None:
        self.name, self._reason = kind, reason

    def _broken(self, *args: Any, **named: Any) -> NoReturn:
        raise Unavailable(f"What belongs here could not be mounted: {self._reason}")

    stat = open = list = write = patch = mkdir = remove = move = chmod = touch = truncate = _broken

    def peek(self, path: str) -> Optional[Entry]:
        """As the others: not known."""
        self._broken()

    def check(self) -> dict[str, str]:
        """What went wrong."""
        return {"mount": self._reason}


def mount_reference() -> str:
    """The types and their options in Markdown."""
    lines = ["| Type | Option | Default | Meaning |", "|---|---|---|---|"]
    for kind in FILESYSTEMS.values():
        lines.append(f"| **{kind.name}** | | | {(kind.__doc__ or '').split(chr(10))[0]} |")
        for each in dataclasses.fields(kind.Options):
            about = each.metadata["option"]
            others = "".join(f", `{name}`" for name, meant in kind.aliases.items() if meant == each.name)
            lines.append(f"| | `{each.name}`{others} | `{_default_text(about)}` | {_meaning(about)} |")
    return "\n".join(lines).replace(" |  |", " | |")


def mount_specs(plugins: Mapping[str, Any]) -> list[MountSpec]:
    """What the section `plugins` of the configuration mounts (pfs.md: one instance, a list of them, `localfs_home:`).

    The type is `type`, else the name, else what stands before its first `_` (a type may not have one). Disabled ones
    are left out. Raises ConfigError.
    """
    found = []
    for name, value in plugins.items():
        if name == "anonymous":
            continue
        for item in value if isinstance(value, list) else [value]:
            if item.get("enabled", True):
                kind = item.get("type") or (name if name in FILESYSTEMS else name.partition("_")[0])
                found.append(MountSpec(canonical_path(item["path"]), kind, item.get("config") or {}))
    return sorted(found)


class Mounts:
    """Mounts and unmounts by type, for the configuration and for administrators; remembers the latter's."""

    def __init__(self, tree: Tree, store: MetadataStore, context: MountContext, *, persist: bool = True) -> None:
        self._tree, self._store, self._context, self._persist = tree, store, context, persist
        self._specs: dict[str, MountSpec] = {}
        self._faults: dict[str, str] = {}
        self._changing = threading.Lock()
        self.types: dict[str, type[FileSystem]] = dict(FILESYSTEMS)

    def start(self, configured: Iterable[MountSpec]) -> None:
        """Mount what the configuration says, then what was mounted at run time; what fails is logged and shown."""
        specs = list(configured)
        taken = {spec.path for spec in specs}
        kept = [MountSpec(path, kind, json.loads(config), True) for path, kind, config in self._store.mounts()] \
            if self._persist else []
        for spec in sorted([*specs, *(spec for spec in kept if spec.path not in taken)]):
            self._start(spec)

    def _start(self, spec: MountSpec) -> None:
        try:
            filesystem = self._build(spec)
        except CallFSError as error:
            self._context.log.error("a filesystem could not be mounted", path=spec.path, type=spec.fstype,
                                    reason=error.message)
            self._faults[spec.path] = error.message
            filesystem = BrokenFS(spec.fstype, error.message)
        try:
            self._tree.mount(spec.path, filesystem)
            self._specs[spec.path] = spec
        except CallFSError as error:
            filesystem.close()
            self._context.log.error("a filesystem could not be mounted", path=spec.path, reason=error.message)
            self._faults[spec.path], self._specs[spec.path] = error.message, spec

    def _build(self, spec: MountSpec) -> FileSystem:
        kind = self.types.get(spec.fstype)
        if kind is None:
            raise BadRequest(f"There is no filesystem type {spec.fstype!r}; there are: {', '.join(sorted(self.types))}.")
        options = read_mount_options(kind, spec.config)
        try:
            return kind(options, self._context._replace(path=spec.path))     # type: ignore[call-arg]
        except OSError as error:
            raise translate_os_error(error) from error

    def mount(self, who: Principal, path: str, fstype: str, config: Mapping[str, Any]) -> None:
        """Mount now, and again after every restart. Raises PermissionDenied, BadRequest (type, options), Conflict."""
        self._tree.administer(who)
        spec = MountSpec(path, fstype, dict(config), kept=self._persist)
        with self._changing:
            self._tree.may_mount(path)
            filesystem = self._build(spec)
            try:
                self._tree.mount(path, filesystem)
                if self._persist:
                    self._store.add_mount(path, fstype, json.dumps(spec.config))
            except BaseException:
                with contextlib.suppress(FileNotFound):
                    self._tree.unmount(path)
                filesystem.close()
                raise
            self._specs[path] = spec
        self._context.log.info("mounted", path=path, type=fstype, user=who.name)

    def unmount(self, who: Principal, path: str) -> None:
        """Unmount now, and for good where it was mounted at run time. Raises PermissionDenied, FileNotFound, Conflict."""
        self._tree.administer(who)
        with self._changing:
            filesystem = self._tree.unmount(path)
            spec = self._specs.pop(path, None)
            self._faults.pop(path, None)
            try:
                if spec is not None and spec.kept:
                    self._store.remove_mount(path)
            finally:
                filesystem.close()
        self._context.log.info("unmounted", path=path, user=who.name)

    def list(self, who: Principal) -> list[dict[str, Any]]:
        """What is mounted, as `/api/v1/mounts` shows it, secrets masked; `error` where that failed at the start."""
        self._tree.authorise(who, "list")
        return [{"path": spec.path, "pluginName": spec.fstype,
                 "config": shown_mount_options(self.types.get(spec.fstype, FileSystem), spec.config),
                 **({"error": self._faults[path]} if path in self._faults else {})}
                for path, spec in sorted(self._specs.items())]

    def check(self) -> dict[str, str]:
        """What failed at the start and stands nowhere in the tree, for `/ready`."""
        there = self._tree.mount_points()
        return {f"mount {path}": reason for path, reason in self._faults.items() if path not in there}


# ============================================================================
# Webhooks: events for other servers, signed, out of a durable queue
# ============================================================================

MAX_TRY_PAUSE = 300.0                       # seconds between two tries, unless the receiver asks for more time
MAX_ASKED_PAUSE = 3600.0                    # and the most that it is given
MAX_RECEIPT = 1 << 16                       # bytes of an answer's body that are read, so that the connection can stay
_HOOK_TABLE = """
    CREATE TABLE IF NOT EXISTS messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, hook TEXT NOT NULL, id TEXT NOT NULL, created REAL NOT NULL,
        body BLOB NOT NULL);
    CREATE INDEX IF NOT EXISTS messages_by_hook ON messages (hook, seq);
"""


class HookMessage(NamedTuple):
    """What one webhook is to be sent. `id` stays the same however often that is tried."""

    seq: int
    id: str
    created: float                          # seconds since 1970
    body: bytes


class HookQueue:
    """The messages that wait, in an SQLite file of their own; nobody else may read it. Any thread may use it.

    `hooks` are the names that there are; messages of others are removed. What was added is durable on return (as
    durable as the store was told to be); what was removed may come back after a power cut, which spares each delivery
    an fsync. Raises StorageFull, Unavailable, StorageError.
    """

    MAX_BATCH = 200                         # changes a commit

    def __init__(self, path: str, hooks: Iterable[str], *, durable: bool = True, timeout: float = 5.0,
                 most: int = 100_000) -> None:
        self._most, self._waiting = most, dict.fromkeys(hooks, 0)
        self._commits = _SharedCommits(lambda jobs: self._commit(jobs), self.MAX_BATCH)     # late: a test may stand in
        make_private(path)
        try:
            with contextlib.ExitStack() as opened:
                self._adder, self._remover = (opened.enter_context(contextlib.closing(connect_sqlite(
                    path, durable=each, timeout=timeout))) for each in (durable, False))
                self.unknown = self._take_over()
                self._opened = opened.pop_all()
        except sqlite3.Error as error:
            raise _store_error(error, f"webhooks' queue ({path})") from error

    def _take_over(self) -> dict[str, int]:
        """Count what an earlier run left; how many were for hooks that there are no more, and are removed."""
        self._remover.executescript(_HOOK_TABLE)
        found = dict(self._remover.execute("SELECT hook, count(*) FROM messages GROUP BY hook").fetchall())
        unknown = {hook: found.pop(hook) for hook in list(found) if hook not in self._waiting}
        self._waiting.update(found)
        self._remover.executemany("DELETE FROM messages WHERE hook = ?", [(hook,) for hook in unknown])
        return unknown

    def _commit(self, jobs: list[_Job]) -> None:
        """Add in one transaction. The work of each job returns by how much more waits, by hook, and its value."""
        try:
            self._adder.execute("BEGIN IMMEDIATE")
            done = [job.work(self._adder) for job in jobs]
            self._adder.execute("COMMIT")
            for job, (changes, job.value) in zip(jobs, done):
                self._count(changes)
        except BaseException as error:      # a KeyboardInterrupt, too, must not leave anybody with a false "done"
            for job in jobs:
                job.error = _store_error(error, "webhooks' queue")
            with contextlib.suppress(sqlite3.Error):
                self._adder.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
        finally:
            for job in jobs:
                job.done = True

    def _remove(self, work: Callable[[sqlite3.Connection], tuple[dict[str, int], T]]) -> T:
        with self._commits.leader:          # the other connection is at rest
            try:
                changes, value = work(self._remover)
            except sqlite3.Error as error:
                raise _store_error(error, "webhooks' queue") from error
            self._count(changes)
            return value

    def _count(self, changes: Mapping[str, int]) -> None:
        for hook, count in changes.items():
            self._waiting[hook] += count

    def waiting(self, hook: str) -> int:
        """How many messages a hook has; while many threads add some, about that."""
        return self._waiting[hook]

    def add(self, hooks: Sequence[str], message_id: str, created: float, body: bytes) -> dict[str, int]:
        """One message for each hook; how many of the oldest had to make room for it, by hook."""
        def work(database: sqlite3.Connection) -> tuple[dict[str, int], dict[str, int]]:
            over = {hook: self._waiting[hook] + 1 - self._most for hook in hooks}
            gone = {hook: database.execute("DELETE FROM messages WHERE seq IN (SELECT seq FROM messages WHERE hook = ? "
                                           "ORDER BY seq LIMIT ?)", (hook, count)).rowcount
                    for hook, count in over.items() if count > 0}
            database.executemany("INSERT INTO messages (hook, id, created, body) VALUES (?, ?, ?, ?)",
                                 [(hook, message_id, created, body) for hook in hooks])
            return {hook: 1 - gone.get(hook, 0) for hook in hooks}, gone
        return self._commits.run(work)

    def next(self, hook: str, done: int = 0) -> Optional[HookMessage]:
        """The first message of a hook, which stays; the one whose `seq` is `done` is removed before."""
        def work(database: sqlite3.Connection) -> tuple[dict[str, int], Optional[HookMessage]]:
            gone = database.execute("DELETE FROM messages WHERE seq = ?", (done,)).rowcount if done else 0
            rows = database.execute("SELECT seq, id, created, body FROM messages WHERE hook = ? ORDER BY seq LIMIT 1",
                                    (hook,)).fetchall()
            return {hook: -gone}, HookMessage(*rows[0]) if rows else None
        return self._remove(work)

    def expire(self, hook: str, before: float) -> int:
        """Remove what was queued before a moment; how many that were."""
        def work(database: sqlite3.Connection) -> tuple[dict[str, int], int]:
            gone = database.execute("DELETE FROM messages WHERE hook = ? AND created < ?", (hook, before)).rowcount
            return {hook: -gone}, gone
        return self._remove(work)

    def close(self) -> None:
        """Close the file; what waits stays in it."""
        with self._commits.leader:
            self._opened.close()


class _HookClient(HTTPClient):
    """For one thread; `cut` (from any other) ends whatever it waits for, a handshake as well."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, timeout=timeout, retries=0)
        self._plug: Optional[socket.socket] = None      # a second descriptor of the connection's socket
        self._plain, self._over = self._address, False
        self._address = self._address._replace(dial=self._dial)

    def _dial(self) -> http.client.HTTPConnection:
        connection = self._plain.dial()
        connection._create_connection = self._open      # type: ignore[attr-defined]
        return connection

    def _open(self, address: tuple[str, int], timeout: Optional[float], source: Any = None) -> socket.socket:
        """As socket.create_connection, but the socket is known to `cut` before it waits."""
        failure = OSError("no address")
        for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            made = socket.socket(family, kind, protocol)
            try:
                self._hold(made)
                made.settimeout(timeout)
                made.connect(place)
                return made
            except OSError as error:
                made.close()
                failure = error
        raise failure

    def _hold(self, made: Optional[socket.socket]) -> None:
        with self._lock:
            if self._plug is not None:
                self._plug.close()
            self._plug = made.dup() if made is not None and not self._over else None
            if self._over and made is not None:
                raise OSError("the server stops")

    def cut(self) -> None:
        """End what is under way, and let nothing begin."""
        with self._lock:
            self._over = True
            if self._plug is not None:
                with contextlib.suppress(OSError):      # it was not connected, or is no longer
                    self._plug.shutdown(socket.SHUT_RDWR)

    def rest(self) -> None:
        """After a call: a connection that is not kept ends, for the other side as well."""
        if not self._idle:
            self._hold(None)

    def close(self) -> None:
        """End the connection."""
        super().close()
        self._hold(None)


class Webhook:
    """Delivers the messages of one hook in their order, each until a 2xx answers it; at least once, as the process may
    die between the answer and the removal. `trouble` tells what is wrong at the moment."""

    def __init__(self, name: str, options: WebhookOptions, queue: HookQueue, *, retry: float, version: str,
                 metrics: Metrics, log: Log, clock: Callable[[], float] = time.time,
                 ticks: Callable[[], float] = time.monotonic) -> None:
        self.name, self.trouble, self.paused, self.full = name, "", False, False
        self._path, self._types, self._key = options.path, frozenset(options.events), webhook_key(options.secret)
        parts = urllib.parse.urlsplit(options.url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._client = _HookClient(f"{parts.scheme}://{parts.netloc}", options.timeout)
        self._queue, self._retry, self._agent = queue, retry, f"callfs/{version}"
        self._metrics, self._log, self._clock, self._ticks = metrics, log, clock, ticks
        self._done, self._tries, self._due, self._ended = 0, 0, 0.0, False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"callfs-webhook-{name}", daemon=True)

    def wants(self, event: Event) -> bool:
        """Whether it is to be told of an event."""
        return (not self._types or event.type in self._types) and event.concerns(self._path)

    def start(self) -> None:
        """Begin to deliver, in a thread: a receiver that hangs holds up no other hook."""
        self._thread.start()

    def wake(self) -> None:
        """There is a message."""
        self._wake.set()

    def stop(self) -> None:
        """Deliver no more; a delivery that is under way is cut, and comes again after the next start."""
        self._ended = True
        self._wake.set()
        self._client.cut()

    def join(self) -> None:
        """Wait for the end, but not for a name server that does not answer."""
        if self._thread.ident is not None:
            self._thread.join(2.0)
        self._client.close()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._ended:
                with contextlib.suppress(CallFSError):
                    self._queue.next(self.name, self._done)
                return
            try:
                pause = self.step()
            except CallFSError as error:    # of the queue
                pause = self._later(error.message, MAX_TRY_PAUSE / 60)
            self._wake.wait(pause)

    def step(self) -> Optional[float]:
        """Deliver one message if one is due; the seconds until there may be more to do, None: until `wake`."""
        early = self._due - self._ticks()
        if early > 0:
            return early
        message = self._queue.next(self.name, self._done)
        if message is None:
            return None
        if self.paused:
            return self._fails(self.trouble, MAX_TRY_PAUSE)
        status, reason, asked = self._post(message)
        self._client.rest()
        if self._ended and not 200 <= status < 300:
            return None
        if 200 <= status < 300:
            self._delivered(message)
            return 0.0
        self._metrics.count("callfs_webhook_deliveries_total", self.name, "failed")
        if status == 410:                   # Standard Webhooks: the receiver wants no more
            self.paused, self.trouble = True, self.trouble or "paused"
            self._log.warn("a webhook is paused until the next start", webhook=self.name, reason=reason)
        pause = min(MAX_TRY_PAUSE, 2.0 ** min(self._tries, 9)) * random.uniform(0.5, 1.0)
        self._tries += 1
        return self._fails(reason, max(pause, min(asked or 0.0, MAX_ASKED_PAUSE)))

    def _delivered(self, message: HookMessage) -> None:
        self._metrics.count("callfs_webhook_deliveries_total", self.name, "delivered")
        self._done, self._tries, self.full = message.seq, 0, False
        if self.trouble:
            self._log.info("a webhook works again", webhook=self.name, waiting=self._queue.waiting(self.name) - 1)
            self.trouble = ""

    def _later(self, reason: str, pause: float) -> float:
        """The next try is after a pause, in seconds."""
        self._due = self._ticks() + pause
        if not self.trouble:
            self._log.warn("a webhook fails, its events wait", webhook=self.name, reason=reason)
        self.trouble = reason
        return pause

    def _fails(self, reason: str, pause: float) -> float:
        """The same; and what is too old goes, now that it was tried."""
        self._later(reason, pause)
        gone = self._queue.expire(self.name, self._clock() - self._retry)
        if gone:
            self._metrics.count("callfs_webhook_deliveries_total", self.name, "expired", by=gone)
            self._log.warn("events for a webhook were given up", webhook=self.name, events=gone, reason=reason)
        return pause

    def _post(self, message: HookMessage) -> tuple[int, str, Optional[float]]:
        """(status or 0, what is wrong, how many seconds the receiver asks for). Redirects are answers like any other."""
        moment = str(int(self._clock()))
        signed = f"{message.id}.{moment}.".encode() + message.body
        signature = base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
        headers = {"Content-Type": "application/json", "User-Agent": self._agent, "webhook-id": message.id,
                   "webhook-timestamp": moment, "webhook-signature": "v1," + signature}
        try:
            reply = self._client._call("POST", self._target, headers, body=_Source(message.body), stream=True,
                                       accept=tuple(range(300, 1000)))
        except CallFSError as error:
            return 0, error.message, None
        except (OSError, ValueError, http.client.HTTPException) as error:       # a host name that can be none
            return 0, _reason(error), None
        with contextlib.closing(reply), contextlib.suppress(OSError, http.client.HTTPException):
            reply.response.read(MAX_RECEIPT)
        return reply.status, f"the receiver answered {reply.status}", _retry_after(reply.headers)


class Webhooks:
    """Tells other servers of events (Standard Webhooks): `take` is a sink of the hub, which is called before whoever
    made the change is answered. Without hooks there is no queue. `close` it."""

    def __init__(self, hooks: Mapping[str, WebhookOptions], queue: Callable[[Iterable[str]], HookQueue], *, retry: float,
                 version: str, metrics: Metrics, log: Log, clock: Callable[[], float] = time.time) -> None:
        self._metrics, self._log, self._clock, self._told = metrics, log, clock, 0.0
        self._queue = queue(hooks) if hooks else None
        self.hooks = [Webhook(name, options, self._queue, retry=retry, version=version, metrics=metrics, log=log,
                              clock=clock) for name, options in hooks.items()]
        metrics.gauge("callfs_webhook_backlog", lambda: sum(self._queue.waiting(each.name) for each in self.hooks))
        for name, count in self._queue.unknown.items() if self._queue else ():
            log.warn("events for a webhook that is no longer configured were removed", webhook=name, events=count)

    def start(self) -> None:
        """Begin to deliver, with what an earlier run left."""
        for hook in self.hooks:
            hook.start()

    def take(self, event: Event) -> None:
        """Queue an event for those whom it concerns. Never raises: the change was made."""
        wanted = {hook.name: hook for hook in self.hooks if hook.wants(event)}
        if not wanted:
            return
        moment = self._clock()
        body = json.dumps({"type": "file." + event.type, "timestamp": rfc3339(int(moment * 1e6) * 1000, fraction=True),
                           "data": event.data()}).encode()
        try:
            gone = self._queue.add(list(wanted), f"evt_{event.id}_{secrets.token_hex(4)}", moment, body)
        except CallFSError as error:
            return self._lost(wanted, error)
        for hook in wanted.values():
            if gone.get(hook.name):
                self._dropped(hook, gone[hook.name])
            hook.wake()

    def _lost(self, names: Iterable[str], error: CallFSError) -> None:
        for name in names:
            self._metrics.count("callfs_webhook_deliveries_total", name, "lost")
        if abs(self._clock() - self._told) > 60:        # a disk at its limit takes some and some not: a line a minute
            self._told = self._clock()
            self._log.error("events are lost to webhooks", reason=error.message)

    def _dropped(self, hook: Webhook, count: int) -> None:
        self._metrics.count("callfs_webhook_deliveries_total", hook.name, "dropped", by=count)
        if not hook.full:
            self._log.warn("the backlog of a webhook is full, its oldest events are dropped", webhook=hook.name)
        hook.full = True

    def check(self) -> dict[str, str]:
        """How each is, for `/ready`; where it leads is nobody's business there."""
        return {f"webhook {hook.name}": "ok" if not hook.trouble else "paused" if hook.paused else
                f"fails; {self._queue.waiting(hook.name)} events wait" for hook in self.hooks}

    def close(self) -> None:
        """End at once; what was not delivered stays in the queue."""
        for hook in self.hooks:
            hook.stop()
        for hook in self.hooks:
            hook.join()
        if self._queue is not None:
            self._queue.close()


# ============================================================================
# Download links
# ============================================================================


class Links:
    """Links that open one file to whoever has the token, a few times, until a moment.

    A token is 16 random bytes and their HMAC with path and expiry, so that one from a database that leaked a hash, or
    from another server, opens nothing; only its SHA-256 is stored.
    """

    def __init__(self, tree: Tree, store: MetadataStore, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._tree, self._store, self._secret, self._clock = tree, store, secret.encode(), clock

    def make(self, who: Principal, path: str, seconds: int, max_uses: int) -> tuple[str, Link]:
        """A token and its link. Raises FileNotFound, PermissionDenied, BadRequest for a directory."""
        self._tree.authorise(who, "link")
        with contextlib.closing(refuse_consuming(self._tree.open(who, path))) as handle:
            entry = handle.entry
        if entry.is_dir:
            raise BadRequest("A link leads to a file; this is a directory.")
        now, secret_id = self._clock(), secrets.token_bytes(16)
        expires = float(int(now) + seconds)
        token = f"{b64url(secret_id)}.{b64url(self._sign(secret_id, path, expires))}"
        link = Link(secrets.token_hex(8), _token_hash(token), path, entry.id, who.name, now, expires, max_uses)
        self._store.add_link(link)
        return token, link

    def _sign(self, secret_id: bytes, path: str, expires: float) -> bytes:
        return hmac.digest(self._secret, secret_id + path.encode() + b"\0%d" % int(expires), "sha256")

    def find(self, token: str) -> Link:
        """The link of a token, unused and unexpired. Raises NotFound, Gone. Uses nothing."""
        link = self._store.find_link(_token_hash(token))
        if link is None or not self._genuine(token, link):
            raise NotFound("There is no such link.")
        if link.expires <= self._clock() or link.uses >= link.max_uses:
            raise Gone()
        return link

    def _genuine(self, token: str, link: Link) -> bool:
        secret_id, _, signature = token.partition(".")
        try:
            raw = base64.urlsafe_b64decode(secret_id + "==")
        except ValueError:
            return False
        return hmac.compare_digest(b64url(self._sign(raw, link.path, link.expires)).encode(), signature.encode())

    def open(self, link: Link) -> Handle:
        """The file of a link. One that was deleted and made again is not reached by the old link."""
        handle = refuse_consuming(self._tree.open(Principal(link.owner), link.path))
        if handle.entry.id != link.entry_id or handle.entry.is_dir:
            handle.close()
            raise NotFound("The file of this link is gone.")
        return handle

    def use(self, link: Link) -> None:
        """Count one use. Of any number at once exactly `max_uses` come through; the others raise Gone."""
        if not self._store.use_link(link.token_hash, self._clock()):
            raise Gone()

    def of(self, who: Principal) -> list[Link]:
        """The caller's links, for a trusted user everybody's."""
        return self._store.links(None if who.trusted else who.name)

    def revoke(self, who: Principal, link_id: str) -> None:
        """Raises NotFound where the caller has no such link."""
        if not self._store.delete_link(link_id, None if who.trusted else who.name):
            raise NotFound("There is no such link.")


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


# ============================================================================
# The REST dialect: /v1, /download, /health, /ready, /metrics
# ============================================================================

MAX_LINK_BODY = 4096
MAX_LINK_SECONDS = 86_400
MAX_LINK_USES = 1_000_000
WS_CHUNK = 64 * 1024                        # a message of a download
WS_MAX_UPLOAD = 100 * 1024 * 1024           # then close 1009
WS_SPOOL = 8 * 1024 * 1024                  # in memory up to here


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry as the REST dialect shows it."""
    return {"name": entry.name, "path": entry.path, "type": entry.type, "size": entry.size,
            "mode": f"{entry.mode:04o}", "owner": entry.owner, "mtime": rfc3339(entry.mtime_ns)}


def entry_headers(entry: Entry, fixed: bool = True) -> list[tuple[str, str]]:
    """What a file's or directory's answer says of it; `fixed` as with a `Handle`."""
    mtime = entry.mtime_ns // 1_000_000_000
    headers = [("Last-Modified", http_date(mtime)), ("X-CallFS-Type", entry.type),
               ("X-CallFS-Size", str(entry.size)), ("X-CallFS-Mode", f"{entry.mode:04o}"),
               ("X-CallFS-Owner", header_text(entry.owner)), ("X-CallFS-MTime", rfc3339(entry.mtime_ns)),
               ("X-CallFS-Instance-ID", header_text(entry.instance_id))]
    if not entry.is_dir and fixed:
        headers += [("ETag", f'"{entry.etag}"'), ("Accept-Ranges", "bytes")]
    if entry.digest and fixed:
        headers.append(("Repr-Digest", f"sha-256=:{base64.b64encode(bytes.fromhex(entry.digest)).decode()}:"))
    return headers


def spool_items(folder: Optional[str], items: Iterable[Any], head: bytes, show: Callable[[Any], Any],
                limit: Optional[int] = None) -> tuple[Any, int, str]:
    """Render at most `limit` items as JSON into a spool, so that a million of them never lie in memory: the spool, how
    many they are, the path of the last one when there are more."""
    spool, count, last = open_spool(folder), 0, None
    try:
        with _disk_errors():
            spool.write(head)
            for item in items:
                if count == limit:
                    return spool, count, last.path
                text = json.dumps(show(item), ensure_ascii=False, separators=(",", ":"))
                spool.write((b"," if count else b"") + text.encode("utf-8", "surrogateescape"))
                count, last = count + 1, item
    except BaseException:
        spool.close()
        raise
    return spool, count, ""


def spool_parts(folder: Optional[str], parts: Iterable[bytes]) -> Any:
    """A spool with all of something that never lies in memory whole."""
    spool = open_spool(folder)
    try:
        with _disk_errors():
            for part in parts:
                spool.write(part)
    except BaseException:
        spool.close()
        raise
    return spool


def spooled(request: Request, spool: Any, tail: bytes, headers: Sequence[tuple[str, str]] = (),
            kind: str = "application/json") -> Response:
    """What was spooled as an answer; without a body for HEAD."""
    with _disk_errors():
        spool.write(tail)
        reader = spool_reader(spool)
    response = Response(200, reader, headers=[("Content-Type", kind), *headers])
    if request.method == "HEAD":
        reader.close()
        response.body = None
    return response


def check_size(request: Request, most: int) -> None:
    """Before it is asked whether there is room: what is too large is so whatever the disk has left."""
    if (request.body.length or 0) > most:
        raise PayloadTooLarge(f"The body may have {most} bytes.")


_AT_ONCE = contextlib.nullcontext()


class RestDialect:
    """The routes of `contracts/rest.md`. Turns each request into one call of the tree."""

    def __init__(self, tree: Tree, links: Links, config: Config, *, metrics: Metrics, log: Log,
                 spool_folder: Optional[str] = None, checks: Sequence[Callable[[], dict[str, str]]] = ()) -> None:
        self._tree, self._links, self._metrics, self._log = tree, links, metrics, log
        self._config, self._spools, self._checks = config, spool_folder, checks
        rates = config.rate_limits
        self._link_rate = RateLimiter(rates.link_rate, rates.link_burst, rates.addresses)
        self._download_rate = RateLimiter(rates.download_rate, rates.download_burst, rates.addresses)
        self._blocks: Cache[str, tuple[Entry, bytes]] = Cache(10_000)

    def routes(self) -> list[Route]:
        """The table."""
        files = {"GET": self.get_file, "HEAD": self.get_file, "POST": self.create, "PUT": self.replace,
                 "PATCH": self.change, "DELETE": self.delete}
        folders = {"GET": self.list_directory, "HEAD": self.list_directory}
        absent = dict.fromkeys(("GET", "PUT", "DELETE", "POST"), self.not_built)
        rows: list[tuple[str, Mapping[str, Handler], str]] = [
            ("/v1/files/ws/{path}", {**files, "GET": self.websocket}, "key"),
            ("/v1/files/{path}", files, "key"),
            ("/v1/directories/{path}", folders, "key"),
            ("/v1/directories", folders, "key"),
            ("/v1/links/generate", {"POST": self.make_link}, "user"),
            ("/v1/links", {"GET": self.list_links}, "user"),
            ("/v1/links/{path}", {"DELETE": self.revoke_link}, "user"),
            ("/download/{path}", {"GET": self.download, "HEAD": self.download}, "open"),
            ("/v1/shards/{path}", {"GET": self.no_shard, "HEAD": self.no_shard}, "key"),
            ("/v1/internal/{path}", absent, "internal"),
            ("/metrics", {"GET": self.metrics}, "user"),
            ("/health", {"GET": self.health, "HEAD": self.health}, "open"),
            ("/ready", {"GET": self.ready, "HEAD": self.ready}, "open"),
        ]
        return [Route(pattern, methods, access, rest_error) for pattern, methods, access in rows]

    # -- files -------------------------------------------------------------------------------------------------

    @staticmethod
    def _path(request: Request) -> str:
        return canonical_path(decode_path(request.path[len("/v1/files"):]))

    def _aside(self, request: Request, path: str) -> ContextManager[None]:
        """Around what may have to wait for another machine: other requests go on meanwhile."""
        return aside(request) if self._tree.slow(path) else _AT_ONCE

    def _block(self, handle: Handle) -> bytes:
        """The header lines of an entry; rendered once for as long as the store gives the same object."""
        entry = handle.entry
        if not handle.fixed:
            return header_block(entry_headers(entry, False))
        cached = self._blocks.get(entry.path)
        if cached is not None and cached[0] is entry:
            return cached[1]
        block = header_block(entry_headers(entry))
        self._blocks.put(entry.path, (entry, block))
        return block

    def get_file(self, request: Request) -> Response:
        """`GET` and `HEAD /v1/files/{path}`."""
        path = self._path(request)
        if request.query_text and request.flag("events"):
            return events_response(request, self._tree, path)
        with self._aside(request, path):
            if request.query_text and request.query.get("archive"):
                return archive_response(self._tree, _asking(request), path, request.query["archive"])
            if request.query_text and request.flag("manifest"):
                self._tree.stat(_asking(request), path)
                raise FileNotFound("This file is not erasure-coded and has no manifest.")
            return self._get(request, path)

    def _get(self, request: Request, path: str) -> Response:
        handle = self._tree.open(_asking(request), path, wish_of(request))
        if handle.entry.is_dir:
            handle.close()
            return self._directory(request, handle.entry)
        if request.path.endswith("/"):
            handle.close()
            raise FileNotFound("This is a file; without the slash at the end it can be read.")
        headers: Sequence[tuple[str, str]] = ()
        if request.query_text and request.flag("download"):
            headers = [("Content-Disposition", content_disposition(split_path(path)[1]))]
        return file_response(request, handle, self._block(handle), headers)

    def _directory(self, request: Request, entry: Entry) -> Response:
        """A directory as a JSON array of its entries."""
        with aside(request):
            spool, _, _ = spool_items(self._spools, self._tree.list(_asking(request), entry.path), b"[", entry_json)
        return spooled(request, spool, b"]\n", entry_headers(entry))

    def create(self, request: Request) -> Response:
        """`POST /v1/files/{path}`."""
        path = self._path(request)
        if request.path.endswith("/"):
            with self._aside(request, path):
                return self._made(self._tree.mkdir(_asking(request), path))
        return self._upload(request, path, create=True)

    def replace(self, request: Request) -> Response:
        """`PUT /v1/files/{path}`."""
        path = self._path(request)
        if request.path.endswith("/"):
            raise BadRequest("A path that ends in / is a directory; POST makes one, PUT writes files.")
        return self._upload(request, path, create=False)

    def _upload(self, request: Request, path: str, create: bool) -> Response:
        self._refuse_placement(request)
        with self._aside(request, path):
            return self._made(write_body(self._tree, request, path, self._config.server.max_upload_bytes, create))

    def _made(self, written: Written) -> Response:
        return written_response(written, self._config.server.path_prefix.rstrip("/") + "/v1/files")

    def _refuse_placement(self, request: Request) -> None:
        """Where the bytes should lie: this server has one place."""
        query, headers = request.query, request.headers
        if headers.get("x-callfs-erasure", query.get("erasure", "false")).lower() == "true":
            raise BadRequest("erasure.enabled is false: this server does not code files.")
        backend = headers.get("x-callfs-backend", query.get("backend", "localfs"))
        if backend != "localfs":
            raise NotSupported(f"This server has no backend {backend!r}; it has: localfs.")

    def change(self, request: Request) -> Response:
        """`PATCH`: with RemFS-Offset a write into the file, else a move."""
        path = self._path(request)
        if "remfs-offset" not in request.headers:
            return self._move(request, path)
        with self._aside(request, path):
            return self._made(patch_body(self._tree, request, path, self._config.server.max_upload_bytes))

    def _move(self, request: Request, path: str) -> Response:
        wish = request.json()
        with aside(request):                # between filesystems this copies
            entry = self._tree.move(_asking(request), path, self._target(path, wish),
                                    overwrite=_wants(wish, "overwrite") or request.flag("overwrite"),
                                    parents=_wants(wish, "create_parents") or request.flag("create_parents"))
        return json_response({"path": entry.path})

    def _target(self, path: str, wish: Mapping[str, Any]) -> str:
        name, destination = wish.get("name"), wish.get("destination")
        if (name is None) == (destination is None) or not isinstance(name or destination, str):
            raise BadRequest("Give exactly one of `name` and `destination`, as text.")
        if wish.get("backend", "localfs") != "localfs":
            raise NotSupported("This server has no other backend than localfs.")
        if wish.get("instance", self._config.instance_discovery.instance_id) != \
                self._config.instance_discovery.instance_id:
            raise BadRequest("There is no such instance.")
        if destination is not None:
            if not destination.startswith("/"):
                raise BadRequest("`destination` is an absolute path.")
            return canonical_path(destination)
        if not name or "/" in name or name in (".", ".."):
            raise BadRequest("`name` is one part of a path.")
        return canonical_path(join_path(split_path(path)[0], name))

    def delete(self, request: Request) -> Response:
        """`DELETE /v1/files/{path}`."""
        path = self._path(request)
        with self._aside(request, path):
            self._tree.remove(_asking(request), path, recursive=request.flag("recursive"),
                              folder=request.path.endswith("/"), conditions=conditions_of(request))
        return Response(204, None)

    # -- directories -------------------------------------------------------------------------------------------

    def list_directory(self, request: Request) -> Response:
        """`GET /v1/directories/{path}`."""
        path = canonical_path(decode_path(request.path[len("/v1/directories"):] or "/"))
        query, recursive = request.query, request.flag("recursive")
        depth = _depth(query.get("max_depth", ""))
        who, after = _asking(request), query.get("after", "")
        if after and not after.startswith("/"):
            raise BadRequest("`after` is a path, as `next` gives it.")
        head = {"path": path, "type": DIRECTORY, "recursive": recursive, **({"max_depth": depth} if recursive else {})}
        text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1] + ',"items":['
        try:
            with request.blocking():
                entries = self._tree.walk(who, path, depth if recursive else 0, after)
                spool, count, last = spool_items(self._spools, entries, text.encode(), entry_json,
                                                 _limit(query.get("limit")))
        except Conflict:
            raise BadRequest("This is a file, not a directory.") from None
        rest = {"count": count, **({"next": last} if last else {})}
        tail = b"]," + json.dumps(rest, ensure_ascii=False, separators=(",", ":"))[1:].encode() + b"\n"
        return spooled(request, spool, tail, [("X-CallFS-Type", DIRECTORY), ("X-CallFS-Count", str(count)),
                                              ("X-CallFS-Recursive", str(recursive).lower())])

    # -- WebSocket ---------------------------------------------------------------------------------------------

    def websocket(self, request: Request) -> Response:
        """`GET /v1/files/ws/{path}`; without an upgrade it is a file in a folder named `ws`."""
        if "websocket" not in request.headers.get("upgrade", "").lower():
            return self.get_file(request)
        origin = request.headers.get("origin")
        if origin is not None and urllib.parse.urlsplit(origin).netloc.lower() != \
                request.headers.get("host", "").lower():
            raise PermissionDenied("A page of another site may not open a WebSocket here.")
        mode = request.query.get("mode", "download")
        if mode not in ("download", "upload"):
            raise BadRequest("`mode` is download or upload.")
        path = canonical_path(decode_path(request.path[len("/v1/files/ws"):]))
        headers = websocket_handshake(request)
        serve = self._ws_download(request, path) if mode == "download" else self._ws_upload(request, path)
        return Response(101, None, headers=headers, upgrade=serve)

    def _ws_download(self, request: Request, path: str) -> Callable[[Duplex], None]:
        who = _asking(request)
        try:
            with self._aside(request, path), \
                    contextlib.closing(refuse_consuming(self._tree.open(who, path))) as handle:
                entry = handle.entry
        except PermissionDenied as error:
            return _closing(1008, error.message)
        if entry.is_dir:
            raise BadRequest("This is a directory.")

        def serve(socket: WebSocket) -> None:
            # Not before: a client that is gone never comes here.
            with refuse_consuming(self._tree.open(who, path)).reader() as reader:
                for block in iter(lambda: reader.read(WS_CHUNK), b""):
                    socket.send(block)
            socket.close(1000)
        return _conversation(serve)

    def _ws_upload(self, request: Request, path: str) -> Callable[[Duplex], None]:
        if request.path.endswith("/"):
            raise BadRequest("This is a directory.")
        who, conditions = _asking(request), conditions_of(request)
        try:
            self._tree.may_write(who, path)
        except PermissionDenied as error:
            return _closing(1008, error.message)

        def serve(socket: WebSocket) -> None:
            with open_spool(self._spools, WS_SPOOL) as spool:
                if self._ws_receive(socket, spool):
                    self._ws_store(socket, spool, who, path, conditions)
        return _conversation(serve)

    @staticmethod
    def _ws_receive(socket: WebSocket, spool: Any) -> bool:
        """Gather messages; True when the upload is complete (an empty message or a regular close)."""
        while True:
            message = socket.receive()
            if message is None:
                return socket.close_code in (1000, 1001)
            if not message and isinstance(message, bytes):
                return True
            spool.write(message.encode() if isinstance(message, str) else message)
            if spool.tell() > WS_MAX_UPLOAD:
                socket.close(1009, f"An upload may have {WS_MAX_UPLOAD} bytes.")
                return False

    def _ws_store(self, socket: WebSocket, spool: Any, who: Principal, path: str, conditions: Conditions) -> None:
        size = spool.tell()
        spool.seek(0)
        self._tree.write(who, path, FileBody(_Readable(spool), size), conditions=conditions)
        if socket.close_code is None:       # the client waits for our word; else for our half of the close
            socket.send(f"ok:{size}")
            socket.close(1000)

    # -- links -------------------------------------------------------------------------------------------------

    def make_link(self, request: Request) -> Response:
        """`POST /v1/links/generate`."""
        self._link_rate.take(request.client)
        wish = request.json(MAX_LINK_BODY)
        path = wish.get("path")
        if not isinstance(path, str) or not path:
            raise BadRequest("`path` is missing.")
        token, link = self._links.make(_asking(request), canonical_path(path),
                                       _whole_number("expiry_seconds", wish.get("expiry_seconds"), MAX_LINK_SECONDS),
                                       _whole_number("max_uses", wish.get("max_uses", 1), MAX_LINK_USES))
        self._metrics.count("callfs_single_use_link_generations_total")
        expires = rfc3339(int(link.expires) * 1_000_000_000)
        return json_response({"url": f"{self._base_url(request)}/download/{token}", "token": token, "id": link.id,
                              "path": link.path, "expires": expires, "expires_at": expires,
                              "max_uses": link.max_uses}, 201)

    def _base_url(self, request: Request) -> str:
        options = self._config.server
        return (options.external_url or f"{request.scheme}://{request.headers.get('host', 'localhost')}"
                f"{options.path_prefix}").rstrip("/")

    def list_links(self, request: Request) -> Response:
        """`GET /v1/links`: never the tokens."""
        return json_response({"links": [
            {"id": link.id, "path": link.path, "owner": link.owner, "created_at": rfc3339(int(link.created * 1e9)),
             "expires_at": rfc3339(int(link.expires) * 1_000_000_000), "max_uses": link.max_uses, "uses": link.uses}
            for link in self._links.of(_asking(request))]})

    def revoke_link(self, request: Request) -> Response:
        """`DELETE /v1/links/{id}`."""
        self._links.revoke(_asking(request), request.tail)
        return Response(204, None)

    def download(self, request: Request) -> Response:
        """`GET /download/{token}`: the use is counted before the first byte. `HEAD` uses nothing."""
        self._download_rate.take(request.client)
        try:
            response = self._redeem(request)
        except CallFSError as error:
            state = _LINK_STATES.get(error.status if _TOKEN.fullmatch(request.tail) else 0, "invalid")
            self._metrics.count("callfs_single_use_link_consumptions_total", state)
            raise
        if response.body is not None:
            self._metrics.count("callfs_single_use_link_consumptions_total", "success")
        return response

    def _redeem(self, request: Request) -> Response:
        link = self._links.find(request.tail)
        handle = self._links.open(link)
        response = file_response(request, handle, self._block(handle), [
            ("Content-Disposition", content_disposition(handle.entry.name)), *([_NO_STORE] if handle.fixed else ())])
        if response.body is not None:       # bytes will be sent: not for HEAD, 304, 412 and 416
            try:
                self._links.use(link)
            except CallFSError:
                _close_body(response.body)
                raise
        return response

    # -- the server itself -------------------------------------------------------------------------------------

    def no_shard(self, request: Request) -> Response:
        """`GET /v1/shards/{path}/{index}`."""
        raise FileNotFound("No shard of this file lies on this node.")

    def not_built(self, request: Request) -> Response:
        """The cluster's own routes."""
        raise NotSupported("This server is no member of a cluster.")

    def health(self, request: Request) -> Response:
        """The process answers; nothing is looked up."""
        return json_response({"status": "ok", "version": __version__})

    def ready(self, request: Request) -> Response:
        """Whether requests would succeed: a line for each part."""
        parts = self._tree.check()
        good = all(state == "ok" for state in parts.values())
        for check in (self._tree.check_mounts, *self._checks):
            parts.update(check())
        return json_response({"status": "ready" if good else "not ready", "parts": parts}, 200 if good else 503)

    def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        kind = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        return Response(200, self._metrics.render().encode(), headers=[kind])


_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}")
_LINK_STATES = {404: "not_found", 410: "expired"}


def _asking(request: Request) -> Principal:
    assert request.principal is not None    # the application signs in before it calls a handler
    return request.principal


def _wants(wish: Mapping[str, Any], name: str) -> bool:
    value = wish.get(name, False)
    if not isinstance(value, bool):
        raise BadRequest(f"`{name}` is true or false.")
    return value


def _whole_number(name: str, value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BadRequest(f"`{name}` is a whole number from 1 to {most}.")
    return value


def _depth(text: str) -> int:
    """rest.md: what is no number counts as the default."""
    return min(int(text), MAX_DEPTH) if text.isdecimal() and text.isascii() and len(text) < 10 else 100


def _limit(text: Optional[str]) -> Optional[int]:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise BadRequest("`limit` is a whole number from 1 on.")
    return int(text)


def _conversation(serve: Callable[[WebSocket], None]) -> Callable[[Duplex], None]:
    """An upgrade whose errors are told in a close frame; what the other side did wrong it was told already."""
    def upgrade(duplex: Duplex) -> None:
        socket = WebSocket(duplex)
        try:
            with _disk_errors():
                serve(socket)
            socket.close()
        except (Disconnected, WebSocketError):
            pass
        except CallFSError as error:
            socket.close(1008 if error.status == 403 else 1011, error.message)
    return upgrade


def _closing(code: int, reason: str) -> Callable[[Duplex], None]:
    """An upgrade that only says why not: browsers show no status of a refused handshake (rest.md, "WebSocket")."""
    return lambda duplex: WebSocket(duplex).close(code, reason)


class _Readable:
    """`readinto` for a SpooledTemporaryFile, which has it only from Python 3.11 on."""

    def __init__(self, spool: Any) -> None:
        self._spool = spool

    def readinto(self, view: memoryview) -> int:
        data = self._spool.read(len(view))
        view[:len(data)] = data
        return len(data)


_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?=,|$)")


def write_options(request: Request) -> WriteOptions:
    """What an upload's headers ask for: a digest to hold (RFC 9530), a modification time to keep (ownCloud's
    `X-OC-Mtime`, seconds since 1970)."""
    digests, mtime = set(), request.headers.get("x-oc-mtime")
    for name in ("content-digest", "repr-digest"):
        header = request.headers.get(name, "")
        match = _DIGEST.search(header)
        if "sha-256" in header and match is None:
            raise BadRequest(f"{name}: write sha-256=:BASE64: (RFC 9530).")
        if match:
            digests.add(base64.b64decode(match.group(1)).hex())
    if len(digests) > 1:
        raise BadRequest("Content-Digest and Repr-Digest differ; here they mean the same bytes.")
    if mtime is not None and not re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", mtime):
        raise BadRequest("X-OC-Mtime is a number of seconds since 1970.")
    return WriteOptions(None, int(Fraction(mtime) * 10**9) if mtime else None, "".join(digests))


def write_body(tree: Tree, request: Request, path: str, most: int, create: bool = False) -> Written:
    """Store the body of a request, of at most so many bytes, under the conditions of its headers."""
    if "content-range" in request.headers:
        raise BadRequest("Content-Range on an upload is not supported; PATCH with RemFS-Offset writes a part.")
    check_size(request, most)
    return tree.write(_asking(request), path, request.body, create=create, conditions=conditions_of(request),
                      options=write_options(request))


def patch_body(tree: Tree, request: Request, path: str, most: int) -> Written:
    """Write the body of a request into a file, at RemFS-Offset."""
    offset = request.headers.get("remfs-offset", "")
    if not re.fullmatch(r"[0-9]{1,18}", offset):
        raise BadRequest("RemFS-Offset is the number of bytes in the file before those of the body.")
    check_size(request, most)
    return tree.patch(_asking(request), path, request.body, int(offset), conditions_of(request))


def written_response(written: Written, root: str) -> Response:
    """What a write did; `root`: where the tree begins in this dialect."""
    entry, value = written.entry, entry_json(written.entry)
    headers = [] if entry.is_dir else [("ETag", f'"{entry.etag}"')]
    if written.created:
        headers.append(("Location", root + urllib.parse.quote(entry.path)))
    if written.message:
        value["message"] = written.message
        headers.append(("X-CallFS-Message", header_text(written.message)))
    return json_response(value, 201 if written.created else 200, headers)

# ============================================================================
# The PFS dialect: /api/v1
# ============================================================================


PFS_FEATURES = ("files", "directories", "stat", "rename", "copy", "chmod", "touch", "truncate", "stream", "mounts", "grep",
                "digest", "capabilities")
_QUERY_NUMBER = re.compile(r"-?[0-9]{1,18}")
_OCTAL = re.compile(r"(?:0o)?[0-7]{1,5}")


def file_info(entry: Entry, meta: Meta) -> dict[str, Any]:
    """An entry as clients of PFS decode it, strictly: inner keys capitalised, the mode decimal without type bits."""
    return {"name": entry.name, "size": entry.size, "mode": entry.mode & 0o7777,
            "modTime": rfc3339(entry.mtime_ns, True), "isDir": entry.is_dir,
            "meta": {"Name": meta.name, "Type": meta.type,
                     "Content": None if meta.content is None else dict(meta.content)}}


class PfsDialect:
    """The routes of `contracts/pfs.md`. Turns each request into one call of the tree or of the mounts.

    What is done may have to wait for another machine or copy a gigabyte, so handlers run aside. Not so those that
    are done at once where the filesystem is: waking another thread would take longer than they do.
    """

    def __init__(self, tree: Tree, mounts: Mounts, config: Config, *, log: Log,
                 spool_folder: Optional[str] = None) -> None:
        self._tree, self._mounts, self._config, self._log = tree, mounts, config, log
        self._spools = spool_folder

    def routes(self) -> list[Route]:
        """The table."""
        rows: list[tuple[str, Mapping[str, Handler]]] = [
            ("files", {"GET": self.read, "HEAD": self.read, "PUT": self.write, "POST": self.create,
                       "DELETE": self.delete}),
            ("directories", {"GET": self.list, "HEAD": self.list, "POST": self.mkdir, "DELETE": self.delete}),
            ("stat", {"GET": self.stat, "HEAD": self.stat}),
            ("rename", {"POST": self.rename}),
            ("copy", {"POST": self.copy}),
            ("chmod", {"POST": self.chmod}),
            ("touch", {"POST": self.touch}),
            ("truncate", {"POST": self.truncate}),
            ("mounts", {"GET": self.list_mounts, "HEAD": self.list_mounts}),
            ("mount", {"POST": self.mount}),
            ("unmount", {"POST": self.unmount}),
            ("plugins", {"GET": self.list_plugins, "HEAD": self.list_plugins}),
            ("plugins/load", {"POST": self.load_plugin}),
            ("plugins/unload", {"POST": self.load_plugin}),
            ("grep", {"POST": self.grep}),
            ("digest", {"POST": self.digest}),
            ("capabilities", {"GET": self.capabilities, "HEAD": self.capabilities}),
        ]
        routes = [Route(f"/api/v1/{name}", {verb: self._set_aside(handler) for verb, handler in methods.items()}, "pfs",
                        pfs_error) for name, methods in rows]
        absent = dict.fromkeys(_METHODS - {"OPTIONS"}, self.absent)
        health = Route("/api/v1/health", {"GET": self.health, "HEAD": self.health}, "open", pfs_error)
        return [*routes, health, *(Route(f"/api/v1{rest}", absent, "open", pfs_error) for rest in ("", "/{path}"))]

    def _set_aside(self, handler: Handler) -> Handler:
        quick = handler in (self.read, self.stat, self.capabilities)
        if handler in (self.list_mounts, self.list_plugins):
            return handler

        def run(request: Request) -> Response:
            path = request.query.get("path") if quick else None
            if quick and not (path and self._tree.slow(canonical_path(path))):
                return handler(request)
            with aside(request):
                return handler(request)
        return run

    # -- files -------------------------------------------------------------------------------------------------

    def read(self, request: Request) -> Response:
        """`GET /api/v1/files`: all of a file as every dialect gives it, or the part from `offset` on."""
        path, query = _pfs_path(request), request.query
        if request.flag("events"):
            return events_response(request, self._tree, path)
        start, size = _query_number(query, "offset", 0, 0), _query_number(query, "size", -1, -1)
        handle = self._tree.open(_asking(request), path, wish_of(request))
        if handle.entry.is_dir:
            handle.close()
            raise BadRequest("This is a directory; /api/v1/directories lists it.")
        if not handle.fixed:
            return self._live(request, handle, start)
        if request.method == "HEAD" or not (request.flag("stream") or start or size >= 0):
            return file_response(request, handle, header_block(_pfs_headers(handle.entry)))
        start = min(start, handle.entry.size)
        stop = handle.entry.size if size < 0 else min(start + size, handle.entry.size)
        return self._part(handle, start, stop, request.flag("stream"))

    @staticmethod
    def _live(request: Request, handle: Handle, start: int) -> Response:
        """What has no fixed bytes: behind its beginning there is nothing, and `size` would tear a message."""
        if start:
            handle.close()
            return Response(200, b"", headers=[OCTETS, _NO_STORE])
        return file_response(request, handle, b"")

    @staticmethod
    def _part(handle: Handle, start: int, stop: int, chunked: bool) -> Response:
        try:
            reader = handle.reader(start, stop)
        except CallFSError:
            handle.close()
            raise
        if chunked:                         # without a length the body goes out in chunks
            reader = ChunkReader(reader, None, reader.close)
        return Response(200, reader, block=header_block([OCTETS, *_pfs_headers(handle.entry)]))

    def write(self, request: Request) -> Response:
        """`PUT /api/v1/files`: the body is the file."""
        path = _pfs_path(request)
        check_size(request, self._config.server.max_upload_bytes)
        written = self._tree.write(_asking(request), path, request.body, conditions=conditions_of(request),
                                   options=write_options(request))
        return _said(written.message or "OK")

    def create(self, request: Request) -> Response:
        """`POST /api/v1/files`: an empty file, never a write to what is there."""
        try:
            self._tree.write(_asking(request), _pfs_path(request), bytes_body(b""), create=True,
                             conditions=Conditions(if_none_match="*"))
        except PreconditionFailed:          # a place to write to: an empty message is nothing to create
            raise FileExists() from None
        return _said("file created", 201)

    def delete(self, request: Request) -> Response:
        """`DELETE` of files and directories alike."""
        self._tree.remove(_asking(request), _pfs_path(request), recursive=request.flag("recursive"),
                          conditions=conditions_of(request))
        return _said("deleted")

    def stat(self, request: Request) -> Response:
        """`GET /api/v1/stat`."""
        who = _asking(request)
        entry = self._tree.stat(who, _pfs_path(request))
        return json_response(file_info(entry, self._tree.describe(who, entry)))

    def rename(self, request: Request) -> Response:
        """`POST /api/v1/rename`."""
        path, target = _pfs_path(request), canonical_path(_text(request.json(), "newPath"))
        self._tree.move(_asking(request), path, target)
        return _said("renamed")

    def copy(self, request: Request) -> Response:
        """`POST /api/v1/copy` `{"newPath","recursive","overwrite"}`: on the server, between any two filesystems; what
        the reference does not have. With `stream` a line of JSON tells now and then how far it has come."""
        wish, path = request.json(), _pfs_path(request)
        target, recursive = canonical_path(_text(wish, "newPath")), _wants(wish, "recursive")
        overwrite, who = "overwrite" not in wish or _wants(wish, "overwrite"), _asking(request)
        if _wants(wish, "stream"):
            lines = _copy_lines(lambda progress: self._tree.copy(who, path, target, recursive=recursive,
                                                                 overwrite=overwrite, progress=progress))
            return Response(200, ChunkReader(lines), headers=[("Content-Type", "application/x-ndjson")])
        done = self._tree.copy(who, path, target, recursive=recursive, overwrite=overwrite)
        return json_response({"message": "copied", **done._asdict()})

    def chmod(self, request: Request) -> Response:
        """`POST /api/v1/chmod`."""
        path, mode = _pfs_path(request), request.json().get("mode")
        if isinstance(mode, str) and _OCTAL.fullmatch(mode):
            mode = int(mode, 8)
        if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o7777:
            raise BadRequest('`mode` is a decimal number (420) or octal digits as text ("0644"), at most 0o7777.')
        self._tree.chmod(_asking(request), path, mode)
        return _said("permissions changed")

    def touch(self, request: Request) -> Response:
        """`POST /api/v1/touch`."""
        self._tree.touch(_asking(request), _pfs_path(request))
        return _said("touched")

    def truncate(self, request: Request) -> Response:
        """`POST /api/v1/truncate`."""
        path, size = _pfs_path(request), _query_number(request.query, "size", None, 0)
        if size > self._config.server.max_upload_bytes:
            raise PayloadTooLarge(f"A file may have {self._config.server.max_upload_bytes} bytes.")
        self._tree.truncate(_asking(request), path, size, conditions_of(request))
        return _said("truncated")

    # -- directories -------------------------------------------------------------------------------------------

    def list(self, request: Request) -> Response:
        """`GET /api/v1/directories`."""
        who, path = _asking(request), _pfs_path(request)
        try:
            spool, _, _ = spool_items(self._spools, self._tree.list(who, path), b'{"files":[',
                                      lambda entry: file_info(entry, self._tree.describe(who, entry)))
        except Conflict:
            raise BadRequest("This is a file, not a directory.") from None
        return spooled(request, spool, b"]}\n")

    def mkdir(self, request: Request) -> Response:
        """`POST /api/v1/directories`."""
        path, mode = _pfs_path(request), request.query.get("mode") or "755"
        if not _OCTAL.fullmatch(mode) or int(mode, 8) > 0o7777:
            raise BadRequest("`mode` is octal digits, as 755.")
        if not self._tree.mkdir(_asking(request), path, int(mode, 8)).created:
            raise FileExists("A directory is already there.")
        return _said("directory created", 201)

    # -- mounts and plugins ------------------------------------------------------------------------------------

    def list_mounts(self, request: Request) -> Response:
        """`GET /api/v1/mounts`."""
        return json_response({"mounts": self._mounts.list(_asking(request))})

    def mount(self, request: Request) -> Response:
        """`POST /api/v1/mount`."""
        who = self._administrator(request)
        wish = request.json()
        path, kind, config = canonical_path(_text(wish, "path")), _text(wish, "fstype"), wish.get("config")
        if not isinstance(config, (dict, type(None))):
            raise BadRequest("`config` is an object.")
        self._mounts.mount(who, path, kind, config or {})
        return _said("plugin mounted")

    def unmount(self, request: Request) -> Response:
        """`POST /api/v1/unmount`."""
        who = self._administrator(request)
        self._mounts.unmount(who, canonical_path(_text(request.json(), "path")))
        return _said("plugin unmounted")

    def _administrator(self, request: Request) -> Principal:
        """Who asks. Raises before the body is looked at what an ordinary user is answered."""
        who = _asking(request)
        self._tree.administer(who)
        return who

    def list_plugins(self, request: Request) -> Response:
        """`GET /api/v1/plugins`: the external ones."""
        self._tree.authorise(_asking(request), "list")
        return json_response({"loaded_plugins": []})

    def load_plugin(self, request: Request) -> Response:
        """`POST /api/v1/plugins/load` and `unload`."""
        self._administrator(request)
        raise NotSupported("This version of callfs loads no external plugins; GET /api/v1/capabilities tells the "
                           "filesystems that it has.")

    # -- looking into files ------------------------------------------------------------------------------------

    def digest(self, request: Request) -> Response:
        """`POST /api/v1/digest`."""
        wish = request.json()
        path, algorithm = canonical_path(_text(wish, "path")), _text(wish, "algorithm")
        return json_response({"algorithm": algorithm, "path": path,
                              "digest": self._tree.digest(_asking(request), path, algorithm)})

    def grep(self, request: Request) -> Response:
        """`POST /api/v1/grep`: all matches at once, or (`stream`) a line of JSON for each as it is found."""
        wish = request.json()
        path, pattern = canonical_path(_text(wish, "path")), _text(wish, "pattern")
        recursive, ignore_case, stream = (_wants(wish, name) for name in ("recursive", "case_insensitive", "stream"))
        matches = self._tree.grep(_asking(request), path, pattern, recursive=recursive, ignore_case=ignore_case)
        with contextlib.ExitStack() as stack:
            stack.callback(matches.close)               # type: ignore[attr-defined]
            if not stream:
                spool, count, _ = spool_items(self._spools, matches, b'{"matches":[', _shown_match)
                return spooled(request, spool, b'],"count":%d}\n' % count)
            first = list(itertools.islice(matches, 1))  # what is wrong with path or pattern shows now
            reader = ChunkReader(_match_lines(itertools.chain(first, matches)), None, stack.pop_all().close)
            return Response(200, reader, headers=[("Content-Type", "application/x-ndjson")])

    # -- the server itself -------------------------------------------------------------------------------------

    def capabilities(self, request: Request) -> Response:
        """`GET /api/v1/capabilities`: what this server can do, and with `path` what can be done there."""
        self._tree.authorise(_asking(request), "list")
        value: dict[str, Any] = {"version": __version__, "dialects": ["rest", "pfs", "remfs"], "features": list(PFS_FEATURES),
                                 "filesystems": sorted(self._mounts.types), "digests": sorted(DIGESTS)}
        if "path" in request.query:
            path = _pfs_path(request)
            kind, operations = self._tree.capabilities(_asking(request), path)
            value.update({"path": path, "filesystem": kind, "operations": operations})
        return json_response(value)

    def health(self, request: Request) -> Response:
        """`GET /api/v1/health`: nobody is asked, nothing is looked up."""
        return json_response({"status": "healthy", "version": __version__})

    def absent(self, request: Request) -> Response:
        """Every other address."""
        raise NotFound("There is no such address; /api/v1/files?path=/PATH reads a file.")


def _said(message: str, status: int = 200) -> Response:
    return json_response({"message": message}, status)


def _pfs_path(request: Request) -> str:
    """The query parameter `path`, which every route about files needs."""
    path = request.query.get("path")
    if not path:
        raise BadRequest("The query parameter `path` is missing.")
    return canonical_path(path)


def _pfs_headers(entry: Entry) -> list[tuple[str, str]]:
    """What a file's answer says besides its bytes."""
    return [("Last-Modified", http_date(entry.mtime_ns // 1_000_000_000)), ("ETag", f'"{entry.etag}"'),
            ("Accept-Ranges", "bytes")]


def _query_number(query: Mapping[str, str], name: str, default: Optional[int], least: int) -> int:
    text = query.get(name, "")
    if not text and default is not None:
        return default
    if not _QUERY_NUMBER.fullmatch(text) or int(text) < least:
        raise BadRequest(f"`{name}` is a whole number from {least} on.")
    return int(text)


def _text(wish: Mapping[str, Any], name: str) -> str:
    value = wish.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"`{name}` is missing, or no text.")
    return value


def _shown_match(match: Match) -> dict[str, Any]:
    return {"file": match.path, "line": match.line, "content": match.content}


def _match_lines(matches: Iterable[Match]) -> Iterator[bytes]:
    """A line of JSON for each match, and one that sums up."""
    count = 0
    for count, match in enumerate(matches, 1):
        yield json.dumps(_shown_match(match), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    yield b'{"type":"summary","count":%d}\n' % count


def _copy_lines(copy: Callable[[Progress], Copied]) -> Iterator[bytes]:
    """Progress of a copy that a thread makes, a line each half second; the last one has the message or the error."""
    outcome: dict[str, Any] = {}

    def progress(done: Copied) -> None:
        if stopped.is_set():                # nobody listens any more
            raise Disconnected()
        outcome["done"] = done

    def run() -> None:
        try:
            outcome["last"] = {"message": "copied", **copy(progress)._asdict()}
        except CallFSError as error:
            outcome["last"] = {"error": error.message, "code": error.code, "status": error.status}
    stopped, thread = threading.Event(), threading.Thread(target=run, name="callfs-copy", daemon=True)
    thread.start()
    try:
        thread.join(0.5)
        while thread.is_alive():
            if "done" in outcome:
                yield json.dumps(outcome["done"]._asdict()).encode() + b"\n"
            thread.join(0.5)
        yield json.dumps(outcome.get("last", {"error": "The copy failed."})).encode() + b"\n"
    finally:
        stopped.set()
        thread.join()


def pfs_error(request: Optional[Request], error: CallFSError) -> Response:
    """`{"error"}`; a wrong method has the one text that clients know."""
    message = "method not allowed" if isinstance(error, MethodNotAllowed) else error.message
    return json_response({"error": message}, error.status, error.headers)


# ============================================================================
# The browser page: what people see at /fs/, and their signing in
# ============================================================================

# What a page may load and do. The script sets names and contents as text only; this holds should it ever forget.
_CSP_OF_PAGE = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
                "media-src 'self'; connect-src 'self'; frame-src blob:; form-action 'self'; base-uri 'none'; "
                "frame-ancestors 'none'")
# With `no-referrer` a browser would send a form with the origin `null` (Fetch, "append a request Origin header").
_POLICY_OF_PAGE = header_block({
    **dict(_SECURITY_HEADERS), "Referrer-Policy": "same-origin", _CSP: _CSP_OF_PAGE}.items())
_HTML = ("Content-Type", "text/html; charset=utf-8")
_MAX_FORM = 16 * 1024
_PATH_OF_PAGE = re.compile(r"/fs/[!-\[\]-~]*")     # no host, no scheme, no backslash, nothing to end a header

_PAGE_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{prefix}/page/icon.svg?v={version}">
<link rel="stylesheet" href="{prefix}/page/style.css?v={version}">
"""
_LISTING = _PAGE_HEAD + """\
<script src="{prefix}/page/app.js?v={version}" defer></script>
</head>
<body data-prefix="{prefix}" data-path="{path}" data-backend="{backend}" data-features="{features}" data-user="{user}" \
data-more="{more}" data-since="{since}">
<header><nav aria-label="Path"><ol id="path">{crumbs_html}</ol></nav>{person_html}</header>
<main>
<div class="paper">
<table id="list">
<thead><tr><th>Name</th><th>Size</th><th>Changed</th></tr></thead>
<tbody>
{rows_html}</tbody>
</table>
</div>
<p class="paper">{links_html}</p>
</main>
</body>
</html>
"""
_SHEET = _PAGE_HEAD + """\
</head>
<body>
<main class="paper sheet"><h1>{title}</h1>{content_html}</main>
</body>
</html>
"""
_SIGN_IN = """\
<form method="post" action="{prefix}/session">{told_html}<input type="hidden" name="next" value="{next}">
<label>Key <input type="password" name="key" autocomplete="current-password" required autofocus></label>
<button class="main">Sign in</button></form>"""
_SIGN_OUT = """\
<form method="post" action="{prefix}/session"><input type="hidden" name="next" value="{next}">
<span class="user">{user}</span> <button name="out" value="1">Sign out</button></form>"""

_ICONS = {                                  # paths of 24 x 24, from 0,0 on, drawn with a stroke
    "file": "m6 3h8l4 4v14h-12zm8 0v4h4",
    "folder": "m3 6h6l2 2h10v11h-18z",
    "image": "m4 5h16v14h-16zm0 11l5-5 4 4 3-3 4 4",
    "audio": "m9 18v-12l10-2v12m-10 2a2 2 0 1 1-4 0 2 2 0 0 1 4 0zm10-2a2 2 0 1 1-4 0 2 2 0 0 1 4 0z",
    "video": "m3 6h12v12h-12zm12 4l6-3v10l-6-3",
    "pdf": "m6 3h8l4 4v14h-12zm3 9h6m-6 4h6",
    "queue": "m4 5h16v4h-16zm0 6h16v4h-16zm4 8h8",
    "control": "m5 7h8m4 0h2m-14 10h2m4 0h8m-4-13v6m-6 4v6",
    "stream": "m3 8c3-3 6 3 9 0s6 3 9 0m-18 8c3-3 6 3 9 0s6 3 9 0",
    "mount": "m4 5h16v6h-16zm0 8h16v6h-16zm4-5h0m0 8h0",
    "down": "m12 4v11m-5-4l5 5 5-5m-12 9h14",
    "up": "m12 16v-11m-5 4l5-5 5 5m-12 11h14",
    "upfolder": "m3 6h6l2 2h10v11h-18zm9 11v-6m-2.5 2l2.5-2.5 2.5 2.5",
    "plus": "m12 5v14m-7-7h14",
    "eye": "m2 12s4-6 10-6 10 6 10 6-4 6-10 6-10-6-10-6zm10 0h0",
    "link": "m10 14l4-4m-6 1l-2 2a3.5 3.5 0 0 0 5 5l2-2m3-3l2-2a3.5 3.5 0 0 0-5-5l-2 2",
    "pen": "m4 20l1-4l11-11l3 3l-11 11z",
    "move": "m5 12h13m-5-5l5 5-5 5",
    "bin": "m5 7h14m-10 0v-3h6v3m-8 0l1 13h8l1-13",
    "key": "m3 7h18v10h-18zm4 4h0m4 0h0m4 0h0m-7 3h8",
    "close": "m6 6l12 12m0-12l-12 12",
    "sort": "m7 14l5-5 5 5",
}


def _icon_svg(width: int, path: str, color: str = "%23000") -> str:
    return (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} 24' fill='none' stroke='{color}' "
            f"stroke-width='2' stroke-linecap='round' stroke-linejoin='round'><path d='{path}'/></svg>")


def _icon_style() -> str:
    """All icons as one picture, of which each class shows its part."""
    path = "".join(f"M{24 * place} 0{path}" for place, path in enumerate(_ICONS.values()))
    places = "".join(f".i-{name} {{ --at: {place} }}\n" for place, name in enumerate(_ICONS))
    return f'.i {{ --i: url("data:image/svg+xml,{_icon_svg(24 * len(_ICONS), path)}") }}\n{places}'


_STYLE = r"""
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --text: #1c2330; --dim: #5d6778; --line: #e1e5ec;
  --main: #2f62d9; --pick: #e4ecfe; --hover: #f1f4f8; --bad: #b3261e; --shade: 0 8px 30px #1c233030; }
@media (prefers-color-scheme: dark) {
  :root { --back: #12151b; --card: #1a1f28; --text: #e6eaf1; --dim: #98a3b5; --line: #2b323f; --main: #8ab0ff;
    --pick: #223357; --hover: #212835; --bad: #ff9d94; --shade: 0 8px 30px #000b; }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
header, main { max-width: 72rem; margin: auto; padding: 0 1rem; }
header, header form, .upload, .note { display: flex; gap: .6rem; align-items: center; }
header { min-height: 3.5rem; color: var(--dim); }
nav, .upload .name, .note span { flex: 1; min-width: 0; overflow-wrap: anywhere; }
#path { display: flex; flex-wrap: wrap; list-style: none; margin: 0; padding: 0; font-size: 1.05rem; }
#path li + li::before { content: "/"; }
#path a { padding: .3rem; }
#path li:last-child a { color: var(--text); font-weight: 600; }
a { color: inherit; text-decoration: none; }
:focus-visible { outline: 2px solid var(--main); outline-offset: 1px; }
button, .button, input, select, textarea { font: inherit; color: inherit; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); padding: .4rem .75rem; min-height: 2.3rem; }
button, .button { display: inline-flex; gap: .45rem; align-items: center; justify-content: center; cursor: pointer; }
button.main { background: var(--main); border-color: var(--main); color: var(--card); }
button.plain { border: 0; background: none; padding: 0; min-height: 0; }
.dim, .tag, .size, .time, .heads, th, td + td, footer, #empty { color: var(--dim); }
.bad, .danger { color: var(--bad); }
.paper { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
table { width: 100%; border-spacing: 0; }
td, th { padding: .5rem 1rem; text-align: left; overflow-wrap: anywhere; }
td + td, th + th { text-align: right; white-space: nowrap; }
.sheet { width: min(24rem, 100vw - 2rem); margin: 12vh auto; padding: 1.5rem 2rem 2rem; }
h1, h2 { font-size: 1.2rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
label { display: grid; gap: .3rem; margin: .8rem 0; }

#bar { position: sticky; top: 0; z-index: 2; padding: .5rem 0 .2rem; background: var(--back); }
#bar, .tools { display: flex; flex-wrap: wrap; gap: .5rem; }
#filter { flex: 1; min-width: 8rem; max-width: 18rem; margin-left: auto; }
.heads, .row { display: grid; grid-template-columns: 2.4rem 1.8rem minmax(0, 1fr) 8rem 13rem; align-items: center; width: 100%; }
.heads .name { grid-column: 3; }
.heads .i { visibility: hidden; }
[aria-sort$="ending"] .i { visibility: visible; }
[aria-sort="descending"] .i { transform: scaleY(-1); }
.heads .size button, .heads .time button { flex-direction: row-reverse; }
.heads button { vertical-align: middle; }
.size, .time { text-align: right; white-space: nowrap; }
.time { padding-right: 1rem; }
#rows { position: relative; outline: 0; }
.row { position: absolute; height: 40px; border-radius: 6px; cursor: default; }
.row:hover { background: var(--hover); }
.row[aria-selected="true"] { background: var(--pick); }
#rows:focus-visible .at { box-shadow: inset 0 0 0 2px var(--main); }
.row .name { display: flex; gap: .6rem; align-items: center; }
.link { overflow: hidden; text-overflow: ellipsis; white-space: pre; padding: .4rem 0; }
.tag { font-size: .8rem; border: 1px solid var(--line); border-radius: 99px; padding: 0 .5rem; }
.pick { text-align: center; }
.pick input { min-height: 0; width: 1.05rem; height: 1.05rem; accent-color: var(--main); }
#empty { padding: 3rem 1rem; text-align: center; }
footer { padding: .8rem .2rem 5rem; }
#live { display: inline-block; width: .55rem; height: .55rem; margin-right: .5rem; border-radius: 50%; background: var(--line); }
#live.on { background: #2a6; }

dialog { width: min(30rem, 100vw - 2rem); border: 0; border-radius: 14px; padding: 1.3rem; background: var(--card);
  color: inherit; box-shadow: var(--shade); }
dialog.wide { width: min(64rem, 100vw - 2rem); }
dialog::backdrop { background: #0b0f1780; }
dialog input, dialog textarea, dialog select, pre, progress, .stage audio, .stage iframe { width: 100%; }
.buttons { display: flex; flex-direction: row-reverse; gap: .5rem; margin-top: 1.2rem; }
.stage { display: grid; place-items: center; }
.stage > * { max-width: 100%; max-height: 68vh; border: 0; border-radius: 8px; }
.stage iframe { height: 68vh; }
pre { margin: 0; overflow: auto; padding: .8rem; background: var(--back); font: 13px/1.5 monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .4rem 1rem; }
dd { margin: 0; color: var(--dim); }
#notes, #uploads { position: fixed; z-index: 5; bottom: 1rem; left: 1rem; width: min(24rem, 100vw - 2rem); }
#uploads { left: auto; right: 1rem; padding: .8rem 1rem; background: var(--card); border-radius: 12px; box-shadow: var(--shade); }
.note { margin-top: .5rem; padding: .5rem .5rem .5rem 1rem; border-radius: 10px; background: var(--text); color: var(--back); }
.note.bad { background: var(--bad); }
.note button { background: none; border-color: currentColor; }
.drop main { outline: 3px dashed var(--main); border-radius: 12px; }

.i { flex: none; width: 18px; height: 18px; background: currentColor; mask: var(--i) calc(var(--at) * -18px) 0 / auto 100%; }
.i-folder, .i-mount { color: var(--main); }
@media (max-width: 640px) {
  .tools .label, .heads .size, .heads .time, td:nth-child(3), th:nth-child(3) { display: none; }
  button, .button { min-width: 2.75rem; min-height: 2.75rem; }
  #filter { flex-basis: 100%; max-width: none; }
  .row { grid-template: 1fr 1fr / 2.8rem 1.8rem auto minmax(0, 1fr); height: 60px; }
  .row .pick, .row > .i { grid-row: 1 / 3; }
  .row .name { align-self: end; grid-column: 3 / 5; padding-right: 1rem; }
  .row .size, .row .time { grid-row: 2; align-self: start; font-size: .85rem; text-align: left; }
  .row .size:not(:empty) { padding-right: .8rem; }
}
@media (forced-colors: active) { .i { background: CanvasText; } }
"""

_SCRIPT = r"""
'use strict';
// Names and contents are only ever set as text.
const first = document.cloneNode(true), PREFIX = document.body.dataset.prefix, PIECE = 8 << 20, TEXT = 256 << 10, UNDO = 7000;
const CONTROLS = {enqueue: 'What is written here becomes a message.', dequeue: 'Reading this would take a message out.',
  peek: '', size: '', ack: 'For programs that are done with a message.', clear: 'Writing here removes every message.'};
const KINDS = {image: /\.(png|jpe?g|gif|webp|avif|bmp|ico|svg)$/i,
  audio: /\.(mp3|og[ag]|wav|flac|m4a|opus)$/i, video: /\.(mp4|webm|mov|m4v|ogv)$/i, pdf: /\.pdf$/i};
const view = {items: [], shown: [], at: -1, anchor: 0, chosen: new Set(), gone: new Set(), sort: 'name', down: false,
  turn: 0, took: 0};

const $ = selector => document.querySelector(selector);
const join = (folder, name) => (folder === '/' ? '' : folder) + '/' + name;
const parentOf = path => path.slice(0, path.lastIndexOf('/')) || '/';
const nameOf = path => path.slice(path.lastIndexOf('/') + 1);
const urlOf = path => PREFIX + '/fs' + path.split('/').map(encodeURIComponent).join('/');
const folderUrl = path => urlOf(path).replace(/\/?$/, '/');
const plural = (count, word) => `${count.toLocaleString()} ${word}${count === 1 ? '' : 's'}`;
const named = items => items.length > 1 ? plural(items.length, 'item') : items[0].name;
const focus = () => list.focus({preventScroll: true});
const pathOf = item => join(view.path, item.name);
const hidden = name => name.startsWith('.upload-');
const dates = new Intl.DateTimeFormat([], {dateStyle: 'medium', timeStyle: 'short'});

function make(what, props = {}, ...children) {
  const [tag, className = ''] = what.split('.'), node = Object.assign(document.createElement(tag), {className});
  if (tag === 'button') node.type = 'button';
  for (const [name, value] of Object.entries(props))
    if (name in node) node[name] = value; else node.setAttribute(name, value);
  node.append(...children.filter(Boolean));
  return node;
}

const icon = name => make('span.i i-' + name, {'aria-hidden': true});
const button = (label, name, onclick, props = {}, look = '') =>
  make('button.' + look, {title: label, onclick, ...props}, icon(name), make('span.label', {}, label));
const cell = (name, ...children) => make('span.' + name, {role: 'gridcell'}, ...children);

function size(bytes) {
  const step = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return (bytes / 1000 ** step).toLocaleString([], {style: 'unit', unitDisplay: step ? 'short' : 'long',
    unit: ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'][step], maximumSignificantDigits: step ? 3 : 4});
}

function failure(status, text) {
  let message = `The server answered ${status}.`;
  try { message = JSON.parse(text).message || message; } catch { /* a proxy's page */ }
  return Object.assign(new Error(status ? message : 'The server cannot be reached.'),
    {status, broken: !status || status === 429 || status > 501});
}

async function ask(method, address, body, headers = {}, more = {}) {
  const answer = await fetch(address, {method, body, headers, ...more}).catch(() => { throw failure(0); });
  if (!answer.ok) throw failure(answer.status, await answer.text());
  return answer;
}

// ---- dialogs and notes

// Resolves to the value of the button; Enter is the first.
function dialog(title, content, buttons, look = '') {
  return new Promise(resolve => {
    const box = make('dialog.' + look,
      {'aria-label': title, onclose: () => { box.remove(); resolve(box.returnValue); focus(); }},
      make('form', {method: 'dialog'}, make('h2', {}, title), ...content, make('div.buttons', {}, ...buttons.map(
        ([value, label, look = '']) => make('button.' + look, {value, type: 'submit', formNoValidate: !value}, label)))));
    document.body.append(box);
    box.showModal();
  });
}

async function askText(title, label, value, done) {
  const input = make('input', {value, required: true, autofocus: true}), stem = value.lastIndexOf('.');
  setTimeout(() => input.setSelectionRange(0, stem > 0 ? stem : value.length));
  return await dialog(title, [make('label', {}, label, input)], [['yes', done, 'main'], ['', 'Cancel']]) && input.value;
}

function note(text, bad = false, label = '', run = null) {
  const box = make(bad ? 'div.note bad' : 'div.note', {role: 'status'}, make('span', {}, text),
    label && make('button', {onclick: () => { box.remove(); run(); }}, label));
  notes.append(box);
  setTimeout(() => box.remove(), bad ? 12000 : UNDO);
}

function complain(error) {
  if (error.status === 401) note('You are signed out.', true, 'Sign in', () => location.reload());
  else if (!error.aborted) note(error.message, true);
}

const guarded = run => (...args) => Promise.resolve(run(...args)).catch(complain);

// ---- a folder: its first page as HTML, the others as JSON

const itemsOf = page => [...page.querySelectorAll('#list tbody tr')].map(({dataset: row}) => ({name: row.name,
  dir: row.type === 'directory', size: +row.size, time: Date.parse(row.time) || 0, kind: row.kind}))
  .filter(item => !hidden(item.name));

async function more(items, after, turn, fresh) {
  let address = `${folderUrl(view.path)}?json&limit=10000&after=${encodeURIComponent(after)}`, then = Date.now();
  while (address && turn === view.turn) {
    const answer = await ask('GET', address);
    for (const {name, type, size, mtime} of await answer.json())
      if (!hidden(name)) items.push({name, dir: type === 'directory', size, time: Date.parse(mtime),
        kind: name in CONTROLS && /^(queue|proxy)fs$/.test(view.backend) ? 'control' : ''});
    const next = /<([^>]*)>;\s*rel="?next/.exec(answer.headers.get('Link'));
    address = next && new URL(next[1], answer.url).href;
    if (fresh && Date.now() - then > 400) { arrange(); then = Date.now(); }
  }
}

// `fresh`: it is another folder than before.
async function adopt(page, fresh) {
  const turn = ++view.turn, data = page.body.dataset, began = Date.now(), items = itemsOf(page);
  Object.assign(view, data, {features: JSON.parse(data.features)});
  if (fresh) {
    Object.assign(view, {items, at: -1, chosen: new Set()});
    document.title = page.title;
    filter.value = '';
    if (page !== first) $('header').replaceWith(page.querySelector('header'));
    listen();
    tools();
    arrange();
  }
  if (data.more) await more(items, data.more, turn, fresh);
  if (turn !== view.turn) return;
  Object.assign(view, {items, took: Date.now() - began});
  arrange();
}

async function fetched(path) {
  const answer = await ask('GET', folderUrl(path), null, {Accept: 'text/html'});
  return new DOMParser().parseFromString(await answer.text(), 'text/html');
}

const go = guarded(async (path, push = true, name = '') => {
  const page = await fetched(path);
  if (push) history.pushState(null, '', folderUrl(path));
  scrollTo(0, 0);
  const done = adopt(page, true);
  point(Math.max(0, view.shown.findIndex(item => item.name === name)));
  await done;
});

const reload = guarded(async (name = '') => {
  const path = view.path, page = await fetched(path);
  if (path === view.path) await adopt(page, false);
  if (name) point(view.shown.findIndex(item => item.name === name));
});

const natural = new Intl.Collator([], {numeric: true, sensitivity: 'base'});
const ORDERS = {name: (a, b) => natural.compare(a.name, b.name), size: (a, b) => a.size - b.size,
  time: (a, b) => a.time - b.time};
const chosen = () => view.shown.filter(item => view.chosen.has(item.name));
const current = () => view.chosen.size ? chosen() : view.shown.filter((item, index) => index === view.at);

function arrange() {
  const now = view.shown[view.at], wanted = filter.value.toLowerCase(), order = ORDERS[view.sort], sign = view.down ? -1 : 1;
  view.shown = view.items.filter(item => !view.gone.has(pathOf(item)) && item.name.toLowerCase().includes(wanted))
    .sort((a, b) => b.dir - a.dir || sign * order(a, b) || (a.name < b.name ? -1 : 1));
  view.at = now ? view.shown.findIndex(item => item.name === now.name) : -1;
  view.chosen = new Set(chosen().map(item => item.name));
  for (const head of heads)
    head.setAttribute('aria-sort', head.classList.contains(view.sort) ? view.down ? 'descending' : 'ascending' : 'none');
  empty.hidden = view.shown.length > 0;
  empty.textContent = wanted ? 'Nothing has that in its name.' :
    'This folder is empty.' + (view.features.write ? ' Drop files here.' : '');
  draw(true);
  report();
}

function report() {
  const picked = chosen();
  count.textContent = plural(view.shown.length, 'item') + (picked.length ? `, ${picked.length} selected` : '');
  tool.hidden = !(picks.hidden = !picked.length);
  picks.replaceChildren(...picked.length ? actions(picked).map(action => button(...action)) : []);
}

// ---- the list: only rows that can be seen

const rows = new Map();
const rowHeight = () => matchMedia('(max-width: 640px)').matches ? 60 : 40;

function draw(afresh = false) {
  const height = rowHeight(), from = Math.max(0, Math.floor(-list.getBoundingClientRect().top / height) - 10);
  const wanted = view.shown.slice(from, from + Math.ceil(innerHeight / height) + 20), keep = new Set(wanted);
  rows.forEach((row, item) => { if (afresh || !keep.has(item)) { row.remove(); rows.delete(item); } });
  list.style.height = view.shown.length * height + 'px';
  list.setAttribute('aria-rowcount', view.shown.length);
  list.setAttribute('aria-activedescendant', 'row-' + view.at);
  wanted.forEach((item, offset) => {
    const index = from + offset, row = rows.get(item) || rowOf(item), on = view.chosen.has(item.name);
    if (!rows.has(item)) { rows.set(item, row); list.append(row); }
    row.id = 'row-' + index;
    row.style.transform = `translateY(${index * height}px)`;
    row.setAttribute('aria-rowindex', index + 1);
    row.setAttribute('aria-selected', on);
    row.classList.toggle('at', index === view.at);
    row.querySelector('input').checked = on;
  });
}

const look = item => item.kind ? ['control', 'queue', 'stream'].find(kind => kind === item.kind) || 'mount' :
  item.dir ? 'folder' : Object.keys(KINDS).find(kind => KINDS[kind].test(item.name)) || 'file';

function rowOf(item) {
  const bytes = cell('size', !item.dir && !item.kind && size(item.size));
  const link = item.kind === 'control' ? {} : {href: (item.dir ? folderUrl : urlOf)(pathOf(item)), tabIndex: -1};
  if (item.kind === 'queue') waiting(item, bytes);
  return make('div.row', {role: 'row'},
    cell('pick', make('input', {type: 'checkbox', tabIndex: -1, 'aria-label': 'Select ' + item.name})), icon(look(item)),
    cell('name', make(link.href ? 'a.link' : 'span.link', {title: item.name, ...link}, make('bdi', {}, item.name)),
      item.kind && make('span.tag', {}, item.kind)),
    bytes, cell('time', item.time && dates.format(item.time)));
}

async function waiting(item, place) {
  const answer = await fetch(urlOf(join(pathOf(item), 'size'))).catch(() => ({}));
  if (answer.ok) place.textContent = plural(+await answer.text() || 0, 'message');
}

// `mode`: what the cursor selects: '' nothing, one, toggle, range.
function point(index, mode = '') {
  if (!view.shown.length) return;
  view.at = Math.max(0, Math.min(index, view.shown.length - 1));
  const name = view.shown[view.at].name;
  if (mode === 'one') view.chosen = new Set([name]);
  if (mode === 'toggle' && !view.chosen.delete(name)) view.chosen.add(name);
  if (mode === 'range') view.chosen = new Set(view.shown.slice(Math.min(view.at, view.anchor),
    Math.max(view.at, view.anchor) + 1).map(item => item.name));
  else view.anchor = view.at;
  const height = rowHeight(), top = list.getBoundingClientRect().top + view.at * height, head = bar.offsetHeight + 20;
  if (top < head) scrollBy(0, top - head);
  else if (top + height > innerHeight - 12) scrollBy(0, top + height - innerHeight + 12);
  draw();
  report();
}

function pressed(event) {
  const on = what => event.target.closest(what), link = on('.link'), index = on('.row') ? +on('.row').id.slice(4) : -1;
  const mode = event.shiftKey ? 'range' : event.ctrlKey || event.metaKey || on('.pick') ? 'toggle' : '';
  if (index < 0 || link && mode === 'toggle') return;     // a link with Ctrl is for the browser
  if (!on('.pick')) event.preventDefault();
  focus();
  point(index, mode || (link ? '' : 'one'));
  if (link && !mode) open(view.shown[index]);
}

// ---- what can be done

function actions(items) {
  const one = items.length === 1 && items[0], files = items.every(item => !item.dir && !item.kind);
  const write = view.features.write && items.every(item => item.kind !== 'control');
  return [
    one && ['Open', 'eye', () => open(one)],
    (files || one.dir) && ['Download', 'down', () => items.forEach(download)],
    one && files && view.user && ['Share', 'link', guarded(() => share(one))],
    write && one && ['Rename', 'pen', guarded(() => rename(one))],
    write && ['Move', 'move', guarded(() => moveTo(items))],
    write && ['Delete', 'bin', () => remove(items)],
    ['None', 'close', () => SHORTCUTS.Escape()],
  ].filter(Boolean);
}

const open = guarded(item => item.dir ? go(pathOf(item)) : item.kind === 'control' && item.name !== 'peek' &&
  item.name !== 'size' ? control(item) : preview(item));

function download(item) {
  make('a', {href: item.dir ? folderUrl(pathOf(item)) + '?archive=zip' : urlOf(pathOf(item)),
    download: item.name + (item.dir ? '.zip' : '')}).click();
}

async function control(item) {
  const write = item.name === 'enqueue' && view.features.write;
  const text = make('textarea', {rows: 6, 'aria-label': 'Message', required: true});
  if (!await dialog(item.name, [make('p', {}, CONTROLS[item.name]), write && text],
    [...write ? [['yes', 'Send', 'main']] : [], ['', 'Close']])) return;
  await ask('PUT', urlOf(pathOf(item)), text.value);
  note('Sent.');
}

async function preview(item) {
  const url = urlOf(pathOf(item)), kind = look(item), stage = make('div.stage', {}, 'Loading…');
  let node = null;
  if (kind === 'stream') node = 'A stream has no end; follow it with: callfs cat --stream ' + pathOf(item);
  else if (kind === 'image') node = make('img', {src: url, alt: item.name});
  else if (kind === 'audio' || kind === 'video') node = make(kind, {src: url, controls: true});
  else if (kind === 'pdf') node = ask('GET', url).then(answer => answer.arrayBuffer()).then(bytes => make('iframe',
    {title: item.name, src: URL.createObjectURL(new Blob([bytes], {type: 'application/pdf'}))}));
  else node = firstText(url, item);
  Promise.resolve(node).catch(error => error.message).then(found => stage.replaceChildren(found));
  const said = await dialog(item.name, [stage], [...item.kind ? [] : [['down', 'Download', 'main']], ['', 'Close']], 'wide');
  stage.querySelectorAll('iframe').forEach(frame => URL.revokeObjectURL(frame.src));
  if (said) download(item);
}

async function firstText(url, item) {
  if (!item.size && !item.kind) return 'The file is empty.';
  // A range takes no message out of a queue: the server refuses it.
  const answer = await ask('GET', url, null, {Range: `bytes=0-${TEXT - 1}`}), reader = answer.body.getReader(), parts = [];
  let length = 0;
  for (let step; length < TEXT && !(step = await reader.read()).done; length += step.value.length) parts.push(step.value);
  reader.cancel();
  const text = await new Blob(parts).text();
  if (text.includes('\0')) return 'There is no preview of this kind of file.';
  return make('pre', {tabIndex: 0}, text + (item.size > length ? `\n\n… the first ${size(length)} of ${size(item.size)}` : ''));
}

async function newFolder() {
  const name = await askText('New folder', 'Name', '', 'Create');
  if (!name) return;
  await ask('PUT', urlOf(join(view.path, name)) + '?type=dir');
  await reload(name);
}

async function rename(item) {
  const name = await askText('Rename', 'New name', item.name, 'Rename');
  if (name && name !== item.name && await move(pathOf(item), join(view.path, name), {})) await reload(name);
}

async function moveTo(items) {
  const target = await askText('Move ' + named(items), 'To the folder', view.path, 'Move'), batch = {};
  if (!target) return;
  try {
    for (const item of items) await move(pathOf(item), join(target.replace(/\/+$/, '') || '/', item.name), batch);
  } finally { await reload(); }
}

// `batch` keeps the answer about what is in the way.
async function move(srcPath, dstPath, batch, overwrite = false) {
  try {
    return await ask('POST', PREFIX + '/fs/', JSON.stringify({method: 'move', srcPath, dstPath, overwrite}));
  } catch (error) {
    if (overwrite || ![409, 412].includes(error.status)) throw error;
    const how = await collision(batch, dstPath, error.message);
    return how !== 'skip' && move(srcPath, how === 'both' ? another(dstPath) : dstPath, batch, how === 'overwrite');
  }
}

const collision = (batch, path, why = '') => batch.how = batch.how || dialog('Already there', [
  make('p', {}, `There is “${nameOf(path)}” already. `, why), make('p.dim', {}, 'This holds for all that follow.')],
[['both', 'Keep both', 'main'], ['overwrite', 'Overwrite', 'danger'], ['', 'Skip']]).then(how => how || 'skip');

const another = path => path.replace(/(?: \((\d+)\))?(\.[^./]*)?$/,
  (all, number = 1, ending = '') => ` (${+number + 1})${ending}`);

// Deleted when the time to undo is over, or who deletes leaves.
const doomed = new Set();

function remove(items) {
  const paths = items.map(pathOf), next = view.at, doom = {paths, timer: setTimeout(() => carryOut(doom), UNDO)};
  const shown = () => { paths.forEach(path => view.gone.delete(path)); arrange(); };
  doom.undo = () => { clearTimeout(doom.timer); doomed.delete(doom); shown(); };
  doomed.add(doom);
  paths.forEach(path => view.gone.add(path));
  arrange();
  point(next);
  note(named(items) + ' deleted.', false, 'Undo', doom.undo);
}

async function carryOut(doom, keepalive = false) {
  if (!doomed.has(doom)) return;
  doomed.delete(doom);
  await Promise.all(doom.paths.map(path => ask('DELETE', urlOf(path), null, {}, {keepalive}).catch(complain)));
  await reload();
  doom.undo();
}

async function share(item) {
  const time = make('select', {}, ...Object.entries({3600: '1 hour', 28800: '8 hours', 86400: '1 day'})
    .map(([value, label]) => make('option', {value}, label)));
  const uses = make('input', {type: 'number', min: 1, max: 1e6, value: 1, required: true});
  if (!await dialog('Share ' + item.name, [make('p', {}, 'Whoever has the link can download it without a key.'),
    make('label', {}, 'Ends after', time), make('label', {}, 'Downloads', uses)],
  [['yes', 'Make link', 'main'], ['', 'Cancel']])) return;
  const link = await (await ask('POST', PREFIX + '/v1/links/generate',
    JSON.stringify({path: pathOf(item), expiry_seconds: +time.value, max_uses: +uses.value}))).json();
  const field = make('input', {readOnly: true, value: link.url, id: 'share-link', 'aria-label': 'Link'});
  const copy = button('Copy', 'link', () => {
    field.select();
    if (navigator.clipboard) navigator.clipboard.writeText(link.url); else document.execCommand('copy');    // no https
    copy.lastChild.textContent = 'Copied';
  }, {autofocus: true}, 'main');
  await dialog('Link to ' + item.name, [field, make('p.dim', {},
    `${plural(link.max_uses, 'download')}, until ${dates.format(Date.parse(link.expires_at))}`), copy], [['', 'Done']]);
}

// ---- uploads: three at once; large files in pieces, to go on where they stopped

const uploads = {all: [], running: 0}, sizeOf = ({file}) => file ? file.size : 0;

function upload(files, folder = view.path) {
  const batch = {};
  if (uploads.all.every(each => each.over)) Object.assign(uploads, {all: [], began: Date.now()});
  for (const {file, path} of files) uploads.all.push({file, batch, path: join(folder, path), sent: 0, state: 'waiting'});
  while (uploads.running < 3 && uploads.all.some(each => each.state === 'waiting')) work();
}

async function work() {
  uploads.running++;
  for (let each; (each = uploads.all.find(other => other.state === 'waiting'));) {
    each.state = 'sending';
    try {
      const kept = !each.file ? await ask('PUT', urlOf(each.path) + '?type=dir') :
        await (each.file.size > PIECE ? putLarge : putSmall)(each);
      each.state = kept ? 'done' : 'skipped';
    } catch (error) {
      each.state = error.aborted ? 'cancelled' : error.message;
      each.failed = !error.aborted;
    }
    each.over = true;
    each.sent = sizeOf(each);
    progress();
  }
  if (--uploads.running) return;
  const done = uploads.all.filter(each => each.state === 'done').length;
  if (done) note(plural(done, 'file') + ' uploaded.');
  await reload();
}

async function putSmall(each, headers = {'If-None-Match': '*'}) {
  try {
    return await patient(each, () => { each.sent = 0; return send(each, 'PUT', each.path, each.file, headers); });
  } catch (error) {
    if (error.status !== 412) throw error;
    const how = await collision(each.batch, each.path);
    if (how === 'both') each.path = another(each.path);
    return how !== 'skip' && putSmall(each, how === 'both' ? headers : {});
  }
}

async function putLarge(each) {
  const {file} = each, part = each.part = join(parentOf(each.path), partName(each));
  if (view.items.some(item => pathOf(item) === each.path) && await collision(each.batch, each.path) === 'skip') return false;
  await patient(each, async () => {
    let at = await send(each, 'HEAD', part).then(answer => +answer.getResponseHeader('Content-Length'),
      error => { if (error.status === 404) return -1; throw error; });
    if (at < 0 || at > file.size) { await send(each, 'PUT', part, ''); at = 0; }
    for (; at < file.size; at += PIECE) {
      each.sent = at;
      await send(each, 'PATCH', part, file.slice(at, at + PIECE), {'RemFS-Offset': at});
      each.tries = 0;
    }
  });
  return await move(part, each.path, each.batch) || (await ask('DELETE', urlOf(part)), false);
}

// The same for the same file: who chooses it again goes on.
function partName({file, path}) {
  let hash = 0x811c9dc5;                    // FNV-1a
  for (const letter of path) hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193) >>> 0;
  return `.upload-${[hash, file.size, file.lastModified].map(number => number.toString(16)).join('-')}.part`;
}

async function patient(each, attempt) {
  for (each.tries = 0; ;) {
    try {
      return await attempt();
    } catch (error) {
      if (!error.broken || ++each.tries > 8) throw error;
      await new Promise(resolve => setTimeout(resolve, 500 * 2 ** Math.min(each.tries, 5)));
      if (each.cancelled) throw {aborted: true};
    }
  }
}

// `fetch` does not tell how much was sent.
const send = (each, method, path, data = null, headers = {}) => new Promise((resolve, reject) => {
  const request = each.request = new XMLHttpRequest(), before = each.sent;
  request.open(method, urlOf(path));
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
  request.upload.onprogress = ({loaded}) => { each.sent = before + loaded; progress(); };
  request.onload = () => request.status < 300 ? resolve(request) : reject(failure(request.status, request.responseText));
  request.onerror = () => reject(failure(0));
  request.onabort = () => reject({aborted: true});
  request.send(data);
});

function cancel(which) {
  for (const each of which.filter(one => !one.over)) {
    each.cancelled = true;
    if (each.state === 'waiting') Object.assign(each, {state: 'cancelled', over: true});
    else if (each.request) each.request.abort();
    if (each.part) ask('DELETE', urlOf(each.part)).catch(() => {});
  }
}

let painting = 0;
const progress = () => { painting = painting || setTimeout(() => { painting = 0; paintUploads(); }, 100); };

function paintUploads() {
  const {all, began} = uploads, live = all.filter(each => !each.over), failed = all.filter(each => each.failed);
  const sum = count => all.reduce((sofar, each) => sofar + count(each), 0), total = sum(sizeOf), sent = sum(each => each.sent);
  const rate = sent / (Date.now() - began) * 1000 || 0, left = Math.ceil((total - sent) / rate);
  const shut = () => { cancel(all); uploads.all = []; progress(); };
  const line = (name, told, label, onclick) => make('div.upload', {}, make('bdi.name', {}, name),
    make('span.dim', {}, told), label && make('button.plain', {'aria-label': label, onclick}, icon('close')));
  panel.hidden = !live.length && !failed.length;
  panel.replaceChildren(
    live.length ? line(`${all.length - live.length} of ${plural(all.length, 'file')}`,
      size(rate) + '/s' + (left < 1e5 ? `, ${left} s` : ''), 'Cancel all', shut) : line('Failed', '', 'Close', shut),
    make('progress', {max: total || 1, value: sent}),
    ...live.filter(each => each.state === 'sending').map(each => line(nameOf(each.path),
      Math.floor(100 * each.sent / (sizeOf(each) || 1)) + ' %', 'Cancel', () => cancel([each]))),
    ...failed.slice(0, 5).map(each => line(nameOf(each.path), each.state)));
}

function pickFiles(webkitdirectory) {
  const input = make('input', {type: 'file', multiple: true, webkitdirectory, hidden: true, id: 'files', onchange: () =>
    upload([...input.files].map(file => ({file, path: file.webkitRelativePath || file.name})))});
  if ($('#files')) $('#files').remove();
  document.body.append(input);
  input.click();
}

// An empty folder is an item without a file.
async function walk(entry, path = entry.name) {
  if (entry.isFile) return [{path, file: await new Promise((resolve, reject) => entry.file(resolve, reject))}];
  const reader = entry.createReader(), found = [];
  for (let batch; !batch || batch.length;) {
    batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    for (const child of batch) found.push(...await walk(child, join(path, child.name)));
  }
  return found.length ? found : [{path}];
}

const dropped = guarded(async transfer => {
  const folder = view.path, entries = [...transfer.items].map(item => item.webkitGetAsEntry()).filter(Boolean);
  upload((await Promise.all(entries.map(entry => walk(entry)))).flat(), folder);
});

// ---- changes that others make

let source = null, due = 0;

function listen() {
  if (source) source.close();
  live.classList.remove('on');
  if (!view.features.events || document.hidden) return;     // of six connections hidden pages take none
  source = new EventSource(folderUrl(view.path) + '?events=true&since=' + view.since);
  source.onopen = () => live.classList.add('on');
  source.onerror = () => live.classList.remove('on');
  for (const kind of ['create', 'update', 'delete', 'move', 'reset']) source.addEventListener(kind, changed);
}

function changed(event) {
  const {path, dstPath} = event.type === 'reset' ? {path: view.path} : JSON.parse(event.data);
  const near = [path, dstPath].filter(Boolean).filter(each => !hidden(nameOf(each)) && (view.backend === 'queuefs' ||
    parentOf(each) === view.path || (view.path + '/').startsWith(each + '/')));
  if (near.length && !due)                  // a large folder less often
    due = setTimeout(() => { due = 0; reload(); }, Math.max(250, 3 * view.took));
}

// ---- the frame around the list

const tools = () => tool.replaceChildren(...[
  ...view.features.write ? [button('Upload', 'up', () => pickFiles(false), {id: 'upload'}, 'main'),
    button('Upload folder', 'upfolder', () => pickFiles(true), {id: 'upload-folder'}),
    button('New folder', 'plus', guarded(newFolder), {id: 'new-folder'})] : [],
  button('Zip', 'down', () => download({name: '', dir: true}), {id: 'zip'}), button('Keys', 'key', help, {id: 'help'})]);

const KEYS = 'Arrows: move; Enter: open; Backspace: go up; Space, Shift+Arrows: select; Ctrl+A: select all; ' +
  'Escape: select none; F2: rename; Delete: delete; U: upload; N: new folder; /: filter; ?: this help';
const help = () => dialog('Keyboard', [make('dl', {}, ...KEYS.split(/: |; /).map((text, at) =>
  make(at % 2 ? 'dd' : 'dt', {}, text)))], [['', 'Close']]);

const heads = Object.entries({name: 'Name', size: 'Size', time: 'Changed'}).map(([sort, label]) => make('span.' + sort,
  {role: 'columnheader'}, make('button.plain', {onclick: () => {
    Object.assign(view, {down: view.sort === sort && !view.down, sort});
    arrange();
  }}, label, icon('sort'))));
const list = make('div', {id: 'rows', role: 'grid', tabIndex: 0, 'aria-label': 'Files', 'aria-multiselectable': true,
  onclick: pressed});
const filter = make('input', {type: 'search', id: 'filter', placeholder: 'Filter', oninput: () => arrange()});
const tool = make('div.tools'), picks = make('div.tools', {id: 'picks', role: 'toolbar', 'aria-label': 'Selection'});
const bar = make('div', {id: 'bar'}, tool, picks, filter, make('div.heads', {role: 'row'}, ...heads));
const empty = make('p', {id: 'empty'});
const count = make('span', {id: 'count', role: 'status'}), live = make('span', {id: 'live', title: 'Live'});
const panel = make('section', {id: 'uploads', hidden: true}), notes = make('div', {id: 'notes'});

const STEPS = {ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -1e9, End: 1e9};
const writing = run => () => view.features.write && run();
const doing = label => () => current().length &&
  actions(current()).filter(action => action[0] === label).forEach(action => action[2]());
const SHORTCUTS = {
  Enter: doing('Open'), Delete: doing('Delete'), F2: doing('Rename'), ' ': () => point(view.at, 'toggle'), '?': help,
  Backspace: () => view.path !== '/' && go(parentOf(view.path), true, nameOf(view.path)), '/': () => filter.focus(),
  u: writing(() => pickFiles(false)), n: writing(guarded(newFolder)),
  Escape: () => { view.chosen.clear(); filter.value = ''; arrange(); focus(); },
};

addEventListener('keydown', event => {
  const {key, target} = event, control = event.ctrlKey || event.metaKey, step = STEPS[key];
  if (event.altKey || $('dialog') || target.closest('a, button') && [' ', 'Enter'].includes(key)) return;
  if (target.matches('input:not([type=checkbox])') && !['Escape', 'ArrowDown'].includes(key)) return;
  if (control && key === 'a') { view.chosen = new Set(view.shown.map(item => item.name)); point(view.at); }
  else if (step) { focus(); point(view.at + step, event.shiftKey ? 'range' : ''); }
  else if (!control && SHORTCUTS[key]) SHORTCUTS[key]();
  else return;
  event.preventDefault();
});

let leaving = 0;
for (const kind of ['dragover', 'drop']) addEventListener(kind, event => {
  if (!view.features.write || !event.dataTransfer.types.includes('Files')) return;
  event.preventDefault();
  document.body.classList.add('drop');
  clearTimeout(leaving);
  leaving = setTimeout(() => document.body.classList.remove('drop'), 200);
  if (kind === 'drop') dropped(event.dataTransfer);
});
addEventListener('scroll', () => draw(), {passive: true});
addEventListener('resize', () => draw());
const pathHere = ({pathname}) => decodeURIComponent(pathname.slice(PREFIX.length + 3)).replace(/\/$/, '') || '/';
addEventListener('popstate', () => go(pathHere(location), false));
addEventListener('click', event => {
  const link = event.target.closest('#path a');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(pathHere(link));
});
addEventListener('pagehide', () => doomed.forEach(doom => carryOut(doom, true)));
addEventListener('visibilitychange', () => { listen(); if (!document.hidden) reload(); });
addEventListener('beforeunload', event => { if (uploads.all.some(each => !each.over)) event.preventDefault(); });

$('main').replaceChildren(bar, make('div.paper', {}, list, empty),
  make('footer', {}, live, count));
document.body.append(panel, notes);
if (location.search.includes('after=')) go(document.body.dataset.path, false);
else guarded(adopt)(first, true);
"""


def is_visit(request: Request) -> bool:
    """Whether a person looks at the answer: a browser that opens an address asks for HTML by name."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def _filled(template: str, **values: str) -> str:
    """A template with its values escaped; those named `..._html` are HTML already."""
    return template.format_map({name: text if name.endswith("_html") else html.escape(text)
                                for name, text in values.items()})


def _path_in_address(path: str) -> str:
    """A path as an address has it; names that are no UTF-8 as the bytes that they are."""
    return urllib.parse.quote(path.encode("utf-8", "surrogateescape"))


def shown_kind(entry: Entry, backend: str) -> str:
    """What a row is called beside file and directory; `backend` is that of its directory: what is mounted in it has
    another one. The script knows the same (kindOf)."""
    if entry.is_dir and entry.backend != backend:
        return entry.backend
    if entry.backend == "queuefs" and entry.is_dir:
        return "queue"
    if entry.backend in ("queuefs", "proxyfs") and entry.owner == ANYONE and entry.name in QUEUE_CONTROLS:
        return "control"
    return "stream" if entry.backend == "streamfs" and entry.name != "README" else ""


class BrowserPage:
    """What people see. Knows no tree: the dialect hands it what it shows."""

    def __init__(self, config: Config, authenticator: Authenticator) -> None:
        self._prefix, self._auth = config.server.path_prefix.rstrip("/"), authenticator
        icon = _icon_svg(24, "M0 0" + _ICONS["folder"], "#2f62d9")
        self._assets = {"app.js": ("text/javascript; charset=utf-8", _SCRIPT.encode()),
                        "style.css": ("text/css; charset=utf-8", (_STYLE + _icon_style()).encode()),
                        "icon.svg": ("image/svg+xml", icon.encode())}
        self._version = hashlib.sha256(repr(self._assets).encode()).hexdigest()[:16]

    def routes(self) -> list[Route]:
        """The script, the style, the signing in."""
        form = {"GET": self.form, "HEAD": self.form, "POST": self.sign}
        return [Route("/session", form, "open", self.refuse),
                Route("/page/{path}", {"GET": self.asset, "HEAD": self.asset}, "open", rest_error)]

    def asset(self, request: Request) -> Response:
        """`GET /page/NAME?v=VERSION`: for ever the same; of another version (a node that is older) not to be kept."""
        if request.tail not in self._assets:
            raise NotFound()
        kind, data = self._assets[request.tail]
        keep = "public, max-age=31536000, immutable" if request.query.get("v") == self._version else "no-cache"
        return Response(200, data, headers=[("Content-Type", kind), ("Cache-Control", keep)])

    def _answer(self, status: int, template: str, headers: Iterable[tuple[str, str]] = (), **values: str) -> Response:
        text = _filled(template, prefix=self._prefix, version=self._version, **values)
        return Response(status, text.encode("utf-8", "replace"), policy=_POLICY_OF_PAGE,
                        headers=[_HTML, _NO_STORE, ("Vary", "Accept, Authorization, Cookie"), *headers])

    # -- a directory -------------------------------------------------------------------------------------------

    def listing(self, request: Request, entry: Entry, entries: Iterable[Entry], features: Mapping[str, bool],
                more: str, since: int = 0) -> Response:
        """A directory. `entries` are the first of its children; `more`: the name of the last one of them, where there
        are others behind it, else "". `since`: the last event before they were read; the script asks for later ones."""
        who = request.principal
        user = who.name if who is not None and who.verbs is None else ""
        links = [("?archive=zip", "Download as zip")]
        if more:
            links.append(("?after=" + _path_in_address(more), "Next page"))
        return self._answer(
            200, _LISTING, title=f"{entry.name if entry.path != '/' else 'Files'} - callfs", path=entry.path,
            backend=entry.backend, features=json.dumps(dict(features)), user=user, more=more, since=str(since),
            crumbs_html="".join(self._crumb(path) for path in (*ancestors(entry.path), entry.path)),
            rows_html="".join(_listed_row(each, entry.backend) for each in entries),
            person_html=self._person(request, user),
            links_html=" ".join(f'<a class="button" href="{html.escape(where)}">{text}</a>' for where, text in links))

    def _crumb(self, path: str) -> str:
        where = f"{self._prefix}/fs{_path_in_address(path.rstrip('/'))}/"
        return _filled('<li><a href="{where}"><bdi>{name}</bdi></a></li>', where=where,
                       name=split_path(path)[1] or "Files")

    def _person(self, request: Request, user: str) -> str:
        """Who is signed in, and how to change that. Whoever sends a key with each request can not sign out."""
        if not user:
            return _filled('<a class="button" href="{prefix}/session?next={next}">Sign in</a>', prefix=self._prefix,
                           next=urllib.parse.quote(request.path))
        if "authorization" in request.headers:
            return _filled('<span class="user">{user}</span>', user=user)
        return _filled(_SIGN_OUT, prefix=self._prefix, next=request.path, user=user)

    # -- errors, signing in ------------------------------------------------------------------------------------

    def error(self, request: Request, error: CallFSError) -> Response:
        """An error that a person sees; of a 401 the form to sign in."""
        if isinstance(error, AuthenticationFailed):
            tried = "authorization" in request.headers
            told = error.message if tried else "Your session has ended." if "cookie" in request.headers and \
                SESSION_COOKIE in request.headers["cookie"] else ""
            return self._sign_in(request.path, told, 401)
        title = f"{error.status} {REASONS.get(error.status, 'Error')}"
        content = _filled('<p>{message}</p><p><a class="button" href="{prefix}/fs/">To the files</a></p>',
                          message=error.message, prefix=self._prefix)
        return self._answer(error.status, _SHEET, error.headers, title=title, content_html=content)

    def refuse(self, request: Request, error: CallFSError) -> Response:
        """An error of `/session`: as a page to whoever takes one."""
        return (self.error if "text/html" in request.headers.get("accept", "") else rest_error)(request, error)

    def _sign_in(self, where: str, told: str = "", status: int = 200) -> Response:
        # Bearer alone: Basic would open a window of the browser's own.
        headers = [("WWW-Authenticate", "Bearer")] if status == 401 else []
        form = _filled(_SIGN_IN, prefix=self._prefix, next=_next_path(where),
                       told_html=_filled('<p class="bad" role="alert">{told}</p>', told=told) if told else "")
        return self._answer(status, _SHEET, headers, title="Sign in", content_html=form)

    def form(self, request: Request) -> Response:
        """`GET /session?next=PATH`: the form."""
        self._refuse_key(request)
        return self._sign_in(request.query.get("next", ""))

    @staticmethod
    def _refuse_key(request: Request) -> None:
        if "key" in request.query:
            raise BadRequest("A key never belongs in an address, where logs and histories keep it: send it in the "
                             "form, and exchange this one.")

    def sign(self, request: Request) -> Response:
        """`POST /session`: a form with `key` signs in, with `out` out; 303 to `next`."""
        self._refuse_key(request)
        wish = self._form_of(request)
        where, value = wish.get("next", ""), "; Max-Age=0"
        if "out" not in wish:
            try:
                value = self._auth.open_session(request, wish.get("key", "").strip())
            except AuthenticationFailed as error:
                return self._sign_in(where, error.message, 401)
        secure = "; Secure" if request.scheme == "https" else ""
        # Without Max-Age it goes with the browser's windows; how long it is good is signed into it.
        cookie = f"{SESSION_COOKIE}={value}; Path={self._prefix or '/'}; HttpOnly; SameSite=Strict{secure}"
        return Response(303, b"", headers=[("Location", self._prefix + _next_path(where)), ("Set-Cookie", cookie),
                                           _NO_STORE])

    @staticmethod
    def _form_of(request: Request) -> dict[str, str]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise BadRequest("Send the form as application/x-www-form-urlencoded.")
        return _parse_query(request.body.read(_MAX_FORM).decode("latin-1"))


def _next_path(where: str) -> str:
    return where if _PATH_OF_PAGE.fullmatch(where) else "/fs/"


def _listed_row(entry: Entry, backend: str) -> str:
    kind, moment = shown_kind(entry, backend), rfc3339(entry.mtime_ns) if entry.mtime_ns else ""
    # "./": a name with a colon would be an address with a scheme (javascript:). A control file is no link, as a browser
    # that sends no Fetch Metadata would take a message with it.
    link = '<a href="./{where}"><bdi>{shown}</bdi></a>' if kind != "control" else "<bdi>{shown}</bdi>"
    row = ('<tr data-name="{name}" data-type="{type}" data-size="{size}" data-time="{moment}" data-kind="{kind}"><td>' +
           link + (' <span class="tag">{kind}</span>' if kind else "") + "</td><td>{bytes}</td><td>{day}</td></tr>\n")
    slash = "/" if entry.is_dir else ""
    return _filled(row, name=entry.name, type=entry.type, size=str(entry.size), moment=moment, kind=kind,
                   where=_path_in_address(entry.name) + slash, shown=entry.name + slash,
                   day=moment[:16].replace("T", " "), bytes="" if entry.is_dir or kind else f"{entry.size:,}")


# ============================================================================
# The remFS dialect: /fs
# ============================================================================

META = "remfs.json"                         # what describes a directory; a real file of this name is hidden by it
MAX_META_DEPTH = 100
MAX_CALL = 256 * 1024                       # bytes of the JSON in a POST: some thousand sources of a concat
PAGE_ENTRIES = 1000                         # of a directory that the page gets at once

# By the ending of a name; the same on every machine, as the file /etc/mime.types is not.
_FILE_TYPES = {
    **dict.fromkeys(("txt", "log", "ini", "conf", "cfg", "toml", "yaml", "yml", "py", "sh", "c", "h", "go", "rs", "ts"),
                    "text/plain"),
    **dict.fromkeys(("html", "css", "csv", "xml"), "text/{}"), "htm": "text/html", "md": "text/markdown",
    "js": "text/javascript", "mjs": "text/javascript", "json": "application/json", "pdf": "application/pdf",
    **dict.fromkeys(("png", "gif", "webp", "avif", "bmp", "jpeg"), "image/{}"), "jpg": "image/jpeg",
    "svg": "image/svg+xml", "ico": "image/x-icon", "mp3": "audio/mpeg", "m4a": "audio/mp4",
    **dict.fromkeys(("wav", "ogg", "opus", "flac", "aac"), "audio/{}"), **dict.fromkeys(("mp4", "webm"), "video/{}"),
    "mov": "video/quicktime", "mkv": "video/x-matroska", "zip": "application/zip", "wasm": "application/wasm",
    "gz": "application/gzip", "tgz": "application/gzip", "tar": "application/x-tar",
    "7z": "application/x-7z-compressed", "woff2": "font/woff2",
}


@functools.lru_cache(maxsize=1)
def _known_types() -> mimetypes.MimeTypes:
    return mimetypes.MimeTypes()            # without the files of this machine


def file_type(name: str) -> str:
    """The Content-Type that the name of a file lets expect. Only a sandbox may show it (CVE-2023-38501)."""
    ending = name.rpartition(".")[2].lower()
    kind = _FILE_TYPES.get(ending, "").format(ending) or _known_types().guess_type("x." + ending)[0] or OCTETS[1]
    return kind + "; charset=utf-8" if kind.startswith("text/") else kind


class Field(NamedTuple):
    """A field of a JSON request: what it has to be, and the header or the parameter of the plain request that it
    stands for."""

    kind: type
    header: str = ""
    name: str = ""


_FIELDS = {
    **{name: Field(str) for name in ("range", "archive", "after", "wait", "ack")},
    **{name: Field(int) for name in ("depth", "limit", "since")},
    **{name: Field(bool) for name in ("recursive", "download", "stream", "json")},
    "offset": Field(int, "remfs-offset"), "mtime": Field(float, "x-oc-mtime"), "digest": Field(str, "content-digest"),
    "ifMatch": Field(str, "if-match"), "ifNoneMatch": Field(str, "if-none-match"),
}
_FIELD_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_RemfsCall = Callable[[Request, str], Response]


class RemfsDialect:
    """The routes of `contracts/remfs.md`. Turns each request, plain or as JSON, into one call of the tree."""

    def __init__(self, tree: Tree, page: BrowserPage, config: Config, *, log: Log,
                 spool_folder: Optional[str] = None) -> None:
        self._tree, self._page, self._config, self._log, self._spools = tree, page, config, log, spool_folder
        self._prefix = config.server.path_prefix.rstrip("/")
        # method: the plain one, its handler, its fields besides `path`
        self._calls: dict[str, tuple[str, _RemfsCall, str]] = {
            "get": ("GET", self._read, "range archive download stream wait ack json limit after ifMatch ifNoneMatch"),
            "list": ("GET", self._entries, "limit after"),
            "stat": ("GET", self._stat, ""),
            "meta": ("GET", self._meta, "depth"),
            "events": ("GET", self._events, "since"),
            "put": ("PUT", self._put, "data mtime digest ifMatch ifNoneMatch"),
            "mkdir": ("PUT", self._mkdir, ""),
            "patch": ("PATCH", self._patch, "data offset ifMatch ifNoneMatch"),
            "delete": ("DELETE", self._delete, "recursive ifMatch"),
        }

    def routes(self) -> list[Route]:
        """The table."""
        read = {"GET": self.get, "HEAD": self.get}
        files = {**read, "PUT": self.put, "PATCH": self.patch, "DELETE": self.delete}
        home = {"GET": self.home, "HEAD": self.home}
        rows: list[tuple[str, Mapping[str, Handler], str]] = [
            ("/", home, "open"), ("/fs", {**read, "POST": self.post}, "key"),
            ("/fs/", {**files, "POST": self.post}, "key"), ("/fs/{path}", files, "key")]
        return [Route(pattern, methods, access, self.error) for pattern, methods, access in rows]

    def error(self, request: Request, error: CallFSError) -> Response:
        """For programs as the REST dialect says it, for people as a page."""
        return self._page.error(request, error) if is_visit(request) else rest_error(request, error)

    @staticmethod
    def _path(request: Request) -> str:
        return canonical_path(decode_path(request.path[len("/fs"):] or "/"))

    def _aside(self, request: Request, path: str) -> ContextManager[None]:
        return aside(request) if self._tree.slow(path) else _AT_ONCE

    def home(self, request: Request) -> Response:
        """`GET /`."""
        if is_visit(request):
            return Response(302, b"", headers=[("Location", self._prefix + "/fs/"), _BY_ACCEPT])
        roots = {"remfs": "/fs/", "rest": "/v1/", "pfs": "/api/v1/"}
        return json_response({"name": "callfs", "version": __version__, "documentation": DOCUMENTATION, "dialects": {
            name: self._prefix + root for name, root in roots.items()}}, headers=[_BY_ACCEPT])

    # -- read --------------------------------------------------------------------------------------------------

    def get(self, request: Request) -> Response:
        """`GET` and `HEAD /fs/PATH`."""
        path = self._path(request)
        if request.query_text and request.flag("events"):
            return self._events(request, path)
        with self._aside(request, path):
            folder, name = split_path(path)
            if name == META:
                return self._meta(request, folder)
            return self._read(request, path, slash=True)

    def _events(self, request: Request, path: str) -> Response:
        return events_response(request, self._tree, path)

    def _read(self, request: Request, path: str, slash: bool = False) -> Response:
        """A file or a directory; `slash`: the address of a directory must have one at its end, as links count on it."""
        if request.query_text and request.query.get("archive"):
            return archive_response(self._tree, _asking(request), path, request.query["archive"])
        handle = self._tree.open(_asking(request), path, wish_of(request))
        ended = request.path.endswith("/")
        if not handle.entry.is_dir and not ended:
            return self._file(request, handle)
        handle.close()
        if not handle.entry.is_dir:
            raise FileNotFound("This is a file; without the slash at the end it can be read.")
        return self._directory(request, handle.entry) if ended or not slash else self._to_slash(request, path)

    def _to_slash(self, request: Request, path: str) -> Response:
        # Of the canonical path, which begins with one slash, behind /fs: `//host` would lead to another server.
        query = urllib.parse.quote(request.query_text, safe="=&%+,/:?@!$'()*;", encoding="latin-1")
        where = f"{self._prefix}/fs{urllib.parse.quote(path) if path != '/' else ''}/{'?' if query else ''}{query}"
        return Response(301, b"", headers=[("Location", where)])

    @staticmethod
    def _file(request: Request, handle: Handle) -> Response:
        entry = handle.entry
        headers = [_REVALIDATE] if handle.fixed else []
        if request.query_text and request.flag("download"):
            headers.append(("Content-Disposition", content_disposition(entry.name)))
        block = header_block(entry_headers(entry, handle.fixed))
        return file_response(request, handle, block, headers, file_type(entry.name))

    def _directory(self, request: Request, entry: Entry) -> Response:
        """A directory as whoever asks likes it: as JSON, as a page, as a name a line."""
        if request.flag("json"):
            return self._entries(request, entry.path)
        if is_visit(request):
            return self._visit(request, entry)
        if "application/json" in request.headers.get("accept", ""):
            return self._entries(request, entry.path)
        limit = _limit(request.query.get("limit"))
        with aside(request):
            names = (f"{each.name}/\n" if each.is_dir else each.name + "\n"
                     for each in itertools.islice(self._children(request, entry.path), limit))
            spool = spool_parts(self._spools, (name.encode("utf-8", "surrogateescape") for name in names))
        return spooled(request, spool, b"", [*entry_headers(entry), *_VARIES], "text/plain; charset=utf-8")

    def _children(self, request: Request, path: str) -> Iterator[Entry]:
        after = request.query.get("after", "")
        if _FORBIDDEN.search(after):
            raise BadRequest("`after` is the name of an entry.")
        return self._tree.list(_asking(request), path, after)

    def _entries(self, request: Request, path: str) -> Response:
        """A directory as a JSON array of its entries, or a part of it."""
        limit = _limit(request.query.get("limit"))
        with aside(request):
            spool, _, last = spool_items(self._spools, self._children(request, path), b"[", entry_json, limit)
        after = urllib.parse.quote(split_path(last)[1], safe="")
        more = [("Link", f'<?json&limit={limit}&after={after}>; rel="next"')] if last else []
        return spooled(request, spool, b"]\n", [*_VARIES, *more])

    def _visit(self, request: Request, entry: Entry) -> Response:
        limit, since = _limit(request.query.get("limit")) or PAGE_ENTRIES, self._tree.hub.last
        with aside(request):
            entries = list(itertools.islice(self._children(request, entry.path), limit + 1))
            more = entries[limit - 1].name if len(entries) > limit else ""
            features = self._tree.features(_asking(request), entry.path)
            response = self._page.listing(request, entry, entries[:limit], features, more, since)
        response.headers.append(_BY_ACCEPT)
        return response

    def _stat(self, request: Request, path: str) -> Response:
        entry = self._tree.stat(_asking(request), path)
        return json_response(entry_json(entry), headers=[_REVALIDATE, *entry_headers(entry)])

    def _meta(self, request: Request, path: str) -> Response:
        """`remfs.json` of a directory."""
        depth, entry = request.query.get("depth", "1"), self._tree.stat(_asking(request), path)
        if not (re.fullmatch("[0-9]{1,4}", depth) and 1 <= int(depth) <= MAX_META_DEPTH):
            raise BadRequest(f"`depth` is a whole number from 1 to {MAX_META_DEPTH}.")
        if not entry.is_dir:
            raise FileNotFound("This is a file; only a directory has a remfs.json.")
        with aside(request):
            describe = _Description(self._tree, _asking(request))
            spool = spool_parts(self._spools, describe.directory(entry, int(depth)))
        return spooled(request, spool, b"\n", [_REVALIDATE])

    # -- write -------------------------------------------------------------------------------------------------

    def put(self, request: Request) -> Response:
        """`PUT /fs/PATH`; with `?type=dir` a directory."""
        path, kind = self._path(request), request.query.get("type", "file")
        if kind not in ("file", "dir"):
            raise BadRequest("`type` is file or dir.")
        return self._mkdir(request, path) if kind == "dir" else self._put(request, path)

    def _put(self, request: Request, path: str) -> Response:
        if request.path.endswith("/"):
            raise BadRequest("A path that ends in / is a directory; ?type=dir makes one.")
        with self._aside(request, path):
            return self._written(write_body(self._tree, request, path, self._config.server.max_upload_bytes))

    def _mkdir(self, request: Request, path: str) -> Response:
        with self._aside(request, path):
            return self._written(self._tree.mkdir(_asking(request), path))

    def _written(self, written: Written) -> Response:
        return written_response(written, self._prefix + "/fs")

    def patch(self, request: Request) -> Response:
        """`PATCH /fs/PATH` with RemFS-Offset."""
        return self._patch(request, self._path(request))

    def _patch(self, request: Request, path: str) -> Response:
        with self._aside(request, path):
            return self._written(patch_body(self._tree, request, path, self._config.server.max_upload_bytes))

    def delete(self, request: Request) -> Response:
        """`DELETE /fs/PATH`, with all that is in it."""
        return self._delete(request, self._path(request))

    def _delete(self, request: Request, path: str) -> Response:
        recursive = "recursive" not in request.query or request.flag("recursive")
        with self._aside(request, path):
            self._tree.remove(_asking(request), path, recursive=recursive, folder=request.path.endswith("/"),
                              conditions=conditions_of(request))
        return Response(204, None)

    # -- perf --------------------------------------------------------------------------------------------------

    def post(self, request: Request) -> Response:
        """`POST /fs/`: a line of JSON that stands for any other request, and behind it the bytes of put and patch."""
        kind = request.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
        if kind not in ("text/plain", "application/json"):
            raise BadRequest("Send the JSON with `Content-Type: text/plain` (or application/json).")
        wish, body = take_call(request.body)
        name = wish.pop("method", None)
        if name == "move":
            return self._move(request, _only(wish, body, name, "srcPath dstPath overwrite"))
        if name == "concat":
            return self._concat(request, _only(wish, body, name, "srcPaths dstPath deleteSources"))
        if not isinstance(name, str) or name not in self._calls:
            raise BadRequest(f"`method` is one of {', '.join([*self._calls, 'move', 'concat'])}.")
        method, handler, fields = self._calls[name]
        path = _tree_path(wish.get("path"), "path")
        inner = self._plain(request, method, _only(wish, body, name, "path " + fields), body)
        if name == "get" and split_path(path)[1] == META:
            return self._meta(inner, split_path(path)[0])
        return handler(inner, path)

    def _plain(self, request: Request, method: str, wish: Mapping[str, Any], body: Body) -> Request:
        """The plain request that a JSON request stands for. With a memo of its own: it has other headers."""
        query, headers = {}, dict(request.headers)
        for name in wish.keys() - {"path", "data"}:
            field, value = _FIELDS[name], wish[name]
            if not isinstance(value, (int, float) if field.kind is float else field.kind) or \
                    isinstance(value, bool) is not (field.kind is bool):
                raise BadRequest(f"`{name}` is {_FIELD_KINDS[field.kind]}.")
            (headers if field.header else query)[field.header or name] = str(value)
        if "data" in wish:
            body = _text_body(wish["data"], body)
        inner = Request(method, "/fs" + _quoted_path(wish["path"]) + "?" + _query_of(query), headers, body,
                        client=request.client, scheme=request.scheme, version=request.version)
        for name in ("id", "route", "principal", "foreign", "blocking"):
            setattr(inner, name, getattr(request, name))
        return inner

    def _move(self, request: Request, wish: Mapping[str, Any]) -> Response:
        source, target = (_tree_path(wish.get(name), name) for name in ("srcPath", "dstPath"))
        with aside(request):                # between filesystems this copies
            entry = self._tree.move(_asking(request), source, target, overwrite=_wants(wish, "overwrite"), parents=True)
        return json_response(entry_json(entry))

    def _concat(self, request: Request, wish: Mapping[str, Any]) -> Response:
        sources = wish.get("srcPaths")
        if not isinstance(sources, list):
            raise BadRequest("`srcPaths` is a list of paths.")
        paths, target = [_tree_path(each, "srcPaths") for each in sources], _tree_path(wish.get("dstPath"), "dstPath")
        with aside(request):
            return self._written(self._tree.concat(_asking(request), paths, target, conditions=conditions_of(request),
                                                   delete_sources=_wants(wish, "deleteSources")))


DOCUMENTATION = "README.md of callfs; `python3 callfs.py --help`"
_BY_ACCEPT = ("Vary", "Accept")             # the same address has a page for people
_REVALIDATE = ("Cache-Control", "private, no-cache")    # ask for the ETag each time; keep it out of shared caches
_VARIES = (_BY_ACCEPT, _REVALIDATE)


class _Description:
    """`remfs.json`, piece by piece. `features` stand at the root and wherever they differ from those above."""

    def __init__(self, tree: Tree, who: Principal) -> None:
        self._tree, self._who, self._features = tree, who, tree.features_of(who)

    def directory(self, entry: Entry, depth: int) -> Iterator[bytes]:
        """A directory and so many levels below it."""
        features = self._features(entry)
        children = self._tree.list(self._who, entry.path)
        yield _json({"type": "dir", "features": features})[:-1] + b',"children":'
        yield from self._children(children, depth, features)
        yield b"}"

    def _children(self, entries: Iterator[Entry], depth: int, above: dict[str, bool]) -> Iterator[bytes]:
        comma = b"{"
        for entry in entries:
            features = self._features(entry)
            shown: dict[str, Any] = {"type": "dir"} if entry.is_dir else \
                {"type": "file", "size": entry.size, "modTime": rfc3339(entry.mtime_ns)}
            if features != above:
                shown["features"] = features
            text, inside = comma + _json(entry.name) + b":" + _json(shown), None
            if entry.is_dir and depth > 1 and entry.backend != SYMLINK:     # a link may lead back up
                inside = self._opened(entry)
            if inside is None:
                yield text
            else:
                yield text[:-1] + b',"children":'
                yield from self._children(inside, depth - 1, features)
                yield b"}"
            comma = b","
        yield b"{}" if comma == b"{" else b"}"

    def _opened(self, entry: Entry) -> Optional[Iterator[Entry]]:
        """What is in a directory below; None where that can not be said (it is gone, its database is down)."""
        try:
            entries = self._tree.list(self._who, entry.path)
            return itertools.chain(list(itertools.islice(entries, 1)), entries)
        except (CallerError, NotSupported, Unavailable, BadGateway):
            return None


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def take_call(body: Body) -> tuple[dict[str, Any], Body]:
    """The JSON object at the beginning of a body, and the rest of it: what follows the first line, where that is the
    JSON; else all of the body is. Raises BadRequest, and PayloadTooLarge for more than MAX_CALL bytes of JSON."""
    head, view, taken = bytearray(), memoryview(bytearray(64 * 1024)), 1
    while taken and len(head) <= MAX_CALL and b"\n" not in head[-taken:]:
        taken = body.readinto(view)
        head += view[:taken]
    line, newline, rest = bytes(head).partition(b"\n")
    value = _object(line)
    if value is None and newline:           # JSON for people, on several lines: then there is nothing behind it
        while taken and len(head) <= MAX_CALL:
            taken = body.readinto(view)
            head += view[:taken]
        line, rest, value = bytes(head), b"", _object(bytes(head))
    if len(line) > MAX_CALL:
        raise PayloadTooLarge(f"The JSON of a request may have {MAX_CALL} bytes.")
    if value is None:
        raise BadRequest("The first line of the body must be a JSON object; the bytes of put and patch follow it.")
    return value, _Rest(rest, body, len(head))


def _object(text: bytes) -> Optional[dict[str, Any]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class _Rest(Body):
    """A body of which `taken` bytes were read, the last of them, `held`, too far."""

    def __init__(self, held: bytes, body: Body, taken: int) -> None:
        self._held, self._body = held, body
        self.length = None if body.length is None else body.length - taken + len(held)

    def readinto(self, view: memoryview) -> int:
        """The next bytes."""
        if not self._held:
            return self._body.readinto(view)
        part, self._held = self._held[:len(view)], self._held[len(view):]
        view[:len(part)] = part
        return len(part)

    @property
    def patient(self) -> bool:              # type: ignore[override]
        """As the body behind it."""
        return self._body.patient

    @patient.setter
    def patient(self, value: bool) -> None:
        self._body.patient = value

    def ended(self) -> bool:
        """Whether only white space is held, and nothing more is announced."""
        return not self._held.strip() and (self.length or 0) <= len(self._held)


def _only(wish: dict[str, Any], body: Body, name: str, fields: str) -> dict[str, Any]:
    """The fields of a JSON request. Raises BadRequest for others, and for bytes that it does not take."""
    foreign = sorted(wish.keys() - set(fields.split()))
    if foreign:
        raise BadRequest(f"{name} has no field `{foreign[0]}`; it has: {fields.replace(' ', ', ')}.")
    if isinstance(body, _Rest) and not body.ended() and ("data" not in fields or "data" in wish):
        raise BadRequest(f"Behind the JSON of this {name} there are bytes; it takes none.")
    return wish


def _tree_path(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise BadRequest(f"`{name}` is missing, or no path of the tree, as /DIR/FILE.")
    return canonical_path(value)


def _quoted_path(path: str) -> str:
    return urllib.parse.quote(canonical_path(path)) + ("/" if path.endswith("/") and path.strip("/") else "")


def _query_of(query: Mapping[str, str]) -> str:
    try:
        return urllib.parse.urlencode(query)
    except UnicodeEncodeError:
        raise BadRequest("A text of the request holds half a character.") from None


def _text_body(data: Any, body: Body) -> Body:
    if not isinstance(data, str):
        raise BadRequest("`data` is text; bytes follow the first line.")
    try:
        return bytes_body(data.encode())
    except UnicodeEncodeError:
        raise BadRequest("`data` holds half a character.") from None

# ============================================================================
# The server: everything that a configuration asks for, as one object
# ============================================================================


class DataLock:
    """Only one process works on a data folder: two would trust caches that the other makes wrong."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | _O_CLOEXEC, 0o600)
        try:
            self._lock()
        except OSError:
            os.close(self._fd)
            raise ConfigError(f"another callfs process works on this data ({path}); stop it first") from None

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:                 # Windows
            import msvcrt
            msvcrt.locking(self._fd, msvcrt.LK_NBLCK, 1)       # type: ignore[attr-defined]
        else:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._fd)


def tls_context(cert_file: str, key_file: str) -> ssl.SSLContext:
    """TLS 1.2 and later with Python's own choice of ciphers. Raises ConfigError for a pair that can not be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"server.cert_file, server.key_file: this pair can not be used: {error}") from None
    return context


# What the table of options knows already and a later version of this file will do.
_NOT_BUILT: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("metadata_store.type", lambda value: value != "sqlite", "sqlite"),
    ("dlm.type", lambda value: value != "local", "local"),
    ("backend.default_backend", lambda value: value != "localfs", "localfs"),
    ("server.enable_quic", bool, "false"),
    ("raft.enabled", bool, "false"),
    ("ha.replication_enabled", bool, "false"),
    ("erasure.enabled", bool, "false"),
    ("instance_discovery.peer_endpoints", bool, "no peers"),
    ("external_plugins.enabled", bool, "false"),
)


def check_built(config: Config) -> None:
    """Raises ConfigError for what this version can not do, rather than to start without it."""
    problems = [f"{key}: this version of callfs only has {allowed}" for key, asked, allowed in _NOT_BUILT
                if asked(config.get(key))]
    if problems:
        raise ConfigError("\n".join(problems))


def check_places(config: Config) -> None:
    """Raises ConfigError when the records or the log would lie among the files that are served."""
    root = os.path.realpath(config.backend.localfs_root_path)
    for key in ("metadata_store.sqlite_path", "log.file", "server.cert_file", "server.key_file"):
        path = config.get(key)
        inside = os.path.relpath(os.path.realpath(path), root).split(os.sep) if path else [".."]
        if inside[0] not in ("..", HIDDEN) and not os.path.isabs(inside[0]):
            raise ConfigError(f"{key}: {path!r} lies in the folder that is served (backend.localfs_root_path: "
                              f"{root!r}); put it outside, or into its hidden folder {HIDDEN}")


class Server:
    """A running server; all its threads, descriptors and files are its own and end with `close`.

        with callfs.Server(root=folder) as server:
            print(server.url, server.key)

    With a `Config` it does what that says. Without one it is made for tests: it serves `root` (a temporary folder
    when that is None) on 127.0.0.1 and a free port, with a fresh key for the user `admin`; `options` are those of the
    configuration with two underscores for the dot (`storage__durability="relaxed"`). Raises ConfigError, OSError.
    """

    SWEEP_SECONDS = 300                     # rest.md: used and expired links go every five minutes

    def __init__(self, config: Optional[Config] = None, *, root: Union[str, os.PathLike[str], None] = None,
                 inherited: Sequence[socket.socket] = (), **options: Any) -> None:
        self._cleanup, self._stopping, self._ending = contextlib.ExitStack(), threading.Event(), threading.RLock()
        self._inherited, self._started = inherited, 0.0
        try:
            self.config = self._embedded(root, options) if config is None else config
            self.warnings = self.config.validate()
            check_built(self.config)
            check_places(self.config)
            self._build()
        except BaseException:
            self._cleanup.close()
            raise

    def _embedded(self, root: Union[str, os.PathLike[str], None], options: Mapping[str, Any]) -> Config:
        if root is None:
            root = tempfile.mkdtemp(prefix="callfs-")
            self._cleanup.callback(shutil.rmtree, root, ignore_errors=True)
        hidden = os.path.join(os.fspath(root), HIDDEN)
        values: dict[str, Any] = {
            "server": {"listen_addr": "127.0.0.1:0"}, "log": {"level": "error"},
            "auth": {"api_key_users": {"admin": secrets.token_hex(16)}, "admins": ["admin"],
                     "internal_proxy_secret": secrets.token_hex(16), "single_use_link_secret": secrets.token_hex(16)},
            "backend": {"localfs_root_path": os.fspath(root)},
            "metadata_store": {"sqlite_path": os.path.join(hidden, "callfs.sqlite3")},
        }
        for name, value in options.items():
            section, _, option_name = name.partition("__")
            if option_name:
                values.setdefault(section, {})[option_name] = value
            else:                           # `plugins={...}`: a section as a whole
                values[section] = value
        return Config.from_mapping(values, "callfs.Server(...)")

    # -- building ----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        config, keep = self.config, self._cleanup
        self.log = Log(config.log.level, config.log.format, config.log.file, config.log.access)
        keep.callback(self.log.close)
        self.metrics = Metrics()
        self.metrics.gauge("callfs_uptime_seconds", lambda: time.time() - self._started)
        self.tree, self._store = self._build_tree()
        keep.callback(self.tree.close)
        self.mounts = self._build_mounts()
        self.webhooks = self._build_webhooks()
        self._links = Links(self.tree, self._store, config.auth.single_use_link_secret)
        self._listeners = self._build_listeners()

    def _build_tree(self) -> tuple[Tree, MetadataStore]:
        config = self.config
        durable, database = config.storage.durability == "full", config.metadata_store.sqlite_path
        disk = LocalDisk(config.backend.localfs_root_path, durable=durable)
        self._cleanup.callback(disk.close)
        os.makedirs(os.path.dirname(os.path.abspath(database)), mode=0o700, exist_ok=True)
        self._cleanup.callback(DataLock(database + ".lock").release)
        if disk.writable:
            disk.sweep()
        store = SQLiteStore(database, durable=durable, timeout=config.server.metadata_op_timeout,
                            metrics=self.metrics)
        hub = Hub(config.instance_discovery.instance_id, history=config.events.history,
                  most=config.events.max_subscribers, heartbeat=config.events.heartbeat)
        files = StoreFS(disk, store, LocalLocks(config.server.file_op_timeout, self.metrics),
                        instance_id=config.instance_discovery.instance_id, min_free=config.storage.min_free_bytes,
                        rescan=config.storage.rescan_interval, hot_bytes=config.storage.hot_cache_bytes,
                        metrics=self.metrics, log=self.log, tell=hub.publish)
        self.metrics.gauge("callfs_event_subscribers", lambda: hub.subscribers)
        return Tree(files, mode=config.auth.mode, metrics=self.metrics, log=self.log, hub=hub), store

    def _build_mounts(self) -> Mounts:
        config = self.config
        folder = os.path.dirname(os.path.abspath(config.source)) if config.source and os.path.exists(config.source) \
            else os.getcwd()
        private = (os.path.join(config.backend.localfs_root_path, HIDDEN), config.metadata_store.sqlite_path,
                   config.metadata_store.sqlite_path + "-webhooks")
        context = MountContext("/", self.tree, self.log, self.metrics, folder, self._spool_folder(), __version__, private)
        mounts = Mounts(self.tree, self._store, context, persist=config.mounts.persist)
        mounts.start(mount_specs(config.plugins))
        return mounts

    def _build_webhooks(self) -> Webhooks:
        """After the mounts: those that are made at every start are no news."""
        config = self.config
        queue = functools.partial(HookQueue, config.metadata_store.sqlite_path + "-webhooks", durable=config.storage.durability == "full",
                                  timeout=config.server.metadata_op_timeout, most=config.events.webhook_backlog)
        hooks = Webhooks(read_webhooks(config.events), queue, retry=config.events.webhook_retry, version=__version__,
                         metrics=self.metrics, log=self.log)
        self._cleanup.callback(hooks.close)
        self.tree.hub.sinks += [hooks.take] if config.events.webhooks else []
        return hooks

    def _build_listeners(self) -> list[HTTPServer]:
        config, limits = self.config, limits_of(self.config)
        listen = [] if self._inherited else parse_listen(config.server.listen_addr)
        tls = self._tls_factory()
        rest = RestDialect(self.tree, self._links, config, metrics=self.metrics, log=self.log,
                           spool_folder=self._spool_folder(), checks=(self.mounts.check, self.webhooks.check))
        rates = config.rate_limits
        failures = RateLimiter(rates.login_failure_rate, rates.login_failure_burst, rates.addresses)
        authenticator = Authenticator(config.auth, failures, config.plugins.get("anonymous", "none"))
        pfs = PfsDialect(self.tree, self.mounts, config, log=self.log, spool_folder=self._spool_folder())

        page = BrowserPage(config, authenticator)
        remfs = RemfsDialect(self.tree, page, config, log=self.log, spool_folder=self._spool_folder())

        def app(routes: Iterable[Route], loopback: Iterable[str] = ()) -> Application:
            router = Router()
            router.add(routes)
            return Application(router, authenticator, config.server, metrics=self.metrics, log=self.log,
                               loopback=loopback, calls=self.tree.calls)
        own = not self._inherited and all(map(_is_loopback, listen))
        main = app([*rest.routes(), *pfs.routes(), *page.routes(), *remfs.routes()], [address.host or "localhost" for address in listen] if own else ())
        found = [HTTPServer(main, limits, listen, tls=tls, inherited=self._inherited, log=self.log,
                            unix_mode=int(config.server.unix_mode, 8))]
        self._cleanup.callback(found[0].server_close)
        self.metrics.gauge("callfs_http_connections", lambda: found[0].connections)
        if config.metrics.listen_addr:
            open_routes = [route._replace(access="open") for route in rest.routes()
                           if route.pattern in ("/metrics", "/health", "/ready")]
            found.append(HTTPServer(app(open_routes), limits, parse_listen(config.metrics.listen_addr),
                                    log=self.log))
            self._cleanup.callback(found[1].server_close)
        self._bound = [listener.addresses for listener in found]
        return found

    def _spool_folder(self) -> Optional[str]:
        folder = os.path.join(os.path.realpath(self.config.backend.localfs_root_path), HIDDEN, "tmp")
        return folder if os.access(folder, os.W_OK) else None

    def _tls_factory(self) -> Optional[Callable[[], ssl.SSLContext]]:
        options = self.config.server
        if options.protocol == "http" or not options.cert_file:
            return None
        return lambda: tls_context(options.cert_file, options.key_file)

    # -- running -----------------------------------------------------------------------------------------------

    def start(self) -> Server:
        """Begin to answer. Returns at once."""
        self._keeper = threading.Thread(target=self._keep_house, name="callfs-keeper", daemon=True)
        self._keeper.start()
        self._started = time.time()
        self.webhooks.start()
        for listener in self._listeners:
            listener.start()
        for warning in self.warnings:
            self.log.warn(warning)
        return self

    def _keep_house(self) -> None:
        """Write the log, sweep the links."""
        swept = time.monotonic()
        while not self._stopping.wait(0.25):
            self.log.flush()
            if time.monotonic() - swept > self.SWEEP_SECONDS:
                swept = time.monotonic()
                self._sweep()

    def _sweep(self) -> None:
        try:
            self._store.sweep_links(time.time())
        except CallFSError as error:
            self.log.warn("links could not be swept", reason=error.message)

    @property
    def urls(self) -> list[str]:
        """Where it answers, with real ports."""
        scheme = "https" if self._tls_factory() else "http"
        return [f"unix:{address.path}" if address.kind == "unix" else
                f"{scheme}://{_shown_host(address.host)}:{address.port}{self.config.server.path_prefix}"
                for address in self._bound[0]]

    @property
    def metrics_url(self) -> str:
        """Where `metrics.listen_addr` answers, "" without one."""
        if len(self._bound) < 2:
            return ""
        address = self._bound[1][0]
        return f"http://{_shown_host(address.host)}:{address.port}/metrics"

    @property
    def url(self) -> str:
        """The first of `urls`."""
        return self.urls[0]

    @property
    def key(self) -> str:
        """A key that is configured, of an administrator where there is one; "" without any."""
        auth = self.config.auth
        for name in (*auth.admins, *auth.api_key_users):
            if name in auth.api_key_users:
                return auth.api_key_users[name]
        return auth.api_keys[0] if auth.api_keys else ""

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Until `stop` was called; whether it was."""
        return self._stopping.wait(timeout)

    def reload(self) -> None:
        """Read the certificate again and open the log's file anew. What can not be read leaves the old one."""
        try:
            self.log.reopen()
            for listener in self._listeners:
                listener.reload_tls()
        except ConfigError as error:
            self.log.error("not all was reloaded", reason=error.message)

    def stop(self, timeout: Optional[float] = None) -> bool:
        """Stop accepting, let running requests end for at most `timeout` seconds (server.shutdown_timeout), close.

        True when all of them ended by themselves. May be called again, also by another thread that waits less long.
        """
        seconds = self.config.server.shutdown_timeout if timeout is None else timeout
        self.tree.quiesce()
        done = all([listener.drain(seconds) for listener in self._listeners])
        with self._ending:
            if not self._stopping.is_set():
                self._stopping.set()
                if self._started:
                    self._keeper.join()
                self._cleanup.close()
        return done

    def close(self) -> None:
        """As `stop`, without waiting for slow clients."""
        self.stop(0.5)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()


def _is_loopback(address: ListenAddress) -> bool:
    return address.kind == "unix" or address.host in ("localhost", "::1") or address.host.startswith("127.")


def _shown_host(host: str) -> str:
    """A name to connect to, for an address that was bound."""
    if host in ("", "0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def limits_of(config: Config) -> HTTPLimits:
    """The options of `server` that are limits of the HTTP engine, by their names."""
    options = {field.name: getattr(config.server, field.name) for field in dataclasses.fields(HTTPLimits)
               if hasattr(config.server, field.name)}
    return HTTPLimits(**options, handlers_wait=config.storage.durability == "full")


# ============================================================================
# fsck: what disagrees between files and records, and its mending
# ============================================================================


class Finding(NamedTuple):
    """One thing that fsck found: its kind (a key of FINDINGS), where, and what more there is to say."""

    kind: str
    path: str
    detail: str = ""


FINDINGS = {                                # kind: (what it means, whether it can be mended)
    "unrecorded": ("a file without a record; taken in as root's", True),
    "missing": ("a record whose file is gone; dropped", True),
    "changed": ("changed from outside; size, time and ETag taken from the file", True),
    "replaced": ("a directory where the record says file, or the other way round; taken in anew", True),
    "corrupt": ("the bytes do not have the recorded SHA-256 although nobody changed the file: bit rot", False),
    "unreadable": ("can not be read", False),
    "unnamed": ("a name that no request can name (not UTF-8, a control character); left alone", False),
    "scratch": ("left by a killed server; removed", True),
}


class Checker:
    """Walks files and records side by side. Nobody else may work on them meanwhile."""

    def __init__(self, disk: LocalDisk, store: MetadataStore, *, instance_id: str, deep: bool, mend: bool,
                 report: Callable[[Finding], None]) -> None:
        self._disk, self._store, self._instance = disk, store, instance_id
        self._deep, self._mend, self._report, self.left = deep, mend, report, 0

    def run(self) -> int:
        """How many problems are left."""
        self._scratch()
        folders = ["/"]
        while folders:
            folders += self._folder(folders.pop())
        self._orphans()
        return self.left

    def _found(self, kind: str, path: str, mend: Optional[Callable[[], object]] = None, detail: str = "") -> None:
        self._report(Finding(kind, path, detail))
        if self._mend and mend is not None:
            mend()
        elif kind != "unnamed":
            self.left += 1

    def _scratch(self) -> None:
        for folder in ("tmp", "trash"):
            place = os.path.join(self._disk.hidden, folder)
            for item in os.listdir(place) if os.path.isdir(place) else ():
                self._found("scratch", f"/{HIDDEN}/{folder}/{item}")
                self.left -= self._mend
        if self._mend and self._disk.writable:
            self._disk.sweep()

    def _folder(self, path: str) -> list[str]:
        """Check what lies in a directory; those that lie in it."""
        folders: list[str] = []
        try:
            names = sorted(itertools.chain.from_iterable(self._disk.scan(path, every=True)))
            found = self._disk.stats(path, names)
        except OSError as error:
            self._found("unreadable", path, detail=error.strerror or "")
            return folders
        for name, info in zip(names, found):
            child = join_path(path, name)
            if _FORBIDDEN.search(name):
                self._found("unnamed", ascii(child))
            elif info is not None:
                self._item(child, info)
                folders += [child] if stat.S_ISDIR(info.st_mode) else []
        return folders

    def _item(self, path: str, found: os.stat_result) -> None:
        if stat.S_IFMT(found.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            return
        record, fresh = self._store.get(path), stranger(path, found, self._instance)
        if record is None:
            self._found("unrecorded", path, lambda: self._store.add([fresh]))
        elif record.type != fresh.type:
            self._found("replaced", path, lambda: (self._store.delete(path), self._store.add([fresh])))
        elif not fresh.is_dir and record.stamp != fresh.stamp:
            self._found("changed", path, lambda: self._store.put(refreshed(record, found)))
        elif self._deep and record.digest:
            self._verify(path, record)

    def _verify(self, path: str, record: Entry) -> None:
        digest = hashlib.sha256()
        try:
            fd, found = self._disk.open(path)
            with FileReader(fd, 0, found.st_size) as reader:
                for block in reader:
                    digest.update(block)
        except (OSError, CallFSError) as error:
            self._found("unreadable", path, detail=str(error))
            return
        if digest.hexdigest() != record.digest:
            self._found("corrupt", path)

    def _orphans(self) -> None:
        after = ("", "")
        page = self._store.subtree("/", after)
        while page:
            for record in page:
                if not self._is_there(record.path):
                    self._found("missing", record.path, functools.partial(self._store.delete, record.path))
            page = self._store.subtree("/", split_path(page[-1].path))

    def _is_there(self, path: str) -> bool:
        try:
            self._disk.stat(path)
        except (FileNotFoundError, NotADirectoryError, SymlinkMet):
            return False
        except OSError:
            pass                            # the disk can not tell: no reason to drop a record
        return True


def run_fsck(config: Config, *, deep: bool = False, mend: bool = True,
             report: Callable[[Finding], None] = lambda finding: None) -> int:
    """Check the data of a configuration, whose server must not run; how many problems are left.

    Rebuilds the records when there are none. `deep` reads every file and compares its SHA-256. Raises ConfigError.
    """
    check_built(config)
    database = config.metadata_store.sqlite_path
    os.makedirs(os.path.dirname(os.path.abspath(database)), mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as keep:
        keep.callback(DataLock(database + ".lock").release)
        disk = LocalDisk(config.backend.localfs_root_path)
        keep.callback(disk.close)
        store = SQLiteStore(database, durable=False)    # a million commits; whoever pulls the plug runs it again
        keep.callback(store.close)
        if mend and disk.writable:          # finishes what a killed server had begun before that is judged
            keep.callback(StoreFS(disk, store, LocalLocks(), claim=True).close)
        return Checker(disk, store, instance_id=config.instance_discovery.instance_id, deep=deep, mend=mend,
                       report=report).run()

# ============================================================================
# Client: the REST dialect from Python
# ============================================================================

CLIENT_PAGE = 1000                      # entries asked for at a time

Target = Union[str, "os.PathLike[str]", BinaryIO]


class FileInfo(NamedTuple):
    """What the server says of a path: `mtime` in seconds since 1970, `etag` as `if_match` takes it ("" in listings)."""

    path: str
    type: str = FILE
    size: int = 0
    mode: int = 0o644
    owner: str = ""
    mtime: float = 0.0
    etag: str = ""
    instance_id: str = ""

    @property
    def name(self) -> str:
        """The last part of the path; "/" for the root."""
        return self.path.rpartition("/")[2] or "/"

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return self.type == DIRECTORY


class LinkInfo(NamedTuple):
    """A download link. `url` and `token` are told only by the answer that made it, `uses` only by the list."""

    id: str
    url: str
    token: str
    path: str
    expires_at: str                     # RFC 3339, UTC
    max_uses: int = 1
    uses: int = 0


def _seconds(text: str) -> float:
    """Seconds since 1970 in an RFC 3339 time in UTC, whatever the number of its digits; 0.0 for ""."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}") if text else 0.0


_INFO_HEADERS = ("Type", "Size", "Mode", "Owner", "MTime", "Instance-ID")


def _info_of_headers(path: str, headers: Mapping[str, str]) -> FileInfo:
    kind, size, mode, owner, mtime, instance = (headers["X-CallFS-" + name] for name in _INFO_HEADERS)
    return FileInfo(canonical_path("/" + path), kind, int(size), int(mode, 8), urllib.parse.unquote(owner),
                    _seconds(mtime), headers.get("ETag") or "", urllib.parse.unquote(instance))


def _info_of_item(item: Mapping[str, Any]) -> FileInfo:
    return FileInfo(item["path"], item["type"], int(item["size"]), int(item["mode"], 8), item["owner"],
                    _seconds(item["mtime"]), item.get("etag", ""), item.get("instance_id", ""))


def _link_of_item(item: Mapping[str, Any], path: str = "", max_uses: int = 1) -> LinkInfo:
    return LinkInfo(str(item.get("id", "")), item.get("url", ""), item.get("token", ""), item.get("path", path),
                    item["expires_at"], int(item.get("max_uses", max_uses)), int(item.get("uses", 0)))


class RemoteFile(io.RawIOBase):
    """The bytes of a file on the server, from front to back; `info` says what it was when it was opened.

    A connection that breaks is made again from where it broke, for that same version of the file: `read` raises
    PreconditionFailed when there is another one by now, Unavailable when the server stays away. It never ends early.
    """

    def __init__(self, client: Client, path: str, start: int = 0, stop: Optional[int] = None, *,
                 if_match: str = "", archive: str = "") -> None:
        if start < 0 or stop is not None and stop <= start:
            raise ValueError("a range needs 0 <= start < stop")
        self._client, self._path, self._target = client, path, _file_target(path, archive=archive)
        self._position, self._stop, self._match, self._breaks = start, stop, if_match, 0
        self._reply = self._ask()
        left = self._reply.response.length
        self._end = None if left is None else start + left
        try:
            with _foreign(client.url):
                self.info = FileInfo(path) if archive else _info_of_headers(path, self._reply.headers)
            if self.info.is_dir:
                raise Conflict(f"{self.info.path} is a directory.")
        except CallFSError:
            self.close()
            raise
        self._match = "" if self.info.etag.startswith("W/") else self.info.etag

    def _ask(self) -> _Reply:
        headers = {"If-Match": self._match} if self._match else {}
        if self._position or self._stop is not None:
            headers["Range"] = f"bytes={self._position}-{'' if self._stop is None else self._stop - 1}"
        answer = self._client._call("GET", self._target, headers, stream=True)
        response = answer.response
        if (answer.status == 206) != ("Range" in headers) or response.length is None and not response.chunked:
            answer.close()
            raise BadGateway(f"{self._client.url} answers without the range or the length that was asked for.")
        return answer

    def readable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The offset in the file of the next byte."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """The next bytes; 0 at the end of the range and nowhere before."""
        view = memoryview(buffer).cast("B")
        while len(view) and self._position != self._end:
            reason = "the answer ended early"
            try:
                with _wire_errors():
                    count = self._reply.response.readinto(view)
                if count or self._end is None:
                    self._position += count
                    self._breaks = 0 if count else self._breaks
                    return count
            except _Broken as error:
                reason = error.reason
            self._resume(reason)
        return 0

    def _resume(self, reason: str) -> None:
        self._reply.close()
        self._breaks += 1
        if not self._match or self._breaks > self._client.retries:
            raise Unavailable(f"{self._client.url}: {self._path} broke off at byte {self._position}: {reason}")
        self._client.sleep(_pause(self._breaks - 1))
        self._reply = self._ask()

    def close(self) -> None:
        """Let go of the connection; what was not read is not fetched."""
        if not self.closed and hasattr(self, "_reply"):
            self._reply.close()
        super().close()


def _file_target(path: str, **query: object) -> str:
    return _target("/v1/files/", path, **query)


class Client(HTTPClient):
    """A callfs server, over its REST dialect. Any number of threads may use one client; `close` it, or use `with`.

    `url` is http://HOST[:PORT][/PREFIX], https://... or unix:/PATH; the key may stand in it as a password
    (http://:KEY@HOST). `timeout` is for each wait on the network, in seconds. Errors that the server answers are raised
    as the class that the server raised; Unavailable also says that it can not be reached. OSError is of this side.
    What is sent again, and when, is as `HTTPClient` says.
    """

    # ---- files

    def upload(self, path: str, source: Upload, *, overwrite: bool = True, mtime: Optional[float] = None,
               if_match: str = "", digest: bool = True, progress: Optional[ByteProgress] = None) -> FileInfo:
        """Store bytes, a local file (`pathlib.Path`), an open binary file from its position on, or blocks, at `path`.

        All or nothing, and durable on return. Missing parents are made. `overwrite` false raises FileExists where
        something is, `if_match` PreconditionFailed unless that version is there. `mtime` is in seconds since 1970. With
        `digest` the server checks the SHA-256 of what can be read twice.
        """
        with _Source(source) as body:
            headers = {"If-Match": if_match} if if_match else {}
            if mtime is not None:
                headers["X-OC-Mtime"] = f"{mtime:.9f}".rstrip("0").rstrip(".")
            if digest and body.replayable:
                headers["Content-Digest"] = body.digest()
            answer = self._call("PUT" if overwrite else "POST", _file_target(path), headers, body=body,
                                progress=progress)
        return self._info(answer)

    def patch(self, path: str, offset: int, data: Upload, *, progress: Optional[ByteProgress] = None) -> FileInfo:
        """Write into a file, at `offset` (up to its size: there it grows). What arrived before a failure stays."""
        with _Source(data) as body:
            headers = {"RemFS-Offset": str(offset)}
            answer = self._call("PATCH", _file_target(path), headers, body=body, progress=progress, idempotent=True)
        return self._info(answer)

    def resume_upload(self, path: str, local_path: Union[str, os.PathLike[str]], *,
                      progress: Optional[ByteProgress] = None) -> FileInfo:
        """Send what the server does not have yet of a local file; goes on after a break, and after an earlier call.

        What is there is taken for the beginning of the file. Raises Conflict where it is longer.
        """
        return _resume(self, _file_target(path), local_path, lambda: self.stat(path), self._info, progress)

    def open(self, path: str, start: int = 0, stop: Optional[int] = None, *, if_match: str = "") -> RemoteFile:
        """The bytes from `start` up to `stop` (None: the end), as a file to read. The caller closes it."""
        return RemoteFile(self, path, start, stop, if_match=if_match)

    def download(self, path: str, target: Optional[Target] = None, *, start: int = 0, stop: Optional[int] = None,
                 resume: bool = False, progress: Optional[ByteProgress] = None) -> Union[bytes, int]:
        """The bytes themselves (`target` None), else how many `target`, a path or a binary file, got.

        A path is written beside and renamed when it is whole: it never holds a part. With `resume` what is left by a
        failure is taken up by the next call, if the file is still the same; one call at a time, please.
        """
        if target is None:
            memory = io.BytesIO()
            self._copy(self.open(path, start, stop), memory, progress)
            return memory.getvalue()
        if not isinstance(target, (str, os.PathLike)):
            return self._copy(self.open(path, start, stop), target, progress)
        if not resume:
            with _written_beside(target) as file:
                return self._copy(self.open(path, start, stop), file, progress)
        if start or stop is not None:
            raise ValueError("resume is for whole files")
        return self._download_rest(path, os.fspath(target), progress)

    def _download_rest(self, path: str, target: str, progress: Optional[ByteProgress]) -> int:
        info = self.stat(path)
        folder, name = os.path.split(target)
        # Named after the version, so that what is there of another one is not continued.
        label = hashlib.sha256(f"{self.url}\0{info.path}\0{info.etag}\0{name}".encode("utf-8", "surrogateescape"))
        part = os.path.join(folder, f".callfs-{label.hexdigest()[:32]}.part")
        with open(part, "ab" if info.etag else "wb") as file:
            if file.tell() < info.size or not info.size:
                self._copy(self.open(path, file.tell(), if_match=info.etag), file, progress)
            size = file.tell()
        os.replace(part, target)
        return size

    def _copy(self, source: RemoteFile, target: BinaryIO, progress: Optional[ByteProgress]) -> int:
        view, start = memoryview(bytearray(BLOCK)), source.tell()
        with source:
            for count in iter(lambda: source.readinto(view), 0):
                target.write(view[:count])
                if progress:
                    progress(source.tell(), source._end)
            return source.tell() - start

    def archive(self, path: str, target: Target, format: str = "zip") -> int:
        """A directory with all below it as `zip` or `tar`, to a path or a binary file; the number of bytes."""
        if not isinstance(target, (str, os.PathLike)):
            return self._copy(RemoteFile(self, path, archive=format), target, None)
        with _written_beside(target) as file:
            return self._copy(RemoteFile(self, path, archive=format), file, None)

    def stat(self, path: str) -> FileInfo:
        """What is at a path. Raises FileNotFound."""
        reply = self._call("HEAD", _file_target(path))
        with _foreign(self.url):
            return _info_of_headers(path, reply.headers)

    def _info(self, reply: _Reply) -> FileInfo:
        with _foreign(self.url):
            return _info_of_item({"etag": reply.headers.get("ETag") or "", **json.loads(reply.data)})

    def exists(self, path: str) -> bool:
        """Whether a file or directory is there."""
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def mkdir(self, path: str) -> bool:
        """Make a directory, and its missing parents; False when it was there. Raises FileExists where a file is."""
        return self._call("POST", _file_target(path.rstrip("/") + "/")).status == 201

    def delete(self, path: str, recursive: bool = False) -> None:
        """Delete a file or a directory. Raises FileNotFound, DirectoryNotEmpty (unless `recursive`)."""
        self._call("DELETE", _file_target(path, recursive=recursive))

    def move(self, source: str, destination: str, *, overwrite: bool = False, create_parents: bool = False) -> str:
        """Rename or move a file or a directory with all in it; the new path. Raises FileExists, FileNotFound."""
        wish = {"destination": "/" + destination.lstrip("/"), "overwrite": overwrite, "create_parents": create_parents}
        answer = self._json("PATCH", _file_target(source), wish)
        with _foreign(self.url):
            return str(answer["path"])

    def list(self, path: str = "/", recursive: bool = False, max_depth: Optional[int] = None) -> Iterator[FileInfo]:
        """What is in a directory, sorted by path; page by page, so that any size will do. Raises FileNotFound."""
        after = None
        while True:
            page = self._json("GET", _target("/v1/directories/", path, limit=CLIENT_PAGE, after=after,
                                             recursive=recursive, max_depth=max_depth))
            with _foreign(self.url):
                items, following = [_info_of_item(item) for item in page["items"]], page.get("next")
            yield from items
            if not following or following == after:
                return
            after = following

    # ---- links, and the server itself

    def link(self, path: str, expiry_seconds: int = 3600, max_uses: int = 1) -> LinkInfo:
        """A link to download a file without a key, so many times within so many seconds (at most a day)."""
        wish = {"path": "/" + path.lstrip("/"), "expiry_seconds": expiry_seconds}
        if max_uses != 1:
            wish["max_uses"] = max_uses
        answer = self._json("POST", "/v1/links/generate", wish)
        with _foreign(self.url):
            return _link_of_item(answer, str(wish["path"]), max_uses)

    def links(self) -> tuple[LinkInfo, ...]:
        """The links that this key's user made and that still work."""
        answer = self._json("GET", "/v1/links")
        with _foreign(self.url):
            return tuple(_link_of_item(item) for item in (answer["links"] if isinstance(answer, dict) else answer))

    def revoke(self, link_id: str) -> None:
        """Make a link stop working. Raises NotFound."""
        self._call("DELETE", _target("/v1/links/", link_id))

    def health(self) -> dict[str, Any]:
        """What the server says when it runs; needs no key. Raises Unavailable."""
        return self._json("GET", "/health")

    def ready(self) -> tuple[bool, str]:
        """Whether the server can do its work now, and a line about each of its parts."""
        answer = self._call("GET", "/ready", accept=(503,))
        return answer.status == 200, answer.data.decode("utf-8", "replace")


@contextlib.contextmanager
def _written_beside(target: Union[str, os.PathLike[str]]) -> Iterator[BinaryIO]:
    """A new file that becomes `target` when the block ends well, and vanishes when it does not."""
    part = os.path.join(os.path.dirname(os.fspath(target)), f".callfs-{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            yield file
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _resume(client: HTTPClient, target: str, local_path: Union[str, os.PathLike[str]], stat: Callable[[], T],
            told: Callable[[_Reply], T], progress: Optional[ByteProgress]) -> T:
    """Send what a server has not yet of a local file, after each break from where `stat` says. `told`: what there is,
    of an answer to a write."""
    with open(local_path, "rb") as file:
        size, breaks = os.fstat(file.fileno()).st_size, 0
        try:
            info: Any = stat()
        except NotFound:
            info = told(client._call("PUT", target, {"If-None-Match": "*"}))
        while info.size < size:
            before = info.size
            try:
                info = told(_send_rest(client, target, file, before, size, progress))
            except (Unavailable, RateLimited):
                info = stat()
                breaks = 0 if info.size > before else breaks + 1
                if breaks > client.retries:
                    raise
                client.sleep(_pause(breaks))
    if info.size > size:
        raise Conflict(f"The server has {info.size} bytes of this file, the local one only {size}.")
    return info


def _send_rest(client: HTTPClient, target: str, file: BinaryIO, start: int, size: int,
               progress: Optional[ByteProgress]) -> _Reply:
    file.seek(start)
    rest = _Source(file)
    rest.replayable = False                 # only what has not arrived is sent again
    told = progress and (lambda done, _: progress(start + done, size))
    return client._call("PATCH", target, {"RemFS-Offset": str(start)}, body=rest, progress=told)


# ============================================================================
# remFS client: /fs from Python, and any static file server that has a remfs.json
# ============================================================================

_MOVED = (301, 302, 307, 308)           # to a directory's address with a slash


class RemFSClient(HTTPClient):
    """A tree that is served as remFS: of this server, or, to read, of any static file server with a `remfs.json`.

    `url` is where the tree begins: http(s)://[:KEY@]HOST[:PORT]/fs for callfs. Threads may share a client; `close` it,
    or use `with`. Where the server tells no size (-1) or time (0), `stat` of the file itself may. A server that only
    serves files answers each change with NotSupported, one that answers nonsense is told by BadGateway.
    """

    def _error_of(self, status: int, headers: Mapping[str, str], body: bytes) -> CallFSError:
        error = super()._error_of(status, headers, body)
        if status in (405, 501) and "message" not in (_object(body) or {}):
            return NotSupported(f"{self.url} is read-only: it serves files and takes no changes over remFS.")
        return error

    # ---- read

    def _meta(self, path: str) -> Optional[dict[str, Any]]:
        """`remfs.json` of a directory as the server has it; None where it has none."""
        try:
            reply = self._call("GET", _target("/", path.rstrip("/") + "/remfs.json"), limit=MAX_PFS_LISTING)
        except NotFound:
            return None
        try:
            found = json.loads(reply.data)
        except (ValueError, RecursionError) as error:
            raise BadGateway(f"{self.url}: remfs.json of {path} is not JSON ({error}); a comma behind the last field, "
                             "for example, is not allowed.") from None
        if not isinstance(found, dict) or not isinstance(found.get("children", {}), dict):
            raise BadGateway(f"{self.url}: remfs.json of {path} is none: it needs an object with `children`.")
        return found

    def _directory(self, path: str) -> dict[str, Any]:
        """What the server says of a directory, in its own remfs.json or in one above; `features` as they hold there."""
        found, above, rest = self._meta(path), path, []         # type: Optional[dict[str, Any]], str, list[str]
        while found is None and above != "/":
            above, name = split_path(above)
            rest.insert(0, name)
            found = self._meta(above)
        features = (found or {}).get("features", {})
        for name in rest:
            found = ((found or {}).get("children") or {}).get(name)
            if not isinstance(found, dict):
                raise FileNotFound(f"{self.url} knows no {path}.")
            features = {**features, **found.get("features", {})}
        if found is None or found.get("type", "dir") != "dir":
            raise FileNotFound("This is a file, not a directory." if found else f"{self.url} has no remfs.json.")
        if rest and "children" not in found:
            raise NotSupported(f"{self.url} does not say what is in {path}: neither it nor a directory above has a "
                               "remfs.json with its children.")
        return {**found, "features": features}

    def list(self, path: str = "/") -> list[RemoteInfo]:
        """What is in a directory, by name; `meta["features"]` is what the server says can be done there. Raises
        FileNotFound, and NotSupported where it does not say what is in it."""
        with _foreign(self.url):
            found = self._directory(canonical_path("/" + path))
            return sorted((_info_of_child(name, child, found["features"])
                           for name, child in found.get("children", {}).items()), key=operator.attrgetter("name"))

    def features(self, path: str = "/") -> dict[str, bool]:
        """What the server says that can be done in a directory: `read`, `write`, `events`, `perf`; what is missing has
        to be tried."""
        with _foreign(self.url):
            return dict(self._directory(canonical_path("/" + path))["features"])

    def stat(self, path: str) -> RemoteInfo:
        """What is at a path, a file's size as it is stored now. Raises FileNotFound."""
        path = canonical_path("/" + path)
        name, reply = split_path(path)[1], None
        if name:
            reply = self._call("HEAD", _target("/", path), accept=_MOVED)
        if reply is None or reply.status in _MOVED:
            return RemoteInfo(name or "/", 0, 0o755, is_dir=True)
        with _foreign(self.url):
            moment = parse_http_date(reply.headers.get("Last-Modified") or "")
            return RemoteInfo(name, int(reply.headers.get("Content-Length", -1)), 0o644, int((moment or 0) * 10**9))

    def open(self, path: str, start: int = 0, stop: Optional[int] = None) -> Reader:
        """The bytes from `start` up to `stop` (None: the end); the caller closes the reader. A server without ranges
        sends the whole file, of which only the part is given. Raises RangeNotSatisfiable."""
        if start < 0 or stop is not None and stop <= start:
            raise ValueError("a range needs 0 <= start < stop")
        part = start or stop is not None
        headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if part else {}
        reply = self._call("GET", _target("/", path), headers, stream=True, accept=_MOVED)
        reader = RemoteReader(self.url, reply)
        if reply.status == 206 and part or reply.status == 200 and not part:
            return reader
        if reply.status != 200:
            reader.close()
            raise Conflict(f"{path} is a directory.")
        if reader.length is not None and reader.length <= start:
            reader.close()
            raise RangeNotSatisfiable(f"The file has {reader.length} bytes.")
        return ChunkReader(_part_of(reader, start, stop), None, reader.close)

    def read(self, path: str, start: int = 0, stop: Optional[int] = None) -> bytes:
        """The same, all of it in memory."""
        with self.open(path, start, stop) as reader:
            return b"".join(reader)

    # ---- write

    def write(self, path: str, source: Upload, *, if_match: str = "",
              progress: Optional[ByteProgress] = None) -> RemoteInfo:
        """Create or replace a file; all or nothing. Missing directories are made."""
        with _Source(source) as body:
            headers = {"If-Match": if_match} if if_match else {}
            return self._changed(self._call("PUT", _target("/", path), headers, body=body, progress=progress))

    def patch(self, path: str, offset: int, data: Upload) -> RemoteInfo:
        """Write into a file, at `offset` (up to its size: there it grows). What arrived before a failure stays."""
        with _Source(data) as body:
            headers = {"RemFS-Offset": str(offset)}
            return self._changed(self._call("PATCH", _target("/", path), headers, body=body, idempotent=True))

    def resume_upload(self, path: str, local_path: Union[str, os.PathLike[str]], *,
                      progress: Optional[ByteProgress] = None) -> RemoteInfo:
        """Send what the server does not have yet of a local file, as `Client.resume_upload`."""
        return _resume(self, _target("/", path), local_path, lambda: self.stat(path), lambda _: self.stat(path),
                       progress)

    def mkdir(self, path: str) -> bool:
        """Make a directory, and its missing parents; False when it was there. Raises FileExists."""
        return self._call("PUT", _target("/", path, type="dir")).status == 201

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with all that is in it. Raises FileNotFound."""
        self._call("DELETE", _target("/", path))

    def move(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Rename or move. Raises FileNotFound, FileExists."""
        self._post(method="move", srcPath=source, dstPath=target, overwrite=overwrite)

    def concat(self, sources: Sequence[str], target: str, *, delete_sources: bool = False) -> RemoteInfo:
        """Files one behind the other as one file, put together by the server."""
        return self._changed(self._post(method="concat", srcPaths=list(sources), dstPath=target,
                                        deleteSources=delete_sources))

    def _post(self, **wish: Any) -> _Reply:
        # Without what is false: other servers may know only what the specification has.
        sent = {name: value for name, value in wish.items() if value is not False}
        return self._call("POST", "/", {"Content-Type": "text/plain"}, body=_Source(json.dumps(sent).encode()))

    def _changed(self, reply: _Reply) -> RemoteInfo:
        """What a write made; a server need not say it."""
        told = _object(reply.data) or {}
        with _foreign(self.url):
            return RemoteInfo(str(told.get("name", "")), int(told.get("size", -1)), 0o644,
                              pfs_time_ns(told.get("mtime", "1970-01-01T00:00:00Z")))


def _info_of_child(name: str, child: Mapping[str, Any], features: Mapping[str, bool]) -> RemoteInfo:
    folder = child.get("type") == "dir"
    return RemoteInfo(name, 0 if folder else int(child.get("size", -1)), 0o755 if folder else 0o644,
                      pfs_time_ns(child.get("modTime", "1970-01-01T00:00:00Z")), folder,
                      {"features": {**features, **child.get("features", {})}})


def _part_of(reader: Reader, start: int, stop: Optional[int]) -> Iterator[bytes]:
    """A part of what comes whole."""
    position = 0
    for block in reader:
        first, last = max(0, start - position), len(block) if stop is None else max(0, stop - position)
        position += len(block)
        if block[first:last]:
            yield block[first:last]
        if stop is not None and position >= stop:
            return


# ============================================================================
# Shell: the file commands, one by one or at a prompt
# ============================================================================

TAIL_POLL = 1.0                         # seconds between two looks of `tail -f` at a file that is no stream
TREE_DEPTH = 64                         # levels that `tree` and the recursive copies go down: foreign servers may lie
HISTORY_FILE = os.path.join("~", ".callfs_history")
HISTORY_LINES = 1000
MESSAGES = ("queuefs", "kvfs")          # where a file is a value, to which the line end of `echo` does not belong
FLOWS = ("queuefs", "streamfs")         # where a write adds and replaces nothing

Output = Union[bytes, Iterator[bytes], None]


class ShellSyntaxError(ValueError):
    """The line can not be read."""


class _Usage(Exception):
    """A command was called with wrong arguments."""


class _Failed(Exception):
    """A command can not go on, and has said why."""


# ---- a line: words, operators, pipelines

class Piece(NamedTuple):
    """A part of a word; `quote` is how it was quoted: "", '"' or, where each character means itself, "'"."""

    text: str
    quote: str = ""


class Word(str):
    """A word of a line: its text, and how its parts were quoted."""

    pieces: tuple[Piece, ...] = ()

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Word:
        """The word that is made of these."""
        word = cls("".join(piece.text for piece in pieces))
        word.pieces = tuple(pieces)
        return word

    @property
    def pattern(self) -> str:
        """What `glob` takes; "" where no unquoted character asks for it."""
        if not any(_MAGIC.search(piece.text) for piece in self.pieces if not piece.quote):
            return ""
        return "".join(_MAGIC.sub(r"[\g<0>]", piece.text) if piece.quote else piece.text for piece in self.pieces)


class Operator(str):
    """One of | || && ; < > >>."""


class Stage(NamedTuple):
    """One command of a pipeline. `redirects` has the words after < > >>, by operator."""

    words: list[Word]
    redirects: dict[str, Word]


class Pipeline(NamedTuple):
    """Commands joined by |. `after` is the operator before it: ; or && or ||."""

    after: str
    stages: tuple[Stage, ...]


_MAGIC = re.compile(r"[*?[]")
_QUOTED_MAGIC = re.compile(r"\[([*?[])\]")
_SHELL_TOKEN = re.compile(r"""(?P<space>\s+) | (?P<operator>\|\|?|&&|>>?|[;<]) | '(?P<single>[^']*)'
    | "(?P<double>(?:[^"\\]|\\.)*)" | \\(?P<escape>.) | (?P<plain>[^\s'"\\|;&<>]+)""", re.X | re.S)
_UNREADABLE = {"'": "a ' is not closed", '"': 'a " is not closed', "\\": "a \\ at the end of the line quotes nothing",
               "&": "& alone means nothing here; in quotes it is a character"}
_ESCAPABLE = " \t'\"\\|;&<>*?[]#"
_ESCAPE = re.compile(r"\\(?:([abefnrtv\\])|0([0-7]{0,3})|x([0-9a-fA-F]{1,2}))")
_ESCAPES = {"a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def tokenize(line: str) -> list[Union[Word, Operator]]:
    """The words and operators of a line, a comment left out. Raises ShellSyntaxError.

    A backslash quotes a character that means something, before others it stays: `\\n` is for the commands to read.
    """
    found: list[Union[Word, Operator]] = []
    pieces: list[Piece] = []
    position = 0
    while position < len(line):
        match = _SHELL_TOKEN.match(line, position)
        if match is None:
            raise ShellSyntaxError(_UNREADABLE.get(line[position], "this can not be read"))
        kind, position = str(match.lastgroup), match.end()
        if kind == "plain" and match[0][0] == "#" and not pieces:
            break
        if kind not in ("space", "operator"):
            pieces += _pieces(kind, match[kind])
            continue
        found += [Word.of(pieces)] if pieces else []
        found += [Operator(match[0])] if kind == "operator" else []
        pieces = []
    return [*found, Word.of(pieces)] if pieces else found


def _pieces(kind: str, text: str) -> list[Piece]:
    if kind == "double":
        parts = re.split(r'\\(["\\$`])', text)          # every second one is a quoted character
        return [Piece(part, "'" if number % 2 else '"') for number, part in enumerate(parts)]
    if kind == "escape":
        return [Piece(text, "'") if text in _ESCAPABLE else Piece("\\" + text)]
    return [Piece(text, "'" if kind == "single" else "")]


def parse_line(line: str) -> list[Pipeline]:
    """The pipelines of a line, [] for an empty one. Raises ShellSyntaxError."""
    pipelines: list[Pipeline] = []
    stages: list[Stage] = []
    stage, after, tokens = Stage([], {}), ";", iter([*tokenize(line), Operator(";")])
    for token in tokens:
        if isinstance(token, Word):
            stage.words.append(token)
        elif token[0] in "<>":
            _redirect(stage, token, next(tokens))
        elif stage.words:
            stages.append(stage)
            stage = Stage([], {})
            if token != "|":
                pipelines.append(Pipeline(after, tuple(stages)))
                stages, after = [], token
        elif stages or stage.redirects or after != ";" or token != ";":
            raise ShellSyntaxError(f"a command is missing before {token}" if token != ";" else "a command is missing")
    return pipelines


def _redirect(stage: Stage, operator: str, word: Union[Word, Operator]) -> None:
    if not isinstance(word, Word):
        raise ShellSyntaxError(f"after {operator} the name of a file is missing")
    if any(operator[0] == other[0] for other in stage.redirects):
        raise ShellSyntaxError(f"{operator[0]} is there twice")
    stage.redirects[operator] = word


def unescape(text: str) -> str:
    r"""A text with `\n`, `\t`, `\x41`, `\0101` ... read; what was in single quotes or after a backslash stays."""
    pieces = getattr(text, "pieces", None) or (Piece(text),)
    return "".join(piece.text if piece.quote == "'" else _ESCAPE.sub(_escaped, piece.text) for piece in pieces)


def _escaped(match: re.Match[str]) -> str:
    if match[1]:
        return _ESCAPES[match[1]]
    return chr(int(match[2] or "0", 8) if match[2] is not None else int(match[3], 16))


# ---- what runs a line

class Shell:
    """Runs lines of commands against a PFS server. `status` is the exit code of the last one.

    The streams are binary files; their owner closes them, and the client.
    """

    def __init__(self, client: PFSClient, *, stdin: Any = None, stdout: Any = None, stderr: Any = None) -> None:
        self.client, self.cwd, self.status, self.leaving = client, "/", 0, False
        self.stdin = stdin or getattr(sys.stdin, "buffer", io.BytesIO())
        self.stdout = stdout or sys.stdout.buffer
        self.stderr = stderr or sys.stderr.buffer
        self.at_line_start = True
        self._mounts: Optional[list[tuple[str, str]]] = None
        self._features: Optional[Sequence[str]] = None

    def path(self, text: str) -> str:
        """The canonical remote path that a word means here. Raises BadRequest."""
        return canonical_path("/" + posixpath.normpath("/" + posixpath.join(self.cwd, text)).lstrip("/"))

    def plugin_of(self, path: str) -> str:
        """The type of the filesystem that holds a canonical path; "" for the server's own files."""
        if self._mounts is None:
            with contextlib.suppress(PermissionDenied, NotFound, NotSupported):
                self._mounts = [(str(each["path"]), str(each["pluginName"])) for each in self.client.mounts()]
        holding = [mount for mount in self._mounts or () if is_below(path, mount[0])]
        return max(holding, key=lambda mount: len(mount[0]), default=("", ""))[1]

    def can(self, feature: str) -> bool:
        """Whether the server offers something that not every server does."""
        if self._features is None:
            self._features = ()
            with contextlib.suppress(CallerError, NotSupported, AttributeError):
                self._features = self.client.capabilities().get("features") or ()
        return feature in self._features

    def complain(self, text: str) -> None:
        """A line on standard error; controls in it are escaped."""
        line = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
        self.stderr.write(line.encode("utf-8", "backslashreplace") + b"\n")
        self.stderr.flush()

    def run_line(self, line: str) -> int:
        """Run a line; the exit code of its last command, 2 for one that can not be read."""
        try:
            pipelines = parse_line(line)
        except ShellSyntaxError as error:
            self.complain(f"syntax error: {error}")
            self.status = 2
            return 2
        for pipeline in pipelines:
            if not self.leaving and (pipeline.after == ";" or (pipeline.after == "&&") == (self.status == 0)):
                self.status = self.run_pipeline(pipeline.stages)
        return self.status

    def run_lines(self, lines: Iterable[str], stop: bool = False) -> int:
        """Run lines, up to `exit`, or with `stop` up to the first that fails; the last exit code."""
        for line in lines:
            self.run_line(line)
            if self.leaving or stop and self.status:
                break
        return self.status

    def run_pipeline(self, stages: Sequence[Stage]) -> int:
        """Run commands, each reading what the one before it gives; the exit code: the highest of theirs."""
        runs: list[Run] = []
        output: Output = None
        self._mounts = None                 # others mount and unmount, too
        with contextlib.ExitStack() as stack, contextlib.suppress(_Failed):
            for number, stage in enumerate(stages):
                runs.append(Run(self, stage, output if number == 0 else output or b"", stack, stage is stages[-1]))
                output = runs[-1].start()
            self.show(output)
        return max(run.code for run in runs)

    def show(self, output: Output) -> None:
        """Send to standard output, each block as it comes."""
        for block in [output] if isinstance(output, bytes) else output or ():
            if block:
                self.stdout.write(block)
                self.stdout.flush()
                self.at_line_start = block.endswith(b"\n")

    def glob(self, pattern: str) -> list[str]:
        """The remote paths that a pattern of `Word.pattern` matches, sorted; relative ones to a relative pattern."""
        found, parts = ["/" if pattern.startswith("/") else ""], [part for part in pattern.split("/") if part]
        for number, part in enumerate(parts):
            inner = number + 1 < len(parts) or pattern.endswith("/")
            found = [path for folder in found for path in self._matching(folder, part, inner)]
        return found

    def _matching(self, folder: str, part: str, inner: bool) -> list[str]:
        beginning = folder + "/" if folder.strip("/") else folder
        if not _MAGIC.search(_QUOTED_MAGIC.sub("", part)):
            name = beginning + _QUOTED_MAGIC.sub(r"\1", part)
            with contextlib.suppress(CallerError):
                return [name] if inner or self.client.stat(self.path(name)) else []
            return []
        with contextlib.suppress(CallerError):          # not there, no directory, not for this key
            matches = re.compile(fnmatch.translate(part.replace("[^", "[!"))).match
            return [beginning + info.name for info in sorted(self.client.list(self.path(folder)))
                    if matches(info.name) and (info.is_dir or not inner) and (info.name[0] != "." or part[0] == ".")]
        return []

    # ---- at a prompt

    def converse(self) -> int:
        """Read lines from the terminal until its end or `exit`. Ctrl-C ends the command, not the shell."""
        with _line_editing(self):
            while not self.leaving:
                try:
                    if not self.at_line_start and self.stdout.isatty():
                        self.show(b"\n")
                    self.run_line(input(f"pfs:{self.cwd}> " if self.stdout.isatty() else ""))
                except EOFError:
                    self.show(b"\n")
                    break
                except KeyboardInterrupt:
                    self.status, self.at_line_start = 130, True
                    self.show(b"\n")
                except UnicodeError:
                    self.complain("syntax error: the line is no UTF-8")
        return self.status

    def script(self, source: Any) -> Iterator[str]:
        """The lines of a binary file."""
        return (line.decode("utf-8", "surrogateescape") for line in iter(source.readline, b""))


class Run:
    """One command, as it runs. `code` is its exit code so far; `args` are what its row of the table asks for."""

    def __init__(self, shell: Shell, stage: Stage, given: Output, stack: contextlib.ExitStack, last: bool) -> None:
        self.shell, self.client, self.code, self.stack = shell, shell.client, 0, stack
        self.name, self._stage, self._given = str(stage.words[0]), stage, given
        self.target = stage.redirects.get(">") or stage.redirects.get(">>")
        self.to_terminal = last and self.target is None and shell.stdout.isatty()

    def start(self) -> Output:
        """What the command gives; None where that went to a file. Raises _Failed."""
        try:
            command = FILE_COMMANDS.get(self.name)
            if command is None:
                self.code = 127
                raise BadRequest("there is no such command; `help` lists all")
            self._open_input()
            output = self._call(command)
            return output if self.target is None else self._store(self.target, output)
        except _Usage as error:
            self.code = 2
            self.shell.complain(f"{self.name}: {error}")
        except _SHELL_ERRORS as error:
            self.fail("", error)
        raise _Failed

    def _call(self, command: FileCommand) -> Output:
        if "--help" in self._stage.words[1:]:
            return command.parser().format_help().encode()
        words = [each for word in self._stage.words[1:] for each in self._expanded(word, command.local)]
        self.args = argparse.Namespace(words=words) if command.arguments is None else command.parse(words)
        output = command.run(self)
        return output if output is None or isinstance(output, bytes) else self._guarded(output)

    def _expanded(self, word: Word, local: bool) -> Sequence[str]:
        if not word.pattern:
            return [word]
        return (sorted(glob.glob(word.pattern)) if local else self.shell.glob(word.pattern)) or [word]

    def _guarded(self, output: Iterator[bytes]) -> Iterator[bytes]:
        """The same; what goes wrong under way is said by this command, and ends the pipeline."""
        self.stack.callback(getattr(output, "close", int))
        try:
            yield from output
        except _SHELL_ERRORS as error:
            self.fail("", error)
            raise _Failed from None

    # ---- input and output

    def _open_input(self) -> None:
        name = self._stage.redirects.get("<")
        if name is not None:
            self._given, self._file = None, self.stack.enter_context(open(name, "rb"))
        else:
            self._file = self.shell.stdin

    def body(self, live: bool = False) -> Union[bytes, Iterator[bytes], BinaryIO]:
        """What comes in, for `PFSClient.write`; `live`: each piece as soon as it is there."""
        if self._given is not None:
            return self._given
        live = live or self._file.isatty()
        return iter(lambda: self._file.read1(BLOCK), b"") if live and hasattr(self._file, "read1") else self._file

    def input(self) -> Iterator[bytes]:
        """What comes in, in blocks as they come."""
        body: Any = self.body(True)
        if isinstance(body, bytes):
            return iter([body] if body else [])
        return iter(lambda: body.read(BLOCK), b"") if hasattr(body, "read") else body

    def _store(self, target: Word, output: Output) -> None:
        """`>` and `>>`. A command that failed and gave nothing leaves the file as it was."""
        path, blocks = self.path(target), iter([output or b""]) if isinstance(output, bytes) else output or iter([b""])
        first = next(blocks, None)
        if first is None and self.code:
            return
        whole = isinstance(output, (bytes, type(None))) or first is None
        source = first or b"" if whole else itertools.chain([first or b""], blocks)
        self.write(path, source, ">>" in self._stage.redirects)

    def write(self, path: str, source: Any, append: bool = False) -> None:
        """Replace a file or, with `append`, make it longer. Raises CallFSError."""
        if append and self.shell.plugin_of(path) not in FLOWS:
            source = self._behind(path, source)
        self.client.write(path, source)

    def _behind(self, path: str, source: Any) -> BinaryIO:
        """What the file has now and `source`: spooled, as the file is written whole and must not be read meanwhile."""
        spool = self.stack.enter_context(tempfile.TemporaryFile())
        with contextlib.suppress(FileNotFound), self.client.open(path) as reader:
            spool.writelines(reader)
        spool.writelines([source] if isinstance(source, bytes) else source)
        spool.seek(0)
        return spool

    def progress(self, label: str, blocks: Iterable[bytes], total: int = -1) -> Iterator[bytes]:
        """The same blocks; how far they are shows on standard error, if that is a terminal."""
        done, shown = 0, 0.0
        for block in blocks:
            yield block
            done += len(block)
            if time.monotonic() - shown > 0.1:
                shown = time.monotonic()
                self.tell(label, done, total)
        self.tell(label)

    def tell(self, label: str, done: int = -1, total: int = -1) -> None:
        """How far something has come, on a terminal; without `done` the line is wiped away."""
        if self.shell.stderr.isatty():
            of = f" of {_short_size(total)}" if total > 0 else ""
            text = f"{self.shown(label)}: {_short_size(done)}{of}" if done >= 0 else ""
            self.shell.stderr.write(f"\r{text}\x1b[K".encode())
            self.shell.stderr.flush()

    # ---- paths and failures

    def path(self, text: str) -> str:
        """As `Shell.path`."""
        return self.shell.path(text)

    def shown(self, name: str) -> str:
        """A name for a terminal: one in a listing must not move the cursor."""
        return "".join(each if each.isprintable() else "?" for each in name)

    def fail(self, where: str, error: Union[Exception, str]) -> None:
        """Say what went wrong with what; the exit code becomes 1, if it was 0."""
        self.code = self.code or 1
        where = "" if isinstance(error, _SERVER_ERRORS) else where
        words = error if isinstance(error, str) else _error_words(error, where)
        self.shell.complain(": ".join(filter(None, (self.name, where, words))))

    @contextlib.contextmanager
    def trying(self, where: str) -> Iterator[None]:
        """What fails is said, with `where`, and the command goes on; without the server it does not."""
        try:
            yield
        except _SHELL_ERRORS as error:
            self.fail(where, error)
            if isinstance(error, _SERVER_ERRORS):
                raise _Failed from None

    def landing(self, sources: Sequence[str], target: str) -> list[str]:
        """The path that each source gets: in `target` where that is a directory, or where there are several."""
        path = self.path(target)
        into = len(sources) > 1 or target.endswith("/") or path == "/"
        if not into:
            with contextlib.suppress(FileNotFound):
                into = self.client.stat(path).is_dir
        return [join_path(path, _last_part(source)) if into else path for source in sources]


_SHELL_ERRORS = (CallFSError, OSError, UnicodeError)
_SERVER_ERRORS = (Unavailable, AuthenticationFailed, BadGateway)
_ERROR_WORDS: Mapping[type[Exception], str] = {FileNotFound: "No such file or directory", FileExists: "File exists",
                                               DirectoryNotEmpty: "Directory not empty"}


def _error_words(error: Exception, where: str) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {_reason(error)}" if error.filename not in (None, where) else _reason(error)
    if isinstance(error, UnicodeError):
        return "this is no UTF-8"
    return _ERROR_WORDS.get(type(error)) or error.message       # type: ignore[attr-defined]


def _last_part(path: str) -> str:
    return re.split(r"[/\\]" if os.name == "nt" else "/", path.rstrip("/"))[-1] or "root"


def _short_size(size: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024                    # type: ignore[assignment]
    return f"{size:.4g} TiB"


def _shell_lines(*lines: str) -> bytes:
    return "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape")


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines with their ends, as they come; one without an end in blocks of its own."""
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(rest) > BLOCK:
            yield rest
            rest = b""
    if rest:
        yield rest


# ---- the commands: to look

def _ls(run: Run) -> Iterator[bytes]:
    paths, between = run.args.path or [""], b""
    for text in paths:
        with run.trying(text):
            info = run.client.stat(run.path(text))
            found = run.client.list(run.path(text)) if info.is_dir else [info._replace(name=text)]
            if info.is_dir and len(paths) > 1:
                yield between + _shell_lines(f"{text}:")
            between = b"\n"
            yield _listing(run, found)


def _listing(run: Run, found: Sequence[RemoteInfo]) -> bytes:
    if run.args.long:
        width = max((len(str(info.size)) for info in found), default=0)
        return _shell_lines(*(f"{_mode(info)} {info.size:>{width}} {rfc3339(info.mtime_ns)} {run.shown(info.name)}"
                       for info in found))
    if not run.to_terminal or run.args.single:
        return _shell_lines(*(info.name for info in found))
    return _shell_lines(*_columns([run.shown(info.name) for info in found], shutil.get_terminal_size().columns or 80))


def _mode(info: RemoteInfo) -> str:
    return stat.filemode((stat.S_IFDIR if info.is_dir else stat.S_IFREG) | info.mode & 0o7777)


def _columns(names: Sequence[str], width: int) -> list[str]:
    """Names with two spaces between them: on one line where that is enough, else in columns, downwards."""
    line = "  ".join(names)
    if len(line) <= width:
        return [line] if names else []
    cell = max(map(len, names)) + 2
    rows = -(-len(names) // max(1, width // cell))
    return ["".join(name.ljust(cell) for name in names[row::rows]).rstrip() for row in range(rows)]


def _cat(run: Run) -> Iterator[bytes]:
    if not run.args.path:
        yield from run.input()
    for text in run.args.path:
        with run.trying(text), run.client.open(run.path(text), stream=run.args.stream) as reader:
            yield from reader


def _tree(run: Run) -> Iterator[bytes]:
    path, counts = run.path(run.args.path), [0, 0]
    yield _shell_lines(run.args.path or path)
    yield from _branches(run, path, "", min(run.args.level, TREE_DEPTH), counts)
    files, folders = counts
    yield _shell_lines("", f"{folders} director{'y' if folders == 1 else 'ies'}, {files} file{'s' * (files != 1)}")


def _branches(run: Run, folder: str, indent: str, levels: int, counts: list[int]) -> Iterator[bytes]:
    with run.trying(folder):
        found = sorted(run.client.list(folder))
        for info in found:
            last = info is found[-1]
            counts[info.is_dir] += 1
            yield _shell_lines(indent + ("└── " if last else "├── ") + run.shown(info.name))
            if info.is_dir and levels > 1:
                yield from _branches(run, join_path(folder, info.name), indent + ("    " if last else "│   "),
                                     levels - 1, counts)


def _stat(run: Run) -> Iterator[bytes]:
    for text in run.args.path:
        with run.trying(text):
            path = run.path(text)
            info = run.client.stat(path)
            content = info.meta.get("Content")
            facts = {"Path": path, "Size": info.size, "Mode": f"{info.mode & 0o7777:04o} {_mode(info)}",
                     "ModTime": rfc3339(info.mtime_ns, bool(info.mtime_ns % 1_000_000_000)), "IsDir": info.is_dir,
                     "Filesystem": info.meta.get("Name"), "Type": info.meta.get("Type"),
                     **(content if isinstance(content, Mapping) else {})}
            yield _shell_lines(*(f"{key}: {json.dumps(value) if isinstance(value, bool) else run.shown(str(value))}"
                          for key, value in facts.items() if value not in (None, "")))


def _digest(run: Run) -> Iterator[bytes]:
    for text in run.args.path:
        with run.trying(text):
            yield _shell_lines(f"{run.client.digest(run.path(text), run.args.algorithm)}  {text}")


def _head(run: Run) -> Iterator[bytes]:
    yield from itertools.islice(_lines(_cat(run)), run.args.lines)


def _tail(run: Run) -> Iterator[bytes]:
    if not run.args.path:
        yield from collections.deque(_lines(run.input()), run.args.lines)
    for text in run.args.path:
        with run.trying(text):
            yield from _tail_of(run, run.path(text))


def _tail_of(run: Run, path: str) -> Iterator[bytes]:
    if run.args.follow and run.shell.plugin_of(path) == "streamfs":
        with run.client.open(path, stream=True) as reader:
            yield from reader
        return
    size = run.client.stat(path).size
    start = _tail_start(run.client, path, size, run.args.lines)
    with run.client.open(path, start, size - start if size > 0 else -1) as reader:
        yield from collections.deque(_lines(reader), run.args.lines)
    if run.args.follow:
        yield from _growth(run, path, size)


def _growth(run: Run, path: str, size: int) -> Iterator[bytes]:
    """What a file gets behind its first `size` bytes, for ever; a shorter one is another one, and comes whole."""
    while True:
        time.sleep(TAIL_POLL)
        now = run.client.stat(path).size
        start = size if now >= size else 0
        if now != size:
            with run.client.open(path, start, now - start) as reader:
                yield from reader
        size = now


def _tail_start(client: PFSClient, path: str, size: int, lines: int) -> int:
    """Where the last lines begin, or a little before. Looks from the end: logs are long. 0 where no size is known."""
    start, left = max(0, size), lines
    while start > 0 and left >= 0:
        step = min(start, BLOCK // 4)
        start -= step
        left -= client.read(path, start, step).count(b"\n")
    return start


def _grep(run: Run) -> Iterator[bytes]:
    """Exit code 1 where nothing is found."""
    count = 0
    for text in _grep_server(run) if run.args.path else _grep_input(run):
        count += 1
        if not run.args.count:
            yield text
    if run.args.count:
        yield _shell_lines(str(count))
    run.code = run.code or int(count == 0)


def _grep_server(run: Run) -> Iterator[bytes]:
    named = run.args.recursive or len(run.args.path) > 1
    for text in run.args.path:
        with run.trying(text):
            for match in run.client.grep(run.path(text), run.args.pattern, run.args.recursive, run.args.ignore_case):
                if "content" in match:
                    labels = ([run.shown(str(match.get("file") or text))] if named else []) + \
                        ([str(match.get("line"))] if run.args.number else [])
                    yield _shell_lines(":".join([*labels, str(match["content"]).rstrip("\r\n")]))


def _grep_input(run: Run) -> Iterator[bytes]:
    pattern, flags = run.args.pattern.encode("utf-8", "surrogateescape"), re.I if run.args.ignore_case else 0
    try:
        matches = re.compile(pattern, flags).search
    except re.error as error:
        raise BadRequest(f"the pattern can not be read: {error}") from None
    for number, line in enumerate(_lines(run.input()), 1):
        if matches(line.rstrip(b"\r\n")):
            yield (b"%d:" % number if run.args.number else b"") + line.rstrip(b"\n") + b"\n"


# ---- the commands: to change

def _write(run: Run) -> None:
    text = " ".join(map(unescape, run.args.text))
    run.client.write(run.path(run.args.path), text.encode("utf-8", "surrogateescape") if run.args.text else
                     run.body(run.args.stream))


def _tee(run: Run) -> Iterator[bytes]:
    """The files get all of it when the input has ended; an interrupted one changes nothing."""
    with tempfile.TemporaryFile() as spool:
        for block in run.input():
            spool.write(block)
            yield block
        for text in run.args.path:
            spool.seek(0)
            with run.trying(text):
                run.write(run.path(text), spool, run.args.append)


def _echo(run: Run) -> bytes:
    words = list(run.args.words)
    flags = "".join(itertools.takewhile(lambda word: re.fullmatch("-[neE]+", word), words)).replace("-", "")
    while words and re.fullmatch("-[neE]+", words[0]):
        del words[0]
    text = " ".join(map(unescape, words) if "e" in flags else words)
    bare = "n" in flags or run.target is not None and run.shell.plugin_of(run.path(run.target)) in MESSAGES
    return (text if bare else text + "\n").encode("utf-8", "surrogateescape")


def _mkdir(run: Run) -> None:
    for text in run.args.path:
        with run.trying(text):
            if run.args.parents:
                _make_all(run.client, run.path(text), run.args.mode)
            else:
                run.client.mkdir(run.path(text), run.args.mode)


def _make_all(client: PFSClient, path: str, mode: int = 0o755) -> None:
    """A directory with its missing parents; no error where it is there."""
    try:
        if path != "/":
            client.mkdir(path, mode)
    except FileNotFound:
        _make_all(client, split_path(path)[0])
        client.mkdir(path, mode)
    except Conflict:
        if not client.stat(path).is_dir:
            raise


def _rm(run: Run) -> None:
    for text in run.args.path:
        with run.trying(text), contextlib.suppress(*([FileNotFound] if run.args.force else [])):
            path = run.path(text)
            if path == "/":
                raise Conflict("this would remove everything, and is refused")
            if not run.args.recursive and run.client.stat(path).is_dir:
                raise Conflict("Is a directory (rm -r removes it)")
            run.client.remove(path, run.args.recursive)


def _mv(run: Run) -> None:
    sources, targets = _from_to(run)
    for text, target in zip(sources, targets):
        with run.trying(text):
            run.client.rename(run.path(text), target)


def _from_to(run: Run) -> tuple[list[str], list[str]]:
    *sources, target = run.args.path
    if not sources:
        raise _Usage("the target is missing")
    return sources, run.landing(sources, target)


def _cp(run: Run) -> None:
    sources, targets = _from_to(run)
    for text, target in zip(sources, targets):
        with run.trying(text):
            path = run.path(text)
            info = run.client.stat(path)
            if info.is_dir and not run.args.recursive:
                raise Conflict("Is a directory (cp -r copies it)")
            if is_below(target, path) and (info.is_dir or path == target):
                raise Conflict("can not be copied to itself" if path == target else "can not be copied into itself")
            if run.shell.can("copy"):
                for done in run.client.copy(path, target, info.is_dir):
                    run.tell(text, done, info.size)
                run.tell(text)
            else:
                _copy(run, path, target, info)


def _copy(run: Run, path: str, target: str, info: RemoteInfo, levels: int = TREE_DEPTH) -> None:
    """Through this process, in bounded memory."""
    if not info.is_dir:
        with run.client.open(path) as reader:
            run.client.write(target, run.progress(path, reader, info.size))
        return
    _make_all(run.client, target)
    for each in run.client.list(path) if levels else ():
        inner = join_path(path, _safe_name(each.name))
        with run.trying(inner):
            _copy(run, inner, join_path(target, each.name), each, levels - 1)


def _safe_name(name: str) -> str:
    """A name as it came from a server, which must not lead elsewhere. Raises BadGateway."""
    if name in ("", ".", "..") or re.search(r"[/\x00]" if os.name != "nt" else r"[/\\:\x00]", name):
        raise BadGateway(f"the server tells of a file with the name {name!r}")
    return name


def _upload(run: Run) -> None:
    sources, remote = (run.args.path[:-1], run.args.path[-1]) if len(run.args.path) > 1 else (run.args.path, ".")
    for local, target in zip(sources, run.landing([os.path.abspath(each) for each in sources], remote)):
        with run.trying(local):
            if local == "-":
                run.client.write(target, run.body(True))
            elif os.path.isdir(local) and not run.args.recursive:
                raise Conflict("Is a directory (-r uploads it)")
            elif os.path.isdir(local):
                _upload_folder(run, local, target)
            else:
                _upload_file(run, local, target)


def _upload_folder(run: Run, local: str, target: str) -> None:
    for folder, names, files in os.walk(local):
        inner = os.path.relpath(folder, local).replace(os.sep, "/")
        remote = target if inner == "." else join_path(target, inner)
        names.sort()
        _make_all(run.client, remote)
        for name in sorted(files):
            with run.trying(os.path.join(folder, name)):
                _upload_file(run, os.path.join(folder, name), join_path(remote, name))


def _upload_file(run: Run, local: str, target: str) -> None:
    with open(local, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        blocks = run.progress(local, iter(lambda: file.read(BLOCK), b""), size)
        run.client.write(target, blocks if run.shell.stderr.isatty() else file)


def _download(run: Run) -> Iterator[bytes]:
    sources, local = (run.args.path[:-1], run.args.path[-1]) if len(run.args.path) > 1 else (run.args.path, ".")
    into = len(sources) > 1 or local.endswith("/") or os.path.isdir(local)
    for text in sources:
        with run.trying(text):
            info = run.client.stat(run.path(text))
            if local == "-":
                with run.client.open(run.path(text)) as reader:
                    yield from reader
            elif info.is_dir and not run.args.recursive:
                raise Conflict("Is a directory (-r downloads it)")
            else:
                _fetch(run, run.path(text), os.path.join(local, _last_part(run.path(text))) if into else local, info)


def _fetch(run: Run, path: str, local: str, info: RemoteInfo, levels: int = TREE_DEPTH) -> None:
    if not info.is_dir:
        with run.client.open(path) as reader, _written_beside(local) as file:
            file.writelines(run.progress(path, reader, info.size))
        return
    os.makedirs(local, exist_ok=True)
    for each in run.client.list(path) if levels else ():
        inner = join_path(path, _safe_name(each.name))
        with run.trying(inner):
            _fetch(run, inner, os.path.join(local, each.name), each, levels - 1)


def _chmod(run: Run) -> None:
    for text in run.args.path:
        with run.trying(text):
            run.client.chmod(run.path(text), run.args.mode)


def _touch(run: Run) -> None:
    for text in run.args.path:
        with run.trying(text):
            run.client.touch(run.path(text))


def _truncate(run: Run) -> None:
    for text in run.args.path:
        with run.trying(text):
            run.client.truncate(run.path(text), run.args.size)


# ---- the commands: the server and the shell

def _mount(run: Run) -> None:
    pairs = [text.partition("=") for text in run.args.option]
    wrong = next((key for key, equals, _ in pairs if not key or not equals), None)
    if wrong is not None:
        raise _Usage(f"{wrong!r} is no option: options are key=value")
    run.client.mount(run.args.type, run.path(run.args.path), {key: value for key, _, value in pairs})


def _unmount(run: Run) -> None:
    for text in run.args.path:
        with run.trying(text):
            run.client.unmount(run.path(text))


def _mounts(run: Run) -> bytes:
    return _shell_lines(*(run.shown(f"{each['pluginName']} on {each['path']}" + _mount_details(each))
                   for each in run.client.mounts()))


def _mount_details(each: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}"
                        for key, value in (each.get("config") or {}).items())
    return (f" ({options})" if options else "") + (f": {each['error']}" if each.get("error") else "")


def _plugins(run: Run) -> bytes:
    if run.args.action == "list":
        return _shell_lines(*(each if isinstance(each, str) else json.dumps(each) for each in run.client.plugins()))
    if not run.args.library:
        raise _Usage(f"plugins {run.args.action} needs the plugin's file on the server")
    change = run.client.load_plugin if run.args.action == "load" else run.client.unload_plugin
    answer = change(run.args.library)
    return _shell_lines(str(answer.get("plugin_name") or answer.get("message") or "done"))


def _cd(run: Run) -> None:
    path = run.path(run.args.path)
    with run.trying(run.args.path):
        if not run.client.stat(path).is_dir:
            raise Conflict("Not a directory")
        run.shell.cwd = path


def _pwd(run: Run) -> bytes:
    return _shell_lines(run.shell.cwd)


def _help(run: Run) -> bytes:
    if run.args.command is None:
        width = max(map(len, FILE_COMMANDS))
        return _shell_lines(*(f"{name.ljust(width)}  {each.help}" for name, each in FILE_COMMANDS.items()),
                     "", "a | b    a > PATH    a >> PATH    a < LOCAL    a; b    a && b    a || b    # comment",
                     "`help COMMAND` shows how one is used.")
    if run.args.command not in FILE_COMMANDS:
        raise BadRequest(f"{run.args.command}: there is no such command; `help` lists all")
    return FILE_COMMANDS[run.args.command].parser().format_help().encode()


def _exit(run: Run) -> None:
    run.shell.leaving, run.code = True, run.shell.status if run.args.code is None else run.args.code


# ---- the table

class _Argument(NamedTuple):
    names: tuple[str, ...]
    settings: Mapping[str, Any]


def _arg(*names: str, **settings: Any) -> _Argument:
    return _Argument(names, settings)


class _WordParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Usage(f"{message} ({' '.join(self.format_usage().split())})")


class FileCommand(NamedTuple):
    """A command of the shell. `arguments` None: it reads its words itself; `local`: its patterns are for files here;
    `alone`: it makes sense as `callfs NAME`, too."""

    name: str
    help: str
    run: Callable[[Run], Output]
    arguments: Optional[tuple[_Argument, ...]] = ()
    local: bool = False
    alone: bool = True

    def parser(self) -> argparse.ArgumentParser:
        """What reads the command's words."""
        parser = _WordParser(self.name, description=self.help, add_help=False, allow_abbrev=False,
                             epilog="As `callfs %s` it also takes --url, --key, --ca-file and --insecure." % self.name
                             if self.alone else None)
        for argument in self.arguments or ():
            parser.add_argument(*argument.names, **argument.settings)
        return parser

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments in words, options anywhere up to `--`. Raises _Usage.

        What comes after it is shielded: argparse loses some of it, and a second `--`, between intermixed arguments.
        """
        end = words.index("--") if "--" in words else len(words)
        args = self.parser().parse_intermixed_args(
            [*words[:end], *("\0" + word if word[:1] == "-" else word for word in words[end + 1:])])
        for name, value in vars(args).items():
            setattr(args, name, [_bared(each) for each in value] if isinstance(value, list) else _bared(value))
        return args


def _bared(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and value.startswith("\0-") else value


def _octal(text: str) -> int:
    if not re.fullmatch("[0-7]{1,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no mode: 644, 0755")
    return int(text, 8)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _counting(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


_PATH = _arg("path", metavar="PATH")
_PATHS = _arg("path", nargs="+", metavar="PATH")
_ANY_PATHS = _arg("path", nargs="*", metavar="PATH")
_RECURSIVE = _arg("-r", "-R", "--recursive", action="store_true", help="directories with all in them")
_LINES = _arg("-n", "--lines", type=_counting, default=10, metavar="N", help="how many lines (default 10)")
_MODE = _arg("-m", "--mode", type=_octal, default=0o755, metavar="MODE", help="octal (default 755)")
_UP = (_RECURSIVE, _arg("path", nargs="+", metavar="PATH", help="local files (- is standard input), at last where to"))
_DOWN = (_RECURSIVE, _arg("path", nargs="+", metavar="PATH", help="files, at last where to (- is standard output)"))
_CODE = (_arg("code", type=_counting, nargs="?", metavar="CODE"),)
_STREAM_FLAG = _arg("--stream", action="store_true", help="pass each piece on as it comes")

# Whoever adds a command adds a row.
FILE_COMMANDS: Mapping[str, FileCommand] = MappingProxyType({command.name: command for command in (
    FileCommand("ls", "list directories", _ls, (
        _arg("-l", dest="long", action="store_true", help="with mode, size and time"),
        _arg("-1", dest="single", action="store_true", help="one name a line"),
        _arg("-a", dest="all", action="store_true", help="everything, as always"), _ANY_PATHS)),
    FileCommand("cat", "print files", _cat, (_STREAM_FLAG, _ANY_PATHS)),
    FileCommand("write", "replace a file by a text, or by standard input", _write, (
        _STREAM_FLAG, _PATH, _arg("text", nargs="*", metavar="TEXT", help="\\n, \\t ... are read; not in single quotes"))),
    FileCommand("put", "upload files", _upload, _UP, local=True),
    FileCommand("get", "download files", _download, _DOWN),
    FileCommand("upload", "the same as put", _upload, _UP, local=True),
    FileCommand("download", "the same as get", _download, _DOWN),
    FileCommand("mkdir", "make directories", _mkdir, (
        _arg("-p", "--parents", action="store_true", help="parents too; no error where it is there"), _MODE, _PATHS)),
    FileCommand("rm", "remove files", _rm, (
        _RECURSIVE, _arg("-f", "--force", action="store_true", help="no error where nothing is"), _PATHS)),
    FileCommand("mv", "move or rename", _mv, (_PATHS,)),
    FileCommand("cp", "copy, between filesystems too", _cp, (_RECURSIVE, _PATHS)),
    FileCommand("stat", "tell what is known of files", _stat, (_PATHS,)),
    FileCommand("tree", "show a directory with all below it", _tree, (
        _arg("-L", dest="level", type=_counting, default=TREE_DEPTH, metavar="N", help="how many levels"),
        _arg("path", nargs="?", default="", metavar="PATH"))),
    FileCommand("head", "print the first lines", _head, (
        _LINES, _arg("--stream", action="store_true", help=argparse.SUPPRESS), _ANY_PATHS)),
    FileCommand("tail", "print the last lines", _tail, (
        _LINES, _arg("-f", "--follow", action="store_true", help="go on with what is added"), _ANY_PATHS)),
    FileCommand("grep", "find lines, in files on the server or in standard input", _grep, (
        _RECURSIVE, _arg("-i", "--ignore-case", action="store_true"),
        _arg("-n", "--number", action="store_true", help="with line numbers"),
        _arg("-c", "--count", action="store_true", help="only how many"),
        _arg("pattern", metavar="PATTERN"), _ANY_PATHS)),
    FileCommand("digest", "print checksums, made by the server", _digest, (
        _arg("-a", "--algorithm", choices=("sha256", "md5"), default="sha256"), _PATHS)),
    FileCommand("chmod", "set permissions", _chmod, (_arg("mode", type=_octal, metavar="MODE", help="octal"), _PATHS)),
    FileCommand("touch", "set times to now; make empty files", _touch, (_PATHS,)),
    FileCommand("truncate", "cut or fill up files", _truncate, (
        _arg("-s", "--size", type=_size, required=True, metavar="SIZE", help="100, 10MB, 64KiB"), _PATHS)),
    FileCommand("tee", "print standard input, and write it to files", _tee, (
        _arg("-a", "--append", action="store_true", help="behind what is there"), _PATHS)),
    FileCommand("mount", "mount a filesystem", _mount, (
        _arg("type", metavar="TYPE", help="memfs, queuefs, sqlfs ..."), _PATH,
        _arg("option", nargs="*", metavar="KEY=VALUE", help="its options; commas between the items of a list")),
        local=True),
    FileCommand("unmount", "unmount filesystems", _unmount, (_PATHS,)),
    FileCommand("mounts", "list what is mounted", _mounts),
    FileCommand("plugins", "list, load and unload external plugins", _plugins, (
        _arg("action", choices=("list", "load", "unload"), nargs="?", default="list"),
        _arg("library", nargs="?", metavar="FILE", help="a file of the server's machine"))),
    FileCommand("echo", "print words (-n: no line end, -e: with \\n and the like read)", _echo, None, alone=False),
    FileCommand("cd", "go to a directory", _cd, (_arg("path", nargs="?", default="/", metavar="PATH"),), alone=False),
    FileCommand("pwd", "tell where you are", _pwd, alone=False),
    FileCommand("help", "tell how commands are used", _help, (
        _arg("command", nargs="?", metavar="COMMAND"),), alone=False),
    FileCommand("exit", "leave the shell", _exit, _CODE, alone=False),
    FileCommand("quit", "the same as exit", _exit, _CODE, alone=False),
)})


# ---- editing a line: readline, where Python has it

_SECRET_OPTION = re.compile(r"(secret|password|token|key|dsn)\w*=", re.I)
_SPECIAL = re.compile(r"[\s'\"\\|;&<>*?[\]#]")
_LAST_WORD = re.compile(r"""(?:\\.|[^\s\\|;&<>"'])*$""")


@contextlib.contextmanager
def _line_editing(shell: Shell) -> Iterator[None]:
    """History and completion for `input`. Lines that may hold a secret are not kept."""
    try:
        import readline
    except ImportError:                 # Windows
        yield
        return
    path, complete = os.path.expanduser(HISTORY_FILE), Completer(shell)
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_completer_delims(" \t\n|;&<>\"'")
    readline.set_completer(
        lambda text, state: complete(readline.get_line_buffer()[:readline.get_endidx()], text, state))
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)
        with contextlib.suppress(OSError):
            _keep_history(readline, path)


def _keep_history(readline: Any, path: str) -> None:
    for index in range(readline.get_current_history_length(), 0, -1):
        if _SECRET_OPTION.search(readline.get_history_item(index) or ""):
            readline.remove_history_item(index - 1)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    os.chmod(path, 0o600)
    readline.set_history_length(HISTORY_LINES)
    readline.write_history_file(path)


class Completer:
    """Completes commands at the beginning of a command, remote paths elsewhere."""

    def __init__(self, shell: Shell) -> None:
        self._shell, self._found = shell, []            # type: ignore[var-annotated]

    def __call__(self, line: str, text: str, state: int) -> Optional[str]:
        """As `readline.set_completer` wants it; `line` is what stands before the cursor."""
        if state == 0:
            try:
                self._found = self._candidates(line, text)
            except _SHELL_ERRORS:       # no answer is no completion; Enter will say what is wrong
                self._found = []
        return self._found[state] if state < len(self._found) else None

    def _candidates(self, line: str, text: str) -> list[str]:
        raw = _LAST_WORD.search(line)[0]                # type: ignore[index]
        before = re.split(r"[|;&]", line[:len(line) - len(raw)])[-1].strip(" \t\"'")
        if not before:
            return [name + " " for name in FILE_COMMANDS if name.startswith(text)]
        skip, folder = len(raw) - len(text), raw[:raw.rfind("/") + 1]
        quote = raw == "" and line[-1:] in ("'", '"') or line.count('"') % 2 or line.count("'") % 2
        there = sorted(self._shell.client.list(self._shell.path(re.sub(r"\\(.)", r"\1", folder))))
        shown = [info.name if quote else _SPECIAL.sub(r"\\\g<0>", info.name) for info in there]
        return [(folder + name + ("/" if info.is_dir else "" if quote else " "))[skip:]
                for name, info in zip(shown, there) if name.startswith(raw[len(folder):])]


# ============================================================================
# Command line
# ============================================================================

DATA_FOLDER = "callfs-data"             # where the defaults of the configuration put files and metadata
FIRST_RUN_LISTEN = "127.0.0.1:8443"
FIRST_RUN_USER = "admin"
_SECRET_NAMES = ("internal_proxy_secret", "single_use_link_secret")


class Command(NamedTuple):
    """One command: "link", or "config show" for one of a group. `run` gives the exit code, or raises CallFSError."""

    name: str
    help: str
    run: Callable[[argparse.Namespace], int]
    arguments: tuple[_Argument, ...] = ()
    aliases: tuple[str, ...] = ()
    words: bool = False                 # it reads its arguments itself: `args.words`, its name first


def _say(text: str) -> None:
    """A line for standard output, now; what its encoding can not say is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _complain(text: str) -> None:
    for line in text.splitlines():
        print(f"callfs: {line}", file=sys.stderr, flush=True)


# ---- the configuration that the arguments ask for

def _data_folder(args: argparse.Namespace) -> str:
    return args.data or (os.path.join(args.folder, ".callfs") if args.folder else DATA_FOLDER)


def _flags_of(args: argparse.Namespace) -> dict[str, str]:
    given = {about.flag: getattr(args, about.key, None) for about in OPTIONS if about.flag}
    given["metadata_store.sqlite_path"] = os.path.join(args.data, "callfs.sqlite3") if args.data else None
    given["backend.localfs_root_path"] = args.folder or (os.path.join(args.data, "files") if args.data else None)
    return {flag: text for flag, text in given.items() if text is not None}


def _configured(args: argparse.Namespace, require_keys: bool = False) -> Config:
    """The configuration of file, environment and arguments. Raises ConfigError."""
    if args.folder and not os.path.isdir(args.folder):
        raise ConfigError(f"{args.folder}: no such folder")
    path = args.config or os.environ.get("CALLFS_CONFIG") or None
    config = Config.load(path, environ=os.environ, flags=_flags_of(args), require_keys=require_keys)
    store = config.metadata_store
    # The records of a folder belong with it. Only where nobody said where they lie: a file may know better.
    if args.folder and store.sqlite_path == _OPTION_BY_KEY["metadata_store.sqlite_path"].default:
        store.sqlite_path = os.path.join(_data_folder(args), "callfs.sqlite3")
    return config


# ---- first run: what stands in when nobody configured anything
#
#   file  key   --listen   what is used
#   yes   any   any        the configuration as it is
#   no    yes   any        the configuration; secrets that it lacks are drawn, once
#   no    no    no         secrets and a key are drawn, once; loopback only
#   no    no    yes        secrets and key that an earlier run drew; without those it refuses

class _Drawn(NamedTuple):
    """The key of FIRST_RUN_USER, the file that keeps it, and whether it is new."""

    key: str
    path: str
    fresh: bool


def _kept_secrets(path: str) -> dict[str, str]:
    """What an earlier run drew; {} for nothing. Raises ConfigError for a file that says something else."""
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
        if kept["version"] != 1 or not all(isinstance(kept[name], str) for name in ("key", *_SECRET_NAMES)):
            raise ValueError
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: holds no secrets of callfs; move it away, and new ones are drawn") from None
    return kept


def _draw_secrets(path: str) -> dict[str, str]:
    """New secrets, durably kept in a file that only this account reads."""
    drawn = {name: secrets.token_urlsafe(24) for name in ("key", *_SECRET_NAMES)}
    folder = os.path.dirname(path)
    os.makedirs(folder, 0o700, exist_ok=True)
    scratch = f"{path}.{secrets.token_hex(4)}"
    _write_private(scratch, json.dumps({"version": 1, "user": FIRST_RUN_USER, **drawn}, indent=1) + "\n")
    os.replace(scratch, path)
    return drawn


def _write_private(path: str, text: str) -> None:
    """A new file, mode 0600, on disk on return. Raises FileExistsError."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _serve_config(args: argparse.Namespace) -> tuple[Config, Optional[_Drawn]]:
    """What `serve` runs with, by the table above. Raises ConfigError."""
    config, drawn = _configured(args), None
    if not config.source:
        drawn = _stand_in(config, os.path.join(_data_folder(args), "secrets.json"), _told_where(args))
    return config, drawn


def _told_where(args: argparse.Namespace) -> bool:
    names = [_OPTION_BY_KEY["server.listen_addr"].env, "CALLFS_SERVER__ADDRESS"]
    return "--listen" in _flags_of(args) or any(name in os.environ for name in names)


def _stand_in(config: Config, path: str, told: bool) -> Optional[_Drawn]:
    """Put what an earlier run drew, or this one draws, in place of what the configuration lacks."""
    auth, kept = config.auth, _kept_secrets(path)
    wants_key = not auth.api_keys and not auth.api_key_users and not (told and auth.anonymous != "none")
    if wants_key and told and not kept:
        raise ConfigError("who may come in? With --listen a key is needed. Run `serve` once without --listen, which "
                          "draws one, or choose one: CALLFS_AUTH__API_KEY_USERS__ALICE=(16 characters or more)")
    lacking = [name for name in _SECRET_NAMES if not getattr(auth, name)]
    found = kept or (_draw_secrets(path) if wants_key or lacking else {})
    for name in lacking:
        setattr(auth, name, found[name])
    if not wants_key:
        return None
    auth.api_key_users = {FIRST_RUN_USER: found["key"]}
    auth.admins = [*auth.admins, *({FIRST_RUN_USER} - set(auth.admins))]
    if not told:
        config.server.listen_addr = FIRST_RUN_LISTEN
    return _Drawn(found["key"], path, not kept)


# ---- serve

_MODES = {"full": "", "read-only": "nobody changes anything", "upload-only": "nobody reads, and nothing is replaced",
          "no-delete": "nothing is deleted or replaced"}
_ANONYMOUS = {"none": "nothing", "read": "reads everything", "write": "reads everything, creates files"}
_TRIES = (                              # (what it does, the modes in which it works)
    ("echo Hello | curl -T - -H 'Authorization: Bearer {key}' {url}/v1/files/hello.txt",
     ("full", "no-delete", "upload-only")),
    ("curl -H 'Authorization: Bearer {key}' {url}/v1/files/hello.txt", ("full", "no-delete", "read-only")),
)


def _rights(auth: AuthOptions) -> Iterator[str]:
    """Who may do what, in lines; names, never keys."""
    users = [*auth.api_key_users, *(f"api-user-{number}" for number in range(len(auth.api_keys)))]
    chiefs = [name for name in users if name in auth.admins]
    others = [name for name in users if name not in chiefs]
    theirs = "reads everything, changes what is theirs"
    table = ((", ".join(chiefs), theirs + " and what came from outside"), (", ".join(others), theirs),
             ("without a key", _ANONYMOUS[auth.anonymous]), (f"mode {auth.mode}", _MODES[auth.mode]))
    return (f"  {who}: {what}" for who, what in table if who and what)


def _greeting(config: Config, urls: Sequence[str], drawn: Optional[_Drawn]) -> Iterator[str]:
    """What a start says on standard output: first the addresses, a line each, which programs read."""
    yield from (f"Listening on {url}" for url in urls)
    yield f"Files: {os.path.abspath(config.backend.localfs_root_path)}"
    yield "Rights:"
    yield from _rights(config.auth)
    if not config.server.cert_file and not all(map(_is_loopback, parse_listen(config.server.listen_addr))):
        yield "Without TLS: keys and files go over the network as they are (server.cert_file, or a reverse proxy)."
    if drawn and config.server.listen_addr == FIRST_RUN_LISTEN:
        yield "Only this machine can reach it; to let others in, start it with --listen :8443"
    if drawn:
        yield from _key_lines(config, urls[0], drawn)


def _key_lines(config: Config, url: str, drawn: _Drawn) -> Iterator[str]:
    # A key in a log or a journal is read by others; a terminal is not kept, and a new key must be told once.
    if not drawn.fresh and not sys.stdout.isatty():
        yield f"The key of {FIRST_RUN_USER} is kept in {drawn.path}"
        return
    yield f"The key of {FIRST_RUN_USER}, kept in {drawn.path}: {drawn.key}"
    lines = [text.format(key=drawn.key, url=url) for text, modes in _TRIES if config.auth.mode in modes]
    if url.startswith("http"):
        yield from ("Try:", *("  " + line for line in lines))


class _Signals:
    """SIGTERM and SIGINT as "stop", SIGHUP as "reload", in the order in which they come; a second stop forces.

    A handler only notes: it runs between any two steps of the main thread, which may hold any lock.
    """

    MEANING = {"SIGTERM": "stop", "SIGINT": "stop", "SIGBREAK": "stop", "SIGHUP": "reload"}

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()    # its `put` may interrupt itself
        self._stopping, self._before = False, {}                    # type: ignore[var-annotated]

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for name in self.MEANING:
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        meaning = self.MEANING[signal.Signals(number).name]
        if meaning == "stop" and self._stopping:
            os.write(2, b"callfs: stopped by force\n")
            os._exit(1)
        self._stopping = self._stopping or meaning == "stop"
        self.queue.put(meaning)


def _serve(args: argparse.Namespace) -> int:
    config, drawn = _serve_config(args)
    with _Signals() as signals:
        try:
            server = Server(config, inherited=_inherited_sockets()).start()
        except (OSError, ConfigError) as error:
            raise _explained(error, config.server.listen_addr) from error
        try:
            with contextlib.suppress(BrokenPipeError):      # whoever read the first lines need not stay
                _say("\n".join(_greeting(config, server.urls, drawn)))
            _tell_systemd("READY=1")
            _give_back_memory()
            _attend(server, signals)
        finally:
            _tell_systemd("STOPPING=1")
            done = server.stop()
    if not done:
        _complain(f"requests that still ran after {format_duration(config.server.shutdown_timeout)} were cut off")
    return 0 if done else 1


def _give_back_memory() -> None:
    """What compiling took, glibc keeps unless it is told not to (measured: 49 MiB resident before, 31 after)."""
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):          # not with another C library
        import ctypes
        ctypes.CDLL(None).malloc_trim(0)


def _attend(server: Server, signals: _Signals) -> None:
    """Until a signal says stop, or somebody stops the server."""
    while not server.wait(0):
        try:
            if signals.queue.get(timeout=1) == "stop":
                return
            _tell_systemd("RELOADING=1")
            server.reload()
        except queue.Empty:
            continue
        except (CallFSError, OSError) as error:     # what runs goes on with what it had
            _complain(f"not reloaded: {error}")
        _tell_systemd("READY=1")


_LISTEN_ERRORS = {
    errno.EADDRINUSE: "something listens there already; stop it, or choose another address with --listen",
    errno.EADDRNOTAVAIL: "this machine does not have that address; choose another with --listen",
}


def _explained(error: Exception, listen: str) -> Exception:
    """What to do about an address that can not be had; other errors as they are."""
    cause = error if isinstance(error, OSError) else error.__context__
    text = _LISTEN_ERRORS.get(getattr(cause, "errno", None) or 0)
    return Unavailable(f"{listen}: {text}") if text else error


def _inherited_sockets() -> list[socket.socket]:
    """The sockets that a service manager opened for this process (sd_listen_fds(3): from descriptor 3 on)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    return [socket.socket(fileno=3 + number) for number in range(int(os.environ.get("LISTEN_FDS", "0")))]


def _tell_systemd(state: str) -> None:
    """sd_notify(3): a datagram to the socket that the service manager names; nobody else needs to hear it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    now = f"\nMONOTONIC_USEC={time.monotonic_ns() // 1000}" if state == "RELOADING=1" else ""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto((state + now).encode(), path.replace("@", "\0", 1) if path[0] == "@" else path)


# ---- the other commands

def _config_validate(args: argparse.Namespace) -> int:
    config = _configured(args, require_keys=True)
    for warning in config.validate():
        _complain("warning: " + warning)
    _say(f"{config.source or 'the configuration'}: valid")
    return 0


def _config_show(args: argparse.Namespace) -> int:
    _say(render_yaml(_configured(args).show(masked=True)).rstrip("\n"))
    return 0


def _config_init(args: argparse.Namespace) -> int:
    path = args.path
    if os.path.splitext(path)[1] not in (".yaml", ".yml"):
        raise ConfigError(f"{path}: YAML is written, so the name ends in .yaml or .yml")
    key = secrets.token_urlsafe(24)
    fresh = {"auth." + name: secrets.token_urlsafe(24) for name in _SECRET_NAMES}
    text = config_template({"auth.api_key_users": {FIRST_RUN_USER: key}, "auth.admins": [FIRST_RUN_USER], **fresh})
    try:
        _write_private(path, text)
    except FileExistsError:
        raise FileExists(f"{path} is there already, and stays as it is") from None
    _say(f"{path}: written, with a key for {FIRST_RUN_USER} in it. Start: callfs serve --config {path}")
    return 0


def _config_reference(args: argparse.Namespace) -> int:
    _say(option_reference().rstrip("\n"))
    _say("\n### Filesystems to mount\n\n" + mount_reference())
    return 0


def _fsck(args: argparse.Namespace) -> int:
    left = run_fsck(_configured(args), deep=args.deep, mend=not args.dry_run, report=_say_finding)
    _say(f"{left} problems left" if left else "no problems left")
    return 1 if left else 0


def _say_finding(finding: Finding) -> None:
    _say(": ".join(filter(None, (finding.kind, finding.path, FINDINGS[finding.kind][0], finding.detail))))


def _address_of(args: argparse.Namespace) -> dict[str, Any]:
    """Which server is meant, for the clients: by flags, by the environment, else the one of a first run here."""
    url = args.url or os.environ.get("CALLFS_URL") or os.environ.get("PFS_API_URL")
    key = args.key or os.environ.get("CALLFS_KEY", "")
    if not url and not key:
        with contextlib.suppress(OSError):
            key = _kept_secrets(os.path.join(DATA_FOLDER, "secrets.json")).get("key", "")
    return {"url": url or "http://" + FIRST_RUN_LISTEN, "key": key, "ca_file": args.ca_file,
            "verify": not args.insecure}


def _client_of(args: argparse.Namespace) -> Client:
    return Client(**_address_of(args))


def _shell(args: argparse.Namespace) -> int:
    """Lines from -c, from a file, from a pipe, or typed."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(args.file, "rb")) if args.file else sys.stdin.buffer
        shell = Shell(stack.enter_context(PFSClient(**_address_of(args))))
        if args.line is None and not args.file and sys.stdin.isatty():
            return shell.converse()
        return shell.run_lines(shell.script(file) if args.line is None else args.line.splitlines(), args.stop)


def _file_command(args: argparse.Namespace) -> int:
    """One command of the shell, as `callfs NAME`."""
    parser = argparse.ArgumentParser("callfs", add_help=False, allow_abbrev=False)
    for argument in _CLIENT_ARGUMENTS:
        parser.add_argument(*argument.names, **argument.settings)
    split = args.words.index("--") if "--" in args.words else len(args.words)
    args, words = parser.parse_known_args(args.words[:split], args)
    with PFSClient(**_address_of(args)) as client:
        return Shell(client).run_pipeline([Stage([Word(word) for word in [*words, *args.words[split:]]], {})])


def _link(args: argparse.Namespace) -> int:
    with _client_of(args) as client:
        _say(client.link(args.path, int(args.expires), args.uses).url)
    return 0


def _version(args: argparse.Namespace) -> int:
    _say(f"callfs {__version__}")
    return 0


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_CONFIG_ARGUMENTS = (
    _arg("folder", nargs="?", metavar="DIR", help="serve what lies in DIR; its records go to DIR/.callfs"),
    _arg("--config", "-c", metavar="PATH", help="configuration file (else CALLFS_CONFIG, else config.yaml, .yml, .json "
         "or .toml of the current folder)"),
    _arg("--data", metavar="DATA", help=f"folder for files, records and drawn secrets (default ./{DATA_FOLDER})"),
    *(_arg(about.flag, dest=about.key, choices=about.choices or None, metavar=None if about.choices else "VALUE",
           help=about.help.replace("%", "%%")) for about in OPTIONS if about.flag),
)
_CLIENT_ARGUMENTS = (
    _arg("--url", help=f"the server (else CALLFS_URL, PFS_API_URL, else http://{FIRST_RUN_LISTEN})"),
    _arg("--key", help="the key (else CALLFS_KEY, which other users of the machine can not see)"),
    _arg("--ca-file", default="", metavar="PEM", help="certificates to trust"),
    _arg("--insecure", "--no-verify", action="store_true", help="trust any certificate"),
)
_GROUPS = {"config": "look at the configuration, or begin one"}

# Whoever adds a command adds a row.
COMMANDS = [
    Command("serve", "run the server", _serve, _CONFIG_ARGUMENTS, ("server",)),
    Command("config validate", "check the configuration", _config_validate, _CONFIG_ARGUMENTS),
    Command("config show", "print the effective configuration, secrets masked", _config_show, _CONFIG_ARGUMENTS),
    Command("config init", "write a commented configuration with fresh secrets", _config_init,
            (_arg("path", nargs="?", default="config.yaml", metavar="PATH", help="default: config.yaml"),)),
    Command("config reference", "print every option, as Markdown", _config_reference),
    Command("fsck", "compare records and files, and mend what disagrees (with the server stopped)", _fsck,
            (*_CONFIG_ARGUMENTS, _arg("--deep", action="store_true", help="read every file and compare its digest"),
             _arg("--dry-run", action="store_true", help="say what disagrees, change nothing"))),
    Command("link", "make a download link", _link,
            (_arg("path", metavar="PATH", help="a file on the server"), *_CLIENT_ARGUMENTS,
             _arg("--expires", type=_duration, default=3600.0, metavar="TIME", help="30m, 12h; up to 1d (default 1h)"),
             _arg("--uses", type=int, default=1, metavar="N", help="downloads that it is good for (default 1)"))),
    Command("sh", "the shell: the file commands below at a prompt, from a file or a pipe", _shell,
            (_arg("file", nargs="?", metavar="FILE", help="lines to run, instead of a prompt"), *_CLIENT_ARGUMENTS,
             _arg("-c", dest="line", metavar="LINES", help="lines to run, instead of a prompt"),
             _arg("-e", dest="stop", action="store_true", help="stop at the first command that fails"))),
    *(Command(each.name, each.help, _file_command, words=True) for each in FILE_COMMANDS.values() if each.alone),
    Command("version", "print the version", _version),
]


def build_parser(commands: Sequence[Command] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of a table of commands; its result has the command's function as `run`."""
    parser = argparse.ArgumentParser("callfs", description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"callfs {__version__}")
    parser.set_defaults(run=_printing_help(parser, 0))
    groups = {"": parser.add_subparsers(title="commands", metavar="COMMAND")}
    for command in commands:
        group, _, name = command.name.rpartition(" ")
        if group not in groups:
            inner = groups[""].add_parser(group, help=_GROUPS[group], description=_GROUPS[group], allow_abbrev=False)
            inner.set_defaults(run=_printing_help(inner, 2))
            groups[group] = inner.add_subparsers(title="commands", metavar="COMMAND")
        sub = groups[group].add_parser(name, help=command.help, description=command.help, aliases=command.aliases,
                                       allow_abbrev=False)
        for argument in command.arguments:
            sub.add_argument(*argument.names, **argument.settings)
        sub.set_defaults(run=command.run)
    return parser


def _printing_help(parser: argparse.ArgumentParser, code: int) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        parser.print_help(sys.stderr if code else sys.stdout)
        return code
    return run


def _parsed(argv: list[str], args: argparse.Namespace) -> argparse.Namespace:
    command = next((each for each in COMMANDS if each.words and argv[:1] == [each.name]), None)
    if command is None:
        return build_parser().parse_args(argv, args)
    args.run, args.words = command.run, argv
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command. 0: done; 1: it failed; 2: wrong usage or configuration; 130: interrupted. Raises nothing."""
    args = argparse.Namespace()
    try:
        args = _parsed(sys.argv[1:] if argv is None else list(argv), args)
        code = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:              # argparse, for --help and for wrong usage
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:                 # `| head`; what is still buffered must not fail again at exit
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _report(error, args)


def _report(error: Exception, args: argparse.Namespace) -> int:
    if "debug" in (getattr(args, "log.level", None), os.environ.get("CALLFS_LOG__LEVEL")):
        traceback.print_exc()
    if isinstance(error, OSError):
        _complain(f"{error.filename}: {_reason(error)}" if error.filename else _reason(error))
    elif isinstance(error, CallFSError):
        _complain(str(error))
    else:
        _complain(f"unforeseen {type(error).__name__}: {error} (--log-level debug shows where)")
    return 2 if isinstance(error, ConfigError) else 1


_AS_MODULE = """# callfs.py
import importlib.util, sys
spec = importlib.util.spec_from_file_location("callfs", sys.argv.pop(1))
callfs = sys.modules["callfs"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(callfs)
sys.exit(callfs.main())"""
_INTERPRETER_FLAGS = {"isolated": "-I", "ignore_environment": "-E", "no_site": "-S", "dont_write_bytecode": "-B"}


def _run_script() -> int:
    """What `python3 callfs.py ...` does. A server starts over as a module: the syntax tree of a script stays in memory
    for as long as it runs, that of a module goes after it was compiled (measured: 52 MiB resident against 30). The
    process stays the same one, with its number and its descriptors."""
    if sys.argv[1:2] not in (["serve"], ["server"]) or os.name != "posix" or not os.path.isfile(__file__):
        return main()
    flags = [flag for name, flag in _INTERPRETER_FLAGS.items() if getattr(sys.flags, name)]
    warnings = [f"-W{option}" for option in sys.warnoptions]
    developing = ["-X", "dev"] if sys.flags.dev_mode else []
    os.execv(sys.executable, [sys.executable, *flags, *warnings, *developing, "-c", _AS_MODULE,
                              os.path.abspath(__file__), *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(_run_script())

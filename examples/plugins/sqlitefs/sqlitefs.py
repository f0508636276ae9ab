"""A SQLite database as files, to read only, as a plugin of callfs.

    /schema.sql                 all CREATE statements
    /TABLE.csv, /TABLE.json     a table or view, a row a line (JSON: an array of objects)
    /rows/TABLE/ROWID.json      one row of a table

Tables are streamed in bounded memory, each read one snapshot of the database: it is opened for that read alone. What is
being written meanwhile is not seen. NULL is an empty field in CSV and null in JSON; a blob is base64 in CSV and
{"base64": ...} in JSON. In names of files, "/", "%" and control characters of a table's name are percent-encoded.
"""
import base64
import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import sqlite3
import urllib.parse
from types import MappingProxyType

import callfs

ROWS = 500                                  # at a time
_PLAIN = "".join(map(chr, range(32, 127))).replace("%", "").replace("/", "").replace("\\", "")


class Plugin(callfs.FileSystem):
    """Tables and views of a SQLite database as CSV and JSON."""

    name = "sqlitefs"

    @dataclasses.dataclass
    class Options:
        """What a mount of it can be told."""

        db_path: str = callfs.option("", "The database; relative to the folder of the configuration file")
        busy_timeout: float = callfs.option("5s", "Longest wait for a writer", kind="duration")

    def __init__(self, options, context):
        self._path = os.path.realpath(os.path.join(context.folder, options.db_path))
        if not options.db_path or not os.path.isfile(self._path):
            raise callfs.BadRequest(f"sqlitefs: there is no file {options.db_path!r}; db_path is the database.")
        if any((self._path + os.sep).startswith(os.path.realpath(each) + os.sep) for each in context.private):
            raise callfs.BadRequest("sqlitefs: that is data of this server itself.")
        self._timeout = options.busy_timeout
        with self._opened() as database:
            self._tables(database)          # a file that is none is refused now

    # -- the database ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self):
        """A connection in a transaction: all it reads is of one moment."""
        try:
            with contextlib.closing(sqlite3.connect(f"file:{urllib.parse.quote(self._path)}?mode=ro", uri=True, timeout=self._timeout,
                                                    isolation_level=None, check_same_thread=False)) as database:
                database.text_factory = lambda text: text.decode("utf-8", "replace")
                for statement in ("PRAGMA query_only=1", "PRAGMA trusted_schema=0", "BEGIN"):
                    database.execute(statement)
                yield database
        except sqlite3.OperationalError as error:       # locked, gone, a view of what is not there
            raise callfs.Unavailable(f"The database can not be read: {error}.") from None
        except sqlite3.DatabaseError as error:
            raise callfs.BadRequest(f"sqlitefs: {error}.") from None

    @staticmethod
    def _tables(database):
        """{name of the file: (name, whether it has rows that can be named)}"""
        found = {}
        for kind, name, sql in database.execute("SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"):
            shown = "".join(each if each in _PLAIN or ord(each) > 159 else urllib.parse.quote(each, safe="") for each in name)
            plain = kind == "table" and not name.startswith("sqlite_") and "WITHOUT ROWID" not in (sql or "").upper()
            if len(shown.encode()) < 240 and shown.strip("."):
                found[shown] = (name, plain)
        return found

    def _rows(self, database, query, *values):
        """The names of the columns, then the rows."""
        cursor = database.execute(query, values)
        yield [column[0] for column in cursor.description]
        while True:
            rows = cursor.fetchmany(ROWS)
            if not rows:
                return
            yield from rows

    # -- entries -----------------------------------------------------------------------------------------------

    def _entry(self, path, kind="file", size=0):
        """The time is that of the last commit, as the files tell it; so is the ETag."""
        states = []
        for name in (self._path, self._path + "-wal"):
            with contextlib.suppress(OSError):
                found = os.stat(name)
                states.append((found.st_mtime_ns, found.st_size, found.st_ino))
        version = hashlib.sha256(f"{path} {size} {states}".encode()).hexdigest()[:32]
        return callfs.Entry(path, kind, size, 0o444 if kind == "file" else 0o555, "*", max(states)[0] if states else 0, version)

    def _find(self, database, path):
        """(kind, table, row) of a path: what its bytes are made of. Raises FileNotFound."""
        parts, tables = path[1:].split("/"), self._tables(database)
        stem, _, ending = parts[-1].rpartition(".")
        if path in ("/", "/rows"):
            return "folder", None, None
        if path == "/schema.sql":
            return "schema", None, None
        if len(parts) == 1 and stem in tables and ending in ("csv", "json"):
            return ending, tables[stem][0], None
        if parts[0] == "rows" and tables.get(parts[1], ("", False))[1]:
            if len(parts) == 2:
                return "folder", tables[parts[1]][0], None
            if len(parts) == 3 and ending == "json" and stem.lstrip("-").isdigit() and stem == str(int(stem)) and len(stem) < 20:
                return "row", tables[parts[1]][0], int(stem)
        raise callfs.FileNotFound()

    def stat(self, path):
        """As the interface says. The size of a table is known when it was read: 0 stands for that."""
        with contextlib.closing(self.open(path)) as handle:
            return handle.entry

    def open(self, path, wish=MappingProxyType({})):
        """As the interface says."""
        with self._opened() as database:
            kind, table, row = self._find(database, path)
            if kind == "folder":
                return callfs.Handle(self._entry(path, "directory"))
            if kind in ("csv", "json"):
                return callfs.LiveHandle(self._entry(path), lambda: callfs.ChunkReader(self._table(kind, table)))
            data = self._schema(database) if kind == "schema" else self._row(database, table, row)
        return callfs.MemoryHandle(self._entry(path, size=len(data)), data)

    def list(self, path, after=""):
        """As the interface says. Rows are in the order of their numbers as text, as files are."""
        with self._opened() as database:
            kind, table, _ = self._find(database, path)
            if kind != "folder":
                raise callfs.Conflict("This is a file, not a directory.")
            if table is None:
                tables = self._tables(database)
                found = [self._entry("/rows/" + shown, "directory") for shown, (_, plain) in tables.items() if plain]
                if path == "/":
                    found = [self._entry(f"/{shown}.{ending}") for shown in tables for ending in ("csv", "json")]
                    found += [self._entry("/rows", "directory"), self._entry("/schema.sql", size=len(self._schema(database)))]
                return iter(sorted((entry for entry in found if entry.name > after), key=lambda entry: entry.name))
        return self._numbers(path, table, after)

    def _numbers(self, path, table, after):
        template, name = self._entry(path), _quoted(table)
        with self._opened() as database:
            rows = self._rows(database, f"SELECT _rowid_ || '.json' FROM {name} WHERE _rowid_ || '.json' > ? ORDER BY 1", after)
            next(rows)
            for file, in rows:
                yield template._replace(path=f"{path}/{file}", type="file", mode=0o444)

    # -- bytes -------------------------------------------------------------------------------------------------

    @staticmethod
    def _schema(database):
        statements = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        return "".join(f"{sql};\n" for sql, in statements).encode("utf-8", "replace")

    def _row(self, database, table, number):
        rows = list(self._rows(database, f"SELECT * FROM {_quoted(table)} WHERE _rowid_ = ?", number))
        if len(rows) == 1:
            raise callfs.FileNotFound()
        return (json.dumps(dict(zip(rows[0], map(_json_value, rows[1]))), ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace")

    def _table(self, kind, table):
        """Blocks of a whole table."""
        with self._opened() as database:
            rows = self._rows(database, f"SELECT * FROM {_quoted(table)}")
            lines, block, size = _csv_lines(rows) if kind == "csv" else _json_lines(rows), [], 0
            for line in lines:
                block.append(line)
                size += len(line)
                if size > 65536:
                    yield "".join(block).encode("utf-8", "replace")
                    block, size = [], 0
            yield "".join(block).encode("utf-8", "replace")


def _quoted(name):
    return '"' + name.replace('"', '""') + '"'


def _json_value(value):
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return None if isinstance(value, float) and not math.isfinite(value) else value     # JSON has no infinity


def _json_lines(rows):
    columns, comma = next(rows), "["
    for row in rows:
        yield comma + "\n" + json.dumps(dict(zip(columns, map(_json_value, row))), ensure_ascii=False)
        comma = ","
    yield "[]\n" if comma == "[" else "\n]\n"


def _csv_lines(rows):
    for row in rows:
        line = io.StringIO()
        csv.writer(line).writerow([base64.b64encode(value).decode() if isinstance(value, bytes) else value for value in row])
        yield line.getvalue()

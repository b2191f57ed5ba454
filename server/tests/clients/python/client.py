"""PyPI libsql in remote mode: DB-API on the Rust crate, `POST /v3/pipeline` and `/v3/cursor`.

The extension holds the interpreter's lock while it waits for an answer, so each tenant has a
process of its own; a barrier starts every step on all of them at once. The driver `run` sets
MYRIAD_URL, MYRIAD_ADMIN_URL, MYRIAD_TENANTS and MYRIAD_VALUES, and reads one line per step:
`PASS step` or `FAIL step: reason`.
"""

import base64
import json
import math
import multiprocessing
import os
import re
import sys
import time
import urllib.request

import libsql

URL = os.environ["MYRIAD_URL"]
ADMIN_URL = os.environ["MYRIAD_ADMIN_URL"]
TENANTS = int(os.environ["MYRIAD_TENANTS"])
STEP_SECONDS_MAX = 120

DECODERS = {
    "null": lambda _: None,
    "integer": int,
    "float": float,
    "text": str,
    "blob": base64.b64decode,
}


def read_values():
    """(label, typeof, value) of each value that all clients send."""
    with open(os.environ["MYRIAD_VALUES"], encoding="utf-8") as file:
        for entry in json.load(file):
            value = DECODERS[entry["type"]](entry.get("value"))
            if "times" in entry:
                value *= entry["times"]
            yield entry["label"], {"float": "real"}.get(entry["type"], entry["type"]), value


VALUES = list(read_values())


def parameter(value):
    """(SQL, arguments) for a value: the client sends integers past 32 bits as floats, so they
    stand in the text."""
    if isinstance(value, int) and not -2**31 <= value < 2**31:
        return str(value), ()
    return "?", (value,)


def equal(got, expected, label=""):
    same = type(got) is type(expected) and got == expected
    if same and isinstance(expected, float):
        same = math.copysign(1, got) == math.copysign(1, expected)
    assert same, f"{label}: got {got!r:.100}, not {expected!r:.100}"


def fails(code, pattern, work):
    """The call must fail with this code; the client tells it only within its text."""
    try:
        result = work()
    except ValueError as error:
        found = re.search(r'code: "?(\w+)', str(error))
        assert (found and found[1]) == code, f"code {code} expected: {error}"
        assert re.search(pattern, str(error)), f"{pattern} expected: {error}"
        return
    raise AssertionError(f"no error, but {result!r:.100} where {code} was expected")


def admin(method, path, body=None):
    request = urllib.request.Request(f"{ADMIN_URL}/v1/namespaces/{path}", body, method=method)
    with urllib.request.urlopen(request) as response:
        assert response.status == 200, response.status


class Client:
    """One tenant's steps, in this order: each method without an underscore is one."""

    def __init__(self, tenant):
        self._tenant = tenant
        self._connection = None

    def _connect(self, tenant=None):
        return libsql.connect(f"{URL}/db/{tenant or self._tenant}", auth_token="")

    def _names(self, connection=None):
        cursor = (connection or self._connection).execute("SELECT name FROM people ORDER BY id")
        return [name for (name,) in cursor.fetchall()]

    def create(self):
        admin("POST", f"{self._tenant}/create", b"{}")
        self._connection = self._connect()

    def schema(self):
        self._connection.executescript("""
            CREATE TABLE owner(name TEXT NOT NULL);
            CREATE TABLE kinds(id INTEGER PRIMARY KEY, label TEXT NOT NULL, value);
            CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
            CREATE TABLE pets(id INTEGER PRIMARY KEY,
                              owner INTEGER NOT NULL REFERENCES people(id));
        """)
        cursor = self._connection.execute("INSERT INTO owner VALUES (?)", (self._tenant,))
        equal(cursor.rowcount, 1)
        self._connection.commit()

    def values(self):
        connection = self._connection
        for label, _, value in VALUES:
            sql, arguments = parameter(value)
            insert = f"INSERT INTO kinds(label, value) VALUES (?, {sql})"
            connection.execute(insert, (label, *arguments))
        connection.commit()
        cursor = connection.execute("SELECT label, typeof(value), value FROM kinds ORDER BY id")
        equal([column[0] for column in cursor.description], ["label", "typeof(value)", "value"])
        rows = cursor.fetchall()
        equal(len(rows), len(VALUES))
        for row, (label, kind, value) in zip(rows, VALUES):
            equal(row[:2], (label, kind))
            equal(row[2], value, label)

    def batch(self):
        connection = self._connection
        sent = [(label, value) for label, _, value in VALUES if parameter(value)[1]]
        connection.execute("DELETE FROM kinds")
        connection.executemany("INSERT INTO kinds(label, value) VALUES (?, ?)", sent)
        connection.commit()
        rows = connection.execute("SELECT label, value FROM kinds ORDER BY id").fetchall()
        for (_, got), (label, value) in zip(rows, sent, strict=True):
            equal(got, value, label)
        connection.executescript("""
            BEGIN;
            UPDATE kinds SET value = 'a;b' WHERE label = 'null';
            INSERT INTO kinds(label) SELECT 'script' FROM kinds WHERE value = 'a;b';
            COMMIT;
        """)
        equal(connection.execute("SELECT count(*) FROM kinds").fetchone(), (len(sent) + 1,))

    def batch_rolls_back(self):
        # The client takes no notice of a script's errors and forgets the stream that it closed in
        # a transaction, so this has a connection of its own and looks at what is there.
        script = self._connect()
        script.executescript("""
            BEGIN;
            INSERT INTO people(name) VALUES ('first');
            INSERT INTO people(name) VALUES ('first');
            COMMIT;
        """)
        equal(self._names(), [])

    def transaction_commits(self):
        connection, other = self._connection, self._connect()
        cursor = connection.execute("INSERT INTO people(name) VALUES (?)", ("committed",))
        equal((cursor.rowcount, cursor.lastrowid), (1, 1))
        assert connection.in_transaction
        equal(self._names(other), [])
        connection.execute("INSERT INTO pets(owner) SELECT id FROM people")
        equal(self._names(), ["committed"])
        connection.commit()
        assert not connection.in_transaction
        equal(self._names(other), ["committed"])
        other.close()

    def transaction_rolls_back(self):
        connection = self._connection
        connection.execute("DELETE FROM pets")
        fails("SQLITE_CONSTRAINT", "NOT NULL",
              lambda: connection.execute("INSERT INTO people(name) VALUES (?)", (None,)))
        connection.execute("INSERT INTO people(name) VALUES ('rolled back')")
        connection.rollback()
        equal(self._names(), ["committed"])
        equal(connection.execute("SELECT count(*) FROM pets").fetchone(), (1,))

    def transaction_abandoned(self):
        abandoned = self._connect()
        abandoned.execute("INSERT INTO people(name) VALUES ('abandoned')")
        # The next writer gets the lock without help from the one that forgot it.
        self._connection.execute("INSERT INTO people(name) VALUES ('next')")
        self._connection.commit()
        equal(self._names(), ["committed", "next"])
        fails("TRANSACTION_TIMEOUT", "timed out", lambda: abandoned.execute("SELECT 1").fetchall())

    def errors(self):
        def run(sql, parameters=()):
            def work():
                try:
                    return self._connection.execute(sql, parameters).fetchall()
                finally:
                    self._connection.rollback()
            return work

        fails("SQLITE_CONSTRAINT", "UNIQUE", run("INSERT INTO people(name) VALUES ('next')"))
        fails("SQLITE_CONSTRAINT", "FOREIGN KEY", run("INSERT INTO pets(owner) VALUES (99)"))
        fails("SQLITE_UNKNOWN", "no such table: absent", run("SELECT * FROM absent"))
        fails("SQL_INPUT_ERROR", "no such column: absent", run("SELECT absent"))
        fails("ARGS_INVALID", "parameter", run("SELECT ?, ?", (1,)))
        try:
            self._connect(f"{self._tenant}-absent").execute("SELECT 1").fetchall()
        except ValueError as error:
            assert "status=404" in str(error), error
        else:
            raise AssertionError("a database that does not exist answered")
        equal(self._names(), ["committed", "next"])

    def isolation(self):
        equal(self._connection.execute("SELECT name FROM owner").fetchall(), [(self._tenant,)])

    def drop(self):
        self._connection.close()
        admin("DELETE", self._tenant)


STEPS = [name for name, member in vars(Client).items() if callable(member) and name[0] != "_"]


def run_tenant(number, barrier, results):
    client = Client(f"python-{number}")
    for step in STEPS:
        barrier.wait(STEP_SECONDS_MAX)
        try:
            getattr(client, step)()
            results.put((step, None))
        except Exception as error:  # Whatever it is, it is this step's failure.
            results.put((step, f"python-{number}: {type(error).__name__} {error}"))


def main():
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(TENANTS), context.Queue()
    children = [
        context.Process(target=run_tenant, args=(number, barrier, results), daemon=True)
        for number in range(TENANTS)
    ]
    for child in children:
        child.start()
    failed = 0
    outcomes = {step: [] for step in STEPS}
    for step in STEPS:
        started = time.monotonic()
        # The queue keeps no order between processes: some may be a step ahead.
        while len(outcomes[step]) < TENANTS:
            finished, reason = results.get(timeout=STEP_SECONDS_MAX)
            outcomes[finished].append(reason)
        bad = [reason for reason in outcomes[step] if reason is not None]
        took = f"{TENANTS} tenants, {(time.monotonic() - started) * 1000:.0f} ms"
        name = step.replace("_", " ")
        if bad:
            failed += 1
            first = " ".join(bad[0].split())
            print(f"FAIL {name}: {len(bad)} of {took}; first {first}", flush=True)
        else:
            print(f"PASS {name} ({took})", flush=True)
    for child in children:
        child.join(STEP_SECONDS_MAX)
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()

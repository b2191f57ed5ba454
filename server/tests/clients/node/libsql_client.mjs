// npm @libsql/client over HTTP: `POST /v2/pipeline` only.

import assert from "node:assert/strict";
import { createClient } from "@libsql/client/http";
import { fails, main, same, url, values } from "./harness.mjs";

const open = (tenant) => {
  const client = createClient({ url: url(tenant), intMode: "bigint" });
  return { client, close: () => client.close() };
};

const names = async (client) =>
  (await client.execute("SELECT name FROM people ORDER BY id")).rows.map((row) => row.name);

await main("libsql-client", open, [
  ["schema", async ({ client, tenant }) => {
    await client.executeMultiple(`
      CREATE TABLE owner(name TEXT NOT NULL);
      CREATE TABLE kinds(id INTEGER PRIMARY KEY, label TEXT NOT NULL, value);
      CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
      CREATE TABLE pets(id INTEGER PRIMARY KEY, owner INTEGER NOT NULL REFERENCES people(id));
      CREATE TRIGGER renamed AFTER UPDATE ON people BEGIN
        INSERT INTO kinds(label, value) VALUES ('renamed', new.name);
        DELETE FROM kinds WHERE label = 'renamed';
      END;
    `);
    await client.migrate(["ALTER TABLE people ADD COLUMN age INT", "CREATE INDEX ages ON people(age)"]);
    const added = await client.execute("SELECT age FROM people");
    assert.deepEqual([added.columns, added.columnTypes], [["age"], ["INT"]]);
    const inserted = await client.execute({ sql: "INSERT INTO owner VALUES (?)", args: [tenant] });
    assert.deepEqual([inserted.rowsAffected, inserted.lastInsertRowid], [1, 1n]);
  }],
  ["values", async ({ client }) => {
    for (const { label, value } of values) {
      const sql = "INSERT INTO kinds(label, value) VALUES (:label, $value)";
      await client.execute({ sql, args: { label, value } });
    }
    const { rows } = await client.execute("SELECT label, typeof(value) AS type, value FROM kinds ORDER BY id");
    assert.equal(rows.length, values.length);
    values.forEach(({ label, type, value }, i) => {
      assert.deepEqual([rows[i].label, rows[i].type], [label, type]);
      same(rows[i].value, value, label);
    });
    const { rows: [row] } = await client.execute({ sql: "SELECT ?, ?, ?", args: [true, new Date(7), 3] });
    assert.deepEqual([row[0], row[1], row[2]], [1n, 7, 3]);
  }],
  ["batch", async ({ client }) => {
    const results = await client.batch([
      "DELETE FROM kinds",
      ...values.map(({ label, value }) => ({
        sql: "INSERT INTO kinds(label, value) VALUES (?, ?) RETURNING value", args: [label, value],
      })),
      { sql: "SELECT count(*) AS n FROM kinds", args: [] },
    ], "write");
    assert.equal(results[0].rowsAffected, values.length);
    values.forEach(({ label, value }, i) => same(results[i + 1].rows[0].value, value, label));
    assert.equal(results.at(-1).rows[0].n, BigInt(values.length));
    const reads = await client.batch(["SELECT 1 AS one", "SELECT 2 AS two"], "read");
    assert.deepEqual(reads.map(({ rows }) => rows[0][0]), [1n, 2n]);
  }],
  ["batch rolls back", async ({ client }) => {
    const batch = client.batch([
      "INSERT INTO people(name) VALUES ('first')",
      "INSERT INTO people(name) VALUES ('first')",
      "INSERT INTO people(name) VALUES ('never')",
    ], "write");
    const error = await fails(batch, "SQLITE_CONSTRAINT", /UNIQUE constraint failed: people.name/);
    assert.equal(error.statementIndex, 1);
    assert.deepEqual(await names(client), []);
  }],
  ["transaction commits", async ({ client }) => {
    const transaction = await client.transaction("write");
    const inserted = await transaction.execute("INSERT INTO people(name) VALUES ('committed')");
    assert.deepEqual([inserted.rowsAffected, inserted.lastInsertRowid], [1, 1n]);
    assert.deepEqual(await names(client), [], "seen before its commit");
    await transaction.batch([
      { sql: "UPDATE people SET age = ? WHERE name = ?", args: [42n, "committed"] },
      "INSERT INTO pets(owner) SELECT id FROM people",
    ]);
    assert.deepEqual(await names(transaction), ["committed"]);
    await transaction.commit();
    assert.ok(transaction.closed);
    assert.deepEqual(await names(client), ["committed"]);
  }],
  ["transaction rolls back", async ({ client }) => {
    const transaction = await client.transaction("write");
    await transaction.execute("DELETE FROM pets");
    await fails(transaction.execute("INSERT INTO people(name) VALUES (NULL)"), "SQLITE_CONSTRAINT");
    await transaction.execute("INSERT INTO people(name) VALUES ('rolled back')");
    await transaction.rollback();
    const closed = await client.transaction("deferred");
    await closed.execute("INSERT INTO people(name) VALUES ('closed')");
    closed.close();
    assert.deepEqual(await names(client), ["committed"]);
    assert.equal((await client.execute("SELECT count(*) FROM pets")).rows[0][0], 1n);
  }],
  ["transaction abandoned", async ({ client }) => {
    const abandoned = await client.transaction("write");
    await abandoned.execute("INSERT INTO people(name) VALUES ('abandoned')");
    // The next writer gets the lock without help from the one that forgot it.
    await client.execute("INSERT INTO people(name) VALUES ('next')");
    assert.deepEqual(await names(client), ["committed", "next"]);
    await fails(abandoned.execute("SELECT 1"), "TRANSACTION_TIMEOUT");
    abandoned.close();
  }],
  ["errors", async ({ client, tenant }) => {
    const run = (sql, args = []) => client.execute({ sql, args });
    await fails(run("INSERT INTO people(name) VALUES ('next')"), "SQLITE_CONSTRAINT", /UNIQUE/);
    await fails(run("INSERT INTO people(name) VALUES (NULL)"), "SQLITE_CONSTRAINT", /NOT NULL/);
    await fails(run("INSERT INTO pets(owner) VALUES (99)"), "SQLITE_CONSTRAINT", /FOREIGN KEY/);
    await fails(run("SELECT * FROM absent"), "SQLITE_UNKNOWN", /no such table: absent/);
    await fails(run("SELECT absent"), "SQL_INPUT_ERROR", /no such column: absent/);
    await fails(run("SELEC 1"), "SQL_PARSE_ERROR", /syntax error/);
    await fails(run("SELECT 1; SELECT 2"), "SQL_MANY_STATEMENTS", /more than one statement/);
    await fails(run("-- nothing"), "SQL_NO_STATEMENT");
    await fails(run("SELECT ?, ?", [1n]), "ARGS_INVALID", /parameter/);
    await fails(run("SELECT 1", [1n]), "ARGS_INVALID", /too many parameters/);
    await fails(run("ATTACH ':memory:' AS other"), "SQLITE_AUTH", /not available|not authorized/);
    await fails(run("COMMIT"), "SQLITE_UNKNOWN", /no transaction is active/);
    await fails(createClient({ url: url(`${tenant}-absent`) }).execute("SELECT 1"), "DATABASE_NOT_FOUND", /-absent/);
    assert.deepEqual(await names(client), ["committed", "next"]);
  }],
  ["isolation", async ({ client, tenant }) => {
    const { rows } = await client.execute("SELECT name FROM owner");
    assert.deepEqual(rows.map((row) => row.name), [tenant]);
  }],
]);

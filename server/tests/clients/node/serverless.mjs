// npm @tursodatabase/serverless: `POST /v3/cursor` for statements and batches, `/v3/pipeline` for
// the rest; its `/compat` entry, with the interface of @libsql/client, sends the same.

import assert from "node:assert/strict";
import { connect } from "@tursodatabase/serverless";
import { createClient } from "@tursodatabase/serverless/compat";
import { fails, main, same, url, values } from "./harness.mjs";

const open = (tenant) => {
  const connection = connect({ url: url(tenant) });
  connection.defaultSafeIntegers(true);
  return { connection, close: () => connection.close() };
};

const names = async (connection) =>
  (await connection.all("SELECT name FROM people ORDER BY id")).map((row) => row.name);

// A JS number that is integral goes out as an integer here, whatever the column.
const expected = (value) => (Number.isSafeInteger(value) ? BigInt(value) : value);

await main("serverless", open, [
  ["schema", async ({ connection, tenant }) => {
    await connection.exec(`
      CREATE TABLE owner(name TEXT NOT NULL);
      CREATE TABLE kinds(id INTEGER PRIMARY KEY, label TEXT NOT NULL, value);
      CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
      CREATE TABLE pets(id INTEGER PRIMARY KEY, owner INTEGER NOT NULL REFERENCES people(id));
    `);
    const insert = await connection.prepare("INSERT INTO owner VALUES (?)");
    assert.equal(insert.reader, false);
    assert.deepEqual(await insert.run([tenant]), { changes: 1, lastInsertRowid: 1 });
    const select = await connection.prepare("SELECT id, name FROM people");
    const columns = [{ name: "id", type: "INTEGER" }, { name: "name", type: "TEXT" }];
    assert.deepEqual(select.columns(), columns);
  }],
  ["values", async ({ connection }) => {
    const insert = await connection.prepare("INSERT INTO kinds(label, value) VALUES (:label, :value)");
    for (const { label, value } of values) {
      await insert.run({ label, value });
    }
    const rows = await connection.all("SELECT label, typeof(value) AS type, value FROM kinds ORDER BY id");
    assert.equal(rows.length, values.length);
    values.forEach(({ label, type, value }, i) => {
      const integral = typeof expected(value) === "bigint";
      assert.deepEqual([rows[i].label, rows[i].type], [label, integral ? "integer" : type]);
      same(rows[i].value, expected(value), label);
    });
    const streamed = [];
    for await (const row of select(connection)) streamed.push(row.id);
    assert.equal(streamed.length, values.length);
  }],
  ["batch", async ({ connection }) => {
    const statements = values.map(({ label, value }) => ({
      sql: "INSERT INTO kinds(label, value) VALUES (?, ?) RETURNING value", args: [label, value],
    }));
    const results = await connection.batch(["DELETE FROM kinds", ...statements], "immediate");
    assert.equal(results[0].rowsAffected, values.length);
    values.forEach(({ label, value }, i) => same(results[i + 1].rows[0].value, expected(value), label));
    assert.equal(connection.inTransaction, false);
  }],
  ["batch rolls back", async ({ connection }) => {
    const twice = ["INSERT INTO people(name) VALUES ('first')", "INSERT INTO people(name) VALUES ('first')"];
    await fails(connection.batch(twice, "write"), "SQLITE_CONSTRAINT", /UNIQUE constraint failed/);
    assert.equal(connection.inTransaction, false);
    assert.deepEqual(await names(connection), []);
  }],
  ["transaction commits", async ({ connection }) => {
    await connection.transactionAsync(async (transaction) => {
      await transaction.run("INSERT INTO people(name) VALUES (?)", "committed");
      assert.deepEqual(await names(connection), [], "seen before its commit");
      await transaction.run("INSERT INTO pets(owner) SELECT id FROM people");
      assert.deepEqual(await names(transaction), ["committed"]);
    }).immediate();
    assert.deepEqual(await names(connection), ["committed"]);
    await connection.run("BEGIN");
    assert.equal(connection.inTransaction, true);
    await connection.run("UPDATE people SET name = name");
    await connection.run("COMMIT");
    assert.equal(connection.inTransaction, false);
  }],
  ["transaction rolls back", async ({ connection }) => {
    const transaction = connection.transactionAsync(async (transaction) => {
      await transaction.run("DELETE FROM pets");
      await transaction.run("INSERT INTO people(name) VALUES ('rolled back')");
      await transaction.run("INSERT INTO people(name) VALUES (NULL)");
    });
    await fails(transaction(), "SQLITE_CONSTRAINT", /NOT NULL/);
    assert.deepEqual(await names(connection), ["committed"]);
    assert.equal((await connection.get("SELECT count(*) AS n FROM pets")).n, 1n);
  }],
  ["transaction abandoned", async ({ connection, tenant }) => {
    const abandoned = connect({ url: url(tenant) });
    await abandoned.run("BEGIN IMMEDIATE");
    await abandoned.run("INSERT INTO people(name) VALUES ('abandoned')");
    await connection.run("INSERT INTO people(name) VALUES ('next')");
    assert.deepEqual(await names(connection), ["committed", "next"]);
    await fails(abandoned.run("SELECT 1"), "TRANSACTION_TIMEOUT");
    assert.equal(abandoned.inTransaction, false);
    await abandoned.close();
  }],
  ["errors", async ({ connection, tenant }) => {
    const run = (sql, ...args) => connection.run(sql, ...args);
    await fails(run("INSERT INTO people(name) VALUES ('next')"), "SQLITE_CONSTRAINT", /UNIQUE/);
    await fails(run("INSERT INTO pets(owner) VALUES (99)"), "SQLITE_CONSTRAINT", /FOREIGN KEY/);
    await fails(run("SELECT * FROM absent"), "SQLITE_UNKNOWN", /no such table: absent/);
    await fails(run("SELECT absent"), "SQL_INPUT_ERROR", /no such column: absent/);
    await fails(run("SELEC 1"), "SQL_PARSE_ERROR", /syntax error/);
    await fails(run("SELECT 1; SELECT 2"), "SQL_MANY_STATEMENTS", /more than one statement/);
    await fails(run("SELECT ?, ?", [1]), "ARGS_INVALID", /parameter/);
    await fails(connection.prepare("SELECT absent"), "SQL_INPUT_ERROR", /no such column: absent/);
    await fails(connection.exec("SELECT 1; SELEC 2"), "SQL_PARSE_ERROR", /syntax error/);
    // An error of the whole request has a message here, and no code.
    await fails(connect({ url: url(`${tenant}-absent`) }).run("SELECT 1"), undefined, /absent/);
    assert.deepEqual(await names(connection), ["committed", "next"]);
  }],
  ["compat", async ({ tenant }) => {
    const client = createClient({ url: url(tenant) });
    await client.execute({ sql: "INSERT INTO people(name) VALUES (?)", args: ["compat"] });
    const transaction = await client.transaction("write");
    await transaction.execute("INSERT INTO people(name) VALUES ('taken back')");
    await transaction.rollback();
    await client.batch(["DELETE FROM people WHERE name = 'compat'"], "write");
    await fails(client.execute("INSERT INTO people(name) VALUES ('next')"), "SQLITE_CONSTRAINT");
    const { rows } = await client.execute("SELECT name FROM people ORDER BY id");
    assert.deepEqual(rows.map((row) => row.name), ["committed", "next"]);
    client.close();
  }],
  ["isolation", async ({ connection, tenant }) => {
    const rows = await connection.all("SELECT name FROM owner");
    assert.deepEqual(rows.map((row) => row.name), [tenant]);
  }],
]);

async function* select(connection) {
  yield* (await connection.prepare("SELECT id FROM kinds")).iterate();
}

// npm drizzle-orm on @libsql/client: migrations, typed columns, relations of statements to
// transactions and savepoints, as an application uses them.

import assert from "node:assert/strict";
import { count, eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/libsql/http";
import { migrate } from "drizzle-orm/libsql/migrator";
import { blob, integer, real, sqliteTable, text } from "drizzle-orm/sqlite-core";
import { fails, main, same, url, values } from "./harness.mjs";

const owner = sqliteTable("owner", { name: text().notNull() });
const kinds = sqliteTable("kinds", {
  id: integer().primaryKey({ autoIncrement: true }),
  label: text().notNull(),
  boolean: integer({ mode: "boolean" }),
  large: blob({ mode: "bigint" }),
  when: integer({ mode: "timestamp_ms" }),
  ratio: real(),
  text: text(),
  bytes: blob({ mode: "buffer" }),
  json: text({ mode: "json" }),
});
const people = sqliteTable("people", {
  id: integer().primaryKey({ autoIncrement: true }),
  name: text().notNull().unique(),
  age: integer(),
});
const pets = sqliteTable("pets", {
  id: integer().primaryKey({ autoIncrement: true }),
  owner: integer().notNull().references(() => people.id, { onDelete: "cascade" }),
});

const open = (tenant) => {
  const db = drizzle({ connection: { url: url(tenant) } });
  return { db, close: () => db.$client.close() };
};

const names = async (db) =>
  (await db.select().from(people).orderBy(people.id)).map(({ name }) => name);

// The column of `kinds` that holds this value's type.
const columnOf = { integer: "large", real: "ratio", text: "text", blob: "bytes" };
const rowsOfValues = values.map(({ label, type, value }) => ({
  label, ...(value === null ? {} : { [columnOf[type]]: value }),
}));

function check(rows) {
  assert.equal(rows.length, values.length);
  values.forEach(({ label, type, value }, i) => {
    assert.equal(rows[i].label, label);
    for (const column of Object.values(columnOf)) {
      same(rows[i][column], column === columnOf[type] ? value : null, label);
    }
  });
}

await main("drizzle", open, [
  ["schema", async ({ db, tenant }) => {
    const migrationsFolder = new URL("./migrations", import.meta.url).pathname;
    await migrate(db, { migrationsFolder });
    await migrate(db, { migrationsFolder });
    const [applied] = await db.values(sql`SELECT count(*) FROM __drizzle_migrations`);
    assert.equal(applied[0], 2);
    await db.insert(owner).values({ name: tenant });
  }],
  ["values", async ({ db }) => {
    const returned = await db.insert(kinds).values(rowsOfValues).returning();
    check(returned);
    check(await db.select().from(kinds).orderBy(kinds.id));
    const when = new Date(1760000000123);
    const json = { list: [1, null, "é"], deep: { a: true } };
    const special = { label: "special", boolean: true, when, json };
    const [row] = await db.insert(kinds).values(special).returning();
    assert.deepEqual([row.boolean, row.when, row.json], [true, when, json]);
  }],
  ["batch", async ({ db }) => {
    const [removed, inserted, [{ n }]] = await db.batch([
      db.delete(kinds),
      db.insert(kinds).values(rowsOfValues).returning(),
      db.select({ n: count() }).from(kinds),
    ]);
    assert.equal(removed.rowsAffected, values.length + 1);
    check(inserted);
    assert.equal(n, values.length);
  }],
  ["batch rolls back", async ({ db }) => {
    const insert = db.insert(people).values({ name: "first" });
    await fails(db.batch([insert, insert]), "SQLITE_CONSTRAINT", /UNIQUE constraint failed/);
    assert.deepEqual(await names(db), []);
  }],
  ["transaction commits", async ({ db }) => {
    await db.transaction(async (tx) => {
      const [{ id }] = await tx.insert(people).values({ name: "committed", age: 7 }).returning();
      await tx.insert(pets).values({ owner: id });
      assert.deepEqual(await names(db), [], "seen before its commit");
      await tx.transaction(async (nested) => {
        await nested.update(people).set({ age: 8 }).where(eq(people.id, id));
      });
      const failed = tx.transaction(async (nested) => {
        await nested.delete(pets);
        nested.rollback();
      });
      await assert.rejects(failed, /Rollback/);
    });
    const rows = await db.select().from(people).innerJoin(pets, eq(pets.owner, people.id));
    assert.deepEqual(rows.map((row) => [row.people.name, row.people.age]), [["committed", 8]]);
  }],
  ["transaction rolls back", async ({ db }) => {
    const failed = db.transaction(async (tx) => {
      await tx.delete(pets);
      await tx.insert(people).values({ name: "committed" });
    });
    await fails(failed, "SQLITE_CONSTRAINT", /UNIQUE/);
    assert.equal(await db.$count(pets), 1);
  }],
  ["transaction abandoned", async ({ db }) => {
    let abandon;
    const begun = new Promise((resolve) => {
      const never = new Promise((_, reject) => (abandon = reject));
      db.transaction(async (tx) => {
        await tx.insert(people).values({ name: "abandoned" });
        resolve();
        await never;
      }).catch(() => {});
    });
    await begun;
    await db.insert(people).values({ name: "next" });
    assert.deepEqual(await names(db), ["committed", "next"]);
    abandon(new Error("the process has moved on"));
  }],
  ["errors", async ({ db, tenant }) => {
    await fails(db.insert(people).values({ name: "next" }), "SQLITE_CONSTRAINT", /UNIQUE/);
    await fails(db.insert(pets).values({ owner: 99 }), "SQLITE_CONSTRAINT", /FOREIGN KEY/);
    await fails(db.run(sql`SELECT * FROM absent`), "SQLITE_UNKNOWN", /no such table: absent/);
    await fails(db.run(sql`SELECT absent`), "SQL_INPUT_ERROR", /no such column: absent/);
    await fails(db.run(sql`SELEC 1`), "SQL_PARSE_ERROR", /syntax error/);
    const absent = drizzle({ connection: { url: url(`${tenant}-absent`) } });
    await fails(absent.run(sql`SELECT 1`), "DATABASE_NOT_FOUND", /-absent/);
  }],
  ["isolation", async ({ db, tenant }) => {
    assert.deepEqual(await db.select().from(owner), [{ name: tenant }]);
  }],
]);

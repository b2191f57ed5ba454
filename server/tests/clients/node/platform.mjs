// npm @tursodatabase/api against the control API, and @libsql/client with the tokens that it gives.
//
// The driver `run` starts this server with `--auth on` and a root key, MYRIAD_KEY.

import assert from "node:assert/strict";
import { createClient as connect } from "@libsql/client/http";
import { createClient } from "@tursodatabase/api";

const { MYRIAD_ADMIN_URL, MYRIAD_TENANTS, MYRIAD_KEY } = process.env;
const baseUrl = `${MYRIAD_ADMIN_URL}/v1/`;
const platform = (token) => createClient({ org: "acme", token, baseUrl });
const root = platform(MYRIAD_KEY);
const names = Array.from({ length: Number(MYRIAD_TENANTS) }, (_, i) => `platform-${i}`);
/** What is known of each database: its URL and tokens. */
const known = new Map();
let api = root;
let failed = 0;

async function step(name, work) {
  try {
    await work();
    console.log(`PASS ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}: ${String(error?.message ?? error).replaceAll("\n", " ")}`);
  }
}

const each = (work) => Promise.all(names.map((name) => work(name, known.get(name))));

async function fails(promise, status) {
  const error = await promise.then(() => assert.fail(`${status} was expected`), (error) => error);
  assert.equal(error.status ?? error.cause?.status, status, error.message);
  return error;
}

/** A query that is answered 401. */
const shut = (database, token) =>
  assert.rejects(query(database, token, "SELECT 1"), { code: "UNAUTHORIZED" });

/** What nobody offers but the service itself, as the CLI asks for it. */
async function ask(method, path, body) {
  const headers = { authorization: `Bearer ${MYRIAD_KEY}` };
  const answer = await fetch(`${baseUrl}${path}`, { method, headers, body: JSON.stringify(body) });
  const json = await answer.json();
  assert.equal(answer.status, 200, JSON.stringify(json));
  return json;
}

const query = async ({ url }, authToken, sql) => {
  const client = connect({ url, authToken });
  try {
    return await client.execute(sql);
  } finally {
    client.close();
  }
};

await step("organisation", async () => {
  assert.equal((await ask("POST", "organizations", { name: "acme" })).org.slug, "acme");
  const organisations = await root.organizations.list();
  assert.deepEqual(organisations.map(({ slug }) => slug), ["acme"]);
  assert.equal((await root.organizations.update({ overages: false })).slug, "acme");
  assert.equal((await fails(root.organizations.members(), 404)).message.length > 20, true);
  await fails(platform("myr_nobody").organizations.list(), 401);
});

await step("api token", async () => {
  const { token, name } = await root.apiTokens.create("laptop");
  assert.equal(name, "laptop");
  api = platform(token);
  assert.equal((await api.apiTokens.validate(token)).valid, true);
  assert.ok((await api.apiTokens.list()).some((listed) => listed.name === "laptop"));
});

await step("group", async () => {
  const made = await api.groups.create("web", "local");
  assert.deepEqual([made.name, made.primary], ["web", "local"]);
  await fails(api.groups.create("web", "local"), 409);
  assert.deepEqual((await api.groups.list()).map(({ name }) => name), ["web"]);
  assert.equal((await api.groups.get("web")).uuid, made.uuid);
  assert.ok("local" in Object.fromEntries((await api.locations.list()).map((l) => [l.code, 1])));
});

await step("databases", async () => {
  await each(async (name) => {
    const made = await api.databases.create(name, { group: "web", size_limit: "64mb" });
    const shown = await api.databases.get(name);
    assert.deepEqual([shown.id, shown.group, shown.hostname], [made.id, "web", made.hostname]);
    known.set(name, { url: `http://${made.hostname}/` });
    await fails(api.databases.create(name, { group: "web" }), 409);
  });
  const listed = await api.databases.list({ group: "web" });
  assert.deepEqual(listed.map(({ name }) => name), [...names].sort());
  assert.deepEqual(await api.databases.list({ schema: "none" }), []);
  await api.databases.create("platform-alone");
  assert.equal((await api.databases.get("platform-alone")).group, "default");
  const seeded = await api.databases.create("seeded", { seed: { type: "database", name: names[0] } });
  assert.equal(seeded.name, "seeded");
  await api.databases.delete("seeded");
  await fails(api.databases.get("nothing"), 404);
});

await step("tokens and queries", () =>
  each(async (name, database) => {
    database.token = (await api.databases.createToken(name, { expiration: "1h" })).jwt;
    const readOnly = { expiration: "1h", authorization: "read-only" };
    database.reader = (await api.databases.createToken(name, readOnly)).jwt;
    await query(database, database.token, "CREATE TABLE pets(name TEXT)");
    await query(database, database.token, "INSERT INTO pets VALUES('Ada'), ('Bo')");
    const found = await query(database, database.reader, "SELECT count(*) AS pets FROM pets");
    assert.equal(found.rows[0].pets, 2);
    await assert.rejects(query(database, database.reader, "DELETE FROM pets"));
    await shut(database, undefined);
    const other = known.get(names[(names.indexOf(name) + 1) % names.length]);
    if (other !== database) await shut(other, database.token);
  }),
);

await step("a group's token opens each of its databases", async () => {
  const { jwt } = await api.groups.createToken("web", { expiration: "never" });
  await each((_, database) => query(database, jwt, "SELECT * FROM pets"));
  const alone = `${known.get(names[0]).url}`.replace(names[0], "platform-alone");
  await shut({ url: alone }, jwt);
});

await step("usage", async () => {
  await each(async (name) => {
    const { usage, instances } = await api.databases.usage(name, { from: new Date(0) });
    assert.ok(usage.rows_read > 0 && usage.rows_written > 0, JSON.stringify(usage));
    assert.ok(usage.storage_bytes >= 8192, JSON.stringify(usage));
    assert.deepEqual(instances[0].usage, usage);
  });
  const all = (await ask("GET", "organizations/acme/usage")).organization.usage;
  assert.equal(all.databases, names.length + 1);
  assert.ok(all.storage_bytes >= 8192 * names.length, JSON.stringify(all));
  assert.ok(all.requests >= 3 * names.length, JSON.stringify(all));
});

await step("rotate", () =>
  each(async (name, database) => {
    await api.databases.rotateTokens(name);
    await shut(database, database.token);
    database.token = (await api.databases.createToken(name)).jwt;
    assert.equal((await query(database, database.token, "SELECT * FROM pets")).rows.length, 2);
  }),
);

await step("configuration", () =>
  each(async (name, database) => {
    const path = `organizations/acme/databases/${name}/configuration`;
    await ask("PATCH", path, { delete_protection: true, block_writes: true });
    const shown = await ask("GET", path);
    assert.deepEqual([shown.delete_protection, shown.block_writes], [true, true]);
    const refused = query(database, database.token, "DELETE FROM pets");
    await assert.rejects(refused, /blocked/i);
    await fails(api.databases.delete(name), 409);
    await ask("PATCH", path, { delete_protection: false, block_writes: false });
  }),
);

await step("drop", async () => {
  await fails(api.groups.delete("web"), 409);
  await each(async (name, database) => {
    assert.equal((await api.databases.delete(name)).database, name);
    await shut(database, database.token);
  });
  await api.databases.delete("platform-alone");
  assert.equal((await api.groups.delete("web")).name, "web");
  await api.groups.delete("default");
  await root.apiTokens.revoke("laptop");
  await fails(api.organizations.list(), 401);
  await root.organizations.delete();
  assert.deepEqual(await root.organizations.list(), []);
});
process.exit(failed === 0 ? 0 : 1);

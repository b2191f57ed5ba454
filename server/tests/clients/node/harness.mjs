// What the node clients share: the tenants, the values, and running one step on all tenants at once.
//
// The driver `run` sets MYRIAD_URL, MYRIAD_ADMIN_URL, MYRIAD_TENANTS and MYRIAD_VALUES, and reads
// one line per step: `PASS step` or `FAIL step: reason`.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const { MYRIAD_URL, MYRIAD_ADMIN_URL, MYRIAD_TENANTS, MYRIAD_VALUES } = process.env;

/** Each value with a label, as `{label, type, value}`; integers are BigInt, blobs are Buffer. */
export const values = JSON.parse(readFileSync(MYRIAD_VALUES, "utf8")).map(
  ({ label, type, value, times = 1 }) => {
    const decoded = {
      null: () => null,
      integer: () => BigInt(value),
      float: () => value,
      text: () => value.repeat(times),
      blob: () => Buffer.concat(Array(times).fill(Buffer.from(value, "base64"))),
    }[type]();
    return { label, type: type === "float" ? "real" : type, value: decoded };
  },
);

/** Compare what came back with what was sent; blobs come as ArrayBuffer, Uint8Array or Buffer. */
export function same(got, expected, label) {
  if (Buffer.isBuffer(expected)) {
    assert.ok(got instanceof ArrayBuffer || got instanceof Uint8Array, `${label}: not a blob`);
    assert.ok(Buffer.from(got).equals(expected), `${label}: other bytes`);
  } else {
    assert.ok(Object.is(got, expected), `${label}: got ${show(got)}, not ${show(expected)}`);
  }
}

const show = (value) => `${typeof value} ${String(value).slice(0, 80)}`;

/** The base URL of a tenant. Ends in a slash: @libsql/client resolves `v2/pipeline` against it. */
export const url = (tenant) => `${MYRIAD_URL}/db/${tenant}/`;

async function admin(method, path, body) {
  const response = await fetch(`${MYRIAD_ADMIN_URL}/v1/namespaces/${path}`, { method, body });
  const text = await response.text();
  assert.equal(response.status, 200, `${method} ${path}: ${response.status} ${text}`);
}

/** The promise must fail with this code (and a message that matches); gives the error. */
export async function fails(promise, code, message = /./) {
  let result;
  try {
    result = await promise;
  } catch (error) {
    const cause = error.code === undefined && error.cause ? error.cause : error;
    assert.equal(cause.code, code, `code of: ${cause.message}`);
    assert.match(cause.message, message);
    return cause;
  }
  assert.fail(`no error, but ${JSON.stringify(result)} where ${code} was expected`);
}

/**
 * Run every step of a client, each on all tenants at once.
 *
 * `open(tenant)` gives the tenant's context `{tenant, …}`; a step is `[name, async (context) => …]`.
 * Tenants are created before the first step and dropped after the last.
 */
export async function main(client, open, steps) {
  const tenants = Array.from({ length: Number(MYRIAD_TENANTS) }, (_, i) => `${client}-${i}`);
  const contexts = [];
  let failed = 0;
  const step = async (name, work) => {
    const started = performance.now();
    const results = await Promise.allSettled(tenants.map((_, i) => work(i)));
    const bad = results.flatMap(({ status, reason }, i) =>
      status === "rejected" ? [`${tenants[i]}: ${reason?.message ?? reason}`] : [],
    );
    const took = `${tenants.length} tenants, ${Math.round(performance.now() - started)} ms`;
    if (bad.length === 0) {
      console.log(`PASS ${name} (${took})`);
    } else {
      failed += 1;
      const first = bad[0].replaceAll("\n", " ");
      console.log(`FAIL ${name}: ${bad.length} of ${took}; first ${first}`);
    }
  };
  await step("create", async (i) => {
    await admin("POST", `${tenants[i]}/create`, "{}");
    contexts[i] = { tenant: tenants[i], ...open(tenants[i]) };
  });
  for (const [name, work] of steps) {
    await step(name, (i) => work(contexts[i]));
  }
  await step("drop", async (i) => {
    await contexts[i].close?.();
    await admin("DELETE", tenants[i]);
  });
  process.exit(failed === 0 ? 0 : 1);
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { SESSION_ID, ulid } from "../../src/ulid.js";

test("the time of a ULID is the one of the specification's example", () => {
  assert.equal(ulid(1_469_918_176_385).slice(0, 10), "01ARYZ6S41");
});

test("ULIDs are canonical, differ, and sort by time", () => {
  const ids = [1, 1_000, Date.now(), 2 ** 48 - 1].map(ulid);
  assert.deepEqual([...ids].sort(), ids);
  for (const id of ids) assert.match(`use1-${id}`, SESSION_ID);
  assert.equal(new Set(Array.from({ length: 1_000 }, () => ulid(5))).size, 1_000);
});

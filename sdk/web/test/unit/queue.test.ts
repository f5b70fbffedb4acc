import "fake-indexeddb/auto";
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";
import { backOff, createQueue, type Queue } from "../../src/queue.js";
import { keyOf, openStore, type Store } from "../../src/store.js";
import type { Answer, Transport } from "../../src/transport.js";
import type { PlaybackEvent, PlayheadOptions, Rejection } from "../../src/types.js";
import { ulid } from "../../src/ulid.js";
import { Contract, makeToken } from "../contract.js";

const DAY_MS = 24 * 3_600_000;
const accepted: Answer = { status: 202, body: { accepted: 1, rejected: [], adjusted: [] } };
const problem = (status: number, code?: string): Answer => ({
  status,
  body: code ? { code, detail: "so" } : undefined,
});

let databases = 0;
let name: string;
let ahead: number;
let sent: { profile: string; events: PlaybackEvent[]; keepalive: boolean }[];
let farewells: PlaybackEvent[][];
let answer: (events: PlaybackEvent[], profile: string) => Answer | Promise<Answer>;
let rejections: Rejection[];
let problems: string[];
let home: string | undefined;
let open: { queue: Queue; store: Store }[];

beforeEach(() => {
  name = `test ${databases++}`;
  ahead = 0;
  [sent, farewells, rejections, problems, open] = [[], [], [], [], []];
  answer = () => accepted;
  home = "use1";
  const real = performance.now.bind(performance);
  mock.method(performance, "now", () => real() + ahead);
});
afterEach(() => {
  for (const { queue, store } of open) {
    queue.close();
    store.close();
  }
  mock.restoreAll();
});

/** A page: a queue with its own connection to the shared database. */
function page(options: Partial<PlayheadOptions> = {}): { queue: Queue; store: Store } {
  const report = (_code: string, message: string): void => void problems.push(message);
  const store = openStore(name, report);
  const transport: Transport = {
    async request(profile, _method, path, { body = "", keepalive = false } = {}) {
      assert.equal(path, "/v1/events");
      assert.ok(Buffer.byteLength(body) <= 200 * 1024);
      const { events, sent_at } = JSON.parse(body) as { events: PlaybackEvent[]; sent_at: number };
      assert.ok(Math.abs(Date.now() - sent_at) < 1_000);
      assert.ok(events.length <= 500);
      for (const event of events) assert.equal(event.profile_id, profile);
      sent.push({ profile, events, keepalive });
      return answer(events, profile);
    },
    farewell: async (profile, events) => {
      farewells.push(events);
      return answer(events, profile);
    },
    room: () => 60_000,
  };
  const facts = {
    get home() {
      return home;
    },
    mint: async () => ({ status: 0 }),
  };
  const queue = createQueue(
    name,
    { endpoint: "", token: () => "", onRejected: (rejection) => rejections.push(rejection), ...options },
    store,
    transport,
    facts,
    report,
  );
  open.push({ queue, store });
  return { queue, store };
}

const session = `use1-${ulid()}`;
function event(seq: number, more: Partial<PlaybackEvent> = {}): PlaybackEvent {
  return {
    session_id: session,
    profile_id: "alice",
    title_id: "t1",
    seq,
    kind: "progressed",
    position_ms: seq * 1_000,
    played_ms: 0,
    occurred_at: Date.now(),
    ...more,
  };
}
const push = (queue: Queue, ...events: PlaybackEvent[]): void => events.forEach((each) => queue.push(each, false));
const numbers = (): number[][] => sent.map(({ events }) => events.map(({ seq }) => seq));
const range = (length: number): PlaybackEvent[] => Array.from({ length }, (_, seq) => event(seq));

test("events are sent in order, and leave with the 202", async () => {
  const { queue, store } = page();
  push(queue, event(0), event(1), event(2));
  await queue.flush();
  assert.deepEqual(numbers(), [[0, 1, 2]]);
  assert.deepEqual(await store.events(), []);
  await queue.flush();
  assert.equal(sent.length, 1);
});

test("what is pushed while a request is on its way goes with the next", async () => {
  const { queue } = page();
  push(queue, event(0));
  answer = () => {
    answer = () => accepted;
    push(queue, event(1));
    return accepted;
  };
  await queue.flush();
  await queue.flush();
  assert.deepEqual(numbers(), [[0], [1]]);
});

test("urgent events and full batches do not wait", async () => {
  const { queue } = page({ sendAtEvents: 3, sendEveryMs: 60_000 });
  queue.push(event(0), true);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(numbers(), [[0]]);
  push(queue, event(1), event(2));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(sent.length, 1);
  push(queue, event(3));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(numbers(), [[0], [1, 2, 3]]);
});

test("the next page sends what this one could not", async () => {
  const first = page();
  answer = () => ({ status: 0 });
  push(first.queue, event(0), event(1));
  await first.queue.flush();
  first.queue.close();
  answer = () => accepted;
  const second = page();
  await second.queue.flush();
  assert.deepEqual(numbers(), [
    [0, 1],
    [0, 1],
  ]);
  assert.deepEqual(await second.store.events(), []);
});

test("what another tab has sent is not sent again, and forgotten", async () => {
  const [a, b] = [page(), page()];
  push(a.queue, event(0), event(1));
  await a.store.events();
  await b.queue.flush();
  await a.queue.flush();
  a.queue.farewell();
  assert.deepEqual(numbers(), [[0, 1]]);
  assert.deepEqual(farewells, []);
});

test("a database that was cleared loses nothing that this page has", async () => {
  const { queue, store } = page();
  push(queue, event(0));
  await store.events();
  await new Promise((resolve) => {
    indexedDB.deleteDatabase(name).onsuccess = resolve;
  });
  await queue.flush();
  assert.deepEqual(numbers(), [[0]]);
});

test("without IndexedDB events are kept in memory", async () => {
  const real = globalThis.indexedDB;
  Object.defineProperty(globalThis, "indexedDB", {
    configurable: true,
    get() {
      throw new Error("denied");
    },
  });
  try {
    const { queue } = page();
    push(queue, event(0), event(1));
    answer = () => ({ status: 0 });
    await queue.flush();
    ahead += 400_000;
    answer = () => accepted;
    await queue.flush();
    await queue.flush();
    assert.deepEqual(numbers(), [
      [0, 1],
      [0, 1],
    ]);
    assert.deepEqual(problems, ["IndexedDB is unavailable: unsent events are kept in memory only"]);
  } finally {
    Object.defineProperty(globalThis, "indexedDB", { configurable: true, value: real });
  }
});

describe("repeating", () => {
  for (const status of [0, 429, 500, 502, 503, 404, 200]) {
    test(`after ${status || "no answer"}, the same events, after a pause`, async () => {
      const { queue } = page();
      push(queue, event(0));
      answer = () => ({ status });
      await queue.flush();
      await queue.flush();
      assert.equal(sent.length, 1);
      ahead += 2_000;
      answer = () => accepted;
      push(queue, event(1));
      await queue.flush();
      assert.deepEqual(numbers(), [[0], [0, 1]]);
      assert.deepEqual(sent[1]?.events[0], sent[0]?.events[0]);
      assert.deepEqual([sent[0]?.keepalive, sent[1]?.keepalive], [true, false]);
      assert.deepEqual(rejections, []);
    });
  }

  test("waits as long as Retry-After says, even when the network comes back", async () => {
    const { queue } = page();
    push(queue, event(0));
    answer = () => ({ status: 503, retryAfterMs: 60_000 });
    await queue.flush();
    ahead += 59_000;
    queue.wake();
    await queue.flush();
    assert.equal(sent.length, 1);
    ahead += 2_000;
    await queue.flush();
    assert.equal(sent.length, 2);
  });

  test("goes on at once when the network comes back", async () => {
    const { queue } = page();
    push(queue, event(0));
    answer = () => ({ status: 0 });
    await queue.flush();
    answer = () => accepted;
    queue.wake();
    await queue.flush();
    assert.equal(sent.length, 2);
  });

  test("backs off from 1 s to 5 min, with jitter", () => {
    for (const [failures, least, most] of [
      [1, 1_000, 1_500],
      [4, 4_500, 8_500],
      [9, 128_000, 256_500],
      [50, 150_500, 300_500],
    ] as const) {
      const waits = Array.from({ length: 200 }, () => backOff(failures));
      assert.ok(Math.min(...waits) >= least && Math.max(...waits) <= most, `${failures}`);
      assert.ok(new Set(waits).size > 100);
    }
  });

  test("by itself, also what an earlier page left", async () => {
    const first = page();
    push(first.queue, event(0));
    await first.store.events();
    first.queue.close();
    answer = () => ({ status: 503, retryAfterMs: 300 });
    const second = page();
    await second.queue.flush();
    // A timer may be early.
    await second.queue.flush();
    answer = () => accepted;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    assert.deepEqual(numbers(), [[0], [0]]);
  });

  test("by itself", async () => {
    const { queue } = page();
    answer = () => ({ status: 503, retryAfterMs: 300 });
    queue.push(event(0), true);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(sent.length, 1);
    answer = () => accepted;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    assert.equal(sent.length, 2);
  });
});

describe("a refused event", () => {
  test("leaves alone, and is told; the others are accepted", async () => {
    const { queue, store } = page();
    push(queue, event(0), event(1), event(2));
    answer = () => ({
      status: 202,
      body: { accepted: 2, rejected: [{ index: 1, code: "kind_unknown", message: "what", retryable: false }] },
    });
    await queue.flush();
    assert.deepEqual(
      rejections.map(({ event, code, message }) => [event.seq, code, message]),
      [[1, "kind_unknown", "what"]],
    );
    assert.deepEqual(await store.events(), []);
  });

  test("stays when it may pass later, and does not hold up others", async () => {
    const { queue, store } = page();
    push(queue, event(0), event(1));
    answer = () => ({
      status: 202,
      body: { accepted: 1, rejected: [{ index: 0, code: "too_many_sessions", message: "", retryable: true }] },
    });
    await queue.flush();
    assert.deepEqual(
      (await store.events()).map(({ seq }) => seq),
      [0],
    );
    answer = () => accepted;
    push(queue, event(2));
    await queue.flush();
    ahead += 2_000;
    await queue.flush();
    assert.deepEqual(numbers(), [[0, 1], [2], [0]]);
    assert.deepEqual(rejections, []);
  });

  for (const status of [400, 413, 415]) {
    test(`that makes the request a ${status} is found and told; the others are accepted`, async () => {
      const { queue, store } = page();
      push(queue, ...range(700));
      answer = (events) => (events.some(({ seq }) => seq === 333) ? problem(status, "malformed_request") : accepted);
      await queue.flush();
      await queue.flush();
      assert.deepEqual(
        rejections.map(({ event, code }) => [event.seq, code]),
        [[333, "malformed_request"]],
      );
      const passed = sent
        .filter(({ events }) => !events.some(({ seq }) => seq === 333))
        .flatMap(({ events }) => events);
      assert.deepEqual(
        passed.map(({ seq }) => seq).sort((a, b) => a - b),
        range(700)
          .map(({ seq }) => seq)
          .filter((seq) => seq !== 333),
      );
      assert.ok(sent.length < 40, `${sent.length}`);
      assert.deepEqual(await store.events(), []);
    });
  }

  test("by something that is not our API is kept", async () => {
    const { queue, store } = page();
    push(queue, event(0), event(1));
    answer = () => problem(400);
    await queue.flush();
    assert.deepEqual(rejections, []);
    assert.equal((await store.events()).length, 2);
  });

  test("is not looked for without end when everything is refused", async () => {
    const { queue } = page();
    push(queue, ...range(500));
    answer = () => problem(400, "malformed_request");
    await queue.flush();
    assert.ok(sent.length <= 40);
  });

  test("does not end the queue when the page's callback throws", async () => {
    const { queue } = page({
      onRejected: () => {
        throw new Error("page");
      },
    });
    push(queue, event(0));
    answer = () => problem(400, "malformed_request");
    await queue.flush();
    answer = () => accepted;
    push(queue, event(1));
    await queue.flush();
    assert.deepEqual(numbers(), [[0], [1]]);
    assert.deepEqual(problems, ["onRejected threw"]);
  });
});

describe("a profile that the token does not cover", () => {
  for (const [what, reply] of [
    ["403", problem(403, "forbidden")],
    ["401", problem(401, "invalid_token")],
    [
      "profile_forbidden",
      { status: 202, body: { rejected: [{ index: 0, code: "profile_forbidden", retryable: false }] } },
    ],
  ] as const) {
    test(`waits after ${what}, and does not hold up other profiles`, async () => {
      const { queue, store } = page();
      const bob = { profile_id: "bob", session_id: `use1-${ulid()}` };
      push(queue, event(0, bob), event(0));
      answer = (_, profile) => (profile === "bob" ? reply : accepted);
      await queue.flush();
      await queue.flush();
      assert.deepEqual(sent.map(({ profile }) => profile).sort(), ["alice", "bob"]);
      assert.deepEqual(
        (await store.events()).map(({ profile_id }) => profile_id),
        ["bob"],
      );
      answer = () => accepted;
      queue.release("bob");
      await queue.flush();
      assert.deepEqual(await store.events(), []);
      assert.deepEqual(rejections, []);
    });
  }
});

describe("bounds", () => {
  test("a request has at most 500 events and 200 KiB", async () => {
    const { queue } = page();
    push(queue, ...range(1_100));
    await queue.flush();
    assert.deepEqual(
      sent.map(({ events }) => events.length),
      [500, 500, 100],
    );
    sent = [];
    push(queue, ...range(400).map((each) => ({ ...each, title_id: "é".repeat(500) })));
    await queue.flush();
    assert.equal(
      sent.reduce((sum, { events }) => sum + events.length, 0),
      400,
    );
    assert.ok(sent.length > 1);
  });

  test("the oldest progressed events go first, started and stopped never", async () => {
    const { queue, store } = page({ maxStoredEvents: 10 });
    answer = () => ({ status: 0 });
    push(queue, event(0, { kind: "started" }));
    for (let seq = 1; seq < 30; seq++) push(queue, event(seq, seq % 5 === 0 ? { kind: "paused" } : {}));
    push(queue, event(30, { kind: "stopped" }));
    await queue.flush();
    assert.deepEqual(
      (await store.events()).map(({ seq }) => seq),
      [0, 5, 10, 15, 20, 25, 27, 28, 29, 30],
    );
    assert.deepEqual(new Set(rejections.map(({ code }) => code)), new Set(["storage_full"]));
    assert.equal(rejections.length, 21);
  });

  test("events that waited for 29 days are given up", async () => {
    const { queue } = page();
    push(
      queue,
      event(0, { occurred_at: Date.now() - 30 * DAY_MS }),
      event(1, { occurred_at: Date.now() - 28 * DAY_MS }),
    );
    await queue.flush();
    assert.deepEqual(
      rejections.map(({ event, code }) => [event.seq, code]),
      [[0, "too_old"]],
    );
    assert.deepEqual(numbers(), [[1]]);
  });
});

describe("a home that is not known yet", () => {
  test("is completed before events are sent", async () => {
    home = undefined;
    const { queue, store } = page();
    const id = ulid();
    push(queue, event(0, { session_id: `-${id}` }));
    await queue.flush();
    assert.equal(sent.length, 0);
    home = "euw1";
    queue.wake();
    await queue.flush();
    assert.equal(sent[0]?.events[0]?.session_id, `euw1-${id}`);
    assert.deepEqual(await store.events(), []);
  });
});

describe("a page that closes", () => {
  test("sends what has no answer, the newest first when there is little room", async () => {
    const { queue, store } = page();
    push(queue, ...range(400));
    queue.farewell();
    assert.equal(farewells.length, 1);
    const [events = []] = farewells;
    assert.equal(events.at(-1)?.seq, 399);
    assert.ok(Buffer.byteLength(JSON.stringify({ events })) <= 60_000);
    await store.events();
    await queue.flush();
    assert.equal(numbers().flat().length + events.length, 400);
  });

  test("sends nothing twice when it is hidden and then closes", async () => {
    const { queue } = page();
    push(queue, event(0));
    queue.farewell();
    queue.farewell();
    push(queue, event(1));
    queue.farewell();
    assert.deepEqual(
      farewells.map((events) => events.map(({ seq }) => seq)),
      [[0], [1]],
    );
  });

  test("leaves alone a server that asked to wait", async () => {
    const { queue } = page();
    push(queue, event(0));
    answer = () => ({ status: 429, retryAfterMs: 60_000 });
    await queue.flush();
    queue.farewell();
    assert.deepEqual(farewells, []);
  });
});

test("unsent events of a title are found, those of other pages too", async () => {
  const [a, b] = [page(), page()];
  push(
    a.queue,
    event(0, { occurred_at: 5 }),
    event(1, { occurred_at: 9 }),
    event(2, { title_id: "t2", occurred_at: 5 }),
  );
  push(a.queue, event(0, { profile_id: "bob", session_id: `use1-${ulid()}`, occurred_at: 5 }));
  await a.store.events();
  for (const { queue } of [a, b])
    assert.deepEqual(
      (await queue.unsent("alice", "t1", 9)).map(({ seq }) => seq),
      [0],
    );
});

test("an event's key sorts by session and number, with or without the home", () => {
  const [early, late] = [ulid(1), ulid(2)];
  const keys = [
    event(9, { session_id: `-${early}` }),
    event(10, { session_id: `use1-${early}` }),
    event(65_535, { session_id: `use1-${early}` }),
    event(0, { session_id: `apse2-${late}` }),
  ].map(keyOf);
  assert.deepEqual([...keys].sort(), keys);
  assert.equal(keyOf(event(1, { session_id: `-${early}` })), keyOf(event(1, { session_id: `use1-${early}` })));
});

test("random faults in random pages lose nothing and double nothing", async () => {
  let seed = 11;
  const random = (below: number): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  const contract = new Contract();
  const headers = { authorization: `Bearer ${makeToken(["alice", "bob"])}`, "content-type": "application/json" };
  const reach = (events: PlaybackEvent[]): Answer =>
    contract.handle("POST", "/v1/events", headers, JSON.stringify({ sent_at: Date.now(), events }));
  answer = (events) => {
    switch (random(8)) {
      case 0:
        return { status: 0 };
      case 1:
        // It arrived, but the answer was lost.
        reach(events);
        return { status: 0 };
      case 2:
        return { status: 503, retryAfterMs: 1_000 * random(5) };
      case 3:
        return problem(401, "invalid_token");
      case 4:
        return events.length > 3 ? problem(413, "too_many_events") : reach(events);
      default:
        return reach(events);
    }
  };
  const told: PlaybackEvent[] = [];
  const pages = [page(), page(), page()];
  const lives = Array.from({ length: 6 }, () => ({ session_id: `use1-${ulid()}`, seq: 0 }));
  for (let step = 0; step < 400; step++) {
    const at = random(pages.length);
    const { queue, store } = pages[at]!;
    switch (random(6)) {
      case 0:
        await queue.flush();
        break;
      case 1:
        queue.farewell();
        break;
      case 2:
        // The page is gone, with all that only it knew, once what it recorded is on disk.
        await store.events();
        queue.close();
        pages[at] = page();
        break;
      case 3:
        ahead += 1_000 * random(30);
        break;
      default: {
        const life = lives[random(lives.length)]!;
        const profile_id = lives.indexOf(life) % 2 ? "alice" : "bob";
        const next = event(life.seq++, { session_id: life.session_id, profile_id });
        told.push(next);
        queue.push(next, random(2) === 0);
      }
    }
  }
  answer = reach;
  ahead += 400_000;
  await pages[0]!.store.events();
  for (const { queue } of pages) await queue.flush();
  const arrived = [...contract.sessions.values()].flatMap((session) => [...session.values()]);
  const order = (events: { session_id: string; seq: number }[]): string[] =>
    events.map(({ session_id, seq }) => `${session_id} ${seq}`).sort();
  assert.ok(told.length > 100);
  assert.deepEqual(order(arrived), order(told));
  assert.deepEqual(await pages[0]!.store.events(), []);
  assert.deepEqual(rejections, []);
  assert.deepEqual(problems, []);
});

test("facts are remembered", async () => {
  const { store } = page();
  assert.equal(await store.fact("home"), undefined);
  await store.remember("home", "use1");
  assert.equal(await page().store.fact("home"), "use1");
});

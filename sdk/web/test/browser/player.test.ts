/**
 * A real media element in a real browser: the history is exactly what was played, 0 lost, 0 double.
 */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { Page } from "playwright-core";
import type { Playhead, Session } from "../../src/index.js";
import { begin, end, logsDown, world, type World } from "./harness.js";

declare global {
  interface Window {
    playhead: Playhead;
    session: Session;
    video: HTMLVideoElement;
    problems: string[];
    rejections: { code: string }[];
    playedMs(): number;
    liveStream(): MediaStream;
    recording(ms: number): Promise<string>;
  }
}

let here: World;
before(begin);
after(end);
beforeEach(async () => {
  here = await world();
});
afterEach(async () => {
  await here.context.close();
  await here.gate.close();
});

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function attach(page: Page, { title = "t1", tone = 60, resume = false, live = false } = {}): Promise<void> {
  await page.evaluate(
    async ({ profile, title, tone, resume, live }) => {
      if (tone) window.video.src = `/tone-${tone}.wav`;
      window.session = await window.playhead.attach(window.video, { profile, title, resume, live });
    },
    { profile: here.profile, title, tone, resume, live },
  );
}
const play = (page: Page): Promise<void> => page.evaluate(() => window.video.play());
const pause = (page: Page): Promise<void> =>
  page.evaluate(async () => {
    window.video.pause();
    await new Promise((resolve) => setTimeout(resolve, 50));
  });
const seek = (page: Page, to: number): Promise<void> =>
  page.evaluate(async (to) => {
    const sought = new Promise((resolve) => window.video.addEventListener("seeked", resolve, { once: true }));
    window.video.currentTime = to;
    await sought;
  }, to);
const detach = (page: Page): Promise<void> => page.evaluate(() => window.session.detach());
/** What the element says: where it is, and how much it has played. */
const truth = (page: Page): Promise<{ positionMs: number; playedMs: number }> =>
  page.evaluate(() => ({ positionMs: window.video.currentTime * 1_000, playedMs: window.playedMs() }));
/** Plays a title from second 20 on in a page that closes then. Returns where it was. */
async function watched(ms: number, title = "t1"): Promise<{ positionMs: number; playedMs: number }> {
  const page = await here.open();
  await attach(page, { title });
  await seek(page, 20);
  await play(page);
  await wait(ms);
  await pause(page);
  const expected = await truth(page);
  await detach(page);
  await here.check({ title, ...expected });
  await page.close();
  return expected;
}
const until = async (what: string, holds: () => boolean | Promise<boolean>, ms = 15_000): Promise<void> => {
  for (const deadline = Date.now() + ms; !(await holds()); await wait(50)) {
    assert.ok(Date.now() < deadline, `in vain waited for: ${what}`);
  }
};
const accepted = (): number => here.gate.seen.filter(({ status }) => status === 202).length;
const kinds = (): string =>
  here
    .sent()
    .map(({ kind }) => kind)
    .join(" ");
/** Unsent events in the browser's database. */
const kept = (page: Page): Promise<number> =>
  page.evaluate(async () => {
    const [{ name = "" } = {}] = (await indexedDB.databases()).filter(({ name }) => name?.startsWith("playhead"));
    const database = await new Promise<IDBDatabase>((resolve, reject) => {
      const request = indexedDB.open(name);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    const count = await new Promise<number>((resolve) => {
      const request = database.transaction("events").objectStore("events").count();
      request.onsuccess = () => resolve(request.result);
    });
    database.close();
    return count;
  });
/** Every event came to the server once: nothing was repeated. */
const noRepeats = (): void => {
  assert.equal(here.gate.seen.flatMap(({ events }) => events).length, here.sent().length);
};

test("play, pause, seek, play on, stop", async () => {
  const page = await here.open();
  await attach(page);
  await play(page);
  await wait(3_000);
  await pause(page);
  await wait(500);
  await play(page);
  await wait(1_000);
  await seek(page, 30);
  await wait(2_000);
  await seek(page, 10);
  await wait(1_000);
  await pause(page);
  const expected = await truth(page);
  await detach(page);
  const session = await here.check({ ...expected, breaks: 3, durationMs: 60_000 });
  assert.equal(session.session_id, here.sent()[0]?.session_id);
  assert.match(
    kinds(),
    /^started (progressed )*paused resumed (progressed )*seeked (progressed )*seeked (progressed )?paused stopped$/,
  );
  noRepeats();
  assert.deepEqual(await page.evaluate(() => window.problems), []);
});

test("a title that is played to its end is finished", async () => {
  const page = await here.open();
  await attach(page, { tone: 20 });
  await seek(page, 17);
  await play(page);
  await page.waitForFunction(() => window.video.ended);
  await until("stopped", () => kinds().endsWith("stopped"));
  const session = await here.check({ positionMs: 20_000, playedMs: 3_000 });
  assert.equal(session.completed, true);
  assert.match(kinds(), /^started (progressed )*stopped$/);
});

test("speed 2: played time is title time", async () => {
  const page = await here.open();
  await attach(page);
  await page.evaluate(() => (window.video.playbackRate = 2));
  await play(page);
  await wait(3_000);
  await page.evaluate(() => (window.video.playbackRate = 0.5));
  await wait(2_000);
  await pause(page);
  const expected = await truth(page);
  assert.ok(expected.playedMs > 5_500, `${expected.playedMs}`);
  await detach(page);
  await here.check({ ...expected, speed: 2 });
});

test("a loop counts each part once", async () => {
  const page = await here.open();
  await attach(page, { tone: 20 });
  await page.evaluate(() => (window.video.loop = true));
  await seek(page, 18.5);
  await play(page);
  await wait(3_000);
  await pause(page);
  const expected = await truth(page);
  assert.ok(expected.positionMs < 5_000);
  await detach(page);
  await here.check({ ...expected, breaks: 2 });
});

test("a stall is neither a break nor played", async () => {
  const page = await here.open();
  // Media arrives for 3 s, then the network is slow.
  await attach(page, { tone: 0 });
  const expected = await page.evaluate(async () => {
    const source = new MediaSource();
    window.video.src = URL.createObjectURL(source);
    await new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
    const chunks = await fetch(await window.recording(5_000)).then((answer) => answer.arrayBuffer());
    const buffer = source.addSourceBuffer('video/webm; codecs="vp8"');
    const append = async (part: ArrayBuffer): Promise<void> => {
      const done = new Promise((resolve) => buffer.addEventListener("updateend", resolve, { once: true }));
      buffer.appendBuffer(part);
      await done;
    };
    await append(chunks.slice(0, chunks.byteLength / 2));
    const waiting = new Promise((resolve) => window.video.addEventListener("waiting", resolve, { once: true }));
    await window.video.play();
    await waiting;
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await append(chunks.slice(chunks.byteLength / 2));
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    window.video.pause();
    await new Promise((resolve) => setTimeout(resolve, 100));
    return { positionMs: window.video.currentTime * 1_000, playedMs: window.playedMs() };
  });
  await detach(page);
  await here.check({ ...expected });
  assert.match(kinds(), /^started (progressed )*paused stopped$/);
});

test("a live stream has no duration and is never resumed", async () => {
  const page = await here.open();
  await page.evaluate(() => (window.video.srcObject = window.liveStream()));
  await attach(page, { tone: 0, resume: true });
  await play(page);
  await wait(3_000);
  await pause(page);
  const expected = await truth(page);
  await detach(page);
  const session = await here.check({ ...expected, durationMs: null });
  assert.equal(session.completed, false);
  for (const event of here.sent()) assert.ok(!("title_duration_ms" in event));
});

test("a recorded video plays like any other", async () => {
  const page = await here.open();
  await page.evaluate(async () => (window.video.src = await window.recording(3_000)));
  await attach(page, { tone: 0 });
  await play(page);
  await page.waitForFunction(() => window.video.ended, undefined, { timeout: 10_000 });
  const expected = await truth(page);
  await detach(page);
  await here.check({ ...expected });
});

describe("autoplay to another title", () => {
  for (const order of ["before", "after"]) {
    test(`told ${order} the new source is set: one session, two titles`, async () => {
      const page = await here.open();
      await attach(page, { title: "e1" });
      await play(page);
      await wait(2_000);
      const first = await truth(page);
      await page.evaluate(async (order) => {
        if (order === "before") void window.session.title("e2");
        window.video.src = "/tone-20.wav";
        if (order === "after") void window.session.title("e2");
        await window.video.play();
      }, order);
      await wait(2_500);
      await pause(page);
      const second = await truth(page);
      await detach(page);
      const one = await here.check({ title: "e1", ...first, durationMs: 60_000 });
      const two = await here.check({ title: "e2", ...second, durationMs: 20_000 });
      assert.equal(one.session_id, two.session_id);
      assert.match(kinds(), /^started (progressed )*stopped started (progressed )*paused stopped$/);
    });
  }
});

describe("closing", () => {
  test("the tab sends the rest", async () => {
    const page = await here.open({ "send-every": "60000" });
    await attach(page);
    await play(page);
    await wait(2_500);
    const expected = await truth(page);
    await page.close({ runBeforeUnload: true });
    await until("stopped", () => kinds().endsWith("stopped"));
    await until("the answer", () => here.gate.seen.at(-1)?.status === 202);
    await here.check({ ...expected, breaks: 2 });
  });

  test("the page without fetch(keepalive) sends a beacon with the token", async () => {
    const page = await here.open({ "send-every": "60000", "no-keepalive": "" });
    await attach(page);
    await play(page);
    await wait(2_500);
    const expected = await truth(page);
    await page.goto(new URL("/elsewhere", page.url()).href);
    await until("the answer", () => here.gate.seen.at(-1)?.status === 202);
    assert.deepEqual([...new Set(here.gate.seen.map(({ beacon }) => beacon))], [true]);
    await here.check({ ...expected, breaks: 2 });
  });

  test("hiding the page sends what was played so far", async () => {
    const page = await here.open({ "send-every": "60000" });
    await attach(page);
    await play(page);
    await wait(1_500);
    await page.evaluate(() => {
      Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await until("the answer", () => accepted() === 1);
    assert.equal(kinds(), "started progressed");
    await wait(1_000);
    await pause(page);
    const expected = await truth(page);
    await detach(page);
    await here.check({ ...expected });
    noRepeats();
  });

  test("a browser that crashes loses at most what was not recorded yet", async () => {
    const page = await here.open({ "send-every": "60000" });
    await attach(page);
    await play(page);
    await wait(5_000);
    const expected = await truth(page);
    const crashed = page.waitForEvent("crash");
    void page.goto("chrome://crash").catch(() => undefined);
    await crashed;
    const next = await here.open();
    await until("nothing is left", async () => here.sent().length > 0 && (await kept(next)) === 0);
    // The page records every 2 s.
    const [session] = await here.history((sessions) => sessions.length > 0);
    assert.ok(session && session.missing === 0);
    assert.ok(session.played_ms > expected.playedMs - 2_600 && session.played_ms <= expected.playedMs + 300);
  });

  test("navigating away and back through the browser's cache goes on in the same session", async () => {
    const page = await here.open({ "send-every": "60000" });
    await attach(page);
    await play(page);
    await wait(1_500);
    await page.goto(new URL("/elsewhere", page.url()).href);
    await until("the answer", () => here.gate.seen.at(-1)?.status === 202);
    assert.match(kinds(), /stopped$/);
    // Not `goBack`, which waits for a load that does not come.
    await page.evaluate(() => history.back());
    await wait(1_000);
    assert.equal(await page.evaluate(() => "session" in window), true, "the page did not come from the cache");
    await play(page);
    await wait(1_500);
    await pause(page);
    const expected = await truth(page);
    await detach(page);
    await here.check({ ...expected });
    assert.match(kinds(), /^started (progressed )*stopped resumed (progressed )*paused stopped$/);
  });
});

describe("the server", () => {
  test("is down (503) and comes back: the same events again, after Retry-After", async () => {
    const page = await here.open();
    await attach(page);
    const logsUp = await logsDown(here.gate);
    await play(page);
    await until("a refusal", () => here.gate.seen.some(({ status }) => status === 503), 30_000);
    await wait(3_500);
    await logsUp();
    await wait(1_000);
    await pause(page);
    const expected = await truth(page);
    await until("an answer", () => accepted() > 0, 60_000);
    await detach(page);
    await until("stopped", async () => (await kept(page)) === 0);
    await here.check(expected);
    const refused = here.gate.seen.filter(({ status }) => status === 503);
    assert.ok(refused.length >= 1);
    for (const [index, { at }] of refused.entries()) {
      const next = here.gate.seen[index + 1];
      assert.ok(next && next.at - at >= 1_990, `repeated after ${next && next.at - at} ms`);
    }
    const [first, again] = here.gate.seen;
    assert.deepEqual(again?.events.slice(0, first?.events.length), first?.events);
  });

  test("limits (429), breaks connections, loses answers and hangs: 0 lost, 0 double", async () => {
    const page = await here.open();
    await attach(page);
    const faults = ["break", "lose answer", { status: 429, headers: { "retry-after": "1" } }, "hang"] as const;
    let count = 0;
    here.gate.fault = (_, path) => (path === "/v1/events" ? (faults[count++] ?? "pass") : "pass");
    await play(page);
    await until("the faults are over", () => count > faults.length, 30_000);
    await pause(page);
    const expected = await truth(page);
    await detach(page);
    await until("nothing is left", async () => (await kept(page)) === 0);
    await here.check(expected);
  });

  test("cannot be reached while the page reloads: the next page sends the rest", async () => {
    const page = await here.open();
    await attach(page);
    await play(page);
    await until("the first events are accepted", () => accepted() > 0);
    here.gate.fault = () => "break";
    await wait(2_000);
    const expected = await truth(page);
    await page.reload();
    await page.waitForFunction("window.ready");
    assert.ok((await kept(page)) > 0);
    here.gate.fault = () => "pass";
    await until("nothing is left", async () => (await kept(page)) === 0);
    await here.check({ ...expected, breaks: 2 });
    assert.match(kinds(), /stopped$/);
  });

  test("refuses an expired token: a new one is asked for, once", async () => {
    const page = await here.open();
    await attach(page);
    await play(page);
    await until("the first events are accepted", () => accepted() > 0);
    const old = here.gate.seen.at(-1)?.token;
    here.gate.fault = (_, __, seen) =>
      seen?.token === old ? { status: 401, body: { code: "invalid_token" } } : "pass";
    await wait(2_000);
    await pause(page);
    const expected = await truth(page);
    await detach(page);
    await here.check(expected);
    assert.deepEqual(here.tokens, [false, true]);
  });
});

describe("offline", () => {
  test("for a while, then back", async () => {
    const page = await here.open();
    await attach(page);
    await play(page);
    await until("the first events are accepted", () => accepted() > 0);
    await here.context.setOffline(true);
    await wait(3_000);
    await pause(page);
    assert.ok((await kept(page)) > 0);
    const before = Date.now();
    await here.context.setOffline(false);
    await until("nothing is left", async () => (await kept(page)) === 0);
    assert.ok(Date.now() - before < 3_000, "it did not notice that the network is back");
    const expected = await truth(page);
    await detach(page);
    await here.check(expected);
  });

  test("from the first moment, with a home that an earlier page learned", async () => {
    const earlier = await here.open();
    await attach(earlier, { title: "t0" });
    await detach(earlier);
    await earlier.close();
    here.gate.fault = () => "break";
    const page = await here.open();
    await attach(page);
    await play(page);
    await wait(2_000);
    await pause(page);
    const expected = await truth(page);
    await detach(page);
    assert.equal(here.sent().filter(({ title_id }) => title_id === "t1").length > 0, true);
    here.gate.fault = () => "pass";
    await page.evaluate(() => window.dispatchEvent(new Event("online")));
    await until("nothing is left", async () => (await kept(page)) === 0);
    await here.check(expected);
  });

  test("from the first moment, when nobody knows a home yet", async () => {
    here.gate.fault = () => "break";
    const page = await here.open();
    await attach(page);
    await play(page);
    await wait(2_000);
    await pause(page);
    const expected = await truth(page);
    await detach(page);
    assert.equal(here.gate.seen.length, 0);
    await page.reload();
    await page.waitForFunction("window.ready");
    here.gate.fault = () => "pass";
    await page.evaluate(() => window.dispatchEvent(new Event("online")));
    await until("nothing is left", async () => (await kept(page)) === 0);
    await here.check(expected);
  });
});

describe("several players", () => {
  test("two tabs share the store and send nothing twice", async () => {
    const [one, two] = [await here.open(), await here.open()];
    await attach(one, { title: "e1" });
    await attach(two, { title: "e2" });
    await play(one);
    await play(two);
    here.gate.fault = (_, path) => (path === "/v1/events" ? { status: 503, headers: { "retry-after": "1" } } : "pass");
    await wait(2_500);
    here.gate.fault = () => "pass";
    await wait(2_000);
    await pause(one);
    await pause(two);
    const expected = [await truth(one), await truth(two)] as const;
    await Promise.all([detach(one), detach(two)]);
    await until("nothing is left", async () => (await kept(one)) === 0);
    await here.check({ title: "e1", ...expected[0] });
    await here.check({ title: "e2", ...expected[1] });
    const took = here.gate.seen.filter(({ status }) => status === 202).flatMap(({ events }) => events);
    assert.equal(took.length, here.sent().length, "an event was accepted twice");
  });

  test("two elements on a page are two sessions", async () => {
    const page = await here.open();
    await attach(page, { title: "e1" });
    const playedMs = await page.evaluate(async (profile) => {
      const audio = new Audio("/tone-20.wav");
      const session = await window.playhead.attach(audio, { profile, title: "e2", resume: false });
      await Promise.all([window.video.play(), audio.play()]);
      await new Promise((resolve) => setTimeout(resolve, 2_000));
      audio.pause();
      await new Promise((resolve) => setTimeout(resolve, 100));
      await session.detach();
      return audio.played.end(0) * 1_000;
    }, here.profile);
    await pause(page);
    const expected = await truth(page);
    await page.evaluate(() => window.playhead.close());
    const one = await here.check({ title: "e1", ...expected });
    const two = await here.check({ title: "e2", positionMs: playedMs, playedMs });
    assert.notEqual(one.session_id, two.session_id);
    noRepeats();
  });

  test("an element that is attached again begins a new session", async () => {
    const page = await here.open();
    await attach(page, { title: "e1" });
    await play(page);
    await wait(1_500);
    const first = await truth(page);
    await attach(page, { title: "e2", tone: 20 });
    await play(page);
    await wait(1_500);
    await pause(page);
    const second = await truth(page);
    await detach(page);
    const one = await here.check({ title: "e1", ...first });
    const two = await here.check({ title: "e2", ...second });
    assert.notEqual(one.session_id, two.session_id);
  });
});

test("without IndexedDB it still works, and survives a server that is down", async () => {
  const page = await here.open({ "no-indexeddb": "" });
  await attach(page);
  here.gate.fault = (_, path) => (path === "/v1/events" ? { status: 503, headers: { "retry-after": "1" } } : "pass");
  await play(page);
  await wait(2_500);
  here.gate.fault = () => "pass";
  await until("an answer", () => accepted() > 0);
  await pause(page);
  const expected = await truth(page);
  await until("paused", () => kinds().endsWith("paused"));
  await detach(page);
  await here.check(expected);
  const problems = await page.evaluate(() => window.problems);
  assert.ok(problems.some((problem) => problem.startsWith("storage: ")));
});

describe("resuming", () => {
  test("finds a title whose id has characters of a URI", async () => {
    const title = "crid://a.example/b:c+d=";
    const expected = await watched(3_000, title);

    const second = await here.open();
    await attach(second, { title, resume: true });
    const resumed = await truth(second);
    assert.ok(Math.abs(resumed.positionMs - expected.positionMs) < 300, `resumed at ${resumed.positionMs}`);
  });

  test("goes on where the member stopped, also by what is not sent yet", async () => {
    const expected = await watched(4_000);

    const second = await here.open();
    await attach(second, { resume: true });
    const resumed = await truth(second);
    assert.ok(Math.abs(resumed.positionMs - expected.positionMs) < 300, `resumed at ${resumed.positionMs}`);

    here.gate.fault = () => "break";
    await seek(second, 40);
    await play(second);
    await wait(3_000);
    const later = await truth(second);
    await second.reload();
    await second.waitForFunction("window.ready");
    await attach(second, { resume: true });
    const offline = await truth(second);
    assert.ok(Math.abs(offline.positionMs - later.positionMs) < 600, `resumed at ${offline.positionMs}`);
  });

  test("leaves alone what the page has set", async () => {
    await watched(3_000);

    const second = await here.open();
    await second.evaluate((profile) => {
      window.video.src = "/tone-60.wav";
      window.video.currentTime = 5;
      void window.playhead.attach(window.video, { profile, title: "t1" });
    }, here.profile);
    await wait(1_500);
    assert.equal((await truth(second)).positionMs, 5_000);
  });
});

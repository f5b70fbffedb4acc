import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { type Deps, watch, type WatchedSession } from "../../src/session.js";
import type { Answer } from "../../src/transport.js";
import type { AttachOptions, PlaybackEvent, PlayheadOptions } from "../../src/types.js";
import { unionLength } from "../contract.js";
import { FakeClock, FakeMedia } from "./fake-media.js";

let clock: FakeClock;
let media: FakeMedia;
let pushed: PlaybackEvent[];
let urgent: boolean[];
let unsent: PlaybackEvent[];
let answers: Record<string, Answer>;
let asked: string[];
let problems: string[];
let home: string | undefined;

beforeEach(() => {
  clock = new FakeClock();
  media = new FakeMedia(clock);
  [pushed, urgent, unsent, asked, problems] = [[], [], [], [], []];
  answers = {};
  home = "use1";
});
afterEach(() => clock.stop());

function attach(
  options: Partial<AttachOptions> = {},
  player: Partial<PlayheadOptions> = { home: "use1" },
): WatchedSession {
  const deps: Deps = {
    options: { endpoint: "", token: () => "", ...player },
    facts: {
      get home() {
        return home;
      },
      device: { id: "d1", kind: "web" },
      ready: Promise.resolve(),
      mint: async () => answers["mint"] ?? { status: 0 },
    },
    queue: {
      push: (event, now) => {
        pushed.push(event);
        urgent.push(now);
      },
      flush: async () => undefined,
      farewell: () => undefined,
      wake: () => undefined,
      release: () => undefined,
      unsent: async () => unsent,
      close: () => undefined,
    },
    transport: {
      request: async (_profile, _method, path) => {
        asked.push(path);
        return answers[path] ?? { status: 0 };
      },
      farewell: async () => undefined,
      room: () => 0,
    },
    report: (_code, message) => problems.push(message),
  };
  return watch(media.asElement, { profile: "alice", title: "t1", resume: false, ...options }, deps);
}

/** `kind position played`, in seconds, of every event; and that their numbers have no gap. */
function told(): string[] {
  const sessions = new Set(pushed.map((event) => event.session_id));
  for (const session of sessions) {
    const numbers = pushed.filter((event) => event.session_id === session).map((event) => event.seq);
    assert.deepEqual(numbers, [...numbers.keys()]);
  }
  return pushed.map(({ kind, position_ms, played_ms }) => `${kind} ${position_ms / 1_000} ${played_ms / 1_000}`);
}

const played = (): number =>
  unionLength(pushed.map(({ position_ms, played_ms }) => [position_ms - played_ms, position_ms])) / 1_000;

test("playing, pausing and ending are told with what was played", async () => {
  const session = attach();
  await session.ready;
  media.play();
  media.run(40_000);
  media.pause();
  media.run(5_000);
  media.play();
  media.run(60_000);
  assert.deepEqual(told(), [
    "started 0 0",
    "progressed 30 30",
    "paused 40 10",
    "resumed 40 0",
    "progressed 70 30",
    "stopped 100 30",
  ]);
  assert.equal(played(), 100);
  const [first] = pushed;
  assert.match(first?.session_id ?? "", /^use1-[0-9A-Z]{26}$/);
  assert.deepEqual(
    { ...first, session_id: "", occurred_at: 0 },
    {
      session_id: "",
      profile_id: "alice",
      title_id: "t1",
      seq: 0,
      kind: "started",
      position_ms: 0,
      played_ms: 0,
      title_duration_ms: 100_000,
      occurred_at: 0,
      device: { id: "d1", kind: "web" },
    },
  );
  assert.deepEqual(
    pushed.map(({ kind }, index) => [kind, urgent[index]]).filter(([kind]) => kind !== "progressed"),
    [
      ["started", false],
      ["paused", true],
      ["resumed", false],
      ["stopped", true],
    ],
  );
});

test("a seek tells first what was played before it", async () => {
  await attach().ready;
  media.play();
  media.run(20_000);
  media.currentTime = 60;
  media.run(10_000);
  media.pause();
  assert.deepEqual(told(), ["started 0 0", "progressed 20 20", "seeked 60 0", "paused 70 10"]);
  assert.equal(played(), 30);
});

test("a seek happened when it happened, not when it was told", async () => {
  await attach().ready;
  media.play();
  media.run(1_000);
  media.currentTime = 60;
  const at = Date.now();
  media.run(3_000);
  assert.equal(pushed.find(({ kind }) => kind === "seeked")?.occurred_at, at);
});

test("dragging the handle is one seek, to where it ended", async () => {
  await attach().ready;
  media.play();
  media.run(10_000);
  media.pause();
  for (let to = 20; to <= 50; to++) {
    media.beginSeek(to);
    clock.tick(50);
    if (to % 2) media.endSeek();
  }
  media.endSeek();
  clock.tick(600);
  media.play();
  media.run(5_000);
  media.pause();
  assert.deepEqual(told(), ["started 0 0", "paused 10 10", "seeked 50 0", "resumed 50 0", "paused 55 5"]);
});

test("pausing and seeking in one turn does not credit the gap", async () => {
  await attach().ready;
  media.play();
  media.run(10_000);
  // `pause(); currentTime = 90`: when `pause` fires the position has changed already.
  media.paused = true;
  media.beginSeek(90);
  media.fire("pause");
  media.endSeek();
  clock.tick(600);
  assert.equal(played(), 10);
  assert.equal(pushed.at(-1)?.position_ms, 90_000);
});

test("played time is title time at any speed", async () => {
  await attach().ready;
  media.play();
  media.run(10_000);
  media.playbackRate = 2;
  media.run(10_000);
  media.playbackRate = 0.5;
  media.run(20_000);
  media.pause();
  assert.equal(pushed.at(-1)?.position_ms, 40_000);
  assert.equal(played(), 40);
});

test("a stall is no break and no played time", async () => {
  await attach().ready;
  media.play();
  media.run(5_000);
  media.stalled = true;
  media.fire("waiting");
  media.run(60_000);
  media.stalled = false;
  media.fire("playing");
  media.run(5_000);
  media.pause();
  assert.equal(pushed.at(-1)?.position_ms, 10_000);
  assert.equal(played(), 10);
  assert.equal(pushed.filter(({ kind }) => kind === "started" || kind === "resumed").length, 1);
});

test("a loop counts each part once and never jumps back silently", async () => {
  media.duration = 10;
  media.loop = true;
  await attach().ready;
  media.play();
  media.run(25_000);
  media.pause();
  assert.equal(pushed.at(-1)?.position_ms, 5_000);
  // The last `timeupdate` before the end is up to 250 ms early.
  assert.ok(played() >= 9.75 && played() <= 10, `${played()}`);
});

test("a position that moves without a seek is a break", async () => {
  await attach({ live: true }).ready;
  media.play();
  media.run(10_000);
  media.jump(60);
  media.run(5_000);
  media.pause();
  assert.deepEqual(told(), ["started 0 0", "progressed 10 10", "paused 65 5"]);
});

test("a hidden page's rare timeupdates are no breaks", async () => {
  await attach().ready;
  media.play();
  for (let minute = 0; minute < 5; minute++) {
    clock.tick(15_000);
    media.jump(media.currentTime + 15);
  }
  media.pause();
  assert.equal(played(), 75);
});

test("live streams state no duration", async () => {
  for (const [duration, live] of [
    [Infinity, false],
    [NaN, false],
    [100, true],
  ] as const) {
    pushed = [];
    media = new FakeMedia(clock);
    media.duration = duration;
    await attach({ live }).ready;
    media.play();
    media.run(1_000);
    media.pause();
    assert.equal(pushed.length, 2);
    for (const event of pushed) assert.ok(!("title_duration_ms" in event), `${duration}`);
  }
});

test("credits, country and device are told", async () => {
  await attach({ creditsMs: 90_000.4 }, { home: "use1", country: "NZ" }).ready;
  media.play();
  assert.deepEqual([pushed[0]?.credits_ms, pushed[0]?.country], [90_000, "NZ"]);
});

test("an element that plays already is started where it is", async () => {
  media.currentTime = 12;
  media.play();
  await attach().ready;
  media.run(3_000);
  media.pause();
  assert.deepEqual(told(), ["started 12 0", "paused 15 3"]);
});

describe("another title", () => {
  for (const order of ["before", "after"]) {
    test(`goes on in the same session when told ${order} the new source is set`, async () => {
      const session = attach();
      await session.ready;
      media.play();
      media.run(20_000);
      if (order === "after") media.load(50);
      void session.title("t2", { creditsMs: 45_000 });
      if (order === "before") media.load(50);
      media.play();
      media.run(10_000);
      media.pause();
      assert.deepEqual(told(), ["started 0 0", "stopped 20 20", "started 0 0", "paused 10 10"]);
      assert.deepEqual(
        pushed.map((event) => event.title_id),
        ["t1", "t1", "t2", "t2"],
      );
      assert.deepEqual(
        pushed.map((event) => event.title_duration_ms),
        [100_000, 100_000, 50_000, 50_000],
      );
      assert.deepEqual(
        pushed.map((event) => event.credits_ms),
        [undefined, undefined, 45_000, 45_000],
      );
      assert.equal(new Set(pushed.map((event) => event.session_id)).size, 1);
    });
  }

  test("after the end of the first does not stop twice", async () => {
    const session = attach();
    await session.ready;
    media.play();
    media.run(101_000);
    void session.title("t2");
    media.load(50);
    media.play();
    await session.detach();
    assert.deepEqual(
      pushed.map(({ kind, title_id }) => `${kind} ${title_id}`),
      [
        "started t1",
        ...pushed.filter(({ kind }) => kind === "progressed").map(() => "progressed t1"),
        "stopped t1",
        "started t2",
        "stopped t2",
      ],
    );
  });
});

test("a new source for the same title goes on as the same title", async () => {
  await attach().ready;
  media.play();
  media.run(20_000);
  media.load(100);
  media.currentTime = 20;
  media.play();
  media.run(5_000);
  media.pause();
  assert.deepEqual(told(), ["started 0 0", "stopped 20 20", "resumed 20 0", "paused 25 5"]);
});

test("playing again after the end starts again", async () => {
  media.duration = 5;
  await attach().ready;
  media.play();
  media.run(6_000);
  media.play();
  media.run(2_000);
  media.pause();
  assert.deepEqual(told(), ["started 0 0", "stopped 5 5", "started 0 0", "paused 2 2"]);
});

test("leaving stops, and coming back from the cache resumes", async () => {
  const session = attach();
  await session.ready;
  media.play();
  media.run(4_000);
  session.hidden();
  session.leave();
  media.run(2_000);
  media.pause();
  assert.deepEqual(told(), ["started 0 0", "progressed 4 4", "stopped 4 0", "resumed 4.25 0.25", "paused 6 1.75"]);
});

test("detaching lets go of the element", async () => {
  const session = attach();
  await session.ready;
  media.play();
  media.run(4_000);
  await session.detach();
  media.run(4_000);
  media.currentTime = 50;
  media.pause();
  media.play();
  clock.tick(5_000);
  await session.detach();
  assert.deepEqual(told(), ["started 0 0", "stopped 4 4"]);
});

describe("the session's id", () => {
  test("is the server's while it can be reached; earlier events get it too", async () => {
    const id = "usw2-01M84F9TGWJX19M5N7J6YZCFEA";
    answers["mint"] = { status: 201, body: { session_id: id } };
    const session = attach({}, {});
    media.play();
    assert.equal(pushed.length, 0);
    await session.ready;
    media.run(1_000);
    media.pause();
    assert.equal(session.id, id);
    assert.deepEqual(told(), ["started 0 0", "paused 1 1"]);
    assert.equal(pushed[0]?.session_id, id);
  });

  test("is minted with the remembered home when the server cannot be reached", async () => {
    home = "apse2";
    const session = attach({}, {});
    await session.ready;
    assert.match(session.id, /^apse2-/);
  });

  test("waits for a home that nobody knows", async () => {
    home = undefined;
    const session = attach({}, {});
    media.play();
    await session.ready;
    assert.match(pushed[0]?.session_id ?? "", /^-[0-9A-Z]{26}$/);
    home = "euw1";
    assert.match(session.id, /^euw1-[0-9A-Z]{26}$/);
  });

  test("is minted at once when the page goes before the server answered", () => {
    const session = attach({}, {});
    media.play();
    media.run(2_000);
    session.leave();
    assert.deepEqual(told(), ["started 0 0", "stopped 2 2"]);
  });

  test("changes after 65,536 events", async () => {
    await attach().ready;
    for (let count = 0; count < 33_000; count++) {
      media.paused = false;
      media.fire("playing");
      media.paused = true;
      media.fire("pause");
    }
    const ids = [...new Set(pushed.map((event) => event.session_id))];
    assert.equal(ids.length, 2);
    assert.equal(pushed.filter((event) => event.session_id === ids[0]).at(-1)?.seq, 65_535);
    assert.equal(pushed.find((event) => event.session_id === ids[1])?.seq, 0);
    assert.match(ids[1] ?? "", /^use1-[0-9A-Z]{26}$/);
  });
});

describe("resuming", () => {
  const path = "/v1/profiles/alice/titles/t1";
  const resumeAt = (position_ms: number): Answer => ({
    status: 200,
    body: { title_id: "t1", resume: { session_id: "use1-x", position_ms, title_duration_ms: 100_000, watched_at: 1 } },
  });
  const earlier = (more: Partial<PlaybackEvent>): PlaybackEvent => ({
    session_id: "use1-A",
    profile_id: "alice",
    title_id: "t1",
    seq: 0,
    kind: "stopped",
    position_ms: 70_000,
    played_ms: 70_000,
    title_duration_ms: 100_000,
    occurred_at: 5,
    ...more,
  });

  test("goes to the server's position", async () => {
    answers[path] = resumeAt(42_500);
    await attach({ resume: true }).ready;
    assert.equal(media.currentTime, 42.5);
    media.play();
    assert.deepEqual(told(), ["started 42.5 0"]);
  });

  test("waits for the metadata", async () => {
    answers[path] = resumeAt(42_500);
    media.readyState = 0;
    await attach({ resume: true }).ready;
    assert.equal(media.currentTime, 0);
    media.load(100);
    assert.equal(media.currentTime, 42.5);
  });

  test("encodes ids twice", async () => {
    await attach({ resume: true, title: "urn:x/y+z=", profile: "a/b" }).ready;
    assert.deepEqual(asked, ["/v1/profiles/a%252Fb/titles/urn%253Ax%252Fy%252Bz%253D"]);
  });

  test("leaves alone what the page has set", async () => {
    answers[path] = resumeAt(42_500);
    media.currentTime = 7;
    await attach({ resume: true }).ready;
    assert.equal(media.currentTime, 7);

    media = new FakeMedia(clock);
    const { ready } = attach({ resume: true });
    media.currentTime = 0;
    await ready;
    assert.equal(media.currentTime, 0);
  });

  test("a player's nudge over a gap at the begin is not the page's choice", async () => {
    answers[path] = resumeAt(42_500);
    const { ready } = attach({ resume: true });
    media.currentTime = 0.08;
    await ready;
    assert.equal(media.currentTime, 42.5);
  });

  test("is not done for live streams, without a point, past the end, or when unwanted", async () => {
    for (const [options, answer, duration] of [
      [{ live: true }, resumeAt(42_500), 100],
      [{ resume: false }, resumeAt(42_500), 100],
      [{}, { status: 200, body: { title_id: "t1", resume: null } }, 100],
      [{}, { status: 0 }, 100],
      [{}, resumeAt(42_500), Infinity],
      [{}, resumeAt(42_500), 30],
    ] as const) {
      answers[path] = answer;
      media = new FakeMedia(clock);
      media.duration = duration;
      await attach({ resume: true, ...options }).ready;
      assert.equal(media.currentTime, 0, JSON.stringify(options));
    }
  });

  test("what is unsent is newer than what the server knows", async () => {
    answers[path] = resumeAt(42_500);
    unsent = [
      earlier({ seq: 1, occurred_at: 9 }),
      earlier({ session_id: "use1-B", position_ms: 1_000, occurred_at: 4 }),
    ];
    await attach({ resume: true }).ready;
    assert.equal(media.currentTime, 70);
  });

  test("what is unsent but older does not move a newer place", async () => {
    const newer = resumeAt(42_500);
    newer.body.resume.watched_at = 6;
    answers[path] = newer;
    unsent = [earlier({ occurred_at: 5 })];
    await attach({ resume: true }).ready;
    assert.equal(media.currentTime, 42.5);

    media = new FakeMedia(clock);
    answers[path] = { status: 200, body: { title_id: "t1", resume: null, watched: true, watched_at: 6 } };
    await attach({ resume: true }).ready;
    assert.equal(media.currentTime, 0, "it was finished elsewhere since");
  });

  test("a glance does not displace a resume point, unless its session made it", async () => {
    answers[path] = resumeAt(42_500);
    unsent = [earlier({ position_ms: 1_000, played_ms: 1_000 })];
    await attach({ resume: true }).ready;
    assert.equal(media.currentTime, 42.5);

    media = new FakeMedia(clock);
    unsent = [earlier({ session_id: "use1-x", position_ms: 1_000, played_ms: 1_000 })];
    await attach({ resume: true }).ready;
    assert.equal(media.currentTime, 1);
  });

  test("a title that was finished offline begins anew", async () => {
    answers[path] = resumeAt(42_500);
    unsent = [earlier({ position_ms: 96_000, played_ms: 96_000 })];
    await attach({ resume: true }).ready;
    assert.equal(media.currentTime, 0);
  });

  test("an answer for a title that is no longer played is ignored", async () => {
    answers[path] = resumeAt(42_500);
    const session = attach({ resume: true });
    const second = session.title("t2");
    await session.ready;
    await second;
    assert.equal(media.currentTime, 0);
    assert.deepEqual(asked, [path, "/v1/profiles/alice/titles/t2"]);
  });

  test("detaching before the answer leaves the element alone", async () => {
    answers[path] = resumeAt(42_500);
    const session = attach({ resume: true });
    await Promise.all([session.detach(), session.ready]);
    assert.equal(media.currentTime, 0);
  });
});

test("random lives are told exactly", async () => {
  let seed = 7;
  const random = (below: number): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  for (let life = 0; life < 60; life++) {
    pushed = [];
    media = new FakeMedia(clock);
    media.duration = 300;
    const session = attach();
    await session.ready;
    const truth: [number, number][] = [];
    for (let step = 0; step < 40; step++) {
      const before = media.currentTime;
      switch (random(6)) {
        case 0:
          media.play();
          break;
        case 1:
          media.pause();
          break;
        case 2:
          media.currentTime = random(290);
          break;
        case 3:
          media.playbackRate = [0.5, 1, 1.5, 2][random(4)] ?? 1;
          break;
        case 4:
          media.stalled = !media.stalled;
          break;
        default: {
          media.run(250 * random(80));
          truth.push([before * 1_000, media.currentTime * 1_000]);
        }
      }
    }
    await session.detach();
    told();
    const difference = played() * 1_000 - unionLength(truth);
    assert.ok(Math.abs(difference) <= pushed.length, `life ${life}: ${difference} ms`);
    assert.deepEqual(problems, []);
  }
});

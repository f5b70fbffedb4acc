/**
 * A real Chromium with a real media element, an API behind a gate, and questions to the member's
 * API.
 *
 * By default the API is the contract's model. `PLAYHEAD_ENDPOINT` names another one, for example
 * the local cloud's; then `PLAYHEAD_TOKEN_COMMAND` must print a token for the profile that is given
 * as its last argument. Its stage must allow the origin `PLAYHEAD_ORIGIN` (default
 * http://127.0.0.1:4173), from which the test page is served.
 */
import assert from "node:assert/strict";
import { exec } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { promisify } from "node:util";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { type HistorySession, makeToken, type WireEvent } from "../contract.js";
import { type Gate, type Listening, startContractServer, startGate } from "../servers.js";

const ORIGIN = process.env["PLAYHEAD_ORIGIN"] ?? "http://127.0.0.1:4173";
/** How long the history may take to show what was accepted. */
const SETTLE_MS = process.env["PLAYHEAD_ENDPOINT"] ? 30_000 : 1_000;

/**
 * Takes both logs down, so that the API answers 503, and gives what brings them back. With
 * `PLAYHEAD_LOGS_DOWN_COMMAND` and `PLAYHEAD_LOGS_UP_COMMAND` they are really down; without, the
 * gate answers in their place.
 */
export async function logsDown(gate: Gate): Promise<() => Promise<void>> {
  const [down, up] = [process.env["PLAYHEAD_LOGS_DOWN_COMMAND"], process.env["PLAYHEAD_LOGS_UP_COMMAND"]];
  if (down && up) {
    await promisify(exec)(down);
    return async () => void (await promisify(exec)(up));
  }
  const refusal = { status: 503, body: { code: "log_unavailable" }, headers: { "retry-after": "2" } };
  gate.fault = (_, path) => (path === "/v1/events" ? refusal : "pass");
  return async () => void (gate.fault = () => "pass");
}

const real = process.env["PLAYHEAD_ENDPOINT"] !== undefined;

async function tokenFor(profile: string): Promise<string> {
  if (!real) return makeToken([profile]);
  const command = process.env["PLAYHEAD_TOKEN_COMMAND"];
  assert.ok(command, "PLAYHEAD_TOKEN_COMMAND must say how to make a token for a profile");
  const { stdout } = await promisify(exec)(`${command} ${profile}`);
  return stdout.trim();
}

/**
 * A tone of 8 bit at 8 kHz, as a WAV: a media element plays and seeks it exactly, and it needs no
 * file.
 */
function tone(seconds: number): Buffer {
  const samples = Buffer.alloc(seconds * 8_000);
  for (let at = 0; at < samples.length; at++) samples[at] = 128 + Math.round(40 * Math.sin(at / 3));
  const header = Buffer.alloc(44);
  header.write("RIFF", 0);
  header.writeUInt32LE(36 + samples.length, 4);
  header.write("WAVEfmt ", 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(8_000, 24);
  header.writeUInt32LE(8_000, 28);
  header.writeUInt16LE(1, 32);
  header.writeUInt16LE(8, 34);
  header.write("data", 36);
  header.writeUInt32LE(samples.length, 40);
  return Buffer.concat([header, samples]);
}

/** Serves the page, the built library and the tones. */
async function serveSite(): Promise<Listening> {
  const files: Record<string, [type: string, content: Buffer]> = {
    "/": ["text/html", readFileSync("test/browser/page.html")],
    "/elsewhere": ["text/html", Buffer.from("<!doctype html><title>Elsewhere</title>")],
    "/index.js": ["text/javascript", readFileSync("dist/index.js")],
    "/tone-20.wav": ["audio/wav", tone(20)],
    "/tone-60.wav": ["audio/wav", tone(60)],
  };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", ORIGIN);
    const [type, content] = files[pathname] ?? [];
    if (!type || !content) return response.writeHead(404).end();
    const [, begin, end] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const headers = { "content-type": type, "accept-ranges": "bytes", "cache-control": "max-age=60" };
    if (begin === undefined)
      return response.writeHead(200, { ...headers, "content-length": content.length }).end(content);
    const part = content.subarray(Number(begin), end ? Number(end) + 1 : content.length);
    const range = `bytes ${begin}-${Number(begin) + part.length - 1}/${content.length}`;
    return response.writeHead(206, { ...headers, "content-range": range, "content-length": part.length }).end(part);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(Number(new URL(ORIGIN).port), "127.0.0.1", resolve);
  });
  return {
    url: ORIGIN,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

export interface World {
  gate: Gate;
  context: BrowserContext;
  profile: string;
  /** How often a token was asked for, and whether as expired. */
  tokens: boolean[];
  open(query?: Record<string, string>): Promise<Page>;
  /**
   * The member's history, once `good` says that it is settled. The last answer is given in any
   * case.
   */
  history(good: (sessions: HistorySession[]) => boolean): Promise<HistorySession[]>;
  /** Every event that the player sent, once, in order. */
  sent(): WireEvent[];
  /**
   * Holds the history of one session of one title against what was played: nothing lost, nothing
   * double, and positions and played time within the tolerances.
   */
  check(expected: {
    title?: string;
    positionMs: number;
    playedMs: number;
    /** `timeupdate` comes about four times a second: so much may be missing at each break. */
    breaks?: number;
    speed?: number;
    durationMs?: number | null;
    only?: boolean;
  }): Promise<HistorySession>;
}

let browser: Browser | undefined;
let site: Listening | undefined;
let api: (Listening & { contract?: { repeats: number } }) | undefined;

export async function begin(): Promise<void> {
  const executablePath =
    process.env["CHROMIUM"] ??
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
  assert.ok(executablePath, "Chromium is missing: apt-get install chromium, or set CHROMIUM");
  browser = await chromium.launch({
    executablePath,
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
    args: ["--autoplay-policy=no-user-gesture-required", "--mute-audio", "--no-sandbox"],
  });
  site = await serveSite();
  const endpoint = process.env["PLAYHEAD_ENDPOINT"];
  api = endpoint
    ? { url: endpoint.replace(/\/$/, ""), close: async () => undefined }
    : await startContractServer(ORIGIN);
}

export async function end(): Promise<void> {
  await browser?.close();
  await site?.close();
  await api?.close();
}

/** One test's own browser profile, gate and member. */
export async function world(): Promise<World> {
  assert.ok(browser && api && site);
  const { url } = api;
  const gate = await startGate(url);
  const context = await browser.newContext();
  const profile = `p${randomBytes(6).toString("hex")}`;
  const tokens: boolean[] = [];
  await context.exposeFunction("tokenFor", (asked: string, expired: boolean) => {
    tokens.push(expired);
    return tokenFor(asked);
  });

  const history: World["history"] = async (good) => {
    const authorization = `Bearer ${await tokenFor(profile)}`;
    const deadline = Date.now() + SETTLE_MS;
    for (;;) {
      const answer = await fetch(`${url}/v1/profiles/${profile}/history?limit=100`, { headers: { authorization } });
      assert.equal(answer.status, 200);
      const { sessions } = (await answer.json()) as { sessions: HistorySession[] };
      if (good(sessions) || Date.now() > deadline) return sessions;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  };
  const sent = (): WireEvent[] => {
    const all = gate.seen.flatMap(({ events }) => events);
    const byKey = new Map(all.map((event) => [`${event.session_id} ${String(event.seq).padStart(5, "0")}`, event]));
    return [...byKey].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, event]) => event);
  };
  return {
    gate,
    context,
    profile,
    tokens,
    history,
    sent,
    async open(query = {}) {
      const page = await context.newPage();
      page.on("pageerror", (error) => {
        throw error;
      });
      await page.goto(`${ORIGIN}/?${new URLSearchParams({ endpoint: gate.url, ...query })}`);
      await page.waitForFunction("window.ready");
      return page;
    },
    async check({ title = "t1", positionMs, playedMs, breaks = 1, speed = 1, durationMs, only = true }) {
      const events = sent();
      const ofTitle = ({ title_id }: { title_id: string }): boolean => title_id === title;
      const complete = (session: HistorySession): boolean =>
        session.events === events.filter((event) => event.session_id === session.session_id && ofTitle(event)).length;
      const sessions = await history(
        (found) => found.filter(ofTitle).length > 0 && found.filter(ofTitle).every(complete),
      );
      const [session] = sessions.filter(ofTitle);
      assert.ok(session, `${title} is not in the history`);
      if (only) assert.equal(sessions.filter(ofTitle).length, 1);
      assert.ok(complete(session), `${session.events} events are in the history`);
      assert.equal(session.missing, 0);
      const tolerance = 300 * breaks * speed;
      const off = { position: session.position_ms - positionMs, played: session.played_ms - playedMs };
      assert.ok(Math.abs(off.position) <= tolerance, `the position is off by ${off.position} ms`);
      assert.ok(Math.abs(off.played) <= tolerance, `what was played is off by ${off.played} ms`);
      if (durationMs !== undefined) assert.equal(session.title_duration_ms ?? null, durationMs);
      for (const { rejected } of gate.seen) assert.deepEqual(rejected, []);
      return session;
    },
  };
}

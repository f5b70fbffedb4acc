/**
 * The page that a deployed stage serves, against its API. `PLAYHEAD_ENDPOINT` names the stage, for
 * example the local cloud; `PLAYHEAD_TOKEN_COMMAND` must print a token for the profile that is given
 * as its last argument.
 */
import assert from "node:assert/strict";
import { execSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { accessible, launch, LOOKS, open } from "./browser.js";

const endpoint = process.env["PLAYHEAD_ENDPOINT"]?.replace(/\/$/, "");
const MINUTE_MS = 60_000;
/** How long the pipeline may take until the history shows something. */
const SETTLE_MS = 30_000;

test("a deployed stage: what was played is shown, hidden, marked, forgotten and erased", { skip: !endpoint }, async (t) => {
  const command = process.env["PLAYHEAD_TOKEN_COMMAND"];
  assert.ok(command, "PLAYHEAD_TOKEN_COMMAND must say how to make a token for a profile");
  const profile = `p${randomBytes(6).toString("hex")}`;
  const token = execSync(`${command} ${profile}`, { encoding: "utf8" }).trim();
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };

  const titles = ["crid://a.example/b:c+d=", "film-2", "film-3"];
  for (const title_id of titles) {
    const { session_id } = await (await fetch(`${endpoint}/v1/sessions`, { method: "POST", headers })).json();
    const event = {
      session_id, profile_id: profile, title_id, title_duration_ms: 60 * MINUTE_MS,
      device: { id: "d1", kind: "tv" }, occurred_at: Date.now(),
    };
    const events = [
      { ...event, seq: 0, kind: "started", position_ms: 0 },
      { ...event, seq: 1, kind: "stopped", position_ms: 15 * MINUTE_MS, played_ms: 15 * MINUTE_MS },
    ];
    const sent = await fetch(`${endpoint}/v1/events`, { method: "POST", headers, body: JSON.stringify({ events }) });
    assert.deepEqual(await sent.json(), { accepted: 2, rejected: [], adjusted: [] });
  }
  const history = async () => {
    const answer = await fetch(`${endpoint}/v1/profiles/${profile}/history?include_hidden=true`, { headers });
    /** @type {import("../api.js").Page} */
    const { sessions } = await answer.json();
    return sessions;
  };
  /** @param {string} what @param {(sessions: import("../api.js").Session[]) => boolean} holds */
  const until = async (what, holds) => {
    for (const end = Date.now() + SETTLE_MS; !holds(await history()); ) {
      assert.ok(Date.now() < end, `in vain waited for: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  };
  await until("the history", (sessions) => sessions.length === 3);

  const page = await fetch(`${endpoint}/activity`);
  assert.equal(page.status, 200);
  assert.equal(page.headers.get("content-encoding"), "gzip");
  assert.match(page.headers.get("content-security-policy") ?? "", /^default-src 'none'; script-src 'self';/);
  const tag = page.headers.get("etag") ?? "";
  assert.equal((await fetch(`${endpoint}/activity`, { headers: { "if-none-match": tag } })).status, 304);
  assert.equal((await fetch(`${endpoint}/activity/other.js`)).status, 404);

  const browser = await launch();
  t.after(() => browser.close());
  const url = `${endpoint}/activity#profile=${profile}&token=${token}`;
  const { page: shown, wrong } = await open(browser, url, LOOKS.light, Date.now());
  const entry = (/** @type {string} */ title) => shown.locator(".entry", { hasText: title });
  const [odd = ""] = titles;
  await entry("film-3").waitFor();
  assert.deepEqual(await shown.locator(".entry .title").allTextContents(), titles.toReversed());
  assert.match(await entry(odd).innerText(), /TV[^]*15 mins of 1 hr/);
  assert.equal(await shown.locator(".card").count(), 3);
  await accessible(shown, "loaded");

  await entry(odd).getByRole("button", { name: "Hide" }).click();
  await until("hidden", (sessions) => sessions.some(({ title_id, hidden }) => hidden && title_id === odd));
  await shown.getByRole("button", { name: "Undo" }).click();
  await until("shown again", (sessions) => sessions.every(({ hidden }) => !hidden));

  await entry(odd).locator("summary").click();
  await entry(odd).getByRole("button", { name: "Mark as watched" }).click();
  const title = `${endpoint}/v1/profiles/${profile}/titles/${encodeURIComponent(encodeURIComponent(odd))}`;
  for (const end = Date.now() + SETTLE_MS; !(await (await fetch(title, { headers })).json()).watched; ) {
    assert.ok(Date.now() < end, "it is not marked as watched");
  }

  await entry("film-2").locator("summary").click();
  await entry("film-2").getByRole("button", { name: "Forget this title" }).click();
  await shown.mouse.move(0, 0);
  await shown.clock.fastForward(10_000);
  await until("forgotten", (sessions) => sessions.length === 2);

  await shown.getByRole("button", { name: "Erase everything…" }).click();
  await shown.getByRole("button", { name: "Erase everything", exact: true }).click();
  // The page goes away before the time to take it back is over.
  await shown.goto("about:blank");
  await until("erased", (sessions) => sessions.length === 0);
  assert.deepEqual(wrong.splice(0), []);
});

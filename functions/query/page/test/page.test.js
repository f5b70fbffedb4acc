/** What the member sees and does, against the model of the API. */
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { accessible, launch, LOOKS, open } from "./browser.js";
import { Model, session, TOKEN } from "./model.js";

/** How long something may take to show. */
const SOON_MS = 5_000;
/** Longer than a change can be undone. */
const UNDONE_NO_MORE_MS = 9_000;
const DAY = 24 * 60;

/** @type {import("playwright-core").Browser} */
let browser;
/** @type {(() => Promise<void>)[]} */
const ends = [];
before(async () => {
  browser = await launch();
});
after(() => browser.close());
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** Some evenings of a member. */
const evenings = () => [
  session(4, { title_id: "harbour-s01e04", position_ms: 840_000, played_ms: 240_000, title_duration_ms: 3_120_000 }),
  session(95, { title_id: "harbour-s01e03", position_ms: 3_100_000, completed: true, title_duration_ms: 3_120_000 }),
  session(190, { title_id: "northern-lights", position_ms: 5_400_000, title_duration_ms: 7_260_000, kind: "tablet" }),
  session(DAY + 60, { title_id: "evening-news", title_duration_ms: null, position_ms: 1_790_000_000_000 }),
  session(DAY + 150, { title_id: "the-cartographer", position_ms: 900_000, title_duration_ms: 6_600_000, kind: "phone" }),
  session(3 * DAY, { title_id: "harbour-s01e02", position_ms: 3_100_000, completed: true, kind: "web" }),
  session(3 * DAY + 70, { title_id: "harbour-s01e01", position_ms: 3_090_000, completed: true, kind: null }),
  session(40 * DAY, { title_id: "glass-gardens", position_ms: 2_000_000, title_duration_ms: 2_900_000, kind: "tv" }),
];

/**
 * A member with these sessions, and the page.
 *
 * @param {{ sessions?: import("../api.js").Session[], fault?: Model["fault"], token?: string | null,
 *   look?: import("playwright-core").BrowserContextOptions }} [of]
 */
async function member({ sessions = evenings(), fault, token = TOKEN, look } = {}) {
  const model = new Model(sessions);
  if (fault) model.fault = fault;
  await model.start();
  ends.push(() => model.stop());
  assert.ok(model.url);
  const { context, page, wrong } = await open(browser, model.url + (token ? `#profile=p1&token=${token}` : ""), look);
  page.setDefaultTimeout(SOON_MS);
  ends.push(() => context.close());
  ends.unshift(async () => assert.deepEqual(wrong, [], "the page did what it must not"));
  const entry = (/** @type {string} */ title) => page.locator(".entry", { hasText: title });
  const titles = () => page.locator(".entry .title").allTextContents();
  return { model, page, entry, titles, notice: page.locator(".notice"), wrong };
}

/** @param {string} what @param {() => boolean} holds */
async function until(what, holds) {
  for (const end = Date.now() + SOON_MS; !holds(); await new Promise((resolve) => setTimeout(resolve, 20))) {
    assert.ok(Date.now() < end, `in vain waited for: ${what}`);
  }
}

/** @param {import("playwright-core").Locator} locator */
const gone = (locator) => locator.waitFor({ state: "detached" });

test("shows what was watched, when, how far and on which device", async () => {
  const { page, entry, titles, model } = await member();
  await entry("glass-gardens").waitFor();
  assert.deepEqual(await titles(), model.sessions.map(({ title_id }) => title_id));
  const days = await page.locator(".day > h3").allTextContents();
  assert.deepEqual(days, ["Today", "Yesterday", "Wednesday", "Mon 19 October"]);
  const text = (await entry("harbour-s01e04").innerText()).replace(/\s+/g, " ");
  for (const said of ["4 minutes ago", "TV", "4 mins watched", "14 mins of 52 mins"]) assert.ok(text.includes(said), text);
  assert.equal(await entry("harbour-s01e04").locator("progress").evaluate((bar) => Reflect.get(bar, "value")), 27);
  assert.match(await entry("northern-lights").innerText(), /18:20[^]*Tablet[^]*1 hr 30 mins of 2 hrs 1 min/);
  assert.match(await entry("harbour-s01e03").innerText(), /Finished[^]*Watched/);
  assert.equal(await entry("evening-news").locator("progress").isVisible(), false, "a live stream has no end");
  assert.match(await entry("harbour-s01e01").innerText(), /Unknown device/);
  const cards = page.locator(".card");
  assert.deepEqual(await cards.locator(".title").allTextContents(), [
    "harbour-s01e04", "northern-lights", "evening-news", "the-cartographer", "glass-gardens",
  ]);
  assert.match(await cards.nth(1).innerText(), /31 mins left[^]*Tablet/);
});

test("takes the token off the address bar, and still knows it after a reload", async () => {
  const { page, entry, model } = await member();
  await entry("harbour-s01e04").waitFor();
  assert.equal(page.url(), model.url);
  await page.reload();
  await entry("harbour-s01e04").waitFor();
  assert.ok(model.seen.every(({ authorization }) => authorization === `Bearer ${TOKEN}`));
});

test("pages through 5,000 sessions, and finds the oldest by searching", async () => {
  const many = Array.from({ length: 5_000 }, (_, at) => session(at * 7 + 5, { title_id: `film-${at}.` }));
  const { page, titles, model } = await member({ sessions: many });
  await page.locator(".entry").first().waitFor();
  for (const shown of [50, 100, 150]) {
    await page.locator(".entry").nth(shown - 1).waitFor();
    assert.deepEqual(await titles(), many.slice(0, shown).map(({ title_id }) => title_id));
    if (shown > 50) {
      const focused = await page.evaluate(() => document.activeElement?.closest("li")?.querySelector(".title")?.textContent);
      assert.equal(focused, `film-${shown - 50}.`, "the focus is on the first of the new ones");
    }
    await page.getByRole("button", { name: "Show more" }).click();
  }
  await page.getByRole("searchbox").fill("film-4999.");
  await page.locator(".entry", { hasText: "film-4999." }).waitFor({ timeout: 60_000 });
  await until("the end", () => model.seen.filter(({ path }) => path === "history").length >= 50);
  assert.deepEqual(await titles(), ["film-4999."]);
  await page.getByRole("searchbox").fill("film-");
  await page.locator(".entry", { hasText: "film-0." }).waitFor();
  const before = performance.now();
  await page.getByRole("searchbox").fill("tv film-77");
  await page.locator(".entry", { hasText: "film-77." }).waitFor();
  await gone(page.locator(".entry", { hasText: "film-0." }));
  assert.ok(performance.now() - before < 3_000, "searching what is loaded is slow");
});

test("hides a viewing, takes it back, and shows the hidden ones on demand", async () => {
  const { page, entry, notice, model } = await member();
  const id = model.sessions.find(({ title_id }) => title_id === "northern-lights")?.session_id;
  await entry("northern-lights").getByRole("button", { name: "Hide" }).click();
  await gone(entry("northern-lights"));
  assert.equal(await page.locator(".card", { hasText: "northern-lights" }).count(), 0);
  await notice.getByRole("button", { name: "Undo" }).click();
  await entry("northern-lights").waitFor();
  await until("both calls", () => model.changes().length === 2);
  assert.deepEqual(model.changes(), [`PUT history/${id}/hidden`, `DELETE history/${id}/hidden`]);

  await entry("northern-lights").getByRole("button", { name: "Hide" }).click();
  await gone(entry("northern-lights"));
  await page.getByLabel("Show hidden").check();
  await entry("northern-lights").waitFor();
  assert.match(await entry("northern-lights").innerText(), /Hidden/);
  await entry("northern-lights").getByRole("button", { name: "Show" }).click();
  await until("it is shown", () => model.changes().length === 4);
  await page.getByLabel("Show hidden").uncheck();
  await entry("northern-lights").waitFor();
});

test("marks a title as watched and back", async () => {
  const { page, entry, notice, model } = await member();
  await entry("the-cartographer").locator("summary").click();
  await page.getByRole("button", { name: "Mark as watched: the-cartographer" }).last().click();
  await entry("the-cartographer").getByText("Watched", { exact: true }).waitFor();
  assert.equal(await page.locator(".card", { hasText: "the-cartographer" }).count(), 0);
  await notice.getByRole("button", { name: "Undo" }).click();
  await page.locator(".card", { hasText: "the-cartographer" }).waitFor();
  await until("both calls", () => model.changes().length === 2);
  assert.deepEqual(model.changes(), ["PUT titles/the-cartographer/watched", "DELETE titles/the-cartographer/watched"]);
  await entry("harbour-s01e03").locator("summary").click();
  await page.getByRole("button", { name: "Mark as not watched: harbour-s01e03" }).click();
  await until("the call", () => model.changes().at(-1) === "DELETE titles/harbour-s01e03/watched");
});

test("a refresh keeps what is known of older titles, and learns what changed", async () => {
  const many = Array.from({ length: 150 }, (_, at) => session(at * 9 + 5, { title_id: `film-${at}.` }));
  const { page, entry, model } = await member({ sessions: many });
  model.watched.set("film-70.", true).set("film-140.", true);
  const seen = (/** @type {string} */ title) => entry(title).getByText("Watched", { exact: true });
  for (const last of [49, 99, 149]) {
    await page.locator(".entry").nth(last).waitFor();
    if (last < 149) await page.getByRole("button", { name: "Show more" }).click();
  }
  await seen("film-70.").waitFor();
  await seen("film-140.").waitFor();
  // Marked elsewhere, while the answers are not there yet.
  model.watched.set("film-140.", false).set("film-145.", true);
  /** @type {(value?: unknown) => void} */
  let answer = () => undefined;
  const late = new Promise((resolve) => (answer = resolve));
  await page.route("**/titles?*", async (route) => {
    await late;
    await route.fallback();
  });
  const asked = page.waitForRequest("**/titles?*");
  await page.getByRole("button", { name: "Refresh" }).click();
  await asked;
  await page.getByText("Refreshed.").waitFor({ state: "attached" });
  assert.ok(await seen("film-70.").isVisible(), "it was known");
  await entry("film-3.").locator("summary").click();
  await page.getByRole("button", { name: "Mark as watched: film-3.", exact: true }).last().click();
  await until("the mark", () => model.changes().length === 1);
  model.watched.set("film-3.", false);
  answer();
  await seen("film-145.").waitFor();
  await seen("film-140.").waitFor({ state: "hidden" });
  assert.ok(await seen("film-70.").isVisible());
  assert.ok(await seen("film-3.").isVisible(), "what the member marked meanwhile is newer");
  const asks = model.seen.filter(({ path }) => path === "titles").map(({ query }) => query.get("ids")?.split(",").length ?? 0);
  assert.ok(Math.max(...asks) <= 100, `asked for ${asks} titles at once`);
});

/** @param {Awaited<ReturnType<typeof member>>} of @param {string} title @param {string} what */
async function forget({ entry }, title, what) {
  await entry(title).locator("summary").click();
  await entry(title).getByRole("button", { name: what }).click();
  await gone(entry(title));
}

test("forgets a title only when it can no longer be undone", async () => {
  const here = await member();
  const { page, entry, notice, model } = here;
  await forget(here, "northern-lights", "Forget this title");
  await notice.getByRole("button", { name: "Undo" }).click();
  await entry("northern-lights").waitFor();
  await page.clock.fastForward(UNDONE_NO_MORE_MS);
  assert.deepEqual(model.changes(), []);

  await forget(here, "northern-lights", "Forget this title");
  await page.mouse.move(0, 0);
  assert.deepEqual(model.changes(), [], "sent while it can be undone");
  await page.clock.fastForward(UNDONE_NO_MORE_MS);
  await until("the call", () => model.changes().length === 1);
  assert.deepEqual(model.changes(), ["DELETE titles/northern-lights"]);
  await gone(notice);
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.getByText("Refreshed.").waitFor({ state: "attached" });
  assert.equal(await entry("northern-lights").count(), 0);
});

test("after a viewing is forgotten, an earlier one says where to go on", async () => {
  const newest = session(2, { title_id: "northern-lights", position_ms: 7_080_000, title_duration_ms: 7_260_000 });
  const here = await member({ sessions: [newest, ...evenings()] });
  const { page, entry } = here;
  const card = page.locator(".card", { hasText: "northern-lights" });
  await card.getByText(/^3 mins? left/).waitFor();
  await entry("northern-lights").first().locator("summary").click();
  await entry("northern-lights").first().getByRole("button", { name: "Forget this viewing" }).click();
  await page.mouse.move(0, 0);
  await page.clock.fastForward(UNDONE_NO_MORE_MS);
  await card.getByText(/^31 mins? left/).waitFor();
});

/** A viewing of three titles in a row, and an older viewing of one of them. */
const marathon = () => {
  const last = session(70, { title_id: "harbour-s01e03" });
  const before = ["harbour-s01e02", "harbour-s01e01"].map((title_id) => ({ ...last, title_id, completed: true }));
  return [last, ...before, session(2 * DAY, { title_id: "harbour-s01e01" })];
};

test("forgetting a viewing of several titles says so, before and after", async () => {
  const { page, entry, titles, notice, model } = await member({ sessions: marathon() });
  await page.getByRole("searchbox").fill("s01e02");
  await gone(entry("harbour-s01e03"));
  await entry("harbour-s01e02").locator("summary").click();
  await page.getByRole("button", { name: "Forget this viewing of 3 titles: harbour-s01e02", exact: true }).click();
  const said = "This viewing is forgotten, with all 3 titles: harbour-s01e03, harbour-s01e02 and harbour-s01e01.";
  assert.equal(await notice.locator("p").textContent(), said);
  await page.getByRole("searchbox").fill("");
  await entry("harbour-s01e01").waitFor();
  assert.deepEqual(await titles(), ["harbour-s01e01"]);
  await entry("harbour-s01e01").locator("summary").click();
  await page.getByRole("button", { name: "Forget this viewing: harbour-s01e01", exact: true }).waitFor();
  await page.mouse.move(0, 0);
  await page.clock.fastForward(UNDONE_NO_MORE_MS);
  await until("the call", () => model.sessions.length === 1);
});

test("hiding a viewing of several titles says so, and so does showing it again", async () => {
  const { page, entry, titles, notice, model } = await member({ sessions: marathon() });
  await entry("harbour-s01e02").waitFor();
  assert.equal(await page.locator(".card", { hasText: "harbour-s01e03" }).getByText("Hide 3 titles").count(), 1);
  await entry("harbour-s01e02").getByRole("button", { name: "Hide 3 titles of this viewing: harbour-s01e02" }).click();
  const all = "with all 3 titles: harbour-s01e03, harbour-s01e02 and harbour-s01e01.";
  assert.equal(await notice.locator("p").textContent(), `This viewing is hidden, ${all}`);
  assert.deepEqual(await titles(), ["harbour-s01e01"]);
  await page.getByLabel("Show hidden").check();
  await entry("harbour-s01e03").getByRole("button", { name: "Show 3 titles of this viewing: harbour-s01e03" }).click();
  assert.equal(await notice.last().locator("p").textContent(), `This viewing is shown again, ${all}`);
  await until("both calls", () => model.changes().length === 2);
  assert.ok(model.sessions.every(({ hidden }) => !hidden));
});

test("sends what waits to be forgotten when the page goes away", async () => {
  const here = await member();
  const { page, model } = here;
  const id = model.sessions.find(({ title_id }) => title_id === "glass-gardens")?.session_id;
  await forget(here, "glass-gardens", "Forget this viewing");
  await forget(here, "harbour-s01e02", "Forget this title");
  assert.deepEqual(model.changes(), []);
  await page.goto("about:blank");
  await until("the calls", () => model.changes().length === 2);
  assert.deepEqual(model.changes().toSorted(), [`DELETE history/${id}`, "DELETE titles/harbour-s01e02"].toSorted());
  here.wrong.splice(0);
});

test("erases everything, but only when it is confirmed and not taken back", async () => {
  const { page, titles, entry, notice, model } = await member();
  await entry("glass-gardens").waitFor();
  const erase = page.getByRole("button", { name: "Erase everything…" });
  await erase.click();
  await page.getByRole("button", { name: "Keep it" }).click();
  await erase.click();
  await page.keyboard.press("Escape");
  assert.equal((await titles()).length, 8);

  await erase.click();
  await page.getByRole("button", { name: "Erase everything", exact: true }).click();
  await gone(entry("glass-gardens"));
  await notice.getByRole("button", { name: "Undo" }).click();
  await entry("glass-gardens").waitFor();
  await page.clock.fastForward(UNDONE_NO_MORE_MS);
  assert.deepEqual(model.changes(), []);

  await erase.click();
  await page.getByRole("button", { name: "Erase everything", exact: true }).click();
  await notice.waitFor();
  await page.mouse.move(0, 0);
  await page.clock.fastForward(UNDONE_NO_MORE_MS);
  await until("the call", () => model.changes().length === 1);
  assert.deepEqual(model.changes(), ["DELETE history"]);
  await page.getByText("Nothing here yet").waitFor();
  assert.equal(await page.locator(".card").count(), 0);
});

/**
 * The app hands over a token, as it may at any time.
 *
 * @param {import("playwright-core").Page} page
 * @param {{ profile?: string, token?: string }} [of]
 */
const handOver = (page, { profile = "p1", token = TOKEN } = {}) =>
  page.evaluate((hash) => void (location.hash = hash), `#profile=${profile}&token=${token}`);

test("an expired token ends the page with what to do, and a new one goes on", async () => {
  const { page, entry, model } = await member({ token: "expired" });
  await page.getByRole("alert").getByText("Open it again from the app").waitFor();
  assert.equal(await page.getByRole("button").count(), 0, "nothing can be done without a token");
  await accessible(page, "expired");
  await page.goto(`${model.url}#profile=p1&token=${TOKEN}`);
  await entry("glass-gardens").waitFor();
  assert.equal(await page.getByRole("alert").count(), 0);
  assert.equal(page.url(), model.url);

  // It expires while the page is open: what was asked for did not happen, and the page says so.
  model.fault = () => ({ status: 401 });
  await entry("northern-lights").getByRole("button", { name: "Hide" }).click();
  await page.getByRole("alert").getByText("signed out").waitFor();
  await entry("northern-lights").waitFor();
});

const NEWER = "header.newer.signature";

test("what waits as a token expires goes out with the newer one", async () => {
  const here = await member();
  const { page, model } = here;
  await forget(here, "northern-lights", "Forget this title");
  model.token = NEWER;
  await handOver(page, { token: NEWER });
  await until("the newer token", () => model.seen.at(-1)?.authorization === `Bearer ${NEWER}`);
  await page.mouse.move(0, 0);
  await page.clock.fastForward(UNDONE_NO_MORE_MS);
  await until("it is forgotten", () => model.sessions.every(({ title_id }) => title_id !== "northern-lights"));
  assert.equal(await page.getByRole("alert").count(), 0);
  assert.deepEqual(model.changes(), ["DELETE titles/northern-lights"], "sent with the expired token");
});

for (const [name, path] of /** @type {[string, string][]} */ ([
  ["change", "/hidden"], ["list", "/history?"], ["question about titles", "/titles?"],
])) {
  test(`a refusal of an older token comes late, and does not end the page: a ${name}`, async () => {
    const { page, entry, model } = await member();
    await entry("glass-gardens").waitFor();
    await page.waitForLoadState("networkidle");
    /** @type {(value?: unknown) => void} */
    let answer = () => undefined;
    const late = new Promise((resolve) => (answer = resolve));
    const isOld = (/** @type {import("playwright-core").Request} */ one) =>
      one.url().includes(path) && one.headers()["authorization"] === `Bearer ${TOKEN}`;
    await page.route("**/v1/**", async (route) => {
      if (!isOld(route.request())) return route.fallback();
      await late;
      await route.fulfill({ status: 401 });
    });
    const asked = page.waitForRequest(isOld);
    if (name === "change") await entry("northern-lights").getByRole("button", { name: "Hide" }).click();
    else await page.getByRole("button", { name: "Refresh" }).click();
    await asked;
    model.token = NEWER;
    const seen = model.seen.length;
    await handOver(page, { token: NEWER });
    await until("the newer list", () => model.seen.slice(seen).some(({ path }) => path === "history"));
    const refused = page.waitForResponse((response) => isOld(response.request()));
    answer();
    await refused;
    if (name === "change") await until("it is hidden", () => model.sessions.some(({ hidden }) => hidden));
    await page.getByRole("button", { name: "Refresh" }).click();
    await page.getByText("Refreshed.").waitFor({ state: "attached" });
    assert.equal(await page.getByRole("alert").count(), 0);
    assert.equal(await entry("northern-lights").count(), name === "change" ? 0 : 1);
  });
}

test("a change of one member never reaches another one's history", async () => {
  const { page, entry, notice, model } = await member();
  const changesOf = (/** @type {string} */ profile) =>
    model.seen.filter((call) => call.profile === profile && call.method !== "GET").map(({ method, path }) => `${method} ${path}`);
  const eraseAll = async () => {
    await page.getByRole("button", { name: "Erase everything…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Erase everything" }).click();
  };
  await entry("harbour-s01e04").waitFor();
  // One that failed, and could be tried again.
  model.fault = ({ method }) => (method === "DELETE" ? { status: 400 } : "pass");
  await eraseAll();
  await notice.getByRole("button", { name: "Dismiss" }).click();
  await notice.getByRole("button", { name: "Try again" }).waitFor();
  model.fault = () => "pass";
  await handOver(page, { profile: "p2" });
  await page.locator("#profile", { hasText: "p2" }).waitFor();
  assert.equal(await notice.count(), 0, "what another member can undo or try again");
  // One that waits as the other member comes, and is answered late.
  await handOver(page, { profile: "p1" });
  await page.locator("#profile", { hasText: "p1" }).waitFor();
  await entry("harbour-s01e04").waitFor();
  /** @type {(value?: unknown) => void} */
  let answer = () => undefined;
  const late = new Promise((resolve) => (answer = resolve));
  await page.route("**/v1/profiles/p1/history", async (route) => {
    await late;
    await route.fulfill({ status: 204 });
  });
  const asked = page.waitForRequest((request) => request.method() === "DELETE");
  await eraseAll();
  await handOver(page, { profile: "p2" });
  assert.match((await asked).url(), /\/p1\/history$/);
  await entry("harbour-s01e04").waitFor();
  const answered = page.waitForResponse((response) => response.request().method() === "DELETE");
  answer();
  await answered;
  await page.clock.runFor(UNDONE_NO_MORE_MS);
  assert.equal(await entry("harbour-s01e04").count(), 1, "the other member's entries stay");
  assert.deepEqual(changesOf("p2"), []);
});

/** As an app's page that embeds this one, on another site and so in another process. */
async function embedded() {
  const here = await member({ token: null });
  const { page, model } = here;
  // There are two origins, as meant.
  page.removeAllListeners("request");
  const policy = model.headers["content-security-policy"]?.replace("frame-ancestors 'none'", "frame-ancestors *");
  model.headers = { ...model.headers, "content-security-policy": policy ?? "" };
  await page.goto(`${model.origin}/another-page`.replace("127.0.0.1", "localhost"));
  const set = (/** @type {string} */ way) =>
    page.evaluate(
      ([way, url = ""]) => {
        const frame = document.querySelector("iframe");
        if (way === "src" && frame) frame.src = url;
        else frame?.contentWindow?.location.replace(url);
      },
      [way, `${model.url}#profile=p1&token=${model.token}`],
    );
  const frame = page.frameLocator("iframe");
  return { ...here, set, frame, entry: (/** @type {string} */ title) => frame.locator(".entry", { hasText: title }) };
}

test("a fragment once more refreshes the page in a frame, and disturbs nothing", async () => {
  const { page, model, set, frame, entry } = await embedded();
  await set("replace");
  await entry("harbour-s01e04").waitFor();
  const seen = model.seen.length;
  const steps = await page.evaluate(() => history.length);
  await entry("the-cartographer").locator("summary").click();
  await entry("the-cartographer").getByRole("button", { name: "Forget this title" }).click();
  await frame.getByRole("searchbox").fill("harbour");
  await gone(entry("northern-lights"));
  await entry("harbour-s01e02").locator("summary").click();
  const menu = entry("harbour-s01e02").getByRole("button", { name: "Mark as not watched" });
  await menu.focus();
  const busy = await frame.locator("#loading").evaluateHandle((element) => {
    const seen = { shown: false };
    new MutationObserver(() => (seen.shown ||= !Reflect.get(element, "hidden"))).observe(element, { attributes: true });
    return seen;
  });
  model.sessions.unshift(session(0, { title_id: "harbour-s01e05" }));
  for (const [at, way] of ["replace", "src", "replace"].entries()) {
    await set(way);
    await until("the list", () => model.seen.slice(seen).filter(({ path }) => path === "history").length === at + 1);
  }
  await entry("harbour-s01e05").waitFor();
  assert.ok(await menu.evaluate((button) => button === document.activeElement), "the menu is open, with the focus in it");
  assert.equal(await frame.getByRole("searchbox").inputValue(), "harbour");
  assert.equal(await entry("northern-lights").count(), 0);
  assert.equal(await busy.evaluate(({ shown }) => shown), false, "it flickered");
  assert.deepEqual(model.changes(), [], "sent while it can be undone");
  await frame.locator(".notice").getByRole("button", { name: "Undo" }).click();
  await frame.getByRole("searchbox").fill("");
  await entry("the-cartographer").waitFor();
  assert.equal(await page.evaluate(() => history.length), steps + 1, "only setting `src` adds a step back");
});

test("without a token it says where to come from", async () => {
  const { page, model } = await member({ token: null });
  await page.getByRole("alert").getByText("Open this page from the app").waitFor();
  assert.deepEqual(model.seen, []);
});

test("an empty history says so", async () => {
  const { page } = await member({ sessions: [] });
  await page.getByText("Nothing here yet").waitFor();
  assert.equal(await page.getByRole("heading", { name: "Continue watching" }).count(), 0);
  await accessible(page, "empty");
});

test("markup in titles and devices is text", async () => {
  const markup = `<img src=x onerror="document.title='broken'"><b>bold</b>`;
  const odd = [markup, "crid://a.example/b:c+d=/é", "a&amp;b", "__proto__"];
  const { page, titles, entry, model } = await member({
    sessions: odd.map((title_id, at) => session(at + 1, { title_id, kind: at ? "tv" : markup })),
  });
  await entry("__proto__").waitFor();
  assert.deepEqual(await titles(), odd);
  assert.equal(await page.locator(".entry .device").first().textContent(), markup);
  assert.equal(await page.locator("img, b").count(), 0);
  assert.equal(await page.title(), "Viewing activity");
  for (const title of odd) {
    await page.locator(".entry").first().locator("summary").click();
    await page.locator(".entry").first().getByRole("button", { name: "Mark as watched" }).click();
    await until("the call", () => model.changes().at(-1) === `PUT titles/${title}/watched`);
    await page.locator(".entry").first().getByRole("button", { name: "Hide" }).click();
  }
});

test("a slow API: says so, and shows everything in the end", async () => {
  const { page, entry, model } = await member({ fault: ({ path }) => (path === "history" ? "hang" : "pass") });
  await page.locator(".skeleton").waitFor();
  await until("the call", () => model.seen.some(({ path }) => path === "history"));
  await page.clock.fastForward(5_000);
  await page.locator("#note").getByText("taking longer than usual").waitFor();
  model.fault = () => "pass";
  await page.getByRole("button", { name: "Refresh" }).click();
  await entry("glass-gardens").waitFor();
  assert.equal(await page.locator(".skeleton").isVisible(), false);
  assert.equal(await page.locator("#note").isVisible(), false);
});

test("a refresh in place while the first list is loading still says that it loads", async () => {
  const { page, entry, model } = await member({ fault: ({ path }) => (path === "history" ? "hang" : "pass") });
  const lists = () => model.seen.filter(({ path }) => path === "history").length;
  await until("the first list", () => lists() === 1);
  await handOver(page);
  await until("another one", () => lists() === 2);
  assert.ok(await page.locator(".skeleton").isVisible());
  assert.equal(await page.locator("#note").isVisible(), false);
  model.fault = () => "pass";
  await handOver(page);
  await entry("glass-gardens").waitFor();
});

test("a 503 is tried again after Retry-After, without bothering the member", async () => {
  let refused = 0;
  const { page, entry } = await member({
    fault: ({ path }) => {
      if (path !== "history" || refused === 2) return "pass";
      refused += 1;
      return { status: 503, headers: { "retry-after": "2" } };
    },
  });
  await until("a refusal", () => refused === 1);
  await page.clock.fastForward(1_000);
  assert.equal(refused, 1, "it did not wait");
  await page.clock.fastForward(1_500);
  await until("another", () => refused === 2);
  await page.clock.fastForward(2_500);
  await entry("glass-gardens").waitFor();
  assert.equal(await page.locator("#problem").isVisible(), false);
});

for (const [name, fault, said] of /** @type {[string, import("./model.js").Fault, string][]} */ ([
  ["an API that is down", { status: 503, headers: { "retry-after": "30" } }, "does not answer right now"],
  ["an API that refuses more (429)", { status: 429, headers: { "retry-after": "30" } }, "service is busy"],
  ["no network", "break", "no connection"],
])) {
  test(`${name}: a button tries again, and nothing that was there is lost`, async () => {
    const many = Array.from({ length: 60 }, (_, at) => session(at * 9 + 5, { title_id: `film-${at}.` }));
    const { page, titles, model } = await member({ sessions: many });
    await page.locator(".entry").nth(49).waitFor();
    model.fault = () => fault;
    await page.getByRole("button", { name: "Show more" }).click();
    await page.clock.runFor(15_000);
    await page.getByText(said).first().waitFor();
    assert.equal((await titles()).length, 50);
    await accessible(page, name);
    model.fault = () => "pass";
    await page.getByRole("button", { name: "Try again" }).click();
    await page.locator(".entry").nth(59).waitFor();
    assert.deepEqual(await titles(), many.map(({ title_id }) => title_id));
    assert.equal(await page.locator("#problem").isVisible(), false);
  });
}

test("a change that fails is taken back on the page, and can be tried again", async () => {
  const { page, entry, notice, model } = await member();
  await entry("northern-lights").waitFor();
  model.fault = ({ method }) => (method === "GET" ? "pass" : { status: 503, headers: { "retry-after": "30" } });
  await entry("northern-lights").getByRole("button", { name: "Hide" }).click();
  await notice.getByText("Nothing was changed").waitFor();
  await entry("northern-lights").waitFor();
  model.fault = () => "pass";
  await notice.getByRole("button", { name: "Try again" }).click();
  await gone(entry("northern-lights"));
  await until("it is hidden", () => model.sessions.some(({ hidden }) => hidden));
  assert.equal(await page.locator(".notice").count(), 1);
});

test("can be used with the keyboard alone", async () => {
  const { page, entry, model } = await member();
  await entry("glass-gardens").waitFor();
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent);
  const press = (/** @type {string} */ key) => page.keyboard.press(key);
  await press("Tab");
  assert.equal(await focused(), "Skip to what you watched");
  await press("Enter");
  await press("Tab");
  assert.equal(await focused(), "Hide: harbour-s01e04");
  await press("Enter");
  assert.equal(await focused(), "Undo");
  await page.clock.fastForward(UNDONE_NO_MORE_MS);
  assert.equal(await focused(), "Undo", "a member who is at it is not hurried");
  await press("Enter");
  await entry("harbour-s01e04").waitFor();
  assert.equal(await focused(), "Hide: harbour-s01e03", "the focus is where it was, not at the top");

  await press("Tab");
  await press("Enter");
  assert.equal(await entry("harbour-s01e03").locator("details").getAttribute("open"), "");
  await press("Tab");
  assert.equal(await focused(), "Mark as not watched: harbour-s01e03");
  await press("Escape");
  assert.equal(await entry("harbour-s01e03").locator("details").getAttribute("open"), null);
  assert.equal(await focused(), "More: harbour-s01e03");
  await press("Enter");
  for (let at = 0; at < 2; at++) await press("Tab");
  await press("Enter");
  assert.equal(await entry("harbour-s01e03").count(), 0);
  assert.equal(await focused(), "Undo");
  await press("Control+z");
  await entry("harbour-s01e03").waitFor();

  await page.getByRole("button", { name: "Erase everything…" }).focus();
  await press("Enter");
  assert.equal(await focused(), "Keep it", "the safe answer is the first");
  await press("Escape");
  assert.equal(await focused(), "Erase everything…");
  await press("Enter");
  await press("Tab");
  await press("Enter");
  assert.equal(await entry("glass-gardens").count(), 0);
  await press("Enter");
  await entry("glass-gardens").waitFor();
  await until("the calls", () => model.changes().length === 2);
  assert.ok(model.changes().every((change) => change.endsWith("/hidden")), "nothing was forgotten");
});

test("only allowed pages may have it in a frame", async () => {
  const { page, model, wrong } = await member({ token: null });
  await page.goto(`${model.origin}/another-page`);
  const framed = page.frameLocator("iframe").getByRole("heading", { name: "Viewing activity" });
  assert.equal(await framed.count(), 0);
  // As with `AllowedOrigins`.
  const policy = model.headers["content-security-policy"]?.replace("frame-ancestors 'none'", "frame-ancestors *");
  model.headers = { ...model.headers, "content-security-policy": policy ?? "" };
  await page.reload();
  await framed.waitFor();
  assert.ok(wrong.splice(0).every((message) => message.includes("frame-ancestors")));
});

for (const [name, look] of Object.entries(LOOKS)) {
  test(`is accessible, and looks as in the documents: ${name}`, async () => {
    const here = await member({ look: { ...look, ...(name === "phone" && { deviceScaleFactor: 2 }) } });
    const { page, entry, notice } = here;
    await entry("glass-gardens").waitFor();
    await page.waitForLoadState("networkidle");
    const width = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(width <= 0, `it is ${width} px too wide`);
    const picture = await page.screenshot({ animations: "disabled" });
    assert.ok(picture.length < 150_000, `the picture has ${picture.length} bytes`);
    if (process.env["PLAYHEAD_BLESS"]) {
      const images = new URL("../../../../docs/images/", import.meta.url);
      mkdirSync(images, { recursive: true });
      writeFileSync(new URL(`activity-${name}.png`, images), picture);
    }
    await accessible(page, "loaded");
    await entry("northern-lights").locator("summary").click();
    await accessible(page, "with an open menu");
    await entry("northern-lights").getByRole("button", { name: "Hide" }).click();
    await notice.waitFor();
    await page.getByLabel("Show hidden").check();
    await entry("northern-lights").waitFor();
    await accessible(page, "with hidden ones and a notice");
    await page.getByRole("button", { name: "Erase everything…" }).click();
    await accessible(page, "with the question");
  });
}

/**
 * The live page in a real browser, on the real local cloud: its figures move, its player's events
 * reach the member's view, and what is broken by its controls shows, and works again afterwards.
 *
 * `PLAYHEAD_STATUS` is what `cargo playhead local status --json` prints, and `PLAYHEAD` the built command.
 * With `PLAYHEAD_BLESS=1` the pictures in docs/images are made anew.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { chromium } from "playwright-core";

const { live_page: URL_OF_PAGE, log_bootstrap: BOOTSTRAP } = JSON.parse(process.env.PLAYHEAD_STATUS ?? "{}");
const { PLAYHEAD } = process.env;
const IMAGES = new URL("../../../docs/images/", import.meta.url).pathname;
const LARGEST_IMAGE = 250_000;
/** How long anything may take: far more than it takes on an idle machine. */
const PATIENCE_MS = 90_000;
/** A function that hangs on the store gives up after a minute, and its records are tried again later. */
const LONG_MS = 240_000;

let browser, page;
const problems = [];

before(async () => {
  assert.ok(URL_OF_PAGE, "PLAYHEAD_STATUS must be what `cargo playhead local status --json` prints");
  const found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
  const executablePath = process.env.CHROMIUM ?? found;
  assert.ok(executablePath, "Chromium is missing: apt-get install chromium, or set CHROMIUM");
  browser = await chromium.launch({ executablePath, args: ["--autoplay-policy=no-user-gesture-required", "--no-sandbox"] });
  page = await open();
});
after(() => browser?.close());
// A test that failed in the middle of a fault must not fail the others.
afterEach(() => click("Afterwards: Repair everything"));

async function open(options = {}) {
  const opened = await browser.newPage({ viewport: { width: 1440, height: 900 }, ...options });
  opened.on("pageerror", ({ message }) => problems.push(message));
  await opened.goto(URL_OF_PAGE);
  await opened.waitForFunction(() => window.snapshot, undefined, { timeout: PATIENCE_MS });
  return opened;
}

const click = (name) => page.getByRole("button", { name, exact: true }).click();
/** Waits until the newest snapshot is as wanted. The page's policy forbids to send it a function. */
async function until(wanted, patience = PATIENCE_MS) {
  for (const deadline = Date.now() + patience; !wanted(await snapshot()); await new Promise((done) => setTimeout(done, 250))) {
    const { notes, ...rest } = await snapshot();
    assert.ok(Date.now() < deadline, `waited in vain for ${wanted} in ${JSON.stringify(rest)} ${JSON.stringify(notes)}`);
  }
}
const snapshot = () => page.evaluate(() => window.snapshot);
const note = (text) => page.locator("#notes li", { hasText: text }).first().waitFor({ timeout: LONG_MS });

/** Stops the viewers and waits until all events have ended. */
async function drain() {
  await click("Afterwards: Drain");
  await until(({ draining }) => draining);
  await until(({ draining }) => !draining, LONG_MS);
}

test("figures move", async () => {
  await click("Viewers: × 10");
  await until(({ all, traffic }) => all.totals.accepted > 100 && all.rates.folded > 1 && traffic.p50_ms > 0);
  assert.match(await page.locator("#verdict").textContent(), /takes? (the )?writes/);
  assert.match(await page.locator("#l-post").textContent(), /\/s$/);
});

for (const [name, options] of Object.entries({
  light: { colorScheme: "light" },
  dark: { colorScheme: "dark" },
  phone: { colorScheme: "light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true },
})) {
  test(`${name}: no serious finding of axe, nothing wider than the screen`, async () => {
    // axe is injected, which the page's own policy forbids to everybody else.
    const other = await open({ ...options, bypassCSP: true });
    await other.waitForTimeout(3_000);
    await other.addScriptTag({ path: new URL("node_modules/axe-core/axe.min.js", import.meta.url).pathname });
    const { violations } = await other.evaluate(() => window.axe.run({ iframes: false }));
    const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
    assert.deepEqual(serious.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), []);
    const [wide, screen] = await other.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide <= screen, `the page is ${wide} wide, the screen ${screen}`);
    await other.close();
  });
}

test("every control is reached by the keyboard", async () => {
  await page.locator("#speed").focus();
  const seen = new Set();
  for (let step = 0; step < 40; step++) {
    await page.keyboard.press("Tab");
    seen.add(await page.evaluate(() => document.activeElement.getAttribute("aria-label")));
  }
  for (const name of ["Viewers: Off", "The store: Hangs", "Poison: Drop 1", "Afterwards: Drain"]) {
    assert.ok(seen.has(name), `${name} is not among ${[...seen]}`);
  }
});

test("events of the player reach the member's view", async () => {
  await page.evaluate(() => {
    window.lit = new Set();
    const note = () => document.querySelectorAll(".mine, .lit").forEach(({ id }) => window.lit.add(id));
    new MutationObserver(note).observe(document.body, { subtree: true, attributes: true, attributeFilter: ["class"] });
    return document.getElementById("video").play();
  });
  await page.waitForFunction(() => /view: at \d+:\d\d, .* [1-9]\d* events/.test(document.getElementById("own-view").textContent), undefined, { timeout: PATIENCE_MS });
  const lit = await page.evaluate(() => [...window.lit]);
  for (const part of ["a-post", "a-primary", "a-views", "a-member", "b-member"]) assert.ok(lit.includes(part), `${part} was not lit: ${lit}`);
  await page.evaluate(() => {
    document.getElementById("video").currentTime = 100;
  });
  await page.waitForFunction(() => /at 1:4\d/.test(document.getElementById("own-view").textContent), undefined, { timeout: PATIENCE_MS });
  const member = await page.locator("#member").innerHTML();
  assert.match(member, /<iframe|test-film/);
  // The books of the next tests stand still only without it.
  await page.evaluate(() => document.getElementById("video").pause());
});

test("pictures for the documentation", { skip: process.env.PLAYHEAD_BLESS !== "1" }, async () => {
  mkdirSync(IMAGES, { recursive: true });
  const pictures = { light: [1240, 900, "light", 1], dark: [1240, 900, "dark", 1], phone: [390, 844, "light", 1.5] };
  for (const [name, [width, height, colorScheme, deviceScaleFactor]] of Object.entries(pictures)) {
    const other = await open({ viewport: { width, height }, colorScheme, deviceScaleFactor });
    await other.evaluate(() => document.getElementById("video").play());
    await other.waitForTimeout(15_000);
    const path = `${IMAGES}live-${name}.png`;
    await other.screenshot({ path });
    const { length } = readFileSync(path);
    assert.ok(length < LARGEST_IMAGE, `${path} has ${length} bytes`);
    await other.close();
  }
});

test("a burst of poison becomes dead letters, stops nothing, and ends by the runbook", async () => {
  // Among good records: a batch of little else but poison waits, as it would for a bug of ours.
  await click("Viewers: × 10");
  await until(({ all }) => all.rates.folded > 20);
  const { poison, all } = await snapshot();
  await click("Poison: Drop 10");
  await until((now) => now.poison === poison + 10 && now.all.totals.dead_records === all.totals.dead_records + 10);
  await until(({ regions }) => regions[0].queues.dead_letter >= 10);
  await drain();
  await note("the books balance");
  assert.match(await page.locator("#books-words").textContent(), /They balance/);
  // As docs/operate.md has it: see what they are, then throw away what is worthless.
  assert.match(dlq("list"), /not_an_envelope/);
  const saved = join(mkdtempSync(join(tmpdir(), "playhead-")), "dead.jsonl");
  dlq("discard", "--reason", "not_an_envelope", "--yes", "--save", saved);
  assert.ok(readFileSync(saved, "utf8").trim().split("\n").length >= 10);
  await until(({ regions }) => regions[0].queues.dead_letter === 0);
});

/** Runs `cargo playhead dlq` on the local cloud. @param {string[]} args */
function dlq(...args) {
  assert.ok(PLAYHEAD, "PLAYHEAD must be the built command, such as target/debug/playhead");
  return execFileSync(PLAYHEAD, ["dlq", ...args], { encoding: "utf8" });
}

test("a store that hangs shows as lag, and everything is applied afterwards", async () => {
  await click("Viewers: Gentle");
  await until(({ all }) => all.rates.folded > 0);
  await click("The store: Hangs");
  await until(({ all }) => all.lag_ms > 5000 && all.totals.in_flight > 0);
  await page.locator("#b-views.down").waitFor();
  const { all } = await snapshot();
  assert.ok(all.rates.accepted > 0, "devices do not wait for the store");
  await click("The store: Answers");
  await drain();
  assert.equal((await snapshot()).all.balanced, true);
});

test("the standby takes over while the primary log hangs", async () => {
  await click("Viewers: Gentle");
  await until(({ regions }) => regions[0].figures.takes === "primary");
  await click("The primary log: Hang it");
  await until(({ regions }) => regions[0].figures.takes === "standby");
  await page.locator("#b-primary.down").waitFor();
  await click("The primary log: Let it go on");
  await until(({ regions }) => regions[0].figures.takes === "primary");
  await drain();
  await note("the books balance");
});

test("a broker that dies outside our hands is down, and is revived", async () => {
  const { regions } = await snapshot();
  const { brokers } = regions[0].parts.primary;
  // The broker's own process: the page does not know its id.
  const port = BOOTSTRAP.split(",")[0].split(":")[1];
  process.kill(listener(port), "SIGKILL");
  await until(({ regions }) => regions[0].parts.primary.brokers[0] === "down");
  await note("broker 0 of the primary log is down");
  await click("Viewers: Gentle");
  const takes = brokers.length === 1 ? "standby" : "primary";
  await until(({ regions }) => regions[0].figures.takes === takes);
  await click("The primary log: Revive broker 0");
  await until(({ regions }) => regions[0].parts.primary.brokers.every((state) => state === "up"));
  await until(({ regions }) => regions[0].figures.takes === "primary");
  await until(({ all }) => all.rates.folded > 0);
  await drain();
});

/** The process that listens on a port of the loopback interface, as /proc has it. */
function listener(port) {
  const wanted = `0100007F:${Number(port).toString(16).toUpperCase().padStart(4, "0")}`;
  const lines = ["tcp", "tcp6"].flatMap((name) => readFileSync(`/proc/net/${name}`, "utf8").split("\n"));
  const columns = lines.map((line) => line.trim().split(/\s+/));
  const inode = columns.find(([, local, , state]) => local?.endsWith(wanted) && state === "0A")?.[9];
  assert.ok(inode, `nobody listens on ${port}`);
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).find((pid) => holds(pid, inode));
}

function holds(pid, inode) {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`);
  } catch {
    return false; // it has ended, or is not ours
  }
}

test("requests of other pages are refused", async () => {
  const ask = (method, path, headers) =>
    new Promise((resolve, reject) => {
      const asked = request(new URL(path, URL_OF_PAGE), { method, headers }, (answer) => resolve(answer.resume().statusCode));
      asked.on("error", reject).end(method === "POST" ? '{"do":"drain"}' : undefined);
    });
  assert.equal(await ask("GET", "/config", { host: "rebound.example" }), 421);
  assert.equal(await ask("POST", "/controls", { origin: "https://elsewhere.example", "content-type": "application/json" }), 403);
  assert.equal(await ask("POST", "/controls", { origin: new URL(URL_OF_PAGE).origin, "content-type": "text/plain" }), 415);
});

test("nothing went wrong in the page", () => assert.deepEqual(problems, []));

/** A headless Chromium with the page in it, and what several tests ask of it. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { NOW } from "./model.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export async function launch() {
  const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  const executablePath = process.env["CHROMIUM"] ?? places.find(existsSync);
  assert.ok(executablePath, "Chromium is missing: apt-get install chromium, or set CHROMIUM");
  return chromium.launch({ executablePath, args: ["--no-sandbox"] });
}

/** The three ways in which the page is looked at. */
export const LOOKS = /** @type {const} */ ({
  light: { viewport: { width: 1120, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1120, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: "light", isMobile: true, hasTouch: true },
});

/**
 * Opens an address. The page's clock begins at `NOW` and can be moved. What goes wrong in the page,
 * and what it asks of other origins, is in `wrong`.
 *
 * @param {import("playwright-core").Browser} browser
 * @param {string} url
 * @param {import("playwright-core").BrowserContextOptions} [look]
 * @param {number} [now]
 */
export async function open(browser, url, look = LOOKS.light, now = NOW) {
  const context = await browser.newContext({ locale: "en-GB", timezoneId: "Europe/Berlin", ...look });
  const page = await context.newPage();
  /** @type {string[]} */
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  // The browser itself reports each refused call here. Those are what some tests are about.
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) wrong.push(message.text());
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) wrong.push(request.url());
  });
  await page.clock.install({ time: now });
  await page.goto(url);
  return { context, page, wrong };
}

/**
 * No finding of axe that is serious or critical.
 *
 * @param {import("playwright-core").Page} page
 * @param {string} what
 */
export async function accessible(page, what) {
  await page.evaluate(AXE);
  /** @type {import("axe-core").Result[]} */
  const violations = await page.evaluate(async () => (await Reflect.get(window, "axe").run(document)).violations);
  const bad = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const said = bad.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  assert.deepEqual(said, [], what);
}

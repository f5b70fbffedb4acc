/** Times, durations and words, in the member's language and time zone where the browser knows it. */

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "long" });
const dayOfYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });

/** @param {string} text */
const capital = (text) => text.charAt(0).toLocaleUpperCase() + text.slice(1);

/** @param {"hour" | "minute" | "second"} name */
const unit = (name) => new Intl.NumberFormat(undefined, { style: "unit", unit: name, unitDisplay: "short" });
const [hours, minutes, seconds] = [unit("hour"), unit("minute"), unit("second")];

/** @param {number} ms */
export function duration(ms) {
  if (ms < MINUTE_MS) return seconds.format(Math.floor(ms / 1_000));
  const all = Math.round(ms / MINUTE_MS);
  const [h, min] = [Math.floor(all / 60), all % 60];
  if (h === 0) return minutes.format(min);
  return min === 0 ? hours.format(h) : `${hours.format(h)} ${minutes.format(min)}`;
}

/**
 * How many days ago, by the calendar.
 *
 * @param {number} at
 * @param {number} now
 */
function daysAgo(at, now) {
  // At noon, as a day may have 23 or 25 hours.
  const noon = (/** @type {number} */ time) => new Date(time).setHours(12, 0, 0, 0);
  return Math.round((noon(now) - noon(at)) / DAY_MS);
}

/**
 * A day as a heading.
 *
 * @param {number} at
 * @param {number} now
 */
export function heading(at, now) {
  const ago = daysAgo(at, now);
  if (ago <= 1) return capital(relative.format(-Math.max(ago, 0), "day"));
  if (ago < 7) return capital(weekday.format(at));
  return new Date(at).getFullYear() === new Date(now).getFullYear() ? day.format(at) : dayOfYear.format(at);
}

/**
 * A time below the heading of its day.
 *
 * @param {number} at
 * @param {number} now
 */
export function timeOfDay(at, now) {
  const passed = Math.max(now - at, 0);
  if (passed < MINUTE_MS) return capital(relative.format(0, "second"));
  if (passed < 60 * MINUTE_MS) return capital(relative.format(-Math.floor(passed / MINUTE_MS), "minute"));
  return clock.format(at);
}

/**
 * A time without a heading.
 *
 * @param {number} at
 * @param {number} now
 */
export function ago(at, now) {
  const days = daysAgo(at, now);
  if (days <= 0) {
    const passed = now - at;
    return passed < 60 * MINUTE_MS ? timeOfDay(at, now) : relative.format(-Math.floor(passed / (60 * MINUTE_MS)), "hour");
  }
  if (days < 7) return relative.format(-days, "day");
  return days < 35 ? relative.format(-Math.round(days / 7), "week") : dayOfYear.format(at);
}

/** @param {number} at */
export const exactly = (at) => whole.format(at);

// In the language of the sentence around it.
const list = new Intl.ListFormat("en-GB");

/**
 * Some names, in one line: of more than three, two and how many more.
 *
 * @param {string[]} names
 */
export const listed = (names) =>
  list.format(names.length > 3 ? [...names.slice(0, 2), `${names.length - 2} more`] : names);

/** @type {Record<string, string>} */
const DEVICES = {
  tv: "TV",
  phone: "Phone",
  mobile: "Phone",
  tablet: "Tablet",
  web: "Web browser",
  browser: "Web browser",
  desktop: "Computer",
  computer: "Computer",
  console: "Games console",
};

/** @param {string | null} kind the player's word, if it gave one */
export const device = (kind) => (kind === null ? "Unknown device" : (DEVICES[kind.toLowerCase()] ?? kind));

/**
 * How far a session came in its title, in per cent; nothing without a length.
 *
 * @param {{ position_ms: number, title_duration_ms: number | null, completed: boolean }} session
 */
export function reached({ position_ms, title_duration_ms, completed }) {
  if (completed) return 100;
  return title_duration_ms === null ? undefined : Math.min(100, Math.round((100 * position_ms) / title_duration_ms));
}

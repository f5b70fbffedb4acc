/**
 * The member's viewing activity: shows it, and changes it on the member's word.
 *
 * The page keeps what it has loaded in `state`, and `render` makes the document say so. A change
 * shows at once. One that can be taken back on the server is sent at once, too. One that cannot is
 * sent when its time for second thoughts is over, or when the page goes away.
 *
 * @typedef {import("./api.js").Session} Session
 * @typedef {{
 *   of: Api | undefined,
 *   target: string,
 *   said: string,
 *   apply: () => void,
 *   revert: () => void,
 *   send: () => Promise<void>,
 *   takeBack?: () => Promise<void>,
 *   sent?: () => void,
 * }} Change `of` is the API of the member who asked for it. `target` is what it changes: changes of one target are sent one after the other. Without
 *   `takeBack` it cannot be undone once it is sent
 */
import { Api, Failure, member } from "./api.js";
import { ago, device, duration, exactly, heading, listed, reached, timeOfDay } from "./format.js";

/** How many entries are shown at first, and how many more each time. */
const STEP = 50;
/** How many are loaded at once while searching: the most that the API gives. */
const SEARCH_STEP = 100;
/** Of how many titles is asked at once: the most that the API takes. */
const TITLES_STEP = 100;
/** How long a change can be undone. */
const UNDO_MS = 8_000;
/** After how long without an answer the member is told that it takes long. */
const SLOW_MS = 4_000;
/** How old what is shown may be when the member comes back to the page. */
const STALE_MS = 60_000;
const MAX_NOTICES = 3;

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function find(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page has no ${id}`);
  return element;
}

/**
 * @param {Element} within
 * @param {string} selector
 * @returns {HTMLElement}
 */
function part(within, selector) {
  const element = within.querySelector(selector);
  if (!(element instanceof HTMLElement)) throw new Error(`the page has no ${selector}`);
  return element;
}

const $ = {
  profile: find("profile", HTMLElement),
  search: find("search", HTMLInputElement),
  hidden: find("hidden", HTMLInputElement),
  refresh: find("refresh", HTMLButtonElement),
  erase: find("erase", HTMLButtonElement),
  ended: find("ended", HTMLElement),
  continue: find("continue", HTMLElement),
  cards: find("cards", HTMLElement),
  history: find("history", HTMLElement),
  days: find("days", HTMLElement),
  loading: find("loading", HTMLElement),
  note: find("note", HTMLElement),
  problem: find("problem", HTMLElement),
  problemText: find("problem-text", HTMLElement),
  retry: find("retry", HTMLButtonElement),
  more: find("more", HTMLButtonElement),
  live: find("live", HTMLElement),
  notices: find("notices", HTMLElement),
  confirm: find("confirm", HTMLDialogElement),
  confirmNo: find("confirm-no", HTMLButtonElement),
  confirmYes: find("confirm-yes", HTMLButtonElement),
};

/** @param {string} id */
function clone(id) {
  const copy = find(id, HTMLTemplateElement).content.firstElementChild?.cloneNode(true);
  if (!(copy instanceof HTMLElement)) throw new Error(`the template ${id} is empty`);
  return copy;
}

const state = {
  /** @type {Api | undefined} */
  api: undefined,
  /** @type {Session[]} newest first */
  entries: [],
  /** @type {Session[]} */
  cards: [],
  /** @type {string | null} for the entries after those; `null` at the end */
  next: null,
  /** @type {Map<string, boolean>} whether a title was watched, as far as it is known */
  watched: new Map(),
  /** @type {Set<string>} titles that left `cards` because they were marked */
  marked: new Set(),
  /** @type {Set<(session: Session) => boolean>} what is forgotten, or about to be */
  gone: new Set(),
  erasing: false,
  query: "",
  withHidden: false,
  shown: STEP,
  loading: false,
  /** What is being loaded is not shown as such, because nobody here asked for it. */
  quiet: false,
  slow: false,
  loadedAt: 0,
  /** Answers to calls of an earlier list are dropped. */
  list: 0,
  /** @type {{ text: string, again: () => void } | undefined} */
  problem: undefined,
  ended: false,
};

// ------------------------------------------------------------------------------------- what is shown

/** @param {Session} session */
const keyOf = ({ session_id, title_id }) => `${session_id} ${title_id}`;
/** A session's place in time: its id without its home. @param {Session} session */
const placeOf = ({ session_id }) => session_id.slice(session_id.indexOf("-") + 1);
/** @param {Session} session */
const isGone = (session) => [...state.gone].some((covers) => covers(session));
/** @param {Session} session */
const isWatched = ({ title_id, completed }) => state.watched.get(title_id) ?? completed;

/**
 * The titles of a viewing that are loaded: hiding or forgetting it reaches all of them.
 *
 * @param {Session} session
 */
function titlesOf({ session_id }) {
  const isOne = (/** @type {Session} */ one) => one.session_id === session_id && !isGone(one);
  const all = [...state.entries.filter(isOne), ...state.cards.filter(isOne)];
  return [...new Set(all.map(({ title_id }) => title_id))];
}

/** @param {Session} session */
function matches(session) {
  const text = `${session.title_id} ${device(session.device.kind)}`.toLowerCase();
  return state.query.split(/\s+/).every((word) => text.includes(word));
}

const visible = () =>
  state.entries.filter((entry) => (state.withHidden || !entry.hidden) && !isGone(entry) && matches(entry));
const visibleCards = () => state.cards.filter((card) => !card.hidden && !isGone(card) && !state.marked.has(card.title_id));

/** @type {Map<string, HTMLElement>} */
const rows = new Map();
/** @type {WeakMap<Element, Session>} */
const sessionOf = new WeakMap();

/**
 * Makes these the children of an element. What stays is not touched, so it keeps its focus.
 *
 * @param {Element} parent
 * @param {HTMLElement[]} children
 */
function arrange(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (!(child instanceof HTMLElement && wanted.has(child))) child.remove();
  let at = parent.firstElementChild;
  for (const child of children) {
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
}

/**
 * @param {Element} row
 * @param {string} name
 * @param {string} text
 * @param {string} title
 * @param {string} [rest] of the text, for those who do not see what is around it
 */
function label(row, name, text, title, rest = "") {
  const button = part(row, `[data-do="${name}"]`);
  button.textContent = text;
  button.setAttribute("aria-label", `${text}${rest}: ${title}`);
}

/**
 * @param {Element} row
 * @param {Session} session
 */
function labelHide(row, session) {
  const [verb, count] = [session.hidden ? "Show" : "Hide", titlesOf(session).length];
  if (count > 1) label(row, "hide", `${verb} ${count} titles`, session.title_id, " of this viewing");
  else label(row, "hide", verb, session.title_id);
}

/**
 * @param {Element} row
 * @param {string} title
 */
function paintTile(row, title) {
  let hue = 0;
  for (const letter of title) hue = (hue * 31 + letter.charCodeAt(0)) % 360;
  const tile = part(row, ".tile");
  tile.style.setProperty("--hue", String(hue));
  // An id often begins with what all ids begin with.
  tile.textContent = (/[\p{L}\p{N}]{1,2}$/u.exec(title)?.[0] ?? "?").toUpperCase();
}

/**
 * @param {Element} row
 * @param {Session} session
 * @param {string} time
 * @param {number} at
 */
function fillIn(row, session, time, at) {
  const { title_id, position_ms, title_duration_ms, completed } = session;
  const when = row.querySelector("time");
  if (when) {
    when.textContent = time;
    when.dateTime = new Date(at).toISOString();
    when.title = exactly(at);
  }
  part(row, ".title").textContent = title_id;
  part(row, ".device").textContent = device(session.device.kind);
  paintTile(row, title_id);
  const bar = row.querySelector("progress");
  const percent = reached(session);
  if (bar) {
    bar.hidden = percent === undefined;
    bar.value = percent ?? 0;
    bar.setAttribute("aria-label", `Progress of ${title_id}`);
  }
  if (completed) return "Finished";
  // Live, or a player that does not know. Then the position says nothing: it may count from 1970.
  if (title_duration_ms === null) return "";
  return `${duration(Math.min(position_ms, title_duration_ms))} of ${duration(title_duration_ms)}`;
}

/**
 * The element of a session, in the list of entries or of cards.
 *
 * @param {"entry" | "card"} kind
 * @param {Session} session
 */
function rowOf(kind, session) {
  const key = `${kind} ${keyOf(session)}`;
  const row = rows.get(key) ?? clone(kind);
  rows.set(key, row);
  sessionOf.set(row, session);
  return row;
}

/**
 * @param {Session} session
 * @param {number} now
 */
function entryOf(session, now) {
  const row = rowOf("entry", session);
  const { title_id, hidden } = session;
  part(row, ".reached").textContent = fillIn(row, session, timeOfDay(session.started_at, now), session.started_at);
  part(row, ".played").textContent = session.played_ms ? ` · ${duration(session.played_ms)} watched` : "";
  const watched = isWatched(session);
  part(row, ".seen").hidden = !watched;
  part(row, ".veiled").hidden = !hidden;
  row.classList.toggle("is-hidden", hidden);
  labelHide(row, session);
  label(row, "watched", watched ? "Mark as not watched" : "Mark as watched", title_id);
  const count = titlesOf(session).length;
  label(row, "forget-session", `Forget this viewing${count > 1 ? ` of ${count} titles` : ""}`, title_id);
  label(row, "forget-title", "Forget this title", title_id);
  part(row, "summary").setAttribute("aria-label", `More: ${title_id}`);
  return row;
}

/**
 * @param {Session} session
 * @param {number} now
 */
function cardOf(session, now) {
  const row = rowOf("card", session);
  const { title_id, title_duration_ms, position_ms, played_ms, watched_at } = session;
  fillIn(row, session, ago(watched_at, now), watched_at);
  part(row, ".left").textContent =
    title_duration_ms === null
      ? `${duration(played_ms)} watched`
      : `${duration(Math.max(title_duration_ms - position_ms, 0))} left`;
  label(row, "watched", "Mark watched", title_id);
  labelHide(row, session);
  return row;
}

/**
 * The shown entries below the headings of their days.
 *
 * @param {Session[]} shown
 * @param {number} now
 */
function renderDays(shown, now) {
  /** @type {Map<string, HTMLElement[]>} */
  const days = new Map();
  for (const entry of shown) {
    const name = heading(entry.started_at, now);
    const day = days.get(name) ?? [];
    day.push(entryOf(entry, now));
    days.set(name, day);
  }
  const sections = [...days].map(([name, entries]) => {
    const section = rows.get(`day ${name}`) ?? clone("day");
    rows.set(`day ${name}`, section);
    part(section, "h3").textContent = name;
    arrange(part(section, "ul"), entries);
    return section;
  });
  arrange($.days, sections);
}

const isBusy = () => state.loading && !state.quiet;

function note() {
  if (state.slow) return "This is taking longer than usual…";
  if (isBusy()) return state.query && state.entries.length ? "Looking through older viewings…" : "";
  if (visible().length || state.next !== null || state.problem || state.ended) return "";
  if (state.query) return "Nothing you watched matches this search.";
  return "Nothing here yet. What you watch will show up on this page.";
}

function render() {
  const now = Date.now();
  const all = visible();
  const shown = all.slice(0, state.shown);
  renderDays(shown, now);
  const cards = state.query ? [] : visibleCards();
  arrange(
    $.cards,
    cards.map((card) => cardOf(card, now)),
  );
  $.continue.hidden = !cards.length;
  $.history.setAttribute("aria-busy", String(isBusy()));
  $.loading.hidden = !isBusy();
  const said = note();
  $.note.textContent = said;
  $.note.hidden = !said;
  $.problem.hidden = !state.problem || state.ended;
  $.problemText.textContent = state.problem?.text ?? "";
  $.more.hidden =
    isBusy() || state.ended || !!state.problem || state.erasing || (all.length <= shown.length && state.next === null);
  $.ended.hidden = !state.ended;
  document.body.classList.toggle("ended", state.ended);
}

/** Tells those who do not see the page. @param {string} text */
function say(text) {
  // The same text once more is news, too.
  $.live.textContent = $.live.textContent === text ? `${text}\u00a0` : text;
}

// ------------------------------------------------------------------------------------------- loading

/**
 * Learns whether the titles of these were watched. What is known counts until the answer is there.
 *
 * @param {Session[]} sessions
 */
async function learnWatched(sessions) {
  const { api } = state;
  const ids = [...new Set(sessions.map(({ title_id }) => title_id))];
  const before = new Map(state.watched);
  try {
    for (let from = 0; from < ids.length; from += TITLES_STEP) {
      const answer = await api?.titles(ids.slice(from, from + TITLES_STEP));
      if (!answer || api !== state.api) return;
      for (const { title_id, watched } of answer.titles) {
        // What the member has marked meanwhile is newer.
        if (state.watched.get(title_id) === before.get(title_id)) state.watched.set(title_id, watched);
      }
      render();
    }
  } catch (error) {
    // Until it is known, a finished viewing counts.
    if (api === state.api && error instanceof Failure && error.kind !== "later") fail(error, refresh);
  }
}

/** Whether no call works with this token. @param {Failure} error */
const isOfToken = ({ kind }) => kind === "ended" || kind === "forbidden";

/**
 * @param {unknown} error of a call with the newest token: what an older one gets is no news
 * @param {() => void} again
 */
function fail(error, again) {
  if (!(error instanceof Failure)) throw error;
  if (isOfToken(error)) return end(error.message);
  state.problem = { text: error.message, again };
  say(error.message);
}

/** Nothing can be loaded or changed without a new token. @param {string} text */
function end(text) {
  state.ended = true;
  state.list++;
  state.loading = state.slow = false;
  $.ended.textContent = text;
  render();
  $.ended.focus();
}

/**
 * Shows that something is being loaded, and that it takes long.
 *
 * @template T
 * @param {Promise<T>} answer
 * @param {boolean} [isQuiet] shows it only if it takes long
 * @returns {Promise<T | undefined>} nothing if the list has changed meanwhile
 */
async function load(answer, isQuiet = false) {
  const { list } = state;
  state.loading = true;
  state.quiet = isQuiet;
  state.problem = undefined;
  render();
  const slow = setTimeout(() => {
    if (list !== state.list) return;
    state.slow = true;
    render();
    say(note());
  }, SLOW_MS);
  try {
    const given = await answer;
    return list === state.list ? given : undefined;
  } catch (error) {
    if (list === state.list) throw error;
    return undefined;
  } finally {
    clearTimeout(slow);
    if (list === state.list) state.loading = state.slow = false;
  }
}

/** Loads on until there is as much to show as there should be. */
async function fill() {
  if (state.loading) return;
  try {
    while (
      state.api && state.next !== null && !state.ended && !state.erasing && visible().length < state.shown
    ) {
      const limit = state.query ? SEARCH_STEP : STEP;
      const page = await load(state.api.history({ limit, hidden: state.withHidden, after: state.next }));
      if (!page) return;
      const known = new Set(state.entries.map(keyOf));
      state.entries.push(...page.sessions.filter((session) => !known.has(keyOf(session))));
      state.next = page.next_page_token;
      void learnWatched(page.sessions);
    }
  } catch (error) {
    fail(error, fill);
  }
  render();
}

async function loadCards() {
  const { api, list } = state;
  try {
    const page = await api?.continueWatching();
    if (!page || list !== state.list) return;
    state.cards = page.sessions;
    state.marked.clear();
  } catch (error) {
    if (list === state.list) fail(error, refresh);
  }
  render();
}

/**
 * Loads the newest entries, and keeps the older ones that are loaded already.
 *
 * @param {boolean} [isQuiet]
 */
async function refresh(isQuiet = false) {
  const { api } = state;
  if (!api || state.ended) return;
  state.list++;
  const cards = loadCards();
  try {
    const page = await load(api.history({ limit: STEP, hidden: state.withHidden }), isQuiet);
    if (!page) return;
    const last = page.sessions.at(-1);
    const known = new Set(state.entries.map(keyOf));
    // Otherwise entries between the page and the older ones would be missing.
    const meets = last && page.next_page_token !== null && page.sessions.some((session) => known.has(keyOf(session)));
    const older = meets ? state.entries.filter((entry) => placeOf(entry) < placeOf(last)) : [];
    if (!older.length) state.next = page.next_page_token;
    state.entries = [...page.sessions, ...older];
    state.loadedAt = Date.now();
    void learnWatched(state.entries);
  } catch (error) {
    fail(error, refresh);
    return render();
  }
  render();
  await Promise.all([cards, fill()]);
}

// ------------------------------------------------------------------------------------------- changes

/** @type {Map<string, Promise<void>>} the last call about each target */
const queues = new Map();

/**
 * @param {string} target
 * @param {() => Promise<void>} send
 */
function inOrder(target, send) {
  const before = queues.get(target) ?? Promise.resolve();
  const sent = before.catch(() => undefined).then(send);
  queues.set(target, sent);
  return sent;
}

/** Whether the page has gone over to another member since. @param {Change} change */
const isOfAnother = ({ of }) => of?.profile !== state.api?.profile;

/**
 * Makes a call for the member who asks for it now: later with their newer token, if there is one, and
 * never with another member's.
 *
 * @param {(api: Api) => Promise<void>} call
 */
function asMember(call) {
  const { api } = state;
  const newest = () => (state.api?.profile === api?.profile ? state.api : api);
  return async function send() {
    const by = newest();
    if (!by) return;
    try {
      await call(by);
    } catch (error) {
      // It was refused because of its token, and a newer one came meanwhile.
      if (error instanceof Failure && isOfToken(error) && by !== newest()) return send();
      throw error;
    }
  };
}

/** @type {Set<(isLeaving?: boolean) => void>} sends what waits for second thoughts */
const waiting = new Set();

/**
 * @param {string} text
 * @param {string} action
 * @param {() => void} act
 * @param {() => void} [over] when it closes and nobody acted
 */
function notify(text, action, act, over = () => undefined) {
  const notice = clone("notice");
  part(notice, "p").textContent = text;
  const button = part(notice, ".act");
  button.textContent = action;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const close = () => {
    clearTimeout(timer);
    if (!notice.isConnected) return false;
    const hadFocus = notice.contains(document.activeElement);
    notice.remove();
    if (hadFocus) focusBack();
    return true;
  };
  const expire = () => void (close() && over());
  // Nobody is hurried: the time runs anew when the pointer and the keyboard have left it.
  const run = () => {
    clearTimeout(timer);
    if (!notice.matches(":hover, :has(:focus-visible)")) timer = setTimeout(expire, UNDO_MS);
  };
  notice.addEventListener("pointerenter", () => clearTimeout(timer));
  notice.addEventListener("focusin", run);
  notice.addEventListener("pointerleave", run);
  notice.addEventListener("focusout", () => setTimeout(run));
  button.addEventListener("click", () => void (close() && act()));
  part(notice, ".close").addEventListener("click", expire);
  $.notices.append(notice);
  while ($.notices.children.length > MAX_NOTICES) part($.notices, ".close").click();
  run();
  say(`${text} ${action} is at the end of the page.`);
  return { button, expire };
}

/** @type {Element | null | undefined} where the focus goes when what has it disappears */
let back;

function focusBack() {
  const place = back?.isConnected ? (back.querySelector("button, summary") ?? back) : $.history;
  if (place instanceof HTMLElement) place.focus({ preventScroll: place === $.history });
}

/**
 * Carries out what the member asked for in a row.
 *
 * @param {Change} change
 * @param {Element} [row]
 */
function perform(change, row) {
  back = row?.nextElementSibling ?? row?.previousElementSibling ?? row?.closest(".day")?.nextElementSibling;
  change.apply();
  render();
  const button = change.takeBack ? sendNow(change, change.takeBack) : sendLater(change);
  if (!row?.isConnected) button.focus();
  void fill();
}

/**
 * @param {Change} change
 * @param {unknown} error
 */
function refused(change, error) {
  if (!(error instanceof Failure)) throw error;
  if (isOfAnother(change)) return;
  change.revert();
  render();
  if (isOfToken(error)) return end(error.message);
  notify(`${error.message} Nothing was changed.`, "Try again", () => perform(change));
}

/**
 * @param {Change} change
 * @param {() => Promise<void>} takeBack
 */
function sendNow(change, takeBack) {
  let undone = false;
  inOrder(change.target, change.send).catch((error) => {
    // Then there is nothing to undo, and what was asked for last has happened.
    if (!undone) {
      expire();
      refused(change, error);
    }
  });
  const undo = () => {
    undone = true;
    change.revert();
    render();
    say("Undone.");
    inOrder(change.target, takeBack).catch((error) => {
      if (isOfAnother(change)) return;
      change.apply();
      render();
      fail(error, refresh);
    });
  };
  const { button, expire } = notify(change.said, "Undo", undo);
  return button;
}

/** @param {Change} change */
function sendLater(change) {
  const send = (isLeaving = false) => {
    if (!waiting.delete(send)) return;
    expire();
    // A page that goes away cannot wait for an earlier answer.
    const sent = isLeaving ? change.send() : inOrder(change.target, change.send);
    sent.then(() => isOfAnother(change) || change.sent?.(), (error) => refused(change, error));
  };
  const undo = () => {
    waiting.delete(send);
    change.revert();
    render();
    say("Undone.");
  };
  const { button, expire } = notify(change.said, "Undo", undo, send);
  waiting.add(send);
  return button;
}

/**
 * What was done to a viewing. One of several titles is named with all of them.
 *
 * @param {Session} session
 * @param {string} done
 * @param {string} alone what is said if it has one title
 */
function saidOf(session, done, alone) {
  const titles = titlesOf(session);
  return titles.length > 1 ? `This viewing is ${done}, with all ${titles.length} titles: ${listed(titles)}.` : alone;
}

/**
 * @param {Session} session
 * @param {boolean} hidden
 * @returns {Change}
 */
function hiding(session, hidden) {
  const { session_id, title_id } = session;
  const done = hidden ? "hidden" : "shown again";
  const set = (/** @type {boolean} */ to) => {
    for (const one of [...state.entries, ...state.cards]) if (one.session_id === session_id) one.hidden = to;
  };
  const send = (/** @type {boolean} */ to) => asMember((api) => api.setHidden(session_id, to));
  return {
    of: state.api,
    target: `session ${session_id}`,
    said: saidOf(session, done, `${title_id} is ${done}.`),
    apply: () => set(hidden),
    revert: () => set(!hidden),
    send: send(hidden),
    takeBack: send(!hidden),
  };
}

/**
 * @param {Session} session
 * @param {boolean} watched
 * @returns {Change}
 */
function marking({ title_id }, watched) {
  const set = (/** @type {boolean} */ to) => {
    state.watched.set(title_id, to);
    if (to) state.marked.add(title_id);
    else state.marked.delete(title_id);
  };
  const send = (/** @type {boolean} */ to) => asMember((api) => api.setWatched(title_id, to));
  return {
    of: state.api,
    target: `title ${title_id}`,
    said: `${title_id} is marked as ${watched ? "" : "not "}watched.`,
    apply: () => set(watched),
    revert: () => set(!watched),
    send: send(watched),
    takeBack: send(!watched),
  };
}

/**
 * @param {string} target
 * @param {string} said
 * @param {(session: Session) => boolean} covers
 * @param {(api: Api) => Promise<void>} send
 * @returns {Change}
 */
function forgetting(target, said, covers, send) {
  return {
    of: state.api,
    target,
    said,
    apply: () => void state.gone.add(covers),
    revert: () => void state.gone.delete(covers),
    send: asMember(send),
    sent: () => {
      // Not before a list that was asked for earlier has been dropped.
      const isLoading = state.loading;
      state.list++;
      state.loading = state.slow = false;
      state.entries = state.entries.filter((session) => !covers(session));
      state.cards = state.cards.filter((session) => !covers(session));
      state.gone.delete(covers);
      if (isLoading) return void refresh();
      render();
      // An earlier viewing may be where to go on with the title now.
      void loadCards();
    },
  };
}

/** @returns {Change} */
function erasing() {
  const all = () => true;
  const change = forgetting("all", "Everything will be erased.", all, (api) => api.erase());
  return {
    ...change,
    apply: () => {
      state.erasing = true;
      change.apply();
    },
    revert: () => {
      state.erasing = false;
      change.revert();
    },
    sent: () => {
      state.erasing = false;
      state.next = null;
      state.watched.clear();
      change.sent?.();
      say("Everything is erased.");
    },
  };
}

/** @type {Record<string, (session: Session) => Change>} by the name in `data-do` */
const CHANGES = {
  hide: (session) => hiding(session, !session.hidden),
  watched: (session) => marking(session, !isWatched(session)),
  "forget-session": (session) =>
    forgetting(
      `session ${session.session_id}`,
      saidOf(session, "forgotten", `This viewing of ${session.title_id} is forgotten.`),
      (one) => one.session_id === session.session_id,
      (api) => api.forgetSession(session.session_id),
    ),
  "forget-title": ({ title_id }) =>
    forgetting(
      `title ${title_id}`,
      `${title_id} is forgotten.`,
      (one) => one.title_id === title_id,
      (api) => api.forgetTitle(title_id),
    ),
};

// -------------------------------------------------------------------------------------------- events

/** @param {MouseEvent} event */
function act(event) {
  const button = event.target instanceof Element ? event.target.closest("[data-do]") : null;
  const row = button?.closest("li");
  const session = row && sessionOf.get(row);
  if (!(button instanceof HTMLElement) || !session) return;
  const menu = button.closest("details");
  if (menu) {
    menu.open = false;
    part(menu, "summary").focus();
  }
  // A title in the row of cards is not watched to its end: only there to be marked.
  const change = row.matches(".card") && button.dataset["do"] === "watched"
    ? marking(session, true)
    : CHANGES[button.dataset["do"] ?? ""]?.(session);
  if (change) perform(change, row);
}

$.days.addEventListener("click", act);
$.cards.addEventListener("click", act);

/** One menu is open at a time, and none is left open behind. @param {Event} event */
function closeMenus(event) {
  for (const menu of document.querySelectorAll("details[open]")) {
    if (event.target instanceof Node && menu.contains(event.target)) continue;
    if (menu instanceof HTMLDetailsElement) menu.open = false;
  }
}
document.addEventListener("click", closeMenus);
document.addEventListener("focusin", closeMenus);
document.addEventListener("keydown", (event) => {
  const menu = document.activeElement?.closest("details[open]");
  if (event.key === "Escape" && menu instanceof HTMLDetailsElement) {
    menu.open = false;
    part(menu, "summary").focus();
  }
  const isTyping = event.target instanceof HTMLInputElement && event.target.type !== "checkbox";
  if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !isTyping) {
    const newest = $.notices.lastElementChild?.querySelector(".act");
    if (newest instanceof HTMLElement && newest.textContent === "Undo") {
      event.preventDefault();
      newest.click();
    }
  }
});

/** @type {ReturnType<typeof setTimeout> | undefined} */
let typing;
$.search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(async () => {
    state.query = $.search.value.trim().toLowerCase();
    state.shown = STEP;
    render();
    await fill();
    if (state.query && !state.loading) say(`${visible().length}${state.next === null ? "" : " or more"} found.`);
  }, 200);
});

$.hidden.addEventListener("change", () => {
  state.withHidden = $.hidden.checked;
  if (!state.withHidden) return void (render(), fill());
  // Those between the ones that are loaded are missing.
  state.entries = state.entries.slice(0, 0);
  void refresh();
});

$.refresh.addEventListener("click", async () => {
  await refresh();
  if (!state.problem && !state.ended) say("Refreshed.");
});

$.more.addEventListener("click", async () => {
  const before = Math.min(visible().length, state.shown);
  state.shown += STEP;
  render();
  await fill();
  const first = $.days.querySelectorAll(".entry")[before];
  first?.querySelector("button")?.focus();
  if (first) say(`${Math.min(visible().length, state.shown) - before} more.`);
});

$.retry.addEventListener("click", () => {
  const again = state.problem?.again;
  state.problem = undefined;
  $.history.focus({ preventScroll: true });
  again?.();
});

$.erase.addEventListener("click", () => $.confirm.showModal());
$.confirmNo.addEventListener("click", () => $.confirm.close());
$.confirmYes.addEventListener("click", () => {
  $.confirm.close();
  const change = erasing();
  perform(change);
  part($.notices, ".notice:last-child .act").focus();
});

function sendWaiting() {
  for (const send of [...waiting]) send(true);
}
addEventListener("pagehide", sendWaiting);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") sendWaiting();
  else if (Date.now() - state.loadedAt > STALE_MS && !state.loading && !state.erasing) void refresh();
});
setInterval(() => document.visibilityState === "visible" && !state.loading && render(), 60_000);

function start() {
  const who = member();
  if (!who) return end("Open this page from the app: the link there says whose activity to show.");
  if (who.profile !== state.api?.profile) {
    // While the API is still that of the member who asked for it.
    sendWaiting();
    // What one member could undo or try again is nothing for another one.
    $.notices.replaceChildren();
    Object.assign(state, { api: undefined, entries: [], cards: [], next: null, shown: STEP, erasing: false });
    state.watched.clear();
    state.gone.clear();
    $.profile.textContent = who.profile;
    $.profile.hidden = false;
    state.withHidden = $.hidden.checked;
  }
  if (who.token !== state.api?.token) Object.assign(state, { api: new Api(who), problem: undefined, ended: false });
  void refresh(state.entries.length > 0 && !isBusy());
}

// The app may hand over a new token by a new fragment, or only ask for a refresh by the same one.
addEventListener("hashchange", () => new URLSearchParams(location.hash.slice(1)).has("token") && start());
start();

/**
 * The member's API, as the page calls it. Its address is relative to the page's, so it works behind
 * any domain and prefix.
 *
 * @typedef {{ id: string | null, kind: string | null }} Device
 * @typedef {{
 *   session_id: string, title_id: string, started_at: number, watched_at: number, position_ms: number,
 *   played_ms: number, title_duration_ms: number | null, completed: boolean, device: Device, hidden: boolean,
 * }} Session
 * @typedef {{ sessions: Session[], next_page_token: string | null }} Page
 * @typedef {{ title_id: string, watched: boolean }} Title
 * @typedef {{ profile: string, token: string }} Member
 */

/** How long an answer may take. The gateway gives up after 25 seconds. */
const ANSWER_WITHIN_MS = 30_000;
/** How often a call is made in all, if trying again may help. */
const TRIES = 3;
/** The longest pause between two tries; who asks for more gets a button instead. */
const MAX_PAUSE_S = 8;

const KEY = "playhead-activity";

/** Why a call failed. The message is for the member. */
export class Failure extends Error {
  /**
   * @param {string} message
   * @param {"ended" | "forbidden" | "later" | "wrong"} kind `ended`: no call works without a new token;
   *   `later`: the same call may work later
   */
  constructor(message, kind) {
    super(message);
    this.kind = kind;
  }
}

/**
 * The member of the address's fragment, which is then taken off the address bar, or else the one that
 * this tab knew before.
 *
 * @returns {Member | undefined}
 */
export function member() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [profile, token] = [given.get("profile"), given.get("token")];
  if (profile && token) {
    history.replaceState(null, "", location.pathname + location.search);
    // A frame may be denied storage. Then the member lasts as long as the page.
    try {
      sessionStorage.setItem(KEY, JSON.stringify({ profile, token }));
    } catch {}
    return { profile, token };
  }
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "") ?? undefined;
  } catch {
    return undefined;
  }
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * An id in a path is encoded twice, because the gateway decodes the path once.
 *
 * @param {string} id
 */
const inPath = (id) => encodeURIComponent(encodeURIComponent(id));

export class Api {
  /** @param {Member} member */
  constructor({ profile, token }) {
    this.profile = profile;
    this.token = token;
    this.base = new URL(`v1/profiles/${inPath(profile)}/`, document.baseURI);
  }

  /**
   * @param {{ limit: number, hidden: boolean, after?: string | null }} of
   * @returns {Promise<Page>}
   */
  history({ limit, hidden, after }) {
    const query = new URLSearchParams({ limit: String(limit), include_hidden: String(hidden) });
    if (after) query.set("page_token", after);
    return this.#call("GET", `history?${query}`);
  }

  /** @returns {Promise<Page>} */
  continueWatching() {
    return this.#call("GET", "continue-watching?limit=12");
  }

  /**
   * @param {string[]} ids at most 100
   * @returns {Promise<{ titles: Title[] }>}
   */
  titles(ids) {
    return this.#call("GET", `titles?ids=${ids.map(encodeURIComponent).join(",")}`);
  }

  /**
   * @param {string} session
   * @param {boolean} hidden
   */
  setHidden(session, hidden) {
    return this.#call(hidden ? "PUT" : "DELETE", `history/${inPath(session)}/hidden`);
  }

  /**
   * @param {string} title
   * @param {boolean} watched
   */
  setWatched(title, watched) {
    return this.#call(watched ? "PUT" : "DELETE", `titles/${inPath(title)}/watched`);
  }

  /** @param {string} title */
  forgetTitle(title) {
    return this.#call("DELETE", `titles/${inPath(title)}`);
  }

  /** @param {string} session */
  forgetSession(session) {
    return this.#call("DELETE", `history/${inPath(session)}`);
  }

  erase() {
    return this.#call("DELETE", "history");
  }

  /**
   * Every call may be repeated, so one that may work later is tried again.
   *
   * @param {string} method
   * @param {string} path
   */
  async #call(method, path) {
    for (let tried = 1; ; tried++) {
      const answer = await this.#ask(method, path);
      if (answer?.ok) return answer.status === 200 ? bodyOf(answer) : undefined;
      if (answer && !(answer.status === 429 || answer.status >= 500)) throw refusal(answer.status);
      const pause_s = Number(answer?.headers.get("retry-after")) || 2 ** (tried - 1);
      if (tried === TRIES || pause_s > MAX_PAUSE_S) throw unanswered(answer?.status);
      await pause(pause_s * 1_000);
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @returns {Promise<Response | undefined>} nothing if there was no answer
   */
  async #ask(method, path) {
    try {
      return await fetch(new URL(path, this.base), {
        method,
        headers: { authorization: `Bearer ${this.token}` },
        // A change reaches the API even if the page closes.
        keepalive: method !== "GET",
        cache: "no-store",
        signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
      });
    } catch {
      return undefined;
    }
  }
}

/** @param {Response} answer */
async function bodyOf(answer) {
  try {
    return await answer.json();
  } catch {
    // It broke off on the way.
    throw unanswered(answer.status);
  }
}

/** @param {number} status */
function refusal(status) {
  if (status === 401) {
    const text = "You have been signed out of this page. Open it again from the app to go on.";
    return new Failure(text, "ended");
  }
  if (status === 403) {
    return new Failure("This page was opened for another profile. Open it again from the app.", "forbidden");
  }
  return new Failure("That did not work. Refresh the page and try again.", "wrong");
}

/** @param {number | undefined} status */
function unanswered(status) {
  if (status === undefined) return new Failure("There is no connection to the service.", "later");
  if (status === 429) return new Failure("The service is busy. Wait a moment and try again.", "later");
  return new Failure("The service does not answer right now.", "later");
}

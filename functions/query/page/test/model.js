/**
 * A model of the member's API that serves the page, too: the real files, with the headers that the
 * function sends. Those are in a golden event, which a Rust test holds against the code.
 *
 * @typedef {import("../api.js").Session} Session
 * @typedef {{
 *   method: string, profile: string, path: string, query: URLSearchParams, authorization: string | undefined,
 * }} Call
 * @typedef {"pass" | "break" | "hang" | { status: number, headers?: Record<string, string> }} Fault
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname } from "node:path";
import { gzipSync } from "node:zlib";

/** As the emulator's gateway has it: nothing may rely on the page being at the root. */
const PREFIX = "/_aws/execute-api/a1b2c3/$default";
export const TOKEN = "header.good.signature";
export const NOW = Date.UTC(2026, 10, 28, 20, 30);
const MINUTE_MS = 60_000;

/** @type {Record<string, string>} */
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

const golden = new URL("../../../../events/api/activity-file.expected.json", import.meta.url);
/** @type {Record<string, string>} */
const { etag: _, "content-type": __, ...HEADERS } = JSON.parse(readFileSync(golden, "utf8")).expect.response.headers;

const DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** A session's id: it begins at a time, and no other session has its number. @param {number} at @param {number} number */
function idOf(at, number) {
  /** @param {number} value @param {number} length */
  const digits = (value, length) => {
    let text = "";
    for (; text.length < length; value = Math.floor(value / 32)) text = DIGITS[value % 32] + text;
    return text;
  };
  return `use1-${digits(at, 10)}${digits(number, 16)}`;
}

/**
 * A session that began so many minutes ago.
 *
 * @param {number} minutes
 * @param {Partial<Session> & { kind?: string | null }} [of]
 * @returns {Session}
 */
export function session(minutes, { kind = "tv", ...of } = {}) {
  const at = NOW - minutes * MINUTE_MS;
  made += 1;
  return {
    session_id: idOf(at, made),
    title_id: `title-${made}`,
    started_at: at,
    watched_at: Math.min(at + 20 * MINUTE_MS, NOW - 2 * MINUTE_MS),
    position_ms: 20 * MINUTE_MS,
    played_ms: 20 * MINUTE_MS,
    title_duration_ms: 60 * MINUTE_MS,
    completed: false,
    device: { id: "d1", kind },
    hidden: false,
    ...of,
  };
}
let made = 0;

export class Model {
  /** @param {Session[]} sessions those of one id are its titles, the newest first */
  constructor(sessions) {
    this.sessions = sessions.toSorted((a, b) => b.session_id.localeCompare(a.session_id, "en"));
    /** @type {Map<string, boolean>} */
    this.watched = new Map();
    /** @type {Call[]} every call of the API, in order */
    this.seen = [];
    /** @type {(call: Call) => Fault} */
    this.fault = () => "pass";
    this.headers = HEADERS;
    /** The only one that is good. */
    this.token = TOKEN;
    this.server = createServer((request, response) => this.#serve(request, response));
  }

  async start() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", () => resolve(undefined)));
    const address = this.server.address();
    if (!address || typeof address === "string") throw new Error("the server has no port");
    this.origin = `http://127.0.0.1:${address.port}`;
    this.url = `${this.origin}${PREFIX}/activity`;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** The changes that were asked for: `PUT history/…/hidden`. */
  changes() {
    const changes = this.seen.filter(({ method }) => method !== "GET");
    return changes.map(({ method, path }) => `${method} ${path}`);
  }

  /** @param {import("node:http").IncomingMessage} request @param {import("node:http").ServerResponse} response */
  #serve(request, response) {
    const url = new URL(request.url ?? "/", "http://model");
    if (url.pathname === "/another-page") {
      return void response.setHeader("content-type", "text/html").end(`<iframe src="${this.url}"></iframe>`);
    }
    const path = url.pathname.startsWith(PREFIX) ? url.pathname.slice(PREFIX.length) : "";
    const [, activity, file] = /^\/(activity)(?:\/([a-z]+\.[a-z]+))?$/.exec(path) ?? [];
    if (activity) return void serveFile(file ?? "index.html", this.headers, response);
    // The gateway decodes once.
    const [, profile, rest] = /^\/v1\/profiles\/(p[12])\/(.*)$/.exec(decodeURIComponent(path)) ?? [];
    if (profile === undefined || rest === undefined) return void response.writeHead(404).end();
    const { authorization } = request.headers;
    const method = request.method ?? "";
    const call = { method, profile, path: decodeURIComponent(rest), query: url.searchParams, authorization };
    this.seen.push(call);
    const fault = this.fault(call);
    if (fault === "hang") return;
    if (fault === "break") return void request.socket.destroy();
    const { status, headers = {}, body } = fault === "pass" ? this.#answer(call) : { ...fault, body: undefined };
    response.writeHead(status, { "cache-control": "no-store", "content-type": "application/json", ...headers });
    response.end(body === undefined ? "" : JSON.stringify(body));
  }

  /** @param {Call} call @returns {{ status: number, headers?: Record<string, string>, body?: unknown }} */
  #answer({ method, path, query, authorization }) {
    if (authorization !== `Bearer ${this.token}`) return { status: 401, body: { code: "invalid_token" } };
    const [list, id = "", what] = /** @type {[string, string?, string?]} */ (path.split("/"));
    if (method === "GET" && path === "history") return { status: 200, body: this.#page(query) };
    if (method === "GET" && path === "continue-watching") {
      const open = this.sessions.filter((one) => !one.completed && !one.hidden && !this.watched.get(one.title_id));
      const first = open.filter((one, at) => open.findIndex(({ title_id }) => title_id === one.title_id) === at);
      return { status: 200, body: { sessions: first.slice(0, Number(query.get("limit"))), next_page_token: null } };
    }
    if (method === "GET" && path === "titles") {
      const of = (/** @type {string} */ title_id) => ({ title_id, watched: this.#isWatched(title_id) });
      return { status: 200, body: { titles: (query.get("ids") ?? "").split(",").map(of) } };
    }
    if (what === "hidden") for (const one of this.sessions) if (one.session_id === id) one.hidden = method === "PUT";
    if (what === "watched") this.watched.set(id, method === "PUT");
    if (what === undefined && method === "DELETE") {
      const key = list === "titles" ? "title_id" : "session_id";
      this.sessions = id ? this.sessions.filter((one) => one[key] !== id) : [];
    }
    return { status: 204 };
  }

  /** @param {string} title */
  #isWatched(title) {
    return this.watched.get(title) ?? this.sessions.some(({ title_id, completed }) => title_id === title && completed);
  }

  /** @param {URLSearchParams} query */
  #page(query) {
    const after = query.get("page_token");
    const isNext = (/** @type {Session} */ one) => after === null || one.session_id < after;
    const isShown = (/** @type {Session} */ one) => query.get("include_hidden") === "true" || !one.hidden;
    const rest = this.sessions.filter((one) => isNext(one) && isShown(one));
    const sessions = rest.slice(0, Number(query.get("limit")));
    return { sessions, next_page_token: rest.length > sessions.length ? sessions.at(-1)?.session_id : null };
  }
}

/** @param {string} name @param {Record<string, string>} headers @param {import("node:http").ServerResponse} response */
function serveFile(name, headers, response) {
  const type = TYPES[extname(name)];
  if (!type) return response.writeHead(404).end();
  const content = gzipSync(readFileSync(new URL(`../${name}`, import.meta.url)));
  return response.writeHead(200, { ...headers, "content-type": type, "content-encoding": "gzip" }).end(content);
}

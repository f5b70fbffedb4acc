/**
 * HTTP with a token and a deadline. It repeats nothing, except once after a `401`. The queue
 * decides what to repeat.
 */

import type { Report } from "./report.js";
import type { PlaybackEvent, PlayheadOptions } from "./types.js";

/**
 * `fetch(keepalive)` carries at most 64 KiB for all requests of a page together. Leave some to the
 * page.
 */
export const KEEPALIVE_BYTES = 60_000;

/** What became known about a request. */
export interface Answer {
  /** The HTTP status; 0 if there was no answer; 401 also if there was no token. */
  status: number;
  /** How long the server asked to wait, in milliseconds. */
  retryAfterMs?: number | undefined;
  /** The JSON of the body, if it has some. */
  body?: any;
}

/** The token callback failed, and that was reported. */
const NO_TOKEN: Answer = { status: 401 };

export interface RequestOptions {
  body?: string;
  keepalive?: boolean;
  timeoutMs?: number;
}

export interface Transport {
  request(profile: string, method: string, path: string, options?: RequestOptions): Promise<Answer>;
  /**
   * Sends events from a page that may close in this turn, with the token that is there already.
   * Resolves to the answer, if the page is still there. `undefined`: it was not sent, or nobody
   * will know the answer.
   */
  farewell(profile: string, events: PlaybackEvent[]): Promise<Answer | undefined>;
  /** How many more bytes `fetch(keepalive)` can carry now. */
  room(): number;
}

/** The body of `POST /v1/events`. `token` is for beacons, which have no headers. */
export function bodyOf(events: PlaybackEvent[], token?: string): string {
  return JSON.stringify({ token, sent_at: Date.now(), events });
}

/**
 * An id as a part of a path. It is encoded twice: the gateway decodes the path once before it looks
 * for the route, so `/` and `?` would be taken for the path's own.
 */
export function segment(id: string): string {
  return encodeURIComponent(encodeURIComponent(id));
}

export function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}

/** `Retry-After`: seconds, or an HTTP date. */
export function retryAfterOf(value: string | null): number | undefined {
  if (!value) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return ms >= 0 ? ms : undefined;
}

export function createTransport(options: PlayheadOptions, report: Report): Transport {
  const endpoint = options.endpoint.replace(/\/+$/, "");
  const asked = new Map<string, Promise<string>>();
  const known = new Map<string, string>();
  let carried = 0;

  const tokenFor = (profile: string, refused?: string): Promise<string> => {
    if (refused !== undefined && known.get(profile) === refused) {
      known.delete(profile);
      asked.delete(profile);
    }
    let token = asked.get(profile);
    if (!token) {
      token = Promise.resolve().then(() => options.token({ profile, expired: refused !== undefined }));
      asked.set(profile, token);
      token.then(
        (value) => known.set(profile, value),
        () => asked.delete(profile),
      );
    }
    return token;
  };

  const attempt = async (token: string, method: string, path: string, request: RequestOptions, signal: AbortSignal) => {
    const { body, keepalive = false } = request;
    const bytes = keepalive && body ? byteLength(body) : 0;
    carried += bytes;
    try {
      const response = await fetch(endpoint + path, {
        method,
        headers: { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) },
        ...(body && { body }),
        keepalive,
        signal,
        cache: "no-store",
        credentials: "omit",
      });
      const text = await response.text();
      const answer: Answer = {
        status: response.status,
        retryAfterMs: retryAfterOf(response.headers.get("retry-after")),
      };
      try {
        answer.body = JSON.parse(text);
      } catch {
        // Not JSON: the status says enough.
      }
      return answer;
    } finally {
      carried -= bytes;
    }
  };

  const request: Transport["request"] = async (profile, method, path, wanted = {}) => {
    const controller = new AbortController();
    let timer;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => {
          controller.abort();
          reject(new Error("timeout"));
        },
        wanted.timeoutMs ?? options.timeoutMs ?? 30_000,
      );
    });
    const withToken = async (refused?: string): Promise<Answer> => {
      let token;
      try {
        token = await Promise.race([tokenFor(profile, refused), late]);
      } catch (cause) {
        report("token", `no token for profile ${profile}`, cause);
        return NO_TOKEN;
      }
      const answer = await Promise.race([attempt(token, method, path, wanted, controller.signal), late]);
      return answer.status === 401 && refused === undefined ? withToken(token) : answer;
    };
    try {
      const answer = await withToken();
      if (answer.status > 299 && answer !== NO_TOKEN) {
        report("http", `${method} ${path}: ${answer.status} ${answer.body?.detail ?? ""}`, answer.body, answer.status);
      }
      return answer;
    } catch (cause) {
      report("network", `${method} ${path}: no answer`, cause);
      return { status: 0 };
    } finally {
      clearTimeout(timer);
    }
  };

  return {
    request,
    room: () => KEEPALIVE_BYTES - carried,
    farewell: async (profile, events) => {
      const token = known.get(profile);
      if (token === undefined) return undefined;
      if (typeof Request === "function" && "keepalive" in Request.prototype) {
        return request(profile, "POST", "/v1/events", { body: bodyOf(events), keepalive: true });
      }
      navigator.sendBeacon?.(`${endpoint}/v1/events`, new Blob([bodyOf(events, token)], { type: "text/plain" }));
      return undefined;
    },
  };
}

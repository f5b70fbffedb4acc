/**
 * A model of the API's contract, strict where the real one is tolerant: whatever a careful player
 * would not send is an error here. It keeps events as the real system does (by session and `seq`,
 * played parts as a union), so that the same questions can be put to both.
 */
import { createHmac, randomBytes } from "node:crypto";
import { ulid } from "../src/ulid.js";

export const SECRET = "a development stage's shared secret";

const KINDS = ["started", "progressed", "paused", "resumed", "seeked", "stopped"];
const ID = /^(?!~)[A-Za-z0-9._~:/@!$&'()*+;=-]{1,128}$/;
const SESSION = /^[a-z0-9]+-[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
const FIELDS = [
  "session_id",
  "profile_id",
  "title_id",
  "seq",
  "kind",
  "position_ms",
  "played_ms",
  "title_duration_ms",
  "credits_ms",
  "occurred_at",
  "device",
  "country",
];

export interface WireEvent {
  session_id: string;
  profile_id: string;
  title_id: string;
  seq: number;
  kind: string;
  position_ms: number;
  played_ms?: number;
  title_duration_ms?: number;
  credits_ms?: number;
  occurred_at: number;
  device?: { id: string; kind: string };
  country?: string;
}

export interface Reply {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
}

export interface HistorySession {
  session_id: string;
  title_id: string;
  position_ms: number;
  played_ms: number;
  title_duration_ms: number | null;
  completed: boolean;
  events: number;
  missing: number;
}

/** A token of a development stage. */
export function makeToken(profiles: string[], lifetimeS = 3_600): string {
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const payload = { profiles, exp: Math.floor(Date.now() / 1_000) + lifetimeS, jti: randomBytes(4).toString("hex") };
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(payload)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

const problem = (status: number, code: string, detail: string, headers: Record<string, string> = {}): Reply => ({
  status,
  body: { title: code, status, code, detail },
  headers: { "content-type": "application/problem+json", ...headers },
});

function profilesOf(token: string | undefined): string[] | undefined {
  const [header, payload, signature] = token?.split(".") ?? [];
  if (!header || !payload || !signature) return undefined;
  const expected = createHmac("sha256", SECRET).update(`${header}.${payload}`).digest("base64url");
  if (signature !== expected) return undefined;
  const claims = JSON.parse(Buffer.from(payload, "base64url").toString()) as { exp: number; profiles: string[] };
  return claims.exp * 1_000 > Date.now() ? claims.profiles : undefined;
}

/**
 * The path as the gateway hands it on: it decodes every escape but `%25` before it looks for the
 * route.
 */
const decodedOnce = (path: string): string => path.replace(/(?:%(?!25)[0-9A-Fa-f]{2})+/g, decodeURIComponent);

/** An id of a path, which a careful player has encoded twice. */
const idOf = (segment: string): string => decodeURIComponent(decodeURIComponent(segment));

/** Why the event is wrong, or nothing. */
function faultOf(event: WireEvent): [code: string, message: string] | undefined {
  const integer = (value: unknown, most: number): boolean =>
    typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most;
  const unknown = Object.keys(event).filter((field) => !FIELDS.includes(field));
  if (unknown.length) return ["not_in_contract", `unknown fields ${unknown.join()}`];
  if (!SESSION.test(event.session_id)) return ["session_id_malformed", String(event.session_id)];
  if (!ID.test(event.profile_id)) return ["profile_id_malformed", String(event.profile_id)];
  if (!ID.test(event.title_id)) return ["title_id_malformed", String(event.title_id)];
  if (!integer(event.seq, 65_535)) return ["seq_out_of_range", String(event.seq)];
  if (!KINDS.includes(event.kind)) return ["kind_unknown", String(event.kind)];
  if (!integer(event.position_ms, Number.MAX_SAFE_INTEGER)) return ["position_out_of_range", String(event.position_ms)];
  if (!integer(event.played_ms ?? 0, event.position_ms)) return ["played_out_of_range", String(event.played_ms)];
  const duration = event.title_duration_ms;
  if (duration !== undefined && !(integer(duration, 604_800_000) && duration > 0)) {
    return ["title_duration_out_of_range", String(duration)];
  }
  if (!integer(event.credits_ms ?? 0, 604_800_000)) return ["credits_out_of_range", String(event.credits_ms)];
  if (!integer(event.occurred_at, 253_402_300_799_999)) return ["occurred_at_out_of_range", String(event.occurred_at)];
  if (event.device && !(ID.test(event.device.id) && ID.test(event.device.kind))) {
    return ["device_malformed", JSON.stringify(event.device)];
  }
  if (event.country !== undefined && !/^[A-Z]{2}$/.test(event.country)) return ["country_malformed", event.country];
  return undefined;
}

/** How much of a title is covered by intervals. */
export function unionLength(intervals: [number, number][]): number {
  let [length, reached] = [0, 0];
  for (const [begin, end] of [...intervals].sort((a, b) => a[0] - b[0])) {
    length += Math.max(0, end - Math.max(begin, reached));
    reached = Math.max(reached, end);
  }
  return length;
}

export class Contract {
  /** Accepted events by session and `seq`; and how often one came again. */
  readonly sessions = new Map<string, Map<number, WireEvent>>();
  repeats = 0;

  handle(method: string, url: string, headers: Record<string, string | undefined>, body: string): Reply {
    const { pathname, searchParams } = new URL(url, "http://contract");
    const path = decodedOnce(pathname);
    const authorization = headers["authorization"];
    let token = authorization?.replace(/^Bearer /, "");
    let parsed: { token?: string; sent_at?: number; events?: WireEvent[] } | undefined;
    if (method === "POST" && path === "/v1/events") {
      const type = headers["content-type"]?.split(";")[0];
      if (type !== "application/json" && !(type === "text/plain" && !authorization)) {
        return problem(415, "unsupported_media_type", `not JSON: ${type}`);
      }
      if (Buffer.byteLength(body) > 262_144) return problem(413, "body_too_large", "more than 256 KiB");
      try {
        parsed = JSON.parse(body);
      } catch {
        return problem(400, "malformed_request", "not JSON");
      }
      if (!authorization) token = parsed?.token;
    }
    const profiles = profilesOf(token);
    if (!token) return problem(401, "no_token", "no token");
    if (!profiles) return problem(401, "invalid_token", "invalid or expired");
    if (method === "POST" && path === "/v1/sessions") {
      return { status: 201, body: { session_id: `use1-${ulid()}`, started_at: Date.now() } };
    }
    if (method === "POST" && path === "/v1/events") return this.accept(parsed, profiles);

    const [, profile, rest] = /^\/v1\/profiles\/([^/]+)\/(.+)$/.exec(path) ?? [];
    if (method !== "GET" || !profile || !rest) return { status: 404, body: { message: "Not Found" } };
    const decoded = idOf(profile);
    if (!profiles.includes(decoded)) return problem(403, "forbidden", `profile ${decoded} is not covered`);
    if (rest === "history") {
      if (searchParams.get("limit") !== "100") return problem(400, "limit_out_of_range", "the tests ask for 100");
      return { status: 200, body: { sessions: this.history(decoded), next_page_token: null } };
    }
    const [, title] = /^titles\/([^/]+)$/.exec(rest) ?? [];
    if (title) return { status: 200, body: this.title(decoded, idOf(title)) };
    return { status: 404, body: { message: "Not Found" } };
  }

  private accept(request: { sent_at?: number; events?: WireEvent[] } | undefined, profiles: string[]): Reply {
    const events = request?.events;
    if (!Array.isArray(events) || !events.length) return problem(400, "malformed_request", "no events");
    if (!Number.isInteger(request?.sent_at)) return problem(400, "malformed_request", "no sent_at");
    if (events.length > 500) return problem(413, "too_many_events", "more than 500 events");
    if (!events.some((event) => profiles.includes(event.profile_id))) {
      return problem(403, "forbidden", "the token covers no profile of the request");
    }
    const rejected: unknown[] = [];
    events.forEach((event, index) => {
      const fault: [string, string] | undefined = profiles.includes(event.profile_id)
        ? faultOf(event)
        : ["profile_forbidden", event.profile_id];
      if (fault) {
        const [code, message] = fault;
        rejected.push({ index, code, message, retryable: false });
        return;
      }
      const session = this.sessions.get(event.session_id) ?? new Map<number, WireEvent>();
      this.sessions.set(event.session_id, session);
      const known = session.get(event.seq);
      if (known) {
        if (JSON.stringify(known) !== JSON.stringify(event))
          throw new Error(`two events of ${event.session_id} ${event.seq}`);
        this.repeats++;
      }
      session.set(event.seq, event);
    });
    return { status: 202, body: { accepted: events.length - rejected.length, rejected, adjusted: [] } };
  }

  /** Every (session, title), newest session first. */
  history(profile: string): HistorySession[] {
    const rows: HistorySession[] = [];
    for (const [session_id, bySeq] of [...this.sessions].sort(([a], [b]) => (a < b ? 1 : -1))) {
      const all = [...bySeq.values()].sort((a, b) => a.seq - b.seq);
      const mine = all.filter((event) => event.profile_id === profile);
      for (const title_id of new Set(mine.map((event) => event.title_id))) {
        const events = mine.filter((event) => event.title_id === title_id);
        const latest = events[events.length - 1]!;
        const duration =
          events
            .map((event) => event.title_duration_ms)
            .filter((ms) => ms !== undefined)
            .pop() ?? null;
        const played = events.map(({ position_ms, played_ms = 0 }): [number, number] => [
          position_ms - played_ms,
          position_ms,
        ]);
        rows.push({
          session_id,
          title_id,
          position_ms: latest.position_ms,
          played_ms: unionLength(played),
          title_duration_ms: duration,
          completed: duration !== null && latest.position_ms >= duration * 0.95,
          events: events.length,
          missing: Math.max(...bySeq.keys()) + 1 - bySeq.size,
        });
      }
    }
    return rows;
  }

  private title(profile: string, title_id: string): unknown {
    const [newest] = this.history(profile).filter((row) => row.title_id === title_id);
    const { session_id, position_ms, title_duration_ms } = newest ?? {};
    const resume = newest && !newest.completed ? { session_id, position_ms, title_duration_ms, watched_at: 1 } : null;
    return { title_id, resume, watched: newest?.completed ?? false, watched_at: null };
  }
}

/**
 * The events that have no `202` yet: keeps them, sends them in batches, and decides what an answer
 * means for them.
 *
 * An event leaves the queue only when it was accepted, finally rejected, or given up with a report.
 * All tabs share the store. A Web Lock lets one of them send at a time; where there are no locks
 * the server drops what it gets twice.
 */

import type { Report } from "./report.js";
import { keyOf, type Store } from "./store.js";
import { type Answer, bodyOf, byteLength, type Transport } from "./transport.js";
import type { PlaybackEvent, PlayheadOptions } from "./types.js";

const MAX_EVENTS = 500;
const MAX_BYTES = 200 * 1024;
/** The server takes events of sessions that began at most 30 days ago. */
const MAX_AGE_MS = 29 * 24 * 3_600_000;
/** The rest of a body beside its events, at most: `sent_at`, brackets. */
const FRAME_BYTES = 100;
/** After so many refusals in a row the fault is hardly in the events. */
const MAX_REFUSALS = 40;

/** Who knows the home of new sessions, see `facts.ts`. */
export interface Home {
  /** The home, if it is known. */
  readonly home: string | undefined;
  /** Asks the server for it. Never rejects. */
  mint(profile: string): Promise<Answer>;
}

export interface Queue {
  /** Takes an event. `urgent`: send at once. */
  push(event: PlaybackEvent, urgent: boolean): void;
  /** Tries to send everything that is due. Never rejects. */
  flush(): Promise<void>;
  /**
   * Sends what this page recorded and may have no other chance to send: the page may close in this
   * turn.
   */
  farewell(): void;
  /** The network is back: forget how long to wait, except where the server said it. */
  wake(): void;
  /** A token may cover the profile now. */
  release(profile: string): void;
  /** Unsent events of a title that happened before a time, oldest session first. */
  unsent(profile: string, title: string, before: number): Promise<PlaybackEvent[]>;
  close(): void;
}

/** Exponential back-off with jitter: about 1 s after the first failure, 5 min at most. */
export function backOff(failures: number): number {
  return Math.min(300_000, 1_000 * 2 ** (failures - 1)) * (0.5 + Math.random() / 2) + 500;
}

export function createQueue(
  name: string,
  options: PlayheadOptions,
  store: Store,
  transport: Transport,
  facts: Home,
  report: Report,
): Queue {
  const { sendEveryMs = 10_000, sendAtEvents = 20, timeoutMs = 30_000, maxStoredEvents = 10_000 } = options;

  /** What this page recorded. */
  const own = new Map<string, PlaybackEvent>();
  /** Which of it is in the store, too. */
  const stored = new Set<string>();
  /** Events on their way with `keepalive`. */
  const leaving = new Set<string>();
  /** Profiles and events that must wait: how often they failed, and until when. */
  const held = new Map<string, { failures: number; until: number }>();

  let batchSize = MAX_EVENTS;
  let failures = 0;
  let refusals = 0;
  /**
   * Nothing is sent before this time; and whether the server asked for it. Times are
   * `performance.now()`.
   */
  let quietUntil = 0;
  let told = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let timerAt = Infinity;
  let running: Promise<void> = Promise.resolve();
  let next: Promise<void> | undefined;
  let closed = false;

  const now = (): number => performance.now();

  store.onLost = () => stored.clear();

  const wakeIn = (delay: number): void => {
    const at = Math.max(now() + delay, quietUntil);
    if (closed || at >= timerAt) return;
    clearTimeout(timer);
    timerAt = at;
    timer = setTimeout(flush, Math.ceil(at - now()));
  };

  const hold = (id: string): void => {
    const failures = (held.get(id)?.failures ?? 0) + 1;
    held.set(id, { failures, until: now() + backOff(failures) });
  };
  const isHeld = (id: string): boolean => (held.get(id)?.until ?? 0) > now();

  /** Takes events out of the queue. */
  const settle = async (events: PlaybackEvent[]): Promise<void> => {
    const keys = events.map(keyOf);
    for (const key of keys) {
      own.delete(key);
      stored.delete(key);
      held.delete(key);
    }
    if (!keys.length) return;
    try {
      await store.remove(keys);
    } catch (cause) {
      report("storage", "sent events could not be removed: they will be sent again", cause);
    }
  };

  const giveUp = async (event: PlaybackEvent, code: string, message: string): Promise<void> => {
    await settle([event]);
    try {
      options.onRejected?.({ event, code, message });
    } catch (cause) {
      report("internal", "onRejected threw", cause);
    }
  };

  /** All events of all tabs, oldest session first, by key. */
  const everything = async (): Promise<Map<string, PlaybackEvent>> => {
    const before = [...stored];
    let kept: PlaybackEvent[] = [];
    try {
      kept = await store.events();
      const keys = new Set(kept.map(keyOf));
      // What was stored and is no longer there was sent by another tab.
      for (const key of before) {
        if (!keys.has(key)) {
          own.delete(key);
          stored.delete(key);
        }
      }
    } catch (cause) {
      report("storage", "kept events could not be read", cause);
    }
    const entries = [...kept, ...own.values()].map((event) => [keyOf(event), event] as const);
    return new Map(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  };

  /** Gives up what is too old or too much. */
  const trim = async (events: Map<string, PlaybackEvent>): Promise<void> => {
    for (const [key, event] of events) {
      if (Date.now() - event.occurred_at > MAX_AGE_MS) {
        events.delete(key);
        await giveUp(event, "too_old", "it could not be sent for 29 days");
      }
    }
    const rank = ({ kind }: PlaybackEvent): number => (kind === "progressed" ? 0 : 1);
    let surplus = events.size - maxStoredEvents;
    if (surplus <= 0) return;
    const candidates = [...events]
      .filter(([, { kind }]) => kind !== "started" && kind !== "stopped")
      .sort(([, a], [, b]) => rank(a) - rank(b));
    for (const [key, event] of candidates) {
      if (surplus-- <= 0) return;
      events.delete(key);
      await giveUp(event, "storage_full", `more than ${maxStoredEvents} events were waiting`);
    }
  };

  /** The first events that fit one request. */
  const take = (events: PlaybackEvent[], count: number, bytes: number): PlaybackEvent[] => {
    let taken = 0;
    for (const event of events) {
      bytes -= byteLength(JSON.stringify(event)) + 1;
      if (taken === count || (taken && bytes < 0)) break;
      taken++;
    }
    return events.slice(0, taken);
  };

  const fail = (retryAfterMs?: number): void => {
    failures++;
    told = retryAfterMs !== undefined;
    quietUntil = now() + (retryAfterMs ?? backOff(failures)) + (told ? Math.random() * 500 : 0);
  };

  /** Does what an answer says. */
  const apply = async (profile: string, batch: PlaybackEvent[], answer: Answer): Promise<void> => {
    const { status, body } = answer;
    const code: unknown = body?.code;
    if (status === 202) {
      failures = refusals = 0;
      held.delete(profile);
      batchSize = Math.min(batchSize * 2, MAX_EVENTS);
      const accepted = new Set(batch);
      for (const { index, code, message, retryable } of body?.rejected ?? []) {
        const event = batch[index];
        if (!event) continue;
        accepted.delete(event);
        if (code === "profile_forbidden") hold(profile);
        else if (retryable) hold(keyOf(event));
        else await giveUp(event, code, message);
      }
      await settle([...accepted]);
    } else if (status === 401 || (status === 403 && code === "forbidden")) {
      hold(profile);
    } else if (status === 400 || status === 403 || status === 413 || status === 415) {
      const [event] = batch;
      if (batch.length > 1) {
        batchSize = Math.ceil(batch.length / 2);
      } else if (event && status !== 403 && (code || status === 413)) {
        await giveUp(event, String(code ?? status), String(body?.detail ?? `the server answered ${status}`));
      } else if (event) {
        hold(keyOf(event));
      }
      if (++refusals >= MAX_REFUSALS) {
        refusals = 0;
        fail();
      }
    } else {
      fail(answer.retryAfterMs);
    }
  };

  /** Completes ids that were minted before a home was known. Undefined while it still is not. */
  const complete = (events: PlaybackEvent[]): PlaybackEvent[] =>
    events.flatMap((event) =>
      event.session_id[0] !== "-" ? event : facts.home ? { ...event, session_id: facts.home + event.session_id } : [],
    );

  const sendProfile = async (profile: string, events: PlaybackEvent[]): Promise<void> => {
    if (!facts.home && events.some((event) => event.session_id[0] === "-")) {
      const answer = await facts.mint(profile);
      if (answer.status !== 201) await apply(profile, [], answer);
    }
    let rest = complete(events);
    while (!closed && now() >= quietUntil && !isHeld(profile)) {
      rest = rest.filter((event) => {
        const key = keyOf(event);
        return !leaving.has(key) && !isHeld(key);
      });
      const batch = take(rest, batchSize, MAX_BYTES - FRAME_BYTES);
      if (!batch.length) break;
      const text = bodyOf(batch);
      // With `keepalive` the request survives the page. After a failure without, in case its limit
      // was the reason.
      const keepalive = !failures && byteLength(text) < transport.room();
      const keys = batch.map(keyOf);
      if (keepalive) keys.forEach((key) => leaving.add(key));
      const answer = await transport.request(profile, "POST", "/v1/events", { body: text, keepalive });
      keys.forEach((key) => leaving.delete(key));
      const size = batchSize;
      await apply(profile, batch, answer);
      // A batch that was refused comes again, smaller.
      if (answer.status === 202 || batchSize === size) rest = rest.slice(batch.length);
    }
  };

  /** One tab at a time; but no longer than this behind a tab that hangs. */
  const locked = async (work: () => Promise<void>): Promise<void> => {
    let entered = false;
    const enter = (): Promise<void> => {
      entered = true;
      return work();
    };
    const patience = new AbortController();
    const patienceTimer = setTimeout(() => patience.abort(), 2 * timeoutMs);
    try {
      if (navigator.locks) await navigator.locks.request(name, { signal: patience.signal }, enter);
    } catch (cause) {
      if (entered) throw cause;
      // No lock: then without. At worst two tabs send the same events.
    } finally {
      clearTimeout(patienceTimer);
    }
    if (!entered) await work();
  };

  const drain = async (): Promise<void> => {
    clearTimeout(timer);
    timerAt = Infinity;
    if (closed) return;
    if (now() < quietUntil) return wakeIn(0);
    let left: PlaybackEvent[] = [...own.values()];
    try {
      await locked(async () => {
        const events = await everything();
        await trim(events);
        const all = [...events.values()];
        for (const profile of new Set(all.map((event) => event.profile_id))) {
          await sendProfile(
            profile,
            all.filter((event) => event.profile_id === profile),
          );
        }
        left = [...(await everything()).values()];
      });
    } catch (cause) {
      fail();
      report("internal", "sending failed", cause);
    }
    for (const event of left) {
      const until = Math.max(...[event.profile_id, keyOf(event)].map((id) => held.get(id)?.until ?? 0));
      wakeIn(Math.max(until, quietUntil) > now() ? until - now() : sendEveryMs);
    }
  };

  const flush = (): Promise<void> =>
    (next ??= running.then(() => {
      next = undefined;
      return (running = drain());
    }));

  return {
    push(event, urgent) {
      const key = keyOf(event);
      own.set(key, event);
      store.put(event).then(
        (kept) => {
          if (!kept) return;
          if (own.has(key)) stored.add(key);
        },
        (cause) => report("storage", "an event is kept in memory only", cause),
      );
      wakeIn(urgent || own.size >= sendAtEvents ? 0 : sendEveryMs);
    },
    flush,
    farewell() {
      if (told && now() < quietUntil && stored.size) return;
      const profiles = new Set([...own.values()].map((event) => event.profile_id));
      for (const profile of profiles) {
        // The newest first: if not all fit, the next page sends the others.
        const events = complete([...own.values()])
          .filter((event) => event.profile_id === profile && !leaving.has(keyOf(event)))
          .reverse();
        const batch = take(events, MAX_EVENTS, transport.room() - FRAME_BYTES);
        if (!batch.length || transport.room() < 1_000) continue;
        const keys = batch.map(keyOf);
        keys.forEach((key) => leaving.add(key));
        void transport.farewell(profile, batch.reverse()).then(async (answer) => {
          keys.forEach((key) => leaving.delete(key));
          if (answer) await apply(profile, batch, answer);
        });
      }
    },
    wake() {
      if (!told) quietUntil = 0;
      held.clear();
      wakeIn(0);
    },
    release(profile) {
      held.delete(profile);
    },
    async unsent(profile, title, before) {
      const mine = (event: PlaybackEvent): boolean =>
        event.profile_id === profile && event.title_id === title && event.occurred_at < before;
      return [...(await everything()).values()].filter(mine);
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

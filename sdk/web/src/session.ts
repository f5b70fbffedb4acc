/**
 * Watches a media element and turns what it does into events.
 *
 * `played_ms` comes from positions, not from clocks: while the element plays, `observe` follows
 * `currentTime`. So speed, stalls and buffering need no care. A position that cannot have been
 * reached by playing breaks the run: what was played up to the break is recorded as an event of its
 * own, since an event can only describe what lies right before it.
 */

import { type Facts, PATIENCE_MS } from "./facts.js";
import type { Queue } from "./queue.js";
import type { Report } from "./report.js";
import { segment, type Transport } from "./transport.js";
import type { AttachOptions, PlaybackEvent, PlayheadOptions, Session, TitleOptions } from "./types.js";
import { ulid } from "./ulid.js";

const MAX_SEQ = 65_535;
/**
 * A member who drags the handle makes dozens of seeks a second. They are one event, once it is
 * quiet for this long.
 */
const SEEK_QUIET_MS = 500;
/** How far a position may be from where playing leads without counting as a jump. */
const SLACK_MS = 1_000;
const BACK_SLACK_MS = 250;
/**
 * Players nudge a new source over a gap at its begin. Such a seek is not the page choosing where to
 * start.
 */
const NUDGE_S = 0.5;
/** The server's defaults for which position is worth resuming, and when a title is finished. */
const RESUME_SHARE = 0.03;
const RESUME_MINIMUM_MS = 120_000;
const FINISHED_SHARE = 0.95;

export interface Deps {
  options: PlayheadOptions;
  facts: Facts;
  queue: Queue;
  transport: Transport;
  report: Report;
}

/** A session, with what the page's own events tell it. */
export interface WatchedSession extends Session {
  /** Resolves when the id is known and the resume point was looked up. Never rejects. */
  readonly ready: Promise<unknown>;
  /** The page is hidden, and may never come back: record how far it is. */
  hidden(): void;
  /** The page goes: record that playing stops. */
  leave(): void;
}

export function watch(media: HTMLMediaElement, attached: AttachOptions, deps: Deps): WatchedSession {
  const { options, facts, queue, transport, report } = deps;
  const { progressEveryMs = 30_000, country } = options;
  const profile = attached.profile;

  let current: AttachOptions = attached;
  let id = "";
  let seq = 0;
  /** Events that have no session id yet. */
  let nameless: Omit<PlaybackEvent, "session_id">[] = [];

  /** Between `started` or `resumed` and `stopped`. */
  let active = false;
  /** The title was `started` and has not ended. */
  let begun = false;
  let paused = false;
  let closed = false;
  /** The page chose where to start. */
  let moved = false;

  /** Positions in ms: up to where played time has been recorded, and where the element was last. */
  let from = 0;
  let last = 0;
  /** When `last` was observed, and at which speed the element went on. */
  let lastAt = 0;
  let rate = 1;
  let recordedAt = 0;
  let durationMs: number | undefined;
  /** A seek that is not recorded yet: when it happened. It led to `from`. */
  let soughtAt: number | undefined;
  let seekTimer: ReturnType<typeof setTimeout> | undefined;

  const position = (): number => {
    const ms = media.currentTime * 1_000;
    return ms > 0 && ms < Infinity ? ms : 0;
  };

  const record = (kind: PlaybackEvent["kind"], urgent = false, occurredAt = Date.now()): void => {
    if (kind !== "seeked") recordSeek();
    const to = kind === "seeked" ? from : last;
    if (seq > MAX_SEQ) {
      id = `${id.split("-")[0] ?? ""}-${ulid()}`;
      seq = 0;
    }
    const event = {
      profile_id: profile,
      title_id: current.title,
      seq: seq++,
      kind,
      position_ms: Math.round(to),
      // The difference of rounded positions, so that consecutive events leave no gap.
      played_ms: Math.max(0, Math.round(to) - Math.round(from)),
      ...(durationMs !== undefined && { title_duration_ms: durationMs }),
      ...(current.creditsMs !== undefined && { credits_ms: Math.round(current.creditsMs) }),
      occurred_at: occurredAt,
      device: { ...facts.device },
      ...(country !== undefined && { country }),
    };
    from = to;
    recordedAt = performance.now();
    if (id) queue.push({ session_id: id, ...event }, urgent);
    else nameless.push(event);
  };

  const recordSeek = (): void => {
    clearTimeout(seekTimer);
    if (soughtAt === undefined) return;
    const at = soughtAt;
    soughtAt = undefined;
    record("seeked", false, at);
  };

  /** Records what was played and not yet recorded, if there is any. */
  const recordPlayed = (): void => {
    if (active && last - from >= 1) record("progressed");
  };

  const jumpTo = (to: number): void => {
    from = last = to;
    lastAt = performance.now();
    rate = media.playbackRate;
  };

  /** Follows the element. */
  const observe = (): void => {
    if (!media.readyState || media.seeking) return;
    const duration = media.duration * 1_000;
    if (current.live || duration === Infinity) durationMs = undefined;
    else if (duration >= 1) durationMs = Math.round(duration);
    const to = position();
    const now = performance.now();
    const reach = (now - lastAt) * Math.max(rate, media.playbackRate) * 1.1 + SLACK_MS;
    if (to < last - BACK_SLACK_MS || to > last + reach) {
      recordPlayed();
      recordSeek();
      jumpTo(to);
    } else if (to > last) {
      last = to;
    }
    lastAt = now;
    rate = media.playbackRate;
  };

  const play = (): void => {
    if (media.paused || media.readyState < 2 || media.seeking) return;
    if (!active || paused) {
      // The clock of a pause says nothing about how far playing can have come.
      lastAt = performance.now();
    }
    observe();
    if (active && !paused) return;
    active = true;
    paused = false;
    record(begun ? "resumed" : "started");
    begun = true;
  };

  const stop = (): void => {
    if (active) record("stopped", true);
    active = paused = false;
  };

  /** The session gets its id, once. */
  const name = (sessionId: string): void => {
    if (id) return;
    id = sessionId;
    for (const event of nameless) queue.push({ session_id: id, ...event, device: { ...facts.device } }, false);
    nameless = [];
  };
  const nameItself = (): void => {
    if (!id) name(`${facts.home ?? ""}-${ulid()}`);
  };

  const identify = async (): Promise<void> => {
    await facts.ready;
    if (options.home === undefined && !id) {
      const answer = await facts.mint(profile);
      if (answer.status === 201) name(answer.body.session_id);
    }
    nameItself();
  };

  /**
   * Where to go on, by what this device has not sent yet, if that is newer than what the server knows.
   */
  const localPosition = async (before: number, known?: string, knownAt = 0): Promise<number | undefined> => {
    const unsent = await queue.unsent(profile, current.title, before);
    const newest = unsent.reduce<PlaybackEvent | undefined>(
      (a, b) => (a && a.occurred_at > b.occurred_at ? a : b),
      undefined,
    );
    if (!newest || newest.occurred_at <= knownAt) return undefined;
    const { session_id, title_duration_ms: duration = Infinity, credits_ms = Infinity, position_ms } = newest;
    if (position_ms >= Math.min(duration * FINISHED_SHARE, credits_ms)) return 0;
    const played = unsent.reduce((sum, event) => sum + (event.session_id === session_id ? event.played_ms : 0), 0);
    const worth = session_id === known || played >= Math.min(duration * RESUME_SHARE, RESUME_MINIMUM_MS);
    return worth ? position_ms : undefined;
  };

  const resume = async (): Promise<void> => {
    const wanted = current;
    if (wanted.resume === false || wanted.live || moved) return;
    const path = `/v1/profiles/${segment(profile)}/titles/${segment(wanted.title)}`;
    const before = Date.now();
    const { body } = await transport.request(profile, "GET", path, { timeoutMs: PATIENCE_MS });
    const { resume, watched_at = 0 } = body ?? {};
    const knownAt = Math.max(resume?.watched_at ?? 0, watched_at);
    const at = (await localPosition(before, resume?.session_id, knownAt)) ?? resume?.position_ms;
    const seek = (): void => {
      media.removeEventListener("loadedmetadata", seek);
      // A start that the page chose before there was metadata has no `seeking` yet.
      const chosen = moved || (!active && media.currentTime > NUDGE_S);
      if (closed || chosen || current !== wanted || !(at > 0)) return;
      if (at < media.duration * 1_000 && media.duration !== Infinity) media.currentTime = at / 1_000;
    };
    if (media.readyState) seek();
    else media.addEventListener("loadedmetadata", seek);
  };

  const guarded = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (cause) {
      report("internal", "the session could not be set up", cause);
    }
  };

  const handlers: Record<string, () => void> = {
    playing: play,
    timeupdate() {
      play();
      if (!media.paused && active && performance.now() - recordedAt >= progressEveryMs) recordPlayed();
    },
    ratechange: observe,
    pause() {
      observe();
      // At the end `ended` follows at once.
      if (!active || paused || media.ended) return;
      record("paused", true);
      paused = true;
    },
    seeking() {
      // `currentTime` has changed already; `last` is where the member left.
      const to = position();
      if (to === 0 || to > NUDGE_S * 1_000) moved = true;
      recordPlayed();
      jumpTo(to);
      if (active) soughtAt = Date.now();
      clearTimeout(seekTimer);
    },
    seeked() {
      if (soughtAt !== undefined || !active) jumpTo(position());
      clearTimeout(seekTimer);
      seekTimer = setTimeout(recordSeek, SEEK_QUIET_MS);
    },
    ended() {
      observe();
      stop();
      begun = false;
    },
    // The element lets go of its source: what is known of its position is `last`.
    emptied() {
      stop();
      jumpTo(0);
      durationMs = undefined;
    },
  };
  const listeners = Object.entries(handlers).map(([event, handler]) => {
    const listener = (): void => {
      try {
        handler();
      } catch (cause) {
        report("internal", `while handling ${event}`, cause);
      }
    };
    media.addEventListener(event, listener);
    return [event, listener] as const;
  });

  jumpTo(position());
  moved = last > NUDGE_S * 1_000;
  play();

  return {
    get id() {
      return id[0] === "-" && facts.home ? facts.home + id : id;
    },
    ready: Promise.all([guarded(identify), guarded(resume)]),
    async title(title: string, changes: TitleOptions = {}) {
      if (closed) return;
      observe();
      stop();
      begun = moved = false;
      const { resume: wanted = attached.resume ?? true, ...rest } = changes;
      current = { profile, title, resume: wanted, ...rest };
      durationMs = undefined;
      // The old source may still be there: the next event of the element says where the new title
      // begins.
      jumpTo(position());
      await guarded(resume);
    },
    async detach() {
      if (closed) return;
      closed = true;
      for (const [event, listener] of listeners) media.removeEventListener(event, listener);
      observe();
      stop();
      recordSeek();
      nameItself();
      await queue.flush();
    },
    hidden() {
      observe();
      recordPlayed();
      nameItself();
    },
    leave() {
      observe();
      stop();
      nameItself();
    },
  };
}

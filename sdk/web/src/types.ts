/**
 * The public types of the library. Times (`…At`, `…_at`) are Unix milliseconds, durations (`…Ms`)
 * are milliseconds.
 */

/** Why a token is asked for. */
export interface TokenRequest {
  /** The profile that the token must cover. */
  readonly profile: string;
  /** The server refused the previous token of this profile. Do not answer from a cache. */
  readonly expired: boolean;
}

/** The device, as it appears in the member's history. */
export interface DeviceOptions {
  /** A stable id. Default: a random id, kept in IndexedDB. */
  id?: string;
  /** What it is: `web`, `tv`, `phone`, … Default: `web`. */
  kind?: string;
}

/** What {@link Playhead} is configured with. */
export interface PlayheadOptions {
  /**
   * Where the API is, for example `https://api.example.com`. A path may follow; a final `/` is
   * ignored.
   */
  endpoint: string;

  /**
   * Gives a bearer token. It is called before the first request for a profile, and again with
   * `expired: true` after the server answered `401`. In between the library keeps the token in
   * memory, never on disk.
   */
  token: (request: TokenRequest) => string | Promise<string>;

  /**
   * The short code of the region where sessions begin, for example `use1`. With it the library
   * mints every session id itself. Without it the server mints them while it can be reached. The
   * library remembers the home that the server gave, so that later sessions can begin offline.
   * Default: none.
   */
  home?: string;

  /** The device. Default: a random id that is remembered, and the kind `web`. */
  device?: DeviceOptions;

  /** Where the device is: two capital letters, ISO 3166-1 alpha-2. Default: none. */
  country?: string;

  /** While playing, record a `progressed` event this often. Milliseconds; default 30,000. */
  progressEveryMs?: number;

  /**
   * Send recorded events at least this often. Milliseconds; default 10,000. Pause and stop are sent
   * at once.
   */
  sendEveryMs?: number;

  /** Send as soon as this many events are waiting. Default 20. */
  sendAtEvents?: number;

  /** Give up on an answer after this time and try again later. Milliseconds; default 30,000. */
  timeoutMs?: number;

  /**
   * How many unsent events are kept. Above it the oldest `progressed` events are dropped first,
   * then other events, but never `started` and `stopped`. Default 10,000, some 3 MB.
   */
  maxStoredEvents?: number;

  /** Told about every event that is given up. See {@link Rejection}. Default: nothing. */
  onRejected?: (rejection: Rejection) => void;

  /**
   * Told about every problem. The library never throws into the page, and it goes on after each of
   * them by itself. Default: `console.warn`.
   */
  onError?: (error: PlayheadError) => void;
}

/** What is played, and how. */
export interface AttachOptions {
  /** Whose history it is. The token must cover it. */
  profile: string;

  /** The title. */
  title: string;

  /**
   * Go on where the member stopped: seek there once the metadata is loaded. It is skipped if the
   * page has set `currentTime` itself, and for live streams. Default `true`.
   */
  resume?: boolean;

  /**
   * A live stream: no duration is reported, and it is never resumed. An element whose `duration` is
   * `Infinity` or `NaN` reports no duration anyway. Default `false`.
   */
  live?: boolean;

  /**
   * Where the closing credits begin. From there on the title counts as finished. Milliseconds;
   * default: none.
   */
  creditsMs?: number;
}

/**
 * What {@link Session.title} may change beside the title. What is not given: `resume` stays, the
 * others are unset.
 */
export type TitleOptions = Pick<AttachOptions, "resume" | "live" | "creditsMs">;

/** One sitting: what one profile watches in one element, from `attach` to `detach`. */
export interface Session {
  /**
   * The session's id. Empty until the promise of `attach` resolves; begins with `-` while no home
   * is known.
   */
  readonly id: string;

  /**
   * Goes on with another title in the same session, for example when the next episode begins. Call
   * it in the same turn in which the element gets its new source, before or after. Resolves when
   * its resume point has been looked up.
   */
  title(title: string, options?: TitleOptions): Promise<void>;

  /**
   * Ends the session and lets go of the element. Resolves when what was left has been tried to
   * send.
   */
  detach(): Promise<void>;
}

/** The library. There is no global state: make as many as you need. */
export interface Playhead {
  /**
   * Records what the element plays, from this call on. The promise resolves when the session has an
   * id and the resume point has been looked up, at most about 5 seconds later; there is no need to
   * wait for it. It never rejects. An element that is still attached is detached first.
   */
  attach(media: HTMLMediaElement, options: AttachOptions): Promise<Session>;

  /**
   * Sends what is waiting. Resolves after the attempt; what failed stays and is sent later. It
   * never rejects.
   */
  flush(): Promise<void>;

  /** Detaches every element, sends what is left, and stops. It never rejects. */
  close(): Promise<void>;
}

/** An event that was given up. */
export interface Rejection {
  /** The event, as it was or would have been sent. */
  readonly event: PlaybackEvent;
  /**
   * Why: a rejection code of the server, an error code of the server for a request with this event
   * alone, or one of ours: `too_old` (unsent for 29 days) or `storage_full` (more than
   * `maxStoredEvents`).
   */
  readonly code: string;
  /** The same in a sentence. */
  readonly message: string;
}

/** A problem. `cause` has the original error, if there was one. */
export interface PlayheadError extends Error {
  /**
   * `network` (no answer), `http` (an answer that is not what it should be), `token` (the token
   * callback failed), `storage` (IndexedDB is unavailable or failed; events are kept in memory), or
   * `internal` (anything else, also an error that your own callback threw).
   */
  readonly code: "network" | "http" | "token" | "storage" | "internal";
  /** The HTTP status, for `http`. */
  readonly status?: number;
  /** What went wrong underneath. */
  readonly cause?: unknown;
}

/** An event as it is sent. */
export interface PlaybackEvent {
  /** Which sitting: `<home>-<ULID>`. It begins with `-` while no home is known. */
  session_id: string;
  profile_id: string;
  title_id: string;
  /** Counts the events of a session from 0 without gaps. */
  seq: number;
  kind: "started" | "progressed" | "paused" | "resumed" | "seeked" | "stopped";
  /** Where the player is in the title. */
  position_ms: number;
  /**
   * How much of the title was played without a break, up to `position_ms`, since the previous
   * event.
   */
  played_ms: number;
  /** The title's length; absent while unknown, and for live streams. */
  title_duration_ms?: number;
  /** Where the closing credits begin. */
  credits_ms?: number;
  /** When it happened, by the device's clock. */
  occurred_at: number;
  device?: { id: string; kind: string };
  country?: string;
}

/**
 * Reports what an `HTMLMediaElement` plays to Playhead, and resumes where the member stopped.
 *
 * @packageDocumentation
 */

import { createFacts } from "./facts.js";
import { createQueue } from "./queue.js";
import { createReport } from "./report.js";
import { watch, type WatchedSession } from "./session.js";
import { openStore } from "./store.js";
import { createTransport } from "./transport.js";
import type { Playhead, PlayheadOptions } from "./types.js";

export type {
  AttachOptions,
  DeviceOptions,
  PlaybackEvent,
  Playhead,
  PlayheadError,
  PlayheadOptions,
  Rejection,
  Session,
  TitleOptions,
  TokenRequest,
} from "./types.js";

/**
 * Makes a player's connection to Playhead. Make it once per page, before the first `attach`: it
 * also sends what earlier pages could not send.
 */
export function createPlayhead(options: PlayheadOptions): Playhead {
  const report = createReport(options.onError);
  const name = `playhead ${options.endpoint}`;
  const store = openStore(name, report);
  const transport = createTransport(options, report);
  const facts = createFacts(options, store, transport, report);
  const queue = createQueue(name, options, store, transport, facts, report);
  const sessions = new Map<HTMLMediaElement, WatchedSession>();

  const each = (work: (session: WatchedSession) => void): void => {
    for (const session of sessions.values()) {
      try {
        work(session);
      } catch (cause) {
        report("internal", "while the page goes", cause);
      }
    }
    queue.farewell();
  };
  const pageEvents: [EventTarget, string, () => void][] = [
    [document, "visibilitychange", () => document.visibilityState === "hidden" && each((session) => session.hidden())],
    [window, "pagehide", () => each((session) => session.leave())],
    [window, "pageshow", queue.wake],
    [window, "online", queue.wake],
  ];
  for (const [target, event, listener] of pageEvents) target.addEventListener(event, listener);

  void facts.ready.then(queue.flush);

  return {
    async attach(media, attachOptions) {
      const previous = sessions.get(media);
      const session = watch(media, attachOptions, { options, facts, queue, transport, report });
      sessions.set(media, session);
      void previous?.detach();
      queue.release(attachOptions.profile);
      const detach = session.detach;
      session.detach = () => {
        if (sessions.get(media) === session) sessions.delete(media);
        return detach();
      };
      await session.ready;
      return session;
    },
    flush: queue.flush,
    async close() {
      for (const [target, event, listener] of pageEvents) target.removeEventListener(event, listener);
      await Promise.all([...sessions.values()].map((session) => session.detach()));
      await queue.flush();
      queue.close();
      store.close();
    },
  };
}

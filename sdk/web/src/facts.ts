/**
 * What the player knows about itself: the device's id, and the home of new sessions. Both outlive
 * the page.
 */

import type { Report } from "./report.js";
import type { Store } from "./store.js";
import type { Answer, Transport } from "./transport.js";
import type { PlayheadOptions } from "./types.js";
import { SESSION_ID, ulid } from "./ulid.js";

/** A page that starts to play does not wait longer than this for an id or a resume point. */
export const PATIENCE_MS = 5_000;

export interface Facts {
  readonly home: string | undefined;
  readonly device: { id: string; kind: string };
  /** Resolves when what earlier pages knew is known. Never rejects. */
  readonly ready: Promise<void>;
  /**
   * Has the server mint a session id, and remembers its home. A status of 201 means that
   * `body.session_id` is one.
   */
  mint(profile: string): Promise<Answer>;
}

export function createFacts(options: PlayheadOptions, store: Store, transport: Transport, report: Report): Facts {
  const device = { id: options.device?.id ?? ulid(), kind: options.device?.kind ?? "web" };

  const load = async (): Promise<void> => {
    try {
      facts.home ??= await store.fact("home");
      if (options.device?.id !== undefined) return;
      const known = await store.fact("device");
      if (known !== undefined) device.id = known;
      else await store.remember("device", device.id);
    } catch (cause) {
      report("storage", "the device's id could not be kept", cause);
    }
  };

  const facts = {
    home: options.home,
    device,
    ready: Promise.resolve(),
    async mint(profile: string): Promise<Answer> {
      const answer = await transport.request(profile, "POST", "/v1/sessions", { timeoutMs: PATIENCE_MS });
      if (answer.status !== 201) return answer;
      const id: unknown = answer.body?.session_id;
      if (typeof id !== "string" || !SESSION_ID.test(id)) {
        report("http", "POST /v1/sessions: the answer has no session id", answer.body, answer.status);
        return { status: 0 };
      }
      const [home = ""] = id.split("-");
      if (home !== facts.home) {
        facts.home = home;
        store.remember("home", home).catch((cause) => report("storage", "the home could not be kept", cause));
      }
      return answer;
    },
  };
  facts.ready = load();
  return facts;
}

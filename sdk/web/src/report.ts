/** How problems reach the page: through `onError`, never as an exception. */

import type { PlayheadError } from "./types.js";

export type Report = (code: PlayheadError["code"], message: string, cause?: unknown, status?: number) => void;

/**
 * Makes the reporter. An error that the page's own callback throws goes to the console, nowhere
 * else.
 */
export function createReport(onError: ((error: PlayheadError) => void) | undefined): Report {
  return (code, message, cause, status) => {
    const error = Object.assign(new Error(message), { code, cause }, status ? { status } : {});
    try {
      if (onError) onError(error);
      else console.warn("playhead:", error);
    } catch (thrown) {
      console.error("playhead: onError threw", thrown);
    }
  };
}

/**
 * ULIDs (https://github.com/ulid/spec): 48 bits of time, then 80 random bits, in Crockford's base
 * 32.
 */

const DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** A ULID in canonical form. `now` is in Unix milliseconds. */
export function ulid(now: number = Date.now()): string {
  let text = "";
  for (let digit = 0; digit < 10; digit++) {
    text = DIGITS.charAt(now % 32) + text;
    now = Math.floor(now / 32);
  }
  for (const byte of crypto.getRandomValues(new Uint8Array(16))) text += DIGITS.charAt(byte % 32);
  return text;
}

/** What the server answers as a session id: `<home>-<ULID>`. */
export const SESSION_ID: RegExp = /^[a-z0-9]{1,16}-[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

/**
 * What outlives the page: unsent events, and a few facts (the home, the device's id). It is
 * IndexedDB, one database for each endpoint, shared by all tabs. Where IndexedDB is unavailable
 * every read is empty and nothing is kept; the queue has this page's events in memory anyway.
 */

import type { Report } from "./report.js";
import type { PlaybackEvent } from "./types.js";

/** How long the database may take to open before the page goes on without it. */
const OPEN_TIMEOUT_MS = 5_000;

export interface Store {
  /** All kept events, oldest session first. */
  events(): Promise<PlaybackEvent[]>;
  /** Keeps an event. Resolves to whether it is on disk now. */
  put(event: PlaybackEvent): Promise<boolean>;
  remove(keys: Iterable<string>): Promise<unknown>;
  fact(name: string): Promise<string | undefined>;
  remember(name: string, value: string): Promise<unknown>;
  /** Called when the database went away: what was in it may be gone. */
  onLost: () => void;
  close(): void;
}

/**
 * An event's identity, without the home, which may not be known yet. Sorts by the session's start,
 * then by `seq`.
 */
export function keyOf(event: PlaybackEvent): string {
  return `${event.session_id.replace(/^[^-]*-/, "")}.${String(event.seq).padStart(5, "0")}`;
}

export function openStore(name: string, report: Report): Store {
  let database: Promise<IDBDatabase | undefined> | undefined;
  let closed = false;

  const open = (): Promise<IDBDatabase | undefined> =>
    (database ??= new Promise((resolve) => {
      const giveUp = (cause: unknown): void => {
        clearTimeout(timer);
        report("storage", "IndexedDB is unavailable: unsent events are kept in memory only", cause);
        resolve(undefined);
      };
      const timer = setTimeout(() => giveUp("timeout"), OPEN_TIMEOUT_MS);
      try {
        const request = indexedDB.open(name, 1);
        request.onupgradeneeded = () => {
          request.result.createObjectStore("events");
          request.result.createObjectStore("facts");
        };
        request.onerror = () => giveUp(request.error);
        request.onsuccess = () => {
          clearTimeout(timer);
          const opened = request.result;
          // Another page deletes the database, or the browser closed it: open it again when it is
          // needed.
          opened.onversionchange = opened.onclose = () => {
            opened.close();
            database = undefined;
            store.onLost();
          };
          resolve(opened);
        };
      } catch (cause) {
        giveUp(cause);
      }
    }));

  const run = async <T>(
    table: "events" | "facts",
    mode: IDBTransactionMode,
    work: (table: IDBObjectStore) => IDBRequest<T> | undefined,
  ): Promise<{ result: T | undefined } | undefined> => {
    const opened = closed ? undefined : await open();
    return (
      opened &&
      new Promise((resolve, reject) => {
        const transaction = opened.transaction(table, mode);
        transaction.oncomplete = () => resolve({ result: request?.result });
        transaction.onabort = () => reject(transaction.error);
        const request = work(transaction.objectStore(table));
        // Without this the commit waits for a turn of this page, which may be closing.
        transaction.commit?.();
      })
    );
  };

  const store: Store = {
    onLost: () => undefined,
    events: async () => (await run<PlaybackEvent[]>("events", "readonly", (table) => table.getAll()))?.result ?? [],
    put: async (event) => !!(await run("events", "readwrite", (table) => table.put(event, keyOf(event)))),
    remove: (keys) =>
      run("events", "readwrite", (table) => {
        for (const key of keys) table.delete(key);
        return undefined;
      }),
    fact: async (fact) => (await run<string>("facts", "readonly", (table) => table.get(fact)))?.result,
    remember: (fact, value) => run("facts", "readwrite", (table) => table.put(value, fact)),
    close: () => {
      closed = true;
      void database?.then((opened) => opened?.close());
    },
  };
  return store;
}

/**
 * What the browser tests talk to: the contract's model as a server, and a gate in front of it (or
 * in front of the real API) that can fail on request and remembers every request for events.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Contract, type Reply, type WireEvent } from "./contract.js";

export interface Listening {
  url: string;
  close(): Promise<void>;
}

export async function listen(serve: (request: IncomingMessage, response: ServerResponse) => void): Promise<Listening> {
  const server: Server = createServer(serve);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

export async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

/** The CORS headers for a request, none for a strange origin. */
function cors(request: IncomingMessage, allowed: string | undefined): Record<string, string> {
  const origin = request.headers.origin;
  if (!origin || (allowed !== undefined && origin !== allowed)) return {};
  return {
    "access-control-allow-origin": origin,
    "access-control-expose-headers": "retry-after",
    "access-control-allow-methods": "GET,POST,PUT,DELETE",
    "access-control-allow-headers": "authorization,content-type,content-encoding,traceparent",
    "access-control-max-age": "600",
    vary: "origin",
  };
}

function send(response: ServerResponse, reply: Reply, headers: Record<string, string>): void {
  const text = reply.body === undefined ? "" : JSON.stringify(reply.body);
  response.writeHead(reply.status, {
    ...(text && { "content-type": "application/json" }),
    ...reply.headers,
    ...headers,
    "cache-control": "no-store",
  });
  response.end(text);
}

/** The model as a server. Without `allowedOrigin` it allows any. */
export async function startContractServer(allowedOrigin?: string): Promise<Listening & { contract: Contract }> {
  const contract = new Contract();
  const server = await listen(async (request, response) => {
    const headers = cors(request, allowedOrigin);
    if (request.method === "OPTIONS") return send(response, { status: 204 }, headers);
    const given = request.headers as Record<string, string | undefined>;
    return send(
      response,
      contract.handle(request.method ?? "", request.url ?? "", given, await bodyOf(request)),
      headers,
    );
  });
  return { ...server, contract };
}

/**
 * What the gate does with a request: let it through, answer itself, never answer, or break the
 * connection.
 */
export type Fault = "pass" | "hang" | "break" | "lose answer" | Reply;

/** A request for events that came to the gate, and what became known of it. */
export interface Seen {
  at: number;
  events: WireEvent[];
  beacon: boolean;
  token: string | undefined;
  status: number | undefined;
  rejected: { index: number; code: string }[];
}

export interface Gate extends Listening {
  /** Decides about each request. */
  fault: (method: string, path: string, seen: Seen | undefined) => Fault;
  readonly seen: Seen[];
}

export async function startGate(target: string): Promise<Gate> {
  const seen: Seen[] = [];
  const gate: Gate = {
    url: "",
    seen,
    fault: () => "pass",
    close: async () => undefined,
  };
  const server = await listen(async (request, response) => {
    const { method = "", url = "" } = request;
    const body = await bodyOf(request);
    let entry: Seen | undefined;
    if (method === "POST" && url.endsWith("/v1/events")) {
      const { events, token } = JSON.parse(body) as { events: WireEvent[]; token?: string };
      const bearer = request.headers.authorization?.replace("Bearer ", "");
      entry = { at: Date.now(), events, beacon: !bearer, token: bearer ?? token, status: undefined, rejected: [] };
      seen.push(entry);
    }
    const fault = method === "OPTIONS" ? "pass" : gate.fault(method, url, entry);
    if (fault === "hang") return;
    if (fault === "break") return void request.socket.destroy();
    if (typeof fault === "object") {
      if (entry) entry.status = fault.status;
      return send(response, fault, cors(request, undefined));
    }
    const { host: _, connection: __, "content-length": ___, ...headers } = request.headers;
    const answer = await fetch(target + url, {
      method,
      headers: headers as Record<string, string>,
      ...(body && { body }),
    });
    const text = await answer.text();
    if (entry) {
      entry.status = answer.status;
      if (answer.status === 202) entry.rejected = (JSON.parse(text) as { rejected: Seen["rejected"] }).rejected;
    }
    if (fault === "lose answer") return void request.socket.destroy();
    const kept = [...answer.headers].filter(([name]) => /^(access-control|content-type|retry-after|vary)/.test(name));
    response.writeHead(answer.status, Object.fromEntries(kept));
    response.end(text);
  });
  return Object.assign(gate, server);
}

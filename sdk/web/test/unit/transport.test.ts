import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { bodyOf, createTransport, retryAfterOf, segment, type Transport } from "../../src/transport.js";
import type { PlaybackEvent, PlayheadError, PlayheadOptions, TokenRequest } from "../../src/types.js";
import { makeToken } from "../contract.js";
import { startContractServer, startGate } from "../servers.js";

let server: Awaited<ReturnType<typeof startContractServer>>;
let gate: Awaited<ReturnType<typeof startGate>>;
let asked: TokenRequest[];
let problems: PlayheadError["code"][];

beforeEach(async () => {
  server = await startContractServer();
  gate = await startGate(server.url);
  [asked, problems] = [[], []];
});
afterEach(async () => {
  await gate.close();
  await server.close();
});

function transport(token: PlayheadOptions["token"] = () => makeToken(["alice"]), timeoutMs = 5_000): Transport {
  const options: PlayheadOptions = {
    endpoint: `${gate.url}//`,
    timeoutMs,
    token: (request) => {
      asked.push(request);
      return token(request);
    },
  };
  return createTransport(options, (code) => problems.push(code));
}

test("a token is asked for once, also by requests at the same time", async () => {
  const { request } = transport();
  const answers = await Promise.all([1, 2, 3].map(() => request("alice", "POST", "/v1/sessions")));
  assert.deepEqual(
    answers.map(({ status }) => status),
    [201, 201, 201],
  );
  assert.deepEqual(asked, [{ profile: "alice", expired: false }]);
});

test("after a 401 one new token is asked for, once for all", async () => {
  const { request } = transport(({ expired }) => makeToken(["alice"], expired ? 60 : -60));
  const answers = await Promise.all([1, 2, 3].map(() => request("alice", "POST", "/v1/sessions")));
  assert.deepEqual(
    answers.map(({ status }) => status),
    [201, 201, 201],
  );
  assert.deepEqual(asked, [
    { profile: "alice", expired: false },
    { profile: "alice", expired: true },
  ]);
  assert.deepEqual(problems, []);
});

test("a second 401 is the answer", async () => {
  const { request } = transport(() => makeToken(["alice"], -60));
  assert.equal((await request("alice", "POST", "/v1/sessions")).status, 401);
  assert.equal(asked.length, 2);
  assert.deepEqual(problems, ["http"]);
});

test("a token callback that fails or hangs is a 401, and is asked again the next time", async () => {
  let calls = 0;
  const { request } = transport(() => {
    calls++;
    if (calls === 1) throw new Error("not logged in");
    if (calls === 2) return Promise.reject(new Error("not logged in"));
    return makeToken(["alice"]);
  });
  for (const status of [401, 401, 201]) {
    assert.equal((await request("alice", "POST", "/v1/sessions")).status, status);
  }
  assert.deepEqual(problems, ["token", "token"]);

  const hanging = transport(() => new Promise<string>(() => undefined), 50);
  assert.equal((await hanging.request("alice", "POST", "/v1/sessions")).status, 401);
});

test("each profile has its own token", async () => {
  const { request } = transport(({ profile }) => makeToken([profile]));
  for (const profile of ["alice", "bob", "alice"]) {
    assert.equal((await request(profile, "GET", `/v1/profiles/${profile}/titles/t1`)).status, 200);
  }
  assert.deepEqual(
    asked.map(({ profile }) => profile),
    ["alice", "bob"],
  );
});

test("no answer, and one that never comes, are a 0", async () => {
  const { request } = transport(undefined, 100);
  gate.fault = () => "break";
  assert.equal((await request("alice", "POST", "/v1/sessions")).status, 0);
  gate.fault = () => "hang";
  assert.equal((await request("alice", "POST", "/v1/sessions")).status, 0);
  assert.deepEqual(problems, ["network", "network"]);
});

test("answers without JSON are answers", async () => {
  gate.fault = () => ({ status: 503, headers: { "retry-after": "7" } });
  assert.deepEqual(await transport().request("alice", "POST", "/v1/sessions"), { status: 503, retryAfterMs: 7_000 });
});

test("Retry-After may be seconds or a date", () => {
  assert.equal(retryAfterOf("120"), 120_000);
  const ms = retryAfterOf(new Date(Date.now() + 60_000).toUTCString()) ?? 0;
  assert.ok(ms > 58_000 && ms <= 60_000, `${ms}`);
  for (const none of [null, "", "soon", "-3", new Date(0).toUTCString()]) assert.equal(retryAfterOf(none), undefined);
});

test("a farewell needs a token that is there already", async () => {
  const events: PlaybackEvent[] = [];
  const { request, farewell } = transport();
  assert.equal(await farewell("alice", events), undefined);
  assert.equal(gate.seen.length, 0);
  await request("alice", "POST", "/v1/sessions");
  assert.equal((await farewell("alice", events))?.status, 400);
  assert.equal(gate.seen.length, 1);
});

test("only a beacon's body has the token", () => {
  assert.ok(!("token" in JSON.parse(bodyOf([]))));
  assert.equal(JSON.parse(bodyOf([], "secret")).token, "secret");
});

test("an id in a path reaches the server whole, whatever characters it has", async () => {
  for (const id of ["crid://a.example/b+c=", "10.5240/7791-8534", "urn:uuid:1", "a@b!$&'()*+;=~._-"]) {
    const { request } = transport(() => makeToken([id]));
    const answer = await request(id, "GET", `/v1/profiles/${segment(id)}/titles/${segment(id)}`);
    assert.deepEqual([answer.status, answer.body.title_id], [200, id]);
  }
  assert.equal(segment("t-000_002.a"), "t-000_002.a");
});

test("an id with a slash that is encoded once finds no route", async () => {
  const { request } = transport();
  assert.equal((await request("alice", "GET", "/v1/profiles/alice/titles/a%2Fb")).status, 404);
});

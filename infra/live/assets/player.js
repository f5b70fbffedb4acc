// A real player: the web library reports what the <video> plays, and the page shows where its
// events are.

const byId = (id) => document.getElementById(id);
const POLL_MS = 1_000;
const LIT_MS = 2_500;
/** The member's page is refreshed at most this often. */
const REFRESH_MS = 5_000;

const config = await (await fetch("/config")).json();
const video = byId("video");
let [posts, accepted, lastAcceptedAt, shown] = [0, 0, 0, ""];

/** Lights the arrows and boxes of a stretch of the way for a moment. */
function light(arrows, boxes) {
  const parts = [...arrows.map((id) => [byId(`a-${id}`), "mine"]), ...boxes.map((id) => [byId(`b-${id}`), "lit"])];
  parts.forEach(([part, name]) => part.classList.add(name));
  setTimeout(() => parts.forEach(([part, name]) => part.classList.remove(name)), LIT_MS);
}

// The library calls fetch. Watching its answers here shows what the server took, and when.
const original = window.fetch.bind(window);
window.fetch = async (input, init) => {
  const answer = await original(input, init);
  if (String(input?.url ?? input).endsWith("/v1/events")) {
    posts += 1;
    if (answer.status === 202) {
      accepted += (await answer.clone().json()).accepted;
      lastAcceptedAt = Date.now();
      const onStandby = window.snapshot?.regions[0].figures.takes === "standby";
      light(["post", onStandby ? "standby" : "primary"], ["players", "ingest", onStandby ? "standby" : "primary"]);
    }
    byId("own-posts").textContent = posts;
    byId("own-accepted").textContent = accepted;
    byId("own-sent").classList.add("lit");
    setTimeout(() => byId("own-sent").classList.remove("lit"), LIT_MS);
  }
  return answer;
};

const { createPlayhead } = await import("/playhead-web.js");
const playhead = createPlayhead({
  endpoint: config.api,
  token: () => config.token,
  // Short, so that viewers soon see a change.
  sendEveryMs: 2_000,
  progressEveryMs: 2_000,
  onError: ({ message }) => console.warn(message),
});
const session = await playhead.attach(video, { profile: config.profile, title: config.title });

byId("speed").addEventListener("change", ({ target }) => (video.playbackRate = Number(target.value)));
byId("back").addEventListener("click", () => (video.currentTime = Math.max(0, video.currentTime - 10)));
byId("ahead").addEventListener("click", () => (video.currentTime = Math.min(video.duration - 1, video.currentTime + 30)));

const clock = (ms) => `${Math.floor(ms / 60_000)}:${String(Math.floor(ms / 1000) % 60).padStart(2, "0")}`;

async function history() {
  const answer = await original(`${config.api}/v1/profiles/${config.profile}/history?limit=5`, {
    headers: { authorization: `Bearer ${config.token}` },
    signal: AbortSignal.timeout(8_000),
  });
  if (!answer.ok) throw new Error(`the API answered ${answer.status}`);
  return (await answer.json()).sessions;
}

/** The view of this page's session, as the member's API has it. */
async function look() {
  const sessions = await history();
  const mine = sessions.find(({ session_id }) => session_id === session.id);
  const text = JSON.stringify(sessions);
  document.getElementById("s-member").textContent = `${sessions.length} session${sessions.length === 1 ? "" : "s"}`;
  if (text === shown) return;
  shown = text;
  if (mine) {
    const after = lastAcceptedAt ? `, ${((Date.now() - lastAcceptedAt) / 1000).toFixed(1)} s after the last 202` : "";
    byId("own-view").textContent =
      `Your view: at ${clock(mine.position_ms)}, ${clock(mine.played_ms)} played, ${mine.events} events${after}`;
    byId("own-view").classList.add("lit");
    setTimeout(() => byId("own-view").classList.remove("lit"), LIT_MS);
    const onStandby = window.snapshot?.regions[0].figures.takes === "standby";
    light([onStandby ? "from-standby" : "from-primary", "views", "query", "member"], ["process", "views", "query", "member"]);
  }
  show(sessions);
}

let [refreshedAt, refreshing] = [0, 0];

/** The member's page if the stack has one, else the history as a table. */
function show(sessions) {
  if (!config.activity) {
    const table = document.createElement("table");
    table.createCaption().textContent = "Your history, from the API";
    const head = table.createTHead().insertRow();
    ["title", "position", "played", "events"].forEach((name) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      head.append(cell);
    });
    const body = table.createTBody();
    sessions.forEach(({ title_id, position_ms, played_ms, events }) => {
      const row = body.insertRow();
      [title_id, clock(position_ms), clock(played_ms), events].forEach((text) => (row.insertCell().textContent = text));
    });
    byId("member").replaceChildren(table);
    return;
  }
  clearTimeout(refreshing);
  refreshing = setTimeout(() => {
    refreshedAt = Date.now();
    const framed = byId("member").querySelector("iframe");
    // The fragment once more refreshes the page in it, which keeps its menus, search and notices.
    if (framed) return framed.contentWindow.location.replace(config.activity);
    const frame = document.createElement("iframe");
    frame.title = "Your viewing activity";
    frame.src = config.activity;
    byId("member").replaceChildren(frame);
  }, Math.max(0, refreshedAt + REFRESH_MS - Date.now()));
}

/** Asks for the member's page again: a function that had to start first may not have answered in time. */
async function findPage() {
  if (config.activity) return;
  const { activity } = await (await original("/config")).json();
  if (!activity) return;
  config.activity = activity;
  show([]);
}

show([]);
for (;;) {
  await look().then(findPage).catch(({ message }) => (byId("s-member").textContent = message.slice(0, 24)));
  await new Promise((resolve) => setTimeout(resolve, POLL_MS));
}

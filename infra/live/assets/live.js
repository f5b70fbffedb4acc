// Draws the snapshots that the server pushes once a second, and posts the controls.

const KEPT = 180; // points of a chart: three minutes
const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const count = (n) => number.format(n);
const rate = (n) => (n >= 10 ? n.toFixed(0) : n.toFixed(1));
const perSecond = (n) => (n > 0 ? `${rate(n)}/s` : "");
const write = (id, text) => {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
};
const flag = (id, name, on) => byId(id).classList.toggle(name, on);

// ------------------------------------------------------------------------------------------ charts

const CHARTS = [
  { id: "rate", values: (s) => [s.all.rates.accepted, s.all.rates.folded], now: (s) => `${rate(s.all.rates.accepted)}/s` },
  { id: "lag", values: (s) => [s.all.lag_ms / 1000], now: (s) => `${rate(s.all.lag_ms / 1000)} s` },
  { id: "p50", values: (s) => [s.traffic.p50_ms], now: (s) => (s.traffic.p50_ms == null ? "no POST" : `${rate(s.traffic.p50_ms)} ms`) },
  {
    id: "writes",
    values: (s) => [s.all.writes_per_event],
    now: (s) => (s.all.writes_per_event == null ? "no event" : s.all.writes_per_event.toFixed(3)),
  },
];
const kept = [];
let plots = [];

function drawCharts() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  plots.forEach((plot) => plot.destroy());
  plots = CHARTS.map(({ id, values }) => {
    const place = byId(`chart-${id}`);
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const lines = ["--accent", "--second"].slice(0, kept.length ? values(kept[0]).length : 1);
    return new uPlot(
      {
        width: place.clientWidth || 260,
        height: 110,
        legend: { show: false },
        cursor: { y: false, points: { show: false } },
        padding: [6, 4, 0, 0],
        scales: { y: { range: (_, __, most) => [0, Math.max(most || 0, id === "writes" ? 0.1 : 1) * 1.1] } },
        axes: [{ ...axis, size: 20, space: 70 }, { ...axis, size: 38, space: 24 }],
        series: [{}, ...lines.map((name) => ({ stroke: color(name), width: 2, points: { show: false } }))],
      },
      chartData(values),
      place,
    );
  });
}

function chartData(values) {
  const columns = kept.map(values);
  const lines = columns.length ? columns[0].map((_, line) => columns.map((column) => column[line])) : [[]];
  return [kept.map(({ at }) => at / 1000), ...lines];
}

function updateCharts(snapshot) {
  kept.push(snapshot);
  if (kept.length > KEPT) kept.shift();
  if (!plots.length || kept.length === 1) drawCharts();
  plots.forEach((plot, index) => plot.setData(chartData(CHARTS[index].values)));
  CHARTS.forEach(({ id, now }) => write(`c-${id}`, now(snapshot)));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => kept.length && drawCharts());
addEventListener("resize", () => {
  plots.forEach((plot, index) => plot.setSize({ width: byId(`chart-${CHARTS[index].id}`).clientWidth, height: 110 }));
});

// ----------------------------------------------------------------------------------------- picture

const TAKES = {
  primary: "The primary log takes the writes",
  standby: "The standby log takes the writes",
  both: "Both logs take writes: the standby helps out",
  neither: "No log takes writes: devices get 503 and keep their events",
  idle: "No writes just now",
};

function drawLog(role, log, takes) {
  const box = byId(`b-${role}`);
  box.classList.toggle("off", !log);
  byId(`a-${role}`).classList.toggle("off", !log);
  byId(`a-from-${role}`).classList.toggle("off", !log);
  if (!log) return;
  const up = log.brokers.filter((state) => state === "up").length;
  const all = log.brokers.length;
  const state = !all ? log.service : up === all ? `${log.service}, ${all} up` : `${log.service}, ${up} of ${all} up`;
  write(`s-${role}`, state);
  box.classList.toggle("takes", takes === role || takes === "both");
  box.classList.toggle("sick", all > 0 && up > 0 && up < all);
  box.classList.toggle("down", all > 0 && up === 0);
  const dots = byId(`d-${role}`);
  const y = role === "primary" ? 95 : 243;
  dots.replaceChildren(
    ...log.brokers.map((state, at) => {
      const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      const place = { cx: 401 + (at - (all - 1) / 2) * 20, cy: y, r: 6, class: `broker ${state}` };
      Object.entries(place).forEach(([name, value]) => dot.setAttribute(name, value));
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = `broker ${at}: ${state}`;
      dot.append(title);
      return dot;
    }),
  );
}

function drawPicture(snapshot) {
  const { all, regions, traffic } = snapshot;
  const [here, ...others] = regions;
  const { rates, totals } = all;
  const sum = (of) => regions.reduce((total, region) => total + of(region), 0);
  drawLog("primary", here.parts.primary, here.figures.takes);
  drawLog("standby", here.parts.standby, here.figures.takes);
  write("s-players", traffic.level === "off" ? "viewers are off" : `${rate(traffic.posts_per_second)} POSTs/s`);
  write("s-ingest", rates.rejected > 0 ? `${rate(rates.rejected)}/s malformed` : "answers 202");
  write("s-process", `${count(sum(({ parts }) => parts.primary.waiting + (parts.standby?.waiting ?? 0)))} in hand`);
  write("s-views", { well: "answers", throttles: "throttles", hangs: "hangs" }[here.parts.store]);
  write("s-retry", `${count(sum(({ queues }) => queues.retry))} waiting`);
  write("s-dead", `${count(sum(({ queues }) => queues.dead_letter))} letters`);
  flag("b-views", "sick", here.parts.store === "throttles");
  flag("b-views", "down", here.parts.store === "hangs");
  flag("b-dead", "sick", sum(({ queues }) => queues.dead_letter) > 0);
  flag("b-retry", "sick", sum(({ queues }) => queues.retry) > 0);
  write("l-post", perSecond(rates.accepted));
  write("l-primary", perSecond(here.figures.rates.primary));
  write("l-standby", perSecond(here.figures.rates.standby));
  write("l-views", rates.writes > 0 ? `${rate(rates.writes)} w/s` : "");
  write("l-retry", perSecond(rates.retried));
  write("l-dead", perSecond(rates.dead));
  write("l-feed", perSecond(rates.changes));
  write("l-link", perSecond(rates.forwarded));
  write("s-feed", `${count(totals.changes)} changes`);
  const flows = {
    post: rates.accepted,
    primary: here.figures.rates.primary,
    standby: here.figures.rates.standby,
    "from-primary": here.parts.primary.waiting + (rates.folded > 0 ? here.figures.rates.primary : 0),
    "from-standby": (here.parts.standby?.waiting ?? 0) + (rates.folded > 0 ? here.figures.rates.standby : 0),
    views: rates.writes,
    retry: rates.retried,
    dead: rates.dead,
    feed: rates.changes,
    link: rates.forwarded,
  };
  Object.entries(flows).forEach(([id, flow]) => flag(`a-${id}`, "flows", flow > 0));
  document.querySelectorAll(".feed").forEach((part) => part.classList.toggle("off", totals.changes === 0));
  document.querySelectorAll(".several").forEach((part) => part.classList.toggle("off", !others.length));
  if (others.length) {
    const other = others[0];
    write("t-region", other.parts.region);
    write("s-region", other.parts.cut ? "link is cut" : other.answers ? `${rate(other.figures.rates.accepted)} events/s` : "does not answer");
    flag("b-region", "down", !other.answers || other.parts.hangs || other.parts.cut);
  }
}

function drawBooks(snapshot) {
  const { all, poison, regions, draining } = snapshot;
  const { totals } = all;
  write("n-accepted", count(totals.accepted));
  write("n-applied", count(totals.applied));
  write("n-duplicates", count(totals.duplicates));
  write("n-dead", count(totals.dead));
  write("n-in-flight", count(totals.in_flight));
  const poisoned = poison ? ` Poison: ${count(poison)} dropped, ${count(totals.dead_records)} dead letters. It was never accepted, so it is not in these sums.` : "";
  const stray = totals.unclaimed ? ` ${count(totals.unclaimed)} may be on a log twice, and end as duplicates.` : "";
  const books = all.balanced ? "They balance: nothing is in flight." : "What is in flight is on a log, in a function, or on a queue.";
  write("books-words", books + poisoned + stray);
  const silent = regions.filter(({ answers }) => !answers).map(({ parts }) => parts.region);
  const verdict = byId("verdict");
  verdict.className = silent.length || all.takes === "neither" ? "bad" : all.balanced ? "good" : "";
  write(
    "verdict",
    silent.length
      ? `${silent.join(", ")} does not answer. The figures stand still.`
      : `${TAKES[regions[0].figures.takes]}. ${draining ? "Draining. " : ""}Lag ${rate(all.lag_ms / 1000)} s.`,
  );
}

function drawNotes({ notes }) {
  const text = JSON.stringify(notes);
  if (drawNotes.last === text) return;
  drawNotes.last = text;
  byId("notes").replaceChildren(
    ...notes.map(({ at, text }) => {
      const [item, time] = [document.createElement("li"), document.createElement("time")];
      time.dateTime = new Date(at).toISOString();
      time.textContent = new Date(at).toLocaleTimeString("en-GB");
      item.append(time, text);
      return item;
    }),
  );
}

// ---------------------------------------------------------------------------------------- controls

async function order(control) {
  write("answer", "");
  try {
    const answer = await fetch("/controls", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(control),
    });
    if (!answer.ok) write("answer", (await answer.json()).error);
  } catch (error) {
    write("answer", `The local cloud does not answer: ${error.message}`);
  }
}

/** The groups of controls for a snapshot: what each button does, and whether it is in force. */
function groups({ regions, traffic, draining }) {
  const several = regions.length > 1;
  const list = [
    {
      title: "Viewers",
      hint: "Simulated viewers send POSTs, with duplicates, late and malformed events. They play only while this page is open.",
      buttons: [
        ["Off", { do: "traffic", level: "off" }, traffic.level === "off"],
        ["Gentle", { do: "traffic", level: "gentle" }, traffic.level === "gentle"],
        ["× 10", { do: "traffic", level: "heavy" }, traffic.level === "heavy"],
      ],
    },
  ];
  for (const { parts } of regions) {
    const { region } = parts;
    const of = several ? ` of ${region}` : "";
    for (const [role, log] of [["primary", parts.primary], ["standby", parts.standby]]) {
      if (!log?.brokers.length) continue;
      const hangs = log.brokers.includes("hangs");
      const memory = log.in_memory
        ? "Its only broker keeps everything in memory: killed, it loses what was not yet folded, and comes back empty. Hanging loses nothing."
        : "Brokers keep their data on disk. With one of three down, the others go on; with two down, no write is acknowledged.";
      list.push({
        title: `The ${role} log${of}`,
        hint: `${memory} ${role === "primary" ? "The standby takes over by itself." : ""}`,
        buttons: [
          ...log.brokers.map((state, broker) =>
            state === "down"
              ? [`Revive broker ${broker}`, { do: "broker", region, log: role, broker, up: true }]
              : [`Kill broker ${broker}`, { do: "broker", region, log: role, broker, up: false }],
          ),
          ["Hang it", { do: "log", region, log: role, hangs: true }, hangs, !log.brokers.includes("up")],
          ["Let it go on", { do: "log", region, log: role, hangs: false }, undefined, !hangs],
        ],
      });
    }
    list.push({
      title: `The store${of}`,
      hint: "Throttled, it refuses 7 of 10 calls. Hanging, it never answers: records wait, or go to the retry queue. Members cannot read meanwhile.",
      buttons: [
        ["Answers", { do: "store", region, state: "well" }, parts.store === "well"],
        ["Throttles", { do: "store", region, state: "throttles" }, parts.store === "throttles"],
        ["Hangs", { do: "store", region, state: "hangs" }, parts.store === "hangs"],
      ],
    });
    list.push({
      title: `Poison${of}`,
      hint: "Puts garbage on the primary log, as a broken program would. It becomes a dead letter, and the records behind it go on. More than ten with hardly anything else wait instead: that could be a bug of ours.",
      buttons: [
        ["Drop 1", { do: "poison", region, records: 1 }],
        ["Drop 10", { do: "poison", region, records: 10 }],
      ],
    });
    if (several) {
      list.push({
        title: region,
        hint: "Hangs the whole region: API, functions, queues, store. Its viewers keep their events. The other region goes on.",
        buttons: [
          ["Hang it", { do: "region", region, hangs: true }, parts.hangs, parts.hangs],
          ["Let it go on", { do: "region", region, hangs: false }, undefined, !parts.hangs],
        ],
      });
    }
  }
  if (several) {
    const { cut } = regions[0].parts;
    list.push({
      title: "The link between the regions",
      hint: "Cut, events of sessions at home elsewhere wait on the local log.",
      buttons: [
        ["Cut it", { do: "link", cut: true }, cut],
        ["Restore it", { do: "link", cut: false }, undefined, !cut],
      ],
    });
  }
  list.push({
    title: "Afterwards",
    hint: "Repair: everything works again. Drain: the viewers stop, and a note says when nothing is in flight and whether the books balance.",
    buttons: [
      ["Repair everything", { do: "repair" }],
      ["Drain", { do: "drain" }, draining],
    ],
  });
  return list;
}

function drawControls(snapshot) {
  byId("locked").hidden = !snapshot.locked;
  write("locked", snapshot.locked ? `The controls are locked for now: ${snapshot.locked}.` : "");
  const list = groups(snapshot);
  const shape = JSON.stringify(list.map(({ title, buttons }) => [title, buttons.length]));
  // Buttons stay the same elements, so that the keyboard's focus stays where it is.
  if (drawControls.shape !== shape) {
    drawControls.shape = shape;
    byId("controls").replaceChildren(
      ...list.map(({ title, hint, buttons }) => {
        const [group, legend, words, row] = ["fieldset", "legend", "p", "div"].map((name) => document.createElement(name));
        legend.textContent = title;
        words.textContent = hint;
        row.className = "row";
        row.append(
          ...buttons.map(() => {
            const button = document.createElement("button");
            button.type = "button";
            button.addEventListener("click", () => order(button.control));
            return button;
          }),
        );
        group.append(legend, words, row);
        return group;
      }),
    );
  }
  const buttons = byId("controls").querySelectorAll("button");
  list.flatMap(({ title, buttons }) => buttons.map((button) => [title, ...button])).forEach(([title, text, control, pressed, disabled], at) => {
    const button = buttons[at];
    button.control = control;
    if (button.textContent !== text) button.textContent = text;
    button.setAttribute("aria-label", `${title}: ${text}`);
    if (pressed === undefined) button.removeAttribute("aria-pressed");
    else button.setAttribute("aria-pressed", String(pressed));
    button.disabled = Boolean(snapshot.locked || disabled);
  });
}

// ------------------------------------------------------------------------------------------- start

const snapshots = new EventSource("/snapshots");
snapshots.onmessage = ({ data }) => {
  const snapshot = JSON.parse(data);
  window.snapshot = snapshot;
  drawPicture(snapshot);
  drawBooks(snapshot);
  drawNotes(snapshot);
  drawControls(snapshot);
  updateCharts(snapshot);
};
snapshots.onerror = () => {
  byId("verdict").className = "bad";
  write("verdict", "The local cloud does not answer. It may have been stopped.");
};

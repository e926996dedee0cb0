// The dashboard: draws each document that its node sends. Names come from users: they only ever become
// text (`textContent`), never markup.
"use strict";

const HISTORY_MS = 15 * 60e3; // What lines show.
const RATES_OVER = 5; // Documents over which rates and percentiles are taken.
const STALE_MS = 2500; // Without a document for so long, what is shown is old.
const GRAPH_MAX = 60; // Owners that are drawn.
const OWNER_MAX = 12; // Characters of an owner where many are shown: six owners fit side by side in the picture.
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);
let history = []; // What lines are drawn of, oldest first.
const readings = []; // The last documents' counts, to take rates from.
let last = null;
let lastAt = 0;
let token = "";

// --- making elements ------------------------------------------------------------------------------

function el(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "on") made.onclick = value;
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function svg(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// A name in a picture, at most so many characters of it; the whole is there on pointing at it.
function svgName(attributes, name, most) {
  const made = svg("text", attributes, short(name, most));
  made.append(svg("title", {}, name));
  return made;
}

// Names of one program often begin alike: what is left out is in the middle, and more is kept of the end.
function short(text, most) {
  if (text.length <= most) return text;
  const head = Math.floor((most - 1) / 3);
  return text.slice(0, head) + "…" + text.slice(text.length - (most - 1 - head));
}

// Makes a place what was drawn anew for it. Only what differs is changed: text that is selected, what has the
// focus and where a table is scrolled to stay as they are.
function show(id, ...children) {
  become($(id), children.filter(Boolean));
}

function keyOf(node) {
  return node.dataset && node.dataset.key;
}

// Children are the same by their keys, those without by their places.
function become(place, wanted) {
  const keys = new Set(wanted.map(keyOf));
  const known = new Map();
  for (const child of [...place.childNodes]) {
    const key = keyOf(child);
    if (key && keys.has(key)) known.set(key, child);
    else if (key) child.remove();
  }
  let at = place.firstChild;
  for (const node of wanted) {
    const key = keyOf(node);
    const old = key ? known.get(key) : at && !keyOf(at) && at;
    known.delete(key);
    if (!old || old.nodeName !== node.nodeName) {
      place.insertBefore(node, at);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else place.insertBefore(old, at);
    change(old, node);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function change(old, node) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  old.onclick = node.onclick;
  become(old, [...node.childNodes]);
}

function table(caption, heads, rows) {
  const head = el("tr", {}, ...heads.map(([text, kind]) => el("th", { scope: "col", class: kind }, text)));
  return el(
    "div",
    { class: "table", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...rows)),
  );
}

function row(key, ...cells) {
  return el("tr", { "data-key": key }, ...cells);
}

function cell(text, kind) {
  return el("td", { class: kind }, text);
}

function count(value, kind) {
  return cell(number(value), "n " + (value ? kind || "" : "zero"));
}

function empty(text, example) {
  return el("p", { class: "empty" }, text, example ? el("br") : null, example ? el("code", {}, example) : null);
}

function button(text, key, act) {
  return el("button", { type: "button", "data-key": key, on: act }, text);
}

// --- numbers and times ----------------------------------------------------------------------------

function number(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1e6) return (value / 1e6).toFixed(1) + " M";
  if (value >= 1e5) return Math.round(value / 1e3) + " k";
  return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
}

function counted(value, one, more) {
  return `${number(value)} ${value === 1 ? one : more}`;
}

function rate(value) {
  return value > 0 && value < 10 ? value.toFixed(1) : number(value);
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (value >= 1024 && unit < 3) {
    value /= 1024;
    unit += 1;
  }
  return (unit && value < 10 ? value.toFixed(1) : Math.round(value)) + " " + units[unit];
}

function length(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return ms.toFixed(2) + " ms";
  if (ms < 10) return ms.toFixed(1) + " ms";
  if (ms < 1000) return Math.round(ms) + " ms";
  if (ms < 60e3) return (ms / 1000).toFixed(1) + " s";
  if (ms < 3600e3) return Math.floor(ms / 60e3) + " min " + Math.round((ms % 60e3) / 1000) + " s";
  if (ms < 86400e3) return Math.floor(ms / 3600e3) + " h " + Math.floor((ms % 3600e3) / 60e3) + " min";
  return Math.floor(ms / 86400e3) + " d " + Math.floor((ms % 86400e3) / 3600e3) + " h";
}

function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

// The value below which a share of the counted ones lies, from the bounds of buckets; in milliseconds.
function percentile(counts, bounds, share) {
  const all = counts.reduce((sum, n) => sum + n, 0);
  if (!all) return null;
  let left = all * share;
  for (let i = 0; i < counts.length; i += 1) {
    if (left <= counts[i]) {
      const low = i ? bounds[i - 1] : 0;
      const high = i < bounds.length ? bounds[i] : bounds[bounds.length - 1];
      return (low + (high - low) * (left / counts[i])) / 1e6;
    }
    left -= counts[i];
  }
  return bounds[bounds.length - 1] / 1e6;
}

// What was counted between two readings; a node that started anew counts from nothing.
function between(now, before) {
  const added = now.map((n, i) => n - ((before || [])[i] || 0));
  return added.some((n) => n < 0) ? now : added;
}

// --- one document becomes one sample of the history ----------------------------------------------

function sample(doc) {
  const costs = new Map();
  for (const seen of doc.nodes) if (seen.report) costs.set(seen.node, seen.report.costs);
  const before = readings[0];
  const made = { at: doc.at_ms, operations: new Map(), fsync: new Map(), leader: leaderOf(doc) };
  const seconds = before ? Math.max(0.2, (doc.at_ms - before.at) / 1000) : null;
  for (const [node, cost] of costs) {
    const old = before && before.costs.get(node);
    made.fsync.set(node, percentile(between(cost.fsyncs, old && old.fsyncs), cost.bounds_ns, 0.99));
    if (!old) continue;
    for (const now of cost.operations) {
      const then = old.operations.find((one) => one.operation === now.operation);
      const sum = made.operations.get(now.operation) || { requests: 0, errors: 0, durations: null };
      const added = between([now.requests, now.errors], then && [then.requests, then.errors]);
      const durations = between(now.durations, then && then.durations);
      sum.requests += added[0] / seconds;
      sum.errors += added[1] / seconds;
      sum.durations = sum.durations ? sum.durations.map((n, i) => n + durations[i]) : durations;
      sum.bounds = cost.bounds_ns;
      made.operations.set(now.operation, sum);
    }
  }
  let requests = 0;
  let all = null;
  for (const one of made.operations.values()) {
    requests += one.requests;
    all = all ? all.map((n, i) => n + one.durations[i]) : one.durations;
    one.p50 = percentile(one.durations, one.bounds, 0.5);
    one.p99 = percentile(one.durations, one.bounds, 0.99);
    one.bounds_ns = one.bounds;
  }
  const some = made.operations.values().next().value;
  made.requests = before ? requests : null;
  made.p99 = all && some ? percentile(all, some.bounds, 0.99) : null;
  made.operations.forEach((one) => delete one.durations);
  readings.push({ at: doc.at_ms, costs });
  if (readings.length > RATES_OVER) readings.shift();
  remember([made]);
  return made;
}

function remember(samples) {
  history = [...history, ...samples].sort((a, b) => a.at - b.at);
  history = history.filter((one) => one.at > history[history.length - 1].at - HISTORY_MS);
}

// What the nodes remember of the time in which this page was not open, or heard nothing.
async function recall() {
  let told;
  try {
    told = await (await fetch("dashboard/history", { cache: "no-store" })).json();
  } catch {
    return; // Lines begin now.
  }
  const samples = told.points.map((point) => ({
    at: told.at_ms - point.age_ms,
    operations: new Map(Object.entries(point.requests).map(([name, count]) => [name, { requests: count / (told.every_ms / 1000) }])),
    requests: Object.values(point.requests).reduce((sum, count) => sum + count, 0) / (told.every_ms / 1000),
    p99: percentile(point.durations, told.bounds_ns, 0.99),
  }));
  // A point is about the time before it: one that ended before this page saw anything is new, however near.
  const lacks = ({ at }) => !history.some((one) => one.requests !== null && one.at <= at && one.at > at - told.every_ms);
  remember(samples.filter(lacks));
}

function leaderOf(doc) {
  let best = null;
  for (const { node, report } of doc.nodes) {
    if (report && report.status.role === "leader" && (!best || report.status.term > best.term)) {
      best = { node, term: report.status.term };
    }
  }
  return best;
}

// A line of what `of` says of each moment; nothing is drawn of moments at which it is not known.
function line(of, label) {
  const drawn = svg("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", role: "img", "aria-label": label });
  const known = history.filter((one) => one.requests !== null).map((one) => ({ at: one.at, value: of(one) || 0 }));
  const top = Math.max(...known.map((one) => one.value), 1e-9);
  const end = known.length ? known[known.length - 1].at : 0;
  const wide = known.length ? Math.max(end - known[0].at, 60e3) : 1;
  const points = known.map(({ at, value }) => [100 - ((end - at) / wide) * 100, 22 - (value / top) * 20]);
  if (points.length > 1) {
    const path = points.map(([x, y]) => x.toFixed(2) + " " + y.toFixed(2)).join("L");
    drawn.append(svg("path", { class: "spark-area", d: `M${points[0][0].toFixed(2)} 24L${path}L100 24Z` }));
    drawn.append(svg("path", { class: "spark", d: "M" + path }));
  }
  return drawn;
}

// --- the parts of the page ------------------------------------------------------------------------

function nodes(doc, now) {
  const top = Math.max(0, ...doc.nodes.map((seen) => (seen.report ? seen.report.last_log_index : 0)));
  const cards = doc.nodes.map((seen) => {
    const report = seen.report;
    if (!report) {
      return el("div", { class: "card gone", "data-key": seen.node }, el("h3", {}, `Node ${seen.node}`, el("span", { class: "tag" }, "gone")),
        el("dl", {}, el("dt", {}, "no answer to"), el("dd", {}, `node ${doc.node}`)));
    }
    const s = report.status;
    const warnings = [];
    if (!s.nats.connected) warnings.push("not connected to NATS");
    if (s.redis && !s.redis.connected) warnings.push("not connected to Redis: queues do not work");
    if (s.redis) warnings.push(...s.redis.warnings);
    const fsync = now.fsync.get(seen.node);
    const facts = [
      ["term", number(s.term)],
      ["behind", counted(Math.max(0, top - s.applied_index), "entry", "entries")],
      ["fsync p99", length(fsync)],
      ["round trip", seen.round_trip_us === null ? "this node" : length(seen.round_trip_us / 1000)],
      ["cache lease", s.lease_ms ? length(s.lease_ms) : "none"],
      ["Redis", s.redis ? (s.redis.connected ? s.redis.durability : "gone") : "none"],
      ["up", length(s.uptime_ms)],
    ];
    return el("div", { class: "card " + s.role, "data-key": seen.node }, el("h3", {}, `Node ${seen.node}`, el("span", { class: "tag" }, s.role)),
      el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      warnings.length ? el("p", {}, warnings.join("; ")) : null);
  });
  show("nodes", ...cards);

  const terms = [];
  for (const one of history.filter((sample) => sample.leader !== undefined)) {
    const key = one.leader ? `${one.leader.node}.${one.leader.term}` : "none";
    if (!terms.length || terms[terms.length - 1].key !== key) terms.push({ key, at: one.at, leader: one.leader });
  }
  show("leaders", ...terms.slice(-12).map((one) => el("li", { class: one.leader ? "" : "none", "data-key": one.at },
    `${clock(one.at)} `, one.leader ? `node ${one.leader.node} leads, term ${one.leader.term}` : "no leader")));
}

function figures(doc, now) {
  const reports = doc.nodes.filter((seen) => seen.report).map((seen) => seen.report);
  const applied = reports.reduce((a, b) => (b.status.applied_index > a ? b.status.applied_index : a), -1);
  const newest = reports.find((report) => report.status.applied_index === applied);
  const sum = (of) => reports.reduce((total, report) => total + of(report), 0);
  const local = sum((report) => report.cache.hits.local);
  const hits = local + sum((report) => report.cache.hits.home);
  const reads = hits + sum((report) => report.cache.misses);
  const topics = doc.parts.queues && doc.parts.queues.ok ? doc.parts.queues.topics : [];
  const of = (field) => topics.reduce((total, topic) => total + topic[field], 0);
  const figure = (name, value, more, drawn) => el("div", {}, el("dt", {}, name),
    el("dd", {}, value, " ", more ? el("small", {}, more) : null), drawn);
  const locks = newest ? newest.status.locks : { held: null, waiting: null };
  show("figures",
    figure("Locks held", number(locks.held), `${number(locks.waiting)} waiting`),
    figure("Requests per second", now.requests === null ? "–" : rate(now.requests), "", line((one) => one.requests, "requests per second")),
    figure("Request p99", length(now.p99), "", line((one) => one.p99, "99th percentile of requests")),
    figure("Cache hits", reads ? Math.round((hits / reads) * 100) + " %" : "–", reads ? `${Math.round((local / reads) * 100)} % local` : "no reads yet"),
    figure("Cache", bytes(sum((report) => report.cache.bytes)), counted(sum((report) => report.cache.entries), "entry", "entries")),
    figure("Queued", number(of("ready")), `${number(of("in_flight"))} in flight, ${number(of("dead"))} dead`));
}

const leases = new Map(); // The longest remaining time seen of each token: the length of its lease.

function locks(doc) {
  const part = doc.parts.locks;
  if (!part || !part.ok) return unknown("locks", doc, part);
  const waiting = waitersOf(doc);
  for (const key of leases.keys()) if (!part.locks.some((lock) => lock.token === key)) leases.delete(key);
  // What is waited for comes first; else by name, as the node lists them.
  const sorted = [...part.locks].sort((a, b) => b.waiting - a.waiting);
  const rows = sorted.map((lock) => {
    const left = lock.expires_in_ms;
    let lease = cell("–", "lease zero");
    if (left !== undefined) {
      leases.set(lock.token, Math.max(leases.get(lock.token) || 0, left));
      const whole = leases.get(lock.token);
      lease = el("td", { class: "lease" },
        el("meter", { min: 0, max: whole, low: whole * 0.25, optimum: whole, value: left, "aria-label": "rest of the lease" }),
        el("span", {}, length(left)));
    }
    const queue = waiting.get(lock.resource) || [];
    const shown = queue.slice(0, 3).map((name) => short(name, OWNER_MAX)).join(", ") + (queue.length > 3 ? ", …" : "");
    const holder = lock.owner ? lock.owner + (lock.held > 1 ? ` and ${lock.held - 1} more` : "") : "–";
    return row(lock.resource, cell(lock.resource, "name"), cell(holder, "name"), cell(lock.mode || "–"),
      cell(lock.token === undefined ? "–" : String(lock.token), "n"), lease,
      el("td", { class: "n " + (lock.waiting ? "" : "zero") }, number(lock.waiting), shown ? el("small", { title: queue.join(", ") }, shown) : null),
      doc.can_act ? el("td", { class: "acts" }, lock.held ? button("Release…", "release " + lock.resource, () => ask({
        title: "Release a lock", what: `${lock.resource}, held by ${holder}. Its holder is not asked; fencing tokens keep it from doing harm.`,
        operation: "admin.lock.release", verb: "Release", reason: true, body: { resource: lock.resource },
      })) : null) : null);
  });
  $("locks-note").textContent = part.cursor ? `the first ${part.locks.length}` : "";
  const heads = [["resource"], ["holder"], ["mode"], ["token", "n"], ["lease"], ["waiting", "n"]];
  if (doc.can_act) heads.push(["", "acts"]);
  show("locks", rows.length ? table("Locks", heads, rows) : empty("Nobody holds a lock.", "mufakat lock acquire orders.42 --ttl 1m"));
}

function waitersOf(doc) {
  const waiting = new Map();
  const graph = doc.parts.graph;
  for (const edge of graph && graph.ok ? graph.edges : []) {
    const queue = waiting.get(edge.resource) || [];
    if (!queue.includes(edge.owner)) queue.push(edge.owner);
    waiting.set(edge.resource, queue);
  }
  return waiting;
}

function unknown(id, doc, part) {
  const why = doc.missing[id] || (part && part.error && part.error.message) || "no answer";
  show(id, el("p", { class: "missing" }, `Not known now: ${why}.`));
}

// Owners that are on a cycle: those that reach themselves.
function onCycles(edges) {
  const next = new Map();
  for (const { owner, waits_for_owner: to } of edges) next.set(owner, [...(next.get(owner) || []), to]);
  const found = new Set();
  for (const start of next.keys()) {
    const seen = new Set();
    const stack = [...next.get(start)];
    while (stack.length) {
      const owner = stack.pop();
      if (owner === start) {
        found.add(start);
        break;
      }
      if (!seen.has(owner)) {
        seen.add(owner);
        stack.push(...(next.get(owner) || []));
      }
    }
  }
  return found;
}

function graph(doc) {
  const part = doc.parts.graph;
  if (!part || !part.ok) return unknown("graph", doc, part);
  $("graph-note").textContent = part.edges.length ? `${counted(part.edges.length, "edge", "edges")}${part.truncated ? ", and more" : ""}` : "";
  if (!part.edges.length) return show("graph", empty("Nobody waits."));
  show("graph", drawGraph(part.edges));
}

// Whoever waits stands above whom it waits for.
function drawGraph(edges) {
  const owners = [...new Set(edges.flatMap((edge) => [edge.owner, edge.waits_for_owner]))].slice(0, GRAPH_MAX);
  const shown = edges.filter((edge) => owners.includes(edge.owner) && owners.includes(edge.waits_for_owner));
  const cycle = onCycles(shown);
  const depth = new Map();
  const depthOf = (owner, path) => {
    if (depth.has(owner)) return depth.get(owner);
    if (path.has(owner)) return 0;
    path.add(owner);
    const below = shown.filter((edge) => edge.owner === owner).map((edge) => depthOf(edge.waits_for_owner, path) + 1);
    path.delete(owner);
    const found = Math.max(0, ...below);
    depth.set(owner, found);
    return found;
  };
  owners.forEach((owner) => depthOf(owner, new Set()));
  const rows = [];
  for (const owner of owners) (rows[depth.get(owner)] ||= []).push(owner);
  const layers = rows.filter(Boolean).reverse();
  const width = 640;
  const places = new Map();
  let y = 26;
  for (const layer of layers) {
    const per = Math.min(layer.length, 6);
    for (let i = 0; i < layer.length; i += 1) {
      const inRow = Math.min(per, layer.length - Math.floor(i / per) * per);
      places.set(layer[i], [(width / inRow) * ((i % per) + 0.5), y + Math.floor(i / per) * 46]);
    }
    y += Math.ceil(layer.length / per) * 46 + 26;
  }
  return draw(places, shown.map((edge) => ({ from: edge.owner, to: edge.waits_for_owner, label: edge.resource })), cycle, width, y - 24);
}

function drawCycle(edges) {
  const some = edges.slice(0, 12);
  const width = 640;
  const high = some.length < 4 ? 120 : 210;
  const places = new Map();
  some.forEach((edge, i) => {
    const angle = (i / some.length) * 2 * Math.PI - Math.PI / (some.length === 2 ? 1 : 2);
    places.set(edge.owner, [width / 2 + Math.cos(angle) * 210, high / 2 + Math.sin(angle) * (high / 2 - 24)]);
  });
  const all = some.map((edge) => ({ from: edge.owner, to: edge.waits_for_owner, label: edge.resource }));
  return draw(places, all.filter((edge) => places.has(edge.to)), new Set(places.keys()), width, high);
}

function draw(places, edges, cycle, width, height) {
  const names = [...places.keys()].join(", ");
  const drawn = svg("svg", { class: "drawn", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Owners: ${names}. ` + edges.slice(0, 20).map((edge) => `${edge.from} waits for ${edge.to}`).join(", ") });
  const half = (owner) => Math.max(24, short(owner, OWNER_MAX).length * 3.6 + 10);
  for (const edge of edges) {
    const [x1, y1] = places.get(edge.from);
    const [x2, y2] = places.get(edge.to);
    const red = cycle.has(edge.from) && cycle.has(edge.to) ? " cycle" : "";
    const bend = edges.some((other) => other.from === edge.to && other.to === edge.from) ? 26 : 8;
    const distance = Math.hypot(x2 - x1, y2 - y1) || 1;
    const [nx, ny] = [-(y2 - y1) / distance, (x2 - x1) / distance];
    const [mx, my] = [(x1 + x2) / 2 + nx * bend, (y1 + y2) / 2 + ny * bend];
    // The line ends at the edge of the box that it points to.
    const [dx, dy] = [mx - x2, my - y2];
    const reach = Math.min(half(edge.to) / Math.max(Math.abs(dx), 1e-6), 13 / Math.max(Math.abs(dy), 1e-6));
    const [ex, ey] = [x2 + dx * reach, y2 + dy * reach];
    drawn.append(svg("path", { class: "edge" + red, d: `M${x1} ${y1}Q${mx} ${my} ${ex} ${ey}` }));
    const angle = (Math.atan2(ey - my, ex - mx) * 180) / Math.PI;
    drawn.append(svg("path", { class: "tip" + red, d: "M0 0-9-4-9 4Z", transform: `translate(${ex} ${ey}) rotate(${angle})` }));
    drawn.append(svgName({ class: "small", x: (x1 + 2 * mx + x2) / 4 + nx * 10, y: (y1 + 2 * my + y2) / 4 + ny * 10 }, edge.label, 22));
  }
  for (const [owner, [x, y]] of places) {
    const wide = half(owner);
    drawn.append(svg("rect", { class: "owner" + (cycle.has(owner) ? " cycle" : ""), x: x - wide, y: y - 13, width: 2 * wide, height: 26, rx: 13 }));
    drawn.append(svgName({ x, y }, owner, OWNER_MAX));
  }
  return drawn;
}

function deadlocks(doc) {
  const part = doc.parts.deadlocks;
  if (!part || !part.ok) return unknown("deadlocks", doc, part);
  const shown = part.deadlocks.slice(0, 5).map((one, i) => el("div", { class: "deadlock" },
    el("p", {}, el("b", {}, one.victim), ` was refused ${length(Math.floor(one.ago_ms / 1e3) * 1e3)} ago; ${one.cycle_length || one.cycle.length} owners waited for one another`),
    i < 2 ? drawCycle(one.cycle) : null));
  return show("deadlocks", ...(shown.length ? shown : [empty("None.")]));
}

function queues(doc, before) {
  const part = doc.parts.queues;
  if (!part || !part.ok) return unknown("queues", doc, part);
  const seconds = before ? (doc.at_ms - before.at_ms) / 1000 : 0;
  const old = before && before.parts.queues && before.parts.queues.ok ? before.parts.queues.topics : [];
  const rows = part.topics.map((topic) => {
    const then = old.find((one) => one.topic === topic.topic);
    const per = (field) => (then && seconds > 0 ? Math.max(0, topic[field] - then[field]) / seconds : 0);
    const act = (verb, spec) => button(verb, `${verb} ${topic.topic}`, () => ask({ body: { topic: topic.topic }, name: topic.topic, ...spec }));
    const acts = doc.can_act ? el("td", { class: "acts" },
      act("Look…", { title: "Look at messages", what: `The first ready messages of ${topic.topic}, or the dead ones if none is ready. They stay where they are.`, operation: "queue.peek", verb: "Look", body: { topic: topic.topic, state: topic.ready || !topic.dead ? "ready" : "dead", limit: 10 }, shows: true }),
      topic.dead ? act("Redrive…", { title: "Redrive dead messages", what: `Dead messages of ${topic.topic} become ready again, as if they had never been delivered. First they are counted.`, operation: "queue.redrive", verb: "Count", counts: true }) : null,
      act(topic.paused ? "Resume…" : "Pause…", { title: topic.paused ? "Resume a topic" : "Pause a topic", what: topic.topic, operation: topic.paused ? "queue.resume" : "queue.pause", verb: topic.paused ? "Resume" : "Pause" }),
      act("Purge…", { title: "Purge a topic", what: `Deletes what is ready, delayed and dead in ${topic.topic}. It cannot be undone.`, operation: "admin.queue.purge", verb: "Purge", danger: true, confirm: true, body: { topic: topic.topic, states: ["ready", "delayed", "dead"], confirm: topic.topic } })) : null;
    const age = topic.oldest_age_ms;
    return row(topic.topic, el("td", { class: "name" }, topic.topic, el("small", {}, topic.paused ? "paused; " : "", topic.owner_node ? `node ${topic.owner_node}` : "no owner")),
      count(topic.ready), count(topic.delayed), count(topic.in_flight), count(topic.dead, "bad"),
      cell(rate(per("pushed")), "n " + (per("pushed") ? "" : "zero")), cell(rate(per("acked")), "n " + (per("acked") ? "" : "zero")),
      cell(age ? length(age) : "–", "n " + (age ? "" : "zero")), acts);
  });
  $("queues-note").textContent = part.cursor ? `the first ${part.topics.length}` : "";
  const heads = [["topic"], ["ready", "n"], ["delayed", "n"], ["in flight", "n"], ["dead", "n"], ["pushed/s", "n"], ["acked/s", "n"], ["oldest", "n"]];
  if (doc.can_act) heads.push(["", "acts"]);
  return show("queues", rows.length ? table("Queues", heads, rows) : empty("No topic has messages.", "mufakat queue push jobs 'hello'"));
}

function sessions(doc) {
  const part = doc.parts.sessions;
  if (!part || !part.ok) return unknown("sessions", doc, part);
  const rows = part.sessions.map((one) => row(one.session,
    el("td", { class: "name" }, one.name || "unnamed", el("small", {}, one.session)), count(one.held), count(one.waiting),
    el("td", { class: "lease" }, el("meter", { min: 0, max: one.ttl_ms, low: one.ttl_ms * 0.25, optimum: one.ttl_ms, value: one.expires_in_ms, "aria-label": "rest of the session" }), el("span", {}, length(one.expires_in_ms))),
    doc.can_act ? el("td", { class: "acts" }, button("Close…", "close " + one.session, () => ask({
      title: "Close a session", what: `${one.name || one.session}: it holds ${one.held} and waits for ${one.waiting}. All of it ends.`,
      operation: "admin.session.close", verb: "Close session", reason: true, body: { session: one.session },
    }))) : null));
  $("sessions-note").textContent = part.cursor ? `the first ${part.sessions.length}` : "";
  const heads = [["session"], ["holds", "n"], ["waits", "n"], ["rest"]];
  if (doc.can_act) heads.push(["", "acts"]);
  return show("sessions", rows.length ? table("Sessions", heads, rows) : empty("No session is open."));
}

// As in subjects: metrics have `_` for each dot.
function operationName(label) {
  return label.replace(/^(admin_)?([a-z]+)_/, (_, admin, service) => `${admin ? "admin." : ""}${service}.`);
}

function requests(now) {
  const names = new Set(history.flatMap((one) => [...one.operations].filter(([, o]) => o.requests > 0).map(([name]) => name)));
  const rows = [...names].sort().map((name) => {
    const one = now.operations.get(name) || { requests: 0, errors: 0, p50: null, p99: null };
    return row(name, cell(operationName(name), "name"), cell(rate(one.requests), "n " + (one.requests ? "" : "zero")),
      cell(rate(one.errors), "n " + (one.errors ? "warn" : "zero")), cell(length(one.p50), "n"), cell(length(one.p99), "n"),
      el("td", {}, line((old) => (old.operations.get(name) || {}).requests, `${name} per second`)));
  });
  const heads = [["operation"], ["per second", "n"], ["refused", "n"], ["p50", "n"], ["p99", "n"], ["", "n"]];
  show("requests", rows.length ? table("Requests", heads, rows) : empty("No request yet."));
}

function events(doc) {
  const items = doc.events.map(({ at_ms, subject, event }) => {
    const kind = subject.split(".event.").pop();
    const said = Object.entries(event).filter(([, value]) => value !== null && typeof value !== "object")
      .map(([name, value]) => `${name} ${value}`).join(", ");
    return el("li", { "data-key": `${at_ms} ${subject} ${said}` }, el("time", {}, clock(at_ms)), el("b", { class: /deadlock|loss|dead/.test(kind) ? "bad" : "" }, kind), el("span", {}, said));
  });
  show("events", items.length ? el("ul", { class: "feed", tabindex: "0" }, ...items) : empty("Nothing since this page was opened."));
}

// --- acting ---------------------------------------------------------------------------------------

let asked = null;

function ask(spec) {
  asked = spec;
  $("act-title").textContent = spec.title;
  $("act-what").textContent = spec.what;
  $("act-do").textContent = spec.verb;
  $("act-do").className = spec.danger ? "main danger" : "main";
  $("act-do").hidden = false;
  $("act-name").textContent = spec.name || "";
  $("act-confirm-row").hidden = !spec.confirm;
  $("act-reason-row").hidden = !spec.reason;
  $("act-token-row").hidden = Boolean(token);
  $("act-answer").textContent = "";
  $("act-answer").className = "";
  $("act-shown").hidden = true;
  for (const id of ["act-confirm", "act-reason"]) $(id).value = "";
  $("act").showModal();
}

function refuse(text) {
  $("act-answer").textContent = text;
}

// What it would do is known: pressed again, it is done.
function foretell(spec, count) {
  asked = { ...spec, counts: false };
  const what = counted(count, "dead message", "dead messages");
  $("act-what").textContent = count ? `${what} of ${spec.name} will be ready again.` : `${spec.name} has no dead message.`;
  $("act-do").textContent = `Redrive ${number(count)}`;
  $("act-do").hidden = !count;
  return refuse("");
}

async function act(event) {
  event.preventDefault();
  const spec = asked;
  const given = token || $("act-token").value;
  const reason = $("act-reason").value.trim();
  if (spec.confirm && $("act-confirm").value !== spec.name) return refuse("That is not the name.");
  if (spec.reason && !reason) return refuse("A reason is needed.");
  if (!given) return refuse("The admin token is needed.");
  const body = { ...spec.body };
  if (spec.reason) body.reason = reason;
  if (spec.counts) body.dry_run = true;
  try {
    const answer = await fetch("dashboard/act/" + spec.operation, {
      method: "POST", headers: { Authorization: "Bearer " + given }, body: JSON.stringify(body), cache: "no-store",
    });
    if (!answer.ok) {
      if (answer.status === 403) {
        token = "";
        $("act-token-row").hidden = false;
      }
      return refuse((await answer.text()).trim());
    }
    token = given; // For as long as this page is open.
    $("act-token").value = "";
    $("act-token-row").hidden = true;
    const reply = await answer.json();
    if (!reply.ok) return refuse(`${reply.error.code}: ${reply.error.message}`);
    if (spec.counts) return foretell(spec, reply.moved);
    $("act-do").hidden = true;
    $("act-answer").className = "good";
    refuse("Done.");
    if (spec.shows) {
      $("act-shown").hidden = false;
      $("act-shown").textContent = reply.messages.length
        ? reply.messages.map((m) => `${m.id}  ${clock(m.pushed_at_ms)}  deliveries ${m.deliveries}${m.last_error ? "  " + m.last_error : ""}\n${m.payload !== undefined ? JSON.stringify(m.payload) : m.payload_base64}`).join("\n\n")
        : "No messages.";
    } else {
      setTimeout(() => $("act").close(), 700);
    }
  } catch {
    refuse("The node did not answer; whether it was done is not known.");
  }
  return undefined;
}

$("act").querySelector("form").addEventListener("submit", act);
$("act-cancel").addEventListener("click", () => $("act").close());

// --- the stream -----------------------------------------------------------------------------------

function connection(state, text) {
  const place = $("connection");
  if (place.dataset.state !== state) place.dataset.state = state;
  if (place.textContent !== text) place.textContent = text;
}

function take(doc) {
  const before = last;
  last = doc;
  const now = sample(doc);
  const leader = now.leader;
  const some = doc.nodes.find((seen) => seen.report);
  const gone = doc.nodes.filter((seen) => !seen.report).length;
  $("summary").textContent = (leader ? `node ${leader.node} leads in term ${leader.term}` : "no leader") +
    (some ? `, ${doc.nodes.length - gone} of ${doc.nodes.length} nodes answer, view ${some.report.status.epoch}` : "");
  document.title = (gone || !leader ? "⚠ " : "") + "Mufakat";
  connection("live", "live");
  $("stale").hidden = true;
  document.body.classList.remove("stale");
  nodes(doc, now);
  figures(doc, now);
  locks(doc);
  graph(doc);
  deadlocks(doc);
  queues(doc, before);
  sessions(doc);
  requests(now);
  events(doc);
  $("foot").textContent = `Mufakat ${doc.version}, seen by node ${doc.node} at ${clock(doc.at_ms)}. ` +
    (doc.can_act ? "Changes need the admin token." : "This page only shows: its node has no admin token.");
}

function look() {
  const silent = performance.now() - lastAt;
  if (silent < STALE_MS) return;
  connection(last ? "gone" : "wait", last ? "node gone" : "connecting");
  if (!last) return;
  document.body.classList.add("stale");
  $("stale").hidden = false;
  $("stale").textContent = `The node of this page has not answered since ${clock(last.at_ms)}: what is below is as it was then. Other nodes have this page, too.`;
  document.title = "⚠ Mufakat";
}

// The page is not drawn anew while a button is being pressed: its click would be lost.
let pressed = false;
let heard = null;

function hear(doc) {
  lastAt = performance.now();
  heard = doc;
  if (!pressed) catchUp();
}

function catchUp() {
  const doc = heard;
  heard = null;
  if (doc) take(doc);
}

addEventListener("pointerdown", () => {
  pressed = true;
});
for (const end of ["pointerup", "pointercancel", "blur"]) {
  addEventListener(end, () => {
    pressed = false;
    setTimeout(catchUp); // After the click.
  });
}

function listen() {
  const stream = new EventSource("dashboard/events");
  stream.onopen = recall;
  stream.onmessage = (message) => hear(JSON.parse(message.data));
  stream.onerror = () => {
    if (last) lastAt = Math.min(lastAt, performance.now() - STALE_MS);
    look();
    // The browser itself tries again, unless the node said that it has no room.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch { /* Not allowed: it lasts as long as the page. */ }
});
try {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* Not allowed. */ }

listen();
setInterval(look, 500);

"use strict";
// The console: asks the node it came from every two seconds, and draws what it is told. Names of tables and keys are text, never
// markup: nothing here writes HTML.

const NODE_EVERY_MS = 2000;
const PARTITIONS_EVERY_MS = 4000;
const PATIENCE_MS = 5000;
const LIVE_S = 600;
const HOUR_S = 3600;
const LISTED = 15;

const byId = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");

/* ---- words for numbers ---- */

function scaled(number, units, base) {
  let at = 0;
  let value = number;
  while (Math.abs(value) >= base && at < units.length - 1) {
    value /= base;
    at += 1;
  }
  const digits = Math.abs(value) >= 100 || (at === 0 && Number.isInteger(value)) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits) + (units[at] ? " " + units[at] : "");
}
const count = (number) => (number == null ? "–" : scaled(number, ["", "k", "M", "G"], 1000));
const bytes = (number) => (number == null ? "–" : scaled(number, ["B", "KiB", "MiB", "GiB", "TiB"], 1024));
const rate = (number) => (number == null ? "–" : count(number) + "/s");
const byteRate = (number) => (number == null ? "–" : bytes(number) + "/s");
const time = (seconds) => {
  if (seconds == null || Number.isNaN(seconds)) return "–";
  if (seconds < 1.5e-6) return "< 1 µs";
  if (seconds < 1e-3) return scaled(seconds * 1e6, ["µs"], 1e9);
  return seconds < 1 ? scaled(seconds * 1e3, ["ms"], 1e9) : scaled(seconds, ["s"], 1e9);
};
const micros = (us) => (us ? time(us * 1e-6) : "–");
const percent = (part) => (100 * part).toFixed(part < 0.1 ? 1 : 0) + " %";
function span(seconds) {
  const s = Math.floor(seconds);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([unit]) => s >= unit);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).map(([unit, name], at) => {
    const whole = at === 0 ? Math.floor(s / unit) : Math.floor((s % parts[first][0]) / unit);
    return whole + " " + name;
  }).filter((text, at) => at === 0 || !text.startsWith("0 ")).join(" ");
}
const clock = (seconds, fine) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit",
  hourCycle: "h23", ...(fine ? { second: "2-digit" } : {}) });

/* ---- elements ---- */

function element(name, text, attributes) {
  const made = document.createElement(name);
  if (text != null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  return made;
}
function pairs(list, entries) {
  list.replaceChildren(...entries.map(([term, told]) => {
    const group = element("div");
    group.append(element("dt", term), element("dd", told));
    return group;
  }));
}
function tableOf(table, headings, rows) {
  const head = element("tr");
  head.append(...headings.map((heading) => element("th", heading, { scope: "col" })));
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...rows.map((cells) => {
    const row = element("tr");
    row.append(...cells.map((cell) => {
      const made = element("td", cell instanceof Node ? null : cell);
      if (cell instanceof Node) made.append(cell);
      return made;
    }));
    return row;
  }));
}

/* ---- colours ---- */

const themes = ["auto", "light", "dark"];
let theme = "auto";
try { theme = themes.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto"; } catch { /* not kept */ }
const isDark = () => theme === "dark" || (theme === "auto" && dark.matches);
function dress() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  const names = { auto: ["Auto", "as the system"], light: ["Light", "light"], dark: ["Dark", "dark"] };
  byId("theme").textContent = names[theme][0];
  byId("theme").setAttribute("aria-label", "Colours: " + names[theme][1]);
  drawAll();
}
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

/// From little to much, of 0 to 1: readable on either ground, and in grey.
function heat(part) {
  const at = Math.max(0, Math.min(1, part));
  const [hue, light] = isDark() ? [12 + 38 * at, 22 + 48 * at] : [48 - 44 * at, 86 - 48 * at];
  return `hsl(${hue} ${65 + 25 * at}% ${light}%)`;
}

/* ---- charts ---- */

function canvasOf(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  if (height) canvas.style.height = height + "px";
  const tall = height || canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(tall * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(tall * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, tall);
  return { context, width, height: tall };
}

function legend(id, lines) {
  const place = byId(id);
  if (place.dataset.theme === document.documentElement.dataset.theme && place.childElementCount === lines.length) return;
  place.dataset.theme = document.documentElement.dataset.theme;
  place.replaceChildren(...lines.map(({ name, colour }) => {
    const item = element("span");
    const mark = element("i");
    mark.style.background = ink(colour);
    item.append(mark, name);
    return item;
  }));
}

/// Lines over time; gaps where nothing is known. `log` has powers of ten.
function chart(id, times, lines, { tell, log, from, to }) {
  const canvas = byId("chart-" + id);
  legend("legend-" + id, lines);
  const { context, width, height } = canvasOf(canvas);
  if (!width) return;
  const known = lines.flatMap(({ values }) => values.filter((value) => value != null && (!log || value > 0)));
  const most = known.reduce((a, b) => Math.max(a, b), log ? 1e-3 : 1) * (log ? 1.3 : 1.1);
  const least = log ? Math.min(most / 10, known.reduce((a, b) => Math.min(a, b), most) / 1.3) : 0;
  const steps = 4;
  const marked = (at) => (log ? least * Math.pow(most / least, at / steps) : most * at / steps);
  context.font = "12px system-ui, sans-serif";
  const told = Array.from({ length: steps + 1 }, (_, at) => tell(marked(at)));
  const left = Math.max(...told.map((text) => context.measureText(text).width)) + 12;
  const right = 6, top = 8, bottom = 22;
  const x = (at) => left + (width - left - right) * (at - from) / Math.max(1, to - from);
  const part = (value) => log ? Math.log(value / least) / Math.log(most / least) : value / most;
  const y = (value) => height - bottom - (height - top - bottom) * Math.max(0, part(value));
  context.fillStyle = ink("quiet");
  context.strokeStyle = ink("line");
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (let at = 0; at <= steps; at += 1) {
    const value = marked(at);
    context.beginPath();
    context.moveTo(left, y(value));
    context.lineTo(width - right, y(value));
    context.stroke();
    context.fillText(told[at], left - 6, y(value));
  }
  context.textBaseline = "alphabetic";
  const marks = Math.max(2, Math.min(6, Math.floor(width / 120)));
  for (let at = 0; at <= marks; at += 1) {
    const second = from + (to - from) * at / marks;
    context.textAlign = at === 0 ? "left" : at === marks ? "right" : "center";
    context.fillText(clock(second, to - from < LIVE_S), x(second), height - 5);
  }
  for (const { values, colour } of lines) {
    context.strokeStyle = ink(colour);
    context.lineWidth = 1.7;
    context.lineJoin = "round";
    context.lineCap = "round";
    context.beginPath();
    let drawing = false;
    values.forEach((value, at) => {
      if (value == null || times[at] < from || (log && value <= 0)) {
        drawing = false;
        return;
      }
      if (drawing) context.lineTo(x(times[at]), y(value));
      else context.moveTo(x(times[at]) - 2, y(value)), context.lineTo(x(times[at]), y(value));
      drawing = true;
    });
    context.stroke();
  }
  const last = (values) => values.length ? values[values.length - 1] : null;
  canvas.setAttribute("aria-label", lines.map(({ name, values }) => `${name}: now ${tell(last(values))}`).join(", "));
}

/* ---- what is known ---- */

let node = null;
let heardAt = null;
let isDead = false;
let shown = "live";
const series = ["gets_per_s", "writes_per_s", "scans_per_s", "transactions_per_s", "busy_per_s", "get_p50_s", "get_p99_s",
  "get_p999_s", "write_p50_s", "write_p99_s", "drive_read_bytes_per_s", "drive_write_bytes_per_s", "cleaning_bytes_per_s",
  "shard_cpu_cores"];
const kept = { live: { times: [], columns: {} }, hour: { times: [], columns: {} } };

/* ---- the token, where the node wants one ---- */

const SECRET = /^[\x21-\x7e]{1,256}$/;
let secret = null;
/// Why nothing is asked until there is another secret.
let locked = null;
try { secret = sessionStorage.getItem("token"); } catch { /* not kept */ }

function keep(given) {
  secret = given;
  try { given ? sessionStorage.setItem("token", given) : sessionStorage.removeItem("token"); } catch { /* not kept */ }
}

function showGate() {
  const gate = byId("gate");
  const opens = locked && gate.hidden;
  gate.hidden = !locked;
  document.querySelector("main").hidden = Boolean(locked && !node);
  byId("forget").hidden = !secret;
  if (locked && byId("gate-told").textContent !== locked) byId("gate-told").textContent = locked;
  if (opens) byId("secret").focus();
}

async function ask(path) {
  const gone = new AbortController();
  const timer = setTimeout(() => gone.abort(), PATIENCE_MS);
  try {
    const shown = secret;
    const headers = shown ? { authorization: "Bearer " + shown } : {};
    const answer = await fetch(path, { signal: gone.signal, cache: "no-store", credentials: "omit", headers });
    // What an earlier secret is told says nothing of the present one.
    if ((answer.status === 401 || answer.status === 403) && shown === secret) {
      locked = (await answer.text()).trim();
      if (answer.status === 401 && !shown) locked = "Show one to see what it tells.";
    }
    if (!answer.ok) throw new Error((await answer.text()).trim() || "status " + answer.status);
    return await answer.text();
  } finally {
    clearTimeout(timer);
  }
}

async function takeHistory(which, every, length) {
  const store = kept[which];
  const last = store.times.length ? store.times[store.times.length - 1] : 0;
  const back = last ? Math.min(length, Math.ceil(Date.now() / 1000 - last) + 30) : length;
  const told = JSON.parse(await ask(`/history?every=${every}&last=${back}&series=${series.join(",")}`));
  const first = told.times_s.findIndex((second) => second > last);
  if (first < 0) return;
  store.times.push(...told.times_s.slice(first));
  const drop = Math.max(0, store.times.length - length / every);
  store.times.splice(0, drop);
  for (const name of series) {
    const column = (store.columns[name] ||= []);
    column.push(...told.series[name].slice(first));
    column.splice(0, drop);
  }
}

/* ---- the node ---- */

function showHealth() {
  const pill = byId("health");
  if (locked) {
    pill.dataset.colour = "unknown";
    pill.textContent = "locked";
    return;
  }
  if (isDead) {
    pill.dataset.colour = "dead";
    pill.textContent = "dead";
    return;
  }
  const { colour, reasons } = node.health;
  pill.dataset.colour = colour;
  if (pill.textContent !== colour) pill.textContent = colour;
  byId("reasons").replaceChildren(...reasons.map(({ colour: of, text }) => {
    const item = element("li", null, { "data-colour": of });
    item.append(element("b", of), ": " + text);
    return item;
  }));
}

function showDead() {
  const banner = byId("dead");
  document.body.classList.toggle("dead", isDead);
  banner.hidden = !isDead;
  if (isDead) {
    const since = heardAt ? " since " + new Date(heardAt).toLocaleTimeString() : "";
    const told = `The node does not answer${since}. What is below is what it told last.`;
    if (banner.textContent !== told) banner.textContent = told;
    byId("since").textContent = "no answer";
    document.title = "dead – lode";
  }
}

function showNode() {
  const { totals, rates, latency } = node;
  byId("name").textContent = node.name;
  byId("version").textContent = "lode " + node.version;
  byId("since").textContent = `up ${span(node.uptime_s)} · ${node.ready ? "serving" : "not serving"}`;
  document.title = `${node.health.colour} – ${node.name}`;
  const writes = rates.puts + rates.deletes + rates.batches + rates.increments + rates.expiry_changes;
  pairs(byId("cards"), [
    ["Gets", rate(rates.gets)],
    ["Writes", rate(writes)],
    ["Scans", rate(rates.scans)],
    ["Get p50", time(latency.get.p50_s)],
    ["Get p99", time(latency.get.p99_s)],
    ["Get p99.9", time(latency.get.p999_s)],
    ["Write p50", time(latency.write.p50_s)],
    ["Write p99", time(latency.write.p99_s)],
    ["Told Busy", rate(rates.busy)],
    ["Throttled", rate(rates.throttled)],
    ["Connections", count(totals.connections)],
    ["Waiting", count(totals.pending + totals.queued)],
  ]);
  bars(byId("drive"), [
    ["Live records", totals.live_bytes, totals.live_limit_bytes, bytes],
    ["Segments in use", totals.segments - totals.segments_free, totals.segments, count],
    ["Scrub, this round", mean(node.shards, "scrub_percent"), 100, null],
  ], [
    ["Drive", `${node.settings?.drive?.path ?? "–"} (${node.settings?.drive?.kind ?? "–"})`],
    ["Read from the drive", byteRate(rates.device_read_bytes)],
    ["Written for users", byteRate(rates.user_frame_bytes)],
    ["Written by cleaning", byteRate(rates.cleaning_frame_bytes)],
    ["Segments cleaned", count(totals.segments_cleaned)],
    ["Written per byte of users", ratio(["user_frame_bytes", "cleaning_frame_bytes", "journal_bytes", "image_bytes", "meta_bytes"], "user_bytes")],
    ["Mean time of an operation", rates.drive_operations ? time(rates.drive_wait_us / rates.drive_operations * 1e-6) : "–"],
    ["Damaged records", count(totals.damaged_records)],
  ]);
  const cold = rates.gets ? 1 - rates.get_cache_hits / rates.gets : null;
  bars(byId("memory"), [
    ["Index and memory tables", totals.index_bytes + totals.memory_table_bytes, totals.memory_limit_bytes, bytes],
    ["Read cache", totals.cache_bytes, totals.cache_limit_bytes, bytes],
    ["Buffers in use", totals.buffer_bytes - totals.buffer_bytes_free, totals.buffer_bytes, bytes],
  ], [
    ["Index", bytes(totals.index_bytes)],
    ["Memory tables", bytes(totals.memory_table_bytes)],
    ["Records", count(totals.records)],
    ["Index by record", totals.records ? (totals.index_bytes / totals.records).toFixed(1) + " B" : "–"],
    ["Gets beyond the cache", cold == null ? "–" : percent(Math.max(0, cold))],
    ["The process", bytes(node.resident_bytes)],
  ]);
  const headings = ["Shard", "Requests", "Partitions", "Records", "Live", "Segments free", "Index", "Cache", "Waiting", "From others"];
  tableOf(byId("shards"), headings, node.shards.map((shard) => [
    `${shard.shard}${shard.silent_s ? ` (silent for ${shard.silent_s} s)` : shard.poisoned ? " (takes no writes)" : ""}`,
    count(shard.requests), count(shard.partitions), count(shard.records), bytes(shard.live_bytes),
    `${shard.segments_free} of ${shard.segments}`, bytes(shard.index_bytes), bytes(shard.cache_bytes),
    count(shard.pending + shard.queued), count(shard.hops_in),
  ]));
  showSettings();
}

const mean = (shards, name) => shards.reduce((sum, shard) => sum + shard[name], 0) / Math.max(1, shards.length);
function ratio(parts, whole) {
  const sum = parts.reduce((total, name) => total + node.totals[name], 0);
  return node.totals[whole] ? (sum / node.totals[whole]).toFixed(2) + " B" : "–";
}

function bars(place, gauges, facts) {
  const made = gauges.map(([name, value, most, tell]) => {
    const bar = element("div", null, { class: "bar" });
    const progress = element("progress", null, { max: most || 1, value, "aria-label": name });
    const share = most ? percent(value / most) : "–";
    const parts = tell ? `${tell(value)} of ${tell(most)} · ${share}` : share;
    bar.append(element("span", name), element("b", parts), progress);
    return bar;
  });
  const list = element("dl", null, { class: "settings" });
  pairs(list, facts);
  place.replaceChildren(...made, list);
}

let settingsTold = "";
function showSettings() {
  const told = JSON.stringify(node.settings);
  if (told === settingsTold) return;
  settingsTold = told;
  const rows = [];
  const walk = (value, path, from = "") => {
    if (value && typeof value === "object" && "origin" in value) {
      walk(value.value, path, ` (${value.origin})`);
    } else if (value && typeof value === "object" && !Array.isArray(value)) {
      for (const [key, inner] of Object.entries(value)) walk(inner, path.concat(key.replaceAll("_", " ")));
    } else if (value != null) {
      const name = path[path.length - 1];
      const isSize = typeof value === "number" && / bytes$|^bytes$/.test(name);
      const isRate = typeof value === "number" && /bytes per s$/.test(name);
      const isTime = typeof value === "number" && / us$/.test(name);
      const words = path.join(" · ").replace(/· bytes$/, "· size").replace(/ bytes( per s)?$| us$/, "");
      rows.push([words, (isRate ? byteRate(value) : isSize ? bytes(value) : isTime ? time(value * 1e-6) : String(value)) + from]);
    }
  };
  walk(node.settings, []);
  pairs(byId("settings"), rows);
}

function drawCharts() {
  const { times, columns } = kept[shown];
  const length = shown === "live" ? LIVE_S : HOUR_S;
  const to = times.length ? times[times.length - 1] : Date.now() / 1000;
  const line = (name, of, colour) => ({ name, colour, values: columns[of] || [] });
  const begun = times.length ? times[0] : to;
  const range = { from: Math.max(to - length, Math.min(begun, to - 60)), to };
  chart("throughput", times, [line("gets", "gets_per_s", "one"), line("writes", "writes_per_s", "two"), line("scans", "scans_per_s", "three"),
    line("transactions", "transactions_per_s", "four")], { tell: rate, ...range });
  chart("latency", times, [line("get p50", "get_p50_s", "one"), line("get p99", "get_p99_s", "three"), line("write p50", "write_p50_s", "two"),
    line("write p99", "write_p99_s", "four")], { tell: time, log: true, ...range });
  chart("drive", times, [line("read", "drive_read_bytes_per_s", "one"), line("written", "drive_write_bytes_per_s", "two"),
    line("of it cleaning", "cleaning_bytes_per_s", "three")], { tell: byteRate, ...range });
  chart("cpu", times, [line("cores", "shard_cpu_cores", "one")], { tell: (cores) => (cores ?? 0).toFixed(2), ...range });
}

/* ---- partitions ---- */

const metrics = {
  load: { name: "load", of: (p) => p.load, tell: rate },
  size: { name: "size", of: (p) => p.bytes, tell: bytes },
  latency: { name: "latency", of: (p) => p.latency, tell: micros },
  errors: { name: "errors", of: (p) => p.errors, tell: rate },
};
let partitions = [];
let tables = new Map();
let arranged = [];
let chosen = 0;
let grid = { columns: 1, side: 10 };

function readStream(text) {
  const names = new Map();
  const rows = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("[")) {
      const [id, table, shard, reads, writes, readBytes, writeBytes, failed, limited, latency, longest, records, size] = JSON.parse(line);
      rows.push({ id, table, shard, reads, writes, readBytes, writeBytes, errors: failed + limited, failed, limited, latency, longest,
        records, bytes: size, load: reads + writes + failed + limited });
    } else if (line.startsWith("{\"name\"") || line.startsWith("{\"table\"")) {
      const told = JSON.parse(line);
      names.set(told.table, told.name);
    }
  }
  tables = names;
  partitions = rows;
}

const nameOf = (partition) => tables.get(partition.table) ?? "table " + partition.table;

function arrange() {
  const wanted = byId("search").value.trim().toLowerCase();
  const fits = (p) => !wanted || String(p.id) === wanted || nameOf(p).toLowerCase().includes(wanted);
  const by = byId("sort").value;
  const before = arranged[chosen]?.id;
  arranged = partitions.filter(fits);
  if (by === "table") arranged.sort((a, b) => nameOf(a).localeCompare(nameOf(b)) || a.id - b.id);
  else arranged.sort((a, b) => metrics[by].of(b) - metrics[by].of(a) || a.id - b.id);
  const again = arranged.findIndex((p) => p.id === before);
  chosen = again >= 0 ? again : Math.min(chosen, Math.max(0, arranged.length - 1));
  const of = arranged.length === partitions.length ? "" : ` of ${partitions.length}`;
  byId("partition-count").textContent = `${arranged.length}${of}`;
}

function drawPartitions() {
  const canvas = byId("partitions");
  const width = canvas.clientWidth;
  if (!width) return;
  const metric = metrics[byId("colour").value];
  const tallest = Math.max(160, Math.min(360, innerHeight * 0.45));
  const fitting = Math.floor(Math.sqrt(width * tallest / Math.max(1, arranged.length)));
  const side = Math.max(5, Math.min(30, fitting));
  const columns = Math.max(1, Math.floor(width / side));
  grid = { columns, side };
  const rows = Math.max(1, Math.ceil(arranged.length / columns));
  const { context } = canvasOf(canvas, rows * side);
  const most = arranged.reduce((a, p) => Math.max(a, metric.of(p)), 0);
  const least = arranged.reduce((a, p) => (metric.of(p) > 0 ? Math.min(a, metric.of(p)) : a), most);
  const low = Math.min(least, most / 10);
  const part = (value) => (value <= 0 ? -1 : most <= low ? 1 : 0.08 + 0.92 * Math.log(value / low) / Math.log(most / low));
  const gap = side > 8 ? 1 : 0.5;
  const none = ink("line");
  arranged.forEach((p, at) => {
    const share = part(metric.of(p));
    context.fillStyle = share < 0 ? none : heat(share);
    context.fillRect((at % columns) * side, Math.floor(at / columns) * side, side - gap, side - gap);
  });
  if (arranged.length) {
    context.strokeStyle = ink("ink");
    context.lineWidth = 2;
    context.strokeRect((chosen % columns) * side + 1, Math.floor(chosen / columns) * side + 1, side - 2 - gap, side - 2 - gap);
  }
  const scale = canvasOf(byId("scale"));
  for (let x = 0; x < scale.width; x += 1) {
    scale.context.fillStyle = heat(0.08 + 0.92 * x / scale.width);
    scale.context.fillRect(x, 0, 1, scale.height);
  }
  byId("scale-low").textContent = most > 0 ? metric.tell(low) : "";
  byId("scale-high").textContent = most > 0 ? metric.tell(most) : "nothing to tell apart";
  tellCell();
}

function tellCell() {
  const p = arranged[chosen];
  byId("cell").textContent = p
    ? `${nameOf(p)} · partition ${p.id} · shard ${p.shard} · ${rate(p.load)} · ${bytes(p.bytes)} · ${micros(p.latency)} · ${rate(p.errors)} errors`
    : partitions.length ? "No partition fits the search." : "There are no partitions.";
}

function listPartitions() {
  const rows = arranged.slice(0, LISTED).map((p) => {
    const open = element("button", String(p.id), { type: "button", "aria-label": `Open partition ${p.id}`, "data-partition": p.id });
    return [nameOf(p), open, rate(p.reads), rate(p.writes), micros(p.latency), micros(p.longest), rate(p.errors), count(p.records), bytes(p.bytes)];
  });
  const focused = document.activeElement?.dataset?.partition;
  tableOf(byId("list"), ["Table", "Partition", "Reads", "Writes", "Mean", "Longest", "Errors", "Records", "Size"], rows);
  if (focused) byId("list").querySelector(`[data-partition="${Number(focused)}"]`)?.focus();
}

function showPartitions() {
  arrange();
  drawPartitions();
  listPartitions();
}

function choose(at) {
  chosen = Math.max(0, Math.min(arranged.length - 1, at));
  drawPartitions();
}

const cellAt = (event) => {
  const box = byId("partitions").getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left) / grid.side);
  const row = Math.floor((event.clientY - box.top) / grid.side);
  const at = row * grid.columns + column;
  return column < grid.columns && at < arranged.length ? at : null;
};

/* ---- one partition ---- */

let opened = null;

async function open(id) {
  opened = id;
  const dialog = byId("detail");
  byId("detail-title").textContent = "Partition " + id;
  byId("detail-facts").replaceChildren();
  byId("detail-told").textContent = "asking …";
  if (!dialog.open) dialog.showModal();
  await refreshDetail();
}

async function refreshDetail() {
  const id = opened;
  if (id == null) return;
  let told = "";
  try {
    const of = JSON.parse(await ask(`/partitions?id=${id}`));
    const figures = of.figures || {};
    byId("detail-title").textContent = `${of.table} · partition ${id}`;
    pairs(byId("detail-facts"), [
      ["Shard", String(of.shard ?? "–")],
      ["Reads", rate(figures.reads_per_s)], ["Writes", rate(figures.writes_per_s)],
      ["Read", byteRate(figures.read_bytes_per_s)], ["Written", byteRate(figures.write_bytes_per_s)],
      ["Failed", rate(figures.failed_per_s)], ["Limited", rate(figures.limited_per_s)],
      ["Mean", micros(figures.latency_mean_us)], ["Longest", micros(figures.latency_max_us)],
      ["Records", count(figures.records)], ["Size", bytes(figures.bytes)],
      [of.placement === "hash" ? "Hashes from" : "Keys from", of.start === "" || of.start === "0x" ? "the first" : of.start],
      ["up to", of.end == null ? "the last" : of.end],
    ]);
    const history = JSON.parse(await ask(`/history?partition=${id}&series=reads_per_s,writes_per_s,limited_per_s,latency_mean_us,latency_max_us`));
    const times = history.times_s;
    const to = times.length ? times[times.length - 1] : Date.now() / 1000;
    const range = { from: times.length ? Math.max(to - HOUR_S, Math.min(times[0], to - 300)) : to - 300, to };
    const line = (name, of, colour) => ({ name, colour, values: history.series[of] });
    const seconds = (values) => values.map((us) => (us ? us * 1e-6 : null));
    chart("detail-load", times, [line("reads", "reads_per_s", "one"), line("writes", "writes_per_s", "two"), line("limited", "limited_per_s", "four")],
      { tell: rate, ...range });
    chart("detail-latency", times, [{ name: "mean", colour: "one", values: seconds(history.series.latency_mean_us) },
      { name: "longest", colour: "two", values: seconds(history.series.latency_max_us) }], { tell: time, log: true, ...range });
    told = times.length ? "The last hour, every ten seconds." : "There is no history yet.";
  } catch (error) {
    told = String(error.message || error);
  }
  if (opened === id) byId("detail-told").textContent = told;
}

/* ---- the clockwork ---- */

function drawAll() {
  if (!node) return;
  drawCharts();
  showPartitions();
}

async function takeNode() {
  try {
    if (!locked) {
      node = JSON.parse(await ask("/api/node"));
      await takeHistory("live", 1, LIVE_S);
      await takeHistory("hour", 10, HOUR_S);
      heardAt = Date.now();
      showNode();
      showGate();
      drawCharts();
    }
    isDead = false;
  } catch {
    isDead = !locked;
  }
  showGate();
  showDead();
  if (node || isDead || locked) showHealth();
}

async function takePartitions() {
  try {
    if (!document.hidden && !locked) {
      readStream(await ask("/partitions/stream"));
      showPartitions();
      if (byId("detail").open) await refreshDetail();
    }
  } catch { /* whether the node lives is told above */ }
}

async function every(ms, take) {
  await take();
  setTimeout(every, ms, ms, take);
}

function openGate(event) {
  event.preventDefault();
  const given = byId("secret").value.trim();
  byId("secret").value = "";
  if (!SECRET.test(given)) {
    byId("gate-told").textContent = locked = "That is no secret of a token.";
    return;
  }
  keep(given);
  locked = null;
  takeNode().then(takePartitions);
}

function begin() {
  for (const [select, chosenAtFirst] of [["colour", "load"], ["sort", "load"]]) {
    const options = Object.entries(metrics).map(([value, { name }]) => element("option", name, { value }));
    if (select === "sort") options.push(element("option", "table", { value: "table" }));
    byId(select).replaceChildren(...options);
    byId(select).value = chosenAtFirst;
    byId(select).addEventListener("change", showPartitions);
  }
  byId("search").addEventListener("input", showPartitions);
  byId("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("theme", theme); } catch { /* not kept */ }
    dress();
  });
  dark.addEventListener("change", dress);
  addEventListener("resize", drawAll);
  for (const button of document.querySelectorAll("[data-span]")) {
    button.addEventListener("click", () => {
      shown = button.dataset.span;
      for (const other of document.querySelectorAll("[data-span]")) other.setAttribute("aria-pressed", String(other === button));
      drawCharts();
    });
  }
  const map = byId("partitions");
  map.addEventListener("pointermove", (event) => {
    const at = cellAt(event);
    if (at != null && at !== chosen) choose(at);
  });
  map.addEventListener("click", (event) => {
    const at = cellAt(event);
    if (at != null) choose(at), open(arranged[at].id);
  });
  map.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns, Home: -Infinity, End: Infinity };
    if (event.key in steps) choose(chosen + steps[event.key]);
    else if ((event.key === "Enter" || event.key === " ") && arranged[chosen]) open(arranged[chosen].id);
    else return;
    event.preventDefault();
  });
  byId("list").addEventListener("click", (event) => {
    const id = event.target.dataset?.partition;
    if (id) open(Number(id));
  });
  byId("detail-close").addEventListener("click", () => byId("detail").close());
  byId("detail").addEventListener("close", () => { opened = null; });
  byId("gate").addEventListener("submit", openGate);
  byId("forget").addEventListener("click", () => {
    keep(null);
    location.reload();
  });
  dress();
  every(NODE_EVERY_MS, takeNode);
  every(PARTITIONS_EVERY_MS, takePartitions);
}
begin();

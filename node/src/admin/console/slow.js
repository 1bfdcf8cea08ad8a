"use strict";
// Slow requests: what the node has kept of them, sorted and searched here.

const SLOW_EVERY_MS = 4000;
const SLOW_LISTED = 100;
const STAGES = ["queue", "hop", "shard", "drive", "commit", "send"];
const slowOrders = {
  latest: { name: "the latest", of: (one) => one.at_ms },
  total: { name: "the slowest", of: (one) => one.total_us },
  drive: { name: "waiting for the drive", of: (one) => one.stages.drive_us },
  queue: { name: "waiting for its turn", of: (one) => one.stages.queue_us },
  commit: { name: "waiting for its frame", of: (one) => one.stages.commit_us },
  send: { name: "waiting for its reader", of: (one) => one.stages.send_us },
  bytes: { name: "size", of: (one) => one.request_bytes + one.answer_bytes },
};
let slow = { threshold_us: null, noted: 0, requests: [] };

/// Where its time went, as parts of a bar and in words.
function slowBar(one) {
  const bar = element("span", null, { class: "stages", role: "img" });
  const told = [];
  for (const stage of STAGES) {
    const us = one.stages[stage + "_us"];
    if (!us) continue;
    told.push(`${stage} ${micros(us)}`);
    const part = element("i", null, { "data-stage": stage });
    part.style.flexGrow = us;
    bar.append(part);
  }
  bar.setAttribute("aria-label", told.join(", "));
  bar.title = told.join(", ");
  return bar;
}

function showSlow() {
  const wanted = byId("slow-search").value.trim().toLowerCase();
  const order = slowOrders[byId("slow-sort").value];
  const told = (one) => [one.verb, one.table, one.client, one.key_hash, one.status, one.longest, String(one.partition)];
  const fits = (one) => !wanted || told(one).some((text) => text && text.toLowerCase().includes(wanted));
  const found = slow.requests.filter(fits).sort((a, b) => order.of(b) - order.of(a) || b.id - a.id);
  byId("slow-count").textContent = slow.threshold_us == null ? "" : count(slow.noted);
  const none = slow.threshold_us == null ? "No request is slow for this node: it was given --slow-request 0s."
    : slow.requests.length ? "No request fits the search."
    : `No request has taken ${micros(slow.threshold_us)} or longer.`;
  byId("slow-told").textContent = found.length ? `Took ${micros(slow.threshold_us)} or longer; ${found.length} of the last are shown.` : none;
  byId("slow").hidden = !found.length;
  const headings = ["Request", "At", "Took", "Where the time went", "Longest", "Partition", "Asked", "Answered", "Key", "Client", "Status"];
  tableOf(byId("slow"), headings, found.slice(0, SLOW_LISTED).map((one) => [
    `${one.verb} ${one.table}`, clock(one.at_ms / 1000, true), micros(one.total_us), slowBar(one), one.longest,
    String(one.partition), bytes(one.request_bytes), bytes(one.answer_bytes),
    one.key_hash ? `${one.key_hash}, ${one.key_bytes} B` : "–", one.client ?? "–", one.status,
  ]));
}

async function takeSlow() {
  try {
    if (!document.hidden && node && !locked) {
      slow = JSON.parse(await ask("/slow"));
      showSlow();
    }
  } catch { /* whether the node lives is told above */ }
  setTimeout(takeSlow, node ? SLOW_EVERY_MS : 500);
}

byId("slow-sort").append(...Object.entries(slowOrders).map(([value, { name }]) => element("option", name, { value })));
byId("slow-sort").addEventListener("change", showSlow);
byId("slow-search").addEventListener("input", showSlow);
takeSlow();

// The status page: asks for status.json every second and writes what it says into the page. Nothing else is loaded, and
// no HTML is ever made of what the gateway tells: text goes into text nodes.

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const $ = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------------------ numbers to words

const whole = new Intl.NumberFormat("en");
const number = (value) => whole.format(value);
const threeDigits = (value) => (value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2));
const percent = (value, digits = 1) => `${(value * 100).toFixed(digits)} %`;

/** Value and unit apart, as few digits as a person reads. */
function inUnit(seconds) {
  if (!seconds) return ["0", "s"];
  for (const [below, scale, unit] of [[1e-3, 1e6, "µs"], [1, 1e3, "ms"], [120, 1, "s"], [7200, 1 / 60, "min"], [172800, 1 / 3600, "h"]])
    if (seconds < below) return [threeDigits(seconds * scale), unit];
  return [threeDigits(seconds / 86400), "d"];
}
const time = (seconds) => inUnit(seconds).join(" ");

function bytes(count) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (count < 1024) return `${unit === "B" ? count : threeDigits(count)} ${unit}`;
    count /= 1024;
  }
  return `${threeDigits(count)} TiB`;
}

const SOURCE_NAMES = { HIT_EXACT: "exact", HIT_FUZZY: "fuzzy", MISS: "computed", COALESCED: "coalesced", BYPASS: "bypass" };
const sourceName = (row) => (row.tier ? `${SOURCE_NAMES[row.status]}, ${row.tier}` : SOURCE_NAMES[row.status]);

// ------------------------------------------------------------------------------------------------- writing the page

/** Sets text only where it differs, so that a selection and a screen reader are left in peace. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function figure(node, value, unit) {
  if (node.dataset.shown === `${value} ${unit}`) return;
  node.dataset.shown = `${value} ${unit}`;
  node.replaceChildren(value);
  if (unit) node.append(Object.assign(document.createElement("small"), { textContent: unit }));
}

/** Rows of a table body in place. A cell is text, or { text, part, mark, bad, unproven }; `classes` are of the columns. */
function fill(body, rows, classes) {
  rows.forEach((cells, r) => {
    const row = body.rows[r] ?? body.insertRow();
    row.className = cells.first ? "first" : "";
    cells.forEach((cell, c) => {
      const told = typeof cell === "object" ? cell : { text: cell };
      let place = row.cells[c];
      if (!place) {
        place = document.createElement(c ? "td" : "th");
        if (!c) place.scope = "row";
        row.append(place);
      }
      place.className = [classes[c], told.bad ? "bad" : ""].join(" ").trim();
      if (told.part === undefined) return write(place, told.text);
      if (!place.firstElementChild) place.append(bar(), document.createElement("span"));
      const [drawn, words] = place.children;
      drawn.style.setProperty("--part", Math.min(1, told.part));
      drawn.style.setProperty("--mark", told.mark ?? 0);
      drawn.classList.toggle("over", Boolean(told.bad));
      drawn.classList.toggle("unproven", Boolean(told.unproven));
      drawn.lastElementChild.hidden = told.mark === undefined;
      write(words, told.text);
    });
  });
  while (body.rows.length > rows.length) body.deleteRow(-1);
}

function bar() {
  const drawn = document.createElement("span");
  drawn.className = "bar";
  drawn.setAttribute("aria-hidden", "true");
  drawn.append(document.createElement("i"), document.createElement("u"));
  return drawn;
}

/** A line over the last five minutes, the newest at the right; a gap where there was nothing to measure. */
function spark(svg, values, seconds, top, label) {
  const height = 40;
  const most = top ?? Math.max(...values.filter((value) => value !== null), 0) * 1.1;
  const at = (value) => (height - 1 - (most ? value / most : 0) * (height - 2)).toFixed(1);
  let line = "";
  let under = "";
  let begun = null;
  const end = (x) => {
    if (begun !== null) under += `L${x},${height}L${begun},${height}Z`;
    begun = null;
  };
  values.forEach((value, index) => {
    const x = seconds - values.length + index;
    if (value === null) return end(x - 1);
    const joined = begun !== null;
    if (!joined) begun = x;
    line += `${joined ? "L" : "M"}${x},${at(value)}`;
    under += `${joined ? "L" : "M"}${x},${at(value)}`;
  });
  end(seconds - 1);
  if (!svg.firstChild) {
    svg.setAttribute("viewBox", `0 0 ${seconds} ${height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    for (const name of ["under", "ground", "line"]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
    svg.children[1].setAttribute("d", `M0,${height}H${seconds}`);
  }
  svg.children[0].setAttribute("d", under);
  svg.children[2].setAttribute("d", line);
  svg.setAttribute("aria-label", label);
}

const known = (values) => values.filter((value) => value !== null);
const range = (values, say) => (known(values).length ? `${say(Math.min(...known(values)))} to ${say(Math.max(...known(values)))}` : "nothing yet");

function showNow({ live, history, totals }) {
  const rate = live.rate ?? 0;
  figure($("rate"), rate >= 100 ? number(Math.round(rate)) : rate ? rate.toFixed(1) : "0", "");
  figure($("hit-rate"), live.hit_rate === null ? "–" : (live.hit_rate * 100).toFixed(1), live.hit_rate === null ? "" : "%");
  figure($("p99"), ...(live.p99_s === null ? ["–", ""] : inUnit(live.p99_s)));
  figure($("saved"), ...inUnit(totals.saved_s));
  const rates = range(history.rate, (value) => (value >= 10 ? number(Math.round(value)) : value.toFixed(1)));
  const spans = { rate: rates, hit_rate: range(history.hit_rate, percent), p99_s: range(history.p99_s, time) };
  for (const [name, id, top] of [["rate", "rate"], ["hit_rate", "hit-rate", 1], ["p99_s", "p99"]])
    spark($(`spark-${id}`), history[name], history.seconds, top, `Last five minutes: ${spans[name]}`);
  write($("rate-note"), `${rates} in five minutes`);
  write($("hit-rate-note"), `${percent(totals.hit_rate)} since the start`);
  write($("p99-note"), `${spans.p99_s} in five minutes`);
  write($("saved-note"), `${percent(totals.compute_hit_rate)} of what it would have been; ${time(totals.compute_s)} spent`);
}

function showOrigins({ sources, totals }) {
  const parts = [
    ["device", "memory", (row) => row.status === "HIT_EXACT" && row.tier === "device"],
    ["redis", "Redis", (row) => row.status === "HIT_EXACT" && row.tier === "redis"],
    ["fuzzy", "alike, heard before", (row) => row.status === "HIT_FUZZY"],
    ["coalesced", "shared with another caller", (row) => row.status === "COALESCED"],
    ["computed", "the models", (row) => row.status === "MISS"],
    ["bypass", "the models, cache bypassed", (row) => row.status === "BYPASS"],
  ];
  parts.forEach(([kind, words, of], index) => {
    const count = sources.filter(of).reduce((sum, row) => sum + row.requests, 0);
    const piece = $("stack").children[index] ?? $("stack").appendChild(Object.assign(document.createElement("span"), { className: kind }));
    piece.style.setProperty("--part", totals.requests ? count / totals.requests : 0);
    piece.hidden = !count;
    let item = $("legend").children[index];
    if (!item) {
      item = $("legend").appendChild(document.createElement("li"));
      item.append(Object.assign(document.createElement("i"), { className: kind }), words, document.createElement("b"));
    }
    item.hidden = !count;
    write(item.lastChild, `${number(count)}, ${percent(totals.requests ? count / totals.requests : 0)}`);
  });
  const { requests, hits, misses, coalesced, bypassed, failed } = totals;
  write($("sum"), requests
    ? `${number(requests)} requests = ${number(hits)} hits + ${number(misses)} misses + ${number(coalesced)} coalesced + ${number(bypassed)} bypassed; ${number(failed)} more failed.`
    : "No request has been answered yet.");
}

function showTables({ sources, tiers, audits, engines, redis, work }) {
  let task = "";
  fill($("sources"), sources.map((row) => {
    const first = row.task !== task;
    task = row.task;
    const cells = [first ? row.task : "", sourceName(row), number(row.requests), percent(row.share), time(row.p50_s), time(row.p95_s), time(row.p99_s), row.saved_s ? time(row.saved_s) : "–"];
    return Object.assign(cells, { first });
  }), ["", "text", "", "wide", "", "wide", "", "wide"]);
  fill($("tiers"), tiers.map((tier) => {
    const full = tier.capacity_bytes ? { part: tier.bytes / tier.capacity_bytes, text: `${bytes(tier.bytes)} of ${bytes(tier.capacity_bytes)}` } : { text: bytes(tier.bytes) };
    const evicted = Object.values(tier.evictions).reduce((sum, count) => sum + count, 0);
    return [tier.name, number(tier.entries), full, tier.hit_rate === null ? "–" : percent(tier.hit_rate), number(evicted), { text: number(tier.errors), bad: tier.breaker_open }];
  }), ["", "", "text", "", "wide", "wide"]);
  fill($("audits"), audits.map((book) => {
    const bound = book.wrong_upper_bound;
    const above = bound > book.limit;
    const bad = above && (book.wrong > 0 || book.alarms > 0); // else it is only not proven yet
    const state = book.shadow ? "shadow" : !book.serving ? "held back" : book.from_similarity ? `from ${book.from_similarity.toFixed(2)}` : "yes";
    // The limit is drawn at two thirds, so that there is room to see by how much a bound is over it.
    const part = book.audited && book.limit ? (bound / book.limit) * (2 / 3) : 0;
    const drawn = { part, mark: 2 / 3, bad, unproven: above && !bad, text: book.audited ? percent(bound, 2) : "not known" };
    return [book.what, number(book.audited), { text: number(book.wrong), bad }, drawn, percent(book.limit, 2), state];
  }), ["long", "", "", "text", "wide", ""]);
  fill($("engines"), engines.map((one) => [
    one.task, one.models.replaceAll("+", " + ") || one.name, one.identity, one.provider.replace("ExecutionProvider", ""), percent(one.share, 0), number(one.answers),
    { text: number(one.failures), bad: one.failures > 0 }, one.p50_s ? time(one.p50_s) : "–",
  ]), ["", "text long", "text wide", "text", "wide", "wide", "", ""]);
  const server = redis.private ? "Its own Redis server" : "Redis";
  const health = redis.breaker_open ? `does not answer, and is left alone; calls not made: ${number(redis.skipped)}` : "answers";
  write($("redis"), `${server} ${health}. Calls: ${number(redis.calls)}, failed: ${number(redis.failures)}, too slow: ${number(redis.timeouts)}, times given up: ${number(redis.opened)}.`);
  write($("work"), `Computations: ${number(work.flights)} running, ${number(work.engine_queue)} waiting. Overlooked by the Bloom filter: ${number(work.bloom_false_negatives)}.`);
}

function showTrouble({ redis, audits, engines, totals }) {
  const told = [];
  if (redis.breaker_open) told.push("Redis does not answer: what it holds is computed anew.");
  for (const book of audits) if (book.alarms && !book.serving) told.push(`Audits hold fuzzy answers to ${book.what} back.`);
  for (const one of engines) if (one.failures && one.failures * 100 > one.answers) told.push(`${one.name} fails: ${number(one.failures)} runs.`);
  write($("trouble"), told.join(" "));
  $("trouble").hidden = !told.length;
  document.title = told.length ? "! Refrain" : "Refrain";
}

// ------------------------------------------------------------------------------------------------------ the entries

const LABELS = { hear: "Hear", pin: "Pin", unpin: "Unpin", drop: "Drop", report: "Report wrong" };
const shortName = (id) => `${id.slice(0, 9)}…${id.slice(-4)}`;

/** Rows of a list in place, by id. Those that somebody is at do not run away from under the finger. */
function showRows(list, items, template, tell, actions) {
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  const busy = list.contains(document.activeElement) || list.matches(":hover");
  for (const [id, row] of rows) if (!items.some((item) => item.id === id)) row.remove();
  items.forEach((item, place) => {
    let row = rows.get(item.id);
    if (!row) {
      row = list.appendChild($(template).content.firstElementChild.cloneNode(true));
      row.dataset.id = item.id;
      row.children[0].title = item.id;
      row.children[0].textContent = shortName(item.id);
    }
    if (!busy && list.children[place] !== row) list.insertBefore(row, list.children[place]);
    tell(item, ...[...row.children].slice(1));
    showActions(row.lastElementChild, actions(item), item.id);
  });
}

function showActions(place, actions, id) {
  actions.forEach((action, index) => {
    const button = place.children[index] ?? place.appendChild(Object.assign(document.createElement("button"), { type: "button" }));
    if (button.dataset.action === action) return;
    button.dataset.action = action;
    button.textContent = LABELS[action];
    button.setAttribute("aria-label", `${LABELS[action]} ${shortName(id)}`);
  });
  while (place.children.length > actions.length) place.lastElementChild.remove();
}

/** What an audit found of a fuzzy answer: its verdict, what it is about, and the words of the answer where they may be shown. */
function judged(pair) {
  const about = [pair.kind, pair.language, pair.voice].filter(Boolean).join(", ");
  return `${pair.verdict}: ${about}${pair.text ? `, answered “${pair.text}”` : ""}`;
}

function showEntries({ rights, entries = [], fuzzy = [], pairs = [] }) {
  const may = rights?.actions ?? [];
  const allowed = (actions) => actions.filter((action) => may.includes(action));
  $("fuzzy-section").hidden = !rights;
  write($("fuzzy-note"), fuzzy.length ? "From something alike, by the name of the pair. A wrong one that is reported is never given again." : "None since the start.");
  write($("entries-note"), !rights ? "Entries are shown to those who may administer a tenant."
    : entries.length ? "Of the device tier, by the digest in their keys." : "None has been hit yet.");
  showRows($("entries"), entries, "entry-row", (entry, says, task, hits, saved, size, age) => {
    write(says, entry.text ? `“${entry.text}”` : "");
    write(task, [entry.task, entry.voice].filter(Boolean).join(", ") || "earlier engine");
    write(hits, number(entry.hits));
    hits.dataset.unit = entry.hits === 1 ? "hit" : "hits";
    write(saved, time(entry.saved_s));
    write(size, bytes(entry.bytes));
    write(age, time(entry.age_s));
  }, (entry) => allowed(["hear", entry.pinned ? "unpin" : "pin", "drop"]));
  showRows($("fuzzy"), fuzzy, "fuzzy-row", (answer, task, alike, age) => {
    write(task, `${answer.task}, from ${answer.tier}`);
    write(alike, percent(answer.similarity, 0));
    write(age, time(answer.age_s));
  }, () => allowed(["report"]));
  $("pairs-title").hidden = !pairs.length;
  showRows($("pairs"), pairs, "pair-row", (pair, says, alike, age) => {
    write(says, judged(pair));
    says.classList.toggle("bad", pair.verdict === "wrong");
    says.title = pair.answer_id;
    write(alike, pair.similarity ? percent(pair.similarity, 0) : "–");
    write(age, time(pair.age_s));
  }, (pair) => (pair.verdict === "wrong" ? [] : allowed(["report"])));
  if (!$("by-name-actions").children.length)
    for (const action of allowed(["hear", "pin", "unpin", "drop", "report"]))
      $("by-name-actions").append(Object.assign(document.createElement("button"), { textContent: LABELS[action], value: action }));
}

// ------------------------------------------------------------------------------------------------------- what is done

let token = sessionStorage.getItem("refrain-token") ?? "";
const credentials = () => (token ? { Authorization: `Bearer ${token}` } : {});
const say = (text) => write($("said"), text);

async function post(action, id) {
  const answer = await fetch(`status/${action}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...credentials() },
    body: JSON.stringify({ entry_id: id }),
  });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `the gateway answered ${answer.status}`);
  return answer;
}

let sounding = null;

async function hear(id) {
  sounding?.stop();
  const answer = await post("hear", id);
  if (answer.headers.get("Content-Type") === "application/json") return say(`“${(await answer.json()).text}”`);
  const context = new AudioContext();
  const source = new AudioBufferSourceNode(context, { buffer: await context.decodeAudioData(await answer.arrayBuffer()) });
  source.connect(context.destination);
  source.onended = () => {
    context.close();
    if (sounding === source) [sounding] = [null, say("")];
  };
  sounding = source;
  source.start();
  say(`Playing ${shortName(id)}, ${time(source.buffer.duration)}`);
}

const DONE = {
  drop: async (id, answer) => ((await answer.json()).dropped ? `Dropped ${shortName(id)}.` : `Nothing was stored as ${shortName(id)}.`),
  report: async (id, answer) => ((await answer.json()).quarantined ? "Reported: this pair is never matched again." : "This pair had been reported before."),
  pin: async (id) => `Pinned ${shortName(id)}: it stays in memory.`,
  unpin: async (id) => `Unpinned ${shortName(id)}.`,
};

async function act(action, id) {
  if (action === "drop" && !(await agreed("Drop this answer?", `${shortName(id)} goes from every tier. Whoever asks next has it computed again.`, "Drop"))) return;
  try {
    say("");
    if (action === "hear") return await hear(id);
    say(await DONE[action](id, await post(action, id)));
    refresh();
  } catch (error) {
    say(`${LABELS[action]}: ${error.message}`);
  }
}

/** A question with two answers; resolves to whether it was agreed to. Escape is no. */
function agreed(title, what, yes) {
  const dialog = $("sure");
  write($("sure-title"), title);
  write($("sure-what"), what);
  write($("sure-ok"), yes);
  return asked(dialog);
}

function asked(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true }));
}

for (const list of [$("entries"), $("fuzzy"), $("pairs")])
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) act(button.dataset.action, button.closest("li").dataset.id);
  });
$("by-name").addEventListener("submit", (event) => {
  event.preventDefault();
  act(event.submitter?.value || "hear", $("entry-id").value.trim());
});
// Not a submit button, or Enter in the field before it would press it.
$("rights-no").addEventListener("click", () => $("rights").close());
$("sign").addEventListener("click", async () => {
  if (token) token = "";
  else {
    $("token").value = "";
    if (!(await asked($("rights")))) return;
    say("");
    token = $("token").value.trim();
  }
  sessionStorage.setItem("refrain-token", token);
  refresh();
});

// ---------------------------------------------------------------------------------------------------------- the clock

function show(status) {
  delete document.body.dataset.lost;
  write($("about"), `version ${status.version}, serving for ${time(status.uptime_s)}`);
  write($("tenant"), status.rights ? `tenant ${status.rights.tenant}` : "");
  $("sign").hidden = Boolean(status.rights) && !token;
  write($("sign"), token ? "Sign out" : "Sign in");
  showTrouble(status);
  showNow(status);
  showOrigins(status);
  showTables(status);
  showEntries(status);
}

let lastHeard = performance.now();
let next = 0;

async function refresh() {
  clearTimeout(next);
  const begun = performance.now();
  try {
    const answer = await fetch("status.json", { headers: credentials(), signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.status === 401) {
      token = "";
      sessionStorage.removeItem("refrain-token");
      say("This token is not known.");
    } else if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
    else {
      show(await answer.json());
      lastHeard = performance.now();
    }
  } catch (error) {
    document.body.dataset.lost = "";
    write($("trouble"), `No answer from the gateway for ${time((performance.now() - lastHeard) / 1000)}: the figures are old. (${error.message})`);
    $("trouble").hidden = false;
  }
  clearTimeout(next);
  if (!document.hidden) next = setTimeout(refresh, Math.max(0, EVERY_MS - (performance.now() - begun)));
}

document.addEventListener("visibilitychange", () => document.hidden || refresh());
refresh();

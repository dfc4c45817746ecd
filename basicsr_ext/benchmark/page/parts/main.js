// Puts the parts together: choices, keys, and the address, which keeps what is looked at.

function setPair(a, b) {
  [state.a, state.b] = [a, b];
  [byId("a").value, byId("b").value] = [a, b];
  fillOrder();
  drawList();
  drawImage();
  keepAddress();
}

function setMode(mode) {
  state.mode = mode;
  document.querySelector(`input[name="mode"][value="${mode}"]`).checked = true;
  drawImage();
  keepAddress();
}

function fillOrder() {
  const name = (id) => sourceOf(id)?.label ?? "";
  const comparable = sourceOf(state.a)?.method && sourceOf(state.b)?.method;
  const pairs = [["name", "as in the data set"]];
  if (comparable) pairs.push(["a", `A better: ${name(state.a)}`], ["b", `B better: ${name(state.b)}`]);
  fill(byId("order"), pairs, byId("order").value);
}

/** A and B at first: the baseline, or the first method, and the last. */
function firstPair() {
  const seen = sources();
  const restored = seen.filter((source) => source.method);
  const last = restored.at(-1) ?? seen.at(-1);
  const first = restored.find((source) => source.method === records.protocol?.baseline) ?? restored[0];
  return [(first && first !== last ? first : seen[0])?.id ?? "", last?.id ?? ""];
}

function setDataset(name) {
  state.dataset = name;
  state.image = 0;
  const seen = sources();
  const pairs = seen.map((source) => [source.id, source.label]);
  fill(byId("a"), pairs);
  fill(byId("b"), pairs);
  const kept = [state.a, state.b].every((id) => seen.some((source) => source.id === id));
  if (!kept) [state.a, state.b] = firstPair();
  byId("dataset").value = name;
  drawTable();
  drawCharts();
  state.z = 1;
  setPair(state.a, state.b);
}

// ---- the address: data set, image, A, B and view, so that a link shows the same

function keepAddress() {
  const words = [state.dataset, image()?.name ?? "", state.a, state.b, state.mode].map(encodeURIComponent);
  try {
    history.replaceState(null, "", `#view/${words.join("/")}`);
  } catch {
    // some browsers refuse it for files on disk; nothing else depends on it
  }
}

function readAddress() {
  if (!location.hash.startsWith("#view/")) return null;
  try {
    const [set, name, a, b, mode] = location.hash.slice(6).split("/").map(decodeURIComponent);
    return datasets.has(set) ? { set, name, a, b, mode } : null;
  } catch {
    return null;
  }
}

function start() {
  const wish = readAddress();
  if (!records.datasets.length) {
    for (const id of ["images", "plots"]) byId(id).hidden = true;
    drawTable();
    return;
  }
  chooseAxes();
  const measured = imageMetrics().map((metric) => [metric.name, metricLabel(metric)]);
  fill(byId("order-metric"), measured);
  fill(byId("dataset"), records.datasets.map((one) => [one.name, one.name]));
  byId("dataset-choice").hidden = records.datasets.length < 2;
  setGain(5);
  setCut(50);
  if (wish) Object.assign(state, { a: wish.a, b: wish.b, mode: ["slider", "grid", "difference"].includes(wish.mode) ? wish.mode : "slider" });
  setDataset(wish?.set ?? records.datasets[0].name);
  document.querySelector(`input[name="mode"][value="${state.mode}"]`).checked = true;
  const index = wish ? dataset().images.findIndex((one) => one.name === wish.name) : 0;
  choose(Math.max(0, index));
}

function summarise() {
  const done = records.methods.filter((method) => method.status !== "failed").length;
  const images = records.datasets.reduce((sum, one) => sum + one.images.length, 0);
  const failed = records.methods.length - done;
  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  byId("summary").textContent = [count(done, "method") + (failed ? `, ${failed} failed` : ""), count(images, "image"),
    count(records.metrics.length, "metric")].join(" · ");
}

// ---- protocol

function definitions(value) {
  const list = make("dl");
  for (const [key, item] of Object.entries(value ?? {})) {
    const text = item !== null && typeof item === "object" ? JSON.stringify(item) : String(item);
    list.append(make("dt", {}, key.replaceAll("_", " ")), make("dd", {}, text));
  }
  return list;
}

function drawProtocol() {
  const blocks = [["Settings", records.protocol], ["Machine and versions", records.environment]];
  for (const metric of records.metrics) blocks.push([metricLabel(metric), metric.provenance]);
  const shown = blocks.filter(([, value]) => value && Object.keys(value).length);
  byId("protocol-body").replaceChildren(...shown.map(([title, value]) => make("details", {}, make("summary", {}, title), definitions(value))));
}

// ---- keys

function pick(number, left) {
  const source = sources()[number - 1];
  if (source) setPair(left ? source.id : state.a, left ? state.b : source.id);
}

const KEYS = {
  n: () => walk(1), p: () => walk(-1), x: () => setPair(state.b, state.a), f: () => setCut(state.cut > 50 ? 0 : 100),
  "[": () => setCut(state.cut - 5), "]": () => setCut(state.cut + 5),
  s: () => setMode("slider"), g: () => setMode("grid"), d: () => setMode("difference"),
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: showAll, "?": () => byId("keys").showModal(),
};

function onKey(event) {
  const typing = event.target.closest("input:not([type=radio]):not([type=checkbox]):not([type=range]), select, textarea, dialog");
  if (event.ctrlKey || event.altKey || event.metaKey || typing || !byId("keys-on").checked) return;
  const digit = /^Digit([1-9])$/.exec(event.code);
  if (digit) pick(Number(digit[1]), event.shiftKey);
  else if (Object.hasOwn(KEYS, event.key)) KEYS[event.key]();
  else return;
  event.preventDefault();
}

function onListKey(event) {
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  const list = [...byId("list").children];
  if (event.key in steps) walk(steps[event.key], true);
  else if (event.key === "Home") choose(Number(list[0].dataset.index), true);
  else if (event.key === "End") choose(Number(list.at(-1).dataset.index), true);
  else return;
  event.preventDefault();
}

const on = (id, event, action) => byId(id).addEventListener(event, action);
on("dataset", "change", (event) => setDataset(event.target.value));
for (const id of ["plane-x", "plane-y", "time-y"]) on(id, "change", drawCharts);
on("a", "change", (event) => setPair(event.target.value, state.b));
on("b", "change", (event) => setPair(state.a, event.target.value));
on("swap", "click", () => setPair(state.b, state.a));
for (const radio of document.querySelectorAll('input[name="mode"]')) radio.addEventListener("change", () => setMode(radio.value));
on("in", "click", () => zoomBy(1.5));
on("out", "click", () => zoomBy(1 / 1.5));
on("fit", "click", showAll);
on("cut", "input", (event) => setCut(Number(event.target.value)));
on("gain", "input", (event) => setGain(Number(event.target.value)));
on("previous", "click", () => walk(-1));
on("next", "click", () => walk(1));
on("order", "change", () => { drawList(); choose(Number(byId("list").firstElementChild.dataset.index)); });
on("order-metric", "change", () => { drawList(); drawImage(); });
on("list", "keydown", onListKey);
on("help", "click", () => byId("keys").showModal());
on("keys-close", "click", () => byId("keys").close());
document.addEventListener("keydown", onKey);
let resized;
window.addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(drawCharts, 150);
});

summarise();
drawProtocol();
start();

// Small helpers, and the records with what the other parts ask of them. All text enters by textContent.

const byId = (id) => document.getElementById(id);
const records = JSON.parse(byId("records").textContent);

/** An element with properties (attributes for names with a dash, and `class`), and children: elements or texts. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, action] of Object.entries(value)) element.addEventListener(event, action);
    else if (name === "vars") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The same for SVG. */
function draw(tag, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "vars") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Fill a <select> with [value, label] pairs. */
function fill(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, label]) => make("option", { value }, label)));
  if (chosen !== undefined && pairs.some(([value]) => value === chosen)) select.value = chosen;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const methods = new Map(records.methods.map((method) => [method.name, method]));
const metrics = new Map(records.metrics.map((metric) => [metric.name, metric]));
const datasets = new Map(records.datasets.map((dataset) => [dataset.name, dataset]));
const results = new Map();
for (const result of records.results) {
  if (!results.has(result.dataset)) results.set(result.dataset, new Map());
  result.byImage = new Map(result.images.map((row) => [row.image, row]));
  results.get(result.dataset).set(result.method, result);
}

const labelOf = (method) => method.label || method.name;
const metricLabel = (metric) => metric.label || metric.name;

/** A number for reading; `digits` behind the point. */
const show = (value, digits = 3) => (isNumber(value) ? value.toFixed(digits) : "–");

/** A big number with its thousands as k, M, G, T. */
function big(value) {
  if (!isNumber(value)) return "–";
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size) return `${(value / size).toPrecision(3)} ${letter}`;
  }
  return String(Math.round(value));
}

/** Seconds or another small positive number at three significant digits. */
const short = (value) => (isNumber(value) ? String(Number(value.toPrecision(3))) : "–");

/** What the page shows now. `a` and `b` are names of sources (see sources()); `x`, `y` the corner seen, in [0, 1]. */
const state = { dataset: records.datasets[0]?.name, image: 0, a: "", b: "", mode: "slider", cut: 50, gain: 5, z: 1, x: 0, y: 0 };

const dataset = () => datasets.get(state.dataset);
const image = () => dataset()?.images[state.image];
const resultOf = (name) => results.get(state.dataset)?.get(name);
const summaryOf = (name, metric) => resultOf(name)?.summary?.[metric] ?? null;

/** Value of a metric on one image, null where it has none. */
function valueOf(name, metric, imageName) {
  const value = resultOf(name)?.byImage.get(imageName)?.[metric];
  return isNumber(value) ? value : null;
}

/** Groups share a colour: the members of one NFE curve, or a method alone. */
const groups = [...new Set(records.methods.map((method) => method.group ?? method.name))];
const colourOf = (method) => `var(--c${groups.indexOf(method.group ?? method.name) % 8})`;

/** Everything that can be looked at in the chosen data set: id "input", "m:<method>" or "original", label, file. */
function sources() {
  const found = [];
  const one = image();
  if (!one) return found;
  if (one.lq) found.push({ id: "input", label: "input", low: true, file: (picture) => picture.lq });
  for (const method of records.methods) {
    const result = resultOf(method.name);
    if (!result || !result.images.some((row) => row.file)) continue;
    const file = (picture) => result.byImage.get(picture.name)?.file;
    found.push({ id: `m:${method.name}`, label: labelOf(method), method: method.name, file });
  }
  if (one.gt) found.push({ id: "original", label: "original", file: (picture) => picture.gt });
  return found;
}

const sourceOf = (id) => sources().find((source) => source.id === id);

/** Metrics that have a value for every image. */
const imageMetrics = () => records.metrics.filter((metric) => !metric.set_level);

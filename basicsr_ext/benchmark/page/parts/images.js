// The list of images in the wanted order, and everything about the chosen one.

/** Metric by which images are ordered and named in tags. */
const orderMetric = () => metrics.get(byId("order-metric").value);

function tagText(source, shown) {
  const metric = orderMetric();
  const value = metric && source.method ? valueOf(source.method, metric.name, shown.name) : null;
  return value === null ? source.label : `${source.label} · ${metricLabel(metric)} ${show(value, metric.digits)}`;
}

/** By how much A is better than B on an image (positive: A); null where one of them has no value. */
function advantage(name) {
  const metric = orderMetric();
  const [a, b] = [sourceOf(state.a), sourceOf(state.b)];
  if (!metric || !a?.method || !b?.method) return null;
  const [p, q] = [valueOf(a.method, metric.name, name), valueOf(b.method, metric.name, name)];
  if (p === null || q === null) return null;
  return metric.higher_is_better ? p - q : q - p;
}

/** Indices of the images in the chosen order; those without a value come last. */
function ordered() {
  const order = dataset().images.map((_, k) => k);
  const wish = byId("order").value;
  if (wish === "name") return order;
  const gains = dataset().images.map((one) => advantage(one.name));
  const sign = wish === "a" ? -1 : 1;
  return order.sort((p, q) => (gains[p] === null || gains[q] === null ? (gains[p] === null) - (gains[q] === null) : sign * (gains[p] - gains[q])));
}

function signed(value, digits) {
  return `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(value).toFixed(digits)}`;
}

function option(index) {
  const one = dataset().images[index];
  const gain = advantage(one.name);
  const metric = orderMetric();
  const small = gain === null ? null : make("small", { title: "advantage of A over B" }, `${metricLabel(metric)} ${signed(metric.higher_is_better ? gain : -gain, metric.digits)}`);
  const chosen = index === state.image;
  return make("div", {
    class: "option", role: "option", id: `image-${index}`, "data-index": index, tabindex: chosen ? 0 : -1, "aria-selected": String(chosen),
    on: { click: () => choose(index) },
  }, one.thumb ? make("img", { src: one.thumb, alt: "", loading: "lazy", decoding: "async", width: 64, height: 64 }) : make("span"),
  make("span", {}, one.name, small));
}

function drawList() {
  if (dataset()) byId("list").replaceChildren(...ordered().map(option));
}

function choose(index, focus = false) {
  for (const one of byId("list").children) {
    const chosen = Number(one.dataset.index) === index;
    one.tabIndex = chosen ? 0 : -1;
    one.setAttribute("aria-selected", String(chosen));
    if (chosen && focus) one.focus();
    if (chosen) reveal(one);
  }
  state.image = index;
  drawImage();
}

/** Scroll the list, not the page, until the option is seen. */
function reveal(one) {
  const list = byId("list");
  const [box, inside] = [list.getBoundingClientRect(), one.getBoundingClientRect()];
  if (inside.top < box.top) list.scrollTop -= box.top - inside.top;
  if (inside.bottom > box.bottom) list.scrollTop += inside.bottom - box.bottom;
  if (inside.left < box.left) list.scrollLeft -= box.left - inside.left;
  if (inside.right > box.right) list.scrollLeft += inside.right - box.right;
}

/** The image before (-1) or after (1) the chosen one in the order shown. */
function walk(step, focus = false) {
  const order = [...byId("list").children].map((one) => Number(one.dataset.index));
  const at = order.indexOf(state.image) + step;
  if (at >= 0 && at < order.length) choose(order[at], focus);
}

function drawGrid(shown) {
  const grid = byId("grid");
  if (state.mode !== "grid") {
    grid.replaceChildren();
    return;
  }
  const metric = orderMetric();
  grid.replaceChildren(...sources().filter((source) => source.file(shown)).map((source) => {
    const value = source.method && metric ? valueOf(source.method, metric.name, shown.name) : null;
    const said = value === null ? null : make("span", { class: "value" }, `${metricLabel(metric)} ${show(value, metric.digits)}`);
    const view = viewOf(shown, `${shown.name}, ${source.label}; arrow keys move the view`, picture(source, shown));
    return make("div", { class: "tile", "data-source": source.id }, view, make("p", {}, make("span", {}, source.label), said));
  }));
}

function inset(shown, crop, source) {
  const [left, top, side] = crop;
  const percent = (value) => `${100 * value}%`;
  const vars = { "--iw": percent(shown.width / side), "--ih": percent(shown.height / side), "--il": percent(-left / side), "--it": percent(-top / side) };
  const hole = make("span", { class: "hole" }, make("img", { src: source.file(shown), alt: "", loading: "lazy", decoding: "async", vars }));
  return make("button", { type: "button", class: "inset", "aria-label": `${source.label}: zoom in here`, on: { click: () => {
    if (source.id !== state.a && source.id !== state.b) setPair(state.a, source.id);
    zoomTo(crop);
    byId(state.mode === "grid" ? "grid" : "stage").scrollIntoView({ block: "nearest" });
  } } }, hole, make("span", { class: "word" }, source.label));
}

function drawInsets(shown) {
  const place = byId("insets");
  place.replaceChildren();
  if (!shown.crops?.length) return;
  place.append(make("h4", {}, "Where the methods differ most"));
  const seen = sources().filter((source) => source.file(shown));
  shown.crops.forEach((crop, k) => {
    place.append(make("div", { class: "crops", role: "group", "aria-label": `Place ${k + 1}` }, ...seen.map((source) => inset(shown, crop, source))));
  });
}

function drawExtras(shown) {
  const place = byId("extras");
  place.replaceChildren();
  const rows = records.methods.map((method) => [method, resultOf(method.name)?.byImage.get(shown.name)]).filter(([, row]) => row);
  const maps = rows.filter(([, row]) => row.deviation);
  if (maps.length) {
    place.append(make("h4", {}, "Uncertainty: standard deviation of the draws"));
    place.append(make("div", { class: "maps" }, ...maps.map(([method, row]) => {
      const source = { label: `uncertainty of ${labelOf(method)}`, file: () => row.deviation };
      return make("div", { class: "tile" }, viewOf(shown, `${source.label}; arrow keys move the view`, picture(source, shown, true)), make("p", {}, labelOf(method)));
    })));
  }
  for (const [method, row] of rows.filter(([, one]) => one.trajectory)) {
    place.append(make("h4", {}, `From input to restoration: ${labelOf(method)}`));
    const strip = make("img", { src: row.trajectory, alt: `steps of ${labelOf(method)} on ${shown.name}, first to last`, loading: "lazy" });
    place.append(make("div", { class: "strip", tabindex: 0, role: "region", "aria-label": `Steps of ${labelOf(method)}` }, strip));
  }
}

function drawImage() {
  const shown = image();
  const [a, b] = [sourceOf(state.a), sourceOf(state.b)];
  byId("viewer").hidden = !shown;
  if (!shown) return;
  byId("image-name").textContent = shown.name;
  const order = [...byId("list").children].map((one) => Number(one.dataset.index));
  byId("previous").disabled = order[0] === state.image;
  byId("next").disabled = order.at(-1) === state.image;
  const pair = state.mode !== "grid" && a?.file(shown) && b?.file(shown);
  byId("stage-place").hidden = !pair;
  if (pair) drawStage(shown, a, b);
  else byId("stage-place").replaceChildren();
  byId("grid").hidden = state.mode !== "grid";
  byId("viewer").classList.toggle("difference", state.mode === "difference");
  byId("cut-label").hidden = !(pair && state.mode === "slider");
  byId("gain-label").hidden = !(pair && state.mode === "difference");
  drawGrid(shown);
  drawInsets(shown);
  drawExtras(shown);
  applyView();
}

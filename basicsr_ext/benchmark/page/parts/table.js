// The table of scores: sortable, the two best of each metric marked, failed methods with their reason.

const sorting = { column: null, descending: false };

function tableColumns() {
  const used = (key) => records.methods.some((method) => isNumber(method[key]));
  const columns = [{ key: "method", title: "Method", text: true, value: (method) => labelOf(method) }];
  if (used("nfe")) columns.push({ key: "nfe", title: "NFE", value: (method) => method.nfe, shown: (value) => value ?? "–" });
  for (const metric of records.metrics) {
    const arrow = metric.higher_is_better ? "↑" : "↓";
    columns.push({ key: `metric:${metric.name}`, metric, title: `${metricLabel(metric)} ${arrow}`, unit: metric.unit,
      descending: metric.higher_is_better, value: (method) => summaryOf(method.name, metric.name)?.value });
  }
  const costs = [
    ["seconds_per_image", "Seconds", "per image", short], ["parameters", "Parameters", "", big],
    ["flops", "FLOPs", "per image", big], ["peak_memory_mib", "Memory", "MiB", (value) => show(value, 0)],
  ];
  for (const [key, title, unit, shown] of costs) {
    if (used(key)) columns.push({ key, title, unit, shown, value: (method) => method[key] });
  }
  return columns;
}

/** The names of the best and the second best method by a metric. */
function ranking(metric) {
  const known = records.methods.filter((method) => isNumber(summaryOf(method.name, metric.name)?.value));
  const value = (method) => summaryOf(method.name, metric.name).value;
  known.sort((one, two) => (metric.higher_is_better ? value(two) - value(one) : value(one) - value(two)));
  return known.slice(0, 2).map((method) => method.name);
}

function sortedMethods(columns) {
  const column = columns.find((one) => one.key === sorting.column);
  const list = [...records.methods];
  if (!column) return list;
  const sign = sorting.descending ? -1 : 1;
  const missing = (value) => value === null || value === undefined || value === "";
  const failed = (method) => method.status === "failed";
  return list.sort((one, two) => {
    if (failed(one) || failed(two)) return failed(one) - failed(two);
    const [p, q] = [column.value(one), column.value(two)];
    if (missing(p) || missing(q)) return missing(p) - missing(q);
    return sign * (column.text ? String(p).localeCompare(String(q)) : p - q);
  });
}

function sortBy(column) {
  const same = sorting.column === column.key;
  sorting.descending = same ? !sorting.descending : Boolean(column.descending);
  sorting.column = column.key;
  drawTable();
  byId("table").querySelector(`button[data-key="${CSS.escape(column.key)}"]`).focus();
}

function headCell(column) {
  const active = sorting.column === column.key;
  const direction = active ? (sorting.descending ? "descending" : "ascending") : null;
  const sign = active ? (sorting.descending ? " ▾" : " ▴") : "";
  const unit = column.unit ? make("span", { class: "unit" }, ` ${column.unit}`) : null;
  const button = make("button", { type: "button", "data-key": column.key, on: { click: () => sortBy(column) } }, column.title, unit, sign);
  return make("th", { scope: "col", "aria-sort": direction }, button);
}

function scoreCell(method, column, ranks) {
  const { metric } = column;
  const summary = summaryOf(method.name, metric.name);
  if (!summary || !isNumber(summary.value)) return make("td", { title: resultOf(method.name)?.refused?.[metric.name] }, "–");
  const text = show(summary.value, metric.digits);
  const rank = ranks.get(metric.name).indexOf(method.name);
  const parts = [rank === 0 ? make("b", {}, text) : rank === 1 ? make("u", {}, text) : text];
  const test = (records.significance ?? []).find(
    (one) => one.dataset === state.dataset && one.metric === metric.name && one.method === method.name);
  if (test && isNumber(test.p) && test.p < 0.05) {
    parts.push(make("span", { title: `differs from ${test.baseline} by ${show(test.difference, metric.digits)}, p = ${short(test.p)}` }, "*"));
  }
  if (isNumber(summary.low) && isNumber(summary.high)) {
    parts.push(make("small", {}, `${show(summary.low, metric.digits)} – ${show(summary.high, metric.digits)}`));
  }
  return make("td", {}, ...parts);
}

function tableRow(method, columns, ranks) {
  const swatch = make("span", { class: "swatch", vars: { "--colour": colourOf(method) } });
  const head = make("th", { scope: "row" }, swatch, labelOf(method));
  if (method.status === "failed" && !resultOf(method.name)) {
    return make("tr", {}, head, make("td", { class: "reason", colspan: columns.length - 1 }, `failed: ${method.reason ?? "no reason kept"}`));
  }
  const cells = columns.slice(1).map((column) =>
    column.metric ? scoreCell(method, column, ranks) : make("td", {}, String(column.shown(column.value(method)))));
  return make("tr", {}, head, ...cells);
}

function drawTable() {
  const columns = tableColumns();
  const ranks = new Map(records.metrics.map((metric) => [metric.name, ranking(metric)]));
  const rows = sortedMethods(columns).map((method) => tableRow(method, columns, ranks));
  byId("table").replaceChildren(
    make("caption", { class: "sr" }, `Scores on ${state.dataset}`),
    make("thead", {}, make("tr", {}, ...columns.map(headCell))),
    make("tbody", {}, ...rows));
  const starred = (one) => one.dataset === state.dataset && isNumber(one.p) && one.p < 0.05;
  const baseline = (records.significance ?? []).find(starred)?.baseline;
  const label = baseline && labelOf(methods.get(baseline) ?? { name: baseline });
  byId("baseline-hint").textContent = label ? ` * differs from ${label} (paired test, p < 0.05).` : "";
}

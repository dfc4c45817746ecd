// Two plots in SVG: perception against distortion, and quality against seconds, with a line along each NFE curve.

const PLOT = { width: 560, height: 360, left: 58, right: 18, top: 16, bottom: 48 };

/** Round values that cover [low, high], about `count` of them. */
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) found.push(Number((k * step).toPrecision(10)));
  return found;
}

/** Powers of ten in [low, high], with 2 and 5 where there are few. */
function logTicks(low, high) {
  const found = [];
  const factors = high / low > 3e3 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const factor of factors) found.push(factor * 10 ** power);
  }
  return found.filter((value) => value >= low && value <= high);
}

/** A scale from values to pixels, with its ticks. */
function scaleOf(values, from, to, log) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (log) [low, high] = [Math.log10(low), Math.log10(high)];
  const room = (high - low || Math.abs(high) * 0.1 || 1) * 0.14;
  [low, high] = [low - room, high + room];
  const place = (value) => from + (((log ? Math.log10(value) : value) - low) / (high - low)) * (to - from);
  return { place, ticks: log ? logTicks(10 ** low, 10 ** high) : ticks(low, high, 5) };
}

function axis(svg, scale, text, horizontal) {
  const { width, height, left, right, top, bottom } = PLOT;
  const lines = draw("g", { class: "axis", "aria-hidden": "true" });
  for (const value of scale.ticks) {
    const at = scale.place(value);
    const label = String(Number(value.toPrecision(6)));
    if (horizontal) {
      lines.append(draw("line", { x1: at, x2: at, y1: top, y2: height - bottom }));
      lines.append(draw("text", { x: at, y: height - bottom + 18, "text-anchor": "middle" }, label));
    } else {
      lines.append(draw("line", { x1: left, x2: width - right, y1: at, y2: at }));
      lines.append(draw("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, label));
    }
  }
  const place = horizontal
    ? { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }
    : { x: 14, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(top + height - bottom) / 2})` };
  lines.append(draw("text", place, text));
  svg.append(lines);
}

/** The name of a metric with an arrow to its better side (the vertical text reads upwards). */
function axisText(metric) {
  const name = metricLabel(metric) + (metric.unit ? ` (${metric.unit})` : "");
  return metric.higher_is_better ? `${name} →` : `← ${name}`;
}

/** Boxes for labels beside points, moved until they do not overlap. */
function placeLabels(points) {
  const taken = points.map((point) => ({ x: point.px - 7, y: point.py - 7, w: 14, h: 14 }));
  const free = (box) => box.x > PLOT.left && box.x + box.w < PLOT.width - 4 && box.y > 2 && box.y + box.h < PLOT.height - PLOT.bottom
    && !taken.some((other) => box.x < other.x + other.w && other.x < box.x + box.w && box.y < other.y + other.h && other.y < box.y + box.h);
  for (const point of points) {
    const w = 6 + point.name.length * 7.8;
    const spots = [[10, -8], [-w - 10, -8], [-w / 2, -25], [-w / 2, 11], [10, 8], [10, -24], [-w - 10, 8], [-w - 10, -24], [10, 24], [10, -40], [-w / 2, 27], [-w / 2, -41]];
    const boxes = spots.map(([dx, dy]) => ({ x: point.px + dx, y: point.py + dy, w, h: 16 }));
    const box = boxes.find(free) ?? boxes[point.px + w + 12 > PLOT.width ? 1 : 0];
    taken.push(box);
    point.label = box;
  }
}

/** Points of all methods that have both values. */
function pointsOf(xOf, yOf) {
  const found = [];
  for (const method of records.methods) {
    const [x, y] = [xOf(method), yOf(method)];
    if (isNumber(x?.value) && isNumber(y?.value)) found.push({ method, x, y });
  }
  return found;
}

function drawPlot(svg, points, xText, yText, log, describe) {
  PLOT.width = Math.min(720, Math.max(300, svg.clientWidth || 560));
  PLOT.height = Math.round(Math.min(380, Math.max(290, PLOT.width * 0.62)));
  const { width, height, left, right, top, bottom } = PLOT;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (!points.length) {
    svg.append(draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "No method has both values."));
    return;
  }
  const ends = (value) => [value.value, value.low, value.high].filter(isNumber);
  const xs = scaleOf(points.flatMap((point) => ends(point.x)), left, width - right, log);
  const ys = scaleOf(points.flatMap((point) => ends(point.y)), height - bottom, top, false);
  axis(svg, xs, xText, true);
  axis(svg, ys, yText, false);
  for (const point of points) [point.px, point.py] = [xs.place(point.x.value), ys.place(point.y.value)];
  drawCurves(svg, points);
  for (const point of points) {
    const isCurve = points.filter((other) => point.method.group && other.method.group === point.method.group).length > 1;
    point.name = isCurve && isNumber(along(point.method)) && !pointIsLast(point, points) ? String(along(point.method)) : labelOf(point.method);
    if (point.name.length > 28) point.name = `${point.name.slice(0, 27)}…`;
  }
  placeLabels(points);
  for (const point of points) drawPoint(svg, point, xs, ys, describe(point));
}

/** Where a method lies on its curve: the value of the flag that the curve is over, such as its evaluations. */
const along = (method) => method.along ?? method.nfe;

/** Whether a point is the last of its curve; it carries the name, the others their place on it. */
function pointIsLast(point, points) {
  const peers = points.filter((other) => other.method.group === point.method.group);
  return peers.every((other) => (along(other.method) ?? 0) <= (along(point.method) ?? 0));
}

function drawCurves(svg, points) {
  for (const group of new Set(points.map((point) => point.method.group).filter(Boolean))) {
    const members = points.filter((point) => point.method.group === group).sort((p, q) => (along(p.method) ?? 0) - (along(q.method) ?? 0));
    if (members.length < 2) continue;
    const d = members.map((point, k) => `${k ? "L" : "M"}${point.px.toFixed(1)} ${point.py.toFixed(1)}`).join("");
    svg.append(draw("path", { class: "curve", d, "data-group": group, vars: { "--colour": colourOf(members[0].method) } }));
  }
}

function drawPoint(svg, point, xs, ys, text) {
  const group = draw("g", { class: "point", tabindex: 0, role: "img", "aria-label": text, vars: { "--colour": colourOf(point.method) } });
  const range = (value, scale, at, horizontal) => {
    if (!isNumber(value.low) || !isNumber(value.high)) return;
    const [p, q] = [scale.place(value.low), scale.place(value.high)];
    group.append(draw("line", horizontal ? { class: "range", x1: p, x2: q, y1: at, y2: at } : { class: "range", x1: at, x2: at, y1: p, y2: q }));
  };
  range(point.x, xs, point.py, true);
  range(point.y, ys, point.px, false);
  group.append(draw("title", {}, text));
  group.append(draw("circle", { class: "dot", cx: point.px, cy: point.py, r: 6 }));
  const middle = point.label.x + point.label.w / 2;
  const anchor = middle > point.px + 6 ? "start" : middle < point.px - 6 ? "end" : "middle"; // text grows away from its dot
  const x = { start: point.label.x + 2, end: point.label.x + point.label.w - 2, middle }[anchor];
  group.append(draw("text", { class: "name", x, y: point.label.y + 12, "text-anchor": anchor, "aria-hidden": "true" }, point.name));
  svg.append(group);
}

function chooseAxes() {
  const names = records.metrics.map((metric) => metric.name);
  const find = (wanted) => wanted.map((word) => names.find((name) => name.toLowerCase().includes(word))).find(Boolean);
  const distortion = find(["psnr", "ssim"]) ?? names[0];
  const perception = find(["lpips", "dists", "patch_fid", "patch-fid", "fid", "kid", "niqe"]) ?? names.find((name) => name !== distortion) ?? names[0];
  const pairs = records.metrics.map((metric) => [metric.name, metricLabel(metric)]);
  fill(byId("plane-x"), pairs, distortion);
  fill(byId("plane-y"), pairs, perception);
  fill(byId("time-y"), pairs, perception);
}

function drawCharts() {
  if (!records.metrics.length) {
    byId("plots").hidden = true;
    return;
  }
  const [x, y, quality] = ["plane-x", "plane-y", "time-y"].map((id) => metrics.get(byId(id).value));
  const say = (metric, value) => `${metricLabel(metric)} ${show(value.value, metric.digits)}${metric.unit ? ` ${metric.unit}` : ""}`;
  const score = (metric) => (method) => summaryOf(method.name, metric.name);
  const seconds = (method) => (method.seconds_per_image > 0 ? { value: method.seconds_per_image } : null);
  drawPlot(byId("plane"), pointsOf(score(x), score(y)), axisText(x), axisText(y), false,
    (point) => `${labelOf(point.method)}: ${say(x, point.x)}, ${say(y, point.y)}`);
  drawPlot(byId("time"), pointsOf(seconds, score(quality)), "← seconds per image", axisText(quality), true,
    (point) => `${labelOf(point.method)}: ${short(point.x.value)} seconds per image, ${say(quality, point.y)}`);
}

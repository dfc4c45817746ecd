// Pictures that share one zoom and one place. The stage shows two of them behind a divider, or their difference;
// tiles show all. Zoom and place are CSS variables on #viewer, so that every picture moves in the same frame.

const MAX_ZOOM = 32;

function clampView() {
  state.z = Math.min(MAX_ZOOM, Math.max(1, state.z));
  const end = 1 - 1 / state.z;
  state.x = Math.min(end, Math.max(0, state.x));
  state.y = Math.min(end, Math.max(0, state.y));
}

function applyView() {
  clampView();
  const viewer = byId("viewer");
  for (const name of ["x", "y", "z"]) viewer.style.setProperty(`--${name}`, String(state[name]));
  viewer.classList.toggle("zoomed", state.z > 1);
  viewer.classList.toggle("crisp", state.z >= 2);
  byId("zoom").textContent = `${Number(state.z.toPrecision(2))}×`;
  byId("out").disabled = byId("fit").disabled = state.z <= 1;
  byId("in").disabled = state.z >= MAX_ZOOM;
}

/** Zoom by a factor, keeping the point at (px, py), fractions of a picture's frame, where it is. */
function zoomBy(factor, px = 0.5, py = 0.5) {
  const before = state.z;
  const after = Math.min(MAX_ZOOM, Math.max(1, before * factor));
  state.x += px / before - px / after;
  state.y += py / before - py / after;
  state.z = after;
  applyView();
}

/** Move by fractions of the frame. */
function panBy(dx, dy) {
  state.x += dx / state.z;
  state.y += dy / state.z;
  applyView();
}

function showAll() {
  state.z = 1;
  applyView();
}

/** Bring a square of the image (pixels) into view, with some room around it. */
function zoomTo([left, top, side]) {
  const { width, height } = image();
  state.z = Math.max(1, Math.min(width, height) / (side * 1.5));
  state.x = (left + side / 2) / width - 0.5 / state.z;
  state.y = (top + side / 2) / height - 0.5 / state.z;
  applyView();
}

function setCut(percent) {
  state.cut = Math.min(100, Math.max(0, percent));
  byId("viewer").style.setProperty("--cut", `${state.cut}%`);
  if (Number(byId("cut").value) !== state.cut) byId("cut").value = String(state.cut);
}

/** Difference, amplified, to luminance; the filter then colours it. */
function setGain(gain) {
  state.gain = gain;
  const row = `${[0.2126, 0.7152, 0.0722].map((part) => (part * gain).toFixed(4)).join(" ")} 0 0`;
  byId("heat-gain").setAttribute("values", `${row} ${row} ${row} 0 0 0 0 1`);
  byId("gain-value").textContent = `${gain}×`;
}

const fingers = new Map();

function frame(view, event) {
  const box = view.getBoundingClientRect();
  return { px: (event.clientX - box.left) / box.width, py: (event.clientY - box.top) / box.height, box };
}

/** Wheel, drag, pinch and arrows on a picture. */
function listen(view) {
  view.addEventListener("wheel", (event) => {
    if (!(event.ctrlKey || event.metaKey || document.activeElement === view)) return;
    event.preventDefault();
    const { px, py } = frame(view, event);
    zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0025)), px, py);
  }, { passive: false });
  view.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    fingers.set(event.pointerId, event);
    view.setPointerCapture(event.pointerId);
    view.dataset.drag = event.target.classList.contains("divider") || (state.z === 1 && view.id === "stage") ? "cut" : "pan";
    if (view.dataset.drag === "cut" && fingers.size === 1 && state.mode === "slider") setCut(frame(view, event).px * 100);
  });
  view.addEventListener("pointermove", (event) => {
    if (fingers.has(event.pointerId)) drag(view, event);
  });
  const release = (event) => fingers.delete(event.pointerId);
  view.addEventListener("pointerup", release);
  view.addEventListener("pointercancel", release);
  view.addEventListener("dblclick", (event) => {
    const { px, py } = frame(view, event);
    if (state.z > 1) showAll();
    else zoomBy(4, px, py);
  });
  view.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    panBy(...step);
  });
}

function drag(view, event) {
  const before = fingers.get(event.pointerId);
  fingers.set(event.pointerId, event);
  const { px, py, box } = frame(view, event);
  if (fingers.size === 2) {
    const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    const middle = frame(view, { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 });
    zoomBy(apart(event) / apart(before), middle.px, middle.py);
    panBy((before.clientX - event.clientX) / 2 / box.width, (before.clientY - event.clientY) / 2 / box.height);
  } else if (view.dataset.drag === "cut" && state.mode === "slider") {
    setCut(px * 100);
  } else {
    panBy((before.clientX - event.clientX) / box.width, (before.clientY - event.clientY) / box.height);
  }
}

const picture = (source, shown, lazy) => make("img", {
  src: source.file(shown), alt: `${shown.name}, ${source.label}`, class: source.low ? "low" : null,
  loading: lazy ? "lazy" : null, decoding: "async", draggable: "false",
});

/** A frame of the image's shape. */
function viewOf(shown, name, ...children) {
  const view = make("div", { class: "view", tabindex: 0, role: "group", "aria-label": name, vars: { "--w": shown.width, "--h": shown.height } }, ...children);
  listen(view);
  return view;
}

/** The two chosen pictures: behind a divider, or one subtracted from the other. */
function drawStage(shown, a, b) {
  const hasFocus = document.activeElement?.id === "stage";
  let children;
  if (state.mode === "difference") {
    const pair = make("div", { class: "layer pair-difference" }, picture(a, shown), picture(b, shown));
    children = [pair, make("span", { class: "tag left" }, `|A − B|: ${a.label}, ${b.label}`)];
  } else {
    children = [
      make("div", { class: "layer" }, picture(a, shown)),
      make("div", { class: "layer over" }, picture(b, shown)),
      make("span", { class: "tag left" }, tagText(a, shown)),
      make("span", { class: "tag right" }, tagText(b, shown)),
      make("div", { class: "divider" }),
    ];
  }
  const stage = viewOf(shown, `${shown.name}: ${a.label} and ${b.label}; arrow keys move the view`, ...children);
  stage.id = "stage";
  byId("stage-place").replaceChildren(stage);
  if (hasFocus) stage.focus();
}

// Draw maps of cells.

function hatch(context, width, height) {
  context.fillStyle = scheme() === about.colours.dark ? "#23282d" : "#f2f3f4";
  context.fillRect(0, 0, width, height);
  context.strokeStyle = scheme() === about.colours.dark ? "#3c444b" : "#d0d5da";
  context.lineWidth = devicePixelRatio;
  context.beginPath();
  for (let x = -height; x < width; x += 6 * devicePixelRatio) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
}

/**
 * Return a map of cells.
 * title, note: texts above it. rows, columns: number of each. value(row, column): from 0 to 1, or -1 for no data.
 * describe(row, column): description of a cell. height: in CSS pixels. names, ticks: [{at: 0 to 1, text}] to the left
 * and below.
 */
function heatmap({ title, note, rows, columns, value, describe, height, names, ticks, wide, edge }) {
  const canvas = element("canvas", { tabIndex: 0, role: "img" });
  const readout = element("output", { className: "readout" });
  canvas.setAttribute("aria-label", `${title}. ${note}. Move between cells with the arrow keys.`);
  canvas.style.height = `${height}px`;
  let cursor = null;

  function draw() {
    const context = sized(canvas);
    const edges = (count, size) => Array.from({ length: count + 1 }, (_, n) => Math.round((n * size) / count));
    const [xs, ys] = [edges(columns, canvas.width), edges(rows, canvas.height)];
    hatch(context, canvas.width, canvas.height);
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        const here = value(row, column);
        if (here < 0) continue;
        context.fillStyle = colour(here);
        const [x, y] = [xs[column], ys[row]];
        context.fillRect(x, y, Math.max(1, xs[column + 1] - x), Math.max(1, ys[row + 1] - y));
      }
    }
    if (!cursor) return;
    const [row, column] = cursor;
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeStyle = getComputedStyle(canvas).color;
    context.strokeRect(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row]);
  }

  function show(next) {
    cursor = next;
    readout.textContent = next ? describe(...next) : "";
    draw();
  }

  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    if (row >= 0 && row < rows && column >= 0 && column < columns) show([row, column]);
  });
  canvas.addEventListener("pointerleave", () => show(null));
  canvas.addEventListener("blur", () => show(null));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const kept = (number, count) => Math.min(count - 1, Math.max(0, number));
    show(cursor ? [kept(cursor[0] + step[0], rows), kept(cursor[1] + step[1], columns)] : [0, 0]);
  });
  drawings.add(draw);

  const list = element("ul", { className: `names${wide ? " wide" : ""}${edge ? " edge" : ""}` });
  list.setAttribute("aria-hidden", "true");
  for (const { at: where, text } of names) {
    const item = element("li", { title: text }, text);
    item.style.top = `${100 * where}%`;
    list.append(item);
  }
  const below = element("div", { className: "ticks" });
  below.setAttribute("aria-hidden", "true");
  for (const { at: where, text } of ticks) {
    const tick = element("span", {}, text);
    if (where > 0.85) {
      tick.style.right = `${100 * (1 - where)}%`;
    } else {
      tick.style.left = `${100 * where}%`;
      if (where > 0.05) tick.style.transform = "translateX(-50%)";
    }
    below.append(tick);
  }
  return element(
    "figure",
    { className: "map" },
    element("figcaption", {}, element("h3", {}, title), element("span", { className: "small quiet" }, note)),
    element("div", { className: "plot" }, list, canvas, below),
    readout,
  );
}

function legend(low, high, without) {
  const ramp = element("canvas");
  const nothing = element("canvas", { className: "hatch" });
  drawings.add(() => {
    const context = sized(ramp);
    for (let x = 0; x < ramp.width; x += 1) {
      context.fillStyle = colour(x / (ramp.width - 1));
      context.fillRect(x, 0, 1, ramp.height);
    }
    if (without) hatch(sized(nothing), nothing.width, nothing.height);
  });
  const parts = [element("span", {}, low, ramp, high)];
  if (without) parts.push(element("span", {}, nothing, without));
  return element("p", { className: "legend" }, ...parts);
}

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** Return ticks at round times of a stretch that begins at 0, as many as fit. */
function timeTicks(seconds, most) {
  const step = STEPS_S.find((each) => seconds / each <= most) ?? Math.ceil(seconds / most / 86400) * 86400;
  const count = Math.floor(seconds / step) + 1;
  return Array.from({ length: count }, (_, n) => ({ at: (n * step) / seconds, text: place(n * step) }));
}

/** Return some of many names, evenly spread, as many as fit. */
function ticksOf(texts, most, atEdges = true) {
  const step = Math.max(1, Math.ceil(texts.length / most));
  const ticks = [];
  for (let n = 0; n < texts.length; n += step) {
    ticks.push({ at: (n + (atEdges ? 0 : 0.5)) / texts.length, text: texts[n] });
  }
  return ticks;
}

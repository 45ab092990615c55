
"use strict";
(async () => {
  const byId = (id) => document.getElementById(id);
  const about = JSON.parse(byId("about").textContent);
  const sounds = JSON.parse(byId("sounds").textContent);
  const { labels, levels, grid } = about;
  const rows = grid.rows.length;
  const columns = grid.columns.length;
  const cells = rows * columns;
  const MORE = { labels: 20, when: 6, moments: 8, recordings: 10 }; // shown at first, and with each "show more"
  // What gets the focus then.
  const ITEMS = {
    labels: "tbody button",
    when: ".maps canvas",
    moments: ".pair > div:first-child .moment",
    recordings: "canvas[tabindex]",
  };
  const OVERVIEW_ROWS = 20;
  const OVERVIEW_COLUMNS = 120;
  const FEW_DAYS = 14;

  // What was counted: chunks of each cell, then shares [label, level, row, column], then scores of recordings.
  const numbers = await unpacked(byId("numbers").textContent);
  const chunks = new Uint32Array(numbers.buffer, 0, cells);
  const shares = numbers.subarray(4 * cells);
  let at = 4 * cells + about.maps * levels.length * cells;
  for (const recording of about.recordings) {
    const size = recording.labels.length * recording.parts;
    recording.scores = numbers.subarray(at, at + size);
    at += size;
  }

  const state = { matches: [], level: about.level, shown: { ...MORE } };
  const drawings = new Set(); // functions that draw the maps that are shown
  const urls = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  async function unpacked(text) {
    const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Elements and words

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(properties)) {
      if (key in made) made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  const rounded = (value, digits) =>
    value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

  function length(seconds) {
    const [each, unit] = seconds < 60 ? [1, "s"] : seconds < 3600 ? [60, "min"] : [3600, "h"];
    return `${rounded(seconds / each, seconds / each < 100 ? 1 : 0)} ${unit}`;
  }

  /** Where in a recording: minutes and seconds, before them hours if there are any. */
  function place(seconds) {
    const whole = Math.floor(seconds + 1e-6);
    const two = (number) => String(number).padStart(2, "0");
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
    return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}`;
  }

  function percent(share) {
    const value = 100 * share;
    if (value > 0 && value < 0.05) return "<0.1 %";
    return `${rounded(value, value > 0 && value < 10 ? 1 : 0)} %`;
  }

  function day(text, withYear = true) {
    const options = { day: "numeric", month: "short", timeZone: "UTC", ...(withYear && { year: "numeric" }) };
    return new Date(`${text.slice(0, 10)}T00:00Z`).toLocaleDateString("en-GB", options);
  }

  const moment = (text) => `${day(text)}, ${text.slice(11, 19)}`;
  const threshold = () => levels[state.level];

  // What there is

  function matching(text) {
    const wanted = text.trim().toLowerCase();
    const all = [...labels.keys()];
    const exact = all.filter((label) => labels[label].name.toLowerCase() === wanted);
    return exact.length ? exact : all.filter((label) => labels[label].name.toLowerCase().includes(wanted));
  }

  const found = () => state.matches.filter((label) => labels[label].seconds[state.level] > 0);

  function share(label, row, column) {
    const root = shares[(label * levels.length + state.level) * cells + row * columns + column] / 255;
    return root * root;
  }

  /** The share of several cells together, and how many chunks they have. */
  function shareOf(label, places) {
    let reached = 0;
    let total = 0;
    for (const [row, column] of places) {
      const here = chunks[row * columns + column];
      total += here;
      if (here) reached += here * share(label, row, column);
    }
    return { share: total ? reached / total : 0, total };
  }

  // Maps

  const scheme = () => (dark.matches && !printing ? about.colours.dark : about.colours.light);

  function colour(value) {
    const colours = scheme();
    return colours[Math.round(Math.min(1, Math.max(0, value)) * (colours.length - 1))];
  }

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

  function sized(canvas) {
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
    return canvas.getContext("2d");
  }

  /**
   * A map of cells.
   * title, note: above it. rows, columns: how many. value(row, column): from 0 to 1, or -1 where there is nothing.
   * tell(row, column): in words. height: CSS pixels. names, ticks: [{at: 0 to 1, text}] beside and below it.
   */
  function heatmap({ title, note, rows, columns, value, tell, height, names, ticks, wide, edge }) {
    const canvas = element("canvas", { tabIndex: 0, role: "img" });
    const readout = element("output", { className: "readout" });
    canvas.setAttribute("aria-label", `${title}. ${note}. Arrow keys go from cell to cell.`);
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
      readout.textContent = next ? tell(...next) : "";
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

  /** Some of many names, evenly spread: as many as have room. */
  function ticksOf(texts, most, atEdges = true) {
    const step = Math.max(1, Math.ceil(texts.length / most));
    const ticks = [];
    for (let n = 0; n < texts.length; n += step) {
      ticks.push({ at: (n + (atEdges ? 0 : 0.5)) / texts.length, text: texts[n] });
    }
    return ticks;
  }

  const narrow = () => innerWidth < 640;
  const room = () => Math.max(2, Math.floor((byId("when").clientWidth - 160) / 130));
  const rest = (name) => name.slice(name.lastIndexOf("/") + 1);

  function overviewTimes() {
    if (grid.kind === "place") {
      return grid.rows.map((name, row) => ({
        text: rest(name),
        long: name,
        cells: grid.columns.map((_, column) => [row, column]),
      }));
    }
    const divisors = grid.rows.map((_, n) => n + 1).filter((n) => rows % n === 0);
    const block = divisors.find((n) => (columns * rows) / n <= OVERVIEW_COLUMNS) ?? rows;
    const times = [];
    for (let column = 0; column < columns; column += 1) {
      for (let row = 0; row < rows; row += block) {
        const hours = block === rows ? "" : `, ${grid.rows[row]}–${grid.rows[row + block] ?? "24:00"}`;
        const text = columns === 1 ? grid.rows[row] : day(grid.columns[column], false);
        const within = Array.from({ length: block }, (_, n) => [row + n, column]);
        times.push({ text, long: dates(column) + hours, cells: within });
      }
    }
    return times;
  }

  function dates(column) {
    const first = grid.columns[column];
    if (grid.grouped === 1) return day(first);
    const next = grid.columns[column + 1];
    return next ? `from ${day(first)}, before ${day(next)}` : `from ${day(first)}`;
  }

  function overview(shown) {
    const times = overviewTimes();
    const values = shown.map((label) => times.map((time) => shareOf(label, time.cells)));
    const highest = values.map((row) => Math.max(1e-9, ...row.map((each) => each.share)));
    return heatmap({
      title: "Labels over time",
      note: "each row from 0 to its highest share",
      rows: shown.length,
      columns: times.length,
      value: (row, column) => (values[row][column].total ? values[row][column].share / highest[row] : -1),
      tell(row, column) {
        const { share: part, total } = values[row][column];
        const said = total ? `${percent(part)} of ${length(total * about.chunkSeconds)}` : "no recording";
        return `${labels[shown[row]].name}, ${times[column].long}: ${said}`;
      },
      height: Math.max(40, 20 * shown.length),
      names: shown.map((label, n) => ({ at: (n + 0.5) / shown.length, text: labels[label].name })),
      ticks: ticksOf(
        times.map((time) => time.text),
        grid.kind === "place" ? Math.ceil(room() / 2) : room(),
      ),
      wide: true,
    });
  }

  function labelMap(label, alone) {
    const values = Array.from({ length: cells }, (_, n) => share(label, Math.floor(n / columns), n % columns));
    const highest = values.reduce((most, each) => Math.max(most, each), 1e-9);
    const turned = grid.kind === "clock" && columns <= FEW_DAYS;
    const cell = turned ? (row, column) => column * columns + row : (row, column) => row * columns + column;
    const note = `up to ${percent(highest)} of the time`;
    const frame = turned ? fewDays(alone) : grid.kind === "clock" ? manyDays(alone) : places(alone);
    return heatmap({
      title: labels[label].name,
      note,
      rows: turned ? columns : rows,
      columns: turned ? rows : columns,
      value: (row, column) => (chunks[cell(row, column)] ? values[cell(row, column)] / highest : -1),
      tell(row, column) {
        const here = cell(row, column);
        const total = chunks[here] * about.chunkSeconds;
        const said = total ? `${percent(values[here])} of ${length(total)}` : "no recording";
        return `${cellName(Math.floor(here / columns), here % columns)}: ${said}`;
      },
      ...frame,
    });
  }

  function cellName(row, column) {
    if (grid.kind === "clock") return `${dates(column)}, ${grid.rows[row]}–${grid.rows[row + 1] ?? "24:00"}`;
    const more = grid.grouped > 1 ? " and those after it" : "";
    return `${grid.rows[row]}${more}, from ${place(Number(grid.columns[column]))}`;
  }

  const hours = () => ["0", "6", "12", "18"].map((text, n) => ({ at: n / 4, text: `${text.padStart(2, "0")}:00` }));

  function manyDays(alone) {
    const ticks = ticksOf(grid.columns.map((text) => day(text, false)), alone ? room() : 3);
    return { height: alone ? 288 : 144, names: hours(), ticks, edge: true };
  }

  function fewDays(alone) {
    const names = grid.columns.map((text, n) => ({ at: (n + 0.5) / columns, text: day(text, false) }));
    return { height: Math.max(alone ? 96 : 48, 20 * columns), names, ticks: hours() };
  }

  function places(alone) {
    const height = Math.min(Math.max(40, 20 * rows), alone ? 720 : 240);
    const names = ticksOf(grid.rows.map(rest), Math.floor(height / 18), false);
    const ticks = ticksOf(grid.columns.map((seconds) => place(Number(seconds))), 3);
    return { height, names, ticks, wide: true };
  }

  // Sections

  function more(what, shown, all, noun) {
    if (shown >= all) return [];
    const button = element("button", { type: "button", className: "more" }, `Show more (${all - shown} ${noun})`);
    button.addEventListener("click", () => {
      state.shown[what] += MORE[what];
      render();
      byId(what).querySelectorAll(ITEMS[what])[shown]?.focus();
    });
    return [button];
  }

  function fill(id, ...children) {
    byId(id).querySelector(".content").replaceChildren(...children);
  }

  function nothing() {
    const what = state.matches.length ? `reaches ${threshold()}` : "has such a name";
    return element("p", { className: "quiet" }, labels.length ? `No label ${what}.` : "There is no score to show.");
  }

  function renderLabels(ranked) {
    const seconds = (label) => labels[label].seconds[state.level];
    ranked.sort((one, other) => seconds(other) - seconds(one) || one - other);
    if (!ranked.length) return fill("labels", nothing());
    const most = Math.max(...ranked.map(seconds));
    const shown = ranked.slice(0, state.shown.labels);
    const body = element("tbody");
    for (const label of shown) {
      const { name, peak } = labels[label];
      const button = element("button", { type: "button", className: "plain" }, name);
      const alone = state.matches.length === 1;
      button.setAttribute("aria-pressed", String(alone));
      button.addEventListener("click", () => choose(name, !alone));
      const bar = element("span");
      bar.style.width = `${(100 * seconds(label)) / most}%`;
      const track = element("span", { className: "track" }, bar);
      track.setAttribute("aria-hidden", "true");
      body.append(
        element(
          "tr",
          {},
          element("td", { className: "text" }, button),
          element("td", {}, length(seconds(label))),
          element("td", {}, percent(about.seconds ? seconds(label) / about.seconds : 0)),
          element("td", {}, rounded(peak, 2)),
          element("td", { className: "share" }, track),
        ),
      );
    }
    const heads = [["Label", "text"], ["Time", ""], ["Share", ""], ["Peak", ""], ["", "share"]];
    const head = element("tr", {}, ...heads.map(([text, kind]) => element("th", { className: kind, scope: "col" }, text)));
    head.lastChild.setAttribute("aria-hidden", "true");
    fill("labels", element("table", {}, element("thead", {}, head), body), ...more("labels", shown.length, ranked.length, "labels"));
  }

  function renderWhen(ranked) {
    const mapped = ranked.filter((label) => label < about.maps);
    if (!mapped.length || !cells) {
      const why = "There are maps of the labels found most; this is none of them: the option --labels makes it one.";
      return fill("when", ranked.length ? element("p", { className: "quiet" }, why) : nothing());
    }
    const alone = mapped.length === 1;
    const shown = mapped.slice(0, state.shown.when);
    fill(
      "when",
      legend("0", "highest share of each label", "no recording"),
      overview(mapped.slice(0, OVERVIEW_ROWS)),
      element("div", { className: `maps${alone ? " alone" : ""}` }, ...shown.map((label) => labelMap(label, alone))),
      ...more("when", shown.length, mapped.length, "maps"),
    );
  }

  /** Moments of one kind, those at the same place together. */
  function together(kind) {
    const ours = about.moments.filter(
      (each) =>
        each.kind === kind && state.matches.includes(each.label) && (kind === "doubtful" || each.score >= threshold()),
    );
    const far = (each) => (kind === "certain" ? -each.score : Math.abs(each.score - about.threshold));
    ours.sort((one, other) => one.rank - other.rank || far(one) - far(other) || one.label - other.label);
    const places = new Map();
    for (const each of ours) {
      const key = `${each.start} ${each.recording}`;
      places.set(key, [...(places.get(key) ?? []), each]);
    }
    return [...places.values()];
  }

  function player(each, name) {
    if (each.sound < 0) return each.silent ? [element("p", { className: "small quiet" }, `No sound: ${each.silent}`)] : [];
    if (!urls.has(each.sound)) {
      const bytes = Uint8Array.from(atob(sounds[each.sound]), (character) => character.charCodeAt(0));
      urls.set(each.sound, URL.createObjectURL(new Blob([bytes], { type: "audio/ogg" })));
    }
    const audio = element("audio", { controls: true, preload: "none", src: urls.get(each.sound) });
    audio.setAttribute("aria-label", `${name}, ${each.recording} at ${place(each.start)}`);
    return [audio];
  }

  function renderMoments() {
    const column = (kind, title, said) => {
      const all = together(kind);
      const shown = all.slice(0, state.shown.moments);
      const items = shown.map((some) => {
        const [first] = some;
        const names = some.flatMap((each, n) => [
          ...(n ? [", "] : []),
          element("b", {}, labels[each.label].name),
          ` ${rounded(each.score, 2)}`,
        ]);
        const when = first.time ? ` · ${moment(first.time)}` : "";
        return element(
          "div",
          { className: "moment", tabIndex: -1 },
          element("div", { className: "number" }, ...names),
          element("div", { className: "small quiet number" }, `${first.recording} at ${place(first.start)}${when}`),
          ...player(first, labels[first.label].name),
        );
      });
      const none = items.length ? [] : [element("p", { className: "quiet" }, "There are none.")];
      return {
        left: all.length - shown.length,
        made: element("div", {}, element("h3", {}, title), element("p", { className: "small quiet" }, said), ...none, ...items),
      };
    };
    const certain = column("certain", "Most certain", `The highest scores of each label.`);
    const doubtful = column("doubtful", "Most doubtful", `Scores nearest to ${about.threshold}, just above or below it.`);
    const left = Math.max(certain.left, doubtful.left);
    fill(
      "moments",
      element("div", { className: "pair" }, certain.made, doubtful.made),
      ...more("moments", state.shown.moments, state.shown.moments + left, "moments"),
    );
  }

  function renderRecordings() {
    const least = Math.ceil(threshold() * about.scoreSteps - 1e-6);
    const wanted = new Set(state.matches);
    const kept = [];
    for (const recording of about.recordings) {
      const lines = [];
      recording.labels.forEach((label, line) => {
        const scores = recording.scores.subarray(line * recording.parts, (line + 1) * recording.parts);
        if (wanted.has(label) && scores.some((score) => score >= least)) lines.push({ label, scores });
      });
      if (lines.length) kept.push({ recording, lines });
    }
    if (!kept.length) return fill("recordings", nothing());
    const shown = kept.slice(0, state.shown.recordings);
    fill(
      "recordings",
      legend("0", "score 1", ""),
      ...shown.map(({ recording, lines }) => {
        const { name, parts, duration, time, status } = recording;
        const text = (part) => place((part * duration) / parts);
        const ticks = narrow() ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1];
        const made = heatmap({
          title: name,
          note: [length(duration), time && moment(time)].filter(Boolean).join(" · "),
          rows: lines.length,
          columns: parts,
          value: (row, part) => (lines[row].scores[part] >= least ? lines[row].scores[part] / about.scoreSteps : 0),
          tell(row, part) {
            const score = rounded(lines[row].scores[part] / about.scoreSteps, 2);
            return `${labels[lines[row].label].name}, ${text(part)}–${text(part + 1)}: up to ${score}`;
          },
          height: Math.max(20, 20 * lines.length),
          names: lines.map(({ label }, n) => ({ at: (n + 0.5) / lines.length, text: labels[label].name })),
          ticks: ticks.map((where) => ({ at: where, text: place(where * duration) })),
          wide: true,
        });
        const said = status === "ok" ? [] : [element("p", { className: "small status" }, status)];
        return element("div", { className: "recording" }, made, ...said);
      }),
      ...more("recordings", shown.length, kept.length, "recordings"),
    );
  }

  function render() {
    drawings.clear();
    const ranked = found();
    byId("level-value").textContent = threshold();
    byId("level").setAttribute("aria-valuetext", threshold());
    byId("matches").textContent = `${ranked.length} of ${labels.length} labels reach ${threshold()}`;
    renderLabels(ranked);
    renderWhen(ranked);
    renderMoments();
    renderRecordings();
    redraw();
  }

  function redraw() {
    drawings.forEach((draw) => draw());
  }

  function filter() {
    state.matches = matching(byId("text").value);
    state.level = Number(byId("level").value);
    state.shown = { ...MORE };
    render();
  }

  function choose(name, alone) {
    byId("text").value = alone ? name : "";
    filter();
    [...byId("labels").querySelectorAll("tbody button")].find((button) => button.textContent === name)?.focus();
  }

  byId("level").max = levels.length - 1;
  byId("level").value = about.level;
  byId("level").defaultValue = about.level;
  byId("names").append(...labels.map(({ name }) => element("option", { value: name })));
  byId("filter").addEventListener("input", filter);
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("filter").addEventListener("reset", () => setTimeout(filter));
  dark.addEventListener("change", redraw);
  for (const [name, now] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(name, () => {
      printing = now;
      redraw();
    });
  }
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    render();
  });
  filter();
  document.documentElement.dataset.ready = "yes";
})();

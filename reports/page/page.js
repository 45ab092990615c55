// The sections of the page and the controls that change them.

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
  const what = state.matches.length ? `reaches ${threshold()}` : "matches";
  return element("p", { className: "quiet" }, labels.length ? `No label ${what}.` : "There are no scores to show.");
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
    const why = "Only the most common labels have maps; choose others with the option --labels.";
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

/** Return the moments of one kind; moments of several labels at the same place are grouped. */
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
  const audio = element("audio", { controls: true, preload: "none", src: urlOf(each.sound) });
  audio.setAttribute("aria-label", `${name}, ${each.recording} at ${place(each.start)}`);
  return [audio];
}

function renderMoments() {
  const column = (kind, title, text) => {
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
    const none = items.length ? [] : [element("p", { className: "quiet" }, "None.")];
    return {
      left: all.length - shown.length,
      made: element("div", {}, element("h3", {}, title), element("p", { className: "small quiet" }, text), ...none, ...items),
    };
  };
  const certain = column("certain", "Most certain", "The highest scores of each label.");
  const doubtful = column("doubtful", "Most doubtful", `The scores nearest to ${about.threshold}, above or below it.`);
  const left = Math.max(certain.left, doubtful.left);
  fill(
    "moments",
    element("div", { className: "pair" }, certain.made, doubtful.made),
    ...more("moments", state.shown.moments, state.shown.moments + left, "moments"),
  );
}

function renderRecordings() {
  const minimum = Math.ceil(threshold() * about.scoreSteps - 1e-6);
  const wanted = new Set(state.matches);
  const kept = [];
  for (const recording of about.recordings) {
    const lines = [];
    recording.labels.forEach((label, line) => {
      const scores = recording.scores.subarray(line * recording.parts, (line + 1) * recording.parts);
      if (wanted.has(label) && scores.some((score) => score >= minimum)) lines.push({ label, scores });
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
        value: (row, part) => (lines[row].scores[part] >= minimum ? lines[row].scores[part] / about.scoreSteps : 0),
        describe(row, part) {
          const score = rounded(lines[row].scores[part] / about.scoreSteps, 2);
          return `${labels[lines[row].label].name}, ${text(part)}–${text(part + 1)}: up to ${score}`;
        },
        height: Math.max(20, 20 * lines.length),
        names: lines.map(({ label }, n) => ({ at: (n + 0.5) / lines.length, text: labels[label].name })),
        ticks: ticks.map((where) => ({ at: where, text: place(where * duration) })),
        wide: true,
      });
      const problem = status === "ok" ? [] : [element("p", { className: "small status" }, status)];
      return element("div", { className: "recording" }, made, ...problem);
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

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

/** Return a button that saves a table as CSV; rows() yields its rows. */
function saver(name, header, rows) {
  const button = element("button", { type: "button", className: "save" }, "Download CSV");
  button.setAttribute("aria-label", `Download ${name} as CSV`);
  button.addEventListener("click", () => saveTable(`${name}.csv`, [header, ...rows()]));
  return button;
}

function nothing() {
  const what = state.matches.length ? `reaches ${threshold()}` : "matches";
  return element("p", { className: "quiet" }, labels.length ? `No label ${what}.` : "There are no scores to show.");
}

/** Return the button that shows or hides the classes of a group. */
function unfolder(label) {
  const count = classesOf(label, found()).length;
  const open = state.open.has(label);
  const what = `${count} ${count === 1 ? "class" : "classes"}`;
  const button = element("button", { type: "button", className: "unfold" }, `${open ? "▾" : "▸"} ${what}`);
  button.setAttribute("aria-expanded", String(open));
  button.setAttribute("aria-label", `${what} of the group ${labels[label].name}`);
  button.addEventListener("click", () => {
    if (!state.open.delete(label)) state.open.add(label);
    render();
    [...byId("labels").querySelectorAll(".unfold")].find((each) => each.ariaLabel === button.ariaLabel)?.focus();
  });
  return button;
}

function renderLabels(ranked) {
  if (!ranked.length) return fill("labels", nothing());
  const most = Math.max(...ranked.map(seconds));
  const shown = ranked.slice(0, state.shown.labels);
  const body = element("tbody");
  for (const label of shown) {
    const { name, peak, group } = labels[label];
    const inside = state.open.has(group) && ranked.includes(group);
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
        element(
          "td",
          { className: inside ? "text inside" : "text" },
          button,
          ...(classesOf(label, state.matches).length ? [" ", unfolder(label)] : []),
        ),
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
  const saved = ["label", "mid", "group", "threshold", "seconds", "share", "peak_score"];
  fill(
    "labels",
    element("table", {}, element("thead", {}, head), body),
    element(
      "div",
      { className: "buttons" },
      ...more("labels", shown.length, ranked.length, "labels"),
      saver("labels", saved, () =>
        ranked.map((label) => {
          const { name, mid, group, peak } = labels[label];
          const share = about.seconds ? seconds(label) / about.seconds : 0;
          return [name, mid, labels[group]?.name ?? "", threshold(), seconds(label), share.toFixed(6), peak];
        }),
      ),
    ),
  );
}

function renderWhen(ranked) {
  const mapped = ranked.filter((label) => label < about.maps);
  if (!mapped.length || !cells) {
    const why = "Only the most common labels have maps; choose others with the option --labels.";
    return fill("when", ranked.length ? element("p", { className: "quiet" }, why) : nothing());
  }
  const alone = mapped.length === 1;
  const effort = effortMaps();
  const shown = mapped.slice(0, state.shown.when - effort.length);
  const where = grid.kind === "clock" ? ["date", "time"] : ["recording", "start_s"];
  fill(
    "when",
    legend("0", "highest share of each label", "no recording"),
    overview(mapped.slice(0, OVERVIEW_ROWS)),
    element(
      "div",
      { className: `maps${alone ? " alone" : ""}` },
      ...effort,
      ...shown.map((label) => labelMap(label, alone)),
    ),
    element(
      "div",
      { className: "buttons" },
      ...more("when", shown.length, mapped.length, "maps"),
      saver("maps", ["label", ...where, "seconds_recorded", "share"], () => mapRows(shown)),
    ),
  );
}

/** Return the most certain and the most doubtful moments of the labels shown, at most `momentsEach` of each. */
function moments(kind, shown) {
  const far = (each) => (kind === "certain" ? -each.score : Math.abs(each.score - threshold()));
  const least = kind === "certain" ? threshold() : about.lowShare * threshold();
  const chosen = shown.flatMap((label) => {
    const certain = (each) => each.kind === "certain" && each.score >= threshold();
    const ours = about.moments.filter(
      (each) => each.label === label && each.score >= least && certain(each) === (kind === "certain"),
    );
    ours.sort((one, other) => far(one) - far(other));
    return ours.slice(0, about.momentsEach).map((each, rank) => ({ ...each, rank }));
  });
  return chosen.sort((one, other) => one.rank - other.rank || far(one) - far(other) || one.label - other.label);
}

/** Group moments of several labels at the same place. */
function together(some) {
  const places = new Map();
  for (const each of some) {
    const key = `${each.start} ${each.recording}`;
    places.set(key, [...(places.get(key) ?? []), each]);
  }
  return [...places.values()];
}

function player(each, name) {
  if (each.sound < 0) return each.silent ? [element("p", { className: "small quiet" }, `No sound: ${each.silent}`)] : [];
  const audio = element("audio", { controls: true, preload: "none", src: urlOf(each.sound) });
  const what = `${name}, ${each.recording} at ${place(each.start)}`;
  audio.setAttribute("aria-label", what);
  const picture = element("canvas", { className: "spectrogram", role: "img" });
  picture.setAttribute("aria-label", `Spectrogram from 0 to ${SPECTROGRAM_HZ / 2000} kHz: ${what}`);
  drawings.add(async () => drawSpectrogram(picture, await samplesOf(each.sound)));
  return [element("div", { className: "player" }, picture, audio)];
}

const samples = new Map();

/** Return the samples of a sound; each is decoded once. */
function samplesOf(sound) {
  if (!samples.has(sound)) samples.set(sound, decoded(sound));
  return samples.get(sound);
}

function renderMoments(ranked) {
  const chosen = { certain: moments("certain", ranked), doubtful: moments("doubtful", ranked) };
  const column = (kind, title, text) => {
    const all = together(chosen[kind]);
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
  const doubtful = column("doubtful", "Most doubtful", `The scores nearest to ${threshold()}, above or below it.`);
  const left = Math.max(certain.left, doubtful.left);
  fill(
    "moments",
    element("div", { className: "pair" }, certain.made, doubtful.made),
    element(
      "div",
      { className: "buttons" },
      ...more("moments", state.shown.moments, state.shown.moments + left, "moments"),
      saver("moments", ["kind", "label", "score", "recording", "start_s", "time_local"], () =>
        Object.entries(chosen).flatMap(([kind, some]) =>
          some.map(({ label, score, recording, start, time }) => [kind, labels[label].name, score, recording, start, time]),
        ),
      ),
    ),
  );
}

function renderRecordings(ranked) {
  const minimum = Math.ceil(threshold() * about.scoreSteps - 1e-6);
  const wanted = new Set(ranked);
  const reaches = (score) => score >= minimum && score !== about.notTagged;
  const kept = [];
  for (const recording of about.recordings) {
    const lines = [];
    recording.labels.forEach((label, line) => {
      const scores = recording.scores.subarray(line * recording.parts, (line + 1) * recording.parts);
      if (wanted.has(label) && scores.some(reaches)) lines.push({ label, scores });
    });
    if (lines.length) kept.push({ recording, lines });
  }
  if (!kept.length) return fill("recordings", nothing());
  const shown = kept.slice(0, state.shown.recordings);
  fill(
    "recordings",
    legend("0", "score 1", "not tagged"),
    ...shown.map(({ recording, lines }) => {
      const { name, parts, duration, time, status } = recording;
      const text = (part) => place((part * duration) / parts);
      const made = heatmap({
        title: name,
        note: [length(duration), time && moment(time)].filter(Boolean).join(" · "),
        rows: lines.length,
        columns: parts,
        value(row, part) {
          const score = lines[row].scores[part];
          return score === about.notTagged ? -1 : reaches(score) ? score / about.scoreSteps : 0;
        },
        describe(row, part) {
          const score = lines[row].scores[part];
          const what = score === about.notTagged ? "not tagged" : `up to ${rounded(score / about.scoreSteps, 2)}`;
          return `${labels[lines[row].label].name}, ${text(part)}–${text(part + 1)}: ${what}`;
        },
        height: Math.max(20, 20 * lines.length),
        names: lines.map(({ label }, n) => ({ at: (n + 0.5) / lines.length, text: labels[label].name })),
        ticks: timeTicks(duration, narrow() ? 3 : 8),
        wide: true,
      });
      const problem = status === "ok" ? [] : [element("p", { className: "small status" }, status)];
      return element("div", { className: "recording" }, made, ...problem);
    }),
    element(
      "div",
      { className: "buttons" },
      ...more("recordings", shown.length, kept.length, "recordings"),
      saver("recordings", ["recording", "label", "start_s", "end_s", "highest_score"], () => partRows(shown)),
    ),
  );
}

/** Return the scores of recordings as rows of a table. */
function* partRows(shown) {
  for (const { recording, lines } of shown) {
    const { name, duration, parts } = recording;
    for (const { label, scores } of lines) {
      for (const [part, score] of scores.entries()) {
        if (score === about.notTagged) continue;
        const ends = [part, part + 1].map((n) => ((n * duration) / parts).toFixed(2));
        yield [name, labels[label].name, ...ends, score / about.scoreSteps];
      }
    }
  }
}

function render() {
  drawings.clear();
  const all = found();
  const ranked = folded(all);
  const counted = (some) => some.filter((label) => !groups.has(label)).length; // without groups of classes shown
  byId("level-value").textContent = threshold();
  byId("level").setAttribute("aria-valuetext", threshold());
  byId("matches").textContent = `${counted(all)} of ${counted([...labels.keys()])} labels reach ${threshold()}`;
  renderLabels(ranked);
  renderWhen(ranked);
  renderMoments(ranked);
  renderRecordings(ranked);
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

// The maps of labels over time.

const narrow = () => innerWidth < 640;
const room = () => Math.max(2, Math.floor((byId("when").clientWidth - 160) / 130));
const NEARLY_ALL = 0.95; // of what the cell with most has
const inDays = grid.kind === "clock" && columns > 1;
const rest = (name) => name.slice(name.lastIndexOf("/") + 1);

const cellSeconds = columns > 1 && grid.kind === "place" ? Number(grid.columns[1]) : about.chunkSeconds;

/** Return the columns of the overview: cells with names; without those before the first recording and after the last. */
function overviewTimes() {
  if (grid.kind === "place" && rows === 1) {
    const text = (seconds) => place(Number(seconds));
    return grid.columns.map((start, column) => ({ text: text(start), long: text(start), cells: [[0, column]] }));
  }
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
      const within = Array.from({ length: block }, (_, n) => [row + n, column]);
      times.push({ text: grid.rows[row], date: grid.columns[column], row, long: dates(column) + hours, cells: within });
    }
  }
  const filled = times.map((time) => time.cells.some(([row, column]) => chunks[row * columns + column]));
  return times.slice(filled.indexOf(true), filled.lastIndexOf(true) + 1);
}

function dates(column) {
  const first = grid.columns[column];
  if (grid.grouped === 1) return day(first);
  const next = grid.columns[column + 1];
  return next ? `from ${day(first)}, before ${day(next)}` : `from ${day(first)}`;
}

/** Return ticks at the beginning of days, and at times of day if there is room for them. */
function overviewTicks(times) {
  if (grid.kind === "place" && rows === 1) return timeTicks(columns * cellSeconds, room());
  if (!inDays) return ticksOf(times.map(({ text }) => text), grid.kind === "place" ? Math.ceil(room() / 2) : room());
  const apart = [4, 2, 1].find((parts) => rows % parts === 0 && parts * columns <= room()) ?? 1; // ticks of a day
  const ticks = times.flatMap(({ text, date, row }, n) => {
    if (n && row % (rows / apart)) return [];
    return [{ at: n / times.length, text: n && row ? text : day(date, false) }];
  });
  const step = Math.ceil(ticks.length / room());
  const some = ticks.filter((_, n) => n % step === 0);
  return some.length > 1 && some[1].at < 0.8 / room() ? some.slice(1) : some; // the first day may be short
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
    describe(row, column) {
      const { share: part, total } = values[row][column];
      const text = total ? `${percent(part)} of ${length(total * about.chunkSeconds)}` : "no recording";
      return `${labels[shown[row]].name}, ${times[column].long}: ${text}`;
    },
    height: Math.max(40, 20 * shown.length),
    names: shown.map((label, n) => ({ at: (n + 0.5) / shown.length, text: labels[label].name })),
    ticks: overviewTicks(times),
    wide: true,
  });
}

/** Return a map of a value of each cell, from 0 to 1; say(cell) describes one that has a recording. */
function cellMap(title, note, values, say, alone) {
  const turned = grid.kind === "clock" && columns <= FEW_DAYS;
  const cell = turned ? (row, column) => column * columns + row : (row, column) => row * columns + column;
  const frame = turned ? fewDays(alone) : grid.kind === "clock" ? manyDays(alone) : places(alone);
  return heatmap({
    title,
    note,
    rows: turned ? columns : rows,
    columns: turned ? rows : columns,
    value: (row, column) => (chunks[cell(row, column)] ? values[cell(row, column)] : -1),
    describe(row, column) {
      const here = cell(row, column);
      const text = chunks[here] ? say(here) : "no recording";
      return `${cellName(Math.floor(here / columns), here % columns)}: ${text}`;
    },
    ...frame,
  });
}

const recorded = (cell) => chunks[cell] * about.chunkSeconds;

function labelMap(label, alone) {
  const values = Array.from({ length: cells }, (_, n) => share(label, Math.floor(n / columns), n % columns));
  const highest = values.reduce((most, each) => Math.max(most, each), 1e-9);
  const say = (cell) => `${percent(values[cell])} of ${length(recorded(cell))}`;
  const scaled = values.map((value) => value / highest);
  return cellMap(labels[label].name, `up to ${percent(highest)} of the time`, scaled, say, alone);
}

/** Return a map of how much was recorded, in a list that is empty if all cells have about as much. */
function effortMaps() {
  const most = chunks.reduce((one, other) => Math.max(one, other), 1);
  const values = Array.from(chunks, (count) => count / most);
  if (grid.kind !== "clock" || values.every((value) => value > NEARLY_ALL)) return [];
  const note = `up to ${length(most * about.chunkSeconds)} in a cell`;
  const made = cellMap("Recorded", note, values, (cell) => `${length(recorded(cell))} recorded`, false);
  made.classList.add("effort");
  return [made];
}

/** Return the values of maps as rows of a table: label, date or recording, time, seconds recorded, share. */
function* mapRows(shown) {
  for (const label of shown) {
    for (let cell = 0; cell < cells; cell += 1) {
      if (!chunks[cell]) continue;
      const [row, column] = [Math.floor(cell / columns), cell % columns];
      const where = grid.kind === "clock" ? [grid.columns[column], grid.rows[row]] : [grid.rows[row], grid.columns[column]];
      yield [labels[label].name, ...where, recorded(cell).toFixed(2), share(label, row, column).toFixed(4)];
    }
  }
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
  const ticks = timeTicks(columns * cellSeconds, alone ? 8 : 4);
  return { height, names, ticks, wide: true };
}

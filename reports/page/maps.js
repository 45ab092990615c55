// The maps of labels over time.

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
    describe(row, column) {
      const { share: part, total } = values[row][column];
      const text = total ? `${percent(part)} of ${length(total * about.chunkSeconds)}` : "no recording";
      return `${labels[shown[row]].name}, ${times[column].long}: ${text}`;
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
    describe(row, column) {
      const here = cell(row, column);
      const total = chunks[here] * about.chunkSeconds;
      const text = total ? `${percent(values[here])} of ${length(total)}` : "no recording";
      return `${cellName(Math.floor(here / columns), here % columns)}: ${text}`;
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

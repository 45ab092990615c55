// The unpacked data of the page, and functions that format them.

const { labels, levels, grid } = about;
const rows = grid.rows.length;
const columns = grid.columns.length;
const cells = rows * columns;
const MORE = { labels: 20, when: 6, moments: 8, recordings: 10 }; // shown at first, and added by each "show more"
// Selectors of the elements of a section; after "show more", the first new element gets the focus.
const ITEMS = {
  labels: "tbody button",
  when: ".maps figure:not(.effort) canvas",
  moments: ".pair > div:first-child .moment",
  recordings: "canvas[tabindex]",
};
const OVERVIEW_ROWS = 20;
const OVERVIEW_COLUMNS = 120;
const FEW_DAYS = 14;

// Chunks of each cell, then shares [label, level, row, column], then scores of recordings.
const numbers = await unpacked(byId("numbers").textContent);
const chunks = new Uint32Array(numbers.buffer, 0, cells);
const shares = numbers.subarray(4 * cells);
let at = 4 * cells + about.maps * levels.length * cells;
for (const recording of about.recordings) {
  const size = recording.labels.length * recording.parts;
  recording.scores = numbers.subarray(at, at + size);
  at += size;
}

const state = { matches: [], level: about.level, shown: { ...MORE }, open: new Set() }; // open: groups
const groups = new Set(labels.map(({ group }) => group)); // and -1
const drawings = new Set(); // functions that draw the maps that are shown

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const threshold = () => levels[state.level];

// Labels and shares

function matching(text) {
  const wanted = text.trim();
  const all = [...labels.keys()];
  const exact = all.filter((label) => labels[label].name === wanted);
  return exact.length
    ? exact
    : all.filter((label) => labels[label].name.toLowerCase().includes(wanted.toLowerCase()));
}

const seconds = (label) => labels[label].seconds[state.level];
const found = () => state.matches.filter((label) => seconds(label) > 0);

/** Return the classes of a group that are among some labels. */
const classesOf = (group, some) => some.filter((label) => labels[label].group === group);

/** Sort labels by time; each class follows its group if that is open, and is left out if it is closed. */
function folded(some) {
  const sorted = some.toSorted((one, other) => seconds(other) - seconds(one) || one - other);
  const here = new Set(some);
  const outer = sorted.filter((label) => !here.has(labels[label].group));
  return outer.flatMap((label) => [label, ...(state.open.has(label) ? classesOf(label, sorted) : [])]);
}

function share(label, row, column) {
  const root = shares[(label * levels.length + state.level) * cells + row * columns + column] / 255;
  return root * root;
}

/** Return the share over several cells together, and their number of chunks. */
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

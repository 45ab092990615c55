// The unpacked data of the page, and functions that format them.

const { labels, levels, grid } = about;
const rows = grid.rows.length;
const columns = grid.columns.length;
const cells = rows * columns;
const MORE = { labels: 20, when: 6, moments: 8, recordings: 10 }; // shown at first, and added by each "show more"
// Selectors of the elements of a section; after "show more", the first new element gets the focus.
const ITEMS = {
  labels: "tbody button",
  when: ".maps canvas",
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

const state = { matches: [], level: about.level, shown: { ...MORE } };
const drawings = new Set(); // functions that draw the maps that are shown

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const threshold = () => levels[state.level];

// Labels and shares

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

// Elements, texts, sounds and colours of a page; `about` is its data.

const byId = (id) => document.getElementById(id);
const about = JSON.parse(byId("about").textContent);
const sounds = JSON.parse(byId("sounds").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

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

/** Format a time in a recording as minutes and seconds, preceded by hours if there are any. */
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

/** Save rows of cells as a CSV file, with a mark of its encoding that spreadsheets need. */
function saveTable(name, rows) {
  const cell = (text) => (/[",;\t\r\n]/.test(text) ? `"${String(text).replaceAll('"', '""')}"` : text);
  const text = `\uFEFF${rows.map((cells) => cells.map(cell).join(",")).join("\r\n")}\r\n`;
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

// Sounds

const bytesOf = (sound) => Uint8Array.from(atob(sounds[sound]), (character) => character.charCodeAt(0));
const urls = new Map();

/** Return the URL of a sound, by its number. */
function urlOf(sound) {
  if (!urls.has(sound)) urls.set(sound, URL.createObjectURL(new Blob([bytesOf(sound)], { type: "audio/mpeg" })));
  return urls.get(sound);
}

// Colours

const scheme = () => (dark.matches && !printing ? about.colours.dark : about.colours.light);

function colour(value) {
  const colours = scheme();
  return colours[Math.round(Math.min(1, Math.max(0, value)) * (colours.length - 1))];
}

function sized(canvas) {
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  return canvas.getContext("2d");
}

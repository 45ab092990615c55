// One clip after the other: listen, look, answer.

const { header, rows, order, clips } = about;
const column = (name) => header.indexOf(name);
const [CLIP, LABEL, CORRECT] = ["clip", "label", "correct"].map(column);
const SIGNS = { yes: "✓", no: "✗", unsure: "?" };
const KEPT = `satpipe ${about.id}`;
const player = byId("player");
const picture = byId("picture");
let at = 0; // position in `order`
let waiting = 0; // counts what is shown, so that a spectrogram that comes late is not drawn

const row = (n = at) => rows[order[n]];
const answerOf = (n = at) => row(n)[CORRECT];
const cell = (name) => row()[column(name)];

// Answers

function keep() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(rows.map((cells) => cells[CORRECT])));
  } catch {
    byId("message").textContent = "This browser does not keep answers of a page from a file: save the sheet before you close it.";
  }
}

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    kept.forEach((answer, n) => {
      if (answer) rows[n][CORRECT] = answer;
    });
  } catch {
    // Nothing is kept.
  }
}

function answer(value) {
  const removed = answerOf() === value;
  row()[CORRECT] = removed ? "" : value;
  keep();
  const open = order.findIndex((_, n) => n > at && !answerOf(n));
  const first = order.findIndex((_, n) => !answerOf(n));
  show(removed ? at : open >= 0 ? open : first >= 0 ? first : at);
}

// The clip

function show(next) {
  const moved = next !== at || !player.src;
  at = next;
  const { begin, length: seconds, from, to } = clips[order[at]];
  const label = row()[LABEL];
  const when = cell("time_local");
  byId("place").textContent = `Clip ${at + 1} of ${order.length}`;
  byId("question").replaceChildren("Do you hear ", element("b", {}, label), "?");
  byId("before").style.width = `${(100 * (from - begin)) / seconds}%`;
  byId("after").style.width = `${(100 * Math.max(0, begin + seconds - to)) / seconds}%`;
  const facts = [
    ["File", row()[CLIP]],
    ["Recording", cell("recording")],
    ["Position", `${place(from)} to ${place(to)}`],
    ["Time", when && `${moment(when)} (${when.slice(23)})`],
    ["Score", cell("score")],
  ];
  const named = ([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value));
  byId("details").replaceChildren(...facts.filter(([, value]) => value).map(named));
  for (const button of document.querySelectorAll(".answers button")) {
    button.setAttribute("aria-pressed", String(button.dataset.answer === answerOf()));
  }
  byId("previous").disabled = at === 0;
  byId("next").disabled = at === order.length - 1;
  progress();
  if (moved) hear(label, seconds);
}

async function hear(label, seconds) {
  player.src = urlOf(order[at]);
  player.setAttribute("aria-label", `Clip ${at + 1}, ${label}`);
  picture.setAttribute("aria-label", `Spectrogram of ${rounded(seconds, 1)} seconds, 0 to 8 kilohertz. The dimmed ends are before and after the event.`);
  const step = seconds > 6 ? 2 : 1;
  const ticks = Array.from({ length: Math.floor(seconds / step) + 1 }, (_, n) => n * step);
  byId("seconds").replaceChildren(
    ...ticks.map((second) => {
      const tick = element("span", {}, `${second} s`);
      tick.style.left = `${(100 * second) / seconds}%`;
      if (second / seconds > 0.94) tick.style.transform = "translateX(-100%)";
      else if (second) tick.style.transform = "translateX(-50%)";
      return tick;
    }),
  );
  if (byId("autoplay").checked) player.play().catch(() => {}); // browsers wait for a first click or key
  await draw();
}

async function draw() {
  waiting += 1;
  const mine = waiting;
  picture.dataset.drawn = "";
  const samples = await decoded(order[at]);
  if (mine !== waiting) return;
  drawSpectrogram(picture, samples);
  picture.dataset.drawn = at;
}

function follow() {
  const share = player.duration ? player.currentTime / player.duration : 0;
  byId("head").style.left = `${100 * share}%`;
  byId("head").hidden = !player.currentTime;
  if (!player.paused) requestAnimationFrame(follow);
}

// All clips

const buttons = order.map((_, n) => {
  const button = element("button", { type: "button" });
  button.addEventListener("click", () => {
    show(n);
    byId("clip").scrollIntoView();
  });
  return button;
});

function list() {
  const labels = [...new Set(order.map((n) => rows[n][LABEL]))];
  byId("classes").replaceChildren(
    ...labels.map((label) => {
      const ours = [...order.keys()].filter((n) => row(n)[LABEL] === label);
      const counts = element("span", { className: "quiet small number" });
      counts.dataset.label = label;
      return element(
        "div",
        { className: "class" },
        element("p", {}, element("b", {}, label), " ", counts),
        element("ol", {}, ...ours.map((n) => element("li", {}, buttons[n]))),
      );
    }),
  );
}

function progress() {
  const done = order.filter((n) => rows[n][CORRECT]).length;
  byId("progress").max = order.length;
  byId("progress").value = done;
  byId("progress-text").textContent = `${done} of ${order.length} answered`;
  buttons.forEach((button, n) => {
    const given = answerOf(n);
    button.textContent = SIGNS[given] ?? n + 1;
    if (given) button.dataset.answer = given;
    else delete button.dataset.answer;
    button.setAttribute("aria-current", String(n === at));
    button.setAttribute("aria-label", `Clip ${n + 1}, ${row(n)[LABEL]}: ${given || "no answer"}`);
  });
  for (const counts of byId("classes").querySelectorAll("[data-label]")) {
    const given = rows.filter((cells) => cells[LABEL] === counts.dataset.label).map((cells) => cells[CORRECT]);
    const number = (answer) => given.filter((each) => each === answer).length;
    counts.textContent = `${number("yes")} yes, ${number("no")} no, ${number("unsure")} unsure, ${number("")} left`;
  }
}

// The sheet

function download() {
  saveTable("sheet.csv", [header, ...rows]);
  byId("message").textContent = "Saved as sheet.csv where your browser puts downloads.";
}

async function upload() {
  const [file] = byId("upload").files;
  if (!file) return;
  try {
    const { found, wrong } = sheetAnswers(await file.text());
    let number = 0;
    for (const cells of rows) {
      if (!found.has(cells[CLIP])) continue;
      cells[CORRECT] = found.get(cells[CLIP]);
      number += 1;
    }
    const other = wrong.length ? ` These answers are not yes, no or unsure: ${wrong.slice(0, 5).join("; ")}.` : "";
    byId("message").textContent = number
      ? `${file.name} has ${number} of the ${rows.length} clips of this page.${other}`
      : `${file.name} has none of the clips of this page.${other}`;
    keep();
    const open = order.findIndex((_, n) => !answerOf(n));
    show(open >= 0 ? open : at);
  } catch (error) {
    byId("message").textContent = `${file.name} is not a sheet: ${error.message}.`;
  }
  byId("upload").value = "";
}

// Controls

const move = (step) => show(Math.min(order.length - 1, Math.max(0, at + step)));
const toggle = () => (player.paused ? player.play() : player.pause());
const KEYS = {
  y: () => answer("yes"),
  n: () => answer("no"),
  u: () => answer("unsure"),
  s: download,
  " ": toggle,
  p: toggle,
  ArrowLeft: () => move(-1),
  ArrowRight: () => move(1),
};

document.addEventListener("keydown", (event) => {
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const own = event.target.closest("button, input, summary, audio, a"); // these have keys of their own
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  if (own && (event.key === " " || own.matches("audio"))) return;
  event.preventDefault();
  action();
});
for (const button of document.querySelectorAll(".answers button")) {
  button.addEventListener("click", () => answer(button.dataset.answer));
}
byId("previous").addEventListener("click", () => move(-1));
byId("next").addEventListener("click", () => move(1));
byId("download").addEventListener("click", download);
byId("upload").addEventListener("change", upload);
picture.addEventListener("click", (event) => {
  player.currentTime = (event.offsetX / picture.clientWidth) * player.duration;
  player.play();
});
for (const name of ["play", "seeked", "pause", "emptied"]) player.addEventListener(name, follow);
dark.addEventListener("change", draw);
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) draw();
  width = innerWidth;
});
restore();
list();
const open = order.findIndex((_, n) => !answerOf(n));
show(Math.max(0, open));
document.documentElement.dataset.ready = "yes";

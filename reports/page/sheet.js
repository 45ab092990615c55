// Verification sheets as text: rows of cells, separated by commas, semicolons or tabs.

function sheetRows(text) {
  const plain = text.replace(/^\uFEFF/, "");
  const head = plain.split(/\r?\n|\r/, 1)[0];
  const mark = head.includes("\t") ? "\t" : head.split(",", 1)[0].includes(";") ? ";" : ",";
  const rows = [[""]];
  let quoted = false;
  for (let n = 0; n < plain.length; n += 1) {
    const letter = plain[n];
    const cells = rows.at(-1);
    if (quoted && letter === '"' && plain[n + 1] === '"') {
      cells[cells.length - 1] += '"';
      n += 1;
    } else if (letter === '"' && (quoted || cells.at(-1) === "")) quoted = !quoted;
    else if (!quoted && letter === mark) cells.push("");
    else if (!quoted && (letter === "\n" || letter === "\r")) {
      if (cells.length > 1 || cells[0]) rows.push([""]);
    } else cells[cells.length - 1] += letter;
  }
  return rows.filter((cells) => cells.some(Boolean));
}

/** Return the answers in a sheet by the name of the clip, and the rows whose answer is none. */
function sheetAnswers(text) {
  const [head, ...rows] = sheetRows(text);
  const names = (head ?? []).map((name) => name.trim().toLowerCase());
  const [clip, correct] = [names.indexOf("clip"), names.indexOf("correct")];
  if (clip < 0 || correct < 0) throw new Error("it has no columns clip and correct");
  const known = { yes: "yes", y: "yes", true: "yes", 1: "yes", no: "no", n: "no", false: "no", 0: "no", unsure: "unsure", "?": "unsure", "": "" };
  const found = new Map();
  const wrong = [];
  for (const cells of rows) {
    const answer = (cells[correct] ?? "").trim().toLowerCase();
    if (answer in known) found.set(cells[clip].trim(), known[answer]);
    else wrong.push(`${cells[clip]}: ${cells[correct]}`);
  }
  return { found, wrong };
}

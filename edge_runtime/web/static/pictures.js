// Sends pictures one by one and shows their cards. Without script, the form sends all at once.
"use strict";

const AT_ONCE = 2;
const RETRIES = 30;

const element = (id) => document.getElementById(id);
const texts = JSON.parse(element("texts").textContent);
const results = element("results");
const cards = element("cards");
const waiting = [];
let running = 0;
let all = 0;
let done = 0;

function add(files) {
  for (const file of files) {
    const card = element("waiting").content.firstElementChild.cloneNode(true);
    card.querySelector(".name").textContent = file.name;
    cards.append(card);
    waiting.push({ file, card });
    all += 1;
  }
  showProgress();
  while (running < AT_ONCE && waiting.length) work();
}

async function work() {
  running += 1;
  while (waiting.length) {
    const { file, card } = waiting.shift();
    if (!card.isConnected) continue;
    const answer = await judge(file);
    if (!card.isConnected) continue;
    card.replaceWith(answer);
    done += 1;
    showProgress();
  }
  running -= 1;
}

// Returns the card of a picture. Retries while the service is busy.
async function judge(file) {
  for (let attempt = 0; attempt < RETRIES; attempt += 1) {
    let response;
    try {
      const form = new FormData();
      form.append("image", file);
      response = await fetch("/card" + location.search, { method: "POST", body: form });
      if (response.ok) return judgedCard(file, await response.text());
    } catch {
      // No answer, half an answer, or the page of a proxy.
      return failedCard(file, "offline");
    }
    const retry = Number(response.headers.get("Retry-After"));
    if (!retry || attempt === RETRIES - 1) return failedCard(file, await problemOf(response));
    await new Promise((resolve) => setTimeout(resolve, 1000 * retry));
  }
}

async function problemOf(response) {
  try {
    return (await response.json()).type.split("/").pop();
  } catch {
    return "other";
  }
}

// The answer is the service's own HTML, with all names escaped.
function judgedCard(file, html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const card = holder.content.querySelector(".card");
  const picture = card.querySelector(".shown img");
  if (picture && !picture.getAttribute("src")) picture.src = URL.createObjectURL(file);
  // A form encodes some characters of a name.
  card.querySelector(".name").textContent = file.name;
  card.dataset.result = JSON.stringify({ ...JSON.parse(card.dataset.result), name: file.name });
  return card;
}

function failedCard(file, problem) {
  const card = element("failed").content.firstElementChild.cloneNode(true);
  card.querySelector(".name").textContent = file.name;
  card.querySelector(".why").textContent = texts.problems[problem] || texts.problems.other;
  card.dataset.result = JSON.stringify({ name: file.name, result: null, problem });
  return card;
}

function showProgress() {
  results.hidden = cards.childElementCount === 0;
  element("progress").max = Math.max(all, 1);
  element("progress").value = done;
  element("status").textContent = texts.progress.replace("{done}", done).replace("{all}", all);
}

function clear() {
  for (const picture of cards.querySelectorAll("img")) URL.revokeObjectURL(picture.src);
  waiting.length = 0;
  all = done = 0;
  cards.replaceChildren();
  showProgress();
  element("choose").focus();
}

function saved() {
  return [...cards.querySelectorAll("[data-result]")].map((card) => JSON.parse(card.dataset.result));
}

// One row per face; a picture without faces, or with a problem, has one row too.
function csv(entries) {
  const head = ["name", "face", "left", "top", "right", "bottom", "detection", "score", "verdict", "reason",
    "device", "precision", "model", "notice", "provenance", "problem"];
  const rows = [head];
  for (const { name, result, problem } of entries) {
    const faces = result && result.faces.length ? result.faces : [null];
    faces.forEach((face, index) => {
      const values = face ? [index + 1, ...face.box, face.detection, face.score, face.verdict, face.reason]
        : ["", "", "", "", "", "", "", "", result ? result.reason : ""];
      const says = result && result.provenance && result.provenance.kind ? result.provenance : null;
      const claim = says ? `${says.kind}: ${says.text}` : "";
      const model = result ? [result.device, result.precision, result.model, result.notice, claim] : ["", "", "", "", ""];
      rows.push([name, ...values, ...model, problem]);
    });
  }
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

// Text that a spreadsheet would take for a formula gets an apostrophe. Some spreadsheets also split at semicolons and
// tabs, and some accept full-width signs.
function cell(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" && /^[=+\-@＝＋－＠\t\r\n]/.test(value) ? "'" + value : String(value);
  return /[",;\t\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function save(text, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

for (const id of ["choose", "photograph"]) {
  element(id).addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = "";
  });
}
element("save-json").addEventListener("click", () => save(JSON.stringify(saved(), null, 2), "application/json", "verdicts.json"));
element("save-csv").addEventListener("click", () => save("\uFEFF" + csv(saved()), "text/csv", "verdicts.csv"));
element("clear").addEventListener("click", clear);

document.addEventListener("paste", (event) => add(event.clipboardData.files));
const drop = document.querySelector(".drop");
const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  add(event.dataTransfer.files);
});

if (cards.childElementCount) {
  all = done = cards.childElementCount;
  showProgress();
}

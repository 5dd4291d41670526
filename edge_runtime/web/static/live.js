// Shows the figures that come with the camera's frames. The frames themselves need no script.
"use strict";

const RETRY_MS = 3000;

const element = (id) => document.getElementById(id);
const words = JSON.parse(element("texts").textContent);

function show(id, text) {
  const shown = text === null || text === undefined ? words.unknown : String(text);
  if (element(id).textContent !== shown) element(id).textContent = shown;
}

// Only the words are told, not the changing scores, so that a screen reader speaks when a verdict changes.
function told(faces) {
  const one = (face, index) => words.face.replace("{number}", index + 1) + ": " + words[face.verdict];
  return faces.length ? faces.map(one).join("; ") : null;
}

function tell(event) {
  const said = JSON.parse(event.data);
  show("state", words["state_" + said.state]);
  show("fps", said.fps.toFixed(1));
  show("age", said.age_ms === null ? null : said.age_ms + " ms");
  show("device", said.device);
  show("precision", said.precision.toUpperCase());
  show("temperature", said.temperature === null ? null : said.temperature.toFixed(0) + " °C");
  show("dropped", said.dropped);
  show("viewers", said.viewers);
  show("faces", told(said.faces));
  show("error", said.error || "");
}

// What was told last holds no longer.
function tellOffline() {
  show("state", words.problem_offline);
  for (const id of ["fps", "age", "faces"]) show(id, null);
}

// The picture does not come back by itself; nor do the figures where a proxy answered for a service that starts again.
function watch(again) {
  const source = new EventSource("/live/events");
  source.addEventListener("open", () => {
    if (again) document.querySelector(".watch img").src = "/live/stream?" + Date.now();
    again = false;
  });
  source.addEventListener("message", tell);
  source.addEventListener("error", () => {
    again = true;
    tellOffline();
    if (source.readyState === EventSource.CLOSED) setTimeout(watch, RETRY_MS, again);
  });
}

watch(false);

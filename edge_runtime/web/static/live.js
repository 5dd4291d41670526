// Shows the figures that come with the camera's frames. The frames themselves need no script.
"use strict";

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

const source = new EventSource("/live/events");
source.addEventListener("message", (event) => {
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
  element("error").textContent = said.error || "";
});
source.addEventListener("error", () => show("state", words.problem_offline));

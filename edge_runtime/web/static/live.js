// Shows the camera's picture together with the status of the same frame.
"use strict";

const EVENTS = "/live/events?pictures=true";
const RETRY_MS = 3000;

const element = (id) => document.getElementById(id);
const texts = JSON.parse(element("texts").textContent);

function show(id, value) {
  const text = value === null || value === undefined ? texts.unknown : String(value);
  if (element(id).textContent !== text) element(id).textContent = text;
}

function showPicture(address) {
  element("picture").hidden = !address;
  if (address) element("picture").src = address;
}

// Without the changing scores, so that screen readers speak only when a verdict changes.
function describeFaces(faces) {
  const one = ({ verdict }, index) => {
    const means = texts["means_" + verdict];
    return texts.face.replace("{number}", index + 1) + ": " + texts[verdict] + (means ? ` – ${means}` : "");
  };
  return faces.length ? faces.map(one).join("\n") : null;
}

function showStatus(event) {
  const status = JSON.parse(event.data);
  showPicture(status.picture);
  show("state", texts["state_" + status.state]);
  show("fps", status.fps.toFixed(1));
  show("age", status.age_ms === null ? null : status.age_ms + " ms");
  show("device", status.device);
  show("precision", status.precision.toUpperCase());
  show("temperature", status.temperature === null ? null : status.temperature.toFixed(0) + " °C");
  show("dropped", status.dropped);
  show("viewers", status.viewers);
  if (element("drift")) show("drift", status.drift && texts["drift_" + status.drift.state]);
  show("faces", describeFaces(status.faces));
  show("error", status.error || (status.state === "lost" ? texts.see_log : ""));
}

// An EventSource does not say why it was refused.
async function reason() {
  try {
    const response = await fetch(EVENTS);
    if (!response.ok) return texts.problems[(await response.json()).type.split("/").pop()] || texts.problems.other;
    await response.body.cancel();
  } catch {
    // No answer, or the page of a proxy.
  }
  return texts.problems.offline;
}

function connect() {
  const source = new EventSource(EVENTS);
  source.addEventListener("message", showStatus);
  source.addEventListener("error", async () => {
    showPicture(null);
    for (const id of ["fps", "age", "faces"]) show(id, null);
    // Lost connections are restored by the browser, refused ones are not.
    if (source.readyState === EventSource.CLOSED) {
      show("state", await reason());
      setTimeout(connect, RETRY_MS);
    } else {
      show("state", texts.problems.offline);
    }
  });
}

connect();

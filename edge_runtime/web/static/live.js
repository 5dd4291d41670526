// Shows the status next to the camera's picture. The picture itself needs no script.
"use strict";

const RETRY_MS = 3000;

const element = (id) => document.getElementById(id);
const texts = JSON.parse(element("texts").textContent);

function show(id, value) {
  const text = value === null || value === undefined ? texts.unknown : String(value);
  if (element(id).textContent !== text) element(id).textContent = text;
}

// Without the changing scores, so that screen readers speak only when a verdict changes.
function describeFaces(faces) {
  const one = (face, index) => texts.face.replace("{number}", index + 1) + ": " + texts[face.verdict];
  return faces.length ? faces.map(one).join("; ") : null;
}

function showStatus(event) {
  const status = JSON.parse(event.data);
  show("state", texts["state_" + status.state]);
  show("fps", status.fps.toFixed(1));
  show("age", status.age_ms === null ? null : status.age_ms + " ms");
  show("device", status.device);
  show("precision", status.precision.toUpperCase());
  show("temperature", status.temperature === null ? null : status.temperature.toFixed(0) + " °C");
  show("dropped", status.dropped);
  show("viewers", status.viewers);
  show("faces", describeFaces(status.faces));
  show("error", status.error || "");
}

// The picture does not reconnect by itself. The status does not either after an error page from a proxy.
function connect(reconnecting) {
  const source = new EventSource("/live/events");
  source.addEventListener("open", () => {
    if (reconnecting) document.querySelector(".watch img").src = "/live/stream?" + Date.now();
    reconnecting = false;
  });
  source.addEventListener("message", showStatus);
  source.addEventListener("error", () => {
    reconnecting = true;
    show("state", texts.problems.offline);
    for (const id of ["fps", "age", "faces"]) show(id, null);
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS, reconnecting);
  });
}

connect(false);

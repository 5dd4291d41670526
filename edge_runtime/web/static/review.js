// Keys for the buttons of the review page. Without this script the buttons work alone.
"use strict";

let sent = false;

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    // A second press must not judge the next face unseen.
    if (sent) event.preventDefault();
    sent = true;
  });
}

// A page that comes back from the browser's history was sent before.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "INPUT") return;
  const button = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (button) button.click();
});

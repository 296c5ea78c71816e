// What a keyboard, and a reader of screens, needs of pages that renew themselves.

// Asked again by itself, and the same answer: nothing is exchanged, so nothing is read out twice.
const latest = new Map();
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { target, xhr, requestConfig } = detail;
  if (!target.id) return;
  const unasked = !requestConfig.triggeringEvent;
  if (unasked && latest.get(target.id) === xhr.responseText) detail.shouldSwap = false;
  else latest.set(target.id, xhr.responseText);
});

// What had the focus has it after an exchange, or what is now there of the same kind, or else what it was in.
let before = null;
const nameOf = (element) => element.getAttribute("href") || element.name || element.textContent.trim();
document.addEventListener("htmx:beforeSwap", () => {
  const focused = document.activeElement;
  before = null;
  if (focused === document.body) return;
  const around = [];
  for (let at = focused; at; at = at.parentElement) if (at.id) around.push(at.id);
  before = { focused, around, tag: focused.localName, name: nameOf(focused) };
});
document.addEventListener("htmx:afterSettle", () => {
  if (!before || document.activeElement !== document.body) return;
  const { focused, around, tag, name } = before;
  const place = around.map((id) => document.getElementById(id)).find(Boolean);
  if (!place) return;
  const same = [...place.querySelectorAll(tag)].find((element) => nameOf(element) === name);
  const next = focused.isConnected ? focused : same || place;
  if (next === place && !place.matches("a, button, input, select, textarea")) place.tabIndex = -1;
  next.focus({ preventScroll: true });
});

// Escape closes what was opened around the focus.
document.addEventListener("keydown", (event) => {
  const opened = event.key === "Escape" && event.target.closest("details[open]");
  if (!opened) return;
  opened.open = false;
  opened.querySelector("summary").focus();
});

// What has to be scrolled sideways and has nothing in it to stop at can be stopped at itself.
const STOPS = "a[href], button, input, select, textarea, summary";
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const stops = [...target.querySelectorAll(STOPS)].some((element) => element.checkVisibility());
    if (target.scrollWidth > target.clientWidth && !stops) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
function watch() {
  for (const box of document.querySelectorAll(".vk-scroll, .inline-group, .results")) sizes.observe(box);
}
watch();
document.addEventListener("htmx:load", watch);

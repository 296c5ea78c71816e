// A list with the keyboard. The arrow keys go from row to row, from link to link or from box to box; so do j and k, from
// anywhere on the page. Enter opens, x selects, / goes to the search, ? shows the keys. Letters do nothing while
// somebody types, and can be switched off (they may be in the way of speech input or a screen reader's own keys).
const OFF = "vk-list-keys-off";
const help = document.getElementById("list-keys");
const search = document.getElementById("searchbar");
const rows = () => [...document.querySelectorAll("#result_list tbody tr")];
const isTyping = (one) => one.matches("input:not([type=checkbox], [type=radio], [type=submit], [type=button]), textarea, select, [contenteditable]");
const rowOf = (one) => one.closest?.("#result_list tbody tr");

function go(from, step, kind) {
  const all = rows();
  const next = all[from ? all.indexOf(from) + step : step > 0 ? 0 : all.length - 1];
  const target = next?.querySelector(kind) ?? next?.querySelector("a, input.action-select");
  target?.focus();
  return Boolean(target);
}

const LETTERS = {
  "/": () => { search?.focus(); search?.select(); return Boolean(search); },
  "?": () => { if (!help) return false; help.showModal(); return true; },
  j: (row, kind) => go(row, 1, kind),
  k: (row, kind) => go(row, -1, kind),
  x: (row) => { const box = row?.querySelector("input.action-select"); box?.click(); return Boolean(box); },
};

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.altKey || event.ctrlKey || event.metaKey || isTyping(target) || target.closest("dialog")) return;
  const row = rowOf(target);
  const kind = target.matches("input.action-select") ? "input.action-select" : "a";
  const step = { ArrowDown: 1, ArrowUp: -1 }[key];
  let done = false;
  if (step && row && !event.shiftKey) done = go(row, step, kind);
  else if (key === "Enter" && kind === "input.action-select") {
    row?.querySelector("a")?.click();
    done = true;
  } else if (Object.hasOwn(LETTERS, key) && !localStorage.getItem(OFF)) done = LETTERS[key](row, kind);
  if (done) event.preventDefault();
});

const choice = help?.querySelector("[data-keys]");
if (choice) {
  choice.checked = !localStorage.getItem(OFF);
  choice.addEventListener("change", () => choice.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1"));
  document.querySelector("[data-keys-help]").addEventListener("click", () => help.showModal());
}

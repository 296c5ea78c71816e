// In a list, the arrow keys go from row to row: to the row's link, or to its box if that is where the focus is.
document.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const row = event.target.closest("#result_list tbody tr");
  if (!step || !row || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
  if (!next) return;
  const kind = event.target.matches("input.action-select") ? "input.action-select" : "a";
  const target = next.querySelector(kind);
  if (target) {
    event.preventDefault();
    target.focus();
  }
});

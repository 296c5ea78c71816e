// An order's page says so when it can no longer renew itself, and, to those who do not see it, how the order moved
// on; and the button that prints it.
const lost = document.getElementById("live-lost");
const isPanel = (event) => event.detail.elt.id === "order-panel";
for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => { if (isPanel(event)) lost.hidden = false; });
}
document.addEventListener("htmx:afterRequest", (event) => {
  if (isPanel(event) && event.detail.successful) lost.hidden = true;
});
const state = () => document.querySelector("#order-panel .vk-state").textContent.trim().replace(/\s+/g, " ");
let known = state();
document.addEventListener("htmx:afterSettle", () => {
  if (state() !== known) document.getElementById("order-said").textContent = known = state();
});
document.querySelector("[data-print]")?.addEventListener("click", () => window.print());

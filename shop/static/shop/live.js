// An order's page says so when it can no longer renew itself; and the button that prints it.
const lost = document.getElementById("live-lost");
const isPanel = (event) => event.detail.elt.id === "order-panel";
for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => { if (isPanel(event)) lost.hidden = false; });
}
document.addEventListener("htmx:afterRequest", (event) => {
  if (isPanel(event) && event.detail.successful) lost.hidden = true;
});
document.querySelector("[data-print]")?.addEventListener("click", () => window.print());

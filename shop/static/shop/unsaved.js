// Forms that lose nothing. Leaving a page on which something was typed asks first, and what renews itself waits.
// A form that was sent to a shop that had logged its person out (or took its token for out of date) is kept in this
// tab until that person is back on it: shop/session_pages.py says why here. Kept are what people typed, ticked and
// chose, never passwords, codes, files, or what a form hides; nobody else's page fills it in, and never is it sent.
const KEPT = "vk-kept-forms";
const LASTS_MS = 3_600_000;
const NOT_OURS = "#login-form, #logout-form, #changelist-form";
const SECRET = "[type=password], [type=hidden], [type=file], [autocomplete=one-time-code], [name=code]";
const user = document.getElementById("session-notice")?.dataset.user;
let leaving = null; // the form that is on its way: its own changes are not asked about
let mayLeave = false;

const forms = (within = document) => [...within.querySelectorAll("form[method=post]")].filter((form) => !form.matches(NOT_OURS));
const controls = (form) => [...form.elements].filter((one) => one.name && !one.disabled && !one.closest("[data-aside]") && /^(INPUT|SELECT|TEXTAREA)$/.test(one.tagName) && !/^(submit|button|image|reset)$/.test(one.type));
const words = (id) => document.getElementById(id).content.cloneNode(true);

// --- what is unsaved -------------------------------------------------------------------------------------

function changed(one) {
  if (one.type === "hidden") return false;
  if (one.type === "file") return one.files.length > 0;
  if (one.type === "checkbox" || one.type === "radio") return one.checked !== one.defaultChecked;
  if (one.tagName !== "SELECT") return one.value !== one.defaultValue;
  const options = [...one.options];
  const first = one.multiple || options.some((option) => option.defaultSelected) ? null : options[0];
  return options.some((option) => option.selected !== (option.defaultSelected || option === first));
}
// What came back with errors is not saved either.
const unsaved = (form) => form !== leaving && (form.matches("[data-unsaved]") || form.querySelector(".errorlist") !== null || controls(form).some(changed));
const somethingUnsaved = (within) => forms(within).some(unsaved);

window.addEventListener("beforeunload", (event) => { if (!mayLeave && somethingUnsaved(document)) event.preventDefault(); });
window.addEventListener("pageshow", () => { leaving = null; mayLeave = false; });

// --- keeping ---------------------------------------------------------------------------------------------

function keep(sent) {
  const kept = forms().filter((form) => form === sent || unsaved(form)).map((form) => ({
    action: form.action,
    fields: controls(form).filter((one) => !one.matches(SECRET)).map((one) => [one.name, one.type === "select-multiple" ? [...one.selectedOptions].map((option) => option.value) : one.value, one.checked]),
  }));
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ user, at: Date.now(), interrupted: sent === null, forms: kept }));
  } catch { /* no room, or not allowed: then it is as without this script */ }
}
const drop = () => sessionStorage.removeItem(KEPT);
function kept() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEPT));
    return found && Date.now() - found.at < LASTS_MS ? found : null;
  } catch { return null; }
}

window.addEventListener("submit", (event) => {
  if (event.target.id === "logout-form") drop();
  if (event.defaultPrevented || event.target.method !== "post" || event.target.matches(NOT_OURS)) return;
  keep(event.target);
  leaving = event.target;
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-keep]")) return;
  keep(null);
  mayLeave = true;
});

// --- filling in again ------------------------------------------------------------------------------------

function fill(form, fields) {
  for (const [name, value, checked] of fields) {
    if (!form.elements.namedItem(name)) addRow(form, name);
    for (const one of controls(form).filter((control) => control.name === name && !control.matches(SECRET))) {
      if (one.type === "checkbox" || one.type === "radio") {
        if (one.value === value) one.checked = checked;
      } else if (one.type === "select-multiple") {
        for (const option of one.options) option.selected = value.includes(option.value);
      } else one.value = value;
    }
  }
  const note = words("form-back");
  if (!form.querySelector("[type=file]")) note.querySelector("[data-files]").remove();
  form.prepend(note);
}

// Rows of a table in a form, named form-0-sku, form-1-sku …: there were more of them.
function addRow(form, name) {
  const [, prefix, number] = name.match(/^(.+)-(\d+)-[^-]+$/) ?? [];
  const total = prefix && form.elements.namedItem(`${prefix}-TOTAL_FORMS`);
  const last = total && [...form.querySelectorAll(`[name^="${prefix}-${total.value - 1}-"]`)].at(-1)?.closest("tr");
  if (!last || Number(number) !== Number(total.value)) return;
  const row = last.cloneNode(true);
  for (const one of row.querySelectorAll("[name], [id], [for]")) {
    for (const attribute of ["name", "id", "for"]) {
      if (one.hasAttribute(attribute)) one.setAttribute(attribute, one.getAttribute(attribute).replace(`${prefix}-${total.value - 1}-`, `${prefix}-${number}-`));
    }
  }
  last.after(row);
  total.value = Number(number) + 1;
}

const found = kept();
if (!found) drop();
else if (document.querySelector("#login-form, [data-interrupted]")) {
  sessionStorage.setItem(KEPT, JSON.stringify({ ...found, interrupted: true }));
  document.querySelector("#content-main").prepend(words("form-kept"));
} else if (!found.interrupted || (user && user !== found.user)) drop();
else if (user) {
  const back = found.forms.filter(({ action, fields }) => {
    const form = forms().find((one) => one.action === action);
    if (form) fill(form, fields);
    return form;
  });
  if (back.length) drop();
}

// --- the first wrong field -------------------------------------------------------------------------------

const toFirstError = (within) => within.querySelector("[aria-invalid=true]")?.focus();
toFirstError(document);

// --- what renews itself ----------------------------------------------------------------------------------

const typing = (target) => somethingUnsaved(target) || (target.contains(document.activeElement) && document.activeElement.matches("input:not([type=radio], [type=checkbox], [type=submit]), select, textarea"));
document.addEventListener("htmx:load", (event) => toFirstError(event.detail.elt));
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, requestConfig } = event.detail;
  if (requestConfig.verb !== "get") return;
  if (!requestConfig.triggeringEvent) {
    if (typing(target)) event.detail.shouldSwap = false;
  } else if (somethingUnsaved(target) && !window.confirm(words("form-leave").textContent)) event.detail.shouldSwap = false;
});
document.addEventListener("htmx:oobBeforeSwap", (event) => { if (typing(event.detail.target)) event.detail.shouldSwap = false; });
document.addEventListener("htmx:beforeOnLoad", (event) => {
  // The session has ended while something renewed itself: the page may go to the log-in, but not with what was typed.
  if (event.detail.xhr.getResponseHeader("HX-Refresh") !== "true" || !somethingUnsaved(document)) return;
  event.preventDefault();
  document.dispatchEvent(new Event("vk:logged-out"));
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.elt.tagName !== "FORM" || event.detail.requestConfig.verb === "get") return;
  keep(event.detail.elt);
  leaving = event.detail.elt;
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.elt !== leaving) return;
  if (event.detail.xhr.getResponseHeader("HX-Redirect")) return; // it is on its way to the log-in
  leaving = null;
  drop();
});

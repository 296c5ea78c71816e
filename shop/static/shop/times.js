// Times in the reader's own zone: the page has UTC, which stays as the tip. data-countdown says how long until then.
// What htmx puts into the page comes by here within a second.
const language = document.documentElement.lang || undefined;
const short = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat(language);
const UNITS = [["day", 86400, 172800], ["hour", 3600, 7200], ["minute", 60, 120], ["second", 1, 0]];

function untilThen(moment) {
  const seconds = (moment - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, , least]) => Math.abs(seconds) >= least);
  return relative.format(Math.trunc(seconds / size), unit);
}

function tell() {
  for (const time of document.querySelectorAll("time[data-local]:not([data-told])")) {
    const utc = time.textContent.trim();
    time.title = utc.endsWith("UTC") ? utc : `${utc} UTC`;
    time.textContent = (time.dataset.local === "seconds" ? exact : short).format(new Date(time.dateTime));
    time.dataset.told = "";
  }
  for (const time of document.querySelectorAll("time[data-countdown]")) {
    const words = untilThen(new Date(time.dateTime));
    if (time.textContent !== words) time.textContent = words;
  }
}

document.documentElement.classList.add("vk-local-times");
tell();
document.addEventListener("htmx:load", tell);
setInterval(tell, 1000);

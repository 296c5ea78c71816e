// Says two minutes before a session ends that it does, and offers to go on. Another tab may have done so already, or
// logged in anew: the shop is asked before anything is said.
const notice = document.getElementById("session-notice");
const WARN_MS = 120_000;
let ends = 0;
let asking = false;

function say(id) {
  if (notice.dataset.said === id) return;
  notice.dataset.said = id;
  notice.replaceChildren(...(id ? [document.getElementById(id).content.cloneNode(true)] : []));
}
const lasts = (seconds) => { ends = Date.now() + seconds * 1000; };

async function ask(options) {
  if (asking) return;
  asking = true;
  try {
    const answer = await fetch(notice.dataset.url, options);
    if (answer.headers.get("content-type")?.includes("json")) lasts((await answer.json()).seconds);
    say(ends <= Date.now() ? "session-ended" : ends - Date.now() < WARN_MS ? "session-ending" : "");
  } catch { /* not reachable: asked again */ } finally { asking = false; }
}

if (notice) {
  lasts(Number(notice.dataset.seconds));
  const look = () => { if (ends - Date.now() < WARN_MS && notice.dataset.said !== "session-ended") ask(); };
  setInterval(look, 5000);
  look();
  document.addEventListener("vk:logged-out", () => say("session-ended"));
  document.addEventListener("visibilitychange", () => { if (!document.hidden && notice.dataset.said) ask(); });
  notice.addEventListener("click", (event) => {
    if (!event.target.closest("[data-stay]")) return;
    const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
    ask({ method: "POST", headers: { "X-CSRFToken": token } });
  });
}

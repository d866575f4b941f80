// Fetches parts of a page again and swaps in those that changed; lists marked data-renew stay fresh.

const EVERY = 5_000;
const PATIENCE = 10_000;
let newest = 0;

/** The status of the answer, 0 without one; of calls that overlap the newest alone swaps. */
export async function renew(url, ...ids) {
  const turn = ++newest;
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(PATIENCE) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (answer.ok && turn === newest)
      for (const id of ids) swap(document.getElementById(id), page.getElementById(id));
    return answer.status;
  } catch {
    return 0;
  }
}

function swap(old, fresh) {
  if (!old || !fresh || old.isEqualNode(fresh)) return;
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  old.replaceWith(document.adoptNode(fresh));
  if (focused) keepPlace(fresh, focused);
}

// Whoever stands in it with the keyboard goes on from there, though the link itself may be gone.
function keepPlace(part, { id, href }) {
  const isSame = (element) => (id ? element.id === id : href && element.href === href);
  const place = [...part.querySelectorAll("[id], [href]")].find(isSame) ?? part;
  if (place === part) part.tabIndex = -1;
  place.focus({ preventScroll: true });
}

export function signInLink() {
  const link = document.createElement("a");
  link.href = `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`;
  link.textContent = "sign in again";
  return link;
}

function keepFresh(ids) {
  const line = document.createElement("p");
  line.className = "hint";
  line.role = "status";
  document.querySelector("h1").after(line);
  let [told, since] = [200, new Date()];

  function tell(status) {
    if (status === 200) since = new Date();
    if (status === told) return;
    told = status;
    line.textContent = status === 200 ? "" : `Not renewed since ${since.toISOString().slice(11, 19)} UTC`;
    if (status === 401) line.append(": ", signInLink());
  }

  async function look() {
    if (!document.hidden) tell(await renew(location.href, ...ids));
    setTimeout(look, EVERY);
  }

  setTimeout(look, EVERY);
}

const marked = [...document.querySelectorAll("[data-renew]")].map((element) => element.id);
if (marked.length) keepFresh(marked);

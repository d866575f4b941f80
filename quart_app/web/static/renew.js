// Fetches this page again and swaps in the parts that changed; lists marked data-renew stay fresh.

const EVERY = 5_000;
let newest = 0;

export async function renew(...ids) {
  const turn = ++newest;
  const answer = await fetch(location.href).catch(() => null);
  const text = answer?.ok ? await answer.text().catch(() => "") : "";
  if (!text || turn !== newest) return;
  const page = new DOMParser().parseFromString(text, "text/html");
  for (const id of ids) swap(document.getElementById(id), page.getElementById(id));
}

function swap(old, fresh) {
  if (!old || !fresh || old.isEqualNode(fresh)) return;
  // Whoever stands on a link in it with the keyboard must not lose their place.
  if (!old.contains(document.activeElement)) old.replaceWith(document.adoptNode(fresh));
}

const marked = [...document.querySelectorAll("[data-renew]")].map((element) => element.id);
if (marked.length) setInterval(() => document.hidden || renew(...marked), EVERY);

// Counts the segments a text needs, as the networks do, while it is typed; a form is sent once.

const BASIC =
  "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
const EXTENDED = "\f^{}\\[~]|€";

const septets = (char) => (BASIC.includes(char) ? 1 : EXTENDED.includes(char) ? 2 : NaN);

/** Units are septets in GSM-7 and UTF-16 units in UCS-2; `left` is the room in the last segment. */
window.smsSegments = (text) => {
  const chars = [...text];
  const gsm = chars.map(septets);
  return gsm.includes(NaN)
    ? pack("UCS-2", chars.map((char) => char.length), 70, 67)
    : pack("GSM-7", gsm, 160, 153);
};

function pack(encoding, widths, single, part) {
  const units = widths.reduce((sum, width) => sum + width, 0);
  if (units <= single) return { encoding, units, count: units ? 1 : 0, left: single - units };
  let [count, left] = [1, part];
  for (const width of widths) {
    // A character of two units is never cut in half: it moves to the next segment whole.
    if (width > left) [count, left] = [count + 1, part];
    left -= width;
  }
  return { encoding, units, count, left };
}

function describe(text) {
  const { encoding, count, left } = window.smsSegments(text);
  const parts = [count === 1 ? "1 SMS" : `${count} SMS`, `${left} left`, encoding];
  const cause = encoding === "UCS-2" && [...text].find((char) => !septets(char));
  return parts.join(" · ") + (cause ? ` because of “${cause}”` : "");
}

const [text, meter] = ["text", "segments"].map((id) => document.getElementById(id));
const show = () => (meter.textContent = describe(text.value));
text.addEventListener("input", show);
meter.hidden = false;
show();

const button = text.form.querySelector("button");
text.form.addEventListener("submit", () => (button.disabled = true));
// Whoever comes back to the page finds it as it was left.
addEventListener("pageshow", () => (button.disabled = false));

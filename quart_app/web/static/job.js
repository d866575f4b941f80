// Follows one job over its WebSocket and keeps the page in step; the page works without it too.

import { renew, signInLink } from "./renew.js";

const FINAL = ["succeeded", "failed", "cancelled"];
const NOT_NOW = 1013;
const REFUSED = { 4401: "signed out", 4403: "not allowed", 4404: "unknown job" };
const LINES = 2000;
const SILENCE = 60_000;
const PATIENCE = 10_000;
const STEADY = 5_000;
const EXPLAIN_EVERY = 5_000;

const find = (selector) => document.querySelector(selector);
const { frames, after, parts } = find("#job").dataset;
const log = find("#log");
const lines = find("#lines");
const bar = find("#progress progress");

let cursor = Number(after);
let waiting = [];
let tries = 0;
let opened = 0;
let socket, watchdog, comeback, renewal;

function connect() {
  comeback = clearTimeout(comeback);
  const url = new URL(frames, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("after", cursor);
  opened = 0;
  socket = new WebSocket(url);
  socket.onopen = live;
  socket.onmessage = ({ data }) => received(JSON.parse(data));
  socket.onclose = ({ code }) => closed(code);
  watch(PATIENCE);
}

function live() {
  opened = Date.now();
  say("live");
  watch(SILENCE);
}

function received(frame) {
  watch(SILENCE);
  apply(frame);
}

function watch(patience) {
  clearTimeout(watchdog);
  watchdog = setTimeout(abandon, patience);
}

// A dead connection may take minutes to say that it closed, and a quiet one looks the same.
function abandon() {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close();
  closed(1006);
}

function closed(code) {
  clearTimeout(watchdog);
  if (code === 1000) return say("ended");
  if (code in REFUSED) return refused(code);
  // One that was steady is worth no word: the next attempt may do.
  if (opened && Date.now() - opened > STEADY && code !== NOT_NOW) tries = 0;
  else say("reconnecting…");
  // A restarting server has said so: the first return needs no pause, later ones do.
  const pause = code === 1012 && tries === 0 ? 0 : 500 + Math.random() * Math.min(14_500, 500 * 2 ** tries);
  tries += 1;
  comeback = setTimeout(connect, pause);
}

function refused(code) {
  say(REFUSED[code]);
  if (code === 4401) find("#connection").append(": ", signInLink());
}

function say(text) {
  const place = find("#connection");
  if (place.textContent === text) return;
  place.className = text.replace("…", "");
  place.textContent = text;
}

function apply(frame) {
  if (frame.type === "progress") return showProgress(frame);
  if (!(frame.seq > cursor)) return;
  cursor = frame.seq;
  if (frame.type === "state") showState(frame);
  if (frame.type === "state" || frame.type === "log") addLine(frame);
}

function showState(frame) {
  const badge = find("#job .now .badge");
  badge.className = `badge ${frame.state}`;
  badge.textContent = frame.state;
  find("#progress").hidden = frame.state !== "running";
  if (frame.state === "running") setTime("#started", frame.at);
  if (FINAL.includes(frame.state)) setTime("#finished", frame.at);
  showOutcome(frame);
  clearTimeout(renewal);
  renewal = setTimeout(renew, 200, parts, "why", "actions", "facts");
}

// Why it waits changes without an event: those before it become fewer.
async function explain() {
  const answer = await fetch(find("#why").dataset.from).catch(() => null);
  const why = answer?.ok ? await answer.json().catch(() => null) : null;
  if (why) find("#why").textContent = why.detail;
}

function showOutcome({ state, result, error }) {
  const place = find("#outcome");
  // That it was cancelled is said by its state and its last line.
  place.hidden = state === "cancelled" || (error ?? result ?? null) === null;
  place.querySelector("h2").textContent = error ? "Error" : "Result";
  place.querySelector("pre").textContent = error ?? JSON.stringify(result, null, 2);
}

function showProgress({ current, total, message }) {
  if (total) [bar.max, bar.value] = [total, current ?? 0];
  else bar.removeAttribute("value");
  find("#progress .amount").textContent = total ? `${current ?? 0} of ${total}` : "";
  find("#progress .message").textContent = message ?? "";
}

function setTime(selector, at) {
  const time = make("time", `${at.slice(0, 19).replace("T", " ")} `);
  time.dateTime = at;
  time.append(make("small", "UTC"));
  find(selector).replaceChildren(time);
}

function addLine({ at, type, state, level, message, error, traceback }) {
  const line = make("li", "", `${type} ${level ?? state}`);
  const time = make("time", at.slice(11, 23));
  time.dateTime = at;
  line.append(time, " ", make("b", level ?? state), " ", make("span", message ?? error ?? ""));
  if (traceback) line.append(details("Traceback", traceback));
  if (waiting.push(line) === 1) requestAnimationFrame(flush);
  if (waiting.length > LINES) waiting.shift();
}

// Once per painted frame: a burst of lines then costs one layout.
function flush() {
  const atBottom = log.scrollHeight - log.scrollTop - log.clientHeight < 8;
  lines.append(...waiting.splice(0));
  if (lines.childElementCount > LINES) find("#older").hidden = false;
  while (lines.childElementCount > LINES) lines.firstElementChild.remove();
  if (atBottom) log.scrollTop = log.scrollHeight;
}

function details(summary, text) {
  const element = document.createElement("details");
  const body = make("pre", text);
  body.tabIndex = 0;
  element.append(make("summary", summary), body);
  return element;
}

function make(tag, text, kind) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

log.scrollTop = log.scrollHeight;
setInterval(() => document.hidden || find("#why").hidden || explain(), EXPLAIN_EVERY);
addEventListener("online", () => comeback && connect());
connect();

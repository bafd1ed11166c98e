/** The demo page: sending and showing is the component's; here is what a server of files adds. */

import { unsent } from "{{component}}";

const RELOAD_MS = 150;
const SAMPLE_BYTES = 40_000_000;

/** @type {(selector: string) => any} */
const $ = (selector) => document.querySelector(selector);
const bars = $("upload-progress");

addEventListener("beforeunload", (event) => {
  if (unsent()) event.preventDefault();
});
bars.addEventListener("unauthorized", signIn);
bars.addEventListener("complete", reload);

function signIn() {
  location.assign("/login");
}

// --- for those who have no large file at hand ---------------------------------------------------

$("#sample").addEventListener("click", () => {
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
  bars.upload(new File([new Uint8Array(SAMPLE_BYTES)], `made-up-${time}.bin`), "/files/{name}");
});

// --- what is said about the bars ------------------------------------------------------------------

const LINES = {
  websocket: ["Live", ", by WebSocket"],
  sse: ["Live", ", by event stream"],
  polling: ["Asking", " every second"],
};
const clear = $("#clear");
clear.addEventListener("click", () => bars.clearFinished());

function showLine() {
  const [word, rest] = LINES[bars.dataset.connection] ?? [];
  clear.hidden = !bars.hasAttribute("data-finished");
  $("#line").hidden = !word;
  $("#line").replaceChildren(word ?? "", make("span", "", rest));
}

new MutationObserver(showLine).observe(bars, {
  attributeFilter: ["data-finished", "data-connection"],
});
showLine();

// --- received files -------------------------------------------------------------------------------

let timer = 0;

function reload() {
  clearTimeout(timer);
  timer = setTimeout(showFiles, RELOAD_MS);
}

async function showFiles() {
  const answer = await fetch("/files").catch(() => null);
  if (answer?.status === 401) return signIn();
  if (!answer?.ok) return;
  const files = await answer.json();
  $("#none").hidden = files.length > 0;
  $("#received").hidden = files.length === 0;
  $("#count").textContent = files.length || "";
  $("#received").replaceChildren(...files.map(fileItem));
}

function fileItem(file) {
  const link = make("a", "", file.name);
  link.href = `/files/${encodeURIComponent(file.name)}`;
  link.dir = "auto";
  const time = make("time", "", new Date(file.uploaded_at).toLocaleString("en-GB", TIME_FORM));
  time.dateTime = file.uploaded_at;
  const item = make("li");
  const checksum = file.sha256 ? `sha256 ${file.sha256}` : "no checksum";
  item.append(link, make("span", "size", spellBytes(file.size)), time, make("span", "sha", checksum));
  return item;
}

const TIME_FORM = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.textContent = text;
  return node;
}

function spellBytes(bytes) {
  const power = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toFixed(power ? 1 : 0)} ${["byte", "kB", "MB", "GB", "TB"][power]}`;
}

showFiles();

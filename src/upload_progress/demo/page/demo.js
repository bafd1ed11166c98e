/** The demo page. The component uploads and shows progress; this script adds the list of files. */

import { unsent } from "{{component}}";

const RELOAD_MS = 150;
const TEST_DATA_BYTES = 40_000_000;

/** @type {(selector: string) => any} */
const $ = (selector) => document.querySelector(selector);
const progress = $("upload-progress");

addEventListener("beforeunload", (event) => {
  if (unsent()) event.preventDefault();
});
progress.addEventListener("unauthorized", signIn);
progress.addEventListener("complete", reloadSoon);

function signIn() {
  location.assign("/login");
}

// --- test data, for visitors without a large file -----------------------------------------------

$("#test-data").addEventListener("click", () => {
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
  progress.upload(new File([new Uint8Array(TEST_DATA_BYTES)], `test-data-${time}.bin`), "/files/{name}?sample");
});

// --- state of the connection ----------------------------------------------------------------------

const CONNECTION_TEXTS = {
  websocket: ["Live", " over WebSocket"],
  sse: ["Live", " over event stream"],
  polling: ["Polling", " every second"],
};
const clear = $("#clear");
clear.addEventListener("click", () => progress.clearFinished());

function showConnection() {
  const [status, detail] = CONNECTION_TEXTS[progress.dataset.connection] ?? [];
  // A panel has this button itself.
  clear.hidden = !progress.hasAttribute("data-finished") || progress.hasAttribute("data-panel");
  $("#connection").hidden = !status;
  $("#connection").replaceChildren(status ?? "", make("span", "", detail));
}

new MutationObserver(showConnection).observe(progress, {
  attributeFilter: ["data-finished", "data-connection", "data-panel"],
});
showConnection();

// --- received files -------------------------------------------------------------------------------

let timer = 0;

function reloadSoon() {
  clearTimeout(timer);
  timer = setTimeout(showFiles, RELOAD_MS);
}

async function showFiles() {
  const response = await fetch("/files").catch(() => null);
  if (response?.status === 401) return signIn();
  if (!response?.ok) return;
  const files = await response.json();
  $("#no-files").hidden = files.length > 0;
  $("#received").hidden = files.length === 0;
  $("#count").textContent = files.length || "";
  $("#received").replaceChildren(...files.map(fileItem));
}

function fileItem(file) {
  const link = make("a", "", file.name);
  link.href = `/files/${encodeURIComponent(file.name)}`;
  link.dir = "auto";
  const time = make("time", "", new Date(file.uploaded_at).toLocaleString(undefined, TIME_FORMAT));
  time.dateTime = file.uploaded_at;
  const item = make("li");
  const checksum = file.sha256 ? `sha256 ${file.sha256}` : "no checksum";
  item.append(link, make("span", "size", formatBytes(file.size)), time, make("span", "checksum", checksum));
  return item;
}

const TIME_FORMAT = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };

function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.textContent = text;
  return node;
}

function formatBytes(bytes) {
  const exponent = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  const unit = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"][exponent];
  const digits = { minimumFractionDigits: exponent ? 1 : 0, maximumFractionDigits: exponent ? 1 : 0 };
  const unitDisplay = exponent ? "short" : "long";
  const format = new Intl.NumberFormat(undefined, { style: "unit", unit, unitDisplay, ...digits });
  return format.format(bytes / 1000 ** exponent);
}

showFiles();

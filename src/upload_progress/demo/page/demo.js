/** The demo page: sends files, and leaves the telling to <upload-progress>. */

const PARALLEL = 3; // a browser has six connections to a server: some stay free for asking
const RELOAD_MS = 150;

const $ = (selector) => document.querySelector(selector);
const bars = $("upload-progress");
const drop = $("#drop");
const queue = [];
const running = new Map();

// --- sending ------------------------------------------------------------------------------------

/** Tell the server what will come, so that it waits in the list with its name and size. */
async function announce(file) {
  const answer = await fetch("/uploads", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      filename: file.name,
      total_bytes: file.size,
      ...(file.type && { content_type: file.type }),
    }),
  });
  if (answer.status === 401) signIn();
  // An upload is never refused for want of a bar: it then goes under an id of our own.
  return answer.ok ? (await answer.json()).upload_id : makeId();
}

function makeId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function add(files) {
  for (const file of files) {
    try {
      queue.push({ file, id: await announce(file) });
    } catch {
      return notice("The server does not answer; nothing was sent.");
    }
    sendNext();
  }
}

function sendNext() {
  while (running.size < PARALLEL && queue.length) send(queue.shift());
}

function send({ file, id }) {
  const request = new XMLHttpRequest();
  running.set(id, request);
  request.open("PUT", `/files/${encodeURIComponent(file.name)}`);
  request.setRequestHeader("Upload-Id", id);
  request.upload.onprogress = ({ loaded }) => bars.handedOver(id, loaded);
  request.onerror = () => giveUp(id, file);
  request.onloadend = () => {
    running.delete(id);
    if (request.status === 401) signIn();
    sendNext();
  };
  request.send(file);
}

/** Where not even a connection came about, the server still waits: tell it not to. */
function giveUp(id, file) {
  const upload = bars.uploads.find((one) => one.upload_id === id);
  if (!upload || upload.state === "pending") {
    notice(`${file.name} could not be sent: it cannot be read, or the server does not answer.`);
    bars.cancel(id)?.catch(() => {});
  }
}

// --- what the server says -------------------------------------------------------------------------

bars.addEventListener("upload-change", ({ detail: upload }) => {
  if (upload.state === "completed") reload();
  if (upload.state !== "cancelled") return;
  const waiting = queue.findIndex(({ id }) => id === upload.upload_id);
  if (waiting >= 0) queue.splice(waiting, 1);
  running.get(upload.upload_id)?.abort();
});
bars.addEventListener("upload-signin", signIn);

function signIn() {
  location.assign("/login");
}

function notice(text) {
  $("#notice").textContent = text;
  $("#notice").hidden = !text;
}

const clear = $("#clear");
clear.addEventListener("click", () => bars.clearFinished());
new MutationObserver(() => (clear.hidden = !bars.hasAttribute("data-finished"))).observe(bars, {
  attributeFilter: ["data-finished"],
});

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
  $("#received").replaceChildren(...files.map(fileItem));
}

function fileItem(file) {
  const link = make("a", "", file.name);
  link.href = `/files/${encodeURIComponent(file.name)}`;
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
  return `${(bytes / 1000 ** power).toFixed(power ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

// --- choosing and dropping ------------------------------------------------------------------------

$("#files").addEventListener("change", ({ target }) => {
  notice("");
  add([...target.files]);
  target.value = "";
});

function files(transfer) {
  const isFolder = (item) => item.webkitGetAsEntry?.()?.isDirectory;
  const items = [...transfer.items].filter((item) => item.kind === "file");
  if (items.some(isFolder)) notice("Folders cannot be sent; choose the files in them.");
  return items.filter((item) => !isFolder(item)).map((item) => item.getAsFile());
}

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
// The whole window takes drops: beside the target, a browser would open the file instead.
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  notice("");
  add(files(event.dataTransfer));
});
addEventListener("beforeunload", (event) => {
  if (running.size || queue.length) event.preventDefault();
});

showFiles();

/**
 * <upload-progress>: how far an upload is, in the server's words.
 *
 *   <script type="module" src="/uploads/upload-progress.js"></script>
 *   <upload-progress src="/uploads" upload-id="all"></upload-progress>
 *
 * Attributes: `src`, where the progress API is mounted; `upload-id`, one upload, or `all`.
 * Events (bubbling): `upload-change` for each snapshot, `upload-signin` when the server wants
 * to know who asks. Methods: `cancel(id)`, `handedOver(id, bytes)`, `clearFinished()`.
 * Colours: --upload-progress-accent, -good, -bad, -warn, -text, -muted, -line, -track, -surface.
 */

const FINAL = new Set(["completed", "failed", "cancelled"]);
const KEPT_ROWS = 100;
const CALM_MS = 300; // what is shorter than this is shown once, as it ended
const CONFIRM_MS = 2000;
const POLL_MS = 1000;
const LONGEST_WAIT_MS = 15000;
const WAKE_EVENTS = [[globalThis, "online"], [document, "visibilitychange"]];

const isFinal = (upload) => FINAL.has(upload.state);

/**
 * Whether `next` tells more than `known`. A snapshot that was created after all that is known
 * belongs to a later upload of the same id: the server has started afresh.
 */
function isNewer(next, known) {
  if (!known || known.isLost) return true;
  if (next.attempt !== known.attempt || next.sequence !== known.sequence) {
    if (Date.parse(next.created_at) > Date.parse(known.updated_at)) return true;
    if (next.attempt !== known.attempt) return next.attempt > known.attempt;
    return next.sequence > known.sequence;
  }
  // The same version, seen again: a live answer counts on between two versions.
  return next.bytes_transferred > known.bytes_transferred;
}

/**
 * Follows uploads over one WebSocket, and by asking every second while there is none.
 * Events: `upload` (detail: the snapshot), `connection` (detail: "live", "polling", "lost"),
 * `signin`.
 */
export class ProgressFeed extends EventTarget {
  #src;
  #uploadId;
  #uploads = new Map();
  #confirmed = new Set();
  #socket = null;
  #isRunning = false;
  #wake = () => {};

  constructor(src, uploadId = "all") {
    super();
    this.#src = src.replace(/\/+$/, "");
    this.#uploadId = uploadId;
  }

  get uploads() {
    return [...this.#uploads.values()];
  }

  start() {
    if (this.#isRunning) return;
    this.#isRunning = true;
    for (const [target, name] of WAKE_EVENTS) target.addEventListener(name, this.#nudge);
    this.#run();
  }

  stop() {
    this.#isRunning = false;
    for (const [target, name] of WAKE_EVENTS) target.removeEventListener(name, this.#nudge);
    this.#socket?.close();
    this.#wake();
  }

  async cancel(uploadId) {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#socket.send(JSON.stringify({ type: "cancel", upload_id: uploadId }));
    } else {
      await fetch(this.#url(encodeURIComponent(uploadId)), { method: "DELETE" });
    }
  }

  #url(path) {
    return new URL(`${this.#src}/${path}`, document.baseURI);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #nudge = () => {
    if (document.visibilityState === "visible") this.#wake();
  };

  /** Sleep, unless something happens that makes it worth trying at once. */
  #sleep(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => (clearTimeout(timer), resolve());
    });
  }

  async #run() {
    let failures = 0;
    while (this.#isRunning) {
      failures = (await this.#listen()) ? 0 : failures + 1;
      // Spread over time: a server that comes back is not met by everybody at once.
      const wait = Math.min(LONGEST_WAIT_MS, 500 * 2 ** failures) * (0.5 + Math.random() / 2);
      const until = Date.now() + wait;
      do {
        if (!this.#isRunning) return;
        const isReachable = await this.#poll();
        this.#emit("connection", isReachable ? "polling" : "lost");
        await this.#sleep(isReachable ? POLL_MS : Math.max(until - Date.now(), POLL_MS));
      } while (Date.now() < until);
    }
  }

  /** Hold one socket for as long as it lives; resolve to whether it was of any use. */
  #listen() {
    return new Promise((resolve) => {
      const url = this.#url("progress");
      url.protocol = url.protocol.replace("http", "ws");
      const socket = (this.#socket = new WebSocket(url));
      let isWelcome = false;
      let patience = setTimeout(() => socket.close(), LONGEST_WAIT_MS);
      let silenceMs = LONGEST_WAIT_MS;
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "welcome") {
          isWelcome = true;
          silenceMs = (message.heartbeat_seconds ?? 15) * 2500;
          this.#subscribe(socket);
        }
        if (message.type === "progress") this.#accept(message.upload);
        clearTimeout(patience);
        patience = setTimeout(() => socket.close(), silenceMs);
      };
      socket.onclose = ({ code }) => {
        clearTimeout(patience);
        this.#socket = null;
        if (code === 4401) this.#signIn();
        resolve(isWelcome);
      };
    });
  }

  #subscribe(socket) {
    const what = this.#uploadId === "all" ? { all: true } : { upload_id: this.#uploadId };
    socket.send(JSON.stringify({ type: "subscribe", ...what }));
    this.#confirmed.clear();
    setTimeout(() => this.#socket === socket && this.#confirm(), CONFIRM_MS);
    this.#emit("connection", "live");
  }

  #signIn() {
    this.stop();
    this.#emit("signin");
  }

  #accept(upload) {
    this.#confirmed.add(upload.upload_id);
    if (!isNewer(upload, this.#uploads.get(upload.upload_id))) return;
    this.#uploads.delete(upload.upload_id);
    this.#uploads.set(upload.upload_id, upload);
    this.#forgetOldest();
    this.#emit("upload", upload);
  }

  #forgetOldest() {
    if (this.#uploads.size <= 2 * KEPT_ROWS) return;
    const oldest = this.uploads.find(isFinal);
    if (oldest) this.#uploads.delete(oldest.upload_id);
  }

  /** Ask once; resolve to whether the server answered. */
  async #poll() {
    this.#confirmed.clear();
    if (this.#uploadId !== "all") return this.#ask(this.#uploadId);
    const answer = await this.#fetch("progress");
    if (!answer?.ok) return false;
    for (const upload of (await answer.json()).uploads.reverse()) this.#accept(upload);
    return this.#confirm();
  }

  /** Ask for each open upload that the server has not spoken of: its end must not be missed. */
  async #confirm() {
    const missing = this.uploads.filter((one) => !isFinal(one) && !this.#confirmed.has(one.upload_id));
    for (const { upload_id } of missing) if (!(await this.#ask(upload_id))) return false;
    return true;
  }

  async #ask(uploadId) {
    const answer = await this.#fetch(`${encodeURIComponent(uploadId)}/progress`);
    if (answer?.ok) this.#accept(await answer.json());
    if (answer?.status === 404) this.#lose(uploadId);
    return Boolean(answer?.ok || answer?.status === 404);
  }

  #lose(uploadId) {
    const known = this.#uploads.get(uploadId);
    if (!known) return;
    const error = { code: "unknown", message: "The server does not know this upload any more." };
    const lost = { ...known, state: "failed", stage: null, stalled: false, error, isLost: true };
    this.#uploads.set(uploadId, lost);
    this.#emit("upload", lost);
  }

  async #fetch(path) {
    try {
      const answer = await fetch(this.#url(path), { cache: "no-store" });
      if (answer.status === 401) this.#signIn();
      return answer;
    } catch {
      return null;
    }
  }
}

// --- words ------------------------------------------------------------------------------------

const UNITS = ["B", "kB", "MB", "GB", "TB"];

function power(bytes) {
  return Math.min(UNITS.length - 1, bytes < 1000 ? 0 : Math.floor(Math.log10(bytes) / 3));
}

function inUnit(bytes, unit) {
  return (bytes / 1000 ** unit).toFixed(unit ? 1 : 0);
}

/** 20971520 → "21.0 MB". */
export function spellBytes(bytes) {
  return `${inUnit(bytes, power(bytes))} ${UNITS[power(bytes)]}`;
}

function spellShare(done, total) {
  if (total === null) return spellBytes(done);
  return `${inUnit(done, power(total))} of ${spellBytes(total)}`;
}

function spellTime(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return `${whole} s left`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s left`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min left`;
}

const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function spellState(upload) {
  const { state, stage } = upload;
  if (state === "pending") return "Waiting to start";
  if (state === "receiving") return upload.stalled ? "Stalled" : "Receiving";
  if (state === "processing") return stage ? capitalised(stage.name) : "Processing";
  return capitalised(state);
}

function facts(upload) {
  const words = [];
  if (upload.state === "completed") return [spellBytes(upload.bytes_transferred)];
  if (upload.state === "processing") return [`All ${spellBytes(upload.bytes_transferred)} received`];
  if (upload.state === "pending") return upload.total_bytes === null ? [] : [spellBytes(upload.total_bytes)];
  words.push(spellShare(upload.bytes_transferred, upload.total_bytes));
  if (upload.state !== "receiving") return words;
  if (upload.stalled) return [...words, "no data is arriving"];
  if (upload.bytes_per_second !== null) words.push(`${spellBytes(upload.bytes_per_second)}/s`);
  if (upload.eta_seconds !== null) words.push(spellTime(upload.eta_seconds));
  return words;
}

function fraction(upload) {
  if (upload.state === "completed" || upload.state === "processing") return 1;
  if (upload.total_bytes) return Math.min(1, upload.bytes_transferred / upload.total_bytes);
  return upload.state === "receiving" ? null : 0;
}

function stageFraction({ stage }) {
  return stage?.total ? Math.min(1, stage.done / stage.total) : null;
}

// --- the element ------------------------------------------------------------------------------

const STYLE = `
:host {
  --accent: var(--upload-progress-accent, #2458d3);
  --good: var(--upload-progress-good, #14744a);
  --bad: var(--upload-progress-bad, #b3261e);
  --warn: var(--upload-progress-warn, #8a5300);
  --text: var(--upload-progress-text, #1b2330);
  --muted: var(--upload-progress-muted, #586274);
  --line: var(--upload-progress-line, #e1e5ec);
  --track: var(--upload-progress-track, #e6e9ef);
  --surface: var(--upload-progress-surface, #ffffff);
  display: block;
  container-type: inline-size;
  color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif;
  font-variant-numeric: tabular-nums;
}
@media (prefers-color-scheme: dark) {
  :host {
    --accent: var(--upload-progress-accent, #7ea6ff);
    --good: var(--upload-progress-good, #5fce98);
    --bad: var(--upload-progress-bad, #ff9289);
    --warn: var(--upload-progress-warn, #e9b45c);
    --text: var(--upload-progress-text, #e6eaf1);
    --muted: var(--upload-progress-muted, #9aa5b6);
    --line: var(--upload-progress-line, #2a313c);
    --track: var(--upload-progress-track, #2b323e);
    --surface: var(--upload-progress-surface, #181d25);
  }
}
:host([hidden]), [hidden] { display: none !important; }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: 10px; }
li {
  display: grid;
  grid-template-columns: minmax(0, 1fr) auto auto;
  align-items: center;
  column-gap: 14px;
  min-height: 40px;
  padding: 12px 16px 12px;
  border: 1px solid var(--line);
  border-radius: 12px;
  background: var(--surface);
  --tone: var(--accent);
}
li[data-state="completed"] { --tone: var(--good); }
li[data-state="failed"] { --tone: var(--bad); }
li[data-state="cancelled"] { --tone: var(--muted); }
li[data-state="paused"], li[data-stalled] { --tone: var(--warn); }
.name { font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.percent { font-weight: 600; font-size: 17px; text-align: end; min-width: 3.4em; }
li[data-final] .percent { grid-column: 2 / -1; color: var(--muted); font-weight: 500; font-size: 15px; }
button {
  font: inherit; font-size: 13.5px; line-height: 1; color: var(--muted); background: transparent;
  border: 1px solid var(--line); border-radius: 8px; padding: 8px 11px; cursor: pointer;
}
button:hover { color: var(--bad); border-color: currentColor; }
button:focus-visible, li:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
button[aria-disabled] { opacity: .6; cursor: default; }
.bar, .facts, .stage, .problem { grid-column: 1 / -1; }
.bar {
  position: relative; height: 8px; margin-top: 9px; border-radius: 4px;
  background: var(--track); overflow: hidden;
}
.bar i, .thin i {
  position: absolute; inset-block: 0; inset-inline-start: 0; border-radius: inherit;
  background: var(--tone); width: calc(100% * var(--share, 0)); transition: width .25s linear;
}
.bar i.sent { opacity: .24; }
li[data-state="cancelled"] .bar i { opacity: .45; }
li[data-state="cancelled"] .sent, li[data-state="failed"] .sent { display: none; }
.bar[data-unknown] i.got, .thin[data-unknown] i {
  width: 30%; animation: wander 1.6s ease-in-out infinite alternate; transition: none;
}
@keyframes wander { from { left: 0; } to { left: 70%; } }
.facts {
  display: flex; flex-wrap: wrap; margin: 7px 0 0 -20px; font-size: 13.5px; color: var(--muted);
  clip-path: inset(0 0 0 20px); /* hides the dot of what begins a line */
}
.facts > * { position: relative; padding-inline-start: 20px; white-space: nowrap; }
.facts b { font-weight: 600; color: var(--tone); }
.facts span::before { content: "·"; position: absolute; left: 8px; }
.stage { display: flex; align-items: center; gap: 12px; margin-top: 7px; font-size: 13.5px; color: var(--muted); }
.thin { position: relative; flex: 1; height: 4px; border-radius: 2px; background: var(--track); overflow: hidden; }
.problem { margin: 5px 0 0; font-size: 13.5px; color: var(--bad); overflow-wrap: anywhere; }
.connection { margin: 0 0 10px; font-size: 13.5px; color: var(--warn); }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@container (max-width: 420px) {
  li { padding: 12px 13px; column-gap: 10px; }
  .name { white-space: normal; overflow-wrap: anywhere; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; }
}
@media (prefers-reduced-motion: reduce) {
  .bar i, .thin i { transition: none; }
  .bar[data-unknown] i.got, .thin[data-unknown] i { animation: none; left: 35%; }
}
@media (forced-colors: active) {
  .bar, .thin { border: 1px solid CanvasText; }
  .bar i, .thin i { background: Highlight; forced-color-adjust: none; }
}
`;

const SHEET = new CSSStyleSheet();
SHEET.replaceSync(STYLE);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/** Draw a share from 0 to 1; null is "nobody knows". */
function draw(bar, fill, share, words) {
  mark(bar, "data-unknown", share === null ? "" : null);
  if (share !== null) fill.style.setProperty("--share", String(share));
  mark(bar, "aria-valuenow", share === null ? null : Math.floor(share * 100));
  mark(bar, "aria-valuetext", words);
}

/** One upload on the screen. */
class Row {
  sentBytes = 0;
  #last = "";

  constructor(upload, cancel) {
    this.name = make("div", { class: "name" });
    this.percent = make("div", { class: "percent" });
    this.button = make("button", { type: "button" }, "Cancel");
    this.sent = make("i", { class: "sent" });
    this.got = make("i", { class: "got" });
    const range = { role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" };
    this.bar = make("div", { class: "bar", ...range }, this.sent, this.got);
    this.state = make("b");
    this.facts = make("div", { class: "facts" }, this.state);
    this.thinFill = make("i");
    this.thin = make("div", { class: "thin", ...range }, this.thinFill);
    this.stageWords = make("span");
    this.stage = make("div", { class: "stage" }, this.thin, this.stageWords);
    this.problem = make("p", { class: "problem" });
    const parts = [this.name, this.percent, this.button, this.bar, this.facts, this.stage, this.problem];
    this.node = make("li", { tabindex: "-1" }, ...parts);
    this.button.addEventListener("click", () => {
      if (this.button.ariaDisabled) return;
      // Not "disabled", which would take the focus away from whoever pressed it.
      this.button.ariaDisabled = "true";
      cancel();
    });
    this.createdAt = Date.parse(upload.created_at);
  }

  /** Show the snapshot; return what to say aloud, which is each new state. */
  show(upload) {
    const label = upload.filename ?? upload.upload_id;
    const words = spellState(upload);
    const details = facts(upload);
    const share = fraction(upload);
    const isEnded = isFinal(upload);
    mark(this.node, "data-state", upload.state);
    mark(this.node, "data-upload-id", upload.upload_id);
    mark(this.node, "data-stalled", upload.stalled ? "" : null);
    mark(this.node, "data-final", isEnded ? "" : null);
    say(this.name, label);
    mark(this.name, "title", label);
    say(this.percent, upload.percent === null ? "" : `${Math.floor(upload.percent)} %`);
    mark(this.button, "aria-label", `Cancel ${label}`);
    this.#close(isEnded);
    mark(this.bar, "aria-label", label);
    const shareWords = share === null ? [] : [`${Math.floor(share * 100)} percent`];
    draw(this.bar, this.got, share, [...shareWords, words, ...details].join(", "));
    this.#showSent(upload);
    say(this.state, words);
    this.#showFacts(details);
    this.#showStage(upload);
    const reason = upload.state === "failed" ? (upload.error?.message ?? "") : "";
    this.problem.hidden = !reason;
    say(this.problem, reason);
    const news = `${label}: ${words}`;
    const spoken = news === this.#last ? null : news;
    this.#last = news;
    return spoken;
  }

  #close(isEnded) {
    if (this.button.hidden === isEnded) return;
    // Whoever stood on the button stays on the row.
    if (isEnded && this.button.matches(":focus")) this.node.focus();
    this.button.ariaDisabled = null;
    this.button.hidden = isEnded;
  }

  #showSent(upload) {
    const share = upload.total_bytes ? Math.min(1, this.sentBytes / upload.total_bytes) : 0;
    this.sent.style.setProperty("--share", String(share));
  }

  #showFacts(details) {
    while (this.facts.childElementCount > details.length + 1) this.facts.lastElementChild.remove();
    while (this.facts.childElementCount < details.length + 1) this.facts.append(make("span"));
    details.forEach((text, index) => say(this.facts.children[index + 1], text));
  }

  #showStage(upload) {
    this.stage.hidden = !upload.stage;
    if (!upload.stage) return;
    const share = stageFraction(upload);
    const { name, done, total } = upload.stage;
    const words = total === null ? `${done}` : `${Math.floor((share ?? 0) * 100)} %`;
    mark(this.thin, "aria-label", `${name}, step after the upload`);
    draw(this.thin, this.thinFill, share, words);
    say(this.stageWords, words);
  }
}

const CONNECTION_WORDS = {
  live: "",
  polling: "No live connection; asking the server every second.",
  lost: "The server does not answer; trying again.",
};

export class UploadProgressElement extends HTMLElement {
  static observedAttributes = ["src", "upload-id"];

  #feed = null;
  #rows = new Map();
  #dirty = new Set();
  #calm = new Map();
  #sent = new Map();
  #list = make("ul", { part: "list" });
  #empty = make("slot", { name: "empty" });
  #connection = make("p", { class: "connection", role: "status" });
  #spoken = make("p", { class: "spoken", role: "status" });
  #isFresh = true;
  #frame = 0;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [SHEET];
    this.#list.hidden = this.#connection.hidden = true;
    root.append(this.#connection, this.#empty, this.#list, this.#spoken);
  }

  /** The newest snapshot of each upload. */
  get uploads() {
    return this.#feed?.uploads ?? [];
  }

  connectedCallback() {
    this.#start();
  }

  disconnectedCallback() {
    this.#feed?.stop();
    this.#feed = null;
    for (const timer of this.#calm.values()) clearTimeout(timer);
    this.#calm.clear();
  }

  attributeChangedCallback() {
    if (!this.#feed) return;
    this.disconnectedCallback();
    this.#rows.clear();
    this.#list.replaceChildren();
    this.#start();
  }

  /** Ask the server to cancel an upload. */
  cancel(uploadId) {
    return this.#feed?.cancel(uploadId);
  }

  /** Show, as a light layer of the bar, what this browser has given to the network. */
  handedOver(uploadId, bytes) {
    this.#sent.set(uploadId, bytes);
    if (this.#rows.has(uploadId)) this.#redraw(uploadId);
  }

  /** Take uploads that have ended off the screen. */
  clearFinished() {
    for (const upload of this.uploads.filter(isFinal)) this.#remove(upload.upload_id);
    this.#tidy();
  }

  #start() {
    const feed = new ProgressFeed(
      this.getAttribute("src") ?? "/uploads",
      this.getAttribute("upload-id") ?? "all",
    );
    this.#feed = feed;
    this.#isFresh = true;
    feed.addEventListener("upload", ({ detail }) => this.#take(detail));
    feed.addEventListener("signin", () => this.#tell("upload-signin"));
    feed.addEventListener("connection", ({ detail }) => {
      const words = CONNECTION_WORDS[detail];
      this.#connection.hidden = !words;
      say(this.#connection, words);
      this.dataset.connection = detail;
      setTimeout(() => (this.#isFresh = false), CALM_MS);
    });
    feed.start();
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }

  #take(upload) {
    const id = upload.upload_id;
    this.#tell("upload-change", upload);
    if (this.#rows.has(id) || this.#isFresh) return this.#redraw(id);
    if (this.#calm.has(id)) return;
    const appear = () => (this.#calm.delete(id), this.#redraw(id));
    this.#calm.set(id, setTimeout(appear, CALM_MS));
  }

  #redraw(uploadId) {
    this.#dirty.add(uploadId);
    this.#frame ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#frame = 0;
    const known = new Map(this.uploads.map((upload) => [upload.upload_id, upload]));
    const news = [];
    for (const id of this.#dirty) {
      const upload = known.get(id);
      if (!upload) continue;
      const row = this.#rows.get(id) ?? this.#insert(upload);
      row.sentBytes = this.#sent.get(id) ?? 0;
      const spoken = row.show(upload);
      if (spoken) news.push(spoken);
      if (isFinal(upload)) this.#sent.delete(id);
    }
    this.#dirty.clear();
    if (news.length) say(this.#spoken, news.join(". "));
    this.#tidy();
  }

  #insert(upload) {
    const row = new Row(upload, () => this.cancel(upload.upload_id));
    const older = [...this.#rows.values()].find((other) => other.createdAt <= row.createdAt);
    // Newest first, on the screen as in the map.
    const rows = [...this.#rows];
    const place = older ? rows.findIndex(([, other]) => other === older) : rows.length;
    rows.splice(place, 0, [upload.upload_id, row]);
    this.#rows = new Map(rows);
    this.#list.insertBefore(row.node, older?.node ?? null);
    return row;
  }

  #remove(uploadId) {
    this.#rows.get(uploadId)?.node.remove();
    this.#rows.delete(uploadId);
  }

  #tidy() {
    const ended = [...this.#rows].filter(([, { node }]) => node.hasAttribute("data-final"));
    const surplus = this.#rows.size - KEPT_ROWS;
    if (surplus > 0) for (const [id] of ended.slice(-surplus)) this.#remove(id);
    this.#list.hidden = this.#rows.size === 0;
    this.#empty.hidden = this.#rows.size > 0;
    mark(this, "data-finished", ended.length || null);
  }
}

if (!customElements.get("upload-progress")) {
  customElements.define("upload-progress", UploadProgressElement);
}

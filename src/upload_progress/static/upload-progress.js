/**
 * <upload-progress>: shows the progress that the server reports, and uploads files.
 *
 *   <script type="module" src="/uploads/upload-progress.js"></script>
 *   <upload-progress src="/uploads" all></upload-progress>
 *
 * Sections: texts, client, transfers, element, forms. The guide lists all attributes, parts, events.
 *
 * @import {Panel} from "./upload-progress/panel.js"
 * @import {Parts} from "./upload-progress/parts.js"
 * @import {Access, Outcome, Part, Snapshot, State, Target, UploadError, UploadOptions} from "./types.d.ts"
 */

// Delay before a new row, so that a shorter upload is shown once, in its final state.
const SHOW_DELAY_MS = 120;
// Minimum time in which a row shows a state.
const MIN_STATE_MS = 300;
const POLL_MS = 1000;
const MAX_DELAY_MS = 15000;
const MAX_RETRY_AFTER_MS = 3600000;
// A stream without a message for so long is buffered by a proxy.
const OPEN_TIMEOUT_MS = 4000;
const MAX_ROWS = 100;
const MAX_CLEARED = 1000;
// Without a byte for so long, there is no speed, and the page asks whether the server responds.
const IDLE_MS = 3000;
// How often an interrupted upload is sent again by itself.
const MAX_RESENDS = 10;
const DEFAULT_SRC = "/uploads";

/** @type {(upload?: Snapshot) => boolean} */
const isFinal = (upload) => !!upload && /^(completed|failed|cancelled)$/.test(upload.state);
/** @type {(bytes: number, total: number | null) => number | null} */
const shareOf = (bytes, total) => (total ? Math.min(1, bytes / total) : null);

// --- texts ------------------------------------------------------------------------------------

/** @type {Record<string, Record<string, string>>} */
export const LABELS = {};

/** Add texts: per line a key, and its text in each language. @param {string} lines */
function addLabels(lines, languages = ["en", "es", "de"]) {
  for (const line of lines.trim().split("\n")) {
    const [key = "", ...texts] = line.split("|");
    languages.forEach((language, place) => ((LABELS[language] ??= {})[key] = texts[place] ?? ""));
  }
}
addLabels(`
pending|Waiting
receiving|Receiving
paused|Paused
processing|Processing
completed|Completed
failed|Failed
cancelled|Cancelled
stalled|Stalled
of|{0} of {1}
left|{0} left
sent|{0} sent
received|{0} received
stored|{0} stored
no_data|no data is arriving
buffered|buffered by a proxy
attempt|attempt {0}
lost|Interrupted, waiting for the server
cancel|Cancel
retry|Retry
uploads|{0} of {1} uploads
unauthorized|Sign in to see your uploads.
client_disconnected|The connection broke before the last byte.
worker_lost|The server stopped before it had finished.
expired|No data arrived for too long.
unknown|The server does not know this upload.
network|The file cannot be read, or the server does not respond.
`, ["en"]);
/** The title of the page, while another one says that uploads have ended. @type {string | null} */
let pageTitle = null;
const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

/** Formats numbers and states in one language. */
export class Formatter {
  /** @type {Map<string, Intl.NumberFormat>} */
  #formats = new Map();

  /** @param {string} language @param {Record<string, string>} labels */
  constructor(language, labels) {
    const known = LABELS[language.split("-")[0] ?? ""];
    this.language = known || Object.keys(labels).length ? language : "en";
    this.labels = { ...LABELS.en, ...known, ...labels };
  }

  /** @param {string} key @param {(string | number)[]} values */
  text(key, ...values) {
    return (this.labels[key] ?? key).replace(/\{(\d)\}/g, (_, place) => String(values[place]));
  }

  /** @param {number} number @param {string} unit */
  #format(number, unit, digits = 0) {
    const key = unit + digits;
    let format = this.#formats.get(key);
    if (!format) {
      const unitDisplay = unit === UNITS[0] ? "long" : "short";
      const style = unit ? { style: "unit", unit, unitDisplay } : { style: "percent" };
      const options = { ...style, maximumFractionDigits: digits, minimumFractionDigits: digits };
      format = new Intl.NumberFormat(this.language, /** @type {any} */ (options));
      this.#formats.set(key, format);
    }
    return format.format(number);
  }

  /** @param {number} share */
  percent(share) {
    return this.#format(Math.floor(share * 100 + 1e-9) / 100, "");
  }

  /** 20971520 → "21.0 MB". @param {number} bytes */
  bytes(bytes, suffix = "") {
    const exponent = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
    return this.#format(bytes / 1000 ** exponent, UNITS[exponent] + suffix, exponent ? 1 : 0);
  }

  /** Rounded to steps that grow with the time, so that digits do not flicker. @param {number} seconds */
  time(seconds) {
    const rounded = Math.max(1, Math.round(seconds));
    if (rounded < 10) return this.#format(rounded, "second");
    if (rounded < 60) return this.#format(Math.ceil(rounded / 5) * 5, "second");
    const minutes = Math.ceil(rounded / 60);
    if (minutes < 60) return this.#format(minutes, "minute");
    const remainder = minutes % 60 ? ` ${this.#format(minutes % 60, "minute")}` : "";
    return this.#format(Math.floor(minutes / 60), "hour") + remainder;
  }

  /** @param {Snapshot} upload */
  state({ state, stage, stalled, is_interrupted: isInterrupted }) {
    if (isInterrupted) return this.text("lost");
    if (state !== "processing" || !stage) return this.text(stalled ? "stalled" : state);
    const name = this.labels[stage.name] ?? stage.name;
    return name.charAt(0).toUpperCase() + name.slice(1);
  }

  /** @param {number} bytes @param {number | null} total */
  share(bytes, total) {
    return total === null ? this.bytes(bytes) : this.text("of", this.bytes(bytes), this.bytes(total));
  }

  /** @param {number | null} rate @param {number | null} seconds */
  speed(rate, seconds) {
    return [
      ...(rate === null ? [] : [this.bytes(rate, "-per-second")]),
      ...(seconds === null ? [] : [this.text("left", this.time(seconds))]),
    ];
  }

  /** @param {Snapshot} upload */
  reason({ state, error }) {
    if (state !== "failed" || !error) return "";
    return this.labels[error.code] ?? error.message;
  }
}

// --- client -----------------------------------------------------------------------------------

/**
 * Whether `next` is newer than `known`. A snapshot created after the last update of `known` is of a
 * later upload with the same id, after a restart of the server.
 * @param {Snapshot} next @param {Snapshot} [known]
 */
function isNewer(next, known) {
  if (!known || known.is_lost) return true;
  if (next.attempt !== known.attempt || next.sequence !== known.sequence) {
    if (Date.parse(next.created_at) > Date.parse(known.updated_at)) return true;
    if (next.attempt !== known.attempt) return next.attempt > known.attempt;
    // Nothing follows an end, and an end may follow a higher sequence, see SnapshotVersion.
    return isFinal(known) ? false : isFinal(next) || next.sequence > known.sequence;
  }
  // Same version: a poll returns the live byte count, which grows between two versions.
  return next.bytes_transferred > known.bytes_transferred;
}

/** @type {Map<string, ProgressClient>} */
const clients = new Map();

/** @type {(target: Target) => string} */
const pathOf = (target) => {
  if ("upload_id" in target) return `${encodeURIComponent(target.upload_id)}/progress`;
  return "group" in target ? `progress?group=${encodeURIComponent(target.group)}` : "progress";
};

/** Whether the page created this snapshot, before the first of the server. @param {Snapshot} [upload] */
const isLocal = (upload) => !!upload && upload.attempt % 1 > 0;

/**
 * Receives snapshots from one server: from its push server, else by WebSocket, else by event stream,
 * else by polling. Shared by all elements of a page. Events: `upload` (detail: `{upload, known}`), `sent`, `connection`,
 * `unauthorized`.
 */
export class ProgressClient extends EventTarget {
  /** @type {Map<string, Snapshot>} */
  uploads = new Map();
  /** Uploads of this page. @type {Map<string, Transfer>} */
  transfers = new Map();
  /** @type {Transfer[]} */
  queue = [];
  /** @type {Set<Transfer>} */
  sending = new Set();
  // A browser opens six connections to a server: some stay free for progress.
  limit = 3;
  /** @type {"connecting" | "websocket" | "sse" | "polling" | "lost" | "unauthorized"} */
  connection = "connecting";
  /** @type {Access} */
  access = {};
  /** @type {Map<string, {target: Target, count: number, isSubscribed: boolean}>} */
  #targets = new Map();
  #confirmed = new Set();
  /** @type {Map<string, string>} */
  #etags = new Map();
  /** @type {WebSocket | null} */
  #socket = null;
  #stream = new AbortController();
  #polls = new AbortController();
  #isRunning = false;
  #isHidden = document.hidden;
  #isStopping = false;
  #canLongPoll = true;
  #isLongPolling = false;
  /** Whether to receive from the push server; null until the server has named one. @type {boolean | null} */
  #hasEdge = null;
  #wakeups = new EventTarget();
  // When a busy server wants the next request: for a snapshot or a list, and for a stream.
  #pollAt = 0;
  #streamAt = 0;

  /** The client of a mount point. @param {string} src */
  static of(src) {
    const base = new URL(src.replace(/\/*$/, "/"), document.baseURI).href;
    const client = clients.get(base) ?? new ProgressClient(base);
    clients.set(base, client);
    return client;
  }

  /** @param {string} base */
  constructor(base) {
    super();
    this.base = base;
    addEventListener("online", () => this.#check());
    document.addEventListener("visibilitychange", () => this.#setHidden(document.hidden));
    // With an open connection, browsers do not keep a page for "back".
    addEventListener("pagehide", () => this.#setHidden(true));
    addEventListener("pageshow", () => this.#setHidden(document.hidden));
  }

  /** Subscribe; returns a function that unsubscribes. @param {Target} target */
  subscribe(target) {
    const key = JSON.stringify(target);
    const entry = this.#targets.get(key) ?? { target, count: 0, isSubscribed: false };
    this.#targets.set(key, entry);
    if (++entry.count === 1) this.#add(entry);
    return () => {
      if (--entry.count) return;
      this.#targets.delete(key);
      if (entry.isSubscribed) this.#send("unsubscribe", target);
      if (!this.#active.length) this.#disconnect();
    };
  }

  /** Cancel an upload. @param {string} uploadId */
  async cancel(uploadId) {
    const signal = AbortSignal.timeout(OPEN_TIMEOUT_MS);
    await this.fetch(encodeURIComponent(uploadId), { method: "DELETE", signal });
    await this.refresh(uploadId);
  }

  /** Apply a snapshot, unless it is outdated. @param {Snapshot} upload */
  apply(upload) {
    const { upload_id: id } = upload;
    const known = this.uploads.get(id);
    this.#confirmed.add(id);
    if (!isNewer(upload, known)) return;
    if (known?.attempt === upload.attempt && known.created_at === upload.created_at) {
      // Responses may arrive in any order; a bar never goes back.
      upload.bytes_transferred = Math.max(upload.bytes_transferred, known.bytes_transferred);
    }
    this.#store(upload, known);
  }

  /** @param {Snapshot} upload @param {Snapshot} [known] */
  #store(upload, known) {
    const { upload_id: id } = upload;
    const transfer = this.transfers.get(id);
    const path = known?.relative_path ?? transfer?.options.path;
    if (path) upload.relative_path = path;
    // A server that was restarted may not know it.
    upload.filename ??= transfer?.name ?? null;
    if (transfer?.isInterruptedBy(upload)) {
      upload = { ...upload, state: "paused", error: null, bytes_per_second: null, is_interrupted: true };
    }
    this.uploads.delete(id);
    this.uploads.set(id, upload);
    if (this.uploads.size > 10 * MAX_ROWS) {
      const oldest = [...this.uploads.values()].find(isFinal);
      if (oldest) this.uploads.delete(oldest.upload_id);
    }
    this.emit("upload", { upload, known });
    if (isFinal(upload)) transfer?.finish(upload);
  }

  /** Show the upload as interrupted, see `Transfer.isInterruptedBy`. @param {string} uploadId */
  interrupt(uploadId) {
    const known = this.uploads.get(uploadId);
    if (known) this.#store(known, known);
  }

  /** Poll one upload, unless the server is busy; resolves to whether it responded. @param {string} uploadId */
  async refresh(uploadId, longPoll = false) {
    if (this.busyMs) return false;
    const known = this.uploads.get(uploadId);
    const tag = longPoll && this.#etags.get(uploadId);
    const { signal } = this.#polls;
    const wait = tag && { headers: { prefer: "wait=25", "if-none-match": tag }, signal };
    const init = wait || { signal: AbortSignal.timeout(OPEN_TIMEOUT_MS) };
    const response = await this.fetch(`${encodeURIComponent(uploadId)}/progress`, init);
    if (wait) {
      if (signal.aborted) return true;
      this.#canLongPoll = !!response?.headers.has("preference-applied");
    }
    if (response?.ok) {
      const upload = await response.json().catch(() => null);
      if (!upload) return false;
      this.#etags.set(uploadId, response.headers.get("etag") ?? "");
      this.apply(upload);
    }
    if (response?.status === 404) {
      // Without it, the next poll is not a long one, which would be answered at once.
      this.#etags.delete(uploadId);
      this.#markLost(uploadId, known);
    }
    return !!response && (response.ok || response.status === 304 || response.status === 404);
  }

  /** Send a request; null without a response. @param {string} path */
  async fetch(path, /** @type {RequestInit} */ init = {}) {
    try {
      const headers = { ...(await this.headers()), .../** @type {object} */ (init.headers) };
      const { credentials = "same-origin" } = this.access;
      const options = { cache: /** @type {const} */ ("no-store"), credentials, ...init, headers };
      const response = await fetch(new URL(path, this.base), options);
      const { status } = response;
      if (status === 401) this.stop();
      if (status < 500 && this.connection === "lost") {
        this.#setConnection("polling");
        this.#wake();
      }
      if (status === 429 || status === 503) {
        const at = performance.now() + retryAfterMs(response);
        if ("accept" in headers) this.#streamAt = at;
        else this.#pollAt = at;
      }
      return response;
    } catch {
      return null;
    }
  }

  /** How long a busy server wants no requests for snapshots and lists. */
  get busyMs() {
    return Math.max(0, this.#pollAt - performance.now());
  }

  /** The configured headers. */
  async headers() {
    const { headers } = this.access;
    return typeof headers === "function" ? headers() : headers;
  }

  /** Stop after a 401, until `restart`. */
  stop() {
    if (this.connection === "unauthorized") return;
    this.#setConnection("unauthorized");
    this.#disconnect();
    this.emit("unauthorized");
  }

  /** Reconnect, with new credentials. */
  restart() {
    this.connection = "connecting";
    this.#disconnect();
    this.#run();
  }

  /** @param {string} name @param {unknown} [detail] */
  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** @param {{target: Target}} entry */
  #add({ target }) {
    this.#run();
    // Unlike a socket, a stream takes no further subscriptions: reopen it.
    if (this.connection === "sse") this.#stream.abort();
    this.#send("subscribe", target);
    this.#polls.abort();
    this.#wake();
  }

  #disconnect() {
    this.#isStopping = true;
    this.#stream.abort();
    this.#polls.abort();
    this.#wake();
  }

  /** A hidden page holds no connection; it polls. @param {boolean} isHidden */
  #setHidden(isHidden) {
    if (this.#isHidden === isHidden) return;
    this.#isHidden = isHidden;
    this.#check();
    if (!isHidden) return;
    this.#stream.abort();
    this.#polls.abort();
  }

  #check() {
    // After sleep, the connection may be dead without notice.
    this.#confirmed.clear();
    if (this.#isLive) this.#pollAll();
    else this.#wake();
  }

  get #isLive() {
    return this.connection === "websocket" || this.connection === "sse";
  }

  /** Subscribed targets that can still change and are not part of a larger target. */
  get #active() {
    if (this.connection === "unauthorized") return [];
    const everything = this.#targets.get('{"all":true}');
    if (everything) return [everything];
    return [...this.#targets.values()].filter(({ target }) => {
      const known = "upload_id" in target && this.uploads.get(target.upload_id);
      if (!known) return true;
      const { group } = known;
      return !isFinal(known) && !(group && this.#targets.has(JSON.stringify({ group })));
    });
  }

  get #isActive() {
    return !this.#isStopping && this.#active.length > 0;
  }

  /** @param {ProgressClient["connection"]} connection */
  #setConnection(connection) {
    if (this.connection === connection) return;
    this.connection = connection;
    this.emit("connection", connection);
  }

  #wake() {
    this.#wakeups.dispatchEvent(new Event("wake"));
  }

  /** Sleep, until woken. @param {number} ms */
  async #sleep(ms) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      const wake = () => (clearTimeout(timer), resolve(0));
      this.#wakeups.addEventListener("wake", wake, { once: true });
    });
  }

  async #run() {
    if (this.#isRunning || !this.#active.length) return;
    this.#isRunning = true;
    // Scripts of the page may call `authorize` first.
    await this.#sleep(0);
    this.#isStopping = false;
    await Promise.all([this.#connect(), this.#poll()]);
    this.#isRunning = false;
    // A subscription may have been added meanwhile.
    this.#run();
  }

  /** Keep a live connection: a WebSocket, else event streams. */
  async #connect() {
    for (let failures = 0; this.#isActive; ) {
      this.#stream = new AbortController();
      if (this.#isHidden) {
        this.#setConnection("polling");
        await this.#sleep(MAX_DELAY_MS);
        continue;
      }
      const wasOpen = this.#hasEdge
        ? await this.#openEdge()
        : (await this.#openWebSocket()) || (await this.#openEventStreams());
      if (!this.#isActive) return;
      failures = wasOpen ? 0 : failures + 1;
      if (this.connection !== "lost") this.#setConnection(wasOpen ? "connecting" : "polling");
      if (wasOpen) this.#wake();
      // Jitter, so that not all clients reconnect to a restarted server at once.
      const wait = Math.min(MAX_DELAY_MS, 250 * 2 ** failures);
      const pause = Math.max(this.#streamAt - performance.now(), wait * (0.5 + Math.random() / 2));
      if (!this.#stream.signal.aborted) await this.#sleep(pause);
    }
  }

  /** Poll without a live connection; rarely with one, so that no final state is missed. */
  async #poll() {
    for (let failures = 0; this.#isActive; ) {
      if (this.busyMs) {
        await this.#sleep(this.busyMs);
        continue;
      }
      this.#polls = new AbortController();
      const isAnswered = await this.#pollAll();
      failures = isAnswered ? 0 : failures + 1;
      if (failures > 1 && !this.#isLive) this.#setConnection("lost");
      const isMissing = this.#isLive && this.#sendSubscriptions();
      const pause = Math.min(MAX_DELAY_MS, POLL_MS * 2 ** Math.max(0, failures - 2));
      if (this.#isHidden || (this.#isLive && !isMissing)) await this.#sleep(2 * MAX_DELAY_MS);
      else await this.#sleep(this.#isLongPolling && isAnswered ? POLL_MS / 10 : pause);
    }
  }

  async #pollAll() {
    const active = this.#isLive ? [] : this.#active;
    const longPoll = active.length === 1 && this.#canLongPoll && !this.#isHidden;
    if (active.length) this.#confirmed.clear();
    this.#isLongPolling = false;
    const responses = active.map(async ({ target }) => {
      if (!("upload_id" in target)) return this.pollList(target);
      const { upload_id: id } = target;
      const isAnswered = longPoll && (await this.#alone(() => {
        this.#isLongPolling = this.#etags.has(id);
        return this.refresh(id, true);
      }));
      return isAnswered || this.refresh(id);
    });
    const isAnswered = (await Promise.all(responses)).every(Boolean) && (await this.#refreshOthers());
    if (!active.length) this.#confirmed.clear();
    return isAnswered;
  }

  /** Read a list. @param {Target} target */
  async pollList(target) {
    const response = await this.fetch(pathOf(target));
    if (response?.ok) for (const one of (await response.json()).uploads.reverse()) this.apply(one);
    return !!response?.ok;
  }

  /** Poll each open upload that the server has not sent, so that no final state is missed. */
  async #refreshOthers() {
    // A copy: a snapshot moves its upload to the end.
    for (const upload of [...this.uploads.values()]) {
      const isKnown = isFinal(upload) || isLocal(upload) || this.#confirmed.has(upload.upload_id);
      if (!isKnown && !(await this.refresh(upload.upload_id))) return false;
    }
    return true;
  }

  /** @param {string} uploadId @param {Snapshot | undefined} known What it was when the server was asked. */
  #markLost(uploadId, known) {
    const upload = this.uploads.get(uploadId);
    // A newer snapshot has overtaken the response.
    if (!upload || upload !== known || isLocal(upload) || isFinal(upload)) return;
    const error = { code: "unknown", message: "" };
    const lost = { stage: null, stalled: false, error, is_lost: true };
    // `apply` would ignore it as outdated.
    this.#store({ ...upload, ...lost, state: "failed" }, upload);
  }

  /** Receive from a WebSocket until it closes; resolves to whether it was opened. */
  async #openWebSocket() {
    const url = new URL("progress", this.base);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.access.headers) {
      const response = await this.fetch("tickets", { method: "POST" });
      if (!response?.ok || this.#stream.signal.aborted) return false;
      const { ticket, edge } = await response.json();
      if (this.#findEdge(edge)) return true;
      url.searchParams.set("ticket", ticket);
    }
    const socket = new WebSocket(url);
    let wasOpen = false;
    /** @type {number} The close code. */
    const code = await new Promise((resolve) => {
      const wait = watchdog(() => resolve(0), OPEN_TIMEOUT_MS);
      this.#stream.signal.addEventListener("abort", () => resolve(0));
      socket.onclose = ({ code }) => resolve(code);
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        wait();
        if (message.type !== "welcome") return this.#handle(message);
        wasOpen = true;
        if (this.#findEdge(message.edge)) return resolve(0);
        wait((message.heartbeat_seconds ?? 15) * 2500);
        this.#socket = socket;
        this.#sendSubscriptions();
        this.#connected("websocket");
      };
    });
    this.#socket = socket.onmessage = null;
    for (const entry of this.#targets.values()) entry.isSubscribed = false;
    socket.close();
    if (code === 4401) this.stop();
    return wasOpen;
  }

  /** Whether to go on with the push server that the server has named. @param {unknown} hint */
  #findEdge(hint) {
    return !!hint && (this.#hasEdge ??= true);
  }

  /** Receive from the push server; resolves to whether it was open. */
  async #openEdge() {
    const targets = this.#active.map(({ target }) => target);
    const module = await loadStreams();
    const open = () => this.#connected("sse");
    const wasOpen = await module?.receivePushes(this, targets, this.#stream.signal, open);
    if (wasOpen === null) this.#hasEdge = false;
    return !!wasOpen;
  }

  /** @param {any} message */
  #handle({ type, upload, ...target }) {
    if (type === "progress") this.apply(upload);
    const entry = type === "subscribed" && this.#targets.get(JSON.stringify(target));
    if (entry) entry.isSubscribed = true;
  }

  /** Send missing subscriptions; returns whether there were any. */
  #sendSubscriptions() {
    const missing = this.#socket ? this.#active.filter((one) => !one.isSubscribed) : [];
    for (const { target } of missing) this.#send("subscribe", target);
    return missing.length > 0;
  }

  /** @param {string} type @param {Target} target */
  #send(type, target) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify({ type, ...target }));
  }

  /** @param {"websocket" | "sse"} kind */
  #connected(kind) {
    if (this.connection === kind) return;
    this.#setConnection(kind);
    this.#polls.abort();
    this.#confirmed.clear();
    setTimeout(() => this.connection === kind && this.#refreshOthers(), 2 * POLL_MS);
  }

  /**
   * Call `receive` unless another page waits for a response of this server: a browser opens only six
   * connections to it for all pages. @param {() => Promise<boolean>} receive
   */
  async #alone(receive) {
    const { locks } = navigator;
    // Not in pages without TLS.
    if (!locks) return receive();
    return locks.request(this.base, { ifAvailable: true }, (lock) => !!lock && receive());
  }

  /** Receive from at most two event streams. */
  async #openEventStreams() {
    const active = this.#active;
    if (active.length > 2 || this.#streamAt > performance.now()) return false;
    return this.#alone(async () => {
      const ends = active.map(({ target }) => this.#openEventStream(target));
      return (await Promise.all(ends)).includes(true);
    });
  }

  /** @param {Target} target */
  async #openEventStream(target) {
    const module = await loadStreams();
    const headers = { accept: "text/event-stream", ...incremental(this.base) };
    const isLeft = (/** @type {Response | null} */ response) => this.#findEdge(response?.headers.get("upload-edge"));
    const onText = () => this.#connected("sse");
    return !!(await module?.receiveEvents(this, pathOf(target), headers, this.#stream.signal, isLeft, onText));
  }
}

/** The module that receives streams; null if it cannot be loaded. */
const loadStreams = () => import("./upload-progress/streams.js").catch(() => null);

/**
 * Asks proxies to pass on each byte as it arrives (RFC 10036). Not at another origin, which may not
 * allow this header. @param {string} url @returns {Record<string, string>}
 */
const incremental = (url) => (new URL(url, document.baseURI).origin === location.origin ? { Incremental: "?1" } : {});

/**
 * The time in `Retry-After`, which is a number of seconds or a date, and up to a quarter more, so that
 * not all clients return at once. @param {Response} response
 */
function retryAfterMs({ headers }) {
  const text = headers.get("retry-after") ?? "";
  const wait = 1000 * Number(text) || Date.parse(text) - Date.now() || 0;
  return Math.min(MAX_RETRY_AFTER_MS, wait) * (1 + Math.random() / 4);
}

/**
 * Call `fire` if the returned function is not called for `ms`; calling it with 0 stops the timer.
 * @param {() => void} fire @param {number} ms
 */
function watchdog(fire, ms) {
  let id = 0;
  const set = (next = ms) => {
    clearTimeout(id);
    if ((ms = next)) id = setTimeout(fire, ms);
  };
  set();
  return set;
}

/** Set the credentials for the server at `src`, and reconnect. @param {string} src */
export function authorize(src, /** @type {Access} */ access) {
  const client = ProgressClient.of(src);
  client.access = access;
  client.restart();
}

// --- transfers --------------------------------------------------------------------------------

function createId() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return Array.from(bytes, (byte) => (byte % 16).toString(16)).join("");
}

/** @type {Promise<void> | undefined} */
let languages;
let time = "";

/** The same time for all uploads started together, so that they keep their order. */
function batchTime() {
  if (!time) queueMicrotask(() => (time = ""));
  return (time ||= new Date().toISOString());
}

/** Whether the same upload may succeed later. @param {{code: string, http_status?: number | null}} error */
const isTemporary = ({ code, http_status: status }) =>
  /^(client_disconnected|worker_lost|unknown)$/.test(code) || /^50[234]$/.test(`${status}`);

/** Whether the same file may be accepted the next time. @param {Snapshot} upload */
const canRetry = ({ error }) => !/^4(13|15|22)$/.test(`${error?.http_status}`);

/** @param {Snapshot} upload */
const versionOf = ({ upload_id: id, created_at: createdAt, attempt }) => `${id} ${createdAt} ${attempt}`;

/**
 * Versions that were cleared in this tab, also before the page was reloaded.
 * @param {Iterable<string>} more @returns {string[]}
 */
function clearedVersions(more = []) {
  try {
    const versions = [...JSON.parse(sessionStorage["upload-progress cleared"] ?? "[]"), ...more];
    sessionStorage["upload-progress cleared"] = JSON.stringify([...new Set(versions)].slice(-MAX_CLEARED));
    return versions;
  } catch {
    // Not available: cleared until the page is reloaded.
    return [];
  }
}

/** An upload of this page: queued, sent, and possibly retried. */
export class Transfer {
  id = "";
  sentShare = 0;
  reason = "";
  /** @type {XMLHttpRequest | null} */
  request = null;
  /** How often it was sent from its beginning. */
  attempts = 0;
  isInterrupted = false;
  /** The version that was interrupted last. */
  #interrupted = "";
  #resends = 0;
  #interruptions = 0;
  #isCancelled = false;
  /** Whether the server has accepted the bytes; its own processing may still fail. */
  #isAccepted = false;
  /** @type {Parts | null} */
  #parts = null;
  /** @type {() => void} */
  #unsubscribe = () => {};
  /** @type {(upload: Snapshot) => void} */
  #resolve = () => {};
  /** Resolves to the final snapshot. @type {Promise<Snapshot>} */
  done = Promise.resolve(/** @type {any} */ (null));

  /** @param {File | Blob | FormData} body @param {string} url @param {UploadOptions} options */
  constructor(body, url, options) {
    const { bar = document.querySelector("upload-progress") } = options;
    this.body = body;
    this.url = url;
    this.options = options;
    this.bar = bar instanceof UploadProgressElement ? bar : null;
    this.client = options.src ? ProgressClient.of(options.src) : clientOf(this.bar);
    this.name = options.name ?? ("name" in body ? String(body.name) : "file");
    this.retry();
  }

  /** Queue it, for the first time or again. */
  retry() {
    const known = this.client.uploads.get(this.id);
    this.request?.abort();
    this.request = null;
    // If the server has not reported the end of the last attempt, use another id.
    if (!known || !isFinal(known)) this.id = createId();
    this.sentShare = 0;
    this.reason = "";
    this.#resends = 0;
    if (this.#isCancelled) this.#parts = null;
    this.#isCancelled = this.#isAccepted = this.isInterrupted = false;
    this.done = new Promise((resolve) => (this.#resolve = resolve));
    this.client.transfers.set(this.id, this);
    this.bar?.add(this.id);
    this.#report("pending");
    this.client.queue.push(this);
    sendQueued(this.client);
  }

  async cancel() {
    const { queue } = this.client;
    this.#isCancelled = true;
    if (queue.includes(this)) {
      queue.splice(queue.indexOf(this), 1);
      return this.#report("cancelled");
    }
    const wasInterrupted = this.isInterrupted;
    this.isInterrupted = false;
    await this.client.cancel(this.id);
    if (wasInterrupted) this.#report("cancelled");
    return this.request?.abort();
  }

  /** Whether a snapshot is of an attempt that is interrupted, and is sent again. @param {Snapshot} upload */
  isInterruptedBy(upload) {
    const { state, error } = upload;
    const version = versionOf(upload);
    const hasEnded = isFinal(upload);
    if (hasEnded && !(state === "failed" && error && isTemporary(error))) return (this.isInterrupted = false);
    if (hasEnded && version !== this.#interrupted && this.#canResend) this.#interrupt(version);
    // In parts, an attempt goes on.
    const goesOn = this.#parts && /receiving|processing/.test(state);
    return this.isInterrupted || (version === this.#interrupted && !this.#isCancelled && !goesOn);
  }

  get #method() {
    return this.options.method ?? (this.options.field ? "POST" : "PUT");
  }

  /** A form may have been processed although its response was lost: it is sent again only if it was not sent whole. */
  get #canResend() {
    const isWhole = this.sentShare === 1 && this.#method === "POST";
    return !isWhole && !this.#isAccepted && !this.#isCancelled && this.#resends < MAX_RESENDS;
  }

  /** Wait for the server, and send the upload again, unless the server knows its end. @param {string} version */
  async #interrupt(version) {
    this.#interrupted = version;
    if (this.isInterrupted) return;
    this.isInterrupted = true;
    const { request } = this;
    this.request = null;
    request?.abort();
    this.client.interrupt(this.id);
    const interruption = ++this.#interruptions;
    for (let wait = 0; ; ) {
      const isAnswered = await this.client.refresh(this.id);
      if (!this.isInterrupted || interruption !== this.#interruptions) return;
      if (isAnswered && wait) break;
      wait = Math.min(MAX_DELAY_MS, wait ? 2 * wait : (POLL_MS / 2) * 2 ** this.#resends);
      const pause = Math.max(this.client.busyMs, wait * (0.5 + Math.random() / 2));
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    this.#resends++;
    this.isInterrupted = false;
    await this.send();
  }

  /** Handle the final snapshot. @param {Snapshot} upload */
  finish(upload) {
    // A task may go on with an accepted upload.
    if (!this.#isAccepted || upload.state !== "failed") this.#unsubscribe();
    if (!this.request) this.client.sending.delete(this);
    if (!this.client.sending.has(this)) this.#resolve(upload);
    if (upload.state === "cancelled") this.request?.abort();
    if (upload.state === "completed") this.client.transfers.delete(this.id);
    sendQueued(this.client);
  }

  /** @returns {Promise<void>} */
  async send() {
    const { client, options, body } = this;
    const request = (this.request = new XMLHttpRequest());
    const { credentials } = client.access;
    client.sending.add(this);
    const unsubscribe = client.subscribe({ upload_id: this.id });
    this.#unsubscribe();
    this.#unsubscribe = unsubscribe;
    const name = encodeURIComponent(this.name);
    const path = options.path?.split("/").map(encodeURIComponent).join("/") || name;
    const url = this.url.replace("{name}", name).replace("{path}", path);
    const tracked = { "Upload-Id": this.id, ...(options.group && { "Upload-Group": options.group }) };
    const headers = { ...incremental(url), ...(await client.headers()), ...options.headers, ...tracked };
    /** @type {Part} */
    const whole = { method: this.#method, url, headers, body: this.#form(), start: 0 };
    /** @type {Part | null} */
    let part = whole;
    if (body instanceof Blob && (options.tus || options.chunkBytes)) {
      try {
        this.#parts ??= await loadParts(body, this.name, options, credentials);
        this.bar?.localize();
        part = await this.#parts.next(whole);
      } catch (outcome) {
        return this.#handleEnd(request, /** @type {Outcome} */ (outcome));
      }
    }
    if (!part) return this.#handleEnd(request, { status: 204 });
    const { start, size } = part;
    if (!start) this.attempts++;
    this.sentShare = start / (size || 1);
    request.open(part.method, part.url);
    request.withCredentials = credentials === "include";
    for (const header of Object.entries(part.headers)) request.setRequestHeader(...header);
    request.upload.onprogress = ({ loaded, total }) => {
      this.sentShare = (start + loaded) / (size ?? total);
      client.emit("sent", this.id);
    };
    request.onloadend = () => this.#handleEnd(request, this.#parts ? this.#parts.end(request) : request);
    if (this.#isCancelled) return this.#handleEnd(request);
    return request.send(part.body);
  }

  #form() {
    const { field } = this.options;
    if (!field || this.body instanceof FormData) return this.body;
    const form = new FormData();
    form.set(field, this.body, this.options.path || this.name);
    return form;
  }

  /** @param {XMLHttpRequest} request @param {Outcome | null} outcome Null if the next part follows. @returns {Promise<void>} */
  async #handleEnd(request, outcome = request) {
    if (!outcome && request === this.request) {
      this.#resends = 0;
      return this.send();
    }
    const { status = 0, error } = outcome ?? {};
    const isSuccess = status >= 200 && status < 400;
    const isReadable = status > 0 || (await this.#isReadable());
    if (request !== this.request) return;
    this.#isAccepted = isSuccess;
    if (status && !isSuccess) this.reason = detailOf(outcome?.responseText) ?? "";
    const last = /** @type {Snapshot} */ (this.client.uploads.get(this.id));
    const isLost = outcome?.isTemporary || isTemporary({ code: status ? "" : "unknown", http_status: status });
    if (isLost && !error && isReadable && this.#canResend && !isFinal(last)) return this.#interrupt(versionOf(last));
    this.client.sending.delete(this);
    sendQueued(this.client);
    if (status === 401) this.client.stop();
    if (error) return this.#report("failed", error);
    await this.client.refresh(this.id);
    if (request !== this.request) return;
    // Without a snapshot of the server, the response to the upload decides.
    const known = this.client.uploads.get(this.id);
    if (known && !isLocal(known) && !known.is_interrupted) {
      this.client.emit("sent", this.id);
      if (isFinal(known)) this.#resolve(known);
    } else if (isSuccess) this.#report("completed");
    else if (this.#isCancelled) this.#report("cancelled");
    else this.#report("failed", {
      code: status ? "rejected" : "network", message: this.reason || `HTTP ${status}`, http_status: status,
    });
  }

  /** A browser reports a file that it cannot read as a network error. */
  async #isReadable() {
    const { body } = this;
    if (!(body instanceof Blob)) return true;
    return (body.size ? body.slice(0, 1) : body).arrayBuffer().then(() => true, () => false);
  }

  /** Create a snapshot, until the server sends one. @param {State} state @param {UploadError | null} error */
  #report(state, error = null) {
    const { id, body, name, client, options } = this;
    const known = client.uploads.get(id);
    const total = body instanceof Blob ? body.size : null;
    client.apply({
      upload_id: id, group: options.group ?? null, filename: name, state, error,
      attempt: Math.floor(known?.attempt ?? 0) + 0.5, sequence: (known?.sequence ?? 0) + 1,
      bytes_transferred: state === "completed" ? (total ?? 0) : 0, total_bytes: total,
      percent: state === "completed" ? 100 : 0, bytes_per_second: null, eta_seconds: null,
      stage: null, stalled: false, arrival: null, created_at: known?.created_at ?? batchTime(),
      updated_at: known?.updated_at ?? new Date(0).toISOString(),
    });
  }
}

/** The module that sends a file in parts. @param {Blob} body @param {string} name */
async function loadParts(body, name, /** @type {UploadOptions} */ options, /** @type {RequestCredentials} */ credentials = "same-origin") {
  const module = await import("./upload-progress/parts.js");
  addLabels(module.LABELS);
  return new module.Parts(body, name, options, credentials);
}

/** The reason in a problem document; null without one. */
function detailOf(text = "") {
  try {
    const { detail, title } = JSON.parse(text);
    return typeof detail === "string" ? detail : title;
  } catch {
    return null;
  }
}

/** @param {Element | null} bar */
function clientOf(bar) {
  return ProgressClient.of(bar?.getAttribute("src") ?? DEFAULT_SRC);
}

/** @param {ProgressClient} client */
function sendQueued(client) {
  while (client.sending.size < client.limit && client.queue.length) client.queue.shift()?.send();
}

/**
 * Upload a file and show it in `options.bar`, by default the first <upload-progress> of the page.
 * @param {File | Blob | FormData} file
 * @param {string} url The target; `{name}` is replaced by the file name.
 * @param {UploadOptions} [options] With `field`, the file is sent in a form.
 */
export const upload = (file, url, options = {}) => new Transfer(file, url, options);

/** The number of files that this page is uploading or has queued. */
export function unsent() {
  return [...clients.values()].reduce((sum, { queue, sending }) => sum + queue.length + sending.size, 0);
}

// --- element ----------------------------------------------------------------------------------

const STYLES = new CSSStyleSheet();
STYLES.replaceSync(`
:host {
  --accent: var(--upload-progress-accent, light-dark(#2458d3, #7ea6ff));
  --success: var(--upload-progress-success, light-dark(#14744a, #5fce98));
  --error: var(--upload-progress-error, light-dark(#b3261e, #ff9289));
  --warning: var(--upload-progress-warning, light-dark(#8a5300, #e9b45c));
  --text: var(--upload-progress-text, light-dark(#1b2330, #e6eaf1));
  --muted: var(--upload-progress-muted, light-dark(#586274, #9aa5b6));
  --border: var(--upload-progress-border, light-dark(#e3e7ed, #2b323d));
  --surface: var(--upload-progress-surface, light-dark(#fff, #181d25));
  --color: var(--accent);
  display: block; container-type: inline-size; color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums;
}
[hidden], :host([hidden]) { display: none !important; }
ul { margin: 0; padding: 0; display: grid; gap: 10px; }
.row {
  display: grid; grid-template-columns: minmax(0, 1fr) auto auto auto; align-items: center;
  min-height: 40px; padding: 12px 16px;
  border: 1px solid var(--border); border-radius: 12px; background: var(--surface);
}
.total { border-color: transparent; background: none; padding-top: 0; }
[data-state=completed] { --color: var(--success); }
[data-state=failed] { --color: var(--error); }
[data-state=cancelled] { --color: var(--muted); }
[data-state=paused], [data-stalled], [data-interrupted] { --color: var(--warning); }
.name, .percent, b { font-weight: 600; }
.name { display: flex; white-space: pre; }
.row:dir(rtl) > .name:dir(ltr), .row:dir(ltr) > .name:dir(rtl) { justify-content: end; }
.name :first-child { overflow: hidden; text-overflow: ellipsis; }
.percent, button { margin-inline-start: 14px; }
.percent { font-size: 17px; line-height: 1; }
[data-final] .percent { color: var(--muted); font-weight: 500; font-size: 15px; }
button {
  font: inherit; font-size: 13.5px; line-height: 1; color: var(--muted); background: none;
  border: 1px solid var(--border); border-radius: 8px; padding: 8px 11px; cursor: pointer;
}
.retry, .cancel { grid-area: 1 / 3; }
.cancel { grid-column: 4; }
.row .cancel[hidden] { display: block !important; visibility: hidden; }
.total .cancel[hidden] { display: none !important; }
button:hover { color: var(--text); border-color: currentColor; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
[aria-disabled] { opacity: .6; }
.bar, .details, .error { grid-column: 1 / -1; }
.bar { position: relative; height: 8px; border-radius: 4px; background: var(--border); overflow: hidden; margin-top: 9px; }
.stage { height: 4px; }
i {
  position: absolute; inset-block: 0; inset-inline-start: 0; border-radius: inherit;
  background: var(--color); width: calc(100% * var(--share, 0)); transition: width .25s linear;
}
.sent { opacity: .24; }
[data-unknown] .received { width: 30%; animation: slide 1.6s ease-in-out infinite alternate; }
@keyframes slide { to { inset-inline-start: 70%; } }
.details {
  display: flex; flex-wrap: wrap; align-content: start; height: 1lh; margin-top: 7px; margin-inline-start: -20px;
  font-size: 13.5px; color: var(--muted); clip-path: inset(0 -9px 0 20px);
}
.details:dir(rtl) { clip-path: inset(0 20px 0 -9px); }
.details > * { position: relative; padding-inline-start: 20px; }
span, p, b { unicode-bidi: plaintext; }
.row:dir(rtl), p:dir(rtl) { text-align: right; }
b { color: var(--color); }
.details span::before { content: "·"; position: absolute; inset-inline-start: 8px; }
p { margin: 5px 0 0; font-size: 13.5px; color: var(--error); overflow-wrap: anywhere; }
.notice, .note { margin: 0 0 10px; color: var(--warning); }
.status { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@container (max-width: 480px) {
  .row { padding: 10px 14px; }
  [data-state=receiving]:not([data-stalled], [data-interrupted]) b { display: none; }
}
@container (max-width: 420px) {
  .retry { grid-area: 3 / 2 / auto / -1; justify-self: end; align-self: start; margin-top: 7px; }
  .retry:not([hidden]) ~ .details { grid-area: 3 / 1; }
}
@media (prefers-reduced-motion) {
  i { transition: none; }
  [data-unknown] .received { animation: none; width: 100%; opacity: .4; }
}
@media (forced-colors: active) {
  .bar { border: 1px solid; }
  i { background: Highlight; forced-color-adjust: none; }
}
`);

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {string} part Class and ::part. @param {Node[]} children
 */
function make(tag, part = "", ...children) {
  const node = document.createElement(tag);
  if (part) node.className = node.part.value = part;
  node.append(...children);
  return node;
}

/** @param {Node} node @param {string} text */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {Element} node @param {string} name @param {string | number | boolean | null} value */
function setAttr(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== `${value}`) node.setAttribute(name, `${value}`);
}

/** A progress bar; indeterminate for an unknown share. */
class Bar {
  sent = make("i", "sent");
  received = make("i", "received");

  constructor(part = "bar") {
    this.node = make("div", part, this.sent, this.received);
    this.node.classList.add("bar");
    Object.assign(this.node, { role: "progressbar", ariaValueMin: "0", ariaValueMax: "100" });
  }

  /** @param {number | null} share @param {string} label @param {string} text */
  show(share, label, text, sentShare = 0) {
    setAttr(this.node, "data-unknown", share === null);
    setAttr(this.node, "aria-valuenow", share === null ? null : Math.floor(share * 100));
    setAttr(this.node, "aria-label", label);
    setAttr(this.node, "aria-valuetext", text);
    if (share !== null) this.received.style.setProperty("--share", `${share}`);
    this.sent.style.setProperty("--share", `${sentShare}`);
  }
}

/** The row of an upload, or of a total. */
export class Row {
  insertedAt = performance.now();
  createdAt = 0;
  milestone = -1;
  name = make("div", "name", make("span"), make("span"));
  percent = make("div", "percent");
  cancel = make("button", "cancel");
  retry = make("button", "retry");
  bar = new Bar();
  state = make("b", "state");
  details = make("div", "details", this.state);
  stage = new Bar("stage");
  error = make("p", "error");
  #speed = /** @type {string[]} */ ([]);
  #speedAt = -Infinity;
  /** Whether the server does not respond. */
  isSilent = false;
  /** Whether the server is behind the page by more than the time between two reports. */
  isBehind = false;
  #movedAt = 0;
  #bytes = -1;
  #sentBytes = 0;
  #sentAt = 0;
  #timer = 0;

  /** @param {"li" | "div"} tag @param {string} part */
  constructor(tag, part) {
    const { name, percent, cancel, retry, bar, details, stage, error } = this;
    this.node = make(tag, part, name, percent, cancel, retry, bar.node, details, stage.node, error);
    this.node.classList.add("row");
    this.node.tabIndex = -1;
    name.dir = "auto";
    cancel.hidden = retry.hidden = stage.node.hidden = error.hidden = true;
  }

  get isIdle() {
    return performance.now() - this.#movedAt > IDLE_MS - 100;
  }

  /**
   * Note what has moved; call `checkIdle` when nothing moves.
   * @param {Snapshot} upload @param {Transfer | undefined} transfer @param {() => void} checkIdle
   */
  update({ state, bytes_transferred: bytes, total_bytes: total }, transfer, checkIdle) {
    clearTimeout(this.#timer);
    if (state !== "receiving") {
      this.#bytes = -1;
      this.isBehind = false;
      return;
    }
    const now = performance.now();
    const hasMoved = bytes !== this.#bytes;
    if (hasMoved) {
      this.#bytes = bytes;
      this.#movedAt = now;
      this.isSilent = false;
    }
    const sentBytes = (transfer?.sentShare ?? 0) * (total ?? 0);
    if (bytes >= this.#sentBytes) {
      this.#sentBytes = sentBytes;
      this.#sentAt = now;
    }
    this.isBehind ||= now - this.#sentAt > 2 * POLL_MS;
    this.#timer = setTimeout(checkIdle, IDLE_MS);
  }

  /** Speed and time left, updated at a readable rate. @param {() => string[]} compute */
  speed(compute) {
    if (performance.now() - this.#speedAt > 900) {
      this.#speedAt = performance.now();
      this.#speed = compute();
    }
    return this.#speed;
  }

  /**
   * @param {Formatter} format @param {string} label @param {string} state @param {number | null} share
   * @param {string[]} details
   */
  show(format, label, state, share, details, sentShare = 0) {
    const percent = share === null ? "" : format.percent(share);
    // The extension stays visible. A short name is one text for screen readers.
    const [, start = label, end = ""] = (label.length > 12 && /^(.*?)(.{0,3}\.[^.]{1,9})$/su.exec(label)) || [];
    [start, end].forEach((text, place) => setText(/** @type {Element} */ (this.name.children[place]), text));
    setAttr(this.name, "title", label);
    setText(this.percent, percent);
    setText(this.state, state);
    this.bar.show(share, label, [percent, state, ...details].filter(Boolean).join(", "), sentShare);
    const { details: node } = this;
    while (node.childElementCount > details.length + 1) node.lastElementChild?.remove();
    while (node.childElementCount < details.length + 1) node.append(make("span"));
    details.forEach((text, place) => setText(/** @type {Element} */ (node.children[place + 1]), text));
  }
}

/** Shows uploads, and subscribes to the targets that its attributes name. */
export class UploadProgressElement extends HTMLElement {
  static observedAttributes = ["src", "upload-id", "group", "all", "labels", "lang", "panel"];

  /** @type {ProgressClient | null} */
  #client = null;
  /** @type {Map<string, Row>} */
  #rows = new Map();
  #ids = new Set();
  #dirty = new Set();
  /** @type {Map<string, string>} */
  #announcements = new Map();
  /** The uploads of the total. @type {Set<string>} */
  #current = new Set();
  /** Versions of cleared uploads. @type {Set<string>} */
  #cleared = new Set();
  /** Shows many uploads. @type {Panel | null} */
  #panel = null;
  /** How many modules are being loaded. */
  #loading = 0;
  #hasNoPanel = false;
  #formatter = new Formatter("en", {});
  #unsubscribe = new AbortController();
  #isInitial = true;
  #isAnnouncing = false;
  #frame = 0;
  #total = new Row("div", "total");
  #list = make("ul", "list");
  #empty = make("slot");
  #notice = make("p", "notice");
  #note = make("p", "note");
  #announcement = make("p", "status");

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [STYLES];
    this.#empty.name = "empty";
    this.#notice.role = this.#note.role = this.#announcement.role = "status";
    this.#total.node.hidden = this.#list.hidden = this.#notice.hidden = this.#note.hidden = true;
    root.append(this.#notice, this.#note, this.#empty, this.#total.node, this.#list, this.#announcement);
  }

  /** The newest snapshot of each upload that this element shows. */
  get uploads() {
    return [...(this.#client?.uploads.values() ?? [])].filter((upload) => this.#includes(upload));
  }

  connectedCallback() {
    this.#client = clientOf(this);
    for (const version of clearedVersions()) this.#cleared.add(version);
    this.#unsubscribe = new AbortController();
    this.#loadLanguage();
    this.#isInitial = true;
    const { signal } = this.#unsubscribe;
    /** @type {(name: string, listener: (event: any) => void) => void} */
    const on = (name, listener) => this.#client?.addEventListener(name, listener, { signal });
    on("upload", ({ detail }) => this.#includes(detail.upload) && this.#handleUpload(detail));
    on("sent", ({ detail }) => this.#rows.has(detail) && this.#invalidate(detail));
    on("connection", () => (this.#updateConnection(), this.#invalidateAll()));
    on("unauthorized", () => this.#emit("unauthorized"));
    this.#invalidateAll();
    for (const target of this.#targets()) {
      signal.addEventListener("abort", this.#client.subscribe(target));
    }
    this.#updateConnection();
    this.#checkPanel();
  }

  async #loadLanguage() {
    this.localize();
    if (!/^(es|de)/.test(this.#language)) return;
    languages ??= import("./upload-progress/languages.js").then(
      ({ LABELS: lines }) => addLabels(lines, ["es", "de"]), () => {});
    const { signal } = this.#unsubscribe;
    this.#loading++;
    await languages;
    if (signal.aborted) return;
    this.localize();
    this.#loaded();
  }

  /** Show the uploads, once all that they need is loaded. */
  #loaded() {
    this.#loading--;
    for (const upload of this.uploads) this.#invalidate(upload.upload_id);
    this.#updateConnection();
  }

  get #language() {
    return this.closest("[lang]")?.getAttribute("lang") || navigator.language;
  }

  /** Show texts of the form, each a key and a count. @param {(string | number)[]} texts */
  note(...texts) {
    this.localize();
    const shown = [];
    while (texts.length) shown.push(this.#formatter.text(String(texts.shift()), texts.shift() ?? ""));
    setText(this.#note, shown.join(" "));
    this.#note.hidden = !shown.length;
  }

  /** Use the texts of all modules that are loaded. */
  localize() {
    const labels = JSON.parse(this.getAttribute("labels") ?? "{}");
    this.#formatter = new Formatter(this.#language, labels);
  }

  disconnectedCallback() {
    this.#unsubscribe.abort();
    this.#panel?.remove();
    this.#panel = null;
    this.#loading = 0;
    this.#hasNoPanel = false;
    this.#client = null;
    this.#removeRows();
  }

  /** Load the panel, if there are more uploads than its attribute allows for a list. */
  #checkPanel() {
    const limit = this.getAttribute("panel");
    if (limit === null || this.#panel || this.#loading || this.#hasNoPanel || (Number(limit) && this.uploads.length <= Number(limit))) return;
    this.#loading++;
    this.#loadPanel(this.#unsubscribe.signal);
  }

  /** @param {AbortSignal} signal */
  async #loadPanel(signal) {
    // Without the module, the uploads stay in the list.
    const module = await import("./upload-progress/panel.js").catch(() => null);
    if (signal.aborted || !this.#client) return;
    this.#hasNoPanel = !module;
    if (module) {
      addLabels(module.LABELS);
      this.localize();
      this.#removeRows();
      this.#panel = new module.Panel({
        element: this, client: this.#client, format: this.#formatter, list: this.#list, total: this.#total,
        current: this.#current, cleared: this.#cleared, announcement: this.#announcement,
        includes: (upload) => this.#includes(upload),
        render: () => this.#invalidate(),
        isFinal, make, setText, versionOf, canRetry,
        show: (upload) => this.#renderUpload(upload),
        hide: (uploadId) => this.#removeRow(uploadId),
      });
    }
    this.#loaded();
  }

  #removeRows() {
    this.#rows.clear();
    this.#list.replaceChildren();
  }

  attributeChangedCallback() {
    if (!this.#client) return;
    this.disconnectedCallback();
    this.connectedCallback();
  }

  /** Show an upload that is received anyway. @param {string} uploadId */
  add(uploadId) {
    this.#ids.add(uploadId);
  }

  /** Upload a file and show it in this element. @param {File | Blob} file @param {string} url */
  upload(file, url, /** @type {UploadOptions} */ options = {}) {
    return upload(file, url, { ...options, bar: this });
  }

  /** Cancel an upload, also of another page. @param {string} uploadId */
  async cancel(uploadId) {
    const transfer = this.#client?.transfers.get(uploadId);
    await (transfer ? transfer.cancel() : this.#client?.cancel(uploadId));
  }

  /** Remove the rows of finished uploads. */
  clearFinished() {
    for (const upload of this.uploads.filter(isFinal)) {
      this.#cleared.add(versionOf(upload));
      this.#removeRow(upload.upload_id);
    }
    if (this.#panel) this.#panel.clear();
    else this.#updateList();
    clearedVersions(this.#cleared);
  }

  /** @returns {Target[]} */
  #targets() {
    const ids = this.getAttribute("upload-id")?.split(" ").filter(Boolean) ?? [];
    for (const id of ids) this.#ids.add(id);
    const group = this.getAttribute("group");
    if (this.hasAttribute("all")) return [{ all: true }];
    return [...(group ? [{ group }] : []), ...ids.map((id) => ({ upload_id: id }))];
  }

  /** @param {Snapshot} upload */
  #includes(upload) {
    const { upload_id, group } = upload;
    if (this.#cleared.has(versionOf(upload)) && isFinal(upload)) return false;
    if (this.hasAttribute("all") || this.#ids.has(upload_id)) return true;
    return group !== null && group === this.getAttribute("group");
  }

  #updateConnection() {
    const { connection = "" } = this.#client ?? {};
    const hasProblem = connection === "lost" || connection === "unauthorized";
    this.#notice.hidden = !hasProblem;
    setText(this.#notice, hasProblem ? this.#formatter.text(connection) : "");
    this.dataset.connection = connection;
    if (connection !== "connecting") setTimeout(() => (this.#isInitial = false), MIN_STATE_MS);
  }

  /** @param {string} name @param {Snapshot} [detail] */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }

  /** @param {{upload: Snapshot, known?: Snapshot}} change */
  #handleUpload({ upload, known }) {
    const id = upload.upload_id;
    if (!isFinal(upload)) {
      if (!this.#current.has(id) && !this.#hasOpen()) {
        this.#current.clear();
        this.#panel?.reset();
      }
      this.#current.add(id);
    }
    this.#emit("progress", upload);
    // An upload that ended before the page was opened causes no event, unless named by its id.
    const wasFinal = !known && this.#isInitial && isFinal(upload) && !this.#ids.has(id);
    if (known?.state !== upload.state && !wasFinal) {
      this.#emit("statechange", upload);
      if (upload.state === "completed") this.#emit("complete", upload);
      else if (isFinal(upload)) this.#emit("error", upload);
    }
    const hasEnded = known && !isFinal(known) && isFinal(upload);
    if (hasEnded && document.hidden && this.hasAttribute("notify") && !this.#hasOpen()) this.#notify();
    if (this.#rows.has(id) || this.#isInitial || isLocal(upload)) this.#invalidate(id);
    else setTimeout(() => this.#invalidate(id), SHOW_DELAY_MS);
  }

  /** Say in the title, and in a notification if they are allowed, that all uploads have ended. */
  #notify() {
    const ended = [...this.#current].map((id) => this.#client?.uploads.get(id)?.state);
    const text = this.#formatter.text("uploads", ended.filter((state) => state === "completed").length, ended.length);
    pageTitle ??= document.title;
    document.title = `${text} · ${pageTitle}`;
    const restore = () => {
      document.title = pageTitle ?? document.title;
      pageTitle = null;
    };
    document.addEventListener("visibilitychange", restore, { once: true });
    // Some browsers for phones have the class, and raise an error.
    if (globalThis.Notification?.permission === "granted") try { new Notification(text, { body: pageTitle }); } catch {}
  }

  #hasOpen() {
    for (const id of this.#current) {
      const upload = this.#client?.uploads.get(id);
      if (upload && !isFinal(upload)) return true;
    }
    return false;
  }

  #invalidate(uploadId = "") {
    this.#dirty.add(uploadId);
    this.#frame ||= requestAnimationFrame(() => this.#render());
  }

  #invalidateAll() {
    for (const upload of this.uploads) if (!isFinal(upload) || !this.#rows.size) this.#invalidate(upload.upload_id);
  }

  #render() {
    this.#frame = 0;
    this.#checkPanel();
    if (this.#loading) return;
    const ids = [...this.#dirty];
    this.#dirty.clear();
    if (this.#panel) return this.#panel.update(ids);
    for (const id of ids) {
      const upload = this.#client?.uploads.get(id);
      if (upload) this.#renderUpload(upload);
    }
    this.#renderTotal();
    this.#updateList();
  }

  /** @param {Snapshot} upload */
  #renderUpload(upload) {
    const { upload_id: id, stage, stalled, state } = upload;
    const format = this.#formatter;
    const row = this.#rows.get(id) ?? this.#createRow(upload);
    const { node } = row;
    const hasEnded = isFinal(upload);
    const remainingMs = row.insertedAt + MIN_STATE_MS - performance.now();
    if (hasEnded && remainingMs > 0 && node.dataset.state && node.dataset.state !== state) {
      setTimeout(() => this.#invalidate(id), remainingMs);
      return row;
    }
    const transfer = this.#client?.transfers.get(id);
    const label = upload.relative_path ?? upload.filename ?? id;
    setAttr(node, "data-state", state);
    setAttr(node, "data-stalled", stalled && "");
    setAttr(node, "data-final", hasEnded && "");
    const isReceiving = state === "receiving";
    row.update(upload, transfer, () => this.#checkIdle(row, id));
    const isSilent = isReceiving && (row.isSilent || this.#client?.connection === "lost");
    const stateText = isSilent ? format.text("lost") : format.state(upload);
    setAttr(node, "data-interrupted", (isSilent || !!upload.is_interrupted) && "");
    const known = shareOf(upload.bytes_transferred, upload.total_bytes);
    const share = /^(processing|completed)$/.test(state) ? 1 : known ?? (isReceiving ? null : 0);
    const sentShare = hasEnded ? 0 : transfer?.sentShare ?? 0;
    row.show(format, label, stateText, share, this.#details(upload, row, sentShare), sentShare);
    this.#toggleButton(row, row.cancel, hasEnded);
    this.#toggleButton(row, row.retry, !transfer || !canRetry(upload) || !/failed|cancelled/.test(state));
    for (const key of /** @type {const} */ (["cancel", "retry"])) {
      setText(row[key], format.text(key));
      setAttr(row[key], "aria-label", `${format.text(key)} ${label}`);
    }
    // The second bar: the stage, or what the server has passed on to a storage.
    const stored = hasEnded ? null : upload.stored_bytes ?? null;
    row.stage.node.hidden = !stage && stored === null;
    if (stage) {
      const done = shareOf(stage.done, stage.total);
      row.stage.show(done, format.state(upload), done === null ? `${stage.done}` : format.percent(done));
    } else if (stored !== null) {
      const text = format.text("stored", format.bytes(stored));
      row.stage.show(shareOf(stored, upload.total_bytes), text, text);
    }
    const reason = (state === "failed" && transfer?.reason) || format.reason(upload);
    row.error.hidden = !reason;
    setText(row.error, reason);
    setAttr(row.error, "title", reason);
    if (!this.#panel) this.#announce(row, upload, label, share);
    return row;
  }

  /** @param {Snapshot} upload @param {Row} row @param {number} sentShare */
  #details(upload, row, sentShare) {
    const format = this.#formatter;
    const { state, stage, bytes_transferred: bytes, total_bytes: total, stalled, arrival } = upload;
    const hint = arrival === "buffered" ? [format.text("buffered")] : [];
    if (state === "completed") return [format.bytes(bytes), ...hint];
    const stored = upload.stored_bytes ?? null;
    const passedOn = stored === null ? [] : [format.text("stored", format.bytes(stored))];
    const attempt = Math.max(this.#client?.transfers.get(upload.upload_id)?.attempts ?? 1, Math.floor(upload.attempt));
    const again = attempt > 1 ? [format.text("attempt", attempt)] : [];
    if (state === "processing") {
      const done = stage ? shareOf(stage.done, stage.total) : null;
      const percent = done === null ? [] : [format.percent(done)];
      return [...percent, format.text("received", format.bytes(bytes)), ...passedOn, ...again, ...hint];
    }
    if (state === "pending") return total === null ? [] : [format.bytes(total)];
    const details = [format.share(bytes, total), ...passedOn];
    if (state !== "receiving") return details;
    details.push(...again);
    const sentBytes = sentShare * (total ?? 0);
    if (row.isBehind && sentBytes > bytes) details.push(format.text("sent", format.bytes(sentBytes)));
    if (stalled) return [...details, format.text("no_data")];
    if (row.isIdle) return details;
    return [...details, ...row.speed(() => format.speed(upload.bytes_per_second, upload.eta_seconds))];
  }

  /** Show that nothing moves, and whether the server responds. @param {Row} row @param {string} uploadId */
  async #checkIdle(row, uploadId) {
    this.#invalidate(uploadId);
    const client = this.#client;
    if (!client?.transfers.has(uploadId)) return;
    row.isSilent = !(await client.refresh(uploadId));
    this.#invalidate(uploadId);
  }

  /** Show or hide a button; move its focus to the row. */
  #toggleButton(/** @type {Row} */ row, /** @type {HTMLButtonElement} */ button, /** @type {boolean} */ isHidden) {
    if (button.hidden === isHidden) return;
    if (isHidden && button.matches(":focus")) row.node.focus();
    button.ariaDisabled = null;
    button.hidden = isHidden;
  }

  /** @param {Row} row @param {Snapshot} upload @param {string} label @param {number | null} share */
  #announce(row, upload, label, share) {
    const format = this.#formatter;
    const milestone = Math.floor((share ?? 0) * 4);
    const state = format.state(upload);
    const isSameState = row.node.dataset.announced === state;
    if (isSameState && (milestone <= row.milestone || isFinal(upload))) return;
    row.milestone = milestone;
    row.node.dataset.announced = state;
    // Only the newest: the final state replaces a milestone that is not announced yet.
    this.#announcements.set(label, isSameState ? format.percent(milestone / 4) : state);
    if (this.#isAnnouncing) return;
    this.#isAnnouncing = true;
    setTimeout(() => this.#flushAnnouncements(), 500);
  }

  #flushAnnouncements() {
    this.#isAnnouncing = false;
    const texts = [...this.#announcements].map(([label, text]) => `${label}: ${text}`);
    this.#announcements.clear();
    const { name, percent } = this.#total;
    const total = `${name.textContent}, ${percent.textContent}`;
    setText(this.#announcement, texts.length > 3 ? total : texts.join(". "));
  }

  /** @param {Snapshot} upload */
  #createRow(upload) {
    const row = new Row("li", "row");
    const { upload_id: id } = upload;
    row.createdAt = Date.parse(upload.created_at);
    row.node.dataset.uploadId = id;
    // The second click of a double click is for what was shown at the first.
    row.cancel.onclick = ({ detail }) => {
      if (detail > 1 || row.cancel.ariaDisabled) return;
      // Not `disabled`, which would remove the focus.
      row.cancel.ariaDisabled = "true";
      this.cancel(id);
    };
    row.retry.onclick = ({ detail }) => {
      if (detail > 1) return;
      row.node.focus();
      this.#client?.transfers.get(id)?.retry();
    };
    if (!this.#panel) {
      // Newest first.
      const [older] = [...this.#rows.values()]
        .filter((other) => other.createdAt < row.createdAt)
        .sort((a, b) => b.createdAt - a.createdAt);
      this.#list.insertBefore(row.node, older?.node ?? null);
    }
    this.#rows.set(id, row);
    return row;
  }

  /** The total of a group, or of the current uploads. */
  #renderTotal() {
    const format = this.#formatter;
    const isGroup = this.hasAttribute("group");
    const shown = this.uploads.filter((one) => isGroup || this.#current.has(one.upload_id));
    const open = shown.filter((one) => !isFinal(one));
    this.#total.node.hidden = shown.length < 2 || !(isGroup || open.length);
    let bytes = 0, rate = 0;
    /** @type {number | null} */
    let total = 0;
    for (const one of shown) {
      if (/failed|cancelled/.test(one.state)) continue;
      bytes += one.bytes_transferred;
      total = total === null || one.total_bytes === null ? null : total + one.total_bytes;
      if (!isFinal(one)) rate += one.bytes_per_second ?? 0;
    }
    const ended = shown.length - open.length;
    const label = format.text("uploads", ended, shown.length);
    const left = rate && total !== null ? (total - bytes) / rate : null;
    const speed = this.#total.speed(() => (open.length ? format.speed(rate || null, left) : []));
    const { state = "completed" } = open.find((one) => one.state === "receiving") ?? open[0] ?? {};
    this.#total.show(format, label, format.text(state), shareOf(bytes, total), [format.share(bytes, total), ...speed]);
  }

  #removeRow(uploadId = "") {
    this.#rows.get(uploadId)?.node.remove();
    this.#rows.delete(uploadId);
  }

  #updateList() {
    /** @type {NodeListOf<HTMLElement>} */
    const found = this.#list.querySelectorAll("[data-final]");
    const ended = [...found];
    const surplus = this.#rows.size - MAX_ROWS;
    for (const node of surplus > 0 ? ended.slice(-surplus) : []) this.#removeRow(node.dataset.uploadId);
    this.#empty.hidden = !(this.#list.hidden = !this.#rows.size);
    setAttr(this, "data-finished", ended.length || null);
  }
}

customElements.get("upload-progress") ?? customElements.define("upload-progress", UploadProgressElement);

// --- forms ------------------------------------------------------------------------------------

const FORM = "form[data-upload-progress]";
const formsHost = { upload, createId, clientOf };

/** The form of an event; for a drop also the form in the drop area. @param {Event} event */
function formOf({ target }, around = "") {
  const area = target instanceof Element && target.closest(FORM + around);
  const found = area && (area.matches(FORM) ? area : area.querySelector(FORM));
  return found instanceof HTMLFormElement ? found : null;
}

/** The module that uploads forms; null if it cannot be loaded. */
async function loadForms() {
  const module = await import("./upload-progress/forms.js").catch(() => null);
  if (module) addLabels(module.LABELS);
  return module && new module.Forms(formsHost);
}

document.addEventListener("submit", async (event) => {
  const form = formOf(event);
  if (!form || event.defaultPrevented) return;
  event.preventDefault();
  const forms = await loadForms();
  if (forms) forms.submit(form, event.submitter);
  // As without JavaScript.
  else form.submit();
});
document.addEventListener("change", async (event) => {
  const form = formOf(event);
  if (form) (await loadForms())?.change(form);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, async (event) => {
    const form = formOf(event, ",[data-upload-drop]");
    const { dataTransfer } = /** @type {DragEvent} */ (event);
    if (!form || !dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    // Between two elements of the area, "dragleave" is followed by "dragover".
    form.toggleAttribute("data-dragging", name === "dragover");
    if (name !== "drop") return;
    // Not readable after this event.
    const dropped = [...dataTransfer.items].map((item) => {
      const entry = item.webkitGetAsEntry();
      return entry?.isDirectory ? entry : item.getAsFile();
    });
    (await loadForms())?.drop(form, dropped);
  });
}

/**
 * <upload-progress>: how far uploads are, in the server's words; and sending them, if you like.
 *
 *   <script type="module" src="/uploads/upload-progress.js"></script>
 *   <upload-progress src="/uploads" all></upload-progress>
 *
 * Sections: words, feed, sending, element, forms. The guide has every attribute, part and event.
 *
 * @import {Access, Reason, Snapshot, State, Target, UploadOptions} from "./types.d.ts"
 */

// An upload that ends before is shown once, as it ended.
const CALM_MS = 120;
// No look of a row lasts shorter.
const STEADY_MS = 300;
const POLL_MS = 1000;
const LONGEST_WAIT_MS = 15000;
// A stream that says nothing for so long is held back by a proxy.
const FIRST_WORD_MS = 4000;
const KEPT_ROWS = 100;
const SOURCE = "/uploads";

/** @type {(upload?: Snapshot) => boolean} */
const isFinal = (upload) => !!upload && /^(completed|failed|cancelled)$/.test(upload.state);
/** @type {(bytes: number, total: number | null) => number | null} */
const shareOf = (bytes, total) => (total ? Math.min(1, bytes / total) : null);

// --- words ------------------------------------------------------------------------------------

/** @type {Record<string, Record<string, string>>} */
export const LABELS = { en: {}, es: {}, de: {} };
// A word or sentence a line: its key, and what it is in each of these languages.
for (const line of `
pending|Waiting|En espera|Wartet
receiving|Receiving|Recibiendo|Wird empfangen
paused|Paused|En pausa|Pausiert
processing|Processing|Procesando|In Arbeit
completed|Completed|Completado|Fertig
failed|Failed|Fallido|Fehlgeschlagen
cancelled|Cancelled|Cancelado|Abgebrochen
stalled|Stalled|Detenido|Stockt
of|{0} of {1}|{0} de {1}|{0} von {1}
left|{0} left|quedan {0}|noch {0}
sent|{0} sent|{0} enviados|{0} gesendet
received|{0} received|{0} recibidos|{0} empfangen
silent|no data is arriving|no llegan datos|es kommen keine Daten an
buffered|a proxy held the bytes back|un proxy retuvo los datos|ein Proxy hielt die Daten zurück
cancel|Cancel|Cancelar|Abbrechen
retry|Retry|Reintentar|Wiederholen
uploads|{0} of {1} uploads|{0} de {1} archivos|{0} von {1} Dateien
lost|The server does not answer; trying again.|El servidor no responde; se reintenta.|Der Server antwortet nicht; neuer Versuch läuft.
denied|Sign in to see your uploads.|Inicie sesión para ver sus envíos.|Bitte anmelden, um die Uploads zu sehen.
client_disconnected|The connection broke before the last byte.|La conexión se cortó antes del último byte.|Die Verbindung brach vor dem letzten Byte ab.
worker_lost|The server stopped while receiving.|El servidor se detuvo al recibir.|Der Server hielt beim Empfangen an.
expired|Nothing arrived for too long.|No llegó nada en mucho tiempo.|Zu lange kam nichts an.
unknown|The server does not know this upload.|El servidor no conoce este envío.|Der Server kennt diesen Upload nicht.
network|The file is unreadable, or the server does not answer.|El archivo es ilegible o el servidor no responde.|Die Datei ist nicht lesbar, oder der Server antwortet nicht.
`.trim().split("\n")) {
  const [key = "", ...texts] = line.split("|");
  for (const words of Object.values(LABELS)) words[key] = texts.shift() ?? "";
}
const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

/** Says numbers and states in one language. */
class Words {
  /** @type {Map<string, Intl.NumberFormat>} */
  #formats = new Map();

  /** @param {string} language @param {Record<string, string>} labels */
  constructor(language, labels) {
    const known = LABELS[language.split("-")[0] ?? ""];
    this.language = known || Object.keys(labels).length ? language : "en";
    this.labels = { ...LABELS.en, ...known, ...labels };
  }

  /** @param {string} key @param {(string | number)[]} values */
  say(key, ...values) {
    return (this.labels[key] ?? key).replace(/\{(\d)\}/g, (_, place) => String(values[place]));
  }

  /** @param {number} number @param {string} unit */
  #number(number, unit, digits = 0) {
    const key = unit + digits;
    let format = this.#formats.get(key);
    if (!format) {
      const how = unit ? { style: "unit", unit, unitDisplay: "short" } : { style: "percent" };
      const options = { ...how, maximumFractionDigits: digits, minimumFractionDigits: digits };
      format = new Intl.NumberFormat(this.language, /** @type {any} */ (options));
      this.#formats.set(key, format);
    }
    return format.format(number);
  }

  /** @param {number} share */
  percent(share) {
    return this.#number(Math.floor(share * 100 + 1e-9) / 100, "");
  }

  /** 20971520 → "21.0 MB". @param {number} bytes */
  bytes(bytes, suffix = "") {
    const power = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
    return this.#number(bytes / 1000 ** power, UNITS[power] + suffix, power ? 1 : 0);
  }

  /** In steps that grow with the time, so that digits do not jump. @param {number} seconds */
  time(seconds) {
    const whole = Math.max(1, Math.round(seconds));
    if (whole < 10) return this.#number(whole, "second");
    if (whole < 60) return this.#number(Math.ceil(whole / 5) * 5, "second");
    const minutes = Math.ceil(whole / 60);
    if (minutes < 60) return this.#number(minutes, "minute");
    const rest = minutes % 60 ? ` ${this.#number(minutes % 60, "minute")}` : "";
    return this.#number(Math.floor(minutes / 60), "hour") + rest;
  }

  /** @param {Snapshot} upload */
  state({ state, stage, stalled }) {
    if (state !== "processing" || !stage) return this.say(stalled ? "stalled" : state);
    const name = this.labels[stage.name] ?? stage.name;
    return name.charAt(0).toUpperCase() + name.slice(1);
  }

  /** @param {number} bytes @param {number | null} total */
  share(bytes, total) {
    return total === null ? this.bytes(bytes) : this.say("of", this.bytes(bytes), this.bytes(total));
  }

  /** @param {number | null} rate @param {number | null} seconds */
  pace(rate, seconds) {
    return [
      ...(rate === null ? [] : [this.bytes(rate, "-per-second")]),
      ...(seconds === null ? [] : [this.say("left", this.time(seconds))]),
    ];
  }

  /** @param {Snapshot} upload */
  reason({ state, error }) {
    if (state !== "failed" || !error) return "";
    return this.labels[error.code] ?? error.message;
  }
}

// --- feed -------------------------------------------------------------------------------------

/**
 * Whether `next` tells more than `known`. A snapshot that was created after all that is known
 * belongs to a later upload of the same id: the server has started afresh.
 * @param {Snapshot} next @param {Snapshot} [known]
 */
function isNewer(next, known) {
  if (!known || known.is_lost) return true;
  if (next.attempt !== known.attempt || next.sequence !== known.sequence) {
    if (Date.parse(next.created_at) > Date.parse(known.updated_at)) return true;
    if (next.attempt !== known.attempt) return next.attempt > known.attempt;
    return next.sequence > known.sequence;
  }
  // The same version, seen again: a live answer counts on between two versions.
  return next.bytes_transferred > known.bytes_transferred;
}

/** @type {Map<string, ProgressFeed>} */
const feeds = new Map();

/** @type {(target: Target) => string} */
const pathOf = (target) => {
  if ("upload_id" in target) return `${encodeURIComponent(target.upload_id)}/progress`;
  return "group" in target ? `progress?group=${encodeURIComponent(target.group)}` : "progress";
};

/** A snapshot of our own, told before the server has spoken. @param {Snapshot} [upload] */
const isLocal = (upload) => !!upload && upload.attempt % 1 > 0;

/**
 * Follows uploads of one server: by WebSocket, else by an event stream, and by asking while there
 * is neither. One for all elements of a page. Events: `upload` (detail: `{upload, known}`), `sent`,
 * `connection`, `unauthorized`.
 */
export class ProgressFeed extends EventTarget {
  /** @type {Map<string, Snapshot>} */
  uploads = new Map();
  /** What this page sends. @type {Map<string, Transfer>} */
  transfers = new Map();
  /** @type {Transfer[]} */
  queue = [];
  /** @type {Set<Transfer>} */
  sending = new Set();
  // A browser has six connections to a server: some stay free for asking.
  limit = 3;
  /** @type {"connecting" | "websocket" | "sse" | "polling" | "lost" | "denied"} */
  connection = "connecting";
  /** @type {Access} */
  access = {};
  /** @type {Map<string, {target: Target, count: number, isSubscribed: boolean}>} */
  #targets = new Map();
  #confirmed = new Set();
  /** @type {Map<string, string>} */
  #tags = new Map();
  /** @type {WebSocket | null} */
  #socket = null;
  #line = new AbortController();
  #waits = new AbortController();
  #isRunning = false;
  #isLeaving = false;
  #isWaitHeld = true;
  #isWaiting = false;
  #alarm = new EventTarget();

  /** The feed of a mount point. @param {string} src */
  static of(src) {
    const base = new URL(src.replace(/\/*$/, "/"), document.baseURI).href;
    const feed = feeds.get(base) ?? new ProgressFeed(base);
    feeds.set(base, feed);
    return feed;
  }

  /** @param {string} base */
  constructor(base) {
    super();
    this.base = base;
    const nudge = () => document.hidden || this.#nudge();
    addEventListener("online", nudge);
    document.addEventListener("visibilitychange", nudge);
  }

  /** Follow something until the returned function is called. @param {Target} target */
  follow(target) {
    const key = JSON.stringify(target);
    const entry = this.#targets.get(key) ?? { target, count: 0, isSubscribed: false };
    this.#targets.set(key, entry);
    if (++entry.count === 1) this.#begin(entry);
    return () => {
      if (--entry.count) return;
      this.#targets.delete(key);
      if (entry.isSubscribed) this.#say("unsubscribe", target);
      if (!this.#wanted.length) this.#hangUp();
    };
  }

  /** Ask the server to cancel an upload. @param {string} uploadId */
  async cancel(uploadId) {
    await this.fetch(encodeURIComponent(uploadId), { method: "DELETE" });
    await this.ask(uploadId);
  }

  /** Take in a snapshot, unless it is old news. @param {Snapshot} upload */
  accept(upload) {
    const { upload_id: id } = upload;
    const known = this.uploads.get(id);
    this.#confirmed.add(id);
    if (!isNewer(upload, known)) return;
    if (known?.attempt === upload.attempt && known.created_at === upload.created_at) {
      // Whatever the order in which answers come: a bar never goes back.
      upload.bytes_transferred = Math.max(upload.bytes_transferred, known.bytes_transferred);
    }
    this.uploads.delete(id);
    this.uploads.set(id, upload);
    if (this.uploads.size > 10 * KEPT_ROWS) {
      const oldest = [...this.uploads.values()].find(isFinal);
      if (oldest) this.uploads.delete(oldest.upload_id);
    }
    this.tell("upload", { upload, known });
    if (isFinal(upload)) this.transfers.get(id)?.close(upload);
  }

  /** Ask for one upload; resolve to whether the server answered. @param {string} uploadId */
  async ask(uploadId, mayWait = false) {
    const tag = mayWait && this.#tags.get(uploadId);
    const { signal } = this.#waits;
    const wait = tag && { headers: { prefer: "wait=25", "if-none-match": tag }, signal };
    const answer = await this.fetch(`${encodeURIComponent(uploadId)}/progress`, wait || {});
    if (wait) {
      if (signal.aborted) return true;
      this.#isWaitHeld = !!answer?.headers.has("preference-applied");
    }
    if (answer?.ok) {
      this.#tags.set(uploadId, answer.headers.get("etag") ?? "");
      this.accept(await answer.json());
    }
    if (answer?.status === 404) this.#lose(uploadId);
    return !!answer && (answer.ok || answer.status === 304 || answer.status === 404);
  }

  /** Ask the server; null where it does not answer. @param {string} path */
  async fetch(path, /** @type {RequestInit} */ init = {}) {
    try {
      const headers = { ...(await this.headers()), .../** @type {object} */ (init.headers) };
      const { credentials = "same-origin" } = this.access;
      const how = { cache: /** @type {const} */ ("no-store"), credentials, ...init, headers };
      const answer = await fetch(new URL(path, this.base), how);
      if (answer.status === 401) this.deny();
      return answer;
    } catch {
      return null;
    }
  }

  /** What shows who asks. */
  async headers() {
    const { headers } = this.access;
    return typeof headers === "function" ? headers() : headers;
  }

  /** Stop: the server wants to know who asks. */
  deny() {
    if (this.connection === "denied") return;
    this.#show("denied");
    this.#hangUp();
    this.tell("unauthorized");
  }

  /** Begin anew, as whoever it is now. */
  restart() {
    this.connection = "connecting";
    this.#hangUp();
    this.#run();
  }

  /** @param {string} name @param {unknown} [detail] */
  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** @param {{target: Target}} entry */
  #begin({ target }) {
    this.#run();
    // A stream cannot be told of more, as a socket can: it is opened anew.
    if (this.connection === "sse") this.#line.abort();
    this.#say("subscribe", target);
    this.#waits.abort();
    this.#wake();
  }

  #hangUp() {
    this.#isLeaving = true;
    this.#line.abort();
    this.#waits.abort();
    this.#wake();
  }

  #nudge() {
    // Who has slept does not know whether the line is still there.
    this.#confirmed.clear();
    if (this.#isLive) this.#askAll();
    else this.#wake();
  }

  get #isLive() {
    return this.connection === "websocket" || this.connection === "sse";
  }

  /** What is followed, can still change, and is not followed anyway by something larger. */
  get #wanted() {
    if (this.connection === "denied") return [];
    const everything = this.#targets.get('{"all":true}');
    if (everything) return [everything];
    return [...this.#targets.values()].filter(({ target }) => {
      const known = "upload_id" in target && this.uploads.get(target.upload_id);
      if (!known) return true;
      const { group } = known;
      return !isFinal(known) && !(group && this.#targets.has(JSON.stringify({ group })));
    });
  }

  get #goesOn() {
    return !this.#isLeaving && this.#wanted.length > 0;
  }

  /** @param {ProgressFeed["connection"]} connection */
  #show(connection) {
    if (this.connection === connection) return;
    this.connection = connection;
    this.tell("connection", connection);
  }

  #wake() {
    this.#alarm.dispatchEvent(new Event("wake"));
  }

  /** Sleep, unless something happens that makes it worth trying at once. @param {number} ms */
  async #sleep(ms) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      const wake = () => (clearTimeout(timer), resolve(0));
      this.#alarm.addEventListener("wake", wake, { once: true });
    });
  }

  async #run() {
    if (this.#isRunning || !this.#wanted.length) return;
    this.#isRunning = true;
    // By then the page may have said who asks.
    await this.#sleep(0);
    this.#isLeaving = false;
    await Promise.all([this.#listen(), this.#poll()]);
    this.#isRunning = false;
    // Somebody may have come while the two were leaving.
    this.#run();
  }

  /** Hold a live connection, the best that works. */
  async #listen() {
    for (let failures = 0; this.#goesOn; ) {
      this.#line = new AbortController();
      const isUseful = (await this.#talk()) || (await this.#read());
      if (!this.#goesOn) return;
      failures = isUseful ? 0 : failures + 1;
      if (this.connection !== "lost") this.#show(isUseful ? "connecting" : "polling");
      if (isUseful) this.#wake();
      // Spread over time: a server that comes back is not met by everybody at once.
      const wait = Math.min(LONGEST_WAIT_MS, 250 * 2 ** failures);
      if (!this.#line.signal.aborted) await this.#sleep(wait * (0.5 + Math.random() / 2));
    }
  }

  /** Ask while nothing is live, and now and then when something is: no end must be missed. */
  async #poll() {
    for (let failures = 0; this.#goesOn; ) {
      this.#waits = new AbortController();
      const isHeard = await this.#askAll();
      failures = isHeard ? 0 : failures + 1;
      if (failures > 1 && !this.#isLive) this.#show("lost");
      if (isHeard && this.connection === "lost") {
        this.#show("polling");
        this.#wake();
      }
      const isUnheard = this.#isLive && this.#subscribe();
      const pause = Math.min(LONGEST_WAIT_MS, POLL_MS * 2 ** Math.max(0, failures - 2));
      if (this.#isLive && !isUnheard) await this.#sleep(2 * LONGEST_WAIT_MS);
      else await this.#sleep(this.#isWaiting && isHeard ? POLL_MS / 10 : pause);
    }
  }

  async #askAll() {
    const wanted = this.#isLive ? [] : this.#wanted;
    const mayWait = wanted.length === 1 && this.#isWaitHeld;
    if (wanted.length) this.#confirmed.clear();
    this.#isWaiting = false;
    const answers = wanted.map(({ target }) => {
      if (!("upload_id" in target)) return this.#askList(target);
      this.#isWaiting = mayWait && this.#tags.has(target.upload_id);
      return this.ask(target.upload_id, mayWait);
    });
    const isHeard = (await Promise.all(answers)).every(Boolean) && (await this.#confirm());
    if (!wanted.length) this.#confirmed.clear();
    return isHeard;
  }

  /** @param {Target} target */
  async #askList(target) {
    const answer = await this.fetch(pathOf(target));
    if (answer?.ok) for (const one of (await answer.json()).uploads.reverse()) this.accept(one);
    return !!answer?.ok;
  }

  /** Ask for each open upload that the server has not spoken of: its end must not be missed. */
  async #confirm() {
    for (const upload of this.uploads.values()) {
      const isKnown = isFinal(upload) || isLocal(upload) || this.#confirmed.has(upload.upload_id);
      if (!isKnown && !(await this.ask(upload.upload_id))) return false;
    }
    return true;
  }

  /** @param {string} uploadId */
  #lose(uploadId) {
    const upload = this.uploads.get(uploadId);
    if (!upload || isLocal(upload) || isFinal(upload)) return;
    const error = { code: "unknown", message: "" };
    const lost = { stage: null, stalled: false, error, is_lost: true };
    // Not by `accept`, for which this would be no news.
    this.uploads.set(uploadId, { ...upload, ...lost, state: "failed" });
    this.tell("upload", { upload: this.uploads.get(uploadId), known: upload });
  }

  /** Talk over one socket for as long as it lives; resolve to whether it was of any use. */
  async #talk() {
    const url = new URL("progress", this.base);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.access.headers) {
      const answer = await this.fetch("tickets", { method: "POST" });
      if (!answer?.ok || this.#line.signal.aborted) return false;
      url.searchParams.set("ticket", (await answer.json()).ticket);
    }
    const socket = new WebSocket(url);
    let isUseful = false;
    /** @type {number} Why it ended. */
    const code = await new Promise((resolve) => {
      const wait = watchdog(() => resolve(0), FIRST_WORD_MS);
      this.#line.signal.addEventListener("abort", () => resolve(0));
      socket.onclose = ({ code }) => resolve(code);
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        wait();
        if (message.type !== "welcome") return this.#hear(message);
        isUseful = true;
        wait((message.heartbeat_seconds ?? 15) * 2500);
        this.#socket = socket;
        this.#subscribe();
        this.#connected("websocket");
      };
    });
    this.#socket = socket.onmessage = null;
    for (const entry of this.#targets.values()) entry.isSubscribed = false;
    socket.close();
    if (code === 4401) this.deny();
    return isUseful;
  }

  /** @param {any} message */
  #hear({ type, upload, ...target }) {
    if (type === "progress") this.accept(upload);
    const entry = type === "subscribed" && this.#targets.get(JSON.stringify(target));
    if (entry) entry.isSubscribed = true;
  }

  /** Say what is followed; return whether the server has yet to agree to some of it. */
  #subscribe() {
    const missing = this.#socket ? this.#wanted.filter((one) => !one.isSubscribed) : [];
    for (const { target } of missing) this.#say("subscribe", target);
    return missing.length > 0;
  }

  /** @param {string} type @param {Target} target */
  #say(type, target) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify({ type, ...target }));
  }

  /** @param {"websocket" | "sse"} kind */
  #connected(kind) {
    if (this.connection === kind) return;
    this.#show(kind);
    this.#waits.abort();
    this.#confirmed.clear();
    setTimeout(() => this.connection === kind && this.#confirm(), 2 * POLL_MS);
  }

  /** Read event streams to their end. Of six connections they may take two. */
  async #read() {
    const wanted = this.#wanted;
    if (wanted.length > 2) return false;
    const ends = wanted.map(({ target }) => this.#readOne(target));
    return (await Promise.all(ends)).includes(true);
  }

  /** @param {Target} target */
  async #readOne(target) {
    const { signal } = this.#line;
    const silence = new AbortController();
    const wait = watchdog(() => silence.abort(), FIRST_WORD_MS);
    let isUseful = false;
    try {
      const answer = await this.fetch(pathOf(target), {
        headers: { accept: "text/event-stream" },
        signal: AbortSignal.any([signal, silence.signal]),
      });
      const reader = answer?.ok && answer.body?.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; reader; ) {
        const { done, value } = await reader.read();
        if (done) break;
        isUseful = true;
        this.#connected("sse");
        wait(2.5 * LONGEST_WAIT_MS);
        const events = (text + value).split("\n\n");
        text = events.pop() ?? "";
        for (const event of events) {
          const data = /^data:\s?(.*)$/m.exec(event)?.[1];
          if (data) this.accept(JSON.parse(data));
        }
      }
    } catch {
      // Cut off: whoever called sees to what comes next.
    }
    wait(0);
    return isUseful;
  }
}

/**
 * Call `fire` when what is returned has not been called for so long; after a call with 0, never.
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

/** Say how the server behind `src` knows who asks, and begin anew. @param {string} src */
export function authorize(src, /** @type {Access} */ access) {
  const feed = ProgressFeed.of(src);
  feed.access = access;
  feed.restart();
}

// --- sending ----------------------------------------------------------------------------------

function makeId() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return Array.from(bytes, (byte) => (byte % 16).toString(16)).join("");
}

let moment = "";

/** What is started together has one time, and so keeps its order. */
function now() {
  if (!moment) queueMicrotask(() => (moment = ""));
  return (moment ||= new Date().toISOString());
}

/** A file on its way: it waits for its turn, is sent, and may be sent again. */
export class Transfer {
  id = "";
  sentShare = 0;
  reason = "";
  /** @type {XMLHttpRequest | null} */
  request = null;
  #isCancelled = false;
  /** @type {() => void} */
  #unfollow = () => {};
  /** @type {(upload: Snapshot) => void} */
  #resolve = () => {};
  /** How it ended, in the server's words. @type {Promise<Snapshot>} */
  done = Promise.resolve(/** @type {any} */ (null));

  /** @param {File | Blob | FormData} body @param {string} url @param {UploadOptions} options */
  constructor(body, url, options) {
    const { bar = document.querySelector("upload-progress") } = options;
    this.body = body;
    this.url = url;
    this.options = options;
    this.bar = bar instanceof UploadProgressElement ? bar : null;
    this.feed = ProgressFeed.of(options.src ?? this.bar?.getAttribute("src") ?? SOURCE);
    this.name = options.name ?? ("name" in body ? String(body.name) : "file");
    this.retry();
  }

  /** Put it into the queue, at first or again. */
  retry() {
    const known = this.feed.uploads.get(this.id);
    this.request?.abort();
    this.request = null;
    // Where the server has not seen the end of the last try, this is an upload of its own.
    if (!known || !isFinal(known)) this.id = makeId();
    this.sentShare = 0;
    this.reason = "";
    this.#isCancelled = false;
    this.done = new Promise((resolve) => (this.#resolve = resolve));
    this.feed.transfers.set(this.id, this);
    this.bar?.add(this.id);
    this.#tell("pending");
    this.feed.queue.push(this);
    sendNext(this.feed);
  }

  async cancel() {
    const { queue } = this.feed;
    this.#isCancelled = true;
    if (queue.includes(this)) {
      queue.splice(queue.indexOf(this), 1);
      return this.#tell("cancelled");
    }
    await this.feed.cancel(this.id);
    return this.request?.abort();
  }

  /** It has ended. @param {Snapshot} upload */
  close(upload) {
    this.#unfollow();
    if (!this.feed.sending.has(this)) this.#resolve(upload);
    if (upload.state === "cancelled") this.request?.abort();
    if (upload.state === "completed") this.feed.transfers.delete(this.id);
  }

  async send() {
    const { feed, options } = this;
    const request = (this.request = new XMLHttpRequest());
    feed.sending.add(this);
    this.#unfollow = feed.follow({ upload_id: this.id });
    const name = encodeURIComponent(this.name);
    request.open(options.method ?? (options.field ? "POST" : "PUT"), this.url.replace("{name}", name));
    request.withCredentials = feed.access.credentials === "include";
    const own = { "Upload-Id": this.id, ...(options.group && { "Upload-Group": options.group }) };
    const headers = { ...(await feed.headers()), ...options.headers, ...own };
    for (const header of Object.entries(headers)) request.setRequestHeader(...header);
    request.upload.onprogress = ({ loaded, total }) => {
      this.sentShare = loaded / total;
      feed.tell("sent", this.id);
    };
    request.onloadend = () => this.#end(request);
    if (this.#isCancelled) return this.#end(request);
    return request.send(this.#form());
  }

  #form() {
    const { field } = this.options;
    if (!field || this.body instanceof FormData) return this.body;
    const form = new FormData();
    form.set(field, this.body, this.name);
    return form;
  }

  /** @param {XMLHttpRequest} request */
  async #end(request) {
    const { status } = request;
    const isGood = status >= 200 && status < 400;
    this.feed.sending.delete(this);
    sendNext(this.feed);
    if (status === 401) this.feed.deny();
    if (status && !isGood) this.reason = detailOf(request) ?? "";
    await this.feed.ask(this.id);
    if (request !== this.request) return;
    // Where the server has nothing to say of this upload, the answer to it is the last word.
    const known = this.feed.uploads.get(this.id);
    if (known && !isLocal(known)) {
      this.feed.tell("sent", this.id);
      if (isFinal(known)) this.#resolve(known);
    } else if (isGood) this.#tell("completed");
    else if (this.#isCancelled) this.#tell("cancelled");
    else this.#tell("failed", { code: status ? "rejected" : "network", message: this.reason || `HTTP ${status}` });
  }

  /** Say where it stands, until the server does. @param {State} state @param {Reason | null} error */
  #tell(state, error = null) {
    const { id, body, name, feed, options } = this;
    const known = feed.uploads.get(id);
    const total = body instanceof Blob ? body.size : null;
    feed.accept({
      upload_id: id, group: options.group ?? null, filename: name, state, error,
      attempt: Math.floor(known?.attempt ?? 0) + 0.5, sequence: (known?.sequence ?? 0) + 1,
      bytes_transferred: state === "completed" ? (total ?? 0) : 0, total_bytes: total,
      percent: state === "completed" ? 100 : 0, bytes_per_second: null, eta_seconds: null,
      stage: null, stalled: false, arrival: null, created_at: known?.created_at ?? now(),
      updated_at: known?.updated_at ?? new Date(0).toISOString(),
    });
  }
}

/** Why a request was refused, if the answer is a problem document. @param {XMLHttpRequest} request */
function detailOf(request) {
  try {
    const { detail, title } = JSON.parse(request.responseText);
    return typeof detail === "string" ? detail : title;
  } catch {
    return null;
  }
}

/** @param {ProgressFeed} feed */
function sendNext(feed) {
  while (feed.sending.size < feed.limit && feed.queue.length) feed.queue.shift()?.send();
}

/**
 * Send a file, and show it: in `options.bar`, or else in the page's first <upload-progress>.
 * @param {File | Blob | FormData} file
 * @param {string} url Where to; `{name}` stands for the file's name.
 * @param {UploadOptions} [options] With `field` it is sent as a form, else as it is.
 */
export const upload = (file, url, options = {}) => new Transfer(file, url, options);

/** How many files this page is sending, or still has to send. */
export function unsent() {
  return [...feeds.values()].reduce((sum, { queue, sending }) => sum + queue.length + sending.size, 0);
}

// --- element ----------------------------------------------------------------------------------

const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
:host {
  --accent: var(--upload-progress-accent, light-dark(#2458d3, #7ea6ff));
  --good: var(--upload-progress-good, light-dark(#14744a, #5fce98));
  --bad: var(--upload-progress-bad, light-dark(#b3261e, #ff9289));
  --warn: var(--upload-progress-warn, light-dark(#8a5300, #e9b45c));
  --text: var(--upload-progress-text, light-dark(#1b2330, #e6eaf1));
  --muted: var(--upload-progress-muted, light-dark(#586274, #9aa5b6));
  --line: var(--upload-progress-line, light-dark(#e3e7ed, #2b323d));
  --surface: var(--upload-progress-surface, light-dark(#fff, #181d25));
  --tone: var(--accent);
  display: block; container-type: inline-size; color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums;
}
[hidden], :host([hidden]) { display: none !important; }
ul { margin: 0; padding: 0; display: grid; gap: 10px; }
.row {
  display: grid; grid-template-columns: minmax(0, 1fr) auto auto; align-items: center;
  min-height: 40px; padding: 12px 16px;
  border: 1px solid var(--line); border-radius: 12px; background: var(--surface);
}
.total { border-color: transparent; background: none; padding-top: 0; }
[data-state=completed] { --tone: var(--good); }
[data-state=failed] { --tone: var(--bad); }
[data-state=cancelled] { --tone: var(--muted); }
[data-state=paused], [data-stalled] { --tone: var(--warn); }
.name, .percent, b { font-weight: 600; }
.name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.percent, button { margin-inline-start: 14px; }
.percent { font-size: 17px; }
[data-final] .percent { color: var(--muted); font-weight: 500; font-size: 15px; }
button {
  font: inherit; font-size: 13.5px; line-height: 1; color: var(--muted); background: none;
  border: 1px solid var(--line); border-radius: 8px; padding: 8px 11px; cursor: pointer;
}
button:hover { color: var(--text); border-color: currentColor; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
[aria-disabled] { opacity: .6; }
.bar, .facts, .problem { grid-column: 1 / -1; }
.bar { position: relative; height: 8px; border-radius: 4px; background: var(--line); overflow: hidden; margin-top: 9px; }
.stage { height: 4px; }
i {
  position: absolute; inset-block: 0; inset-inline-start: 0; border-radius: inherit;
  background: var(--tone); width: calc(100% * var(--share, 0)); transition: width .25s linear;
}
.sent { opacity: .24; }
[data-unknown] .got { width: 30%; animation: wander 1.6s ease-in-out infinite alternate; }
@keyframes wander { to { inset-inline-start: 70%; } }
.facts {
  display: flex; flex-wrap: wrap; margin-top: 7px; margin-inline-start: -20px;
  font-size: 13.5px; color: var(--muted); clip-path: inset(0 0 0 20px);
}
.facts:dir(rtl) { clip-path: inset(0 20px 0 0); }
.facts > * { position: relative; padding-inline-start: 20px; }
span, p { unicode-bidi: plaintext; }
.row:dir(rtl) { text-align: right; }
b { color: var(--tone); }
span::before { content: "·"; position: absolute; inset-inline-start: 8px; }
p { margin: 5px 0 0; font-size: 13.5px; color: var(--bad); overflow-wrap: anywhere; }
.notice { margin: 0 0 10px; color: var(--warn); }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@container (max-width: 420px) {
  .name { white-space: normal; overflow-wrap: anywhere; }
  .percent, button { grid-column: 2 / -1; justify-self: end; }
  button, .facts { grid-row: 3; }
  .facts { grid-column: 1; }
  button { align-self: start; margin-top: 7px; }
}
@media (prefers-reduced-motion) {
  i { transition: none; }
  [data-unknown] .got { animation: none; width: 100%; opacity: .4; }
}
@media (forced-colors: active) {
  .bar { border: 1px solid; }
  i { background: Highlight; forced-color-adjust: none; }
}
`);

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {string} part Its class and its ::part. @param {Node[]} children
 */
function make(tag, part = "", ...children) {
  const node = document.createElement(tag);
  if (part) node.className = node.part.value = part;
  node.append(...children);
  return node;
}

/** @param {Node} node @param {string} text */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {Element} node @param {string} name @param {string | number | boolean | null} value */
function mark(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== `${value}`) node.setAttribute(name, `${value}`);
}

/** A bar; of a share that nobody knows it shows that. */
class Bar {
  sent = make("i", "sent");
  got = make("i", "got");

  constructor(part = "bar") {
    this.node = make("div", part, this.sent, this.got);
    this.node.classList.add("bar");
    Object.assign(this.node, { role: "progressbar", ariaValueMin: "0", ariaValueMax: "100" });
  }

  /** @param {number | null} share @param {string} label @param {string} words */
  show(share, label, words, sentShare = 0) {
    mark(this.node, "data-unknown", share === null);
    mark(this.node, "aria-valuenow", share === null ? null : Math.floor(share * 100));
    mark(this.node, "aria-label", label);
    mark(this.node, "aria-valuetext", words);
    if (share !== null) this.got.style.setProperty("--share", `${share}`);
    this.sent.style.setProperty("--share", `${sentShare}`);
  }
}

/** One upload on the screen, or the sum of several. */
class Row {
  bornAt = performance.now();
  createdAt = 0;
  milestone = -1;
  name = make("div", "name");
  percent = make("div", "percent");
  cancel = make("button", "cancel");
  retry = make("button", "retry");
  bar = new Bar();
  state = make("b", "state");
  facts = make("div", "facts", this.state);
  stage = new Bar("stage");
  problem = make("p", "problem");
  #pace = /** @type {string[]} */ ([]);
  #pacedAt = -Infinity;

  /** @param {"li" | "div"} tag @param {string} part */
  constructor(tag, part) {
    const { name, percent, cancel, retry, bar, facts, stage, problem } = this;
    this.node = make(tag, part, name, percent, cancel, retry, bar.node, facts, stage.node, problem);
    this.node.classList.add("row");
    this.node.tabIndex = -1;
    name.dir = "auto";
    cancel.type = retry.type = "button";
    cancel.hidden = retry.hidden = stage.node.hidden = problem.hidden = true;
  }

  /** Speed and time left, no more often than one can read. @param {() => string[]} pace */
  calmly(pace) {
    if (performance.now() - this.#pacedAt > 900) {
      this.#pacedAt = performance.now();
      this.#pace = pace();
    }
    return this.#pace;
  }

  /**
   * @param {Words} words @param {string} label @param {string} state @param {number | null} share
   * @param {string[]} facts
   */
  show(words, label, state, share, facts, sentShare = 0) {
    const percent = share === null ? "" : words.percent(share);
    say(this.name, label);
    say(this.percent, percent);
    say(this.state, state);
    this.bar.show(share, label, [percent, state, ...facts].filter(Boolean).join(", "), sentShare);
    const { facts: node } = this;
    while (node.childElementCount > facts.length + 1) node.lastElementChild?.remove();
    while (node.childElementCount < facts.length + 1) node.append(make("span"));
    facts.forEach((text, place) => say(/** @type {Element} */ (node.children[place + 1]), text));
  }
}

/** Shows uploads, and follows what its attributes name. */
export class UploadProgressElement extends HTMLElement {
  static observedAttributes = ["src", "upload-id", "group", "all", "labels", "lang"];

  /** @type {ProgressFeed | null} */
  #feed = null;
  /** @type {Map<string, Row>} */
  #rows = new Map();
  #ids = new Set();
  #dirty = new Set();
  /** @type {Map<string, string>} */
  #news = new Map();
  #batch = new Set();
  #words = new Words("en", {});
  #leave = new AbortController();
  #isFresh = true;
  #isSpeaking = false;
  #frame = 0;
  #total = new Row("div", "total");
  #list = make("ul", "list");
  #empty = make("slot");
  #notice = make("p", "notice");
  #spoken = make("p", "spoken");

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [SHEET];
    this.#empty.name = "empty";
    this.#notice.role = this.#spoken.role = "status";
    this.#total.node.hidden = this.#list.hidden = this.#notice.hidden = true;
    root.append(this.#notice, this.#empty, this.#total.node, this.#list, this.#spoken);
  }

  /** The newest snapshot of each upload that is shown here. */
  get uploads() {
    return [...(this.#feed?.uploads.values() ?? [])].filter((upload) => this.#shows(upload));
  }

  connectedCallback() {
    this.#feed = ProgressFeed.of(this.getAttribute("src") ?? SOURCE);
    const labels = JSON.parse(this.getAttribute("labels") ?? "{}");
    const lang = this.closest("[lang]")?.getAttribute("lang");
    this.#words = new Words(lang || navigator.language, labels);
    this.#leave = new AbortController();
    this.#isFresh = true;
    const { signal } = this.#leave;
    /** @type {(name: string, listener: (event: any) => void) => void} */
    const on = (name, listener) => this.#feed?.addEventListener(name, listener, { signal });
    on("upload", ({ detail }) => this.#shows(detail.upload) && this.#take(detail));
    on("sent", ({ detail }) => this.#rows.has(detail) && this.#redraw(detail));
    on("connection", () => this.#connected());
    on("unauthorized", () => this.#tell("unauthorized"));
    for (const upload of this.uploads) this.#redraw(upload.upload_id);
    for (const target of this.#targets()) {
      signal.addEventListener("abort", this.#feed.follow(target));
    }
    this.#connected();
  }

  disconnectedCallback() {
    this.#leave.abort();
    this.#feed = null;
    this.#rows.clear();
    this.#list.replaceChildren();
  }

  attributeChangedCallback() {
    if (!this.#feed) return;
    this.disconnectedCallback();
    this.connectedCallback();
  }

  /** Show this upload, too. @param {string} uploadId */
  add(uploadId) {
    this.#ids.add(uploadId);
  }

  /** Send a file, and show it here. @param {File | Blob} file @param {string} url */
  upload(file, url, /** @type {UploadOptions} */ options = {}) {
    return upload(file, url, { ...options, bar: this });
  }

  /** Cancel an upload, be it this page's or another's. @param {string} uploadId */
  async cancel(uploadId) {
    const transfer = this.#feed?.transfers.get(uploadId);
    await (transfer ? transfer.cancel() : this.#feed?.cancel(uploadId));
  }

  /** Take uploads that have ended off the screen. */
  clearFinished() {
    for (const upload of this.uploads.filter(isFinal)) this.#remove(upload.upload_id);
    this.#tidy();
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
  #shows({ upload_id, group }) {
    if (this.hasAttribute("all") || this.#ids.has(upload_id)) return true;
    return group !== null && group === this.getAttribute("group");
  }

  #connected() {
    const { connection = "" } = this.#feed ?? {};
    const isBad = connection === "lost" || connection === "denied";
    this.#notice.hidden = !isBad;
    say(this.#notice, isBad ? this.#words.say(connection) : "");
    this.dataset.connection = connection;
    if (connection !== "connecting") setTimeout(() => (this.#isFresh = false), STEADY_MS);
  }

  /** @param {string} name @param {Snapshot} [detail] */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }

  /** @param {{upload: Snapshot, known?: Snapshot}} news */
  #take({ upload, known }) {
    const id = upload.upload_id;
    if (!isFinal(upload)) {
      if (![...this.#batch].some((one) => !isFinal(this.#feed?.uploads.get(one)))) this.#batch.clear();
      this.#batch.add(id);
    }
    this.#tell("progress", upload);
    // What had ended before anybody looked is no news, unless it was asked for by name.
    const isOld = !known && this.#isFresh && isFinal(upload) && !this.#ids.has(id);
    if (known?.state !== upload.state && !isOld) {
      this.#tell("statechange", upload);
      if (upload.state === "completed") this.#tell("complete", upload);
      else if (isFinal(upload)) this.#tell("error", upload);
    }
    if (this.#rows.has(id) || this.#isFresh || isLocal(upload)) this.#redraw(id);
    else setTimeout(() => this.#redraw(id), CALM_MS);
  }

  /** @param {string} uploadId */
  #redraw(uploadId) {
    this.#dirty.add(uploadId);
    this.#frame ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#frame = 0;
    const ids = [...this.#dirty];
    this.#dirty.clear();
    for (const id of ids) {
      const upload = this.#feed?.uploads.get(id);
      if (upload) this.#show(upload);
    }
    this.#showTotal();
    this.#tidy();
  }

  /** @param {Snapshot} upload */
  #show(upload) {
    const { upload_id: id, stage, stalled, state } = upload;
    const words = this.#words;
    const row = this.#rows.get(id) ?? this.#insert(upload);
    const { node } = row;
    const isEnded = isFinal(upload);
    const calm = row.bornAt + STEADY_MS - performance.now();
    if (isEnded && calm > 0 && node.dataset.state && node.dataset.state !== state) {
      return void setTimeout(() => this.#redraw(id), calm);
    }
    const transfer = this.#feed?.transfers.get(id);
    const label = upload.filename ?? id;
    mark(node, "data-state", state);
    mark(node, "data-stalled", stalled && "");
    mark(node, "data-final", isEnded && "");
    const isReceiving = state === "receiving";
    const known = shareOf(upload.bytes_transferred, upload.total_bytes);
    const share = /^(processing|completed)$/.test(state) ? 1 : known ?? (isReceiving ? null : 0);
    const sentShare = isEnded ? 0 : transfer?.sentShare ?? 0;
    row.show(words, label, words.state(upload), share, this.#facts(upload, row, sentShare), sentShare);
    this.#close(row, row.cancel, isEnded);
    this.#close(row, row.retry, !(transfer && /failed|cancelled/.test(state)));
    for (const key of /** @type {const} */ (["cancel", "retry"])) {
      say(row[key], words.say(key));
      mark(row[key], "aria-label", `${words.say(key)} ${label}`);
    }
    row.stage.node.hidden = !stage;
    if (stage) {
      const done = shareOf(stage.done, stage.total);
      row.stage.show(done, words.state(upload), done === null ? `${stage.done}` : words.percent(done));
    }
    const reason = (state === "failed" && transfer?.reason) || words.reason(upload);
    row.problem.hidden = !reason;
    say(row.problem, reason);
    this.#announce(row, upload, label, share);
  }

  /** @param {Snapshot} upload @param {Row} row @param {number} sentShare */
  #facts(upload, row, sentShare) {
    const words = this.#words;
    const { state, bytes_transferred: bytes, total_bytes: total, stalled, arrival } = upload;
    const hint = arrival === "buffered" ? [words.say("buffered")] : [];
    if (state === "completed") return [words.bytes(bytes), ...hint];
    if (state === "processing") return [words.say("received", words.bytes(bytes)), ...hint];
    if (state === "pending") return total === null ? [] : [words.bytes(total)];
    const facts = [words.share(bytes, total)];
    if (state !== "receiving") return facts;
    const sentBytes = sentShare * (total ?? 0);
    if (total && sentBytes - bytes > total / 100) facts.push(words.say("sent", words.bytes(sentBytes)));
    if (stalled) return [...facts, words.say("silent")];
    return [...facts, ...row.calmly(() => words.pace(upload.bytes_per_second, upload.eta_seconds))];
  }

  /** Hide a button; whoever stood on it stays on the row. */
  #close(/** @type {Row} */ row, /** @type {HTMLButtonElement} */ button, /** @type {boolean} */ isOver) {
    if (button.hidden === isOver) return;
    if (isOver && button.matches(":focus")) row.node.focus();
    button.ariaDisabled = null;
    button.hidden = isOver;
  }

  /** @param {Row} row @param {Snapshot} upload @param {string} label @param {number | null} share */
  #announce(row, upload, label, share) {
    const words = this.#words;
    const milestone = Math.floor((share ?? 0) * 4);
    const state = words.state(upload);
    const isSameState = row.node.dataset.spoken === state;
    if (isSameState && (milestone <= row.milestone || isFinal(upload))) return;
    row.milestone = milestone;
    row.node.dataset.spoken = state;
    // The newest only: a milestone that nobody has heard yet gives way to the end.
    this.#news.set(label, isSameState ? words.percent(milestone / 4) : state);
    if (this.#isSpeaking) return;
    this.#isSpeaking = true;
    setTimeout(() => this.#speak(), 500);
  }

  #speak() {
    this.#isSpeaking = false;
    const news = [...this.#news].map(([label, text]) => `${label}: ${text}`);
    this.#news.clear();
    const { name, percent } = this.#total;
    const sum = `${name.textContent}, ${percent.textContent}`;
    say(this.#spoken, news.length > 3 ? sum : news.join(". "));
  }

  /** @param {Snapshot} upload */
  #insert(upload) {
    const row = new Row("li", "row");
    const { upload_id: id } = upload;
    row.createdAt = Date.parse(upload.created_at);
    row.node.dataset.uploadId = id;
    row.cancel.onclick = () => {
      if (row.cancel.ariaDisabled) return;
      // Not "disabled", which would take the focus away from whoever pressed it.
      row.cancel.ariaDisabled = "true";
      this.cancel(id);
    };
    row.retry.onclick = () => {
      row.node.focus();
      this.#feed?.transfers.get(id)?.retry();
    };
    // Newest first.
    const [older] = [...this.#rows.values()]
      .filter((other) => other.createdAt < row.createdAt)
      .sort((a, b) => b.createdAt - a.createdAt);
    this.#rows.set(id, row);
    this.#list.insertBefore(row.node, older?.node ?? null);
    return row;
  }

  /** The sum of a group, or of what is under way. */
  #showTotal() {
    const words = this.#words;
    const isGroup = this.hasAttribute("group");
    const counted = this.uploads.filter((one) => isGroup || this.#batch.has(one.upload_id));
    const open = counted.filter((one) => !isFinal(one));
    this.#total.node.hidden = counted.length < 2 || !(isGroup || open.length);
    let bytes = 0, rate = 0;
    /** @type {number | null} */
    let total = 0;
    for (const one of counted) {
      if (/failed|cancelled/.test(one.state)) continue;
      bytes += one.bytes_transferred;
      total = total === null || one.total_bytes === null ? null : total + one.total_bytes;
      if (!isFinal(one)) rate += one.bytes_per_second ?? 0;
    }
    const ended = counted.length - open.length;
    const label = words.say("uploads", ended, counted.length);
    const left = rate && total !== null ? (total - bytes) / rate : null;
    const pace = this.#total.calmly(() => (open.length ? words.pace(rate || null, left) : []));
    const { state = "completed" } = open.find((one) => one.state === "receiving") ?? open[0] ?? {};
    this.#total.show(words, label, words.say(state), shareOf(bytes, total), [words.share(bytes, total), ...pace]);
  }

  #remove(uploadId = "") {
    this.#rows.get(uploadId)?.node.remove();
    this.#rows.delete(uploadId);
  }

  #tidy() {
    /** @type {NodeListOf<HTMLElement>} */
    const found = this.#list.querySelectorAll("[data-final]");
    const ended = [...found];
    const surplus = this.#rows.size - KEPT_ROWS;
    for (const node of surplus > 0 ? ended.slice(-surplus) : []) this.#remove(node.dataset.uploadId);
    this.#empty.hidden = !(this.#list.hidden = !this.#rows.size);
    mark(this, "data-finished", ended.length || null);
  }
}

customElements.get("upload-progress") ?? customElements.define("upload-progress", UploadProgressElement);

// --- forms ------------------------------------------------------------------------------------

/** The enhanced form that an event is about: its own, or, of a drop, that of the area around it. */
function formOf(/** @type {Event} */ { target }, around = "") {
  const form = "form[data-upload-progress]";
  const area = target instanceof Element && target.closest(form + around);
  const found = area && (area.matches(form) ? area : area.querySelector(form));
  return found instanceof HTMLFormElement ? found : null;
}

/** The bar that the form names, or has in it, or gets. @param {HTMLFormElement} form */
function barOf(form) {
  const { uploadProgress, uploadSrc } = form.dataset;
  const found = uploadProgress ? document.querySelector(uploadProgress) : form.querySelector("upload-progress");
  if (found) return found;
  const bar = document.createElement("upload-progress");
  bar.setAttribute("src", uploadSrc ?? SOURCE);
  form.append(bar);
  return bar;
}

/** Send what the form holds: each file where the form says, or all of it as a browser would. */
async function send(/** @type {HTMLFormElement} */ form, /** @type {Iterable<File>} */ files, /** @type {HTMLElement | null} */ submitter = null) {
  const bar = /** @type {UploadProgressElement} */ (barOf(form));
  const { uploadUrl, uploadMethod: method, uploadLimit } = form.dataset;
  const group = form.dataset.uploadGroup ?? makeId();
  if (uploadLimit) ProgressFeed.of(bar.getAttribute("src") ?? SOURCE).limit = Number(uploadLimit);
  const sent = uploadUrl
    ? [...files].map((file) => upload(file, uploadUrl, { bar, group, ...(method && { method }) }))
    : [upload(new FormData(form, submitter), form.action, { bar, method: "POST", name: [...files][0]?.name ?? form.action })];
  if (uploadUrl) for (const input of inputsOf(form)) input.value = "";
  const uploads = await Promise.all(sent.map(({ done }) => done));
  const detail = { uploads, transfers: sent };
  const isMine = form.dispatchEvent(new CustomEvent("uploaded", { detail, bubbles: true, cancelable: true }));
  const { responseURL = "", status = 0 } = sent[0]?.request ?? {};
  // As without a script: who is sent elsewhere after a form goes there.
  if (isMine && !uploadUrl && status < 400 && responseURL && responseURL !== form.action) location.assign(responseURL);
}

/** @param {HTMLFormElement} form @returns {NodeListOf<HTMLInputElement>} */
const inputsOf = (form) => form.querySelectorAll("input[type=file]");
/** @param {HTMLFormElement} form */
const filesOf = (form) => [...inputsOf(form)].flatMap(({ files }) => [...(files ?? [])]);

document.addEventListener("submit", (event) => {
  const form = formOf(event);
  if (!form || event.defaultPrevented) return;
  event.preventDefault();
  send(form, filesOf(form), event.submitter);
});
document.addEventListener("change", (event) => {
  const form = formOf(event);
  if (form?.dataset.uploadAuto !== undefined && filesOf(form).length) form.requestSubmit();
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    const form = formOf(event, ",[data-upload-drop]");
    const { dataTransfer } = /** @type {DragEvent} */ (event);
    if (!form || !dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    // Of what leaves one element for another inside, the next "dragover" says that it is here.
    form.toggleAttribute("data-dragging", name === "dragover");
    const { files } = dataTransfer;
    if (name === "drop") form.dataset.uploadUrl ? send(form, files) : inputsOf(form).forEach((input) => (input.files = files));
  });
}

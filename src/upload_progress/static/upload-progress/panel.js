/**
 * The panel of <upload-progress panel>: many uploads in compact rows, with a sum.
 *
 * Only the rows in view exist in the document, so that a batch of snapshots takes the same time for
 * five hundred uploads as for ten.
 *
 * @import {PanelHost, Snapshot} from "../types.d.ts"
 */

// Rows beyond both ends of the view, for the keyboard and for fast scrolling.
const OVERSCAN = 6;
// The speed of the sum is that of the last five seconds, from two seconds on.
const RATE_MS = 5000;
const MIN_RATE_MS = 2000;
const TICK_MS = 1000;
const ANNOUNCE_MS = 5000;
// After a movement of the pointer over them, rows stay in their places for so long.
const HOLD_MS = 5000;
const TOUCH_MS = 1500;
const MAX_ENTRIES = 2000;

export const LABELS = `
sum|{0} of {1} files|{0} de {1} archivos|{0} von {1} Dateien
file|1 file|1 archivo|1 Datei
files|{0} files|{0} archivos|{0} Dateien
n_completed|{0} completed|{0} completados|{0} fertig
n_failed|{0} failed|{0} fallidos|{0} fehlgeschlagen
n_cancelled|{0} cancelled|{0} cancelados|{0} abgebrochen
cancel_all|Cancel all|Cancelar todo|Alle abbrechen
retry_failed|Retry failed|Reintentar fallidos|Fehlgeschlagene wiederholen
clear|Clear finished|Quitar terminados|Beendete entfernen
open|Uploads|Envíos|Uploads
ended|Finished uploads|Envíos terminados|Beendete Uploads
`;

const STYLES = new CSSStyleSheet();
STYLES.replaceSync(`
.total { padding: 0 0 10px; border: 0; border-radius: 0; }
.total .cancel[hidden] { display: block !important; }
.total:has(.retry[hidden]) .cancel[hidden] { display: none !important; }
.frame { border: 1px solid var(--border); border-radius: 12px; background: var(--surface); overflow: hidden; }
.list {
  display: block; max-height: var(--upload-progress-height, min(50vh, 420px)); overflow-y: auto;
  overflow-anchor: none; overscroll-behavior: contain; list-style: none;
}
.list::before { content: ""; display: block; height: var(--before, 0); }
.list::after { content: ""; display: block; height: var(--after, 0); }
.frame[data-expanded] .list { max-height: var(--upload-progress-height, min(27vh, 240px)); }
.list:focus-visible { outline-offset: -2px; border-radius: 12px; }
.list .row {
  position: relative; box-sizing: border-box; height: 44px; min-height: 0; padding: 0 12px;
  grid-template-columns: minmax(6em, 1fr) auto auto auto auto; align-content: center; border: 0;
  border-radius: 0; background: none;
}
.list .row::after {
  content: ""; position: absolute; inset-block-end: 0; inset-inline: 12px; height: 1px; background: var(--border);
}
.list .name { grid-area: 1 / 1; font-weight: 500; font-size: 14px; }
.list .details, .list .error {
  grid-area: 1 / 2; display: block; height: auto; margin: 0; margin-inline-start: 14px; clip-path: none;
  max-width: 54cqi; font-size: 13px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
}
.list .row:has(.error:not([hidden])) .details { display: none; }
.list .details > * { padding-inline-start: 0; position: static; }
.list .details span { padding-inline-start: 16px; position: relative; }
.list .details span::before { inset-inline-start: 6px; }
.list .percent { grid-area: 1 / 3; min-width: 3em; text-align: end; font-size: 14px; font-weight: 500; }
.list button { padding: 6px 9px; font-size: 13px; margin-inline-start: 10px; }
.list .cancel { grid-area: 1 / 5; }
.list .retry { grid-area: 1 / 4; }
.list .bar {
  position: absolute; grid-area: auto; inset-inline: 12px; inset-block-end: -1px; z-index: 1; height: 3px; margin: 0;
}
.list .stage { inset-block-end: 3px; height: 2px; }
.list .row:is([data-final], [data-state=pending]) > .bar { display: none; }
.list .row[data-final] .cancel { display: none !important; }
.more { display: flex; align-items: center; min-height: 44px; padding: 0 12px; }
.more:not(:first-child) { border-top: 1px solid var(--border); }
.more .toggle { flex: 1; min-width: 0; margin: 0; padding: 8px 0; border: 0; text-align: start; }
.toggle::before {
  content: ""; display: inline-block; margin-inline: 2px 10px; border: 4px solid transparent;
  border-inline-start: 6px solid; border-inline-end: 0;
}
.toggle[aria-expanded=true]::before { transform: rotate(90deg); }
.toggle:dir(rtl)[aria-expanded=true]::before { transform: rotate(-90deg); }
@container (max-width: 560px) {
  .list .row { height: 56px; align-content: space-evenly; grid-template-columns: minmax(0, 1fr) auto auto auto; }
  .list .name { align-self: end; }
  .list .details, .list .retry:not([hidden]) ~ .details, .list .error { grid-area: 2 / 1; margin: 0; max-width: none; }
  .list [data-state=receiving]:not([data-interrupted], [data-stalled]) b { display: none; }
  .list [data-state=receiving]:not([data-interrupted], [data-stalled]) b + span { padding: 0; }
  .list [data-state=receiving]:not([data-interrupted], [data-stalled]) b + span::before { content: none; }
  .list .percent { grid-area: 1 / 2 / span 2; }
  .list .retry { grid-area: 1 / 3 / span 2; align-self: center; margin-top: 0; }
  .list .cancel { grid-area: 1 / 4 / span 2; }
  .total .percent { grid-column: 2 / -1; justify-self: end; }
  .total .details, .total .retry:not([hidden]) ~ .details { grid-area: 3 / 1 / auto / -1; }
  .total .retry, .total .cancel { grid-area: 4 / 1 / auto / 3; justify-self: end; margin-top: 9px; }
  .total .cancel { grid-column: 3 / -1; }
}
`);

/**
 * An upload of the panel.
 * @typedef {{upload: Snapshot, order: number, isCounted: boolean}} Entry
 */

/** Shows those rows of a long list that are in view; all rows have the same height. */
class View {
  /** @type {string[]} */
  ids = [];
  #rowHeight = 0;

  /** @param {PanelHost} host @param {HTMLElement} node */
  constructor(host, node) {
    this.host = host;
    this.node = node;
    node.tabIndex = 0;
    node.onscroll = () => host.render();
  }

  /** Measure the rows again, whose height depends on the width. */
  resize() {
    this.#rowHeight = 0;
  }

  /** The upload whose row contains the focus. */
  get focused() {
    const root = /** @type {ShadowRoot} */ (this.node.getRootNode());
    const row = root.activeElement?.matches(":focus-visible") && root.activeElement.closest("li");
    return row && this.node.contains(row) ? row.dataset.uploadId : undefined;
  }

  /**
   * Show rows of the uploads `ids`; returns those that are in view.
   * @param {string[]} ids @param {(id: string) => Snapshot} find
   */
  show(ids, find) {
    const { node, host, focused } = this;
    const { scrollTop, clientHeight } = node;
    node.hidden = !ids.length;
    this.ids = ids;
    const height = this.#rowHeight || 44;
    const first = Math.max(0, Math.min(ids.length, Math.floor(scrollTop / height)) - OVERSCAN);
    const last = Math.ceil((scrollTop + (clientHeight || innerHeight / 2)) / height) + OVERSCAN;
    const shown = ids.slice(first, last);
    this.#arrange(shown, first, find, focused);
    node.style.setProperty("--before", `${first * height}px`);
    node.style.setProperty("--after", `${Math.max(0, ids.length - last) * height}px`);
    if (focused && !shown.includes(focused)) node.focus();
    if (!this.#rowHeight && shown.length) {
      this.#rowHeight = /** @type {HTMLElement} */ (node.firstElementChild).offsetHeight;
      if (this.#rowHeight !== height) host.render();
    }
  }

  /**
   * @param {string[]} shown @param {number} first @param {(id: string) => Snapshot} find
   * @param {string | undefined} focused
   */
  #arrange(shown, first, find, focused) {
    const { node, host } = this;
    const rows = new Map(shown.map((id) => [id, host.show(find(id)).node]));
    for (const row of [...node.children]) {
      const id = /** @type {HTMLElement} */ (row).dataset.uploadId ?? "";
      if (!rows.has(id)) host.hide(id);
      if (rows.get(id) !== row) row.remove();
    }
    let next = node.firstElementChild;
    shown.forEach((id, place) => {
      const row = /** @type {HTMLElement} */ (rows.get(id));
      row.ariaSetSize = `${this.ids.length}`;
      row.ariaPosInSet = `${first + place + 1}`;
      // A row with the focus is not moved, which would remove the focus: the others are moved around it.
      while (id === focused && next && next !== row) {
        const other = next;
        next = next.nextElementSibling;
        node.append(other);
      }
      if (next === row) next = row.nextElementSibling;
      else node.insertBefore(row, next);
    });
  }
}

/** The sum of the uploads of a batch. */
class Sum {
  bytes = 0;
  /** @type {number | null} */
  total = 0;
  files = 0;
  open = 0;
  completed = 0;
  failed = 0;
  cancelled = 0;

  /** @param {Snapshot} upload */
  add(upload) {
    const { state, bytes_transferred: bytes, total_bytes: total } = upload;
    this.files++;
    if (state === "failed" || state === "cancelled") return void this[state]++;
    if (state === "completed") this.completed++;
    else this.open++;
    this.bytes += bytes;
    const size = state === "completed" ? bytes : total;
    this.total = this.total === null || size === null ? null : this.total + size;
  }
}

/** Bytes that arrived, and when, for the speed of the sum. */
class Meter {
  #moved = 0;
  /** @type {[number, number][]} */
  #samples = [];

  /** @param {number} bytes */
  add(bytes) {
    this.#moved += bytes;
  }

  clear() {
    this.#samples = [];
  }

  /** Bytes per second; null while nothing moves or too little is known. @param {number} now */
  rate(now) {
    const samples = this.#samples;
    const [time] = samples.at(-1) ?? [-Infinity];
    if (now - time >= TICK_MS / 4) samples.push([now, this.#moved]);
    while ((samples[1]?.[0] ?? now) < now - RATE_MS) samples.shift();
    const [start, before] = samples[0] ?? [now, this.#moved];
    return now - start < MIN_RATE_MS ? null : ((this.#moved - before) * 1000) / (now - start) || null;
  }
}

/** Shows the uploads of an element: running ones first, ended ones collapsed, with a sum. */
export class Panel {
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  #base = new Sum();
  #count = 0;
  #meter = new Meter();
  #isHeld = false;
  #isExpanded = false;
  #timer = 0;
  #releaseTimer = 0;
  #milestone = -1;
  #failed = 0;
  #announcedAt = -Infinity;
  #isOpen = false;
  #numbers;

  /** @param {PanelHost} host */
  constructor(host) {
    const { list, total, element } = host;
    this.host = host;
    this.#numbers = new Intl.NumberFormat(host.format.language);
    const root = /** @type {ShadowRoot} */ (element.shadowRoot);
    root.adoptedStyleSheets.push(STYLES);
    const { make } = host;
    this.endedList = make("ul", "list");
    this.endedList.id = "ended";
    this.counts = make("span");
    this.toggle = this.#button("toggle", () => this.#expand(!this.#isExpanded), this.counts);
    this.toggle.setAttribute("aria-controls", "ended");
    this.clearButton = this.#button("clear", () => element.clearFinished());
    this.more = make("div", "more", this.toggle, this.clearButton);
    this.frame = make("div", "frame");
    list.replaceWith(this.frame);
    this.frame.append(list, this.more, this.endedList);
    this.views = [new View(host, list), new View(host, this.endedList)];
    list.ariaLabel = host.format.text("open");
    this.endedList.ariaLabel = host.format.text("ended");
    this.#expand(false);
    total.cancel.onclick = ({ detail }) => detail > 1 || this.#cancelAll();
    total.retry.onclick = ({ detail }) => detail > 1 || this.#retryFailed();
    this.#listen();
    this.resizes = new ResizeObserver(() => {
      for (const view of this.views) view.resize();
      host.render();
    });
    this.resizes.observe(element);
  }

  /** @param {string} part @param {() => void} action @param {Node[]} children */
  #button(part, action, ...children) {
    const button = this.host.make("button", part, ...children);
    button.onclick = ({ detail }) => detail > 1 || action();
    return button;
  }

  /** Rows stay in their places while the pointer moves over them, so that none is pressed by mistake. */
  #listen() {
    const { frame, host } = this;
    /** @param {number} ms */
    const hold = (ms) => {
      clearTimeout(this.#releaseTimer);
      this.#isHeld = ms > 0;
      if (!ms) return host.render();
      this.#releaseTimer = setTimeout(() => hold(0), ms);
    };
    frame.onpointerdown = frame.onpointermove = () => hold(HOLD_MS);
    frame.onpointerleave = ({ pointerType }) => hold(pointerType === "mouse" ? 0 : TOUCH_MS);
    frame.addEventListener("focusout", () => host.render());
  }

  /** Restore the element, which shows a list again. */
  remove() {
    const { host } = this;
    const root = /** @type {ShadowRoot} */ (host.element.shadowRoot);
    root.adoptedStyleSheets = root.adoptedStyleSheets.filter((sheet) => sheet !== STYLES);
    host.element.removeAttribute("data-panel");
    clearTimeout(this.#timer);
    clearTimeout(this.#releaseTimer);
    this.resizes.disconnect();
    host.list.onscroll = null;
    host.list.removeAttribute("style");
    host.list.removeAttribute("tabindex");
    host.total.cancel.hidden = host.total.retry.hidden = host.total.node.hidden = true;
    host.total.node.removeAttribute("data-state");
    this.frame.replaceWith(host.list);
  }

  /** Remove the ended uploads. */
  clear() {
    const { host } = this;
    for (const [id, { upload }] of this.#entries) {
      if (!this.host.isFinal(upload)) continue;
      host.cleared.add(host.versionOf(upload));
      this.#drop(id);
    }
    if (!this.#isOpen) this.reset();
    host.render();
  }

  /** Begin the sum of other uploads. */
  reset() {
    if (this.#isGroup) return;
    this.#base = new Sum();
    this.#meter.clear();
    this.#milestone = -1;
    this.#failed = 0;
    for (const entry of this.#entries.values()) entry.isCounted = false;
  }

  get #isGroup() {
    return this.host.element.hasAttribute("group");
  }

  /** Remove an ended upload; it stays in the sum. @param {string} id */
  #drop(id) {
    const entry = this.#entries.get(id);
    if (entry?.isCounted) this.#base.add(entry.upload);
    this.#entries.delete(id);
  }

  /** Show what has changed. @param {string[]} ids */
  update(ids) {
    const { client, current, includes } = this.host;
    for (const id of ids) {
      const upload = client.uploads.get(id);
      if (upload && includes(upload)) this.#apply(upload, this.#isGroup || current.has(id));
    }
    if (this.#entries.size > MAX_ENTRIES) this.#dropOldest();
    const sum = this.#sum();
    this.#isOpen = sum.open > 0;
    this.#showSum(sum);
    this.#showRows();
    this.#announce(sum);
  }

  /** @param {Snapshot} upload @param {boolean} isCounted */
  #apply(upload, isCounted) {
    const { upload_id: id, bytes_transferred: bytes, attempt } = upload;
    const known = this.#entries.get(id);
    const isSameAttempt = known && Math.ceil(known.upload.attempt) === Math.ceil(attempt);
    if (isSameAttempt) this.#meter.add(Math.max(0, bytes - known.upload.bytes_transferred));
    const isSameRank = known && rankOf(known.upload) === rankOf(upload);
    const order = isSameRank ? known.order : this.#count++;
    this.#entries.set(id, { upload, order, isCounted });
  }

  #dropOldest() {
    for (const [id, { upload }] of this.#entries) {
      if (this.#entries.size <= MAX_ENTRIES) return;
      if (!this.host.isFinal(upload)) continue;
      this.host.current.delete(id);
      this.#drop(id);
    }
  }

  #sum() {
    const sum = Object.assign(new Sum(), this.#base);
    for (const { upload, isCounted } of this.#entries.values()) if (isCounted) sum.add(upload);
    return sum;
  }

  /** A text with numbers, as the language writes them. @param {string} key @param {number[]} numbers */
  #text(key, ...numbers) {
    return this.host.format.text(key, ...numbers.map((number) => this.#numbers.format(number)));
  }

  /** The counts that are not 0, such as "1 failed". @param {Partial<Sum>} counts */
  #counts(counts) {
    const states = /** @type {const} */ (["completed", "failed", "cancelled"]);
    return states.flatMap((state) => (counts[state] ? [this.#text(`n_${state}`, counts[state])] : []));
  }

  /** The end of a batch: "60 files, 52.8 MB, 1 failed". @param {Sum} sum */
  #summary(sum) {
    const files = this.#text(sum.files === 1 ? "file" : "files", sum.files);
    return [files, this.host.format.bytes(sum.bytes), ...this.#counts({ ...sum, completed: 0 })].join(", ");
  }

  /** @param {Sum} sum */
  #showSum(sum) {
    const { total: row, format, client } = this.host;
    const { files, open, completed, failed, bytes, total } = sum;
    const now = performance.now();
    const rate = this.#meter.rate(now);
    clearTimeout(this.#timer);
    if (open) this.#timer = setTimeout(() => this.host.render(), TICK_MS);
    else this.#meter.clear();
    row.node.hidden = !files;
    const isLost = client.connection === "lost";
    const endState = completed ? "completed" : failed ? "failed" : "cancelled";
    row.node.dataset.state = !open ? endState : isLost ? "paused" : "receiving";
    const left = rate && total !== null ? (total - bytes) / rate : null;
    const ends = this.#counts({ ...sum, completed: 0 });
    if (open) {
      const share = total ? Math.min(1, bytes / total) : total;
      const speed = row.speed(() => format.speed(rate, left));
      const facts = [format.share(bytes, total), ...ends, ...(isLost || !rate ? [] : speed)];
      row.show(format, this.#text("sum", completed, files), this.#stateText(isLost), share, facts);
    } else {
      row.show(format, this.#summary(sum), this.#text("n_completed", completed), completed / files, ends);
    }
    this.#setButton(row.cancel, format.text("cancel_all"), !open);
    this.#setButton(row.retry, format.text("retry_failed"), !this.#retryable.length);
  }

  /** @param {HTMLButtonElement} button @param {string} text @param {boolean} isHidden */
  #setButton(button, text, isHidden) {
    this.host.setText(button, text);
    if (isHidden && button.matches(":focus")) button.parentElement?.focus();
    button.hidden = isHidden;
  }

  /** The state of the sum: that of the upload which has come furthest. */
  #stateText(isLost = false) {
    if (isLost) return this.host.format.text("lost");
    const entries = [...this.#entries.values()].filter(({ upload, isCounted }) => isCounted && !this.host.isFinal(upload));
    const { upload } = entries.find((one) => one.upload.state === "receiving") ??
      entries.find((one) => one.upload.state !== "pending") ?? entries[0] ?? {};
    return upload ? this.host.format.state({ ...upload, stalled: false }) : "";
  }

  #showRows() {
    const { element, format } = this.host;
    const [open, ended] = /** @type {[View, View]} */ (this.views);
    const { focused } = open;
    const stays = new Set(this.#isHeld ? open.ids : [focused]);
    /** @type {string[]} */
    const openIds = [];
    /** @type {string[]} */
    const endedIds = [];
    const sum = new Sum();
    const collapsed = new Sum();
    for (const [id, { upload }] of this.#entries) {
      const isOpen = rankOf(upload) < ENDED || stays.has(id);
      sum.add(upload);
      if (!isOpen) collapsed.add(upload);
      (isOpen ? openIds : endedIds).push(id);
    }
    openIds.sort((a, b) => this.#rank(a) - this.#rank(b) || this.#order(a) - this.#order(b));
    endedIds.sort((a, b) => this.#order(b) - this.#order(a));
    /** @param {string} id */
    const find = (id) => /** @type {Entry} */ (this.#entries.get(id)).upload;
    if (this.#isHeld) {
      const kept = open.ids.filter((id) => this.#entries.has(id));
      open.show([...new Set([...kept, ...openIds])], find);
    } else {
      // The row with the focus stays in its place.
      const place = focused ? openIds.indexOf(focused) : -1;
      if (place >= 0) openIds.splice(open.ids.indexOf(String(focused)), 0, ...openIds.splice(place, 1));
      open.show(openIds, find);
    }
    ended.show(this.#isExpanded ? endedIds : [], find);
    const endedCount = sum.files - sum.open;
    this.frame.hidden = !sum.files;
    this.more.hidden = !endedCount;
    this.toggle.disabled = !endedIds.length;
    this.host.setText(this.counts, this.#counts(collapsed).join(", "));
    this.host.setText(this.clearButton, format.text("clear"));
    element.setAttribute("data-panel", "");
    if (endedCount) element.setAttribute("data-finished", `${endedCount}`);
    else element.removeAttribute("data-finished");
    const empty = /** @type {HTMLElement} */ (element.shadowRoot?.querySelector("slot"));
    empty.hidden = !!sum.files;
  }

  /** @param {string} id */
  #rank(id) {
    return rankOf(/** @type {Entry} */ (this.#entries.get(id)).upload);
  }

  /** @param {string} id */
  #order(id) {
    return /** @type {Entry} */ (this.#entries.get(id)).order;
  }

  /** @param {boolean} isExpanded */
  #expand(isExpanded) {
    this.#isExpanded = isExpanded;
    this.toggle.ariaExpanded = `${isExpanded}`;
    this.frame.toggleAttribute("data-expanded", isExpanded);
    this.host.render();
  }

  /** Announce each quarter of the sum, failures, and the end, at most every five seconds. @param {Sum} sum */
  #announce(sum) {
    if (!sum.files) return;
    const { announcement, total } = this.host;
    const now = performance.now();
    const milestone = sum.open ? Math.floor(((sum.bytes || 0) / (sum.total || Infinity)) * 4) : 4;
    if (milestone <= this.#milestone && sum.failed <= this.#failed) return;
    if (sum.open && now - this.#announcedAt < ANNOUNCE_MS) return;
    this.#milestone = milestone;
    this.#failed = sum.failed;
    this.#announcedAt = now;
    const { name, percent } = total;
    const texts = sum.open ? [percent.textContent, ...this.#counts({ failed: sum.failed })] : [];
    this.host.setText(announcement, [name.title, ...texts].filter(Boolean).join(", "));
  }

  async #cancelAll() {
    const { element, client } = this.host;
    /** @type {Snapshot[]} */
    const open = [...this.#entries.values()].map(({ upload }) => upload).filter((upload) => !this.host.isFinal(upload));
    // The last ones first, so that none of the queue begins meanwhile.
    for (const { upload_id: id } of open.reverse()) {
      const transfer = client.transfers.get(id);
      if (transfer && client.queue.includes(transfer)) await transfer.cancel();
    }
    const others = open.filter(({ upload_id: id }) => !this.host.isFinal(client.uploads.get(id) ?? /** @type {any} */ ({})));
    await Promise.all(others.map(({ upload_id: id }) => element.cancel(id)));
  }

  get #retryable() {
    const { client, canRetry } = this.host;
    return [...this.#entries.values()].filter(({ upload }) => upload.state === "failed" && canRetry(upload))
      .flatMap(({ upload }) => client.transfers.get(upload.upload_id) ?? []);
  }

  #retryFailed() {
    this.host.total.node.focus();
    for (const transfer of this.#retryable) transfer.retry();
  }
}

const ENDED = 3;

/** The place of a state: running, failed, waiting, ended. @param {Snapshot} upload */
function rankOf({ state }) {
  if (state === "failed") return 1;
  if (state === "pending") return 2;
  return state === "completed" || state === "cancelled" ? ENDED : 0;
}

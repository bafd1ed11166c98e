/**
 * Forms with data-upload-progress: uploads of chosen and dropped files and folders.
 *
 * @import {FormsHost} from "../types.d.ts"
 * @import {UploadProgressElement} from "../upload-progress.js"
 */

export const LABELS = `
hidden|Hidden files skipped: {0}.|Archivos ocultos omitidos: {0}.|Versteckte Dateien ausgelassen: {0}.
unreadable|Files or folders that cannot be read: {0}.|Archivos o carpetas que no se pueden leer: {0}.|Nicht lesbare Dateien oder Ordner: {0}.
`;

/**
 * A file, and its path in the folder that was chosen or dropped; "" without a folder.
 * @typedef {{file: File, path: string}} Found
 */

/** @param {HTMLFormElement} form @returns {NodeListOf<HTMLInputElement>} */
const inputsOf = (form) => form.querySelectorAll("input[type=file]");

/** The element that the form names or contains; otherwise a new one. @param {HTMLFormElement} form */
function barOf(form) {
  const { uploadProgress, uploadSrc } = form.dataset;
  const found = uploadProgress ? document.querySelector(uploadProgress) : form.querySelector("upload-progress");
  const bar = found ?? document.createElement("upload-progress");
  if (!found) {
    if (uploadSrc) bar.setAttribute("src", uploadSrc);
    form.append(bar);
  }
  return /** @type {UploadProgressElement} */ (bar);
}

/** The files of a selection; those of a folder without hidden ones. */
class Selection {
  /** @type {Found[]} */
  found = [];
  hidden = 0;
  unreadable = 0;

  /** @param {boolean} includesHidden */
  constructor(includesHidden) {
    this.includesHidden = includesHidden;
  }

  /** @param {File} file */
  add(file, path = file.webkitRelativePath) {
    // The folder itself was chosen by its name.
    if (/\/\./.test(path) && !this.includesHidden) this.hidden++;
    else this.found.push({ file, path });
  }

  /** Add a dropped file, or all files of a dropped folder. @param {FileSystemEntry} entry */
  async walk(entry, path = "") {
    if (/\/\./.test(path) && !this.includesHidden) return void this.hidden++;
    try {
      await (entry.isDirectory ? this.#walkFolder(entry, path || entry.name) : this.#addEntry(entry, path));
    } catch {
      this.unreadable++;
    }
  }

  /** @param {any} entry A FileSystemFileEntry. @param {string} path */
  async #addEntry(entry, path) {
    this.add(await new Promise((resolve, reject) => entry.file(resolve, reject)), path);
  }

  /** @param {any} folder A FileSystemDirectoryEntry. @param {string} path */
  async #walkFolder(folder, path) {
    const reader = folder.createReader();
    for (;;) {
      // Returns some entries at a time, and none at the end.
      /** @type {FileSystemEntry[]} */
      const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!entries.length) return;
      for (const entry of entries) await this.walk(entry, `${path}/${entry.name}`);
    }
  }
}

/** Upload each file to `data-upload-url`, or the whole form to its action. */
export class Forms {
  /** @param {FormsHost} host */
  constructor(host) {
    this.host = host;
  }

  /** @param {HTMLFormElement} form */
  change(form) {
    const isChosen = [...inputsOf(form)].some(({ files }) => files?.length);
    if (form.dataset.uploadAuto !== undefined && isChosen) form.requestSubmit();
  }

  /** @param {HTMLFormElement} form @param {HTMLElement | null} submitter */
  async submit(form, submitter) {
    const selection = this.#selection(form);
    for (const { files } of inputsOf(form)) for (const file of files ?? []) selection.add(file);
    await this.#upload(form, selection, submitter);
  }

  /** @param {HTMLFormElement} form @param {(FileSystemEntry | File | null)[]} dropped */
  async drop(form, dropped) {
    const selection = this.#selection(form);
    for (const one of dropped) {
      if (one instanceof File) selection.add(one);
      else if (one) await selection.walk(one);
    }
    if (form.dataset.uploadUrl) return this.#upload(form, selection, null);
    const data = new DataTransfer();
    for (const { file } of selection.found) data.items.add(file);
    for (const input of inputsOf(form)) input.files = data.files;
  }

  /** @param {HTMLFormElement} form */
  #selection(form) {
    return new Selection(form.dataset.uploadHidden !== undefined);
  }

  /** @param {HTMLFormElement} form @param {Selection} selection @param {HTMLElement | null} submitter */
  async #upload(form, { found, hidden, unreadable }, submitter) {
    const { upload, clientOf, createId } = this.host;
    const bar = barOf(form);
    const { uploadUrl, uploadMethod: method, uploadLimit, uploadTus, uploadChunk } = form.dataset;
    const options = {
      bar, group: form.dataset.uploadGroup ?? createId(), tus: uploadTus !== undefined,
      ...(method && { method }), ...(uploadChunk && { chunkBytes: Number(uploadChunk) }),
    };
    if (uploadLimit) clientOf(bar).limit = Number(uploadLimit);
    bar.note(...(hidden ? ["hidden", hidden] : []), ...(unreadable ? ["unreadable", unreadable] : []));
    const name = found[0]?.file.name ?? form.action;
    const transfers = uploadUrl
      ? found.map(({ file, path }) => upload(file, uploadUrl, { ...options, path }))
      : [upload(new FormData(form, submitter), form.action, { bar, method: "POST", name })];
    if (uploadUrl) for (const input of inputsOf(form)) input.value = "";
    const uploads = await Promise.all(transfers.map(({ done }) => done));
    const detail = { uploads, transfers };
    const isDefault = form.dispatchEvent(new CustomEvent("uploaded", { detail, bubbles: true, cancelable: true }));
    const { responseURL = "", status = 0 } = transfers[0]?.request ?? {};
    // Follow the redirect of the response, as without this script.
    if (isDefault && !uploadUrl && status < 400 && responseURL && responseURL !== form.action) location.assign(responseURL);
  }
}

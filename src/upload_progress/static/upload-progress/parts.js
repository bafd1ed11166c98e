/**
 * Uploads in several requests, which go on where the server is: by tus 1.0.0, or by Content-Range
 * (RFC 9110, section 14.4) at a server that confirms each part: 308 with Range, or Upload-Offset.
 *
 * @import {Outcome, Part, UploadOptions} from "../types.d.ts"
 */

export const LABELS = `
no_parts|The server accepts whole files only, and may have stored a part as the file.|El servidor solo acepta archivos enteros y puede haber guardado una parte como archivo.|Der Server nimmt nur ganze Dateien an und hat vielleicht einen Teil als Datei gespeichert.
no_tus|The server has created no upload by tus.|El servidor no ha creado ningún envío con tus.|Der Server hat keinen Upload mit tus angelegt.
`;

const TUS = { "Tus-Resumable": "1.0.0" };

/** "a.bin" → "YS5iaW4=". @param {string} text */
const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

/** A failure that no response describes. @param {string} code @returns {Outcome} */
const failure = (code) => ({ error: { code, message: new RegExp(`${code}\\|([^|]*)`).exec(LABELS)?.[1] ?? code } });

/** Whether the same request may succeed later. @param {number} status */
const isBusy = (status) => /^(4(09|23|29|60)|50[0234])$/.test(`${status}`);

/** The first byte that the server does not have; null if it names none. @param {number} status @param {(name: string) => string | null} header */
function offsetOf(status, header) {
  const offset = header("upload-offset") ?? "";
  if ((status < 300 || status === 308) && /^\d{1,15}$/.test(offset)) return Number(offset);
  const last = status === 308 && /^\s*(?:bytes\s*[=: ]\s*)?0+\s*-\s*(\d{1,15})\s*$/i.exec(header("range") ?? "");
  return last ? Number(last[1]) + 1 : null;
}

/** The parts of one file. */
export class Parts {
  /** Where the next part begins, and where the last one began and ended. */
  #offset = 0;
  #start = 0;
  #end = 0;
  /** Where tus has created the upload. */
  #address = "";
  /** Whether the server has confirmed a part. */
  #isConfirmed = false;
  /** Whether the offset is that of the server. */
  #isCurrent = false;

  /** @param {Blob} body @param {string} name @param {UploadOptions} options @param {RequestCredentials} credentials */
  constructor(body, name, options, credentials) {
    this.body = body;
    this.name = name;
    this.options = options;
    this.credentials = credentials;
  }

  /**
   * The request of the next part; null if the server has them all. Throws the outcome of the question.
   * @param {Part} whole The request of the whole file.
   * @returns {Promise<Part | null>}
   */
  async next(whole) {
    const { body, options } = this;
    const { size } = body;
    if (!this.#isCurrent && !(await this.#ask(whole))) return null;
    this.#isCurrent = false;
    const start = (this.#start = this.#offset);
    const end = (this.#end = Math.min(size, start + (options.chunkBytes ?? size)));
    if (this.#address) {
      if (start === size && size) return null;
      const type = "application/offset+octet-stream";
      const headers = { ...whole.headers, ...TUS, "Upload-Offset": `${start}`, "Content-Type": type };
      return { method: "PATCH", url: this.#address, headers, body: body.slice(start, end), start, size };
    }
    if (end - start === size) return whole;
    const headers = { ...whole.headers, "Content-Range": `bytes ${start}-${end - 1}/${size}` };
    return { ...whole, headers, body: body.slice(start, end, body.type), start, size };
  }

  /** What the response to a part means; null if the next part follows. @param {XMLHttpRequest} request @returns {Outcome | null} */
  end(request) {
    const { status, responseText } = request;
    const { size } = this.body;
    const offset = offsetOf(status, (name) => request.getResponseHeader(name));
    if (offset !== null && (offset < size || status === 308)) {
      this.#isConfirmed = true;
      this.#offset = offset;
      this.#isCurrent = offset > this.#start && offset < size;
      return this.#isCurrent ? null : { status, responseText, isTemporary: true };
    }
    if (status >= 200 && status < 300 && this.#end < size) return failure("no_parts");
    return { status, responseText, isTemporary: !!this.#address && isBusy(status) };
  }

  /** Ask where to go on; false if the server has the whole file. @param {Part} whole */
  async #ask(whole) {
    if (this.options.tus) await this.#askTus(whole);
    else if (this.#isConfirmed) return this.#askRange(whole);
    return true;
  }

  /** Ask by tus; create the upload if the server does not have it. @param {Part} whole */
  async #askTus({ url, headers }) {
    if (this.#address) {
      const response = await this.#fetch(this.#address, "HEAD", { ...headers, ...TUS });
      const offset = response.ok ? offsetOf(200, (name) => response.headers.get(name)) : null;
      if (offset !== null) return void (this.#offset = offset);
    }
    const { body, name } = this;
    const described = `filename ${base64(name)},filetype ${base64(body.type || "application/octet-stream")}`;
    const creation = { ...TUS, "Upload-Length": `${body.size}`, "Upload-Metadata": described };
    const response = await this.#fetch(url, "POST", { ...headers, ...creation });
    if (!response.ok) throw { status: response.status, responseText: await response.text() };
    const location = response.headers.get("location");
    const address = new URL(location ?? "", response.url);
    // The credentials are for the target only.
    if (location === null || address.origin !== new URL(url, document.baseURI).origin) throw failure("no_tus");
    this.#address = address.href;
    this.#offset = 0;
  }

  /** Ask by an empty part; a server that does not know it goes on after the last confirmed part. @param {Part} whole */
  async #askRange({ method, url, headers }) {
    const { size } = this.body;
    const response = await this.#fetch(url, method, { ...headers, "Content-Range": `bytes */${size}` });
    const { status } = response;
    const offset = offsetOf(status, (name) => response.headers.get(name));
    if (response.ok && (offset === null || offset >= size)) return false;
    if (offset !== null) this.#offset = offset;
    else if (/^(308|404|410)$/.test(`${status}`)) this.#offset = 0;
    return true;
  }

  /** @param {string} url @param {string} method @param {Record<string, string>} headers */
  async #fetch(url, method, headers) {
    const { credentials } = this;
    const response = await fetch(url, { method, headers, credentials, cache: "no-store" });
    const { status } = response;
    if (isBusy(status)) throw { status, responseText: await response.text(), isTemporary: true };
    return response;
  }
}

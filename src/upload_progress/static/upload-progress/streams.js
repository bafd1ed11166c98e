/**
 * Snapshots by HTTP streams: event streams of the server, and the stream of a push server, which is
 * Centrifugo: one connection for all that the page follows.
 *
 * The tokens are in the body of a request, not in its address, which logs contain.
 *
 * @import {ProgressClient} from "../upload-progress.js"
 * @import {Snapshot, Target} from "../types.d.ts"
 */

// What one connection may be for, see MAX_TARGETS; with more, it is for all uploads of the user.
const MAX_TARGETS = 100;
// A stream without a message for so long is buffered by a proxy.
const OPEN_TIMEOUT_MS = 4000;
// A heartbeat comes every 15 seconds, that of the push server every 25.
const SILENCE_MS = 60000;

/**
 * Call `handle` with each part of a stream; resolves to whether any came.
 * @param {(signal: AbortSignal) => Promise<Response | null>} open @param {AbortSignal} signal
 * @param {string} separator @param {(part: string) => void} handle
 * @param {() => void} onText Called when something has come.
 */
async function read(open, signal, separator, handle, onText = () => {}) {
  const silence = new AbortController();
  const abort = () => silence.abort();
  let timer = setTimeout(abort, OPEN_TIMEOUT_MS);
  let wasOpen = false;
  try {
    const response = await open(AbortSignal.any([signal, silence.signal]));
    const reader = response?.ok && response.body?.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; reader; ) {
      const { done, value } = await reader.read();
      if (done) break;
      wasOpen = true;
      onText();
      clearTimeout(timer);
      timer = setTimeout(abort, SILENCE_MS);
      const parts = (text + value).split(separator);
      text = parts.pop() ?? "";
      parts.filter(Boolean).forEach(handle);
    }
  } catch {
    // Aborted or disconnected: the caller reconnects.
  }
  clearTimeout(timer);
  // Closes what is still open.
  abort();
  return wasOpen;
}

/**
 * Receive from an event stream until it ends; resolves to whether it was open.
 * @param {ProgressClient} client @param {string} path @param {Record<string, string>} headers
 * @param {AbortSignal} signal @param {(response: Response | null) => boolean} isLeft Returns whether
 * not to read the response. @param {() => void} onText Called when something has come.
 */
export async function receiveEvents(client, path, headers, signal, isLeft, onText) {
  let wasLeft = false;
  const open = async (/** @type {AbortSignal} */ either) => {
    const response = await client.fetch(path, { headers, signal: either });
    return (wasLeft = isLeft(response)) ? null : response;
  };
  const handle = (/** @type {string} */ event) => {
    const data = /^data:\s?(.*)$/m.exec(event)?.[1];
    if (data) client.apply(JSON.parse(data));
  };
  return (await read(open, signal, "\n\n", handle, onText)) || wasLeft;
}

/**
 * Receive from the push server until the connection ends; resolves to whether it was open, and to null
 * if it has nothing of these targets.
 * @param {ProgressClient} client @param {Target[]} targets @param {AbortSignal} signal
 * @param {() => void} onOpen Called when it is open.
 */
export async function receivePushes(client, targets, signal, onOpen) {
  const isAll = targets.length > MAX_TARGETS || targets.some((target) => "all" in target);
  const body = JSON.stringify({ targets: isAll ? [] : targets });
  const response = await client.fetch("tickets", { method: "POST", body, signal });
  if (!response?.ok) return false;
  const { edge } = await response.json();
  if (!edge) return null;
  let wasOpen = false;
  const open = (/** @type {AbortSignal} */ either) =>
    fetch(new URL(edge.url, client.base), {
      method: "POST",
      body: JSON.stringify({ token: edge.token }),
      cache: "no-store",
      credentials: "omit",
      signal: either,
    });
  await read(open, signal, "\n", (line) => {
    const { connect, pub } = JSON.parse(line);
    if (pub) client.apply(pub.data);
    if (!connect) return;
    wasOpen = true;
    onOpen();
    /** @type {{publications?: {data: Snapshot}[]}[]} */
    const subscriptions = Object.values(connect.subs ?? {});
    const known = subscriptions.flatMap(({ publications = [] }) => publications.map(({ data }) => data));
    for (const one of known) client.apply(one);
    // A list is more than its newest snapshot, and the push server may have forgotten an upload.
    for (const target of targets) {
      if (!("upload_id" in target)) client.pollList(target);
      else if (!known.some((one) => one.upload_id === target.upload_id)) client.refresh(target.upload_id);
    }
  });
  return wasOpen;
}

/**
 * Lets Uppy upload files with upload-progress, so that Uppy's status bar shows the bytes that the
 * server has received, and the stages after the last byte.
 *
 *   serverProgress(new Uppy(), { url: "/files/{name}" });
 */

import { ProgressClient, upload } from "/uploads/upload-progress.js";

export function serverProgress(uppy, { url, src = "/uploads", ...options }) {
  const client = ProgressClient.of(src);
  const transfers = new Map();

  async function send(file) {
    const transfer = upload(file.data, url, { ...options, src, name: file.name, bar: null });
    transfers.set(file.id, transfer);
    const show = ({ detail }) => detail.upload.upload_id === transfer.id && emitProgress(uppy, file, detail.upload);
    client.addEventListener("upload", show);
    const end = await transfer.done;
    client.removeEventListener("upload", show);
    transfers.delete(file.id);
    const response = { status: transfer.request?.status ?? 0, body: {} };
    if (end.state === "completed") uppy.emit("upload-success", uppy.getFile(file.id), response);
    if (end.state === "failed") uppy.emit("upload-error", file, new Error(transfer.reason || end.error.message));
  }

  uppy.addUploader(async (ids) => {
    const files = uppy.getFilesByIds(ids);
    uppy.emit("upload-start", files);
    await Promise.all(files.map(send));
  });
  uppy.on("file-removed", ({ id }) => transfers.get(id)?.cancel());
  uppy.on("cancel-all", () => transfers.forEach((transfer) => transfer.cancel()));
  return uppy;
}

function emitProgress(uppy, file, { state, stage, bytes_transferred, total_bytes }) {
  const known = uppy.getFile(file.id);
  if (!known) return;
  const progress = { bytesUploaded: bytes_transferred, bytesTotal: total_bytes };
  if (state === "receiving") uppy.emit("upload-progress", known, progress);
  if (state !== "processing") return;
  // The status bar shows postprocessing only after uploadComplete.
  uppy.setFileState(file.id, { progress: { ...known.progress, uploadComplete: true } });
  const mode = stage?.total ? "determinate" : "indeterminate";
  const message = stage?.name ?? "processing";
  uppy.emit("postprocess-progress", known, { mode, message, value: stage?.total ? stage.done / stage.total : 0 });
}

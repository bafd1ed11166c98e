// Uploads a file with tus-js-client, as a process that can be killed.
//
// tus_upload.cjs ENDPOINT FILE PARALLEL STORAGE
//
// STORAGE is a file with the URLs of uploads, from which an interrupted one is resumed.
// Prints the URL of the upload.
"use strict";
const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const tus = require("tus-js-client");

const [endpoint, file, parallel, storage] = process.argv.slice(2);
const parallelUploads = Number(parallel);

const upload = new tus.Upload(fs.createReadStream(file), {
  endpoint,
  parallelUploads,
  headers: {
    Authorization: `Basic ${Buffer.from("alice:alice").toString("base64")}`,
    // The parts of a file share one id, derived from the path of STORAGE.
    ...(parallelUploads > 1 ? { "Upload-Id": createHash("sha256").update(storage).digest("hex") } : {}),
  },
  metadata: { filename: path.basename(file), filetype: "application/octet-stream" },
  retryDelays: null,
  urlStorage: new tus.FileUrlStorage(storage),
  onError(error) {
    console.error(String(error));
    process.exit(1);
  },
  onSuccess() {
    console.log(upload.url);
  },
});

upload.findPreviousUploads().then((previous) => {
  if (previous.length > 0) {
    upload.resumeFromPreviousUpload(previous[0]);
  }
  upload.start();
});

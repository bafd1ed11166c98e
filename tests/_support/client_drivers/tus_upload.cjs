// tus-js-client as a program of its own, so that it can be killed.
//
// tus_upload.cjs ENDPOINT FILE PARALLEL MEMORY
//
// MEMORY is a file that keeps the addresses of uploads: what was broken off goes on from there.
// Prints the address of what was uploaded.
"use strict";
const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const tus = require("tus-js-client");

const [endpoint, file, parallel, memory] = process.argv.slice(2);
const parallelUploads = Number(parallel);

const upload = new tus.Upload(fs.createReadStream(file), {
  endpoint,
  parallelUploads,
  headers: {
    Authorization: `Basic ${Buffer.from("alice:alice").toString("base64")}`,
    // The parts of one artifact have one name: that of where it is remembered.
    ...(parallelUploads > 1 ? { "Upload-Id": createHash("sha256").update(memory).digest("hex") } : {}),
  },
  metadata: { filename: path.basename(file), filetype: "application/octet-stream" },
  retryDelays: null,
  urlStorage: new tus.FileUrlStorage(memory),
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

/** A page with Uppy and `<div id="bar"></div><input id="files" type="file" multiple>`. */

import Uppy from "@uppy/core";
import StatusBar from "@uppy/status-bar";

import { serverProgress } from "./server-progress.js";

const uppy = serverProgress(new Uppy({ autoProceed: true }), { url: "/files/{name}" });
uppy.use(StatusBar, { target: "#bar", showProgressDetails: true, hideAfterFinish: false });

document.querySelector("#files").addEventListener("change", ({ target }) => {
  for (const file of target.files) uppy.addFile({ name: file.name, type: file.type, data: file });
});

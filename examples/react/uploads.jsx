/** React 19, which supports custom elements. */

import { useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import "/uploads/upload-progress.js";

function Uploads() {
  const progress = useRef(null);
  const [received, setReceived] = useState([]);

  const uploadFiles = ({ target }) => {
    for (const file of target.files) progress.current.upload(file, "/files/{name}");
  };
  return (
    <>
      <input type="file" multiple aria-label="Files" onChange={uploadFiles} />
      <upload-progress
        ref={progress}
        src="/uploads"
        oncomplete={({ detail }) => setReceived((names) => [...names, detail.filename])}
      />
      <p>Received: {received.join(", ") || "no files"}</p>
    </>
  );
}

createRoot(document.querySelector("#root")).render(<Uploads />);

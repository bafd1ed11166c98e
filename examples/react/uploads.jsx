/** With React 19, which speaks with custom elements as they are. */

import { useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import "/uploads/upload-progress.js";

function Uploads() {
  const bars = useRef(null);
  const [received, setReceived] = useState([]);

  const send = ({ target }) => {
    for (const file of target.files) bars.current.upload(file, "/files/{name}");
  };
  return (
    <>
      <input type="file" multiple aria-label="Files" onChange={send} />
      <upload-progress
        ref={bars}
        src="/uploads"
        oncomplete={({ detail }) => setReceived((names) => [...names, detail.filename])}
      />
      <p>Received: {received.join(", ") || "nothing yet"}</p>
    </>
  );
}

createRoot(document.querySelector("#root")).render(<Uploads />);

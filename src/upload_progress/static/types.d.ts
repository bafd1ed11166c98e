import type { UploadProgressElement } from "./upload-progress.js";

declare global {
  interface HTMLElementTagNameMap {
    "upload-progress": UploadProgressElement;
  }
}

/** What is known of an upload at one moment, as every answer of the server has it. */
export interface Snapshot {
  upload_id: string;
  group: string | null;
  sequence: number;
  /** Whole in the server's snapshots; a fraction in those that the page tells itself before. */
  attempt: number;
  state: State;
  stage: Stage | null;
  bytes_transferred: number;
  total_bytes: number | null;
  percent: number | null;
  bytes_per_second: number | null;
  eta_seconds: number | null;
  stalled: boolean;
  arrival: "streamed" | "buffered" | null;
  filename: string | null;
  /** RFC 3339, UTC; so are the other times. */
  created_at: string;
  updated_at: string;
  error: Reason | null;
  /** Set by the page: the server does not know this upload any more. */
  is_lost?: boolean;
  retransmitted_bytes?: number;
  parts?: { received: number; total: number | null } | null;
  content_type?: string | null;
  metadata?: Record<string, unknown> | null;
  started_at?: string | null;
  last_byte_at?: string | null;
  finished_at?: string | null;
  links?: { progress: string; events: string; websocket: string; cancel: string };
}

export type State =
  | "pending"
  | "receiving"
  | "paused"
  | "processing"
  | "completed"
  | "failed"
  | "cancelled";

/** What the application is doing with an upload; a total of null is indeterminate. */
export interface Stage {
  name: string;
  done: number;
  total: number | null;
}

/** Why an upload did not complete. */
export interface Reason {
  code: string;
  message: string;
  http_status?: number | null;
}

/** What to follow. */
export type Target = { all: true } | { group: string } | { upload_id: string };

/** How a server knows who asks. */
export interface Access {
  /** Sent with every request; a function is asked before each of them. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  /** As for `fetch`; "include" sends cookies to another origin. */
  credentials?: RequestCredentials;
}

export interface UploadOptions {
  /** PUT, or POST with a `field`. */
  method?: string;
  headers?: Record<string, string>;
  /** Send it as a multipart form, in this field; else the body is the file itself. */
  field?: string;
  /** The file's name, if not its own. */
  name?: string;
  group?: string;
  /** Where the progress API is mounted, if not where the bar says. */
  src?: string;
  /** Which <upload-progress> shows it; null for none, else the first of the page. */
  bar?: Element | null;
}

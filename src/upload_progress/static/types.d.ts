import type { Formatter, ProgressClient, Row, Transfer, UploadProgressElement } from "./upload-progress.js";

declare global {
  interface HTMLElementTagNameMap {
    "upload-progress": UploadProgressElement;
  }
}

/** The state of an upload at one moment, as all responses of the server contain it. */
export interface Snapshot {
  upload_id: string;
  group: string | null;
  sequence: number;
  /** An integer in snapshots of the server; a fraction in those that the page creates before. */
  attempt: number;
  state: State;
  stage: Stage | null;
  bytes_transferred: number;
  /** Bytes that the application has passed on; null if it reports nothing. */
  stored_bytes?: number | null;
  total_bytes: number | null;
  percent: number | null;
  bytes_per_second: number | null;
  eta_seconds: number | null;
  stalled: boolean;
  arrival: "streamed" | "buffered" | null;
  filename: string | null;
  /** RFC 3339 in UTC, as all times. */
  created_at: string;
  updated_at: string;
  error: UploadError | null;
  /** Set by the page when the server responds 404 for this upload. */
  is_lost?: boolean;
  /** Set by the page while it waits to send this upload again; the state is "paused". */
  is_interrupted?: boolean;
  /** Set by the page for files of a folder: the path in it. */
  relative_path?: string;
  retransmitted_bytes?: number;
  parts?: { received: number; total: number | null } | null;
  content_type?: string | null;
  metadata?: Record<string, unknown> | null;
  started_at?: string | null;
  last_byte_at?: string | null;
  finished_at?: string | null;
  /** Only for operators who look at the uploads of others. */
  owner?: string;
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

/** A step of the application after or during the upload; a total of null is indeterminate. */
export interface Stage {
  name: string;
  done: number;
  total: number | null;
}

/** Why an upload did not complete. */
export interface UploadError {
  code: string;
  message: string;
  http_status?: number | null;
}

/** The uploads to subscribe to. */
export type Target = { all: true } | { group: string } | { upload_id: string };

/** Credentials for requests to a server. */
export interface Access {
  /** Headers of every request; a function is called before each request. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  /** As for `fetch`; "include" sends cookies to another origin. */
  credentials?: RequestCredentials;
}

export interface UploadOptions {
  /** The HTTP method; by default PUT, or POST with a `field`. */
  method?: string;
  headers?: Record<string, string>;
  /** The field of a multipart form that contains the file; by default the body is the file. */
  field?: string;
  /** The file name; by default that of the file. */
  name?: string;
  /** The path of the file in its folder, for `{path}` in the URL and for the row. */
  path?: string;
  group?: string;
  /** Send the file by tus 1.0.0: the URL creates uploads. An interrupted upload is resumed. */
  tus?: boolean;
  /** The size of one request, for a server that accepts Content-Range, or with `tus`. */
  chunkBytes?: number;
  /** The mount point of the progress routes; by default that of `bar`. */
  src?: string;
  /** The <upload-progress> that shows it; by default the first of the page, null for none. */
  bar?: Element | null;
}

/** A request that carries a file, or a part of it from byte `start` on. */
export interface Part {
  method: string;
  url: string;
  headers: Record<string, string>;
  body: Blob | FormData;
  start: number;
  /** The size of the whole file. */
  size?: number;
}

/** How a request has ended; without a response, the status is 0. */
export interface Outcome {
  status?: number;
  responseText?: string;
  /** Whether the same part may succeed later. */
  isTemporary?: boolean;
  /** Why the upload has failed, whatever the server reports. */
  error?: UploadError;
}

/** What forms use. */
export interface FormsHost {
  upload(file: Blob | FormData, url: string, options: UploadOptions): Transfer;
  createId(): string;
  clientOf(bar: Element): ProgressClient;
}

/** What the panel uses of its element. */
export interface PanelHost {
  element: UploadProgressElement;
  client: ProgressClient;
  format: Formatter;
  list: HTMLElement;
  total: Row;
  announcement: HTMLElement;
  /** The ids of the uploads that the sum counts. */
  current: Set<string>;
  /** The versions of the uploads that were cleared. */
  cleared: Set<string>;
  isFinal(upload: Snapshot): boolean;
  make<Tag extends keyof HTMLElementTagNameMap>(tag: Tag, part?: string, ...children: Node[]): HTMLElementTagNameMap[Tag];
  setText(node: Node, text: string): void;
  versionOf(upload: Snapshot): string;
  canRetry(upload: Snapshot): boolean;
  includes(upload: Snapshot): boolean;
  /** Update the panel in the next frame. */
  render(): void;
  /** Create or update the row of an upload. */
  show(upload: Snapshot): Row;
  /** Forget the row of an upload. */
  hide(uploadId: string): void;
}

import type { Signal } from "../vendor/preact-11.2.0.d.ts";
import type { Table } from "./rows.js";

/** What /api/v1 answers, as the page reads it. Ns = Unix nanoseconds in decimal digits; unknown is null. */

export type Ns = string;
export type State = "running" | "waiting" | "stale" | "lost" | "idle" | "ended";

export interface Session {
  id: string;
  session_id: string | null;
  name: string | null;
  title: string | null;
  service: string | null;
  user_id: string | null;
  conversation_id: string | null;
  state: State;
  phase: string;
  signal: string;
  waiting_for: string | null;
  outcome: string | null;
  end_reason: string | null;
  error: string | null;
  started_at: Ns;
  ended_at: Ns | null;
  last_seen_at: Ns;
  last_alive_at: Ns;
  duration: Ns | null;
  runs_count: number;
  spans: number;
  errors: number;
  traces_count: number;
  tasks_count: number;
  turns: number | null;
  model_calls: number;
  tool_calls: number;
  agents: string[];
  models: string[];
  tools: string[];
  input_tokens: number | null;
  output_tokens: number | null;
  cached_tokens: number | null;
  cost: number | null;
  missing_spans: number | null;
  inferred: boolean;
  revision: number;
}

export interface Run {
  root_id: string;
  trace_id: string;
  process: string;
  phase: string;
  signal: string;
  waiting_for: string | null;
  outcome: string | null;
  end_reason: string | null;
  started_at: Ns | null;
  ended_at: Ns | null;
  last_heard_at: Ns | null;
  resumed: boolean;
  child: boolean;
  interval: Ns;
  lease: Ns;
  open_spans: string[];
}

export interface Task {
  id: string;
  name: string | null;
  parent_id: string | null;
  state: string | null;
  started_at: Ns;
  ended_at: Ns | null;
  duration: Ns | null;
  spans: number;
  trace_id: string;
  span_id: string | null;
}

export interface TimelineEntry {
  at: Ns;
  state: string;
  detail: string | null;
  root_id: string;
}

export interface OpenSpan {
  trace_id: string;
  span_id: string;
  name: string;
  start: Ns;
  category: string;
}

export interface SessionDetail extends Session {
  runs: Run[];
  traces: string[];
  tasks: Task[];
  timeline: TimelineEntry[];
  open_spans: OpenSpan[];
  losses: Record<string, number>;
  /** No retention removes it. */
  pinned: boolean;
  event_id: string;
  now: Ns;
}

export interface SessionList {
  sessions: Session[];
  next: string | null;
  event_id: string;
  now: Ns;
  counts: Record<State, number>;
}

export interface Columns {
  trace: number[];
  id: string[];
  name: number[];
  category: number[];
  service: number[];
  start: number[];
  duration: (number | null)[];
  status: number[];
  flags: number[];
  task: number[];
  input_tokens: (number | null)[];
  output_tokens: (number | null)[];
  label: number[];
  kind: number[];
}

interface RowsHead {
  session: string;
  base: Ns;
  revision: number;
  traces: string[];
  names: string[];
  categories: string[];
  services: string[];
  tasks: string[];
  labels: string[];
}

/** Every span of a session once, in tree order. */
export interface RowsAnswer extends RowsHead {
  event_id: string;
  total: number;
  columns: Columns & { parent: number[]; depth: number[] };
}

/** Changed spans only, in no order. */
export interface RowsDelta extends RowsHead {
  columns: Columns & { parent_id: string[] };
}

export interface TranscriptItem {
  kind: "system" | "user" | "assistant" | "tool_call" | "tool_result" | "event";
  at: Ns | null;
  agent: string | null;
  model: string | null;
  text: string | null;
  name: string | null;
  call_id: string | null;
  arguments: unknown;
  result: unknown;
  ok: boolean | null;
  span: { trace_id: string; span_id: string } | null;
}

export interface Transcript {
  items: TranscriptItem[];
  next: string | null;
  event_id: string;
}

/** OTLP JSON's AnyValue. */
export interface AnyValue {
  stringValue?: string;
  boolValue?: boolean;
  intValue?: string | number;
  doubleValue?: number | string;
  arrayValue?: { values?: AnyValue[] };
  kvlistValue?: { values?: KeyValue[] };
  bytesValue?: string;
}
export interface KeyValue {
  key: string;
  value?: AnyValue;
}

export interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  traceState?: string;
  name?: string;
  kind?: number;
  startTimeUnixNano?: Ns;
  endTimeUnixNano?: Ns;
  attributes?: KeyValue[];
  events?: { name?: string; timeUnixNano?: Ns; attributes?: KeyValue[] }[];
  links?: { traceId: string; spanId: string; attributes?: KeyValue[] }[];
  status?: { code?: number; message?: string };
  droppedAttributesCount?: number;
  droppedEventsCount?: number;
  droppedLinksCount?: number;
}

export interface OtlpLog {
  timeUnixNano?: Ns;
  observedTimeUnixNano?: Ns;
  severityNumber?: number;
  severityText?: string;
  eventName?: string;
  body?: AnyValue;
  attributes?: KeyValue[];
}

export interface SpanDetail {
  event_id: string;
  session: string;
  span: OtlpSpan | null;
  resource: { attributes?: KeyValue[] } | null;
  scope: { name?: string; version?: string; attributes?: KeyValue[] } | null;
  schema_url: string | null;
  row: {
    name: string;
    category: string;
    start: Ns;
    end: Ns | null;
    status: number;
    flags: number;
    parent_id: string | null;
    service: string | null;
    task_id: string | null;
    agent: string | null;
    model: string | null;
    tool: string | null;
    input_tokens: number | null;
    output_tokens: number | null;
  };
  messages: TranscriptItem[];
  logs: OtlpLog[];
  received_at: Ns | null;
}

/** One thing that a filter can ask. */
export interface FilterField {
  name: string;
  kind: string;
  about: string;
  operators: string[];
  values: string[];
  nullable: boolean;
}

export interface FilterAnswer {
  fields: FilterField[];
  event_id: string;
}

/** What could stand at the caret; `whole` words are followed by the next. */
export interface Completion {
  label: string;
  text: string;
  about: string;
  whole: boolean;
}

export interface SearchHit {
  session: string;
  session_name: string | null;
  trace_id: string;
  span_id: string;
  name: string;
  start: Ns;
  snippet: string;
  marks: [number, number][];
  field: string;
}

export interface SearchProgress {
  reached: Ns | null;
  share: number;
  chunks: number;
  bytes: number;
}

/** One line of a streamed search. */
export interface SearchLine {
  hit?: SearchHit;
  progress?: SearchProgress;
  end?: { next: string | null; event_id: string };
}

/** RFC 9457, as every error of the API has it. */
export interface Problem {
  type?: string;
  title: string;
  status: number;
  detail?: string;
  instance?: string;
  request_id?: string;
  parameter?: string;
  allowed?: string[] | string;
  /** Of a wrong filter: the first character at fault, in code points, and the word. */
  position?: number;
  word?: string;
  /** Seconds, of a server that has too much to do. */
  retryAfter?: number;
}

/** Where the page is: the path, parsed. */
export type Place =
  | { page: "sessions" }
  | { page: "session"; id: string }
  | { page: "span"; trace: string; span: string }
  | { page: "search" }
  | { page: "status" }
  | { page: "unknown" };

/** The stream: opening, live, or cut since a time (ms). */
export interface Connection {
  state: "opening" | "live" | "cut" | "resting";
  since: number;
  retryAt: number;
}

/** What the waterfall needs of an opened session. */
export interface OpenedView {
  detail: Signal<SessionDetail | null>;
  table: Signal<Table | null>;
  version: Signal<number>;
  collapsed: Signal<ReadonlySet<number>>;
}

/** The answer of `status`; what an older server does not tell is left out. */
export interface Status {
  event_id?: string;
  version: string;
  started_at?: Ns;
  now?: Ns;
  idle_after?: Ns;
  python?: string;
  install?: string;
  trouble?: string | null;
  rates?: { seconds: number; requests: number; spans: number; logs: number };
  commits?: { count: number; p50: Ns | null; p99: Ns | null; max: Ns | null };
  retention?: {
    age: Ns | null;
    size: number | null;
    looked_at: Ns | null;
    removed_at: Ns | null;
    trouble: string | null;
  };
  emitters?: {
    service: string | null;
    sdk: string | null;
    sdk_version: string | null;
    others: boolean;
    spans: number;
    logs: number;
    sessions: number;
    sessions_exact: boolean;
    last_seen_at: Ns;
  }[];
  disk?: { folder: string; size: number | null; free: number | null };
  store?: {
    sessions: number;
    spans: number;
    logs: number;
    bytes_on_disk: number;
    bytes_free?: number;
    wal_bytes?: number;
    incomplete_sessions?: number;
    missing_spans?: number;
    schema_version?: number;
    engine?: string;
  };
  ingest?: Record<string, number>;
  receivers?: Record<string, Record<string, number>>;
  stream?: Record<string, number>;
  metrics_seen?: Record<string, number>;
  metric_sessions?: Record<string, number>;
  redacted?: Record<string, number>;
}

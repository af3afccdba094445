// A session with its life cycle, by hand (docs/protocol.md):  node examples/node/protocol.mjs [SECONDS]
import { randomBytes } from "node:crypto";
import { uptime } from "node:os"; // goes on while the machine sleeps

const endpoint = process.env.OTEL_EXPORTER_OTLP_ENDPOINT ?? "http://127.0.0.1:4318";
const [traceId, spanId, id, sender] = [16, 8, 10, 8].map((bytes) => randomBytes(bytes).toString("hex"));
const [began, every, counts] = [uptime(), 1, { started: 1, ended: 0, dropped: 0 }];
let seq = 0;

const now = () => `${Date.now()}000000`;
const value = (v) => (typeof v === "string" ? { stringValue: v } : Array.isArray(v) ? { arrayValue: { values: v.map(value) } } : { intValue: `${Math.round(v)}` });
const attributes = (all) => Object.entries({ "session.id": id, ...all }).map(([key, v]) => ({ key, value: value(v) }));
const resource = { attributes: [{ key: "service.name", value: { stringValue: "node-agent" } }] };
const post = (signal, body) => fetch(`${endpoint}/v1/${signal}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
const event = (eventName, more) => ({ eventName, timeUnixNano: now(), observedTimeUnixNano: now(), severityNumber: 5, traceId, spanId, attributes: attributes({ "otel_sessions.process.id": sender, "otel_sessions.seq": ++seq, "otel_sessions.elapsed": (uptime() - began) * 1e9, "otel_sessions.heartbeat": every, "otel_sessions.lease": 5 * every, ...more }) });
const tell = (...logRecords) => post("logs", { resourceLogs: [{ resource, scopeLogs: [{ scope: { name: "otel_sessions" }, logRecords }] }] });
const counted = () => Object.fromEntries(Object.entries(counts).map(([what, n]) => [`otel_sessions.session.spans.${what}`, n]));
const heartbeat = () => event("otel_sessions.session.heartbeat", { "otel_sessions.session.phase": "running", "otel_sessions.open_spans": [spanId], ...counted() });

const startTimeUnixNano = now();
await tell(event("session.start", { "otel_sessions.session.name": "by hand" }), heartbeat());
const timer = setInterval(() => tell(heartbeat()).catch(() => {}), every * 1000); // a lost heartbeat is not sent again
await new Promise((done) => setTimeout(done, 1000 * (process.argv[2] ?? 3))); // the agent's work
clearInterval(timer);
counts.ended++;
const ending = { "otel_sessions.session.outcome": "ok", "otel_sessions.session.end_reason": "completed", ...counted() };
await tell(event("session.end", ending));
await post("traces", { resourceSpans: [{ resource, scopeSpans: [{ scope: { name: "by hand" }, spans: [{ traceId, spanId, name: "session by hand", kind: 1, startTimeUnixNano, endTimeUnixNano: now(), attributes: attributes(ending) }] }] }] });
console.log(`session ${id}: ${endpoint}/sessions/${id}`);

// OTLP by hand, from any language that can POST JSON: no package is needed.
//
//   node examples/node/session.mjs
//
// With @opentelemetry/sdk-node it is the same: give every span the attribute session.id.

import { randomBytes } from "node:crypto";

const endpoint = process.env.OTEL_EXPORTER_OTLP_ENDPOINT ?? "http://127.0.0.1:4318";
const session = `node-${randomBytes(4).toString("hex")}`;
const traceId = randomBytes(16).toString("hex");

const attribute = (key, value) => ({
  key,
  value: typeof value === "number" ? { intValue: String(value) } : { stringValue: value },
});

function span(name, attributes, { parent, start, milliseconds }) {
  const from = BigInt(start) * 1_000_000n;
  return {
    traceId,
    spanId: randomBytes(8).toString("hex"),
    ...(parent && { parentSpanId: parent.spanId }),
    name,
    kind: 1,
    startTimeUnixNano: String(from),
    endTimeUnixNano: String(from + BigInt(milliseconds) * 1_000_000n),
    attributes: Object.entries({ "session.id": session, ...attributes }).map(([k, v]) => attribute(k, v)),
  };
}

const start = Date.now() - 1000;
const agent = span(
  "invoke_agent guide",
  { "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "guide" },
  { start, milliseconds: 1000 },
);
const call = span(
  "chat gpt-5",
  {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-5",
    "gen_ai.usage.input_tokens": 42,
    "gen_ai.usage.output_tokens": 7,
  },
  { parent: agent, start: start + 100, milliseconds: 800 },
);

const response = await fetch(`${endpoint}/v1/traces`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({
    resourceSpans: [
      {
        resource: { attributes: [attribute("service.name", "node-agent")] },
        scopeSpans: [{ scope: { name: "by-hand" }, spans: [agent, call] }],
      },
    ],
  }),
});
if (!response.ok) {
  console.error(`${endpoint} answered ${response.status}: ${await response.text()}`);
  process.exit(1);
}
console.log(`session ${session}: ${endpoint}/sessions/${session}`);

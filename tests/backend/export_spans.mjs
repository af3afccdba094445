// Sends one span with attributes of every type by the official exporters of Node, then prints its ids.
// node export_spans.mjs json|proto|grpc URL none|gzip; packages are looked up from the working directory.
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const [kind, url, compression] = process.argv.slice(2);
const { NodeTracerProvider, SimpleSpanProcessor } = require("@opentelemetry/sdk-trace-node");
const packages = { json: "http", proto: "proto", grpc: "grpc" };
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${packages[kind]}`);

let failure = null;
const exporter = new OTLPTraceExporter({ url, compression });
const watched = {
  export: (spans, done) =>
    exporter.export(spans, (result) => {
      failure = result.error ?? failure;
      done(result);
    }),
  shutdown: () => exporter.shutdown(),
  forceFlush: () => exporter.forceFlush(),
};
const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(watched)] });
const span = provider.getTracer("tests").startSpan("from node", {
  attributes: {
    "session.id": "node-session",
    false: false,
    zero: 0,
    empty: "",
    digits: "123",
    half: 0.5,
    texts: ["a", ""],
    flags: [true, false],
    none: [],
  },
});
span.end();
await provider.forceFlush();
await provider.shutdown();
if (failure) throw failure;
const { traceId, spanId } = span.spanContext();
console.log(JSON.stringify({ traceId, spanId }));

#!/bin/sh
# Rebuild static/vendor/ from pinned npm versions, in one bundle: two copies of Preact break its hooks.
# Needs deno 2.9.8 (`pip install deno==2.9.8`) and the npm registry; see vendoring.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
name=preact-11.2.0
cd "$work"

cat >package.json <<'JSON'
{"private": true, "dependencies": {"preact": "11.2.0", "@preact/signals": "2.11.4", "@preact/signals-core": "1.14.5", "htm": "3.1.1"}}
JSON
cat >entry.js <<'JS'
import { h } from "preact";
import htm from "htm";
export { Fragment, h, render } from "preact";
export { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
export { batch, computed, effect, signal, untracked, useComputed, useSignal, useSignalEffect } from "@preact/signals";
export const html = htm.bind(h);
JS
deno install --quiet --node-modules-dir=auto
deno bundle --quiet --platform browser --minify --node-modules-dir=auto -o bundle.js entry.js

{
  echo "// @ts-self-types=\"./$name.d.ts\""
  echo "// @ts-nocheck"
  echo '/*! preact 11.2.0 + hooks, @preact/signals 2.11.4 (core 1.14.5), htm 3.1.1; LICENSES.txt, made by vendor.sh */'
  cat bundle.js
} >"$here/static/vendor/$name.js"

{
  for package in preact @preact/signals @preact/signals-core htm; do
    echo "==== $package ===="
    echo
    cat "node_modules/$package/LICENSE"
    echo
  done
} >"$here/static/vendor/LICENSES.txt"

cd "$here/static/vendor"
sha256sum LICENSES.txt "$name.d.ts" "$name.js" >SHA256SUMS

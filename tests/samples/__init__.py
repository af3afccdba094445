"""Small telemetry of our own making, one trap a folder, in the form of recordings.

Each folder holds a `recording.json` (`emitter`, `version`, `scenario`, `expected`, `requests`) and the bodies as
they are on the wire, decompressed; `expected` says which sessions a reader must find, and how much in each.
`python tests/samples/make.py` writes them all anew. The three folders named after emitters are real
recordings; README.md tells of them.

chunked-json             OTLP's JSON as Node sends it: chunked, upper-case hex ids, 64-bit integers as
                         numbers and as strings, empty values, fields that nobody knows, half an emoji
repeated-key             an attribute key twice on one span, first as a number, then as a text (Codex)
quoted-session-id        a session id in JSON quotes (AgentScope 1)
children-first           a trace whose children come before their root, which alone knows the session
cycle                    parents in a circle, a span that is its own parent, an orphan
nested-values            maps, arrays, bytes and empty values in attributes and in log bodies
logs-only                a session that no span tells of, by Codex's logs
sent-twice               the same requests twice, as clients do whose ack was lost
two-keys-one-session     one id as a conversation on spans and as session.id in logs of the same service
two-sessions-one-trace   two ids within one trace: each span keeps its own
life-cycle               start, heartbeat, an announced span, the end event and the root of one run
no-id                    a trace that names no session, and is one by itself
"""

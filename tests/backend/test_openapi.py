"""The description of the API is complete, valid and true of real answers."""

from __future__ import annotations

import asyncio
import json
import re

import jsonschema
import pytest
from aiohttp import ClientSession
from api_client import Reader
from otlp_requests import LifeCycle, logs, new_span_id, span, traces

from otel_sessions.backend import api
from otel_sessions.backend.api.openapi import OPERATIONS, openapi_json

DESCRIPTION = openapi_json()


def test_every_route_is_described_and_every_description_has_its_route():
    """Neither is the other's dream."""
    routes = {(route.method, re.sub(r"{(\w+):[^}]*}", r"{\1}", route.path)) for route in api.routes(None)}
    assert routes == {(operation.method.upper(), operation.path) for operation in OPERATIONS}


def test_every_parameter_of_a_path_is_described():
    """A name in braces is a parameter in the path, and nothing else is."""
    for operation in OPERATIONS:
        in_path = {parameter.name for parameter in operation.parameters if parameter.where == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", operation.path)), operation.path


def test_the_schemas_are_valid_and_refer_only_to_each_other():
    """Each is a schema of the dialect that OpenAPI 3.1 names."""
    for name, schema in DESCRIPTION["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for target in re.findall(r"'\$ref': '([^']+)'", str(schema)):
            assert target.removeprefix("#/components/schemas/") in DESCRIPTION["components"]["schemas"], name


def check(schema: dict, value: object) -> None:
    """Compare a value with a schema of the description."""
    whole = {**schema, "components": DESCRIPTION["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def test_a_schema_refuses_what_it_does_not_describe():
    """Else the tests below would prove nothing."""
    with pytest.raises(jsonschema.ValidationError):
        check({"$ref": "#/components/schemas/Hit"}, {"session": "s", "surprise": 1})


def answer_schema(path: str, status: int = 200) -> dict:
    """Return the schema of an answer."""
    responses = DESCRIPTION["paths"][path]["get"]["responses"]
    content = responses.get(str(status), responses["default"])["content"]
    (media,) = content.values()
    return media["schema"]


ROOT, TRACE, CHAT = bytes.fromhex("01" * 8), bytes.fromhex("ab" * 16), bytes.fromhex("02" * 8)


async def fill(client: ClientSession, url: str) -> None:
    """Store sessions of several kinds: alive with an open span and a task, ended, inferred, broken."""
    reader = Reader(client, url)
    alive = LifeCycle("alive", root=ROOT, trace=TRACE)
    await reader.post_logs(
        logs([*alive.start(), alive.opened(CHAT, "chat gpt", ROOT), alive.waiting("approval")])
    )
    ended = LifeCycle("ended")
    await reader.post_logs(logs([*ended.start(), ended.end()]))
    task = {"otel_sessions__task__id": "t1", "otel_sessions__task__name": "look up"}
    usage = {
        "gen_ai__usage__input_tokens": 5,
        "gen_ai__operation__name": "chat",
        "gen_ai__request__model": "m",
    }
    said = {"gen_ai__output__messages": '[{"role":"assistant","parts":[{"type":"text","content":"hello"}]}]'}
    await reader.post_traces(
        traces(
            [
                span("alive", "task look up", trace=TRACE, parent=ROOT, **task),
                span("ended", "chat m", **usage, **said),
                span("guessed", "orphan", parent=new_span_id(), error=True),
            ]
        )
    )


def test_real_answers_are_as_described(backend):
    """Every JSON answer of a server with data fits its schema, fields neither missing nor undescribed."""

    async def run() -> None:
        async with ClientSession() as client:
            await fill(client, backend.url)
            reader = Reader(client, backend.url)
            listed = await reader.get("/api/v1/sessions")
            check(answer_schema("/api/v1/sessions"), listed)
            assert {session["session_id"] for session in listed["sessions"]} == {"alive", "ended", "guessed"}
            for session in listed["sessions"]:
                base = f"/api/v1/sessions/{session['id']}"
                detail = await reader.get(base)
                check(answer_schema("/api/v1/sessions/{id}"), detail)
                check({"$ref": "#/components/schemas/Rows"}, await reader.get(f"{base}/rows"))
                check({"$ref": "#/components/schemas/RowsDelta"}, await reader.get(f"{base}/rows?after=0"))
                for part in ("transcript", "otlp"):
                    check(
                        answer_schema(f"/api/v1/sessions/{{id}}/{part}"), await reader.get(f"{base}/{part}")
                    )
            for at in (ROOT, CHAT):
                path = f"/api/v1/spans/{TRACE.hex()}/{at.hex()}"
                check(answer_schema("/api/v1/spans/{trace_id}/{span_id}"), await reader.get(path))
            check(answer_schema("/api/v1/search"), await reader.get("/api/v1/search?q=hello"))
            async with client.get(f"{backend.url}/api/v1/search/stream?q=hello&limit=1") as response:
                lines = [json.loads(line) async for line in response.content]
            assert [next(iter(line)) for line in lines] == ["hit", "progress", "end"]
            for line in lines:
                check(answer_schema("/api/v1/search/stream"), line)
            check(answer_schema("/api/v1/filters"), await reader.get("/api/v1/filters"))
            check(answer_schema("/api/v1/status"), await reader.get("/api/v1/status"))
            assert await reader.get("/api/v1/openapi.json") == DESCRIPTION

    asyncio.run(run())


def test_real_problems_are_as_described(backend):
    """A failure is described like any answer."""

    async def run() -> None:
        async with ClientSession() as client:
            for path, status, described in [
                ("/api/v1/sessions?state=on", 400, "/api/v1/sessions"),
                ("/api/v1/sessions/nobody", 404, "/api/v1/sessions/{id}"),
                ("/api/v1/search", 400, "/api/v1/search"),
                ("/api/v1/stream?session=nobody", 404, "/api/v1/stream"),
            ]:
                async with client.get(backend.url + path) as response:
                    assert response.status == status
                    assert str(status) in DESCRIPTION["paths"][described]["get"]["responses"]
                    check(answer_schema(described, status), await response.json(content_type=None))

    asyncio.run(run())


def test_real_events_are_as_described(backend):
    """What the stream tells has schemas too."""

    async def run() -> None:
        async with ClientSession() as client:
            reader = Reader(client, backend.url)
            start = (await reader.get("/api/v1/sessions"))["event_id"]
            await fill(client, backend.url)
            session = (await reader.get("/api/v1/sessions/ended"))["id"]
            schemas = {"session": "SessionEvent", "rows": "RowsEvent"}
            seen = set()
            async with reader.stream(after=start, session=session) as events:
                async for event in events:
                    check({"$ref": f"#/components/schemas/{schemas[event.name]}"}, event.data)
                    seen.add(event.name)
                    if seen == set(schemas):
                        return

    asyncio.run(run())

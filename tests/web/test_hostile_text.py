"""All text of models, tools and users is hostile; none of it is ever more than text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from canned import (
    SECOND,
    CannedBackend,
    Span,
    a_session,
    a_span_in_full,
    a_status,
    an_answer_of_rows,
    an_emitter,
)
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Open = Callable[..., Page]

BASE = 1_763_730_000_000_000_000
ATTACKS = [
    "<script>document.title = 'run'</script>",
    "<img src=x onerror=\"document.title = 'run'\">",
    "\"><svg onload=document.title='run'>",
    "javascript:document.title='run'",
    "data:text/html,<script>document.title='run'</script>",
    "</title><iframe srcdoc='<script>top.document.title=1</script>'>",
    "[click](javascript:document.title='run') ![x](http://evil.test/x.png)",
    "${document.title='run'} {{constructor.constructor('document.title=1')()}}",
    "user\u202egnp.exe\u0000\u001b[31m\u2066",
    "<style>*{display:none}</style><link rel=stylesheet href=//evil.test/x.css>",
    "http://evil.test/<b>x</b>",
    "__proto__",
]


def value(text: str) -> dict[str, Any]:
    """Make an attribute whose key and nested value are the text."""
    nested = {
        "kvlistValue": {
            "values": [{"key": text, "value": {"arrayValue": {"values": [{"stringValue": text}]}}}]
        }
    }
    return {"key": text, "value": nested}


def poison(canned: CannedBackend, text: str) -> None:
    """Put one attack into every field that comes from outside."""
    span_id = "a" * 16
    fields = dict.fromkeys(
        ("session_id", "name", "title", "service", "user_id", "conversation_id", "waiting_for"), text
    )
    canned.sessions["s"] = a_session(
        "s", **fields, start=BASE, state="waiting", models=[text], agents=[text], missing_spans=2
    )
    span = Span(span_id, "", text, 0, SECOND, "model", status=2, flags=32, label=text, service=text)
    canned.rows["s"] = an_answer_of_rows("s", [span], BASE)
    canned.rows["s"]["categories"] = [text, *canned.rows["s"]["categories"][1:]]
    item = {
        "at": str(BASE),
        "agent": text,
        "model": text,
        "text": text,
        "name": text,
        "call_id": text,
        "ok": False,
    }
    item |= {"arguments": {text: text}, "result": text, "span": {"trace_id": span.trace, "span_id": span_id}}
    items = [
        item | {"kind": kind}
        for kind in ("system", "user", "assistant", "tool_call", "tool_result", "event", text)
    ]
    canned.transcripts["s"] = items
    task = {
        "id": text,
        "name": text,
        "parent_id": text,
        "state": text,
        "started_at": str(BASE),
        "ended_at": None,
    }
    run = {
        "root_id": text,
        "trace_id": text,
        "process": text,
        "phase": text,
        "signal": text,
        "waiting_for": text,
    }
    run |= {"outcome": text, "end_reason": text, "started_at": None, "ended_at": None, "last_heard_at": None}
    run |= {"resumed": True, "child": True, "interval": "1", "lease": "1", "open_spans": [text]}
    canned.details["s"] = {
        "tasks": [task | {"duration": None, "spans": 1, "trace_id": span.trace, "span_id": span_id}],
        "runs": [run],
        "timeline": [{"at": str(BASE), "state": text, "detail": text, "root_id": text}],
        "losses": {text: 1},
    }
    full = a_span_in_full("s", span, BASE, messages=items)
    full["row"] |= dict.fromkeys(("agent", "model", "tool", "task_id", "service"), text)
    full["span"] |= {
        "attributes": [value(text), {"key": text, "value": {"stringValue": text}}],
        "status": {"code": 2, "message": text},
        "events": [
            {"name": text, "timeUnixNano": str(BASE), "attributes": [value(text)]},
            {
                "name": "exception",
                "attributes": [
                    {"key": f"exception.{k}", "value": {"stringValue": text}}
                    for k in ("type", "message", "stacktrace")
                ],
            },
        ],
        "links": [{"traceId": text, "spanId": text, "attributes": [value(text)]}],
    }
    full["scope"] = {"name": text, "version": text}
    full["resource"] = {"attributes": [value(text)]}
    full["logs"] = [
        {"eventName": text, "severityText": text, "body": {"stringValue": text}, "attributes": [value(text)]}
    ]
    canned.spans[span_id] = full
    hit = {"session": "s", "session_name": text, "trace_id": span.trace, "span_id": span_id, "name": text}
    canned.hits = [hit | {"start": str(BASE), "snippet": f"before {text} after"}]
    canned.status = a_status(
        version=text,
        trouble=text,
        python=text,
        install=text,
        emitters=[an_emitter(text, sdk=text, sdk_version=text)],
        disk={"folder": text, "size": 100, "free": 1},
        receivers={text: {text: 3}},
        metrics_seen={text: 1},
        metric_sessions={text: 1},
        redacted={text: 2},
        retention={"age": "1", "size": 1, "looked_at": None, "removed_at": None, "trouble": text},
    )
    canned.status["store"]["engine"] = text


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_attacks_in_every_field_run_nothing(canned: CannedBackend, open_page: Open, text: str) -> None:
    """Every view shows the text as text: no element, no handler, no request, no breach of the policy comes of it."""
    poison(canned, text)
    page = open_page(canned)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    span = f"{canned.rows['s']['traces'][0]}/{'a' * 16}"
    places = {
        "/sessions": ".list tbody tr",
        "/sessions/s?span=" + "a" * 16 + "&detail=1": ".panel .attributes",
        "/sessions/s?view=transcript": "article.msg",
        "/sessions/s?view=tasks": ".tasks tbody tr",
        "/sessions/s?view=timeline": ".changes li",
        f"/spans/{span}": ".attributes",
        "/search?q=before": ".hit",
        "/status": ".group",
    }
    for path, landmark in places.items():
        page.goto(canned.url + path)
        expect(page.locator(landmark).first).to_be_visible()
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
        assert page.title().endswith("otel-sessions"), page.title()
        assert (
            page.locator(
                "#app script, #app style, #app iframe, #app img, #app link, #app object, #app form"
            ).count()
            == 0
        )
        hrefs = page.locator("a[href]").evaluate_all("all => all.map((a) => a.protocol)")
        assert set(hrefs) <= {"http:", "https:"}, hrefs
        for outward in page.locator("a[target=_blank]").all():
            same = outward.evaluate("a => a.origin === location.origin")
            assert same or outward.get_attribute("rel") == "noopener noreferrer"
        assert "\u202e" not in page.locator("#app").inner_text()


def test_an_attack_in_the_address_is_text_too(canned: CannedBackend, open_page: Open) -> None:
    """What stands in the query or the path is shown, not run."""
    canned.sessions["s"] = a_session("s")
    for path in (
        "/sessions?q=%3Cimg+src=x+onerror=alert(1)%3E&state=%3Cscript%3E",
        "/search?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        "/sessions/%3Cscript%3Ealert(1)%3C%2Fscript%3E?view=%3Cb%3E&span=%22&from=1e9&to=x",
    ):
        page = open_page(canned, path, forgiven=("404",))
        expect(page.locator("main")).to_be_visible()
        expect(page.locator("main .skeleton")).to_have_count(0)
        assert page.locator("#app script, #app img").count() == 0

"""Claims about programs of which this project was born: what used to go wrong with each does not, see programs/."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from environments import AGENTSCOPE, CREWAI, LLAMA_INDEX
from span_collector import Collector

from otel_sessions import semconv

pytestmark = pytest.mark.frameworks
Run = Callable[..., str]


def whole_sessions(collector: Collector) -> list[str]:
    """Return the names of the sessions, once all their spans are below their own root."""
    spans = collector.spans()
    roots = {span.session_id: span for span in spans if semconv.SESSION_NAME in span.attributes}
    ids = {span.span_id for span in spans}
    assert [span.name for span in spans if span.parent_id and span.parent_id not in ids] == []
    for session_id, root in roots.items():
        own = [span for span in spans if span.session_id == session_id]
        assert {span.trace_id for span in own} == {root.trace_id}
        assert len(own) == root.attributes[semconv.SPANS_ENDED]
    return [root.attributes[semconv.SESSION_NAME] for root in roots.values()]


def test_sessions_in_the_manner_of_agentops_are_all_there(run: Run, collector: Collector):
    """Each start, re-init and end gives a session of its own with its tags; threads end their own."""
    run(None, "agentops_style")
    names = whole_sessions(collector)
    assert Counter(names) == Counter(
        ["session"] * 2 + ["agentops-style", "a", "b", "thread one", "thread two"]
    )
    roots = {root.attributes[semconv.SESSION_NAME]: root for root in collector.spans() if root.end_reason}
    ends = [(root.end_reason, root.outcome) for root in collector.spans() if root.end_reason]
    assert Counter(ends) == Counter(
        [("completed", "ok")] * 4 + [("superseded", None)] + [("completed", "error")] * 2
    )
    assert roots["a"].attributes[semconv.SESSION_TAGS] == ["blue", "a"]
    assert (roots["thread one"].status, roots["thread one"].message) == ("ERROR", "one failed")
    assert roots["thread two"].attributes[semconv.SPANS_ENDED] == 5
    outside = [span for span in collector.spans() if span.session_id is None]
    assert [span.name for span in outside] == ["chat m", "operation"]


@pytest.mark.parametrize("how", ["plain", "openinference", "llama-index"])
def test_banana_and_sun_are_answered_each_by_its_own(run: Run, collector: Collector, how: str):
    """Two tasks of one session, and three at once: own answers, own spans, whoever else traces them."""
    said = run(LLAMA_INDEX, "llama_two_questions", how)
    assert said == "answer to banana | answer to sun\nanswer to one | answer to two | answer to three\n"
    assert whole_sessions(collector) == ["chat"]
    spans = collector.spans()
    tasks = {
        span.attributes[semconv.TASK_ID]: span for span in spans if semconv.TASK_STATE in span.attributes
    }
    assert len(tasks) == 5
    for task in tasks.values():
        question = task.attributes["question"]
        assert task.attributes[semconv.TASK_RESULT] == f"answer to {question}"
        asked = [
            span.attributes["asked"]
            for span in spans
            if span.attributes.get(semconv.TASK_ID) == task.attributes[semconv.TASK_ID]
            and "asked" in span.attributes
        ]
        assert asked == [question, question]
    theirs = [span for span in spans if span.name.startswith(("Flow.", "Workflow."))]
    assert bool(theirs) is (how != "plain")
    assert {span.session_id for span in theirs} <= {span.session_id for span in spans}
    assert None not in {span.session_id for span in theirs}


@pytest.mark.parametrize(
    "how", [[], ["instrument"], ["before", "instrument"]], ids=["plain", "after", "before"]
)
def test_a_kickoff_ends_no_session(run: Run, collector: Collector, how: list[str]):
    """Two in one session, a third in a thread: each in its own task, all in the session, which ends once."""
    run(CREWAI, "crew_two_kickoffs", *how)
    assert whole_sessions(collector) == ["crew"]
    assert collector.span("session crew").outcome == "ok"
    for name in ("first", "second", "in a thread"):
        task = collector.span(f"task {name}").attributes[semconv.TASK_ID]
        own = Counter(span.name for span in collector.spans() if span.attributes.get(semconv.TASK_ID) == task)
        assert (own["execute_tool adder"], own["chat offline"]) == (1, 2)
    theirs = [span for span in collector.spans() if "openinference.span.kind" in span.attributes]
    assert bool(theirs) is ("instrument" in how)
    assert None not in {span.session_id for span in theirs}


@pytest.mark.parametrize("order", ["before", "after", "repeatedly"])
def test_agentscopes_own_spans_are_in_the_session(run: Run, collector: Collector, order: str):
    """Whoever sets tracing up first: each span comes once, and bears its session and AgentScope's conversation."""
    run(AGENTSCOPE, "agentscope_agent", order)
    assert sorted(whole_sessions(collector)) == ["one", "two"]
    for name in ("one", "two"):
        own = [s for s in collector.spans() if s.session_id == collector.span(f"session {name}").session_id]
        conversations = {s.attributes.get(semconv.GEN_AI_CONVERSATION_ID) for s in own} - {None}
        assert conversations == {f"state of {name}"}
        assert Counter(s.name for s in own)["execute_tool add"] == 1


@pytest.mark.parametrize("order", ["before", "after", "repeatedly"])
@pytest.mark.parametrize("vendor", ["openinference", "llama-index"])
def test_whoever_is_set_up_first_each_span_is_exported_once(
    run: Run, collector: Collector, vendor: str, order: str
):
    """One provider is in use, and theirs is never replaced; what they trace is in the session, and comes once."""
    run(LLAMA_INDEX, "llama_set_up", vendor, order)
    assert sorted(whole_sessions(collector)) == ["one", "two"]
    assert len(collector.spans("execute_tool t")) == 2
    theirs = [span for span in collector.spans() if "only" in span.name]
    assert len(theirs) == 2
    assert {span.session_id for span in theirs} == {
        root.session_id for root in collector.spans() if root.end_reason
    }

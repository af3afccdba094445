"""Several sessions in one process, with tags and `init()` again in between, as programs for AgentOps are written.

What used to go wrong: a second `init()` gave the ended session back, so that `end_session()` found none ("no
current session", AgentOps #290) and what ran was a trace of its own; `end_session()` in one thread ended the
session of another; a start while another was open nested in it for ever.
"""

import threading

import otel_sessions


@otel_sessions.step("operation")
def operation() -> None:
    """Do something."""
    with otel_sessions.model_call("m") as call:
        call.record(input_tokens=3, output_tokens=1)


def by_thread(name: str, barrier: threading.Barrier) -> None:
    """Run a session in a thread, at the same time as another one."""
    otel_sessions.start_session(name, tags=[name])
    barrier.wait()
    operation()
    if name == "thread one":
        assert otel_sessions.end_session("error", message="one failed")
    barrier.wait()
    if name == "thread two":
        operation()
        assert otel_sessions.end_session("ok")


assert otel_sessions.end_session() is False  # before init: said once, nothing raised
otel_sessions.init(service_name="agentops-style", auto_session=True)
operation()
assert otel_sessions.end_session("ok")
assert otel_sessions.end_session("ok") is False

otel_sessions.init(auto_session=True)
operation()
again = otel_sessions.init(auto_session=True)  # without an end: the one before is superseded
operation()
assert otel_sessions.end_session("error", message="no luck")

for name in ("a", "b"):
    session = otel_sessions.start_session(name, tags=["blue", name])
    operation()
    otel_sessions.init()
    assert otel_sessions.current_session() is session
    session.end()

meeting = threading.Barrier(2, timeout=20)
threads = [threading.Thread(target=by_thread, args=(name, meeting)) for name in ("thread one", "thread two")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
operation()  # in no session

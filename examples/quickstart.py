"""An agent in ten lines: start `otel-sessions serve`, run this, open http://127.0.0.1:4318."""

import time

import otel_sessions

otel_sessions.init(service_name="travel")

with otel_sessions.session("plan trip", title="Lisbon in May") as session:
    with otel_sessions.agent("planner"), otel_sessions.tool("search_flights"):
        time.sleep(0.5)  # your code here
    with session.waiting("approval"):
        time.sleep(1)  # or input("Book it? [Enter] ")

"""What runs inside the agent's process: sessions, tasks and spans, and their way out."""

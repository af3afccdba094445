"""The demo's cast: an agent program, the model it speaks to, a worker, a foreign emitter, and their leash."""

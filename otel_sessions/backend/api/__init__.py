"""The API under /api/v1/: what is stored and what happens, as JSON and as a stream."""

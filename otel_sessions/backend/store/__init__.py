"""Stores: what they do (`base`), and the one in an SQLite file (`sqlite`)."""

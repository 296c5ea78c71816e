"""Deterministic Temporal code and nothing else: no ORM, no Django, sandbox on."""

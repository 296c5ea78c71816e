"""Fixtures for all tests. The servers among them are in `tests.servers`, a plugin that is loaded earlier."""

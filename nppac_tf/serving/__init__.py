"""Policies outside this package: files for servers and robots, and a small server."""

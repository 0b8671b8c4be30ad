"""Readers of demonstration files, one module a format."""

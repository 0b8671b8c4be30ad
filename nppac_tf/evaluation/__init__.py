"""Evaluates policies: metrics with intervals, prediction of failures, videos."""

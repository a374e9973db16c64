"""Health checks: what to know before believing a number."""

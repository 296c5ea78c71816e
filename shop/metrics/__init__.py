"""What Prometheus scrapes, at `/metrics` of every worker and web process. `docs/metrics.md` lists it.

What has happened to orders, money and messages is counted from the books at scrape time: so it survives restarts,
misses nothing that a process died before telling, and is the same in every process. Rules take the `max` of it over
processes, never the sum. What only one process knows (its calls of providers, the Temporal SDK's figures) is summed.
"""

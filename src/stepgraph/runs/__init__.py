"""Training runs: what one is, how it begins, goes on, is scored and leaves a run directory.

Whoever shows a run to people (a terminal, an app, a page) is a `stepgraph.runs.events.Reporter`;
what is trained, saved and resumed is the same for all of them.
"""

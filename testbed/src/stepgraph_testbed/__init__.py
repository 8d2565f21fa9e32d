"""The testbed: stepgraph's checks on a Mac or an iPhone."""

"""From a graph to a program a device can run: one pass per file, and the list that orders them."""

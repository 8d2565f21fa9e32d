"""The demo: train a network on the device in your hand, and see it."""

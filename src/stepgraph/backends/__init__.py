"""Devices: each turns a program into something that runs. None imports another."""

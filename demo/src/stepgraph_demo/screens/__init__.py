"""One screen a file. Each builds its content for a width, and refreshes it from a view."""

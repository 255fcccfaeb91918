"""What the commands do, as plain functions; the command line only parses."""

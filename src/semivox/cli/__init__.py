"""The command line: parses, calls the verbs, shows what they return, turns errors into clear messages."""

from semivox.cli.app import main

__all__ = ["main"]

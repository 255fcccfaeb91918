"""The command line: it parses, calls the verbs, shows what they return, and turns errors into clear messages."""

from semivox.cli.app import main

__all__ = ["main"]

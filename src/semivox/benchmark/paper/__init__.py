"""The tables and figures of arXiv 2509.13084, each made again by one command."""

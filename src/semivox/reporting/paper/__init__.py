"""How the tables and figures of arXiv 2509.13084 look."""

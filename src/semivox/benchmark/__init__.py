"""Compare methods: grids of runs, tables, and the published figures."""

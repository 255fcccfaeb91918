"""The report: one self-contained HTML page a run, or for several runs side by side."""

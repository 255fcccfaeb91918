"""Which cases there are: data sets, layouts, splits, checks, phantoms, importers."""

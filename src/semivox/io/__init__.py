"""One scan: read files of every supported format into arrays, and write them back."""

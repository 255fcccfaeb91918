"""Published data sets from their official downloads, by the published protocol.

A recipe finds the cases of a download, says what is missing and what does not belong, and puts them into the
order of a published split. Without `crop="published"` the scans keep their grid; that crop exists to repeat
published tables, and for the left atrium and the pancreas it was made with the labels of all cases.
"""

"""From a trained model and a scan to a segmentation on the scanner's grid."""

"""Camera files to mosaics: reading, calibration, developing, and synthetic sensors."""

"""The run directory: prepared, judged, loaded and saved."""

"""What a finished run is asked: its answers, its exits, predictions for new files."""

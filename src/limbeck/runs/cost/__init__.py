"""What a recipe will cost, found before anything is spent."""

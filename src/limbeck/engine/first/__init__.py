"""What is found before the first step: on the first batch, its labels, the teacher's first answers."""

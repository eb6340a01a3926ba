"""A search for settings that is fair: the baseline and every method get as many trials and as much time.

What a search selects by is a validation split; the winners are then trained anew on seeds that the search has not
used, and only then the test set is read.
"""

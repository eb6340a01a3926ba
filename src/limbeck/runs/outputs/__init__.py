"""A recipe's teacher outputs: what is asked, where they are kept, and where they came from."""

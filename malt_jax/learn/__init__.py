"""Training: rows from trees, packed, scored, and what is minimised over them."""

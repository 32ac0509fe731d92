"""The catalogue: which releases there are, and which node has to have them."""

"""Remote nodes: other masters that have what is placed on them."""

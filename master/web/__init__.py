"""The web server: takes requests in whole, hands them to threads, and holds nodes that wait."""

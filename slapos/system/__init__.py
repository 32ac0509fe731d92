"""The doors to the outside: time, chance, other programs, files. All else gets them handed in."""

"""The resident agent: hears of changes at once, works on many things at a time, never sleeps."""

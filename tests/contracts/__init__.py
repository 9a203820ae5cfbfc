"""One file per extension point: what every registered one of it keeps, over the whole registry."""

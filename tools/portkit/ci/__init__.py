"""What only CI does: which cells there are, the toolkit of a cell, the page of their results."""

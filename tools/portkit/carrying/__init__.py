"""Where a piece of a patch belongs in the new file, and how sure we are."""

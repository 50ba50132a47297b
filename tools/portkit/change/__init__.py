"""The one way files of the repository change, and undo."""

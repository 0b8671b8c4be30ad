"""File formats of demonstrations: one reader per module, and the dispatcher `loading`."""

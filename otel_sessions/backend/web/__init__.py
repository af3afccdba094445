"""The page: its shell, its files, and who may ask for them."""

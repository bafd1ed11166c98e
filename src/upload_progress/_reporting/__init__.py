"""Reports: when uploads are due, and storing and publishing them."""

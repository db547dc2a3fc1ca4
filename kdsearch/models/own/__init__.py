"""Networks of our own: every public function of a file here is a network's name.

A function takes what it needs of `classes`, `channels` and `size` (height, width), and further arguments with defaults.
"""

"""The data sets: one module each, with a function `load(settings)` that returns a Source or what a person's own may.

A module that has `member(name)` and `TITLE` is a family: it loads every set whose name `member` does not answer with
None. Modules import their heavy libraries inside functions.
"""

"""Pictures and their low-resolution versions: what super-resolution learns from."""

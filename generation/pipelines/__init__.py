"""One product, one class, one call."""

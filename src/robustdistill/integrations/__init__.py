"""The same quantities in the shape that other libraries expect. Each module imports its library: import it by name."""

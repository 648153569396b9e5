"""What Deeplearning4j wrote, as arrays and torch modules, and back; imported by module, so that NumPy does for data."""

"""What a third party needs to check an engine of its own: conformance suites and fault injectors."""

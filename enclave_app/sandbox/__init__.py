"""Where parsers of foreign files and agreed functions run: processes that never shared memory with a key (R6)."""

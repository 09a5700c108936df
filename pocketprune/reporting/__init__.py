"""What a person reads of a result: tables for a terminal, and self-contained pages."""

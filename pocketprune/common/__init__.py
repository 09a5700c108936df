"""Small tools that every other folder may use."""

"""Compression while training: masks on channel groups that grow by a schedule, and the removal of what they hide."""

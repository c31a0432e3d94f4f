"""The end-to-end demonstration: from nothing (or a user's own images) to a report, through the public commands."""

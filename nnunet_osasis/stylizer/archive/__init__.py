"""Restyle whole folders: records, shards, reading and writing beside the work."""

"""Scoring of more photographs than one machine holds: shards on any store, by Ray."""

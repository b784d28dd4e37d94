"""The decoder, the open families that it covers, their weights on disk."""

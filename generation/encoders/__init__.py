"""Inputs turned into embeddings."""

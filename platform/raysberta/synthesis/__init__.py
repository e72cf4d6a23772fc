"""Pairs written by models."""

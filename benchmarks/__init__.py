"""Measurements that the README and the docs quote; nothing here is a test."""

"""Poses: keypoints of each object, found in heat maps of its box."""

"""Weakly-supervised temporal action localization: which action happens from when to when, learnt from video labels."""

"""The parts of `tools/torture.py`: a small world, mutations, damage, kills."""

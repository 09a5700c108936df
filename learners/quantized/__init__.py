"""Quantisation to integers as a learner, alone or after another one."""

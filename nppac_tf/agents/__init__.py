"""Agents: N-PPAC, its TF-Agents interface and networks, and the algorithms it is compared with."""

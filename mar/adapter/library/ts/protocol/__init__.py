"""The functions of the protocol that handlers call."""

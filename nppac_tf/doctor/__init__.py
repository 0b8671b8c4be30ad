"""The demonstration doctor: what is wrong with a data set, and what to do about it."""

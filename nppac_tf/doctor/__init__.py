"""The demonstration doctor: finds defects of a data set and advises what to do about them."""

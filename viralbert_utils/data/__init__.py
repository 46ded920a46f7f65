"""Tables and data sets: reading, cleaning, splitting, combining, label names."""
